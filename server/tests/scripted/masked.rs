//! A client of masked rounds that a test moves from one step to the next: the cryptography is the production code, what is
//! said and when is the test's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use skep_privacy::prg::{Key, Prg};
use skep_privacy::secagg::client::{self, Advertised, Masked, Paired, Shared, Signed};
use skep_privacy::secagg::{Consent, Envelope, Identity, IdentityKey, Party, Peer, Signature};
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::experiment::file::{ExperimentFile, SecureAggregationFile};
use skep_protocol::masked::{self, Body, Delivery, Peers, Shares, Signatures, Survivors, connection_name};
use skep_protocol::message::{ClientMessage, ServerMessage};
use skep_protocol::net::frame::{CHUNK_LIMIT, Frame};
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::tls::PeerVerifier;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::{Phase, Refusal};
use skep_protocol::{ClientId, Round, codec};

use super::{Client, Server, private_file, within};

/// Five clients, of which one may be corrupt and one may drop out; three shares open a secret. The noise is so little that
/// the released model shows whose updates are in the sum.
pub fn masked_file(rounds: u64, deadline_s: f64) -> ExperimentFile {
    let mut file = private_file(5, rounds, deadline_s, 0.02);
    file.rounds.min_updates = 4;
    file.secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.2, min_cohort: 3, groups: None });
    file
}

/// Where a client may stop in a round, to do something else than its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// It has trained; its keys are still to be sent.
    Keys,
    /// It has the keys of the others; its shares are still to be sent.
    Shares,
    /// It has shared, and its masked update is still to be offered.
    Input,
    /// Half of its masked update has been sent.
    MidUpload,
    /// It is to sign the survivors.
    Consistency,
    /// It is to reveal shares.
    Reveal,
}

/// One client in masked rounds.
pub struct Hider {
    pub client: Client,
    verifier: PeerVerifier,
    pub plan: Option<Arc<VerifiedPlan>>,
    stage: Stage,
    rng: Prg,
    identities: BTreeMap<Party, IdentityKey>,
    /// Bytes of the model still to come.
    model_left: u64,
    request: Vec<u8>,
    /// What was said last in the round, to be said again.
    last: Option<ClientMessage>,
    /// The masked update.
    pub packed: Vec<u8>,
    /// Why it was refused, without being out of the round for it.
    pub refused: Vec<Refusal>,
    /// Every frame that the server has sent and received, as it is under TLS.
    pub wire: Vec<u8>,
}

enum Stage {
    Idle,
    Advertised(Advertised),
    Shared(Shared),
    Masked(Masked),
    Signed(Signed),
}

/// The identity of a client, to its peers.
struct Signer<'a>(&'a SigningKey);

impl Identity for Signer<'_> {
    fn public_key(&self) -> IdentityKey {
        self.0.public_key().0
    }

    fn sign(&self, text: &[u8]) -> Signature {
        self.0.sign(text).0
    }
}

impl Hider {
    /// A client whose secrets follow from `key`.
    pub fn new(server: &Server, client: Client, key: &Key) -> Self {
        Hider {
            client,
            verifier: PeerVerifier::new(server.authority.certificate()).unwrap(),
            plan: None,
            stage: Stage::Idle,
            rng: key.stream(),
            identities: BTreeMap::new(),
            model_left: 0,
            request: Vec::new(),
            last: None,
            packed: Vec::new(),
            refused: Vec::new(),
            wire: Vec::new(),
        }
    }

    /// What the client has learned: half of the clip norm, in the coordinate of its number.
    pub fn update(&self, plan: &VerifiedPlan) -> QuantizedUpdate {
        let grid = plan.plan().grid().unwrap();
        let mut coordinates = vec![0; plan.plan().update_len() as usize];
        let number = self.client.member.id.0 as usize;
        // A pattern that is found again on the wire if it travels as it is.
        for (at, coordinate) in coordinates.iter_mut().enumerate().skip(100) {
            *coordinate = (at * 31 + number * 7) as i32 % 100 - 50;
        }
        coordinates[number] = (grid.range() / 2) as i32;
        QuantizedUpdate::verify(coordinates, &grid).unwrap()
    }

    /// Takes part until the round is over; true if a model was released.
    pub async fn play(&mut self) -> bool {
        self.hear_until(None).await.expect("it stops nowhere")
    }

