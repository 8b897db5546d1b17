//! The fixed-point grids on which updates become integers.
//!
//! A private grid has X steps to the clip norm: 2²⁰ where the server sees updates, and a smaller power of two where what is
//! added up must fit few bits on the wire. Rounding moves a vector of norm at most X to one whose norm is a
//! little above X; [`PrivateGrid::sensitivity`] is the integer bound S that the exact norm test enforces and the
//! accountant uses.
//!
//! # Where S comes from
//!
//! Kairouz, Liu and Steinke (arXiv 2102.06387, section 4.1, "conditional rounding"). Let y be the scaled vector,
//! ‖y‖ ≤ X, and q its unbiased rounding. Then ‖q‖² = ‖y‖² + 2⟨y, q − y⟩ + ‖q − y‖², whose mean is at most X² + d/4,
//! and for every β in (0, 1)
//!
//! P\[ ‖q‖² > X² + d/4 + √(2 ln 1/β) · (X + √d/2) \] ≤ β.
//!
//! We take β = e⁻⁸, so √(2 ln 1/β) = 4 and S² = X² + d/4 + 4X + 2√d. One rounding fails with probability at most
//! 3.4·10⁻⁴ and eight in a row with at most 10⁻²⁷. At a million coordinates S exceeds X by 2·10⁻⁶ of its value: that is
//! the whole price.
//!
//! # Under secure aggregation
//!
//! The server sees a sum modulo 2ᵇ, b the bits of a coordinate on the wire. A [masked](PrivateGrid::masked) grid is so coarse
//! that the largest cohort's sum fits: n·S < 2ᵇ⁻¹. Nothing ever wraps, and with up to 2000 clients the grid is that of the
//! same federation without masks, which gives the same model. Where clients add noise, see
//! [`client_noise`](crate::client_noise).

use crate::client_noise::NoisedGrid;
use crate::quantities::ClipNorm;

/// Steps of a private grid to the clip norm, X, where the server sees updates; the most of any.
pub const STEPS_PER_CLIP: u64 = 1 << FINEST;

/// log₂ of the most and the fewest steps to the clip norm.
pub(crate) const FINEST: u8 = 20;
pub(crate) const COARSEST: u8 = 8;

/// Step of the public grid, 2⁻²⁴.
pub const PUBLIC_STEP: f64 = 1.0 / (1 << 24) as f64;

/// Largest number of coordinates of an update.
pub const DIMENSION_MAX: usize = u32::MAX as usize;

/// Why a grid cannot be built or a plan cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum GridError {
    /// No coordinates, or more than [`DIMENSION_MAX`].
    #[error("an update of {dimension} coordinates cannot be encoded; there must be 1 to 4294967295")]
    Dimension {
        /// Number of coordinates.
        dimension: usize,
    },
    /// A cohort must have room for someone.
    #[error("the largest cohort is 0 clients; it must be at least 1")]
    EmptyCohort,
    /// The clip norm is so small or large that its grid step is not a normal double.
    #[error("a clip norm of {clip} has no usable grid step; choose one between 1e-30 and 1e30")]
    ClipNorm {
        /// The clip norm.
        clip: f64,
    },
    /// The clipping bit cannot have this weight.
    #[error(
        "the clipping bit cannot weigh {weight} grid steps; the weight must be even, and 2 to 2147483646"
    )]
    BitWeight {
        /// The refused weight.
        weight: u64,
    },
    /// No grid is coarse enough for the sum of so many updates.
    #[error(
        "a sum of {cohort_max} updates does not fit the 32 bits of secure aggregation; invite fewer clients"
    )]
    SumTooLarge {
        /// Largest number of updates in a sum.
        cohort_max: u32,
    },
    /// A number of the plan is not the one that follows from its clip norm, dimension and cohort.
    #[error("the plan says {planned:?}, but its clip norm and dimension give {derived:?}; refuse it")]
    PlanMismatch {
        /// What the plan says.
        planned: Encoding,
        /// What follows from the rest of the plan.
        derived: Encoding,
    },
}

/// The grid of all modes that promise privacy: the step is a fraction of the clip norm, and norms are bounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrivateGrid {
    clip: ClipNorm,
    parameters: usize,
    cohort_max: u32,
    bit_weight: Option<u32>,
    log_steps: u8,
    masked: bool,
}

