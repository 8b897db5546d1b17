//! How good a model is: the server knows flat parameters only, so somebody else must tell it.

use std::error::Error;

/// Evaluates models on data that the server holds.
pub trait Evaluator: Send {
    /// Measures a model, given as its flat parameters.
    ///
    /// # Errors
    /// Whatever keeps the model from being measured. The round keeps its outcome; its record has no accuracy.
    fn evaluate(&mut self, model: &[f32]) -> Result<Evaluation, Box<dyn Error + Send + Sync>>;
}

/// What an [`Evaluator`] measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Part of the examples whose class was found, 0 to 1.
    pub accuracy: f64,
    /// Mean loss of an example.
    pub loss: f64,
    /// How many examples there were.
    pub examples: u64,
}
