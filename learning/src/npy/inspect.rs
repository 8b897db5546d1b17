//! What a file of NumPy holds.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use serde::Serialize;
use zip::ZipArchive;

use super::{Array, Header, MAGIC, MAX_BYTES, NpyError, NpyFault, names, one, whole_file};

/// An array of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArrayReport {
    /// Its name; null in a file of one array.
    pub name: Option<String>,
    /// The type of its numbers, as NumPy writes it: `<f4` is float32.
    #[serde(rename = "type")]
    pub kind: String,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Why it cannot be learned from; null where it can.
    pub unread: Option<String>,
    /// The smallest finite number, in 32 bits, as training reads it.
    pub minimum: Option<f32>,
    /// The largest finite number.
    pub maximum: Option<f32>,
    /// Numbers that are infinite in 32 bits, or none at all.
    pub not_finite: u64,
    /// How often each number occurs in a list of whole numbers from 0; null where it is none, or has more than [`MOST_VALUES`].
    pub counts: Option<BTreeMap<u32, u64>>,
}

/// More different whole numbers are no labels.
pub const MOST_VALUES: usize = 1000;

/// Looks through every array of an NPY or an NPZ file.
///
/// # Errors
/// [`NpyError`], which names the file. An array that cannot be learned from is none: the report says why.
pub fn inspect(path: &Path) -> Result<Vec<ArrayReport>, NpyError> {
    let read = || {
        let bytes = whole_file(path)?;
        if bytes.starts_with(MAGIC) {
            return Ok(vec![report(None, &bytes)?]);
        }
        if !bytes.starts_with(b"PK") {
            return Err(NpyFault::Magic);
        }
        let mut archive = ZipArchive::new(Cursor::new(bytes.as_slice()))?;
        let names = names(&archive)?;
        let mut report_of = |name: String| {
            let mut bytes = Vec::new();
            let file = archive.by_name(&format!("{name}.npy")).map_err(|_| NpyFault::NoArrays)?;
            file.take(MAX_BYTES).read_to_end(&mut bytes)?;
            report(Some(name), &bytes)
        };
        match names.is_empty() {
            true => Err(NpyFault::NoArrays),
            false => names.into_iter().map(&mut report_of).collect(),
        }
    };
    read().map_err(|fault| NpyError { path: path.to_owned(), fault })
}

fn report(name: Option<String>, bytes: &[u8]) -> Result<ArrayReport, NpyFault> {
    let Header { kind, shape, .. } = Header::read(bytes)?;
    let (read, unread) = match one(bytes) {
        Ok(array) => (array, None),
        Err(fault @ (NpyFault::Type(_) | NpyFault::Fortran | NpyFault::TooLarge(_))) => {
            (Array { shape: vec![], values: vec![], bytes: false }, Some(fault.to_string()))
        }
        Err(fault) => return Err(fault),
    };
    let finite = || read.values.iter().copied().filter(|value| value.is_finite());
    Ok(ArrayReport {
        counts: (shape.len() == 1 && unread.is_none()).then(|| counts(&read.values)).flatten(),
        minimum: finite().reduce(f32::min),
        maximum: finite().reduce(f32::max),
        not_finite: (read.values.len() - finite().count()) as u64,
        name,
        kind,
        shape,
        unread,
    })
}

fn counts(values: &[f32]) -> Option<BTreeMap<u32, u64>> {
    let mut counts = BTreeMap::new();
    for &value in values {
        if !(value >= 0.0 && value.fract() == 0.0 && value < u32::MAX as f32) {
            return None;
        }
        *counts.entry(value as u32).or_insert(0) += 1;
        if counts.len() > MOST_VALUES {
            return None;
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::npy::tests::{npy, npz};

    fn inspected(bytes: &[u8]) -> Result<Vec<ArrayReport>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arrays");
        std::fs::write(&path, bytes).unwrap();
        inspect(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn every_array_of_an_archive_is_looked_through() {
        let numbers: Vec<u8> =
            [1.5_f32, f32::NAN, -2.0, f32::INFINITY].iter().flat_map(|n| n.to_le_bytes()).collect();
        let labels: Vec<u8> = [0_i64, 2].iter().flat_map(|label| label.to_le_bytes()).collect();
        let text = [0; 8];
        let file = npz(&[
            ("x", npy("<f4", "2, 2", &numbers)),
            ("y", npy("<i8", "2,", &labels)),
            ("names", npy("<U1", "2,", &text)),
        ]);
        let reports = inspected(&file).unwrap();
        let [names, x, y] = reports.as_slice() else { panic!("{reports:?}") };
        assert_eq!((x.name.as_deref(), x.kind.as_str(), &x.shape), (Some("x"), "<f4", &vec![2, 2]));
        assert_eq!((x.minimum, x.maximum, x.not_finite, &x.counts), (Some(-2.0), Some(1.5), 2, &None));
        assert_eq!(y.counts, Some(BTreeMap::from([(0, 1), (2, 1)])));
        assert!(names.unread.as_ref().unwrap().contains("<U1"), "{names:?}");
        assert_eq!(inspected(&npy("<f4", "2, 2", &numbers)).unwrap()[0].name, None);
    }

    #[test]
    fn an_archive_of_something_else_is_refused() {
        let other = inspected(&npz(&[])).unwrap_err();
        assert!(other.ends_with("is an archive without arrays of NumPy"), "{other}");
        assert!(inspected(b"junk").unwrap_err().contains("is no NumPy file"));
    }
}
