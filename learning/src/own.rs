//! Models and formats of data that a program brings along: its experiment files call them by name.
//!
//! A program has one set of them, given once when it starts and from then on the same everywhere in it, as loggers are. That is
//! what lets a task that came over a socket, a model file and an experiment file mean the same by a name.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{BurnModel, Dataset, Learner, burn_learner};
use burn::tensor::Device;

/// A model of the program's own.
///
/// Most are made of burn modules and need no more than [`BurnModel`], see [`Own::burn_model`]. This trait is for models that
/// are computed in another way.
pub trait OwnModel: Send + Sync {
    /// The tensors of a model that tells `classes` classes apart by `inputs` numbers, in the order of its flat parameters.
    fn tensors(&self, inputs: usize, classes: usize) -> Vec<OwnTensor>;

    /// The parameters that training starts from, a function of `key` alone.
    fn initial_parameters(&self, inputs: usize, classes: usize, key: [u8; 32]) -> Vec<f32>;

    /// What trains, evaluates and answers with flat parameters of that layout.
    fn learner(&self, inputs: usize, classes: usize) -> Box<dyn Learner>;
}

/// A tensor of a model of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnTensor {
    /// Its name, of which there is one in a model.
    pub name: String,
    /// Sizes of the dimensions, outermost first; values are row-major.
    pub shape: Vec<usize>,
}

/// A format of files of the program's own. A function from path and number of classes to a [`Dataset`] is one.
pub trait OwnFormat: Send + Sync {
    /// Reads the examples in the file `path`, with labels below `classes`. Where it says whose each example is
    /// ([`Dataset::owned_by`]), simulated clients can be divided by that.
    ///
    /// # Errors
    /// Whatever keeps the file from being read; it should say where in the file that is.
    fn read(&self, path: &Path, classes: usize) -> Result<Dataset, Box<dyn Error + Send + Sync>>;
}

impl<F> OwnFormat for F
where
    F: Fn(&Path, usize) -> Result<Dataset, Box<dyn Error + Send + Sync>> + Send + Sync,
{
    fn read(&self, path: &Path, classes: usize) -> Result<Dataset, Box<dyn Error + Send + Sync>> {
        self(path, classes)
    }
}

/// What a program brings along.
#[derive(Clone, Default)]
pub struct Own {
    models: BTreeMap<String, Arc<dyn OwnModel>>,
    formats: BTreeMap<String, Arc<dyn OwnFormat>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (models, formats) = (self.models.keys(), self.formats.keys());
        f.debug_struct("Own")
            .field("models", &models.collect::<Vec<_>>())
            .field("formats", &formats.collect::<Vec<_>>())
            .finish()
    }
}

impl Own {
    /// Nothing yet.
    pub fn new() -> Self {
        Own::default()
    }

    /// Adds a model, which experiment files call `name`.
    #[must_use]
    pub fn model(mut self, name: &str, model: impl OwnModel + 'static) -> Self {
        self.models.insert(name.to_owned(), Arc::new(model));
        self
    }

    /// Adds a model made of burn modules: `make` builds one for so many inputs and classes on a device, which is `device`. Its
    /// first parameters are those that burn draws, seeded; the tensors are called by the fields that hold them.
    #[must_use]
    pub fn burn_model<M: BurnModel + 'static>(
        self,
        name: &str,
        device: Device,
        make: impl Fn(usize, usize, &Device) -> M + Send + Sync + 'static,
    ) -> Self {
        self.model(name, burn_learner::Modules { device, make })
    }

    /// Adds a format of files, which experiment files call `name`.
    #[must_use]
    pub fn format(mut self, name: &str, format: impl OwnFormat + 'static) -> Self {
        self.formats.insert(name.to_owned(), Arc::new(format));
        self
    }
}

/// Something that a program does not bring along, or otherwise than it is called for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OwnError {
    /// There is no such model.
    #[error(
        "there is no model of one's own called `{name}` here: {}; run the program that brings it along",
        only(known)
    )]
    Model {
        /// What it is called.
        name: String,
        /// The models there are.
        known: Vec<String>,
    },
    /// There is no such format.
    #[error(
        "there is no format of one's own called `{name}` here: {}; run the program that brings it along",
        only(known)
    )]
    Format {
        /// What it is called.
        name: String,
        /// The formats there are.
        known: Vec<String>,
    },
    /// The model that is called by this name has changed.
    #[error("the model `{0}` that this program brings along has other tensors than this one")]
    Tensors(String),
    /// Its first parameters are not those of its tensors.
    #[error("the model `{name}` has tensors of {tensors} numbers, and starts from {found}")]
    Initial {
        /// The model.
        name: String,
        /// Numbers in its tensors.
        tensors: usize,
        /// Numbers it starts from.
        found: usize,
    },
    /// Only the program that brings the model along knows its layers.
    #[error(
        "the layers of `{0}`, a model of one's own, are known to the program that brings it along and to nobody else"
    )]
    Layers(String),
    /// Its tensors make no model.
    #[error("the model `{name}` {problem}")]
    Impossible {
        /// The model.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

fn only(known: &[String]) -> String {
    match known {
        [] => "this program brings none along".to_owned(),
        known => format!("this program brings along `{}`", known.join("`, `")),
    }
}

/// A program has brought something along before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("models and formats of one's own are given once, when a program starts")]
pub struct GivenBefore;

/// Gives this program what it brings along, before it does anything else.
///
/// # Errors
/// [`GivenBefore`] when it is called again.
pub fn bring(own: Own) -> Result<(), GivenBefore> {
    OWN.set(own).map_err(|_| GivenBefore)
}

static OWN: OnceLock<Own> = OnceLock::new();

/// The model called `name`.
///
/// # Errors
/// [`OwnError::Model`].
pub(crate) fn model(name: &str) -> Result<&'static dyn OwnModel, OwnError> {
    find(|own| &own.models, name).map_err(|known| OwnError::Model { name: name.to_owned(), known })
}

