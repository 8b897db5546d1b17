//! When a run ends although rounds are left: its model has not become better for long.

use skep_protocol::experiment::evaluation::{Metric, Stop};

use crate::record::{OutcomeKind, RoundRecord};

/// How long a run has waited for a better model.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    stop: Stop,
    best: f64,
    waited: u32,
}

impl Patience {
    /// The patience of a run in which nothing has been measured.
    pub fn new(stop: Stop) -> Self {
        Patience { stop, best: f64::NEG_INFINITY, waited: 0 }
    }

    /// The patience of a run after these rounds.
    pub fn after(stop: Stop, rounds: &[RoundRecord]) -> Self {
        let mut patience = Patience::new(stop);
        rounds.iter().for_each(|record| patience.observe(record));
        patience
    }

    /// A round has ended, and may have been measured; one that was aborted has left the model as it was.
    pub fn observe(&mut self, record: &RoundRecord) {
        if record.outcome == OutcomeKind::Aborted {
            return;
        }
        let value = match self.stop.metric {
            Metric::Accuracy => record.accuracy,
            Metric::Loss => record.loss.map(|loss| -loss),
            Metric::ClientAccuracy => record.client_accuracy.map(|clients| clients.mean),
            Metric::PersonalisedAccuracy => record.personalised_accuracy.map(|clients| clients.mean),
        };
        match value {
            Some(value) if value > self.best + self.stop.min_delta => (self.best, self.waited) = (value, 0),
            Some(_) => self.waited += 1,
            None => {}
        }
    }

    /// Whether it has measured as often in vain as it is patient.
    pub fn is_over(&self) -> bool {
        self.waited >= self.stop.patience
    }
}
