//! A federation as a person describes it: validated types.
//!
//! [`mod@file`] holds the same description as it is typed; [`Experiment::try_from`] is the only way from there to
//! here, and names the key that is wrong. Reading TOML, with its lines and columns, belongs to the command line.

mod data;
mod data_file;
pub mod file;
mod task;
mod validate;

use serde::{Deserialize, Serialize};
use skep_privacy::quantities::{Adjacency, ClipNorm, Delta, Epsilon, NoiseMultiplier, Sampling, Unit};

pub use data::{CountOrNames, CsvData, Data, Files, IdxData, IdxPair};
pub use task::{Activation, Batch, Model, Task, Training};
pub use validate::Invalid;

use crate::time::Span;

/// A federation: what is learned, by whom, how often, and at what cost in privacy.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// What the results are called.
    pub name: String,
    /// The public seed: data, partition, initial weights and batch order follow from it, noise and keys never.
    pub seed: u64,
    /// The data set that the server evaluates on and that simulated clients share.
    pub data: Data,
    /// What every client is asked to do.
    pub task: Task,
    /// Who takes part.
    pub population: Population,
    /// How many rounds, of whom, and until when.
    pub rounds: Rounds,
    /// How updates become the next model.
    pub strategy: Strategy,
    /// What is promised to the clients.
    pub privacy: Privacy,
}

/// The clients of a federation.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// How many there are; public.
    pub clients: u64,
    /// How simulated clients share the data.
    pub partition: Partition,
}

/// How the training data are divided among simulated clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Partition {
    /// Equal shares in random order.
    Iid,
    /// Each client's class proportions are drawn from a symmetric Dirichlet distribution.
    Dirichlet {
        /// Concentration, above 0: small values give each client few classes.
        alpha: f64,
    },
    /// Sorted by label and cut into shards, of which each client gets some at random: few classes each.
    Shards {
        /// Shards of one client, at least 1.
        per_client: u32,
    },
    /// Each client has the examples that the data's column of clients says are its own.
    Column,
}

/// The rounds of an experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounds {
    /// How many.
    pub count: u64,
    /// Who is invited to each.
    pub sampling: Sampling,
    /// The fewest updates that a round may be released with, at least 1.
    pub min_updates: u32,
    /// The end of a round after its start; every other wait follows from it.
    pub deadline: Span,
}

/// How a sum of updates becomes the next model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Federated averaging (McMahan et al., 1602.05629): add the mean update.
    FedAvg {
        /// Factor on the mean update, above 0.
        server_learning_rate: f64,
        /// The weights of the mean.
        weighting: Weighting,
    },
}

impl Strategy {
    /// The weights of the mean.
    pub fn weighting(&self) -> Weighting {
        match self {
            Strategy::FedAvg { weighting, .. } => *weighting,
        }
    }
}

/// The weights of a mean of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weighting {
    /// Every update counts the same; with privacy, over the expected cohort.
    Uniform,
    /// An update counts as many times as its client has examples, up to `max`. Refused where privacy is on:
    /// a client's weight would reveal its data and change the sensitivity.
    Examples {
        /// The largest weight of one client.
        max: u32,
    },
}

/// What is promised to the clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Privacy {
    /// Nothing: the server and every recipient see what they see.
    None,
    /// The server adds noise to the sum of clipped updates; it holds against whoever receives models.
    Central(CentralPrivacy),
}

/// Central differential privacy; nothing in it has a default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CentralPrivacy {
    /// What one neighbouring population differs by.
    pub unit: Unit,
    /// In which way it differs.
    pub adjacency: Adjacency,
    /// The L2 bound of one client's update.
    pub clip_norm: ClipNorm,
    /// Standard deviation of the noise on the sum, as a multiple of the sensitivity.
    pub noise_multiplier: NoiseMultiplier,
    /// The delta at which epsilon is stated, below one over the population.
    pub delta: Delta,
    /// No round is planned that would exceed it.
    pub epsilon_limit: Epsilon,
}

impl Experiment {
    /// The largest cohort that a round can invite: everyone, or the fixed size.
    pub fn cohort_max(&self) -> u32 {
        let clients = u32::try_from(self.population.clients).expect("validated: at most u32::MAX clients");
        match self.rounds.sampling {
            Sampling::Fixed { size, .. } => size.min(u64::from(clients)) as u32,
            Sampling::All | Sampling::Poisson { .. } => clients,
        }
    }

    /// The fixed, public denominator of a private mean: the expected size of a cohort.
    pub fn expected_cohort(&self) -> f64 {
        let clients = self.population.clients as f64;
        match self.rounds.sampling {
            Sampling::All => clients,
            Sampling::Poisson { rate } => clients * rate.get(),
            Sampling::Fixed { size, .. } => size as f64,
        }
    }
}
