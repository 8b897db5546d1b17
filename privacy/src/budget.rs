//! A privacy budget: charged before a round, and never refunded by accident.
//!
//! [`BudgetKeeper::reserve`] charges a round and hands out a [`Reservation`]; without one nobody is invited. When the
//! sum is ready, [`BudgetKeeper::settle`] turns the reservation into the [`Charge`] that opens it. A reservation that
//! is lost, by a crash or an aborted round, stays charged: its noise may already be out.
//!
//! Epsilon is computed from the list of charged events, never from a running total.

use crate::accounting::Accountant;
use crate::adversary::Adversary;
use crate::ledger::Occasion;
use crate::matrix::BandedMechanism;
use crate::mechanism::Mechanism;
use crate::quantities::{Adjacency, Delta, Epsilon, Sampling};
use crate::spending::Spending;

/// One more round would cost more than the budget allows.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "the privacy budget is exhausted: epsilon {spent:.4} is spent and this round would make it {asked:.4}, above the \
     limit of {limit} at delta {delta}"
)]
pub struct BudgetExhausted {
    /// Epsilon of all rounds charged so far.
    pub spent: Epsilon,
    /// Epsilon that the refused round would have led to.
    pub asked: Epsilon,
    /// The limit.
    pub limit: Epsilon,
    /// The delta of all three.
    pub delta: Delta,
}

/// Keeps the budget of one population, in memory.
///
/// Its limit is on ε against the strongest adversary that the rounds are planned against: those who receive models where the
/// server adds the noise, the server where clients do.
#[derive(Debug)]
pub struct BudgetKeeper {
    delta: Delta,
    limit: Option<Epsilon>,
    charged: Spending,
}

/// The right to run one round, already charged. It cannot be copied, so one round is one charge.
#[derive(Debug)]
#[must_use = "a reservation is charged even when it is dropped"]
pub struct Reservation {
    occasion: Occasion,
    round: u64,
    mechanism: Mechanism,
    epsilon_after: [Epsilon; Adversary::ALL.len()],
}

/// A settled reservation: opens the sum of its round, with its mechanism, once.
#[derive(Debug)]
#[must_use = "a charge is what opens the sum of its round"]
pub struct Charge {
    round: u64,
    mechanism: Mechanism,
}

/// The right to one run of correlated noise, already charged: begins the run with its mechanism, once.
#[derive(Debug)]
#[must_use = "a run is charged even when it never begins"]
pub struct RunCharge {
    mechanism: BandedMechanism,
}

impl BudgetKeeper {
    /// An empty budget. Without a limit every round is counted and none refused.
    #[must_use]
    pub const fn new(adjacency: Adjacency, delta: Delta, limit: Option<Epsilon>) -> Self {
        Self { delta, limit, charged: Spending::new(adjacency) }
    }

    /// The budget of a federation that promises nothing: no round is refused, and after the first one epsilon is
    /// infinite at every delta, so the one it is kept at does not matter.
    #[must_use]
    pub fn without_promise() -> Self {
        let delta = Delta::new(0.5).expect("0.5 is above 0 and below 1");
        Self::new(Adjacency::AddOrRemove, delta, None)
    }

    /// Charges one round, before anybody is invited to it.
    ///
    /// # Errors
    /// [`BudgetExhausted`] when the round would exceed the limit; nothing is charged then.
    pub fn reserve(
        &mut self,
        round: u64,
        mechanism: Mechanism,
        sampling: Sampling,
    ) -> Result<Reservation, BudgetExhausted> {
        self.reserve_for(Occasion::Round, round, mechanism, sampling)
    }

    /// [`BudgetKeeper::reserve`] for a round, or for a query after it.
    ///
    /// # Errors
    /// [`BudgetExhausted`] when it would exceed the limit; nothing is charged then.
    pub fn reserve_for(
        &mut self,
        occasion: Occasion,
        round: u64,
        mechanism: Mechanism,
        sampling: Sampling,
    ) -> Result<Reservation, BudgetExhausted> {
        self.charge(self.with(mechanism, sampling, 1))?;
        let epsilon = |adversary| self.charged.epsilon(adversary, self.delta);
        Ok(Reservation::new(occasion, round, mechanism, Adversary::ALL.map(epsilon)))
    }

