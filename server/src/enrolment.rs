//! Who may become a client, and who has: invitations and the roster, one small file each.
//!
//! In the server's state directory:
//!
//! | path | holds | made by |
//! | --- | --- | --- |
//! | `invitations/<digest>.invited` | client id and expiry, under the SHA-256 of the token | `invite` |
//! | `invitations/<digest>.redeemed` | the key that the token was redeemed for | `redeem` |
//! | `clients/<id>/enrolled` | the client's key, certificate serial number and expiry | `redeem`, `renew` |
//! | `clients/<id>/revoked` | nothing; that it exists shuts the client out | `revoke` |
//! | `clients/<id>/seen` | that the client is there, or nothing; its time is when it came or went | a server |
//! | `revocations` | a line for each revoked client, so that a running server need not look at all of them | `revoke` |
//!
//! Every decision is the creation of a file or directory that must not exist yet, which the file system grants to one of
//! any number of processes. So invitations and revocations work beside a running server without a lock.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skep_protocol::ClientId;
use skep_protocol::message::TurnAway;
use skep_protocol::net::enrolment::Refusal;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::{
    ADDRESS_COUNT_LIMIT, Address, Invitation, Token, TokenDigest, unix_seconds,
};
use skep_protocol::net::keys::{KeyError, PublicKey};
use skep_protocol::net::roster::Listed;
use skep_protocol::net::tls::{self, PeerIdentity, Serial};
use skep_protocol::net::websocket::NetError;

use crate::authority::{Authority, AuthorityError};
use crate::roster::Roster;

mod conversation;
mod overview;
mod revocations;
pub use conversation::{Conditions, decide, serve};
pub use overview::{ClientState, Overview};
pub use revocations::Revocations;

/// The invitations and the roster of one federation.
#[derive(Debug, Clone)]
pub struct Enrolment {
    invitations: PathBuf,
    clients: PathBuf,
    revocations: PathBuf,
}

/// An enrolled client, as the roster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    /// Its id.
    pub client: ClientId,
    /// The key of its certificates.
    pub public_key: PublicKey,
    /// The serial number of the latest.
    pub serial: Serial,
    /// The last second at which the latest is good, in seconds since 1970.
    pub not_after: u64,
}

/// The enrolled clients at one moment, in order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledRoster(pub Vec<Enrolled>);

impl Roster for EnrolledRoster {
    fn population(&self) -> u64 {
        self.0.len() as u64
    }

    fn nth(&self, index: u64) -> ClientId {
        self.0[index as usize].client
    }

    fn has(&self, client: ClientId) -> bool {
        self.0.binary_search_by_key(&client, |enrolled| enrolled.client).is_ok()
    }
}

impl Enrolment {
    /// Opens the invitations and the roster in the state directory `state`, making them if need be.
    ///
    /// # Errors
    /// [`EnrolmentError::File`] when a directory cannot be made or is open to others.
    pub fn open(state: &Path) -> Result<Self, EnrolmentError> {
        let enrolment = Enrolment {
            invitations: state.join("invitations"),
            clients: state.join("clients"),
            revocations: state.join("revocations"),
        };
        files::private_directory(&enrolment.invitations)?;
        files::private_directory(&enrolment.clients)?;
        Ok(enrolment)
    }

