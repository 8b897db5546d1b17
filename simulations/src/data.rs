//! Reading what an experiment says its data are.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_client::task::TaskError;
use skep_learning::idx::{self, IdxError};
use skep_learning::images::{self, Format, ImagesError, Wanted};
use skep_learning::npy::{self, NpyError};
use skep_learning::own::OwnError;
use skep_learning::scrub::{RecordReport, Scrubber};
use skep_learning::table::TableError;
use skep_learning::{
    ArchitectureError, Classes, Dataset, DatasetError, Input, Interface, Scaling, ScalingError, Split,
    StandardizationError, StandardizationFault, Subset, digits, own,
};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::{
    CountOrNames, Data, Experiment, Files, IdxPair, ImageData, ImageFormat, Normalize, NpzData, OwnData,
    Predicted, TableAnswer, TableData, TextData,
};
use thiserror::Error;

use skep_client::weights::WeightsError;
use skep_learning::pretrained::PretrainedError;

use crate::clients::generator;
use crate::table;
use crate::text::{self, TextDataError};

/// Why an experiment's data cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// A table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Images or labels cannot be read.
    #[error(transparent)]
    Idx(#[from] IdxError),
    /// Images cannot be read.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Images cannot be scaled.
    #[error("task.data.normalize: {0}")]
    Normalize(#[from] ScalingError),
    /// Texts, their vocabulary or its vectors cannot be used.
    #[error(transparent)]
    Text(#[from] TextDataError),
    /// The file of means and standard deviations cannot be used.
    #[error("task.data.standardize: {0}")]
    Standardization(#[from] StandardizationError),
    /// It is about other columns.
    #[error("task.data.standardize: {}: {fault}", path.display())]
    OtherColumns {
        /// The file.
        path: PathBuf,
        /// About which.
        fault: StandardizationFault,
    },
    /// It does not say what stands in for a missing value.
    #[error("task.data.columns.{column}.missing is \"mean\", but {} has none of this column", path.display())]
    NoMean {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A feature leaves the range of numbers.
    #[error("{}: task.data.standardize: {source}", path.display())]
    Standardized {
        /// The file of the examples.
        path: PathBuf,
        /// Where.
        source: DatasetError,
    },
    /// The model is impossible.
    #[error("task.model cannot be trained: {0}")]
    Architecture(#[from] ArchitectureError),
    /// Arrays cannot be read.
    #[error(transparent)]
    Npz(#[from] NpyError),
    /// The program does not bring the format along.
    #[error("task.data.format: {0}")]
    Format(#[from] OwnError),
    /// The program's own reader has found a fault.
    #[error("{}: {source}", path.display())]
    Own {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Weights are not here, or a part of a model is none.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file has no weights for the model.
    #[error("task.tuning.weights: {0}")]
    Pretrained(#[from] PretrainedError),
    /// The model that the program brings along is not that of the task.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Labels in a file are not classes of the experiment.
    #[error("{}: has {found} classes, but task.data.classes says {expected}", path.display())]
    Classes {
        /// The file.
        path: PathBuf,
        /// Classes of the task.
        expected: usize,
        /// Classes in the file.
        found: usize,
    },
    /// A file holds other examples than the experiment says.
    #[error("{}: has {found} features, but task.data.features says {expected}", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// Features of the task.
        expected: usize,
        /// Features of an example in the file.
        found: usize,
    },
    /// Too few examples to hold some out.
    #[error("{}: task.data.hold_out_every: {source}", path.display())]
    Split {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: DatasetError,
    },
    /// Too few examples to take some out of what clients train on.
    #[error("evaluation.validation: {0}")]
    Validation(#[source] DatasetError),
    /// Labels are elsewhere than said.
    #[error("the labels of such data {0}")]
    Labels(&'static str),
    /// The experiment's data are built in.
    #[error("the experiment's data are not in files, so that it does not say how one is read")]
    NoFiles,
    /// There is nothing to share among simulated clients.
    #[error("task.data.train is missing: simulated clients have nothing to train on")]
    NoTraining,
}

/// The experiment's data, split into what clients train on and what the server evaluates on.
///
/// # Errors
/// [`DataError`], which names the file and the place in it.
pub fn data(experiment: &Experiment) -> Result<Split, DataError> {
    let split = in_two(experiment)?;
    let Some(part) = experiment.evaluation.validation else { return Ok(split) };
    let key = Key::from_seed(experiment.seed).derive(Purpose::Data, 2, 0);
    split.with_validation(part, *key.expose()).map_err(DataError::Validation)
}

fn in_two(experiment: &Experiment) -> Result<Split, DataError> {
    match &experiment.data {
        Data::Digits => Ok(digits::load()),
        Data::Table(data) => split(&data.files, |path| table::read(data, path), |path| path),
        Data::Idx(idx) => split(&idx.files, |pair| idx_images(experiment, pair), |pair| &pair.images),
        Data::Npz(npz) => split(&npz.files, |path| arrays(experiment, npz, path), |path| path),
        Data::Own(own) => split(&own.files, |path| in_own_format(experiment, own, path), |path| path),
        Data::Images(data) => split(&data.files, |path| pictures(data, path), |path| path),
        Data::Text(data) => {
            let preparation = text::preparation(data)?;
            split(&data.files, |path| Ok(text::read(data, &preparation, path)?), |path| path)
        }
        // Training examples are generated client by client.
        Data::Workload(workload) => {
            let test = generator(*workload).clients(0..experiment.population.clients.min(MEASURED));
            let train = Subset::new(test.dataset().clone(), vec![]).expect("no rows are out of range");
            Ok(Split::new(train, test))
        }
    }
}

/// The examples of one owner, who trains on `file` instead of what the experiment's clients share: the experiment says how
/// such a file is read. `labels` goes with files whose labels are apart; `scrubber`, if any, goes over texts first, and what
/// it did is returned.
///
/// # Errors
/// [`DataError`], which names the file and the place in it.
pub fn owned(
    experiment: &Experiment,
    file: &Path,
    labels: Option<&Path>,
    scrubber: Option<&Scrubber>,
) -> Result<(Subset, Option<RecordReport>), DataError> {
    match (&experiment.data, labels) {
        (Data::Table(data), None) => {
            let anybody = TableData { client: None, ..data.clone() };
            Ok((whole(table::read(&anybody, file)?), None))
        }
        (Data::Idx(_), Some(labels)) => {
            let pair = IdxPair { images: file.to_owned(), labels: labels.to_owned() };
            Ok((whole(idx_images(experiment, &pair)?), None))
        }
        (Data::Npz(npz), None) => Ok((whole(arrays(experiment, npz, file)?), None)),
        (Data::Own(own), None) => Ok((whole(in_own_format(experiment, own, file)?), None)),
        (Data::Images(data), None) => {
            let mut anybody = data.clone();
            if let ImageFormat::Parquet { client, .. } = &mut anybody.format {
                *client = None;
            }
            Ok((whole(pictures(&anybody, file)?), None))
        }
        (Data::Text(text), None) => {
            let anybody = TextData { client: None, ..text.clone() };
            match scrubber {
                None => Ok((whole(text::read(&anybody, &text::preparation(&anybody)?, file)?), None)),
                Some(scrubber) => {
                    let (dataset, report) = text::read_scrubbed(&anybody, file, scrubber)?;
                    Ok((whole(dataset), Some(report)))
                }
            }
        }
        (Data::Idx(_), None) => Err(DataError::Labels("are in another file, which has to be named")),
        (Data::Table(_) | Data::Npz(_) | Data::Images(_) | Data::Text(_) | Data::Own(_), Some(_)) => {
            Err(DataError::Labels("are in the file itself, so that no other can be named"))
        }
        (Data::Digits | Data::Workload(_), _) => Err(DataError::NoFiles),
    }
}

/// Clients on whose examples the model of a workload is measured: the first.
const MEASURED: u64 = 100;

/// What the server evaluates on. A file of clients' examples is read only if those are held out of it.
///
/// # Errors
/// [`DataError`], which names the file and the place in it.
pub fn test_data(experiment: &Experiment) -> Result<Subset, DataError> {
    match &experiment.data {
        Data::Table(data) if let Files::Apart { test, .. } = &data.files => {
            table::read(data, test).map(whole)
        }
        Data::Idx(idx) if let Files::Apart { test, .. } = &idx.files => {
            idx_images(experiment, test).map(whole)
        }
        Data::Npz(npz) if let Files::Apart { test, .. } = &npz.files => {
            arrays(experiment, npz, test).map(whole)
        }
        Data::Own(own) if let Files::Apart { test, .. } = &own.files => {
            in_own_format(experiment, own, test).map(whole)
        }
        Data::Images(data) if let Files::Apart { test, .. } = &data.files => pictures(data, test).map(whole),
        Data::Text(data) if let Files::Apart { test, .. } = &data.files => {
            Ok(whole(text::read(data, &text::preparation(data)?, test)?))
        }
        _ => Ok(data(experiment)?.test),
    }
}

/// What the classes of the experiment's data are called, in their order; none where a number is predicted.
pub fn class_names(experiment: &Experiment) -> Vec<String> {
    let classes = match &experiment.data {
        Data::Digits => Classes::Numbers(digits::CLASSES),
        Data::Table(data) => match &data.answer {
            TableAnswer::Class { classes: own, .. } => classes(own),
            TableAnswer::Number(_) => return vec![],
        },
        Data::Idx(idx) => classes(&idx.classes),
        Data::Npz(npz) => classes(&npz.classes),
        Data::Own(own) => classes(&own.classes),
        Data::Images(data) => classes(&data.classes),
        Data::Text(text) => classes(&text.classes),
        Data::Workload(workload) => Classes::Numbers(workload.classes() as usize),
    };
    (0..classes.count()).map(|class| classes.name(class)).collect()
}

/// How a model of the experiment is used: what its examples are in files, and what its classes are called.
///
/// # Errors
/// [`DataError`] when the header of a table, a vocabulary or its vectors cannot be read.
pub fn interface(experiment: &Experiment) -> Result<Interface, DataError> {
    let numbers = |columns, divisor| Input::Numbers { columns, divisor };
    let mut standardized = None;
    let input = match &experiment.data {
        Data::Digits => numbers(None, digits::DARKEST),
        Data::Table(data) => {
            let (encoder, statistics) = table::encoder(data)?;
            standardized = statistics;
            match encoder.is_plain() {
                true => numbers(Some(encoder.names()), 1.0),
                false => Input::Table { columns: encoder },
            }
        }
        Data::Idx(_) => numbers(None, idx::BRIGHTEST),
        Data::Npz(npz) => {
            let (Files::Apart { test: file, .. } | Files::HeldOut { all: file, .. }) = &npz.files;
            let bytes = npy::read(file, Some(&npz.examples))?.bytes;
            numbers(None, if bytes { idx::BRIGHTEST } else { 1.0 })
        }
        Data::Images(data) => {
            let [height, width, channels] = size(data);
            let Normalize { mean, std: deviation } = normalize(data);
            Input::Image { height, width, channels, mean, deviation }
        }
        Data::Text(data) => Input::Text { preparation: text::preparation(data)? },
        Data::Workload(_) | Data::Own(_) => numbers(None, 1.0),
    };
    let classes = match &input {
        Input::Text { preparation } if experiment.data.predicted() == Predicted::Word => {
            preparation.vocabulary.words().to_vec()
        }
        _ => class_names(experiment),
    };
    Ok(Interface { input, standardization: standardized, classes, target: table::target(&experiment.data) })
}

/// Reads `files`; `path` says which file is at fault when nothing can be held out.
fn split<F>(
    files: &Files<F>,
    read: impl Fn(&F) -> Result<Dataset, DataError>,
    path: impl Fn(&F) -> &PathBuf,
) -> Result<Split, DataError> {
    match files {
        Files::Apart { train, test } => {
            let train = train.as_ref().ok_or(DataError::NoTraining)?;
            Ok(Split::new(whole(read(train)?), whole(read(test)?)))
        }
        Files::HeldOut { all, every } => Split::hold_out(Arc::new(read(all)?), *every as usize)
            .map_err(|source| DataError::Split { path: path(all).clone(), source }),
    }
}

fn whole(dataset: Dataset) -> Subset {
    Subset::all(Arc::new(dataset))
}

fn arrays(experiment: &Experiment, npz: &NpzData, path: &Path) -> Result<Dataset, DataError> {
    let classes = experiment.task.classes as usize;
    expected(experiment, path, npy::dataset(path, &npz.examples, &npz.labels, classes)?)
}

fn in_own_format(experiment: &Experiment, own: &OwnData, path: &Path) -> Result<Dataset, DataError> {
    let classes = experiment.task.classes as usize;
    let dataset = own::format(&own.format)?
        .read(path, classes)
        .map_err(|source| DataError::Own { path: path.to_owned(), source })?;
    let found = dataset.classes();
    if classes != found {
        return Err(DataError::Classes { path: path.to_owned(), expected: classes, found });
    }
    expected(experiment, path, dataset)
}

fn idx_images(experiment: &Experiment, pair: &IdxPair) -> Result<Dataset, DataError> {
    let dataset = idx::read(&pair.images, &pair.labels, experiment.task.classes as usize)?;
    expected(experiment, &pair.images, dataset)
}

fn pictures(data: &ImageData, path: &Path) -> Result<Dataset, DataError> {
    let format = match data.format.clone() {
        ImageFormat::Parquet { column: image, label, client } => Format::Parquet { image, label, client },
        ImageFormat::Folder => Format::Folder,
        ImageFormat::Cifar10 => Format::Cifar10,
    };
    let Normalize { mean, std } = normalize(data);
    let wanted =
        Wanted { size: size(data), scaling: Scaling::new(&mean, &std)?, classes: classes(&data.classes) };
    Ok(images::read(path, &format, &wanted)?)
}

fn size(data: &ImageData) -> [usize; 3] {
    data.image.map(|number| number as usize)
}

/// What is said, or what changes nothing.
fn normalize(data: &ImageData) -> Normalize {
    let channels = data.image[2] as usize;
    data.normalize
        .clone()
        .unwrap_or_else(|| Normalize { mean: vec![0.0; channels], std: vec![1.0; channels] })
}

fn expected(experiment: &Experiment, path: &Path, dataset: Dataset) -> Result<Dataset, DataError> {
    let (expected, found) = (experiment.task.inputs as usize, dataset.inputs());
    if expected == found {
        return Ok(dataset);
    }
    Err(DataError::Features { path: path.to_owned(), expected, found })
}

pub(crate) fn classes(classes: &CountOrNames) -> Classes {
    match classes {
        CountOrNames::Count(count) => Classes::Numbers(*count as usize),
        CountOrNames::Names(names) => Classes::Names(names.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_protocol::experiment::TableFormat;
    use skep_protocol::experiment::file::{DataFile, PartitionFile, TableFile};

    use super::*;
    use crate::population;
    use crate::testing::file;

    const TABLE: &str = "age,ward,sick,heat\n61,north,no,38\n7,south,yes,37\n8,north,yes,37\n9,south,no,39\n";

    /// An experiment over `train.csv` in `directory`.
    fn experiment(directory: &Path, text: &str, change: impl FnOnce(&mut TableFile)) -> Experiment {
        let train = directory.join("train.csv");
        std::fs::write(&train, text).unwrap();
        let mut csv = TableFile {
            train: Some(train.clone()),
            test: Some(train),
            hold_out_every: None,
            label: Some("sick".into()),
            client: Some("ward".into()),
            features: CountOrNames::Count(2),
            classes: Some(CountOrNames::Names(vec!["no".into(), "yes".into()])),
            standardize: None,
            target: None,
            columns: BTreeMap::new(),
        };
        change(&mut csv);
        let mut file = file();
        file.task.data = DataFile::Table(TableFormat::Csv, csv);
        file.population.clients = 2;
        file.population.partition = PartitionFile::Column {};
        file.rounds.min_updates = 1;
        Experiment::try_from(&file).unwrap()
    }

    #[test]
    fn clients_get_the_lines_that_bear_their_name() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = experiment(directory.path(), TABLE, |_| {});
        let data = data(&experiment).unwrap();
        let shares = population::shares(&experiment, &data.train).unwrap();
        let rows: Vec<_> = shares.iter().map(|share| share.rows().to_vec()).collect();
        assert_eq!(rows, [vec![0, 2], vec![1, 3]]);
        assert_eq!(data.test.len(), 4);
        assert_eq!(class_names(&experiment), ["no", "yes"]);
    }

    #[test]
    fn a_server_with_a_test_file_needs_no_training_file() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = experiment(directory.path(), TABLE, |csv| csv.train = None);
        assert_eq!(test_data(&experiment).unwrap().len(), 4);
        assert!(matches!(data(&experiment), Err(DataError::NoTraining)));
    }

    #[test]
    fn lines_are_held_out_of_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let hold_out = |every| {
            move |csv: &mut TableFile| {
                csv.test = None;
                csv.hold_out_every = Some(every);
            }
        };
        let held = experiment(directory.path(), TABLE, hold_out(2));
        let split = data(&held).unwrap();
        // The second of each client.
        assert_eq!((split.train.rows(), split.test_ids()), (&[0, 1][..], &[2, 3][..]));
        assert_eq!(test_data(&held).unwrap().rows(), [2, 3]);
        let too_few = data(&experiment(directory.path(), TABLE, hold_out(5))).unwrap_err();
        assert!(too_few.to_string().contains("task.data.hold_out_every"), "{too_few}");
    }

    #[test]
    fn columns_are_standardized_for_training_and_for_whoever_uses_the_model() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("statistics.json");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write(r#"{"columns":["age","heat"],"mean":[8.0,37.0],"deviation":[2.0,0.5]}"#);
        let experiment = experiment(directory.path(), TABLE, |csv| csv.standardize = Some(file.clone()));
        let data = data(&experiment).unwrap().train;
        assert_eq!(data.dataset().features().row(2).to_vec(), [0.0, 0.0]);
        assert_eq!(data.dataset().features().row(3).to_vec(), [0.5, 4.0]);
        let interface = interface(&experiment).unwrap();
        assert_eq!(interface.standardization.unwrap().mean(), [8.0, 37.0]);
        write(r#"{"columns":["heat","age"],"mean":[37.0,8.0],"deviation":[0.5,2.0]}"#);
        let told = test_data(&experiment).unwrap_err().to_string();
        assert!(
            told.starts_with("task.data.standardize: ") && told.contains("is about the columns"),
            "{told}"
        );
    }

    #[test]
    fn a_file_of_other_examples_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let wide = experiment(directory.path(), TABLE, |csv| csv.features = CountOrNames::Count(3));
        let error = data(&wide).unwrap_err().to_string();
        assert!(error.ends_with("train.csv: has 2 features, but task.data.features says 3"), "{error}");
    }
}
