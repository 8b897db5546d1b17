//! Models of any layers: what may follow what, and how many parameters that makes.

use serde::{Deserialize, Serialize};

use crate::canonical::Writer;

/// One layer of a model; images have their channels last. In an experiment file a layer is written `"relu"` or
/// `{ conv2d = { channels = 32, kernel = 3 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Layer {
    /// A linear map and a bias; takes an image as the vector of its numbers.
    Dense {
        /// Width of what it gives.
        outputs: u32,
    },
    /// A square kernel moved over an image in a margin of zeros, and a bias.
    Conv2d {
        /// Channels of what it gives.
        channels: u32,
        /// Height and width of the kernel.
        kernel: u32,
        /// Pixels from one place of the kernel to the next.
        #[serde(default = "one")]
        stride: u32,
        /// Width of the margin.
        #[serde(default)]
        padding: u32,
    },
    /// The largest number of each channel in squares that do not overlap.
    MaxPool2d {
        /// Height and width of a square.
        size: u32,
    },
    /// The mean of each channel in squares that do not overlap.
    AvgPool2d {
        /// Height and width of a square.
        size: u32,
    },
    /// The mean of each channel over an image.
    GlobalAvgPool,
    /// Mean 0 and variance 1 over groups of neighbouring channels of an image, then learned amounts for each channel.
    GroupNorm {
        /// Groups, which divide the channels.
        groups: u32,
    },
    /// Refused, with the reason: it mixes the examples of a batch.
    BatchNorm,
    /// Two convolutions of 3 x 3 with group normalization, added to what came in.
    Residual {
        /// Channels of what it gives.
        channels: u32,
        /// Of the first convolution.
        #[serde(default = "one")]
        stride: u32,
        /// Groups of each normalization, which divide the channels.
        groups: u32,
    },
    /// max(0, x)
    Relu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// tanh(x)
    Tanh,
    /// Sets numbers to zero at random while training, and scales the others up.
    Dropout {
        /// Probability of a number, at least 0 and below 1.
        rate: f64,
    },
    /// An image as the vector of its numbers, row by row, channels last.
    Flatten,
    /// The mean of the vectors of an example's words, which are numbers below `vocabulary`; negative ones are no words.
    EmbeddingBag {
        /// Number of words.
        vocabulary: u32,
        /// Width of a word's vector.
        width: u32,
    },
    /// The vector of each of an example's words, which are numbers below `vocabulary`; negative ones give zeros.
    Embedding {
        /// Number of words.
        vocabulary: u32,
        /// Width of a word's vector.
        width: u32,
    },
    /// Kernels moved over windows of `shortest` to `longest` neighbours in a sequence, a bias, and the largest answer of each.
    Ngrams {
        /// Neighbours in the smallest window.
        shortest: u32,
        /// Neighbours in the largest.
        longest: u32,
        /// Kernels of each width.
        channels: u32,
    },
    /// A kernel moved over a sequence that looks at a vector and those before it only, and a bias.
    CausalConv1d {
        /// Numbers of a vector that it gives.
        channels: u32,
        /// Vectors that it looks at.
        kernel: u32,
        /// Places from one of them to the next.
        #[serde(default = "one")]
        dilation: u32,
    },
    /// Normalization, a causal convolution, a ReLU and a map back to the width of the sequence, added to what came in.
    TemporalBlock {
        /// Channels of the convolution.
        hidden: u32,
        /// Vectors that it looks at.
        kernel: u32,
        /// Places from one of them to the next.
        #[serde(default = "one")]
        dilation: u32,
        /// The probability with which numbers that are added are dropped while training.
        #[serde(default)]
        dropout: f64,
    },
    /// Mean 0 and variance 1 over the numbers of each example, or of each vector of a sequence, then learned amounts.
    LayerNorm,
    /// A learned vector for each place of a sequence, added to what stands there.
    Positions,
    /// Attention and a feed-forward part, each added to the sequence that comes in.
    TransformerBlock(Block),
    /// The mean of a sequence's vectors that stand at words.
    Mean,
    /// The first vector of a sequence.
    First,
    /// From here each place of a sequence is an example, whose class is the word that follows.
    NextWord,
}

