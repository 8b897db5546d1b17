//! Gaussian noise on a sample of fixed size, drawn without replacement, when a record is replaced by another.
//!
//! Wang, Balle and Kasiviswanathan 2019 (arXiv 1808.00087), Theorem 27: with q = size over population,
//!
//! (α−1)·ε(α) ≤ ln(1 + Σ_{j=2..α} C(α,j)·q^j·min{4·√(B(2⌊j/2⌋)·B(2⌈j/2⌉)), 2·e^{j(j−1)/2σ²}})
//!
//! for whole α, where B(l) = E[(P(x)/Q(x) − 1)^l] over x from Q, here for P = N(1, σ²) and Q = N(0, σ²). Between whole
//! orders (α−1)·ε(α) is convex (their Corollary 10). Drawing a sample never costs more than noising everyone.

use std::f64::consts::{LN_2, PI};

use super::log_space::{log_add, log_sum};
use super::rdp::RdpCurve;

/// The curve of one release on a sample of this share of the records, under replacement.
///
/// `sigma` is the noise over the distance that *replacing* a record moves the sum.
pub(crate) fn curve(rate: f64, sigma: f64) -> RdpCurve {
    let bound = Bound { rate, sigma, differences: log_differences(sigma) };
    RdpCurve::from_orders(|order| {
        let (below, share) = (order.floor(), order.fract());
        let at_below = bound.log_moment(below as u32);
        let log_moment = if share == 0.0 {
            at_below
        } else {
            at_below + share * (bound.log_moment(below as u32 + 1) - at_below)
        };
        (log_moment / (order - 1.0)).min(order / (2.0 * sigma * sigma))
    })
}

/// What the theorem needs of one mechanism.
struct Bound {
    rate: f64,
    sigma: f64,
    /// ln B(2), ln B(4) and so on, as far as they help.
    differences: Vec<f64>,
}

impl Bound {
    /// (α−1)·ε(α) at a whole order of at least 1.
    fn log_moment(&self, order: u32) -> f64 {
        let mut log_binomial = 0.0;
        let terms: Vec<f64> = (1..=order)
            .map(|j| {
                log_binomial += (f64::from(order - j + 1) / f64::from(j)).ln() + self.rate.ln();
                if j < 2 { f64::NEG_INFINITY } else { log_binomial + self.log_divergence(j) }
            })
            .collect();
        log_add(0.0, log_sum(&terms))
    }

    /// ln min{4·√(B(2⌊j/2⌋)·B(2⌈j/2⌉)), 2·e^{j(j−1)/2σ²}}.
    fn log_divergence(&self, j: u32) -> f64 {
        let plain = LN_2 + f64::from(j) * f64::from(j - 1) / (2.0 * self.sigma * self.sigma);
        let difference = |half: u32| self.differences.get(half as usize - 1).copied();
        match (difference(j / 2), difference(j.div_ceil(2))) {
            (Some(low), Some(high)) => plain.min(2.0 * LN_2 + 0.5 * (low + high)),
            _ => plain,
        }
    }
}

/// ln B(l) for l = 2, 4 and so on up to the largest order, without those where B(l) is almost E[(P/Q)^l] and no help.
fn log_differences(sigma: f64) -> Vec<f64> {
    let helpful = (12.0 * sigma * sigma + 16.0).min(LARGEST_ORDER);
    (1..)
        .map(|half| 2.0 * f64::from(half))
        .take_while(|l| *l <= helpful)
        .map(|l| log_difference(l, sigma))
        .collect()
}

/// ln E[(e^{(2x−1)/2σ²} − 1)^l] over x from N(0, σ²), for even l.
///
/// The integrand is never negative, unlike the alternating sum of its moments, so no digits are lost. On either side of
/// its zero at ½ its logarithm is concave, at least as curved as that of the Gaussian, with its peak within √l·σ of ½ on
/// the left and √l·σ + l on the right, so 9σ beyond leaves out less than e^−40. It is entire: with a step of σ/8 the
/// trapezoidal rule errs by less than e^−100.
fn log_difference(l: f64, sigma: f64) -> f64 {
    let step = sigma / 8.0;
    let margin = (l.sqrt() + 9.0) * sigma;
    let (first, last) = (0.5 - margin, 0.5 + l + margin);
    let log_scale = (step / (sigma * (2.0 * PI).sqrt())).ln();
    let terms: Vec<f64> = (0..=((last - first) / step).ceil() as u32)
        .map(|i| {
            let x = first + f64::from(i) * step;
            let loss = (2.0 * x - 1.0) / (2.0 * sigma * sigma);
            let log_distance = if loss > 30.0 { loss } else { loss.exp_m1().abs().ln() };
            log_scale - x * x / (2.0 * sigma * sigma) + l * log_distance
        })
        .collect();
    log_sum(&terms)
}

