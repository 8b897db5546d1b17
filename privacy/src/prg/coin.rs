//! Who joins a round, by independent coins.

use super::CryptoRng;
use crate::quantities::SamplingRate;

/// A coin for Poisson sampling: heads with probability ⌊q·2⁶⁴⌋/2⁶⁴.
///
/// The realised rate is never above `q` and at most 2⁻⁶⁴ below it. It is exactly `q` when `q` ≥ 2⁻¹¹, because such a
/// number has no binary digit beyond the 64th, so an accountant may use `q` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coin {
    threshold: u128,
}

impl Coin {
    /// The coin of a sampling rate.
    #[must_use]
    pub fn new(rate: SamplingRate) -> Self {
        // Multiplying by a power of two is exact, and the cast drops what is after the point.
        Self { threshold: (rate.get() * 2_f64.powi(64)) as u128 }
    }

    /// Heads or tails, from one word of the generator.
    pub fn flip<R: CryptoRng + ?Sized>(self, rng: &mut R) -> bool {
        u128::from(rng.next_u64()) < self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Key;

    #[test]
    fn a_coin_has_the_floor_of_its_rate() {
        let threshold = |q| Coin::new(SamplingRate::new(q).unwrap()).threshold;
        assert_eq!(threshold(1.0), 1 << 64);
        assert_eq!(threshold(0.5), 1 << 63);
        assert_eq!(threshold(2_f64.powi(-65)), 0);
        assert_eq!(threshold(1.5 * 2_f64.powi(-64)), 1);
        // 0.1 as a double is 7205759403792794 / 2^56.
        assert_eq!(threshold(0.1), 7_205_759_403_792_794 << 8);
    }

    #[test]
    fn a_coin_shows_heads_at_its_rate() {
        let coin = Coin::new(SamplingRate::new(0.01).unwrap());
        let mut prg = Key::from_seed(5).stream();
        let heads = (0..1_000_000).filter(|_| coin.flip(&mut prg)).count();
        // Five standard deviations of the binomial around 10 000.
        assert!((9_502..10_498).contains(&heads), "{heads}");
    }
}