    /// Invites a client that the federation does not have yet, under the lowest id above all that were ever given.
    ///
    /// # Errors
    /// [`EnrolmentError`] when the addresses are none or too many, no id is left, or a file cannot be written.
    pub fn invite_new(
        &self,
        authority: &Authority,
        addresses: Vec<Address>,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Invitation, EnrolmentError> {
        let mut next = self.client_ids()?.last().map_or(Some(0), |last| last.0.checked_add(1));
        loop {
            let number = next.ok_or(EnrolmentError::NoIdLeft)?;
            if self.claim(ClientId(number))? {
                return self.invite(authority, ClientId(number), addresses, now, validity);
            }
            next = number.checked_add(1);
        }
    }

    /// Invites `client`. If it has enrolled before, its former key loses its place when the invitation is redeemed.
    /// Earlier invitations of the client that were not redeemed stay good until they expire.
    ///
    /// # Errors
    /// [`EnrolmentError`] when the client is revoked, the addresses are none or too many, or a file cannot be written.
    pub fn invite(
        &self,
        authority: &Authority,
        client: ClientId,
        addresses: Vec<Address>,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Invitation, EnrolmentError> {
        if addresses.is_empty() || addresses.len() > ADDRESS_COUNT_LIMIT {
            return Err(EnrolmentError::Addresses(addresses.len()));
        }
        self.claim(client)?;
        self.refuse_revoked(client)?;
        let token = Token::generate()?;
        let expires = unix_seconds(now).saturating_add(validity.as_secs());
        write_new(&self.invited(token.digest()), &Invited { client, expires })?;
        Ok(Invitation { addresses, authority: authority.fingerprint(), client, token, expires })
    }

    /// Spends `token` on `public_key`. Repeated for the same key it succeeds again, until the expiry.
    ///
    /// # Errors
    /// [`EnrolmentError::UnknownToken`], [`EnrolmentError::Expired`], [`EnrolmentError::AlreadyUsed`],
    /// [`EnrolmentError::Revoked`], or a failure of the file system.
    pub fn redeem(
        &self,
        token: &Token,
        public_key: PublicKey,
        now: SystemTime,
    ) -> Result<ClientId, EnrolmentError> {
        let digest = token.digest();
        let invited: Invited = read(&self.invited(digest))?.ok_or(EnrolmentError::UnknownToken)?;
        if unix_seconds(now) > invited.expires {
            return Err(EnrolmentError::Expired);
        }
        self.refuse_revoked(invited.client)?;
        let fresh = match write_new(&self.redeemed(digest), &Redeemed { public_key }) {
            Err(error) if error.exists_already() => false,
            result => result.map(|()| true)?,
        };
        // Whoever came first is on disk now.
        let redeemed: Option<Redeemed> = read(&self.redeemed(digest))?;
        let first = redeemed.is_some_and(|redeemed| redeemed.public_key == public_key);
        if first && (fresh || self.may_repeat(invited.client, public_key)?) {
            Ok(invited.client)
        } else {
            Err(EnrolmentError::AlreadyUsed)
        }
    }

    /// A repeated request gets its certificate again unless a later invitation gave the client another key.
    fn may_repeat(&self, client: ClientId, public_key: PublicKey) -> Result<bool, EnrolmentError> {
        Ok(self.enrolled(client)?.is_none_or(|enrolled| enrolled.public_key == public_key))
    }

    /// Shuts `client` out for good: no session, no renewal, no invitation. A running server closes its session as soon
    /// as it sees the line in `revocations`.
    ///
    /// # Errors
    /// [`EnrolmentError::UnknownClient`] when no such client was ever invited, or a failure of the file system.
    pub fn revoke(&self, client: ClientId) -> Result<(), EnrolmentError> {
        if !self.client(client).exists() {
            return Err(EnrolmentError::UnknownClient(client));
        }
        match files::create(&self.revoked(client), b"") {
            Err(error) if error.exists_already() => {}
            result => result?,
        }
        // After the fact it announces; said twice, it does no harm.
        revocations::announce(&self.revocations, client)
    }

    /// What is revoked from now on.
    pub fn revocations(&self) -> Revocations {
        Revocations::from_now(self.revocations.clone())
    }

    /// Who has been revoked so far.
    ///
    /// # Errors
    /// [`EnrolmentError::File`].
    pub fn revoked_so_far(&self) -> Result<BTreeSet<ClientId>, EnrolmentError> {
        Ok(self.client_ids()?.into_iter().filter(|client| self.is_revoked(*client)).collect())
    }

    /// Whether `client` is shut out.
    pub fn is_revoked(&self, client: ClientId) -> bool {
        self.revoked(client).exists()
    }

    /// Checks that the holder of a certificate that was verified once is still a client: enrolled with this key, its latest
    /// certificate still good, and not revoked.
    ///
    /// # Errors
    /// [`EnrolmentError::Revoked`], [`EnrolmentError::NotEnrolled`], [`EnrolmentError::CertificateExpired`], or a failure
    /// of the file system.
    pub fn check(&self, peer: &PeerIdentity, now: SystemTime) -> Result<(), EnrolmentError> {
        self.refuse_revoked(peer.client)?;
        match self.enrolled(peer.client)? {
            Some(enrolled) if enrolled.public_key != peer.public_key => Err(EnrolmentError::NotEnrolled),
            Some(enrolled) if enrolled.not_after < unix_seconds(now) => {
                Err(EnrolmentError::CertificateExpired)
            }
            Some(_) => Ok(()),
            None => Err(EnrolmentError::NotEnrolled),
        }
    }

    /// The roster in order of ids: those that have enrolled and are not revoked, as they are now.
    ///
    /// # Errors
    /// [`EnrolmentError`] when a file is unreadable.
    pub fn roster(&self) -> Result<EnrolledRoster, EnrolmentError> {
        let mut roster = Vec::new();
        for client in self.client_ids()? {
            if !self.is_revoked(client) {
                roster.extend(self.enrolled(client)?);
            }
        }
        Ok(EnrolledRoster(roster))
    }

    /// A member of the roster of an authority that is apart may come in, with its key.
    pub(crate) fn list(&self, listed: &Listed) -> Result<(), EnrolmentError> {
        let PeerIdentity { client, public_key, serial, not_after, .. } =
            tls::client_named_by(&listed.certificate.0).map_err(AuthorityError::from)?;
        let enrolled = Enrolled { client, public_key, serial, not_after };
        if self.enrolled(client)?.as_ref() == Some(&enrolled) {
            return Ok(());
        }
        self.claim(client)?;
        self.enrol(&enrolled)
    }

    fn enrol(&self, enrolled: &Enrolled) -> Result<(), EnrolmentError> {
        let path = self.client(enrolled.client).join(ENROLLED);
        Ok(files::replace(&path, &json(enrolled))?)
    }

    fn enrolled(&self, client: ClientId) -> Result<Option<Enrolled>, EnrolmentError> {
        read(&self.client(client).join(ENROLLED))
    }

    fn refuse_revoked(&self, client: ClientId) -> Result<(), EnrolmentError> {
        if self.is_revoked(client) { Err(EnrolmentError::Revoked) } else { Ok(()) }
    }

    /// Takes the id for an invitation; false when somebody had it before.
    fn claim(&self, client: ClientId) -> Result<bool, EnrolmentError> {
        let path = self.client(client);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(FileError { action: "create", path, source }.into()),
        }
    }

    fn client_ids(&self) -> Result<Vec<ClientId>, EnrolmentError> {
        let failed = |source| FileError { action: "read", path: self.clients.clone(), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.clients).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()).map(ClientId));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn client(&self, client: ClientId) -> PathBuf {
        self.clients.join(client.0.to_string())
    }

