//! Exponentials and what is made of them, as loops that become wide ones.

use crate::kernel::vectorized;

/// eˣ within 3 · 10⁻⁷ of itself where it is above 10⁻³⁷; below, something as small. By Cody and Waite: 2ⁿ times a polynomial in what
/// n ln 2 leaves.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    // ln 2 in two parts, of which the first has few digits.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let polynomial = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]
        .into_iter()
        .fold(0.0, |sum, coefficient| sum * rest + coefficient);
    polynomial * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Makes the numbers of a row their softmax, leaving out those whose `masked` is set, which become zero as the others do if all
/// are left out.
pub(super) fn softmax(row: &mut [f32], masked: &[bool]) {
    vectorized(
        #[inline(always)]
        || {
            let pairs = row.iter_mut().zip(masked);
            pairs.for_each(|(value, &masked)| *value = if masked { f32::NEG_INFINITY } else { *value });
            let largest =
                row.iter().fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most });
            if largest == f32::NEG_INFINITY {
                row.fill(0.0);
                return;
            }
            for (value, &masked) in row.iter_mut().zip(masked) {
                *value = if masked { 0.0 } else { exp(*value - largest) };
            }
            let mut sums = [0.0_f32; LANES];
            let chunks = row.chunks_exact(LANES);
            for (sum, &value) in sums.iter_mut().zip(chunks.remainder()) {
                *sum += value;
            }
            for chunk in chunks {
                sums.iter_mut().zip(chunk).for_each(|(sum, &value)| *sum += value);
            }
            let scale = 1.0 / sums.iter().sum::<f32>();
            row.iter_mut().for_each(|value| *value *= scale);
        },
    );
}

/// x Φ(x), with Φ the distribution function of the standard normal distribution (Hendrycks and Gimpel, 1606.08415).
pub(super) fn gelu(input: &[f32], output: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || input.iter().zip(output.iter_mut()).for_each(|(&x, y)| *y = x * normal(x)[0]),
    );
}

/// Multiplies the gradient by the derivative, Φ(x) + x φ(x).
pub(super) fn gelu_back(input: &[f32], gradient: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (&x, d) in input.iter().zip(gradient.iter_mut()) {
                let [below, density] = normal(x);
                *d *= below + x * density;
            }
        },
    );
}

/// Distribution and density of the standard normal distribution within 3 · 10⁻⁷, by Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn normal(x: f32) -> [f32; 2] {
    let exponential = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let polynomial = [1.061_405_4, -1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6]
        .into_iter()
        .fold(0.0, |sum, coefficient| (sum + coefficient) * t);
    let tail = 0.5 * polynomial * exponential;
    [if x < 0.0 { tail } else { 1.0 - tail }, exponential * 0.398_942_3]
}

const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close_and_zeros_stay_small() {
        for at in -8700..=8800 {
            let x = at as f32 / 100.0;
            let (ours, true_value) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / true_value - 1.0).abs() < 3e-7, "{x}: {ours} {true_value}");
        }
        assert!(exp(-1e9) < 2e-38);
    }

    #[test]
    fn the_softmax_of_a_row_leaves_out_what_is_masked() {
        let mut row: Vec<f32> = (0..37).map(|at| at as f32 / 7.0).collect();
        let masked: Vec<bool> = (0..37).map(|at| at % 3 == 0).collect();
        let powers: Vec<f64> = row.iter().map(|&value| f64::from(value).exp()).collect();
        let sum: f64 =
            powers.iter().zip(&masked).filter(|(_, masked)| !**masked).map(|(power, _)| power).sum();
        softmax(&mut row, &masked);
        for ((ours, power), &masked) in row.iter().zip(powers).zip(&masked) {
            let expected = if masked { 0.0 } else { power / sum };
            assert!((f64::from(*ours) - expected).abs() < 1e-7, "{ours} {expected}");
        }
        softmax(&mut row, &[true; 37]);
        assert_eq!(row, [0.0; 37]);
    }

    /// Against ∫ φ by Simpson's rule.
    #[test]
    fn the_distribution_of_the_normal_is_close_enough() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut below, step) = (0.5, 1e-3);
        for at in 0..8000 {
            let x = f64::from(at) * step;
            let [plus, minus] = [x, -x].map(|x| normal(x as f32));
            assert!((f64::from(plus[0]) - below).abs() < 3e-7, "{x}");
            assert!((f64::from(minus[0]) - (1.0 - below)).abs() < 3e-7, "{x}");
            assert!((f64::from(plus[1]) - density(x)).abs() < 3e-7, "{x}");
            below += step / 6.0 * (density(x) + 4.0 * density(x + step / 2.0) + density(x + step));
        }
    }
}
