//! The round under a scripted network and a virtual clock, one behaviour a test.

use std::collections::BTreeSet;

use skep_protocol::plan::Closure;
use skep_protocol::round::client::{self, ClientMachine, End, Stage};
use skep_protocol::round::server::{Action, Event, Job, Limits, OpenError, ServerMachine};
use skep_protocol::round::{AbortReason, Decline, Outcome, Phase, Progress, Refusal};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Span, Time};
use skep_tests::plans;
use skep_tests::scripted::{Network, update_digest};

fn cohort(clients: u64) -> BTreeSet<ClientId> {
    (0..clients).map(ClientId).collect()
}

/// A network of `clients` with round 1 open for all of them.
fn opened(clients: u64) -> Network {
    let mut network = Network::connected(clients);
    network.open(plans::signed(plans::plan(1, clients as u32)), &cohort(clients));
    network
}

/// Brings one client to the point where it may upload.
fn until_granted(network: &mut Network, id: ClientId) {
    until_offered(network, id);
    assert!(network.deliver_to_server(id) && network.deliver_to_client(id));
    assert!(matches!(network.client_stage(id), Some((_, Stage::Uploading(_)))));
}

/// Brings one client to the point where its offer is on its way.
fn until_offered(network: &mut Network, id: ClientId) {
    assert!(network.deliver_to_client(id) && network.deliver_to_server(id));
    assert!(network.deliver_model(id, true) && network.finish_training(id, None));
}

fn progress(network: &Network, id: u64) -> Progress {
    network.server.assignment(ClientId(id)).expect("invited").progress
}

fn end_of(network: &Network, id: u64) -> Progress {
    let (_, _, progress) = network.closed.last().expect("a round has ended");
    progress.iter().find(|(client, _)| client.0 == id).expect("invited").1
}

fn outcome(network: &Network) -> Outcome {
    network.closed.last().expect("a round has ended").1
}

#[test]
fn a_round_of_honest_clients_is_complete() {
    let mut network = opened(3);
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 3 });
    assert_eq!(network.server.next_deadline(), None);
}

#[test]
fn a_client_that_connects_late_is_still_invited() {
    let limits = Limits { upload_memory_bytes: 1 << 20, min_upload_bytes_per_s: 1000 };
    let mut network = Network::new(2, limits);
    network.connect(ClientId(0));
    network.open(plans::signed(plans::plan(1, 2)), &cohort(2));
    network.advance(Span::from_millis(4000));
    network.connect(ClientId(1));
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 2 });
}

#[test]
fn a_client_that_never_answers_is_out_after_half_of_the_deadline() {
    let mut network = opened(2);
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    network.advance(Span::from_millis(4999));
    assert_eq!(progress(&network, 1), Progress::Invited);
    network.advance(Span::from_millis(1));
    assert!(network.finish_release(Ok(())));
    assert_eq!(end_of(&network, 1), Progress::Refused(Refusal::NoAnswer));
    assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
}

#[test]
fn a_client_that_trains_too_long_is_late_and_its_upload_is_not_read() {
    let mut network = opened(2);
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    network.deliver_to_client(ClientId(1));
    network.deliver_to_server(ClientId(1));
    network.advance(Span::from_millis(9000));
    assert_eq!(network.server.phase(), Some(Phase::Releasing));
    network.deliver_model(ClientId(1), true);
    network.finish_training(ClientId(1), None);
    network.deliver_to_server(ClientId(1));
    assert_eq!(progress(&network, 1), Progress::Refused(Refusal::Late));
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
}

#[test]
fn a_killed_client_is_out_when_the_time_to_reconnect_is_over() {
    let mut network = opened(2);
    until_granted(&mut network, ClientId(0));
    network.disconnect(ClientId(0));
    until_granted(&mut network, ClientId(1));
    network.finish_upload(ClientId(1), None);
    network.advance(Span::from_millis(999));
    assert!(progress(&network, 0).is_open());
    network.advance(Span::from_millis(1));
    network.finish_release(Ok(()));
    assert_eq!(end_of(&network, 0), Progress::Refused(Refusal::ConnectionLost));
    assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    for lost_after in 0..5 {
        let mut network = opened(1);
        let id = ClientId(0);
        let steps: [fn(&mut Network, ClientId) -> bool; 5] = [
            Network::deliver_to_client,
            Network::deliver_to_server,
            |network, id| network.deliver_model(id, true),
            |network, id| network.finish_training(id, None),
            |network, id| network.deliver_to_server(id) && network.deliver_to_client(id),
        ];
        for step in &steps[..=lost_after] {
            assert!(step(&mut network, id));
        }
        network.disconnect(id);
        network.advance(Span::from_millis(500));
        network.connect(id);
        network.run_honestly();
        assert_eq!(outcome(&network), Outcome::Complete { updates: 1 }, "lost after step {lost_after}");
    }
}

