//! Both machines of the round, a network between them that a script controls, and a clock that it moves.
//!
//! The third driver, beside sockets and simulation: nothing happens unless the script says so, and every step is checked
//! against what must hold of any round. Connections keep the order of their messages; everything else is up to
//! the script.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use skep_protocol::message::{ClientMessage, ServerMessage};
use skep_protocol::plan::{Closure, VerifiedPlan};
use skep_protocol::round::client::{self, ClientMachine, End, Made, Packed};
use skep_protocol::round::server::{self, Job, Limits, ServerMachine};
use skep_protocol::round::{AbortReason, Decline, Outcome, Phase, Progress, Refusal, Timing};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Span, Time};

use crate::plans;

/// What a network has seen; a property test asserts that it has seen everything.
#[derive(Debug, Default)]
pub struct Seen {
    /// Outcomes, aborts without their numbers.
    pub outcomes: BTreeSet<&'static str>,
    /// Refusals that were sent or recorded.
    pub refusals: BTreeSet<Refusal>,
    /// How clients' parts ended, with the phase that the server was in.
    pub ends: BTreeSet<&'static str>,
    /// Reasons that clients declined for.
    pub declines: BTreeSet<Decline>,
    /// Client events by stage of the client, and server events by phase of the server.
    pub events: BTreeSet<(&'static str, &'static str)>,
    /// Uploads that were resumed at an offset above zero.
    pub resumed: u64,
}

/// A round that has ended, how, and what became of each invited client.
pub type Ended = (Round, Outcome, Vec<(ClientId, Progress)>);

/// A client of the script.
#[derive(Debug)]
struct Peer {
    machine: ClientMachine,
    /// The connection, if there is one.
    channel: Option<ChannelBinding>,
    /// Messages on their way, in order.
    to_server: VecDeque<ClientMessage>,
    to_client: VecDeque<ServerMessage>,
    /// Models on their way.
    model: Option<Round>,
    /// Training in progress.
    training: Option<Arc<VerifiedPlan>>,
    /// An answer in the making.
    answering: Option<(Round, Phase, Vec<u8>)>,
    /// An upload in progress.
    upload: Option<Round>,
}

/// The scripted network.
#[derive(Debug)]
pub struct Network {
    /// The time.
    pub now: Time,
    /// The server's machine.
    pub server: ServerMachine,
    /// What has been seen.
    pub seen: Seen,
    /// How each round ended, with what became of each invited client.
    pub closed: Vec<Ended>,
    peers: BTreeMap<ClientId, Peer>,
    limits: Limits,
    connections: u64,
    release: Option<Round>,
    /// Bytes of granted uploads that the server kept when the connection was lost.
    kept: BTreeMap<ClientId, u64>,
    open: Option<Open>,
}

/// What the checks remember of the open round.
#[derive(Debug)]
struct Open {
    plan: Arc<VerifiedPlan>,
    opened: Time,
    granted: BTreeMap<ClientId, u64>,
    committed: BTreeSet<ClientId>,
    releasing: bool,
    /// Once the survivors are frozen: what the survivors are asked to sign.
    survivors: Option<BTreeSet<ClientId>>,
    /// Whose group was given up: out of the sum, and of every later question.
    lost: BTreeSet<ClientId>,
}

impl Network {
    /// A server and `clients` clients, none of them connected.
    pub fn new(clients: u64, limits: Limits) -> Self {
        let peer = || Peer {
            machine: ClientMachine::new(plans::task()),
            channel: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            model: None,
            training: None,
            answering: None,
            upload: None,
        };
        Network {
            now: Time::from_millis(1000),
            server: ServerMachine::new(limits),
            seen: Seen::default(),
            closed: Vec::new(),
            peers: (0..clients).map(|id| (ClientId(id), peer())).collect(),
            limits,
            connections: 0,
            release: None,
            kept: BTreeMap::new(),
            open: None,
        }
    }

    /// A server with all its clients connected.
    pub fn connected(clients: u64) -> Self {
        let limits = Limits { upload_memory_bytes: 1 << 20, min_upload_bytes_per_s: 1000 };
        let mut network = Network::new(clients, limits);
        for id in 0..clients {
            network.connect(ClientId(id));
        }
        network
    }

