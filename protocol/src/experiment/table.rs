//! `task.data` of tables: which columns there are, what they hold, and what is to be told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::data::{CountOrNames, Files};
use super::data_file::{files, named, parts, several};
use super::validate::{Invalid, invalid};

/// How a table is written down: the `kind` of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// By commas, below a header line.
    Csv,
    /// By tabulators, below a header line.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// Tables: one example a line, features in its columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TableData {
    /// How they are written down.
    pub format: TableFormat,
    /// The tables.
    pub files: Files<PathBuf>,
    /// What is to be told of each example.
    pub answer: TableAnswer,
    /// The column that says whose example it is, if there is one.
    pub client: Option<String>,
    /// The columns that hold features: these, or all others, of which there are so many.
    pub features: CountOrNames,
    /// What is said of those that are more than numbers taken as they are.
    pub columns: BTreeMap<String, TableColumn>,
    /// A public file of means and standard deviations, by which numbers are made alike.
    pub standardize: Option<PathBuf>,
}

/// What is to be told of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum TableAnswer {
    /// A class.
    Class {
        /// The column that holds its label.
        label: String,
        /// The classes that labels name: integers from 0, or these texts.
        classes: CountOrNames,
    },
    /// A number.
    Number(Target),
}

/// `task.data.target`: a column of numbers to predict, and how they are scaled; all of it is public.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The column.
    pub column: String,
    /// No number is outside of these; they become −1 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 2]>,
    /// In place of bounds: what is subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// And what the rest is divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// How an error counts.
    #[serde(default)]
    pub loss: Loss,
}

/// How the error d of a prediction counts, in units of the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Loss {
    /// d².
    #[default]
    Squared,
    /// |d|.
    Absolute,
    /// d²/2 up to `delta`, beyond it as a line.
    Huber {
        /// Above 0.
        delta: f64,
    },
}

/// A table of `task.data.columns`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableColumn {
    /// The categories that there are; without them, its values are numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
    /// Whether any other value is a category of its own; without it, one is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other: bool,
    /// What stands in for a missing value; without it, one is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// Whether one more number says that a value is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub indicator: bool,
}

/// What stands in for a missing value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The column's mean in the file of `standardize`.
    Mean,
    /// This number.
    Value(f64),
    /// This category.
    Category(String),
    /// No category: all of their numbers are 0.
    NoCategory,
}

/// `task.data` of a table, as it is typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    /// What simulated clients share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Instead of `test`: the last of every so many lines of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// The column that holds the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The column that says whose example a line is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// How many columns hold features, or which.
    pub features: CountOrNames,
    /// How many classes there are, or what their labels are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<CountOrNames>,
    /// A public file of means and standard deviations, as `skep data statistics` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardize: Option<PathBuf>,
    /// In place of label and classes: the number to predict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What is said of columns that are more than numbers taken as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, TableColumn>,
}

impl TableColumn {
    /// How many numbers a value becomes.
    fn width(&self) -> u32 {
        let values = match &self.categories {
            None => 1,
            Some(categories) => categories.len() + usize::from(self.other),
        };
        u32::try_from(values + usize::from(self.indicator)).unwrap_or(u32::MAX)
    }

    fn check(&self, key: &str, is_standardized: bool) -> Result<(), Invalid> {
        let wrong = |part: &str, problem: &str| Err(invalid(&format!("{key}.{part}"), problem));
        match (&self.categories, &self.missing) {
            (_, None) if self.indicator => {
                return wrong(
                    "missing",
                    "is not there: with an indicator, say what stands in for a missing value",
                );
            }
            (None, _) if self.other => {
                return wrong("other", "has no meaning without categories: remove it");
            }
            (None, Some(Missing::Mean)) if !is_standardized => {
                return wrong(
                    "missing",
                    "is \"mean\", which is that of the file of task.data.standardize: name it, or choose a number, { value = 0 }",
                );
            }
            (None, Some(Missing::Value(value))) if !(*value as f32).is_finite() => {
                return wrong("missing", "must be a finite number");
            }
            (None, Some(Missing::Category(_) | Missing::NoCategory)) => {
                return wrong(
                    "missing",
                    "must be \"mean\" or a number, { value = 0 }: the column has no categories",
                );
            }
            (Some(_), Some(Missing::Mean | Missing::Value(_))) => {
                return wrong(
                    "missing",
                    "must be { category = \"...\" } or \"no-category\": the column holds categories",
                );
            }
            (Some(categories), Some(Missing::Category(name))) if !categories.contains(name) => {
                return wrong("missing", "is none of the column's categories");
            }
            (Some(_), Some(Missing::NoCategory)) if !self.indicator => {
                return wrong(
                    "indicator",
                    "must be true where a missing value is no category: nothing else tells it from others",
                );
            }
            _ => {}
        }
        match &self.categories {
            Some(categories) if categories.iter().any(|category| category.trim() != category) => wrong(
                "categories",
                "has a name with spaces around it: values are read without them, so it would never be found",
            ),
            Some(categories) => {
                several(&format!("{key}.categories"), &CountOrNames::Names(categories.clone()), 1).map(drop)
            }
            None => Ok(()),
        }
    }
}

/// The least scale of a target in units of its shift: 128 single floats or more, of 24 bits each, lie within a scale.
const FINEST: f64 = 1.0 / 65_536.0;

impl Target {
    /// What is subtracted from a number, and what the rest is divided by.
    pub fn shift_and_scale(&self) -> (f64, f64) {
        match self.bounds {
            Some([low, high]) => (f64::midpoint(low, high), (high - low) / 2.0),
            None => (self.mean.unwrap_or(0.0), self.deviation.unwrap_or(1.0)),
        }
    }

