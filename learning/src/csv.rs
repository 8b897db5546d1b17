//! A data set from a CSV file: a header line, a label column, numeric features, perhaps a column that says whose
//! example a line is. Plain or compressed with gzip.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::csv::{ReaderBuilder, StringRecord, Trim};
use ndarray::{Array1, Array2};
use thiserror::Error;

use crate::source::{BoundedLines, open};
use crate::{Classes, Dataset, DatasetError, Owners};

/// What the columns of a table are, by their names in the header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The column that holds the label.
    pub label: String,
    /// The column that says whose example it is, if there is one.
    pub client: Option<String>,
    /// The columns that hold features, in this order; all others if not given.
    pub features: Option<Vec<String>>,
}

/// What a CSV file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The examples, one a line.
    pub dataset: Dataset,
    /// Names of the features, in their order.
    pub features: Vec<String>,
}

/// Why a CSV file is not a data set. Lines count from 1, the header line included.
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
    /// A value is missing.
    #[error(
        "{}, line {line}, column `{column}`: the value is missing; fill it in, or leave the line out",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
    },
    /// A feature is not a finite number that `f32` can hold.
    #[error("{}, line {line}, column `{column}`: `{value}` is not a finite number", path.display())]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        value: String,
    },
    /// A label names no class.
    #[error("{}, line {line}, column `{column}`: `{value}` is not a label, {expected}", path.display())]
    NotALabel {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        value: String,
        /// What a label may be.
        expected: String,
    },
    /// There is more than [`MAX_NUMBERS`] to keep in memory.
    #[error("{}, line {line}: more than {MAX_NUMBERS} numbers so far, the limit; take fewer lines or columns", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
    },
    /// There are no examples, or no features.
    #[error("{}: {source}", path.display())]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DatasetError,
    },
}

/// The most features that are kept in memory, 4 GiB of them.
pub const MAX_NUMBERS: usize = 1 << 30;

/// Reads the examples of `path`. Values are taken as they are: scaling that depended on the data would reveal it.
///
/// # Errors
/// [`CsvError`], which names the file, the line and the column.
pub fn read(path: &Path, columns: &Columns, classes: &Classes) -> Result<Table, CsvError> {
    let file = open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
    parse(file, path, columns, classes)
}

/// The names of the features in the header of `path`, in their order.
///
/// # Errors
/// [`CsvError`], which names the file and the column.
pub fn feature_names(path: &Path, columns: &Columns) -> Result<Vec<String>, CsvError> {
    let file = open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
    let mut reader = table_reader(file);
    let header = reader.headers().map_err(|source| CsvError::Malformed { path: path.to_owned(), source })?;
    Ok(Header::new(header, path, columns)?.feature_names())
}

fn parse(source: impl Read, path: &Path, columns: &Columns, classes: &Classes) -> Result<Table, CsvError> {
    let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
    let mut reader = table_reader(source);
    let header = Header::new(reader.headers().map_err(malformed)?, path, columns)?;
    let (mut features, mut labels, mut owners) = (Vec::new(), Vec::new(), Owners::default());
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = Line { header: &header, record: &record };
        labels.push(line.label(classes)?);
        if let Some(client) = header.client {
            owners.push(line.value(client)?);
        }
        for &feature in &header.features {
            features.push(line.feature(feature)?);
        }
        if features.len() > MAX_NUMBERS {
            return Err(CsvError::TooLarge { path: path.to_owned(), line: line.number() });
        }
    }
    let shape = (labels.len(), header.features.len());
    let dataset = Array2::from_shape_vec(shape, features)
        .map_err(|_| DatasetError::Empty { rows: shape.0, columns: shape.1 })
        .and_then(|features| Dataset::new(features, Array1::from_vec(labels), classes.count()))
        .and_then(|dataset| match header.client {
            Some(_) => dataset.owned_by(owners),
            None => Ok(dataset),
        })
        .map_err(|source| CsvError::Dataset { path: path.to_owned(), source })?;
    Ok(Table { dataset, features: header.feature_names() })
}

/// Reads records of trimmed values, no line longer than memory allows.
pub(crate) fn table_reader<R: Read>(source: R) -> ::csv::Reader<BoundedLines<R>> {
    ReaderBuilder::new().trim(Trim::All).from_reader(BoundedLines::new(source))
}

/// The header line, and which of its columns is what.
struct Header<'a> {
    path: &'a Path,
    names: Vec<String>,
    label: usize,
    client: Option<usize>,
    features: Vec<usize>,
}

impl<'a> Header<'a> {
    fn new(header: &StringRecord, path: &'a Path, columns: &Columns) -> Result<Self, CsvError> {
        let names = column_names(header, path)?;
        let find = |column: &str| find_column(&names, column, path);
        let label = find(&columns.label)?;
        let client = columns.client.as_deref().map(find).transpose()?;
        let features = match &columns.features {
            Some(features) => features.iter().map(|feature| find(feature)).collect::<Result<_, _>>()?,
            None => (0..names.len()).filter(|&at| at != label && Some(at) != client).collect(),
        };
        Ok(Self { path, names, label, client, features })
    }

    fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|&at| self.names[at].clone()).collect()
    }
}

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

/// The number in a value of a line.
pub(crate) fn feature(path: &Path, line: u64, column: &str, value: &str) -> Result<f32, CsvError> {
    let (path, column) = (|| path.to_owned(), || column.to_owned());
    if value.is_empty() {
        return Err(CsvError::Missing { path: path(), line, column: column() });
    }
    let number = value.parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| CsvError::NotANumber {
        path: path(),
        line,
        column: column(),
        value: value.to_owned(),
    })
}

