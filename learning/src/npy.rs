//! Arrays in NumPy's formats: a file of one array (NPY), or an archive of several (NPZ).
//!
//! An NPY file is the bytes `93 4E 55 4D 50 59`, a version, the length of a header, the header, which is a Python
//! dictionary of `descr`, `fortran_order` and `shape`, and then the numbers (NumPy Enhancement Proposal 1, "A Simple File
//! Format for NumPy Arrays"). An NPZ file is a ZIP archive of such files.

mod inspect;

use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2};
use thiserror::Error;
use zip::ZipArchive;
use zip::result::ZipError;

pub use inspect::{ArrayReport, MOST_VALUES, inspect};

use crate::source::open;
use crate::{Dataset, DatasetError};

/// Numbers with a shape, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The numbers, rounded to `f32`.
    pub values: Vec<f32>,
    /// Whether they are bytes, as pixels are.
    pub bytes: bool,
}

/// Why a file gives no array.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct NpyError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: NpyFault,
}

/// What can be wrong with a file of arrays.
#[derive(Debug, Error)]
pub enum NpyFault {
    /// It cannot be read, or ends too early.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is a damaged archive.
    #[error(transparent)]
    Zip(#[from] ZipError),
    /// It is neither NPY nor NPZ.
    #[error("is no NumPy file: it begins with neither \\x93NUMPY nor PK")]
    Magic,
    /// The header is not as NumPy writes it.
    #[error("has a header without a readable `{0}`")]
    Header(&'static str),
    /// Numbers of a kind that is not read.
    #[error("holds numbers of type `{0}`; save them as float32, float64, a whole number or bool")]
    Type(String),
    /// Column-major order.
    #[error("is in Fortran's order; save numpy.ascontiguousarray(x)")]
    Fortran,
    /// More numbers than [`MAX_NUMBERS`].
    #[error("promises the shape {0:?}, more than the limit of {MAX_NUMBERS} numbers")]
    TooLarge(Vec<usize>),
    /// An archive of several arrays, or of none, and none was named.
    #[error("holds the arrays {0:?}; say which one")]
    Ambiguous(Vec<String>),
    /// An archive of other things.
    #[error("is an archive without arrays of NumPy")]
    NoArrays,
    /// A label that is no number of a class.
    #[error("label {row}, counted from 0, is {label}, not a whole number from 0")]
    Label {
        /// Row, from 0.
        row: usize,
        /// The label found.
        label: String,
    },
    /// Examples and labels do not make a data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An array that is not there.
    #[error("has no array `{name}`; there are {present:?}")]
    Missing {
        /// The array asked for.
        name: String,
        /// The arrays in the archive.
        present: Vec<String>,
    },
}

/// What a byte is divided by.
const BRIGHTEST: f32 = 255.0;

/// Most bytes of a file that are looked at: room for [`MAX_NUMBERS`] of the widest type.
const MAX_BYTES: u64 = 1 << 33;

/// Most numbers an array may have, 4 GiB of them: what a hostile header can ask for.
pub const MAX_NUMBERS: usize = 1 << 30;

/// Reads an array: the one in an NPY file, the one called `name` in an NPZ file, or its only one.
///
/// # Errors
/// [`NpyError`], which names the file.
pub fn read(path: &Path, name: Option<&str>) -> Result<Array, NpyError> {
    let read = || {
        let bytes = whole_file(path)?;
        match bytes.as_slice() {
            [b'P', b'K', ..] => in_archive(Cursor::new(bytes), name),
            start => parse(start),
        }
    };
    read().map_err(|fault| NpyError { path: path.to_owned(), fault })
}

/// Reads a data set from an NPZ file: the array `examples`, whose first dimension counts them, and the array `labels` of
/// whole numbers. Bytes are scaled from 0..=255 to 0..=1, other numbers are taken as they are.
///
/// # Errors
/// [`NpyError`], which names the file.
pub fn dataset(path: &Path, examples: &str, labels: &str, classes: usize) -> Result<Dataset, NpyError> {
    let at = |fault: NpyFault| NpyError { path: path.to_owned(), fault };
    let (array, labels) = (read(path, Some(examples))?, read(path, Some(labels))?);
    let rows = array.shape.first().copied().unwrap_or(0);
    let columns = array.values.len().checked_div(rows).unwrap_or(0);
    let mut values = array.values;
    if array.bytes {
        values.iter_mut().for_each(|value| *value /= BRIGHTEST);
    }
    let label = |(row, &label): (usize, &f32)| match label >= 0.0 && label.fract() == 0.0 {
        true => Ok(label as u32),
        false => Err(NpyFault::Label { row, label: label.to_string() }),
    };
    let labels: Result<Vec<u32>, _> = labels.values.iter().enumerate().map(label).collect();
    let labels = labels.map_err(at)?;
    Array2::from_shape_vec((rows, columns), values)
        .map_err(|_| DatasetError::Empty { rows, columns })
        .and_then(|features| Dataset::new(features, Array1::from_vec(labels), classes))
        .map_err(|fault| at(fault.into()))
}

/// The array in the bytes of an NPY file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Array, NpyFault> {
    if bytes.starts_with(MAGIC) { one(bytes) } else { Err(NpyFault::Magic) }
}

/// Whether a file begins as one of NumPy's does.
pub fn is_numpy(start: &[u8]) -> bool {
    start.starts_with(MAGIC) || start.starts_with(b"PK\x03\x04")
}

fn whole_file(path: &Path) -> Result<Vec<u8>, NpyFault> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the arrays of an archive are called.
fn names(archive: &ZipArchive<impl Read + Seek>) -> Result<Vec<String>, NpyFault> {
    let mut present = Vec::new();
    for name in archive.file_names() {
        let name = name?;
        present.push(name.strip_suffix(".npy").unwrap_or(&name).to_owned());
    }
    present.sort();
    Ok(present)
}

fn in_archive(file: impl Read + Seek, name: Option<&str>) -> Result<Array, NpyFault> {
    let mut archive = ZipArchive::new(file)?;
    let present = names(&archive)?;
    let name = match (name, present.as_slice()) {
        (Some(name), _) if present.iter().any(|known| known == name) => name.to_owned(),
        (Some(name), _) => return Err(NpyFault::Missing { name: name.to_owned(), present }),
        (None, [only]) => only.clone(),
        (None, _) => return Err(NpyFault::Ambiguous(present)),
    };
    one(archive.by_name(&format!("{name}.npy"))?)
}

/// What stands before the numbers of an array.
struct Header {
    /// The type of the numbers.
    kind: String,
    shape: Vec<usize>,
    /// Whether the numbers of a column stand together.
    fortran: bool,
}

impl Header {
    fn read(mut source: impl Read) -> Result<Self, NpyFault> {
        let mut start = [0; 8];
        source.read_exact(&mut start)?;
        if start[..6] != *MAGIC {
            return Err(NpyFault::Magic);
        }
        let mut length = [0; 4];
        let width = if start[6] == 1 { 2 } else { 4 };
        source.read_exact(&mut length[..width])?;
        let mut header = String::new();
        source.by_ref().take(u32::from_le_bytes(length).into()).read_to_string(&mut header)?;
        Self::parse(&header)
    }

