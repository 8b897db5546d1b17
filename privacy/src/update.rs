//! One client's update, from parameters to integers. Each stage is a type that only the step before can make.
//!
//! ```text
//! Update ── clip ──▶ ClippedUpdate ── quantize ──▶ QuantizedUpdate      every mode that promises privacy
//!        ───────────── quantize_nearest ─────────▶ QuantizedUpdate      mode none
//! ```
//!
//! Where clients hide their updates themselves, one more stage follows: [`client_noise`](crate::client_noise).
//!
//! The privacy proof rests on the last stage alone: Σqᵢ² ≤ S², tested in integers. Clipping in floating point before
//! it only makes the test pass.

use crate::grid::{Grid, PUBLIC_STEP, PrivateGrid, PublicGrid};
use crate::layer_clip::Layer;
use crate::norm::{are_finite, largest, norm, norm_squared};
use crate::prg::CryptoRng;
use crate::quantities::ClipNorm;
use crate::rotation::{OtherLength, Rotation};
use crate::rounding::{fits, round_nearest, round_toward_zero, round_unbiased};

/// An update holds something that is not a finite number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("parameter {index} of the update is not a finite number; did the training diverge?")]
pub struct NonFinite {
    /// Position of the first such parameter.
    pub index: usize,
}

/// Why an update cannot be placed on a grid.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// The update has another length than the grid.
    #[error("the update has {found} coordinates, but the round is about {expected}")]
    Dimension {
        /// Coordinates of the grid.
        expected: usize,
        /// Coordinates of the update.
        found: usize,
    },
    /// The update was clipped to another norm than the grid is made for.
    #[error("the update was clipped to norm {found}, but the round clips to {expected}")]
    ClipNorm {
        /// Clip norm of the grid.
        expected: ClipNorm,
        /// Clip norm of the update.
        found: ClipNorm,
    },
    /// A coordinate does not fit the public grid.
    #[error("parameter {index} of the update is {value}, but mode none carries values between -128 and 128")]
    OutOfRange {
        /// Position of the first such coordinate.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// Why coordinates are not an update of a grid. The sender is refused, and the round goes on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The update was made for another grid than the noise.
    #[error("the update was not made for the grid of this noise")]
    OtherGrid,
    /// The vector has another length than the grid.
    #[error("received {found} coordinates instead of {expected}")]
    Dimension {
        /// Coordinates of the grid.
        expected: usize,
        /// Coordinates received.
        found: usize,
    },
    /// A coordinate is larger than the largest cohort's sum has room for.
    #[error("coordinate {index} is {value}, beyond the range of ±{range}")]
    Range {
        /// Position of the first such coordinate.
        index: usize,
        /// Its value.
        value: i32,
        /// Largest absolute value.
        range: u64,
    },
    /// The vector is longer than the sensitivity or, with local noise, than the noise explains.
    #[error("the squared norm is {norm_squared}, above the square of {bound}")]
    Norm {
        /// Σqᵢ².
        norm_squared: u128,
        /// Largest norm in grid steps.
        bound: u64,
    },
}

/// A change of the parameters: finite numbers, nothing else.
///
/// Every finite number has a place in the pipeline. Zeros, of either sign, stay zero; subnormal numbers count in the norm
/// with all their digits; the largest ones overflow nothing. An empty update is one of norm 0, but no grid takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Update(Vec<f32>);

impl Update {
    /// Takes the numbers if all are finite.
    ///
    /// # Errors
    /// [`NonFinite`] at the first NaN or infinity: C/NaN and C/∞·∞ would otherwise slip past any clipping.
    pub fn new(values: Vec<f32>) -> Result<Self, NonFinite> {
        if are_finite(&values) {
            return Ok(Self(values));
        }
        let index = values.iter().position(|value| !value.is_finite()).expect("not all are finite");
        Err(NonFinite { index })
    }

    /// [`Update::new`] and [`Update::clip`] in one pass: the norm is finite where all numbers are, because it cannot overflow.
    ///
    /// # Errors
    /// [`NonFinite`], as [`Update::new`].
    pub fn clipped(values: Vec<f32>, clip: ClipNorm) -> Result<ClippedUpdate, NonFinite> {
        let norm = norm(&values);
        if norm.is_finite() {
            return Ok(ClippedUpdate { values, factor: shrinking_factor(norm, clip), clip, norm });
        }
        Self::new(values).map(|update| update.clip(clip))
    }