#[test]
fn a_newer_connection_replaces_the_older_one() {
    let mut server = ServerMachine::new(Limits { upload_memory_bytes: 1, min_upload_bytes_per_s: 1 });
    let client = ClientId(0);
    let (first, second) = (ChannelBinding([1; 32]), ChannelBinding([2; 32]));
    server.handle(Time::ZERO, Event::Connected { client, channel_binding: first });
    server.handle(Time::ZERO, Event::Connected { client, channel_binding: second });
    assert_eq!(server.poll_action(), Some(Action::Disconnect { client, channel_binding: first }));
    server.handle(Time::ZERO, Event::Disconnected { client, channel_binding: first });
    assert_eq!(server.connected(), 1);
    server.handle(Time::ZERO, Event::Disconnected { client, channel_binding: second });
    assert_eq!(server.connected(), 0);
}

#[test]
fn a_grant_expires_when_the_upload_is_too_slow() {
    let limits = Limits { upload_memory_bytes: 1 << 20, min_upload_bytes_per_s: 32 };
    let mut network = Network::new(1, limits);
    network.connect(ClientId(0));
    network.open(plans::signed(plans::plan(1, 1)), &cohort(1));
    until_granted(&mut network, ClientId(0));
    // 32 bytes at 32 bytes a second, and a tenth of the deadline to reconnect.
    network.advance(Span::from_millis(1999));
    assert!(matches!(progress(&network, 0), Progress::Granted { .. }));
    network.advance(Span::from_millis(1));
    assert_eq!(end_of(&network, 0), Progress::Refused(Refusal::GrantExpired));
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::TooFewUpdates { updates: 0, required: 1 }));
}

#[test]
fn uploads_wait_until_there_is_memory_and_one_is_always_granted() {
    let limits = Limits { upload_memory_bytes: 1, min_upload_bytes_per_s: 1000 };
    let mut network = Network::new(3, limits);
    for id in 0..3 {
        network.connect(ClientId(id));
    }
    network.open(plans::signed(plans::plan(1, 3)), &cohort(3));
    for id in [2, 0, 1] {
        until_offered(&mut network, ClientId(id));
        network.deliver_to_server(ClientId(id));
    }
    assert!(matches!(progress(&network, 2), Progress::Granted { .. }));
    assert!(matches!(progress(&network, 0), Progress::Offered { .. }));
    network.disconnect(ClientId(0));
    network.deliver_to_client(ClientId(2));
    network.finish_upload(ClientId(2), None);
    assert!(
        matches!(progress(&network, 1), Progress::Granted { .. }),
        "a client that is away is passed over"
    );
    network.connect(ClientId(0));
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 3 });
}

#[test]
fn every_bad_upload_is_refused_by_its_name_and_the_round_goes_on() {
    for reason in [
        Refusal::TooLong,
        Refusal::DigestMismatch,
        Refusal::OutOfRange,
        Refusal::NormExceeded,
        Refusal::Malformed,
    ] {
        let mut network = opened(2);
        until_granted(&mut network, ClientId(0));
        network.finish_upload(ClientId(0), Some(reason));
        assert_eq!(progress(&network, 0), Progress::Refused(reason));
        network.run_honestly();
        assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
    }
}

#[test]
fn an_offer_of_the_wrong_length_is_refused_before_a_byte_is_sent() {
    let mut network = opened(2);
    network.deliver_to_client(ClientId(0));
    network.deliver_to_server(ClientId(0));
    for len in [0, 31, 33, u64::MAX] {
        let digest = Digest([1; 32]);
        network
            .rogue(ClientId(0), Event::UploadOffered { client: ClientId(0), round: Round(1), len, digest });
        assert_eq!(progress(&network, 0), Progress::Refused(Refusal::WrongLength));
    }
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
}

