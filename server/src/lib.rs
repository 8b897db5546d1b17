//! The coordinator of a federation.
//!
//! [`Federation`](federation::Federation) holds everything that is decided: cohort, budget, plan, sum, release, model.
//! It has no sockets, clocks or files, and knows flat parameters only.
//! [`Authority`](authority::Authority) is its root of trust, [`Enrolment`](enrolment::Enrolment) its door, and
//! [`serve`](serve::serve) puts all of it on the network.

pub mod authority;
pub mod enrolment;
pub mod evaluate;
pub mod federation;
pub mod journal;
pub mod ledger;
pub mod masking;
pub mod patience;
pub mod record;
pub mod roster;
pub mod select;
pub mod serve;
pub mod stage;
pub mod status;
pub mod strategy;

#[cfg(test)]
mod testing;
