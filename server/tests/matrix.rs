//! Every way in which a client can misbehave or vanish, at every phase of its session, over TLS on loopback. Each cell of
//! the matrix ends in a state that has a name, within the deadline of its round, and the federation goes on with the
//! others: the round is released with their updates, and so is the next.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use scripted::{Client, PATIENCE, Server, TIMEOUTS, constant, public_file, refusals, within};
use skep_protocol::codec::WIRE_VERSION;
use skep_protocol::message::{ClientMessage, Offer, ServerMessage};
use skep_protocol::net::frame::{CHUNK_LIMIT, Frame};
use skep_protocol::net::rate::Rate;
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::server::Limits;
use skep_protocol::round::{Decline, Refusal};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round};
use skep_server::record::{OutcomeKind, RoundRecord};
use skep_server::serve::{End, ServeOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

/// In mode none a step is 2^-24, so this is a change of 1.
const ONE: i32 = 1 << 24;
/// Of a round; whoever answers at all does so at once.
const DEADLINE_S: f64 = 10.0;

/// How far the client comes with its part before it does what it does.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Phase {
    /// It has heard the task; no round is open.
    Welcomed,
    Invited,
    /// It has said so, and the model is under way.
    Accepted,
    /// It has the model, and trains.
    Training,
    Granted,
    MidUpload,
    Committed,
    /// The round is over.
    Closed,
}

const PHASES: [Phase; 8] = [
    Phase::Welcomed,
    Phase::Invited,
    Phase::Accepted,
    Phase::Training,
    Phase::Granted,
    Phase::MidUpload,
    Phase::Committed,
    Phase::Closed,
];

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Its process is killed.
    Vanish,
    /// It closes the connection as one should.
    Goodbye,
    /// It neither reads nor writes any more.
    Silence,
    Garbage,
    /// A chunk that does not follow from those before.
    StrayChunk,
    /// A message about a round that is not open; then it goes on as it should.
    WrongRound,
    /// More messages than anybody needs.
    Flood,
    /// An offer whose signature is for another connection.
    ForgedOffer,
    /// It takes no part.
    Decline,
    /// It connects a second time, and goes on there.
    Reconnect,
    /// The operator shuts it out.
    Revoked,
}

const FAULTS: [Fault; 11] = [
    Fault::Vanish,
    Fault::Goodbye,
    Fault::Silence,
    Fault::Garbage,
    Fault::StrayChunk,
    Fault::WrongRound,
    Fault::Flood,
    Fault::ForgedOffer,
    Fault::Decline,
    Fault::Reconnect,
    Fault::Revoked,
];

/// The name of the state in which the client ends in its round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Its update is in the sum.
    InTheSum,
    /// It was refused for one of these reasons; two, where two deadlines are almost the same.
    Refused(&'static [Refusal]),
    Declined,
}

/// Where each cell ends.
fn expected(phase: Phase, fault: Fault) -> State {
    use Refusal::{
        BadSignature, ConnectionLost, GrantExpired, Late, Malformed, NoAnswer, Revoked, TooFast, Unexpected,
    };
    let refused = State::Refused;
    match (fault, phase) {
        // What is in the sum stays there.
        (_, Phase::Committed | Phase::Closed) => State::InTheSum,
        (Fault::WrongRound | Fault::Reconnect, _) => State::InTheSum,
        (Fault::Revoked, _) => refused(&[Revoked]),
        // Before the round there is nothing to decline or to sign for: it is told so, and goes on.
        (Fault::Decline | Fault::ForgedOffer, Phase::Welcomed) => State::InTheSum,
        (Fault::Decline, _) => State::Declined,
        (Fault::ForgedOffer, _) => refused(&[BadSignature]),
        // Cut off before the round, it does not come to it.
        (_, Phase::Welcomed) => refused(&[NoAnswer]),
        (Fault::Vanish | Fault::Goodbye, Phase::Granted | Phase::MidUpload) => {
            refused(&[ConnectionLost, GrantExpired])
        }
        (Fault::Vanish | Fault::Goodbye, _) => refused(&[ConnectionLost]),
        (Fault::Silence, Phase::Invited) => refused(&[NoAnswer]),
        (Fault::Silence, Phase::Accepted | Phase::Training) => refused(&[Late]),
        (Fault::Silence, _) => refused(&[GrantExpired]),
        (Fault::Garbage, _) => refused(&[Malformed]),
        (Fault::StrayChunk, _) => refused(&[Unexpected]),
        (Fault::Flood, _) => refused(&[TooFast]),
    }
}

