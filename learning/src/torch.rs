//! The parameters of a model as PyTorch keeps them, in both directions.
//!
//! The layers are those of a `torch.nn.Sequential`, so tensor `2.weight` is that of its third module; an image that goes into a
//! dense layer passes an `nn.Flatten` before. Here a dense weight is `[inputs, outputs]`, a convolution's is `[row, column,
//! inputs, outputs]`, and an image has its channels last; there they are `[outputs, inputs]`, `[outputs, inputs, row, column]`,
//! and channels come first, which also orders the numbers of a flattened image.
//!
//! A block of a transformer is an `nn.TransformerEncoderLayer` with `activation="gelu"`, whose queries, keys and values are one tensor, and
//! positions are an `nn.Embedding`. BERT's names are known, too.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::architecture::Stacked;
use crate::{Architecture, ArchitectureError, Layer, Shape};

/// A tensor of `f32` with its values row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct TorchTensor {
    /// Its name in a state dict.
    pub name: String,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// As many as the product of the shape.
    pub values: Vec<f32>,
}

/// Why tensors are not those of a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TorchError {
    /// There is no such model.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// A layer is no module of a sequential.
    #[error("layer {layer} ({kind}) is no module of a torch.nn.Sequential")]
    Layer {
        /// Its name.
        layer: String,
        /// What it does.
        kind: &'static str,
    },
    /// The bytes are no file of tensors.
    #[error("they are no safetensors file: {0}")]
    Format(String),
    /// A tensor holds other numbers.
    #[error("tensor `{name}` holds {found}, not F32")]
    Type {
        /// The tensor.
        name: String,
        /// What it holds.
        found: String,
    },
    /// A tensor is missing.
    #[error("tensor `{name}` is missing; there are: {}", present.join(", "))]
    Missing {
        /// The tensor.
        name: String,
        /// The tensors that are there.
        present: Vec<String>,
    },
    /// A tensor has no place in the model.
    #[error("tensor `{0}` has no place in the model")]
    Unknown(String),
    /// A tensor has another shape.
    #[error("tensor `{name}` has shape {actual:?}, the model needs {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape by the model.
        expected: Vec<usize>,
        /// Its shape.
        actual: Vec<usize>,
    },
}

/// The parameters, of which there are as many as the architecture has, as tensors of PyTorch.
///
/// # Errors
/// [`TorchError::Architecture`] if there is no such model, [`TorchError::Layer`] if it is no sequential.
pub fn to_pytorch(architecture: &Architecture, parameters: &[f32]) -> Result<Vec<TorchTensor>, TorchError> {
    let mut tensors: Vec<TorchTensor> = Vec::new();
    for place in places(architecture, Naming::Sequential)? {
        if place.part == 0 {
            let shape = place.shape_there();
            let values = vec![0.0; shape.iter().product()];
            tensors.push(TorchTensor { shape, name: place.name.clone(), values });
        }
        // Those of a block's three lie between other parts of it: they are found by name.
        let tensor =
            tensors.iter_mut().rfind(|tensor| tensor.name == place.name).expect("the first part made it");
        let own = &parameters[place.offset..place.offset + place.len()];
        own.iter().enumerate().for_each(|(at, value)| tensor.values[place.there(at)] = *value);
    }
    Ok(tensors)
}

/// The flat parameters in the bytes of a safetensors file with the tensors of PyTorch. Whoever wrote them is not trusted.
///
/// # Errors
/// [`TorchError`] if they are not those of the architecture.
pub fn from_safetensors(architecture: &Architecture, bytes: &[u8]) -> Result<Vec<f32>, TorchError> {
    let read = SafeTensors::deserialize(bytes).map_err(|error| TorchError::Format(error.to_string()))?;
    let mut tensors = Vec::new();
    for (name, tensor) in read.iter() {
        if tensor.dtype() != Dtype::F32 {
            return Err(TorchError::Type { name: name.to_owned(), found: tensor.dtype().to_string() });
        }
        let (values, _) = tensor.data().as_chunks();
        let values = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
        tensors.push(TorchTensor { name: name.to_owned(), shape: tensor.shape().to_vec(), values });
    }
    from_pytorch(architecture, &tensors)
}

/// The flat parameters in tensors of PyTorch.
///
/// # Errors
/// [`TorchError`] if they are not those of the architecture.
pub fn from_pytorch(architecture: &Architecture, tensors: &[TorchTensor]) -> Result<Vec<f32>, TorchError> {
    let mut parameters = vec![0.0; architecture.parameter_count()];
    let missing = fill(architecture, Naming::Sequential, tensors, &mut parameters)?;
    match missing.into_iter().next() {
        Some(name) => {
            let present = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            Err(TorchError::Missing { name, present })
        }
        None => Ok(parameters),
    }
}

