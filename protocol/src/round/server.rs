//! The server's side of a round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use thiserror::Error;

use super::{AbortReason, Assignment, Collection, Decline, Outcome, Phase, Plain, Progress, Refusal, Timing};
use crate::ids::{ChannelBinding, ClientId, Digest, Round};
use crate::message::ServerMessage;
use crate::plan::VerifiedPlan;
use crate::time::Time;

/// What bounds a server's memory and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of uploads granted at once; one upload is always granted, whatever its size.
    pub upload_memory_bytes: u64,
    /// The slowest upload that is waited for, in bytes per second.
    pub min_upload_bytes_per_s: u64,
}

/// What happens to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client's connection is authenticated. It replaces an earlier one of the same client.
    Connected {
        /// Who, by its certificate.
        client: ClientId,
        /// This connection.
        channel_binding: ChannelBinding,
    },
    /// A connection is gone. Ignored unless it is the client's latest.
    Disconnected {
        /// Who.
        client: ClientId,
        /// Which connection.
        channel_binding: ChannelBinding,
    },
    /// A client accepts a plan.
    Accepted {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// The plan that it names.
        plan: Digest,
    },
    /// A client does not take part.
    Declined {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// Why.
        reason: Decline,
    },
    /// A client offers an update, and its signature holds.
    UploadOffered {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
    },
    /// A granted upload is there as a whole, has its digest, its coordinates are in range and its norm holds.
    UploadStaged {
        /// Whose.
        client: ClientId,
        /// The round it was granted in.
        round: Round,
    },
    /// A granted upload is there and is refused.
    UploadFailed {
        /// Whose.
        client: ClientId,
        /// The round it was granted in.
        round: Round,
        /// Why.
        reason: Refusal,
    },
    /// A client sent what is no message at all, or a message whose signature does not hold.
    Violated {
        /// Who.
        client: ClientId,
        /// Why it is refused.
        reason: Refusal,
    },
    /// A client has been shut out of the federation; the driver closes its connection.
    ShutOut {
        /// Who.
        client: ClientId,
    },
    /// A job has ended.
    JobDone {
        /// Which.
        job: Job,
        /// Whether it did what it was asked to.
        succeeded: bool,
    },
    /// Time has passed.
    Tick,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message to all of these clients.
    Send {
        /// To whom, in order of their ids.
        to: Vec<ClientId>,
        /// What.
        message: ServerMessage,
    },
    /// Send the open round's base model.
    SendModel {
        /// To whom.
        to: ClientId,
        /// The round.
        round: Round,
        /// The model.
        model: Digest,
    },
    /// Make room for an upload and tell the client from which offset to send: zero, or where it was cut off. Once a
    /// connection.
    GrantUpload {
        /// To whom.
        client: ClientId,
        /// The round.
        round: Round,
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
        /// Until when.
        until: Time,
    },
    /// Add the staged upload to the sum.
    Commit {
        /// Whose.
        client: ClientId,
        /// The round.
        round: Round,
    },
    /// Forget the upload, whole or not.
    Discard {
        /// Whose.
        client: ClientId,
        /// The round.
        round: Round,
    },
    /// Close a connection.
    Disconnect {
        /// Whose.
        client: ClientId,
        /// Which.
        channel_binding: ChannelBinding,
    },
    /// Do heavy work and come back with [`Event::JobDone`].
    Start(Job),
    /// The round is over; drop what is left of it.
    Closed {
        /// The round.
        round: Round,
        /// How it ended.
        outcome: Outcome,
        /// What became of each invited client, in order of their ids.
        progress: Vec<(ClientId, Progress)>,
    },
}

/// Heavy work for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Release the sum of the committed updates: noise, decode, next model, on disk.
    Release {
        /// The round.
        round: Round,
    },
}

/// Why a round cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Another is open.
    #[error("{0} is still open")]
    Busy(Round),
    /// The plan's round is not after the last one.
    #[error("{asked} does not come after {last}")]
    NotAfter {
        /// The plan's round.
        asked: Round,
        /// The last round that was opened.
        last: Round,
    },
    /// The cohort is larger than the plan allows.
    #[error("{invited} clients are invited, the plan allows {limit}")]
    CohortTooLarge {
        /// Clients given.
        invited: usize,
        /// The plan's limit.
        limit: u32,
    },
}

