//! The federation's authority: the Ed25519 key whose certificate is the federation, and what it signs.
//!
//! Made on the first start in `authority/` of the server's state directory, all of it or nothing:
//!
//! | file | holds |
//! | --- | --- |
//! | `ca.key` | the authority's private key, PKCS#8 DER |
//! | `ca.crt` | its self-signed certificate, DER; the SHA-256 of it is the federation's fingerprint |
//!
//! The key that signs plans and records is not here: it belongs to the ledger ([`crate::ledger`]), so that whoever certifies
//! clients cannot make a plan that was not charged.
//!
//! Whoever reads this directory is the federation: back it up and keep it closed.
//!
//! An authority may be apart from the server, so that whoever runs that cannot make up clients: then [`keeper`] is the authority, on
//! a machine of its own, and the server has what it signed and no more ([`install`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use skep_protocol::ClientId;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::Fingerprint;
use skep_protocol::net::keys::{KeyError, PublicKey, SigningKey};
use skep_protocol::net::roster::RosterError;
use skep_protocol::net::tls::{self, Credentials, PeerIdentity, SERVER_NAME, Serial, TlsError};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::enrolment::EnrolmentError;

mod apart;
pub mod keeper;

use apart::Apart;
pub use apart::{install, read, request};

/// How long a client's certificate is good unless the operator says otherwise: 30 days.
pub const CLIENT_VALIDITY: Duration = Duration::from_secs(30 * DAY);

/// Signs certificates for one federation.
#[derive(Debug)]
pub struct Authority {
    signer: Signer,
    certificate: CertificateDer<'static>,
}

/// Where the authority's key is.
#[derive(Debug)]
enum Signer {
    /// Here.
    Here(Box<Issuer<'static, KeyPair>>),
    /// Elsewhere.
    Apart(Box<Apart>),
}

impl Authority {
    /// Opens the authority in the state directory `state`, making it on the first call. Of several processes that do so
    /// at once, all end up with the same one.
    ///
    /// # Errors
    /// [`AuthorityError`] when a file is unreadable, open to others, or not what belongs there.
    pub fn open(state: &Path) -> Result<Self, AuthorityError> {
        let directory = state.join(DIRECTORY);
        if !directory.exists() {
            files::private_directory(state)?;
            match create(&directory, SystemTime::now()) {
                Err(AuthorityError::File(error)) if error.exists_already() => {}
                result => result?,
            }
        }
        Self::load(&directory)
    }

    fn load(directory: &Path) -> Result<Self, AuthorityError> {
        if let Some(apart) = Apart::load(directory)? {
            let certificate = apart.prover().roster().authority.0.clone();
            return Ok(Authority { signer: Signer::Apart(Box::new(apart)), certificate });
        }
        let key = key_pair(&SigningKey::from_pkcs8(&files::read(&directory.join(KEY))?)?)?;
        let certificate = CertificateDer::from(files::read(&directory.join(CERTIFICATE))?.to_vec());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Authority { signer: Signer::Here(Box::new(issuer)), certificate })
    }

    /// Whether its key is not here, so that whoever runs the server cannot make up clients.
    pub fn is_apart(&self) -> bool {
        matches!(self.signer, Signer::Apart(_))
    }

    /// Looks whether an authority that is apart has signed a newer roster.
    pub fn refresh(&self) {
        if let Signer::Apart(apart) = &self.signer {
            apart.refresh();
        }
    }

    /// What shows its peers who a client is, whose connection is by this key and certificate. Where the authority is apart it is the
    /// certificate in the roster that rounds go by and the place there; none if that lists no such client, or another key of it.
    pub fn introduction(
        &self,
        client: ClientId,
        public_key: PublicKey,
        certificate: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let Signer::Apart(apart) = &self.signer else { return Some(certificate) };
        let prover = apart.prover();
        let listed = prover.roster().member(client).filter(|listed| listed.public_key == public_key)?;
        // A connection may be older than its client's newest certificate.
        Some(prover.membership(client, &listed.certificate.0)?.to_bytes())
    }

    /// The certificate of a client that an authority that is apart has listed, and its key.
    pub fn listed(&self, client: ClientId) -> Option<(CertificateDer<'static>, PublicKey)> {
        let Signer::Apart(apart) = &self.signer else { return None };
        let newest = apart.newest();
        let listed = newest.roster().member(client).cloned()?;
        Some((listed.certificate.0, listed.public_key))
    }

