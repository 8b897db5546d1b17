//! The exact choice of a cell i ≥ 0 with probability proportional to e^(-i²·h²/2), by one uniform word and a table.
//!
//! A scale c makes the density integer: cell i owns wᵢ = ⌈c·e^(-i²h²/2)⌉ words. A word that is not the last of its cell
//! stands for a unit that lies wholly below c·e^(-i²h²/2), and is accepted. The last one is accepted with the part of its
//! unit that lies below: a real number, whose digits are computed when a draw gets there. One more word stands for all
//! the cells beyond the table. Words of these two kinds are rare and may be slow; without them the law would be wrong by
//! as much as they are likely.

use super::exponential::ScaledExponential;
use super::uniform::uniform_below;
use crate::prg::CryptoRng;

/// Words are sorted into 2¹⁰ equal parts to shorten the search for their cell.
pub(crate) const GUIDE_BITS: u32 = 10;

/// Cells of a half bell, with a width h that is the root of a rational.
#[derive(Debug, Clone)]
pub(crate) struct Cells {
    density: Density,
    word_bits: u32,
    /// The first word behind each cell, and a last one that no word reaches.
    ends: Vec<u64>,
    /// The cell of the first word of each part.
    guide: Vec<u32>,
}

impl Cells {
    /// Cells with h²/2 = ∏numerator/denominator, to be chosen by words of `word_bits` bits, [`GUIDE_BITS`] to 63.
    pub(crate) fn new(numerator: [u64; 3], denominator: u64, word_bits: u32) -> Self {
        let density = Density { scale: 1 << 16, numerator, denominator };
        let density = density.filling(1 << word_bits);
        let mut ends = density.ends();
        let cell_of = |word| ends.partition_point(|&end| end <= word) as u32;
        let guide = (0..1 << GUIDE_BITS).map(|part| cell_of(part << (word_bits - GUIDE_BITS))).collect();
        ends.push(u64::MAX);
        Self { density, word_bits, ends, guide }
    }

    /// The cell that a uniform word of the right length stands for; none if another word is needed.
    #[inline]
    pub(crate) fn choose<R: CryptoRng + ?Sized>(&self, word: u64, rng: &mut R) -> Option<u64> {
        let mut cell = self.guide[(word >> (self.word_bits - GUIDE_BITS)) as usize] as usize;
        while word >= self.ends[cell] {
            cell += 1;
        }
        let inside = word + 1 < self.ends[cell] && cell + 1 < self.ends.len();
        if inside { Some(cell as u64) } else { self.decide(word, cell, rng) }
    }

    #[cold]
    fn decide<R: CryptoRng + ?Sized>(&self, word: u64, cell: usize, rng: &mut R) -> Option<u64> {
        let count = self.ends.len() - 1;
        let total = self.ends[count - 1];
        match word {
            _ if cell < count => self.density.last_unit(cell as u64, &[], rng).then_some(cell as u64),
            _ if word == total => self.choose_beyond(rng),
            _ => None,
        }
    }

    /// A cell behind the n cells of the table: a block of n by tossing a coin for each, and one of its cells. That
    /// proposes cell i of block b with probability 2^(-b-1)/n, so it is kept with probability 2^(b+1)·n·c·e^(-i²h²/2),
    /// which the table is long enough to make less than one.
    fn choose_beyond<R: CryptoRng + ?Sized>(&self, rng: &mut R) -> Option<u64> {
        let count = self.ends.len() as u64 - 1;
        let mut factors = vec![count, 2];
        while rng.next_u64() >> 63 == 1 {
            factors.push(2);
        }
        let block = factors.len() as u64 - 1;
        let cell = block * count + uniform_below(count, rng);
        self.density.last_unit(cell, &factors, rng).then_some(cell)
    }
}

/// The function c·e^(-i²h²/2).
#[derive(Debug, Clone)]
struct Density {
    scale: u64,
    numerator: [u64; 3],
    denominator: u64,
}

