//! The population of a federation, without a list of it.

use std::collections::BTreeSet;

use skep_protocol::ClientId;

/// Everyone who could be invited. A trait, because ten million clients must not be a list.
pub trait Roster {
    /// How many there are; public, and the same in every round.
    fn population(&self) -> u64;

    /// The client at `index`, which is below [`Roster::population`]. Different indices are different clients.
    fn nth(&self, index: u64) -> ClientId;

    /// Whether a client is one of them.
    fn has(&self, client: ClientId) -> bool;

    /// How many there are but for these.
    fn without(&self, gone: &BTreeSet<ClientId>) -> u64 {
        self.population() - gone.iter().filter(|client| self.has(**client)).count() as u64
    }
}

/// The clients 0 to n − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contiguous(pub u64);

impl Roster for Contiguous {
    fn population(&self) -> u64 {
        self.0
    }

    fn nth(&self, index: u64) -> ClientId {
        ClientId(index)
    }

    fn has(&self, client: ClientId) -> bool {
        client.0 < self.0
    }
}
