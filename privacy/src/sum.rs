//! Adding up a cohort, and the only way to read the result.
//!
//! Integer sums do not depend on order, so any tree of [`Accumulator`]s gives the same bits. A [`Sum`] has no reader: it
//! turns into a [`Release`] by a [`Charge`] of the budget, with the noise that was paid for.

use std::fmt;
use std::sync::{LazyLock, Mutex};
use std::thread::{self, Builder};

use zeroize::Zeroize;

use crate::budget::Charge;
use crate::client_noise::{ClientNoise, Contribution, NoisedUpdate, centred};
use crate::grid::Grid;
use crate::ledger::Recipient;
use crate::mechanism::{Mechanism, SIGMA_MAX};
use crate::prg::{Key, PrgId};
use crate::sampler::rounded_gaussian;
use crate::update::QuantizedUpdate;
use crate::vectorize::vectorize;

/// Why something was not added.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SumError {
    /// The plan's largest cohort is already in the sum.
    #[error("the sum has room for {cohort_max} updates, and this would be one more")]
    CohortFull {
        /// Largest number of updates.
        cohort_max: u32,
    },
    /// Updates of different grids cannot be added.
    #[error("the update was made for another grid than the sum: {found:?} instead of {expected:?}")]
    OtherGrid {
        /// Grid of the sum.
        expected: Grid,
        /// Grid of what should be added.
        found: Grid,
    },
    /// The vector has another length than the grid.
    #[error("the unmasked sum has {found} coordinates instead of {expected}")]
    Length {
        /// Coordinates of the grid.
        expected: usize,
        /// Coordinates given.
        found: usize,
    },
    /// The sum is known modulo another power of two than that of the grid.
    #[error("the unmasked sum is modulo 2^{found}, but the grid's is modulo 2^{expected}")]
    Modulus {
        /// b of the grid.
        expected: u32,
        /// b of the sum.
        found: u32,
    },
}

/// Why a sum was not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The budget was charged for another sensitivity than the updates were tested for.
    #[error("the budget was charged for sensitivity {charged:?}, but the updates were tested for {tested:?}")]
    Sensitivity {
        /// S of the mechanism that was paid for; none for mode `none`.
        charged: Option<u64>,
        /// S of the grid; none for mode `none`.
        tested: Option<u64>,
    },
    /// The budget was charged for more noise than the sampler draws.
    #[error("the budget was charged for noise of {sigma} grid steps, but at most 1099511627775 are drawn")]
    Sigma {
        /// Standard deviation in grid steps.
        sigma: u64,
    },
    /// The mechanism needs noise, and no key was given.
    #[error("the budget was charged for noise, so the sum cannot be released without")]
    NoiseRequired,
    /// The budget was charged for another noise than the clients have added.
    #[error("the budget was charged for another noise than the clients have added")]
    OtherNoise,
    /// Single updates may not be seen.
    #[error("the budget was charged for noise on a sum, which hides no single update")]
    Individual,
    /// With so few updates there is less noise in the sum than the budget was charged for.
    #[error("the sum has {members} updates, but the budget was charged for the noise of at least {least}")]
    TooFewUpdates {
        /// Updates in the sum.
        members: u32,
        /// The fewest that the mechanism counts on.
        least: u32,
    },
}

/// What can be added to a sum: integers on a grid.
pub trait Summand {
    /// The integers.
    fn coordinates(&self) -> &[i32];
    /// The grid they count steps of.
    fn grid(&self) -> Grid;
}

impl Summand for QuantizedUpdate {
    fn coordinates(&self) -> &[i32] {
        self.coordinates()
    }

    fn grid(&self) -> Grid {
        *self.grid()
    }
}

impl Summand for NoisedUpdate {
    fn coordinates(&self) -> &[i32] {
        self.coordinates()
    }

    fn grid(&self) -> Grid {
        (*self.grid()).into()
    }
}

impl Summand for Contribution {
    fn coordinates(&self) -> &[i32] {
        self.coordinates()
    }

    fn grid(&self) -> Grid {
        *self.grid()
    }
}

