//! A client's identity: the key that never leaves it, its certificate, and the server it belongs to.
//!
//! In the client's state directory, readable by its owner alone:
//!
//! | file | holds |
//! | --- | --- |
//! | `identity.key` | the Ed25519 private key, PKCS#8 DER |
//! | `identity.crt` | the client's certificate, DER |
//! | `ca.crt` | the federation's authority, DER |
//! | `server.json` | addresses, client id, the key that signs plans, the last roster; written last, so its presence means enrolled |
//! | `identity.lock` | locked while somebody changes the others |

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::ClientId;
use crate::net::files::{self, FileError};
use crate::net::invitation::{Address, Fingerprint, unix_seconds};
use crate::net::keys::{KeyError, PublicKey, Signature, SigningKey};
use crate::net::roster::{Head, Root};
use crate::net::tls::{self, Credentials, PeerIdentity, TlsError};
use crate::plan::PlanKey;

/// An enrolled client.
#[derive(Debug)]
pub struct Identity {
    key: SigningKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    named: PeerIdentity,
    server: ServerRecord,
}

/// What a client knows of its server, the contents of `server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRecord {
    /// The client that the server knows us as.
    pub client: ClientId,
    /// Where the server listens, tried in this order.
    pub addresses: Vec<Address>,
    /// The key that signs plans.
    pub plan_key: PublicKey,
    /// Where the authority is apart from the server: the last roster of it that this client has seen. None where the server
    /// certifies clients itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<RosterPin>,
}

/// The last roster that a client has seen; it believes no earlier one, and no other one of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterPin {
    /// Its number.
    pub sequence: u64,
    /// Its root; none where only the number is known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
}

impl RosterPin {
    /// Whether `later` may be believed after it.
    pub fn admits(&self, later: &RosterPin) -> bool {
        later.sequence > self.sequence
            || (later.sequence == self.sequence && (self.root.is_none() || later.root == self.root))
    }
}

impl From<&Head> for RosterPin {
    fn from(head: &Head) -> Self {
        RosterPin { sequence: head.sequence, root: Some(head.root) }
    }
}

