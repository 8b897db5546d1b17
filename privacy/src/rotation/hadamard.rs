//! The Walsh-Hadamard transform.
//!
//! Level by level, numbers at a distance of 1, 2, 4, … become their sum and difference. Two levels at a time halve the
//! traffic, and all levels of a part that fits the first-level cache are done before the next part. Neither changes the
//! result by a bit.

use crate::vectorize::vectorize;

/// Room for numbers that starts at a cache line: registers that lie across two lines are filled at half the speed.
pub(super) struct Aligned {
    room: Vec<f64>,
    len: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Self {
        Self { room: vec![0.0; len + LINE / size_of::<f64>()], len }
    }

    pub(super) fn numbers(&mut self) -> &mut [f64] {
        let start = self.room.as_ptr().align_offset(LINE);
        &mut self.room[start..][..self.len]
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Numbers of which the first-level cache of a core holds more than one set.
const NEAR: usize = 1 << 11;

/// Numbers whose levels lie within two registers.
const ROW: usize = 8;

vectorize! {
    /// The transform of a power of two of numbers times the root of how many there are. It is fastest on [`Aligned`] ones.
    pub(super) fn transform(block: &mut [f64]) {
        for near in block.chunks_mut(NEAR) {
            let first = if near.len() < ROW { 1 } else { transform_rows(near) };
            levels(near, first);
        }
        levels(block, NEAR);
    }
}

/// The levels within rows. Returns the distance of the next level.
#[inline(always)]
fn transform_rows(block: &mut [f64]) -> usize {
    for row in block.as_chunks_mut::<ROW>().0 {
        for distance in [1, 2, 4] {
            let before = *row;
            for (i, value) in row.iter_mut().enumerate() {
                let other = before[i ^ distance];
                *value = if i & distance == 0 { before[i] + other } else { other - before[i] };
            }
        }
    }
    ROW
}

/// The levels from this distance on.
#[inline(always)]
fn levels(block: &mut [f64], mut distance: usize) {
    while 4 * distance <= block.len() {
        two_levels(block, distance);
        distance *= 4;
    }
    if 2 * distance <= block.len() {
        one_level(block, distance);
    }
}

#[inline(always)]
fn one_level(block: &mut [f64], distance: usize) {
    for group in block.chunks_exact_mut(2 * distance) {
        let (a, b) = group.split_at_mut(distance);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

#[inline(always)]
fn two_levels(block: &mut [f64], distance: usize) {
    for group in block.chunks_exact_mut(4 * distance) {
        let (low, high) = group.split_at_mut(2 * distance);
        let (a, b) = low.split_at_mut(distance);
        let (c, d) = high.split_at_mut(distance);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (ab, cd) = ((*a + *b, *a - *b), (*c + *d, *c - *d));
            (*a, *b, *c, *d) = (ab.0 + cd.0, ab.1 + cd.1, ab.0 - cd.0, ab.1 - cd.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::vectorize::testing::both;

    /// One level after the other, as the definition says.
    fn reference(block: &mut [f64]) {
        let mut distance = 1;
        while distance < block.len() {
            one_level(block, distance);
            distance *= 2;
        }
    }

    #[test]
    fn the_order_of_the_work_does_not_change_a_bit() {
        let mut rng = Key::from_seed(1).stream();
        for log in 0..=15 {
            let numbers: Vec<f64> = (0..1 << log).map(|_| rng.next_u64() as i64 as f64 / 1e18).collect();
            let computed = |compute: fn(&mut [f64])| {
                let mut block = numbers.clone();
                compute(&mut block);
                block
            };
            let expected = computed(reference);
            let found = both(|| computed(transform));
            assert!(found.iter().all(|found| *found == expected), "2^{log} numbers");
        }
    }

    #[test]
    fn rows_are_the_signs_of_common_bits() {
        // Coefficient k of the unit vector i is (−1)^(number of bits that i and k share).
        for i in 0..32_usize {
            let mut block = [0.0; 32];
            block[i] = 1.0;
            transform(&mut block);
            for (k, value) in block.into_iter().enumerate() {
                assert_eq!(value, if (i & k).count_ones() % 2 == 0 { 1.0 } else { -1.0 });
            }
        }
    }

    #[test]
    fn room_starts_at_a_cache_line() {
        for len in [1, 8, 1 << 15] {
            let mut room = Aligned::new(len);
            assert_eq!((room.numbers().len(), room.numbers().as_ptr().align_offset(LINE)), (len, 0));
        }
    }
}