/// A running sum of verified updates: one 64-bit integer a coordinate.
///
/// It cannot overflow: the grid bounds a coordinate, and the cohort is bounded here. Hidden by `Debug`, because what it
/// holds has no noise yet.
#[derive(Clone)]
pub struct Accumulator {
    coordinates: Vec<i64>,
    members: u32,
    grid: Grid,
}

impl Accumulator {
    /// The empty sum of updates on this grid.
    #[must_use]
    pub fn new(grid: Grid) -> Self {
        Self { coordinates: vec![0; grid.dimension()], members: 0, grid }
    }

    /// Number of updates added so far.
    #[must_use]
    pub const fn members(&self) -> u32 {
        self.members
    }

    /// Adds one update.
    ///
    /// # Errors
    /// [`SumError`]; the sum has not changed.
    pub fn add(&mut self, update: &impl Summand) -> Result<(), SumError> {
        self.add_all(std::slice::from_ref(update))
    }

    /// Adds several updates. While they are in the cache, four at once take little longer than one: most of the work is to fetch
    /// the sum and to put it back.
    ///
    /// # Errors
    /// [`SumError`]; the sum has not changed.
    pub fn add_all(&mut self, updates: &[impl Summand]) -> Result<(), SumError> {
        updates.iter().try_for_each(|update| self.admit(&update.grid(), 0))?;
        self.admit(&self.grid.clone(), u32::try_from(updates.len()).unwrap_or(u32::MAX))?;
        let (fours, rest) = updates.as_chunks();
        fours.iter().for_each(|four| self.put(add_four, four.each_ref().map(Summand::coordinates)));
        rest.iter().for_each(|update| self.put(add, update.coordinates()));
        Ok(())
    }

    fn put<T>(&mut self, add: impl FnOnce(&mut [i64], T) -> bool, terms: T) {
        let overflow = add(&mut self.coordinates, terms);
        assert!(!overflow, "grid and cohort bound every sum");
    }

    /// Adds another running sum.
    ///
    /// # Errors
    /// [`SumError`]; this sum has not changed.
    pub fn merge(&mut self, other: Self) -> Result<(), SumError> {
        let is_empty = self.members == 0;
        self.admit(&other.grid, other.members)?;
        match is_empty {
            true => self.coordinates = other.coordinates,
            false => self.put(add_sum, &other.coordinates[..]),
        }
        Ok(())
    }

    /// Ends the addition. Under masks the sum is known modulo 2ᵇ only, so that is what it becomes here, too.
    #[must_use]
    pub fn finish(mut self) -> Sum {
        if let Some(bits) = self.grid.modulus_bits() {
            self.coordinates.iter_mut().for_each(|sum| *sum = i64::from(centred(*sum, bits)));
        }
        Sum { coordinates: self.coordinates, members: self.members, grid: self.grid }
    }

    fn admit(&mut self, grid: &Grid, members: u32) -> Result<(), SumError> {
        if *grid != self.grid {
            return Err(SumError::OtherGrid { expected: self.grid, found: *grid });
        }
        let cohort_max = self.grid.cohort_max();
        match self.members.checked_add(members) {
            Some(total) if total <= cohort_max => self.members = total,
            _ => return Err(SumError::CohortFull { cohort_max }),
        }
        Ok(())
    }
}

vectorize! {
    /// Adds coordinate by coordinate; whether a sum has overflowed, tested once so that the loop can be a wide one.
    fn add(sums: &mut [i64], coordinates: &[i32]) -> bool {
        let signs = sums.iter_mut().zip(coordinates).fold(0, |signs, (sum, &q)| {
            let (before, q) = (*sum, i64::from(q));
            *sum = before.wrapping_add(q);
            // Negative where the sum has another sign than both of its terms.
            signs | ((before ^ *sum) & (q ^ *sum))
        });
        signs < 0
    }
}

vectorize! {
    /// The same of four updates.
    fn add_four(sums: &mut [i64], updates: [&[i32]; 4]) -> bool {
        let [a, b, c, d] = updates;
        let terms = a.iter().zip(b).zip(c).zip(d);
        let signs = sums.iter_mut().zip(terms).fold(0, |signs, (sum, (((&a, &b), &c), &d))| {
            let (before, q) = (*sum, i64::from(a).wrapping_add(b.into()).wrapping_add(c.into()).wrapping_add(d.into()));
            *sum = before.wrapping_add(q);
            signs | ((before ^ *sum) & (q ^ *sum))
        });
        signs < 0
    }
}

