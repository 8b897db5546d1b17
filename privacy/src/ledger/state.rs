//! What a ledger says after each of its records, and which record may follow.
//!
//! ```text
//! genesis ─▶ reserve ─▶ settle | abort        checkpoint, key-rotate and amend in between
//! ```
//!
//! A reservation that nothing follows stays charged for ever: its round may have been under way when the server stopped.

use std::collections::BTreeMap;

use thiserror::Error;

use super::account::{Account, RoundTerms};
use super::record::{
    Abort, Amend, Basis, Body, Genesis, KeyRotate, Note, Occasion, Record, Reserve, Settle, rotation_text,
};
use super::{Checkpoint, Frontier, Hash, Mode, Population, PublicKey, SignedCheckpoint};

/// Why a record cannot follow those before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Disorder {
    /// A record is missing, twice there, or out of place.
    #[error("it says that it is record {found}")]
    Sequence {
        /// The number that it bears.
        found: u64,
    },
    /// It continues another history.
    #[error("it does not continue the record before it")]
    Chain,
    /// The first record is another kind.
    #[error("a ledger begins with a genesis record, not with one of kind {0}")]
    NoGenesis(&'static str),
    /// A second beginning.
    #[error("it is a second genesis record")]
    SecondGenesis,
    /// Delta is not below one over the population, or another term makes no sense.
    #[error("its terms make no sense: {0}")]
    Terms(&'static str),
    /// It settles or aborts what is not reserved, or no longer.
    #[error("it ends the round of record {reserve}, which is no open reservation")]
    NotReserved {
        /// The record that it names.
        reserve: u64,
    },
    /// A cohort larger than the population, or a sum larger than the cohort.
    #[error("it counts {found} clients where at most {most} can be")]
    TooMany {
        /// Clients that it counts.
        found: u64,
        /// Clients that there can be.
        most: u64,
    },
    /// The size of a cohort under Poisson sampling, which amplifies only while that is secret.
    #[error("it states how many clients took part, which Poisson sampling must keep secret")]
    Revealed,
    /// A new key whose owner did not agree.
    #[error("the new key's owner did not sign for it")]
    Rotation,
    /// A checkpoint that is not of the records before it.
    #[error("its checkpoint is not of the records before it, or is not signed by the ledger's key")]
    Checkpoint,
    /// Epsilon is stated by another rule than the schedule allows.
    #[error("it states epsilon by the rule `{found}`, but `{expected}` holds")]
    Basis {
        /// The rule that it names.
        found: &'static str,
        /// The rule that holds.
        expected: &'static str,
    },
}

/// A reserved round that has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    occasion: Occasion,
    terms: RoundTerms,
    round: u64,
    cohort: Option<u32>,
    epoch: usize,
    limited: bool,
    /// Whether it counts as a query that the schedule has.
    asked: bool,
}

/// A ledger's state after some of its records.
#[derive(Clone, Debug)]
pub struct State {
    genesis: Genesis,
    key: PublicKey,
    population: Population,
    epochs: Vec<Account>,
    open: BTreeMap<u64, Open>,
    last: Hash,
    frontier: Frontier,
    settled: u64,
    aborted: u64,
}

impl State {
    /// The state after a genesis record, whose leaf hash is `hash`.
    ///
    /// # Errors
    /// [`Disorder`].
    pub fn begin(record: &Record, hash: Hash) -> Result<Self, Disorder> {
        let Body::Genesis(genesis) = &record.body else {
            return Err(Disorder::NoGenesis(record.body.kind()));
        };
        if record.seq != 0 {
            return Err(Disorder::Sequence { found: record.seq });
        }
        if record.previous != Hash::ZERO {
            return Err(Disorder::Chain);
        }
        check_terms(&genesis.terms, &genesis.population)?;
        let mut frontier = Frontier::default();
        frontier.push(hash);
        Ok(Self {
            key: genesis.key,
            population: genesis.population,
            epochs: vec![Account::new(genesis.terms)],
            genesis: genesis.clone(),
            open: BTreeMap::new(),
            last: hash,
            frontier,
            settled: 0,
            aborted: 0,
        })
    }