/// A block of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Heads of the attention, which share the width.
    pub heads: u32,
    /// Width of the feed-forward part.
    pub feed_forward: u32,
    /// Whether a place looks at itself and those before it only.
    #[serde(default)]
    pub causal: bool,
    /// Where the normalizations stand.
    #[serde(default)]
    pub norm: NormPlace,
    /// The probability with which numbers that are added are dropped while training.
    #[serde(default)]
    pub dropout: f64,
}

/// Where the normalizations of a block stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormPlace {
    /// Before attention and before the feed-forward part.
    #[default]
    Before,
    /// After each sum.
    After,
}

/// A transformer, by its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transformer {
    /// Words that it reads.
    pub vocabulary: u32,
    /// Blocks, at least 1.
    pub layers: u32,
    /// Heads of each.
    pub heads: u32,
    /// Width of the vectors.
    pub width: u32,
    /// Width of the feed-forward parts.
    pub feed_forward: u32,
    /// The probability with which numbers are dropped while training, after the embedding and in every block.
    #[serde(default)]
    pub dropout: f64,
    /// Where the normalizations stand.
    #[serde(default)]
    pub norm: NormPlace,
    /// What stands for a whole text, unless the next word is predicted.
    #[serde(default)]
    pub summary: Summary,
}

/// What stands for a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Summary {
    /// The mean of the vectors at words.
    #[default]
    Mean,
    /// The first vector.
    First,
}

impl Transformer {
    /// Its layers: an encoder, or a causal model of the next word.
    pub fn resolve(&self, next_word: bool) -> Vec<Layer> {
        let Transformer { vocabulary, layers, heads, width, feed_forward, dropout, norm, summary } = *self;
        let block = Block { heads, feed_forward, causal: next_word, norm, dropout };
        let mut resolved = vec![Layer::Embedding { vocabulary, width }, Layer::Positions];
        // With the norms after the sums nothing grows from block to block, and the embedding is normalized, as in BERT.
        if norm == NormPlace::After {
            resolved.push(Layer::LayerNorm);
        }
        if dropout > 0.0 {
            resolved.push(Layer::Dropout { rate: dropout });
        }
        resolved.extend((0..layers.min(MAX_LAYERS as u32 + 1)).map(|_| Layer::TransformerBlock(block)));
        if norm == NormPlace::Before {
            resolved.push(Layer::LayerNorm);
        }
        resolved.push(match (next_word, summary) {
            (true, _) => Layer::NextWord,
            (false, Summary::Mean) => Layer::Mean,
            (false, Summary::First) => Layer::First,
        });
        resolved
    }
}

/// What passes between two layers.
#[derive(Clone, Copy)]
enum Shape {
    Vector(u64),
    /// So many vectors of one width.
    Sequence([u64; 2]),
    /// The same, each an example of its own.
    Each([u64; 2]),
    Image([u64; 3]),
}

impl Shape {
    /// Numbers in it, if they can be counted.
    fn len(self) -> Option<u64> {
        match self {
            Shape::Vector(len) => Some(len),
            Shape::Sequence([length, width]) | Shape::Each([length, width]) => length.checked_mul(width),
            Shape::Image([height, width, channels]) => height.checked_mul(width)?.checked_mul(channels),
        }
    }
}

/// Parameters of a model of these layers and a last, dense one; `image` is height, width and channels of an example.
///
/// # Errors
/// What is wrong with the first layer that makes no sense.
pub(super) fn count_parameters(
    inputs: u32,
    image: Option<[u32; 3]>,
    layers: &[Layer],
    classes: u32,
) -> Result<u64, String> {
    let mut shape = image.map_or(Shape::Vector(inputs.into()), |image| Shape::Image(image.map(u64::from)));
    if shape.len() != Some(inputs.into()) {
        return Err(format!("is about images {image:?}, but an example has {inputs} numbers"));
    }
    if layers.len() > MAX_LAYERS {
        return Err(format!("has {} layers, more than {MAX_LAYERS}", layers.len()));
    }
    let mut count = 0_u64;
    let last = Layer::Dense { outputs: classes };
    for (index, &layer) in layers.iter().chain([&last]).enumerate() {
        let wrong = |problem: &str| format!("makes no sense at layer {index}, counted from 0: it {problem}");
        let (next, parameters) = follow(shape, layer, index == 0).map_err(wrong)?;
        let len = next.len().filter(|len| (1..=MAX_WIDTH).contains(len));
        len.ok_or_else(|| wrong(&format!("must give 1 to {MAX_WIDTH} numbers for an example")))?;
        count = count.saturating_add(parameters);
        shape = next;
    }
    check_next_word(layers, classes)?;
    Ok(count)
}