/// A client on its way to the phase, and what it needs to go on from there.
struct Part {
    client: Client,
    plan: Option<Arc<VerifiedPlan>>,
    packed: Vec<u8>,
}

impl Part {
    async fn play_until(&mut self, phase: Phase) {
        if phase >= Phase::Invited {
            self.plan = Some(self.client.invited().await);
        }
        let Some(plan) = self.plan.clone() else { return };
        self.packed = constant(&plan, ONE);
        let round = plan.plan().round;
        if phase == Phase::Accepted {
            let accept = ClientMessage::Accept { round, plan: plan.digest() };
            return self.client.say(&accept).await;
        }
        if phase >= Phase::Training {
            self.client.accept(&plan).await;
        }
        if phase >= Phase::Granted {
            assert_eq!(self.client.offer(&plan, &self.packed).await, 0);
        }
        if phase == Phase::MidUpload {
            return self.client.send_chunk(round, 0, &self.packed[..1000]).await;
        }
        if phase >= Phase::Committed {
            self.client.send_chunk(round, 0, &self.packed).await;
            assert_eq!(self.client.hear().await, ServerMessage::Committed { round });
        }
        if phase >= Phase::Closed {
            assert_eq!(self.client.hear().await, ServerMessage::Closed { round, released: true });
        }
    }

    /// Does it. The connection that is left, if any, lives on in what is returned.
    async fn commit(mut self, fault: Fault, server: &Server) -> Option<Self> {
        let round = self.plan.as_ref().map_or(Round(1), |plan| plan.plan().round);
        match fault {
            Fault::Vanish => return None,
            Fault::Goodbye => {
                let _ = self.client.connection.sink.close().await;
                return None;
            }
            Fault::Silence => {}
            Fault::Garbage => {
                self.send(Frame::Control(vec![WIRE_VERSION, 255, 255, 255, 255, 7].into())).await
            }
            Fault::StrayChunk => self.client.send_chunk(round, 1_000_000, b"stray").await,
            Fault::WrongRound => self.wrong_round().await,
            Fault::Flood => self.flood().await,
            Fault::ForgedOffer => self.forged_offer(round).await,
            Fault::Decline => {
                self.client.say(&ClientMessage::Decline { round, reason: Decline::Policy }).await;
            }
            Fault::Reconnect => {
                let Client { member, connection } = self.client;
                let mut second = member.connect().await;
                // The first is closed by the server, not by us.
                let mut first = Client { member: second.member, connection };
                within(async { while let Ok(Some(_)) = first.connection.stream.receive().await {} }).await;
                second = Client { member: first.member, connection: second.connection };
                self.client = second;
            }
            Fault::Revoked => server.enrolment.revoke(ClientId(2)).unwrap(),
        }
        Some(self)
    }

    async fn send(&mut self, frame: Frame) {
        self.client.connection.sink.send(&frame).await.unwrap();
    }

    async fn wrong_round(&mut self) {
        let accept = ClientMessage::Accept { round: Round(99), plan: Digest::of(b"other") };
        self.client.say(&accept).await;
    }

    async fn flood(&mut self) {
        for _ in 0..2000 {
            let message = ClientMessage::Accept { round: Round(99), plan: Digest::of(b"other") };
            let encoded = skep_protocol::codec::encode(&message).unwrap();
            // At some point nobody listens any more.
            if self.client.connection.sink.send(&Frame::Control(encoded.into())).await.is_err() {
                return;
            }
        }
    }

