//! The hyperparameters of local training.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Augmentation, Optimizer, OptimizerError};

/// How a client trains: descent on the mean cross-entropy of each batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TrainingFields", into = "TrainingFields")]
pub struct Training {
    learning_rate: f64,
    local_epochs: u32,
    batch: Batch,
    optimizer: Optimizer,
    proximal: f64,
    clip_norm: Option<f64>,
    micro_batch: Option<usize>,
    augmentation: Option<Augmentation>,
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
    /// Negative, infinite or not a number.
    #[error("the weight of the proximal term must be a finite number of at least 0, not {0}")]
    Proximal(f64),
    /// Zero, negative, infinite or not a number.
    #[error("the norm that gradients are clipped to must be a positive number, not {0}")]
    ClipNorm(f64),
    /// An impossible optimizer.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
}

impl Training {
    /// Plain gradient descent with step size `learning_rate` for `local_epochs` passes over the client's data.
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
        let (optimizer, proximal, clip_norm, micro_batch) = (Optimizer::PLAIN, 0.0, None, None);
        let augmentation = None;
        Ok(Self {
            learning_rate,
            local_epochs,
            batch,
            optimizer,
            proximal,
            clip_norm,
            micro_batch,
            augmentation,
        })
    }

    /// The same by another optimizer.
    ///
    /// # Errors
    /// [`TrainingError::Optimizer`] if one of its numbers is out of range.
    pub fn with_optimizer(self, optimizer: Optimizer) -> Result<Self, TrainingError> {
        optimizer.check()?;
        Ok(Self { optimizer, ..self })
    }

    /// The same on the loss plus μ/2 · ‖w − w₀‖², where w₀ are the weights that training starts from (FedProx: Li et al.,
    /// 1812.06127, equation 2).
    ///
    /// # Errors
    /// [`TrainingError::Proximal`] if μ is negative or not finite.
    pub fn with_proximal(self, proximal: f64) -> Result<Self, TrainingError> {
        match proximal.is_finite() && proximal >= 0.0 {
            true => Ok(Self { proximal, ..self }),
            false => Err(TrainingError::Proximal(proximal)),
        }
    }

    /// The same with the gradient of each batch, its proximal term included, scaled down to this L2 norm if it is longer.
    ///
    /// # Errors
    /// [`TrainingError::ClipNorm`] if it is not positive and finite.
    pub fn with_clip_norm(self, clip_norm: f64) -> Result<Self, TrainingError> {
        match clip_norm.is_finite() && clip_norm > 0.0 {
            true => Ok(Self { clip_norm: Some(clip_norm), ..self }),
            false => Err(TrainingError::ClipNorm(clip_norm)),
        }
    }

    /// The same on images that are changed at random.
    pub fn with_augmentation(self, augmentation: Augmentation) -> Self {
        Self { augmentation: Some(augmentation), ..self }
    }

    /// How images are changed at random, if they are.
    pub fn augmentation(&self) -> Option<Augmentation> {
        self.augmentation
    }

    /// The same with the gradient of each batch added up from those of so many examples at a time, which bounds the memory of a step.
    ///
    /// # Errors
    /// [`TrainingError::EmptyBatch`] if it is 0.
    pub fn with_micro_batch(self, examples: usize) -> Result<Self, TrainingError> {
        match examples {
            0 => Err(TrainingError::EmptyBatch),
            _ => Ok(Self { micro_batch: Some(examples), ..self }),
        }
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

    /// What makes steps of gradients.
    pub fn optimizer(&self) -> Optimizer {
        self.optimizer
    }

    /// μ of the proximal term, at least 0 and finite.
    pub fn proximal(&self) -> f64 {
        self.proximal
    }

    /// Examples whose gradients are computed at once, at least 1; a batch, if not given.
    pub fn micro_batch(&self) -> Option<usize> {
        self.micro_batch
    }

    /// The longest gradient of a batch, if there is one; positive and finite.
    pub fn clip_norm(&self) -> Option<f64> {
        self.clip_norm
    }
}

/// [`Training`] as it is written, before its numbers are checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingFields {
    learning_rate: f64,
    local_epochs: u32,
    batch: Batch,
    #[serde(default, skip_serializing_if = "Optimizer::is_plain")]
    optimizer: Optimizer,
    #[serde(default, skip_serializing_if = "is_zero")]
    proximal: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip_norm: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    micro_batch: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    augmentation: Option<Augmentation>,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl TryFrom<TrainingFields> for Training {
    type Error = TrainingError;

    fn try_from(fields: TrainingFields) -> Result<Self, TrainingError> {
        let training = Self::new(fields.learning_rate, fields.local_epochs, fields.batch)?;
        let training = training.with_optimizer(fields.optimizer)?.with_proximal(fields.proximal)?;
        let training =
            fields.micro_batch.map_or(Ok(training), |examples| training.with_micro_batch(examples))?;
        let training = fields.augmentation.map_or(training, |how| training.with_augmentation(how));
        fields.clip_norm.map_or(Ok(training), |norm| training.with_clip_norm(norm))
    }
}

impl From<Training> for TrainingFields {
    fn from(training: Training) -> Self {
        Self {
            learning_rate: training.learning_rate,
            local_epochs: training.local_epochs,
            batch: training.batch,
            optimizer: training.optimizer,
            proximal: training.proximal,
            clip_norm: training.clip_norm,
            micro_batch: training.micro_batch,
            augmentation: training.augmentation,
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
