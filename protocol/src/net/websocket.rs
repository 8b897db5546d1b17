//! Connections: TCP, TLS 1.3 and a websocket (RFC 6455) that carries [`Frame`]s, with an end to every wait.
//!
//! ```text
//! server: accept  -> Accepted::Session(client, connection) | Accepted::Enrolment(client?, connection)
//! client: connect -> connection
//! ```
//!
//! A connection splits into its [`FrameSink`] and [`FrameStream`], each for a task of its own. After any error of
//! either the connection is to be dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error as WebSocketError, Message};
use tokio_tungstenite::{accept_hdr_async_with_config, client_async_with_config};

use crate::ChannelBinding;
use crate::net::frame::{FRAME_LIMIT, Frame, FrameError};
use crate::net::invitation::Address;
use crate::net::proxy::{Proxy, ProxyRefusal};
use crate::net::rate::{Bucket, Rate};
use crate::net::tls::{self, PeerIdentity, SERVER_NAME, TlsError};
use crate::net::traffic::{CountedStream, Traffic};

/// How long each kind of wait may last.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For TCP (on the client), TLS and the websocket's opening, together.
    pub handshake: Duration,
    /// For one frame to be taken by the operating system.
    pub send: Duration,
    /// For the peer to send anything at all, if only a byte of a frame or a ping.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// 10 s, 60 s and 120 s: at 60 s for 1 MiB, a link of 140 kbit/s still passes.
    fn default() -> Self {
        Timeouts {
            handshake: Duration::from_secs(10),
            send: Duration::from_secs(60),
            idle: Duration::from_secs(120),
        }
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy)]
pub struct Dial<'a> {
    /// How long each kind of wait may last.
    pub timeouts: &'a Timeouts,
    /// Through which proxy; directly without one.
    pub proxy: Option<&'a Proxy>,
}

impl<'a> From<&'a Timeouts> for Dial<'a> {
    fn from(timeouts: &'a Timeouts) -> Self {
        Dial { timeouts, proxy: None }
    }
}

/// What a client connects for: the path of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To get a certificate, or a new one.
    Enrolment,
    /// To take part in rounds.
    Session,
}

impl Purpose {
    fn path(self) -> &'static str {
        match self {
            Purpose::Enrolment => "/skep/1/enrolment",
            Purpose::Session => "/skep/1/session",
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        [Purpose::Enrolment, Purpose::Session].into_iter().find(|purpose| purpose.path() == path)
    }
}

/// What the server let in. That a session belongs to a client is in the type.
#[derive(Debug)]
pub enum Accepted {
    /// A connection for enrolment, from anybody, or from a client that has a certificate already.
    Enrolment(Option<PeerIdentity>, Connection),
    /// A session of this client.
    Session(PeerIdentity, Connection),
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    /// Where frames go out.
    pub sink: FrameSink,
    /// Where frames come in.
    pub stream: FrameStream,
    /// What signatures on this connection are bound to.
    pub channel_binding: ChannelBinding,
    /// Bytes that TCP carried.
    pub traffic: Arc<Traffic>,
    /// The other end's address.
    pub remote: SocketAddr,
}

/// Takes a TCP connection as a server. Run it in a task of its own and limit their number.
///
/// # Errors
/// [`NetError`]; a request for a session without a certificate is answered with 401, an unknown path with 404.
pub async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    timeouts: &Timeouts,
) -> Result<Accepted, NetError> {
    let opening = open_as_server(tcp, config, timeouts);
    timeout(timeouts.handshake, opening).await.map_err(|_| NetError::HandshakeTimeout(timeouts.handshake))?
}

/// Connects as a client to the first of `addresses` that answers.
///
/// # Errors
/// [`NetError`] of the last address when none is left.
pub async fn connect(
    addresses: &[Address],
    config: Arc<ClientConfig>,
    purpose: Purpose,
    dial: impl Into<Dial<'_>>,
) -> Result<Connection, NetError> {
    let dial = dial.into();
    let patience = dial.timeouts.handshake;
    let mut failure = NetError::NoAddress;
    for address in addresses {
        match timeout(patience, open_as_client(address, Arc::clone(&config), purpose, dial)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = NetError::HandshakeTimeout(patience),
        }
    }
    Err(failure)
}

