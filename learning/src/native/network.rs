//! A stack of layers as operations on preallocated memory.
//!
//! Layers before the first one that mixes a whole batch (dense, normalization) work on one example after the other, so
//! that what passes between convolutions stays in the cache; the others on the batch as a whole.

use std::ops::Range;

use super::accumulator::Accumulator;
use super::average::Average;
use super::bag::Bag;
use super::block::{self, Block};
use super::causal::{self, CausalConv};
use super::conv::{self, Conv};
use super::dense::{self, Dense};
use super::group_norm::{self, GroupNorm};
use super::ngrams::{self, Ngrams};
use super::norm::{self, Norm};
use super::parameters::Parameters;
use super::plane::Plane;
use super::pointwise::{Mask, activate, activate_back};
use super::pool::Pool;
use super::sequence::{Positions, Summary};
use crate::architecture::Stacked;
use crate::kernel::vectorized;
use crate::residual::{self, Ways};
use crate::{Activation, Architecture, ArchitectureError, Layer, Shape};

/// What an operation does.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Dense(Dense),
    Conv(Conv),
    Pool(Pool),
    Average(Average),
    GroupNorm(GroupNorm),
    Bag(Bag),
    /// The vectors themselves instead of their mean.
    Embedding(Bag),
    Ngrams(Ngrams),
    CausalConv(CausalConv),
    Norm(Norm),
    Positions(Positions),
    Block(Box<Block>, f32),
    Summary(Summary),
    Activate(Activation),
    Dropout(f32),
    /// Gives what it is given.
    Copy,
    /// Gives what it is given, to a way beside another one; the gradients of both ways are added.
    Fork,
    /// Adds what it is given to what is there: the end of both ways.
    Add,
}

impl Kind {
    /// Whether it works on a batch as a whole.
    pub(super) fn works_on_batches(&self) -> bool {
        match self {
            Self::Dense(_) | Self::Norm(_) | Self::Bag(_) | Self::Embedding(_) | Self::Ngrams(_) => true,
            Self::Positions(_) | Self::Block(..) | Self::CausalConv(_) | Self::Summary(_) => true,
            Self::Conv(_)
            | Self::Pool(_)
            | Self::Average(_)
            | Self::GroupNorm(_)
            | Self::Activate(_)
            | Self::Dropout(_)
            | Self::Copy
            | Self::Fork
            | Self::Add => false,
        }
    }

    /// Where its parameters are, if it works on single examples and has some.
    pub(super) fn single_parameters(&self) -> Option<Range<usize>> {
        match self {
            Self::Conv(conv) => Some(conv.parameters()),
            Self::GroupNorm(norm) => Some(norm.parameters()),
            _ => None,
        }
    }
}

/// A step of the forward pass, from one slot to another; to the same one if it works in place.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Whether anything before it has parameters, so that the gradient of its input matters.
    pub(super) has_below: bool,
    /// Where its parameters are; empty behind those before it if it has none.
    parameters: Range<usize>,
}

/// What passes between operations.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) shape: Shape,
    /// The layout of the gradient of one example.
    gradient: Plane,
    /// Whether the backward pass reads it: else there is room for one example only.
    kept: bool,
}

/// An architecture, ready to be computed.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) operations: Vec<Operation>,
    pub(super) slots: Vec<Slot>,
    /// So many operations work on one example after the other.
    pub(super) single: usize,
    /// Whether what these give is computed again in the backward pass, because it is too much to keep for a batch.
    recomputes: bool,
    parameters: usize,
    /// Of an example: one for each class, at each place where the next word is predicted.
    logits: usize,
}

