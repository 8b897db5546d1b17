//! What tests of more than one crate share: a scripted network for both machines of the round, plans to put
//! into it, and the statistics that judge noise.

pub mod plans;
pub mod scripted;
