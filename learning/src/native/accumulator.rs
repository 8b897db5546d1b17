//! The gradient of a layer's parameters while examples go back through it one after the other.

use std::ops::Range;

use super::parameters::Parameters;
use crate::kernel::vectorized;

/// What lasts over the examples of a step.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    /// Gradient so far.
    gradient: Vec<f32>,
    /// Sum of clipped gradients.
    clipped: Vec<f32>,
}

impl Accumulator {
    /// Before the examples of a step, of a layer with so many parameters.
    pub(super) fn begin(&mut self, parameters: usize) {
        self.gradient.clear();
        self.gradient.resize(parameters, 0.0);
    }

    /// Over the examples since it was begun.
    pub(super) fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// Where an example is added.
    pub(super) fn sum(&mut self) -> &mut [f32] {
        &mut self.gradient
    }

    /// After the examples of a step: `scale` times the gradient is the parameters' step.
    pub(super) fn finish(&self, range: Range<usize>, parameters: &mut Parameters<'_>, scale: f32) {
        parameters.add(range, scale, &self.gradient);
    }

    /// Before the examples of a step whose gradients are clipped, beside [`Accumulator::begin`].
    pub(super) fn begin_clipped(&mut self) {
        self.clipped.clear();
        self.clipped.resize(self.gradient.len(), 0.0);
    }

    /// Before an example whose gradient is clipped.
    pub(super) fn begin_example(&mut self) {
        self.gradient.fill(0.0);
    }

    /// After it: adds `factor` times its gradient to the sum.
    pub(super) fn end_example(&mut self, factor: f32) {
        let Accumulator { gradient, clipped } = self;
        vectorized(
            #[inline(always)]
            || clipped.iter_mut().zip(&*gradient).for_each(|(sum, value)| *sum += factor * value),
        );
    }

    /// After the examples: their sum is the parameters' step.
    pub(super) fn finish_clipped(&self, range: Range<usize>, parameters: &mut Parameters<'_>) {
        parameters.add(range, 1.0, &self.clipped);
    }
}