    /// Opens a round.
    pub fn open(&mut self, plan: Arc<VerifiedPlan>, cohort: &BTreeSet<ClientId>) {
        self.server.open(self.now, plan.clone(), cohort).expect("no round is open and the plan is newer");
        self.open = Some(Open {
            plan,
            opened: self.now,
            granted: BTreeMap::new(),
            committed: BTreeSet::new(),
            releasing: false,
            survivors: None,
            lost: BTreeSet::new(),
        });
        self.drain_server();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub fn advance(&mut self, span: Span) {
        let until = self.now + span;
        while self.now < until {
            let next = self.next_deadline().map_or(until, |deadline| deadline.min(until));
            self.now = next.max(self.now);
            self.tick();
            if next == until {
                break;
            }
        }
        self.now = until;
    }

    /// The earliest deadline of any machine.
    pub fn next_deadline(&self) -> Option<Time> {
        let clients = self.peers.values().filter_map(|peer| peer.machine.next_deadline());
        clients.chain(self.server.next_deadline()).min()
    }

    /// Ticks every machine; afterwards no deadline lies in the past.
    pub fn tick(&mut self) {
        self.to_server(server::Event::Tick);
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            self.to_client(id, client::Event::Tick);
        }
        assert!(
            self.next_deadline().is_none_or(|deadline| deadline > self.now),
            "a deadline is stuck in the past"
        );
    }

    /// Connects a client, or replaces its connection.
    pub fn connect(&mut self, id: ClientId) {
        self.disconnect_quietly(id);
        self.connections += 1;
        let mut binding = [0; 32];
        binding[..8].copy_from_slice(&self.connections.to_le_bytes());
        let channel_binding = ChannelBinding(binding);
        self.peer(id).channel = Some(channel_binding);
        self.to_server(server::Event::Connected { client: id, channel_binding });
    }

    /// Breaks a client's connection; what is on its way is lost.
    pub fn disconnect(&mut self, id: ClientId) {
        if let Some(channel_binding) = self.disconnect_quietly(id) {
            self.to_server(server::Event::Disconnected { client: id, channel_binding });
        }
    }

    fn disconnect_quietly(&mut self, id: ClientId) -> Option<ChannelBinding> {
        let peer = self.peer(id);
        let channel = peer.channel.take()?;
        let cut_off = peer.upload.is_some();
        peer.to_server.clear();
        peer.to_client.clear();
        peer.model = None;
        peer.upload = None;
        if let Some(&len) = self.open.as_ref().and_then(|open| open.granted.get(&id)).filter(|_| cut_off) {
            self.kept.insert(id, len / 2);
        }
        self.to_client(id, client::Event::Disconnected);
        Some(channel)
    }

    /// Delivers the next message of a client to the server.
    pub fn deliver_to_server(&mut self, id: ClientId) -> bool {
        let Some(message) = self.peer(id).to_server.pop_front() else { return false };
        let event = match message {
            ClientMessage::Accept { round, plan } => server::Event::Accepted { client: id, round, plan },
            ClientMessage::Decline { round, reason } => {
                self.seen.declines.insert(reason);
                server::Event::Declined { client: id, round, reason }
            }
            ClientMessage::Answered { round, phase, body } => {
                self.check_answer(id, round, phase, &body);
                server::Event::Answered { client: id, round, phase }
            }
            // Answered by the driver from its ledger, and these clients do not ask.
            ClientMessage::Prove { .. } => return true,
            ClientMessage::Offer(offer) => server::Event::UploadOffered {
                client: id,
                round: offer.round,
                len: offer.len,
                digest: offer.digest,
            },
        };
        self.to_server(event);
        true
    }

    /// Delivers the next message of the server to a client.
    pub fn deliver_to_client(&mut self, id: ClientId) -> bool {
        let Some(message) = self.peer(id).to_client.pop_front() else { return false };
        let event = match message {
            ServerMessage::Invite(plan) => {
                client::Event::Invited(plan.verify(&plans::signer().key()).expect("signed by the server"))
            }
            ServerMessage::Grant { round, offset, until } => client::Event::Granted { round, offset, until },
            ServerMessage::Committed { round } => client::Event::Committed { round },
            ServerMessage::Asked { round, phase, part, .. } => {
                client::Event::Asked { round, phase, request: part }
            }
            ServerMessage::Refused { round, reason } => client::Event::Refused { round, reason },
            ServerMessage::Closed { round, released } => client::Event::Closed { round, released },
            ServerMessage::Welcome(_)
            | ServerMessage::Model { .. }
            | ServerMessage::Proof { .. }
            | ServerMessage::Rotated(_)
            | ServerMessage::Finished
            | ServerMessage::TurnedAway(_) => return true,
        };
        self.to_client(id, event);
        true
    }

