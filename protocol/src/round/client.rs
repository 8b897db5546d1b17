//! A client's side of a round.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Decline, Refusal};
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
    /// Training has ended.
    Trained {
        /// The round.
        round: Round,
        /// The packed update, or why there is none.
        result: Result<Packed, Decline>,
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

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message; the driver fills in an offer's signature.
    Send(ClientMessage),
    /// Take in the base model, which the server sends.
    FetchModel {
        /// The round.
        round: Round,
        /// Its digest.
        model: Digest,
    },
    /// Do heavy work and come back with [`Event::Trained`].
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
    /// Train from the base model, clip, quantise and pack.
    Train(Arc<VerifiedPlan>),
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
    task: Task,
    task_digest: Digest,
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
}

impl ClientMachine {
    /// A machine for the task that the server announced.
    pub fn new(task: Task) -> Self {
        let task_digest = task.digest();
        ClientMachine { task, task_digest, last: None, part: None, actions: VecDeque::new() }
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
            Event::Trained { round, result } => self.trained(round, result),
            Event::Granted { round, offset, .. } => self.granted(round, offset),
            Event::Committed { round } => self.ended(round, End::Committed),
            Event::Refused { round: Some(round), reason } if reason != Refusal::Duplicate => {
                self.ended(round, End::Refused(reason));
            }
            Event::Refused { .. } => {}
            Event::Closed { round, released } => self.ended(round, End::Over { released }),
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
        if let Err(reason) = plan.plan().check(&self.task, &self.task_digest) {
            self.send(ClientMessage::Decline { round, reason });
            return self.act(Action::Closed { round, end: End::Declined(reason) });
        }
        let digest = plan.digest();
        let model = plan.plan().base_model;
        let expires = now + plan.plan().deadline;
        self.part = Some(Part { plan, expires, stage: Stage::Fetching });
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
            Stage::Training => {}
            Stage::Offering(packed) | Stage::Uploading(packed) => self.offer(round, packed),
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

    fn trained(&mut self, round: Round, result: Result<Packed, Decline>) {
        let Some(part) = self.at(round, |stage| stage == Stage::Training) else { return };
        match result {
            Ok(packed) => {
                part.stage = Stage::Offering(packed);
                self.offer(round, packed);
            }
            Err(reason) => self.decline(round, reason),
        }
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
}
