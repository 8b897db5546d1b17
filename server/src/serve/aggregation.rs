//! The one thread that owns the federation: planning, the sum, releases and evaluations, in the order they were asked
//! for. Everything with a vector of model length in it happens here or where uploads are staged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use skep_protocol::masked;
use skep_protocol::message::TurnAway;
use skep_protocol::net::frame::Bytes;
use skep_protocol::net::keys::PublicKey;
use skep_protocol::net::tls::PeerIdentity;
use skep_protocol::round::{AbortReason, Outcome, Phase, Progress, Refusal};
use skep_protocol::{ClientId, Round};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::driver::Staged;
use crate::authority::Authority;
use crate::enrolment::{Enrolment, Revocations};
use crate::evaluate::{Evaluation, Evaluator};
use crate::federation::{Federation, PlannedRound, PlanningError, RoundError, RoundSummary};
use crate::journal::{Journal, on_the_wire};
use crate::masking::{Asking, Caller};
use crate::record::{Cost, RoundRecord};
use crate::roster::Roster;
use crate::stage::{StagedUpdate, Stager};

/// What the driver asks for.
pub(super) enum Command {
    /// Plan the query after the last round where there is one, else the next round, unless only a query is wanted; and see who of the
    /// cohort has been shut out.
    Plan { connected: BTreeMap<ClientId, PeerIdentity>, query_only: bool },
    /// Take what a client answers in a phase of a masked round.
    Answer { caller: Box<Caller>, round: Round, phase: Phase, body: Vec<u8> },
    /// Make what clients are asked in a phase, of what was answered in the one before.
    Ask { to: Vec<ClientId>, round: Round, phase: Phase },
    /// Add a client's update to the sum.
    Commit(ClientId, Staged),
    /// Release the sum.
    Release(Round),
    /// End the round, measure the model, and write the round down.
    Close(Ending),
}

/// How a round ended.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    /// What became of each invited client.
    pub(super) progress: Vec<(ClientId, Progress)>,
    pub(super) cost: Cost,
}

/// What has been done.
pub(super) enum Done {
    /// A round is planned, or none.
    Planned(Result<Planned, PlanningError>),
    /// An answer is good, or not.
    Answered { client: ClientId, round: Round, phase: Phase, result: Result<(), Refusal> },
    /// What is asked of each client, or why nobody can be.
    Asked { round: Round, phase: Phase, result: Result<Asking, AbortReason> },
    /// A sum was released, or not, without those whose group could not be unmasked.
    Released { round: Round, result: Result<(), AbortReason>, lost: Vec<ClientId> },
    /// A round has ended.
    Closed(Result<Box<Closing>, RoundError>),
}

/// A planned round and what its clients will be sent.
pub(super) struct Planned {
    pub(super) round: PlannedRound,
    /// The model as little-endian f32.
    pub(super) model: Bytes,
    /// What tests its uploads.
    pub(super) stager: Stager,
    /// Connected clients of the cohort whose certificate no longer lets them in, and why.
    pub(super) shut_out: Vec<(PeerIdentity, TurnAway)>,
    /// Clients of the cohort that are revoked.
    pub(super) revoked: Vec<ClientId>,
}

/// A round that has ended, and the model after it.
pub(super) struct Closing {
    /// The round, or the query after one.
    pub(super) round: Round,
    /// Of the round; of a query, that of the round before it, with what was said.
    pub(super) record: RoundRecord,
    pub(super) progress: Vec<(ClientId, Progress)>,
    pub(super) model: Arc<Vec<f32>>,
    /// Whether clients are asked about this model before the next round.
    pub(super) asks: bool,
}

