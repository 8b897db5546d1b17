//! What rounds cost in privacy: every epsilon, against whom it holds, and who proves it.

use serde::Serialize;
use skep_privacy::adversary::Adversary;
use skep_privacy::ledger::RoundTerms;
use skep_privacy::quantities::{Delta, Epsilon};
use skep_protocol::experiment::{Experiment, Privacy};
use skep_protocol::plan::Released;
use skep_server::federation::{Federation, no_promise};
use skep_server::record::RoundRecord;
use skep_simulations::Clients;

use crate::failure::Failure;
use crate::privacy_words;

/// The epsilons of an experiment after some of its rounds; null where nothing is promised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Spent against recipients of the models.
    pub(crate) epsilon_release: Option<f64>,
    /// What that would be with continuous noise in place of discrete shares; not certified. Null without shares.
    pub(crate) epsilon_release_if_continuous: Option<f64>,
    /// Spent against the server, with as many clients of a round as the mode takes for its own.
    pub(crate) epsilon_server: Option<f64>,
    /// Why there is no epsilon against the server; null when there is one.
    pub(crate) epsilon_server_reason: Option<String>,
    /// What it would be with continuous noise, as above.
    pub(crate) epsilon_server_if_continuous: Option<f64>,
    /// Spent against the server when all other clients are its own.
    pub(crate) epsilon_alone: Option<f64>,
    /// Spent on an example of the client whose examples it costs most, against everybody else; not there unless clients
    /// hide their single examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epsilon_example: Option<f64>,
    /// What the model is made of where groups of a cohort are summed up apart, and so what recipients are taken to see: `total`, or
    /// `each-group`; not there without groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<&'static str>,
    /// The delta of all of them.
    pub(crate) delta: Option<f64>,
    /// The accountant that proves them.
    pub(crate) accountant: Option<&'static str>,
}

impl Cost {
    /// What the experiment costs when all of its rounds have been run.
    pub(crate) fn planned(federation: &Federation) -> Self {
        let (experiment, account) = (federation.experiment(), federation.ledger().state().account());
        let planned = account.after(&RoundTerms::from(account.terms()), experiment.rounds.count);
        let promised = |adversary| {
            let promised = no_promise(&experiment.privacy, adversary).is_none();
            promised.then(|| planned.spent().epsilon(adversary).get())
        };
        let if_continuous = |adversary| planned.epsilon_if_continuous(adversary).map(Epsilon::get);
        Cost {
            epsilon_release: promised(Adversary::Recipients),
            epsilon_release_if_continuous: if_continuous(Adversary::Recipients),
            epsilon_server: promised(Adversary::Server),
            epsilon_server_if_continuous: if_continuous(Adversary::Server),
            epsilon_alone: promised(Adversary::EveryoneElse),
            ..Self::of_nothing(experiment)
        }
    }

    /// What was spent by the end of the last round that has a record.
    pub(crate) fn spent(experiment: &Experiment, records: &[RoundRecord]) -> Self {
        let Some(last) = records.last() else { return Self::of_nothing(experiment) };
        Cost {
            epsilon_release: last.epsilon_release,
            epsilon_release_if_continuous: last.epsilon_release_if_continuous,
            epsilon_server: last.epsilon_server,
            epsilon_server_if_continuous: last.epsilon_server_if_continuous,
            epsilon_alone: last.epsilon_alone,
            ..Self::of_nothing(experiment)
        }
    }

    /// Before the first round nothing is spent.
    fn of_nothing(experiment: &Experiment) -> Self {
        let promised = |adversary| no_promise(&experiment.privacy, adversary).is_none().then_some(0.0);
        Cost {
            epsilon_release: promised(Adversary::Recipients),
            epsilon_release_if_continuous: None,
            epsilon_server: promised(Adversary::Server),
            epsilon_server_reason: no_promise(&experiment.privacy, Adversary::Server)
                .map(|reason| reason.to_string()),
            epsilon_server_if_continuous: None,
            epsilon_alone: promised(Adversary::EveryoneElse),
            epsilon_example: None,
            released: released(experiment),
            delta: experiment.privacy.stated_terms().map(|terms| terms.delta.get()),
            accountant: privacy_words::accountant(experiment),
        }
    }

