//! The learner that computes with kernels of our own.
//!
//! A step costs its arithmetic: operations run on memory that is made once, gradients go straight into the weights, and
//! there is no graph. Every layer is tested against the automatic differentiation of burn.

mod bag;
mod clipping;
mod conv;
mod dense;
mod loss;
mod network;
mod ngrams;
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

use self::clipping::Clipping;
use self::network::{Network, Workspace};
use self::parameters::Parameters;
use crate::descent::{Descent, Moments};
use crate::kernel::{are_finite, vectorized};
use crate::learner::{check_correction, check_fit};
use crate::metrics::Tally;
use crate::{
    Architecture, ArchitectureError, Batch, Evaluation, ExamplePrivacy, LearnError, Learner, Subset,
    TrainReport, Training, Turn,
};

/// The learner of every [`Architecture`] but those that a program brings along. Keeps the memory that it works in.
#[derive(Debug)]
pub struct NativeLearner {
    architecture: Architecture,
    network: Network,
    workspace: Workspace,
    labels: Vec<usize>,
    /// Of a step that does not go straight into the weights.
    gradient: Vec<f32>,
    moments: Moments,
    clipping: Clipping,
    /// Of an update that nobody needs any more.
    spare: Vec<f32>,
}

impl NativeLearner {
    /// A learner for models of this architecture.
    ///
    /// # Errors
    /// [`ArchitectureError`] if it cannot be trained.
    pub fn new(architecture: Architecture) -> Result<Self, ArchitectureError> {
        let network = Network::new(&architecture)?;
        Ok(Self {
            architecture,
            network,
            workspace: Workspace::default(),
            labels: Vec::new(),
            gradient: Vec::new(),
            moments: Moments::default(),
            clipping: Clipping::default(),
            spare: Vec::new(),
        })
    }

    /// The architecture of its models.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Memory for so many numbers, which are whatever they are.
    fn room(&mut self, len: usize) -> Vec<f32> {
        let mut spare = std::mem::take(&mut self.spare);
        spare.resize(len, 0.0);
        spare
    }

    fn copy(&mut self, values: &[f32]) -> Vec<f32> {
        let mut copy = std::mem::take(&mut self.spare);
        copy.clear();
        copy.extend_from_slice(values);
        copy
    }

    fn check(&self, parameters: &[f32], data: &Subset) -> Result<(), LearnError> {
        let shape = (self.architecture.inputs(), self.architecture.classes());
        check_fit(self.network.parameter_count(), parameters.len(), shape, data)?;
        let features = data.dataset().features();
        data.rows().iter().try_for_each(|&row| self.check_words(row, features.row(row)))
    }

