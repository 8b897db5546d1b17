//! Rényi differential privacy (Mironov 2017, arXiv 1702.07476): simple, quick, and valid when parameters react to outputs.
//!
//! A curve holds, for each order α > 1, a bound on the Rényi divergence of the outputs on neighbouring inputs.
//! Composition adds curves. The sampled Gaussian follows Mironov, Talwar and Zhang 2019 (arXiv 1908.10530); the conversion
//! to (ε, δ) is Proposition 12 of Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), at the best order.

use super::log_space::{log_add, log_sum};
use crate::quantities::{Delta, Epsilon, NoiseMultiplier, SamplingRate};

/// A bound on the Rényi divergence at every order of [`orders`].
#[derive(Debug, Clone, PartialEq)]
pub struct RdpCurve {
    values: Vec<f64>,
}

/// The orders of a curve, rising: 1.1 to 10.9 in steps of 0.1, 11 to 63, 128, 256, 512 and 1024.
pub fn orders() -> impl Iterator<Item = f64> {
    let fractional = (1..100).map(|tenths| 1.0 + f64::from(tenths) / 10.0);
    let integer = (11..64).chain([128, 256, 512, 1024]).map(f64::from);
    fractional.chain(integer)
}

impl RdpCurve {
    /// Nothing was released.
    #[must_use]
    pub fn nothing() -> Self {
        Self::from_orders(|_| 0.0)
    }

    /// The curve with the value `divergence(order)` at each order.
    pub(crate) fn from_orders(divergence: impl Fn(f64) -> f64) -> Self {
        Self { values: orders().map(divergence).collect() }
    }

    /// The Gaussian mechanism: α/(2σ²) (Mironov 2017, Corollary 3).
    #[must_use]
    pub fn gaussian(noise_multiplier: NoiseMultiplier) -> Self {
        Self::from_orders(|order| order / (2.0 * noise_multiplier.get().powi(2)))
    }

    /// The Laplace mechanism (Mironov 2017, Corollary 2), with scale over sensitivity for λ.
    #[must_use]
    pub fn laplace(noise_multiplier: NoiseMultiplier) -> Self {
        let scale = noise_multiplier.get();
        Self::from_orders(|order| {
            let towards = (order / (2.0 * order - 1.0)).ln() + (order - 1.0) / scale;
            let away = ((order - 1.0) / (2.0 * order - 1.0)).ln() - order / scale;
            log_add(towards, away).max(0.0) / (order - 1.0)
        })
    }

    /// The Gaussian mechanism on a Poisson sample, under add-or-remove or zero-out.
    #[must_use]
    pub fn poisson_gaussian(rate: SamplingRate, noise_multiplier: NoiseMultiplier) -> Self {
        if rate == SamplingRate::ONE {
            return Self::gaussian(noise_multiplier);
        }
        Self::from_orders(|order| poisson_gaussian_at(order, rate, noise_multiplier))
    }

    /// Adds `steps` times the divergences of `other`: both mechanisms, composed.
    pub fn compose(&mut self, other: &Self, steps: u64) {
        for (value, added) in self.values.iter_mut().zip(&other.values) {
            *value += added * steps as f64;
        }
    }

    /// Order and divergence, by rising order.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        orders().zip(self.values.iter().copied())
    }

    /// The divergence at one of [`orders`]; infinite at any other number.
    #[must_use]
    pub fn at(&self, order: f64) -> f64 {
        self.points().find(|(known, _)| *known == order).map_or(f64::INFINITY, |(_, value)| value)
    }

    /// The smallest ε that the curve proves at δ, over all orders.
    #[must_use]
    pub fn epsilon(&self, delta: Delta) -> Epsilon {
        let best = self.points().map(|(order, value)| epsilon_at(order, value, delta.get()));
        Epsilon::from_computed(best.fold(f64::INFINITY, f64::min))
    }

    /// The smallest δ that the curve proves at ε, over all orders; at most 1.
    #[must_use]
    pub fn delta(&self, epsilon: Epsilon) -> f64 {
        if !epsilon.is_finite() {
            return 0.0;
        }
        let best = self.points().map(|(order, value)| log_delta_at(order, value, epsilon.get()));
        best.fold(0.0, f64::min).exp()
    }
}

/// One point of [`RdpCurve::poisson_gaussian`]. Whole orders take far less time than others.
pub(crate) fn poisson_gaussian_at(order: f64, rate: SamplingRate, noise_multiplier: NoiseMultiplier) -> f64 {
    let (rate, sigma) = (rate.get(), noise_multiplier.get());
    let log_excess = if order.fract() == 0.0 {
        log_excess_binomial(order, rate, sigma)
    } else {
        log_excess_integral(order, rate, sigma)
    };
    log_add(0.0, log_excess) / (order - 1.0)
}

