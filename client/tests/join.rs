//! A client against a scripted server: whole rounds, hostile servers, and connections that break anywhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use skep_client::join::{JoinError, JoinOptions, Leaving, Lost, TrainingSlots, join};
use skep_client::task::{TaskError, architecture};
use skep_client::trainer::{Participant, pack};
use skep_privacy::ledger::{Body, Hash, KeyRotate, Record, rotation_text};
use skep_protocol::codec::{CodecError, WIRE_VERSION};
use skep_protocol::experiment::{Batch, Model, Task};
use skep_protocol::message::{ClientMessage, ServerMessage};
use skep_protocol::net::websocket::{NetError, Timeouts};
use skep_protocol::plan::{Plan, PlanError, PlanSigner, VerifiedPlan};
use skep_protocol::round::client::End;
use skep_protocol::round::{Decline, Refusal};
use skep_protocol::{ClientId, Digest, Round};
use support::server::{DEADLINE, Federation, Joining, Session, bytes_of, in_time, keys, options};
use support::{base_model, data, plan_of, private_plan, signed, signed_by, task, weighted_plan};

/// What client 1 makes of a plan without any network.
fn update_for(plan: &VerifiedPlan, task: &Task, model: &[f32]) -> Vec<u8> {
    let mut participant = Participant::new(ClientId(1), data(), keys(), task).unwrap();
    pack(&participant.train(plan, task, model).unwrap().update)
}

async fn ended(joining: Joining) -> Result<skep_client::join::JoinReport, JoinError> {
    in_time(joining).await.unwrap()
}

/// A task whose update takes three chunks of 1 MiB, with its first model.
fn large_task() -> (Task, Vec<f32>) {
    let model = Model::Mlp { hidden: vec![8192], activation: skep_protocol::experiment::Activation::Relu };
    let mut task = Task { model, ..task() };
    task.training.local_epochs = 1;
    task.training.batch = Batch::Full;
    let parameters = architecture(&task).initial_parameters([5; 32]).unwrap();
    (task, parameters)
}

fn large_plan(round: u64) -> Plan {
    let (task, model) = large_task();
    Plan { base_model: Digest::of_model(&model), ..plan_of(&task, round) }
}

#[tokio::test]
async fn rounds_of_every_kind_run_from_invitation_to_commitment() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    assert_eq!(session.peer.client, ClientId(1));
    for plan in [plan_of(&task(), 1), private_plan(2, 0.5), weighted_plan(7, 50)] {
        let plan = signed(plan);
        let upload = session.play(&plan, &base_model()).await;
        assert_eq!(upload, update_for(&plan, &task(), &base_model()), "the update is the simulated one");
        session.say(&ServerMessage::Closed { round: plan.plan().round, released: true }).await;
    }
    session.finish_federation().await;
    let report = ended(joining).await.unwrap();
    assert_eq!((report.leaving, report.connections), (Leaving::Finished, 1));
    assert_eq!(report.rounds, BTreeMap::from([(End::Committed, 3)]));
    let updates = 2 * 650 * 4;
    assert!(report.bytes_up > updates && report.bytes_down > 3 * 650 * 4, "{report:?}");
}

#[tokio::test]
async fn three_clients_share_one_training_slot() {
    let federation = Federation::new().await;
    let options = JoinOptions { training_slots: TrainingSlots::new(1.try_into().unwrap()), ..options() };
    let joining: Vec<_> =
        (1..=3).map(|client| federation.join_as(federation.identity(client), options.clone())).collect();
    let plan = signed(plan_of(&task(), 1));
    let mut sessions = Vec::new();
    for _ in &joining {
        let mut session = federation.welcome(&task()).await;
        session.open(&plan).await;
        session.send_model(Round(1), &base_model(), 1 << 20).await;
        sessions.push(session);
    }
    let mut updates = Vec::new();
    for session in &mut sessions {
        updates.push(session.finish(&plan).await);
        session.finish_federation().await;
    }
    assert!(updates[0] != updates[1] && updates[1] != updates[2]);
    for client in joining {
        assert_eq!(ended(client).await.unwrap().rounds, BTreeMap::from([(End::Committed, 1)]));
    }
}