    fn parse(header: &str) -> Result<Self, NpyFault> {
        let value = |key: &'static str| {
            let at = header.find(&format!("'{key}':")).ok_or(NpyFault::Header(key))?;
            Ok::<_, NpyFault>(header[at + key.len() + 3..].trim_start())
        };
        let fortran = value("fortran_order")?.starts_with("True");
        let kind = value("descr")?.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
        let kind = kind.ok_or(NpyFault::Header("descr"))?.to_owned();
        let shape = value("shape")?.strip_prefix('(').and_then(|rest| rest.split(')').next());
        let shape = shape.ok_or(NpyFault::Header("shape"))?;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(str::parse);
        let shape = sizes.collect::<Result<_, _>>().map_err(|_| NpyFault::Header("shape"))?;
        Ok(Header { kind, shape, fortran })
    }
}

fn one(mut source: impl Read) -> Result<Array, NpyFault> {
    let Header { kind, shape, fortran } = Header::read(&mut source)?;
    if fortran {
        return Err(NpyFault::Fortran);
    }
    let count = shape.iter().copied().fold(1, usize::saturating_mul);
    if count > MAX_NUMBERS {
        return Err(NpyFault::TooLarge(shape));
    }
    let (read, width, bytes) = reader(&kind)?;
    let mut values = Vec::new();
    let mut buffer = vec![0; width * BUFFERED];
    while values.len() < count {
        let wanted = &mut buffer[..width * BUFFERED.min(count - values.len())];
        source.read_exact(wanted)?;
        values.extend(wanted.chunks_exact(width).map(read));
    }
    Ok(Array { shape, values, bytes })
}

type ReadNumber = fn(&[u8]) -> f32;

