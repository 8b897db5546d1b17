//! One honest and one hostile client over TLS: whatever the hostile one does is refused or timed out by name, and the
//! round is released without it. A round with the honest update alone has a known model, so nothing else got in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use std::sync::Arc;

use scripted::{
    Client, Server, constant, private_file, public_file, refusals, starting_with, with_hidden_layer, within,
};
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::experiment::{Evaluation, EvaluationQuery};
use skep_protocol::message::{ClientMessage, Offer, ServerMessage};
use skep_protocol::net::frame::Frame;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::{Decline, Refusal};
use skep_protocol::{ChannelBinding, Digest, Round};
use skep_server::record::{OutcomeKind, RoundRecord};
use skep_server::serve::End;
use tokio::task::JoinHandle;

/// In mode none a step is 2^-24, so this is a change of 1.
const ONE: i32 = 1 << 24;
/// Where nothing is waited for but what the test does.
const LONG_S: f64 = 60.0;
/// Where the round's deadlines are waited for. Honest clients have half of it to answer.
const SHORT_S: f64 = 6.0;

struct Siege {
    server: Server,
    honest: JoinHandle<()>,
    hostile: Client,
    plan: Arc<VerifiedPlan>,
}

impl Siege {
    /// Both clients are invited, and the honest one sends a change of 1.
    async fn begin(deadline_s: f64) -> Self {
        Self::begin_with(&public_file(2, 1, deadline_s), ONE).await
    }

    async fn begin_with(file: &ExperimentFile, honest_steps: i32) -> Self {
        let server = Server::start(file, 2).await;
        let mut honest = server.join(0).await;
        let mut hostile = server.join(1).await;
        let honest = tokio::spawn(async move {
            honest.take_part(|plan| constant(plan, honest_steps)).await;
        });
        let plan = hostile.invited().await;
        Siege { server, honest, hostile, plan }
    }

    fn round(&self) -> Round {
        self.plan.plan().round
    }

    async fn accept(&mut self) {
        self.hostile.accept(&self.plan).await;
    }

    /// Gets a grant for these bytes.
    async fn granted(&mut self, packed: &[u8]) {
        self.accept().await;
        assert_eq!(self.hostile.offer(&self.plan, packed).await, 0);
    }

    async fn send_chunk(&mut self, offset: usize, contents: &[u8]) {
        self.hostile.send_chunk(self.plan.plan().round, offset as u64, contents).await;
    }

    /// The round was released without the hostile client, for this reason.
    async fn ends_with(self, reason: Refusal) {
        let record = self.end().await;
        assert_eq!(refusals(&record), [(reason, 1)]);
        assert_eq!((record.outcome, record.invited, record.updates), (OutcomeKind::Degraded, 2, 1));
        assert_eq!(record.model_sha256, Digest::of_model(&[1.0; 650]).to_string());
    }

    async fn end(self) -> RoundRecord {
        within(self.honest).await.unwrap();
        let (report, notes) = self.server.report().await;
        assert_eq!((report.end, report.rounds), (End::Finished, 1));
        notes.records.into_iter().next().unwrap()
    }
}

// ---- answers to a query ----

/// One round, and a query after it: the hostile client is honest in the round.
async fn asked(deadline_s: f64) -> Siege {
    let mut file = private_file(2, 1, deadline_s, 1.0);
    let query = EvaluationQuery { every: 1, noise_multiplier: 1.0, max_loss: 4.0 };
    file.evaluation = Some(Evaluation { hold_out: Some(0.25), query: Some(query), ..Evaluation::default() });
    let server = Server::start(&file, 2).await;
    let mut honest = server.join(0).await;
    let mut hostile = server.join(1).await;
    let honest = tokio::spawn(async move {
        honest.take_part(|plan| constant(plan, 0)).await;
        honest.take_part(says_nothing).await;
    });
    hostile.take_part(|plan| constant(plan, 0)).await;
    let plan = hostile.invited().await;
    assert_eq!((plan.plan().round, plan.plan().update_len()), (Round(1).query(), 3));
    Siege { server, honest, hostile, plan }
}

fn says_nothing(plan: &VerifiedPlan) -> Vec<u8> {
    constant(plan, 0)
}

