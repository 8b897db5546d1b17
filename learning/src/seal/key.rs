//! What opens a sealed file: a key, or a passphrase.

use std::fmt;
use std::num::NonZeroU32;

use ring::aead::{Algorithm, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, pbkdf2};
use thiserror::Error;
use zeroize::Zeroizing;

/// A key of 256 bits or a passphrase; wiped when it is dropped, and never printed.
#[derive(Clone)]
pub struct Secret(Sort);

#[derive(Clone)]
enum Sort {
    Key(Zeroizing<[u8; 32]>),
    Passphrase(Zeroizing<Vec<u8>>),
}

/// Why there is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SecretError {
    /// The text is no key.
    #[error("a key is a line of 64 hexadecimal digits")]
    Key,
    /// Too short to stand guessing.
    #[error("a passphrase needs at least {MIN_PASSPHRASE} characters")]
    Passphrase,
    /// There is one already.
    #[error("sealed files can be opened with one secret, and one was given before")]
    Unlocked,
    /// The system gives no random bytes.
    #[error("the system gives no randomness")]
    Randomness,
}

impl Secret {
    /// A new key from the operating system.
    ///
    /// # Errors
    /// [`SecretError::Randomness`].
    pub fn generate() -> Result<Self, SecretError> {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *key).map_err(|_| SecretError::Randomness)?;
        Ok(Self(Sort::Key(key)))
    }

    /// A key of 256 bits.
    pub fn from_key(key: [u8; 32]) -> Self {
        Self(Sort::Key(Zeroizing::new(key)))
    }

    /// The key in a key file: a line of hexadecimal digits.
    ///
    /// # Errors
    /// [`SecretError::Key`].
    pub fn from_key_file(contents: &[u8]) -> Result<Self, SecretError> {
        let line = contents.trim_ascii();
        let mut key = Zeroizing::new([0; 32]);
        if line.len() != 2 * key.len() {
            return Err(SecretError::Key);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or(SecretError::Key);
        for (byte, pair) in key.iter_mut().zip(line.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(Sort::Key(key)))
    }

    /// What a key file holds for this key; none for a passphrase.
    pub fn key_file(&self) -> Option<Zeroizing<String>> {
        use fmt::Write;
        let Sort::Key(key) = &self.0 else { return None };
        let mut line = Zeroizing::new(String::with_capacity(65));
        for byte in key.iter() {
            write!(line, "{byte:02x}").ok()?;
        }
        line.push('\n');
        Some(line)
    }

    /// A passphrase, without the line's end.
    ///
    /// # Errors
    /// [`SecretError::Passphrase`] if it has fewer than 12 characters.
    pub fn from_passphrase(text: &[u8]) -> Result<Self, SecretError> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let characters = std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count());
        if characters < MIN_PASSPHRASE {
            return Err(SecretError::Passphrase);
        }
        Ok(Self(Sort::Passphrase(Zeroizing::new(text.to_vec()))))
    }

    pub(super) fn is_passphrase(&self) -> bool {
        matches!(self.0, Sort::Passphrase(_))
    }

    /// The key of the file with this salt. A key needs no stretching; a passphrase is stretched once a file.
    pub(super) fn file_key(
        &self,
        algorithm: &'static Algorithm,
        salt: &[u8; 32],
        iterations: u32,
    ) -> UnboundKey {
        let mut stretched = Zeroizing::new([0; 32]);
        let master: &[u8] = match (&self.0, NonZeroU32::new(iterations)) {
            (Sort::Passphrase(text), Some(iterations)) => {
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, text, &mut *stretched);
                &*stretched
            }
            (Sort::Key(key), _) => &**key,
            (Sort::Passphrase(_), None) => unreachable!("a header without iterations goes with a key"),
        };
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(master);
        extracted
            .expand(&[b"skep sealed file, version 1"], algorithm)
            .expect("32 bytes is a length of HKDF")
            .into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_passphrase() { "Secret(passphrase)" } else { "Secret(key)" })
    }
}

/// Characters that a passphrase has at least.
pub const MIN_PASSPHRASE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let key = Secret::generate().unwrap();
        let file = key.key_file().unwrap();
        let Sort::Key(again) = Secret::from_key_file(file.as_bytes()).unwrap().0 else { panic!("a key") };
        let Sort::Key(key) = key.0 else { panic!("a key") };
        assert_eq!(*again, *key);
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(Secret::from_key_file(wrong.as_bytes()).unwrap_err(), SecretError::Key, "{wrong}");
        }
    }

    #[test]
    fn a_passphrase_loses_its_line_end_and_must_be_long() {
        let Sort::Passphrase(text) = Secret::from_passphrase(b"twelve chars\r\n").unwrap().0 else {
            panic!()
        };
        assert_eq!(*text, b"twelve chars");
        assert_eq!(Secret::from_passphrase(b"eleven char\n").unwrap_err(), SecretError::Passphrase);
        assert!(Secret::from_passphrase(b"twelve chars").unwrap().key_file().is_none());
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        assert_eq!(format!("{:?}", Secret::from_key([7; 32])), "Secret(key)");
        assert_eq!(
            format!("{:?}", Secret::from_passphrase(b"correct horse battery").unwrap()),
            "Secret(passphrase)"
        );
    }
}
