//! Both machines under random schedules: joins, losses, delays, duplicates, rogues, failures, in any order.
//!
//! What must hold of every round is asserted by the scripted network at every step. Here the schedule is random, and at the
//! end it is asserted that the schedules reached every phase, stage, event, refusal, decline and outcome.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use skep_protocol::plan::Closure;
use skep_protocol::round::server::{Event, Job, Limits};
use skep_protocol::round::{AbortReason, Decline, Phase, Refusal, client};
use skep_protocol::{ClientId, Digest, Round, Span};
use skep_tests::plans;
use skep_tests::scripted::{MADE_UP, Network, Seen, update_digest};

const CLIENTS: u64 = 4;
const SCHEDULES: u32 = 4000;
/// Steps that a masked round of honest clients takes, and some more.
const POINTS: usize = 120;

/// One step of a schedule.
#[derive(Clone, Debug)]
enum Step {
    Open {
        first: bool,
        kind: Kind,
        invited: u64,
        min_updates: u32,
    },
    Connect(u64),
    Disconnect(u64),
    ToServer(u64),
    ToClient(u64),
    Model(u64, bool),
    Train(u64, Option<Decline>),
    Answer(u64, Option<Decline>),
    Upload(u64, Option<Refusal>),
    Release(bool),
    Advance(u64),
    Stop,
    Rogue(u64, Rogue),
    /// The sum of a group is lost, that of these clients, by the bits of a number; they need not be in the round.
    Lose {
        round: u64,
        clients: u64,
    },
    /// A client hears something that the server did not say now.
    Stray(u64, Stray),
    /// A client does the first thing there is to do, so that schedules get far.
    Walk(u64),
    /// Everybody does everything there is to do.
    Honest,
}

/// What a round collects.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Open,
    Private,
    Masked,
}

/// What a rogue client, or a late driver, says.
#[derive(Clone, Debug)]
enum Rogue {
    Accept {
        round: u64,
        right_plan: bool,
    },
    Decline {
        round: u64,
    },
    Offer {
        round: u64,
        len: u64,
        own: bool,
    },
    Answer {
        round: u64,
        phase: Phase,
    },
    PhaseFailed {
        round: u64,
    },
    /// Of the group of this client alone.
    GroupLost {
        round: u64,
    },
    Staged {
        round: u64,
    },
    Failed {
        round: u64,
    },
    Violate(Refusal),
    JobDone {
        round: u64,
        succeeded: bool,
    },
}

#[derive(Clone, Debug)]
enum Stray {
    Invite { round: u64, wrong: bool },
    Model(u64),
    NoModel(u64),
    Trained(u64, bool),
    Asked(u64, Phase),
    Grant(u64, u64),
    Committed(u64),
    Refused(u64),
    Closed(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        3 => (any::<bool>(), kind(), 0..=CLIENTS, 1..3u32)
            .prop_map(|(first, kind, invited, min_updates)| Step::Open { first, kind, invited, min_updates }),
        4 => client.clone().prop_map(Step::Connect),
        1 => client.clone().prop_map(Step::Disconnect),
        8 => client.clone().prop_map(Step::ToServer),
        8 => client.clone().prop_map(Step::ToClient),
        5 => (client.clone(), prop::bool::weighted(0.9)).prop_map(|(id, whole)| Step::Model(id, whole)),
        5 => (client.clone(), prop::option::weighted(0.1, training_failure()))
            .prop_map(|(id, failed)| Step::Train(id, failed)),
        8 => (client.clone(), prop::option::weighted(0.05, answer_failure()))
            .prop_map(|(id, failed)| Step::Answer(id, failed)),
        8 => (client.clone(), prop::option::weighted(0.5, upload_failure()))
            .prop_map(|(id, failed)| Step::Upload(id, failed)),
        2 => prop::bool::weighted(0.6).prop_map(Step::Release),
        3 => prop_oneof![6 => 0..300u64, 1 => 0..12_000u64].prop_map(Step::Advance),
        1 => Just(Step::Stop),
        6 => (client.clone(), rogue()).prop_map(|(id, rogue)| Step::Rogue(id, rogue)),
        4 => (client, stray()).prop_map(|(id, stray)| Step::Stray(id, stray)),
        1 => lose(),
        24 => (0..CLIENTS).prop_map(Step::Walk),
        1 => Just(Step::Honest),
    ]
}

