//! An invitation: one line of text that carries everything a client needs to join a federation.
//!
//! `skep1:` and base64url of: length of the rest (u16), authority's fingerprint (32 bytes), token (32), client id (u64),
//! expiry (u64, seconds since 1970), number of addresses (u8) and each as its length (u8) and text; and the first four
//! bytes of the SHA-256 of all before them. Integers are little-endian. The line is a secret until it is redeemed.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, DecodeKind};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::ClientId;
use crate::net::keys::{KeyError, fixed_hex, hex_form};

/// The right to enrol once as one client of one federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where the server listens: from 1 to 8 addresses, tried in this order.
    pub addresses: Vec<Address>,
    /// The federation's authority, the only one that the client will believe.
    pub authority: Fingerprint,
    /// The client that the certificate will name.
    pub client: ClientId,
    /// What the server asks for in exchange for a certificate.
    pub token: Token,
    /// The last second at which the token is good, in seconds since 1970.
    pub expires: u64,
}

impl Invitation {
    /// True once `now` is past the expiry.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) > self.expires
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sealed(PREFIX, &self.body()))
    }
}

impl Invitation {
    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(512));
        body.extend_from_slice(&self.authority.0);
        body.extend_from_slice(&self.token.0);
        body.extend_from_slice(&self.client.0.to_le_bytes());
        body.extend_from_slice(&self.expires.to_le_bytes());
        body.push(self.addresses.len() as u8);
        for Address(text) in &self.addresses {
            body.push(text.len() as u8);
            body.extend_from_slice(text.as_bytes());
        }
        body
    }

    fn from_body(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let authority = Fingerprint(*take(&mut rest)?);
        let token = Token(*take(&mut rest)?);
        let client = ClientId(u64::from_le_bytes(*take(&mut rest)?));
        let expires = u64::from_le_bytes(*take(&mut rest)?);
        let [count] = *take(&mut rest)?;
        let addresses = (0..count).map(|_| take_address(&mut rest)).collect::<Option<Vec<_>>>()?;
        let whole = rest.is_empty() && (1..=ADDRESS_COUNT_LIMIT).contains(&addresses.len());
        whole.then_some(Invitation { addresses, authority, client, token, expires })
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        Invitation::from_body(&opened(PREFIX, text)?).ok_or(InvitationError::Malformed)
    }
}

/// A line with this prefix and body: base64url of the body's length, the body, and a checksum of all before it.
pub(crate) fn sealed(prefix: &str, body: &[u8]) -> String {
    let mut bytes = Zeroizing::new((body.len() as u16).to_le_bytes().to_vec());
    bytes.extend_from_slice(body);
    let checksum = checksum(prefix, &bytes);
    bytes.extend_from_slice(&checksum);
    format!("{prefix}{}", BASE64URL_NOPAD.encode(&bytes))
}

/// The body of such a line.
pub(crate) fn opened(prefix: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, InvitationError> {
    let encoded = strip_prefix(prefix, text.trim())?;
    let bytes = Zeroizing::new(decode_base64(prefix, encoded)?);
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(InvitationError::Truncated)?;
    let body_length = usize::from(u16::from_le_bytes(*length));
    if rest.len() > body_length + CHECKSUM {
        // A typo in the length itself is caught by the checksum only when the rest is as long as it says.
        return Err(InvitationError::TooLong { extra: rest.len() - body_length - CHECKSUM });
    }
    if rest.len() < body_length + CHECKSUM {
        return Err(InvitationError::Truncated);
    }
    let (checked, sum) = bytes.split_at(2 + body_length);
    if checksum(prefix, checked) != sum {
        return Err(InvitationError::Typo);
    }
    Ok(Zeroizing::new(rest[..body_length].to_vec()))
}

/// Why a line is not an invitation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It begins with something else.
    #[error("not an invitation: one begins with `skep1:`")]
    NotAnInvitation,
    /// It begins with `skep` and another number.
    #[error("an invitation of another version (`{0}`); this program reads `skep1:`")]
    Version(String),
    /// A character that no invitation has.
    #[error("character {position} of the invitation, `{character}`, does not belong there")]
    Character {
        /// Counted from 1, the prefix included.
        position: usize,
        /// What stands there.
        character: char,
    },
    /// The end is missing.
    #[error("the invitation is cut short; copy the whole line")]
    Truncated,
    /// Something follows the end.
    #[error("the invitation is followed by something else ({extra} bytes); copy the line alone")]
    TooLong {
        /// Bytes after the end.
        extra: usize,
    },
    /// The checksum does not match.
    #[error("the invitation contains a typing error (its checksum does not match); copy it again")]
    Typo,
    /// The checksum matches, the contents make no sense.
    #[error("the invitation was made wrongly; ask for a new one")]
    Malformed,
}