/// The memory of a network, for up to so many examples at once.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    examples: usize,
    pub(super) values: Vec<Vec<f32>>,
    /// Of one example for operations that work on single ones.
    single_gradients: Vec<Vec<f32>>,
    /// Of the batch for the others.
    pub(super) gradients: Vec<Vec<f32>>,
    /// For each operation that pools.
    places: Vec<Vec<u32>>,
    pub(super) dense: dense::Scratch,
    pub(super) norm: norm::Scratch,
    pub(super) ngrams: ngrams::Scratch,
    causal: causal::Scratch,
    pub(super) convs: Vec<conv::Scratch>,
    /// For each operation that is a block.
    blocks: Vec<block::Scratch>,
    pub(super) group_norm: group_norm::Scratch,
    /// For each operation on single examples.
    pub(super) accumulators: Vec<Accumulator>,
}

impl Network {
    pub(super) fn new(architecture: &Architecture) -> Result<Self, ArchitectureError> {
        architecture.check()?;
        let mut stack = architecture.stack()?;
        pool_first(&mut stack);
        let mut network = Network {
            operations: Vec::new(),
            slots: vec![Slot::new(architecture.input())],
            single: 0,
            recomputes: false,
            parameters: 0,
            logits: architecture.classes() * architecture.predicted_words().unwrap_or(1),
        };
        for stacked in &stack {
            network.push(stacked);
        }
        let is_single = |kind: &Kind| !kind.works_on_batches();
        let single = network.operations.iter().take_while(|op| is_single(&op.kind)).count();
        // Without a convolution there is nothing that has to stay in the cache.
        let learns = network.operations[..single].iter().any(|op| op.kind.single_parameters().is_some());
        network.single = if learns { single } else { 0 };
        network.forget();
        network.recompute();
        Ok(network)
    }

    /// Adds a layer behind the last slot.
    fn push(&mut self, stacked: &Stacked) {
        let from = self.slots.len() - 1;
        match residual::ways(stacked) {
            None => self.push_at(from, stacked),
            Some(Ways { shortcut, main, after }) => {
                let fork = self.new_slot(stacked.input);
                self.operate(Kind::Fork, from, fork, self.parameters > 0);
                shortcut.iter().for_each(|part| self.push(part));
                let beside = self.slots.len() - 1;
                self.push_at(from, &main[0]);
                main[1..].iter().for_each(|part| self.push(part));
                let end = self.slots.len() - 1;
                self.operate(Kind::Add, beside, end, true);
                if let Some(activation) = after {
                    self.operate(Kind::Activate(activation), end, end, true);
                }
            }
        }
    }

    fn operate(&mut self, kind: Kind, from: usize, to: usize, has_below: bool) {
        let parameters = self.parameters..self.parameters;
        self.operations.push(Operation { kind, from, to, has_below, parameters });
    }

    fn new_slot(&mut self, shape: Shape) -> usize {
        self.slots.push(Slot::new(shape));
        self.slots.len() - 1
    }