/// Wild schedules reach every refusal; calm ones, in which little goes wrong, reach the last phases of masked rounds.
fn schedule() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let mishap = prop_oneof![
        5 => (client.clone(), answer_failure()).prop_map(|(id, reason)| Step::Answer(id, Some(reason))),
        8 => (client.clone(), stray()).prop_map(|(id, stray)| Step::Stray(id, stray)),
        8 => (client.clone(), rogue()).prop_map(|(id, rogue)| Step::Rogue(id, rogue)),
        1 => client.clone().prop_map(Step::Disconnect),
        1 => lose(),
        1 => step(),
    ];
    let calm = prop_oneof![
        1 => (0..=CLIENTS).prop_map(|invited| {
            Step::Open { first: false, kind: Kind::Masked, invited, min_updates: 1 }
        }),
        4 => client.clone().prop_map(Step::Connect),
        60 => client.clone().prop_map(Step::Walk),
        15 => client.clone().prop_map(|id| Step::Upload(id, None)),
        1 => any::<bool>().prop_map(Step::Release),
        8 => mishap,
    ];
    prop_oneof![
        2 => prop::collection::vec(step(), 40..200),
        3 => prop::collection::vec(calm, 100..400),
    ]
}

/// Some of the clients, or all.
fn lose() -> impl Strategy<Value = Step> {
    (0..3u64, 1..1u64 << CLIENTS).prop_map(|(round, clients)| Step::Lose { round, clients })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![1 => Just(Kind::Open), 1 => Just(Kind::Private), 3 => Just(Kind::Masked)]
}

fn phase() -> impl Strategy<Value = Phase> {
    prop::sample::select(vec![
        Phase::Keys,
        Phase::Shares,
        Phase::Collecting,
        Phase::Consistency,
        Phase::Reveal,
        Phase::Releasing,
    ])
}

/// What a client may find wrong with what it is asked.
fn answer_failure() -> impl Strategy<Value = Decline> {
    prop::sample::select(REFUSED_REQUESTS.to_vec())
}

const REFUSED_REQUESTS: [Decline; 15] = [
    Decline::NoRandomness,
    Decline::TooFewHolders,
    Decline::SmallCohort,
    Decline::WeakThreshold,
    Decline::BadPeers,
    Decline::UnknownPeer,
    Decline::UnlistedPeer,
    Decline::StaleRoster,
    Decline::UnsignedKeys,
    Decline::DuplicateKeys,
    Decline::BadKeys,
    Decline::Flooded,
    Decline::BadShares,
    Decline::BadSurvivors,
    Decline::NoAgreement,
];

fn training_failure() -> impl Strategy<Value = Decline> {
    prop::sample::select(vec![Decline::TrainingFailed, Decline::Unencodable, Decline::Policy])
}

fn upload_failure() -> impl Strategy<Value = Refusal> {
    prop::sample::select(vec![
        Refusal::TooLong,
        Refusal::DigestMismatch,
        Refusal::OutOfRange,
        Refusal::NormExceeded,
        Refusal::Malformed,
    ])
}

fn rogue() -> impl Strategy<Value = Rogue> {
    // Around the last round, see `near`.
    let round = 0..3u64;
    prop_oneof![
        (round.clone(), any::<bool>()).prop_map(|(round, right_plan)| Rogue::Accept { round, right_plan }),
        round.clone().prop_map(|round| Rogue::Decline { round }),
        (round.clone(), prop_oneof![Just(32u64), any::<u64>()], any::<bool>())
            .prop_map(|(round, len, own)| Rogue::Offer { round, len, own }),
        (round.clone(), phase()).prop_map(|(round, phase)| Rogue::Answer { round, phase }),
        round.clone().prop_map(|round| Rogue::PhaseFailed { round }),
        round.clone().prop_map(|round| Rogue::GroupLost { round }),
        round.clone().prop_map(|round| Rogue::Staged { round }),
        round.clone().prop_map(|round| Rogue::Failed { round }),
        prop::sample::select(vec![Refusal::Malformed, Refusal::BadSignature]).prop_map(Rogue::Violate),
        (round, any::<bool>()).prop_map(|(round, succeeded)| Rogue::JobDone { round, succeeded }),
    ]
}

