//! What a client does between messages: drives its machine, keeps the vectors that the machine does not see, trains.
//!
//! It outlives connections. What is to be said while there is none is forgotten: on the next connection the server
//! repeats its invitation, and the machine its answer.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_learning::Subset;
use skep_privacy::client_noise::Contribution;
use skep_privacy::ledger::follow_rotations;
use skep_protocol::experiment::Task;
use skep_protocol::masked::{self, connection_name};
use skep_protocol::message::{ClientMessage, Offer};
use skep_protocol::net::frame::{Bytes, Chunk};
use skep_protocol::net::identity::Identity;
use skep_protocol::plan::{PlanKey, VerifiedPlan};
use skep_protocol::round::client::{Action, ClientMachine, End, Event, Job, Made, Packed};
use skep_protocol::round::{Decline, Phase};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Time};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{debug, info, warn};

use crate::download::{self, Download};
use crate::guard::{Judgement, SharedGuard};
use crate::join::{JoinError, JoinOptions, News, Notify, TrainingSlots};
use crate::masking::{self, Credentials, Masking, Masks};
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
    /// In a masked round, between two steps: the update and what hides it.
    hidden: Option<Hidden>,
    /// What is asked in parts.
    asking: Option<Asking>,
    /// The name of the latest connection.
    connection: Digest,
    working: JoinSet<Worked>,
    outgoing: VecDeque<Outgoing>,
    ends: BTreeMap<End, u64>,
    masks: Masks,
    guard: Option<SharedGuard>,
    /// The key of plans that the one of the identity has handed over to.
    handed_over: Option<PlanKey>,
    /// Where the identity is kept.
    state: Option<PathBuf>,
    /// An invitation that waits for the server's proof.
    doubted: Option<Arc<VerifiedPlan>>,
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

/// What it takes to train, and to hide what was learned.
#[derive(Clone)]
struct Trainee {
    id: ClientId,
    data: Subset,
    keys: ClientKeys,
    slots: TrainingSlots,
    make: MakeLearner,
    /// Who the client is to its peers.
    credentials: Arc<dyn Credentials>,
    /// The smallest cohort that it hides in.
    min_cohort: u32,
}

/// An update that is ready.
#[derive(Debug)]
struct Upload {
    plan: Digest,
    packed: Bytes,
    /// How many masks hide it.
    masks: usize,
}

/// An update, and what will hide it.
#[derive(Debug)]
struct Hidden {
    update: Contribution,
    masking: Masking,
}

/// What a job came to.
struct Worked {
    round: Round,
    plan: Digest,
    hidden: Option<Hidden>,
    made: Result<Step, Decline>,
}

/// What a job made.
enum Step {
    /// A packed update, and how many masks hide it.
    Update { packed: Vec<u8>, masks: usize },
    /// What is said to the server in a phase of a masked round.
    Answer(Vec<u8>),
}

