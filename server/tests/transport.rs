//! TLS and websocket framing on loopback: who gets in, and what a hostile peer can send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, SystemTime};

use harness::{Federation, HASTY, HOUR, PATIENT};
use skep_protocol::ClientId;
use skep_protocol::net::frame::{CHUNK_LIMIT, Chunk, Frame, FrameError};
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::tls::{self, Credentials, SERVER_NAME};
use skep_protocol::net::websocket::{Accepted, FrameStream, NetError, Purpose, Timeouts, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as RustlsError};

fn control(contents: &[u8]) -> Frame {
    Frame::Control(contents.to_vec().into())
}

#[tokio::test]
async fn a_session_carries_frames_both_ways_and_counts_the_same_bytes() {
    let federation = Federation::new().await;
    let (mut server, mut client) = federation.session(17, PATIENT).await;
    let chunk = |offset| Frame::Chunk(Chunk { transfer: 1, offset, contents: vec![7; CHUNK_LIMIT].into() });
    let sending = async {
        client.sink.send(&control(b"hello")).await.unwrap();
        for index in 0..4 {
            client.sink.send(&chunk(index * CHUNK_LIMIT as u64)).await.unwrap();
        }
    };
    let receiving = async {
        assert_eq!(server.stream.receive().await.unwrap(), Some(control(b"hello")));
        for index in 0..4 {
            let received = server.stream.receive().await.unwrap();
            assert_eq!(received, Some(chunk(index * CHUNK_LIMIT as u64)));
        }
    };
    tokio::join!(sending, receiving);
    server.sink.send(&control(b"thanks")).await.unwrap();
    assert_eq!(client.stream.receive().await.unwrap(), Some(control(b"thanks")));

    assert_eq!(client.traffic.sent(), server.traffic.received());
    assert_eq!(client.traffic.received(), server.traffic.sent());
    let payload = 4 * CHUNK_LIMIT as u64;
    assert!((payload..payload + payload / 50).contains(&server.traffic.received()));

    client.sink.close().await.unwrap();
    assert_eq!(server.stream.receive().await.unwrap(), None);
}

#[tokio::test]
async fn the_channel_binding_is_the_same_at_both_ends_and_new_for_every_connection() {
    let federation = Federation::new().await;
    let (server, client) = federation.session(1, PATIENT).await;
    assert_eq!(server.channel_binding, client.channel_binding);
    let (again, _) = federation.session(1, PATIENT).await;
    assert_ne!(again.channel_binding, server.channel_binding);
}

#[tokio::test]
async fn a_certificate_of_another_federation_is_refused() {
    let (ours, other) = (Federation::new().await, Federation::new().await);
    let foreign = ours.client_tls(&other.authority, 1);
    for purpose in [Purpose::Session, Purpose::Enrolment] {
        let (accepted, connected) = ours.attempt(foreign.clone(), purpose).await;
        let unknown = RustlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(matches!(accepted, Err(NetError::TlsHandshake(error)) if error == unknown));
        let told = RustlsError::AlertReceived(AlertDescription::UnknownCA);
        assert!(matches!(connected, Err(NetError::TlsHandshake(error)) if error == told));
    }
}

#[tokio::test]
async fn a_certificate_forged_in_the_authoritys_name_is_refused() {
    let federation = Federation::new().await;
    let forger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(federation.authority.certificate(), forger).unwrap();
    let key = SigningKey::generate().unwrap();
    let der = key.pkcs8().to_vec();
    let pair = rcgen::KeyPair::try_from(der).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "client-1");
    let forged = params.signed_by(&pair, &issuer).unwrap().der().clone();
    let config = federation.tls_of(&key, vec![forged, federation.authority.certificate().clone()]);
    let (accepted, _) = federation.attempt(config, Purpose::Session).await;
    let bad = RustlsError::InvalidCertificate(CertificateError::BadSignature);
    assert!(matches!(accepted, Err(NetError::TlsHandshake(error)) if error == bad));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let federation = Federation::new().await;
    let key = SigningKey::generate().unwrap();
    let yesterday = SystemTime::now() - 24 * HOUR;
    let issued = federation.authority.issue(ClientId(1), key.public_key(), yesterday, HOUR).unwrap();
    let config = federation.tls_of(&key, vec![issued.certificate]);
    let (accepted, connected) = federation.attempt(config, Purpose::Session).await;
    let Err(NetError::TlsHandshake(RustlsError::InvalidCertificate(why))) = accepted else {
        panic!("{accepted:?}")
    };
    assert!(matches!(why, CertificateError::Expired | CertificateError::ExpiredContext { .. }));
    let told = RustlsError::AlertReceived(AlertDescription::CertificateExpired);
    assert!(matches!(connected, Err(NetError::TlsHandshake(error)) if error == told));
}

