//! The server on the network: clients over TLS websockets around the server's machine and a federation.
//!
//! ```text
//!   door ──── accepts, enrols, spawns ───▶ session (one a connection): reader, writer
//!                                             │  ▲
//!                            checked messages │  │ bounded queue a client
//!                     staged updates (threads)▼  │
//!                                          driver: the machine, the clock, who is connected
//!                                             │  ▲
//!                                             ▼  │
//!                                          aggregation (one thread): the federation, its vectors, evaluation
//! ```
//!
//! Nothing waits for a client: its reader waits for room in the driver's queue, its writer has a queue of its own, and
//! whoever lets that overflow is cut off. The driver waits for nothing but its next event or deadline.

mod aggregation;
mod door;
mod driver;
mod presence;
mod quiet;
mod session;
mod uploads;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_privacy::budget::BudgetExhausted;
use skep_protocol::codec::CodecError;
use skep_protocol::message::ServerMessage;
use skep_protocol::net::rate::Rate;
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::plan::PlanKey;
use skep_protocol::round::server::{Limits, OpenError};
use skep_protocol::{Digest, Round};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

use crate::authority::{Authority, AuthorityError, CLIENT_VALIDITY};
use crate::enrolment::{Enrolment, EnrolmentError, Revocations};
use crate::evaluate::Evaluator;
use crate::federation::{Federation, PlanningError, RoundError};
use crate::journal::Journal;
use crate::patience::Patience;
use crate::record::Observer;
use crate::roster::Roster;
use crate::stage::Stager;
use aggregation::Aggregation;
use driver::{Driver, Ended, Input, Left, Told};
use presence::Presence;
use quiet::Quiet;

/// What is served.
pub struct Deployment {
    /// The federation, before its first round.
    pub federation: Federation,
    /// Who could be invited.
    pub roster: Arc<dyn Roster + Send + Sync>,
    /// Measures the model after each round; without one, records have no accuracy.
    pub evaluator: Option<Box<dyn Evaluator>>,
    /// The root of trust.
    pub authority: Arc<Authority>,
    /// Who may come in.
    pub enrolment: Enrolment,
    /// Where rounds are kept; without one a server that ends has forgotten them.
    pub journal: Option<Journal>,
}

/// What bounds a server.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Clients that must be connected before the first round; all that are not revoked, where those are fewer.
    pub wait_for: usize,
    /// How long they are waited for.
    pub wait_timeout: Duration,
    /// Of memory for uploads, and of patience with slow ones.
    pub limits: Limits,
    /// Of connections.
    pub timeouts: Timeouts,
    /// The most connections of clients; each takes a file descriptor.
    pub max_connections: usize,
    /// The most connections that are not authenticated yet; others wait in the system's queue. One address has at most
    /// half of them; others of it are closed.
    pub max_handshakes: usize,
    /// Frames from one connection, pings and chunks of at most 1 MiB among them.
    pub frames: Rate,
    /// Messages from one connection: each is decoded, and may cost the check of a signature.
    pub messages: Rate,
    /// How long a client's certificate is good.
    pub certificate_validity: Duration,
    /// How long clients that are away when the federation ends are waited for, so that they hear of it.
    pub linger: Duration,
    /// How long the open round may take to come to its end once the operator wants the server to stop; its budget is
    /// charged in any case.
    pub grace: Duration,
}

