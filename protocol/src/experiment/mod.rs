//! A federation as a person describes it: validated types.
//!
//! [`mod@file`] holds the same description as it is typed; [`Experiment::try_from`] is the only way from there to
//! here, and names the key that is wrong. Reading TOML, with its lines and columns, belongs to the command line.

mod attack;
mod data;
mod data_file;
pub mod evaluation;
pub mod file;
mod images;
mod layers;
mod metric;
pub mod simulation;
mod strategy;
mod strategy_file;
mod table;
mod task;
mod training;
mod training_file;
mod tuning;
mod validate;
mod workload;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_privacy::ledger::{Mode, Participation};
use skep_privacy::quantities::{
    Adjacency, ClipNorm, CorruptFraction, Delta, Epsilon, NoiseMultiplier, Sampling, Unit,
};

pub use attack::{Attack, AttackKind};
pub use data::{
    CountOrNames, Data, Files, IdxData, IdxPair, NpzData, OwnData, TextColumn, TextData, TextFeatures,
    TextFormat, Tokenizer, VectorsFile, Vocabulary,
};
pub use evaluation::{Asked, Evaluation, EvaluationQuery};
pub use images::{ImageData, ImageFormat, Normalize};
pub use layers::{Block, Layer, NormPlace, Summary, Transformer, lenet, resnet, simple_cnn};
pub use metric::{Better, Metric, Predicted};
pub use simulation::Simulation;
pub use strategy::{
    Aggregation, Buffering, LOSS_UNIT, Robust, STEPS_UNIT, SecondMoment, ServerOptimizer, Strategy, Weighting,
};
pub use table::{Loss, Missing, TableAnswer, TableColumn, TableData, TableFormat, Target};
pub use task::{Activation, Model, Task};
pub use training::{Augment, Batch, ExamplePrivacy, Optimizer, Schedule, Training};
pub use tuning::{Lora, Tuning};
pub use validate::Invalid;
pub use workload::Workload;

use skep_privacy::secagg::ParamsError;

use crate::plan::{Masking, Released};
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
    /// The file of weights that training starts from, where it does.
    pub weights: Option<PathBuf>,
    /// What every client is asked to do.
    pub task: Task,
    /// How far the first weights lie from zero.
    pub initial_weights: InitialWeights,
    /// Who takes part.
    pub population: Population,
    /// How many rounds, of whom, and until when.
    pub rounds: Rounds,
    /// How updates become the next model.
    pub strategy: Strategy,
    /// What is promised to the clients.
    pub privacy: Privacy,
    /// What a simulation in memory computes of secure aggregation.
    pub fidelity: Fidelity,
    /// How often a model is measured, and when that ends a run.
    pub evaluation: Evaluation,
    /// What a simulation in memory makes of its clients.
    pub simulation: Simulation,
    /// What corrupt clients of a simulation in memory do, if there are any.
    pub attack: Option<Attack>,
}

/// How far weights of dense layers and convolutions lie from zero before the first round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitialWeights {
    /// Before a ReLU as He et al. say (1502.01852), elsewhere as Glorot and Bengio.
    #[default]
    He,
    /// Everywhere as Glorot and Bengio say (2010): nearer to zero.
    Glorot,
}

/// The clients of a federation.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    /// How many there are; public.
    pub clients: u64,
    /// How simulated clients share the data.
    pub partition: Partition,
    /// The file of the ledger that all simulations over this population are charged to; none: each run has its own.
    pub ledger: Option<String>,
    /// How often one client may take part; none: in every round.
    pub participation: Option<Participation>,
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
    /// Each client's examples are generated from its number, when they are needed.
    Generated,
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

/// What is promised to the clients: the trust mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Privacy {
    /// Nothing: the server and every recipient see what they see.
    None,
    /// The server adds noise to the sum of clipped updates; it holds against whoever receives models.
    Central {
        /// How much noise, and what it hides.
        terms: Terms,
        /// Whether the server sees the sum only.
        secure_aggregation: Option<SecureAggregation>,
    },
    /// Every client adds a share of the noise, and the server sees the sum only; it holds against the server, too.
    Distributed {
        /// How much noise, and what it hides.
        terms: Terms,
        /// How the server is kept from seeing more.
        secure_aggregation: SecureAggregation,
    },
    /// Every client adds all of the noise to its own update; it holds against everyone.
    Local {
        /// How much noise, and what it hides.
        terms: Terms,
    },
    /// Every client hides its single examples by noise on the gradients that it trains with, and nothing else; it holds
    /// against everyone else. Mode local, unit example.
    Examples {
        /// How much noise, and what it hides; also part of the task, by which clients know.
        terms: Terms,
    },
}

/// The terms of differential privacy; nothing in them has a default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// What one neighbouring population differs by.
    pub unit: Unit,
    /// In which way it differs.
    pub adjacency: Adjacency,
    /// The L2 bound of one client's update.
    pub clip_norm: ClipNorm,
    /// Standard deviation of the noise as a multiple of the sensitivity: of all noise on the sum; of the shares that honest
    /// survivors leave in it at least; in mode local, of the noise on each update.
    pub noise_multiplier: NoiseMultiplier,
    /// The delta at which epsilon is stated, below one over the population.
    pub delta: Delta,
    /// No round is planned that would exceed it: against recipients in mode central, else against the server.
    pub epsilon_limit: Epsilon,
}

/// What keeps the server from seeing more than sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecureAggregation {
    /// The largest part of a cohort that may be the server's own.
    pub max_corrupt_fraction: CorruptFraction,
    /// No smaller cohort, or group of one, is summed up: what is said of a sum of few is said of each.
    pub min_cohort: u32,
    /// The groups of a large cohort, each summed up by itself; none: the cohort is one.
    pub groups: Option<Groups>,
}

