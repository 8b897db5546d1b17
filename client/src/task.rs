//! The task of a federation in the words of `skep-learning`.

use skep_learning::{
    Activation, Architecture, ArchitectureError, Augmentation, Batch, Block, Layer, Learner, NormPlace,
    Optimizer, Shape, Subset, Training, TrainingError, own,
};
use skep_protocol::Round;
use skep_protocol::experiment::{self, Model, Task};
use thiserror::Error;

use crate::example_privacy::{ExamplePrivacyError, PrivateSteps};
use crate::weights::{self, WeightsError};

/// Why a task cannot be learned here.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TaskError {
    /// The model is impossible, or larger than this program handles.
    #[error("the federation's model cannot be trained: {0}")]
    Architecture(#[from] ArchitectureError),
    /// The model that this program brings along is another one than the task is about.
    #[error(
        "task.model.parameters is {stated}, but the model `{name}` that this program brings along has {found}"
    )]
    OtherModel {
        /// What it is called.
        name: String,
        /// Parameters by the task.
        stated: u64,
        /// Parameters that it has.
        found: usize,
    },
    /// The hyperparameters are out of range.
    #[error("the federation's training is impossible: {0}")]
    Training(#[from] TrainingError),
    /// The examples are not those that the task is about.
    #[error(
        "the federation learns from {expected} numbers an example, the data here have {found}; \
         use the data set of task \"{task}\""
    )]
    Inputs {
        /// The task's name.
        task: String,
        /// Numbers in an example of the task.
        expected: usize,
        /// Numbers in an example of the data.
        found: usize,
    },
    /// The labels are not those that the task is about.
    #[error(
        "the federation tells {expected} classes apart, the data here have {found}; \
         use the data set of task \"{task}\""
    )]
    Classes {
        /// The task's name.
        task: String,
        /// Classes of the task.
        expected: usize,
        /// Classes of the data.
        found: usize,
    },
    /// Examples are made in another way than everybody else makes them.
    #[error("{}", otherwise(*here))]
    Encoding {
        /// Whether the data here are encoded at all.
        here: bool,
    },
    /// The task hides single examples, and cannot hide those here.
    #[error("the privacy of examples cannot be kept: {0}")]
    Examples(#[from] ExamplePrivacyError),
    /// The task trains a part of the model, and what it starts from is not here.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A program trains, and knows the whole model only.
    #[error(
        "the federation trains a part of a model, and a training command trains whole ones: join without it"
    )]
    PartByCommand,
    /// There is nothing to learn from.
    #[error("the data hold no examples")]
    NoExamples,
}

/// The shape of the task's model.
pub fn architecture(task: &Task) -> Architecture {
    let (inputs, classes) = (task.inputs as usize, task.classes as usize);
    match &task.model {
        Model::Softmax => Architecture::Softmax { inputs, classes },
        Model::Mlp { hidden, activation } => Architecture::Mlp {
            inputs,
            hidden: hidden.iter().map(|&width| width as usize).collect(),
            classes,
            activation: match activation {
                experiment::Activation::Relu => Activation::Relu,
                experiment::Activation::Sigmoid => Activation::Sigmoid,
                experiment::Activation::Tanh => Activation::Tanh,
            },
        },
        Model::Layers { image, layers } => Architecture::Layers {
            input: match image.map(|image| image.map(|number| number as usize)) {
                Some([height, width, channels]) => Shape::Image { height, width, channels },
                None => Shape::Vector(inputs),
            },
            layers: layers.iter().copied().map(layer).collect(),
            classes,
        },
        // Where the program does not know it, there is nothing in it, and nothing can be done with it.
        Model::Own { name, .. } => Architecture::Own {
            name: name.clone(),
            inputs,
            classes,
            tensors: own::tensors(name, inputs, classes).unwrap_or_default(),
        },
    }
}