    /// Adds a layer behind a slot.
    fn push_at(&mut self, from: usize, stacked: &Stacked) {
        let (has_below, offset) = (self.parameters > 0, self.parameters);
        let Stacked { layer, input, output, .. } = stacked;
        let (inputs, width) = (input.len(), output.len());
        let kind = match *layer {
            // Of which nothing is left but other shapes.
            Layer::Flatten => return,
            Layer::NextWord => return self.slots[from].shape = *output,
            Layer::Dense { outputs } => Kind::Dense(Dense { inputs: input.row(), outputs, offset }),
            Layer::Positions => Kind::Positions(Positions { numbers: inputs, offset }),
            Layer::TransformerBlock(shape) => {
                let Plane { height: length, channels: width, .. } = Plane::new(*input, 0);
                Kind::Block(Box::new(Block::new(shape, length, width, offset)), shape.dropout)
            }
            Layer::Mean => Kind::Summary(Summary::Mean),
            Layer::First => Kind::Summary(Summary::First),
            Layer::Conv2d { kernel, stride, padding, .. } => {
                let margin = if has_below { Conv::margin(kernel, stride, padding) } else { 0 };
                let (input, output) = (Plane::new(*input, padding), Plane::new(*output, margin));
                Kind::Conv(Conv { input, output, kernel, stride, offset, has_below })
            }
            Layer::AvgPool2d { .. } | Layer::GlobalAvgPool => {
                let output = Plane::new(*output, 0);
                let input = Plane::new(*input, self.slots[from].gradient.margin);
                let size = match *layer {
                    Layer::AvgPool2d { size } => [size, size],
                    _ => [input.height, input.width],
                };
                Kind::Average(Average { input, output, size })
            }
            Layer::GroupNorm { groups } => {
                Kind::GroupNorm(GroupNorm { image: Plane::new(*input, 0), groups, offset })
            }
            Layer::Residual { .. } | Layer::TemporalBlock { .. } => {
                unreachable!("they are made of other layers")
            }
            Layer::CausalConv1d { channels: outputs, kernel, dilation } => {
                let Plane { height: length, channels: inputs, .. } = Plane::new(*input, 0);
                Kind::CausalConv(CausalConv { length, inputs, outputs, kernel, dilation, offset })
            }
            Layer::MaxPool2d { size } => {
                let input = Plane::new(*input, self.slots[from].gradient.margin);
                Kind::Pool(Pool { input, output: Plane::new(*output, 0), size })
            }
            Layer::EmbeddingBag { vocabulary, .. } => {
                Kind::Bag(Bag { words: inputs, vocabulary, width, offset })
            }
            Layer::Embedding { vocabulary, width } => {
                Kind::Embedding(Bag { words: inputs, vocabulary, width, offset })
            }
            Layer::Ngrams { shortest, longest, channels } => {
                let Plane { height: length, channels: width, .. } = Plane::new(*input, 0);
                Kind::Ngrams(Ngrams { length, width, shortest, longest, channels, offset })
            }
            Layer::LayerNorm => Kind::Norm(Norm { width: input.vector(), offset }),
            Layer::Activation(activation) => Kind::Activate(activation),
            Layer::Dropout { rate } => Kind::Dropout(rate),
        };
        self.parameters += stacked.parameters();
        match kind {
            Kind::Activate(_) | Kind::Dropout(_) => {
                if !self.may_overwrite(from) {
                    let to = self.new_slot(self.slots[from].shape);
                    self.operate(Kind::Copy, from, to, has_below);
                }
                let at = self.slots.len() - 1;
                self.operate(kind, at, at, has_below);
            }
            kind => {
                let to = self.new_slot(*output);
                if let Kind::Conv(conv) = &kind {
                    self.slots[to].gradient = conv.output;
                }
                let parameters = offset..self.parameters;
                self.operations.push(Operation { kind, from, to, has_below, parameters });
            }
        }
    }

    /// Whether an operation in place on the last slot leaves everything as it is that the operations before it need in
    /// the backward pass: activations need what they gave, though of a ReLU its sign is enough, which dropout keeps
    /// where it matters.
    fn may_overwrite(&self, slot: usize) -> bool {
        match self.operations.last() {
            // The examples themselves.
            None => true,
            Some(last) if last.to != slot => true,
            Some(last) => !matches!(last.kind, Kind::Activate(Activation::Sigmoid | Activation::Tanh)),
        }
    }

    /// What goes into pooling from a layer of single examples is never looked at again.
    fn forget(&mut self) {
        for (index, operation) in self.operations[..self.single].iter().enumerate() {
            let pooled = matches!(operation.kind, Kind::Pool(_));
            let untouched = index > 0 && self.operations[index - 1].from != self.operations[index - 1].to;
            if pooled && untouched {
                self.slots[operation.from].kept = false;
            }
        }
    }

    /// Large images pass through too many numbers to keep them for every example of a batch: then they are computed again
    /// for each example when it goes back.
    fn recompute(&mut self) {
        let Some(last) = self.operations[..self.single].last().map(|operation| operation.to) else { return };
        let between = 1..last;
        let kept = self.slots[between.clone()].iter().filter(|slot| slot.kept).map(|slot| slot.shape.len());
        self.recomputes = kept.sum::<usize>() > MOST_KEPT;
        if self.recomputes {
            self.slots[between].iter_mut().for_each(|slot| slot.kept = false);
        }
    }

    pub(super) fn parameter_count(&self) -> usize {
        self.parameters
    }

