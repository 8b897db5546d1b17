//! The roster of a federation whose authority is apart from its server: who is a client, by which key, signed by the authority.
//!
//! ```text
//! authority                        server                               client
//!   │ roster.skep: members,          │ of each peer: certificate,           │ the authority signed the head, the peer is
//!   │ certificates, signed head      │ head, and proof that it is listed    │ listed, and the head is not older than
//!   └──────── by hand ──────────────>└──── in every masked round ──────────>└ the last it saw
//! ```
//!
//! The members are the leaves of a Merkle tree (RFC 6962) in ascending order of ids; the head is its root, its size and a number that
//! grows with every change, signed by the authority's key. So the server can pass a roster on, but neither add a member nor
//! bring a former one back to whoever has seen a newer roster.

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use skep_privacy::ledger::{Hash, Tree, is_included};

use crate::ClientId;
use crate::canonical::{CanonicalError, Reader, Writer};
use crate::net::enrolment::Der;
use crate::net::invitation::Fingerprint;
use crate::net::keys::{PublicKey, Signature, SigningKey, hex_form};
use crate::net::tls::{self, TlsError};

/// What the authority signs: all members at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Grows by one with every roster.
    pub sequence: u64,
    /// When it was signed, in seconds since 1970.
    pub signed_at: u64,
    /// How many members there are.
    pub members: u32,
    /// The root of their tree.
    pub root: Root,
}

/// The root of the tree of members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Root(pub [u8; 32]);

hex_form!(Root, 32);

/// A head with the authority's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// What is signed.
    pub head: Head,
    /// By the key of the authority's certificate.
    pub signature: Signature,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its id.
    pub client: ClientId,
    /// Its identity key.
    pub public_key: PublicKey,
    /// Its latest certificate.
    pub certificate: Der,
}

/// The contents of `roster.skep`. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRoster {
    /// The authority's certificate.
    pub authority: Der,
    /// What it has signed.
    pub signed: SignedHead,
    /// The certificate of the server, once there is one.
    pub server: Option<Der>,
    /// The members, in ascending order of ids.
    pub members: Vec<Listed>,
    /// Those who were members and never will be again: the authority's own note, which its signature does not cover.
    pub removed: Vec<ClientId>,
}

/// What shows a client that a peer is a member: its certificate, and its place in a signed roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The peer's certificate, in DER.
    pub certificate: Vec<u8>,
    /// The roster.
    pub signed: SignedHead,
    /// The place of its leaf.
    index: u32,
    /// The way from the leaf to the root.
    path: Vec<Hash>,
}

