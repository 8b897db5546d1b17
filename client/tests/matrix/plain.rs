//! The phases of a plain round.

use std::time::Duration;

use skep_client::join::{JoinError, JoinOptions, Leaving};
use skep_protocol::codec::{CodecError, WIRE_VERSION};
use skep_protocol::message::{ClientMessage, ServerMessage, TurnAway};
use skep_protocol::net::frame::Frame;
use skep_protocol::net::websocket::{NetError, Timeouts};
use skep_protocol::plan::{PlanError, PlanSigner, VerifiedPlan};
use skep_protocol::round::client::End;
use skep_protocol::round::{Decline, Refusal};
use skep_protocol::{Digest, Round};

use crate::support::server::{Federation, Session, bytes_of, in_time, options};
use crate::support::{base_model, plan_of, signed, signed_by, task};
use crate::{leave, side_by_side};

/// How far the session comes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Phase {
    /// TLS and websocket are there; the task is not.
    Connected,
    Welcomed,
    /// The client has accepted and waits for the model.
    Accepted,
    HalfAModel,
    /// It trains, or has trained.
    Training,
    Offered,
    /// A part of the update has come.
    MidUpload,
    Committed,
}

const PHASES: [Phase; 8] = [
    Phase::Connected,
    Phase::Welcomed,
    Phase::Accepted,
    Phase::HalfAModel,
    Phase::Training,
    Phase::Offered,
    Phase::MidUpload,
    Phase::Committed,
];

/// What the server does then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Vanish,
    Goodbye,
    /// It neither reads nor writes any more.
    Silence,
    Garbage,
    /// A plan that the federation's key did not sign.
    ForgedPlan,
    /// An invitation to a round that is over.
    StalePlan,
    /// A chunk that is no part of the model.
    StrayChunk,
    /// A model announced that is not the plan's.
    OtherModel,
    /// A grant for bytes that the update does not have.
    WildGrant,
    Refuse,
    /// It ends the round without a model.
    Abort,
    TurnAway,
    /// It opens the next round.
    NextRound,
}

const FAULTS: [Fault; 13] = [
    Fault::Vanish,
    Fault::Goodbye,
    Fault::Silence,
    Fault::Garbage,
    Fault::ForgedPlan,
    Fault::StalePlan,
    Fault::StrayChunk,
    Fault::OtherModel,
    Fault::WildGrant,
    Fault::Refuse,
    Fault::Abort,
    Fault::TurnAway,
    Fault::NextRound,
];

/// The name of the state in which the client ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Its update is committed, on this connection or the next.
    Committed,
    /// Its part in the round ended like this, and it takes part in the next.
    RoundEnded(End),
    /// It gives up, for a reason that it names.
    Gives(Reason),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reason {
    NoMessage,
    NoWelcome,
    ForgedPlan,
    TurnedAway,
}

/// Where each cell ends.
fn expected(phase: Phase, fault: Fault) -> State {
    let in_round = phase >= Phase::Accepted && phase < Phase::Committed;
    match (fault, phase) {
        (Fault::Garbage, _) => State::Gives(Reason::NoMessage),
        (Fault::TurnAway, _) => State::Gives(Reason::TurnedAway),
        (Fault::Vanish | Fault::Goodbye | Fault::Silence, _) => State::Committed,
        // The first word must be the task.
        (_, Phase::Connected) => State::Gives(Reason::NoWelcome),
        (Fault::ForgedPlan, _) => State::Gives(Reason::ForgedPlan),
        // To a client that has taken part in nothing yet, a round 0 is a round like others.
        (Fault::StalePlan, Phase::Welcomed) => State::RoundEnded(End::Superseded),
        // What does not belong to the round is passed over.
        (Fault::StalePlan | Fault::WildGrant, _) => State::Committed,
        (Fault::StrayChunk, Phase::HalfAModel) => State::RoundEnded(End::Declined(Decline::NoModel)),
        (Fault::StrayChunk, _) => State::Committed,
        (Fault::OtherModel, Phase::Accepted | Phase::HalfAModel) => {
            State::RoundEnded(End::Declined(Decline::NoModel))
        }
        (Fault::OtherModel, _) => State::Committed,
        (Fault::Refuse, _) if in_round => State::RoundEnded(End::Refused(Refusal::Late)),
        (Fault::Abort, _) if in_round => State::RoundEnded(End::Over { released: false }),
        (Fault::NextRound, _) if in_round => State::RoundEnded(End::Superseded),
        (Fault::Refuse | Fault::Abort | Fault::NextRound, _) => State::Committed,
    }
}

