//! A client's side of a round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Decline, Phase, Refusal};
use crate::experiment::Task;
use crate::ids::{Digest, Round};
use crate::message::{ClientMessage, Offer};
use crate::plan::VerifiedPlan;
use crate::time::{Span, Time};

/// What happens to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The connection is gone; the driver brings it back, the server then repeats its invitation.
    Disconnected,
    /// The server invites, and its signature holds.
    Invited(Arc<VerifiedPlan>),
    /// The server invites, its signature holds, and the owner's limits forbid it.
    Unwilling {
        /// The plan.
        plan: Arc<VerifiedPlan>,
        /// Why.
        reason: Decline,
    },
    /// The base model is there and has its digest.
    ModelStaged {
        /// The round.
        round: Round,
    },
    /// What came is not the base model.
    ModelFailed {
        /// The round.
        round: Round,
    },
    /// A job has ended.
    JobDone {
        /// The round.
        round: Round,
        /// What was made, or why the client takes no further part.
        result: Result<Made, Decline>,
    },
    /// The server asks in a phase of a masked round.
    Asked {
        /// The round.
        round: Round,
        /// The phase.
        phase: Phase,
        /// What is asked, all parts together.
        request: Vec<u8>,
    },
    /// The server asks for the update.
    Granted {
        /// The round.
        round: Round,
        /// Bytes that the server has already.
        offset: u64,
        /// How long the grant lives.
        until: Span,
    },
    /// The update is in the sum.
    Committed {
        /// The round.
        round: Round,
    },
    /// The server refuses something.
    Refused {
        /// The round that it names.
        round: Option<Round>,
        /// Why.
        reason: Refusal,
    },
    /// The server says that a round is over.
    Closed {
        /// The round.
        round: Round,
        /// Whether a model was released.
        released: bool,
    },
    /// Time has passed.
    Tick,
}

/// An update as it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes.
    pub len: u64,
    /// Their digest.
    pub digest: Digest,
}

/// What a job makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// An update, packed and, where the plan asks for it, masked.
    Update(Packed),
    /// What is said to the server in a phase of a masked round.
    Answer(Vec<u8>),
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message; the driver fills in what is signed for the connection: an offer, a statement of keys.
    Send(ClientMessage),
    /// Take in the base model, which the server sends.
    FetchModel {
        /// The round.
        round: Round,
        /// Its digest.
        model: Digest,
    },
    /// Do heavy work and come back with [`Event::JobDone`].
    Start(Job),
    /// Send the packed update from this offset on.
    Upload {
        /// The round.
        round: Round,
        /// Where to start.
        offset: u64,
    },
    /// The client's part is over; drop the model and the update.
    Closed {
        /// The round.
        round: Round,
        /// How it ended for this client.
        end: End,
    },
}

/// Heavy work for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Train from the base model, clip and quantise. In a plain round that makes the packed update; in a masked one the
    /// driver keeps the update, and makes keys for it: the answer of [`Phase::Keys`].
    Train(Arc<VerifiedPlan>),
    /// Make what the server asks in a phase of a masked round, or refuse it: in [`Phase::Collecting`] the packed update,
    /// otherwise an answer.
    Answer {
        /// The plan of the round.
        plan: Arc<VerifiedPlan>,
        /// The phase.
        phase: Phase,
        /// What is asked.
        request: Vec<u8>,
    },
}

/// How a client's part in a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Its update is in the sum.
    Committed,
    /// It did not take part.
    Declined(Decline),
    /// The server refused it.
    Refused(Refusal),
    /// The round ended without it.
    Over {
        /// Whether a model was released.
        released: bool,
    },
    /// The server has gone on to a later round.
    Superseded,
    /// The round's deadline passed.
    Expired,
}

/// A client's machine: at most one round at a time, and never the same round twice.
#[derive(Debug)]
pub struct ClientMachine {
    task: Arc<Task>,
    last: Option<Round>,
    part: Option<Part>,
    actions: VecDeque<Action>,
}

/// A client's part in a round.
#[derive(Debug)]
struct Part {
    plan: Arc<VerifiedPlan>,
    expires: Time,
    stage: Stage,
    /// What was asked, by digest: each thing is asked once.
    asked: BTreeMap<Phase, Digest>,
    /// The last answer, to be said again on another connection.
    answer: Option<(Phase, Vec<u8>)>,
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for the base model.
    Fetching,
    /// It trains.
    Training,
    /// It has offered its update.
    Offering(Packed),
    /// It sends its update.
    Uploading(Packed),
    /// In a masked round: it waits to be asked in this phase.
    Waiting(Phase),
    /// In a masked round: it makes what was asked in this phase.
    Working(Phase),
    /// In a masked round: it has said all that it will ever say.
    Finished,
}

