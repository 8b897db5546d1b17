//! A cohort with its server in one place, for tests: everybody's steps in order, and who leaves when.
//!
//! Also compiled into the acceptance tests, which import what is public.
#![allow(dead_code, reason = "each of the two places uses a part")]

use std::collections::BTreeMap;

use ring::signature::Ed25519KeyPair;

use super::{
    Abort, CorruptFraction, Identity, Key, Params, Party, Peer, Phase, Prg, PrgId, Refusal, Session, Shape,
    Summand, UnmaskedSum, client, server,
};

/// A session of n clients, all corrupt shares counted at γ = 0.1, of small vectors.
pub(super) fn session(cohort: u32) -> Session {
    session_of(params(cohort), 5, 22)
}

pub(super) fn params(cohort: u32) -> Params {
    let gamma = CorruptFraction::new(0.1).unwrap();
    let delta = super::DropoutFraction::new(0.0).unwrap();
    Params::plan(cohort, 3, gamma, delta).unwrap()
}

pub(super) fn session_of(params: Params, len: usize, bits: u32) -> Session {
    let shape = Shape { len, bits, generator: PrgId::Aes256Ctr };
    Session::new(&[1; 32], &[2; 32], params, shape, parties(params.cohort())).unwrap()
}

/// The numbers of clients are far apart, and not in the order of their keys.
pub(super) fn parties(cohort: u32) -> impl DoubleEndedIterator<Item = Party> + ExactSizeIterator {
    (0..cohort).map(|i| Party(u64::from(i) * 1_000_003 + 7))
}

pub(super) fn identity(party: Party) -> Ed25519KeyPair {
    let seed = Key::from_seed(party.0).derive(super::Purpose::Client, 0, 1);
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).unwrap()
}

pub(super) fn rng(party: Party, step: u64) -> Prg {
    Key::from_seed(1 << 40 | party.0).derive(super::Purpose::Mask, step, 0).stream()
}

/// Names the connection of a client.
pub(super) fn connection(party: Party) -> [u8; 32] {
    [party.0 as u8; 32]
}

/// Everything that goes through the server, in order.
#[derive(Default)]
pub(super) struct Traffic(pub(super) Vec<Vec<u8>>);

/// Runs a session. `leaves` says who does not answer in a phase: before its advert, its envelopes, its update, its signature or
/// its shares. `traffic` takes all bytes that are sent.
pub(super) fn run<U: Summand>(
    session: &Session,
    updates: &BTreeMap<Party, U>,
    mut leaves: impl FnMut(Phase, Party) -> bool,
    traffic: &mut Traffic,
) -> Result<UnmaskedSum, Abort> {
    let mut directory = server::Directory::new(session);
    let mut advertised = BTreeMap::new();
    for &party in updates.keys().filter(|party| !leaves(Phase::Keys, **party)) {
        let identity = identity(party);
        let (step, advert) =
            client::advertise(session, party, &connection(party), &identity, &mut rng(party, 1)).unwrap();
        let peer = Peer { party, identity: identity.public_key(), advert: &advert };
        directory.accept(&peer, &connection(party)).unwrap();
        traffic.0.push(advert);
        advertised.insert(party, step);
    }
    let mut mailbox = directory.close()?;
    let mut shared = BTreeMap::new();
    for (party, step) in advertised {
        if leaves(Phase::Shares, party) {
            continue;
        }
        let (step, envelopes) = step.share(&mailbox.peers(party), &mut rng(party, 2)).unwrap();
        traffic.0.extend(envelopes.iter().map(|envelope| envelope.sealed.clone()));
        mailbox.accept(party, envelopes).unwrap();
        shared.insert(party, step);
    }
    let mut input = mailbox.close()?;
    let names = input.shared();
    let mut masked = BTreeMap::new();
    for (party, step) in shared {
        let step = step.receive(&names, input.inbox(party)).unwrap();
        assert!(step.complaints().is_empty());
        if leaves(Phase::Input, party) {
            continue;
        }
        let (step, update) = step.mask(&updates[&party]).unwrap();
        input.commit(party, update.as_bytes()).unwrap();
        traffic.0.push(update.into_bytes());
        masked.insert(party, step);
    }
    let mut consistency = input.close()?;
    let names = consistency.survivors();
    let mut signed = BTreeMap::new();
    for (party, step) in masked {
        if leaves(Phase::Consistency, party) {
            continue;
        }
        let (step, signature) = step.sign(&names, &identity(party)).unwrap();
        consistency.accept(party, &signature).unwrap();
        signed.insert(party, step);
    }
    let mut unmasking = consistency.close()?;
    for (party, step) in signed {
        if leaves(Phase::Unmask, party) {
            continue;
        }
        let revealed = match step.reveal(&unmasking.consents(party)) {
            Ok(revealed) => revealed,
            // Too few of this one's own holders are left, while others may go on.
            Err(Refusal::NoAgreement { invalid: 0, .. }) => continue,
            Err(other) => panic!("{other}"),
        };
        unmasking.accept(party, &revealed).unwrap();
        traffic.0.push(revealed);
    }
    unmasking.unmask()
}

/// Pearson's test of bytes against the uniform law, 255 degrees of freedom: the p-value by the approximation of Wilson and
/// Hilferty (1931), to three digits.
pub(super) fn chi_square_of_bytes(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.for_each(|byte| counts[usize::from(byte)] += 1);
    let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
    assert!(expected >= 10.0, "too few bytes to tell");
    let statistic: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    let spread = 2.0 / (9.0 * 255.0);
    let z = ((statistic / 255.0).cbrt() - (1.0 - spread)) / f64::sqrt(spread);
    libm::erfc(z / std::f64::consts::SQRT_2) / 2.0
}
