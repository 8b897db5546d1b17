//! The server's steps. Each consumes the one before.
//!
//! A message is accepted, or its sender refused by name and nothing changes; a step ends when the caller closes it, with
//! whoever has answered by then. The server is not trusted with privacy: what it does wrong here costs a sum, or a refusal by
//! the clients.

use std::collections::{BTreeMap, BTreeSet};

use super::advert::{Advert, InDegrees, KeysSeen};
use super::client::{Consent, Envelope};
use super::mask::SignedKey;
use super::opening::Opening;
use super::party::{IdentityKey, Party, Peer, Signature};
use super::refusal::{Abort, AdvertError, Phase, Rejection};
use super::sealing::ENVELOPE_BYTES;
use super::session::{Digest, Session};
use super::sum::{MaskedSum, UnmaskedSum};
use super::survivors::agreed_text;

/// Collects adverts: the first phase.
pub struct Directory {
    session: Session,
    adverts: BTreeMap<Party, Entry>,
    keys: KeysSeen,
    in_degrees: InDegrees,
}

/// An advert as it came and as it was read.
pub(super) struct Entry {
    pub(super) identity: IdentityKey,
    pub(super) bytes: Vec<u8>,
    pub(super) advert: Advert,
}

impl Directory {
    /// An empty one.
    #[must_use]
    pub fn new(session: &Session) -> Self {
        let session = session.clone();
        Self {
            session,
            adverts: BTreeMap::new(),
            keys: KeysSeen::default(),
            in_degrees: InDegrees::default(),
        }
    }

    /// Takes the advert of a client that came over this connection.
    ///
    /// # Errors
    /// [`Rejection`]; nothing has changed.
    pub fn accept(&mut self, peer: &Peer<'_>, connection: &Digest) -> Result<(), Rejection> {
        let Peer { party, identity, advert: bytes } = *peer;
        if self.adverts.contains_key(&party) {
            return Err(Rejection::Twice(party));
        }
        if !self.session.admits(party) || self.adverts.len() >= self.session.params().cohort() as usize {
            return Err(AdvertError::NotInCohort.into());
        }
        let advert = Advert::verify(peer, &self.session)?;
        if advert.connection != *connection {
            return Err(AdvertError::Connection.into());
        }
        self.keys.check(party, &identity, &advert)?;
        self.in_degrees.add(&advert, &self.session)?;
        self.keys.add(party, &identity, &advert)?;
        self.adverts.insert(party, Entry { identity, bytes: bytes.to_vec(), advert });
        Ok(())
    }

    /// Whose adverts are there.
    pub fn parties(&self) -> impl ExactSizeIterator<Item = Party> {
        self.adverts.keys().copied()
    }

    /// Ends the phase.
    ///
    /// # Errors
    /// [`Abort::TooFew`].
    pub fn close(self) -> Result<Mailbox, Abort> {
        let Self { session, adverts, .. } = self;
        check_enough(&session, Phase::Keys, adverts.len())?;
        Ok(Mailbox { session, adverts, mail: BTreeMap::new() })
    }
}

/// Passes adverts on and collects envelopes: the second phase. At most n·k envelopes of 88 bytes.
pub struct Mailbox {
    session: Session,
    adverts: BTreeMap<Party, Entry>,
    /// By sender.
    mail: BTreeMap<Party, Vec<Envelope>>,
}

