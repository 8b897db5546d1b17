//! The launcher: starts the children, listens to them, and adds up what they report.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use skep_client::masking::Masks;
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::{Digest, Round};
use skep_server::federation::ServerKeys;
use skep_server::ledger::Place;
use skep_simulations::population;
use tokio::process::ChildStdin;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bootstrap::{ClientBootstrap, ClientsBootstrap, Report, Secret, ServedEnd, ServerBootstrap};
use super::process::Process;
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::recorder::Recorder;
use crate::report::End;
use crate::serve::runtime;

/// What came of a run over processes.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Why it ended.
    pub(crate) end: End,
    /// The last model.
    pub(crate) model: Vec<f32>,
    /// Its digest.
    pub model_sha256: Digest,
    /// A signed checkpoint of the ledger.
    pub(crate) checkpoint: String,
    /// Bytes from clients, on the server's sockets.
    pub(crate) bytes_up: u64,
    /// Bytes to clients, on the server's sockets.
    pub(crate) bytes_down: u64,
    /// The largest resident memory of all processes, added up.
    pub(crate) peak_rss_bytes: Option<u64>,
    /// Processes, this one included.
    pub(crate) processes: usize,
    /// What hid updates.
    pub(crate) masks: Masks,
}

/// How a federation is divided among processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Division<'a> {
    /// Processes of clients, at least 1.
    pub(crate) processes: usize,
    /// Threads that train, over all processes.
    pub(crate) threads: NonZeroUsize,
    /// What they log, as a filter.
    pub(crate) log: &'a str,
}

/// Where the server's process keeps its ledger, and whether others know what it follows from.
#[derive(Clone, Debug)]
pub(crate) struct KeptLedger {
    /// Where.
    pub(crate) place: Place,
    /// Whether `--seed` was given.
    pub(crate) seeded: bool,
}

/// Runs the experiment over processes. Everything random but TLS and identities follows from `root`, as it does in
/// memory.
///
/// # Errors
/// [`Failure`], of this process or of the first child that fails; no child is left behind.
pub(crate) fn run(
    experiment: &Experiment,
    root: &Key,
    ledger: &KeptLedger,
    division: Division<'_>,
    recorder: &mut Recorder,
) -> Result<Ran, Failure> {
    let directory = tempfile::Builder::new().prefix("skep-").tempdir().map_err(Failure::other)?;
    let launch = Launch { experiment, root, ledger, division, directory: directory.path() };
    runtime()?.block_on(launch.run(recorder))
}

struct Launch<'a> {
    experiment: &'a Experiment,
    root: &'a Key,
    ledger: &'a KeptLedger,
    division: Division<'a>,
    directory: &'a Path,
}

