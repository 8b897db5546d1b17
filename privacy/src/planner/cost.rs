//! ε of a composition, and how far it may be from the truth.

use serde::Serialize;

use super::{MOST_STEPS, PlannerError};
use crate::accounting::pld::{Pld, PldEpsilon};
use crate::accounting::{Accountant, AccountingError, Composition, Event};
use crate::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, SamplingRate, Unit};

/// ε at δ, with what a reader must know about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// The bound: never below the truth, except by the accountant [`Accountant::PldOptimistic`], never above it.
    pub epsilon: Epsilon,
    /// What was computed before it was moved past the rounding errors of the computation.
    pub epsilon_estimate: Epsilon,
    /// The truth is no further than this from `epsilon`, in nats: the distance to the proven bound on the other side.
    /// `None` where that bound is not known.
    pub error_bound: Option<f64>,
    /// The δ of both.
    pub delta: Delta,
    /// Who proves it.
    pub accountant: Accountant,
    /// What counts as neighbouring.
    pub adjacency: Adjacency,
    /// Whose presence is hidden.
    pub unit: Unit,
}

/// Asks one accountant for ε at δ. Privacy loss distributions use a grid of at most [`FINE`], finer than where only a limit is
/// checked, because this number is published.
///
/// # Errors
/// [`PlannerError::Accounting`] when the accountant has no bound for one of the events, [`PlannerError::TooManySteps`] and
/// [`PlannerError::Quantity`] when the composition is outside the range in which its computation is precise.
pub fn cost(
    composition: &Composition,
    accountant: Accountant,
    delta: Delta,
    unit: Unit,
) -> Result<Cost, PlannerError> {
    check_range(composition, accountant)?;
    let bracket = Bracket::around(composition, delta);
    let (found, other) = match accountant {
        Accountant::Pld => bracket.map(|bracket| (bracket.above, Some(bracket.below.epsilon)))?,
        Accountant::PldOptimistic => bracket.map(|bracket| (bracket.below, Some(bracket.above.epsilon)))?,
        Accountant::Rdp | Accountant::Analytic => {
            let epsilon = composition.epsilon(accountant, delta)?;
            (PldEpsilon { epsilon, estimate: epsilon }, bracket.ok().map(|bracket| bracket.below.epsilon))
        }
    };
    Ok(Cost {
        epsilon: found.epsilon,
        epsilon_estimate: found.estimate,
        error_bound: other.and_then(|other| distance(found.epsilon, other)),
        delta,
        accountant,
        adjacency: composition.adjacency(),
        unit,
    })
}

/// Refuses what the accountant cannot compute with the precision that it promises. The closed form takes everything.
pub(super) fn check_range(composition: &Composition, accountant: Accountant) -> Result<(), PlannerError> {
    if accountant == Accountant::Analytic {
        return Ok(());
    }
    let mut total: u64 = 0;
    for (event, steps) in composition.groups() {
        total = total.saturating_add(*steps);
        let (rate, noise_multiplier) = match *event {
            Event::PoissonGaussian { rate, noise_multiplier }
            | Event::TruncatedPoissonGaussian { rate, noise_multiplier, .. } => (rate, noise_multiplier),
            Event::GaussianMixture { once, twice, noise_multiplier } => {
                (if once < twice { once } else { twice }, noise_multiplier)
            }
            Event::Gaussian { noise_multiplier }
            | Event::FixedSizeGaussian { noise_multiplier, .. }
            | Event::Laplace { noise_multiplier }
            | Event::DiscreteGaussian { noise_multiplier } => (SamplingRate::ONE, noise_multiplier),
            Event::NoiseShares(shares) => {
                (SamplingRate::ONE, NoiseMultiplier::new(shares.noise_multiplier())?)
            }
            Event::NonPrivate => continue,
        };
        check_event(rate, noise_multiplier)?;
    }
    if total > MOST_STEPS && accountant != Accountant::Rdp {
        return Err(PlannerError::TooManySteps { steps: total, accountant: accountant.as_str() });
    }
    Ok(())
}

fn check_event(rate: SamplingRate, noise_multiplier: NoiseMultiplier) -> Result<(), QuantityError> {
    if !(LEAST_NOISE..=MOST_NOISE).contains(&noise_multiplier.get()) {
        return Err(QuantityError::OutOfRange {
            parameter: "noise multiplier",
            value: noise_multiplier.get(),
            range: "from 0.1 to 1000000 to be accounted numerically",
        });
    }
    if rate.get() < LEAST_RATE {
        return Err(QuantityError::OutOfRange {
            parameter: "sampling rate",
            value: rate.get(),
            range: "from 1e-9 to 1 to be accounted numerically",
        });
    }
    Ok(())
}

