//! How a running server hears of a revocation at once: a file that only grows, of which it looks at the length.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use skep_protocol::ClientId;
use skep_protocol::net::files::{self, FileError};

use super::EnrolmentError;

/// The revocations since some moment.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    read: u64,
}

impl Revocations {
    pub(super) fn from_now(path: PathBuf) -> Self {
        let read = path.metadata().map_or(0, |metadata| metadata.len());
        Revocations { path, read }
    }

    /// Who has been revoked since the last call; cheap when nobody was.
    ///
    /// # Errors
    /// [`EnrolmentError::File`] when the file does not read.
    pub fn fresh(&mut self) -> Result<Vec<ClientId>, EnrolmentError> {
        let failed = |source| FileError { action: "read", path: self.path.clone(), source };
        match self.path.metadata() {
            Ok(metadata) if metadata.len() > self.read => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => return Ok(Vec::new()),
        }
        let mut text = String::new();
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_string(&mut text)).map_err(failed)?;
        // The rest of a line that is being written is for the next call.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        Ok(text[..whole].lines().filter_map(|line| line.parse().ok()).map(ClientId).collect())
    }
}

pub(super) fn announce(path: &Path, client: ClientId) -> Result<(), EnrolmentError> {
    let append = || {
        files::private().append(true).create(true).open(path)?.write_all(format!("{}\n", client.0).as_bytes())
    };
    append().map_err(|source| FileError { action: "append to", path: path.to_owned(), source }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revocation_is_heard_of_once_from_when_one_began_to_listen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations");
        let mut first = Revocations::from_now(path.clone());
        assert!(first.fresh().unwrap().is_empty());
        announce(&path, ClientId(3)).unwrap();
        let mut second = Revocations::from_now(path.clone());
        announce(&path, ClientId(17)).unwrap();
        assert_eq!(first.fresh().unwrap(), [ClientId(3), ClientId(17)]);
        assert_eq!(second.fresh().unwrap(), [ClientId(17)]);
        assert!(first.fresh().unwrap().is_empty());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"5").unwrap();
        assert!(first.fresh().unwrap().is_empty());
        file.write_all(b"1\n").unwrap();
        assert_eq!(first.fresh().unwrap(), [ClientId(51)]);
    }
}