/// Whether a model of the next word reads the words that it predicts, and does not look ahead.
fn check_next_word(layers: &[Layer], classes: u32) -> Result<(), String> {
    let Some(end) = layers.iter().position(|layer| *layer == Layer::NextWord) else { return Ok(()) };
    if layers[..end].iter().any(|layer| matches!(layer, Layer::TransformerBlock(block) if !block.causal)) {
        return Err(
            "predicts the next word, which a block before looks at: say causal = true in all of them".into(),
        );
    }
    match layers[0] {
        Layer::Embedding { vocabulary, .. } if vocabulary != classes => Err(format!(
            "predicts one of {classes} words, the classes of task.data, but the embedding reads {vocabulary}"
        )),
        _ => Ok(()),
    }
}

/// What a layer makes of `input`, and how many parameters it has.
fn follow(input: Shape, layer: Layer, first: bool) -> Result<(Shape, u64), &'static str> {
    let len = input.len().unwrap_or(u64::MAX);
    Ok(match layer {
        Layer::Dense { outputs } if matches!(input, Shape::Each(_)) => {
            let (Shape::Each([length, width]), outputs) = (input, u64::from(outputs)) else { unreachable!() };
            (Shape::Each([length, outputs]), (width + 1).saturating_mul(outputs))
        }
        Layer::Dense { outputs } => {
            let outputs = u64::from(outputs);
            (Shape::Vector(outputs), len.saturating_add(1).saturating_mul(outputs))
        }
        Layer::Conv2d { kernel, stride, padding, .. } if stride == 0 || (kernel > 0 && padding >= kernel) => {
            return Err("must move by at least one pixel, in a margin narrower than its kernel");
        }
        Layer::Conv2d { channels, kernel, stride, padding } => {
            let input = match input {
                Shape::Image([height, width, before]) => {
                    let margin = 2 * u64::from(padding);
                    Shape::Image([height.saturating_add(margin), width.saturating_add(margin), before])
                }
                other => other,
            };
            let ([height, width, before], kernel) = (window(input, kernel)?, u64::from(kernel));
            let channels = u64::from(channels);
            let weights = (kernel * kernel).saturating_mul(before).saturating_mul(channels);
            let steps = |side: u64| (side - kernel) / u64::from(stride) + 1;
            (Shape::Image([steps(height), steps(width), channels]), weights.saturating_add(channels))
        }
        Layer::AvgPool2d { size } => {
            let ([height, width, channels], size) = (window(input, size)?, u64::from(size));
            (Shape::Image([height / size, width / size, channels]), 0)
        }
        Layer::GlobalAvgPool => (Shape::Vector(window(input, 1)?[2]), 0),
        Layer::BatchNorm => {
            return Err(
                "is not offered: it makes an example's gradient depend on the others of its batch, so no norm bounds what one \
                 of them changes, and its statistics would leave clients without noise; use { group-norm = { groups = 8 } }",
            );
        }
        Layer::GroupNorm { groups } => {
            let [_, _, channels] = window(input, 1)?;
            if groups == 0 || !channels.is_multiple_of(u64::from(groups)) {
                return Err("must have groups that divide the channels of the image");
            }
            (input, channels.saturating_mul(2))
        }
        Layer::Residual { channels, stride, groups } => residual(input, channels, stride, groups)?,
        Layer::MaxPool2d { size } if size > MAX_POOL => return Err("pools squares of more than 15 pixels"),
        Layer::MaxPool2d { size } => {
            let ([height, width, channels], size) = (window(input, size)?, u64::from(size));
            (Shape::Image([height / size, width / size, channels]), 0)
        }
        Layer::Dropout { rate } if !(0.0..1.0).contains(&rate) => {
            return Err("must drop out at a rate of at least 0 and below 1");
        }
        Layer::Relu | Layer::Sigmoid | Layer::Tanh | Layer::Dropout { .. } => (input, 0),
        Layer::Flatten => (Shape::Vector(len), 0),
        Layer::EmbeddingBag { vocabulary: 0, .. } | Layer::Embedding { vocabulary: 0, .. } => {
            return Err("must have at least one word");
        }
        Layer::EmbeddingBag { .. } | Layer::Embedding { .. } if !first => {
            return Err("can only be the first: words come from the data");
        }
        Layer::EmbeddingBag { vocabulary, width } => {
            (Shape::Vector(width.into()), u64::from(vocabulary) * u64::from(width))
        }
        Layer::Embedding { vocabulary, width } => {
            let sequence = Shape::Sequence([len, width.into()]);
            (sequence, u64::from(vocabulary) * u64::from(width))
        }
        Layer::Ngrams { shortest, longest, channels } => {
            let Shape::Sequence([length, width]) = input else {
                return Err("needs a sequence: put an embedding before it");
            };
            let [shortest, longest, channels] = [shortest, longest, channels].map(u64::from);
            if shortest == 0 || shortest > longest || longest > length {
                return Err("must have 1 <= shortest <= longest <= the length of the sequence");
            }
            let sizes = longest - shortest + 1;
            // The sum of all widths of windows.
            let rows = (shortest + longest).saturating_mul(sizes) / 2;
            let weights = rows.saturating_mul(width).saturating_mul(channels);
            let features = sizes.saturating_mul(channels);
            (Shape::Vector(features), weights.saturating_add(features))
        }
        Layer::LayerNorm => match input {
            Shape::Image(_) => return Err("needs vectors: put \"flatten\" before it"),
            Shape::Vector(len) | Shape::Sequence([_, len]) | Shape::Each([_, len]) => {
                (input, len.saturating_mul(2))
            }
        },
        Layer::Positions
        | Layer::TransformerBlock(_)
        | Layer::CausalConv1d { .. }
        | Layer::TemporalBlock { .. }
        | Layer::Mean
        | Layer::First
        | Layer::NextWord => {
            let Shape::Sequence(sequence) = input else {
                return Err("needs a sequence: put an embedding before it");
            };
            follow_sequence(sequence, layer)?
        }
    })
}

