//! How often a model is measured, on what, and when that ends a run.

use serde::{Deserialize, Serialize};

use skep_privacy::ledger::Mode;
use skep_privacy::quantities::{ClipNorm, NoiseMultiplier};

pub use super::metric::{Better, Metric, Predicted};
use super::validate::{Invalid, invalid};
use super::{Data, Privacy};
use crate::canonical::Writer;

/// `[evaluation]`, as it is typed and as it is meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Rounds from one measurement to the next; the last round is always measured.
    #[serde(default = "one_round")]
    pub every: u64,
    /// The part of the training examples that no client gets, but that the server decides by: when the run ends, and which of a
    /// sweep is best; of simulations only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// The part of the clients on whose own held-out examples the model is measured, too; of simulations only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<f64>,
    /// The part of each client's examples that is held out; with `clients` or `query`, and of every client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<f64>,
    /// Passes over its own examples by which a client fits the model to them before it is measured once more; with `clients`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune_epochs: Option<u32>,
    /// What clients are asked of the model on these examples, with noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<EvaluationQuery>,
    /// The run ends after so many measurements without improvement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// What counts as an improvement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_delta: Option<f64>,
    /// What must improve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
}

/// `evaluation.query`: clients say how good the model is on examples of their own, hidden as their updates are, and charged to the
/// same ledger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationQuery {
    /// Rounds from one query to the next; there is one after the last round.
    pub every: u64,
    /// Standard deviation of the noise on what clients say, as a multiple of what one can say: as that of a round.
    pub noise_multiplier: f64,
    /// The largest mean loss of a client that counts, above 0; a larger one counts as this.
    pub max_loss: f64,
}

/// What clients are asked of the model beside their updates, as they are told before the first round.
///
/// An answer is (a − ½, ℓ/L − ½, ½), a being a client's accuracy on the examples that it holds out, ℓ its mean loss on them and L the
/// largest loss that counts; or zeros, from a client that has nothing to say. None is longer than √¾. The last number counts
/// the answers, so that the means need nothing that is not in the sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The part of each client's examples that it does not train on, between 0 and 1.
    pub hold_out: f64,
    /// Rounds in the schedule: after the last there is a query, and after that none.
    pub rounds: u64,
    /// Who adds noise, in rounds and queries alike.
    pub mode: Mode,
    /// When, with how much noise, and up to which loss.
    pub query: EvaluationQuery,
}

impl Asked {
    /// What the numbers of an answer are about.
    pub const NAMES: [&str; 3] = ["accuracy", "loss", "clients"];

    /// The L2 bound of an answer, √¾.
    #[must_use]
    pub fn clip_norm() -> ClipNorm {
        ClipNorm::new(0.75_f64.sqrt()).expect("a finite number above 0")
    }

    /// The answer of a client whose accuracy and mean loss these are. A loss that is no number counts as the largest.
    #[must_use]
    pub fn answer(&self, accuracy: f64, loss: f64) -> Vec<f32> {
        let loss = (loss / self.query.max_loss).clamp(0.0, 1.0);
        let loss = if loss.is_nan() { 1.0 } else { loss };
        vec![(accuracy - 0.5) as f32, (loss - 0.5) as f32, 0.5]
    }

    /// The answer of a client that has nothing to say.
    #[must_use]
    pub fn nothing() -> Vec<f32> {
        vec![0.0; Self::NAMES.len()]
    }

    /// The key and the reason of the first value that makes no sense.
    ///
    /// # Errors
    /// The key inside the experiment file, and what is wrong with its value.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(self.hold_out > 0.0 && self.hold_out < 1.0) {
            return Err((
                "evaluation.hold_out",
                format!("is {}, but must be between 0 and 1", self.hold_out),
            ));
        }
        self.query.check()
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let EvaluationQuery { every, noise_multiplier, max_loss } = self.query;
        writer.text("asked").f64(self.hold_out).u64(self.rounds).text(self.mode.as_str());
        writer.u64(every).f64(noise_multiplier).f64(max_loss);
    }
}

/// When a run ends although rounds are left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// After so many measurements without improvement, at least 1.
    pub patience: u32,
    /// By which a measurement must be better than the best before it.
    pub min_delta: f64,
    /// What must improve.
    pub metric: Metric,
}

impl Default for Evaluation {
    fn default() -> Self {
        Evaluation {
            every: 1,
            validation: None,
            clients: None,
            hold_out: None,
            fine_tune_epochs: None,
            query: None,
            patience: None,
            min_delta: None,
            metric: None,
        }
    }
}

impl Evaluation {
    /// When the run ends although rounds are left, if ever, of a model that predicts that.
    pub fn stop(&self, predicted: Predicted) -> Option<Stop> {
        Some(Stop {
            patience: self.patience?,
            min_delta: self.min_delta.unwrap_or(0.0),
            metric: self.metric.unwrap_or(predicted.metric()),
        })
    }

    /// Whether the model of this round is measured, where there are `rounds`.
    pub fn is_due(&self, round: u64, rounds: u64) -> bool {
        round.is_multiple_of(self.every) || round == rounds
    }

    /// What clients are asked, if anything, in so many rounds of this mode.
    pub fn asked(&self, rounds: u64, mode: Mode) -> Option<Asked> {
        Some(Asked { hold_out: self.hold_out?, rounds, mode, query: self.query? })
    }

