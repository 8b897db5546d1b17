//! When a run ends although rounds are left: its model has not become better for long.

use skep_protocol::experiment::evaluation::Stop;

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
        Patience { stop, best: stop.metric.better().worst(), waited: 0 }
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
        let better = self.stop.metric.better();
        match record.value(self.stop.metric) {
            Some(value) if better.gain(value, self.best) > self.stop.min_delta => {
                (self.best, self.waited) = (value, 0);
            }
            Some(_) => self.waited += 1,
            None => {}
        }
    }

    /// Whether it has measured as often in vain as it is patient.
    pub fn is_over(&self) -> bool {
        self.waited >= self.stop.patience
    }
}