    fn revoked(&self, client: ClientId) -> PathBuf {
        self.client(client).join("revoked")
    }

    fn invited(&self, token: TokenDigest) -> PathBuf {
        self.invitations.join(format!("{token}.invited"))
    }

    fn redeemed(&self, token: TokenDigest) -> PathBuf {
        self.invitations.join(format!("{token}.redeemed"))
    }
}

/// Why an invitation, an enrolment or a session is refused.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// No invitation has this token.
    #[error("no invitation has this token")]
    UnknownToken,
    /// The invitation's last second is past.
    #[error("the invitation has expired")]
    Expired,
    /// The token was redeemed for another key.
    #[error("the invitation was redeemed before, for another key")]
    AlreadyUsed,
    /// The client is shut out.
    #[error("the client is revoked")]
    Revoked,
    /// The request's signature is not by its key on this connection.
    #[error("the request does not prove possession of its key")]
    BadProof,
    /// The certificate is not, or no longer, that of an enrolled client.
    #[error("the certificate is not that of an enrolled client")]
    NotEnrolled,
    /// The client has not renewed its certificate in time.
    #[error("the client's certificate has expired")]
    CertificateExpired,
    /// What came is no request.
    #[error("no enrolment request came")]
    Malformed,
    /// There is no such client.
    #[error("there is no {0}")]
    UnknownClient(ClientId),
    /// An invitation needs from 1 to 8 addresses.
    #[error("{0} addresses for an invitation; from 1 to {ADDRESS_COUNT_LIMIT} belong there")]
    Addresses(usize),
    /// The highest id has been given.
    #[error("no client id is left above the highest one; invite a client by an id of its own")]
    NoIdLeft,
    /// A file does not read or write.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A token or serial number cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authority cannot sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The authority is apart, and its roster here does not list the client.
    #[error("the roster of the authority does not list the client")]
    NotListed,
    /// The authority is apart, and has signed no newer certificate.
    #[error("the authority has signed no newer certificate for the client")]
    NotRenewed,
    /// The server is shutting down.
    #[error("the server stopped before the decision was made")]
    Interrupted,
    /// The connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl EnrolmentError {
    /// What the client is told; of our own failures, only that they are ours.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownToken => Refusal::UnknownToken,
            Self::Expired => Refusal::Expired,
            Self::AlreadyUsed => Refusal::AlreadyUsed,
            Self::Revoked => Refusal::Revoked,
            Self::BadProof => Refusal::BadProof,
            Self::NotEnrolled | Self::CertificateExpired | Self::UnknownClient(_) => Refusal::NotEnrolled,
            Self::Malformed => Refusal::Malformed,
            Self::NotListed => Refusal::NotListed,
            Self::NotRenewed => Refusal::NotRenewed,
            Self::Addresses(_)
            | Self::NoIdLeft
            | Self::File(_)
            | Self::Damaged { .. }
            | Self::Key(_)
            | Self::Authority(_)
            | Self::Interrupted
            | Self::Net(_) => Refusal::ServerFailure,
        }
    }

    /// What a client is told that connects for a session.
    pub fn turn_away(&self) -> TurnAway {
        match self {
            Self::Revoked => TurnAway::Revoked,
            Self::NotEnrolled => TurnAway::NotEnrolled,
            Self::CertificateExpired => TurnAway::CertificateExpired,
            _ => TurnAway::ServerFailure,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invited {
    client: ClientId,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeemed {
    public_key: PublicKey,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EnrolmentError> {
    match files::read(path) {
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(contents) => serde_json::from_slice(&contents)
            .map(Some)
            .map_err(|error| EnrolmentError::Damaged { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn write_new(path: &Path, value: &impl Serialize) -> Result<(), FileError> {
    files::create(path, &json(value))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("these records have no maps and no failing serialisers")
}

const ENROLLED: &str = "enrolled";

#[cfg(test)]
mod tests {
    use skep_protocol::ChannelBinding;
    use skep_protocol::net::enrolment::EnrolmentRequest;
    use skep_protocol::net::keys::SigningKey;

    use super::*;
    use skep_protocol::plan::PlanKey;

    struct Federation {
        _state: tempfile::TempDir,
        authority: Authority,
        enrolment: Enrolment,
    }

    fn federation() -> Federation {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(state.path()).unwrap();
        let enrolment = Enrolment::open(state.path()).unwrap();
        Federation { _state: state, authority, enrolment }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn public_key() -> PublicKey {
        SigningKey::generate().unwrap().public_key()
    }

    impl Federation {
        fn invite(&self, client: u64) -> Result<Invitation, EnrolmentError> {
            let addresses = vec!["localhost:1".parse().unwrap()];
            let hour = Duration::from_secs(3600);
            self.enrolment.invite(&self.authority, ClientId(client), addresses, at(1000), hour)
        }

        fn invite_new(&self) -> Invitation {
            let addresses = vec!["localhost:1".parse().unwrap()];
            let hour = Duration::from_secs(3600);
            self.enrolment.invite_new(&self.authority, addresses, at(1000), hour).unwrap()
        }

        /// Redeems as a server would, without the connection.
        fn redeem(&self, invitation: &Invitation, key: &SigningKey) -> Result<PeerIdentity, EnrolmentError> {
            let binding = ChannelBinding([3; 32]);
            let request = EnrolmentRequest::redeem(invitation.token.clone(), key, binding);
            let grant = decide(&self.authority, &self.enrolment, &request, None, binding, at(2000), A_DAY)?;
            Ok(skep_protocol::net::tls::client_named_by(&grant.certificate.0).unwrap())
        }
    }

    const A_DAY: Conditions =
        Conditions { validity: Duration::from_secs(86_400), plan_key: PlanKey([7; 32]) };

    #[test]
    fn a_token_is_good_for_one_key_until_its_last_second() {
        let federation = federation();
        let invitation = federation.invite(17).unwrap();
        let (first, second) = (public_key(), public_key());
        let redeem = |key, now| federation.enrolment.redeem(&invitation.token, key, at(now));
        assert!(matches!(redeem(first, 4601), Err(EnrolmentError::Expired)));
        assert_eq!(redeem(first, 4600).unwrap(), ClientId(17));
        assert_eq!(redeem(first, 4600).unwrap(), ClientId(17));
        assert!(matches!(redeem(second, 4600), Err(EnrolmentError::AlreadyUsed)));
        let unknown = federation.enrolment.redeem(&Token::generate().unwrap(), first, at(1000));
        assert!(matches!(unknown, Err(EnrolmentError::UnknownToken)));
    }

    #[test]
    fn of_many_keys_that_race_for_a_token_one_wins() {
        let federation = federation();
        let invitation = federation.invite(1).unwrap();
        let results: Vec<_> = std::thread::scope(|scope| {
            let try_one = || federation.enrolment.redeem(&invitation.token, public_key(), at(1000));
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(try_one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        let losers = results.iter().filter(|result| matches!(result, Err(EnrolmentError::AlreadyUsed)));
        assert_eq!(losers.count(), 15);
    }

    #[test]
    fn new_clients_get_ids_of_their_own_however_many_invite_at_once() {
        let federation = federation();
        federation.invite(5).unwrap();
        let mut ids: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| federation.invite_new().client.0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ids.sort_unstable();
        assert_eq!(ids, (6..14).collect::<Vec<_>>());
    }

    #[test]
    fn after_the_highest_id_there_is_no_new_one() {
        let federation = federation();
        federation.invite(u64::MAX).unwrap();
        let addresses = vec!["localhost:1".parse().unwrap()];
        let hour = Duration::from_secs(3600);
        let refused = federation.enrolment.invite_new(&federation.authority, addresses, at(1000), hour);
        assert!(matches!(refused, Err(EnrolmentError::NoIdLeft)));
    }

    #[test]
    fn the_token_is_not_on_the_servers_disk() {
        let federation = federation();
        let invitation = federation.invite(1).unwrap();
        let token = serde_json::to_string(&invitation.token).unwrap();
        let token = token.trim_matches('"');
        let mut seen = 0;
        for entry in fs::read_dir(&federation.enrolment.invitations).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.to_string_lossy().contains(token));
            assert!(!fs::read_to_string(path).unwrap().contains(token));
            seen += 1;
        }
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_revoked_client_is_shut_out_at_every_door() {
        let federation = federation();
        let (invitation, unused) = (federation.invite(1).unwrap(), federation.invite(1).unwrap());
        let key = SigningKey::generate().unwrap();
        let peer = federation.redeem(&invitation, &key).unwrap();
        federation.enrolment.check(&peer, at(1000)).unwrap();
        assert_eq!(federation.enrolment.roster().unwrap().population(), 1);

        federation.enrolment.revoke(ClientId(1)).unwrap();
        assert!(matches!(federation.enrolment.check(&peer, at(1000)), Err(EnrolmentError::Revoked)));
        assert!(matches!(federation.redeem(&unused, &key), Err(EnrolmentError::Revoked)));
        assert!(matches!(federation.invite(1), Err(EnrolmentError::Revoked)));
        assert_eq!(federation.enrolment.roster().unwrap().population(), 0);
        let unknown = federation.enrolment.revoke(ClientId(2));
        assert!(matches!(unknown, Err(EnrolmentError::UnknownClient(ClientId(2)))));
    }

    #[test]
    fn a_client_that_enrols_again_takes_the_place_of_its_former_key() {
        let federation = federation();
        let (former, latter) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let first = federation.invite(1).unwrap();
        let before = federation.redeem(&first, &former).unwrap();
        assert!(federation.redeem(&first, &former).is_ok(), "a lost response can be asked for again");
        let after = federation.redeem(&federation.invite(1).unwrap(), &latter).unwrap();
        assert!(matches!(federation.enrolment.check(&before, at(1000)), Err(EnrolmentError::NotEnrolled)));
        federation.enrolment.check(&after, at(1000)).unwrap();
        assert!(matches!(federation.redeem(&first, &former), Err(EnrolmentError::AlreadyUsed)));
        federation.enrolment.check(&after, at(1000)).unwrap();
    }

    #[test]
    fn a_proof_from_another_connection_or_key_is_refused_and_leaves_the_token_unspent() {
        let federation = federation();
        let invitation = federation.invite(1).unwrap();
        let key = SigningKey::generate().unwrap();
        let (here, there) = (ChannelBinding([1; 32]), ChannelBinding([2; 32]));
        let answer = |request: &EnrolmentRequest| {
            decide(&federation.authority, &federation.enrolment, request, None, here, at(1000), A_DAY)
        };
        let replayed = EnrolmentRequest::redeem(invitation.token.clone(), &key, there);
        assert!(matches!(answer(&replayed), Err(EnrolmentError::BadProof)));
        let mut stolen = EnrolmentRequest::redeem(invitation.token.clone(), &key, here);
        if let EnrolmentRequest::Redeem { public_key: named, .. } = &mut stolen {
            *named = public_key();
        }
        assert!(matches!(answer(&stolen), Err(EnrolmentError::BadProof)));
        assert!(answer(&EnrolmentRequest::redeem(invitation.token.clone(), &key, here)).is_ok());
    }
}
