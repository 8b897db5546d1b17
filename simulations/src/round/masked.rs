//! Masked rounds: the whole protocol, or its phases with nothing inside.
//!
//! With fidelity "sum" clients answer in every phase, and drop out like those that compute, but nothing is computed: updates
//! with each client's own noise are added up modulo 2ᵇ, which is what masks cancel to. With fidelity "protocol" every client runs
//! the production code; the model is the same bit for bit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use skep_client::masking::{Credentials, Masking};
use skep_privacy::client_noise::Contribution;
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::secagg::{COHORT_MIN, Identity, IdentityKey, Signature};
use skep_protocol::masked::{self, Groups};
use skep_protocol::round::client::{self, Made};
use skep_protocol::round::server::Event;
use skep_protocol::round::{AbortReason, Decline, Phase};
use skep_protocol::{ClientId, Digest, Round};
use skep_server::masking::{Asked, Asking, Caller};

use super::{Arrival, OpenRound};
use crate::error::SimulationError;
use crate::fault::{Corruption, Moment};
use crate::parallel;
use crate::population::client_root;
use crate::workers::Trainer;

/// What is known of a masked round beside the machine's own knowledge.
#[derive(Default)]
pub(super) struct Masked {
    /// Clients between two steps, where the protocol is computed.
    clients: Option<BTreeMap<ClientId, Hidden>>,
    /// The groups of the cohort.
    groups: Option<Groups>,
    /// By group, where nothing is computed: how many have answered in each phase, or are in the sum.
    answers: BTreeMap<(usize, Phase), u32>,
    /// Groups of which too few have answered.
    lost: BTreeSet<usize>,
}

/// A client between two steps.
struct Hidden {
    masking: Masking,
    /// The last phase whose request it has worked on.
    worked: Option<Phase>,
    /// What it will say in that phase; computed as soon as all are asked, on all threads.
    ready: Option<Result<Vec<u8>, Decline>>,
}

impl Hidden {
    fn step(&mut self, phase: Phase, request: &[u8]) -> Result<Vec<u8>, Decline> {
        self.work(phase, request);
        self.ready.take().unwrap_or(Err(Decline::OutOfTurn))
    }

    /// Each request is worked on once, however often it comes.
    fn work(&mut self, phase: Phase, request: &[u8]) {
        if self.worked < Some(phase) {
            self.worked = Some(phase);
            self.ready = Some(self.masking.step(phase, request));
        }
    }
}

impl Masked {
    fn count(&mut self, client: ClientId, phase: Phase) {
        if let Some(group) = self.group(client) {
            *self.answers.entry((group, phase)).or_default() += 1;
        }
    }

    /// The number of a client's group, unless it is lost.
    fn group(&self, client: ClientId) -> Option<usize> {
        self.groups.as_ref()?.of(client).filter(|group| !self.lost.contains(group))
    }

    /// Whether the cohort is summed up in groups, be it one.
    pub(super) fn is_grouped(&self) -> bool {
        self.groups.is_some()
    }

    /// Whether masks are computed in this round.
    pub(super) fn is_computed(&self) -> bool {
        self.clients.is_some()
    }
}

impl<T: Trainer> OpenRound<'_, '_, T> {
    /// Begins a masked round, if it is one and the protocol is to be computed.
    pub(super) fn mask(&mut self) -> Result<(), SimulationError> {
        if self.plan.plan().masking().is_none() {
            return Ok(());
        }
        let groups = masked::groups(&self.plan).map_err(SimulationError::Masking)?;
        if self.world.computes_masks {
            self.world.federation.mask(&groups)?;
            self.masked.clients = Some(BTreeMap::new());
        }
        self.masked.groups = Some(groups);
        Ok(())
    }

    /// What a client that has trained tells the others.
    pub(super) fn introduce(&mut self, client: ClientId) -> Result<Vec<u8>, Decline> {
        let Some(clients) = &mut self.masked.clients else { return Ok(Vec::new()) };
        let root = client_root(&self.world.root, client.0);
        let key = root.derive(Purpose::Mask, self.plan.plan().round.0, client.0);
        let credentials = Arc::new(Resident::new(&root));
        let (masking, advert) = Masking::begin(&self.plan, COHORT_MIN, client, &HERE, credentials, &key)?;
        clients.insert(client, Hidden { masking, worked: None, ready: None });
        Ok(advert)
    }

