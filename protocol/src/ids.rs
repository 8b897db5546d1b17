//! Names of things: a newtype each, so that no function can confuse two kinds of bytes.

use std::cmp::Ordering;
use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

/// A client of the federation, as its certificate names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client-{}", self.0)
    }
}

/// A round of training, counted from 1, or the query that follows one: [`Round::query`]. In the order in which they come: a round, the
/// query after it, the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Round(pub u64);

impl Round {
    /// The bit that tells the query after a round from the round.
    const QUERY: u64 = 1 << 63;

    /// The query after this round.
    #[must_use]
    pub const fn query(self) -> Self {
        Round(self.0 | Self::QUERY)
    }

    /// Whether this is the query after a round.
    #[must_use]
    pub const fn is_query(self) -> bool {
        self.0 & Self::QUERY != 0
    }

    /// The round of training, of a query the one before it.
    #[must_use]
    pub const fn training(self) -> Self {
        Round(self.0 & !Self::QUERY)
    }

    /// The bit of queries is the least of this number.
    const fn place(self) -> u64 {
        self.0.rotate_left(1)
    }
}

impl Ord for Round {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Round {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = if self.is_query() { "the query after " } else { "" };
        write!(f, "{after}round {}", self.training().0)
    }
}

/// A SHA-256 digest: of a model, a plan, a task or an update.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(digest::digest(&digest::SHA256, bytes))
    }

    /// The digest of a model: of its parameters as little-endian f32, without metadata.
    pub fn of_model(parameters: &[f32]) -> Self {
        let mut hasher = Hasher::new();
        for block in parameters.chunks(HASH_BLOCK) {
            let mut bytes = [0u8; 4 * HASH_BLOCK];
            for (to, value) in bytes.chunks_exact_mut(4).zip(block) {
                to.copy_from_slice(&value.to_le_bytes());
            }
            hasher.update(&bytes[..4 * block.len()]);
        }
        hasher.finish()
    }

    fn finish(digest: digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Digest(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Makes the [`Digest`] of bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// The hasher of no bytes yet.
    pub fn new() -> Self {
        Hasher(digest::Context::new(&digest::SHA256))
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything appended.
    pub fn finish(self) -> Digest {
        Digest::finish(self.0.finish())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

/// What binds a message to one TLS connection: the exporter value that both ends derive (RFC 8446, section 7.5).
///
/// It also tells one connection of a client from its next. Drivers without TLS make up a unique value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelBinding(pub [u8; 32]);

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelBinding(..)")
    }
}

const HASH_BLOCK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_comes_between_its_round_and_the_next() {
        let order = [Round(0), Round(1), Round(1).query(), Round(2), Round(9), Round(9).query(), Round(10)];
        assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
        let query = Round(7).query();
        assert!(query.is_query() && !Round(7).is_query());
        assert_eq!((query.training(), query.query(), Round(7).training()), (Round(7), query, Round(7)));
        assert_eq!(query.to_string(), "the query after round 7");
    }

    #[test]
    fn a_model_digest_is_the_hash_of_its_little_endian_parameters() {
        let parameters: Vec<f32> = (0..3000).map(|i| i as f32 / 7.0).collect();
        let bytes: Vec<u8> = parameters.iter().flat_map(|p| p.to_le_bytes()).collect();
        assert_eq!(Digest::of_model(&parameters), Digest::of(&bytes));
    }

    #[test]
    fn a_digest_is_shown_in_hexadecimal() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