    /// Whether a layer uses its weights at several places of an example, so that norms of gradients of examples do not follow from
    /// rows.
    pub(super) fn shares_weights(&self) -> bool {
        let each = |operation: &Operation| match &operation.kind {
            Kind::Positions(_) | Kind::Block(..) | Kind::CausalConv(_) => true,
            Kind::Dense(dense) => self.slots[operation.from].shape.len() != dense.inputs,
            Kind::Norm(norm) => self.slots[operation.from].shape.len() != norm.width,
            _ => false,
        };
        self.operations.iter().any(each)
    }

    /// The embedding bag that the examples go into, if there is one.
    pub(super) fn bag(&self) -> Option<&Bag> {
        match self.operations.first().map(|operation| &operation.kind) {
            Some(Kind::Bag(bag) | Kind::Embedding(bag)) => Some(bag),
            _ => None,
        }
    }

    /// Logits of `examples` that stand in the workspace. Dropout draws from `seed`, and does nothing without.
    pub(super) fn forward<'w>(
        &self,
        parameters: &[f32],
        examples: usize,
        seed: Option<u64>,
        workspace: &'w mut Workspace,
    ) -> &'w mut [f32] {
        (0..examples).for_each(|example| self.forward_single(parameters, example, seed, workspace));
        for (index, operation) in self.operations.iter().enumerate().skip(self.single) {
            self.forward_one(index, operation, parameters, 0..examples, seed, workspace);
        }
        let logits = workspace.values.last_mut().expect("there is a slot of logits");
        &mut logits[..examples * self.logits]
    }

    /// One example through the operations that work on single ones.
    fn forward_single(
        &self,
        parameters: &[f32],
        example: usize,
        seed: Option<u64>,
        workspace: &mut Workspace,
    ) {
        for (index, operation) in self.operations[..self.single].iter().enumerate() {
            self.forward_one(index, operation, parameters, example..example + 1, seed, workspace);
        }
    }

    fn forward_one(
        &self,
        index: usize,
        operation: &Operation,
        parameters: &[f32],
        examples: Range<usize>,
        seed: Option<u64>,
        workspace: &mut Workspace,
    ) {
        let (before, after) = workspace.values.split_at_mut(operation.to);
        let first = examples.start * self.slots[operation.to].shape.len();
        let output = &mut after[0][self.slots[operation.to].of(examples.clone())];
        let input = || &before[operation.from][self.slots[operation.from].of(examples.clone())];
        match &operation.kind {
            Kind::Dense(dense) => dense.forward(parameters, input(), output),
            Kind::Conv(conv) => conv.forward(parameters, input(), output, &mut workspace.convs[index]),
            Kind::GroupNorm(norm) => norm.forward(parameters, input(), output, &mut workspace.group_norm),
            Kind::Average(average) => {
                let (inputs, width) =
                    (self.slots[operation.from].shape.len(), self.slots[operation.to].shape.len());
                let pairs = input().chunks_exact(inputs).zip(output.chunks_exact_mut(width));
                pairs.for_each(|(input, output)| average.forward(input, output));
            }
            Kind::Bag(bag) => bag.forward(parameters, input(), output),
            Kind::Embedding(bag) => bag.forward_each(parameters, input(), output),
            Kind::Ngrams(ngrams) => {
                ngrams.forward(
                    parameters,
                    &before[operation.from][self.slots[operation.from].of(examples)],
                    output,
                    &mut workspace.ngrams,
                );
            }
            Kind::CausalConv(conv) => {
                let input = &before[operation.from][self.slots[operation.from].of(examples)];
                conv.forward(parameters, input, output, &mut workspace.causal);
            }
            Kind::Norm(norm) => norm.forward(parameters, input(), output),
            Kind::Positions(positions) => positions.forward(parameters, input(), output),
            Kind::Block(block, rate) => {
                let (words, masks) =
                    (&before[0][self.slots[0].of(examples.clone())], masks(*rate, seed, index));
                block.forward(parameters, words, input(), output, &masks, &mut workspace.blocks[index]);
            }
            Kind::Summary(summary) => {
                let words = &before[0][self.slots[0].of(examples.clone())];
                summary.forward(words, self.slots[operation.to].shape.len(), input(), output);
            }
            Kind::Pool(pool) => {
                let width = self.slots[operation.to].shape.len();
                let inputs = self.slots[operation.from].shape.len();
                let places = workspace.places[index][self.places(&examples, width)].chunks_exact_mut(width);
                let pairs = input().chunks_exact(inputs).zip(output.chunks_exact_mut(width)).zip(places);
                pairs.for_each(|((input, output), places)| pool.forward(input, output, places));
            }
            Kind::Activate(activation) => activate(*activation, output),
            Kind::Dropout(rate) => {
                if let Some(mask) = mask(*rate, seed, index) {
                    mask.apply(first, output);
                }
            }
            Kind::Copy | Kind::Fork => output.copy_from_slice(input()),
            Kind::Add => add(output, input()),
        }
    }

    /// Where the places of some examples' pooling are, of so many numbers each.
    fn places(&self, examples: &Range<usize>, width: usize) -> Range<usize> {
        if self.recomputes { 0..width } else { examples.start * width..examples.end * width }
    }

    /// A step of `scale` times the gradient; the gradient of the logits stands where the logits stood, and `seed` is that
    /// of the forward pass.
    pub(super) fn backward(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        self.take_logits(workspace);
        for (index, operation) in self.operations.iter().enumerate().skip(self.single).rev() {
            if !parameters.learns_before(operation.parameters.end) {
                return;
            }
            self.backward_batch(index, operation, parameters, scale, examples, seed, workspace);
        }
        self.backward_singles(parameters, scale, examples, seed, workspace);
    }

    /// Makes what stands where the logits stood the gradient of the last slot.
    pub(super) fn take_logits(&self, workspace: &mut Workspace) {
        let last = self.slots.len() - 1;
        std::mem::swap(&mut workspace.gradients[last], &mut workspace.values[last]);
    }

    #[expect(clippy::too_many_arguments, reason = "an operation, its place, and what a step is made of")]
    fn backward_batch(
        &self,
        index: usize,
        operation: &Operation,
        parameters: &mut Parameters<'_>,
        scale: f32,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        let Workspace { values, gradients, dense, norm, ngrams, causal, blocks, .. } = workspace;
        let (before, after) = gradients.split_at_mut(operation.to);
        let (from, to) = (&self.slots[operation.from], &self.slots[operation.to]);
        let gradient = || &after[0][..examples * to.shape.len()];
        let input = || &values[operation.from][from.of(0..examples)];
        let below = before.get_mut(operation.from).map(|below| &mut below[..examples * from.shape.len()]);
        let learns = parameters.learns(&operation.parameters);
        let learns_below = operation.has_below && parameters.learns_before(operation.parameters.start);
        // A block needs the room in any case.
        let below = below.filter(|_| learns_below || matches!(operation.kind, Kind::Block(..)));
        match &operation.kind {
            Kind::Dense(layer) => layer.backward(parameters, scale, input(), gradient(), below, dense),
            Kind::Norm(layer) => layer.backward(parameters, scale, input(), gradient(), below, norm),
            // The first operation, which is reached only where it learns.
            Kind::Bag(bag) => bag.backward(parameters, scale, input(), gradient()),
            Kind::Embedding(bag) => bag.backward_each(parameters, scale, input(), gradient()),
            Kind::Ngrams(layer) => {
                if let Some(below) = below {
                    layer.backward_below(parameters, gradient(), below, ngrams);
                }
                if learns {
                    layer.backward(parameters, scale, input(), gradient(), ngrams);
                }
            }
            Kind::CausalConv(conv) => conv.backward(parameters, scale, input(), gradient(), below, causal),
            Kind::Positions(positions) => {
                positions.backward(parameters, scale, gradient());
                if let Some(below) = below {
                    below.copy_from_slice(gradient());
                }
            }
            Kind::Block(block, rate) => {
                let (masks, scratch) = (masks(*rate, Some(seed), index), &mut blocks[index]);
                let below = below.expect("an embedding stands below");
                let gradient = gradient();
                block.backward(parameters, scale, input(), gradient, below, &masks, scratch, (dense, norm));
            }
            _ => self.pass_back(index, operation, examples, seed, workspace),
        }
    }

    /// The backward pass of an operation on the batch that has no parameters.
    pub(super) fn pass_back(
        &self,
        index: usize,
        operation: &Operation,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        let Workspace { values, gradients, places, .. } = workspace;
        let (before, after) = gradients.split_at_mut(operation.to);
        let (from, to) = (&self.slots[operation.from], &self.slots[operation.to]);
        let gradient = &mut after[0][..examples * to.shape.len()];
        let input = &values[operation.from][from.of(0..examples)];
        let below = before.get_mut(operation.from).map(|below| &mut below[..examples * from.shape.len()]);
        let below = below.filter(|_| operation.has_below);
        match &operation.kind {
            Kind::Dense(_) | Kind::Norm(_) | Kind::Bag(_) | Kind::Embedding(_) | Kind::Ngrams(_) => {
                unreachable!("they have parameters")
            }
            Kind::Positions(_) | Kind::Block(..) | Kind::CausalConv(_) => {
                unreachable!("they have parameters")
            }
            Kind::Summary(summary) => {
                if let Some(below) = below {
                    let words = &values[0][..examples * self.slots[0].shape.len()];
                    summary.backward(words, to.shape.len(), gradient, below);
                }
            }
            Kind::Conv(_) | Kind::GroupNorm(_) => unreachable!("they work on single examples"),
            Kind::Average(average) => {
                if let Some(below) = below {
                    let (inputs, width) = (from.shape.len(), to.shape.len());
                    for (gradient, below) in gradient.chunks_exact(width).zip(below.chunks_exact_mut(inputs))
                    {
                        below.fill(0.0);
                        average.backward(gradient, below);
                    }
                }
            }
            Kind::Pool(pool) => {
                if let Some(below) = below {
                    let (inputs, width) = (from.shape.len(), to.shape.len());
                    let below = below.chunks_exact_mut(inputs);
                    let parts =
                        gradient.chunks_exact(width).zip(places[index].chunks_exact(width)).zip(below);
                    parts.for_each(|((gradient, places), below)| {
                        below.fill(0.0);
                        pool.backward(gradient, places, below);
                    });
                }
            }
            Kind::Activate(activation) => activate_back(*activation, input, gradient),
            Kind::Dropout(rate) => {
                if let Some(mask) = mask(*rate, Some(seed), index) {
                    mask.apply(0, gradient);
                }
            }
            Kind::Copy | Kind::Add => {
                if let Some(below) = below {
                    below.copy_from_slice(gradient);
                }
            }
            Kind::Fork => {
                if let Some(below) = below {
                    add(below, gradient);
                }
            }
        }
    }

    /// The operations that work on one example after the other.
    fn backward_singles(
        &self,
        parameters: &mut Parameters<'_>,
        scale: f32,
        examples: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        let end = self.operations[..self.single].last().map_or(0, |operation| operation.parameters.end);
        if !parameters.learns_before(end) {
            return;
        }
        self.begin_singles(parameters, workspace);
        for example in 0..examples {
            self.backward_example(parameters, example, seed, workspace);
        }
        for (index, range) in self.learned_singles() {
            workspace.accumulators[index].finish(range, parameters, scale);
        }
    }

    /// Before the examples of a step.
    pub(super) fn begin_singles(&self, parameters: &Parameters<'_>, workspace: &mut Workspace) {
        for (index, range) in self.learned_singles() {
            workspace.accumulators[index].begin(range.len());
            if let Kind::Conv(conv) = &self.operations[index].kind {
                conv.begin(parameters, &mut workspace.convs[index]);
            }
        }
    }

    /// The operations on single examples that have parameters, and where these are.
    pub(super) fn learned_singles(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let singles = self.operations[..self.single].iter().enumerate();
        singles.filter_map(|(index, operation)| Some((index, operation.kind.single_parameters()?)))
    }

    /// Takes one example back through the operations that work on single ones.
    pub(super) fn backward_example(
        &self,
        parameters: &Parameters<'_>,
        example: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        if self.recomputes {
            self.forward_single(parameters.read(0..self.parameters), example, Some(seed), workspace);
        }
        let singles = &self.operations[..self.single];
        let Some(last) = singles.last() else { return };
        let (slot, len) = (&self.slots[last.to], self.slots[last.to].shape.len());
        let whole = &workspace.gradients[last.to][example * len..][..len];
        for (row, of) in slot.gradient.rows() {
            workspace.single_gradients[last.to][row].copy_from_slice(&whole[of]);
        }
        for (index, operation) in singles.iter().enumerate().rev() {
            if !parameters.learns_before(operation.parameters.end) {
                return;
            }
            if operation.has_below || operation.kind.single_parameters().is_some() {
                self.backward_single(index, operation, parameters, example, seed, workspace);
            }
        }
    }

    fn backward_single(
        &self,
        index: usize,
        operation: &Operation,
        parameters: &Parameters<'_>,
        example: usize,
        seed: u64,
        workspace: &mut Workspace,
    ) {
        let Workspace { values, single_gradients, places, convs, group_norm, accumulators, .. } = workspace;
        let (before, after) = single_gradients.split_at_mut(operation.to);
        let (from, to) = (&self.slots[operation.from], &self.slots[operation.to]);
        let gradient = &mut after[0];
        let input = &values[operation.from][from.of(example..example + 1)];
        let learns = parameters.learns(&operation.parameters);
        let learns_below = operation.has_below && parameters.learns_before(operation.parameters.start);
        let below = before.get_mut(operation.from).filter(|_| learns_below);
        match &operation.kind {
            Kind::Conv(conv) => {
                if learns {
                    conv.backward(input, gradient, accumulators[index].sum(), &mut convs[index]);
                }
                if let Some(below) = below {
                    conv.backward_below(gradient, from.gradient, below, &mut convs[index]);
                }
            }
            Kind::GroupNorm(norm) => {
                let gradient = (to.gradient, gradient.as_slice());
                norm.backward(input, gradient, accumulators[index].sum(), group_norm);
                if let Some(below) = below {
                    let weights = parameters.read(0..self.parameters);
                    norm.backward_below(weights, input, gradient, (from.gradient, below), group_norm);
                }
            }
            Kind::Average(average) => {
                if let Some(below) = below {
                    average.backward(gradient, below);
                }
            }
            Kind::Pool(pool) => {
                if let Some(below) = below {
                    let width = to.shape.len();
                    pool.backward(
                        gradient,
                        &places[index][self.places(&(example..example + 1), width)],
                        below,
                    );
                }
            }
            Kind::Activate(activation) => {
                for (row, of) in to.gradient.rows() {
                    activate_back(*activation, &input[of], &mut gradient[row]);
                }
            }
            Kind::Dropout(rate) => {
                if let Some(mask) = mask(*rate, Some(seed), index) {
                    let first = example * to.shape.len();
                    for (row, of) in to.gradient.rows() {
                        mask.apply(first + of.start, &mut gradient[row]);
                    }
                }
            }
            Kind::Copy | Kind::Add => {
                if let Some(below) = below {
                    for ((row, _), (of, _)) in from.gradient.rows().zip(to.gradient.rows()) {
                        below[row].copy_from_slice(&gradient[of]);
                    }
                }
            }
            Kind::Fork => {
                if let Some(below) = below {
                    for ((row, _), (of, _)) in from.gradient.rows().zip(to.gradient.rows()) {
                        add(&mut below[row], &gradient[of]);
                    }
                }
            }
            Kind::Dense(_) | Kind::Norm(_) | Kind::Bag(_) | Kind::Embedding(_) | Kind::Ngrams(_) => {
                unreachable!("they work on batches")
            }
            Kind::Positions(_) | Kind::Block(..) | Kind::CausalConv(_) | Kind::Summary(_) => {
                unreachable!("they work on batches")
            }
        }
    }
}

