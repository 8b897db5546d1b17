//! What a client is asked to do, as it travels to the client.

use serde::{Deserialize, Serialize};

use super::layers::{self, Layer};
use super::{Asked, Training, Tuning};
use crate::canonical::Writer;
use crate::ids::Digest;

/// A model and how to train it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// The experiment's name.
    pub name: String,
    /// The experiment's public seed; batch order follows from it.
    pub seed: u64,
    /// Numbers in one example.
    pub inputs: u32,
    /// Classes to tell apart, at least 2; 1 where a number is predicted.
    pub classes: u32,
    /// The model.
    pub model: Model,
    /// The local training.
    pub training: Training,
    /// What of the model is trained, if not all.
    pub tuning: Option<Box<Tuning>>,
    /// The digest of how examples become numbers, where they are not taken as they stand in files: everybody must make them alike.
    pub encoding: Option<Digest>,
    /// What clients are asked of the model beside, if anything.
    pub asked: Option<Asked>,
}

/// The shape of a model between its inputs and classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Model {
    /// One linear layer: multinomial logistic regression.
    Softmax,
    /// A multilayer perceptron.
    Mlp {
        /// Widths of the hidden layers, each at least 1.
        hidden: Vec<u32>,
        /// The function after each hidden layer.
        activation: Activation,
    },
    /// Any layers; a last, dense one gives a number for each class.
    Layers {
        /// Height, width and channels of an example, if it is an image.
        image: Option<[u32; 3]>,
        /// The layers before the last.
        layers: Vec<Layer>,
    },
    /// What the programs of this federation bring along.
    Own {
        /// What they call it.
        name: String,
        /// How many parameters it has.
        parameters: u64,
    },
}

/// What follows a hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(0, x)
    Relu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
}

/// The most that a task may ask of a client's memory: inputs, classes and widths.
const MAX_WIDTH: u32 = 1 << 24;
const MAX_LAYERS: usize = 64;
const MAX_PARAMETERS: u64 = 1 << 31;

/// Whether something can be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Task {
    /// How many parameters an update is about: those of the model, or the coordinates of the part that is trained. `None` where
    /// they exceed what Skep handles (2^31).
    pub fn parameter_count(&self) -> Option<u64> {
        match &self.tuning {
            Some(tuning) => (tuning.parameters <= MAX_PARAMETERS).then_some(tuning.parameters),
            None => self.model_parameters(),
        }
    }

    /// How many parameters the whole model has; `None` as above.
    pub fn model_parameters(&self) -> Option<u64> {
        if let Model::Layers { image, layers } = &self.model {
            let count = layers::count_parameters(self.inputs, *image, layers, self.classes).ok()?;
            return (count <= MAX_PARAMETERS).then_some(count);
        }
        if let Model::Own { parameters, .. } = self.model {
            return (parameters <= MAX_PARAMETERS).then_some(parameters);
        }
        let widths = self.widths();
        let count = widths.windows(2).try_fold(0u64, |sum, pair| {
            sum.checked_add((u64::from(pair[0]) + 1).checked_mul(u64::from(pair[1]))?)
        })?;
        (count <= MAX_PARAMETERS).then_some(count)
    }

    /// Input width, hidden widths, classes.
    fn widths(&self) -> Vec<u32> {
        let hidden: &[u32] = match &self.model {
            Model::Softmax | Model::Layers { .. } | Model::Own { .. } => &[],
            Model::Mlp { hidden, .. } => hidden,
        };
        [&[self.inputs], hidden, &[self.classes]].concat()
    }

    /// The key and the reason of the first value that makes no sense, for tasks that came from elsewhere.
    ///
    /// # Errors
    /// The key inside the experiment file, and what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        // A number to predict is scaled, and so a part of the encoding.
        if self.classes == 0 || (self.classes == 1 && self.encoding.is_none()) {
            return Err(("task.data", "has fewer than two classes".into()));
        }
        if let Model::Mlp { hidden, .. } = &self.model {
            if hidden.is_empty() || hidden.len() > MAX_LAYERS {
                return Err(("task.model.hidden", format!("must list 1 to {MAX_LAYERS} widths")));
            }
            if hidden.iter().any(|&width| width == 0 || width > MAX_WIDTH) {
                return Err(("task.model.hidden", format!("has a width outside 1 to {MAX_WIDTH}")));
            }
        }
        if self.inputs == 0 || self.inputs > MAX_WIDTH || self.classes > MAX_WIDTH {
            return Err(("task.data", format!("must have 1 to {MAX_WIDTH} inputs and classes")));
        }
        if let Model::Layers { image, layers } = &self.model {
            layers::count_parameters(self.inputs, *image, layers, self.classes)
                .map_err(|problem| ("task.model.layers", problem))?;
        }
        if let Model::Own { name, parameters } = &self.model {
            if !is_name(name) {
                return Err(("task.model.name", "must be 1 to 64 bytes of printable text".into()));
            }
            if *parameters == 0 {
                return Err(("task.model.parameters", "must be at least 1".into()));
            }
        }
        if self.parameter_count().is_none() {
            return Err(("task.model", format!("has more than {MAX_PARAMETERS} parameters")));
        }
        let image = if let Model::Layers { image, .. } = &self.model { *image } else { None };
        match (self.training.augment, image) {
            (Some(_), None) => {
                return Err((
                    "task.training.augment",
                    "moves and mirrors images, but the model takes none: say task.model.image".into(),
                ));
            }
            (Some(_), Some(_)) if self.tuning.is_some() => {
                return Err((
                    "task.training.augment",
                    "does not go with task.tuning: remove one of them".into(),
                ));
            }
            (Some(augment), Some([height, width, _])) if augment.crop >= height.min(width) => {
                return Err((
                    "task.training.augment",
                    "has a crop as wide as the image, of which nothing would be left".into(),
                ));
            }
            _ => {}
        }
        if self.tuning.as_ref().is_some_and(|tuning| tuning.parameters == 0) {
            return Err(("task.tuning", "leaves nothing to train".into()));
        }
        if self.model_parameters().is_none() {
            return Err(("task.model", format!("has more than {MAX_PARAMETERS} parameters")));
        }
        if let Some(asked) = &self.asked {
            asked.check()?;
        }
        self.training.check()
    }

    /// The digest that a plan names the task by.
    pub fn digest(&self) -> Digest {
        let mut writer = Writer::new("skep task v1");
        writer.text(&self.name).u64(self.seed).u32(self.inputs).u32(self.classes);
        match &self.model {
            Model::Softmax => {
                writer.u8(0);
            }
            Model::Layers { image, layers } => {
                writer.u8(2);
                layers::write(&mut writer, *image, layers);
            }
            Model::Own { name, parameters } => {
                writer.u8(3).text(name).u64(*parameters);
            }
            Model::Mlp { hidden, activation } => {
                writer.u8(1).length(hidden.len());
                for &width in hidden {
                    writer.u32(width);
                }
                writer.u8(match activation {
                    Activation::Relu => 0,
                    Activation::Sigmoid => 1,
                    Activation::Tanh => 2,
                });
            }
        }
        self.training.write(&mut writer);
        self.tuning.iter().for_each(|tuning| tuning.write(&mut writer));
        if let Some(encoding) = &self.encoding {
            writer.u8(11).text(&encoding.to_string());
        }
        self.asked.iter().for_each(|asked| asked.write(&mut writer));
        Digest::of(&writer.finish())
    }
}
