//! How a release hides its members, in the integers that accounting, clients and auditors agree on.

use crate::grid::PrivateGrid;
use crate::quantities::NoiseMultiplier;
use crate::sampler::discrete_gaussian::{DiscreteGaussian, VarianceOutOfRange};

/// Largest standard deviation of integer noise, in grid steps.
pub const SIGMA_MAX: u64 = (1 << 40) - 1;

/// The noise multiplier asks for more noise than the sampler draws.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error(
    "noise multiplier {noise_multiplier} is too large for a sensitivity of {sensitivity} grid steps; it can be at most 500000"
)]
pub struct NoiseTooLarge {
    /// The refused multiplier.
    pub noise_multiplier: NoiseMultiplier,
    /// S in grid steps.
    pub sensitivity: u64,
}

/// What is added to a sum before anyone reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Nothing. Promises nothing.
    None,
    /// The nearest integer to a normal variable, in every coordinate.
    ///
    /// The sum x is integer, so x + ⌊N⌉ = ⌊x + N⌉: the release is the continuous Gaussian mechanism followed by
    /// rounding, and every bound for the former holds, in any dimension.
    RoundedGaussian {
        /// Largest L2 norm of what one member adds, in grid steps.
        sensitivity: u64,
        /// Standard deviation of the normal variable, in grid steps; 1 to [`SIGMA_MAX`].
        sigma: u64,
    },
    /// A discrete Gaussian share from every client, under secure aggregation. The sum of shares is not quite a discrete
    /// Gaussian, so what it costs is certified by Rényi divergence only.
    NoiseShares {
        /// Largest L2 norm of what one member adds before its noise, in grid steps.
        sensitivity: u64,
        /// σ² of each share.
        variance: ShareVariance,
        /// Shares that are in every released sum and unknown to the server and its clients, at least 1.
        honest: u32,
        /// The fewest updates that a sum is released with.
        least_updates: u32,
        /// Coordinates of an update.
        dimension: u32,
    },
    /// Rounded Gaussian noise from every client, all that it needs.
    LocalGaussian {
        /// Largest L2 norm of an update before its noise, in grid steps.
        sensitivity: u64,
        /// Standard deviation of the normal variable on each update, in grid steps.
        sigma: u64,
        /// The fewest updates that a sum is released with.
        least_updates: u32,
    },
}

/// σ² of a noise share in squared grid steps, an exact rational u/2^j; at least 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShareVariance {
    numerator: u64,
    halvings: u32,
}

/// Noise shares have no usable variance.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ShareError {
    /// A sum of so small shares is too far from a discrete Gaussian.
    #[error(
        "a noise share would have a standard deviation of {sigma:.2} grid steps, but at least 2 are needed: raise the noise \
         multiplier"
    )]
    TooSmall {
        /// σ of the refused share.
        sigma: f64,
    },
    /// The sampler does not draw so much noise.
    #[error(transparent)]
    Sampler(#[from] VarianceOutOfRange),
}

impl ShareVariance {
    /// The variance `numerator`/2^`halvings`, for shares of a plan.
    ///
    /// # Errors
    /// [`ShareError`] below 4, above 2⁴⁰, or with more than 16 halvings.
    pub fn new(numerator: u64, halvings: u32) -> Result<Self, ShareError> {
        let refused = VarianceOutOfRange { numerator, denominator: 1_u64.checked_shl(halvings).unwrap_or(0) };
        if halvings > 16 || numerator > 1 << (40 + halvings) {
            return Err(refused.into());
        }
        if numerator < 4 << halvings {
            let sigma = (numerator as f64 / f64::from(1_u32 << halvings)).sqrt();
            return Err(ShareError::TooSmall { sigma });
        }
        Ok(Self { numerator, halvings })
    }

