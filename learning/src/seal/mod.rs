//! Training data encrypted where they are stored.
//!
//! A sealed file is a header and chunks. Each chunk of [`CHUNK`] bytes is encrypted and authenticated by AES-256-GCM under a
//! key of the file's own, with its number and whether it is the last as nonce: STREAM (Hoang, Reyhanitabar, Rogaway,
//! Vizár, 1505.04302, section 7). Changed, swapped, repeated, missing and added chunks are each refused, before anything of
//! the chunk is handed out.
//!
//! ```text
//! 0   8  "SKEPSEAL"
//! 8   1  version, 1
//! 9   1  0: the secret is a key of 32 bytes; 1: a passphrase
//! 10  2  0
//! 12  4  little endian: iterations of PBKDF2-HMAC-SHA256 over a passphrase; 0 for a key
//! 16 32  salt, random
//! 48     chunks of ciphertext, each with its tag of 16 bytes
//! ```
//!
//! The file's key is HKDF-SHA256 of the key, or of what PBKDF2 makes of the passphrase and the salt, with the salt and the
//! name of this format. The header is authenticated with every chunk.
//!
//! This protects against who gets the disk or a copy of it, not against who runs as the owner while the file is open.

mod key;

use std::io::{self, Error, ErrorKind, Read, Write};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

pub use key::{MIN_PASSPHRASE, Secret, SecretError};
use std::sync::OnceLock;

/// What this process opens sealed files with: it is the owner's, like the files, and the same for all of them.
static UNLOCKED: OnceLock<Secret> = OnceLock::new();

/// Lets every data set that this process reads from now on be sealed with `secret`.
///
/// # Errors
/// [`SecretError::Unlocked`] if this was called before.
pub fn unlock(secret: Secret) -> Result<(), SecretError> {
    UNLOCKED.set(secret).map_err(|_| SecretError::Unlocked)
}

/// Decrypts a sealed file with the secret that was given to [`unlock`].
pub(crate) fn unsealed<R: Read>(sealed: R) -> io::Result<Unsealed<R>> {
    let secret =
        UNLOCKED.get().ok_or_else(|| invalid("this file is sealed, and no key or passphrase was given"))?;
    Unsealed::new(sealed, secret)
}

/// The first bytes of a sealed file.
pub(crate) const MAGIC: [u8; 8] = *b"SKEPSEAL";
const VERSION: u8 = 1;
const HEADER: usize = 48;
/// Bytes of plaintext in a chunk.
pub const CHUNK: usize = 1 << 16;
const TAG: usize = 16;

/// Encrypts `plain` into `sealed`.
///
/// # Errors
/// What reading, writing or the system's generator says.
pub fn seal(mut plain: impl Read, mut sealed: impl Write, secret: &Secret) -> io::Result<()> {
    let header = Header::new(secret)?;
    let bytes = header.bytes();
    let key = header.file_key(secret);
    sealed.write_all(&bytes)?;
    let mut chunk = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
    let mut next = Zeroizing::new(Vec::with_capacity(CHUNK + TAG));
    fill(&mut plain, &mut chunk, CHUNK)?;
    for number in 0.. {
        fill(&mut plain, &mut next, CHUNK)?;
        let last = next.is_empty();
        key.seal_in_place_append_tag(nonce(number, last), Aad::from(&bytes), &mut *chunk)
            .map_err(|_| Error::other("a chunk is too long to be encrypted"))?;
        sealed.write_all(&chunk)?;
        if last {
            break;
        }
        std::mem::swap(&mut chunk, &mut next);
    }
    sealed.flush()
}

/// Decrypts a sealed file as it is read.
///
/// Whatever was changed in it is an error of kind [`ErrorKind::InvalidData`], at the chunk where it is noticed.
pub struct Unsealed<R> {
    sealed: R,
    header: [u8; HEADER],
    key: LessSafeKey,
    number: u64,
    plain: Zeroizing<Vec<u8>>,
    read: usize,
    next: Vec<u8>,
    done: bool,
}

