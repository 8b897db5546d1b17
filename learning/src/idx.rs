//! A data set in the IDX format, in which MNIST and its relatives ship.
//!
//! An IDX file is two zero bytes, the element type (8: unsigned bytes), the number of dimensions,
//! each dimension as a big-endian u32, then the elements (Y. LeCun, C. Cortes and C. Burges, The
//! MNIST Database of Handwritten Digits, 1998, "The IDX file format").

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Result as IoResult};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use ndarray::{Array1, Array2};
use thiserror::Error;

use crate::{Dataset, DatasetError};

/// Why a pair of IDX files is not a data set.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct IdxError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: IdxFault,
}

/// What can be wrong with an IDX file.
#[derive(Debug, Error)]
pub enum IdxFault {
    /// It cannot be read, decompressed, or ends before its header does.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The first bytes are not those of an IDX file of unsigned bytes.
    #[error("begins with {0:02x?}, not with 00 00 08, so it is no IDX file of bytes")]
    Magic([u8; 3]),
    /// The number of dimensions is not the one needed.
    #[error("has {actual} dimensions, needed: {needed}")]
    Dimensions {
        /// Dimensions of the file.
        actual: usize,
        /// What is needed.
        needed: &'static str,
    },
    /// The header promises more than [`MAX_BYTES`].
    #[error("promises {dimensions:?} elements, more than the limit of {MAX_BYTES}")]
    TooLarge {
        /// The sizes in its header.
        dimensions: Vec<usize>,
    },
    /// The header promises another number of elements than follow.
    #[error("promises {promised} elements, but {found} follow")]
    Length {
        /// Elements by the header.
        promised: usize,
        /// Elements found; at most one more than promised are counted.
        found: usize,
    },
    /// Images and labels do not make a data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Most elements a file may hold, 1 GiB: the memory a hostile header can ask for.
pub const MAX_BYTES: usize = 1 << 30;

/// Reads images (2 or more dimensions, the first counts them) and their labels (1 dimension), each
/// file plain or compressed with gzip. Images become rows of features scaled from 0..=255 to 0..=1.
///
/// # Errors
/// [`IdxError`], which names the file.
pub fn read(images: &Path, labels: &Path, classes: usize) -> Result<Dataset, IdxError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |fault: IdxFault| IdxError { path, fault }
    };
    let image_array = open(images).and_then(IdxArray::parse).map_err(at(images))?;
    let label_array = open(labels).and_then(IdxArray::parse).map_err(at(labels))?;
    let features = image_array.into_features().map_err(at(images))?;
    let labels_of_images = label_array.into_labels().map_err(at(labels))?;
    Dataset::new(features, labels_of_images, classes).map_err(|fault| at(labels)(fault.into()))
}

/// Elements of an IDX file, as many as the product of the dimensions.
struct IdxArray {
    dimensions: Vec<usize>,
    elements: Vec<u8>,
}

impl IdxArray {
    fn parse(mut source: impl Read) -> Result<Self, IdxFault> {
        let [zero, also_zero, kind, count] = four_bytes(&mut source)?;
        if [zero, also_zero, kind] != UNSIGNED_BYTES {
            return Err(IdxFault::Magic([zero, also_zero, kind]));
        }
        let mut dimensions = Vec::new();
        for _ in 0..count {
            dimensions.push(u32::from_be_bytes(four_bytes(&mut source)?) as usize);
        }
        let promised = dimensions.iter().copied().fold(1, usize::saturating_mul);
        if promised > MAX_BYTES {
            return Err(IdxFault::TooLarge { dimensions });
        }
        let mut elements = Vec::new();
        let found = source.take(promised as u64 + 1).read_to_end(&mut elements)?;
        if found != promised {
            return Err(IdxFault::Length { promised, found });
        }
        Ok(Self { dimensions, elements })
    }

    fn into_features(self) -> Result<Array2<f32>, IdxFault> {
        let [images, rest @ ..] = self.dimensions.as_slice() else {
            return Err(IdxFault::Dimensions { actual: 0, needed: IMAGES });
        };
        if rest.is_empty() {
            return Err(IdxFault::Dimensions { actual: 1, needed: IMAGES });
        }
        let shape = (*images, rest.iter().copied().fold(1, usize::saturating_mul));
        let scaled = self.elements.into_iter().map(|byte| f32::from(byte) / 255.0).collect();
        Array2::from_shape_vec(shape, scaled)
            .map_err(|_| DatasetError::Empty { rows: shape.0, columns: shape.1 }.into())
    }

