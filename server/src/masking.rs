//! The server's work in a masked round: it passes messages on, adds masked updates up, and takes the masks off the sum.
//!
//! The steps are `skep_privacy::secagg`'s; here they meet the round's phases, refusals and messages. A phase ends when the
//! machine asks for the next one. The server holds one sum for each group, adverts, and envelopes of n·k; never an update.

use std::collections::BTreeMap;

use skep_privacy::packing::PackingError;
use skep_privacy::secagg::server::{Consistency, Directory, Input, Mailbox, Unmasking};
use skep_privacy::secagg::{
    self, Abort, AdvertError, Consent, Envelope, IdentityKey, Party, Peer, Rejection, UnmaskedSum,
};
use skep_protocol::masked::{
    self, Body, Delivery, Group, Groups, Introduction, Peers, Shares, Signatures, Survivors,
};
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

/// What comes of the answers in a phase.
#[derive(Debug, Default)]
pub struct Asking {
    /// What is asked next.
    pub asked: Vec<Asked>,
    /// The groups of which too few have answered: nobody in them is asked anything more.
    pub lost: Vec<Vec<ClientId>>,
}

/// A masked round between its first answer and its sum: groups, each with a run of the protocol.
pub struct MaskedRound {
    layout: Groups,
    /// As many as the groups, in their order.
    runs: Vec<Run>,
    /// The fewest answers with which a group goes on.
    fewest: u32,
}

/// One group's run of the protocol.
struct Run {
    stage: Stage,
    /// Certificates of those whose keys have arrived.
    certificates: BTreeMap<ClientId, Vec<u8>>,
    /// Updates in its sum.
    members: u32,
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
    /// A round that nobody has answered in. No group goes on with fewer than `fewest` of its clients.
    #[must_use]
    pub fn new(groups: &Groups, fewest: u32) -> Self {
        let run = |group: &Group| Run {
            stage: Stage::Keys(Directory::new(&group.session)),
            certificates: BTreeMap::new(),
            members: 0,
        };
        MaskedRound { runs: groups.all().iter().map(run).collect(), layout: groups.clone(), fewest }
    }

    /// Takes what a client answers in a phase.
    ///
    /// # Errors
    /// The [`Refusal`] that the client is told; nothing has changed.
    pub fn answer(&mut self, caller: &Caller, phase: Phase, body: &[u8]) -> Result<(), Refusal> {
        self.run_of(caller.client).ok_or(Refusal::NotInvited)?.answer(caller, phase, body)
    }

    /// What clients are asked in a phase. Ends the one before it, if it has not ended yet: groups of which too few have answered
    /// are lost then.
    ///
    /// # Errors
    /// The [`AbortReason`] of the round when the last group is lost.
    pub fn ask(&mut self, phase: Phase, to: &[ClientId]) -> Result<Asking, AbortReason> {
        let mut lost = Vec::new();
        let mut reason = None;
        for (run, group) in self.runs.iter_mut().zip(self.layout.all()) {
            if run.stage.phase().is_none_or(|now| now >= phase) {
                continue;
            }
            if let Err(failed) = run.advance(self.fewest) {
                lost.push(group.clients.clone());
                reason = Some(failed);
            }
        }
        let goes_on = |run: &Run| run.stage.phase() == Some(phase);
        if !self.runs.iter().any(goes_on) {
            return Err(reason.unwrap_or(AbortReason::ReleaseFailed));
        }
        let run_of = |client| self.layout.of(client).map(|group| &self.runs[group]);
        let asked = to.iter().filter_map(|&client| {
            let run = run_of(client).filter(|run| goes_on(run))?;
            Some((client, run.request(client)))
        });
        Ok(Asking { asked: asked.collect(), lost })
    }

    /// Adds a masked update to the sum of its group.
    ///
    /// # Errors
    /// [`Rejection`]; the sum has not changed.
    pub fn commit(&mut self, client: ClientId, packed: &[u8]) -> Result<(), Rejection> {
        match self.run_of(client) {
            Some(Run { stage: Stage::Input(input), members, .. }) => {
                input.commit(Party(client.0), packed)?;
                *members += 1;
                Ok(())
            }
            _ => Err(Rejection::NotTakingPart(Party(client.0))),
        }
    }

    /// Updates in the sums of the groups that are left.
    pub fn members(&self) -> u32 {
        let left = self.runs.iter().filter(|run| !matches!(run.stage, Stage::Failed));
        left.map(|run| run.members).sum()
    }

    /// Takes the masks off the sums.
    ///
    /// # Errors
    /// [`UnmaskError`] when there is no group left; the sums are lost.
    pub fn unmask(self) -> Result<Unmasked, UnmaskError> {
        let mut unmasked = Unmasked::default();
        let mut reason = UnmaskError::TooEarly;
        for (run, group) in self.runs.into_iter().zip(self.layout.all()) {
            let Stage::Reveal(unmasking) = run.stage else { continue };
            match unmasking.unmask() {
                Ok(sum) => {
                    for liar in sum.liars() {
                        let client = ClientId(liar.0);
                        warn!(%client, "revealed shares that it was never given; the others made up for it");
                    }
                    unmasked.sums.push(sum);
                }
                Err(abort) => {
                    warn!(clients = group.clients.len(), reason = %abort, "the sum of a group is lost");
                    unmasked.lost.push(group.clients.clone());
                    reason = abort.into();
                }
            }
        }
        if unmasked.sums.is_empty() { Err(reason) } else { Ok(unmasked) }
    }

    fn run_of(&mut self, client: ClientId) -> Option<&mut Run> {
        self.layout.of(client).map(|group| &mut self.runs[group])
    }
}

/// The sums of the groups of a round.
#[derive(Default)]
pub struct Unmasked {
    /// Of those whose masks are off.
    pub sums: Vec<UnmaskedSum>,
    /// The groups of which too few have revealed what takes them off.
    pub lost: Vec<Vec<ClientId>>,
}

impl Run {
    fn answer(&mut self, caller: &Caller, phase: Phase, body: &[u8]) -> Result<(), Refusal> {
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

    /// Closes the phase, with those who have answered.
    fn advance(&mut self, fewest: u32) -> Result<(), AbortReason> {
        let phase = self.stage.phase();
        let answered = self.answers();
        self.stage = match std::mem::replace(&mut self.stage, Stage::Failed) {
            // With fewer there would be less noise in the sum than is planned.
            Stage::Keys(_) | Stage::Shares(_) | Stage::Input(_) if answered < fewest => {
                let phase = phase.unwrap_or(Phase::Keys);
                return Err(AbortReason::BelowThreshold { phase, answered, required: fewest });
            }
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

    fn answers(&self) -> u32 {
        count(match &self.stage {
            Stage::Keys(directory) => directory.parties().len(),
            Stage::Shares(mailbox) => mailbox.parties().len(),
            Stage::Input(_) => self.members as usize,
            Stage::Consistency(_) | Stage::Reveal(_) | Stage::Failed => 0,
        })
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
        f.debug_list().entries(self.runs.iter().map(|run| run.stage.phase())).finish()
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
