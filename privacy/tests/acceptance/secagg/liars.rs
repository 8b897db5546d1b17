//! Clients that reveal shares which are not those they were given: corrected while there are few, then an abort that says whose
//! secret it was.

use std::collections::BTreeMap;

use skep_privacy::secagg::client::advertise;
use skep_privacy::secagg::server::Directory;

use super::exactness::{grid, plain, update, updates};
use super::testing::{connection, identity, params, parties, rng, session_of};
use super::{Abort, Identity, Key, Party, Peer, Session, UnmaskedSum};
use crate::release;

const COHORT: u32 = 20;

/// A session in which these change the last bits of every share that they reveal.
fn with_liars(liars: &[Party]) -> Result<UnmaskedSum, Abort> {
    let grid = grid(COHORT);
    let session: Session = session_of(params(COHORT), 100, grid.encoding().wire_bits);
    let mut directory = Directory::new(&session);
    let mut advertised = BTreeMap::new();
    for party in parties(COHORT) {
        let me = identity(party);
        let (step, advert) = advertise(&session, party, &connection(party), &me, &mut rng(party, 1)).unwrap();
        let peer = Peer { party, identity: me.public_key(), advert: &advert };
        directory.accept(&peer, &connection(party)).unwrap();
        advertised.insert(party, step);
    }
    let mut mailbox = directory.close()?;
    let mut shared = BTreeMap::new();
    for (party, step) in advertised {
        let (step, envelopes) = step.share(&mailbox.peers(party), &mut rng(party, 2)).unwrap();
        mailbox.accept(party, envelopes).unwrap();
        shared.insert(party, step);
    }
    let mut input = mailbox.close()?;
    let names = input.shared();
    let mut masked = BTreeMap::new();
    for (party, step) in shared {
        let (step, update) =
            step.receive(&names, input.inbox(party)).unwrap().mask(&update(party, COHORT)).unwrap();
        input.commit(party, update.as_bytes()).unwrap();
        masked.insert(party, step);
    }
    let mut consistency = input.close()?;
    let mut signed = BTreeMap::new();
    for (party, step) in masked {
        let (step, signature) = step.sign(&names, &identity(party)).unwrap();
        consistency.accept(party, &signature).unwrap();
        signed.insert(party, step);
    }
    let mut unmasking = consistency.close()?;
    for (party, step) in signed {
        let mut revealed = step.reveal(&unmasking.consents(party)).unwrap();
        if liars.contains(&party) {
            revealed[4..].chunks_mut(40).for_each(|share| share[8] ^= 1 + party.0 as u8 % 5);
        }
        unmasking.accept(party, &revealed).unwrap();
    }
    unmasking.unmask()
}

#[test]
fn few_false_shares_are_corrected_and_their_holders_named() {
    // 11 of 19 shares open a secret, so 4 false ones are found.
    assert_eq!((params(COHORT).degree(), params(COHORT).threshold()), (19, 11));
    let all: Vec<Party> = parties(COHORT).collect();
    for liars in [&all[..0], &all[..1], &all[3..5], &all[..4], &[all[0], all[5], all[12], all[19]]] {
        let sum = with_liars(liars).unwrap();
        assert_eq!((sum.liars(), sum.members()), (liars, COHORT));
        let sum =
            release(sum.into_sum(grid(COHORT).into()).unwrap(), &grid(COHORT), 0.001, &Key::from_seed(5));
        assert_eq!(sum, plain(&updates(COHORT), |_| true));
    }
}

#[test]
fn many_false_shares_end_the_session_and_say_whose_secret_it_was() {
    let all: Vec<Party> = parties(COHORT).collect();
    let abort = with_liars(&all[5..12]).err().unwrap();
    assert_eq!(abort, Abort::Inconsistent { party: all[0], shares: 19 });
}
