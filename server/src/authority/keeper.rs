//! An authority that is apart from the server, in a directory of its own on a machine of its own.
//!
//! | file | holds |
//! | --- | --- |
//! | `ca.key`, `ca.crt` | as in [the server's own](super) |
//! | `roster.skep` | the newest roster; it is for the server, and for whoever wants to read it |
//! | `lock` | locked while somebody changes the roster |

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use skep_protocol::ClientId;
use skep_protocol::net::enrolment::Der;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::{Fingerprint, unix_seconds};
use skep_protocol::net::keys::{PublicKey, SigningKey};
use skep_protocol::net::roster::{Head, Listed, SignedRoster};

use super::apart::{ROSTER, read};
use super::{Authority, AuthorityError, KEY, create};
use crate::enrolment::EnrolmentError;

/// The authority, and its roster. Whatever changes the roster signs a new one, and writes it before it returns.
#[derive(Debug)]
pub struct Keeper {
    directory: PathBuf,
    authority: Authority,
    key: SigningKey,
    roster: SignedRoster,
    /// Held, not used.
    _lock: File,
}

impl Keeper {
    /// Makes an authority in the directory `directory`, which must not exist yet, with a roster of nobody.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn init(directory: &Path, now: SystemTime) -> Result<Fingerprint, AuthorityError> {
        create(directory, now)?;
        let authority = Authority::load(directory)?;
        let key = SigningKey::from_pkcs8(&files::read(&directory.join(KEY))?)?;
        let roster = SignedRoster {
            authority: Der(authority.certificate().clone()),
            signed: Head::of(&[], 0, unix_seconds(now)).sign(&key),
            server: None,
            members: Vec::new(),
            removed: Vec::new(),
        };
        write(directory, &roster)?;
        Ok(authority.fingerprint())
    }

    /// Opens the authority in `directory`, waiting for whoever has it open.
    ///
    /// # Errors
    /// [`AuthorityError`] when it is none, or its roster is not its own.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let authority = Authority::load(directory)?;
        let lock = files::lock(&directory.join("lock"))?;
        let key = SigningKey::from_pkcs8(&files::read(&directory.join(KEY))?)?;
        let roster = read(&directory.join(ROSTER))?;
        roster.verify(authority.fingerprint())?;
        Ok(Keeper { directory: directory.to_owned(), authority, key, roster, _lock: lock })
    }

    /// The name of the federation.
    pub fn fingerprint(&self) -> Fingerprint {
        self.authority.fingerprint()
    }

    /// The newest roster.
    pub fn roster(&self) -> &SignedRoster {
        &self.roster
    }

    /// Lists a client with this key: as `client`, whose former key loses its place, or under the lowest id above all others.
    ///
    /// # Errors
    /// [`AuthorityError::KeyTwice`], [`AuthorityError::Removed`], [`EnrolmentError::NoIdLeft`], or a failure to sign or write.
    pub fn list(
        &mut self,
        client: Option<ClientId>,
        public_key: PublicKey,
        now: SystemTime,
        validity: Duration,
    ) -> Result<ClientId, AuthorityError> {
        let listed = self.roster.members.iter().map(|listed| listed.client);
        let ever = listed.chain(self.roster.removed.iter().copied()).max();
        let next = || ever.map_or(Some(0), |highest| highest.0.checked_add(1)).map(ClientId);
        let client = client.or_else(next).ok_or(EnrolmentError::NoIdLeft)?;
        if self.roster.removed.contains(&client) {
            return Err(AuthorityError::Removed(client));
        }
        let twice = |listed: &&Listed| listed.public_key == public_key && listed.client != client;
        if let Some(other) = self.roster.members.iter().find(twice) {
            return Err(AuthorityError::KeyTwice(other.client));
        }
        let certificate = Der(self.authority.issue(client, public_key, now, validity)?.certificate);
        let listed = Listed { client, public_key, certificate };
        let mut roster = self.roster.clone();
        match roster.members.binary_search_by_key(&client, |listed| listed.client) {
            Ok(at) => roster.members[at] = listed,
            Err(at) => roster.members.insert(at, listed),
        }
        self.publish(roster, now).map(|()| client)
    }

    /// Certifies the server's key. The certificate of a former server stays good until it expires: to a client that has enrolled before it
    /// lacks the key of plans, but one that enrols believes whichever key of plans the server that it reaches names first.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn certify_server(&mut self, public_key: PublicKey, now: SystemTime) -> Result<(), AuthorityError> {
        let server = Some(Der(self.authority.issue_server(public_key, now)?));
        self.publish(SignedRoster { server, ..self.roster.clone() }, now)
    }

    /// Takes a client out of the roster, for good.
    ///
    /// # Errors
    /// [`AuthorityError::Unlisted`], or a failure to write.
    pub fn remove(&mut self, client: ClientId, now: SystemTime) -> Result<(), AuthorityError> {
        let mut roster = self.roster.clone();
        let at = roster.members.binary_search_by_key(&client, |listed| listed.client);
        roster.members.remove(at.map_err(|_| AuthorityError::Unlisted(client))?);
        roster.removed.push(client);
        self.publish(roster, now)
    }

    /// Gives every member a new certificate for its key.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn renew(&mut self, now: SystemTime, validity: Duration) -> Result<(), AuthorityError> {
        let mut roster = self.roster.clone();
        for listed in &mut roster.members {
            let issued = self.authority.issue(listed.client, listed.public_key, now, validity)?;
            listed.certificate = Der(issued.certificate);
        }
        self.publish(roster, now)
    }

    fn publish(&mut self, roster: SignedRoster, now: SystemTime) -> Result<(), AuthorityError> {
        let sequence = self.roster.signed.head.sequence + 1;
        let signed = Head::of(&roster.members, sequence, unix_seconds(now)).sign(&self.key);
        let roster = SignedRoster { signed, ..roster };
        write(&self.directory, &roster)?;
        self.roster = roster;
        Ok(())
    }
}

fn write(directory: &Path, roster: &SignedRoster) -> Result<(), AuthorityError> {
    let json = serde_json::to_vec(roster).expect("a roster has no maps");
    files::replace(&directory.join(ROSTER), &json)?;
    // It is for others, unlike all else in the directory.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join(ROSTER);
        let failed = |source| FileError { action: "open to others", path: path.clone(), source };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    Ok(())
}
