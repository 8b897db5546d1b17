//! The ledger's key on disk, which signs records, checkpoints and plans and lies with the ledger and nowhere else.
//!
//! | file | holds |
//! | --- | --- |
//! | `NAME.key` | the private key, 32 bytes of seed |
//! | `NAME.key.next` | while the ledger is handed over: the key that follows |
//! | `NAME.participants` | of each earlier key, what makes pseudonyms; it signs nothing |
//!
//! The next key is on disk before the record that hands over to it, and takes the place of the old one after that. Whatever
//! moment a process is stopped at, the key that the ledger is kept by is in one of the first two files.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use skep_privacy::ledger::{Ledger, ParticipantsKey, PublicKey, Signer, replay};
use skep_protocol::net::files;
use tracing::info;
use zeroize::Zeroizing;

use super::{Care, LedgerFile, OpenError, beside, failed, locked, whole_records};

/// The key of the ledger at `path`, whose records are given when it is asked for; made with the first of them.
pub(super) fn kept_key(path: &Path) -> impl FnOnce(&[u8]) -> Result<Arc<Signer>, OpenError> + use<> {
    let path = path.to_owned();
    move |contents| {
        let key = beside(&path, KEY);
        adopt(&path)?;
        finish_rotation(&path, contents)?;
        if !key.exists() {
            if !contents.is_empty() {
                return Err(OpenError::KeyMissing { path: key });
            }
            match files::create(&key, fresh_seed(&key)?.as_slice()) {
                Err(error) if !error.exists_already() => return Err(error.into()),
                _ => {}
            }
        }
        read(&key).map(Arc::new)
    }
}

/// Hands the ledger at `path` over to a new key, which this makes, and says which it is. No other process may be writing.
/// The private half of the old one is gone afterwards.
///
/// # Errors
/// [`OpenError`].
pub fn rotate(path: &Path) -> Result<PublicKey, OpenError> {
    if !path.exists() {
        return Err(failed(path)(io::Error::other("there is no ledger yet, and so nothing to hand over")));
    }
    let (file, contents) = locked(path)?;
    let old = kept_key(path)(&contents)?;
    let fail = |source| OpenError::Ledger { path: path.to_owned(), source };
    let storage = LedgerFile { file, care: Care::Synced, path: path.to_owned(), cohorts: None };
    let mut ledger = Ledger::open(&contents, Arc::clone(&old), Box::new(storage)).map_err(fail)?;
    let next = beside(path, NEXT);
    let seed = fresh_seed(&next)?;
    files::replace(&next, seed.as_slice())?;
    let earlier = earlier_participants(path)?;
    let text: String = earlier.iter().chain([old.participants()]).map(|key| hex(key) + "\n").collect();
    files::replace(&beside(path, PARTICIPANTS), text.as_bytes())?;
    let key = Signer::from_seed(&seed);
    let public = key.key();
    ledger.rotate(key).map_err(fail)?;
    take_over(path)?;
    Ok(public)
}

/// A signed checkpoint of the ledger at `path`, which another process may be writing.
///
/// # Errors
/// [`OpenError`].
pub fn checkpoint(path: &Path) -> Result<String, OpenError> {
    let contents = fs::read(path).map_err(failed(path))?;
    let whole = &contents[..whole_records(&contents)];
    let (state, _) =
        replay(whole, |_, _, _| {}).map_err(|source| OpenError::Ledger { path: path.to_owned(), source })?;
    let signer = current(path)?;
    if signer.key() != state.key() {
        return Err(failed(&beside(path, KEY))(io::Error::other(
            "this is not the key that the ledger is kept by",
        )));
    }
    Ok(state.checkpoint().sign(&signer))
}

/// What makes the pseudonyms of clients in the ledger at `path`: of each earlier key, then of the one that keeps it.
///
/// # Errors
/// [`OpenError`].
pub fn participants_keys(path: &Path) -> Result<Vec<ParticipantsKey>, OpenError> {
    let mut keys = earlier_participants(path)?;
    keys.push(current(path)?.participants().clone());
    Ok(keys)
}

fn current(path: &Path) -> Result<Signer, OpenError> {
    let (key, before) = (beside(path, KEY), before(path));
    read(if !key.exists() && before.exists() { &before } else { &key })
}

/// Takes a key from where earlier versions kept it, with those that certify clients.
fn adopt(path: &Path) -> Result<(), OpenError> {
    let (key, before) = (beside(path, KEY), before(path));
    if key.exists() || !before.exists() {
        return Ok(());
    }
    read(&before)?;
    fs::rename(&before, &key).map_err(failed(&before))?;
    for moved in [&key, &before] {
        files::sync_parent(moved).map_err(failed(moved))?;
    }
    info!(from = %before.display(), to = %key.display(), "the key of plans lies with the ledger now");
    Ok(())
}

fn before(path: &Path) -> std::path::PathBuf {
    path.with_file_name("authority").join("plan.key")
}

