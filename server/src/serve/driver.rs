//! The one task that owns the machine: it turns what sessions and the aggregation report into events, and carries out
//! what the machine asks for. It touches no vector and waits for nobody but the next event or deadline.

mod actions;
mod meter;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use skep_privacy::client_noise::Contribution;
use skep_protocol::experiment::Task;
use skep_protocol::message::{ClientMessage, ServerMessage};
use skep_protocol::net::frame::Bytes;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::server::{Event, Job, ServerMachine};
use skep_protocol::round::{AbortReason, Outcome, Progress, Refusal};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Time, codec};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::aggregation::{Closing, Command, Done, Planned};
use super::session::Peer;
use super::uploads::Upload;
use super::{End, ServeError, ServeOptions};
use crate::federation::PlanningError;
use crate::record::{Cost, Observer, RoundRecord};
use meter::Meter;

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
    /// A whole upload was tested.
    Staged { client: ClientId, round: Round, result: Result<Staged, Refusal> },
}

/// A tested update on its way to the sum.
pub(super) struct Staged {
    pub(super) update: Contribution,
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

pub(super) struct Driver<'a> {
    options: ServeOptions,
    observer: &'a mut dyn Observer,
    welcome: Bytes,
    origin: Instant,
    machine: ServerMachine,
    stage: Stage,
    /// The operator wants an end.
    stopping: bool,
    rounds: u64,
    peers: BTreeMap<ClientId, Peer>,
    /// Everyone who was ever connected.
    known: BTreeSet<ClientId>,
    meter: Meter,
    uploads: BTreeMap<ClientId, Upload>,
    /// The update that the machine is about to decide on.
    staged: Option<Staged>,
    plan: watch::Sender<Option<(Round, Digest)>>,
    commands: mpsc::Sender<Command>,
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
    Closing { progress: Vec<(ClientId, Progress)>, cost: Cost },
    /// No more rounds; clients that are away may still hear of it.
    Over { end: End, until: Time },
}

