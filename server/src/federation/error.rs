//! What can go wrong before, between and in rounds.

use skep_privacy::budget::BudgetExhausted;
use skep_privacy::client_noise::NoisedGridError;
use skep_privacy::grid::GridError;
use skep_privacy::ledger::{Excess, LedgerError, Participation, ReserveError};
use skep_privacy::mechanism::NoiseTooLarge;
use skep_privacy::prg::PrgError;
use skep_privacy::quantities::{Adjacency, Delta, Unit};
use skep_privacy::secagg::Rejection;
use skep_privacy::sum::{ReleaseError, SumError};
use skep_protocol::Round;
use skep_protocol::plan::PlanError;
use skep_protocol::round::{AbortReason, Decline};
use thiserror::Error;

use crate::journal::JournalError;
use crate::masking::{self, UnmaskError};
use crate::strategy::StrategyError;

/// Why a federation cannot be set up.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FederationError {
    /// The task's model and the segments have different lengths.
    #[error("the segments have {segments} parameters, the task's model has {task}")]
    Segments {
        /// Sum over the segments.
        segments: u64,
        /// Of the task; 0 when it is too large.
        task: u64,
    },
    /// The initial model has another length than the segments.
    #[error("the initial model has {found} parameters, the segments have {expected}")]
    InitialModel {
        /// Sum over the segments.
        expected: u64,
        /// Parameters given.
        found: u64,
    },
    /// The initial model is not finite.
    #[error("parameter {index} of the initial model is not finite")]
    NonFinite {
        /// The first such parameter.
        index: usize,
    },
    /// What the strategy remembers is of a model of another length.
    #[error("the strategy's state is not that of a model of {parameters} parameters")]
    OtherState {
        /// Of the model.
        parameters: usize,
    },
    /// There is no grid for this model and cohort.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// There is no grid for updates with noise from clients.
    #[error(transparent)]
    ClientNoise(#[from] NoisedGridError),
    /// There is no sampler for this much noise.
    #[error(transparent)]
    Noise(#[from] NoiseTooLarge),
    /// A query is about whole clients.
    #[error(
        "with unit = \"example\" nothing hides a whole client, and what a query tells is about whole clients"
    )]
    ExamplesOnly,
    /// The ledger is another population's.
    #[error(
        "the ledger is that of a population of {expected} clients, the experiment has {found}: begin a new epoch with \
         `skep ledger amend --epoch`, or keep another ledger"
    )]
    OtherPopulation {
        /// Clients in the ledger's population.
        expected: u64,
        /// Clients in the experiment.
        found: u64,
    },
    /// The ledger has other participation limits.
    #[error(
        "the ledger's terms {}: set the same in [population], or change the terms with `skep ledger amend`",
        participation_text(kept)
    )]
    OtherParticipation {
        /// Of the ledger.
        kept: Option<Participation>,
    },
    /// The ledger counts another unit, by another relation or at another delta; such epsilons cannot be added.
    #[error(
        "the ledger's budget is for unit {unit}, adjacency {adjacency} and delta {delta}, and epsilons of others cannot be \
         added to it: set these in [privacy], or begin a new epoch with `skep ledger amend --epoch`"
    )]
    OtherBudget {
        /// Of the ledger.
        unit: Unit,
        /// Of the ledger.
        adjacency: Adjacency,
        /// Of the ledger.
        delta: Delta,
    },
    /// The ledger promises nothing: rounds without noise may be in it.
    #[error(
        "the ledger promises nothing, so a private round cannot be charged to it: begin a new epoch with \
         `skep ledger amend --epoch`, or keep another ledger"
    )]
    NoBudget,
}

fn participation_text(limit: &Option<Participation>) -> String {
    match limit {
        None => "limit nobody's participation".to_owned(),
        Some(Participation { max: u64::MAX, min_separation }) => {
            format!("have min_separation = {min_separation} and no max_participations")
        }
        Some(Participation { max, min_separation }) => {
            format!("have max_participations = {max} and min_separation = {min_separation}")
        }
    }
}

