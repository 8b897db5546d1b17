//! The bodies of masked rounds: one encoding each, and hostile bytes are refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use skep_protocol::masked::{
    Body, Delivery, Envelope, Introduction, Peers, Shares, Signatures, Survivors, connection_name,
};
use skep_protocol::{ChannelBinding, ClientId};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn client() -> impl Strategy<Value = ClientId> {
    any::<u64>().prop_map(ClientId)
}

fn envelopes() -> impl Strategy<Value = Vec<Envelope>> {
    let envelope = (client(), bytes()).prop_map(|(peer, sealed)| Envelope { peer, sealed });
    prop::collection::vec(envelope, 0..6)
}

/// It reads back, and neither less, nor more, nor another kind of body does.
fn check<B: Body + PartialEq + std::fmt::Debug>(body: &B) {
    let bytes = body.to_bytes();
    assert_eq!(B::from_bytes(&bytes).as_ref(), Ok(body));
    for cut in 0..bytes.len() {
        assert!(B::from_bytes(&bytes[..cut]).is_err());
    }
    assert!(B::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    if B::DOMAIN != Survivors::DOMAIN {
        assert!(Survivors::from_bytes(&bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn bodies_have_one_encoding(
        introductions in prop::collection::vec((client(), bytes(), bytes()), 0..5),
        clients in prop::collection::vec(client(), 0..9),
        inbox in envelopes(),
        signed in prop::collection::vec((client(), any::<u8>()), 0..5),
    ) {
        let introduced = |(client, certificate, advert)| (client, Introduction { certificate, advert });
        check(&Peers(introductions.into_iter().map(introduced).collect()));
        check(&Shares(inbox.clone()));
        check(&Delivery { shared: clients.clone(), inbox });
        check(&Survivors(clients));
        check(&Signatures(signed.into_iter().map(|(client, byte)| (client, [byte; 64])).collect()));
    }

    #[test]
    fn arbitrary_bytes_are_refused(junk in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Peers::from_bytes(&junk).is_err());
        prop_assert!(Delivery::from_bytes(&junk).is_err());
        prop_assert!(Signatures::from_bytes(&junk).is_err());
    }
}

#[test]
fn a_length_that_the_bytes_cannot_hold_allocates_nothing() {
    let mut bytes = Survivors(vec![]).to_bytes();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(Survivors::from_bytes(&bytes).is_err());
}

#[test]
fn a_connections_name_does_not_give_its_binding_away() {
    let (one, other) = (ChannelBinding([1; 32]), ChannelBinding([2; 32]));
    assert_ne!(connection_name(&one), connection_name(&other));
    assert_ne!(connection_name(&one).0, one.0);
}
