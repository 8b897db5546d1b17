//! What a client tells about itself in the first phase, signed.

use std::collections::BTreeMap;

use super::agreement::ExchangeKey;
use super::party::{Identity, IdentityKey, Party, Peer, Signature};
use super::refusal::AdvertError;
use super::session::{Check, Digest, Session};
use super::wire::{Kind, Reader, message};

/// The public keys of a client, its commitment and its choice of share-holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advert {
    /// Agrees on what encrypts shares.
    pub(super) channel: ExchangeKey,
    /// Agrees on masks.
    pub(super) mask: ExchangeKey,
    /// Of the seed of the client's own mask.
    pub(super) commitment: Digest,
    /// Names the connection that the advert is sent over.
    pub(super) connection: Digest,
    /// Ascending. Empty in the complete graph, where everybody else is one.
    pub(super) picks: Vec<Party>,
}

impl Advert {
    /// The message: the advert and the signature on it.
    pub(super) fn sign(
        &self,
        session: &Session,
        party: Party,
        identity: &(impl Identity + ?Sized),
    ) -> Vec<u8> {
        let body = self.body(session);
        let signature = identity.sign(&signed_text(session, party, &body));
        [message(Kind::Advert), body, signature.to_vec()].concat()
    }

    /// The advert of a peer, if it is genuine.
    pub(super) fn verify(peer: &Peer<'_>, session: &Session) -> Result<Self, AdvertError> {
        let (advert, signature) = Self::read(peer.advert, session, peer.party)?;
        let text = signed_text(session, peer.party, &advert.body(session));
        if session.makes(Check::Signatures) && !session.is_signed(&peer.identity, &text, &signature) {
            return Err(AdvertError::Signature);
        }
        if session.makes(Check::SmallOrder) && [advert.channel, advert.mask].iter().any(has_small_order) {
            return Err(AdvertError::SmallOrder);
        }
        Ok(advert)
    }

    /// Whether the client wants this one as a share-holder.
    pub(super) fn picks(&self, session: &Session, holder: Party) -> bool {
        session.params().is_complete() || self.picks.binary_search(&holder).is_ok()
    }

    fn read(bytes: &[u8], session: &Session, party: Party) -> Result<(Self, Signature), AdvertError> {
        let mut reader = Reader::open(bytes, Kind::Advert)?;
        let (channel, mask) = (reader.array()?, reader.array()?);
        let (commitment, connection) = (reader.array()?, reader.array()?);
        let complete = session.params().is_complete();
        let picks = if complete { Vec::new() } else { read_picks(&mut reader, session, party)? };
        let signature = reader.array()?;
        reader.finish()?;
        Ok((Self { channel, mask, commitment, connection, picks }, signature))
    }

    fn body(&self, session: &Session) -> Vec<u8> {
        let mut body = [self.channel, self.mask, self.commitment, self.connection].concat();
        if !session.params().is_complete() {
            let seats = self.picks.iter().filter_map(|&holder| session.seat(holder));
            let numbers = std::iter::once(self.picks.len()).chain(seats);
            body.extend(numbers.flat_map(|number| (number as u16).to_be_bytes()));
        }
        body
    }
}

fn signed_text(session: &Session, party: Party, body: &[u8]) -> Vec<u8> {
    [b"skep secagg advert v1", &session.context()[..], &party.0.to_be_bytes(), body].concat()
}

/// Exactly k other members, by their position in the list of members.
fn read_picks(reader: &mut Reader<'_>, session: &Session, party: Party) -> Result<Vec<Party>, AdvertError> {
    let (expected, found) = (session.params().degree(), reader.u16()?.into());
    if found != expected {
        return Err(AdvertError::Degree { expected, found });
    }
    let mut picks = Vec::with_capacity(found as usize);
    for _ in 0..found {
        let holder = session.members().get(usize::from(reader.u16()?));
        picks.push(*holder.ok_or(AdvertError::Holders)?);
    }
    let ascending = picks.array_windows().all(|[a, b]| a < b);
    if ascending && !picks.contains(&party) { Ok(picks) } else { Err(AdvertError::Holders) }
}

/// The keys of one session, each with its owner: none may occur twice.
#[derive(Default)]
pub(super) struct KeysSeen(BTreeMap<[u8; 32], Party>);

impl KeysSeen {
    /// Takes up the keys of a party.
    pub(super) fn add(
        &mut self,
        party: Party,
        identity: &IdentityKey,
        advert: &Advert,
    ) -> Result<(), AdvertError> {
        self.check(party, identity, advert)?;
        self.0.extend([*identity, advert.channel, advert.mask].map(|key| (key, party)));
        Ok(())
    }

    /// Whether all keys of a party are new.
    pub(super) fn check(
        &self,
        party: Party,
        identity: &IdentityKey,
        advert: &Advert,
    ) -> Result<(), AdvertError> {
        let keys = [*identity, advert.channel, advert.mask];
        if let Some(owner) = keys.iter().find_map(|key| self.0.get(key)) {
            return Err(AdvertError::DuplicateKey(*owner));
        }
        if keys[0] == keys[1] || keys[1] == keys[2] || keys[0] == keys[2] {
            return Err(AdvertError::DuplicateKey(party));
        }
        Ok(())
    }
}

/// How many clients have picked each holder.
#[derive(Default)]
pub(super) struct InDegrees(BTreeMap<Party, u32>);

impl InDegrees {
    /// Counts the picks of an advert, unless that makes a holder of too many.
    pub(super) fn add(&mut self, advert: &Advert, session: &Session) -> Result<(), AdvertError> {
        let most = session.params().in_degree_max();
        let full = |holder: &&Party| self.0.get(holder).is_some_and(|count| *count >= most);
        if let Some(holder) = advert.picks.iter().find(full) {
            return Err(AdvertError::InDegree(*holder));
        }
        for &holder in &advert.picks {
            *self.0.entry(holder).or_default() += 1;
        }
        Ok(())
    }
}

/// Whether every clamped multiple of the point is zero: the points of order 1, 2, 4 and 8 of the curve and its twist, in all their
/// encodings (Bernstein, "Curve25519: new Diffie-Hellman speed records", 2006, "points of small order").
pub(super) fn has_small_order(key: &ExchangeKey) -> bool {
    let mut point = *key;
    point[31] &= 0x7f;
    SMALL_ORDER.contains(&point)
}

const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    ending(1, 0, 0),
    ORDER_8,
    OTHER_ORDER_8,
    ending(0xec, 0xff, 0x7f),
    ending(0xed, 0xff, 0x7f),
    ending(0xee, 0xff, 0x7f),
];

const fn ending(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

const ORDER_8: [u8; 32] = [
    0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
    0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
];
const OTHER_ORDER_8: [u8; 32] = [
    0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
    0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::secagg::agreement::ExchangeSecret;
    use crate::secagg::testing::session;

    #[test]
    fn points_of_small_order_are_those_with_which_agreement_fails() {
        let session = session(10);
        let secret = ExchangeSecret::random(&mut Key::from_seed(1).stream());
        let fails = |key: &ExchangeKey| secret.agree(key, &session).is_none();
        for mut key in SMALL_ORDER {
            assert!(has_small_order(&key) && fails(&key));
            key[31] |= 0x80;
            assert!(has_small_order(&key) && fails(&key));
        }
        // All small numbers, and all numbers near the prime and near 2^255.
        for byte in 0..=255 {
            for key in [ending(byte, 0, 0), ending(byte, 0xff, 0x7f), ending(byte, 0xff, 0xff)] {
                assert_eq!(has_small_order(&key), fails(&key), "{key:?}");
            }
        }
    }
}
