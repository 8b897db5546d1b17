//! What a server is doing, at a glance.

use serde::{Deserialize, Serialize};
use skep_protocol::Round;
use skep_protocol::round::Phase;

/// What a server is doing. It names no client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Where it is between two rounds, or in one.
    pub doing: Doing,
    /// The round that is open, or was last; null before this process has opened one.
    pub round: Option<Round>,
    /// Whether it is about the query after the round, in which clients say how good its model is.
    #[serde(default)]
    pub asking: bool,
    /// Clients connected.
    pub connected: usize,
    /// Clients that the first round waits for.
    pub wanted: usize,
    /// Clients in the cohort of the round.
    pub invited: u32,
    /// Updates in its sum.
    pub updates: u32,
    /// Clients that have answered in the round's phase.
    pub answered: u32,
    /// Clients that have, or still may.
    pub expected: u32,
}

/// Where a server is between two rounds, or in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// It waits for clients before the first round.
    Waiting,
    /// It plans a round: cohort, budget, signature.
    Planning,
    /// It collects keys, in a masked round while clients train.
    Keys,
    /// It collects encrypted shares of secrets.
    Shares,
    /// It collects updates, in a masked round masked.
    Collecting,
    /// It collects signatures of the same survivors.
    Consistency,
    /// It collects what takes the masks off the sum.
    Unmasking,
    /// It releases the sum: noise, next model.
    Releasing,
    /// It measures the model and writes the round down.
    Closing,
    /// It says goodbye.
    Over,
}

impl From<Phase> for Doing {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Keys => Doing::Keys,
            Phase::Shares => Doing::Shares,
            Phase::Collecting => Doing::Collecting,
            Phase::Consistency => Doing::Consistency,
            Phase::Reveal => Doing::Unmasking,
            Phase::Releasing => Doing::Releasing,
        }
    }
}

impl Status {
    /// Of a server that waits for `wanted` clients.
    pub fn waiting(wanted: usize) -> Self {
        Status {
            doing: Doing::Waiting,
            round: None,
            asking: false,
            connected: 0,
            wanted,
            invited: 0,
            updates: 0,
            answered: 0,
            expected: 0,
        }
    }
}
