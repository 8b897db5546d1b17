//! The end of a run: its results are written, its summary is printed, and its failure, if any, is told.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use skep_learning::{Evaluation, Subset};
use skep_protocol::experiment::{Experiment, Metric, Privacy};
use skep_server::record::{ClientAccuracy, ClientAnswers};
use skep_server::serve;
use skep_simulations::{LabelCounts, TestSet};

use crate::arguments::Output;
use crate::failure::Failure;
use crate::metric_words::named;
use crate::privacy_words;
use crate::recorder::Recorded;
use crate::summary::{AttackSummary, Summary};

/// Why a run ended.
#[derive(Debug)]
pub(crate) enum End {
    /// All rounds have been run.
    Finished,
    /// The privacy budget allows no further round.
    BudgetExhausted(Failure),
    /// The model did not become better any more.
    StoppedEarly,
    /// The user stopped it.
    Interrupted,
}

impl End {
    /// The name in a summary.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::BudgetExhausted(_) => "budget-exhausted",
            End::StoppedEarly => "stopped-early",
            End::Interrupted => "interrupted",
        }
    }
}

impl From<&serve::End> for End {
    fn from(end: &serve::End) -> Self {
        match end {
            serve::End::Finished => End::Finished,
            serve::End::BudgetExhausted(exhausted) => End::BudgetExhausted(exhausted.clone().into()),
            serve::End::StoppedEarly => End::StoppedEarly,
            serve::End::Stopped => End::Interrupted,
        }
    }
}

/// What a report shows beside rounds and summary.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What the last model is measured with, class by class.
    pub(crate) test: Subset,
    /// Examples of each class, by client: of a simulation only.
    pub(crate) simulated_clients: Option<Vec<LabelCounts>>,
}

/// Writes the results, prints the summary, and says what kept the run from its last round.
///
/// # Errors
/// [`Failure`]: of writing, or of the run.
pub(crate) fn finish(
    experiment: &Experiment,
    recorded: Recorded,
    mut summary: Summary,
    model: Vec<f32>,
    shown: Shown,
    output: Output,
    end: End,
) -> Result<(), Failure> {
    let directory = recorded.results.as_ref().map(|results| results.directory().to_owned());
    let measured = measured(experiment, &summary, &model, &shown)?;
    measured.iter().for_each(|measured| summary.tested(measured));
    let summary = &summary;
    if let Some(results) = recorded.results {
        results.finish(experiment, &recorded.records, summary, model, &shown, measured.as_ref())?;
    }
    match output {
        Output::Json => println!("{}", serde_json::to_string(summary).map_err(Failure::other)?),
        Output::Text => print!("{}", text(experiment, summary, directory.as_deref())),
    }
    verdict(experiment, summary, directory, end)
}

/// The last model on the held-out examples, class by class; `None` where it could not be measured after its round.
fn measured(
    experiment: &Experiment,
    summary: &Summary,
    model: &[f32],
    shown: &Shown,
) -> Result<Option<Evaluation>, Failure> {
    if summary.loss.is_none() && summary.validation.is_none() {
        return Ok(None);
    }
    let mut test = TestSet::new(&experiment.task, shown.test.clone()).map_err(Failure::configuration)?;
    test.measure(model).map(Some).map_err(Failure::other)
}

fn verdict(
    experiment: &Experiment,
    summary: &Summary,
    directory: Option<PathBuf>,
    end: End,
) -> Result<(), Failure> {
    let released = summary.rounds_completed + summary.rounds_degraded;
    match end {
        End::BudgetExhausted(failure) => Err(failure),
        End::Interrupted => Err(Failure::Interrupted(match directory {
            Some(directory) => {
                let further = if summary.transport == "memory" { "; --resume goes on" } else { "" };
                format!(
                    "interrupted: the results of {released} rounds are in {}{further}",
                    directory.display()
                )
            }
            None => format!("interrupted: {released} rounds were done"),
        })),
        End::Finished | End::StoppedEarly if released == 0 => Err(Failure::NotEnoughClients(format!(
            "not enough clients: no round reached rounds.min_updates = {}, so no model was released",
            experiment.rounds.min_updates
        ))),
        End::Finished | End::StoppedEarly => Ok(()),
    }
}

