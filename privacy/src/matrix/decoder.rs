//! From the releases of a run back to noisy sums: post-processing that anyone can do.

use std::collections::VecDeque;

use super::banded::SCALE;
use super::{BandedMechanism, BandedRelease};
use crate::grid::PrivateGrid;

/// A release that cannot be decoded now.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Releases build on one another.
    #[error(
        "release {found} was given where release {expected} is next; decode the releases of a run in order"
    )]
    OutOfOrder {
        /// The step that is next.
        expected: u64,
        /// The step of the release.
        found: u64,
    },
    /// The release belongs to another run.
    #[error("the release was made on another grid than the run: {found:?} instead of {expected:?}")]
    OtherGrid {
        /// Grid of the run.
        expected: PrivateGrid,
        /// Grid of the release.
        found: PrivateGrid,
    },
}

/// Forward substitution: Ĝ_t = (y_t − Σ_{j≥1} a_j·Ĝ_{t−j})/a_0.
///
/// Works in doubles, which is harmless after the noise; it is exact while numbers stay below 2⁵³ and whole. Keeps the last
/// p − 1 decoded sums: 8·(p − 1)·d bytes, none of them secret.
#[derive(Debug, Clone)]
pub struct Decoder {
    coefficients: Vec<f64>,
    grid: PrivateGrid,
    step: u64,
    /// In grid steps, the newest first.
    decoded: VecDeque<Vec<f64>>,
}

impl Decoder {
    /// The decoder at the start of a run.
    #[must_use]
    pub fn new(mechanism: &BandedMechanism) -> Self {
        let coefficients = mechanism.matrix().coefficients().iter().map(|&a| a as f64).collect();
        Self { coefficients, grid: mechanism.grid(), step: 0, decoded: VecDeque::new() }
    }

    /// The noisy sum of the step, in the unit of the parameters. A clipping bit, if the grid has one, is left out.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not the next release of the run; nothing has changed then.
    pub fn decode(&mut self, release: &BandedRelease) -> Result<Vec<f64>, DecodeError> {
        if release.grid != self.grid {
            return Err(DecodeError::OtherGrid { expected: self.grid, found: release.grid });
        }
        if release.step != self.step {
            return Err(DecodeError::OutOfOrder { expected: self.step, found: release.step });
        }
        let sum = self.substitute(&release.coordinates);
        let grid_step = self.grid.step();
        let parameters = sum[..self.grid.parameters()].iter().map(|value| value * grid_step).collect();
        self.decoded.push_front(sum);
        self.decoded.truncate(self.coefficients.len() - 1);
        self.step += 1;
        Ok(parameters)
    }

    /// Ĝ_t in grid steps.
    fn substitute(&self, coordinates: &[i64]) -> Vec<f64> {
        let mut sum: Vec<f64> = coordinates.iter().map(|&y| y as f64).collect();
        for (index, tile) in sum.chunks_mut(TILE).enumerate() {
            for (a, earlier) in self.coefficients[1..].iter().zip(&self.decoded) {
                for (value, known) in tile.iter_mut().zip(&earlier[index * TILE..]) {
                    *value -= a * known;
                }
            }
            tile.iter_mut().for_each(|value| *value /= SCALE as f64);
        }
        sum
    }
}

/// Coordinates that fit the fastest cache of a processor. Does not change the result.
const TILE: usize = 4096;
