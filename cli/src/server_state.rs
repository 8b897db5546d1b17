//! What the command keeps in a server's state directory, beside what `skep-server` keeps there.
//!
//! | path | holds |
//! | --- | --- |
//! | `lock` | locked for as long as a server runs on the directory |
//! | `addresses.json` | where clients reach the server, as `skep serve` last said; `skep invite` reads it |
//! | `status.json` | what the server is doing, or did last; `skep status` reads it |
//! | `operator.jsonl` | which client was in which round; see [`crate::operator_log`] |
//! | `rounds/experiment.toml` | the experiment that the journal beside it belongs to |
//! | `rounds/` | the journal of rounds and the last model |

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use skep_protocol::experiment::Experiment;
use skep_protocol::net::files;
use skep_protocol::net::invitation::Address;
use skep_server::journal::Journal;

use crate::experiment_file;
use crate::failure::Failure;

/// Keeps every other server off the directory until it is dropped, by whatever end of the process.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it is held, not used")] File);

/// Takes the state directory for a server, making it if need be.
///
/// # Errors
/// [`Failure::Usage`] when a server runs on it, [`Failure::Other`] when it cannot be used.
pub(crate) fn lock(state: &Path) -> Result<Lock, Failure> {
    files::private_directory(state).map_err(Failure::other)?;
    let (path, file) = lock_file(state)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            // Whoever looks whether a server runs holds the lock for a moment.
            Err(TryLockError::WouldBlock) if began.elapsed() < A_MOMENT => thread::sleep(A_MOMENT / 20),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Usage {
                    problem: format!("a server is running on {}", state.display()),
                    help: Some("stop it first, or give this one a state directory of its own".to_owned()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file(path, error)),
        }
    }
}

/// Whether a server runs on the directory.
///
/// # Errors
/// [`Failure::Other`] when it is no state directory, or cannot be looked at.
pub(crate) fn is_running(state: &Path) -> Result<bool, Failure> {
    let (path, file) = lock_file(state)?;
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(Failure::file(path, error)),
    }
}

fn lock_file(state: &Path) -> Result<(PathBuf, File), Failure> {
    let path = state.join("lock");
    let file = files::private()
        .read(true)
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|error| Failure::file(&path, error))?;
    Ok((path, file))
}

/// Opens the journal of this experiment's rounds.
///
/// # Errors
/// [`Failure::Usage`] when the journal is another experiment's, [`Failure::Other`] when it cannot be read or written.
pub(crate) fn journal(state: &Path, experiment: &Experiment) -> Result<Journal, Failure> {
    let directory = state.join("rounds");
    files::private_directory(&directory).map_err(Failure::other)?;
    let path = directory.join("experiment.toml");
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = experiment_file::to_toml(experiment);
            files::replace(&path, text.as_bytes()).map_err(Failure::other)?;
        }
        Err(error) => return Err(Failure::file(path, error)),
        Ok(text) => {
            let known = experiment_file::parse(&path.display().to_string(), &text)?;
            if experiment_file::to_toml(&known) != experiment_file::to_toml(experiment) {
                return Err(another_experiment(&known, &directory));
            }
        }
    }
    Journal::open(&directory).map_err(Failure::other)
}

fn another_experiment(known: &Experiment, directory: &Path) -> Failure {
    Failure::Usage {
        problem: format!(
            "{} holds the rounds of another experiment, or of other settings of \"{}\"",
            directory.display(),
            known.name
        ),
        help: Some(format!(
            "go on with {}; or, to begin anew with the same clients, move that directory away",
            directory.join("experiment.toml").display()
        )),
    }
}

/// Writes down where clients reach the server.
///
/// # Errors
/// [`Failure::Other`] when the file cannot be written.
pub(crate) fn remember_addresses(state: &Path, addresses: &[Address]) -> Result<(), Failure> {
    let json = serde_json::to_vec(addresses).map_err(Failure::other)?;
    files::replace(&state.join(ADDRESSES), &json).map_err(Failure::other)
}

/// Where clients reach the server, as it last said.
///
/// # Errors
/// [`Failure::Usage`] when it never said so, [`Failure::Other`] when the file is damaged.
pub(crate) fn addresses(state: &Path) -> Result<Vec<Address>, Failure> {
    let path = state.join(ADDRESSES);
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|error| Failure::Other(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::Usage {
            problem: format!("{} does not say where the server listens", state.display()),
            help: Some("start `skep serve` with this state first, or say --address HOST:PORT".to_owned()),
        }),
        Err(error) => Err(Failure::file(path, error)),
    }
}

/// Refuses a directory that no server or invitation has made.
///
/// # Errors
/// [`Failure::Usage`].
pub(crate) fn must_be_one(state: &Path) -> Result<(), Failure> {
    if state.join("clients").is_dir() {
        return Ok(());
    }
    Err(Failure::Usage {
        problem: format!("{} is not the state directory of a server", state.display()),
        help: Some("name the directory that `skep serve` was given with --state".to_owned()),
    })
}

/// Writes what the server is doing. Seen whole or not at all; not worth a wait for the disk.
pub(crate) fn write_status(state: &Path, json: &[u8]) -> io::Result<()> {
    let (unfinished, path) = (state.join(".status.json"), state.join(STATUS));
    let mut file = files::private().write(true).create(true).truncate(true).open(&unfinished)?;
    io::Write::write_all(&mut file, json)?;
    fs::rename(unfinished, path)
}

/// What the server was last doing; none if it never said.
///
/// # Errors
/// [`Failure::Other`] when the file cannot be read.
pub(crate) fn read_status(state: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let path = state.join(STATUS);
    match fs::read(&path) {
        Ok(json) => Ok(Some(json)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file(path, error)),
    }
}

const A_MOMENT: Duration = Duration::from_millis(500);
const ADDRESSES: &str = "addresses.json";
const STATUS: &str = "status.json";
