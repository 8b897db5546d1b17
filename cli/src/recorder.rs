//! Watching a run: keeps its rounds, writes them down as they end, and measures how fast they are.

use std::sync::Arc;
use std::time::Instant;

use skep_protocol::Round;
use skep_protocol::plan::Plan;
use skep_server::record::{Observer, OutcomeKind, RoundRecord};

use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Progress;
use crate::results::Results;

/// Watches rounds, whoever runs them.
#[derive(Debug)]
pub(crate) struct Recorder {
    progress: Progress,
    results: Option<Results>,
    failure: Option<Failure>,
    records: Vec<RoundRecord>,
    pace: Pace,
}

/// What a recorder has seen.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Every round that ended.
    pub(crate) records: Vec<RoundRecord>,
    /// How fast they were.
    pub(crate) pace: Pace,
    /// The directory to finish, if there is one.
    pub(crate) results: Option<Results>,
}

impl Recorder {
    /// Shows `progress` and fills `results`; asks the run to end when they cannot be written any more.
    pub(crate) fn new(started: Instant, progress: Progress, results: Option<Results>) -> Self {
        Recorder { progress, results, failure: None, records: Vec::new(), pace: Pace::new(started) }
    }

    /// Goes on after rounds that an earlier process has run and written down.
    pub(crate) fn knows(&mut self, records: Vec<RoundRecord>) {
        self.progress.resumed(records.len() as u64);
        self.records = records;
    }

    /// Goes on after rounds that an earlier process has run.
    ///
    /// # Errors
    /// [`Failure::Other`] when they cannot be written down.
    pub(crate) fn go_on_after(&mut self, records: Vec<RoundRecord>) -> Result<(), Failure> {
        if let Some(results) = &mut self.results {
            records.iter().try_for_each(|record| results.add_round(record))?;
        }
        self.records = records;
        Ok(())
    }

    /// The last round that ended.
    pub(crate) fn last(&self) -> Option<&RoundRecord> {
        self.records.last()
    }

    /// Clients have come, before the first round.
    pub(crate) fn connected(&self, connected: usize, wanted: usize) {
        self.progress.connected(connected, wanted);
    }

    /// A round has begun.
    pub(crate) fn opened(&mut self, round: Round, invited: u32) {
        self.pace.opened();
        self.progress.opened(round, invited);
    }

    /// A round has so many updates.
    pub(crate) fn committed(&mut self, round: Round, updates: u32) {
        self.progress.committed(round, updates);
    }

    /// A round has ended.
    pub(crate) fn closed(&mut self, record: RoundRecord) {
        self.pace.closed(&record);
        self.progress.closed(&record);
        if let Some(Err(failure)) = self.results.as_mut().map(|results| results.add_round(&record)) {
            interrupt::end();
            self.failure.get_or_insert(failure);
        }
        self.records.push(record);
    }

    /// No further round comes.
    ///
    /// # Errors
    /// The first [`Failure`] to write a round down.
    pub(crate) fn finish(self) -> Result<Recorded, Failure> {
        self.progress.finish();
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(Recorded { records: self.records, pace: self.pace.ended(), results: self.results }),
        }
    }
}

impl Observer for Recorder {
    fn clients_connected(&mut self, connected: usize, wanted: usize) {
        Recorder::connected(self, connected, wanted);
    }

    fn round_opened(&mut self, plan: &Plan, invited: u32) {
        self.opened(plan.round, invited);
    }

    fn update_committed(&mut self, round: Round, updates: u32) {
        self.committed(round, updates);
    }

    fn round_closed(&mut self, record: &RoundRecord, _model: &Arc<Vec<f32>>) {
        self.closed(record.clone());
    }
}

/// How fast a run was, in real time.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    started: Instant,
    opened: Option<Instant>,
    first_closed: Option<Instant>,
    ended: Instant,
    /// Of each round that released a model, in seconds.
    releasing: Vec<f64>,
    /// Of all rounds, in seconds.
    rounds: f64,
    updates: u64,
}

impl Pace {
    fn new(started: Instant) -> Self {
        Pace {
            started,
            opened: None,
            first_closed: None,
            ended: started,
            releasing: Vec::new(),
            rounds: 0.0,
            updates: 0,
        }
    }

    fn opened(&mut self) {
        self.opened = Some(Instant::now());
    }

    fn closed(&mut self, record: &RoundRecord) {
        let now = Instant::now();
        self.first_closed.get_or_insert(now);
        let Some(opened) = self.opened.take() else { return };
        let seconds = now.duration_since(opened).as_secs_f64();
        self.rounds += seconds;
        self.updates += u64::from(record.updates);
        if record.outcome != OutcomeKind::Aborted {
            self.releasing.push(seconds);
        }
    }

    fn ended(mut self) -> Self {
        self.ended = Instant::now();
        self
    }

    /// From the start of the command to the end of the last round.
    pub(crate) fn seconds_total(&self) -> f64 {
        self.ended.duration_since(self.started).as_secs_f64()
    }

    /// From the start of the command to the end of the first round.
    pub(crate) fn seconds_to_first_round(&self) -> Option<f64> {
        self.first_closed.map(|first| first.duration_since(self.started).as_secs_f64())
    }

    /// The median over the rounds that released a model; the mean of the two in the middle of an even number.
    pub(crate) fn seconds_per_round_median(&self) -> Option<f64> {
        let mut sorted = self.releasing.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
        Some((sorted[low] + sorted[high]) / 2.0)
    }

    /// Updates in all sums, per second of the rounds.
    pub(crate) fn updates_per_second(&self) -> Option<f64> {
        (self.rounds > 0.0).then(|| self.updates as f64 / self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(releasing: &[f64]) -> Pace {
        Pace { releasing: releasing.to_vec(), ..Pace::new(Instant::now()) }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(pace(&[]).seconds_per_round_median(), None);
        assert_eq!(pace(&[3.0]).seconds_per_round_median(), Some(3.0));
        assert_eq!(pace(&[5.0, 1.0]).seconds_per_round_median(), Some(3.0));
        assert_eq!(pace(&[5.0, 1.0, 2.0]).seconds_per_round_median(), Some(2.0));
    }
}
