//! The parameters of a model as PyTorch keeps them, in both directions.
//!
//! The layers are those of a `torch.nn.Sequential`, so tensor `2.weight` is that of its third module; an image that goes into a
//! dense layer passes an `nn.Flatten` before. Here a dense weight is `[inputs, outputs]`, a convolution's is `[row, column,
//! inputs, outputs]`, and an image has its channels last; there they are `[outputs, inputs]`, `[outputs, inputs, row, column]`,
//! and channels come first, which also orders the numbers of a flattened image.

use std::collections::BTreeMap;

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
    let tensors = places(architecture)?.into_iter().map(|place| {
        let mut values = vec![0.0; place.len()];
        let own = &parameters[place.offset..place.offset + place.len()];
        own.iter().enumerate().for_each(|(at, value)| values[place.there(at)] = *value);
        TorchTensor { shape: place.shape_there(), name: place.name, values }
    });
    Ok(tensors.collect())
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
    let mut named: BTreeMap<&str, &TorchTensor> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let present = || tensors.iter().map(|tensor| tensor.name.clone()).collect();
    let mut parameters = Vec::with_capacity(architecture.parameter_count());
    for place in places(architecture)? {
        let Some(tensor) = named.remove(place.name.as_str()) else {
            return Err(TorchError::Missing { name: place.name, present: present() });
        };
        let expected = place.shape_there();
        if tensor.shape != expected || tensor.values.len() != place.len() {
            return Err(TorchError::Shape { name: place.name, expected, actual: tensor.shape.clone() });
        }
        parameters.extend((0..place.len()).map(|at| tensor.values[place.there(at)]));
    }
    match named.keys().next() {
        Some(name) => Err(TorchError::Unknown((*name).to_owned())),
        None => Ok(parameters),
    }
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
}

impl Place {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn shape_there(&self) -> Vec<usize> {
        match *self.shape {
            [inputs, outputs] if self.is_transposed => vec![outputs, inputs],
            [rows, columns, inputs, outputs] => vec![outputs, inputs, rows, columns],
            _ => self.shape.clone(),
        }
    }

    /// Where the value that is at `at` here is there.
    fn there(&self, at: usize) -> usize {
        match *self.shape {
            [inputs, outputs] if self.is_transposed => at % outputs * inputs + self.flattened(at / outputs),
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

fn places(architecture: &Architecture) -> Result<Vec<Place>, TorchError> {
    architecture.check()?;
    let (mut places, mut module, mut offset, mut image) = (Vec::new(), 0, 0, None);
    for Stacked { name, layer, input, .. } in architecture.stack()? {
        if let Layer::Embedding { .. } | Layer::Ngrams { .. } = layer {
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
            let kind = match kind {
                "scale" => "weight",
                "shift" => "bias",
                kind => kind,
            };
            let name = format!("{module}.{kind}");
            let is_transposed = !matches!(layer, Layer::EmbeddingBag { .. });
            let image = image.filter(|_| of_inputs);
            let place = Place { name, shape, offset, is_transposed, image };
            offset += place.len();
            places.push(place);
        }
        if matches!(layer, Layer::Dense { .. }) {
            image = None;
        }
        module += 1;
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    fn cnn() -> Architecture {
        let layers = vec![
            Layer::Conv2d { channels: 3, kernel: 2 },
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
        for architecture in [cnn(), bag, mlp, dense_on_image] {
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
