//! A network that no experiment file can describe: blocks with a way around them (He et al., 1512.03385), GELU and layer
//! normalization.

use burn::module::Module;
use burn::nn::{Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use skep_learning::BurnModel;

const WIDTH: usize = 32;
const BLOCKS: usize = 2;

/// Numbers, a linear layer, blocks, a linear layer, logits.
#[derive(Module, Debug)]
pub struct Residual {
    first: Linear,
    blocks: Vec<Block>,
    last: Linear,
    #[module(skip)]
    inputs: usize,
    #[module(skip)]
    classes: usize,
}

/// x + Linear(GELU(LayerNorm(x)))
#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    linear: Linear,
}

impl Residual {
    /// A network for `inputs` numbers and `classes` classes.
    pub fn new(inputs: usize, classes: usize, device: &Device) -> Self {
        Residual {
            first: LinearConfig::new(inputs, WIDTH).init(device),
            blocks: (0..BLOCKS).map(|_| Block::new(device)).collect(),
            last: LinearConfig::new(WIDTH, classes).init(device),
            inputs,
            classes,
        }
    }
}

impl Block {
    fn new(device: &Device) -> Self {
        Block {
            norm: LayerNormConfig::new(WIDTH).init(device),
            linear: LinearConfig::new(WIDTH, WIDTH).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.clone() + self.linear.forward(Gelu::new().forward(self.norm.forward(x)))
    }
}

impl BurnModel for Residual {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, examples: Tensor<2>) -> Tensor<2> {
        let x = self.blocks.iter().fold(self.first.forward(examples), |x, block| block.forward(x));
        self.last.forward(x)
    }
}
