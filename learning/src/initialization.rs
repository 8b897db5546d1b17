//! The parameters that training starts from.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::architecture::Stacked;
use crate::layer::Layer;
use crate::own::{self, OwnError};
use crate::{Activation, Architecture, ArchitectureError};

/// How far weights of dense layers and convolutions lie from zero at first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InitialWeights {
    /// Before a ReLU so far as He et al. say, elsewhere as Glorot and Bengio.
    #[default]
    He,
    /// Everywhere as Glorot and Bengio say: nearer to zero.
    Glorot,
}

impl Architecture {
    /// Initial parameters, [`Architecture::parameter_count`] of them, a function of `key` alone.
    ///
    /// Softmax regression starts from zero (its loss is convex). Elsewhere biases are zero
    /// and weights uniform in ±limit: before a ReLU `sqrt(6 / inputs)` (He et al., Delving Deep
    /// into Rectifiers, 2015), elsewhere `sqrt(6 / (inputs + outputs))` (Glorot and Bengio,
    /// Understanding the Difficulty of Training Deep Feedforward Neural Networks, 2010), counting the inputs and outputs
    /// of one pixel in a convolution; word vectors lie in ±sqrt(3 / width), those of positions in ±0.02, and layer normalization changes nothing.
    /// The layer with the `i`-th weight draws from ChaCha8 under `key`, stream `i`.
    ///
    /// # Errors
    /// [`ArchitectureError`] if the architecture cannot be trained.
    pub fn initial_parameters(&self, key: [u8; 32]) -> Result<Vec<f32>, ArchitectureError> {
        self.initial_parameters_by(InitialWeights::He, key)
    }

    /// [`Architecture::initial_parameters`] with weights so far from zero.
    ///
    /// # Errors
    /// [`ArchitectureError`] if the architecture cannot be trained.
    pub fn initial_parameters_by(
        &self,
        weights: InitialWeights,
        key: [u8; 32],
    ) -> Result<Vec<f32>, ArchitectureError> {
        self.check()?;
        if let Self::Own { name, inputs, classes, .. } = self {
            let parameters = own::model(name)?.initial_parameters(*inputs, *classes, key);
            let (tensors, found) = (self.parameter_count(), parameters.len());
            return match tensors == found {
                true => Ok(parameters),
                false => Err(OwnError::Initial { name: name.clone(), tensors, found }.into()),
            };
        }
        let mut parameters = vec![0.0; self.parameter_count()];
        if let Self::Softmax { .. } = self {
            return Ok(parameters);
        }
        let (mut rest, mut drawn) = (parameters.as_mut_slice(), 0);
        let stack: Vec<Stacked> = self.stack()?.iter().flat_map(Stacked::parts).collect();
        for (index, stacked) in stack.iter().enumerate() {
            for (name, shape) in stacked.layer.tensors(stacked.input) {
                let (tensor, following) = rest.split_at_mut(shape.iter().product());
                match name.rsplit('.').next() {
                    Some("weight") => {
                        let mut generator = ChaCha8Rng::from_seed(key);
                        generator.set_stream(drawn);
                        // He's range is for what a ReLU follows.
                        let following = match weights {
                            InitialWeights::He => &stack[index + 1..],
                            InitialWeights::Glorot => &[],
                        };
                        fill_uniform(tensor, limit(stacked, &shape, following), &mut generator);
                        drawn += 1;
                    }
                    Some("scale") => tensor.fill(1.0),
                    _ => {}
                }
                rest = following;
            }
        }
        Ok(parameters)
    }
}

/// Largest absolute value of a weight of `shape` before it is trained.
fn limit(stacked: &Stacked, shape: &[usize], following: &[Stacked]) -> f32 {
    let [window @ .., inputs, outputs] = shape else { return 0.0 };
    if let Layer::EmbeddingBag { width, .. } | Layer::Embedding { width, .. } = stacked.layer {
        return (3.0 / width as f32).sqrt();
    }
    if stacked.layer == Layer::Positions {
        return POSITION;
    }
    // Of a window of middling width.
    let inputs = match &stacked.layer {
        Layer::Ngrams { shortest, longest, .. } => &(inputs / (longest - shortest + 1)),
        _ => inputs,
    };
    let pixels: usize = window.iter().product();
    let before_relu = following.iter().map(|stacked| stacked.layer).find(|layer| {
        matches!(
            layer,
            Layer::Activation(_) | Layer::Dense { .. } | Layer::Conv2d { .. } | Layer::CausalConv1d { .. }
        )
    }) == Some(Layer::Activation(Activation::Relu));
    let fan = pixels * if before_relu { *inputs } else { inputs + outputs };
    (6.0 / fan as f32).sqrt()
}

