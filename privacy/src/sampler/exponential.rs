//! Decisions whose probability is c·e^(-a/b), for integers a, b and c, to the last binary digit.
//!
//! The probability is a real number of which as many digits are computed as a decision needs: 64 bits decide nearly
//! always, and each further word is needed with a chance of about 2⁻⁶².

use super::uniform::uniform_below;
use crate::prg::CryptoRng;

/// True with probability e^(-a/b), b > 0. Canonne, Kamath and Steinke (arXiv 2004.00010), Algorithm 1.
pub fn bernoulli_exp<R: CryptoRng + ?Sized>(rng: &mut R, a: u128, b: u64) -> bool {
    let whole = a / u128::from(b);
    (0..whole).all(|_| bernoulli_exp_fraction(rng, b, b))
        && bernoulli_exp_fraction(rng, (a % u128::from(b)) as u64, b)
}

/// True with probability e^(-a/b), a ≤ b: the coins a/b, a/2b, a/3b, … fail first at an odd place.
fn bernoulli_exp_fraction<R: CryptoRng + ?Sized>(rng: &mut R, a: u64, b: u64) -> bool {
    for k in 1_u64.. {
        let heads = uniform_below(b, rng) < a && uniform_below(k, rng) == 0;
        if !heads {
            return k % 2 == 1;
        }
    }
    unreachable!("the loop has no end")
}

/// The real number ∏scale · e^(-∏numerator/∏denominator).
///
/// The factors are kept apart because their products need not fit a word. Denominators are positive.
#[derive(Debug, Clone)]
pub(crate) struct ScaledExponential<'a> {
    pub(crate) scale: &'a [u64],
    pub(crate) numerator: &'a [u64],
    pub(crate) denominator: &'a [u64],
}

impl ScaledExponential<'_> {
    /// The number rounded up. It is below 2⁶⁴.
    pub(crate) fn ceil(&self) -> u64 {
        if self.is_whole() {
            return self.scale.iter().product();
        }
        for words in 1.. {
            if let Some((lower, _)) = self.bounds(words) {
                return lower[words] + 1;
            }
        }
        unreachable!("e^-q is irrational for every rational q but 0, so the bounds come to agree")
    }

    /// True with the part of its last unit that the number fills: what remains above ⌈number⌉ − 1.
    pub(crate) fn last_unit<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> bool {
        if self.is_whole() {
            return true;
        }
        // The most significant word is drawn first and stands last, as in the bounds.
        let mut uniform = Vec::new();
        for words in 1.. {
            uniform.insert(0, rng.next_u64());
            let Some((lower, upper)) = self.bounds(words) else { continue };
            // The number whose first words are drawn lies in uniform..uniform + 1.
            let below = |bound: &[u64]| uniform.iter().rev().lt(bound[..words].iter().rev());
            if below(&lower) {
                return true;
            }
            if !below(&upper) {
                return false;
            }
        }
        unreachable!("the bounds come to lie on one side of any other number")
    }

    fn is_whole(&self) -> bool {
        self.numerator.contains(&0)
    }

    /// Bounds in units of 2^(-64·words), little-endian, three units apart. None if they straddle an integer.
    ///
    /// They sum Σ(-x)ⁱ/i! with every term rounded down. An error of one unit in term j grows by at most
    /// x^(i-j)/(i-j)! ≤ eˣ until term i, which is therefore at most i·eˣ units too small. All N terms and those left out
    /// are wrong by less than N²·eˣ ≤ 2^(64 + 3x/2) units for N < 2³². So the sum has as many spare bits, and what is
    /// kept of it is wrong by less than a unit before it is rounded down.
    fn bounds(&self, words: usize) -> Option<(Vec<u64>, Vec<u64>)> {
        let spare = 1 + (3 * self.exponent_ceiling()).div_ceil(128);
        let sum = self.sum(words + spare, spare);
        let mut one = vec![0; sum.len() - spare];
        one[0] = 1;
        let kept = sum[spare..].to_vec();
        let lower = subtract(kept.clone(), &one);
        let mut upper = kept;
        add(&mut upper, &one);
        add(&mut upper, &one);
        (lower[words..] == upper[words..]).then_some((lower, upper))
    }

    /// The series in units of 2^(-64·fraction), with room for terms up to eˣ < 2^(64·spare) times the scale.
    fn sum(&self, fraction: usize, spare: usize) -> Vec<u64> {
        let mut term = vec![0; fraction + self.scale.len() + spare + self.numerator.len() + 1];
        term[fraction] = 1;
        self.scale.iter().for_each(|&factor| multiply(&mut term, factor));
        let (mut even, mut odd) = (term.clone(), vec![0; term.len()]);
        for i in 1.. {
            self.numerator.iter().for_each(|&factor| multiply(&mut term, factor));
            self.denominator.iter().chain([&i]).for_each(|&factor| divide(&mut term, factor));
            if term.iter().all(|&word| word == 0) {
                break;
            }
            add(if i % 2 == 0 { &mut even } else { &mut odd }, &term);
        }
        subtract(even, &odd)
    }

    fn exponent_ceiling(&self) -> usize {
        let mut x = vec![0; self.numerator.len() + 1];
        x[0] = 1;
        self.numerator.iter().for_each(|&factor| multiply(&mut x, factor));
        self.denominator.iter().for_each(|&factor| divide(&mut x, factor));
        x[0] as usize + 1
    }
}

