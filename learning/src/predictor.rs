//! A trained model in use: examples in, classes and their probabilities, or numbers, out.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::metrics::{predicted_class, probabilities};
use crate::{Architecture, Interface, LearnError, Learner, ModelFile};

/// A model that answers. What it says of an example does not depend on the examples beside it, bit for bit.
pub struct Predictor {
    architecture: Architecture,
    learner: Box<dyn Learner>,
    parameters: Arc<[f32]>,
    interface: Interface,
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predictor").field("architecture", &self.architecture).finish_non_exhaustive()
    }
}

/// What a model says of an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// Which class it is of.
    Class {
        /// The class with the largest probability, the first of several.
        class: usize,
        /// The probability of each class.
        probabilities: Vec<f32>,
    },
    /// Which number belongs to it, in the number's own unit.
    Number(f32),
}

impl Prediction {
    /// The class, if it is one.
    pub fn class(&self) -> Option<usize> {
        match self {
            Prediction::Class { class, .. } => Some(*class),
            Prediction::Number(_) => None,
        }
    }
}

/// Why there is no prediction. Rows count from 0 within what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PredictError {
    /// The numbers do not divide into rows.
    #[error("{numbers} numbers are no rows of {inputs}")]
    Ragged {
        /// Numbers given.
        numbers: usize,
        /// Numbers in a row.
        inputs: usize,
    },
    /// The model does not take the numbers.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The model overflows.
    #[error("the model's answer to row {row} is not finite: its parameters or these numbers are too large")]
    NotFinite {
        /// The row.
        row: usize,
    },
}

impl Predictor {
    /// Takes a model into use.
    ///
    /// # Errors
    /// [`LearnError::Architecture`] if it is impossible, or not computed by this program.
    pub fn new(model: ModelFile) -> Result<Self, LearnError> {
        let (architecture, interface) = (model.architecture().clone(), model.interface());
        let learner = architecture.learner()?;
        Ok(Self { architecture, learner, interface, parameters: model.into_parameters().into() })
    }

    /// Another one of the same model, which shares its parameters, for another thread.
    ///
    /// # Errors
    /// [`LearnError::Architecture`], never after this one was made.
    pub fn share(&self) -> Result<Self, LearnError> {
        let (architecture, interface) = (self.architecture.clone(), self.interface.clone());
        let learner = architecture.learner()?;
        Ok(Self { architecture, learner, parameters: self.parameters.clone(), interface })
    }

    /// How examples become numbers, and what the classes are called.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Numbers in an example.
    pub fn inputs(&self) -> usize {
        self.architecture.inputs()
    }

    /// What the model says of each row of `numbers`, which are as they stand in files and requests.
    ///
    /// # Errors
    /// [`PredictError`].
    pub fn predict(&mut self, mut numbers: Vec<f32>) -> Result<Vec<Prediction>, PredictError> {
        let inputs = self.inputs();
        if !numbers.len().is_multiple_of(inputs) {
            return Err(PredictError::Ragged { numbers: numbers.len(), inputs });
        }
        self.interface.prepare(&mut numbers);
        let logits = self.learner.logits(&self.parameters, &numbers)?;
        let rows = logits.chunks_exact(self.architecture.classes()).enumerate();
        rows.map(|(row, logits)| {
            let answer = match &self.interface.target {
                Some(target) => Prediction::Number(target.unscaled(logits[0])),
                None => {
                    Prediction::Class { class: predicted_class(logits), probabilities: probabilities(logits) }
                }
            };
            let is_finite = logits.iter().all(|logit| logit.is_finite())
                && !matches!(answer, Prediction::Number(number) if !number.is_finite());
            if is_finite { Ok(answer) } else { Err(PredictError::NotFinite { row }) }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Activation, Architecture, Layer, Shape};

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7919 + salt * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    fn predictor(architecture: Architecture) -> Predictor {
        let parameters = numbers(architecture.parameter_count(), 1);
        Predictor::new(ModelFile::new(architecture, parameters, BTreeMap::new()).unwrap()).unwrap()
    }

    #[test]
    fn an_answer_does_not_depend_on_the_examples_beside_it() {
        let mlp = |inputs, width, classes| Architecture::Mlp {
            inputs,
            hidden: vec![width, 33],
            classes,
            activation: Activation::Relu,
        };
        let cnn = Architecture::Layers {
            input: Shape::Image { height: 9, width: 7, channels: 3 },
            layers: vec![
                Layer::Conv2d { channels: 5, kernel: 3, stride: 1, padding: 0 },
                Layer::Activation(Activation::Tanh),
                Layer::MaxPool2d { size: 2 },
                Layer::Flatten,
                Layer::LayerNorm,
            ],
            classes: 4,
        };
        for architecture in
            [Architecture::Softmax { inputs: 300, classes: 5 }, mlp(64, 128, 10), mlp(13, 7, 3), cnn]
        {
            let mut predictor = predictor(architecture);
            let inputs = predictor.inputs();
            let rows = numbers(inputs * 150, 2);
            let alone: Vec<_> =
                rows.chunks(inputs).flat_map(|row| predictor.predict(row.to_vec()).unwrap()).collect();
            for size in (1..=40).chain([63, 64, 65, 100, 150]) {
                let together: Vec<_> = rows
                    .chunks(inputs * size)
                    .flat_map(|rows| predictor.predict(rows.to_vec()).unwrap())
                    .collect();
                assert!(alone == together, "in batches of {size}");
            }
        }
    }

    #[test]
    fn probabilities_add_up_and_the_class_is_the_most_probable() {
        let mut predictor = predictor(Architecture::Softmax { inputs: 4, classes: 3 });
        for prediction in predictor.predict(numbers(40, 3)).unwrap() {
            let Prediction::Class { class, probabilities } = prediction else { panic!("{prediction:?}") };
            let sum: f32 = probabilities.iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
            let most = probabilities.iter().copied().fold(0.0, f32::max);
            assert_eq!(probabilities[class], most);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_an_error() {
        let mut softmax = predictor(Architecture::Softmax { inputs: 4, classes: 3 });
        assert_eq!(softmax.predict(vec![0.0; 7]), Err(PredictError::Ragged { numbers: 7, inputs: 4 }));
        assert_eq!(softmax.predict([[0.0; 4], [3e38; 4]].concat()), Err(PredictError::NotFinite { row: 1 }));
        let bag = Architecture::Layers {
            input: Shape::Vector(3),
            layers: vec![Layer::EmbeddingBag { vocabulary: 10, width: 2 }],
            classes: 2,
        };
        let error = predictor(bag).predict(vec![1.0, 2.0, -1.0, 9.0, 10.0, 0.0]).unwrap_err();
        assert!(error.to_string().starts_with("row 1 has 10 where the number of a word"), "{error}");
    }
}
