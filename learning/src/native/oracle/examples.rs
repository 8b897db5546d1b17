//! Sums of clipped gradients against a loop over examples by automatic differentiation.

use super::*;
use crate::ExamplePrivacy;

/// Draws what it is told to and keeps the sum as it is.
struct Clear {
    norm: f64,
    positions: Vec<usize>,
    sum: Vec<f32>,
}

impl ExamplePrivacy for Clear {
    fn clip_norm(&self) -> f64 {
        self.norm
    }

    fn steps(&self) -> u64 {
        1
    }

    fn draw(&mut self, _: usize, positions: &mut Vec<usize>) {
        positions.extend(&self.positions);
    }

    fn release(&mut self, sum: &mut [f32]) {
        self.sum = sum.to_vec();
    }
}

fn plain() -> Training {
    Training::new(1.0, 1, Batch::Full).unwrap()
}

/// The sum of the clipped gradients of the examples at `positions`.
fn clipped(
    learner: &mut dyn Learner,
    global: &[f32],
    data: &Subset,
    positions: Vec<usize>,
    norm: f64,
) -> Vec<f32> {
    let mut privacy = Clear { norm, positions, sum: Vec::new() };
    let report = learner.train_privately(global, data, &plain(), Turn::new([9; 32]), &mut privacy).unwrap();
    assert_eq!((report.steps, report.examples), (1, data.len()));
    privacy.sum
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// The gradient of each example by itself.
fn gradients(architecture: &Architecture, global: &[f32], data: &Subset) -> Vec<Vec<f32>> {
    let mut oracle = Oracle::learner(architecture, None);
    let one = |at| Subset::new(data.dataset().clone(), vec![data.rows()[at]]).unwrap();
    let mut gradient = |at| oracle.train(global, &one(at), &plain(), Turn::new([0; 32])).unwrap().update;
    (0..data.len()).map(|at| gradient(at).iter().map(|value| -value).collect()).collect()
}

fn assert_close(architecture: &Architecture, ours: &[f32], theirs: &[f64]) {
    let largest = theirs.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert!(largest > 1e-6, "{architecture:?}: nothing to compare");
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let error = (f64::from(*ours) - theirs).abs() / largest;
        assert!(error < 2e-4, "{architecture:?} [{at}]: {ours} {theirs}");
    }
}

#[test]
fn the_sum_of_clipped_gradients_is_that_of_a_loop_over_examples() {
    combinations().iter().for_each(|architecture| compare_clipped(&examples(architecture, 7), architecture));
}

/// Of seven examples.
pub(super) fn compare_clipped(data: &Subset, architecture: &Architecture) {
    let global = parameters(architecture);
    let gradients = gradients(architecture, &global, data);
    let mut norms: Vec<f64> = gradients.iter().map(|gradient| length(gradient)).collect();
    norms.sort_by(f64::total_cmp);
    // Between two norms, so that some gradients are clipped and some are not.
    let norm = (norms[3] + norms[4]) / 2.0;
    assert!(norms[3] < norm && norm < norms[4], "{architecture:?}: {norms:?}");
    let mut learner = NativeLearner::new(architecture.clone()).unwrap();
    for limit in [norm, norms[0] / 10.0, norms[6] * 10.0] {
        let mut theirs = vec![0.0; global.len()];
        for gradient in &gradients {
            let factor = (limit / length(gradient)).min(1.0);
            theirs.iter_mut().zip(gradient).for_each(|(sum, &value)| *sum += factor * f64::from(value));
        }
        let ours = clipped(&mut learner, &global, data, (0..7).collect(), limit);
        assert_close(architecture, &ours, &theirs);
    }
    // With a norm beyond all gradients, what is left is the gradient of the batch.
    let ours = clipped(&mut learner, &global, data, (0..7).collect(), 1e9);
    let step = learner.train(&global, data, &plain(), Turn::new([9; 32])).unwrap().update;
    let step: Vec<f64> = step.iter().map(|value| -7.0 * f64::from(*value)).collect();
    assert_close(architecture, &ours, &step);
}

#[test]
fn one_example_moves_the_sum_by_no_more_than_the_norm() {
    let norm = 0.5;
    for architecture in combinations() {
        let global = parameters(&architecture);
        let mut learner = NativeLearner::new(architecture.clone()).unwrap();
        let calm = examples(&architecture, 7);
        let words = matches!(&architecture, Architecture::Layers { layers, .. }
            if matches!(layers.first(), Some(Layer::EmbeddingBag { .. } | Layer::Embedding { .. })));
        let mut bound = 0;
        for extreme in [1e3_f32, 1e18, 3e38] {
            let mut features = calm.dataset().features().to_owned();
            if !words {
                features.row_mut(3).mapv_inplace(|value| value.signum() * extreme);
            }
            let labels = Array1::from_shape_fn(7, |row| calm.label(row) as u32);
            let data = Dataset::new(features, labels, architecture.classes()).unwrap();
            let data = Subset::all(Arc::new(data));
            let without = clipped(&mut learner, &global, &data, vec![0, 1, 2, 4, 5, 6], norm);
            let with = clipped(&mut learner, &global, &data, (0..7).collect(), norm);
            let moved: Vec<f32> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
            let moved = length(&moved);
            assert!(moved <= norm * 1.0001, "{architecture:?} at {extreme:e}: {moved}");
            bound += usize::from(moved > norm * 0.9);
            // Alone, too: then its sum is its own.
            let alone = length(&clipped(&mut learner, &global, &data, vec![3], norm));
            assert!(alone <= norm * 1.000_001, "{architecture:?} at {extreme:e}: {alone}");
        }
        // The bound is not idle where examples can be extreme: normalization makes them calm, and sigmoids flat.
        if matches!(architecture, Architecture::Softmax { .. }) {
            assert!(bound > 0, "{architecture:?}");
        }
    }
}

#[test]
fn large_batches_are_summed_up_in_parts_and_no_example_at_all_is_zero() {
    let architecture = model(Shape::Vector(11), &[dense(9), RELU]);
    let (global, data) = (parameters(&architecture), examples(&architecture, 300));
    let mut learner = NativeLearner::new(architecture.clone()).unwrap();
    let whole = clipped(&mut learner, &global, &data, (0..300).collect(), 0.3);
    let mut sum = vec![0.0_f64; global.len()];
    for at in 0..300 {
        let one = clipped(&mut learner, &global, &data, vec![at], 0.3);
        sum.iter_mut().zip(&one).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    assert_close(&architecture, &whole, &sum);
    assert!(clipped(&mut learner, &global, &data, vec![], 0.3).iter().all(|&value| value == 0.0));
}

#[test]
fn a_burn_model_clips_single_examples_as_well() {
    let architecture = model(Shape::Vector(11), &[dense(9), RELU]);
    let (global, data) = (parameters(&architecture), examples(&architecture, 7));
    let mut native = NativeLearner::new(architecture.clone()).unwrap();
    let mut burn = Oracle::learner(&architecture, None);
    for norm in [0.1, 1.0, 1e9] {
        let ours = clipped(&mut burn, &global, &data, vec![1, 2, 5], norm);
        let theirs = clipped(&mut native, &global, &data, vec![1, 2, 5], norm);
        let theirs: Vec<f64> = theirs.iter().map(|&value| f64::from(value)).collect();
        assert_close(&architecture, &ours, &theirs);
    }
}
