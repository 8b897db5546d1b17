//! `report.html`: a run for people, in one file that needs no network.
//!
//! What a federation of real clients shows here is what its releases show, measured on the server's own data, and, where the size
//! of a cohort is public, how many took part. What clients hold is shown of simulations only.

mod calibration;
mod compared;
mod dropped;
mod matrix;

use std::fmt::Write;

use skep_learning::Evaluation;
use skep_privacy::quantities::Sampling;
use skep_protocol::experiment::{Experiment, Metric, Privacy};
use skep_server::record::{ClientAccuracy, ClientAnswers, RoundRecord};
use skep_simulations::LabelCounts;

use crate::metric_words;
use crate::page::{self, Chart, Look, Series, bytes, count, escaped, facts, keyed, number, page, percent};
use crate::privacy_words;
use crate::report::spoken;
use crate::summary::Summary;

pub(crate) use compared::{Compared, compared};

/// What a report is about.
#[derive(Clone, Copy)]
pub(crate) struct Report<'a> {
    /// The experiment.
    pub(crate) experiment: &'a Experiment,
    /// Its rounds.
    pub(crate) records: &'a [RoundRecord],
    /// What came of them.
    pub(crate) summary: &'a Summary,
    /// What the classes are called.
    pub(crate) classes: &'a [String],
    /// The last model on the held-out examples; `None` where it was not measured.
    pub(crate) measured: Option<&'a Evaluation>,
    /// Examples of each class, by client: of a simulation, in which clients have no secrets.
    pub(crate) simulated_clients: Option<&'a [LabelCounts]>,
}