impl Launch<'_> {
    async fn run(&self, recorder: &mut Recorder) -> Result<Ran, Failure> {
        let bootstrap = self.server();
        let mut server =
            Process::start("local-server", "the server's process", self.division.log, &bootstrap).await?;
        let invitations = match server.next().await? {
            Report::Listening { invitations } => invitations,
            report => return Err(server.unexpected(&report)),
        };
        let mut clients = self.start_clients(&invitations).await?;
        let served = follow(&mut server, &mut clients, recorder).await?;
        let took = clients.took().await?;
        let model = read_model(&bootstrap.model())?;
        Ok(Ran {
            end: served.end,
            model_sha256: Digest::of_model(&model),
            model,
            checkpoint: served.checkpoint,
            bytes_up: served.bytes_up,
            bytes_down: served.bytes_down,
            peak_rss_bytes: [machine::peak_rss_bytes(), served.peak_rss_bytes, took.peak_rss_bytes]
                .into_iter()
                .sum(),
            processes: 2 + self.division.processes,
            masks: took.masks,
        })
    }

    async fn start_clients(&self, invitations: &[String]) -> Result<Clients, Failure> {
        let mut clients = Clients {
            running: JoinSet::new(),
            leashes: Vec::new(),
            took: Took { peak_rss_bytes: Some(0), masks: Masks::default() },
        };
        for process in 0..self.division.processes {
            let bootstrap = self.clients(process, invitations);
            let mut process =
                Process::start("local-clients", "a process of clients", self.division.log, &bootstrap)
                    .await?;
            clients.leashes.extend(process.leash());
            clients.running.spawn(async move {
                match process.next().await? {
                    Report::Joined { peak_rss_bytes, masks_applied, masked_bytes } => {
                        let masks = Masks { applied: masks_applied, bytes_packed: masked_bytes };
                        Ok(Took { peak_rss_bytes, masks })
                    }
                    report => Err(process.unexpected(&report)),
                }
            });
        }
        Ok(clients)
    }

    fn server(&self) -> ServerBootstrap {
        // Not the root: with it the server could derive the clients' keys.
        let [cohort, noise] = ServerKeys::derive(self.root);
        ServerBootstrap {
            experiment: ExperimentFile::from(self.experiment),
            cohort: Secret::of(&cohort),
            noise: Secret::of(&noise),
            ledger: self.ledger.place.clone(),
            ledger_key: Secret::of(&self.root.derive(Purpose::Ledger, 0, 0)),
            seeded: self.ledger.seeded,
            directory: self.directory.to_owned(),
        }
    }

    /// Every so many-th client is in the same process.
    fn clients(&self, process: usize, invitations: &[String]) -> ClientsBootstrap {
        let mine = (0u64..).zip(invitations).skip(process).step_by(self.division.processes);
        ClientsBootstrap {
            experiment: ExperimentFile::from(self.experiment),
            clients: mine
                .map(|(client, invitation)| ClientBootstrap {
                    client,
                    invitation: invitation.clone(),
                    root: Secret::of(&population::client_root(self.root, client)),
                })
                .collect(),
            state: self.directory.join("clients"),
            threads: NonZeroUsize::new(self.division.threads.get() / self.division.processes)
                .unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// What the server's last report says.
struct Served {
    end: End,
    checkpoint: String,
    bytes_up: u64,
    bytes_down: u64,
    peak_rss_bytes: Option<u64>,
}

/// Listens to everyone until the server has stopped.
async fn follow(
    server: &mut Process,
    clients: &mut Clients,
    recorder: &mut Recorder,
) -> Result<Served, Failure> {
    let mut leash = server.leash();
    loop {
        let report = tokio::select! {
            report = server.next() => report?,
            Some(ended) = clients.running.join_next() => {
                clients.ended(ended)?;
                continue;
            }
            () = interrupt::wait(), if leash.is_some() => {
                leash = None;
                clients.leashes.clear();
                continue;
            }
        };
        match report {
            Report::Connected { connected, wanted } => recorder.connected(connected, wanted),
            Report::Opened { round, invited } => recorder.opened(Round(round), invited),
            Report::Closed { record } => recorder.closed(*record),
            Report::Served { end, checkpoint, bytes_up, bytes_down, peak_rss_bytes } => {
                return Ok(Served { end: end.into(), checkpoint, bytes_up, bytes_down, peak_rss_bytes });
            }
            report => return Err(server.unexpected(&report)),
        }
    }
}

/// The processes of clients, and what those that have ended took.
struct Clients {
    running: JoinSet<Result<Took, Failure>>,
    leashes: Vec<ChildStdin>,
    took: Took,
}

/// What clients took, added up.
#[derive(Clone, Copy)]
struct Took {
    peak_rss_bytes: Option<u64>,
    masks: Masks,
}

impl Clients {
    fn ended(&mut self, ended: Result<Result<Took, Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
        let Took { peak_rss_bytes, masks } = ended.map_err(Failure::other)??;
        self.took.peak_rss_bytes = self.took.peak_rss_bytes.zip(peak_rss_bytes).map(|(sum, peak)| sum + peak);
        self.took.masks += masks;
        Ok(())
    }

    /// Waits for those that have not heard yet that it is over.
    async fn took(mut self) -> Result<Took, Failure> {
        let all = async {
            while let Some(ended) = self.running.join_next().await {
                self.ended(ended)?;
            }
            Ok(())
        };
        match timeout(GOODBYE, all).await {
            Ok(result) => result.map(|()| self.took),
            Err(_) => Err(Failure::Peer(
                "a process of clients does not end, although the federation is over".to_owned(),
            )),
        }
    }
}

impl From<ServedEnd> for End {
    fn from(end: ServedEnd) -> Self {
        match end {
            ServedEnd::Finished => End::Finished,
            ServedEnd::BudgetExhausted(reason) => End::BudgetExhausted(Failure::Budget(reason)),
            ServedEnd::StoppedEarly => End::StoppedEarly,
            ServedEnd::Stopped => End::Interrupted,
        }
    }
}

fn read_model(path: &Path) -> Result<Vec<f32>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file(path, error))?;
    Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// For clients to hear that it is over, once the server has said so.
const GOODBYE: Duration = Duration::from_secs(30);