/// What a layer that needs a sequence makes of one.
fn follow_sequence([length, width]: [u64; 2], layer: Layer) -> Result<(Shape, u64), &'static str> {
    let sequence = Shape::Sequence([length, width]);
    Ok(match layer {
        Layer::TransformerBlock(block) => {
            if !(0.0..1.0).contains(&block.dropout) {
                return Err("must drop out at a rate of at least 0 and below 1");
            }
            if block.heads == 0 || !width.is_multiple_of(block.heads.into()) {
                return Err("must have heads that divide the width of the vectors");
            }
            if block.feed_forward == 0 {
                return Err("must have a feed-forward part of at least one number");
            }
            let wide = u64::from(block.feed_forward);
            let attention = width.saturating_mul(width).saturating_add(width).saturating_mul(4);
            let feed = width.saturating_mul(wide).saturating_mul(2).saturating_add(width + wide);
            (sequence, attention.saturating_add(feed).saturating_add(4 * width))
        }
        Layer::CausalConv1d { channels, kernel, dilation } => {
            fit_kernel(kernel, dilation, length)?;
            let channels = u64::from(channels);
            let weights = u64::from(kernel).saturating_mul(width).saturating_mul(channels);
            (Shape::Sequence([length, channels]), weights.saturating_add(channels))
        }
        Layer::TemporalBlock { dropout, .. } if !(0.0..1.0).contains(&dropout) => {
            return Err("must drop out at a rate of at least 0 and below 1");
        }
        Layer::TemporalBlock { hidden: 0, .. } => return Err("must have at least one hidden channel"),
        Layer::TemporalBlock { hidden, kernel, dilation, .. } => {
            fit_kernel(kernel, dilation, length)?;
            let (hidden, taps) = (u64::from(hidden), u64::from(kernel) + 1);
            let weights = taps.saturating_mul(width).saturating_mul(hidden);
            (sequence, weights.saturating_add(hidden).saturating_add(width.saturating_mul(3)))
        }
        Layer::Mean | Layer::First => (Shape::Vector(width), 0),
        Layer::NextWord => (Shape::Each([length, width]), 0),
        _ => (sequence, length.saturating_mul(width)),
    })
}

/// Whether so many places of a kernel, so far apart, fit a sequence.
fn fit_kernel(kernel: u32, dilation: u32, length: u64) -> Result<(), &'static str> {
    let reach = u64::from(kernel.saturating_sub(1)) * u64::from(dilation);
    if kernel == 0 || dilation == 0 || reach >= length {
        return Err(
            "must have kernel >= 1, dilation >= 1 and (kernel - 1) * dilation below the length of the sequence",
        );
    }
    Ok(())
}

