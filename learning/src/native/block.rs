//! A block of a transformer: attention, then a layer of two dense ones with GELU between, each beside a path that leaves its
//! input as it is (Vaswani et al., 1706.03762, section 3.1).
//!
//! Normalization stands before attention and feed-forward (Xiong et al., "On Layer Normalization in the Transformer Architecture",
//! 2002.04745), or after each sum as in the first transformers and in BERT:
//!
//! ```text
//! before:  y = x + drop(attend(norm x))       z = y + drop(feed(norm y))
//! after:   y = norm(x + drop(attend x))       z = norm(y + drop(feed y))
//! ```

use super::attention::{self, Attention, Projections};
use super::dense::{self, Dense};
use super::norm::{self, Norm};
use super::parameters::Parameters;
use super::pointwise::Mask;
use super::smooth::{gelu, gelu_back};
use crate::kernel::vectorized;
use crate::layer::{Block as Shape, NormPlace};

/// A block whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    attention: Attention,
    place: NormPlace,
    norms: [Norm; 2],
    query: Dense,
    key: Dense,
    value: Dense,
    out: Dense,
    up: Dense,
    down: Dense,
}

/// What a block keeps of a forward pass over some sequences, and room for the way back.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// What goes into attention and into the feed-forward part.
    inputs: [Vec<f32>; 2],
    /// What goes into the two normalizations.
    sums: [Vec<f32>; 2],
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    shares: Vec<f32>,
    answer: Vec<f32>,
    /// Before and after GELU.
    wide: [Vec<f32>; 2],
    /// On the way back: of the two sums; what is being passed on, twice; of keys and values.
    gradients: [Vec<f32>; 5],
    wide_gradient: Vec<f32>,
    attention: attention::Scratch,
}

/// The masks of a block's two dropouts, if it drops out.
pub(super) type Masks = [Option<Mask>; 2];

impl Block {
    pub(super) fn new(shape: Shape, length: usize, width: usize, offset: usize) -> Self {
        let Shape { heads, feed_forward, causal, norm, .. } = shape;
        let mut offset = offset;
        let mut take = |numbers: usize| {
            offset += numbers;
            offset - numbers
        };
        let mut dense = |inputs: usize, outputs: usize| Dense {
            inputs,
            outputs,
            offset: take(inputs * outputs + outputs),
        };
        // In the order of the layer's tensors.
        let [query, key, value, out] = std::array::from_fn(|_| dense(width, width));
        let (up, down) = (dense(width, feed_forward), dense(feed_forward, width));
        let norms = std::array::from_fn(|_| Norm { width, offset: take(2 * width) });
        let attention = Attention { length, width, heads, causal };
        Block { attention, place: norm, norms, query, key, value, out, up, down }
    }

    /// Gives `output`, `[examples, length, width]` as `input`; `words` are the word numbers of the examples.
    pub(super) fn forward(
        &self,
        parameters: &[f32],
        words: &[f32],
        input: &[f32],
        output: &mut [f32],
        masks: &Masks,
        scratch: &mut Scratch,
    ) {
        self.reserve(input.len(), scratch);
        match self.place {
            NormPlace::Before => self.norms[0].forward(parameters, input, &mut scratch.inputs[0]),
            NormPlace::After => scratch.inputs[0].copy_from_slice(input),
        }
        self.attend(parameters, words, scratch);
        self.out.forward(parameters, &scratch.answer, output);
        drop_out(&masks[0], output);
        add(output, input);
        match self.place {
            NormPlace::Before => {
                scratch.sums[1].copy_from_slice(output);
                self.norms[1].forward(parameters, output, &mut scratch.inputs[1]);
            }
            NormPlace::After => {
                scratch.sums[0].copy_from_slice(output);
                self.norms[0].forward(parameters, output, &mut scratch.inputs[1]);
            }
        }
        let [before, after] = &mut scratch.wide;
        self.up.forward(parameters, &scratch.inputs[1], before);
        gelu(before, after);
        self.down.forward(parameters, after, output);
        drop_out(&masks[1], output);
        match self.place {
            NormPlace::Before => add(output, &scratch.sums[1]),
            NormPlace::After => {
                add(output, &scratch.inputs[1]);
                scratch.sums[1].copy_from_slice(output);
                self.norms[1].forward(parameters, &scratch.sums[1], output);
            }
        }
    }

    fn attend(&self, parameters: &[f32], words: &[f32], scratch: &mut Scratch) {
        let Scratch { inputs: [input, _], query, key, value, shares, answer, attention, .. } = scratch;
        self.query.forward(parameters, input, query);
        self.key.forward(parameters, input, key);
        self.value.forward(parameters, input, value);
        let (length, len) = (self.attention.length, self.attention.length * self.attention.width);
        let sequences = shares.chunks_exact_mut(self.attention.shares()).zip(answer.chunks_exact_mut(len));
        for (at, (shares, answer)) in sequences.enumerate() {
            let projections = of_sequence([query, key, value], at, len);
            let words = &words[at * length..][..length];
            self.attention.forward(words, &projections, shares, answer, attention);
        }
    }

