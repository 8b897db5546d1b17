//! Exact noise, accounting and budgets for differential privacy, on plain vectors.
//!
//! This crate knows no client, round, socket, clock or file.

pub mod accounting;
pub mod adaptive_clip;
pub mod budget;
pub mod grid;
pub mod layer_clip;
pub mod mechanism;
pub mod packing;
pub mod prg;
pub mod quantities;
pub mod rotation;
mod rounding;
pub mod sampler;
pub mod sum;
pub mod update;
