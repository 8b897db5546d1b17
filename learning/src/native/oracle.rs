//! Every layer, alone and combined, against the automatic differentiation of burn.

mod examples;
mod numbers;
mod optimizers;
mod transformers;

use std::ops::Range;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, sigmoid, tanh};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array1, Array2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::pointwise::Mask;
use crate::architecture::Stacked;
use crate::{
    Activation, Architecture, Batch, BurnLearner, BurnModel, Dataset, Layer, Learner, NativeLearner, Shape,
    Subset, Training, Turn, residual,
};

/// An architecture in burn's operations, written from the definitions.
#[derive(Module, Debug)]
struct Oracle {
    flat: Param<Tensor<1>>,
    #[module(skip)]
    architecture: Architecture,
    /// Of the only step, where the architecture drops out.
    #[module(skip)]
    dropout: Option<u64>,
}

impl Oracle {
    fn learner(architecture: &Architecture, dropout: Option<u64>) -> BurnLearner<Self> {
        let device = Device::flex();
        let flat = Tensor::zeros([architecture.parameter_count()], &device);
        let model = Oracle { flat: Param::from_tensor(flat), architecture: architecture.clone(), dropout };
        BurnLearner::new(model, device)
    }

    fn part<const D: usize>(&self, at: &mut usize, shape: [usize; D]) -> Tensor<D> {
        let range: Range<usize> = *at..*at + shape.iter().product::<usize>();
        *at = range.end;
        self.flat.val().slice([range]).reshape(shape)
    }

