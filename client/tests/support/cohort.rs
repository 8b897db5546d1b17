//! The others of a masked round, each with the cryptography of the product and no socket; and what an honest server makes of their
//! words for the one client that has a socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use skep_client::masking::{Credentials, Masking};
use skep_privacy::prg::Key;
use skep_privacy::secagg::{Identity, IdentityKey, Signature};
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::masked::{Body, Delivery, Envelope, Introduction, Peers, Shares, Signatures, Survivors};
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::tls::PeerVerifier;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::{Decline, Phase};
use skep_protocol::{ClientId, Digest};

use super::server::Federation;

/// A client's identity, and whom it believes.
struct Certified {
    key: SigningKey,
    verifier: PeerVerifier,
}

impl Identity for Certified {
    fn public_key(&self) -> IdentityKey {
        self.key.public_key().0
    }

    fn sign(&self, text: &[u8]) -> Signature {
        self.key.sign(text).0
    }
}

impl Credentials for Certified {
    fn identity_of(&self, client: ClientId, certificate: &[u8]) -> Result<IdentityKey, Decline> {
        match self.verifier.verify(certificate, SystemTime::now()) {
            Ok(peer) if peer.client == client => Ok(peer.public_key.0),
            _ => Err(Decline::UnknownPeer),
        }
    }
}

/// The cohort of a round but for one client, and what has been said.
pub struct Others {
    plan: Arc<VerifiedPlan>,
    others: BTreeMap<ClientId, Masking>,
    introductions: BTreeMap<ClientId, Introduction>,
    /// By sender.
    envelopes: BTreeMap<ClientId, Vec<Envelope>>,
    signatures: BTreeMap<ClientId, [u8; 64]>,
}

impl Others {
    /// Everybody in the plan's cohort but `client` makes keys.
    pub fn of(federation: &Federation, plan: &Arc<VerifiedPlan>, client: ClientId) -> Self {
        let (mut others, mut introductions) = (BTreeMap::new(), BTreeMap::new());
        for &other in plan.plan().cohort.clients().iter().filter(|other| **other != client) {
            let (masking, introduction) = introduced(federation, plan, other);
            others.insert(other, masking);
            introductions.insert(other, introduction);
        }
        let (envelopes, signatures) = (BTreeMap::new(), BTreeMap::new());
        Others { plan: Arc::clone(plan), others, introductions, envelopes, signatures }
    }

    /// Another identity under the name of a client that has one, which another federation certifies.
    pub fn impostor(&self, of: &Federation, client: ClientId) -> Introduction {
        introduced(of, &self.plan, client).1
    }

    /// The client's keys have come; its peers share their secrets.
    pub fn introduce(&mut self, client: ClientId, certificate: &[u8], advert: Vec<u8>) {
        self.introductions.insert(client, Introduction { certificate: certificate.to_vec(), advert });
        for other in self.ids() {
            let peers = self.peers(other).to_bytes();
            let said = self.step(other, Phase::Shares, &peers);
            self.envelopes.insert(other, Shares::from_bytes(&said).unwrap().0);
        }
    }

    /// The client's shares have come; its peers mask their updates.
    pub fn share(&mut self, client: ClientId, shares: &[u8]) {
        self.envelopes.insert(client, Shares::from_bytes(shares).unwrap().0);
        let grid = self.plan.plan().grid().unwrap();
        let nothing = QuantizedUpdate::verify(vec![0; grid.dimension()], &grid).unwrap();
        for other in self.ids() {
            let delivery = self.delivery(other).to_bytes();
            self.step(other, Phase::Collecting, &delivery);
            self.others.get_mut(&other).unwrap().mask(&nothing).unwrap();
        }
    }

    /// All updates are in the sum; the peers agree to that.
    pub fn agree(&mut self) {
        let survivors = self.survivors().to_bytes();
        for other in self.ids() {
            let signature = self.step(other, Phase::Consistency, &survivors);
            self.signatures.insert(other, signature.try_into().unwrap());
        }
    }

    /// What an honest server asks a client in each phase.
    pub fn peers(&self, to: ClientId) -> Peers {
        let others = self.introductions.iter().filter(|(client, _)| **client != to);
        Peers(others.map(|(client, introduction)| (*client, introduction.clone())).collect())
    }

    pub fn delivery(&self, to: ClientId) -> Delivery {
        let inbox = self.envelopes.iter().flat_map(|(&from, sent)| {
            let sealed = sent.iter().find(|envelope| envelope.peer == to)?.sealed.clone();
            Some(Envelope { peer: from, sealed })
        });
        Delivery { shared: self.introductions.keys().copied().collect(), inbox: inbox.collect() }
    }

    pub fn survivors(&self) -> Survivors {
        Survivors(self.introductions.keys().copied().collect())
    }

    pub fn signatures(&self) -> Signatures {
        Signatures(self.signatures.iter().map(|(client, signature)| (*client, *signature)).collect())
    }

    fn ids(&self) -> Vec<ClientId> {
        self.others.keys().copied().collect()
    }

    fn step(&mut self, other: ClientId, phase: Phase, request: &[u8]) -> Vec<u8> {
        self.others.get_mut(&other).unwrap().step(phase, request).unwrap()
    }
}

fn introduced(federation: &Federation, plan: &VerifiedPlan, client: ClientId) -> (Masking, Introduction) {
    let (key, certificate) = federation.certify(client.0);
    let credentials = Arc::new(Certified { key, verifier: federation.verifier() });
    let smallest = plan.plan().cohort_max;
    let (masking, advert) =
        Masking::begin(plan, smallest, client, &Digest([9; 32]), credentials, &Key::from_os().unwrap())
            .unwrap();
    (masking, Introduction { certificate: certificate.to_vec(), advert })
}
