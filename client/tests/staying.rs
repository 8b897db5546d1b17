//! A client that its owner leaves running: what it is told, what it declines, and the way it takes to its server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use skep_client::join::{JoinError, JoinOptions, Leaving, News, Notify};
use skep_client::policy::Limit;
use skep_privacy::ledger::Mode;
use skep_privacy::quantities::ClipNorm;
use skep_protocol::Round;
use skep_protocol::experiment::{Asked, Task};
use skep_protocol::message::{ClientMessage, ServerMessage, TurnAway};
use skep_protocol::net::proxy::ProxyRefusal;
use skep_protocol::net::websocket::NetError;
use skep_protocol::plan::Plan;
use skep_protocol::round::Decline;
use skep_protocol::round::client::End;
use support::server::{Federation, in_time, options};
use support::{asking, base_model, masked_plan, plan_of, private_plan, query_plan, signed, task};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Options that keep what the owner is told.
fn listening() -> (JoinOptions, Arc<Mutex<Vec<String>>>) {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&told);
    let notify = Notify::by(move |news| {
        heard.lock().unwrap().push(match news {
            News::Asked(terms) => terms.to_string(),
            News::Declined { round, limit } => format!("declined {round}: {limit}"),
            News::Unwilling { round, reason } => format!("declined {round}: {reason}"),
        });
    });
    (JoinOptions { notify, ..options() }, told)
}

#[tokio::test]
async fn an_owner_is_told_what_is_asked_before_the_client_accepts() {
    let federation = Federation::new().await;
    let (options, told) = listening();
    let joining = federation.join_as(federation.identity(1), options);
    let mut session = federation.welcome(&task()).await;
    session.open(&signed(private_plan(3, 0.5))).await;
    let asked = told.lock().unwrap().join("\n");
    for part in [
        "\"digits\", 650 parameters, round 3 of 10",
        "trust mode             central",
        "epsilon 1.0000 at delta 0.00001 after this round",
        "it sees your clipped update",
        "2600 down",
    ] {
        assert!(asked.contains(part), "{part} is not in:\n{asked}");
    }
    session.open(&signed(plan_of(&task(), 4))).await;
    let asked = told.lock().unwrap()[1].clone();
    for part in
        ["mode             none", "models   no epsilon: privacy is off", "no epsilon: it sees your update"]
    {
        assert!(asked.contains(part), "{part} is not in:\n{asked}");
    }
    session.finish_federation().await;
    in_time(joining).await.unwrap().unwrap();
}