/// The layers of a residual block: its shortcut, if sizes differ, and its main way.
fn residual(input: Shape, channels: u32, stride: u32, groups: u32) -> Result<(Shape, u64), &'static str> {
    let [_, _, before] = window(input, 1)?;
    let (conv, norm) = (
        |kernel, stride, padding| Layer::Conv2d { channels, kernel, stride, padding },
        Layer::GroupNorm { groups },
    );
    let mut count = 0_u64;
    if before != u64::from(channels) || stride != 1 {
        let mut shape = input;
        for layer in [conv(1, stride, 0), norm] {
            let (next, parameters) = follow(shape, layer, false)?;
            (shape, count) = (next, count.saturating_add(parameters));
        }
    }
    let mut shape = input;
    for layer in [conv(3, stride, 1), norm, conv(3, 1, 1), norm] {
        let (next, parameters) = follow(shape, layer, false)?;
        (shape, count) = (next, count.saturating_add(parameters));
    }
    Ok((shape, count))
}

fn one() -> u32 {
    1
}

fn window(input: Shape, size: u32) -> Result<[u64; 3], &'static str> {
    match input {
        Shape::Vector(_) | Shape::Sequence(_) | Shape::Each(_) => {
            Err("needs an image: say task.model.image, and flatten later")
        }
        Shape::Image(_) if size == 0 => Err("must be at least one pixel wide"),
        Shape::Image([height, width, _]) if u64::from(size) > height.min(width) => {
            Err("is wider than the image that comes in")
        }
        Shape::Image(image) => Ok(image),
    }
}

/// Layers as they enter the digest of a task.
pub(super) fn write(writer: &mut Writer, image: Option<[u32; 3]>, layers: &[Layer]) {
    for number in image.unwrap_or_default() {
        writer.u32(number);
    }
    writer.length(layers.len());
    for &layer in layers {
        match layer {
            Layer::Dense { outputs } => writer.u8(0).u32(outputs),
            // As before there were steps and margins.
            Layer::Conv2d { channels, kernel, stride: 1, padding: 0 } => {
                writer.u8(1).u32(channels).u32(kernel)
            }
            Layer::Conv2d { channels, kernel, stride, padding } => {
                writer.u8(12).u32(channels).u32(kernel).u32(stride).u32(padding)
            }
            Layer::AvgPool2d { size } => writer.u8(13).u32(size),
            Layer::GlobalAvgPool => writer.u8(14),
            Layer::GroupNorm { groups } => writer.u8(15).u32(groups),
            Layer::BatchNorm => writer.u8(16),
            Layer::Residual { channels, stride, groups } => {
                writer.u8(17).u32(channels).u32(stride).u32(groups)
            }
            Layer::MaxPool2d { size } => writer.u8(2).u32(size),
            Layer::Relu => writer.u8(3),
            Layer::Sigmoid => writer.u8(4),
            Layer::Tanh => writer.u8(5),
            Layer::Dropout { rate } => writer.u8(6).f64(rate),
            Layer::Flatten => writer.u8(7),
            Layer::EmbeddingBag { vocabulary, width } => writer.u8(8).u32(vocabulary).u32(width),
            Layer::LayerNorm => writer.u8(9),
            Layer::Embedding { vocabulary, width } => writer.u8(10).u32(vocabulary).u32(width),
            Layer::Positions => writer.u8(12),
            Layer::TransformerBlock(Block { heads, feed_forward, causal, norm, dropout }) => {
                let norm = match norm {
                    NormPlace::Before => 0,
                    NormPlace::After => 1,
                };
                writer.u8(13).u32(heads).u32(feed_forward).u8(causal.into()).u8(norm).f64(dropout)
            }
            Layer::Mean => writer.u8(14),
            Layer::First => writer.u8(15),
            Layer::NextWord => writer.u8(16),
            Layer::CausalConv1d { channels, kernel, dilation } => {
                writer.u8(18).u32(channels).u32(kernel).u32(dilation)
            }
            Layer::TemporalBlock { hidden, kernel, dilation, dropout } => {
                writer.u8(19).u32(hidden).u32(kernel).u32(dilation).f64(dropout)
            }
            Layer::Ngrams { shortest, longest, channels } => {
                writer.u8(11).u32(shortest).u32(longest).u32(channels)
            }
        };
    }
}