    fn mask(&self, rate: f32, index: usize, like: &Tensor<2>) -> Option<Tensor<2>> {
        let seed = self.dropout?;
        let [examples, width] = like.dims();
        let mut ones = vec![1.0_f32; examples * width];
        let seed = (seed ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Mask::new(rate, seed).apply(0, &mut ones);
        Some(Tensor::from_data(TensorData::new(ones, [examples, width]), &like.device()))
    }

    fn layer(&self, layer: Layer, input: Shape, index: usize, at: &mut usize, x: Tensor<2>) -> Tensor<2> {
        let [examples, width] = x.dims();
        match (layer, input) {
            (Layer::Dense { outputs }, Shape::Each { length, width }) => {
                let weight = self.part(at, [width, outputs]);
                let rows = x.reshape([examples * length, width]).matmul(weight) + self.part(at, [1, outputs]);
                rows.reshape([examples, length * outputs])
            }
            (Layer::LayerNorm, Shape::Sequence { length, width } | Shape::Each { length, width }) => {
                let rows = x.reshape([examples * length, width]);
                self.normal(at, rows).reshape([examples, length * width])
            }
            (Layer::Positions, _) => x + self.part(at, [1, width]),
            (Layer::NextWord, _) => x,
            (Layer::Dense { outputs }, _) => {
                let weight = self.part(at, [width, outputs]);
                x.matmul(weight) + self.part(at, [1, outputs])
            }
            (
                Layer::Conv2d { channels, kernel, stride, padding },
                Shape::Image { height, width, channels: before },
            ) => {
                let x = x.reshape([examples, height, width, before]).permute([0, 3, 1, 2]);
                let weight = self.part(at, [kernel, kernel, before, channels]).permute([3, 2, 0, 1]);
                let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
                let y = conv2d(x, weight, Some(self.part(at, [channels])), options);
                y.permute([0, 2, 3, 1]).flatten(1, 3)
            }
            (Layer::MaxPool2d { size }, Shape::Image { height, width, channels }) => {
                let (rows, columns) = (height / size, width / size);
                x.reshape([examples, height, width, channels])
                    .slice([0..examples, 0..rows * size, 0..columns * size, 0..channels])
                    .reshape([examples, rows, size, columns, size, channels])
                    .permute([0, 1, 3, 5, 2, 4])
                    .reshape([examples, rows * columns * channels, size * size])
                    .max_dim(2)
                    .flatten(1, 2)
            }
            (Layer::AvgPool2d { size }, Shape::Image { height, width, channels }) => {
                let (rows, columns) = (height / size, width / size);
                x.reshape([examples, height, width, channels])
                    .slice([0..examples, 0..rows * size, 0..columns * size, 0..channels])
                    .reshape([examples, rows, size, columns, size, channels])
                    .permute([0, 1, 3, 5, 2, 4])
                    .reshape([examples, rows * columns * channels, size * size])
                    .mean_dim(2)
                    .flatten(1, 2)
            }
            (Layer::GlobalAvgPool, Shape::Image { height, width, channels }) => {
                x.reshape([examples, height * width, channels]).mean_dim(1).flatten(1, 2)
            }
            (Layer::GroupNorm { groups }, Shape::Image { height, width, channels }) => {
                let (pixels, in_group) = (height * width, channels / groups);
                let x = x.reshape([examples, pixels, groups, in_group]).swap_dims(1, 2);
                let x: Tensor<3> = x.reshape([examples, groups, pixels * in_group]);
                let centred = x.clone() - x.mean_dim(2);
                let variance = centred.clone().square().mean_dim(2);
                let normal =
                    (centred / (variance + 1e-5).sqrt()).reshape([examples, groups, pixels, in_group]);
                let normal = normal.swap_dims(1, 2).reshape([examples, pixels, channels]);
                let (scale, shift) = (self.part(at, [1, 1, channels]), self.part(at, [1, 1, channels]));
                (normal * scale + shift).flatten(1, 2)
            }
            (Layer::Residual { .. }, _) => {
                let stacked = Stacked { name: String::new(), layer, input, output: input };
                let ways = residual::ways(&stacked).unwrap();
                let mut along = |parts: &[Stacked]| {
                    let next = |x, part: &Stacked| self.layer(part.layer, part.input, 0, at, x);
                    parts.iter().fold(x.clone(), next)
                };
                let beside = along(&ways.shortcut);
                relu(along(&ways.main) + beside)
            }
            (Layer::CausalConv1d { channels, kernel, dilation }, Shape::Sequence { length, width }) => {
                let weights: Vec<_> = (0..kernel).map(|_| self.part(at, [width, channels])).collect();
                let bias = self.part(at, [1, 1, channels]);
                let x = x.reshape([examples, length, width]);
                let zeros = Tensor::zeros([examples, length, width], &x.device());
                let behind_zeros = Tensor::cat(vec![zeros, x], 1);
                let mut sum = Tensor::zeros([examples, length, channels], &bias.device()) + bias;
                for (place, weight) in weights.into_iter().enumerate() {
                    let first = length - (kernel - 1 - place) * dilation;
                    let seen = behind_zeros.clone().slice([0..examples, first..first + length, 0..width]);
                    let product = seen.reshape([examples * length, width]).matmul(weight);
                    sum = sum + product.reshape([examples, length, channels]);
                }
                sum.reshape([examples, length * channels])
            }
            (
                Layer::TemporalBlock { hidden, kernel, dilation, dropout },
                Shape::Sequence { length, width },
            ) => {
                let rows = [examples * length, width];
                let y = self.normal(at, x.clone().reshape(rows)).reshape([examples, length * width]);
                let conv = Layer::CausalConv1d { channels: hidden, kernel, dilation };
                let y = relu(self.layer(conv, input, 0, at, y)).reshape([examples * length, hidden]);
                let weight = self.part(at, [hidden, width]);
                let y = (y.matmul(weight) + self.part(at, [1, width])).reshape([examples, length * width]);
                // What stands before dropout in the network: the fork, and four parts.
                x + self.layer(Layer::Dropout { rate: dropout }, input, index + 5, at, y)
            }
            (Layer::Activation(Activation::Relu), _) => relu(x),
            (Layer::Activation(Activation::Sigmoid), _) => sigmoid(x),
            (Layer::Activation(Activation::Tanh), _) => tanh(x),
            (Layer::Dropout { rate }, _) => match self.mask(rate, index, &x) {
                Some(mask) => x * mask,
                None => x,
            },
            (Layer::EmbeddingBag { vocabulary, width }, Shape::Vector(words)) => {
                // Counts of words, so that the mean is a product.
                let numbers: Vec<f32> = x.clone().into_data().try_into_vec().unwrap();
                let mut shares = vec![0.0_f32; examples * vocabulary];
                for (row, numbers) in shares.chunks_exact_mut(vocabulary).zip(numbers.chunks_exact(words)) {
                    let known: Vec<_> = numbers.iter().filter(|number| **number >= 0.0).collect();
                    known.iter().for_each(|number| row[**number as usize] += 1.0 / known.len() as f32);
                }
                let shares =
                    Tensor::<2>::from_data(TensorData::new(shares, [examples, vocabulary]), &x.device());
                shares.matmul(self.part(at, [vocabulary, width]))
            }
            (Layer::Embedding { vocabulary, width }, Shape::Vector(words)) => {
                let numbers: Vec<f32> = x.clone().into_data().try_into_vec().unwrap();
                let mut one_hot = vec![0.0_f32; examples * words * vocabulary];
                for (row, number) in one_hot.chunks_exact_mut(vocabulary).zip(numbers) {
                    if number >= 0.0 {
                        row[number as usize] = 1.0;
                    }
                }
                let shape = [examples * words, vocabulary];
                let one_hot = Tensor::<2>::from_data(TensorData::new(one_hot, shape), &x.device());
                one_hot.matmul(self.part(at, [vocabulary, width])).reshape([examples, words * width])
            }
            (Layer::Ngrams { shortest, longest, channels }, Shape::Sequence { length, width }) => {
                let x = x.reshape([examples, 1, length, width]);
                let kernels: Vec<Tensor<4>> = (shortest..=longest)
                    .map(|size| {
                        let kernel = self.part(at, [size * width, channels]);
                        kernel.swap_dims(0, 1).reshape([channels, 1, size, width])
                    })
                    .collect();
                let largest = kernels.into_iter().map(|kernel| {
                    let bias = self.part(at, [channels]);
                    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
                    let answers: Tensor<4> = conv2d(x.clone(), kernel, Some(bias), options);
                    answers.flatten::<3>(2, 3).max_dim(2).flatten::<2>(1, 2)
                });
                Tensor::cat(largest.collect(), 1)
            }
            (Layer::LayerNorm, _) => self.normal(at, x),
            (Layer::Flatten, _) => x,
            (layer, input) => panic!("{layer:?} on {input:?}"),
        }
    }
}

impl Oracle {
    fn normal(&self, at: &mut usize, x: Tensor<2>) -> Tensor<2> {
        let [_, width] = x.dims();
        let (scale, shift) = (self.part(at, [1, width]), self.part(at, [1, width]));
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        centred / (variance + 1e-5).sqrt() * scale + shift
    }
}

impl BurnModel for Oracle {
    fn inputs(&self) -> usize {
        self.architecture.inputs()
    }

