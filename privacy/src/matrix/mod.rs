//! Correlated noise over rounds, for training without secret sampling (the matrix mechanism).
//!
//! Rounds see Cx + z instead of x + z for a lower-triangular matrix C, and releases are C⁻¹(Cx + z) = x + C⁻¹z: later
//! noise cancels a part of earlier noise, so that running sums, which are what a model is made of, carry less of it. All
//! rounds together are one Gaussian mechanism whose sensitivity is that of Cx. That holds however clients come and go,
//! as long as nobody takes part too often or too soon again.

pub mod banded;
pub mod tree;

use crate::quantities::{NoiseMultiplier, QuantityError};

/// How often and how soon one member may take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participation {
    /// Most rounds that one member joins, at least 1.
    pub most: u64,
    /// Least distance of two rounds that one member joins, at least 1.
    pub separation: u64,
}

impl Participation {
    /// Checks both numbers.
    ///
    /// # Errors
    /// [`QuantityError::OutOfRange`] when one is 0.
    pub fn new(most: u64, separation: u64) -> Result<Self, QuantityError> {
        for (parameter, value) in
            [("most participations", most), ("separation of participations", separation)]
        {
            if value == 0 {
                return Err(QuantityError::OutOfRange { parameter, value: 0.0, range: "at least 1" });
            }
        }
        Ok(Self { most, separation })
    }
}

/// The noise multiplier of the one Gaussian that a whole run is: noise over clip norm, over the norm of Cx that one
/// member can make.
///
/// # Errors
/// [`QuantityError`] when the quotient is no noise multiplier.
pub fn effective_noise(
    noise_multiplier: NoiseMultiplier,
    sensitivity: f64,
) -> Result<NoiseMultiplier, QuantityError> {
    NoiseMultiplier::new(noise_multiplier.get() / sensitivity)
}