/// ε at one order; 0 where the total variation distance, bounded by √(1 − e^−divergence), is already below δ.
pub(crate) fn epsilon_at(order: f64, divergence: f64, delta: f64) -> f64 {
    if -(-divergence).exp_m1() < delta * delta {
        return 0.0;
    }
    divergence + (-1.0 / order).ln_1p() - (delta * order).ln() / (order - 1.0)
}

/// The largest divergence at one order that proves (ε, δ); negative where none does.
pub(crate) fn budget_at(order: f64, epsilon: f64, delta: f64) -> f64 {
    epsilon - (-1.0 / order).ln_1p() + (delta * order).ln() / (order - 1.0)
}

/// ln δ at one order, the inverse of [`epsilon_at`].
fn log_delta_at(order: f64, divergence: f64, epsilon: f64) -> f64 {
    let total_variation = 0.5 * (-(-divergence).exp_m1()).ln();
    let moment = (order - 1.0) * (divergence - epsilon + (-1.0 / order).ln_1p()) - order.ln();
    total_variation.min(moment)
}

/// ln(A − 1) for integer α, where A = E_{x~N(0,σ²)}[((1−q) + q·e^{(2x−1)/2σ²})^α] (Mironov-Talwar-Zhang, section 3.3).
///
/// A is a binomial sum whose weights add up to 1, so taking 1 from every exponential leaves only positive terms
/// and no digits are lost where A is close to 1.
fn log_excess_binomial(order: f64, rate: f64, sigma: f64) -> f64 {
    let mut log_binomial = 0.0;
    let terms: Vec<f64> = (0..=order as u32)
        .map(f64::from)
        .map(|k| {
            let log_weight = log_binomial + k * rate.ln() + (order - k) * (-rate).ln_1p();
            log_binomial += ((order - k) / (k + 1.0)).ln();
            log_weight + log_exp_minus_one((k * k - k) / (2.0 * sigma * sigma))
        })
        .collect();
    log_sum(&terms)
}

/// ln(A − 1) for any α > 1, by integrating over x.
///
/// With u = q(e^{(2x−1)/2σ²} − 1), whose mean is 0, A − 1 = E[(1+u)^α − 1 − αu] and the integrand is never negative.
/// It is analytic for |Im x| < πσ² and falls like a Gaussian, so the trapezoidal rule converges exponentially: with
/// the step below its error is under e^−100 of the result.
fn log_excess_integral(order: f64, rate: f64, sigma: f64) -> f64 {
    let step = (sigma * sigma).min(sigma) / 16.0;
    let first = -14.0 * sigma;
    let points = ((order + 28.0 * sigma) / step).ceil() as u32;
    let log_scale = (step / (sigma * (2.0 * std::f64::consts::PI).sqrt())).ln();
    let terms: Vec<f64> = (0..=points)
        .map(|i| {
            let x = first + f64::from(i) * step;
            let log_density = log_scale - x * x / (2.0 * sigma * sigma);
            log_density + log_convex_part(order, rate, (2.0 * x - 1.0) / (2.0 * sigma * sigma))
        })
        .collect();
    log_sum(&terms)
}

/// ln((1+u)^α − 1 − αu) for u = q(e^loss − 1).
fn log_convex_part(order: f64, rate: f64, loss: f64) -> f64 {
    let log_power = order * log_add((-rate).ln_1p(), rate.ln() + loss);
    if log_power > 600.0 {
        return log_power;
    }
    let u = rate * loss.exp_m1();
    if u.abs() > 1e-2 {
        return ((order * u.ln_1p()).exp_m1() - order * u).ln();
    }
    // The binomial series from its second term; below 1e-2 twelve terms exceed machine precision for orders below 11.
    let mut term = order * u;
    let series: f64 = (2..14)
        .map(|k| {
            term *= u * (order - f64::from(k) + 1.0) / f64::from(k);
            term
        })
        .sum();
    series.ln()
}

