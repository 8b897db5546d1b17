//! Columns of Parquet files: numbers, texts and bytes, also inside structures; lists are not read.
//!
//! Columns of numbers and texts are also written.
//!
//! The format is described by the Apache Parquet project; its own library reads it here, column by column, without Arrow.

mod write;

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::parquet::basic::{ConvertedType, LogicalType};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::DataType;
use ::parquet::errors::ParquetError as LibraryError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use bytes::Bytes;
use thiserror::Error;

pub use write::{Column, encode};

use crate::source::open;

/// Why a file gives no columns. Rows and row groups count from 0.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct ParquetError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: ParquetFault,
}

/// What can be wrong with a Parquet file.
#[derive(Debug, Error)]
pub enum ParquetFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is longer than [`MAX_BYTES`].
    #[error("is longer than {} GiB, the limit", MAX_BYTES >> 30)]
    TooLong,
    /// It is no Parquet file, or a damaged one.
    #[error("is no Parquet file that can be read: {0}")]
    Format(#[from] LibraryError),
    /// A part of it is damaged.
    #[error("row group {group}, column `{column}`: {source}")]
    Damaged {
        /// Row group, from 0.
        group: usize,
        /// The column, its names joined by dots.
        column: String,
        /// What the library says.
        source: LibraryError,
    },
    /// It has no such column.
    #[error("has no column `{column}`; there are: {}", present.join(", "))]
    Missing {
        /// The column asked for.
        column: String,
        /// The columns of the file.
        present: Vec<String>,
    },
    /// Two columns have the same name.
    #[error("column `{0}` occurs twice")]
    Repeated(String),
    /// It says that it has more rows than there is memory for.
    #[error(
        "has {rows} rows of {columns} numbers, more than {} in all, the limit; take fewer rows or columns",
        crate::csv::MAX_NUMBERS
    )]
    TooLarge {
        /// Rows that it says it has.
        rows: usize,
        /// Numbers that each becomes.
        columns: usize,
    },
    /// A column of lists, or of numbers that are kept in another way.
    #[error("column `{column}` holds {what}, which is not read; write {instead}")]
    Unread {
        /// The column.
        column: String,
        /// What it holds.
        what: &'static str,
        /// What it should hold instead.
        instead: &'static str,
    },
    /// A value is not what is needed.
    #[error("row {row} (in row group {group}), column `{column}`: {problem}")]
    Value {
        /// Row, from 0.
        row: usize,
        /// Row group, from 0.
        group: usize,
        /// The column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Most bytes of a file.
pub const MAX_BYTES: u64 = 1 << 32;

/// What stands in a row of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    Missing,
    /// Yes or no.
    Bool(bool),
    /// A whole number of up to 64 bits, with a sign or without.
    Integer(i128),
    /// A number.
    Number(f64),
    /// A text, or any bytes.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// As a number that `f32` can hold.
    ///
    /// # Errors
    /// What it is instead.
    pub fn number(self) -> Result<f32, String> {
        let number = match self {
            Value::Integer(integer) => integer as f32,
            Value::Number(number) => number as f32,
            Value::Missing => return Err("the value is missing".into()),
            Value::Bool(_) | Value::Bytes(_) => return Err(format!("{self} is not a number")),
        };
        if number.is_finite() { Ok(number) } else { Err(format!("{self} is not a finite number")) }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Missing => f.write_str("nothing"),
            Value::Bool(truth) => write!(f, "{truth}"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Bytes(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
                write!(
                    f,
                    "{}{}",
                    text.trim_end_matches('\u{fffd}'),
                    if bytes.len() > SHOWN { "..." } else { "" }
                )
            }
        }
    }
}

/// Bytes of a value that are shown.
const SHOWN: usize = 40;

/// A file whose description has been read.
pub struct Parquet {
    path: PathBuf,
    reader: SerializedFileReader<Bytes>,
}

/// Whether a file begins as a Parquet file does.
///
/// # Errors
/// [`ParquetError`] when it cannot be read.
pub fn is_parquet_file(path: &Path) -> Result<bool, ParquetError> {
    let read = || {
        let mut start = Vec::new();
        open(path)?.take(4).read_to_end(&mut start)?;
        Ok(start == b"PAR1")
    };
    read().map_err(|fault| ParquetError { path: path.to_owned(), fault })
}

