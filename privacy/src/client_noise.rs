//! Noise that a client adds to its own update, before anything leaves it.
//!
//! ```text
//! QuantizedUpdate ── noise on each coordinate ──▶ NoisedUpdate ── mask (shares) or pack (local) ──▶ bytes
//! ```
//!
//! A share is a discrete Gaussian: it hides little by itself, and enough together with those of the other honest clients
//! (Kairouz, Liu and Steinke, arXiv 2102.06387). Local noise is a rounded Gaussian that hides the update from everyone.
//!
//! # The grid
//!
//! Noise of σ steps hides all that is far below σ, so a finer grid than that only costs bits. The grid is the coarsest on
//! which σ is at least [`FINE_SIGMA`] steps and rounding raises the sensitivity by at most 2⁻⁹ of it; a coarser one is taken if
//! that does not fit 32 bits.
//!
//! The sum of shares is known modulo 2ᵇ, with b bits for n·S + 5σ√n: the largest sum of updates there can be, all clients at the
//! clip norm in one and the same coordinate, and five standard deviations of all the noise. A sum that wraps is still
//! private, only wrong in that coordinate.
//!
//! Updates are not [rotated](crate::rotation) before rounding, though that would spread the sum and make room for it with fewer
//! bits (for 100 clients, 650 parameters and a noise multiplier of 5: 18 in place of 20; for 1000 clients and a million: 21 in
//! place of 26). Noise and rounding look the same in every direction, so it changes no accuracy, and without it nothing that
//! honest clients send can wrap.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroize;

use crate::grid::{COARSEST, Encoding, FINEST, Grid, GridError, PrivateGrid, ceil_sqrt, signed_bits};
use crate::mechanism::{Mechanism, NoiseTooLarge, SIGMA_MAX, ShareError, ShareVariance};
use crate::prg::{Key, PrgId};
use crate::quantities::{ClipNorm, NoiseMultiplier};
use crate::sampler::discrete_gaussian::DiscreteGaussian;
use crate::sampler::rounded_gaussian;
use crate::sum::NOISE_TILE;
use crate::update::{QuantizedUpdate, Rejected, check_coordinates};

/// Smallest standard deviation of local noise, in grid steps: what the accounting of sums of it relies on.
pub const LEAST_LOCAL_SIGMA: u64 = 16;

/// From this standard deviation on a finer grid changes nothing.
pub const FINE_SIGMA: u64 = 16;

/// Standard deviations of noise for which there is room on the wire: of a sum of shares, which may wrap, and of one local update,
/// whose accounting relies on it that none is ever clamped or refused for its norm.
const SUM_TAIL: f64 = 5.0;
const LOCAL_TAIL: u64 = 16;

/// What a client adds to each coordinate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClientNoise {
    /// A discrete Gaussian of this variance: a share of the noise on a masked sum.
    Share(ShareVariance),
    /// A rounded Gaussian of this standard deviation in grid steps: all of the noise.
    Full {
        /// Standard deviation in grid steps.
        sigma: u64,
    },
}

/// The grid of updates with noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoisedGrid {
    exact: PrivateGrid,
    noise: ClientNoise,
}

/// Why there is no grid for a noise.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NoisedGridError {
    /// Not even without noise.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// More noise than the sampler draws.
    #[error(transparent)]
    TooLarge(#[from] NoiseTooLarge),
    /// Shares without a usable variance.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Local noise below what its accounting relies on.
    #[error("local noise of {sigma} grid steps is too small to be accounted for; raise the noise multiplier")]
    TooSmall {
        /// Standard deviation on the finest grid.
        sigma: u64,
    },
    /// No grid is coarse enough.
    #[error(
        "{cohort_max} updates and their noise do not fit 32 bits; invite fewer clients or lower the noise multiplier"
    )]
    TooManyBits {
        /// Largest number of updates in a sum.
        cohort_max: u32,
    },
}

