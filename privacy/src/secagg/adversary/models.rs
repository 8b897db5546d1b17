//! Different models for different clients: what is left of the victim's training then would tell more than a sum of many.

use super::*;
use crate::secagg::session::Shape;
use crate::secagg::testing::chi_square_of_bytes;

const WIDE: usize = 1 << 14;

fn session_with(model: u8) -> Session {
    let shape = Shape { len: WIDE, bits: 8, generator: crate::prg::PrgId::Aes256Ctr };
    Session::new(&[1; 32], &[model; 32], params(COHORT), shape, everybody()).unwrap()
}

#[test]
fn t07_another_model_is_another_session_and_its_adverts_are_refused() {
    let (_, refusals) =
        Keys::new(|party| session_with(if party == victim() { 9 } else { 2 }), identity).share();
    assert_eq!(refusals.len(), COHORT as usize);
    for (party, refusal) in refusals {
        let first = everybody()[0];
        let blamed = if party == victim() { first } else { victim() };
        assert_eq!(refusal, Refusal::Advert { party: blamed, reason: AdvertError::Signature });
    }
}

/// The sum of everybody's masked updates without everybody's own masks, modulo 256.
fn sum_without_own_masks(model_of_victim: u8) -> Vec<u8> {
    let session =
        |party| session_with(if party == victim() { model_of_victim } else { 2 }).without(Check::Signatures);
    let (shares, refusals) = Keys::new(session, identity).share();
    assert!(refusals.is_empty());
    let mut sums = vec![0_u32; WIDE];
    for (party, step) in shares.steps {
        let paired = step.receive(&everybody(), &shares.inboxes[&party]).unwrap();
        let closed = if model_of_victim == 2 {
            0
        } else if party == victim() {
            9
        } else {
            1
        };
        assert_eq!(paired.complaints().len(), closed, "envelopes are bound to the model, too");
        let (_, update) = paired.mask(&update_of(party, WIDE)).unwrap();
        add_packed(update.as_bytes(), 8, &mut sums).unwrap();
        let seed = Seed::random(&mut rng(party, 1));
        let key = derive(seed.as_bytes(), &session(party), Use::SelfMask(party));
        let generator = shares.sessions[&party].shape().generator;
        add_masks(&mut sums, &[SignedKey { key, sign: Sign::Minus }], generator);
    }
    sums.into_iter().map(|sum| sum as u8).collect()
}

#[test]
fn t07_unchecked_another_model_leaves_masks_that_do_not_cancel() {
    let plain =
        |i: usize| everybody().into_iter().map(|party| update_of(party, WIDE).coordinates()[i]).sum::<i32>();
    let cancelled = sum_without_own_masks(2);
    assert!((0..WIDE).step_by(97).all(|i| cancelled[i] == plain(i) as u8));
    let left = sum_without_own_masks(9);
    assert!(chi_square_of_bytes(left.iter().copied()) > 1e-6);
    let differences = left.iter().zip(&cancelled).map(|(left, sum)| left.wrapping_sub(*sum));
    assert!(chi_square_of_bytes(differences) > 1e-6);
    assert!(chi_square_of_bytes(cancelled.into_iter()) < 1e-6, "the test can fail");
}
