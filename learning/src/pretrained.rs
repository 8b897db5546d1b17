//! Weights that somebody trained before, from a model file of Skep, from safetensors or from a state dict of PyTorch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::store::pytorch::PytorchReader;
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::torch::{Naming, TorchError, TorchTensor, fill};
use crate::{Architecture, ModelFile};

/// Weights for a model, and which of its tensors they are not about.
#[derive(Debug, Clone, PartialEq)]
pub struct Pretrained {
    /// The flat parameters; what the file lacks is as it was before.
    pub parameters: Vec<f32>,
    /// Tensors of the last layer that are not in the file, by the names that they would have there.
    pub missing: Vec<String>,
}

/// Why a file has no weights for a model.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct PretrainedError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: PretrainedFault,
}

/// What can be wrong with a file of weights.
#[derive(Debug, Error)]
pub enum PretrainedFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is damaged, or something else.
    #[error("is neither a safetensors file nor a state dict of PyTorch: {0}")]
    Format(String),
    /// Numbers that are no weights.
    #[error("tensor `{name}` holds {kind}; weights are of 16, 32 or 64 bits with a fraction")]
    Type {
        /// The tensor.
        name: String,
        /// What it holds.
        kind: String,
    },
    /// Weights are finite.
    #[error("tensor `{0}` has a number that is not finite")]
    NotFinite(String),
    /// They are those of another model.
    #[error(transparent)]
    Tensors(#[from] TorchError),
}

/// Reads the weights of a model whose parameters are `drawn` where the file has none, which is allowed of the last layer only. Names and
/// shapes may be those of [`Architecture::segments`], of a `torch.nn.Sequential` ([`crate::torch`]), or of BERT of Hugging Face, whose token
/// types are all the first one.
///
/// # Errors
/// [`PretrainedError`], which names the file and the tensor.
pub fn read(
    path: &Path,
    architecture: &Architecture,
    drawn: Vec<f32>,
) -> Result<Pretrained, PretrainedError> {
    load(path, architecture, drawn).map_err(|fault| PretrainedError { path: path.to_owned(), fault })
}

fn load(path: &Path, architecture: &Architecture, drawn: Vec<f32>) -> Result<Pretrained, PretrainedFault> {
    let mut start = [0; 9];
    let length = File::open(path)?.read(&mut start)?;
    // A header of JSON after its length.
    let tensors = match length == 9 && start[8] == b'{' {
        true => {
            let bytes = std::fs::read(path)?;
            if let Ok(model) = ModelFile::decode(&bytes)
                && model.architecture() == architecture
            {
                return Ok(Pretrained { parameters: model.into_parameters(), missing: vec![] });
            }
            of_safetensors(&bytes)?
        }
        false => of_pytorch(path)?,
    };
    place(architecture, tensors, drawn)
}

/// Puts tensors where they belong, whoever named them.
fn place(
    architecture: &Architecture,
    mut tensors: Vec<TorchTensor>,
    mut parameters: Vec<f32>,
) -> Result<Pretrained, PretrainedFault> {
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.values.iter().any(|value| !value.is_finite())) {
        return Err(PretrainedFault::NotFinite(tensor.name.clone()));
    }
    let segments = architecture.segments();
    let find = |name: &str, shape: &[usize]| {
        tensors.iter().find(|tensor| tensor.name == name && tensor.shape == shape)
    };
    if segments.iter().all(|segment| find(&segment.name, &segment.shape).is_some()) {
        for segment in &segments {
            let tensor = find(&segment.name, &segment.shape).expect("all are there");
            parameters[segment.offset..segment.offset + segment.len()].copy_from_slice(&tensor.values);
        }
        return Ok(Pretrained { parameters, missing: vec![] });
    }
    let naming = match tensors.iter().any(|tensor| tensor.name.contains("encoder.layer.")) {
        true => Naming::Bert,
        false => Naming::Sequential,
    };
    if naming == Naming::Bert {
        tensors = as_bert(tensors);
    }
    let missing = fill(architecture, naming, &tensors, &mut parameters)?;
    // A new task has new classes; anything else would be a model of which nobody knows what is drawn.
    let last = segments.len().saturating_sub(2);
    let of_last = |name: &String| {
        let (weight, bias) =
            (missing_name(architecture, naming, last), missing_name(architecture, naming, last + 1));
        [weight, bias].contains(&Some(name.clone()))
    };
    match missing.iter().find(|name| !of_last(name)) {
        Some(name) => {
            let present = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            Err(TorchError::Missing { name: name.clone(), present }.into())
        }
        None => Ok(Pretrained { parameters, missing }),
    }
}

