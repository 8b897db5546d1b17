//! Whose updates are summed, and when that ends.
//!
//! A plain collection is one phase. A masked one (Bell et al., SecAgg+, ia.cr/2020/704) goes through several; each holds only what
//! exists by then, and is made from the one before it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::ClientId;
use crate::plan::Closure;

/// What a round collects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Updates that the server sees.
    Plain(Plain),
    /// Answers of all who may still come to be in the sum: keys, shares.
    Gathering(Gathering),
    /// Masked updates; they are offered, granted and committed as in a plain collection.
    Input(Input),
    /// Answers of those who are in the sum: that they agree to the survivors, what unmasks the sum.
    Polling(Polling),
    /// Nothing more: these clients' updates are in the sum.
    Closed(BTreeSet<ClientId>),
}

/// What the server does in a round. A plain round begins with [`Phase::Collecting`] and has nothing between it and the
/// release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// R1: clients train, then send signed keys.
    Keys,
    /// R2: told the keys, they send encrypted shares of their secrets to their share holders.
    Shares,
    /// R3: given their shares of others, they send updates, in a masked round masked.
    Collecting,
    /// R4: told the survivors, these sign that they know.
    Consistency,
    /// R5: given the signatures, they reveal the shares they hold: for each neighbour exactly one, of its self mask if
    /// it survived, of its mask key if it dropped.
    Reveal,
    /// The sum is released.
    Releasing,
}

/// How many have answered in a phase. Where updates are collected, to answer is to be in the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnout {
    /// Clients that have.
    pub answered: u32,
    /// Clients that have, or still may.
    pub expected: u32,
}

/// A collection of updates that the server sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    /// When it ends, if not at the deadline.
    pub closure: Closure,
    /// Who is in the sum.
    pub members: BTreeSet<ClientId>,
}

/// A phase before there are updates: [`Phase::Keys`] or [`Phase::Shares`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathering {
    /// Which.
    pub phase: Phase,
    /// Who has answered and is still in the round.
    pub answered: BTreeSet<ClientId>,
}

/// [`Phase::Collecting`] of a masked round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Whose masked updates are in the sum.
    pub members: BTreeSet<ClientId>,
}

/// A phase after the input: [`Phase::Consistency`] or [`Phase::Reveal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polling {
    /// Which.
    pub phase: Phase,
    /// Whose updates are in the sum (U3): frozen once, never another set.
    pub survivors: BTreeSet<ClientId>,
    /// Who has not answered yet and may still.
    pub owing: BTreeSet<ClientId>,
    /// Who has answered.
    pub answered: BTreeSet<ClientId>,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Keys => "keys",
            Phase::Shares => "shares",
            Phase::Collecting => "input",
            Phase::Consistency => "consistency",
            Phase::Reveal => "unmasking",
            Phase::Releasing => "release",
        })
    }
}

impl Collection {
    /// What a plain round begins with.
    pub(super) fn plain(closure: Closure) -> Self {
        Collection::Plain(Plain { closure, members: BTreeSet::new() })
    }

    /// What a masked round begins with.
    pub(super) fn masked() -> Self {
        Collection::Gathering(Gathering { phase: Phase::Keys, answered: BTreeSet::new() })
    }

    /// What the server does meanwhile.
    pub fn phase(&self) -> Phase {
        match self {
            Collection::Plain(_) | Collection::Input(_) => Phase::Collecting,
            Collection::Gathering(gathering) => gathering.phase,
            Collection::Polling(polling) => polling.phase,
            Collection::Closed(_) => Phase::Releasing,
        }
    }

    /// Updates in the sum.
    pub fn updates(&self) -> u32 {
        match self {
            Collection::Plain(Plain { members, .. }) | Collection::Input(Input { members }) => count(members),
            Collection::Gathering(_) => 0,
            Collection::Polling(polling) => count(&polling.survivors),
            Collection::Closed(members) => count(members),
        }
    }

    /// How many have answered in the phase, or are in the sum.
    pub(super) fn answers(&self) -> u32 {
        match self {
            Collection::Gathering(Gathering { answered, .. })
            | Collection::Polling(Polling { answered, .. }) => count(answered),
            _ => self.updates(),
        }
    }

