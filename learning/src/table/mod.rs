//! Tables: columns of numbers and of categories, with values missing or not, as the numbers that a model takes.
//!
//! | file | holds |
//! | --- | --- |
//! | `column` | a column, and what a value of it becomes |
//! | `read` | examples from CSV, TSV, JSON Lines and Parquet |

mod column;
mod read;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use column::{Cell, CellFault, Column, ColumnFault, Filling, Kind};
pub(crate) use read::by_lines;
pub use read::{Answer, Declared, Format, Layout, Table, TableError, encoder, read};

use crate::ExampleError;
use crate::standardization::{Standardization, StandardizationFault};

/// The columns of an example in their order, and so the numbers that it becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Encoder {
    columns: Vec<Column>,
}

impl Encoder {
    /// An encoder of these columns.
    ///
    /// # Errors
    /// [`ColumnFault`] of the first column that makes no sense.
    pub fn new(columns: Vec<Column>) -> Result<Self, ColumnFault> {
        let encoder = Encoder { columns };
        encoder.check()?;
        Ok(encoder)
    }

    pub(crate) fn check(&self) -> Result<(), ColumnFault> {
        self.columns.iter().try_for_each(Column::check)
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether every value is a number that is taken as it is.
    pub fn is_plain(&self) -> bool {
        self.columns.iter().all(Column::is_plain)
    }

    /// How many numbers an example becomes.
    pub fn width(&self) -> usize {
        self.columns.iter().map(Column::width).sum()
    }

    /// What each of these numbers is called: `age`, `colour=red`, `age missing`.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().flat_map(Column::names).collect()
    }

    /// Where the numbers of each column begin.
    pub fn offsets(&self) -> Vec<usize> {
        let starts = self.columns.iter().scan(0, |next, column| {
            let start = *next;
            *next += column.width();
            Some(start)
        });
        starts.collect()
    }

    /// The names of the columns of numbers.
    pub fn numeric(&self) -> Vec<String> {
        let numeric = self.columns.iter().filter(|column| column.kind == Kind::Number);
        numeric.map(|column| column.name.clone()).collect()
    }

    /// The standardization of all numbers of an example by that of the columns of numbers: the others stay as they are.
    ///
    /// # Errors
    /// [`StandardizationFault::Columns`] if it is about other columns, or in another order.
    pub fn spread(&self, numeric: &Standardization) -> Result<Standardization, StandardizationFault> {
        let found = self.numeric();
        if numeric.columns() != found {
            return Err(StandardizationFault::Columns { standardized: numeric.columns().to_vec(), found });
        }
        let (mut mean, mut deviation) = (vec![0.0; self.width()], vec![1.0; self.width()]);
        let places =
            self.columns.iter().zip(self.offsets()).filter(|(column, _)| column.kind == Kind::Number);
        for ((_, at), (own, divisor)) in places.zip(numeric.mean().iter().zip(numeric.deviation())) {
            (mean[at], deviation[at]) = (*own, *divisor);
        }
        Standardization::new(self.names(), mean, deviation)
    }

    /// The numbers of an example whose value in each column `cell` gives.
    ///
    /// # Errors
    /// The column and what is wrong with its value.
    pub fn encode<'c>(
        &self,
        mut cell: impl FnMut(usize) -> Result<Cell<'c>, CellFault>,
    ) -> Result<Vec<f32>, (usize, CellFault)> {
        let mut numbers = vec![0.0; self.width()];
        for (at, (column, start)) in self.columns.iter().zip(self.offsets()).enumerate() {
            let into = &mut numbers[start..start + column.width()];
            cell(at).and_then(|cell| column.encode(cell, into)).map_err(|fault| (at, fault))?;
        }
        Ok(numbers)
    }

    /// The numbers of an example in JSON: an object with the columns' names, whose other members are left alone, or a list in the
    /// order of the columns.
    pub(crate) fn example(&self, value: &Value) -> Result<Vec<f32>, ExampleError> {
        let at = |at: usize| match value {
            Value::Object(members) => members.get(&self.columns[at].name).unwrap_or(&Value::Null),
            list => &list[at],
        };
        match value {
            Value::Array(list) if list.len() != self.columns.len() => {
                Err(ExampleError::Cells { expected: self.columns.len(), actual: list.len() })
            }
            Value::Array(_) | Value::Object(_) => {
                self.encode(|column| Cell::of_json(at(column))).map_err(|(column, fault)| {
                    ExampleError::Cell { column: self.columns[column].name.clone(), fault }
                })
            }
            _ => Err(ExampleError::Kind),
        }
    }
}
