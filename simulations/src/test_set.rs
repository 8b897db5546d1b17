//! The held-out examples as the server's evaluator.

use std::error::Error;

use skep_client::task::{TaskError, check_data, learner_for};
use skep_learning::{LearnError, Learner, Scored, Split, Subset};
use skep_protocol::experiment::Task;
use skep_server::evaluate::{Evaluation, Evaluator, Examples, Scores};

/// Measures models on examples that nobody trains on.
pub struct TestSet {
    learner: Box<dyn Learner>,
    examples: Subset,
    are: Examples,
}

impl TestSet {
    /// The evaluator of `task` on `examples`.
    ///
    /// # Errors
    /// [`TaskError`] when the examples are not those of the task.
    pub fn new(task: &Task, examples: Subset) -> Result<Self, TaskError> {
        check_data(task, &examples)?;
        Ok(TestSet { learner: learner_for(task)?, examples, are: Examples::Test })
    }

    /// The evaluator of `task` on what choices are made by: the validation examples, if there are some, else the test examples.
    ///
    /// # Errors
    /// [`TaskError`] when the examples are not those of the task.
    pub fn deciding(task: &Task, data: &Split) -> Result<Self, TaskError> {
        match &data.validation {
            None => TestSet::new(task, data.test.clone()),
            Some(examples) => {
                Ok(TestSet { are: Examples::Validation, ..TestSet::new(task, examples.clone())? })
            }
        }
    }

    /// Measures a model, class by class.
    ///
    /// # Errors
    /// [`LearnError`] when the model is not that of the task.
    pub fn measure(&mut self, model: &[f32]) -> Result<skep_learning::Evaluation, LearnError> {
        self.learner.evaluate(model, &self.examples)
    }
}

impl Evaluator for TestSet {
    fn evaluate(&mut self, model: &[f32]) -> Result<Evaluation, Box<dyn Error + Send + Sync>> {
        let measured = self.measure(model)?;
        Ok(Evaluation {
            on: self.are,
            scores: match &measured.scored {
                Scored::Classes(classes) => Scores::Classes { accuracy: classes.accuracy },
                Scored::Numbers(errors) => Scores::Numbers {
                    mean_absolute_error: errors.mean_absolute,
                    root_mean_squared_error: errors.root_mean_squared(),
                    r_squared: errors.r_squared,
                },
            },
            loss: measured.loss,
            examples: measured.examples as u64,
        })
    }
}