    fn check(&self) -> Result<(), Invalid> {
        named("task.data.target.column", &self.column)?;
        match (self.bounds, self.mean, self.deviation) {
            (Some([low, high]), None, None) if !(low < high && low.is_finite() && high.is_finite()) => {
                return Err(invalid(
                    "task.data.target.bounds",
                    format!("are {low} and {high}, but must be finite, the lower one first"),
                ));
            }
            (Some(_), None, None) | (None, Some(_), Some(_)) => {}
            (Some(_), _, _) => {
                return Err(invalid(
                    "task.data.target.bounds",
                    "say how the target is scaled, and so do mean and deviation: remove one of the two",
                ));
            }
            (None, _, _) => {
                return Err(invalid(
                    "task.data.target",
                    "does not say how it is scaled: give public bounds, or a public mean and deviation; there is no default, which would \
                     have to come from data",
                ));
            }
        }
        let (shift, scale) = self.shift_and_scale();
        if !((shift as f32).is_finite() && (scale as f32).is_finite() && scale as f32 > 0.0) {
            return Err(invalid(
                "task.data.target",
                format!(
                    "is scaled by {scale} around {shift}, but must be by a finite number above 0, around a finite one"
                ),
            ));
        }
        if scale < shift.abs() * FINEST {
            return Err(invalid(
                "task.data.target",
                format!(
                    "is scaled by {scale} around {shift}, where single floats cannot tell its numbers apart: subtract a number near {shift} \
                     from the column"
                ),
            ));
        }
        match self.loss {
            Loss::Huber { delta } if !(delta.is_finite() && delta > 0.0) => Err(invalid(
                "task.data.target.loss",
                format!("has delta {delta}, but it must be a finite number above 0"),
            )),
            _ => Ok(()),
        }
    }
}

impl TableData {
    /// Numbers in one example.
    pub fn numbers(&self) -> u32 {
        let plain =
            self.features.count().saturating_sub(u32::try_from(self.columns.len()).unwrap_or(u32::MAX));
        self.columns.values().fold(plain, |sum, column| sum.saturating_add(column.width()))
    }

    /// Whether examples are more than numbers as they stand in files, and classes.
    pub fn is_encoded(&self) -> bool {
        !self.columns.is_empty()
            || self.standardize.is_some()
            || matches!(self.answer, TableAnswer::Number(_))
    }

    /// What a file says.
    pub(super) fn new(format: TableFormat, file: &TableFile) -> Result<Self, Invalid> {
        let table = TableData {
            format,
            files: files(&file.train, &file.test, file.hold_out_every)?,
            answer: answer(file)?,
            client: file.client.as_ref().map(|name| named("task.data.client", name)).transpose()?,
            features: several("task.data.features", &file.features, 1)?,
            columns: file.columns.clone(),
            standardize: file.standardize.clone(),
        };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), Invalid> {
        let (key, answer) = match &self.answer {
            TableAnswer::Class { label, .. } => ("task.data.label", label),
            TableAnswer::Number(target) => ("task.data.target.column", &target.column),
        };
        if let CountOrNames::Names(names) = &self.features {
            if names.contains(answer) {
                return Err(invalid(
                    key,
                    "is among task.data.features, where it would be no secret to the model",
                ));
            }
            if let Some(name) = self.columns.keys().find(|name| !names.contains(name)) {
                return Err(invalid(
                    &format!("task.data.columns.{name}"),
                    "is none of task.data.features: name it there, or remove it here",
                ));
            }
        } else if self.format == TableFormat::Jsonl {
            return Err(invalid(
                "task.data.features",
                "must name the features: JSON objects have no columns that could be counted",
            ));
        }
        if self.columns.len() > self.features.count() as usize {
            return Err(invalid(
                "task.data.columns",
                "says something of more columns than there are features",
            ));
        }
        let standardized = self.standardize.is_some();
        let check = |(name, column): (&String, &TableColumn)| {
            column.check(&format!("task.data.columns.{name}"), standardized)
        };
        self.columns.iter().try_for_each(check)
    }

    /// As it would be typed.
    pub(super) fn file(&self) -> TableFile {
        let (train, test, hold_out_every) = parts(&self.files);
        let (label, classes, target) = match self.answer.clone() {
            TableAnswer::Class { label, classes } => (Some(label), Some(classes), None),
            TableAnswer::Number(target) => (None, None, Some(target)),
        };
        TableFile {
            train,
            test,
            hold_out_every,
            label,
            client: self.client.clone(),
            features: self.features.clone(),
            classes,
            standardize: self.standardize.clone(),
            target,
            columns: self.columns.clone(),
        }
    }
}

fn answer(file: &TableFile) -> Result<TableAnswer, Invalid> {
    match (&file.target, &file.label, &file.classes) {
        (Some(target), None, None) => {
            target.check()?;
            Ok(TableAnswer::Number(target.clone()))
        }
        (Some(_), Some(_), _) => Err(invalid(
            "task.data.label",
            "names classes, and task.data.target a number to predict: remove one of the two",
        )),
        (Some(_), None, Some(_)) => Err(invalid(
            "task.data.classes",
            "have no meaning beside task.data.target, a number: remove them",
        )),
        (None, Some(label), Some(classes)) => Ok(TableAnswer::Class {
            label: named("task.data.label", label)?,
            classes: several("task.data.classes", classes, 2)?,
        }),
        (None, None, _) => Err(invalid(
            "task.data.label",
            "is missing: name the column of the label, or of a number to predict with task.data.target",
        )),
        (None, Some(_), None) => {
            Err(invalid("task.data.classes", "are missing: how many are there, or what are their labels?"))
        }
    }
}
