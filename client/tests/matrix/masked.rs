//! The phases of a masked round, towards a client whose peers are clients of the product, too. Each cell ends in a state that has a name:
//! the client's update is in the sum, its part in the round has ended for a reason that it says and it takes part in the next, or it gives
//! up and says why.

use std::sync::Arc;
use std::time::Duration;

use skep_client::join::{JoinError, JoinOptions, JoinReport, Leaving};
use skep_protocol::codec::{self, CodecError, WIRE_VERSION};
use skep_protocol::masked::Body;
use skep_protocol::message::{ClientMessage, ServerMessage, TurnAway};
use skep_protocol::net::frame::Frame;
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::plan::{PlanError, PlanSigner, VerifiedPlan};
use skep_protocol::round::client::End;
use skep_protocol::round::{Decline, Phase, Refusal};
use skep_protocol::{ClientId, Span};

use crate::support::cohort::Others;
use crate::support::server::{Federation, Joining, Session, in_time, options};
use crate::support::{base_model, masked_plan, signed, signed_by, task};
use crate::{leave, side_by_side};

/// The last that has happened between server and client.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Point {
    /// The client has sent its keys.
    Keys,
    /// It has sent shares of its secrets.
    Shares,
    /// It has offered its masked update.
    Offered,
    /// A part of the update has come.
    MidUpload,
    /// Its update is in the sum.
    InSum,
    /// It has signed who survived.
    Signed,
    /// It has revealed the shares that take masks off.
    Revealed,
}

const POINTS: [Point; 7] = [
    Point::Keys,
    Point::Shares,
    Point::Offered,
    Point::MidUpload,
    Point::InSum,
    Point::Signed,
    Point::Revealed,
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
    TurnAway,
    /// It asks what comes next, in words that are none.
    Nonsense,
    /// It asks something before its time.
    Early,
    /// It asks for what it has been given, in another way.
    Another,
    /// It asks for what it has been given, in the same way.
    Again,
    /// It tells of the others what is not so.
    Lie,
    Refuse,
    /// It ends the round without a model.
    Abort,
    /// It opens the next round.
    NextRound,
}

const FAULTS: [Fault; 14] = [
    Fault::Vanish,
    Fault::Goodbye,
    Fault::Silence,
    Fault::Garbage,
    Fault::ForgedPlan,
    Fault::TurnAway,
    Fault::Nonsense,
    Fault::Early,
    Fault::Another,
    Fault::Again,
    Fault::Lie,
    Fault::Refuse,
    Fault::Abort,
    Fault::NextRound,
];

/// The name of the state in which the client ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Its update is in the sum, and it has helped to unmask it.
    InTheSum,
    /// It says this, and takes part in the next round.
    Declines(Decline),
    /// Its part in the round ended like this, and it takes part in the next.
    RoundEnded(End),
    /// It gives up, for a reason that it names.
    GivesUp,
}

/// Where each cell ends.
fn expected(point: Point, fault: Fault) -> State {
    use Point::{InSum, Keys, MidUpload, Offered, Revealed, Shares, Signed};
    let declines = State::Declines;
    match (fault, point) {
        (Fault::Garbage | Fault::ForgedPlan | Fault::TurnAway, _) => State::GivesUp,
        (Fault::Vanish | Fault::Goodbye | Fault::Silence | Fault::Again, _) => State::InTheSum,
        // While it waits for its upload to be taken, nothing else is to be asked; nor after the end.
        (Fault::Nonsense, Offered | MidUpload | Revealed) => declines(Decline::OutOfTurn),
        (Fault::Nonsense, _) => declines(Decline::BadPeers),
        (Fault::Early, _) | (Fault::Another, Keys) => declines(Decline::OutOfTurn),
        (Fault::Another, _) => declines(Decline::AskedTwice),
        (Fault::Lie, Keys) => declines(Decline::UnknownPeer),
        (Fault::Lie, Shares) => declines(Decline::BadShares),
        (Fault::Lie, InSum) => declines(Decline::BadSurvivors),
        (Fault::Lie, Signed) => declines(Decline::NoAgreement),
        // A grant of bytes that there are not, and a sum that it is in already: passed over.
        (Fault::Lie, Offered | MidUpload | Revealed) => State::InTheSum,
        (Fault::Refuse, _) => State::RoundEnded(End::Refused(Refusal::Late)),
        (Fault::Abort, _) => State::RoundEnded(End::Over { released: false }),
        (Fault::NextRound, _) => State::RoundEnded(End::Superseded),
    }
}

