//! Unbiased stochastic rounding of doubles to integers, on random bits that are drawn as they are needed.

use crate::norm::norm_squared;
use crate::prg::CryptoRng;
use crate::vectorize::vectorize;

/// Makes `out` one of the two integers next to y with mean exactly y, for every y = value · scale as a double, |y| < 2³¹; the
/// sum of their squares.
///
/// It compares the fraction of |y| with 16 random bits, and with more where those are the first bits of the fraction.
pub(crate) fn round_unbiased<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    out: &mut Vec<i32>,
    rng: &mut R,
) -> u128 {
    out.clear();
    let (mut rounded, mut squares) = ([0; ROUNDING_TILE], 0);
    for values in values.chunks(ROUNDING_TILE) {
        let mut bits = [[0; 2]; ROUNDING_TILE];
        let (bits, rounded) = (&mut bits[..values.len()], &mut rounded[..values.len()]);
        rng.fill_bytes(bits.as_flattened_mut());
        if !round_by_first_bits(values, scale, bits, rounded) {
            round_by_all_bits(values, scale, bits, rounded, rng);
        }
        squares += norm_squared(rounded);
        out.extend_from_slice(rounded);
    }
    squares
}

vectorize! {
    /// Rounds by the first bits alone, and says whether they decide every number; if not, the result is of no use.
    ///
    /// |y| is rounded up if d + u < f, where f is its fraction in units of 2⁻¹⁶, d the 16 bits and u in \[0, 1) all bits
    /// after them. Let n be an integer next to f, at most ½ away. Then d ≤ n − 2 means up and d ≥ n + 1 means down, which
    /// is when n + 65535 − d carries into the bit of weight 2¹⁶; d = n − 1 and d = n are left open.
    fn round_by_first_bits(values: &[f32], scale: f64, bits: &[[u8; 2]], out: &mut [i32]) -> bool {
        // A sum with it has no bits after the point, so it is rounded to an integer, which stands in its low 52 bits.
        const SHIFT: f64 = (1_u64 << 52) as f64;
        let scale = scale * 65_536.0;
        let mut open = false;
        for ((&value, &bits), q) in values.iter().zip(bits).zip(out) {
            let nearest = (f64::from(value.abs()) * scale + SHIFT).to_bits();
            let sum = (nearest as u32 & 0xffff) + u32::from(!u16::from_le_bytes(bits));
            open |= (sum + 1) & 0xffff < 2;
            *q = with_sign_of(value, ((nearest >> 16) as i32).wrapping_add((sum >> 16) as i32));
        }
        !open
    }
}

/// The same with more bits for those that the first leave open, which are in few of the parts.
#[cold]
fn round_by_all_bits<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    bits: &[[u8; 2]],
    out: &mut [i32],
    rng: &mut R,
) {
    const PART: usize = 8;
    let parts = values.chunks(PART).zip(bits.chunks(PART)).zip(out.chunks_mut(PART));
    for ((values, bits), out) in parts {
        if !round_by_first_bits(values, scale, bits, out) {
            round_exactly(values, scale, bits, out, rng);
        }
    }
}

fn round_exactly<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    bits: &[[u8; 2]],
    out: &mut [i32],
    rng: &mut R,
) {
    for ((&value, &bits), q) in values.iter().zip(bits).zip(out) {
        let (floor, first, rest) = fixed_point(f64::from(value.abs()) * scale);
        let digit = u16::from_le_bytes(bits);
        let up = digit < first || (digit == first && is_below(rest, rng));
        *q = with_sign_of(value, floor + i32::from(up));
    }
}

/// Whether a uniform number, drawn 16 bits at a time, is below `p` in \[0, 1).
fn is_below<R: CryptoRng + ?Sized>(mut p: f64, rng: &mut R) -> bool {
    // Each step removes 16 of the at most 1074 binary digits of p, exactly.
    while p > 0.0 {
        let (first, rest) = first_digit(p);
        let digit = (rng.next_u64() >> 48) as u16;
        if digit != first {
            return digit < first;
        }
        p = rest;
    }
    false
}

/// y ≥ 0 as ⌊y⌋ + (d + r)/2¹⁶ with a whole d < 2¹⁶ and r in \[0, 1), exactly.
fn fixed_point(y: f64) -> (i32, u16, f64) {
    let (digit, rest) = first_digit(y.fract());
    (y as i32, digit, rest)
}

/// A fraction as (d + r)/2¹⁶.
fn first_digit(fraction: f64) -> (u16, f64) {
    let scaled = fraction * 65_536.0;
    (scaled as u16, scaled.fract())
}

