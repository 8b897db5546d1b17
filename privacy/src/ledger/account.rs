//! What one epoch of a ledger has spent, and by which rule that is stated.
//!
//! As long as every round is the one that the schedule fixed in advance, epsilon comes from the tightest accountant. The
//! first other round may have been chosen because of what earlier ones released, for which that accountant does not hold:
//! from then on all rounds of the epoch are counted by a Rényi filter, at an order that follows from the first terms.
//!
//! A query is such a departure, too, except where it is the first charge of the epoch, when there is nothing yet that it could react
//! to, and where the schedule has it. A query of the schedule is counted with the round that it belongs to, before anybody is asked,
//! and stays counted if nobody is: what is composed follows from the number of rounds alone, so it is fixed in advance whatever
//! is asked or left out because of what was released. When it is charged nothing is added.

use super::record::{Basis, Occasion, Reserve};
use super::terms::{Budget, Mode, PlannedQuery, Terms};
use crate::accounting::filter;
use crate::adversary::Adversary;
use crate::budget::{BudgetExhausted, most_rounds};
use crate::mechanism::Mechanism;
use crate::quantities::{Adjacency, Delta, Epsilon, Sampling};
use crate::spending::Spending;

/// The part of a round that privacy depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTerms {
    /// Who adds noise.
    pub mode: Mode,
    /// The noise.
    pub mechanism: Mechanism,
    /// Who is invited.
    pub sampling: Sampling,
}

/// What an epoch has spent, or would have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The rule that epsilon follows.
    pub basis: Basis,
    /// Against each of [`Adversary::ALL`].
    pub epsilons: [Epsilon; Adversary::ALL.len()],
}

/// The budget of one epoch.
#[derive(Clone, Debug)]
pub struct Account {
    terms: Terms,
    spending: Spending,
    /// The order of the filter against each adversary; none where no order proves anything.
    orders: [Option<f64>; Adversary::ALL.len()],
    charges: u64,
    /// Of these, rounds of training.
    rounds: u64,
    /// Of these, queries that the schedule has.
    asked: u64,
    /// Queries of the schedule that are in `spending` and not charged yet.
    ahead: u64,
    basis: Basis,
}

impl Price {
    /// Against one adversary.
    #[must_use]
    pub const fn epsilon(&self, adversary: Adversary) -> Epsilon {
        self.epsilons[adversary as usize]
    }
}

impl RoundTerms {
    /// Whether the promise relies on nobody's knowing how many clients are invited.
    #[must_use]
    pub const fn hides_cohort(&self) -> bool {
        matches!(self.sampling, Sampling::Poisson { .. })
    }
}

impl From<&Terms> for RoundTerms {
    fn from(terms: &Terms) -> Self {
        let schedule = &terms.schedule;
        Self { mode: terms.mode, mechanism: schedule.mechanism, sampling: schedule.sampling }
    }
}

impl From<&Reserve> for RoundTerms {
    fn from(reserve: &Reserve) -> Self {
        Self { mode: reserve.mode, mechanism: reserve.mechanism, sampling: reserve.sampling }
    }
}