fn stray() -> impl Strategy<Value = Stray> {
    // Around the last round, see `near`.
    let round = 0..3u64;
    prop_oneof![
        (round.clone(), any::<bool>()).prop_map(|(round, wrong)| Stray::Invite { round, wrong }),
        round.clone().prop_map(Stray::Model),
        round.clone().prop_map(Stray::NoModel),
        (round.clone(), any::<bool>()).prop_map(|(round, answer)| Stray::Trained(round, answer)),
        (round.clone(), phase()).prop_map(|(round, phase)| Stray::Asked(round, phase)),
        (round.clone(), 0..40u64).prop_map(|(round, offset)| Stray::Grant(round, offset)),
        round.clone().prop_map(Stray::Committed),
        round.clone().prop_map(Stray::Refused),
        round.prop_map(Stray::Closed),
    ]
}

/// A network and the number of its last round.
struct Schedule {
    network: Network,
    round: u64,
}

impl Schedule {
    fn new() -> Self {
        let limits = Limits { upload_memory_bytes: 64, min_upload_bytes_per_s: 32 };
        Schedule { network: Network::new(CLIENTS, limits), round: 0 }
    }

    fn take(&mut self, step: &Step) {
        let network = &mut self.network;
        match *step {
            Step::Open { first, kind, invited, min_updates } => self.open(first, kind, invited, min_updates),
            Step::Connect(id) => network.connect(ClientId(id)),
            Step::Disconnect(id) => network.disconnect(ClientId(id)),
            Step::ToServer(id) => drop(network.deliver_to_server(ClientId(id))),
            Step::ToClient(id) => drop(network.deliver_to_client(ClientId(id))),
            Step::Model(id, whole) => drop(network.deliver_model(ClientId(id), whole)),
            Step::Train(id, failed) => drop(network.finish_training(ClientId(id), failed)),
            Step::Answer(id, failed) => drop(network.finish_answer(ClientId(id), failed)),
            Step::Upload(id, failed) => drop(network.finish_upload(ClientId(id), failed)),
            Step::Release(succeeded) => drop(network.finish_release(released(succeeded))),
            Step::Advance(millis) => network.advance(Span::from_millis(millis)),
            Step::Stop => {
                network.server.stop();
                network.tick();
            }
            Step::Lose { round, clients } => {
                let clients = (0..CLIENTS).filter(|id| clients >> id & 1 == 1).map(ClientId).collect();
                network.to_server(Event::GroupLost { round: near(self.round, round), clients });
            }
            Step::Rogue(id, ref rogue) => network.rogue(ClientId(id), event(ClientId(id), self.round, rogue)),
            Step::Stray(id, ref stray) => {
                network.to_client(ClientId(id), heard(ClientId(id), self.round, stray))
            }
            Step::Walk(id) => drop(walk(network, ClientId(id))),
            Step::Honest => network.run_honestly(),
        }
    }

    fn open(&mut self, first: bool, kind: Kind, invited: u64, min_updates: u32) {
        if self.network.server.open_round().is_some() {
            return;
        }
        self.round += 1;
        let mut plan = match kind {
            Kind::Open => plans::plan(self.round, CLIENTS as u32),
            Kind::Private => plans::private_plan(self.round, CLIENTS as u32),
            Kind::Masked => plans::masked_plan(self.round, CLIENTS as u32),
        };
        if first && matches!(kind, Kind::Open) {
            plan.closure = Closure::FirstUpdates(min_updates);
        }
        plan.min_updates = plan.min_updates.max(min_updates);
        self.network.open(plans::signed(plan), &(0..invited).map(ClientId).collect());
    }

    /// Whatever has happened, every round ends by its deadline.
    fn end(mut self) -> Seen {
        self.network.advance(Span::from_millis(10_000));
        assert_eq!(self.network.server.open_round(), None);
        assert_eq!(self.network.next_deadline(), None, "somebody still waits");
        assert_eq!(self.network.closed.len() as u64, self.round, "a round ended twice or never");
        self.network.seen
    }
}

fn walk(network: &mut Network, id: ClientId) -> bool {
    network.deliver_to_client(id)
        || network.deliver_to_server(id)
        || network.deliver_model(id, true)
        || network.finish_training(id, None)
        || network.finish_answer(id, None)
}

/// The round before the last one, the last one, or the one after it.
fn near(last: u64, offset: u64) -> Round {
    Round((last + offset).saturating_sub(1))
}