impl Parquet {
    /// Opens a file; it is in memory as long as this lives.
    ///
    /// # Errors
    /// [`ParquetError`], which names the file.
    pub fn open(path: &Path) -> Result<Self, ParquetError> {
        let read = || {
            let mut bytes = Vec::new();
            open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > MAX_BYTES {
                return Err(ParquetFault::TooLong);
            }
            let length = bytes.len() as u64;
            let reader = SerializedFileReader::new(Bytes::from(bytes))?;
            check(reader.metadata(), length)?;
            Ok(reader)
        };
        let failed = |fault| ParquetError { path: path.to_owned(), fault };
        let file = Parquet { path: path.to_owned(), reader: read().map_err(failed)? };
        let mut seen = HashSet::new();
        match file.columns().into_iter().find(|name| !seen.insert(name.clone())) {
            Some(twice) => Err(failed(ParquetFault::Repeated(twice))),
            None => Ok(file),
        }
    }

    /// Number of rows, as the file says; only who has read a column knows that they are there.
    pub fn rows(&self) -> usize {
        self.groups().fold(0, usize::saturating_add)
    }

    /// The names of the columns; of those inside structures, joined by dots.
    pub fn columns(&self) -> Vec<String> {
        self.descriptors().map(|column| column.path().string()).collect()
    }

    /// Hands every row of a column to `each`, in order.
    ///
    /// # Errors
    /// [`ParquetError`] with the place, if there is no such column, it is damaged, or `each` refuses a value.
    pub fn each(
        &self,
        column: &str,
        mut each: impl FnMut(usize, Value<'_>) -> Result<(), String>,
    ) -> Result<(), ParquetError> {
        self.try_each(column, &mut each).map_err(|fault| ParquetError { path: self.path.clone(), fault })
    }

    fn try_each(
        &self,
        name: &str,
        each: &mut dyn FnMut(usize, Value<'_>) -> Result<(), String>,
    ) -> Result<(), ParquetFault> {
        let (index, column) = self.find(name)?;
        let mut first = 0;
        for (group, rows) in self.groups().enumerate() {
            let damaged = |source| ParquetFault::Damaged { group, column: name.to_owned(), source };
            let reader = self.reader.get_row_group(group).map_err(damaged)?;
            let reader = reader.get_column_reader(index).map_err(damaged)?;
            let read = in_group(reader, &column, rows, &mut |row, value| {
                each(first + row, value).map_err(|problem| (first + row, problem))
            });
            read.map_err(|stopped| match stopped {
                Stopped::Damaged(source) => damaged(source),
                Stopped::Refused((row, problem)) => {
                    ParquetFault::Value { row, group, column: name.to_owned(), problem }
                }
            })?;
            first += rows;
        }
        Ok(())
    }

    /// The place of a column, and what it holds.
    fn find(&self, name: &str) -> Result<(usize, Unsigned), ParquetFault> {
        let named = self.descriptors().enumerate().find(|(_, column)| column.path().string() == name);
        let Some((index, column)) = named else {
            return Err(ParquetFault::Missing { column: name.to_owned(), present: self.columns() });
        };
        let unread = |what, instead| ParquetFault::Unread { column: name.to_owned(), what, instead };
        if column.max_rep_level() > 0 {
            return Err(unread("lists", "a column for each number"));
        }
        if column.converted_type() == ConvertedType::DECIMAL
            || matches!(column.logical_type_ref(), Some(LogicalType::Decimal { .. }))
        {
            return Err(unread("decimals", "float64"));
        }
        if matches!(column.logical_type_ref(), Some(LogicalType::Float16)) {
            return Err(unread("float16", "float32"));
        }
        Ok((index, Unsigned::of(column)))
    }

    fn descriptors(&self) -> impl Iterator<Item = &ColumnDescriptor> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        schema.columns().iter().map(|column| &**column)
    }

    /// Rows of each row group.
    fn groups(&self) -> impl Iterator<Item = usize> {
        let groups = self.reader.metadata().row_groups().iter();
        groups.map(|group| usize::try_from(group.num_rows()).unwrap_or(0))
    }
}

/// Refuses what the library would believe: parts that lie outside of a file of `length` bytes, and rows that cannot be counted.
fn check(metadata: &ParquetMetaData, length: u64) -> Result<(), LibraryError> {
    let inside = |start: i64, len: i64| {
        let end = u64::try_from(start)
            .ok()
            .zip(u64::try_from(len).ok())
            .and_then(|(start, len)| start.checked_add(len));
        end.is_some_and(|end| end <= length)
    };
    for group in metadata.row_groups() {
        let mut columns = group.columns().iter();
        let fits = columns.all(|column| {
            let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            inside(start, column.compressed_size()) && inside(column.data_page_offset(), 0)
        });
        if !fits || usize::try_from(group.num_rows()).is_err() {
            return Err(LibraryError::General("its parts lie outside of the file".to_owned()));
        }
    }
    Ok(())
}

/// Which integers of a column have no sign, and the level at which a value is there.
struct Unsigned {
    unsigned: bool,
    present: i16,
}

impl Unsigned {
    fn of(column: &ColumnDescriptor) -> Self {
        let converted = matches!(column.converted_type(), ConvertedType::UINT_32 | ConvertedType::UINT_64);
        let logical =
            matches!(column.logical_type_ref(), Some(LogicalType::Integer(integer)) if !integer.is_signed);
        Unsigned { unsigned: converted || logical, present: column.max_def_level() }
    }
}

/// Why a row group was not read to its end.
enum Stopped {
    Damaged(LibraryError),
    Refused((usize, String)),
}

type Each<'a> = dyn FnMut(usize, Value<'_>) -> Result<(), (usize, String)> + 'a;