impl ClientMachine {
    /// A machine for the task that the server announced.
    pub fn new(task: impl Into<Arc<Task>>) -> Self {
        ClientMachine { task: task.into(), last: None, part: None, actions: VecDeque::new() }
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The round that the client is in, and how far it has come.
    pub fn stage(&self) -> Option<(Round, Stage)> {
        self.part.as_ref().map(|part| (part.round(), part.stage))
    }

    /// Whether the client takes part by this very plan, or has answered for its round.
    pub fn has_seen(&self, plan: &VerifiedPlan) -> bool {
        let is_ours = self.part.as_ref().is_some_and(|part| part.plan.digest() == plan.digest());
        is_ours || self.last.is_some_and(|last| plan.plan().round <= last)
    }

    /// When to come back with [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Time> {
        self.part.as_ref().map(|part| part.expires)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes one event. A deadline that lies before it is enforced first.
    pub fn handle(&mut self, now: Time, event: Event) {
        if self.part.as_ref().is_some_and(|part| now >= part.expires) {
            self.close(End::Expired);
        }
        match event {
            Event::Disconnected => self.disconnected(),
            Event::Invited(plan) => self.invited(now, plan),
            Event::Unwilling { plan, reason } => self.unwilling(plan.plan().round, reason),
            Event::ModelStaged { round } => self.model_staged(round),
            Event::ModelFailed { round } => self.model_failed(round),
            Event::JobDone { round, result } => self.job_done(round, result),
            Event::Asked { round, phase, request } => self.asked(round, phase, request),
            Event::Granted { round, offset, .. } => self.granted(round, offset),
            Event::Committed { round } => self.committed(round),
            Event::Refused { round: Some(round), reason } if reason != Refusal::Duplicate => {
                self.ended(round, End::Refused(reason));
            }
            Event::Refused { .. } => {}
            Event::Closed { round, released } => self.closed(round, released),
            Event::Tick => {}
        }
    }

    fn disconnected(&mut self) {
        if let Some(part) = &mut self.part
            && let Stage::Uploading(packed) = part.stage
        {
            part.stage = Stage::Offering(packed);
        }
    }

    fn invited(&mut self, now: Time, plan: Arc<VerifiedPlan>) {
        let round = plan.plan().round;
        match &self.part {
            Some(part) if part.plan.digest() == plan.digest() => return self.repeat(),
            Some(part) if part.round() < round => self.close(End::Superseded),
            _ => {}
        }
        if self.last.is_some_and(|last| round <= last) {
            return self.send(ClientMessage::Decline { round, reason: Decline::StaleRound });
        }
        self.last = Some(round);
        if let Err(reason) = plan.check(&self.task) {
            self.send(ClientMessage::Decline { round, reason });
            return self.act(Action::Closed { round, end: End::Declined(reason) });
        }
        let digest = plan.digest();
        let model = plan.plan().base_model;
        let expires = now + plan.plan().deadline;
        self.part =
            Some(Part { plan, expires, stage: Stage::Fetching, asked: BTreeMap::new(), answer: None });
        self.act(Action::FetchModel { round, model });
        self.send(ClientMessage::Accept { round, plan: digest });
    }

    fn unwilling(&mut self, round: Round, reason: Decline) {
        if self.last.is_some_and(|last| round <= last) {
            return self.send(ClientMessage::Decline { round, reason });
        }
        if self.part.is_some() {
            self.close(End::Superseded);
        }
        self.last = Some(round);
        self.send(ClientMessage::Decline { round, reason });
        self.act(Action::Closed { round, end: End::Declined(reason) });
    }

    /// Says again what the server may have missed while the connection was lost.
    fn repeat(&mut self) {
        let Some(part) = &self.part else { return };
        let round = part.round();
        match part.stage {
            Stage::Fetching => {
                let (model, plan) = (part.plan.plan().base_model, part.plan.digest());
                self.act(Action::FetchModel { round, model });
                self.send(ClientMessage::Accept { round, plan });
            }
            Stage::Training | Stage::Working(_) => {}
            Stage::Offering(packed) | Stage::Uploading(packed) => self.offer(round, packed),
            Stage::Waiting(_) | Stage::Finished => {
                if let Some((phase, body)) = part.answer.clone() {
                    self.send(ClientMessage::Answered { round, phase, body });
                }
            }
        }
    }

    fn model_staged(&mut self, round: Round) {
        if let Some(part) = self.at(round, |stage| stage == Stage::Fetching) {
            part.stage = Stage::Training;
            let job = Job::Train(part.plan.clone());
            self.act(Action::Start(job));
        }
    }

    fn model_failed(&mut self, round: Round) {
        if self.at(round, |stage| stage == Stage::Fetching).is_some() {
            self.decline(round, Decline::NoModel);
        }
    }

    fn job_done(&mut self, round: Round, result: Result<Made, Decline>) {
        let working = |stage| matches!(stage, Stage::Training | Stage::Working(_));
        let Some(part) = self.at(round, working) else { return };
        let phase = match part.stage {
            Stage::Working(phase) => phase,
            _ if part.is_masked() => Phase::Keys,
            _ => Phase::Collecting,
        };
        match (result, phase) {
            (Err(reason), _) => self.decline(round, reason),
            (Ok(Made::Update(packed)), Phase::Collecting) => self.made_update(round, packed),
            (Ok(Made::Answer(body)), Phase::Keys) => self.answer(round, phase, body, Phase::Shares),
            (Ok(Made::Answer(body)), Phase::Shares) => self.answer(round, phase, body, Phase::Collecting),
            (Ok(Made::Answer(body)), Phase::Consistency) => self.answer(round, phase, body, Phase::Reveal),
            (Ok(Made::Answer(body)), Phase::Reveal) => self.answer(round, phase, body, Phase::Releasing),
            // The result of a job of an earlier stage.
            _ => {}
        }
    }

    fn made_update(&mut self, round: Round, packed: Packed) {
        if let Some(part) = &mut self.part {
            (part.stage, part.answer) = (Stage::Offering(packed), None);
        }
        self.offer(round, packed);
    }

    fn answer(&mut self, round: Round, phase: Phase, body: Vec<u8>, next: Phase) {
        if let Some(part) = &mut self.part {
            part.stage = if next == Phase::Releasing { Stage::Finished } else { Stage::Waiting(next) };
            part.answer = Some((phase, body.clone()));
        }
        self.send(ClientMessage::Answered { round, phase, body });
    }

    /// Each thing is asked once. The same again is that of a server whose client has come back; another would have the
    /// client say twice what it may say once.
    fn asked(&mut self, round: Round, phase: Phase, request: Vec<u8>) {
        let Some(part) = self.at(round, |_| true) else { return };
        let digest = Digest::of(&request);
        match part.asked.get(&phase) {
            Some(known) if *known == digest => {}
            Some(_) => self.decline(round, Decline::AskedTwice),
            None if part.stage == Stage::Waiting(phase) => {
                part.asked.insert(phase, digest);
                part.stage = Stage::Working(phase);
                let job = Job::Answer { plan: part.plan.clone(), phase, request };
                self.act(Action::Start(job));
            }
            None => self.decline(round, Decline::OutOfTurn),
        }
    }

    /// The update is in the sum: the end of a plain round for the client, not of a masked one.
    fn committed(&mut self, round: Round) {
        let Some(part) = self.at(round, |_| true) else { return };
        if !part.is_masked() {
            self.close(End::Committed);
        } else if let Stage::Offering(_) | Stage::Uploading(_) = part.stage {
            part.stage = Stage::Waiting(Phase::Consistency);
        }
    }

    fn closed(&mut self, round: Round, released: bool) {
        let Some(part) = self.at(round, |_| true) else { return };
        let in_sum = matches!(
            part.stage,
            Stage::Finished
                | Stage::Waiting(Phase::Consistency | Phase::Reveal)
                | Stage::Working(Phase::Consistency | Phase::Reveal)
        );
        self.close(if in_sum && released { End::Committed } else { End::Over { released } });
    }

    fn granted(&mut self, round: Round, offset: u64) {
        let Some(part) = self.at(round, |stage| matches!(stage, Stage::Offering(_) | Stage::Uploading(_)))
        else {
            return;
        };
        if let Stage::Offering(packed) | Stage::Uploading(packed) = part.stage
            && offset <= packed.len
        {
            part.stage = Stage::Uploading(packed);
            self.act(Action::Upload { round, offset });
        }
    }

    fn ended(&mut self, round: Round, end: End) {
        if self.at(round, |_| true).is_some() {
            self.close(end);
        }
    }

    fn decline(&mut self, round: Round, reason: Decline) {
        self.send(ClientMessage::Decline { round, reason });
        self.close(End::Declined(reason));
    }

    fn close(&mut self, end: End) {
        if let Some(part) = self.part.take() {
            self.act(Action::Closed { round: part.round(), end });
        }
    }

    fn offer(&mut self, round: Round, packed: Packed) {
        self.send(ClientMessage::Offer(Offer {
            round,
            len: packed.len,
            digest: packed.digest,
            signature: Vec::new(),
        }));
    }

    fn at(&mut self, round: Round, stage: impl FnOnce(Stage) -> bool) -> Option<&mut Part> {
        self.part.as_mut().filter(|part| part.round() == round && stage(part.stage))
    }

    fn send(&mut self, message: ClientMessage) {
        self.act(Action::Send(message));
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}

impl Part {
    fn round(&self) -> Round {
        self.plan.plan().round
    }

    fn is_masked(&self) -> bool {
        self.plan.plan().masking().is_some()
    }
}