/// The sending half of a connection.
#[derive(Debug)]
pub struct FrameSink {
    inner: SplitSink<Socket, Message>,
    limit: Duration,
}

impl FrameSink {
    /// Sends a frame and returns when the operating system has it all. Not to be cancelled: a frame sent in part
    /// leaves the connection unusable.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::SendTimeout`] when the peer takes too long to make room.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), NetError> {
        let bytes = Bytes::from(frame.encode()?);
        self.send_message(Message::Binary(bytes)).await
    }

    /// Sends a ping; the peer's pong keeps its [`FrameStream`] and ours from idling out.
    ///
    /// # Errors
    /// [`NetError`] as [`FrameSink::send`].
    pub async fn ping(&mut self) -> Result<(), NetError> {
        self.send_message(Message::Ping(Bytes::new())).await
    }

    /// Says goodbye. The peer's [`FrameStream::receive`] then ends with `None`.
    ///
    /// # Errors
    /// [`NetError`] as [`FrameSink::send`]; nothing is left to do about it.
    pub async fn close(mut self) -> Result<(), NetError> {
        self.send_message(Message::Close(None)).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), NetError> {
        let sending = self.inner.send(message);
        timeout(self.limit, sending)
            .await
            .map_err(|_| NetError::SendTimeout(self.limit))?
            .map_err(NetError::from)
    }
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct FrameStream {
    inner: SplitStream<Socket>,
    idle: Duration,
    /// For one message, from its first byte or the silence before it.
    whole: Duration,
    rate: Option<Bucket>,
    traffic: Arc<Traffic>,
}

impl FrameStream {
    /// Holds the peer to so many messages, pings and chunks among them; one too many is [`NetError::TooFast`].
    pub fn limit(&mut self, rate: Rate) {
        self.rate = Some(Bucket::full(rate, Instant::now().into_std()));
    }

    /// The next frame, or `None` when the peer has said goodbye. Pings are answered on the way. May be cancelled and
    /// called again without losing anything.
    ///
    /// # Errors
    /// [`NetError`]; [`NetError::Idle`] when not one byte came for the idle time, [`NetError::TooSlow`] and
    /// [`NetError::TooFast`] when bytes trickle or messages pour in, [`NetError::Text`] and
    /// [`NetError::Frame`] when what came is no frame, [`NetError::Oversized`] when it claims to be too large.
    pub async fn receive(&mut self) -> Result<Option<Frame>, NetError> {
        loop {
            match self.next_message().await? {
                Some(Message::Binary(bytes)) => return Ok(Some(Frame::decode(bytes)?)),
                Some(Message::Text(text)) => return Err(NetError::Text(text.len())),
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Some(Message::Close(_)) | None => return Ok(None),
            }
        }
    }

    async fn next_message(&mut self) -> Result<Option<Message>, NetError> {
        let began = Instant::now();
        loop {
            let heard = self.traffic.received();
            match timeout_at(Instant::now() + self.idle, self.inner.next()).await {
                Ok(None | Some(Err(WebSocketError::ConnectionClosed))) => return Ok(None),
                Ok(Some(message)) => return self.in_time(message?).map(Some),
                Err(_) if self.traffic.received() == heard => return Err(NetError::Idle(self.idle)),
                // A slow link may need longer than that for one frame, but not for ever.
                Err(_) if began.elapsed() < self.whole => {}
                Err(_) => return Err(NetError::TooSlow(self.whole)),
            }
        }
    }

    fn in_time(&mut self, message: Message) -> Result<Message, NetError> {
        let within = self.rate.as_mut().is_none_or(|bucket| bucket.take(Instant::now().into_std()));
        if within { Ok(message) } else { Err(NetError::TooFast) }
    }
}