/// ε at δ by one accountant, as [`cost`] publishes it.
pub(super) fn published_epsilon(
    composition: &Composition,
    accountant: Accountant,
    delta: Delta,
) -> Result<Epsilon, PlannerError> {
    check_range(composition, accountant)?;
    Ok(match accountant {
        Accountant::Pld => on_fine_grid(composition, |pld| pld.epsilon(delta))?.epsilon,
        Accountant::PldOptimistic => on_fine_grid(composition, |pld| pld.epsilon_optimistic(delta))?.epsilon,
        Accountant::Rdp | Accountant::Analytic => composition.epsilon(accountant, delta)?,
    })
}

/// δ at ε by one accountant, on the grid of [`cost`].
pub(super) fn published_delta(
    composition: &Composition,
    accountant: Accountant,
    epsilon: Epsilon,
) -> Result<f64, PlannerError> {
    check_range(composition, accountant)?;
    Ok(match accountant {
        Accountant::Pld => on_fine_grid(composition, |pld| pld.delta(epsilon))?,
        Accountant::PldOptimistic => on_fine_grid(composition, |pld| pld.delta_optimistic(epsilon))?,
        Accountant::Rdp | Accountant::Analytic => composition.delta(accountant, epsilon)?,
    })
}

/// The truth from both sides, by privacy loss distributions.
struct Bracket {
    above: PldEpsilon,
    below: PldEpsilon,
}

impl Bracket {
    fn around(composition: &Composition, delta: Delta) -> Result<Self, PlannerError> {
        check_range(composition, Accountant::Pld)?;
        let both = |pld: &Pld| Ok(Self { above: pld.epsilon(delta)?, below: pld.epsilon_optimistic(delta)? });
        Ok(on_fine_grid(composition, both)?)
    }
}

/// Asks privacy loss distributions on a grid of at most [`FINE`], or the finest that fits.
fn on_fine_grid<T>(
    composition: &Composition,
    ask: impl Fn(&Pld) -> Result<T, AccountingError>,
) -> Result<T, AccountingError> {
    let mut width = Pld::new(composition)?.width().clamp(FINEST, FINE);
    loop {
        match Pld::with_width(composition, width).and_then(|pld| ask(&pld)) {
            Err(AccountingError::TooFine { .. }) if width < COARSEST => width = (8.0 * width).min(COARSEST),
            answer => return answer,
        }
    }
}

fn distance(one: Epsilon, other: Epsilon) -> Option<f64> {
    Some((one.get() - other.get()).abs()).filter(|distance| distance.is_finite())
}