    /// The base model reaches a client, whole or not.
    pub fn deliver_model(&mut self, id: ClientId, whole: bool) -> bool {
        let Some(round) = self.peer(id).model.take() else { return false };
        self.to_client(
            id,
            if whole { client::Event::ModelStaged { round } } else { client::Event::ModelFailed { round } },
        );
        true
    }

    /// A client's training ends.
    pub fn finish_training(&mut self, id: ClientId, failed: Option<Decline>) -> bool {
        let Some(plan) = self.peer(id).training.take() else { return false };
        let round = plan.plan().round;
        let made = match plan.plan().masking() {
            None => Made::Update(update(id, &plan)),
            Some(_) => Made::Answer(Vec::new()),
        };
        self.to_client(id, client::Event::JobDone { round, result: failed.map_or(Ok(made), Err) });
        true
    }

    /// A client has made what it was asked for in a phase of a masked round, or refuses it. Its answer is the request.
    pub fn finish_answer(&mut self, id: ClientId, failed: Option<Decline>) -> bool {
        let Some((round, phase, request)) = self.peer(id).answering.take() else { return false };
        let made = match (phase, &self.open) {
            (Phase::Collecting, Some(open)) => Made::Update(update(id, &open.plan)),
            _ => Made::Answer(request),
        };
        self.to_client(id, client::Event::JobDone { round, result: failed.map_or(Ok(made), Err) });
        true
    }

    /// A client's upload arrives, and is found good or bad.
    pub fn finish_upload(&mut self, id: ClientId, failed: Option<Refusal>) -> bool {
        let Some(round) = self.peer(id).upload.take() else { return false };
        self.to_server(match failed {
            None => server::Event::UploadStaged { client: id, round },
            Some(reason) => server::Event::UploadFailed { client: id, round, reason },
        });
        true
    }

    /// The server's release ends.
    pub fn finish_release(&mut self, result: Result<(), AbortReason>) -> bool {
        let Some(round) = self.release.take() else { return false };
        self.to_server(server::Event::JobDone { job: Job::Release { round }, result });
        true
    }

    /// A message that no honest client sends. Other clients must not feel it.
    pub fn rogue(&mut self, id: ClientId, event: server::Event) {
        let (phase, before) = (self.server.phase(), self.others(id));
        self.to_server(event);
        let after = self.others(id);
        if phase < Some(Phase::Releasing) && self.server.phase() == phase && !before.is_empty() {
            for (client, progress) in before {
                let now = after[&client];
                let granted = matches!((progress, now), (Progress::Offered { .. }, Progress::Granted { .. }));
                assert!(
                    progress == now || granted,
                    "{client} went from {progress:?} to {now:?} by {id}'s message"
                );
            }
        }
    }

    /// Does everything there is to do, in order, until nothing is left.
    pub fn run_honestly(&mut self) {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        loop {
            let mut progress = self.finish_release(Ok(()));
            for &id in &ids {
                progress |= self.deliver_to_server(id)
                    | self.deliver_to_client(id)
                    | self.deliver_model(id, true)
                    | self.finish_training(id, None)
                    | self.finish_answer(id, None)
                    | self.finish_upload(id, None);
            }
            if !progress {
                return;
            }
        }
    }

    /// Gives an event to the server.
    pub fn to_server(&mut self, event: server::Event) {
        self.seen.events.insert((phase_name(&self.server), server_event_name(&event)));
        if let server::Event::GroupLost { round, clients } = &event {
            self.lose(*round, clients);
        }
        self.server.handle(self.now, event);
        self.drain_server();
    }

    /// Gives an event to a client.
    pub fn to_client(&mut self, id: ClientId, event: client::Event) {
        let now = self.now;
        let stage = stage_name(&self.peer(id).machine);
        self.seen.events.insert((stage, client_event_name(&event)));
        self.peer(id).machine.handle(now, event);
        self.drain_client(id);
    }

    /// Where a client is in its round.
    pub fn client_stage(&self, id: ClientId) -> Option<(Round, client::Stage)> {
        self.peers[&id].machine.stage()
    }

