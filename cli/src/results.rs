//! The results directory: what a run leaves behind.
//!
//! | file | holds |
//! | --- | --- |
//! | `experiment.toml` | the experiment with every value spelled out |
//! | `rounds.jsonl` | a line for each round, as it ends |
//! | `summary.json` | see [`Summary`] |
//! | `model.safetensors` | the last model, with what it cost in its metadata |
//! | `ledger.skep` | what was charged, for `skep audit`; not where the experiment names another |
//! | `report.html` | all of it for people, see [`crate::report_page`] |
//! | `checkpoint.skep` | until a simulation has ended, what it goes on from; secret |
//!
//! Every file but `rounds.jsonl` is there as a whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use skep_client::{task, weights};
use skep_learning::{Evaluation, Interface, ModelFile};
use skep_protocol::experiment::Experiment;
use skep_server::record::RoundRecord;
use skep_simulations::population;

use crate::experiment_file;
use crate::failure::Failure;
use crate::report::Shown;
use crate::report_page::Report;
use crate::summary::Summary;

/// A directory that is being filled.
#[derive(Debug)]
pub(crate) struct Results {
    directory: PathBuf,
    rounds: File,
    /// How the model is used; it travels with it.
    interface: Interface,
}

impl Results {
    /// Makes or empties the directory and writes the experiment.
    ///
    /// # Errors
    /// [`Failure::Usage`] when something else is in it, [`Failure::Other`] when it cannot be written.
    pub(crate) fn create(directory: &Path, experiment: &Experiment) -> Result<Self, Failure> {
        let fail = |error| Failure::file(directory, error);
        // Now, because its files may be gone when the run ends.
        let interface = population::interface(experiment).map_err(Failure::configuration)?;
        fs::create_dir_all(directory).map_err(fail)?;
        refuse_strangers(directory)?;
        if directory.join(CHECKPOINT).exists() {
            return Err(Failure::Usage {
                problem: format!("--out {}: a run that was stopped waits here to go on", directory.display()),
                help: Some(format!(
                    "go on with --resume; or remove {CHECKPOINT} to start anew, which replaces it"
                )),
            });
        }
        for name in FILES.iter().filter(|name| **name != "rounds.jsonl") {
            remove_if_there(&directory.join(name)).map_err(fail)?;
        }
        write_whole(directory, "experiment.toml", experiment_file::to_toml(experiment).as_bytes())?;
        let rounds = locked(&directory.join("rounds.jsonl"))?;
        rounds.set_len(0).map_err(fail)?;
        Ok(Results { directory: directory.to_owned(), rounds, interface })
    }