fn multiply(number: &mut [u64], factor: u64) {
    let mut carry = 0;
    for word in &mut *number {
        let product = u128::from(*word) * u128::from(factor) + carry;
        *word = product as u64;
        carry = product >> 64;
    }
    assert_eq!(carry, 0, "numbers are given room for their largest product");
}

/// Rounds down.
fn divide(number: &mut [u64], divisor: u64) {
    let mut remainder = 0;
    for word in number.iter_mut().rev() {
        let dividend = (remainder << 64) | u128::from(*word);
        *word = (dividend / u128::from(divisor)) as u64;
        remainder = dividend % u128::from(divisor);
    }
}

fn add(number: &mut [u64], summand: &[u64]) {
    let mut carry = false;
    for (word, &other) in number.iter_mut().zip(summand) {
        (*word, carry) = word.carrying_add(other, carry);
    }
    assert!(!carry, "numbers are given room for their largest sum");
}

/// The difference, or zero if it is negative.
fn subtract(mut number: Vec<u64>, subtrahend: &[u64]) -> Vec<u64> {
    let mut borrow = false;
    for (word, &other) in number.iter_mut().zip(subtrahend) {
        (*word, borrow) = word.borrowing_sub(other, borrow);
    }
    if borrow {
        number.fill(0);
    }
    number
}

#[cfg(test)]
#[allow(clippy::float_arithmetic)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::prg::testing::Words;

    /// c·e^(-a/b) in units of 2^-192, from 200 decimal digits by Python's decimal module, whose `exp` is correctly
    /// rounded; least significant word first.
    const KNOWN: [(u64, u64, u64, [u64; 4]); 5] = [
        (1, 1, 1, [0xda9805aab56c7733, 0xbadec7829054f90d, 0x5e2d58d8b3bcdf1a, 0x0000000000000000]),
        (
            2251799813685248,
            1,
            8192,
            [0x92695afdd128d8df, 0xbfcbf130e369358a, 0x5aaaa2222d82cb2c, 0x0007ffc000fffd55],
        ),
        (
            17592186056761,
            77777,
            2000,
            [0x2ed297339b84e1ec, 0x1f8dd02666a88afe, 0x000ee278c476dc40, 0x0000000000000000],
        ),
        (
            1000000000000000,
            30,
            1,
            [0xf70d91fb127d30e8, 0xc14d19124ff6a45b, 0x9383c9f2ab760871, 0x000000000000005d],
        ),
        (1, 9, 1048576, [0x5e499674c4d3375a, 0x01115fe13ecfaee9, 0xffff7000287ff868, 0x0000000000000000]),
    ];

    #[test]
    fn bounds_enclose_known_values() {
        for (c, a, b, exact) in KNOWN {
            let number = ScaledExponential { scale: &[c], numerator: &[a], denominator: &[b] };
            let (lower, upper) = number.bounds(3).unwrap();
            let padded = |bound: &[u64]| bound.iter().skip(4).all(|&word| word == 0);
            assert!(padded(&lower) && padded(&upper));
            // The true value lies strictly between its floor and the next integer.
            assert!(lower[..4].iter().rev().le(exact.iter().rev()), "{c} {a} {b}");
            assert!(upper[..4].iter().rev().gt(exact.iter().rev()), "{c} {a} {b}");
            let mut apart = subtract(upper, &lower);
            assert_eq!(apart.remove(0), 3.min(apart[0] + 3));
            assert_eq!(number.ceil(), exact[3] + 1);
        }
    }

    #[test]
    fn a_tie_of_the_first_words_is_broken_by_the_next() {
        for (c, a, b, exact) in KNOWN {
            let number = ScaledExponential { scale: &[c], numerator: &[a], denominator: &[b] };
            for (last, expected) in [(exact[0] - 10, true), (exact[0] + 10, false)] {
                let mut script = [exact[2], exact[1], last].into_iter();
                assert_eq!(number.last_unit(&mut Words(|| script.next().unwrap())), expected);
                assert_eq!(script.next(), None);
            }
        }
    }

    #[test]
    fn coins_have_their_probability() {
        const FLIPS: u32 = 1_000_000;
        let mut rng = Key::from_seed(1).stream();
        for (a, b) in [(0, 1), (1, 1), (1, 2), (3, 7), (5, 2), (u64::MAX / 3, u64::MAX)] {
            let p = (-(a as f64) / b as f64).exp();
            let deviation = (f64::from(FLIPS) * p * (1.0 - p)).sqrt();
            let classic = (0..FLIPS).filter(|_| bernoulli_exp(&mut rng, a.into(), b)).count();
            assert!((classic as f64 - p * f64::from(FLIPS)).abs() <= 5.0 * deviation, "{a}/{b}: {classic}");
        }
        let number = ScaledExponential { scale: &[5, 2], numerator: &[3, 2], denominator: &[4] };
        let p = (10.0 * (-1.5_f64).exp()).fract();
        let heads = (0..20_000).filter(|_| number.last_unit(&mut rng)).count() as f64;
        assert!((heads - 20_000.0 * p).abs() < 5.0 * (20_000.0 * p * (1.0 - p)).sqrt(), "{heads}");
    }

    #[test]
    fn whole_numbers_fill_their_last_unit() {
        let number = ScaledExponential { scale: &[5, 2], numerator: &[3, 0], denominator: &[4] };
        assert_eq!(number.ceil(), 10);
        assert!(number.last_unit(&mut Words(|| u64::MAX)));
    }
}
