//! Enrolment: one request and one response over a connection for [`Purpose::Enrolment`], in JSON.
//!
//! The client makes its key, then redeems the invitation's token: with it goes a signature by that key over the
//! connection's channel binding, so nobody can have a certificate made for a key that is not theirs, nor pass a
//! request on. A repeated request by the same key is answered again, so a lost response costs no invitation.

use std::path::Path;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::canonical::Writer;
use crate::net::files::{self, FileError};
use crate::net::frame::Frame;
use crate::net::identity::{self, Identity, IdentityError, RosterPin, ServerRecord};
use crate::net::invitation::{Address, Fingerprint, Invitation, Token};
use crate::net::keys::{KeyError, PublicKey, Signature, SigningKey};
use crate::net::listing::Listing;
use crate::net::tls::{self, TlsError};
use crate::net::websocket::{Connection, Dial, NetError, Purpose, Timeouts, connect};
use crate::{ChannelBinding, ClientId};

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EnrolmentRequest {
    /// A certificate for a new key, in exchange for a token.
    Redeem {
        /// The invitation's token.
        token: Token,
        /// The key to certify.
        public_key: PublicKey,
        /// Its signature over the channel binding and the token's digest.
        proof: Signature,
    },
    /// The certificate of a client that an authority apart from the server has listed. It is no secret.
    Listed {
        /// The client.
        client: ClientId,
    },
    /// A new certificate in place of the one that the connection was made with, for the same key.
    Renew,
}

impl EnrolmentRequest {
    /// The request to redeem `token` for `key` on the connection with this `binding`.
    pub fn redeem(token: Token, key: &SigningKey, binding: ChannelBinding) -> Self {
        let proof = key.sign(&proven(&token, binding));
        EnrolmentRequest::Redeem { token, public_key: key.public_key(), proof }
    }
}

/// Checks a [`EnrolmentRequest::Redeem`]'s proof that the sender holds the key's private half.
///
/// # Errors
/// [`KeyError::BadSignature`] when the proof is not for this key, token and connection.
pub fn verify_proof(
    token: &Token,
    public_key: &PublicKey,
    binding: ChannelBinding,
    proof: &Signature,
) -> Result<(), KeyError> {
    public_key.verify(&proven(token, binding), &proof.0)
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolmentResponse {
    /// The certificate.
    Granted(Grant),
    /// None, and why.
    Refused(Refusal),
}

/// A certificate and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The client that the certificate names.
    pub client: ClientId,
    /// The client's certificate.
    pub certificate: Der,
    /// The federation's authority.
    pub authority: Der,
    /// The key with which the server signs plans.
    pub plan_key: PublicKey,
}

/// A certificate in DER, hexadecimal in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Der(pub CertificateDer<'static>);

impl Serialize for Der {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let der = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Der(der.into()))
    }
}

/// Why the server gives no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No invitation has this token.
    #[error("the server knows no such invitation")]
    UnknownToken,
    /// The invitation was not redeemed in time.
    #[error("the invitation has expired; ask for a new one")]
    Expired,
    /// The token was redeemed for another key.
    #[error("the invitation has already been used; ask for a new one, and say so if it was not you")]
    AlreadyUsed,
    /// The client is shut out.
    #[error("this client has been revoked")]
    Revoked,
    /// The sender does not hold the key's private half, or the request is from another connection.
    #[error("the request does not prove possession of its key")]
    BadProof,
    /// A renewal by a connection without a certificate, or with one that is no longer the client's.
    #[error("only an enrolled client can renew its certificate")]
    NotEnrolled,
    /// The authority is apart from the server, and the server has no roster that lists the client.
    #[error(
        "the server has no roster that lists this client; its operator has to install the authority's newest one"
    )]
    NotListed,
    /// The authority is apart from the server, and has not signed a newer certificate.
    #[error("the authority has signed no newer certificate for this client")]
    NotRenewed,
    /// Not a request.
    #[error("the server does not understand the request")]
    Malformed,
    /// Something failed at the server.
    #[error("the server failed; its log says why; try again later")]
    ServerFailure,
}

