//! `skep bench`: how long the rounds of an experiment take, and where the time goes.

use std::fmt::Write;
use std::time::Instant;

use serde::Serialize;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Metric;
use skep_simulations::{BenchReport, SimulationOptions, bench, population};

use crate::arguments::{Bench, Output};
use crate::bench_scaling;
use crate::experiment_file;
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::metric_words::named;

/// What is printed.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    report: BenchReport,
    /// From the start of the command to the first round, without the preparation of data.
    seconds_to_first_round: f64,
    /// Largest resident memory of the process; null where the system does not tell.
    peak_rss_bytes: Option<u64>,
}

/// Runs `skep bench`.
///
/// # Errors
/// [`Failure`] when the file makes no sense or a round fails.
pub(crate) fn run(arguments: &Bench) -> Result<(), Failure> {
    if let Some(scaling) = arguments.scaling {
        return bench_scaling::run(scaling);
    }
    let started = Instant::now();
    let mut experiment = experiment_file::read(arguments.file.as_deref(), arguments.data_dir.as_deref())?;
    if let Some(rounds) = arguments.rounds {
        experiment.rounds.count = rounds;
    }
    let before_data = started.elapsed().as_secs_f64();
    let data = population::data(&experiment).map_err(Failure::configuration)?;
    let options = SimulationOptions::new(arguments.threads);
    let report = bench(&experiment, &data, &Key::from_seed(0), &options, interrupt::flag()?);
    let report = report.map_err(Failure::other)?;
    let printed = Printed {
        seconds_to_first_round: before_data + report.setup,
        report,
        peak_rss_bytes: machine::peak_rss_bytes(),
    };
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&printed).map_err(Failure::other)?),
        Output::Text => print!("{}", text(&printed)),
    }
    Ok(())
}

fn text(printed: &Printed) -> String {
    let report = &printed.report;
    let rounds = &report.rounds;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<14}{value}").expect("a string takes everything");
    };
    line(
        "experiment",
        format!("{}, {} parameters, cohort {:.0}", report.name, report.parameters, report.cohort),
    );
    line("threads", report.threads.to_string());
    line("preparation", seconds(report.preparation));
    line(
        "first round",
        format!("{}, after {}", seconds(report.first_round), seconds(printed.seconds_to_first_round)),
    );
    line(
        "round",
        format!(
            "{}, median of {} ({} to {})",
            seconds(rounds.median),
            rounds.count,
            seconds(rounds.lowest),
            seconds(rounds.highest)
        ),
    );
    if let Some(processor) = report.processor {
        line("processor", format!("{}, on average, of all threads", seconds(processor)));
    }
    line("updates", format!("{:.0} a second", report.updates_per_second));
    line(
        "floor",
        format!(
            "{}: {:.3} GFLOP at {:.1} GFLOP/s a core; the round takes {:.2} times as long",
            seconds(report.floor),
            report.flop / 1e9,
            report.flop_per_second / 1e9,
            rounds.median / report.floor
        ),
    );
    for stage in &report.stages {
        let share = 100.0 * stage.seconds / (rounds.median * report.threads as f64);
        line(&format!("  {}", stage.name), format!("{}  {share:.1} %", seconds(stage.seconds)));
    }
    let measured = match report.root_mean_squared_error {
        Some(error) => named(Metric::RootMeanSquaredError, Some(error)),
        None => named(Metric::Accuracy, report.accuracy),
    };
    line("loss", format!("{:.6}, {measured}", report.loss));
    line("model", report.model_sha256.clone());
    if let Some(bytes) = printed.peak_rss_bytes {
        line("memory", format!("{:.0} MB at most", bytes as f64 / 1e6));
    }
    text
}

fn seconds(seconds: f64) -> String {
    match seconds {
        long if long >= 1.0 => format!("{long:.3} s"),
        short => format!("{:.3} ms", 1000.0 * short),
    }
}