/// Why a roster, or a place in one, is not believed.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The certificate in it is another authority's.
    #[error("the roster is of another authority, {found}; this federation's is {expected}")]
    OtherAuthority {
        /// Whose it should be.
        expected: Fingerprint,
        /// Whose it is.
        found: Fingerprint,
    },
    /// The authority did not sign the head.
    #[error("the roster is not signed by its authority")]
    Signature,
    /// The members are not those of the head.
    #[error("the members of the roster are not those that its authority has signed")]
    Members,
    /// A member's certificate is not the one that the authority made for it.
    #[error("the certificate of {0} in the roster is not one that its authority has signed for it")]
    OtherCertificate(ClientId),
    /// A member has no place under the head.
    #[error("{0} is not in the roster that the authority has signed")]
    Unlisted(ClientId),
    /// The bytes are none.
    #[error("not a proof of membership: {0}")]
    Encoding(#[from] CanonicalError),
    /// A certificate in it is unusable.
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

impl Head {
    /// The head of these members, in ascending order of ids.
    pub fn of(members: &[Listed], sequence: u64, signed_at: u64) -> Self {
        let tree = tree(members);
        let root = tree.root(tree.size()).expect("a tree has a root over all of its leaves");
        let members = u32::try_from(members.len()).expect("ids of clients are fewer");
        Head { sequence, signed_at, members, root: Root(root.0) }
    }

    /// Signs it with the authority's key.
    pub fn sign(self, key: &SigningKey) -> SignedHead {
        SignedHead { head: self, signature: key.sign(&self.text()) }
    }

    /// An X.509 certificate, which the same key signs, begins with other bytes.
    fn text(&self) -> Vec<u8> {
        let mut writer = Writer::new("skep roster v1");
        writer.u64(self.sequence).u64(self.signed_at).u32(self.members).array(&self.root.0);
        writer.finish()
    }
}

impl SignedHead {
    /// Checks that the owner of `authority` has signed it.
    ///
    /// # Errors
    /// [`RosterError::Signature`].
    pub fn verify(&self, authority: &PublicKey) -> Result<(), RosterError> {
        authority.verify(&self.head.text(), &self.signature.0).map_err(|_| RosterError::Signature)
    }
}

impl SignedRoster {
    /// Checks that it is the authority's with this fingerprint, signed by it, and whole, and that so are the certificates in it, be they
    /// good now or not. Whose key the server's is, the server sees.
    ///
    /// # Errors
    /// [`RosterError`] with the first thing that is wrong.
    pub fn verify(&self, authority: Fingerprint) -> Result<(), RosterError> {
        let found = Fingerprint::of(&self.authority.0);
        if found != authority {
            return Err(RosterError::OtherAuthority { expected: authority, found });
        }
        let key = tls::certified_key(&self.authority.0)?;
        self.signed.verify(&key)?;
        let Head { sequence, signed_at, .. } = self.signed.head;
        let ascending = self.members.is_sorted_by(|a, b| a.client < b.client);
        if !ascending || Head::of(&self.members, sequence, signed_at) != self.signed.head {
            return Err(RosterError::Members);
        }
        self.members.iter().try_for_each(|listed| listed.verify(&key))?;
        Ok(self.server.iter().try_for_each(|server| tls::check_signature(&server.0, &key))?)
    }

    /// The member with this id.
    pub fn member(&self, client: ClientId) -> Option<&Listed> {
        self.members.binary_search_by_key(&client, |listed| listed.client).ok().map(|at| &self.members[at])
    }
}

impl Listed {
    /// Checks that the owner of `authority` has signed its certificate, for its id and key.
    ///
    /// # Errors
    /// [`RosterError::OtherCertificate`].
    fn verify(&self, authority: &PublicKey) -> Result<(), RosterError> {
        let Listed { client, public_key, certificate } = self;
        let named = tls::client_named_by(&certificate.0).ok();
        let same = named.is_some_and(|named| (named.client, named.public_key) == (*client, *public_key));
        match same && tls::check_signature(&certificate.0, authority).is_ok() {
            true => Ok(()),
            false => Err(RosterError::OtherCertificate(*client)),
        }
    }
}

/// A roster with its tree, ready to prove who is listed.
#[derive(Debug)]
pub struct Prover {
    roster: SignedRoster,
    tree: Tree,
}

impl Prover {
    /// For a roster that has been verified.
    pub fn new(roster: SignedRoster) -> Self {
        Prover { tree: tree(&roster.members), roster }
    }

    /// The roster.
    pub fn roster(&self) -> &SignedRoster {
        &self.roster
    }

    /// What shows peers that a client with this certificate is a member; none where it is not listed.
    pub fn membership(&self, client: ClientId, certificate: &[u8]) -> Option<Membership> {
        let at = self.roster.members.binary_search_by_key(&client, |listed| listed.client).ok()?;
        let index = u32::try_from(at).ok()?;
        let path = self.tree.inclusion(index.into(), self.tree.size())?;
        Some(Membership { certificate: certificate.to_vec(), signed: self.roster.signed, index, path })
    }
}

impl Membership {
    /// Checks that the roster with this head lists `client` with the key `public_key`. Whose head it is,
    /// [`SignedHead::verify`] tells, once for all members.
    ///
    /// # Errors
    /// [`RosterError::Unlisted`].
    pub fn check(&self, client: ClientId, public_key: &PublicKey) -> Result<(), RosterError> {
        let (leaf, Head { members, root, .. }) = (leaf(client, public_key), self.signed.head);
        match is_included(leaf, self.index.into(), members.into(), &self.path, Hash(root.0)) {
            true => Ok(()),
            false => Err(RosterError::Unlisted(client)),
        }
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Head { sequence, signed_at, members, root } = self.signed.head;
        let mut writer = Writer::new(DOMAIN);
        writer.bytes(&self.certificate).u64(sequence).u64(signed_at).u32(members).array(&root.0);
        writer.bytes(&self.signed.signature.0).u32(self.index).length(self.path.len());
        for hash in &self.path {
            writer.array(&hash.0);
        }
        writer.finish()
    }

    /// Reads what [`Membership::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`RosterError::Encoding`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RosterError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        let certificate = reader.bytes()?.to_vec();
        let (sequence, signed_at, members) = (reader.u64()?, reader.u64()?, reader.u32()?);
        let head = Head { sequence, signed_at, members, root: Root(reader.array()?) };
        let signature =
            reader.bytes()?.try_into().map_err(|_| CanonicalError::OutOfRange("length of a signature"))?;
        let index = reader.u32()?;
        let path = (0..reader.length(32)?)
            .map(|_| reader.array().map(Hash))
            .collect::<Result<_, CanonicalError>>()?;
        reader.finish()?;
        let signed = SignedHead { head, signature: Signature(signature) };
        Ok(Membership { certificate, signed, index, path })
    }
}

