//! `skep bench --scaling`: what a round costs by cohort, population, model and threads, as tables in Markdown.
//!
//! Every column is a process of its own, so that memory is its own, too.

use std::path::Path;
use std::process::Command;
use std::thread;

use serde::Deserialize;
use skep_protocol::experiment::file::{ExperimentFile, ModelFile, SamplingFile};

use crate::arguments::Scaling;
use crate::failure::Failure;
use crate::text_table;

/// What is needed of a report in JSON.
#[derive(Deserialize)]
struct Measured {
    parameters: usize,
    rounds: Rounds,
    processor: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Rounds {
    median: f64,
}

/// Prints the tables, each as soon as it is there.
///
/// # Errors
/// [`Failure`] when a process cannot be started, or fails.
pub(crate) fn run(scaling: Scaling) -> Result<(), Failure> {
    let directory = tempfile::tempdir().map_err(Failure::other)?;
    let directory = directory.path();
    let tables: [(Scaling, Print); 4] = [
        (Scaling::Cohort, by_cohort),
        (Scaling::Population, by_population),
        (Scaling::Model, by_model),
        (Scaling::Threads, by_threads),
    ];
    let mut wanted = tables.into_iter().filter(|(by, _)| [Scaling::All, *by].contains(&scaling));
    wanted.try_for_each(|(_, print)| print(directory))
}

/// Prints tables of what was measured, from experiment files in a directory.
type Print = fn(&Path) -> Result<(), Failure>;

fn by_cohort(directory: &Path) -> Result<(), Failure> {
    let cohorts = [100, 300, 1000, 3000, 10_000];
    let measured = of_each(&cohorts, |&cohort| measure(directory, &w3(100_000, cohort), 1, 9))?;
    table("W3, cohort of 100,000 clients", &cohorts, &measured);
    Ok(())
}

fn by_population(directory: &Path) -> Result<(), Failure> {
    let populations = [10_000, 100_000, 1_000_000, 10_000_000];
    let measured = of_each(&populations, |&clients| measure(directory, &w3(clients, 1000), 1, 9))?;
    table("W3, cohort 1,000, population", &populations, &measured);
    Ok(())
}

fn by_model(directory: &Path) -> Result<(), Failure> {
    let widths = [8, 32, 128, 512, 2048];
    let measured = of_each(&widths, |&width| measure(directory, &w1(width), 1, 15))?;
    table("W1, cohort 100, hidden units", &widths, &measured);
    Ok(())
}

fn by_threads(directory: &Path) -> Result<(), Failure> {
    let threads: Vec<usize> = threads().collect();
    for (name, file, rounds) in [
        ("W1", read(W1), 50),
        ("W1 with central noise", read(W1_DP), 50),
        ("W2 without dropout", read(W2_NO_DROPOUT), 4),
        ("W3", read(W3), 20),
        ("W3, cohort 10,000", w3(100_000, 10_000), 9),
    ] {
        let measured = of_each(&threads, |&threads| measure(directory, &file, threads, rounds))?;
        table(&format!("{name}, threads"), &threads, &measured);
    }
    Ok(())
}

/// 1, 2, 4 and so on, and as many as there are.
fn threads() -> impl Iterator<Item = usize> {
    let all = thread::available_parallelism().map_or(1, usize::from);
    std::iter::successors(Some(1), |threads| Some(2 * threads))
        .take_while(move |&threads| threads < all)
        .chain([all])
}

fn of_each<T>(
    values: &[T],
    work: impl Fn(&T) -> Result<Measured, Failure>,
) -> Result<Vec<Measured>, Failure> {
    values.iter().map(work).collect()
}

fn read(text: &str) -> ExperimentFile {
    toml::from_str(text).expect("the workloads are tested")
}

fn w1(width: u32) -> ExperimentFile {
    let mut file = read(W1);
    if let ModelFile::Mlp { hidden, .. } = &mut file.task.model {
        *hidden = vec![width];
    }
    file
}

fn w3(clients: u64, cohort: u32) -> ExperimentFile {
    let mut file = read(W3);
    file.population.clients = clients;
    file.rounds.min_updates = cohort;
    file.rounds.sampling = SamplingFile::Fixed { size: cohort.into() };
    file
}

fn measure(
    directory: &Path,
    file: &ExperimentFile,
    threads: usize,
    rounds: u64,
) -> Result<Measured, Failure> {
    let path = directory.join("experiment.toml");
    let text = toml::to_string(file).map_err(Failure::other)?;
    std::fs::write(&path, text).map_err(|error| Failure::file(&path, error))?;
    let program = std::env::current_exe().map_err(Failure::other)?;
    let mut command = Command::new(program);
    command.arg("bench").arg(&path).args(["--output", "json"]);
    command.args(["--threads", &threads.to_string(), "--rounds", &rounds.to_string()]);
    let output = command.output().map_err(Failure::other)?;
    serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::other(format!(
            "a benchmark has failed: {error}; {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    })
}

fn table(name: &str, columns: &[impl ToString], measured: &[Measured]) {
    let row = |name: &str, cell: &dyn Fn(&Measured) -> String| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(measured.iter().map(cell)).collect()
    };
    let milliseconds = |seconds: f64| format!("{:.1}", 1000.0 * seconds);
    let first = measured.first().map_or(f64::NAN, |first| first.rounds.median);
    let head = std::iter::once(name.to_owned()).chain(columns.iter().map(ToString::to_string)).collect();
    let mut rows = vec![
        head,
        vec!["---".to_owned(); columns.len() + 1],
        row("parameters", &|one| one.parameters.to_string()),
        row("ms a round", &|one| milliseconds(one.rounds.median)),
        row("ms of processors", &|one| one.processor.map_or("-".to_owned(), milliseconds)),
        row("first column's time over this", &|one| format!("{:.2}", first / one.rounds.median)),
        row("memory, MB", &|one| {
            one.peak_rss_bytes.map_or("-".to_owned(), |bytes| (bytes / 1_000_000).to_string())
        }),
    ];
    for row in &mut rows {
        row.iter_mut().for_each(|cell| *cell = format!("| {cell}"));
        row.push("|".to_owned());
    }
    println!("{}", text_table::aligned(&rows));
}

const W1: &str = include_str!("../../simulations/experiments/w1.toml");
const W1_DP: &str = include_str!("../../simulations/experiments/w1-dp.toml");
const W2_NO_DROPOUT: &str = include_str!("../../simulations/experiments/w2-no-dropout.toml");
const W3: &str = include_str!("../../simulations/experiments/w3.toml");

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::experiment::Experiment;

    #[test]
    fn every_workload_with_other_numbers_is_an_experiment() {
        for file in [w1(2048), w3(10_000_000, 100), read(W1_DP), read(W2_NO_DROPOUT)] {
            let text = toml::to_string(&file).unwrap();
            Experiment::try_from(&read(&text)).unwrap();
        }
        assert_eq!(threads().next(), Some(1));
    }
}
