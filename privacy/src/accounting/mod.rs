//! How much privacy a run costs: events in, (ε, δ) out.
//!
//! A [`Composition`] lists what was released. [`analytic`] is exact for Gaussian noise without sampling; [`pld`] is
//! within a chosen tolerance of the truth and covers all events but one; [`rdp`] is looser, and quick.

pub mod amplification;
pub mod analytic;
pub mod calibration;
pub mod distributed;
pub mod filter;
mod log_space;
pub(crate) mod normal;
pub mod pld;
pub mod rdp;
mod without_replacement;

use std::sync::OnceLock;

use serde::Serialize;

use crate::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, SamplingRate};
use distributed::NoiseShares;
use pld::Pld;
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
    /// Gaussian noise on a sum over a Poisson sample of which at most `cap` records are kept, drawn uniformly.
    TruncatedPoissonGaussian {
        /// Probability of each record to be in the sample before the cap.
        rate: SamplingRate,
        /// Noise over sensitivity.
        noise_multiplier: NoiseMultiplier,
        /// Most records in a sample, at least 1.
        cap: u64,
        /// Records to draw from, a public number.
        population: u64,
    },
    /// Gaussian noise on a sum in which a record counts once, twice or not at all, by chance: a mixture of Gaussians.
    ///
    /// For a client with two devices that are each drawn with probability q, `once` is 2q(1 − q) and `twice` q². Only for
    /// the pld accountant and where a record is added or removed.
    GaussianMixture {
        /// Probability of counting once.
        once: SamplingRate,
        /// Probability of counting twice; the two are at most 1 together.
        twice: SamplingRate,
        /// Noise over the norm of counting once.
        noise_multiplier: NoiseMultiplier,
    },
    /// Gaussian noise on a sum over a sample of fixed size, drawn uniformly without replacement.
    ///
    /// Amplified only where a record is replaced by another, and only for the rdp accountant. The noise multiplier is
    /// relative to the norm of one record here as well; Wang, Balle and Kasiviswanathan (arXiv 1808.00087), and
    /// dp_accounting, divide by the distance of a replacement, so that their σ is half of it.
    FixedSizeGaussian {
        /// Records in a sample; below 1 or above `population` it counts as the nearer one.
        size: u64,
        /// Records to draw from, a public number.
        population: u64,
        /// Noise over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// Laplace noise on a number, of this scale over its sensitivity.
    Laplace {
        /// Scale over sensitivity.
        noise_multiplier: NoiseMultiplier,
    },
    /// Discrete Gaussian noise on one whole number of sensitivity 1.
    DiscreteGaussian {
        /// The σ of the density e^{−x²/2σ²}.
        noise_multiplier: NoiseMultiplier,
    },
    /// The sum of discrete Gaussian shares; only for the rdp accountant.
    NoiseShares(NoiseShares),
    /// A release about which nothing is promised.
    NonPrivate,
}

/// The methods that turn a composition into (ε, δ). All but the last give upper bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accountant {
    /// Privacy loss distributions: the tightest.
    Pld,
    /// Rényi differential privacy; valid even when parameters react to outputs.
    Rdp,
    /// The analytic Gaussian mechanism; exact, and only for Gaussian noise without sampling.
    Analytic,
    /// Privacy loss distributions rounded the other way: never above the truth, so it promises nothing. For brackets.
    PldOptimistic,
}

impl Accountant {
    /// The stable text form: `pld`, `rdp`, `analytic`, `pld-optimistic`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pld => "pld",
            Self::Rdp => "rdp",
            Self::Analytic => "analytic",
            Self::PldOptimistic => "pld-optimistic",
        }
    }
}

impl std::fmt::Display for Accountant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Accountant {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        [Self::Pld, Self::Rdp, Self::Analytic, Self::PldOptimistic]
            .into_iter()
            .find(|accountant| accountant.as_str() == text)
            .ok_or_else(|| QuantityError::Unknown {
                parameter: "accountant",
                value: text.to_owned(),
                known: "pld, rdp, analytic, pld-optimistic",
            })
    }
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
    /// The losses spread over more points of the grid than fit in memory.
    #[error(
        "privacy losses spread too far for a grid of width {width}: use a wider grid or the rdp accountant"
    )]
    TooFine {
        /// Width of the grid, in nats.
        width: f64,
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
    /// The Rényi curves of the groups, each computed when first needed.
    curves: Vec<OnceLock<RdpCurve>>,
}

