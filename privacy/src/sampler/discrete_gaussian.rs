//! The discrete Gaussian distribution: n with probability proportional to e^(-n²/2σ²), n whole and σ² rational.
//!
//! Canonne, Kamath and Steinke (arXiv 2004.00010), whose law this is, draw it by rejection from a discrete Laplace
//! variable. We write |n| = i·m + r with a cell width m of about σ/64: cell i is chosen exactly from a table with
//! probability proportional to e^(-(im)²/2σ²), r is uniform in 0..m, and n is kept with probability
//! e^(-r(2im + r)/2σ²), by their Algorithm 1. Up to σ = 128 cells have one number each, and nothing is rejected but half
//! of the zeros, which would else be counted for both signs.

use super::cells::Cells;
use super::exponential::bernoulli_exp;
use crate::prg::CryptoRng;

/// The variance is outside the range that the sampler is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a variance of {numerator}/{denominator} cannot be sampled; it must be 1/16 to 2^40, the denominator 1 to 65536"
)]
pub struct VarianceOutOfRange {
    /// u of σ² = u/v.
    pub numerator: u64,
    /// v of σ² = u/v.
    pub denominator: u64,
}

/// A sampler for one σ² = u/v.
#[derive(Debug, Clone)]
pub struct DiscreteGaussian {
    cells: Cells,
    width: u64,
    numerator: u64,
    denominator: u64,
}

impl DiscreteGaussian {
    /// Prepares the table, which takes some milliseconds.
    ///
    /// # Errors
    /// [`VarianceOutOfRange`] unless 1/16 ≤ σ² ≤ 2⁴⁰ and 1 ≤ v ≤ 2¹⁶.
    pub fn new(numerator: u64, denominator: u64) -> Result<Self, VarianceOutOfRange> {
        let refused = VarianceOutOfRange { numerator, denominator };
        if !(1..=1 << 16).contains(&denominator) {
            return Err(refused);
        }
        let (low, high) = (denominator.div_ceil(16), denominator << 40);
        if !(low..=high).contains(&numerator) {
            return Err(refused);
        }
        let width = ((numerator / denominator).isqrt() / STEPS).max(1);
        let cells = Cells::new([width, width, denominator], 2 * numerator, 64 - CELL_AT);
        Ok(Self { cells, width, numerator, denominator })
    }

    /// Draws a number.
    #[inline]
    pub fn sample<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> i64 {
        loop {
            let word = rng.next_u64();
            let Some(cell) = self.cells.choose(word >> CELL_AT, rng) else { continue };
            let negative = (word >> SIGN_AT) & 1;
            let within = if self.width == 1 { Some(0) } else { self.place(word % (1 << SIGN_AT), cell, rng) };
            match within.map(|r| cell * self.width + r) {
                None => {}
                Some(0) if negative == 1 => {}
                Some(magnitude) => return (magnitude as i64 ^ -(negative as i64)) + negative as i64,
            }
        }
    }

    /// Fills the slice with independent draws.
    pub fn fill<R: CryptoRng + ?Sized>(&self, rng: &mut R, noise: &mut [i64]) {
        for value in noise {
            *value = self.sample(rng);
        }
    }

    /// The place r in a cell, from 32 uniform bits (Lemire, arXiv 1805.10941); none if the draw is rejected.
    fn place<R: CryptoRng + ?Sized>(&self, bits: u64, cell: u64, rng: &mut R) -> Option<u64> {
        let product = bits * self.width;
        let biased = product % (1 << SIGN_AT) < (1 << SIGN_AT) % self.width;
        let r = product >> SIGN_AT;
        let a = u128::from(r) * u128::from(2 * cell * self.width + r) * u128::from(self.denominator);
        (!biased && bernoulli_exp(rng, a, 2 * self.numerator)).then_some(r)
    }
}

/// Cells to a standard deviation, at least, where cells hold more than one number.
const STEPS: u64 = 64;

// A random word, from its low end: place in the cell, sign, choice of the cell.
const SIGN_AT: u32 = 32;
const CELL_AT: u32 = SIGN_AT + 1;

