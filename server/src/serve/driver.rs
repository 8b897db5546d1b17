//! The one task that owns the machine: it turns what sessions and the aggregation report into events, and carries out
//! what the machine asks for. It touches no vector and waits for nobody but the next event or deadline.

mod actions;
mod meter;
mod phases;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use skep_privacy::ledger::Proofs;
use skep_protocol::message::{ClientMessage, ServerMessage, TurnAway};
use skep_protocol::net::frame::Bytes;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::server::{Event, Job, ServerMachine};
use skep_protocol::round::{AbortReason, Outcome, Phase, Progress, Refusal, Turnout};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Time, codec};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::aggregation::{Closing, Command, Done, Ending, Planned};
use super::presence::Presence;
use super::quiet::Quiet;
use super::session::Peer;
use super::uploads::Upload;
use super::{End, Open, ServeError, ServeOptions};
use crate::federation::PlanningError;
use crate::patience::Patience;
use crate::record::{Cost, Observer, QueryRecord, RoundRecord};
use crate::roster::Roster;
use crate::stage::StagedUpdate;
use crate::status::{Doing, Status};
use meter::Meter;
use phases::Pending;

/// What sessions report.
pub(super) enum Input {
    /// An enrolled client has connected.
    Connected(Peer),
    /// A connection is gone.
    Disconnected { client: ClientId, binding: ChannelBinding },
    /// A client said something; an offer is signed for this plan.
    Said { client: ClientId, binding: ChannelBinding, message: ClientMessage, signed_for: Option<Digest> },
    /// A client broke the rules.
    Violated { client: ClientId, binding: ChannelBinding, reason: Refusal },
    /// A client is shut out from now on.
    Revoked { client: ClientId },
    /// A whole upload was tested.
    Staged { client: ClientId, round: Round, result: Result<Staged, Refusal> },
}

/// A tested update on its way to the sum.
pub(super) struct Staged {
    pub(super) update: StagedUpdate,
    /// Given back when the sum has it, or nobody wants it.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// How driving ended.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) rounds: u64,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

/// What clients are told before the first round.
pub(super) struct Told {
    /// What every client hears first.
    pub(super) greeting: Vec<ServerMessage>,
    /// That the ledger continues what a client has seen of it.
    pub(super) proofs: Proofs,
}

/// Who may still come.
pub(super) struct Left {
    pub(super) roster: Arc<dyn Roster + Send + Sync>,
    pub(super) revoked: BTreeSet<ClientId>,
}

pub(super) struct Driver<'a> {
    /// That the ledger continues what a client has seen of it.
    proofs: Proofs,
    options: ServeOptions,
    left: Left,
    observer: &'a mut dyn Observer,
    /// What is said first on every connection.
    greeting: Vec<Bytes>,
    origin: Instant,
    machine: ServerMachine,
    stage: Stage,
    /// The operator wants an end, and this is when an open round is aborted for it.
    stopping: Option<Time>,
    rounds: u64,
    /// The last round, while clients are asked about its model.
    asking: Option<Closing>,
    /// Until the run ends although rounds are left, if that may be.
    patience: Option<Patience>,
    peers: BTreeMap<ClientId, Peer>,
    /// Everyone who was ever connected.
    known: BTreeSet<ClientId>,
    meter: Meter,
    uploads: BTreeMap<ClientId, Upload>,
    /// The update that the machine is about to decide on.
    staged: Option<Staged>,
    /// In a masked round: what is on its way to the aggregation and back.
    pending: Pending,
    open: watch::Sender<Option<Open>>,
    commands: mpsc::Sender<Command>,
    presence: Presence,
    quiet: Quiet,
    /// As it is, and as the observer knows it.
    status: Status,
    reported: Status,
}

/// Between which two rounds the server is, or in which.
enum Stage {
    /// For the clients of the first round.
    Waiting { until: Time },
    /// The aggregation plans a round.
    Planning { since: Time },
    /// The machine has an open round.
    Running(Running),
    /// The aggregation ends a round.
    Closing,
    /// No more rounds; clients that are away may still hear of it.
    Over { end: End, until: Time },
}

struct Running {
    plan: Arc<VerifiedPlan>,
    model: Bytes,
    since: Time,
    updates: u32,
}

