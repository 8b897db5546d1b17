//! A federation on loopback: an authority, its roster, a listener, and clients of any kind.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_protocol::ClientId;
use skep_protocol::net::invitation::{Address, Invitation};
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::tls::{self, Credentials};
use skep_protocol::net::websocket::{Accepted, Connection, NetError, Purpose, Timeouts, accept, connect};
use skep_protocol::plan::PlanKey;
use skep_server::authority::{Authority, CLIENT_VALIDITY};
use skep_server::enrolment::{Conditions, Enrolment, EnrolmentError, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

pub const HOUR: Duration = Duration::from_secs(3600);

/// Long enough for a busy machine where a test expects an answer.
pub const PATIENT: Timeouts = Timeouts { handshake: SECONDS_30, send: SECONDS_30, idle: SECONDS_30 };

/// Short, where a test expects none.
pub const HASTY: Timeouts =
    Timeouts { handshake: MILLISECONDS_200, send: MILLISECONDS_200, idle: MILLISECONDS_200 };

const SECONDS_30: Duration = Duration::from_secs(30);
const MILLISECONDS_200: Duration = Duration::from_millis(200);

pub struct Federation {
    pub state: TempDir,
    pub authority: Arc<Authority>,
    pub enrolment: Enrolment,
    listener: Arc<TcpListener>,
    tls: Arc<ServerConfig>,
}

impl Federation {
    pub async fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap()).await
    }

    /// The server of a state directory.
    pub async fn of(state: TempDir) -> Self {
        let authority = Authority::open(state.path()).unwrap();
        let enrolment = Enrolment::open(state.path()).unwrap();
        let tls = authority.server_tls().unwrap();
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        Federation { state, authority: Arc::new(authority), enrolment, listener, tls }
    }

    /// Another server behind the same authority.
    pub fn with_tls(mut self, tls: Arc<ServerConfig>) -> Self {
        self.tls = tls;
        self
    }

    pub fn socket_address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn addresses(&self) -> Vec<Address> {
        vec![self.socket_address().into()]
    }

    pub fn invite(&self, client: u64) -> Invitation {
        let now = SystemTime::now();
        self.enrolment.invite(&self.authority, ClientId(client), self.addresses(), now, HOUR).unwrap()
    }

    /// Takes one connection in the background.
    pub fn accept(&self, timeouts: Timeouts) -> JoinHandle<Result<Accepted, NetError>> {
        let (listener, tls) = (Arc::clone(&self.listener), Arc::clone(&self.tls));
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await?;
            accept(tcp, tls, &timeouts).await
        })
    }

    /// Takes one connection in the background and serves its enrolment.
    pub fn enrol_one(&self) -> JoinHandle<Result<ClientId, EnrolmentError>> {
        self.enrol_for(CLIENT_VALIDITY)
    }

    /// The same, for a certificate that is good for so long.
    pub fn enrol_for(&self, validity: Duration) -> JoinHandle<Result<ClientId, EnrolmentError>> {
        let accepting = self.accept(PATIENT);
        let (authority, enrolment) = (Arc::clone(&self.authority), self.enrolment.clone());
        tokio::spawn(async move {
            match accepting.await.unwrap()? {
                Accepted::Enrolment(peer, connection) => {
                    serve(authority, enrolment, connection, peer, conditions(validity), &PATIENT).await
                }
                Accepted::Session(..) => panic!("a session where an enrolment was expected"),
            }
        })
    }

    /// The TLS configuration of a client that trusts this federation and is certified by `issuer`.
    pub fn client_tls(&self, issuer: &Authority, client: u64) -> Arc<ClientConfig> {
        let key = SigningKey::generate().unwrap();
        let issued = issuer.issue(ClientId(client), key.public_key(), SystemTime::now(), HOUR).unwrap();
        self.tls_of(&key, vec![issued.certificate, issuer.certificate().clone()])
    }

    pub fn tls_of(&self, key: &SigningKey, chain: Vec<CertificateDer<'static>>) -> Arc<ClientConfig> {
        tls::client_config(self.authority.certificate(), &Credentials { chain, key }).unwrap()
    }

    /// Both ends of a new session of `client`, the server's first.
    pub async fn session(&self, client: u64, timeouts: Timeouts) -> (Connection, Connection) {
        let accepting = self.accept(timeouts);
        let config = self.client_tls(&self.authority, client);
        let ours = connect(&self.addresses(), config, Purpose::Session, &PATIENT).await.unwrap();
        match accepting.await.unwrap().unwrap() {
            Accepted::Session(peer, theirs) => {
                assert_eq!(peer.client, ClientId(client));
                (theirs, ours)
            }
            Accepted::Enrolment(..) => panic!("an enrolment where a session was expected"),
        }
    }

    /// What both sides say to a client that connects with `config`.
    pub async fn attempt(
        &self,
        config: Arc<ClientConfig>,
        purpose: Purpose,
    ) -> (Result<Accepted, NetError>, Result<Connection, NetError>) {
        let accepting = self.accept(PATIENT);
        let connected = connect(&self.addresses(), config, purpose, &PATIENT).await;
        (accepting.await.unwrap(), connected)
    }
}

/// A certificate for so long; these clients get no plans.
pub fn conditions(validity: Duration) -> Conditions {
    Conditions { validity, plan_key: PlanKey([7; 32]) }
}