/// Small beside the vectors of words: which place a word stands at says less than which word it is.
const POSITION: f32 = 0.02;

fn fill_uniform(weights: &mut [f32], limit: f32, generator: &mut ChaCha8Rng) {
    for weight in weights {
        *weight = (2.0 * generator.random::<f32>() - 1.0) * limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp(activation: Activation) -> Architecture {
        Architecture::Mlp { inputs: 64, hidden: vec![32], classes: 10, activation }
    }

    #[test]
    fn softmax_regression_starts_from_zero() {
        let softmax = Architecture::Softmax { inputs: 64, classes: 10 };
        assert_eq!(softmax.initial_parameters([1; 32]).unwrap(), [0.0; 650]);
    }

    #[test]
    fn initial_parameters_are_a_function_of_the_key() {
        let draw = |key| mlp(Activation::Tanh).initial_parameters([key; 32]).unwrap();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    /// Pins the draws: an update of the generator that changed them would change every experiment.
    #[test]
    fn the_initial_parameters_of_a_known_key_stay_the_same() {
        let parameters = mlp(Activation::Relu).initial_parameters([1; 32]).unwrap();
        assert_eq!(parameters[..3], [0.2164218, -0.12299822, -0.054483693]);
        assert_eq!(parameters[64 * 33..][..3], [0.20546196, -0.012483052, -0.31432208]);
    }

    #[test]
    fn every_kind_of_layer_starts_as_it_should() {
        use crate::{Layer, Shape};
        let layers = vec![
            Layer::EmbeddingBag { vocabulary: 100, width: 12 },
            Layer::LayerNorm,
            Layer::Dense { outputs: 12 },
        ];
        let model = Architecture::Layers { input: Shape::Vector(7), layers, classes: 2 };
        let parameters = model.initial_parameters([5; 32]).unwrap();
        let largest = |range: std::ops::Range<usize>| {
            parameters[range].iter().fold(0.0_f32, |largest, value| largest.max(value.abs()))
        };
        assert!((0.48..=0.5).contains(&largest(0..1200)), "word vectors of width 12: {}", largest(0..1200));
        assert_eq!((&parameters[1200..1212], &parameters[1212..1224]), (&[1.0; 12][..], &[0.0; 12][..]));
        assert!((0.45..=0.5).contains(&largest(1224..1368)), "{}", largest(1224..1368));
        let kernel = vec![
            Layer::Conv2d { channels: 6, kernel: 5, stride: 1, padding: 0 },
            Layer::Activation(Activation::Relu),
        ];
        let image = Shape::Image { height: 9, width: 9, channels: 2 };
        let model = Architecture::Layers { input: image, layers: kernel, classes: 2 };
        let parameters = model.initial_parameters([5; 32]).unwrap();
        let largest = parameters[..300].iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let he = (6.0 / 50.0_f32).sqrt();
        assert!(largest <= he && largest > 0.95 * he, "{largest}");
    }

    #[test]
    fn glorots_weights_are_smaller_before_a_relu_and_the_same_elsewhere() {
        let by = |activation, weights| mlp(activation).initial_parameters_by(weights, [3; 32]).unwrap();
        assert_eq!(by(Activation::Tanh, InitialWeights::He), by(Activation::Tanh, InitialWeights::Glorot));
        let (he, glorot) =
            (by(Activation::Relu, InitialWeights::He), by(Activation::Relu, InitialWeights::Glorot));
        // 64 inputs and 32 outputs.
        let ratio = (64.0_f32 / 96.0).sqrt();
        assert!(he[..64 * 32].iter().zip(&glorot).all(|(he, glorot)| (he * ratio - glorot).abs() < 1e-6));
        assert_eq!(he[64 * 33..], glorot[64 * 33..]);
    }

    #[test]
    fn weights_fill_their_range_and_biases_are_zero() {
        for (activation, hidden_fan) in [(Activation::Relu, 64.0), (Activation::Sigmoid, 96.0)] {
            let parameters = mlp(activation).initial_parameters([3; 32]).unwrap();
            let (hidden, rest) = parameters.split_at(64 * 32);
            let (hidden_bias, rest) = rest.split_at(32);
            let (output, output_bias) = rest.split_at(32 * 10);
            for (weights, fan) in [(hidden, hidden_fan), (output, 42.0_f32)] {
                let limit = (6.0 / fan).sqrt();
                let largest = weights.iter().fold(0.0_f32, |max, w| max.max(w.abs()));
                assert!(largest <= limit && largest > 0.95 * limit);
            }
            assert_eq!((hidden_bias, output_bias), (&[0.0; 32][..], &[0.0; 10][..]));
        }
    }
}