fn event(client: ClientId, last: u64, rogue: &Rogue) -> Event {
    match *rogue {
        Rogue::Accept { round, right_plan } => {
            let plan = match right_plan {
                true => plans::signed(plans::plan(near(last, round).0, CLIENTS as u32)).digest(),
                false => Digest([0; 32]),
            };
            Event::Accepted { client, round: near(last, round), plan }
        }
        Rogue::Decline { round } => {
            Event::Declined { client, round: near(last, round), reason: Decline::Policy }
        }
        Rogue::Offer { round, len, own } => {
            let round = near(last, round);
            let digest = if own { update_digest(client, round) } else { Digest([9; 32]) };
            Event::UploadOffered { client, round, len, digest }
        }
        Rogue::Answer { round, phase } => Event::Answered { client, round: near(last, round), phase },
        Rogue::PhaseFailed { round } => {
            let reason = AbortReason::BelowThreshold { phase: Phase::Reveal, answered: 1, required: 2 };
            Event::PhaseFailed { round: near(last, round), reason }
        }
        Rogue::GroupLost { round } => Event::GroupLost { round: near(last, round), clients: vec![client] },
        Rogue::Staged { round } => Event::UploadStaged { client, round: near(last, round) },
        Rogue::Failed { round } => {
            Event::UploadFailed { client, round: near(last, round), reason: Refusal::NormExceeded }
        }
        Rogue::Violate(reason) => Event::Violated { client, reason },
        Rogue::JobDone { round, succeeded } => {
            Event::JobDone { job: Job::Release { round: near(last, round) }, result: released(succeeded) }
        }
    }
}

fn heard(id: ClientId, last: u64, stray: &Stray) -> client::Event {
    match *stray {
        Stray::Invite { round, wrong } => {
            let mut plan = plans::plan(near(last, round).0, CLIENTS as u32);
            match (wrong, last % 2) {
                (true, 0) => plan.task = Digest([0; 32]),
                (true, _) => plan.encoding.wire_bits -= 1,
                (false, _) => {}
            }
            client::Event::Invited(plans::signed(plan))
        }
        Stray::Model(round) => client::Event::ModelStaged { round: near(last, round) },
        Stray::NoModel(round) => client::Event::ModelFailed { round: near(last, round) },
        Stray::Trained(round, answer) => {
            let packed = client::Packed { len: 32, digest: update_digest(id, near(last, round)) };
            let made =
                if answer { client::Made::Answer(MADE_UP.to_vec()) } else { client::Made::Update(packed) };
            client::Event::JobDone { round: near(last, round), result: Ok(made) }
        }
        Stray::Asked(round, phase) => {
            client::Event::Asked { round: near(last, round), phase, request: MADE_UP.to_vec() }
        }
        Stray::Grant(round, offset) => {
            client::Event::Granted { round: near(last, round), offset, until: Span::from_millis(100) }
        }
        Stray::Committed(round) => client::Event::Committed { round: near(last, round) },
        Stray::Refused(round) => {
            client::Event::Refused { round: Some(near(last, round)), reason: Refusal::Unexpected }
        }
        Stray::Closed(round) => client::Event::Closed { round: near(last, round), released: true },
    }
}

#[test]
fn no_schedule_breaks_a_round_and_every_corner_is_reached() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: SCHEDULES, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let seen = std::cell::RefCell::new(Seen::default());
    runner
        .run(&schedule(), |steps| {
            let mut schedule = Schedule::new();
            for step in &steps {
                schedule.take(step);
            }
            merge(&mut seen.borrow_mut(), schedule.end());
            Ok(())
        })
        .expect("no schedule breaks a round");
    let mut seen = seen.into_inner();
    every_disturbance_at_every_point(&mut seen);
    assert_reached(&seen);
}

/// Whatever happens at whatever point of an honest masked round.
fn every_disturbance_at_every_point(seen: &mut Seen) {
    for steps in 0..POINTS {
        for disturbance in disturbances() {
            let mut schedule = Schedule::new();
            (0..CLIENTS).for_each(|id| schedule.take(&Step::Connect(id)));
            schedule.take(&Step::Open { first: false, kind: Kind::Masked, invited: CLIENTS, min_updates: 1 });
            for id in (0..CLIENTS).cycle().take(steps) {
                schedule.take(&Step::Walk(id));
                schedule.take(&Step::Upload(id, None));
            }
            schedule.take(&disturbance);
            merge(seen, schedule.end());
        }
    }
}