impl Slot {
    fn new(shape: Shape) -> Self {
        Slot { shape, gradient: Plane::new(shape, 0), kept: true }
    }

    /// Where some examples lie.
    pub(super) fn of(&self, examples: Range<usize>) -> Range<usize> {
        let len = self.shape.len();
        if self.kept { examples.start * len..examples.end * len } else { 0..len }
    }
}

impl Workspace {
    /// Makes room for `examples`. Memory once made stays.
    pub(super) fn reserve(&mut self, network: &Network, examples: usize) {
        if examples <= self.examples {
            return;
        }
        self.examples = examples;
        let of_batch = |slot: &Slot| vec![0.0; slot.shape.len() * examples];
        self.values = network
            .slots
            .iter()
            .map(|slot| if slot.kept { of_batch(slot) } else { vec![0.0; slot.shape.len()] })
            .collect();
        let boundary = network.operations[..network.single].last().map_or(0, |operation| operation.to);
        let gradients = network.slots.iter().enumerate();
        self.gradients =
            gradients.map(|(at, slot)| if at >= boundary { of_batch(slot) } else { vec![] }).collect();
        let gradients = network.slots.iter().enumerate();
        self.single_gradients = gradients
            .map(|(at, slot)| if at <= boundary { vec![0.0; slot.gradient.len()] } else { vec![] })
            .collect();
        self.places = network
            .operations
            .iter()
            .map(|operation| match operation.kind {
                Kind::Pool(_) => {
                    let pooled = if network.recomputes { 1 } else { examples };
                    vec![0; network.slots[operation.to].shape.len() * pooled]
                }
                _ => vec![],
            })
            .collect();
        self.convs.resize_with(network.single, conv::Scratch::default);
        self.blocks.resize_with(network.operations.len(), block::Scratch::default);
        self.accumulators.resize_with(network.single, Accumulator::default);
    }