    /// The numbers.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The numbers, for their memory to be used again.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.0
    }

    /// L2 norm in double precision, summed in a fixed order. Zero for an empty update.
    #[must_use]
    pub fn norm(&self) -> f64 {
        norm(&self.0)
    }

    /// Scales each of the runs that `layers` describes down to its norm, for [`LayerClip`](crate::layer_clip::LayerClip).
    pub(crate) fn scale_layers(mut self, layers: &[Layer]) -> Self {
        let mut rest = &mut self.0[..];
        for layer in layers {
            let (part, after) = rest.split_at_mut(layer.len);
            let factor = shrinking_factor(norm(part), layer.clip);
            part.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
            rest = after;
        }
        self
    }

    /// The update times a weight, for averages weighted by examples; mode `none` only, because a weight that depends
    /// on data scales the sensitivity.
    ///
    /// # Errors
    /// [`NonFinite`] when a product overflows or the weight is not finite.
    pub fn scaled(mut self, weight: f64) -> Result<Self, NonFinite> {
        for value in &mut self.0 {
            *value = (f64::from(*value) * weight) as f32;
        }
        Self::new(self.0)
    }

    /// Scales the update down to norm C if it is longer: Δ·min(1, C/‖Δ‖). A zero update stays zero.
    #[must_use]
    pub fn clip(self, clip: ClipNorm) -> ClippedUpdate {
        let norm = self.norm();
        ClippedUpdate { values: self.0, factor: shrinking_factor(norm, clip), clip, norm }
    }

    /// Rounds every parameter to the nearest point of the grid of mode `none`, ties to even.
    ///
    /// # Errors
    /// [`QuantizeError`] when the length differs or a value does not fit.
    pub fn quantize_nearest(&self, grid: &PublicGrid) -> Result<QuantizedUpdate, QuantizeError> {
        QuantizedUpdate::nearest(&self.0, grid)
    }
}

/// An update of norm at most C, up to the rounding of doubles.
#[derive(Debug, Clone, PartialEq)]
pub struct ClippedUpdate {
    values: Vec<f32>,
    /// Still to be multiplied in, so that no value is rounded to single precision twice.
    factor: f64,
    clip: ClipNorm,
    norm: f64,
}

impl ClippedUpdate {
    /// The norm before clipping. Private: never leaves the client without noise.
    #[must_use]
    pub const fn norm_before(&self) -> f64 {
        self.norm
    }

    /// The bound C that now holds.
    #[must_use]
    pub const fn clip(&self) -> ClipNorm {
        self.clip
    }

    /// The numbers before they are scaled, for their memory to be used again.
    #[must_use]
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Whether the update was short enough to be left alone.
    #[must_use]
    pub fn is_unclipped(&self) -> bool {
        self.norm <= self.clip.get()
    }

    /// Rotates the update, to be rounded where its coordinates are all about as large. Whoever decodes the sum has to apply
    /// [`Rotation::inverse`].
    ///
    /// The rotated numbers are single precision again: the norm and the mean of what is rounded change by less than a
    /// ten-millionth, for which the norm test leaves room.
    ///
    /// # Errors
    /// [`OtherLength`] when the rotation is for vectors of another length.
    pub fn rotate(self, rotation: &Rotation) -> Result<Self, OtherLength> {
        let mut rotated: Vec<f64> = self.values.iter().map(|&value| f64::from(value) * self.factor).collect();
        rotation.forward(&mut rotated)?;
        let values = rotated.into_iter().map(|value| value as f32).collect();
        Ok(Self { values, factor: 1.0, ..self })
    }

    /// Divides by the step and rounds to integers without bias, again and again until Σqᵢ² ≤ S² holds exactly.
    ///
    /// After [`ROUNDING_ATTEMPTS`] failures, which happens with probability below 10⁻²⁷, it rounds toward zero, which
    /// never makes a vector longer. If the grid carries the clipping bit, it comes last.
    ///
    /// # Errors
    /// [`QuantizeError`] when the update was not made for this grid.
    pub fn quantize<R: CryptoRng + ?Sized>(
        &self,
        grid: &PrivateGrid,
        rng: &mut R,
    ) -> Result<QuantizedUpdate, QuantizeError> {
        check_dimension(grid.parameters(), self.values.len())?;
        if self.clip != grid.clip() {
            return Err(QuantizeError::ClipNorm { expected: grid.clip(), found: self.clip });
        }
        let mut coordinates = self.round(grid, rng);
        if let Some(weight) = grid.bit_weight() {
            let half = (weight / 2) as i32;
            coordinates.push(if self.is_unclipped() { half } else { -half });
        }
        Ok(QuantizedUpdate { coordinates, grid: (*grid).into() })
    }