#[inline(always)]
fn with_sign_of(value: f32, magnitude: i32) -> i32 {
    // All ones for a negative number.
    let sign = value.to_bits() as i32 >> 31;
    (magnitude ^ sign).wrapping_sub(sign)
}

/// Makes `out` the integers nearest to value · scale, ties to even; whether all of them fit. If not, the result is of no use.
pub(crate) fn round_nearest(values: &[f32], scale: f64, out: &mut Vec<i32>) -> bool {
    out.clear();
    // A product with a power of two has no more digits than its factor, so single precision is enough for it.
    let is_power = scale.to_bits().trailing_zeros() >= f64::MANTISSA_DIGITS - 1
        && (1.0..f64::from(f32::MAX)).contains(&scale);
    let (mut rounded, mut fit) = ([0; NEAREST_TILE], true);
    for values in values.chunks(NEAREST_TILE) {
        let rounded = &mut rounded[..values.len()];
        if !(is_power && round_small_to_nearest(values, scale as f32, rounded)) {
            fit &= round_tile_to_nearest(values, scale, rounded);
        }
        out.extend_from_slice(rounded);
    }
    fit
}

vectorize! {
    /// The same in single precision, for a scale that is a power of two; whether all are small enough for that.
    fn round_small_to_nearest(values: &[f32], scale: f32, out: &mut [i32]) -> bool {
        // Up to here a sum with the next number is rounded to an integer, which stands in its low bits.
        const LARGEST: f32 = (1 << 22) as f32;
        const SHIFT: f32 = 3.0 * LARGEST;
        let mut small = true;
        for (&value, q) in values.iter().zip(out) {
            let scaled = value * scale;
            small &= scaled.abs() < LARGEST;
            *q = ((scaled + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
        }
        small
    }
}

vectorize! {
    fn round_tile_to_nearest(values: &[f32], scale: f64, out: &mut [i32]) -> bool {
        // A sum with it has no bits after the point, so it is rounded to an integer, whose low bits are those of the sum.
        const SHIFT: f64 = 1.5 * (1_u64 << 52) as f64;
        let mut fit = true;
        for (&value, q) in values.iter().zip(out) {
            let scaled = f64::from(value) * scale;
            fit &= fits(scaled);
            *q = (scaled + SHIFT).to_bits() as i32;
        }
        fit
    }
}

/// Whether the integer nearest to `scaled` is one of those of 32 bits that have an opposite.
#[inline(always)]
pub(crate) fn fits(scaled: f64) -> bool {
    scaled.abs() < f64::from(i32::MAX) + 0.5
}

/// The integer next to value · scale that is not longer.
pub(crate) fn round_toward_zero(values: &[f32], scale: f64, out: &mut Vec<i32>) {
    out.clear();
    out.extend(values.iter().map(|&value| (f64::from(value) * scale).trunc() as i32));
}

/// Numbers that are rounded with one batch of random words.
const ROUNDING_TILE: usize = 256;

/// Numbers that are rounded in the first cache.
const NEAREST_TILE: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prg::Key;
    use crate::prg::testing::Words;
    use crate::vectorize::testing::both;

    #[test]
    fn rounding_is_unbiased() {
        // Five coordinates of a hundred thousand roundings: standard error 0.5/√1e5 = 0.0016; bound at 5.5 of them.
        const ROUNDINGS: usize = 100_000;
        let values = [0.25, -0.25, 0.9, 1e-3, -7.4];
        let mut totals = [0_i64; 5];
        let mut rng = Key::from_seed(2).stream();
        let mut out = Vec::new();
        for _ in 0..ROUNDINGS {
            round_unbiased(&values, 1.0, &mut out, &mut rng);
            for (total, &q) in totals.iter_mut().zip(&out) {
                *total += i64::from(q);
            }
        }
        for (total, value) in totals.iter().zip(values) {
            let mean = *total as f64 / ROUNDINGS as f64;
            assert!((mean - f64::from(value)).abs() < 0.009, "{mean} for {value}");
        }
    }

    #[test]
    fn a_tie_of_the_first_bits_is_broken_by_more() {
        // The fraction is 1234.25/2^16. All random bits are 1234 first, so the next digits alone decide, here with 1/4.
        let value = (1234.25 / 65_536.0) as f32;
        let mut prg = Key::from_seed(3).stream();
        let mut ups = 0;
        for _ in 0..100_000 {
            let mut first = true;
            let mut words = Words(|| if std::mem::take(&mut first) { 1234 } else { prg.next_u64() });
            let mut out = Vec::new();
            round_unbiased(&[value], 1.0, &mut out, &mut words);
            ups += out[0];
        }
        // Six standard deviations of the binomial around 25 000.
        assert!((24_178..25_822).contains(&ups), "{ups}");
        // Three more digits are asked for before the last one decides.
        let p = 5.0 / 2_f64.powi(16) + 6.0 / 2_f64.powi(32) + 7.5 / 2_f64.powi(48);
        for (last, expected) in [(7, false), (6, true), (8, false)] {
            let mut script = [5, 6, last, 1 << 15].map(|digit: u64| digit << 48).into_iter();
            assert_eq!(is_below(p, &mut Words(|| script.next().unwrap())), expected);
            assert_eq!(script.len(), usize::from(last != 7));
        }
    }

    #[test]
    fn the_nearest_integer_is_even_in_doubt_and_says_when_it_does_not_fit() {
        let mut out = Vec::new();
        assert!(round_nearest(&[0.5, 1.5, -0.5, -2.5, 3.2, -0.0], 1.0, &mut out));
        assert_eq!(out, [0, 2, 0, -2, 3, 0]);
        let limit = 2_147_483_520.0;
        assert!(round_nearest(&[limit, -limit], 1.0, &mut out));
        assert_eq!(out, [limit as i32, -limit as i32]);
        for wrong in [2_147_483_648.0, -2_147_483_648.0, f32::MAX, f32::NAN] {
            assert!(!round_nearest(&[1.0, wrong], 1.0, &mut out), "{wrong}");
        }
        assert!(fits(2_147_483_647.25) && !fits(2_147_483_647.5));
    }

    proptest! {
        #[test]
        fn single_precision_rounds_as_double_does(
            values in prop::collection::vec(prop_oneof![-0.3_f32..0.3, -1e-6_f32..1e-6, (-99..99_i32).prop_map(|n| n as f32 / 2.0_f32.powi(25))], 1..50),
            log_scale in 20..25_i32,
        ) {
            let scale = 2.0_f64.powi(log_scale);
            let mut single = vec![0; values.len()];
            let mut double = single.clone();
            prop_assert!(round_tile_to_nearest(&values, scale, &mut double));
            let small = values.iter().all(|value| f64::from(value.abs()) * scale < 4_194_304.0);
            prop_assert_eq!(round_small_to_nearest(&values, scale as f32, &mut single), small);
            prop_assert!(!small || single == double, "{:?} instead of {:?}", single, double);
            prop_assert!(round_nearest(&values, scale, &mut single) && single == double);
        }

        #[test]
        fn splitting_is_exact(y in prop_oneof![0.0..2e9_f64, 0.0..2.0_f64, 0.0..1e-300_f64, (0..1000).prop_map(f64::from)]) {
            let (floor, digit, rest) = fixed_point(y);
            prop_assert_eq!(f64::from(floor), y.floor());
            prop_assert!((0.0..1.0).contains(&rest));
            prop_assert_eq!(f64::from(floor) + (f64::from(digit) + rest) / 65_536.0, y);
        }

        #[test]
        fn the_first_bits_decide_what_all_bits_would(
            values in prop::collection::vec(-1.0_f32..1.0, 1..300),
            log_scale in 0.0_f64..31.0,
            seed in any::<u64>(),
        ) {
            let scale = log_scale.exp2();
            let mut rng = Key::from_seed(seed).stream();
            let mut bits = vec![[0; 2]; values.len()];
            rng.fill_bytes(bits.as_flattened_mut());
            // Half of the bits are at the fraction itself or next to it.
            for (i, (bits, value)) in bits.iter_mut().zip(&values).enumerate().filter(|(i, _)| i % 2 == 0) {
                let (_, first, _) = fixed_point(f64::from(value.abs()) * scale);
                *bits = first.wrapping_add(i as u16 / 2 % 7).wrapping_sub(3).to_le_bytes();
            }
            let (mut decided, mut open) = (0, 0);
            for ((value, bits), exact) in values.iter().zip(&bits).zip({
                let mut exact = vec![0; values.len()];
                round_exactly(&values, scale, &bits, &mut exact, &mut rng);
                exact
            }) {
                let [wide, portable] = both(|| {
                    let mut out = [0];
                    round_by_first_bits(&[*value], scale, &[*bits], &mut out).then_some(out[0])
                });
                prop_assert_eq!(wide, portable);
                prop_assert!(wide.is_none_or(|q| q == exact), "{:?} instead of {} for {}", wide, exact, value);
                *if wide.is_some() { &mut decided } else { &mut open } += 1;
            }
            prop_assert!(values.len() < 30 || (decided > values.len() / 2 && open > values.len() / 20));
        }
    }
}