fn in_group(
    reader: ColumnReader,
    column: &Unsigned,
    rows: usize,
    each: &mut Each<'_>,
) -> Result<(), Stopped> {
    let (present, unsigned) = (column.present, column.unsigned);
    match reader {
        ColumnReader::BoolColumnReader(reader) => {
            typed(reader, present, rows, each, |value: &bool| Value::Bool(*value))
        }
        ColumnReader::Int32ColumnReader(reader) => typed(reader, present, rows, each, |value: &i32| {
            Value::Integer(if unsigned { (*value as u32).into() } else { (*value).into() })
        }),
        ColumnReader::Int64ColumnReader(reader) => typed(reader, present, rows, each, |value: &i64| {
            Value::Integer(if unsigned { (*value as u64).into() } else { (*value).into() })
        }),
        ColumnReader::FloatColumnReader(reader) => {
            typed(reader, present, rows, each, |value: &f32| Value::Number((*value).into()))
        }
        ColumnReader::DoubleColumnReader(reader) => {
            typed(reader, present, rows, each, |value: &f64| Value::Number(*value))
        }
        ColumnReader::ByteArrayColumnReader(reader) => {
            typed(reader, present, rows, each, |value| Value::Bytes(value.data()))
        }
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            typed(reader, present, rows, each, |value| Value::Bytes(value.data()))
        }
        ColumnReader::Int96ColumnReader(_) => {
            Err(Stopped::Damaged(LibraryError::NYI("times of 96 bits; write int64".to_owned())))
        }
    }
}

fn typed<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    present: i16,
    rows: usize,
    each: &mut Each<'_>,
    value: impl Fn(&T::T) -> Value<'_>,
) -> Result<(), Stopped> {
    let (mut values, mut levels, mut row) = (Vec::new(), Vec::new(), 0);
    while row < rows {
        values.clear();
        levels.clear();
        let wanted = AT_ONCE.min(rows - row);
        let (read, _, _) =
            reader.read_records(wanted, Some(&mut levels), None, &mut values).map_err(Stopped::Damaged)?;
        if read == 0 {
            let problem = format!("{rows} rows were promised, but there are {row}");
            return Err(Stopped::Damaged(LibraryError::EOF(problem)));
        }
        let mut next = values.iter();
        for at in 0..read {
            let there = levels.get(at).is_none_or(|&level| level == present);
            let found = if there { next.next().map_or(Value::Missing, &value) } else { Value::Missing };
            each(row + at, found).map_err(Stopped::Refused)?;
        }
        row += read;
    }
    Ok(())
}

/// Rows that are read at once.
const AT_ONCE: usize = 256;
