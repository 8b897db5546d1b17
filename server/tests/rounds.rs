//! Whole rounds over TLS with clients that keep to the rules.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use std::time::Duration;

use scripted::{Client, PATIENCE, Server, TIMEOUTS, constant, private_file, public_file, refusals, within};
use skep_privacy::adversary::Adversary;
use skep_privacy::quantities::{Sampling, SamplingRate};
use skep_protocol::experiment::file::{Evaluation, SamplingFile};
use skep_protocol::message::{ServerMessage, TurnAway};
use skep_protocol::net::enrolment::enrol;
use skep_protocol::net::rate::Rate;
use skep_protocol::net::websocket::{Purpose, Timeouts, connect};
use skep_protocol::round::Refusal;
use skep_protocol::{ClientId, Digest, Round};
use skep_server::federation::PlanningError;
use skep_server::record::OutcomeKind;
use skep_server::serve::{End, ServeError, ServeOptions};

/// In mode none a step is 2^-24, so this is a change of 1.
const ONE: i32 = 1 << 24;

#[tokio::test]
async fn two_rounds_over_tls_average_the_updates_and_count_the_bytes() {
    let server = Server::start(&public_file(3, 2, 60.0), 3).await;
    let mut playing = Vec::new();
    for id in 0..3 {
        let mut client = server.join(id).await;
        playing.push(tokio::spawn(async move {
            let first = client.take_part(|plan| constant(plan, ONE * (id as i32 + 1))).await;
            let second = client.take_part(|plan| constant(plan, -ONE)).await;
            assert_eq!(client.hear().await, ServerMessage::Finished);
            client.goodbye().await;
            (first, second, client.connection.traffic)
        }));
    }
    let mut sent = 0;
    for client in playing {
        let (first, second, traffic) = within(client).await.unwrap();
        assert_eq!((first, second), (vec![0.0; 650], vec![2.0; 650]));
        sent += traffic.sent();
    }
    let (report, notes) = server.report().await;
    assert_eq!((report.end, report.rounds), (End::Finished, 2));
    assert_eq!(*report.federation.model(), vec![1.0; 650]);
    assert_eq!(notes.commits, [1, 2].map(|round| [1, 2, 3].map(|n| (Round(round), n))).concat());
    for (record, round) in notes.records.iter().zip([1, 2]) {
        assert_eq!((record.round, record.outcome), (Round(round), OutcomeKind::Complete));
        assert_eq!((record.invited, record.updates), (3, 3));
        assert_eq!(record.epsilon_release, None);
        // Three updates and three models of 650 numbers of four bytes, and little beside them.
        assert!((7800..20_000).contains(&record.bytes_up), "{}", record.bytes_up);
        assert!((7800..20_000).contains(&record.bytes_down), "{}", record.bytes_down);
    }
    assert_eq!(notes.records[1].model_sha256, Digest::of_model(&[1.0; 650]).to_string());
    let recorded: u64 = notes.records.iter().map(|record| record.bytes_up).sum();
    // The rest are goodbyes.
    assert!(recorded <= sent && sent - recorded < 500, "{recorded} of {sent}");
}

#[tokio::test]
async fn a_server_whose_model_gets_no_better_ends_early() {
    let mut file = public_file(1, 9, 60.0);
    file.evaluation = Some(Evaluation { patience: Some(2), ..Evaluation::default() });
    let server = Server::start(&file, 1).await;
    let mut client = server.join(0).await;
    // The first measurement is the best so far, and two more are no better.
    for _ in 0..3 {
        client.take_part(|plan| constant(plan, ONE)).await;
    }
    assert_eq!(client.hear().await, ServerMessage::Finished);
    client.goodbye().await;
    let (report, notes) = server.report().await;
    assert_eq!((report.end, report.rounds), (End::StoppedEarly, 3));
    assert!(notes.records.iter().all(|record| record.accuracy == Some(0.5)));
}

#[tokio::test]
async fn a_client_that_enrols_over_the_network_takes_part() {
    let server = Server::start(&public_file(1, 1, 5.0), 1).await;
    let now = std::time::SystemTime::now();
    let invitation =
        server.enrolment.invite_new(&server.authority, vec![server.address.into()], now, PATIENCE).unwrap();
    assert_eq!(invitation.client, ClientId(0));
    let directory = tempfile::tempdir().unwrap();
    let identity = within(enrol(&invitation, directory.path(), &TIMEOUTS)).await.unwrap();
    let tls = identity.tls().unwrap();
    let mut connection = connect(identity.addresses(), tls, Purpose::Session, &TIMEOUTS).await.unwrap();
    let first = within(connection.stream.receive()).await.unwrap();
    assert!(first.is_some(), "an enrolled client is welcome");
    drop(connection);
    let (report, notes) = server.report().await;
    assert_eq!((report.end, notes.records[0].outcome), (End::Finished, OutcomeKind::Aborted));
}

