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
//!
//! Every file but `rounds.jsonl` is there as a whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use skep_client::task;
use skep_learning::ModelFile;
use skep_protocol::experiment::Experiment;
use skep_server::record::RoundRecord;
use skep_simulations::{TestSet, population};

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
}

impl Results {
    /// Makes or empties the directory and writes the experiment.
    ///
    /// # Errors
    /// [`Failure::Usage`] when something else is in it, [`Failure::Other`] when it cannot be written.
    pub(crate) fn create(directory: &Path, experiment: &Experiment) -> Result<Self, Failure> {
        let fail = |error| Failure::file(directory, error);
        fs::create_dir_all(directory).map_err(fail)?;
        refuse_strangers(directory)?;
        for name in FILES {
            remove_if_there(&directory.join(name)).map_err(fail)?;
        }
        write_whole(directory, "experiment.toml", experiment_file::to_toml(experiment).as_bytes())?;
        let rounds = File::create(directory.join("rounds.jsonl")).map_err(fail)?;
        Ok(Results { directory: directory.to_owned(), rounds })
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
    ) -> Result<(), Failure> {
        self.rounds.sync_all().map_err(|error| Failure::file(&self.directory, error))?;
        write_whole(
            &self.directory,
            "report.html",
            page(experiment, records, summary, &model, shown)?.as_bytes(),
        )?;
        let model =
            ModelFile::new(task::architecture(&experiment.task), model, metadata(experiment, summary))
                .map_err(Failure::other)?;
        write_whole(&self.directory, "model.safetensors", &model.encode())?;
        let mut json = serde_json::to_vec_pretty(summary).map_err(Failure::other)?;
        json.push(b'\n');
        write_whole(&self.directory, "summary.json", &json)
    }
}

/// The report; it has no confusion matrix where the model cannot be measured.
fn page(
    experiment: &Experiment,
    records: &[RoundRecord],
    summary: &Summary,
    model: &[f32],
    shown: &Shown,
) -> Result<String, Failure> {
    let mut test = TestSet::new(&experiment.task, shown.test.clone()).map_err(Failure::configuration)?;
    let measured = test.measure(model).map_err(Failure::other)?;
    let report = Report {
        experiment,
        records,
        summary,
        classes: &population::class_names(experiment),
        confusion: summary.accuracy.is_some().then_some(&measured.confusion),
        simulated_clients: shown.simulated_clients.as_deref(),
    };
    Ok(report.html())
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
        if !FILES.iter().any(|known| name == *known) {
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

const FILES: [&str; 7] = [
    "experiment.toml",
    "rounds.jsonl",
    "summary.json",
    "model.safetensors",
    "report.html",
    "ledger.skep",
    UNFINISHED,
];
const UNFINISHED: &str = ".unfinished";
