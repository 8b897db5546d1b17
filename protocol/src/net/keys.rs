//! Ed25519 signing keys, public keys and signatures (RFC 8032).
//!
//! What is signed is a [canonical](crate::canonical) text, which begins with the name of its own domain: so a signature
//! holds for one purpose, and none can be mistaken for a TLS handshake's, which begins with spaces (RFC 8446, 4.4.3).

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

/// A private Ed25519 key. It has no serialiser except [`SigningKey::pkcs8`], which is wiped on drop.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl SigningKey {
    /// Makes a key from the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the operating system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Randomness)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// Reads a key from PKCS#8 (RFC 5958), version 2, DER.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] when the bytes are anything else or the public half does not match.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|why| KeyError::NotAKey(why.to_string()))?;
        Ok(SigningKey { pair, pkcs8: Zeroizing::new(der.to_vec()) })
    }

    /// The private key as PKCS#8 DER: for a private file and for TLS, nothing else.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs a canonical text.
    pub fn sign(&self, text: &[u8]) -> Signature {
        let signature = self.pair.sign(text);
        let mut bytes = [0; 64];
        bytes.copy_from_slice(signature.as_ref());
        Signature(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(private half of {})", self.public_key())
    }
}

/// A public Ed25519 key: 32 bytes, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Checks that `signature` (64 bytes) is by the owner of this key on `text`.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] when it is not.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).map_err(|_| KeyError::BadSignature)
    }
}

/// An Ed25519 signature: 64 bytes, printed as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// Why a key or a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness to make a key from")]
    Randomness,
    /// The bytes are not a private Ed25519 key.
    #[error("not an Ed25519 private key in PKCS#8: {0}")]
    NotAKey(String),
    /// The signature is not the key's on this text.
    #[error("the signature does not verify")]
    BadSignature,
}

/// Writes the printed form of a fixed number of bytes: hexadecimal in text, in `Debug` and in serde.
macro_rules! hex_form {
    ($name:ident, $length:literal) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                $crate::net::keys::fixed_hex::<$length>(&text).map($name).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use hex_form;

hex_form!(PublicKey, 32);
hex_form!(Signature, 64);

/// Reads exactly `N` bytes from hexadecimal text.
pub(crate) fn fixed_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|why| why.to_string())?;
    bytes.try_into().map_err(|bytes: Vec<u8>| format!("{} bytes where {N} belong", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_only_for_its_key_and_text() {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(b"round 1").0;
        let public = key.public_key();
        assert_eq!(public.verify(b"round 1", &signature), Ok(()));
        assert_eq!(public.verify(b"round 2", &signature), Err(KeyError::BadSignature));
        assert_eq!(public.verify(b"round 1", &signature[..63]), Err(KeyError::BadSignature));
        let other = SigningKey::generate().unwrap().public_key();
        assert_eq!(other.verify(b"round 1", &signature), Err(KeyError::BadSignature));
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn a_known_signature_verifies() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let signature = hex(concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ));
        let key = PublicKey(key.try_into().unwrap());
        assert_eq!(key.verify(&[0x72], &signature), Ok(()));
        assert_eq!(key.verify(&[0x73], &signature), Err(KeyError::BadSignature));
    }

    #[test]
    fn a_key_survives_its_pkcs8_form_and_debug_hides_it() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let secret = &key.pkcs8()[16..48];
        assert!(!format!("{key:?}").contains(&data_encoding::HEXLOWER.encode(secret)));
    }

    #[test]
    fn keys_are_hexadecimal_in_json_and_a_short_one_is_refused() {
        let public = SigningKey::generate().unwrap().public_key();
        let json = serde_json::to_string(&public).unwrap();
        assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), public);
        let error = serde_json::from_str::<PublicKey>("\"00ff\"").unwrap_err();
        assert!(error.to_string().contains("2 bytes where 32 belong"), "{error}");
    }
}
