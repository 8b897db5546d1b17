//! 25: the banded square root. The unit tests named `acceptance_25` in `matrix` go deeper: all lengths, separations and
//! bands up to twelve steps, the wider matrices, and the covariance of decoded noise, drawn and measured.

use skep_privacy::matrix::{BandedSquareRoot, MatrixError, Participation};

/// Of the runs that are looked at exhaustively.
const STEPS: usize = 12;

#[test]
fn t25_the_matrix_times_its_inverse_is_the_identity() {
    for bands in [1, 2, 7, STEPS] {
        let matrix = banded(bands, STEPS as u64, 1).unwrap();
        let (a, inverse) = (units(&matrix), matrix.inverse(STEPS));
        for step in 0..STEPS {
            let product: f64 = (0..bands.min(step + 1)).map(|j| a[j] * inverse[step - j]).sum();
            let identity = f64::from(u8::from(step == 0));
            assert!((product - identity).abs() < 1e-12, "{bands} bands, step {step}: {product}");
        }
    }
}

/// Entries are positive, so equal updates in all steps of a pattern are its worst.
#[test]
fn t25_the_sensitivity_is_that_of_the_worst_pattern_of_participation() {
    let mut patterns = 0;
    for (bands, separation, most) in [(1, 1, 3), (2, 3, 4), (4, 4, 3), (3, 5, 2), (6, 6, 2)] {
        let matrix = banded(bands, separation, most).unwrap();
        let worst = (1_u32..1 << STEPS)
            .map(|pattern| (0..STEPS as u64).filter(|step| pattern >> step & 1 == 1).collect::<Vec<_>>())
            .filter(|joined| joined.len() <= most as usize)
            .filter(|joined| joined.windows(2).all(|pair| pair[1] - pair[0] >= separation))
            .inspect(|_| patterns += 1)
            .map(|joined| moved(&units(&matrix), &joined))
            .fold(0.0, f64::max);
        let norm = units(&matrix).iter().map(|a| a * a).sum::<f64>().sqrt();
        let expected = f64::from(most).sqrt() * norm;
        assert!((worst / expected - 1.0).abs() < 1e-12, "{bands} bands: {worst} and {expected}");
        assert!(matrix.sensitivity_factor() >= expected * (1.0 - 1e-15));
        assert!((matrix.sensitivity_factor() / expected - 1.0).abs() < 1e-12);
    }
    assert!(patterns > 500, "{patterns}");
}

#[test]
fn t25_more_bands_than_the_separation_are_refused() {
    let refused = MatrixError::BandsExceedSeparation { bands: 5, min_separation: 4 };
    assert_eq!(banded(5, 4, 2), Err(refused));
    assert!(banded(4, 4, 2).is_ok());
}

fn banded(bands: usize, separation: u64, most: u32) -> Result<BandedSquareRoot, MatrixError> {
    BandedSquareRoot::new(bands, Participation::new(separation, most)?)
}

/// The coefficients as numbers, of which the first is 1.
fn units(matrix: &BandedSquareRoot) -> Vec<f64> {
    let a = matrix.coefficients();
    a.iter().map(|a_j| *a_j as f64 / a[0] as f64).collect()
}

/// How far unit updates in these steps move the run.
fn moved(coefficients: &[f64], joined: &[u64]) -> f64 {
    let mut rows = [0.0; STEPS];
    for step in joined {
        rows[*step as usize..].iter_mut().zip(coefficients).for_each(|(row, a)| *row += a);
    }
    rows.iter().map(|row| row * row).sum::<f64>().sqrt()
}
