//! The rounded Gaussian ⌊σN⌉, N standard normal, by Karney's Algorithm N (arXiv 1303.6257) in finer steps.
//!
//! The algorithm draws N itself: a real number, of which only those digits are generated that somebody asks for, and the
//! rounding is decided on them. The law is exact; there is no smallest probability and no largest value.
//!
//! Karney writes |N| = k + x with a whole k. We write |N| = h(i + s) with h = 1/32 and s uniform in (0, 1): cell i is
//! chosen with probability proportional to e^(-h²i²/2) and kept with probability e^(-h²s(2i + s)/2), his steps N1 to N4
//! at h = 1. Fine cells are kept nearly always, and the first coin of that decision says so in 97 draws of a hundred, so
//! that one random word is nearly always enough.

use std::sync::LazyLock;

use super::cells::Cells;
use super::uniform::{Uniform, uniform_below};
use crate::prg::CryptoRng;

/// Draws ⌊σN⌉ for an integer σ from 0 to [`SIGMA_MAX`](crate::mechanism::SIGMA_MAX).
pub fn sample<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64) -> i64 {
    sample_from(&CELLS, rng, sigma)
}

/// Fills the slice with independent draws of ⌊σN⌉.
pub fn fill<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, noise: &mut [i64]) {
    let cells = &*CELLS;
    for value in noise {
        *value = sample_from(cells, rng, sigma);
    }
}

/// Binary digits of 1/h.
const STEP_BITS: u32 = 5;

/// 1/h², which is how many sides the first coin has.
const COIN_SIDES: u64 = 1 << (2 * STEP_BITS);

// A random word, from its low end: coin, sign, the first digits of s, and the choice of a cell.
const SIGN_AT: u32 = 2 * STEP_BITS;
const DIGITS_AT: u32 = SIGN_AT + 1;
const CELL_AT: u32 = DIGITS_AT + DIGIT_BITS;

/// Digits of s in the word. They settle the rounding but for one draw in 2³⁴/σ.
const DIGIT_BITS: u32 = 29;

static CELLS: LazyLock<Cells> = LazyLock::new(|| Cells::new([1; 3], 2 * COIN_SIDES, 64 - CELL_AT));

#[inline]
fn sample_from<R: CryptoRng + ?Sized>(cells: &Cells, rng: &mut R, sigma: u64) -> i64 {
    loop {
        let word = rng.next_u64();
        let Some(cell) = cells.choose(word >> CELL_AT, rng) else { continue };
        let coin = word % COIN_SIDES;
        let digits = (word >> DIGITS_AT) % (1 << DIGIT_BITS);
        let (rounded, distance) = nearest::<DIGIT_BITS>(sigma, cell, digits);
        let certain = coin > cell && distance >= u128::from(sigma);
        let magnitude = if certain { Some(rounded) } else { decide(rng, sigma, cell, coin, digits) };
        if let Some(magnitude) = magnitude {
            let negative = ((word >> SIGN_AT) % 2) as i64;
            return (magnitude ^ -negative) + negative;
        }
    }
}

/// The rare cases: a draw that may be rejected, and one whose rounding takes more digits.
#[cold]
fn decide<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, cell: u64, coin: u64, digits: u64) -> Option<i64> {
    let more = rng.next_u64() >> DIGIT_BITS;
    let mut s = Uniform::starting((digits << (64 - DIGIT_BITS)) | more);
    let kept = (cell < COIN_SIDES && coin > cell) || is_kept(rng, cell, &mut s);
    kept.then(|| round(rng, sigma, cell, s))
}

/// True with probability e^(-h²s(2i + s)/2), given that the first coin has shown heads if cells have one.
///
/// It is a product of equal factors e^(-p·s·l), p = h²(i + 1)/n and l = (2i + s)/(2i + 2), one for all cells below 1/h².
fn is_kept<R: CryptoRng + ?Sized>(rng: &mut R, cell: u64, s: &mut Uniform) -> bool {
    let factors = (cell + 1).div_ceil(COIN_SIDES);
    (0..factors).all(|_| has_even_run(rng, cell, factors, s))
}

