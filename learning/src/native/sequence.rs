//! What is done to sequences of vectors beside attention: positions, and one vector for a whole sequence.

use std::ops::Range;

use super::parameters::Parameters;

/// A vector for each place of a sequence, added to what stands there. Its parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    /// Numbers in a sequence.
    pub(super) numbers: usize,
    pub(super) offset: usize,
}

impl Positions {
    fn weight(&self) -> Range<usize> {
        self.offset..self.offset + self.numbers
    }

    pub(super) fn forward(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let weight = &parameters[self.weight()];
        for (input, output) in input.chunks_exact(self.numbers).zip(output.chunks_exact_mut(self.numbers)) {
            for ((sum, value), place) in output.iter_mut().zip(input).zip(weight) {
                *sum = value + place;
            }
        }
    }

    pub(super) fn backward(&self, parameters: &mut Parameters<'_>, scale: f32, gradient: &[f32]) {
        parameters.add_rows(self.weight(), scale, gradient);
    }
}

/// Which vector stands for a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Summary {
    /// The mean over the positions that are words; zeros if none is.
    Mean,
    /// The one at the first position.
    First,
}

impl Summary {
    /// One vector of `width` numbers for each sequence, whose words are `words`.
    pub(super) fn forward(self, words: &[f32], width: usize, input: &[f32], output: &mut [f32]) {
        let sequences = output.len() / width;
        let length = words.len() / sequences;
        for (at, output) in output.chunks_exact_mut(width).enumerate() {
            output.fill(0.0);
            let input = &input[at * length * width..][..length * width];
            self.shares(&words[at * length..][..length], |place, share| {
                let vector = &input[place * width..][..width];
                output.iter_mut().zip(vector).for_each(|(sum, value)| *sum += share * value);
            });
        }
    }

    /// The gradient of the input.
    pub(super) fn backward(self, words: &[f32], width: usize, gradient: &[f32], below: &mut [f32]) {
        let length = words.len() / (gradient.len() / width);
        below.fill(0.0);
        for (at, gradient) in gradient.chunks_exact(width).enumerate() {
            let below = &mut below[at * length * width..][..length * width];
            self.shares(&words[at * length..][..length], |place, share| {
                let vector = &mut below[place * width..][..width];
                vector.iter_mut().zip(gradient).for_each(|(value, gradient)| *value = share * gradient);
            });
        }
    }

    /// What of each place counts.
    fn shares(self, words: &[f32], mut count: impl FnMut(usize, f32)) {
        match self {
            Self::First => count(0, 1.0),
            Self::Mean => {
                let known = words.iter().filter(|word| **word >= 0.0).count();
                for (place, _) in words.iter().enumerate().filter(|(_, word)| **word >= 0.0) {
                    count(place, 1.0 / known as f32);
                }
            }
        }
    }
}
