//! A client's steps. Each consumes the one before, so none can be taken twice, left out, or taken out of order.
//!
//! Whatever a step refuses is gone with it: secrets are wiped, and there is nothing left to ask again. A second answer does not
//! compile:
//!
//! ```compile_fail,E0382
//! fn answer_twice(client: skep_privacy::secagg::client::Signed) {
//!     let _first = client.reveal(&[]);
//!     let _second = client.reveal(&[]);
//! }
//! ```
//!
//! nor does an answer before the survivors are signed:
//!
//! ```compile_fail,E0599
//! fn answer_early(client: skep_privacy::secagg::client::Masked) {
//!     let _answer = client.reveal(&[]);
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};

use x25519_dalek::SharedSecret;

use super::advert::{Advert, InDegrees, KeysSeen};
use super::agreement::{ExchangeKey, ExchangeSecret, Seed};
use super::kdf::{Use, commitment, derive};
use super::mask::{Sign, SignedKey, mask_and_pack};
use super::party::{Identity, IdentityKey, Party, Peer, Signature};
use super::refusal::{AdvertError, Refusal};
use super::sealing::{self, SharePair};
use super::session::{Check, Digest, Session};
use super::shamir;
use super::survivors::agreed_text;
use super::wire::{Kind, message};
use crate::prg::{CryptoRng, Key};
use crate::sum::Summand;

/// Begins: draws the secrets of the session, picks the share-holders, and says so. Returns what is sent to the server.
///
/// `connection` names the connection that the advert is sent over, so that nobody can relay it; the server compares.
///
/// # Errors
/// [`Refusal::NotInCohort`].
pub fn advertise(
    session: &Session,
    me: Party,
    connection: &Digest,
    identity: &(impl Identity + ?Sized),
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Advertised, Vec<u8>), Refusal> {
    if !session.admits(me) {
        return Err(Refusal::NotInCohort(me));
    }
    let (self_seed, mask_seed) = (Seed::random(rng), Seed::random(rng));
    let channel = ExchangeSecret::random(rng);
    let advert = Advert {
        channel: channel.public_key(),
        mask: mask_secret(&mask_seed, session, me).public_key(),
        commitment: commitment(self_seed.as_bytes(), session, me),
        connection: *connection,
        picks: pick_holders(session, me, rng),
    };
    let sent = advert.sign(session, me, identity);
    let identity = identity.public_key();
    Ok((Advertised { session: session.clone(), me, identity, self_seed, mask_seed, channel, advert }, sent))
}

/// A client that has sent its advert.
pub struct Advertised {
    session: Session,
    me: Party,
    identity: IdentityKey,
    self_seed: Seed,
    mask_seed: Seed,
    channel: ExchangeSecret,
    advert: Advert,
}

