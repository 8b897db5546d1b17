//! Who comes in: TCP, TLS and enrolment, with a limit on everything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::net::tls::PeerIdentity;
use skep_protocol::net::websocket::{Accepted, Connection, accept};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ServerConfig;
use tracing::{debug, info, warn};

use super::{GOODBYE, Shared, session};
use crate::enrolment;

/// Takes connections until told to close, then gives those that are open a moment to say goodbye.
pub(super) async fn keep(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: Arc<Shared>,
    mut closing: oneshot::Receiver<()>,
) {
    let handshakes = Arc::new(Semaphore::new(shared.options.max_handshakes));
    let sessions = Arc::new(Semaphore::new(shared.options.max_connections));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut closing => break,
            Some(_) = tasks.join_next() => {}
            arrival = arrive(&listener, &handshakes) => match arrival {
                Ok((tcp, remote, handshake)) => {
                    let visitor = Visitor { remote, sessions: Arc::clone(&sessions), shared: Arc::clone(&shared) };
                    tasks.spawn(visitor.enter(tcp, Arc::clone(&tls), handshake));
                }
                Err(error) => {
                    warn!(%error, "no connection was taken");
                    sleep(AFTER_A_FAILURE).await;
                }
            }
        }
    }
    drop(listener);
    let _ = timeout(GOODBYE + GOODBYE, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

/// The next connection, once there is room for another handshake; until then the system keeps it waiting.
async fn arrive(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(handshakes).acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, remote) = listener.accept().await?;
    Ok((tcp, remote, permit))
}

struct Visitor {
    remote: SocketAddr,
    sessions: Arc<Semaphore>,
    shared: Arc<Shared>,
}

impl Visitor {
    async fn enter(self, tcp: TcpStream, tls: Arc<ServerConfig>, handshake: OwnedSemaphorePermit) {
        match accept(tcp, tls, &self.shared.options.timeouts).await {
            Err(error) => debug!(remote = %self.remote, %error, "not let in"),
            Ok(Accepted::Enrolment(peer, connection)) => self.enrol(peer, connection).await,
            Ok(Accepted::Session(identity, connection)) => {
                let welcome = self.is_enrolled(&identity).await;
                drop(handshake);
                if welcome { self.stay(identity, connection).await } else { turn_away(connection).await }
            }
        }
    }

    async fn enrol(&self, peer: Option<PeerIdentity>, connection: Connection) {
        let options = &self.shared.options;
        let (authority, enrolment) = (Arc::clone(&self.shared.authority), self.shared.enrolment.clone());
        let validity = options.certificate_validity;
        match enrolment::serve(authority, enrolment, connection, peer, validity, &options.timeouts).await {
            Ok(client) => info!(remote = %self.remote, %client, "enrolled"),
            Err(error) => warn!(remote = %self.remote, %error, "not enrolled"),
        }
    }

    async fn is_enrolled(&self, identity: &PeerIdentity) -> bool {
        let (enrolment, asked) = (self.shared.enrolment.clone(), identity.clone());
        match tokio::task::spawn_blocking(move || enrolment.check(&asked)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                warn!(remote = %self.remote, client = %identity.client, %error, "turned away");
                false
            }
            Err(_) => false,
        }
    }

    async fn stay(self, identity: PeerIdentity, connection: Connection) {
        let Ok(_place) = self.sessions.try_acquire() else {
            warn!(client = %identity.client, "turned away: as many clients are connected as allowed");
            return turn_away(connection).await;
        };
        session::run(connection, identity, Arc::clone(&self.shared)).await;
    }
}

async fn turn_away(connection: Connection) {
    let _ = connection.sink.close().await;
}

/// For when the process is out of file descriptors: others will be closed meanwhile.
const AFTER_A_FAILURE: Duration = Duration::from_millis(100);
