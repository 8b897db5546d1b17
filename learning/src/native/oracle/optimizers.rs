//! Optimizers, the proximal term, clipping and corrections, against burn's optimizers and its automatic differentiation.

use burn::grad_clipping::GradientClippingConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::log_softmax;

use super::*;
use crate::Optimizer;

const RATE: f64 = 0.03;
const EPOCHS: u32 = 3;
const BATCH: usize = 4;

/// Trains in the order of the data by burn's optimizer, the proximal term and the correction being terms of the loss: the
/// gradient of c · w is c.
fn reference(
    architecture: &Architecture,
    global: &[f32],
    data: &Subset,
    mut optimizer: ModuleOptimizer,
    proximal: f64,
    correction: Option<&[f32]>,
) -> Vec<f32> {
    let device = Device::flex().autodiff();
    let vector = |values: &[f32]| Tensor::<1>::from_data(TensorData::from(values), &device);
    let flat = Param::from_tensor(vector(global).require_grad());
    let mut model = Oracle { flat, architecture: architecture.clone(), dropout: None };
    let positions: Vec<usize> = (0..data.len()).collect();
    for positions in (0..EPOCHS).flat_map(|_| positions.chunks(BATCH)) {
        let shape = [positions.len(), architecture.inputs()];
        let x = Tensor::from_data(TensorData::new(data.gather(positions), shape), &device);
        let mut targets = vec![0.0_f32; positions.len() * architecture.classes()];
        for (row, &at) in targets.chunks_exact_mut(architecture.classes()).zip(positions) {
            row[data.label(at)] = 1.0 / positions.len() as f32;
        }
        let shape = [positions.len(), architecture.classes()];
        let targets = Tensor::<2>::from_data(TensorData::new(targets, shape), &device);
        let loss = -(log_softmax(model.logits(x), 1) * targets).sum();
        let away = model.flat.val() - vector(global);
        let mut loss = loss + away.square().sum() * (proximal / 2.0);
        if let Some(correction) = correction {
            loss = loss + (model.flat.val() * vector(correction)).sum();
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(RATE, model, gradients);
    }
    let weights: Vec<f32> = model.flat.val().into_data().try_into_vec().unwrap();
    weights.iter().zip(global).map(|(weight, global)| weight - global).collect()
}

/// Both learners must change the weights as `optimizer` of burn does.
fn compare(training: Training, optimizer: impl Fn() -> ModuleOptimizer, correction: bool) {
    let vector = Shape::Vector(11);
    let bag = Layer::EmbeddingBag { vocabulary: 20, width: 6 };
    for architecture in [
        Architecture::Softmax { inputs: 11, classes: 5 },
        model(vector, &[dense(9), TANH, Layer::LayerNorm]),
        model(vector, &[bag, dense(6), SIGMOID]),
        model(IMAGE, &[conv(4, 3), TANH, pool(2), Layer::Flatten, dense(7), TANH]),
    ] {
        let (global, data) = (parameters(&architecture), examples(&architecture, 7));
        let correction: Option<Vec<f32>> =
            correction.then(|| global.iter().rev().map(|value| value * 0.3).collect());
        let correction = correction.as_deref();
        let theirs = reference(&architecture, &global, &data, optimizer(), training.proximal(), correction);
        let turn = Turn { correction, ..Turn::new([0; 32]) };
        let native = NativeLearner::new(architecture.clone()).unwrap().train(&global, &data, &training, turn);
        let burn = Oracle::learner(&architecture, None).train(&global, &data, &training, turn);
        let largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 5e-4, "{architecture:?}: nothing has changed");
        for ours in [native.unwrap(), burn.unwrap()] {
            assert!(ours.is_finite() && ours.steps == 6 && ours.loss > 0.0);
            for (at, (ours, theirs)) in ours.update.iter().zip(&theirs).enumerate() {
                let error = (ours - theirs).abs() / largest;
                assert!(error < 1e-3, "{training:?}, {architecture:?} [{at}]: {ours} {theirs}");
            }
        }
    }
}

fn training() -> Training {
    Training::new(RATE, EPOCHS, Batch::InOrder(BATCH)).unwrap()
}