vectorize! {
    /// The same of another sum.
    fn add_sum(sums: &mut [i64], other: &[i64]) -> bool {
        let signs = sums.iter_mut().zip(other).fold(0, |signs, (sum, &q)| {
            let before = *sum;
            *sum = before.wrapping_add(q);
            signs | ((before ^ *sum) & (q ^ *sum))
        });
        signs < 0
    }
}

impl fmt::Debug for Accumulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accumulator").field("members", &self.members).finish_non_exhaustive()
    }
}

/// The sum of a cohort: exact or, where clients add noise, with theirs. Nobody can read it; a charge to the budget
/// releases it.
pub struct Sum {
    coordinates: Vec<i64>,
    members: u32,
    grid: Grid,
}

impl Sum {
    /// The sum that unmasking a cohort's contributions has given: of each coordinate the residue modulo 2ᵇ, or 2³² on a grid
    /// without masks; higher bits are not looked at. It is what an [`Accumulator`] of the same contributions finishes with.
    ///
    /// # Errors
    /// [`SumError::Length`], [`SumError::CohortFull`].
    pub(crate) fn unmasked(grid: Grid, residues: &[u32], members: u32) -> Result<Self, SumError> {
        let bits = grid.modulus_bits().unwrap_or(u32::BITS);
        let (expected, found, cohort_max) = (grid.dimension(), residues.len(), grid.cohort_max());
        if expected != found {
            return Err(SumError::Length { expected, found });
        }
        if members > cohort_max {
            return Err(SumError::CohortFull { cohort_max });
        }
        let coordinates = residues.iter().map(|&residue| i64::from(centred(residue.into(), bits))).collect();
        Ok(Self { coordinates, members, grid })
    }

    /// Updates in the sum.
    #[must_use]
    pub const fn members(&self) -> u32 {
        self.members
    }

    /// Adds the sum of another group of the cohort. The result is that of one group of all.
    ///
    /// # Errors
    /// [`SumError`]; both sums are lost then.
    pub fn merge(mut self, other: Self) -> Result<Self, SumError> {
        if other.grid != self.grid {
            return Err(SumError::OtherGrid { expected: self.grid, found: other.grid });
        }
        let cohort_max = self.grid.cohort_max();
        match self.members.checked_add(other.members) {
            Some(total) if total <= cohort_max => self.members = total,
            _ => return Err(SumError::CohortFull { cohort_max }),
        }
        let modulus = self.grid.modulus_bits();
        for (sum, q) in self.coordinates.iter_mut().zip(other.coordinates) {
            *sum += q;
            if let Some(bits) = modulus {
                *sum = i64::from(centred(*sum, bits));
            }
        }
        Ok(self)
    }

    /// Adds the noise that the charge paid for, drawn in tiles from the substreams of `noise` by the plan's generator.
    ///
    /// The key must be fresh and secret: whoever knows it can subtract the noise. Mode `none` draws nothing.
    ///
    /// # Errors
    /// [`ReleaseError`] when the charge does not match the updates or the sampler. The sum is then lost.
    pub fn release(mut self, charge: Charge, noise: &Key, generator: PrgId) -> Result<Release, ReleaseError> {
        let mechanism = charge.mechanism();
        self.check(mechanism)?;
        if let Mechanism::RoundedGaussian { sigma, .. } = mechanism {
            add_noise(&mut self.coordinates, sigma, noise, generator);
        }
        Ok(Release { coordinates: self.coordinates, members: self.members, grid: self.grid })
    }

    /// The same, and the seed and the sum without noise, sealed to an auditor; none where nothing can be sealed to that key.
    ///
    /// # Errors
    /// [`ReleaseError`], as for [`Sum::release`].
    pub fn release_sealed(
        self,
        charge: Charge,
        noise: &Key,
        generator: PrgId,
        auditor: &Recipient,
        ephemeral: &Key,
    ) -> Result<(Release, Option<Vec<u8>>), ReleaseError> {
        let sealed = auditor.seal(ephemeral, noise, generator, &self.coordinates);
        Ok((self.release(charge, noise, generator)?, sealed))
    }

