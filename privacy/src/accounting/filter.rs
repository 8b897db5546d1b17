//! A privacy filter: a budget for rounds whose parameters react to outputs (Feldman and Zrnic 2021, arXiv 2008.11193).
//!
//! Privacy loss distributions and the best order of a Rényi curve hold for events fixed in advance. When the next noise
//! or sampling rate depends on what was released, a limit at one order that was fixed beforehand still holds: rounds may
//! go on as long as the divergences at that order add up to no more than the limit.

use super::rdp::{RdpCurve, budget_at, epsilon_at};
use super::{AccountingError, Composition, Event};
use crate::quantities::{Adjacency, Delta, Epsilon};

/// Limits the divergence at the order that suits (ε, δ) best for rounds like an expected one.
#[derive(Debug, Clone, PartialEq)]
pub struct RdpFilter {
    order: f64,
    limit: f64,
    spent: f64,
}

/// The round was refused and is not counted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the filter of order {order} has spent {spent:.6} of {limit:.6}; this round would add {asked:.6}")]
pub struct FilterExhausted {
    /// The order.
    pub order: f64,
    /// Divergence of the rounds that ran.
    pub spent: f64,
    /// Divergence of the refused round.
    pub asked: f64,
    /// The most that all rounds together may have.
    pub limit: f64,
}

impl RdpFilter {
    /// A filter for (ε, δ), at the order that allows the most rounds like `expected`, which is only a guess.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] when no order proves (ε, δ) for even less than nothing.
    pub fn new(epsilon: Epsilon, delta: Delta, expected: &RdpCurve) -> Result<Self, AccountingError> {
        let rounds = |(order, each): (f64, f64)| (order, budget_at(order, epsilon.get(), delta.get()), each);
        let best = expected
            .points()
            .map(rounds)
            .filter(|(_, limit, _)| *limit > 0.0)
            .max_by(|a, b| (a.1 / a.2).total_cmp(&(b.1 / b.2)));
        let (order, limit, _) = best.ok_or(AccountingError::Unsupported {
            accountant: "rdp",
            what: "so small an epsilon at so small a delta",
            instead: "allow a larger epsilon",
        })?;
        Ok(Self { order, limit, spent: 0.0 })
    }

    /// Counts one more round if it fits.
    ///
    /// # Errors
    /// [`FilterExhausted`] when it does not.
    pub fn admit(&mut self, round: &RdpCurve) -> Result<(), FilterExhausted> {
        let asked = round.at(self.order);
        let after = self.spent + asked;
        if after > self.limit || after.is_nan() {
            return Err(FilterExhausted { order: self.order, spent: self.spent, asked, limit: self.limit });
        }
        self.spent = after;
        Ok(())
    }
}

/// The order that a filter for rounds like those planned should have: the one that allows most of them within ε, or,
/// without a limit, the one that proves the least ε for them. `None` where no order proves anything.
#[must_use]
pub fn order(planned: &Composition, limit: Epsilon, delta: Delta) -> Option<f64> {
    let curve = planned.rdp().ok()?;
    if limit.is_finite() {
        return RdpFilter::new(limit, delta, &curve).ok().map(|filter| filter.order);
    }
    let best = curve
        .points()
        .min_by(|a, b| epsilon_at(a.0, a.1, delta.get()).total_cmp(&epsilon_at(b.0, b.1, delta.get())))?;
    Some(best.0)
}

/// What a filter of this order has spent on a composition, as ε at δ; infinite where an event has no Rényi curve.
#[must_use]
pub fn epsilon(composition: &Composition, order: f64, delta: Delta) -> Epsilon {
    composition.rdp().map_or(Epsilon::INFINITE, |curve| proves(order, curve.at(order), delta))
}

/// The ε that a divergence at an order proves at δ; infinite where it proves none.
#[must_use]
pub fn proves(order: f64, divergence: f64, delta: Delta) -> Epsilon {
    let epsilon = epsilon_at(order, divergence, delta.get());
    if epsilon.is_nan() { Epsilon::INFINITE } else { Epsilon::from_computed(epsilon) }
}

/// The divergence of one release at an order; infinite where the event has no Rényi curve.
#[must_use]
pub fn divergence(event: Event, adjacency: Adjacency, order: f64) -> f64 {
    Composition::new(adjacency).divergence_at(event, order).unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantities::NoiseMultiplier;

    #[test]
    fn a_filter_admits_as_many_equal_rounds_as_the_curve_and_refuses_the_next() {
        let (epsilon, delta) = (Epsilon::new(3.0).unwrap(), Delta::new(1e-6).unwrap());
        let round = RdpCurve::gaussian(NoiseMultiplier::new(20.0).unwrap());
        let mut filter = RdpFilter::new(epsilon, delta, &round).unwrap();
        let mut admitted = 0;
        while filter.admit(&round).is_ok() {
            admitted += 1;
        }
        let cost = |rounds| {
            let mut total = RdpCurve::nothing();
            total.compose(&round, rounds);
            total.epsilon(delta)
        };
        assert!(admitted > 10 && cost(admitted) <= epsilon && cost(admitted + 1) > epsilon, "{admitted}");
        let much_noise = RdpCurve::gaussian(NoiseMultiplier::new(1e4).unwrap());
        assert!(filter.admit(&much_noise).is_ok(), "a round that is small enough still fits");
    }
}
