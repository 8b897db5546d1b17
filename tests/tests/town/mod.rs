//! A cohort of honest clients, production machines and cryptography, in the hands of a server that may say to each of them
//! whatever a test likes.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use skep_client::masking::{Credentials, Masking};
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::quantities::CorruptFraction;
use skep_privacy::secagg::{Identity, IdentityKey, Signature};
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::masked::{Body, Delivery, Envelope, Introduction, Peers, Shares, Signatures, Survivors};
use skep_protocol::message::ClientMessage;
use skep_protocol::plan::{self, Plan, Promise, VerifiedPlan};
use skep_protocol::round::client::{Action, ClientMachine, End, Event, Job, Made, Packed};
use skep_protocol::round::{Decline, Phase};
use skep_protocol::{ClientId, Digest, Round, Span, Time};
use skep_tests::plans;

/// Clients of a town.
pub const COHORT: u32 = 10;
/// Of those, the server's own at most.
pub const CORRUPT: u32 = 1;
/// Shares that open a secret: ⌊(9 + 1)/2⌋ + 1.
pub const THRESHOLD: u32 = 6;
/// The fewest survivors.
pub const FEWEST: u32 = 7;

pub const ROUND: Round = Round(1);
/// The name of every connection in a town.
pub const HERE: Digest = Digest([9; 32]);

/// What each client answered, or how it refused.
pub type Answers<T> = BTreeMap<ClientId, Result<T, Decline>>;

/// A plan with secure aggregation for a town.
pub fn town_plan() -> Plan {
    let mut plan = plans::masked_plan(ROUND.0, COHORT);
    let gamma = CorruptFraction::new(f64::from(CORRUPT) / f64::from(COHORT)).unwrap();
    let masking = plan::Masking::plan(COHORT, FEWEST, COHORT, gamma).unwrap();
    assert_eq!(masking.threshold, THRESHOLD);
    let Promise::Central { masking: of_plan, .. } = &mut plan.promise else { panic!("a central plan") };
    *of_plan = Some(masking);
    plan.min_updates = FEWEST;
    plan
}

/// The authority of a test: it certifies keys by signing them.
pub struct Authority(Ed25519KeyPair);

impl Authority {
    pub fn new(seed: u8) -> Self {
        Authority(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    /// The certificate of a client's identity key.
    pub fn certify(&self, client: ClientId, key: &IdentityKey) -> Vec<u8> {
        [&key[..], self.0.sign(&certified(client, key)).as_ref()].concat()
    }
}

fn certified(client: ClientId, key: &IdentityKey) -> Vec<u8> {
    [b"certified", &client.0.to_be_bytes()[..], key].concat()
}

/// A client's identity, and whom it believes about others.
pub struct Person {
    pub pair: Ed25519KeyPair,
    /// `None`: it believes everybody. No client of the product does that; it shows what the check is for.
    pub believes: Option<[u8; 32]>,
}

impl Person {
    pub fn new(seed: u64, authority: Option<&Authority>) -> Self {
        let seed = Key::from_seed(seed).derive(Purpose::Client, 0, 0);
        let mut key = [0; 32];
        let believes = authority.map(|authority| {
            key.copy_from_slice(KeyPair::public_key(&authority.0).as_ref());
            key
        });
        Person { pair: Ed25519KeyPair::from_seed_unchecked(seed.expose()).unwrap(), believes }
    }
}

impl Identity for Person {
    fn public_key(&self) -> IdentityKey {
        Identity::public_key(&self.pair)
    }

    fn sign(&self, text: &[u8]) -> Signature {
        Identity::sign(&self.pair, text)
    }
}

impl Credentials for Person {
    fn identity_of(&self, client: ClientId, certificate: &[u8]) -> Result<IdentityKey, Decline> {
        let (key, signature) = certificate.split_first_chunk::<32>().ok_or(Decline::UnknownPeer)?;
        if let Some(authority) = &self.believes {
            UnparsedPublicKey::new(&ED25519, authority)
                .verify(&certified(client, key), signature)
                .map_err(|_| Decline::UnknownPeer)?;
        }
        Ok(*key)
    }
}

/// An honest client with everything it has in production but a socket.
pub struct Resident {
    pub id: ClientId,
    pub certificate: Vec<u8>,
    pub update: QuantizedUpdate,
    /// Where its secrets come from.
    pub key: Key,
    person: Arc<Person>,
    machine: ClientMachine,
    masking: Option<Masking>,
    min_cohort: u32,
    upload: Vec<u8>,
    /// How its part ended.
    pub end: Option<End>,
    /// Everything it has said.
    pub said: Vec<Vec<u8>>,
}

impl Resident {
    pub fn new(client: u64, plan: &Plan, authority: &Authority, credulous: bool) -> Self {
        let id = ClientId(client);
        let person = Person::new(client, (!credulous).then_some(authority));
        let certificate = authority.certify(id, &Identity::public_key(&person));
        let key = Key::from_seed(client).derive(Purpose::Mask, 1, client);
        let coordinates = (0..plan.update_len() as i32).map(|i| 1000 * (client as i32 + 1) + i).collect();
        let update = QuantizedUpdate::verify(coordinates, &plan.grid().unwrap()).unwrap();
        Resident {
            id,
            certificate,
            update,
            key,
            person: Arc::new(person),
            machine: ClientMachine::new(plans::task()),
            masking: None,
            min_cohort: COHORT,
            upload: Vec::new(),
            end: None,
            said: Vec::new(),
        }
    }

    /// Tells the client something, and returns what it says to that.
    pub fn hear(&mut self, event: Event) -> Vec<ClientMessage> {
        let mut said = Vec::new();
        self.machine.handle(Time::ZERO, event);
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Send(message) => said.push(message),
                Action::Start(job) => {
                    let result = self.work(job);
                    self.machine.handle(Time::ZERO, Event::JobDone { round: ROUND, result });
                }
                Action::Closed { end, .. } => (self.end, self.masking) = (Some(end), None),
                Action::FetchModel { .. } | Action::Upload { .. } => {}
            }
        }
        said
    }

