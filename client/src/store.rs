//! A client's store encrypted where it lies: who it is, what its owner's limits were used for, what its data have given away.
//!
//! Each directory has a key of its own, `store.key`, which is sealed with the owner's secret; so a passphrase is stretched once,
//! and clients that share a directory share its key. Everything else in the directory is sealed with that key. Updates and models
//! are in memory only and need none of this.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
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

    /// The key of a directory; where it has none, what `absent` says.
    fn key(&self, directory: &Path, absent: fn(&Self, &Path) -> io::Result<Secret>) -> io::Result<Secret> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(directory) {
            return Ok(key.clone());
        }
        let key = self.kept_key(directory)?.map_or_else(|| absent(self, directory), Ok)?;
        keys.insert(directory.to_owned(), key.clone());
        Ok(key)
    }

    fn kept_key(&self, directory: &Path) -> io::Result<Option<Secret>> {
        match files::read_as_it_is(&directory.join(STORE_KEY)) {
            Ok(sealed) => opened(&sealed, &self.secret)
                .and_then(|line| Secret::from_key_file(&line).map_err(io::Error::other))
                .map_err(|error| io::Error::new(error.kind(), format!("{STORE_KEY} beside it: {error}")))
                .map(Some),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.source),
        }
    }

    /// A new key for a directory in which nothing needs a former one.
    fn new_key(&self, directory: &Path) -> io::Result<Secret> {
        // Another process may have been faster, here and below.
        let kept_by_now = || self.kept_key(directory)?.ok_or_else(missing);
        if self.needs_a_key(directory)? {
            return kept_by_now();
        }
        let key = Secret::generate().map_err(io::Error::other)?;
        let line = key.key_file().unwrap_or_default();
        match files::create_as_it_is(&directory.join(STORE_KEY), &sealed(line.as_bytes(), &self.secret)?) {
            Ok(()) => Ok(key),
            Err(error) if error.exists_already() => kept_by_now(),
            Err(error) => Err(error.source),
        }
    }

    /// Whether anything in a directory is sealed with another secret than the owner's, with which data may be that lie there.
    fn needs_a_key(&self, directory: &Path) -> io::Result<bool> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            let mut file = match File::open(entry.path()) {
                // Another process's temporary file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => BufReader::new(file?),
            };
            if files::is_sealed(file.fill_buf()?) && Unsealed::new(file, &self.secret).is_err() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Cipher for SealedStores {
    fn seal(&self, directory: &Path, contents: &[u8]) -> io::Result<Vec<u8>> {
        sealed(contents, &self.key(directory, Self::new_key)?)
    }

    fn open(&self, directory: &Path, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        opened(sealed, &self.key(directory, |_, _| Err(missing()))?)
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

fn missing() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{STORE_KEY} is missing; restore it: without it nothing that is sealed here can be read"),
    )
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

    #[test]
    fn a_lost_key_is_asked_for_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, secret) = (directory.path(), Secret::from_key([7; 32]));
        // Data that lie there are sealed with the owner's secret itself.
        std::fs::write(path.join("data"), sealed(b"rows", &secret).unwrap()).unwrap();
        let kept = SealedStores::new(secret.clone()).seal(path, b"epsilon 3").unwrap();
        std::fs::write(path.join("usage.json"), &kept).unwrap();
        std::fs::rename(path.join(STORE_KEY), path.join("away")).unwrap();
        std::fs::remove_file(path.join("data")).unwrap();
        let again = SealedStores::new(secret);
        for told in [again.open(path, &kept).unwrap_err(), again.seal(path, b"epsilon 4").unwrap_err()] {
            assert!(told.to_string().starts_with("store.key is missing; restore it"), "{told}");
        }
        assert!(!path.join(STORE_KEY).exists());
        std::fs::rename(path.join("away"), path.join(STORE_KEY)).unwrap();
        assert_eq!(again.open(path, &kept).unwrap().as_slice(), b"epsilon 3");
    }
}
