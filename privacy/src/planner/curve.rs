//! How epsilon, delta and rounds trade for each other, as points to print or plot.

use serde::Serialize;

use super::PlannerError;
use super::cost::{published_delta, published_epsilon};
use crate::accounting::{Accountant, Composition, Event};
use crate::quantities::{Adjacency, Delta, Epsilon};

/// A point of δ against ε.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DeltaAt {
    /// ε.
    pub epsilon: Epsilon,
    /// The bound on δ there; at most 1, and 0 where it is below all numbers.
    pub delta: f64,
}

/// A point of ε against rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EpsilonAt {
    /// Releases so far.
    pub steps: u64,
    /// The bound on ε after them.
    pub epsilon: Epsilon,
}

/// δ at about 20 values of ε, evenly from 0 to beyond the ε of `delta`.
///
/// # Errors
/// [`PlannerError`] when the accountant has no bound, or the composition is too long for it.
pub fn delta_against_epsilon(
    composition: &Composition,
    accountant: Accountant,
    delta: Delta,
) -> Result<Vec<DeltaAt>, PlannerError> {
    let reached = published_epsilon(composition, accountant, delta)?;
    let (digit, exponent) = nice(if reached.is_finite() { reached.get().max(1e-6) / 15.0 } else { 1.0 });
    (0..=POINTS)
        .map(|index| {
            let epsilon = Epsilon::from_computed(decimal(index as f64 * digit, exponent));
            Ok(DeltaAt { epsilon, delta: published_delta(composition, accountant, epsilon)? })
        })
        .collect()
}

/// ε at δ after about 20 evenly spaced numbers of releases, in the order in which the groups are listed; the last point is the whole
/// schedule.
///
/// # Errors
/// [`PlannerError`] when the accountant has no bound, or the schedule is too long for it.
pub fn epsilon_against_steps(
    schedule: &[(Event, u64)],
    adjacency: Adjacency,
    accountant: Accountant,
    delta: Delta,
) -> Result<Vec<EpsilonAt>, PlannerError> {
    let total = schedule.iter().fold(0, |sum: u64, (_, steps)| sum.saturating_add(*steps));
    let mut stops: Vec<u64> = (1..=POINTS)
        .map(|index| (u128::from(total) * u128::from(index)).div_ceil(POINTS.into()) as u64)
        .collect();
    stops.dedup();
    stops
        .into_iter()
        .filter(|steps| *steps > 0)
        .map(|steps| {
            let composition = first(schedule, adjacency, steps);
            Ok(EpsilonAt { steps, epsilon: published_epsilon(&composition, accountant, delta)? })
        })
        .collect()
}

/// The first `steps` releases of a schedule.
fn first(schedule: &[(Event, u64)], adjacency: Adjacency, mut steps: u64) -> Composition {
    let mut composition = Composition::new(adjacency);
    for (event, count) in schedule {
        composition.push(*event, steps.min(*count));
        steps = steps.saturating_sub(*count);
    }
    composition
}

/// The smallest of 1, 2, 5 or 10 times a power of ten that is not below a positive value, as the factor and the exponent.
fn nice(value: f64) -> (f64, i32) {
    let exponent = value.log10().floor() as i32;
    let digits = [1.0, 2.0, 5.0, 10.0];
    let digit = digits.into_iter().find(|digit| decimal(*digit, exponent) >= value);
    (digit.unwrap_or(10.0), exponent)
}

/// factor·10^exponent, rounded once for whole factors: powers of ten are exact, their inverses are not.
fn decimal(factor: f64, exponent: i32) -> f64 {
    if exponent < 0 { factor / 10f64.powi(-exponent) } else { factor * 10f64.powi(exponent) }
}

/// Intervals of a curve.
const POINTS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantities::{NoiseMultiplier, SamplingRate};

    fn poisson(rate: f64, sigma: f64) -> Event {
        Event::PoissonGaussian {
            rate: SamplingRate::new(rate).unwrap(),
            noise_multiplier: NoiseMultiplier::new(sigma).unwrap(),
        }
    }

    fn delta() -> Delta {
        Delta::new(1e-5).unwrap()
    }

    #[test]
    fn delta_falls_with_epsilon_and_passes_the_delta_that_was_asked_for() {
        let mut composition = Composition::new(Adjacency::AddOrRemove);
        composition.push(poisson(0.01, 1.0), 1000);
        let curve = delta_against_epsilon(&composition, Accountant::Pld, delta()).unwrap();
        assert!(
            curve.windows(2).all(|pair| pair[0].epsilon < pair[1].epsilon && pair[0].delta > pair[1].delta)
        );
        assert!(curve[0].delta > 1e-5 && curve[curve.len() - 1].delta < 1e-5);
        // dp_accounting 0.6.0
        let at_one = curve.iter().find(|point| point.epsilon.get() == 1.0).unwrap();
        assert!((at_one.delta / 0.002_612_50 - 1.0).abs() < 2e-6, "{at_one:?}");
    }

    #[test]
    fn epsilon_rises_with_the_rounds_and_ends_at_the_whole_schedule() {
        let schedule = [(poisson(0.01, 1.0), 500), (poisson(0.02, 1.5), 500)];
        let curve =
            epsilon_against_steps(&schedule, Adjacency::AddOrRemove, Accountant::Rdp, delta()).unwrap();
        assert!(
            curve.windows(2).all(|pair| pair[0].steps < pair[1].steps && pair[0].epsilon < pair[1].epsilon)
        );
        let mut whole = Composition::new(Adjacency::AddOrRemove);
        let mut half = whole.clone();
        half.push(schedule[0].0, 500);
        for (event, steps) in schedule {
            whole.push(event, steps);
        }
        let at = |steps| curve.iter().find(|point| point.steps == steps).unwrap().epsilon;
        assert_eq!(at(500), half.epsilon(Accountant::Rdp, delta()).unwrap());
        assert_eq!(at(1000), whole.epsilon(Accountant::Rdp, delta()).unwrap());
    }

    #[test]
    fn a_short_schedule_has_one_point_a_round() {
        let curve = epsilon_against_steps(
            &[(poisson(1.0, 4.0), 3)],
            Adjacency::ZeroOut,
            Accountant::Analytic,
            delta(),
        );
        assert_eq!(curve.unwrap().iter().map(|point| point.steps).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn steps_of_an_axis_are_round_numbers() {
        let step = |value| {
            let (digit, exponent) = nice(value);
            decimal(digit, exponent)
        };
        assert_eq!([0.12, 0.2, 0.21, 6.0, 33.0, 1e-4].map(step), [0.2, 0.2, 0.5, 10.0, 50.0, 1e-4]);
        assert_eq!([1.0, 3.0, 6.0].map(|factor| decimal(factor * 2.0, -1)), [0.2, 0.6, 1.2]);
    }
}
