//! What training cannot be faster than.

use crate::architecture::Stacked;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply};
use crate::{Architecture, Layer, Shape};

impl Architecture {
    /// Floating point operations to train on one example once: a multiplication and an addition each, in the products of
    /// the forward pass, of the gradient of the weights, and of that of the input, which the first layer does not need.
    pub fn training_flop(&self) -> f64 {
        let mut passes = 2.0;
        let mut total = 0.0;
        for stacked in self.stack().unwrap_or_default().iter().flat_map(Stacked::parts) {
            let products = match (stacked.layer, stacked.input, stacked.output) {
                (Layer::Dense { .. }, input, output) => input.row() as f64 * output.len() as f64,
                (Layer::TransformerBlock(block), Shape::Sequence { length, width }, _) => {
                    let of_place = 4 * width * width + 2 * width * block.feed_forward + 2 * length * width;
                    (length * of_place) as f64
                }
                (Layer::Conv2d { kernel, .. }, Shape::Image { channels, .. }, output) => {
                    (kernel * kernel * channels) as f64 * output.len() as f64
                }
                _ => continue,
            };
            total += 2.0 * passes * products;
            passes = 3.0;
        }
        total
    }
}

/// Multiplies matrices of 256 x 256 numbers as training does; how many floating point operations that took. Whoever has a
/// clock learns what the machine can do.
pub fn exercise() -> f64 {
    const SIDE: usize = 256;
    let factor = vec![1.0; SIDE * SIDE];
    let mut product = vec![0.0; SIDE * SIDE];
    for _ in 0..TIMES {
        multiply(
            Extent::plain(SIDE, SIDE, SIDE),
            1.0,
            Left { data: &factor, row_group: 0, row: SIDE, depth_group: 0, depth: 1 },
            Right { data: &factor, depth_group: 0, depth: SIDE },
            Onto::Nothing,
            Out { data: &mut product, row_group: 0, row: SIDE },
        );
    }
    std::hint::black_box(product);
    2.0 * (SIDE * SIDE * SIDE * TIMES) as f64
}

/// A fraction of a millisecond, so that some run of several is undisturbed.
const TIMES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn operations_are_those_of_the_workloads() {
        let mlp =
            Architecture::Mlp { inputs: 300, hidden: vec![128], classes: 5, activation: Activation::Relu };
        assert_eq!(mlp.training_flop(), 4.0 * 300.0 * 128.0 + 6.0 * 128.0 * 5.0);
        let image = Shape::Image { height: 32, width: 32, channels: 3 };
        let conv = |channels| Layer::Conv2d { channels, kernel: 3, stride: 1, padding: 0 };
        let layers = vec![conv(32), conv(64), Layer::MaxPool2d { size: 2 }, Layer::Dense { outputs: 128 }];
        let cnn = Architecture::Layers { input: image, layers, classes: 10 };
        // 99.5 million an example by hand.
        assert!((cnn.training_flop() / 1e6 - 99.5).abs() < 0.1, "{}", cnn.training_flop());
    }
}