    /// Releases the sum of mode `none` as it is.
    ///
    /// # Errors
    /// [`ReleaseError::NoiseRequired`] when the charge paid for noise, [`ReleaseError::Sensitivity`] when the updates
    /// were made for a private mode.
    pub fn release_exact(self, charge: Charge) -> Result<Release, ReleaseError> {
        match charge.mechanism() {
            Mechanism::None => self.check(Mechanism::None)?,
            _ => return Err(ReleaseError::NoiseRequired),
        }
        Ok(Release { coordinates: self.coordinates, members: self.members, grid: self.grid })
    }

    /// Releases a sum that clients have noised as it is.
    ///
    /// # Errors
    /// [`ReleaseError::NoiseRequired`] when the charge is not for noise from clients, [`ReleaseError::OtherNoise`] when it is for
    /// another one, [`ReleaseError::TooFewUpdates`] when there is less of it. The sum is then lost.
    pub fn release_noised(self, charge: Charge) -> Result<Release, ReleaseError> {
        self.check_noised(charge.mechanism())?;
        Ok(Release { coordinates: self.coordinates, members: self.members, grid: self.grid })
    }

    /// Releases the sums of disjoint groups, which clients have noised, each as it is.
    ///
    /// One charge pays for all, if it counts on the noise of one group only: a client is in one of the sums, its neighbour's
    /// differs in that one, and the others are independent of it, so a release of all is as private as that of the one (parallel
    /// composition; McSherry, SIGMOD 2009, theorem 4). So each must have the updates that the mechanism counts on.
    ///
    /// # Errors
    /// As [`Sum::release_noised`]; all sums are then lost.
    pub fn release_groups(sums: Vec<Sum>, charge: Charge) -> Result<Vec<Release>, ReleaseError> {
        let mechanism = charge.mechanism();
        let release = |sum: Sum| {
            sum.check_noised(mechanism)?;
            Ok(Release { coordinates: sum.coordinates, members: sum.members, grid: sum.grid })
        };
        sums.into_iter().map(release).collect()
    }

    fn check_noised(&self, mechanism: Mechanism) -> Result<(), ReleaseError> {
        let (charged, least) = match mechanism {
            Mechanism::NoiseShares { variance, least_updates, .. } => {
                (ClientNoise::Share(variance), least_updates)
            }
            Mechanism::LocalGaussian { sigma, least_updates, .. } => {
                (ClientNoise::Full { sigma }, least_updates)
            }
            Mechanism::None | Mechanism::RoundedGaussian { .. } => return Err(ReleaseError::NoiseRequired),
        };
        match self.grid {
            Grid::Noised(grid) if grid.noise() == charged => {}
            _ => return Err(ReleaseError::OtherNoise),
        }
        let (sensitivity, tested) = (mechanism.sensitivity(), self.grid.sensitivity());
        if sensitivity != tested {
            return Err(ReleaseError::Sensitivity { charged: sensitivity, tested });
        }
        if self.members < least {
            return Err(ReleaseError::TooFewUpdates { members: self.members, least });
        }
        Ok(())
    }

    /// The grid of the updates.
    pub(crate) const fn grid(&self) -> Grid {
        self.grid
    }

    /// The sum itself, for a mechanism that adds its noise elsewhere.
    pub(crate) fn into_coordinates(self) -> Vec<i64> {
        self.coordinates
    }

    fn check(&self, mechanism: Mechanism) -> Result<(), ReleaseError> {
        match (mechanism, self.grid) {
            (Mechanism::RoundedGaussian { sigma, .. }, _) if sigma > SIGMA_MAX => {
                return Err(ReleaseError::Sigma { sigma });
            }
            (Mechanism::NoiseShares { .. } | Mechanism::LocalGaussian { .. }, _) | (_, Grid::Noised(_)) => {
                return Err(ReleaseError::OtherNoise);
            }
            _ => {}
        }
        let charged = mechanism.sensitivity();
        let tested = self.grid.sensitivity();
        if charged == tested { Ok(()) } else { Err(ReleaseError::Sensitivity { charged, tested }) }
    }
}

/// What the world may see: the sum of a cohort in grid steps, with its noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    coordinates: Vec<i64>,
    members: u32,
    grid: Grid,
}

