//! Examples from tables: CSV and TSV with a header line, JSON Lines, Parquet; plain or compressed with gzip.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ::csv::{ReaderBuilder, StringRecord, Trim};
use ndarray::{Array1, Array2};
use serde_json::Value;
use thiserror::Error;

use super::column::shortened;
use super::{Cell, CellFault, Column, ColumnFault, Encoder, Filling, Kind};
use crate::csv::{CsvError, MAX_NUMBERS, column_names, find_column};
use crate::parquet::{Parquet, ParquetError, ParquetFault};
use crate::source::{BoundedLines, open};
use crate::{Classes, Dataset, DatasetError, Owners, Target};

/// How a table is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// By commas, below a header line; values that hold commas stand in quotation marks.
    Csv,
    /// By tabulators, below a header line; quotation marks are characters as others are.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// What the columns of a table are.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// How it is written down.
    pub format: Format,
    /// What is to be told of each example.
    pub answer: Answer,
    /// The column that says whose example it is, if there is one.
    pub client: Option<String>,
    /// The columns that hold features, in this order; all others if not given.
    pub features: Option<Vec<String>>,
    /// What those of them hold that are not numbers taken as they are.
    pub declared: BTreeMap<String, Declared>,
}

/// What is to be told of an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The class that a column names.
    Class {
        /// The column.
        column: String,
        /// What it may name.
        classes: Classes,
    },
    /// A number.
    Number(Target),
}

/// What a column holds, but for its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// What its values are.
    pub kind: Kind,
    /// What stands in for a missing value.
    pub missing: Option<Filling>,
    /// Whether one more number says that it is missing.
    pub indicator: bool,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The examples.
    pub dataset: Dataset,
    /// Their columns.
    pub encoder: Encoder,
}

/// Why a file gives no examples.
#[derive(Debug, Error)]
pub enum TableError {
    /// A table of text is not what it should be.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// A line is no JSON object.
    #[error("{}, line {line}: not a JSON object{}", path.display(), source.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What and in which column, if it is no JSON.
        source: Option<serde_json::Error>,
    },
    /// A Parquet file is not what it should be.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// Nothing says which members of the objects hold features.
    #[error("{}: JSON objects have no columns that could be counted: name those that hold features", path.display())]
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// Something is said of a column that holds no feature.
    #[error("{}: column `{column}` is declared, but is none of the features", path.display())]
    Undeclared {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// What is said of a column makes no sense.
    #[error(transparent)]
    Column(#[from] ColumnFault),
    /// There are no examples, or no features.
    #[error("{}: {source}", path.display())]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DatasetError,
    },
}

/// Reads the examples of `path`.
///
/// # Errors
/// [`TableError`], which names the file, the line or row, and the column.
pub fn read(path: &Path, layout: &Layout) -> Result<Table, TableError> {
    match layout.format {
        Format::Parquet => columns_of(path, &Parquet::open(path)?, layout),
        format => rows_of(path, opened(path)?, format, layout),
    }
}

/// The columns of the examples of `path`, which is looked at only where their names are not given.
///
/// # Errors
/// [`TableError`].
pub fn encoder(path: &Path, layout: &Layout) -> Result<Encoder, TableError> {
    if layout.features.is_some() {
        return layout.encoder(path, &[]);
    }
    match layout.format {
        Format::Jsonl => layout.encoder(path, &[]),
        Format::Parquet => layout.encoder(path, &Parquet::open(path)?.columns()),
        format => {
            let mut reader = by_lines(opened(path)?, format);
            let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
            layout.encoder(path, &column_names(reader.headers().map_err(malformed)?, path)?)
        }
    }
}

fn opened(path: &Path) -> Result<impl Read, CsvError> {
    open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })
}

/// Reads records of trimmed values, no line longer than memory allows.
pub(crate) fn by_lines<R: Read>(source: R, format: Format) -> ::csv::Reader<BoundedLines<R>> {
    let by_tabs = format == Format::Tsv;
    ReaderBuilder::new()
        .delimiter(if by_tabs { b'\t' } else { b',' })
        .quoting(!by_tabs)
        .trim(Trim::All)
        .from_reader(BoundedLines::new(source))
}