impl Identity {
    /// Reads the identity in the state directory `directory`.
    ///
    /// # Errors
    /// [`IdentityError::NotEnrolled`] when there is none, others when it is damaged or open to others.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let Some(server) = absent_as_none(files::read(&directory.join(SERVER)))? else {
            return Err(IdentityError::NotEnrolled);
        };
        let server = serde_json::from_slice(&server)
            .map_err(|error| IdentityError::Damaged { file: SERVER, reason: error.to_string() })?;
        let key = SigningKey::from_pkcs8(&files::read(&directory.join(KEY))?)?;
        let certificate = |name| files::read(&directory.join(name)).map(|der| der.to_vec().into());
        Self::assemble(key, certificate(CERTIFICATE)?, certificate(AUTHORITY)?, server)
    }

    /// Puts the parts together and checks that they belong together.
    pub(crate) fn assemble(
        key: SigningKey,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        server: ServerRecord,
    ) -> Result<Self, IdentityError> {
        let named = tls::client_named_by(&certificate)?;
        if named.public_key != key.public_key() {
            return Err(damaged("it is for another key"));
        }
        if named.client != server.client {
            return Err(damaged("it names another client"));
        }
        Ok(Identity { key, certificate, authority, named, server })
    }

    /// Writes all but the key, which [`key_in`] has stored before it was used. The caller holds the directory ([`hold`]).
    pub(crate) fn store(&self, directory: &Path) -> Result<(), IdentityError> {
        let server = to_json(&self.server)?;
        files::replace(&directory.join(CERTIFICATE), &self.certificate)?;
        files::replace(&directory.join(AUTHORITY), &self.authority)?;
        Ok(files::replace(&directory.join(SERVER), &server)?)
    }

    /// The client's id.
    pub fn client(&self) -> ClientId {
        self.named.client
    }

    /// The public half of the identity key.
    pub fn public_key(&self) -> PublicKey {
        self.named.public_key
    }

    /// The federation's authority, whose signature makes certificates good.
    pub fn authority_certificate(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The federation.
    pub fn authority(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &[Address] {
        &self.server.addresses
    }

    /// The key with which the server signs plans.
    pub fn plan_key(&self) -> PlanKey {
        PlanKey(self.server.plan_key.0)
    }

    /// Believes another key from now on, in the state directory `directory`: one to which the key believed so far has handed
    /// over.
    ///
    /// # Errors
    /// [`IdentityError::File`] when that cannot be written.
    pub fn pin(directory: &Path, key: PlanKey) -> Result<(), IdentityError> {
        Self::note(directory, |known| Ok(ServerRecord { plan_key: PublicKey(key.0), ..known }))
    }

    /// Believes no earlier roster from now on, in the state directory `directory`.
    ///
    /// # Errors
    /// [`IdentityError::StaleRoster`] when a later one, or another of that number, was seen before;
    /// [`IdentityError::File`] when it cannot be written.
    pub fn pin_roster(directory: &Path, seen: RosterPin) -> Result<(), IdentityError> {
        Self::note(directory, |known| match known.roster {
            Some(known) if !known.admits(&seen) => {
                Err(IdentityError::StaleRoster { known: known.sequence, shown: seen.sequence })
            }
            _ => Ok(ServerRecord { roster: Some(seen), ..known }),
        })
    }

    /// Nobody else changes the record between its reading and its writing.
    fn note(
        directory: &Path,
        change: impl FnOnce(ServerRecord) -> Result<ServerRecord, IdentityError>,
    ) -> Result<(), IdentityError> {
        let _held = hold(directory)?;
        let server = change(Identity::load(directory)?.server)?;
        Ok(files::replace(&directory.join(SERVER), &to_json(&server)?)?)
    }

    /// The last roster that the client has seen, where its authority is apart from the server.
    pub fn roster(&self) -> Option<RosterPin> {
        self.server.roster
    }

    /// What the server was at enrolment.
    pub(crate) fn server(&self) -> &ServerRecord {
        &self.server
    }

    /// The last second at which the certificate is good, in seconds since 1970.
    pub fn not_after(&self) -> u64 {
        self.named.not_after
    }

    /// True once the certificate is no longer good.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.named.not_after
    }

    /// How long to wait before the certificate is to be renewed: until a third of its time is left.
    pub fn renewal_due_in(&self, now: SystemTime) -> Duration {
        let PeerIdentity { not_before, not_after, .. } = self.named;
        let due = not_after.saturating_sub(not_after.saturating_sub(not_before) / 3);
        Duration::from_secs(due.saturating_sub(unix_seconds(now)))
    }

    /// Signs a canonical text with the identity key.
    pub fn sign(&self, text: &[u8]) -> Signature {
        self.key.sign(text)
    }

    /// The TLS configuration for this client's connections.
    ///
    /// # Errors
    /// [`TlsError`] when the stored certificate is unusable.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let chain = vec![self.certificate.clone(), self.authority.clone()];
        tls::client_config(&self.authority, &Credentials { chain, key: &self.key })
    }
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory holds no identity.
    #[error("this client is not enrolled; join with an invitation first")]
    NotEnrolled,
    /// A file does not read or write.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file was altered.
    #[error("`{file}` of the identity is damaged: {reason}; enrol again in a new directory")]
    Damaged {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A roster is older than one that was seen, or another of the same number.
    #[error("roster {known} of the authority was seen before, so roster {shown} is not believed")]
    StaleRoster {
        /// The number of the one that was seen.
        known: u64,
        /// That of the other.
        shown: u64,
    },
}

/// Waits until nobody else changes the identity in `directory`, and keeps everybody else from it until the result is dropped.
pub(crate) fn hold(directory: &Path) -> Result<File, FileError> {
    files::lock(&directory.join(LOCK))
}

/// What makes way for a new identity in `directory`: an expired one, or nothing. None where it holds one that is still good, or
/// damaged.
pub(crate) fn former(directory: &Path, now: SystemTime) -> Option<Option<Identity>> {
    match Identity::load(directory) {
        Err(IdentityError::NotEnrolled) => Some(None),
        Ok(identity) if identity.has_expired(now) => Some(Some(identity)),
        _ => None,
    }
}

/// The key in `directory`, made now if there is none: on disk before anybody hears of it.
///
/// # Errors
/// [`IdentityError`] when it cannot be made or read.
pub fn key_in(directory: &Path) -> Result<SigningKey, IdentityError> {
    let path = directory.join(KEY);
    if absent_as_none(files::read(&path))?.is_none() {
        match files::create(&path, SigningKey::generate()?.pkcs8()) {
            Err(error) if !error.exists_already() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(SigningKey::from_pkcs8(&files::read(&path)?)?)
}

fn to_json(server: &ServerRecord) -> Result<Vec<u8>, IdentityError> {
    serde_json::to_vec_pretty(server)
        .map_err(|error| IdentityError::Damaged { file: SERVER, reason: error.to_string() })
}

fn absent_as_none<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Err(error) if error.is_absent() => Ok(None),
        other => other.map(Some),
    }
}

fn damaged(reason: &str) -> IdentityError {
    IdentityError::Damaged { file: CERTIFICATE, reason: reason.to_owned() }
}

const KEY: &str = "identity.key";
const CERTIFICATE: &str = "identity.crt";
const AUTHORITY: &str = "ca.crt";
const SERVER: &str = "server.json";
const LOCK: &str = "identity.lock";
