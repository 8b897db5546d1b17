//! Who comes in: TCP, TLS and enrolment, with a limit on everything.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use skep_protocol::codec;
use skep_protocol::message::{ServerMessage, TurnAway};
use skep_protocol::net::frame::Frame;
use skep_protocol::net::tls::PeerIdentity;
use skep_protocol::net::websocket::{Accepted, Connection, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tracing::{debug, info, warn};

use super::{Shared, session};
use crate::enrolment::{self, Conditions, EnrolmentError};

/// Takes connections until told to close, then gives those that are open so long to say goodbye.
pub(super) async fn keep(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    mut closing: oneshot::Receiver<Duration>,
) {
    let handshakes = Handshakes::new(shared.options.max_handshakes);
    let sessions = Arc::new(Semaphore::new(shared.options.max_connections));
    let mut tasks = JoinSet::new();
    let patience = loop {
        tokio::select! {
            patience = &mut closing => break patience.unwrap_or_default(),
            Some(_) = tasks.join_next() => {}
            arrival = arrive(&listener, &handshakes) => match arrival {
                Ok(Some((tcp, turn))) => {
                    let remote = turn.remote;
                    let visitor = Visitor { remote, sessions: Arc::clone(&sessions), shared: Arc::clone(&shared) };
                    tasks.spawn(visitor.enter(tcp, Arc::clone(&tls), turn));
                }
                Ok(None) => shared.quiet.unless_too_many(
                    |withheld| warn!(withheld, "closed: one address has as many handshakes as allowed"),
                ),
                Err(error) => {
                    warn!(%error, "no connection was taken");
                    sleep(AFTER_A_FAILURE).await;
                }
            }
        }
    };
    drop(listener);
    let _ = timeout(patience, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

/// The next connection, once there is room for another handshake; until then the system keeps it waiting.
async fn arrive(listener: &TcpListener, handshakes: &Handshakes) -> io::Result<Option<(TcpStream, Turn)>> {
    let permit = Arc::clone(&handshakes.all).acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, remote) = listener.accept().await?;
    Ok(handshakes.turn(remote, permit).map(|turn| (tcp, turn)))
}

/// Connections that are not authenticated yet.
struct Handshakes {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    /// The most of one address, so that it cannot keep others out.
    of_one: usize,
}

/// Leave for one handshake, until it is dropped.
struct Turn {
    remote: SocketAddr,
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Handshakes {
    fn new(limit: usize) -> Self {
        let all = Arc::new(Semaphore::new(limit));
        Handshakes { all, by_address: Arc::default(), of_one: limit.div_ceil(2) }
    }

    fn turn(&self, remote: SocketAddr, permit: OwnedSemaphorePermit) -> Option<Turn> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = by_address.entry(remote.ip()).or_insert(0);
        if *ours >= self.of_one {
            return None;
        }
        *ours += 1;
        Some(Turn { remote, by_address: Arc::clone(&self.by_address), _permit: permit })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut ours) = by_address.entry(self.remote.ip()) {
            match *ours.get() {
                0 | 1 => drop(ours.remove()),
                more => drop(ours.insert(more - 1)),
            }
        }
    }
}

struct Visitor {
    remote: SocketAddr,
    sessions: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Visitor {
    async fn enter(self, tcp: TcpStream, tls: Arc<ServerConfig>, handshake: Turn) {
        match accept(tcp, tls, &self.shared.options.timeouts).await {
            Err(error) => self
                .shared
                .quiet
                .unless_too_many(|withheld| debug!(remote = %self.remote, %error, withheld, "not let in")),
            Ok(Accepted::Enrolment(peer, connection)) => self.enrol(peer, connection).await,
            Ok(Accepted::Session(identity, connection)) => {
                let admitted = self.admit(&identity).await;
                drop(handshake);
                match admitted {
                    Ok(()) => self.stay(identity, connection).await,
                    Err(reason) => self.turn_away(&identity, connection, reason).await,
                }
            }
        }
    }

    async fn enrol(&self, peer: Option<PeerIdentity>, connection: Connection) {
        let options = &self.shared.options;
        let (authority, enrolment) = (Arc::clone(&self.shared.authority), self.shared.enrolment.clone());
        let conditions =
            Conditions { validity: options.certificate_validity, plan_key: self.shared.plan_key };
        match enrolment::serve(authority, enrolment, connection, peer, conditions, &options.timeouts).await {
            Ok(client) => info!(remote = %self.remote, %client, "enrolled"),
            Err(error) => self
                .shared
                .quiet
                .unless_too_many(|withheld| warn!(remote = %self.remote, %error, withheld, "not enrolled")),
        }
    }

    async fn admit(&self, identity: &PeerIdentity) -> Result<(), TurnAway> {
        let (enrolment, asked) = (self.shared.enrolment.clone(), identity.clone());
        let checked = tokio::task::spawn_blocking(move || enrolment.check(&asked, SystemTime::now())).await;
        checked.unwrap_or(Err(EnrolmentError::Interrupted)).map_err(|error| error.turn_away())
    }

    async fn stay(self, identity: PeerIdentity, connection: Connection) {
        match self.sessions.try_acquire() {
            Ok(_place) => session::run(connection, identity, Arc::clone(&self.shared)).await,
            Err(_) => self.turn_away(&identity, connection, TurnAway::Full).await,
        }
    }

    async fn turn_away(&self, identity: &PeerIdentity, mut connection: Connection, reason: TurnAway) {
        let (remote, client) = (self.remote, identity.client);
        self.shared
            .quiet
            .unless_too_many(|withheld| warn!(%remote, %client, %reason, withheld, "turned away"));
        let Ok(encoded) = codec::encode(&ServerMessage::TurnedAway(reason)) else { return };
        if connection.sink.send(&Frame::Control(encoded.into())).await.is_ok() {
            let _ = connection.sink.close().await;
        }
    }
}

/// For when the process is out of file descriptors: others will be closed meanwhile.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);