impl Release {
    /// The noised integers.
    #[must_use]
    pub fn coordinates(&self) -> &[i64] {
        &self.coordinates
    }

    /// Number of updates in the sum. Not covered by the guarantee under add-or-remove: publish the planned cohort.
    #[must_use]
    pub const fn members(&self) -> u32 {
        self.members
    }

    /// The sum in the unit of the parameters. Divide it by a public denominator, never by a number that depends on data.
    ///
    /// The integers become floating-point numbers where they are: no second vector of model length is made.
    #[must_use]
    pub fn decode(mut self) -> Vec<f64> {
        let step = self.grid.step();
        self.coordinates.truncate(self.grid.parameters());
        self.coordinates.into_iter().map(|q| q as f64 * step).collect()
    }

    /// The noised share of clients whose norm was at most the clip norm, if the grid carries that bit.
    ///
    /// `cohort` is the public number of members that was expected. The share may lie outside 0 to 1.
    #[must_use]
    pub fn unclipped_share(&self, cohort: f64) -> Option<f64> {
        let Grid::Private(grid) = self.grid else { return None };
        let bits = *self.coordinates.get(grid.parameters())?;
        Some(bits as f64 / grid.bit_weight()? as f64 / cohort + 0.5)
    }
}

/// Coordinates that share a substream of the noise key. Part of the result: changing it changes bits.
pub const NOISE_TILE: usize = 4096;

/// Tiles that are worth a thread of their own: some tenths of a millisecond of noise.
const TILES_PER_THREAD: usize = 5;

/// Adds independent rounded Gaussian noise, in tiles from the substreams of the key.
pub(crate) fn add_noise(coordinates: &mut [i64], sigma: u64, key: &Key, generator: PrgId) {
    let tiles = coordinates.len().div_ceil(NOISE_TILE);
    // Asked once: the answer takes as long as a tile.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    let noise = Noise { sigma, key, generator };
    noise.add_on(CORES.min(tiles / TILES_PER_THREAD).max(1), coordinates);
}

struct Noise<'a> {
    sigma: u64,
    key: &'a Key,
    generator: PrgId,
}

