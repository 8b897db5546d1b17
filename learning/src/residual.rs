//! What a residual block is made of.

use crate::architecture::Stacked;
use crate::{Activation, Layer, Shape};

/// What what came in goes through before it is added; nothing if it has the right shape.
pub(crate) fn shortcut(
    input: Shape,
    channels: usize,
    stride: usize,
    groups: usize,
) -> Vec<(&'static str, Layer)> {
    match input {
        Shape::Image { channels: before, .. } if before == channels && stride == 1 => vec![],
        _ => vec![
            ("shortcut", Layer::Conv2d { channels, kernel: 1, stride, padding: 0 }),
            ("shortcut_norm", Layer::GroupNorm { groups }),
        ],
    }
}

/// What it is added to; a ReLU follows the sum.
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

/// The layers of a residual block, its shortcut first, and how many of them are the shortcut; `None` for another layer.
pub(crate) fn parts(stacked: &Stacked) -> Option<(Vec<Stacked>, usize)> {
    let Layer::Residual { channels, stride, groups } = stacked.layer else { return None };
    let shortcut = shortcut(stacked.input, channels, stride, groups);
    let mut parts = chain(stacked, &shortcut);
    parts.extend(chain(stacked, &main(channels, stride, groups)));
    Some((parts, shortcut.len()))
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
