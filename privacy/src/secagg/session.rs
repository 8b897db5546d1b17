//! What everybody agrees on before the first message.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};

use super::params::Params;
use super::party::{IdentityKey, Party, Signature, is_signed};
use crate::packing::packed_len;
use crate::prg::PrgId;

/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// Why these facts do not make a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The parameters are for another cohort.
    #[error("the parameters are for {expected} clients, but the cohort has {found}")]
    Cohort {
        /// n of the parameters.
        expected: u32,
        /// Different members of the cohort.
        found: usize,
    },
    /// In a sparse graph, clients pick their share-holders from the cohort, so they must know it.
    #[error("share-holders are picked from the cohort, so its members must be known")]
    MembersUnknown,
    /// The vectors cannot be packed.
    #[error(
        "vectors of {len} numbers of {bits} bits cannot be masked; there must be 1 to 4294967295, of 1 to 32 bits"
    )]
    Shape {
        /// Numbers of a vector.
        len: usize,
        /// Bits of a number.
        bits: u32,
    },
}

/// The vectors that are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Numbers of a vector, d.
    pub len: usize,
    /// Bits of a number, b: sums are modulo 2ᵇ; 1 to 32.
    pub bits: u32,
    /// What expands seeds to masks. AES-256-CTR where processors have instructions for it.
    pub generator: PrgId,
}

impl Shape {
    /// Bytes of a masked vector: ⌈d·b/8⌉.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        packed_len(self.len, self.bits).unwrap_or(usize::MAX)
    }
}

/// One run of the protocol: its parameters, and the digests of the plan and the model. Cheap to clone.
///
/// All of it goes into the context, a digest that every key, every ciphertext and every signature is bound to. Whoever was told
/// anything else can neither read nor be read.
#[derive(Debug, Clone)]
pub struct Session(Arc<Facts>);

#[derive(Debug, Clone)]
struct Facts {
    context: Digest,
    model: Digest,
    params: Params,
    shape: Shape,
    /// Ascending; empty in the complete graph, which needs no list.
    members: Vec<Party>,
    verified: Arc<Mutex<BTreeSet<Digest>>>,
    #[cfg(test)]
    unchecked: Option<Check>,
}

/// What is checked so that a lying server gets nothing. All of it, always; a test leaves one out to show what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Adverts are signed for this session by the identity that they should be from.
    Signatures,
    /// Enough share-holders are left to hide among.
    Holders,
    /// Enough share-holders signed the same survivors.
    Agreement,
    /// No agreement is zero.
    SmallOrder,
}

impl Session {
    /// A session under the plan and the base model with these digests.
    ///
    /// `members` are the clients of the cohort. The complete graph does without: there, leave the list empty.
    ///
    /// # Errors
    /// [`SessionError`] when the facts contradict each other.
    pub fn new(
        plan: &Digest,
        model: &Digest,
        params: Params,
        shape: Shape,
        members: impl IntoIterator<Item = Party>,
    ) -> Result<Self, SessionError> {
        let members: BTreeSet<Party> = members.into_iter().collect();
        if members.is_empty() && !params.is_complete() {
            return Err(SessionError::MembersUnknown);
        }
        if !members.is_empty() && members.len() != params.cohort() as usize {
            return Err(SessionError::Cohort { expected: params.cohort(), found: members.len() });
        }
        let Shape { len, bits, .. } = shape;
        let fits = (1..=32).contains(&bits) && u32::try_from(len).is_ok_and(|len| len > 0);
        if !fits || packed_len(len, bits).is_none() {
            return Err(SessionError::Shape { len, bits });
        }
        let members = Vec::from_iter(members);
        let context = context(plan, model, params, shape, &members);
        Ok(Self(Arc::new(Facts {
            context,
            model: *model,
            params,
            shape,
            members,
            verified: Arc::default(),
            #[cfg(test)]
            unchecked: None,
        })))
    }

    /// Digest of everything that was agreed on.
    #[must_use]
    pub fn context(&self) -> &Digest {
        &self.0.context
    }

    /// Digest of the base model.
    #[must_use]
    pub fn model(&self) -> &Digest {
        &self.0.model
    }

    /// Degree and threshold.
    #[must_use]
    pub fn params(&self) -> Params {
        self.0.params
    }

    /// The vectors that are summed.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.0.shape
    }

    /// Whether the party may take part.
    pub(super) fn admits(&self, party: Party) -> bool {
        self.0.members.is_empty() || self.seat(party).is_some()
    }

    /// The position of a member in the list of members.
    pub(super) fn seat(&self, party: Party) -> Option<usize> {
        self.0.members.binary_search(&party).ok()
    }

    /// The members in ascending order; nobody in a complete graph without a list.
    pub(super) fn members(&self) -> &[Party] {
        &self.0.members
    }

    /// Whether this is the signature of `key` on `text`. One that was found good is known by the digest of all three and not
    /// tested again: where all clients are in one process, each would test what its neighbours have tested.
    pub(super) fn is_signed(&self, key: &IdentityKey, text: &[u8], signature: &Signature) -> bool {
        let mut hash = Context::new(&SHA256);
        hash.update(key);
        hash.update(signature);
        hash.update(text);
        let name = digest(hash);
        let known = || self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&name) {
            return true;
        }
        let signed = is_signed(key, text, signature);
        if signed {
            known().insert(name);
        }
        signed
    }

    /// Whether a check is made.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "its twin for tests looks")]
    pub(super) const fn makes(&self, _check: Check) -> bool {
        true
    }

    /// Whether a check is made.
    #[cfg(test)]
    pub(super) fn makes(&self, check: Check) -> bool {
        self.0.unchecked != Some(check)
    }

    /// The same session without one check.
    #[cfg(test)]
    pub(super) fn without(&self, check: Check) -> Self {
        Self(Arc::new(Facts { unchecked: Some(check), ..(*self.0).clone() }))
    }
}

fn context(plan: &Digest, model: &Digest, params: Params, shape: Shape, members: &[Party]) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(b"skep secagg context v1");
    hash.update(plan);
    hash.update(model);
    let Shape { len, bits, generator } = shape;
    for number in [params.cohort(), params.degree(), params.threshold(), len as u32, bits] {
        hash.update(&number.to_be_bytes());
    }
    hash.update(&generator.number().to_be_bytes());
    for party in members {
        hash.update(&party.0.to_be_bytes());
    }
    digest(hash)
}

pub(super) fn digest(hash: Context) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}