    /// Goes on with the results of a run that was stopped after this many rounds, and gives these rounds. What came after them is
    /// going to be repeated.
    ///
    /// # Errors
    /// [`Failure::Other`] when the rounds are not there or cannot be read.
    pub(crate) fn resume(
        directory: &Path,
        experiment: &Experiment,
        rounds: u64,
    ) -> Result<(Self, Vec<RoundRecord>), Failure> {
        let interface = population::interface(experiment).map_err(Failure::configuration)?;
        refuse_strangers(directory)?;
        let path = directory.join("rounds.jsonl");
        let file = locked(&path)?;
        for name in FILES.iter().filter(|name| !KEPT.contains(name)) {
            remove_if_there(&directory.join(name)).map_err(|error| Failure::file(directory, error))?;
        }
        let fail = |error| Failure::file(&path, error);
        let damaged = |reason: String| {
            Failure::Other(format!(
                "{}: {reason}, so the run cannot go on; start anew, without --resume, after removing {CHECKPOINT}",
                path.display()
            ))
        };
        let text = fs::read_to_string(&path).map_err(fail)?;
        let wanted = usize::try_from(rounds).unwrap_or(usize::MAX);
        let lines: Vec<&str> = text.split_inclusive('\n').take(wanted).collect();
        if lines.len() < wanted || lines.last().is_some_and(|line| !line.ends_with('\n')) {
            return Err(damaged(format!("it has not the {rounds} rounds that were run")));
        }
        let records = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|error| damaged(format!("a round cannot be read ({error})")))?;
        file.set_len(lines.iter().map(|line| line.len() as u64).sum()).map_err(fail)?;
        Ok((Results { directory: directory.to_owned(), rounds: file, interface }, records))
    }

    /// Where the results are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds a round that has ended.
    ///
    /// # Errors
    /// [`Failure::Other`] when it cannot be written.
    pub(crate) fn add_round(&mut self, record: &RoundRecord) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(record).map_err(Failure::other)?;
        line.push(b'\n');
        self.rounds
            .write_all(&line)
            .map_err(|error| Failure::file(self.directory.join("rounds.jsonl"), error))
    }

    /// Writes everything that is known at the end only.
    ///
    /// # Errors
    /// [`Failure::Other`] when it cannot be written.
    pub(crate) fn finish(
        self,
        experiment: &Experiment,
        records: &[RoundRecord],
        summary: &Summary,
        model: Vec<f32>,
        shown: &Shown,
        measured: Option<&Evaluation>,
    ) -> Result<(), Failure> {
        self.rounds.sync_all().map_err(|error| Failure::file(&self.directory, error))?;
        let report = Report {
            experiment,
            records,
            summary,
            classes: &population::class_names(experiment),
            measured,
            simulated_clients: shown.simulated_clients.as_deref(),
        };
        write_whole(&self.directory, "report.html", report.html().as_bytes())?;
        let whole = population::assembled(experiment, &model).map_err(Failure::other)?;
        let architecture = task::architecture(&experiment.task);
        let file =
            ModelFile::new(architecture, whole, metadata(experiment, summary)).map_err(Failure::other)?;
        let file = match weights::tuning(&experiment.task) {
            Some(tuning) => file.with_tuning(tuning, model).map_err(Failure::other)?,
            None => file,
        };
        let model = file.with_interface(self.interface).map_err(Failure::other)?;
        write_whole(&self.directory, "model.safetensors", &model.encode())?;
        let mut json = serde_json::to_vec_pretty(summary).map_err(Failure::other)?;
        json.push(b'\n');
        write_whole(&self.directory, "summary.json", &json)?;
        match summary.ended {
            "interrupted" => Ok(()),
            _ => remove_if_there(&self.directory.join(CHECKPOINT))
                .map_err(|error| Failure::file(&self.directory, error)),
        }
    }
}

/// The summary in a results directory, if there is one.
///
/// # Errors
/// [`Failure::Other`] when it cannot be read.
pub(crate) fn summary(directory: &Path) -> Result<Option<Value>, Failure> {
    let path = directory.join("summary.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Failure::Other(format!("{}: {error}", path.display()))),
        Err(error) if NOT_THERE.contains(&error.kind()) => Ok(None),
        Err(error) => Err(Failure::file(path, error)),
    }
}

/// The rounds in a results directory, so far.
///
/// # Errors
/// [`Failure::Usage`] when there are none, [`Failure::Other`] when they cannot be read.
pub(crate) fn rounds(directory: &Path) -> Result<Vec<RoundRecord>, Failure> {
    let path = directory.join("rounds.jsonl");
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        kind if NOT_THERE.contains(&kind) => Failure::Usage {
            problem: format!("{}: there is no rounds.jsonl here", directory.display()),
            help: Some("name a results directory of `skep simulate --out` or `skep serve --out`".to_owned()),
        },
        _ => Failure::file(&path, error),
    })?;
    // A last line that is being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    lines.map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}

/// Whether the results in a directory are of this experiment.
pub(crate) fn is_of(directory: &Path, experiment: &Experiment) -> bool {
    let kept = fs::read_to_string(directory.join("experiment.toml"));
    kept.is_ok_and(|kept| kept == experiment_file::to_toml(experiment))
}

