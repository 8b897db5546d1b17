//! What the owner's data have given away: a list on disk that only grows, one for each data set, over all tasks and servers.
//!
//! A line is added, and on disk, before an update is offered. Beside the list a small file says how long it is and how it
//! ends: a list that is shorter than that was put back to an earlier state, and nothing is agreed to on its grounds.
//!
//! A server's ledger states what all rounds of an epoch together cost, so of each epoch the last stated epsilon counts, and those of
//! different epochs and ledgers are added (basic composition; their deltas add up as well). A plan does not name its epoch: where
//! what a ledger states falls, a new one has begun. One that a client first sees above where it left the last goes unnoticed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use skep_privacy::canonical::{CanonicalError, Reader, Writer};
use skep_privacy::ledger::{FrameError, Frames, Hash, frame};
use skep_privacy::quantities::Epsilon;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::{Digest, Round};
use thiserror::Error;

use crate::privacy_policy::Promised;

/// One participation.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The name of the server's ledger.
    pub ledger: String,
    /// The task.
    pub task: Digest,
    /// The round.
    pub round: Round,
    /// The plan.
    pub plan: Digest,
    /// Noise over sensitivity; 0 without noise.
    pub noise: f64,
    /// As promised, of the whole ledger, against recipients.
    pub epsilon_release: Epsilon,
    /// As promised, of the whole ledger, against the server.
    pub epsilon_server: Epsilon,
    /// The delta of both.
    pub delta: f64,
    /// Records of the ledger at its checkpoint in the plan.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// The list of one data set; nobody else writes it while it is open.
#[derive(Debug)]
pub struct Participations {
    file: File,
    head: PathBuf,
    last: Hash,
    entries: Vec<Entry>,
}

/// What was spent, in total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Total {
    /// Against recipients.
    pub epsilon_release: f64,
    /// Against servers.
    pub epsilon_server: f64,
    /// The delta of both.
    pub delta: f64,
}

/// Why a list cannot be used.
#[derive(Debug, Error)]
pub enum ParticipationsError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The small file beside it cannot be read or written.
    #[error(transparent)]
    Head(#[from] FileError),
    /// Another process takes part with the same data and the same list.
    #[error("{}: another client with these data is running", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The list was changed.
    #[error("{}: the list of participations is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        reason: String,
    },
    /// The list is shorter than it was, or another.
    #[error(
        "{}: the list of participations was put back to an earlier state, so what was spent is not known; restore the latest \
         one, or delete it and its .head to begin anew",
        path.display()
    )]
    RolledBack {
        /// The file.
        path: PathBuf,
    },
}