impl PrivateGrid {
    /// The grid for updates of `dimension` coordinates, at most `cohort_max` of which are added up.
    ///
    /// # Errors
    /// [`GridError`] when an argument is out of range.
    pub fn new(clip: ClipNorm, dimension: usize, cohort_max: u32) -> Result<Self, GridError> {
        Self::with_steps(FINEST, clip, dimension, cohort_max)
    }

    /// The finest grid, up to that of [`PrivateGrid::new`], on which the largest cohort's sum fits 32 bits.
    ///
    /// # Errors
    /// [`GridError::SumTooLarge`] when there is none, otherwise as [`PrivateGrid::new`].
    pub fn masked(clip: ClipNorm, dimension: usize, cohort_max: u32) -> Result<Self, GridError> {
        for log_steps in (COARSEST..=FINEST).rev() {
            let grid = Self { masked: true, ..Self::with_steps(log_steps, clip, dimension, cohort_max)? };
            if grid.wire_bits() <= 32 {
                return Ok(grid);
            }
        }
        Err(GridError::SumTooLarge { cohort_max })
    }

    /// A grid of 2^`log_steps` steps to the clip norm.
    pub(crate) fn with_steps(
        log_steps: u8,
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
    ) -> Result<Self, GridError> {
        check_shape(dimension, cohort_max)?;
        if !(1e-30..=1e30).contains(&clip.get()) {
            return Err(GridError::ClipNorm { clip: clip.get() });
        }
        Ok(Self { clip, parameters: dimension, cohort_max, bit_weight: None, log_steps, masked: false })
    }

    /// The same grid with one more coordinate at the end, which says by its sign whether the client's norm was at most the
    /// clip norm: ±weight/2. See [`adaptive_clip`](crate::adaptive_clip).
    ///
    /// # Errors
    /// [`GridError::BitWeight`] unless the weight is even, and 2 to 2³¹ − 2.
    pub fn carrying_bit(self, weight: u64) -> Result<Self, GridError> {
        if weight < 2 || weight > i32::MAX as u64 || !weight.is_multiple_of(2) {
            return Err(GridError::BitWeight { weight });
        }
        check_shape(self.parameters + 1, self.cohort_max)?;
        let carrying = Self { bit_weight: Some(weight as u32), ..self };
        if carrying.wire_bits() > 32 {
            return Err(GridError::SumTooLarge { cohort_max: self.cohort_max });
        }
        Ok(carrying)
    }

    /// The grid that a plan describes, if its numbers are the ones that this version derives itself.
    ///
    /// # Errors
    /// [`GridError::PlanMismatch`] when a number differs, otherwise as [`PrivateGrid::new`].
    pub fn from_plan(
        facts: &Encoding,
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
    ) -> Result<Self, GridError> {
        let grid = Self::new(clip, dimension, cohort_max)?;
        facts.check(grid.encoding())?;
        Ok(grid)
    }

    /// The masked grid that a plan describes, if its numbers are the ones that this version derives itself.
    ///
    /// # Errors
    /// [`GridError::PlanMismatch`] when a number differs, otherwise as [`PrivateGrid::masked`].
    pub fn masked_from_plan(
        facts: &Encoding,
        clip: ClipNorm,
        dimension: usize,
        cohort_max: u32,
    ) -> Result<Self, GridError> {
        let grid = Self::masked(clip, dimension, cohort_max)?;
        facts.check(grid.encoding())?;
        Ok(grid)
    }

    /// The clip norm C.
    #[must_use]
    pub const fn clip(&self) -> ClipNorm {
        self.clip
    }