impl Density {
    /// With a scale that needs nearly all of the words: all but a hundredth if they are many.
    fn filling(self, words: u64) -> Self {
        let ends = self.ends();
        // Rounding adds less than a word a cell, and the number of cells grows with the root of the scale's logarithm.
        let room = u128::from(words) - 4 * ends.len() as u128;
        let scale = room * u128::from(self.scale) / u128::from(ends[ends.len() - 1]);
        Self { scale: scale as u64, ..self }
    }

    fn ends(&self) -> Vec<u64> {
        let mut ends = Vec::new();
        let mut end = 0;
        for cell in 0.. {
            let weight = self.with(cell, &[], |density| density.ceil());
            // Cells behind the table must be unlikely enough for the proposals of `choose_beyond`.
            if weight == 1 && self.with(cell, &[2, cell], |density| density.ceil()) == 1 {
                break;
            }
            end += weight;
            ends.push(end);
        }
        ends
    }

    fn last_unit<R: CryptoRng + ?Sized>(&self, cell: u64, factors: &[u64], rng: &mut R) -> bool {
        self.with(cell, factors, |density| density.last_unit(rng))
    }

    fn with<T>(&self, cell: u64, factors: &[u64], ask: impl FnOnce(ScaledExponential<'_>) -> T) -> T {
        let [a, b, c] = self.numerator;
        ask(ScaledExponential {
            scale: &[factors, &[self.scale]].concat(),
            numerator: &[cell, cell, a, b, c],
            denominator: &[self.denominator],
        })
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic)]
mod tests {
    use super::testing::assert_thresholds;
    use super::*;
    use crate::prg::Key;
    use crate::sampler::statistics::{ALPHA, chi_square};

    /// P[cell ≤ i] for cells of width h.
    fn cumulative(h: f64) -> impl Fn(i64) -> f64 {
        let density = move |i: i64| (-(i as f64 * h).powi(2) / 2.0).exp();
        let total: f64 = (0..10_000).map(density).sum();
        move |i| (0..=i).map(density).sum::<f64>() / total
    }

    fn draws(cells: &Cells, seed: u64, n: usize) -> Vec<i64> {
        let mut rng = Key::from_seed(seed).stream();
        let word = |rng: &mut crate::prg::Prg| rng.next_u64() >> (64 - cells.word_bits);
        std::iter::repeat_with(|| cells.choose(word(&mut rng), &mut rng))
            .flatten()
            .take(n)
            .map(|i| i as i64)
            .collect()
    }

    #[test]
    fn cells_have_their_probabilities() {
        // Widths 1/64, 1/4 and 1.
        for (seed, (denominator, h)) in [(8192, 1.0 / 64.0), (32, 0.25), (2, 1.0)].into_iter().enumerate() {
            let cells = Cells::new([1; 3], denominator, 51);
            let noise = draws(&cells, seed as u64, 1_000_000);
            let p = chi_square(&noise, 0, (6.0 / h) as i64, cumulative(h));
            assert!(p > ALPHA, "h = {h}: p = {p}");
        }
    }

    #[test]
    fn short_words_give_the_same_law_because_rare_words_decide_it() {
        // With 2^10 words for cells of width 1/4, one draw in thirty ends at the last word of a cell, and one in a
        // thousand behind the table.
        let cells = Cells::new([1; 3], 32, GUIDE_BITS);
        let count = cells.ends.len() as i64 - 1;
        let noise = draws(&cells, 7, 300_000);
        let p = chi_square(&noise, 0, 24, cumulative(0.25));
        assert!(p > ALPHA, "p = {p}");
        assert!(noise.iter().any(|&i| i >= count), "no draw was behind the {count} cells of the table");
        // The same table without its rare words fails.
        let truncated: Vec<_> = noise_without_rare_words(&cells, 300_000);
        assert!(chi_square(&truncated, 0, 24, cumulative(0.25)) < ALPHA);
    }

    fn noise_without_rare_words(cells: &Cells, n: usize) -> Vec<i64> {
        let mut rng = Key::from_seed(8).stream();
        let count = cells.ends.len() - 1;
        let cell_of = |word: u64| cells.ends.partition_point(|&end| end <= word);
        let words = std::iter::repeat_with(|| rng.next_u64() >> (64 - cells.word_bits));
        words.map(cell_of).filter(|&cell| cell < count).map(|cell| cell as i64).take(n).collect()
    }

