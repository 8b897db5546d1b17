//! Reading along.

use super::*;
use crate::secagg::kdf::commitment;
use crate::secagg::refusal::Phase;
use crate::secagg::testing::{Traffic, run};

/// All secrets of a client, drawn as it draws them, and all keys that follow from them.
fn secrets(party: Party, session: &Session, mask_keys: &BTreeMap<Party, [u8; 32]>) -> Vec<[u8; 32]> {
    let mut rng = rng(party, 1);
    let (self_seed, mask_seed) = (Seed::random(&mut rng), Seed::random(&mut rng));
    let mut channel = [0; 32];
    crate::prg::Rng::fill_bytes(&mut rng, &mut channel);
    let own = derive(self_seed.as_bytes(), session, Use::SelfMask(party));
    let exchange = derive(mask_seed.as_bytes(), session, Use::MaskSecret(party));
    let secret = ExchangeSecret::from_bytes(exchange.expose());
    let mut all =
        vec![*self_seed.as_bytes(), *mask_seed.as_bytes(), channel, *own.expose(), *exchange.expose()];
    for (other, key) in mask_keys.iter().filter(|(other, _)| **other != party) {
        all.push(secret.agree(key, session).unwrap().to_bytes());
        all.push(*pair_mask(&secret, key, session, party, *other).unwrap().key.expose());
    }
    all
}

#[test]
fn t03_no_seed_and_no_key_travels() {
    let session = honest();
    let updates: BTreeMap<_, _> =
        everybody().into_iter().map(|party| (party, update_of(party, LEN))).collect();
    let mut traffic = Traffic::default();
    let leaves = |phase, party| phase == Phase::Input && party == victim();
    run(&session, &updates, leaves, &mut traffic).unwrap();
    let seen: BTreeSet<[u8; 32]> =
        traffic.0.iter().flat_map(|message| message.array_windows().copied()).collect();
    assert!(seen.len() > 5000);
    let keys = Keys::of(&session);
    let read = |peer: Peer<'_>| (peer.party, Advert::verify(&peer, &session).unwrap().mask);
    let mask_keys: BTreeMap<_, _> = peers(&keys.adverts).into_iter().map(read).collect();
    for party in everybody() {
        let secrets = secrets(party, &session, &mask_keys);
        assert_eq!(secrets.len(), 5 + 2 * 9);
        // These are the secrets of this run: what is public about them was sent.
        assert!(seen.contains(&commitment(&secrets[0], &session, party)));
        assert!(seen.contains(&ExchangeSecret::from_bytes(&secrets[2]).public_key()));
        assert!(seen.contains(&ExchangeSecret::from_bytes(&secrets[4]).public_key()));
        assert!(!secrets.iter().any(|secret| seen.contains(secret)), "{party}");
    }
}
