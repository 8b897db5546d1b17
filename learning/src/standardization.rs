//! Numbers made alike: each column less its mean, divided by its standard deviation, both of which are public.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Dataset, DatasetError};

/// What is subtracted from each number of an example, and what it is divided by then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Columns")]
pub struct Standardization {
    columns: Vec<String>,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// The same, unchecked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Columns {
    columns: Vec<String>,
    mean: Vec<f32>,
    deviation: Vec<f32>,
}

/// Why numbers cannot be standardized.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StandardizationFault {
    /// The lists are not about the same columns.
    #[error("names {columns} columns, and has {means} means and {deviations} standard deviations")]
    Lengths {
        /// Columns named.
        columns: usize,
        /// Means.
        means: usize,
        /// Standard deviations.
        deviations: usize,
    },
    /// A mean or a standard deviation is of no use.
    #[error("column `{0}` needs a finite mean and a finite standard deviation above 0")]
    Number(String),
    /// The columns are not those of the data.
    #[error("is about the columns {standardized:?}, and the data have {found:?}")]
    Columns {
        /// Its columns.
        standardized: Vec<String>,
        /// The columns of the data.
        found: Vec<String>,
    },
}

/// Why a file does not say how numbers are standardized.
#[derive(Debug, Error)]
pub enum StandardizationError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not understood, or not about these data.
    #[error("{}: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl TryFrom<Columns> for Standardization {
    type Error = StandardizationFault;

    fn try_from(read: Columns) -> Result<Self, StandardizationFault> {
        Standardization::new(read.columns, read.mean, read.deviation)
    }
}

impl Standardization {
    /// Of these columns, in their order.
    ///
    /// # Errors
    /// [`StandardizationFault`] when the lists differ in length, or numbers are not finite or cannot be divided by.
    pub fn new(
        columns: Vec<String>,
        mean: Vec<f32>,
        deviation: Vec<f32>,
    ) -> Result<Self, StandardizationFault> {
        if columns.len() != mean.len() || columns.len() != deviation.len() {
            let (columns, means, deviations) = (columns.len(), mean.len(), deviation.len());
            return Err(StandardizationFault::Lengths { columns, means, deviations });
        }
        let is_useless = |(mean, deviation): (&f32, &f32)| {
            !(mean.is_finite() && deviation.is_finite() && *deviation > 0.0)
        };
        match mean.iter().zip(&deviation).position(is_useless) {
            Some(at) => Err(StandardizationFault::Number(columns[at].clone())),
            None => Ok(Standardization { columns, mean, deviation }),
        }
    }

    /// Reads the JSON file `path`.
    ///
    /// # Errors
    /// [`StandardizationError`], which names the file.
    pub fn read(path: &Path) -> Result<Self, StandardizationError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| StandardizationError::File { path: path.to_owned(), source })?;
        let wrong = |problem: String| StandardizationError::Wrong { path: path.to_owned(), problem };
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The mean of a column, if it is about that.
    pub fn mean_of(&self, column: &str) -> Option<f32> {
        self.columns.iter().position(|name| name == column).map(|at| self.mean[at])
    }

    /// Numbers of an example.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What is subtracted from each number.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// What each is divided by then.
    pub fn deviation(&self) -> &[f32] {
        &self.deviation
    }

    /// Standardizes examples, one row of as many numbers after the other.
    pub fn apply(&self, numbers: &mut [f32]) {
        for row in numbers.chunks_mut(self.columns.len().max(1)) {
            let by = self.mean.iter().zip(&self.deviation);
            row.iter_mut()
                .zip(by)
                .for_each(|(number, (mean, deviation))| *number = (*number - mean) / deviation);
        }
    }

    /// The data set with its features standardized.
    ///
    /// # Errors
    /// [`DatasetError::NotFinite`] where that leaves the range of numbers.
    pub fn of_dataset(&self, dataset: Dataset) -> Result<Dataset, DatasetError> {
        dataset.with_features(|features| self.apply(features))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn made(mean: Vec<f32>, deviation: Vec<f32>) -> Result<Standardization, StandardizationFault> {
        Standardization::new(vec!["age".into(), "heat".into()], mean, deviation)
    }

    #[test]
    fn columns_are_centred_and_scaled() {
        let made = made(vec![50.0, 38.0], vec![10.0, 0.5]).unwrap();
        let data = Dataset::new(array![[60.0, 38.0], [45.0, 37.0]], array![0, 1], 2).unwrap();
        let data = made.of_dataset(data).unwrap();
        assert_eq!(data.features(), array![[1.0, 0.0], [-0.5, -2.0]]);
    }

    #[test]
    fn what_comes_from_a_file_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("statistics.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Standardization::read(&path).map_err(|error| error.to_string())
        };
        let good = r#"{"columns":["age","heat"],"mean":[50.0,38.0],"deviation":[10.0,0.5]}"#;
        let standardization = made(vec![50.0, 38.0], vec![10.0, 0.5]).unwrap();
        assert_eq!(serde_json::to_string(&standardization).unwrap(), good);
        assert_eq!((standardization.mean_of("heat"), standardization.mean_of("cold")), (Some(38.0), None));
        assert_eq!(read(good), Ok(standardization));
        let flat = read(&good.replace("0.5", "0.0")).unwrap_err();
        assert!(flat.contains("column `heat` needs a finite mean and a finite standard deviation"), "{flat}");
        assert!(
            made(vec![1.0], vec![1.0, 1.0]).is_err() && made(vec![1.0, f32::NAN], vec![1.0, 1.0]).is_err()
        );
    }
}