    /// Number of coordinates: of the parameters, and of the clipping bit if there is one.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.parameters + self.bit_weight.is_some() as usize
    }

    /// Number of parameters d.
    #[must_use]
    pub const fn parameters(&self) -> usize {
        self.parameters
    }

    /// Twice the absolute value of the coordinate that is the clipping bit.
    #[must_use]
    pub const fn bit_weight(&self) -> Option<u64> {
        match self.bit_weight {
            Some(weight) => Some(weight as u64),
            None => None,
        }
    }

    /// Largest number of updates in a sum.
    #[must_use]
    pub const fn cohort_max(&self) -> u32 {
        self.cohort_max
    }

    /// Steps to the clip norm, X: a power of two.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        1 << self.log_steps
    }

    /// Whether the server sees sums only, modulo 2ᵇ.
    #[must_use]
    pub const fn is_masked(&self) -> bool {
        self.masked
    }

    /// Distance between neighbouring grid points, C/X.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.clip.get() / self.steps() as f64
    }

    /// The norm bound S in grid steps: no [`QuantizedUpdate`](crate::update::QuantizedUpdate) of this grid is longer.
    #[must_use]
    pub const fn sensitivity(&self) -> u64 {
        match self.bit_weight {
            None => self.parameter_sensitivity(),
            Some(weight) => ceil_sqrt(self.parameter_sensitivity().pow(2) + (weight as u64 / 2).pow(2)),
        }
    }

    /// The norm bound of the parameters alone.
    #[must_use]
    pub const fn parameter_sensitivity(&self) -> u64 {
        sensitivity(self.parameters, self.steps())
    }

    /// What a plan says about this grid.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        Encoding { step: self.step(), sensitivity: Some(self.sensitivity()), wire_bits: self.wire_bits() }
    }

    /// Bits of the largest coordinate, of one update or, under masks, of the largest cohort's sum.
    const fn wire_bits(&self) -> u32 {
        let added_up = if self.masked { self.cohort_max } else { 1 };
        signed_bits(self.sensitivity() * added_up as u64)
    }
}

/// Bits of two's complement for every integer of at most this absolute value.
pub(crate) const fn signed_bits(largest: u64) -> u32 {
    u64::BITS - largest.leading_zeros() + 1
}

/// The grid of mode `none`: step 2⁻²⁴, coordinates below 2³¹, which is to say values below 128. It bounds no norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicGrid {
    dimension: usize,
    cohort_max: u32,
}

impl PublicGrid {
    /// The grid for updates of `dimension` coordinates, at most `cohort_max` of which are added up.
    ///
    /// # Errors
    /// [`GridError`] when an argument is out of range.
    pub const fn new(dimension: usize, cohort_max: u32) -> Result<Self, GridError> {
        match check_shape(dimension, cohort_max) {
            Ok(()) => Ok(Self { dimension, cohort_max }),
            Err(error) => Err(error),
        }
    }

    /// The grid that a plan describes, if its numbers are the fixed ones of mode `none`.
    ///
    /// # Errors
    /// [`GridError::PlanMismatch`] when a number differs, otherwise as [`PublicGrid::new`].
    pub fn from_plan(facts: &Encoding, dimension: usize, cohort_max: u32) -> Result<Self, GridError> {
        let grid = Self::new(dimension, cohort_max)?;
        facts.check(grid.encoding())?;
        Ok(grid)
    }

    /// Number of coordinates d.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// Largest number of updates in a sum.
    #[must_use]
    pub const fn cohort_max(&self) -> u32 {
        self.cohort_max
    }

    /// What a plan says about this grid.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        Encoding { step: PUBLIC_STEP, sensitivity: None, wire_bits: 32 }
    }
}

/// What a plan says about a grid, and what travels in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Encoding {
    /// Distance between neighbouring grid points, in the unit of the parameters.
    pub step: f64,
    /// The norm bound S in grid steps; none in mode `none`.
    pub sensitivity: Option<u64>,
    /// Bits of a coordinate on the wire, two's complement, 1 to 32.
    pub wire_bits: u32,
}

impl Encoding {
    pub(crate) fn check(&self, derived: Self) -> Result<(), GridError> {
        if *self == derived { Ok(()) } else { Err(GridError::PlanMismatch { planned: *self, derived }) }
    }
}

/// Either grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Grid {
    /// Of a mode that promises privacy.
    Private(PrivateGrid),
    /// Of a mode in which clients add noise.
    Noised(NoisedGrid),
    /// Of mode `none`.
    Public(PublicGrid),
}