    async fn forged_offer(&mut self, round: Round) {
        let plan = self.plan.as_ref().map_or(Digest::of(b"none"), |plan| plan.digest());
        let (len, digest) = (self.packed.len() as u64, Digest::of(&self.packed));
        let text = Offer::signed_text(&plan, len, &digest, &ChannelBinding([7; 32]));
        let signature = self.client.member.key.sign(&text).0.to_vec();
        self.client.say(&ClientMessage::Offer(Offer { round, len, digest, signature })).await;
    }

    /// Does its part from the phase to the end, where it may, as a client that has come back or has learned better.
    async fn go_on(&mut self) {
        let mut offered = false;
        loop {
            let message = match within(self.client.connection.stream.receive()).await {
                Ok(Some(Frame::Control(encoded))) => skep_protocol::codec::decode(&encoded).unwrap(),
                Ok(Some(Frame::Chunk(chunk))) => {
                    let plan = self.plan.clone().unwrap();
                    // The model has come.
                    if chunk.transfer == plan.plan().round.0 && !offered {
                        offered = true;
                        let offer = self.client.offer_of(&plan, &self.packed);
                        self.client.say(&ClientMessage::Offer(offer)).await;
                    }
                    continue;
                }
                _ => return,
            };
            match message {
                ServerMessage::Invite(signed) => {
                    let plan = signed.verify(&self.client.member.plan_key()).unwrap();
                    if plan.plan().round > Round(1) {
                        return;
                    }
                    let had = self.plan.replace(Arc::clone(&plan)).is_some() && !self.packed.is_empty();
                    self.packed = constant(&plan, ONE);
                    let (round, digest) = (plan.plan().round, plan.digest());
                    // The server knows how far it was; what it says again is told to be said before.
                    self.client.say(&ClientMessage::Accept { round, plan: digest }).await;
                    if had {
                        let offer = self.client.offer_of(&plan, &self.packed);
                        self.client.say(&ClientMessage::Offer(offer)).await;
                    }
                }
                ServerMessage::Grant { round, offset, .. } => {
                    let rest = self.packed[offset as usize..].to_vec();
                    for (index, contents) in rest.chunks(CHUNK_LIMIT).enumerate() {
                        let at = offset + (index * CHUNK_LIMIT) as u64;
                        self.client.send_chunk(round, at, contents).await;
                    }
                }
                ServerMessage::Closed { .. } | ServerMessage::Finished => return,
                _ => {}
            }
        }
    }

    /// Goes on where it stood before a fault that is not the end of it.
    async fn resume(&mut self, phase: Phase) {
        let Some(plan) = self.plan.clone() else { return self.go_on().await };
        let (round, digest) = (plan.plan().round, plan.digest());
        match phase {
            Phase::Welcomed | Phase::Accepted => {}
            Phase::Invited => self.client.say(&ClientMessage::Accept { round, plan: digest }).await,
            Phase::Training => {
                let offer = self.client.offer_of(&plan, &self.packed);
                self.client.say(&ClientMessage::Offer(offer)).await;
            }
            Phase::Granted => self.client.send_chunk(round, 0, &self.packed.clone()).await,
            Phase::MidUpload => self.client.send_chunk(round, 1000, &self.packed[1000..]).await,
            Phase::Committed | Phase::Closed => return,
        }
        self.go_on().await;
    }
}

/// Two honest clients in two rounds.
async fn honest(mut client: Client) {
    for _ in 0..2 {
        client.take_part(|plan| constant(plan, ONE)).await;
    }
}

/// More messages than a client needs are too many, however slowly they come; and so few are allowed that the answers to them do not
/// fill the queue that a client is cut off for.
/// A grant lasts for most of a round, so that an honest client keeps it on a machine that is busy with other cells.
const PATIENT: Limits = Limits { upload_memory_bytes: 1 << 30, min_upload_bytes_per_s: 500 };