/// The round is as it was; the query ended without the hostile client. Of two clients noise lets nobody say anything.
async fn answered_without_it(siege: Siege) {
    let record = siege.end().await;
    assert_eq!((record.round, record.outcome, record.updates), (Round(1), OutcomeKind::Complete, 2));
    assert!(record.refusals.is_empty() && record.client_answers.is_none(), "{record:?}");
    let query = record.query.unwrap();
    assert_eq!((query.invited, query.outcome == OutcomeKind::Complete), (2, query.updates == 2));
    assert_eq!(query.refusals.values().sum::<u32>(), 2 - query.updates, "{query:?}");
    assert!(query.bytes_up > 0 && query.bytes_down > 0, "{query:?}");
}

#[tokio::test]
async fn an_answer_of_another_length_is_refused() {
    let mut siege = asked(LONG_S).await;
    siege.accept().await;
    let mut packed = says_nothing(&siege.plan);
    packed.push(0);
    let offer = siege.hostile.offer_of(&siege.plan, &packed);
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.refused(Refusal::WrongLength).await;
    answered_without_it(siege).await;
}

#[tokio::test]
async fn an_answer_beyond_what_one_client_can_say_is_refused() {
    let mut siege = asked(LONG_S).await;
    let sensitivity = siege.plan.plan().encoding.sensitivity.unwrap() as i32;
    let packed = constant(&siege.plan, sensitivity - 1);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed).await;
    siege.hostile.refused(Refusal::NormExceeded).await;
    answered_without_it(siege).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_at_all_holds_a_query_up_until_its_deadline_only() {
    let siege = asked(SHORT_S).await;
    answered_without_it(siege).await;
}

#[tokio::test]
async fn an_update_for_the_round_before_is_no_answer_and_costs_its_sender_nothing_else() {
    let mut siege = asked(LONG_S).await;
    siege.accept().await;
    let packed = says_nothing(&siege.plan);
    let late = Offer { round: Round(1), ..siege.hostile.offer_of(&siege.plan, &packed) };
    siege.hostile.say(&ClientMessage::Offer(late)).await;
    siege.hostile.refused(Refusal::WrongRound).await;
    siege.hostile.upload(&siege.plan, &packed).await;
    answered_without_it(siege).await;
}

// ---- what is no message ----

#[tokio::test]
async fn garbage_is_refused_and_its_sender_disconnected() {
    let mut siege = Siege::begin(LONG_S).await;
    let garbage = Frame::Control(vec![1, 255, 255, 255, 255, 7].into());
    siege.hostile.connection.sink.send(&garbage).await.unwrap();
    siege.hostile.refused(Refusal::Malformed).await;
    siege.hostile.goodbye().await;
    siege.ends_with(Refusal::Malformed).await;
}

#[tokio::test]
async fn a_chunk_that_nobody_asked_for_is_refused_and_its_sender_disconnected() {
    let mut siege = Siege::begin(LONG_S).await;
    siege.accept().await;
    siege.send_chunk(0, b"here is my update").await;
    siege.hostile.refused(Refusal::Unexpected).await;
    siege.hostile.goodbye().await;
    siege.ends_with(Refusal::Unexpected).await;
}

// ---- offers ----

#[tokio::test]
async fn an_offer_of_another_length_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    siege.accept().await;
    let mut packed = constant(&siege.plan, ONE);
    packed.push(0);
    let offer = siege.hostile.offer_of(&siege.plan, &packed);
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.refused(Refusal::WrongLength).await;
    siege.ends_with(Refusal::WrongLength).await;
}

#[tokio::test]
async fn an_offer_signed_for_another_connection_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    siege.accept().await;
    let packed = constant(&siege.plan, ONE);
    let (len, digest) = (packed.len() as u64, Digest::of(&packed));
    let text = Offer::signed_text(&siege.plan.digest(), len, &digest, &ChannelBinding([7; 32]));
    let signature = siege.hostile.member.key.sign(&text).0.to_vec();
    let offer = Offer { round: siege.round(), len, digest, signature };
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.refused(Refusal::BadSignature).await;
    siege.hostile.goodbye().await;
    siege.ends_with(Refusal::BadSignature).await;
}