impl NoisedGrid {
    /// The grid for shares, of which those of `honest` clients make `noise_multiplier` times the sensitivity.
    ///
    /// # Errors
    /// [`NoisedGridError`].
    pub fn for_shares(
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
        noise_multiplier: NoiseMultiplier,
        honest: u32,
    ) -> Result<Self, NoisedGridError> {
        Self::coarsest(clip, dimension, cohort_max, noise_multiplier, |sigma| {
            Ok(ClientNoise::Share(ShareVariance::splitting(sigma, honest)?))
        })
    }

    /// The grid for updates that each carry `noise_multiplier` times the sensitivity.
    ///
    /// # Errors
    /// [`NoisedGridError`].
    pub fn for_local(
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
        noise_multiplier: NoiseMultiplier,
    ) -> Result<Self, NoisedGridError> {
        Self::coarsest(clip, dimension, cohort_max, noise_multiplier, |sigma| {
            let small = sigma < LEAST_LOCAL_SIGMA;
            if small { Err(NoisedGridError::TooSmall { sigma }) } else { Ok(ClientNoise::Full { sigma }) }
        })
    }

    /// The coarsest grid on which nothing is lost, or else the finest that fits.
    fn coarsest(
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
        noise_multiplier: NoiseMultiplier,
        noise: impl Fn(u64) -> Result<ClientNoise, NoisedGridError>,
    ) -> Result<Self, NoisedGridError> {
        let mut found = Err(NoisedGridError::TooManyBits { cohort_max });
        for log_steps in COARSEST..=FINEST {
            let exact = PrivateGrid::with_steps(log_steps, clip, dimension, cohort_max)?;
            let sigma = match Mechanism::rounded_gaussian(noise_multiplier, &exact)? {
                Mechanism::RoundedGaussian { sigma, .. } => sigma,
                other => unreachable!("asked for a Gaussian, not {other:?}"),
            };
            match noise(sigma).map(|noise| Self { exact, noise }) {
                // Too little noise here may be enough on a finer grid.
                Err(error) => found = found.or(Err(error)),
                Ok(grid) if grid.wire_bits() > 32 => break,
                Ok(grid) if grid.is_fine() => return Ok(grid),
                Ok(grid) => found = Ok(grid),
            }
        }
        found
    }

    fn is_fine(&self) -> bool {
        let (steps, sensitivity) = (self.exact.steps(), self.exact.sensitivity());
        let sigma = match self.noise {
            ClientNoise::Share(variance) => variance.get().sqrt(),
            ClientNoise::Full { sigma } => sigma as f64,
        };
        sensitivity - steps <= steps >> 9 && sigma >= FINE_SIGMA as f64
    }

    /// The grid that a plan describes, if its numbers belong together.
    ///
    /// # Errors
    /// [`GridError::PlanMismatch`] when they do not, otherwise as [`PrivateGrid::new`].
    pub fn from_plan(
        facts: &Encoding,
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
        noise: ClientNoise,
    ) -> Result<Self, GridError> {
        if matches!(noise, ClientNoise::Full { sigma } if !(LEAST_LOCAL_SIGMA..=SIGMA_MAX).contains(&sigma)) {
            return Err(GridError::SumTooLarge { cohort_max });
        }
        let log_steps = (clip.get() / facts.step).log2();
        // What is no number becomes the coarsest; the comparison below refuses it.
        let log_steps = (log_steps.round() as u8).clamp(COARSEST, FINEST);
        let exact = PrivateGrid::with_steps(log_steps, clip, dimension, cohort_max)?;
        let grid = Self { exact, noise };
        facts.check(grid.encoding())?;
        if grid.wire_bits() > 32 { Err(GridError::SumTooLarge { cohort_max }) } else { Ok(grid) }
    }

    /// The grid before noise.
    #[must_use]
    pub const fn exact(&self) -> &PrivateGrid {
        &self.exact
    }

    /// What is added to each coordinate.
    #[must_use]
    pub const fn noise(&self) -> ClientNoise {
        self.noise
    }

