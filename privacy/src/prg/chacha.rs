//! Sixteen blocks of ChaCha20 at once, where the processor has AVX-512; elsewhere those of `rand_chacha`.
//!
//! A vector holds one word of sixteen blocks that follow one another, so a quarter round is four additions, four exclusive ors
//! and four rotations, and at the end words and blocks change places.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use zeroize::ZeroizeOnDrop;

/// The keystream of one key and nonce (Bernstein, "ChaCha, a variant of Salsa20", 2008), from a block on.
#[derive(ZeroizeOnDrop)]
pub(crate) struct ChaCha20 {
    key: [u8; 32],
    nonce: u64,
    block: u64,
}

impl ChaCha20 {
    /// At the first block of nonce 0.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self { key: *key, nonce: 0, block: 0 }
    }

    /// Goes to the first block of a nonce.
    pub(super) fn seek(&mut self, nonce: u64) {
        (self.nonce, self.block) = (nonce, 0);
    }

    /// Fills `bytes` with whole blocks and the beginning of one more, and goes to the block after it.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            simd.vectorize(wide::Fill { simd, cipher: self, bytes });
            self.block += bytes.len().div_ceil(BLOCK_BYTES) as u64;
            return;
        }
        self.fill_portably(bytes);
    }

    fn fill_portably(&mut self, bytes: &mut [u8]) {
        let mut cipher = ChaCha20Rng::from_seed(self.key);
        cipher.set_stream(self.nonce);
        cipher.set_word_pos(u128::from(self.block) * 16);
        cipher.fill_bytes(bytes);
        self.block += bytes.len().div_ceil(BLOCK_BYTES) as u64;
    }
}

