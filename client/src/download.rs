//! The base model as it comes in: exactly the announced bytes, in order, with the plan's digest.

use skep_protocol::net::frame::Chunk;
use skep_protocol::{Digest, Hasher, Round};
use thiserror::Error;

/// A base model on its way in.
#[derive(Debug)]
pub(crate) struct Download {
    round: Round,
    digest: Digest,
    len: u64,
    received: Option<Received>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    hasher: Hasher,
}

/// Why what comes is not the base model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum BadModel {
    #[error("the server announces {announced} bytes, the task's model has {expected}")]
    Length { expected: u64, announced: u64 },
    #[error("the server announces another model than its plan")]
    Announced,
    #[error("a chunk begins at byte {found} instead of {expected}")]
    Offset { expected: u64, found: u64 },
    #[error("a chunk ends at byte {end}, but the model has only {len}")]
    TooLong { end: u64, len: u64 },
    #[error("the bytes do not have the digest in the plan")]
    Digest,
}

impl Download {
    /// Expects the model `digest` of a round, `parameters` numbers.
    pub(crate) fn new(round: Round, digest: Digest, parameters: u64) -> Self {
        Download { round, digest, len: parameters * BYTES_PER_PARAMETER, received: None }
    }

    pub(crate) fn round(&self) -> Round {
        self.round
    }

    /// The server says what comes; anything before is forgotten.
    pub(crate) fn announced(&mut self, len: u64, digest: Digest) -> Result<(), BadModel> {
        if len != self.len {
            return Err(BadModel::Length { expected: self.len, announced: len });
        }
        if digest != self.digest {
            return Err(BadModel::Announced);
        }
        self.received = Some(Received::default());
        Ok(())
    }

    /// Takes a chunk; the bytes of the model when this was the last one. A chunk of another transfer is passed over:
    /// it was under way when that one ended.
    pub(crate) fn take(&mut self, chunk: &Chunk) -> Result<Option<Vec<u8>>, BadModel> {
        let Some(received) = self.received.as_mut().filter(|_| chunk.transfer == self.round.0) else {
            return Ok(None);
        };
        let expected = received.bytes.len() as u64;
        if chunk.offset != expected {
            return Err(BadModel::Offset { expected, found: chunk.offset });
        }
        let end = expected + chunk.contents.len() as u64;
        if end > self.len {
            return Err(BadModel::TooLong { end, len: self.len });
        }
        if received.bytes.is_empty() {
            // All at once, so that the buffer is never moved; the system gives the pages as they are written.
            received.bytes.reserve_exact(usize::try_from(self.len).unwrap_or(0));
        }
        received.hasher.update(&chunk.contents);
        received.bytes.extend_from_slice(&chunk.contents);
        if end < self.len {
            return Ok(None);
        }
        let whole = self.received.take().unwrap_or_default();
        if whole.hasher.finish() == self.digest { Ok(Some(whole.bytes)) } else { Err(BadModel::Digest) }
    }
}

/// The parameters in little-endian bytes.
pub(crate) fn parameters(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

const BYTES_PER_PARAMETER: u64 = 4;

#[cfg(test)]
mod tests {
    use skep_protocol::net::frame::Bytes;

    use super::*;

    const MODEL: [f32; 3] = [1.0, -2.5, 0.1];

    fn bytes() -> Vec<u8> {
        MODEL.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn chunk(offset: u64, contents: &[u8]) -> Chunk {
        Chunk { transfer: 1, offset, contents: Bytes::copy_from_slice(contents) }
    }

    fn announced() -> Download {
        let mut download = Download::new(Round(1), Digest::of_model(&MODEL), 3);
        download.announced(12, Digest::of_model(&MODEL)).unwrap();
        download
    }

    #[test]
    fn a_model_in_pieces_of_any_size_is_read_back() {
        for size in 1..=12 {
            let mut download = announced();
            let mut whole = None;
            for (number, piece) in bytes().chunks(size).enumerate() {
                assert_eq!(whole, None);
                whole = download.take(&chunk((number * size) as u64, piece)).unwrap();
            }
            assert_eq!(parameters(&whole.unwrap()), MODEL);
        }
    }

    #[test]
    fn what_is_not_the_planned_model_is_named() {
        let digest = Digest::of_model(&MODEL);
        let mut download = Download::new(Round(1), digest, 3);
        let length = BadModel::Length { expected: 12, announced: 16 };
        assert_eq!(download.announced(16, digest), Err(length));
        assert_eq!(download.announced(12, Digest::of(b"other")), Err(BadModel::Announced));
        let mut altered = bytes();
        altered[5] ^= 1;
        assert_eq!(announced().take(&chunk(0, &altered)), Err(BadModel::Digest));
        let late = BadModel::Offset { expected: 0, found: 4 };
        assert_eq!(announced().take(&chunk(4, &bytes())), Err(late));
        let longer = [bytes(), vec![0]].concat();
        assert_eq!(announced().take(&chunk(0, &longer)), Err(BadModel::TooLong { end: 13, len: 12 }));
    }

    #[test]
    fn a_second_announcement_begins_anew() {
        let mut download = announced();
        assert_eq!(download.take(&chunk(0, &bytes()[..5])), Ok(None));
        download.announced(12, Digest::of_model(&MODEL)).unwrap();
        assert_eq!(download.take(&chunk(0, &bytes())), Ok(Some(bytes())));
    }

    #[test]
    fn chunks_of_another_transfer_or_before_the_announcement_are_passed_over() {
        let mut unannounced = Download::new(Round(1), Digest::of_model(&MODEL), 3);
        assert_eq!(unannounced.take(&chunk(0, &bytes())), Ok(None));
        let stale = Chunk { transfer: 2, ..chunk(0, &bytes()) };
        assert_eq!(announced().take(&stale), Ok(None));
    }
}