#[tokio::test]
async fn t22_a_plan_that_the_federations_key_did_not_sign_ends_it() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    session.invite(&signed_by(plan_of(&task(), 1), &PlanSigner::from_seed(&[8; 32]))).await;
    session.hear_nothing_more().await;
    let error = ended(joining).await.unwrap_err();
    assert!(matches!(error, JoinError::Plan(PlanError::Signature)), "{error}");
    assert!(error.to_string().contains("signature is not that of this federation's server"), "{error}");
}

/// The record in which `from` hands a ledger over to `to`, to which `agreed` agreed.
fn rotation(from: &PlanSigner, to: &PlanSigner, agreed: &PlanSigner) -> Vec<u8> {
    let (seq, previous) = (5, Hash::of(b"the record before"));
    let proof = agreed.sign(&rotation_text(seq, previous, &from.key(), &to.key()));
    let body = Body::KeyRotate(KeyRotate { key: to.key(), proof });
    Record { seq, previous, time_ms: 0, body }.sign(from)
}

#[tokio::test]
async fn a_client_follows_the_key_that_its_own_has_handed_over_to_and_no_other() {
    let federation = Federation::new().await;
    let [second, third] = [8, 9].map(|seed| PlanSigner::from_seed(&[seed; 32]));
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    let chain = [rotation(&support::signer(), &second, &second), rotation(&second, &third, &third)];
    session.say(&ServerMessage::Rotated(chain.to_vec())).await;
    session.play(&signed_by(plan_of(&task(), 1), &third), &base_model()).await;
    // On the next connection it starts from where it is, and the old key is worth nothing any more.
    drop(session);
    let mut session = federation.welcome(&task()).await;
    session.say(&ServerMessage::Rotated(chain.to_vec())).await;
    session.play(&signed_by(plan_of(&task(), 2), &third), &base_model()).await;
    session.invite(&signed(plan_of(&task(), 3))).await;
    session.hear_nothing_more().await;
    assert!(matches!(ended(joining).await, Err(JoinError::Plan(PlanError::Signature))));

    let forged = [
        rotation(&third, &second, &second),
        rotation(&support::signer(), &second, &third),
        chain[0][1..].to_vec(),
    ];
    for forged in forged {
        let joining = federation.join(1);
        let mut session = federation.welcome(&task()).await;
        session.say(&ServerMessage::Rotated(vec![forged])).await;
        session.invite(&signed_by(plan_of(&task(), 1), &second)).await;
        session.hear_nothing_more().await;
        assert!(matches!(ended(joining).await, Err(JoinError::Plan(PlanError::Signature))));
    }
}

#[tokio::test]
async fn a_plan_that_contradicts_the_task_is_declined_and_the_next_one_is_not() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    let inconsistent = Plan { segments: vec![], ..plan_of(&task(), 1) };
    session.invite(&signed(inconsistent)).await;
    let declined = ClientMessage::Decline { round: Round(1), reason: Decline::Inconsistent };
    assert_eq!(session.hear().await, declined);
    session.play(&signed(plan_of(&task(), 2)), &base_model()).await;
    session.invite(&signed(private_plan(2, 1.0))).await;
    let stale = ClientMessage::Decline { round: Round(2), reason: Decline::StaleRound };
    assert_eq!(session.hear().await, stale);
    session.finish_federation().await;
    let rounds = ended(joining).await.unwrap().rounds;
    assert_eq!(rounds, BTreeMap::from([(End::Committed, 1), (End::Declined(Decline::Inconsistent), 1)]));
}

#[tokio::test]
async fn a_model_other_than_planned_is_declined_and_the_next_round_runs() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    let bytes = bytes_of(&base_model());
    let (len, digest) = (bytes.len() as u64, Digest::of(&bytes));
    let mut altered = base_model();
    altered[7] += 1.0;
    let altered = bytes_of(&altered);
    let longer = [bytes.as_slice(), &[0]].concat();
    // What is announced, and what is sent then.
    type Sent<'a> = Option<(u64, &'a [u8])>;
    let cases: [(u64, Digest, Sent<'_>); 6] = [
        (len + 4, digest, None),
        (u64::MAX, digest, None),
        (len, Digest::of(&altered), None),
        (len, digest, Some((0, &altered))),
        (len, digest, Some((0, &longer))),
        (len, digest, Some((4, &bytes[4..]))),
    ];
    for (number, (len, digest, sent)) in cases.into_iter().enumerate() {
        let round = Round(number as u64 + 1);
        session.open(&signed(plan_of(&task(), round.0))).await;
        session.announce(round, len, digest).await;
        if let Some((offset, contents)) = sent {
            session.send_chunk(round, offset, contents).await;
        }
        assert_eq!(session.hear().await, ClientMessage::Decline { round, reason: Decline::NoModel });
    }
    session.play(&signed(plan_of(&task(), 7)), &base_model()).await;
    session.finish_federation().await;
    let rounds = ended(joining).await.unwrap().rounds;
    assert_eq!(rounds, BTreeMap::from([(End::Committed, 1), (End::Declined(Decline::NoModel), 6)]));
}