/// Where a server listens: `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The text `host:port`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Address(address.to_string())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |reason| AddressError { address: text.to_owned(), reason };
        let (host, port) = text.rsplit_once(':').ok_or(refuse("the port is missing"))?;
        if !matches!(port.parse::<u16>(), Ok(1..)) {
            return Err(refuse("the port is not a number from 1 to 65535"));
        }
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.contains(':') && !bracketed {
            return Err(refuse("an IPv6 address stands in brackets"));
        }
        let odd = |character: char| character.is_whitespace() || character.is_control() || character == '/';
        if host.is_empty() || host.contains(odd) || text.len() > usize::from(u8::MAX) {
            return Err(refuse("the host is not a name or an IP address"));
        }
        Ok(Address(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is not an address like `host:port`: {reason}")]
pub struct AddressError {
    address: String,
    reason: &'static str,
}

/// The SHA-256 of an authority's certificate (DER): the name of a federation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

hex_form!(Fingerprint, 32);

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        fixed_hex(text).map(Fingerprint).map_err(FingerprintError)
    }
}

/// Why a text is no [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint, which is 64 hexadecimal digits: {0}")]
pub struct FingerprintError(String);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Fingerprint(sha256(certificate))
    }
}

/// Thirty-two secret bytes, good for one enrolment. Hidden by `Debug`, wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token([u8; 32]);

impl Token {
    /// Draws a token from the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Randomness`] when the operating system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        Ok(Token(bytes))
    }

    /// What a server keeps of a token: its SHA-256, from which the token cannot be found.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(sha256(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        fixed_hex(&text).map(Token).map_err(|_| serde::de::Error::custom("not a token"))
    }
}

/// The SHA-256 of a [`Token`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest(pub [u8; 32]);

hex_form!(TokenDigest, 32);

/// Whole seconds since 1970, 0 for a clock that stands before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Whole milliseconds since 1970, 0 for a clock that stands before.
pub fn unix_millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

fn strip_prefix<'a>(expected: &str, text: &'a str) -> Result<&'a str, InvitationError> {
    if let Some(encoded) = text.strip_prefix(expected) {
        return Ok(encoded);
    }
    let version = text
        .split_once(':')
        .map(|(prefix, _)| prefix)
        .filter(|prefix| prefix.strip_prefix("skep").is_some_and(|number| number.parse::<u32>().is_ok()));
    Err(match version {
        Some(prefix) if expected == PREFIX => InvitationError::Version(format!("{prefix}:")),
        None if expected.starts_with(text) && !text.is_empty() => InvitationError::Truncated,
        _ => InvitationError::NotAnInvitation,
    })
}

fn decode_base64(prefix: &str, encoded: &str) -> Result<Vec<u8>, InvitationError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if let Some((index, character)) = encoded.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return Err(InvitationError::Character { position: prefix.len() + index + 1, character });
    }
    BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|error| match error.kind {
        DecodeKind::Length => InvitationError::Truncated,
        // Bits after the last byte: the end was cut off inside a byte, or its last character mistyped.
        _ => InvitationError::Typo,
    })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(first)
}