#[tokio::test]
async fn an_offer_whose_digest_was_changed_after_signing_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    siege.accept().await;
    let offer = siege.hostile.offer_of(&siege.plan, &constant(&siege.plan, ONE));
    let offer = Offer { digest: Digest::of(b"other"), ..offer };
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.refused(Refusal::BadSignature).await;
    siege.ends_with(Refusal::BadSignature).await;
}

#[tokio::test]
async fn messages_for_other_rounds_and_plans_are_refused_and_change_nothing() {
    let mut siege = Siege::begin(LONG_S).await;
    let (round, plan) = (siege.round(), siege.plan.digest());
    siege.hostile.say(&ClientMessage::Accept { round: Round(2), plan }).await;
    siege.hostile.refused(Refusal::WrongRound).await;
    siege.hostile.say(&ClientMessage::Accept { round, plan: Digest::of(b"other") }).await;
    siege.hostile.refused(Refusal::WrongPlan).await;
    let mut offer = siege.hostile.offer_of(&siege.plan, &constant(&siege.plan, ONE));
    siege.hostile.say(&ClientMessage::Offer(offer.clone())).await;
    siege.hostile.refused(Refusal::Unexpected).await;
    offer.round = Round(9);
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.refused(Refusal::WrongRound).await;
    // A second acceptance does not make the server send its model twice.
    siege.accept().await;
    siege.hostile.say(&ClientMessage::Accept { round, plan }).await;
    siege.hostile.refused(Refusal::Duplicate).await;
    // After all that it still takes part.
    let plan = Arc::clone(&siege.plan);
    siege.hostile.upload(&plan, &constant(&plan, ONE)).await;
    let record = siege.end().await;
    assert_eq!((record.outcome, refusals(&record)), (OutcomeKind::Complete, vec![]));
}

#[tokio::test]
async fn a_client_that_declines_is_counted_by_its_reason() {
    let mut siege = Siege::begin(LONG_S).await;
    let round = siege.round();
    siege.hostile.say(&ClientMessage::Decline { round, reason: Decline::Policy }).await;
    let record = siege.end().await;
    assert_eq!(record.declines.into_iter().collect::<Vec<_>>(), [(Decline::Policy, 1)]);
}

// ---- uploads ----

#[tokio::test]
async fn an_upload_beyond_its_length_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    let mut packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    packed.push(0);
    siege.send_chunk(0, &packed).await;
    siege.hostile.refused(Refusal::TooLong).await;
    siege.hostile.goodbye().await;
    siege.ends_with(Refusal::TooLong).await;
}

#[tokio::test]
async fn an_upload_with_a_gap_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    let packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    siege.send_chunk(1, &packed[1..]).await;
    siege.hostile.refused(Refusal::Unexpected).await;
    siege.ends_with(Refusal::Unexpected).await;
}

#[tokio::test]
async fn an_upload_of_other_bytes_than_offered_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    siege.granted(&constant(&siege.plan.clone(), ONE)).await;
    siege.send_chunk(0, &constant(&siege.plan.clone(), 2 * ONE)).await;
    siege.hostile.refused(Refusal::DigestMismatch).await;
    siege.ends_with(Refusal::DigestMismatch).await;
}

#[tokio::test]
async fn a_coordinate_beyond_the_range_of_mode_none_is_refused() {
    let mut siege = Siege::begin(LONG_S).await;
    let packed = starting_with(&siege.plan, &[i32::MIN]);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed).await;
    siege.hostile.refused(Refusal::OutOfRange).await;
    siege.ends_with(Refusal::OutOfRange).await;
}

/// A round with noise, in which the hostile client sends what `update` makes of the sensitivity.
async fn private_round(
    update: impl FnOnce(i32) -> Vec<i32>,
    damage: impl FnOnce(&mut Vec<u8>),
) -> (Refusal, RoundRecord) {
    let mut siege = Siege::begin_with(&private_file(2, 1, LONG_S, 1.0), 0).await;
    let sensitivity = i32::try_from(siege.plan.plan().encoding.sensitivity.unwrap()).unwrap();
    let mut packed = starting_with(&siege.plan, &update(sensitivity));
    damage(&mut packed);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed).await;
    let ServerMessage::Refused { reason, .. } = siege.hostile.hear().await else { panic!("not refused") };
    (reason, siege.end().await)
}

