//! `x W + b`.

use std::ops::Range;

use super::parameters::Parameters;
use crate::descent::squared_norm;
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
    /// `[BLOCK, examples]`, or `[outputs, BLOCK]` of many examples.
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
        parameters.add_rows(self.bias(), scale, gradient);
        if !parameters.learns(&self.weight()) {
            if let Some(below) = below {
                self.backward_below(parameters, gradient, below, scratch);
            }
            return;
        }
        let examples = input.len() / self.inputs;
        if below.is_some() {
            self.begin_below(gradient, scratch);
        }
        for first in (0..self.inputs).step_by(BLOCK) {
            let rows = BLOCK.min(self.inputs - first);
            let start = self.offset + first * self.outputs;
            let weights = start..start + rows * self.outputs;
            if let Some(below) = &mut below {
                self.block_below(parameters.read(weights.clone()), gradient, scratch, &mut below[first..]);
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
    }

    /// The gradient of the input alone.
    pub(super) fn backward_below(
        &self,
        parameters: &Parameters<'_>,
        gradient: &[f32],
        below: &mut [f32],
        scratch: &mut Scratch,
    ) {
        self.begin_below(gradient, scratch);
        for first in (0..self.inputs).step_by(BLOCK) {
            let rows = BLOCK.min(self.inputs - first);
            let start = self.offset + first * self.outputs;
            let weights = parameters.read(start..start + rows * self.outputs);
            self.block_below(weights, gradient, scratch, &mut below[first..]);
        }
    }

    /// Adds the squared norm of each example's gradient, (|a|² + 1)·|d|²; the 1 is the bias.
    pub(super) fn measure(&self, input: &[f32], gradient: &[f32], squares: &mut [f64]) {
        let rows = input.chunks_exact(self.inputs).zip(gradient.chunks_exact(self.outputs));
        for ((input, gradient), square) in rows.zip(squares) {
            *square += (squared_norm(input) + 1.0) * squared_norm(gradient);
        }
    }

    fn begin_below(&self, gradient: &[f32], scratch: &mut Scratch) {
        let examples = gradient.len() / self.outputs;
        if examples < MANY {
            transpose(gradient, self.outputs, &mut scratch.transposed);
            scratch.block.resize(BLOCK * examples, 0.0);
        }
    }

    /// `d Wᵀ` for some rows of W, into as many columns of `below`. What is smaller is transposed: the gradient of few examples, or the
    /// rows of the weights.
    fn block_below(&self, weights: &[f32], gradient: &[f32], scratch: &mut Scratch, below: &mut [f32]) {
        let Scratch { transposed, block } = scratch;
        let rows = weights.len() / self.outputs;
        let examples = gradient.len() / self.outputs;
        if examples >= MANY {
            transpose(weights, self.outputs, block);
            multiply(
                Extent::plain(examples, self.outputs, rows),
                1.0,
                Left { data: gradient, row_group: 0, row: self.outputs, depth_group: 0, depth: 1 },
                Right { data: block, depth_group: 0, depth: rows },
                Onto::Nothing,
                Out { data: below, row_group: 0, row: self.inputs },
            );
            return;
        }
        let block = &mut block[..rows * examples];
        multiply(
            Extent::plain(rows, self.outputs, examples),
            1.0,
            Left { data: weights, row_group: 0, row: self.outputs, depth_group: 0, depth: 1 },
            Right { data: transposed, depth_group: 0, depth: examples },
            Onto::Nothing,
            Out { data: block, row_group: 0, row: examples },
        );
        scatter(block, examples, below, self.inputs);
    }
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transpose(matrix: &[f32], columns: usize, into: &mut Vec<f32>) {
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

/// Examples from which on a block of the weights is smaller than what it is multiplied with.
const MANY: usize = 2 * BLOCK;
