//! What a client does between messages: drives its machine, keeps the vectors that the machine does not see, trains.
//!
//! It outlives connections. What is to be said while there is none is forgotten: on the next connection the server
//! repeats its invitation, and the machine its answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_learning::Subset;
use skep_protocol::experiment::Task;
use skep_protocol::message::{ClientMessage, Offer};
use skep_protocol::net::frame::{Bytes, Chunk};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::Decline;
use skep_protocol::round::client::{Action, ClientMachine, End, Event, Job, Packed};
use skep_protocol::{ClientId, Digest, Round, Time};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};

use crate::download::{self, Download};
use crate::join::{JoinError, JoinOptions, News, Notify, TrainingSlots};
use crate::policy::Keeper;
use crate::terms::Terms;
use crate::trainer::{self, ClientKeys, MakeLearner, Participant};

/// One client, whatever its connection does.
#[derive(Debug)]
pub(crate) struct Driver {
    trainee: Trainee,
    policy: Keeper,
    notify: Notify,
    started: Instant,
    machine: ClientMachine,
    download: Option<Download>,
    model: Option<Vec<u8>>,
    upload: Option<Upload>,
    training: JoinSet<Trained>,
    outgoing: VecDeque<Outgoing>,
    ends: BTreeMap<End, u64>,
}

/// What the connection must carry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outgoing {
    /// A message.
    Say(ClientMessage),
    /// An offer, still to be signed for the connection, of an update for this plan.
    Offer(Digest, Offer),
    /// The packed update, from this offset on.
    Upload { round: Round, offset: u64, packed: Bytes },
    /// What is being uploaded is no longer wanted.
    Abandon,
}

/// What it takes to train.
#[derive(Clone, Debug)]
struct Trainee {
    id: ClientId,
    data: Subset,
    keys: ClientKeys,
    slots: TrainingSlots,
    make: MakeLearner,
}

/// An update that is ready.
#[derive(Debug)]
struct Upload {
    plan: Digest,
    packed: Bytes,
}

#[derive(Debug)]
struct Trained {
    round: Round,
    plan: Digest,
    packed: Result<(Bytes, Digest), Decline>,
}

impl Driver {
    /// A driver for the task that the server announced.
    ///
    /// # Errors
    /// [`JoinError::Data`] when the data are not those of the task, or the model cannot be trained; [`JoinError::Policy`]
    /// when what the owner's limits were used for is unknown.
    pub(crate) fn new(
        id: ClientId,
        task: Task,
        data: Subset,
        keys: ClientKeys,
        options: &JoinOptions,
    ) -> Result<Self, JoinError> {
        let make = options.make_learner;
        Participant::making(make, id, data.clone(), keys.clone(), &task)?;
        let policy = options.policy.clone().unwrap_or_default();
        Ok(Driver {
            trainee: Trainee { id, data, keys, slots: options.training_slots.clone(), make },
            policy: Keeper::open(policy, options.state.as_deref())?,
            notify: options.notify.clone(),
            started: Instant::now(),
            machine: ClientMachine::new(task),
            download: None,
            model: None,
            upload: None,
            training: JoinSet::new(),
            outgoing: VecDeque::new(),
            ends: BTreeMap::new(),
        })
    }

    /// The task.
    pub(crate) fn task(&self) -> &Task {
        self.machine.task()
    }

    /// How the client's rounds ended, and how often.
    pub(crate) fn ends(&self) -> &BTreeMap<End, u64> {
        &self.ends
    }

