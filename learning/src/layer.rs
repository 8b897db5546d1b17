//! The layers that models are made of, and the shapes between them.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Activation, residual};

/// One layer of a model. Images have their channels last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// `x W + b`, weight `[inputs, outputs]` and bias `[outputs]`. Takes an image as the vector of its numbers.
    Dense {
        /// Width of what it gives, at least 1.
        outputs: usize,
    },
    /// A square kernel moved over an image in a margin of zeros: weight `[kernel, kernel, channels before, channels]` and bias
    /// `[channels]`.
    Conv2d {
        /// Channels of what it gives, at least 1.
        channels: usize,
        /// Height and width of the kernel, at least 1 and at most those of the image in its margin.
        kernel: usize,
        /// Pixels from one place of the kernel to the next, at least 1.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        stride: usize,
        /// Width of the margin, below that of the kernel.
        #[serde(default, skip_serializing_if = "is_zero")]
        padding: usize,
    },
    /// The largest number of each channel in squares that do not overlap; rows and columns that fill no square are left
    /// out.
    MaxPool2d {
        /// Height and width of a square, 1 to 15 and at most those of the image.
        size: usize,
    },
    /// The mean of each channel in squares that do not overlap; rows and columns that fill no square are left out.
    AvgPool2d {
        /// Height and width of a square, at least 1 and at most those of the image.
        size: usize,
    },
    /// The mean of each channel over an image: a vector.
    GlobalAvgPool,
    /// Shifts and scales groups of neighbouring channels of an image to mean 0 and variance 1, then each channel by learned
    /// amounts: `scale` and `shift`, one each for every channel (Wu and He, "Group Normalization", 1803.08494).
    GroupNorm {
        /// Groups, which divide the channels.
        groups: usize,
    },
    /// Two convolutions of 3 x 3 with group normalization, added to what came in (He et al., "Deep Residual Learning for Image
    /// Recognition", 1512.03385, figure 2). Where sizes differ, that goes through a convolution of 1 x 1 first.
    Residual {
        /// Channels of what it gives, at least 1.
        channels: usize,
        /// Of the first convolution, at least 1.
        stride: usize,
        /// Groups of each normalization, which divide the channels.
        groups: usize,
    },
    /// A function of each number.
    Activation(Activation),
    /// While training, sets each number to zero with probability `rate` and divides the others by 1 − `rate` (Srivastava
    /// et al., "Dropout", 2014). Does nothing in an evaluation.
    Dropout {
        /// Probability, at least 0 and below 1.
        rate: f32,
    },
    /// An image as the vector of its numbers: row by row, channels last.
    Flatten,
    /// The mean of the vectors of an example's words: weight `[vocabulary, width]`. An example is a row of word numbers;
    /// a negative number is no word, and an example without words gives zero.
    EmbeddingBag {
        /// Number of words, at least 1; a word's number is below it.
        vocabulary: usize,
        /// Width of a word's vector, at least 1.
        width: usize,
    },
    /// The vector of each of an example's words, in their order: weight `[vocabulary, width]`. A negative number is no word
    /// and gives zeros.
    Embedding {
        /// Number of words, at least 1; a word's number is below it.
        vocabulary: usize,
        /// Width of a word's vector, at least 1.
        width: usize,
    },
    /// Kernels moved over windows of `shortest` to `longest` neighbours of a sequence, and the largest answer of each
    /// (Kim, "Convolutional Neural Networks for Sentence Classification", 2014): weight `[numbers of a window, one width after the
    /// other, channels]` and bias `[widths x channels]`.
    Ngrams {
        /// Neighbours in the smallest window, at least 1.
        shortest: usize,
        /// Neighbours in the largest, at most the length of the sequence.
        longest: usize,
        /// Kernels of each width, at least 1.
        channels: usize,
    },
    /// A kernel moved over a sequence that looks at a vector and those before it only, with zeros before the beginning: weight
    /// `[kernel, width before, channels]`, the place that looks back furthest first, and bias `[channels]`.
    CausalConv1d {
        /// Numbers of a vector that it gives, at least 1.
        channels: usize,
        /// Vectors that it looks at, at least 1.
        kernel: usize,
        /// Places from one of them to the next, at least 1; all of them fit the sequence.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        dilation: usize,
    },
    /// Layer normalization, a causal convolution, a ReLU, and a convolution of one place back to the width of the sequence, added to
    /// what came in (after Bai, Kolter and Koltun, "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    /// Modeling", 1803.01271, figure 1).
    TemporalBlock {
        /// Channels of the first convolution, at least 1.
        hidden: usize,
        /// Vectors that it looks at, at least 1.
        kernel: usize,
        /// Places from one of them to the next, at least 1; all of them fit the sequence.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        dilation: usize,
        /// While training, the probability with which each number that is added is dropped; at least 0 and below 1.
        #[serde(default)]
        dropout: f32,
    },
    /// Shifts and scales the numbers of a vector, or of each vector of a sequence, to mean 0 and variance 1, then by learned
    /// amounts: `scale` and `shift`, one each for every number (Ba, Kiros and Hinton, "Layer Normalization", 2016).
    LayerNorm,
    /// Adds a learned vector to each place of a sequence: weight `[length, width]`.
    Positions,
    /// Attention and a feed-forward part on a sequence.
    TransformerBlock(Block),
    /// The mean of the vectors of a sequence that stand at words; zeros if there are none.
    Mean,
    /// The first vector of a sequence.
    First,
    /// Makes each place of a sequence an example of its own, whose class is the word that follows: what comes after works on one
    /// vector at a time, and the classes are the words of the embedding.
    NextWord,
}