    fn issuer(&self) -> Result<&Issuer<'static, KeyPair>, AuthorityError> {
        match &self.signer {
            Signer::Here(issuer) => Ok(issuer),
            Signer::Apart(_) => Err(AuthorityError::Apart),
        }
    }

    /// The name of the federation, which every invitation carries.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The TLS configuration of a server of this federation. Its key and certificate are new and live in memory only, unless the
    /// authority is apart; the certificate is good for as long as the authority's.
    ///
    /// # Errors
    /// [`AuthorityError`] when signing fails or the parts do not fit together.
    pub fn server_tls(&self) -> Result<Arc<ServerConfig>, AuthorityError> {
        let (key, certificate) = match &self.signer {
            Signer::Apart(apart) => {
                let server = apart.prover().roster().server.clone().ok_or(AuthorityError::NoServer)?;
                (SigningKey::from_pkcs8(apart.key.pkcs8())?, server.0)
            }
            Signer::Here(_) => {
                let key = SigningKey::generate()?;
                let certificate = self.issue_server(key.public_key(), SystemTime::now())?;
                (key, certificate)
            }
        };
        let chain = vec![certificate, self.certificate.clone()];
        Ok(tls::server_config(&self.certificate, &Credentials { chain, key: &key })?)
    }

    /// Certifies that `public_key` is a server's of this federation.
    fn issue_server(
        &self,
        public_key: PublicKey,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = leaf(SERVER_NAME, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = CertificateParams::new(vec![SERVER_NAME.to_owned()])?.subject_alt_names;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + AUTHORITY_VALIDITY).into();
        Ok(params.signed_by(&Subject(public_key), self.issuer()?)?.der().clone())
    }

    /// Certifies that `public_key` is `client`'s, from an hour before `now` (clocks differ; less if the certificate is good
    /// for less) to `validity` after it.
    ///
    /// # Errors
    /// [`AuthorityError`] when signing fails.
    pub fn issue(
        &self,
        client: ClientId,
        public_key: PublicKey,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Issued, AuthorityError> {
        let mut params = leaf(&client.to_string(), ExtendedKeyUsagePurpose::ClientAuth)?;
        params.not_before = (now - CLOCK_SKEW.min(validity)).into();
        params.not_after = (now + validity).into();
        let certificate = params.signed_by(&Subject(public_key), self.issuer()?)?.der().clone();
        let identity = tls::client_named_by(&certificate)?;
        Ok(Issued { certificate, identity })
    }
}

/// A client's certificate, and what it says.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// What a server reads from it.
    pub identity: PeerIdentity,
}

/// Why the authority cannot be opened or cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file does not read or write.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A certificate cannot be made or read.
    #[error("the authority's certificate or key is unusable: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate does not serve for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key is elsewhere.
    #[error("the authority of this server is apart, and certifies clients itself: `skep ca sign` there")]
    Apart,
    /// The server has asked to be certified, and has no answer yet.
    #[error(
        "the authority of this server is apart and has not certified it yet: take the line of `skep ca request --server` there, and \
         install the roster that it signs with `skep ca install`"
    )]
    NoRoster,
    /// The key is here.
    #[error("this server has an authority of its own; one that is apart needs another state directory")]
    HasItsOwn,
    /// Nobody has said which authority is the right one.
    #[error("this server knows no authority yet: give the fingerprint that `skep ca init` printed with --ca")]
    NotPinned,
    /// Another authority is known.
    #[error("this server's authority is {known}, not {pinned}")]
    OtherPin {
        /// The authority so far.
        known: Fingerprint,
        /// The other.
        pinned: Fingerprint,
    },
    /// A newer roster is known.
    #[error("the roster is number {found}, and number {known} is installed")]
    Older {
        /// Of the roster.
        found: u64,
        /// Of the newest that is known.
        known: u64,
    },
    /// The roster has no server.
    #[error(
        "the roster has no certificate for a server: take the line of `skep ca request --server` to the authority"
    )]
    NoServer,
    /// The roster is for another server.
    #[error("the roster certifies another server's key, not the one in this state directory")]
    OtherServer,
    /// The roster is not believed.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// A file holds something else.
    #[error("{} is no roster: {reason}", path.display())]
    NotARoster {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two clients cannot have one key.
    #[error("this key is listed as {0}'s")]
    KeyTwice(ClientId),
    /// The client is no member.
    #[error("{0} is not in the roster")]
    Unlisted(ClientId),
    /// The client was a member, and will not be one again.
    #[error("{0} was removed for good; list the key under another number")]
    Removed(ClientId),
    /// The list of clients cannot be written.
    #[error(transparent)]
    Enrolment(Box<EnrolmentError>),
}