#[test]
fn momentum_and_weight_decay_are_those_of_burn() {
    for (momentum, nesterov, weight_decay) in
        [(0.9, false, 0.0), (0.7, true, 0.0), (0.9, true, 0.1), (0.0, false, 0.1)]
    {
        let ours = Optimizer::Sgd { momentum, nesterov, weight_decay };
        let theirs = || {
            let dampened = MomentumConfig { momentum, dampening: 0.0, nesterov };
            SgdConfig::new()
                .with_momentum((momentum > 0.0).then_some(dampened))
                .with_weight_decay((weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32)))
                .init()
        };
        compare(training().with_optimizer(ours).unwrap(), theirs, false);
    }
}

#[test]
fn adam_is_that_of_burn_with_either_decay() {
    // With a small epsilon a first step is ±η whatever the gradient, and the sign of rounding would decide where it is zero.
    for (beta1, beta2, epsilon, weight_decay) in [(0.9, 0.999, 1e-3, 0.0), (0.5, 0.9, 1e-2, 0.1)] {
        let ours = Optimizer::Adam { beta1, beta2, epsilon, weight_decay };
        let theirs = || {
            let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
            let config = AdamConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
            config.with_epsilon(epsilon as f32).with_weight_decay(decay).init()
        };
        compare(training().with_optimizer(ours).unwrap(), theirs, false);
        let ours = Optimizer::AdamW { beta1, beta2, epsilon, weight_decay };
        let theirs = || {
            let config = AdamWConfig::new().with_beta_1(beta1 as f32).with_beta_2(beta2 as f32);
            config.with_epsilon(epsilon as f32).with_weight_decay(weight_decay as f32).init()
        };
        compare(training().with_optimizer(ours).unwrap(), theirs, false);
    }
}

#[test]
fn the_proximal_term_and_the_correction_are_terms_of_the_loss() {
    let plain = || SgdConfig::new().init();
    compare(training(), plain, true);
    compare(training().with_proximal(2.0).unwrap(), plain, false);
    compare(training().with_proximal(2.0).unwrap(), plain, true);
}

#[test]
fn a_long_gradient_is_clipped_with_its_proximal_term() {
    for limit in [0.2, 0.5, 1e6] {
        let theirs = || {
            let clipping = GradientClippingConfig::Norm(limit as f32);
            SgdConfig::new().with_gradient_clipping(Some(clipping)).init()
        };
        compare(training().with_clip_norm(limit).unwrap().with_proximal(0.5).unwrap(), theirs, false);
    }
    let architecture = Architecture::Softmax { inputs: 11, classes: 5 };
    let (global, data) = (parameters(&architecture), examples(&architecture, 7));
    let change = |training: Training| {
        let mut learner = NativeLearner::new(architecture.clone()).unwrap();
        let update = learner.train(&global, &data, &training, Turn::new([0; 32])).unwrap().update;
        update.iter().map(|value| value * value).sum::<f32>().sqrt()
    };
    let clipped = change(training().with_clip_norm(0.2).unwrap());
    assert!(clipped <= 6.0 * 0.03 * 0.2 * 1.0001 && clipped < 0.9 * change(training()), "{clipped}");
}

#[test]
fn a_turn_starts_fresh() {
    let architecture = model(Shape::Vector(11), &[dense(9), RELU]);
    let (global, data) = (parameters(&architecture), examples(&architecture, 7));
    let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let mut learner = NativeLearner::new(architecture).unwrap();
    for optimizer in [Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }, adam] {
        let training = training().with_optimizer(optimizer).unwrap();
        let first = learner.train(&global, &data, &training, Turn::new([1; 32])).unwrap();
        assert_eq!(learner.train(&global, &data, &training, Turn::new([1; 32])).unwrap(), first);
    }
}

#[test]
fn a_correction_of_another_model_is_refused() {
    let architecture = Architecture::Softmax { inputs: 11, classes: 5 };
    let (global, data) = (parameters(&architecture), examples(&architecture, 7));
    let turn = Turn { correction: Some(&[0.0; 59]), ..Turn::new([0; 32]) };
    let error = Err(crate::LearnError::Correction { expected: 60, actual: 59 });
    let mut native = NativeLearner::new(architecture.clone()).unwrap();
    assert_eq!(native.train(&global, &data, &training(), turn), error);
    assert_eq!(Oracle::learner(&architecture, None).train(&global, &data, &training(), turn), error);
}
