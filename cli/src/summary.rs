//! The summary of a run: the object of `summary.json` and of `--output json`.

use std::collections::BTreeMap;

use serde::Serialize;
use skep_client::masking::Masks;
use skep_learning::{Average, Errors, Evaluation, Scored, Subset};
use skep_protocol::Digest;
use skep_protocol::experiment::{Experiment, Metric};
use skep_server::record::{ClientAccuracy, ClientAnswers, OutcomeKind, RoundRecord};

use crate::cost::Cost;
use crate::machine;
use crate::recorder::Pace;

/// What came out of a run, what it cost, and on which machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The experiment's name.
    pub(crate) name: String,
    /// The version of the program.
    pub(crate) version: &'static str,
    /// How the run ended: `finished`, `stopped-early`, `budget-exhausted` or `interrupted`.
    pub(crate) ended: &'static str,
    /// What carried the messages: `memory` or `sockets`.
    pub(crate) transport: &'static str,
    /// Processes that took part.
    pub(crate) processes: usize,
    /// SHA-256 of the last model's parameters as little-endian f32.
    pub model_sha256: String,
    /// What was measured first of all on the held-out examples: the key of a number here.
    pub(crate) metric: &'static str,
    /// Of the last model on the held-out examples, 0 to 1; null where it predicts numbers.
    pub(crate) accuracy: Option<f64>,
    /// Its mean loss on them, of classes the cross-entropy in nats.
    pub(crate) loss: Option<f64>,
    /// How far predicted numbers are off; only where numbers are predicted.
    #[serde(flatten)]
    pub(crate) errors: Option<SummaryErrors>,
    /// How good the last model is on validation examples, by which choices were made; only where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<BTreeMap<&'static str, f64>>,
    /// How accurate the last model is for clients, on examples of their own; only where these are measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_accuracy: Option<ClientAccuracy>,
    /// The same after each has fitted it to its other examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) personalised_accuracy: Option<ClientAccuracy>,
    /// How good clients say the last model is that they were asked about, with noise; only where they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_answers: Option<ClientAnswers>,
    /// How good it is on them beyond that; all null where it was not measured.
    #[serde(flatten)]
    pub(crate) quality: Quality,
    /// The perplexity of n-grams that are counted in the same texts, on the same held-out words; only where the next word is predicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ngram_perplexity: Option<f64>,
    /// SHA-256 of the held-out examples' row numbers, ascending, as little-endian u64.
    pub test_ids_sha256: String,
    /// Rounds that released a model from everyone who was invited.
    pub(crate) rounds_completed: u64,
    /// Rounds that released a model although some invited clients were missing.
    pub(crate) rounds_degraded: u64,
    /// Rounds that released nothing. Their budget is spent all the same.
    pub(crate) rounds_aborted: u64,
    /// How many clients were refused or declined in all rounds, by reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// What the rounds took in virtual time, in seconds; null where time was real.
    pub(crate) virtual_seconds: Option<f64>,
    /// The trust mode.
    pub(crate) mode: &'static str,
    /// Whether the server saw sums of updates only.
    pub(crate) secure_aggregation: bool,
    /// What was spent.
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// What is hidden; null when nothing is.
    pub(crate) unit: Option<String>,
    /// From what; null when nothing is promised.
    pub(crate) adjacency: Option<String>,
    /// Who is invited to a round: `all`, `poisson:RATE` or `fixed:SIZE/POPULATION`.
    pub(crate) sampling: String,
    /// Whether the noise follows from `--seed`: then it hides nothing from whoever knows the seed.
    pub(crate) noise_seeded: bool,
    /// A signed checkpoint of the ledger after the last round.
    pub(crate) ledger_checkpoint: String,
    /// What corrupt clients did, and with what success; only where the experiment has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attack: Option<AttackSummary>,
    /// From the start of the command, in seconds.
    pub(crate) seconds_total: f64,
    /// From the start of the command to the end of the first round.
    pub(crate) seconds_to_first_round: Option<f64>,
    /// Of a round that released a model.
    pub(crate) seconds_per_round_median: Option<f64>,
    /// Updates in all sums, per second of the rounds.
    pub(crate) client_updates_per_second: Option<f64>,
    /// Largest resident memory, added over all processes; null where the system does not tell.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// From clients to the server: on the sockets with `transport` `sockets`, else what packed updates weigh.
    pub(crate) bytes_up: u64,
    /// From the server to clients, likewise.
    pub(crate) bytes_down: u64,
    /// Masks on the updates in sums; 0 where none were computed, null where only the clients know.
    pub(crate) masks_applied: Option<u64>,
    /// What these updates weigh, masked and packed.
    pub(crate) masked_bytes: Option<u64>,
    /// Of those that local training depends on, what the processor has.
    pub(crate) cpu_features: Vec<&'static str>,
    /// The caches that local training depends on, as `L1d 32K`.
    pub(crate) cpu_caches: Vec<String>,
}

