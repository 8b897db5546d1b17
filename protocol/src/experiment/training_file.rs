//! `[task.training]` as it is typed.

use serde::{Deserialize, Serialize};

use super::{Augment, Batch, Optimizer, Schedule, Training};

/// `[task.training]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingFile {
    /// Step size of local training, in the first round.
    pub learning_rate: f64,
    /// Passes over a client's examples in one round.
    pub local_epochs: u32,
    /// Examples in one step, or `"full"`.
    pub batch_size: BatchFile,
    /// Examples whose gradients are computed at once, to bound the memory of a step; a batch, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<u32>,
    /// `"f32"`, what everything is computed in.
    #[serde(default, skip_serializing)]
    pub precision: Precision,
    /// What makes steps of gradients; plain descent, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerFile>,
    /// Weight of the proximal term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proximal: Option<f64>,
    /// The longest gradient of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_clip_norm: Option<f64>,
    /// How the step size changes from round to round; not at all, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleFile>,
    /// How images are changed at random; not at all, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
}

/// `task.training.precision`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// IEEE 754 numbers of 32 bits.
    #[default]
    F32,
    /// Of 16 bits with the range of `F32`.
    Bf16,
    /// Of 16 bits.
    F16,
}

/// `task.training.batch_size`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of examples, { in_order = NUMBER } or \"full\"")]
pub enum BatchFile {
    /// A number of examples.
    Size(u32),
    /// A word.
    Word(BatchWord),
    /// A number of examples, in the order of the data.
    InOrder(InOrderFile),
}

/// `{ in_order = NUMBER }`: the same batches in every epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InOrderFile {
    /// Examples in one step.
    pub in_order: u32,
}

/// The words that `batch_size` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchWord {
    /// All of the client's examples.
    Full,
}

/// `task.training.optimizer`; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerFile {
    /// `kind = "sgd"`
    Sgd {
        /// Share of the last step that is taken again.
        #[serde(default)]
        momentum: f64,
        /// Whether the momentum looks ahead.
        #[serde(default)]
        nesterov: bool,
        /// Pull of the weights to zero.
        #[serde(default)]
        weight_decay: f64,
    },
    /// `kind = "adam"`
    Adam {
        /// Of the mean of gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Keeps steps finite.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Pull of the weights to zero, in the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// `kind = "adamw"`
    AdamW {
        /// Of the mean of gradients.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Of the mean of their squares.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Keeps steps finite.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Pull of the weights to zero, beside the gradient.
        #[serde(default = "decay")]
        weight_decay: f64,
    },
}

/// `task.training.schedule`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ScheduleFile {
    /// `kind = "step"`
    Step {
        /// Rounds between two changes.
        every: u64,
        /// What the step size is multiplied by.
        factor: f64,
    },
    /// `kind = "cosine"`
    Cosine {
        /// Rounds until the floor.
        rounds: u64,
        /// Share of the first step size that is left.
        #[serde(default = "decay")]
        floor: f64,
    },
}

impl TrainingFile {
    /// Plain gradient descent.
    pub fn plain(learning_rate: f64, local_epochs: u32, batch_size: BatchFile) -> Self {
        TrainingFile {
            learning_rate,
            local_epochs,
            batch_size,
            micro_batch_size: None,
            precision: Precision::F32,
            optimizer: None,
            proximal: None,
            gradient_clip_norm: None,
            schedule: None,
            augment: None,
        }
    }
}

