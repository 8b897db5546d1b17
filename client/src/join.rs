//! Taking part in a federation over the network, from the first connection to the server's last word.
//!
//! ```text
//! connect ──▶ session ──▶ finished
//!    ▲           │ lost
//!    └── wait ───┘          training goes on meanwhile; the round resumes where it was
//! ```

use std::collections::BTreeMap;
use std::future::pending;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_learning::Subset;
use skep_protocol::codec::CodecError;
use skep_protocol::experiment::Task;
use skep_protocol::net::Traffic;
use skep_protocol::net::identity::Identity;
use skep_protocol::net::tls::TlsError;
use skep_protocol::net::websocket::{Connection, NetError, Purpose, Timeouts, connect};
use skep_protocol::plan::PlanError;
use skep_protocol::round::client::End;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;
use tracing::{Instrument, info, info_span, warn};

use crate::backoff::Backoff;
use crate::driver::Driver;
use crate::session::{self, Parted};
use crate::task::TaskError;
use crate::trainer::ClientKeys;

/// How a client takes part.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Threads for training; clones are shared by the clients of a process.
    pub training_slots: TrainingSlots,
    /// How long each kind of wait on a connection may last.
    pub timeouts: Timeouts,
    /// The shortest wait before connecting again; it doubles with every attempt. Waits are shortened at random by up
    /// to a half.
    pub first_wait: Duration,
    /// The longest wait before connecting again.
    pub longest_wait: Duration,
    /// How long to go without a connection before giving up.
    pub give_up_after: Duration,
}

impl JoinOptions {
    /// Waits of 0.5 s to 30 s, and ten minutes until giving up: longer than a server takes to restart.
    pub fn new(training_slots: TrainingSlots) -> Self {
        JoinOptions {
            training_slots,
            timeouts: Timeouts::default(),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            give_up_after: Duration::from_secs(600),
        }
    }
}

/// Leave to train, for so many clients of a process at a time.
#[derive(Clone, Debug)]
pub struct TrainingSlots(Arc<Semaphore>);

impl TrainingSlots {
    /// Leave for `threads` clients at a time.
    pub fn new(threads: NonZeroUsize) -> Self {
        TrainingSlots(Arc::new(Semaphore::new(threads.get().min(Semaphore::MAX_PERMITS))))
    }

    pub(crate) async fn acquire(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed")
    }
}

/// What became of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReport {
    /// Why it left.
    pub leaving: Leaving,
    /// How its rounds ended, and how often.
    pub rounds: BTreeMap<End, u64>,
    /// Connections made.
    pub connections: u64,
    /// Bytes sent over TCP, TLS included.
    pub bytes_up: u64,
    /// Bytes received over TCP, TLS included.
    pub bytes_down: u64,
}

/// Why a client left a federation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The server says that it is over.
    Finished,
    /// The owner asked for it.
    Stopped,
}

