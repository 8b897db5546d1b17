//! The one-shot estimate from canaries' cosines (Andrew et al., "One-shot empirical privacy estimation for federated
//! learning", arXiv 2302.03098, section 3).
//!
//! The cosine of a random direction that took no part with what was released is close to normal with variance 1/d. Those of
//! the canaries that did take part are fitted by another normal law. The estimate is the epsilon, at the given delta, of
//! telling one law from the other. It is no bound: neither the fit nor the attack is the worst case.

use crate::accounting::normal;
use crate::quantities::Delta;

/// Cosines of the canaries that took part with the release, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosines {
    dimension: usize,
    mean: f64,
    deviation: f64,
}

impl Cosines {
    /// The cosines of canaries in so many dimensions; `None` for fewer than 2 of them, or without spread.
    pub fn new(cosines: &[f64], dimension: usize) -> Option<Self> {
        let count = cosines.len() as f64;
        if cosines.len() < 2 || dimension == 0 {
            return None;
        }
        let mean = cosines.iter().sum::<f64>() / count;
        let variance = cosines.iter().map(|cosine| (cosine - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (variance.is_finite() && variance > 0.0).then(|| Self { dimension, mean, deviation: variance.sqrt() })
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The estimate of epsilon at `delta`: that of telling the fitted law from the one of directions that took no part.
    pub fn epsilon(&self, delta: Delta) -> f64 {
        let unseen = Normal { mean: 0.0, deviation: 1.0 / (self.dimension as f64).sqrt() };
        let seen = Normal { mean: self.mean, deviation: self.deviation };
        seen.epsilon_against(unseen, delta.get()).max(unseen.epsilon_against(seen, delta.get()))
    }
}

/// A normal law.
#[derive(Debug, Clone, Copy)]
struct Normal {
    mean: f64,
    deviation: f64,
}

impl Normal {
    /// The smallest epsilon with P(A) ≤ e^epsilon Q(A) + delta for every A.
    fn epsilon_against(self, other: Self, delta: f64) -> f64 {
        let exceeds = |epsilon: f64| self.hockey_stick(other, epsilon) > delta;
        if !exceeds(0.0) {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, HIGHEST);
        while high - low > PRECISION {
            let middle = 0.5 * (low + high);
            match exceeds(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        high
    }

    /// max over A of P(A) − e^epsilon Q(A): A is where ln p − ln q > epsilon, inside or outside two roots of a quadratic.
    fn hockey_stick(self, other: Self, epsilon: f64) -> f64 {
        let (precision, of_other) = (self.deviation.powi(-2), other.deviation.powi(-2));
        // ln p(x) − ln q(x) − epsilon = a x² + b x + c
        let a = 0.5 * (of_other - precision);
        let b = precision * self.mean - of_other * other.mean;
        let c = 0.5 * (of_other * other.mean.powi(2) - precision * self.mean.powi(2))
            + (other.deviation / self.deviation).ln()
            - epsilon;
        let excess = |low: f64, high: f64| {
            self.between(low, high)
                - if epsilon < LARGE { epsilon.exp() * other.between(low, high) } else { 0.0 }
        };
        let infinity = f64::INFINITY;
        let discriminant = b * b - 4.0 * a * c;
        if a.abs() < 1e-12 * precision {
            return match b {
                0.0 => 0.0,
                b if b > 0.0 => excess(-c / b, infinity),
                b => excess(-infinity, -c / b),
            };
        }
        if discriminant <= 0.0 {
            return if a > 0.0 { excess(-infinity, infinity).max(0.0) } else { 0.0 };
        }
        let root = discriminant.sqrt();
        let (one, two) = ((-b - root) / (2.0 * a), (-b + root) / (2.0 * a));
        let (low, high) = (one.min(two), one.max(two));
        match a > 0.0 {
            true => excess(-infinity, low) + excess(high, infinity),
            false => excess(low, high),
        }
    }

    fn between(self, low: f64, high: f64) -> f64 {
        let standard = |x: f64| (x - self.mean) / self.deviation;
        let (low, high) = (standard(low), standard(high));
        // From the tail that is smaller, which keeps its digits.
        if low > 0.0 { normal::cdf(-low) - normal::cdf(-high) } else { normal::cdf(high) - normal::cdf(low) }
    }
}

const HIGHEST: f64 = 1e4;
const PRECISION: f64 = 1e-9;
/// Beyond this e^epsilon overflows, and what it is multiplied with is 0.
const LARGE: f64 = 700.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::analytic;

    #[test]
    fn of_equal_spread_it_is_the_gaussian_mechanism() {
        let delta = Delta::new(1e-5).unwrap();
        let mut compared = 0;
        for multiplier in [0.5, 1.0, 3.0] {
            let moved = Normal { mean: 2.0 / multiplier, deviation: 2.0 };
            let still = Normal { mean: 0.0, deviation: 2.0 };
            let exact = analytic::epsilon(1.0 / multiplier, delta).get();
            for (one, other) in [(moved, still), (still, moved)] {
                let epsilon = one.epsilon_against(other, delta.get());
                assert!((epsilon - exact).abs() < 1e-6, "{multiplier}: {epsilon} and {exact}");
                compared += 1;
            }
        }
        assert_eq!(compared, 6);
    }

    /// Against a sum over a fine grid.
    #[test]
    fn of_unequal_spread_it_is_what_the_definition_says() {
        let density = |law: Normal, x: f64| {
            (-0.5 * ((x - law.mean) / law.deviation).powi(2)).exp()
                / law.deviation
                / (2.0 * std::f64::consts::PI).sqrt()
        };
        let laws = [(0.3, 0.7), (0.0, 1.0), (1.5, 1.0), (0.0, 2.0)]
            .map(|(mean, deviation)| Normal { mean, deviation });
        let mut compared = 0;
        for one in laws {
            for other in laws {
                for epsilon in [0.0_f64, 0.4, 2.0] {
                    let step = 1e-3;
                    let exact: f64 = (-20_000..20_000)
                        .map(|i| step * (f64::from(i) + 0.5))
                        .map(|x| (density(one, x) - epsilon.exp() * density(other, x)).max(0.0) * step)
                        .sum();
                    let closed = one.hockey_stick(other, epsilon);
                    assert!(
                        (closed - exact).abs() < 1e-6,
                        "{one:?} {other:?} {epsilon}: {closed} and {exact}"
                    );
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 48);
    }

    #[test]
    fn canaries_that_stand_out_more_give_a_larger_estimate() {
        let delta = Delta::new(1e-5).unwrap();
        let dimension = 10_000;
        let estimate = |mean: f64| {
            // Quantiles of a normal law around the mean, so that nothing depends on draws.
            let cosines: Vec<f64> =
                (1..200).map(|i| mean + 0.01 * (f64::from(i) / 200.0 - 0.5) * 12f64.sqrt()).collect();
            Cosines::new(&cosines, dimension).unwrap().epsilon(delta)
        };
        let estimates = [0.0, 0.01, 0.03, 0.1].map(estimate);
        assert!(estimates[0] < 0.2, "{estimates:?}");
        assert!(estimates.windows(2).all(|pair| pair[0] < pair[1]), "{estimates:?}");
        // A shift of ten deviations is what a noise multiplier of 0.1 leaves.
        let exact = analytic::epsilon(10.0, delta).get();
        assert!((estimates[3] / exact - 1.0).abs() < 0.02, "{} and {exact}", estimates[3]);
        assert!(Cosines::new(&[0.1], dimension).is_none() && Cosines::new(&[0.1, 0.1], dimension).is_none());
    }
}
