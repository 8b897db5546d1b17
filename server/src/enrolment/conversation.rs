//! The server's half of an enrolment: one request, one decision, one response.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_protocol::net::enrolment::{
    Der, EnrolmentRequest, EnrolmentResponse, Grant, receive_request, send_response, verify_proof,
};
use skep_protocol::net::keys::PublicKey;
use skep_protocol::net::tls::{self, PeerIdentity};
use skep_protocol::net::websocket::{Connection, Timeouts};
use skep_protocol::plan::PlanKey;
use skep_protocol::{ChannelBinding, ClientId};

use super::{Enrolled, Enrolment, EnrolmentError};
use crate::authority::Authority;

/// What a client is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// How long its certificate is good.
    pub validity: Duration,
    /// The key whose plans it shall believe: that of the ledger.
    pub plan_key: PlanKey,
}

/// Decides on one request that came over a connection with this `binding` from `peer`, and issues the certificate.
/// Touches the disk: in an asynchronous server, run it where blocking is allowed.
///
/// # Errors
/// [`EnrolmentError`]; its [`EnrolmentError::refusal`] is what the client is to hear.
pub fn decide(
    authority: &Authority,
    enrolment: &Enrolment,
    request: &EnrolmentRequest,
    peer: Option<&PeerIdentity>,
    binding: ChannelBinding,
    now: SystemTime,
    conditions: Conditions,
) -> Result<Grant, EnrolmentError> {
    let grant = |client, certificate| Grant {
        client,
        certificate: Der(certificate),
        authority: Der(authority.certificate().clone()),
        plan_key: PublicKey(conditions.plan_key.0),
    };
    let (client, public_key) = match request {
        EnrolmentRequest::Listed { client } => {
            let (certificate, _) = authority.listed(*client).ok_or(EnrolmentError::NotListed)?;
            return Ok(grant(*client, certificate));
        }
        EnrolmentRequest::Renew if authority.is_apart() => {
            let peer = peer.ok_or(EnrolmentError::NotEnrolled)?;
            enrolment.check(peer, now)?;
            let (certificate, key) = authority.listed(peer.client).ok_or(EnrolmentError::NotListed)?;
            let newer =
                tls::client_named_by(&certificate).is_ok_and(|named| named.not_after > peer.not_after);
            return match newer && key == peer.public_key {
                true => Ok(grant(peer.client, certificate)),
                false => Err(EnrolmentError::NotRenewed),
            };
        }
        EnrolmentRequest::Redeem { token, public_key, proof } => {
            verify_proof(token, public_key, binding, proof).map_err(|_| EnrolmentError::BadProof)?;
            (enrolment.redeem(token, *public_key, now)?, *public_key)
        }
        EnrolmentRequest::Renew => {
            let peer = peer.ok_or(EnrolmentError::NotEnrolled)?;
            enrolment.check(peer, now)?;
            (peer.client, peer.public_key)
        }
    };
    let issued = authority.issue(client, public_key, now, conditions.validity)?;
    let PeerIdentity { serial, not_after, .. } = issued.identity;
    enrolment.enrol(&Enrolled { client, public_key, serial, not_after })?;
    Ok(grant(client, issued.certificate))
}

/// Serves a connection for enrolment: one request, one response. Says what was decided, for the log.
///
/// # Errors
/// [`EnrolmentError`]; the client has then been told the [`Refusal`](skep_protocol::net::enrolment::Refusal), unless it was the connection that failed.
pub async fn serve(
    authority: Arc<Authority>,
    enrolment: Enrolment,
    mut connection: Connection,
    peer: Option<PeerIdentity>,
    conditions: Conditions,
    timeouts: &Timeouts,
) -> Result<ClientId, EnrolmentError> {
    let binding = connection.channel_binding;
    let decision = match receive_request(&mut connection, timeouts).await? {
        None => Err(EnrolmentError::Malformed),
        Some(request) => {
            let now = SystemTime::now();
            let decide =
                move || decide(&authority, &enrolment, &request, peer.as_ref(), binding, now, conditions);
            tokio::task::spawn_blocking(decide).await.unwrap_or(Err(EnrolmentError::Interrupted))
        }
    };
    let (response, outcome) = match decision {
        Ok(grant) => {
            let client = grant.client;
            (EnrolmentResponse::Granted(grant), Ok(client))
        }
        Err(error) => (EnrolmentResponse::Refused(error.refusal()), Err(error)),
    };
    let sent = send_response(connection, &response).await;
    outcome.and_then(|client| sent.map(|()| client).map_err(EnrolmentError::from))
}