impl Advertised {
    /// Takes the adverts of the neighbours, in ascending order, and shares the secrets. Returns an envelope for each holder.
    ///
    /// Neighbours are those that this client picked and those that picked it. In the complete graph that is everybody else;
    /// the client's own advert may stand among them.
    ///
    /// # Errors
    /// [`Refusal`] when an advert is not genuine, or too few holders are left.
    pub fn share(
        self,
        peers: &[Peer<'_>],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<(Shared, Vec<Envelope>), Refusal> {
        let neighbours = self.verify(peers)?;
        let holders: Vec<Party> =
            neighbours.iter().filter(|(_, neighbour)| neighbour.is_holder).map(|(party, _)| *party).collect();
        let threshold = self.session.params().threshold();
        let alive = holders.len() as u32;
        if alive < threshold {
            return Err(Refusal::TooFewHolders { alive, threshold });
        }
        let self_shares = shamir::share(self.self_seed.scalar(), threshold, &holders, rng);
        let mask_shares = shamir::share(self.mask_seed.scalar(), threshold, &holders, rng);
        let envelope = |((&to, of_self), of_mask)| {
            let neighbour: &Neighbour = &neighbours[&to];
            let key = derive(neighbour.channel.as_bytes(), &self.session, Use::Share(self.me, to));
            Envelope { peer: to, sealed: sealing::seal(&key, of_self, of_mask).to_vec() }
        };
        let sent = holders.iter().zip(self_shares.iter()).zip(mask_shares.iter()).map(envelope).collect();
        let Self { session, me, self_seed, mask_seed, .. } = self;
        Ok((Shared { session, me, self_seed, mask_seed, neighbours }, sent))
    }

    fn verify(&self, peers: &[Peer<'_>]) -> Result<BTreeMap<Party, Neighbour>, Refusal> {
        check_order(peers.iter().map(|peer| peer.party))?;
        let cohort = self.session.params().cohort();
        let others = peers.iter().filter(|peer| peer.party != self.me);
        if others.clone().count() >= cohort as usize {
            return Err(Refusal::TooMany { cohort, found: peers.len() });
        }
        let (mut keys, mut in_degrees) = (KeysSeen::default(), InDegrees::default());
        let of = |party| move |reason| Refusal::Advert { party, reason };
        keys.add(self.me, &self.identity, &self.advert).map_err(of(self.me))?;
        let mut neighbours = BTreeMap::new();
        for peer in others {
            let (party, refused) = (peer.party, of(peer.party));
            if !self.session.admits(party) {
                return Err(refused(AdvertError::NotInCohort));
            }
            let advert = Advert::verify(peer, &self.session).map_err(refused)?;
            keys.add(party, &peer.identity, &advert).map_err(refused)?;
            in_degrees.add(&advert, &self.session).map_err(refused)?;
            neighbours.insert(party, self.neighbour(peer, &advert)?);
        }
        Ok(neighbours)
    }

    fn neighbour(&self, peer: &Peer<'_>, advert: &Advert) -> Result<Neighbour, Refusal> {
        let Peer { party, identity, .. } = *peer;
        let is_holder = self.advert.picks(&self.session, party);
        let is_held = advert.picks(&self.session, self.me);
        if !is_holder && !is_held {
            return Err(Refusal::NotANeighbour(party));
        }
        let refused = Refusal::Advert { party, reason: AdvertError::SmallOrder };
        let channel = self.channel.agree(&advert.channel, &self.session).ok_or(refused)?;
        Ok(Neighbour { identity, channel, mask: advert.mask, is_holder, is_held })
    }
}

/// An encrypted pair of shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// To whom on its way to the server, from whom on its way from it.
    pub peer: Party,
    /// What only sender and holder can read: 80 bytes.
    pub sealed: Vec<u8>,
}

struct Neighbour {
    identity: IdentityKey,
    channel: SharedSecret,
    mask: ExchangeKey,
    /// It holds shares of this client.
    is_holder: bool,
    /// This client holds shares of it.
    is_held: bool,
}

/// A client that has shared its secrets.
pub struct Shared {
    session: Session,
    me: Party,
    self_seed: Seed,
    mask_seed: Seed,
    neighbours: BTreeMap<Party, Neighbour>,
}

impl Shared {
    /// Takes the names of those who have shared their secrets, and the envelopes for this client, both in ascending order.
    ///
    /// An envelope that does not open is the sender's fault or the server's; either way it only means one share less. It is
    /// reported in [`Paired::complaints`], so that no client can put another out of the round.
    ///
    /// # Errors
    /// [`Refusal`] when names and envelopes do not fit, or too few holders are left.
    pub fn receive(self, shared: &[Party], inbox: &[Envelope]) -> Result<Paired, Refusal> {
        check_order(shared.iter().copied())?;
        check_order(inbox.iter().map(|envelope| envelope.peer))?;
        let shared = BTreeSet::from_iter(shared.iter().copied());
        if !shared.contains(&self.me) {
            return Err(Refusal::LeftOut);
        }
        self.check_holders(&shared)?;
        let (held, complaints) = self.open(&shared, inbox)?;
        let masks = self.masks(&shared)?;
        let holders = self.neighbours.iter().filter(|(party, it)| it.is_holder && shared.contains(party));
        let holders = holders.map(|(party, holder)| (*party, holder.identity)).collect();
        let Self { session, me, .. } = self;
        Ok(Paired { masks, complaints, rest: Holding { session, me, shared, holders, held } })
    }

    fn check_holders(&self, shared: &BTreeSet<Party>) -> Result<(), Refusal> {
        let holder =
            |(party, neighbour): &(&Party, &Neighbour)| neighbour.is_holder && shared.contains(party);
        let alive = self.neighbours.iter().filter(holder).count() as u32;
        let threshold = self.session.params().threshold();
        if alive < threshold && self.session.makes(Check::Holders) {
            return Err(Refusal::TooFewHolders { alive, threshold });
        }
        Ok(())
    }

