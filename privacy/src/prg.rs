//! Keys and the generators they expand to.
//!
//! Every random number in a run comes from a [`Key`] that was derived from a root for one purpose, one round and one
//! client, and long vectors are cut into tiles that each have a substream. What is drawn therefore depends neither on
//! the order of events nor on the number of threads.
//!
//! Keys and the words that a [`Prg`] has buffered are wiped when dropped. What AES makes of a key inside its crate is not,
//! because that offers no way to; a generator lives no longer than the step that needs it.

use std::convert::Infallible;
use std::fmt;

use rand_chacha::rand_core::{TryCryptoRng, TryRng};
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use chacha::ChaCha20;

pub use rand_chacha::rand_core::{CryptoRng, Rng};

pub use coin::Coin;
pub use key::{KEY_BYTES, Key, Purpose};

mod chacha;
mod coin;
mod key;

/// Failures of the sources of randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrgError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes; nothing private can be done on this machine")]
    NoEntropy,
    /// A plan names a generator that this version does not have.
    #[error("generator {id} is unknown to this version; known: 1 (ChaCha20), 2 (AES-256-CTR)")]
    UnknownGenerator {
        /// The number in the plan.
        id: u16,
    },
}

/// Which generator expands keys, as a plan names it.
///
/// Whoever makes a plan chooses, and everybody follows. Keys that are fresh from the system give draws that nobody will
/// ask for again, so the plan names what its maker's processor is [fastest](PrgId::fastest) at; keys that follow from a
/// root must give the same bytes on every machine, so the plan names ChaCha20. On a processor with AES instructions AES
/// makes words three times as fast, which makes noise a third faster and rounding half as fast again (`cargo bench -p
/// skep-privacy --bench noise`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrgId {
    /// ChaCha with 20 rounds, a 64-bit block counter and the substream as its 64-bit nonce (Bernstein 2008).
    ///
    /// Fast everywhere. What [`Key::stream`] uses.
    ChaCha20,
    /// AES-256 in counter mode, in chunks of 4096 bytes: counter block i of chunk j of a substream is the substream as 64
    /// bits and j as 32 bits, little-endian, then i + 2 as 32 bits, big-endian.
    ///
    /// This is how AES-256-GCM encrypts zeros, so it comes with the hardware code of `ring`. A substream ends after 16 TiB.
    Aes256Ctr,
}

impl PrgId {
    /// AES-256-CTR where the processor has instructions for it, ChaCha20 elsewhere. Both run on every processor.
    #[must_use]
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let has_aes = std::is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes { Self::Aes256Ctr } else { Self::ChaCha20 }
    }

    /// The stable number that stands in a plan.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::ChaCha20 => 1,
            Self::Aes256Ctr => 2,
        }
    }
}

impl TryFrom<u16> for PrgId {
    type Error = PrgError;

    fn try_from(id: u16) -> Result<Self, PrgError> {
        match id {
            1 => Ok(Self::ChaCha20),
            2 => Ok(Self::Aes256Ctr),
            _ => Err(PrgError::UnknownGenerator { id }),
        }
    }
}

/// A cryptographic generator that expands one key.
///
/// All draws come from one sequence of little-endian 64-bit words; a draw of fewer bytes uses up the whole word.
pub struct Prg {
    cipher: Keystream,
    words: [[u8; 8]; BUFFER_WORDS],
    next: usize,
}

impl Prg {
    fn new(generator: PrgId, key: &[u8; KEY_BYTES], tile: u64) -> Self {
        let mut cipher = Keystream::new(generator, key);
        cipher.seek(tile);
        Prg { cipher, words: [[0; 8]; BUFFER_WORDS], next: BUFFER_WORDS }
    }

    /// The next 64 uniform bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        if self.next == BUFFER_WORDS {
            self.refill();
        }
        let word = self.words[self.next];
        self.next += 1;
        u64::from_le_bytes(word)
    }

    /// The next words, at least one and at most `count`.
    fn take(&mut self, count: usize) -> &[[u8; 8]] {
        if self.next == BUFFER_WORDS {
            self.refill();
        }
        let drawn = &self.words[self.next..BUFFER_WORDS.min(self.next + count)];
        self.next += drawn.len();
        drawn
    }

    #[cold]
    fn refill(&mut self) {
        self.words = [[0; 8]; BUFFER_WORDS];
        self.cipher.fill(self.words.as_flattened_mut());
        self.next = 0;
    }
}

/// The bytes of a key's generator, [`CHUNK_BYTES`] at a time, one substream after another.
#[expect(clippy::large_enum_variant, reason = "short-lived, and small beside what it fills")]
pub(crate) enum Keystream {
    ChaCha20(ChaCha20),
    Aes256Ctr { key: LessSafeKey, tile: u64, chunk: u32 },
}