const CLIENT: ClientId = ClientId(1);

/// A round, as an honest server plays it.
struct Play {
    plan: Arc<VerifiedPlan>,
    others: Others,
    certificate: Vec<u8>,
    upload: Vec<u8>,
}

impl Play {
    fn new(federation: &Federation, session: &Session, round: u64) -> Self {
        let plan = signed(masked_plan(round));
        let others = Others::of(federation, &plan, CLIENT);
        Play { plan, others, certificate: session.peer.certificate.to_vec(), upload: Vec::new() }
    }

    async fn until(&mut self, point: Point, session: &mut Session) {
        session.invite(&self.plan).await;
        hear(session, |message| matches!(message, ClientMessage::Accept { .. }).then_some(())).await;
        session.send_model(self.plan.plan().round, &base_model(), 1000).await;
        let advert = self.answer(session, Phase::Keys).await;
        self.others.introduce(CLIENT, &self.certificate, advert);
        for next in POINTS.into_iter().filter(|next| *next > Point::Keys && *next <= point) {
            self.step(next, session).await;
        }
    }

    /// From a point to the end of the round.
    async fn on(&mut self, point: Point, session: &mut Session) {
        for next in POINTS.into_iter().filter(|next| *next > point) {
            self.step(next, session).await;
        }
        session.say(&ServerMessage::Closed { round: self.plan.plan().round, released: true }).await;
    }

    /// Plays until this point, from the one before it.
    async fn step(&mut self, point: Point, session: &mut Session) {
        let round = self.plan.plan().round;
        match point {
            Point::Keys => unreachable!("a round begins with the keys"),
            Point::Shares => {
                self.ask(session, Phase::Shares).await;
                let shares = self.answer(session, Phase::Shares).await;
                self.others.share(CLIENT, &shares);
            }
            Point::Offered => {
                self.ask(session, Phase::Collecting).await;
                offer(session).await;
            }
            Point::MidUpload => {
                session.take_upload(round, &mut self.upload, 1).await;
                self.upload.truncate(700);
            }
            Point::InSum => {
                session.say(&ServerMessage::Committed { round }).await;
                self.others.agree();
            }
            Point::Signed => {
                self.ask(session, Phase::Consistency).await;
                self.answer(session, Phase::Consistency).await;
            }
            Point::Revealed => {
                self.ask(session, Phase::Reveal).await;
                self.answer(session, Phase::Reveal).await;
            }
        }
    }

    /// The client has come back on another connection.
    async fn resume(&mut self, point: Point, session: &mut Session) {
        let round = self.plan.plan().round;
        session.invite(&self.plan).await;
        let mut point = point;
        if matches!(point, Point::Offered | Point::MidUpload) {
            offer(session).await;
            session.take_upload(round, &mut self.upload, self.plan.plan().upload_bytes()).await;
            self.step(Point::InSum, session).await;
            point = Point::InSum;
        } else if point == Point::InSum {
            // It may not have heard that.
            session.say(&ServerMessage::Committed { round }).await;
        }
        self.on(point, session).await;
    }

    fn request(&self, phase: Phase) -> Vec<u8> {
        match phase {
            Phase::Shares => self.others.peers(CLIENT).to_bytes(),
            Phase::Collecting => self.others.delivery(CLIENT).to_bytes(),
            Phase::Consistency => self.others.survivors().to_bytes(),
            Phase::Reveal => self.others.signatures().to_bytes(),
            _ => Vec::new(),
        }
    }

    async fn ask(&self, session: &mut Session, phase: Phase) {
        self.say_asked(session, phase, self.request(phase)).await;
    }

