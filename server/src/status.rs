//! What a server is doing, at a glance.

use serde::{Deserialize, Serialize};
use skep_protocol::Round;

/// What a server is doing. It names no client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Where it is between two rounds, or in one.
    pub doing: Doing,
    /// The round that is open, or was last; null before this process has opened one.
    pub round: Option<Round>,
    /// Clients connected.
    pub connected: usize,
    /// Clients that the first round waits for.
    pub wanted: usize,
    /// Clients in the cohort of the round.
    pub invited: u32,
    /// Updates in its sum.
    pub updates: u32,
}

/// Where a server is between two rounds, or in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// It waits for clients before the first round.
    Waiting,
    /// It plans a round: cohort, budget, signature.
    Planning,
    /// It collects updates.
    Collecting,
    /// It releases the sum: noise, next model.
    Releasing,
    /// It measures the model and writes the round down.
    Closing,
    /// It says goodbye.
    Over,
}
