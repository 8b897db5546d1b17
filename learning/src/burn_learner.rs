//! The learner that computes with burn: for models that are not an [`Architecture`](crate::Architecture), on any of
//! burn's devices.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::descent::{Descent, Moments};
use crate::errors::ErrorTally;
use crate::learner::{check_correction, check_fit};
use crate::metrics::{Tally, cross_entropy};
use crate::own::{OwnModel, OwnTensor};
use crate::{
    Batch, Evaluation, ExamplePrivacy, LearnError, Learner, Loss, Subset, Target, TrainReport, Training, Turn,
};

/// A model made of burn modules. Its parameters are flattened in the order in which burn visits them.
pub trait BurnModel: Module {
    /// Numbers in an example.
    fn inputs(&self) -> usize;

    /// Classes told apart; 1 where a number is predicted.
    fn classes(&self) -> usize;

    /// Logits `[examples, classes]`, or scaled numbers `[examples, 1]`, of examples `[examples, inputs]`, computed in the same way while training and
    /// afterwards. To be reproducible on several threads it must not draw from burn's own generator, which all threads
    /// share.
    fn logits(&self, examples: Tensor<2>) -> Tensor<2>;
}

/// The learner of a burn model, by burn's automatic differentiation.
///
/// Its graph is one structure of the whole process behind a lock: many small models train faster with
/// [`NativeLearner`](crate::NativeLearner), which has none.
#[derive(Debug, Clone)]
pub struct BurnLearner<M> {
    /// On a device without gradients, with whatever parameters.
    model: M,
    device: Device,
    parameters: usize,
}

impl<M: BurnModel> BurnLearner<M> {
    /// A learner for models such as `model`, whose parameters lie on `device`.
    pub fn new(model: M, device: Device) -> Self {
        let parameters = model.num_params();
        Self { model, device, parameters }
    }

    fn check(&self, parameters: &[f32], data: &Subset) -> Result<(), LearnError> {
        let shape = (self.model.inputs(), self.model.classes());
        check_fit(self.parameters, parameters.len(), shape, data)
    }

    /// The model with these parameters, checked before, on `device`.
    fn with(&self, parameters: &[f32], device: &Device) -> M {
        let tracked = device.is_autodiff();
        self.model.clone().map(&mut Fill { rest: parameters, device, tracked })
    }

    /// The gradient of one example, scaled down to `clip_norm` if it is longer, added to `sum`; the example's loss.
    fn add_clipped(
        &self,
        model: &M,
        device: &Device,
        example: (&Subset, usize),
        clip_norm: f64,
        sum: &mut [f32],
    ) -> f64 {
        let (data, position) = example;
        let (gradients, loss) = self.gradients(model, device, data, &[position]);
        let (_, gradient, _) = flatten_with(model, gradients);
        let norm = gradient.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
        // What is not finite has no direction: it counts for nothing.
        let scale = if norm.is_finite() { (clip_norm / norm).min(1.0) as f32 * ROUNDED_DOWN } else { 0.0 };
        if scale > 0.0 {
            sum.iter_mut().zip(&gradient).for_each(|(sum, value)| *sum += scale * value);
        }
        loss
    }

    /// The gradients of the mean loss of the examples at `positions`, and the sum of their losses.
    fn gradients(&self, model: &M, device: &Device, data: &Subset, positions: &[usize]) -> (Gradients, f64) {
        let logits = model.logits(features(data, positions, device));
        let costs = match data.dataset().target() {
            None => {
                let targets = one_hot(data, positions, self.model.classes(), device);
                -log_softmax(logits.clone(), 1) * targets
            }
            Some(target) => costs(target.loss, logits.clone() - numbers(data, target, positions, device)),
        };
        let loss = costs.sum() / positions.len() as f64;
        let measured = summed_loss(&values(logits.inner()), data, positions);
        (loss.backward(), measured)
    }
}

impl<M: BurnModel> Learner for BurnLearner<M> {
    fn parameter_count(&self) -> usize {
        self.parameters
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
        if training.augmentation().is_some() {
            return Err(LearnError::NoImages);
        }
        let device = self.device.clone().autodiff();
        let mut model = self.with(global, &device);
        let mut order = ChaCha8Rng::from_seed(turn.order_key);
        let mut positions: Vec<usize> = (0..data.len()).collect();
        let size = training.batch().of(data.len());
        let shuffled = matches!(training.batch(), Batch::Size(_)) && size < data.len();
        let mut moments = Moments::default();
        let mut descent = match Descent::is_plain(training, &turn) {
            true => None,
            false => Some(Descent::new(global, training, &turn, &mut moments)),
        };
        let (mut steps, mut loss) = (0, 0.0);
        for epoch in 1..=training.local_epochs() {
            if shuffled {
                positions.shuffle(&mut order);
            }
            for positions in positions.chunks(size) {
                let (gradients, before) = self.gradients(&model, &device, data, positions);
                model = match &mut descent {
                    None => model.map(&mut PlainStep { gradients, rate: training.learning_rate() }),
                    Some(descent) => {
                        let (mut weights, mut gradient, still) = flatten_with(&model, gradients);
                        let before = weights.clone();
                        descent.step(&mut weights, &mut gradient);
                        for range in still {
                            weights[range.clone()].copy_from_slice(&before[range]);
                        }
                        self.with(&weights, &device)
                    }
                };
                loss += if epoch == training.local_epochs() { before } else { 0.0 };
                steps += 1;
            }
        }
        let mut update = flatten(&model);
        update.iter_mut().zip(global).for_each(|(new, old)| *new -= old);
        Ok(TrainReport { examples: data.len(), steps, loss: loss / data.len() as f64, update })
    }