/// How a cohort is divided for secure aggregation. The server learns the sum of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Clients of each; divides the cohort.
    pub size: u32,
    /// The fewest updates of each, for which noise is planned; with fewer, the group's sum is dropped.
    pub min_updates: u32,
}

impl SecureAggregation {
    /// How the updates of a cohort are masked of which at least `min_updates` are released.
    ///
    /// # Errors
    /// [`ParamsError`] when no parameters are safe.
    pub(crate) fn masking(&self, cohort: u32, min_updates: u32) -> Result<Masking, ParamsError> {
        let SecureAggregation { max_corrupt_fraction, min_cohort, groups } = *self;
        let Groups { size, min_updates } = groups.unwrap_or(Groups { size: cohort, min_updates });
        Masking::plan_groups(cohort, size, min_updates, min_cohort, max_corrupt_fraction)
    }
}

impl Privacy {
    /// The terms of what updates promise of whole clients, if they promise anything.
    pub fn terms(&self) -> Option<&Terms> {
        match self {
            Privacy::None | Privacy::Examples { .. } => None,
            Privacy::Central { terms, .. }
            | Privacy::Distributed { terms, .. }
            | Privacy::Local { terms } => Some(terms),
        }
    }

    /// The same mode for other numbers than updates, with another bound and another noise.
    #[must_use]
    pub fn with_noise(&self, clip_norm: ClipNorm, noise_multiplier: NoiseMultiplier) -> Self {
        let mut changed = *self;
        match &mut changed {
            Privacy::None => {}
            Privacy::Central { terms, .. }
            | Privacy::Distributed { terms, .. }
            | Privacy::Local { terms }
            | Privacy::Examples { terms } => *terms = Terms { clip_norm, noise_multiplier, ..*terms },
        }
        changed
    }

    /// The terms, whatever they promise.
    pub fn stated_terms(&self) -> Option<&Terms> {
        match self {
            Privacy::Examples { terms } => Some(terms),
            _ => self.terms(),
        }
    }

    /// How the server is kept from seeing more than sums, where it is.
    pub fn secure_aggregation(&self) -> Option<&SecureAggregation> {
        match self {
            Privacy::None | Privacy::Local { .. } | Privacy::Examples { .. } => None,
            Privacy::Central { secure_aggregation, .. } => secure_aggregation.as_ref(),
            Privacy::Distributed { secure_aggregation, .. } => Some(secure_aggregation),
        }
    }

    /// Who adds noise to what a ledger is about, which is whole clients.
    pub fn trust_mode(&self) -> Mode {
        match self {
            Privacy::None | Privacy::Examples { .. } => Mode::None,
            Privacy::Central { secure_aggregation: None, .. } => Mode::Central,
            Privacy::Central { secure_aggregation: Some(_), .. } => Mode::CentralSecureAggregation,
            Privacy::Distributed { .. } => Mode::Distributed,
            Privacy::Local { .. } => Mode::Local,
        }
    }

    /// The name of the mode, as in an experiment file.
    pub fn mode(&self) -> &'static str {
        match self {
            Privacy::None => "none",
            Privacy::Central { .. } => "central",
            Privacy::Distributed { .. } => "distributed",
            Privacy::Local { .. } | Privacy::Examples { .. } => "local",
        }
    }
}

/// What a simulation in memory computes of secure aggregation. Both give the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// Updates with each client's own noise are added up modulo 2ᵇ, without masks and encryption.
    Sum,
    /// Every client runs the whole protocol.
    Protocol,
}

impl Experiment {
    /// Places files of data and weights that are named by a relative path below `directory`.
    pub fn place_below(&mut self, directory: &Path) {
        self.data.place_below(directory);
        self.weights.iter_mut().for_each(|path| *path = directory.join(&*path));
    }

    /// When the run ends although rounds are left, if ever.
    pub fn stop(&self) -> Option<evaluation::Stop> {
        self.evaluation.stop(self.data.predicted())
    }

    /// The largest cohort that a round can invite: everyone, or the fixed size.
    pub fn cohort_max(&self) -> u32 {
        let clients = u32::try_from(self.population.clients).expect("validated: at most u32::MAX clients");
        match self.rounds.sampling {
            Sampling::Fixed { size, .. } => size.min(u64::from(clients)) as u32,
            Sampling::All | Sampling::Poisson { .. } => clients,
        }
    }

    /// How updates are masked, where the server sees sums only.
    pub fn masking(&self) -> Option<Masking> {
        let secure = self.privacy.secure_aggregation()?;
        let masking = secure.masking(self.cohort_max(), self.rounds.min_updates).ok()?;
        let released = match self.strategy.aggregation {
            Aggregation::Mean { .. } => Released::Total,
            Aggregation::Robust(_) => Released::EachGroup,
        };
        Some(Masking { released, ..masking })
    }

    /// The fewest updates that the noise of others in a round's sum is counted on for: those that a round waits for. Where clients
    /// train at their own pace none but its own, since whose updates share a sum follows from data.
    pub fn least_updates(&self) -> u32 {
        if self.strategy.buffering.is_some() { 1 } else { self.rounds.min_updates }
    }

    /// The fewest updates in any sum that recipients of models are taken to see.
    pub fn least_released(&self) -> u32 {
        let min_updates = self.least_updates();
        self.masking().map_or(min_updates, |masking| masking.least_released(min_updates))
    }

    /// Survivors that are not corrupt in every sum that the server learns, at least, where noise shares are planned for them: the
    /// fewest updates of a group less its most corrupt clients.
    pub fn honest_survivors(&self) -> Option<u32> {
        let Privacy::Distributed { .. } = &self.privacy else { return None };
        let masking = self.masking()?;
        masking.group_min_updates.checked_sub(masking.corrupt(self.cohort_max()))
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
