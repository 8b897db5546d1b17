//! A client's work in a masked round: it makes keys, shares its secrets, masks its update, agrees to the survivors, and
//! reveals the shares that it holds. The cryptography and its checks are `skep_privacy::secagg`'s; here they meet the
//! messages, the certificates and the plan.
//!
//! Whatever a step refuses ends the client's part: its secrets are wiped, and there is nothing left to ask again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skep_privacy::prg::{Key, Prg, PrgError};
use skep_privacy::secagg::client::{self, Advertised, Consent, Masked, Paired, Shared, Signed};
use skep_privacy::secagg::{AdvertError, Envelope, Identity, IdentityKey, Party, Peer, Refusal};
use skep_privacy::sum::Summand;
use skep_protocol::masked::{self, Body, Delivery, Peers, Shares, Signatures, Survivors};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::{Decline, Phase};
use skep_protocol::{ClientId, Digest};
use tracing::warn;

/// Who a client is to its peers, and how it knows them.
pub trait Credentials: Identity + Send + Sync {
    /// The identity key of a peer, from its certificate alone.
    ///
    /// # Errors
    /// [`Decline::UnknownPeer`] when the certificate is not of this federation, is out of date, or names another client.
    fn identity_of(&self, client: ClientId, certificate: &[u8]) -> Result<IdentityKey, Decline>;

    /// Those of all peers of a round.
    ///
    /// # Errors
    /// As [`Credentials::identity_of`]; where an authority apart from the server lists the members, also [`Decline::UnlistedPeer`] and
    /// [`Decline::StaleRoster`].
    fn identities_of(&self, peers: &[(ClientId, &[u8])]) -> Result<Vec<IdentityKey>, Decline> {
        peers.iter().map(|&(client, certificate)| self.identity_of(client, certificate)).collect()
    }
}

/// What hid updates that are in sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masks {
    /// Masks added to updates: each client's own, and one for each of its neighbours.
    pub applied: u64,
    /// Bytes of masked updates that were packed.
    pub bytes_packed: u64,
}

impl std::ops::AddAssign for Masks {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.bytes_packed += other.bytes_packed;
    }
}

/// A client's part in a masked round, between two steps.
pub struct Masking {
    me: ClientId,
    credentials: Arc<dyn Credentials>,
    rng: Prg,
    stage: Stage,
    /// The fewest updates in a sum, for which the noise was planned.
    fewest: usize,
    /// Masks of the update, once its neighbours are known.
    masks: usize,
    /// Identity keys of the peers, as their certificates gave them.
    identities: BTreeMap<ClientId, IdentityKey>,
}

enum Stage {
    Advertised(Advertised),
    Shared(Shared),
    Paired(Paired),
    Masked(Masked),
    Signed(Signed),
    /// Over, well or not.
    Spent,
}

impl Masking {
    /// Makes keys, and what tells the peers of them. `connection` is the name of the connection that this is said on; `key`
    /// is used for this round alone.
    ///
    /// # Errors
    /// [`Decline::SmallCohort`] or [`Decline::WeakThreshold`] when the plan does not hide the update by the client's own
    /// reckoning.
    pub fn begin(
        plan: &VerifiedPlan,
        min_cohort: u32,
        me: ClientId,
        connection: &Digest,
        credentials: Arc<dyn Credentials>,
        key: &Key,
    ) -> Result<(Self, Vec<u8>), Decline> {
        let session = masked::session(plan, me, min_cohort)?;
        let mut rng = key.stream();
        let (advertised, advert) =
            client::advertise(&session, party(me), &connection.0, &*credentials, &mut rng)
                .map_err(|refusal| decline(&refusal))?;
        let stage = Stage::Advertised(advertised);
        let fewest = plan.plan().masking().map_or(0, |masking| masking.group_min_updates) as usize;
        let masking = Masking { me, credentials, rng, stage, fewest, masks: 0, identities: BTreeMap::new() };
        Ok((masking, advert))
    }

    /// Takes what is asked in a phase, and makes the answer. In [`Phase::Collecting`] the answer is the masked update, which
    /// [`Masking::mask`] makes; this answer is empty.
    ///
    /// # Errors
    /// The [`Decline`] that the server is told. The client's part is over then.
    pub fn step(&mut self, phase: Phase, request: &[u8]) -> Result<Vec<u8>, Decline> {
        match (phase, std::mem::replace(&mut self.stage, Stage::Spent)) {
            (Phase::Shares, Stage::Advertised(advertised)) => self.share(advertised, &read(request)?),
            (Phase::Collecting, Stage::Shared(shared)) => self.receive(shared, read(request)?),
            (Phase::Consistency, Stage::Masked(masked)) => self.sign(masked, &read(request)?),
            (Phase::Reveal, Stage::Signed(signed)) => self.reveal(signed, &read(request)?),
            _ => Err(Decline::OutOfTurn),
        }
    }

    /// Masks the update, and packs it. The masks are gone afterwards.
    ///
    /// # Errors
    /// [`Decline::OutOfTurn`] unless the shares of the others have come, [`Decline::Unencodable`] when the update is not as
    /// long as the plan says.
    pub fn mask(&mut self, update: &impl Summand) -> Result<Vec<u8>, Decline> {
        match std::mem::replace(&mut self.stage, Stage::Spent) {
            Stage::Paired(paired) => {
                let (masked, update) = paired.mask(update).map_err(|why| self.refuse(&why))?;
                self.stage = Stage::Masked(masked);
                Ok(update.into_bytes())
            }
            _ => Err(Decline::OutOfTurn),
        }
    }

