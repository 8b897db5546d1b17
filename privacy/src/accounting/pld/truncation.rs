//! Poisson sampling with a cap on the sample (Ganesh 2025, arXiv 2508.15089).
//!
//! When more than the cap are sampled, a uniform subset stays. Then one more record displaces another one, which moves a
//! sum by up to two; otherwise the round is plain Poisson sampling. Whether the cap was reached is given away.

/// What a cap does to one record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Truncation {
    /// Probability that a sampled record finds the cap already reached.
    pub(crate) probability: f64,
    /// Probability that the record is in the sample, given that the cap is reached.
    pub(crate) rate: f64,
}

impl Truncation {
    /// For a cap of at least 1 on a Poisson sample of a population.
    pub(crate) fn of(rate: f64, cap: u64, population: u64) -> Self {
        let probability = binomial_at_least(cap, population.saturating_sub(1), rate);
        if probability == 0.0 {
            return Self { probability, rate };
        }
        let kept = binomial_at_least(cap + 1, population, rate) * cap as f64 / population as f64;
        Self { probability, rate: (kept / probability).min(1.0) }
    }
}

/// P[Bin(trials, rate) ≥ least], by adding the terms of the shorter side from its largest on.
fn binomial_at_least(least: u64, trials: u64, rate: f64) -> f64 {
    if least > trials {
        return 0.0;
    }
    if rate >= 1.0 {
        return 1.0;
    }
    let (n, k) = (trials as f64, least as f64);
    if k <= n * rate && least > 0 {
        return 1.0 - binomial_at_least(trials - least + 1, trials, 1.0 - rate);
    }
    let log_choose = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let mut term = (log_choose + k * rate.ln() + (n - k) * (-rate).ln_1p()).exp();
    let (mut sum, mut count) = (0.0, k);
    while term > sum * f64::EPSILON {
        sum += term;
        term *= (n - count) / (count + 1.0) * rate / (1.0 - rate);
        count += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomial_tails_add_up() {
        // Bin(4, 1/2): 1, 4, 6, 4, 1 sixteenths.
        for (least, sixteenths) in [(0, 16.0), (1, 15.0), (2, 11.0), (3, 5.0), (4, 1.0), (5, 0.0)] {
            assert!((binomial_at_least(least, 4, 0.5) - sixteenths / 16.0).abs() < 1e-14, "{least}");
        }
    }
}
