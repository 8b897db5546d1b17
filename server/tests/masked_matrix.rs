//! Every way in which a client can misbehave or vanish in the phases of a masked round, over TLS on loopback. Each cell of the matrix
//! ends in a state that has a name, within the deadline of its round; what is released is the sum of exactly the survivors'
//! updates; and the federation goes on with the others. And what can be read on the wire, under TLS, hides what it should.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use std::collections::HashSet;
use std::sync::Arc;

use curve25519_dalek::Scalar;
use scripted::masked::{Hider, Point, masked_file, phase_of};
use scripted::{Server, refusals, within};
use skep_privacy::packing::pack;
use skep_privacy::prg::{CryptoRng, Key, Rng};
use skep_protocol::codec::WIRE_VERSION;
use skep_protocol::message::ClientMessage;
use skep_protocol::net::frame::Frame;
use skep_protocol::round::{Decline, Phase, Refusal};
use skep_server::record::{OutcomeKind, RoundRecord};
use skep_server::serve::End;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Of a round; whoever answers at all does so at once.
const DEADLINE_S: f64 = 10.0;
const CLIENTS: u64 = 5;

const POINTS: [Point; 6] =
    [Point::Keys, Point::Shares, Point::Input, Point::MidUpload, Point::Consistency, Point::Reveal];

/// What the client does at the point.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Its process is killed.
    Vanish,
    /// It closes the connection as one should.
    Goodbye,
    /// It neither reads nor writes any more.
    Silence,
    /// What is no message.
    Garbage,
    /// An answer in the phase that is none.
    Nonsense,
    /// An answer in the phase after this one; then it goes on as it should.
    Early,
    /// Its last answer again, twice; then it goes on as it should.
    Repeat,
    /// It takes no further part.
    Decline,
    /// It connects a second time, and goes on there.
    Reconnect,
}

const FAULTS: [Fault; 9] = [
    Fault::Vanish,
    Fault::Goodbye,
    Fault::Silence,
    Fault::Garbage,
    Fault::Nonsense,
    Fault::Early,
    Fault::Repeat,
    Fault::Decline,
    Fault::Reconnect,
];

/// The name of the state in which the client ends in its round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Its update is in the sum.
    InTheSum,
    /// It was refused for one of these reasons; two, where two deadlines are almost the same.
    Refused(&'static [Refusal]),
    /// It has left before its update was in the sum.
    Declined,
    /// Its update is in the sum, which it does not help to unmask.
    Withheld,
}

/// Where each cell ends.
fn expected(point: Point, fault: Fault) -> State {
    use Refusal::{ConnectionLost, GrantExpired, Late, Malformed, NoAnswer};
    let refused = State::Refused;
    match (fault, point) {
        (Fault::Early | Fault::Repeat | Fault::Reconnect, _) => State::InTheSum,
        // The phase is not one to answer in: it is told so, and goes on.
        (Fault::Nonsense, Point::Input | Point::MidUpload) => State::InTheSum,
        (Fault::Decline, Point::Consistency | Point::Reveal) => State::Withheld,
        // What is in the sum stays there.
        (_, Point::Consistency | Point::Reveal) => State::InTheSum,
        (Fault::Decline, _) => State::Declined,
        (Fault::Vanish | Fault::Goodbye, Point::MidUpload) => refused(&[ConnectionLost, GrantExpired]),
        (Fault::Vanish | Fault::Goodbye, _) => refused(&[ConnectionLost]),
        (Fault::Silence, Point::Keys | Point::Shares) => refused(&[NoAnswer]),
        (Fault::Silence, Point::Input) => refused(&[Late]),
        (Fault::Silence, _) => refused(&[GrantExpired]),
        (Fault::Garbage | Fault::Nonsense, _) => refused(&[Malformed]),
    }
}

