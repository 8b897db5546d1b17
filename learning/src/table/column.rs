//! A column of a table, and what a value of it becomes.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::parquet;

/// A column: what it holds, and what stands in for a value that is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// What stands in for a missing value; without it, one is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Filling>,
    /// Whether one more number says that the value is missing, as 1, or not, as 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub indicator: bool,
}

/// What values of a column are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// Numbers, taken as they are.
    Number,
    /// One of these categories, each of which is a number that is 1 for its own examples and 0 for all others.
    Category {
        /// The categories, in the order of their numbers.
        categories: Vec<String>,
        /// Whether any other value has a number of its own, the last; without it, one is an error.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        other: bool,
    },
}

/// What stands in for a missing value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Filling {
    /// This number, finite.
    Value(f32),
    /// This category.
    Category(String),
    /// No category: all of their numbers are 0.
    NoCategory,
}

/// Why a column makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("column `{column}`: {problem}")]
pub struct ColumnFault {
    /// The column.
    pub column: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A value as it stands in a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Nothing, or an empty text.
    Missing,
    /// A text.
    Text(&'a str),
    /// A whole number, exactly.
    Integer(i128),
    /// A number.
    Number(f64),
}

/// What is wrong with a value, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CellFault {
    /// It is missing, and nothing stands in for it.
    #[error("the value is missing; fill it in, or leave the line out")]
    Missing,
    /// It is no finite number that `f32` can hold.
    #[error("`{0}` is not a finite number")]
    NotANumber(String),
    /// It names no class.
    #[error("`{value}` is not a label, {expected}")]
    NotALabel {
        /// What stands there.
        value: String,
        /// What a label may be.
        expected: String,
    },
    /// It is none of the categories.
    #[error("`{value}` is not a category; declared are {declared}")]
    Unknown {
        /// What stands there.
        value: String,
        /// The categories, the first of many.
        declared: String,
    },
    /// A number to predict is outside of its bounds, or cannot be scaled.
    #[error("`{value}` is outside of what the target may be{bounds}")]
    OutOfBounds {
        /// What stands there.
        value: String,
        /// The bounds, in words; empty where there are none.
        bounds: String,
    },
    /// It is a number where a name is needed, and other numbers may have become the same.
    #[error(
        "the number `{0}` is not exact, so it names nothing; write whole numbers as integers, or as texts"
    )]
    Inexact(String),
    /// Its bytes are no text.
    #[error("holds bytes that are not UTF-8")]
    NotText,
    /// It is a list or an object.
    #[error("holds a list or an object, where a number or a text is needed")]
    Nested,
}

impl Column {
    /// A column of numbers that are taken as they are.
    pub fn number(name: impl Into<String>) -> Self {
        Column { name: name.into(), kind: Kind::Number, missing: None, indicator: false }
    }

    /// Whether every value is a number that is taken as it is.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::Number && self.missing.is_none() && !self.indicator
    }

    /// How many numbers a value becomes.
    pub fn width(&self) -> usize {
        self.values() + usize::from(self.indicator)
    }

    /// As [`Column::width`], but for the indicator, which comes last.
    fn values(&self) -> usize {
        match &self.kind {
            Kind::Number => 1,
            Kind::Category { categories, other } => categories.len() + usize::from(*other),
        }
    }

    /// What these numbers are called.
    pub(super) fn names(&self) -> Vec<String> {
        let name = &self.name;
        let mut names = match &self.kind {
            Kind::Number => vec![name.clone()],
            Kind::Category { categories, other } => {
                let other = other.then(|| format!("{name} other"));
                categories.iter().map(|category| format!("{name}={category}")).chain(other).collect()
            }
        };
        names.extend(self.indicator.then(|| format!("{name} missing")));
        names
    }

    pub(super) fn check(&self) -> Result<(), ColumnFault> {
        let problem = match (&self.kind, &self.missing) {
            (_, None) if self.indicator => {
                "an indicator says that a value is missing, but nothing is said to stand in for it"
            }
            (Kind::Number, Some(Filling::Value(value))) if !value.is_finite() => {
                "what stands in for a missing value must be finite"
            }
            (Kind::Number, Some(Filling::Category(_) | Filling::NoCategory)) => {
                "a number must stand in for a missing number"
            }
            (Kind::Category { .. }, Some(Filling::Value(_))) => {
                "a category must stand in for a missing category"
            }
            (Kind::Category { categories, .. }, Some(Filling::Category(name)))
                if !categories.contains(name) =>
            {
                "what stands in for a missing value is none of the categories"
            }
            (Kind::Category { categories, .. }, _) if categories.is_empty() => "has no categories",
            (Kind::Category { categories, .. }, _)
                if categories.iter().any(|category| category.trim() != category) =>
            {
                "has a category with spaces around its name, which no value has"
            }
            (Kind::Category { categories, .. }, _) => {
                let mut seen = HashSet::new();
                match categories.iter().all(|category| !category.is_empty() && seen.insert(category)) {
                    true => return Ok(()),
                    false => "has a category without a name, or twice",
                }
            }
            _ => return Ok(()),
        };
        Err(ColumnFault { column: self.name.clone(), problem })
    }

    /// Makes `into`, as wide as the column and all zeros, what a value becomes.
    ///
    /// # Errors
    /// [`CellFault`].
    pub(super) fn encode(&self, cell: Cell<'_>, into: &mut [f32]) -> Result<(), CellFault> {
        if cell.is_missing() {
            let filling = self.missing.as_ref().ok_or(CellFault::Missing)?;
            if self.indicator {
                into[self.values()] = 1.0;
            }
            match (filling, &self.kind) {
                (Filling::Value(value), _) => into[0] = *value,
                (Filling::Category(name), Kind::Category { categories, .. }) => {
                    if let Some(at) = categories.iter().position(|category| category == name) {
                        into[at] = 1.0;
                    }
                }
                (Filling::Category(_) | Filling::NoCategory, _) => {}
            }
            return Ok(());
        }
        match &self.kind {
            Kind::Number => into[0] = cell.number()?,
            Kind::Category { categories, other } => {
                let value = cell.name()?;
                match categories.iter().position(|category| *category == value) {
                    Some(at) => into[at] = 1.0,
                    None if *other => into[categories.len()] = 1.0,
                    None => return Err(unknown(&value, categories)),
                }
            }
        }
        Ok(())
    }
}

