//! A model of the next word that only counts: interpolated Kneser-Ney smoothing (Kneser and Ney, "Improved Backing-off for M-gram
//! Language Modeling", 1995; Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1999, section 3).
//!
//! What a neural model must beat to be worth its training. With c the counts of the longest n-grams, and of shorter ones the number of
//! different words before them, and D = n₁/(n₁ + 2 n₂), of the n-grams counted once and twice,
//!
//! ```text
//! p(w | h) = max(c(hw) − D, 0)/c(h·) + D · |{w : c(hw) > 0}|/c(h·) · p(w | h without its first word)
//! ```
//!
//! and the shortest history leads to the uniform distribution.

use std::ops::Range;

use crate::Subset;

/// Counts of n-grams of one length, by their words; those with one history lie side by side.
struct Counts {
    grams: Vec<(u128, u32)>,
    discount: f64,
}

impl Counts {
    /// Counts n-grams that are equal.
    fn of(mut grams: Vec<u128>) -> Self {
        grams.sort_unstable();
        let grams: Vec<_> =
            grams.chunk_by(|a, b| a == b).map(|alike| (alike[0], alike.len() as u32)).collect();
        let counted = |times: u32| grams.iter().filter(|(_, count)| *count == times).count() as f64;
        let (once, twice) = (counted(1), counted(2));
        let discount = if once == 0.0 { 0.0 } else { once / (once + 2.0 * twice) };
        Self { grams, discount }
    }

    /// Counts the n-grams without their first word, each once for every word that stands before it.
    fn shorter(&self, words: usize) -> Self {
        let mask = (1 << (BITS * words)) - 1;
        Self::of(self.grams.iter().map(|(gram, _)| gram & mask).collect())
    }

    /// The probability of the last word of `gram` after the others, with that of the shorter one; the shorter one if the history is
    /// unknown.
    fn probability(&self, gram: u128, shorter: f64) -> f64 {
        let history = gram >> BITS;
        let after = self.place(history << BITS)..self.place((history + 1) << BITS);
        let (mut total, mut own) = (0.0, 0.0);
        for (other, count) in &self.grams[after.clone()] {
            total += f64::from(*count);
            own += if *other == gram { f64::from(*count) } else { 0.0 };
        }
        if total == 0.0 {
            return shorter;
        }
        let Range { start, end } = after;
        ((own - self.discount).max(0.0) + self.discount * (end - start) as f64 * shorter) / total
    }

    fn place(&self, gram: u128) -> usize {
        self.grams.partition_point(|(other, _)| *other < gram)
    }
}

/// The perplexity of the examples of `test` to n-grams of `order` words that are counted in `train`, both of them parts of texts with the
/// word that follows each: e to the mean of −ln p over all words but the first of each part, whose history is what stands before
/// it in its part, at most `order` − 1 words.
///
/// `None` if there is nothing to predict, or `order` is not 1 to 5.
pub fn perplexity(train: &Subset, test: &Subset, order: usize) -> Option<f64> {
    if !(1..=128 / BITS).contains(&order) {
        return None;
    }
    let mut longest = Vec::new();
    each_part(train, |words| {
        longest.extend((order..=words.len()).map(|end| packed(&words[end - order..end])))
    });
    let mut counts = vec![Counts::of(longest)];
    for words in (1..order).rev() {
        let shorter = counts[counts.len() - 1].shorter(words);
        counts.push(shorter);
    }
    let (uniform, mut loss, mut predicted) = (1.0 / test.dataset().classes() as f64, 0.0, 0_usize);
    each_part(test, |words| {
        for end in 2..=words.len() {
            let probability =
                counts.iter().rev().zip(1..=order.min(end)).fold(uniform, |shorter, (counts, length)| {
                    counts.probability(packed(&words[end - length..end]), shorter)
                });
            loss -= probability.ln();
            predicted += 1;
        }
    });
    (predicted > 0).then(|| (loss / predicted as f64).exp())
}

/// The words of every part, the one that follows included.
fn each_part(data: &Subset, mut visit: impl FnMut(&[u32])) {
    let mut words = Vec::new();
    let features = data.dataset().features();
    for (at, &row) in data.rows().iter().enumerate() {
        words.clear();
        words.extend(features.row(row).iter().take_while(|word| **word >= 0.0).map(|word| *word as u32));
        words.push(data.label(at) as u32);
        visit(&words);
    }
}

/// The words of an n-gram as one number, the last one lowest.
fn packed(words: &[u32]) -> u128 {
    words.iter().fold(0, |packed, word| packed << BITS | u128::from(*word))
}

/// Of a word's number: `f32` holds no larger whole ones exactly.
const BITS: usize = 24;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::{Array1, Array2};

    use super::*;
    use crate::Dataset;

    fn parts(rows: &[[f32; 4]], labels: &[u32]) -> Subset {
        let features = Array2::from_shape_vec((rows.len(), 4), rows.concat()).unwrap();
        Subset::all(Arc::new(Dataset::new(features, Array1::from_vec(labels.to_vec()), 3).unwrap()))
    }

    /// By hand. Bigrams of 0 1 0 1 2: 01 twice, 10 once, 12 once, so D = 2/(2 + 2·1) = 1/2. Continuations: 0 after one word, 1 after one,
    /// 2 after one: D₁ = 3/(3 + 0) = 1, so the unigrams are uniform, 1/3. p(1|0) = (2 − 1/2)/2 + 1/2 · 1/2 · 1/3 = 5/6;
    /// p(2|1) = (1 − 1/2)/2 + 1/2 · 2/2 · 1/3 = 5/12; and after 2, which nothing followed, 1/3.
    #[test]
    fn bigrams_are_smoothed_as_the_formula_says() {
        let train = parts(&[[0.0, 1.0, 0.0, 1.0]], &[2]);
        let test = parts(&[[0.0, 1.0, 2.0, -1.0]], &[0]);
        let expected = (5.0 / 6.0 * 5.0 / 12.0 / 3.0_f64).powf(-1.0 / 3.0);
        let ours = perplexity(&train, &test, 2).unwrap();
        assert!((ours - expected).abs() < 1e-12, "{ours} {expected}");
        assert_eq!(perplexity(&train, &test, 0), None);
        assert_eq!(perplexity(&train, &test, 6), None);
    }

    /// Whatever the history, the probabilities of all words add up to one.
    #[test]
    fn probabilities_of_all_words_add_up_to_one() {
        let train = parts(&[[0.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 1.0], [2.0, 2.0, 1.0, 0.0]], &[1, 2, 1]);
        for order in 1..=5 {
            for history in 0..27 {
                let words = [history / 9, history / 3 % 3, history % 3].map(|word| word as f32);
                // Of two parts that differ in their last word only, the ratio of likelihoods is that of the last.
                let total: f64 = (0..3)
                    .map(|next| {
                        let whole = perplexity(
                            &train,
                            &parts(&[[words[0], words[1], words[2], -1.0]], &[next]),
                            order,
                        )
                        .unwrap();
                        let begun = perplexity(
                            &train,
                            &parts(&[[words[0], words[1], -1.0, -1.0]], &[words[2] as u32]),
                            order,
                        );
                        (2.0 * begun.unwrap().ln() - 3.0 * whole.ln()).exp()
                    })
                    .sum();
                assert!((total - 1.0).abs() < 1e-9, "{order} {words:?}: {total}");
            }
        }
    }
}
