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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secagg::testing::session;

    const BYTES: [u8; 32] = [3; 32];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn keys_are_hkdf_of_the_context() {
        // Computed by an independent program in Python, with the HKDF of its package `cryptography`: the context of ten clients
        // (plan [1; 32], model [2; 32], 6 of 9 shares, 5 numbers of 22 bits, AES), and keys from the secret [3; 32].
        let session = session(10);
        let context = "5f3d64b66ca97cd6e7bd98dcbf1e554ffccaefa95e4e12d83278c65ca4ba91dc";
        assert_eq!(hex(session.context()), context);
        let (a, b) = (Party(7), Party(1_000_010));
        for (purpose, expected) in [
            (Use::SelfMask(a), "debbf94d95f8e9ca9e9e9c11bbddf3ef4b5d2b7200bb94e45cf3d15b72264ad7"),
            (Use::PairMask(a, b), "b5dc41b5b6e15db1ab20c189d5e398eba04c186a948567dd634aeb78b077fd23"),
            (Use::Share(b, a), "635d5a1ed3ec5099d9b38bdb15ffae06d7ca7f5de203fcaf1ce9806a0df602cf"),
            (Use::MaskSecret(a), "775dbcf6af50086340527625f59469226c154002d7bc0359d609e65af535f48e"),
        ] {
            assert_eq!(hex(derive(&BYTES, &session, purpose).expose()), expected, "{purpose:?}");
        }
        let committed = "a58fa4e1429082d60855bef9f56b9d72aff9ed49bd1c5525869410df28556371";
        assert_eq!(hex(&commitment(&BYTES, &session, a)), committed);
    }

    #[test]
    fn keys_of_different_purposes_and_directions_differ() {
        let session = session(10);
        let (a, b) = (Party(7), Party(1_000_010));
        let purposes =
            [Use::Share(a, b), Use::Share(b, a), Use::PairMask(a, b), Use::SelfMask(a), Use::MaskSecret(a)];
        let keys: std::collections::BTreeSet<_> =
            purposes.map(|purpose| *derive(&BYTES, &session, purpose).expose()).into();
        assert_eq!(keys.len(), purposes.len());
    }

    #[test]
    fn hkdf_is_that_of_rfc_5869() {
        // Appendix A, test case 3: no salt, no info.
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                42
            }
        }
        let prk = Salt::new(HKDF_SHA256, &[]).extract(&[0x0b; 22]);
        let mut okm = [0; 42];
        prk.expand(&[], Len).unwrap().fill(&mut okm).unwrap();
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
        assert_eq!(hex(&okm), expected);
    }
}