    fn round<R: CryptoRng + ?Sized>(&self, grid: &PrivateGrid, rng: &mut R) -> Vec<i32> {
        let scale = self.factor / grid.step();
        // Room for the clipping bit.
        let mut coordinates = Vec::with_capacity(self.values.len() + 1);
        for _ in 0..ROUNDING_ATTEMPTS {
            let norm_squared = round_unbiased(&self.values, scale, &mut coordinates, rng);
            if norm_squared <= u128::from(grid.parameter_sensitivity()).pow(2) {
                return coordinates;
            }
        }
        round_toward_zero(&self.values, scale, &mut coordinates);
        coordinates
    }
}

/// An update in integer grid steps. On a private grid its norm is at most the sensitivity, exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedUpdate {
    coordinates: Vec<i32>,
    grid: Grid,
}

impl QuantizedUpdate {
    /// [`Update::new`] and [`Update::quantize_nearest`] in one pass: what is not finite does not fit the grid.
    ///
    /// # Errors
    /// [`QuantizeError`], as [`Update::quantize_nearest`].
    pub fn nearest(values: &[f32], grid: &PublicGrid) -> Result<Self, QuantizeError> {
        check_dimension(grid.dimension(), values.len())?;
        let steps = 1.0 / PUBLIC_STEP;
        let mut coordinates = Vec::new();
        if !round_nearest(values, steps, &mut coordinates) {
            let outside = |&value: &f32| !fits(f64::from(value) * steps);
            let index = values.iter().position(outside).expect("one of them does not fit");
            return Err(QuantizeError::OutOfRange { index, value: values[index] });
        }
        Ok(Self { coordinates, grid: (*grid).into() })
    }

    /// Checks coordinates that somebody else made, as a server must: the same tests as the client's, exactly.
    ///
    /// # Errors
    /// [`Rejected`] with the first reason; the sum has not been touched.
    pub fn verify(coordinates: Vec<i32>, grid: &Grid) -> Result<Self, Rejected> {
        if let Grid::Noised(_) = grid {
            return Err(Rejected::OtherGrid);
        }
        check_coordinates(&coordinates, grid.dimension(), grid.range(), grid.sensitivity())?;
        Ok(Self { coordinates, grid: *grid })
    }

    pub(crate) fn into_coordinates(self) -> Vec<i32> {
        self.coordinates
    }

    /// The integers qᵢ.
    #[must_use]
    pub fn coordinates(&self) -> &[i32] {
        &self.coordinates
    }

    /// The grid they count steps of.
    #[must_use]
    pub const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Number of coordinates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.coordinates.len()
    }

    /// Never true: a grid has at least one coordinate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.coordinates.is_empty()
    }

    /// Σqᵢ², exactly.
    #[must_use]
    pub fn norm_squared(&self) -> u128 {
        norm_squared(&self.coordinates)
    }
}

/// How often stochastic rounding is tried before falling back to rounding toward zero.
pub const ROUNDING_ATTEMPTS: usize = 8;

fn shrinking_factor(norm: f64, clip: ClipNorm) -> f64 {
    if norm > clip.get() { clip.get() / norm } else { 1.0 }
}

fn check_dimension(expected: usize, found: usize) -> Result<(), QuantizeError> {
    if expected == found { Ok(()) } else { Err(QuantizeError::Dimension { expected, found }) }
}

/// Tests number, range and, if there is a bound, norm of coordinates that somebody else made.
pub(crate) fn check_coordinates(
    coordinates: &[i32],
    dimension: usize,
    range: u64,
    norm_bound: Option<u64>,
) -> Result<(), Rejected> {
    if coordinates.len() != dimension {
        return Err(Rejected::Dimension { expected: dimension, found: coordinates.len() });
    }
    if u64::from(largest(coordinates)) > range {
        let outside = |q: &i32| u64::from(q.unsigned_abs()) > range;
        let index = coordinates.iter().position(outside).expect("the largest one is outside");
        return Err(Rejected::Range { index, value: coordinates[index], range });
    }
    match norm_bound {
        None => Ok(()),
        Some(bound) => {
            within_norm(coordinates, bound).map_err(|norm_squared| Rejected::Norm { norm_squared, bound })
        }
    }
}