    /// Charges a whole run of correlated noise, before anybody is invited to its first step.
    ///
    /// Never amplified by sampling. There is nothing to settle: what a run costs does not depend on how many of its steps
    /// are done.
    ///
    /// # Errors
    /// [`BudgetExhausted`] when the run would exceed the limit; nothing is charged then.
    pub fn charge_run(&mut self, mechanism: BandedMechanism) -> Result<RunCharge, BudgetExhausted> {
        let mut after = self.charged.clone();
        after.push_central(mechanism.event());
        self.charge(after)?;
        Ok(RunCharge { mechanism })
    }

    /// Gives up the reservation for the charge that opens its sum.
    pub fn settle(&mut self, reservation: Reservation) -> Charge {
        reservation.into_charge()
    }

    /// Epsilon of all rounds charged so far, at [`BudgetKeeper::delta`], as the limit sees it; infinite after a round
    /// without noise.
    #[must_use]
    pub fn epsilon(&self) -> Epsilon {
        limited(&self.charged, self.delta)
    }

    /// Epsilon after `rounds` more of such rounds, as the limit sees it: what a plan will cost, before it starts.
    #[must_use]
    pub fn would_be(&self, mechanism: Mechanism, sampling: Sampling, rounds: u64) -> Epsilon {
        limited(&self.with(mechanism, sampling, rounds), self.delta)
    }

    /// How many more of such rounds fit; `None` where no number of rounds is too many.
    #[must_use]
    pub fn rounds_left(&self, mechanism: Mechanism, sampling: Sampling) -> Option<u64> {
        let limit = self.limit.filter(|limit| limit.is_finite())?;
        most_rounds(|rounds| self.would_be(mechanism, sampling, rounds) <= limit)
    }

    /// The delta at which epsilon is kept.
    #[must_use]
    pub const fn delta(&self) -> Delta {
        self.delta
    }

    /// The limit on epsilon, if there is one.
    #[must_use]
    pub const fn limit(&self) -> Option<Epsilon> {
        self.limit
    }

    /// Everything charged so far.
    #[must_use]
    pub const fn charged(&self) -> &Spending {
        &self.charged
    }

    /// Replaces what is charged by more, unless that exceeds the limit.
    fn charge(&mut self, after: Spending) -> Result<(), BudgetExhausted> {
        if let Some(limit) = self.limit.filter(|limit| !self.fits(&after, *limit)) {
            let asked = limited(&after, self.delta);
            return Err(BudgetExhausted { spent: self.epsilon(), asked, limit, delta: self.delta });
        }
        self.charged = after;
        Ok(())
    }

    /// Whether a composition stays within a limit. Most rounds need only the quick bound, which is also an upper one.
    fn fits(&self, after: &Spending, limit: Epsilon) -> bool {
        let seen = after.seen_by(after.planned_against());
        seen.epsilon(Accountant::Rdp, self.delta).is_ok_and(|quick| quick <= limit)
            || limited(after, self.delta) <= limit
    }

    /// Everything charged so far and `rounds` more of such rounds.
    #[must_use]
    pub fn with(&self, mechanism: Mechanism, sampling: Sampling, rounds: u64) -> Spending {
        let mut charged = self.charged.clone();
        charged.push(mechanism, sampling, rounds);
        charged
    }
}

impl Reservation {
    /// Only what keeps a budget reserves it.
    pub(crate) const fn new(
        occasion: Occasion,
        round: u64,
        mechanism: Mechanism,
        epsilon_after: [Epsilon; Adversary::ALL.len()],
    ) -> Self {
        Self { occasion, round, mechanism, epsilon_after }
    }

    /// Gives itself up for the charge that opens its sum.
    pub(crate) fn into_charge(self) -> Charge {
        Charge::new(self.round, self.mechanism)
    }

    /// What may run.
    #[must_use]
    pub const fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// The round that may run; of a query, the last one before it.
    #[must_use]
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The noise that the round was charged for.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Epsilon of everything charged, this round included, against an adversary; infinite when nothing is promised.
    #[must_use]
    pub const fn epsilon_after(&self, adversary: Adversary) -> Epsilon {
        self.epsilon_after[adversary as usize]
    }
}

impl Charge {
    /// Only a settled reservation becomes a charge.
    pub(crate) const fn new(round: u64, mechanism: Mechanism) -> Self {
        Self { round, mechanism }
    }