/// Why a connection is gone that is worth making again.
#[derive(Debug, Error)]
pub enum Lost {
    /// The server said goodbye.
    #[error("the server closed the connection")]
    Closed,
    /// The connection was not made, or broke.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Why a client cannot go on.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The client's certificate is past its end.
    #[error("the certificate of this client has expired; ask the operator for a new invitation")]
    CertificateExpired,
    /// The client's own certificate or key is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server's side refuses the connection, or is not this federation's.
    #[error("the connection is refused: {0}")]
    Refused(#[source] NetError),
    /// The server is out of reach for too long.
    #[error("no connection to the server for {tried:.0?}; the last attempt: {last}")]
    Unreachable {
        /// For how long.
        tried: Duration,
        /// Why the last attempt failed.
        #[source]
        last: Lost,
    },
    /// What the server sent is no message.
    #[error("the server sent what is no message: {0}")]
    Message(#[from] CodecError),
    /// The server did not begin with its task.
    #[error("the server's first message is not its task; is this a Skep server of this version?")]
    NoWelcome,
    /// The server asks for something impossible.
    #[error("the server's task makes no sense: `{key}` {problem}")]
    Task {
        /// The key of the experiment file.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The server now runs another experiment.
    #[error("the server now announces another task, \"{now}\" instead of \"{before}\"; join again")]
    TaskChanged {
        /// The name of the task so far.
        before: String,
        /// The name of the new task.
        now: String,
    },
    /// The task cannot be learned from the data here.
    #[error(transparent)]
    Data(#[from] TaskError),
    /// A plan that the federation's key did not sign.
    #[error("an invitation is refused, and nothing was trained for it: {0}")]
    Plan(#[from] PlanError),
}

/// Takes part until the server says that the federation is over, or until `shutdown` resolves.
///
/// A lost connection is made again, with growing waits; meanwhile training goes on, and the round resumes. Several
/// clients of one process are several of these futures, with clones of one [`TrainingSlots`]. Dropping the future
/// closes the connection; a training that runs goes on to its end on its thread, unheard.
///
/// # Errors
/// [`JoinError`]. A round that fails is no error: it is counted in the report.
pub async fn join(
    identity: Identity,
    data: Subset,
    keys: ClientKeys,
    options: JoinOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<JoinReport, JoinError> {
    let member = Member { tls: identity.tls()?, identity, data, keys, options };
    let mut career = Career::default();
    let span = info_span!("join", client = %member.identity.client());
    let leaving = tokio::select! {
        finished = member.take_part(&mut career).instrument(span) => finished.map(|()| Leaving::Finished)?,
        () = shutdown => Leaving::Stopped,
    };
    Ok(career.report(leaving))
}

/// Who takes part, and with what.
struct Member {
    identity: Identity,
    tls: Arc<ClientConfig>,
    data: Subset,
    keys: ClientKeys,
    options: JoinOptions,
}

/// What outlives every connection. There is a driver as soon as the task is known.
#[derive(Default)]
struct Career {
    driver: Option<Driver>,
    connections: u64,
    /// Of the latest connection.
    traffic: Arc<Traffic>,
    /// Bytes sent and received on those before.
    earlier: (u64, u64),
}

impl Member {
    async fn take_part(&self, career: &mut Career) -> Result<(), JoinError> {
        let mut backoff = Backoff::new(self.options.first_wait, self.options.longest_wait);
        let mut alone_since = Instant::now();
        loop {
            let (before, opened) = (career.connections, Instant::now());
            let lost = match self.connect_once(career).await? {
                Parted::Finished => return Ok(()),
                Parted::Lost(lost) => lost,
            };
            if career.connections > before {
                alone_since = Instant::now();
                // A server that drops every connection at once is not asked more often than one that is away.
                if opened.elapsed() >= self.options.longest_wait {
                    backoff.reset();
                }
            } else if alone_since.elapsed() >= self.options.give_up_after {
                return Err(JoinError::Unreachable { tried: alone_since.elapsed(), last: lost });
            }
            let wait = backoff.next();
            warn!(%lost, ?wait, "no connection to the server");
            meanwhile(&mut career.driver, sleep(wait)).await;
        }
    }

    /// Connects, and takes part for as long as the connection lasts.
    async fn connect_once(&self, career: &mut Career) -> Result<Parted, JoinError> {
        if self.identity.has_expired(SystemTime::now()) {
            return Err(JoinError::CertificateExpired);
        }
        let tls = Arc::clone(&self.tls);
        let connecting = connect(self.identity.addresses(), tls, Purpose::Session, &self.options.timeouts);
        let parted = match meanwhile(&mut career.driver, connecting).await {
            Ok(connection) => self.session(career, connection).await?,
            Err(error) => Parted::Lost(error.into()),
        };
        match parted {
            Parted::Lost(Lost::Net(error)) if is_final(&error) => Err(JoinError::Refused(error)),
            parted => Ok(parted),
        }
    }

    async fn session(&self, career: &mut Career, mut connection: Connection) -> Result<Parted, JoinError> {
        career.meter(Arc::clone(&connection.traffic));
        let welcome = session::welcome(&mut connection, self.options.timeouts.handshake);
        let task = match meanwhile(&mut career.driver, welcome).await? {
            Ok(task) => task,
            Err(lost) => return Ok(Parted::Lost(lost)),
        };
        career.connections += 1;
        let driver = self.driver(&mut career.driver, task)?;
        session::run(&self.identity, driver, connection, &self.options.timeouts).await
    }

    /// The driver for `task`, made when it is first announced.
    fn driver<'a>(&self, driver: &'a mut Option<Driver>, task: Task) -> Result<&'a mut Driver, JoinError> {
        match driver {
            Some(driver) if *driver.task() != task => {
                Err(JoinError::TaskChanged { before: driver.task().name.clone(), now: task.name })
            }
            Some(driver) => Ok(driver),
            None => {
                task.check().map_err(|(key, problem)| JoinError::Task { key, problem })?;
                info!(task = task.name, "the server announces its task");
                let slots = self.options.training_slots.clone();
                let id = self.identity.client();
                Ok(driver.insert(Driver::new(id, task, self.data.clone(), self.keys.clone(), slots)?))
            }
        }
    }
}

impl Career {
    fn meter(&mut self, traffic: Arc<Traffic>) {
        self.earlier = self.bytes();
        self.traffic = traffic;
    }

    fn bytes(&self) -> (u64, u64) {
        (self.earlier.0 + self.traffic.sent(), self.earlier.1 + self.traffic.received())
    }

    fn report(&self, leaving: Leaving) -> JoinReport {
        let (bytes_up, bytes_down) = self.bytes();
        JoinReport {
            leaving,
            rounds: self.driver.as_ref().map(|driver| driver.ends().clone()).unwrap_or_default(),
            connections: self.connections,
            bytes_up,
            bytes_down,
        }
    }
}

/// Lets the driver go on while something else is waited for.
async fn meanwhile<T>(driver: &mut Option<Driver>, waiting: impl Future<Output = T>) -> T {
    let mut waiting = pin!(waiting);
    loop {
        let wake = async {
            match driver {
                Some(driver) => driver.wake().await,
                None => pending().await,
            }
        };
        tokio::select! {
            result = &mut waiting => return result,
            () = wake => {}
        }
    }
}

/// Whether connecting again would end in the same way.
fn is_final(error: &NetError) -> bool {
    match error {
        NetError::NoAddress
        | NetError::Tls(_)
        | NetError::TlsHandshake(_)
        | NetError::Unauthenticated
        | NetError::UnknownPath
        | NetError::Oversized { .. }
        | NetError::Text(_)
        | NetError::Frame(_) => true,
        NetError::Refused(status) => (400..500).contains(status),
        NetError::Unreachable { .. }
        | NetError::Io(_)
        | NetError::HandshakeTimeout(_)
        | NetError::SendTimeout(_)
        | NetError::Idle(_)
        | NetError::WebSocket(_) => false,
    }
}
