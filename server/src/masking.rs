//! The server's work in a masked round: it passes messages on, adds masked updates up, and takes the masks off the sum.
//!
//! The steps are `skep_privacy::secagg`'s; here they meet the round's phases, refusals and messages. A phase ends when the
//! machine asks for the next one. The server holds one sum, adverts, and envelopes of n·k; never an update.

use std::collections::BTreeMap;

use skep_privacy::packing::PackingError;
use skep_privacy::secagg::server::{Consistency, Directory, Input, Mailbox, Unmasking};
use skep_privacy::secagg::{
    self, Abort, AdvertError, Consent, Envelope, IdentityKey, Party, Peer, Rejection, Session, UnmaskedSum,
};
use skep_protocol::masked::{self, Body, Delivery, Introduction, Peers, Shares, Signatures, Survivors};
use skep_protocol::round::{AbortReason, Phase, Refusal};
use skep_protocol::{ClientId, Digest};
use tracing::{debug, warn};

/// Who answers, as its connection proves it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub client: ClientId,
    /// Its identity key.
    pub identity: IdentityKey,
    /// What proves that key to the peers.
    pub certificate: Vec<u8>,
    /// The names of its connections in this round, the latest last.
    pub connections: Vec<Digest>,
}

/// What is asked of one client.
pub type Asked = (ClientId, Vec<u8>);

/// A masked round between its first answer and its sum.
pub struct MaskedRound {
    stage: Stage,
    /// Certificates of those whose keys have arrived.
    certificates: BTreeMap<ClientId, Vec<u8>>,
}

enum Stage {
    Keys(Directory),
    Shares(Mailbox),
    Input(Input),
    Consistency(Consistency),
    Reveal(Unmasking),
    /// It was closed below its threshold.
    Failed,
}

impl MaskedRound {
    /// A round that nobody has answered in.
    #[must_use]
    pub fn new(session: &Session) -> Self {
        MaskedRound { stage: Stage::Keys(Directory::new(session)), certificates: BTreeMap::new() }
    }

    /// Takes what a client answers in a phase.
    ///
    /// # Errors
    /// The [`Refusal`] that the client is told; nothing has changed.
    pub fn answer(&mut self, caller: &Caller, phase: Phase, body: &[u8]) -> Result<(), Refusal> {
        let from = Party(caller.client.0);
        let taken = match (&mut self.stage, phase) {
            (Stage::Keys(directory), Phase::Keys) => advert(directory, caller, body).inspect(|()| {
                self.certificates.insert(caller.client, caller.certificate.clone());
            }),
            (Stage::Shares(mailbox), Phase::Shares) => {
                let Shares(envelopes) = Shares::from_bytes(body).map_err(|_| Refusal::Malformed)?;
                let envelope = |it: masked::Envelope| Envelope { peer: Party(it.peer.0), sealed: it.sealed };
                mailbox.accept(from, envelopes.into_iter().map(envelope).collect())
            }
            (Stage::Consistency(consistency), Phase::Consistency) => {
                let signature = body.try_into().map_err(|_| Refusal::Malformed)?;
                consistency.accept(from, signature)
            }
            (Stage::Reveal(unmasking), Phase::Reveal) => unmasking.accept(from, body),
            (stage, _) if stage.phase() > Some(phase) => return Err(Refusal::Late),
            _ => return Err(Refusal::Unexpected),
        };
        taken.map_err(|rejection| {
            debug!(client = %caller.client, %phase, %rejection, "an answer is refused");
            refusal(&rejection)
        })
    }

    /// What clients are asked in a phase. Ends the one before it, if it has not ended yet.
    ///
    /// # Errors
    /// The [`AbortReason`] of the round when too few have answered.
    pub fn ask(&mut self, phase: Phase, to: &[ClientId]) -> Result<Vec<Asked>, AbortReason> {
        if self.stage.phase() < Some(phase) {
            self.advance()?;
        }
        if self.stage.phase() != Some(phase) {
            return Err(AbortReason::ReleaseFailed);
        }
        Ok(to.iter().map(|&client| (client, self.request(client))).collect())
    }

    /// Adds a masked update to the sum.
    ///
    /// # Errors
    /// [`Rejection`]; the sum has not changed.
    pub fn commit(&mut self, client: ClientId, packed: &[u8]) -> Result<(), Rejection> {
        match &mut self.stage {
            Stage::Input(input) => input.commit(Party(client.0), packed),
            _ => Err(Rejection::NotTakingPart(Party(client.0))),
        }
    }

    /// Updates in the sum.
    pub fn members(&self) -> u32 {
        let members = match &self.stage {
            Stage::Input(input) => input.parties().len(),
            Stage::Consistency(consistency) => consistency.survivors().len(),
            _ => 0,
        };
        count(members)
    }

    /// Takes the masks off the sum.
    ///
    /// # Errors
    /// [`Abort`]; the sum is lost.
    pub fn unmask(self) -> Result<UnmaskedSum, UnmaskError> {
        let Stage::Reveal(unmasking) = self.stage else { return Err(UnmaskError::TooEarly) };
        let sum = unmasking.unmask()?;
        for liar in sum.liars() {
            warn!(client = %ClientId(liar.0), "revealed shares that it was never given; the others made up for it");
        }
        Ok(sum)
    }

