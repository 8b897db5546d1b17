//! From what a round releases to the next model, on flat parameters, in f64.
//!
//! ```text
//! sum of updates ── mean ───▶ aggregate ── optimizer ──▶ next model
//! each update ──── robust ──▶               ▲  │
//!                                           │  ▼
//!                                          state
//! ```
//!
//! Everything here comes after a release, so it costs no privacy.

mod optimizer;
pub mod robust;
mod state;

use skep_privacy::individual::ReleasedUpdates;
use skep_privacy::sum::Release;
use skep_protocol::experiment::{Aggregation, Experiment, Robust, ServerOptimizer, Weighting};
use thiserror::Error;

pub use state::ServerState;

/// How an experiment's sums become models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerStrategy {
    aggregation: Rule,
    optimizer: ServerOptimizer,
    learning_rate: f64,
}

/// How updates become one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Mean(Denominator),
    Robust(Robust),
}

/// What a sum of updates is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Denominator {
    /// The expected cohort: fixed and public, because a number that depends on who took part would change the
    /// sensitivity.
    Expected(f64),
    /// How many updates are in the sum; only where nothing is promised.
    Updates,
    /// The last coordinate of the sum, the clients' weights; only where nothing is promised.
    Weights,
}

/// What follows from a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The next model.
    pub model: Vec<f32>,
    /// What the optimizer remembers of it.
    pub state: ServerState,
}

/// Why there is no next model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StrategyError {
    /// Nothing to divide by.
    #[error("the updates have no weight: no client had an example")]
    NoWeight,
    /// The strategy needs each update.
    #[error("the strategy needs each update, and has their sum")]
    NeedsEach,
    /// The strategy needs the sum of updates.
    #[error("the strategy needs the sum of the updates, and has each")]
    NeedsSum,
    /// A parameter of the next model does not fit f32.
    #[error("parameter {index} of the next model is not finite; is the server learning rate too large?")]
    NonFinite {
        /// The first such parameter.
        index: usize,
    },
}

impl ServerStrategy {
    /// The strategy of an experiment.
    pub fn of(experiment: &Experiment) -> Self {
        let strategy = experiment.strategy;
        let aggregation = match (strategy.aggregation, experiment.privacy.terms()) {
            (Aggregation::Robust(rule), _) => Rule::Robust(rule),
            (Aggregation::Mean { .. }, Some(_)) => {
                Rule::Mean(Denominator::Expected(experiment.expected_cohort()))
            }
            (Aggregation::Mean { weighting: Weighting::Uniform }, None) => Rule::Mean(Denominator::Updates),
            (Aggregation::Mean { weighting: Weighting::Examples { .. } }, None) => {
                Rule::Mean(Denominator::Weights)
            }
        };
        let (optimizer, learning_rate) = (strategy.optimizer, strategy.server_learning_rate);
        ServerStrategy { aggregation, optimizer, learning_rate }
    }

    /// Whether it needs each update, and not only their sum.
    pub fn needs_each(&self) -> bool {
        matches!(self.aggregation, Rule::Robust(_))
    }

    /// The aggregate of a sum, for a model of so many parameters. A weight coordinate follows them in a weighted release.
    ///
    /// # Errors
    /// [`StrategyError::NoWeight`]; [`StrategyError::NeedsEach`] where a sum is not enough.
    pub fn of_sum(&self, release: &Release, parameters: usize) -> Result<Vec<f64>, StrategyError> {
        match self.aggregation {
            Rule::Mean(denominator) => denominator.mean(release.decode(), parameters, release.members()),
            Rule::Robust(_) => Err(StrategyError::NeedsEach),
        }
    }