impl Report<'_> {
    /// The whole file.
    pub(crate) fn html(&self) -> String {
        let title = escaped(&self.summary.name);
        let sections = [
            self.header(),
            self.numbers(),
            self.promise(),
            self.rounds(),
            self.dropped(),
            self.quality(),
            self.clients(),
            self.facts(),
        ];
        page(&title, "", &sections.concat())
    }

    fn header(&self) -> String {
        let place = match (self.is_simulation(), self.summary.transport) {
            (false, _) => "over the network",
            (true, "sockets") => "simulated over sockets",
            (true, _) => "simulated in memory",
        };
        let mut html = format!(
            "<header>{HIVE}<div><h1>{}</h1><p class=\"soft\">{} clients, {} of {} rounds, {}; privacy mode <b>{}</b></p></div></header>\n",
            escaped(&self.summary.name),
            count(self.experiment.population.clients),
            count(self.records.len() as u64),
            count(self.experiment.rounds.count),
            place,
            self.summary.mode
        );
        if self.summary.noise_seeded {
            html += "<p class=\"warning\"><b>Not private.</b> Every draw of this run follows from <code>--seed</code>, so whoever knows \
                     the seed can take the noise away. Publish nothing of it.</p>\n";
        }
        match self.summary.ended {
            "budget-exhausted" => {
                html += "<p class=\"warning\"><b>Ended early.</b> The privacy budget allowed no further round.</p>\n";
            }
            "stopped-early" => {
                html += "<p class=\"warning\"><b>Ended early.</b> The model had become no better for as long as the experiment allows.</p>\n";
            }
            "interrupted" => {
                html += "<p class=\"warning\"><b>Ended early.</b> The run was interrupted.</p>\n"
            }
            _ => {}
        }
        html
    }

    fn numbers(&self) -> String {
        let summary = self.summary;
        let epsilon = |key: &str, value: Option<f64>| {
            keyed(key, value, &value.map_or("∞".to_owned(), |value| format!("{value:.3}")))
        };
        let at_delta =
            summary.cost.delta.map_or("nothing is promised".to_owned(), |delta| format!("at δ = {delta:e}"));
        let against_server = match (&summary.cost.epsilon_server, &summary.cost.epsilon_server_reason) {
            (None, Some(reason)) => escaped(reason),
            _ => at_delta.clone(),
        };
        let rounds = format!(
            "{} complete, {} degraded, {} aborted",
            keyed("rounds_completed", summary.rounds_completed, &count(summary.rounds_completed)),
            keyed("rounds_degraded", summary.rounds_degraded, &count(summary.rounds_degraded)),
            keyed("rounds_aborted", summary.rounds_aborted, &count(summary.rounds_aborted))
        );
        let mut cards: Vec<(&str, &str, String, String)> = Vec::new();
        for &metric in self.experiment.data.predicted().metrics() {
            let value = summary.value(metric);
            let shown = value.map_or("–".to_owned(), |value| match metric {
                Metric::Accuracy => percent(value),
                metric => metric_words::shown(metric, value),
            });
            let colour = if cards.is_empty() { "teal" } else { "" };
            let value = keyed(metric.key(), value, &shown);
            let validated = summary.validation.as_ref().and_then(|validation| validation.get(metric.key()));
            let note = match validated {
                None => metric.meaning().to_owned(),
                Some(&validated) => {
                    let shown = metric_words::shown(metric, validated);
                    let validated = keyed(&format!("validation.{}", metric.key()), validated, &shown);
                    format!("{}; {validated} on validation examples", metric.meaning())
                }
            };
            cards.push((metric_words::title(metric), colour, value, note));
        }
        cards.extend([
            (
                "ε against recipients",
                "honey",
                epsilon("epsilon_release", summary.cost.epsilon_release),
                at_delta,
            ),
            (
                "ε against the server",
                "honey",
                epsilon("epsilon_server", summary.cost.epsilon_server),
                against_server,
            ),
            ("Rounds", "", count(self.records.len() as u64), rounds),
        ]);
        let cards = cards.into_iter().map(|(name, colour, value, note)| {
            format!("<div class=\"card\"><dt>{name}</dt><dd class=\"{colour}\">{value}</dd><small>{note}</small></div>\n")
        });
        format!("<dl class=\"grid numbers\">\n{}</dl>\n", cards.collect::<String>())
    }

    fn promise(&self) -> String {
        let cost = &self.summary.cost;
        let mut cards = String::new();
        for (label, sentence) in cost.lines(self.experiment) {
            let (title, epsilon) = match label {
                "recipients" => ("Whoever receives the models", cost.epsilon_release),
                "server" => ("The server", cost.epsilon_server),
                _ => ("The server and all other clients", cost.epsilon_alone),
            };
            let _ = writeln!(
                cards,
                "<div class=\"card promise\"><h3>{title}</h3><p>{}.</p>{}</div>",
                capitalized(&sentence),
                meaning(epsilon, cost.delta)
            );
        }
        if let Some(hidden) = privacy_words::hidden(self.experiment) {
            let sampling = privacy_words::sampling(self.experiment.rounds.sampling);
            let accountant = cost.accountant.unwrap_or("none");
            let _ = writeln!(
                cards,
                "<div class=\"card promise\"><h3>What is hidden</h3><p>{}.</p><p class=\"soft\">Invited: {}. Accountant: {}.</p></div>",
                capitalized(&hidden),
                escaped(&sampling),
                escaped(accountant)
            );
        }
        format!("<h2>What is promised, and against whom</h2>\n<div class=\"grid three\">\n{cards}</div>\n")
    }

    fn rounds(&self) -> String {
        let curve = |value: &dyn Fn(&RoundRecord) -> Option<f64>| -> Vec<(f64, f64)> {
            self.records.iter().filter_map(|record| Some((record.round.0 as f64, value(record)?))).collect()
        };
        let one = |title: &'static str,
                   name: &str,
                   colour: &str,
                   points: Vec<(f64, f64)>,
                   top,
                   limit: Option<f64>| {
            let limit = limit.map(|limit| Series {
                look: Look::Limit,
                ..Series::line("limit", "rose", points.iter().map(|(round, _)| (*round, limit)).collect())
            });
            let series = [Series::line(name, colour, points)].into_iter().chain(limit).collect();
            Chart { top, ..Chart::of_rounds(title, series) }.html()
        };
        // The limit is against whoever the mode is for.
        let limit = self.experiment.privacy.terms().map(|terms| terms.epsilon_limit.get());
        let [of_release, of_server] = match &self.experiment.privacy {
            Privacy::Central { .. } => [limit, None],
            _ => [None, limit],
        };
        let mut charts = String::new();
        for &metric in self.experiment.data.predicted().metrics() {
            let points = curve(&|record| drawn(metric, record));
            charts += &one(metric_words::title(metric), metric.name(), "teal", points, metric.most(), None);
        }
        if self.records.iter().any(|record| record.client_accuracy.is_some()) {
            let of = |name: &str, colour: &str, value: fn(&ClientAccuracy) -> f64| {
                Series::line(name, colour, curve(&|record| record.client_accuracy.as_ref().map(value)))
            };
            let mut series = vec![
                of("nine tenths at most", "soft", |clients| clients.percentile_90),
                of("half", "teal", |clients| clients.median),
                of("a tenth", "honey", |clients| clients.percentile_10),
                of("worst", "rose", |clients| clients.worst),
            ];
            let personalised =
                |record: &RoundRecord| record.personalised_accuracy.map(|clients| clients.mean);
            if self.records.iter().any(|record| record.personalised_accuracy.is_some()) {
                series.push(Series::line("fine-tuned, in the mean", "soft", curve(&personalised)));
            }
            let title = "Accuracy for clients, on examples of their own";
            charts += &Chart { top: Some(1.0), ..Chart::of_rounds(title, series) }.html();
        }
        if self.records.iter().any(|record| record.client_answers.is_some()) {
            let of = |name: &str, colour: &str, value: fn(&ClientAnswers) -> f64| {
                let value = |said: &ClientAnswers| value(said).clamp(0.0, 1.0);
                Series::line(name, colour, curve(&|record| record.client_answers.as_ref().map(value)))
            };
            let series = vec![
                of("at most", "soft", |said| said.accuracy + said.accuracy_within),
                of("said", "teal", |said| said.accuracy),
                of("at least", "honey", |said| said.accuracy - said.accuracy_within),
            ];
            let title = "Accuracy as clients say it together, with noise";
            charts += &Chart { top: Some(1.0), ..Chart::of_rounds(title, series) }.html();
        }
        charts += &one(
            "ε against recipients",
            "ε",
            "honey",
            curve(&|record| record.epsilon_release),
            None,
            of_release,
        );
        charts += &one(
            "ε against the server",
            "ε",
            "honey",
            curve(&|record| record.epsilon_server),
            None,
            of_server,
        );
        if self.cohorts_may_be_shown() {
            let series = |name: &str, colour: &str, value: fn(&RoundRecord) -> f64| {
                Series::line(name, colour, curve(&|record| Some(value(record))))
            };
            let series = vec![
                series("invited", "soft", |record| f64::from(record.invited)),
                series("updates", "teal", |record| f64::from(record.updates)),
                series("dropouts", "rose", |record| f64::from(record.invited.saturating_sub(record.updates))),
            ];
            charts += &Chart::of_rounds("Cohort", series).html();
            if self.summary.virtual_seconds.is_some() && !self.experiment.simulation.is_ideal() {
                let seconds = curve(&|record| Some(record.seconds));
                charts += &one("Virtual seconds of a round", "seconds", "soft", seconds, None, None);
            }
        } else {
            charts += "<div class=\"card promise\"><h3>Cohorts</h3><p class=\"soft\">Not shown: with this sampling the accounting relies on \
                       nobody but the server knowing who was invited, and how many.</p></div>\n";
        }
        let validated = match self.summary.validation {
            None => "",
            Some(_) => {
                "<p class=\"soft\">Rounds were measured on validation examples; those held out were looked at once, in the end.</p>\n"
            }
        };
        format!("<h2>Round after round</h2>\n{validated}<div class=\"grid wide\">\n{charts}</div>\n")
    }

    fn dropped(&self) -> String {
        match self.is_simulation() && !self.summary.dropped.is_empty() {
            true => {
                format!(
                    "<h2>Who dropped out, and why</h2>\n{}",
                    dropped::html(&self.summary.dropped, self.records)
                )
            }
            false => String::new(),
        }
    }

    fn quality(&self) -> String {
        self.measured.and_then(Evaluation::classes).map_or(String::new(), |measured| {
            format!(
                "<h2>On held-out examples</h2>\n{}{}",
                matrix::html(measured, self.classes),
                calibration::html(&measured.calibration)
            )
        })
    }

    fn clients(&self) -> String {
        self.simulated_clients.map_or(String::new(), |counts| {
            let trained: Vec<_> = counts.iter().map(|client| client.trained.clone()).collect();
            let held_out = match counts.iter().map(|client| client.held_out).sum::<usize>() {
                0 => String::new(),
                examples => format!(
                    "<p>Beside these, clients hold out {} examples, on which they are measured and nobody trains.</p>\n",
                    count(examples as u64)
                ),
            };
            // Of numbers to predict there is one sort of examples.
            let classes = if self.classes.is_empty() { &["examples".to_owned()] } else { self.classes };
            format!("<h2>Who has what</h2>\n{}{held_out}", page::clients(&trained, classes))
        })
    }

    fn facts(&self) -> String {
        let summary = self.summary;
        let seconds =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{} s", number(value)));
        let mut rows = vec![
            ("model, SHA-256", keyed("model_sha256", &summary.model_sha256, &summary.model_sha256)),
            (
                "held-out rows, SHA-256",
                keyed("test_ids_sha256", &summary.test_ids_sha256, &summary.test_ids_sha256),
            ),
            ("parameters", count(self.experiment.task.parameter_count().unwrap_or(0))),
            ("sampling", keyed("sampling", &summary.sampling, &summary.sampling)),
            ("took", keyed("seconds_total", summary.seconds_total, &seconds(Some(summary.seconds_total)))),
            (
                "median round",
                keyed(
                    "seconds_per_round_median",
                    summary.seconds_per_round_median,
                    &seconds(summary.seconds_per_round_median),
                ),
            ),
        ];
        if let Some(seconds) = summary.virtual_seconds {
            rows.push(("virtual time", keyed("virtual_seconds", seconds, &spoken(seconds))));
        }
        if self.cohorts_may_be_shown() {
            let rate = summary.client_updates_per_second;
            rows.push((
                "client updates a second",
                keyed("client_updates_per_second", rate, &rate.map_or("–".to_owned(), number)),
            ));
            rows.push(("from clients", keyed("bytes_up", summary.bytes_up, &bytes(summary.bytes_up))));
            rows.push(("to clients", keyed("bytes_down", summary.bytes_down, &bytes(summary.bytes_down))));
        }
        let memory = summary.peak_rss_bytes;
        rows.push(("memory", keyed("peak_rss_bytes", memory, &memory.map_or("–".to_owned(), bytes))));
        rows.push(("processes", keyed("processes", summary.processes, &summary.processes.to_string())));
        rows.push(("processor", escaped(&summary.cpu_features.join(", "))));
        format!("<h2>The run</h2>\n{}", facts(rows))
    }

    fn is_simulation(&self) -> bool {
        self.simulated_clients.is_some()
    }

    /// Neighbouring populations have the same cohorts if the size of a cohort is public: then the neighbour sends zero. With
    /// Poisson sampling the sizes are a secret that the accounting relies on.
    fn cohorts_may_be_shown(&self) -> bool {
        let secret = matches!(self.experiment.rounds.sampling, Sampling::Poisson { .. })
            && !matches!(self.experiment.privacy, Privacy::None);
        self.is_simulation() || !secret
    }
}