impl Keystream {
    /// At the beginning of substream 0.
    pub(crate) fn new(generator: PrgId, key: &[u8; KEY_BYTES]) -> Self {
        match generator {
            PrgId::ChaCha20 => Self::ChaCha20(ChaCha20::new(key)),
            PrgId::Aes256Ctr => {
                let key =
                    UnboundKey::new(&aead::AES_256_GCM, key).expect("the key has the length of the cipher's");
                Self::Aes256Ctr { key: LessSafeKey::new(key), tile: 0, chunk: 0 }
            }
        }
    }

    /// Goes to the beginning of a substream.
    pub(crate) fn seek(&mut self, substream: u64) {
        match self {
            Self::ChaCha20(cipher) => cipher.seek(substream),
            Self::Aes256Ctr { tile, chunk, .. } => (*tile, *chunk) = (substream, 0),
        }
    }

    /// Puts the next bytes in place of zeros: [`CHUNK_BYTES`] of them, or fewer at the end of a substream.
    pub(crate) fn fill(&mut self, zeros: &mut [u8]) {
        match self {
            Self::ChaCha20(cipher) => cipher.fill(zeros),
            Self::Aes256Ctr { key, tile, chunk } => {
                let mut nonce = [0; aead::NONCE_LEN];
                nonce[..8].copy_from_slice(&tile.to_le_bytes());
                nonce[8..].copy_from_slice(&chunk.to_le_bytes());
                // The tag authenticates nothing here.
                let _tag = key
                    .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), zeros)
                    .expect("a chunk is far below the length limit of the cipher");
                *chunk = chunk.checked_add(1).expect("nobody draws 16 TiB from one substream");
            }
        }
    }
}

impl TryRng for Prg {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let (words, part) = bytes.as_chunks_mut();
        let mut rest = words;
        while !rest.is_empty() {
            let drawn = self.take(rest.len());
            let (now, later) = rest.split_at_mut(drawn.len());
            now.copy_from_slice(drawn);
            rest = later;
        }
        if !part.is_empty() {
            part.copy_from_slice(&self.take(1)[0][..part.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Prg {}

impl Drop for Prg {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

impl ZeroizeOnDrop for Prg {}

impl fmt::Debug for Prg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prg(..)")
    }
}

/// Bytes drawn from the cipher at a time. Part of the result for [`PrgId::Aes256Ctr`].
pub(crate) const CHUNK_BYTES: usize = 4096;

const BUFFER_WORDS: usize = CHUNK_BYTES / 8;

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A generator for tests that is given its words.
    pub(crate) struct Words<F>(pub(crate) F);

    impl<F: FnMut() -> u64> TryRng for Words<F> {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok((self.0() >> 32) as u32)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(self.0())
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&self.0().to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        }
    }

    impl<F: FnMut() -> u64> TryCryptoRng for Words<F> {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha20() {
        // RFC 7539, appendix A.1, test vector 1: zero key, zero nonce, block 0.
        let mut bytes = [0; 16];
        Key::from_bytes([0; 32]).stream().try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(
            bytes,
            [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28]
        );
    }

    #[test]
    fn the_other_stream_is_aes_in_counter_mode() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14: zero key, nonce and plaintext.
        let mut prg = Key::from_bytes([0; 32]).substream_of(PrgId::Aes256Ctr, 0);
        let mut bytes = [0; 16];
        prg.try_fill_bytes(&mut bytes).unwrap();
        let expected =
            [0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn chunks_and_substreams_of_aes_differ() {
        let key = Key::from_seed(6);
        let mut distinct = std::collections::BTreeSet::new();
        for tile in 0..2 {
            let mut prg = key.substream_of(PrgId::Aes256Ctr, tile);
            distinct.extend((0..4 * BUFFER_WORDS).map(|_| prg.next_u64()));
        }
        assert_eq!(distinct.len(), 8 * BUFFER_WORDS);
    }

    #[test]
    fn substreams_of_a_key_differ_and_the_first_is_its_stream() {
        let key = Key::from_seed(3);
        assert_eq!(key.substream(0).next_u64(), key.stream().next_u64());
        assert_ne!(key.substream(1).next_u64(), key.stream().next_u64());
    }

    #[test]
    fn bytes_and_words_come_from_the_same_sequence() {
        let key = Key::from_seed(4);
        // In pieces of 3 to 12,345 bytes, the last word of each cut short.
        let (mut words, mut prg) = (key.stream(), key.stream());
        for len in [3, 8, 4096, 12_345, 4095, 5] {
            let mut bytes = vec![0; len];
            prg.fill_bytes(&mut bytes);
            assert!(bytes.chunks(8).all(|chunk| words.next_u64().to_le_bytes()[..chunk.len()] == *chunk));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = Key::from_bytes([7; 32]);
        assert_eq!(format!("{key:?} {:?}", key.stream()), "Key(..) Prg(..)");
    }

    #[test]
    fn generators_are_named_by_stable_numbers() {
        for (number, generator) in [(1, PrgId::ChaCha20), (2, PrgId::Aes256Ctr)] {
            assert_eq!((PrgId::try_from(number), generator.number()), (Ok(generator), number));
        }
        assert_eq!(PrgId::try_from(9), Err(PrgError::UnknownGenerator { id: 9 }));
    }
}