impl Grid {
    /// Number of coordinates d.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        match self {
            Self::Private(grid) => grid.dimension(),
            Self::Noised(grid) => grid.dimension(),
            Self::Public(grid) => grid.dimension(),
        }
    }

    /// Largest number of updates in a sum.
    #[must_use]
    pub const fn cohort_max(&self) -> u32 {
        match self {
            Self::Private(grid) => grid.cohort_max(),
            Self::Noised(grid) => grid.exact().cohort_max(),
            Self::Public(grid) => grid.cohort_max(),
        }
    }

    /// Largest absolute value of a coordinate. The largest cohort's sum of such values fits 64 bits.
    #[must_use]
    pub fn range(&self) -> u64 {
        match self {
            Self::Private(grid) => grid.sensitivity(),
            Self::Noised(grid) => grid.range(),
            Self::Public(_) => i32::MAX as u64,
        }
    }

    /// The modulus 2ᵇ of a sum that is masked, by its b; none where the server sees each update.
    #[must_use]
    pub fn modulus_bits(&self) -> Option<u32> {
        let masked = match self {
            Self::Private(grid) => grid.is_masked(),
            Self::Noised(grid) => grid.is_masked(),
            Self::Public(_) => false,
        };
        masked.then(|| self.wire_bits())
    }

    /// Largest L2 norm of what a client sends, in grid steps; none where nobody tests it: in mode `none`, and under masks.
    #[must_use]
    pub fn norm_bound(&self) -> Option<u64> {
        match self {
            Self::Private(grid) => (!grid.is_masked()).then(|| grid.sensitivity()),
            Self::Noised(grid) => grid.norm_bound(),
            Self::Public(_) => None,
        }
    }

    /// The norm bound S before noise, in grid steps; none in mode `none`.
    #[must_use]
    pub fn sensitivity(&self) -> Option<u64> {
        self.encoding().sensitivity
    }

    /// Number of parameters d, which come before the clipping bit if there is one.
    #[must_use]
    pub const fn parameters(&self) -> usize {
        match self {
            Self::Private(grid) => grid.parameters(),
            Self::Noised(grid) => grid.exact().parameters(),
            Self::Public(grid) => grid.dimension(),
        }
    }

    /// Distance between neighbouring grid points, in the unit of the parameters.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.encoding().step
    }

    /// Bits of a coordinate on the wire.
    #[must_use]
    pub fn wire_bits(&self) -> u32 {
        self.encoding().wire_bits
    }

    /// What a plan says about this grid.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Private(grid) => grid.encoding(),
            Self::Noised(grid) => grid.encoding(),
            Self::Public(grid) => grid.encoding(),
        }
    }
}

impl From<PrivateGrid> for Grid {
    fn from(grid: PrivateGrid) -> Self {
        Self::Private(grid)
    }
}

impl From<NoisedGrid> for Grid {
    fn from(grid: NoisedGrid) -> Self {
        Self::Noised(grid)
    }
}

impl From<PublicGrid> for Grid {
    fn from(grid: PublicGrid) -> Self {
        Self::Public(grid)
    }
}

const fn check_shape(dimension: usize, cohort_max: u32) -> Result<(), GridError> {
    if dimension == 0 || dimension > DIMENSION_MAX {
        return Err(GridError::Dimension { dimension });
    }
    if cohort_max == 0 {
        return Err(GridError::EmptyCohort);
    }
    Ok(())
}

/// S = ⌈√(X² + d/4 + 4X + 2√d)⌉, every term rounded up.
const fn sensitivity(dimension: usize, x: u64) -> u64 {
    let d = dimension as u64;
    ceil_sqrt(x * x + d.div_ceil(4) + 4 * x + 2 * ceil_sqrt(d))
}

pub(crate) const fn ceil_sqrt(n: u64) -> u64 {
    let root = n.isqrt();
    if root * root == n { root } else { root + 1 }
}

// The largest sum fits 64 bits, and the largest coordinate 32.
const _: () =
    assert!((sensitivity(DIMENSION_MAX, STEPS_PER_CLIP) as u128) * (u32::MAX as u128) <= i64::MAX as u128);