/// Why a connection is not made, or ends.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No address to connect to.
    #[error("no address to connect to")]
    NoAddress,
    /// TCP does not connect.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where to.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// The proxy makes no tunnel to the server.
    #[error("the proxy {proxy} does not connect to {target}: {reason}")]
    Proxy {
        /// Where the proxy listens.
        proxy: Address,
        /// Where to.
        target: Address,
        /// Why not.
        reason: ProxyRefusal,
    },
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer is gone without a goodbye.
    #[error("the connection was cut off")]
    CutOff,
    /// We refuse the peer, or cannot set up TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The TLS handshake failed: a certificate of another authority, an expired one, another version of TLS.
    #[error("the TLS handshake failed: {0}")]
    TlsHandshake(rustls::Error),
    /// The handshakes were not over in time.
    #[error("the peer did not finish the handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// The peer took no bytes for too long.
    #[error("the peer did not take a frame within {0:?}")]
    SendTimeout(Duration),
    /// The peer sent no byte for too long.
    #[error("nothing came from the peer for {0:?}")]
    Idle(Duration),
    /// One message took too long to come in, byte by byte.
    #[error("one message was not whole after {0:?}")]
    TooSlow(Duration),
    /// The peer sent more messages than it may.
    #[error("too many messages in too short a time")]
    TooFast,
    /// The server answered the request with an HTTP error.
    #[error("the server refused the connection with status {0}")]
    Refused(u16),
    /// A client without a certificate asked for a session.
    #[error("a client without a certificate asked for a session")]
    Unauthenticated,
    /// A request for something that is not here.
    #[error("a request for an unknown path")]
    UnknownPath,
    /// A message that claims more bytes than [`FRAME_LIMIT`]; none of them was stored.
    #[error("a message of {claimed} bytes; {FRAME_LIMIT} are allowed")]
    Oversized {
        /// The size that the message claims, in bytes.
        claimed: usize,
    },
    /// A text message, of so many bytes; frames are binary.
    #[error("a text message of {0} bytes where a binary frame belongs")]
    Text(usize),
    /// A binary message that is no frame, or a frame that breaks a limit.
    #[error("not a frame: {0}")]
    Frame(#[from] FrameError),
    /// The peer broke the websocket protocol.
    #[error("not a websocket: {0}")]
    WebSocket(Box<WebSocketError>),
}

impl From<WebSocketError> for NetError {
    fn from(error: WebSocketError) -> Self {
        match error {
            WebSocketError::Io(error) => from_io(error),
            WebSocketError::Http(response) => NetError::Refused(response.status().as_u16()),
            WebSocketError::Capacity(CapacityError::MessageTooLong { size, .. }) => {
                NetError::Oversized { claimed: size }
            }
            other => NetError::WebSocket(Box::new(other)),
        }
    }
}

type Socket = WebSocketStream<Stream>;
type Stream = TlsStream<CountedStream<TcpStream>>;

async fn open_as_server(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    timeouts: &Timeouts,
) -> Result<Accepted, NetError> {
    let (counted, remote) = prepare(tcp)?;
    let traffic = counted.traffic();
    let stream: Stream = match TlsAcceptor::from(config).accept(counted).into_fallible().await {
        Ok(stream) => stream.into(),
        Err((error, refused)) => {
            let _ = timeout(LINGER, linger(refused)).await;
            return Err(from_io(error));
        }
    };
    let peer = tls::peer_identity(&stream)?;
    let binding = tls::channel_binding(&stream)?;
    let mut verdict = None;
    #[allow(clippy::result_large_err, reason = "the type of the answer is the library's")]
    let answer = |request: &Request, response: Response| {
        let admitted = verdict.insert(admit(request.uri().path(), peer));
        admitted.as_ref().map(|_| response).map_err(refusal)
    };
    let socket = accept_hdr_async_with_config(stream, answer, Some(websocket_config())).await;
    match (verdict, socket) {
        // The library reports the answer that we gave; the verdict says why we gave it.
        (Some(Err(refused)), _) => Err(refused),
        (_, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Err(NetError::UnknownPath),
        (Some(Ok(admitted)), Ok(socket)) => {
            let connection = Connection::new(socket, binding, traffic, remote, timeouts);
            Ok(match admitted {
                Admitted::Enrolment(peer) => Accepted::Enrolment(peer, connection),
                Admitted::Session(peer) => Accepted::Session(peer, connection),
            })
        }
    }
}

enum Admitted {
    Enrolment(Option<PeerIdentity>),
    Session(PeerIdentity),
}

fn admit(path: &str, peer: Option<PeerIdentity>) -> Result<Admitted, NetError> {
    match Purpose::of_path(path) {
        Some(Purpose::Enrolment) => Ok(Admitted::Enrolment(peer)),
        Some(Purpose::Session) => peer.map(Admitted::Session).ok_or(NetError::Unauthenticated),
        None => Err(NetError::UnknownPath),
    }
}

fn refusal(reason: &NetError) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = match reason {
        NetError::Unauthenticated => StatusCode::UNAUTHORIZED,
        _ => StatusCode::NOT_FOUND,
    };
    response
}

