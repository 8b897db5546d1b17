//! From texts to numbers: words, their vocabulary and vectors, and files of labelled texts.
//!
//! ```text
//! text ── tokenizer ──▶ words ── stop words ──▶ words ── vocabulary ──▶ numbers, at most `length`
//!                                                          │ padded with −1: features of an embedding
//!                                                          ╰ mean of their vectors: features of any model
//! ```

mod pieces;
mod play;
mod preparation;
mod records;
mod report;
mod tokenizer;
mod vectors;
mod vocabulary;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use pieces::Pieces;
pub use play::speakers;
pub use preparation::{Preparation, TextFeatures, stop_words};
pub use records::{Column, Fields, Format, Texts, read};
pub use report::{Coverage, Layout, TextsReport, inspect};
pub use tokenizer::Tokenizer;
pub use vectors::Vectors;
pub use vocabulary::Vocabulary;

use crate::csv::CsvError;
use crate::npy::NpyError;

/// Why texts, words or vectors cannot be read.
#[derive(Debug, Error)]
pub enum TextError {
    /// A table has a fault.
    #[error(transparent)]
    Table(#[from] CsvError),
    /// An array has a fault.
    #[error(transparent)]
    Array(#[from] NpyError),
    /// Another file has one.
    #[error("{}{fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        fault: TextFault,
    },
}

/// What can be wrong with a file of texts, words or vectors. Lines and rows count from 1.
#[derive(Debug, Error)]
pub enum TextFault {
    /// It cannot be read, or is not UTF-8.
    #[error(": {0}")]
    Io(#[from] std::io::Error),
    /// A vocabulary of nothing.
    #[error(" has no words")]
    NoWords,
    /// A word that stands there twice.
    #[error(", line {second}: the word `{word}` stands in line {first} already")]
    RepeatedWord {
        /// The word.
        word: String,
        /// The line with the first one.
        first: usize,
        /// The line with the second one.
        second: usize,
    },
    /// Another array than the vocabulary needs.
    #[error(
        ": has the shape {shape:?}, but {} words with vectors of {} numbers need {expected:?}: row i of the vectors belongs to line i of the vocabulary",
        expected[0],
        expected[1]
    )]
    VectorShape {
        /// The shape found.
        shape: Vec<usize>,
        /// Words and width.
        expected: [usize; 2],
    },
    /// A number that is not finite.
    #[error(": row {row} of the vectors has a number that is not finite")]
    VectorNumber {
        /// Row, from 0.
        row: usize,
    },
    /// A line that is no vector.
    #[error(", line {line}: needs a word and {width} numbers, with a space before each")]
    VectorLine {
        /// Line, from 1.
        line: usize,
        /// Numbers of a vector.
        width: usize,
    },
    /// A file about other words.
    #[error(" has vectors for none of the words of the vocabulary")]
    NoVectors,
    /// A damaged or unsuitable file.
    #[error(": {0}")]
    Format(String),
    /// A line that is no JSON object.
    #[error(", line {line}: is not a JSON object: {problem}")]
    Json {
        /// Line, from 1.
        line: u64,
        /// What the parser says.
        problem: String,
    },
    /// A field that is absent or of another kind.
    #[error(", line {line}: field `{field}` must be {needed}")]
    Field {
        /// Line, from 1.
        line: u64,
        /// The field.
        field: String,
        /// What it should be.
        needed: &'static str,
    },
    /// Too few columns.
    #[error(", line {line}: there is no column {column}, counted from 1")]
    NoColumn {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: usize,
    },
    /// A label that names no class.
    #[error(", line {line}, field `{field}`: `{value}` is not a label, {expected}")]
    NotALabel {
        /// Line, from 1.
        line: u64,
        /// The field.
        field: String,
        /// What stands there.
        value: String,
        /// What a label may be.
        expected: String,
    },
    /// A passage of nobody.
    #[error(", line {line}: a passage begins with the name of who speaks it and a colon")]
    NoSpeaker {
        /// Line, from 1.
        line: u64,
    },
    /// A file without texts.
    #[error(" has no texts")]
    NoTexts,
}

/// Places a fault in a file.
pub(crate) fn at(path: &Path) -> impl Fn(TextFault) -> TextError {
    let path = path.to_owned();
    move |fault| TextError::File { path: path.clone(), fault }
}

/// A whole file of text, plain or compressed with gzip.
pub(crate) fn read_file(path: &Path) -> Result<String, TextError> {
    let read = || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut crate::source::open(path)?, &mut text)?;
        Ok(text)
    };
    read().map_err(|error| at(path)(TextFault::Io(error)))
}
