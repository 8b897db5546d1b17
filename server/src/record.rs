//! What is written down of each round, and who watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_privacy::quantities::Delta;
use skep_protocol::experiment::Metric;
use skep_protocol::plan::Plan;
use skep_protocol::round::{Decline, Outcome, Progress, Refusal};
use skep_protocol::{ClientId, Round, Span};

use crate::evaluate::{Evaluation, Examples, Scores};
use crate::federation::RoundSummary;
use crate::status::Status;

/// One round: a line of `rounds.jsonl`. It names no client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundRecord {
    /// The round.
    pub round: Round,
    /// How it ended, in one word.
    pub outcome: OutcomeKind,
    /// How it ended, in a sentence.
    pub detail: String,
    /// Clients in the cohort.
    pub invited: u32,
    /// Updates in the sum.
    pub updates: u32,
    /// Of the model after the round, 0 to 1; null when nobody measured it, or it predicts numbers.
    pub accuracy: Option<f64>,
    /// Mean loss of the model after the round; null when nobody measured it.
    pub loss: Option<f64>,
    /// The mean distance of a prediction from its number, in the number's unit; only where numbers are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_absolute_error: Option<f64>,
    /// The root of the mean squared distance, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mean_squared_error: Option<f64>,
    /// 1 less the squared errors over those of predicting the mean, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r_squared: Option<f64>,
    /// The same on validation examples, where choices are made by these; the five above are then null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Measured>,
    /// Of a simulation: how accurate the model is for its clients, on examples of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_accuracy: Option<ClientAccuracy>,
    /// The same after each client has fitted the model to its other examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personalised_accuracy: Option<ClientAccuracy>,
    /// How good clients say it is on examples of their own, with noise; only where they were asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_answers: Option<ClientAnswers>,
    /// How the query went in which they were asked; only where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryRecord>,
    /// Spent against recipients of models, all rounds so far; null when nothing is promised.
    pub epsilon_release: Option<f64>,
    /// Spent against the server, all rounds so far; null when nothing is promised.
    pub epsilon_server: Option<f64>,
    /// Why there is no epsilon against the server; null when there is one.
    pub epsilon_server_absent: Option<String>,
    /// Spent against the server with every other client, all rounds so far; null when nothing is promised.
    pub epsilon_alone: Option<f64>,
    /// What `epsilon_release` would be with continuous noise in place of discrete shares: for comparison, not certified.
    pub epsilon_release_if_continuous: Option<f64>,
    /// Likewise of `epsilon_server`.
    pub epsilon_server_if_continuous: Option<f64>,
    /// The delta of all of them.
    pub delta: Option<Delta>,
    /// From the plan to the end of the round, in the driver's time.
    pub seconds: f64,
    /// Bytes from clients.
    pub bytes_up: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
    /// How many clients were refused, by reason.
    pub refusals: BTreeMap<Refusal, u32>,
    /// How many clients declined, by reason.
    pub declines: BTreeMap<Decline, u32>,
    /// Of a simulation: which clients these were, by reason. Who was invited by a real server is nobody's business.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, Vec<ClientId>>,
    /// SHA-256 of the model after the round, as 64 hexadecimal digits.
    pub model_sha256: String,
}

/// How good a model is on some examples, as in [`RoundRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Part of the examples whose class was found, 0 to 1; only where classes are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean loss of an example.
    pub loss: Option<f64>,
    /// The mean distance of a prediction from its number; only where numbers are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_absolute_error: Option<f64>,
    /// The root of the mean squared distance, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mean_squared_error: Option<f64>,
    /// 1 less the squared errors over those of predicting the mean, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r_squared: Option<f64>,
}

impl From<&Evaluation> for Measured {
    fn from(evaluation: &Evaluation) -> Self {
        let measured = Measured { loss: Some(evaluation.loss), ..Measured::default() };
        match evaluation.scores {
            Scores::Classes { accuracy } => Measured { accuracy: Some(accuracy), ..measured },
            Scores::Numbers { mean_absolute_error, root_mean_squared_error, r_squared } => Measured {
                mean_absolute_error: Some(mean_absolute_error),
                root_mean_squared_error: Some(root_mean_squared_error),
                r_squared,
                ..measured
            },
        }
    }
}