impl Account {
    /// An epoch in which nothing is spent.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        let spending = Spending::new(adjacency(&terms));
        let mut planned = spending.clone();
        let schedule = &terms.schedule;
        let rounds = schedule.rounds.unwrap_or(1).max(1);
        planned.push(schedule.mechanism, schedule.sampling, rounds);
        if let Some(query) = &schedule.query {
            planned.push(query.mechanism, query.sampling, query.due(rounds));
        }
        let order =
            |adversary| filter::order(planned.seen_by(adversary), limit(&terms, adversary), delta(&terms));
        let orders = Adversary::ALL.map(order);
        Self { terms, spending, orders, charges: 0, rounds: 0, asked: 0, ahead: 0, basis: Basis::Schedule }
    }

    /// The terms that hold.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Rounds and queries charged.
    #[must_use]
    pub const fn charges(&self) -> u64 {
        self.charges
    }

    /// The rule that epsilon follows.
    #[must_use]
    pub const fn basis(&self) -> Basis {
        self.basis
    }

    /// What was released, and what the schedule has between these rounds besides, as each adversary sees it.
    #[must_use]
    pub const fn spending(&self) -> &Spending {
        &self.spending
    }

    /// The order of the filter against an adversary; none where no order proves anything.
    #[must_use]
    pub const fn filter_order(&self, adversary: Adversary) -> Option<f64> {
        self.orders[adversary as usize]
    }

    /// What has been spent.
    #[must_use]
    pub fn spent(&self) -> Price {
        let delta = delta(&self.terms);
        let epsilon = |adversary| match (self.basis, self.filter_order(adversary)) {
            (Basis::Schedule, _) => self.spending.epsilon(adversary, delta),
            (Basis::Filter, Some(order)) => filter::epsilon(self.spending.seen_by(adversary), order, delta),
            (Basis::Filter, None) => Epsilon::INFINITE,
        };
        Price { basis: self.basis, epsilons: Adversary::ALL.map(epsilon) }
    }

    /// What would have been spent with continuous noise in place of discrete shares; none where there are no shares. For
    /// comparison: it is not certified.
    #[must_use]
    pub fn epsilon_if_continuous(&self, adversary: Adversary) -> Option<Epsilon> {
        self.spending.epsilon_if_continuous(adversary, delta(&self.terms))
    }

    /// The epoch after `rounds` more of such rounds.
    #[must_use]
    pub fn after(&self, round: &RoundTerms, rounds: u64) -> Self {
        let mut after = self.clone();
        after.add(Occasion::Round, round, rounds);
        after
    }

    /// What one more round, or a query, would make of the epoch, if the limits allow it; `own` is a lower limit that a run sets itself,
    /// against the strongest adversary that its noise is planned against.
    ///
    /// # Errors
    /// [`BudgetExhausted`].
    pub fn price(
        &self,
        occasion: Occasion,
        round: &RoundTerms,
        own: Option<Epsilon>,
    ) -> Result<Price, BudgetExhausted> {
        let mut after = self.clone();
        after.add(occasion, round, 1);
        let price = after.spent();
        let Some(budget) = &self.terms.budget else { return Ok(price) };
        for adversary in LIMITED {
            let kept = limit(&self.terms, adversary);
            let own = own.filter(|own| adversary <= round.mechanism.planned_against() && *own < kept);
            let (limit, asked) = (own.unwrap_or(kept), price.epsilon(adversary));
            if asked > limit {
                let spent = self.spent().epsilon(adversary);
                return Err(BudgetExhausted { spent, asked, limit, delta: budget.delta });
            }
        }
        Ok(price)
    }

    /// How many more of such rounds the limits allow; `None` where no number is too many.
    #[must_use]
    pub fn rounds_left(&self, round: &RoundTerms) -> Option<u64> {
        self.terms.budget?;
        let limits = LIMITED.map(|adversary| (adversary, limit(&self.terms, adversary)));
        if limits.iter().all(|(_, limit)| !limit.is_finite()) {
            return None;
        }
        most_rounds(|rounds| {
            let price = self.after(round, rounds).spent();
            limits.iter().all(|(adversary, limit)| price.epsilon(*adversary) <= *limit)
        })
    }

    /// The rule that holds after so many more of such charges.
    #[must_use]
    pub fn basis_after(&self, occasion: Occasion, round: &RoundTerms, rounds: u64) -> Basis {
        let schedule = &self.terms.schedule;
        let planned = if occasion.is_round() {
            let within = schedule.rounds.is_none_or(|most| self.rounds.saturating_add(rounds) <= most);
            *round == RoundTerms::from(&self.terms) && within
        } else {
            let first = self.charges == 0 && rounds == 1;
            let is_due = |query: &PlannedQuery| self.asked.saturating_add(rounds) <= query.due(self.rounds);
            first || self.planned(occasion, round).is_some_and(is_due)
        };
        if planned { self.basis } else { Basis::Filter }
    }

    /// Whether a query is one of the schedule, but has been asked as often as belongs to the rounds so far: once more would be a
    /// departure.
    #[must_use]
    pub fn is_one_too_many(&self, occasion: Occasion, asked: &RoundTerms) -> bool {
        self.basis == Basis::Schedule
            && self.planned(occasion, asked).is_some()
            && self.basis_after(occasion, asked, 1) == Basis::Filter
    }

    /// The query of the schedule, if this is one.
    fn planned(&self, occasion: Occasion, asked: &RoundTerms) -> Option<&PlannedQuery> {
        let is_it =
            |query: &&PlannedQuery| query.occasion == occasion && query.terms(self.terms.mode) == *asked;
        self.terms.schedule.query.as_ref().filter(is_it)
    }

    /// Counts as many queries of the schedule as belong to the rounds so far.
    fn look_ahead(&mut self) {
        let Some(query) = self.terms.schedule.query else { return };
        let owed = match self.basis {
            Basis::Schedule => query.due(self.rounds).saturating_sub(self.asked),
            // The filter counts what was charged.
            Basis::Filter => 0,
        };
        self.spending.push(query.mechanism, query.sampling, owed.saturating_sub(self.ahead));
        for _ in owed..self.ahead {
            self.spending.take_back(query.mechanism, query.sampling);
        }
        self.ahead = owed;
    }

    /// Counts charges, whatever they cost, and says whether they are among those that the schedule has asked.
    pub(super) fn add(&mut self, occasion: Occasion, round: &RoundTerms, rounds: u64) -> bool {
        self.basis = self.basis_after(occasion, round, rounds);
        self.charges = self.charges.saturating_add(rounds);
        self.spending.push(round.mechanism, round.sampling, rounds);
        let asked = self.rounds > 0 && self.planned(occasion, round).is_some();
        if occasion.is_round() {
            self.rounds = self.rounds.saturating_add(rounds);
        } else if asked {
            self.asked = self.asked.saturating_add(rounds);
        }
        self.look_ahead();
        asked
    }

    /// Takes back the charge of something to which nobody was invited, and which was `asked` or not. The rule stays what it is.
    pub(super) fn refund(&mut self, occasion: Occasion, round: &RoundTerms, asked: bool) {
        self.charges -= 1;
        self.spending.take_back(round.mechanism, round.sampling);
        if occasion.is_round() {
            self.rounds -= 1;
        } else if asked {
            self.asked -= 1;
        }
        self.look_ahead();
    }

    /// Changes the terms within the epoch. Rounds that were charged before make any later schedule a reaction to them.
    pub(super) fn amend(&mut self, terms: Terms) {
        if self.charges == 0 {
            *self = Self::new(terms);
            return;
        }
        if terms.schedule != self.terms.schedule || terms.mode != self.terms.mode {
            self.basis = Basis::Filter;
            self.look_ahead();
        }
        self.terms = terms;
    }
}

