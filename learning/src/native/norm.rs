//! Layer normalization: mean 0 and variance 1 for each example, then learned amounts.
//!
//! With x̂ = (x − μ)/σ and y = γ x̂ + β, and d the gradient of y: γ's gradient is the sum of d x̂ over the examples, β's
//! that of d, and x's is (γ d − mean(γ d) − x̂ mean(γ d x̂)) / σ.

use std::ops::Range;

use super::parameters::Parameters;

/// A normalization of so many numbers, whose parameters begin at `offset`.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub(super) width: usize,
    pub(super) offset: usize,
}

/// What lasts over the examples of a step.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// x̂ of one example.
    normal: Vec<f32>,
    /// Gradients of γ and β.
    gradient: Vec<f32>,
}

impl Norm {
    fn scale(&self) -> Range<usize> {
        self.offset..self.offset + self.width
    }

    fn shift(&self) -> Range<usize> {
        self.scale().end..self.scale().end + self.width
    }

    pub(super) fn forward(&self, parameters: &[f32], input: &[f32], output: &mut [f32]) {
        let (scale, shift) = (&parameters[self.scale()], &parameters[self.shift()]);
        for (input, output) in input.chunks_exact(self.width).zip(output.chunks_exact_mut(self.width)) {
            let [mean, inverse] = moments(input);
            for (((y, x), scale), shift) in output.iter_mut().zip(input).zip(scale).zip(shift) {
                *y = (x - mean) * inverse * scale + shift;
            }
        }
    }

    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        step: f32,
        input: &[f32],
        gradient: &[f32],
        mut below: Option<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let width = self.width;
        scratch.gradient.clear();
        scratch.gradient.resize(2 * width, 0.0);
        scratch.normal.resize(width, 0.0);
        let (scales, shifts) = scratch.gradient.split_at_mut(width);
        for (example, (x, d)) in input.chunks_exact(width).zip(gradient.chunks_exact(width)).enumerate() {
            let [mean, inverse] = moments(x);
            scratch.normal.iter_mut().zip(x).for_each(|(normal, x)| *normal = (x - mean) * inverse);
            for ((scale, d), normal) in scales.iter_mut().zip(d).zip(&scratch.normal) {
                *scale += d * normal;
            }
            shifts.iter_mut().zip(d).for_each(|(shift, d)| *shift += d);
            if let Some(below) = &mut below {
                let into = &mut below[example * width..][..width];
                self.backward_below(parameters.read(self.scale()), d, &scratch.normal, inverse, into);
            }
        }
        parameters.add(self.offset..self.shift().end, step, &scratch.gradient);
    }

    /// Adds the squared norm of each example's gradient, and gives the gradient of the input.
    pub(super) fn measure(
        &self,
        parameters: &Parameters<'_>,
        input: &[f32],
        gradient: &[f32],
        mut below: Option<&mut [f32]>,
        scratch: &mut Scratch,
        squares: &mut [f64],
    ) {
        let width = self.width;
        scratch.normal.resize(width, 0.0);
        let rows = input.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(squares);
        for (example, ((x, d), square)) in rows.enumerate() {
            let [mean, inverse] = moments(x);
            scratch.normal.iter_mut().zip(x).for_each(|(normal, x)| *normal = (x - mean) * inverse);
            for (d, normal) in d.iter().zip(&scratch.normal) {
                *square += f64::from(*d).powi(2) * (1.0 + f64::from(*normal).powi(2));
            }
            if let Some(below) = &mut below {
                let into = &mut below[example * width..][..width];
                self.backward_below(parameters.read(self.scale()), d, &scratch.normal, inverse, into);
            }
        }
    }

    fn backward_below(&self, scale: &[f32], d: &[f32], normal: &[f32], inverse: f32, into: &mut [f32]) {
        let (mut sum, mut along) = (0.0_f64, 0.0_f64);
        for ((into, (d, scale)), normal) in into.iter_mut().zip(d.iter().zip(scale)).zip(normal) {
            *into = d * scale;
            sum += f64::from(*into);
            along += f64::from(*into) * f64::from(*normal);
        }
        let (mean, along) = ((sum / self.width as f64) as f32, (along / self.width as f64) as f32);
        for (into, normal) in into.iter_mut().zip(normal) {
            *into = (*into - mean - normal * along) * inverse;
        }
    }
}

/// Mean, and one over the standard deviation.
fn moments(values: &[f32]) -> [f32; 2] {
    let count = values.len() as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    [mean as f32, (1.0 / (variance + EPSILON).sqrt()) as f32]
}

/// Keeps a constant example finite; that of burn and PyTorch.
pub(super) const EPSILON: f64 = 1e-5;