    /// Goes on by one record, whose leaf hash is `hash`. Epsilons are not recomputed here.
    ///
    /// # Errors
    /// [`Disorder`]; the state has not changed.
    pub fn apply(&mut self, record: &Record, hash: Hash) -> Result<(), Disorder> {
        if record.seq != self.frontier.size() {
            return Err(Disorder::Sequence { found: record.seq });
        }
        if record.previous != self.last {
            return Err(Disorder::Chain);
        }
        match &record.body {
            Body::Genesis(_) => return Err(Disorder::SecondGenesis),
            Body::Reserve(reserve) => self.reserve(record.seq, reserve)?,
            Body::Settle(settle) => self.settle(settle)?,
            Body::Abort(abort) => self.abort(abort)?,
            Body::Checkpoint(note) => self.noted(note)?,
            Body::KeyRotate(rotate) => self.rotate(rotate)?,
            Body::Amend(amend) => self.amend(amend)?,
        }
        self.last = hash;
        self.frontier.push(hash);
        Ok(())
    }

    /// The first record.
    #[must_use]
    pub const fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The key that signs the next record.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// Whose budget it is now.
    #[must_use]
    pub const fn population(&self) -> Population {
        self.population
    }

    /// The budget of the epoch that lasts.
    #[must_use]
    pub fn account(&self) -> &Account {
        self.epochs.last().expect("there is an epoch from the genesis record on")
    }

    /// The budgets of all epochs, in order.
    #[must_use]
    pub fn epochs(&self) -> &[Account] {
        &self.epochs
    }