    /// A step of `scale` times the gradient, and the gradient of the input, from that of the output; `scratch` is what the
    /// forward pass has left.
    #[expect(
        clippy::too_many_arguments,
        reason = "the input, the gradients, and room for the parts of the block"
    )]
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
        below: &mut [f32],
        masks: &Masks,
        scratch: &mut Scratch,
        (dense, norm): (&mut dense::Scratch, &mut norm::Scratch),
    ) {
        let Scratch { inputs, sums, wide, gradients, wide_gradient, .. } = scratch;
        let [sum, one, other, ..] = gradients;
        // Of the second sum.
        match self.place {
            NormPlace::Before => sum.copy_from_slice(gradient),
            NormPlace::After => {
                self.norms[1].backward(parameters, scale, &sums[1], gradient, Some(&mut *sum), norm)
            }
        }
        one.copy_from_slice(sum);
        drop_out(&masks[1], one);
        self.down.backward(parameters, scale, &wide[1], one, Some(&mut *wide_gradient), dense);
        gelu_back(&wide[0], wide_gradient);
        self.up.backward(parameters, scale, &inputs[1], wide_gradient, Some(&mut *other), dense);
        // Of the first one.
        match self.place {
            NormPlace::Before => {
                self.norms[1].backward(parameters, scale, &sums[1], other, Some(&mut *one), norm);
                add(sum, one);
            }
            NormPlace::After => {
                add(other, sum);
                self.norms[0].backward(parameters, scale, &sums[0], other, Some(&mut *sum), norm);
            }
        }
        one.copy_from_slice(sum);
        drop_out(&masks[0], one);
        self.attend_back(parameters, scale, scratch, dense);
        let [sum, one, other, ..] = &mut scratch.gradients;
        below.copy_from_slice(sum);
        match self.place {
            NormPlace::Before => {
                self.norms[0].backward(parameters, scale, input, other, Some(&mut *one), norm);
                add(below, one);
            }
            NormPlace::After => add(below, other),
        }
    }

    /// Takes the second of the gradients, that of what attention adds, to that of what goes into it, which becomes the third.
    fn attend_back(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        scratch: &mut Scratch,
        dense: &mut dense::Scratch,
    ) {
        let Scratch { inputs: [input, _], query, key, value, shares, answer, gradients, attention, .. } =
            scratch;
        let [_, one, other, keys, values] = gradients;
        self.out.backward(parameters, scale, answer, one, Some(&mut *other), dense);
        let len = self.attention.length * self.attention.width;
        for (at, shares) in shares.chunks_exact(self.attention.shares()).enumerate() {
            let projections = of_sequence([query, key, value], at, len);
            let of = at * len..(at + 1) * len;
            let mut below = Projections {
                query: &mut one[of.clone()],
                key: &mut keys[of.clone()],
                value: &mut values[of.clone()],
            };
            self.attention.backward(&projections, shares, &other[of], &mut below, attention);
        }
        self.query.backward(parameters, scale, input, one, Some(&mut *other), dense);
        for (layer, gradient) in [(&self.key, &*keys), (&self.value, &*values)] {
            layer.backward(parameters, scale, input, gradient, Some(&mut *one), dense);
            add(other, one);
        }
    }

    /// Makes room for so many numbers of input.
    fn reserve(&self, numbers: usize, scratch: &mut Scratch) {
        let Attention { length, width, .. } = self.attention;
        let Scratch {
            inputs, sums, query, key, value, shares, answer, wide, gradients, wide_gradient, ..
        } = scratch;
        let plain = inputs.iter_mut().chain(sums).chain(gradients).chain([query, key, value, answer]);
        plain.for_each(|room| room.resize(numbers, 0.0));
        let numbers_wide = numbers / width * self.up.outputs;
        wide.iter_mut().chain([wide_gradient]).for_each(|room| room.resize(numbers_wide, 0.0));
        shares.resize(numbers / (length * width) * self.attention.shares(), 0.0);
    }
}

/// Queries, keys and values of the sequence at `at`, each of which has `len` numbers.
fn of_sequence(all: [&[f32]; 3], at: usize, len: usize) -> Projections<&[f32]> {
    let [query, key, value] = all.map(|all| &all[at * len..][..len]);
    Projections { query, key, value }
}

fn add(values: &mut [f32], others: &[f32]) {
    vectorized(
        #[inline(always)]
        || values.iter_mut().zip(others).for_each(|(value, other)| *value += other),
    );
}

fn drop_out(mask: &Option<Mask>, values: &mut [f32]) {
    if let Some(mask) = mask {
        mask.apply(0, values);
    }
}