/// A process that was stopped while it handed the ledger over has left two keys, of which the ledger says which holds.
fn finish_rotation(path: &Path, contents: &[u8]) -> Result<(), OpenError> {
    let next = beside(path, NEXT);
    if !next.exists() {
        return Ok(());
    }
    let kept_by = replay(contents, |_, _, _| {}).map(|(state, _)| state.key());
    if kept_by.is_ok_and(|key| read(&next).is_ok_and(|next| next.key() == key)) {
        return take_over(path);
    }
    fs::remove_file(&next).map_err(failed(&next))
}

fn take_over(path: &Path) -> Result<(), OpenError> {
    let (key, next) = (beside(path, KEY), beside(path, NEXT));
    fs::rename(&next, &key).and_then(|()| files::sync_parent(&key)).map_err(failed(&next))
}

fn read(path: &Path) -> Result<Signer, OpenError> {
    let kept = files::read(path)?;
    let seed = <&[u8; 32]>::try_from(kept.as_slice())
        .map_err(|_| failed(path)(io::Error::other("holds no key of 32 bytes")))?;
    Ok(Signer::from_seed(seed))
}

fn fresh_seed(path: &Path) -> Result<Zeroizing<[u8; 32]>, OpenError> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(seed.as_mut()).map_err(|_| failed(path)(io::Error::other("no randomness")))?;
    Ok(seed)
}

fn earlier_participants(path: &Path) -> Result<Vec<ParticipantsKey>, OpenError> {
    let path = beside(path, PARTICIPANTS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read(&path)?;
    let damaged =
        || failed(&path)(io::Error::other("is damaged: it holds a key of 64 hexadecimal digits a line"));
    let text = str::from_utf8(&text).map_err(|_| damaged())?;
    text.lines()
        .map(|line| skep_privacy::ledger::parse_key(line).map_err(|_| damaged()))
        .map(|key| key.map(|key| ParticipantsKey::from_bytes(key.0)))
        .collect()
}

fn hex(key: &ParticipantsKey) -> String {
    PublicKey(*key.expose()).to_string()
}

const KEY: &str = ".key";
const NEXT: &str = ".key.next";
const PARTICIPANTS: &str = ".participants";

#[cfg(test)]
mod tests {
    use skep_privacy::audit::{Given, Verdict, audit};
    use skep_privacy::ledger::Hash;
    use skep_protocol::experiment::Experiment;

    use super::*;
    use crate::ledger::open;
    use crate::testing::private_file;

    fn opened(path: &Path) -> Result<Ledger, OpenError> {
        open(path, &Experiment::try_from(&private_file()).unwrap(), Hash::ZERO, None)
    }

    #[test]
    fn a_rotated_ledger_goes_on_with_the_new_key_and_passes_its_audit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.skep");
        assert!(rotate(&path).is_err() && !path.exists(), "no ledger yet");
        let first = opened(&path).unwrap().signer().key();
        assert!(matches!(rotate_beside_a_writer(&path), OpenError::InUse { .. }));
        let second = rotate(&path).unwrap();
        let mut ledger = opened(&path).unwrap();
        assert_eq!((ledger.signer().key(), ledger.rotations().len()), (second, 1));
        ledger.seal().unwrap();
        drop(ledger);
        let note = checkpoint(&path).unwrap();
        let given = Given {
            keys: vec![first],
            checkpoints: vec![("the checkpoint".to_owned(), note)],
            every_signature: true,
            ..Given::default()
        };
        let report = audit(&fs::read(&path).unwrap(), &given);
        assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
        assert_eq!(participants_keys(&path).unwrap().len(), 2);
    }

    fn rotate_beside_a_writer(path: &Path) -> OpenError {
        let _writer = opened(path).unwrap();
        rotate(path).unwrap_err()
    }

    #[test]
    fn a_rotation_that_is_interrupted_leaves_the_key_that_the_ledger_is_kept_by() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.skep");
        let first = opened(&path).unwrap().signer().key();
        let (key, next) = (beside(&path, KEY), beside(&path, NEXT));
        let old = fs::read(&key).unwrap();
        // Stopped before the record: the next key is forgotten.
        files::replace(&next, &[3; 32]).unwrap();
        assert_eq!(opened(&path).unwrap().signer().key(), first);
        assert!(!next.exists());
        // Stopped behind the record: the next key takes over.
        let second = rotate(&path).unwrap();
        fs::rename(&key, &next).unwrap();
        files::replace(&key, &old).unwrap();
        assert_eq!(opened(&path).unwrap().signer().key(), second);
        // A key that is lost is not replaced by another.
        fs::remove_file(&key).unwrap();
        assert!(matches!(opened(&path), Err(OpenError::KeyMissing { .. })));
    }

    #[test]
    fn a_key_is_taken_from_where_earlier_versions_kept_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.skep");
        let first = opened(&path).unwrap().signer().key();
        files::private_directory(&directory.path().join("authority")).unwrap();
        fs::rename(beside(&path, KEY), before(&path)).unwrap();
        assert!(checkpoint(&path).is_ok(), "beside a server of an earlier version");
        assert_eq!(opened(&path).unwrap().signer().key(), first);
        assert!(!before(&path).exists() && beside(&path, KEY).exists());
    }
}
