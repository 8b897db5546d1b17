//! The noise of a whole run, in the integers that accounting and auditors agree on.

use super::{BandedSquareRoot, MatrixError};
use crate::accounting::Event;
use crate::grid::PrivateGrid;
use crate::mechanism::{Mechanism, sigma};
use crate::quantities::NoiseMultiplier;

/// Banded square root noise on sums of one grid: everything that fixes the law of a run, and nothing secret.
///
/// Sensitivity and σ are in units of 2⁻¹² grid steps, those of the releases.
#[derive(Debug, Clone, PartialEq)]
pub struct BandedMechanism {
    matrix: BandedSquareRoot,
    grid: PrivateGrid,
    sensitivity: u64,
    sigma: u64,
}

impl BandedMechanism {
    /// A run with at least `noise_multiplier` times its sensitivity of noise: Δ = ⌈√k·‖a‖·S⌉ and σ = ⌈z·Δ⌉.
    ///
    /// # Errors
    /// [`MatrixError::NoiseTooLarge`] when σ is more than the sampler draws, [`MatrixError::SumTooLarge`] when the largest
    /// cohort does not fit the integers of a release.
    pub fn new(
        matrix: BandedSquareRoot,
        grid: PrivateGrid,
        noise_multiplier: NoiseMultiplier,
    ) -> Result<Self, MatrixError> {
        let largest = u128::from(grid.sensitivity())
            * u128::from(grid.cohort_max())
            * u128::from(matrix.coefficient_sum());
        if largest > LARGEST_WITHOUT_NOISE {
            return Err(MatrixError::SumTooLarge { cohort_max: grid.cohort_max(), bands: matrix.bands() });
        }
        let sensitivity =
            ceil_sqrt(u128::from(matrix.squared_sensitivity()) * u128::from(grid.sensitivity()).pow(2));
        match sigma(noise_multiplier.get(), sensitivity) {
            Some(sigma) => Ok(Self { matrix, grid, sensitivity, sigma }),
            None => Err(MatrixError::NoiseTooLarge { noise_multiplier, sensitivity }),
        }
    }

    /// The matrix.
    #[must_use]
    pub const fn matrix(&self) -> &BandedSquareRoot {
        &self.matrix
    }

    /// The grid of every sum of the run.
    #[must_use]
    pub const fn grid(&self) -> PrivateGrid {
        self.grid
    }

    /// Largest L2 norm by which one member moves all releases of the run together, Δ; below 2⁵³.
    #[must_use]
    pub const fn sensitivity(&self) -> u64 {
        self.sensitivity
    }

    /// Standard deviation of the normal variable behind every z_t.
    #[must_use]
    pub const fn sigma(&self) -> u64 {
        self.sigma
    }

    /// The whole run as the accountant sees it: one Gaussian of multiplier σ/Δ, rounded down.
    #[must_use]
    pub fn event(&self) -> Event {
        let rounded = Mechanism::RoundedGaussian { sensitivity: self.sensitivity, sigma: self.sigma };
        rounded
            .noise_multiplier()
            .map_or(Event::NonPrivate, |noise_multiplier| Event::Gaussian { noise_multiplier })
    }
}

const fn ceil_sqrt(n: u128) -> u64 {
    let root = n.isqrt() as u64;
    root + ((root as u128).pow(2) < n) as u64
}

/// Leaves half of the range of an integer to the noise.
const LARGEST_WITHOUT_NOISE: u128 = 1 << 62;
