//! Where a step of training reads the weights, and where it puts what it makes of them.

use std::ops::Range;

use crate::kernel::{Onto, vectorized};

/// The flat parameters in a backward pass.
#[derive(Debug)]
pub(super) enum Parameters<'a> {
    /// Steps are added to the weights themselves.
    InPlace(&'a mut [f32]),
    /// The weights stay; steps overwrite `target`.
    Apart {
        /// Read.
        weights: &'a [f32],
        /// Written, every number of it.
        target: &'a mut [f32],
    },
}

impl Parameters<'_> {
    /// Some of the weights, as they are now.
    pub(super) fn read(&self, range: Range<usize>) -> &[f32] {
        match self {
            Self::InPlace(weights) => &weights[range],
            Self::Apart { weights, .. } => &weights[range],
        }
    }

    /// Where the step of some of the weights goes, and what it is added to.
    pub(super) fn write(&mut self, range: Range<usize>) -> (&mut [f32], Onto<'static>) {
        match self {
            Self::InPlace(weights) => (&mut weights[range], Onto::Itself),
            Self::Apart { target, .. } => (&mut target[range], Onto::Nothing),
        }
    }

    /// Makes `scale · gradient` the step.
    pub(super) fn add(&mut self, range: Range<usize>, scale: f32, gradient: &[f32]) {
        let (target, onto) = self.write(range);
        if let Onto::Nothing = onto {
            target.fill(0.0);
        }
        vectorized(
            #[inline(always)]
            || target.iter_mut().zip(gradient).for_each(|(value, gradient)| *value += scale * gradient),
        );
    }

    /// Makes `scale` times the sum of the rows of `gradients` the step.
    pub(super) fn add_rows(&mut self, range: Range<usize>, scale: f32, gradients: &[f32]) {
        let (target, onto) = self.write(range);
        if let Onto::Nothing = onto {
            target.fill(0.0);
        }
        vectorized(
            #[inline(always)]
            || {
                for row in gradients.chunks_exact(target.len()) {
                    target.iter_mut().zip(row).for_each(|(value, gradient)| *value += scale * gradient);
                }
            },
        );
    }
}