    fn work(&mut self, job: Job) -> Result<Made, Decline> {
        match job {
            Job::Train(plan) => {
                let person = Arc::clone(&self.person);
                let (masking, advert) =
                    Masking::begin(&plan, self.min_cohort, self.id, &HERE, person, &self.key)?;
                self.masking = Some(masking);
                Ok(Made::Answer(advert))
            }
            Job::Answer { phase, request, .. } => {
                let masking = self.masking.as_mut().unwrap();
                let answer = masking.step(phase, &request)?;
                if phase != Phase::Collecting {
                    return Ok(Made::Answer(answer));
                }
                self.upload = masking.mask(&self.update)?;
                let (len, digest) = (self.upload.len() as u64, Digest::of(&self.upload));
                Ok(Made::Update(Packed { len, digest }))
            }
        }
    }

    /// The client's answer to a request: what it says, or why it refuses.
    pub fn ask(&mut self, phase: Phase, request: Vec<u8>) -> Result<Vec<u8>, Decline> {
        let said = self.hear(Event::Asked { round: ROUND, phase, request });
        self.answer_among(said)
    }

    fn answer_among(&mut self, said: Vec<ClientMessage>) -> Result<Vec<u8>, Decline> {
        for message in said {
            match message {
                ClientMessage::Answered { body, .. } => {
                    self.said.push(body.clone());
                    return Ok(body);
                }
                ClientMessage::Offer(_) => {
                    // The server takes it whole.
                    self.hear(Event::Granted { round: ROUND, offset: 0, until: Span::from_millis(1) });
                    self.hear(Event::Committed { round: ROUND });
                    self.said.push(self.upload.clone());
                    return Ok(self.upload.clone());
                }
                ClientMessage::Decline { reason, .. } => return Err(reason),
                ClientMessage::Accept { .. } | ClientMessage::Prove { .. } => {}
            }
        }
        panic!("{} says nothing", self.id)
    }
}

/// A cohort whose messages pass through the hands of a test.
pub struct Town {
    pub plan: Arc<VerifiedPlan>,
    pub residents: BTreeMap<ClientId, Resident>,
    pub adverts: BTreeMap<ClientId, Vec<u8>>,
    /// By sender.
    pub envelopes: BTreeMap<ClientId, Vec<Envelope>>,
    pub uploads: BTreeMap<ClientId, Vec<u8>>,
    pub signatures: BTreeMap<ClientId, [u8; 64]>,
}

impl Town {
    pub fn new() -> Self {
        Self::of(town_plan(), false)
    }

    pub fn of(plan: Plan, credulous: bool) -> Self {
        let authority = Authority::new(1);
        let resident = |client| Resident::new(client, &plan, &authority, credulous);
        let residents = (0..u64::from(COHORT)).map(|client| (ClientId(client), resident(client))).collect();
        Town {
            plan: plans::signed(plan),
            residents,
            adverts: BTreeMap::new(),
            envelopes: BTreeMap::new(),
            uploads: BTreeMap::new(),
            signatures: BTreeMap::new(),
        }
    }

    /// R0 and R1: everybody is invited by `plan_of` it, and sends keys.
    pub fn introduce_with(&mut self, plan_of: impl Fn(ClientId) -> Arc<VerifiedPlan>) -> Answers<Vec<u8>> {
        let mut answers = BTreeMap::new();
        for (&id, resident) in &mut self.residents {
            let mut said = resident.hear(Event::Invited(plan_of(id)));
            said.extend(resident.hear(Event::ModelStaged { round: ROUND }));
            answers.insert(id, resident.answer_among(said));
        }
        self.adverts = answered(&answers);
        answers
    }