async fn open_as_client(
    address: &Address,
    config: Arc<ClientConfig>,
    purpose: Purpose,
    dial: Dial<'_>,
) -> Result<Connection, NetError> {
    let (counted, remote) = prepare(reach(address, dial.proxy).await?)?;
    let traffic = counted.traffic();
    let name = ServerName::try_from(SERVER_NAME).expect("a constant that is a DNS name");
    let stream: Stream = TlsConnector::from(config).connect(name, counted).await.map_err(from_io)?.into();
    let binding = tls::channel_binding(&stream)?;
    let url = format!("ws://{SERVER_NAME}{}", purpose.path());
    let (socket, _) = client_async_with_config(url, stream, Some(websocket_config())).await?;
    Ok(Connection::new(socket, binding, traffic, remote, dial.timeouts))
}

async fn reach(address: &Address, proxy: Option<&Proxy>) -> Result<TcpStream, NetError> {
    let next = proxy.map_or(address, Proxy::address);
    let mut tcp = TcpStream::connect(next.as_str())
        .await
        .map_err(|source| NetError::Unreachable { address: next.clone(), source })?;
    if let Some(proxy) = proxy {
        let refused = |reason| NetError::Proxy { proxy: next.clone(), target: address.clone(), reason };
        proxy.tunnel(&mut tcp, address).await?.map_err(refused)?;
    }
    Ok(tcp)
}

impl Connection {
    fn new(
        socket: Socket,
        channel_binding: ChannelBinding,
        traffic: Arc<Traffic>,
        remote: SocketAddr,
        timeouts: &Timeouts,
    ) -> Self {
        let (sink, stream) = socket.split();
        Connection {
            sink: FrameSink { inner: sink, limit: timeouts.send },
            stream: FrameStream {
                inner: stream,
                idle: timeouts.idle,
                whole: timeouts.idle + timeouts.send,
                rate: None,
                traffic: Arc::clone(&traffic),
            },
            channel_binding,
            traffic,
            remote,
        }
    }
}

fn prepare(tcp: TcpStream) -> io::Result<(CountedStream<TcpStream>, SocketAddr)> {
    tcp.set_nodelay(true)?;
    let remote = tcp.peer_addr()?;
    Ok((CountedStream::new(tcp), remote))
}

/// Closes our half and reads on until the peer closes its own. Dropping the socket with bytes unread would reset the
/// connection, and the peer might lose the alert that says why it is refused.
async fn linger(mut refused: CountedStream<TcpStream>) -> io::Result<()> {
    refused.shutdown().await?;
    tokio::io::copy(&mut refused.take(LINGER_LIMIT), &mut tokio::io::sink()).await.map(drop)
}

/// rustls reports through I/O errors; the reason is worth its own variant.
fn from_io(error: io::Error) -> NetError {
    match error.downcast::<rustls::Error>() {
        Ok(reason) => NetError::TlsHandshake(reason),
        // What the library says of it is advice to programmers.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => NetError::CutOff,
        Err(error) => NetError::Io(error),
    }
}

fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_LIMIT))
        .max_frame_size(Some(FRAME_LIMIT))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(FRAME_LIMIT + CONTROL_ALLOWANCE)
}

const LINGER: Duration = Duration::from_secs(1);
const LINGER_LIMIT: u64 = 64 << 10;
/// One TLS record: a connection at rest keeps no more.
const READ_BUFFER: usize = 16 << 10;
/// Room for the websocket's own headers, pongs and goodbyes beside one frame.
const CONTROL_ALLOWANCE: usize = 64 << 10;
