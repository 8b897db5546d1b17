//! The one-shot estimate from canaries' cosines (Andrew et al., "One-shot empirical privacy estimation for federated
//! learning", arXiv 2302.03098, section 3).
//!
//! The cosine of a random direction that took no part with what was released is close to normal with variance 1/d. Those of
//! the canaries that did take part are fitted by another normal law. The estimate is the epsilon, at the given delta, of
//! telling one law from the other. It is no bound: neither the fit nor the attack is the worst case.
//!
//! A bound needs no fit: an attacker who takes for included whoever is above a threshold is wrong about directions that took no part
//! as often as the normal law says, and about canaries that did take part hardly more often than was seen (by the Jeffreys interval).
//! Both rates together rule out every smaller epsilon (Jagielski, Ullman and Oprea, arXiv 2006.07709).

use super::jeffreys;
use crate::accounting::normal;
use crate::quantities::{Delta, Epsilon};

/// Cosines of the canaries that took part with the release.
#[derive(Debug, Clone, PartialEq)]
pub struct Cosines {
    dimension: usize,
    mean: f64,
    deviation: f64,
    /// In ascending order.
    sorted: Vec<f64>,
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
        let mut sorted = cosines.to_vec();
        sorted.sort_by(f64::total_cmp);
        (variance.is_finite() && variance > 0.0).then(|| Self {
            dimension,
            mean,
            deviation: variance.sqrt(),
            sorted,
        })
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

    /// What epsilon is above at `delta`: the bound at the threshold that gives the largest. The confidence is that of each threshold by
    /// itself, so the truth is below a little more often than it says.
    pub fn epsilon_lower(&self, delta: Delta, confidence: f64) -> Epsilon {
        let (delta, canaries) = (delta.get(), self.sorted.len() as u64);
        let root = (self.dimension as f64).sqrt();
        // Between two cosines the rate of false alarms falls, and nothing else changes: the best threshold is just below a cosine.
        let bounds = (0..).zip(&self.sorted).map(|(missed, threshold)| {
            let missed = jeffreys::at_most(missed, canaries, confidence);
            let ln_alarms = normal::ln_above(threshold * root);
            let of_alarms = (1.0 - delta - missed).ln() - ln_alarms;
            let of_misses = (1.0 - delta - ln_alarms.exp()).ln() - missed.ln();
            // A logarithm of what is below 0 is no number, and no bound.
            of_alarms.max(of_misses)
        });
        Epsilon::new(bounds.fold(0.0, f64::max)).unwrap_or(Epsilon::ZERO)
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

    /// So many cosines, evenly spread around a mean.
    fn spread(count: u32, mean: f64, width: f64) -> Vec<f64> {
        (0..count).map(|i| mean + width * ((f64::from(i) + 0.5) / f64::from(count) - 0.5)).collect()
    }

    #[test]
    fn the_lower_bound_agrees_with_reference_values() {
        // scipy 1.17, in a transcription that gives the 1.3880321 which the authors' own test expects.
        for (count, mean, width, dimension, confidence, delta, expected) in [
            (100, 0.05, 0.1, 10_000, 0.95, 1e-5, 46.56814770632035),
            (500, 0.01, 0.02, 40_000, 0.95, 1e-5, 6.2939716649483),
            (500, 0.0, 0.02, 40_000, 0.95, 1e-5, 1.790188338291025),
            (1000, 0.2, 0.1, 39_010, 0.95, 1e-5, 1214.936080736297),
            (50, 0.01, 0.04, 10_000, 0.99, 1e-3, 2.0966781732484283),
            (2, 0.5, 0.1, 1_000, 0.95, 1e-5, 139.21457996321624),
        ] {
            let cosines = Cosines::new(&spread(count, mean, width), dimension).unwrap();
            let found = cosines.epsilon_lower(Delta::new(delta).unwrap(), confidence).get();
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} and {expected}");
        }
    }

    #[test]
    fn the_lower_bound_is_nothing_where_canaries_look_like_others() {
        // The quantiles of a normal law, found by bisection, so that nothing depends on draws.
        let quantile = |part: f64| {
            let (mut low, mut high) = (-9.0, 9.0);
            for _ in 0..60 {
                let middle = 0.5 * (low + high);
                if normal::cdf(middle) < part { low = middle } else { high = middle }
            }
            low
        };
        let dimension = 10_000;
        let looks = |shift: f64| -> Vec<f64> {
            (0..400).map(|i| (quantile((f64::from(i) + 0.5) / 400.0) + shift) / 100.0).collect()
        };
        let delta = Delta::new(1e-5).unwrap();
        let bound = |shift| Cosines::new(&looks(shift), dimension).unwrap().epsilon_lower(delta, 0.95).get();
        assert!(bound(0.0) < 0.1, "{}", bound(0.0));
        // It stays below the truth, which is the epsilon of a normal law moved by so many deviations.
        for shift in [1.0, 2.0, 4.0] {
            let truth = analytic::epsilon(shift, delta).get();
            assert!((0.3 * truth..truth).contains(&bound(shift)), "{shift}: {} and {truth}", bound(shift));
        }
    }
}