/// Puts tensors where they belong in the flat parameters; the names of those that are missing.
pub(crate) fn fill(
    architecture: &Architecture,
    naming: Naming,
    tensors: &[TorchTensor],
    parameters: &mut [f32],
) -> Result<Vec<String>, TorchError> {
    let named: BTreeMap<&str, &TorchTensor> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let (mut used, mut missing) = (BTreeSet::new(), Vec::new());
    for place in places(architecture, naming)? {
        let Some(tensor) = named.get(place.name.as_str()) else {
            missing.push(place.name);
            continue;
        };
        used.insert(tensor.name.as_str());
        let expected = place.shape_there();
        let count: usize = tensor.shape.iter().product();
        // Positions are counted from the first: more of them than the model has do no harm.
        let fits = match (place.may_be_longer, tensor.shape.as_slice(), expected.as_slice()) {
            (true, [rows, width], [needed, needed_width]) => rows >= needed && width == needed_width,
            _ => tensor.shape == expected,
        };
        if !fits || tensor.values.len() != count {
            return Err(TorchError::Shape { name: place.name, expected, actual: tensor.shape.clone() });
        }
        let own = &mut parameters[place.offset..place.offset + place.len()];
        own.iter_mut().enumerate().for_each(|(at, value)| *value = tensor.values[place.there(at)]);
    }
    let unknown =
        |tensor: &&TorchTensor| !used.contains(tensor.name.as_str()) && !naming.ignores(&tensor.name);
    match tensors.iter().find(unknown) {
        Some(tensor) => Err(TorchError::Unknown(tensor.name.clone())),
        None => Ok(missing),
    }
}

/// The name of the tensor that each tensor of the model is in, in their order.
pub(crate) fn names(architecture: &Architecture, naming: Naming) -> Result<Vec<String>, TorchError> {
    Ok(places(architecture, naming)?.into_iter().map(|place| place.name).collect())
}

/// How tensors are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By the number of their module in a `torch.nn.Sequential`.
    Sequential,
    /// As in BERT of Hugging Face, without what stands before `embeddings` and `encoder`.
    Bert,
}

impl Naming {
    /// Whether a tensor has no place in a classifier and is left alone: heads of other tasks, and numbers of positions.
    fn ignores(self, name: &str) -> bool {
        let others = ["pooler.", "cls.", "embeddings.token_type_embeddings.", "embeddings.position_ids"];
        self == Naming::Bert && others.iter().any(|start| name.starts_with(start))
    }

    /// The name of a tensor of a layer, and which third of the tensor it is; `number` counts the layers of this kind from 0.
    fn name(self, layer: Layer, is_last: bool, module: usize, number: usize, kind: &str) -> (String, usize) {
        let plain = match kind {
            "scale" => "weight",
            "shift" => "bias",
            kind => kind,
        };
        match (self, layer) {
            (Naming::Sequential, Layer::TransformerBlock(_)) => {
                let (name, part) = of_encoder_layer(kind);
                (format!("{module}.{name}"), part)
            }
            (Naming::Sequential, _) => (format!("{module}.{plain}"), 0),
            (Naming::Bert, Layer::Embedding { .. }) => ("embeddings.word_embeddings.weight".to_owned(), 0),
            (Naming::Bert, Layer::Positions) => ("embeddings.position_embeddings.weight".to_owned(), 0),
            (Naming::Bert, Layer::LayerNorm) => (format!("embeddings.LayerNorm.{plain}"), 0),
            (Naming::Bert, Layer::TransformerBlock(_)) => {
                (format!("encoder.layer.{number}.{}", of_bert_layer(kind)), 0)
            }
            (Naming::Bert, _) if is_last => (format!("classifier.{plain}"), 0),
            (Naming::Bert, _) => (format!("pooler.dense.{plain}"), 0),
        }
    }
}

/// What a tensor of a block is called in an `nn.TransformerEncoderLayer`, and which third of it it is.
fn of_encoder_layer(kind: &str) -> (String, usize) {
    let thirds = [("query.", 0), ("key.", 1), ("value.", 2)];
    for (start, part) in thirds {
        if let Some(rest) = kind.strip_prefix(start) {
            return (format!("self_attn.in_proj_{rest}"), part);
        }
    }
    let names = [
        ("attention.", "self_attn.out_proj."),
        ("up.", "linear1."),
        ("down.", "linear2."),
        ("norm.0.scale", "norm1.weight"),
        ("norm.0.shift", "norm1.bias"),
        ("norm.1.scale", "norm2.weight"),
        ("norm.1.shift", "norm2.bias"),
    ];
    (replaced(kind, &names), 0)
}

