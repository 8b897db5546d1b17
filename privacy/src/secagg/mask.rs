//! Masks: key streams as vectors modulo 2³², added in tiles that stay in the cache.
//!
//! Number j of tile i of a mask is the j-th little-endian 32-bit word of substream i of its key. Keeping the low b bits of a sum
//! is a homomorphism to arithmetic modulo 2ᵇ, so every width shares one kernel.

use std::sync::Mutex;
use std::thread::Builder;

use zeroize::{Zeroize, Zeroizing};

use super::session::Shape;
use crate::packing::pack_residues;
use crate::prg::{CHUNK_BYTES, Key, Keystream, PrgId};

/// Numbers of a tile, 64 KiB. Part of the result: changing it changes masks.
pub(super) const TILE: usize = 1 << 14;

/// Which way a mask goes into a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

/// A key and the sign of its mask.
pub(super) struct SignedKey {
    pub(super) key: Key,
    pub(super) sign: Sign,
}

/// The masks of some keys, ready to be expanded.
struct Masks {
    streams: Vec<(Keystream, Sign)>,
    /// Wiped once, when everything is done: as often as it is filled would cost as much as filling it.
    chunk: [u8; CHUNK_BYTES],
}

impl Masks {
    fn new(generator: PrgId, keys: &[SignedKey]) -> Self {
        let stream = |mask: &SignedKey| (Keystream::new(generator, mask.key.expose()), mask.sign);
        Self { streams: keys.iter().map(stream).collect(), chunk: [0; CHUNK_BYTES] }
    }

    /// Adds one tile of every mask.
    fn add_tile(&mut self, index: u64, sums: &mut [u32]) {
        for (stream, sign) in &mut self.streams {
            stream.seek(index);
            add_stream(stream, *sign, sums, &mut self.chunk);
        }
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        self.chunk.zeroize();
    }
}

fn add_stream(stream: &mut Keystream, sign: Sign, sums: &mut [u32], chunk: &mut [u8; CHUNK_BYTES]) {
    for sums in sums.chunks_mut(CHUNK_BYTES / 4) {
        let bytes = &mut chunk[..4 * sums.len()];
        bytes.fill(0);
        stream.fill(bytes);
        let words = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        match sign {
            Sign::Plus => sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(word)),
            Sign::Minus => sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_sub(word)),
        }
    }
}

/// Masks a vector and packs the low bits of it, on all cores if it is worth it. Nothing of the length of the vector but the
/// result is made.
pub(super) fn mask_and_pack(values: &[i32], keys: &[SignedKey], shape: Shape) -> Vec<u8> {
    mask_and_pack_on(threads(values.len(), keys.len()), values, keys, shape)
}

fn mask_and_pack_on(threads: usize, values: &[i32], keys: &[SignedKey], shape: Shape) -> Vec<u8> {
    let mut packed = vec![0; shape.packed_len()];
    // Tiles but the last are a whole number of bytes, because 2¹⁴·b is.
    let tiles = values.chunks(TILE).zip(packed.chunks_mut(TILE / 8 * shape.bits as usize));
    on_threads(threads, tiles, || {
        let mut masks = Masks::new(shape.generator, keys);
        let mut sums = Zeroizing::new([0; TILE]);
        move |index, (tile, packed): (&[i32], &mut [u8])| {
            let sums = &mut sums[..tile.len()];
            sums.iter_mut().zip(tile).for_each(|(sum, &value)| *sum = value as u32);
            masks.add_tile(index, sums);
            packed.copy_from_slice(&pack_residues(sums, shape.bits).expect("the session checked the width"));
        }
    });
    packed
}

/// Adds the mask of one key, on one core: what the cost of a session is counted in.
pub fn add_mask(sums: &mut [u32], key: &Key, generator: PrgId) {
    let key = SignedKey { key: key.clone(), sign: Sign::Plus };
    add_masks_on(1, sums, &[key], generator);
}

/// Adds the masks of all keys to sums, on all cores if it is worth it.
pub(super) fn add_masks(sums: &mut [u32], keys: &[SignedKey], generator: PrgId) {
    add_masks_on(threads(sums.len(), keys.len()), sums, keys, generator);
}

fn add_masks_on(threads: usize, sums: &mut [u32], keys: &[SignedKey], generator: PrgId) {
    on_threads(threads, sums.chunks_mut(TILE), || {
        let mut masks = Masks::new(generator, keys);
        move |index, tile: &mut [u32]| masks.add_tile(index, tile)
    });
}

