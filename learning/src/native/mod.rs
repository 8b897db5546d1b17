//! The learner that computes with kernels of our own.
//!
//! A step costs its arithmetic: operations run on memory that is made once, gradients go straight into the weights, and
//! there is no graph. Every layer is tested against the automatic differentiation of burn.

mod bag;
mod conv;
mod dense;
mod loss;
mod network;
mod norm;
#[cfg(test)]
mod oracle;
mod parameters;
mod plane;
mod pointwise;
mod pool;
#[cfg(test)]
mod tests;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::network::{Network, Workspace};
use self::parameters::Parameters;
use crate::kernel::vectorized;
use crate::learner::check_fit;
use crate::metrics::{cross_entropy, predicted_class};
use crate::{
    Architecture, ArchitectureError, Batch, Confusion, Evaluation, LearnError, Learner, Subset, TrainReport,
    Training,
};

/// The learner of every [`Architecture`]. Keeps the memory that it works in.
#[derive(Debug)]
pub struct NativeLearner {
    architecture: Architecture,
    network: Network,
    workspace: Workspace,
    labels: Vec<usize>,
}

impl NativeLearner {
    /// A learner for models of this architecture.
    ///
    /// # Errors
    /// [`ArchitectureError`] if it cannot be trained.
    pub fn new(architecture: Architecture) -> Result<Self, ArchitectureError> {
        let network = Network::new(&architecture)?;
        Ok(Self { architecture, network, workspace: Workspace::default(), labels: Vec::new() })
    }

    /// The architecture of its models.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn check(&self, parameters: &[f32], data: &Subset) -> Result<(), LearnError> {
        let shape = (self.architecture.inputs(), self.architecture.classes());
        check_fit(self.network.parameter_count(), parameters.len(), shape, data)?;
        let Some(bag) = self.network.bag() else { return Ok(()) };
        for &row in data.rows() {
            let mut words = data.dataset().features().row(row).into_iter();
            if let Some(word) = words.find(|word| !bag.is_word(**word)) {
                let (word, vocabulary) = (word.to_string(), bag.vocabulary);
                return Err(LearnError::Word { row, word, vocabulary });
            }
        }
        Ok(())
    }

    /// Copies the examples of `data` at `positions` to where the network reads them.
    fn load(&mut self, data: &Subset, positions: &[usize]) {
        let inputs = self.architecture.inputs();
        self.workspace.reserve(&self.network, positions.len());
        data.gather_into(positions, self.workspace.input(positions.len() * inputs));
        self.labels.clear();
        self.labels.extend(positions.iter().map(|&at| data.label(at)));
    }

    /// One step of gradient descent on the examples at `positions`; the sum of their losses before it.
    fn step(
        &mut self,
        mut parameters: Parameters<'_>,
        data: &Subset,
        positions: &[usize],
        rate: f64,
        seed: u64,
    ) -> f64 {
        self.load(data, positions);
        let (examples, every) = (positions.len(), 0..self.network.parameter_count());
        let Self { network, workspace, labels, .. } = self;
        let logits = network.forward(parameters.read(every), examples, Some(seed), workspace);
        let loss = loss::cross_entropy(logits, labels);
        network.backward(&mut parameters, -rate as f32, examples, seed, workspace);
        loss
    }
}

impl Learner for NativeLearner {
    fn parameter_count(&self) -> usize {
        self.network.parameter_count()
    }

    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        order_key: [u8; 32],
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        let mut order = Order::new(data.len(), training.batch(), order_key);
        let epochs = training.local_epochs();
        let steps = u64::from(epochs) * order.batches() as u64;
        // The update of a single step is the step: nothing has to be copied before or subtracted after.
        let (single, rate) = (steps == 1, training.learning_rate());
        let mut update = if single { vec![0.0; global.len()] } else { global.to_vec() };
        let mut loss = 0.0;
        for epoch in 1..=epochs {
            order.shuffle();
            for batch in 0..order.batches() {
                let seed = order.dropout.next_u64();
                let parameters = match single {
                    true => Parameters::Apart { weights: global, target: &mut update },
                    false => Parameters::InPlace(&mut update),
                };
                let before = self.step(parameters, data, order.batch(batch), rate, seed);
                loss += if epoch == epochs { before } else { 0.0 };
            }
        }
        let finite = if single { is_finite(&update) } else { subtract(&mut update, global) };
        let examples = data.len();
        Ok(TrainReport { update, examples, steps, loss: loss / examples as f64, finite })
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        let classes = self.architecture.classes();
        let mut confusion = Confusion::new(classes);
        let mut loss = 0.0;
        let positions: Vec<usize> = (0..data.len()).collect();
        for positions in positions.chunks(EVALUATED_AT_ONCE) {
            self.load(data, positions);
            let logits = self.network.forward(parameters, positions.len(), None, &mut self.workspace);
            for (row, &label) in logits.chunks_exact(classes).zip(&self.labels) {
                confusion.record(label, predicted_class(row));
                loss += cross_entropy(row, label);
            }
        }
        Ok(Evaluation::new(confusion, loss))
    }
}

/// In which order the examples are seen, and what dropout draws from.
struct Order {
    positions: Vec<usize>,
    batch: usize,
    /// Deals each epoch, if it is not always the same.
    dealer: Option<ChaCha8Rng>,
    /// Stream 1 of the key; the dealer has stream 0.
    dropout: ChaCha8Rng,
}

impl Order {
    fn new(examples: usize, batch: Batch, key: [u8; 32]) -> Self {
        let size = batch.of(examples);
        let shuffled = matches!(batch, Batch::Size(_)) && size < examples;
        let mut dropout = ChaCha8Rng::from_seed(key);
        dropout.set_stream(1);
        Order {
            positions: (0..examples).collect(),
            batch: size,
            dealer: shuffled.then(|| ChaCha8Rng::from_seed(key)),
            dropout,
        }
    }

    fn batches(&self) -> usize {
        self.positions.len().div_ceil(self.batch)
    }

    fn shuffle(&mut self) {
        if let Some(dealer) = &mut self.dealer {
            self.positions.shuffle(dealer);
        }
    }

    fn batch(&self, index: usize) -> &[usize] {
        let start = index * self.batch;
        &self.positions[start..self.positions.len().min(start + self.batch)]
    }
}

/// Whether every value is a finite number.
fn is_finite(values: &[f32]) -> bool {
    vectorized(
        #[inline(always)]
        || !values.iter().fold(false, |bad, value| bad | !value.is_finite()),
    )
}

/// Subtracts in place; whether every difference is a finite number.
fn subtract(values: &mut [f32], from: &[f32]) -> bool {
    vectorized(
        #[inline(always)]
        || {
            let mut bad = false;
            for (value, from) in values.iter_mut().zip(from) {
                *value -= from;
                bad |= !value.is_finite();
            }
            !bad
        },
    )
}

/// Bounds the memory of an evaluation whatever the size of the data.
const EVALUATED_AT_ONCE: usize = 64;
