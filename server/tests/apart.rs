//! A server whose authority is apart: what a client gets from it, and what it cannot give.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::time::{Duration, SystemTime};

use harness::{Federation, HOUR, PATIENT};
use skep_protocol::ClientId;
use skep_protocol::net::enrolment::{Der, EnrolError, Refusal, enrol, enrol_listed, renew};
use skep_protocol::net::files;
use skep_protocol::net::identity::{Identity, IdentityError, RosterPin, key_in};
use skep_protocol::net::invitation::{Invitation, Token};
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::listing::Listing;
use skep_protocol::net::roster::{Listed, Membership, Root, RosterError, SignedRoster};
use skep_protocol::net::tls::{self, PeerIdentity, TlsError};
use skep_protocol::plan::PlanKey;
use skep_server::authority::keeper::Keeper;
use skep_server::authority::{Authority, AuthorityError, install, read, request};
use skep_server::enrolment::{Enrolment, EnrolmentError};
use tempfile::TempDir;

struct Apart {
    federation: Federation,
    keeper: Keeper,
    directory: TempDir,
}

impl Apart {
    /// An authority, and a server that it has certified.
    async fn new() -> Self {
        let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = directory.path().join("ca");
        let fingerprint = Keeper::init(&home, SystemTime::now()).unwrap();
        let mut keeper = Keeper::open(&home).unwrap();
        let server = request(state.path()).unwrap().public_key;
        keeper.certify_server(server, SystemTime::now()).unwrap();
        install(state.path(), &read(&home.join("roster.skep")).unwrap(), Some(fingerprint)).unwrap();
        Apart { federation: Federation::of(state).await, keeper, directory }
    }

    fn install(&self) -> Result<(), AuthorityError> {
        let roster = read(&self.directory.path().join("ca/roster.skep"))?;
        install(self.federation.state.path(), &roster, None)
    }

    /// Lists the key in a directory, for so long; what the client joins with.
    fn list(&mut self, client: u64, home: &Path, validity: Duration) -> Listing {
        files::private_directory(home).unwrap();
        let (key, client) = (key_in(home).unwrap().public_key(), ClientId(client));
        self.keeper.list(Some(client), key, SystemTime::now(), validity).unwrap();
        let (addresses, authority) = (self.federation.addresses(), self.keeper.fingerprint());
        Listing { addresses, authority, client, sequence: self.keeper.roster().signed.head.sequence }
    }

    async fn enrol(&self, listing: &Listing, home: &Path) -> Result<Identity, EnrolError> {
        let serving = self.federation.enrol_one();
        let identity = enrol_listed(listing, home, &PATIENT).await;
        let _ = serving.await.unwrap();
        identity
    }

    /// What peers are shown of whoever connects with this certificate.
    fn introduction(&self, peer: &PeerIdentity) -> Option<Membership> {
        let PeerIdentity { client, public_key, certificate, .. } = peer;
        let shown = self.federation.authority.introduction(*client, *public_key, certificate.to_vec())?;
        Some(Membership::from_bytes(&shown).unwrap())
    }

    async fn renew(&self, identity: &Identity, home: &Path) -> Result<Identity, EnrolError> {
        let serving = self.federation.enrol_one();
        let renewed = renew(identity, home, &PATIENT).await;
        let _ = serving.await.unwrap();
        renewed
    }
}

#[tokio::test]
async fn a_listed_client_gets_its_certificate_and_newer_ones_when_there_are_some() {
    let mut apart = Apart::new().await;
    let home = tempfile::tempdir().unwrap();
    let listing = apart.list(7, home.path(), HOUR);
    let early = apart.enrol(&listing, home.path()).await;
    assert!(matches!(early, Err(EnrolError::Refused(Refusal::NotListed))), "{early:?}");
    apart.install().unwrap();
    let identity = apart.enrol(&listing, home.path()).await.unwrap();
    assert_eq!(identity.client(), ClientId(7));
    assert_eq!(identity.roster(), Some(RosterPin { sequence: 2, root: None }));
    let roster = apart.federation.enrolment.roster().unwrap().0;
    assert_eq!((roster.len(), roster[0].public_key), (1, identity.public_key()));

    let same = apart.renew(&identity, home.path()).await;
    assert!(matches!(same, Err(EnrolError::Refused(Refusal::NotRenewed))), "{same:?}");
    apart.keeper.renew(SystemTime::now(), 2 * HOUR).unwrap();
    apart.install().unwrap();
    let renewed = apart.renew(&identity, home.path()).await.unwrap();
    assert!(renewed.not_after() > identity.not_after());
    assert_eq!((renewed.public_key(), renewed.roster()), (identity.public_key(), identity.roster()));
}