/// How the query after a round went. It names no client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRecord {
    /// How it ended, in one word.
    pub outcome: OutcomeKind,
    /// How it ended, in a sentence.
    pub detail: String,
    /// Clients in the cohort.
    pub invited: u32,
    /// Answers in the sum.
    pub updates: u32,
    /// From the plan to the end, in the driver's time.
    pub seconds: f64,
    /// Bytes from clients.
    pub bytes_up: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
    /// How many clients were refused, by reason.
    pub refusals: BTreeMap<Refusal, u32>,
    /// How many clients declined, by reason.
    pub declines: BTreeMap<Decline, u32>,
}

/// How the accuracy of a model is distributed over clients, each measured on examples of its own that nobody trains on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientAccuracy {
    /// Clients that were measured.
    pub clients: u64,
    /// Their mean accuracy, each counting the same.
    pub mean: f64,
    /// The lowest.
    pub worst: f64,
    /// A tenth of the clients have at most this.
    pub percentile_10: f64,
    /// Half of them have at most this.
    pub median: f64,
    /// Nine tenths of them have at most this.
    pub percentile_90: f64,
}

/// How good a model is for clients on examples of their own that nobody trains on, by what they say together: each counts the same,
/// and noise hides each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientAnswers {
    /// The mean of their accuracies.
    pub accuracy: f64,
    /// By how much the noise moves that in nineteen of twenty queries, at most.
    pub accuracy_within: f64,
    /// The mean of their losses, each of which counts up to a bound.
    pub loss: f64,
    /// Likewise of the loss.
    pub loss_within: f64,
}

impl ClientAccuracy {
    /// The distribution of these accuracies, one for each client; none of nobody's. Percentiles are those of the nearest rank.
    pub fn of(mut accuracies: Vec<f64>) -> Option<Self> {
        accuracies.sort_by(f64::total_cmp);
        let percentile = |percent: usize| {
            let rank = (percent * accuracies.len()).div_ceil(100);
            accuracies.get(rank.saturating_sub(1)).copied()
        };
        Some(ClientAccuracy {
            clients: accuracies.len() as u64,
            mean: accuracies.iter().sum::<f64>() / accuracies.len() as f64,
            worst: *accuracies.first()?,
            percentile_10: percentile(10)?,
            median: percentile(50)?,
            percentile_90: percentile(90)?,
        })
    }
}

/// [`Outcome`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    /// Every invited client's update is in the model.
    Complete,
    /// Some invited clients' updates are in the model.
    Degraded,
    /// There is no new model.
    Aborted,
}

/// What a round cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// From the plan to the end.
    pub time: Span,
    /// Bytes from clients.
    pub bytes_up: u64,
    /// Bytes to clients.
    pub bytes_down: u64,
}

impl RoundRecord {
    /// Writes down a round that has ended; `progress` is what became of each invited client.
    pub fn new(
        summary: &RoundSummary,
        progress: &[(ClientId, Progress)],
        evaluation: Option<Evaluation>,
        cost: Cost,
    ) -> Self {
        let (refusals, declines) = count(progress);
        let [tested, validation] = [Examples::Test, Examples::Validation]
            .map(|on| evaluation.filter(|evaluation| evaluation.on == on).as_ref().map(Measured::from));
        let Measured { accuracy, loss, mean_absolute_error, root_mean_squared_error, r_squared } =
            tested.unwrap_or_default();
        RoundRecord {
            round: summary.round,
            outcome: OutcomeKind::from(&summary.outcome),
            detail: summary.outcome.to_string(),
            invited: summary.invited,
            updates: summary.updates,
            accuracy,
            loss,
            mean_absolute_error,
            root_mean_squared_error,
            r_squared,
            validation,
            client_accuracy: None,
            personalised_accuracy: None,
            client_answers: None,
            query: None,
            epsilon_release: summary.epsilon_release.ok().map(|epsilon| epsilon.get()),
            epsilon_server: summary.epsilon_server.ok().map(|epsilon| epsilon.get()),
            epsilon_server_absent: summary.epsilon_server.err().map(|reason| reason.to_string()),
            epsilon_alone: summary.epsilon_alone.ok().map(|epsilon| epsilon.get()),
            epsilon_release_if_continuous: summary.epsilon_release_if_continuous.map(|epsilon| epsilon.get()),
            epsilon_server_if_continuous: summary.epsilon_server_if_continuous.map(|epsilon| epsilon.get()),
            delta: summary.delta,
            seconds: cost.time.as_millis() as f64 / 1000.0,
            bytes_up: cost.bytes_up,
            bytes_down: cost.bytes_down,
            refusals,
            declines,
            dropped: BTreeMap::new(),
            model_sha256: summary.model.to_string(),
        }
    }
}