#[cfg(test)]
#[allow(clippy::float_arithmetic)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::prg::testing::Words;
    use crate::sampler::cells::testing::assert_thresholds;
    use crate::sampler::discrete_laplace;
    use crate::sampler::statistics::{ALPHA, chi_square, moments};

    const DRAWS: usize = 1_000_000;

    /// Variances of σ = 1/2, 1, 3, 17.25, 1000.5, and one whose σ is irrational.
    const VARIANCES: [(u64, u64); 6] = [(1, 4), (1, 1), (9, 1), (4761, 16), (4_004_001, 4), (22, 7)];

    fn draws<R: CryptoRng>(rng: &mut R, (u, v): (u64, u64)) -> Vec<i64> {
        let mut noise = vec![0; DRAWS];
        DiscreteGaussian::new(u, v).unwrap().fill(rng, &mut noise);
        noise
    }

    fn p_value(noise: &[i64], (u, v): (u64, u64)) -> f64 {
        let variance = u as f64 / v as f64;
        let far = (12.0 * variance.sqrt()) as i64 + 12;
        let density = |n: i64| (-(n as f64).powi(2) / (2.0 * variance)).exp();
        let mut below = Vec::new();
        let mut total = 0.0;
        for n in -far..=far {
            total += density(n);
            below.push(total);
        }
        let reach = far / 2;
        chi_square(noise, -reach, reach, |n| below[(n + far) as usize] / total)
    }

    #[test]
    fn draws_follow_the_law() {
        for (seed, variance) in VARIANCES.into_iter().enumerate() {
            let noise = draws(&mut Key::from_seed(seed as u64).stream(), variance);
            let p = p_value(&noise, variance);
            assert!(p > ALPHA, "variance {variance:?}: p = {p}");
        }
    }

    #[test]
    fn every_threshold_agrees_with_an_independent_computation() {
        // e^(-(im)²/2σ²): the smallest and the largest σ, those at which cells grow, and the powers of two between.
        let whole =
            [128 * 128, 16_641, 1_000_000, 1 << 40].into_iter().chain((0..20).map(|log| 1 << (2 * log)));
        for (u, v) in VARIANCES.into_iter().chain(whole.map(|u| (u, 1))).chain([(1, 16), (65_537, 65_536)]) {
            let sampler = DiscreteGaussian::new(u, v).unwrap();
            let width = u128::from(sampler.width);
            assert_thresholds(&sampler.cells, width * width * u128::from(v), 2 * u128::from(u));
        }
    }

    #[test]
    fn rejection_from_the_discrete_laplace_gives_the_same_law() {
        // Canonne, Kamath and Steinke, Algorithm 3, for whole σ.
        let mut rng = Key::from_seed(20).stream();
        let (sigma, t) = (3, 4_u64);
        let mut noise = Vec::new();
        while noise.len() < DRAWS {
            let y = discrete_laplace::sample(&mut rng, t, 1);
            // (|y| − σ²/t)²/2σ² over a common denominator.
            let distance = (y.unsigned_abs() * t).abs_diff(sigma * sigma);
            if bernoulli_exp(&mut rng, u128::from(distance).pow(2), 2 * sigma * sigma * t * t) {
                noise.push(y);
            }
        }
        let p = p_value(&noise, (9, 1));
        assert!(p > ALPHA, "p = {p}");
    }

    #[test]
    fn moments_are_those_of_the_law() {
        // From σ = 2 on, the variance of the law is σ² and its kurtosis 3 to nine digits; the largest σ is 2^20.
        for (seed, u) in [4, 297, 1_000_000, 1 << 40].into_iter().enumerate() {
            let [mean, variance, kurtosis] =
                moments(&draws(&mut Key::from_seed(30 + seed as u64).stream(), (u, 1)));
            let (u, n) = (u as f64, DRAWS as f64);
            assert!((mean / (u / n).sqrt()).abs() < 5.0, "mean {mean}");
            assert!(((variance / u - 1.0) / (2.0 / n).sqrt()).abs() < 5.0, "variance {variance}");
            assert!(((kurtosis - 3.0) / (24.0 / n).sqrt()).abs() < 5.0, "kurtosis {kurtosis}");
        }
    }

    #[test]
    fn five_sigma_tails_are_as_heavy_as_they_should_be() {
        // σ = 1000: ten million draws have 5.73 beyond five standard deviations; the Poisson chance of none is 0.3 per
        // cent, of more than 22 below 1e-6.
        let sampler = DiscreteGaussian::new(1_000_000, 1).unwrap();
        let mut rng = Key::from_seed(40).stream();
        let tail = (0..10_000_000).filter(|_| sampler.sample(&mut rng).unsigned_abs() > 5000).count();
        assert!((1..=22).contains(&tail), "{tail}");
    }

    #[test]
    fn a_biased_generator_is_caught() {
        let mut prg = Key::from_seed(0).stream();
        // Every bit is one with probability 17/32.
        let mut biased = Words(|| {
            let lean = (0..4).fold(u64::MAX, |bits, _| bits & prg.next_u64());
            prg.next_u64() | lean
        });
        assert!(p_value(&draws(&mut biased, (9, 1)), (9, 1)) < ALPHA);
    }

    #[test]
    fn variances_out_of_range_are_refused() {
        for (numerator, denominator) in
            [(1, 0), (1, 17), (0, 1), ((1 << 40) + 1, 1), (1 << 20, (1 << 16) + 1)]
        {
            let refused = DiscreteGaussian::new(numerator, denominator).map(|_| ());
            assert_eq!(refused, Err(VarianceOutOfRange { numerator, denominator }));
        }
        assert!(DiscreteGaussian::new(1, 16).is_ok() && DiscreteGaussian::new(1 << 40, 1).is_ok());
    }
}
