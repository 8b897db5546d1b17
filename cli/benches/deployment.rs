//! How fast a deployment is whose training costs nothing: real processes, TLS, loopback.
//!
//! `cargo bench -p skep-cli --bench deployment`. One process is the server, each client another, as with `skep serve` and
//! `skep join`; what a client's learner returns is a constant, everything else is the real thing: download, clipping or
//! grid, packing, upload, test, sum, noise, next model, and the journal on disk. A second is the wall clock from the
//! end of one round to the end of the next; resident memory is the largest of a process, as the system counts it.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mimalloc::MiMalloc;
use skep_cli::allocator;
use skep_client::join::{JoinOptions, TrainingSlots, join};
use skep_client::task::TaskError;
use skep_client::trainer::ClientKeys;
use skep_learning::{Evaluation, LearnError, Learner, Subset, TrainReport, Training, Turn, digits};
use skep_privacy::ledger::Hash;
use skep_protocol::ClientId;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, ModeFile, ModelFile, PartitionFile,
    PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SimulationFile, StrategyFile, TaskFile,
    TrainingFile, WeightingFile,
};
use skep_protocol::experiment::{Experiment, Task};
use skep_protocol::net::enrolment::enrol;
use skep_protocol::net::invitation::Invitation;
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::plan::Segment;
use skep_server::authority::Authority;
use skep_server::enrolment::Enrolment;
use skep_server::federation::{Federation, ServerKeys};
use skep_server::journal::Journal;
use skep_server::ledger;
use skep_server::record::{Observer, RoundRecord};
use skep_server::roster::Contiguous;
use skep_server::serve::{Deployment, ServeOptions, serve};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["server", state, mode, clients, rounds] => {
            server(Path::new(state), mode, number(clients), number(rounds))
        }
        ["client", state] => clients(Path::new(state), 1),
        ["idle", state, count] => clients(Path::new(state), number(count)),
        // What cargo passes along, or nothing.
        _ => measure_all(),
    }
}

fn measure_all() {
    println!(
        "{:<30} {:>9} {:>7} {:>8} {:>10} {:>10} {:>11} {:>14} {:>14}",
        "",
        "median s",
        "best s",
        "worst s",
        "client MB",
        "server MB",
        "MB a round",
        "client CPU ms",
        "server CPU ms"
    );
    for (clients, mode) in [(2, "none"), (2, "central"), (10, "none"), (10, "central")] {
        rounds(clients, mode);
    }
    idle(200);
}

// ---- the measuring process ----

fn rounds(clients: usize, mode: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start(directory.path(), mode, clients, ROUNDS);
    let mut running: Vec<Child> = (0..clients)
        .map(|client| start_clients("client", directory.path(), client, &server.invitations[client..=client]))
        .collect();
    let mut seconds = Vec::new();
    let mut bytes = 0.0;
    while let Some(line) = server.line() {
        if let Some(round) = line.strip_prefix("round ") {
            let (time, moved) = round.split_once(' ').expect("two numbers");
            seconds.push(time.parse::<f64>().expect("a number"));
            bytes = moved.parse::<f64>().expect("a number");
        }
        if line == "over" {
            break;
        }
    }
    let server_peak = memory(server.child.id(), "VmHWM:");
    let client_peak = running.iter().map(|client| memory(client.id(), "VmHWM:")).fold(0.0, f64::max);
    let rounds = seconds.len() as f64;
    let server_cpu = cpu(server.child.id()) / rounds;
    let client_cpu = running.iter().map(|client| cpu(client.id())).fold(0.0, f64::max) / rounds;
    server.end();
    for client in &mut running {
        assert!(client.wait().expect("it was started").success());
    }
    // The first round begins when the clients have come.
    let mut sorted = seconds.split_off(1);
    sorted.sort_by(f64::total_cmp);
    println!(
        "{:<30} {:>9.3} {:>7.3} {:>8.3} {:>10.1} {:>10.1} {:>11.1} {:>14.1} {:>14.1}",
        format!("{clients} clients x {PARAMETERS}, {mode}"),
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1],
        client_peak,
        server_peak,
        bytes / 1e6,
        client_cpu,
        server_cpu,
    );
}