impl RoundRecord {
    /// The model after the round by a metric, if that was measured: on validation examples where there are some, by which choices
    /// are made, else on test examples.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let measured = self.validation.unwrap_or(Measured {
            accuracy: self.accuracy,
            loss: self.loss,
            mean_absolute_error: self.mean_absolute_error,
            root_mean_squared_error: self.root_mean_squared_error,
            r_squared: self.r_squared,
        });
        match metric {
            Metric::Accuracy => measured.accuracy,
            Metric::Perplexity => measured.loss.map(f64::exp),
            Metric::RootMeanSquaredError => measured.root_mean_squared_error,
            Metric::MeanAbsoluteError => measured.mean_absolute_error,
            Metric::RSquared => measured.r_squared,
            Metric::Loss => measured.loss,
            Metric::ClientAccuracy => self.client_accuracy.map(|clients| clients.mean),
            Metric::PersonalisedAccuracy => self.personalised_accuracy.map(|clients| clients.mean),
        }
    }

    /// The same with what clients said in the query after the round, and what is spent by then.
    #[must_use]
    pub fn asked(self, query: &RoundSummary, progress: &[(ClientId, Progress)], cost: Cost) -> Self {
        let asked = RoundRecord::new(query, progress, None, cost);
        RoundRecord {
            client_answers: query.answers,
            query: Some(QueryRecord {
                outcome: asked.outcome,
                detail: asked.detail,
                invited: asked.invited,
                updates: asked.updates,
                seconds: asked.seconds,
                bytes_up: asked.bytes_up,
                bytes_down: asked.bytes_down,
                refusals: asked.refusals,
                declines: asked.declines,
            }),
            epsilon_release: asked.epsilon_release,
            epsilon_server: asked.epsilon_server,
            epsilon_alone: asked.epsilon_alone,
            epsilon_release_if_continuous: asked.epsilon_release_if_continuous,
            epsilon_server_if_continuous: asked.epsilon_server_if_continuous,
            ..self
        }
    }

    /// Bytes from clients and to them, of the round and of the query after it.
    pub fn bytes(&self) -> (u64, u64) {
        let (up, down) = self.query.as_ref().map_or((0, 0), |query| (query.bytes_up, query.bytes_down));
        (self.bytes_up + up, self.bytes_down + down)
    }

    /// How many clients were refused or declined, by reason.
    pub fn losses(&self) -> impl Iterator<Item = (String, u32)> + '_ {
        let refusals = self.refusals.iter().map(|(reason, &clients)| (named(reason), clients));
        refusals.chain(self.declines.iter().map(|(reason, &clients)| (named(reason), clients)))
    }
}

/// Which clients were refused or declined, by reason.
pub fn dropped(progress: &[(ClientId, Progress)]) -> BTreeMap<String, Vec<ClientId>> {
    let mut dropped: BTreeMap<String, Vec<ClientId>> = BTreeMap::new();
    for (client, progress) in progress {
        let reason = match progress {
            Progress::Refused(reason) => named(reason),
            Progress::Declined(reason) | Progress::Withheld(reason) => named(reason),
            _ => continue,
        };
        dropped.entry(reason).or_default().push(*client);
    }
    dropped
}

/// The name that a reason has in JSON.
fn named(reason: &impl Serialize) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        // Reasons are words.
        other => format!("{other:?}"),
    }
}

impl From<&Outcome> for OutcomeKind {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Complete { .. } => OutcomeKind::Complete,
            Outcome::Degraded { .. } => OutcomeKind::Degraded,
            Outcome::Aborted(_) => OutcomeKind::Aborted,
        }
    }
}

/// Watches a federation. Called between events, so it must be quick.
pub trait Observer: Send {
    /// Clients are connected, before the first round; it starts when `wanted` are.
    fn clients_connected(&mut self, connected: usize, wanted: usize) {
        let _ = (connected, wanted);
    }

    /// A round is planned and `invited` clients are its cohort.
    fn round_opened(&mut self, plan: &Plan, invited: u32) {
        let _ = (plan, invited);
    }

    /// So many updates are in the sum of the open round.
    fn update_committed(&mut self, round: Round, updates: u32) {
        let _ = (round, updates);
    }