    /// The smallest variance of this kind of which `shares` add up to at least `sigma`²: ⌈2⁸σ²/h⌉/2⁸.
    ///
    /// # Errors
    /// [`ShareError`] when it is below 4 or above 2⁴⁰. No shares count as one.
    pub fn splitting(sigma: u64, shares: u32) -> Result<Self, ShareError> {
        let square = u128::from(sigma.min(SIGMA_MAX + 1)).pow(2) << SHARE_HALVINGS;
        let numerator = square.div_ceil(u128::from(shares.max(1)));
        // What does not fit is above 2⁴⁰ all the more.
        Self::new(u64::try_from(numerator).unwrap_or(u64::MAX), SHARE_HALVINGS)
    }

    /// u of σ² = u/2^j.
    #[must_use]
    pub const fn numerator(&self) -> u64 {
        self.numerator
    }

    /// j of σ² = u/2^j, at most 16.
    #[must_use]
    pub const fn halvings(&self) -> u32 {
        self.halvings
    }

    /// σ², rounded to the nearest double.
    #[must_use]
    pub fn get(&self) -> f64 {
        self.numerator as f64 / f64::from(1_u32 << self.halvings)
    }

    /// σ as a double that is not above it.
    #[must_use]
    pub fn sigma_at_most(&self) -> f64 {
        // The quotient and its root are each within half a step of a double of the truth.
        self.get().sqrt().next_down().next_down()
    }

    /// The sampler of shares.
    pub(crate) fn sampler(&self) -> DiscreteGaussian {
        DiscreteGaussian::new(self.numerator, 1 << self.halvings)
            .expect("the constructor allows only what the sampler takes")
    }
}

/// Halvings of the variances that are planned: they exceed what was asked for by at most a thousandth, at 2 grid steps.
const SHARE_HALVINGS: u32 = 8;

impl Mechanism {
    /// Rounded Gaussian noise of at least `noise_multiplier` times the sensitivity of the grid: σ = ⌈z·S⌉.
    ///
    /// # Errors
    /// [`NoiseTooLarge`] when σ exceeds [`SIGMA_MAX`].
    pub fn rounded_gaussian(
        noise_multiplier: NoiseMultiplier,
        grid: &PrivateGrid,
    ) -> Result<Self, NoiseTooLarge> {
        let sensitivity = grid.sensitivity();
        match sigma(noise_multiplier.get(), sensitivity) {
            Some(sigma) => Ok(Self::RoundedGaussian { sensitivity, sigma }),
            None => Err(NoiseTooLarge { noise_multiplier, sensitivity }),
        }
    }

    /// The norm bound S that is in the guarantee; none for [`Mechanism::None`].
    #[must_use]
    pub const fn sensitivity(&self) -> Option<u64> {
        match *self {
            Self::None => None,
            Self::RoundedGaussian { sensitivity, .. }
            | Self::NoiseShares { sensitivity, .. }
            | Self::LocalGaussian { sensitivity, .. } => Some(sensitivity),
        }
    }

    /// σ/S of one Gaussian, never above the real quotient, which is what accounting must use. None for
    /// [`Mechanism::None`], and for shares, which only [`Mechanism::event`] adds up.
    #[must_use]
    pub fn noise_multiplier(&self) -> Option<NoiseMultiplier> {
        let (Self::RoundedGaussian { sensitivity, sigma } | Self::LocalGaussian { sensitivity, sigma, .. }) =
            *self
        else {
            return None;
        };
        // Both integers are below 2^53, so the quotient is rounded once, and the fused product tells which way.
        let (sensitivity, sigma) = (sensitivity as f64, sigma as f64);
        let quotient = sigma / sensitivity;
        let rounded_up = quotient.mul_add(sensitivity, -sigma) > 0.0;
        NoiseMultiplier::new(if rounded_up { quotient.next_down() } else { quotient }).ok()
    }
}