/// What a tensor of a block is called in a layer of BERT.
fn of_bert_layer(kind: &str) -> String {
    let names = [
        ("query.", "attention.self.query."),
        ("key.", "attention.self.key."),
        ("value.", "attention.self.value."),
        ("attention.", "attention.output.dense."),
        ("up.", "intermediate.dense."),
        ("down.", "output.dense."),
        ("norm.0.scale", "attention.output.LayerNorm.weight"),
        ("norm.0.shift", "attention.output.LayerNorm.bias"),
        ("norm.1.scale", "output.LayerNorm.weight"),
        ("norm.1.shift", "output.LayerNorm.bias"),
    ];
    replaced(kind, &names)
}

fn replaced(name: &str, names: &[(&str, &str)]) -> String {
    let of = |(ours, theirs): &(&str, &str)| name.strip_prefix(ours).map(|rest| format!("{theirs}{rest}"));
    names.iter().find_map(of).unwrap_or_else(|| name.to_owned())
}

/// Where a tensor is, here and there.
struct Place {
    name: String,
    /// Of ours.
    shape: Vec<usize>,
    offset: usize,
    /// Whether the weight has its inputs last there.
    is_transposed: bool,
    /// Height, width and channels of the image that the inputs are the numbers of.
    image: Option<[usize; 3]>,
    /// Which part it is of `parts` that are one tensor there, one below the other.
    part: usize,
    parts: usize,
    /// Whether there may be more rows there than are needed here.
    may_be_longer: bool,
}

impl Place {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn shape_there(&self) -> Vec<usize> {
        match *self.shape {
            [inputs, outputs] if self.is_transposed => vec![outputs * self.parts, inputs],
            [outputs] => vec![outputs * self.parts],
            [rows, columns, inputs, outputs] => vec![outputs, inputs, rows, columns],
            _ => self.shape.clone(),
        }
    }

    /// Where the value that is at `at` here is there.
    fn there(&self, at: usize) -> usize {
        self.part * self.len()
            + match *self.shape {
                [inputs, outputs] if self.is_transposed => {
                    at % outputs * inputs + self.flattened(at / outputs)
                }
                [rows, columns, inputs, outputs] => {
                    let (output, input, pixel) = (at % outputs, at / outputs % inputs, at / outputs / inputs);
                    (output * inputs + input) * rows * columns + pixel
                }
                _ => self.flattened(at),
            }
    }

    /// Where a number of a flattened image is with channels first.
    fn flattened(&self, at: usize) -> usize {
        match self.image {
            Some([height, width, channels]) => at % channels * height * width + at / channels,
            None => at,
        }
    }
}