impl Noise<'_> {
    /// Every thread takes one tile after the other, so neither their number nor their speed shows in the result.
    fn add_on(&self, threads: usize, coordinates: &mut [i64]) {
        let tiles = Mutex::new((0..).zip(coordinates.chunks_mut(NOISE_TILE)));
        let next = || tiles.lock().expect("nothing panics while it holds the lock").next();
        let work = || {
            while let Some((index, tile)) = next() {
                self.add_to_tile(index, tile);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                // Where the system has no more threads, the work takes longer.
                let _ = Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }

    fn add_to_tile(&self, index: u64, tile: &mut [i64]) {
        let mut noise = [0; NOISE_TILE];
        let noise = &mut noise[..tile.len()];
        rounded_gaussian::fill(&mut self.key.substream_of(self.generator, index), self.sigma, noise);
        for (sum, &n) in tile.iter_mut().zip(&*noise) {
            // Clamping what is already noised is post-processing; it happens with a probability below e^(-2^40).
            *sum = sum.saturating_add(n);
        }
        noise.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grid::{PrivateGrid, PublicGrid};
    use crate::quantities::ClipNorm;

    const DIMENSION: usize = 3 * NOISE_TILE + 5;

    fn private() -> Grid {
        PrivateGrid::new(ClipNorm::new(1.0).unwrap(), DIMENSION, 3).unwrap().into()
    }

    fn vector(grid: Grid, first: i32) -> QuantizedUpdate {
        let mut coordinates = vec![0; grid.dimension()];
        coordinates[0] = first;
        QuantizedUpdate::verify(coordinates, &grid).unwrap()
    }

    fn sum_of(grid: Grid, firsts: &[i32]) -> Sum {
        let mut sum = Accumulator::new(grid);
        for &first in firsts {
            sum.add(&vector(grid, first)).unwrap();
        }
        sum.finish()
    }

    fn noise(grid: Grid, sigma: u64) -> Charge {
        let sensitivity = grid.sensitivity().unwrap();
        Charge::new(1, Mechanism::RoundedGaussian { sensitivity, sigma })
    }

    #[test]
    fn the_debug_form_of_a_running_sum_does_not_show_it() {
        let mut sum = Accumulator::new(private());
        sum.add(&vector(private(), 123_456)).unwrap();
        let shown = format!("{sum:?}");
        assert!(!shown.contains("123456") && shown.contains("members: 1"), "{shown}");
    }

    #[test]
    fn a_full_cohort_is_a_refusal_and_changes_nothing() {
        let grid = private();
        let mut sum = Accumulator::new(grid);
        for _ in 0..3 {
            sum.add(&vector(grid, 5)).unwrap();
        }
        assert_eq!(sum.add(&vector(grid, 5)), Err(SumError::CohortFull { cohort_max: 3 }));
        let mut other = Accumulator::new(grid);
        other.add(&vector(grid, 5)).unwrap();
        assert_eq!(sum.merge(other), Err(SumError::CohortFull { cohort_max: 3 }));
        assert_eq!((sum.members(), sum.coordinates[0]), (3, 15));
    }

    #[test]
    fn several_updates_are_added_as_one_after_the_other_or_not_at_all() {
        let grid = Grid::from(PublicGrid::new(DIMENSION, 9).unwrap());
        let updates: Vec<_> = (0..9).map(|first| vector(grid, first - 3)).collect();
        for count in 0..=9 {
            let (mut together, mut singly) = (Accumulator::new(grid), Accumulator::new(grid));
            together.add_all(&updates[..count]).unwrap();
            updates[..count].iter().for_each(|update| singly.add(update).unwrap());
            assert_eq!((together.members, &together.coordinates), (singly.members, &singly.coordinates));
            let too_many = together.add_all(&updates);
            assert_eq!(too_many.is_err(), count > 0);
            assert!(count == 0 || together.coordinates == singly.coordinates);
            let mut merged = Accumulator::new(grid);
            merged.add_all(&updates[count..]).unwrap();
            merged.merge(singly).unwrap();
            assert_eq!((merged.members, merged.coordinates[0]), (9, 9));
        }
    }

    #[test]
    fn the_largest_cohort_of_the_largest_updates_does_not_overflow() {
        let grid = Grid::from(PublicGrid::new(1, u32::MAX).unwrap());
        let largest = i64::from(i32::MAX) * i64::from(u32::MAX - 1);
        let mut sum = Accumulator { coordinates: vec![largest], members: u32::MAX - 1, grid };
        sum.add(&vector(grid, i32::MAX)).unwrap();
        assert_eq!(sum.coordinates[0], i64::from(i32::MAX) * i64::from(u32::MAX));
    }

    #[test]
    fn updates_of_different_grids_are_not_added() {
        let (grid, other) = (private(), Grid::from(PublicGrid::new(DIMENSION, 3).unwrap()));
        let mut sum = Accumulator::new(grid);
        let refused = Err(SumError::OtherGrid { expected: grid, found: other });
        assert_eq!(sum.add(&vector(other, 1)), refused);
        assert_eq!(sum.merge(Accumulator::new(other)), refused);
        assert_eq!(sum.members(), 0);
    }

    #[test]
    fn a_release_is_the_sum_plus_the_noise_of_its_tiles() {
        let grid = private();
        let key = Key::from_seed(1);
        let released =
            |generator| sum_of(grid, &[1000, -300]).release(noise(grid, 50), &key, generator).unwrap();
        for generator in [PrgId::ChaCha20, PrgId::Aes256Ctr] {
            let mut expected = vec![0; DIMENSION];
            for (tile, noise) in expected.chunks_mut(NOISE_TILE).enumerate() {
                rounded_gaussian::fill(&mut key.substream_of(generator, tile as u64), 50, noise);
            }
            expected[0] += 700;
            assert_eq!(released(generator).coordinates(), expected);
        }
        let release = released(PrgId::ChaCha20);
        assert_eq!(release.members(), 2);
        assert_eq!(release.clone().decode()[1], release.coordinates()[1] as f64 / 1_048_576.0);
        let other = sum_of(grid, &[]).release(noise(grid, 50), &Key::from_seed(2), PrgId::ChaCha20).unwrap();
        assert_ne!(other.coordinates()[1..], release.coordinates()[1..]);
    }

    #[test]
    fn noise_does_not_depend_on_threads() {
        let key = Key::from_seed(3);
        let mut alone = vec![7; DIMENSION];
        let noise = Noise { sigma: 1000, key: &key, generator: PrgId::ChaCha20 };
        noise.add_on(1, &mut alone);
        for threads in 2..8 {
            let mut shared = vec![7; DIMENSION];
            noise.add_on(threads, &mut shared);
            assert_eq!(shared, alone, "{threads} threads");
        }
        noise.add_on(3, &mut []);
    }

    #[test]
    fn the_noise_of_a_key_is_the_same_for_ever() {
        // Computed by an independent program in Python from the published algorithms: ChaCha20, HMAC, decimal exponentials
        // for the table. Changed values break every recorded run: a new sampler needs a new name instead.
        let grid = private();
        let release =
            sum_of(grid, &[]).release(noise(grid, 5 << 20), &Key::from_seed(1), PrgId::ChaCha20).unwrap();
        let drawn = release.coordinates();
        assert_eq!(drawn[..4], [-4_034_306, 494_893, -2_516_080, -2_261_355]);
        assert_eq!(drawn[..NOISE_TILE].iter().sum::<i64>(), 316_639_131);
        assert_eq!(drawn[3 * NOISE_TILE..], [-905_661, -6_582_771, 5_701_836, 2_181_107, 2_611_008]);
    }

    #[test]
    fn a_charge_for_another_sensitivity_opens_nothing() {
        let grid = private();
        let key = Key::from_seed(1);
        let tested = grid.sensitivity();
        let small = Charge::new(1, Mechanism::RoundedGaussian { sensitivity: 1, sigma: 50 });
        assert_eq!(
            sum_of(grid, &[1]).release(small, &key, PrgId::ChaCha20),
            Err(ReleaseError::Sensitivity { charged: Some(1), tested })
        );
        let free = || Charge::new(1, Mechanism::None);
        let refused = Err(ReleaseError::Sensitivity { charged: None, tested });
        assert_eq!(sum_of(grid, &[1]).release(free(), &key, PrgId::ChaCha20), refused);
        assert_eq!(sum_of(grid, &[1]).release_exact(free()), refused);
        assert_eq!(sum_of(grid, &[1]).release_exact(noise(grid, 50)), Err(ReleaseError::NoiseRequired));
        let huge = SIGMA_MAX + 1;
        assert_eq!(
            sum_of(grid, &[1]).release(noise(grid, huge), &key, PrgId::ChaCha20),
            Err(ReleaseError::Sigma { sigma: huge })
        );
    }

    #[test]
    fn mode_none_releases_the_sum_itself() {
        let grid = Grid::from(PublicGrid::new(2, 3).unwrap());
        let exact = sum_of(grid, &[1 << 24, 1 << 22]).release_exact(Charge::new(1, Mechanism::None)).unwrap();
        assert_eq!(exact.clone().decode(), [1.25, 0.0]);
        let with_key = sum_of(grid, &[1 << 24, 1 << 22]).release(
            Charge::new(1, Mechanism::None),
            &Key::from_seed(1),
            PrgId::ChaCha20,
        );
        assert_eq!(with_key, Ok(exact));
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order_or_grouping(
            firsts in prop::collection::vec(any::<i32>().prop_filter("in range", |q| *q != i32::MIN), 0..8),
            split in any::<prop::sample::Index>(),
        ) {
            let grid = Grid::from(PublicGrid::new(1, 8).unwrap());
            let charge = || Charge::new(1, Mechanism::None);
            let expected: i64 = firsts.iter().map(|&q| i64::from(q)).sum();
            let (left, right) = firsts.split_at(split.index(firsts.len() + 1));
            let mut sum = Accumulator::new(grid);
            let mut part = Accumulator::new(grid);
            right.iter().rev().for_each(|&q| part.add(&vector(grid, q)).unwrap());
            left.iter().for_each(|&q| sum.add(&vector(grid, q)).unwrap());
            sum.merge(part).unwrap();
            let release = sum.finish().release_exact(charge()).unwrap();
            prop_assert_eq!(release.coordinates(), [expected]);
        }
    }
}