/// Corrupt clients of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct AttackSummary {
    /// What they did.
    pub(crate) kind: &'static str,
    /// How many there were.
    pub(crate) corrupt_clients: u64,
    /// Part of the held-out examples of other classes that the last model takes for the target once they bear the trigger; null
    /// where the attack is no backdoor.
    pub(crate) success_rate: Option<f64>,
}

/// How far a model's predictions are off, in the unit of what it predicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct SummaryErrors {
    /// The mean distance of a prediction from the number.
    mean_absolute_error: f64,
    /// The mean of its square.
    mean_squared_error: f64,
    /// The root of that.
    root_mean_squared_error: f64,
    /// 1 less the squared errors over those of predicting the mean; null where all numbers are the same.
    r_squared: Option<f64>,
}

/// How good a classifier is, beside its accuracy and its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Quality {
    /// The mean precision of the classes, 0 to 1.
    pub(crate) precision_macro: Option<f64>,
    /// Their mean recall.
    pub(crate) recall_macro: Option<f64>,
    /// Their mean F1.
    pub(crate) f1_macro: Option<f64>,
    /// Their mean F1, each by its examples.
    pub(crate) f1_weighted: Option<f64>,
    /// The mean area under the curve of each class against the others.
    pub(crate) roc_auc: Option<f64>,
    /// The expected calibration error, 0 to 1.
    pub(crate) calibration_error: Option<f64>,
    /// The exponential of the loss.
    pub(crate) perplexity: Option<f64>,
}

impl From<&Evaluation> for Quality {
    fn from(evaluation: &Evaluation) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let Some(classes) = evaluation.classes() else { return Quality::default() };
        let every_class = classes.confusion.average(Average::Macro);
        let weighted = classes.confusion.average(Average::Weighted);
        Quality {
            precision_macro: every_class.map(|scores| scores.precision),
            recall_macro: every_class.map(|scores| scores.recall),
            f1_macro: every_class.map(|scores| scores.f1),
            f1_weighted: weighted.map(|scores| scores.f1),
            roc_auc: classes.mean_roc_auc(),
            calibration_error: classes.calibration.error().and_then(finite),
            perplexity: evaluation.perplexity().and_then(finite),
        }
    }
}

/// What a run hands to its summary, beside its rounds.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// How it ended.
    pub(crate) ended: &'static str,
    /// What carried the messages.
    pub(crate) transport: &'static str,
    /// Processes that took part.
    pub(crate) processes: usize,
    /// Whether `--seed` was given.
    pub(crate) noise_seeded: bool,
    /// The digest of the last model.
    pub(crate) model: Digest,
    /// What corrupt clients did.
    pub(crate) attack: Option<AttackSummary>,
    /// A signed checkpoint of the ledger.
    pub(crate) checkpoint: String,
    /// From clients to the server.
    pub(crate) bytes_up: u64,
    /// From the server to clients.
    pub(crate) bytes_down: u64,
    /// Largest resident memory of all processes.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// From the first plan to the last outcome, if in virtual time.
    pub(crate) virtual_seconds: Option<f64>,
    /// What hid updates, where it is known.
    pub(crate) masks: Option<Masks>,
}

impl From<&Errors> for SummaryErrors {
    fn from(errors: &Errors) -> Self {
        let root_mean_squared_error = errors.root_mean_squared();
        SummaryErrors {
            mean_absolute_error: errors.mean_absolute,
            mean_squared_error: root_mean_squared_error * root_mean_squared_error,
            root_mean_squared_error,
            r_squared: errors.r_squared,
        }
    }
}

impl SummaryErrors {
    fn of(record: &RoundRecord) -> Option<Self> {
        let root_mean_squared_error = record.root_mean_squared_error?;
        Some(SummaryErrors {
            mean_absolute_error: record.mean_absolute_error?,
            mean_squared_error: root_mean_squared_error * root_mean_squared_error,
            root_mean_squared_error,
            r_squared: record.r_squared,
        })
    }
}

