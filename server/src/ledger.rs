//! The ledger's file, and which ledger a federation keeps.
//!
//! One process writes a ledger at a time: it holds a lock on the file, which the system lets go of when the process ends,
//! however it ends. A record is appended with one write. In a deployment it is on disk, with the directory entry of a
//! new file, before anything happens because of it; the ledger of a simulation is not synced, because nobody's privacy
//! hangs on it.

mod key;
mod replay;

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use skep_privacy::canonical::Writer;
use skep_privacy::ledger::{
    Auditor, FrameError, Frames, Genesis, Hash, Ledger, LedgerError, Memory, Population, Provenance,
    PublicKey, Signer, Storage, StorageError,
};
use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::unix_millis;
use thiserror::Error;
use tracing::warn;

use self::key::kept_key;
use crate::federation::{self, FederationError};

pub use key::{checkpoint, participants_keys, rotate};
pub use replay::{Mark, resumed};

/// Where a simulation keeps its ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Nowhere: its budget begins and ends with the run.
    Memory,
    /// In a file that this run begins anew.
    PerRun(PathBuf),
    /// In a file that all runs over this population share, with its key beside it in `NAME.key`.
    Shared(PathBuf),
}

/// Why there is no ledger.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file or the key cannot be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key beside a shared ledger cannot be used.
    #[error(transparent)]
    Key(#[from] FileError),
    /// The ledger is there and its key is not.
    #[error("{}: the key of the ledger is missing; restore it from where it was kept, nobody else can go on with the ledger", path.display())]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Another process keeps the ledger.
    #[error("{}: another process keeps this ledger; two at once could both spend what is left", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is in the file is no ledger of this key.
    #[error("{}: {source}", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LedgerError,
    },
    /// A simulation was not stopped with this ledger.
    #[error("{}: this is not the ledger that the run was stopped with, {records} records and more; start anew, without --resume", path.display())]
    Mark {
        /// The file.
        path: PathBuf,
        /// Records that it had when the run was written down.
        records: u64,
    },
    /// The experiment has no ledger.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// A seeded run would spend a budget that others rely on.
    #[error(
        "a run with a seed hides nothing, so it cannot be charged to {}: leave out --seed or population.ledger",
        path.display()
    )]
    Seeded {
        /// The ledger.
        path: PathBuf,
    },
}

/// The file behind a [`Ledger`]; the lock lasts as long as it is open.
#[derive(Debug)]
struct LedgerFile {
    file: File,
    care: Care,
    path: PathBuf,
    /// Open from its first use on.
    cohorts: Option<File>,
}

/// What is taken care of beyond the records themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Records are on disk before anything happens because of them.
    Synced,
    /// The system writes them when it likes.
    Buffered,
    /// As above, and they bear no time: the same run gives the same bytes.
    Timeless,
}

impl Care {
    /// What the ledger of one simulation deserves.
    const fn of_run(seeded: bool) -> Self {
        if seeded { Care::Timeless } else { Care::Buffered }
    }
}

impl Storage for LedgerFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all(bytes)?;
        if self.care == Care::Synced {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn keep(&mut self, record: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let beside = seals(&self.path);
        files::private_directory(&beside)?;
        Ok(files::replace(&beside.join(record.to_string()), bytes)?)
    }

    fn keep_cohort(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let file = match &mut self.cohorts {
            Some(file) => file,
            none => {
                let path = cohorts(&self.path);
                let file = files::private().read(true).append(true).create(true).open(&path)?;
                if self.care == Care::Synced {
                    files::sync_parent(&path)?;
                }
                none.insert(file)
            }
        };
        file.write_all(bytes)?;
        if self.care == Care::Synced {
            file.sync_data()?;
        }
        Ok(())
    }

    fn cohorts(&mut self) -> Result<Vec<u8>, StorageError> {
        let path = cohorts(&self.path);
        let mut contents = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        // The record of a cohort that was never written whole was not written either.
        if let Ok((_, whole)) = skep_privacy::ledger::cohorts(&contents)
            && whole < contents.len()
        {
            let file = files::private().write(true).open(&path)?;
            file.set_len(whole as u64)?;
            file.sync_all()?;
            contents.truncate(whole);
        }
        Ok(contents)
    }

    fn now_ms(&self) -> u64 {
        if self.care == Care::Timeless {
            return 0;
        }
        unix_millis(SystemTime::now())
    }
}

/// Opens the ledger of a deployment, or begins it, with an auditor of its noise if there is to be one. An incomplete last record is cut off: nobody was told of it.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    path: &Path,
    experiment: &Experiment,
    federation: Hash,
    auditor: Option<Auditor>,
) -> Result<Ledger, OpenError> {
    let population = population(experiment, federation);
    open_file(path, Care::Synced, kept_key(path), || {
        Ok(Genesis { auditor, ..genesis(experiment, population, Provenance::Deployment)? })
    })
}

/// The population of a deployment: the clients that `federation`, by its fingerprint, numbers.
pub fn population(experiment: &Experiment, federation: Hash) -> Population {
    let clients = experiment.population.clients;
    let mut roster = Writer::new("skep roster v1");
    roster.array(&federation.0).u64(clients);
    Population { root: Hash::of(&roster.finish()), size: clients }
}

