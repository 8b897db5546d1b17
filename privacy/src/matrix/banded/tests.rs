//! The matrix against its definition, reference values, and every participation pattern of short runs.

use super::*;

pub(in crate::matrix) fn noise(noise_multiplier: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(noise_multiplier).unwrap()
}

pub(in crate::matrix) fn banded(bands: usize, max_participations: u32) -> BandedSquareRoot {
    let participation = Participation::new(bands as u64, max_participations).unwrap();
    BandedSquareRoot::new(bands, participation).unwrap()
}

/// c_0, …, c_{p−1} in doubles.
pub(in crate::matrix) fn real_coefficients(bands: usize) -> Vec<f64> {
    let mut value = 1.0;
    (0..bands)
        .map(|j| {
            if j > 0 {
                value *= (2 * j - 1) as f64 / (2 * j) as f64;
            }
            value
        })
        .collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

#[test]
fn the_coefficients_are_those_of_the_square_root_rounded_once() {
    let real = real_coefficients(BANDS_MAX);
    let rounded: Vec<i64> = real.iter().map(|c| (c * 4096.0).round() as i64).collect();
    let matrix = banded(BANDS_MAX, 1);
    assert_eq!(matrix.coefficients(), rounded);
    // What stability rests on.
    assert!(matrix.coefficients()[0] > matrix.coefficients()[1]);
    assert!(matrix.coefficients().is_sorted_by(|a, b| a >= b && *b > 0));
    // The square of the series is 1/(1 − x), whose coefficients are all one.
    for t in 0..500 {
        let square: f64 = (0..=t).map(|j| real[j] * real[t - j]).sum();
        assert!((square - 1.0).abs() < 1e-12, "{t}: {square}");
    }
}

#[test]
fn norms_agree_with_the_reference_up_to_the_documented_rounding() {
    for (bands, expected) in [(1, 1.0), (8, 1.310_87), (64, 1.545_59), (256, 1.682_57)] {
        let exact = norm(&real_coefficients(bands));
        assert!((exact - expected).abs() < 5e-6, "{bands}: {exact}");
        for max_participations in [1, 4, 65_535] {
            let factor = banded(bands, max_participations).sensitivity_factor();
            let rounded = factor / f64::from(max_participations).sqrt();
            let allowed = ((bands - 1) as f64).sqrt() / 8192.0 + 1e-12;
            assert!((rounded - exact).abs() <= allowed, "{bands}: {rounded} and {exact}");
        }
    }
}

#[test]
fn the_noise_left_in_sums_agrees_with_the_reference() {
    // T = 1024 steps, k = 4 participations.
    let participation = Participation::new(256, 4).unwrap();
    for (bands, expected) in [(1, "45.3"), (16, "14.4"), (64, "8.75"), (256, "6.49")] {
        let matrix = BandedSquareRoot::new(bands, participation).unwrap();
        let found = matrix.prefix_sum_rmse(1024, noise(1.0));
        assert_eq!(format!("{found:.*}", expected.len() - expected.find('.').unwrap() - 1), expected);
        assert!((matrix.prefix_sum_rmse(1024, noise(3.0)) / found - 3.0).abs() < 1e-12);
    }
}

#[test]
fn acceptance_25_the_matrix_times_its_inverse_is_the_identity() {
    for bands in [1, 2, 3, 8, 100, 500] {
        let matrix = banded(bands, 1);
        let inverse = matrix.inverse(300);
        for t in 0..300 {
            let product: f64 = (0..bands.min(t + 1))
                .map(|j| matrix.coefficients()[j] as f64 / 4096.0 * inverse[t - j])
                .sum();
            let identity = if t == 0 { 1.0 } else { 0.0 };
            assert!((product - identity).abs() < 1e-12, "{bands} bands, {t}: {product}");
        }
        // Decoding is stable: an error in one release comes back hardly more than twice.
        assert!(inverse.iter().map(|value| value.abs()).sum::<f64>() < 2.15, "{bands}");
    }
}

/// Largest ‖Σ_i A[·, t_i]‖² over all patterns of at most 0, 1, 2, … participations that the separation allows.
///
/// Columns have no negative entry, so equal updates are the worst.
fn largest_shifts(coefficients: &[i64], steps: usize, separation: u64) -> Vec<u64> {
    let mut largest = vec![0; steps + 1];
    for taken in patterns(steps, separation) {
        let mut shift = vec![0; steps];
        for &first in &taken {
            shift[first as usize..].iter_mut().zip(coefficients).for_each(|(sum, a)| *sum += a);
        }
        let squared = shift.iter().map(|sum: &i64| sum.unsigned_abs().pow(2)).sum();
        largest[taken.len()] = largest[taken.len()].max(squared);
    }
    let mut worst = 0;
    largest.iter_mut().for_each(|squared| {
        worst = worst.max(*squared);
        *squared = worst;
    });
    largest
}

/// All sets of steps in which one member may take part.
fn patterns(steps: usize, separation: u64) -> Vec<Vec<u64>> {
    let participation = Participation::new(separation, steps as u32).unwrap();
    let mut patterns = vec![vec![]];
    for step in 0..steps as u64 {
        let mut longer: Vec<Vec<u64>> = patterns.clone();
        longer.retain(|taken| participation.allows(taken, step));
        longer.iter_mut().for_each(|taken| taken.push(step));
        patterns.append(&mut longer);
    }
    patterns
}

#[test]
fn acceptance_25_the_sensitivity_is_the_worst_of_all_participation_patterns() {
    assert_eq!(patterns(12, 1).len(), 1 << 12);
    let (mut attained, mut below, mut exceeded) = (0, 0, 0);
    for (steps, separation, bands) in small_runs() {
        let once = banded(bands, 1);
        let largest = largest_shifts(once.coefficients(), steps, separation as u64);
        for (k, &worst) in largest.iter().enumerate().skip(1) {
            let bound = once.squared_sensitivity() * k as u64;
            let has_room = (k - 1) * separation + bands <= steps;
            let case = format!("T={steps} b={separation} p={bands} k={k}: {worst} and {bound}");
            let participation = Participation::new(separation as u64, k as u32).unwrap();
            match BandedSquareRoot::new(bands, participation) {
                Ok(matrix) if has_room => {
                    assert_eq!((worst, bound), (bound, matrix.squared_sensitivity()), "{case}");
                    attained += 1;
                }
                Ok(_) => {
                    assert!(worst <= bound, "{case}");
                    below += 1;
                }
                // What is refused is refused for a reason: columns overlap.
                Err(_) if has_room && k > 1 => {
                    assert!(worst > bound, "{case}");
                    exceeded += 1;
                }
                Err(_) => assert!(bands > separation, "{case}"),
            }
        }
    }
    assert!(attained > 300 && below > 300 && exceeded > 100, "{attained} {below} {exceeded}");
}

/// T, b and p of all runs of at most 12 steps.
fn small_runs() -> impl Iterator<Item = (usize, usize, usize)> {
    (1..=12).flat_map(|t| (1..=t).flat_map(move |b| (1..=t).map(move |p| (t, b, p))))
}

#[test]
fn acceptance_25_more_bands_than_the_separation_are_refused_by_name() {
    let participation = Participation::new(8, 3).unwrap();
    assert!(BandedSquareRoot::new(8, participation).is_ok());
    let refused = BandedSquareRoot::new(9, participation).unwrap_err();
    assert_eq!(refused, MatrixError::BandsExceedSeparation { bands: 9, min_separation: 8 });
    assert!(refused.to_string().contains("use at most 8 bands"), "{refused}");
    for bands in [0, BANDS_MAX + 1] {
        let participation = Participation::new(1 << 20, 1).unwrap();
        assert_eq!(BandedSquareRoot::new(bands, participation), Err(MatrixError::Bands { bands }));
    }
}
