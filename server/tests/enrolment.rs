//! From an invitation to a session: what a client gets, and what a forger does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use harness::{Federation, HOUR, PATIENT, conditions};
use skep_protocol::ClientId;
use skep_protocol::net::enrolment::{
    EnrolError, EnrolmentRequest, EnrolmentResponse, Refusal, enrol, receive_request, renew,
};
use skep_protocol::net::frame::Frame;
use skep_protocol::net::identity::{Identity, IdentityError};
use skep_protocol::net::invitation::{Fingerprint, Invitation, Token};
use skep_protocol::net::tls;
use skep_protocol::net::websocket::{Accepted, NetError, Purpose, connect};
use skep_server::authority::CLIENT_VALIDITY;
use skep_server::enrolment::{EnrolmentError, decide};
use tokio_rustls::rustls::{CertificateError, Error as RustlsError};

async fn enrol_in(federation: &Federation, invitation: &Invitation, directory: &Path) -> Outcome {
    let serving = federation.enrol_one();
    let client = enrol(invitation, directory, &PATIENT).await;
    Outcome { client, server: serving.await.unwrap() }
}

struct Outcome {
    client: Result<Identity, EnrolError>,
    server: Result<ClientId, EnrolmentError>,
}

impl Outcome {
    /// The refusal that the client heard.
    fn refusal(&self) -> Refusal {
        match (&self.client, &self.server) {
            (Err(EnrolError::Refused(heard)), Err(error)) => {
                assert_eq!(*heard, error.refusal());
                *heard
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_invitation_becomes_an_identity_that_opens_sessions() {
    let federation = Federation::new().await;
    let client_state = tempfile::tempdir().unwrap();
    // Through its text, as a person would carry it.
    let invitation: Invitation = federation.invite(17).to_string().parse().unwrap();
    let outcome = enrol_in(&federation, &invitation, client_state.path()).await;
    assert_eq!(outcome.server.unwrap(), ClientId(17));
    let identity = outcome.client.unwrap();

    let loaded = Identity::load(client_state.path()).unwrap();
    assert_eq!(loaded.client(), ClientId(17));
    assert_eq!(loaded.public_key(), identity.public_key());
    assert_eq!(loaded.authority(), federation.authority.fingerprint());
    assert_eq!(loaded.plan_key(), conditions(HOUR).plan_key);
    let signature = loaded.sign(b"digest");

    let (accepted, connected) = federation.attempt(loaded.tls().unwrap(), Purpose::Session).await;
    let Ok(Accepted::Session(peer, _)) = accepted else { panic!("{accepted:?}") };
    assert!(connected.is_ok());
    assert_eq!(peer.client, ClientId(17));
    peer.public_key.verify(b"digest", &signature.0).unwrap();
    federation.enrolment.check(&peer, SystemTime::now()).unwrap();
    let roster = federation.enrolment.roster().unwrap().0;
    assert_eq!(roster.len(), 1);
    assert_eq!(roster[0].serial, peer.serial);
    assert_eq!(roster[0].not_after, loaded.not_after());
}

#[tokio::test]
async fn a_second_use_of_an_invitation_by_another_client_is_refused() {
    let federation = Federation::new().await;
    let invitation = federation.invite(1);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrol_in(&federation, &invitation, first.path()).await.client.unwrap();
    let outcome = enrol_in(&federation, &invitation, second.path()).await;
    assert_eq!(outcome.refusal(), Refusal::AlreadyUsed);
    assert!(matches!(Identity::load(second.path()), Err(IdentityError::NotEnrolled)));
}

#[tokio::test]
async fn an_expired_invitation_is_refused_at_both_ends() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let yesterday = SystemTime::now() - 24 * HOUR;
    let mut invitation = federation
        .enrolment
        .invite(&federation.authority, ClientId(1), federation.addresses(), yesterday, HOUR)
        .unwrap();
    let early = enrol(&invitation, directory.path(), &PATIENT).await;
    assert!(matches!(early, Err(EnrolError::InvitationExpired)), "{early:?}");
    // The expiry that counts is the server's, not the one in the line.
    invitation.expires = u64::MAX;
    let outcome = enrol_in(&federation, &invitation, directory.path()).await;
    assert_eq!(outcome.refusal(), Refusal::Expired);
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let mut invitation = federation.invite(1);
    invitation.token = Token::generate().unwrap();
    let outcome = enrol_in(&federation, &invitation, directory.path()).await;
    assert_eq!(outcome.refusal(), Refusal::UnknownToken);
}

#[tokio::test]
async fn an_invitation_for_one_client_does_not_make_another() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let mut invitation = federation.invite(1);
    invitation.client = ClientId(2);
    let outcome = enrol_in(&federation, &invitation, directory.path()).await;
    assert!(matches!(outcome.client, Err(EnrolError::BadResponse(_))), "{:?}", outcome.client);
    let roster = federation.enrolment.roster().unwrap().0;
    assert!(roster.iter().all(|enrolled| enrolled.client == ClientId(1)), "{roster:?}");
}

#[tokio::test]
async fn a_client_shows_its_token_only_to_the_federation_that_invited_it() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let mut invitation = federation.invite(1);
    invitation.authority = Fingerprint([0; 32]);
    let outcome = enrol_in(&federation, &invitation, directory.path()).await;
    let unknown = RustlsError::InvalidCertificate(CertificateError::UnknownIssuer);
    let refused =
        matches!(&outcome.client, Err(EnrolError::Net(NetError::TlsHandshake(error))) if *error == unknown);
    assert!(refused, "{:?}", outcome.client);
    // The server saw a failed handshake, and no request.
    assert!(matches!(outcome.server, Err(EnrolmentError::Net(NetError::TlsHandshake(_)))));
}

#[tokio::test]
async fn enrolment_survives_the_loss_of_the_response() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let invitation = federation.invite(1);
    let accepting = federation.accept(PATIENT);
    let (authority, enrolment) = (federation.authority.clone(), federation.enrolment.clone());
    let decide_and_vanish = tokio::spawn(async move {
        let Ok(Accepted::Enrolment(None, mut connection)) = accepting.await.unwrap() else {
            panic!("not an enrolment")
        };
        let request = receive_request(&mut connection, &PATIENT).await.unwrap().unwrap();
        let binding = connection.channel_binding;
        decide(&authority, &enrolment, &request, None, binding, SystemTime::now(), conditions(HOUR)).unwrap();
    });
    assert!(enrol(&invitation, directory.path(), &PATIENT).await.is_err());
    decide_and_vanish.await.unwrap();

