//! Lies about who has shared.

use super::*;

/// The victim is told that nobody but the corrupt client has shared, so all its pair masks are known; everybody else is told
/// the truth, and that all survived.
fn isolate(session_of_victim: Session) -> Result<Vec<i32>, Refusal> {
    let lenient = honest();
    let session = |party| if party == victim() { session_of_victim.clone() } else { lenient.clone() };
    let told = |party| if party == victim() { vec![victim(), corrupt()] } else { everybody() };
    let (mut steps, mut loot) = Keys::new(session, identity).share().0.input(told, &[corrupt()])?;
    steps.remove(&victim());
    reveal(steps, &everybody(), &mut loot);
    let own = loot.own_mask().unwrap();
    let seed = Seed::random(&mut skip_one_seed(corrupt()));
    let secret = mask_secret(&seed, &loot.session, corrupt());
    let theirs = loot.mask_keys[&victim()];
    let SignedKey { key, .. } = pair_mask(&secret, &theirs, &loot.session, corrupt(), victim()).unwrap();
    // The victim has the smaller number and adds the mask.
    Ok(loot.without([own, SignedKey { key, sign: Sign::Plus }].into_iter()))
}

/// A client draws the seed of its own mask first, then that of its pair masks.
fn skip_one_seed(party: Party) -> crate::prg::Prg {
    let mut rng = rng(party, 1);
    drop(Seed::random(&mut rng));
    rng
}

#[test]
fn t05_a_client_without_neighbours_sends_nothing_and_would_be_read() {
    let refused = Refusal::TooFewHolders { alive: 1, threshold: 6 };
    assert_eq!(isolate(honest()), Err(refused));
    assert_eq!(isolate(honest().without(Check::Holders)), Ok(secret()));
}