#[tokio::test]
async fn such_a_server_certifies_nobody() {
    let apart = Apart::new().await;
    let (addresses, expires) = (apart.federation.addresses(), u64::MAX);
    let (authority, token) = (apart.keeper.fingerprint(), Token::generate().unwrap());
    let invitation = Invitation { addresses, authority, client: ClientId(1), token, expires };
    let (home, serving) = (tempfile::tempdir().unwrap(), apart.federation.enrol_one());
    let refused = enrol(&invitation, home.path(), &PATIENT).await;
    assert!(matches!(refused, Err(EnrolError::Refused(Refusal::UnknownToken))), "{refused:?}");
    assert!(serving.await.unwrap().is_err());
    let (server, key) = (&apart.federation.authority, key_in(home.path()).unwrap().public_key());
    assert!(server.is_apart());
    let issued = server.issue(ClientId(1), key, SystemTime::now(), HOUR);
    assert!(matches!(issued, Err(AuthorityError::Apart)), "{issued:?}");
}

#[tokio::test]
async fn a_former_key_and_a_removed_client_are_let_in_no_more() {
    let mut apart = Apart::new().await;
    let (former, latter) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = apart.list(1, former.path(), HOUR);
    apart.install().unwrap();
    let peer = |identity: &Identity, apart: &Apart| {
        let roster = apart.keeper.roster().member(identity.client()).unwrap().clone();
        tls::client_named_by(&roster.certificate.0).unwrap()
    };
    let identity = apart.enrol(&first, former.path()).await.unwrap();
    let before = peer(&identity, &apart);
    let check = |enrolment: &Enrolment, peer| enrolment.check(peer, SystemTime::now());
    check(&apart.federation.enrolment, &before).unwrap();
    let second = apart.list(1, latter.path(), HOUR);
    apart.install().unwrap();
    let again = apart.enrol(&second, latter.path()).await.unwrap();
    let refused = check(&apart.federation.enrolment, &before);
    assert!(matches!(refused, Err(EnrolmentError::NotEnrolled)), "{refused:?}");
    let after = peer(&again, &apart);
    check(&apart.federation.enrolment, &after).unwrap();
    apart.keeper.remove(ClientId(1), SystemTime::now()).unwrap();
    apart.install().unwrap();
    let refused = check(&apart.federation.enrolment, &after);
    assert!(matches!(refused, Err(EnrolmentError::Revoked)), "{refused:?}");
    // Nothing of it is shown to peers.
    apart.federation.authority.refresh();
    assert_eq!(apart.introduction(&after), None);
}