    /// Whether row number `row` has word numbers where the model takes some.
    fn check_words<'a>(
        &self,
        row: usize,
        numbers: impl IntoIterator<Item = &'a f32>,
    ) -> Result<(), LearnError> {
        let Some(bag) = self.network.bag() else { return Ok(()) };
        match numbers.into_iter().find(|word| !bag.is_word(**word)) {
            Some(word) => Err(LearnError::Word { row, word: word.to_string(), vocabulary: bag.vocabulary }),
            None => Ok(()),
        }
    }

    /// Copies the examples of `data` at `positions` to where the network reads them.
    fn load(&mut self, data: &Subset, positions: &[usize]) {
        let inputs = self.architecture.inputs();
        self.workspace.reserve(&self.network, positions.len());
        data.gather_into(positions, self.workspace.input(positions.len() * inputs));
        self.labels.clear();
        self.labels.extend(positions.iter().map(|&at| data.label(at)));
    }

    /// Makes `scale` times the gradient of the mean loss of the examples at `positions` the step of `parameters`; the sum of
    /// their losses before it.
    fn step(
        &mut self,
        mut parameters: Parameters<'_>,
        data: &Subset,
        positions: &[usize],
        scale: f32,
        seed: u64,
    ) -> f64 {
        self.load(data, positions);
        let (examples, every) = (positions.len(), 0..self.network.parameter_count());
        let Self { network, workspace, labels, .. } = self;
        let logits = network.forward(parameters.read(every), examples, Some(seed), workspace);
        let loss = loss::cross_entropy(logits, labels, 1.0 / examples as f64);
        network.backward(&mut parameters, scale, examples, seed, workspace);
        loss
    }

    /// Makes `sum` the sum of the gradients of the examples at `positions`, each scaled down to `norm`; the sum of their losses
    /// before. An example whose gradient is not finite is left out: no factor bounds it.
    fn clipped(
        &mut self,
        weights: &[f32],
        data: &Subset,
        positions: &[usize],
        norm: f64,
        seed: u64,
        sum: &mut [f32],
    ) -> f64 {
        let mut positions = positions.to_vec();
        while !positions.is_empty() {
            self.load(data, &positions);
            let Self { network, workspace, labels, clipping, .. } = self;
            let examples = positions.len();
            let logits = network.forward(weights, examples, Some(seed), workspace);
            let loss = loss::cross_entropy(logits, labels, 1.0);
            let mut parameters = Parameters::Apart { weights, target: sum };
            network.backward_clipped(&mut parameters, norm, examples, seed, workspace, clipping);
            let mut finite = (0..examples).map(|at| clipping.is_finite(at));
            positions.retain(|_| finite.next().is_some_and(|finite| finite));
            if positions.len() == examples {
                return loss;
            }
        }
        sum.fill(0.0);
        0.0
    }

    /// Trains in place by `optimizer`, whose steps need whole gradients; the sum of the losses over the last epoch.
    fn descend(
        &mut self,
        weights: &mut [f32],
        data: &Subset,
        mut order: Order,
        mut descent: Descent<'_>,
        epochs: u32,
    ) -> f64 {
        let mut gradient = std::mem::take(&mut self.gradient);
        gradient.resize(weights.len(), 0.0);
        let loss = order.run(epochs, |positions, seed| {
            let parameters = Parameters::Apart { weights, target: &mut gradient };
            let loss = self.step(parameters, data, positions, 1.0, seed);
            descent.step(weights, &mut gradient);
            loss
        });
        self.gradient = gradient;
        loss
    }

    /// Trains by plain gradient descent, whose steps go straight into the weights; what has changed, whether all of it is
    /// finite, and the sum of the losses over the last epoch.
    fn descend_plainly(
        &mut self,
        global: &[f32],
        data: &Subset,
        mut order: Order,
        training: &Training,
    ) -> (Vec<f32>, bool, f64) {
        let (epochs, scale) = (training.local_epochs(), -training.learning_rate() as f32);
        // The update of a single step is the step: nothing has to be copied before or subtracted after.
        let single = order.steps(epochs) == 1;
        let mut update = if single { self.room(global.len()) } else { self.copy(global) };
        let loss = order.run(epochs, |positions, seed| {
            let parameters = match single {
                true => Parameters::Apart { weights: global, target: &mut update },
                false => Parameters::InPlace(&mut update),
            };
            self.step(parameters, data, positions, scale, seed)
        });
        let finite = if single { are_finite(&update) } else { subtract(&mut update, global) };
        (update, finite, loss)
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
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        check_correction(global.len(), &turn)?;
        let order = Order::new(data.len(), training.batch(), turn.order_key);
        let (epochs, examples) = (training.local_epochs(), data.len());
        let steps = order.steps(epochs);
        let (update, finite, loss) = if Descent::is_plain(training, &turn) {
            self.descend_plainly(global, data, order, training)
        } else {
            let (mut update, mut moments) = (self.copy(global), std::mem::take(&mut self.moments));
            let descent = Descent::new(global, training, &turn, &mut moments);
            let loss = self.descend(&mut update, data, order, descent, epochs);
            self.moments = moments;
            let finite = subtract(&mut update, global);
            (update, finite, loss)
        };
        Ok(TrainReport { update, examples, steps, loss: loss / examples as f64, finite })
    }

    fn train_privately(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
        privacy: &mut dyn ExamplePrivacy,
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        check_correction(global.len(), &turn)?;
        let mut dropout = Order::new(data.len(), training.batch(), turn.order_key).dropout;
        let (mut update, mut moments) = (self.copy(global), std::mem::take(&mut self.moments));
        let mut descent = Descent::new(global, training, &turn, &mut moments);
        let mut sum = std::mem::take(&mut self.gradient);
        sum.resize(global.len(), 0.0);
        let (mut positions, mut part) = (Vec::new(), Vec::new());
        let (mut loss, mut drawn) = (0.0, 0);
        let steps = privacy.steps();
        for _ in 0..steps {
            positions.clear();
            privacy.draw(data.len(), &mut positions);
            drawn += positions.len();
            let mut chunks = positions.chunks(CLIPPED_AT_ONCE);
            let (norm, first) = (privacy.clip_norm(), chunks.next().unwrap_or_default());
            loss += self.clipped(&update, data, first, norm, dropout.next_u64(), &mut sum);
            for chunk in chunks {
                part.resize(sum.len(), 0.0);
                loss += self.clipped(&update, data, chunk, norm, dropout.next_u64(), &mut part);
                sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
            }
            privacy.release(&mut sum);
            descent.step(&mut update, &mut sum);
        }
        (self.gradient, self.moments) = (sum, moments);
        let finite = subtract(&mut update, global);
        Ok(TrainReport { update, examples: data.len(), steps, loss: loss / drawn.max(1) as f64, finite })
    }

    fn recycle(&mut self, update: Vec<f32>) {
        self.spare = update;
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        let classes = self.architecture.classes();
        let mut tally = Tally::new(classes, data.len());
        let positions: Vec<usize> = (0..data.len()).collect();
        for positions in positions.chunks(EVALUATED_AT_ONCE) {
            self.load(data, positions);
            let logits = self.network.forward(parameters, positions.len(), None, &mut self.workspace);
            for (row, &label) in logits.chunks_exact(classes).zip(&self.labels) {
                tally.record(row, label);
            }
        }
        Ok(tally.finish())
    }

    fn logits(&mut self, parameters: &[f32], numbers: &[f32]) -> Result<Vec<f32>, LearnError> {
        let (expected, actual) = (self.network.parameter_count(), parameters.len());
        if expected != actual {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        let (inputs, classes) = (self.architecture.inputs(), self.architecture.classes());
        for (row, numbers) in numbers.chunks_exact(inputs).enumerate() {
            self.check_words(row, numbers)?;
        }
        let mut logits = Vec::with_capacity(numbers.len() / inputs * classes);
        for numbers in numbers.chunks(EVALUATED_AT_ONCE * inputs) {
            let examples = numbers.len() / inputs;
            self.workspace.reserve(&self.network, examples);
            self.workspace.input(numbers.len()).copy_from_slice(numbers);
            logits.extend(self.network.forward(parameters, examples, None, &mut self.workspace).iter());
        }
        Ok(logits)
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

    /// Steps of so many epochs.
    fn steps(&self, epochs: u32) -> u64 {
        u64::from(epochs) * self.batches() as u64
    }

    /// Takes the steps of some epochs, each on the examples at some positions with a seed for dropout; the sum of what those
    /// of the last epoch give.
    fn run(&mut self, epochs: u32, mut step: impl FnMut(&[usize], u64) -> f64) -> f64 {
        let mut loss = 0.0;
        for epoch in 1..=epochs {
            self.shuffle();
            for batch in 0..self.batches() {
                let seed = self.dropout.next_u64();
                let before = step(self.batch(batch), seed);
                loss += if epoch == epochs { before } else { 0.0 };
            }
        }
        loss
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

/// Bounds the memory of a step whose batch is drawn.
const CLIPPED_AT_ONCE: usize = 128;

/// Bounds the memory of an evaluation whatever the size of the data.
const EVALUATED_AT_ONCE: usize = 64;