fn idle(count: usize) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // One more is waited for, so that no round begins.
    let mut server = Server::start(directory.path(), "none", count + 1, 1);
    let before = memory(server.child.id(), "VmRSS:");
    let mut clients = start_clients("idle", directory.path(), count, &server.invitations[..count]);
    while server.line().expect("the server runs") != format!("connected {count}") {}
    std::thread::sleep(Duration::from_secs(2));
    let after = memory(server.child.id(), "VmRSS:");
    let per_connection = (after - before) * 1e6 / count as f64;
    println!("{count} idle clients: {per_connection:.0} bytes of the server's memory a connection");
    println!("{:<34} {before:.1} MB without, {after:.1} MB with them", "");
    clients.kill().expect("it runs");
    clients.wait().expect("it was started");
    server.child.kill().expect("it runs");
    server.child.wait().expect("it was started");
}

struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    invitations: Vec<String>,
}

impl Server {
    fn start(directory: &Path, mode: &str, clients: usize, rounds: usize) -> Self {
        let (clients, rounds) = (clients.to_string(), rounds.to_string());
        let state = directory.join("server");
        let words = ["server", path(&state), mode, &clients, &rounds];
        let mut child = start(this(&words).envs(allocator::SERVER.iter().copied()));
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        let invitations = (0..number::<usize>(&clients)).map(|_| {
            line.clear();
            output.read_line(&mut line).expect("the server invites");
            line.trim().to_owned()
        });
        let invitations = invitations.collect();
        Server { child, input, output, invitations }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("the server writes text");
        (read > 0).then(|| line.trim().to_owned())
    }

    /// Lets go of a server that has said that it is over.
    fn end(mut self) {
        drop(self.input.take());
        assert!(self.child.wait().expect("it was started").success());
    }
}

fn start_clients(role: &str, directory: &Path, number: usize, invitations: &[String]) -> Child {
    let state = directory.join(format!("clients-{number}"));
    let count = invitations.len().to_string();
    let mut words = vec![role, path(&state)];
    if role == "idle" {
        words.push(&count);
    }
    let mut child = start(this(&words).envs(allocator::CLIENT.iter().copied()));
    let mut input = child.stdin.take().expect("it is piped");
    for invitation in invitations {
        writeln!(input, "{invitation}").expect("the client listens");
    }
    // It ends when this is closed, which waiting for it does.
    child.stdin = Some(input);
    child
}

/// This program again, as somebody else.
fn this(arguments: &[&str]) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn start(command: &mut Command) -> Child {
    command.spawn().expect("it starts")
}

/// A line of a process's status, in MB.
fn memory(process: u32, label: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux, and it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(label)).expect("the system counts it");
    number::<f64>(line.trim().trim_end_matches("kB").trim()) * 1024.0 / 1e6
}

/// What a process has taken of processors so far, in milliseconds; start included.
fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux, and it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // `man 5 proc`: fields 14 and 15, in ticks of a hundredth of a second.
    (number::<f64>(fields[11]) + number::<f64>(fields[12])) * 10.0
}

// ---- the server ----

fn server(state: &Path, mode: &str, clients: usize, rounds: usize) {
    let file = experiment(mode, clients as u64, rounds as u64);
    let experiment = Experiment::try_from(&file).expect("the experiment makes sense");
    let authority = Arc::new(Authority::open(state).expect("a new directory"));
    let enrolment = Enrolment::open(state).expect("a new directory");
    let len = experiment.task.parameter_count().expect("it is small");
    let segments = vec![Segment { name: "all".into(), len }];
    let model = vec![0.0; len as usize];
    let ledger = ledger::open(&state.join("ledger.skep"), &experiment, Hash::ZERO, None);
    let ledger = ledger.expect("a new directory");
    let federation = Federation::new(experiment, segments, model, ledger, ServerKeys::from_os());
    let mut federation = federation.expect("the experiment makes sense");
    let mut journal = Journal::open(&state.join("rounds")).expect("a new directory");
    journal.restore(&mut federation).expect("it is empty");
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        for client in 0..clients as u64 {
            let (addresses, hour) = (vec![address.into()], Duration::from_secs(3600));
            let invitation =
                enrolment.invite(&authority, ClientId(client), addresses, SystemTime::now(), hour);
            println!("{}", invitation.expect("the disk has room"));
        }
        let deployment = Deployment {
            federation,
            roster: Arc::new(Contiguous(clients as u64)),
            evaluator: None,
            authority,
            enrolment,
            journal: Some(journal),
        };
        let mut reporter = Reporter { last: Instant::now() };
        let ended =
            serve(deployment, listener, ServeOptions::new(clients), &mut reporter, std::future::pending());
        ended.await.expect("all rounds run");
    });
    println!("over");
    until_looked_at();
}

