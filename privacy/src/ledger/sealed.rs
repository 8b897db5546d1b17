//! Central noise that an auditor can check: the seed is committed to before the round, and seed and raw sum are sealed to a
//! key that only the auditor can use.
//!
//! Whoever opens a seal sees the sum without noise: it is a privilege, off unless the genesis record names an auditor, and
//! it ends on a day named there. It shows that the noise of a release is that of the seed, bit for bit; it does not show
//! that the seed was random.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use super::Hash;
use crate::canonical::Writer;
use crate::prg::{KEY_BYTES, Key, PrgId};
use crate::sum::add_noise;

/// Whom a raw sum is sealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient(pub [u8; 32]);

/// The auditor's private X25519 key.
pub struct AuditorSecret(StaticSecret);

/// What a seal held.
pub struct Opened {
    noise: Key,
    generator: PrgId,
    raw: Vec<i64>,
}

/// What a round's noise is bound by before anybody is invited: its seed, its standard deviation in grid steps, and the
/// generator that makes noise of the seed.
#[must_use]
pub fn commitment(noise: &Key, sigma: u64, generator: PrgId) -> Hash {
    let mut writer = Writer::new("skep noise commitment v1");
    writer.array(noise.expose()).u64(sigma).u32(u32::from(generator.number()));
    let text = Zeroizing::new(writer.finish());
    Hash::of(&text)
}

impl Recipient {
    /// Seals a seed and a raw sum. `ephemeral` must be fresh and secret. None for a key of small order, with which everybody
    /// could open it.
    #[must_use]
    pub(crate) fn seal(
        &self,
        ephemeral: &Key,
        noise: &Key,
        generator: PrgId,
        raw: &[i64],
    ) -> Option<Vec<u8>> {
        let secret = StaticSecret::from(*ephemeral.expose());
        let ours = PublicKey::from(&secret);
        let cipher = cipher(&secret, &PublicKey::from(self.0), &ours, &PublicKey::from(self.0))?;
        let mut sealed = Vec::with_capacity(34 + KEY_BYTES + 8 * raw.len() + MAX_TAG_LEN);
        sealed.extend_from_slice(ours.as_bytes());
        sealed.extend_from_slice(noise.expose());
        sealed.extend_from_slice(&generator.number().to_be_bytes());
        raw.iter().for_each(|coordinate| sealed.extend_from_slice(&coordinate.to_le_bytes()));
        let tag = cipher.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut sealed[32..]).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }
}

impl AuditorSecret {
    /// The key of 32 secret bytes.
    #[must_use]
    pub fn from_key(key: &Key) -> Self {
        Self(StaticSecret::from(*key.expose()))
    }

    /// Whom to seal to, for the genesis record.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(PublicKey::from(&self.0).to_bytes())
    }

    /// Opens a seal; none unless it is whole and for this key.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Opened> {
        let (ephemeral, rest) = sealed.split_first_chunk::<32>()?;
        let (ephemeral, ours) = (PublicKey::from(*ephemeral), PublicKey::from(&self.0));
        let cipher = cipher(&self.0, &ephemeral, &ephemeral, &ours)?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let text = cipher.open_in_place(nonce(), Aad::empty(), &mut bytes).ok()?;
        let (seed, rest) = text.split_first_chunk::<KEY_BYTES>()?;
        let (generator, raw) = rest.split_first_chunk::<2>()?;
        let generator = PrgId::try_from(u16::from_be_bytes(*generator)).ok()?;
        let (coordinates, rest) = raw.as_chunks::<8>();
        rest.is_empty().then(|| Opened {
            noise: Key::from_bytes(*seed),
            generator,
            raw: coordinates.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        })
    }
}

impl Opened {
    /// Whether the seed is the one that was committed to for this noise.
    #[must_use]
    pub fn is_committed(&self, commitment_before: Hash, sigma: u64) -> bool {
        commitment(&self.noise, sigma, self.generator) == commitment_before
    }

    /// The digest that the release must have had: of the raw sum with the noise of the seed, as little-endian i64.
    #[must_use]
    pub fn release_digest(mut self, sigma: u64) -> Hash {
        let mut release = std::mem::take(&mut self.raw);
        add_noise(&mut release, sigma, &self.noise, self.generator);
        let bytes: Vec<u8> = release.iter().flat_map(|coordinate| coordinate.to_le_bytes()).collect();
        Hash::of(&bytes)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.raw.zeroize();
    }
}

/// One key for one message: the ephemeral key is new for each, so the nonce may be the same.
fn cipher(
    secret: &StaticSecret,
    theirs: &PublicKey,
    ephemeral: &PublicKey,
    to: &PublicKey,
) -> Option<LessSafeKey> {
    let shared = secret.diffie_hellman(theirs);
    if !shared.was_contributory() {
        return None;
    }
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, shared.as_bytes()));
    context.update(b"skep seal v1");
    context.update(ephemeral.as_bytes());
    context.update(to.as_bytes());
    let key = Zeroizing::new(context.sign().as_ref().to_vec());
    Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_auditor_opens_a_seal_and_finds_the_release_again() {
        let (auditor, stranger) =
            (AuditorSecret::from_key(&Key::from_seed(1)), AuditorSecret::from_key(&Key::from_seed(2)));
        let (noise, raw) = (Key::from_seed(3), vec![5, -7, 0, 1 << 40]);
        let sealed = auditor.recipient().seal(&Key::from_seed(4), &noise, PrgId::ChaCha20, &raw).unwrap();
        assert!(stranger.open(&sealed).is_none());
        let opened = auditor.open(&sealed).unwrap();
        assert!(opened.is_committed(commitment(&noise, 1000, PrgId::ChaCha20), 1000));
        assert!(!opened.is_committed(commitment(&noise, 1001, PrgId::ChaCha20), 1000));
        let mut release = raw;
        add_noise(&mut release, 1000, &noise, PrgId::ChaCha20);
        let bytes: Vec<u8> = release.iter().flat_map(|coordinate| coordinate.to_le_bytes()).collect();
        assert_eq!(opened.release_digest(1000), Hash::of(&bytes));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(auditor.open(&changed).is_none(), "byte {at}");
        }
        assert!(
            Recipient([0; 32]).seal(&Key::from_seed(4), &noise, PrgId::ChaCha20, &[1]).is_none(),
            "a key of small order"
        );
    }
}
