//! The wire: golden bytes, arbitrary bytes, hostile lengths.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use skep_protocol::codec::{self, CONTROL_LIMIT, CodecError};
use skep_protocol::message::{ClientMessage, Offer, ServerMessage};
use skep_protocol::round::{Decline, Phase, Refusal};
use skep_protocol::{ChannelBinding, Digest, Round, Span};

/// The first byte of every message of this release.
const VERSION: u8 = 5;

fn offer() -> ClientMessage {
    ClientMessage::Offer(Offer { round: Round(3), len: 5, digest: Digest([7; 32]), signature: vec![1, 2] })
}

#[test]
fn the_bytes_of_a_message_are_fixed() {
    let accept = ClientMessage::Accept { round: Round(2), plan: Digest([9; 32]) };
    let mut golden = vec![VERSION, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    golden.extend([9; 32]);
    assert_eq!(codec::encode(&accept).unwrap(), golden);

    let mut golden = vec![VERSION, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    golden.extend([7; 32]);
    golden.extend([2, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(codec::encode(&offer()).unwrap(), golden);

    let refused = ServerMessage::Refused { round: Some(Round(1)), reason: Refusal::Late };
    let golden = vec![VERSION, 5, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
    assert_eq!(codec::encode(&refused).unwrap(), golden);
}

#[test]
fn every_kind_of_message_survives_the_wire() {
    let round = Round(u64::MAX);
    let client = [
        ClientMessage::Accept { round, plan: Digest([1; 32]) },
        ClientMessage::Decline { round, reason: Decline::Policy },
        ClientMessage::Answered { round, phase: Phase::Shares, body: vec![1, 2, 3] },
        offer(),
    ];
    for message in client {
        assert_eq!(codec::decode::<ClientMessage>(&codec::encode(&message).unwrap()), Ok(message));
    }
    let server = [
        ServerMessage::Model { round, len: 1, digest: Digest([2; 32]) },
        ServerMessage::Grant { round, offset: 4, until: Span::from_millis(5) },
        ServerMessage::Committed { round },
        ServerMessage::Refused { round: None, reason: Refusal::NoRound },
        ServerMessage::Closed { round, released: true },
        ServerMessage::Finished,
        ServerMessage::Asked { round, phase: Phase::Reveal, part: vec![4, 5], last: true },
    ];
    for message in server {
        assert_eq!(codec::decode::<ServerMessage>(&codec::encode(&message).unwrap()), Ok(message));
    }
}

#[test]
fn what_is_not_exactly_one_message_is_refused() {
    let mut bytes = codec::encode(&offer()).unwrap();
    assert_eq!(codec::decode::<ClientMessage>(&[]), Err(CodecError::Empty));
    bytes.push(0);
    assert_eq!(codec::decode::<ClientMessage>(&bytes), Err(CodecError::LeftOver(1)));
    bytes[0] = 1;
    assert_eq!(codec::decode::<ClientMessage>(&bytes), Err(CodecError::Version(1)));
    let long = vec![1; CONTROL_LIMIT + 1];
    assert_eq!(codec::decode::<ClientMessage>(&long), Err(CodecError::TooLong(CONTROL_LIMIT + 1)));
}

#[test]
fn a_claim_of_more_bytes_than_allowed_is_refused_before_they_are_allocated() {
    // A signature that claims 2^40 bytes: honouring it would end the process.
    let mut bytes = vec![VERSION, 2, 0, 0, 0];
    bytes.extend([0; 8 + 8 + 32]);
    bytes.extend((1u64 << 40).to_le_bytes());
    let before = peak_rss_kib();
    assert!(matches!(codec::decode::<ClientMessage>(&bytes), Err(CodecError::Malformed(_))));
    assert!(peak_rss_kib() < before + 16 * 1024);
}

/// Peak resident memory; zero where the system does not tell.
fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn arbitrary_bytes_never_break_the_decoder() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 20_000, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let (decoded, refused) = (Cell::new(0), Cell::new(0));
    let bytes =
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(plausible, mut bytes)| {
            // Half of the cases get past the version and the first tag.
            if plausible && bytes.len() > 4 {
                let tag = bytes[1] % 8;
                bytes[..5].copy_from_slice(&[VERSION, tag, 0, 0, 0]);
            }
            bytes
        });
    runner
        .run(&bytes, |bytes| {
            let client = codec::decode::<ClientMessage>(&bytes);
            let server = codec::decode::<ServerMessage>(&bytes);
            // What decodes is the one encoding of what it decodes to.
            if let Ok(message) = &client {
                prop_assert_eq!(&codec::encode(message).unwrap(), &bytes);
            }
            if let Ok(message) = &server {
                prop_assert_eq!(&codec::encode(message).unwrap(), &bytes);
            }
            let ok = usize::from(client.is_ok()) + usize::from(server.is_ok());
            decoded.set(decoded.get() + ok);
            refused.set(refused.get() + 2 - ok);
            Ok(())
        })
        .expect("the decoder refuses or decodes");
    assert!(decoded.get() > 0 && refused.get() > 10_000, "{decoded:?} decoded, {refused:?} refused");
}

#[test]
fn an_offer_is_signed_for_one_plan_one_update_and_one_connection() {
    let text = |plan, len, update, channel| {
        Offer::signed_text(&Digest([plan; 32]), len, &Digest([update; 32]), &ChannelBinding([channel; 32]))
    };
    let texts = [text(1, 1, 1, 1), text(2, 1, 1, 1), text(1, 2, 1, 1), text(1, 1, 2, 1), text(1, 1, 1, 2)];
    for (i, one) in texts.iter().enumerate() {
        assert!(texts[i + 1..].iter().all(|other| other != one));
    }
}