/// How a number of a type is read, how many bytes it has, and whether it is a byte itself.
fn reader(kind: &str) -> Result<(ReadNumber, usize, bool), NpyFault> {
    macro_rules! number {
        ($type:ty, $from:ident) => {{
            fn read(bytes: &[u8]) -> f32 {
                bytes.try_into().map_or(f32::NAN, |bytes| <$type>::$from(bytes) as f32)
            }
            (read as ReadNumber, size_of::<$type>(), false)
        }};
    }
    Ok(match kind {
        "|u1" | "|b1" => (|bytes| f32::from(bytes[0]), 1, kind == "|u1"),
        "|i1" => number!(i8, from_le_bytes),
        "<i2" => number!(i16, from_le_bytes),
        "<u2" => number!(u16, from_le_bytes),
        "<i4" => number!(i32, from_le_bytes),
        "<u4" => number!(u32, from_le_bytes),
        "<i8" => number!(i64, from_le_bytes),
        "<u8" => number!(u64, from_le_bytes),
        "<f4" => number!(f32, from_le_bytes),
        "<f8" => number!(f64, from_le_bytes),
        ">i4" => number!(i32, from_be_bytes),
        ">i8" => number!(i64, from_be_bytes),
        ">f4" => number!(f32, from_be_bytes),
        ">f8" => number!(f64, from_be_bytes),
        _ => return Err(NpyFault::Type(kind.to_owned())),
    })
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Numbers read at once.
const BUFFERED: usize = 1 << 14;

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// An archive of files.
    pub(crate) fn npz(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// A file as NumPy writes it.
    pub(crate) fn npy(kind: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.into_bytes());
        bytes.extend(numbers);
        bytes
    }

    /// An archive of two arrays.
    fn archive(method: CompressionMethod) -> Vec<u8> {
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file("x.npy", options).unwrap();
        let numbers: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
        writer.write_all(&npy("<f4", "1, 2", &numbers)).unwrap();
        writer.start_file("y.npy", options).unwrap();
        writer.write_all(&npy("|u1", "3,", &[0, 7, 255])).unwrap();
        writer.finish().unwrap().into_inner()
    }

    fn read_bytes(bytes: &[u8], name: Option<&str>) -> Result<Array, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.npz");
        std::fs::write(&path, bytes).unwrap();
        read(&path, name).map_err(|error| error.to_string())
    }

    #[test]
    fn arrays_are_found_in_files_and_archives_stored_or_compressed() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let bytes = archive(method);
            let x = Array { shape: vec![1, 2], values: vec![1.5, -2.0], bytes: false };
            assert_eq!(read_bytes(&bytes, Some("x")), Ok(x));
            let y = Array { shape: vec![3], values: vec![0.0, 7.0, 255.0], bytes: true };
            assert_eq!(read_bytes(&bytes, Some("y")), Ok(y));
            let which = read_bytes(&bytes, None).unwrap_err();
            assert!(
                which.ends_with("vectors.npz: holds the arrays [\"x\", \"y\"]; say which one"),
                "{which}"
            );
            assert!(read_bytes(&bytes, Some("z")).unwrap_err().contains("no array `z`"));
        }
    }

    #[test]
    fn a_data_set_is_two_arrays_and_bytes_are_scaled() {
        let file = npz(&[
            ("x", npy("|u1", "2, 1, 2", &[0, 255, 51, 0])),
            ("y", npy("|u1", "2,", &[1, 0])),
            ("z", npy("<f4", "2,", &[0.5_f32, 0.0].map(f32::to_le_bytes).concat())),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.npz");
        std::fs::write(&path, file).unwrap();
        let data = dataset(&path, "x", "y", 2).unwrap();
        assert_eq!(data.features(), ndarray::arr2(&[[0.0, 1.0], [0.2, 0.0]]));
        assert_eq!(data.labels().to_vec(), [1, 0]);
        let refused = |labels, classes| dataset(&path, "x", labels, classes).unwrap_err().to_string();
        assert!(refused("z", 2).ends_with("label 0, counted from 0, is 0.5, not a whole number from 0"));
        assert!(refused("y", 1).contains("row 0: label 1"));
        assert!(refused("x", 2).contains("4 labels") || refused("x", 2).contains("label"));
    }

    #[test]
    fn every_type_of_number_is_read() {
        let numbers =
            |bytes: &[u8], kind| read_bytes(&npy(kind, "2,", bytes), None).map(|array| array.values);
        assert_eq!(numbers(&[1, 0, 255, 255], "<i2"), Ok(vec![1.0, -1.0]));
        let bytes: Vec<u8> = [3_i64, -4].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(numbers(&bytes, "<i8"), Ok(vec![3.0, -4.0]));
        let bytes: Vec<u8> = [0.5_f64, 2.0].iter().flat_map(|number| number.to_be_bytes()).collect();
        assert_eq!(numbers(&bytes, ">f8"), Ok(vec![0.5, 2.0]));
        assert!(numbers(&[0; 32], "<c16").unwrap_err().contains("type `<c16`"));
    }

    #[test]
    fn what_is_no_array_is_refused() {
        assert!(read_bytes(b"hello, world", None).unwrap_err().contains("no NumPy file"));
        assert!(read_bytes(b"", None).unwrap_err().contains("no NumPy file"));
        let short = npy("<f4", "2, 2", &[0; 15]);
        assert!(read_bytes(&short, None).is_err());
        let huge = npy("<f4", "99999999999, 99999999", &[]);
        assert!(read_bytes(&huge, None).unwrap_err().contains("more than the limit"));
        let fortran = String::from_utf8_lossy(&npy("<f4", "1,", &[0; 4])[10..]).replace("False", "True ");
        let mut bytes = npy("<f4", "1,", &[0; 4]);
        bytes.truncate(10);
        bytes.extend(fortran.into_bytes());
        assert!(read_bytes(&bytes, None).unwrap_err().contains("Fortran"));
        let all = npy("<f4", "2, 2", &[0; 16]);
        for length in 0..all.len() {
            assert!(read_bytes(&all[..length], None).is_err(), "{length}");
        }
    }
}
