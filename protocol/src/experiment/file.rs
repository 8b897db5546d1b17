//! The experiment file as it is typed: optional keys, plain numbers, unknown keys refused.
//!
//! Units are in the names. A key without a default here has none: it must be given.
//!
//! Variants without fields are written `Name {}`: serde lets unknown keys pass beside the tag of a unit variant.

use serde::{Deserialize, Serialize};

pub use super::InitialWeights;
pub use super::attack::AttackFile;
pub use super::data_file::{DataFile, IdxFile, NpzFile, OwnFile, TextFile};
pub use super::evaluation::Evaluation;
pub use super::images::{ImageFormatFile, ImagesFile, Normalize};
pub use super::layers::{Layer, Transformer};
pub use super::simulation::{Availability, Devices, Faults};
pub use super::strategy_file::{AdaptiveFile, StrategyFile, WeightingFile};
pub use super::table::TableFile;
pub use super::task::Activation;
pub use super::training::Augment;
pub use super::training_file::{
    BatchFile, BatchWord, InOrderFile, OptimizerFile, Precision, ScheduleFile, TrainingFile,
};
pub use super::tuning::{Lora, TuningFile};
pub use super::workload::Workload;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentFile {
    /// What the results are called.
    pub name: String,
    /// Public seed of data, partition, initial weights and batch order.
    pub seed: u64,
    /// What is learned.
    pub task: TaskFile,
    /// Who takes part.
    pub population: PopulationFile,
    /// How often.
    pub rounds: RoundsFile,
    /// How updates become the next model.
    pub strategy: StrategyFile,
    /// What is promised to the clients.
    pub privacy: PrivacyFile,
    /// Whether the server sees sums only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_aggregation: Option<SecureAggregationFile>,
    /// How often a model is measured, and when that ends a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// How `skep simulate` computes it.
    #[serde(default)]
    pub simulation: SimulationFile,
}

/// `[task]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskFile {
    /// The data set: `"digits"`, or a table that names files.
    pub data: DataFile,
    /// The model.
    pub model: ModelFile,
    /// The local training.
    pub training: TrainingFile,
    /// Which weights it starts from, and what of the model is trained; all of it, if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningFile>,
    /// `"he"` or `"glorot"`.
    #[serde(default)]
    pub initial_weights: InitialWeights,
}

/// `[task.model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ModelFile {
    /// `kind = "softmax"`
    Softmax {},
    /// `kind = "mlp"`
    Mlp {
        /// Widths of the hidden layers.
        hidden: Vec<u32>,
        /// `"relu"`, `"sigmoid"` or `"tanh"`.
        activation: Activation,
    },
    /// `kind = "layers"`
    Layers {
        /// Height, width and channels of an example, if it is an image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<[u32; 3]>,
        /// The layers before the last, dense one, which gives a number for each class.
        layers: Vec<Layer>,
    },
    /// `kind = "transformer"`: an encoder of texts, or a model of the next word where that is what the data are about;
    /// resolved to its layers.
    Transformer(Transformer),
    /// `kind = "simple-cnn"`: a small convolutional network for images, resolved to its layers.
    SimpleCnn {
        /// Height, width and channels of an example.
        image: [u32; 3],
        /// Whether it drops out while training.
        #[serde(default = "yes")]
        dropout: bool,
    },
    /// `kind = "lenet"`: a small convolutional network of 1998, resolved to its layers.
    #[serde(rename = "lenet")]
    LeNet {
        /// Height, width and channels of an example.
        image: [u32; 3],
    },
    /// `kind = "resnet"`: a residual network with group normalization, resolved to its layers.
    #[serde(rename = "resnet")]
    ResNet {
        /// Height, width and channels of an example.
        image: [u32; 3],
        /// Layers with weights: 2 more than a multiple of 6.
        depth: u32,
        /// Channels of the first stage.
        #[serde(default = "sixteen")]
        width: u32,
    },
    /// `kind = "own"`: a model that the program brings along.
    Own {
        /// What the program calls it.
        name: String,
        /// How many parameters it has.
        parameters: u64,
    },
}

