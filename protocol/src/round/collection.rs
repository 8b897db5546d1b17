//! Whose updates are summed, and when that ends.

use crate::ids::{ClientId, Digest};
use crate::plan::Closure;
use std::collections::BTreeSet;

/// The updates that one sum is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// The server sees each update.
    Plain(Plain),
    /// The server sees masked updates and learns only their sum (Bell et al., SecAgg+, ia.cr/2020/704).
    SecAgg(SecAgg),
}

/// A collection of updates that the server sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// When it ends, if not at the deadline.
    pub closure: Closure,
    /// The fewest members that it may be released with.
    pub min_updates: u32,
    /// Who is in the sum.
    pub members: BTreeSet<ClientId>,
}

/// The phases of a masked collection, each with only what exists by then.
///
/// The design of a later release: no plan can ask for it yet, so no machine enters it. A phase ends when all its members
/// have answered or at its share of the round's deadline; whoever has not answered by then has dropped out. Below the
/// threshold of any phase the round aborts, is charged, and its keys are never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecAgg {
    /// R1: clients send signed channel and mask keys and their choice of share holders.
    Keys {
        /// Whose keys have arrived.
        advertised: BTreeSet<ClientId>,
    },
    /// R2: clients send encrypted shares of their mask seeds to their share holders.
    Shares {
        /// Whose shares have all arrived (U2).
        shared: BTreeSet<ClientId>,
    },
    /// R3: clients send masked updates; uploads are offered, granted and committed as in a plain collection.
    Input {
        /// Whose shares had all arrived (U2).
        shared: BTreeSet<ClientId>,
        /// Whose masked updates are in the sum.
        inputs: Plain,
    },
    /// R4: survivors sign one and the same set of survivors.
    Consistency {
        /// The frozen set of survivors (U3).
        survivors: BTreeSet<ClientId>,
        /// Its digest under the plan.
        digest: Digest,
        /// Who has signed it.
        signed: BTreeSet<ClientId>,
    },
    /// R5: each survivor reveals, for each neighbour, exactly one share: of the self mask if the neighbour survived, of
    /// the mask key if it dropped.
    Unmask {
        /// The frozen set of survivors (U3).
        survivors: BTreeSet<ClientId>,
        /// Who has answered.
        revealed: BTreeSet<ClientId>,
    },
}

/// What the server does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Updates are collected.
    Collecting,
    /// The sum is released.
    Releasing,
}

impl Collection {
    /// The part that updates are committed to, while there is one.
    pub fn inputs(&self) -> Option<&Plain> {
        match self {
            Collection::Plain(plain) | Collection::SecAgg(SecAgg::Input { inputs: plain, .. }) => Some(plain),
            Collection::SecAgg(_) => None,
        }
    }

    pub(super) fn inputs_mut(&mut self) -> Option<&mut Plain> {
        match self {
            Collection::Plain(plain) | Collection::SecAgg(SecAgg::Input { inputs: plain, .. }) => Some(plain),
            Collection::SecAgg(_) => None,
        }
    }

    /// Updates in the sum.
    pub fn updates(&self) -> u32 {
        self.inputs().map_or(0, Plain::updates)
    }
}

impl Plain {
    /// Updates in the sum.
    pub fn updates(&self) -> u32 {
        u32::try_from(self.members.len()).expect("a cohort has at most u32::MAX clients")
    }

    /// Whether nothing more is waited for, given how many invited clients may still answer.
    pub fn is_settled(&self, open: usize) -> bool {
        open == 0
            || match self.closure {
                Closure::AllAnswered => false,
                Closure::FirstUpdates(count) => self.updates() >= count,
            }
    }
}