    /// How many masks hide the update: the client's own, and one for each neighbour. None before the shares have come, and
    /// after the update is masked.
    pub fn masks(&self) -> Option<usize> {
        match &self.stage {
            Stage::Paired(_) => Some(self.masks),
            _ => None,
        }
    }

    fn share(&mut self, advertised: Advertised, peers: &Peers) -> Result<Vec<u8>, Decline> {
        let others = peers.0.iter().filter(|(client, _)| *client != self.me);
        let shown: Vec<_> =
            others.map(|(client, introduction)| (*client, introduction.certificate.as_slice())).collect();
        let identities = self.credentials.identities_of(&shown)?;
        self.identities.extend(shown.iter().map(|(client, _)| *client).zip(identities));
        let known = peers.0.iter().filter_map(|(client, introduction)| {
            let identity = *self.identities.get(client)?;
            Some(Peer { party: party(*client), identity, advert: &introduction.advert })
        });
        let (shared, envelopes) =
            advertised.share(&known.collect::<Vec<_>>(), &mut self.rng).map_err(|why| self.refuse(&why))?;
        self.stage = Stage::Shared(shared);
        let envelope = |Envelope { peer, sealed }| masked::Envelope { peer: ClientId(peer.0), sealed };
        Ok(Shares(envelopes.into_iter().map(envelope).collect()).to_bytes())
    }

    fn receive(&mut self, shared: Shared, delivery: Delivery) -> Result<Vec<u8>, Decline> {
        let envelope = |masked::Envelope { peer, sealed }| Envelope { peer: party(peer), sealed };
        let inbox: Vec<_> = delivery.inbox.into_iter().map(envelope).collect();
        let paired = shared.receive(&parties(&delivery.shared), &inbox).map_err(|why| self.refuse(&why))?;
        for peer in paired.complaints() {
            warn!(client = %self.me, %peer, "a share does not open: its sender or the server altered it");
        }
        self.masks = 1 + delivery.shared.iter().filter(|client| self.identities.contains_key(client)).count();
        self.stage = Stage::Paired(paired);
        Ok(Vec::new())
    }

    fn sign(&mut self, masked: Masked, survivors: &Survivors) -> Result<Vec<u8>, Decline> {
        if survivors.0.len() < self.fewest {
            warn!(client = %self.me, survivors = survivors.0.len(), "the round is refused: too few survivors");
            return Err(Decline::BadSurvivors);
        }
        let (signed, signature) =
            masked.sign(&parties(&survivors.0), &*self.credentials).map_err(|why| self.refuse(&why))?;
        self.stage = Stage::Signed(signed);
        Ok(signature.to_vec())
    }

    fn reveal(&mut self, signed: Signed, signatures: &Signatures) -> Result<Vec<u8>, Decline> {
        let consents: Vec<_> = signatures
            .0
            .iter()
            .filter_map(|(client, signature)| {
                self.identities
                    .contains_key(client)
                    .then_some(Consent { party: party(*client), signature: *signature })
            })
            .collect();
        signed.reveal(&consents).map_err(|why| self.refuse(&why))
    }

    fn refuse(&self, refusal: &Refusal) -> Decline {
        warn!(client = %self.me, reason = %refusal, "the round is refused");
        decline(refusal)
    }
}

impl std::fmt::Debug for Masking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masking({})", self.me)
    }
}

/// A key for the secrets of one round: from the operating system, never from a seed outside of simulations.
///
/// # Errors
/// [`PrgError::NoEntropy`].
pub fn fresh_key() -> Result<Key, PrgError> {
    Key::from_os()
}

fn read<B: Body>(request: &[u8]) -> Result<B, Decline> {
    B::from_bytes(request).map_err(|_| Decline::BadPeers)
}

fn party(client: ClientId) -> Party {
    Party(client.0)
}

fn parties(clients: &[ClientId]) -> Vec<Party> {
    clients.iter().copied().map(party).collect()
}

/// What the server is told of a refusal; the client's own log says more.
fn decline(refusal: &Refusal) -> Decline {
    match refusal {
        Refusal::NotInCohort(_)
        | Refusal::TooMany { .. }
        | Refusal::Order
        | Refusal::NotANeighbour(_)
        | Refusal::LeftOut => Decline::BadPeers,
        Refusal::Advert { reason, .. } => match reason {
            AdvertError::Signature | AdvertError::Connection => Decline::UnsignedKeys,
            AdvertError::DuplicateKey(_) => Decline::DuplicateKeys,
            AdvertError::InDegree(_) => Decline::Flooded,
            AdvertError::NotInCohort => Decline::UnknownPeer,
            AdvertError::Wire(_)
            | AdvertError::Degree { .. }
            | AdvertError::Holders
            | AdvertError::SmallOrder => Decline::BadKeys,
        },
        Refusal::TooFewHolders { .. } => Decline::TooFewHolders,
        Refusal::UnexpectedEnvelope(_) | Refusal::MissingEnvelope(_) => Decline::BadShares,
        Refusal::SurvivorWithoutShares(_) => Decline::BadSurvivors,
        Refusal::Dimension { .. } => Decline::Unencodable,
        Refusal::NoAgreement { .. } => Decline::NoAgreement,
    }
}
