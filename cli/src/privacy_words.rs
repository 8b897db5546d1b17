//! What a privacy claim means, in words: which epsilon, and against whom it holds.

use skep_privacy::accounting::Composition;
use skep_privacy::accounting::amplification::Amplification;
use skep_privacy::quantities::{Adjacency, Delta, Sampling, Unit};
use skep_protocol::experiment::{Experiment, Privacy};
use skep_server::federation::NoPromise;

/// The name of the trust mode, as in an experiment file.
pub(crate) fn mode(privacy: &Privacy) -> &'static str {
    match privacy {
        Privacy::None => "none",
        Privacy::Central(_) => "central",
    }
}

/// What recipients of the models can learn.
pub(crate) fn against_recipients(epsilon: Option<f64>, delta: Option<Delta>) -> String {
    match (epsilon, delta) {
        (Some(epsilon), Some(delta)) => format!("epsilon {epsilon:.4} at delta {delta}"),
        _ => "nothing is promised (no epsilon): privacy is off".to_owned(),
    }
}

/// What the server can learn.
pub(crate) fn against_server(epsilon: Option<f64>, delta: Option<Delta>, reason: Option<&str>) -> String {
    match (epsilon, delta) {
        (Some(epsilon), Some(delta)) => format!("epsilon {epsilon:.4} at delta {delta}"),
        _ => format!("nothing is promised (no epsilon): {}", reason.unwrap_or("privacy is off")),
    }
}

/// Why there is no epsilon against the server, in a mode that has none.
pub(crate) fn why_none_against_server(privacy: &Privacy) -> Option<String> {
    Some(match privacy {
        Privacy::None => NoPromise::Off.to_string(),
        Privacy::Central(_) => NoPromise::TrustedServer.to_string(),
    })
}

/// What is hidden, and by what.
pub(crate) fn hidden(experiment: &Experiment) -> Option<String> {
    let Privacy::Central(central) = &experiment.privacy else { return None };
    let unit = match central.unit {
        Unit::Client => "whole clients",
        Unit::Example => "single examples",
    };
    let adjacency = match central.adjacency {
        Adjacency::AddOrRemove => "whether one takes part at all",
        Adjacency::ZeroOut => "whether one's contribution counts or is zero",
        Adjacency::Replace => "whether one is another",
    };
    Some(format!("{unit}: {adjacency} ({}, {})", central.unit, central.adjacency))
}

/// Who is invited to a round.
pub(crate) fn sampling(sampling: Sampling) -> String {
    match sampling {
        Sampling::All => "everyone in every round".to_owned(),
        Sampling::Poisson { rate } => {
            format!("each client with probability {rate} in every round, in secret")
        }
        Sampling::Fixed { size, population } => format!("{size} of {population} clients in every round"),
    }
}

/// Which accountant proves the epsilon that is shown; `None` where nothing is promised.
pub(crate) fn accountant(experiment: &Experiment) -> Option<&'static str> {
    let Privacy::Central(central) = &experiment.privacy else { return None };
    let rounds = &experiment.rounds;
    let mut planned = Composition::new(central.adjacency);
    let round = Amplification::of(rounds.sampling, central.adjacency).gaussian(central.noise_multiplier);
    planned.push(round, rounds.count);
    planned.best(central.delta).map(|(accountant, _)| accountant.as_str())
}