    fn others(&self, id: ClientId) -> BTreeMap<ClientId, Progress> {
        let others = self.peers.keys().filter(|&&other| other != id);
        others.filter_map(|&other| Some((other, self.server.assignment(other)?.progress))).collect()
    }

    fn drain_server(&mut self) {
        while let Some(action) = self.server.poll_action() {
            self.check(&action);
            match action {
                server::Action::Send { to, message } => {
                    if let ServerMessage::Refused { reason, .. } = message {
                        self.seen.refusals.insert(reason);
                    }
                    for id in to {
                        self.send_to_client(id, message.clone());
                    }
                }
                server::Action::SendModel { to, round, .. } => self.peer(to).model = Some(round),
                server::Action::GrantUpload { client, round, until, .. } => {
                    let until = until.since(self.now);
                    let offset = self.kept.get(&client).copied().unwrap_or(0);
                    self.send_to_client(client, ServerMessage::Grant { round, offset, until });
                }
                server::Action::Disconnect { client, channel_binding } => {
                    if self.peer(client).channel == Some(channel_binding) {
                        self.disconnect(client);
                    }
                }
                server::Action::Start(Job::Release { round }) => self.release = Some(round),
                server::Action::Ask { to, round, phase } => {
                    for id in to {
                        let part = self.request(round, phase);
                        self.send_to_client(id, ServerMessage::Asked { round, phase, part, last: true });
                    }
                }
                server::Action::Commit { client, .. } | server::Action::Discard { client, .. } => {
                    self.kept.remove(&client);
                }
                server::Action::Closed { round, outcome, progress } => {
                    self.release = None;
                    self.closed.push((round, outcome, progress));
                }
            }
        }
        let granted: u64 = self.open.iter().flat_map(|open| open.granted.values()).sum();
        let grants = self.open.iter().map(|open| open.granted.len()).sum::<usize>();
        assert!(
            granted <= self.limits.upload_memory_bytes || grants == 1,
            "{grants} grants of {granted} bytes"
        );
    }

    fn drain_client(&mut self, id: ClientId) {
        while let Some(action) = self.peer(id).machine.poll_action() {
            match action {
                client::Action::Send(message) => {
                    let peer = self.peer(id);
                    if peer.channel.is_some() {
                        peer.to_server.push_back(message);
                    }
                }
                client::Action::FetchModel { .. } => {}
                client::Action::Start(client::Job::Train(plan)) => self.peer(id).training = Some(plan),
                client::Action::Start(client::Job::Answer { plan, phase, request }) => {
                    self.peer(id).answering = Some((plan.plan().round, phase, request));
                }
                client::Action::Upload { round, offset } => {
                    self.seen.resumed += u64::from(offset > 0);
                    self.peer(id).upload = Some(round);
                }
                client::Action::Closed { end, .. } => {
                    let peer = self.peer(id);
                    (peer.training, peer.answering, peer.upload) = (None, None, None);
                    self.seen.ends.insert(end_name(end));
                }
            }
        }
    }

    /// A group of a masked round is given up.
    fn lose(&mut self, round: Round, clients: &[ClientId]) {
        let Some(open) = &mut self.open else { return };
        let plan = open.plan.plan();
        if plan.round == round && plan.masking().is_some() {
            open.lost.extend(clients);
            open.committed.retain(|client| !clients.contains(client));
        }
    }

    /// What must hold of any round.
    fn check(&mut self, action: &server::Action) {
        let now = self.now;
        let Some(open) = &mut self.open else { return };
        match *action {
            server::Action::GrantUpload { client, len, until, .. } => {
                assert!(!open.releasing && !open.committed.contains(&client));
                assert!(until > now && until <= open.opened + open.plan.plan().deadline);
                open.granted.insert(client, len);
            }
            server::Action::Commit { client, .. } => {
                assert!(!open.releasing, "{client} was committed after the collection ended");
                assert!(open.survivors.is_none(), "{client} was committed after the survivors were frozen");
                assert!(open.granted.remove(&client).is_some(), "{client} was committed without a grant");
                assert!(!open.lost.contains(&client), "{client} was committed after its group was lost");
                assert!(open.committed.insert(client), "{client} was committed twice");
            }
            server::Action::Discard { client, .. } => {
                assert!(open.granted.remove(&client).is_some(), "{client} had nothing to discard");
            }
            server::Action::Ask { ref to, phase, .. } => {
                let masked = open.plan.plan().masking().is_some();
                assert!(
                    masked && !open.releasing,
                    "{phase} was asked in a plain round, or after the release began"
                );
                if phase >= Phase::Consistency {
                    let survivors = open.survivors.get_or_insert_with(|| open.committed.clone());
                    assert!(open.granted.is_empty(), "uploads are in flight while the survivors agree");
                    let left: BTreeSet<_> = survivors.difference(&open.lost).copied().collect();
                    assert_eq!(left, open.committed, "the survivors changed");
                    assert!(to.iter().all(|client| left.contains(client)), "a dropped client was asked");
                }
            }
            server::Action::Start(Job::Release { .. }) => {
                open.releasing = true;
                let masked = open.plan.plan().masking().is_some();
                assert_eq!(open.survivors.is_some(), masked, "unmasked without agreement");
                assert!(open.granted.is_empty(), "uploads are in flight while the sum is released");
                assert!(open.committed.len() >= open.plan.plan().min_updates as usize);
            }
            server::Action::Closed { outcome, ref progress, .. } => {
                let open = self.open.take().expect("it is open");
                self.check_closed(&open, outcome, progress);
            }
            _ => {}
        }
    }

