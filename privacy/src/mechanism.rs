//! How a release hides its members, in the integers that accounting, clients and auditors agree on.

use crate::quantities::NoiseMultiplier;

/// What is added to a sum before anyone reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Nothing. Promises nothing.
    None,
    /// The nearest integer to a normal variable, in every coordinate.
    ///
    /// The sum x is integer, so x + ⌊N⌉ = ⌊x + N⌉: the release is the continuous Gaussian mechanism followed by
    /// rounding, and every bound for the former holds, in any dimension.
    RoundedGaussian {
        /// Largest L2 norm of what one member adds, in grid steps.
        sensitivity: u64,
        /// Standard deviation of the normal variable, in grid steps.
        sigma: u64,
    },
}

impl Mechanism {
    /// σ/S, rounded down, which is what accounting must use. None for [`Mechanism::None`].
    #[must_use]
    pub fn noise_multiplier(&self) -> Option<NoiseMultiplier> {
        match *self {
            Self::None => None,
            // Both integers are below 2^53, so only the quotient is rounded.
            Self::RoundedGaussian { sensitivity, sigma } => {
                NoiseMultiplier::new((sigma as f64 / sensitivity as f64).next_down()).ok()
            }
        }
    }
}
