//! Every TLS configuration: version 1.3 only, the ring provider by name, one authority per federation.
//!
//! A certificate is good because the federation's authority signed it and for what its extended key usage says
//! (server or client), never because of a public root. The server's certificate carries the fixed name
//! [`SERVER_NAME`], so a federation needs no DNS and may move. A client's certificate carries its id as the one
//! common name of its subject, `client-17`. Sessions are not resumed: every connection shows its certificate.

use std::sync::Arc;
use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::TlsStream;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::net::invitation::{Fingerprint, unix_seconds};
use crate::net::keys::{KeyError, PublicKey, SigningKey, hex_form};
use crate::{ChannelBinding, ClientId};

/// The DNS name in every server's certificate, whatever its address.
pub const SERVER_NAME: &str = "skep-server";

/// A certificate chain, the owner's first and the authority's last, with the owner's private key.
#[derive(Debug)]
pub struct Credentials<'a> {
    /// The owner's certificate and the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key that the first certificate names.
    pub key: &'a SigningKey,
}

impl Credentials<'_> {
    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.pkcs8().to_vec()).into()
    }
}

/// The server's side. A client with a certificate must have it from `authority`; one without is let in, and it is
/// [`accept`](crate::net::websocket::accept) that lets it do nothing but enrol.
///
/// # Errors
/// [`TlsError::Configuration`] when a certificate or the key is unusable or they do not fit each other.
pub fn server_config(
    authority: &CertificateDer<'static>,
    credentials: &Credentials<'_>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(only(authority)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Verifier(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// An enrolled client's side: shows its certificate, believes `authority` alone.
///
/// # Errors
/// [`TlsError::Configuration`] when a certificate or the key is unusable or they do not fit each other.
pub fn client_config(
    authority: &CertificateDer<'static>,
    credentials: &Credentials<'_>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(only(authority)?)
        .with_client_auth_cert(credentials.chain.clone(), credentials.private_key())?;
    Ok(finish(config))
}

/// The side of a client that has an invitation but no certificate: believes a server only when the chain that it shows
/// contains the authority with this fingerprint, and leads to it.
///
/// # Errors
/// [`TlsError::Configuration`] when the provider refuses TLS 1.3.
pub fn enrolment_config(authority: Fingerprint) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(FingerprintVerifier { authority, provider: provider() }))
        .with_no_client_auth();
    Ok(finish(config))
}

/// What binds a signature to an established connection (RFC 5705, RFC 8446 section 7.5).
///
/// # Errors
/// [`TlsError::Configuration`] when the handshake is not over.
pub fn channel_binding<S>(stream: &TlsStream<S>) -> Result<ChannelBinding, TlsError> {
    let exported = match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER, None),
    };
    Ok(ChannelBinding(exported?))
}

/// Who a verified certificate says the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// From the subject's common name.
    pub client: ClientId,
    /// The key whose possession the handshake proved.
    pub public_key: PublicKey,
    /// The certificate's serial number.
    pub serial: Serial,
    /// The first second of validity, in seconds since 1970.
    pub not_before: u64,
    /// The last second of validity, in seconds since 1970.
    pub not_after: u64,
    /// The certificate itself, in DER.
    pub certificate: CertificateDer<'static>,
}

/// Verifies certificates of clients that did not show them in a handshake: those of peers, which the server passes on.
#[derive(Debug)]
pub struct PeerVerifier(Arc<dyn ClientCertVerifier>);

impl PeerVerifier {
    /// A verifier that believes `authority` alone.
    ///
    /// # Errors
    /// [`TlsError`] when the authority's certificate cannot verify clients.
    pub fn new(authority: &CertificateDer<'static>) -> Result<Self, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(only(authority)?, provider())
            .build()
            .map_err(|error| TlsError::Verifier(error.to_string()))?;
        Ok(PeerVerifier(verifier))
    }

    /// Who a certificate names, if the authority signed it and it is good at `now`.
    ///
    /// # Errors
    /// [`TlsError::Configuration`] when it is not, [`TlsError::NotAClient`] when it names no client.
    pub fn verify(&self, certificate: &[u8], now: SystemTime) -> Result<PeerIdentity, TlsError> {
        let certificate = CertificateDer::from(certificate);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The authority signs leaves itself, so no certificate stands between.
        self.0.verify_client_cert(&certificate, &[], UnixTime::since_unix_epoch(since))?;
        client_named_by(&certificate)
    }
}

impl PeerIdentity {
    /// Whether the certificate is good at `now`, to the second.
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&unix_seconds(now))
    }
}

/// A certificate's serial number: 16 bytes, random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub [u8; 16]);