fn options(wait_for: usize) -> ServeOptions {
    ServeOptions {
        timeouts: TIMEOUTS,
        linger: Duration::ZERO,
        grace: Duration::ZERO,
        messages: Rate { burst: 24.0, per_second: 0.0 },
        limits: PATIENT,
        ..ServeOptions::new(wait_for)
    }
}

async fn cell(phase: Phase, fault: Fault, ready: Arc<Barrier>) {
    let server = Server::start_with(&public_file(3, 2, DEADLINE_S), options(3)).await;
    let (first, second, third) = (server.join(0).await, server.join(1).await, server.member(2));
    // So that no round waits for the setting up of another cell.
    ready.wait().await;
    let mut part = Part { client: third.connect().await, plan: None, packed: Vec::new() };
    let began = Instant::now();
    let others = [tokio::spawn(honest(first)), tokio::spawn(honest(second))];
    part.play_until(phase).await;
    let mut left = part.commit(fault, &server).await;
    if let Some(part) = &mut left {
        let goes_on = matches!(fault, Fault::WrongRound)
            || (matches!(fault, Fault::Decline | Fault::ForgedOffer) && phase == Phase::Welcomed);
        if fault == Fault::Reconnect {
            part.go_on().await;
        } else if goes_on {
            part.resume(phase).await;
        }
    }
    for other in others {
        within(other).await.unwrap_or_else(|_| panic!("{phase:?} x {fault:?} keeps an honest client"));
    }
    let (report, notes) = server.report().await;
    drop(left);
    assert_eq!((report.end, report.rounds), (End::Finished, 2), "{phase:?} x {fault:?}");
    check(&notes.records[0], phase, fault);
    // Two deadlines and what a busy machine adds.
    assert!(began.elapsed().as_secs_f64() < 3.0 * DEADLINE_S, "{phase:?} x {fault:?}: {:?}", began.elapsed());
    let next = &notes.records[1];
    assert!(next.outcome != OutcomeKind::Aborted && next.updates >= 2, "{phase:?} x {fault:?}: {next:?}");
}

fn check(record: &RoundRecord, phase: Phase, fault: Fault) {
    let name = format!("{phase:?} x {fault:?}: {record:?}");
    let declines: Vec<_> = record.declines.iter().map(|(&reason, &count)| (reason, count)).collect();
    let (updates, outcome) = match expected(phase, fault) {
        State::InTheSum => {
            assert!(refusals(record).is_empty() && declines.is_empty(), "{name}");
            (3, OutcomeKind::Complete)
        }
        State::Refused(reasons) => {
            let [(reason, 1)] = refusals(record)[..] else { panic!("{name}") };
            assert!(reasons.contains(&reason), "{name}");
            (2, OutcomeKind::Degraded)
        }
        State::Declined => {
            assert_eq!(declines, [(Decline::Policy, 1)], "{name}");
            (2, OutcomeKind::Degraded)
        }
    };
    assert_eq!((record.updates, record.outcome, record.invited), (updates, outcome, 3), "{name}");
    assert!(record.seconds <= DEADLINE_S, "{name}");
}

/// Eighty-eight federations, of which most wait for a deadline, side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_does_in_whatever_phase_ends_by_name_and_the_others_go_on() {
    let mut cells = JoinSet::new();
    let ready = Arc::new(Barrier::new((PHASES.len() - 1) * FAULTS.len()));
    for phase in PHASES {
        for fault in FAULTS {
            // The round is open once all three are here; what comes before it comes before the third.
            if phase == Phase::Welcomed {
                cells.spawn(before_the_round(fault));
            } else {
                cells.spawn(cell(phase, fault, Arc::clone(&ready)));
            }
        }
    }
    assert_eq!(cells.len(), 88);
    while let Some(ended) = cells.join_next().await {
        ended.unwrap();
    }
}

