//! The bytes of messages: fixed fields without gaps, big-endian numbers, nothing left over.
//!
//! A message begins with the version of the protocol and its kind.

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends too early.
    #[error("the message ends inside of a field")]
    TooShort,
    /// Bytes are left over.
    #[error("{0} bytes are left over at the end of the message")]
    LeftOver(usize),
    /// Another version of the protocol.
    #[error("the message is of version {0}; this one speaks version {VERSION}")]
    Version(u8),
    /// Another kind of message.
    #[error("the message is of kind {found}, but one of kind {expected} is due")]
    Kind {
        /// What is due.
        expected: u8,
        /// What came.
        found: u8,
    },
    /// A list of parties that is not ascending.
    #[error("a list of clients is out of order, or names one twice")]
    Order,
}

/// Version of the protocol.
const VERSION: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Advert = 1,
    Reveal = 2,
}

/// Begins a message.
pub(super) fn message(kind: Kind) -> Vec<u8> {
    vec![VERSION, kind as u8]
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a message of this kind.
    pub(super) fn open(bytes: &'a [u8], kind: Kind) -> Result<Self, WireError> {
        match bytes {
            [VERSION, found, rest @ ..] if *found == kind as u8 => Ok(Self(rest)),
            [VERSION, found, ..] => Err(WireError::Kind { expected: kind as u8, found: *found }),
            [version, ..] if *version != VERSION => Err(WireError::Version(*version)),
            _ => Err(WireError::TooShort),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(WireError::TooShort)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) const fn finish(self) -> Result<(), WireError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(WireError::LeftOver(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_and_not_otherwise() {
        let bytes = [message(Kind::Reveal), vec![0, 7, 9, 9]].concat();
        let mut reader = Reader::open(&bytes, Kind::Reveal).unwrap();
        assert_eq!((reader.u16(), reader.array()), (Ok(7), Ok([9])));
        assert_eq!(reader.u64(), Err(WireError::TooShort));
        assert_eq!(reader.finish(), Err(WireError::LeftOver(1)));
        let refused = |bytes: &[u8]| Reader::open(bytes, Kind::Advert).err();
        assert_eq!(refused(&bytes), Some(WireError::Kind { expected: 1, found: 2 }));
        assert_eq!(refused(&[2, 1]), Some(WireError::Version(2)));
        assert_eq!((refused(&[1]), refused(&[])), (Some(WireError::TooShort), Some(WireError::TooShort)));
    }
}
