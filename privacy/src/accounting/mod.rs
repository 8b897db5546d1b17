//! How much privacy a run costs: events in, (ε, δ) out.
//!
//! A [`Composition`] lists what was released. [`analytic`] is exact for Gaussian noise without sampling; [`rdp`] covers
//! every event with a looser bound.

pub mod amplification;
pub mod analytic;
mod log_space;
mod normal;
pub mod rdp;

use crate::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, SamplingRate};
use rdp::RdpCurve;

/// One release, as an accountant sees it. Noise multipliers are relative to the sensitivity under add-or-remove.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// Gaussian noise on a sum over everyone.
    Gaussian {
        /// Noise over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// Gaussian noise on a sum over a Poisson sample.
    PoissonGaussian {
        /// Probability of each record to be in the sample.
        rate: SamplingRate,
        /// Noise over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// A release about which nothing is promised.
    NonPrivate,
}

/// The methods that turn a composition into (ε, δ). All but the last give upper bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accountant {
    /// Rényi differential privacy; valid even when parameters react to outputs.
    Rdp,
    /// The analytic Gaussian mechanism; exact, and only for Gaussian noise without sampling.
    Analytic,
}

/// A question that an accountant cannot answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountingError {
    /// The accountant has no valid bound for an event.
    #[error("the {accountant} accountant has no bound for {what}: {instead}")]
    Unsupported {
        /// Name of the accountant.
        accountant: &'static str,
        /// What it cannot account for.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A parameter outside its range.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
}

/// Everything that was released about the same records, in any order.
///
/// Valid for events fixed in advance; each may depend on earlier outputs through the data it releases, not through its
/// noise or sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    adjacency: Adjacency,
    /// Distinct events with how often each happened.
    groups: Vec<(Event, u64)>,
}

impl Composition {
    /// Nothing released yet.
    #[must_use]
    pub const fn new(adjacency: Adjacency) -> Self {
        Self { adjacency, groups: Vec::new() }
    }

    /// The neighbouring relation of every answer.
    #[must_use]
    pub const fn adjacency(&self) -> Adjacency {
        self.adjacency
    }

    /// Distinct events with how often each happened, in order of first appearance.
    #[must_use]
    pub fn groups(&self) -> &[(Event, u64)] {
        &self.groups
    }

    /// Adds `steps` releases of the same kind.
    pub fn push(&mut self, event: Event, steps: u64) {
        let event = event.normalised();
        if steps == 0 {
            return;
        }
        match self.groups.iter_mut().rev().find(|(known, _)| *known == event) {
            Some((_, count)) => *count = count.saturating_add(steps),
            None => self.groups.push((event, steps)),
        }
    }

    /// An upper bound on ε at δ.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] when the accountant has no bound for one of the events.
    pub fn epsilon(&self, accountant: Accountant, delta: Delta) -> Result<Epsilon, AccountingError> {
        if self.reveals_everything() {
            return Ok(Epsilon::INFINITE);
        }
        match accountant {
            Accountant::Rdp => Ok(self.rdp()?.epsilon(delta)),
            Accountant::Analytic => Ok(analytic::epsilon(self.separation()?, delta)),
        }
    }

    /// The lowest upper bound on ε at δ that any accountant proves; infinite where none proves anything.
    #[must_use]
    pub fn best_epsilon(&self, delta: Delta) -> Epsilon {
        [Accountant::Analytic, Accountant::Rdp]
            .into_iter()
            .find_map(|accountant| self.epsilon(accountant, delta).ok())
            .unwrap_or(Epsilon::INFINITE)
    }

    /// An upper bound on δ at ε; at most 1.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] when the accountant has no bound for one of the events.
    pub fn delta(&self, accountant: Accountant, epsilon: Epsilon) -> Result<f64, AccountingError> {
        if self.reveals_everything() {
            return Ok(if epsilon.is_finite() { 1.0 } else { 0.0 });
        }
        match accountant {
            Accountant::Rdp => Ok(self.rdp()?.delta(epsilon)),
            Accountant::Analytic => Ok(analytic::delta(self.separation()?, epsilon)),
        }
    }

    /// The sum of the Rényi curves of all events but the non-private ones.
    fn rdp(&self) -> Result<RdpCurve, AccountingError> {
        let mut total = RdpCurve::nothing();
        for (event, steps) in &self.groups {
            match (*event, self.adjacency) {
                (Event::Gaussian { noise_multiplier }, _) => {
                    total.compose(&RdpCurve::gaussian(self.effective(noise_multiplier)?), *steps);
                }
                (
                    Event::PoissonGaussian { rate, noise_multiplier },
                    Adjacency::AddOrRemove | Adjacency::ZeroOut,
                ) => {
                    total.compose(&RdpCurve::poisson_gaussian(rate, noise_multiplier), *steps);
                }
                (Event::PoissonGaussian { .. }, Adjacency::Replace) => {
                    return Err(AccountingError::Unsupported {
                        accountant: "rdp",
                        what: "Poisson sampling under replace",
                        instead: "use add-or-remove or zero-out",
                    });
                }
                (Event::NonPrivate, _) => {}
            }
        }
        Ok(total)
    }

