//! Synthetic data that every program can re-create.

use serde::{Deserialize, Serialize};

/// A synthetic task: its data, first weights and cohorts are fixed to the bit, to compare programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// 300 features around the centres of 5 classes, 10 examples a client.
    MlpText,
    /// Images of 32 x 32 pixels and 3 channels around the centres of 10 classes, 50 examples a client.
    CnnCifar,
    /// Images of 224 x 224 pixels and 3 channels around the centres of 10 classes, 4 examples a client.
    #[serde(rename = "cnn-224")]
    Cnn224,
    /// 784 uniform features of which every tenth tells the class, 10 classes, 10 examples a client.
    Linear,
}

impl Workload {
    /// Numbers in one example.
    pub const fn features(self) -> u32 {
        match self {
            Workload::MlpText => 300,
            Workload::CnnCifar => 3072,
            Workload::Cnn224 => 150_528,
            Workload::Linear => 784,
        }
    }

    /// Classes to tell apart.
    pub const fn classes(self) -> u32 {
        match self {
            Workload::MlpText => 5,
            Workload::CnnCifar | Workload::Cnn224 | Workload::Linear => 10,
        }
    }
}