/// The first round, played until the phase. Says what has come of the update.
async fn play_until(phase: Phase, session: &mut Session, plan: &VerifiedPlan) -> Vec<u8> {
    let (round, bytes, mut upload) = (plan.plan().round, bytes_of(&base_model()), Vec::new());
    if phase >= Phase::Welcomed {
        session.say(&ServerMessage::Welcome(Box::new(task()))).await;
    }
    if phase >= Phase::Accepted {
        session.open(plan).await;
    }
    if phase >= Phase::HalfAModel {
        session.announce(round, bytes.len() as u64, Digest::of(&bytes)).await;
        session.send_chunk(round, 0, &bytes[..1300]).await;
    }
    if phase >= Phase::Training {
        session.send_chunk(round, 1300, &bytes[1300..]).await;
    }
    if phase >= Phase::Offered {
        session.hear_offer(plan).await;
    }
    if phase >= Phase::MidUpload {
        session.take_upload(round, &mut upload, 1).await;
        upload.truncate(700);
    }
    if phase >= Phase::Committed {
        session.say(&ServerMessage::Committed { round }).await;
    }
    upload
}

async fn commit(fault: Fault, session: &mut Session, round: Round) {
    match fault {
        Fault::Vanish | Fault::Silence | Fault::Goodbye => {}
        Fault::Garbage => session.say_bytes(vec![WIRE_VERSION, 99, 255, 255]).await,
        Fault::ForgedPlan => {
            let forger = PlanSigner::from_seed(&[8; 32]);
            session.invite(&signed_by(plan_of(&task(), round.0 + 1), &forger)).await;
        }
        Fault::StalePlan => {
            // Signed and valid, of a round before all others.
            session.invite(&signed(plan_of(&task(), 0))).await;
        }
        Fault::StrayChunk => session.send_chunk(round, 99, b"stray").await,
        Fault::OtherModel => session.announce(round, 2600, Digest::of(b"other")).await,
        Fault::WildGrant => {
            let until = skep_protocol::Span::from_millis(1000);
            for (round, offset) in [(round, u64::MAX), (Round(99), 0)] {
                session.say(&ServerMessage::Grant { round, offset, until }).await;
            }
        }
        Fault::Refuse => {
            session.say(&ServerMessage::Refused { round: Some(round), reason: Refusal::Late }).await;
        }
        Fault::Abort => session.say(&ServerMessage::Closed { round, released: false }).await,
        Fault::TurnAway => session.say(&ServerMessage::TurnedAway(TurnAway::Revoked)).await,
        Fault::NextRound => session.invite(&signed(plan_of(&task(), round.0 + 1))).await,
    }
}

/// Plays a round with a client that may have come some way in it, whatever it says first.
async fn play_on(session: &mut Session, plan: &VerifiedPlan, mut upload: Vec<u8>) {
    let round = plan.plan().round;
    loop {
        match in_time(session.connection.stream.receive()).await.unwrap() {
            Some(Frame::Chunk(chunk)) if chunk.transfer == round.0 => {
                if chunk.offset == upload.len() as u64 {
                    upload.extend_from_slice(&chunk.contents);
                }
                if upload.len() as u64 == plan.plan().upload_bytes() {
                    return session.say(&ServerMessage::Committed { round }).await;
                }
            }
            Some(Frame::Chunk(_)) => {}
            Some(Frame::Control(bytes)) => match skep_protocol::codec::decode(&bytes).unwrap() {
                ClientMessage::Accept { round: of, .. } if of == round => {
                    session.send_model(round, &base_model(), 1000).await;
                }
                ClientMessage::Offer(offer) if offer.round == round => {
                    let until = skep_protocol::Span::from_millis(60_000);
                    let offset = upload.len() as u64;
                    session.say(&ServerMessage::Grant { round, offset, until }).await;
                }
                // Of the round before, or to an invitation that is not one.
                _ => {}
            },
            None => panic!("the client left"),
        }
    }
}

/// Says that it is over, and waits for the client's goodbye; an offer made twice may come before.
async fn say_over(session: &mut Session) {
    session.say(&ServerMessage::Finished).await;
    while in_time(session.connection.stream.receive()).await.unwrap().is_some() {}
}