/// The client does it while the round waits for one more.
async fn before_the_round(fault: Fault) {
    let server = Server::start_with(&public_file(3, 2, DEADLINE_S), options(2)).await;
    let part = Part { client: server.join(2).await, plan: None, packed: Vec::new() };
    server.until_connected(1).await;
    let mut left = part.commit(fault, &server).await;
    let is_gone = matches!(
        fault,
        Fault::Vanish | Fault::Goodbye | Fault::Garbage | Fault::StrayChunk | Fault::Flood | Fault::Revoked
    );
    if is_gone && let Some(part) = &mut left {
        within(async { while let Ok(Some(_)) = part.client.connection.stream.receive().await {} }).await;
    }
    // What it did has come to the server before there is a round: it is gone, or has been told that there is none.
    match (&mut left, fault) {
        (Some(part), Fault::WrongRound | Fault::Decline | Fault::ForgedOffer) => {
            part.client.refused(Refusal::NoRound).await;
        }
        _ => server.until_connected(usize::from(!is_gone)).await,
    }
    let first = server.join(0).await;
    let second = if is_gone { Some(server.join(1).await) } else { None };
    // One that is still there is the second that the round waits for; the other honest client comes in the round.
    let others = [
        tokio::spawn(honest(first)),
        tokio::spawn(honest(match second {
            Some(second) => second,
            None => server.join(1).await,
        })),
    ];
    if !is_gone
        && fault != Fault::Silence
        && let Some(part) = &mut left
    {
        part.go_on().await;
    }
    for other in others {
        within(other).await.unwrap_or_else(|_| panic!("Welcomed x {fault:?} keeps an honest client"));
    }
    let (report, notes) = server.report().await;
    drop(left);
    assert_eq!((report.end, report.rounds), (End::Finished, 2), "Welcomed x {fault:?}");
    check(&notes.records[0], Phase::Welcomed, fault);
    assert!(notes.records[1].outcome != OutcomeKind::Aborted, "Welcomed x {fault:?}");
}

// ---- before there is a session ----

