//! Taking part in a federation over the network, from the first connection to the server's last word.
//!
//! ```text
//! connect ──▶ session ──▶ finished
//!    ▲           │ lost
//!    └── wait ───┘          training goes on meanwhile; the round resumes where it was
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use skep_learning::Subset;
use skep_protocol::Round;
use skep_protocol::codec::CodecError;
use skep_protocol::experiment::Task;
use skep_protocol::masked::MIN_COHORT;
use skep_protocol::message::TurnAway;
use skep_protocol::net::Traffic;
use skep_protocol::net::enrolment::renew;
use skep_protocol::net::identity::{Identity, IdentityError};
use skep_protocol::net::proxy::{Proxy, ProxyRefusal};
use skep_protocol::net::tls::TlsError;
use skep_protocol::net::websocket::{Connection, Dial, NetError, Purpose, Timeouts, connect};
use skep_protocol::plan::PlanError;
use skep_protocol::round::Decline;
use skep_protocol::round::client::End;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;
use tracing::{Instrument, info, info_span, warn};

use crate::backoff::Backoff;
use crate::credentials::Certified;
use crate::driver::Driver;
use crate::guard::SharedGuard;
use crate::masking::Masks;
use crate::policy::{Limit, Policy, PolicyError};
use crate::session::{self, Parted};
use crate::task::{self, TaskError};
use crate::terms::Terms;
use crate::trainer::{ClientKeys, MakeLearner};

/// How a client takes part.
#[derive(Clone)]
pub struct JoinOptions {
    /// Threads for training; clones are shared by the clients of a process.
    pub training_slots: TrainingSlots,
    /// The smallest cohort that a client hides its update in, where updates are masked.
    pub min_cohort: u32,
    /// How long each kind of wait on a connection may last.
    pub timeouts: Timeouts,
    /// The shortest wait before connecting again; it doubles with every attempt. Waits are shortened at random by up
    /// to a half.
    pub first_wait: Duration,
    /// The longest wait before connecting again.
    pub longest_wait: Duration,
    /// How long to go without a connection before giving up.
    pub give_up_after: Duration,
    /// The proxy to connect through; directly without one.
    pub proxy: Option<Proxy>,
    /// The client's state directory, where certificates are renewed and limits are counted. Without one, certificates are
    /// not renewed and the count is in memory.
    pub state: Option<PathBuf>,
    /// What the owner allows; everything without one.
    pub policy: Option<Policy>,
    /// What the owner is told while the client takes part.
    pub notify: Notify,
    /// Makes the learner for the task.
    pub make_learner: MakeLearner,
    /// Who judges invitations on the owner's behalf; without one every signed plan is agreed to.
    pub guard: Option<SharedGuard>,
}

impl JoinOptions {
    /// Cohorts of 10 or more, waits of 0.5 s to 30 s, and ten minutes until giving up: longer than a server takes to restart.
    pub fn new(training_slots: TrainingSlots) -> Self {
        JoinOptions {
            training_slots,
            min_cohort: MIN_COHORT,
            timeouts: Timeouts::default(),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
            give_up_after: Duration::from_secs(600),
            proxy: None,
            state: None,
            policy: None,
            notify: Notify::nobody(),
            make_learner: Arc::new(task::learner_for),
            guard: None,
        }
    }

    fn dial(&self) -> Dial<'_> {
        Dial { timeouts: &self.timeouts, proxy: self.proxy.as_ref() }
    }
}

