//! Coordinates as bits on the wire: two's complement of 1 to 32 bits each, lowest bit first, no gaps.
//!
//! Coordinate i occupies the bits i·b to (i+1)·b − 1 of the message, where bit j is bit j mod 8 of byte ⌊j/8⌋. The bits
//! that fill the last byte are zero. Every vector has exactly one packed form.

/// Why bytes are not packed coordinates, or coordinates cannot be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackingError {
    /// The width is not 1 to 32.
    #[error("a coordinate cannot have {bits} bits; it has 1 to 32")]
    Width {
        /// The refused width.
        bits: u32,
    },
    /// A coordinate needs more bits than the wire has.
    #[error("coordinate {index} is {value}, which does not fit {bits} bits")]
    Overflow {
        /// Position of the first such coordinate.
        index: usize,
        /// Its value.
        value: i32,
        /// Bits of a coordinate.
        bits: u32,
    },
    /// The message is too short or too long.
    #[error("packed coordinates are {found} bytes long instead of {expected}")]
    Length {
        /// Bytes that the coordinates take.
        expected: usize,
        /// Bytes received.
        found: usize,
    },
    /// The bits that fill the last byte are not zero.
    #[error("the bits after the last coordinate are not zero")]
    Padding,
}

/// Bytes of `len` coordinates of `bits` bits each: ⌈len·bits/8⌉. None when that overflows.
#[must_use]
pub const fn packed_len(len: usize, bits: u32) -> Option<usize> {
    match len.checked_mul(bits as usize) {
        Some(total) => Some(total.div_ceil(8)),
        None => None,
    }
}

