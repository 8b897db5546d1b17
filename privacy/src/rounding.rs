//! Unbiased stochastic rounding of doubles to integers, on random bits that are drawn as they are needed.

use crate::prg::CryptoRng;

/// One of the two integers next to y with mean exactly y, for every y = value · scale as a double, |y| < 2³¹.
///
/// It compares the fraction of |y| with 16 random bits, and with more where those are the first bits of the fraction.
pub(crate) fn round_unbiased<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    out: &mut [i32],
    rng: &mut R,
) {
    for (values, out) in values.chunks(ROUNDING_TILE).zip(out.chunks_mut(ROUNDING_TILE)) {
        let mut bits = [[0; 2]; ROUNDING_TILE];
        rng.fill_bytes(bits[..values.len()].as_flattened_mut());
        let mut ties = false;
        for ((&value, q), bits) in values.iter().zip(&mut *out).zip(bits) {
            let (floor, first, _) = fixed_point(f64::from(value.abs()) * scale);
            let digit = i32::from(u16::from_le_bytes(bits));
            ties |= digit == first;
            *q = with_sign_of(value, floor + i32::from(digit < first));
        }
        if ties {
            break_ties(values, scale, out, &bits, rng);
        }
    }
}

#[cold]
fn break_ties<R: CryptoRng + ?Sized>(
    values: &[f32],
    scale: f64,
    out: &mut [i32],
    bits: &[[u8; 2]],
    rng: &mut R,
) {
    for ((&value, q), &bits) in values.iter().zip(out).zip(bits) {
        let (floor, first, rest) = fixed_point(f64::from(value.abs()) * scale);
        if i32::from(u16::from_le_bytes(bits)) == first {
            *q = with_sign_of(value, floor + i32::from(is_below(rest, rng)));
        }
    }
}

/// Whether a uniform number, drawn 16 bits at a time, is below `p` in \[0, 1).
fn is_below<R: CryptoRng + ?Sized>(mut p: f64, rng: &mut R) -> bool {
    // Each step removes 16 of the at most 1074 binary digits of p, exactly.
    while p > 0.0 {
        let (first, rest) = split(p * 65_536.0);
        let digit = (rng.next_u64() >> 48) as i32;
        if digit != first {
            return digit < first;
        }
        p = rest;
    }
    false
}

/// y ≥ 0 as ⌊y⌋ + (d + r)/2¹⁶ with a whole d < 2¹⁶ and r in \[0, 1), exactly.
#[inline]
fn fixed_point(y: f64) -> (i32, i32, f64) {
    let (floor, fraction) = split(y);
    let (digit, rest) = split(fraction * 65_536.0);
    (floor, digit, rest)
}

/// ⌊y⌋ and y − ⌊y⌋ for 0 ≤ y < 2³¹, in operations that every processor does for several numbers at once.
///
/// The difference is exact, as it has no digit that y does not have. For negative y it would not be.
#[inline]
fn split(y: f64) -> (i32, f64) {
    // The sum has no bits after the point, so it is rounded to the nearest integer, which stands in its low bits.
    const SHIFT: f64 = 1.5 * (1_u64 << 52) as f64;
    let shifted = y + SHIFT;
    let nearest = shifted - SHIFT;
    let above = nearest > y;
    (shifted.to_bits() as i32 - i32::from(above), y - (nearest - f64::from(u8::from(above))))
}

#[inline]
fn with_sign_of(value: f32, magnitude: i32) -> i32 {
    let negative = i32::from(value < 0.0);
    (magnitude ^ -negative) + negative
}

/// The integer next to value · scale that is not longer.
pub(crate) fn round_toward_zero(values: &[f32], scale: f64, out: &mut [i32]) {
    for (&value, q) in values.iter().zip(out) {
        *q = (f64::from(value) * scale).trunc() as i32;
    }
}

/// Numbers that are rounded with one batch of random words.
const ROUNDING_TILE: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prg::Key;
    use crate::prg::testing::Words;

    #[test]
    fn rounding_is_unbiased() {
        // Five coordinates of a hundred thousand roundings: standard error 0.5/√1e5 = 0.0016; bound at 5.5 of them.
        const ROUNDINGS: usize = 100_000;
        let values = [0.25, -0.25, 0.9, 1e-3, -7.4];
        let mut totals = [0_i64; 5];
        let mut rng = Key::from_seed(2).stream();
        let mut out = [0; 5];
        for _ in 0..ROUNDINGS {
            round_unbiased(&values, 1.0, &mut out, &mut rng);
            for (total, q) in totals.iter_mut().zip(out) {
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
            let mut out = [0];
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

    proptest! {
        #[test]
        fn splitting_is_exact(y in prop_oneof![0.0..2e9_f64, 0.0..2.0_f64, 0.0..1e-300_f64, (0..1000).prop_map(f64::from)]) {
            let (floor, fraction) = split(y);
            prop_assert_eq!(f64::from(floor), y.floor());
            prop_assert_eq!(fraction, y.fract());
            let (whole, digit, rest) = fixed_point(y);
            prop_assert!((0..1 << 16).contains(&digit) && (0.0..1.0).contains(&rest));
            prop_assert_eq!(f64::from(whole) + (f64::from(digit) + rest) / 65_536.0, y);
        }
    }
}
