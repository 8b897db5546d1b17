//! What an enrolled client's certificate is good for among its peers.
//!
//! Where the federation's authority is apart from the server, a certificate is not enough: the peer has to be in a roster that the
//! authority has signed, the same for all peers of a round, and not older than the last that the client has seen.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use skep_privacy::secagg::{self, IdentityKey, Signature};
use skep_protocol::ClientId;
use skep_protocol::net::identity::{Identity, RosterPin};
use skep_protocol::net::keys::PublicKey;
use skep_protocol::net::roster::{Membership, SignedHead};
use skep_protocol::net::tls::{self, PeerIdentity, PeerVerifier, TlsError};
use skep_protocol::round::Decline;
use tracing::{error, warn};

use crate::join::Pass;
use crate::masking::Credentials;

/// The identity of an enrolled client, whose key stays when its certificate is renewed, and which believes its federation's authority about everybody else.
pub(crate) struct Certified {
    pass: Arc<Pass>,
    verifier: PeerVerifier,
    /// Peers as their last good certificates name them: the authority's signature on one is checked once, not in every round.
    known: Mutex<BTreeMap<ClientId, PeerIdentity>>,
    roster: Option<Pinned>,
}

/// The roster of an authority that is apart, as far as it is known.
struct Pinned {
    authority: PublicKey,
    /// The last that was seen.
    seen: Mutex<RosterPin>,
    /// Where it is written down.
    state: Option<PathBuf>,
}

impl Certified {
    /// # Errors
    /// [`TlsError`] when the authority's certificate is unusable.
    pub(crate) fn new(pass: Arc<Pass>, state: Option<PathBuf>) -> Result<Self, TlsError> {
        let certificate = pass.identity.authority_certificate();
        let verifier = PeerVerifier::new(certificate)?;
        let authority = tls::certified_key(certificate)?;
        let pinned = |seen| Pinned { authority, seen: Mutex::new(seen), state };
        let roster = pass.identity.roster().map(pinned);
        Ok(Certified { pass, verifier, known: Mutex::default(), roster })
    }

    /// The identity key in a certificate that is good now, and names this client.
    fn key_in(&self, client: ClientId, certificate: &[u8], now: SystemTime) -> Result<IdentityKey, Decline> {
        match self.verifier.verify(certificate, now) {
            Ok(peer) if peer.client == client => {
                let key = peer.public_key.0;
                lock(&self.known).insert(client, peer);
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
}

impl Pinned {
    /// Takes a roster for the newest one, if it may be.
    fn go_over_to(&self, signed: &SignedHead) -> Result<(), Decline> {
        let pin = RosterPin::from(&signed.head);
        let mut seen = lock(&self.seen);
        if !seen.admits(&pin) {
            warn!(
                shown = pin.sequence,
                seen = seen.sequence,
                "an older roster, or another of the same number"
            );
            return Err(Decline::StaleRoster);
        }
        if *seen != pin {
            if let Some(Err(error)) = self.state.as_ref().map(|state| Identity::pin_roster(state, pin)) {
                error!(%error, "the roster cannot be noted, so it is not believed");
                return Err(Decline::StaleRoster);
            }
            *seen = pin;
        }
        Ok(())
    }

    /// What a peer shows, if it is in the roster that all show.
    fn shown(
        &self,
        client: ClientId,
        shown: &[u8],
        common: &mut Option<SignedHead>,
    ) -> Result<Membership, Decline> {
        let membership = Membership::from_bytes(shown).map_err(|_| {
            warn!(%client, "a peer is shown without its place in the roster of the authority");
            Decline::UnlistedPeer
        })?;
        match common {
            Some(common) if *common != membership.signed => {
                warn!(%client, shown = membership.signed.head.sequence, "not all peers are of one roster");
                return Err(Decline::StaleRoster);
            }
            Some(_) => {}
            None => {
                membership.signed.verify(&self.authority).map_err(|error| {
                    warn!(%client, %error, "a peer is refused");
                    Decline::UnlistedPeer
                })?;
                *common = Some(membership.signed);
            }
        }
        Ok(membership)
    }
}

/// Nothing is left half done where a thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let known = lock(&self.known).get(&client).filter(same).map(|peer| peer.public_key.0);
        known.map_or_else(|| self.key_in(client, certificate, now), Ok)
    }

    fn identities_of(&self, peers: &[(ClientId, &[u8])]) -> Result<Vec<IdentityKey>, Decline> {
        let Some(pinned) = &self.roster else {
            return peers.iter().map(|&(client, shown)| self.identity_of(client, shown)).collect();
        };
        let mut common = None;
        let listed = |&(client, shown): &(ClientId, &[u8])| {
            let membership = pinned.shown(client, shown, &mut common)?;
            let key = self.identity_of(client, &membership.certificate)?;
            membership.check(client, &PublicKey(key)).map_err(|error| {
                warn!(%client, %error, "a peer is refused");
                Decline::UnlistedPeer
            })?;
            Ok(key)
        };
        let identities = peers.iter().map(listed).collect::<Result<Vec<_>, Decline>>()?;
        // Only what the authority has signed moves it.
        if let Some(signed) = &common {
            pinned.go_over_to(signed)?;
        }
        Ok(identities)
    }
}

#[cfg(test)]
mod tests;