#[tokio::test]
async fn peers_are_shown_what_the_roster_of_the_round_says_and_nobody_else() {
    let mut apart = Apart::new().await;
    let homes: [TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let certificate = |apart: &Apart, client| {
        let listed = apart.keeper.roster().member(ClientId(client)).unwrap();
        tls::client_named_by(&listed.certificate.0).unwrap()
    };
    apart.list(1, homes[0].path(), HOUR);
    apart.install().unwrap();
    let first = certificate(&apart, 1);
    assert_eq!(apart.introduction(&first), None, "rounds do not go by it yet");
    apart.federation.authority.refresh();
    assert_eq!(apart.introduction(&first).unwrap().certificate, first.certificate.to_vec());

    // Within a round one client is listed, and another gets another key.
    apart.list(2, homes[1].path(), HOUR);
    apart.list(1, homes[2].path(), HOUR);
    apart.install().unwrap();
    let (second, other) = (certificate(&apart, 2), certificate(&apart, 1));
    assert!(apart.introduction(&second).is_none() && apart.introduction(&other).is_none());
    assert!(apart.introduction(&first).is_some());
    apart.federation.authority.refresh();
    assert!(apart.introduction(&second).is_some() && apart.introduction(&first).is_none());

    // A connection that is older than its client's certificate.
    apart.keeper.renew(SystemTime::now(), 2 * HOUR).unwrap();
    apart.install().unwrap();
    apart.federation.authority.refresh();
    let newest = certificate(&apart, 2);
    assert_ne!(newest.certificate, second.certificate);
    assert_eq!(apart.introduction(&second).unwrap().certificate, newest.certificate.to_vec());
}

#[tokio::test]
async fn of_a_roster_only_what_is_signed_counts() {
    let mut apart = Apart::new().await;
    let homes: [TempDir; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    apart.list(1, homes[0].path(), HOUR);
    apart.list(2, homes[1].path(), HOUR);
    apart.install().unwrap();
    let (roster, fingerprint) = (apart.keeper.roster().clone(), apart.keeper.fingerprint());
    roster.verify(fingerprint).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::open(elsewhere.path()).unwrap();
    let Listed { client, public_key, .. } = roster.members[0].clone();
    let forged = stranger.issue(client, public_key, SystemTime::now(), HOUR).unwrap().certificate;
    for certificate in [Der(forged.clone()), roster.members[1].certificate.clone(), vec![1].into()] {
        let mut altered = roster.clone();
        altered.members[0].certificate = certificate;
        let refused = altered.verify(fingerprint);
        assert!(matches!(refused, Err(RosterError::OtherCertificate(ClientId(1)))), "{refused:?}");
    }
    let altered = SignedRoster { server: Some(Der(forged)), ..roster.clone() };
    let refused = altered.verify(fingerprint);
    assert!(matches!(refused, Err(RosterError::Certificate(TlsError::NotSigned))), "{refused:?}");

    // Nobody signs who is said to be removed.
    let (state, enrolment) = (apart.federation.state.path(), &apart.federation.enrolment);
    install(state, &SignedRoster { removed: vec![ClientId(1), ClientId(9)], ..roster }, None).unwrap();
    assert!(!enrolment.is_revoked(ClientId(1)) && !enrolment.is_revoked(ClientId(9)));
    apart.keeper.remove(ClientId(2), SystemTime::now()).unwrap();
    install(state, &SignedRoster { removed: vec![], ..apart.keeper.roster().clone() }, None).unwrap();
    assert!(enrolment.is_revoked(ClientId(2)) && !enrolment.is_revoked(ClientId(1)));
}

#[tokio::test]
async fn what_a_client_has_seen_outlives_its_certificate_and_writes_at_once() {
    let mut apart = Apart::new().await;
    let home = tempfile::tempdir().unwrap();
    let key = key_in(home.path()).unwrap().public_key();
    apart.keeper.list(Some(ClientId(7)), key, SystemTime::now() - 2 * HOUR, HOUR).unwrap();
    apart.install().unwrap();
    let (addresses, authority) = (apart.federation.addresses(), apart.keeper.fingerprint());
    let line = Listing { addresses: addresses.clone(), authority, client: ClientId(7), sequence: 2 };
    let identity = apart.enrol(&line, home.path()).await.unwrap();
    assert!(identity.has_expired(SystemTime::now()));
    let seen = |sequence, root| RosterPin { sequence, root: Some(Root([root; 32])) };
    Identity::pin_roster(home.path(), seen(9, 1)).unwrap();
    let again = apart.enrol(&line, home.path()).await.unwrap();
    assert_eq!(again.roster(), Some(seen(9, 1)));
    // Nor does an invitation of a server with an authority of its own take the place of such a client.
    let invitation = Invitation {
        addresses,
        authority,
        client: ClientId(7),
        token: Token::generate().unwrap(),
        expires: u64::MAX,
    };
    let refused = enrol(&invitation, home.path(), &PATIENT).await;
    assert!(matches!(refused, Err(EnrolError::ListedBefore)), "{refused:?}");

    for stale in [seen(8, 1), seen(9, 2), RosterPin { sequence: 9, root: None }] {
        let refused = Identity::pin_roster(home.path(), stale);
        assert!(matches!(refused, Err(IdentityError::StaleRoster { known: 9, .. })), "{refused:?}");
    }
    std::thread::scope(|scope| {
        for number in 10..26 {
            let home = home.path();
            // Those that come too late are refused.
            scope.spawn(move || Identity::pin_roster(home, seen(number, 1)).is_ok());
            scope.spawn(move || Identity::pin(home, PlanKey([9; 32])).unwrap());
        }
    });
    let last = Identity::load(home.path()).unwrap();
    assert_eq!((last.roster(), last.plan_key()), (Some(seen(25, 1)), PlanKey([9; 32])));
}

#[test]
fn above_the_highest_number_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("ca");
    Keeper::init(&home, SystemTime::now()).unwrap();
    let mut keeper = Keeper::open(&home).unwrap();
    let mut list = |client| {
        let key = SigningKey::generate().unwrap().public_key();
        keeper.list(client, key, SystemTime::now(), HOUR)
    };
    list(Some(ClientId(u64::MAX))).unwrap();
    let refused = list(None);
    let Err(AuthorityError::Enrolment(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, EnrolmentError::NoIdLeft), "{error}");
}

#[test]
fn of_two_authorities_that_write_at_once_none_loses_a_client() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("ca");
    Keeper::init(&home, SystemTime::now()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let own = tempfile::tempdir().unwrap();
                let key = key_in(own.path()).unwrap().public_key();
                Keeper::open(&home).unwrap().list(None, key, SystemTime::now(), HOUR).unwrap();
            });
        }
    });
    let keeper = Keeper::open(&home).unwrap();
    let roster = keeper.roster();
    let clients: Vec<u64> = roster.members.iter().map(|listed| listed.client.0).collect();
    assert_eq!((clients, roster.signed.head.sequence), ((0..8).collect(), 8));
    assert!(Authority::open(directory.path()).is_ok(), "another one beside it is its own");
}
