//! What a privacy claim means, in words: which epsilon, and against whom it holds.

use skep_privacy::accounting::amplification::Amplification;
use skep_privacy::accounting::{Accountant, Composition};
use skep_privacy::ledger::Participation;
use skep_privacy::quantities::{Adjacency, Sampling, Unit};
use skep_protocol::experiment::{Experiment, Privacy};

/// What is hidden, and by what.
pub(crate) fn hidden(experiment: &Experiment) -> Option<String> {
    let terms = experiment.privacy.stated_terms()?;
    let unit = match terms.unit {
        Unit::Client => "whole clients",
        Unit::Example => "single examples",
    };
    let adjacency = match terms.adjacency {
        Adjacency::AddOrRemove => "whether one takes part at all",
        Adjacency::ZeroOut => "whether one's contribution counts or is zero",
        Adjacency::Replace => "whether one is another",
    };
    Some(format!("{unit}: {adjacency} ({}, {})", terms.unit, terms.adjacency))
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

/// How often one client may take part.
pub(crate) fn participation(limit: &Participation) -> String {
    let most = match limit.max {
        u64::MAX => "as many rounds as there are".to_owned(),
        most => format!("at most {most} rounds"),
    };
    match limit.min_separation {
        1 => format!("in {most}"),
        least => format!("in {most}, {least} rounds or more from one to the next"),
    }
}

/// Which accountant proves the epsilon that is shown; `None` where nothing is promised.
pub(crate) fn accountant(experiment: &Experiment) -> Option<&'static str> {
    if let Privacy::Examples { .. } = experiment.privacy {
        return Some(Accountant::Pld.as_str());
    }
    let terms = experiment.privacy.terms()?;
    let rounds = &experiment.rounds;
    let sampling = match &experiment.privacy {
        // Sums of discrete shares have a proof by Rényi divergence only.
        Privacy::Distributed { .. } => return Some(Accountant::Rdp.as_str()),
        Privacy::Local { .. } => Sampling::All,
        Privacy::None | Privacy::Central { .. } | Privacy::Examples { .. } => rounds.sampling,
    };
    let mut planned = Composition::new(terms.adjacency);
    let round = Amplification::of(sampling, terms.adjacency).gaussian(terms.noise_multiplier);
    planned.push(round, rounds.count);
    planned.best(terms.delta).map(|(accountant, _)| accountant.as_str())
}