/// A round is the server's own doing: what is said in it is not too much, however fast rounds follow one another.
#[tokio::test]
async fn fast_rounds_are_not_taken_for_a_flood() {
    let few = Rate { burst: 12.0, per_second: 0.0 };
    let options = ServeOptions { timeouts: TIMEOUTS, messages: few, ..ServeOptions::new(1) };
    let server = Server::start_with(&public_file(1, 40, 60.0), options).await;
    let mut client = server.join(0).await;
    for _ in 0..40 {
        client.take_part(|plan| constant(plan, ONE)).await;
    }
    let (report, notes) = server.report().await;
    assert_eq!((report.end, report.rounds), (End::Finished, 40));
    assert!(notes.records.iter().all(|record| record.outcome == OutcomeKind::Complete));
}

/// Whoever is revoked never comes, so nobody waits for it.
#[tokio::test]
async fn the_first_round_waits_for_nobody_who_is_revoked() {
    let server = Server::start(&public_file(3, 1, 60.0), 3).await;
    let mut clients = [server.join(0).await, server.join(1).await];
    server.until_connected(2).await;
    drop([2, 7].map(|number| server.member(number)));
    server.enrolment.revoke(ClientId(2)).unwrap();
    // Of other numbers than the population's there are none to wait for.
    server.enrolment.revoke(ClientId(7)).unwrap();
    let [one, other] = &mut clients;
    tokio::join!(one.take_part(|plan| constant(plan, ONE)), other.take_part(|plan| constant(plan, ONE)));
    let (report, notes) = server.report().await;
    assert_eq!((report.end, notes.records[0].updates), (End::Finished, 2));
}

#[tokio::test]
async fn a_revoked_client_is_turned_away_at_the_door_and_out_of_its_round_at_once() {
    let mut server = Server::start(&public_file(2, 5, 600.0), 2).await;
    let away = ServerMessage::TurnedAway(TurnAway::Revoked);
    let gone = server.member(7);
    server.enrolment.revoke(ClientId(7)).unwrap();
    let mut gone = Client { connection: gone.try_connect().await.unwrap(), member: gone };
    assert_eq!(gone.hear().await, away);
    gone.goodbye().await;

    let (mut stays, mut leaves) = (server.join(0).await, server.join(1).await);
    let plan = stays.invited().await;
    leaves.invited().await;
    leaves.accept(&plan).await;
    server.enrolment.revoke(ClientId(1)).unwrap();
    assert_eq!(leaves.hear().await, away);
    leaves.goodbye().await;
    // Nobody waits for half of the deadline, neither in this round nor in the next, whose cohort it is in as well.
    stays.accept(&plan).await;
    stays.upload(&plan, &constant(&plan, ONE)).await;
    assert_eq!(stays.hear().await, ServerMessage::Closed { round: Round(1), released: true });
    stays.take_part(|plan| constant(plan, ONE)).await;
    let mut back = Client { connection: leaves.member.try_connect().await.unwrap(), member: leaves.member };
    assert_eq!(back.hear().await, away);
    server.stop();
    let (report, notes) = server.report().await;
    assert_eq!(report.end, End::Stopped);
    for record in &notes.records[..2] {
        assert_eq!((record.outcome, refusals(record)), (OutcomeKind::Degraded, vec![(Refusal::Revoked, 1)]));
    }
}

#[tokio::test]
async fn when_too_many_are_revoked_no_round_is_charged_for_nothing() {
    let mut file = public_file(2, 1000, 60.0);
    file.rounds.min_updates = 2;
    let server = Server::start(&file, 1).await;
    let mut stays = server.join(0).await;
    let plan = stays.invited().await;
    server.member(1);
    server.enrolment.revoke(ClientId(1)).unwrap();
    stays.accept(&plan).await;
    stays.upload(&plan, &constant(&plan, ONE)).await;
    assert_eq!(stays.hear().await, ServerMessage::Closed { round: Round(1), released: false });
    let (result, notes) = server.end().await;
    let refused =
        matches!(result, Err(ServeError::Planning(PlanningError::TooFewLeft { left: 1, required: 2 })));
    assert!(refused && notes.records.len() == 1);
}

