//! The rounded Gaussian ⌊σN⌉, N standard normal: Karney, "Sampling exactly from the normal distribution"
//! (arXiv 1303.6257), Algorithm N.
//!
//! The algorithm draws N itself, a real number of which only the digits that matter are ever generated, and the
//! rounding is decided on those digits. The law is exact; there is no smallest probability and no largest value.

use super::uniform::{Uniform, uniform_below};
use crate::prg::CryptoRng;

/// Draws ⌊σN⌉ for an integer σ from 0 to [`SIGMA_MAX`](crate::mechanism::SIGMA_MAX).
pub fn sample<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64) -> i64 {
    let (whole, fraction) = half_normal(rng);
    let magnitude = round_product(rng, sigma, whole, fraction);
    if rng.next_u64() >> 63 == 1 { -magnitude } else { magnitude }
}

/// Fills the slice with independent draws of ⌊σN⌉.
pub fn fill<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, noise: &mut [i64]) {
    for value in noise {
        *value = sample(rng, sigma);
    }
}

/// |N| as k + x, steps N1 to N5 of the algorithm.
fn half_normal<R: CryptoRng + ?Sized>(rng: &mut R) -> (u64, Uniform) {
    loop {
        let k = geometric(rng);
        if !(0..k * k.saturating_sub(1)).all(|_| exp_minus_half(rng)) {
            continue;
        }
        let mut x = Uniform::new(rng);
        // exp(-x(2k + x)/2) as a product of k + 1 equal factors.
        if (0..=k).all(|_| exp_minus_kth_part(rng, k, &mut x)) {
            return (k, x);
        }
    }
}

/// k with probability e^(-k/2)·(1 − e^(-1/2)).
fn geometric<R: CryptoRng + ?Sized>(rng: &mut R) -> u64 {
    let mut k = 0;
    while exp_minus_half(rng) {
        k += 1;
    }
    k
}

/// True with probability e^(-1/2), by von Neumann's method: the length of the run 1/2 > u₁ > u₂ > … is even.
fn exp_minus_half<R: CryptoRng + ?Sized>(rng: &mut R) -> bool {
    let mut previous = Uniform::new(rng);
    if previous.digit(0, rng) >> 63 == 1 {
        return true;
    }
    for length in 1_u32.. {
        let mut next = Uniform::new(rng);
        if !next.is_below(&mut previous, rng) {
            return length % 2 == 0;
        }
        previous = next;
    }
    unreachable!("the loop has no end")
}

/// True with probability e^(-x(2k + x)/(2k + 2)), Algorithm B: a run below x in which every link also survives a coin
/// of probability (2k + x)/(2k + 2).
fn exp_minus_kth_part<R: CryptoRng + ?Sized>(rng: &mut R, k: u64, x: &mut Uniform) -> bool {
    let mut previous: Option<Uniform> = None;
    for length in 0_u32.. {
        let mut next = Uniform::new(rng);
        let falls = next.is_below(previous.as_mut().unwrap_or(x), rng);
        if !(falls && link(rng, k, x)) {
            return length % 2 == 0;
        }
        previous = Some(next);
    }
    unreachable!("the loop has no end")
}

/// True with probability (2k + x)/(2k + 2).
fn link<R: CryptoRng + ?Sized>(rng: &mut R, k: u64, x: &mut Uniform) -> bool {
    match uniform_below(2 * k + 2, rng) {
        side if side < 2 * k => true,
        side if side == 2 * k => Uniform::new(rng).is_below(x, rng),
        _ => false,
    }
}

/// ⌊σ(k + x)⌉, drawing digits of x until the nearest integer is certain.
fn round_product<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, k: u64, mut x: Uniform) -> i64 {
    const HALF: u128 = 1 << 63;
    // In units of 2^-64 the product lies in low..low + σ. σ < 2^40, and k is below 2^20 but for a chance of
    // e^(-2^38), so this fits.
    let low = u128::from(sigma) * ((u128::from(k) << 64) | u128::from(x.digit(0, rng)));
    let rounded = (low + HALF) >> 64;
    let boundary = (((rounded + 1) << 64) - HALF) - low;
    let up = boundary < u128::from(sigma) && exceeds(rng, sigma, boundary as u64, &mut x);
    (rounded + u128::from(up)) as i64
}