/// The widest grid for a published number, in nats, where it fits in memory.
pub const FINE: f64 = 1e-4;
/// The finest grid that there is, in nats.
const FINEST: f64 = 1e-12;
/// The widest grid that is tried, in nats.
const COARSEST: f64 = 0.1;
/// With less noise, epsilon is in the tens for a single release, and Rényi integrals take seconds.
pub(super) const LEAST_NOISE: f64 = 0.1;
const MOST_NOISE: f64 = 1e6;
const LEAST_RATE: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    fn composition(adjacency: Adjacency, rounds: &[(f64, f64, u64)]) -> Composition {
        let mut composition = Composition::new(adjacency);
        for (rate, sigma, steps) in rounds {
            let rate = SamplingRate::new(*rate).unwrap();
            let noise_multiplier = NoiseMultiplier::new(*sigma).unwrap();
            composition.push(Event::PoissonGaussian { rate, noise_multiplier }, *steps);
        }
        composition
    }

    fn cost(rounds: &[(f64, f64, u64)], accountant: Accountant, delta: f64) -> Cost {
        let composition = composition(Adjacency::AddOrRemove, rounds);
        super::cost(&composition, accountant, Delta::new(delta).unwrap(), Unit::Client).unwrap()
    }

    #[test]
    fn the_published_numbers_agree_with_the_reference() {
        // dp_accounting 0.6.0, grid 1e-4
        for (rounds, delta, expected) in [
            (&[(0.01, 1.0, 1000)][..], 1e-5, 1.828_244),
            (&[(0.01, 0.8, 1000)], 1e-5, 3.141_018),
            (&[(0.1, 1.1, 100)], 1e-5, 5.912_652),
            (&[(0.01, 1.0, 500), (0.02, 1.5, 500)], 1e-5, 1.897_483),
        ] {
            let found = cost(rounds, Accountant::Pld, delta);
            let relative = found.epsilon_estimate.get() / expected - 1.0;
            assert!(relative.abs() < 2e-6, "{rounds:?}: {found:?} vs {expected}");
            assert!(found.epsilon >= found.epsilon_estimate);
        }
        let rdp = cost(&[(0.01, 1.0, 1000)], Accountant::Rdp, 1e-5);
        assert!((rdp.epsilon.get() / 2.101_367 - 1.0).abs() < 1e-6, "{rdp:?}");
    }

    #[test]
    fn the_error_bound_reaches_to_a_bound_on_the_other_side() {
        let rounds = [(0.02, 1.2, 300)];
        let [pld, below, rdp] = [Accountant::Pld, Accountant::PldOptimistic, Accountant::Rdp]
            .map(|accountant| cost(&rounds, accountant, 1e-6));
        assert!(below.epsilon < pld.epsilon && pld.epsilon < rdp.epsilon);
        assert_eq!(pld.error_bound, below.error_bound);
        assert!(pld.error_bound.unwrap() < 0.05, "{pld:?}");
        assert!(rdp.error_bound.unwrap() >= rdp.epsilon.get() - pld.epsilon.get());
    }

    #[test]
    fn the_exact_answer_lies_between_both_sides() {
        // Balle and Wang's formula is exact here.
        let exact = cost(&[(1.0, 4.0, 5)], Accountant::Analytic, 1e-5);
        let above = cost(&[(1.0, 4.0, 5)], Accountant::Pld, 1e-5);
        let below = cost(&[(1.0, 4.0, 5)], Accountant::PldOptimistic, 1e-5);
        assert!(
            below.epsilon <= exact.epsilon && exact.epsilon <= above.epsilon,
            "{below:?} {exact:?} {above:?}"
        );
        assert!(exact.error_bound.unwrap() < 1e-3, "{exact:?}");
    }

    #[test]
    fn a_question_that_an_accountant_cannot_answer_is_refused() {
        let ask = |composition: &Composition, accountant| {
            super::cost(composition, accountant, Delta::new(1e-5).unwrap(), Unit::Client)
        };
        let long = composition(Adjacency::AddOrRemove, &[(0.01, 1.0, MOST_STEPS), (0.02, 1.0, 1)]);
        let refused = ask(&long, Accountant::Pld).unwrap_err();
        assert!(matches!(refused, PlannerError::TooManySteps { .. }), "{refused}");
        let loose = ask(&long, Accountant::Rdp).unwrap();
        assert!(loose.epsilon.is_finite() && loose.error_bound.is_none());
        let sampled = composition(Adjacency::AddOrRemove, &[(0.01, 1.0, 10)]);
        assert!(ask(&sampled, Accountant::Analytic).is_err());
        let replaced = composition(Adjacency::Replace, &[(0.01, 1.0, 10)]);
        assert!(ask(&replaced, Accountant::Rdp).is_err());
        assert!(ask(&replaced, Accountant::Pld).is_ok());
    }

    #[test]
    fn numbers_beyond_the_range_are_refused_and_those_at_its_ends_are_not() {
        let delta = Delta::new(1e-5).unwrap();
        let ask = |rate, sigma, steps, accountant| {
            super::cost(
                &composition(Adjacency::AddOrRemove, &[(rate, sigma, steps)]),
                accountant,
                delta,
                Unit::Client,
            )
        };
        for accountant in [Accountant::Pld, Accountant::Rdp] {
            for (rate, sigma, steps) in [
                (1.0, 0.1, 1),
                (1e-9, 0.1, 1),
                (1.0, 1e6, 1),
                (1e-9, 1e6, MOST_STEPS),
                (1e-3, 1.0, MOST_STEPS),
            ] {
                let found = ask(rate, sigma, steps, accountant).unwrap();
                assert!(found.epsilon.is_finite(), "{rate} {sigma} {steps}: {found:?}");
            }
            assert!(
                ask(1.0, 0.099, 1, accountant).unwrap_err().to_string().contains("noise multiplier is 0.099")
            );
            assert!(ask(1.0, 2e6, 1, accountant).is_err());
            assert!(ask(1e-10, 1.0, 1, accountant).unwrap_err().to_string().contains("sampling rate is"));
        }
        assert!(ask(1.0, 1e-3, 1, Accountant::Analytic).is_ok());
    }
}