    fn open(
        &self,
        shared: &BTreeSet<Party>,
        inbox: &[Envelope],
    ) -> Result<(BTreeMap<Party, SharePair>, Vec<Party>), Refusal> {
        let owes = |party: &Party| self.neighbours.get(party).is_some_and(|it| it.is_held);
        if let Some(stray) = inbox.iter().find(|it| !shared.contains(&it.peer) || !owes(&it.peer)) {
            return Err(Refusal::UnexpectedEnvelope(stray.peer));
        }
        let sent: BTreeSet<Party> = inbox.iter().map(|envelope| envelope.peer).collect();
        if let Some(missing) = shared.iter().find(|party| owes(party) && !sent.contains(party)) {
            return Err(Refusal::MissingEnvelope(*missing));
        }
        let (mut held, mut complaints) = (BTreeMap::new(), Vec::new());
        for Envelope { peer, sealed } in inbox {
            let channel = self.neighbours[peer].channel.as_bytes();
            let key = derive(channel, &self.session, Use::Share(*peer, self.me));
            match sealing::open(&key, sealed) {
                Some(shares) => drop(held.insert(*peer, shares)),
                None => complaints.push(*peer),
            }
        }
        Ok((held, complaints))
    }

    /// The keys of the client's own mask and of those that it shares with its neighbours.
    fn masks(&self, shared: &BTreeSet<Party>) -> Result<Vec<SignedKey>, Refusal> {
        let key = derive(self.self_seed.as_bytes(), &self.session, Use::SelfMask(self.me));
        let mut masks = vec![SignedKey { key, sign: Sign::Plus }];
        let secret = mask_secret(&self.mask_seed, &self.session, self.me);
        for (&party, neighbour) in self.neighbours.iter().filter(|(party, _)| shared.contains(party)) {
            let refused = Refusal::Advert { party, reason: AdvertError::SmallOrder };
            masks.push(pair_mask(&secret, &neighbour.mask, &self.session, self.me, party).ok_or(refused)?);
        }
        Ok(masks)
    }
}

/// What a client keeps after it has sent its input: shares of others.
struct Holding {
    session: Session,
    me: Party,
    /// Who has shared its secrets.
    shared: BTreeSet<Party>,
    /// Who of them holds shares of this client, with its identity key.
    holders: BTreeMap<Party, IdentityKey>,
    held: BTreeMap<Party, SharePair>,
}

/// A client that knows its masks.
pub struct Paired {
    masks: Vec<SignedKey>,
    complaints: Vec<Party>,
    rest: Holding,
}

impl Paired {
    /// Whose envelopes did not open: they were altered, swapped, or made for another session.
    #[must_use]
    pub fn complaints(&self) -> &[Party] {
        &self.complaints
    }

    /// Masks an update. The masks are gone afterwards, so no second update can be hidden by them.
    ///
    /// # Errors
    /// [`Refusal::Dimension`].
    pub fn mask(self, update: &impl Summand) -> Result<(Masked, MaskedUpdate), Refusal> {
        let shape = self.rest.session.shape();
        let found = update.coordinates().len();
        if found != shape.len {
            return Err(Refusal::Dimension { expected: shape.len, found });
        }
        let packed = mask_and_pack(update.coordinates(), &self.masks, shape);
        Ok((Masked(self.rest), MaskedUpdate(packed)))
    }
}

/// An update under its masks: uniform to everybody who does not know them. Packed to the low bits of the session's width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskedUpdate(Vec<u8>);

impl MaskedUpdate {
    /// The bytes to send.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes to send.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A client that has sent its masked update.
pub struct Masked(Holding);

impl Masked {
    /// Takes the names of the survivors, in ascending order, and signs them if they can be true.
    ///
    /// # Errors
    /// [`Refusal`] when the client is not among them, somebody is who has not shared, or too few holders are.
    pub fn sign(
        self,
        survivors: &[Party],
        identity: &(impl Identity + ?Sized),
    ) -> Result<(Signed, Signature), Refusal> {
        let Self(rest) = self;
        check_order(survivors.iter().copied())?;
        let survivors = BTreeSet::from_iter(survivors.iter().copied());
        if !survivors.contains(&rest.me) {
            return Err(Refusal::LeftOut);
        }
        let stranger = survivors.iter().find(|party| !rest.shared.contains(party));
        if let Some(stranger) = stranger {
            return Err(Refusal::SurvivorWithoutShares(*stranger));
        }
        let alive = rest.holders.keys().filter(|party| survivors.contains(party)).count() as u32;
        let threshold = rest.session.params().threshold();
        if alive < threshold && rest.session.makes(Check::Holders) {
            return Err(Refusal::TooFewHolders { alive, threshold });
        }
        let text = agreed_text(&rest.session, &rest.shared, &survivors);
        let signature = identity.sign(&text);
        Ok((Signed { rest, survivors, text }, signature))
    }
}

/// A client that has signed the survivors.
pub struct Signed {
    rest: Holding,
    survivors: BTreeSet<Party>,
    text: Vec<u8>,
}

/// The signature of a survivor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    /// Who signed.
    pub party: Party,
    /// What it signed the survivors with.
    pub signature: Signature,
}

impl Signed {
    /// Takes the signatures of this client's own holders, and reveals one share for each client that it holds shares of: of
    /// its own mask if it survived, of its part in the pair masks if it dropped out. The last step.
    ///
    /// # Errors
    /// [`Refusal::NoAgreement`] when fewer surviving holders than the threshold have signed what this client was told.
    pub fn reveal(self, consents: &[Consent]) -> Result<Vec<u8>, Refusal> {
        check_order(consents.iter().map(|consent| consent.party))?;
        let threshold = self.rest.session.params().threshold();
        let (mut valid, mut invalid) = (0, 0);
        for Consent { party, signature } in consents {
            // Surviving holders only, by the identities of their adverts.
            let identity = self.rest.holders.get(party).filter(|_| self.survivors.contains(party));
            let Some(identity) = identity.filter(|_| valid < threshold) else { continue };
            let signed = self.rest.session.is_signed(identity, &self.text, signature);
            *(if signed { &mut valid } else { &mut invalid }) += 1;
        }
        if valid < threshold && self.rest.session.makes(Check::Agreement) {
            return Err(Refusal::NoAgreement { valid, invalid, threshold });
        }
        Ok(self.shares())
    }