#[tokio::test]
async fn a_private_update_longer_than_the_sensitivity_is_refused() {
    let (reason, record) = private_round(|sensitivity| vec![sensitivity, 1], |_| {}).await;
    assert_eq!(reason, Refusal::NormExceeded);
    assert_eq!(
        (record.outcome, refusals(&record)),
        (OutcomeKind::Degraded, vec![(Refusal::NormExceeded, 1)])
    );
}

#[tokio::test]
async fn a_private_coordinate_beyond_the_sensitivity_is_refused() {
    let (reason, record) = private_round(|sensitivity| vec![0, -sensitivity - 1], |_| {}).await;
    assert_eq!(reason, Refusal::OutOfRange);
    assert_eq!((record.outcome, refusals(&record)), (OutcomeKind::Degraded, vec![(Refusal::OutOfRange, 1)]));
}

#[tokio::test]
async fn bits_after_the_last_coordinate_are_refused() {
    let damage = |packed: &mut Vec<u8>| *packed.last_mut().unwrap() |= 0x80;
    let (reason, record) = private_round(|_| vec![], damage).await;
    assert_eq!(reason, Refusal::Malformed);
    assert_eq!((record.outcome, refusals(&record)), (OutcomeKind::Degraded, vec![(Refusal::Malformed, 1)]));
}

// ---- silence ----

#[tokio::test]
async fn a_client_that_never_answers_is_out_at_half_of_the_deadline() {
    let mut siege = Siege::begin(SHORT_S).await;
    siege.hostile.refused(Refusal::NoAnswer).await;
    siege.ends_with(Refusal::NoAnswer).await;
}

#[tokio::test]
async fn a_client_that_never_offers_is_late_at_the_end_of_the_collection() {
    let mut siege = Siege::begin(SHORT_S).await;
    siege.accept().await;
    siege.hostile.refused(Refusal::Late).await;
    siege.ends_with(Refusal::Late).await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_out_when_its_grant_ends() {
    let mut siege = Siege::begin(SHORT_S).await;
    let packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed[..100]).await;
    siege.hostile.refused(Refusal::GrantExpired).await;
    // What was under way is passed over.
    siege.send_chunk(100, &packed[100..200]).await;
    siege.ends_with(Refusal::GrantExpired).await;
}

#[tokio::test]
async fn a_client_killed_in_mid_upload_is_out_when_it_does_not_come_back() {
    let mut siege = Siege::begin(SHORT_S).await;
    let packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed[..100]).await;
    let Siege { server, honest, hostile, .. } = siege;
    drop(hostile);
    within(honest).await.unwrap();
    let (_, notes) = server.report().await;
    let record = &notes.records[0];
    // The grant and the time to come back end almost together.
    let reasons = refusals(record);
    let gone = [Refusal::ConnectionLost, Refusal::GrantExpired];
    assert!(reasons.len() == 1 && gone.contains(&reasons[0].0) && reasons[0].1 == 1, "{reasons:?}");
    assert_eq!((record.outcome, record.updates), (OutcomeKind::Degraded, 1));
}

