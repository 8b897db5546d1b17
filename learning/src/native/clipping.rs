//! The sum of the gradients of single examples, each scaled down to a norm, without a loop over their gradients.
//!
//! Layers that see an example as one row never form its gradient: that of a dense layer is the product of its input a and
//! the gradient d of its output, so that its norm is |a|·|d|, and after d has been scaled one product over the batch is the
//! clipped sum (ghost clipping: Goodfellow, 1510.01799; Li et al., 2110.05679, section 4). Convolutions, whose weights are
//! fewer than the pixels they are used on, form the gradient of one example after the other, as they do without clipping.

use super::network::{Kind, Network, Operation, Workspace};
use super::parameters::Parameters;
use crate::descent::squared_norm;

/// What clipping has made of the examples of a batch.
#[derive(Debug, Default)]
pub(super) struct Clipping {
    /// The squared norm of each example's gradient so far.
    squares: Vec<f64>,
}

impl Clipping {
    /// Whether the gradient of the example at `at` is a finite vector.
    pub(super) fn is_finite(&self, at: usize) -> bool {
        self.squares[at].is_finite()
    }

    /// What the gradient of the example at `at` is multiplied by to be no longer than `norm`.
    fn factor(&self, at: usize, norm: f64) -> f32 {
        let length = self.squares[at].sqrt();
        // Downwards, so that rounding makes no gradient longer.
        if length > norm { (norm / length) as f32 * (1.0 - f32::EPSILON) } else { 1.0 }
    }
}

impl Network {
    /// Makes the sum of the examples' gradients, each scaled down to `norm`, the step of `parameters`. Row by row the gradient
    /// of each example's own loss stands where the logits stood, and `seed` is that of the forward pass.
    ///
    /// Nothing is said of the step if some gradient is not finite.
    pub(super) fn backward_clipped(
        &self,
        parameters: &mut Parameters<'_>,
        norm: f64,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
        clipping: &mut Clipping,
    ) {
        clipping.squares.clear();
        clipping.squares.resize(examples, 0.0);
        self.take_logits(workspace);
        for (index, operation) in self.operations.iter().enumerate().skip(self.single).rev() {
            self.measure(index, operation, parameters, examples, seed, workspace, &mut clipping.squares);
        }
        self.clip_singles(parameters, norm, examples, seed, workspace, clipping);
        for operation in &self.operations[self.single..] {
            self.step_clipped(operation, parameters, norm, examples, workspace, clipping);
        }
    }

    /// The squared norms of an operation on the batch, and the gradient of what went into it.
    #[expect(clippy::too_many_arguments, reason = "an operation, its place, and what a step is made of")]
    fn measure(
        &self,
        index: usize,
        operation: &Operation,
        parameters: &Parameters<'_>,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
        squares: &mut [f64],
    ) {
        let Workspace { values, gradients, dense, norm, ngrams, .. } = workspace;
        let (before, after) = gradients.split_at_mut(operation.to);
        let (from, to) = (&self.slots[operation.from], &self.slots[operation.to]);
        let gradient = || &after[0][..examples * to.shape.len()];
        let input = || &values[operation.from][from.of(0..examples)];
        let below = before.get_mut(operation.from).map(|below| &mut below[..examples * from.shape.len()]);
        let below = below.filter(|_| operation.has_below);
        match &operation.kind {
            Kind::Dense(layer) => {
                layer.measure(input(), gradient(), squares);
                if let Some(below) = below {
                    layer.backward_below(parameters, gradient(), below, dense);
                }
            }
            Kind::Norm(layer) => layer.measure(parameters, input(), gradient(), below, norm, squares),
            Kind::Positions(_) | Kind::Block(..) | Kind::CausalConv(_) => {
                unreachable!("gradients of such examples are taken one by one")
            }
            Kind::Bag(bag) => bag.measure(input(), gradient(), squares),
            Kind::Embedding(bag) => bag.measure_each(input(), gradient(), squares),
            Kind::Ngrams(layer) => {
                layer.measure(input(), gradient(), squares, ngrams);
                if let Some(below) = below {
                    layer.backward_below(parameters, gradient(), below, ngrams);
                }
            }
            _ => self.pass_back(index, operation, examples, seed, workspace),
        }
    }

    /// The operations that work on one example after the other: everything before them has been measured.
    fn clip_singles(
        &self,
        parameters: &mut Parameters<'_>,
        norm: f64,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
        clipping: &mut Clipping,
    ) {
        self.begin_singles(parameters, workspace);
        let learned = || self.learned_singles();
        learned().for_each(|(index, _)| workspace.accumulators[index].begin_clipped());
        for example in 0..examples {
            learned().for_each(|(index, _)| workspace.accumulators[index].begin_example());
            self.backward_example(parameters, example, seed, workspace);
            for (index, _) in learned() {
                clipping.squares[example] += squared_norm(workspace.accumulators[index].gradient());
            }
            let factor = clipping.factor(example, norm);
            learned().for_each(|(index, _)| workspace.accumulators[index].end_example(factor));
        }
        for (index, range) in learned() {
            workspace.accumulators[index].finish_clipped(range, parameters);
        }
    }

    /// The step of an operation on the batch, once every example's factor is known.
    fn step_clipped(
        &self,
        operation: &Operation,
        parameters: &mut Parameters<'_>,
        limit: f64,
        examples: usize,
        workspace: &mut Workspace,
        clipping: &Clipping,
    ) {
        let Workspace { values, gradients, dense, norm, ngrams, .. } = workspace;
        let (from, to) = (&self.slots[operation.from], &self.slots[operation.to]);
        let input = &values[operation.from][from.of(0..examples)];
        let gradient = &mut gradients[operation.to][..examples * to.shape.len()];
        if !operation.kind.works_on_batches() {
            return;
        }
        for (at, row) in gradient.chunks_exact_mut(to.shape.len()).enumerate() {
            let factor = clipping.factor(at, limit);
            if factor != 1.0 {
                row.iter_mut().for_each(|value| *value *= factor);
            }
        }
        match &operation.kind {
            Kind::Dense(layer) => layer.backward(parameters, 1.0, input, gradient, None, dense),
            Kind::Norm(layer) => layer.backward(parameters, 1.0, input, gradient, None, norm),
            Kind::Bag(bag) => bag.backward(parameters, 1.0, input, gradient),
            Kind::Embedding(bag) => bag.backward_each(parameters, 1.0, input, gradient),
            Kind::Ngrams(layer) => layer.backward(parameters, 1.0, input, gradient, ngrams),
            _ => {}
        }
    }
}
