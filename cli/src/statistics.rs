//! `skep data statistics`: means and standard deviations of columns, which clients state together under differential privacy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;
use skep_privacy::prg::Key;
use skep_privacy::quantities::NoiseMultiplier;
use skep_protocol::experiment::Experiment;
use skep_simulations::{Bounds, SurveyError, Surveyed, survey};

use crate::arguments::{Output, Statistics};
use crate::experiment_file;
use crate::failure::Failure;
use crate::new_file::write_new;
use crate::vocabulary::federation_failure;

/// Runs `skep data statistics`.
///
/// # Errors
/// [`Failure`]: when the experiment has no table or no ledger, when the bounds are not those of its columns, when the budget does
/// not allow it, or when noise drowns the answers.
pub(crate) fn run(arguments: &Statistics) -> Result<(), Failure> {
    let experiment = experiment_file::read(Some(&arguments.file), arguments.data_dir.as_deref())?;
    let noise_multiplier = NoiseMultiplier::new(arguments.noise_multiplier)
        .map_err(|error| Failure::configuration(format!("--noise-multiplier: {error}")))?;
    let bounds = bounds(&arguments.bounds)?;
    // Begun before anything is charged: what cannot be written must not cost anything.
    let ask = |out: &mut BufWriter<&File>| {
        let root = Key::from_os().map_err(Failure::other)?;
        let surveyed = survey(&experiment, &root, &bounds, noise_multiplier).map_err(failure)?;
        let text = serde_json::to_string_pretty(&surveyed.standardization).map_err(Failure::other)?;
        writeln!(out, "{text}").map_err(|error| Failure::file(&arguments.out, error))?;
        Ok(surveyed)
    };
    let surveyed = write_new(&arguments.out, ask, |failure| failure)?;
    tell(arguments, &experiment, &surveyed);
    Ok(())
}

fn tell(arguments: &Statistics, experiment: &Experiment, surveyed: &Surveyed) {
    let Surveyed { standardization, mean_within, drowned, epsilon } = surveyed;
    let delta = experiment.privacy.terms().map(|terms| terms.delta.get());
    if arguments.output == Output::Json {
        println!(
            "{}",
            json!({
                "statistics": standardization,
                "mean_within": mean_within,
                "drowned": drowned,
                "epsilon": epsilon.get(),
                "delta": delta,
            })
        );
        return;
    }
    let columns = standardization.columns().iter().zip(standardization.mean());
    for ((column, mean), (deviation, within)) in
        columns.zip(standardization.deviation().iter().zip(mean_within))
    {
        let variance = if drowned.contains(column) { ", of noise alone" } else { "" };
        println!("column      {column}: mean {mean} ± {within:.4}, standard deviation {deviation}{variance}");
    }
    println!("written     {}", arguments.out.display());
    println!(
        "recipients  epsilon {:.4} at delta {} so far, by everything on the ledger",
        epsilon.get(),
        delta.unwrap_or_default()
    );
}

/// What is declared of the columns: a line `NAME = [LOW, HIGH]` for each.
fn bounds(path: &Path) -> Result<Vec<Bounds>, Failure> {
    let wrong = |problem: String| Failure::configuration(format!("--bounds {}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let read: BTreeMap<String, [f64; 2]> = toml::from_str(&text).map_err(|error| {
        wrong(format!("a line `NAME = [LOW, HIGH]` is needed for each column: {}", error.message()))
    })?;
    Ok(read.into_iter().map(|(column, [low, high])| Bounds { column, low, high }).collect())
}

fn failure(error: SurveyError) -> Failure {
    match error {
        SurveyError::Federation(error) => federation_failure(*error),
        error => Failure::configuration(error),
    }
}