/// Of and by client 0, in the round that is open.
fn disturbances() -> Vec<Step> {
    let strays = [
        Stray::Invite { round: 1, wrong: false },
        Stray::Model(1),
        Stray::NoModel(1),
        Stray::Trained(1, false),
        Stray::Trained(1, true),
        Stray::Asked(1, Phase::Consistency),
        Stray::Grant(1, 0),
        Stray::Committed(1),
        Stray::Refused(1),
        Stray::Closed(1),
    ];
    let rogues = [
        Rogue::Accept { round: 1, right_plan: true },
        Rogue::Decline { round: 1 },
        Rogue::Answer { round: 1, phase: Phase::Reveal },
        Rogue::PhaseFailed { round: 1 },
        Rogue::GroupLost { round: 1 },
        Rogue::Offer { round: 1, len: 32, own: true },
        Rogue::Staged { round: 1 },
        Rogue::Failed { round: 1 },
        Rogue::Violate(Refusal::Malformed),
        Rogue::JobDone { round: 1, succeeded: true },
    ];
    let strays = strays.map(|stray| Step::Stray(0, stray));
    let rogues = rogues.map(|rogue| Step::Rogue(0, rogue));
    let half = Step::Lose { round: 1, clients: 0b11 };
    strays.into_iter().chain(rogues).chain([half, Step::Disconnect(0), Step::Advance(0)]).collect()
}

/// What a release comes to.
fn released(succeeded: bool) -> Result<(), AbortReason> {
    if succeeded { Ok(()) } else { Err(AbortReason::ReleaseFailed) }
}

fn merge(all: &mut Seen, one: Seen) {
    all.outcomes.extend(one.outcomes);
    all.refusals.extend(one.refusals);
    all.ends.extend(one.ends);
    all.declines.extend(one.declines);
    all.events.extend(one.events);
    all.resumed += one.resumed;
}

fn assert_reached(seen: &Seen) {
    let outcomes = [
        "below threshold",
        "complete",
        "degraded",
        "release failed",
        "release late",
        "stopped",
        "too few updates",
    ];
    assert_eq!(seen.outcomes, BTreeSet::from(outcomes));
    let refusals = [
        Refusal::NoRound,
        Refusal::WrongRound,
        Refusal::NotInvited,
        Refusal::WrongPlan,
        Refusal::Late,
        Refusal::Duplicate,
        Refusal::Unexpected,
        Refusal::WrongLength,
        Refusal::TooLong,
        Refusal::DigestMismatch,
        Refusal::OutOfRange,
        Refusal::NormExceeded,
        Refusal::Malformed,
        Refusal::BadSignature,
        Refusal::GrantExpired,
        Refusal::NoAnswer,
        Refusal::ConnectionLost,
        Refusal::GroupLost,
    ];
    assert_eq!(seen.refusals, BTreeSet::from(refusals));
    let ends = ["committed", "declined", "expired", "over", "refused", "superseded"];
    assert_eq!(seen.ends, BTreeSet::from(ends));
    let declines = [
        Decline::StaleRound,
        Decline::WrongTask,
        Decline::Inconsistent,
        Decline::NoModel,
        Decline::TrainingFailed,
        Decline::Unencodable,
        Decline::Policy,
        Decline::AskedTwice,
        Decline::OutOfTurn,
    ];
    let declines = declines.into_iter().chain(REFUSED_REQUESTS).collect();
    assert_eq!(seen.declines, declines);
    assert!(seen.resumed > 0);
    let server = ["no round", "keys", "shares", "collecting", "consistency", "reveal", "releasing"];
    let server_events = [
        "connected",
        "disconnected",
        "accepted",
        "declined",
        "answered",
        "phase failed",
        "group lost",
        "upload offered",
        "upload staged",
        "upload failed",
        "violated",
        "job done",
        "tick",
    ];
    let client = [
        "idle",
        "fetching",
        "training",
        "waiting for shares",
        "sharing",
        "waiting for input",
        "masking",
        "offering",
        "uploading",
        "waiting for survivors",
        "signing",
        "waiting for signatures",
        "revealing",
        "finished",
    ];
    let client_events = [
        "disconnected",
        "invited",
        "model staged",
        "model failed",
        "job done",
        "asked",
        "granted",
        "committed",
        "refused",
        "closed",
        "tick",
    ];
    let server = server.iter().flat_map(|&phase| server_events.iter().map(move |&event| (phase, event)));
    let client = client.iter().flat_map(|&stage| client_events.iter().map(move |&event| (stage, event)));
    let missing: Vec<_> = server.chain(client).filter(|pair| !seen.events.contains(pair)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}
