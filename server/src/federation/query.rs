//! Asking clients' data for something else than an update: statistics, a vocabulary, an evaluation.
//!
//! ```text
//! open_query ──▶ clients are asked, their answers summed ──▶ Sum::release(charge) ──▶ answer_query
//!            ╰──────────────────────────────────────────────────────────────────────▶ abandon_query
//! ```
//!
//! What it costs is on the population's ledger before anybody is asked, as for a round, and stays there.

use std::collections::BTreeSet;

use skep_privacy::budget::Charge;
use skep_privacy::ledger::{Abort, Hash, LedgerError, Occasion, Request, RoundTerms, Settle};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::Key;
use skep_privacy::quantities::Sampling;
use skep_protocol::{ClientId, Digest};

use super::{Federation, PlanningError, mode};
use crate::roster::Roster;
use crate::select;

/// A query that is charged; now its cohort may be asked.
#[derive(Debug)]
#[must_use = "a query is charged even when nobody is asked"]
pub struct Query {
    /// Who is asked. Secret.
    pub cohort: BTreeSet<ClientId>,
    /// What opens the sum of the answers.
    pub charge: Charge,
    /// The key of the noise of that sum. Secret.
    pub noise: Key,
    /// The record of the ledger that charged it.
    pub record: u64,
}

impl Federation {
    /// Draws the cohort of a query and charges it in the ledger. `number`, from 0, tells queries after the same round apart:
    /// with keys from a root, equal ones would have equal noise.
    ///
    /// # Errors
    /// [`PlanningError::Busy`] while a round is open, [`PlanningError::Budget`] when the budget does not allow it, or
    /// another one; nobody may be asked.
    pub fn open_query(
        &mut self,
        occasion: Occasion,
        number: u64,
        mechanism: Mechanism,
        sampling: Sampling,
        roster: &dyn Roster,
    ) -> Result<Query, PlanningError> {
        self.check_idle(roster)?;
        let [drawing, noise] = self.keys.query(self.round, number)?;
        let cohort = select::cohort(sampling, roster, &drawing);
        let request = Request {
            occasion,
            round: self.round.0,
            task: Hash(self.task.0),
            terms: RoundTerms { mode: mode(&self.experiment), mechanism, sampling },
            model_in: if occasion == Occasion::Evaluation { Hash(self.model_digest.0) } else { Hash::ZERO },
            limit: self.experiment.privacy.terms().map(|terms| terms.epsilon_limit),
            noise_commitment: None,
        };
        let reserved = self.ledger.reserve(&request, cohort.iter().map(|client| client.0))?;
        Ok(Query { cohort, charge: self.ledger.charge(reserved.reservation), noise, record: reserved.record })
    }

    /// Writes down what a query released: the digest of the integers, and of how many answers they are the sum.
    /// Only then may anybody see them.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn answer_query(&mut self, record: u64, aggregate: Digest, answers: u32) -> Result<(), LedgerError> {
        let settle = Settle {
            reserve: record,
            plan: Hash::ZERO,
            aggregate: Hash(aggregate.0),
            model_out: Hash::ZERO,
            updates: Some(answers),
            sealed: Vec::new(),
        };
        self.ledger.settle(settle, None)
    }

    /// Writes down that a query has ended without an answer, and why. It stays charged.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn abandon_query(&mut self, record: u64, reason: &str) -> Result<(), LedgerError> {
        self.ledger.abort(Abort { reserve: record, reason: reason.to_owned(), refunded: false })
    }
}
