//! The server's side of a round.

mod interface;
mod open_round;
mod phases;
mod uploads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub use interface::{Action, Event, Job, Limits, OpenError};

use super::{AbortReason, Assignment, Decline, Outcome, Phase, Progress, Refusal, Turnout};
use crate::ids::{ChannelBinding, ClientId, Digest, Round};
use crate::message::ServerMessage;
use crate::plan::VerifiedPlan;
use crate::time::Time;
use open_round::OpenRound;

/// The server's machine: who is connected, and at most one open round.
#[derive(Debug)]
pub struct ServerMachine {
    limits: Limits,
    sessions: BTreeMap<ClientId, ChannelBinding>,
    last_round: Option<Round>,
    round: Option<OpenRound>,
    actions: VecDeque<Action>,
}

impl ServerMachine {
    /// A machine without clients and without a round.
    pub fn new(limits: Limits) -> Self {
        ServerMachine {
            limits,
            sessions: BTreeMap::new(),
            last_round: None,
            round: None,
            actions: VecDeque::new(),
        }
    }

    /// The open round, if there is one.
    pub fn open_round(&self) -> Option<Round> {
        self.round.as_ref().map(OpenRound::id)
    }

    /// What the server does in the open round.
    pub fn phase(&self) -> Option<Phase> {
        self.round.as_ref().map(OpenRound::phase)
    }

    /// How many have answered in the open round's phase.
    pub fn turnout(&self) -> Option<Turnout> {
        self.round.as_ref().map(|round| round.collection.turnout(round.open))
    }

    /// One client's part in the open round.
    pub fn assignment(&self, client: ClientId) -> Option<&Assignment> {
        self.round.as_ref()?.assignments.get(&client)
    }

    /// How many clients are connected.
    pub fn connected(&self) -> usize {
        self.sessions.len()
    }