/// A request of which not all parts have come.
#[derive(Debug)]
struct Asking {
    round: Round,
    phase: Phase,
    request: Vec<u8>,
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
        credentials: Arc<dyn Credentials>,
        options: &JoinOptions,
    ) -> Result<Self, JoinError> {
        let (make, min_cohort) = (options.make_learner.clone(), options.min_cohort);
        Participant::making(&*make, id, data.clone(), keys.clone(), &task)?;
        let policy = options.policy.clone().unwrap_or_default();
        Ok(Driver {
            trainee: Trainee {
                id,
                data,
                keys,
                slots: options.training_slots.clone(),
                make,
                credentials,
                min_cohort,
            },
            policy: Keeper::open(policy, options.state.as_deref())?,
            notify: options.notify.clone(),
            started: Instant::now(),
            machine: ClientMachine::new(task),
            download: None,
            model: None,
            upload: None,
            hidden: None,
            asking: None,
            connection: Digest([0; 32]),
            working: JoinSet::new(),
            outgoing: VecDeque::new(),
            ends: BTreeMap::new(),
            masks: Masks::default(),
            guard: options.guard.clone(),
            handed_over: None,
            state: options.state.clone(),
            doubted: None,
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

    /// What hid the client's updates.
    pub(crate) fn masks(&self) -> Masks {
        self.masks
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
            round = terms.round.training().0,
            rounds = terms.rounds,
            mode = terms.mode(),
            recipients = terms.against_recipients(),
            server = terms.against_server(),
            bytes_down = terms.bytes_down,
            bytes_up = terms.bytes_up,
            "asked to {}",
            if terms.round.is_query() { "say how good the model is" } else { "train" }
        );
        self.notify.tell(&News::Asked(&terms));
        let judgement = match masked::admits(&plan, self.trainee.id, self.trainee.min_cohort) {
            Err(reason) => Judgement::Declined(reason),
            Ok(()) => self.guard.as_ref().map_or(Judgement::Agreed, |guard| guard.lock().judge(&plan)),
        };
        self.judged(plan, judgement)
    }

    /// The server shows that its ledger continues the one seen before.
    ///
    /// # Errors
    /// As [`Driver::invited`].
    pub(crate) fn proved(&mut self, round: Round, proof: &[[u8; 32]]) -> Result<(), JoinError> {
        let Some(plan) = self.doubted.take_if(|plan| plan.plan().round == round) else { return Ok(()) };
        let judgement =
            self.guard.as_ref().map_or(Judgement::Agreed, |guard| guard.lock().judge_proof(&plan, proof));
        self.judged(plan, judgement)
    }

    /// The server does not show it.
    ///
    /// # Errors
    /// As [`Driver::invited`].
    pub(crate) fn unproved(&mut self, round: Round) -> Result<(), JoinError> {
        match self.doubted.take_if(|plan| plan.plan().round == round) {
            Some(plan) => self.judged(plan, Judgement::Declined(Decline::Ledger)),
            None => Ok(()),
        }
    }

    fn judged(&mut self, plan: Arc<VerifiedPlan>, judgement: Judgement) -> Result<(), JoinError> {
        let round = plan.plan().round;
        match judgement {
            Judgement::Agreed => return self.admit(plan),
            Judgement::Declined(reason) => {
                info!(%round, %reason, "declined");
                self.notify.tell(&News::Unwilling { round, reason });
                self.handle(Event::Unwilling { plan, reason });
            }
            Judgement::Doubted { from, to } => {
                debug!(from, to, "asks whether the server's ledger continues the one seen before");
                self.doubted = Some(plan);
                self.outgoing.push_back(Outgoing::Say(ClientMessage::Prove { round, from }));
            }
        }
        Ok(())
    }

    /// Counts the round against the owner's other limits.
    fn admit(&mut self, plan: Arc<VerifiedPlan>) -> Result<(), JoinError> {
        let terms = Terms::of(plan.plan(), self.task());
        match self.policy.admit(terms.bytes(), SystemTime::now())? {
            Ok(()) => self.handle(Event::Invited(plan)),
            Err(limit) => {
                info!(round = %terms.round, %limit, "declined: the owner's limits forbid it");
                self.notify.tell(&News::Declined { round: terms.round, limit });
                self.handle(Event::Unwilling { plan, reason: limit.decline() });
            }
        }
        Ok(())
    }

    /// The key whose plans are believed, where the identity has pinned this one.
    pub(crate) fn plan_key(&self, pinned: PlanKey) -> PlanKey {
        self.handed_over.unwrap_or(pinned)
    }

    /// The server shows how its ledger was handed from key to key. Only a chain of signatures from the key that is believed
    /// changes which one that is; the new one is on disk before anything is believed because of it.
    pub(crate) fn rotated(&mut self, pinned: PlanKey, records: &[Vec<u8>]) -> Result<(), JoinError> {
        let believed = self.plan_key(pinned);
        let key = follow_rotations(believed, records);
        if key == believed {
            return Ok(());
        }
        info!(from = %believed.fingerprint(), to = %key.fingerprint(), "the server's ledger has another key, and the old one agreed");
        if let Some(state) = &self.state {
            Identity::pin(state, key)?;
        }
        self.handed_over = Some(key);
        Ok(())
    }

    /// There is a connection; what was to be said on an earlier one is forgotten.
    pub(crate) fn connected(&mut self, binding: &ChannelBinding) {
        self.outgoing.clear();
        self.asking = None;
        self.connection = connection_name(binding);
    }

    /// The server asks, or goes on asking, in a phase of a masked round.
    pub(crate) fn asked(&mut self, round: Round, phase: Phase, part: &[u8], last: bool) {
        let goes_on = |asking: &Asking| (asking.round, asking.phase) == (round, phase);
        let mut asking = match self.asking.take().filter(goes_on) {
            Some(asking) => asking,
            None => Asking { round, phase, request: Vec::new() },
        };
        asking.request.extend_from_slice(part);
        // Longer than any request is not read to its end; as it is, it will be refused.
        if last || asking.request.len() > REQUEST_LIMIT {
            self.handle(Event::Asked { round, phase, request: asking.request });
        } else {
            self.asking = Some(asking);
        }
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
            Some(Ok(worked)) = self.working.join_next() => self.worked(worked),
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
            Action::Start(Job::Answer { plan, phase, request }) => self.answer(&plan, phase, request),
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
        if let Some(Upload { packed, masks: masks @ 1.., .. }) =
            self.upload.take_if(|_| end == End::Committed)
        {
            self.masks.applied += masks as u64;
            self.masks.bytes_packed += packed.len() as u64;
        }
        (self.download, self.model, self.upload) = (None, None, None);
        (self.hidden, self.asking) = (None, None);
        self.working = JoinSet::new();
        self.outgoing.push_back(Outgoing::Abandon);
    }

    fn bad_model(&mut self, round: Round, reason: &download::BadModel) {
        warn!(%round, %reason, "the base model is refused");
        self.download = None;
        self.handle(Event::ModelFailed { round });
    }

    fn train(&mut self, plan: Arc<VerifiedPlan>) {
        let Some(model) = self.model.take() else { return };
        let (trainee, task, connection) = (self.trainee.clone(), self.task().clone(), self.connection);
        let guard = self.guard.clone();
        self.working.spawn(async move {
            let (round, digest) = (plan.plan().round, plan.digest());
            let slot = trainee.slots.acquire().await;
            // The slot goes along: a training whose round is over still takes a thread until it ends.
            let work = spawn_blocking(move || {
                let _slot = slot;
                let trained = trainee.train(&plan, &task, model, &connection)?;
                // On disk before anything of it is offered.
                if let Some(guard) = guard {
                    guard.lock().charge(&plan)?;
                }
                Ok(trained)
            });
            // A training that panics has failed; the client goes on.
            let (hidden, made) = match work.await.unwrap_or(Err(Decline::TrainingFailed)) {
                Ok((hidden, step)) => (hidden, Ok(step)),
                Err(reason) => (None, Err(reason)),
            };
            Worked { round, plan: digest, hidden, made }
        });
    }

    fn answer(&mut self, plan: &VerifiedPlan, phase: Phase, request: Vec<u8>) {
        let Some(mut hidden) = self.hidden.take() else { return };
        let (round, plan) = (plan.plan().round, plan.digest());
        self.working.spawn(async move {
            let work = spawn_blocking(move || {
                let made = hidden.step(phase, &request);
                (Some(hidden), made)
            });
            let (hidden, made) = work.await.unwrap_or((None, Err(Decline::TrainingFailed)));
            Worked { round, plan, hidden, made }
        });
    }

    fn worked(&mut self, worked: Worked) {
        let Worked { round, plan, hidden, made } = worked;
        self.hidden = hidden;
        let result = made.map(|step| match step {
            Step::Answer(answer) => Made::Answer(answer),
            Step::Update { packed, masks } => {
                let packed = Bytes::from(packed);
                let made = Packed { len: packed.len() as u64, digest: Digest::of(&packed) };
                self.upload = Some(Upload { plan, packed, masks });
                Made::Update(made)
            }
        });
        self.handle(Event::JobDone { round, result });
    }

    fn now(&self) -> Time {
        Time::from_millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

impl Hidden {
    fn step(&mut self, phase: Phase, request: &[u8]) -> Result<Step, Decline> {
        let answer = self.masking.step(phase, request)?;
        if phase == Phase::Collecting {
            let masks = self.masking.masks().unwrap_or(0);
            let packed = self.masking.mask(&self.update)?;
            return Ok(Step::Update { packed, masks });
        }
        Ok(Step::Answer(answer))
    }
}

impl Trainee {
    /// Makes an update and, where the plan asks for it, the keys that will hide it.
    fn train(
        self,
        plan: &VerifiedPlan,
        task: &Task,
        model: Vec<u8>,
        connection: &Digest,
    ) -> Result<(Option<Hidden>, Step), Decline> {
        let mut participant = Participant::making(&*self.make, self.id, self.data, self.keys, task)
            .map_err(|_| Decline::TrainingFailed)?;
        let base = download::parameters(&model);
        drop(model);
        let update = participant.train(plan, task, &base)?.update;
        // What is packed, or masked, is a vector of model length itself.
        drop((base, participant));
        if plan.plan().masking().is_none() {
            return Ok((None, Step::Update { packed: trainer::pack(&update), masks: 0 }));
        }
        let key = masking::fresh_key().map_err(|_| Decline::NoRandomness)?;
        let (masking, advert) =
            Masking::begin(plan, self.min_cohort, self.id, connection, self.credentials, &key)?;
        Ok((Some(Hidden { update, masking }), Step::Answer(advert)))
    }
}

impl std::fmt::Debug for Trainee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trainee({})", self.id)
    }
}

/// Bytes of the longest request: adverts and certificates of a cohort of ten thousand.
const REQUEST_LIMIT: usize = 16 << 20;
