//! How the updates of a cohort become the next model.

use serde::{Deserialize, Serialize};

/// Updates become one by `aggregation`, and that one moves the model by `optimizer`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strategy {
    /// How the updates of a cohort become one.
    pub aggregation: Aggregation,
    /// How that one moves the model.
    pub optimizer: ServerOptimizer,
    /// The step size of the optimizer, above 0.
    pub server_learning_rate: f64,
    /// Whether clients train at their own pace, and how.
    pub buffering: Option<Buffering>,
}

/// Clients train at their own pace, each from the model of the time when it begins, and the server makes a model of every so
/// many updates as they come: FedBuff (Nguyen et al., 2106.06639). How many is the size of a cohort.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buffering {
    /// Clients that train at any time, at least 1.
    pub concurrency: u32,
    /// An update that was begun τ models ago counts (1 + τ)^−a; a is at least 0.
    pub staleness_exponent: f64,
}

/// How the updates of a cohort become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregation {
    /// Their mean, of which the server needs nothing but their sum.
    Mean {
        /// The weights of the mean.
        weighting: Weighting,
    },
    /// One that a few corrupt clients cannot move far, for which the server sees and keeps each update; or, where it sees sums only,
    /// the sum of each group.
    Robust(Robust),
}

/// An aggregate that a few corrupt updates cannot move far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Robust {
    /// The mean of updates that are scaled down if they are longer (Sun et al., 1911.07963).
    NormThreshold {
        /// L2 norm of the longest update, above 0.
        max_norm: f64,
    },
    /// The median of each coordinate (Yin et al., 1803.01498).
    Median,
    /// The mean of each coordinate without the largest and the smallest (Yin et al., 1803.01498).
    TrimmedMean {
        /// The part of the updates that is cut at either end, 0 to 1/2, 1/2 excluded.
        trim: f64,
    },
    /// The mean of the updates that are nearest to others: Krum and multi-Krum (Blanchard et al., 1703.02757).
    Krum {
        /// The most corrupt updates that a round is planned for.
        byzantine: u32,
        /// How many updates are taken: one with Krum.
        selected: u32,
    },
    /// The last aggregate, moved towards the updates by no more than a radius each (Karimireddy et al., 2012.10333).
    CentredClipping {
        /// L2 norm of the longest step, above 0.
        radius: f64,
        /// How many times it is moved, at least 1.
        iterations: u32,
    },
}

/// How an aggregate moves the model: it takes the place of a gradient, with the opposite sign.
///
/// It sees what has been released and nothing else, so privacy costs nothing more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ServerOptimizer {
    /// Adds it: federated averaging (McMahan et al., 1602.05629).
    Sgd,
    /// Adds a decaying sum of all of them: FedAvgM (Hsu, Qi and Brown, 1909.06335).
    Momentum {
        /// How much of the sum is kept from round to round, 0 to 1, 1 excluded.
        momentum: f64,
    },
    /// Scales each coordinate by how much it has moved (Reddi et al., 2003.00295, algorithm 2).
    Adaptive {
        /// How a coordinate's movement is remembered.
        second_moment: SecondMoment,
        /// How much of the mean direction is kept from round to round, 0 to 1, 1 excluded.
        beta1: f64,
        /// The degree of adaptivity, above 0: no coordinate counts as having moved less.
        tau: f64,
    },
}

/// How an adaptive optimizer remembers the squares of what a coordinate has moved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SecondMoment {
    /// FedAdagrad: adds them up.
    Adagrad,
    /// FedAdam: averages them.
    Adam {
        /// How much of the average is kept from round to round, 0 to 1, 1 excluded.
        beta2: f64,
    },
    /// FedYogi: goes towards them by steps as large as they are.
    Yogi {
        /// One less the part of a square that a step takes, 0 to 1, 1 excluded.
        beta2: f64,
    },
}

/// The weights of a mean of updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Weighting {
    /// Every update counts the same; with privacy, over the expected cohort.
    Uniform,
    /// An update counts as many times as its client has examples, up to `max`. Refused where privacy is on:
    /// a client's weight would reveal its data and change the sensitivity.
    Examples {
        /// The largest weight of one client, below u32::MAX.
        max: u32,
    },
    /// By examples, and divided by how much the client's steps add up to (FedNova: Wang et al., 2007.07481). Refused where privacy
    /// is on, like the following.
    PerStep {
        /// The largest weight of one client.
        max: u32,
    },
    /// By a power of the base model's loss on the client's examples (q-FedAvg: Li et al., 1905.10497).
    ByLoss {
        /// The power, at least 0.
        q: f64,
    },
    /// Every update counts the same, and brings along how its client's control variate changes (SCAFFOLD: Karimireddy et al.,
    /// 1910.06378).
    Controlled,
}

impl Weighting {
    /// Coordinates of an update beside its so many parameters.
    pub fn coordinates(&self, parameters: u64) -> u64 {
        match self {
            Weighting::Uniform => 0,
            Weighting::Examples { .. } | Weighting::ByLoss { .. } => 1,
            Weighting::PerStep { .. } => 2,
            Weighting::Controlled => parameters,
        }
    }
}

/// What steps are counted in beside a [`Weighting::PerStep`] update, so that they fit its grid.
pub const STEPS_UNIT: f64 = 1024.0;
/// What the weight of a [`Weighting::ByLoss`] update is counted in, likewise.
pub const LOSS_UNIT: f64 = 64.0;

impl Strategy {
    /// The weights of the mean; uniform where the aggregate is no mean.
    pub fn weighting(&self) -> Weighting {
        match self.aggregation {
            Aggregation::Mean { weighting } => weighting,
            Aggregation::Robust(_) => Weighting::Uniform,
        }
    }
}