    async fn say_asked(&self, session: &mut Session, phase: Phase, part: Vec<u8>) {
        let round = self.plan.plan().round;
        session.say(&ServerMessage::Asked { round, phase, part, last: true }).await;
    }

    async fn answer(&self, session: &mut Session, of: Phase) -> Vec<u8> {
        hear(session, |message| match message {
            ClientMessage::Answered { phase, body, .. } if phase == of => Some(body),
            _ => None,
        })
        .await
    }

    async fn commit(&self, point: Point, fault: Fault, session: &mut Session, elsewhere: &Federation) {
        let round = self.plan.plan().round;
        let (last, next) = around(point);
        match fault {
            Fault::Vanish | Fault::Goodbye | Fault::Silence => {}
            Fault::Garbage => session.say_bytes(vec![WIRE_VERSION, 99, 255, 255]).await,
            Fault::ForgedPlan => {
                let forger = PlanSigner::from_seed(&[8; 32]);
                session.invite(&signed_by(masked_plan(round.0 + 1), &forger)).await;
            }
            Fault::TurnAway => session.say(&ServerMessage::TurnedAway(TurnAway::Revoked)).await,
            Fault::Nonsense => self.say_asked(session, next, b"nonsense".to_vec()).await,
            Fault::Early => {
                let later = if point < Point::Signed { Phase::Reveal } else { Phase::Releasing };
                self.ask(session, later).await;
            }
            Fault::Another => self.say_asked(session, last, b"another".to_vec()).await,
            Fault::Again if point == Point::Keys => session.invite(&self.plan).await,
            Fault::Again => self.ask(session, last).await,
            Fault::Lie => self.lie(point, session, elsewhere).await,
            Fault::Refuse => {
                session.say(&ServerMessage::Refused { round: Some(round), reason: Refusal::Late }).await;
            }
            Fault::Abort => session.say(&ServerMessage::Closed { round, released: false }).await,
            Fault::NextRound => {}
        }
    }

    async fn lie(&self, point: Point, session: &mut Session, elsewhere: &Federation) {
        let round = self.plan.plan().round;
        match point {
            Point::Keys => {
                let mut peers = self.others.peers(CLIENT);
                peers.0[0].1 = self.others.impostor(elsewhere, peers.0[0].0);
                self.say_asked(session, Phase::Shares, peers.to_bytes()).await;
            }
            Point::Shares => {
                let mut delivery = self.others.delivery(CLIENT);
                delivery.inbox.pop();
                self.say_asked(session, Phase::Collecting, delivery.to_bytes()).await;
            }
            Point::Offered | Point::MidUpload => {
                let until = Span::from_millis(1000);
                session.say(&ServerMessage::Grant { round, offset: u64::MAX, until }).await;
            }
            Point::InSum => {
                let mut survivors = self.others.survivors();
                survivors.0.retain(|client| *client == CLIENT || client.0 == 0);
                self.say_asked(session, Phase::Consistency, survivors.to_bytes()).await;
            }
            Point::Signed => {
                let mut signatures = self.others.signatures();
                signatures.0.iter_mut().for_each(|(_, signature)| signature[5] ^= 1);
                self.say_asked(session, Phase::Reveal, signatures.to_bytes()).await;
            }
            Point::Revealed => session.say(&ServerMessage::Committed { round }).await,
        }
    }
}

/// The phases that the client was asked in last, and is to be asked in next.
fn around(point: Point) -> (Phase, Phase) {
    match point {
        Point::Keys => (Phase::Keys, Phase::Shares),
        Point::Shares => (Phase::Shares, Phase::Collecting),
        Point::Offered | Point::MidUpload | Point::InSum => (Phase::Collecting, Phase::Consistency),
        Point::Signed => (Phase::Consistency, Phase::Reveal),
        Point::Revealed => (Phase::Reveal, Phase::Releasing),
    }
}

/// Hears until this is said; passes over what is said again.
async fn hear<T>(session: &mut Session, wanted: impl Fn(ClientMessage) -> Option<T>) -> T {
    loop {
        match in_time(session.connection.stream.receive()).await {
            Ok(Some(Frame::Control(bytes))) => match codec::decode(&bytes).unwrap() {
                ClientMessage::Decline { reason, .. } => panic!("declined: {reason}"),
                message => {
                    if let Some(found) = wanted(message) {
                        return found;
                    }
                }
            },
            Ok(Some(Frame::Chunk(_))) => {}
            other => panic!("the client left: {other:?}"),
        }
    }
}