impl Participations {
    /// Opens the list of the data set called `data` in `directory`, making it on the first call.
    ///
    /// # Errors
    /// [`ParticipationsError`].
    pub fn open(directory: &Path, data: &str) -> Result<Self, ParticipationsError> {
        files::private_directory(directory)?;
        let name = format!("participations-{:.16}", Hash::of(data.as_bytes()).to_string());
        let (path, head) = (directory.join(&name), directory.join(format!("{name}.head")));
        let fail = |source| ParticipationsError::Io { path: path.clone(), source };
        let mut file = files::private().read(true).append(true).create(true).open(&path).map_err(fail)?;
        if let Err(error) = file.try_lock() {
            return Err(match error {
                std::fs::TryLockError::WouldBlock => ParticipationsError::InUse { path },
                std::fs::TryLockError::Error(error) => fail(error),
            });
        }
        let mut contents = Vec::new();
        file.read_to_end(&mut contents).map_err(fail)?;
        let Parsed { hashes, entries, whole } = parse(&path, &contents)?;
        if whole < contents.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(fail)?;
        }
        if contents.is_empty() {
            files::sync_parent(&path).map_err(fail)?;
        }
        if !continues(&head, &hashes)? {
            return Err(ParticipationsError::RolledBack { path });
        }
        let mut participations =
            Participations { file, head, last: hashes.last().copied().unwrap_or(Hash::ZERO), entries };
        if whole == 0 {
            participations.file.write_all(&MAGIC).map_err(fail)?;
        }
        Ok(participations)
    }

    /// Reads the list in the file `path` without taking it from whoever writes it.
    ///
    /// # Errors
    /// [`ParticipationsError`], as for [`Participations::open`].
    pub fn read(path: &Path) -> Result<Vec<Entry>, ParticipationsError> {
        let contents = std::fs::read(path)
            .map_err(|source| ParticipationsError::Io { path: path.to_owned(), source })?;
        let Parsed { hashes, entries, .. } = parse(path, &contents)?;
        if !continues(&path.with_extension("head"), &hashes)? {
            return Err(ParticipationsError::RolledBack { path: path.to_owned() });
        }
        Ok(entries)
    }

    /// Writes down a participation; it is on disk when this returns.
    ///
    /// # Errors
    /// [`ParticipationsError`]; the update must not be sent.
    pub fn add(&mut self, entry: Entry) -> Result<(), ParticipationsError> {
        let bytes = entry.to_bytes(self.last);
        let fail = |source| ParticipationsError::Io { path: self.head.with_extension(""), source };
        files::to_disk(&self.head, &bytes)
            .and_then(|bytes| self.file.write_all(&frame(&bytes)))
            .and_then(|()| self.file.sync_data())
            .map_err(fail)?;
        self.last = Hash::of(&bytes);
        self.entries.push(entry);
        let mut writer = Writer::new(HEAD);
        writer.u64(self.entries.len() as u64).array(&self.last.0);
        Ok(files::replace(&self.head, &writer.finish())?)
    }

    /// Every participation, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the data have taken part by this plan.
    pub fn has(&self, plan: &Digest) -> bool {
        self.entries.iter().any(|entry| entry.plan == *plan)
    }

    /// What was spent with all ledgers.
    pub fn total(&self) -> Total {
        total(&self.entries)
    }

    /// What will be spent with all ledgers after one more participation.
    pub fn total_with(&self, entry: &Entry) -> Total {
        total(self.entries.iter().chain([entry]))
    }
}

impl Entry {
    /// The participation in the round of `plan`, whose checkpoint is of `ledger`.
    pub fn of(plan: &VerifiedPlan, ledger: &skep_privacy::ledger::Checkpoint, time_ms: u64) -> Self {
        let promised = Promised::by(plan.plan());
        Entry {
            time_ms,
            ledger: ledger.origin.clone(),
            task: plan.plan().task,
            round: plan.plan().round,
            plan: plan.digest(),
            noise: promised.noise,
            epsilon_release: promised.epsilon_release,
            epsilon_server: promised.epsilon_server,
            delta: promised.delta,
            size: ledger.size,
            root: ledger.root,
        }
    }

    /// Whether the ledger states less than it did in an earlier entry, as it can only where it has begun to count anew.
    fn is_of_a_later_epoch(&self, earlier: &Entry) -> bool {
        // The same charges added up in another order.
        let falls = |now: Epsilon, then: Epsilon| now.get() < then.get() * (1.0 - 1e-9);
        falls(self.epsilon_release, earlier.epsilon_release)
            || falls(self.epsilon_server, earlier.epsilon_server)
    }