    /// Number of coordinates d.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.exact.dimension()
    }

    /// Whether the server sees sums only, modulo 2ᵇ: with shares.
    #[must_use]
    pub const fn is_masked(&self) -> bool {
        matches!(self.noise, ClientNoise::Share(_))
    }

    /// The mechanism of a sum of at least `least_updates` updates, of which `honest` carry shares that the server does not
    /// know; local noise takes no account of `honest`.
    #[must_use]
    pub fn mechanism(&self, honest: u32, least_updates: u32) -> Mechanism {
        let sensitivity = self.exact.sensitivity();
        let dimension = u32::try_from(self.dimension()).expect("a grid has at most u32::MAX coordinates");
        match self.noise {
            ClientNoise::Share(variance) => {
                Mechanism::NoiseShares { sensitivity, variance, honest, least_updates, dimension }
            }
            ClientNoise::Full { sigma } => Mechanism::LocalGaussian { sensitivity, sigma, least_updates },
        }
    }

    /// What a plan says about this grid.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        Encoding { wire_bits: self.wire_bits(), ..self.exact.encoding() }
    }

    /// Largest absolute value of a coordinate on the wire.
    pub(crate) fn range(&self) -> u64 {
        match self.noise {
            ClientNoise::Share(_) => 1 << (self.wire_bits() - 1),
            ClientNoise::Full { .. } => self.reach(),
        }
    }

    /// Largest norm of an update with local noise, which an honest client exceeds with probability below 10⁻⁵⁵: the norm of
    /// d normal variables is above √d + 16 with probability at most e^(−256/2) (Laurent and Massart 2000, lemma 1).
    pub(crate) fn norm_bound(&self) -> Option<u64> {
        let ClientNoise::Full { sigma } = self.noise else { return None };
        let root = ceil_sqrt(self.dimension() as u64);
        Some(self.exact.sensitivity() + sigma * (root + LOCAL_TAIL) + root)
    }

    /// What must fit the wire: a sum with its noise, or one update with its own.
    fn reach(&self) -> u64 {
        let (sensitivity, clients) = (self.exact.sensitivity(), f64::from(self.exact.cohort_max()));
        match self.noise {
            ClientNoise::Share(variance) => {
                (clients * sensitivity as f64 + SUM_TAIL * (clients * variance.get()).sqrt()).ceil() as u64
            }
            ClientNoise::Full { sigma } => sensitivity + LOCAL_TAIL * sigma,
        }
    }

    fn wire_bits(&self) -> u32 {
        signed_bits(self.reach())
    }
}

/// An update with the noise of its client on every coordinate: all that is left of it outside the client.
#[derive(Clone, PartialEq)]
pub struct NoisedUpdate {
    coordinates: Vec<i32>,
    grid: NoisedGrid,
}

impl NoisedUpdate {
    /// The integers yᵢ; of shares, modulo 2ᵇ, from −2ᵇ⁻¹ to 2ᵇ⁻¹ − 1.
    #[must_use]
    pub fn coordinates(&self) -> &[i32] {
        &self.coordinates
    }

    /// The grid they count steps of.
    #[must_use]
    pub const fn grid(&self) -> &NoisedGrid {
        &self.grid
    }
}

impl fmt::Debug for NoisedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoisedUpdate").field("len", &self.coordinates.len()).finish_non_exhaustive()
    }
}

impl QuantizedUpdate {
    /// Adds the noise of the grid, drawn in tiles from the substreams of `key`. The key must be fresh and secret: whoever
    /// knows it can subtract the noise, and so can whoever sees two updates with the same noise.
    ///
    /// Shares wrap modulo 2ᵇ, as their sum does. Local noise beyond the wire's range, which has probability below 10⁻⁵⁶ in a
    /// coordinate, is clamped.
    ///
    /// # Errors
    /// [`Rejected::OtherGrid`] when the update was not made for this grid.
    pub fn add_noise(self, grid: &NoisedGrid, key: &Key, generator: PrgId) -> Result<NoisedUpdate, Rejected> {
        if *self.grid() != Grid::Private(grid.exact) {
            return Err(Rejected::OtherGrid);
        }
        let sampler = Sampler::of(grid.noise);
        let settle = settle(grid);
        let mut coordinates = self.into_coordinates();
        let mut noise = [0; NOISE_TILE];
        for (index, tile) in (0..).zip(coordinates.chunks_mut(NOISE_TILE)) {
            let noise = &mut noise[..tile.len()];
            let mut prg = key.substream_of(generator, index);
            match &sampler {
                Sampler::Discrete(discrete) => discrete.fill(&mut prg, noise),
                Sampler::Rounded(sigma) => rounded_gaussian::fill(&mut prg, *sigma, noise),
            }
            for (q, &n) in tile.iter_mut().zip(&*noise) {
                *q = settle(i64::from(*q).saturating_add(n));
            }
        }
        noise.zeroize();
        Ok(NoisedUpdate { coordinates, grid: *grid })
    }
}