/// True with probability e^(-p·s·l), by von Neumann's method: a run s > u₁ > u₂ > … in which every link also survives
/// coins of probability p and l is even.
fn has_even_run<R: CryptoRng + ?Sized>(rng: &mut R, cell: u64, factors: u64, s: &mut Uniform) -> bool {
    let mut previous: Option<Uniform> = None;
    for length in 0_u32.. {
        let tossed = length == 0 && factors == 1;
        let mut next = Uniform::new(rng);
        let goes_on = (tossed || uniform_below(COIN_SIDES * factors, rng) <= cell)
            && next.is_below(previous.as_mut().unwrap_or(s), rng)
            && survives(rng, cell, s);
        if !goes_on {
            return length % 2 == 0;
        }
        previous = Some(next);
    }
    unreachable!("the loop has no end")
}

/// True with probability (2i + s)/(2i + 2).
fn survives<R: CryptoRng + ?Sized>(rng: &mut R, cell: u64, s: &mut Uniform) -> bool {
    match uniform_below(2 * cell + 2, rng) {
        side if side < 2 * cell => true,
        side if side == 2 * cell => Uniform::new(rng).is_below(s, rng),
        _ => false,
    }
}

/// σh(i + s) lies in low..low + σ, in units of h/2^BITS, if the first digits of s are known. Returns the integer nearest
/// to low, and how far low is from the point where it becomes the next. σ < 2⁴⁰, and cells from 2²⁴ on do not come up.
#[inline]
fn nearest<const BITS: u32>(sigma: u64, cell: u64, digits: u64) -> (i64, u128) {
    let point = BITS + STEP_BITS;
    let low = u128::from(sigma) * ((u128::from(cell) << BITS) | u128::from(digits));
    let shifted = low + (1 << (point - 1));
    ((shifted >> point) as i64, (1 << point) - (shifted & ((1 << point) - 1)))
}

/// ⌊σh(i + s)⌉, with as many digits of s as it takes.
fn round<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, cell: u64, mut s: Uniform) -> i64 {
    let (rounded, distance) = nearest::<64>(sigma, cell, s.digit(0, rng));
    let up = distance < u128::from(sigma) && exceeds(rng, sigma, distance as u64, &mut s);
    rounded + i64::from(up)
}

/// Whether σ·f > t, where 0 < t < σ and f is what follows the first digit of s.
fn exceeds<R: CryptoRng + ?Sized>(rng: &mut R, sigma: u64, mut t: u64, s: &mut Uniform) -> bool {
    for index in 1.. {
        let low = u128::from(sigma) * u128::from(s.digit(index, rng));
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
    use crate::mechanism::SIGMA_MAX;
    use crate::prg::Key;
    use crate::prg::testing::Words;
    use crate::sampler::cells::testing::assert_thresholds;
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
        for (seed, sigma) in [1, 17, 5 << 20, SIGMA_MAX].into_iter().enumerate() {
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
        // 3·(5 + s)/32 is one half where s is 1/3, whose digits in base 2^64 are all ⌊2^64/3⌋.
        const DIGIT: u64 = 0x5555_5555_5555_5555;
        for known in 0..5 {
            for refinements in 3..6 {
                for (last, expected) in [(DIGIT + 1, 1), (DIGIT - 1, 0)] {
                    let mut unknown = vec![DIGIT; refinements - 1];
                    unknown.push(last);
                    let mut script = unknown.into_iter();
                    let s = Uniform::from_digits(DIGIT, &vec![DIGIT; known]);
                    assert_eq!(round(&mut Words(|| script.next().unwrap()), 3, 5, s), expected);
                    assert_eq!(script.next(), None);
                }
            }
        }
    }

    #[test]
    fn every_threshold_agrees_with_an_independent_computation() {
        // e^(-h²i²/2), h = 1/32.
        assert_thresholds(&CELLS, 1, 2048);
    }

    #[test]
    fn every_cell_is_kept_with_its_probability() {
        const TRIALS: u32 = 200_000;
        let mut rng = Key::from_seed(30).stream();
        // s = 3/4 and more digits. Cells from 1024 on take several factors.
        for cell in [0, 1, 30, 300, 1000, 1023, 1024, 2500] {
            let mut kept = 0;
            for _ in 0..TRIALS {
                let mut s = Uniform::starting(3 << 62);
                let tails = cell < COIN_SIDES && uniform_below(COIN_SIDES, &mut rng) > cell;
                kept += u32::from(tails || is_kept(&mut rng, cell, &mut s));
            }
            let (i, s) = (cell as f64, 0.75);
            let p = (-s * (2.0 * i + s) / 2048.0).exp();
            let deviation = (f64::from(TRIALS) * p * (1.0 - p)).sqrt();
            assert!((f64::from(kept) - p * f64::from(TRIALS)).abs() < 5.0 * deviation, "cell {cell}: {kept}");
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