    fn check_closed(&mut self, open: &Open, outcome: Outcome, progress: &[(ClientId, Progress)]) {
        let plan = open.plan.plan();
        assert!(self.now <= open.opened + plan.deadline, "the round ended after its deadline");
        assert!(open.granted.is_empty(), "an upload was neither committed nor discarded");
        let in_sum = |progress| matches!(progress, Progress::Committed | Progress::Withheld(_));
        let committed = progress.iter().filter(|(_, progress)| in_sum(*progress));
        assert_eq!(committed.count(), open.committed.len());
        let updates = open.committed.len() as u32;
        match outcome {
            Outcome::Complete { updates: told } => {
                assert!(told == updates && progress.len() == updates as usize)
            }
            Outcome::Degraded { updates: told, invited } => {
                assert!(told == updates && invited > updates && invited as usize == progress.len());
            }
            Outcome::Aborted(AbortReason::TooFewUpdates { updates: told, required }) => {
                assert!(told == updates && updates < required);
            }
            Outcome::Aborted(_) => {}
        }
        // Those two end a round while there are clients that have done all that was asked.
        let cut_short =
            matches!(outcome, Outcome::Aborted(AbortReason::Stopped | AbortReason::BelowThreshold { .. }));
        if !cut_short {
            let all_answered = progress.iter().all(|(_, progress)| !progress.is_open());
            assert!(all_answered, "a client was left without an end");
        }
        if plan.closure == Closure::AllAnswered {
            let cut_off = progress.iter().any(|(_, p)| *p == Progress::Refused(Refusal::Late));
            let masked = plan.masking().is_some();
            let collect_by = Timing::new(open.opened, plan.deadline, masked).collect_by;
            assert!(
                !cut_off || self.now >= collect_by,
                "a private collection ended before everybody had answered"
            );
        }
        self.seen.outcomes.insert(outcome_name(outcome));
        for (_, progress) in progress {
            if let Progress::Refused(reason) = progress {
                self.seen.refusals.insert(*reason);
            }
        }
    }

    /// What is asked in a phase; all are asked the same here.
    fn request(&self, round: Round, phase: Phase) -> Vec<u8> {
        let survivors = self.open.as_ref().and_then(|open| open.survivors.as_ref());
        let text = format!("{round} {phase} {:?}", survivors.filter(|_| phase >= Phase::Consistency));
        text.into_bytes()
    }

    /// Nobody signs, or reveals anything for, other survivors than those whose updates are in the sum.
    fn check_answer(&self, id: ClientId, round: Round, phase: Phase, body: &[u8]) {
        let open = self.open.as_ref().filter(|open| open.plan.plan().round == round);
        // What a script made up is for real clients to refuse; these echo it.
        let made_up = body == MADE_UP;
        if phase >= Phase::Consistency && !made_up && open.is_some_and(|open| open.committed.contains(&id)) {
            assert_eq!(body, self.request(round, phase), "{id} answered for other survivors");
        }
    }

    fn send_to_client(&mut self, id: ClientId, message: ServerMessage) {
        let peer = self.peer(id);
        if peer.channel.is_some() {
            peer.to_client.push_back(message);
        }
    }

    fn peer(&mut self, id: ClientId) -> &mut Peer {
        self.peers.get_mut(&id).expect("a client of the script")
    }
}

