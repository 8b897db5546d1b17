//! Unbiased stochastic rounding of doubles to integers, on random bits that are drawn as they are needed.

use crate::prg::CryptoRng;
use crate::vectorize::vectorize;

#[cfg(target_arch = "x86_64")]
mod wide;

/// Makes `out` one of the two integers next to y with mean exactly y, for every y = value · scale as a double, |y| ≤ 2²¹; the
/// sum of their squares.
///
/// It compares the fraction of |y| with 8 random bits, and with more where those are the first bits of the fraction.
pub(crate) fn round_unbiased<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    out: &mut Vec<i32>,
    rng: &mut R,
) -> u128 {
    out.clear();
    let (mut digits, mut rounded, mut open) =
        ([0; ROUNDING_TILE], [0; ROUNDING_TILE], [0; ROUNDING_TILE / 16]);
    let mut squares = 0;
    for values in values.chunks(ROUNDING_TILE) {
        let (digits, rounded) = (&mut digits[..values.len()], &mut rounded[..values.len()]);
        let open = &mut open[..values.len().div_ceil(16)];
        rng.fill_bytes(digits);
        squares += u128::from(round_by_first_digit(values, scale, digits, rounded, open));
        for (first, open) in (0..).step_by(16).zip(open) {
            while *open != 0 {
                let at = first + open.trailing_zeros() as usize;
                rounded[at] = round_exactly(values[at], scale, digits[at], rng);
                squares += u128::from(rounded[at].unsigned_abs()).pow(2);
                *open &= *open - 1;
            }
        }
        out.extend_from_slice(rounded);
    }
    squares
}

/// Rounds by the first digits where they decide; the sum of the squares there. Elsewhere the result is 0, and so is no bit of
/// `open`, which has 16 numbers' in each.
///
/// |y| is rounded up if d + u < f, where f is its fraction in units of 2⁻⁸, d the digit and u in \[0, 1) all bits after it. Let n
/// be an integer less than 1 away from |y| in these units. Then the result is n + 255 − d without its last 8 bits, unless
/// d = n − 1 or d = n, modulo 2⁸: for |y| + 256 − d − u lies between n + 254 − d and n + 257 − d, and only there a multiple of 256
/// may lie between the result and the truth.
fn round_by_first_digit(values: &[f32], scale: f64, digits: &[u8], out: &mut [i32], open: &mut [u16]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(squares) = wide::round(values, scale, digits, out, open) {
        return squares;
    }
    round_portably(values, scale, digits, out, open)
}

vectorize! {
    fn round_portably(values: &[f32], scale: f64, digits: &[u8], out: &mut [i32], open: &mut [u16]) -> u64 {
        // A sum with it has no bits after the point, so it is rounded to an integer, which stands in its low 52 bits.
        const SHIFT: f64 = (1_u64 << 52) as f64;
        let scale = scale * 256.0;
        let (mut squares, mut flags) = (0_u64, [0; ROUNDING_TILE]);
        for (((&value, &digit), q), flag) in values.iter().zip(digits).zip(out).zip(&mut flags) {
            let nearest = (f64::from(value.abs()) * scale + SHIFT).to_bits() as u32;
            let sum = nearest.wrapping_add(u32::from(!digit));
            *flag = u8::from(sum.wrapping_add(1) & 0xff < 2);
            let magnitude = if *flag == 0 { sum >> 8 } else { 0 };
            squares = squares.wrapping_add(u64::from(magnitude) * u64::from(magnitude));
            *q = with_sign_of(value, magnitude as i32);
        }
        for (open, flags) in open.iter_mut().zip(flags.as_chunks::<16>().0) {
            *open = flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u16::from(flag));
        }
        squares
    }
}

/// By all digits, of which the first is given.
#[cold]
fn round_exactly<R: CryptoRng + ?Sized>(value: f32, scale: f64, digit: u8, rng: &mut R) -> i32 {
    let y = f64::from(value.abs()) * scale;
    let scaled = y.fract() * 256.0;
    let up = digit < scaled as u8 || (digit == scaled as u8 && is_below(scaled.fract(), rng));
    with_sign_of(value, y as i32 + i32::from(up))
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
    out.reserve(values.len());
    let mut fit = true;
    for values in values.chunks(NEAREST_TILE) {
        let before = out.len();
        if !(is_power && round_small_to_nearest(values, scale as f32, out)) {
            out.truncate(before);
            fit &= round_tile_to_nearest(values, scale, out);
        }
    }
    fit
}