fn take_address(rest: &mut &[u8]) -> Option<Address> {
    let [length] = *take(rest)?;
    let (text, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = sha256(&[prefix.as_bytes(), bytes].concat());
    [a, b, c, d]
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, bytes).as_ref());
    output
}

/// The most addresses an invitation carries.
pub const ADDRESS_COUNT_LIMIT: usize = 8;
const PREFIX: &str = "skep1:";
const CHECKSUM: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            addresses: vec!["bees.example:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()],
            authority: Fingerprint([7; 32]),
            client: ClientId(17),
            token: Token([9; 32]),
            expires: 1_800_000_000,
        }
    }

    fn error(text: &str) -> InvitationError {
        text.parse::<Invitation>().unwrap_err()
    }

    #[test]
    fn an_invitation_is_one_line_that_reads_back() {
        let line = invitation().to_string();
        assert!(line.starts_with("skep1:") && !line.contains(char::is_whitespace), "{line}");
        assert_eq!(line.parse(), Ok(invitation()));
        assert_eq!(format!("  {line}\n").parse(), Ok(invitation()));
    }

    #[test]
    fn the_line_of_a_known_invitation_is_known() {
        let mut known = invitation();
        known.addresses.truncate(1);
        let expected = concat!(
            "skep1:YwAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwkJCQkJCQkJCQkJCQkJCQk",
            "JCQkJCQkJCQkJCQkJCQkJEQAAAAAAAAAA0klrAAAAAAERYmVlcy5leGFtcGxlOjc0NDPf2TAB",
        );
        assert_eq!(known.to_string(), expected);
    }

    #[test]
    fn every_proper_prefix_is_named_truncated_or_cut_inside_a_byte() {
        let line = invitation().to_string();
        let mut truncated = 0;
        for end in 1..line.len() {
            match error(&line[..end]) {
                InvitationError::Truncated => truncated += 1,
                InvitationError::Typo => {}
                InvitationError::NotAnInvitation => assert!(end < 6),
                other => panic!("{end}: {other}"),
            }
        }
        assert!(truncated > line.len() / 2, "{truncated} of {}", line.len());
    }

    #[test]
    fn no_single_wrong_character_passes() {
        let line = invitation().to_string();
        for position in 6..line.len() {
            let replacement = if line.as_bytes()[position] == b'A' { "B" } else { "A" };
            let mut wrong = line.clone();
            wrong.replace_range(position..=position, replacement);
            assert!(wrong.parse::<Invitation>().is_err(), "position {position}");
        }
        let mut typo = line.clone();
        typo.replace_range(60..61, if &line[60..61] == "x" { "y" } else { "x" });
        assert_eq!(error(&typo), InvitationError::Typo);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let line = invitation().to_string();
        assert_eq!(error("hello"), InvitationError::NotAnInvitation);
        assert_eq!(error(""), InvitationError::NotAnInvitation);
        assert_eq!(error("skep2:AAAA"), InvitationError::Version("skep2:".into()));
        let spaced = format!("{} {}", &line[..20], &line[20..]);
        assert_eq!(error(&spaced), InvitationError::Character { position: 21, character: ' ' });
        assert!(matches!(
            error(&format!("{line}AAAA")),
            InvitationError::TooLong { .. } | InvitationError::Typo
        ));
    }

    #[test]
    fn the_last_second_is_still_good() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!invitation().has_expired(at(1_800_000_000)));
        assert!(invitation().has_expired(at(1_800_000_001)));
    }

    #[test]
    fn debug_hides_the_token() {
        let text = format!("{:?}", invitation());
        assert!(text.contains("Token(hidden)") && !text.contains("9, 9"), "{text}");
    }

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for good in ["127.0.0.1:1", "bees.example:65535", "[2001:db8::1]:443"] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
        for bad in ["", "host", "host:", "host:0", "host:65536", ":1", "::1:1", "ho st:1", "http://host:1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
