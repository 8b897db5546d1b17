//! Images in folders, one for each class.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FileFault, Found, ImagesError, Wanted, at, decode};
use crate::source::open;

pub(super) fn read(path: &Path, wanted: &Wanted, found: &mut Found) -> Result<(), ImagesError> {
    let folders: Vec<PathBuf> = entries(path).map_err(|error| at(path)(error.into()))?;
    let folders: Vec<PathBuf> = folders.into_iter().filter(|entry| entry.is_dir()).collect();
    if folders.is_empty() {
        return Err(at(path)(FileFault::Empty("folder; images lie in one for each class")));
    }
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let class = wanted.classes.of_label(&name).ok_or_else(|| {
            at(path)(FileFault::Class { name: name.clone(), expected: wanted.classes.expected() })
        })?;
        for file in files_in(&folder).map_err(|error| at(&folder)(error.into()))? {
            let image = || {
                let mut bytes = Vec::new();
                open(&file)?.take(MAX_FILE).read_to_end(&mut bytes)?;
                Ok(decode(&bytes, wanted.size)?)
            };
            found.push(&image().map_err(at(&file))?).map_err(at(&file))?;
            found.labels.push(class);
        }
    }
    Ok(())
}

/// The files in a folder called `.png`, `.jpg` or `.jpeg`, in the order of their names.
///
/// # Errors
/// What the system says.
pub fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_image = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        ["png", "jpg", "jpeg"].contains(&extension.as_str())
    };
    Ok(entries(folder)?.into_iter().filter(is_image).collect())
}

/// What lies in a folder, in the order of names, without what is hidden.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(entries)
}

/// Bytes of an encoded image.
const MAX_FILE: u64 = 1 << 28;
