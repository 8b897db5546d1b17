//! Statistical tests of integer samplers against exact probabilities. Floating point belongs here, not in a sampler.
#![allow(clippy::float_arithmetic)]

use std::f64::consts::{PI, SQRT_2};

/// Chance that a correct sampler fails one of these tests; seeds are fixed, so it either does or does not.
pub(crate) const ALPHA: f64 = 1e-6;

/// Pearson's goodness of fit of draws against the probabilities of `low..=high`, everything outside in two more cells.
/// Neighbouring cells are pooled until each expects ten draws. Returns the p-value.
pub(crate) fn chi_square(draws: &[i64], low: i64, high: i64, cumulative: impl Fn(i64) -> f64) -> f64 {
    let cells = (high - low + 1) as usize;
    let mut counts = vec![0_u64; cells + 2];
    for &draw in draws {
        counts[(draw.clamp(low - 1, high + 1) - low + 1) as usize] += 1;
    }
    let mut probabilities = vec![cumulative(low - 1)];
    probabilities.extend((low..=high).map(|n| cumulative(n) - cumulative(n - 1)));
    probabilities.push(1.0 - cumulative(high));
    pearson(&counts, &probabilities, draws.len() as f64)
}

fn pearson(counts: &[u64], probabilities: &[f64], n: f64) -> f64 {
    let (mut statistic, mut cells) = (0.0, 0_u32);
    let (mut seen, mut expected) = (0.0, 0.0);
    for (i, (&count, &p)) in counts.iter().zip(probabilities).enumerate() {
        seen += count as f64;
        expected += p * n;
        let rest: f64 = if expected >= 10.0 { probabilities[i + 1..].iter().sum() } else { 0.0 };
        if expected >= 10.0 && (rest * n >= 10.0 || i + 1 == counts.len()) {
            statistic += (seen - expected).powi(2) / expected;
            cells += 1;
            (seen, expected) = (0.0, 0.0);
        }
    }
    if expected > 0.0 {
        statistic += (seen - expected).powi(2) / expected;
        cells += 1;
    }
    assert!(cells >= 3, "the test has only {cells} cells");
    upper_gamma(f64::from(cells - 1) / 2.0, statistic / 2.0)
}

/// Mean, variance and kurtosis of the draws.
pub(crate) fn moments(draws: &[i64]) -> [f64; 3] {
    let n = draws.len() as f64;
    let mean = draws.iter().map(|&x| x as f64).sum::<f64>() / n;
    let central = |power| draws.iter().map(|&x| (x as f64 - mean).powi(power)).sum::<f64>() / n;
    [mean, central(2), central(4) / central(2).powi(2)]
}

/// P[N ≤ x] for a standard normal N, to about fourteen digits.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    let tail = upper_gamma(0.5, x * x / 2.0) / 2.0;
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// Q(a, x) = Γ(a, x)/Γ(a): the power series of its complement below a + 1, the continued fraction of Legendre above.
pub(crate) fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut k) = (1.0 / a, 1.0 / a, a);
        while term > sum * 1e-17 {
            k += 1.0;
            term *= x / k;
            sum += term;
        }
        return 1.0 - scale * sum;
    }
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1e300, 1.0 / b);
    let mut h = d;
    for i in 1..100_000 {
        let an = -f64::from(i) * (f64::from(i) - a);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    scale * h
}

/// ln Γ(a) by Stirling's series, shifted to a ≥ 20.
fn ln_gamma(a: f64) -> f64 {
    if a < 20.0 {
        return ln_gamma(a + 1.0) - a.ln();
    }
    let series = 1.0 / (12.0 * a) - 1.0 / (360.0 * a.powi(3)) + 1.0 / (1260.0 * a.powi(5))
        - 1.0 / (1680.0 * a.powi(7));
    (a - 0.5) * a.ln() - a + 0.5 * (2.0 * PI).ln() + series
}

#[test]
fn the_reference_functions_match_known_values() {
    // NIST Handbook of Mathematical Functions; Q(1/2, x²) = erfc(x).
    assert!((ln_gamma(0.5) - PI.sqrt().ln()).abs() < 1e-13);
    assert!((upper_gamma(0.5, 1.0) - 0.157_299_207_050_285_13).abs() < 1e-14);
    assert!((upper_gamma(0.5, 9.0) / 2.209_049_699_858_544e-5 - 1.0).abs() < 1e-12);
    assert!((upper_gamma(50.0, 50.0) - 0.481_191_684_527_956_3).abs() < 1e-12);
    assert!((normal_cdf(1.0) - 0.841_344_746_068_542_9).abs() < 1e-14);
    assert!((normal_cdf(-SQRT_2) - 0.078_649_603_525_142_57).abs() < 1e-14);
}