/// What a curve shows of a round: charts begin at 0, and a model worse than the mean of the targets is at the bottom of theirs.
fn drawn(metric: Metric, record: &RoundRecord) -> Option<f64> {
    record.value(metric).map(|value| value.max(0.0))
}

/// What an epsilon means, in words: the power of any test is at most e^ε times its size, plus δ.
fn meaning(epsilon: Option<f64>, delta: Option<f64>) -> String {
    let (Some(epsilon), Some(delta)) = (epsilon, delta) else { return String::new() };
    let size = if epsilon > NEXT_TO_NOTHING { ", which is next to no promise" } else { "" };
    format!(
        "<p class=\"soft\">Whatever else they know: a test for one client that raises a false alarm with probability p finds that \
         client with probability e<sup>ε</sup>·p + δ = {} p + {delta:e} at most{size}.</p>",
        number(epsilon.exp())
    )
}

/// With a capital letter, and safe.
fn capitalized(text: &str) -> String {
    let mut letters = escaped(text).chars().collect::<Vec<_>>();
    if let Some(first) = letters.first_mut() {
        *first = first.to_ascii_uppercase();
    }
    letters.into_iter().collect()
}

/// A test with a false alarm in a million cases may find everyone.
const NEXT_TO_NOTHING: f64 = 13.8;
/// Three cells of a honeycomb.
const HIVE: &str = "<svg viewBox=\"0 0 64 64\" aria-hidden=\"true\"><path fill=\"currentColor\" style=\"fill:currentColor\" \
    d=\"M20 6l11 6.4v12.8L20 31.6 9 25.2V12.4zM44 6l11 6.4v12.8L44 31.6 33 25.2V12.4zM32 27.6l11 6.4v12.8l-11 6.4-11-6.4V34z\"/></svg>";