impl Budget {
    /// Whether epsilons under this budget and another can be added: they are about the same thing.
    #[must_use]
    pub fn is_comparable(&self, other: &Self) -> bool {
        (self.unit, self.adjacency, self.delta) == (other.unit, other.adjacency, other.delta)
    }
}

/// The limit against an adversary.
fn limit(terms: &Terms, adversary: Adversary) -> Epsilon {
    match (&terms.budget, adversary) {
        (Some(budget), Adversary::Recipients) => budget.limit_release,
        (Some(budget), Adversary::Server) => budget.limit_server,
        (Some(_), Adversary::EveryoneElse) | (None, _) => Epsilon::INFINITE,
    }
}

/// Where nothing is promised every epsilon is infinite, whatever the relation.
fn adjacency(terms: &Terms) -> Adjacency {
    terms.budget.map_or(Adjacency::AddOrRemove, |budget| budget.adjacency)
}

/// Where nothing is promised every epsilon is infinite, whatever the delta.
fn delta(terms: &Terms) -> Delta {
    terms.budget.map_or_else(|| Delta::new(0.5).expect("0.5 is above 0 and below 1"), |budget| budget.delta)
}

/// The adversaries that limits are on.
const LIMITED: [Adversary; 2] = [Adversary::Recipients, Adversary::Server];