/// ⌈z·S⌉ in exact arithmetic. None above [`SIGMA_MAX`].
pub(crate) fn sigma(noise_multiplier: f64, sensitivity: u64) -> Option<u64> {
    if noise_multiplier > SIGMA_MAX as f64 {
        return None;
    }
    // A positive double below 2^40 is m·2^(e - 1075) with m < 2^53, or a subnormal, for which this m is too large.
    let bits = noise_multiplier.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | (1 << 52);
    let shift = 1075 - (bits >> 52) as u32;
    let product = u128::from(mantissa) * u128::from(sensitivity);
    let sigma = if shift < 128 { product.div_ceil(1 << shift) } else { 1 };
    u64::try_from(sigma).ok().filter(|&sigma| sigma <= SIGMA_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quantities::ClipNorm;

    fn grid() -> PrivateGrid {
        PrivateGrid::new(ClipNorm::new(1.0).unwrap(), 1000, 10).unwrap()
    }

    #[test]
    fn sigma_is_the_ceiling_of_the_product() {
        let exact =
            [(1.0, 5, 5), (0.5, 5, 3), (1e-300, 5, 1), (f64::MIN_POSITIVE / 8.0, 5, 1), (1.0 / 3.0, 3, 1)];
        for (z, sensitivity, expected) in exact {
            assert_eq!(sigma(z, sensitivity), Some(expected), "{z}");
        }
        // The double nearest to 1.1 is above 1.1, so ten of them are above eleven.
        assert_eq!(sigma(1.1, 10), Some(12));
        assert_eq!(sigma(SIGMA_MAX as f64, 1), Some(SIGMA_MAX));
        assert_eq!(sigma(SIGMA_MAX as f64, 2), None);
        assert_eq!(sigma(f64::MAX, 1), None);
    }

    #[test]
    fn too_much_noise_is_refused_by_name() {
        let z = NoiseMultiplier::new(1e7).unwrap();
        let sensitivity = grid().sensitivity();
        assert_eq!(
            Mechanism::rounded_gaussian(z, &grid()),
            Err(NoiseTooLarge { noise_multiplier: z, sensitivity })
        );
    }

    #[test]
    fn shares_add_up_to_the_noise_that_was_asked_for() {
        for (sigma, shares) in [(100, 7), (5 * 2048, 78), (1 << 20, 3), (20, 100)] {
            let share = ShareVariance::splitting(sigma, shares).unwrap();
            let sum = u128::from(share.numerator()) * u128::from(shares);
            let asked = u128::from(sigma).pow(2) << share.halvings();
            assert!(sum >= asked && sum < asked + u128::from(shares), "{sigma} {shares}");
            assert!(share.sigma_at_most().powi(2) < share.get());
        }
    }

    #[test]
    fn shares_below_two_grid_steps_or_beyond_the_sampler_are_refused() {
        assert_eq!(ShareVariance::splitting(2, 1).unwrap().sigma_at_most().to_string(), "1.9999999999999996");
        assert_eq!(ShareVariance::splitting(20, 100), ShareVariance::new(4 << 8, 8));
        let refused = ShareVariance::splitting(19, 100).unwrap_err();
        assert!(refused.to_string().contains("at least 2 are needed"), "{refused}");
        assert!(matches!(ShareVariance::splitting(1 << 21, 1), Err(ShareError::Sampler(_))));
        assert!(matches!(ShareVariance::splitting(u64::MAX, 1), Err(ShareError::Sampler(_))));
        assert!(matches!(ShareVariance::new(1 << 20, 17), Err(ShareError::Sampler(_))));
        assert!(matches!(ShareVariance::new(0, 0), Err(ShareError::TooSmall { .. })));
    }

    proptest! {
        #[test]
        fn the_mechanism_never_has_less_noise_than_asked(z in 1e-6_f64..1000.0) {
            let asked = NoiseMultiplier::new(z).unwrap();
            let got = Mechanism::rounded_gaussian(asked, &grid()).unwrap().noise_multiplier().unwrap();
            prop_assert!(got.get() >= z * (1.0 - f64::EPSILON));
            prop_assert!(got.get() <= z + 2.0 / grid().sensitivity() as f64);
        }
    }
}