fn layer(layer: experiment::Layer) -> Layer {
    match layer {
        experiment::Layer::Dense { outputs } => Layer::Dense { outputs: outputs as usize },
        experiment::Layer::Conv2d { channels, kernel, stride, padding } => Layer::Conv2d {
            channels: channels as usize,
            kernel: kernel as usize,
            stride: stride as usize,
            padding: padding as usize,
        },
        experiment::Layer::AvgPool2d { size } => Layer::AvgPool2d { size: size as usize },
        experiment::Layer::GlobalAvgPool => Layer::GlobalAvgPool,
        experiment::Layer::GroupNorm { groups } => Layer::GroupNorm { groups: groups as usize },
        experiment::Layer::Residual { channels, stride, groups } => {
            Layer::Residual { channels: channels as usize, stride: stride as usize, groups: groups as usize }
        }
        // Refused when a task is checked; a model without channels is no model either.
        experiment::Layer::BatchNorm => Layer::GroupNorm { groups: 0 },
        experiment::Layer::MaxPool2d { size } => Layer::MaxPool2d { size: size as usize },
        experiment::Layer::Relu => Layer::Activation(Activation::Relu),
        experiment::Layer::Sigmoid => Layer::Activation(Activation::Sigmoid),
        experiment::Layer::Tanh => Layer::Activation(Activation::Tanh),
        experiment::Layer::Dropout { rate } => Layer::Dropout { rate: rate as f32 },
        experiment::Layer::Flatten => Layer::Flatten,
        experiment::Layer::EmbeddingBag { vocabulary, width } => {
            Layer::EmbeddingBag { vocabulary: vocabulary as usize, width: width as usize }
        }
        experiment::Layer::Embedding { vocabulary, width } => {
            Layer::Embedding { vocabulary: vocabulary as usize, width: width as usize }
        }
        experiment::Layer::Ngrams { shortest, longest, channels } => Layer::Ngrams {
            shortest: shortest as usize,
            longest: longest as usize,
            channels: channels as usize,
        },
        experiment::Layer::CausalConv1d { channels, kernel, dilation } => Layer::CausalConv1d {
            channels: channels as usize,
            kernel: kernel as usize,
            dilation: dilation as usize,
        },
        experiment::Layer::TemporalBlock { hidden, kernel, dilation, dropout } => Layer::TemporalBlock {
            hidden: hidden as usize,
            kernel: kernel as usize,
            dilation: dilation as usize,
            dropout: dropout as f32,
        },
        experiment::Layer::LayerNorm => Layer::LayerNorm,
        experiment::Layer::Positions => Layer::Positions,
        experiment::Layer::TransformerBlock(experiment::Block {
            heads,
            feed_forward,
            causal,
            norm,
            dropout,
        }) => Layer::TransformerBlock(Block {
            heads: heads as usize,
            feed_forward: feed_forward as usize,
            causal,
            norm: match norm {
                experiment::NormPlace::Before => NormPlace::Before,
                experiment::NormPlace::After => NormPlace::After,
            },
            dropout: dropout as f32,
        }),
        experiment::Layer::Mean => Layer::Mean,
        experiment::Layer::First => Layer::First,
        experiment::Layer::NextWord => Layer::NextWord,
    }
}

/// The task's local training in a round.
///
/// # Errors
/// [`TrainingError`] when a number is out of range.
pub fn training(task: &Task, round: Round) -> Result<Training, TrainingError> {
    let asked = &task.training;
    let batch = match asked.batch {
        experiment::Batch::Full => Batch::Full,
        experiment::Batch::Size(size) => Batch::Size(size as usize),
        experiment::Batch::InOrder(size) => Batch::InOrder(size as usize),
    };
    let training = Training::new(asked.learning_rate_in(round), asked.local_epochs, batch)?;
    let training = training.with_optimizer(optimizer(asked.optimizer))?.with_proximal(asked.proximal)?;
    let training = match asked.augment {
        Some(experiment::Augment { crop, flip }) => {
            training.with_augmentation(Augmentation { crop: crop as usize, flip })
        }
        None => training,
    };
    let training = match asked.micro_batch {
        None => training,
        Some(examples) => training.with_micro_batch(examples as usize)?,
    };
    asked.gradient_clip_norm.map_or(Ok(training), |norm| training.with_clip_norm(norm))
}