hex_form!(Serial, 16);

impl Serial {
    /// Draws a serial number: positive, of full length, as DER wants it.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the operating system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Serial(bytes))
    }
}

/// Who is at the other end; `None` without a certificate.
///
/// # Errors
/// [`TlsError::NotAClient`] when the certificate, though signed by the authority, names no client.
pub fn peer_identity<S>(stream: &TlsStream<S>) -> Result<Option<PeerIdentity>, TlsError> {
    let chain = stream.get_ref().1.peer_certificates();
    chain.and_then(|chain| chain.first()).map(client_named_by).transpose()
}

/// Reads the client out of a certificate, without verifying it.
///
/// # Errors
/// [`TlsError::NotAClient`] when it names none, or is not for an Ed25519 key.
pub fn client_named_by(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, TlsError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| TlsError::NotAClient("not X.509"))?;
    if !rest.is_empty() {
        return Err(TlsError::NotAClient("followed by other bytes"));
    }
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let serial = parsed.raw_serial().try_into().map(Serial);
    Ok(PeerIdentity {
        client: client_id(&parsed)?,
        public_key: public_key(&parsed)?,
        serial: serial.map_err(|_| TlsError::NotAClient("a serial number of another length"))?,
        not_before: seconds(parsed.validity().not_before),
        not_after: seconds(parsed.validity().not_after),
        certificate: certificate.clone().into_owned(),
    })
}

/// The key of an authority's or a server's certificate, without verifying it.
///
/// # Errors
/// [`TlsError::NotEd25519`] when it is not X.509, or not for an Ed25519 key.
pub fn certified_key(certificate: &CertificateDer<'_>) -> Result<PublicKey, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotEd25519)?;
    public_key(&parsed).map_err(|_| TlsError::NotEd25519)
}

/// Checks that `authority` has signed a certificate, whether or not that is good now.
///
/// # Errors
/// [`TlsError::NotSigned`] when it has not, [`TlsError::NotEd25519`] when it is no certificate.
pub fn check_signature(certificate: &CertificateDer<'_>, authority: &PublicKey) -> Result<(), TlsError> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| TlsError::NotEd25519)?;
    if !rest.is_empty() || parsed.signature_algorithm.algorithm != OID_SIG_ED25519 {
        return Err(TlsError::NotEd25519);
    }
    let signature = &parsed.signature_value.data;
    authority.verify(parsed.tbs_certificate.as_ref(), signature).map_err(|_| TlsError::NotSigned)
}

/// Why TLS is refused before or after the handshake. What fails in the handshake is an I/O error there.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// rustls refuses the parts of a configuration.
    #[error("TLS cannot be set up: {0}")]
    Configuration(#[from] rustls::Error),
    /// The authority's certificate cannot verify clients.
    #[error("the authority cannot verify clients: {0}")]
    Verifier(String),
    /// A certificate of the federation that is no client's.
    #[error("the certificate names no client: {0}")]
    NotAClient(&'static str),
    /// What should be a certificate is none, or for another kind of key.
    #[error("not a certificate of an Ed25519 key")]
    NotEd25519,
    /// A certificate of somebody else's.
    #[error("the authority has not signed the certificate")]
    NotSigned,
}

/// Trusts a server by the fingerprint of the authority in the chain that it shows.
#[derive(Debug)]
struct FingerprintVerifier {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            only(&authority.clone().into_owned())?,
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
        // The authority signs leaves itself, so no certificate stands between.
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring_provider::default_provider())
}

fn only(authority: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(Arc::new(roots))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn client_id(certificate: &X509Certificate<'_>) -> Result<ClientId, TlsError> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(TlsError::NotAClient("not exactly one common name"));
    };
    let text = name.as_str().unwrap_or_default();
    let number = text.strip_prefix("client-").and_then(|digits| digits.parse().ok()).map(ClientId);
    // One way to write an id: without sign or leading zeros.
    number.filter(|id| id.to_string() == text).ok_or(TlsError::NotAClient("a common name unlike `client-17`"))
}

fn public_key(certificate: &X509Certificate<'_>) -> Result<PublicKey, TlsError> {
    let info = certificate.public_key();
    let bytes = info.subject_public_key.data.as_ref().try_into();
    match (info.algorithm.algorithm == OID_SIG_ED25519, bytes) {
        (true, Ok(bytes)) => Ok(PublicKey(bytes)),
        _ => Err(TlsError::NotAClient("a key other than Ed25519")),
    }
}

const ALPN: &[u8] = b"http/1.1";
const EXPORTER: &[u8] = b"EXPORTER-skep-channel-binding";