struct Running {
    plan: Arc<VerifiedPlan>,
    model: Bytes,
    since: Time,
    updates: u32,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        task: Task,
        options: ServeOptions,
        observer: &'a mut dyn Observer,
        plan: watch::Sender<Option<(Round, Digest)>>,
        commands: mpsc::Sender<Command>,
    ) -> Result<Self, ServeError> {
        let until = Time::ZERO + span(options.wait_timeout);
        Ok(Driver {
            machine: ServerMachine::new(options.limits),
            options,
            observer,
            welcome: codec::encode(&ServerMessage::Welcome(task))?.into(),
            origin: Instant::now(),
            stage: Stage::Waiting { until },
            stopping: false,
            rounds: 0,
            peers: BTreeMap::new(),
            known: BTreeSet::new(),
            meter: Meter::default(),
            uploads: BTreeMap::new(),
            staged: None,
            plan,
            commands,
        })
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
        while !self.is_over() {
            let wake = self.wake();
            tokio::select! {
                biased;
                () = &mut shutdown, if !self.stopping => self.stop()?,
                answer = done.recv() => self.done(answer.ok_or(ServeError::Died("aggregation"))?)?,
                () = sleep_until(wake) => self.tick()?,
                input = inputs.recv() => self.input(input.ok_or(ServeError::Died("door"))?)?,
            }
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
                warn!(%client, %reason, "broke the rules");
                self.handle(Event::Violated { client, reason })
            }
            Input::Said { .. } | Input::Violated { .. } => Ok(()),
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
        // An earlier connection of the same client closes when its peer is dropped here.
        self.peers.insert(client, peer);
        self.send_to(client, self.welcome.clone(), None);
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
        if self.is_current(client, binding) {
            self.peers.remove(&client);
        }
        self.handle(Event::Disconnected { client, channel_binding: binding })?;
        self.start_when_enough()
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
            Done::Released { round, succeeded } => {
                self.handle(Event::JobDone { job: Job::Release { round }, succeeded })
            }
            Done::Closed(closing) => self.closed(closing?),
        }
    }

    fn tick(&mut self) -> Result<(), ServeError> {
        if let Stage::Waiting { until } = self.stage
            && self.now() >= until
        {
            return Err(ServeError::NotEnoughClients {
                connected: self.peers.len(),
                wanted: self.options.wait_for,
                waited: self.options.wait_timeout,
            });
        }
        self.handle(Event::Tick)
    }

    fn stop(&mut self) -> Result<(), ServeError> {
        info!("stopping");
        self.stopping = true;
        let now = self.now();
        match &mut self.stage {
            Stage::Waiting { .. } => self.over(End::Stopped),
            Stage::Running(_) => {
                self.machine.stop();
                self.act()
            }
            // The round that is being planned or closed comes to its end first.
            Stage::Planning { .. } | Stage::Closing { .. } => Ok(()),
            Stage::Over { until, .. } => {
                *until = now;
                Ok(())
            }
        }
    }

    // ---- from round to round ----

    fn start_when_enough(&mut self) -> Result<(), ServeError> {
        if let Stage::Waiting { .. } = self.stage {
            self.observer.clients_connected(self.peers.len(), self.options.wait_for);
            if self.peers.len() >= self.options.wait_for {
                return self.plan_next();
            }
        }
        Ok(())
    }

    fn plan_next(&mut self) -> Result<(), ServeError> {
        if self.stopping {
            return self.over(End::Stopped);
        }
        let connected = self.peers.iter().map(|(&client, peer)| (client, peer.identity.clone())).collect();
        self.stage = Stage::Planning { since: self.now() };
        self.ask(Command::Plan { connected })
    }

    fn planned(&mut self, planned: Result<Planned, PlanningError>) -> Result<(), ServeError> {
        let Stage::Planning { since } = self.stage else { return Ok(()) };
        let Planned { round: planned, model, shut_out } = match planned {
            Ok(planned) => planned,
            Err(PlanningError::Finished { .. }) => return self.over(End::Finished),
            Err(PlanningError::Budget(exhausted)) => return self.over(End::BudgetExhausted(exhausted)),
            Err(error) => return Err(error.into()),
        };
        for identity in shut_out {
            // It may have come back meanwhile, enrolled with another key.
            if self.peers.get(&identity.client).is_some_and(|peer| peer.identity == identity) {
                self.peers.remove(&identity.client);
            }
        }
        let plan = planned.plan;
        if self.stopping {
            let outcome = Outcome::Aborted(AbortReason::Stopped);
            self.stage = Stage::Closing { progress: Vec::new(), cost: self.cost(since) };
            return self.ask(Command::Close(outcome));
        }
        info!(round = %plan.plan().round, invited = planned.cohort.len(), "opened");
        self.plan.send_replace(Some((plan.plan().round, plan.digest())));
        self.observer.round_opened(plan.plan(), planned.cohort.len().try_into().unwrap_or(u32::MAX));
        self.machine.open(self.now(), Arc::clone(&plan), &planned.cohort)?;
        self.stage = Stage::Running(Running { plan, model, since, updates: 0 });
        self.act()
    }

    /// The machine has closed its round: the federation does the same.
    fn close(&mut self, outcome: Outcome, progress: Vec<(ClientId, Progress)>) -> Result<(), ServeError> {
        let Stage::Running(running) = &self.stage else { return Ok(()) };
        let cost = self.cost(running.since);
        self.plan.send_replace(None);
        self.uploads.clear();
        self.peers.values().for_each(|peer| peer.slot.close());
        self.stage = Stage::Closing { progress, cost };
        self.ask(Command::Close(outcome))
    }

    fn closed(&mut self, closing: Closing) -> Result<(), ServeError> {
        let Stage::Closing { progress, cost } = &self.stage else { return Ok(()) };
        let record = RoundRecord::new(&closing.summary, progress, closing.evaluation, *cost);
        for (client, progress) in progress {
            match progress {
                Progress::Refused(reason) => debug!(%client, %reason, "was refused"),
                Progress::Declined(reason) => debug!(%client, %reason, "declined"),
                _ => {}
            }
        }
        let (refusals, declines) = (&record.refusals, &record.declines);
        info!(round = %record.round, outcome = %record.detail, ?refusals, ?declines, "closed");
        self.rounds += 1;
        self.observer.round_closed(&record, &closing.model);
        self.plan_next()
    }

    fn over(&mut self, end: End) -> Result<(), ServeError> {
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
        let next = [own, self.machine.next_deadline()].into_iter().flatten().min();
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
