//! All clients at a glance, for whoever runs the federation.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use skep_protocol::ClientId;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::unix_seconds;

use super::{Enrolment, EnrolmentError, Invited, read};

/// What is known of a client that was ever invited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overview {
    /// Its id.
    pub client: ClientId,
    /// Where it stands.
    pub state: ClientState,
    /// Whether it was connected when a server last said so; a server that was killed could not take it back.
    pub connected: bool,
    /// When it last connected or left, in seconds since 1970.
    pub last_seen: Option<u64>,
    /// The last second at which its certificate is good, in seconds since 1970.
    pub certificate_until: Option<u64>,
    /// The last second at which an invitation of it can be redeemed, in seconds since 1970.
    pub invitation_until: Option<u64>,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientState {
    /// It has not enrolled yet.
    Invited,
    /// It may connect.
    Enrolled,
    /// Its certificate has expired; it needs another invitation.
    Expired,
    /// It is shut out.
    Revoked,
}

impl Enrolment {
    /// Every client that was ever invited, in order of ids.
    ///
    /// # Errors
    /// [`EnrolmentError`] when a file is unreadable.
    pub fn overview(&self, now: SystemTime) -> Result<Vec<Overview>, EnrolmentError> {
        let now = unix_seconds(now);
        let invitations = self.open_invitations(now)?;
        let describe = |client| {
            let certificate_until = self.enrolled(client)?.map(|enrolled| enrolled.not_after);
            let state = match certificate_until {
                _ if self.is_revoked(client) => ClientState::Revoked,
                None => ClientState::Invited,
                Some(until) if until < now => ClientState::Expired,
                Some(_) => ClientState::Enrolled,
            };
            let (connected, last_seen) = seen(&self.client(client).join(SEEN));
            Ok(Overview {
                client,
                state,
                connected,
                last_seen,
                certificate_until,
                invitation_until: invitations.get(&client).copied(),
            })
        };
        self.client_ids()?.into_iter().map(describe).collect()
    }

    /// Notes that `client` has come, or gone.
    ///
    /// # Errors
    /// [`EnrolmentError::File`].
    pub fn note_presence(&self, client: ClientId, is_here: bool) -> Result<(), EnrolmentError> {
        let path = self.client(client).join(SEEN);
        let note = || {
            let mut file = files::private().write(true).create(true).truncate(true).open(&path)?;
            file.write_all(if is_here { HERE } else { b"" })?;
            file.set_modified(SystemTime::now())
        };
        note().map_err(|source| FileError { action: "write", path: path.clone(), source }.into())
    }

    /// Until when invitations can be redeemed, of each client that has any.
    fn open_invitations(&self, now: u64) -> Result<BTreeMap<ClientId, u64>, EnrolmentError> {
        let failed = |source| FileError { action: "read", path: self.invitations.clone(), source };
        let mut open = BTreeMap::new();
        for entry in fs::read_dir(&self.invitations).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_invitation = path.extension().is_some_and(|extension| extension == "invited");
            if !is_invitation || path.with_extension("redeemed").exists() {
                continue;
            }
            if let Some(Invited { client, expires }) = read(&path)?.filter(|one: &Invited| one.expires >= now)
            {
                let latest = open.entry(client).or_insert(expires);
                *latest = expires.max(*latest);
            }
        }
        Ok(open)
    }
}

fn seen(path: &Path) -> (bool, Option<u64>) {
    let when = path.metadata().and_then(|metadata| metadata.modified()).map(unix_seconds);
    let here = fs::read(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    });
    (here.is_ok_and(|note| note == HERE), when.ok())
}

const SEEN: &str = "seen";
const HERE: &[u8] = b"here";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use skep_protocol::ChannelBinding;
    use skep_protocol::net::enrolment::EnrolmentRequest;
    use skep_protocol::net::keys::SigningKey;

    use super::*;
    use crate::authority::Authority;
    use crate::enrolment::{Conditions, decide};
    use skep_protocol::plan::PlanKey;

    #[test]
    fn every_state_of_a_client_is_told_apart() {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open(state.path()).unwrap();
        let enrolment = Enrolment::open(state.path()).unwrap();
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let seconds = unix_seconds(now);
        for client in 0..4 {
            let addresses = vec!["localhost:1".parse().unwrap()];
            let invitation = enrolment.invite(&authority, ClientId(client), addresses, now, hour).unwrap();
            if client > 0 {
                let (key, binding) = (SigningKey::generate().unwrap(), ChannelBinding([0; 32]));
                let request = EnrolmentRequest::redeem(invitation.token, &key, binding);
                let conditions = Conditions { validity: hour * client as u32, plan_key: PlanKey([7; 32]) };
                decide(&authority, &enrolment, &request, None, binding, now, conditions).unwrap();
            }
        }
        enrolment.revoke(ClientId(3)).unwrap();
        enrolment.note_presence(ClientId(1), true).unwrap();
        enrolment.note_presence(ClientId(2), true).unwrap();
        enrolment.note_presence(ClientId(1), false).unwrap();

        let overview = enrolment.overview(now + hour + hour / 2).unwrap();
        let states: Vec<_> = overview.iter().map(|one| one.state).collect();
        let expected =
            [ClientState::Invited, ClientState::Expired, ClientState::Enrolled, ClientState::Revoked];
        assert_eq!(states, expected);
        assert_eq!(overview[2].certificate_until, Some(seconds + 7200));
        assert_eq!(overview[0].invitation_until, None, "it has expired by then");
        assert_eq!(enrolment.overview(now).unwrap()[0].invitation_until, Some(seconds + 3600));
        let connected: Vec<_> = overview.iter().map(|one| one.connected).collect();
        assert_eq!(connected, [false, false, true, false]);
        assert!(overview[1].last_seen.unwrap() >= seconds && overview[0].last_seen.is_none());
    }
}