impl Left {
    /// So many, or all that are left where those are fewer.
    fn at_most(&self, wanted: usize) -> usize {
        wanted.min(usize::try_from(self.roster.without(&self.revoked)).unwrap_or(usize::MAX))
    }
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        told: Told,
        options: ServeOptions,
        left: Left,
        observer: &'a mut dyn Observer,
        open: watch::Sender<Option<Open>>,
        commands: mpsc::Sender<Command>,
        presence: Presence,
    ) -> Result<Self, ServeError> {
        let status = Status::waiting(left.at_most(options.wait_for));
        let until = Time::ZERO + span(options.wait_timeout);
        let encode = |message| codec::encode(message).map(Bytes::from);
        let greeting = told.greeting.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Driver {
            machine: ServerMachine::new(options.limits),
            proofs: told.proofs,
            options,
            left,
            observer,
            greeting,
            origin: Instant::now(),
            stage: Stage::Waiting { until },
            stopping: None,
            rounds: 0,
            asking: None,
            patience: None,
            peers: BTreeMap::new(),
            known: BTreeSet::new(),
            meter: Meter::default(),
            uploads: BTreeMap::new(),
            staged: None,
            pending: Pending::default(),
            open,
            commands,
            presence,
            quiet: Quiet::new(),
            reported: status.clone(),
            status,
        })
    }

    /// Ends the run although rounds are left when this is over.
    pub(super) fn end_early(&mut self, patience: Option<Patience>) {
        self.patience = patience;
    }

    /// Clients that will come back, and are waited for at the end like those that were here.
    pub(super) fn expect(&mut self, clients: BTreeSet<ClientId>) {
        self.known.extend(clients);
    }

    /// Drives until the end. Afterwards nobody listens to sessions, and they close.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut done: mpsc::Receiver<Done>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<Ended, ServeError> {
        let mut shutdown = pin!(shutdown);
        self.start_when_enough()?;
        self.observer.status(&self.status);
        while !self.is_over() {
            self.report();
            let wake = self.wake();
            tokio::select! {
                biased;
                () = &mut shutdown, if self.stopping.is_none() => self.stop()?,
                answer = done.recv() => self.done(answer.ok_or(ServeError::Died("aggregation"))?)?,
                () = sleep_until(wake) => self.tick()?,
                input = inputs.recv() => self.input(input.ok_or(ServeError::Died("door"))?)?,
            }
        }
        self.report();
        for &client in self.peers.keys().chain(&self.known) {
            self.presence.note(client, false);
        }
        let (bytes_up, bytes_down) = self.meter.total();
        let Stage::Over { end, .. } = self.stage else { return Err(ServeError::Died("driver")) };
        Ok(Ended { end, rounds: self.rounds, bytes_up, bytes_down })
    }

    // ---- what happens ----

    fn input(&mut self, input: Input) -> Result<(), ServeError> {
        match input {
            Input::Connected(peer) => self.connected(peer),
            Input::Disconnected { client, binding } => self.disconnected(client, binding),
            Input::Said { client, binding, message, signed_for } if self.is_current(client, binding) => {
                self.said(client, message, signed_for)
            }
            Input::Violated { client, binding, reason } if self.is_current(client, binding) => {
                self.quiet.unless_too_many(|withheld| warn!(%client, %reason, withheld, "broke the rules"));
                self.handle(Event::Violated { client, reason })
            }
            Input::Said { .. } | Input::Violated { .. } => Ok(()),
            Input::Revoked { client } => self.revoked(client),
            Input::Staged { client, round, result: Ok(staged) } => {
                self.staged = Some(staged);
                self.handle(Event::UploadStaged { client, round })?;
                self.staged = None;
                Ok(())
            }
            Input::Staged { client, round, result: Err(reason) } => {
                self.handle(Event::UploadFailed { client, round, reason })
            }
        }
    }

    fn connected(&mut self, peer: Peer) -> Result<(), ServeError> {
        let (client, binding) = (peer.identity.client, peer.binding);
        debug!(%client, "connected");
        self.meter.add(binding, Arc::clone(&peer.traffic));
        self.known.insert(client);
        self.presence.note(client, true);
        self.pending.connected(client, &binding);
        // An earlier connection of the same client closes when its peer is dropped here.
        self.peers.insert(client, peer);
        for message in self.greeting.clone() {
            self.send_to(client, message, None);
        }
        if let Stage::Over { end, .. } = &self.stage {
            if *end != End::Stopped {
                self.say_finished()?;
            }
            return Ok(());
        }
        self.handle(Event::Connected { client, channel_binding: binding })?;
        self.start_when_enough()
    }

    fn disconnected(&mut self, client: ClientId, binding: ChannelBinding) -> Result<(), ServeError> {
        debug!(%client, "disconnected");
        self.meter.remove(binding);
        // One that was let go of has no peer any more, and one that has come back has another.
        if self.peers.get(&client).is_none_or(|peer| peer.binding == binding) {
            self.peers.remove(&client);
            self.presence.note(client, false);
        }
        self.handle(Event::Disconnected { client, channel_binding: binding })?;
        self.start_when_enough()
    }

    fn revoked(&mut self, client: ClientId) -> Result<(), ServeError> {
        info!(%client, "revoked");
        self.turn_away(client, TurnAway::Revoked)?;
        self.left.revoked.insert(client);
        self.handle(Event::ShutOut { client })?;
        self.start_when_enough()
    }

    /// Tells a client, if it is here, that it no longer belongs here.
    fn turn_away(&mut self, client: ClientId, reason: TurnAway) -> Result<(), ServeError> {
        if let Some(peer) = self.peers.remove(&client) {
            // Whoever does not read is let go of all the same.
            let _ = peer.send(codec::encode(&ServerMessage::TurnedAway(reason))?.into(), None);
            self.known.remove(&client);
        }
        Ok(())
    }

    fn said(
        &mut self,
        client: ClientId,
        message: ClientMessage,
        signed_for: Option<Digest>,
    ) -> Result<(), ServeError> {
        match message {
            ClientMessage::Accept { round, plan } => self.handle(Event::Accepted { client, round, plan }),
            ClientMessage::Decline { round, reason } => {
                self.handle(Event::Declined { client, round, reason })
            }
            ClientMessage::Answered { round, phase, body } => self.answered(client, round, phase, body),
            ClientMessage::Prove { round, from } => self.prove(client, round, from),
            ClientMessage::Offer(offer) if self.is_unsigned(offer.round, signed_for) => {
                self.handle(Event::Violated { client, reason: Refusal::BadSignature })
            }
            ClientMessage::Offer(offer) => self.handle(Event::UploadOffered {
                client,
                round: offer.round,
                len: offer.len,
                digest: offer.digest,
            }),
        }
    }

    /// Shows that the ledger at the open round's checkpoint continues what a client has seen.
    fn prove(&mut self, client: ClientId, round: Round, from: u64) -> Result<(), ServeError> {
        let plan = match &self.stage {
            Stage::Running(running) if running.plan.plan().round == round => Some(&running.plan),
            _ => None,
        };
        let proof = plan
            .and_then(|plan| plan.checkpoint())
            .and_then(|checkpoint| self.proofs.consistency(from, checkpoint.size));
        let message = match proof {
            Some(proof) => {
                ServerMessage::Proof { round, proof: proof.into_iter().map(|hash| hash.0).collect() }
            }
            None => {
                warn!(%client, from, "has seen a ledger that this one does not continue");
                ServerMessage::Refused { round: Some(round), reason: Refusal::Unexpected }
            }
        };
        let encoded: Bytes = codec::encode(&message)?.into();
        self.send_to(client, encoded, None);
        Ok(())
    }

    /// A reader looks for the plan when an offer comes; the round may have been opened only after that.
    fn is_unsigned(&self, round: Round, signed_for: Option<Digest>) -> bool {
        match &self.stage {
            Stage::Running(running) => {
                running.plan.plan().round == round && signed_for != Some(running.plan.digest())
            }
            _ => false,
        }
    }

    fn done(&mut self, done: Done) -> Result<(), ServeError> {
        match done {
            Done::Planned(planned) => self.planned(planned),
            Done::Answered { client, round, phase, result } => self.checked(client, round, phase, result),
            Done::Asked { round, phase, result } => self.asked(round, phase, result),
            Done::Released { round, result, lost } => {
                if !lost.is_empty() {
                    self.handle(Event::GroupLost { round, clients: lost })?;
                }
                self.handle(Event::JobDone { job: Job::Release { round }, result })
            }
            Done::Closed(closing) => self.closed(*closing?),
        }
    }

    fn tick(&mut self) -> Result<(), ServeError> {
        if let Stage::Waiting { until } = self.stage
            && self.now() >= until
        {
            return Err(ServeError::NotEnoughClients {
                connected: self.peers.len(),
                wanted: self.left.at_most(self.options.wait_for),
                waited: self.options.wait_timeout,
            });
        }
        self.handle(Event::Tick)?;
        self.abort_for_the_operator()
    }

    fn stop(&mut self) -> Result<(), ServeError> {
        info!("stopping");
        let now = self.now();
        self.stopping = Some(now + span(self.options.grace));
        match &mut self.stage {
            Stage::Waiting { .. } => self.over(End::Stopped),
            // A round that is planned, open or being closed comes to its end first.
            Stage::Planning { .. } | Stage::Running(_) | Stage::Closing => Ok(()),
            Stage::Over { until, .. } => {
                *until = now;
                Ok(())
            }
        }
    }

    /// Aborts the open round, if it is not about to be released, once the operator has waited long enough.
    fn abort_for_the_operator(&mut self) -> Result<(), ServeError> {
        if self.is_abortable() && self.stopping.is_some_and(|by| self.now() >= by) {
            self.machine.stop();
            return self.act();
        }
        Ok(())
    }

    /// Whether the open round waits for clients.
    fn is_abortable(&self) -> bool {
        self.machine.phase().is_some_and(|phase| phase < Phase::Releasing)
    }

    // ---- from round to round ----

    fn start_when_enough(&mut self) -> Result<(), ServeError> {
        if let Stage::Waiting { .. } = self.stage {
            let wanted = self.left.at_most(self.options.wait_for);
            self.status.wanted = wanted;
            self.observer.clients_connected(self.peers.len(), wanted);
            if self.peers.len() >= wanted {
                return self.plan_next();
            }
        }
        Ok(())
    }

    fn plan_next(&mut self) -> Result<(), ServeError> {
        if self.stopping.is_some() {
            return self.over(End::Stopped);
        }
        let connected = self.peers.iter().map(|(&client, peer)| (client, peer.identity.clone())).collect();
        self.stage = Stage::Planning { since: self.now() };
        self.ask(Command::Plan { connected, query_only: self.is_patience_over() })
    }

    fn planned(&mut self, planned: Result<Planned, PlanningError>) -> Result<(), ServeError> {
        let Stage::Planning { since } = self.stage else { return Ok(()) };
        let Planned { round: planned, model, stager, shut_out, revoked } = match planned {
            Ok(planned) => planned,
            Err(PlanningError::Finished { .. }) if self.is_patience_over() => {
                return self.over(End::StoppedEarly);
            }
            Err(PlanningError::Finished { .. }) => return self.over(End::Finished),
            Err(PlanningError::Budget(exhausted)) => return self.over(End::BudgetExhausted(exhausted)),
            Err(error) => {
                self.round_over_unasked();
                return Err(error.into());
            }
        };
        if !planned.plan.plan().round.is_query() {
            self.round_over_unasked();
        }
        for (identity, reason) in shut_out {
            // It may have come back meanwhile, enrolled with another key.
            if self.peers.get(&identity.client).is_some_and(|peer| peer.identity == identity) {
                self.turn_away(identity.client, reason)?;
            }
        }
        let plan = Arc::clone(&planned.plan);
        // It is charged: while the operator still waits, it is run.
        if self.stopping.is_some_and(|by| self.now() >= by) {
            let outcome = Outcome::Aborted(AbortReason::Stopped);
            return self.end_round(outcome, Vec::new(), since);
        }
        let (invited, round) = (planned.invited(), plan.plan().round);
        info!(%round, invited, "opened");
        self.pending = Pending::of(self.peers.iter().map(|(&client, peer)| (client, &peer.binding)));
        self.open.send_replace(Some(Open { round, plan: plan.digest(), stager }));
        if !round.is_query() {
            self.observer.round_opened(plan.plan(), invited);
        }
        self.machine.open(self.now(), Arc::clone(&plan), &planned.cohort)?;
        self.status = Status {
            round: Some(round.training()),
            asking: round.is_query(),
            invited,
            updates: 0,
            ..self.status.clone()
        };
        self.stage = Stage::Running(Running { plan, model, since, updates: 0 });
        for client in revoked {
            self.machine.handle(self.now(), Event::ShutOut { client });
        }
        self.act()
    }

    /// The machine has closed its round: the federation does the same.
    fn close(&mut self, outcome: Outcome, progress: Vec<(ClientId, Progress)>) -> Result<(), ServeError> {
        let Stage::Running(running) = &self.stage else { return Ok(()) };
        let since = running.since;
        self.open.send_replace(None);
        self.uploads.clear();
        self.peers.values().for_each(|peer| peer.slot.close());
        self.end_round(outcome, progress, since)
    }

    fn end_round(
        &mut self,
        outcome: Outcome,
        progress: Vec<(ClientId, Progress)>,
        since: Time,
    ) -> Result<(), ServeError> {
        let cost = self.cost(since);
        self.stage = Stage::Closing;
        self.ask(Command::Close(Ending { outcome, progress, cost }))
    }

    fn closed(&mut self, closing: Closing) -> Result<(), ServeError> {
        self.observer.cohort_closed(closing.round, &closing.progress);
        let Closing { round, record: RoundRecord { refusals, declines, detail, .. }, .. } = &closing;
        match &closing.record.query {
            Some(QueryRecord { refusals, declines, detail, .. }) if round.is_query() => {
                info!(%round, outcome = %detail, ?refusals, ?declines, "closed");
            }
            _ => info!(%round, outcome = %detail, ?refusals, ?declines, "closed"),
        }
        self.asking = None;
        if !round.is_query() {
            self.rounds += 1;
            // What clients will say of the model ends no run.
            self.patience.iter_mut().for_each(|patience| patience.observe(&closing.record));
        }
        if closing.asks {
            self.asking = Some(closing);
            return self.plan_next();
        }
        self.observer.round_closed(&closing.record, &closing.model);
        if self.is_patience_over() { self.over(End::StoppedEarly) } else { self.plan_next() }
    }

    /// Whether no round follows although some are left. The query after the last still does.
    fn is_patience_over(&self) -> bool {
        self.patience.as_ref().is_some_and(Patience::is_over)
    }

    /// Clients were to be asked about the model of the last round, and are not: nothing more will be known of it.
    fn round_over_unasked(&mut self) {
        if let Some(Closing { record, model, .. }) = self.asking.take() {
            self.observer.round_closed(&record, &model);
        }
    }

    fn over(&mut self, end: End) -> Result<(), ServeError> {
        self.round_over_unasked();
        info!(?end, "over");
        let linger = if end == End::Stopped { Duration::ZERO } else { self.options.linger };
        let until = self.now() + span(linger);
        let finished = end != End::Stopped;
        self.stage = Stage::Over { end, until };
        if finished { self.say_finished() } else { Ok(()) }
    }

    /// Tells everyone who is connected, and lets them go.
    fn say_finished(&mut self) -> Result<(), ServeError> {
        let finished: Bytes = codec::encode(&ServerMessage::Finished)?.into();
        for (client, peer) in std::mem::take(&mut self.peers) {
            self.presence.note(client, false);
            if peer.send(finished.clone(), None).is_ok() {
                self.known.remove(&client);
            }
        }
        Ok(())
    }

    /// Whether everyone who was here has heard of the end, or has been waited for.
    fn is_over(&self) -> bool {
        match self.stage {
            Stage::Over { until, .. } => self.known.is_empty() || self.now() >= until,
            _ => false,
        }
    }

    // ---- small things ----

    /// Tells the observer when something has changed.
    fn report(&mut self) {
        let Turnout { answered, expected } = self.machine.turnout().unwrap_or_default();
        (self.status.answered, self.status.expected) = (answered, expected);
        self.status.connected = self.peers.len();
        self.status.doing = match self.stage {
            Stage::Waiting { .. } => Doing::Waiting,
            Stage::Planning { .. } => Doing::Planning,
            Stage::Running(_) => self.machine.phase().map_or(Doing::Releasing, Doing::from),
            Stage::Closing => Doing::Closing,
            Stage::Over { .. } => Doing::Over,
        };
        if self.status != self.reported {
            self.reported = self.status.clone();
            self.observer.status(&self.status);
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), ServeError> {
        self.machine.handle(self.now(), event);
        self.act()
    }

    fn ask(&self, command: Command) -> Result<(), ServeError> {
        self.commands.try_send(command).map_err(|_| ServeError::Died("aggregation"))
    }

    fn is_current(&self, client: ClientId, binding: ChannelBinding) -> bool {
        self.peers.get(&client).is_some_and(|peer| peer.binding == binding)
    }

    fn now(&self) -> Time {
        Time::from_millis(self.origin.elapsed().as_millis().try_into().unwrap_or(u64::MAX))
    }

    fn wake(&self) -> Instant {
        let own = match self.stage {
            Stage::Waiting { until } | Stage::Over { until, .. } => Some(until),
            _ => None,
        };
        let stopping = self.stopping.filter(|_| self.is_abortable());
        let next = [own, stopping, self.machine.next_deadline()].into_iter().flatten().min();
        // Without a deadline only an event changes anything; a look once an hour does no harm.
        let millis = next.map_or_else(|| (self.now() + HOUR).as_millis(), Time::as_millis);
        self.origin + Duration::from_millis(millis)
    }

    fn cost(&mut self, since: Time) -> Cost {
        let (bytes_up, bytes_down) = self.meter.since_last();
        Cost { time: self.now().since(since), bytes_up, bytes_down }
    }
}

fn span(duration: Duration) -> skep_protocol::Span {
    skep_protocol::Span::from_millis(duration.as_millis().try_into().unwrap_or(u64::MAX))
}

const HOUR: skep_protocol::Span = skep_protocol::Span::from_millis(3_600_000);