async fn offer(session: &mut Session) {
    hear(session, |message| matches!(message, ClientMessage::Offer(_)).then_some(())).await;
}

/// Hears the client decline; what it said before is passed over.
async fn declined(session: &mut Session) -> Decline {
    loop {
        match in_time(session.connection.stream.receive()).await {
            Ok(Some(Frame::Control(bytes))) => {
                if let ClientMessage::Decline { reason, .. } = codec::decode(&bytes).unwrap() {
                    return reason;
                }
            }
            Ok(Some(Frame::Chunk(_))) => {}
            other => panic!("the client left: {other:?}"),
        }
    }
}

async fn cell(point: Point, fault: Fault) {
    let name = format!("{point:?} x {fault:?}");
    let (federation, elsewhere) = (Federation::new().await, Federation::new().await);
    // A server that is silent is noticed soon.
    let idle = if fault == Fault::Silence { Duration::from_secs(15) } else { Duration::from_secs(100) };
    let timeouts = Timeouts { idle, handshake: idle, ..Timeouts::default() };
    let options = JoinOptions { timeouts, min_cohort: 4, ..options() };
    let joining = federation.join_as(federation.identity(CLIENT.0), options);
    let mut session = federation.welcome(&task()).await;
    let mut play = Play::new(&federation, &session, 1);
    play.until(point, &mut session).await;
    play.commit(point, fault, &mut session, &elsewhere).await;

    let mut silent = None;
    let state = expected(point, fault);
    let end = match state {
        State::GivesUp => {
            let error = in_time(joining).await.unwrap().unwrap_err();
            return assert!(is_named(&error, fault), "{name}: {error}");
        }
        State::InTheSum if matches!(fault, Fault::Vanish | Fault::Goodbye | Fault::Silence) => {
            silent = leave(session, fault == Fault::Silence, fault == Fault::Goodbye).await;
            session = federation.welcome(&task()).await;
            play.resume(point, &mut session).await;
            None
        }
        State::InTheSum => {
            play.on(point, &mut session).await;
            None
        }
        State::Declines(reason) => {
            assert_eq!(declined(&mut session).await, reason, "{name}");
            Some(End::Declined(reason))
        }
        State::RoundEnded(end) => Some(end),
    };
    if let Some(end) = end {
        let mut next = Play::new(&federation, &session, 2);
        next.until(Point::Revealed, &mut session).await;
        next.on(Point::Revealed, &mut session).await;
        let report = over(session, joining).await;
        assert_eq!(report.rounds, [(end, 1), (End::Committed, 1)].into(), "{name}");
    } else {
        let report = over(session, joining).await;
        assert_eq!(report.rounds, [(End::Committed, 1)].into(), "{name}");
    }
    drop(silent);
}

/// Says that it is over, and waits for the client's goodbye.
async fn over(mut session: Session, joining: Joining) -> JoinReport {
    session.say(&ServerMessage::Finished).await;
    while in_time(session.connection.stream.receive()).await.unwrap().is_some() {}
    let report = in_time(joining).await.unwrap().unwrap();
    assert_eq!(report.leaving, Leaving::Finished);
    report
}

fn is_named(error: &JoinError, fault: Fault) -> bool {
    match fault {
        Fault::Garbage => matches!(error, JoinError::Message(CodecError::Malformed(_))),
        Fault::ForgedPlan => matches!(error, JoinError::Plan(PlanError::Signature)),
        _ => matches!(error, JoinError::TurnedAway(TurnAway::Revoked)),
    }
}

/// Ninety-eight servers side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_does_in_whatever_masked_phase_ends_by_name() {
    let cells = POINTS.into_iter().flat_map(|point| FAULTS.into_iter().map(move |fault| cell(point, fault)));
    assert_eq!(side_by_side(cells).await, 98);
}