impl Layout {
    /// The column that is to be told.
    fn answer_column(&self) -> &str {
        match &self.answer {
            Answer::Class { column, .. } => column,
            Answer::Number(target) => &target.column,
        }
    }

    /// The columns of features of a table that has these columns.
    fn encoder(&self, path: &Path, present: &[String]) -> Result<Encoder, TableError> {
        let is_feature =
            |name: &&String| *name != self.answer_column() && Some(*name) != self.client.as_ref();
        let names: Vec<&String> = match &self.features {
            Some(features) => features.iter().collect(),
            None if self.format == Format::Jsonl => {
                return Err(TableError::Unnamed { path: path.to_owned() });
            }
            None => present.iter().filter(is_feature).collect(),
        };
        if let Some(column) = self.declared.keys().find(|declared| !names.contains(declared)) {
            return Err(TableError::Undeclared { path: path.to_owned(), column: column.clone() });
        }
        let column = |name: &String| match self.declared.get(name) {
            None => Column::number(name),
            Some(Declared { kind, missing, indicator }) => Column {
                name: name.clone(),
                kind: kind.clone(),
                missing: missing.clone(),
                indicator: *indicator,
            },
        };
        Ok(Encoder::new(names.into_iter().map(column).collect())?)
    }
}

/// What a value is for.
#[derive(Clone, Copy)]
enum Role {
    Answer,
    Client,
    /// The feature column of this number.
    Feature(usize),
}

/// Examples in the making.
struct Examples<'l> {
    layout: &'l Layout,
    encoder: Encoder,
    offsets: Vec<usize>,
    width: usize,
    features: Vec<f32>,
    labels: Vec<u32>,
    numbers: Vec<f32>,
    owners: Owners,
}

impl<'l> Examples<'l> {
    fn new(layout: &'l Layout, encoder: Encoder) -> Self {
        let (offsets, width) = (encoder.offsets(), encoder.width());
        let (features, labels, numbers) = (Vec::new(), Vec::new(), Vec::new());
        Examples { layout, encoder, offsets, width, features, labels, numbers, owners: Owners::default() }
    }

    /// What there is to read, by name, in the order in which errors are looked for.
    fn roles(&self) -> Vec<(String, Role)> {
        let features = self.encoder.columns().iter().enumerate();
        [(self.layout.answer_column().to_owned(), Role::Answer)]
            .into_iter()
            .chain(self.layout.client.clone().map(|client| (client, Role::Client)))
            .chain(features.map(|(at, column)| (column.name.clone(), Role::Feature(at))))
            .collect()
    }

    /// Takes the value of a row, for whose features there is room. Rows come in order for each role.
    fn put(&mut self, row: usize, role: Role, cell: Cell<'_>) -> Result<(), CellFault> {
        match (role, &self.layout.answer) {
            (Role::Feature(at), _) => {
                let column = &self.encoder.columns()[at];
                let start = row * self.width + self.offsets[at];
                column.encode(cell, &mut self.features[start..start + column.width()])
            }
            (_, _) if cell.is_missing() => Err(CellFault::Missing),
            (Role::Client, _) => {
                self.owners.push(&cell.name()?);
                Ok(())
            }
            (Role::Answer, Answer::Class { classes, .. }) => {
                let value = cell.name()?;
                let label = classes.of_label(&value).ok_or_else(|| CellFault::NotALabel {
                    value: shortened(&value),
                    expected: classes.expected(),
                })?;
                self.labels.push(label);
                Ok(())
            }
            (Role::Answer, Answer::Number(target)) => {
                let number = cell.number()?;
                if !target.takes(number) {
                    let bounds = target.bounds.map(|[low, high]| format!(", {low} to {high}"));
                    let (value, bounds) = (shortened(&cell.text()), bounds.unwrap_or_default());
                    return Err(CellFault::OutOfBounds { value, bounds });
                }
                self.numbers.push(number);
                Ok(())
            }
        }
    }