/// ln(e^x − 1) for x ≥ 0.
fn log_exp_minus_one(x: f64) -> f64 {
    if x > 40.0 { x } else { x.exp_m1().ln() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(rate: f64, sigma: f64) -> RdpCurve {
        RdpCurve::poisson_gaussian(SamplingRate::new(rate).unwrap(), NoiseMultiplier::new(sigma).unwrap())
    }

    fn epsilon(rate: f64, sigma: f64, steps: u64, delta: f64) -> f64 {
        let mut total = RdpCurve::nothing();
        total.compose(&curve(rate, sigma), steps);
        total.epsilon(Delta::new(delta).unwrap()).get()
    }

    #[test]
    fn epsilon_agrees_with_the_reference() {
        // dp_accounting 0.6.0, default orders.
        for (rate, sigma, steps, delta, expected) in [
            (1.0, 1.0, 1, 1e-5, 4.728_507),
            (1.0, 10.0, 100, 1e-5, 4.728_507),
            (1.0, 1.1, 100, 1e-5, 83.099_779),
            (0.01, 1.0, 1000, 1e-5, 2.101_367),
            (0.01, 0.8, 1000, 1e-5, 3.695_613),
            (0.1, 1.1, 100, 1e-5, 6.620_769),
            (0.001, 0.6, 2000, 1e-6, 3.313_336),
            (256.0 / 60_000.0, 1.1, 14_100, 1e-5, 2.600_343),
            (0.02, 1.0, 500, 1e-8, 4.472_628),
            (0.001, 0.8, 10_000, 1e-6, 1.703_625),
            (0.1, 2.0, 500, 1e-5, 6.034_562),
            (1.0, 5.0, 100, 1e-5, 10.725_510),
            (0.0004, 0.6, 20_000, 1e-7, 3.542_665),
        ] {
            // The reference adds the alternating series at fractional orders without signs, so it may be above.
            let found = epsilon(rate, sigma, steps, delta);
            let distance = expected - found;
            assert!(
                (-2e-6..2e-3 * expected).contains(&distance),
                "q={rate} sigma={sigma} T={steps}: {found} vs {expected}"
            );
        }
    }

    #[test]
    fn fractional_orders_agree_with_high_precision_integration() {
        // mpmath 1.3, 25 digits: q, sigma, order, divergence
        for (rate, sigma, order, expected) in
            [(0.01, 0.8, 4.8, 1.312_120_118_719_202e-3), (0.1, 1.1, 3.9, 3.480_406_571_330_736e-2)]
        {
            let found =
                curve(rate, sigma).points().find(|(known, _)| *known == order).map(|(_, value)| value);
            let found = found.expect("one of the orders");
            assert!((found / expected - 1.0).abs() < 1e-11, "{rate} {sigma} {order}: {found}");
        }
    }

    #[test]
    fn one_sampled_step_agrees_with_the_reference() {
        // dp_accounting 0.6.0; q = 0.01, sigma = 1
        let expected = [
            (2.0, 1.718_134e-4),
            (4.0, 3.631_540e-4),
            (8.0, 8.936_439e-4),
            (16.0, 3.087_851),
            (32.0, 11.246_276),
        ];
        let curve = curve(0.01, 1.0);
        let mut matched = 0;
        for (order, value) in curve.points() {
            for (_, reference) in expected.iter().filter(|(known, _)| *known == order) {
                assert!((value / reference - 1.0).abs() < 1e-6, "{order}: {value} vs {reference}");
                matched += 1;
            }
        }
        assert_eq!(matched, expected.len());
    }

    #[test]
    fn the_integral_and_the_binomial_sum_agree_at_integer_orders() {
        for rate in [1e-7, 1e-3, 0.3, 0.99] {
            for sigma in [0.2, 0.7, 1.0, 5.0, 1000.0] {
                for order in [2.0, 3.0, 7.0, 10.0] {
                    let sum = log_excess_binomial(order, rate, sigma);
                    let integral = log_excess_integral(order, rate, sigma);
                    assert!(
                        (sum - integral).abs() < 1e-9 * sum.abs().max(1.0),
                        "{rate} {sigma} {order}: {sum} {integral}"
                    );
                }
            }
        }
    }

    #[test]
    fn divergence_rises_with_the_order_and_stays_finite_everywhere() {
        let mut checked = 0;
        for rate in [1e-7, 1e-4, 0.01, 0.5, 1.0] {
            for sigma in [0.2, 0.5, 1.0, 4.0, 1000.0] {
                let curve = curve(rate, sigma);
                let values: Vec<f64> = curve.points().map(|(_, value)| value).collect();
                assert!(
                    values.iter().all(|value| value.is_finite() && *value > 0.0),
                    "{rate} {sigma}: {values:?}"
                );
                assert!(
                    values.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)),
                    "{rate} {sigma}: {values:?}"
                );
                checked += values.len();
            }
        }
        assert_eq!(checked, 25 * orders().count());
    }

    #[test]
    fn delta_inverts_epsilon() {
        let delta = Delta::new(1e-6).unwrap();
        let mut total = RdpCurve::nothing();
        total.compose(&curve(0.01, 1.0), 1000);
        let back = total.delta(total.epsilon(delta));
        assert!((back / delta.get() - 1.0).abs() < 1e-9, "{back}");
    }
}