#[tokio::test]
async fn beyond_the_owners_limits_the_client_declines_by_name_and_goes_on_being_there() {
    let federation = Federation::new().await;
    let state = tempfile::tempdir().unwrap();
    let (options, told) = listening();
    let policy = "rounds = 2\nbytes_per_round = 6000".parse().unwrap();
    let options = JoinOptions { policy: Some(policy), state: Some(state.path().to_owned()), ..options };
    let joining = federation.join_as(federation.identity(1), options);
    let mut session = federation.welcome(&task()).await;
    session.play(&signed(plan_of(&task(), 1)), &base_model()).await;
    // The same plan again, as after a lost connection, is not another round.
    let plan = signed(plan_of(&task(), 2));
    session.open(&plan).await;
    session.open(&plan).await;
    session.send_model(Round(2), &base_model(), 1000).await;
    session.finish(&plan).await;
    session.invite(&signed(plan_of(&task(), 3))).await;
    let declined = ClientMessage::Decline { round: Round(3), reason: Decline::RoundLimit };
    assert_eq!(session.hear().await, declined);
    session.finish_federation().await;
    let report = in_time(joining).await.unwrap().unwrap();
    let expected = [(End::Committed, 2), (End::Declined(Decline::RoundLimit), 1)];
    assert_eq!((report.leaving, report.rounds), (Leaving::Finished, BTreeMap::from(expected)));
    assert_eq!(told.lock().unwrap().last().unwrap(), &format!("declined round 3: {}", Limit::Rounds(2)));

    // Another process of the same client has used up its rounds.
    let policy = "rounds = 2".parse().unwrap();
    let options = JoinOptions {
        policy: Some(policy),
        state: Some(state.path().to_owned()),
        ..support::server::options()
    };
    let joining = federation.join_as(federation.identity(1), options);
    let mut session = federation.welcome(&task()).await;
    session.invite(&signed(plan_of(&task(), 4))).await;
    assert!(matches!(session.hear().await, ClientMessage::Decline { reason: Decline::RoundLimit, .. }));
    session.finish_federation().await;
    in_time(joining).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_query_that_the_task_has_not_and_one_that_comes_a_second_time_are_declined_by_name() {
    let federation = Federation::new().await;
    let (options, told) = listening();
    let joining = federation.join_as(federation.identity(1), options);
    let mut session = federation.welcome(&asking()).await;
    session.play(&signed(query_plan(3, 2.0)), &base_model()).await;
    let asked = told.lock().unwrap().join("\n");
    assert!(asked.contains("asked to say how good the model is of \"digits\""), "{asked}");
    assert!(asked.contains("the query after round 3 of 10"), "{asked}");
    let declines = |round: u64, reason| ClientMessage::Decline { round: Round(round).query(), reason };
    // The same again, in other words, as well as one after an earlier round.
    let again = Plan { min_updates: 2, ..query_plan(3, 2.0) };
    for plan in [again, query_plan(2, 2.0)] {
        let round = plan.round.training().0;
        session.invite(&signed(plan)).await;
        assert_eq!(session.hear().await, declines(round, Decline::StaleRound));
    }
    let bound = ClipNorm::new(0.5).unwrap();
    let other_bound = Plan {
        promise: private_plan(6, 0.5).promise,
        encoding: private_plan(6, 0.5).encoding,
        ..query_plan(6, 2.0)
    };
    assert_eq!(other_bound.promise.claim().unwrap().clip_norm, bound);
    let without_noise = Plan { promise: plan_of(&asking(), 9).promise, ..query_plan(9, 2.0) };
    for plan in [
        query_plan(4, 2.0),
        query_plan(5, 2.0),
        other_bound,
        query_plan(7, 2.0),
        // Every round is the last of a plan that says so.
        Plan { rounds: 8, ..query_plan(8, 2.0) },
        without_noise,
    ] {
        let round = plan.round.training().0;
        session.invite(&signed(plan)).await;
        assert_eq!(session.hear().await, declines(round, Decline::Unplanned), "{round}");
    }
    // After the last round there is one, wherever that falls.
    session.play(&signed(query_plan(10, 2.0)), &base_model()).await;
    session.finish_federation().await;
    let report = in_time(joining).await.unwrap().unwrap();
    // What is stale is no round that the client could have been in.
    let expected = [(End::Committed, 2), (End::Declined(Decline::Unplanned), 6)];
    assert_eq!(report.rounds, BTreeMap::from(expected));

    // A task that asks nothing has none.
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.welcome(&task()).await;
    session.invite(&signed(Plan { task: task().digest(), ..query_plan(3, 2.0) })).await;
    assert_eq!(session.hear().await, declines(3, Decline::Unplanned));
    session.finish_federation().await;
    in_time(joining).await.unwrap().unwrap();
}

#[test]
fn a_plan_keeps_to_the_rounds_the_mode_and_the_noise_that_its_task_asks_in() {
    let check = |plan: Plan| Plan { task: asking().digest(), ..plan }.check(&asking(), &asking().digest());
    assert_eq!(check(query_plan(9, 2.0)), Ok(()));
    assert_eq!(check(query_plan(9, 1.9)), Err(Decline::Unplanned));
    assert_eq!(check(query_plan(12, 2.0)), Err(Decline::Unplanned), "there are ten rounds");
    assert_eq!(check(Plan { rounds: 12, ..query_plan(12, 2.0) }), Err(Decline::Unplanned));
    // The server would see each answer, or would not: either way it is not the mode of the rounds.
    let masked =
        Task { asked: asking().asked.map(|asked| Asked { mode: Mode::Distributed, ..asked }), ..task() };
    let plan = Plan { task: masked.digest(), ..query_plan(9, 2.0) };
    assert_eq!(plan.check(&masked, &masked.digest()), Err(Decline::Unplanned));
    assert_eq!(check(private_plan(4, 0.5)), Ok(()));
    assert_eq!(check(masked_plan(4)), Err(Decline::Inconsistent));
    assert_eq!(check(Plan { rounds: 9, ..private_plan(4, 0.5) }), Err(Decline::Inconsistent));
    assert_eq!(check(private_plan(11, 0.5)), Err(Decline::Inconsistent));
}

#[tokio::test]
async fn a_client_that_is_turned_away_says_why_and_one_that_may_come_later_does() {
    for reason in [TurnAway::Revoked, TurnAway::NotEnrolled, TurnAway::CertificateExpired] {
        let federation = Federation::new().await;
        let joining = federation.join(1);
        let mut session = federation.accept().await;
        session.say(&ServerMessage::TurnedAway(reason)).await;
        let error = in_time(joining).await.unwrap().unwrap_err();
        assert!(matches!(error, JoinError::TurnedAway(heard) if heard == reason), "{error}");
    }
    let federation = Federation::new().await;
    let joining = federation.join(1);
    let mut session = federation.accept().await;
    session.say(&ServerMessage::TurnedAway(TurnAway::Full)).await;
    let mut session = federation.welcome(&task()).await;
    // In the middle of a session, too.
    session.open(&signed(plan_of(&task(), 1))).await;
    session.say(&ServerMessage::TurnedAway(TurnAway::Revoked)).await;
    let error = in_time(joining).await.unwrap().unwrap_err();
    assert!(matches!(error, JoinError::TurnedAway(TurnAway::Revoked)), "{error}");
}

/// A proxy that answers each request with `answer`, makes the tunnel if that is good, and keeps what it was asked.
async fn proxy(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://bee:honey@{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let requests = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            requests.lock().unwrap().push(head);
            client.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains("200") {
                let mut server = TcpStream::connect(target).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_client_takes_part_through_a_proxy() {
    let federation = Federation::new().await;
    let (url, asked) = proxy("HTTP/1.1 200 Connection established\r\nVia: 1.1 x\r\n\r\n").await;
    let options = JoinOptions { proxy: Some(url.parse().unwrap()), ..options() };
    let identity = federation.identity(1);
    let target = identity.addresses()[0].to_string();
    let joining = federation.join_as(identity, options);
    let mut session = federation.welcome(&task()).await;
    session.play(&signed(plan_of(&task(), 1)), &base_model()).await;
    session.finish_federation().await;
    let report = in_time(joining).await.unwrap().unwrap();
    assert_eq!(report.rounds, BTreeMap::from([(End::Committed, 1)]));
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].starts_with(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")),
        "{}",
        asked[0]
    );
    assert!(asked[0].contains("Proxy-Authorization: Basic YmVlOmhvbmV5\r\n"), "{}", asked[0]);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named() {
    for (answer, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ProxyRefusal::Credentials),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", ProxyRefusal::Status(403)),
        ("220 mail.example ESMTP\r\n\r\n", ProxyRefusal::NotHttp),
    ] {
        let federation = Federation::new().await;
        let (url, _) = proxy(answer).await;
        let options = JoinOptions { proxy: Some(url.parse().unwrap()), ..options() };
        let error = in_time(federation.join_as(federation.identity(1), options)).await.unwrap().unwrap_err();
        let JoinError::Refused(NetError::Proxy { reason, .. }) = &error else { panic!("{error}") };
        assert_eq!(*reason, expected);
        assert!(!error.to_string().contains("honey"), "{error}");
    }
}