    /// Takes part until this point of the first round.
    pub async fn play_until(&mut self, point: Point) {
        assert_eq!(self.hear_until(Some(point)).await, None, "the round is over before {point:?}");
    }

    /// Hears and does, until the point, or the end of a round or the connection: then says whether it was released.
    async fn hear_until(&mut self, point: Option<Point>) -> Option<bool> {
        loop {
            let Ok(Some(frame)) = within(self.client.connection.stream.receive()).await else {
                return Some(false);
            };
            let message = match frame {
                Frame::Control(encoded) => {
                    self.wire.extend_from_slice(&encoded);
                    codec::decode(&encoded).unwrap()
                }
                Frame::Chunk(chunk) => {
                    self.wire.extend_from_slice(&chunk.contents);
                    self.model_left -= chunk.contents.len() as u64;
                    if self.model_left == 0 {
                        if point == Some(Point::Keys) {
                            return None;
                        }
                        self.answer(Phase::Keys).await;
                    }
                    continue;
                }
            };
            match message {
                ServerMessage::Invite(signed) => {
                    let plan = signed.verify(&self.client.member.plan_key()).unwrap();
                    self.invited(plan).await;
                }
                ServerMessage::Model { len, .. } => self.model_left = len,
                ServerMessage::Asked { phase, part, last, .. } => {
                    self.request.extend_from_slice(&part);
                    if last && point == Some(point_of(phase)) {
                        return None;
                    }
                    if last {
                        self.answer(phase).await;
                    }
                }
                ServerMessage::Grant { round, offset, .. } => {
                    let rest = self.packed[offset as usize..].to_vec();
                    if point == Some(Point::MidUpload) {
                        self.upload(round, offset, &rest[..rest.len() / 2]).await;
                        return None;
                    }
                    self.upload(round, offset, &rest).await;
                }
                ServerMessage::Refused { reason, .. } => self.refused.push(reason),
                ServerMessage::Closed { released, .. } => return Some(released),
                ServerMessage::Finished => return Some(false),
                _ => {}
            }
        }
    }

    /// Goes on from where it stopped.
    pub async fn go_on(&mut self, from: Point) {
        let round = self.plan.as_ref().unwrap().plan().round;
        match from {
            Point::MidUpload => {
                let half = self.packed.len() / 2;
                let rest = self.packed[half..].to_vec();
                self.upload(round, half as u64, &rest).await;
            }
            point => self.answer(phase_of(point)).await,
        }
    }

    /// Connects a second time; the server closes the first connection.
    pub async fn reconnect(self) -> Self {
        let Client { member, connection } = self.client;
        let second = member.connect().await;
        let mut first = connection;
        within(async { while let Ok(Some(_)) = first.stream.receive().await {} }).await;
        Hider { client: second, ..self }
    }

    async fn invited(&mut self, plan: Arc<VerifiedPlan>) {
        let known = self.plan.as_ref().is_some_and(|known| known.digest() == plan.digest());
        self.request.clear();
        if !known {
            (self.stage, self.last) = (Stage::Idle, None);
            self.identities.clear();
            self.plan = Some(Arc::clone(&plan));
        }
        match &self.last {
            None => {
                let accept = ClientMessage::Accept { round: plan.plan().round, plan: plan.digest() };
                self.say(&accept).await;
            }
            // An offer is good on its own connection alone.
            Some(ClientMessage::Offer(_)) => self.offer().await,
            // Answers that have come need not come again.
            Some(_) => {}
        }
    }