/// Packs the coordinates.
///
/// # Errors
/// [`PackingError::Width`] or, at the first coordinate that does not fit, [`PackingError::Overflow`].
pub fn pack(coordinates: &[i32], bits: u32) -> Result<Vec<u8>, PackingError> {
    check_width(bits)?;
    let fits = |value: i32| value << (32 - bits) >> (32 - bits) == value;
    if let Some(index) = coordinates.iter().position(|&value| !fits(value)) {
        return Err(PackingError::Overflow { index, value: coordinates[index], bits });
    }
    if bits == 32 {
        return Ok(coordinates.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    Ok(pack_narrow(coordinates.iter().map(|&value| value as u64), coordinates.len(), bits))
}

/// Reads back `len` coordinates.
///
/// # Errors
/// [`PackingError`] unless the bytes are what [`pack`] gives for some vector of this length.
pub fn unpack(bytes: &[u8], len: usize, bits: u32) -> Result<Vec<i32>, PackingError> {
    check_packed(bytes, len, bits)?;
    if bits == 32 {
        return Ok(bytes.as_chunks().0.iter().map(|chunk| i32::from_le_bytes(*chunk)).collect());
    }
    let mut coordinates = Vec::with_capacity(len);
    for_each_field(bytes, len, bits, |field| {
        coordinates.push((field << (32 - bits)) as i32 >> (32 - bits));
    });
    Ok(coordinates)
}

/// Packs the low bits of residues modulo 2ᵇ.
///
/// # Errors
/// [`PackingError::Width`].
pub(crate) fn pack_residues(residues: &[u32], bits: u32) -> Result<Vec<u8>, PackingError> {
    check_width(bits)?;
    if bits == 32 {
        return Ok(residues.iter().flat_map(|value| value.to_le_bytes()).collect());
    }
    Ok(pack_narrow(residues.iter().map(|&value| u64::from(value)), residues.len(), bits))
}

/// Adds packed residues modulo 2ᵇ to as many sums. The bits of a sum above b are not meaningful.
///
/// # Errors
/// [`PackingError`] unless the bytes are residues of this width, one for each sum; nothing is added then.
pub(crate) fn add_packed(bytes: &[u8], bits: u32, sums: &mut [u32]) -> Result<(), PackingError> {
    check_packed(bytes, sums.len(), bits)?;
    if bits == 32 {
        for (sum, chunk) in sums.iter_mut().zip(bytes.as_chunks().0) {
            *sum = sum.wrapping_add(u32::from_le_bytes(*chunk));
        }
    } else {
        let mut sums = sums.iter_mut();
        let len = sums.len();
        for_each_field(bytes, len, bits, |field| {
            if let Some(sum) = sums.next() {
                *sum = sum.wrapping_add(field);
            }
        });
    }
    Ok(())
}

const fn check_width(bits: u32) -> Result<(), PackingError> {
    if bits >= 1 && bits <= 32 { Ok(()) } else { Err(PackingError::Width { bits }) }
}

fn check_packed(bytes: &[u8], len: usize, bits: u32) -> Result<(), PackingError> {
    check_width(bits)?;
    let expected = packed_len(len, bits).unwrap_or(usize::MAX);
    if bytes.len() != expected {
        return Err(PackingError::Length { expected, found: bytes.len() });
    }
    let used = (len * bits as usize) % 8;
    if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
        return Err(PackingError::Padding);
    }
    Ok(())
}

/// Bits wait in the low end of `pending`, always fewer than 32 of them, until they fill a word of the message.
fn pack_narrow(coordinates: impl Iterator<Item = u64>, len: usize, bits: u32) -> Vec<u8> {
    let mask = (1_u64 << bits) - 1;
    let mut bytes = Vec::with_capacity(len * bits as usize / 8 + 4);
    let (mut pending, mut count) = (0_u64, 0);
    for value in coordinates {
        pending |= (value & mask) << count;
        count += bits;
        if count >= 32 {
            bytes.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            count -= 32;
        }
    }
    bytes.extend_from_slice(&pending.to_le_bytes()[..count.div_ceil(8) as usize]);
    bytes
}

/// Hands over the fields of a message in order; the bits above the field are those of later fields.
#[inline]
fn for_each_field(bytes: &[u8], len: usize, bits: u32, mut take: impl FnMut(u32)) {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let mut words = words.iter().chain([&last]).map(|word| u64::from(u32::from_le_bytes(*word)));
    let (mut pending, mut count) = (0_u64, 0);
    for _ in 0..len {
        if count < bits {
            pending |= words.next().unwrap_or(0) << count;
            count += 32;
        }
        take(pending as u32);
        pending >>= bits;
        count -= bits;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wire_form_is_little_endian_in_bits() {
        assert_eq!(pack(&[1, -1, 2], 4), Ok(vec![0xf1, 0x02]));
        assert_eq!(pack(&[-2, 1], 12), Ok(vec![0xfe, 0x1f, 0x00]));
        assert_eq!(pack(&[i32::MIN, 1], 32), Ok(vec![0, 0, 0, 0x80, 1, 0, 0, 0]));
        assert_eq!(pack(&[0, -1, -1], 1), Ok(vec![0b110]));
        assert_eq!(pack(&[], 7), Ok(vec![]));
    }

    #[test]
    fn a_coordinate_that_does_not_fit_is_named() {
        assert_eq!(pack(&[7, 8], 4), Err(PackingError::Overflow { index: 1, value: 8, bits: 4 }));
        assert_eq!(pack(&[-8, -9], 4), Err(PackingError::Overflow { index: 1, value: -9, bits: 4 }));
        assert_eq!(pack(&[0], 0), Err(PackingError::Width { bits: 0 }));
        assert_eq!(unpack(&[], 0, 33), Err(PackingError::Width { bits: 33 }));
    }

    #[test]
    fn bytes_of_another_length_are_refused() {
        assert_eq!(unpack(&[0; 3], 2, 10), Ok(vec![0, 0]));
        assert_eq!(unpack(&[0; 2], 2, 10), Err(PackingError::Length { expected: 3, found: 2 }));
        assert_eq!(unpack(&[0; 4], 2, 10), Err(PackingError::Length { expected: 3, found: 4 }));
        assert_eq!(
            unpack(&[0; 4], usize::MAX, 10),
            Err(PackingError::Length { expected: usize::MAX, found: 4 })
        );
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        for bit in 4..8 {
            assert_eq!(unpack(&[0, 0, 1 << bit], 2, 10), Err(PackingError::Padding));
        }
        assert!(unpack(&[0, 0, 1 << 3], 2, 10).is_ok());
    }

    proptest! {
        #[test]
        fn unpacking_inverts_packing_at_every_width(raw in prop::collection::vec(any::<i32>(), 0..200)) {
            for bits in 1..=32 {
                let vector: Vec<i32> = raw.iter().map(|value| value >> (32 - bits)).collect();
                let packed = pack(&vector, bits).unwrap();
                prop_assert_eq!(Some(packed.len()), packed_len(vector.len(), bits));
                prop_assert_eq!(unpack(&packed, vector.len(), bits).unwrap(), vector);
            }
        }

        #[test]
        fn accepted_bytes_are_the_packed_form_of_what_they_hold(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            bits in 1_u32..=32,
        ) {
            for len in [bytes.len() * 8 / bits as usize, (bytes.len() * 8 / bits as usize).saturating_sub(1)] {
                if let Ok(vector) = unpack(&bytes, len, bits) {
                    prop_assert_eq!(pack(&vector, bits).unwrap(), bytes.clone());
                }
            }
        }
    }
}