    /// What a client makes of what it is asked.
    pub(super) fn make(&mut self, client: ClientId, phase: Phase, request: &[u8]) -> Result<Made, Decline> {
        let answer = match &mut self.masked.clients {
            None => Vec::new(),
            Some(clients) => {
                let hidden = clients.get_mut(&client).ok_or(Decline::OutOfTurn)?;
                hidden.step(phase, request)?
            }
        };
        match phase {
            Phase::Collecting => Ok(Made::Update(self.packed(client))),
            _ => Ok(Made::Answer(answer)),
        }
    }

    /// A client sends its answer.
    pub(super) fn send_answer(&mut self, client: ClientId, round: Round, phase: Phase, body: Vec<u8>) {
        let Some(seat) = self.seats.get_mut(&client) else { return };
        let moment = match phase {
            Phase::Shares => Some(Moment::Sharing),
            Phase::Consistency => Some(Moment::Agreeing),
            Phase::Reveal => Some(Moment::Revealing),
            _ => None,
        };
        if let Some(back_after) = moment.and_then(|moment| seat.vanishes(moment)) {
            return self.vanish(client, back_after);
        }
        let bytes = body.len() as u64;
        self.bytes_up += bytes;
        let at = self.world.now + seat.pace.upload(bytes);
        self.world.network.send(at, Arrival::Answer { client, round, phase, body });
    }

    /// A client's answer has arrived.
    pub(super) fn answered(&mut self, client: ClientId, round: Round, phase: Phase, body: &[u8]) {
        let expected = self.world.machine.check_answer(client, round, phase).is_ok();
        if expected && let Some(masked) = self.world.federation.masked() {
            let root = client_root(&self.world.root, client.0);
            let identity = Resident::new(&root).public_key();
            let caller = Caller { client, identity, certificate: identity.to_vec(), connections: vec![HERE] };
            if let Err(reason) = masked.answer(&caller, phase, body) {
                return self.handle_at_server(Event::Violated { client, reason });
            }
        }
        if expected {
            self.masked.count(client, phase);
        }
        self.handle_at_server(Event::Answered { client, round, phase });
    }

    /// The server asks clients in a phase.
    pub(super) fn ask(&mut self, to: &[ClientId], round: Round, phase: Phase) {
        let asked = match self.masked.is_computed() {
            false => self.ask_without_masks(to, phase),
            true => self.world.federation.ask(phase, to),
        };
        match asked {
            Err(reason) => self.handle_at_server(Event::PhaseFailed { round, reason }),
            Ok(Asking { asked, lost }) => {
                for clients in lost {
                    self.handle_at_server(Event::GroupLost { round, clients });
                }
                self.make_ready(phase, &asked);
                for (client, request) in asked {
                    let bytes = request.len() as u64;
                    self.bytes_down += bytes;
                    self.send_to_client(client, bytes, client::Event::Asked { round, phase, request });
                }
            }
        }
    }

    /// What the production code does, by the numbers of those who have answered.
    fn ask_without_masks(&mut self, to: &[ClientId], phase: Phase) -> Result<Asking, AbortReason> {
        let ended = match phase {
            Phase::Shares => Phase::Keys,
            Phase::Collecting => Phase::Shares,
            Phase::Consistency => Phase::Collecting,
            _ => Phase::Consistency,
        };
        let lost = self.lose_groups(ended)?;
        let living = |client: &&ClientId| self.masked.group(**client).is_some();
        let asked = to.iter().filter(living).map(|&client| (client, Vec::new())).collect();
        Ok(Asking { asked, lost })
    }

    /// Gives up the groups in which too few have answered in a phase, unless there is no other.
    fn lose_groups(&mut self, ended: Phase) -> Result<Vec<Vec<ClientId>>, AbortReason> {
        let required = self.required(ended);
        let Some(groups) = self.masked.groups.clone() else { return Ok(Vec::new()) };
        let (mut lost, mut reason) = (Vec::new(), AbortReason::ReleaseFailed);
        for number in 0..groups.all().len() {
            let answered = self.masked.answers.get(&(number, ended)).copied().unwrap_or(0);
            if answered < required && self.masked.lost.insert(number) {
                lost.push(number);
                // Of a secret of one who revealed, all others who did hold shares.
                let own = u32::from(ended == Phase::Reveal);
                let (answered, required) = (answered.saturating_sub(own), required - own);
                reason = AbortReason::BelowThreshold { phase: ended, answered, required };
            }
        }
        if self.masked.lost.len() == groups.all().len() {
            return Err(reason);
        }
        for &number in &lost {
            self.world.federation.lose(number).map_err(|_| AbortReason::ReleaseFailed)?;
        }
        Ok(lost.into_iter().map(|number| groups.all()[number].clients.clone()).collect())
    }