/// A block of a transformer (Vaswani et al., "Attention Is All You Need", 1706.03762): scaled dot-product attention of
/// several heads, then `gelu(x U + a) D + b`, each added to what came in. Places that are no words are not looked at.
///
/// The weights `query`, `key`, `value` and `attention`, which mixes the heads' answers, are `[width, width]`; `up` is
/// `[width, feed_forward]`, `down` the other way; each has a bias. `norm.0` and `norm.1` are layer normalizations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Heads of the attention, at least 1; they share the width equally.
    pub heads: usize,
    /// Width of the feed-forward part, at least 1.
    pub feed_forward: usize,
    /// Whether a place looks at itself and those before it only.
    pub causal: bool,
    /// Where the normalizations stand.
    pub norm: NormPlace,
    /// While training, the probability with which each number that attention or the feed-forward part adds is dropped;
    /// at least 0 and below 1.
    pub dropout: f32,
}

/// Where the normalizations of a block stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// Before attention and before the feed-forward part (Xiong et al., 2002.04745).
    Before,
    /// After each sum, as in the first transformers and in BERT.
    After,
}

/// What an example is, or what a layer makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// So many numbers.
    Vector(usize),
    /// So many vectors of one width, one after the other.
    Sequence {
        /// Vectors.
        length: usize,
        /// Numbers in a vector.
        width: usize,
    },
    /// So many vectors of one width, each an example of its own.
    Each {
        /// Vectors.
        length: usize,
        /// Numbers in a vector.
        width: usize,
    },
    /// Pixels row by row, each with its channels side by side.
    Image {
        /// Rows of pixels.
        height: usize,
        /// Pixels in a row.
        width: usize,
        /// Numbers in a pixel.
        channels: usize,
    },
}

