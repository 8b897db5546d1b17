//! `skep data vocabulary`: a vocabulary that clients choose together under differential privacy.

use std::fs::File;
use std::io::{BufWriter, Write};

use serde_json::json;
use skep_privacy::prg::Key;
use skep_privacy::quantities::NoiseMultiplier;
use skep_server::federation::PlanningError;
use skep_simulations::{Election, ElectionError, SimulationError, elect_vocabulary};

use crate::arguments::{Output, Vocabulary};
use crate::experiment_file;
use crate::failure::Failure;
use crate::new_file::write_new;
use crate::serve::ledger_failure;

/// Runs `skep data vocabulary`.
///
/// # Errors
/// [`Failure`]: when the experiment has no texts or no ledger, when the budget does not allow it, or when noise drowns all
/// words.
pub(crate) fn run(arguments: &Vocabulary) -> Result<(), Failure> {
    let experiment = experiment_file::read_without_weights(&arguments.file, arguments.data_dir.as_deref())?;
    let noise_multiplier = NoiseMultiplier::new(arguments.noise_multiplier)
        .map_err(|error| Failure::configuration(format!("--noise-multiplier: {error}")))?;
    let election = Election {
        candidates: &arguments.candidates,
        votes: arguments.votes,
        noise_multiplier,
        size: arguments.size,
    };
    // Begun before anything is charged: what cannot be written must not cost anything.
    let elect = |out: &mut BufWriter<&File>| {
        let root = Key::from_os().map_err(Failure::other)?;
        let elected = elect_vocabulary(&experiment, &root, election).map_err(failure)?;
        let text: String = elected.vocabulary.words().iter().flat_map(|word| [word, "\n"]).collect();
        out.write_all(text.as_bytes()).map_err(|error| Failure::file(&arguments.out, error))?;
        Ok(elected)
    };
    let elected = write_new(&arguments.out, elect, |failure| failure)?;
    let words = elected.vocabulary.words();
    let delta = experiment.privacy.terms().map(|terms| terms.delta.get());
    let epsilon = elected.epsilon.get();
    match arguments.output {
        Output::Json => println!(
            "{}",
            json!({ "words": words.len(), "least_votes": elected.least_votes, "epsilon": epsilon, "delta": delta })
        ),
        Output::Text => {
            println!("words       {}, in {}", words.len(), arguments.out.display());
            println!(
                "votes       {:.1} of {} clients were needed, three standard deviations of the noise",
                elected.least_votes, experiment.population.clients
            );
            println!(
                "recipients  epsilon {epsilon:.4} at delta {} so far, by everything on the ledger",
                delta.unwrap_or_default()
            );
        }
    }
    Ok(())
}

fn failure(error: ElectionError) -> Failure {
    match error {
        ElectionError::Federation(error) => federation_failure(*error),
        error => Failure::configuration(error),
    }
}

/// Which failure it is that a query was not asked, or not answered.
pub(crate) fn federation_failure(error: SimulationError) -> Failure {
    match error {
        SimulationError::Planning(PlanningError::Budget(exhausted)) => Failure::Budget(exhausted.to_string()),
        SimulationError::Ledger(error) => ledger_failure(error),
        error @ (SimulationError::Partition(_)
        | SimulationError::Federation(_)
        | SimulationError::Planning(PlanningError::Query(_))) => Failure::configuration(error),
        error => Failure::other(error),
    }
}