    /// μ of the whole composition, where every event is Gaussian noise without sampling.
    fn separation(&self) -> Result<f64, AccountingError> {
        let squares = self.groups.iter().map(|(event, steps)| match event {
            Event::Gaussian { noise_multiplier } => {
                Ok(analytic::separation(self.effective(*noise_multiplier)?, *steps).powi(2))
            }
            Event::PoissonGaussian { .. } => Err(AccountingError::Unsupported {
                accountant: "analytic",
                what: "sampled releases",
                instead: "use the rdp accountant",
            }),
            Event::NonPrivate => Ok(f64::INFINITY),
        });
        Ok(squares.sum::<Result<f64, _>>()?.sqrt())
    }

    /// Noise over the sensitivity under this adjacency: replacing a record moves a sum twice as far.
    fn effective(&self, noise_multiplier: NoiseMultiplier) -> Result<NoiseMultiplier, QuantityError> {
        match self.adjacency {
            Adjacency::AddOrRemove | Adjacency::ZeroOut => Ok(noise_multiplier),
            Adjacency::Replace => NoiseMultiplier::new(noise_multiplier.get() / 2.0),
        }
    }

    fn reveals_everything(&self) -> bool {
        self.groups.iter().any(|(event, _)| *event == Event::NonPrivate)
    }
}

impl Event {
    /// The same event under its simplest name, so that equal events are grouped.
    fn normalised(self) -> Self {
        match self {
            Self::PoissonGaussian { rate: SamplingRate::ONE, noise_multiplier } => {
                Self::Gaussian { noise_multiplier }
            }
            event => event,
        }
    }
}

/// The smallest point of `low..=high` where `holds` turns true, rounded towards `high`, which must hold.
pub(crate) fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(low) {
        return low;
    }
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(noise_multiplier: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(noise_multiplier).unwrap()
    }

    fn poisson(rate: f64, noise_multiplier: f64) -> Event {
        Event::PoissonGaussian {
            rate: SamplingRate::new(rate).unwrap(),
            noise_multiplier: noise(noise_multiplier),
        }
    }

    fn delta() -> Delta {
        Delta::new(1e-5).unwrap()
    }

    #[test]
    fn equal_events_are_grouped_in_any_order() {
        let mut one = Composition::new(Adjacency::AddOrRemove);
        let mut other = one.clone();
        for _ in 0..10 {
            one.push(poisson(0.01, 1.0), 1);
            one.push(poisson(1.0, 3.0), 1);
        }
        other.push(Event::Gaussian { noise_multiplier: noise(3.0) }, 10);
        other.push(poisson(0.01, 1.0), 10);
        assert_eq!(one.groups().len(), 2);
        let epsilon =
            |composition: &Composition| composition.epsilon(Accountant::Rdp, delta()).unwrap().get();
        assert!((epsilon(&one) / epsilon(&other) - 1.0).abs() < 1e-14);
    }

    #[test]
    fn replacing_a_record_needs_twice_the_noise() {
        let epsilon = |adjacency, sigma| {
            let mut composition = Composition::new(adjacency);
            composition.push(Event::Gaussian { noise_multiplier: noise(sigma) }, 1);
            composition.epsilon(Accountant::Analytic, delta()).unwrap()
        };
        assert_eq!(epsilon(Adjacency::Replace, 2.0), epsilon(Adjacency::AddOrRemove, 1.0));
        // dp_accounting 0.6.0
        assert!((epsilon(Adjacency::Replace, 1.0).get() - 9.997_256).abs() < 5e-7);
    }

    #[test]
    fn an_accountant_refuses_what_it_has_no_proof_for() {
        let mut sampled = Composition::new(Adjacency::Replace);
        sampled.push(poisson(0.01, 1.0), 10);
        assert!(matches!(
            sampled.epsilon(Accountant::Rdp, delta()),
            Err(AccountingError::Unsupported { .. })
        ));
        assert!(matches!(
            sampled.epsilon(Accountant::Analytic, delta()),
            Err(AccountingError::Unsupported { .. })
        ));
    }

    #[test]
    fn one_release_without_noise_promises_nothing() {
        let mut composition = Composition::new(Adjacency::AddOrRemove);
        composition.push(poisson(0.01, 1.0), 1000);
        composition.push(Event::NonPrivate, 1);
        assert_eq!(composition.epsilon(Accountant::Rdp, delta()), Ok(Epsilon::INFINITE));
        assert_eq!(composition.delta(Accountant::Rdp, Epsilon::ZERO), Ok(1.0));
    }

    #[test]
    fn nothing_released_costs_nothing() {
        let composition = Composition::new(Adjacency::Replace);
        assert_eq!(composition.epsilon(Accountant::Rdp, delta()), Ok(Epsilon::ZERO));
        assert_eq!(composition.epsilon(Accountant::Analytic, delta()), Ok(Epsilon::ZERO));
    }
}
