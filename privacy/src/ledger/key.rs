//! The key of a ledger: it signs records, checkpoints and plans, and nothing else.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Hash;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The private key of a ledger (Ed25519, RFC 8032). Whoever holds it holds the budget.
///
/// What it signs begins with the name of its own domain, so that a signature holds for one purpose.
pub struct Signer {
    pair: Ed25519KeyPair,
    participants: ParticipantsKey,
}

/// What makes the pseudonyms of clients: whoever has it and a list of clients can tell which of them a record is about. It
/// signs nothing.
#[derive(Clone)]
pub struct ParticipantsKey(Zeroizing<[u8; 32]>);

/// The public half of a [`Signer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl Signer {
    /// The key of an Ed25519 seed of 32 bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are an Ed25519 seed");
        // One secret to keep instead of two; HMAC keeps the derived key from telling anything about the seed.
        let root = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let derived = hmac::sign(&root, b"skep participants key v1");
        let mut participants = Zeroizing::new([0; 32]);
        participants.copy_from_slice(derived.as_ref());
        Self { pair, participants: ParticipantsKey(participants) }
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs a text that begins with the name of its domain.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(text).as_ref());
        signature
    }

    /// What makes the pseudonyms of clients in this ledger, for an auditor of participation limits.
    #[must_use]
    pub const fn participants(&self) -> &ParticipantsKey {
        &self.participants
    }
}

impl ParticipantsKey {
    /// The key of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret bytes, for an auditor's file.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What stands for each client in the list of a round's participants: it names the client to nobody without this key.
    pub(super) fn pseudonyms(&self, clients: &[u64], record: u64) -> impl Iterator<Item = Hash> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        clients.iter().map(move |client| {
            let mut text = [0; 16];
            text[..8].copy_from_slice(&client.to_be_bytes());
            text[8..].copy_from_slice(&record.to_be_bytes());
            let mut pseudonym = [0; 32];
            pseudonym.copy_from_slice(hmac::sign(&key, &text).as_ref());
            Hash::of_leaf(&pseudonym)
        })
    }
}

impl fmt::Debug for ParticipantsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParticipantsKey(secret)")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer(private half of {})", self.key())
    }
}

impl PublicKey {
    /// Whether `signature` is by the owner of this key on `text`.
    #[must_use]
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).is_ok()
    }

    /// The key's name for people: its SHA-256.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}