#[tokio::test]
async fn a_client_whose_certificate_ran_out_during_its_session_is_shut_out_unless_it_was_renewed() {
    let server = Server::start(&public_file(2, 3, 60.0), 2).await;
    let (mut renews, mut expires) = (server.join(0).await, server.join(1).await);
    let plan = renews.invited().await;
    expires.invited().await;
    server.forget_validity_of(1);
    for client in [&mut renews, &mut expires] {
        client.accept(&plan).await;
        client.upload(&plan, &constant(&plan, ONE)).await;
    }
    assert_eq!(expires.hear().await, ServerMessage::Closed { round: Round(1), released: true });
    assert_eq!(expires.hear().await, ServerMessage::TurnedAway(TurnAway::CertificateExpired));
    expires.goodbye().await;
    assert_eq!(renews.hear().await, ServerMessage::Closed { round: Round(1), released: true });
    renews.invited().await;
}

#[tokio::test]
async fn who_is_here_is_written_down_as_they_come_and_go() {
    let server = Server::start(&public_file(2, 3, 60.0), 2).await;
    let first = server.join(0).await;
    let seen =
        |client: usize| server.enrolment.overview(std::time::SystemTime::now()).unwrap()[client].connected;
    let becomes = async |client, expected| {
        while seen(client) != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(becomes(0, true)).await;
    let Client { member, connection } = first;
    drop(connection);
    within(becomes(0, false)).await;
    let _again = member.connect().await;
    within(becomes(0, true)).await;
}

#[tokio::test]
async fn a_stop_aborts_the_open_round_and_lets_everybody_go() {
    let mut server = Server::start(&private_file(2, 5, 60.0, 2.0), 2).await;
    let (mut first, mut second) = (server.join(0).await, server.join(1).await);
    let plan = first.invited().await;
    first.accept(&plan).await;
    first.upload(&plan, &constant(&plan, 0)).await;
    second.invited().await;
    server.stop();
    assert_eq!(first.hear().await, ServerMessage::Closed { round: Round(1), released: false });
    first.goodbye().await;
    second.goodbye().await;
    let (report, notes) = server.report().await;
    assert_eq!((report.end, report.rounds), (End::Stopped, 1));
    assert_eq!(notes.records[0].detail, "aborted: the operator stopped the round");
    // The round was announced with noise for it reserved: it stays charged.
    assert!(notes.records[0].epsilon_release.unwrap() > 0.0);
    assert_eq!(*report.federation.model(), vec![0.0; 650]);
}

#[tokio::test]
async fn a_stop_lets_a_round_end_that_is_about_to() {
    let options = ServeOptions { grace: PATIENCE, linger: Duration::ZERO, ..ServeOptions::new(2) };
    let mut server = Server::start_with(&public_file(2, 5, 60.0), options).await;
    let (mut first, mut second) = (server.join(0).await, server.join(1).await);
    let plan = first.invited().await;
    first.accept(&plan).await;
    first.upload(&plan, &constant(&plan, ONE)).await;
    second.invited().await;
    server.stop();
    second.accept(&plan).await;
    second.upload(&plan, &constant(&plan, ONE)).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.hear().await, ServerMessage::Closed { round: Round(1), released: true });
        client.goodbye().await;
    }
    let (report, notes) = server.report().await;
    assert_eq!((report.end, report.rounds), (End::Stopped, 1));
    assert_eq!(notes.records[0].outcome, OutcomeKind::Complete);
    assert_eq!(*report.federation.model(), vec![1.0; 650]);
}