#[tokio::test]
async fn training_that_diverges_is_declined() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut diverging = task();
    diverging.training.learning_rate = 1e38;
    let mut session = federation.welcome(&diverging).await;
    session.open(&signed(plan_of(&diverging, 1))).await;
    session.send_model(Round(1), &base_model(), 1 << 20).await;
    let declined = ClientMessage::Decline { round: Round(1), reason: Decline::Unencodable };
    assert_eq!(session.hear().await, declined);
    session.finish_federation().await;
    ended(joining).await.unwrap();
}

#[tokio::test]
async fn rounds_that_the_server_ends_are_counted_and_do_not_stop_the_client() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    session.open(&signed(plan_of(&task(), 1))).await;
    session.say(&ServerMessage::Closed { round: Round(1), released: false }).await;
    let plan = signed(plan_of(&task(), 2));
    session.open(&plan).await;
    // A model of the round before may still be under way.
    session.send_chunk(Round(1), 0, &bytes_of(&base_model())).await;
    session.send_model(Round(2), &base_model(), 1000).await;
    session.hear_offer(&plan).await;
    let refused = ServerMessage::Refused { round: Some(Round(2)), reason: Refusal::BadSignature };
    session.say(&refused).await;
    session.open(&signed(plan_of(&task(), 3))).await;
    session.open(&signed(plan_of(&task(), 4))).await;
    session.finish_federation().await;
    let rounds = ended(joining).await.unwrap().rounds;
    let expected = [End::Over { released: false }, End::Refused(Refusal::BadSignature), End::Superseded];
    assert_eq!(rounds, expected.into_iter().map(|end| (end, 1)).collect());
}

/// How far a round comes before the server vanishes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Connected,
    Welcomed,
    Accepted,
    Announced,
    HalfAModel,
    Training,
    Offered,
    Granted,
}

async fn play_until(phase: Phase, session: &mut Session, plan: &VerifiedPlan, model: &[f32]) {
    let (round, bytes) = (plan.plan().round, bytes_of(model));
    if phase == Phase::Connected {
        return;
    }
    session.say(&ServerMessage::Welcome(Box::new(task()))).await;
    if phase == Phase::Welcomed {
        return;
    }
    session.open(plan).await;
    if phase == Phase::Accepted {
        return;
    }
    session.announce(round, bytes.len() as u64, Digest::of(&bytes)).await;
    if phase == Phase::Announced {
        return;
    }
    session.send_chunk(round, 0, &bytes[..1300]).await;
    if phase == Phase::HalfAModel {
        return;
    }
    session.send_chunk(round, 1300, &bytes[1300..]).await;
    if phase == Phase::Training {
        return;
    }
    session.hear_offer(plan).await;
}

#[tokio::test]
async fn a_round_resumes_wherever_the_server_vanished() {
    let (model, plan) = (base_model(), signed(private_plan(1, 0.5)));
    let expected = update_for(&plan, &task(), &model);
    let phases = [
        Phase::Connected,
        Phase::Welcomed,
        Phase::Accepted,
        Phase::Announced,
        Phase::HalfAModel,
        Phase::Training,
        Phase::Offered,
        Phase::Granted,
    ];
    for phase in phases {
        let federation = Federation::new().await;
        let joining = federation.join(1);
        let mut session = federation.accept().await;
        play_until(phase, &mut session, &plan, &model).await;
        let mut upload = Vec::new();
        if phase == Phase::Granted {
            session.take_upload(Round(1), &mut upload, expected.len() as u64).await;
            upload.truncate(700);
        }
        drop(session);

        let mut session = federation.welcome(&task()).await;
        session.invite(&plan).await;
        if matches!(phase, Phase::Offered | Phase::Granted | Phase::Training) {
            // The client has the model; it repeats its offer, or makes it as soon as it has trained.
        } else {
            let accept = ClientMessage::Accept { round: Round(1), plan: plan.digest() };
            assert_eq!(session.hear().await, accept, "{phase:?}");
            session.send_model(Round(1), &model, 1000).await;
        }
        let offer = session.hear_offer(&plan).await;
        session.take_upload(Round(1), &mut upload, offer.len).await;
        assert_eq!(upload, expected, "{phase:?}");
        session.say(&ServerMessage::Committed { round: Round(1) }).await;
        session.finish_federation().await;
        let report = ended(joining).await.unwrap();
        assert_eq!(report.rounds, BTreeMap::from([(End::Committed, 1)]), "{phase:?}");
        assert_eq!(report.connections, if phase == Phase::Connected { 1 } else { 2 }, "{phase:?}");
    }
}

