//! The one thread that owns the federation: planning, the sum, releases and evaluations, in the order they were asked
//! for. Everything with a vector of model length in it happens here or where uploads are staged.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_protocol::net::frame::Bytes;
use skep_protocol::net::tls::PeerIdentity;
use skep_protocol::round::Outcome;
use skep_protocol::{ClientId, Round};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::driver::Staged;
use crate::enrolment::Enrolment;
use crate::evaluate::{Evaluation, Evaluator};
use crate::federation::{Federation, PlannedRound, PlanningError, RoundError, RoundSummary};
use crate::roster::Roster;

/// What the driver asks for.
pub(super) enum Command {
    /// Plan the next round, and see who of the cohort has been shut out.
    Plan { connected: BTreeMap<ClientId, PeerIdentity> },
    /// Add an update to the sum.
    Commit(Staged),
    /// Release the sum.
    Release(Round),
    /// End the round and measure the model.
    Close(Outcome),
}

/// What has been done.
pub(super) enum Done {
    /// A round is planned, or none.
    Planned(Result<Planned, PlanningError>),
    /// A sum was released, or not.
    Released { round: Round, succeeded: bool },
    /// A round has ended.
    Closed(Result<Closing, RoundError>),
}

/// A planned round and what its clients will be sent.
pub(super) struct Planned {
    pub(super) round: PlannedRound,
    /// The model as little-endian f32.
    pub(super) model: Bytes,
    /// Connected clients that are no longer enrolled.
    pub(super) shut_out: Vec<PeerIdentity>,
}

/// A round that has ended, and the model after it.
pub(super) struct Closing {
    pub(super) summary: RoundSummary,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) model: Arc<Vec<f32>>,
}

/// The federation and what is asked along with it.
pub(super) struct Aggregation {
    pub(super) federation: Federation,
    pub(super) roster: Box<dyn Roster + Send>,
    pub(super) evaluator: Option<Box<dyn Evaluator>>,
    pub(super) enrolment: Enrolment,
    /// An update could not be added: the sum is not what clients were told, and is not released.
    pub(super) incomplete: bool,
}

impl Aggregation {
    /// Works until nobody asks any more; blocks its thread.
    pub(super) fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        done: &mpsc::Sender<Done>,
    ) -> Federation {
        while let Some(command) = commands.blocking_recv() {
            let answer = match command {
                Command::Plan { connected } => Done::Planned(self.plan(&connected)),
                Command::Commit(staged) => {
                    self.commit(&staged);
                    continue;
                }
                Command::Release(round) => Done::Released { round, succeeded: self.release(round) },
                Command::Close(outcome) => Done::Closed(self.close(outcome)),
            };
            if done.blocking_send(answer).is_err() {
                break;
            }
        }
        self.federation
    }

    fn plan(&mut self, connected: &BTreeMap<ClientId, PeerIdentity>) -> Result<Planned, PlanningError> {
        let round = self.federation.plan(&*self.roster)?;
        self.incomplete = false;
        let invited = round.cohort.iter().filter_map(|client| connected.get(client));
        let shut_out = invited.filter(|identity| self.is_shut_out(identity)).cloned().collect();
        Ok(Planned { round, model: on_the_wire(&self.federation.model()), shut_out })
    }

    fn is_shut_out(&self, identity: &PeerIdentity) -> bool {
        let refused = self.enrolment.check(identity);
        if let Err(error) = &refused {
            warn!(client = %identity.client, %error, "shut out");
        }
        refused.is_err()
    }

    fn commit(&mut self, staged: &Staged) {
        if let Err(error) = self.federation.commit(&staged.update) {
            error!(%error, "an update that was promised a place is not in the sum; the round will not be released");
            self.incomplete = true;
        }
    }

    fn release(&mut self, round: Round) -> bool {
        if self.incomplete {
            return false;
        }
        let released = self.federation.release();
        if let Err(error) = &released {
            error!(%round, %error, "the release failed");
        }
        released.is_ok()
    }

    fn close(&mut self, outcome: Outcome) -> Result<Closing, RoundError> {
        let summary = self.federation.close(outcome)?;
        let model = self.federation.model();
        let evaluation = self.evaluator.as_mut().and_then(|evaluator| match evaluator.evaluate(&model) {
            Ok(evaluation) => Some(evaluation),
            Err(error) => {
                warn!(round = %summary.round, %error, "the model could not be evaluated");
                None
            }
        });
        Ok(Closing { summary, evaluation, model })
    }
}

fn on_the_wire(model: &[f32]) -> Bytes {
    let mut bytes = Vec::with_capacity(4 * model.len());
    for parameter in model {
        bytes.extend_from_slice(&parameter.to_le_bytes());
    }
    bytes.into()
}
