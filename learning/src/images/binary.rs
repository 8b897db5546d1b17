//! The binary version of CIFAR-10: records of a label and 32 x 32 bytes of red, of green, and of blue (Krizhevsky, "Learning
//! Multiple Layers of Features from Tiny Images", 2009).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{FileFault, Found, ImagesError, Wanted, at};
use crate::source::open;

pub(super) fn read(path: &Path, wanted: &Wanted, found: &mut Found) -> Result<(), ImagesError> {
    if wanted.size != [SIDE, SIDE, CHANNELS] {
        return Err(at(path)(FileFault::Size));
    }
    for file in files(path)? {
        let mut bytes = Vec::new();
        let read = open(&file).and_then(|source| source.take(MAX_FILE).read_to_end(&mut bytes));
        read.map_err(|error| at(&file)(error.into()))?;
        for (record, bytes) in bytes.chunks(1 + IMAGE).enumerate() {
            let wrong = |problem| at(&file)(FileFault::Record { record, problem });
            let (&label, planes) = bytes
                .split_first()
                .filter(|(_, planes)| planes.len() == IMAGE)
                .ok_or_else(|| wrong(format!("has {} bytes, not {}", bytes.len(), 1 + IMAGE)))?;
            if usize::from(label) >= wanted.classes.count() {
                return Err(wrong(format!("{label} is not a label, {}", wanted.classes.expected())));
            }
            found.push(&interleaved(planes)).map_err(at(&file))?;
            found.labels.push(label.into());
        }
    }
    Ok(())
}

/// The file itself, or those in a folder that are for training.
fn files(path: &Path) -> Result<Vec<PathBuf>, ImagesError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut files: Vec<PathBuf> = entries
        .map_err(|error| at(path)(error.into()))?
        .iter()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("data_batch_") && name.ends_with(".bin")
        })
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(at(path)(FileFault::Empty("file called data_batch_*.bin"))),
        false => Ok(files),
    }
}

/// Planes of a colour each to pixels of all colours.
fn interleaved(planes: &[u8]) -> Vec<u8> {
    (0..IMAGE).map(|at| planes[at % CHANNELS * (SIDE * SIDE) + at / CHANNELS]).collect()
}

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const IMAGE: usize = SIDE * SIDE * CHANNELS;

/// Bytes of a file.
const MAX_FILE: u64 = 1 << 32;
