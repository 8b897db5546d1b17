//! A run: the one place where sums become releases with correlated noise.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::BandedMechanism;
use crate::budget::RunCharge;
use crate::grid::{Grid, PrivateGrid};
use crate::prg::{Key, PrgId, Purpose};
use crate::sum::{NOISE_TILE, Sum, add_noise};

/// A sum of another grid cannot be part of the run.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the sum was made on another grid than the run: {found:?} instead of {expected:?}")]
pub struct OtherGrid {
    /// Grid of the run.
    pub expected: PrivateGrid,
    /// Grid of the sum.
    pub found: Grid,
}

/// A run that was paid for, as a whole and in advance. Takes the sum of each step and gives its release.
///
/// It keeps the last p − 1 sums as they are, without noise: 8·(p − 1)·d bytes, wiped as they leave. There is no way to
/// read, copy or store them, so a run that is interrupted has ended; another one is another charge.
pub struct BandedRun {
    mechanism: BandedMechanism,
    step: u64,
    /// The newest first.
    sums: VecDeque<RawSum>,
}

/// A sum without noise, wiped when dropped.
type RawSum = Zeroizing<Vec<i64>>;

impl BandedRun {
    /// Begins the run that the budget was charged for.
    #[must_use]
    pub fn new(charge: RunCharge) -> Self {
        Self { mechanism: charge.into_mechanism(), step: 0, sums: VecDeque::new() }
    }

    /// Number of releases so far, which is also the number of the next step.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.step
    }

    /// Ends a step: y_t = Σ_j a_j·G_{t−j} + z_t.
    ///
    /// A step in which nobody took part has an empty sum, and is released like any other. The key must be fresh and
    /// secret, as for [`Sum::release`]; steps of one run draw apart even from the same key.
    ///
    /// # Errors
    /// [`OtherGrid`] when the sum is of another grid; the sum is lost then, and the step has not ended.
    pub fn release(&mut self, sum: Sum, noise: &Key, generator: PrgId) -> Result<BandedRelease, OtherGrid> {
        let grid = self.mechanism.grid();
        if sum.grid() != grid.into() {
            return Err(OtherGrid { expected: grid, found: sum.grid() });
        }
        self.sums.push_front(Zeroizing::new(sum.into_coordinates()));
        let coefficients = self.mechanism.matrix().coefficients();
        let mut coordinates = combine(coefficients, &self.sums, grid.dimension());
        self.sums.truncate(coefficients.len() - 1);
        let key = noise.derive(Purpose::Noise, self.step, 0);
        add_noise(&mut coordinates, self.mechanism.sigma(), &key, generator);
        let release = BandedRelease { coordinates, step: self.step, grid };
        self.step += 1;
        Ok(release)
    }
}

/// What the world may see of one step: a weighted sum of sums, with its noise, in units of 2⁻¹² grid steps.
#[derive(Debug, Clone, PartialEq)]
pub struct BandedRelease {
    pub(super) coordinates: Vec<i64>,
    pub(super) step: u64,
    pub(super) grid: PrivateGrid,
}

impl BandedRelease {
    /// The noised integers, d of them.
    #[must_use]
    pub fn coordinates(&self) -> &[i64] {
        &self.coordinates
    }

    /// The step, from 0.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.step
    }
}

/// Σ_j a_j·G_{t−j}, the newest sum first. [`BandedMechanism::new`] has made sure that it fits.
pub(super) fn combine(coefficients: &[i64], sums: &VecDeque<RawSum>, dimension: usize) -> Vec<i64> {
    let mut combined = vec![0; dimension];
    for (index, tile) in combined.chunks_mut(NOISE_TILE).enumerate() {
        for (&a, sum) in coefficients.iter().zip(sums) {
            for (y, &g) in tile.iter_mut().zip(&sum[index * NOISE_TILE..]) {
                *y += a * g;
            }
        }
    }
    combined
}
