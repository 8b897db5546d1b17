//! Training without sampling: noise that is correlated between the steps of a run, so that much of it cancels in sums.
//!
//! A device that comes when it likes gives no amplification by sampling. A matrix mechanism (Denisov, McMahan, Rush, Smith
//! and Thakurta, arXiv 2202.08312; DP-FTRL) makes up for it: what counts for a model is not one sum G_t but the sum of all
//! so far, and noise can be shaped so that little of it is left there.
//!
//! ```text
//! BandedSquareRoot ─▶ BandedMechanism ─ charge_run ─▶ RunCharge ─▶ BandedRun
//! each step:   Sum ─ BandedRun::release ─▶ BandedRelease ─ Decoder::decode ─▶ noisy sum
//! ```
//!
//! # The mechanism
//!
//! In step t the run releases y_t = Σ_j a_j·G_{t−j} + z_t, with the sums as integers, coefficients a_0, …, a_{p−1} that are
//! integers too, and z_t = ⌊σN⌉ drawn anew in every coordinate. That is y = A·G + z with a lower-triangular Toeplitz matrix
//! A of p bands. Solving for G, which anyone can do, gives sums with the noise A⁻¹z: the same as adding correlated noise, but
//! the proof rests on integers alone.
//!
//! # Why it is private
//!
//! A member takes part in at most k steps, and two of them are at least b apart: a [`Participation`]. Take it away and G
//! loses updates u_i, of norm at most S, in those steps, so A·G changes by Σ_i A[·, t_i]·u_iᵀ. Column t of A is zero but for
//! the rows t to t + p − 1. With p ≤ b no two of the columns share a row, whatever the u_i are, and
//!
//! ‖Σ_i A[·, t_i]·u_iᵀ‖² = Σ_i ‖A[·, t_i]‖²·‖u_i‖² ≤ k·‖a‖²·S².
//!
//! So the whole run is *one* Gaussian mechanism of sensitivity √k·‖a‖·S, rounded (Choquette-Choo et al., arXiv 2306.08153). It
//! stays so when updates depend on earlier releases: what a release has of the member, Σ_j a_j·u_{t−j}, follows from the past
//! because A is lower triangular, so each release is a Gaussian mechanism, and the squares of their sensitivities add up to
//! the above whatever happens (Smith and Thakurta, arXiv 2210.17520). Where p > b columns may overlap, and the bound is
//! refused.
//!
//! # What is promised, and against whom
//!
//! The epsilon of a run holds against whoever sees all its releases, if every member kept to the participation. It
//! promises nothing against the server, which holds the last p − 1 sums without noise until the run ends.
//!
//! [`tree`] accounts for the older tree aggregation, for comparison.

mod banded;
mod decoder;
mod mechanism;
mod participation;
mod run;
pub mod tree;

#[cfg(test)]
mod tests;

pub use banded::{BANDS_MAX, BandedSquareRoot, COEFFICIENT_BITS};
pub use decoder::{DecodeError, Decoder};
pub use mechanism::BandedMechanism;
pub use participation::{PARTICIPATIONS_MAX, Participation};
pub use run::{BandedRelease, BandedRun, OtherGrid};

use crate::quantities::NoiseMultiplier;

/// Why there is no such mechanism.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum MatrixError {
    /// Two participations cannot be in one step.
    #[error("the minimum separation of participations is 0 steps; it must be at least 1")]
    MinSeparation,
    /// Nobody could take part, or the number is too large for the integers of a mechanism.
    #[error("a member may take part {max_participations} times; it must be 1 to 65535")]
    MaxParticipations {
        /// The refused number k.
        max_participations: u32,
    },
    /// No bands, or more than [`BANDS_MAX`].
    #[error("a matrix of {bands} bands cannot be used; there must be 1 to 4096")]
    Bands {
        /// The refused number p.
        bands: usize,
    },
    /// Columns of one member would overlap, and the sensitivity is no longer √k·‖a‖.
    #[error(
        "{bands} bands need participations at least {bands} steps apart, but they may be {min_separation} apart; \
         use at most {min_separation} bands"
    )]
    BandsExceedSeparation {
        /// Number of bands p.
        bands: usize,
        /// Minimum separation b.
        min_separation: u64,
    },
    /// The noise is larger than what the sampler draws.
    #[error(
        "noise multiplier {noise_multiplier} is too large for a run of sensitivity {sensitivity}: the product must be below 2^40"
    )]
    NoiseTooLarge {
        /// The refused multiplier.
        noise_multiplier: NoiseMultiplier,
        /// Sensitivity of the run, in 2⁻¹² grid steps.
        sensitivity: u64,
    },
    /// The largest sums do not fit 63 bits once they are multiplied.
    #[error(
        "sums of {cohort_max} updates do not fit a run of {bands} bands; use a smaller cohort or fewer bands"
    )]
    SumTooLarge {
        /// Largest cohort of the grid.
        cohort_max: u32,
        /// Number of bands p.
        bands: usize,
    },
}