impl Summary {
    /// The last model by a metric, if that was measured.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Accuracy => self.accuracy,
            Metric::Perplexity => self.quality.perplexity,
            Metric::RootMeanSquaredError => self.errors.map(|errors| errors.root_mean_squared_error),
            Metric::MeanAbsoluteError => self.errors.map(|errors| errors.mean_absolute_error),
            Metric::RSquared => self.errors.and_then(|errors| errors.r_squared),
            Metric::Loss => self.loss,
            Metric::ClientAccuracy => self.client_accuracy.map(|clients| clients.mean),
            Metric::PersonalisedAccuracy => self.personalised_accuracy.map(|clients| clients.mean),
        }
    }

    /// The last model was measured on test examples. Where rounds are measured on validation examples, this is the one time.
    pub(crate) fn tested(&mut self, measured: &Evaluation) {
        self.quality = Quality::from(measured);
        if self.loss.is_none() {
            self.loss = Some(measured.loss);
            match &measured.scored {
                Scored::Classes(classes) => self.accuracy = Some(classes.accuracy),
                Scored::Numbers(errors) => self.errors = Some(SummaryErrors::from(errors)),
            }
        }
    }

    /// Adds up a run.
    pub(crate) fn new(
        experiment: &Experiment,
        test: &Subset,
        records: &[RoundRecord],
        pace: &Pace,
        run: Run,
    ) -> Self {
        let count = |kind| records.iter().filter(|record| record.outcome == kind).count() as u64;
        let measured = records.iter().rev().find(|record| record.value(Metric::Loss).is_some());
        let metrics = experiment.data.predicted().metrics().iter();
        let by_metric = |record: &RoundRecord| {
            metrics.filter_map(|metric| Some((metric.key(), record.value(*metric)?))).collect()
        };
        let terms = experiment.privacy.stated_terms();
        Summary {
            name: experiment.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            ended: run.ended,
            transport: run.transport,
            processes: run.processes,
            model_sha256: run.model.to_string(),
            metric: experiment.data.predicted().metric().key(),
            accuracy: measured.and_then(|record| record.accuracy),
            errors: measured.and_then(SummaryErrors::of),
            loss: measured.and_then(|record| record.loss),
            validation: measured.filter(|record| record.validation.is_some()).map(by_metric),
            client_accuracy: records.iter().rev().find_map(|record| record.client_accuracy),
            personalised_accuracy: records.iter().rev().find_map(|record| record.personalised_accuracy),
            client_answers: records.iter().rev().find_map(|record| record.client_answers),
            quality: Quality::default(),
            ngram_perplexity: None,
            test_ids_sha256: test_ids_digest(test).to_string(),
            rounds_completed: count(OutcomeKind::Complete),
            rounds_degraded: count(OutcomeKind::Degraded),
            rounds_aborted: count(OutcomeKind::Aborted),
            dropped: losses(records),
            virtual_seconds: run.virtual_seconds,
            mode: experiment.privacy.mode(),
            secure_aggregation: experiment.privacy.secure_aggregation().is_some(),
            cost: Cost::spent(experiment, records),
            unit: terms.map(|terms| terms.unit.to_string()),
            adjacency: terms.map(|terms| terms.adjacency.to_string()),
            sampling: experiment.rounds.sampling.to_string(),
            noise_seeded: run.noise_seeded,
            ledger_checkpoint: run.checkpoint,
            attack: run.attack,
            seconds_total: pace.seconds_total(),
            seconds_to_first_round: pace.seconds_to_first_round(),
            seconds_per_round_median: pace.seconds_per_round_median(),
            client_updates_per_second: pace.updates_per_second(),
            peak_rss_bytes: run.peak_rss_bytes,
            bytes_up: run.bytes_up,
            bytes_down: run.bytes_down,
            masks_applied: run.masks.map(|masks| masks.applied),
            masked_bytes: run.masks.map(|masks| masks.bytes_packed),
            cpu_features: machine::cpu_features(),
            cpu_caches: machine::cpu_caches(),
        }
    }
}

fn losses(records: &[RoundRecord]) -> BTreeMap<String, u64> {
    let mut losses = BTreeMap::new();
    for (reason, clients) in records.iter().flat_map(RoundRecord::losses) {
        *losses.entry(reason).or_insert(0) += u64::from(clients);
    }
    losses
}

fn test_ids_digest(test: &Subset) -> Digest {
    let bytes: Vec<u8> = test.rows().iter().flat_map(|&row| (row as u64).to_le_bytes()).collect();
    Digest::of(&bytes)
}
