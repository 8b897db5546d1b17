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
    /// The same of a model of which a part stays as it is.
    Part {
        /// Read.
        weights: &'a [f32],
        /// Written where weights learn.
        target: &'a mut [f32],
        /// The weights that learn, in their order.
        learning: &'a [Range<usize>],
    },
}

impl Parameters<'_> {
    /// Some of the weights, as they are now.
    pub(super) fn read(&self, range: Range<usize>) -> &[f32] {
        match self {
            Self::InPlace(weights) => &weights[range],
            Self::Apart { weights, .. } | Self::Part { weights, .. } => &weights[range],
        }
    }

    /// Where the step of some of the weights goes, and what it is added to.
    pub(super) fn write(&mut self, range: Range<usize>) -> (&mut [f32], Onto<'static>) {
        match self {
            Self::InPlace(weights) => (&mut weights[range], Onto::Itself),
            Self::Apart { target, .. } | Self::Part { target, .. } => (&mut target[range], Onto::Nothing),
        }
    }

    /// Whether any of these weights learn; if not, no step of theirs is needed.
    pub(super) fn learns(&self, range: &Range<usize>) -> bool {
        match self {
            Self::InPlace(_) | Self::Apart { .. } => true,
            Self::Part { learning, .. } => {
                learning.iter().any(|learning| learning.start < range.end && range.start < learning.end)
            }
        }
    }

    /// Whether any weights before `end` learn; if not, no gradient is needed there.
    pub(super) fn learns_before(&self, end: usize) -> bool {
        match self {
            Self::InPlace(_) | Self::Apart { .. } => true,
            Self::Part { learning, .. } => learning.first().is_some_and(|learning| learning.start < end),
        }
    }

    /// Makes `scale · gradient` the step of weights that learn.
    pub(super) fn add(&mut self, range: Range<usize>, scale: f32, gradient: &[f32]) {
        if !self.learns(&range) {
            return;
        }
        let (target, onto) = self.write(range);
        if let Onto::Nothing = onto {
            target.fill(0.0);
        }
        vectorized(
            #[inline(always)]
            || target.iter_mut().zip(gradient).for_each(|(value, gradient)| *value += scale * gradient),
        );
    }

    /// Makes `scale` times the sum of the rows of `gradients` the step of weights that learn.
    pub(super) fn add_rows(&mut self, range: Range<usize>, scale: f32, gradients: &[f32]) {
        if !self.learns(&range) {
            return;
        }
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