    /// What makes no sense with such data.
    ///
    /// # Errors
    /// [`Invalid`], which names the key.
    pub fn check(&self, data: &Data, privacy: &Privacy) -> Result<(), Invalid> {
        self.refuse_other_metrics(data.predicted())?;
        if self.every == 0 {
            return Err(invalid("evaluation.every", "is 0, but must be at least 1 round"));
        }
        match (self.validation, data) {
            (Some(_), Data::Workload(_)) => {
                return Err(invalid(
                    "evaluation.validation",
                    "is a part of what clients share, but those of a workload share nothing: their examples are generated client by \
                     client; leave it out",
                ));
            }
            (Some(part), _) if !(part > 0.0 && part < 1.0) => {
                return Err(invalid(
                    "evaluation.validation",
                    format!("is {part}, but must be between 0 and 1"),
                ));
            }
            _ => {}
        }
        if let Some(query) = &self.query {
            query.check_privacy(privacy)?;
            query.check().map_err(|(key, problem)| invalid(key, problem))?;
        }
        match (self.clients, self.hold_out) {
            (None, None) if self.query.is_none() => {}
            (_, None) => {
                return Err(invalid(
                    "evaluation.hold_out",
                    "is missing: which part of a client's examples is it measured on?",
                ));
            }
            (None, Some(_)) if self.query.is_none() => {
                return Err(invalid(
                    "evaluation.clients",
                    "is missing: which part of the clients is measured?",
                ));
            }
            (Some(clients), _) if !(clients > 0.0 && clients <= 1.0) => {
                return Err(invalid(
                    "evaluation.clients",
                    format!("is {clients}, but must be above 0 and at most 1"),
                ));
            }
            (_, Some(part)) if !(part > 0.0 && part < 1.0) => {
                return Err(invalid(
                    "evaluation.hold_out",
                    format!("is {part}, but must be between 0 and 1"),
                ));
            }
            _ => {}
        }
        match self.fine_tune_epochs {
            Some(epochs) if !(1..=MOST_EPOCHS).contains(&epochs) => {
                return Err(invalid(
                    "evaluation.fine_tune_epochs",
                    format!("is {epochs}, but must be 1 to {MOST_EPOCHS}"),
                ));
            }
            Some(_) if self.clients.is_none() => {
                return Err(invalid(
                    "evaluation.clients",
                    "is missing: which part of the clients is measured?",
                ));
            }
            _ => {}
        }
        if self.patience == Some(0) {
            return Err(invalid("evaluation.patience", "is 0, but must be at least 1 measurement"));
        }
        if self.patience.is_none() && (self.min_delta.is_some() || self.metric.is_some()) {
            return Err(invalid(
                "evaluation.patience",
                "is missing: min_delta and metric say when a run ends early",
            ));
        }
        if self.min_delta.is_some_and(|delta| !(delta.is_finite() && delta >= 0.0)) {
            return Err(invalid("evaluation.min_delta", "must be a finite number, at least 0"));
        }
        match self.metric {
            Some(Metric::ClientAccuracy | Metric::PersonalisedAccuracy) if *privacy != Privacy::None => {
                Err(invalid(
                    "evaluation.metric",
                    "cannot be one of clients' accuracy with privacy: when the run ends would tell about clients' examples, and nothing hides \
                 that; others are of the server's own examples and cost nothing",
                ))
            }
            Some(Metric::ClientAccuracy) if self.clients.is_none() => Err(invalid(
                "evaluation.metric",
                "is \"client-accuracy\", but no clients are measured: say which part in `clients`",
            )),
            Some(Metric::PersonalisedAccuracy) if self.fine_tune_epochs.is_none() => Err(invalid(
                "evaluation.metric",
                "is \"personalised-accuracy\", but nobody fits the model: say for how long in `fine_tune_epochs`",
            )),
            _ => Ok(()),
        }
    }
}

impl Evaluation {
    /// What is not measured of such a model.
    fn refuse_other_metrics(&self, predicted: Predicted) -> Result<(), Invalid> {
        let by_clients =
            [("evaluation.clients", self.clients.is_some()), ("evaluation.query", self.query.is_some())];
        if let (Predicted::Number, Some((key, _))) = (predicted, by_clients.iter().find(|(_, given)| *given))
        {
            return Err(invalid(
                key,
                "asks how often clients find the class of an example, and a model that predicts a number finds none: remove it; the server \
                 measures errors on its own examples",
            ));
        }
        let known = |metric: Metric| {
            let of_clients = metric.is_of_clients();
            (of_clients && predicted != Predicted::Number) || predicted.metrics().contains(&metric)
        };
        match self.metric {
            Some(metric) if !known(metric) => {
                let names: Vec<String> = predicted
                    .metrics()
                    .iter()
                    .map(|metric| format!("\"{}\"", metric.key().replace('_', "-")))
                    .collect();
                Err(invalid(
                    "evaluation.metric",
                    format!("is not measured of such a model; choose one of {}", names.join(", ")),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// More would be training, not fitting.
const MOST_EPOCHS: u32 = 1000;

impl EvaluationQuery {
    /// Whether clients are asked about the model of this round, where there are `rounds`.
    pub fn is_due(&self, round: u64, rounds: u64) -> bool {
        round.is_multiple_of(self.every) || round == rounds
    }

    fn check_privacy(&self, privacy: &Privacy) -> Result<(), Invalid> {
        if privacy.terms().is_none() {
            return Err(invalid(
                "evaluation.query",
                "is hidden as updates are, but here nothing hides those of a whole client: without privacy, `clients` measures exactly",
            ));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.every == 0 {
            return Err(("evaluation.query.every", "is 0, but must be at least 1 round".into()));
        }
        NoiseMultiplier::new(self.noise_multiplier)
            .map_err(|error| ("evaluation.query.noise_multiplier", error.to_string()))?;
        if !(self.max_loss.is_finite() && self.max_loss > 0.0) {
            return Err(("evaluation.query.max_loss", "must be a finite number above 0".into()));
        }
        Ok(())
    }
}

fn one_round() -> u64 {
    1
}
