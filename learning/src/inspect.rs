//! What a file of examples holds, before anybody learns from it. Reads it once and keeps counts only.

use std::collections::BTreeMap;
use std::path::Path;

use ::csv::StringRecord;
use serde::Serialize;

use crate::csv::{CsvError, column_names, find_column};
use crate::source::open;
use crate::table::{self, by_lines};

/// A CSV file, column by column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    /// Lines below the header.
    pub examples: u64,
    /// The columns that are neither label nor client, in the order of the file.
    pub features: Vec<FeatureReport>,
    /// The column of labels, if it was named.
    pub label: Option<ValuesReport>,
    /// The column of clients, if it was named.
    pub client: Option<ValuesReport>,
}

/// A column that should hold numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FeatureReport {
    /// Its name.
    pub column: String,
    /// Empty values, and the first line with one.
    pub missing: Flaws,
    /// Values that are no finite number, and the first line with one.
    pub not_numbers: Flaws,
    /// The smallest number; null if there is none.
    pub minimum: Option<f64>,
    /// The largest number; null if there is none.
    pub maximum: Option<f64>,
}

/// A column whose values are names.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ValuesReport {
    /// Its name.
    pub column: String,
    /// Empty values, and the first line with one.
    pub missing: Flaws,
    /// Examples of each value; null where there are more than [`MAX_VALUES`].
    pub examples: Option<BTreeMap<String, u64>>,
}

/// Values that cannot be learned from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Flaws {
    /// How many.
    pub count: u64,
    /// The line of the first, the header being line 1; null if there is none.
    pub first_line: Option<u64>,
}

/// More different values than this are not told apart.
pub const MAX_VALUES: usize = 100_000;

/// Looks through the CSV file at `path`; `label` and `client` name its columns of names.
///
/// # Errors
/// [`CsvError`], if the file cannot be read, is no table, or lacks a named column.
pub fn table(path: &Path, label: Option<&str>, client: Option<&str>) -> Result<TableReport, CsvError> {
    let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
    let file = open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
    let mut reader = by_lines(file, table::Format::Csv);
    let names = column_names(reader.headers().map_err(malformed)?, path)?;
    let find = |column: Option<&str>| column.map(|column| find_column(&names, column, path)).transpose();
    let (label_at, client_at) = (find(label)?, find(client)?);
    let features_at: Vec<usize> =
        (0..names.len()).filter(|&at| Some(at) != label_at && Some(at) != client_at).collect();
    let mut report = TableReport {
        examples: 0,
        features: features_at.iter().map(|&at| FeatureReport::of(&names[at])).collect(),
        label: label.map(ValuesReport::of),
        client: client.map(ValuesReport::of),
    };
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = record.position().map_or(0, |position| position.line());
        report.examples += 1;
        for (feature, &at) in report.features.iter_mut().zip(&features_at) {
            feature.see(&record[at], line);
        }
        for (values, at) in [(&mut report.label, label_at), (&mut report.client, client_at)] {
            if let (Some(values), Some(at)) = (values, at) {
                values.see(&record[at], line);
            }
        }
    }
    Ok(report)
}

impl FeatureReport {
    fn of(column: &str) -> Self {
        Self { column: column.to_owned(), ..Self::default() }
    }

    fn see(&mut self, value: &str, line: u64) {
        if value.is_empty() {
            return self.missing.see(line);
        }
        // Training reads it as f32.
        match value.parse().ok().filter(|number: &f64| (*number as f32).is_finite()) {
            None => self.not_numbers.see(line),
            Some(number) => {
                self.minimum = Some(self.minimum.map_or(number, |least| least.min(number)));
                self.maximum = Some(self.maximum.map_or(number, |most| most.max(number)));
            }
        }
    }
}

impl ValuesReport {
    pub(crate) fn of(column: &str) -> Self {
        Self { column: column.to_owned(), examples: Some(BTreeMap::new()), ..Self::default() }
    }

    pub(crate) fn see(&mut self, value: &str, line: u64) {
        if value.is_empty() {
            return self.missing.see(line);
        }
        let Some(examples) = &mut self.examples else { return };
        if let Some(count) = examples.get_mut(value) {
            *count += 1;
        } else if examples.len() < MAX_VALUES {
            examples.insert(value.to_owned(), 1);
        } else {
            self.examples = None;
        }
    }
}

impl Flaws {
    pub(crate) fn see(&mut self, line: u64) {
        self.count += 1;
        self.first_line.get_or_insert(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, label: Option<&str>, client: Option<&str>) -> Result<TableReport, CsvError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("patients.csv");
        std::fs::write(&path, text).unwrap();
        table(&path, label, client)
    }

    #[test]
    fn every_flaw_is_counted_and_the_first_is_placed() {
        let text = "age,ward,sick,note\n61,north,yes,\n,south,no,fine\n-7,north,yes,1e40\n,north,,\n";
        let report = report(text, Some("sick"), Some("ward")).unwrap();
        assert_eq!(report.examples, 4);
        let [age, note] = report.features.as_slice() else { panic!("{report:?}") };
        assert_eq!(age.missing, Flaws { count: 2, first_line: Some(3) });
        assert_eq!((age.minimum, age.maximum, age.not_numbers.count), (Some(-7.0), Some(61.0), 0));
        assert_eq!(note.not_numbers, Flaws { count: 2, first_line: Some(3) });
        assert_eq!((note.missing.count, note.minimum), (2, None));
        let label = report.label.unwrap();
        assert_eq!(label.missing, Flaws { count: 1, first_line: Some(5) });
        assert_eq!(label.examples.unwrap(), BTreeMap::from([("no".into(), 1), ("yes".into(), 2)]));
        let clients = report.client.unwrap().examples.unwrap();
        assert_eq!(clients, BTreeMap::from([("north".into(), 3), ("south".into(), 1)]));
    }

    #[test]
    fn a_column_of_too_many_values_is_not_kept() {
        let mut text = "id\n".to_owned();
        (0..=MAX_VALUES).for_each(|id| text += &format!("{id}\n"));
        assert_eq!(report(&text, Some("id"), None).unwrap().label.unwrap().examples, None);
        let missing = report("a,b\n1,2\n", Some("label"), None).unwrap_err();
        assert!(missing.to_string().ends_with("line 1: no column `label`; there are: a, b"), "{missing}");
    }
}
