//! A clip norm that follows a quantile of the clients' norms.
//!
//! Andrew, Thakkar, McMahan and Ramaswamy, "Differentially private learning with adaptive clipping" (arXiv 1905.03871).
//! Each client adds one bit, whether its norm was at most C. From the noised share b̃ of such *unclipped* clients the
//! next clip norm is C·e^(-η(b̃ − γ)): above the γ-quantile of norms it shrinks, below it grows.
//!
//! The bit is one more coordinate of the same integer vector, ±w/2, so one noise call covers both, and the accountant sees
//! one Gaussian of noise multiplier z. What the bit costs is paid by the update, whose own multiplier becomes
//! z_Δ = (z⁻² − (2σ_b)⁻²)^(-1/2), σ_b being the standard deviation of the noise on the number of unclipped clients.

use crate::grid::{GridError, PrivateGrid};
use crate::quantities::{ClipNorm, NoiseMultiplier};

/// Why a clip norm cannot be adapted so.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum AdaptiveClipError {
    /// The quantile is not between 0 and 1.
    #[error("the target quantile is {0}, but must be above 0 and below 1")]
    Quantile(f64),
    /// The rate is not a positive number.
    #[error("the learning rate of the clip norm is {0}, but must be above 0 and at most 1")]
    Rate(f64),
    /// The smallest clip norm is larger than the largest.
    #[error("the smallest clip norm, {0}, is larger than the largest, {1}")]
    Bounds(ClipNorm, ClipNorm),
    /// The noise on the count is too small to be part of a mechanism with this multiplier.
    #[error(
        "count noise of {count_noise} clients is too little at noise multiplier {noise_multiplier}; take more than half of it"
    )]
    CountNoise {
        /// σ_b.
        count_noise: f64,
        /// z.
        noise_multiplier: NoiseMultiplier,
    },
    /// The weight of the bit does not fit the grid.
    #[error(transparent)]
    Grid(#[from] GridError),
}

/// The rule by which a clip norm changes from round to round. Public, and fixed for a whole schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveClip {
    quantile: f64,
    rate: f64,
    smallest: ClipNorm,
    largest: ClipNorm,
}

impl AdaptiveClip {
    /// Follows the `quantile` γ, of which 0.5 is the median, at the `rate` η, for which the paper takes 0.2.
    ///
    /// # Errors
    /// [`AdaptiveClipError`] unless 0 < γ < 1, 0 < η ≤ 1, and the bounds are in order.
    pub fn new(
        quantile: f64,
        rate: f64,
        smallest: ClipNorm,
        largest: ClipNorm,
    ) -> Result<Self, AdaptiveClipError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(AdaptiveClipError::Quantile(quantile));
        }
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(AdaptiveClipError::Rate(rate));
        }
        if smallest > largest {
            return Err(AdaptiveClipError::Bounds(smallest, largest));
        }
        Ok(Self { quantile, rate, smallest, largest })
    }

    /// The clip norm of the next round: C·e^(-η(b̃ − γ)), within the bounds.
    ///
    /// `unclipped` is the noised share of the clients whose norm was at most C, as
    /// [`Release::unclipped_share`](crate::sum::Release::unclipped_share) gives it. What is not a number gives the
    /// smallest clip norm.
    #[must_use]
    pub fn next(&self, clip: ClipNorm, unclipped: f64) -> ClipNorm {
        let next = clip.get() * (-self.rate * (unclipped - self.quantile)).exp();
        let within = next.max(self.smallest.get()).min(self.largest.get());
        ClipNorm::new(within).expect("a number between two clip norms is one")
    }
}

