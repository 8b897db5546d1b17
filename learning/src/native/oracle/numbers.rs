//! Losses of numbers, against burn's automatic differentiation.

use super::examples::compare_clipped;
use super::*;
use crate::{Loss, Target};

fn models() -> [Architecture; 4] {
    let (layers, classes) = (|layers: &[Layer]| layers.to_vec(), 1);
    let image = Shape::Image { height: 9, width: 8, channels: 3 };
    [
        Architecture::Softmax { inputs: 11, classes },
        Architecture::Mlp { inputs: 11, hidden: vec![9, 17], classes, activation: Activation::Tanh },
        Architecture::Layers {
            input: Shape::Vector(11),
            layers: layers(&[dense(7), Layer::LayerNorm, RELU]),
            classes,
        },
        Architecture::Layers { input: image, layers: layers(&[conv(4, 3), RELU, pool(2)]), classes },
    ]
}

/// Numbers around 40 to predict, in tens.
fn of_numbers(architecture: &Architecture, count: usize, loss: Loss) -> Subset {
    let features = examples(architecture, count).dataset().features().into_owned();
    let values = Array1::from_shape_fn(count, |row| 40.0 + ((row * 37 % 23) as f32 - 9.3) * 1.7);
    let target = Target { column: "price".into(), shift: 40.0, scale: 10.0, bounds: None, loss };
    Subset::all(Arc::new(Dataset::of_numbers(features, values, target).unwrap()))
}

const LOSSES: [Loss; 3] = [Loss::Squared, Loss::Absolute, Loss::Huber { delta: 0.6 }];

#[test]
fn steps_along_losses_of_numbers_are_the_ones_that_automatic_differentiation_takes() {
    for loss in LOSSES {
        for architecture in models() {
            let data = of_numbers(&architecture, 7, loss);
            for (rate, epochs, batch) in [(0.1, 1, Batch::Full), (0.01, 2, Batch::Size(3))] {
                compare_on(&data, &architecture, Training::new(rate, epochs, batch).unwrap(), false);
            }
        }
    }
}

#[test]
fn gradients_of_single_numbers_are_clipped() {
    for architecture in models() {
        compare_clipped(&of_numbers(&architecture, 7, Loss::Squared), &architecture);
    }
}

#[test]
fn both_learners_measure_the_same_errors() {
    for loss in LOSSES {
        for architecture in models() {
            let (data, parameters) = (of_numbers(&architecture, 300, loss), parameters(&architecture));
            let mut native = NativeLearner::new(architecture.clone()).unwrap();
            let ours = native.evaluate(&parameters, &data).unwrap();
            let theirs = Oracle::learner(&architecture, None).evaluate(&parameters, &data).unwrap();
            assert_eq!((ours.examples, ours.accuracy(), ours.perplexity()), (300, None, None));
            let (errors, expected) = (ours.errors().unwrap(), theirs.errors().unwrap());
            for (ours, theirs) in [
                (ours.loss, theirs.loss),
                (errors.mean_absolute, expected.mean_absolute),
                (errors.mean_squared, expected.mean_squared),
                (errors.r_squared.unwrap(), expected.r_squared.unwrap()),
            ] {
                assert!((ours - theirs).abs() < 1e-5 * theirs.abs().max(1.0), "{ours} {theirs}");
            }
        }
    }
}

#[test]
fn a_model_of_numbers_and_data_of_classes_do_not_go_together() {
    let architecture = Architecture::Softmax { inputs: 2, classes: 1 };
    let mut learner = NativeLearner::new(architecture).unwrap();
    let data = Dataset::new(Array2::zeros((2, 2)), Array1::zeros(2), 1).unwrap();
    let error = learner.evaluate(&[0.0; 3], &Subset::all(Arc::new(data))).unwrap_err();
    assert_eq!(error.to_string(), "the model predicts a number, the data have none to predict");
}