/// The largest order of a curve.
const LARGEST_ORDER: f64 = 1024.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::rdp::orders;
    use crate::quantities::Delta;

    #[test]
    fn epsilon_agrees_with_the_reference() {
        // dp_accounting 0.6.0, default orders, 100 of 10⁴, whose noise multiplier is over the distance of a replacement
        for (sigma, expected) in [(1.0, 3.576_111_5), (2.0, 1.445_298_2), (4.0, 0.638_970_7)] {
            let mut total = RdpCurve::nothing();
            total.compose(&curve(0.01, sigma), 1000);
            let found = total.epsilon(Delta::new(1e-5).unwrap()).get();
            assert!((found / expected - 1.0).abs() < 1e-7, "{sigma}: {found} vs {expected}");
        }
    }

    #[test]
    fn one_step_agrees_with_the_reference() {
        // dp_accounting 0.6.0
        for (rate, sigma, order, expected) in ONE_STEP {
            let found = curve(rate, sigma).at(order);
            assert!((found / expected - 1.0).abs() < 1e-8, "{rate} {sigma} {order}: {found} vs {expected}");
        }
    }

    #[test]
    fn differences_are_the_alternating_sums_of_moments() {
        let mut compared = 0;
        for sigma in [0.5, 1.0, 2.0] {
            for (index, found) in log_differences(sigma).into_iter().take(4).enumerate() {
                let l = 2 * (index as i32 + 1);
                let (mut sum, mut binomial) = (0.0, 1.0);
                for i in 0..=l {
                    let moment = (f64::from(i * (i - 1)) / (2.0 * sigma * sigma)).exp();
                    sum += if i % 2 == 0 { binomial * moment } else { -binomial * moment };
                    binomial *= f64::from(l - i) / f64::from(i + 1);
                }
                assert!((found - sum.ln()).abs() < 1e-8, "{sigma} {l}: {found} vs {}", sum.ln());
                compared += 1;
            }
        }
        assert_eq!(compared, 12);
    }

    #[test]
    fn the_second_difference_is_exact_for_any_noise() {
        for sigma in [0.1, 0.3, 1.0, 10.0, 1000.0_f64] {
            let exact = (1.0 / (sigma * sigma)).exp_m1().ln();
            assert!((log_difference(2.0, sigma) - exact).abs() < 1e-11 * exact.abs().max(1.0), "{sigma}");
        }
    }

    #[test]
    fn leaving_out_differences_that_do_not_help_changes_nothing() {
        let mut compared = 0;
        for sigma in [0.1_f64, 0.5, 1.0, 3.0] {
            let counted = 2 * log_differences(sigma).len() as u32;
            for l in (counted + 2..counted + 40).step_by(2).map(f64::from) {
                let plain = LN_2 + l * (l - 1.0) / (2.0 * sigma * sigma);
                assert!(2.0 * LN_2 + log_difference(l, sigma) > plain, "{sigma} {l}");
                compared += 1;
            }
        }
        assert!(compared > 50);
    }

    #[test]
    fn divergence_rises_with_the_order_and_never_exceeds_that_of_everyone() {
        let mut strictly_below = 0;
        for rate in [1e-6, 1e-3, 0.1, 0.9] {
            for sigma in [0.1, 0.5, 1.0, 10.0, 1000.0] {
                let found = curve(rate, sigma);
                let values: Vec<f64> = found.points().map(|(_, value)| value).collect();
                assert!(
                    values.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)),
                    "{rate} {sigma}: {values:?}"
                );
                for (order, value) in found.points() {
                    let everyone = order / (2.0 * sigma * sigma);
                    assert!(value > 0.0 && value <= everyone, "{rate} {sigma} {order}: {value}");
                    strictly_below += usize::from(value < 0.5 * everyone);
                }
            }
        }
        assert!(strictly_below > 5 * orders().count(), "{strictly_below}");
    }

    /// Rate, noise over the distance of a replacement, order, divergence.
    const ONE_STEP: [(f64, f64, f64, f64); 8] = [
        (0.01, 1.0, 2.0, 5.435_086_381_094e-4),
        (0.01, 1.0, 3.0, 8.348_726_849_544e-4),
        (0.01, 1.0, 8.0, 2.684_165_012_689e-3),
        (0.01, 1.0, 2.5, 7.377_513_360_061e-4),
        (0.01, 1.0, 1.5, 5.435_086_381_094e-4),
        (0.3, 4.0, 20.0, 1.512_533_849_396e-1),
        (0.01, 2.0, 5.0, 2.884_104_968_358e-4),
        (0.05, 0.5, 4.2, 4.784_835_433_189),
    ];
}
