//! Lies about keys.

use super::*;
use crate::secagg::sealing;

/// The server's own identity, which no certificate names.
fn server_identity() -> Ed25519KeyPair {
    identity(Party(u64::MAX))
}

/// The server plays everybody but the victim.
fn substitute(session_of_victim: Session) -> Result<Loot, Refusal> {
    let lenient = session_of_victim.without(Check::Signatures);
    let session = |party| if party == victim() { session_of_victim.clone() } else { lenient.clone() };
    let signer = |party| if party == victim() { identity(party) } else { server_identity() };
    let (shares, mut refusals) = Keys::new(session, signer).share();
    if let Some(refusal) = refusals.remove(&victim()) {
        return Err(refusal);
    }
    let played: Vec<Party> = everybody().into_iter().filter(|party| *party != victim()).collect();
    Ok(shares.input(|_| everybody(), &played)?.1)
}

#[test]
fn t06_substituted_keys_are_refused_and_give_everything_away_unsigned() {
    let reason = AdvertError::Signature;
    let refused = Refusal::Advert { party: everybody()[0], reason };
    assert_eq!(substitute(honest()).err(), Some(refused));
    let loot = substitute(honest().without(Check::Signatures)).unwrap();
    assert_eq!(loot.update(), Some(secret()));
}

#[test]
fn t06_a_key_of_small_order_is_refused_and_would_let_anybody_read_the_shares() {
    let read_by_anybody = |session: &Session| {
        let mut keys = Keys::of(session);
        let peer = peers(&keys.adverts)[7];
        let advert = Advert { channel: [0; 32], ..Advert::verify(&peer, session).unwrap() };
        keys.adverts.insert(corrupt(), advert.sign(session, corrupt(), &identity(corrupt())));
        let step = keys.steps.remove(&victim()).unwrap();
        let (_, sent) = step.share(&peers(&keys.adverts), &mut rng(victim(), 2))?;
        let envelope = sent.into_iter().find(|envelope| envelope.peer == corrupt()).unwrap();
        let key = derive(&[0; 32], session, Use::Share(victim(), corrupt()));
        Ok(sealing::open(&key, &envelope.sealed).is_some())
    };
    let refused = Refusal::Advert { party: corrupt(), reason: AdvertError::SmallOrder };
    assert_eq!(read_by_anybody(&honest()), Err(refused));
    assert_eq!(read_by_anybody(&honest().without(Check::SmallOrder)), Ok(true));
}