#[tokio::test]
async fn an_upload_that_was_cut_between_chunks_goes_on_at_the_servers_offset() {
    let (task, model) = large_task();
    let plan = signed(large_plan(1));
    let len = plan.plan().upload_bytes();
    assert!(len > 2 << 20, "{len} bytes are not three chunks");
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task).await;
    session.open(&plan).await;
    session.send_model(Round(1), &model, 1 << 20).await;
    session.hear_offer(&plan).await;
    let mut upload = Vec::new();
    session.take_upload(Round(1), &mut upload, 1).await;
    assert_eq!(upload.len(), 1 << 20, "one chunk");
    drop(session);

    let mut session = federation.welcome(&task).await;
    session.invite(&plan).await;
    let offer = session.hear_offer(&plan).await;
    session.take_upload(Round(1), &mut upload, len).await;
    assert_eq!(Digest::of(&upload), offer.digest);
    assert_eq!(upload, update_for(&plan, &task, &model));
    // A server that lost the upload after all asks for it again, from anywhere.
    let mut again = upload[..100].to_vec();
    session.take_upload(Round(1), &mut again, len).await;
    assert_eq!(again, upload);
    session.say(&ServerMessage::Committed { round: Round(1) }).await;
    session.finish_federation().await;
    assert_eq!(ended(joining).await.unwrap().rounds, BTreeMap::from([(End::Committed, 1)]));
}

#[tokio::test]
async fn a_grant_beyond_the_update_is_passed_over() {
    let plan = signed(plan_of(&task(), 1));
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    session.open(&plan).await;
    session.send_model(Round(1), &base_model(), 1000).await;
    let offer = session.hear_offer(&plan).await;
    let until = skep_protocol::Span::from_millis(1000);
    session.say(&ServerMessage::Grant { round: Round(1), offset: u64::MAX, until }).await;
    session.say(&ServerMessage::Grant { round: Round(2), offset: 0, until }).await;
    let mut upload = Vec::new();
    session.take_upload(Round(1), &mut upload, offer.len).await;
    assert_eq!(Digest::of(&upload), offer.digest);
    session.finish_federation().await;
    ended(joining).await.unwrap();
}

