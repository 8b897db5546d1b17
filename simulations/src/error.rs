//! Why a simulation cannot start or go on.

use skep_client::task::TaskError;
use skep_learning::PartitionError;
use skep_privacy::canonical::CanonicalError;
use skep_privacy::prg::PrgError;
use skep_protocol::round::Decline;
use skep_protocol::round::server::OpenError;
use skep_server::federation::{FederationError, PlanningError, RoundError};
use skep_server::ledger;
use thiserror::Error;

use crate::availability::TraceError;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::fault::FaultError;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum SimulationError {
    /// The training data cannot be divided among the clients.
    #[error("the training data cannot be divided as population.partition says: {0}")]
    Partition(#[from] PartitionError),
    /// The first model cannot be made.
    #[error(transparent)]
    Model(Box<DataError>),
    /// The data are not those of the task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The script of faults makes no sense.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The trace of who can be reached makes no sense.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The federation cannot be set up.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// There is no ledger to charge rounds to.
    #[error(transparent)]
    Ledger(#[from] ledger::OpenError),
    /// A model cannot be measured.
    #[error(transparent)]
    Measure(#[from] skep_learning::LearnError),
    /// A checkpoint cannot be written.
    #[error("the run cannot be kept: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// What a checkpoint says of clients that train at their own pace is no such thing.
    #[error("the checkpoint cannot be read: {0}; start anew, without --resume")]
    Buffer(CanonicalError),
    /// The private layers are none, or all, of the model's.
    #[error("simulation.private_layers: {problem}; the model's layers are {known}")]
    PrivateLayers {
        /// What is wrong.
        problem: String,
        /// The names of all layers.
        known: String,
    },
    /// A round cannot be planned, for another reason than the budget.
    #[error(transparent)]
    Planning(PlanningError),
    /// The operating system gave no key.
    #[error(transparent)]
    Randomness(#[from] PrgError),
    /// A round cannot be opened: a bug.
    #[error("a planned round cannot be opened, which is a bug: {0}")]
    Open(#[from] OpenError),
    /// A step of a round failed: a bug.
    #[error("a step of a round failed, which is a bug: {0}")]
    Round(#[from] RoundError),
    /// The masks of a plan, or an update under them, are refused: a bug.
    #[error("secure aggregation is refused, which is a bug: {0}")]
    Masking(Decline),
    /// The server's machine asked for what cannot be: a bug.
    #[error("the server's machine and the simulator disagree, which is a bug: {0}")]
    OutOfStep(&'static str),
}

impl From<DataError> for SimulationError {
    fn from(error: DataError) -> Self {
        SimulationError::Model(Box::new(error))
    }
}
