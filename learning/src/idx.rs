//! A data set in the IDX format, in which MNIST and its relatives ship.
//!
//! An IDX file is two zero bytes, the element type (8: unsigned bytes), the number of dimensions,
//! each dimension as a big-endian u32, then the elements (Y. LeCun, C. Cortes and C. Burges, The
//! MNIST Database of Handwritten Digits, 1998, "The IDX file format").

use std::io::{Read, Result as IoResult};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use thiserror::Error;

use crate::source::open;
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

/// Most elements a file may hold, 4 GiB of features: the memory a hostile header can ask for.
pub const MAX_BYTES: usize = 1 << 30;

/// The largest pixel value.
pub const BRIGHTEST: f32 = 255.0;

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
    let features = open_array(images).and_then(IdxArray::into_features).map_err(at(images))?;
    let labels_of_images = open_array(labels).and_then(IdxArray::into_labels).map_err(at(labels))?;
    Dataset::new(features, labels_of_images, classes).map_err(|fault| at(labels)(fault.into()))
}

/// Reads the sizes in a file's header, and the labels that follow if it has one dimension.
///
/// # Errors
/// [`IdxError`], which names the file.
pub fn inspect(path: &Path) -> Result<(Vec<usize>, Option<Array1<u32>>), IdxError> {
    let read = || {
        let array = open_array(path)?;
        let dimensions = array.dimensions.clone();
        let labels = if dimensions.len() == 1 { Some(array.into_labels()?) } else { None };
        Ok((dimensions, labels))
    };
    read().map_err(|fault| IdxError { path: path.to_owned(), fault })
}

/// Whether a file begins as an IDX file of bytes does.
///
/// # Errors
/// [`IdxError`] when it cannot be read.
pub fn is_idx(path: &Path) -> Result<bool, IdxError> {
    let read = || {
        let mut start = Vec::new();
        open(path)?.take(UNSIGNED_BYTES.len() as u64).read_to_end(&mut start)?;
        Ok(start == UNSIGNED_BYTES)
    };
    read().map_err(|fault| IdxError { path: path.to_owned(), fault })
}

/// A file whose header has been read; its elements are as many as the product of the dimensions.
struct IdxArray<R> {
    dimensions: Vec<usize>,
    elements: R,
}

fn open_array(path: &Path) -> Result<IdxArray<Box<dyn Read>>, IdxFault> {
    IdxArray::begin(open(path)?)
}

impl<R: Read> IdxArray<R> {
    fn begin(mut source: R) -> Result<Self, IdxFault> {
        let [zero, also_zero, kind, count] = four_bytes(&mut source)?;
        if [zero, also_zero, kind] != UNSIGNED_BYTES {
            return Err(IdxFault::Magic([zero, also_zero, kind]));
        }
        let mut dimensions = Vec::new();
        for _ in 0..count {
            dimensions.push(u32::from_be_bytes(four_bytes(&mut source)?) as usize);
        }
        if product(&dimensions) > MAX_BYTES {
            return Err(IdxFault::TooLarge { dimensions });
        }
        Ok(Self { dimensions, elements: source })
    }

    /// All elements, each as `convert` makes it, without a copy of the file in memory.
    fn read<T>(self, convert: impl Fn(u8) -> T) -> Result<Vec<T>, IdxFault> {
        let promised = product(&self.dimensions);
        let mut source = self.elements.take(promised as u64 + 1);
        let (mut read, mut buffer) = (Vec::new(), [0; BUFFER]);
        loop {
            match source.read(&mut buffer)? {
                0 => break,
                count => read.extend(buffer[..count].iter().map(|&byte| convert(byte))),
            }
        }
        match read.len() {
            found if found == promised => Ok(read),
            found => Err(IdxFault::Length { promised, found }),
        }
    }

    fn into_features(self) -> Result<Array2<f32>, IdxFault> {
        let [images, rest @ ..] = self.dimensions.as_slice() else {
            return Err(IdxFault::Dimensions { actual: 0, needed: IMAGES });
        };
        if rest.is_empty() {
            return Err(IdxFault::Dimensions { actual: 1, needed: IMAGES });
        }
        let shape = (*images, product(rest));
        Array2::from_shape_vec(shape, self.read(|byte| f32::from(byte) / BRIGHTEST)?)
            .map_err(|_| DatasetError::Empty { rows: shape.0, columns: shape.1 }.into())
    }

    fn into_labels(self) -> Result<Array1<u32>, IdxFault> {
        match self.dimensions.len() {
            1 => Ok(self.read(u32::from)?.into()),
            actual => Err(IdxFault::Dimensions { actual, needed: LABELS }),
        }
    }
}

/// Images read one by one, each the bytes of its pixels as numbers.
pub(crate) struct Images<R> {
    array: IdxArray<R>,
    left: usize,
    pixels: usize,
}

impl<R: Read> Images<R> {
    /// Reads the header.
    pub(crate) fn begin(source: R) -> Result<Self, IdxFault> {
        let array = IdxArray::begin(source)?;
        match array.dimensions.as_slice() {
            [] | [_] => Err(IdxFault::Dimensions { actual: array.dimensions.len(), needed: IMAGES }),
            [images, rest @ ..] => {
                let (left, pixels) = (*images, product(rest));
                Ok(Images { array, left, pixels })
            }
        }
    }

    /// Pixels of an image.
    pub(crate) fn pixels(&self) -> usize {
        self.pixels
    }

    /// The next image; `None` after the last, behind which nothing may follow.
    pub(crate) fn next_image(&mut self) -> Result<Option<Vec<f32>>, IdxFault> {
        let promised = product(&self.array.dimensions);
        let done = promised - self.left * self.pixels;
        let wanted = if self.left == 0 { 1 } else { self.pixels };
        let mut bytes = Vec::with_capacity(wanted);
        self.array.elements.by_ref().take(wanted as u64).read_to_end(&mut bytes)?;
        match (self.left, bytes.len()) {
            (0, 0) => Ok(None),
            (left, found) if left == 0 || found < wanted => {
                Err(IdxFault::Length { promised, found: done + found })
            }
            _ => {
                self.left -= 1;
                Ok(Some(bytes.into_iter().map(f32::from).collect()))
            }
        }
    }
}

fn product(dimensions: &[usize]) -> usize {
    dimensions.iter().copied().fold(1, usize::saturating_mul)
}

fn four_bytes(source: &mut impl Read) -> IoResult<[u8; 4]> {
    let mut bytes = [0; 4];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

const UNSIGNED_BYTES: [u8; 3] = [0, 0, 8];
const BUFFER: usize = 1 << 16;
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