#[tokio::test]
async fn the_sampling_rate_is_the_plans_whoever_is_connected() {
    let mut file = private_file(4, 4, 1.0, 2.0);
    file.rounds.sampling = SamplingFile::Poisson { rate: 0.75 };
    let server = Server::start(&file, 1).await;
    // One of four in the first rounds, two in the others; none of them takes part.
    let _first = server.join(0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _second = server.join(1).await;
    let (report, notes) = server.report().await;
    assert_eq!((report.end, notes.plans.len()), (End::Finished, 4));
    let rate = SamplingRate::new(0.75).unwrap();
    for plan in &notes.plans {
        assert_eq!((plan.sampling, plan.population), (Sampling::Poisson { rate }, 4));
        assert_eq!((plan.encoding, plan.cohort_max), (notes.plans[0].encoding, notes.plans[0].cohort_max));
    }
    // Each round costs what it would with everybody there.
    let kept = report.federation.ledger().spent();
    let spent: Vec<_> = notes.records.iter().map(|record| record.epsilon_release.unwrap()).collect();
    assert_eq!(spent[3], kept.epsilon(Adversary::Recipients).get());
    let alone = Server::start(&file, 1).await;
    let _only = alone.join(3).await;
    let (_, others) = alone.report().await;
    let theirs: Vec<_> = others.records.iter().map(|record| record.epsilon_release.unwrap()).collect();
    assert_eq!(spent, theirs);
}

#[tokio::test]
async fn a_server_that_nobody_comes_to_says_so() {
    let wait_timeout = Duration::from_millis(300);
    let options = ServeOptions { wait_timeout, ..ServeOptions::new(2) };
    let server = Server::start_with(&public_file(2, 1, 60.0), options).await;
    let _only = server.join(0).await;
    let (result, notes) = server.end().await;
    assert!(matches!(result, Err(ServeError::NotEnoughClients { connected: 1, wanted: 2, .. })));
    assert!(notes.records.is_empty());
}

#[tokio::test]
async fn t22_over_the_budget_clients_hear_of_the_end_and_of_no_round() {
    let mut file = private_file(1, 5, 60.0, 2.0);
    file.privacy.epsilon_limit = Some(2.5);
    let server = Server::start(&file, 1).await;
    let mut client = server.join(0).await;
    client.take_part(|plan| constant(plan, 0)).await;
    assert_eq!(client.hear().await, ServerMessage::Finished);
    client.goodbye().await;
    let (report, notes) = server.report().await;
    assert!(matches!(report.end, End::BudgetExhausted(_)), "{:?}", report.end);
    assert_eq!((report.rounds, notes.records.len()), (1, 1));
    assert!(notes.records[0].epsilon_release.unwrap() < 2.5);
    assert_eq!(notes.records[0].epsilon_server, None);
}

#[tokio::test]
async fn a_client_that_was_away_at_the_end_still_hears_of_it() {
    let options = ServeOptions { timeouts: TIMEOUTS, linger: PATIENCE, ..ServeOptions::new(2) };
    let server = Server::start_with(&public_file(2, 1, 60.0), options).await;
    let (mut stays, mut leaves) = (server.join(0).await, server.join(1).await);
    let plan = leaves.invited().await;
    leaves.accept(&plan).await;
    leaves.upload(&plan, &constant(&plan, 0)).await;
    let member = leaves.member;
    drop(leaves.connection);
    stays.take_part(|plan| constant(plan, 0)).await;
    assert_eq!(stays.hear().await, ServerMessage::Finished);
    let mut back = member.connect().await;
    assert_eq!(back.hear().await, ServerMessage::Finished);
    back.goodbye().await;
    assert_eq!(server.report().await.0.end, End::Finished);
}

#[tokio::test]
async fn a_client_that_only_waits_is_kept_by_pings() {
    let idle = Duration::from_millis(500);
    let timeouts = Timeouts { idle, ..TIMEOUTS };
    let options = ServeOptions { timeouts, linger: Duration::ZERO, ..ServeOptions::new(2) };
    let server = Server::start_with(&public_file(2, 1, 60.0), options).await;
    let (mut waits, mut trains) = (server.join(0).await, server.join(1).await);
    let waiting = tokio::spawn(async move {
        waits.take_part(|plan| constant(plan, ONE)).await;
    });
    let plan = trains.invited().await;
    trains.accept(&plan).await;
    // Four idle times of training, in which the connection is read but nothing is said.
    let silence = tokio::time::timeout(4 * idle, trains.connection.stream.receive()).await;
    assert!(silence.is_err(), "{silence:?}");
    trains.upload(&plan, &constant(&plan, ONE)).await;
    within(waiting).await.unwrap();
    let (_, notes) = server.report().await;
    assert_eq!(notes.records[0].outcome, OutcomeKind::Complete);
}

/// `cargo test --release -p skep-server --test rounds -- --ignored --nocapture`; needs 2,100 file descriptors.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of half a minute, not a check of every day"]
async fn a_thousand_clients_take_part_in_three_rounds() {
    const CLIENTS: u64 = 1000;
    let server = Server::start(&public_file(CLIENTS, 3, 300.0), CLIENTS as usize).await;
    let mut playing = Vec::new();
    for id in 0..CLIENTS {
        let mut client = server.join(id).await;
        playing.push(tokio::spawn(async move {
            for _ in 0..3 {
                client.take_part(|plan| constant(plan, ONE)).await;
            }
        }));
    }
    for client in playing {
        within(client).await.unwrap();
    }
    let (report, notes) = server.report().await;
    for record in &notes.records {
        assert_eq!((record.outcome, record.updates), (OutcomeKind::Complete, CLIENTS as u32));
        println!(
            "{:?}: {:.3} s, {} B up, {} B down",
            record.round, record.seconds, record.bytes_up, record.bytes_down
        );
    }
    assert_eq!(*report.federation.model(), vec![3.0; 650]);
}
