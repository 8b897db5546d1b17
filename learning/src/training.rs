//! The hyperparameters of local training.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How a client trains: plain gradient descent on the mean cross-entropy of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TrainingFields", into = "TrainingFields")]
pub struct Training {
    learning_rate: f64,
    local_epochs: u32,
    batch: Batch,
}

/// How many examples a step of gradient descent sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batch {
    /// All examples of the client: one step an epoch, in the order of the data.
    Full,
    /// So many, at least 1: each epoch deals a new permutation, its last batch may be smaller. With
    /// no more examples than this, the same as [`Batch::Full`].
    Size(usize),
    /// So many, at least 1, always in the order of the data.
    InOrder(usize),
}

impl Batch {
    /// Examples in a batch of a client that has so many, at most all of them.
    pub fn of(self, examples: usize) -> usize {
        match self {
            Self::Full => examples,
            Self::Size(size) | Self::InOrder(size) => size.min(examples),
        }
    }
}

/// Why local training is impossible as described.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum TrainingError {
    /// Zero, negative, infinite or not a number.
    #[error("the learning rate must be a positive number, not {0}")]
    LearningRate(f64),
    /// No pass over the data.
    #[error("at least one local epoch is needed")]
    NoEpochs,
    /// A batch of no examples.
    #[error("a batch needs at least one example")]
    EmptyBatch,
}

impl Training {
    /// Training with step size `learning_rate` for `local_epochs` passes over the client's data.
    ///
    /// # Errors
    /// [`TrainingError`] if a number is out of range.
    pub fn new(learning_rate: f64, local_epochs: u32, batch: Batch) -> Result<Self, TrainingError> {
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            return Err(TrainingError::LearningRate(learning_rate));
        }
        if local_epochs == 0 {
            return Err(TrainingError::NoEpochs);
        }
        if matches!(batch, Batch::Size(0) | Batch::InOrder(0)) {
            return Err(TrainingError::EmptyBatch);
        }
        Ok(Self { learning_rate, local_epochs, batch })
    }

    /// Step size, positive and finite.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    /// Passes over the client's data, at least 1.
    pub fn local_epochs(&self) -> u32 {
        self.local_epochs
    }

    /// Examples a step.
    pub fn batch(&self) -> Batch {
        self.batch
    }
}

/// [`Training`] as it is written, before its numbers are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingFields {
    learning_rate: f64,
    local_epochs: u32,
    batch: Batch,
}

impl TryFrom<TrainingFields> for Training {
    type Error = TrainingError;

    fn try_from(fields: TrainingFields) -> Result<Self, TrainingError> {
        Self::new(fields.learning_rate, fields.local_epochs, fields.batch)
    }
}

impl From<Training> for TrainingFields {
    fn from(training: Training) -> Self {
        Self {
            learning_rate: training.learning_rate,
            local_epochs: training.local_epochs,
            batch: training.batch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_training_is_refused() {
        for rate in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert!(matches!(Training::new(rate, 1, Batch::Full), Err(TrainingError::LearningRate(_))));
        }
        let no_epochs = Training::new(1.0, 0, Batch::Full);
        assert_eq!(no_epochs, Err(TrainingError::NoEpochs));
        let no_examples = Training::new(1.0, 1, Batch::Size(0));
        assert_eq!(no_examples, Err(TrainingError::EmptyBatch));
    }

    #[test]
    fn training_is_checked_when_it_is_read() {
        let read = serde_json::from_str::<Training>;
        let text = r#"{"learning_rate":2.0,"local_epochs":5,"batch":{"size":8}}"#;
        let training = read(text).unwrap();
        assert_eq!(training, Training::new(2.0, 5, Batch::Size(8)).unwrap());
        assert_eq!(serde_json::to_string(&training).unwrap(), text);
        let error = read(r#"{"learning_rate":2.0,"local_epochs":0,"batch":"full"}"#).unwrap_err();
        assert!(error.to_string().contains("at least one local epoch"), "{error}");
    }
}
