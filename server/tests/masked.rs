//! Masked rounds over TLS, with clients that break the rules: each is refused by name, and the round ends in time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use scripted::{Client, Server, private_file, refusals};
use skep_protocol::experiment::file::{ExperimentFile, SecureAggregationFile};
use skep_protocol::message::{ClientMessage, ServerMessage};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::{Phase, Refusal};

/// Three clients, one of them corrupt at most, all of whom must stay.
fn file() -> ExperimentFile {
    let mut file = private_file(3, 1, 4.0, 1.0);
    file.rounds.min_updates = 3;
    file.secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.34, min_cohort: 3, groups: None });
    file
}

async fn answer(client: &mut Client, plan: &VerifiedPlan, phase: Phase, body: &[u8]) {
    let round = plan.plan().round;
    client.say(&ClientMessage::Answered { round, phase, body: body.to_vec() }).await;
}

#[tokio::test]
async fn what_is_no_key_or_comes_too_early_is_refused_and_the_round_is_aborted_with_counts() {
    let server = Server::start(&file(), 3).await;
    let (mut garbage, mut hasty, mut bare) =
        (server.join(0).await, server.join(1).await, server.join(2).await);
    let plan = garbage.invited().await;
    garbage.accept(&plan).await;
    answer(&mut garbage, &plan, Phase::Keys, b"no keys").await;
    garbage.refused(Refusal::Malformed).await;
    garbage.goodbye().await;

    // Shares before there are keys to share with, and an update before there are shares.
    hasty.invited().await;
    hasty.accept(&plan).await;
    for phase in [Phase::Shares, Phase::Consistency, Phase::Reveal, Phase::Collecting, Phase::Releasing] {
        answer(&mut hasty, &plan, phase, b"").await;
        hasty.refused(Refusal::Unexpected).await;
    }
    bare.invited().await;
    bare.accept(&plan).await;
    let packed = vec![0; plan.plan().upload_bytes() as usize];
    let offer = bare.offer_of(&plan, &packed);
    bare.say(&ClientMessage::Offer(offer)).await;
    bare.refused(Refusal::Unexpected).await;

    hasty.refused(Refusal::NoAnswer).await;
    assert_eq!(hasty.hear().await, ServerMessage::Closed { round: plan.plan().round, released: false });
    let (_, notes) = server.report().await;
    let record = &notes.records[0];
    let detail = "aborted: 0 clients answered in the phase \"keys\" of secure aggregation, 3 are required";
    assert_eq!(record.detail, detail);
    assert_eq!(refusals(record), [(Refusal::Malformed, 1), (Refusal::NoAnswer, 2)]);
    assert!(record.seconds < 4.0, "{}", record.seconds);
}