impl Composition {
    /// Nothing released yet.
    #[must_use]
    pub const fn new(adjacency: Adjacency) -> Self {
        Self { adjacency, groups: Vec::new(), curves: Vec::new() }
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
            None => {
                self.groups.push((event, steps));
                self.curves.push(OnceLock::new());
            }
        }
    }

    /// Takes back one release that was counted and never happened.
    pub(crate) fn take_back(&mut self, event: Event) {
        let event = event.normalised();
        if let Some(at) = self.groups.iter().rposition(|(known, _)| *known == event) {
            self.groups[at].1 -= 1;
            if self.groups[at].1 == 0 {
                self.groups.remove(at);
                self.curves.remove(at);
            }
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
            Accountant::Pld => self.ask_pld(|pld| Ok(pld.epsilon(delta)?.epsilon)),
            Accountant::PldOptimistic => self.ask_pld(|pld| Ok(pld.epsilon_optimistic(delta)?.epsilon)),
            Accountant::Rdp => Ok(self.rdp()?.epsilon(delta)),
            Accountant::Analytic => Ok(analytic::epsilon(self.separation()?, delta)),
        }
    }

    /// The lowest upper bound on ε at δ that any accountant proves; infinite where none proves anything.
    #[must_use]
    pub fn best_epsilon(&self, delta: Delta) -> Epsilon {
        self.best(delta).map_or(Epsilon::INFINITE, |(_, epsilon)| epsilon)
    }

    /// The accountant that proves [`Composition::best_epsilon`], with that epsilon; `None` where none proves anything.
    #[must_use]
    pub fn best(&self, delta: Delta) -> Option<(Accountant, Epsilon)> {
        [Accountant::Analytic, Accountant::Pld, Accountant::Rdp]
            .into_iter()
            .find_map(|accountant| Some((accountant, self.epsilon(accountant, delta).ok()?)))
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
            Accountant::Pld => self.ask_pld(|pld| pld.delta(epsilon)),
            Accountant::PldOptimistic => self.ask_pld(|pld| pld.delta_optimistic(epsilon)),
            Accountant::Rdp => Ok(self.rdp()?.delta(epsilon)),
            Accountant::Analytic => Ok(analytic::delta(self.separation()?, epsilon)),
        }
    }

    /// Asks the privacy loss distribution, on a wider grid if the one of choice would not fit in memory.
    fn ask_pld<T>(&self, ask: impl Fn(&Pld) -> Result<T, AccountingError>) -> Result<T, AccountingError> {
        let mut pld = Pld::new(self)?;
        loop {
            match ask(&pld) {
                Err(AccountingError::TooFine { width }) if width < WIDEST_GRID => {
                    pld = Pld::with_width(self, (8.0 * width).min(WIDEST_GRID))?;
                }
                answer => return answer,
            }
        }
    }

    /// The sum of the Rényi curves of all events.
    pub(crate) fn rdp(&self) -> Result<RdpCurve, AccountingError> {
        let mut total = RdpCurve::nothing();
        for ((event, steps), known) in self.groups.iter().zip(&self.curves) {
            if let Some(curve) = known.get() {
                total.compose(curve, *steps);
            } else {
                let curve = self.curve(*event)?;
                total.compose(known.get_or_init(|| curve), *steps);
            }
        }
        Ok(total)
    }

    /// The divergence of one release at one order of a curve, without the rest of that curve where it takes time.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] when the event has no Rényi curve.
    pub(crate) fn divergence_at(&self, event: Event, order: f64) -> Result<f64, AccountingError> {
        match (event.normalised(), self.adjacency) {
            (
                Event::PoissonGaussian { rate, noise_multiplier },
                Adjacency::AddOrRemove | Adjacency::ZeroOut,
            ) => Ok(rdp::poisson_gaussian_at(order, rate, noise_multiplier)),
            (event, _) => Ok(self.curve(event)?.at(order)),
        }
    }

    /// An upper bound on ε at δ from Rényi divergence at whole orders: closed sums, which share no code with the other
    /// accountants, in some milliseconds for hundreds of kinds of events.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] when an event has no Rényi curve.
    pub fn epsilon_at_whole_orders(&self, delta: Delta) -> Result<Epsilon, AccountingError> {
        let mut best = f64::INFINITY;
        for order in rdp::orders().filter(|order| order.fract() == 0.0) {
            let mut divergence = 0.0;
            for (event, steps) in &self.groups {
                divergence += self.divergence_at(*event, order)? * *steps as f64;
            }
            best = best.min(rdp::epsilon_at(order, divergence, delta.get()));
        }
        Ok(Epsilon::from_computed(best))
    }

    fn curve(&self, event: Event) -> Result<RdpCurve, AccountingError> {
        let unsupported = |what| {
            Err(AccountingError::Unsupported { accountant: "rdp", what, instead: "use the pld accountant" })
        };
        match (event, self.adjacency) {
            (Event::Gaussian { noise_multiplier } | Event::DiscreteGaussian { noise_multiplier }, _) => {
                Ok(RdpCurve::gaussian(self.effective(noise_multiplier)?))
            }
            (Event::Laplace { noise_multiplier }, _) => {
                Ok(RdpCurve::laplace(self.effective(noise_multiplier)?))
            }
            (
                Event::PoissonGaussian { rate, noise_multiplier },
                Adjacency::AddOrRemove | Adjacency::ZeroOut,
            ) => Ok(RdpCurve::poisson_gaussian(rate, noise_multiplier)),
            (Event::PoissonGaussian { .. }, Adjacency::Replace) => {
                unsupported("Poisson sampling under replace")
            }
            (Event::TruncatedPoissonGaussian { .. }, _) => unsupported("samples with a cap"),
            (Event::GaussianMixture { .. }, _) => unsupported("mixtures of Gaussians"),
            (Event::FixedSizeGaussian { size, population, noise_multiplier }, Adjacency::Replace) => {
                let rate = size as f64 / population as f64;
                Ok(without_replacement::curve(rate, self.effective(noise_multiplier)?.get()))
            }
            (Event::FixedSizeGaussian { .. }, _) => Err(AccountingError::Unsupported {
                accountant: "rdp",
                what: "a sample of fixed size to which a record is added",
                instead: "use replace adjacency or Poisson sampling, or account for everyone",
            }),
            (Event::NoiseShares(shares), Adjacency::AddOrRemove | Adjacency::ZeroOut) => Ok(shares.curve()?),
            (Event::NoiseShares(shares), Adjacency::Replace) => Ok(shares.moved_twice_as_far().curve()?),
            (Event::NonPrivate, _) => unsupported("a release without noise"),
        }
    }

    /// μ of the whole composition, where every event is Gaussian noise without sampling.
    fn separation(&self) -> Result<f64, AccountingError> {
        let squares = self.groups.iter().map(|(event, steps)| match event {
            Event::Gaussian { noise_multiplier } => {
                Ok(analytic::separation(self.effective(*noise_multiplier)?, *steps).powi(2))
            }
            Event::NonPrivate => Ok(f64::INFINITY),
            _ => Err(AccountingError::Unsupported {
                accountant: "analytic",
                what: "anything but Gaussian noise without sampling",
                instead: "use the pld accountant",
            }),
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
    /// The event with continuous Gaussian noise of the same size in place of a sum of discrete shares: what to compare a
    /// certified number with, never a promise of its own.
    #[must_use]
    pub fn if_continuous(self) -> Self {
        match self {
            Self::NoiseShares(shares) => match NoiseMultiplier::new(shares.noise_multiplier()) {
                Ok(noise_multiplier) => Self::Gaussian { noise_multiplier },
                Err(_) => Self::NonPrivate,
            },
            event => event,
        }
    }

    /// The same event under its simplest name, so that equal events are grouped.
    fn normalised(self) -> Self {
        match self {
            Self::PoissonGaussian { rate: SamplingRate::ONE, noise_multiplier } => {
                Self::Gaussian { noise_multiplier }
            }
            Self::FixedSizeGaussian { size, population, noise_multiplier } if size >= population => {
                Self::Gaussian { noise_multiplier }
            }
            Self::FixedSizeGaussian { size: 0, population, noise_multiplier } => {
                Self::FixedSizeGaussian { size: 1, population, noise_multiplier }.normalised()
            }
            event => event,
        }
    }
}

/// The widest grid that is tried before a composition counts as too spread out.
const WIDEST_GRID: f64 = 0.1;

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
    fn a_sample_of_fixed_size_is_amplified_by_rdp_under_replace_alone() {
        let sampled = |adjacency, size| {
            let mut composition = Composition::new(adjacency);
            let event = Event::FixedSizeGaussian { size, population: 10_000, noise_multiplier: noise(2.0) };
            composition.push(event, 1000);
            composition
        };
        let replaced = sampled(Adjacency::Replace, 100);
        // dp_accounting 0.6.0, REPLACE_ONE, whose noise multiplier of 1 is 2 over the norm of one record
        let found = replaced.epsilon(Accountant::Rdp, delta()).unwrap().get();
        assert!((found - 3.576_112).abs() < 1e-6, "{found}");
        assert_eq!(replaced.best(delta()).unwrap().0, Accountant::Rdp);
        for accountant in [Accountant::Pld, Accountant::PldOptimistic, Accountant::Analytic] {
            let refused = replaced.epsilon(accountant, delta());
            assert!(matches!(refused, Err(AccountingError::Unsupported { .. })), "{accountant}: {refused:?}");
        }
        for adjacency in [Adjacency::AddOrRemove, Adjacency::ZeroOut] {
            let refused = sampled(adjacency, 100).epsilon(Accountant::Rdp, delta());
            assert!(matches!(refused, Err(AccountingError::Unsupported { .. })), "{adjacency}: {refused:?}");
        }
        let everyone = Event::Gaussian { noise_multiplier: noise(2.0) };
        assert_eq!(sampled(Adjacency::Replace, 10_000).groups(), [(everyone, 1000)]);
        assert_eq!(sampled(Adjacency::Replace, 0).groups(), sampled(Adjacency::Replace, 1).groups());
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
