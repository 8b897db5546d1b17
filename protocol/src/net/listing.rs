//! The two lines between somebody and an authority that is apart from the server.
//!
//! | line | from | says |
//! | --- | --- | --- |
//! | `skep-key:` | a client or a server, to the authority | a public key, with its signature: whoever says so holds the private half |
//! | `skep2:` | the authority, to a client | where the server is, who the authority is, and as whom the client is listed |
//!
//! Neither is a secret. Both must come from whom they seem to come: the first decides who is a client, the second which authority a
//! client believes. They are base64url of a length, canonical bytes and a checksum, as an [invitation](crate::net::invitation) is.

use std::fmt;
use std::str::FromStr;

use crate::ClientId;
use crate::canonical::{CanonicalError, Reader, Writer};
use crate::net::invitation::{ADDRESS_COUNT_LIMIT, Address, Fingerprint, InvitationError, opened, sealed};
use crate::net::keys::{KeyError, PublicKey, Signature, SigningKey};

/// A place in the roster of an authority that is apart, and the way to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Where the server listens: from 1 to 8 addresses, tried in this order.
    pub addresses: Vec<Address>,
    /// The federation's authority, the only one that the client will believe.
    pub authority: Fingerprint,
    /// The client that the certificate names.
    pub client: ClientId,
    /// The first roster that lists it: the client believes no earlier one.
    pub sequence: u64,
}

/// For whom a key is to be certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A client.
    Client,
    /// The server.
    Server,
}

/// A key that an authority is asked to certify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRequest {
    /// For whom.
    pub holder: Holder,
    /// The key.
    pub public_key: PublicKey,
    proof: Signature,
}

/// Why a line is not a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is no line of this kind, or was not copied whole.
    #[error("not a line of `skep ca request`: {0}")]
    Line(#[from] InvitationError),
    /// The contents make no sense.
    #[error("not a line of `skep ca request`: {0}")]
    Encoding(#[from] CanonicalError),
    /// The key did not sign it.
    #[error("whoever made the line does not hold its key: {0}")]
    Proof(#[from] KeyError),
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer::new(LISTING);
        writer.array(&self.authority.0).u64(self.client.0).u64(self.sequence).length(self.addresses.len());
        for address in &self.addresses {
            writer.text(address.as_str());
        }
        f.write_str(&sealed(LISTING_PREFIX, &writer.finish()))
    }
}

impl FromStr for Listing {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let body = opened(LISTING_PREFIX, text)?;
        let read = || {
            let mut reader = Reader::new(&body, LISTING).ok()?;
            let (authority, client) = (Fingerprint(reader.array().ok()?), ClientId(reader.u64().ok()?));
            let (sequence, count) = (reader.u64().ok()?, reader.length(4).ok()?);
            let addresses = (0..count)
                .map(|_| reader.text("address").ok()?.parse().ok())
                .collect::<Option<Vec<Address>>>()?;
            reader.finish().ok()?;
            let some = (1..=ADDRESS_COUNT_LIMIT).contains(&addresses.len());
            some.then_some(Listing { addresses, authority, client, sequence })
        };
        read().ok_or(InvitationError::Malformed)
    }
}

/// Whether a line is a [`Listing`], whole or not.
pub fn is_listing(text: &str) -> bool {
    text.trim().starts_with(LISTING_PREFIX)
}

impl KeyRequest {
    /// Asks for a certificate of this key.
    pub fn new(holder: Holder, key: &SigningKey) -> Self {
        let public_key = key.public_key();
        KeyRequest { holder, public_key, proof: key.sign(&proven(holder, &public_key)) }
    }
}

impl fmt::Display for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = proven(self.holder, &self.public_key);
        body.extend_from_slice(&self.proof.0);
        f.write_str(&sealed(REQUEST_PREFIX, &body))
    }
}

impl FromStr for KeyRequest {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let body = opened(REQUEST_PREFIX, text)?;
        let (asked, proof) = body.split_last_chunk::<64>().ok_or(CanonicalError::Truncated)?;
        let mut reader = Reader::new(asked, REQUEST)?;
        let holder = match reader.u8()? {
            0 => Holder::Client,
            1 => Holder::Server,
            _ => return Err(CanonicalError::OutOfRange("holder of a key").into()),
        };
        let public_key = PublicKey(reader.array()?);
        reader.finish()?;
        public_key.verify(asked, proof)?;
        Ok(KeyRequest { holder, public_key, proof: Signature(*proof) })
    }
}

fn proven(holder: Holder, public_key: &PublicKey) -> Vec<u8> {
    let mut writer = Writer::new(REQUEST);
    writer.u8(u8::from(holder == Holder::Server)).array(&public_key.0);
    writer.finish()
}

const LISTING: &str = "skep listing v1";
const LISTING_PREFIX: &str = "skep2:";
const REQUEST: &str = "skep key request v1";
const REQUEST_PREFIX: &str = "skep-key:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_read_back_and_no_wrong_character_passes() {
        let listing = Listing {
            addresses: vec!["bees.example:7443".parse().unwrap(), "[::1]:7443".parse().unwrap()],
            authority: Fingerprint([7; 32]),
            client: ClientId(17),
            sequence: 4,
        };
        let key = SigningKey::generate().unwrap();
        let request = KeyRequest::new(Holder::Server, &key);
        let (listed, asked) = (listing.to_string(), request.to_string());
        assert!(is_listing(&listed) && !is_listing(&asked), "{listed}");
        assert_eq!(format!(" {listed}\n").parse(), Ok(listing));
        assert_eq!(asked.parse::<KeyRequest>().unwrap(), request);
        let changed = |line: &str, place: usize| {
            let other = if line.as_bytes()[place] == b'A' { "B" } else { "A" };
            let mut changed = line.to_owned();
            changed.replace_range(place..=place, other);
            changed
        };
        for place in 0..listed.len() {
            assert!(changed(&listed, place).parse::<Listing>().is_err(), "{place}");
        }
        for place in 0..asked.len() {
            assert!(changed(&asked, place).parse::<KeyRequest>().is_err(), "{place}");
        }
        assert_eq!(listed[..40].parse::<Listing>(), Err(InvitationError::Truncated));
        assert_eq!("skep1:AAAA".parse::<Listing>(), Err(InvitationError::NotAnInvitation));
    }

    #[test]
    fn a_request_for_a_key_of_somebody_else_is_refused() {
        let [own, other] = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
        let public_key = other.public_key();
        let forged = KeyRequest { public_key, ..KeyRequest::new(Holder::Client, &own) };
        assert!(matches!(forged.to_string().parse::<KeyRequest>(), Err(RequestError::Proof(_))));
    }
}