async fn cell(phase: Phase, fault: Fault) {
    let name = format!("{phase:?} x {fault:?}");
    let federation = Federation::new().await;
    // A server that is silent is noticed soon.
    let idle = if fault == Fault::Silence { Duration::from_secs(15) } else { Duration::from_secs(100) };
    let timeouts = Timeouts { idle, handshake: idle, ..Timeouts::default() };
    let joining = federation.join_as(federation.identity(1), JoinOptions { timeouts, ..options() });
    let mut session = federation.accept().await;
    let plan = signed(plan_of(&task(), 1));
    let upload = play_until(phase, &mut session, &plan).await;
    commit(fault, &mut session, plan.plan().round).await;

    let next = signed(plan_of(&task(), 2));
    let report = match expected(phase, fault) {
        State::Gives(reason) => {
            let error = in_time(joining).await.unwrap().unwrap_err();
            assert!(is_named(&error, reason), "{name}: {error}");
            return;
        }
        State::Committed if matches!(fault, Fault::Vanish | Fault::Goodbye | Fault::Silence) => {
            let silent = leave(session, fault == Fault::Silence, fault == Fault::Goodbye).await;
            let mut session = federation.welcome(&task()).await;
            let (plan, upload) = if phase == Phase::Committed { (next, Vec::new()) } else { (plan, upload) };
            session.invite(&plan).await;
            play_on(&mut session, &plan, upload).await;
            say_over(&mut session).await;
            drop(silent);
            in_time(joining).await.unwrap().unwrap()
        }
        State::Committed => {
            let began = phase >= Phase::Accepted && phase < Phase::Committed;
            let plan = if began { plan } else { next };
            if phase == Phase::Accepted {
                session.send_model(Round(1), &base_model(), 1000).await;
            } else if phase == Phase::HalfAModel {
                session.send_chunk(Round(1), 1300, &bytes_of(&base_model())[1300..]).await;
            } else if phase == Phase::Offered {
                let until = skep_protocol::Span::from_millis(60_000);
                session.say(&ServerMessage::Grant { round: Round(1), offset: 0, until }).await;
            } else if phase == Phase::MidUpload {
                // Softmax on the digits is one chunk, which had come.
                session.say(&ServerMessage::Committed { round: Round(1) }).await;
            } else if !began && fault != Fault::NextRound {
                session.invite(&plan).await;
            }
            if phase != Phase::MidUpload {
                play_on(&mut session, &plan, Vec::new()).await;
            }
            say_over(&mut session).await;
            in_time(joining).await.unwrap().unwrap()
        }
        State::RoundEnded(end) => {
            if fault != Fault::NextRound {
                session.invite(&next).await;
            }
            play_on(&mut session, &next, Vec::new()).await;
            say_over(&mut session).await;
            let report = in_time(joining).await.unwrap().unwrap();
            assert_eq!(report.rounds.get(&end), Some(&1), "{name}: {:?}", report.rounds);
            report
        }
    };
    assert_eq!(report.leaving, Leaving::Finished, "{name}");
    let committed = if phase == Phase::Committed { 2 } else { 1 };
    assert_eq!(report.rounds.get(&End::Committed), Some(&committed), "{name}: {:?}", report.rounds);
}

fn is_named(error: &JoinError, reason: Reason) -> bool {
    match reason {
        Reason::NoMessage => matches!(error, JoinError::Message(CodecError::Malformed(_))),
        Reason::NoWelcome => matches!(error, JoinError::NoWelcome),
        Reason::ForgedPlan => matches!(error, JoinError::Plan(PlanError::Signature)),
        Reason::TurnedAway => matches!(error, JoinError::TurnedAway(TurnAway::Revoked)),
    }
}

/// A hundred and four servers side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_does_in_whatever_phase_ends_by_name() {
    let cells = PHASES.into_iter().flat_map(|phase| FAULTS.into_iter().map(move |fault| cell(phase, fault)));
    assert_eq!(side_by_side(cells).await, 104);
}

/// A server that accepts the TCP connection and says nothing, or not TLS, does not hold a client for ever.
#[tokio::test]
async fn a_server_that_is_no_server_is_given_up_by_name() {
    let federation = Federation::new().await;
    let handshake = Duration::from_secs(1);
    let timeouts = Timeouts { handshake, ..Timeouts::default() };
    let options = JoinOptions { timeouts, give_up_after: Duration::from_millis(1), ..options() };
    let joining = federation.join_as(federation.identity(1), options);
    // Nobody accepts: the system takes the connection, and that is all.
    let error = in_time(joining).await.unwrap().unwrap_err();
    let JoinError::Unreachable { last, .. } = &error else { panic!("{error}") };
    assert!(
        matches!(last, skep_client::join::Lost::Net(NetError::HandshakeTimeout(waited)) if *waited == handshake),
        "{error}"
    );
}
