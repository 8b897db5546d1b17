//! The mean of the vectors of an example's words.

use std::ops::Range;

use super::parameters::Parameters;
use crate::descent::squared_norm;
use crate::kernel::Onto;

/// An embedding bag whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Bag {
    /// Word numbers in an example, the negative ones included.
    pub(super) words: usize,
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    pub(super) offset: usize,
}

impl Bag {
    fn weight(&self) -> Range<usize> {
        self.offset..self.offset + self.vocabulary * self.width
    }

    /// Whether a number of the data names a word or says that there is none.
    pub(super) fn is_word(&self, number: f32) -> bool {
        number < 0.0 || (number.fract() == 0.0 && number < self.vocabulary as f32)
    }

    fn vector(&self, word: f32) -> Range<usize> {
        let start = word as usize * self.width;
        start..start + self.width
    }

    pub(super) fn forward(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let weight = &parameters[self.weight()];
        for (words, mean) in input.chunks_exact(self.words).zip(output.chunks_exact_mut(self.width)) {
            mean.fill(0.0);
            for &word in words.iter().filter(|word| **word >= 0.0) {
                mean.iter_mut().zip(&weight[self.vector(word)]).for_each(|(sum, value)| *sum += value);
            }
            let scale = share(words);
            mean.iter_mut().for_each(|value| *value *= scale);
        }
    }

    /// Adds the squared norm of each example's gradient: a word that stands there k times of n has k/n of it.
    pub(super) fn measure(&self, input: &[f32], gradient: &[f32], squares: &mut [f64]) {
        let mut known = Vec::with_capacity(self.words);
        let rows = input.chunks_exact(self.words).zip(gradient.chunks_exact(self.width));
        for ((words, gradient), square) in rows.zip(squares) {
            known.clear();
            known.extend(words.iter().filter(|word| **word >= 0.0).map(|&word| word as usize));
            known.sort_unstable();
            let counts = known.chunk_by(|a, b| a == b).map(|alike| alike.len() as f64 / known.len() as f64);
            *square += counts.map(|share| share * share).sum::<f64>() * squared_norm(gradient);
        }
    }

    /// Touches only the vectors of words that occur, unless the step stands apart from the weights.
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
    ) {
        let (target, onto) = parameters.write(self.weight());
        if let Onto::Nothing = onto {
            target.fill(0.0);
        }
        for (words, gradient) in input.chunks_exact(self.words).zip(gradient.chunks_exact(self.width)) {
            let scale = scale * share(words);
            for &word in words.iter().filter(|word| **word >= 0.0) {
                let vector = &mut target[self.vector(word)];
                vector.iter_mut().zip(gradient).for_each(|(value, gradient)| *value += scale * gradient);
            }
        }
    }
}

impl Bag {
    /// The vector of each word, zeros where there is none.
    pub(super) fn forward_each(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let weight = &parameters[self.weight()];
        for (&word, into) in input.iter().zip(output.chunks_exact_mut(self.width)) {
            match word >= 0.0 {
                true => into.copy_from_slice(&weight[self.vector(word)]),
                false => into.fill(0.0),
            }
        }
    }

    /// Adds the squared norm of each example's gradient: a word has the sum of the gradients of its places.
    pub(super) fn measure_each(&self, input: &[f32], gradient: &[f32], squares: &mut [f64]) {
        let (mut places, mut sum) = (Vec::with_capacity(self.words), vec![0.0_f32; self.width]);
        let rows = input.chunks_exact(self.words).zip(gradient.chunks_exact(self.words * self.width));
        for ((words, gradient), square) in rows.zip(squares) {
            places.clear();
            places.extend((0..self.words).filter(|&place| words[place] >= 0.0));
            places.sort_by(|&one, &other| words[one].total_cmp(&words[other]));
            for alike in places.chunk_by(|&one, &other| words[one] == words[other]) {
                sum.fill(0.0);
                for place in alike {
                    let gradient = &gradient[place * self.width..][..self.width];
                    sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient);
                }
                *square += squared_norm(&sum);
            }
        }
    }

    /// The step of [`Bag::forward_each`].
    pub(super) fn backward_each(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
    ) {
        let (target, onto) = parameters.write(self.weight());
        if let Onto::Nothing = onto {
            target.fill(0.0);
        }
        let words = input.iter().zip(gradient.chunks_exact(self.width));
        for (&word, gradient) in words.filter(|(word, _)| **word >= 0.0) {
            let vector = &mut target[self.vector(word)];
            vector.iter_mut().zip(gradient).for_each(|(value, gradient)| *value += scale * gradient);
        }
    }
}

/// One over the number of words; 0 without any.
fn share(words: &[f32]) -> f32 {
    match words.iter().filter(|word| **word >= 0.0).count() {
        0 => 0.0,
        count => 1.0 / count as f32,
    }
}