/// How many threads so many masks of so many numbers are worth.
fn threads(len: usize, masks: usize) -> usize {
    let tiles = len.div_ceil(TILE);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(tiles).min(tiles * masks / TILES_PER_THREAD).max(1)
}

/// Every thread takes one tile after the other, so neither their number nor their speed shows in the result.
fn on_threads<T: Send, W: FnMut(u64, T)>(
    threads: usize,
    tiles: impl Iterator<Item = T> + Send,
    worker: impl Fn() -> W + Sync,
) {
    let tiles = Mutex::new((0..).zip(tiles));
    let next = || tiles.lock().expect("nothing panics while it holds the lock").next();
    let work = || {
        let mut worker = worker();
        while let Some((index, tile)) = next() {
            worker(index, tile);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where the system has no more threads, the work takes longer.
            let _ = Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// Tiles of masks that are worth a thread of their own: some milliseconds.
const TILES_PER_THREAD: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::pack;

    fn keys(count: u64) -> Vec<SignedKey> {
        let signed = |seed| {
            let sign = if seed % 3 == 0 { Sign::Minus } else { Sign::Plus };
            SignedKey { key: Key::from_seed(seed), sign }
        };
        (0..count).map(signed).collect()
    }

    #[test]
    fn a_mask_is_the_key_stream_of_its_tiles() {
        // Computed by an independent program in Python from single blocks of AES-256: the key is the own mask's of the known
        // answers of key derivation.
        let mut key = [0; 32];
        for (byte, pair) in
            key.iter_mut().zip(b"debbf94d95f8e9ca9e9e9c11bbddf3ef4b5d2b7200bb94e45cf3d15b72264ad7".chunks(2))
        {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        let mut sums = vec![0; 40_001];
        add_mask(&mut sums, &Key::from_bytes(key), PrgId::Aes256Ctr);
        for (index, expected) in [
            (0, 3_890_935_696),
            (1, 585_737_177),
            (1023, 3_448_747_730),
            (1024, 55_930_141),
            (16_383, 1_238_326_720),
            (16_384, 2_995_048_782),
            (40_000, 3_214_857_787),
        ] {
            assert_eq!(sums[index], expected, "number {index}");
        }
    }

    #[test]
    fn masks_are_words_of_the_generators() {
        for generator in [PrgId::ChaCha20, PrgId::Aes256Ctr] {
            let mut sums = vec![0; TILE + 7];
            add_mask(&mut sums, &Key::from_seed(5), generator);
            for (tile, sums) in (0..).zip(sums.chunks(TILE)) {
                let mut prg = Key::from_seed(5).substream_of(generator, tile);
                let words = std::iter::repeat_with(|| prg.next_u64())
                    .flat_map(|word| [word as u32, (word >> 32) as u32]);
                assert!(sums.iter().copied().eq(words.take(sums.len())), "{generator:?}, tile {tile}");
            }
        }
    }

    #[test]
    fn threads_do_not_show() {
        let mut alone = vec![1; 3 * TILE + 5];
        add_masks_on(1, &mut alone, &keys(7), PrgId::Aes256Ctr);
        for threads in 2..5 {
            let mut shared = vec![1; 3 * TILE + 5];
            add_masks_on(threads, &mut shared, &keys(7), PrgId::Aes256Ctr);
            assert_eq!(shared, alone, "{threads} threads");
        }
        let shape = Shape { len: 3 * TILE + 5, bits: 13, generator: PrgId::Aes256Ctr };
        let values = vec![-3; shape.len];
        let alone = mask_and_pack_on(1, &values, &keys(7), shape);
        for threads in 2..5 {
            assert_eq!(mask_and_pack_on(threads, &values, &keys(7), shape), alone, "{threads} threads");
        }
    }

    #[test]
    fn masking_in_tiles_is_adding_and_packing() {
        for bits in [1, 8, 13, 20, 31, 32] {
            for len in [1, 1023, TILE, TILE + 1, 2 * TILE + 77] {
                let shape = Shape { len, bits, generator: PrgId::Aes256Ctr };
                let values: Vec<i32> = (0..len as i32).map(|i| i * 7 - 1000).collect();
                let mut sums: Vec<u32> = values.iter().map(|value| *value as u32).collect();
                add_masks(&mut sums, &keys(4), shape.generator);
                let centred: Vec<i32> =
                    sums.iter().map(|sum| (sum << (32 - bits)) as i32 >> (32 - bits)).collect();
                let packed = mask_and_pack(&values, &keys(4), shape);
                assert_eq!(packed, pack(&centred, bits).unwrap(), "{len} numbers of {bits} bits");
                assert_eq!(packed.len(), shape.packed_len());
            }
        }
    }
}
