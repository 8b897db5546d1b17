//! The parameters that training starts from.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Activation, Architecture, ArchitectureError};

impl Architecture {
    /// Initial parameters, [`Architecture::parameter_count`] of them, a function of `key` alone.
    ///
    /// Softmax regression starts from zero (its loss is convex). In a perceptron biases are zero
    /// and weights uniform in ±limit: before a ReLU `sqrt(6 / inputs)` (He et al., Delving Deep
    /// into Rectifiers, 2015), elsewhere `sqrt(6 / (inputs + outputs))` (Glorot and Bengio,
    /// Understanding the Difficulty of Training Deep Feedforward Neural Networks, 2010). Layer `i`
    /// draws from ChaCha8 under `key`, stream `i`.
    ///
    /// # Errors
    /// [`ArchitectureError`] if the architecture cannot be trained.
    pub fn initial_parameters(&self, key: [u8; 32]) -> Result<Vec<f32>, ArchitectureError> {
        self.check()?;
        let mut parameters = vec![0.0; self.parameter_count()];
        let Some(activation) = self.activation() else {
            return Ok(parameters);
        };
        let mut rest = parameters.as_mut_slice();
        for (index, [inputs, outputs]) in self.layers().enumerate() {
            let (layer, following) = rest.split_at_mut((inputs + 1) * outputs);
            let relu = activation == Activation::Relu && !following.is_empty();
            let fan = if relu { inputs } else { inputs + outputs };
            let mut generator = ChaCha8Rng::from_seed(key);
            generator.set_stream(index as u64);
            let weights = &mut layer[..inputs * outputs];
            fill_uniform(weights, (6.0 / fan as f32).sqrt(), &mut generator);
            rest = following;
        }
        Ok(parameters)
    }
}

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
