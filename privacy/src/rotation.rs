//! A random rotation that spreads an update evenly over its coordinates, so that few wire bits hold all of them.
//!
//! Random signs and a Walsh-Hadamard transform (Suresh, Yu, Kumar and McMahan, arXiv 1611.00429, section 3). The transform
//! needs a power of two, so it works in blocks of 2ᵖ ≤ 2¹⁵, of which the last ends at the end of the vector and overlaps
//! the one before. Every block is an orthonormal map, and so is their product: norms are kept, nothing is padded, and the
//! inverse applies the same blocks in reverse. In doubles it loses about fifteen digits' last one.

use hadamard::{Aligned, transform};

use crate::prg::Key;
use crate::vectorize::vectorize;

mod hadamard;

/// Largest block. Its doubles fit the second-level cache of a core.
const BLOCK_MAX: usize = 1 << 15;

/// The rotation of vectors of one length by one key, which all members of a cohort share; it need not be secret.
#[derive(Debug, Clone)]
pub struct Rotation {
    key: Key,
    len: usize,
}

impl Rotation {
    /// The rotation of `len` numbers whose signs come from `key`.
    #[must_use]
    pub const fn new(key: Key, len: usize) -> Self {
        Self { key, len }
    }

    /// Length of the vectors that are rotated.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to rotate.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rotates the vector.
    ///
    /// # Errors
    /// [`OtherLength`] unless it has [`Rotation::len`] numbers; it is then unchanged.
    pub fn forward(&self, vector: &mut [f64]) -> Result<(), OtherLength> {
        self.check(vector)?;
        let mut room = Aligned::new(self.block());
        for (index, start) in self.starts().enumerate() {
            let block = &mut vector[start..start + self.block()];
            turn(block, &self.signs(index), &KEEP, room.numbers());
        }
        Ok(())
    }

    /// Undoes [`Rotation::forward`].
    ///
    /// # Errors
    /// [`OtherLength`] unless it has [`Rotation::len`] numbers; it is then unchanged.
    pub fn inverse(&self, vector: &mut [f64]) -> Result<(), OtherLength> {
        self.check(vector)?;
        let mut room = Aligned::new(self.block());
        for (index, start) in self.starts().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let block = &mut vector[start..start + self.block()];
            turn(block, &KEEP, &self.signs(index), room.numbers());
        }
        Ok(())
    }

    fn check(&self, vector: &[f64]) -> Result<(), OtherLength> {
        if vector.len() == self.len {
            Ok(())
        } else {
            Err(OtherLength { expected: self.len, found: vector.len() })
        }
    }

    /// The largest power of two that fits the vector and the cache.
    fn block(&self) -> usize {
        self.len.min(BLOCK_MAX).checked_ilog2().map_or(0, |bits| 1 << bits)
    }

    fn starts(&self) -> impl Iterator<Item = usize> {
        let last = self.len - self.block();
        (0..last).step_by(self.block().max(1)).chain((self.len > 0).then_some(last))
    }

    fn signs(&self, index: usize) -> Signs {
        let (mut signs, mut prg) = (KEEP, self.key.substream(index as u64));
        signs[..self.block().div_ceil(64)].fill_with(|| prg.next_u64());
        signs
    }
}

/// One bit a number of a block: whether its sign is flipped.
type Signs = [u64; BLOCK_MAX / 64];

const KEEP: Signs = [0; BLOCK_MAX / 64];

/// The orthonormal Walsh-Hadamard transform, which is its own inverse, between two flips of signs.
fn turn(block: &mut [f64], before: &Signs, after: &Signs, room: &mut [f64]) {
    let scale = 1.0 / (block.len() as f64).sqrt();
    scale_and_flip(block, 1.0, before, room);
    transform(room);
    scale_and_flip(room, scale, after, block);
}

vectorize! {
    fn scale_and_flip(from: &[f64], scale: f64, signs: &Signs, to: &mut [f64]) {
        for ((from, to), &word) in from.chunks(64).zip(to.chunks_mut(64)).zip(signs) {
            // The sign is the highest bit of a double.
            let factors: [u64; 64] = std::array::from_fn(|i| scale.to_bits() ^ (word >> i << 63));
            for ((to, from), factor) in to.iter_mut().zip(from).zip(factors) {
                *to = from * f64::from_bits(factor);
            }
        }
    }
}