/// Why no round was planned.
#[derive(Debug, Error)]
pub enum PlanningError {
    /// All rounds of the schedule have been planned.
    #[error("all {rounds} rounds have been run")]
    Finished {
        /// How many.
        rounds: u64,
    },
    /// One more round would cost more than the budget allows; nobody is invited.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// The last round has not been closed.
    #[error("{0} is still open")]
    Busy(Round),
    /// The roster has another size than the experiment says. The sampling rate is over the public population.
    #[error("the roster has {found} clients, the experiment says {expected}")]
    Population {
        /// Of the experiment.
        expected: u64,
        /// Of the roster.
        found: u64,
    },
    /// So many clients are revoked that no round can be released.
    #[error(
        "{left} clients are left that are not revoked, a round needs {required} updates; nobody is invited any more"
    )]
    TooFewLeft {
        /// Clients of the population that are not revoked.
        left: u64,
        /// The fewest updates that a round is released with.
        required: u32,
    },
    /// So many clients have taken part as often as they may, or too short a time ago, that no cohort is left.
    #[error(
        "{left} clients may be invited, a cohort has {wanted}: the others have taken part as often as \
         population.max_participations allows, or fewer than population.min_separation rounds ago"
    )]
    TooFewMayTakePart {
        /// Clients that may be invited.
        left: u64,
        /// Of a cohort.
        wanted: u64,
    },
    /// A client of the cohort may not be invited.
    #[error("client {client} may not be invited: {excess}")]
    Participation {
        /// The first such client.
        client: u64,
        /// Why not.
        excess: Excess,
    },
    /// The cohort was chosen elsewhere, although secrecy is what its sampling amplifies by, or it has another size.
    #[error("the cohort must be drawn in secret, or have the fixed size that the experiment says")]
    PublicCohort,
    /// The answers to a query fit no grid, or nothing hides them.
    #[error("a query cannot be asked: {0}")]
    Query(#[from] FederationError),
    /// No keys.
    #[error(transparent)]
    Randomness(#[from] PrgError),
    /// The plan's masks would hide nothing.
    #[error("the plan's secure aggregation is refused: {0}")]
    Masking(Decline),
    /// The round is not at its beginning.
    #[error(transparent)]
    Round(RoundError),
    /// The plan contradicts its reservation.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The ledger cannot be continued.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The round cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<ReserveError> for PlanningError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::Budget(exhausted) => PlanningError::Budget(exhausted),
            ReserveError::Participation { client, excess } => PlanningError::Participation { client, excess },
            ReserveError::Ledger(error) => PlanningError::Ledger(error),
        }
    }
}

/// Why a step of a round failed.
#[derive(Debug, Error)]
pub enum RoundError {
    /// No round is open, or it has gone past this step.
    #[error("no round is open for this")]
    OutOfOrder,
    /// The update was not added.
    #[error(transparent)]
    Sum(#[from] SumError),
    /// The masked update was not added.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The masks are still on the sum.
    #[error(transparent)]
    Unmask(#[from] UnmaskError),
    /// Without the groups that could not be unmasked too few updates are left.
    #[error(
        "{updates} updates are left without the groups that could not be unmasked, {required} are required"
    )]
    TooFewLeft {
        /// Updates that are left.
        updates: u32,
        /// The plan's minimum.
        required: u32,
    },
    /// The sum was not opened.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// There is no next model.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// No key for the noise.
    #[error(transparent)]
    Randomness(#[from] PrgError),
    /// The ledger cannot be continued.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The round cannot be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl RoundError {
    /// How the round ends that this happened in.
    pub fn abort_reason(&self) -> AbortReason {
        match self {
            RoundError::Unmask(UnmaskError::Abort(abort)) => masking::abort_reason(abort),
            _ => AbortReason::ReleaseFailed,
        }
    }
}