    /// One example after the other.
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
        let device = self.device.clone().autodiff();
        let (mut weights, mut moments) = (global.to_vec(), Moments::default());
        let mut descent = Descent::new(global, training, &turn, &mut moments);
        let (mut positions, mut sum) = (Vec::new(), vec![0.0; global.len()]);
        let (mut loss, mut drawn) = (0.0, 0);
        let (steps, clip_norm) = (privacy.steps(), privacy.clip_norm());
        for _ in 0..steps {
            positions.clear();
            privacy.draw(data.len(), &mut positions);
            drawn += positions.len();
            let model = self.with(&weights, &device);
            sum.fill(0.0);
            for &position in &positions {
                loss += self.add_clipped(&model, &device, (data, position), clip_norm, &mut sum);
            }
            privacy.release(&mut sum);
            descent.step(&mut weights, &mut sum);
        }
        weights.iter_mut().zip(global).for_each(|(new, old)| *new -= old);
        Ok(TrainReport { examples: data.len(), steps, loss: loss / drawn.max(1) as f64, update: weights })
    }

    fn logits(&mut self, parameters: &[f32], numbers: &[f32]) -> Result<Vec<f32>, LearnError> {
        let (expected, actual) = (self.parameters, parameters.len());
        if expected != actual {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        let (model, inputs) = (self.with(parameters, &self.device), self.model.inputs());
        // One by one: what is said of an example must not depend on those beside it, and kernels of other sizes round otherwise.
        let answer = |row: &[f32]| {
            values(model.logits(Tensor::from_data(TensorData::new(row.to_vec(), [1, inputs]), &self.device)))
        };
        Ok(numbers.chunks_exact(inputs).flat_map(answer).collect())
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        let model = self.with(parameters, &self.device);
        let positions: Vec<usize> = (0..data.len()).collect();
        if let Some(target) = data.dataset().target() {
            let mut tally = ErrorTally::new(target);
            for positions in positions.chunks(EVALUATED_AT_ONCE) {
                let answers = values(model.logits(features(data, positions, &self.device)));
                answers
                    .iter()
                    .zip(positions)
                    .for_each(|(&answer, &at)| tally.record(answer, data.number(at)));
            }
            return Ok(tally.finish());
        }
        let classes = self.model.classes();
        let mut tally = Tally::new(classes, data.len());
        for positions in positions.chunks(EVALUATED_AT_ONCE) {
            let logits = values(model.logits(features(data, positions, &self.device)));
            for (row, &at) in logits.chunks_exact(classes).zip(positions) {
                tally.record(row, data.label(at));
            }
        }
        Ok(tally.finish())
    }
}

/// Burn modules as a model of one's own: what builds one, and where.
pub(crate) struct Modules<F> {
    pub(crate) device: Device,
    pub(crate) make: F,
}

impl<M: BurnModel + 'static, F: Fn(usize, usize, &Device) -> M + Send + Sync> OwnModel for Modules<F> {
    fn tensors(&self, inputs: usize, classes: usize) -> Vec<OwnTensor> {
        named(&(self.make)(inputs, classes, &self.device))
    }

    fn initial_parameters(&self, inputs: usize, classes: usize, key: [u8; 32]) -> Vec<f32> {
        // Burn's generator is one of the whole process; whoever else draws from it meanwhile is none of ours.
        static DRAWING: Mutex<()> = Mutex::new(());
        let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        let (seed, _) = key.split_first_chunk().expect("a key has more than eight bytes");
        self.device.seed(u64::from_le_bytes(*seed));
        flatten(&(self.make)(inputs, classes, &self.device))
    }

    fn learner(&self, inputs: usize, classes: usize) -> Box<dyn Learner> {
        let model = (self.make)(inputs, classes, &self.device);
        Box::new(BurnLearner::new(model, self.device.clone()))
    }
}

/// The float parameters of a module by the names of the fields that they are in.
fn named<M: Module>(module: &M) -> Vec<OwnTensor> {
    #[derive(Default)]
    struct Visit {
        path: Vec<String>,
        tensors: Vec<OwnTensor>,
    }
    impl ModuleVisitor for Visit {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let shape = parameter.val().shape().iter().copied().collect();
            self.tensors.push(OwnTensor { name: self.path.join("."), shape });
        }
    }
    let mut visit = Visit::default();
    module.visit(&mut visit);
    visit.tensors
}