impl From<EnrolmentError> for AuthorityError {
    fn from(error: EnrolmentError) -> Self {
        AuthorityError::Enrolment(Box::new(error))
    }
}

/// A public key that somebody else holds the private half of.
struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

fn create(directory: &Path, now: SystemTime) -> Result<(), AuthorityError> {
    let key = SigningKey::generate()?;
    let mut params = CertificateParams::default();
    // A name of its own lets a client tell another federation's certificate from a forged one of ours.
    params.distinguished_name = common_name(&format!("skep federation {}", key.public_key()));
    params.serial_number = Some(SerialNumber::from_slice(&Serial::generate()?.0));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + AUTHORITY_VALIDITY).into();
    let certificate = params.self_signed(&key_pair(&key)?)?;
    let files = [(KEY, key.pkcs8()), (CERTIFICATE, certificate.der().as_ref())];
    Ok(files::create_directory_of(directory, &files)?)
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(SerialNumber::from_slice(&Serial::generate()?.0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn key_pair(key: &SigningKey) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.pkcs8()), &PKCS_ED25519)
}

const DIRECTORY: &str = "authority";
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.crt";
const DAY: u64 = 24 * 60 * 60;
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * DAY);
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_opened_afterwards() {
        let state = tempfile::tempdir().unwrap();
        let first = Authority::open(state.path()).unwrap();
        let second = Authority::open(state.path()).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert!(!state.path().join("authority/plan.key").exists(), "plans are the ledger's");
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(Authority::open(elsewhere.path()).unwrap().fingerprint(), first.fingerprint());
    }

    #[test]
    fn processes_that_start_together_share_one_authority() {
        let state = tempfile::tempdir().unwrap();
        let fingerprints: Vec<Fingerprint> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Authority::open(state.path()).unwrap().fingerprint()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(fingerprints.iter().all(|one| *one == fingerprints[0]));
    }

    #[test]
    fn a_certificate_says_who_which_key_and_how_long() {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(state.path()).unwrap();
        let key = SigningKey::generate().unwrap().public_key();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = authority.issue(ClientId(17), key, now, CLIENT_VALIDITY).unwrap().identity;
        assert_eq!(first.client, ClientId(17));
        assert_eq!(first.public_key, key);
        assert_eq!(first.not_after, 1_800_000_000 + 30 * DAY);
        let second = authority.issue(ClientId(17), key, now, CLIENT_VALIDITY).unwrap().identity;
        assert_ne!(first.serial, second.serial);
    }

    #[test]
    fn peers_are_believed_for_the_authoritys_sake_alone_and_while_their_certificates_last() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, others) =
            (Authority::open(state.path()).unwrap(), Authority::open(elsewhere.path()).unwrap());
        let key = SigningKey::generate().unwrap().public_key();
        let now = SystemTime::now();
        let issue = |authority: &Authority| {
            authority.issue(ClientId(3), key, now, CLIENT_VALIDITY).unwrap().certificate
        };
        let verifier = tls::PeerVerifier::new(ours.certificate()).unwrap();
        let peer = verifier.verify(&issue(&ours), now).unwrap();
        assert_eq!((peer.client, peer.public_key), (ClientId(3), key));
        assert!(verifier.verify(&issue(&others), now).is_err());
        assert!(verifier.verify(&issue(&ours), now + CLIENT_VALIDITY + CLOCK_SKEW).is_err());
        // The authority's own certificate is no client's, nor is a server's.
        assert!(verifier.verify(ours.certificate(), now).is_err());
        assert!(verifier.verify(b"no certificate", now).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_authority_is_closed_to_others_and_refuses_to_open_otherwise() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        Authority::open(state.path()).unwrap();
        let directory = state.path().join(DIRECTORY);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for name in [KEY, CERTIFICATE] {
            assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
        }
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(directory.join(KEY), open).unwrap();
        assert!(matches!(Authority::open(state.path()), Err(AuthorityError::File(_))));
    }
}