#[tokio::test]
async fn what_is_no_message_ends_it_with_a_clear_error() {
    let mut unknown = skep_protocol::codec::encode(&ServerMessage::Finished).unwrap();
    unknown[1] = 99;
    let version = vec![WIRE_VERSION + 1, 0, 0, 0, 0];
    for bytes in [unknown, version, vec![WIRE_VERSION]] {
        let federation = Federation::new().await;
        let joining = federation.join(1);
        let mut session = federation.welcome(&task()).await;
        session.say_bytes(bytes.clone()).await;
        session.hear_nothing_more().await;
        let error = ended(joining).await.unwrap_err();
        let named = match &error {
            JoinError::Message(CodecError::Version(found)) => {
                *found == WIRE_VERSION + 1 && bytes[0] == *found
            }
            JoinError::Message(CodecError::Malformed(_)) => bytes[0] == WIRE_VERSION,
            _ => false,
        };
        assert!(named && error.to_string().starts_with("the server sent what is no message"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_begin_with_its_task_is_named() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.accept().await;
    session.say(&ServerMessage::Finished).await;
    assert!(matches!(ended(joining).await, Err(JoinError::NoWelcome)));
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_talked_to() {
    let (ours, theirs) = (Federation::new().await, Federation::new().await);
    let joining = theirs.join_as(theirs.identity_from(1, &theirs, &ours), options());
    assert!(theirs.try_accept().await.is_err());
    let error = ended(joining).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(NetError::TlsHandshake(_))), "{error}");
}

#[tokio::test]
async fn a_client_with_a_certificate_of_another_authority_hears_that_it_is_refused() {
    let (ours, theirs) = (Federation::new().await, Federation::new().await);
    let joining = theirs.join_as(theirs.identity_from(1, &ours, &theirs), options());
    assert!(theirs.try_accept().await.is_err());
    let error = ended(joining).await.unwrap_err();
    assert!(matches!(error, JoinError::Refused(NetError::TlsHandshake(_))), "{error}");
}

#[tokio::test]
async fn a_task_that_makes_no_sense_or_does_not_fit_the_data_ends_it() {
    let nonsense = Task { classes: 1, ..task() };
    let wide = Task { inputs: 65, ..task() };
    for bad in [nonsense, wide] {
        let federation = Federation::new().await;
        let joining = federation.join(1);
        let _session = federation.welcome(&bad).await;
        match ended(joining).await.unwrap_err() {
            JoinError::Task { key: "task.data", .. } => assert_eq!(bad.classes, 1),
            JoinError::Data(TaskError::Inputs { expected: 65, found: 64, .. }) => assert_eq!(bad.inputs, 65),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn another_task_after_a_reconnection_ends_it() {
    let federation = Federation::new().await;
    let joining = federation.join(1);
    drop(federation.welcome(&task()).await);
    let _session = federation.welcome(&Task { name: "letters".into(), ..task() }).await;
    let error = ended(joining).await.unwrap_err();
    assert!(error.to_string().contains("\"letters\" instead of \"digits\""), "{error}");
}

#[tokio::test]
async fn a_server_out_of_reach_is_given_up_and_says_why() {
    let federation = Federation::new().await;
    let identity = federation.identity(1);
    drop(federation);
    let options = JoinOptions { give_up_after: Duration::from_millis(50), ..options() };
    let error = in_time(join(identity, data(), keys(), options, std::future::pending())).await.unwrap_err();
    let last_is_named =
        matches!(&error, JoinError::Unreachable { last: Lost::Net(NetError::Unreachable { .. }), .. });
    assert!(last_is_named, "{error}");
}

#[tokio::test]
async fn a_server_that_never_welcomes_is_given_up() {
    let federation = Federation::new().await;
    let timeouts = Timeouts { handshake: Duration::from_secs(2), ..Timeouts::default() };
    let options = JoinOptions { give_up_after: Duration::from_millis(1), timeouts, ..options() };
    let joining = federation.join_as(federation.identity(1), options);
    let _silent = federation.accept().await;
    assert!(matches!(ended(joining).await, Err(JoinError::Unreachable { .. })));
}

#[tokio::test]
async fn a_client_leaves_when_its_owner_says_so() {
    let federation = Federation::new().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let joining = tokio::spawn(join(federation.identity(1), data(), keys(), options(), shutdown));
    let mut session = federation.welcome(&task()).await;
    session.play(&signed(plan_of(&task(), 1)), &base_model()).await;
    session.open(&signed(plan_of(&task(), 2))).await;
    stop.send(()).unwrap();
    let report = ended(joining).await.unwrap();
    assert_eq!((report.leaving, report.rounds), (Leaving::Stopped, BTreeMap::from([(End::Committed, 1)])));
    session.hear_nothing_more().await;
}

#[tokio::test]
async fn a_client_without_anything_to_say_pings() {
    let federation = Federation::new().await;
    let timeouts = Timeouts { idle: Duration::from_secs(4), ..Timeouts::default() };
    let joining = federation.join_as(federation.identity(1), JoinOptions { timeouts, ..options() });
    let mut session = federation.welcome(&task()).await;
    let before = session.connection.traffic.received();
    let pinged = async {
        while session.connection.traffic.received() == before {
            let brief = Duration::from_millis(50);
            if let Ok(other) = tokio::time::timeout(brief, session.connection.stream.receive()).await {
                panic!("{other:?}");
            }
        }
    };
    tokio::time::timeout(DEADLINE, pinged).await.expect("no ping came");
    joining.abort();
}
