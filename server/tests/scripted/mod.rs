//! A server on loopback with an experiment of its own, and clients that do as a test says.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]

pub mod masked;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_privacy::ledger::Hash;
use skep_privacy::packing::pack;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, ModeFile, ModelFile, PartitionFile,
    PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SimulationFile, StrategyFile, TaskFile,
    TrainingFile, WeightingFile,
};
use skep_protocol::message::{ClientMessage, Offer, ServerMessage};
use skep_protocol::net::enrolment::EnrolmentRequest;
use skep_protocol::net::frame::{CHUNK_LIMIT, Chunk, Frame};
use skep_protocol::net::invitation::Address;
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::tls::{self, Credentials};
use skep_protocol::net::websocket::{Connection, NetError, Purpose, Timeouts, connect};
use skep_protocol::plan::{Plan, PlanKey, Segment, VerifiedPlan};
use skep_protocol::round::Refusal;
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, codec};
use skep_server::authority::{Authority, CLIENT_VALIDITY};
use skep_server::enrolment::{Conditions, Enrolment, decide};
use skep_server::evaluate::{Evaluation, Evaluator, Examples, Scores};
use skep_server::federation::{Federation, ServerKeys};
use skep_server::ledger;
use skep_server::record::{Observer, RoundRecord};
use skep_server::roster::Contiguous;
use skep_server::serve::{Deployment, ServeError, ServeOptions, ServeReport, serve};
use skep_server::status::Status;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TIMEOUTS: Timeouts = Timeouts { handshake: PATIENCE, send: PATIENCE, idle: PATIENCE };

/// Softmax regression on the digits: 650 parameters. Nothing is promised.
pub fn public_file(clients: u64, rounds: u64, deadline_s: f64) -> ExperimentFile {
    ExperimentFile {
        name: "served".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(1.0, 1, BatchFile::Word(BatchWord::Full)),
            tuning: None,
        },
        population: PopulationFile {
            clients,
            partition: PartitionFile::Iid {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: rounds, sampling: SamplingFile::All {}, min_updates: 1, deadline_s },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile::NONE,
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}

/// The same with noise from the server.
pub fn private_file(clients: u64, rounds: u64, deadline_s: f64, noise_multiplier: f64) -> ExperimentFile {
    let privacy = PrivacyFile {
        mode: ModeFile::Central,
        unit: Some("client".into()),
        adjacency: Some("zero-out".into()),
        clip_norm: Some(0.5),
        noise_multiplier: Some(noise_multiplier),
        delta: Some(1e-5),
        epsilon_limit: Some(f64::INFINITY),
    };
    ExperimentFile { privacy, ..public_file(clients, rounds, deadline_s) }
}

/// A hidden layer: 64·w + w + 10·w + 10 parameters.
pub fn with_hidden_layer(mut file: ExperimentFile, width: u32) -> ExperimentFile {
    file.task.model = ModelFile::Mlp { hidden: vec![width], activation: Activation::Relu };
    file
}

pub fn federation(file: &ExperimentFile, state: &Path) -> Federation {
    let experiment = Experiment::try_from(file).unwrap();
    let len = experiment.task.parameter_count().unwrap();
    let segments = vec![Segment { name: "all".into(), len }];
    let keys = ServerKeys::from_root(&Key::from_seed(17));
    let model = vec![0.0; len as usize];
    let ledger = ledger::open(&state.join("ledger.skep"), &experiment, Hash::ZERO, None).unwrap();
    Federation::new(experiment, segments, model, ledger, keys).unwrap()
}

/// What the server reported while it ran.
#[derive(Default)]
pub struct Notes {
    pub records: Vec<RoundRecord>,
    pub models: Vec<Arc<Vec<f32>>>,
    pub commits: Vec<(Round, u32)>,
    pub plans: Vec<Plan>,
    status: watch::Sender<Option<Status>>,
}

impl Observer for Notes {
    fn round_opened(&mut self, plan: &Plan, _: u32) {
        self.plans.push(plan.clone());
    }

    fn update_committed(&mut self, round: Round, updates: u32) {
        self.commits.push((round, updates));
    }

    fn status(&mut self, status: &Status) {
        self.status.send_replace(Some(status.clone()));
    }

    fn round_closed(&mut self, record: &RoundRecord, model: &Arc<Vec<f32>>) {
        self.records.push(record.clone());
        self.models.push(Arc::clone(model));
    }
}

/// Whoever ends a run early has its models measured.
fn is_patient(file: &ExperimentFile) -> bool {
    file.evaluation.as_ref().is_some_and(|evaluation| evaluation.patience.is_some())
}

/// Finds every model as good as the last.
struct Unchanging;

impl Evaluator for Unchanging {
    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Evaluation {
            on: Examples::Test,
            scores: Scores::Classes { accuracy: 0.5 },
            loss: 1.0,
            examples: 1,
        })
    }
}