    /// Does what a phase is about, and says it.
    pub async fn answer(&mut self, phase: Phase) {
        let plan = Arc::clone(self.plan.as_ref().unwrap());
        let me = Party(self.client.member.id.0);
        let request = std::mem::take(&mut self.request);
        let signer = Signer(&self.client.member.key);
        let body = match (phase, std::mem::replace(&mut self.stage, Stage::Idle)) {
            (Phase::Keys, _) => {
                let session = masked::session(&plan, self.client.member.id, 3).unwrap();
                let connection = connection_name(&self.client.connection.channel_binding);
                let (advertised, advert) =
                    client::advertise(&session, me, &connection.0, &signer, &mut self.rng).unwrap();
                self.stage = Stage::Advertised(advertised);
                advert
            }
            (Phase::Shares, Stage::Advertised(advertised)) => {
                let Peers(peers) = Peers::from_bytes(&request).unwrap();
                for (client, introduction) in &peers {
                    let known = self.verifier.verify(&introduction.certificate, SystemTime::now()).unwrap();
                    assert_eq!(known.client, *client);
                    self.identities.insert(Party(client.0), known.public_key.0);
                }
                let known: Vec<_> = peers
                    .iter()
                    .map(|(client, introduction)| {
                        let party = Party(client.0);
                        Peer { party, identity: self.identities[&party], advert: &introduction.advert }
                    })
                    .collect();
                let (shared, envelopes) = advertised.share(&known, &mut self.rng).unwrap();
                self.stage = Stage::Shared(shared);
                let envelope =
                    |it: Envelope| masked::Envelope { peer: ClientId(it.peer.0), sealed: it.sealed };
                Shares(envelopes.into_iter().map(envelope).collect()).to_bytes()
            }
            (Phase::Collecting, Stage::Shared(shared)) => {
                let Delivery { shared: clients, inbox } = Delivery::from_bytes(&request).unwrap();
                let envelope = |it: masked::Envelope| Envelope { peer: Party(it.peer.0), sealed: it.sealed };
                let inbox: Vec<_> = inbox.into_iter().map(envelope).collect();
                let paired: Paired = shared.receive(&parties(&clients), &inbox).unwrap();
                let (masked, update) = paired.mask(&self.update(&plan)).unwrap();
                self.packed = update.into_bytes();
                self.stage = Stage::Masked(masked);
                return self.offer().await;
            }
            (Phase::Consistency, Stage::Masked(masked)) => {
                let Survivors(survivors) = Survivors::from_bytes(&request).unwrap();
                let (signed, signature) = masked.sign(&parties(&survivors), &signer).unwrap();
                self.stage = Stage::Signed(signed);
                signature.to_vec()
            }
            (Phase::Reveal, Stage::Signed(signed)) => {
                let Signatures(signatures) = Signatures::from_bytes(&request).unwrap();
                let consent =
                    |(client, signature): (ClientId, _)| Consent { party: Party(client.0), signature };
                signed.reveal(&signatures.into_iter().map(consent).collect::<Vec<_>>()).unwrap()
            }
            _ => panic!("asked out of turn in {phase}"),
        };
        self.say(&ClientMessage::Answered { round: plan.plan().round, phase, body }).await;
    }

    async fn offer(&mut self) {
        let plan = Arc::clone(self.plan.as_ref().unwrap());
        let offer = self.client.offer_of(&plan, &self.packed);
        self.say(&ClientMessage::Offer(offer)).await;
    }

    /// Says it, and remembers.
    async fn say(&mut self, message: &ClientMessage) {
        self.wire.extend_from_slice(&codec::encode(message).unwrap());
        self.client.say(message).await;
        if !matches!(message, ClientMessage::Accept { .. }) {
            self.last = Some(message.clone());
        }
    }

    /// Says again what it said last.
    pub async fn repeat(&mut self) {
        let last = self.last.clone().unwrap();
        self.client.say(&last).await;
    }

    async fn upload(&mut self, round: Round, offset: u64, contents: &[u8]) {
        for (index, contents) in contents.chunks(CHUNK_LIMIT).enumerate() {
            self.wire.extend_from_slice(contents);
            self.client.send_chunk(round, offset + (index * CHUNK_LIMIT) as u64, contents).await;
        }
    }
}

pub fn phase_of(point: Point) -> Phase {
    match point {
        Point::Keys => Phase::Keys,
        Point::Shares => Phase::Shares,
        Point::Input | Point::MidUpload => Phase::Collecting,
        Point::Consistency => Phase::Consistency,
        Point::Reveal => Phase::Reveal,
    }
}

fn point_of(phase: Phase) -> Point {
    match phase {
        Phase::Keys => Point::Keys,
        Phase::Shares => Point::Shares,
        Phase::Collecting | Phase::Releasing => Point::Input,
        Phase::Consistency => Point::Consistency,
        Phase::Reveal => Point::Reveal,
    }
}

fn parties(clients: &[ClientId]) -> Vec<Party> {
    clients.iter().map(|client| Party(client.0)).collect()
}