fn tree(members: &[Listed]) -> Tree {
    let mut tree = Tree::default();
    members.iter().for_each(|listed| tree.push(leaf(listed.client, &listed.public_key)));
    tree
}

fn leaf(client: ClientId, public_key: &PublicKey) -> Hash {
    let mut writer = Writer::new("skep roster member v1");
    writer.u64(client.0).array(&public_key.0);
    Hash::of_leaf(&writer.finish())
}

/// A certificate of which nothing but its bytes matters.
impl From<Vec<u8>> for Der {
    fn from(bytes: Vec<u8>) -> Self {
        Der(CertificateDer::from(bytes))
    }
}

const DOMAIN: &str = "skep membership v1";

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(client: u64) -> Listed {
        let public_key = PublicKey([client as u8 + 1; 32]);
        Listed { client: ClientId(client), public_key, certificate: vec![client as u8].into() }
    }

    fn prover(clients: &[u64], key: &SigningKey) -> Prover {
        let members: Vec<_> = clients.iter().copied().map(listed).collect();
        let signed = Head::of(&members, 3, 1_800_000_000).sign(key);
        Prover::new(SignedRoster {
            authority: vec![1].into(),
            signed,
            server: None,
            members,
            removed: vec![],
        })
    }

    #[test]
    fn a_member_proves_its_place_and_nobody_else_has_it() {
        let key = SigningKey::generate().unwrap();
        let (authority, clients) = (key.public_key(), [2, 3, 5, 8, 13]);
        let prover = prover(&clients, &key);
        for client in clients {
            let proof = prover.membership(ClientId(client), b"certificate").unwrap();
            let proof = Membership::from_bytes(&proof.to_bytes()).unwrap();
            let own = listed(client).public_key;
            assert!(proof.signed.verify(&authority).is_ok() && proof.check(ClientId(client), &own).is_ok());
            // Another key under its id, another id with its key, another authority.
            let other = listed(4).public_key;
            assert!(matches!(proof.check(ClientId(client), &other), Err(RosterError::Unlisted(_))));
            assert!(matches!(proof.check(ClientId(4), &own), Err(RosterError::Unlisted(_))));
            let stranger = SigningKey::generate().unwrap().public_key();
            assert!(matches!(proof.signed.verify(&stranger), Err(RosterError::Signature)));
        }
        assert!(prover.membership(ClientId(4), b"").is_none());
    }

    #[test]
    fn a_head_with_anything_changed_is_not_the_authoritys() {
        let key = SigningKey::generate().unwrap();
        let SignedHead { head, signature } = prover(&[1, 2], &key).roster().signed;
        let changed = [
            Head { sequence: 4, ..head },
            Head { signed_at: 0, ..head },
            Head { members: 3, ..head },
            Head { root: Root([0; 32]), ..head },
        ];
        for head in changed {
            assert!(SignedHead { head, signature }.verify(&key.public_key()).is_err(), "{head:?}");
        }
        assert!(SignedHead { head, signature }.verify(&key.public_key()).is_ok());
    }

    #[test]
    fn every_shortened_or_flipped_proof_is_refused() {
        let key = SigningKey::generate().unwrap();
        let proof = prover(&[1, 2, 3], &key).membership(ClientId(2), b"der").unwrap();
        let (bytes, member) = (proof.to_bytes(), listed(2));
        let believed = |bytes: &[u8]| {
            let proof = Membership::from_bytes(bytes).ok()?;
            proof.signed.verify(&key.public_key()).ok()?;
            proof.check(member.client, &member.public_key).ok()?;
            Some(proof.certificate)
        };
        assert_eq!(believed(&bytes), Some(b"der".to_vec()));
        for place in 0..bytes.len() {
            assert_eq!(believed(&bytes[..place]), None);
            let mut flipped = bytes.clone();
            flipped[place] ^= 1;
            // The certificate is proved by itself.
            assert!(believed(&flipped).is_none_or(|certificate| certificate != b"der"), "byte {place}");
        }
    }
}