pub struct Server {
    pub state: TempDir,
    pub authority: Arc<Authority>,
    pub enrolment: Enrolment,
    pub address: SocketAddr,
    plan_key: PlanKey,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<(Result<ServeReport, ServeError>, Notes)>,
    status: watch::Receiver<Option<Status>>,
}

impl Server {
    /// Serves once `wait_for` clients are connected.
    pub async fn start(file: &ExperimentFile, wait_for: usize) -> Self {
        let options = ServeOptions {
            timeouts: TIMEOUTS,
            linger: Duration::ZERO,
            grace: Duration::ZERO,
            ..ServeOptions::new(wait_for)
        };
        Self::start_with(file, options).await
    }

    pub async fn start_with(file: &ExperimentFile, options: ServeOptions) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(state.path()).unwrap());
        let enrolment = Enrolment::open(state.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let deployment = Deployment {
            federation: federation(file, state.path()),
            roster: Arc::new(Contiguous(file.population.clients)),
            evaluator: is_patient(file).then(|| Box::new(Unchanging) as Box<dyn Evaluator>),
            authority: Arc::clone(&authority),
            enrolment: enrolment.clone(),
            journal: None,
        };
        let plan_key = deployment.federation.ledger().signer().key();
        let (stop, stopped) = oneshot::channel::<()>();
        let (doing, status) = watch::channel(None);
        let serving = tokio::spawn(async move {
            let mut notes = Notes { status: doing, ..Notes::default() };
            let shutdown = async {
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let result = serve(deployment, listener, options, &mut notes, shutdown).await;
            (result, notes)
        });
        Server { state, authority, enrolment, address, plan_key, stop: Some(stop), serving, status }
    }

    /// Waits until the server knows of so many connections.
    pub async fn until_connected(&self, clients: usize) {
        let mut status = self.status.clone();
        let so_many = |status: &Option<Status>| status.as_ref().is_some_and(|now| now.connected == clients);
        within(status.wait_for(so_many)).await.unwrap();
    }

    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn end(self) -> (Result<ServeReport, ServeError>, Notes) {
        within(self.serving).await.unwrap()
    }

    /// The end of a server that is expected to end well.
    pub async fn report(self) -> (ServeReport, Notes) {
        let (result, notes) = self.end().await;
        (result.unwrap(), notes)
    }

    /// Enrols a client without the network.
    pub fn member(&self, client: u64) -> Member {
        let (id, now) = (ClientId(client), SystemTime::now());
        let addresses = vec![self.address.into()];
        let invitation =
            self.enrolment.invite(&self.authority, id, addresses.clone(), now, PATIENCE).unwrap();
        let (key, binding) = (SigningKey::generate().unwrap(), ChannelBinding([0; 32]));
        let request = EnrolmentRequest::redeem(invitation.token, &key, binding);
        let conditions = Conditions { validity: CLIENT_VALIDITY, plan_key: self.plan_key };
        let grant =
            decide(&self.authority, &self.enrolment, &request, None, binding, now, conditions).unwrap();
        let chain = vec![grant.certificate.0, grant.authority.0.clone()];
        let tls = tls::client_config(&grant.authority.0, &Credentials { chain, key: &key }).unwrap();
        Member { id, key, addresses, tls, plan_key: self.plan_key }
    }

    /// Makes the roster believe that the client's latest certificate has expired.
    pub fn forget_validity_of(&self, client: u64) {
        let path = self.state.path().join(format!("clients/{client}/enrolled"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, _) = text.split_once("\"not_after\":").unwrap();
        std::fs::write(&path, format!("{before}\"not_after\":1}}")).unwrap();
    }

    /// Enrols and connects a client, however often the door is shut on it.
    pub async fn join_patiently(&self, client: u64) -> Client {
        let member = self.member(client);
        let connected = async {
            loop {
                match member.try_connect().await {
                    Ok(connection) => return connection,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let connection = within(connected).await;
        let mut client = Client { member, connection };
        assert!(matches!(client.hear().await, ServerMessage::Welcome(_)));
        client
    }

    /// Enrols and connects a client.
    pub async fn join(&self, client: u64) -> Client {
        self.member(client).connect().await
    }
}

/// An enrolled client.
pub struct Member {
    pub id: ClientId,
    pub key: SigningKey,
    addresses: Vec<Address>,
    tls: Arc<ClientConfig>,
    plan_key: PlanKey,
}

impl Member {
    pub fn plan_key(&self) -> PlanKey {
        self.plan_key
    }

    /// The same, who finds the server at another address.
    pub fn at(self, address: SocketAddr) -> Self {
        Member { addresses: vec![address.into()], ..self }
    }

    pub async fn try_connect(&self) -> Result<Connection, NetError> {
        connect(&self.addresses, Arc::clone(&self.tls), Purpose::Session, &TIMEOUTS).await
    }

    /// Connects, and hears the task.
    pub async fn connect(self) -> Client {
        let connection = self.try_connect().await.unwrap();
        let mut client = Client { member: self, connection };
        assert!(matches!(client.hear().await, ServerMessage::Welcome(_)));
        client
    }
}

/// A connected client.
pub struct Client {
    pub member: Member,
    pub connection: Connection,
}

impl Client {
    /// What the server sends next; none when it has said goodbye.
    pub async fn receive(&mut self) -> Option<Frame> {
        within(self.connection.stream.receive()).await.unwrap()
    }

    pub async fn hear(&mut self) -> ServerMessage {
        match self.receive().await {
            Some(Frame::Control(encoded)) => codec::decode(&encoded).unwrap(),
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    pub async fn say(&mut self, message: &ClientMessage) {
        let encoded = codec::encode(message).unwrap();
        within(self.connection.sink.send(&Frame::Control(encoded.into()))).await.unwrap();
    }

    pub async fn send_chunk(&mut self, round: Round, offset: u64, contents: &[u8]) {
        let chunk = Chunk { transfer: round.0, offset, contents: contents.to_vec().into() };
        within(self.connection.sink.send(&Frame::Chunk(chunk))).await.unwrap();
    }

    /// Waits for an invitation.
    pub async fn invited(&mut self) -> Arc<VerifiedPlan> {
        match self.hear().await {
            ServerMessage::Invite(signed) => signed.verify(&self.member.plan_key).unwrap(),
            other => panic!("an invitation was expected, not {other:?}"),
        }
    }

    /// Accepts a plan and takes in its model.
    pub async fn accept(&mut self, plan: &VerifiedPlan) -> Vec<f32> {
        let round = plan.plan().round;
        self.say(&ClientMessage::Accept { round, plan: plan.digest() }).await;
        let ServerMessage::Model { round: of, len, digest } = self.hear().await else { panic!("no model") };
        assert_eq!((of, digest), (round, plan.plan().base_model));
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            match self.receive().await {
                Some(Frame::Chunk(chunk)) if chunk.transfer == round.0 => {
                    assert_eq!(chunk.offset, bytes.len() as u64);
                    bytes.extend_from_slice(&chunk.contents);
                }
                other => panic!("a chunk was expected, not {other:?}"),
            }
        }
        assert_eq!((bytes.len() as u64, Digest::of(&bytes)), (len, digest));
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    /// A signed offer of these bytes on this connection.
    pub fn offer_of(&self, plan: &VerifiedPlan, packed: &[u8]) -> Offer {
        let (len, digest) = (packed.len() as u64, Digest::of(packed));
        let text = Offer::signed_text(&plan.digest(), len, &digest, &self.connection.channel_binding);
        let signature = self.member.key.sign(&text).0.to_vec();
        Offer { round: plan.plan().round, len, digest, signature }
    }

    /// Offers these bytes; says from which offset the server wants them.
    pub async fn offer(&mut self, plan: &VerifiedPlan, packed: &[u8]) -> u64 {
        let offer = self.offer_of(plan, packed);
        self.say(&ClientMessage::Offer(offer)).await;
        match self.hear().await {
            ServerMessage::Grant { offset, .. } => offset,
            other => panic!("a grant was expected, not {other:?}"),
        }
    }

    /// Takes part in the next round with this update, and says which model it started from.
    pub async fn take_part(&mut self, update: impl FnOnce(&VerifiedPlan) -> Vec<u8>) -> Vec<f32> {
        let plan = self.invited().await;
        let model = self.accept(&plan).await;
        let packed = update(&plan);
        self.upload(&plan, &packed).await;
        assert_eq!(self.hear().await, ServerMessage::Closed { round: plan.plan().round, released: true });
        model
    }

    /// Offers and sends an update that the server takes.
    pub async fn upload(&mut self, plan: &VerifiedPlan, packed: &[u8]) {
        let round = plan.plan().round;
        assert_eq!(self.offer(plan, packed).await, 0);
        for (index, contents) in packed.chunks(CHUNK_LIMIT).enumerate() {
            self.send_chunk(round, (index * CHUNK_LIMIT) as u64, contents).await;
        }
        assert_eq!(self.hear().await, ServerMessage::Committed { round });
    }

    /// Hears that it is refused, for this reason.
    pub async fn refused(&mut self, reason: Refusal) {
        match self.hear().await {
            ServerMessage::Refused { reason: heard, .. } => assert_eq!(heard, reason),
            other => panic!("a refusal was expected, not {other:?}"),
        }
    }

    /// Hears nothing more but that the connection is closed.
    pub async fn goodbye(&mut self) {
        loop {
            match within(self.connection.stream.receive()).await {
                Ok(None) | Err(NetError::Io(_) | NetError::CutOff) => return,
                Ok(Some(Frame::Control(encoded))) => {
                    let message: ServerMessage = codec::decode(&encoded).unwrap();
                    assert!(matches!(message, ServerMessage::Closed { .. }), "{message:?}");
                }
                other => panic!("a goodbye was expected, not {other:?}"),
            }
        }
    }
}

/// The packed update with the same integer in every coordinate.
pub fn constant(plan: &VerifiedPlan, steps: i32) -> Vec<u8> {
    let plan = plan.plan();
    let coordinates = vec![steps; plan.update_len() as usize];
    pack(&coordinates, plan.encoding.wire_bits).unwrap()
}

/// The packed update with these integers first and zeros after them.
pub fn starting_with(plan: &VerifiedPlan, first: &[i32]) -> Vec<u8> {
    let plan = plan.plan();
    let mut coordinates = first.to_vec();
    coordinates.resize(plan.update_len() as usize, 0);
    pack(&coordinates, plan.encoding.wire_bits).unwrap()
}

/// Ends a test that waits for what does not come.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("the server never stays silent for so long")
}

/// What progress looks like in a record: clients refused, by reason.
pub fn refusals(record: &RoundRecord) -> Vec<(Refusal, u32)> {
    record.refusals.iter().map(|(&reason, &count)| (reason, count)).collect()
}
