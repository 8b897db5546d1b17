//! Tables of text below a header line: what can be wrong with them, and how their columns are found.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use ::csv::StringRecord;
use thiserror::Error;

use crate::table::CellFault;

/// Why a table is not what it should be. Lines count from 1, the header line included.
#[derive(Debug, Error)]
pub enum CsvError {
    /// The file cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It cannot be read, is not UTF-8, or a line has another number of values than the header.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: ::csv::Error,
    },
    /// The header lacks a column that was asked for.
    #[error("{}, line 1: no column `{column}`; there are: {}", path.display(), present.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns of the header.
        present: Vec<String>,
    },
    /// The header names a column twice.
    #[error("{}, line 1: column `{column}` occurs twice", path.display())]
    RepeatedColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A value is not what it should be.
    #[error("{}, line {line}, column `{column}`: {fault}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is wrong with it.
        fault: Box<CellFault>,
    },
    /// There is more than [`MAX_NUMBERS`] to keep in memory.
    #[error("{}, line {line}: more than {MAX_NUMBERS} numbers so far, the limit; take fewer lines or columns", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
    },
}

/// The most features that are kept in memory, 4 GiB of them.
pub const MAX_NUMBERS: usize = 1 << 30;

/// The names in a header line, each of which occurs once.
pub(crate) fn column_names(header: &StringRecord, path: &Path) -> Result<Vec<String>, CsvError> {
    let mut seen = HashSet::new();
    match header.iter().find(|&name| !seen.insert(name)) {
        Some(column) => Err(CsvError::RepeatedColumn { path: path.to_owned(), column: column.to_owned() }),
        None => Ok(header.iter().map(str::to_owned).collect()),
    }
}

/// Where a column stands.
pub(crate) fn find_column(names: &[String], column: &str, path: &Path) -> Result<usize, CsvError> {
    names.iter().position(|name| name == column).ok_or_else(|| CsvError::MissingColumn {
        path: path.to_owned(),
        column: column.to_owned(),
        present: names.to_vec(),
    })
}