    /// The server does something else than before, or has other numbers.
    fn status(&mut self, status: &Status) {
        let _ = status;
    }

    /// A round has ended; this became of each client of its cohort. Under sampling the operator's secret: who writes it down keeps
    /// it where nobody else reads it.
    fn cohort_closed(&mut self, round: Round, cohort: &[(ClientId, Progress)]) {
        let _ = (round, cohort);
    }

    /// A round has ended; `model` is the model after it.
    fn round_closed(&mut self, record: &RoundRecord, model: &Arc<Vec<f32>>) {
        let _ = (record, model);
    }
}

/// Nobody watches.
impl Observer for () {}

fn count(progress: &[(ClientId, Progress)]) -> (BTreeMap<Refusal, u32>, BTreeMap<Decline, u32>) {
    let (mut refusals, mut declines) = (BTreeMap::new(), BTreeMap::new());
    for (_, progress) in progress {
        match *progress {
            Progress::Refused(reason) => *refusals.entry(reason).or_insert(0) += 1,
            Progress::Declined(reason) | Progress::Withheld(reason) => {
                *declines.entry(reason).or_insert(0) += 1
            }
            _ => {}
        }
    }
    (refusals, declines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::NoPromise;
    use skep_privacy::quantities::Epsilon;
    use skep_protocol::Digest;
    use skep_protocol::round::AbortReason;

    fn summary(outcome: Outcome) -> RoundSummary {
        RoundSummary {
            round: Round(3),
            outcome,
            invited: 4,
            updates: 1,
            model: Digest::of(b""),
            epsilon_release: Ok(Epsilon::new(1.5).unwrap()),
            epsilon_server: Err(NoPromise::TrustedServer),
            epsilon_alone: Err(NoPromise::TrustedServer),
            epsilon_release_if_continuous: None,
            epsilon_server_if_continuous: None,
            delta: Some(Delta::new(1e-5).unwrap()),
            answers: None,
        }
    }

    #[test]
    fn a_record_counts_clients_by_reason_and_comes_back_from_json() {
        let progress = [
            (ClientId(0), Progress::Committed),
            (ClientId(1), Progress::Refused(Refusal::NoAnswer)),
            (ClientId(2), Progress::Refused(Refusal::NoAnswer)),
            (ClientId(3), Progress::Declined(Decline::WrongTask)),
        ];
        let outcome = Outcome::Degraded { updates: 1, invited: 4 };
        let cost = Cost { time: Span::from_millis(1500), bytes_up: 7, bytes_down: 9 };
        let record = RoundRecord::new(&summary(outcome), &progress, None, cost);
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""refusals":{"no-answer":2},"declines":{"wrong-task":1}"#), "{json}");
        assert!(json.contains(r#""outcome":"degraded","detail":"degraded: 1 of 4 updates""#), "{json}");
        assert!(json.contains(r#""epsilon_release":1.5,"epsilon_server":null"#), "{json}");
        assert!(json.contains(r#""seconds":1.5,"bytes_up":7,"bytes_down":9"#), "{json}");
        assert_eq!(serde_json::from_str::<RoundRecord>(&json).unwrap(), record);
    }

    #[test]
    fn percentiles_of_clients_are_those_of_the_nearest_rank() {
        let of = ClientAccuracy::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            (of.clients, of.worst, of.percentile_10, of.median, of.percentile_90),
            (20, 1.0, 2.0, 10.0, 18.0)
        );
        assert_eq!(of.mean, 10.5);
        let one = ClientAccuracy::of(vec![0.5]).unwrap();
        assert_eq!((one.percentile_10, one.median, one.percentile_90), (0.5, 0.5, 0.5));
        assert_eq!(ClientAccuracy::of(Vec::new()), None);
    }

    #[test]
    fn where_nothing_is_promised_the_record_says_null() {
        let summary = RoundSummary {
            epsilon_release: Err(NoPromise::Off),
            epsilon_server: Err(NoPromise::Off),
            epsilon_alone: Err(NoPromise::Off),
            delta: None,
            ..summary(Outcome::Aborted(AbortReason::Stopped))
        };
        let record = RoundRecord::new(&summary, &[], None, Cost::default());
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""epsilon_release":null,"epsilon_server":null"#), "{json}");
        assert!(json.contains(r#""delta":null"#), "{json}");
        assert_eq!(serde_json::from_str::<RoundRecord>(&json).unwrap(), record);
    }
}