const _: () = assert!((i32::MAX as u128) * (u32::MAX as u128) <= i64::MAX as u128);
// With the heaviest clipping bit, too.
const _: () = assert!(
    ceil_sqrt(sensitivity(DIMENSION_MAX, STEPS_PER_CLIP).pow(2) + (i32::MAX as u64 / 2).pow(2)) < 1 << 31
);

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(norm: f64) -> ClipNorm {
        ClipNorm::new(norm).unwrap()
    }

    #[test]
    fn the_sensitivity_exceeds_the_clip_norm_by_millionths() {
        let grid = PrivateGrid::new(clip(1.0), 1_000_000, 100).unwrap();
        assert_eq!(grid.sensitivity(), (1 << 20) + 3);
        assert_eq!(grid.encoding().wire_bits, 22);
        assert_eq!(PrivateGrid::new(clip(1.0), 1, 1).unwrap().sensitivity(), (1 << 20) + 2);
    }

    #[test]
    fn the_step_is_an_exact_fraction_of_the_clip_norm() {
        let grid = PrivateGrid::new(clip(0.3), 10, 1).unwrap();
        assert_eq!(grid.step() * 1_048_576.0, 0.3);
    }

    #[test]
    fn the_wire_holds_both_signs_of_the_sensitivity() {
        for dimension in [1, 1000, 1 << 27, DIMENSION_MAX] {
            let grid = PrivateGrid::new(clip(2.0), dimension, 7).unwrap();
            assert!(grid.sensitivity() < 1 << (grid.encoding().wire_bits - 1));
            assert!(grid.sensitivity() >= 1 << (grid.encoding().wire_bits - 2));
        }
    }

    #[test]
    fn under_masks_the_largest_sum_fits_the_wire_on_the_finest_grid_that_allows_it() {
        for (cohort, steps, bits) in
            [(10, 20, 25), (100, 20, 28), (2000, 20, 32), (2048, 19, 32), (1 << 22, 8, 32)]
        {
            let grid = PrivateGrid::masked(clip(1.0), 650, cohort).unwrap();
            assert_eq!((grid.steps(), grid.encoding().wire_bits), (1 << steps, bits), "{cohort}");
            let largest = grid.sensitivity() * u64::from(cohort);
            assert!(largest < 1 << (bits - 1) && largest >= 1 << (bits - 2), "{cohort}");
            assert_eq!(PrivateGrid::masked_from_plan(&grid.encoding(), clip(1.0), 650, cohort), Ok(grid));
        }
        let refused = PrivateGrid::masked(clip(1.0), 650, 1 << 24).unwrap_err();
        assert_eq!(refused, GridError::SumTooLarge { cohort_max: 1 << 24 });
        let masked = PrivateGrid::masked(clip(1.0), 650, 100).unwrap();
        assert!(PrivateGrid::from_plan(&masked.encoding(), clip(1.0), 650, 100).is_err());
        assert_eq!(masked.carrying_bit(1 << 30), Err(GridError::SumTooLarge { cohort_max: 100 }));
    }

    #[test]
    fn the_clipping_bit_adds_its_square_to_the_sensitivity() {
        let grid = PrivateGrid::new(clip(1.0), 1000, 10).unwrap();
        let with_bit = grid.carrying_bit(1 << 21).unwrap();
        assert_eq!((with_bit.dimension(), with_bit.parameters()), (1001, 1000));
        let squared = u128::from(grid.sensitivity()).pow(2) + (1 << 40);
        let bound = u128::from(with_bit.sensitivity());
        assert!(bound.pow(2) >= squared && (bound - 1).pow(2) < squared);
        for weight in [0, 1, 3, 1 << 31] {
            assert_eq!(grid.carrying_bit(weight), Err(GridError::BitWeight { weight }));
        }
        assert_eq!(grid.carrying_bit((1 << 31) - 2).unwrap().encoding().wire_bits, 32);
    }

    #[test]
    fn shapes_without_meaning_are_refused() {
        assert_eq!(PrivateGrid::new(clip(1.0), 0, 1), Err(GridError::Dimension { dimension: 0 }));
        assert_eq!(PrivateGrid::new(clip(1.0), 1, 0), Err(GridError::EmptyCohort));
        assert_eq!(
            PublicGrid::new(DIMENSION_MAX + 1, 1),
            Err(GridError::Dimension { dimension: DIMENSION_MAX + 1 })
        );
        assert_eq!(PrivateGrid::new(clip(1e-40), 1, 1), Err(GridError::ClipNorm { clip: 1e-40 }));
    }

    #[test]
    fn a_plan_with_any_other_number_is_refused() {
        let grid = PrivateGrid::new(clip(1.0), 1000, 10).unwrap();
        let honest = grid.encoding();
        assert_eq!(PrivateGrid::from_plan(&honest, clip(1.0), 1000, 10), Ok(grid));
        let lies = [
            Encoding { step: honest.step * 2.0, ..honest },
            Encoding { step: f64::NAN, ..honest },
            Encoding { sensitivity: Some(grid.sensitivity() + 1), ..honest },
            Encoding { sensitivity: None, ..honest },
            Encoding { wire_bits: 32, ..honest },
        ];
        for lie in lies {
            let refused = PrivateGrid::from_plan(&lie, clip(1.0), 1000, 10);
            assert!(matches!(refused, Err(GridError::PlanMismatch { .. })), "{lie:?}");
        }
        let public = PublicGrid::new(1000, 10).unwrap();
        assert_eq!(PublicGrid::from_plan(&public.encoding(), 1000, 10), Ok(public));
        assert!(PublicGrid::from_plan(&honest, 1000, 10).is_err());
    }
}