fn unknown(value: &str, categories: &[String]) -> CellFault {
    let shown: Vec<_> = categories.iter().take(SHOWN).map(|category| format!("`{category}`")).collect();
    let more = if categories.len() > SHOWN { ", ..." } else { "" };
    CellFault::Unknown { value: shortened(value), declared: format!("{}{more}", shown.join(", ")) }
}

impl<'a> Cell<'a> {
    /// What a JSON value is as a cell.
    ///
    /// # Errors
    /// [`CellFault::Nested`].
    pub(crate) fn of_json(value: &'a Value) -> Result<Self, CellFault> {
        match value {
            Value::Null => Ok(Cell::Missing),
            Value::Bool(truth) => Ok(Cell::of_bool(*truth)),
            Value::Number(number) => Ok(match number.as_i128() {
                Some(integer) => Cell::Integer(integer),
                None => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
            }),
            Value::String(text) => Ok(Cell::Text(text.trim())),
            Value::Array(_) | Value::Object(_) => Err(CellFault::Nested),
        }
    }

    /// What a value of a Parquet file is as a cell.
    ///
    /// # Errors
    /// [`CellFault::NotText`].
    pub(crate) fn of_parquet(value: parquet::Value<'a>) -> Result<Self, CellFault> {
        match value {
            parquet::Value::Missing => Ok(Cell::Missing),
            parquet::Value::Bool(truth) => Ok(Cell::of_bool(truth)),
            parquet::Value::Integer(integer) => Ok(Cell::Integer(integer)),
            parquet::Value::Number(number) => Ok(Cell::Number(number)),
            parquet::Value::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| CellFault::NotText)?;
                Ok(Cell::Text(text.trim()))
            }
        }
    }

    fn of_bool(truth: bool) -> Self {
        Cell::Text(if truth { "true" } else { "false" })
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Cell::Missing | Cell::Text(""))
    }

    /// As a finite number that `f32` can hold.
    ///
    /// # Errors
    /// [`CellFault`].
    pub(crate) fn number(&self) -> Result<f32, CellFault> {
        let number = match self {
            Cell::Missing | Cell::Text("") => return Err(CellFault::Missing),
            Cell::Text(text) => text.parse().ok(),
            Cell::Integer(integer) => Some(*integer as f32),
            Cell::Number(number) => Some(*number as f32),
        };
        let number = number.filter(|number: &f32| number.is_finite());
        number.ok_or_else(|| CellFault::NotANumber(shortened(&self.text())))
    }

    /// What it names: a category, a class or a client. Different values name different things.
    ///
    /// # Errors
    /// [`CellFault::Inexact`].
    pub(crate) fn name(&self) -> Result<Cow<'a, str>, CellFault> {
        match self {
            Cell::Number(number) if number.abs() < MOST_EXACT => Ok(self.text()),
            Cell::Number(_) => Err(CellFault::Inexact(self.text().into_owned())),
            _ => Ok(self.text()),
        }
    }

    /// As a text: a whole number without a point.
    pub(crate) fn text(&self) -> Cow<'a, str> {
        match *self {
            Cell::Missing => Cow::Borrowed(""),
            Cell::Text(text) => Cow::Borrowed(text),
            Cell::Integer(integer) => Cow::Owned(integer.to_string()),
            Cell::Number(number) if number.fract() == 0.0 && number.abs() < MOST_EXACT => {
                Cow::Owned(format!("{}", number as i64))
            }
            Cell::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

/// The beginning of a long value.
pub(super) fn shortened(value: &str) -> String {
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// Whole numbers up to this are all different in f64.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
/// Categories that an error names.
const SHOWN: usize = 8;
/// Characters of a wrong value that an error repeats.
const LONGEST: usize = 40;