impl Mailbox {
    /// The adverts of a client's neighbours, in ascending order, as [`share`](super::client::Advertised::share) takes them.
    pub fn peers(&self, to: Party) -> Vec<Peer<'_>> {
        let Some(own) = self.adverts.get(&to) else { return Vec::new() };
        let is_neighbour = |party: Party, advert: &Advert| {
            party != to && (own.advert.picks(&self.session, party) || advert.picks(&self.session, to))
        };
        let mut peers = Vec::new();
        for (&party, Entry { identity, bytes, advert }) in &self.adverts {
            if is_neighbour(party, advert) {
                peers.push(Peer { party, identity: *identity, advert: bytes });
            }
        }
        peers
    }

    /// Takes the envelopes of a client: one for each of its holders whose advert is there, in ascending order.
    ///
    /// # Errors
    /// [`Rejection`]; nothing has changed.
    pub fn accept(&mut self, from: Party, envelopes: Vec<Envelope>) -> Result<(), Rejection> {
        let own = self.adverts.get(&from).ok_or(Rejection::NotTakingPart(from))?;
        if self.mail.contains_key(&from) {
            return Err(Rejection::Twice(from));
        }
        let holders = holders(&self.session, from, &own.advert, self.adverts.keys());
        let fits = envelopes.iter().map(|envelope| envelope.peer).eq(holders)
            && envelopes.iter().all(|envelope| envelope.sealed.len() == ENVELOPE_BYTES);
        if !fits {
            return Err(Rejection::Holders);
        }
        self.mail.insert(from, envelopes);
        Ok(())
    }

    /// Who has shared its secrets.
    pub fn parties(&self) -> impl ExactSizeIterator<Item = Party> {
        self.mail.keys().copied()
    }

    /// Ends the phase.
    ///
    /// # Errors
    /// [`Abort::TooFew`].
    pub fn close(self) -> Result<Input, Abort> {
        let Self { session, adverts, mail } = self;
        check_enough(&session, Phase::Shares, mail.len())?;
        let mut inboxes: BTreeMap<Party, Vec<Envelope>> =
            mail.keys().map(|&party| (party, Vec::new())).collect();
        for (from, envelopes) in mail {
            for Envelope { peer, sealed } in envelopes {
                if let Some(inbox) = inboxes.get_mut(&peer) {
                    inbox.push(Envelope { peer: from, sealed });
                }
            }
        }
        let sum = MaskedSum::new(session.shape());
        Ok(Input { session, adverts, inboxes, sum, members: BTreeSet::new() })
    }
}

/// Delivers envelopes and sums masked updates: the third phase.
pub struct Input {
    session: Session,
    adverts: BTreeMap<Party, Entry>,
    inboxes: BTreeMap<Party, Vec<Envelope>>,
    sum: MaskedSum,
    members: BTreeSet<Party>,
}

impl Input {
    /// Who has shared its secrets, in ascending order.
    #[must_use]
    pub fn shared(&self) -> Vec<Party> {
        self.inboxes.keys().copied().collect()
    }

    /// The envelopes for a client, in ascending order of their senders.
    #[must_use]
    pub fn inbox(&self, to: Party) -> &[Envelope] {
        self.inboxes.get(&to).map_or(&[], Vec::as_slice)
    }

    /// Adds a masked update, all of it or nothing.
    ///
    /// # Errors
    /// [`Rejection`]; the sum has not changed.
    pub fn commit(&mut self, from: Party, packed: &[u8]) -> Result<(), Rejection> {
        if !self.inboxes.contains_key(&from) {
            return Err(Rejection::NotTakingPart(from));
        }
        if self.members.contains(&from) {
            return Err(Rejection::Twice(from));
        }
        self.sum.add(packed)?;
        self.members.insert(from);
        Ok(())
    }

    /// Whose updates are in the sum.
    pub fn parties(&self) -> impl ExactSizeIterator<Item = Party> {
        self.members.iter().copied()
    }

    /// Ends the phase: the survivors are frozen, and no other set is ever unmasked.
    ///
    /// # Errors
    /// [`Abort`] when too few survived, or too few holders of somebody did.
    pub fn close(self) -> Result<Consistency, Abort> {
        let Self { session, adverts, inboxes, sum, members } = self;
        check_enough(&session, Phase::Input, members.len())?;
        let shared = inboxes.into_keys().collect();
        let opening = Opening::new(&session, adverts, shared, members)?;
        let text = agreed_text(&session, opening.shared(), opening.survivors());
        Ok(Consistency { opening, sum, text, signatures: BTreeMap::new() })
    }
}

/// Collects signatures on the survivors: the fourth phase.
pub struct Consistency {
    opening: Opening,
    sum: MaskedSum,
    text: Vec<u8>,
    signatures: BTreeMap<Party, Signature>,
}

impl Consistency {
    /// The survivors, in ascending order.
    #[must_use]
    pub fn survivors(&self) -> Vec<Party> {
        self.opening.survivors().iter().copied().collect()
    }