/// The summary for people.
pub(crate) fn text(experiment: &Experiment, summary: &Summary, directory: Option<&Path>) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12}{value}");
    };
    line("model", quality(experiment, summary));
    if let Some(validation) = &summary.validation {
        let metrics = experiment.data.predicted().metrics().iter();
        let values = metrics.map(|metric| named(*metric, validation.get(metric.key()).copied()));
        line(
            "validation",
            format!(
                "{}; rounds were measured so, the held-out examples only now",
                values.collect::<Vec<_>>().join(", ")
            ),
        );
    }
    if let Some(ngrams) = summary.ngram_perplexity {
        line("perplexity", perplexity(summary.quality.perplexity, ngrams));
    }
    if let Some(clients) = &summary.client_accuracy {
        line("clients", fairness(experiment, clients));
    }
    if let Some(clients) = &summary.personalised_accuracy {
        line("fine-tuned", fairness(experiment, clients));
    }
    if let Some(answers) = &summary.client_answers {
        line("asked", said(answers));
    }
    line("rounds", rounds(summary));
    if !summary.dropped.is_empty() {
        let reasons: Vec<_> =
            summary.dropped.iter().map(|(reason, clients)| format!("{clients} {reason}")).collect();
        line("dropped", reasons.join(", "));
    }
    if let Some(seconds) = summary.virtual_seconds {
        line("simulated", format!("{} of virtual time", spoken(seconds)));
    }
    if let Some(attack) = &summary.attack {
        line("attack", attacked(attack));
    }
    for (label, sentence) in summary.cost.lines(experiment) {
        line(label, sentence);
    }
    if let Some(hidden) = privacy_words::hidden(experiment) {
        line("hidden", hidden);
    }
    if summary.noise_seeded {
        line(
            "not private",
            "every draw follows from --seed, so the noise is reproducible and hides nothing".to_owned(),
        );
    }
    line("took", pace(summary));
    line("sha256", summary.model_sha256.clone());
    line(
        "results",
        match directory {
            Some(directory) => directory.display().to_string(),
            None => "not kept; --out DIR keeps them".to_owned(),
        },
    );
    text
}

/// A length of time in the units that suit it.
pub(crate) fn spoken(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

fn quality(experiment: &Experiment, summary: &Summary) -> String {
    let name = &summary.name;
    let measured = |metric: &Metric| Some(named(*metric, Some(summary.value(*metric)?)));
    let measured: Vec<_> = experiment.data.predicted().metrics().iter().filter_map(measured).collect();
    match measured.is_empty() {
        false => format!("{name}: {} on held-out examples", measured.join(", ")),
        true => format!("{name}: not measured"),
    }
}

/// Words of the n-grams that a model of the next word is compared with.
pub(crate) const NGRAM: usize = 5;

fn perplexity(model: Option<f64>, ngrams: f64) -> String {
    let own = model.map_or("not measured".to_owned(), |model| format!("{model:.3}"));
    format!(
        "{own} for each held-out word; {NGRAM}-grams counted in the same texts, by Kneser-Ney smoothing: {ngrams:.3}"
    )
}

fn attacked(attack: &AttackSummary) -> String {
    let AttackSummary { kind, corrupt_clients, success_rate } = attack;
    match success_rate {
        None => format!("{kind} by {corrupt_clients} clients"),
        Some(rate) => {
            format!(
                "{kind} by {corrupt_clients} clients: {:.1} % of what bears the trigger is taken for its class",
                100.0 * rate
            )
        }
    }
}

fn fairness(experiment: &Experiment, clients: &ClientAccuracy) -> String {
    let ClientAccuracy { clients, mean, worst, percentile_10, median, percentile_90 } = clients;
    let private = if experiment.privacy == Privacy::None {
        ""
    } else {
        "; of no promise: measured without noise, as only a simulation can"
    };
    format!(
        "accuracy {mean:.4} in the mean of {clients} on examples of their own: worst {worst:.4}, a tenth at most {percentile_10:.4}, \
         half {median:.4}, nine tenths {percentile_90:.4}{private}"
    )
}

fn said(answers: &ClientAnswers) -> String {
    let ClientAnswers { accuracy, accuracy_within, loss, loss_within } = answers;
    format!(
        "accuracy {accuracy:.4} ± {accuracy_within:.4}, loss {loss:.4} ± {loss_within:.4} in the mean of clients on examples of their own, \
         hidden as updates are: the noise stays within ± in nineteen of twenty queries, each of which is charged"
    )
}

fn rounds(summary: &Summary) -> String {
    let early =
        if summary.ended == "stopped-early" { "; stopped, since the model got no better" } else { "" };
    format!(
        "{} complete, {} degraded, {} aborted{early}",
        summary.rounds_completed, summary.rounds_degraded, summary.rounds_aborted
    )
}

fn pace(summary: &Summary) -> String {
    let mut text = format!("{:.2} s", summary.seconds_total);
    if let Some(updates) = summary.client_updates_per_second {
        let _ = write!(text, ", {updates:.0} client updates per second");
    }
    if let Some(bytes) = summary.peak_rss_bytes {
        let _ = write!(text, ", {} MiB of memory", bytes >> 20);
    }
    text
}