    /// How many have answered in the phase, given how many clients may still come to be in the sum.
    pub(super) fn turnout(&self, open: usize) -> Turnout {
        let answered = self.answers();
        let open = u32::try_from(open).expect("a cohort has at most u32::MAX clients");
        let expected = match self {
            Collection::Plain(_) | Collection::Input(_) => answered + open,
            Collection::Gathering(_) => open,
            Collection::Polling(polling) => answered + count(&polling.owing),
            Collection::Closed(_) => answered,
        };
        Turnout { answered, expected }
    }

    /// Whether nothing more is waited for, given how many clients may still come to be in the sum.
    pub(super) fn is_settled(&self, open: usize) -> bool {
        match self {
            Collection::Plain(plain) => open == 0 || plain.is_full(),
            Collection::Gathering(gathering) => gathering.answered.len() == open,
            Collection::Input(_) => open == 0,
            Collection::Polling(polling) => polling.owing.is_empty(),
            Collection::Closed(_) => false,
        }
    }

    /// A client's update is in the sum.
    pub(super) fn commit(&mut self, client: ClientId) {
        if let Collection::Plain(Plain { members, .. }) | Collection::Input(Input { members }) = self {
            members.insert(client);
        }
    }

    /// A client has answered in the phase.
    pub(super) fn answer(&mut self, client: ClientId) {
        match self {
            Collection::Gathering(Gathering { answered, .. }) => drop(answered.insert(client)),
            Collection::Polling(Polling { owing, answered, .. }) => {
                owing.remove(&client);
                answered.insert(client);
            }
            _ => {}
        }
    }

    /// A client is out before its update was in the sum: its answer does not count.
    pub(super) fn forget(&mut self, client: ClientId) {
        if let Collection::Gathering(gathering) = self {
            gathering.answered.remove(&client);
        }
    }

    /// Whether a client whose update is in the sum has still to answer.
    pub(super) fn owes(&self, client: ClientId) -> bool {
        matches!(self, Collection::Polling(polling) if polling.owing.contains(&client))
    }

    /// Nothing more is expected of a client whose update is in the sum.
    pub(super) fn excuse(&mut self, client: ClientId) {
        if let Collection::Polling(polling) = self {
            polling.owing.remove(&client);
        }
    }

    /// A client's update is no longer in the sum, or what the client has answered no longer counts: its group is lost.
    pub(super) fn lose(&mut self, client: ClientId) {
        match self {
            Collection::Plain(Plain { members, .. }) | Collection::Input(Input { members }) => {
                members.remove(&client);
            }
            Collection::Gathering(Gathering { answered, .. }) => drop(answered.remove(&client)),
            Collection::Polling(Polling { survivors, owing, answered, .. }) => {
                survivors.remove(&client);
                owing.remove(&client);
                answered.remove(&client);
            }
            Collection::Closed(members) => drop(members.remove(&client)),
        }
    }

    /// What comes after the phase, with those who have answered.
    pub(super) fn next(self) -> Self {
        match self {
            Collection::Gathering(Gathering { phase: Phase::Keys, .. }) => {
                Collection::Gathering(Gathering { phase: Phase::Shares, answered: BTreeSet::new() })
            }
            Collection::Gathering(_) => Collection::Input(Input::default()),
            Collection::Input(Input { members }) => Collection::Polling(Polling {
                phase: Phase::Consistency,
                owing: members.clone(),
                survivors: members,
                answered: BTreeSet::new(),
            }),
            // Only who has signed is asked to reveal anything.
            Collection::Polling(Polling { phase: Phase::Consistency, survivors, answered, .. }) => {
                Collection::Polling(Polling {
                    phase: Phase::Reveal,
                    survivors,
                    owing: answered,
                    answered: BTreeSet::new(),
                })
            }
            Collection::Polling(Polling { survivors: members, .. })
            | Collection::Plain(Plain { members, .. })
            | Collection::Closed(members) => Collection::Closed(members),
        }
    }
}

impl Plain {
    fn is_full(&self) -> bool {
        match self.closure {
            Closure::AllAnswered => false,
            Closure::FirstUpdates(updates) => count(&self.members) >= updates,
        }
    }
}

fn count(clients: &BTreeSet<ClientId>) -> u32 {
    u32::try_from(clients.len()).expect("a cohort has at most u32::MAX clients")
}
