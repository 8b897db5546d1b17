//! What came of the runs of a sweep, and what all of them together cost in privacy.

use std::fmt::Write;

use serde_json::{Value, json};
use skep_privacy::adversary::Adversary;
use skep_privacy::spending::Spending;
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::experiment::{Experiment, Metric};
use skep_server::federation;
use skep_server::federation::no_promise;

use super::Ran;
use super::plan::told;
use crate::metric_words::{self, named};
use crate::text_table::aligned;

/// A run that has ended, in a line.
pub(super) fn line(ran: &Ran, of: usize) -> String {
    let values = told(&ran.planned.values);
    match &ran.summary {
        Ok(summary) => {
            let metric = metric(ran);
            let validation = if summary["validation"].is_object() { "validation " } else { "" };
            let value = named(metric, deciding(summary, metric));
            format!("run {} of {of}: {validation}{value}, with {values}", ran.planned.number)
        }
        Err(error) => format!("run {} of {of} failed, with {values}: {error}", ran.planned.number),
    }
}

/// For people: a line for each run, the best marked, and the cost of all.
pub(super) fn text(ran: &[Ran]) -> String {
    let Some(first) = ran.first() else { return String::new() };
    let mut header = vec!["run".to_owned()];
    header.extend(first.planned.values.iter().map(|(key, _)| key.clone()));
    // Runs of a sweep may differ in their data, and so in what is measured.
    let measured = metric_words::of_any(ran.iter().map(|ran| ran.planned.experiment.data.predicted()));
    let validates = |ran: &Ran| ran.summary.as_ref().is_ok_and(|summary| summary["validation"].is_object());
    let validated = ran.iter().any(validates);
    let on_validation = measured.iter().filter(|metric| validated && **metric != Metric::Loss);
    header.extend(on_validation.clone().map(|metric| format!("validation {}", metric.name())));
    header.extend(measured.iter().map(|metric| metric.name().to_owned()));
    header.extend(["eps recipients", "eps server"].map(str::to_owned));
    let mut rows = vec![header];
    let best = best(ran);
    for ran in ran {
        let marked = if Some(ran.planned.number) == best { " *" } else { "" };
        let mut row = vec![format!("{}{marked}", ran.planned.number)];
        row.extend(ran.planned.values.iter().map(|(_, value)| value.to_string()));
        match &ran.summary {
            Ok(summary) => {
                let validation = &summary["validation"];
                row.extend(on_validation.clone().map(|metric| shown(*metric, &validation[metric.key()])));
                row.extend(measured.iter().map(|metric| shown(*metric, &summary[metric.key()])));
                row.extend(["epsilon_release", "epsilon_server"].map(|key| unbounded(&summary[key])));
            }
            Err(_) => row.push("failed".to_owned()),
        }
        rows.push(row);
    }
    let mut text = aligned(&rows);
    let composed = composed(ran);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{}", composed.told);
    text
}

/// For programs.
pub(super) fn json(ran: &[Ran]) -> Value {
    let runs: Vec<Value> = ran
        .iter()
        .map(|ran| {
            let values: serde_json::Map<_, _> = ran
                .planned
                .values
                .iter()
                .map(|(key, value)| (key.clone(), serde_json::to_value(value).unwrap_or_default()))
                .collect();
            json!({
                "run": ran.planned.number,
                "directory": ran.directory,
                "values": values,
                "summary": ran.summary.as_ref().ok(),
                "failure": ran.summary.as_ref().err(),
            })
        })
        .collect();
    let composed = composed(ran);
    json!({
        "runs": runs,
        "best": best(ran),
        "epsilon_release_composed": composed.release,
        "epsilon_server_composed": composed.server,
        "composition": composed.told,
    })
}

/// What is measured of a run first of all.
fn metric(ran: &Ran) -> Metric {
    ran.planned.experiment.data.predicted().metric()
}

/// A run's model by a metric: on validation examples, where there are some.
fn deciding(summary: &Value, metric: Metric) -> Option<f64> {
    let validation = &summary["validation"];
    let measured = if validation.is_object() { validation } else { summary };
    measured[metric.key()].as_f64()
}