    /// Room for the numbers of `examples`, of which it has some.
    pub(super) fn input(&mut self, len: usize) -> &mut [f32] {
        &mut self.values[0][..len]
    }
}

/// Adds number by number.
fn add(sums: &mut [f32], values: &[f32]) {
    vectorized(
        #[inline(always)]
        || sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
    );
}

/// Numbers of one example that are kept for a backward pass at most, 8 MiB of them; beyond, they are computed again.
const MOST_KEPT: usize = 1 << 21;

/// The mask of the dropout at `index`, if there is a seed to draw it from.
fn mask(rate: f32, seed: Option<u64>, index: usize) -> Option<Mask> {
    // Spreads the seeds of the layers of a step over all 64 bits.
    seed.map(|seed| Mask::new(rate, (seed ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The masks of the block at `index`.
fn masks(rate: f32, seed: Option<u64>, index: usize) -> block::Masks {
    let seed = seed.filter(|_| rate > 0.0);
    [0, MAX_OPERATIONS].map(|part| mask(rate, seed, index + part))
}

/// More than there are, so that the second dropout of a block has a mask that no other has.
pub(super) const MAX_OPERATIONS: usize = 1 << 16;

/// Moves pooling before the activations that stand before it: they never decrease, so the largest number stays the
/// largest, and there are fewer numbers to work on.
fn pool_first(stack: &mut [Stacked]) {
    for index in 1..stack.len() {
        let mut at = index;
        while at > 0
            && matches!(stack[at].layer, Layer::MaxPool2d { .. })
            && matches!(stack[at - 1].layer, Layer::Activation(_))
        {
            let (small, large) = (stack[at].output, stack[at].input);
            stack.swap(at - 1, at);
            (stack[at - 1].input, stack[at - 1].output) = (large, small);
            (stack[at].input, stack[at].output) = (small, small);
            at -= 1;
        }
    }
}