#[tokio::test]
async fn a_client_cannot_pose_as_the_server() {
    let federation = Federation::new().await;
    let key = SigningKey::generate().unwrap();
    let authority = federation.authority.certificate().clone();
    let issued = federation.authority.issue(ClientId(1), key.public_key(), SystemTime::now(), HOUR).unwrap();
    let chain = vec![issued.certificate, authority.clone()];
    let posing = tls::server_config(&authority, &Credentials { chain, key: &key }).unwrap();
    let fingerprint = federation.authority.fingerprint();
    let federation = federation.with_tls(posing);
    let victims =
        [tls::enrolment_config(fingerprint).unwrap(), federation.client_tls(&federation.authority, 2)];
    for victim in victims {
        let (_, connected) = federation.attempt(victim, Purpose::Enrolment).await;
        let refused = matches!(&connected, Err(NetError::TlsHandshake(RustlsError::InvalidCertificate(_))));
        assert!(refused, "{connected:?}");
    }
}

#[tokio::test]
async fn a_server_of_another_federation_is_refused() {
    let (ours, other) = (Federation::new().await, Federation::new().await);
    let trusting_ours =
        [tls::enrolment_config(ours.authority.fingerprint()).unwrap(), ours.client_tls(&ours.authority, 1)];
    for config in trusting_ours {
        let (accepted, connected) = other.attempt(config, Purpose::Enrolment).await;
        let unknown = RustlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(matches!(connected, Err(NetError::TlsHandshake(error)) if error == unknown));
        assert!(accepted.is_err());
    }
}

#[tokio::test]
async fn without_a_certificate_nothing_but_enrolment_is_open() {
    let federation = Federation::new().await;
    let config = tls::enrolment_config(federation.authority.fingerprint()).unwrap();
    let (accepted, connected) = federation.attempt(config.clone(), Purpose::Session).await;
    assert!(matches!(accepted, Err(NetError::Unauthenticated)), "{accepted:?}");
    assert!(matches!(connected, Err(NetError::Refused(401))), "{connected:?}");
    let (accepted, connected) = federation.attempt(config, Purpose::Enrolment).await;
    assert!(matches!(accepted, Ok(Accepted::Enrolment(None, _))), "{accepted:?}");
    assert!(connected.is_ok());
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let federation = Federation::new().await;
    let accepting = federation.accept(PATIENT);
    let mut tcp = TcpStream::connect(federation.socket_address()).await.unwrap();
    tcp.write_all(&client_hello_of_tls_1_2()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    // Record: alert (21), TLS 1.2 framing, two bytes: fatal (2), protocol_version (70).
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
    assert!(matches!(accepting.await.unwrap(), Err(NetError::TlsHandshake(_))));
}

/// RFC 5246, section 7.4.1.2: no `supported_versions`, so nothing above TLS 1.2 is offered.
fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut extensions = Vec::new();
    extensions.extend_from_slice(&[0, 10, 0, 4, 0, 2, 0, 29]); // groups: X25519
    extensions.extend_from_slice(&[0, 13, 0, 4, 0, 2, 8, 7]); // signatures: Ed25519
    let mut body = vec![3, 3];
    body.extend_from_slice(&[42; 32]); // random
    body.push(0); // no session
    body.extend_from_slice(&[0, 2, 0xcc, 0xa9]); // ECDHE-ECDSA with ChaCha20-Poly1305
    body.extend_from_slice(&[1, 0]); // no compression
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut hello = vec![22, 3, 1];
    hello.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    hello.extend_from_slice(&[1, 0]);
    hello.extend_from_slice(&(body.len() as u16).to_be_bytes());
    hello.extend_from_slice(&body);
    hello
}