    fn finish(self, path: &Path) -> Result<Table, TableError> {
        let Examples { layout, encoder, width, features, labels, numbers, owners, .. } = self;
        let rows = labels.len().max(numbers.len());
        let dataset = Array2::from_shape_vec((rows, width), features)
            .map_err(|_| DatasetError::Empty { rows, columns: width })
            .and_then(|features| match &layout.answer {
                Answer::Class { classes, .. } => {
                    Dataset::new(features, Array1::from_vec(labels), classes.count())
                }
                Answer::Number(target) => {
                    Dataset::of_numbers(features, Array1::from_vec(numbers), target.clone())
                }
            })
            .and_then(|dataset| match layout.client {
                Some(_) => dataset.owned_by(owners),
                None => Ok(dataset),
            })
            .map_err(|source| TableError::Dataset { path: path.to_owned(), source })?;
        Ok(Table { dataset, encoder })
    }
}

/// A table that is read one line after the other.
fn rows_of(path: &Path, source: impl Read, format: Format, layout: &Layout) -> Result<Table, TableError> {
    if format == Format::Jsonl {
        return objects_of(path, source, layout);
    }
    let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
    let mut reader = by_lines(source, format);
    let names = column_names(reader.headers().map_err(malformed)?, path)?;
    let mut examples = Examples::new(layout, layout.encoder(path, &names)?);
    let places: Vec<(usize, Role)> = examples
        .roles()
        .into_iter()
        .map(|(name, role)| Ok((find_column(&names, &name, path)?, role)))
        .collect::<Result<_, CsvError>>()?;
    let (mut record, mut row) = (StringRecord::new(), 0);
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = record.position().map_or(0, |position| position.line());
        begin(path, line, row, &mut examples)?;
        for &(at, role) in &places {
            let put = examples.put(row, role, Cell::Text(&record[at]));
            put.map_err(|fault| in_line(path, line, &names[at], fault))?;
        }
        row += 1;
    }
    examples.finish(path)
}

fn objects_of(path: &Path, source: impl Read, layout: &Layout) -> Result<Table, TableError> {
    let mut examples = Examples::new(layout, layout.encoder(path, &[])?);
    let roles = examples.roles();
    let mut row = 0;
    for (line, text) in (1..).zip(BufReader::new(BoundedLines::new(source)).lines()) {
        let text = text.map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |source| TableError::Json { path: path.to_owned(), line, source };
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(Some(error)))?;
        let Value::Object(members) = value else { return Err(wrong(None)) };
        begin(path, line, row, &mut examples)?;
        for (name, role) in &roles {
            let cell = Cell::of_json(members.get(name).unwrap_or(&Value::Null));
            let put = cell.and_then(|cell| examples.put(row, *role, cell));
            put.map_err(|fault| in_line(path, line, name, fault))?;
        }
        row += 1;
    }
    examples.finish(path)
}

/// Makes room for the features of one more row.
fn begin(path: &Path, line: u64, row: usize, examples: &mut Examples<'_>) -> Result<(), CsvError> {
    let numbers = (row + 1).saturating_mul(examples.width);
    if numbers > MAX_NUMBERS {
        return Err(CsvError::TooLarge { path: path.to_owned(), line });
    }
    examples.features.resize(numbers, 0.0);
    Ok(())
}

fn in_line(path: &Path, line: u64, column: &str, fault: CellFault) -> CsvError {
    CsvError::Cell { path: path.to_owned(), line, column: column.to_owned(), fault: Box::new(fault) }
}

/// A table that is read one column after the other.
fn columns_of(path: &Path, file: &Parquet, layout: &Layout) -> Result<Table, TableError> {
    let mut examples = Examples::new(layout, layout.encoder(path, &file.columns())?);
    let (rows, columns) = (file.rows(), examples.width);
    let numbers = rows.saturating_mul(columns);
    if numbers > MAX_NUMBERS {
        return Err(
            ParquetError { path: path.to_owned(), fault: ParquetFault::TooLarge { rows, columns } }.into()
        );
    }
    for (name, role) in examples.roles() {
        if matches!(role, Role::Feature(_)) {
            // Only now, when the column of answers has been read, are so many rows more than a claim.
            examples.features.resize(numbers, 0.0);
        }
        file.each(&name, |row, value| {
            let put = Cell::of_parquet(value).and_then(|cell| examples.put(row, role, cell));
            put.map_err(|fault| fault.to_string())
        })?;
    }
    examples.finish(path)
}
