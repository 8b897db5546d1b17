//! A trained model on disk: one safetensors file that says what it is.
//!
//! Each segment of the flat parameters is a tensor of `f32` under the segment's name and shape
//! (dense weights are `[inputs, outputs]`; PyTorch's `Linear` has them transposed). The
//! architecture and the [`Interface`], as JSON, and whatever the caller has to say are in the file's metadata.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;
use thiserror::Error;

use crate::torch;
use crate::{
    Architecture, ArchitectureError, Coordinates, Interface, InterfaceError, MAX_PARAMETERS, Segment, Tuning,
    TuningError,
};

/// A model with what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    architecture: Architecture,
    parameters: Vec<f32>,
    interface: Option<Interface>,
    /// What was trained of it, if not all, and the coordinates that were.
    tuned: Option<(Tuning, Vec<f32>)>,
    metadata: BTreeMap<String, String>,
}

/// Why a model cannot be written, or a file is not a model.
#[derive(Debug, Error)]
pub enum ModelFileError {
    /// The architecture is impossible.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// The parameters are not those of the architecture.
    #[error("the architecture has {expected} parameters, got {actual}")]
    ParameterCount {
        /// Length the architecture needs.
        expected: usize,
        /// Length given.
        actual: usize,
    },
    /// The caller's metadata uses a key of ours.
    #[error("the metadata keys `{ARCHITECTURE}`, `{INTERFACE}` and `{TUNING}` are reserved")]
    ReservedKey,
    /// What was trained of it is no part of the architecture.
    #[error("the metadata `{TUNING}`: {0}")]
    Tuning(#[from] TuningError),
    /// The metadata describes no part of a model.
    #[error("the metadata `{TUNING}` is not understood: {0}")]
    UnknownTuning(serde_json::Error),
    /// The interface is not that of the architecture.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The metadata describes no interface we know.
    #[error("the metadata `{INTERFACE}` is not understood: {0}")]
    UnknownInterface(serde_json::Error),
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Longer than any model may be.
    #[error("the file is longer than {MAX_BYTES} bytes, so it is no model")]
    TooLong,
    /// It is not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] SafeTensorError),
    /// The metadata says nothing of the architecture.
    #[error("the metadata has no `{ARCHITECTURE}`, so the file was not written as a model of Skep")]
    NoArchitecture,
    /// The metadata describes no architecture we know.
    #[error("the metadata `{ARCHITECTURE}` is not understood: {0}")]
    UnknownArchitecture(serde_json::Error),
    /// The tensors are not those of the architecture.
    #[error("tensor `{name}`: {fault}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        fault: TensorFault,
    },
}

/// What can be wrong with a tensor of a model file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorFault {
    /// The architecture has it, the file does not.
    #[error("is missing")]
    Missing,
    /// The file has it, the architecture does not.
    #[error("does not belong to the architecture")]
    Unknown,
    /// Its shape is another.
    #[error("has shape {actual:?}, the architecture needs {expected:?}")]
    Shape {
        /// Shape by the architecture.
        expected: Vec<usize>,
        /// Shape in the file.
        actual: Vec<usize>,
    },
    /// Its values are not `f32`.
    #[error("holds {0}, not F32")]
    Type(String),
}

