//! Two-dimensional convolution over images with channels last, one example at a time.
//!
//! No patches are copied. Under one row of the kernel the pixels of an image lie side by side, so all three passes are
//! matrix products with overlapping rows:
//!
//! ```text
//! output[y, x, :]        = b + Σ over i, j of input[s y + i − p, s x + j − p, :] · W[i, j]
//! gradient of W[i, j]    = Σ over y, x of input[s y + i − p, s x + j − p, :]ᵀ · d[y, x, :]
//! gradient of the input  = Σ over i, j of d[y + p − i, x + p − j, :] · W[i, j]ᵀ        d is zero outside of the image
//! ```
//!
//! with steps of s pixels in a margin of p zeros, into which the input is copied if there is one. The last line is for steps of
//! one pixel; for longer ones each row of d is multiplied by Wᵀ and added where it belongs.

use std::ops::Range;

use super::dense::transpose;
use super::parameters::Parameters;
use super::plane::Plane;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply, vectorized};

/// A convolution whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// The image that comes in; its margin is the padding, which it lacks outside of here.
    pub(super) input: Plane,
    /// The image that goes out; its gradient has a margin if the gradient of the input is asked for.
    pub(super) output: Plane,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) offset: usize,
    /// Whether the gradient of the input is asked for.
    pub(super) has_below: bool,
}

/// What a convolution computes with, and what lasts over the examples of a step.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// For steps of one pixel the weights with the kernel turned by half a circle and the channels exchanged; for longer ones
    /// the weights transposed.
    turned: Vec<f32>,
    /// The input in its margin.
    padded: Vec<f32>,
    /// Its gradient.
    padded_below: Vec<f32>,
    /// What one row of the gradient of the output gives each patch.
    patches: Vec<f32>,
}

impl Conv {
    /// The margin that makes every patch of the gradient of the output a part of it. With longer steps there is none.
    pub(super) fn margin(kernel: usize, stride: usize, padding: usize) -> usize {
        if stride == 1 { kernel - 1 - padding } else { 0 }
    }

    fn weight(&self) -> Range<usize> {
        let len = self.kernel * self.kernel * self.input.channels * self.output.channels;
        self.offset..self.offset + len
    }

    fn bias(&self) -> Range<usize> {
        self.weight().end..self.weight().end + self.output.channels
    }

    /// Weight and bias.
    pub(super) fn parameters(&self) -> Range<usize> {
        self.offset..self.bias().end
    }

    /// The input in its margin.
    fn pad<'a>(&self, input: &'a [f32], padded: &'a mut Vec<f32>) -> &'a [f32] {
        if self.input.margin == 0 {
            return input;
        }
        // What lies outside of the image is zero and stays so.
        padded.resize(self.input.len(), 0.0);
        for (row, of) in self.input.rows() {
            padded[row].copy_from_slice(&input[of]);
        }
        padded
    }

    /// Numbers under one row of the kernel.
    fn run(&self) -> usize {
        self.kernel * self.input.channels
    }

    pub(super) fn forward(
        &self,
        parameters: &[f32],
        input: &[f32],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (before, after) = (self.input, self.output);
        let input = self.pad(input, &mut scratch.padded);
        let row = before.row_stride();
        multiply(
            Extent {
                row_groups: after.height,
                rows: after.width,
                depth_groups: self.kernel,
                depth: self.run(),
                columns: after.channels,
            },
            1.0,
            Left {
                data: input,
                row_group: row * self.stride,
                row: before.channels * self.stride,
                depth_group: row,
                depth: 1,
            },
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
        if !self.has_below {
            return;
        }
        let weights = parameters.read(self.weight());
        match self.stride {
            1 => self.turn(weights, &mut scratch.turned),
            _ => transpose(weights, self.output.channels, &mut scratch.turned),
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

    /// Adds an example to `sum`, the gradient of weight and bias; `gradient` is in the layout of the output's plane.
    pub(super) fn backward(&self, input: &[f32], gradient: &[f32], sum: &mut [f32], scratch: &mut Scratch) {
        let (before, after) = (self.input, self.output);
        let input = self.pad(input, &mut scratch.padded);
        let row = before.row_stride();
        let (weights, bias) = sum.split_at_mut(self.weight().len());
        multiply(
            Extent {
                row_groups: self.kernel,
                rows: self.run(),
                depth_groups: after.height,
                depth: after.width,
                columns: after.channels,
            },
            1.0,
            Left {
                data: input,
                row_group: row,
                row: 1,
                depth_group: row * self.stride,
                depth: before.channels * self.stride,
            },
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
    pub(super) fn backward_below(
        &self,
        gradient: &[f32],
        below: Plane,
        into: &mut [f32],
        scratch: &mut Scratch,
    ) {
        match self.stride {
            1 => self.correlate(gradient, below, into, &scratch.turned),
            _ => self.scatter(gradient, below, into, scratch),
        }
    }

    /// Rows of the image near its upper and lower edge lie under fewer rows of the kernel, and what lies outside is not
    /// multiplied; at the left and right edge it is, with the zeros of the margin.
    fn correlate(&self, gradient: &[f32], below: Plane, into: &mut [f32], turned: &[f32]) {
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
                    data: &turned[rows_of_kernel.start * run * before..],
                    depth_group: run * before,
                    depth: before,
                },
                Onto::Nothing,
                Out { data: &mut into[below.row(y).start..], row_group: below.row_stride(), row: before },
            );
            y += alike;
        }
    }

    /// Steps of more than one pixel: row by row, into the input's margin and then without it.
    fn scatter(&self, gradient: &[f32], below: Plane, into: &mut [f32], scratch: &mut Scratch) {
        let (before, after, run) = (self.input, self.output, self.run());
        let Scratch { turned, padded_below, patches, .. } = scratch;
        let patch = self.kernel * run;
        padded_below.clear();
        padded_below.resize(before.len(), 0.0);
        patches.resize(after.width * patch, 0.0);
        for y in 0..after.height {
            multiply(
                Extent::plain(after.width, after.channels, patch),
                1.0,
                Left {
                    data: &gradient[after.row(y)],
                    row_group: 0,
                    row: after.channels,
                    depth_group: 0,
                    depth: 1,
                },
                Right { data: turned, depth_group: 0, depth: patch },
                Onto::Nothing,
                Out { data: patches, row_group: 0, row: patch },
            );
            for (x, patch) in patches.chunks_exact(patch).enumerate() {
                for (row, values) in patch.chunks_exact(run).enumerate() {
                    let start =
                        (y * self.stride + row) * before.row_stride() + x * self.stride * before.channels;
                    let sums = &mut padded_below[start..start + run];
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        }
        for y in 0..before.height {
            into[below.row(y)].copy_from_slice(&padded_below[before.row(y)]);
        }
    }
}