    pub fn introduce(&mut self) {
        let plan = Arc::clone(&self.plan);
        let answers = self.introduce_with(|_| Arc::clone(&plan));
        assert_eq!(answers.values().filter(|answer| answer.is_ok()).count(), COHORT as usize);
    }

    /// What an honest server tells a client of its peers.
    pub fn peers(&self, to: ClientId) -> Vec<(ClientId, Introduction)> {
        let others = self.adverts.iter().filter(|(id, _)| **id != to);
        let peer = |(&id, advert): (&ClientId, &Vec<u8>)| {
            let certificate = self.residents[&id].certificate.clone();
            (id, Introduction { certificate, advert: advert.clone() })
        };
        others.map(peer).collect()
    }

    /// R2, with what the server makes of each client's peers.
    pub fn share(
        &mut self,
        tamper: impl Fn(ClientId, Vec<(ClientId, Introduction)>) -> Vec<(ClientId, Introduction)>,
    ) -> Answers<Vec<u8>> {
        let requests: Vec<_> =
            self.residents.keys().map(|&id| (id, Peers(tamper(id, self.peers(id))).to_bytes())).collect();
        let answers = self.ask_all(Phase::Shares, requests);
        let envelopes = |(id, body): (ClientId, Vec<u8>)| (id, Shares::from_bytes(&body).unwrap().0);
        self.envelopes = answered(&answers).into_iter().map(envelopes).collect();
        answers
    }

    /// What an honest server delivers to a client.
    pub fn delivery(&self, to: ClientId) -> Delivery {
        let inbox = self.envelopes.iter().flat_map(|(&from, sent)| {
            let sealed = sent.iter().find(|envelope| envelope.peer == to)?.sealed.clone();
            Some(Envelope { peer: from, sealed })
        });
        Delivery { shared: self.envelopes.keys().copied().collect(), inbox: inbox.collect() }
    }

    /// R3, with what the server makes of each client's delivery.
    pub fn deliver(&mut self, tamper: impl Fn(ClientId, Delivery) -> Delivery) -> Answers<Vec<u8>> {
        let requests: Vec<_> =
            self.envelopes.keys().map(|&id| (id, tamper(id, self.delivery(id)).to_bytes())).collect();
        let answers = self.ask_all(Phase::Collecting, requests);
        self.uploads = answered(&answers);
        answers
    }

    /// R4, with the survivors that the server tells each client.
    pub fn consult(&mut self, survivors: impl Fn(ClientId) -> Vec<ClientId>) -> Answers<Vec<u8>> {
        let requests: Vec<_> =
            self.uploads.keys().map(|&id| (id, Survivors(survivors(id)).to_bytes())).collect();
        let answers = self.ask_all(Phase::Consistency, requests);
        let signature = |(id, body): (ClientId, Vec<u8>)| (id, body.try_into().unwrap());
        self.signatures = answered(&answers).into_iter().map(signature).collect();
        answers
    }

    /// R5, with the signatures that the server shows each client.
    pub fn unmask(
        &mut self,
        shown: impl Fn(ClientId, Vec<(ClientId, [u8; 64])>) -> Vec<(ClientId, [u8; 64])>,
    ) -> Answers<Vec<u8>> {
        let of_others = |id: ClientId| -> Vec<_> {
            self.signatures.iter().filter(|(other, _)| **other != id).map(|(id, by)| (*id, *by)).collect()
        };
        let requests: Vec<_> =
            self.signatures.keys().map(|&id| (id, Signatures(shown(id, of_others(id))).to_bytes())).collect();
        self.ask_all(Phase::Reveal, requests)
    }

    /// Honest up to and with R3.
    pub fn until_masked(&mut self) {
        self.introduce();
        all_well(&self.share(|_, peers| peers));
        all_well(&self.deliver(|_, delivery| delivery));
    }

    pub fn everybody(&self) -> Vec<ClientId> {
        self.residents.keys().copied().collect()
    }

    fn ask_all(&mut self, phase: Phase, requests: Vec<(ClientId, Vec<u8>)>) -> Answers<Vec<u8>> {
        let ask = |(id, request)| {
            let resident: &mut Resident = self.residents.get_mut(&id).unwrap();
            (id, resident.ask(phase, request))
        };
        requests.into_iter().map(ask).collect()
    }
}

/// The answers of those who gave one.
pub fn answered(answers: &Answers<Vec<u8>>) -> BTreeMap<ClientId, Vec<u8>> {
    answers.iter().filter_map(|(id, answer)| Some((*id, answer.as_ref().ok()?.clone()))).collect()
}

/// Nobody refused.
pub fn all_well(answers: &Answers<Vec<u8>>) {
    for (id, answer) in answers {
        assert!(answer.is_ok(), "{id}: {answer:?}");
    }
}

/// Everybody refused for this reason.
pub fn all_refuse(answers: &Answers<Vec<u8>>, reason: Decline) {
    assert!(!answers.is_empty());
    for (id, answer) in answers {
        assert_eq!(answer.as_ref().err(), Some(&reason), "{id}");
    }
}