/// What somebody does to the door who has no certificate to show, or shows none.
#[derive(Clone, Copy, Debug)]
enum Knock {
    /// Connects and is silent.
    Silent,
    /// Connects and sends what is not TLS.
    NotTls,
    /// Sends the beginning of a handshake, a byte at a time.
    Trickle,
    /// Connects and resets the connection.
    Reset,
    /// Is done with TLS, and asks for nothing.
    NoRequest,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knocks_and_does_not_come_in_is_sent_away_in_time_and_keeps_nobody_out() {
    let handshake = Duration::from_secs(2);
    let options = ServeOptions {
        timeouts: Timeouts { handshake, ..TIMEOUTS },
        // As many places at the door as there are others.
        max_handshakes: 24,
        linger: Duration::ZERO,
        ..ServeOptions::new(2)
    };
    let server = Server::start_with(&public_file(2, 2, 60.0), options).await;
    let mut knocking = JoinSet::new();
    for knock in [Knock::Silent, Knock::NotTls, Knock::Trickle, Knock::Reset, Knock::NoRequest] {
        for _ in 0..8 {
            knocking.spawn(turned_away_in_time(knock, server.address, enrolment_tls(&server)));
        }
    }
    let others = [server.join_patiently(0).await, server.join_patiently(1).await];
    let others = others.map(|client| tokio::spawn(honest(client)));
    while let Some(ended) = knocking.join_next().await {
        let (knock, waited) = ended.unwrap();
        assert!(waited < 10 * handshake, "{knock:?} is sent away only after {waited:?}");
    }
    for other in others {
        within(other).await.unwrap();
    }
    let (report, notes) = server.report().await;
    assert_eq!(report.end, End::Finished);
    assert!(notes.records.iter().all(|record| record.outcome == OutcomeKind::Complete));
}

fn enrolment_tls(server: &Server) -> Arc<tokio_rustls::rustls::ClientConfig> {
    skep_protocol::net::tls::enrolment_config(server.authority.fingerprint()).unwrap()
}

async fn turned_away_in_time(
    knock: Knock,
    address: std::net::SocketAddr,
    tls: Arc<tokio_rustls::rustls::ClientConfig>,
) -> (Knock, Duration) {
    let began = Instant::now();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    match knock {
        Knock::Silent => {}
        Knock::NotTls => tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
        Knock::Reset => {
            tcp.set_zero_linger().unwrap();
            return (knock, began.elapsed());
        }
        Knock::Trickle => {
            // A TLS record that announces 512 bytes of a handshake.
            for byte in [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat_n(1, 60)) {
                if tcp.write_all(&[byte]).await.is_err() {
                    return (knock, began.elapsed());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Knock::NoRequest => {
            // The proxy's way to let a connection begin and not go on: TLS, and then nothing.
            let name = tokio_rustls::rustls::pki_types::ServerName::try_from("skep-server").unwrap();
            if let Ok(mut stream) = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            return (knock, began.elapsed());
        }
    }
    let _ = tcp.read_to_end(&mut Vec::new()).await;
    (knock, began.elapsed())
}

/// A server that lets as many in as it may says so, and lets the next in when there is room.
#[tokio::test]
async fn beyond_the_limit_of_connections_the_next_client_is_told_to_come_back() {
    let options = ServeOptions { max_connections: 1, linger: Duration::ZERO, ..ServeOptions::new(2) };
    let server = Server::start_with(&public_file(2, 2, 60.0), options).await;
    let first = server.join(0).await;
    let second = server.member(1);
    let mut refused = Client { connection: second.try_connect().await.unwrap(), member: second };
    let full = skep_protocol::message::TurnAway::Full;
    assert_eq!(refused.hear().await, ServerMessage::TurnedAway(full));
    drop(first);
    let second = refused.member;
    let welcomed = async {
        loop {
            let mut client =
                Client { connection: second.try_connect().await.unwrap(), member: server.member(0) };
            if matches!(client.hear().await, ServerMessage::Welcome(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(welcomed).await;
}

/// Passes everything on, and what a client says a byte at a time once it is told to.
async fn trickling_proxy(server: std::net::SocketAddr) -> (std::net::SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (slow, is_slow) = watch::channel(false);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = TcpStream::connect(server).await.unwrap().into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut byte = [0];
        while from_client.read_exact(&mut byte).await.is_ok() {
            if *is_slow.borrow() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if to_server.write_all(&byte).await.is_err() {
                return;
            }
        }
    });
    (address, slow)
}

/// Never silent for long, and never done with one frame: a client does not hold its session open like that, and nobody else's round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_trickles_ends_its_session() {
    let options = ServeOptions {
        timeouts: Timeouts {
            handshake: PATIENCE,
            send: Duration::from_secs(1),
            idle: Duration::from_secs(2),
        },
        linger: Duration::ZERO,
        ..ServeOptions::new(3)
    };
    let server = Server::start_with(&public_file(3, 1, 40.0), options).await;
    let others = [server.join(0).await, server.join(1).await];
    let (address, slow) = trickling_proxy(server.address).await;
    let mut trickling = server.member(2).at(address).connect().await;
    let others = others
        .map(|mut client| tokio::spawn(async move { client.take_part(|plan| constant(plan, ONE)).await }));
    let plan = trickling.invited().await;
    trickling.accept(&plan).await;
    slow.send_replace(true);
    // At ten bytes a second it would have come whole, long before the deadline.
    let offer = trickling.offer_of(&plan, &constant(&plan, ONE));
    trickling.say(&ClientMessage::Offer(offer)).await;
    trickling.goodbye().await;
    for other in others {
        within(other).await.unwrap();
    }
    let (_, notes) = server.report().await;
    let record = &notes.records[0];
    assert_eq!(refusals(record), [(Refusal::ConnectionLost, 1)], "{record:?}");
    assert_eq!((record.updates, record.outcome), (2, OutcomeKind::Degraded));
}
