//! Attention and what belongs to it, from the definitions.

use burn::tensor::activation::{gelu, softmax};

use super::*;
use crate::layer::Block;
use crate::native::network::MAX_OPERATIONS;
use crate::{ExamplePrivacy, NormPlace};

impl Oracle {
    pub(super) fn block(
        &self,
        block: Block,
        [length, width]: [usize; 2],
        index: usize,
        at: &mut usize,
        x: Tensor<2>,
        words: &Tensor<2>,
    ) -> Tensor<2> {
        let [examples, _] = x.dims();
        let rows = examples * length;
        let mut dense = |inputs, outputs| {
            let (weight, bias) = (self.part(at, [inputs, outputs]), self.part(at, [1, outputs]));
            move |x: Tensor<2>| x.matmul(weight.clone()) + bias.clone()
        };
        let (query, key, value, mix) =
            (dense(width, width), dense(width, width), dense(width, width), dense(width, width));
        let (up, down) = (dense(width, block.feed_forward), dense(block.feed_forward, width));
        let start = *at;
        let norm = |number: usize, x| self.normal(&mut (start + number * 2 * width), x);
        *at += 4 * width;
        let drop = |part: usize, x: Tensor<2>| {
            let like = x.clone().reshape([examples, length * width]);
            let mask = self.mask(block.dropout, index + part * MAX_OPERATIONS, &like);
            mask.map_or(x.clone(), |mask| x * mask.reshape([rows, width]))
        };
        let attend = |x: Tensor<2>| {
            let heads = |x: Tensor<2>| {
                x.reshape([examples, length, block.heads, width / block.heads]).swap_dims(1, 2)
            };
            let (q, k, v) = (heads(query(x.clone())), heads(key(x.clone())), heads(value(x)));
            let scores = q.matmul(k.swap_dims(2, 3)) / ((width / block.heads) as f64).sqrt();
            let hidden = hidden(block.causal, words);
            // Who sees nothing answers nothing.
            let shares = softmax(scores + hidden.clone(), 3) * hidden.equal_elem(0.0).float();
            mix(shares.matmul(v).swap_dims(1, 2).reshape([rows, width]))
        };
        let feed = |x| down(gelu(up(x)));
        let x = x.reshape([rows, width]);
        let z = match block.norm {
            NormPlace::Before => {
                let y = x.clone() + drop(0, attend(norm(0, x)));
                y.clone() + drop(1, feed(norm(1, y)))
            }
            NormPlace::After => {
                let y = norm(0, x.clone() + drop(0, attend(x)));
                norm(1, y.clone() + drop(1, feed(y)))
            }
        };
        z.reshape([examples, length * width])
    }
}

fn numbers(words: &Tensor<2>) -> Vec<f32> {
    words.clone().into_data().try_into_vec().unwrap()
}

/// A large negative number for each pair of places of which one is not to be looked at from the other, `[examples, 1, length, length]`.
fn hidden(causal: bool, words: &Tensor<2>) -> Tensor<4> {
    let [examples, length] = words.dims();
    let mut values = Vec::new();
    for words in numbers(words).chunks_exact(length) {
        for from in 0..length {
            values.extend(
                (0..length).map(|to| if words[to] < 0.0 || causal && to > from { -1e9 } else { 0.0_f32 }),
            );
        }
    }
    Tensor::from_data(TensorData::new(values, [examples, 1, length, length]), &words.device())
}

/// Each vector times the share of its place, summed up.
fn weighed(shares: Vec<f32>, [length, width]: [usize; 2], x: Tensor<2>) -> Tensor<2> {
    let examples = shares.len() / length;
    let shares = Tensor::<3>::from_data(TensorData::new(shares, [examples, length, 1]), &x.device());
    (x.reshape([examples, length, width]) * shares).sum_dim(1).reshape([examples, width])
}

pub(super) fn summary(layer: Layer, shape: [usize; 2], x: Tensor<2>, words: &Tensor<2>) -> Tensor<2> {
    let mut shares = Vec::new();
    for words in numbers(words).chunks_exact(shape[0]) {
        let known = words.iter().filter(|word| **word >= 0.0).count() as f32;
        shares.extend(words.iter().enumerate().map(|(place, word)| match layer {
            Layer::Mean => f32::from(*word >= 0.0) / known,
            _ => f32::from(place == 0),
        }));
    }
    weighed(shares, shape, x)
}

