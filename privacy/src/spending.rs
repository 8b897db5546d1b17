//! What rounds have given away, as each adversary sees it.

use crate::accounting::{Accountant, Composition, Event};
use crate::adversary::Adversary;
use crate::mechanism::Mechanism;
use crate::quantities::{Adjacency, Delta, Epsilon, Sampling};

/// The events of all rounds so far, once for each adversary: the same rounds, and other noise that hides them.
#[derive(Debug, Clone, PartialEq)]
pub struct Spending {
    seen: [Composition; Adversary::ALL.len()],
    planned_against: Adversary,
}

impl Spending {
    /// Nothing given away yet.
    #[must_use]
    pub const fn new(adjacency: Adjacency) -> Self {
        let seen = [Composition::new(adjacency), Composition::new(adjacency), Composition::new(adjacency)];
        Self { seen, planned_against: Adversary::Recipients }
    }

    /// Adds `rounds` of the same kind.
    pub fn push(&mut self, mechanism: Mechanism, sampling: Sampling, rounds: u64) {
        if rounds == 0 {
            return;
        }
        for adversary in Adversary::ALL {
            let seen = &mut self.seen[adversary as usize];
            seen.push(mechanism.event(adversary, sampling, seen.adjacency()), rounds);
        }
        self.planned_against = self.planned_against.max(mechanism.planned_against());
    }

    /// Takes back one round that was counted and never happened.
    pub(crate) fn take_back(&mut self, mechanism: Mechanism, sampling: Sampling) {
        for adversary in Adversary::ALL {
            let seen = &mut self.seen[adversary as usize];
            seen.take_back(mechanism.event(adversary, sampling, seen.adjacency()));
        }
    }

    /// Adds what the server has released with noise of its own: to itself it hides nothing.
    pub(crate) fn push_central(&mut self, event: Event) {
        for adversary in Adversary::ALL {
            let central = adversary == Adversary::Recipients;
            self.seen[adversary as usize].push(if central { event } else { Event::NonPrivate }, 1);
        }
    }

    /// The neighbouring relation of every answer.
    #[must_use]
    pub const fn adjacency(&self) -> Adjacency {
        self.seen[0].adjacency()
    }

    /// The strongest adversary that the mechanisms are planned against.
    #[must_use]
    pub const fn planned_against(&self) -> Adversary {
        self.planned_against
    }

    /// Everything that an adversary has seen.
    #[must_use]
    pub const fn seen_by(&self, adversary: Adversary) -> &Composition {
        &self.seen[adversary as usize]
    }

    /// ε at δ against an adversary, certified; infinite where nothing is promised.
    #[must_use]
    pub fn epsilon(&self, adversary: Adversary, delta: Delta) -> Epsilon {
        self.seen_by(adversary).best_epsilon(delta)
    }

    /// What ε would be with continuous noise of the same size in place of discrete shares; `None` where there are no shares.
    /// A comparison, not a promise: never show it alone.
    #[must_use]
    pub fn epsilon_if_continuous(&self, adversary: Adversary, delta: Delta) -> Option<Epsilon> {
        let seen = self.seen_by(adversary);
        seen.groups().iter().find(|(event, _)| event.if_continuous() != *event)?;
        let mut continuous = Composition::new(seen.adjacency());
        for (event, times) in seen.groups() {
            continuous.push(event.if_continuous(), *times);
        }
        Some(continuous.best_epsilon(delta))
    }

    /// The accountant that proves [`Spending::epsilon`]; `None` where none does.
    #[must_use]
    pub fn accountant(&self, adversary: Adversary, delta: Delta) -> Option<Accountant> {
        self.seen_by(adversary).best(delta).map(|(accountant, _)| accountant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mechanism::ShareVariance;

    #[test]
    fn only_shares_have_a_number_to_compare_with_and_it_is_lower() {
        let delta = Delta::new(1e-5).unwrap();
        let mut spending = Spending::new(Adjacency::ZeroOut);
        assert_eq!(spending.epsilon_if_continuous(Adversary::Server, delta), None);
        let variance = ShareVariance::splitting(5 * 2048, 16).unwrap();
        let shares = Mechanism::NoiseShares {
            sensitivity: 2048,
            variance,
            honest: 16,
            least_updates: 26,
            dimension: 650,
        };
        spending.push(shares, Sampling::All, 25);
        for adversary in Adversary::ALL {
            let continuous = spending.epsilon_if_continuous(adversary, delta).unwrap();
            assert!(continuous < spending.epsilon(adversary, delta), "{adversary:?}");
            assert_eq!(spending.accountant(adversary, delta), Some(Accountant::Rdp));
        }
        assert_eq!(spending.planned_against(), Adversary::Server);
        let mut central = Spending::new(Adjacency::ZeroOut);
        central.push(Mechanism::RoundedGaussian { sensitivity: 10, sigma: 50 }, Sampling::All, 1);
        assert_eq!(central.epsilon_if_continuous(Adversary::Recipients, delta), None);
        assert_eq!(central.epsilon(Adversary::Server, delta), Epsilon::INFINITE);
    }
}
