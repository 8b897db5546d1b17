//! Exact samplers of integer noise: no floating point, no truncation, and no randomness but the generator's.
#![deny(clippy::float_arithmetic)]

mod cells;
pub mod discrete_gaussian;
pub mod discrete_laplace;
pub mod exponential;
pub mod rounded_gaussian;
mod uniform;

#[cfg(test)]
mod statistics;