    /// The next thing to say.
    pub(crate) fn next_outgoing(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// Tells the machine what happened, and does what it asks for.
    pub(crate) fn handle(&mut self, event: Event) {
        self.machine.handle(self.now(), event);
        while let Some(action) = self.machine.poll_action() {
            self.act(action);
        }
    }

    /// The server invites. The owner is told, and asked, before the machine accepts; once a round.
    ///
    /// # Errors
    /// [`JoinError::Policy`] when the round cannot be counted.
    pub(crate) fn invited(&mut self, plan: Arc<VerifiedPlan>) -> Result<(), JoinError> {
        if self.machine.has_seen(&plan) {
            self.handle(Event::Invited(plan));
            return Ok(());
        }
        let terms = Terms::of(plan.plan(), self.task());
        info!(
            task = terms.task,
            round = terms.round.0,
            rounds = terms.rounds,
            mode = terms.mode(),
            recipients = terms.against_recipients(),
            server = terms.against_server(),
            bytes_down = terms.bytes_down,
            bytes_up = terms.bytes_up,
            "asked to train"
        );
        self.notify.tell(&News::Asked(&terms));
        match self.policy.admit(terms.bytes(), SystemTime::now())? {
            Ok(()) => self.handle(Event::Invited(plan)),
            Err(limit) => {
                warn!(round = terms.round.0, %limit, "declined: the owner's limits forbid it");
                self.notify.tell(&News::Declined { round: terms.round, limit });
                self.handle(Event::Unwilling { plan, reason: limit.decline() });
            }
        }
        Ok(())
    }

    /// There is a connection; what was to be said on an earlier one is forgotten.
    pub(crate) fn connected(&mut self) {
        self.outgoing.clear();
    }

    /// The server announces a base model.
    pub(crate) fn announced(&mut self, round: Round, len: u64, digest: Digest) {
        let Some(download) = self.download.as_mut().filter(|download| download.round() == round) else {
            return;
        };
        if let Err(reason) = download.announced(len, digest) {
            self.bad_model(round, &reason);
        }
    }

    /// The server sends a piece of a base model.
    pub(crate) fn chunk(&mut self, chunk: &Chunk) {
        let Some(download) = &mut self.download else { return };
        let round = download.round();
        match download.take(chunk) {
            Ok(None) => {}
            Ok(Some(model)) => {
                self.download = None;
                self.model = Some(model);
                self.handle(Event::ModelStaged { round });
            }
            Err(reason) => self.bad_model(round, &reason),
        }
    }

    /// Waits for the end of a training or of a wait, and handles it. May be cancelled at any time.
    pub(crate) async fn wake(&mut self) {
        let deadline =
            self.machine.next_deadline().map(|time| self.started + Duration::from_millis(time.as_millis()));
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(Ok(trained)) = self.training.join_next() => self.trained(trained),
            () = expiry => self.handle(Event::Tick),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(ClientMessage::Offer(offer)) => {
                if let Some(upload) = &self.upload {
                    self.outgoing.push_back(Outgoing::Offer(upload.plan, offer));
                }
            }
            Action::Send(message) => self.outgoing.push_back(Outgoing::Say(message)),
            Action::FetchModel { round, model } => {
                let parameters = self.task().parameter_count().unwrap_or(0);
                self.download = Some(Download::new(round, model, parameters));
            }
            Action::Start(Job::Train(plan)) => self.train(plan),
            Action::Upload { round, offset } => {
                if let Some(upload) = &self.upload {
                    let packed = upload.packed.clone();
                    self.outgoing.push_back(Outgoing::Upload { round, offset, packed });
                }
            }
            Action::Closed { round, end } => self.closed(round, end),
        }
    }

    fn closed(&mut self, round: Round, end: End) {
        info!(%round, ?end, "the round is over for this client");
        *self.ends.entry(end).or_default() += 1;
        (self.download, self.model, self.upload) = (None, None, None);
        self.training = JoinSet::new();
        self.outgoing.push_back(Outgoing::Abandon);
    }

    fn bad_model(&mut self, round: Round, reason: &download::BadModel) {
        warn!(%round, %reason, "the base model is refused");
        self.download = None;
        self.handle(Event::ModelFailed { round });
    }

    fn train(&mut self, plan: Arc<VerifiedPlan>) {
        let Some(model) = self.model.take() else { return };
        let round = plan.plan().round;
        if plan.plan().masking().is_some() {
            warn!(%round, "the update would have to be masked, which this version does in simulations only");
            return self.handle(Event::Trained { round, result: Err(Decline::Policy) });
        }
        let (trainee, task) = (self.trainee.clone(), self.task().clone());
        self.training.spawn(async move {
            let digest = plan.digest();
            let slot = trainee.slots.acquire().await;
            // The slot goes along: a training whose round is over still takes a thread until it ends.
            let work = spawn_blocking(move || {
                let _slot = slot;
                trainee.train(&plan, &task, model)
            });
            // A training that panics has failed; the client goes on.
            let packed = work.await.unwrap_or(Err(Decline::TrainingFailed));
            Trained { round, plan: digest, packed }
        });
    }

    fn trained(&mut self, trained: Trained) {
        let Trained { round, plan, packed } = trained;
        let result = packed.map(|(packed, digest)| {
            let len = packed.len() as u64;
            self.upload = Some(Upload { plan, packed });
            Packed { len, digest }
        });
        self.handle(Event::Trained { round, result });
    }

    fn now(&self) -> Time {
        Time::from_millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

impl Trainee {
    fn train(self, plan: &VerifiedPlan, task: &Task, model: Vec<u8>) -> Result<(Bytes, Digest), Decline> {
        let mut participant = Participant::making(self.make, self.id, self.data, self.keys, task)
            .map_err(|_| Decline::TrainingFailed)?;
        let base = download::parameters(&model);
        drop(model);
        let trained = participant.train(plan, task, &base)?;
        drop(base);
        let packed = Bytes::from(trainer::pack(&trained.update));
        let digest = Digest::of(&packed);
        Ok((packed, digest))
    }
}
