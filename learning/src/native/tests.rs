//! What every learner must do, with the data that comes along.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, arr1, arr2};

use super::*;
use crate::{Activation, Alpha, Dataset, Optimizer, Scheme, digits, partition};

const SOFTMAX: Architecture = Architecture::Softmax { inputs: digits::PIXELS, classes: digits::CLASSES };

fn mlp(activation: Activation) -> Architecture {
    Architecture::Mlp { inputs: digits::PIXELS, hidden: vec![32], classes: digits::CLASSES, activation }
}

fn learner(architecture: &Architecture) -> NativeLearner {
    NativeLearner::new(architecture.clone()).unwrap()
}

fn training(learning_rate: f64, local_epochs: u32, batch: Batch) -> Training {
    Training::new(learning_rate, local_epochs, batch).unwrap()
}

fn skewed_clients(clients: usize, key: u8) -> Vec<Subset> {
    let alpha = Alpha::new(0.3).unwrap();
    let train = digits::load().train;
    let partition = partition(&train, clients, Scheme::Dirichlet { alpha }, [key; 32]);
    partition.unwrap().clients
}

/// Two examples of one feature, x = 1 of class 0 and x = -1 of class 1.
fn two_examples() -> Subset {
    let dataset = Dataset::new(arr2(&[[1.0], [-1.0]]), arr1(&[0, 1]), 2).unwrap();
    Subset::all(Arc::new(dataset))
}

const TWO: Architecture = Architecture::Softmax { inputs: 1, classes: 2 };

#[test]
fn one_step_of_softmax_regression_is_what_the_formula_gives() {
    let full = training(0.5, 1, Batch::Full);
    let report = learner(&TWO).train(&[0.0; 4], &two_examples(), &full, Turn::new([0; 32])).unwrap();
    // All probabilities are 1/2, so d = [[-.5, .5], [.5, -.5]] / 2 and x^T d = [-.5, .5].
    assert_eq!(report.update, [0.25, -0.25, 0.0, 0.0]);
    assert_eq!((report.examples, report.steps, report.is_finite()), (2, 1, true));
    assert!((report.loss - 2.0_f64.ln()).abs() < 1e-12);
}

#[test]
fn an_evaluation_counts_right_and_wrong() {
    let evaluation = learner(&TWO).evaluate(&[0.0, 0.0, 1.0, 0.0], &two_examples()).unwrap();
    assert_eq!((evaluation.examples, evaluation.accuracy()), (2, Some(0.5)));
    assert_eq!(evaluation.classes().unwrap().confusion.counts(), arr2(&[[1, 0], [1, 0]]));
    let (right, wrong) = ((1.0 + (-1.0_f64).exp()).ln(), (1.0 + 1.0_f64.exp()).ln());
    assert!((evaluation.loss - (right + wrong) / 2.0).abs() < 1e-12);
}

#[test]
fn an_evaluation_of_many_examples_is_the_mean_over_its_parts() {
    let train = digits::load().train;
    assert!(train.len() > EVALUATED_AT_ONCE);
    let parameters: Vec<f32> = (0..650).map(|i| (i % 13) as f32 / 13.0).collect();
    let evaluate = |data: &Subset| learner(&SOFTMAX).evaluate(&parameters, data).unwrap();
    let whole = evaluate(&train);
    let (mut loss, mut confusion) = (0.0, Array2::zeros((10, 10)));
    for rows in train.rows().chunks(100) {
        let part = Subset::new(train.dataset().clone(), rows.to_vec()).unwrap();
        let part = evaluate(&part);
        loss += part.loss * part.examples as f64 / train.len() as f64;
        confusion += part.classes().unwrap().confusion.counts();
    }
    assert!((whole.loss - loss).abs() < 1e-6, "{} {loss}", whole.loss);
    assert_eq!(whole.classes().unwrap().confusion.counts(), confusion);
    assert_eq!(whole.classes().unwrap().confusion.accuracy(), whole.accuracy());
}