impl ModelFile {
    /// A model of `architecture` with `parameters`, and anything else worth saying: the task, the
    /// rounds, the privacy that was spent.
    ///
    /// # Errors
    /// [`ModelFileError`] if the parameters do not fit, or the metadata has the key `architecture` or
    /// `interface`.
    pub fn new(
        architecture: Architecture,
        parameters: Vec<f32>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, ModelFileError> {
        architecture.check()?;
        let (expected, actual) = (architecture.parameter_count(), parameters.len());
        if expected != actual {
            return Err(ModelFileError::ParameterCount { expected, actual });
        }
        if [ARCHITECTURE, INTERFACE, TUNING].iter().any(|key| metadata.contains_key(*key)) {
            return Err(ModelFileError::ReservedKey);
        }
        Ok(Self { architecture, parameters, interface: None, tuned: None, metadata })
    }

    /// The same model, which says how it is used.
    ///
    /// # Errors
    /// [`ModelFileError::Interface`] if it is used otherwise.
    pub fn with_interface(self, interface: Interface) -> Result<Self, ModelFileError> {
        interface.check(&self.architecture)?;
        Ok(Self { interface: Some(interface), ..self })
    }

    /// The same model, of which the part that `tuning` says was trained, and is `coordinates`. The parameters are those of the whole model,
    /// adapters included.
    ///
    /// # Errors
    /// [`ModelFileError::Tuning`] if it is no part of the architecture, [`ModelFileError::ParameterCount`] if there are other
    /// coordinates.
    pub fn with_tuning(self, tuning: Tuning, coordinates: Vec<f32>) -> Result<Self, ModelFileError> {
        let (expected, actual) = (Coordinates::new(&self.architecture, &tuning)?.len(), coordinates.len());
        match expected == actual {
            true => Ok(Self { tuned: Some((tuning, coordinates)), ..self }),
            false => Err(ModelFileError::ParameterCount { expected, actual }),
        }
    }

    /// What was trained of it, if not all.
    pub fn tuning(&self) -> Option<&Tuning> {
        self.tuned.as_ref().map(|(tuning, _)| tuning)
    }

    /// What a federation released: the parameters, or the coordinates of the part that was trained.
    pub fn released(&self) -> &[f32] {
        self.tuned.as_ref().map_or(&self.parameters, |(_, coordinates)| coordinates)
    }

    /// The tensors of adapters, which are no part of the architecture, with their values.
    fn adapters(&self) -> Vec<(Segment, &[f32])> {
        let Some((tuning, coordinates)) = &self.tuned else { return vec![] };
        let segments =
            Coordinates::new(&self.architecture, tuning).map(|all| all.segments()).unwrap_or_default();
        let own = |segment: Segment| {
            let values = &coordinates[segment.offset..segment.offset + segment.len()];
            is_adapter(&segment.name).then_some((segment, values))
        };
        segments.into_iter().filter_map(own).collect()
    }

    /// How it is used; by what its architecture tells where the file says nothing.
    pub fn interface(&self) -> Interface {
        self.interface.clone().unwrap_or_else(|| Interface::of(&self.architecture))
    }

    /// Whether the file says how it is used.
    pub fn has_interface(&self) -> bool {
        self.interface.is_some()
    }

    /// Gives the flat parameters alone.
    pub fn into_parameters(self) -> Vec<f32> {
        self.parameters
    }

    /// What kind of model it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The flat parameters, in the layout of [`Architecture::segments`].
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// What the writer said about the model.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The bytes of the file, the same for equal models.
    pub fn encode(&self) -> Vec<u8> {
        let segments = self.architecture.segments();
        let tensors = segments.iter().map(|segment| {
            let values = &self.parameters[segment.offset..segment.offset + segment.len()];
            (segment.name.as_str(), segment.shape.as_slice(), values)
        });
        let adapters = self.adapters();
        let adapters = adapters
            .iter()
            .map(|(segment, values)| (segment.name.as_str(), segment.shape.as_slice(), *values));
        encode(&self.all_metadata(), tensors.chain(adapters))
    }

    /// The bytes of a safetensors file with the parameters in the names and the order of PyTorch: see [`torch`].
    ///
    /// # Errors
    /// [`TorchError::Layer`](torch::TorchError::Layer) if it is no sequential.
    pub fn encode_for_pytorch(&self) -> Result<Vec<u8>, torch::TorchError> {
        let tensors = torch::to_pytorch(&self.architecture, &self.parameters)?;
        let tensors = tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice(), tensor.values.as_slice()));
        Ok(encode(&self.all_metadata(), tensors))
    }

    /// What the caller said, with the architecture and the interface.
    fn all_metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.metadata.clone();
        metadata.insert(ARCHITECTURE.into(), json(&self.architecture));
        if let Some(interface) = &self.interface {
            metadata.insert(INTERFACE.into(), json(interface));
        }
        if let Some((tuning, _)) = &self.tuned {
            metadata.insert(TUNING.into(), json(tuning));
        }
        metadata
    }

    /// The model in the bytes of a file. Whoever wrote them is not trusted.
    ///
    /// # Errors
    /// [`ModelFileError`] if they are not a model of Skep.
    pub fn decode(bytes: &[u8]) -> Result<Self, ModelFileError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let mut metadata = sorted(header.metadata().clone().unwrap_or_default());
        let text = metadata.remove(ARCHITECTURE).ok_or(ModelFileError::NoArchitecture)?;
        let architecture: Architecture =
            serde_json::from_str(&text).map_err(ModelFileError::UnknownArchitecture)?;
        architecture.check()?;
        let interface = metadata.remove(INTERFACE).map(|text| serde_json::from_str(&text)).transpose();
        let interface = interface.map_err(ModelFileError::UnknownInterface)?;
        let tuning: Option<Tuning> = metadata
            .remove(TUNING)
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(ModelFileError::UnknownTuning)?;
        let trained = match &tuning {
            Some(tuning) => Coordinates::new(&architecture, tuning)?.segments(),
            None => vec![],
        };
        let mut segments = architecture.segments();
        segments.extend(trained.iter().filter(|segment| is_adapter(&segment.name)).cloned());
        let tensors = SafeTensors::deserialize(bytes)?;
        let mut parameters = read_segments(&segments, &tensors)?;
        let coordinates = read_values(&trained, &tensors)?;
        parameters.truncate(architecture.parameter_count());
        let mut model = Self::new(architecture, parameters, metadata)?;
        if let Some(tuning) = tuning {
            model = model.with_tuning(tuning, coordinates)?;
        }
        match interface {
            Some(interface) => model.with_interface(interface),
            None => Ok(model),
        }
    }

    /// Writes the file `path`, in one step as far as a reader can see: first beside it, under the
    /// same name with `.partial` at the end, then renamed.
    ///
    /// # Errors
    /// [`ModelFileError::File`].
    pub fn save(&self, path: &Path) -> Result<(), ModelFileError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        write_through(partial.as_ref(), &self.encode())
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|source| ModelFileError::File { path: path.to_owned(), source })
    }

    /// Reads the file `path`.
    ///
    /// # Errors
    /// [`ModelFileError`] if it cannot be read or is not a model of Skep.
    pub fn load(path: &Path) -> Result<Self, ModelFileError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        let length = read.map_err(|source| ModelFileError::File { path: path.to_owned(), source })?;
        if length as u64 > MAX_BYTES {
            return Err(ModelFileError::TooLong);
        }
        Self::decode(&bytes)
    }
}