    fn shares(&self) -> Vec<u8> {
        let mut sent = message(Kind::Reveal);
        sent.extend((self.rest.held.len() as u16).to_be_bytes());
        for (party, shares) in &self.rest.held {
            let survived = self.survivors.contains(party);
            let share = if survived { &shares.self_seed } else { &shares.mask_seed };
            sent.extend(party.0.to_be_bytes());
            sent.extend(share.as_bytes());
        }
        sent
    }
}

#[cfg(test)]
impl Masked {
    /// What a corrupt client tells the server: both shares of everybody.
    pub(super) fn betray(&self) -> impl Iterator<Item = (Party, [curve25519_dalek::Scalar; 2])> {
        self.0.held.iter().map(|(party, shares)| (*party, [*shares.self_seed, *shares.mask_seed]))
    }

    /// The same client again, which only a test can have: it would answer twice.
    pub(super) fn twin(&self) -> Self {
        let Holding { session, me, shared, holders, held } = &self.0;
        let copy = |shares: &SharePair| SharePair {
            self_seed: shares.self_seed.clone(),
            mask_seed: shares.mask_seed.clone(),
        };
        Self(Holding {
            session: session.clone(),
            me: *me,
            shared: shared.clone(),
            holders: holders.clone(),
            held: held.iter().map(|(party, shares)| (*party, copy(shares))).collect(),
        })
    }
}

/// k others by the client's own randomness; nobody else has a say.
fn pick_holders(session: &Session, me: Party, rng: &mut (impl CryptoRng + ?Sized)) -> Vec<Party> {
    if session.params().is_complete() {
        return Vec::new();
    }
    let mut others: Vec<Party> = session.members().iter().copied().filter(|party| *party != me).collect();
    let degree = session.params().degree() as usize;
    for i in 0..degree {
        let picked = i + uniform_below(others.len() - i, rng);
        others.swap(i, picked);
    }
    others.truncate(degree);
    others.sort_unstable();
    others
}

/// A uniform number below `bound`, which is at most 2³²: 64 random bits, scaled, and drawn again where that would be unfair.
fn uniform_below(bound: usize, rng: &mut (impl CryptoRng + ?Sized)) -> usize {
    let bound = bound as u128;
    loop {
        let product = u128::from(rng.next_u64()) * bound;
        if product as u64 as u128 >= (1_u128 << 64) % bound {
            return (product >> 64) as usize;
        }
    }
}

/// The secret of a client's pair masks, which follows from its seed.
pub(super) fn mask_secret(seed: &Seed, session: &Session, party: Party) -> ExchangeSecret {
    let key: Key = derive(seed.as_bytes(), session, Use::MaskSecret(party));
    ExchangeSecret::from_bytes(key.expose())
}

/// The mask between `me` and `other`, as it goes into the update of `me`: the smaller adds it, the larger subtracts it.
pub(super) fn pair_mask(
    secret: &ExchangeSecret,
    theirs: &ExchangeKey,
    session: &Session,
    me: Party,
    other: Party,
) -> Option<SignedKey> {
    let agreed = secret.agree(theirs, session)?;
    let key = derive(agreed.as_bytes(), session, Use::PairMask(me.min(other), me.max(other)));
    Some(SignedKey { key, sign: if me < other { Sign::Plus } else { Sign::Minus } })
}

fn check_order(parties: impl Iterator<Item = Party>) -> Result<(), Refusal> {
    if parties.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Refusal::Order) }
}
