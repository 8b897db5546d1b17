//! Data sets of images: in a Parquet file, in folders named by class, or in the binary format of CIFAR-10. All of them become
//! images of one size, kept as bytes, channels last.

mod binary;
mod decode;
mod folder;
mod resize;
mod table;

use std::path::{Path, PathBuf};

use ndarray::Array1;
use thiserror::Error;

use crate::parquet::ParquetError;
use crate::pixels::Scaling;
use crate::{Classes, Dataset, DatasetError, Owners};

pub use self::decode::{ImageFault, decode, is_image};
pub use self::folder::files_in;

/// How images are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// In the rows of a Parquet file.
    Parquet {
        /// The column of encoded images: of bytes, or a structure with a member `bytes`.
        image: String,
        /// The column of labels, numbers or texts.
        label: String,
        /// The column that says whose example a row is, if there is one.
        client: Option<String>,
    },
    /// PNG and JPEG files in a folder for each class, of its name.
    Folder,
    /// The binary version of CIFAR-10: a file, or a folder with several called `data_batch_*.bin`.
    Cifar10,
}

/// What is made of images, and what their labels may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Height, width and channels, 1 or 3; images of other sizes are scaled to it.
    pub size: [usize; 3],
    /// How bytes become numbers.
    pub scaling: Scaling,
    /// The classes that labels name.
    pub classes: Classes,
}

/// Why images make no data set.
#[derive(Debug, Error)]
pub enum ImagesError {
    /// A Parquet file cannot be read, or holds something else.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// A file or a folder cannot be used.
    #[error("{}: {fault}", path.display())]
    File {
        /// The file or the folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
}

/// What can be wrong with a file or a folder of images.
#[derive(Debug, Error)]
pub enum FileFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is no image.
    #[error(transparent)]
    Image(#[from] ImageFault),
    /// A folder is called like no class.
    #[error("`{name}` is no class, {expected}: a folder of images is called by their class")]
    Class {
        /// The folder.
        name: String,
        /// What it may be called.
        expected: String,
    },
    /// There is nothing to read.
    #[error("holds no {0}")]
    Empty(&'static str),
    /// A record of CIFAR-10 that is none.
    #[error("record {record}, counted from 0: {problem}")]
    Record {
        /// The record.
        record: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Images of another size cannot be made of these.
    #[error("holds images of 32 x 32 x 3, and they are not scaled: ask for those")]
    Size,
    /// More than [`MAX_BYTES`].
    #[error("makes more than {} GiB of images; take fewer or smaller ones", MAX_BYTES >> 30)]
    TooLarge,
    /// Images and labels do not make a data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

/// Most bytes of images that are kept in memory.
pub const MAX_BYTES: usize = 1 << 33;

/// Reads the images at `path`.
///
/// # Errors
/// [`ImagesError`], which names the file and the place in it.
pub fn read(path: &Path, format: &Format, wanted: &Wanted) -> Result<Dataset, ImagesError> {
    let mut found = Found::default();
    match format {
        Format::Parquet { image, label, client } => {
            table::read(path, [image, label], client.as_deref(), wanted, &mut found)?;
        }
        Format::Folder => folder::read(path, wanted, &mut found)?,
        Format::Cifar10 => binary::read(path, wanted, &mut found)?,
    }
    let Found { bytes, labels, owners } = found;
    let owned = matches!(format, Format::Parquet { client: Some(_), .. });
    Dataset::of_pixels(bytes, wanted.scaling.clone(), Array1::from_vec(labels), wanted.classes.count())
        .and_then(|dataset| if owned { dataset.owned_by(owners) } else { Ok(dataset) })
        .map_err(|fault| at(path)(fault.into()))
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    bytes: Vec<u8>,
    labels: Vec<u32>,
    owners: Owners,
}

impl Found {
    /// Adds the bytes of an image.
    fn push(&mut self, image: &[u8]) -> Result<(), FileFault> {
        if self.bytes.len() + image.len() > MAX_BYTES {
            return Err(FileFault::TooLarge);
        }
        self.bytes.extend_from_slice(image);
        Ok(())
    }
}

fn at(path: &Path) -> impl Fn(FileFault) -> ImagesError {
    move |fault| ImagesError::File { path: path.to_owned(), fault }
}

#[cfg(test)]
pub(crate) mod tests;