    fn classes(&self) -> usize {
        self.architecture.classes()
    }

    fn logits(&self, mut x: Tensor<2>) -> Tensor<2> {
        let (mut at, mut operation, words) = (0, 0, x.clone());
        for stacked in self.architecture.stack().unwrap() {
            x = match (stacked.layer, stacked.input) {
                (Layer::TransformerBlock(block), Shape::Sequence { length, width }) => {
                    self.block(block, [length, width], operation, &mut at, x, &words)
                }
                (layer @ (Layer::Mean | Layer::First), Shape::Sequence { length, width }) => {
                    transformers::summary(layer, [length, width], x, &words)
                }
                (layer, input) => self.layer(layer, input, operation, &mut at, x),
            };
            // Dropout draws by the number of its operation in the network.
            operation += match stacked.layer {
                Layer::Flatten | Layer::NextWord => 0,
                Layer::TemporalBlock { .. } => 7,
                _ => 1,
            };
        }
        match self.architecture.predicted_words() {
            Some(_) => transformers::last_word(x, &words),
            None => x,
        }
    }
}

const RELU: Layer = Layer::Activation(Activation::Relu);
const SIGMOID: Layer = Layer::Activation(Activation::Sigmoid);
const TANH: Layer = Layer::Activation(Activation::Tanh);
const IMAGE: Shape = Shape::Image { height: 9, width: 8, channels: 3 };

fn conv(channels: usize, kernel: usize) -> Layer {
    steps(channels, kernel, 1, 0)
}

fn steps(channels: usize, kernel: usize, stride: usize, padding: usize) -> Layer {
    Layer::Conv2d { channels, kernel, stride, padding }
}

fn groups(groups: usize) -> Layer {
    Layer::GroupNorm { groups }
}

fn block(channels: usize, stride: usize) -> Layer {
    Layer::Residual { channels, stride, groups: 2 }
}

fn temporal(hidden: usize, kernel: usize, dilation: usize, dropout: f32) -> Layer {
    Layer::TemporalBlock { hidden, kernel, dilation, dropout }
}

fn dense(outputs: usize) -> Layer {
    Layer::Dense { outputs }
}

fn pool(size: usize) -> Layer {
    Layer::MaxPool2d { size }
}

fn average(size: usize) -> Layer {
    Layer::AvgPool2d { size }
}

fn model(input: Shape, layers: &[Layer]) -> Architecture {
    Architecture::Layers { input, layers: layers.to_vec(), classes: 5 }
}

/// Examples of both signs; word numbers where the model asks for words, some of them missing.
fn examples(architecture: &Architecture, count: usize) -> Subset {
    let inputs = architecture.inputs();
    let words = match architecture {
        Architecture::Layers { layers, .. } => match layers.first() {
            Some(Layer::EmbeddingBag { vocabulary, .. } | Layer::Embedding { vocabulary, .. }) => {
                Some(*vocabulary)
            }
            _ => None,
        },
        _ => None,
    };
    let value = |i: usize| match words {
        Some(vocabulary) => (i * 31 % (vocabulary + 3)) as f32 - 3.0,
        // Incommensurable, so that no two pixels are equal and pooling has no ties.
        None => ((i as f32 * 0.618_034 + 0.1).fract() - 0.5) * 3.0,
    };
    let features = Array2::from_shape_fn((count, inputs), |(row, column)| value(row * inputs + column));
    let labels = Array1::from_shape_fn(count, |row| (row * 3 % architecture.classes()) as u32);
    Subset::all(Arc::new(Dataset::new(features, labels, architecture.classes()).unwrap()))
}

fn parameters(architecture: &Architecture) -> Vec<f32> {
    let mut parameters = architecture.initial_parameters([3; 32]).unwrap();
    // Biases and scales away from their start, too.
    for (at, value) in parameters.iter_mut().enumerate() {
        *value += ((at * 37 % 101) as f32 - 50.0) / 500.0;
    }
    parameters
}

/// Trains with both learners and compares what changed, relative to the largest change of each tensor.
fn compare(architecture: &Architecture, training: Training, dropout: bool) {
    compare_on(&examples(architecture, 7), architecture, training, dropout);
}

fn compare_on(data: &Subset, architecture: &Architecture, training: Training, dropout: bool) {
    let key = [9; 32];
    let mut draws = ChaCha8Rng::from_seed(key);
    draws.set_stream(1);
    let seed = dropout.then(|| draws.next_u64());
    let global = parameters(architecture);
    let ours = NativeLearner::new(architecture.clone())
        .unwrap()
        .train(&global, data, &training, Turn::new(key))
        .unwrap();
    let theirs = Oracle::learner(architecture, seed).train(&global, data, &training, Turn::new(key)).unwrap();
    assert!((ours.loss - theirs.loss).abs() < 1e-4, "{architecture:?}: {} {}", ours.loss, theirs.loss);
    assert_eq!((ours.steps, ours.examples), (theirs.steps, theirs.examples));
    for segment in architecture.segments() {
        let range = segment.offset..segment.offset + segment.len();
        let (ours, theirs) = (&ours.update[range.clone()], &theirs.update[range]);
        let mut largest = theirs.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        if segment.name.ends_with("key.bias") {
            // Softmax takes no notice of what is added to all scores: rounding is all that there is.
            assert!(largest < 1e-6);
            largest = 1e-2;
        }
        assert!(largest > 1e-6, "{architecture:?}: nothing of {} has changed", segment.name);
        for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let error = (ours - theirs).abs() / largest;
            assert!(error < 2e-4, "{architecture:?}, {} [{at}]: {ours} {theirs}", segment.name);
        }
    }
}

