//! Group normalization, one example at a time: mean 0 and variance 1 over the pixels of some neighbouring channels, then
//! learned amounts for each channel.
//!
//! With x̂ = (x − μ)/σ and y = γ x̂ + β, and d the gradient of y: γ's gradient is the sum of d x̂ over the pixels, β's that of
//! d, and x's is (γ d − mean(γ d) − x̂ mean(γ d x̂)) / σ, the means over the group.

use std::ops::Range;

use super::norm::EPSILON;
use super::plane::Plane;
use crate::kernel::vectorized;

/// A normalization whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct GroupNorm {
    pub(super) image: Plane,
    pub(super) groups: usize,
    pub(super) offset: usize,
}

/// Numbers for each channel.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Of the group.
    mean: Vec<f32>,
    /// One over the standard deviation of the group.
    inverse: Vec<f32>,
    /// What a pixel is multiplied by, and what is added.
    first: Vec<f32>,
    second: Vec<f32>,
}

impl GroupNorm {
    /// γ and β.
    pub(super) fn parameters(&self) -> Range<usize> {
        self.offset..self.offset + 2 * self.image.channels
    }

    pub(super) fn forward(
        &self,
        parameters: &[f32],
        input: &[f32],
        output: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let channels = self.image.channels;
        self.moments(input, scratch);
        let (scale, shift) = parameters[self.parameters()].split_at(channels);
        let Scratch { mean, inverse, first, second } = scratch;
        for at in 0..channels {
            first[at] = inverse[at] * scale[at];
            second[at] = shift[at] - mean[at] * first[at];
        }
        vectorized(
            #[inline(always)]
            || {
                for (y, x) in output.chunks_exact_mut(channels).zip(input.chunks_exact(channels)) {
                    for (((y, x), first), second) in y.iter_mut().zip(x).zip(&*first).zip(&*second) {
                        *y = x * first + second;
                    }
                }
            },
        );
    }

    /// Adds an example to `sum`, the gradient of γ and β; `gradient` has the margin of `plane`.
    pub(super) fn backward(
        &self,
        input: &[f32],
        (plane, gradient): (Plane, &[f32]),
        sum: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let channels = self.image.channels;
        self.moments(input, scratch);
        let Scratch { mean, inverse, first, second } = scratch;
        // Of this example: d x̂ and d over the pixels.
        first.fill(0.0);
        second.fill(0.0);
        for (row, of) in plane.rows() {
            let (d, x) = (&gradient[row], &input[of]);
            vectorized(
                #[inline(always)]
                || {
                    for (d, x) in d.chunks_exact(channels).zip(x.chunks_exact(channels)) {
                        for (at, (d, x)) in d.iter().zip(x).enumerate() {
                            first[at] += d * (x - mean[at]) * inverse[at];
                            second[at] += d;
                        }
                    }
                },
            );
        }
        let (scales, shifts) = sum.split_at_mut(channels);
        scales.iter_mut().zip(&*first).for_each(|(sum, value)| *sum += value);
        shifts.iter_mut().zip(&*second).for_each(|(sum, value)| *sum += value);
    }

    /// The gradient of the input, after [`GroupNorm::backward`] of the same example.
    pub(super) fn backward_below(
        &self,
        parameters: &[f32],
        input: &[f32],
        (plane, gradient): (Plane, &[f32]),
        (below, into): (Plane, &mut [f32]),
        scratch: &mut Scratch,
    ) {
        let channels = self.image.channels;
        let scale = &parameters[self.offset..self.offset + channels];
        let Scratch { mean, inverse, first, second } = scratch;
        self.means_over_groups(scale, first);
        self.means_over_groups(scale, second);
        for ((row, of), (into_row, _)) in plane.rows().zip(below.rows()) {
            let (d, x, into) = (&gradient[row], &input[of], &mut into[into_row]);
            vectorized(
                #[inline(always)]
                || {
                    let pixels = d.chunks_exact(channels).zip(x.chunks_exact(channels));
                    for (into, (d, x)) in into.chunks_exact_mut(channels).zip(pixels) {
                        for (at, (into, (d, x))) in into.iter_mut().zip(d.iter().zip(x)).enumerate() {
                            let normal = (x - mean[at]) * inverse[at];
                            *into = (scale[at] * d - second[at] - normal * first[at]) * inverse[at];
                        }
                    }
                },
            );
        }
    }

    /// Makes sums over the pixels of each channel the mean over its group of γ times them.
    fn means_over_groups(&self, scale: &[f32], sums: &mut [f32]) {
        let in_group = self.image.channels / self.groups;
        let count = (in_group * self.image.height * self.image.width) as f32;
        for (sums, scale) in sums.chunks_exact_mut(in_group).zip(scale.chunks_exact(in_group)) {
            let mean = sums.iter().zip(scale).map(|(sum, scale)| sum * scale).sum::<f32>() / count;
            sums.fill(mean);
        }
    }

    /// Mean and one over the standard deviation of each group, for each of its channels.
    fn moments(&self, input: &[f32], scratch: &mut Scratch) {
        let channels = self.image.channels;
        let Scratch { mean, inverse, first, second } = scratch;
        for values in [&mut *mean, &mut *inverse, &mut *first, &mut *second] {
            values.resize(channels, 0.0);
        }
        let (in_group, pixels) = (channels / self.groups, self.image.height * self.image.width);
        let count = (in_group * pixels) as f64;
        let mut sums = vec![0.0_f64; channels];
        let over_group = |sums: &mut [f64], of: &dyn Fn(f64) -> f64, into: &mut [f32]| {
            for (sums, into) in sums.chunks_exact(in_group).zip(into.chunks_exact_mut(in_group)) {
                into.fill(of(sums.iter().sum::<f64>() / count) as f32);
            }
            sums.fill(0.0);
        };
        add_up(input, &mut sums, |x, _| x, mean);
        over_group(&mut sums, &|mean| mean, mean);
        add_up(input, &mut sums, |x, mean| (x - mean) * (x - mean), mean);
        over_group(&mut sums, &|variance| 1.0 / (variance + EPSILON).sqrt(), inverse);
    }
}

/// Adds what `of` makes of each number and its channel's mean to the channel's sum.
fn add_up(input: &[f32], sums: &mut [f64], of: impl Fn(f64, f64) -> f64, mean: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for pixel in input.chunks_exact(sums.len()) {
                for ((sum, x), mean) in sums.iter_mut().zip(pixel).zip(mean) {
                    *sum += of(f64::from(*x), f64::from(*mean));
                }
            }
        },
    );
}
