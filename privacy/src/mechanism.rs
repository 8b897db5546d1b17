//! How a release hides its members, in the integers that accounting, clients and auditors agree on.

use crate::grid::PrivateGrid;
use crate::quantities::NoiseMultiplier;

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
}

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

    /// σ/S, never above the real quotient, which is what accounting must use. None for [`Mechanism::None`].
    #[must_use]
    pub fn noise_multiplier(&self) -> Option<NoiseMultiplier> {
        let Self::RoundedGaussian { sensitivity, sigma } = *self else {
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