/// Why a layer cannot follow the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayerFault {
    /// Nothing comes in or goes out.
    #[error("takes or gives nothing: every width must be at least 1")]
    Empty,
    /// Convolutions and pooling work on images.
    #[error("needs an image, but a vector of {0} numbers comes in")]
    NotAnImage(usize),
    /// N-grams, attention and the like work on sequences.
    #[error("needs a sequence: put an embedding before it")]
    NotASequence,
    /// The heads do not share the width.
    #[error("has {heads} heads, which cannot share vectors of {width} numbers equally")]
    Heads {
        /// Heads.
        heads: usize,
        /// Numbers in a vector.
        width: usize,
    },
    /// Who sees the answer need not learn it.
    #[error("predicts words that a block before it looks at: make all blocks causal")]
    SeesTheAnswer,
    /// The words that are predicted are those that are read.
    #[error("predicts one of {classes} words, but the embedding reads {vocabulary}")]
    OtherWords {
        /// Classes of the model.
        classes: usize,
        /// Words of the embedding.
        vocabulary: usize,
    },
    /// The windows do not fit.
    #[error("has windows of {shortest} to {longest} neighbours, but the sequence is {length} long")]
    Windows {
        /// Neighbours in the smallest window.
        shortest: usize,
        /// Neighbours in the largest.
        longest: usize,
        /// Of the sequence.
        length: usize,
    },
    /// A kernel of nothing, or longer than the sequence.
    #[error(
        "looks {kernel} places back, {dilation} apart, which must be 1 or more and fit a sequence of {length}"
    )]
    Reach {
        /// Places of the kernel.
        kernel: usize,
        /// From one to the next.
        dilation: usize,
        /// Of the sequence.
        length: usize,
    },
    /// Normalization works on vectors.
    #[error("needs vectors, but an image comes in: put a flatten layer before it")]
    NotAVector,
    /// The kernel or the square does not fit.
    #[error("is {size} pixels wide, but the image is {height} x {width}")]
    TooWide {
        /// Of the kernel or the square.
        size: usize,
        /// Of the image.
        height: usize,
        /// Of the image.
        width: usize,
    },
    /// A margin that some kernels would lie in alone, or steps of nothing.
    #[error("must move by at least one pixel, in a margin narrower than its kernel")]
    Steps,
    /// Groups of channels of different sizes.
    #[error("has {groups} groups, which do not divide {channels} channels")]
    Groups {
        /// Groups asked for.
        groups: usize,
        /// Channels of the image.
        channels: usize,
    },
    /// A pooling square of more than 15 pixels.
    #[error("pools squares of {0} pixels; at most 15 are possible")]
    PoolSize(usize),
    /// A dropout rate that is no probability below 1.
    #[error("drops out at a rate that is not at least 0 and below 1")]
    Rate,
    /// More numbers than [`MAX_WIDTH`].
    #[error("gives {0} numbers for each example, more than the limit of {MAX_WIDTH}")]
    TooMany(usize),
    /// Word numbers come from the data only.
    #[error("can only be the first layer: word numbers come from the data")]
    NotFirst,
}

impl Shape {
    /// Numbers in it; `usize::MAX` if they cannot be counted.
    pub fn len(&self) -> usize {
        match *self {
            Self::Vector(len) => len,
            Self::Sequence { length, width } | Self::Each { length, width } => length.saturating_mul(width),
            Self::Image { height, width, channels } => height.saturating_mul(width).saturating_mul(channels),
        }
    }

    /// Numbers that a dense layer takes at once: all, or those of one vector where each is an example.
    pub(crate) fn row(&self) -> usize {
        match *self {
            Self::Each { width, .. } => width,
            _ => self.len(),
        }
    }