fn optimizer(optimizer: experiment::Optimizer) -> Optimizer {
    match optimizer {
        experiment::Optimizer::Sgd { momentum, nesterov, weight_decay } => {
            Optimizer::Sgd { momentum, nesterov, weight_decay }
        }
        experiment::Optimizer::Adam { beta1, beta2, epsilon, weight_decay } => {
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay }
        }
        experiment::Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay }
        }
    }
}

/// Whether the examples of a client that has so many are hidden within the task's limit, if the task hides them.
///
/// # Errors
/// [`TaskError::Examples`].
pub fn check_privacy(task: &Task, examples: usize) -> Result<(), TaskError> {
    match PrivateSteps::new(task, examples)? {
        Some(steps) => Ok(steps.check_budget()?),
        None => Ok(()),
    }
}

/// A learner for the task's model.
///
/// # Errors
/// [`TaskError::Architecture`], or [`TaskError::OtherModel`].
pub fn learner_for(task: &Task) -> Result<Box<dyn Learner>, TaskError> {
    check_own(task)?;
    if let Some(tuned) = weights::learner(task)? {
        return Ok(Box::new(tuned));
    }
    Ok(architecture(task).learner()?)
}

/// Whether a model that programs bring along is here, and as the task says.
///
/// # Errors
/// [`TaskError::Architecture`], or [`TaskError::OtherModel`].
pub fn check_own(task: &Task) -> Result<(), TaskError> {
    let Model::Own { name, parameters: stated } = &task.model else { return Ok(()) };
    let (inputs, classes) = (task.inputs as usize, task.classes as usize);
    own::tensors(name, inputs, classes).map_err(ArchitectureError::Own)?;
    let (name, stated, found) = (name.clone(), *stated, architecture(task).parameter_count());
    if stated == found as u64 { Ok(()) } else { Err(TaskError::OtherModel { name, stated, found }) }
}

fn otherwise(here: bool) -> &'static str {
    match here {
        false => {
            "the federation encodes its columns (categories, missing values, standardization, a target), and the data here are taken as they \
             stand: name its experiment file, which says how, with --experiment"
        }
        true => {
            "the data here are encoded otherwise than the federation does: everybody needs the same experiment file, and the same file of \
             statistics beside it"
        }
    }
}

