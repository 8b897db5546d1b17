//! A server that lies as it likes, with ten clients of which one is its own, and what becomes of each lie.
//!
//! It wants the update of one client, the victim, and has it under its masks. To take them off it needs the seeds of the victim's
//! own mask and of its pair masks, or the pair masks from the other side. Every strategy fails against honest clients, and
//! succeeds where the check that stops it is left out, which only these tests can do.

use std::collections::{BTreeMap, BTreeSet};

use curve25519_dalek::Scalar;
use ring::signature::Ed25519KeyPair;

use super::advert::Advert;
use super::agreement::{ExchangeSecret, Seed};
use super::client::{self, Advertised, Consent, Envelope, Masked, Shared, mask_secret, pair_mask};
use super::kdf::{Use, derive};
use super::mask::{Sign, SignedKey, add_masks};
use super::opening::read_reveal;
use super::params::Params;
use super::party::{Identity, Party, Peer};
use super::refusal::{AdvertError, Refusal};
use super::session::{Check, Session};
use super::shamir::Basis;
use super::testing::{connection, identity, params, parties, rng, session_of};
use crate::grid::{Grid, PrivateGrid};
use crate::packing::add_packed;
use crate::quantities::ClipNorm;
use crate::update::QuantizedUpdate;

mod keys;
mod models;
mod neighbours;
mod traffic;
mod views;

const COHORT: u32 = 10;
const LEN: usize = 40;
const BITS: u32 = 24;

fn everybody() -> Vec<Party> {
    parties(COHORT).collect()
}

fn victim() -> Party {
    everybody()[4]
}

fn corrupt() -> Party {
    everybody()[7]
}

fn honest() -> Session {
    session_of(params(COHORT), LEN, BITS)
}

/// A threshold so low that the server and its client can play the others off against each other: 2t ≤ k + c.
fn weak() -> Session {
    session_of(Params::unsafe_for_tests(COHORT, COHORT - 1, 4), LEN, BITS)
}

fn update_of(party: Party, len: usize) -> QuantizedUpdate {
    let grid = Grid::from(PrivateGrid::new(ClipNorm::ONE, len, COHORT).unwrap());
    let coordinates = (0..len as i32).map(|i| i % 99 * 50 + party.0 as i32 % 1000).collect();
    QuantizedUpdate::verify(coordinates, &grid).unwrap()
}

/// What the server is after.
fn secret() -> Vec<i32> {
    update_of(victim(), LEN).coordinates().to_vec()
}

/// The cohort after its keys, each client with the session that it was told of.
struct Keys {
    sessions: BTreeMap<Party, Session>,
    steps: BTreeMap<Party, Advertised>,
    adverts: BTreeMap<Party, Vec<u8>>,
}

impl Keys {
    fn of(session: &Session) -> Self {
        Self::new(|_| session.clone(), identity)
    }

    fn new(session: impl Fn(Party) -> Session, signer: impl Fn(Party) -> Ed25519KeyPair) -> Self {
        let mut this = Self { sessions: BTreeMap::new(), steps: BTreeMap::new(), adverts: BTreeMap::new() };
        for party in everybody() {
            let (session, signer) = (session(party), signer(party));
            let (step, advert) =
                client::advertise(&session, party, &connection(party), &signer, &mut rng(party, 1)).unwrap();
            this.sessions.insert(party, session);
            this.steps.insert(party, step);
            this.adverts.insert(party, advert);
        }
        this
    }

    /// Everybody is shown the same adverts. Also returns who refused them, and why.
    fn share(self) -> (Shares, BTreeMap<Party, Refusal>) {
        let (mut steps, mut refusals) = (BTreeMap::new(), BTreeMap::new());
        let mut inboxes: BTreeMap<Party, Vec<Envelope>> = BTreeMap::new();
        for (party, step) in self.steps {
            match step.share(&peers(&self.adverts), &mut rng(party, 2)) {
                Err(refusal) => drop(refusals.insert(party, refusal)),
                Ok((step, envelopes)) => {
                    steps.insert(party, step);
                    for Envelope { peer, sealed } in envelopes {
                        inboxes.entry(peer).or_default().push(Envelope { peer: party, sealed });
                    }
                }
            }
        }
        (Shares { sessions: self.sessions, steps, inboxes, adverts: self.adverts }, refusals)
    }
}

/// Adverts as the certificates of their senders introduce them.
fn peers(adverts: &BTreeMap<Party, Vec<u8>>) -> Vec<Peer<'_>> {
    let mut peers = Vec::new();
    for (&party, advert) in adverts {
        peers.push(Peer { party, identity: identity(party).public_key(), advert });
    }
    peers
}

/// The cohort after its shares.
struct Shares {
    sessions: BTreeMap<Party, Session>,
    steps: BTreeMap<Party, Shared>,
    inboxes: BTreeMap<Party, Vec<Envelope>>,
    adverts: BTreeMap<Party, Vec<u8>>,
}

