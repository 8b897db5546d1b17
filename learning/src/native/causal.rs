//! Convolution over sequences that looks back only (van den Oord et al., "WaveNet", 1609.03499), on a batch as a whole.
//!
//! With k places of the kernel, d apart, and zeros before the beginning of a sequence and behind its end,
//!
//! ```text
//! output[t]              = b + Σ over j of input[t − (k − 1 − j) d] · W[j]
//! gradient of W[j]       = Σ over t of input[t − (k − 1 − j) d]ᵀ · g[t]
//! gradient of input[t]   = Σ over j of g[t + (k − 1 − j) d] · W[j]ᵀ
//! ```
//!
//! Sequences are copied once, each into its margin of zeros; from there every pass is one matrix product.

use std::ops::Range;

use super::dense::transpose;
use super::parameters::Parameters;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply};

/// A convolution whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct CausalConv {
    /// Vectors in a sequence.
    pub(super) length: usize,
    /// Numbers in a vector that comes in.
    pub(super) inputs: usize,
    /// Numbers in a vector that goes out.
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) dilation: usize,
    pub(super) offset: usize,
}

/// What a convolution computes with.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The input in its margin, or the gradient of the output.
    padded: Vec<f32>,
    /// `[kernel, outputs, inputs]`, the last place of the kernel first.
    turned: Vec<f32>,
    /// A place of the kernel, transposed.
    place: Vec<f32>,
}

/// On which side of a sequence its margin is.
#[derive(Clone, Copy)]
enum Margin {
    Before,
    Behind,
}

impl CausalConv {
    fn weight(&self) -> Range<usize> {
        self.offset..self.offset + self.kernel * self.inputs * self.outputs
    }

    fn bias(&self) -> Range<usize> {
        self.weight().end..self.weight().end + self.outputs
    }

    /// Vectors in the margin.
    fn margin(&self) -> usize {
        (self.kernel - 1) * self.dilation
    }

    /// Vectors in a sequence with its margin.
    fn stride(&self) -> usize {
        self.margin() + self.length
    }

    /// Sequences of vectors of `width` numbers in their margins.
    fn pad<'a>(
        &self,
        values: &'a [f32],
        width: usize,
        margin: Margin,
        padded: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if self.margin() == 0 {
            return values;
        }
        let zeros = self.margin() * width;
        padded.clear();
        for sequence in values.chunks_exact(self.length * width) {
            if let Margin::Before = margin {
                padded.resize(padded.len() + zeros, 0.0);
            }
            padded.extend_from_slice(sequence);
            if let Margin::Behind = margin {
                padded.resize(padded.len() + zeros, 0.0);
            }
        }
        padded
    }

    pub(super) fn forward(
        &self,
        parameters: &[f32],
        input: &[f32],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let &Self { length, inputs, outputs, kernel, dilation, .. } = self;
        let input = self.pad(input, inputs, Margin::Before, &mut scratch.padded);
        multiply(
            Extent {
                row_groups: output.len() / (length * outputs),
                rows: length,
                depth_groups: kernel,
                depth: inputs,
                columns: outputs,
            },
            1.0,
            Left {
                data: input,
                row_group: self.stride() * inputs,
                row: inputs,
                depth_group: dilation * inputs,
                depth: 1,
            },
            Right { data: &parameters[self.weight()], depth_group: inputs * outputs, depth: outputs },
            Onto::Row(&parameters[self.bias()]),
            Out { data: output, row_group: length * outputs, row: outputs },
        );
    }

    /// A step of `scale` times the gradient, and the gradient of the input, if it is asked for.
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
        below: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        if let Some(below) = below {
            self.backward_below(parameters, gradient, below, scratch);
        }
        parameters.add_rows(self.bias(), scale, gradient);
        if !parameters.learns(&self.weight()) {
            return;
        }
        let &Self { length, inputs, outputs, kernel, dilation, .. } = self;
        let input = self.pad(input, inputs, Margin::Before, &mut scratch.padded);
        let (target, onto) = parameters.write(self.weight());
        multiply(
            Extent {
                row_groups: kernel,
                rows: inputs,
                depth_groups: gradient.len() / (length * outputs),
                depth: length,
                columns: outputs,
            },
            scale,
            Left {
                data: input,
                row_group: dilation * inputs,
                row: 1,
                depth_group: self.stride() * inputs,
                depth: inputs,
            },
            Right { data: gradient, depth_group: length * outputs, depth: outputs },
            onto,
            Out { data: target, row_group: inputs * outputs, row: outputs },
        );
    }

    fn backward_below(
        &self,
        parameters: &Parameters<'_>,
        gradient: &[f32],
        below: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let &Self { length, inputs, outputs, kernel, dilation, .. } = self;
        let Scratch { padded, turned, place } = scratch;
        turned.clear();
        for weight in parameters.read(self.weight()).rchunks_exact(inputs * outputs) {
            transpose(weight, outputs, place);
            turned.extend_from_slice(place);
        }
        let gradient = self.pad(gradient, outputs, Margin::Behind, padded);
        multiply(
            Extent {
                row_groups: below.len() / (length * inputs),
                rows: length,
                depth_groups: kernel,
                depth: outputs,
                columns: inputs,
            },
            1.0,
            Left {
                data: gradient,
                row_group: self.stride() * outputs,
                row: outputs,
                depth_group: dilation * outputs,
                depth: 1,
            },
            Right { data: turned, depth_group: outputs * inputs, depth: inputs },
            Onto::Nothing,
            Out { data: below, row_group: length * inputs, row: inputs },
        );
    }
}