/// The server's machine: who is connected, and at most one open round.
#[derive(Debug)]
pub struct ServerMachine {
    limits: Limits,
    sessions: BTreeMap<ClientId, ChannelBinding>,
    last_round: Option<Round>,
    round: Option<OpenRound>,
    actions: VecDeque<Action>,
}

/// A round between its opening and its outcome.
#[derive(Debug)]
struct OpenRound {
    plan: Arc<VerifiedPlan>,
    timing: Timing,
    phase: Phase,
    assignments: BTreeMap<ClientId, Assignment>,
    collection: Collection,
    /// Assignments that may still come to be in the sum.
    open: usize,
    /// Whether the time to answer has been enforced.
    answers_due: bool,
    /// When to look at a client again; an entry that no longer matters does no harm.
    timers: BTreeSet<(Time, ClientId)>,
    /// Offers in order of arrival, without a grant.
    waiting: VecDeque<ClientId>,
    granted_bytes: u64,
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
        self.round.as_ref().map(|round| round.phase)
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
        self.settle();
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
            Event::UploadOffered { client, round, len, digest } => self.offered(client, round, len, digest),
            Event::UploadStaged { client, round } => self.staged(client, round),
            Event::UploadFailed { client, round, reason } => self.failed(client, round, reason),
            Event::Violated { client, reason } => self.violated(client, reason),
            Event::ShutOut { client } => self.shut_out(client),
            Event::JobDone { job: Job::Release { round }, succeeded } => self.released(round, succeeded),
            Event::Tick => {}
        }
        self.grant_waiting(now);
        self.settle();
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
        let message = match assignment.progress {
            Progress::Committed => ServerMessage::Committed { round: id },
            Progress::Refused(reason) => ServerMessage::Refused { round: Some(id), reason },
            Progress::Declined(_) => return,
            _ => ServerMessage::Invite(round.plan.signed().clone()),
        };
        self.act(Action::Send { to: vec![client], message });
    }

    fn disconnected(&mut self, now: Time, client: ClientId, channel_binding: ChannelBinding) {
        if self.sessions.get(&client) != Some(&channel_binding) {
            return;
        }
        self.sessions.remove(&client);
        let Some(round) = &mut self.round else { return };
        let until = (now + round.timing.reconnect).min(round.timing.collect_by);
        if let Some(assignment) = round.assignments.get_mut(&client).filter(|a| a.progress.is_open()) {
            assignment.reconnect_by = Some(until);
            round.timers.insert((until, client));
        }
    }

    fn violated(&mut self, client: ClientId, reason: Refusal) {
        let Some(&channel_binding) = self.sessions.get(&client) else { return };
        if self.assignment(client).is_some_and(|assignment| assignment.progress.is_open()) {
            self.end(client, reason);
        } else {
            self.refuse(client, self.open_round(), reason);
        }
        self.act(Action::Disconnect { client, channel_binding });
    }

    fn shut_out(&mut self, client: ClientId) {
        self.sessions.remove(&client);
        self.finish(client, Progress::Refused(Refusal::Revoked));
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
        match self.open_assignment(client, round) {
            Err(reason) => self.refuse(client, Some(round), reason),
            Ok(_) => self.finish(client, Progress::Declined(reason)),
        }
    }

    fn offered(&mut self, client: ClientId, round: Round, len: u64, digest: Digest) {
        let session = self.sessions.get(&client).copied();
        let assignment = match self.open_assignment(client, round) {
            Err(reason) => return self.refuse(client, Some(round), reason),
            Ok(assignment) => assignment,
        };
        match assignment.progress {
            Progress::Accepted if len != assignment.plan.plan().upload_bytes() => {
                self.end(client, Refusal::WrongLength);
            }
            Progress::Accepted => {
                assignment.progress = Progress::Offered { len, digest };
                if let Some(round) = &mut self.round {
                    round.waiting.push_back(client);
                }
            }
            // The same offer again is that of a client that has come back: it goes on where it was cut off.
            Progress::Offered { digest: known, .. } if known == digest => {}
            Progress::Granted { digest: known, .. }
                if known == digest && assignment.granted_on == session => {}
            Progress::Granted { len, digest: known, until } if known == digest => {
                assignment.granted_on = session;
                self.act(Action::GrantUpload { client, round, len, digest, until });
            }
            Progress::Invited => self.refuse(client, Some(round), Refusal::Unexpected),
            _ => self.refuse(client, Some(round), Refusal::Duplicate),
        }
    }

    // ---- what the driver found ----

    fn staged(&mut self, client: ClientId, round: Round) {
        if !self.is_granted(client, round) {
            return;
        }
        self.act(Action::Commit { client, round });
        if let Some(plain) = self.round.as_mut().and_then(|open| open.collection.inputs_mut()) {
            plain.members.insert(client);
        }
        self.finish(client, Progress::Committed);
        self.tell(client, ServerMessage::Committed { round });
    }

    fn failed(&mut self, client: ClientId, round: Round, reason: Refusal) {
        if self.is_granted(client, round) {
            self.end(client, reason);
        }
    }

    fn released(&mut self, done: Round, succeeded: bool) {
        let Some(round) = &self.round else { return };
        if round.id() != done || round.phase != Phase::Releasing {
            return;
        }
        let updates = round.collection.updates();
        let invited = u32::try_from(round.assignments.len()).expect("checked against cohort_max");
        self.close(match (succeeded, updates == invited) {
            (false, _) => Outcome::Aborted(AbortReason::ReleaseFailed),
            (true, true) => Outcome::Complete { updates },
            (true, false) => Outcome::Degraded { updates, invited },
        });
    }

    // ---- time ----

    fn enforce_deadlines(&mut self, now: Time) {
        let Some(round) = &mut self.round else { return };
        match round.phase {
            Phase::Collecting => {
                let mut overdue = round.overdue(now);
                overdue.sort_unstable();
                for (client, reason) in overdue {
                    self.end(client, reason);
                }
                if self.round.as_ref().is_some_and(|round| now >= round.timing.collect_by) {
                    self.end_collection();
                }
                self.settle();
            }
            Phase::Releasing => {}
        }
        if let Some(round) = &self.round
            && round.phase == Phase::Releasing
            && now >= round.timing.close_by
        {
            self.close(Outcome::Aborted(AbortReason::ReleaseLate));
        }
    }

    fn grant_waiting(&mut self, now: Time) {
        while let Some(action) = self.next_grant(now) {
            self.act(action);
        }
    }

    fn next_grant(&mut self, now: Time) -> Option<Action> {
        let round = self.round.as_mut().filter(|round| round.phase == Phase::Collecting)?;
        loop {
            let place = round.waiting.iter().position(|client| self.sessions.contains_key(client))?;
            let client = round.waiting[place];
            let assignment = round.assignments.get_mut(&client)?;
            let Progress::Offered { len, digest } = assignment.progress else {
                // It was ended while it waited.
                round.waiting.remove(place);
                continue;
            };
            let room = self.limits.upload_memory_bytes.saturating_sub(round.granted_bytes);
            if len > room && round.granted_bytes > 0 {
                return None;
            }
            round.waiting.remove(place);
            round.granted_bytes += len;
            let until = round.timing.grant_until(now, len, self.limits.min_upload_bytes_per_s);
            assignment.progress = Progress::Granted { len, digest, until };
            assignment.granted_on = self.sessions.get(&client).copied();
            round.timers.insert((until, client));
            return Some(Action::GrantUpload { client, round: round.id(), len, digest, until });
        }
    }

    // ---- endings ----

    /// Closes the collection when nothing more is waited for.
    fn settle(&mut self) {
        let Some(round) = &self.round else { return };
        let settled = round.collection.inputs().is_some_and(|inputs| inputs.is_settled(round.open));
        if round.phase == Phase::Collecting && settled {
            self.end_collection();
        }
    }

    /// Freezes the members of the sum; uploads in flight are discarded unread.
    fn end_collection(&mut self) {
        let Some(round) = &self.round else { return };
        let open: Vec<_> =
            round.assignments.values().filter(|a| a.progress.is_open()).map(|a| a.client).collect();
        for client in open {
            self.end(client, Refusal::Late);
        }
        let Some(round) = &mut self.round else { return };
        let updates = round.collection.updates();
        let required = round.plan.plan().min_updates;
        if updates < required {
            self.close(Outcome::Aborted(AbortReason::TooFewUpdates { updates, required }));
        } else {
            round.phase = Phase::Releasing;
            let job = Job::Release { round: round.id() };
            self.act(Action::Start(job));
        }
    }

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

    /// A client is out of the round, and is told so.
    fn end(&mut self, client: ClientId, reason: Refusal) {
        self.finish(client, Progress::Refused(reason));
        let round = self.open_round();
        self.refuse(client, round, reason);
    }

    /// A client's part has come to its end.
    fn finish(&mut self, client: ClientId, progress: Progress) {
        let Some(round) = &mut self.round else { return };
        let id = round.id();
        let Some(assignment) = round.assignments.get_mut(&client).filter(|a| a.progress.is_open()) else {
            return;
        };
        let before = std::mem::replace(&mut assignment.progress, progress);
        round.open -= 1;
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
        let phase = open.phase;
        let assignment = open.assignments.get_mut(&client).ok_or(Refusal::NotInvited)?;
        match assignment.progress {
            Progress::Committed | Progress::Declined(_) => Err(Refusal::Duplicate),
            Progress::Refused(reason) => Err(reason),
            _ if phase != Phase::Collecting => Err(Refusal::Late),
            _ => Ok(assignment),
        }
    }

    fn is_granted(&self, client: ClientId, round: Round) -> bool {
        self.open_round() == Some(round)
            && self.assignment(client).is_some_and(|a| matches!(a.progress, Progress::Granted { .. }))
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

impl OpenRound {
    fn new(now: Time, plan: Arc<VerifiedPlan>, cohort: &BTreeSet<ClientId>) -> Self {
        let timing = Timing::new(now, plan.plan().deadline);
        let assign = |&client: &ClientId| {
            let assignment = Assignment {
                client,
                base_model: plan.plan().base_model,
                plan: plan.clone(),
                expires: timing.collect_by,
                progress: Progress::Invited,
                reconnect_by: None,
                granted_on: None,
            };
            (client, assignment)
        };
        OpenRound {
            timing,
            phase: Phase::Collecting,
            assignments: cohort.iter().map(assign).collect(),
            collection: Collection::Plain(Plain {
                closure: plan.plan().closure,
                min_updates: plan.plan().min_updates,
                members: BTreeSet::new(),
            }),
            open: cohort.len(),
            answers_due: true,
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            granted_bytes: 0,
            plan,
        }
    }

    fn id(&self) -> Round {
        self.plan.plan().round
    }

    fn next_deadline(&self) -> Time {
        match self.phase {
            Phase::Releasing => self.timing.close_by,
            Phase::Collecting => {
                let answer = if self.answers_due { self.timing.answer_by } else { self.timing.collect_by };
                let timer = self.timers.first().map_or(self.timing.collect_by, |&(time, _)| time);
                answer.min(timer).min(self.timing.collect_by)
            }
        }
    }

    /// Clients whose time is up, each with the reason. Their timers are spent.
    fn overdue(&mut self, now: Time) -> Vec<(ClientId, Refusal)> {
        let mut overdue = Vec::new();
        while let Some(&(time, client)) = self.timers.first().filter(|(time, _)| *time <= now) {
            self.timers.remove(&(time, client));
            let Some(assignment) = self.assignments.get(&client) else { continue };
            match assignment.progress {
                Progress::Granted { until, .. } if until <= now => {
                    overdue.push((client, Refusal::GrantExpired))
                }
                progress if progress.is_open() && assignment.reconnect_by.is_some_and(|by| by <= now) => {
                    overdue.push((client, Refusal::ConnectionLost));
                }
                _ => {}
            }
        }
        if self.answers_due && now >= self.timing.answer_by {
            self.answers_due = false;
            let silent = self.assignments.values().filter(|a| a.progress == Progress::Invited);
            overdue.extend(silent.map(|a| (a.client, Refusal::NoAnswer)));
        }
        overdue
    }
}
