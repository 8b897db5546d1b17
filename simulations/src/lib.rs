//! The laboratory: a whole federation in one process, under virtual time and a seed.
//!
//! In here: the machines of [`skep_protocol::round`], the federation of `skep-server` and the training of
//! `skep-client`, joined by a network in virtual time; populations, faults, reports. Not in here: a second implementation
//! of anything that a real federation does. What a simulation leaves out is encoding, hashing and signing for each
//! client, and the sockets.
//!
//! ```text
//! schedule ── plan ──▶ round ── events ──▶ ServerMachine
//!    ▲                   │ ◀─▶ network ◀─▶ ClientMachine of each invited client
//!    │                   │ ── due updates ──▶ workers ── jobs ──▶ participants
//!    ╰────── record ─────╯
//! ```

mod attack;
mod audit;
mod availability;
mod bench;
mod buffer;
mod checkpoint;
mod clients;
mod data;
mod devices;
mod error;
mod fault;
mod held_out;
mod holdings;
#[cfg(test)]
mod masked_scenarios;
mod membership;
mod memory;
mod network;
mod parallel;
mod participants;
pub mod population;
mod private_layers;
mod query;
mod round;
#[cfg(test)]
mod scenarios;
mod schedule;
mod seat;
mod simulate;
mod statistics;
mod table;
mod test_set;
#[cfg(test)]
mod testing;
mod text;
mod vocabulary;
mod workers;

pub use attack::backdoor_success;
pub use audit::{AuditError, AuditOptions, AuditReport, CONFIDENCE, CosineEvidence, audit};
pub use availability::TraceError;
pub use bench::{BenchReport, Rounds, Stage, bench};
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, Resume};
pub use clients::{Clients, LabelCounts};
pub use error::SimulationError;
pub use fault::{Corruption, Fault, FaultError, FaultKind, Moment};
pub use holdings::Holdings;
pub use membership::{MembershipError, MembershipReport, membership};
pub use schedule::{Ended, SimulationReport};
pub use simulate::{SimulationOptions, check_simulation, simulate, simulate_clients};
pub use statistics::{Bounds, SurveyError, Surveyed, survey};
pub use test_set::TestSet;
pub use text::{TextDataError, inspect_texts};
pub use vocabulary::{Elected, Election, ElectionError, elect_vocabulary};
