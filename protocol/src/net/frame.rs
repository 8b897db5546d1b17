//! What one websocket message holds: a control message, or a piece of something long.
//!
//! | kind | then |
//! | --- | --- |
//! | `1` control | the message, opaque here, at most [`CONTROL_LIMIT`] bytes |
//! | `2` chunk | `transfer` u64, `offset` u64 (both little-endian), then 1 byte to 1 MiB of contents |
//!
//! A model or an update travels as chunks, so that neither side holds more than one of them per connection and a
//! transfer can go on where it broke off. The transfer's number tells late chunks of an abandoned transfer apart;
//! within a session it is the number of the round.

pub use tokio_tungstenite::tungstenite::Bytes;

use crate::codec::CONTROL_LIMIT;

/// The most bytes the contents of a chunk may have: 1 MiB.
pub const CHUNK_LIMIT: usize = 1 << 20;

/// The most bytes a frame may have on the wire: those of a full chunk.
pub const FRAME_LIMIT: usize = CHUNK_LIMIT + CHUNK_HEADER;

/// One message on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message of the protocol, encoded; at most [`CONTROL_LIMIT`] bytes.
    Control(Bytes),
    /// A piece of a transfer.
    Chunk(Chunk),
}

/// A piece of a transfer: `contents` belongs at byte `offset` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The number of the transfer.
    pub transfer: u64,
    /// Where the contents begin, in bytes from the start of the transfer.
    pub offset: u64,
    /// From 1 to [`CHUNK_LIMIT`] bytes.
    pub contents: Bytes,
}

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message without even a kind.
    #[error("an empty message")]
    Empty,
    /// The first byte is neither control nor chunk.
    #[error("a frame of unknown kind {0} (1 is control, 2 is a chunk)")]
    UnknownKind(u8),
    /// A chunk that ends inside its header or holds nothing.
    #[error("a chunk of {0} bytes, which leaves nothing after its header of {CHUNK_HEADER}")]
    EmptyChunk(usize),
    /// More contents than a frame of its kind may carry.
    #[error("a frame with {length} bytes of contents; {limit} are allowed")]
    Oversized {
        /// Bytes of contents.
        length: usize,
        /// How many there may be.
        limit: usize,
    },
    /// `offset` plus the length of the contents exceeds 64 bits.
    #[error("a chunk at offset {0}, past which its contents cannot lie")]
    OffsetOverflow(u64),
}

impl Frame {
    /// The frame's bytes.
    ///
    /// # Errors
    /// [`FrameError`] when the frame breaks a limit that the receiver would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Frame::Control(message) => {
                within(CONTROL_LIMIT, message)?;
                Ok([&[CONTROL], message.as_ref()].concat())
            }
            Frame::Chunk(chunk) => {
                chunk.check()?;
                let numbers = [chunk.transfer.to_le_bytes(), chunk.offset.to_le_bytes()].concat();
                Ok([&[CHUNK], numbers.as_slice(), chunk.contents.as_ref()].concat())
            }
        }
    }

    /// Reads a frame; contents are a view of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`FrameError`] naming what is wrong.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        match bytes.first() {
            None => Err(FrameError::Empty),
            Some(&CONTROL) => {
                let message = bytes.slice(1..);
                within(CONTROL_LIMIT, &message)?;
                Ok(Frame::Control(message))
            }
            Some(&CHUNK) => Chunk::decode(bytes).map(Frame::Chunk),
            Some(&kind) => Err(FrameError::UnknownKind(kind)),
        }
    }
}

impl Chunk {
    fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let number = |at: usize| {
            let eight = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok());
            eight.map(u64::from_le_bytes).ok_or(FrameError::EmptyChunk(bytes.len()))
        };
        let (transfer, offset) = (number(1)?, number(9)?);
        let chunk = Chunk { transfer, offset, contents: bytes.slice(CHUNK_HEADER..) };
        chunk.check()?;
        Ok(chunk)
    }

    fn check(&self) -> Result<(), FrameError> {
        if self.contents.is_empty() {
            return Err(FrameError::EmptyChunk(CHUNK_HEADER));
        }
        within(CHUNK_LIMIT, &self.contents)?;
        let end = self.offset.checked_add(self.contents.len() as u64);
        end.map(drop).ok_or(FrameError::OffsetOverflow(self.offset))
    }
}

fn within(limit: usize, contents: &Bytes) -> Result<(), FrameError> {
    let length = contents.len();
    if length > limit { Err(FrameError::Oversized { length, limit }) } else { Ok(()) }
}

const CONTROL: u8 = 1;
const CHUNK: u8 = 2;
const CHUNK_HEADER: usize = 17;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        Frame::decode(Bytes::copy_from_slice(bytes))
    }

    fn chunk(offset: u64, contents: &[u8]) -> Frame {
        Frame::Chunk(Chunk { transfer: 7, offset, contents: Bytes::copy_from_slice(contents) })
    }

    #[test]
    fn the_bytes_of_each_kind_are_known() {
        let control = Frame::Control(Bytes::from_static(b"hi"));
        assert_eq!(control.encode().unwrap(), b"\x01hi");
        let expected = b"\x02\x07\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0x";
        assert_eq!(chunk(258, b"x").encode().unwrap(), expected);
    }

    #[test]
    fn what_is_not_a_frame_is_refused_by_name() {
        assert_eq!(decode(b""), Err(FrameError::Empty));
        assert_eq!(decode(b"\x03abc"), Err(FrameError::UnknownKind(3)));
        assert_eq!(decode(&[2; 5]), Err(FrameError::EmptyChunk(5)));
        assert_eq!(decode(&[2; 17]), Err(FrameError::EmptyChunk(17)));
        assert_eq!(decode(&[[2; 17].as_slice(), &[255; 8]].concat()).map(drop), Ok(()));
        assert_eq!(decode(&[&[2], [255; 17].as_slice()].concat()), Err(FrameError::OffsetOverflow(u64::MAX)));
    }

    #[test]
    fn a_full_frame_of_each_kind_passes_and_one_byte_more_does_not() {
        let oversized = |limit| FrameError::Oversized { length: limit + 1, limit };
        let full = chunk(0, &[0; CHUNK_LIMIT]);
        let mut bytes = full.encode().unwrap();
        assert_eq!(bytes.len(), FRAME_LIMIT);
        assert_eq!(decode(&bytes), Ok(full));
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(oversized(CHUNK_LIMIT)));
        assert_eq!(chunk(0, &[0; CHUNK_LIMIT + 1]).encode(), Err(oversized(CHUNK_LIMIT)));

        let control = |length| Frame::Control(Bytes::from(vec![1; length]));
        assert_eq!(decode(&[1; CONTROL_LIMIT + 1]), Ok(control(CONTROL_LIMIT)));
        assert_eq!(decode(&[1; CONTROL_LIMIT + 2]), Err(oversized(CONTROL_LIMIT)));
        assert_eq!(control(CONTROL_LIMIT + 1).encode(), Err(oversized(CONTROL_LIMIT)));
    }

    proptest! {
        #[test]
        fn every_frame_that_decodes_encodes_to_the_same_bytes(
            kind in 1u8..=2, body in proptest::collection::vec(any::<u8>(), 17..64),
        ) {
            let bytes = [&[kind], body.as_slice()].concat();
            match decode(&bytes) {
                Ok(frame) => prop_assert_eq!(frame.encode().unwrap(), bytes),
                Err(error) => prop_assert!(matches!(error, FrameError::OffsetOverflow(_)), "{error}"),
            }
        }
    }
}
