//! Going on with the ledger of a simulation that was stopped.
//!
//! A checkpoint lags behind the ledger, from which nothing is ever cut off. The rounds after the checkpoint are run
//! again, with the same draws, and what they write must be there already, byte for byte. So no round is charged twice,
//! and no noise is used a second time for a different sum: a run that does not repeat itself is stopped where it differs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_privacy::ledger::{Frames, Hash, Ledger, Record, Signer, Storage, StorageError};
use skep_privacy::prg::Key;
use thiserror::Error;

use super::{Care, LedgerFile, OpenError, Place, key::kept_key, locked};

/// A place in a ledger: behind so many records, the last of which has this hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Records up to here.
    pub records: u64,
    /// The hash of the last of them.
    pub last: Hash,
}

impl Mark {
    /// Where this ledger is now.
    pub fn of(ledger: &Ledger) -> Self {
        Mark { records: ledger.state().size(), last: ledger.state().last() }
    }
}

/// Opens the ledger of a simulation at `mark`, to repeat what follows there and then to go on; `key` and `seeded` are those
/// of [`super::simulated`].
///
/// # Errors
/// [`OpenError`]; [`OpenError::Mark`] when the ledger has never been there.
pub fn resumed(place: &Place, key: &Key, seeded: bool, mark: &Mark) -> Result<Ledger, OpenError> {
    let own = || Arc::new(Signer::from_seed(key.expose()));
    match place {
        Place::Memory => Err(OpenError::Mark { path: PathBuf::new(), records: mark.records }),
        Place::PerRun(path) => open_at(path, Care::of_run(seeded), |_| Ok(own()), mark),
        Place::Shared(path) if seeded => Err(OpenError::Seeded { path: path.clone() }),
        Place::Shared(path) => open_at(path, Care::Synced, kept_key(path), mark),
    }
}

fn open_at(
    path: &Path,
    care: Care,
    signer: impl FnOnce(&[u8]) -> Result<Arc<Signer>, OpenError>,
    mark: &Mark,
) -> Result<Ledger, OpenError> {
    let elsewhere = || OpenError::Mark { path: path.to_owned(), records: mark.records };
    let (file, mut contents) = locked(path)?;
    let signer = signer(&contents)?;
    let mut frames = Frames::new(&contents).map_err(|_| elsewhere())?;
    let records = usize::try_from(mark.records).map_err(|_| elsewhere())?;
    if frames.by_ref().take(records).filter(Result::is_ok).count() != records {
        return Err(elsewhere());
    }
    let written = contents.split_off(frames.offset());
    let storage = LedgerFile { file, care, path: path.to_owned(), cohorts: None };
    let storage = Replay { path: path.to_owned(), written, at: 0, storage };
    let ledger = Ledger::open(&contents, signer, Box::new(storage))
        .map_err(|source| OpenError::Ledger { path: path.to_owned(), source })?;
    if ledger.state().last() == mark.last { Ok(ledger) } else { Err(elsewhere()) }
}

/// A file that holds some of what is going to be appended to it.
struct Replay {
    path: PathBuf,
    written: Vec<u8>,
    at: usize,
    storage: LedgerFile,
}

/// What was appended is not what is there.
#[derive(Debug, Error)]
#[error(
    "{}: the run does not repeat what it wrote before it was stopped. Another run has been charged to this ledger since, the data have changed, \
     or this processor computes otherwise; start anew, without --resume", path.display()
)]
struct Differs {
    path: PathBuf,
}

impl Storage for Replay {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        match &self.written[self.at..] {
            [] => self.storage.append(bytes),
            there if there.starts_with(bytes) => {
                self.at += bytes.len();
                Ok(())
            }
            _ => Err(Differs { path: self.path.clone() }.into()),
        }
    }

    fn keep(&mut self, record: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.storage.keep(record, bytes)
    }

    fn keep_cohort(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        // What is repeated is kept twice, and counts once.
        self.storage.keep_cohort(bytes)
    }

    fn cohorts(&mut self) -> Result<Vec<u8>, StorageError> {
        self.storage.cohorts()
    }

    fn now_ms(&self) -> u64 {
        // The frame's overhead does not matter: only its record is read.
        let next = Frames::behind(&[], &self.written[self.at..]).ok().and_then(|mut frames| frames.next());
        match next.and_then(Result::ok).and_then(|bytes| Record::read(bytes).ok()) {
            Some(record) => record.time_ms,
            None => self.storage.now_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_privacy::ledger::LedgerError;
    use skep_protocol::experiment::Experiment;

    use super::*;
    use crate::ledger::simulated;
    use crate::testing::private_file;

    /// A ledger behind its first record, and what a stopped run wrote after that.
    fn stopped(seeded: bool) -> (tempfile::TempDir, Place, Mark, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.skep");
        let place = Place::PerRun(path.clone());
        let mut ledger =
            simulated(&place, &Experiment::try_from(&private_file()).unwrap(), &Key::from_seed(1), seeded)
                .unwrap();
        let mark = Mark::of(&ledger);
        ledger.seal().unwrap();
        ledger.seal().unwrap();
        drop(ledger);
        (directory, place, mark, std::fs::read(path).unwrap())
    }

    #[test]
    fn what_is_repeated_is_there_once_and_what_follows_is_appended() {
        for seeded in [false, true] {
            let (directory, place, mark, before) = stopped(seeded);
            let mut ledger = resumed(&place, &Key::from_seed(1), seeded, &mark).unwrap();
            let path = directory.path().join("ledger.skep");
            ledger.seal().unwrap();
            ledger.seal().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), before);
            ledger.seal().unwrap();
            assert_eq!(ledger.state().size(), mark.records + 3);
            let after = std::fs::read(&path).unwrap();
            assert!(after.len() > before.len() && after.starts_with(&before));
        }
    }

    #[test]
    fn a_run_that_does_not_repeat_itself_is_stopped() {
        let (directory, place, mark, before) = stopped(true);
        let mut ledger = resumed(&place, &Key::from_seed(1), true, &mark).unwrap();
        let to = Signer::from_seed(&[9; 32]);
        let error = ledger.rotate(to).unwrap_err();
        assert!(matches!(error, LedgerError::Storage(_)), "{error}");
        assert!(error.to_string().contains("does not repeat"), "{error}");
        assert_eq!(std::fs::read(directory.path().join("ledger.skep")).unwrap(), before);
    }

    #[test]
    fn a_ledger_that_has_never_been_there_is_refused() {
        let (_directory, place, mark, _) = stopped(true);
        for wrong in [Mark { records: 9, ..mark }, Mark { last: Hash::ZERO, ..mark }] {
            let error = resumed(&place, &Key::from_seed(1), true, &wrong).unwrap_err();
            assert!(matches!(error, OpenError::Mark { .. }), "{error}");
        }
        let error = resumed(&place, &Key::from_seed(2), true, &mark).unwrap_err();
        assert!(matches!(error, OpenError::Ledger { source: LedgerError::Key { .. }, .. }), "{error}");
    }
}