fn within_norm(coordinates: &[i32], sensitivity: u64) -> Result<(), u128> {
    let norm_squared = norm_squared(coordinates);
    if norm_squared <= u128::from(sensitivity).pow(2) { Ok(()) } else { Err(norm_squared) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::STEPS_PER_CLIP;
    use crate::prg::testing::Words;
    use crate::prg::{Key, Prg};

    fn clip(norm: f64) -> ClipNorm {
        ClipNorm::new(norm).unwrap()
    }

    fn update(values: &[f32]) -> Update {
        Update::new(values.to_vec()).unwrap()
    }

    fn prg(seed: u64) -> Prg {
        Key::from_seed(seed).stream()
    }

    fn grid(norm: f64, dimension: usize) -> PrivateGrid {
        PrivateGrid::new(clip(norm), dimension, 10).unwrap()
    }

    #[test]
    fn what_is_not_finite_is_refused_by_position() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(Update::new(vec![1.0, 2.0, bad, bad]), Err(NonFinite { index: 2 }));
        }
        for values in [vec![f32::MAX; 1000], vec![], vec![0.6, -0.8, f32::from_bits(1)]] {
            let clipped = Update::new(values.clone()).unwrap().clip(clip(0.5));
            assert_eq!(Update::clipped(values, clip(0.5)), Ok(clipped));
        }
        assert_eq!(Update::clipped(vec![1.0, f32::NAN], clip(1.0)), Err(NonFinite { index: 1 }));
        assert_eq!(Update::clipped(vec![f32::MAX, f32::INFINITY], clip(1.0)), Err(NonFinite { index: 1 }));
        assert_eq!(update(&[1.0, 3e38]).scaled(2.0), Err(NonFinite { index: 1 }));
        assert_eq!(update(&[1.0]).scaled(f64::NAN), Err(NonFinite { index: 0 }));
        assert_eq!(update(&[1.0, -2.0]).scaled(0.5).unwrap().values(), [0.5, -1.0]);
    }

    #[test]
    fn a_short_update_keeps_its_length_and_a_long_one_gets_the_clip_norm() {
        let grid = grid(2.0, 2);
        let q = update(&[0.6, 0.8]).clip(clip(2.0)).quantize(&grid, &mut prg(1)).unwrap();
        assert!((q.coordinates()[0] - 314_573).abs() <= 1 && (q.coordinates()[1] - 419_430).abs() <= 1);
        let q = update(&[60.0, -80.0]).clip(clip(2.0)).quantize(&grid, &mut prg(1)).unwrap();
        assert!((q.coordinates()[0] - 629_146).abs() <= 1 && (q.coordinates()[1] + 838_861).abs() <= 1);
    }

    #[test]
    fn an_update_of_another_round_is_refused() {
        let short = update(&[1.0, 2.0]).clip(clip(1.0));
        assert_eq!(
            short.clone().quantize(&grid(1.0, 3), &mut prg(1)),
            Err(QuantizeError::Dimension { expected: 3, found: 2 })
        );
        assert_eq!(
            short.quantize(&grid(2.0, 2), &mut prg(1)),
            Err(QuantizeError::ClipNorm { expected: clip(2.0), found: clip(1.0) })
        );
    }

    #[test]
    fn a_rotated_update_comes_back_without_bias() {
        // Two spikes in 1000 coordinates. Rounding moves each by a standard deviation of at most half a step, so the mean
        // of 1000 roundings has a standard error of at most 0.016 steps; the bound is five of them.
        const ROUNDINGS: usize = 1000;
        let grid = grid(1.0, 1000);
        let mut values = vec![0.0; 1000];
        (values[3], values[500]) = (-3.0, 4.0);
        let rotation = Rotation::new(Key::from_seed(5), 1000);
        let rotated = update(&values).clip(clip(1.0)).rotate(&rotation).unwrap();
        let mut rng = prg(6);
        let mut totals = vec![0.0; 1000];
        for _ in 0..ROUNDINGS {
            let q = rotated.clone().quantize(&grid, &mut rng).unwrap();
            assert!(q.coordinates().iter().all(|q| q.abs() < 200_000), "a coordinate stayed large");
            totals.iter_mut().zip(q.coordinates()).for_each(|(total, &q)| *total += f64::from(q));
        }
        rotation.inverse(&mut totals).unwrap();
        let expected = |i| {
            if i == 3 {
                -0.6
            } else if i == 500 {
                0.8
            } else {
                0.0
            }
        };
        for (i, total) in totals.iter().enumerate() {
            let bias = total / ROUNDINGS as f64 - expected(i) * STEPS_PER_CLIP as f64;
            assert!(bias.abs() < 0.08, "coordinate {i} is off by {bias} steps");
        }
    }

    #[test]
    fn the_rounding_of_a_key_is_the_same_for_ever() {
        // Computed by an independent program in Python, like the noise in `sum`.
        let values: Vec<f32> = (-150_i16..=150).map(|i| f32::from(i) / 777.0).collect();
        let q = update(&values).clip(clip(4.0)).quantize(&grid(4.0, 301), &mut prg(1)).unwrap();
        let q = q.coordinates();
        assert_eq!(q[..4], [-50_607, -50_270, -49_932, -49_595]);
        assert_eq!(q.iter().map(|q| q.abs()).sum::<i32>(), 7_641_656);
        assert_eq!((0..).zip(q).map(|(i, &q): (i64, _)| i * i64::from(q)).sum::<i64>(), 766_711_762);
    }

    #[test]
    fn one_rounding_is_nearly_always_enough() {
        // All fractions one half, the widest that a rounding can be: the bound fails with a chance of at most 3.4e-4, so at
        // most 6.8 times, and more than 24 times with a chance below 1e-6.
        let grid = grid(1.0, 1024);
        let values = vec![(1.0 / 32.0 - 0.5 / STEPS_PER_CLIP as f64) as f32; 1024];
        let mut rng = prg(7);
        let mut out = Vec::new();
        let mut failures = 0;
        for _ in 0..20_000 {
            round_unbiased(&values, 1.0 / grid.step(), &mut out, &mut rng);
            assert!(out.iter().all(|q| (32_767..=32_768).contains(q)));
            failures += u32::from(within_norm(&out, grid.sensitivity()).is_err());
        }
        assert!(failures <= 24, "{failures}");
    }

    #[test]
    fn when_every_rounding_fails_the_update_is_truncated() {
        // Every bit 0 rounds every fraction up, so the norm of many small coordinates explodes.
        let values = vec![1.0_f32; 1_000_003];
        let grid = grid(1.0, values.len());
        let q = update(&values).clip(clip(1.0)).quantize(&grid, &mut Words(|| 0)).unwrap();
        assert!(q.coordinates().iter().all(|&q| q == 1048));
        assert!(q.norm_squared() <= u128::from(grid.sensitivity()).pow(2));
    }

    #[test]
    fn the_server_accepts_what_a_client_made_and_nothing_longer() {
        let private = grid(1.0, 3);
        let q = update(&[1.0, 2.0, -3.0]).clip(clip(1.0)).quantize(&private, &mut prg(4)).unwrap();
        let grid = Grid::from(private);
        assert_eq!(QuantizedUpdate::verify(q.coordinates().to_vec(), &grid), Ok(q));
        let s = i32::try_from(private.sensitivity()).unwrap();
        assert!(QuantizedUpdate::verify(vec![0, -s, 0], &grid).is_ok());
        assert_eq!(
            QuantizedUpdate::verify(vec![1, -s, 0], &grid),
            Err(Rejected::Norm { norm_squared: 1 + (s as u128).pow(2), bound: private.sensitivity() })
        );
        for value in [s + 1, -s - 1, i32::MIN, i32::MAX] {
            let range = private.sensitivity();
            assert_eq!(
                QuantizedUpdate::verify(vec![0, value, 0], &grid),
                Err(Rejected::Range { index: 1, value, range })
            );
        }
        assert_eq!(
            QuantizedUpdate::verify(vec![0; 4], &grid),
            Err(Rejected::Dimension { expected: 3, found: 4 })
        );
    }

    #[test]
    fn the_public_grid_rounds_to_nearest_and_refuses_large_values() {
        let grid = PublicGrid::new(3, 10).unwrap();
        let step = PUBLIC_STEP as f32;
        let q = update(&[1.0, -1.4 * step, 1.6 * step]).quantize_nearest(&grid).unwrap();
        assert_eq!(q.coordinates(), [1 << 24, -1, 2]);
        assert_eq!(
            update(&[0.0, 127.99, -128.0]).quantize_nearest(&grid),
            Err(QuantizeError::OutOfRange { index: 2, value: -128.0 })
        );
        let grid = Grid::from(grid);
        assert!(QuantizedUpdate::verify(vec![i32::MAX, -i32::MAX, 0], &grid).is_ok());
        assert!(matches!(
            QuantizedUpdate::verify(vec![i32::MIN, 0, 0], &grid),
            Err(Rejected::Range { index: 0, .. })
        ));
    }
}