/// The run with the best model, by what is measured first of all; none where runs do not measure the same.
fn best(ran: &[Ran]) -> Option<usize> {
    let by = metric(ran.first()?);
    if ran.iter().any(|ran| metric(ran) != by) {
        return None;
    }
    let value = |ran: &Ran| ran.summary.as_ref().ok().and_then(|summary| deciding(summary, by));
    let gain = |value: f64| by.better().gain(value, 0.0);
    let measured = ran.iter().filter_map(|ran| Some((gain(value(ran)?), ran.planned.number)));
    measured.max_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1))).map(|(_, run)| run)
}

/// What all runs together cost whoever is in all of them.
struct Composed {
    release: Option<f64>,
    server: Option<f64>,
    told: String,
}

/// The runs were fixed before the first of them, so their rounds compose as those of one schedule; a run that is stopped early is
/// counted with the rounds that it was charged.
fn composed(ran: &[Ran]) -> Composed {
    let nothing = |why: String| Composed {
        release: None,
        server: None,
        told: format!("all runs: no epsilon is promised by all of them together: {why}"),
    };
    let runs: Vec<(&Experiment, &Value)> =
        ran.iter().filter_map(|ran| Some((&ran.planned.experiment, ran.summary.as_ref().ok()?))).collect();
    let Some((first, _)) = runs.first() else { return nothing("none of them has ended".to_owned()) };
    let Some(terms) = first.privacy.terms() else { return nothing("privacy is off".to_owned()) };
    let mut spending = Spending::new(terms.adjacency);
    for (experiment, summary) in &runs {
        let Some(own) = experiment.privacy.terms() else {
            return nothing("privacy is off in some of them".to_owned());
        };
        if (own.unit, own.adjacency, own.delta) != (terms.unit, terms.adjacency, terms.delta) {
            return nothing("they promise for different units, adjacencies or deltas".to_owned());
        }
        if population(experiment) != population(first) {
            return nothing(
                "their clients are not the same (seed, data, clients or partition differ)".to_owned(),
            );
        }
        let Ok(charged) = federation::terms(experiment) else {
            return nothing("one of them cannot be accounted for".to_owned());
        };
        let rounds: u64 = ["rounds_completed", "rounds_degraded", "rounds_aborted"]
            .iter()
            .filter_map(|key| summary[*key].as_u64())
            .sum();
        spending.push(charged.schedule.mechanism, charged.schedule.sampling, rounds);
        if let Some(query) = charged.schedule.query {
            spending.push(query.mechanism, query.sampling, query.due(rounds));
        }
    }
    let against = |adversary| {
        let promised =
            runs.iter().all(|(experiment, _)| no_promise(&experiment.privacy, adversary).is_none());
        promised.then(|| spending.epsilon(adversary, terms.delta).get())
    };
    let (release, server) = (against(Adversary::Recipients), against(Adversary::Server));
    let stated =
        |epsilon: Option<f64>| epsilon.map_or("unbounded".to_owned(), |epsilon| format!("{epsilon:.4}"));
    Composed {
        release,
        server,
        told: format!(
            "all runs: epsilon {} against recipients, {} against the server, at delta {}: all of them looked at the same clients, so choosing \
             the best costs what all of them cost",
            stated(release),
            stated(server),
            terms.delta
        ),
    }
}

/// What makes the clients of two runs the same.
fn population(experiment: &Experiment) -> (u64, u64, String) {
    let file = ExperimentFile::from(experiment);
    let data = serde_json::to_string(&(&file.task.data, &file.population.partition)).unwrap_or_default();
    (experiment.seed, experiment.population.clients, data)
}

fn shown(metric: Metric, value: &Value) -> String {
    value.as_f64().map_or("–".to_owned(), |value| metric_words::shown(metric, value))
}

fn unbounded(value: &Value) -> String {
    value.as_f64().map_or("unbounded".to_owned(), |value| format!("{value:.4}"))
}