/// Brings a coordinate with noise into the range of the wire.
fn settle(grid: &NoisedGrid) -> impl Fn(i64) -> i32 {
    let (masked, bits) = (grid.is_masked(), grid.wire_bits());
    let range = grid.range().min(i32::MAX as u64) as i64;
    move |value| if masked { centred(value, bits) } else { value.clamp(-range, range) as i32 }
}

/// The representative of a residue modulo 2ᵇ from −2ᵇ⁻¹ to 2ᵇ⁻¹ − 1; b is 1 to 32.
pub(crate) const fn centred(value: i64, bits: u32) -> i32 {
    ((value as u32) << (32 - bits)) as i32 >> (32 - bits)
}

enum Sampler {
    Discrete(Arc<DiscreteGaussian>),
    Rounded(u64),
}

impl Sampler {
    /// A discrete sampler has a table that takes 10 to 20 ms to make, a hundred times the noise of a small model, so the last
    /// one is kept: all clients of a simulation share it.
    fn of(noise: ClientNoise) -> Self {
        static LAST: Mutex<Option<(ShareVariance, Arc<DiscreteGaussian>)>> = Mutex::new(None);
        let variance = match noise {
            ClientNoise::Full { sigma } => return Self::Rounded(sigma),
            ClientNoise::Share(variance) => variance,
        };
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, sampler)) if *known == variance => Self::Discrete(Arc::clone(sampler)),
            _ => {
                let sampler = Arc::new(variance.sampler());
                *last = Some((variance, Arc::clone(&sampler)));
                Self::Discrete(sampler)
            }
        }
    }
}

/// What a client adds to a sum, as far as its receiver can test it.
#[derive(Clone, PartialEq)]
pub struct Contribution {
    coordinates: Vec<i32>,
    grid: Grid,
}

impl Contribution {
    /// Tests coordinates that somebody else made: their number, their range and, where the receiver sees updates, their norm.
    ///
    /// Under masks there is nothing more to test: an honest client has bounded its own update, and a dishonest one can add
    /// anything.
    ///
    /// # Errors
    /// [`Rejected`] with the first reason.
    pub fn verify(coordinates: Vec<i32>, grid: &Grid) -> Result<Self, Rejected> {
        check_coordinates(&coordinates, grid.dimension(), grid.range(), grid.norm_bound())?;
        Ok(Self { coordinates, grid: *grid })
    }

    /// The integers.
    #[must_use]
    pub fn coordinates(&self) -> &[i32] {
        &self.coordinates
    }

    /// The grid they count steps of.
    #[must_use]
    pub const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The residues modulo 2ᵇ to which masks are added; none where nothing is masked.
    #[must_use]
    pub fn residues(&self) -> Option<Vec<u32>> {
        let mask = u32::MAX >> (32 - self.grid.modulus_bits()?);
        Some(self.coordinates.iter().map(|&value| value as u32 & mask).collect())
    }
}

impl From<QuantizedUpdate> for Contribution {
    fn from(update: QuantizedUpdate) -> Self {
        let grid = *update.grid();
        Self { coordinates: update.into_coordinates(), grid }
    }
}

impl From<NoisedUpdate> for Contribution {
    fn from(update: NoisedUpdate) -> Self {
        Self { coordinates: update.coordinates, grid: update.grid.into() }
    }
}

impl fmt::Debug for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contribution").field("len", &self.coordinates.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