#[test]
fn messages_out_of_place_are_refused_and_change_nothing() {
    let mut network = Network::connected(3);
    let client = ClientId(0);
    let plan = plans::signed(plans::plan(1, 2));
    let offer =
        |round| Event::UploadOffered { client, round: Round(round), len: 32, digest: Digest([1; 32]) };
    network.rogue(client, offer(1));
    assert!(network.seen.refusals.contains(&Refusal::NoRound));
    network.open(plan.clone(), &cohort(2));
    network.rogue(client, offer(2));
    assert!(network.seen.refusals.contains(&Refusal::WrongRound));
    network.rogue(client, offer(1));
    assert!(network.seen.refusals.contains(&Refusal::Unexpected));
    network.rogue(client, Event::Accepted { client, round: Round(1), plan: Digest([0; 32]) });
    assert!(network.seen.refusals.contains(&Refusal::WrongPlan));
    let stranger = ClientId(2);
    network.rogue(stranger, Event::Accepted { client: stranger, round: Round(1), plan: plan.digest() });
    assert!(network.seen.refusals.contains(&Refusal::NotInvited));
    assert_eq!(progress(&network, 0), Progress::Invited);
    // A new connection, so that the honest half of the client hears none of these refusals.
    network.connect(client);
    until_granted(&mut network, client);
    network.rogue(client, Event::Accepted { client, round: Round(1), plan: plan.digest() });
    network.rogue(client, offer(1));
    assert!(network.seen.refusals.contains(&Refusal::Duplicate));
    assert!(matches!(progress(&network, 0), Progress::Granted { .. }));
    network.finish_upload(client, None);
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 2 });
}

#[test]
fn what_a_client_says_after_it_is_committed_changes_nothing() {
    let mut network = opened(2);
    let client = ClientId(0);
    until_granted(&mut network, client);
    network.finish_upload(client, None);
    network.rogue(client, Event::Declined { client, round: Round(1), reason: Decline::Policy });
    network.rogue(client, Event::UploadFailed { client, round: Round(1), reason: Refusal::NormExceeded });
    network.rogue(client, Event::UploadStaged { client, round: Round(1) });
    assert_eq!(progress(&network, 0), Progress::Committed);
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 2 });
}

#[test]
fn garbage_ends_the_sender_and_its_connection_only() {
    for reason in [Refusal::Malformed, Refusal::BadSignature] {
        let mut network = opened(2);
        network.rogue(ClientId(0), Event::Violated { client: ClientId(0), reason });
        assert_eq!(network.server.connected(), 1);
        network.run_honestly();
        assert_eq!(end_of(&network, 0), Progress::Refused(reason));
        assert_eq!(outcome(&network), Outcome::Degraded { updates: 1, invited: 2 });
    }
}

#[test]
fn a_private_round_waits_for_all_and_an_open_one_for_the_first() {
    let mut plan = plans::private_plan(1, 3);
    plan.min_updates = 1;
    let mut network = Network::connected(3);
    network.open(plans::signed(plan), &cohort(3));
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    assert_eq!(network.server.phase(), Some(Phase::Collecting));

    let mut plan = plans::plan(1, 3);
    plan.closure = Closure::FirstUpdates(1);
    let mut network = Network::connected(3);
    network.open(plans::signed(plan), &cohort(3));
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    assert_eq!(network.server.phase(), Some(Phase::Releasing));
    assert_eq!(progress(&network, 1), Progress::Refused(Refusal::Late));
}

#[test]
fn a_round_below_its_minimum_releases_nothing() {
    let mut plan = plans::plan(1, 2);
    plan.min_updates = 2;
    let mut network = Network::connected(2);
    network.open(plans::signed(plan), &cohort(2));
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    network.rogue(
        ClientId(1),
        Event::Declined { client: ClientId(1), round: Round(1), reason: Decline::Policy },
    );
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::TooFewUpdates { updates: 1, required: 2 }));
}

#[test]
fn an_empty_cohort_aborts_at_once() {
    let mut network = Network::connected(1);
    network.open(plans::signed(plans::plan(1, 1)), &BTreeSet::new());
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::TooFewUpdates { updates: 0, required: 1 }));
}

#[test]
fn a_release_that_fails_or_takes_too_long_aborts_the_round() {
    let mut network = opened(1);
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    network.finish_release(Err(AbortReason::ReleaseFailed));
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::ReleaseFailed));

    let mut network = opened(1);
    until_granted(&mut network, ClientId(0));
    network.finish_upload(ClientId(0), None);
    network.advance(Span::from_millis(10_000));
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::ReleaseLate));
    network.to_server(Event::JobDone { job: Job::Release { round: Round(1) }, result: Ok(()) });
    assert_eq!(network.closed.len(), 1, "a late release changes nothing");
}

#[test]
fn a_stopped_round_is_over_for_everybody() {
    let mut network = opened(2);
    until_granted(&mut network, ClientId(0));
    network.server.stop();
    network.to_server(Event::Tick);
    assert_eq!(outcome(&network), Outcome::Aborted(AbortReason::Stopped));
    network.run_honestly();
    assert_eq!(network.client_stage(ClientId(0)), None);
}