impl Shares {
    /// Everybody is told who has shared, and sends its update. The server keeps the victim's, and what its own clients hold.
    fn input(
        self,
        told: impl Fn(Party) -> Vec<Party>,
        traitors: &[Party],
    ) -> Result<(BTreeMap<Party, Masked>, Loot), Refusal> {
        let mut loot = Loot::new(&self, told(victim()));
        let mut steps = BTreeMap::new();
        for (party, step) in self.steps {
            let names = told(party);
            let inbox: Vec<Envelope> = self.inboxes[&party]
                .iter()
                .filter(|envelope| names.contains(&envelope.peer))
                .cloned()
                .collect();
            let (step, update) = step.receive(&names, &inbox)?.mask(&update_of(party, LEN))?;
            if party == victim() {
                loot.masked = update.into_bytes();
            }
            steps.insert(party, step);
        }
        for traitor in traitors {
            let held = steps[traitor].betray().find(|(party, _)| *party == victim());
            if let Some((_, [of_self, of_mask])) = held {
                loot.shares_of_self.insert(*traitor, of_self);
                loot.shares_of_mask.insert(*traitor, of_mask);
            }
        }
        Ok((steps, loot))
    }
}

/// What the server has gathered about the victim.
struct Loot {
    session: Session,
    masked: Vec<u8>,
    mask_keys: BTreeMap<Party, [u8; 32]>,
    /// With whom the victim shares masks.
    neighbours: Vec<Party>,
    shares_of_self: BTreeMap<Party, Scalar>,
    shares_of_mask: BTreeMap<Party, Scalar>,
}

impl Loot {
    fn new(shares: &Shares, neighbours: Vec<Party>) -> Self {
        let session = shares.sessions[&victim()].without(Check::Signatures);
        let read = |peer: Peer<'_>| (peer.party, Advert::verify(&peer, &session).unwrap().mask);
        let mask_keys = peers(&shares.adverts).into_iter().map(read).collect();
        let neighbours = neighbours.into_iter().filter(|party| *party != victim()).collect();
        let (shares_of_self, shares_of_mask) = (BTreeMap::new(), BTreeMap::new());
        Self { session, masked: Vec::new(), mask_keys, neighbours, shares_of_self, shares_of_mask }
    }

    /// What a client reveals is of one kind or the other, by what it was told of the victim.
    fn take(&mut self, from: Party, revealed: &[u8], survived: bool) {
        let shares = if survived { &mut self.shares_of_self } else { &mut self.shares_of_mask };
        let of_victim = read_reveal(revealed).unwrap().into_iter().find(|(party, _)| *party == victim());
        shares.extend(of_victim.map(|(_, share)| (from, share)));
    }

    /// The victim's update, if there are shares enough for both of its seeds.
    fn update(&self) -> Option<Vec<i32>> {
        let own = self.own_mask()?;
        let secret = mask_secret(&self.seed(&self.shares_of_mask)?, &self.session, victim());
        let pairs = self.neighbours.iter().map(|other| {
            pair_mask(&secret, &self.mask_keys[other], &self.session, victim(), *other).unwrap()
        });
        Some(self.without(std::iter::once(own).chain(pairs)))
    }

    /// The victim's own mask, if there are shares enough.
    fn own_mask(&self) -> Option<SignedKey> {
        let seed = self.seed(&self.shares_of_self)?;
        Some(SignedKey {
            key: derive(seed.as_bytes(), &self.session, Use::SelfMask(victim())),
            sign: Sign::Plus,
        })
    }

    fn seed(&self, shares: &BTreeMap<Party, Scalar>) -> Option<Seed> {
        let threshold = self.session.params().threshold() as usize;
        let holders: Vec<Party> = shares.keys().copied().take(threshold).collect();
        let enough = holders.len() == threshold;
        enough.then(|| Seed::new(Basis::new(&holders).open(shares.values().copied())))
    }

    /// The victim's masked update without masks that went into it.
    fn without(&self, masks: impl Iterator<Item = SignedKey>) -> Vec<i32> {
        let opposite = |SignedKey { key, sign }| SignedKey {
            key,
            sign: if sign == Sign::Plus { Sign::Minus } else { Sign::Plus },
        };
        let mut residues = vec![0; LEN];
        add_packed(&self.masked, BITS, &mut residues).unwrap();
        add_masks(&mut residues, &masks.map(opposite).collect::<Vec<_>>(), self.session.shape().generator);
        residues.into_iter().map(|residue| (residue << (32 - BITS)) as i32 >> (32 - BITS)).collect()
    }
}

/// What clients reveal when all of them are told the same survivors and have each other's signatures.
fn reveal(steps: impl IntoIterator<Item = (Party, Masked)>, survivors: &[Party], loot: &mut Loot) {
    let mut signed = Vec::new();
    for (party, step) in steps {
        let (step, signature) = step.sign(survivors, &identity(party)).unwrap();
        signed.push((party, step, Consent { party, signature }));
    }
    let consents: Vec<Consent> = signed.iter().map(|(_, _, consent)| *consent).collect();
    for (party, step, _) in signed {
        loot.take(party, &step.reveal(&consents).unwrap(), survivors.contains(&victim()));
    }
}
