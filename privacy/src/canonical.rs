//! The canonical encoding of what is hashed and signed: one value, one byte string.
//!
//! Big-endian integers, IEEE bits for floats, lengths as u32 in front of bytes and lists, a domain tag in
//! front of everything. It depends on no library, so a signature made today can be checked in ten years.

use thiserror::Error;

/// Writes values in canonical form.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Starts an encoding in the domain `tag`, which keeps the bytes of different types apart.
    pub fn new(tag: &str) -> Self {
        let mut writer = Writer(Vec::with_capacity(256));
        writer.bytes(tag.as_bytes());
        writer
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// The IEEE 754 bits, big-endian.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.u64(value.to_bits())
    }

    /// Exactly 32 bytes, without a length.
    pub fn array(&mut self, value: &[u8; 32]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }

    /// A length and the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.0.extend_from_slice(value);
        self
    }

    /// A length and the UTF-8 bytes.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// The length of a list, whose items follow.
    pub fn length(&mut self, length: usize) -> &mut Self {
        self.u32(u32::try_from(length).expect("what is signed is far below 4 GiB"))
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads values that a [`Writer`] wrote, and refuses everything else.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

/// Why bytes are not a canonical encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CanonicalError {
    /// The bytes end inside a value.
    #[error("the encoding ends inside a value")]
    Truncated,
    /// Bytes are left over after the last value.
    #[error("{0} bytes are left over after the encoding")]
    LeftOver(usize),
    /// The encoding belongs to another type or version.
    #[error("the encoding is of another type or version")]
    WrongDomain,
    /// A value lies outside its type's range; the name says which.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
}

impl<'a> Reader<'a> {
    /// Starts to read an encoding in the domain `tag`.
    ///
    /// # Errors
    /// [`CanonicalError::WrongDomain`] when the bytes start otherwise.
    pub fn new(bytes: &'a [u8], tag: &str) -> Result<Self, CanonicalError> {
        let mut reader = Reader(bytes);
        match reader.bytes() {
            Ok(found) if found == tag.as_bytes() => Ok(reader),
            _ => Err(CanonicalError::WrongDomain),
        }
    }

    /// One byte.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`] (also for the methods below).
    pub fn u8(&mut self) -> Result<u8, CanonicalError> {
        Ok(self.fixed::<1>()?[0])
    }

    /// Four bytes, big-endian.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, CanonicalError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    /// Eight bytes, big-endian.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, CanonicalError> {
        Ok(u64::from_be_bytes(self.fixed()?))
    }

    /// IEEE 754 bits, big-endian.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn f64(&mut self) -> Result<f64, CanonicalError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// Exactly 32 bytes.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn array(&mut self) -> Result<[u8; 32], CanonicalError> {
        self.fixed()
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn bytes(&mut self) -> Result<&'a [u8], CanonicalError> {
        let length = self.u32()? as usize;
        let (head, tail) = self.0.split_at_checked(length).ok_or(CanonicalError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// A length and UTF-8 text; `name` says what is out of range when it is not UTF-8.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`] or [`CanonicalError::OutOfRange`].
    pub fn text(&mut self, name: &'static str) -> Result<&'a str, CanonicalError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CanonicalError::OutOfRange(name))
    }

    /// The length of a list whose items take at least `item_bytes` each, so that nothing is allocated for a
    /// length that the remaining bytes cannot hold.
    ///
    /// # Errors
    /// [`CanonicalError::Truncated`].
    pub fn length(&mut self, item_bytes: usize) -> Result<usize, CanonicalError> {
        let length = self.u32()? as usize;
        if length > self.0.len() / item_bytes.max(1) {
            return Err(CanonicalError::Truncated);
        }
        Ok(length)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`CanonicalError::LeftOver`] when bytes remain.
    pub fn finish(self) -> Result<(), CanonicalError> {
        if self.0.is_empty() { Ok(()) } else { Err(CanonicalError::LeftOver(self.0.len())) }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CanonicalError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(CanonicalError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_known_values_is_fixed() {
        let mut writer = Writer::new("t");
        writer.u8(1).u32(2).u64(3).f64(1.5).text("ab");
        assert_eq!(
            writer.finish(),
            [
                0, 0, 0, 1, b't', 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 2, b'a', b'b'
            ]
        );
    }

    #[test]
    fn a_length_that_the_bytes_cannot_hold_is_refused() {
        let mut writer = Writer::new("t");
        writer.u32(u32::MAX);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes, "t").unwrap();
        assert_eq!(reader.length(8), Err(CanonicalError::Truncated));
    }
}
