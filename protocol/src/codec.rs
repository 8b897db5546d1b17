//! Control messages to bytes and back: the only module that names bincode.
//!
//! bincode is no longer maintained (RUSTSEC-2025-0141); it is contained here, behind a size limit and a check
//! that every byte was consumed, and only through serde. Nothing is hashed or signed in this encoding.

use bincode::config::{self, Config};
use bincode::error::DecodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The most bytes of an encoded control message.
pub const CONTROL_LIMIT: usize = 256 * 1024;

/// The version of the wire format, in the first byte of every control message.
pub const WIRE_VERSION: u8 = 5;

/// Why bytes are not a control message, or a message cannot be sent.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The message is longer than [`CONTROL_LIMIT`].
    #[error("a control message of {0} bytes is over the limit of {CONTROL_LIMIT}")]
    TooLong(usize),
    /// The peer speaks another version, or not this protocol at all.
    #[error("wire version {0} is not {WIRE_VERSION}: the peer runs another release")]
    Version(u8),
    /// There are no bytes.
    #[error("the message is empty")]
    Empty,
    /// The bytes are no message of this kind.
    #[error("the message is malformed: {0}")]
    Malformed(String),
    /// Bytes follow the message.
    #[error("{0} bytes are left over after the message")]
    LeftOver(usize),
}

/// Encodes a message.
///
/// # Errors
/// [`CodecError::TooLong`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![WIRE_VERSION];
    bincode::serde::encode_into_std_write(message, &mut bytes, wire())
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if bytes.len() > CONTROL_LIMIT {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes a message that must fill `bytes` exactly.
///
/// # Errors
/// [`CodecError`]; nothing larger than the limit is allocated, whatever the bytes claim.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    if bytes.len() > CONTROL_LIMIT {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != WIRE_VERSION {
        return Err(CodecError::Version(version));
    }
    let (message, consumed) = bincode::serde::decode_from_slice(body, wire())
        .map_err(|error: DecodeError| CodecError::Malformed(error.to_string()))?;
    match body.len() - consumed {
        0 => Ok(message),
        left => Err(CodecError::LeftOver(left)),
    }
}

fn wire() -> impl Config {
    config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<CONTROL_LIMIT>()
}