    fn into_labels(self) -> Result<Array1<u32>, IdxFault> {
        match self.dimensions.len() {
            1 => Ok(self.elements.into_iter().map(u32::from).collect()),
            actual => Err(IdxFault::Dimensions { actual, needed: LABELS }),
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, IdxFault> {
    let mut file = BufReader::new(File::open(path)?);
    let compressed = file.fill_buf()?.starts_with(&GZIP);
    Ok(if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) })
}

fn four_bytes(source: &mut impl Read) -> IoResult<[u8; 4]> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

const UNSIGNED_BYTES: [u8; 3] = [0, 0, 8];
const GZIP: [u8; 2] = [0x1f, 0x8b];
const IMAGES: &str = "2 or more, the first counting images";
const LABELS: &str = "1, counting labels";

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ndarray::{arr1, arr2};

    use super::*;

    /// Two images of 1 x 3 pixels.
    const IMAGES_FILE: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 255, 51, 102, 0, 255];
    const LABELS_FILE: &[u8] = &[0, 0, 8, 1, 0, 0, 0, 2, 7, 0];

    fn read_bytes(images: &[u8], labels: &[u8]) -> Result<Dataset, IdxError> {
        let folder = tempfile::tempdir().unwrap();
        let (images_path, labels_path) = (folder.path().join("images"), folder.path().join("labels"));
        std::fs::write(&images_path, images).unwrap();
        std::fs::write(&labels_path, labels).unwrap();
        read(&images_path, &labels_path, 10)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn images_become_rows_scaled_to_one_whether_compressed_or_not() {
        let plain = read_bytes(IMAGES_FILE, LABELS_FILE).unwrap();
        assert_eq!(plain.features(), arr2(&[[0.0, 1.0, 0.2], [0.4, 0.0, 1.0]]));
        assert_eq!(plain.labels(), arr1(&[7, 0]));
        assert_eq!(read_bytes(&gzip(IMAGES_FILE), &gzip(LABELS_FILE)).unwrap(), plain);
    }

    #[test]
    fn a_file_cut_short_anywhere_or_too_long_is_an_error() {
        let mut cut = 0;
        for length in 0..IMAGES_FILE.len() {
            assert!(read_bytes(&IMAGES_FILE[..length], LABELS_FILE).is_err());
            assert!(read_bytes(&gzip(&IMAGES_FILE[..length]), LABELS_FILE).is_err());
            cut += 1;
        }
        assert_eq!(cut, 22);
        let error = read_bytes(&[IMAGES_FILE, &[0]].concat(), LABELS_FILE).unwrap_err();
        assert!(matches!(error.fault, IdxFault::Length { promised: 6, found: 7 }));
        assert!(read_bytes(&gzip(IMAGES_FILE)[..20], LABELS_FILE).is_err());
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_allocated() {
        let header = [&[0, 0, 8, 4][..], &[0xff; 16]].concat();
        let error = read_bytes(&header, LABELS_FILE).unwrap_err();
        assert!(matches!(error.fault, IdxFault::TooLarge { .. }), "{error}");
        let error = read_bytes(&[&[0, 0, 8, 255][..], &[0; 2000]].concat(), LABELS_FILE).unwrap_err();
        assert!(matches!(error.fault, IdxFault::Length { promised: 0, found: 1 }), "{error}");
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused_by_name() {
        let swapped = read_bytes(LABELS_FILE, IMAGES_FILE).unwrap_err();
        assert!(swapped.to_string().contains("images: has 1 dimensions"), "{swapped}");
        let twice = read_bytes(IMAGES_FILE, IMAGES_FILE).unwrap_err();
        assert!(twice.to_string().contains("labels: has 3 dimensions"), "{twice}");
        let one_label = read_bytes(IMAGES_FILE, &[0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap_err();
        assert!(one_label.to_string().contains("2 rows of features but 1 labels"), "{one_label}");
        let high = read_bytes(IMAGES_FILE, &[0, 0, 8, 1, 0, 0, 0, 2, 7, 10]).unwrap_err();
        assert!(high.to_string().contains("label 10"), "{high}");
        let floats = read_bytes(&[0, 0, 13, 1], LABELS_FILE).unwrap_err();
        assert!(matches!(floats.fault, IdxFault::Magic([0, 0, 13])));
    }
}
