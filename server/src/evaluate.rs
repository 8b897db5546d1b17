//! How good a model is: the server knows flat parameters only, so somebody else must tell it.

use std::error::Error;

/// Evaluates models on data that the server holds.
pub trait Evaluator: Send {
    /// Measures a model, given as its flat parameters.
    ///
    /// # Errors
    /// Whatever keeps the model from being measured. The round keeps its outcome; its record has no measurement.
    fn evaluate(&mut self, model: &[f32]) -> Result<Evaluation, Box<dyn Error + Send + Sync>>;
}

/// What an [`Evaluator`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// On which examples.
    pub on: Examples,
    /// How good the answers are.
    pub scores: Scores,
    /// Mean loss of an example.
    pub loss: f64,
    /// How many examples there were.
    pub examples: u64,
}

/// Examples that nobody trains on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examples {
    /// Those by which choices are made: when to stop, and which run of many is best.
    Validation,
    /// Those that say how good a model is.
    Test,
}

/// How good answers are, by what a model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// Classes.
    Classes {
        /// Part of the examples whose class was found, 0 to 1.
        accuracy: f64,
    },
    /// Numbers, in their own unit.
    Numbers {
        /// The mean distance from the number.
        mean_absolute_error: f64,
        /// The root of the mean squared distance.
        root_mean_squared_error: f64,
        /// 1 less the squared errors over those of predicting the mean; none where all numbers are the same.
        r_squared: Option<f64>,
    },
}