vectorize! {
    /// Appends the same in single precision, for a scale that is a power of two; whether all are small enough for that.
    fn round_small_to_nearest(values: &[f32], scale: f32, out: &mut Vec<i32>) -> bool {
        // Up to here a sum with the next number is rounded to an integer, which stands in its low bits.
        const LARGEST: f32 = (1 << 22) as f32;
        const SHIFT: f32 = 3.0 * LARGEST;
        let mut small = true;
        out.extend(values.iter().map(|value| {
            let scaled = value * scale;
            small &= scaled.abs() < LARGEST;
            ((scaled + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32)
        }));
        small
    }
}

vectorize! {
    fn round_tile_to_nearest(values: &[f32], scale: f64, out: &mut Vec<i32>) -> bool {
        // A sum with it has no bits after the point, so it is rounded to an integer, whose low bits are those of the sum.
        const SHIFT: f64 = 1.5 * (1_u64 << 52) as f64;
        let mut fit = true;
        out.extend(values.iter().map(|&value| {
            let scaled = f64::from(value) * scale;
            fit &= fits(scaled);
            (scaled + SHIFT).to_bits() as i32
        }));
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

/// Numbers whose first digits are drawn together. Part of the result: changing it changes bits.
const ROUNDING_TILE: usize = 512;

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
    fn a_tie_of_the_first_digit_is_broken_by_more() {
        // The fraction is 123.25/2^8. All first digits are 123, so the next ones alone decide, here with 1/4.
        let value = 123.25 / 256.0;
        let mut prg = Key::from_seed(3).stream();
        let mut ups = 0;
        for _ in 0..100_000 {
            let mut first = true;
            let mut words = Words(|| if std::mem::take(&mut first) { 123 } else { prg.next_u64() });
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
            let (mut single, mut double) = (Vec::new(), Vec::new());
            prop_assert!(round_tile_to_nearest(&values, scale, &mut double));
            let small = values.iter().all(|value| f64::from(value.abs()) * scale < 4_194_304.0);
            prop_assert_eq!(round_small_to_nearest(&values, scale as f32, &mut single), small);
            prop_assert!(!small || single == double, "{:?} instead of {:?}", single, double);
            prop_assert!(round_nearest(&values, scale, &mut single) && single == double);
        }

        #[test]
        fn the_first_digit_decides_what_all_digits_would(
            values in prop::collection::vec(-1.0_f32..1.0, 1..=ROUNDING_TILE),
            log_scale in prop_oneof![0.0_f64..21.0, (0..22).prop_map(f64::from)],
            seed in any::<u64>(),
        ) {
            let scale = log_scale.exp2();
            let mut rng = Key::from_seed(seed).stream();
            let mut digits = vec![0; values.len()];
            rng.fill_bytes(&mut digits);
            // Half of the digits are that of the fraction or next to it.
            for (i, (digit, value)) in digits.iter_mut().zip(&values).enumerate().filter(|(i, _)| i % 2 == 0) {
                let first = ((f64::from(value.abs()) * scale).fract() * 256.0) as u8;
                *digit = first.wrapping_add((i / 2 % 7) as u8).wrapping_sub(3);
            }
            let [first, portable] = both(|| {
                let (mut out, mut open) = (vec![0; values.len()], vec![0; values.len().div_ceil(16)]);
                let squares = round_by_first_digit(&values, scale, &digits, &mut out, &mut open);
                (squares, out, open)
            });
            prop_assert_eq!(&first, &portable);
            let (squares, out, open) = first;
            let is_open = |at: usize| open[at / 16] >> (at % 16) & 1 == 1;
            prop_assert_eq!(squares, out.iter().map(|&q| i64::from(q).pow(2) as u64).sum::<u64>());
            for at in 0..values.len() {
                // What the other digits are, all zeros or all ones, makes no difference where the first one decides.
                let [least, most] = [0, u64::MAX]
                    .map(|word| round_exactly(values[at], scale, digits[at], &mut Words(|| word)));
                match is_open(at) {
                    false => prop_assert!([least, most] == [out[at]; 2], "{} of {}", out[at], values[at]),
                    true => prop_assert_eq!(out[at], 0),
                }
            }
            let opened = (0..values.len()).filter(|&at| is_open(at)).count();
            prop_assert!(values.len() < 30 || (opened > values.len() / 20 && opened < values.len() / 2));
        }
    }
}
