//! Files that data sets are read from: plain, sealed or compressed with gzip, with lines of bounded length.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::seal::{MAGIC, unsealed};

/// Opens a file of data; what is sealed is decrypted, and what is compressed with gzip is decompressed on the way.
///
/// # Errors
/// What the system says, and [`ErrorKind::InvalidData`] for a sealed file without the secret that opens it: see
/// [`crate::seal::unlock`].
pub fn open(path: &Path) -> Result<Box<dyn Read>> {
    unpacked(File::open(path)?)
}

/// What a source gives; what is sealed is decrypted, and what is compressed with gzip is decompressed on the way.
///
/// # Errors
/// As [`open`].
pub(crate) fn unpacked(source: impl Read + 'static) -> Result<Box<dyn Read>> {
    let mut file = BufReader::new(source);
    if file.fill_buf()?.starts_with(&MAGIC) {
        return decompressed(BufReader::new(unsealed(file)?));
    }
    decompressed(file)
}

fn decompressed(mut file: impl BufRead + 'static) -> Result<Box<dyn Read>> {
    let compressed = file.fill_buf()?.starts_with(&GZIP);
    Ok(if compressed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Passes on what it reads, but no line longer than [`MAX_LINE`]: whoever reads a line at a time keeps it in memory.
pub(crate) struct BoundedLines<R> {
    source: R,
    line: usize,
}

impl<R> BoundedLines<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, line: 0 }
    }
}

impl<R: Read> Read for BoundedLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.source.read(buffer)?;
        self.line = match buffer[..read].iter().rposition(|&byte| byte == b'\n') {
            Some(end) => read - end - 1,
            None => self.line + read,
        };
        if self.line > MAX_LINE {
            return Err(Error::new(
                ErrorKind::InvalidData,
                format!("a line is longer than {} MiB; is this a CSV file?", MAX_LINE >> 20),
            ));
        }
        Ok(read)
    }
}

/// Room for a million columns.
pub(crate) const MAX_LINE: usize = 1 << 24;

const GZIP: [u8; 2] = [0x1f, 0x8b];

#[cfg(test)]
mod tests {
    use std::io::{copy, repeat, sink};

    use super::*;

    #[test]
    fn an_endless_line_is_an_error_and_many_lines_are_none() {
        let endless = copy(&mut BoundedLines::new(repeat(b'1')), &mut sink()).unwrap_err();
        assert!(endless.to_string().contains("longer than 16 MiB"), "{endless}");
        let lines = repeat(b'\n').take(MAX_LINE as u64 + 2);
        assert_eq!(copy(&mut BoundedLines::new(lines), &mut sink()).unwrap(), MAX_LINE as u64 + 2);
    }
}