    /// How many of a group must answer in a phase. Whether fewer would do in a sparse graph, in which everybody needs its own
    /// share holders, is not known without the protocol; here they would not.
    fn required(&self, phase: Phase) -> u32 {
        let Some(masking) = self.plan.plan().masking() else { return 0 };
        let complete = masking.degree + 1 == masking.group_size;
        match phase {
            Phase::Consistency | Phase::Reveal if complete => masking.threshold + 1,
            _ => masking.group_min_updates,
        }
    }

    /// The group of a client, whose sum its update goes into; 0 where there are none.
    pub(super) fn group(&self, client: ClientId) -> usize {
        self.masked.groups.as_ref().and_then(|groups| groups.of(client)).unwrap_or(0)
    }

    /// A client's update is in the sum.
    pub(super) fn count_update(&mut self, client: ClientId) {
        self.masked.count(client, Phase::Collecting);
    }

    /// Has all that are asked work at once: what they make depends on nothing that happens before they are heard.
    fn make_ready(&mut self, phase: Phase, asked: &[Asked]) {
        let Some(clients) = &mut self.masked.clients else { return };
        let work: Vec<_> = asked
            .iter()
            .filter_map(|(client, request)| Some((clients.remove_entry(client)?, request)))
            .collect();
        let made = parallel::map(self.world.threads, work, |((client, mut hidden), request)| {
            hidden.work(phase, request);
            (client, hidden)
        });
        clients.extend(made);
    }

    /// Masks an update, and adds it up.
    pub(super) fn commit_masked(
        &mut self,
        client: ClientId,
        update: &Contribution,
    ) -> Result<(), SimulationError> {
        let hidden = self.masked.clients.as_mut().and_then(|clients| clients.get_mut(&client));
        let hidden = hidden.ok_or(SimulationError::OutOfStep("a commit without masks"))?;
        self.world.masks.applied += hidden.masking.masks().unwrap_or(0) as u64;
        let mut packed = hidden.masking.mask(update).map_err(SimulationError::Masking)?;
        if self.seats.get(&client).is_some_and(|seat| seat.corruption() == Some(Corruption::Mask)) {
            packed[0] ^= 1;
        }
        self.world.masks.bytes_packed += packed.len() as u64;
        Ok(self.world.federation.commit_masked(client, &packed)?)
    }

    /// Gives up the groups whose sums cannot be unmasked for too few have revealed what it takes, as far as that is not found
    /// out by unmasking them.
    pub(super) fn unmasked(&mut self) -> Result<(), AbortReason> {
        if self.masked.groups.is_none() || self.masked.is_computed() {
            return Ok(());
        }
        let round = self.plan.plan().round;
        for clients in self.lose_groups(Phase::Reveal)? {
            self.handle_at_server(Event::GroupLost { round, clients });
        }
        Ok(())
    }
}

/// The identity of a simulated client. Its public key is its own certificate: nobody in this process lies.
struct Resident(Ed25519KeyPair);

impl Resident {
    fn new(root: &Key) -> Self {
        let seed = root.derive(Purpose::Client, 0, 0);
        Resident(
            Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("every 32 bytes are an Ed25519 seed"),
        )
    }
}

impl Identity for Resident {
    fn public_key(&self) -> IdentityKey {
        let mut key = [0; 32];
        key.copy_from_slice(KeyPair::public_key(&self.0).as_ref());
        key
    }

    fn sign(&self, text: &[u8]) -> Signature {
        Identity::sign(&self.0, text)
    }
}

impl Credentials for Resident {
    fn identity_of(&self, _: ClientId, certificate: &[u8]) -> Result<IdentityKey, Decline> {
        certificate.try_into().map_err(|_| Decline::UnknownPeer)
    }
}

/// The name of every connection inside of this process.
const HERE: Digest = Digest([0; 32]);
