//! Who takes part, and how they prove it.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// A participant, by the number under which everybody knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party(pub u64);

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// A public Ed25519 key (RFC 8032).
pub type IdentityKey = [u8; 32];

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// A private identity. Where it is kept is the business of others.
pub trait Identity {
    /// The public half.
    fn public_key(&self) -> IdentityKey;

    /// The Ed25519 signature on `text`, which begins with a domain of secure aggregation.
    fn sign(&self, text: &[u8]) -> Signature;
}

impl Identity for Ed25519KeyPair {
    fn public_key(&self) -> IdentityKey {
        let mut key = [0; 32];
        key.copy_from_slice(KeyPair::public_key(self).as_ref());
        key
    }

    fn sign(&self, text: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.copy_from_slice(Self::sign(self, text).as_ref());
        signature
    }
}

pub(super) fn is_signed(key: &IdentityKey, text: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(text, signature).is_ok()
}

/// A participant as others meet it: its advert, and the identity key that a certificate or a roster gives it.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Who.
    pub party: Party,
    /// Its identity key, never from the server's word alone.
    pub identity: IdentityKey,
    /// What it sent in the first phase.
    pub advert: &'a [u8],
}
