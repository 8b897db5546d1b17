//! A participant of a federation.
//!
//! In here: local training of a round's update, which needs neither socket nor clock and is the same in a
//! simulation, and the shell that drives the client machine of [`skep_protocol::round::client`] over a TLS websocket.
//! Not in here: what is learned (`skep-learning`), how updates are hidden (`skep-privacy`), when to say what
//! (`skep-protocol`), how a client gets its identity ([`skep_protocol::net::enrolment`]).

mod backoff;
pub mod command;
mod credentials;
mod download;
mod driver;
pub mod example_privacy;
pub mod guard;
pub mod held_out;
pub mod join;
pub mod masking;
pub mod participations;
pub mod policy;
pub mod privacy_policy;
mod session;
pub mod store;
pub mod task;
pub mod terms;
pub mod trainer;
mod weighing;
pub mod weights;
