//! Two-dimensional convolution over images with channels last, one example at a time.
//!
//! No patches are copied. Under one row of the kernel the pixels of an image lie side by side, so all three passes are
//! matrix products with overlapping rows:
//!
//! ```text
//! output[y, x, :]        = b + Σ over i, j of input[y + i, x + j, :] · W[i, j]
//! gradient of W[i, j]    = Σ over y, x of input[y + i, x + j, :]ᵀ · d[y, x, :]
//! gradient of the input  = Σ over i, j of d[y − i, x − j, :] · W[i, j]ᵀ        d is zero outside of the image
//! ```

use std::ops::Range;

use super::parameters::Parameters;
use super::plane::Plane;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply, vectorized};

/// A convolution whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// The image that comes in, without a margin.
    pub(super) input: Plane,
    /// The image that goes out; its gradient has a margin if the gradient of the input is asked for.
    pub(super) output: Plane,
    pub(super) kernel: usize,
    pub(super) offset: usize,
}

/// What lasts over the examples of a step.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Gradient of weight and bias so far.
    gradient: Vec<f32>,
    /// Sum of clipped gradients.
    clipped: Vec<f32>,
    /// The weights with the kernel turned by half a circle and the channels exchanged.
    turned: Vec<f32>,
}

impl Scratch {
    /// Of weight and bias, over the examples since it was begun.
    pub(super) fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// Before an example whose gradient is clipped.
    pub(super) fn begin_example(&mut self) {
        self.gradient.fill(0.0);
    }

    /// After it: adds `factor` times its gradient to the sum.
    pub(super) fn end_example(&mut self, factor: f32) {
        let Scratch { gradient, clipped, .. } = self;
        vectorized(
            #[inline(always)]
            || clipped.iter_mut().zip(&*gradient).for_each(|(sum, value)| *sum += factor * value),
        );
    }
}

impl Conv {
    /// The margin that makes every patch of the gradient of the output a part of it.
    pub(super) fn margin(kernel: usize) -> usize {
        kernel - 1
    }

    fn weight(&self) -> Range<usize> {
        let len = self.kernel * self.kernel * self.input.channels * self.output.channels;
        self.offset..self.offset + len
    }

    fn bias(&self) -> Range<usize> {
        self.weight().end..self.weight().end + self.output.channels
    }

    /// Numbers under one row of the kernel.
    fn run(&self) -> usize {
        self.kernel * self.input.channels
    }

    pub(super) fn forward(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let (before, after) = (self.input, self.output);
        let row = before.width * before.channels;
        multiply(
            Extent {
                row_groups: after.height,
                rows: after.width,
                depth_groups: self.kernel,
                depth: self.run(),
                columns: after.channels,
            },
            1.0,
            Left { data: input, row_group: row, row: before.channels, depth_group: row, depth: 1 },
            Right {
                data: &parameters[self.weight()],
                depth_group: self.run() * after.channels,
                depth: after.channels,
            },
            Onto::Row(&parameters[self.bias()]),
            Out { data: output, row_group: after.width * after.channels, row: after.channels },
        );
    }

    /// Before the examples of a step.
    pub(super) fn begin(&self, parameters: &Parameters<'_>, scratch: &mut Scratch) {
        scratch.gradient.clear();
        scratch.gradient.resize(self.bias().end - self.offset, 0.0);
        if self.output.margin > 0 {
            self.turn(parameters.read(self.weight()), &mut scratch.turned);
        }
    }

    fn turn(&self, weights: &[f32], turned: &mut Vec<f32>) {
        let (before, after) = (self.input.channels, self.output.channels);
        turned.resize(weights.len(), 0.0);
        let kernels = weights.chunks_exact(before * after).rev().zip(turned.chunks_exact_mut(before * after));
        for (from, to) in kernels {
            for (input, row) in from.chunks_exact(after).enumerate() {
                for (output, &weight) in row.iter().enumerate() {
                    to[output * before + input] = weight;
                }
            }
        }
    }

    /// Adds an example to the gradient of the parameters; `gradient` is in the layout of the output's plane.
    pub(super) fn backward(&self, input: &[f32], gradient: &[f32], scratch: &mut Scratch) {
        let (before, after) = (self.input, self.output);
        let row = before.width * before.channels;
        let (weights, bias) = scratch.gradient.split_at_mut(self.weight().len());
        multiply(
            Extent {
                row_groups: self.kernel,
                rows: self.run(),
                depth_groups: after.height,
                depth: after.width,
                columns: after.channels,
            },
            1.0,
            Left { data: input, row_group: row, row: 1, depth_group: row, depth: before.channels },
            Right {
                data: &gradient[after.row(0).start..],
                depth_group: after.row_stride(),
                depth: after.channels,
            },
            Onto::Itself,
            Out { data: weights, row_group: self.run() * after.channels, row: after.channels },
        );
        vectorized(
            #[inline(always)]
            || {
                for y in 0..after.height {
                    for pixel in gradient[after.row(y)].chunks_exact(after.channels) {
                        bias.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
                    }
                }
            },
        );
    }

    /// The gradient of the input, in the layout of `below`.
    ///
    /// Rows of the image near its upper and lower edge lie under fewer rows of the kernel, and what lies outside is not
    /// multiplied; at the left and right edge it is, with the zeros of the margin.
    pub(super) fn backward_below(&self, gradient: &[f32], below: Plane, into: &mut [f32], scratch: &Scratch) {
        let (before, after) = (self.input.channels, self.output.channels);
        let (run, plane) = (self.kernel * after, self.output);
        let covered = |y: usize| {
            let first = plane.margin.saturating_sub(y);
            first..self.kernel.min(plane.margin + plane.height - y)
        };
        let mut y = 0;
        while y < self.input.height {
            let rows_of_kernel = covered(y);
            let alike = (y..self.input.height).take_while(|&y| covered(y) == rows_of_kernel).count();
            multiply(
                Extent {
                    row_groups: alike,
                    rows: self.input.width,
                    depth_groups: rows_of_kernel.len(),
                    depth: run,
                    columns: before,
                },
                1.0,
                Left {
                    data: &gradient[(y + rows_of_kernel.start) * plane.row_stride()..],
                    row_group: plane.row_stride(),
                    row: after,
                    depth_group: plane.row_stride(),
                    depth: 1,
                },
                Right {
                    data: &scratch.turned[rows_of_kernel.start * run * before..],
                    depth_group: run * before,
                    depth: before,
                },
                Onto::Nothing,
                Out { data: &mut into[below.row(y).start..], row_group: below.row_stride(), row: before },
            );
            y += alike;
        }
    }

    /// Before the examples of a step whose gradients are clipped, beside [`Conv::begin`].
    pub(super) fn begin_clipped(&self, scratch: &mut Scratch) {
        scratch.clipped.clear();
        scratch.clipped.resize(self.bias().end - self.offset, 0.0);
    }

    /// After them: their sum is the parameters' step.
    pub(super) fn finish_clipped(&self, parameters: &mut Parameters<'_>, scratch: &Scratch) {
        parameters.add(self.offset..self.bias().end, 1.0, &scratch.clipped);
    }

    /// After the examples of a step: `scale` times the gradient is the parameters' step.
    pub(super) fn finish(&self, parameters: &mut Parameters<'_>, scale: f32, scratch: &Scratch) {
        parameters.add(self.offset..self.bias().end, scale, &scratch.gradient);
    }
}