#[tokio::test]
async fn a_client_killed_while_it_trains_is_out_when_it_does_not_come_back() {
    let mut siege = Siege::begin(SHORT_S).await;
    siege.accept().await;
    let Siege { server, honest, hostile, .. } = siege;
    drop(hostile);
    within(honest).await.unwrap();
    let (_, notes) = server.report().await;
    assert_eq!(refusals(&notes.records[0]), [(Refusal::ConnectionLost, 1)]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_delays_nobody() {
    // A model of 16 MB, which no socket takes in unread; four million parameters in chunks of a mebibyte.
    let server = Server::start(&with_hidden_layer(public_file(2, 1, 2.0 * SHORT_S), 53_000), 2).await;
    let (mut honest, mut hostile) = (server.join(0).await, server.join(1).await);
    let plan = hostile.invited().await;
    let accept = ClientMessage::Accept { round: plan.plan().round, plan: plan.digest() };
    for _ in 0..200 {
        hostile.say(&accept).await;
    }
    honest.take_part(|plan| starting_with(plan, &[ONE])).await;
    let (_, notes) = server.report().await;
    let record = &notes.records[0];
    assert_eq!(refusals(record), [(Refusal::ConnectionLost, 1)]);
    assert_eq!((record.outcome, record.updates, notes.models[0][0]), (OutcomeKind::Degraded, 1, 1.0));
}

// ---- coming back ----

#[tokio::test]
async fn a_client_that_comes_back_goes_on_where_its_upload_was_cut_off() {
    let mut siege = Siege::begin(LONG_S).await;
    let packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    siege.send_chunk(0, &packed[..1000]).await;
    // The same offer again on the same connection is answered by nothing, as the next answer shows; by then the bytes
    // have arrived.
    let (offer, round) = (siege.hostile.offer_of(&siege.plan, &packed), siege.round());
    siege.hostile.say(&ClientMessage::Offer(offer)).await;
    siege.hostile.say(&ClientMessage::Accept { round, plan: siege.plan.digest() }).await;
    siege.hostile.refused(Refusal::Duplicate).await;
    let Siege { server, honest, hostile, plan } = siege;
    drop(hostile.connection);

    let mut back = hostile.member.connect().await;
    assert_eq!(back.invited().await.digest(), plan.digest());
    assert_eq!(back.offer(&plan, &packed).await, 1000);
    back.send_chunk(plan.plan().round, 1000, &packed[1000..]).await;
    assert_eq!(back.hear().await, ServerMessage::Committed { round: plan.plan().round });
    within(honest).await.unwrap();
    let (report, notes) = server.report().await;
    assert_eq!(notes.records[0].outcome, OutcomeKind::Complete);
    assert_eq!(*report.federation.model(), vec![1.0; 650]);
}

#[tokio::test]
async fn a_client_that_lost_its_connection_before_the_model_gets_it_again() {
    let siege = Siege::begin(LONG_S).await;
    let Siege { server, honest, hostile, plan } = siege;
    drop(hostile.connection);
    let mut back = hostile.member.connect().await;
    back.take_part(|plan| constant(plan, ONE)).await;
    within(honest).await.unwrap();
    let (report, notes) = server.report().await;
    assert_eq!(
        (notes.records[0].outcome, notes.records[0].round),
        (OutcomeKind::Complete, plan.plan().round)
    );
    assert_eq!(*report.federation.model(), vec![1.0; 650]);
}

#[tokio::test]
async fn a_second_connection_of_a_client_replaces_the_first() {
    let mut siege = Siege::begin(LONG_S).await;
    let packed = constant(&siege.plan, ONE);
    siege.granted(&packed).await;
    let Siege { server, honest, hostile, plan } = siege;
    let Client { member, connection: first } = hostile;
    let mut second = member.connect().await;
    assert_eq!(second.invited().await.digest(), plan.digest());
    // The first connection is closed, and its chunks no longer count.
    let mut first = Client { member: second.member, connection: first };
    first.goodbye().await;
    second = Client { member: first.member, connection: second.connection };
    assert_eq!(second.offer(&plan, &packed).await, 0);
    second.send_chunk(plan.plan().round, 0, &packed).await;
    assert_eq!(second.hear().await, ServerMessage::Committed { round: plan.plan().round });
    within(honest).await.unwrap();
    let (_, notes) = server.report().await;
    assert_eq!((notes.records[0].outcome, notes.records[0].updates), (OutcomeKind::Complete, 2));
}

// ---- too few ----

#[tokio::test]
async fn below_the_minimum_the_round_is_aborted_and_the_model_stays() {
    let mut file = public_file(2, 1, LONG_S);
    file.rounds.min_updates = 2;
    let server = Server::start(&file, 2).await;
    let (mut honest, mut hostile) = (server.join(0).await, server.join(1).await);
    let plan = honest.invited().await;
    honest.accept(&plan).await;
    honest.upload(&plan, &constant(&plan, ONE)).await;
    hostile.invited().await;
    let round = plan.plan().round;
    hostile.say(&ClientMessage::Decline { round, reason: Decline::Policy }).await;
    assert_eq!(honest.hear().await, ServerMessage::Closed { round, released: false });
    let (report, notes) = server.report().await;
    assert_eq!(notes.records[0].detail, "aborted: 1 updates arrived, 2 are required");
    assert_eq!(*report.federation.model(), vec![0.0; 650]);
}
