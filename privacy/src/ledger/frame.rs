//! Records in a file, each between its length and its checksum, so that a record that was never written whole is told
//! from one that was changed later.
//!
//! ```text
//! file    16 bytes of MAGIC, then frames
//! frame   length (u32)   CRC-32 of those 4 bytes   record   CRC-32 of the record          all big-endian
//! ```
//!
//! The checksums tell accidents apart; they keep nobody from changing anything. That is what signatures are for.

use thiserror::Error;

/// How every ledger file begins.
pub const MAGIC: [u8; 16] = *b"skep-ledger-v1\n\n";

/// Bytes of the longest record.
pub const MAX_RECORD: usize = 1 << 20;

/// Why the next record of a file cannot be read. Records are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The file begins otherwise.
    #[error("the file does not begin as a ledger does")]
    Header,
    /// The file ends inside its last record: the process that wrote it was stopped before the record was on disk. Nobody
    /// was told of it.
    #[error(
        "the last record, number {record}, is incomplete: its {found} bytes at offset {offset} are not a whole record"
    )]
    Incomplete {
        /// Its number.
        record: u64,
        /// Where it begins.
        offset: usize,
        /// Bytes of it that are there.
        found: usize,
    },
    /// The record was changed after it was written.
    #[error("record {record} at offset {offset} is damaged: its checksum does not hold")]
    Damaged {
        /// Its number.
        record: u64,
        /// Where it begins.
        offset: usize,
    },
}

/// The frame of one record, as it is appended to the file.
///
/// # Panics
/// On a record longer than [`MAX_RECORD`]; no record of this crate is.
#[must_use]
pub fn frame(record: &[u8]) -> Vec<u8> {
    assert!(record.len() <= MAX_RECORD, "a record of {} bytes", record.len());
    let length = (record.len() as u32).to_be_bytes();
    let mut frame = Vec::with_capacity(record.len() + OVERHEAD);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&crc32(&length).to_be_bytes());
    frame.extend_from_slice(record);
    frame.extend_from_slice(&crc32(record).to_be_bytes());
    frame
}

/// The records of a whole file, in order, up to the first that cannot be read.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
    record: u64,
    over: bool,
}

impl<'a> Frames<'a> {
    /// Reads the ledger whose file holds `bytes`.
    ///
    /// # Errors
    /// [`FrameError::Header`] when it is no ledger; [`FrameError::Incomplete`] when it ends inside its header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FrameError> {
        Self::behind(&MAGIC, bytes)
    }

    /// Reads a file of frames that begins otherwise than a ledger.
    ///
    /// # Errors
    /// [`FrameError::Header`] when it does not begin with `header`; [`FrameError::Incomplete`] when it ends inside that.
    pub fn behind(header: &[u8], bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() < header.len() && header.starts_with(bytes) {
            return Err(FrameError::Incomplete { record: 0, offset: 0, found: bytes.len() });
        }
        if !bytes.starts_with(header) {
            return Err(FrameError::Header);
        }
        Ok(Self { bytes, offset: header.len(), record: 0, over: false })
    }

    /// Where the next record begins; after the last one, where the readable part of the file ends.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    fn read(&mut self) -> Result<&'a [u8], FrameError> {
        let rest = &self.bytes[self.offset..];
        let incomplete =
            FrameError::Incomplete { record: self.record, offset: self.offset, found: rest.len() };
        let damaged = FrameError::Damaged { record: self.record, offset: self.offset };
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Err(incomplete) };
        let Some((checksum, after)) = after.split_first_chunk::<4>() else { return Err(incomplete) };
        if is_zero(rest) {
            // Some file systems give a file its new length before its new contents.
            return Err(incomplete);
        }
        let record_len = u32::from_be_bytes(*length) as usize;
        if crc32(length).to_be_bytes() != *checksum || record_len > MAX_RECORD {
            return Err(damaged);
        }
        let Some((record, after)) = after.split_at_checked(record_len) else { return Err(incomplete) };
        let Some((checksum, after)) = after.split_first_chunk::<4>() else { return Err(incomplete) };
        if crc32(record).to_be_bytes() != *checksum {
            let lost = after.is_empty() && is_zero(&rest[rest.len().saturating_sub(ZERO_TAIL)..]);
            return Err(if lost { incomplete } else { damaged });
        }
        self.offset += record_len + OVERHEAD;
        self.record += 1;
        Ok(record)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over || self.offset == self.bytes.len() {
            return None;
        }
        let record = self.read();
        self.over = record.is_err();
        Some(record)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The checksum of Ethernet and zip: polynomial 0x04C11DB7, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

const CRC_TABLE: [u32; 256] = crc_table();
/// Bytes of a frame beside its record.
const OVERHEAD: usize = 12;
/// A record ends in a signature and a checksum; so many zeros at its end are not there by chance.
const ZERO_TAIL: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[&[u8]]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        records.iter().for_each(|record| file.extend(frame(record)));
        file
    }

    /// Reads what can be read, and what ended the reading.
    fn read(bytes: &[u8]) -> (Vec<&[u8]>, Option<FrameError>) {
        let mut frames = match Frames::new(bytes) {
            Ok(frames) => frames,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut records = Vec::new();
        let error = frames.try_for_each(|record| record.map(|record| records.push(record))).err();
        (records, error)
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_file_cut_anywhere_keeps_every_whole_record_and_says_that_the_last_is_incomplete() {
        let records: [&[u8]; 3] = [b"first", b"", b"third record"];
        let whole = file(&records);
        let ends: Vec<usize> = (0..=3).map(|count| file(&records[..count]).len()).collect();
        for cut in 0..=whole.len() {
            let (read, error) = read(&whole[..cut]);
            let complete = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            assert_eq!(read, records[..complete], "{cut}");
            if ends.contains(&cut) {
                assert_eq!(error, None, "{cut}");
            } else {
                let record = complete as u64;
                assert!(
                    matches!(error, Some(FrameError::Incomplete { record: r, .. }) if r == record),
                    "{cut}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_grew_without_its_contents_ends_in_an_incomplete_record() {
        let good = file(&[b"first"]);
        let mut zeros = good.clone();
        zeros.extend([0; 100]);
        let mut lost = file(&[b"first", &[7; 64]]);
        let length = lost.len();
        lost[length - 40..].fill(0);
        for bytes in [zeros, lost] {
            let (records, error) = read(&bytes);
            assert_eq!(records, [b"first"]);
            assert!(matches!(error, Some(FrameError::Incomplete { record: 1, .. })), "{error:?}");
        }
    }

    #[test]
    fn no_changed_bit_makes_a_whole_record_count_as_incomplete() {
        let good = file(&[&[7; 70], &[9; 64]]);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let (_, error) = read(&bad);
                assert!(
                    matches!(error, Some(FrameError::Header | FrameError::Damaged { .. })),
                    "byte {at}, bit {bit}: {error:?}"
                );
            }
        }
    }
}