impl From<&TrainingFile> for Training {
    fn from(file: &TrainingFile) -> Self {
        Training {
            learning_rate: file.learning_rate,
            local_epochs: file.local_epochs,
            batch: match file.batch_size {
                BatchFile::Word(BatchWord::Full) => Batch::Full,
                BatchFile::Size(size) => Batch::Size(size),
                BatchFile::InOrder(InOrderFile { in_order }) => Batch::InOrder(in_order),
            },
            micro_batch: file.micro_batch_size,
            optimizer: match file.optimizer {
                None => Optimizer::PLAIN,
                Some(OptimizerFile::Sgd { momentum, nesterov, weight_decay }) => {
                    Optimizer::Sgd { momentum, nesterov, weight_decay }
                }
                Some(OptimizerFile::Adam { beta1, beta2, epsilon, weight_decay }) => {
                    Optimizer::Adam { beta1, beta2, epsilon, weight_decay }
                }
                Some(OptimizerFile::AdamW { beta1, beta2, epsilon, weight_decay }) => {
                    Optimizer::AdamW { beta1, beta2, epsilon, weight_decay }
                }
            },
            proximal: file.proximal.unwrap_or(0.0),
            gradient_clip_norm: file.gradient_clip_norm,
            // What is promised stands in [privacy].
            example_privacy: None,
            augment: file.augment,
            schedule: match file.schedule {
                None => Schedule::Constant,
                Some(ScheduleFile::Step { every, factor }) => Schedule::Step { every, factor },
                Some(ScheduleFile::Cosine { rounds, floor }) => Schedule::Cosine { rounds, floor },
            },
        }
    }
}

impl From<&Training> for TrainingFile {
    fn from(training: &Training) -> Self {
        TrainingFile {
            learning_rate: training.learning_rate,
            local_epochs: training.local_epochs,
            batch_size: match training.batch {
                Batch::Full => BatchFile::Word(BatchWord::Full),
                Batch::Size(size) => BatchFile::Size(size),
                Batch::InOrder(in_order) => BatchFile::InOrder(InOrderFile { in_order }),
            },
            micro_batch_size: training.micro_batch,
            precision: Precision::F32,
            optimizer: match training.optimizer {
                Optimizer::PLAIN => None,
                Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                    Some(OptimizerFile::Sgd { momentum, nesterov, weight_decay })
                }
                Optimizer::Adam { beta1, beta2, epsilon, weight_decay } => {
                    Some(OptimizerFile::Adam { beta1, beta2, epsilon, weight_decay })
                }
                Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                    Some(OptimizerFile::AdamW { beta1, beta2, epsilon, weight_decay })
                }
            },
            proximal: Some(training.proximal).filter(|&proximal| proximal != 0.0),
            gradient_clip_norm: training.gradient_clip_norm,
            schedule: match training.schedule {
                Schedule::Constant => None,
                Schedule::Step { every, factor } => Some(ScheduleFile::Step { every, factor }),
                Schedule::Cosine { rounds, floor } => Some(ScheduleFile::Cosine { rounds, floor }),
            },
            augment: training.augment,
        }
    }
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

fn decay() -> f64 {
    0.01
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_come_back_as_they_were_and_defaults_are_those_of_pytorch() {
        let plain = r#"{"learning_rate":2.0,"local_epochs":5,"batch_size":"full"}"#;
        let with = |more: &str| plain.replace('}', &format!(",{more}}}"));
        for (text, optimizer) in [
            (plain.to_owned(), None),
            (
                with(r#""optimizer":{"kind":"sgd","momentum":0.9}"#),
                Some(OptimizerFile::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }),
            ),
            (
                with(r#""optimizer":{"kind":"adamw"},"schedule":{"kind":"cosine","rounds":9}"#),
                Some(OptimizerFile::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }),
            ),
            (with(r#""augment":{"crop":4,"flip":true}"#), None),
            (
                with(r#""optimizer":{"kind":"adam"},"proximal":0.5,"gradient_clip_norm":2.0"#),
                Some(OptimizerFile::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }),
            ),
        ] {
            let file: TrainingFile = serde_json::from_str(&text).unwrap();
            assert_eq!(file.optimizer, optimizer);
            assert_eq!(TrainingFile::from(&Training::from(&file)), file);
        }
        let unknown =
            serde_json::from_str::<TrainingFile>(&with(r#""optimizer":{"kind":"sgd","beta1":0.9}"#));
        assert!(unknown.unwrap_err().to_string().contains("beta1"));
    }
}