    /// Closes the phase, with those who have answered.
    fn advance(&mut self) -> Result<(), AbortReason> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Keys(directory) => Stage::Shares(directory.close().map_err(|abort| abort_reason(&abort))?),
            Stage::Shares(mailbox) => Stage::Input(mailbox.close().map_err(|abort| abort_reason(&abort))?),
            Stage::Input(input) => Stage::Consistency(input.close().map_err(|abort| abort_reason(&abort))?),
            Stage::Consistency(consistency) => {
                let signed = count(consistency.parties().len());
                let closed = consistency.close();
                Stage::Reveal(closed.map_err(|abort| too_few_signed(abort_reason(&abort), signed))?)
            }
            last @ (Stage::Reveal(_) | Stage::Failed) => last,
        };
        Ok(())
    }

    fn request(&self, to: ClientId) -> Vec<u8> {
        let party = Party(to.0);
        match &self.stage {
            Stage::Shares(mailbox) => {
                let peer = |peer: Peer<'_>| {
                    let client = ClientId(peer.party.0);
                    let certificate = self.certificates.get(&client).cloned().unwrap_or_default();
                    (client, Introduction { certificate, advert: peer.advert.to_vec() })
                };
                Peers(mailbox.peers(party).into_iter().map(peer).collect()).to_bytes()
            }
            Stage::Input(input) => {
                let envelope = |envelope: &Envelope| masked::Envelope {
                    peer: ClientId(envelope.peer.0),
                    sealed: envelope.sealed.clone(),
                };
                let inbox = input.inbox(party).iter().map(envelope).collect();
                Delivery { shared: clients(input.shared()), inbox }.to_bytes()
            }
            Stage::Consistency(consistency) => Survivors(clients(consistency.survivors())).to_bytes(),
            Stage::Reveal(unmasking) => {
                let signed = |consent: Consent| (ClientId(consent.party.0), consent.signature);
                Signatures(unmasking.consents(party).into_iter().map(signed).collect()).to_bytes()
            }
            Stage::Keys(_) | Stage::Failed => Vec::new(),
        }
    }
}

impl Stage {
    /// The phase that answers are taken in, or updates.
    fn phase(&self) -> Option<Phase> {
        match self {
            Stage::Keys(_) => Some(Phase::Keys),
            Stage::Shares(_) => Some(Phase::Shares),
            Stage::Input(_) => Some(Phase::Collecting),
            Stage::Consistency(_) => Some(Phase::Consistency),
            Stage::Reveal(_) => Some(Phase::Reveal),
            Stage::Failed => None,
        }
    }
}

impl std::fmt::Debug for MaskedRound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MaskedRound({:?})", self.stage.phase())
    }
}

/// Why a sum is not unmasked.
#[derive(Debug, thiserror::Error)]
pub enum UnmaskError {
    /// Not enough was revealed, or it does not fit together.
    #[error(transparent)]
    Abort(#[from] Abort),
    /// Nothing has been revealed yet.
    #[error("nothing has been revealed yet")]
    TooEarly,
}

/// An advert is good on any connection of its client in this round: it may have been made on one and sent on the next.
fn advert(directory: &mut Directory, caller: &Caller, body: &[u8]) -> Result<(), Rejection> {
    let peer = Peer { party: Party(caller.client.0), identity: caller.identity, advert: body };
    let mut taken = Err(AdvertError::Connection.into());
    for connection in caller.connections.iter().rev() {
        taken = directory.accept(&peer, &connection.0);
        if !matches!(taken, Err(Rejection::Advert(AdvertError::Connection))) {
            break;
        }
    }
    taken
}

fn clients(parties: Vec<Party>) -> Vec<ClientId> {
    parties.into_iter().map(|party| ClientId(party.0)).collect()
}

fn refusal(rejection: &Rejection) -> Refusal {
    match rejection {
        Rejection::Twice(_) => Refusal::Duplicate,
        Rejection::NotTakingPart(_) => Refusal::Unexpected,
        Rejection::Signature | Rejection::Advert(AdvertError::Signature | AdvertError::Connection) => {
            Refusal::BadSignature
        }
        Rejection::Packing(PackingError::Length { .. }) => Refusal::WrongLength,
        Rejection::Advert(_)
        | Rejection::Wire(_)
        | Rejection::Holders
        | Rejection::Packing(_)
        | Rejection::Reveal
        | Rejection::Share => Refusal::Malformed,
    }
}

/// How a round ends that a phase of secure aggregation aborts.
pub(crate) fn abort_reason(abort: &Abort) -> AbortReason {
    match *abort {
        Abort::TooFew { phase, have, need, .. } | Abort::TooFewHolders { phase, have, need, .. } => {
            AbortReason::BelowThreshold { phase: phase_of(phase), answered: have, required: need }
        }
        Abort::Inconsistent { .. } => AbortReason::ReleaseFailed,
    }
}

/// Nobody reveals anything to too few signers, so all of them count, and it takes one more than hold a secret: itself.
fn too_few_signed(reason: AbortReason, signed: u32) -> AbortReason {
    match reason {
        AbortReason::BelowThreshold { phase, required, .. } => {
            AbortReason::BelowThreshold { phase, answered: signed, required: required + 1 }
        }
        other => other,
    }
}

fn count(clients: usize) -> u32 {
    u32::try_from(clients).expect("a cohort has at most u32::MAX clients")
}

fn phase_of(phase: secagg::Phase) -> Phase {
    match phase {
        secagg::Phase::Keys => Phase::Keys,
        secagg::Phase::Shares => Phase::Shares,
        secagg::Phase::Input => Phase::Collecting,
        secagg::Phase::Consistency => Phase::Consistency,
        secagg::Phase::Unmask => Phase::Reveal,
    }
}