/// Why enrolment fails, as the client sees it.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The state directory belongs to an enrolled client.
    #[error("this directory already holds an enrolled client; choose another one")]
    AlreadyEnrolled,
    /// The state directory belongs to a client of an authority that is apart.
    #[error(
        "the certificate in this directory was of an authority apart from the server, which this invitation is not; choose another directory"
    )]
    ListedBefore,
    /// The invitation's expiry is past.
    #[error("the invitation has expired; ask for a new one")]
    InvitationExpired,
    /// The server gives none.
    #[error("the server refused: {0}")]
    Refused(#[from] Refusal),
    /// The response is none, or for another client or federation.
    #[error("the server's response is wrong: {0}")]
    BadResponse(String),
    /// The client is listed with another key than the one in its directory.
    #[error(
        "the server's roster lists this client with another key than this directory has: its operator has to install the authority's \
         newest one, unless the line is for another directory"
    )]
    OtherKey,
    /// The connection failed.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The identity cannot be made or stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Redeems `invitation` and stores the identity in `directory`, which is made if need be.
///
/// # Errors
/// [`EnrolError`]; whatever failed, the same call may be repeated until the invitation expires.
pub async fn enrol(
    invitation: &Invitation,
    directory: &Path,
    dial: impl Into<Dial<'_>>,
) -> Result<Identity, EnrolError> {
    let (now, dial) = (SystemTime::now(), dial.into());
    let never_listed = || match former(directory, now)? {
        Some(former) if former.roster().is_some() => Err(EnrolError::ListedBefore),
        _ => Ok(()),
    };
    never_listed()?;
    if invitation.has_expired(now) {
        return Err(EnrolError::InvitationExpired);
    }
    files::private_directory(directory)?;
    let key = identity::key_in(directory)?;
    let config = tls::enrolment_config(invitation.authority)?;
    let mut connection = connect(&invitation.addresses, config, Purpose::Enrolment, dial).await?;
    let request = EnrolmentRequest::redeem(invitation.token.clone(), &key, connection.channel_binding);
    let grant = exchange(&mut connection, &request, dial.timeouts).await?;
    let Invitation { client, authority, addresses, .. } = invitation;
    let _held = identity::hold(directory)?;
    never_listed()?;
    accept_grant(grant, key, *client, *authority, addresses, None, directory)
}

/// Fetches the certificate of a client that an authority apart from the server has listed, for the key that is in `directory`
/// since [`key_in`](identity::key_in) made it, and stores the identity there. A later roster of that authority that the directory
/// knows of stays the last that was seen, however old the line is.
///
/// # Errors
/// [`EnrolError`]; whatever failed, the same call may be repeated.
pub async fn enrol_listed(
    listing: &Listing,
    directory: &Path,
    dial: impl Into<Dial<'_>>,
) -> Result<Identity, EnrolError> {
    let (now, dial) = (SystemTime::now(), dial.into());
    former(directory, now)?;
    files::private_directory(directory)?;
    let key = identity::key_in(directory)?;
    let config = tls::enrolment_config(listing.authority)?;
    let mut connection = connect(&listing.addresses, config, Purpose::Enrolment, dial).await?;
    let request = EnrolmentRequest::Listed { client: listing.client };
    let grant = exchange(&mut connection, &request, dial.timeouts).await?;
    if tls::client_named_by(&grant.certificate.0)?.public_key != key.public_key() {
        return Err(EnrolError::OtherKey);
    }
    let Listing { client, authority, addresses, sequence } = listing;
    let _held = identity::hold(directory)?;
    let former = former(directory, now)?.filter(|former| former.authority() == *authority);
    let seen = former.and_then(|former| former.roster()).filter(|seen| seen.sequence >= *sequence);
    let pin = seen.unwrap_or(RosterPin { sequence: *sequence, root: None });
    accept_grant(grant, key, *client, *authority, addresses, Some(pin), directory)
}

/// Has the certificate of an enrolled client renewed, while the old one is still good, and stores it in `directory`.
///
/// # Errors
/// [`EnrolError`]; the old certificate then stays in place.
pub async fn renew(
    old: &Identity,
    directory: &Path,
    dial: impl Into<Dial<'_>>,
) -> Result<Identity, EnrolError> {
    let dial = dial.into();
    let config = old.tls()?;
    let mut connection = connect(old.addresses(), config, Purpose::Enrolment, dial).await?;
    let grant = exchange(&mut connection, &EnrolmentRequest::Renew, dial.timeouts).await?;
    // Whoever certifies clients does not thereby replace the key of plans: only that key hands over to another.
    let _held = identity::hold(directory)?;
    let known = Identity::load(directory)?;
    if tls::client_named_by(&grant.certificate.0)?.not_after <= known.not_after() {
        return Err(EnrolError::BadResponse("a certificate that is not good for longer".to_owned()));
    }
    let grant = Grant { plan_key: known.server().plan_key, ..grant };
    let key = identity::key_in(directory)?;
    let addresses = &old.server().addresses;
    accept_grant(grant, key, old.client(), old.authority(), addresses, known.roster(), directory)
}