    /// Numbers of one of its vectors; all where there are none.
    pub(crate) fn vector(&self) -> usize {
        match *self {
            Self::Sequence { width, .. } | Self::Each { width, .. } => width,
            _ => self.len(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layer {
    /// What the layer makes of `input`; `first` says that nothing stands before it.
    ///
    /// # Errors
    /// [`LayerFault`].
    pub fn output(&self, input: Shape, first: bool) -> Result<Shape, LayerFault> {
        let output = match *self {
            Self::Dense { outputs } => match input {
                Shape::Each { length, .. } => Shape::Each { length, width: outputs },
                _ => Shape::Vector(outputs),
            },
            Self::Conv2d { kernel, stride, padding, .. }
                if stride == 0 || (kernel > 0 && padding >= kernel) =>
            {
                return Err(LayerFault::Steps);
            }
            Self::Conv2d { channels, kernel, stride, padding } => {
                let input = match input {
                    Shape::Image { height, width, channels } => {
                        let wider = |side: usize| side.saturating_add(2 * padding);
                        Shape::Image { height: wider(height), width: wider(width), channels }
                    }
                    other => other,
                };
                let [height, width, _] = window(input, kernel)?;
                let steps = |side: usize| (side - kernel) / stride + 1;
                Shape::Image { height: steps(height), width: steps(width), channels }
            }
            Self::AvgPool2d { size } => {
                let [height, width, channels] = window(input, size)?;
                Shape::Image { height: height / size, width: width / size, channels }
            }
            Self::GlobalAvgPool => Shape::Vector(window(input, 1)?[2]),
            Self::GroupNorm { groups } => {
                let [_, _, channels] = window(input, 1)?;
                if groups == 0 || !channels.is_multiple_of(groups) {
                    return Err(LayerFault::Groups { groups, channels });
                }
                input
            }
            Self::Residual { channels, stride, groups } => {
                let mut output = input;
                for (_, part) in residual::main(channels, stride, groups) {
                    output = part.output(output, false)?;
                }
                output
            }
            Self::MaxPool2d { size } if size > MAX_POOL => return Err(LayerFault::PoolSize(size)),
            Self::MaxPool2d { size } => {
                let [height, width, channels] = window(input, size)?;
                Shape::Image { height: height / size, width: width / size, channels }
            }
            Self::Dropout { rate } if !(0.0..1.0).contains(&rate) => return Err(LayerFault::Rate),
            Self::LayerNorm if matches!(input, Shape::Image { .. }) => return Err(LayerFault::NotAVector),
            Self::Activation(_) | Self::Dropout { .. } | Self::LayerNorm => input,
            Self::TransformerBlock(Block { dropout, .. }) if !(0.0..1.0).contains(&dropout) => {
                return Err(LayerFault::Rate);
            }
            Self::TransformerBlock(Block { feed_forward: 0, .. }) => return Err(LayerFault::Empty),
            Self::TemporalBlock { dropout, .. } if !(0.0..1.0).contains(&dropout) => {
                return Err(LayerFault::Rate);
            }
            Self::TemporalBlock { hidden: 0, .. } => return Err(LayerFault::Empty),
            Self::Positions
            | Self::TransformerBlock(_)
            | Self::CausalConv1d { .. }
            | Self::TemporalBlock { .. }
            | Self::Mean
            | Self::First
            | Self::NextWord => {
                let Shape::Sequence { length, width } = input else { return Err(LayerFault::NotASequence) };
                self.of_sequence(length, width)?
            }
            Self::Flatten => Shape::Vector(input.len()),
            Self::EmbeddingBag { vocabulary: 0, .. } | Self::Embedding { vocabulary: 0, .. } => {
                return Err(LayerFault::Empty);
            }
            Self::EmbeddingBag { .. } | Self::Embedding { .. } if !first => return Err(LayerFault::NotFirst),
            Self::EmbeddingBag { width, .. } => Shape::Vector(width),
            Self::Embedding { width, .. } => Shape::Sequence { length: input.len(), width },
            Self::Ngrams { shortest, longest, channels } => match input {
                Shape::Sequence { length, .. }
                    if shortest >= 1 && shortest <= longest && longest <= length =>
                {
                    Shape::Vector((longest - shortest + 1).saturating_mul(channels))
                }
                Shape::Sequence { length, .. } => {
                    return Err(LayerFault::Windows { shortest, longest, length });
                }
                _ => return Err(LayerFault::NotASequence),
            },
        };
        match output.len() {
            0 => Err(LayerFault::Empty),
            _ if input.is_empty() => Err(LayerFault::Empty),
            len if len > MAX_WIDTH => Err(LayerFault::TooMany(len)),
            _ => Ok(output),
        }
    }

    /// What layers that need a sequence make of one.
    fn of_sequence(&self, length: usize, width: usize) -> Result<Shape, LayerFault> {
        match *self {
            Self::TransformerBlock(Block { heads, .. }) if heads == 0 || !width.is_multiple_of(heads) => {
                Err(LayerFault::Heads { heads, width })
            }
            Self::CausalConv1d { kernel, dilation, .. } | Self::TemporalBlock { kernel, dilation, .. }
                if kernel == 0 || dilation == 0 || (kernel - 1).saturating_mul(dilation) >= length =>
            {
                Err(LayerFault::Reach { kernel, dilation, length })
            }
            Self::CausalConv1d { channels, .. } => Ok(Shape::Sequence { length, width: channels }),
            Self::Mean | Self::First => Ok(Shape::Vector(width)),
            Self::NextWord => Ok(Shape::Each { length, width }),
            _ => Ok(Shape::Sequence { length, width }),
        }
    }

    /// Name and shape of each of the layer's tensors, in their order in the flat parameters.
    pub(crate) fn tensors(&self, input: Shape) -> Vec<(&'static str, Vec<usize>)> {
        match *self {
            Self::Dense { outputs } => {
                vec![("weight", vec![input.row(), outputs]), ("bias", vec![outputs])]
            }
            Self::Conv2d { channels, kernel, .. } => {
                let before = if let Shape::Image { channels, .. } = input { channels } else { 0 };
                vec![("weight", vec![kernel, kernel, before, channels]), ("bias", vec![channels])]
            }
            Self::CausalConv1d { channels, kernel, .. } => {
                vec![("weight", vec![kernel, input.vector(), channels]), ("bias", vec![channels])]
            }
            Self::EmbeddingBag { vocabulary, width } | Self::Embedding { vocabulary, width } => {
                vec![("weight", vec![vocabulary, width])]
            }
            Self::Ngrams { shortest, longest, channels } => {
                let width = if let Shape::Sequence { width, .. } = input { width } else { 0 };
                let sizes = longest.saturating_sub(shortest) + 1;
                // The sum of all widths of windows.
                let rows = (shortest + longest).saturating_mul(sizes) / 2;
                let weight = vec![rows.saturating_mul(width), channels];
                vec![("weight", weight), ("bias", vec![sizes.saturating_mul(channels)])]
            }
            Self::LayerNorm => vec![("scale", vec![input.vector()]), ("shift", vec![input.vector()])],
            Self::GroupNorm { .. } => {
                let channels = if let Shape::Image { channels, .. } = input { channels } else { 0 };
                vec![("scale", vec![channels]), ("shift", vec![channels])]
            }
            Self::Positions => vec![("weight", vec![input.len() / input.vector().max(1), input.vector()])],
            Self::TransformerBlock(block) => block.tensors(input.vector()),
            // Those of its parts.
            Self::Residual { .. } | Self::TemporalBlock { .. } => vec![],
            Self::MaxPool2d { .. }
            | Self::AvgPool2d { .. }
            | Self::GlobalAvgPool
            | Self::Activation(_)
            | Self::Dropout { .. }
            | Self::Flatten
            | Self::Mean
            | Self::First
            | Self::NextWord => vec![],
        }
    }

    /// The name of its kind, as in files.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Conv2d { .. } => "conv2d",
            Self::MaxPool2d { .. } => "max_pool2d",
            Self::AvgPool2d { .. } => "avg_pool2d",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::GroupNorm { .. } => "group_norm",
            Self::Residual { .. } => "residual",
            Self::Activation(_) => "activation",
            Self::Dropout { .. } => "dropout",
            Self::Flatten => "flatten",
            Self::EmbeddingBag { .. } => "embedding_bag",
            Self::Embedding { .. } => "embedding",
            Self::Ngrams { .. } => "ngrams",
            Self::CausalConv1d { .. } => "causal_conv1d",
            Self::TemporalBlock { .. } => "temporal_block",
            Self::LayerNorm => "layer_norm",
            Self::Positions => "positions",
            Self::TransformerBlock(_) => "transformer_block",
            Self::Mean => "mean",
            Self::First => "first",
            Self::NextWord => "next_word",
        }
    }
}

impl Layer {
    /// What it does, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Activation(Activation::Relu) => "relu",
            Self::Activation(Activation::Sigmoid) => "sigmoid",
            Self::Activation(Activation::Tanh) => "tanh",
            other => other.kind(),
        }
    }
}