/// A safetensors file of tensors of `f32`, one behind the other, the same bytes each time. Written here because the
/// safetensors crate writes metadata in an order that changes from run to run.
fn encode<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])>,
) -> Vec<u8> {
    let mut entries = vec![format!("\"__metadata__\":{}", json(metadata))];
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(canonical_bytes(values));
        let info = TensorInfo { dtype: "F32", shape, data_offsets: [start, data.len()] };
        entries.push(format!("{}:{}", json(&name), json(&info)));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// The bytes that identify a model: its parameters as little-endian `f32`, one after the other, and
/// nothing else. Hash these, not the file, whose metadata may differ.
pub fn canonical_bytes(parameters: &[f32]) -> Vec<u8> {
    parameters.iter().flat_map(|parameter| parameter.to_le_bytes()).collect()
}

/// Writes a file and waits until it is on disk, so that a rename never uncovers a half-written one.
fn write_through(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// An entry of the header of a safetensors file.
#[derive(Serialize)]
struct TensorInfo<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names, numbers and maps by name always have a JSON form")
}

fn sorted(metadata: HashMap<String, String>) -> BTreeMap<String, String> {
    metadata.into_iter().collect()
}

/// The flat parameters: the tensors of all `segments`, and no other, in that order.
fn read_segments(segments: &[Segment], tensors: &SafeTensors) -> Result<Vec<f32>, ModelFileError> {
    let fail = |name: &str, fault| ModelFileError::Tensor { name: name.to_owned(), fault };
    let known: Vec<&str> = segments.iter().map(|segment| segment.name.as_str()).collect();
    if let Some(name) = tensors.names().into_iter().filter(|name| !known.contains(name)).min() {
        return Err(fail(name, TensorFault::Unknown));
    }
    read_values(segments, tensors)
}

/// The tensors of all `segments`, one after the other.
fn read_values(segments: &[Segment], tensors: &SafeTensors) -> Result<Vec<f32>, ModelFileError> {
    let fail = |name: &str, fault| ModelFileError::Tensor { name: name.to_owned(), fault };
    let mut parameters = Vec::new();
    for Segment { name, shape, .. } in segments {
        let tensor = tensors.tensor(name).map_err(|_| fail(name, TensorFault::Missing))?;
        if tensor.dtype() != Dtype::F32 {
            return Err(fail(name, TensorFault::Type(tensor.dtype().to_string())));
        }
        if tensor.shape() != shape {
            let (expected, actual) = (shape.clone(), tensor.shape().to_vec());
            return Err(fail(name, TensorFault::Shape { expected, actual }));
        }
        let (values, _) = tensor.data().as_chunks();
        parameters.extend(values.iter().map(|&bytes| f32::from_le_bytes(bytes)));
    }
    Ok(parameters)
}

const ARCHITECTURE: &str = "architecture";
const INTERFACE: &str = "interface";
const TUNING: &str = "tuning";

/// Whether a tensor stands beside one of the architecture.
fn is_adapter(name: &str) -> bool {
    name.ends_with(".lora_a") || name.ends_with(".lora_b")
}

/// All parameters, and as much header as the safetensors format allows.
const MAX_BYTES: u64 = 8 + 100_000_000 + 4 * MAX_PARAMETERS as u64;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::Activation;

    fn mlp() -> Architecture {
        Architecture::Mlp { inputs: 3, hidden: vec![2], classes: 4, activation: Activation::Tanh }
    }

    fn model() -> ModelFile {
        let parameters = (0..20).map(|i| i as f32 / 3.0).collect();
        let metadata = [("rounds", "60"), ("epsilon", "1.5"), ("note", "\"quoted\"\n€")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        ModelFile::new(mlp(), parameters, metadata.into()).unwrap()
    }

    /// A file by the safetensors crate, with one tensor changed by `edit`.
    fn foreign(edit: impl Fn(&mut String, &mut Dtype, &mut Vec<usize>)) -> Vec<u8> {
        let tensors = mlp().segments().into_iter().map(|segment| {
            let (mut name, mut dtype, mut shape) = (segment.name, Dtype::F32, segment.shape);
            if name == "output.weight" {
                edit(&mut name, &mut dtype, &mut shape);
            }
            let length = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let zeros: &'static [u8] = &[0; 256];
            (name, TensorView::new(dtype, shape, &zeros[..length]).unwrap())
        });
        let metadata = [(ARCHITECTURE.to_owned(), json(&mlp()))];
        safetensors::serialize(tensors.collect::<Vec<_>>(), Some(metadata.into())).unwrap()
    }

    #[test]
    fn a_model_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        model().save(&path).unwrap();
        assert_eq!(ModelFile::load(&path).unwrap(), model());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_trained_of_a_model_survives_its_file() {
        let lora = crate::Lora { rank: 1, alpha: 2.0, targets: vec!["hidden.0.weight".into()] };
        let tuning = Tuning { frozen: vec!["*".into(), "!output.bias".into()], lora: Some(lora) };
        let coordinates = Coordinates::new(&mlp(), &tuning).unwrap();
        assert_eq!(coordinates.len(), 5 + 4);
        let mut released: Vec<f32> = (0..9).map(|at| at as f32 + 0.5).collect();
        let base = model().into_parameters();
        let mut merged = Vec::new();
        coordinates.assemble(&base, &released, &mut merged);
        let tuned = ModelFile::new(mlp(), merged.clone(), BTreeMap::new()).unwrap();
        let tuned = tuned.with_tuning(tuning.clone(), released.clone()).unwrap();
        let read = ModelFile::decode(&tuned.encode()).unwrap();
        assert_eq!(
            (read.parameters(), read.released(), read.tuning()),
            (&*merged, &*released, Some(&tuning))
        );
        assert_eq!(read, tuned);
        assert_eq!(model().released(), model().parameters());
        released.pop();
        assert!(model().with_tuning(tuning, released).is_err());
    }

    #[test]
    fn a_file_is_the_same_bytes_each_time_and_ends_in_the_canonical_bytes() {
        assert_eq!(model().encode(), model().encode());
        let canonical = canonical_bytes(model().parameters());
        assert_eq!(canonical.len(), 80);
        assert_eq!(canonical[4..8], (1.0_f32 / 3.0).to_le_bytes());
        assert!(model().encode().ends_with(&canonical));
    }

    #[test]
    fn the_safetensors_crate_reads_our_files_by_segment() {
        let bytes = model().encode();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header % 8, 0);
        let metadata = metadata.metadata().clone().unwrap();
        assert_eq!(metadata["note"], "\"quoted\"\n€");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), 4);
        let output = tensors.tensor("output.weight").unwrap();
        assert_eq!((output.shape(), output.dtype()), (&[2, 4][..], Dtype::F32));
        assert_eq!(output.data()[..4], (8.0_f32 / 3.0).to_le_bytes());
    }

    #[test]
    fn a_file_whose_tensors_are_in_another_order_is_read_by_name() {
        let read = ModelFile::decode(&foreign(|_, _, _| {})).unwrap();
        assert_eq!(read.parameters(), [0.0; 20]);
    }

    #[test]
    fn tensors_that_are_not_those_of_the_architecture_are_refused() {
        let fault = |bytes: Vec<u8>| match ModelFile::decode(&bytes).unwrap_err() {
            ModelFileError::Tensor { name, fault } => (name, fault),
            other => panic!("{other}"),
        };
        let renamed = fault(foreign(|name, _, _| *name = "extra".into()));
        assert_eq!(renamed, ("extra".into(), TensorFault::Unknown));
        let reshaped = fault(foreign(|_, _, shape| shape.reverse()));
        let shapes = TensorFault::Shape { expected: vec![2, 4], actual: vec![4, 2] };
        assert_eq!(reshaped, ("output.weight".into(), shapes));
        let retyped = fault(foreign(|_, dtype, _| *dtype = Dtype::F64));
        assert_eq!(retyped, ("output.weight".into(), TensorFault::Type("F64".into())));
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let metadata = [(ARCHITECTURE.to_owned(), json(&mlp()))];
        let none: [(&str, TensorView); 0] = [];
        let bytes = safetensors::serialize(none, Some(metadata.into())).unwrap();
        assert_eq!(
            ModelFile::decode(&bytes).unwrap_err().to_string(),
            "tensor `hidden.0.weight`: is missing"
        );
    }

    #[test]
    fn an_architecture_that_is_absent_unknown_or_huge_is_refused() {
        let with = |architecture: Option<&str>| {
            let metadata = architecture.map(|text| [(ARCHITECTURE.to_owned(), text.to_owned())].into());
            let none: [(&str, TensorView); 0] = [];
            ModelFile::decode(&safetensors::serialize(none, metadata).unwrap()).unwrap_err()
        };
        assert!(matches!(with(None), ModelFileError::NoArchitecture));
        assert!(matches!(with(Some("{}")), ModelFileError::UnknownArchitecture(_)));
        let huge = r#"{"softmax":{"inputs":18446744073709551615,"classes":10}}"#;
        assert!(matches!(with(Some(huge)), ModelFileError::Architecture(_)));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let short = ModelFile::new(mlp(), vec![0.0; 19], BTreeMap::new()).unwrap_err();
        assert!(matches!(short, ModelFileError::ParameterCount { expected: 20, actual: 19 }));
        let metadata = [(ARCHITECTURE.to_owned(), "mine".to_owned())];
        let reserved = ModelFile::new(mlp(), vec![0.0; 20], metadata.into()).unwrap_err();
        assert!(matches!(reserved, ModelFileError::ReservedKey));
    }

    #[test]
    fn a_file_cut_short_anywhere_is_an_error() {
        let bytes = model().encode();
        assert!(bytes.len() > 300);
        for length in 0..bytes.len() {
            assert!(ModelFile::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_another_model_but_never_a_panic() {
        let (refused, other) = (Cell::new(0), Cell::new(0));
        let start_of_values = model().encode().len() - 80;
        TestRunner::new(Config::with_cases(2000))
            .run(&(0.0..1.0_f64, any::<u8>()), |(at, value)| {
                let mut bytes = model().encode();
                let at = (at * bytes.len() as f64) as usize;
                prop_assume!(bytes[at] != value);
                bytes[at] = value;
                let count = |counter: &Cell<u32>| counter.set(counter.get() + 1);
                match ModelFile::decode(&bytes) {
                    Err(_) => {
                        prop_assert!(at < start_of_values);
                        count(&refused);
                    }
                    Ok(read) if at >= start_of_values => {
                        prop_assert_ne!(
                            canonical_bytes(read.parameters()),
                            canonical_bytes(&model().parameters)
                        );
                        count(&other);
                    }
                    Ok(_) => {}
                }
                Ok(())
            })
            .unwrap();
        assert!(refused.get() > 200 && other.get() > 200, "{refused:?} {other:?}");
    }
}
