//! What is shown while rounds run, on standard error: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use skep_protocol::Round;
use skep_protocol::experiment::Metric;
use skep_server::record::RoundRecord;

use crate::metric_words::named;

/// How far a run has come.
#[derive(Debug)]
pub(crate) struct Progress {
    rounds: u64,
    metric: Metric,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    /// A display for so many rounds, after which this is measured.
    pub(crate) fn new(rounds: u64, metric: Metric) -> Self {
        let shown = if std::io::stderr().is_terminal() { Shown::Bar(bar(rounds)) } else { Shown::Lines };
        Progress { rounds, metric, shown }
    }

    /// Clients have come; the first round waits for `wanted`.
    pub(crate) fn connected(&self, connected: usize, wanted: usize) {
        match &self.shown {
            Shown::Bar(bar) => bar.set_message(format!("{connected} of {wanted} clients are here")),
            Shown::Lines if connected == wanted => eprintln!("{connected} of {wanted} clients are here"),
            Shown::Lines => {}
        }
    }

    /// An earlier process has run so many rounds; how long the others take is not told from these.
    pub(crate) fn resumed(&self, rounds: u64) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_position(rounds);
            bar.reset_eta();
        }
    }

    /// A round has begun.
    pub(crate) fn opened(&self, round: Round, invited: u32) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_prefix(format!("{round}, cohort {invited}"));
        }
    }

    /// A round has so many updates.
    pub(crate) fn committed(&self, round: Round, updates: u32) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_prefix(format!("{round}, {updates} updates"));
        }
    }

    /// A round has ended.
    pub(crate) fn closed(&self, record: &RoundRecord) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_message(self.described(record));
                bar.set_position(record.round.0);
            }
            Shown::Lines if self.is_worth_a_line(record.round) => {
                eprintln!(
                    "{} of {}: {}, {}",
                    record.round,
                    self.rounds,
                    record.detail,
                    self.described(record)
                );
            }
            Shown::Lines => {}
        }
    }

    /// No further round comes.
    pub(crate) fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }

    /// The first, the last, and a hundred between.
    fn is_worth_a_line(&self, round: Round) -> bool {
        round.0 == 1 || round.0 == self.rounds || round.0.is_multiple_of(self.rounds.div_ceil(LINES))
    }

    fn described(&self, record: &RoundRecord) -> String {
        // No epsilon is the worst epsilon, not the best: say so.
        let epsilon =
            |value: Option<f64>| value.map_or("unbounded".to_owned(), |value| format!("{value:.3}"));
        format!(
            "{}{}, epsilon {} against recipients, {} against the server",
            if record.validation.is_some() { "validation " } else { "" },
            named(self.metric, record.value(self.metric)),
            epsilon(record.epsilon_release),
            epsilon(record.epsilon_server)
        )
    }
}

fn bar(rounds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(TEMPLATE).expect("the template is fixed and right");
    let bar = ProgressBar::new(rounds).with_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

const TEMPLATE: &str = "[{bar:24}] {pos}/{len}  {prefix}  {msg}  {eta} left";
const LINES: u64 = 100;
