//! `skep compare`: runs beside one another, as a table and as a page of curves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use skep_protocol::experiment::{Metric, Predicted};
use skep_server::record::RoundRecord;
use toml::Table;

use crate::arguments::{Compare, Output};
use crate::failure::Failure;
use crate::metric_words;
use crate::report_page::{Compared, compared};
use crate::results;
use crate::text_table::aligned;

/// A run that is compared.
struct Run {
    directory: PathBuf,
    /// What the run is called: its directory, as short as it is told from the others.
    name: String,
    experiment: Table,
    summary: Value,
    records: Vec<RoundRecord>,
}

/// Runs `skep compare`.
///
/// # Errors
/// [`Failure`] when a directory holds no results, or the page cannot be written.
pub(crate) fn run(arguments: &Compare) -> Result<(), Failure> {
    let runs =
        arguments.results.iter().map(|directory| Run::read(directory)).collect::<Result<Vec<_>, _>>()?;
    let keys = differing(&runs);
    if let Some(html) = &arguments.html {
        let compared_runs: Vec<Compared<'_>> =
            runs.iter().map(|run| Compared { name: run.told(&keys), records: &run.records }).collect();
        let rows = table(&runs, &keys);
        fs::write(html, compared(&compared_runs, &metrics(&runs), &rows))
            .map_err(|error| Failure::file(html, error))?;
    }
    match arguments.output {
        Output::Text => print!("{}", aligned(&table(&runs, &keys))),
        Output::Json => println!("{}", json(&runs, &keys)),
    }
    Ok(())
}

impl Run {
    fn read(directory: &Path) -> Result<Self, Failure> {
        let summary = results::summary(directory)?.ok_or_else(|| Failure::Usage {
            problem: format!("{}: there is no summary.json here", directory.display()),
            help: Some("name results directories of `skep simulate --out` or `skep serve --out` whose runs have ended".to_owned()),
        })?;
        let path = directory.join("experiment.toml");
        let text = fs::read_to_string(&path).map_err(|error| Failure::file(&path, error))?;
        let experiment =
            toml::from_str(&text).map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?;
        let records = results::rounds(directory)?;
        let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        Ok(Run { directory: directory.to_owned(), name, experiment, summary, records })
    }

    fn value(&self, key: &str) -> Option<&toml::Value> {
        let mut parts = key.split('.');
        let first = self.experiment.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    /// The run in a legend: its name, and what is its own.
    fn told(&self, keys: &[String]) -> String {
        let own = keys.iter().filter_map(|key| {
            let short = key.rsplit('.').next().unwrap_or(key);
            Some(format!("{short} {}", self.value(key)?))
        });
        let own: Vec<String> = own.take(MOST_IN_A_LEGEND).collect();
        if own.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, own.join(", ")) }
    }
}

/// The keys in which the experiments are not all the same.
fn differing(runs: &[Run]) -> Vec<String> {
    let mut keys = BTreeSet::new();
    runs.iter().for_each(|run| leaves(&run.experiment, "", &mut keys));
    let differs = |key: &String| runs.iter().any(|run| run.value(key) != runs[0].value(key));
    keys.into_iter().filter(differs).collect()
}

fn leaves(table: &Table, prefix: &str, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => leaves(inner, &key, keys),
            _ => drop(keys.insert(key)),
        }
    }
}

fn table(runs: &[Run], keys: &[String]) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["run".to_owned()]];
    rows[0].extend(keys.iter().cloned());
    let metrics = metrics(runs);
    let validated = runs.iter().any(|run| run.summary["validation"].is_object());
    let on_validation = metrics.iter().filter(|metric| validated && **metric != Metric::Loss);
    rows[0].extend(on_validation.clone().map(|metric| format!("validation {}", metric.name())));
    rows[0].extend(metrics.iter().map(|metric| metric.name().to_owned()));
    rows[0].extend(COLUMNS.map(|(name, _)| name.to_owned()));
    for run in runs {
        let mut row = vec![run.name.clone()];
        row.extend(keys.iter().map(|key| run.value(key).map_or("–".to_owned(), ToString::to_string)));
        let validation = &run.summary["validation"];
        row.extend(on_validation.clone().map(|metric| measured(*metric, &validation[metric.key()])));
        row.extend(metrics.iter().map(|metric| measured(*metric, &run.summary[metric.key()])));
        row.extend(COLUMNS.map(|(_, key)| shown(key, &run.summary[key])));
        rows.push(row);
    }
    rows
}

/// What is measured of the models of any of the runs.
fn metrics(runs: &[Run]) -> Vec<Metric> {
    let predicted = runs.iter().map(|run| {
        let first = run.summary["metric"].as_str().unwrap_or(Metric::Accuracy.key());
        let by = |predicted: &Predicted| predicted.metric().key() == first;
        Predicted::ALL.into_iter().find(by).unwrap_or(Predicted::Class)
    });
    metric_words::of_any(predicted)
}

fn measured(metric: Metric, value: &Value) -> String {
    value.as_f64().map_or("–".to_owned(), |value| metric_words::shown(metric, value))
}

fn json(runs: &[Run], keys: &[String]) -> Value {
    let runs = runs.iter().map(|run| {
        let own =
            keys.iter().filter_map(|key| Some((key.clone(), serde_json::to_value(run.value(key)?).ok()?)));
        json!({
            "directory": run.directory,
            "values": own.collect::<serde_json::Map<_, _>>(),
            "summary": run.summary,
        })
    });
    json!({ "runs": runs.collect::<Vec<_>>() })
}

fn shown(key: &str, value: &Value) -> String {
    match (value.as_u64(), value.as_f64()) {
        (Some(count), _) => count.to_string(),
        (None, Some(number)) => format!("{number:.4}"),
        // No epsilon is the worst, not the best.
        (None, None) if key.starts_with("epsilon") => "unbounded".to_owned(),
        (None, None) => value.as_str().unwrap_or("–").to_owned(),
    }
}

const COLUMNS: [(&str, &str); 6] = [
    ("complete", "rounds_completed"),
    ("degraded", "rounds_degraded"),
    ("aborted", "rounds_aborted"),
    ("eps recipients", "epsilon_release"),
    ("eps server", "epsilon_server"),
    ("seconds", "seconds_total"),
];
/// Values beside a name.
const MOST_IN_A_LEGEND: usize = 3;
