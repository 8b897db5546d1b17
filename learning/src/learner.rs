//! Local training and evaluation: flat parameters in, update or score out.

use thiserror::Error;

use crate::kernel::are_finite;
use crate::{ArchitectureError, Evaluation, Subset, Training};

/// Trains and evaluates one model on flat parameters. Cheap to keep, one per worker thread.
///
/// The same arguments give the same bits whichever thread calls and however many others train.
pub trait Learner: Send {
    /// Length of the flat parameters.
    fn parameter_count(&self) -> usize;

    /// Trains from `global` on `data` and returns what changed. An update that is not finite is returned as it is.
    ///
    /// # Errors
    /// [`LearnError`] if the parameters, the data or the correction do not fit the model.
    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError>;

    /// The same with steps that `privacy` draws and hides: gradients of single examples are clipped and summed up here, and
    /// the optimizer sees only what is released of the sum. The number of epochs and the batch are not looked at. The
    /// loss is the mean over all examples that were drawn, 0 if none was; like the number of examples it is no release.
    ///
    /// # Errors
    /// As [`Learner::train`]; [`LearnError::NotPerExample`] from a learner that knows no gradients of single examples.
    fn train_privately(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
        privacy: &mut dyn ExamplePrivacy,
    ) -> Result<TrainReport, LearnError> {
        let _ = (global, data, training, turn, privacy);
        Err(LearnError::NotPerExample)
    }

    /// Takes back an update that nobody needs any more, for its memory to be used again.
    fn recycle(&mut self, update: Vec<f32>) {
        drop(update);
    }

    /// Scores `parameters` on `data`.
    ///
    /// # Errors
    /// [`LearnError`] if the parameters or the data do not fit the model.
    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError>;

    /// The logits of examples, one row of numbers after the other: so many rows of a number for each class; of a model that predicts
    /// numbers the scaled number.
    ///
    /// # Errors
    /// [`LearnError`] if the parameters or the numbers do not fit the model; [`LearnError::NoAnswers`] from a learner that only
    /// trains and evaluates.
    fn logits(&mut self, parameters: &[f32], numbers: &[f32]) -> Result<Vec<f32>, LearnError> {
        let _ = (parameters, numbers);
        Err(LearnError::NoAnswers)
    }
}

/// What one call of [`Learner::train`] has of its own, beside the hyperparameters that all share.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The order of the batches and what dropout drops are functions of this key alone.
    pub order_key: [u8; 32],
    /// Added to the gradient of every step, in the layout of the parameters: c − cᵢ of SCAFFOLD (Karimireddy et al.,
    /// 1910.06378, algorithm 1).
    pub correction: Option<&'a [f32]>,
}

impl Turn<'_> {
    /// A turn without a correction.
    pub fn new(order_key: [u8; 32]) -> Self {
        Turn { order_key, correction: None }
    }
}

/// What makes training private for each example: DP-SGD (Abadi et al., 1607.00133, algorithm 1). A learner computes and clips
/// gradients; which examples are drawn and what is added to their sum is decided here.
pub trait ExamplePrivacy {
    /// The L2 norm that the gradient of an example is scaled down to, above 0.
    fn clip_norm(&self) -> f64;

    /// Steps of the turn.
    fn steps(&self) -> u64;

    /// Fills `positions`, which is empty, with those of the next step, each below `examples`, without repetition.
    fn draw(&mut self, examples: usize, positions: &mut Vec<usize>);

    /// Makes of the sum of clipped gradients what a step is taken along: noised, and divided by the expected number of examples.
    fn release(&mut self, sum: &mut [f32]);
}

/// Whether parameters of length `actual` and the data fit a model.
pub(crate) fn check_fit(
    expected: usize,
    actual: usize,
    (inputs, classes): (usize, usize),
    data: &Subset,
) -> Result<(), LearnError> {
    if expected != actual {
        return Err(LearnError::ParameterCount { expected, actual });
    }
    let (expected, actual) = (inputs, data.dataset().inputs());
    if expected != actual {
        return Err(LearnError::Inputs { expected, actual });
    }
    let (expected, actual) = (classes, data.dataset().classes());
    if expected != actual {
        return Err(LearnError::Classes { expected, actual });
    }
    if classes == 1 && data.dataset().target().is_none() {
        return Err(LearnError::NoTarget);
    }
    if data.is_empty() { Err(LearnError::NoExamples) } else { Ok(()) }
}

/// Whether the correction of a turn, if there is one, fits a model of so many parameters.
pub(crate) fn check_correction(expected: usize, turn: &Turn<'_>) -> Result<(), LearnError> {
    match turn.correction.map(<[f32]>::len) {
        Some(actual) if actual != expected => Err(LearnError::Correction { expected, actual }),
        _ => Ok(()),
    }
}

/// What local training gave.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// Trained minus global parameters, in the same layout.
    pub update: Vec<f32>,
    /// Examples trained on.
    pub examples: usize,
    /// Steps of gradient descent taken.
    pub steps: u64,
    /// Mean loss over the last epoch, of classes the cross-entropy in nats, each example measured before the step that
    /// uses it; not finite if an answer is not.
    pub loss: f64,
}

impl TrainReport {
    /// Whether every value of the update is a finite number.
    pub fn is_finite(&self) -> bool {
        are_finite(&self.update)
    }
}

/// Why there is no update or score.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LearnError {
    /// The model itself is impossible.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// The flat parameters are not those of this model.
    #[error("the model has {expected} parameters, got {actual}")]
    ParameterCount {
        /// Length the model needs.
        expected: usize,
        /// Length given.
        actual: usize,
    },
    /// The correction is not one of this model's gradients.
    #[error("the model has {expected} parameters, the correction of its gradient has {actual}")]
    Correction {
        /// Length the model needs.
        expected: usize,
        /// Length given.
        actual: usize,
    },
    /// The data has another number of features than the model.
    #[error("the model takes {expected} features, the data has {actual}")]
    Inputs {
        /// Features the model takes.
        expected: usize,
        /// Features of the data.
        actual: usize,
    },
    /// The data has another number of classes than the model.
    #[error("the model tells {expected} classes apart, the data has {actual}")]
    Classes {
        /// Classes of the model.
        expected: usize,
        /// Classes of the data.
        actual: usize,
    },
    /// The model predicts a number, and the data say of none what it is.
    #[error("the model predicts a number, the data have none to predict")]
    NoTarget,
    /// A feature is neither the number of a word nor negative.
    #[error(
        "row {row} has {word} where the number of a word should be, which is whole and below {vocabulary}"
    )]
    Word {
        /// Row in the data set, from 0.
        row: usize,
        /// The feature, as text.
        word: String,
        /// Words of the model.
        vocabulary: usize,
    },
    /// Images are to be changed at random, and the model takes none.
    #[error("only images can be moved and mirrored, and this model's learner knows of none")]
    NoImages,
    /// Privacy of examples is asked of a learner that knows no gradients of single ones.
    #[error("this model's learner cannot clip the gradients of single examples")]
    NotPerExample,
    /// A learner is asked for predictions, and makes none.
    #[error("this model's learner trains and evaluates, but does not answer")]
    NoAnswers,
    /// A program that trains in place of a learner gave no model.
    #[error("the training command failed: {0}")]
    Command(String),
    /// Nothing to learn from or to score.
    #[error("there are no examples")]
    NoExamples,
}
