//! How the two shells reach and recognise each other: keys, TLS, websocket framing, invitations, identities.
//!
//! A federation is its certificate authority. Whoever holds an [`Invitation`](invitation::Invitation) knows the
//! authority's fingerprint, so the first connection already authenticates the server; the one-time token in it
//! buys a certificate for a key that never leaves the client; every later connection is mutual TLS 1.3. What is
//! said over a session (messages, codec, rounds) is not known here: a frame carries opaque bytes.

pub mod enrolment;
pub mod files;
pub mod frame;
pub mod identity;
pub mod invitation;
pub mod keys;
pub mod listing;
pub mod proxy;
pub mod rate;
pub mod roster;
pub mod tls;
mod traffic;
pub mod websocket;

pub use traffic::Traffic;