    /// Records so far.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The Merkle root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// A checkpoint of them.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: self.genesis.origin.clone(), size: self.size(), root: self.root() }
    }

    /// The hash of the last record.
    #[must_use]
    pub const fn last(&self) -> Hash {
        self.last
    }

    /// Reservations that nothing has followed yet, by number of record.
    pub fn open(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.keys().copied()
    }

    /// The last open reservation for this of the round with this number, as its run counted, or of a query after it.
    #[must_use]
    pub fn open_for(&self, occasion: Occasion, round: u64) -> Option<u64> {
        let is_it = |open: &Open| open.occasion == occasion && open.round == round;
        self.open.iter().rev().find(|(_, open)| is_it(open)).map(|(record, _)| *record)
    }

    /// Whether the open reservation of this record is a round of the epoch that lasts, charged under participation limits.
    #[must_use]
    pub fn is_limited_round(&self, reserve: u64) -> bool {
        let is =
            |open: &Open| open.limited && open.occasion.is_round() && open.epoch + 1 == self.epochs.len();
        self.open.get(&reserve).is_some_and(is)
    }

    /// Whether the open reservation of this record keeps the size of its cohort secret.
    #[must_use]
    pub fn hides_cohort(&self, reserve: u64) -> bool {
        self.open.get(&reserve).is_some_and(|open| open.terms.hides_cohort())
    }

    /// Whether the open reservation of this record counts as a query that the schedule has.
    #[must_use]
    pub fn is_asked(&self, reserve: u64) -> bool {
        self.open.get(&reserve).is_some_and(|open| open.asked)
    }

    /// Rounds that released a model, and queries that released an answer.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// Rounds and queries that were ended without a release.
    #[must_use]
    pub const fn aborted(&self) -> u64 {
        self.aborted
    }

    fn current(&mut self) -> &mut Account {
        self.epochs.last_mut().expect("there is an epoch from the genesis record on")
    }

    fn reserve(&mut self, seq: u64, reserve: &Reserve) -> Result<(), Disorder> {
        let terms = RoundTerms::from(reserve);
        if terms.hides_cohort() && reserve.cohort.is_some() {
            return Err(Disorder::Revealed);
        }
        at_most(reserve.cohort.map(u64::from), self.population.size)?;
        let expected = self.account().basis_after(reserve.occasion, &terms, 1);
        if reserve.basis != expected {
            return Err(Disorder::Basis { found: name(reserve.basis), expected: name(expected) });
        }
        let (epoch, limited) = (self.epochs.len() - 1, self.account().terms().participation.is_some());
        let asked = self.current().add(reserve.occasion, &terms, 1);
        self.open.insert(
            seq,
            Open {
                occasion: reserve.occasion,
                terms,
                round: reserve.round,
                cohort: reserve.cohort,
                epoch,
                limited,
                asked,
            },
        );
        Ok(())
    }

    fn settle(&mut self, settle: &Settle) -> Result<(), Disorder> {
        let open = self.opened(settle.reserve)?;
        if open.terms.hides_cohort() && settle.updates.is_some() {
            return Err(Disorder::Revealed);
        }
        at_most(settle.updates.map(u64::from), open.cohort.map_or(u64::MAX, u64::from))?;
        self.open.remove(&settle.reserve);
        self.settled += 1;
        Ok(())
    }

    fn abort(&mut self, abort: &Abort) -> Result<(), Disorder> {
        let open = self.opened(abort.reserve)?;
        self.open.remove(&abort.reserve);
        self.aborted += 1;
        if abort.refunded {
            self.epochs[open.epoch].refund(open.occasion, &open.terms, open.asked);
        }
        Ok(())
    }

    fn opened(&self, reserve: u64) -> Result<Open, Disorder> {
        self.open.get(&reserve).copied().ok_or(Disorder::NotReserved { reserve })
    }

    fn noted(&self, note: &Note) -> Result<(), Disorder> {
        let parsed = SignedCheckpoint::parse(&note.text).map_err(|_| Disorder::Checkpoint)?;
        if *parsed.unverified() == self.checkpoint() { Ok(()) } else { Err(Disorder::Checkpoint) }
    }

    fn rotate(&mut self, rotate: &KeyRotate) -> Result<(), Disorder> {
        let text = rotation_text(self.size(), self.last, &self.key, &rotate.key);
        if !rotate.key.verifies(&text, &rotate.proof) {
            return Err(Disorder::Rotation);
        }
        self.key = rotate.key;
        Ok(())
    }

    fn amend(&mut self, amend: &Amend) -> Result<(), Disorder> {
        let population = amend.epoch.unwrap_or(self.population);
        check_terms(&amend.terms, &population)?;
        if amend.reason.trim().is_empty() {
            return Err(Disorder::Terms("an amendment needs a reason"));
        }
        match amend.epoch {
            Some(_) => self.epochs.push(Account::new(amend.terms)),
            None => {
                let comparable = match (&self.account().terms().budget, &amend.terms.budget) {
                    (Some(before), Some(after)) => before.is_comparable(after),
                    (before, after) => before.is_none() == after.is_none(),
                };
                if !comparable && self.account().charges() > 0 {
                    return Err(Disorder::Terms(
                        "unit, adjacency and delta can only change with a new epoch",
                    ));
                }
                self.current().amend(amend.terms);
            }
        }
        self.population = population;
        Ok(())
    }
}

fn check_terms(terms: &super::Terms, population: &Population) -> Result<(), Disorder> {
    if population.size == 0 {
        return Err(Disorder::Terms("a population without clients"));
    }
    if !terms.delta_suits(population.size) {
        return Err(Disorder::Terms("delta is not below one over the population"));
    }
    if terms.budget.is_some() && terms.mode == Mode::None {
        return Err(Disorder::Terms("a budget where nothing is promised"));
    }
    Ok(())
}

fn at_most(found: Option<u64>, most: u64) -> Result<(), Disorder> {
    match found {
        Some(found) if found > most => Err(Disorder::TooMany { found, most }),
        _ => Ok(()),
    }
}

const fn name(basis: Basis) -> &'static str {
    match basis {
        Basis::Schedule => "schedule",
        Basis::Filter => "filter",
    }
}