impl<R: Read> Unsealed<R> {
    /// Reads the header, and the first chunk to see whether the secret is the right one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] when this is no sealed file of this version, or the secret is of the wrong sort or another.
    pub fn new(mut sealed: R, secret: &Secret) -> io::Result<Self> {
        let mut bytes = [0; HEADER];
        sealed.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => invalid("this sealed file ends in its header"),
            _ => error,
        })?;
        let header = Header::parse(&bytes)?;
        if header.iterations.is_some() != secret.is_passphrase() {
            return Err(invalid(match header.iterations {
                Some(_) => "this file is sealed with a passphrase, and a key was given",
                None => "this file is sealed with a key, and a passphrase was given",
            }));
        }
        let key = header.file_key(secret);
        let mut next = Vec::with_capacity(CHUNK + TAG);
        fill(&mut sealed, &mut next, CHUNK + TAG)?;
        let mut unsealed = Self {
            sealed,
            header: bytes,
            key,
            number: 0,
            plain: Zeroizing::default(),
            read: 0,
            next,
            done: false,
        };
        unsealed.open_next()?;
        Ok(unsealed)
    }

    fn open_next(&mut self) -> io::Result<()> {
        let mut chunk = Zeroizing::new(std::mem::take(&mut self.next));
        fill(&mut self.sealed, &mut self.next, CHUNK + TAG)?;
        let last = self.next.is_empty();
        let plain = self
            .key
            .open_in_place(nonce(self.number, last), Aad::from(&self.header), &mut chunk)
            .map_err(|_| match self.number {
                0 => invalid("this file is sealed with another secret, or was changed in its first 64 KiB"),
                number => Error::new(
                    ErrorKind::InvalidData,
                    format!(
                        "this sealed file was changed or cut off after {} KiB",
                        number * (CHUNK as u64 >> 10)
                    ),
                ),
            })?
            .len();
        chunk.truncate(plain);
        self.plain = chunk;
        self.read = 0;
        self.number += 1;
        self.done = last;
        Ok(())
    }
}

impl<R: Read> Read for Unsealed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.plain.len() && !self.done {
            self.open_next()?;
        }
        let left = &self.plain[self.read..];
        let taken = left.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&left[..taken]);
        self.read += taken;
        Ok(taken)
    }
}

struct Header {
    iterations: Option<u32>,
    salt: [u8; 32],
}

impl Header {
    fn new(secret: &Secret) -> io::Result<Self> {
        let mut salt = [0; 32];
        SystemRandom::new().fill(&mut salt).map_err(|_| Error::other("the system gives no randomness"))?;
        Ok(Self { iterations: secret.is_passphrase().then_some(ITERATIONS), salt })
    }

    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[9] = u8::from(self.iterations.is_some());
        bytes[12..16].copy_from_slice(&self.iterations.unwrap_or(0).to_le_bytes());
        bytes[16..].copy_from_slice(&self.salt);
        bytes
    }

    fn parse(bytes: &[u8; HEADER]) -> io::Result<Self> {
        if bytes[..8] != MAGIC {
            return Err(invalid("this is not a sealed file"));
        }
        let mut salt = [0; 32];
        salt.copy_from_slice(&bytes[16..]);
        let mut iterations = [0; 4];
        iterations.copy_from_slice(&bytes[12..16]);
        match (bytes[8], bytes[9], u32::from_le_bytes(iterations)) {
            (VERSION, 0, 0) => Ok(Self { iterations: None, salt }),
            (VERSION, 1, iterations @ 1..=MOST_ITERATIONS) => Ok(Self { iterations: Some(iterations), salt }),
            (VERSION, ..) => Err(invalid("the header of this sealed file was changed")),
            _ => Err(invalid("this file is sealed by a version that is not known here")),
        }
    }

    fn file_key(&self, secret: &Secret) -> LessSafeKey {
        LessSafeKey::new(secret.file_key(&AES_256_GCM, &self.salt, self.iterations.unwrap_or(0)))
    }
}

/// What OWASP asks of PBKDF2-HMAC-SHA256 since 2023.
const ITERATIONS: u32 = 600_000;
/// A header that asks for more would keep a processor busy for minutes.
const MOST_ITERATIONS: u32 = 100_000_000;