/// One line below the header.
struct Line<'a> {
    header: &'a Header<'a>,
    record: &'a StringRecord,
}

impl Line<'_> {
    fn number(&self) -> u64 {
        self.record.position().map_or(0, |position| position.line())
    }

    fn value(&self, at: usize) -> Result<&str, CsvError> {
        match &self.record[at] {
            "" => Err(CsvError::Missing {
                path: self.header.path.to_owned(),
                line: self.number(),
                column: self.header.names[at].clone(),
            }),
            value => Ok(value),
        }
    }

    fn feature(&self, at: usize) -> Result<f32, CsvError> {
        feature(self.header.path, self.number(), &self.header.names[at], &self.record[at])
    }

    fn label(&self, classes: &Classes) -> Result<u32, CsvError> {
        let value = self.value(self.header.label)?;
        classes.of_label(value).ok_or_else(|| CsvError::NotALabel {
            path: self.header.path.to_owned(),
            line: self.number(),
            column: self.header.names[self.header.label].clone(),
            value: value.to_owned(),
            expected: classes.expected(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    fn table(text: &str) -> Result<Table, CsvError> {
        table_of(text, None, &Classes::Numbers(2))
    }

    fn table_of(text: &str, features: Option<&[&str]>, classes: &Classes) -> Result<Table, CsvError> {
        let columns = Columns {
            label: "sick".into(),
            client: Some("ward".into()),
            features: features.map(|names| names.iter().map(|&name| name.into()).collect()),
        };
        parse(text.as_bytes(), Path::new("patients.csv"), &columns, classes)
    }

    fn complaint(text: &str) -> String {
        table(text).unwrap_err().to_string()
    }

    #[test]
    fn every_column_but_label_and_client_is_a_feature() {
        let table = table("age,ward,sick,heat\n61, north,1,38.5\n7,south,0, -1e1\n").unwrap();
        assert_eq!(table.features, ["age", "heat"]);
        assert_eq!(table.dataset.features(), arr2(&[[61.0, 38.5], [7.0, -10.0]]));
        assert_eq!(table.dataset.labels(), arr1(&[1, 0]));
    }

    #[test]
    fn features_are_taken_in_the_order_asked_for_and_labels_by_name() {
        let classes = Classes::of_labels(["well", "ill"]);
        let text = "age,ward,sick,heat,note\n61,north,well,38.5,fine\n7,south,ill,37,\n8,north,ill,37,\n";
        let table = table_of(text, Some(&["heat", "age"]), &classes).unwrap();
        assert_eq!(table.features, ["heat", "age"]);
        assert_eq!(table.dataset.features(), arr2(&[[38.5, 61.0], [37.0, 7.0], [37.0, 8.0]]));
        assert_eq!(table.dataset.labels(), arr1(&[1, 0, 0]));
        let owners = table.dataset.owners().unwrap();
        assert_eq!(owners.names(), ["north", "south"]);
        assert_eq!(owners.of_rows(), [0, 1, 0]);
        let unknown = table_of("age,ward,sick,heat\n1,n,dead,2\n", Some(&["heat"]), &classes).unwrap_err();
        assert!(unknown.to_string().ends_with("`dead` is not a label, one of `ill`, `well`"), "{unknown}");
    }

    #[test]
    fn a_missing_value_is_named_as_such() {
        assert_eq!(
            complaint("age,ward,sick\n61,a,1\n,b,0\n"),
            "patients.csv, line 3, column `age`: the value is missing; fill it in, or leave the line out"
        );
        assert!(complaint("age,ward,sick\n61,,1\n").contains("line 2, column `ward`: the value is missing"));
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        assert_eq!(
            complaint("age,ward,sick\n61,a,1\nold,b,0\n"),
            "patients.csv, line 3, column `age`: `old` is not a finite number"
        );
        for value in ["inf", "NaN", "1e40", ""] {
            assert!(complaint(&format!("age,ward,sick\n{value},a,1\n")).contains("line 2, column `age`"));
        }
        for label in ["2", "-1", "yes", "1.0"] {
            assert_eq!(
                complaint(&format!("age,ward,sick\n61,a,{label}\n")),
                format!(
                    "patients.csv, line 2, column `sick`: `{label}` is not a label, \
                     an integer from 0 to below 2"
                )
            );
        }
        for (line, text) in [(2, "7,b\n61,a,1\n"), (3, "61,a,1\n7,b\n"), (3, "61,a,1\n7,b,1,2\n")] {
            let short = complaint(&format!("age,ward,sick\n{text}"));
            assert!(
                short.starts_with("patients.csv: ") && short.contains(&format!("line: {line}")),
                "{short}"
            );
        }
    }

    #[test]
    fn a_header_needs_the_columns_asked_for_once_each() {
        assert_eq!(
            complaint("age,ward,ill\n"),
            "patients.csv, line 1: no column `sick`; there are: age, ward, ill"
        );
        assert_eq!(complaint("age,ward,age,sick\n"), "patients.csv, line 1: column `age` occurs twice");
    }

    #[test]
    fn a_table_without_examples_or_features_is_refused() {
        for text in ["age,ward,sick\n", "ward,sick\na,1\n"] {
            assert!(matches!(table(text), Err(CsvError::Dataset { .. })));
        }
        assert!(complaint("").contains("no column `sick`"));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let columns = Columns { label: "sick".into(), client: None, features: None };
        let error = read(Path::new("nowhere.csv"), &columns, &Classes::Numbers(2)).unwrap_err();
        assert!(matches!(error, CsvError::Open { .. }));
        assert!(error.to_string().starts_with("nowhere.csv: "));
    }
}