    /// The aggregate of updates one by one.
    ///
    /// # Errors
    /// [`StrategyError::NoWeight`] where there is none; [`StrategyError::NeedsSum`] where they are to be added up.
    pub fn of_each(
        &self,
        released: &ReleasedUpdates,
        state: &ServerState,
    ) -> Result<Vec<f64>, StrategyError> {
        let (updates, step) = (released.parameters(), released.step());
        if updates.is_empty() {
            return Err(StrategyError::NoWeight);
        }
        let in_steps = match self.aggregation {
            Rule::Mean(_) => return Err(StrategyError::NeedsSum),
            Rule::Robust(Robust::NormThreshold { max_norm }) => {
                robust::mean_of_bounded(&updates, max_norm / step)
            }
            Rule::Robust(Robust::Median) => robust::median(&updates),
            Rule::Robust(Robust::TrimmedMean { trim }) => robust::trimmed_mean(&updates, trim),
            Rule::Robust(Robust::Krum { byzantine, selected }) => {
                robust::multi_krum(&updates, byzantine as usize, selected as usize)
            }
            Rule::Robust(Robust::CentredClipping { radius, iterations }) => {
                let mut centre: Vec<f64> = state.centre.iter().map(|value| value / step).collect();
                centre.resize(updates[0].len(), 0.0);
                robust::centred_clipping(&updates, centre, radius / step, iterations)
            }
        };
        Ok(in_steps.into_iter().map(|value| value * step).collect())
    }

    /// The next model, from an aggregate of as many parameters.
    ///
    /// # Errors
    /// [`StrategyError::NonFinite`].
    pub fn step(
        &self,
        model: &[f32],
        state: &ServerState,
        aggregate: Vec<f64>,
    ) -> Result<Next, StrategyError> {
        let mut state = state.clone();
        if let Rule::Robust(Robust::CentredClipping { .. }) = self.aggregation {
            state.centre.clone_from(&aggregate);
        }
        let direction = optimizer::direction(self.optimizer, &mut state, aggregate);
        let next =
            |(&parameter, step): (&f32, &f64)| (f64::from(parameter) + self.learning_rate * step) as f32;
        let model: Vec<f32> = model.iter().zip(&direction).map(next).collect();
        match model.iter().position(|parameter| !parameter.is_finite()) {
            Some(index) => Err(StrategyError::NonFinite { index }),
            None => Ok(Next { model, state }),
        }
    }
}

impl Denominator {
    fn mean(self, mut sum: Vec<f64>, parameters: usize, updates: u32) -> Result<Vec<f64>, StrategyError> {
        let denominator = match self {
            Denominator::Expected(cohort) => cohort,
            Denominator::Updates => f64::from(updates),
            Denominator::Weights => sum.get(parameters).copied().unwrap_or(0.0),
        };
        if denominator <= 0.0 {
            return Err(StrategyError::NoWeight);
        }
        sum.truncate(parameters);
        sum.iter_mut().for_each(|total| *total /= denominator);
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(denominator: Denominator, sum: &[f64], updates: u32) -> Result<Vec<f32>, StrategyError> {
        let aggregation = Rule::Mean(denominator);
        let strategy = ServerStrategy { aggregation, optimizer: ServerOptimizer::Sgd, learning_rate: 0.5 };
        let mean = denominator.mean(sum.to_vec(), 2, updates)?;
        strategy.step(&[1.0, 2.0], &ServerState::default(), mean).map(|next| next.model)
    }

    #[test]
    fn a_mean_is_over_the_denominator_that_its_mode_allows() {
        assert_eq!(step(Denominator::Updates, &[4.0, -4.0], 4), Ok(vec![1.5, 1.5]));
        // Half of a cohort of eight dropped out; the public denominator stays.
        assert_eq!(step(Denominator::Expected(8.0), &[4.0, -4.0], 4), Ok(vec![1.25, 1.75]));
        assert_eq!(step(Denominator::Weights, &[4.0, -4.0, 2.0], 4), Ok(vec![2.0, 1.0]));
    }

    #[test]
    fn a_sum_without_weight_makes_no_model() {
        assert_eq!(step(Denominator::Weights, &[4.0, -4.0, 0.0], 1), Err(StrategyError::NoWeight));
        assert_eq!(step(Denominator::Updates, &[0.0, 0.0], 0), Err(StrategyError::NoWeight));
    }

    #[test]
    fn a_model_beyond_f32_is_refused() {
        let huge = step(Denominator::Updates, &[0.0, 1e300], 1);
        assert_eq!(huge, Err(StrategyError::NonFinite { index: 1 }));
    }
}
