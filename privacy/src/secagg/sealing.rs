//! Shares on their way from a client to a holder: AES-256-GCM (NIST SP 800-38D), one key for one message.

use curve25519_dalek::Scalar;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::prg::Key;

/// Bytes of an encrypted pair of shares: two scalars and a tag.
pub(super) const ENVELOPE_BYTES: usize = 2 * 32 + 16;

/// One holder's share of both secrets of a client.
pub(super) struct SharePair {
    pub(super) self_seed: Zeroizing<Scalar>,
    pub(super) mask_seed: Zeroizing<Scalar>,
}

/// Encrypts a pair of shares under a key that is derived from context, sender and holder, and seals nothing else.
pub(super) fn seal(key: &Key, self_seed: &Scalar, mask_seed: &Scalar) -> [u8; ENVELOPE_BYTES] {
    let mut envelope = [0; ENVELOPE_BYTES];
    envelope[..32].copy_from_slice(self_seed.as_bytes());
    envelope[32..64].copy_from_slice(mask_seed.as_bytes());
    let tag = cipher(key)
        .seal_in_place_separate_tag(zero_nonce(), Aad::empty(), &mut envelope[..64])
        .expect("two shares are far below the length limit of the cipher");
    envelope[64..].copy_from_slice(tag.as_ref());
    envelope
}

/// None unless the bytes are what [`seal`] gives under this key for two scalars.
pub(super) fn open(key: &Key, envelope: &[u8]) -> Option<SharePair> {
    let mut bytes = Zeroizing::new(<[u8; ENVELOPE_BYTES]>::try_from(envelope).ok()?);
    cipher(key).open_in_place(zero_nonce(), Aad::empty(), &mut *bytes).ok()?;
    let scalar = |at: usize| {
        let mut share = Zeroizing::new([0; 32]);
        share.copy_from_slice(&bytes[at..at + 32]);
        Option::<Scalar>::from(Scalar::from_canonical_bytes(*share)).map(Zeroizing::new)
    };
    Some(SharePair { self_seed: scalar(0)?, mask_seed: scalar(32)? })
}

fn cipher(key: &Key) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, key.expose()).expect("the key has the length of the cipher's"),
    )
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens_and_only_what_was_sealed() {
        let (a, b) = (Scalar::from(7_u32), -Scalar::from(8_u32));
        let key = Key::from_seed(1);
        let envelope = seal(&key, &a, &b);
        let opened = open(&key, &envelope).unwrap();
        assert!(*opened.self_seed == a && *opened.mask_seed == b);
        assert!(open(&Key::from_seed(2), &envelope).is_none());
        assert!(open(&key, &envelope[1..]).is_none() && open(&key, &[]).is_none());
        for at in 0..ENVELOPE_BYTES {
            let mut altered = envelope;
            altered[at] ^= 1;
            assert!(open(&key, &altered).is_none(), "byte {at}");
        }
    }
}
