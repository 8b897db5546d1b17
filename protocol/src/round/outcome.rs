//! How a round ends.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Phase;

/// How a round ended; there is no other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Every invited client's update is in the released model.
    Complete {
        /// Updates in the sum.
        updates: u32,
    },
    /// A model was released from some of the invited clients.
    Degraded {
        /// Updates in the sum.
        updates: u32,
        /// Clients invited.
        invited: u32,
    },
    /// Nothing was released. The budget stays charged.
    Aborted(AbortReason),
}

/// Why a round released nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error)]
pub enum AbortReason {
    /// Fewer updates arrived than the plan requires.
    #[error("{updates} updates arrived, {required} are required")]
    TooFewUpdates {
        /// Updates committed.
        updates: u32,
        /// The plan's minimum.
        required: u32,
    },
    /// Fewer clients answered in a phase of secure aggregation than it takes.
    #[error(
        "{answered} clients answered in the phase \"{phase}\" of secure aggregation, {required} are required"
    )]
    BelowThreshold {
        /// The phase.
        phase: Phase,
        /// Clients that answered; in the last phase, holders of the scarcest secret that did.
        answered: u32,
        /// Clients that must.
        required: u32,
    },
    /// The release failed on the server.
    #[error("the release failed on the server")]
    ReleaseFailed,
    /// The release was not done by the deadline.
    #[error("the release was not done by the deadline")]
    ReleaseLate,
    /// The operator stopped the round.
    #[error("the operator stopped the round")]
    Stopped,
    /// The server's process ended in the round.
    #[error("the server went down in the round")]
    Interrupted,
}

impl Outcome {
    /// Whether a model was released.
    pub fn is_released(&self) -> bool {
        !matches!(self, Outcome::Aborted(_))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Complete { updates } => write!(f, "complete with {updates} updates"),
            Outcome::Degraded { updates, invited } => write!(f, "degraded: {updates} of {invited} updates"),
            Outcome::Aborted(reason) => write!(f, "aborted: {reason}"),
        }
    }
}
