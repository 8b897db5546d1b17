//! What residual blocks are made of: two ways, and their sum.

use crate::architecture::Stacked;
use crate::{Activation, Layer, Shape};

/// The two ways through a block.
pub(crate) struct Ways {
    /// What what came in goes through before it is added; nothing if it has the right shape.
    pub(crate) shortcut: Vec<Stacked>,
    /// What it is added to.
    pub(crate) main: Vec<Stacked>,
    /// What follows the sum.
    pub(crate) after: Option<Activation>,
}

/// The shortcut of a block of images.
fn shortcut(input: Shape, channels: usize, stride: usize, groups: usize) -> Vec<(&'static str, Layer)> {
    match input {
        Shape::Image { channels: before, .. } if before == channels && stride == 1 => vec![],
        _ => vec![
            ("shortcut", Layer::Conv2d { channels, kernel: 1, stride, padding: 0 }),
            ("shortcut_norm", Layer::GroupNorm { groups }),
        ],
    }
}

/// The main way of a block of images.
pub(crate) fn main(channels: usize, stride: usize, groups: usize) -> Vec<(&'static str, Layer)> {
    let conv = |stride| Layer::Conv2d { channels, kernel: 3, stride, padding: 1 };
    vec![
        ("conv1", conv(stride)),
        ("norm1", Layer::GroupNorm { groups }),
        ("relu1", Layer::Activation(Activation::Relu)),
        ("conv2", conv(1)),
        ("norm2", Layer::GroupNorm { groups }),
    ]
}

/// The main way of a block of sequences of vectors of `width` numbers.
fn temporal(
    width: usize,
    hidden: usize,
    kernel: usize,
    dilation: usize,
    dropout: f32,
) -> Vec<(&'static str, Layer)> {
    vec![
        ("norm", Layer::LayerNorm),
        ("conv", Layer::CausalConv1d { channels: hidden, kernel, dilation }),
        ("relu", Layer::Activation(Activation::Relu)),
        ("mix", Layer::CausalConv1d { channels: width, kernel: 1, dilation: 1 }),
        ("dropout", Layer::Dropout { rate: dropout }),
    ]
}

/// The two ways through a residual block; `None` for another layer.
pub(crate) fn ways(stacked: &Stacked) -> Option<Ways> {
    match stacked.layer {
        Layer::Residual { channels, stride, groups } => Some(Ways {
            shortcut: chain(stacked, &shortcut(stacked.input, channels, stride, groups)),
            main: chain(stacked, &main(channels, stride, groups)),
            after: Some(Activation::Relu),
        }),
        Layer::TemporalBlock { hidden, kernel, dilation, dropout } => Some(Ways {
            shortcut: vec![],
            main: chain(stacked, &temporal(stacked.input.vector(), hidden, kernel, dilation, dropout)),
            after: None,
        }),
        _ => None,
    }
}

/// Layers one after the other, from what comes into `stacked` on.
fn chain(stacked: &Stacked, layers: &[(&str, Layer)]) -> Vec<Stacked> {
    let mut input = stacked.input;
    let mut chain = Vec::new();
    for (name, layer) in layers {
        // The shape was checked with that of the block.
        let output = layer.output(input, false).unwrap_or(input);
        chain.push(Stacked { name: format!("{}.{name}", stacked.name), layer: *layer, input, output });
        input = output;
    }
    chain
}