/// The convolutional network of pfl-research's CIFAR-10 benchmark (Granqvist et al., arXiv 2404.06430).
pub fn simple_cnn(dropout: bool) -> Vec<Layer> {
    let (conv, drop) = (
        |channels| Layer::Conv2d { channels, kernel: 3, stride: 1, padding: 0 },
        |rate| Layer::Dropout { rate },
    );
    let layers = [
        conv(32),
        Layer::Relu,
        conv(64),
        Layer::Relu,
        Layer::MaxPool2d { size: 2 },
        drop(0.25),
        Layer::Flatten,
        Layer::Dense { outputs: 128 },
        Layer::Relu,
        drop(0.5),
    ];
    layers.into_iter().filter(|layer| dropout || !matches!(layer, Layer::Dropout { .. })).collect()
}

/// The network of LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, in today's spelling: ReLU and
/// the largest number in place of sigmoids and means.
pub fn lenet() -> Vec<Layer> {
    let conv = |channels, padding| Layer::Conv2d { channels, kernel: 5, stride: 1, padding };
    let (pool, dense) = (Layer::MaxPool2d { size: 2 }, |outputs| Layer::Dense { outputs });
    [
        [conv(6, 2), Layer::Relu, pool].as_slice(),
        &[conv(16, 0), Layer::Relu, pool, Layer::Flatten],
        &[dense(120), Layer::Relu, dense(84), Layer::Relu],
    ]
    .concat()
}

/// A residual network for small images (He et al., 1512.03385, section 4.2) with group normalization: three stages of so many
/// blocks, of `width`, 2 `width` and 4 `width` channels. Images above 64 pixels are made smaller at once.
pub fn resnet(image: [u32; 3], blocks: u32, width: u32) -> Vec<Layer> {
    let groups = [8, 4, 2, 1].into_iter().find(|&groups| width.is_multiple_of(groups)).unwrap_or(1);
    let large = image[0].min(image[1]) > 64;
    let stem = match large {
        true => Layer::Conv2d { channels: width, kernel: 7, stride: 2, padding: 3 },
        false => Layer::Conv2d { channels: width, kernel: 3, stride: 1, padding: 1 },
    };
    let mut layers = vec![stem, Layer::GroupNorm { groups }, Layer::Relu];
    layers.extend(large.then_some(Layer::MaxPool2d { size: 2 }));
    for stage in 0..3 {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            layers.push(Layer::Residual { channels: width << stage, stride, groups });
        }
    }
    layers.push(Layer::GlobalAvgPool);
    layers
}