const BLOCK_BYTES: usize = 64;

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::__m512i;

    use pulp::NullaryFnOnce;
    use pulp::x86::V4;

    use super::{BLOCK_BYTES, ChaCha20};

    const BLOCKS: usize = 16;
    const GROUP_BYTES: usize = BLOCKS * BLOCK_BYTES;

    pub(super) struct Fill<'a> {
        pub(super) simd: V4,
        pub(super) cipher: &'a ChaCha20,
        pub(super) bytes: &'a mut [u8],
    }

    impl NullaryFnOnce for Fill<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Fill { simd, cipher, bytes } = self;
            let mut block = cipher.block;
            let (groups, rest) = bytes.as_chunks_mut::<GROUP_BYTES>();
            for group in groups {
                write(simd, blocks(simd, cipher, block), group);
                block = block.wrapping_add(BLOCKS as u64);
            }
            if !rest.is_empty() {
                let mut group = [0; GROUP_BYTES];
                write(simd, blocks(simd, cipher, block), &mut group);
                rest.copy_from_slice(&group[..rest.len()]);
            }
        }
    }

    #[inline(always)]
    fn write(_: V4, blocks: [__m512i; BLOCKS], group: &mut [u8; GROUP_BYTES]) {
        for (bytes, block) in group.as_chunks_mut::<BLOCK_BYTES>().0.iter_mut().zip(blocks) {
            *bytes = pulp::cast(block);
        }
    }

    /// The sixteen blocks from `block` on.
    #[inline(always)]
    fn blocks(simd: V4, cipher: &ChaCha20, block: u64) -> [__m512i; BLOCKS] {
        let splat = |word: u32| simd.avx512f._mm512_set1_epi32(word as i32);
        let mut start = [splat(0); 16];
        let (constants, rest) = start.split_at_mut(4);
        for (word, constant) in constants.iter_mut().zip(CONSTANTS) {
            *word = splat(constant);
        }
        for (word, key) in rest.iter_mut().zip(cipher.key.as_chunks().0) {
            *word = splat(u32::from_le_bytes(*key));
        }
        let (mut low, mut high) = ([0_u32; BLOCKS], [0_u32; BLOCKS]);
        for at in 0..BLOCKS {
            let counter = block.wrapping_add(at as u64);
            (low[at], high[at]) = (counter as u32, (counter >> 32) as u32);
        }
        (start[12], start[13]) = (pulp::cast(low), pulp::cast(high));
        start[14] = splat(cipher.nonce as u32);
        start[15] = splat((cipher.nonce >> 32) as u32);
        let mut words = start;
        for _ in 0..10 {
            for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
                quarter_round(simd, &mut words, a, b, c, d);
            }
            for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
                quarter_round(simd, &mut words, a, b, c, d);
            }
        }
        for (word, start) in words.iter_mut().zip(start) {
            *word = simd.avx512f._mm512_add_epi32(*word, start);
        }
        transposed(simd, words)
    }

    #[inline(always)]
    fn quarter_round(simd: V4, words: &mut [__m512i; 16], a: usize, b: usize, c: usize, d: usize) {
        let f = simd.avx512f;
        words[a] = f._mm512_add_epi32(words[a], words[b]);
        words[d] = f._mm512_rol_epi32::<16>(f._mm512_xor_si512(words[d], words[a]));
        words[c] = f._mm512_add_epi32(words[c], words[d]);
        words[b] = f._mm512_rol_epi32::<12>(f._mm512_xor_si512(words[b], words[c]));
        words[a] = f._mm512_add_epi32(words[a], words[b]);
        words[d] = f._mm512_rol_epi32::<8>(f._mm512_xor_si512(words[d], words[a]));
        words[c] = f._mm512_add_epi32(words[c], words[d]);
        words[b] = f._mm512_rol_epi32::<7>(f._mm512_xor_si512(words[b], words[c]));
    }

    /// Vectors of one word each as vectors of one block each.
    #[inline(always)]
    fn transposed(simd: V4, words: [__m512i; 16]) -> [__m512i; BLOCKS] {
        let f = simd.avx512f;
        // Four words of blocks 4q + j, in quarter q of vector j of each group of words.
        let mut groups = words;
        for at in [0, 4, 8, 12] {
            let (a, b, c, d) = (words[at], words[at + 1], words[at + 2], words[at + 3]);
            let (low, high) = (f._mm512_unpacklo_epi32(a, b), f._mm512_unpackhi_epi32(a, b));
            let (low2, high2) = (f._mm512_unpacklo_epi32(c, d), f._mm512_unpackhi_epi32(c, d));
            groups[at] = f._mm512_unpacklo_epi64(low, low2);
            groups[at + 1] = f._mm512_unpackhi_epi64(low, low2);
            groups[at + 2] = f._mm512_unpacklo_epi64(high, high2);
            groups[at + 3] = f._mm512_unpackhi_epi64(high, high2);
        }
        let mut blocks = words;
        for at in 0..4 {
            let (a, b, c, d) = (groups[at], groups[at + 4], groups[at + 8], groups[at + 12]);
            let (ab, cd) = (f._mm512_shuffle_i32x4::<0x44>(a, b), f._mm512_shuffle_i32x4::<0x44>(c, d));
            let (ab2, cd2) = (f._mm512_shuffle_i32x4::<0xee>(a, b), f._mm512_shuffle_i32x4::<0xee>(c, d));
            blocks[at] = f._mm512_shuffle_i32x4::<0x88>(ab, cd);
            blocks[at + 4] = f._mm512_shuffle_i32x4::<0xdd>(ab, cd);
            blocks[at + 8] = f._mm512_shuffle_i32x4::<0x88>(ab2, cd2);
            blocks[at + 12] = f._mm512_shuffle_i32x4::<0xdd>(ab2, cd2);
        }
        blocks
    }

    /// "expand 32-byte k"
    const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn wide_blocks_are_those_of_the_other_implementation(
            key in any::<[u8; 32]>(),
            nonce in any::<u64>(),
            block in prop_oneof![0..3_u64, (u64::from(u32::MAX) - 20)..=u64::from(u32::MAX), Just(1 << 40)],
            lengths in prop::collection::vec(0..5000_usize, 1..4),
        ) {
            let [mut wide, mut portable] = [(); 2].map(|()| ChaCha20 { key, nonce, block });
            for len in lengths {
                let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
                wide.fill(&mut ours);
                portable.fill_portably(&mut theirs);
                prop_assert_eq!(ours, theirs);
                prop_assert_eq!(wide.block, portable.block);
            }
        }
    }
}
