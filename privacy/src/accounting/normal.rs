//! The standard normal distribution, accurate in relative terms far into both tails.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// Φ(x), the probability of a value of at most `x`.
pub(crate) fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// ln(1 − Φ(x)), however small that is.
pub(crate) fn ln_above(x: f64) -> f64 {
    if x < 0.0 { cdf(-x).ln() } else { -0.5 * x * x - 0.5 * (2.0 * PI).ln() + mills(x).ln() }
}

/// Φ(high) − Φ(low) for low ≤ high, to machine precision in relative terms where they are close.
///
/// Around the middle m the density is φ(m) times a series in the Hermite polynomials of m; the first term left out,
/// He₈(m)·h⁸/(9!·2⁸) for a distance of h, is below 2·10⁻¹⁶.
pub(crate) fn between(low: f64, high: f64) -> f64 {
    let (middle, width) = (0.5 * (low + high), high - low);
    // False where an end is infinite.
    let narrow = width <= NARROW && width * middle.abs() <= NARROW;
    if !narrow {
        return if low > 0.0 { cdf(-low) - cdf(-high) } else { cdf(high) - cdf(low) };
    }
    let (square, step) = (middle * middle, width * width);
    let second = square - 1.0;
    let fourth = (square - 6.0) * square + 3.0;
    let sixth = ((square - 15.0) * square + 45.0) * square - 15.0;
    let series = 1.0 + step / 24.0 * (second + step / 80.0 * (fourth + step / 168.0 * sixth));
    density(middle) * width * series
}

/// φ(x), the density at `x`.
pub(crate) fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() * FRAC_1_SQRT_2 * (0.5 * FRAC_2_SQRT_PI)
}

/// The Mills ratio (1 − Φ(x)) / φ(x): decreasing, close to 1/x for large `x`, infinite below about −38.
pub(crate) fn mills(x: f64) -> f64 {
    (PI / 2.0).sqrt() * scaled_complementary_error(x * FRAC_1_SQRT_2)
}

/// exp(x²)·erfc(x), by the continued fraction where erfc would underflow or lose digits.
fn scaled_complementary_error(x: f64) -> f64 {
    if x < CONTINUED_FRACTION_FROM {
        return (x * x).exp() * libm::erfc(x);
    }
    let tail = (1..=CONTINUED_FRACTION_TERMS).rev().fold(x, |tail, k| x + 0.5 * f64::from(k) / tail);
    1.0 / (tail * PI.sqrt())
}

/// Largest distance, also times the middle, for which [`between`] uses its series.
const NARROW: f64 = 0.06;
/// From here the continued fraction converges to machine precision in [`CONTINUED_FRACTION_TERMS`] terms.
const CONTINUED_FRACTION_FROM: f64 = 4.0;
const CONTINUED_FRACTION_TERMS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mills_ratio_agrees_with_reference_values() {
        // Taylor series of erf in 80-digit decimal arithmetic.
        for (x, expected) in MILLS {
            assert!((mills(x) / expected - 1.0).abs() < 5e-14, "{x}: {} vs {expected}", mills(x));
        }
    }

    #[test]
    fn logarithms_of_small_probabilities_agree_with_reference_values() {
        // mpmath 1.3, 40 digits
        for (x, expected) in LN_ABOVE {
            assert!((ln_above(x) - expected).abs() < 1e-13 * expected.abs().max(1.0), "{x}: {}", ln_above(x));
        }
    }

    #[test]
    fn probabilities_between_two_values_agree_with_reference_values() {
        // mpmath 1.3, 40 digits
        for (low, high, expected) in BETWEEN {
            assert!(
                (between(low, high) / expected - 1.0).abs() < 2e-14,
                "{low} {high}: {}",
                between(low, high)
            );
            assert_eq!(between(-high, -low), between(low, high), "{low} {high}");
        }
    }

    #[test]
    fn narrow_probabilities_add_up_to_wide_ones() {
        let mut wide = 0;
        for step in [0.2, 0.059, 0.03, 1e-3] {
            let edges: Vec<f64> = (0..=(10.0 / step) as u32).map(|i| f64::from(i) * step - 4.0).collect();
            let sum: f64 = edges.windows(2).map(|pair| between(pair[0], pair[1])).sum();
            let expected = between(edges[0], edges[edges.len() - 1]);
            assert!((sum - expected).abs() < 1e-14, "{step}: {sum} {expected}");
            wide += usize::from(step > NARROW);
        }
        assert_eq!(wide, 1);
    }

    #[test]
    fn the_two_forms_of_the_mills_ratio_meet() {
        let x = CONTINUED_FRACTION_FROM;
        let below = (x * x).exp() * libm::erfc(x);
        assert!((scaled_complementary_error(x) / below - 1.0).abs() < 1e-14);
    }

    const MILLS: [(f64, f64); 8] = [
        (-6.0, 164_585_134.988_653_86),
        (-2.5, 56.696_331_457_739_77),
        (0.0, 1.253_314_137_315_500_3),
        (0.75, 0.752_571_179_063_408_1),
        (3.0, 0.304_590_298_710_103_3),
        (5.5, 0.176_322_985_757_102_7),
        (6.0, 0.162_377_660_896_867_46),
        (8.0, 0.123_131_963_257_932_3),
    ];

    const LN_ABOVE: [(f64, f64); 6] = [
        (-3.0, -0.0013508099647481938),
        (0.0, -std::f64::consts::LN_2),
        (1.0, -1.8410216450092635),
        (6.0, -20.736768949974706),
        (40.0, -804.608_442_013_753_8),
        (200.0, -20006.21728089819),
    ];

    /// Low, high, probability between.
    const BETWEEN: [(f64, f64, f64); 9] = [
        (0.0, 0.0546875, 0.021806285992492672),
        (0.25, 0.296875, 0.018012702675730918),
        (1.0, 1.046875, 0.011076637152937452),
        (3.0, 3.015625, 6.76469845326053e-5),
        (6.0, 6.0078125, 4.637202261043297e-11),
        (12.0, 12.00390625, 8.190_818_360_508_66e-35),
        (12.0, 12.000015258789062, 3.274_821_838_795_575e-37),
        (2.0, 2.5, 0.016540466622403072),
        (-0.5, 0.75, 0.4648351088971449),
    ];
}
