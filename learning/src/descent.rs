//! A step of local training: from the gradient of a batch to the next weights.

use crate::kernel::vectorized;
use crate::{Optimizer, Training, Turn};

/// The optimizer of one turn. Its state starts fresh: a client keeps nothing from round to round.
///
/// A step takes, in this order, the gradient of the loss, adds the proximal term, bounds the norm of both, adds the
/// correction of the turn, and hands the result to the [`Optimizer`].
#[derive(Debug)]
pub(crate) struct Descent<'a> {
    global: &'a [f32],
    correction: Option<&'a [f32]>,
    training: Training,
    steps: i32,
    moments: &'a mut Moments,
}

/// What optimizers remember from step to step, kept by a learner for its memory only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moments {
    /// Of the gradient.
    first: Vec<f32>,
    /// Of its squares.
    second: Vec<f32>,
}

impl<'a> Descent<'a> {
    /// Begins at `global`, which the proximal term pulls back to.
    pub(crate) fn new(
        global: &'a [f32],
        training: &Training,
        turn: &Turn<'a>,
        moments: &'a mut Moments,
    ) -> Self {
        let (first, second) = match training.optimizer() {
            Optimizer::Sgd { momentum: 0.0, .. } => (0, 0),
            Optimizer::Sgd { .. } => (global.len(), 0),
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => (global.len(), global.len()),
        };
        for (moment, len) in [(&mut moments.first, first), (&mut moments.second, second)] {
            moment.clear();
            moment.resize(len, 0.0);
        }
        Self { global, correction: turn.correction, training: *training, steps: 0, moments }
    }

    /// Whether a step is `weights -= rate · gradient` and nothing else, which a learner can do while it computes the
    /// gradient.
    pub(crate) fn is_plain(training: &Training, turn: &Turn<'_>) -> bool {
        training.optimizer() == Optimizer::PLAIN
            && training.proximal() == 0.0
            && training.clip_norm().is_none()
            && training.micro_batch().is_none()
            && turn.correction.is_none()
    }

    /// Moves `weights` by the `gradient` of the loss, which is overwritten.
    pub(crate) fn step(&mut self, weights: &mut [f32], gradient: &mut [f32]) {
        self.steps += 1;
        let proximal = self.training.proximal() as f32;
        if proximal > 0.0 {
            vectorized(
                #[inline(always)]
                || {
                    for ((gradient, weight), global) in gradient.iter_mut().zip(&*weights).zip(self.global) {
                        *gradient += proximal * (weight - global);
                    }
                },
            );
        }
        if let Some(limit) = self.training.clip_norm() {
            let norm = squared_norm(gradient).sqrt();
            if norm > limit {
                let scale = (limit / norm) as f32;
                gradient.iter_mut().for_each(|value| *value *= scale);
            }
        }
        if let Some(correction) = self.correction {
            gradient.iter_mut().zip(correction).for_each(|(value, correction)| *value += correction);
        }
        self.optimize(weights, gradient);
    }

    fn optimize(&mut self, weights: &mut [f32], gradient: &mut [f32]) {
        let (rate, Moments { first, second }) = (self.training.learning_rate(), &mut *self.moments);
        let decay = |weights: &[f32], gradient: &mut [f32], decay: f64| {
            let decay = decay as f32;
            if decay > 0.0 {
                gradient.iter_mut().zip(weights).for_each(|(gradient, weight)| *gradient += decay * weight);
            }
        };
        match self.training.optimizer() {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                decay(weights, gradient, weight_decay);
                if momentum > 0.0 {
                    accumulate(momentum as f32, nesterov, first, gradient);
                }
                let rate = rate as f32;
                vectorized(
                    #[inline(always)]
                    || weights.iter_mut().zip(&*gradient).for_each(|(weight, step)| *weight -= rate * step),
                );
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay } => {
                decay(weights, gradient, weight_decay);
                adapt(
                    Adam { rate, beta1, beta2, epsilon, steps: self.steps },
                    weights,
                    gradient,
                    first,
                    second,
                );
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let keep = (1.0 - rate * weight_decay) as f32;
                weights.iter_mut().for_each(|weight| *weight *= keep);
                adapt(
                    Adam { rate, beta1, beta2, epsilon, steps: self.steps },
                    weights,
                    gradient,
                    first,
                    second,
                );
            }
        }
    }
}

/// v ← μ v + g; the step is v, with Nesterov's look ahead g + μ v.
fn accumulate(momentum: f32, nesterov: bool, velocity: &mut [f32], gradient: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (gradient, velocity) in gradient.iter_mut().zip(velocity.iter_mut()) {
                *velocity = momentum * *velocity + *gradient;
                *gradient = if nesterov { momentum * *velocity + *gradient } else { *velocity };
            }
        },
    );
}

struct Adam {
    rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// Taken so far, with this one.
    steps: i32,
}

/// Kingma and Ba, Adam: A Method for Stochastic Optimization, 1412.6980, algorithm 1.
fn adapt(adam: Adam, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let Adam { rate, beta1, beta2, epsilon, steps } = adam;
    let [keep1, new1, keep2, new2] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(|value| value as f32);
    // Both moments start at zero; these undo it.
    let rate = (rate / (1.0 - beta1.powi(steps))) as f32;
    let unbias = (1.0 / (1.0 - beta2.powi(steps))) as f32;
    let epsilon = epsilon as f32;
    vectorized(
        #[inline(always)]
        || {
            let moments = first.iter_mut().zip(second.iter_mut());
            for ((weight, gradient), (first, second)) in weights.iter_mut().zip(gradient).zip(moments) {
                *first = keep1 * *first + new1 * gradient;
                *second = keep2 * *second + new2 * gradient * gradient;
                *weight -= rate * *first / ((unbias * *second).sqrt() + epsilon);
            }
        },
    );
}

/// The sum of squares, in an order of its own that does not depend on the processor.
pub(crate) fn squared_norm(values: &[f32]) -> f64 {
    let mut sums = [0.0_f64; LANES];
    vectorized(
        #[inline(always)]
        || {
            let chunks = values.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (sum, &value) in sums.iter_mut().zip(chunk) {
                    *sum += f64::from(value) * f64::from(value);
                }
            }
            for (sum, &value) in sums.iter_mut().zip(rest) {
                *sum += f64::from(value) * f64::from(value);
            }
        },
    );
    sums.iter().sum()
}

const LANES: usize = 32;