    /// The round that was paid for.
    #[must_use]
    pub const fn round(&self) -> u64 {
        self.round
    }

    /// The noise that was paid for.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }
}

impl RunCharge {
    /// The noise that was paid for.
    #[must_use]
    pub const fn mechanism(&self) -> &BandedMechanism {
        &self.mechanism
    }

    pub(crate) fn into_mechanism(self) -> BandedMechanism {
        self.mechanism
    }
}

/// The epsilon that a limit is on.
fn limited(spending: &Spending, delta: Delta) -> Epsilon {
    spending.epsilon(spending.planned_against(), delta)
}

/// The most rounds that fit; `None` where no number is too many.
pub(crate) fn most_rounds(fits: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut fitting, mut refused) = (0, 1);
    while fits(refused) {
        if refused == MOST_ROUNDS {
            return None;
        }
        (fitting, refused) = (refused, refused * 2);
    }
    while refused - fitting > 1 {
        let middle = fitting.midpoint(refused);
        if fits(middle) {
            fitting = middle;
        } else {
            refused = middle;
        }
    }
    Some(fitting)
}

/// More rounds than anything runs; beyond this a budget counts as unlimited.
const MOST_ROUNDS: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantities::SamplingRate;

    const NOISE: Mechanism = Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 };

    fn keeper(limit: Option<f64>) -> BudgetKeeper {
        let limit = limit.map(|limit| Epsilon::new(limit).unwrap());
        BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), limit)
    }

    #[test]
    fn a_round_beyond_the_limit_is_refused_and_not_charged() {
        // dp_accounting 0.6.0: noise multiplier 4 costs 2.258145 for five rounds and more than 2.26 for six.
        let mut keeper = keeper(Some(2.26));
        assert_eq!(keeper.rounds_left(NOISE, Sampling::All), Some(5));
        for round in 0..5 {
            let reservation = keeper.reserve(round, NOISE, Sampling::All).unwrap();
            assert_eq!(
                (reservation.round(), reservation.epsilon_after(Adversary::Recipients)),
                (round, keeper.epsilon())
            );
        }
        let refused = keeper.reserve(5, NOISE, Sampling::All).unwrap_err();
        assert!((refused.spent.get() - 2.258_145).abs() < 1e-6, "{refused}");
        assert!(refused.asked > refused.limit);
        assert_eq!(keeper.epsilon(), refused.spent);
    }

    #[test]
    fn a_reservation_stays_charged_when_it_is_never_settled() {
        let mut keeper = keeper(None);
        let first = keeper.reserve(0, NOISE, Sampling::All).unwrap();
        let before = keeper.epsilon();
        drop(first);
        assert_eq!(keeper.epsilon(), before);
        let second = keeper.reserve(0, NOISE, Sampling::All).unwrap();
        assert!(second.epsilon_after(Adversary::Recipients) > before);
        let charge = keeper.settle(second);
        assert_eq!((charge.round(), charge.mechanism()), (0, NOISE));
        assert!(keeper.epsilon() > before);
    }

    #[test]
    fn a_plan_shows_its_cost_before_it_starts() {
        let mut keeper = keeper(None);
        let sampling = Sampling::Poisson { rate: SamplingRate::new(0.05).unwrap() };
        let planned = keeper.would_be(NOISE, sampling, 30);
        for round in 0..30 {
            let _ = keeper.reserve(round, NOISE, sampling).unwrap();
        }
        assert_eq!(keeper.epsilon(), planned);
        assert!(planned < keeper.would_be(NOISE, Sampling::All, 1));
        assert_eq!(keeper.rounds_left(NOISE, sampling), None);
    }

    #[test]
    fn a_round_without_noise_promises_nothing_and_a_limit_refuses_it() {
        let mut unlimited = BudgetKeeper::without_promise();
        let reservation = unlimited.reserve(0, Mechanism::None, Sampling::All).unwrap();
        assert_eq!(reservation.epsilon_after(Adversary::Recipients), Epsilon::INFINITE);
        let mut limited = keeper(Some(8.0));
        assert!(limited.reserve(0, Mechanism::None, Sampling::All).is_err());
        assert_eq!(limited.epsilon(), Epsilon::ZERO);
    }
}
