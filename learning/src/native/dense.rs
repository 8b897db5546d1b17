//! `x W + b`.

use std::ops::Range;

use super::parameters::Parameters;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply};

/// A dense layer whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Dense {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) offset: usize,
}

/// Room for the gradient of the input.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[outputs, examples]`
    transposed: Vec<f32>,
    /// `[BLOCK, examples]`
    block: Vec<f32>,
}

impl Dense {
    fn weight(&self) -> Range<usize> {
        self.offset..self.offset + self.inputs * self.outputs
    }

    fn bias(&self) -> Range<usize> {
        self.weight().end..self.weight().end + self.outputs
    }

    /// `output = input W + b`, each `[examples, ...]`.
    pub(super) fn forward(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let examples = input.len() / self.inputs;
        multiply(
            Extent::plain(examples, self.inputs, self.outputs),
            1.0,
            Left { data: input, row_group: 0, row: self.inputs, depth_group: 0, depth: 1 },
            Right { data: &parameters[self.weight()], depth_group: 0, depth: self.outputs },
            Onto::Row(&parameters[self.bias()]),
            Out { data: output, row_group: 0, row: self.outputs },
        );
    }

    /// The gradient of the input, `d Wᵀ`, if it is asked for; and the weights' own step, `scale · inputᵀ d`.
    ///
    /// Both go through the weights once, block by block, because a large layer does not fit the cache.
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
        mut below: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let examples = input.len() / self.inputs;
        if below.is_some() {
            transpose(gradient, self.outputs, &mut scratch.transposed);
            scratch.block.resize(BLOCK * examples, 0.0);
        }
        for first in (0..self.inputs).step_by(BLOCK) {
            let rows = BLOCK.min(self.inputs - first);
            let start = self.offset + first * self.outputs;
            let weights = start..start + rows * self.outputs;
            if let Some(below) = &mut below {
                let block = &mut scratch.block[..rows * examples];
                let weights = parameters.read(weights.clone());
                self.block_below(weights, &scratch.transposed, block);
                scatter(block, examples, &mut below[first..], self.inputs);
            }
            let (target, onto) = parameters.write(weights);
            multiply(
                Extent::plain(rows, examples, self.outputs),
                scale,
                Left { data: &input[first..], row_group: 0, row: 1, depth_group: 0, depth: self.inputs },
                Right { data: gradient, depth_group: 0, depth: self.outputs },
                onto,
                Out { data: target, row_group: 0, row: self.outputs },
            );
        }
        parameters.add_rows(self.bias(), scale, gradient);
    }

    /// `W dᵀ` for some rows of W.
    fn block_below(&self, weights: &[f32], transposed: &[f32], block: &mut [f32]) {
        let rows = weights.len() / self.outputs;
        let examples = block.len() / rows;
        multiply(
            Extent::plain(rows, self.outputs, examples),
            1.0,
            Left { data: weights, row_group: 0, row: self.outputs, depth_group: 0, depth: 1 },
            Right { data: transposed, depth_group: 0, depth: examples },
            Onto::Nothing,
            Out { data: block, row_group: 0, row: examples },
        );
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(matrix: &[f32], columns: usize, into: &mut Vec<f32>) {
    let rows = matrix.len() / columns;
    into.resize(matrix.len(), 0.0);
    for (row, values) in matrix.chunks_exact(columns).enumerate() {
        for (column, &value) in values.iter().enumerate() {
            into[column * rows + row] = value;
        }
    }
}

/// A block `[rows, examples]` into the columns of `[examples, stride]`.
fn scatter(block: &[f32], examples: usize, into: &mut [f32], stride: usize) {
    for example in 0..examples {
        let column = block[example..].iter().step_by(examples);
        for (value, &from) in into[example * stride..].iter_mut().zip(column) {
            *value = from;
        }
    }
}

/// Rows of the weights that stay in the first two caches between their two uses.
const BLOCK: usize = 64;
