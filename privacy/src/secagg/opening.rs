//! Opening secrets: which shares are revealed, what they open, and which masks follow from it.

use std::collections::{BTreeMap, BTreeSet};

use curve25519_dalek::Scalar;

use super::agreement::Seed;
use super::client::{mask_secret, pair_mask};
use super::correction::true_shares;
use super::kdf::{Use, commitment, derive};
use super::mask::{Sign, SignedKey};
use super::party::{IdentityKey, Party};
use super::refusal::{Abort, Phase, Rejection};
use super::server::Entry;
use super::session::Session;
use super::shamir::Basis;
use super::wire::{Kind, Reader};

/// Shares on their way to secrets.
pub(super) struct Opening {
    session: Session,
    adverts: BTreeMap<Party, Entry>,
    shared: BTreeSet<Party>,
    survivors: BTreeSet<Party>,
    /// By owner of the secret, then by holder.
    shares: BTreeMap<Party, BTreeMap<Party, Scalar>>,
    revealed: BTreeSet<Party>,
}

impl Opening {
    /// Of the secrets of those who shared them. Each needs as many surviving holders as the threshold.
    pub(super) fn new(
        session: &Session,
        adverts: BTreeMap<Party, Entry>,
        shared: BTreeSet<Party>,
        survivors: BTreeSet<Party>,
    ) -> Result<Self, Abort> {
        let shares = shared.iter().map(|&party| (party, BTreeMap::new())).collect();
        let opening =
            Self { session: session.clone(), adverts, shared, survivors, shares, revealed: BTreeSet::new() };
        opening.check_holders(Phase::Input, &opening.survivors)?;
        Ok(opening)
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    pub(super) const fn shared(&self) -> &BTreeSet<Party> {
        &self.shared
    }

    pub(super) const fn survivors(&self) -> &BTreeSet<Party> {
        &self.survivors
    }

    pub(super) fn identity(&self, party: Party) -> Option<&IdentityKey> {
        self.adverts.get(&party).map(|entry| &entry.identity)
    }

    pub(super) fn is_holder(&self, holder: Party, of: Party) -> bool {
        holder != of && self.adverts.get(&of).is_some_and(|entry| entry.advert.picks(&self.session, holder))
    }

    pub(super) fn accept(&mut self, from: Party, revealed: &[u8]) -> Result<(), Rejection> {
        if !self.survivors.contains(&from) {
            return Err(Rejection::NotTakingPart(from));
        }
        if self.revealed.contains(&from) {
            return Err(Rejection::Twice(from));
        }
        let shares = read_reveal(revealed)?;
        let held = |of: &Party| self.shared.contains(of) && self.is_holder(from, *of);
        if !shares.iter().all(|(of, _)| held(of)) {
            return Err(Rejection::Reveal);
        }
        for (of, share) in shares {
            self.shares.entry(of).or_default().insert(from, share);
        }
        self.revealed.insert(from);
        Ok(())
    }

    pub(super) fn is_enough(&self) -> bool {
        let threshold = self.session.params().threshold() as usize;
        self.shares.values().all(|shares| shares.len() >= threshold)
    }

    /// The masks to add so that those in the sum of the survivors go away, and who lied.
    pub(super) fn open(self) -> Result<(Vec<SignedKey>, Vec<Party>), Abort> {
        self.check_shares(Phase::Unmask, |party| self.shares[party].len())?;
        let mut bases = BTreeMap::new();
        let (mut masks, mut liars) = (Vec::new(), BTreeSet::new());
        for (&party, shares) in &self.shares {
            let seed = self.open_seed(party, shares, &mut bases, &mut liars)?;
            if self.survivors.contains(&party) {
                let key = derive(seed.as_bytes(), &self.session, Use::SelfMask(party));
                masks.push(SignedKey { key, sign: Sign::Minus });
            } else {
                self.pair_masks(party, &seed, &mut masks);
            }
        }
        Ok((masks, liars.into_iter().collect()))
    }

    /// Opens a seed with the first shares whose holders have not lied before; if these do not fit, with those that do.
    fn open_seed(
        &self,
        party: Party,
        shares: &BTreeMap<Party, Scalar>,
        bases: &mut BTreeMap<Vec<Party>, Basis>,
        liars: &mut BTreeSet<Party>,
    ) -> Result<Seed, Abort> {
        let threshold = self.session.params().threshold() as usize;
        let (known, others): (Vec<Party>, Vec<Party>) =
            shares.keys().copied().partition(|holder| liars.contains(holder));
        let first: Vec<Party> = others.into_iter().chain(known).take(threshold).collect();
        let basis = bases.entry(first.clone()).or_insert_with_key(|holders| Basis::new(holders));
        let seed = Seed::new(basis.open(first.iter().map(|holder| shares[holder])));
        if self.fits(party, &seed) {
            return Ok(seed);
        }
        self.open_despite_lies(party, shares, liars)
    }

    fn open_despite_lies(
        &self,
        party: Party,
        shares: &BTreeMap<Party, Scalar>,
        liars: &mut BTreeSet<Party>,
    ) -> Result<Seed, Abort> {
        let refused = Abort::Inconsistent { party, shares: shares.len() as u32 };
        let given: Vec<(Party, Scalar)> = shares.iter().map(|(holder, share)| (*holder, *share)).collect();
        let threshold = self.session.params().threshold() as usize;
        let sound = true_shares(&given, threshold).ok_or(refused.clone())?;
        let values = || sound.iter().map(|holder| shares[holder]);
        let seed = Seed::new(Basis::new(&sound).open(values()));
        if !self.fits(party, &seed) {
            return Err(refused);
        }
        let others = given.iter().filter(|(holder, _)| !sound.contains(holder));
        let lies = others.filter(|(holder, share)| Basis::of_share(*holder, &sound).open(values()) != *share);
        liars.extend(lies.map(|(holder, _)| *holder));
        Ok(seed)
    }

    /// Whether the seed is the one behind the client's advert.
    fn fits(&self, party: Party, seed: &Seed) -> bool {
        let advert = &self.adverts[&party].advert;
        if self.survivors.contains(&party) {
            commitment(seed.as_bytes(), &self.session, party) == advert.commitment
        } else {
            mask_secret(seed, &self.session, party).public_key() == advert.mask
        }
    }

    /// What the surviving neighbours of a client that dropped out have added for it.
    fn pair_masks(&self, party: Party, seed: &Seed, masks: &mut Vec<SignedKey>) {
        let secret = mask_secret(seed, &self.session, party);
        for &other in &self.survivors {
            let theirs = &self.adverts[&other].advert;
            if !self.is_holder(other, party) && !self.is_holder(party, other) {
                continue;
            }
            // Nobody's key has small order: adverts were verified. The sign is that of the one who dropped out, the opposite of
            // what is in the sum.
            masks.extend(pair_mask(&secret, &theirs.mask, &self.session, party, other));
        }
    }

    /// Whether as many of a client's holders are in a set as open its secrets.
    pub(super) fn has_enough_holders(&self, of: Party, there: &BTreeSet<Party>) -> bool {
        self.holders_in(of, there) >= self.session.params().threshold() as usize
    }

    /// Whether all secrets can be opened if these reveal what they hold.
    pub(super) fn check_holders(&self, phase: Phase, there: &BTreeSet<Party>) -> Result<(), Abort> {
        self.check_shares(phase, |party| self.holders_in(*party, there))
    }

    fn holders_in(&self, of: Party, there: &BTreeSet<Party>) -> usize {
        there.iter().filter(|holder| self.is_holder(**holder, of)).count()
    }

    fn check_shares(&self, phase: Phase, have: impl Fn(&Party) -> usize) -> Result<(), Abort> {
        let need = self.session.params().threshold();
        let counted = self.shared.iter().map(|party| (*party, have(party) as u32));
        let few: Vec<(Party, u32)> = counted.filter(|(_, have)| *have < need).collect();
        match few.first() {
            None => Ok(()),
            Some(&(_, have)) => {
                let parties = few.into_iter().map(|(party, _)| party).collect();
                Err(Abort::TooFewHolders { phase, parties, have, need })
            }
        }
    }
}

/// Shares by owner, in ascending order.
pub(super) fn read_reveal(bytes: &[u8]) -> Result<Vec<(Party, Scalar)>, Rejection> {
    let mut reader = Reader::open(bytes, Kind::Reveal)?;
    let count = reader.u16()?;
    let mut shares: Vec<(Party, Scalar)> = Vec::new();
    for _ in 0..count {
        let party = Party(reader.u64()?);
        let share = Scalar::from_canonical_bytes(reader.array()?);
        shares.push((party, Option::from(share).ok_or(Rejection::Share)?));
    }
    reader.finish()?;
    let ascending = shares.array_windows().all(|[a, b]| a.0 < b.0);
    if ascending { Ok(shares) } else { Err(super::wire::WireError::Order.into()) }
}