#[test]
fn the_same_clients_trained_on_one_and_on_four_threads_give_the_same_bits() {
    let clients = skewed_clients(40, 1);
    for (architecture, batch) in [(SOFTMAX, Batch::Full), (mlp(Activation::Relu), Batch::Size(8))] {
        let global = architecture.initial_parameters([7; 32]).unwrap();
        let training = training(0.5, 2, batch);
        let on_threads = |threads: usize| -> Vec<Vec<u32>> {
            let next = AtomicUsize::new(0);
            let work = || {
                let mut learner = learner(&architecture);
                let mut updates = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(client) = clients.get(index) else {
                        return updates;
                    };
                    let key = [index as u8; 32];
                    let report = learner.train(&global, client, &training, Turn::new(key)).unwrap();
                    let bits = report.update.iter().map(|value| value.to_bits());
                    updates.push((index, bits.collect::<Vec<u32>>()));
                }
            };
            let mut updates: Vec<_> = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
            });
            updates.sort();
            updates.into_iter().map(|(_, update)| update).collect()
        };
        let alone = on_threads(1);
        assert_eq!(alone.len(), 40);
        assert_ne!(alone[0], alone[1]);
        assert_eq!(alone, on_threads(4));
    }
}

#[test]
fn minibatches_cover_every_example_once_an_epoch_in_an_order_set_by_the_key() {
    let client = &skewed_clients(5, 1)[0];
    let global = vec![0.0; SOFTMAX.parameter_count()];
    let train = |batch, key| {
        let training = training(0.5, 3, batch);
        learner(&SOFTMAX).train(&global, client, &training, Turn::new([key; 32])).unwrap()
    };
    let report = train(Batch::Size(7), 1);
    assert_eq!(report.steps, 3 * client.len().div_ceil(7) as u64);
    assert_eq!(report, train(Batch::Size(7), 1));
    assert_ne!(report.update, train(Batch::Size(7), 2).update);
    assert_eq!(train(Batch::Size(client.len()), 1), train(Batch::Full, 2));
}

#[test]
fn what_does_not_fit_the_model_is_an_error() {
    let mut learner = learner(&SOFTMAX);
    let full = training(1.0, 1, Batch::Full);
    let client = &skewed_clients(5, 1)[0];
    let none = Subset::new(client.dataset().clone(), vec![]).unwrap();
    let wide = Dataset::new(Array2::zeros((1, 65)), arr1(&[0]), 10).unwrap();
    let few = Dataset::new(Array2::zeros((1, 64)), arr1(&[0]), 9).unwrap();
    let (wide, few) = (Subset::all(Arc::new(wide)), Subset::all(Arc::new(few)));
    let cases = [
        (649, client, LearnError::ParameterCount { expected: 650, actual: 649 }),
        (0, client, LearnError::ParameterCount { expected: 650, actual: 0 }),
        (651, client, LearnError::ParameterCount { expected: 650, actual: 651 }),
        (650, &wide, LearnError::Inputs { expected: 64, actual: 65 }),
        (650, &few, LearnError::Classes { expected: 10, actual: 9 }),
        (650, &none, LearnError::NoExamples),
    ];
    for (count, data, error) in cases {
        let parameters = vec![0.0; count];
        let trained = learner.train(&parameters, data, &full, Turn::new([0; 32]));
        assert_eq!(trained.unwrap_err(), error);
        assert_eq!(learner.evaluate(&parameters, data).unwrap_err(), error);
    }
}

#[test]
fn an_update_that_is_not_finite_is_returned() {
    let client = &skewed_clients(5, 1)[0];
    let mut global = vec![0.0; SOFTMAX.parameter_count()];
    global[3] = f32::NAN;
    let full = training(1.0, 2, Batch::Full);
    let report = learner(&SOFTMAX).train(&global, client, &full, Turn::new([0; 32])).unwrap();
    assert!(!report.is_finite() && !report.loss.is_finite());
    assert_eq!(report.update.len(), global.len());
    let evaluation = learner(&SOFTMAX).evaluate(&global, client).unwrap();
    assert!(!evaluation.loss.is_finite());
}