/// Reads up to `length` bytes, fewer at the end only.
fn fill(source: &mut impl Read, buffer: &mut Vec<u8>, length: usize) -> io::Result<()> {
    buffer.clear();
    source.by_ref().take(length as u64).read_to_end(buffer).map(drop)
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    nonce[NONCE_LEN - 1] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8], secret: &Secret) -> Vec<u8> {
        let mut sealed = Vec::new();
        seal(plain, &mut sealed, secret).unwrap();
        sealed
    }

    fn unsealed(sealed: &[u8], secret: &Secret) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Unsealed::new(sealed, secret)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn key(byte: u8) -> Secret {
        Secret::from_key([byte; 32])
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn what_is_sealed_comes_back_at_every_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
            let plain = pattern(length);
            let sealed = sealed(&plain, &key(1));
            assert_eq!(sealed.len(), HEADER + length + TAG * length.div_ceil(CHUNK).max(1), "{length}");
            assert_eq!(unsealed(&sealed, &key(1)).unwrap(), plain, "{length}");
        }
    }

    #[test]
    fn nothing_of_the_plaintext_stands_in_the_file_and_no_two_are_alike() {
        let plain = b"name,diagnosis\nAnn,flu\n".repeat(100);
        let (one, two) = (sealed(&plain, &key(1)), sealed(&plain, &key(1)));
        assert_ne!(one[HEADER..], two[HEADER..], "each file has a key of its own");
        assert!(!one.windows(4).any(|window| window == b"Ann,"));
    }

    #[test]
    fn every_change_is_noticed() {
        let plain = pattern(2 * CHUNK + 100);
        let good = sealed(&plain, &key(1));
        let chunk = CHUNK + TAG;
        let mut changed: Vec<(&str, Vec<u8>)> = Vec::new();
        for at in (0..HEADER).chain([HEADER, HEADER + chunk - 1, HEADER + chunk, good.len() - 1]) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            changed.push(("a bit", bytes));
        }
        let (header, chunks) = good.split_at(HEADER);
        let [first, second, third] = [&chunks[..chunk], &chunks[chunk..2 * chunk], &chunks[2 * chunk..]];
        changed.push(("swapped", [header, second, first, third].concat()));
        changed.push(("repeated", [header, first, first, second, third].concat()));
        changed.push(("missing in the middle", [header, first, third].concat()));
        changed.push(("missing at the end", [header, first, second].concat()));
        changed.push(("cut within a chunk", good[..good.len() - 1].to_vec()));
        changed.push(("without any chunk", header.to_vec()));
        changed.push(("added", [&good[..], b"x"].concat()));
        for (what, bytes) in &changed {
            let error = unsealed(bytes, &key(1)).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}: {error}");
        }
        assert_eq!(changed.len(), HEADER + 4 + 7);
    }

    #[test]
    fn the_wrong_secret_is_told_from_the_wrong_sort_of_secret() {
        let file = sealed(b"text", &key(1));
        assert!(unsealed(&file, &key(2)).unwrap_err().to_string().contains("another secret"));
        let passphrase = Secret::from_passphrase(b"correct horse battery").unwrap();
        assert!(unsealed(&file, &passphrase).unwrap_err().to_string().contains("sealed with a key"));
        let file = sealed(b"text", &passphrase);
        assert_eq!(unsealed(&file, &passphrase).unwrap(), b"text");
        assert!(unsealed(&file, &key(1)).unwrap_err().to_string().contains("sealed with a passphrase"));
        assert!(unsealed(b"SKEP", &key(1)).unwrap_err().to_string().contains("ends in its header"));
        assert!(unsealed(&[0; HEADER], &key(1)).unwrap_err().to_string().contains("not a sealed file"));
    }

    #[test]
    fn the_format_is_what_it_was() {
        // Computed by HKDF and AESGCM of Python's package `cryptography`.
        let header = Header { iterations: None, salt: [7; 32] };
        let bytes = header.bytes();
        let mut chunk = b"one line\n".to_vec();
        header
            .file_key(&key(9))
            .seal_in_place_append_tag(nonce(0, true), Aad::from(&bytes), &mut chunk)
            .unwrap();
        let file = [&bytes[..], &chunk].concat();
        assert_eq!(unsealed(&file, &key(9)).unwrap(), b"one line\n");
        let hexadecimal: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hexadecimal, "ea1b863c4a50428207a8031f12996a4b9c47ccef7e2a3e58a0");
    }
}