/// The format called `name`.
///
/// # Errors
/// [`OwnError::Format`].
pub fn format(name: &str) -> Result<&'static dyn OwnFormat, OwnError> {
    find(|own| &own.formats, name).map_err(|known| OwnError::Format { name: name.to_owned(), known })
}

/// The tensors of the model called `name`.
///
/// # Errors
/// [`OwnError::Model`].
pub fn tensors(name: &str, inputs: usize, classes: usize) -> Result<Vec<OwnTensor>, OwnError> {
    Ok(model(name)?.tensors(inputs, classes))
}

/// What is called `name`, or the names there are.
fn find<T: ?Sized>(
    kind: impl FnOnce(&'static Own) -> &'static BTreeMap<String, Arc<T>>,
    name: &str,
) -> Result<&'static T, Vec<String>> {
    let known = kind(OWN.get_or_init(Own::default));
    known.get(name).map(|found| &**found).ok_or_else(|| known.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{Module, Param};
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Tensor;
    use ndarray::array;

    use super::*;
    use crate::{Architecture, ArchitectureError, ModelFile, Predictor, Subset, Training, Turn};

    /// A linear layer whose logits have a learned temperature.
    #[derive(Module, Debug)]
    struct Tempered {
        linear: Linear,
        temperature: Param<Tensor<1>>,
        #[module(skip)]
        sides: (usize, usize),
    }

    impl Tempered {
        fn new(inputs: usize, classes: usize, device: &Device) -> Self {
            let linear = LinearConfig::new(inputs, classes).init(device);
            let temperature = Param::from_tensor(Tensor::ones([1], device));
            Tempered { linear, temperature, sides: (inputs, classes) }
        }
    }

    impl BurnModel for Tempered {
        fn inputs(&self) -> usize {
            self.sides.0
        }

        fn classes(&self) -> usize {
            self.sides.1
        }

        fn logits(&self, examples: Tensor<2>) -> Tensor<2> {
            self.linear.forward(examples) * self.temperature.val().unsqueeze()
        }
    }

    fn architecture(name: &str, shapes: [&[usize]; 3]) -> Architecture {
        let names = ["linear.weight", "linear.bias", "temperature"];
        let tensor = |(name, shape): (&str, &[usize])| OwnTensor { name: name.into(), shape: shape.to_vec() };
        let tensors = names.into_iter().zip(shapes).map(tensor).collect();
        Architecture::Own { name: name.into(), inputs: 2, classes: 3, tensors }
    }

    fn points(_: &Path, classes: usize) -> Result<Dataset, Box<dyn Error + Send + Sync>> {
        Ok(Dataset::new(array![[0.0, 1.0], [2.0, -1.0], [1.0, 1.0]], array![0, 1, 2], classes)?)
    }

    #[test]
    fn what_a_program_brings_along_trains_predicts_and_survives_its_file() {
        let own = Own::new().burn_model("tempered", Device::flex(), Tempered::new).format("points", points);
        bring(own).unwrap();
        assert_eq!(bring(Own::new()), Err(GivenBefore));

        let tensors = tensors("tempered", 2, 3).unwrap();
        let own = Architecture::Own { name: "tempered".into(), inputs: 2, classes: 3, tensors };
        assert_eq!(own, architecture("tempered", [&[2, 3], &[3], &[1]]));
        let start = own.initial_parameters([1; 32]).unwrap();
        assert_eq!((start.len(), start[9]), (10, 1.0));
        assert_eq!(own.initial_parameters([1; 32]).unwrap(), start);
        assert_ne!(own.initial_parameters([2; 32]).unwrap(), start);

        let data = format("points").unwrap().read(Path::new("anywhere"), 3).unwrap();
        let data = Subset::all(Arc::new(data));
        let mut learner = own.learner().unwrap();
        let training = Training::new(0.5, 20, crate::Batch::Full).unwrap();
        let trained = learner.train(&start, &data, &training, Turn::new([0; 32])).unwrap();
        let model: Vec<f32> = start.iter().zip(&trained.update).map(|(old, step)| old + step).collect();
        let (before, after) =
            (learner.evaluate(&start, &data).unwrap().loss, learner.evaluate(&model, &data).unwrap());
        assert!(after.loss < before / 2.0, "{before} {}", after.loss);

        let file = ModelFile::new(own, model, BTreeMap::new()).unwrap();
        let read = ModelFile::decode(&file.encode()).unwrap();
        assert_eq!(read, file);
        let answers = Predictor::new(read).unwrap().predict(vec![0.0, 1.0, 2.0, -1.0]).unwrap();
        assert_eq!(answers.iter().map(|answer| answer.class().unwrap()).collect::<Vec<_>>(), [0, 1]);
        assert!(file.encode_for_pytorch().unwrap_err().to_string().contains("are known to the program"));

        let error = |architecture: Architecture| architecture.learner().err().unwrap();
        let unknown = error(architecture("hardened", [&[2, 3], &[3], &[1]])).to_string();
        assert!(
            unknown.ends_with("this program brings along `tempered`; run the program that brings it along")
        );
        let other = error(architecture("tempered", [&[3, 2], &[3], &[1]]));
        assert_eq!(other, ArchitectureError::Own(OwnError::Tensors("tempered".into())));
        let empty = error(architecture("tempered", [&[0, 2], &[3], &[1]])).to_string();
        assert_eq!(empty, "the model `tempered` has a tensor `linear.weight` without a number");
    }
}