/// The ledger of a simulation; `key` is that of [`Purpose::Ledger`], `seeded` whether others know what it follows from.
///
/// [`Purpose::Ledger`]: skep_privacy::prg::Purpose::Ledger
///
/// # Errors
/// [`OpenError`].
pub fn simulated(
    place: &Place,
    experiment: &Experiment,
    key: &Key,
    seeded: bool,
) -> Result<Ledger, OpenError> {
    let provenance = if seeded { Provenance::SeededSimulation } else { Provenance::Simulation };
    let begin = || genesis(experiment, simulated_population(experiment), provenance);
    let own = || Arc::new(Signer::from_seed(key.expose()));
    match place {
        Place::Memory => {
            let storage = Box::new(Memory::default());
            Ledger::create(begin()?, own(), storage)
                .map_err(|source| OpenError::Ledger { path: PathBuf::new(), source })
        }
        Place::PerRun(path) => {
            for path in [path.to_owned(), cohorts(path)] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(&path)(error));
                    }
                    _ => {}
                }
            }
            open_file(path, Care::of_run(seeded), |_| Ok(own()), begin)
        }
        Place::Shared(path) if seeded => Err(OpenError::Seeded { path: path.clone() }),
        Place::Shared(path) => open_file(path, Care::Synced, kept_key(path), begin),
    }
}

/// Who is in a simulation: a population is the same in two runs when its clients hold the same data.
fn simulated_population(experiment: &Experiment) -> Population {
    let clients = experiment.population.clients;
    let mut roster = Writer::new("skep simulated roster v1");
    let file = ExperimentFile::from(experiment);
    let data = serde_json::to_string(&(&file.task.data, &file.population.partition));
    roster.text(&data.expect("what is read from text can be written as text"));
    roster.u64(experiment.seed).u64(clients);
    Population { root: Hash::of(&roster.finish()), size: clients }
}

fn genesis(
    experiment: &Experiment,
    population: Population,
    provenance: Provenance,
) -> Result<Genesis, OpenError> {
    Ok(Genesis {
        origin: format!("skep/{:.32}", population.root.to_string()),
        population,
        // The ledger puts its own key here.
        key: PublicKey([0; 32]),
        provenance,
        terms: federation::terms(experiment)?,
        auditor: None,
        software: concat!("skep ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

fn open_file(
    path: &Path,
    care: Care,
    signer: impl FnOnce(&[u8]) -> Result<Arc<Signer>, OpenError>,
    begin: impl FnOnce() -> Result<Genesis, OpenError>,
) -> Result<Ledger, OpenError> {
    let (file, contents) = locked(path)?;
    let signer = signer(&contents)?;
    if contents.is_empty() && care == Care::Synced {
        files::sync_parent(path).map_err(failed(path))?;
    }
    let storage = Box::new(LedgerFile { file, care, path: path.to_owned(), cohorts: None });
    let opened = if contents.is_empty() {
        Ledger::create(begin()?, signer, storage)
    } else {
        Ledger::open(&contents, signer, storage)
    };
    opened.map_err(|source| OpenError::Ledger { path: path.to_owned(), source })
}

/// The file, which no other process writes from now on, and its whole records.
fn locked(path: &Path) -> Result<(File, Vec<u8>), OpenError> {
    let fail = failed(path);
    let mut file = files::private().read(true).append(true).create(true).open(path).map_err(&fail)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::InUse { path: path.to_owned() },
        TryLockError::Error(error) => fail(error),
    })?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents).map_err(&fail)?;
    let whole = whole_records(&contents);
    if whole < contents.len() {
        let lost = contents.len() - whole;
        warn!(path = %path.display(), bytes = lost, "the last record was never written whole, and is cut off");
        file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(&fail)?;
        file.seek(io::SeekFrom::End(0)).map_err(&fail)?;
        contents.truncate(whole);
    }
    Ok((file, contents))
}

/// Bytes at the beginning of a file up to an incomplete last record. Everything else that is wrong with it is left for
/// [`Ledger::open`] to say, and nothing of it is cut off.
pub fn whole_records(contents: &[u8]) -> usize {
    let mut frames = match Frames::new(contents) {
        Ok(frames) => frames,
        Err(FrameError::Incomplete { .. }) => return 0,
        Err(_) => return contents.len(),
    };
    match frames.find_map(Result::err) {
        // A ledger without its first record has never been used.
        Some(FrameError::Incomplete { record: 0, .. }) => 0,
        Some(FrameError::Incomplete { offset, .. }) => offset,
        _ => contents.len(),
    }
}

/// The directory in which the seals of a ledger lie, one file for the record of each release.
pub fn seals(ledger: &Path) -> PathBuf {
    beside(ledger, ".seals")
}

/// The list of who was invited to each round, where participation limits need it. As secret as cohorts have to be.
pub fn cohorts(ledger: &Path) -> PathBuf {
    beside(ledger, ".cohorts")
}

fn beside(ledger: &Path, name: &str) -> PathBuf {
    let mut path = ledger.to_owned();
    path.as_mut_os_string().push(name);
    path
}

fn failed(path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::File { path: path.clone(), source }
}