    fn to_bytes(&self, previous: Hash) -> Vec<u8> {
        let mut writer = Writer::new(DOMAIN);
        writer.array(&previous.0).u64(self.time_ms).text(&self.ledger).array(&self.task.0).u64(self.round.0);
        writer
            .array(&self.plan.0)
            .f64(self.noise)
            .f64(self.epsilon_release.get())
            .f64(self.epsilon_server.get());
        writer.f64(self.delta).u64(self.size).array(&self.root.0);
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<(Hash, Self), CanonicalError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        let epsilon = |value| Epsilon::new(value).map_err(|_| CanonicalError::OutOfRange("epsilon"));
        let previous = Hash(reader.array()?);
        let entry = Entry {
            time_ms: reader.u64()?,
            ledger: reader.text("ledger")?.to_owned(),
            task: Digest(reader.array()?),
            round: Round(reader.u64()?),
            plan: Digest(reader.array()?),
            noise: reader.f64()?,
            epsilon_release: epsilon(reader.f64()?)?,
            epsilon_server: epsilon(reader.f64()?)?,
            delta: reader.f64()?,
            size: reader.u64()?,
            root: Hash(reader.array()?),
        };
        reader.finish()?;
        Ok((previous, entry))
    }
}

/// What these entries, in the order of the list, cost together.
fn total<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Total {
    let mut last: BTreeMap<&str, &Entry> = BTreeMap::new();
    let mut ended: Vec<&Entry> = Vec::new();
    for entry in entries {
        ended.extend(last.insert(&entry.ledger, entry).filter(|before| entry.is_of_a_later_epoch(before)));
    }
    ended.into_iter().chain(last.into_values()).fold(
        Total { epsilon_release: 0.0, epsilon_server: 0.0, delta: 0.0 },
        |sum, entry| Total {
            epsilon_release: sum.epsilon_release + entry.epsilon_release.get(),
            epsilon_server: sum.epsilon_server + entry.epsilon_server.get(),
            delta: sum.delta + entry.delta,
        },
    )
}

/// A list as it was read.
#[derive(Default)]
struct Parsed {
    hashes: Vec<Hash>,
    entries: Vec<Entry>,
    /// How many bytes of it are whole.
    whole: usize,
}

/// The list in the file `path`, each entry of which may be encrypted.
fn parse(path: &Path, contents: &[u8]) -> Result<Parsed, ParticipationsError> {
    let damaged = |reason: String| ParticipationsError::Damaged { path: path.to_owned(), reason };
    let mut parsed = Parsed::default();
    let frames = match Frames::behind(&MAGIC, contents) {
        Ok(frames) => frames,
        Err(FrameError::Incomplete { .. }) => return Ok(parsed),
        Err(error) => return Err(damaged(error.to_string())),
    };
    for bytes in frames {
        let bytes = match bytes {
            Ok(bytes) => Zeroizing::new(bytes.to_vec()),
            Err(FrameError::Incomplete { offset, .. }) => return Ok(Parsed { whole: offset, ..parsed }),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let bytes = files::from_disk(path, bytes)
            .map_err(|source| ParticipationsError::Io { path: path.to_owned(), source })?;
        let (previous, entry) = Entry::read(&bytes).map_err(|error| damaged(error.to_string()))?;
        if previous != parsed.hashes.last().copied().unwrap_or(Hash::ZERO) {
            return Err(damaged(format!("entry {} does not follow the one before it", parsed.entries.len())));
        }
        parsed.hashes.push(Hash::of(&bytes));
        parsed.entries.push(entry);
    }
    Ok(Parsed { whole: contents.len(), ..parsed })
}

/// Whether the list is as long as the file beside it says, or by one entry longer, for which that was not yet written.
fn continues(head: &Path, hashes: &[Hash]) -> Result<bool, ParticipationsError> {
    let known = match files::read(head) {
        Err(error) if error.is_absent() => return Ok(hashes.len() <= 1),
        read => read?,
    };
    let read = || {
        let mut reader = Reader::new(&known, HEAD)?;
        Ok::<_, CanonicalError>((reader.u64()?, Hash(reader.array()?)))
    };
    let Ok((size, last)) = read() else { return Ok(false) };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let same = size.checked_sub(1).and_then(|at| hashes.get(at)) == Some(&last);
    Ok(same && hashes.len() <= size + 1)
}

const MAGIC: [u8; 16] = *b"skep-taken-part\n";
const DOMAIN: &str = "skep participations v1";
const HEAD: &str = "skep participations head v1";