struct Reporter {
    last: Instant,
}

impl Observer for Reporter {
    fn clients_connected(&mut self, connected: usize, _: usize) {
        println!("connected {connected}");
    }

    fn round_closed(&mut self, record: &RoundRecord, _: &Arc<Vec<f32>>) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        assert_eq!(record.detail.split(' ').next(), Some("complete"), "{}", record.detail);
        println!("round {seconds} {}", record.bytes_up + record.bytes_down);
    }
}

fn experiment(mode: &str, clients: u64, rounds: u64) -> ExperimentFile {
    let privacy = match mode {
        "central" => PrivacyFile {
            mode: ModeFile::Central,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(1.0),
            delta: Some(1e-5),
            epsilon_limit: Some(1e9),
        },
        _ => PrivacyFile::NONE,
    };
    ExperimentFile {
        name: "deployment".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Mlp { hidden: vec![HIDDEN], activation: Activation::Relu },
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
        rounds: RoundsFile {
            count: rounds,
            sampling: SamplingFile::All {},
            min_updates: 1,
            deadline_s: 600.0,
        },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy,
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}

// ---- clients ----

fn clients(state: &Path, count: usize) {
    let lines: Vec<String> =
        std::io::stdin().lock().lines().take(count).map(|line| line.expect("text")).collect();
    // One worker, as `skep join` has.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("the system has threads");
    runtime.block_on(async {
        let mut joining = tokio::task::JoinSet::new();
        for (number, line) in lines.into_iter().enumerate() {
            let state = state.join(number.to_string());
            let invitation: Invitation = line.parse().expect("the server made it");
            let identity =
                enrol(&invitation, &state, &Timeouts::default()).await.expect("the server is there");
            joining.spawn(take_part(identity, state));
        }
        joining.join_all().await;
    });
    until_looked_at();
}

/// Waits until the measuring process has looked at this one, and closes the pipe.
fn until_looked_at() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

async fn take_part(identity: skep_protocol::net::identity::Identity, state: PathBuf) {
    let options = JoinOptions {
        make_learner: Arc::new(|task: &Task| {
            Ok::<Box<dyn Learner>, TaskError>(Box::new(Free(parameters(task))))
        }),
        state: Some(state),
        ..JoinOptions::new(TrainingSlots::new(NonZeroUsize::MIN))
    };
    let train = digits::load().train;
    let few = Subset::new(train.dataset().clone(), train.rows()[..2].to_vec()).expect("there are more");
    let keys = ClientKeys::from_os().expect("the system has randomness");
    join(identity, few, keys, options, std::future::pending()).await.expect("the federation ends well");
}

/// Returns the same update at once.
struct Free(usize);

impl Learner for Free {
    fn parameter_count(&self) -> usize {
        self.0
    }

    fn train(&mut self, _: &[f32], _: &Subset, _: &Training, _: Turn<'_>) -> Result<TrainReport, LearnError> {
        Ok(TrainReport { update: vec![0.001; self.0], examples: 2, steps: 0, loss: 0.0 })
    }

    fn evaluate(&mut self, _: &[f32], _: &Subset) -> Result<Evaluation, LearnError> {
        unreachable!("nobody asks a client that trains for free how good a model is")
    }
}

fn parameters(task: &Task) -> usize {
    task.parameter_count().expect("it is small") as usize
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system has threads")
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a number")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// 64 inputs, 10 classes: 75 w + 10 parameters.
const HIDDEN: u32 = 13_334;
const PARAMETERS: u32 = 75 * HIDDEN + 10;
const ROUNDS: usize = 30;