/// Whether a process writes its results into this directory.
pub(crate) fn is_being_written(directory: &Path) -> bool {
    let file = File::options().append(true).open(directory.join("rounds.jsonl"));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// A file to append to, which no other process does at the same time.
fn locked(path: &Path) -> Result<File, Failure> {
    let open = || File::options().append(true).create(true).open(path);
    let file = open().map_err(|error| Failure::file(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Failure::Other(format!("{}: another process writes its results here", path.display())))
        }
        Err(fs::TryLockError::Error(error)) => Err(Failure::file(path, error)),
    }
}

/// What a model file says about its model.
fn metadata(experiment: &Experiment, summary: &Summary) -> BTreeMap<String, String> {
    let number = |value: Option<f64>| value.map_or("none".to_owned(), |value| value.to_string());
    let mut metadata = BTreeMap::from([
        ("task".to_owned(), experiment.name.clone()),
        ("rounds".to_owned(), (summary.rounds_completed + summary.rounds_degraded).to_string()),
        ("mode".to_owned(), summary.mode.to_owned()),
        ("secure_aggregation".to_owned(), summary.secure_aggregation.to_string()),
        ("epsilon".to_owned(), number(summary.cost.epsilon_release)),
        ("epsilon_server".to_owned(), number(summary.cost.epsilon_server)),
        ("epsilon_alone".to_owned(), number(summary.cost.epsilon_alone)),
        ("sampling".to_owned(), summary.sampling.clone()),
        ("noise_seeded".to_owned(), summary.noise_seeded.to_string()),
        ("model_sha256".to_owned(), summary.model_sha256.clone()),
        ("ledger_checkpoint".to_owned(), summary.ledger_checkpoint.clone()),
        ("made_by".to_owned(), format!("skep {}", summary.version)),
    ]);
    if let Some(terms) = experiment.privacy.terms() {
        metadata.insert("unit".to_owned(), terms.unit.to_string());
        metadata.insert("adjacency".to_owned(), terms.adjacency.to_string());
        metadata.insert("delta".to_owned(), terms.delta.to_string());
    }
    if let Some(accountant) = summary.cost.accountant {
        metadata.insert("accountant".to_owned(), accountant.to_owned());
    }
    if let Some(secure_aggregation) = experiment.privacy.secure_aggregation() {
        let fraction = secure_aggregation.max_corrupt_fraction;
        metadata.insert("max_corrupt_fraction".to_owned(), fraction.to_string());
    }
    metadata
}

/// Nothing but our own files may be there: what a person keeps in a directory is never replaced.
fn refuse_strangers(directory: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(directory).map_err(|error| Failure::file(directory, error))?;
    for entry in entries {
        let name = entry.map_err(|error| Failure::file(directory, error))?.file_name();
        // What a process left that was killed while it wrote.
        if name.to_str().is_some_and(|name| name.starts_with(".temporary-")) {
            remove_if_there(&directory.join(&name)).map_err(|error| Failure::file(directory, error))?;
        } else if !FILES.iter().any(|known| name == *known) {
            return Err(Failure::Usage {
                problem: format!(
                    "--out {}: the directory holds `{}`, which is no result of skep",
                    directory.display(),
                    name.display()
                ),
                help: Some(
                    "name a new or an empty directory, or one that skep has written before".to_owned(),
                ),
            });
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes beside the name, then renames: a reader sees all of the file or none.
fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (unfinished, path) = (directory.join(UNFINISHED), directory.join(name));
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(|error| Failure::file(&path, error))
}

/// What the system says of a file that is not there.
const NOT_THERE: [io::ErrorKind; 2] = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
/// What a simulation that was stopped goes on from.
pub(crate) const CHECKPOINT: &str = "checkpoint.skep";
/// What a run that goes on needs of the one before it.
const KEPT: [&str; 4] = ["experiment.toml", "rounds.jsonl", "ledger.skep", CHECKPOINT];
const FILES: [&str; 8] = [
    "experiment.toml",
    "rounds.jsonl",
    "summary.json",
    "model.safetensors",
    "report.html",
    "ledger.skep",
    CHECKPOINT,
    UNFINISHED,
];
const UNFINISHED: &str = ".unfinished";
