//! The way out of a network that lets nobody connect but through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6).
//!
//! What passes through the tunnel is TLS between client and server; the proxy sees addresses, times and lengths.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::net::invitation::{Address, AddressError};

/// An HTTP proxy, as `http://proxy:3128` or `http://user:password@proxy:3128`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    address: Address,
    /// What follows `Basic` (RFC 7617).
    credentials: Option<Zeroizing<String>>,
}

/// Why a text is not a [`Proxy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// TLS to the proxy itself, SOCKS and others are not spoken.
    #[error("a proxy is given as `http://host:port`; `{0}://` is not supported")]
    Scheme(String),
    /// The host or the port is wrong.
    #[error("the proxy's {0}")]
    Address(#[from] AddressError),
    /// A `%` without two hexadecimal digits.
    #[error("the proxy's user or password has a `%` without two hexadecimal digits after it")]
    Escape,
}

/// Why a proxy makes no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyRefusal {
    /// It wants a user and a password, or others.
    #[error("it asks for a user and a password: http://user:password@host:port")]
    Credentials,
    /// It answers with another status.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It does not speak HTTP.
    #[error("its answer is not HTTP; is it a proxy?")]
    NotHttp,
}

impl Proxy {
    /// Where the proxy listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for a tunnel to `target` on a connection to the proxy.
    pub(crate) async fn tunnel(
        &self,
        tcp: &mut TcpStream,
        target: &Address,
    ) -> Result<Result<(), ProxyRefusal>, std::io::Error> {
        tcp.write_all(self.request(target).as_bytes()).await?;
        let mut head = Vec::with_capacity(256);
        // Byte by byte, once a connection: what follows the head belongs to TLS.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == HEAD_LIMIT {
                return Ok(Err(ProxyRefusal::NotHttp));
            }
            head.push(tcp.read_u8().await?);
        }
        Ok(verdict(&head))
    }

    fn request(&self, target: &Address) -> Zeroizing<String> {
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(credentials) = &self.credentials {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(credentials);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }
}

fn verdict(head: &[u8]) -> Result<(), ProxyRefusal> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ProxyRefusal::NotHttp)?;
    let rest = line.strip_prefix("HTTP/1.").ok_or(ProxyRefusal::NotHttp)?;
    let status = rest.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status.ok_or(ProxyRefusal::NotHttp)? {
        200..300 => Ok(()),
        407 => Err(ProxyRefusal::Credentials),
        status => Err(ProxyRefusal::Status(status)),
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(ProxyUrlError::Scheme(scheme.to_owned()));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        let credentials = credentials.map(unescape).transpose()?;
        Ok(Proxy {
            address: host.parse()?,
            credentials: credentials.map(|bytes| Zeroizing::new(BASE64.encode(&bytes))),
        })
    }
}

/// RFC 3986, section 2.1.
fn unescape(text: &str) -> Result<Zeroizing<Vec<u8>>, ProxyUrlError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = if byte == b'%' { Some((rest.next(), rest.next())) } else { None };
        bytes.push(match digits {
            None => byte,
            Some((Some(high), Some(low))) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(ProxyUrlError::Escape);
                (digit(high)? << 4 | digit(low)?) as u8
            }
            Some(_) => return Err(ProxyUrlError::Escape),
        });
    }
    Ok(bytes)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.credentials.is_some() { "***@" } else { "" };
        write!(f, "Proxy(http://{user}{})", self.address)
    }
}

/// Larger than any proxy's answer.
const HEAD_LIMIT: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_from_what_people_write() {
        for text in ["http://proxy:3128", "http://proxy:3128/", "proxy:3128", "HTTP://proxy:3128"] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!((proxy.address.as_str(), proxy.credentials), ("proxy:3128", None), "{text}");
        }
        let proxy: Proxy = "http://bee:p%40ss:w@[::1]:80".parse().unwrap();
        assert_eq!(proxy.address.as_str(), "[::1]:80");
        // RFC 4648 of `bee:p@ss:w`.
        assert_eq!(proxy.credentials.as_ref().unwrap().as_str(), "YmVlOnBAc3M6dw==");
        assert_eq!(format!("{proxy:?}"), "Proxy(http://***@[::1]:80)");
    }

    #[test]
    fn what_is_no_proxy_is_named() {
        let error = |text: &str| text.parse::<Proxy>().unwrap_err();
        assert_eq!(error("socks5://proxy:1080"), ProxyUrlError::Scheme("socks5".into()));
        assert!(matches!(error("http://proxy"), ProxyUrlError::Address(_)));
        assert_eq!(error("http://a%4@proxy:1"), ProxyUrlError::Escape);
        assert_eq!(error("http://a%zz@proxy:1"), ProxyUrlError::Escape);
    }

    #[test]
    fn a_request_names_target_and_credentials() {
        let target: Address = "bees.example:443".parse().unwrap();
        let plain: Proxy = "http://proxy:3128".parse().unwrap();
        let head = "CONNECT bees.example:443 HTTP/1.1\r\nHost: bees.example:443\r\n";
        assert_eq!(*plain.request(&target), format!("{head}\r\n"));
        let named: Proxy = "http://a:b@proxy:3128".parse().unwrap();
        assert_eq!(*named.request(&target), format!("{head}Proxy-Authorization: Basic YTpi\r\n\r\n"));
    }

    #[test]
    fn only_a_good_status_makes_a_tunnel() {
        assert_eq!(verdict(b"HTTP/1.1 200 Connection established\r\n\r\n"), Ok(()));
        assert_eq!(verdict(b"HTTP/1.0 204\r\n\r\n"), Ok(()));
        assert_eq!(verdict(b"HTTP/1.1 407 Who are you\r\n\r\n"), Err(ProxyRefusal::Credentials));
        assert_eq!(verdict(b"HTTP/1.1 403 Forbidden\r\n\r\n"), Err(ProxyRefusal::Status(403)));
        for nonsense in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(verdict(nonsense.as_bytes()), Err(ProxyRefusal::NotHttp), "{nonsense}");
        }
    }
}
