//! Key agreement: X25519 (RFC 7748), and the seeds that everything secret in a session comes from.

use curve25519_dalek::Scalar;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::session::{Check, Session};
use crate::prg::CryptoRng;

/// A public X25519 key.
pub(super) type ExchangeKey = [u8; 32];

/// A private X25519 key.
pub(super) struct ExchangeSecret(StaticSecret);

impl ExchangeSecret {
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    pub(super) fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self::from_bytes(&bytes)
    }

    pub(super) fn public_key(&self) -> ExchangeKey {
        PublicKey::from(&self.0).to_bytes()
    }

    /// The secret that both sides compute. None when the other key has small order: the result is all zeros then, and
    /// known to everybody.
    pub(super) fn agree(&self, theirs: &ExchangeKey, session: &Session) -> Option<SharedSecret> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*theirs));
        (shared.was_contributory() || !session.makes(Check::SmallOrder)).then_some(shared)
    }
}

/// A secret that can be shared out: a uniform scalar modulo the order of the group of Curve25519, a little more than 2²⁵².
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Seed(Scalar);

impl Seed {
    pub(super) fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(random_scalar(rng))
    }

    pub(super) const fn new(scalar: Scalar) -> Self {
        Self(scalar)
    }

    pub(super) const fn scalar(&self) -> &Scalar {
        &self.0
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// Uniform but for 2⁻²⁵⁹: 512 random bits, reduced.
pub(super) fn random_scalar(rng: &mut (impl CryptoRng + ?Sized)) -> Scalar {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill_bytes(&mut *wide);
    Scalar::from_bytes_mod_order_wide(&wide)
}
