//! A client's store encrypted where it lies: who it is, what its owner's limits were used for, what its data have given away.
//!
//! Each directory has a key of its own, `store.key`, which is sealed with the owner's secret; so a passphrase is stretched once,
//! and clients that share a directory share its key. Everything else in the directory is sealed with that key. Updates and models
//! are in memory only and need none of this.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use skep_learning::seal::{Secret, Unsealed, seal};
use skep_protocol::net::files::{self, Cipher};
use zeroize::Zeroizing;

/// Seals stores with an owner's secret.
pub struct SealedStores {
    secret: Secret,
    keys: Mutex<BTreeMap<PathBuf, Secret>>,
}

impl SealedStores {
    /// Stores that are opened with `secret`.
    pub fn new(secret: Secret) -> Self {
        SealedStores { secret, keys: Mutex::default() }
    }

    /// The key of a directory, made on the first call.
    fn key(&self, directory: &Path) -> io::Result<Secret> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(directory) {
            return Ok(key.clone());
        }
        let key = self.kept_key(directory)?;
        keys.insert(directory.to_owned(), key.clone());
        Ok(key)
    }

    fn kept_key(&self, directory: &Path) -> io::Result<Secret> {
        let path = directory.join(STORE_KEY);
        let read = || match files::read_as_it_is(&path) {
            Ok(sealed) => opened(&sealed, &self.secret)
                .and_then(|line| Secret::from_key_file(&line).map_err(io::Error::other))
                .map_err(|error| io::Error::new(error.kind(), format!("{STORE_KEY} beside it: {error}")))
                .map(Some),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.source),
        };
        if let Some(key) = read()? {
            return Ok(key);
        }
        let key = Secret::generate().map_err(io::Error::other)?;
        let line = key.key_file().unwrap_or_default();
        match files::create_as_it_is(&path, &sealed(line.as_bytes(), &self.secret)?) {
            Ok(()) => Ok(key),
            // Another process was faster.
            Err(error) if error.exists_already() => read()?.ok_or_else(|| io::ErrorKind::NotFound.into()),
            Err(error) => Err(error.source),
        }
    }
}

impl Cipher for SealedStores {
    fn seal(&self, directory: &Path, contents: &[u8]) -> io::Result<Vec<u8>> {
        sealed(contents, &self.key(directory)?)
    }

    fn open(&self, directory: &Path, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        opened(sealed, &self.key(directory)?)
    }
}

fn sealed(contents: &[u8], secret: &Secret) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    seal(contents, &mut bytes, secret)?;
    Ok(bytes)
}

fn opened(sealed: &[u8], secret: &Secret) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut contents = Zeroizing::new(Vec::with_capacity(sealed.len()));
    io::copy(&mut Unsealed::new(sealed, secret)?, &mut *contents)?;
    Ok(contents)
}

const STORE_KEY: &str = "store.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_in_a_directory_is_opened_there_with_its_secret_and_nowhere_else() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = Secret::from_key([7; 32]);
        let contents = b"epsilon 3";
        let sealed = SealedStores::new(secret.clone()).seal(one.path(), contents).unwrap();
        assert!(files::is_sealed(&sealed) && !sealed.windows(7).any(|window| window == b"epsilon"));
        // Another process of the same owner.
        let again = SealedStores::new(secret);
        assert_eq!(again.open(one.path(), &sealed).unwrap().as_slice(), contents);
        assert!(again.open(other.path(), &sealed).is_err(), "another directory has another key");
        let stranger = SealedStores::new(Secret::from_key([8; 32]));
        let told = stranger.open(one.path(), &sealed).unwrap_err().to_string();
        assert!(told.starts_with("store.key beside it: this file is sealed with another secret"), "{told}");
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(again.open(one.path(), &changed).is_err());
    }
}
