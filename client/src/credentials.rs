//! What an enrolled client's certificate is good for among its peers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use skep_privacy::secagg::{self, IdentityKey, Signature};
use skep_protocol::ClientId;
use skep_protocol::net::tls::{PeerIdentity, PeerVerifier, TlsError};
use skep_protocol::round::Decline;
use tracing::warn;

use crate::join::Pass;
use crate::masking::Credentials;

/// The identity of an enrolled client, whose key stays when its certificate is renewed, and which believes its federation's authority about everybody else.
pub(crate) struct Certified {
    pass: Arc<Pass>,
    verifier: PeerVerifier,
    /// Peers as their last good certificates name them: the authority's signature on one is checked once, not in every round.
    known: Mutex<BTreeMap<ClientId, PeerIdentity>>,
}

impl Certified {
    /// # Errors
    /// [`TlsError`] when the authority's certificate is unusable.
    pub(crate) fn new(pass: Arc<Pass>) -> Result<Self, TlsError> {
        let verifier = PeerVerifier::new(pass.identity.authority_certificate())?;
        Ok(Certified { pass, verifier, known: Mutex::default() })
    }

    /// The identity key in a certificate that is good now, and names this client.
    fn key_in(&self, client: ClientId, certificate: &[u8], now: SystemTime) -> Result<IdentityKey, Decline> {
        match self.verifier.verify(certificate, now) {
            Ok(peer) if peer.client == client => {
                let key = peer.public_key.0;
                self.known().insert(client, peer);
                Ok(key)
            }
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

    /// Nothing is left half done where a thread panics.
    fn known(&self) -> MutexGuard<'_, BTreeMap<ClientId, PeerIdentity>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let now = SystemTime::now();
        let same = |peer: &&PeerIdentity| *peer.certificate == *certificate && peer.is_good_at(now);
        let known = self.known().get(&client).filter(same).map(|peer| peer.public_key.0);
        known.map_or_else(|| self.key_in(client, certificate, now), Ok)
    }
}