/// A session's TLS stream after the websocket opening, to write whatever bytes one likes, and the server's end.
async fn raw_session(federation: &Federation, timeouts: Timeouts) -> (TlsStream<TcpStream>, FrameStream) {
    let accepting = federation.accept(timeouts);
    let mut tls = raw_tls(federation).await;
    tls.write_all(&opening("/skep/1/session")).await.unwrap();
    let status = read_head(&mut tls).await;
    assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
    match accepting.await.unwrap().unwrap() {
        Accepted::Session(_, connection) => (tls, connection.stream),
        Accepted::Enrolment(..) => panic!("not a session"),
    }
}

async fn raw_tls(federation: &Federation) -> TlsStream<TcpStream> {
    let config = federation.client_tls(&federation.authority, 1);
    let tcp = TcpStream::connect(federation.socket_address()).await.unwrap();
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

fn opening(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    .into_bytes()
}

async fn read_head(tls: &mut TlsStream<TcpStream>) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A websocket frame header (RFC 6455, section 5.2) that claims `length` bytes, masked with zeros.
fn header(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x80 | 127], length.to_be_bytes().as_slice(), &[0; 4]].concat()
}

const FINAL_TEXT: u8 = 0x81;
const FINAL_BINARY: u8 = 0x82;
const FIRST_BINARY: u8 = 0x02;
const CONTINUATION: u8 = 0x00;

async fn after(bytes: &[u8]) -> Result<Option<Frame>, NetError> {
    let federation = Federation::new().await;
    let (mut tls, mut stream) = raw_session(&federation, PATIENT).await;
    tls.write_all(bytes).await.unwrap();
    stream.receive().await
}

#[tokio::test]
async fn a_frame_that_claims_too_much_is_refused_on_its_header_alone() {
    for claimed in [CHUNK_LIMIT as u64 + 18, 1 << 40, (1 << 63) - 1] {
        let refused = after(&header(FINAL_BINARY, claimed)).await;
        let named = matches!(refused, Err(NetError::Oversized { claimed: c }) if c as u64 == claimed);
        assert!(named, "{claimed}: {refused:?}");
    }
}