impl Block {
    /// Name and shape of each tensor of a block on vectors of `width` numbers.
    fn tensors(&self, width: usize) -> Vec<(&'static str, Vec<usize>)> {
        let dense = |weight, bias, inputs, outputs| [(weight, vec![inputs, outputs]), (bias, vec![outputs])];
        let norm = |scale, shift| [(scale, vec![width]), (shift, vec![width])];
        [
            dense("query.weight", "query.bias", width, width),
            dense("key.weight", "key.bias", width, width),
            dense("value.weight", "value.bias", width, width),
            dense("attention.weight", "attention.bias", width, width),
            dense("up.weight", "up.bias", width, self.feed_forward),
            dense("down.weight", "down.bias", self.feed_forward, width),
            norm("norm.0.scale", "norm.0.shift"),
            norm("norm.1.scale", "norm.1.shift"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(len) => write!(f, "{len}"),
            Self::Sequence { length, width } => write!(f, "{length} vectors of {width}"),
            Self::Each { length, width } => write!(f, "{length} times {width}"),
            Self::Image { height, width, channels } => write!(f, "{height} x {width} x {channels}"),
        }
    }
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// The image in `input`, if a square of `size` pixels fits into it.
fn window(input: Shape, size: usize) -> Result<[usize; 3], LayerFault> {
    match input {
        Shape::Vector(_) | Shape::Sequence { .. } | Shape::Each { .. } => {
            Err(LayerFault::NotAnImage(input.len()))
        }
        _ if size == 0 => Err(LayerFault::Empty),
        Shape::Image { height, width, .. } if size > height || size > width => {
            Err(LayerFault::TooWide { size, height, width })
        }
        Shape::Image { height, width, channels } => Ok([height, width, channels]),
    }
}

/// Largest pooling square. Wider ones would be no pooling any more.
const MAX_POOL: usize = 15;

/// Most numbers that a layer may give for one example: what a description from a peer can ask of the memory.
pub const MAX_WIDTH: usize = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Shape = Shape::Image { height: 8, width: 6, channels: 3 };

    #[test]
    fn shapes_follow_from_one_another() {
        let conv = Layer::Conv2d { channels: 5, kernel: 3, stride: 1, padding: 0 };
        let convolved = Shape::Image { height: 6, width: 4, channels: 5 };
        assert_eq!(conv.output(IMAGE, false), Ok(convolved));
        let strided = Layer::Conv2d { channels: 5, kernel: 3, stride: 2, padding: 1 };
        assert_eq!(strided.output(IMAGE, false), Ok(Shape::Image { height: 4, width: 3, channels: 5 }));
        let block = Layer::Residual { channels: 4, stride: 2, groups: 2 };
        assert_eq!(block.output(IMAGE, false), Ok(Shape::Image { height: 4, width: 3, channels: 4 }));
        assert_eq!(Layer::GlobalAvgPool.output(convolved, false), Ok(Shape::Vector(5)));
        let pooled = Layer::MaxPool2d { size: 3 }.output(convolved, false);
        assert_eq!(pooled, Ok(Shape::Image { height: 2, width: 1, channels: 5 }));
        assert_eq!(Layer::Flatten.output(convolved, false), Ok(Shape::Vector(120)));
        assert_eq!(Layer::Dense { outputs: 7 }.output(IMAGE, false), Ok(Shape::Vector(7)));
        assert_eq!(Layer::LayerNorm.output(Shape::Vector(9), false), Ok(Shape::Vector(9)));
        let bag = Layer::EmbeddingBag { vocabulary: 100, width: 4 };
        assert_eq!(bag.output(Shape::Vector(12), true), Ok(Shape::Vector(4)));
        let embedding = Layer::Embedding { vocabulary: 100, width: 4 };
        let sequence = Shape::Sequence { length: 12, width: 4 };
        assert_eq!(embedding.output(Shape::Vector(12), true), Ok(sequence));
        let ngrams = Layer::Ngrams { shortest: 2, longest: 4, channels: 5 };
        assert_eq!(ngrams.output(sequence, false), Ok(Shape::Vector(15)));
        assert_eq!(ngrams.tensors(sequence), [("weight", vec![36, 5]), ("bias", vec![15])]);
        let conv = Layer::CausalConv1d { channels: 7, kernel: 4, dilation: 3 };
        assert_eq!(conv.output(sequence, false), Ok(Shape::Sequence { length: 12, width: 7 }));
        assert_eq!(conv.tensors(sequence), [("weight", vec![4, 4, 7]), ("bias", vec![7])]);
        let block = Layer::TemporalBlock { hidden: 7, kernel: 12, dilation: 1, dropout: 0.0 };
        assert_eq!(block.output(sequence, false), Ok(sequence));
    }

    #[test]
    fn a_layer_that_does_not_fit_says_why() {
        let refused = |layer: Layer, input| layer.output(input, false).unwrap_err();
        let conv = |kernel| Layer::Conv2d { channels: 1, kernel, stride: 1, padding: 0 };
        let vector = Shape::Vector(9);
        assert_eq!(refused(conv(3), vector), LayerFault::NotAnImage(9));
        let wide = LayerFault::TooWide { size: 7, height: 8, width: 6 };
        assert_eq!(refused(conv(7), IMAGE), wide);
        assert_eq!(refused(Layer::MaxPool2d { size: 7 }, IMAGE), wide);
        let steps = |stride, padding| Layer::Conv2d { channels: 1, kernel: 3, stride, padding };
        assert_eq!(refused(steps(0, 0), IMAGE), LayerFault::Steps);
        assert_eq!(refused(steps(1, 3), IMAGE), LayerFault::Steps);
        let groups = LayerFault::Groups { groups: 2, channels: 3 };
        assert_eq!(refused(Layer::GroupNorm { groups: 2 }, IMAGE), groups);
        assert_eq!(
            refused(Layer::Residual { channels: 4, stride: 1, groups: 3 }, IMAGE),
            LayerFault::Groups { groups: 3, channels: 4 }
        );
        assert_eq!(refused(Layer::GlobalAvgPool, vector), LayerFault::NotAnImage(9));
        assert_eq!(refused(Layer::MaxPool2d { size: 16 }, IMAGE), LayerFault::PoolSize(16));
        assert_eq!(refused(Layer::MaxPool2d { size: 0 }, IMAGE), LayerFault::Empty);
        assert_eq!(refused(Layer::LayerNorm, IMAGE), LayerFault::NotAVector);
        assert_eq!(refused(Layer::Dense { outputs: 0 }, IMAGE), LayerFault::Empty);
        assert_eq!(refused(Layer::Dropout { rate: 1.0 }, IMAGE), LayerFault::Rate);
        assert_eq!(refused(Layer::Dropout { rate: f32::NAN }, IMAGE), LayerFault::Rate);
        assert_eq!(refused(Layer::EmbeddingBag { vocabulary: 9, width: 1 }, vector), LayerFault::NotFirst);
        assert_eq!(refused(Layer::Embedding { vocabulary: 9, width: 1 }, vector), LayerFault::NotFirst);
        let ngrams = |shortest, longest| Layer::Ngrams { shortest, longest, channels: 1 };
        assert_eq!(refused(ngrams(1, 2), vector), LayerFault::NotASequence);
        let sequence = Shape::Sequence { length: 3, width: 4 };
        for (shortest, longest) in [(0, 2), (3, 2), (2, 4)] {
            let windows = LayerFault::Windows { shortest, longest, length: 3 };
            assert_eq!(refused(ngrams(shortest, longest), sequence), windows);
        }
        assert_eq!(refused(conv(1), sequence), LayerFault::NotAnImage(12));
        let block = |heads, feed_forward, dropout| {
            Layer::TransformerBlock(Block {
                heads,
                feed_forward,
                causal: true,
                norm: NormPlace::Before,
                dropout,
            })
        };
        assert_eq!(refused(block(3, 8, 0.0), sequence), LayerFault::Heads { heads: 3, width: 4 });
        assert_eq!(refused(block(0, 8, 0.0), sequence), LayerFault::Heads { heads: 0, width: 4 });
        assert_eq!(refused(block(2, 0, 0.0), sequence), LayerFault::Empty);
        assert_eq!(refused(block(2, 8, 1.0), sequence), LayerFault::Rate);
        let temporal =
            |hidden, kernel, dilation, dropout| Layer::TemporalBlock { hidden, kernel, dilation, dropout };
        for (kernel, dilation) in [(0, 1), (2, 0), (2, 3), (4, 1), (usize::MAX, usize::MAX)] {
            let reach = LayerFault::Reach { kernel, dilation, length: 3 };
            assert_eq!(refused(temporal(1, kernel, dilation, 0.0), sequence), reach);
            assert_eq!(refused(Layer::CausalConv1d { channels: 1, kernel, dilation }, sequence), reach);
        }
        assert_eq!(refused(temporal(0, 1, 1, 0.0), sequence), LayerFault::Empty);
        assert_eq!(refused(temporal(1, 1, 1, 1.0), sequence), LayerFault::Rate);
        assert_eq!(
            refused(Layer::CausalConv1d { channels: 0, kernel: 1, dilation: 1 }, sequence),
            LayerFault::Empty
        );
        for layer in [
            block(1, 8, 0.0),
            temporal(1, 1, 1, 0.0),
            Layer::Positions,
            Layer::Mean,
            Layer::First,
            Layer::NextWord,
        ] {
            assert_eq!(refused(layer, vector), LayerFault::NotASequence);
        }
    }
}
