//! 10 and 11: the samplers. Every chi-square test has n = 1e6 and alpha = 1e-6, every moment 5 standard errors, which is
//! alpha = 6e-7.

use std::convert::Infallible;

use rand_chacha::rand_core::{TryCryptoRng, TryRng};
use skep_privacy::prg::{CryptoRng, Key, Prg};
use skep_privacy::sampler::discrete_gaussian::DiscreteGaussian;
use skep_privacy::sampler::rounded_gaussian;

use crate::statistics::{ALPHA, chi_square, moments, normal_cdf};

const DRAWS: usize = 1_000_000;

/// The deviations 1/2, 1, 3, 17.25 and 1000.5 as variances u/v.
const VARIANCES: [(u64, u64); 5] = [(1, 4), (1, 1), (9, 1), (4761, 16), (4_004_001, 4)];

/// The sampler takes whole deviations only.
const DEVIATIONS: [u64; 4] = [1, 3, 17, 1000];

/// Rare digits, forced through five refinements of a rounding, and five-sigma tails of 2e7 draws: unit tests of
/// `sampler::rounded_gaussian`; the exact table: `sampler::cells`.
#[test]
fn t10_rounded_gaussian_draws_have_the_differences_of_the_normal_distribution_function() {
    for (seed, sigma) in (100..).zip(DEVIATIONS) {
        let noise = rounded(&mut Key::from_seed(seed).stream(), sigma);
        let p = fit_rounded(&noise, sigma);
        assert!(p > ALPHA, "sigma {sigma}: p = {p}");
        // Sheppard's correction: rounding adds 1/12, up to terms of e^(-2π²σ²); the fourth moment adds σ²/2 + 1/80.
        let sigma = sigma as f64;
        let variance = sigma.powi(2) + 1.0 / 12.0;
        let fourth = 3.0 * sigma.powi(4) + sigma.powi(2) / 2.0 + 1.0 / 80.0;
        assert_moments(&noise, variance, fourth / variance.powi(2));
    }
}

/// The law again by the rejection of Canonne, Kamath and Steinke, and five-sigma tails of 1e7 draws: unit tests of
/// `sampler::discrete_gaussian`.
#[test]
fn t10_discrete_gaussian_draws_have_their_exact_probabilities() {
    for (seed, variance) in (110..).zip(VARIANCES) {
        let noise = discrete(&mut Key::from_seed(seed).stream(), variance);
        let p = fit_discrete(&noise, variance);
        assert!(p > ALPHA, "variance {variance:?}: p = {p}");
        let [second, fourth] = [2, 4].map(|power| discrete_moment(variance, power));
        assert_moments(&noise, second, fourth / second.powi(2));
    }
}

#[test]
fn t11_draws_are_a_function_of_what_the_generator_gives() {
    let (rounded_once, discrete_once) = (rounded(&mut prg(), 17), discrete(&mut prg(), (9, 1)));
    assert!(rounded_once == rounded(&mut prg(), 17) && discrete_once == discrete(&mut prg(), (9, 1)));
    let mut other = Key::from_seed(12).stream();
    assert!(rounded_once != rounded(&mut other, 17) && discrete_once != discrete(&mut other, (9, 1)));
}

#[test]
fn t11_a_biased_generator_fails_what_a_good_one_passes() {
    assert!(fit_rounded(&rounded(&mut prg(), 17), 17) > ALPHA);
    assert!(fit_rounded(&rounded(&mut Leaning(prg()), 17), 17) < ALPHA);
    assert!(fit_discrete(&discrete(&mut prg(), (9, 1)), (9, 1)) > ALPHA);
    assert!(fit_discrete(&discrete(&mut Leaning(prg()), (9, 1)), (9, 1)) < ALPHA);
}

fn prg() -> Prg {
    Key::from_seed(11).stream()
}

fn rounded<R: CryptoRng>(rng: &mut R, sigma: u64) -> Vec<i64> {
    let mut noise = vec![0; DRAWS];
    rounded_gaussian::fill(rng, sigma, &mut noise);
    noise
}

fn discrete<R: CryptoRng>(rng: &mut R, (u, v): (u64, u64)) -> Vec<i64> {
    let mut noise = vec![0; DRAWS];
    DiscreteGaussian::new(u, v).unwrap().fill(rng, &mut noise);
    noise
}

fn fit_rounded(noise: &[i64], sigma: u64) -> f64 {
    let reach = 6 * sigma as i64;
    chi_square(noise, -reach, reach, |n| normal_cdf((n as f64 + 0.5) / sigma as f64))
}

/// The p-value of draws under the discrete Gaussian of variance u/v.
pub(crate) fn fit_discrete(noise: &[i64], variance: (u64, u64)) -> f64 {
    let far = far(variance);
    let density = discrete_density(variance);
    let below: Vec<f64> = (-far..=far)
        .scan(0.0, |sum, n| {
            *sum += density(n);
            Some(*sum)
        })
        .collect();
    let total = below[below.len() - 1];
    chi_square(noise, -far / 2, far / 2, |n| below[(n + far) as usize] / total)
}

fn discrete_moment(variance: (u64, u64), power: i32) -> f64 {
    let density = discrete_density(variance);
    let sum = |power| -> f64 {
        (-far(variance)..=far(variance)).map(|n| (n as f64).powi(power) * density(n)).sum()
    };
    sum(power) / sum(0)
}

fn discrete_density((u, v): (u64, u64)) -> impl Fn(i64) -> f64 {
    move |n| (-(n as f64).powi(2) * v as f64 / (2.0 * u as f64)).exp()
}

/// Where the law has no more than rounding errors of doubles: twelve deviations.
fn far((u, v): (u64, u64)) -> i64 {
    (12.0 * (u as f64 / v as f64).sqrt()) as i64 + 12
}

fn assert_moments(noise: &[i64], variance: f64, kurtosis: f64) {
    let [mean, found_variance, found_kurtosis] = moments(noise);
    let n = DRAWS as f64;
    let error_of_variance = ((kurtosis - 1.0) / n).sqrt();
    assert!((mean / (variance / n).sqrt()).abs() < 5.0, "mean {mean}");
    assert!((found_variance / variance - 1.0).abs() < 5.0 * error_of_variance, "variance {found_variance}");
    // The standard error of the kurtosis of a normal variable; those of smaller deviations have at most twice its.
    assert!((found_kurtosis - kurtosis).abs() < 10.0 * (24.0 / n).sqrt(), "kurtosis {found_kurtosis}");
}

/// Every bit is one with probability 17/32.
struct Leaning(Prg);

impl TryRng for Leaning {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let rarely = (0..4).fold(u64::MAX, |bits, _| bits & self.0.next_u64());
        Ok(self.0.next_u64() | rarely)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Leaning {}
