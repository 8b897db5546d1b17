//! The banded square root mechanism (Kalinin and Lampert 2024, arXiv 2405.13763).
//!
//! The matrix of running sums, all ones below the diagonal, has a square root with constant diagonals, whose
//! coefficients are those of (1 − x)^(−1/2). C keeps the first `bands` of them.

use std::collections::VecDeque;

use super::Participation;

/// The matrix C of a number of bands.
#[derive(Debug, Clone, PartialEq)]
pub struct BandedSquareRoot {
    coefficients: Vec<f64>,
}

/// A member may come back before its earlier contribution has left the bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bands} bands need participations at least that many rounds apart, but {separation} are allowed: use fewer bands or \
     a larger separation"
)]
pub struct TooSoon {
    /// Bands of the matrix.
    pub bands: usize,
    /// Least distance of participations.
    pub separation: u64,
}

impl BandedSquareRoot {
    /// The first `bands` diagonals, at least one: c₀ = 1, c_k = c_{k−1}·(2k−1)/(2k).
    #[must_use]
    pub fn new(bands: usize) -> Self {
        let next = |last: &f64, k: f64| last * (2.0 * k - 1.0) / (2.0 * k);
        let mut coefficients = vec![1.0];
        for k in 1..bands.max(1) {
            let last = coefficients[k - 1];
            coefficients.push(next(&last, k as f64));
        }
        Self { coefficients }
    }

    /// c₀, c₁, …: the entries of C on its diagonals.
    #[must_use]
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// Largest L2 norm that one member can add to Cx, when its update has norm at most 1: √k·‖c‖.
    ///
    /// Two participations touch different rows of Cx when they are at least as far apart as there are bands, so their
    /// squares add up (arXiv 2306.08153).
    ///
    /// # Errors
    /// [`TooSoon`] when participations may be closer.
    pub fn sensitivity(&self, participation: Participation) -> Result<f64, TooSoon> {
        let bands = self.coefficients.len();
        if (bands as u64) > participation.separation {
            return Err(TooSoon { bands, separation: participation.separation });
        }
        let square: f64 = self.coefficients.iter().map(|c| c * c).sum();
        Ok((participation.most as f64 * square).sqrt())
    }

    /// Rows of C⁻¹ apply to fresh noise one round after the other.
    #[must_use]
    pub fn correlate(&self) -> Correlation<'_> {
        Correlation { matrix: self, past: VecDeque::new() }
    }

    /// Root mean square, over the rounds, of the error of running sums of the releases, for noise of deviation 1.
    #[must_use]
    pub fn running_sum_error(&self, rounds: usize) -> f64 {
        // The noise of the running sum at t is Σ_i s_{t−i} z_i, where s sums up the inverse of c as a power series.
        let mut inverse: Vec<f64> = Vec::with_capacity(rounds);
        let (mut sum, mut variance, mut total) = (0.0, 0.0, 0.0);
        for t in 0..rounds {
            let tail = self.coefficients.iter().skip(1).zip(inverse.iter().rev()).map(|(c, past)| c * past);
            let next = if t == 0 { 1.0 } else { -tail.sum::<f64>() };
            inverse.push(next);
            sum += next;
            variance += sum * sum;
            total += variance;
        }
        (total / rounds.max(1) as f64).sqrt()
    }
}

/// Turns fresh noise into the noise of the releases: ẑ_t = z_t − Σ_{j≥1} c_j·ẑ_{t−j}.
///
/// Keeps `bands − 1` vectors. They must stay secret: together with the releases they open the updates.
///
/// In floating point, which is right for plans and simulations; the bound on privacy is proved for real numbers only.
pub struct Correlation<'a> {
    matrix: &'a BandedSquareRoot,
    /// ẑ of earlier rounds, the latest first.
    past: VecDeque<Vec<f64>>,
}

