//! The learner that computes with kernels of our own.
//!
//! A step costs its arithmetic: operations run on memory that is made once, gradients go straight into the weights, and
//! there is no graph. Every layer is tested against the automatic differentiation of burn.

mod accumulator;
mod attention;
mod average;
mod bag;
mod block;
mod causal;
mod clipping;
mod conv;
mod dense;
mod group_norm;
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
mod sequence;
mod smooth;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::clipping::Clipping;
use self::network::{Network, Workspace};
use self::parameters::Parameters;
use crate::augment::Augmenter;
use crate::descent::{Descent, Moments, squared_norm};
use crate::errors::ErrorTally;
use crate::kernel::vectorized;
use crate::learner::{check_correction, check_fit};
use crate::metrics::Tally;
use crate::{
    Architecture, ArchitectureError, Batch, Evaluation, ExamplePrivacy, LearnError, Learner, Shape, Subset,
    TrainReport, Training, Turn,
};

/// The learner of every [`Architecture`] but those that a program brings along. Keeps the memory that it works in.
#[derive(Debug)]
pub struct NativeLearner {
    architecture: Architecture,
    network: Network,
    workspace: Workspace,
    /// Of each prediction, if there is one to make.
    labels: Vec<Option<usize>>,
    /// The numbers to predict, where no class is.
    numbers: Vec<f32>,
    /// Of a step that does not go straight into the weights.
    gradient: Vec<f32>,
    /// Of a part of a batch.
    part: Vec<f32>,
    moments: Moments,
    /// What changes images at random while training, if anything does.
    augmenter: Option<Augmenter>,
    clipping: Clipping,
    /// The parameters that are trained, in their order, if not all.
    learning: Option<Arc<[Range<usize>]>>,
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
            numbers: Vec::new(),
            gradient: Vec::new(),
            part: Vec::new(),
            moments: Moments::default(),
            augmenter: None,
            clipping: Clipping::default(),
            learning: None,
            spare: Vec::new(),
        })
    }

    /// From now on [`NativeLearner::accumulate`] computes the gradients of these parameters only, which are in their order; it may leave
    /// anything where the others' are.
    pub(crate) fn train_only(&mut self, learning: Vec<Range<usize>>) {
        self.learning = Some(learning.into());
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

    pub(crate) fn check(&self, parameters: &[f32], data: &Subset) -> Result<(), LearnError> {
        let shape = (self.architecture.inputs(), self.architecture.classes());
        check_fit(self.network.parameter_count(), parameters.len(), shape, data)?;
        if self.network.bag().is_none() {
            return Ok(());
        }
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

    /// The logits of the last word of each of the examples that have just been computed, or of the examples themselves.
    fn last_logits<'l>(&self, logits: &'l [f32], words: &[f32]) -> Vec<&'l [f32]> {
        let (inputs, classes) = (self.architecture.inputs(), self.architecture.classes());
        match self.architecture.predicted_words() {
            None => logits.chunks_exact(classes).collect(),
            Some(length) => logits
                .chunks_exact(length * classes)
                .zip(words.chunks_exact(inputs))
                .map(|(logits, words)| &logits[known(words).saturating_sub(1) * classes..][..classes])
                .collect(),
        }
    }

    /// How many predictions the model makes for the examples of `data`.
    pub(crate) fn predictions(&self, data: &Subset) -> usize {
        match self.architecture.predicted_words() {
            None => data.len(),
            Some(_) => {
                let features = data.dataset().features();
                data.rows()
                    .iter()
                    .map(|&row| features.row(row).iter().take_while(|word| **word >= 0.0).count())
                    .sum()
            }
        }
    }

    /// Examples that are evaluated together, which bounds the memory of an evaluation whatever the size of the data.
    fn evaluated_at_once(&self) -> usize {
        let places = self.architecture.inputs();
        if self.network.shares_weights() {
            (PLACES_AT_ONCE / places).clamp(1, EVALUATED_AT_ONCE)
        } else {
            EVALUATED_AT_ONCE
        }
    }

    fn prepare_to_augment(&mut self, training: &Training) -> Result<(), LearnError> {
        self.augmenter = match (training.augmentation(), self.architecture.input()) {
            (None, _) => None,
            (Some(how), Shape::Image { height, width, channels }) => {
                Some(Augmenter::new(how, [height, width, channels]))
            }
            (Some(_), _) => return Err(LearnError::NoImages),
        };
        Ok(())
    }

    /// Changes the images that have been loaded, those of the examples at `positions`, for the step with this seed.
    fn augment(&mut self, positions: &[usize], seed: u64) {
        if let Some(augmenter) = &mut self.augmenter {
            let images = self.workspace.input(positions.len() * self.architecture.inputs());
            augmenter.apply(seed, positions, images);
        }
    }

    /// Copies the examples of `data` at `positions` to where the network reads them.
    fn load(&mut self, data: &Subset, positions: &[usize]) {
        let inputs = self.architecture.inputs();
        self.workspace.reserve(&self.network, positions.len());
        data.gather_into(positions, self.workspace.input(positions.len() * inputs));
        self.numbers.clear();
        self.numbers.extend(positions.iter().map(|&at| data.number(at)));
        self.labels.clear();
        let labels = positions.iter().map(|&at| data.label(at));
        match self.architecture.predicted_words() {
            None => self.labels.extend(labels.map(Some)),
            Some(_) => {
                let words = self.workspace.input(positions.len() * inputs).chunks_exact(inputs);
                words.zip(labels).for_each(|(words, label)| self.labels.extend(following(words, label)));
            }
        }
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
        self.augment(positions, seed);
        let (examples, every) = (positions.len(), 0..self.network.parameter_count());
        let Self { network, workspace, labels, numbers, .. } = self;
        let logits = network.forward(parameters.read(every), examples, Some(seed), workspace);
        let predictions = labels.iter().flatten().count();
        let share = 1.0 / predictions.max(1) as f64;
        let loss = match data.dataset().target() {
            None => loss::cross_entropy(logits, labels, share),
            Some(target) => loss::of_numbers(logits, numbers, target, share),
        };
        network.backward(&mut parameters, scale, examples, seed, workspace);
        loss
    }

    /// Makes `into` the gradient of the mean loss of the examples at `positions`, so many at a time; the sum of their losses. Where
    /// layers drop out, each part has masks of its own.
    pub(crate) fn accumulate(
        &mut self,
        weights: &[f32],
        data: &Subset,
        (positions, micro_batch): (&[usize], Option<usize>),
        seed: u64,
        into: &mut [f32],
    ) -> f64 {
        let learning = self.learning.clone();
        let Some(size) = micro_batch.filter(|size| *size < positions.len()) else {
            return self.step(apart(weights, into, learning.as_deref()), data, positions, 1.0, seed);
        };
        let mut part = std::mem::take(&mut self.part);
        part.resize(into.len(), 0.0);
        into.fill(0.0);
        let (mut loss, mut predicted) = (0.0, 0);
        for (at, positions) in (0..).zip(positions.chunks(size)) {
            let parameters = apart(weights, &mut part, learning.as_deref());
            loss += self.step(parameters, data, positions, 1.0, seed.wrapping_add(at));
            let more = self.predicted();
            into.iter_mut().zip(&part).for_each(|(sum, value)| *sum += more as f32 * value);
            predicted += more;
        }
        let share = 1.0 / predicted.max(1) as f32;
        into.iter_mut().for_each(|value| *value *= share);
        self.part = part;
        loss
    }

    /// Predictions of the examples that were computed last.
    pub(crate) fn predicted(&self) -> usize {
        self.labels.iter().flatten().count()
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
        if self.network.shares_weights() {
            return self.clipped_singly(weights, data, positions, norm, seed, sum);
        }
        let mut positions = positions.to_vec();
        while !positions.is_empty() {
            self.load(data, &positions);
            self.augment(&positions, seed);
            let Self { network, workspace, labels, numbers, clipping, .. } = self;
            let examples = positions.len();
            let logits = network.forward(weights, examples, Some(seed), workspace);
            let loss = match data.dataset().target() {
                None => loss::cross_entropy(logits, labels, 1.0),
                Some(target) => loss::of_numbers(logits, numbers, target, 1.0),
            };
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

    /// As [`NativeLearner::clipped`], one example after the other. The loss of an example that makes several predictions is their
    /// mean.
    fn clipped_singly(
        &mut self,
        weights: &[f32],
        data: &Subset,
        positions: &[usize],
        norm: f64,
        seed: u64,
        sum: &mut [f32],
    ) -> f64 {
        let (mut one, mut loss) = (vec![0.0; sum.len()], 0.0);
        sum.fill(0.0);
        for (at, position) in positions.iter().enumerate() {
            let parameters = Parameters::Apart { weights, target: &mut one };
            let seed = seed.wrapping_add(at as u64);
            let before = self.step(parameters, data, std::slice::from_ref(position), 1.0, seed);
            let length = squared_norm(&one).sqrt();
            if !length.is_finite() {
                continue;
            }
            loss += before / self.labels.iter().flatten().count().max(1) as f64;
            // Downwards, so that rounding makes no gradient longer.
            let factor = if length > norm { (norm / length) as f32 * (1.0 - f32::EPSILON) } else { 1.0 };
            sum.iter_mut().zip(&one).for_each(|(sum, value)| *sum += factor * value);
        }
        loss
    }

    /// Trains in place by `optimizer`, whose steps need whole gradients; the sum of the losses over the last epoch.
    fn descend(
        &mut self,
        weights: &mut [f32],
        data: &Subset,
        mut order: Order,
        mut descent: Descent<'_>,
        training: &Training,
    ) -> f64 {
        let mut gradient = std::mem::take(&mut self.gradient);
        gradient.resize(weights.len(), 0.0);
        let loss = order.run(training.local_epochs(), |positions, seed| {
            let loss =
                self.accumulate(weights, data, (positions, training.micro_batch()), seed, &mut gradient);
            descent.step(weights, &mut gradient);
            loss
        });
        self.gradient = gradient;
        loss
    }

    /// Trains by plain gradient descent, whose steps go straight into the weights; what has changed, and the sum of the losses
    /// over the last epoch.
    fn descend_plainly(
        &mut self,
        global: &[f32],
        data: &Subset,
        mut order: Order,
        training: &Training,
    ) -> (Vec<f32>, f64) {
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
        if !single {
            subtract(&mut update, global);
        }
        (update, loss)
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
        self.prepare_to_augment(training)?;
        let order = Order::new(data.len(), training.batch(), turn.order_key);
        let (epochs, examples) = (training.local_epochs(), data.len());
        let steps = order.steps(epochs);
        let (update, loss) = if Descent::is_plain(training, &turn) {
            self.descend_plainly(global, data, order, training)
        } else {
            let (mut update, mut moments) = (self.copy(global), std::mem::take(&mut self.moments));
            let descent = Descent::new(global, training, &turn, &mut moments);
            let loss = self.descend(&mut update, data, order, descent, training);
            self.moments = moments;
            subtract(&mut update, global);
            (update, loss)
        };
        let loss = loss / self.predictions(data).max(1) as f64;
        Ok(TrainReport { update, examples, steps, loss })
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
        self.prepare_to_augment(training)?;
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
        subtract(&mut update, global);
        Ok(TrainReport { update, examples: data.len(), steps, loss: loss / drawn.max(1) as f64 })
    }

    fn recycle(&mut self, update: Vec<f32>) {
        self.spare = update;
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        let positions: Vec<usize> = (0..data.len()).collect();
        if let Some(target) = data.dataset().target() {
            let mut tally = ErrorTally::new(target);
            for positions in positions.chunks(self.evaluated_at_once()) {
                self.load(data, positions);
                let answers = self.network.forward(parameters, positions.len(), None, &mut self.workspace);
                answers.iter().zip(&self.numbers).for_each(|(&answer, &number)| tally.record(answer, number));
            }
            return Ok(tally.finish());
        }
        let classes = self.architecture.classes();
        let mut tally = Tally::new(classes, self.predictions(data));
        for positions in positions.chunks(self.evaluated_at_once()) {
            self.load(data, positions);
            let logits = self.network.forward(parameters, positions.len(), None, &mut self.workspace);
            for (row, label) in logits.chunks_exact(classes).zip(&self.labels) {
                label.iter().for_each(|&label| tally.record(row, label));
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
        for numbers in numbers.chunks(self.evaluated_at_once() * inputs) {
            let examples = numbers.len() / inputs;
            let mut workspace = std::mem::take(&mut self.workspace);
            workspace.reserve(&self.network, examples);
            workspace.input(numbers.len()).copy_from_slice(numbers);
            let computed = self.network.forward(parameters, examples, None, &mut workspace);
            self.last_logits(computed, numbers).into_iter().for_each(|row| logits.extend(row));
            self.workspace = workspace;
        }
        Ok(logits)
    }
}

/// Weights that stay, while the steps of all or some of them are written to `target`.
fn apart<'a>(
    weights: &'a [f32],
    target: &'a mut [f32],
    learning: Option<&'a [Range<usize>]>,
) -> Parameters<'a> {
    match learning {
        None => Parameters::Apart { weights, target },
        Some(learning) => Parameters::Part { weights, target, learning },
    }
}

/// In which order the examples are seen, and what dropout draws from.
#[derive(Debug)]
pub(crate) struct Order {
    positions: Vec<usize>,
    batch: usize,
    /// Deals each epoch, if it is not always the same.
    dealer: Option<ChaCha8Rng>,
    /// Stream 1 of the key; the dealer has stream 0.
    dropout: ChaCha8Rng,
}

impl Order {
    pub(crate) fn new(examples: usize, batch: Batch, key: [u8; 32]) -> Self {
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
    pub(crate) fn steps(&self, epochs: u32) -> u64 {
        u64::from(epochs) * self.batches() as u64
    }

    /// Takes the steps of some epochs, each on the examples at some positions with a seed for dropout; the sum of what those
    /// of the last epoch give.
    pub(crate) fn run(&mut self, epochs: u32, mut step: impl FnMut(&[usize], u64) -> f64) -> f64 {
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

    /// The next seed for dropout.
    pub(crate) fn seed(&mut self) -> u64 {
        self.dropout.next_u64()
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

/// How many words an example begins with.
fn known(words: &[f32]) -> usize {
    words.iter().take_while(|word| **word >= 0.0).count()
}

/// What follows each word of an example: the next word, after the last one its label, and nothing after what is no word.
fn following(words: &[f32], label: usize) -> impl Iterator<Item = Option<usize>> {
    let known = known(words);
    (1..=words.len()).map(move |next| match next {
        next if next < known => Some(words[next] as usize),
        next if next == known => Some(label),
        _ => None,
    })
}

/// Subtracts in place.
fn subtract(values: &mut [f32], from: &[f32]) {
    vectorized(
        #[inline(always)]
        || values.iter_mut().zip(from).for_each(|(value, from)| *value -= from),
    );
}

/// Bounds the memory of a step whose batch is drawn.
const CLIPPED_AT_ONCE: usize = 128;

const EVALUATED_AT_ONCE: usize = 64;

/// Places of sequences that are evaluated together.
const PLACES_AT_ONCE: usize = 2048;