/// The logits of the last word before the first place that is none.
pub(super) fn last_word(x: Tensor<2>, words: &Tensor<2>) -> Tensor<2> {
    let ([_, length], [_, logits]) = (words.dims(), x.dims());
    let mut shares = Vec::new();
    for words in numbers(words).chunks_exact(length) {
        let known = words.iter().take_while(|word| **word >= 0.0).count();
        shares.extend((1..=length).map(|place| f32::from(place == known)));
    }
    weighed(shares, [length, logits / length], x)
}

fn block(heads: usize, causal: bool, norm: NormPlace, dropout: f32) -> Layer {
    Layer::TransformerBlock(Block { heads, feed_forward: 10, causal, norm, dropout })
}

fn encoder(layers: &[Layer]) -> Architecture {
    let embedding = Layer::Embedding { vocabulary: 20, width: 6 };
    model(Shape::Vector(11), &[&[embedding, Layer::Positions], layers].concat())
}

fn encoders() -> Vec<Architecture> {
    let (before, after) = (NormPlace::Before, NormPlace::After);
    vec![
        encoder(&[Layer::Mean]),
        encoder(&[Layer::LayerNorm, Layer::First]),
        encoder(&[block(1, false, before, 0.0), Layer::Mean]),
        encoder(&[block(2, false, before, 0.0), block(3, false, before, 0.0), Layer::LayerNorm, Layer::Mean]),
        encoder(&[
            Layer::LayerNorm,
            block(2, true, after, 0.0),
            block(3, false, after, 0.0),
            Layer::First,
            TANH,
        ]),
        encoder(&[block(2, true, before, 0.0), Layer::Ngrams { shortest: 2, longest: 3, channels: 4 }]),
    ]
}

#[test]
fn a_step_of_a_transformer_is_the_one_that_automatic_differentiation_takes() {
    for architecture in encoders() {
        compare(&architecture, Training::new(0.5, 1, Batch::Full).unwrap(), false);
        compare(&architecture, Training::new(0.05, 2, Batch::Size(3)).unwrap(), false);
    }
}

#[test]
fn a_block_drops_in_the_backward_pass_what_it_drops_in_the_forward_pass() {
    let training = Training::new(0.5, 1, Batch::Full).unwrap();
    for norm in [NormPlace::Before, NormPlace::After] {
        compare(
            &encoder(&[block(2, false, norm, 0.5), block(2, false, norm, 0.3), Layer::Mean]),
            training,
            true,
        );
    }
}