/// Whether `data` can be learned from in this task.
///
/// # Errors
/// [`TaskError::Encoding`], [`TaskError::Inputs`], [`TaskError::Classes`] or [`TaskError::NoExamples`].
pub fn check_data(task: &Task, data: &Subset) -> Result<(), TaskError> {
    let here = data.dataset().encoding();
    if task.encoding.map(|encoding| encoding.0) != here {
        return Err(TaskError::Encoding { here: here.is_some() });
    }
    let (expected, found) = (task.inputs as usize, data.dataset().inputs());
    if expected != found {
        return Err(TaskError::Inputs { task: task.name.clone(), expected, found });
    }
    let (expected, found) = (task.classes as usize, data.dataset().classes());
    if expected != found {
        return Err(TaskError::Classes { task: task.name.clone(), expected, found });
    }
    if data.is_empty() { Err(TaskError::NoExamples) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use skep_learning::digits;
    use std::sync::Arc;

    use skep_protocol::Digest;
    use skep_protocol::experiment::Training as TrainingOfTask;

    use super::*;

    fn task(model: Model) -> Task {
        let training = TrainingOfTask::plain(0.5, 2, experiment::Batch::Size(8));
        Task {
            name: "digits".into(),
            seed: 1,
            inputs: 64,
            classes: 10,
            model,
            training,
            tuning: None,
            encoding: None,
            asked: None,
        }
    }

    #[test]
    fn both_sides_count_the_same_parameters() {
        let mlp = Model::Mlp { hidden: vec![32, 16], activation: experiment::Activation::Tanh };
        let layers = [
            experiment::Layer::Conv2d { channels: 5, kernel: 3, stride: 2, padding: 1 },
            experiment::Layer::Tanh,
            experiment::Layer::Residual { channels: 4, stride: 1, groups: 2 },
            experiment::Layer::GroupNorm { groups: 4 },
            experiment::Layer::MaxPool2d { size: 2 },
            experiment::Layer::Dropout { rate: 0.5 },
            experiment::Layer::Flatten,
            experiment::Layer::LayerNorm,
            experiment::Layer::Dense { outputs: 7 },
            experiment::Layer::Sigmoid,
        ];
        let layers = Model::Layers { image: Some([8, 8, 1]), layers: layers.to_vec() };
        let words = [experiment::Layer::EmbeddingBag { vocabulary: 9, width: 4 }, experiment::Layer::Relu];
        let words = Model::Layers { image: None, layers: words.to_vec() };
        let ngrams = [
            experiment::Layer::Embedding { vocabulary: 9, width: 4 },
            experiment::Layer::Ngrams { shortest: 2, longest: 4, channels: 6 },
        ];
        let ngrams = Model::Layers { image: None, layers: ngrams.to_vec() };
        let convolutions = [
            experiment::Layer::Embedding { vocabulary: 10, width: 4 },
            experiment::Layer::CausalConv1d { channels: 6, kernel: 3, dilation: 2 },
            experiment::Layer::TemporalBlock { hidden: 5, kernel: 2, dilation: 1, dropout: 0.1 },
            experiment::Layer::NextWord,
        ];
        let convolutions = Model::Layers { image: None, layers: convolutions.to_vec() };
        let transformer = experiment::Transformer {
            vocabulary: 10,
            layers: 2,
            heads: 3,
            width: 12,
            feed_forward: 20,
            dropout: 0.1,
            norm: experiment::NormPlace::After,
            summary: experiment::Summary::First,
        };
        let [encoder, decoder] =
            [false, true].map(|next| Model::Layers { image: None, layers: transformer.resolve(next) });
        for model in [Model::Softmax, mlp, layers, words, ngrams, convolutions, encoder, decoder] {
            let task = task(model);
            assert_eq!(task.check(), Ok(()));
            let count = learner_for(&task).unwrap().parameter_count();
            assert_eq!(Some(count as u64), task.parameter_count());
        }
    }

    #[test]
    fn the_training_is_the_tasks() {
        let mut task = task(Model::Softmax);
        let plain = training(&task, Round(3)).unwrap();
        assert_eq!(plain, Training::new(0.5, 2, Batch::Size(8)).unwrap());
        let (beta1, beta2, epsilon, weight_decay) = (0.8, 0.9, 1e-6, 0.1);
        task.training.optimizer = experiment::Optimizer::Adam { beta1, beta2, epsilon, weight_decay };
        task.training.proximal = 0.3;
        task.training.gradient_clip_norm = Some(2.0);
        task.training.schedule = experiment::Schedule::Step { every: 2, factor: 0.5 };
        let adam = Optimizer::Adam { beta1, beta2, epsilon, weight_decay };
        let expected = Training::new(0.25, 2, Batch::Size(8)).unwrap().with_optimizer(adam).unwrap();
        let expected = expected.with_proximal(0.3).unwrap().with_clip_norm(2.0).unwrap();
        assert_eq!(training(&task, Round(3)), Ok(expected));
    }

    #[test]
    fn data_of_another_task_are_named() {
        let data = digits::load().train;
        let good = task(Model::Softmax);
        assert_eq!(check_data(&good, &data), Ok(()));
        let wide = Task { inputs: 65, ..good.clone() };
        let error = check_data(&wide, &data).unwrap_err();
        assert_eq!(error, TaskError::Inputs { task: "digits".into(), expected: 65, found: 64 });
        let few = Task { classes: 9, ..good.clone() };
        assert!(matches!(check_data(&few, &data), Err(TaskError::Classes { expected: 9, found: 10, .. })));
        let encoded = Task { encoding: Some(Digest([7; 32])), ..good.clone() };
        assert_eq!(check_data(&encoded, &data), Err(TaskError::Encoding { here: false }));
        let as_said = (**data.dataset()).clone().encoded_as(Some([7; 32]));
        let as_said = Subset::all(Arc::new(as_said));
        assert_eq!(check_data(&encoded, &as_said), Ok(()));
        assert_eq!(check_data(&good, &as_said), Err(TaskError::Encoding { here: true }));
        let none = Subset::new(data.dataset().clone(), vec![]).unwrap();
        assert_eq!(check_data(&good, &none), Err(TaskError::NoExamples));
    }
}
