//! A server that says and hears what a test tells it to, over real TLS websockets on loopback.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use skep_client::join::{JoinError, JoinOptions, JoinReport, TrainingSlots, join};
use skep_client::trainer::ClientKeys;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Task;
use skep_protocol::message::{ClientMessage, Offer, ServerMessage};
use skep_protocol::net::files;
use skep_protocol::net::frame::{Bytes, Chunk, Frame};
use skep_protocol::net::identity::{Identity, ServerRecord};
use skep_protocol::net::keys::{PublicKey, SigningKey};
use skep_protocol::net::tls::{self, Credentials, PeerIdentity, PeerVerifier, SERVER_NAME, Serial};
use skep_protocol::net::websocket::{Accepted, Connection, NetError, Timeouts, accept};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::{ClientId, Digest, Round, Span, codec};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{data, signer};

/// Far longer than anything takes, so that a test that hangs ends.
pub const DEADLINE: Duration = Duration::from_secs(120);

const PATIENT: Timeouts = Timeouts { handshake: DEADLINE, send: DEADLINE, idle: DEADLINE };

/// The result of a client that takes part in the background.
pub type Joining = JoinHandle<Result<JoinReport, JoinError>>;

/// A certificate authority and a listener.
pub struct Federation {
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
}

/// The server's end of a client's connection.
pub struct Session {
    pub peer: PeerIdentity,
    pub connection: Connection,
}

impl Federation {
    pub async fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        let mut params = params_for(&format!("federation {}", key.public_key()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = params.self_signed(&key_pair(&key)).unwrap().der().clone();
        let issuer = Issuer::from_ca_cert_der(&authority, key_pair(&key)).unwrap();

        let key = SigningKey::generate().unwrap();
        let mut params = params_for(SERVER_NAME);
        params.subject_alt_names =
            CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap().subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&Subject(key.public_key()), &issuer).unwrap().der().clone();
        let credentials = Credentials { chain: vec![certificate, authority.clone()], key: &key };
        let tls = tls::server_config(&authority, &credentials).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Federation { issuer, authority, listener, tls }
    }

    /// An enrolled client of this federation; [`signer`] signs its plans.
    pub fn identity(&self, client: u64) -> Identity {
        self.identity_from(client, self, self)
    }

    /// A client that looks for this federation's server, with a certificate of one federation, believing another.
    pub fn identity_from(&self, client: u64, certified_by: &Federation, believing: &Federation) -> Identity {
        let (key, certificate) = certified_by.certify(client);
        let record = ServerRecord {
            client: ClientId(client),
            addresses: vec![self.listener.local_addr().unwrap().into()],
            plan_key: PublicKey(signer().key().0),
            roster: None,
        };
        let state = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: &[u8]| files::create(&state.path().join(name), contents).unwrap();
        write("identity.key", key.pkcs8());
        write("identity.crt", &certificate);
        write("ca.crt", &believing.authority);
        write("server.json", &serde_json::to_vec(&record).unwrap());
        Identity::load(state.path()).unwrap()
    }

    /// A new key of a client, and its certificate.
    pub fn certify(&self, client: u64) -> (SigningKey, CertificateDer<'static>) {
        let key = SigningKey::generate().unwrap();
        let mut params = params_for(&ClientId(client).to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&Subject(key.public_key()), &self.issuer).unwrap();
        (key, certificate.der().clone())
    }

    /// Who believes this federation's certificates.
    pub fn verifier(&self) -> PeerVerifier {
        PeerVerifier::new(&self.authority).unwrap()
    }

    /// A client takes part in the background.
    pub fn join(&self, client: u64) -> Joining {
        self.join_as(self.identity(client), options())
    }

    pub fn join_as(&self, identity: Identity, options: JoinOptions) -> Joining {
        tokio::spawn(join(identity, data(), keys(), options, std::future::pending()))
    }

    /// Takes the next connection.
    pub async fn accept(&self) -> Session {
        match self.try_accept().await.unwrap() {
            Accepted::Session(peer, connection) => Session { peer, connection },
            Accepted::Enrolment(..) => panic!("an enrolment where a session was expected"),
        }
    }

    pub async fn try_accept(&self) -> Result<Accepted, NetError> {
        let (tcp, _) = in_time(self.listener.accept()).await.unwrap();
        in_time(accept(tcp, Arc::clone(&self.tls), &PATIENT)).await
    }

    /// Takes the next connection and says what is learned.
    pub async fn welcome(&self, task: &Task) -> Session {
        let mut session = self.accept().await;
        session.say(&ServerMessage::Welcome(Box::new(task.clone()))).await;
        session
    }
}

impl Session {
    pub async fn say(&mut self, message: &ServerMessage) {
        self.say_bytes(codec::encode(message).unwrap()).await;
    }

    pub async fn say_bytes(&mut self, bytes: Vec<u8>) {
        in_time(self.connection.sink.send(&Frame::Control(bytes.into()))).await.unwrap();
    }

    pub async fn invite(&mut self, plan: &VerifiedPlan) {
        self.say(&ServerMessage::Invite(plan.signed().clone())).await;
    }

