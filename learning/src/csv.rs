//! A data set from a CSV file: a header line, a label column, numeric features.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::csv::{ReaderBuilder, StringRecord, Trim};
use ndarray::{Array1, Array2};
use thiserror::Error;

use crate::{Dataset, DatasetError};

/// Which columns of a table are not features, by their names in the header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The column that holds the label, an integer from 0 to below the number of classes.
    pub label: String,
    /// A column that says whose example it is, if there is one. Its content is not read.
    pub client: Option<String>,
}

/// What a CSV file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The examples, one a line.
    pub dataset: Dataset,
    /// Names of the features, in the order of the file.
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
    /// A label is not an integer from 0 to below the number of classes.
    #[error(
        "{}, line {line}, column `{column}`: `{value}` is not a label, an integer from 0 to below {classes}",
        path.display()
    )]
    NotALabel {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What stands there.
        value: String,
        /// Number of classes.
        classes: usize,
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

/// Reads the examples of `path`, whose labels lie below `classes`. Values are taken as they are:
/// scaling that depended on the data would reveal it.
///
/// # Errors
/// [`CsvError`], which names the file, the line and the column.
pub fn read(path: &Path, columns: &Columns, classes: usize) -> Result<Table, CsvError> {
    let file = File::open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
    parse(file, path, columns, classes)
}

fn parse(source: impl Read, path: &Path, columns: &Columns, classes: usize) -> Result<Table, CsvError> {
    let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(source);
    let header = Header::new(reader.headers().map_err(malformed)?, path, columns)?;
    let (mut features, mut labels) = (Vec::new(), Vec::new());
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = record.position().map_or(0, |position| position.line());
        labels.push(header.label(&record, line, classes)?);
        for &feature in &header.features {
            features.push(header.feature(&record, line, feature)?);
        }
    }
    let shape = (labels.len(), header.features.len());
    Array2::from_shape_vec(shape, features)
        .map_err(|_| DatasetError::Empty { rows: shape.0, columns: shape.1 })
        .and_then(|features| Dataset::new(features, Array1::from_vec(labels), classes))
        .map(|dataset| Table { dataset, features: header.feature_names() })
        .map_err(|source| CsvError::Dataset { path: path.to_owned(), source })
}

/// The header line, and which of its columns is what.
struct Header<'a> {
    path: &'a Path,
    names: Vec<String>,
    label: usize,
    features: Vec<usize>,
}

impl<'a> Header<'a> {
    fn new(header: &StringRecord, path: &'a Path, columns: &Columns) -> Result<Self, CsvError> {
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        let repeated = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name));
        if let Some((_, column)) = repeated {
            return Err(CsvError::RepeatedColumn { path: path.to_owned(), column: column.clone() });
        }
        let find = |column: &str| {
            names.iter().position(|name| name == column).ok_or_else(|| CsvError::MissingColumn {
                path: path.to_owned(),
                column: column.to_owned(),
                present: names.clone(),
            })
        };
        let label = find(&columns.label)?;
        let client = columns.client.as_deref().map(find).transpose()?;
        let features = (0..names.len()).filter(|&at| at != label && Some(at) != client).collect();
        Ok(Self { path, names, label, features })
    }

    fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|&at| self.names[at].clone()).collect()
    }

    fn feature(&self, record: &StringRecord, line: u64, at: usize) -> Result<f32, CsvError> {
        let value = &record[at];
        let number = value.parse().ok().filter(|number: &f32| number.is_finite());
        number.ok_or_else(|| CsvError::NotANumber {
            path: self.path.to_owned(),
            line,
            column: self.names[at].clone(),
            value: value.to_owned(),
        })
    }

    fn label(&self, record: &StringRecord, line: u64, classes: usize) -> Result<u32, CsvError> {
        let value = &record[self.label];
        let label = value.parse().ok().filter(|&label: &u32| (label as usize) < classes);
        label.ok_or_else(|| CsvError::NotALabel {
            path: self.path.to_owned(),
            line,
            column: self.names[self.label].clone(),
            value: value.to_owned(),
            classes,
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;

    fn table(text: &str) -> Result<Table, CsvError> {
        let columns = Columns { label: "sick".into(), client: Some("ward".into()) };
        parse(text.as_bytes(), Path::new("patients.csv"), &columns, 2)
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
    fn an_error_names_file_line_and_column() {
        assert_eq!(
            complaint("age,ward,sick\n61,a,1\nold,b,0\n"),
            "patients.csv, line 3, column `age`: `old` is not a finite number"
        );
        for value in ["inf", "NaN", "1e40", ""] {
            assert!(complaint(&format!("age,ward,sick\n{value},a,1\n")).contains("line 2, column `age`"));
        }
        for label in ["2", "-1", "yes", "1.0", ""] {
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
        let columns = Columns { label: "sick".into(), client: None };
        let error = read(Path::new("nowhere.csv"), &columns, 2).unwrap_err();
        assert!(matches!(error, CsvError::Open { .. }));
        assert!(error.to_string().starts_with("nowhere.csv: "));
    }
}