const MAX_LAYERS: usize = 64;
const MAX_POOL: u32 = 15;
/// Most numbers that a layer may give for one example.
const MAX_WIDTH: u64 = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_network_has_as_many_parameters_as_its_authors_count() {
        assert_eq!(count_parameters(3072, Some([32, 32, 3]), &simple_cnn(true), 10), Ok(1_626_442));
        assert_eq!(count_parameters(3072, Some([32, 32, 3]), &simple_cnn(false), 10), Ok(1_626_442));
    }

    #[test]
    fn presets_have_as_many_parameters_as_in_their_papers() {
        assert_eq!(count_parameters(784, Some([28, 28, 1]), &lenet(), 10), Ok(61_706));
        // 0.27 million in table 6 of the paper, which has no biases in its convolutions and no convolution in its shortcuts.
        let resnet = |image: [u32; 3]| {
            count_parameters(image.iter().product(), Some(image), &resnet(image, 3, 16), 10)
        };
        assert_eq!(resnet([32, 32, 3]), Ok(273_258));
        assert_eq!(resnet([224, 224, 3]), Ok(273_258 + 3 * 16 * (49 - 9)));
    }

    #[test]
    fn batch_normalization_is_refused_with_the_reason() {
        let refused = count_parameters(12, Some([2, 2, 3]), &[Layer::BatchNorm], 3).unwrap_err();
        assert!(
            refused.contains("depend on the others of its batch") && refused.contains("group-norm"),
            "{refused}"
        );
    }

    #[test]
    fn every_layer_is_counted() {
        let bag = [Layer::EmbeddingBag { vocabulary: 100, width: 8 }, Layer::LayerNorm, Layer::Sigmoid];
        assert_eq!(count_parameters(20, None, &bag, 3), Ok(800 + 16 + 27));
    }

    #[test]
    fn n_grams_are_counted() {
        let layers = [
            Layer::Embedding { vocabulary: 100, width: 8 },
            Layer::Ngrams { shortest: 2, longest: 4, channels: 5 },
            Layer::Relu,
        ];
        let (words, kernels, output) = (100 * 8, (2 + 3 + 4) * 8 * 5 + 15, 16 * 3);
        assert_eq!(count_parameters(20, None, &layers, 3), Ok(words + kernels + output));
        assert!(count_parameters(3, None, &layers, 3).unwrap_err().contains("shortest <= longest"));
        assert!(count_parameters(20, None, &layers[1..], 3).unwrap_err().contains("embedding before it"));
    }

    #[test]
    fn causal_convolutions_are_counted() {
        let block = Layer::TemporalBlock { hidden: 12, kernel: 4, dilation: 5, dropout: 0.1 };
        let layers = [
            Layer::Embedding { vocabulary: 66, width: 8 },
            Layer::CausalConv1d { channels: 10, kernel: 3, dilation: 2 },
            block,
            Layer::NextWord,
        ];
        let conv = 3 * 8 * 10 + 10;
        let blocks = 2 * 10 + (4 * 10 * 12 + 12) + (12 * 10 + 10);
        assert_eq!(count_parameters(16, None, &layers, 66), Ok(66 * 8 + conv + blocks + 11 * 66));
        assert!(
            count_parameters(15, None, &layers, 66).unwrap_err().contains("(kernel - 1) * dilation below")
        );
        assert!(count_parameters(16, None, &[block], 66).unwrap_err().contains("needs a sequence"));
    }

    #[test]
    fn transformers_are_counted() {
        let transformer = Transformer {
            vocabulary: 66,
            layers: 2,
            heads: 4,
            width: 32,
            feed_forward: 100,
            dropout: 0.1,
            norm: NormPlace::Before,
            summary: Summary::Mean,
        };
        let block = 4 * (32 * 32 + 32) + (32 * 100 + 100) + (100 * 32 + 32) + 4 * 32;
        let count = |layers: &[Layer], classes| count_parameters(16, None, layers, classes);
        let (words, places, norm) = (66 * 32, 16 * 32, 64);
        assert_eq!(count(&transformer.resolve(false), 3), Ok(words + places + 2 * block + norm + 33 * 3));
        assert_eq!(count(&transformer.resolve(true), 66), Ok(words + places + 2 * block + norm + 33 * 66));
        let refused = |layers: &[Layer], classes| count(layers, classes).unwrap_err();
        assert!(refused(&transformer.resolve(true), 65).contains("predicts one of 65 words"));
        let mut looks = transformer.resolve(false);
        *looks.last_mut().unwrap() = Layer::NextWord;
        assert!(refused(&looks, 66).contains("looks at: say causal = true"));
        let uneven = Transformer { heads: 5, ..transformer };
        assert!(refused(&uneven.resolve(false), 3).contains("layer 3, counted from 0: it must have heads"));
        assert!(refused(&transformer.resolve(false)[2..], 3).contains("needs a sequence"));
    }

    #[test]
    fn what_cannot_follow_says_where_and_why() {
        let refused = |image, layers: &[Layer]| count_parameters(12, image, layers, 3).unwrap_err();
        let image = Some([2, 2, 3]);
        let conv = Layer::Conv2d { channels: 2, kernel: 3, stride: 1, padding: 0 };
        assert!(refused(None, &[Layer::Relu, conv]).contains("layer 1, counted from 0: it needs an image"));
        assert!(refused(image, &[conv]).contains("wider than the image"));
        assert!(refused(Some([2, 2, 4]), &[]).contains("an example has 12 numbers"));
        assert!(refused(image, &[Layer::LayerNorm]).contains("flatten"));
        assert!(refused(None, &[Layer::Dropout { rate: 1.0 }]).contains("below 1"));
        assert!(refused(None, &[Layer::Dense { outputs: 0 }]).contains("must give 1 to"));
        assert!(
            refused(None, &[Layer::Relu, Layer::EmbeddingBag { vocabulary: 2, width: 2 }]).contains("first")
        );
    }
}