/// What the tensor of a segment is called by others.
fn missing_name(architecture: &Architecture, naming: Naming, segment: usize) -> Option<String> {
    crate::torch::names(architecture, naming).ok()?.into_iter().nth(segment)
}

/// The tensors of BERT without what stands before `embeddings`, `encoder` and others; its first token type is part of every
/// position.
fn as_bert(tensors: Vec<TorchTensor>) -> Vec<TorchTensor> {
    let parts = ["embeddings.", "encoder.layer.", "pooler.", "cls.", "classifier."];
    let mut renamed: BTreeMap<String, TorchTensor> = BTreeMap::new();
    for mut tensor in tensors {
        let starts = parts.iter().filter_map(|part| tensor.name.find(part));
        if let Some(start) = starts.min() {
            tensor.name = tensor.name[start..].to_owned();
        }
        tensor.name = tensor.name.replace(".gamma", ".weight").replace(".beta", ".bias");
        renamed.insert(tensor.name.clone(), tensor);
    }
    let types = renamed.get("embeddings.token_type_embeddings.weight").cloned();
    if let (Some(types), Some(places)) = (types, renamed.get_mut("embeddings.position_embeddings.weight"))
        && let Some(width) =
            places.shape.get(1).copied().filter(|width| *width > 0 && types.values.len() >= *width)
    {
        for row in places.values.chunks_exact_mut(width) {
            row.iter_mut().zip(&types.values).for_each(|(value, kind)| *value += kind);
        }
    }
    renamed.into_values().collect()
}

fn of_safetensors(bytes: &[u8]) -> Result<Vec<TorchTensor>, PretrainedFault> {
    let format = |error: safetensors::SafeTensorError| PretrainedFault::Format(error.to_string());
    let mut tensors = Vec::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(format)?.tensors() {
        let kind = match view.dtype() {
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::I64 if name.ends_with("position_ids") => continue,
            other => return Err(PretrainedFault::Type { name, kind: other.to_string() }),
        };
        tensors.push(TorchTensor { shape: view.shape().to_vec(), values: kind.read(view.data()), name });
    }
    Ok(tensors)
}

fn of_pytorch(path: &Path) -> Result<Vec<TorchTensor>, PretrainedFault> {
    let reader = PytorchReader::new(path).map_err(|error| PretrainedFault::Format(error.to_string()))?;
    let mut tensors = Vec::new();
    // In the order of their names, whatever that of the map.
    let sorted: BTreeMap<_, _> = reader.tensors().iter().collect();
    for (name, tensor) in sorted {
        let kind = format!("{:?}", tensor.dtype());
        let kind = match kind.as_str() {
            "F16" => Number::F16,
            "BF16" => Number::Bf16,
            "F32" => Number::F32,
            "F64" => Number::F64,
            "I64" if name.ends_with("position_ids") => continue,
            _ => return Err(PretrainedFault::Type { name: name.clone(), kind }),
        };
        let values = kind.read(&tensor.read()?);
        tensors.push(TorchTensor { name: name.clone(), shape: tensor.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// How a number is written.
#[derive(Debug, Clone, Copy)]
enum Number {
    F16,
    Bf16,
    F32,
    F64,
}

impl Number {
    /// Little-endian numbers as `f32`.
    fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Number::F16 => bytes.as_chunks().0.iter().map(|&two| half(u16::from_le_bytes(two))).collect(),
            Number::Bf16 => {
                let wide = |&two| f32::from_bits(u32::from(u16::from_le_bytes(two)) << 16);
                bytes.as_chunks().0.iter().map(wide).collect()
            }
            Number::F32 => bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect(),
            Number::F64 => {
                bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight) as f32).collect()
            }
        }
    }
}

/// A number of IEEE 754's binary16.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    };
    if sign == 1 { -size } else { size }
}