/// Does it. The client that is left, if any, lives on in what is returned; true if it goes on with its part.
async fn commit(mut hider: Hider, point: Point, fault: Fault) -> Option<(Hider, bool)> {
    let plan = Arc::clone(hider.plan.as_ref().unwrap());
    let (round, phase) = (plan.plan().round, phase_of(point));
    match fault {
        Fault::Vanish => return None,
        Fault::Goodbye => {
            let _ = hider.client.connection.sink.close().await;
            return None;
        }
        Fault::Silence => {}
        Fault::Garbage => {
            let garbage = Frame::Control(vec![WIRE_VERSION, 255, 255, 255, 255, 7].into());
            hider.client.connection.sink.send(&garbage).await.unwrap();
        }
        Fault::Nonsense => {
            let nonsense = ClientMessage::Answered { round, phase, body: b"nonsense".to_vec() };
            hider.client.say(&nonsense).await;
            if matches!(point, Point::Input | Point::MidUpload) {
                hider.go_on(point).await;
                return Some((hider, true));
            }
        }
        Fault::Early => {
            let next = if phase < Phase::Reveal { Phase::Reveal } else { Phase::Releasing };
            hider.client.say(&ClientMessage::Answered { round, phase: next, body: Vec::new() }).await;
            hider.go_on(point).await;
            return Some((hider, true));
        }
        Fault::Repeat => {
            hider.go_on(point).await;
            hider.repeat().await;
            hider.repeat().await;
            return Some((hider, true));
        }
        Fault::Decline => {
            hider.client.say(&ClientMessage::Decline { round, reason: Decline::Policy }).await;
        }
        Fault::Reconnect => return Some((hider.reconnect().await, true)),
    }
    Some((hider, false))
}

async fn cell(point: Point, fault: Fault, ready: Arc<Barrier>) {
    let name = format!("{point:?} x {fault:?}");
    let server = Server::start(&masked_file(2, DEADLINE_S), CLIENTS as usize).await;
    let mut others = Vec::new();
    for number in 0..CLIENTS - 1 {
        others.push(Hider::new(&server, server.join(number).await, &Key::from_os().unwrap()));
    }
    let last = server.member(CLIENTS - 1);
    // So that no round waits for the setting up of another cell.
    ready.wait().await;
    let mut hider = Hider::new(&server, last.connect().await, &Key::from_os().unwrap());
    let others: Vec<_> = others.into_iter().map(|other| tokio::spawn(honest(other))).collect();
    hider.play_until(point).await;
    let mut left = commit(hider, point, fault).await;
    if let Some((hider, true)) = &mut left {
        assert!(hider.play().await, "{name}");
        if matches!(fault, Fault::Early | Fault::Nonsense) {
            assert!(hider.refused.contains(&Refusal::Unexpected), "{name}: {:?}", hider.refused);
        }
    }
    for other in others {
        within(other).await.unwrap_or_else(|_| panic!("{name} keeps an honest client"));
    }
    let (report, notes) = server.report().await;
    drop(left);
    assert_eq!((report.end, report.rounds), (End::Finished, 2), "{name}");
    check(&notes.records[0], &name, expected(point, fault));
    let faulty_is_in = matches!(expected(point, fault), State::InTheSum | State::Withheld);
    assert_eq!(in_the_sum(&notes.models[0]), [true, true, true, true, faulty_is_in], "{name}");
    let next = &notes.records[1];
    assert!(next.outcome != OutcomeKind::Aborted && next.updates >= 4, "{name}: {next:?}");
}

/// Two rounds.
async fn honest(mut hider: Hider) {
    for _ in 0..2 {
        assert!(hider.play().await);
    }
}

/// Whose updates a model is the sum of: each has a coordinate of its own, half of the clip norm in a mean of five, under noise of a
/// fiftieth of it.
fn in_the_sum(model: &[f32]) -> [bool; CLIENTS as usize] {
    let whole = 0.5 * 0.5 / CLIENTS as f32;
    std::array::from_fn(|client| model[client] > whole / 2.0)
}