fn places(architecture: &Architecture, naming: Naming) -> Result<Vec<Place>, TorchError> {
    architecture.check()?;
    let (mut places, mut module, mut offset, mut image) = (Vec::new(), 0, 0, None);
    let mut blocks = 0;
    for Stacked { name, layer, input, .. } in architecture.stack()? {
        if let Layer::Ngrams { .. }
        | Layer::Residual { .. }
        | Layer::CausalConv1d { .. }
        | Layer::TemporalBlock { .. } = layer
        {
            return Err(TorchError::Layer { layer: name, kind: layer.kind() });
        }
        if let Shape::Image { height, width, channels } = input {
            image = Some([height, width, channels]);
            // There a dense layer takes no image.
            module += usize::from(matches!(layer, Layer::Dense { .. }));
        }
        for (kind, shape) in layer.tensors(input) {
            // Of a convolution a bias is one number a channel, and of a dense layer one an output.
            let of_inputs = shape.len() == 2 || matches!(layer, Layer::LayerNorm);
            let (place_name, part) = naming.name(layer, name == "output", module, blocks, kind);
            let is_table =
                matches!(layer, Layer::EmbeddingBag { .. } | Layer::Embedding { .. } | Layer::Positions);
            let parts = if place_name.contains("in_proj_") { 3 } else { 1 };
            let image = image.filter(|_| of_inputs);
            let may_be_longer = layer == Layer::Positions;
            let place = Place {
                name: place_name,
                shape,
                offset,
                is_transposed: !is_table,
                image,
                part,
                parts,
                may_be_longer,
            };
            offset += place.len();
            places.push(place);
        }
        if matches!(layer, Layer::Dense { .. } | Layer::GlobalAvgPool) {
            image = None;
        }
        // There the mean is still an image of one pixel, which is flattened.
        module += if layer == Layer::GlobalAvgPool { 2 } else { 1 };
        blocks += usize::from(matches!(layer, Layer::TransformerBlock(_)));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Block, NormPlace};

    fn cnn() -> Architecture {
        let layers = vec![
            Layer::Conv2d { channels: 3, kernel: 2, stride: 1, padding: 0 },
            Layer::Activation(Activation::Relu),
            Layer::Flatten,
            Layer::LayerNorm,
            Layer::Dense { outputs: 5 },
        ];
        Architecture::Layers { input: Shape::Image { height: 4, width: 3, channels: 2 }, layers, classes: 2 }
    }

    fn numbered(architecture: &Architecture) -> Vec<f32> {
        (0..architecture.parameter_count()).map(|at| at as f32).collect()
    }

    #[test]
    fn there_and_back_nothing_changes() {
        let bag = Architecture::Layers {
            input: Shape::Vector(4),
            layers: vec![Layer::EmbeddingBag { vocabulary: 7, width: 3 }],
            classes: 2,
        };
        let mlp =
            Architecture::Mlp { inputs: 3, hidden: vec![4, 2], classes: 2, activation: Activation::Tanh };
        let dense_on_image = Architecture::Layers {
            input: Shape::Image { height: 2, width: 2, channels: 3 },
            layers: vec![],
            classes: 2,
        };
        let block = Block { heads: 2, feed_forward: 5, causal: false, norm: NormPlace::After, dropout: 0.0 };
        let layers = vec![
            Layer::Embedding { vocabulary: 7, width: 4 },
            Layer::Positions,
            Layer::LayerNorm,
            Layer::TransformerBlock(block),
            Layer::TransformerBlock(block),
            Layer::Mean,
        ];
        let transformer = Architecture::Layers { input: Shape::Vector(3), layers, classes: 2 };
        for architecture in [cnn(), bag, mlp, dense_on_image, transformer] {
            let parameters = numbered(&architecture);
            let tensors = to_pytorch(&architecture, &parameters).unwrap();
            assert_eq!(from_pytorch(&architecture, &tensors), Ok(parameters));
        }
    }

    #[test]
    fn tensors_are_named_and_shaped_as_in_a_sequential() {
        let tensors = to_pytorch(&cnn(), &numbered(&cnn())).unwrap();
        let named: Vec<_> = tensors.iter().map(|tensor| (tensor.name.as_str(), &*tensor.shape)).collect();
        let expected: [(&str, &[usize]); 8] = [
            ("0.weight", &[3, 2, 2, 2]),
            ("0.bias", &[3]),
            ("3.weight", &[18]),
            ("3.bias", &[18]),
            ("4.weight", &[5, 18]),
            ("4.bias", &[5]),
            ("5.weight", &[2, 5]),
            ("5.bias", &[2]),
        ];
        assert_eq!(named, expected);
        // Convolution: ours [row, column, in, out] at [1, 0, 1, 2], theirs [2, 1, 1, 0].
        assert_eq!(tensors[0].values[((2 * 2 + 1) * 2 + 1) * 2], (((2 * 2) + 1) * 3 + 2) as f32);
        // A flattened image of 3 x 2 pixels of 3 channels: ours (row, column, channel), theirs (channel, row, column).
        let (row, column, channel, output) = (2, 1, 1, 4);
        let (ours, theirs) = ((row * 2 + column) * 3 + channel, (channel * 3 + row) * 2 + column);
        assert_eq!(tensors[2].values[theirs], (27 + ours) as f32);
        assert_eq!(tensors[4].values[output * 18 + theirs], (27 + 36 + ours * 5 + output) as f32);
        // Behind a dense layer there is no image.
        assert_eq!(tensors[6].values[5 + 3], (27 + 36 + 95 + 3 * 2 + 1) as f32);
    }

    #[test]
    fn tensors_of_another_model_are_refused_by_name() {
        let softmax = Architecture::Softmax { inputs: 3, classes: 2 };
        let tensor = |name: &str, shape: &[usize]| TorchTensor {
            name: name.into(),
            shape: shape.into(),
            values: vec![0.0; shape.iter().product()],
        };
        let (weight, bias) = (tensor("0.weight", &[2, 3]), tensor("0.bias", &[2]));
        let refused = |tensors: &[TorchTensor]| from_pytorch(&softmax, tensors).unwrap_err().to_string();
        assert_eq!(refused(std::slice::from_ref(&weight)), "tensor `0.bias` is missing; there are: 0.weight");
        let turned = tensor("0.weight", &[3, 2]);
        assert_eq!(
            refused(&[turned, bias.clone()]),
            "tensor `0.weight` has shape [3, 2], the model needs [2, 3]"
        );
        let more = tensor("1.weight", &[1]);
        assert_eq!(refused(&[weight, bias, more]), "tensor `1.weight` has no place in the model");
    }
}