    let outcome = enrol_in(&federation, &invitation, directory.path()).await;
    assert_eq!(outcome.client.unwrap().client(), ClientId(1));
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_key_until_the_client_is_revoked() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    let old = enrol_in(&federation, &federation.invite(1), directory.path()).await.client.unwrap();
    let before = federation.enrolment.roster().unwrap().0[0].serial;

    // Only for one that is good for longer.
    let serving = federation.enrol_for(HOUR);
    let shorter = renew(&old, directory.path(), &PATIENT).await;
    assert!(matches!(shorter, Err(EnrolError::BadResponse(_))), "{shorter:?}");
    assert_eq!(serving.await.unwrap().unwrap(), ClientId(1));
    assert_eq!(Identity::load(directory.path()).unwrap().not_after(), old.not_after());

    let serving = federation.enrol_for(2 * CLIENT_VALIDITY);
    let new = renew(&old, directory.path(), &PATIENT).await.unwrap();
    assert_eq!(serving.await.unwrap().unwrap(), ClientId(1));
    assert_eq!(new.public_key(), old.public_key());
    assert_ne!(federation.enrolment.roster().unwrap().0[0].serial, before);
    Identity::load(directory.path()).unwrap();

    federation.enrolment.revoke(ClientId(1)).unwrap();
    let serving = federation.enrol_one();
    let refused = renew(&new, directory.path(), &PATIENT).await;
    assert!(matches!(refused, Err(EnrolError::Refused(Refusal::Revoked))), "{refused:?}");
    assert!(matches!(serving.await.unwrap(), Err(EnrolmentError::Revoked)));
}

#[tokio::test]
async fn without_a_certificate_there_is_nothing_to_renew() {
    let federation = Federation::new().await;
    let refused = said_to(&federation, serde_json::to_vec(&EnrolmentRequest::Renew).unwrap()).await;
    assert_eq!(refused, EnrolmentResponse::Refused(Refusal::NotEnrolled));
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_closed() {
    let federation = Federation::new().await;
    for nonsense in [b"".to_vec(), b"{}".to_vec(), b"\xff\xff".to_vec(), vec![b'['; 100_000]] {
        let refused = said_to(&federation, nonsense).await;
        assert_eq!(refused, EnrolmentResponse::Refused(Refusal::Malformed));
    }
}

/// What an unauthenticated client hears when it sends `json`.
async fn said_to(federation: &Federation, json: Vec<u8>) -> EnrolmentResponse {
    let serving = federation.enrol_one();
    let config = tls::enrolment_config(federation.authority.fingerprint()).unwrap();
    let mut connection =
        connect(&federation.addresses(), config, Purpose::Enrolment, &PATIENT).await.unwrap();
    connection.sink.send(&Frame::Control(json.into())).await.unwrap();
    let Some(Frame::Control(answer)) = connection.stream.receive().await.unwrap() else {
        panic!("no answer")
    };
    assert_eq!(connection.stream.receive().await.unwrap(), None);
    assert!(serving.await.unwrap().is_err());
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test]
async fn an_enrolled_directory_is_not_overwritten() {
    let federation = Federation::new().await;
    let directory = tempfile::tempdir().unwrap();
    enrol_in(&federation, &federation.invite(1), directory.path()).await.client.unwrap();
    let again = enrol(&federation.invite(2), directory.path(), &PATIENT).await;
    assert!(matches!(again, Err(EnrolError::AlreadyEnrolled)), "{again:?}");
    assert_eq!(Identity::load(directory.path()).unwrap().client(), ClientId(1));
}

#[tokio::test]
async fn parts_of_two_identities_do_not_make_one() {
    let federation = Federation::new().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    enrol_in(&federation, &federation.invite(1), one.path()).await.client.unwrap();
    enrol_in(&federation, &federation.invite(2), two.path()).await.client.unwrap();
    fs::copy(two.path().join("identity.crt"), one.path().join("identity.crt")).unwrap();
    let mixed = Identity::load(one.path());
    assert!(matches!(mixed, Err(IdentityError::Damaged { file: "identity.crt", .. })), "{mixed:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn every_file_of_both_sides_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let federation = Federation::new().await;
    let client_state = tempfile::tempdir().unwrap();
    enrol_in(&federation, &federation.invite(1), client_state.path()).await.client.unwrap();
    federation.enrolment.revoke(ClientId(1)).unwrap();
    let mut pending = vec![federation.state.path().to_owned(), client_state.path().to_owned()];
    let mut files = 0;
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if path.is_dir() {
                assert_eq!(mode, 0o700, "{path:?}");
                pending.push(path);
            } else {
                assert_eq!(mode, 0o600, "{path:?}");
                files += 1;
            }
        }
    }
    // Two of the authority, two of the invitation, two of the client, the revocation; and the four of its identity with
    // their lock.
    assert_eq!(files, 12);
}