fn combinations() -> Vec<Architecture> {
    let vector = Shape::Vector(11);
    let bag = Layer::EmbeddingBag { vocabulary: 20, width: 6 };
    let embedding = Layer::Embedding { vocabulary: 20, width: 6 };
    let ngrams = |shortest, longest, channels| Layer::Ngrams { shortest, longest, channels };
    let causal = |channels, kernel, dilation| Layer::CausalConv1d { channels, kernel, dilation };
    let mut all = vec![
        Architecture::Softmax { inputs: 11, classes: 5 },
        model(vector, &[]),
        model(vector, &[Layer::LayerNorm]),
        model(vector, &[Layer::LayerNorm, dense(9), Layer::LayerNorm, RELU]),
        model(vector, &[RELU, dense(70), SIGMOID, dense(17), TANH]),
        model(vector, &[dense(7), SIGMOID, RELU, TANH]),
        model(vector, &[bag]),
        model(vector, &[bag, Layer::LayerNorm, dense(6), RELU]),
        model(vector, &[embedding]),
        model(vector, &[embedding, ngrams(1, 1, 70)]),
        model(vector, &[embedding, TANH, ngrams(2, 4, 9), RELU, dense(6), SIGMOID]),
        model(vector, &[embedding, ngrams(11, 11, 3), Layer::LayerNorm]),
        model(vector, &[embedding, causal(7, 3, 1)]),
        model(vector, &[embedding, TANH, causal(70, 2, 5), RELU, causal(4, 1, 1), SIGMOID, causal(3, 6, 2)]),
        model(vector, &[embedding, temporal(9, 11, 1, 0.0), temporal(4, 3, 4, 0.0), Layer::Mean]),
        model(IMAGE, &[conv(4, 3)]),
        model(IMAGE, &[conv(4, 1), RELU, Layer::Flatten]),
        model(IMAGE, &[pool(2), Layer::Flatten, dense(6)]),
        model(IMAGE, &[conv(4, 3), pool(2), RELU]),
        // Seven rows and six columns: a row belongs to no square.
        model(IMAGE, &[conv(17, 3), RELU, pool(2), conv(5, 2), TANH, Layer::Flatten, dense(6), RELU]),
        model(IMAGE, &[conv(33, 3), RELU, conv(16, 3), RELU, pool(3), Layer::Flatten, Layer::LayerNorm]),
        model(IMAGE, &[TANH, conv(6, 2), SIGMOID, pool(2), TANH, conv(70, 3), RELU]),
        model(IMAGE, &[conv(6, 8)]),
        model(IMAGE, &[pool(2), conv(6, 3), pool(2), SIGMOID, dense(8)]),
        model(IMAGE, &[steps(4, 3, 1, 1), RELU, steps(5, 3, 1, 2)]),
        model(IMAGE, &[steps(4, 3, 1, 1), TANH, steps(6, 5, 1, 2), pool(2)]),
        // A row is left over after the last step in each direction, or not.
        model(IMAGE, &[steps(4, 3, 1, 1), TANH, steps(6, 3, 2, 1), RELU, steps(18, 2, 3, 0)]),
        model(IMAGE, &[steps(4, 1, 1, 0), SIGMOID, steps(6, 3, 4, 2)]),
        model(IMAGE, &[steps(4, 3, 2, 1), average(2), TANH, dense(6)]),
        model(IMAGE, &[average(2), conv(4, 2), average(3), Layer::Flatten]),
        model(IMAGE, &[average(3), dense(7)]),
        model(IMAGE, &[conv(4, 2), TANH, Layer::GlobalAvgPool]),
        model(IMAGE, &[conv(6, 3), groups(3), RELU, pool(2), conv(4, 2), groups(1), TANH]),
        model(IMAGE, &[groups(3), RELU, dense(6)]),
        model(IMAGE, &[groups(1), conv(33, 2), groups(11), SIGMOID, groups(3), Layer::GlobalAvgPool]),
        model(IMAGE, &[block(4, 1), Layer::GlobalAvgPool]),
        model(IMAGE, &[conv(4, 3), TANH, block(4, 1), block(6, 2), block(6, 1), pool(2), dense(6)]),
        model(IMAGE, &[conv(4, 3), block(4, 2), Layer::Flatten]),
    ];
    for activation in [Activation::Relu, Activation::Sigmoid, Activation::Tanh] {
        all.push(Architecture::Mlp { inputs: 11, hidden: vec![8, 130], classes: 5, activation });
    }
    all
}

