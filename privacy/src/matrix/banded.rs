//! The banded square root: the coefficients of the matrix, what they cost and what they are worth.
//!
//! Kalinin and Lampert (arXiv 2405.13763): the matrix that sums up, all ones on and below the diagonal, has a Toeplitz
//! square root with the coefficients of (1 − x)^(−1/2), c_0 = 1 and c_j = c_{j−1}·(2j − 1)/2j. Its first p bands are close
//! to the best p-banded matrix, without an optimiser.
//!
//! # Rounded coefficients
//!
//! The mechanism uses the integers a_j = ⌊2¹²·c_j⌉. They *are* the mechanism: sensitivity and error are computed from them,
//! so their rounding costs no privacy and needs no allowance. What it changes is bounded by the triangle inequality,
//! |‖a‖/2¹² − ‖c‖| ≤ ‖a/2¹² − c‖ ≤ √(p − 1)·2⁻¹³, since each of the p − 1 last coefficients moves by at most 2⁻¹³ and the
//! first not at all.
//!
//! The a_j are positive, never rise, and a_0 > a_1, so all zeros of Σ a_j·x^j lie outside the unit circle (Eneström and
//! Kakeya): forward substitution is stable.

use super::{MatrixError, Participation};
use crate::accounting::Event;
use crate::quantities::NoiseMultiplier;

/// Binary digits after the point of a coefficient.
pub const COEFFICIENT_BITS: u32 = 12;

/// Most bands; beyond this the last coefficients have less than five digits left.
pub const BANDS_MAX: usize = 4096;

/// The first p bands of the square root, for a participation with p ≤ b.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BandedSquareRoot {
    coefficients: Vec<i64>,
    participation: Participation,
}

impl BandedSquareRoot {
    /// Keeps the given number of bands p, 1 to [`BANDS_MAX`]. One band is independent noise.
    ///
    /// # Errors
    /// [`MatrixError::Bands`] when p is out of range, [`MatrixError::BandsExceedSeparation`] when p > b.
    pub fn new(bands: usize, participation: Participation) -> Result<Self, MatrixError> {
        if bands == 0 || bands > BANDS_MAX {
            return Err(MatrixError::Bands { bands });
        }
        let min_separation = participation.min_separation();
        if bands as u64 > min_separation {
            return Err(MatrixError::BandsExceedSeparation { bands, min_separation });
        }
        Ok(Self { coefficients: coefficients(bands), participation })
    }

    /// Number of bands p.
    #[must_use]
    pub fn bands(&self) -> usize {
        self.coefficients.len()
    }

    /// How often members may take part.
    #[must_use]
    pub const fn participation(&self) -> Participation {
        self.participation
    }

    /// The a_j in units of 2⁻¹², p of them; the first is 2¹².
    #[must_use]
    pub fn coefficients(&self) -> &[i64] {
        &self.coefficients
    }

    /// √k·‖a‖/2¹²: how much farther one member moves a run than one sum. Rounded up.
    #[must_use]
    pub fn sensitivity_factor(&self) -> f64 {
        // The integer is below 2^53, and dividing by a power of two is exact, so only the root is rounded.
        ((self.squared_sensitivity() as f64).sqrt() / SCALE as f64).next_up()
    }

    /// The whole run as the accountant sees it, with noise of `noise_multiplier` times the clip norm on each release.
    #[must_use]
    pub fn event(&self, noise_multiplier: NoiseMultiplier) -> Event {
        let of_the_run = (noise_multiplier.get() / self.sensitivity_factor()).next_down();
        match NoiseMultiplier::new(of_the_run) {
            Ok(noise_multiplier) => Event::Gaussian { noise_multiplier },
            Err(_) => Event::NonPrivate,
        }
    }

    /// The first `steps` coefficients of the inverse: the noise of decoded sum t is Σ_j inverse_j·z_{t−j}.
    #[must_use]
    pub fn inverse(&self, steps: usize) -> Vec<f64> {
        let mut inverse: Vec<f64> = Vec::with_capacity(steps);
        for step in 0..steps {
            let known = if step == 0 { 1.0 } else { 0.0 };
            let earlier = inverse.iter().rev().zip(&self.coefficients[1..]);
            let rest: f64 = earlier.map(|(&value, &a)| value * a as f64 / SCALE as f64).sum();
            inverse.push(known - rest);
        }
        inverse
    }

    /// Root mean square error of a coordinate of the sums so far, over the steps of a run, in clip norms.
    ///
    /// `noise_multiplier` is that of the whole run, so runs with the same one are equally private.
    #[must_use]
    pub fn prefix_sum_rmse(&self, steps: usize, noise_multiplier: NoiseMultiplier) -> f64 {
        let mut of_sums = 0.0;
        let weights = (1..=steps).rev();
        let squares = self.inverse(steps).into_iter().zip(weights).map(|(value, steps_left)| {
            of_sums += value;
            of_sums * of_sums * steps_left as f64
        });
        let mean = squares.sum::<f64>() / steps as f64;
        noise_multiplier.get() * self.sensitivity_factor() * mean.sqrt()
    }

    /// k·Σa_j², below 2⁴⁴.
    pub(super) fn squared_sensitivity(&self) -> u64 {
        let norm: u64 = self.coefficients.iter().map(|a| a.unsigned_abs().pow(2)).sum();
        norm * u64::from(self.participation.max_participations())
    }

    /// Σa_j, below 2²⁰.
    pub(super) fn coefficient_sum(&self) -> u64 {
        self.coefficients.iter().map(|a| a.unsigned_abs()).sum()
    }
}

/// One, as a coefficient.
pub(super) const SCALE: i64 = 1 << COEFFICIENT_BITS;

/// ⌊2¹²·c_j⌉, in integers so that every machine gets the same.
///
/// c_j is carried with 64 digits after the point, rounded down; after 4096 steps it is low by less than 2⁻⁵².
fn coefficients(bands: usize) -> Vec<i64> {
    const DROPPED: u32 = 64 - COEFFICIENT_BITS;
    let mut value = 1_u128 << 64;
    (0..bands as u128)
        .map(|j| {
            if j > 0 {
                value = value * (2 * j - 1) / (2 * j);
            }
            ((value + (1 << (DROPPED - 1))) >> DROPPED) as i64
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests;