    /// Invites, and hears that the client accepts.
    pub async fn open(&mut self, plan: &VerifiedPlan) {
        self.invite(plan).await;
        let accept = ClientMessage::Accept { round: plan.plan().round, plan: plan.digest() };
        assert_eq!(self.hear().await, accept);
    }

    /// Sends a model in chunks of `size` bytes.
    pub async fn send_model(&mut self, round: Round, model: &[f32], size: usize) {
        let bytes = bytes_of(model);
        self.announce(round, bytes.len() as u64, Digest::of_model(model)).await;
        for (number, piece) in bytes.chunks(size).enumerate() {
            self.send_chunk(round, (number * size) as u64, piece).await;
        }
    }

    pub async fn announce(&mut self, round: Round, len: u64, digest: Digest) {
        self.say(&ServerMessage::Model { round, len, digest }).await;
    }

    pub async fn send_chunk(&mut self, round: Round, offset: u64, contents: &[u8]) {
        let contents = Bytes::copy_from_slice(contents);
        let chunk = Frame::Chunk(Chunk { transfer: round.0, offset, contents });
        in_time(self.connection.sink.send(&chunk)).await.unwrap();
    }

    pub async fn hear(&mut self) -> ClientMessage {
        match in_time(self.connection.stream.receive()).await {
            Ok(Some(Frame::Control(bytes))) => codec::decode(&bytes).unwrap(),
            other => panic!("a message was expected, {other:?} came"),
        }
    }

    /// Hears an offer for `plan` whose signature holds on this connection.
    pub async fn hear_offer(&mut self, plan: &VerifiedPlan) -> Offer {
        let ClientMessage::Offer(offer) = self.hear().await else { panic!("an offer was expected") };
        assert_eq!((offer.round, offer.len), (plan.plan().round, plan.plan().upload_bytes()));
        let binding = &self.connection.channel_binding;
        let text = Offer::signed_text(&plan.digest(), offer.len, &offer.digest, binding);
        self.peer.public_key.verify(&text, &offer.signature).unwrap();
        offer
    }

    /// Grants an upload from `offset` on and appends what comes, until there are `len` bytes.
    pub async fn take_upload(&mut self, round: Round, upload: &mut Vec<u8>, len: u64) {
        let offset = upload.len() as u64;
        self.say(&ServerMessage::Grant { round, offset, until: Span::from_millis(60_000) }).await;
        while (upload.len() as u64) < len {
            match in_time(self.connection.stream.receive()).await {
                Ok(Some(Frame::Chunk(chunk))) => {
                    assert_eq!((chunk.transfer, chunk.offset), (round.0, upload.len() as u64));
                    upload.extend_from_slice(&chunk.contents);
                }
                // Training that ended between a reconnection and the repeated invitation is offered twice.
                Ok(Some(Frame::Control(bytes))) if is_offer(&bytes, round) => {}
                other => panic!("a chunk was expected, {other:?} came"),
            }
        }
    }

    /// Plays the rest of a round from the invitation on, and returns the update.
    pub async fn play(&mut self, plan: &VerifiedPlan, model: &[f32]) -> Vec<u8> {
        let round = plan.plan().round;
        self.open(plan).await;
        self.send_model(round, model, 1000).await;
        self.finish(plan).await
    }

    /// Plays the rest of a round from the offer on, and returns the update.
    pub async fn finish(&mut self, plan: &VerifiedPlan) -> Vec<u8> {
        let offer = self.hear_offer(plan).await;
        let mut upload = Vec::new();
        self.take_upload(offer.round, &mut upload, offer.len).await;
        assert_eq!(Digest::of(&upload), offer.digest);
        self.say(&ServerMessage::Committed { round: offer.round }).await;
        upload
    }

    /// Says that it is over, and waits for the client's goodbye.
    pub async fn finish_federation(&mut self) {
        self.say(&ServerMessage::Finished).await;
        assert!(matches!(in_time(self.connection.stream.receive()).await, Ok(None)));
    }

    /// Waits until the client is gone, having said nothing more.
    pub async fn hear_nothing_more(&mut self) {
        let heard = in_time(self.connection.stream.receive()).await;
        assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    }
}

/// Waits so short that a test does not notice them.
pub fn options() -> JoinOptions {
    let slots = TrainingSlots::new(2.try_into().unwrap());
    JoinOptions {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(20),
        give_up_after: DEADLINE,
        ..JoinOptions::new(slots)
    }
}

pub fn keys() -> ClientKeys {
    ClientKeys::from_root(&Key::from_seed(1))
}

pub fn bytes_of(model: &[f32]) -> Vec<u8> {
    model.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened for two minutes")
}

fn params_for(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&Serial::generate().unwrap().0));
    let hour = Duration::from_secs(3600);
    params.not_before = (SystemTime::now() - hour).into();
    params.not_after = (SystemTime::now() + hour).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params
}

fn key_pair(key: &SigningKey) -> KeyPair {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.pkcs8()), &PKCS_ED25519).unwrap()
}

struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

fn is_offer(message: &[u8], round: Round) -> bool {
    matches!(codec::decode(message), Ok(ClientMessage::Offer(offer)) if offer.round == round)
}