/// The vector is not as long as those that the rotation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a vector of {found} numbers cannot be rotated by a rotation of {expected}")]
pub struct OtherLength {
    /// Length of the rotation.
    pub expected: usize,
    /// Length of the vector.
    pub found: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn norm(vector: &[f64]) -> f64 {
        vector.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    fn rotation(seed: u64, len: usize) -> Rotation {
        Rotation::new(Key::from_seed(seed), len)
    }

    proptest! {
        #[test]
        fn the_inverse_undoes_the_rotation_and_norms_are_kept(
            vector in prop::collection::vec(-1e3..1e3_f64, 0..300),
            seed in any::<u64>(),
        ) {
            let rotation = rotation(seed, vector.len());
            let mut rotated = vector.clone();
            rotation.forward(&mut rotated).unwrap();
            prop_assert!((norm(&rotated) - norm(&vector)).abs() <= 1e-9);
            rotation.inverse(&mut rotated).unwrap();
            prop_assert!(rotated.iter().zip(&vector).all(|(a, b)| (a - b).abs() <= 1e-9));
        }
    }

    #[test]
    fn long_vectors_take_overlapping_blocks() {
        for len in [BLOCK_MAX, BLOCK_MAX + 1, 3 * BLOCK_MAX - 1, 3 * BLOCK_MAX] {
            let rotation = rotation(1, len);
            let starts: Vec<_> = rotation.starts().collect();
            assert_eq!(starts.len(), len.div_ceil(BLOCK_MAX));
            assert_eq!(starts.last(), Some(&(len - BLOCK_MAX)));
            let vector: Vec<f64> = (0..len).map(|i| (i % 1000) as f64).collect();
            let mut rotated = vector.clone();
            rotation.forward(&mut rotated).unwrap();
            rotation.inverse(&mut rotated).unwrap();
            assert!(rotated.iter().zip(&vector).all(|(a, b)| (a - b).abs() <= 1e-9));
        }
    }

    #[test]
    fn a_single_spike_is_spread_over_its_block() {
        let mut vector = vec![0.0; 1 << 10];
        vector[77] = -3.0;
        rotation(2, 1 << 10).forward(&mut vector).unwrap();
        assert!(vector.iter().all(|x| (x.abs() - 3.0 / 32.0).abs() < 1e-15));
        // Every row of the transform but the first has as many plus signs as minus.
        let positive = vector.iter().filter(|x| **x > 0.0).count();
        assert_eq!(positive, 512);
    }

    #[test]
    fn no_coordinate_of_a_rotated_update_is_large() {
        // Five coordinates hold everything. Afterwards each of the d is at most norm·√(2 ln(2d/p)/d) but for a chance p
        // of 1e-6 (Hoeffding), here 7.2 norms over √d.
        let len = 100_000;
        let mut vector = vec![0.0; len];
        (0..5).for_each(|i| vector[i * 20_000] = 1.0);
        rotation(3, len).forward(&mut vector).unwrap();
        let largest = vector.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        assert!(largest < 7.2 * 5_f64.sqrt() / (BLOCK_MAX as f64).sqrt(), "{largest}");
    }

    #[test]
    fn another_key_is_another_rotation() {
        let (mut a, mut b) = (vec![1.0; 64], vec![1.0; 64]);
        rotation(4, 64).forward(&mut a).unwrap();
        rotation(5, 64).forward(&mut b).unwrap();
        assert_ne!(a, b);
    }

    #[test]
    fn vectors_of_another_length_are_refused() {
        let refused = Err(OtherLength { expected: 4, found: 3 });
        assert_eq!(rotation(6, 4).forward(&mut [1.0; 3]), refused);
        assert_eq!(rotation(6, 4).inverse(&mut [1.0; 3]), refused);
        assert_eq!(rotation(6, 0).forward(&mut []), Ok(()));
    }
}