#[tokio::test]
async fn a_message_in_fragments_is_held_to_the_same_limit() {
    let half = CHUNK_LIMIT / 2 + 100;
    let mut bytes = [header(FIRST_BINARY, half as u64), vec![1; half]].concat();
    bytes.extend([header(CONTINUATION, half as u64), vec![1; half]].concat());
    let refused = after(&bytes).await;
    assert!(matches!(refused, Err(NetError::Oversized { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_frame_is_refused_by_name() {
    let text = after(&[header(FINAL_TEXT, 2), b"hi".to_vec()].concat()).await;
    assert!(matches!(text, Err(NetError::Text(2))), "{text:?}");
    let kind = after(&[header(FINAL_BINARY, 2), vec![9, 9]].concat()).await;
    assert!(matches!(kind, Err(NetError::Frame(FrameError::UnknownKind(9)))), "{kind:?}");
    let empty = after(&header(FINAL_BINARY, 0)).await;
    assert!(matches!(empty, Err(NetError::Frame(FrameError::Empty))), "{empty:?}");
    let unmasked = after(&[FINAL_BINARY, 2, 1, 1]).await;
    assert!(matches!(unmasked, Err(NetError::WebSocket(_))), "{unmasked:?}");
    let reserved = after(&header(0x83, 1)).await;
    assert!(matches!(reserved, Err(NetError::WebSocket(_))), "{reserved:?}");
}

#[tokio::test]
async fn an_unknown_path_is_answered_404() {
    let federation = Federation::new().await;
    let accepting = federation.accept(PATIENT);
    let mut tls = raw_tls(&federation).await;
    tls.write_all(&opening("/skep/2/session")).await.unwrap();
    assert!(read_head(&mut tls).await.starts_with("HTTP/1.1 404 "));
    assert!(matches!(accepting.await.unwrap(), Err(NetError::UnknownPath)));
}

#[tokio::test]
async fn an_oversized_frame_is_refused_before_it_is_sent() {
    let federation = Federation::new().await;
    let (mut server, _client) = federation.session(1, PATIENT).await;
    let before = server.traffic.sent();
    let refused = server.sink.send(&control(&vec![0; CHUNK_LIMIT + 1])).await;
    assert!(matches!(refused, Err(NetError::Frame(FrameError::Oversized { .. }))), "{refused:?}");
    assert_eq!(server.traffic.sent(), before);
}

#[tokio::test]
async fn a_peer_that_is_silent_in_either_handshake_is_dropped() {
    let federation = Federation::new().await;
    let accepting = federation.accept(HASTY);
    let _silent = TcpStream::connect(federation.socket_address()).await.unwrap();
    assert!(matches!(accepting.await.unwrap(), Err(NetError::HandshakeTimeout(_))));

    // Time enough for TLS; what never comes is the request.
    let two_seconds = Duration::from_secs(2);
    let mut timeouts = HASTY;
    timeouts.handshake = two_seconds;
    let accepting = federation.accept(timeouts);
    let _silent = raw_tls(&federation).await;
    assert!(matches!(accepting.await.unwrap(), Err(NetError::HandshakeTimeout(_))));
}

#[tokio::test]
async fn a_server_that_is_silent_or_absent_does_not_hold_a_client() {
    let federation = Federation::new().await;
    let config = federation.client_tls(&federation.authority, 1);
    let connected = connect(&federation.addresses(), config.clone(), Purpose::Session, &HASTY).await;
    assert!(matches!(connected, Err(NetError::HandshakeTimeout(_))), "{connected:?}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connected = connect(&[free.into()], config.clone(), Purpose::Session, &PATIENT).await;
    assert!(matches!(connected, Err(NetError::Unreachable { .. })), "{connected:?}");
    let none = connect(&[], config, Purpose::Session, &PATIENT).await;
    assert!(matches!(none, Err(NetError::NoAddress)));
}

#[tokio::test]
async fn a_client_tries_the_next_address_when_the_first_is_dead() {
    let federation = Federation::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [&[free.into()], federation.addresses().as_slice()].concat();
    let accepting = federation.accept(PATIENT);
    let config = federation.client_tls(&federation.authority, 1);
    connect(&addresses, config, Purpose::Session, &PATIENT).await.unwrap();
    assert!(accepting.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_silent_session_idles_out_and_a_pinged_one_does_not() {
    let federation = Federation::new().await;
    let (mut server, _client) = federation.session(1, HASTY).await;
    assert!(matches!(server.stream.receive().await, Err(NetError::Idle(_))));

    let (mut server, mut client) = federation.session(2, HASTY).await;
    let answering = tokio::spawn(async move { client.stream.receive().await });
    let mut pings = 0;
    let pinging = async {
        for _ in 0..20 {
            server.sink.ping().await.unwrap();
            pings += 1;
            tokio::time::sleep(HASTY.idle / 4).await;
        }
    };
    // Twenty quarters of the idle time pass; only pongs come, and they suffice.
    tokio::select! {
        received = server.stream.receive() => panic!("{received:?}"),
        () = pinging => {}
    }
    assert_eq!(pings, 20);
    server.sink.close().await.unwrap();
    assert_eq!(answering.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_frame_that_trickles_in_is_not_idle() {
    let federation = Federation::new().await;
    let timeouts = Timeouts { idle: HASTY.idle, ..PATIENT };
    let (mut tls, mut stream) = raw_session(&federation, timeouts).await;
    let trickling = async {
        for byte in [header(FINAL_BINARY, 2), vec![1, 42]].concat() {
            tls.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(HASTY.idle / 4).await;
        }
    };
    let (received, ()) = tokio::join!(stream.receive(), trickling);
    assert_eq!(received.unwrap(), Some(control(&[42])));
}

#[tokio::test]
async fn a_peer_that_takes_nothing_runs_into_the_send_timeout() {
    let federation = Federation::new().await;
    let (mut server, _client) = federation.session(1, HASTY).await;
    let frame = Frame::Chunk(Chunk { transfer: 1, offset: 0, contents: vec![0; CHUNK_LIMIT].into() });
    let mut outcome = Ok(());
    // Far more than any system buffers for a socket.
    for _ in 0..256 {
        outcome = server.sink.send(&frame).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(matches!(outcome, Err(NetError::SendTimeout(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_and_not_a_goodbye() {
    let federation = Federation::new().await;
    let (mut server, client) = federation.session(1, PATIENT).await;
    drop(client);
    let received = server.stream.receive().await;
    assert!(
        matches!(received, Err(NetError::WebSocket(_) | NetError::Io(_) | NetError::CutOff)),
        "{received:?}"
    );
}