#[test]
fn every_architecture_learns_the_digits_alone() {
    let split = digits::load();
    let relu = (mlp(Activation::Relu), 0.5);
    let tanh = (mlp(Activation::Tanh), 0.5);
    let sigmoid = (mlp(Activation::Sigmoid), 2.0);
    for (architecture, rate) in [(SOFTMAX, 0.5), relu, tanh, sigmoid] {
        let mut learner = learner(&architecture);
        let initial = architecture.initial_parameters([1; 32]).unwrap();
        let training = training(rate, 20, Batch::Size(32));
        let report = learner.train(&initial, &split.train, &training, Turn::new([2; 32])).unwrap();
        let trained: Vec<f32> =
            initial.iter().zip(&report.update).map(|(old, change)| old + change).collect();
        let accuracy = learner.evaluate(&trained, &split.test).unwrap().accuracy().unwrap();
        assert!(accuracy > 0.93, "{architecture:?}: {accuracy}");
    }
}

/// Federated averaging (McMahan et al., Communication-Efficient Learning of Deep Networks from
/// Decentralized Data, 2017) with uniform weights: 100 clients with Dirichlet(0.3) label skew,
/// all of them in each of 60 rounds.
#[test]
fn averaged_softmax_regression_reads_the_held_out_digits() {
    let test = digits::load().test;
    let full = training(2.0, 5, Batch::Full);
    let mut learner = learner(&SOFTMAX);
    for seed in 1..=5 {
        let clients = skewed_clients(100, seed);
        let mut global = SOFTMAX.initial_parameters([seed; 32]).unwrap();
        for _ in 0..60 {
            let mut sum = vec![0.0_f64; global.len()];
            for client in &clients {
                let report = learner.train(&global, client, &full, Turn::new([0; 32])).unwrap();
                let pairs = sum.iter_mut().zip(&report.update);
                pairs.for_each(|(sum, &change)| *sum += f64::from(change));
            }
            let pairs = global.iter_mut().zip(&sum);
            pairs.for_each(|(value, sum)| *value += (sum / clients.len() as f64) as f32);
        }
        let accuracy = learner.evaluate(&global, &test).unwrap().accuracy().unwrap();
        println!("seed {seed}: accuracy {accuracy:.4} on {} digits", test.len());
        assert!(accuracy >= 0.93, "seed {seed}: {accuracy}");
    }
}

#[test]
fn a_batch_in_parts_is_the_whole_batch() {
    let client = &skewed_clients(10, 1)[0];
    for (batch, optimizer) in [
        (Batch::Full, Optimizer::PLAIN),
        (Batch::Size(20), Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.01 }),
    ] {
        let whole = training(0.3, 3, batch).with_optimizer(optimizer).unwrap();
        let initial = mlp(Activation::Tanh).initial_parameters([4; 32]).unwrap();
        let train = |training: Training| {
            learner(&mlp(Activation::Tanh)).train(&initial, client, &training, Turn::new([2; 32])).unwrap()
        };
        let expected = train(whole);
        for examples in [1, 7, 1000] {
            let ours = train(whole.with_micro_batch(examples).unwrap());
            assert_eq!((ours.steps, ours.examples), (expected.steps, expected.examples));
            assert!((ours.loss - expected.loss).abs() < 1e-6);
            let largest = expected.update.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (ours, expected) in ours.update.iter().zip(&expected.update) {
                assert!((ours - expected).abs() < 1e-5 * largest, "{ours} {expected}");
            }
        }
    }
    assert!(training(0.3, 1, Batch::Full).with_micro_batch(0).is_err());
}