impl ServeOptions {
    /// The usual bounds: ten minutes for clients to come, 1 GiB for uploads, which must not be slower than 16 KiB/s (the
    /// rate at which a chunk just passes the send timeout), 10,000 connections, 256 handshakes at a time.
    pub fn new(wait_for: usize) -> Self {
        ServeOptions {
            wait_for,
            wait_timeout: Duration::from_secs(600),
            limits: Limits { upload_memory_bytes: 1 << 30, min_upload_bytes_per_s: 16 << 10 },
            timeouts: Timeouts::default(),
            max_connections: 10_000,
            max_handshakes: 256,
            frames: Rate { burst: 4096.0, per_second: 1024.0 },
            messages: Rate { burst: 256.0, per_second: 32.0 },
            certificate_validity: CLIENT_VALIDITY,
            linger: Duration::from_secs(5),
            grace: Duration::from_secs(4),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct ServeReport {
    /// Why the server stopped.
    pub end: End,
    /// Rounds that were closed, whatever their outcome.
    pub rounds: u64,
    /// The federation with its last model.
    pub federation: Federation,
    /// Bytes from clients, TLS included, over all sessions.
    pub bytes_up: u64,
    /// Bytes to clients, TLS included, over all sessions.
    pub bytes_down: u64,
}

/// Why a server stops without an error.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All rounds were run.
    Finished,
    /// One more round would have cost more than the budget allows.
    BudgetExhausted(BudgetExhausted),
    /// The model has not become better for as long as the experiment allows.
    StoppedEarly,
    /// The operator asked for it.
    Stopped,
}

/// Why a server cannot go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The clients cannot be read.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// Too few clients came.
    #[error(
        "{connected} of {wanted} clients connected within {waited:?}; are they enrolled, and is the address right?"
    )]
    NotEnoughClients {
        /// Clients connected.
        connected: usize,
        /// Clients waited for.
        wanted: usize,
        /// For how long.
        waited: Duration,
    },
    /// No round can be planned.
    #[error(transparent)]
    Planning(#[from] PlanningError),
    /// The federation's rounds are not in step with the machine's.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// The machine does not open the planned round.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A message is too long to be sent.
    #[error("a message cannot be sent: {0}")]
    Message(#[from] CodecError),
    /// A thread of the server died; its panic is in the log.
    #[error("the {0} of the server died")]
    Died(&'static str),
}

/// What all connections share.
struct Shared {
    options: ServeOptions,
    authority: Arc<Authority>,
    /// The ledger's, which clients learn when they enrol.
    plan_key: PlanKey,
    enrolment: Enrolment,
    /// The open round.
    open: watch::Receiver<Option<Open>>,
    /// Room for unpacked updates.
    staging: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    /// Of what is logged about peers.
    quiet: Quiet,
}

/// What sessions know of the open round.
#[derive(Clone, Copy)]
struct Open {
    round: Round,
    plan: Digest,
    /// What tests its uploads.
    stager: Stager,
}

/// What every client hears first: what is learned, and whose plans to believe where that has changed.
fn greeting(federation: &Federation) -> Vec<ServerMessage> {
    let welcome = ServerMessage::Welcome(Box::new(federation.experiment().task.clone()));
    let rotations = federation.ledger().rotations().chunks(ROTATIONS_PER_MESSAGE);
    std::iter::once(welcome).chain(rotations.map(|some| ServerMessage::Rotated(some.to_vec()))).collect()
}

/// Some hundred bytes each, so that a message is far below its limit.
const ROTATIONS_PER_MESSAGE: usize = 32;

/// Serves a federation from its first to its last round, to the clients that connect to `listener`.
///
/// Ends when the schedule or the budget does, or when `shutdown` completes: an open round then has the time of
/// [`ServeOptions::grace`] to end by itself, is aborted after that, and stays charged. No wait is without end: rounds have deadlines, connections timeouts.
///
/// # Errors
/// [`ServeError`]; connections are closed before it returns.
pub async fn serve(
    deployment: Deployment,
    listener: TcpListener,
    options: ServeOptions,
    observer: &mut dyn Observer,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<ServeReport, ServeError> {
    let Deployment { federation, roster, evaluator, authority, enrolment, journal } = deployment;
    let tls = authority.server_tls()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (inputs, incoming) = mpsc::channel(INPUTS);
    let (open, opened) = watch::channel(None);
    let told = Told { greeting: greeting(&federation), proofs: federation.ledger().proofs() };
    let early_end = federation.experiment().stop().map(Patience::new);
    let shared = Arc::new(Shared {
        options,
        authority,
        plan_key: federation.ledger().signer().key(),
        enrolment: enrolment.clone(),
        open: opened,
        staging: Arc::new(Semaphore::new(threads)),
        inputs: inputs.clone(),
        quiet: Quiet::new(),
    });
    let (presence, noting) = Presence::keep(enrolment.clone());
    let (revocations, seen) = (enrolment.revocations(), enrolment.revocations());
    let revoked = enrolment.revoked_so_far()?;
    // They were here when an earlier server was killed, and have not heard how it goes on.
    let overview = enrolment.overview(SystemTime::now())?;
    let left_behind = overview.iter().filter(|one| one.connected).map(|one| one.client).collect();

    // The driver never waits for this queue: there are no more commits than permits to stage, one answer and one request
    // in each of its phases of a client, and one other command.
    let (commands, asked) = mpsc::channel(threads + 8 + ANSWERS_PER_CLIENT * shared.options.max_connections);
    let (answers, done) = mpsc::channel(8);
    let aggregation = Aggregation {
        federation,
        roster: Arc::clone(&roster),
        evaluator,
        authority: Arc::clone(&shared.authority),
        enrolment,
        revoked: revoked.clone(),
        revocations,
        journal,
        last: None,
        incomplete: false,
    };
    let aggregating = tokio::task::spawn_blocking(move || aggregation.run(asked, &answers));

    let (close_door, closing) = oneshot::channel();
    // A set, so that everything ends if this future is dropped.
    let mut door = JoinSet::new();
    door.spawn(door::keep(listener, tls, Arc::clone(&shared), closing));
    let mut watching = JoinSet::new();
    watching.spawn(watch_revocations(seen, inputs));

    let left = Left { roster, revoked };
    let mut driver = Driver::new(told, shared.options.clone(), left, observer, open, commands, presence)?;
    driver.end_early(early_end);
    driver.expect(left_behind);
    let ended = driver.run(incoming, done, shutdown).await;

    let patience = match &ended {
        Ok(Ended { end: End::Finished | End::BudgetExhausted(_) | End::StoppedEarly, .. }) => {
            GOODBYE + GOODBYE
        }
        // Whoever stops a server waits for it.
        _ => GOODBYE,
    };
    let _ = close_door.send(patience);
    let _ = door.join_next().await;
    let _ = noting.await;
    let federation = aggregating.await.map_err(|_| ServeError::Died("aggregation"))?;
    let ended = ended?;
    Ok(ServeReport {
        end: ended.end,
        rounds: ended.rounds,
        federation,
        bytes_up: ended.bytes_up,
        bytes_down: ended.bytes_down,
    })
}

async fn watch_revocations(mut revocations: Revocations, inputs: mpsc::Sender<Input>) {
    loop {
        sleep(REVOCATIONS).await;
        match revocations.fresh() {
            Err(error) => warn!(%error, "revocations are not seen"),
            Ok(revoked) => {
                for client in revoked {
                    if inputs.send(Input::Revoked { client }).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// How often a server looks whether somebody was revoked; it is one look at the length of a file.
const REVOCATIONS: Duration = Duration::from_millis(250);
/// What one client can have in the aggregation's queue: an answer, and what it is asked in each of four phases.
const ANSWERS_PER_CLIENT: usize = 5;
/// Events that wait for the driver, beyond which readers wait.
const INPUTS: usize = 1024;
/// For what is queued when a connection is let go.
const GOODBYE: Duration = Duration::from_secs(5);