#[test]
fn evaluations_of_transformers_agree() {
    for architecture in encoders() {
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

fn language_models() -> [Architecture; 2] {
    let block = |heads| block(heads, true, NormPlace::Before, 0.0);
    let model = |layers: &[Layer]| {
        let read = [Layer::Embedding { vocabulary: 9, width: 6 }];
        let predict = [Layer::LayerNorm, Layer::NextWord, Layer::Dense { outputs: 7 }, TANH];
        let layers = [&read, layers, &predict].concat();
        Architecture::Layers { input: Shape::Vector(5), layers, classes: 9 }
    };
    let conv = Layer::CausalConv1d { channels: 8, kernel: 3, dilation: 1 };
    [
        model(&[Layer::Positions, block(2), block(3)]),
        model(&[conv, RELU, temporal(7, 2, 1, 0.0), temporal(9, 3, 2, 0.0)]),
    ]
}

fn texts(rows: &[([f32; 5], u32)]) -> Subset {
    let features =
        Array2::from_shape_vec((rows.len(), 5), rows.iter().flat_map(|row| row.0).collect()).unwrap();
    let labels = Array1::from_iter(rows.iter().map(|row| row.1));
    Subset::all(Arc::new(Dataset::new(features, labels, 9).unwrap()))
}

/// Every beginning of a text is an example whose class is the next word: so a model that looks ahead would be found out.
#[test]
fn a_language_model_learns_the_next_word_of_every_beginning() {
    language_models().iter().for_each(learns_the_next_word_of_every_beginning);
}

fn learns_the_next_word_of_every_beginning(architecture: &Architecture) {
    let whole = [([3.0, 1.0, 4.0, 1.0, 5.0], 8), ([2.0, 7.0, 1.0, -1.0, -1.0], 6)];
    let mut beginnings = Vec::new();
    for (words, label) in whole {
        let known = words.iter().filter(|word| **word >= 0.0).count();
        for end in 1..=known {
            let mut beginning = [-1.0; 5];
            beginning[..end].copy_from_slice(&words[..end]);
            beginnings.push((beginning, if end == known { label } else { words[end] as u32 }));
        }
    }
    let (data, beginnings) = (texts(&whole), texts(&beginnings));
    let (global, training) = (parameters(architecture), Training::new(0.3, 1, Batch::Full).unwrap());
    let mut native = NativeLearner::new(architecture.clone()).unwrap();
    let ours = native.train(&global, &data, &training, Turn::new([9; 32])).unwrap();
    let mut oracle = Oracle::learner(architecture, None);
    let theirs = oracle.train(&global, &beginnings, &training, Turn::new([9; 32])).unwrap();
    assert!((ours.loss - theirs.loss).abs() < 1e-5, "{} {}", ours.loss, theirs.loss);
    let largest = theirs.update.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 1e-3);
    for (at, (ours, theirs)) in ours.update.iter().zip(&theirs.update).enumerate() {
        assert!((ours - theirs).abs() < 2e-4 * largest, "[{at}]: {ours} {theirs}");
    }
    let (ours, theirs) =
        (native.evaluate(&global, &data).unwrap(), oracle.evaluate(&global, &beginnings).unwrap());
    assert_eq!((ours.examples, theirs.examples), (8, 8));
    assert!((ours.loss - theirs.loss).abs() < 1e-5, "{} {}", ours.loss, theirs.loss);
    let last = native.logits(&global, &[2.0, 7.0, 1.0, -1.0, -1.0]).unwrap();
    assert_eq!(last.len(), 9);
}

/// Keeps the sum of the clipped gradients of all examples.
struct All {
    norm: f64,
    sum: Vec<f32>,
}

impl ExamplePrivacy for All {
    fn clip_norm(&self) -> f64 {
        self.norm
    }

    fn steps(&self) -> u64 {
        1
    }

    fn draw(&mut self, examples: usize, positions: &mut Vec<usize>) {
        positions.extend(0..examples);
    }

    fn release(&mut self, sum: &mut [f32]) {
        self.sum = sum.to_vec();
    }
}

#[test]
fn gradients_of_single_examples_of_transformers_are_clipped() {
    let length = |values: &[f32]| values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let plain = Training::new(1.0, 1, Batch::Full).unwrap();
    let embedding = Layer::Embedding { vocabulary: 20, width: 6 };
    let convolutions = model(Shape::Vector(11), &[embedding, temporal(7, 3, 2, 0.0), Layer::Mean]);
    for architecture in encoders().into_iter().skip(2).take(2).chain([convolutions]) {
        let (data, global) = (examples(&architecture, 5), parameters(&architecture));
        let mut oracle = Oracle::learner(&architecture, None);
        let mut gradient = |row: usize| {
            let one = Subset::new(data.dataset().clone(), vec![row]).unwrap();
            oracle.train(&global, &one, &plain, Turn::new([0; 32])).unwrap().update
        };
        let gradients: Vec<Vec<f32>> =
            (0..5).map(|row| gradient(row).iter().map(|value| -value).collect()).collect();
        let mut norms: Vec<f64> = gradients.iter().map(|gradient| length(gradient)).collect();
        norms.sort_by(f64::total_cmp);
        let norm = (norms[2] + norms[3]) / 2.0;
        let mut privacy = All { norm, sum: vec![] };
        let mut native = NativeLearner::new(architecture.clone()).unwrap();
        native.train_privately(&global, &data, &plain, Turn::new([9; 32]), &mut privacy).unwrap();
        for (at, ours) in privacy.sum.iter().enumerate() {
            let factor = |gradient: &[f32]| (norm / length(gradient)).min(1.0);
            let theirs: f64 =
                gradients.iter().map(|gradient| factor(gradient) * f64::from(gradient[at])).sum();
            assert!(
                (f64::from(*ours) - theirs).abs() < 2e-4 * norm,
                "{architecture:?} [{at}]: {ours} {theirs}"
            );
        }
    }
}
