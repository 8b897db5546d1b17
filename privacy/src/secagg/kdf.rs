//! Keys from secrets: HKDF with SHA-256 (RFC 5869), bound to the session, the purpose and the two parties.

use ring::digest::{Context, SHA256};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroize;

use super::party::Party;
use super::session::{Digest, Session, digest};
use crate::prg::Key;

/// What a derived key is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// Encrypts the shares that the first party sends to the second.
    Share(Party, Party),
    /// Expands to the mask between two parties, the smaller first.
    PairMask(Party, Party),
    /// Expands to a party's own mask.
    SelfMask(Party),
    /// Is a party's secret half of the agreement on pair masks.
    MaskSecret(Party),
}

impl Use {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Share(..) => b"skep secagg share v1",
            Self::PairMask(..) => b"skep secagg mask v1",
            Self::SelfMask(_) => b"skep secagg self mask v1",
            Self::MaskSecret(_) => b"skep secagg mask secret v1",
        }
    }

    const fn parties(self) -> [Party; 2] {
        match self {
            Self::Share(a, b) | Self::PairMask(a, b) => [a, b],
            Self::SelfMask(a) | Self::MaskSecret(a) => [a, a],
        }
    }
}

/// HKDF without salt; info = label ‖ context ‖ model ‖ both parties.
pub(super) fn derive(secret: &[u8; 32], session: &Session, purpose: Use) -> Key {
    let [a, b] = purpose.parties().map(|party| party.0.to_be_bytes());
    let info = [purpose.label(), session.context(), session.model(), &a, &b];
    let prk = Salt::new(HKDF_SHA256, &[]).extract(secret);
    let mut bytes = [0; 32];
    prk.expand(&info, KeyBytes)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("one block is far below the longest output of HKDF");
    let key = Key::from_bytes(bytes);
    bytes.zeroize();
    key
}

/// Commits to a seed that nobody can guess: the server cannot be given another one.
pub(super) fn commitment(seed: &[u8; 32], session: &Session, party: Party) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(b"skep secagg commitment v1");
    hash.update(session.context());
    hash.update(&party.0.to_be_bytes());
    hash.update(seed);
    digest(hash)
}

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        32
    }
}