#[test]
fn a_single_step_is_the_one_that_automatic_differentiation_takes() {
    let training = Training::new(0.5, 1, Batch::Full).unwrap();
    combinations().iter().for_each(|architecture| compare(architecture, training, false));
}

#[test]
fn steps_in_place_are_the_ones_that_automatic_differentiation_takes() {
    for batch in [Batch::Size(3), Batch::InOrder(4), Batch::Full] {
        let training = Training::new(0.05, 2, batch).unwrap();
        combinations().iter().for_each(|architecture| compare(architecture, training, false));
    }
}

#[test]
fn what_is_too_much_to_keep_is_computed_again() {
    let large = Shape::Image { height: 96, width: 90, channels: 1 };
    let drop = Layer::Dropout { rate: 0.25 };
    let layers =
        [steps(300, 3, 1, 1), RELU, pool(6), drop, block(4, 2), pool(2), conv(3, 2), groups(1), RELU];
    let architecture = model(large, &layers);
    compare(&architecture, Training::new(0.5, 1, Batch::Full).unwrap(), true);
}

#[test]
fn dropout_drops_in_the_backward_pass_what_it_drops_in_the_forward_pass() {
    let (training, drop) = (Training::new(0.5, 1, Batch::Full).unwrap(), |rate| Layer::Dropout { rate });
    let vector = Shape::Vector(11);
    let cnn =
        [conv(5, 3), RELU, conv(6, 3), RELU, pool(2), drop(0.25), Layer::Flatten, dense(40), RELU, drop(0.5)];
    for architecture in [
        model(vector, &[drop(0.3), dense(40), drop(0.5)]),
        model(vector, &[dense(40), RELU, drop(0.5), dense(30), drop(0.5), RELU]),
        model(
            vector,
            &[Layer::Embedding { vocabulary: 20, width: 6 }, temporal(9, 2, 3, 0.3), temporal(5, 3, 1, 0.5)],
        ),
        model(IMAGE, &[drop(0.2), conv(5, 3), drop(0.3), RELU, conv(4, 2), RELU]),
        model(IMAGE, &cnn),
    ] {
        compare(&architecture, training, true);
    }
}

