//! Secret keys, and how they are derived from one another.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Prg, PrgError, PrgId};

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// What a derived key is for. Keys of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Who is invited to a round. Secret: sampling amplifies privacy only against those who cannot see it.
    Cohort,
    /// The root of what one client draws.
    Client,
    /// Stochastic rounding of an update.
    Rounding,
    /// Noise that hides an update or a sum.
    Noise,
    /// Pairwise and self masks of secure aggregation.
    Mask,
    /// Signs of a rotation.
    Rotation,
    /// Generated data.
    Data,
    /// Which client holds which examples.
    Partition,
    /// The first parameters of a model.
    InitialModel,
    /// In which order a client reads its examples.
    BatchOrder,
    /// Draws inside training, such as dropout layers.
    Training,
    /// Which simulated clients leave a round.
    DropOut,
    /// How long simulated clients take.
    Latency,
    /// Injected faults.
    Fault,
    /// Canaries and coins of an empirical audit.
    Audit,
    /// The key that signs a simulation's ledger.
    Ledger,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Cohort => b"cohort",
            Self::Client => b"client",
            Self::Rounding => b"rounding",
            Self::Noise => b"noise",
            Self::Mask => b"mask",
            Self::Rotation => b"rotation",
            Self::Data => b"data",
            Self::Partition => b"partition",
            Self::InitialModel => b"initial model",
            Self::BatchOrder => b"batch order",
            Self::Training => b"training",
            Self::DropOut => b"dropout",
            Self::Latency => b"latency",
            Self::Fault => b"fault",
            Self::Audit => b"audit",
            Self::Ledger => b"ledger",
        }
    }
}

/// 256 secret bits: the root of all randomness, or a key derived from it.
///
/// Has no text form, cannot be compared, and is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A fresh key from the operating system.
    ///
    /// # Errors
    /// [`PrgError::NoEntropy`] when the system refuses.
    pub fn from_os() -> Result<Self, PrgError> {
        let mut key = Self([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut key.0).map_err(|_| PrgError::NoEntropy)?;
        Ok(key)
    }

    /// A key from bytes that are already uniform and secret.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// A key that everybody can compute. Not private: for simulation and tests only.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, b"skep public seed v1");
        Self::from_tag(hmac::sign(&root, &seed.to_le_bytes()))
    }

    /// The key for one purpose in one round for one client; 0 stands for "no round" and "no client".
    ///
    /// HKDF-Expand of RFC 5869 with one block of HMAC-SHA-256. The numbers have fixed lengths and the label comes
    /// last, so no two arguments give the same input.
    #[must_use]
    pub fn derive(&self, purpose: Purpose, round: u64, client: u64) -> Self {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        mac.update(b"skep key v1");
        mac.update(&round.to_le_bytes());
        mac.update(&client.to_le_bytes());
        mac.update(purpose.label());
        mac.update(&[1]);
        Self::from_tag(mac.sign())
    }

    /// The secret bytes, for handing the key to a process that acts for its owner. Never log, store or send them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The ChaCha20 generator of this key: substream 0.
    #[must_use]
    pub fn stream(&self) -> Prg {
        self.substream(0)
    }

    /// The ChaCha20 generator of one tile of a long vector. Substreams of a key are independent.
    #[must_use]
    pub fn substream(&self, tile: u64) -> Prg {
        self.substream_of(PrgId::ChaCha20, tile)
    }

    /// The generator that a plan names, for one tile of a long vector. Use a key with one kind of generator only.
    #[must_use]
    pub fn substream_of(&self, generator: PrgId, tile: u64) -> Prg {
        Prg::new(generator, &self.0, tile)
    }

    fn from_tag(tag: hmac::Tag) -> Self {
        let mut key = Self([0; KEY_BYTES]);
        key.0.copy_from_slice(tag.as_ref());
        key
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_of_a_derivation_changes_the_key() {
        let root = Key::from_seed(1);
        let keys = [
            root.derive(Purpose::Noise, 1, 2),
            root.derive(Purpose::Rounding, 1, 2),
            root.derive(Purpose::Noise, 2, 1),
            root.derive(Purpose::Noise, 1, 3),
            Key::from_seed(2).derive(Purpose::Noise, 1, 2),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a.expose() != b.expose()));
        }
    }

    #[test]
    fn keys_of_the_system_differ() {
        assert_ne!(Key::from_os().unwrap().expose(), Key::from_os().unwrap().expose());
    }
}