    /// When to come back with [`Event::Tick`]; `None` while only an event can change anything.
    pub fn next_deadline(&self) -> Option<Time> {
        self.round.as_ref().map(OpenRound::next_deadline)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Opens a round and invites the cohort; whoever connects later is invited then.
    ///
    /// # Errors
    /// [`OpenError`], and nothing has changed.
    pub fn open(
        &mut self,
        now: Time,
        plan: Arc<VerifiedPlan>,
        cohort: &BTreeSet<ClientId>,
    ) -> Result<(), OpenError> {
        let asked = plan.plan().round;
        if let Some(open) = &self.round {
            return Err(OpenError::Busy(open.id()));
        }
        if let Some(last) = self.last_round.filter(|&last| asked <= last) {
            return Err(OpenError::NotAfter { asked, last });
        }
        if cohort.len() > plan.plan().cohort_max as usize {
            return Err(OpenError::CohortTooLarge { invited: cohort.len(), limit: plan.plan().cohort_max });
        }
        self.last_round = Some(asked);
        let to: Vec<_> = cohort.iter().copied().filter(|client| self.sessions.contains_key(client)).collect();
        if !to.is_empty() {
            self.act(Action::Send { to, message: ServerMessage::Invite(plan.signed().clone()) });
        }
        self.round = Some(OpenRound::new(now, plan, cohort));
        self.settle(now);
        Ok(())
    }

    /// Ends the open round without a release.
    pub fn stop(&mut self) {
        if self.round.is_some() {
            self.close(Outcome::Aborted(AbortReason::Stopped));
        }
    }

    /// Takes one event. Deadlines that lie before it are enforced first.
    pub fn handle(&mut self, now: Time, event: Event) {
        self.enforce_deadlines(now);
        match event {
            Event::Connected { client, channel_binding } => self.connected_anew(client, channel_binding),
            Event::Disconnected { client, channel_binding } => {
                self.disconnected(now, client, channel_binding)
            }
            Event::Accepted { client, round, plan } => self.accepted(client, round, plan),
            Event::Declined { client, round, reason } => self.declined(client, round, reason),
            Event::Answered { client, round, phase } => self.answered(client, round, phase),
            Event::PhaseFailed { round, reason } => self.phase_failed(round, reason),
            Event::GroupLost { round, clients } => self.group_lost(round, &clients),
            Event::UploadOffered { client, round, len, digest } => self.offered(client, round, len, digest),
            Event::UploadStaged { client, round } => self.staged(client, round),
            Event::UploadFailed { client, round, reason } => self.failed(client, round, reason),
            Event::Violated { client, reason } => self.violated(client, reason),
            Event::ShutOut { client } => self.shut_out(client),
            Event::JobDone { job: Job::Release { round }, result } => self.released(round, result),
            Event::Tick => {}
        }
        self.grant_waiting(now);
        self.settle(now);
    }

    // ---- connections ----

    fn connected_anew(&mut self, client: ClientId, channel_binding: ChannelBinding) {
        if let Some(earlier) = self.sessions.insert(client, channel_binding)
            && earlier != channel_binding
        {
            self.act(Action::Disconnect { client, channel_binding: earlier });
        }
        let Some(round) = &mut self.round else { return };
        let id = round.id();
        let Some(assignment) = round.assignments.get_mut(&client) else { return };
        assignment.reconnect_by = None;
        let progress = assignment.progress;
        let (owes, phase) = (round.collection.owes(client), round.phase());
        let asked = round.is_asked(client);
        // Whoever is still needed says its last answer again when it is invited again.
        if owes || progress.is_open() {
            let invitation = ServerMessage::Invite(round.plan.signed().clone());
            self.tell(client, invitation);
        }
        match progress {
            Progress::Committed => self.tell(client, ServerMessage::Committed { round: id }),
            Progress::Refused(reason) => self.refuse(client, Some(id), reason),
            _ => {}
        }
        if asked {
            self.act(Action::Ask { to: vec![client], round: id, phase });
        }
    }

    fn disconnected(&mut self, now: Time, client: ClientId, channel_binding: ChannelBinding) {
        if self.sessions.get(&client) != Some(&channel_binding) {
            return;
        }
        self.sessions.remove(&client);
        let Some(round) = &mut self.round else { return };
        let until = (now + round.timing.reconnect).min(round.timing.end_of(Phase::Reveal));
        let masked = round.plan.plan().masking().is_some();
        let needed = |assignment: &&mut Assignment| {
            assignment.progress.is_open() || (masked && assignment.progress == Progress::Committed)
        };
        if let Some(assignment) = round.assignments.get_mut(&client).filter(needed) {
            assignment.reconnect_by = Some(until);
            round.timers.insert((until, client));
        }
    }

    fn violated(&mut self, client: ClientId, reason: Refusal) {
        let Some(&channel_binding) = self.sessions.get(&client) else { return };
        self.drop_out(client, reason);
        self.act(Action::Disconnect { client, channel_binding });
    }

    fn shut_out(&mut self, client: ClientId) {
        self.sessions.remove(&client);
        self.finish(client, Progress::Refused(Refusal::Revoked));
        if let Some(round) = &mut self.round {
            round.collection.excuse(client);
        }
    }

    // ---- what clients say ----

    fn accepted(&mut self, client: ClientId, round: Round, plan: Digest) {
        match self.open_assignment(client, round) {
            Err(reason) => self.refuse(client, Some(round), reason),
            Ok(assignment) if assignment.plan.digest() != plan => {
                self.refuse(client, Some(round), Refusal::WrongPlan);
            }
            Ok(assignment) => match assignment.progress {
                // A second acceptance is that of a client whose connection was lost before the model came.
                Progress::Invited | Progress::Accepted => {
                    assignment.progress = Progress::Accepted;
                    let model = assignment.base_model;
                    self.act(Action::SendModel { to: client, round, model });
                }
                _ => self.refuse(client, Some(round), Refusal::Duplicate),
            },
        }
    }

    fn declined(&mut self, client: ClientId, round: Round, reason: Decline) {
        if self.open_round() == Some(round) && self.owes(client) {
            return self.withhold(client, reason);
        }
        match self.open_assignment(client, round) {
            Err(reason) => self.refuse(client, Some(round), reason),
            Ok(_) => self.finish(client, Progress::Declined(reason)),
        }
    }

    // ---- time ----

    fn enforce_deadlines(&mut self, now: Time) {
        let Some(round) = &mut self.round else { return };
        for (client, reason) in round.overdue(now) {
            self.drop_out(client, reason);
        }
        self.settle(now);
        // Several phases may have ended while nobody looked.
        while let Some(round) = &self.round
            && now >= round.timing.end_of(round.phase())
        {
            self.end_phase(now);
        }
    }

    // ---- endings ----

    fn close(&mut self, outcome: Outcome) {
        let Some(round) = self.round.take() else { return };
        let id = round.id();
        for assignment in round.assignments.values() {
            if let Progress::Granted { .. } = assignment.progress {
                self.act(Action::Discard { client: assignment.client, round: id });
            }
        }
        let to: Vec<_> =
            round.assignments.keys().copied().filter(|client| self.sessions.contains_key(client)).collect();
        if !to.is_empty() {
            self.act(Action::Send {
                to,
                message: ServerMessage::Closed { round: id, released: outcome.is_released() },
            });
        }
        let progress = round.assignments.values().map(|a| (a.client, a.progress)).collect();
        self.act(Action::Closed { round: id, outcome, progress });
    }

    /// A client is out of the round, or of what is still asked of it, and is told so.
    fn drop_out(&mut self, client: ClientId, reason: Refusal) {
        self.finish(client, Progress::Refused(reason));
        if let Some(round) = &mut self.round {
            round.collection.excuse(client);
        }
        let round = self.open_round();
        self.refuse(client, round, reason);
    }

    /// A client's part has come to its end, unless it had before.
    fn finish(&mut self, client: ClientId, progress: Progress) {
        let Some(round) = &mut self.round else { return };
        let id = round.id();
        let Some(assignment) = round.assignments.get_mut(&client).filter(|a| a.progress.is_open()) else {
            return;
        };
        let before = std::mem::replace(&mut assignment.progress, progress);
        round.open -= 1;
        if progress != Progress::Committed {
            round.collection.forget(client);
        }
        if let Progress::Granted { len, .. } = before {
            round.granted_bytes -= len;
            if progress != Progress::Committed {
                self.act(Action::Discard { client, round: id });
            }
        }
    }

    // ---- small things ----

    /// The client's assignment, if what it says about `round` may still count.
    fn open_assignment(&mut self, client: ClientId, round: Round) -> Result<&mut Assignment, Refusal> {
        let open = self.round.as_mut().ok_or(Refusal::NoRound)?;
        if open.id() != round {
            return Err(Refusal::WrongRound);
        }
        let phase = open.phase();
        let assignment = open.assignments.get_mut(&client).ok_or(Refusal::NotInvited)?;
        match assignment.progress {
            Progress::Committed | Progress::Declined(_) | Progress::Withheld(_) => Err(Refusal::Duplicate),
            Progress::Refused(reason) => Err(reason),
            _ if phase > Phase::Collecting => Err(Refusal::Late),
            _ => Ok(assignment),
        }
    }

    fn owes(&self, client: ClientId) -> bool {
        self.round.as_ref().is_some_and(|round| round.collection.owes(client))
    }

    fn refuse(&mut self, client: ClientId, round: Option<Round>, reason: Refusal) {
        self.tell(client, ServerMessage::Refused { round, reason });
    }

    fn tell(&mut self, client: ClientId, message: ServerMessage) {
        if self.sessions.contains_key(&client) {
            self.act(Action::Send { to: vec![client], message });
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}