#[test]
fn an_activation_before_dropout_keeps_what_its_derivative_needs() {
    // The copy that this takes is an operation of its own, so the mask cannot be handed to the oracle: a rate of almost
    // zero drops nothing here, and a wrong derivative would still show.
    let layers =
        [dense(12), SIGMOID, Layer::Dropout { rate: 1e-9 }, dense(9), TANH, Layer::Dropout { rate: 1e-9 }];
    compare(&model(Shape::Vector(11), &layers), Training::new(0.5, 2, Batch::Size(2)).unwrap(), false);
    let layers =
        [conv(4, 3), TANH, Layer::Dropout { rate: 1e-9 }, conv(3, 3), SIGMOID, Layer::Dropout { rate: 1e-9 }];
    compare(&model(IMAGE, &layers), Training::new(0.5, 1, Batch::Full).unwrap(), false);
}

#[test]
fn evaluations_agree_and_drop_nothing() {
    let dropping = model(IMAGE, &[conv(4, 3), RELU, pool(2), Layer::Dropout { rate: 0.5 }]);
    for architecture in combinations().into_iter().chain([dropping]) {
        let (data, parameters) = (examples(&architecture, 300), parameters(&architecture));
        let ours = NativeLearner::new(architecture.clone()).unwrap().evaluate(&parameters, &data).unwrap();
        let theirs = Oracle::learner(&architecture, None).evaluate(&parameters, &data).unwrap();
        assert!((ours.loss - theirs.loss).abs() < 1e-4, "{architecture:?}");
        assert_eq!(
            ours.classes().unwrap().confusion,
            theirs.classes().unwrap().confusion,
            "{architecture:?}"
        );
    }
}

#[test]
fn a_number_that_is_no_word_is_refused() {
    let bag = Layer::EmbeddingBag { vocabulary: 4, width: 2 };
    let architecture = Architecture::Layers { input: Shape::Vector(2), layers: vec![bag], classes: 2 };
    let mut learner = NativeLearner::new(architecture).unwrap();
    for (word, fits) in [(3.0, true), (-7.5, true), (4.0, false), (0.5, false)] {
        let features = Array2::from_shape_vec((2, 2), vec![0.0, 1.0, 2.0, word]).unwrap();
        let data = Subset::all(Arc::new(Dataset::new(features, Array1::zeros(2), 2).unwrap()));
        let evaluated = learner.evaluate(&[0.0; 14], &data);
        assert_eq!(evaluated.is_ok(), fits, "{word}");
        if let Err(error) = evaluated {
            assert!(error.to_string().starts_with("row 1 has"), "{error}");
        }
    }
}