impl Correlation<'_> {
    /// The noise of the next release, from fresh noise of the same length in every round.
    #[must_use]
    pub fn next(&mut self, mut fresh: Vec<f64>) -> Vec<f64> {
        for (coefficient, past) in self.matrix.coefficients[1..].iter().zip(&self.past) {
            for (value, earlier) in fresh.iter_mut().zip(past) {
                *value -= coefficient * earlier;
            }
        }
        self.past.push_front(fresh.clone());
        self.past.truncate(self.matrix.coefficients.len() - 1);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C as rows.
    fn rows(matrix: &BandedSquareRoot, rounds: usize) -> Vec<Vec<f64>> {
        let entry = |row: usize, column: usize| {
            row.checked_sub(column)
                .and_then(|diagonal| matrix.coefficients().get(diagonal))
                .copied()
                .unwrap_or(0.0)
        };
        (0..rounds).map(|row| (0..rounds).map(|column| entry(row, column)).collect()).collect()
    }

    #[test]
    fn norms_agree_with_the_reference() {
        // Computed independently with NumPy from the recurrence.
        for (bands, expected) in [(1, 1.0), (8, 1.310_87), (64, 1.545_59), (256, 1.682_57)] {
            let norm = BandedSquareRoot::new(bands).sensitivity(Participation::new(1, 256).unwrap()).unwrap();
            assert!((norm - expected).abs() < 5e-6, "{bands}: {norm}");
        }
    }

    #[test]
    fn all_bands_are_the_square_root_of_running_sums() {
        let square_root = rows(&BandedSquareRoot::new(12), 12);
        for row in 0..12 {
            for column in 0..12 {
                let product: f64 = (0..12).map(|k| square_root[row][k] * square_root[k][column]).sum();
                let expected = f64::from(u8::from(row >= column));
                assert!((product - expected).abs() < 1e-12, "{row} {column}: {product}");
            }
        }
    }

    #[test]
    fn acceptance_25_correlated_noise_is_the_inverse_of_the_matrix() {
        for bands in [1, 3, 7, 12] {
            let matrix = BandedSquareRoot::new(bands);
            let mut correlation = matrix.correlate();
            let unit = |round| (0..12).map(|index| f64::from(u8::from(index == round))).collect::<Vec<f64>>();
            // Unit vectors as fresh noise give the rows of the inverse; C times the inverse is the identity.
            let inverse: Vec<Vec<f64>> = (0..12).map(|round| correlation.next(unit(round))).collect();
            for (row, entries) in rows(&matrix, 12).iter().enumerate() {
                for (column, expected) in unit(row).into_iter().enumerate() {
                    let product: f64 =
                        entries.iter().zip(&inverse).map(|(c, inverse)| c * inverse[column]).sum();
                    assert!((product - expected).abs() < 1e-12, "{bands} {row} {column}: {product}");
                }
            }
        }
    }

    #[test]
    fn acceptance_25_sensitivity_is_the_worst_of_all_participation_patterns() {
        let rounds: usize = 12;
        let mut exact = 0;
        for bands in 1..=4 {
            let matrix = BandedSquareRoot::new(bands);
            let rows = rows(&matrix, rounds);
            for (most, separation) in [(1, 4), (2, 4), (3, 4), (2, 5), (2, 6)] {
                let participation = Participation::new(most, separation).unwrap();
                let worst = (0_u32..1 << rounds)
                    .map(|pattern| (0..rounds).filter(|round| pattern >> round & 1 == 1).collect::<Vec<_>>())
                    .filter(|joined| joined.len() as u64 <= most)
                    .filter(|joined| joined.windows(2).all(|pair| (pair[1] - pair[0]) as u64 >= separation))
                    .map(|joined| {
                        // All entries are positive, so equal updates in every round are the worst.
                        rows.iter()
                            .map(|row| joined.iter().map(|t| row[*t]).sum::<f64>().powi(2))
                            .sum::<f64>()
                            .sqrt()
                    })
                    .fold(0.0, f64::max);
                let bound = matrix.sensitivity(participation).unwrap();
                assert!(worst <= bound + 1e-12, "{bands} {participation:?}");
                exact += usize::from((worst - bound).abs() < 1e-12);
            }
        }
        assert_eq!(exact, 4 * 5);
    }

    #[test]
    fn acceptance_25_more_bands_than_the_separation_are_refused() {
        let refused = BandedSquareRoot::new(5).sensitivity(Participation::new(2, 4).unwrap());
        assert_eq!(refused, Err(TooSoon { bands: 5, separation: 4 }));
    }

    #[test]
    fn bands_lower_the_error_of_running_sums() {
        // Computed independently with NumPy: 1024 rounds, four participations, noise over sensitivity 1.
        for (bands, expected) in [(1, 45.3), (16, 14.4), (64, 8.75), (256, 6.49)] {
            let matrix = BandedSquareRoot::new(bands);
            let sensitivity = matrix.sensitivity(Participation::new(4, 256).unwrap()).unwrap();
            let error = matrix.running_sum_error(1024) * sensitivity;
            assert!((error / expected - 1.0).abs() < 5e-3, "{bands}: {error}");
        }
    }
}