/// The grid with a clipping bit, of such a weight that noise of multiplier z on the whole gives the number of unclipped
/// clients a standard deviation of at least `count_noise`. The paper takes a twentieth of the cohort.
///
/// # Errors
/// [`AdaptiveClipError::CountNoise`] unless 2·`count_noise` > z.
pub fn carry_clipping_bit(
    grid: PrivateGrid,
    noise_multiplier: NoiseMultiplier,
    count_noise: f64,
) -> Result<PrivateGrid, AdaptiveClipError> {
    let refused = AdaptiveClipError::CountNoise { count_noise, noise_multiplier };
    let update_multiplier = update_noise_multiplier(noise_multiplier, count_noise).ok_or(refused)?;
    let weight = update_multiplier * grid.sensitivity() as f64 / count_noise;
    Ok(grid.carrying_bit((weight / 2.0) as u64 * 2)?)
}

/// z_Δ = (z⁻² − (2σ_b)⁻²)^(-1/2).
fn update_noise_multiplier(noise_multiplier: NoiseMultiplier, count_noise: f64) -> Option<f64> {
    let rest = noise_multiplier.get().powi(-2) - (2.0 * count_noise).powi(-2);
    (count_noise.is_finite() && count_noise > 0.0 && rest > 0.0).then(|| rest.powf(-0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mechanism::Mechanism;

    fn clip(norm: f64) -> ClipNorm {
        ClipNorm::new(norm).unwrap()
    }

    fn noise_multiplier(z: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(z).unwrap()
    }

    #[test]
    fn the_bit_takes_its_share_of_the_noise_from_the_update() {
        // Andrew et al., section 3: z = 1 and σ_b = 5 leave the update 1.0050378.
        let split = update_noise_multiplier(noise_multiplier(1.0), 5.0).unwrap();
        assert!((split - 1.005_037_8).abs() < 1e-7, "{split}");
        let plain = PrivateGrid::new(clip(1.0), 1000, 100).unwrap();
        let grid = carry_clipping_bit(plain, noise_multiplier(1.0), 5.0).unwrap();
        let mechanism = Mechanism::rounded_gaussian(noise_multiplier(1.0), &grid).unwrap();
        let Mechanism::RoundedGaussian { sigma, sensitivity } = mechanism else { panic!("{mechanism:?}") };
        assert!(mechanism.noise_multiplier().unwrap().get() >= 1.0 && sensitivity == grid.sensitivity());
        assert!((sigma as f64 / plain.sensitivity() as f64 - split).abs() < 1e-5);
        let count_noise = sigma as f64 / grid.bit_weight().unwrap() as f64;
        assert!((5.0..5.0001).contains(&count_noise), "{count_noise}");
    }

    #[test]
    fn the_clip_norm_stays_within_its_bounds() {
        let rule = AdaptiveClip::new(0.5, 1.0, clip(0.5), clip(2.0)).unwrap();
        assert_eq!(rule.next(clip(1.0), 1e300), clip(0.5));
        assert_eq!(rule.next(clip(1.0), -1e300), clip(2.0));
        assert_eq!(rule.next(clip(1.0), 0.5), clip(1.0));
        assert_eq!(rule.next(clip(1.0), f64::NAN), clip(0.5));
    }

    #[test]
    fn rules_without_meaning_are_refused() {
        let (one, two) = (clip(1.0), clip(2.0));
        assert_eq!(AdaptiveClip::new(1.0, 0.2, one, two), Err(AdaptiveClipError::Quantile(1.0)));
        assert!(matches!(AdaptiveClip::new(f64::NAN, 0.2, one, two), Err(AdaptiveClipError::Quantile(_))));
        assert_eq!(AdaptiveClip::new(0.5, 0.0, one, two), Err(AdaptiveClipError::Rate(0.0)));
        assert_eq!(AdaptiveClip::new(0.5, 0.2, two, one), Err(AdaptiveClipError::Bounds(two, one)));
        let grid = PrivateGrid::new(one, 10, 10).unwrap();
        for count_noise in [0.5, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = carry_clipping_bit(grid, noise_multiplier(1.0), count_noise);
            assert!(matches!(refused, Err(AdaptiveClipError::CountNoise { .. })), "{count_noise}");
        }
    }
}