/// The federation and what is asked along with it.
pub(super) struct Aggregation {
    pub(super) federation: Federation,
    pub(super) roster: Arc<dyn Roster + Send + Sync>,
    pub(super) evaluator: Option<Box<dyn Evaluator>>,
    pub(super) authority: Arc<Authority>,
    pub(super) enrolment: Enrolment,
    pub(super) revoked: BTreeSet<ClientId>,
    pub(super) revocations: Revocations,
    pub(super) journal: Option<Journal>,
    /// The record of the last round, to which the answers of the query after it belong.
    pub(super) last: Option<RoundRecord>,
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
                Command::Plan { connected, query_only } => Done::Planned(self.plan(&connected, query_only)),
                Command::Answer { mut caller, round, phase, body } => {
                    let client = caller.client;
                    let result = self.introduce(&mut caller, phase);
                    let result = result.and_then(|()| self.answer(&caller, phase, &body));
                    Done::Answered { client, round, phase, result }
                }
                Command::Ask { to, round, phase } => {
                    Done::Asked { round, phase, result: self.ask(phase, &to) }
                }
                Command::Commit(client, staged) => {
                    self.commit(client, &staged);
                    continue;
                }
                Command::Release(round) => {
                    let result = self.release(round);
                    Done::Released { round, result, lost: self.federation.lost().to_vec() }
                }
                Command::Close(ending) => Done::Closed(self.close(ending).map(Box::new)),
            };
            if done.blocking_send(answer).is_err() {
                break;
            }
        }
        self.federation
    }

    fn plan(
        &mut self,
        connected: &BTreeMap<ClientId, PeerIdentity>,
        query_only: bool,
    ) -> Result<Planned, PlanningError> {
        self.refuse_a_hopeless_round()?;
        // Within a round there is one roster.
        self.authority.refresh();
        let query = if self.federation.asks() { self.federation.plan_query(&*self.roster)? } else { None };
        let round = match query {
            Some(query) => query,
            None if query_only => {
                return Err(PlanningError::Finished { rounds: self.federation.round().0 });
            }
            None => self.federation.plan(&*self.roster)?,
        };
        if let Some(journal) = &mut self.journal {
            journal.open_round(round.plan.plan().round, round.invited())?;
        }
        self.incomplete = false;
        if round.plan.plan().masking().is_some() {
            // Clients refuse a cohort that is too small for them; the experiment has been validated.
            let groups = masked::groups(&round.plan).map_err(PlanningError::Masking)?;
            self.federation.mask(&groups).map_err(PlanningError::Round)?;
        }
        let present = round.cohort.iter().filter_map(|client| connected.get(client));
        let shut_out = present.filter_map(|identity| Some((identity.clone(), self.shuts_out(identity)?)));
        Ok(Planned {
            shut_out: shut_out.collect(),
            revoked: round.cohort.intersection(&self.revoked).copied().collect(),
            model: on_the_wire(&match round.plan.plan().round.is_query() {
                true => self.federation.model(),
                false => self.federation.base_model(),
            })
            .into(),
            stager: self.federation.stager(),
            round,
        })
    }

    /// Without this a server whose clients are revoked would open and abort one round after the other, each charged.
    fn refuse_a_hopeless_round(&mut self) -> Result<(), PlanningError> {
        match self.revocations.fresh() {
            Ok(new) => self.revoked.extend(new),
            Err(error) => warn!(%error, "revocations are not seen"),
        }
        let left = self.roster.without(&self.revoked);
        let required = self.federation.experiment().rounds.min_updates;
        if left < u64::from(required) {
            return Err(PlanningError::TooFewLeft { left, required });
        }
        Ok(())
    }

    fn shuts_out(&self, identity: &PeerIdentity) -> Option<TurnAway> {
        let error = self.enrolment.check(identity, SystemTime::now()).err()?;
        warn!(client = %identity.client, %error, "shut out");
        Some(error.turn_away())
    }

    /// Sees to it that peers are shown what they believe. Whom they would not believe is not shown, or nobody would go on.
    fn introduce(&self, caller: &mut Caller, phase: Phase) -> Result<(), Refusal> {
        if phase == Phase::Keys {
            let (client, key) = (caller.client, PublicKey(caller.identity));
            let certificate = std::mem::take(&mut caller.certificate);
            let shown = self.authority.introduction(client, key, certificate);
            caller.certificate = shown.ok_or_else(|| {
                warn!(%client, "not in the roster that the round goes by, with this key; it can take part in a later one");
                Refusal::NotInvited
            })?;
        }
        Ok(())
    }

    fn answer(&mut self, caller: &Caller, phase: Phase, body: &[u8]) -> Result<(), Refusal> {
        self.federation.masked().ok_or(Refusal::NoRound)?.answer(caller, phase, body)
    }

    fn ask(&mut self, phase: Phase, to: &[ClientId]) -> Result<Asking, AbortReason> {
        self.federation.ask(phase, to)
    }

    fn commit(&mut self, client: ClientId, staged: &Staged) {
        let committed = match &staged.update {
            StagedUpdate::Plain(update) => self.federation.commit(update),
            StagedUpdate::Masked(packed) => self.federation.commit_masked(client, packed),
        };
        if let Err(error) = committed {
            error!(%error, "an update that was promised a place is not in the sum; the round will not be released");
            self.incomplete = true;
        }
    }

    fn release(&mut self, round: Round) -> Result<(), AbortReason> {
        if self.incomplete {
            return Err(AbortReason::ReleaseFailed);
        }
        self.try_release(round).map_err(|error| {
            error!(%round, %error, "the release failed");
            error.abort_reason()
        })
    }

    fn try_release(&mut self, round: Round) -> Result<(), RoundError> {
        self.federation.release()?;
        if let (Some(journal), Some(released)) = (&mut self.journal, self.federation.released()) {
            journal.release(round, &released)?;
        }
        if let (Some(journal), Some((answers, ledger))) = (&mut self.journal, self.federation.answered()) {
            journal.answer(round, answers, &ledger)?;
        }
        Ok(())
    }

    fn close(&mut self, ending: Ending) -> Result<Closing, RoundError> {
        let Ending { outcome, progress, cost } = ending;
        let summary = self.federation.close(outcome)?;
        let (round, model) = (summary.round, self.federation.model());
        if round.is_query() {
            let record = self.answered(&summary, &progress, cost)?;
            return Ok(Closing { round, record, progress, model, asks: false });
        }
        let record = RoundRecord::new(&summary, &progress, self.evaluate(&model), cost);
        if let Some(journal) = &mut self.journal {
            journal.close(&record)?;
        }
        let asks = self.federation.asks();
        self.last = Some(record.clone());
        Ok(Closing { round, record, progress, model, asks })
    }

    /// The record of the round before a query that has ended, with what was said and is spent by now.
    fn answered(
        &mut self,
        query: &RoundSummary,
        progress: &[(ClientId, Progress)],
        cost: Cost,
    ) -> Result<RoundRecord, RoundError> {
        let record = self.last.take().ok_or(RoundError::OutOfOrder)?.asked(query, progress, cost);
        if let Some(journal) = &mut self.journal {
            journal.asked(&record)?;
        }
        Ok(record)
    }

    fn evaluate(&mut self, model: &[f32]) -> Option<Evaluation> {
        let (experiment, round) = (self.federation.experiment(), self.federation.round());
        if !experiment.evaluation.is_due(round.0, experiment.rounds.count) {
            return None;
        }
        let evaluated = self.evaluator.as_mut()?.evaluate(model);
        if let Err(error) = &evaluated {
            warn!(%error, "the model could not be evaluated");
        }
        evaluated.ok()
    }
}