    /// Takes the signature of a survivor.
    ///
    /// # Errors
    /// [`Rejection`]; nothing has changed.
    pub fn accept(&mut self, from: Party, signature: &Signature) -> Result<(), Rejection> {
        let identity = self.opening.identity(from).filter(|_| self.opening.survivors().contains(&from));
        let identity = identity.ok_or(Rejection::NotTakingPart(from))?;
        if self.signatures.contains_key(&from) {
            return Err(Rejection::Twice(from));
        }
        if !self.opening.session().is_signed(identity, &self.text, signature) {
            return Err(Rejection::Signature);
        }
        self.signatures.insert(from, *signature);
        Ok(())
    }

    /// Who has signed.
    pub fn parties(&self) -> impl ExactSizeIterator<Item = Party> {
        self.signatures.keys().copied()
    }

    /// Ends the phase. Only who has signed is asked to reveal anything.
    ///
    /// # Errors
    /// [`Abort`] when too few have signed: nobody reveals a share without the signatures of as many of its own holders as the
    /// threshold, so somebody's secret would stay closed.
    pub fn close(self) -> Result<Unmasking, Abort> {
        let Self { opening, sum, signatures, .. } = self;
        let signed: BTreeSet<Party> = signatures.keys().copied().collect();
        let willing = signed.iter().copied().filter(|&party| opening.has_enough_holders(party, &signed));
        opening.check_holders(Phase::Consistency, &willing.collect())?;
        Ok(Unmasking { opening, sum, signatures })
    }
}

/// Passes signatures on and collects shares: the last phase.
pub struct Unmasking {
    opening: Opening,
    sum: MaskedSum,
    signatures: BTreeMap<Party, Signature>,
}

impl Unmasking {
    /// The signatures of a client's own holders, in ascending order.
    #[must_use]
    pub fn consents(&self, to: Party) -> Vec<Consent> {
        let holder = |party: &&Party| self.opening.is_holder(**party, to);
        let signed = self.signatures.keys().filter(holder);
        signed.map(|&party| Consent { party, signature: self.signatures[&party] }).collect()
    }

    /// Takes the shares that a client reveals.
    ///
    /// # Errors
    /// [`Rejection`]; nothing has changed.
    pub fn accept(&mut self, from: Party, revealed: &[u8]) -> Result<(), Rejection> {
        self.opening.accept(from, revealed)
    }

    /// Whether every secret that is needed can be opened: nobody else need be waited for.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.opening.is_enough()
    }

    /// Opens the secrets.
    ///
    /// # Errors
    /// [`Abort`] with whose secrets cannot be opened, or with whose shares do not fit together.
    pub fn open(self) -> Result<Opened, Abort> {
        let members = self.opening.survivors().len() as u32;
        let (masks, liars) = self.opening.open()?;
        Ok(Opened { sum: self.sum, masks, members, liars })
    }

    /// Opens the secrets, and removes the masks.
    ///
    /// # Errors
    /// As [`Unmasking::open`].
    pub fn unmask(self) -> Result<UnmaskedSum, Abort> {
        self.open().map(Opened::unmask)
    }
}

/// A masked sum and what unmasks it.
pub struct Opened {
    sum: MaskedSum,
    masks: Vec<SignedKey>,
    members: u32,
    liars: Vec<Party>,
}

impl Opened {
    /// Removes the masks, on all cores: four bytes a coordinate and mask, the bulk of the server's work.
    #[must_use]
    pub fn unmask(self) -> UnmaskedSum {
        self.sum.unmask(&self.masks, self.members, self.liars)
    }
}

/// The holders of a client among those who are there.
pub(super) fn holders<'a>(
    session: &'a Session,
    of: Party,
    advert: &'a Advert,
    there: impl Iterator<Item = &'a Party>,
) -> impl Iterator<Item = Party> {
    there.copied().filter(move |&party| party != of && advert.picks(session, party))
}

fn check_enough(session: &Session, phase: Phase, have: usize) -> Result<(), Abort> {
    let (need, cohort) = (session.params().survivors_min(), session.params().cohort());
    let have = have as u32;
    if have < need { Err(Abort::TooFew { phase, have, need, cohort }) } else { Ok(()) }
}