    #[test]
    fn thresholds_agree_with_an_independent_computation() {
        let cells = Cells::new([1; 3], 8192, 51);
        assert_thresholds(&cells, 1, 8192);
        assert!(cells.ends.len() > 500);
    }
}

/// An independent computation of the table, in 128-bit integers.
#[cfg(test)]
pub(super) mod testing {
    use super::Cells;

    /// Asserts that every cell i has the ⌈c·e^(-i²x)⌉ words that it should, x = numerator/denominator, and that what is
    /// behind the table is rare enough for the proposals of `choose_beyond`.
    ///
    /// From e^(-x) by e^(-(i+1)²x) = e^(-i²x)·e^(-(2i+1)x). A product is off by at most three units of 2^-127, e^(-x) by a
    /// hundred, hence e^(-i²x) by fewer than 100·i² + 3·i², and for at most 2^11 cells and c < 2^51 the number of words by
    /// less than 2^-47: numbers as close to a whole one are not decided, and do not come up.
    pub(crate) fn assert_thresholds(cells: &Cells, numerator: u128, denominator: u128) {
        let step = exponential(numerator, denominator);
        let square = times(step, step);
        let (mut value, mut ratio) = (1_u128 << 127, step);
        let scale = u128::from(cells.density.scale);
        let ends = &cells.ends[..cells.ends.len() - 1];
        assert!(ends.len() < 1 << 11 && scale < 1 << 51);
        assert_eq!(u128::from(ends[0]), scale);
        for pair in ends.windows(2) {
            value = times(value, ratio);
            ratio = times(ratio, square);
            assert_eq!(u128::from(pair[1] - pair[0]), ceil(scale, value));
        }
        let beyond = times(value, ratio);
        assert_eq!(ceil(scale, beyond), 1);
        assert_eq!(ceil(scale * 2 * ends.len() as u128, beyond), 1);
        assert_eq!(cells.ends.last(), Some(&u64::MAX));
        // All words but a hundredth are in use where there are many, and one is left for what is beyond.
        let (words, total) = (1_u64 << cells.word_bits, ends[ends.len() - 1]);
        assert!(total < words && (words - total <= words / 100 || words < 1 << 20));
    }

    /// ⌈factor·value⌉, the value in units of 2^-127.
    fn ceil(factor: u128, value: u128) -> u128 {
        let product = factor * (value >> 64) + ((factor * (value & MASK)) >> 64);
        let fraction = product & ((1 << 63) - 1);
        assert!(
            product >> 63 == 0 || (1 << 16..(1 << 63) - (1 << 16)).contains(&fraction),
            "too close to call"
        );
        (product >> 63) + 1
    }

    /// e^(-numerator/denominator) in units of 2^-127: the series of an argument below 1, squared as often as it was halved.
    fn exponential(numerator: u128, denominator: u128) -> u128 {
        let halvings = (0..).find(|halvings| numerator < denominator << halvings).unwrap_or(0);
        let x = quotient(numerator, denominator << halvings);
        let (mut term, mut sum) = (1_u128 << 127, 0);
        for i in 1..40 {
            sum = if i % 2 == 1 { sum + term } else { sum - term };
            term = times(term, x) / i;
        }
        (0..halvings).fold(sum, |power, _| times(power, power))
    }

    /// A proper fraction in units of 2^-127, by long division.
    fn quotient(numerator: u128, denominator: u128) -> u128 {
        let step = |(quotient, rest): (u128, u128)| {
            let rest = 2 * rest;
            if rest >= denominator { (2 * quotient + 1, rest - denominator) } else { (2 * quotient, rest) }
        };
        (0..127).fold((0, numerator), |state, _| step(state)).0
    }

    /// The product of two numbers in units of 2^-127, at most 1, to three units.
    fn times(a: u128, b: u128) -> u128 {
        let ((a1, a0), (b1, b0)) = ((a >> 64, a & MASK), (b >> 64, b & MASK));
        ((a1 * b1) << 1) + ((a1 * b0 + a0 * b1) >> 63)
    }

    const MASK: u128 = u64::MAX as u128;
}