/// Receives the request on a connection for enrolment; `None` when what came is not one.
///
/// # Errors
/// [`NetError`] when nothing comes within the handshake timeout, or the connection breaks.
pub async fn receive_request(
    connection: &mut Connection,
    timeouts: &Timeouts,
) -> Result<Option<EnrolmentRequest>, NetError> {
    receive(connection, timeouts).await.map(Result::ok)
}

/// Sends the response, after which the server has nothing more to say.
///
/// # Errors
/// [`NetError`] when the connection breaks.
pub async fn send_response(mut connection: Connection, response: &EnrolmentResponse) -> Result<(), NetError> {
    send(&mut connection, response).await?;
    connection.sink.close().await
}

async fn exchange(
    connection: &mut Connection,
    request: &EnrolmentRequest,
    timeouts: &Timeouts,
) -> Result<Grant, EnrolError> {
    send(connection, request).await?;
    match receive(connection, timeouts).await?.map_err(EnrolError::BadResponse)? {
        EnrolmentResponse::Granted(grant) => Ok(grant),
        EnrolmentResponse::Refused(refusal) => Err(refusal.into()),
    }
}

/// What makes way for a new identity in `directory`.
fn former(directory: &Path, now: SystemTime) -> Result<Option<Identity>, EnrolError> {
    identity::former(directory, now).ok_or(EnrolError::AlreadyEnrolled)
}

/// The caller holds the directory.
fn accept_grant(
    grant: Grant,
    key: SigningKey,
    client: ClientId,
    authority: Fingerprint,
    addresses: &[Address],
    roster: Option<RosterPin>,
    directory: &Path,
) -> Result<Identity, EnrolError> {
    let wrong = |reason: &str| Err(EnrolError::BadResponse(reason.to_owned()));
    if grant.client != client {
        return wrong("a certificate for another client");
    }
    if Fingerprint::of(&grant.authority.0) != authority {
        return wrong("a certificate of another federation");
    }
    let server = ServerRecord { client, addresses: addresses.to_vec(), plan_key: grant.plan_key, roster };
    let identity = Identity::assemble(key, grant.certificate.0, grant.authority.0, server)?;
    identity.tls()?;
    identity.store(directory)?;
    Ok(identity)
}

async fn send(connection: &mut Connection, message: &impl Serialize) -> Result<(), NetError> {
    let json = serde_json::to_vec(message).expect("these messages have no maps and no failing serialisers");
    connection.sink.send(&Frame::Control(json.into())).await
}

async fn receive<T: DeserializeOwned>(
    connection: &mut Connection,
    timeouts: &Timeouts,
) -> Result<Result<T, String>, NetError> {
    let frame = timeout(timeouts.handshake, connection.stream.receive())
        .await
        .map_err(|_| NetError::Idle(timeouts.handshake))??;
    Ok(match frame {
        Some(Frame::Control(json)) if json.len() <= MESSAGE_LIMIT => {
            serde_json::from_slice(&json).map_err(|error| error.to_string())
        }
        Some(Frame::Control(json)) => Err(format!("{} bytes; {MESSAGE_LIMIT} are allowed", json.len())),
        Some(Frame::Chunk(_)) => Err("a chunk".to_owned()),
        None => Err("none came".to_owned()),
    })
}

impl From<FileError> for EnrolError {
    fn from(error: FileError) -> Self {
        IdentityError::from(error).into()
    }
}

impl From<TlsError> for EnrolError {
    fn from(error: TlsError) -> Self {
        IdentityError::from(error).into()
    }
}

fn proven(token: &Token, binding: ChannelBinding) -> Vec<u8> {
    let mut writer = Writer::new("skep enrolment proof v1");
    writer.array(&binding.0).array(&token.digest().0);
    writer.finish()
}

const MESSAGE_LIMIT: usize = 16 << 10;