/// What an owner is told. Called before what it tells of goes on, so it must be quick.
#[derive(Clone)]
pub struct Notify(Arc<dyn Fn(&News<'_>) + Send + Sync>);

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// The client is invited to a round on these terms.
    Asked(&'a Terms),
    /// It declines, because it would exceed this limit.
    Declined {
        /// The round.
        round: Round,
        /// The limit.
        limit: Limit,
    },
    /// It declines, because its owner does not agree to what the round promises, or cannot afford it.
    Unwilling {
        /// The round.
        round: Round,
        /// Why not.
        reason: Decline,
    },
}

impl Notify {
    /// Tells this function.
    pub fn by(tell: impl Fn(&News<'_>) + Send + Sync + 'static) -> Self {
        Notify(Arc::new(tell))
    }

    /// Tells nobody.
    pub fn nobody() -> Self {
        Notify::by(|_| {})
    }

    pub(crate) fn tell(&self, news: &News<'_>) {
        (self.0)(news);
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notify(..)")
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
    /// What hid its updates.
    pub masks: Masks,
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
    /// The server does not let the client in now.
    #[error("the server turns this client away: {0}")]
    TurnedAway(TurnAway),
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
    /// The server does not let the client in, or no longer.
    #[error("the server turns this client away: {0}; ask the operator")]
    TurnedAway(TurnAway),
    /// The key to which the server's ledger was handed over cannot be kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The owner's limits cannot be kept.
    #[error(transparent)]
    Policy(#[from] PolicyError),
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
    let member = Member { current: Mutex::new(Pass::new(identity)?), data, keys, options };
    let mut career = Career::default();
    let span = info_span!("join", client = %member.pass().identity.client());
    let leaving = tokio::select! {
        finished = member.take_part(&mut career).instrument(span.clone()) => {
            finished.map(|()| Leaving::Finished)?
        }
        () = shutdown => Leaving::Stopped,
        () = member.renew_again_and_again().instrument(span) => Leaving::Stopped,
    };
    Ok(career.report(leaving))
}

/// Who takes part, and with what.
struct Member {
    current: Mutex<Arc<Pass>>,
    data: Subset,
    keys: ClientKeys,
    options: JoinOptions,
}

/// What opens the next connection; replaced when the certificate is renewed.
pub(crate) struct Pass {
    pub(crate) identity: Identity,
    tls: Arc<ClientConfig>,
}

impl Pass {
    pub(crate) fn new(identity: Identity) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Pass { tls: identity.tls()?, identity }))
    }
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
            let (before, committed, opened) = (career.connections, career.committed(), Instant::now());
            let lost = match self.connect_once(career).await? {
                Parted::Finished => return Ok(()),
                Parted::Lost(lost) => lost,
            };
            if career.connections > before {
                alone_since = Instant::now();
                // A server that drops every connection at once is not asked more often than one that is away; one that
                // took an update has gone down since.
                if opened.elapsed() >= self.options.longest_wait || career.committed() > committed {
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

    fn pass(&self) -> Arc<Pass> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Renews the certificate whenever a third of its time is left. What is signed on open connections is signed by the
    /// key, which stays. Never ends.
    async fn renew_again_and_again(&self) {
        let Some(state) = &self.options.state else { return pending().await };
        let mut backoff = Backoff::new(self.options.first_wait, RENEWAL_WAIT);
        let mut wait = self.pass().identity.renewal_due_in(SystemTime::now());
        loop {
            sleep(wait).await;
            let pass = self.pass();
            let renewed = match renew(&pass.identity, state, self.options.dial()).await {
                Ok(identity) => Pass::new(identity).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            wait = match renewed {
                Ok(pass) => {
                    info!(until = pass.identity.not_after(), "the certificate is renewed");
                    backoff.reset();
                    let due = pass.identity.renewal_due_in(SystemTime::now());
                    *self.current.lock().unwrap_or_else(PoisonError::into_inner) = pass;
                    due.max(self.options.first_wait)
                }
                Err(reason) => {
                    let wait = backoff.next();
                    warn!(reason, ?wait, "the certificate is not renewed");
                    wait
                }
            };
        }
    }

    /// Connects, and takes part for as long as the connection lasts.
    async fn connect_once(&self, career: &mut Career) -> Result<Parted, JoinError> {
        let pass = self.pass();
        if pass.identity.has_expired(SystemTime::now()) {
            return Err(JoinError::CertificateExpired);
        }
        let tls = Arc::clone(&pass.tls);
        let connecting = connect(pass.identity.addresses(), tls, Purpose::Session, self.options.dial());
        let parted = match meanwhile(&mut career.driver, connecting).await {
            Ok(connection) => self.session(career, &pass, connection).await?,
            Err(error) => Parted::Lost(error.into()),
        };
        match parted {
            Parted::Lost(Lost::Net(error)) if is_final(&error) => Err(JoinError::Refused(error)),
            parted => Ok(parted),
        }
    }

    async fn session(
        &self,
        career: &mut Career,
        pass: &Arc<Pass>,
        mut connection: Connection,
    ) -> Result<Parted, JoinError> {
        career.meter(Arc::clone(&connection.traffic));
        let welcome = session::welcome(&mut connection, self.options.timeouts.handshake);
        let task = match meanwhile(&mut career.driver, welcome).await? {
            Ok(task) => task,
            Err(lost) => return Ok(Parted::Lost(lost)),
        };
        career.connections += 1;
        let driver = self.driver(&mut career.driver, pass, task)?;
        session::run(&pass.identity, driver, connection, &self.options.timeouts).await
    }

    /// The driver for `task`, made when it is first announced.
    fn driver<'a>(
        &self,
        driver: &'a mut Option<Driver>,
        pass: &Arc<Pass>,
        task: Task,
    ) -> Result<&'a mut Driver, JoinError> {
        match driver {
            Some(driver) if *driver.task() != task => {
                Err(JoinError::TaskChanged { before: driver.task().name.clone(), now: task.name })
            }
            Some(driver) => Ok(driver),
            None => {
                task.check().map_err(|(key, problem)| JoinError::Task { key, problem })?;
                info!(task = task.name, "the server announces its task");
                let (id, data, keys) = (pass.identity.client(), self.data.clone(), self.keys.clone());
                let credentials = Arc::new(Certified::new(Arc::clone(pass), self.options.state.clone())?);
                Ok(driver.insert(Driver::new(id, task, data, keys, credentials, &self.options)?))
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

    /// Rounds in whose sum the client is.
    fn committed(&self) -> u64 {
        let ends = self.driver.as_ref().map(Driver::ends);
        ends.and_then(|ends| ends.get(&End::Committed)).copied().unwrap_or(0)
    }

    fn report(&self, leaving: Leaving) -> JoinReport {
        let (bytes_up, bytes_down) = self.bytes();
        JoinReport {
            leaving,
            rounds: self.driver.as_ref().map(|driver| driver.ends().clone()).unwrap_or_default(),
            connections: self.connections,
            bytes_up,
            bytes_down,
            masks: self.driver.as_ref().map(Driver::masks).unwrap_or_default(),
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
        NetError::Refused(status) | NetError::Proxy { reason: ProxyRefusal::Status(status), .. } => {
            (400..500).contains(status)
        }
        NetError::Proxy { .. } => true,
        NetError::CutOff
        | NetError::Unreachable { .. }
        | NetError::Io(_)
        | NetError::HandshakeTimeout(_)
        | NetError::SendTimeout(_)
        | NetError::Idle(_)
        | NetError::TooSlow(_)
        | NetError::TooFast
        | NetError::WebSocket(_) => false,
    }
}

/// The longest wait before a renewal is tried again.
const RENEWAL_WAIT: Duration = Duration::from_secs(600);
