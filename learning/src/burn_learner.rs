//! The learner that computes with burn: for models that are not an [`Architecture`](crate::Architecture), on any of
//! burn's devices.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::learner::check_fit;
use crate::metrics::{cross_entropy, predicted_class};
use crate::{Batch, Confusion, Evaluation, LearnError, Learner, Subset, TrainReport, Training};

/// A classifier made of burn modules. Its parameters are flattened in the order in which burn visits them.
pub trait BurnModel: Module {
    /// Numbers in an example.
    fn inputs(&self) -> usize;

    /// Classes told apart.
    fn classes(&self) -> usize;

    /// Logits `[examples, classes]` of examples `[examples, inputs]`, computed in the same way while training and
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

    fn step(&self, model: M, device: &Device, batch: (&Subset, &[usize]), rate: f64) -> (M, f64) {
        let (data, positions) = batch;
        let logits = model.logits(features(data, positions, device));
        let targets = one_hot(data, positions, self.model.classes(), device);
        let loss = -(log_softmax(logits.clone(), 1) * targets).sum() / positions.len() as f64;
        let measured = summed_loss(&values(logits.inner()), data, positions);
        let model = model.map(&mut Descent { gradients: loss.backward(), rate });
        (model, measured)
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
        order_key: [u8; 32],
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        let device = self.device.clone().autodiff();
        let mut model = self.with(global, &device);
        let mut order = ChaCha8Rng::from_seed(order_key);
        let mut positions: Vec<usize> = (0..data.len()).collect();
        let size = training.batch().of(data.len());
        let shuffled = matches!(training.batch(), Batch::Size(_)) && size < data.len();
        let (mut steps, mut loss) = (0, 0.0);
        for epoch in 1..=training.local_epochs() {
            if shuffled {
                positions.shuffle(&mut order);
            }
            for positions in positions.chunks(size) {
                let before;
                (model, before) = self.step(model, &device, (data, positions), training.learning_rate());
                loss += if epoch == training.local_epochs() { before } else { 0.0 };
                steps += 1;
            }
        }
        let mut update = flatten(&model);
        update.iter_mut().zip(global).for_each(|(new, old)| *new -= old);
        Ok(TrainReport {
            examples: data.len(),
            steps,
            loss: loss / data.len() as f64,
            finite: update.iter().all(|value| value.is_finite()),
            update,
        })
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        let model = self.with(parameters, &self.device);
        let classes = self.model.classes();
        let mut confusion = Confusion::new(classes);
        let mut loss = 0.0;
        let positions: Vec<usize> = (0..data.len()).collect();
        for positions in positions.chunks(EVALUATED_AT_ONCE) {
            let logits = values(model.logits(features(data, positions, &self.device)));
            loss += summed_loss(&logits, data, positions);
            for (row, &at) in logits.chunks_exact(classes).zip(positions) {
                confusion.record(data.label(at), predicted_class(row));
            }
        }
        Ok(Evaluation::new(confusion, loss))
    }
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

/// A step of gradient descent. What has no gradient stays.
struct Descent {
    gradients: Gradients,
    rate: f64,
}

impl ModuleMapper for Descent {
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

fn summed_loss(logits: &[f32], data: &Subset, positions: &[usize]) -> f64 {
    let rows = logits.chunks_exact(logits.len() / positions.len());
    rows.zip(positions).map(|(row, &at)| cross_entropy(row, data.label(at))).sum()
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("a tensor of f32 on this device stays f32")
}

/// Bounds the memory of an evaluation whatever the size of the data.
const EVALUATED_AT_ONCE: usize = 256;
