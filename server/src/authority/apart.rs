//! The server's side of an authority that is apart: what it has signed is here, its key is not.
//!
//! In `authority/` of the server's state directory:
//!
//! | file | holds | made by |
//! | --- | --- | --- |
//! | `server.key` | the server's private key, PKCS#8 DER | `request` |
//! | `roster.skep` | the newest roster, with everybody's certificates | `install` |

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::Fingerprint;
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::listing::{Holder, KeyRequest};
use skep_protocol::net::roster::{Prover, SignedRoster};
use skep_protocol::net::tls;
use tracing::warn;

use super::{AuthorityError, DIRECTORY, KEY};
use crate::enrolment::Enrolment;

/// What an authority that is apart has signed.
#[derive(Debug)]
pub(super) struct Apart {
    path: PathBuf,
    pub(super) key: SigningKey,
    /// What rounds go by.
    current: RwLock<Arc<Prover>>,
    installed: Mutex<Installed>,
}

/// The roster that was installed last.
#[derive(Debug)]
struct Installed {
    /// Of the file, when it was read.
    changed: Option<(SystemTime, u64)>,
    prover: Arc<Prover>,
}

impl Apart {
    /// Reads it from `directory`; none where no authority is apart.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let (path, key) = (directory.join(ROSTER), directory.join(SERVER_KEY));
        if directory.join(KEY).exists() || !key.exists() {
            return Ok(None);
        }
        if !path.exists() {
            return Err(AuthorityError::NoRoster);
        }
        let (changed, key) = (changed(&path), SigningKey::from_pkcs8(&files::read(&key)?)?);
        let roster = read(&path)?;
        roster.verify(Fingerprint::of(&roster.authority.0))?;
        let prover = Arc::new(Prover::new(roster));
        let current = RwLock::new(Arc::clone(&prover));
        Ok(Some(Apart { path, key, current, installed: Mutex::new(Installed { changed, prover }) }))
    }

    /// The roster that rounds go by.
    pub(super) fn prover(&self) -> Arc<Prover> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The roster that was installed last, which rounds may not go by yet. One that cannot be read or believed is passed over.
    pub(super) fn newest(&self) -> Arc<Prover> {
        let mut installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = changed(&self.path);
        if changed != installed.changed {
            installed.changed = changed;
            let authority = Fingerprint::of(&installed.prover.roster().authority.0);
            let read = read(&self.path).and_then(|roster| {
                roster.verify(authority)?;
                Ok(roster)
            });
            match read {
                Ok(roster) => installed.prover = Arc::new(Prover::new(roster)),
                Err(error) => warn!(%error, "the installed roster is not used"),
            }
        }
        Arc::clone(&installed.prover)
    }

    /// Has rounds go by it.
    pub(super) fn refresh(&self) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = self.newest();
    }
}

/// When a file was written, and how long it is.
fn changed(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The line by which the server of the state directory `state` asks an authority that is apart to certify it. Makes its key on the
/// first call.
///
/// # Errors
/// [`AuthorityError::HasItsOwn`] where the server has an authority of its own, or a failure of the file system.
pub fn request(state: &Path) -> Result<KeyRequest, AuthorityError> {
    let directory = state.join(DIRECTORY);
    if directory.join(KEY).exists() {
        return Err(AuthorityError::HasItsOwn);
    }
    files::private_directory(&directory)?;
    let path = directory.join(SERVER_KEY);
    match files::create(&path, SigningKey::generate()?.pkcs8()) {
        Err(error) if !error.exists_already() => return Err(error.into()),
        _ => {}
    }
    Ok(KeyRequest::new(Holder::Server, &SigningKey::from_pkcs8(&files::read(&path)?)?))
}

/// Puts a roster into the state directory `state`: its members may connect from then on, and whoever was a member and is none any more may not. The
/// first must be of the authority with the fingerprint `pinned`, all others of the same and not older. A running server sees it before
/// its next round.
///
/// # Errors
/// [`AuthorityError`]; nothing has changed unless it is a failure of the file system.
pub fn install(
    state: &Path,
    roster: &SignedRoster,
    pinned: Option<Fingerprint>,
) -> Result<(), AuthorityError> {
    let path = state.join(DIRECTORY).join(ROSTER);
    let key = request(state)?.public_key;
    let known = if path.exists() { Some(read(&path)?) } else { None };
    let authority = known.as_ref().map(|known| Fingerprint::of(&known.authority.0)).or(pinned);
    let authority = authority.ok_or(AuthorityError::NotPinned)?;
    roster.verify(authority)?;
    if let Some(pinned) = pinned.filter(|pinned| *pinned != authority) {
        return Err(AuthorityError::OtherPin { known: authority, pinned });
    }
    let (new, known) = (roster.signed.head, known.map(|known| known.signed.head));
    if let Some(known) = known.filter(|known| new.sequence < known.sequence) {
        return Err(AuthorityError::Older { found: new.sequence, known: known.sequence });
    }
    let server = roster.server.as_ref().ok_or(AuthorityError::NoServer)?;
    if tls::certified_key(&server.0)? != key {
        return Err(AuthorityError::OtherServer);
    }
    let enrolment = Enrolment::open(state)?;
    roster.members.iter().try_for_each(|listed| enrolment.list(listed))?;
    files::replace(&path, &serde_json::to_vec(roster).expect("a roster has no maps"))?;
    // By what is signed, not by what is said of it: whoever was a member and is none any more.
    let former = enrolment.roster()?.0.into_iter().map(|enrolled| enrolled.client);
    former
        .filter(|&client| roster.member(client).is_none())
        .try_for_each(|client| enrolment.revoke(client))?;
    Ok(())
}

/// Reads a roster, without believing it.
///
/// # Errors
/// [`AuthorityError::File`], [`AuthorityError::NotARoster`].
pub fn read(path: &Path) -> Result<SignedRoster, AuthorityError> {
    let failed = |source| FileError { action: "read", path: path.to_owned(), source };
    let contents = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&contents)
        .map_err(|error| AuthorityError::NotARoster { path: path.to_owned(), reason: error.to_string() })
}

pub(super) const ROSTER: &str = "roster.skep";
const SERVER_KEY: &str = "server.key";
