//! The updates of a cohort one by one, for aggregates that do not follow from a sum: medians, distances, votes.
//!
//! ```text
//! Contribution ── add ──▶ KeptUpdates ── release(charge) ──▶ ReleasedUpdates
//! ```
//!
//! Like a [`Sum`](crate::sum::Sum), what is kept has no reader. A charge opens it only where each update may be seen as it is:
//! nothing is promised, or each carries all of its noise, so that whatever is made of them costs nothing more.

use std::fmt;

use crate::budget::Charge;
use crate::client_noise::{ClientNoise, Contribution};
use crate::grid::Grid;
use crate::mechanism::Mechanism;
use crate::sum::{ReleaseError, SumError};

/// Verified updates of one grid, not added up: memory is 4 bytes a coordinate and update.
#[derive(Clone)]
pub struct KeptUpdates {
    updates: Vec<Vec<i32>>,
    grid: Grid,
}

impl KeptUpdates {
    /// No updates yet, of this grid.
    #[must_use]
    pub const fn new(grid: Grid) -> Self {
        Self { updates: Vec::new(), grid }
    }

    /// Number of updates so far.
    #[must_use]
    pub fn members(&self) -> u32 {
        u32::try_from(self.updates.len()).expect("no more than the grid's largest cohort are kept")
    }

    /// Keeps one more.
    ///
    /// # Errors
    /// [`SumError::OtherGrid`], [`SumError::CohortFull`].
    pub fn add(&mut self, update: &Contribution) -> Result<(), SumError> {
        if *update.grid() != self.grid {
            return Err(SumError::OtherGrid { expected: self.grid, found: *update.grid() });
        }
        let cohort_max = self.grid.cohort_max();
        if self.members() == cohort_max {
            return Err(SumError::CohortFull { cohort_max });
        }
        self.updates.push(update.coordinates().to_vec());
        Ok(())
    }

    /// Opens the updates, in an order that does not depend on who came first.
    ///
    /// # Errors
    /// [`ReleaseError::Individual`] where the charge is for noise on a sum: it hides no single update.
    /// [`ReleaseError::TooFewUpdates`], [`ReleaseError::OtherNoise`], [`ReleaseError::Sensitivity`] where it is for others.
    pub fn release(mut self, charge: Charge) -> Result<ReleasedUpdates, ReleaseError> {
        match (charge.mechanism(), self.grid) {
            (Mechanism::None, Grid::Public(_)) => {}
            (Mechanism::LocalGaussian { sigma, least_updates, .. }, Grid::Noised(grid)) => {
                if grid.noise() != (ClientNoise::Full { sigma }) {
                    return Err(ReleaseError::OtherNoise);
                }
                let members = self.members();
                if members < least_updates {
                    return Err(ReleaseError::TooFewUpdates { members, least: least_updates });
                }
            }
            _ => return Err(ReleaseError::Individual),
        }
        let (charged, tested) = (charge.mechanism().sensitivity(), self.grid.sensitivity());
        if charged != tested {
            return Err(ReleaseError::Sensitivity { charged, tested });
        }
        self.updates.sort_unstable();
        Ok(ReleasedUpdates { updates: self.updates, grid: self.grid })
    }
}

impl fmt::Debug for KeptUpdates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptUpdates").field("members", &self.updates.len()).finish_non_exhaustive()
    }
}

/// The updates of a cohort, each as it may be seen, in ascending order of their coordinates.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleasedUpdates {
    updates: Vec<Vec<i32>>,
    grid: Grid,
}

impl ReleasedUpdates {
    /// Each update's parameters in grid steps.
    #[must_use]
    pub fn parameters(&self) -> Vec<&[i32]> {
        self.updates.iter().map(|update| &update[..self.grid.parameters()]).collect()
    }

    /// One grid step in units of the parameters.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.grid.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::BudgetKeeper;
    use crate::grid::{PrivateGrid, PublicGrid};
    use crate::quantities::{Adjacency, ClipNorm, Delta, NoiseMultiplier, Sampling};
    use crate::update::QuantizedUpdate;

    fn kept(grid: Grid, updates: &[[i32; 2]]) -> KeptUpdates {
        let mut kept = KeptUpdates::new(grid);
        for update in updates {
            kept.add(&QuantizedUpdate::verify(update.to_vec(), &grid).unwrap().into()).unwrap();
        }
        kept
    }

    fn charge(mechanism: Mechanism) -> Charge {
        let mut keeper = match mechanism {
            Mechanism::None => BudgetKeeper::without_promise(),
            _ => BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), None),
        };
        let reservation = keeper.reserve(1, mechanism, Sampling::All).unwrap();
        keeper.settle(reservation)
    }

    #[test]
    fn without_a_promise_all_are_seen_whoever_came_first() {
        let grid = Grid::from(PublicGrid::new(2, 3).unwrap());
        let [mut early, mut late] = [kept(grid, &[[3, 1], [-2, 5]]), kept(grid, &[[-2, 5], [3, 1]])];
        let more = QuantizedUpdate::verify(vec![3, 0], &grid).unwrap().into();
        early.add(&more).unwrap();
        late.add(&more).unwrap();
        assert_eq!(early.add(&more), Err(SumError::CohortFull { cohort_max: 3 }));
        let released = early.release(charge(Mechanism::None)).unwrap();
        assert_eq!(released.parameters(), [[-2, 5], [3, 0], [3, 1]]);
        assert_eq!(released, late.release(charge(Mechanism::None)).unwrap());
    }

    #[test]
    fn noise_on_a_sum_opens_no_single_update() {
        let grid = PrivateGrid::new(ClipNorm::new(1.0).unwrap(), 2, 3).unwrap();
        let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(1.0).unwrap(), &grid).unwrap();
        assert_eq!(kept(grid.into(), &[[1, 1]]).release(charge(noise)), Err(ReleaseError::Individual));
        // Nor does no charge for noise open what was made for a private mode.
        assert_eq!(
            kept(grid.into(), &[[1, 1]]).release(charge(Mechanism::None)),
            Err(ReleaseError::Individual)
        );
    }
}
