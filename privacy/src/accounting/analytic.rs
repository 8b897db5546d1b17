//! The analytic Gaussian mechanism (Balle and Wang 2018, arXiv 1805.06530): exact for Gaussian noise without sampling.
//!
//! Everything depends on the separation μ = sensitivity/σ of the two neighbouring output distributions; composing
//! mechanisms adds squares: μ² = Σ 1/σ_t². Theorem 8 of the paper, with a = μ/2 − ε/μ and b = a − μ:
//! δ(ε) = Φ(a) − e^ε Φ(b) = φ(a)·(M(−a) − M(−b)), where M is the Mills ratio. The second form cannot cancel in the tail.

use super::normal;
use crate::quantities::{Delta, Epsilon, NoiseMultiplier};

/// The separation of `steps` releases with the same noise multiplier: √steps/σ.
#[must_use]
pub fn separation(noise_multiplier: NoiseMultiplier, steps: u64) -> f64 {
    (steps as f64).sqrt() / noise_multiplier.get()
}

/// δ(ε) of a separation of at least 0: the smallest δ for which (ε, δ)-differential privacy holds; 0 to 1.
#[must_use]
pub fn delta(separation: f64, epsilon: Epsilon) -> f64 {
    if separation <= 0.0 || !epsilon.is_finite() {
        return 0.0;
    }
    let a = separation / 2.0 - epsilon.get() / separation;
    if -a < LARGEST_MILLS {
        // Here Φ(b) is far below Φ(a), so the plain form loses nothing.
        return normal::cdf(a);
    }
    normal::density(a) * (normal::mills(-a) - normal::mills(separation - a))
}

/// The smallest ε at which a separation satisfies (ε, δ)-differential privacy, rounded up.
#[must_use]
pub fn epsilon(separation: f64, target: Delta) -> Epsilon {
    if separation <= 0.0 {
        return Epsilon::ZERO;
    }
    let holds = |epsilon: f64| delta(separation, Epsilon::from_computed(epsilon)) <= target.get();
    // The tail bound Φ(a) ≤ exp(−a²/2) holds from here on.
    let enough = separation * (separation / 2.0 + (-2.0 * target.get().ln()).sqrt());
    Epsilon::from_computed(super::bisect(0.0, enough, holds))
}

/// The smallest noise multiplier with which one release is (ε, δ)-differentially private, rounded up.
///
/// For `steps` releases multiply it by √steps. An infinite ε needs no noise and gives the smallest positive number.
#[must_use]
pub fn noise_multiplier(epsilon: Epsilon, target: Delta) -> NoiseMultiplier {
    let holds = |sigma: f64| delta(1.0 / sigma, epsilon) <= target.get();
    let mut enough = 1.0;
    while !holds(enough) {
        enough *= 2.0;
    }
    let sigma = super::bisect(0.0, enough, |sigma| sigma > 0.0 && holds(sigma));
    NoiseMultiplier::new(sigma)
        .expect("bisection returns a point where the bound holds, which is positive and finite")
}

/// Where the Mills ratio would overflow.
const LARGEST_MILLS: f64 = -36.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilon_and_delta_agree_with_the_reference() {
        // dp_accounting 0.6.0
        for (epsilon, expected) in
            [(0.5, 0.238_422), (1.0, 0.126_937), (2.0, 0.020_923_6), (4.0, 4.712_24e-5)]
        {
            let found = delta(1.0, Epsilon::new(epsilon).unwrap());
            assert!((found / expected - 1.0).abs() < 5e-6, "{epsilon}: {found}");
        }
        assert!((epsilon(1.0, Delta::new(1e-5).unwrap()).get() - 4.377_178).abs() < 5e-7);
        let ten = separation(NoiseMultiplier::new(10.0).unwrap(), 100);
        assert!((epsilon(ten, Delta::new(1e-5).unwrap()).get() - 4.377_178).abs() < 5e-7);
    }

    #[test]
    fn calibrated_noise_agrees_with_the_reference() {
        // dp_accounting 0.6.0
        for (epsilon, delta, expected) in
            [(1.0, 1e-5, 3.730_631_6), (0.1, 1e-6, 36.304_690_4), (8.0, 1e-5, 0.600_229_1)]
        {
            let (epsilon, delta) = (Epsilon::new(epsilon).unwrap(), Delta::new(delta).unwrap());
            assert!((noise_multiplier(epsilon, delta).get() - expected).abs() < 1e-7);
        }
    }

    #[test]
    fn every_answer_is_on_the_private_side() {
        let mut checked = 0;
        for exponent in -12..12 {
            let separation = 2.0_f64.powi(exponent);
            for target in [1e-12, 1e-6, 0.3] {
                let target = Delta::new(target).unwrap();
                let found = epsilon(separation, target);
                assert!(delta(separation, found) <= target.get());
                if found > Epsilon::ZERO {
                    let less = Epsilon::new(found.get() * (1.0 - 1e-9)).unwrap();
                    assert!(delta(separation, less) > target.get(), "{separation} {target}: {found}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 50);
    }
}