/// The float parameters of a module, one after the other in the order of burn's visit.
fn flatten<M: Module>(module: &M) -> Vec<f32> {
    struct Visit(Vec<f32>);
    impl ModuleVisitor for Visit {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let data = parameter.val().into_data();
            self.0.extend_from_slice(data.as_slice::<f32>().expect("parameters are f32"));
        }
    }
    let mut visit = Visit(Vec::new());
    module.visit(&mut visit);
    visit.0
}

/// The float parameters of a module and their gradients; and which of them have none.
fn flatten_with<M: Module>(module: &M, gradients: Gradients) -> (Vec<f32>, Vec<f32>, Vec<Range<usize>>) {
    struct Visit {
        gradients: Gradients,
        gradient: Vec<f32>,
        still: Vec<Range<usize>>,
    }
    impl ModuleVisitor for Visit {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            let tensor = parameter.val();
            match tensor.grad_remove(&mut self.gradients) {
                Some(gradient) => {
                    let data = gradient.into_data();
                    self.gradient.extend_from_slice(data.as_slice::<f32>().expect("gradients are f32"));
                }
                None => {
                    let start = self.gradient.len();
                    let end = start + tensor.shape().num_elements();
                    self.gradient.resize(end, 0.0);
                    self.still.push(start..end);
                }
            }
        }
    }
    let mut visit = Visit { gradients, gradient: Vec::new(), still: Vec::new() };
    module.visit(&mut visit);
    (flatten(module), visit.gradient, visit.still)
}

/// Replaces parameters by those of a flat vector, which has as many.
struct Fill<'a> {
    rest: &'a [f32],
    device: &'a Device,
    tracked: bool,
}

impl ModuleMapper for Fill<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (device, tracked) = (self.device, self.tracked);
        parameter.map(|tensor| {
            let shape = tensor.shape();
            let (values, rest) = self.rest.split_at(shape.num_elements());
            self.rest = rest;
            let tensor = Tensor::from_data(TensorData::new(values.to_vec(), shape), device);
            if tracked { tensor.require_grad() } else { tensor }
        })
    }
}

/// A step of plain gradient descent, on the device. What has no gradient stays.
struct PlainStep {
    gradients: Gradients,
    rate: f64,
}

impl ModuleMapper for PlainStep {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        parameter.map(|tensor| match tensor.grad_remove(&mut self.gradients) {
            Some(gradient) => Tensor::from_inner(tensor.inner() - gradient * self.rate).require_grad(),
            None => tensor,
        })
    }
}

fn features(data: &Subset, positions: &[usize], device: &Device) -> Tensor<2> {
    let shape = [positions.len(), data.dataset().inputs()];
    Tensor::from_data(TensorData::new(data.gather(positions), shape), device)
}

fn one_hot(data: &Subset, positions: &[usize], classes: usize, device: &Device) -> Tensor<2> {
    let mut targets = vec![0.0_f32; positions.len() * classes];
    for (row, &at) in targets.chunks_exact_mut(classes).zip(positions) {
        row[data.label(at)] = 1.0;
    }
    Tensor::from_data(TensorData::new(targets, [positions.len(), classes]), device)
}

/// The scaled numbers to predict.
fn numbers(data: &Subset, target: &Target, positions: &[usize], device: &Device) -> Tensor<2> {
    let numbers: Vec<f32> = positions.iter().map(|&at| target.scaled(data.number(at))).collect();
    Tensor::from_data(TensorData::new(numbers, [positions.len(), 1]), device)
}

/// What errors cost, each.
fn costs(loss: Loss, errors: Tensor<2>) -> Tensor<2> {
    match loss {
        Loss::Squared => errors.square(),
        Loss::Absolute => errors.abs(),
        Loss::Huber { delta } => {
            let (far, near) = (errors.clone().abs(), errors.abs().clamp_max(delta));
            near.clone() * (far - near / 2.0)
        }
    }
}

fn summed_loss(logits: &[f32], data: &Subset, positions: &[usize]) -> f64 {
    if let Some(target) = data.dataset().target() {
        let error =
            |(&answer, &at): (&f32, &usize)| f64::from(answer) - f64::from(target.scaled(data.number(at)));
        return logits.iter().zip(positions).map(error).map(|error| target.loss.of(error)).sum();
    }
    let rows = logits.chunks_exact(logits.len() / positions.len());
    rows.zip(positions).map(|(row, &at)| cross_entropy(row, data.label(at))).sum()
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("a tensor of f32 on this device stays f32")
}

/// So that rounding makes no gradient longer.
const ROUNDED_DOWN: f32 = 1.0 - f32::EPSILON;
/// Bounds the memory of an evaluation whatever the size of the data.
const EVALUATED_AT_ONCE: usize = 256;