#[test]
fn rounds_follow_each_other_and_never_repeat() {
    let mut network = opened(2);
    let again = network.server.open(network.now, plans::signed(plans::plan(2, 2)), &cohort(2));
    assert_eq!(again, Err(OpenError::Busy(Round(1))));
    network.run_honestly();
    let again = network.server.open(network.now, plans::signed(plans::plan(1, 2)), &cohort(2));
    assert_eq!(again, Err(OpenError::NotAfter { asked: Round(1), last: Round(1) }));
    let crowd = network.server.open(network.now, plans::signed(plans::plan(2, 1)), &cohort(2));
    assert_eq!(crowd, Err(OpenError::CohortTooLarge { invited: 2, limit: 1 }));
    network.open(plans::signed(plans::plan(2, 2)), &cohort(2));
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 2 });
}

// ---- the client's own judgement ----

fn client_says(change: impl FnOnce(&mut skep_protocol::plan::Plan)) -> Option<Decline> {
    let mut plan = plans::private_plan(1, 2);
    change(&mut plan);
    let mut client = ClientMachine::new(plans::task());
    client.handle(Time::ZERO, client::Event::Invited(plans::signed(plan)));
    std::iter::from_fn(|| client.poll_action()).find_map(|action| match action {
        client::Action::Closed { end: End::Declined(reason), .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn a_client_declines_a_plan_that_contradicts_itself_or_the_task() {
    assert_eq!(client_says(|_| {}), None);
    assert_eq!(client_says(|plan| plan.task = Digest([0; 32])), Some(Decline::WrongTask));
    assert_eq!(client_says(|plan| plan.segments[0].len += 1), Some(Decline::Inconsistent));
    assert_eq!(client_says(|plan| plan.encoding.step *= 2.0), Some(Decline::Inconsistent));
    assert_eq!(client_says(|plan| plan.encoding.wire_bits += 1), Some(Decline::Inconsistent));
    assert_eq!(
        client_says(|plan| plan.encoding.sensitivity = plan.encoding.sensitivity.map(|s| s / 2)),
        Some(Decline::Inconsistent)
    );
    assert_eq!(client_says(|plan| plan.closure = Closure::FirstUpdates(1)), Some(Decline::Inconsistent));
    assert_eq!(client_says(|plan| plan.min_updates = 0), Some(Decline::Inconsistent));
    assert_eq!(
        client_says(|plan| plan.weighting = skep_protocol::experiment::Weighting::Examples { max: 5 }),
        Some(Decline::Inconsistent)
    );
}

#[test]
fn a_client_takes_part_in_a_round_once() {
    let mut network = opened(1);
    network.run_honestly();
    let id = ClientId(0);
    for round in [1, 0] {
        network.to_client(id, client::Event::Invited(plans::signed(plans::plan(round, 1))));
        assert_eq!(network.client_stage(id), None);
        assert!(network.deliver_to_server(id));
    }
    assert!(network.seen.declines.contains(&Decline::StaleRound));
}

#[test]
fn a_client_leaves_a_round_when_the_server_has_gone_on() {
    let mut network = opened(1);
    let id = ClientId(0);
    network.deliver_to_client(id);
    network.to_client(id, client::Event::Invited(plans::signed(plans::plan(2, 1))));
    assert_eq!(network.client_stage(id), Some((Round(2), Stage::Fetching)));
    assert!(network.seen.ends.contains("superseded"));
}

#[test]
fn a_client_whose_server_is_gone_gives_up_at_the_deadline() {
    let mut client = ClientMachine::new(plans::task());
    client.handle(Time::ZERO, client::Event::Invited(plans::signed(plans::plan(1, 1))));
    while client.poll_action().is_some() {}
    assert_eq!(client.next_deadline(), Some(Time::from_millis(10_000)));
    client.handle(Time::from_millis(10_000), client::Event::Tick);
    let closed = client::Action::Closed { round: Round(1), end: End::Expired };
    assert_eq!(client.poll_action(), Some(closed));
}

#[test]
fn a_client_that_has_no_model_or_no_update_says_so() {
    let mut network = opened(2);
    let id = ClientId(0);
    network.deliver_to_client(id);
    network.deliver_to_server(id);
    network.deliver_model(id, false);
    network.deliver_to_server(id);
    assert_eq!(progress(&network, 0), Progress::Declined(Decline::NoModel));
    until_training(&mut network, ClientId(1));
    network.finish_training(ClientId(1), Some(Decline::Unencodable));
    network.deliver_to_server(ClientId(1));
    assert_eq!(end_of(&network, 1), Progress::Declined(Decline::Unencodable));
}

fn until_training(network: &mut Network, id: ClientId) {
    assert!(
        network.deliver_to_client(id) && network.deliver_to_server(id) && network.deliver_model(id, true)
    );
}

#[test]
fn an_upload_resumes_at_the_offset_of_the_grant() {
    let mut network = opened(1);
    let id = ClientId(0);
    until_granted(&mut network, id);
    let until = Span::from_millis(100);
    network.to_client(id, client::Event::Granted { round: Round(1), offset: 33, until });
    assert_eq!(network.seen.resumed, 0, "an offset beyond the update is ignored");
    network.to_client(id, client::Event::Granted { round: Round(1), offset: 16, until });
    assert_eq!(network.seen.resumed, 1);
    let digest = update_digest(id, Round(1));
    network.to_server(Event::UploadOffered { client: id, round: Round(1), len: 32, digest });
    assert!(matches!(progress(&network, 0), Progress::Granted { .. }), "the same offer again renews nothing");
}

// ---- a grant is told once on a connection ----

/// Delivers everything that is on its way to a client, and says how much it was.
fn hears(network: &mut Network, id: ClientId) -> usize {
    std::iter::from_fn(|| network.deliver_to_client(id).then_some(())).count()
}

#[test]
fn an_offer_that_crosses_the_repeated_invitation_is_granted_once() {
    let mut network = opened(1);
    let id = ClientId(0);
    until_training(&mut network, id);
    network.disconnect(id);
    network.connect(id);
    // The training ends before the invitation arrives, which the client answers by offering again.
    assert!(network.finish_training(id, None) && network.deliver_to_client(id));
    assert!(network.deliver_to_server(id) && network.deliver_to_server(id));
    assert_eq!(hears(&mut network, id), 1, "a second grant would begin the upload again");
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 1 });
}

#[test]
fn a_client_whose_turn_came_while_it_was_away_is_granted_once() {
    let limits = Limits { upload_memory_bytes: 1, min_upload_bytes_per_s: 1000 };
    let mut network = Network::new(2, limits);
    let (first, away) = (ClientId(0), ClientId(1));
    network.connect(first);
    network.connect(away);
    network.open(plans::signed(plans::plan(1, 2)), &cohort(2));
    until_granted(&mut network, first);
    until_offered(&mut network, away);
    network.deliver_to_server(away);
    network.disconnect(away);
    network.finish_upload(first, None);
    network.connect(away);
    assert_eq!(hears(&mut network, away), 2, "the invitation and the grant");
    assert!(network.deliver_to_server(away), "the repeated offer");
    assert_eq!(hears(&mut network, away), 0, "a second grant would begin the upload again");
    // On yet another connection it is told again.
    network.connect(away);
    network.deliver_to_client(away);
    network.deliver_to_server(away);
    assert_eq!(hears(&mut network, away), 1);
    network.run_honestly();
    assert_eq!(outcome(&network), Outcome::Complete { updates: 2 });
}

#[test]
fn any_number_of_clients_may_be_out_while_they_wait() {
    const CLIENTS: u64 = 30_000;
    let limits = Limits { upload_memory_bytes: 1, min_upload_bytes_per_s: 1000 };
    let mut server = ServerMachine::new(limits);
    let plan = plans::signed(plans::plan(1, CLIENTS as u32));
    let (now, round) = (Time::ZERO, Round(1));
    for client in cohort(CLIENTS) {
        let mut binding = [0; 32];
        binding[..8].copy_from_slice(&client.0.to_le_bytes());
        server.handle(now, Event::Connected { client, channel_binding: ChannelBinding(binding) });
    }
    server.open(now, plan.clone(), &cohort(CLIENTS)).unwrap();
    for client in cohort(CLIENTS) {
        server.handle(now, Event::Accepted { client, round, plan: plan.digest() });
        let digest = update_digest(client, round);
        server.handle(now, Event::UploadOffered { client, round, len: 32, digest });
    }
    // The first has the one grant and the second stands before all those that are out.
    for client in cohort(CLIENTS).into_iter().skip(2) {
        server.handle(now, Event::Violated { client, reason: Refusal::Malformed });
    }
    server.handle(now, Event::UploadStaged { client: ClientId(0), round });
    server.handle(now, Event::UploadStaged { client: ClientId(1), round });
    assert_eq!(server.phase(), Some(Phase::Releasing));
}
