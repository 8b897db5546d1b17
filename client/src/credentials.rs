//! What an enrolled client's certificate is good for among its peers.

use std::sync::Arc;
use std::time::SystemTime;

use skep_privacy::secagg::{self, IdentityKey, Signature};
use skep_protocol::ClientId;
use skep_protocol::net::tls::{PeerVerifier, TlsError};
use skep_protocol::round::Decline;
use tracing::warn;

use crate::join::Pass;
use crate::masking::Credentials;

/// The identity of an enrolled client, whose key stays when its certificate is renewed, and which believes its federation's authority about everybody else.
pub(crate) struct Certified {
    pass: Arc<Pass>,
    verifier: PeerVerifier,
}

impl Certified {
    /// # Errors
    /// [`TlsError`] when the authority's certificate is unusable.
    pub(crate) fn new(pass: Arc<Pass>) -> Result<Self, TlsError> {
        let verifier = PeerVerifier::new(pass.identity.authority_certificate())?;
        Ok(Certified { pass, verifier })
    }
}

impl secagg::Identity for Certified {
    fn public_key(&self) -> IdentityKey {
        self.pass.identity.public_key().0
    }

    fn sign(&self, text: &[u8]) -> Signature {
        self.pass.identity.sign(text).0
    }
}

impl Credentials for Certified {
    fn identity_of(&self, client: ClientId, certificate: &[u8]) -> Result<IdentityKey, Decline> {
        match self.verifier.verify(certificate, SystemTime::now()) {
            Ok(peer) if peer.client == client => Ok(peer.public_key.0),
            Ok(peer) => {
                warn!(%client, named = %peer.client, "a peer shows the certificate of another");
                Err(Decline::UnknownPeer)
            }
            Err(error) => {
                warn!(%client, %error, "a peer's certificate is refused");
                Err(Decline::UnknownPeer)
            }
        }
    }
}