fn update(id: ClientId, plan: &VerifiedPlan) -> Packed {
    Packed { len: plan.plan().upload_bytes(), digest: update_digest(id, plan.plan().round) }
}

/// What a script has a client say that no job made.
pub const MADE_UP: [u8; 1] = [7];

/// The digest of the update that a client of the script makes in a round.
pub fn update_digest(id: ClientId, round: Round) -> Digest {
    Digest::of(&[id.0.to_le_bytes(), round.0.to_le_bytes()].concat())
}

fn phase_name(server: &ServerMachine) -> &'static str {
    match server.phase() {
        None => "no round",
        Some(Phase::Keys) => "keys",
        Some(Phase::Shares) => "shares",
        Some(Phase::Collecting) => "collecting",
        Some(Phase::Consistency) => "consistency",
        Some(Phase::Reveal) => "reveal",
        Some(Phase::Releasing) => "releasing",
    }
}

fn stage_name(client: &ClientMachine) -> &'static str {
    match client.stage() {
        None => "idle",
        Some((_, client::Stage::Fetching)) => "fetching",
        Some((_, client::Stage::Training)) => "training",
        Some((_, client::Stage::Offering(_))) => "offering",
        Some((_, client::Stage::Uploading(_))) => "uploading",
        Some((_, client::Stage::Waiting(Phase::Shares))) => "waiting for shares",
        Some((_, client::Stage::Waiting(Phase::Collecting))) => "waiting for input",
        Some((_, client::Stage::Waiting(Phase::Consistency))) => "waiting for survivors",
        Some((_, client::Stage::Waiting(_))) => "waiting for signatures",
        Some((_, client::Stage::Working(Phase::Shares))) => "sharing",
        Some((_, client::Stage::Working(Phase::Collecting))) => "masking",
        Some((_, client::Stage::Working(Phase::Consistency))) => "signing",
        Some((_, client::Stage::Working(_))) => "revealing",
        Some((_, client::Stage::Finished)) => "finished",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete { .. } => "complete",
        Outcome::Degraded { .. } => "degraded",
        Outcome::Aborted(AbortReason::TooFewUpdates { .. }) => "too few updates",
        Outcome::Aborted(AbortReason::BelowThreshold { .. }) => "below threshold",
        Outcome::Aborted(AbortReason::ReleaseFailed) => "release failed",
        Outcome::Aborted(AbortReason::ReleaseLate) => "release late",
        Outcome::Aborted(AbortReason::Stopped) => "stopped",
        Outcome::Aborted(AbortReason::Interrupted) => "interrupted",
    }
}

fn end_name(end: End) -> &'static str {
    match end {
        End::Committed => "committed",
        End::Declined(_) => "declined",
        End::Refused(_) => "refused",
        End::Over { .. } => "over",
        End::Superseded => "superseded",
        End::Expired => "expired",
    }
}

fn server_event_name(event: &server::Event) -> &'static str {
    match event {
        server::Event::Connected { .. } => "connected",
        server::Event::Disconnected { .. } => "disconnected",
        server::Event::Accepted { .. } => "accepted",
        server::Event::Declined { .. } => "declined",
        server::Event::Answered { .. } => "answered",
        server::Event::PhaseFailed { .. } => "phase failed",
        server::Event::GroupLost { .. } => "group lost",
        server::Event::UploadOffered { .. } => "upload offered",
        server::Event::UploadStaged { .. } => "upload staged",
        server::Event::UploadFailed { .. } => "upload failed",
        server::Event::Violated { .. } => "violated",
        server::Event::JobDone { .. } => "job done",
        server::Event::ShutOut { .. } => "shut out",
        server::Event::Tick => "tick",
    }
}

fn client_event_name(event: &client::Event) -> &'static str {
    match event {
        client::Event::Disconnected => "disconnected",
        client::Event::Invited(_) => "invited",
        client::Event::Unwilling { .. } => "unwilling",
        client::Event::ModelStaged { .. } => "model staged",
        client::Event::ModelFailed { .. } => "model failed",
        client::Event::JobDone { .. } => "job done",
        client::Event::Asked { .. } => "asked",
        client::Event::Granted { .. } => "granted",
        client::Event::Committed { .. } => "committed",
        client::Event::Refused { .. } => "refused",
        client::Event::Closed { .. } => "closed",
        client::Event::Tick => "tick",
    }
}