/// Whether σ·f > t, where 0 < t < σ and f is the part of x behind its first digit.
fn exceeds<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, mut t: u64, x: &mut Uniform) -> bool {
    for index in 1.. {
        let low = u128::from(sigma) * u128::from(x.digit(index, rng));
        let target = u128::from(t) << 64;
        if low >= target {
            return true;
        }
        if low + u128::from(sigma) <= target {
            return false;
        }
        t = (target - low) as u64;
    }
    unreachable!("the loop has no end")
}

#[cfg(test)]
#[allow(clippy::float_arithmetic)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::prg::testing::Words;
    use crate::sampler::statistics::{ALPHA, chi_square, moments, normal_cdf};

    const DRAWS: usize = 1_000_000;

    fn draws<R: CryptoRng>(rng: &mut R, sigma: u64, n: usize) -> Vec<i64> {
        let mut noise = vec![0; n];
        fill(rng, sigma, &mut noise);
        noise
    }

    fn p_value(noise: &[i64], sigma: u64) -> f64 {
        let reach = 6 * sigma as i64;
        chi_square(noise, -reach, reach, |n| normal_cdf((n as f64 + 0.5) / sigma as f64))
    }

    #[test]
    fn draws_follow_the_differences_of_the_normal_distribution_function() {
        for (seed, sigma) in [1, 2, 3, 17, 1000].into_iter().enumerate() {
            let noise = draws(&mut Key::from_seed(seed as u64).stream(), sigma, DRAWS);
            let p = p_value(&noise, sigma);
            assert!(p > ALPHA, "sigma {sigma}: p = {p}");
        }
    }

    #[test]
    fn moments_are_those_of_the_rounded_normal() {
        for (seed, sigma) in [1, 17, 5 << 20].into_iter().enumerate() {
            let noise = draws(&mut Key::from_seed(10 + seed as u64).stream(), sigma, DRAWS);
            let [mean, variance, kurtosis] = moments(&noise);
            let (sigma, n) = (sigma as f64, DRAWS as f64);
            // Sheppard's correction: rounding adds 1/12, up to terms of e^(-2π²σ²); the fourth moment adds σ²/2 + 1/80.
            let expected = sigma.powi(2) + 1.0 / 12.0;
            let fourth = 3.0 * sigma.powi(4) + sigma.powi(2) / 2.0 + 1.0 / 80.0;
            assert!((mean / (expected / n).sqrt()).abs() < 5.0, "mean {mean}");
            assert!(((variance / expected - 1.0) / (2.0 / n).sqrt()).abs() < 5.0, "variance {variance}");
            assert!(
                ((kurtosis - fourth / expected.powi(2)) / (24.0 / n).sqrt()).abs() < 5.0,
                "kurtosis {kurtosis}"
            );
        }
    }

    #[test]
    fn five_sigma_tails_are_as_heavy_as_they_should_be() {
        // Twenty million draws have 11.5 beyond five standard deviations; the Poisson chance of fewer than 1 or more
        // than 32 is below 1e-5 and 1e-6.
        let sigma = 1000;
        let mut rng = Key::from_seed(20).stream();
        let tail = (0..20_000_000).filter(|_| sample(&mut rng, sigma).unsigned_abs() > 5 * sigma).count();
        assert!((1..=32).contains(&tail), "{tail}");
    }

    #[test]
    fn digits_are_drawn_until_the_rounding_is_certain() {
        // 3x is one half where x is 1/6, whose digits in base 2^64 are ⌊2^64/6⌋ and then ⌊2^65/3⌋ for ever.
        const FIRST: u64 = 0x2aaa_aaaa_aaaa_aaaa;
        const NEXT: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        for known in 0..5 {
            for refinements in 3..6 {
                for (last, expected) in [(NEXT + 1, 1), (NEXT - 1, 0)] {
                    let mut unknown = vec![NEXT; refinements - 1];
                    unknown.push(last);
                    let mut script = unknown.into_iter();
                    let x = Uniform::from_digits(FIRST, &vec![NEXT; known]);
                    let rounded = round_product(&mut Words(|| script.next().unwrap()), 3, 0, x);
                    assert_eq!(rounded, expected);
                    assert_eq!(script.next(), None);
                }
            }
        }
    }

    #[test]
    fn a_biased_generator_is_caught() {
        let mut prg = Key::from_seed(0).stream();
        // Every bit is one with probability 17/32.
        let mut biased = Words(|| {
            let lean = (0..4).fold(u64::MAX, |bits, _| bits & prg.next_u64());
            prg.next_u64() | lean
        });
        assert!(p_value(&draws(&mut biased, 17, DRAWS), 17) < ALPHA);
    }
}