    /// The same with what the rounds cost single examples of `clients`, if those are hidden.
    ///
    /// # Errors
    /// [`Failure`] when they cannot be.
    pub(crate) fn with_examples(
        self,
        experiment: &Experiment,
        clients: &Clients,
        rounds: u64,
    ) -> Result<Self, Failure> {
        let epsilon = clients.example_epsilon(experiment, rounds).map_err(Failure::configuration)?;
        Ok(Cost { epsilon_example: epsilon.map(Epsilon::get), ..self })
    }

    /// Who can learn what, a line for each adversary that differs from the one before: a label and a sentence.
    pub(crate) fn lines(&self, experiment: &Experiment) -> Vec<(&'static str, String)> {
        let nothing = |reason: &str| format!("nothing is promised (no epsilon): {reason}");
        let delta = experiment.privacy.stated_terms().map(|terms| terms.delta);
        let recipients = match stated(self.epsilon_release, delta) {
            Some(stated) => {
                stated + seen_of_groups(self.released) + &compared(self.epsilon_release_if_continuous)
            }
            None => nothing(self.epsilon_server_reason.as_deref().unwrap_or("privacy is off")),
        };
        let server = match stated(self.epsilon_server, delta) {
            Some(stated) => stated + &whose_help(experiment) + &compared(self.epsilon_server_if_continuous),
            None => nothing(self.epsilon_server_reason.as_deref().unwrap_or("privacy is off")),
        };
        let mut lines = vec![("recipients", recipients), ("server", server)];
        if let Some(stated) = stated(self.epsilon_example, delta) {
            lines.push(("examples", format!("{stated} for each, against everybody but its own client")));
        }
        if let (Privacy::Distributed { .. }, Some(stated)) =
            (&experiment.privacy, stated(self.epsilon_alone, delta))
        {
            lines.push(("alone", format!("{stated}, against the server if all other clients were its own")));
        }
        lines
    }
}

fn stated(epsilon: Option<f64>, delta: Option<Delta>) -> Option<String> {
    Some(format!("epsilon {:.4} at delta {}", epsilon?, delta?))
}

/// What a masked round releases, where its groups are summed up apart.
pub(crate) fn released(experiment: &Experiment) -> Option<&'static str> {
    let masking = experiment.masking().filter(|masking| masking.groups(experiment.cohort_max()) > 1)?;
    Some(match masking.released {
        Released::Total => "total",
        Released::EachGroup => EACH_GROUP,
    })
}

/// A clause that says so, where it costs more.
pub(crate) fn seen_of_groups(released: Option<&str>) -> &'static str {
    match released {
        Some(EACH_GROUP) => ", by the noise of one group: the model is made of each group's sum",
        _ => "",
    }
}

const EACH_GROUP: &str = "each-group";

/// Whose help the promise against the server allows it.
fn whose_help(experiment: &Experiment) -> String {
    match &experiment.privacy {
        Privacy::Distributed { secure_aggregation, .. } => {
            let cohort = experiment.cohort_max();
            let corrupt = secure_aggregation.max_corrupt_fraction.of(cohort);
            format!(", with up to {corrupt} of {cohort} clients its own")
        }
        Privacy::Local { .. } => ", whoever helps it".to_owned(),
        Privacy::None | Privacy::Central { .. } | Privacy::Examples { .. } => String::new(),
    }
}

fn compared(if_continuous: Option<f64>) -> String {
    if_continuous.map_or(String::new(), |epsilon| {
        format!(" ({epsilon:.4} if noise were continuous, which is not certified)")
    })
}
