//! Windows of several widths moved over a sequence, and the largest answer of each to the whole of it.

use std::ops::Range;

use super::parameters::Parameters;
use crate::descent::squared_norm;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply, vectorized};

/// N-gram features whose parameters begin at `offset`: the kernels of all widths, the shortest first, then all biases.
#[derive(Clone, Debug)]
pub(super) struct Ngrams {
    /// Vectors of a sequence.
    pub(super) length: usize,
    /// Numbers of a vector.
    pub(super) width: usize,
    pub(super) shortest: usize,
    pub(super) longest: usize,
    /// Features of each width of windows.
    pub(super) channels: usize,
    pub(super) offset: usize,
}

/// What passes from the forward pass to the backward one, and room for both.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The answers of one width of windows at every place, `[examples, places, channels]`.
    answers: Vec<f32>,
    /// Where the largest answer stood: of each example, one for each feature.
    places: Vec<u32>,
    /// The kernels of one width, or their gradient, turned: `[channels, numbers of a window]`.
    turned: Vec<f32>,
    /// Their gradient as the kernels lie.
    straight: Vec<f32>,
}

impl Ngrams {
    /// Features of a sequence.
    fn features(&self) -> usize {
        (self.longest - self.shortest + 1) * self.channels
    }

    /// Each width of windows, its kernels, and where its features begin.
    fn sizes(&self) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let (shortest, depth, channels, offset) = (self.shortest, self.width, self.channels, self.offset);
        (shortest..=self.longest).scan(offset, move |start, size| {
            let kernels = *start..*start + size * depth * channels;
            *start = kernels.end;
            Some((size, kernels, (size - shortest) * channels))
        })
    }

    fn bias(&self) -> Range<usize> {
        let start = self.sizes().last().map_or(self.offset, |(_, kernels, _)| kernels.end);
        start..start + self.features()
    }

    pub(super) fn forward(
        &self,
        parameters: &[f32],
        input: &[f32],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (features, sequence) = (self.features(), self.length * self.width);
        let examples = input.len() / sequence;
        let bias = &parameters[self.bias()];
        let Scratch { answers, places, .. } = scratch;
        places.resize(examples * features, 0);
        for (size, kernels, first) in self.sizes() {
            let windows = self.length - size + 1;
            let each = windows * self.channels;
            answers.resize(examples * each, 0.0);
            // A window is a run of the sequence: neighbours overlap, and nothing has to be copied.
            multiply(
                Extent {
                    row_groups: examples,
                    rows: windows,
                    depth_groups: 1,
                    depth: size * self.width,
                    columns: self.channels,
                },
                1.0,
                Left { data: input, row_group: sequence, row: self.width, depth_group: 0, depth: 1 },
                Right { data: &parameters[kernels], depth_group: 0, depth: self.channels },
                Onto::Row(&bias[first..first + self.channels]),
                Out { data: answers, row_group: each, row: self.channels },
            );
            for (example, answers) in answers.chunks_exact(each).enumerate() {
                let features = example * features + first..example * features + first + self.channels;
                largest(answers, &mut output[features.clone()], &mut places[features]);
            }
        }
    }

    /// Every gradient that is not zero: of a channel and the window with its largest answer, `(example, channel, d, window)`.
    /// Only that window learns.
    fn learning<'g>(
        &self,
        size: usize,
        first: usize,
        gradient: &'g [f32],
        places: &'g [u32],
    ) -> impl Iterator<Item = (usize, usize, f32, Range<usize>)> + 'g {
        let (features, sequence, width) = (self.features(), self.length * self.width, self.width);
        let (channels, window) = (self.channels, size * self.width);
        let rows = gradient.chunks_exact(features).zip(places.chunks_exact(features)).enumerate();
        rows.flat_map(move |(example, (gradient, places))| {
            let each = gradient[first..first + channels].iter().zip(&places[first..first + channels]);
            each.enumerate().filter(|(_, (d, _))| **d != 0.0).map(move |(channel, (&d, &place))| {
                let start = example * sequence + place as usize * width;
                (example, channel, d, start..start + window)
            })
        })
    }

    /// The step of the kernels and biases.
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        input: &[f32],
        gradient: &[f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { places, turned, straight, .. } = scratch;
        for (size, kernels, first) in self.sizes() {
            let window = size * self.width;
            turned.clear();
            turned.resize(window * self.channels, 0.0);
            vectorized(
                #[inline(always)]
                || {
                    for (_, channel, d, at) in self.learning(size, first, gradient, places) {
                        add(&mut turned[channel * window..][..window], d, &input[at]);
                    }
                },
            );
            transpose(turned, window, straight);
            parameters.add(kernels, scale, straight);
        }
        parameters.add_rows(self.bias(), scale, gradient);
    }

    /// The gradient of the input.
    pub(super) fn backward_below(
        &self,
        parameters: &Parameters<'_>,
        gradient: &[f32],
        below: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { places, turned, .. } = scratch;
        below.fill(0.0);
        for (size, kernels, first) in self.sizes() {
            let window = size * self.width;
            transpose(parameters.read(kernels), self.channels, turned);
            vectorized(
                #[inline(always)]
                || {
                    for (_, channel, d, at) in self.learning(size, first, gradient, places) {
                        add(&mut below[at], d, &turned[channel * window..][..window]);
                    }
                },
            );
        }
    }

    /// Adds the squared norm of each example's gradient: a kernel's is d times its window, its bias' is d.
    pub(super) fn measure(&self, input: &[f32], gradient: &[f32], squares: &mut [f64], scratch: &Scratch) {
        for (size, _, first) in self.sizes() {
            for (example, _, d, at) in self.learning(size, first, gradient, &scratch.places) {
                squares[example] += f64::from(d).powi(2) * (1.0 + squared_norm(&input[at]));
            }
        }
    }
}

/// The largest of each column, and the first row it stands in.
fn largest(rows: &[f32], largest: &mut [f32], places: &mut [u32]) {
    vectorized(
        #[inline(always)]
        || {
            let columns = largest.len();
            largest.copy_from_slice(&rows[..columns]);
            places.fill(0);
            for (row, values) in rows.chunks_exact(columns).enumerate().skip(1) {
                for ((value, largest), place) in values.iter().zip(&mut *largest).zip(&mut *places) {
                    let larger = *value > *largest;
                    *largest = if larger { *value } else { *largest };
                    *place = if larger { row as u32 } else { *place };
                }
            }
        },
    );
}

#[inline(always)]
fn add(into: &mut [f32], scale: f32, values: &[f32]) {
    into.iter_mut().zip(values).for_each(|(into, value)| *into += scale * value);
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
