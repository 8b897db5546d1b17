//! When a run ends although rounds are left: its model has not become better for long.

use skep_protocol::experiment::Metric;
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
            // Measured, but without a value: R² where all numbers are the same.
            None if record.value(Metric::Loss).is_some() && !self.stop.metric.is_of_clients() => {
                self.waited += 1
            }
            None => {}
        }
    }

    /// Whether it has measured as often in vain as it is patient.
    pub fn is_over(&self) -> bool {
        self.waited >= self.stop.patience
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn round(loss: Option<f64>, r_squared: Option<f64>) -> RoundRecord {
        let record = json!({
            "round": 1, "outcome": "complete", "detail": "", "invited": 1, "updates": 1, "accuracy": null, "loss": loss,
            "r_squared": r_squared, "epsilon_release": null, "epsilon_server": null, "epsilon_server_absent": null,
            "epsilon_alone": null, "epsilon_release_if_continuous": null, "epsilon_server_if_continuous": null,
            "delta": null, "seconds": 1.0, "bytes_up": 0, "bytes_down": 0, "refusals": {}, "declines": {},
            "model_sha256": "",
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_measured_round_without_a_value_is_waited_in_vain() {
        let stop = Stop { patience: 2, min_delta: 0.0, metric: Metric::RSquared };
        let over = |rounds: &[RoundRecord]| Patience::after(stop, rounds).is_over();
        let (unmeasured, flat) = (round(None, None), round(Some(1.0), None));
        assert!(!over(&[flat.clone(), unmeasured.clone()]));
        assert!(over(&[flat.clone(), unmeasured.clone(), flat.clone()]));
        assert!(!over(&[flat.clone(), round(Some(1.0), Some(0.5)), flat.clone()]));
        let of_clients = Stop { metric: Metric::ClientAccuracy, ..stop };
        assert!(!Patience::after(of_clients, &[flat.clone(), flat]).is_over(), "clients were not asked");
    }
}