fn check(record: &RoundRecord, name: &str, state: State) {
    let name = format!("{name}: {record:?}");
    let declines: Vec<_> = record.declines.iter().map(|(&reason, &count)| (reason, count)).collect();
    let (refused, declined, updates) = match state {
        State::InTheSum => (None, false, 5),
        State::Refused(reasons) => (Some(reasons), false, 4),
        State::Declined => (None, true, 4),
        State::Withheld => (None, true, 5),
    };
    match (refused, &refusals(record)[..]) {
        (None, []) => {}
        (Some(reasons), [(reason, 1)]) => assert!(reasons.contains(reason), "{name}"),
        _ => panic!("{name}"),
    }
    assert_eq!(declines, if declined { vec![(Decline::Policy, 1)] } else { vec![] }, "{name}");
    let outcome = if updates == 5 { OutcomeKind::Complete } else { OutcomeKind::Degraded };
    assert_eq!((record.updates, record.outcome, record.invited), (updates, outcome, 5), "{name}");
    assert!(record.seconds <= DEADLINE_S, "{name}");
}

/// Fifty-four federations, of which most wait for a deadline, side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_does_in_whatever_masked_phase_ends_by_name_with_the_sum_of_the_survivors() {
    let ready = Arc::new(Barrier::new(POINTS.len() * FAULTS.len()));
    let mut cells = JoinSet::new();
    for point in POINTS {
        for fault in FAULTS {
            cells.spawn(cell(point, fault, Arc::clone(&ready)));
        }
    }
    assert_eq!(cells.len(), 54);
    while let Some(ended) = cells.join_next().await {
        ended.unwrap();
    }
}

/// A server that keeps everything that it sends and receives, as it is under TLS, has no seed, no secret key and no unmasked update
/// in it: not of those whose masks it took off, and not of one that dropped out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wire_holds_no_seed_no_secret_key_and_no_unmasked_update() {
    let server = Server::start(&masked_file(1, DEADLINE_S), CLIENTS as usize).await;
    let keys: Vec<Key> = (0..CLIENTS).map(Key::from_seed).collect();
    let mut hiders = Vec::new();
    for (number, key) in (0..).zip(&keys) {
        hiders.push(Hider::new(&server, server.join(number).await, key));
    }
    let mut dropped = hiders.pop().unwrap();
    let others: Vec<_> = hiders
        .into_iter()
        .map(|mut hider| {
            tokio::spawn(async move {
                assert!(hider.play().await);
                hider
            })
        })
        .collect();
    // It has shared both its secrets, and masked and sent half of its update; then it is silent.
    dropped.play_until(Point::MidUpload).await;
    let mut clients = vec![dropped];
    for other in others {
        clients.push(within(other).await.unwrap());
    }
    let (_, notes) = server.report().await;
    assert_eq!(notes.records[0].updates, 4, "{:?}", notes.records[0]);
    assert_eq!(in_the_sum(&notes.models[0]), [true, true, true, true, false]);

    let windows: HashSet<&[u8]> = clients.iter().flat_map(|client| client.wire.windows(16)).collect();
    let travels = |bytes: &[u8]| bytes.windows(16).any(|window| windows.contains(window));
    for client in &clients {
        let plan = client.plan.as_ref().unwrap();
        // The test can fail: what is masked does travel.
        assert!(travels(&client.packed[..client.packed.len() / 2]));
        let bits = plan.plan().encoding.wire_bits;
        let plain = pack(client.update(plan).coordinates(), bits).unwrap();
        // From where the coordinates are those of this client alone.
        assert!(!travels(&plain[101 * bits as usize / 8..]), "an update travels as it is");
        let number = client.client.member.id.0 as usize;
        for secret in secrets(&keys[number]) {
            assert!(!travels(&secret), "a secret travels");
        }
    }
}

/// What a client with this key draws: the seeds of its own mask and of its pair masks, the secret key of its channels, and the
/// coefficients that its shares are made with.
fn secrets(key: &Key) -> Vec<[u8; 32]> {
    let mut rng = key.stream();
    let seeds = [scalar(&mut rng), scalar(&mut rng)];
    let mut channel = [0; 32];
    rng.fill_bytes(&mut channel);
    // Three shares open a secret: two coefficients beside it.
    let coefficients = std::array::from_fn::<_, 4, _>(|_| scalar(&mut rng));
    [&seeds[..], &[channel], &coefficients].concat()
}

fn scalar(rng: &mut impl CryptoRng) -> [u8; 32] {
    let mut wide = [0; 64];
    rng.fill_bytes(&mut wide);
    Scalar::from_bytes_mod_order_wide(&wide).to_bytes()
}