/// `[population]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PopulationFile {
    /// How many clients there are.
    pub clients: u64,
    /// How simulated clients share the data.
    pub partition: PartitionFile,
    /// The ledger that all simulations over this population are charged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// In how many rounds one client may take part at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_participations: Option<u64>,
    /// Rounds from one participation of a client to the next, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_separation: Option<u64>,
}

/// `population.partition`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PartitionFile {
    /// `kind = "iid"`
    Iid {},
    /// `kind = "dirichlet"`
    Dirichlet {
        /// Concentration.
        alpha: f64,
    },
    /// `kind = "shards"`
    Shards {
        /// Shards of one client.
        per_client: u32,
    },
    /// `kind = "column"`: by the data's column of clients.
    Column {},
    /// `kind = "generated"`: from each client's number.
    Generated {},
}

/// `[rounds]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundsFile {
    /// How many rounds.
    pub count: u64,
    /// Who is invited to each.
    pub sampling: SamplingFile,
    /// The fewest updates that a round may be released with.
    pub min_updates: u32,
    /// The end of a round after its start, in seconds.
    pub deadline_s: f64,
}

/// `rounds.sampling`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SamplingFile {
    /// `scheme = "all"`: everyone, every round.
    All {},
    /// `scheme = "poisson"`: each client by its own secret coin.
    Poisson {
        /// Probability of being invited.
        rate: f64,
    },
    /// `scheme = "fixed"`: so many clients, without replacement.
    Fixed {
        /// How many.
        size: u64,
    },
}

/// `[privacy]`: which keys must be there depends on `mode`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyFile {
    /// The trust mode.
    pub mode: ModeFile,
    /// `"client"` or `"example"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// `"add-or-remove"`, `"zero-out"` or `"replace"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjacency: Option<String>,
    /// L2 bound of one client's update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Noise on the sum, in mode local on each update, as a multiple of the sensitivity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_multiplier: Option<f64>,
    /// The delta at which epsilon is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// No round is planned that would exceed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_limit: Option<f64>,
}

impl PrivacyFile {
    /// `mode = "none"`, which allows no other key.
    pub const NONE: PrivacyFile = PrivacyFile {
        mode: ModeFile::None,
        unit: None,
        adjacency: None,
        clip_norm: None,
        noise_multiplier: None,
        delta: None,
        epsilon_limit: None,
    };
}

/// `privacy.mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeFile {
    /// Nothing is promised.
    None,
    /// The server adds noise to the sum.
    Central,
    /// Every client adds a share of the noise, under secure aggregation.
    Distributed,
    /// Every client adds all of the noise.
    Local,
}

/// `[secure_aggregation]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureAggregationFile {
    /// The largest part of a cohort that may be the server's own.
    pub max_corrupt_fraction: f64,
    /// No smaller cohort, or group of one, is summed up.
    #[serde(default = "ten")]
    pub min_cohort: u32,
    /// The groups that a cohort is summed up in; one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<GroupsFile>,
}

/// `secure_aggregation.groups`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsFile {
    /// Clients of each.
    pub size: u32,
    /// The fewest updates of each; with fewer, its sum is dropped.
    pub min_updates: u32,
}

/// `[simulation]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulationFile {
    /// `"sum"` or `"protocol"`.
    #[serde(default)]
    pub fidelity: FidelityFile,
    /// A round begins at least so long after the one before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_every_s: Option<f64>,
    /// How fast clients are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Devices>,
    /// When clients can be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// What goes wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<Faults>,
    /// What corrupt clients do, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<AttackFile>,
    /// Layers that every client keeps to itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_layers: Vec<String>,
}

/// `simulation.fidelity`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FidelityFile {
    /// Updates are added up as they are.
    #[default]
    Sum,
    /// Every client runs the whole protocol.
    Protocol,
}

fn yes() -> bool {
    true
}

fn sixteen() -> u32 {
    16
}

fn ten() -> u32 {
    10
}
