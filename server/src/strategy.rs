//! From a released sum to the next model, on flat parameters, in f64.
//!
//! ```text
//! sum of updates ── mean ──▶ aggregate ── optimizer ──▶ next model
//!                                            ▲  │
//!                                            │  ▼
//!                                           state
//! ```
//!
//! Everything here comes after a release, so it costs no privacy.

mod optimizer;
mod state;

use skep_privacy::sum::Release;
use skep_protocol::experiment::{Aggregation, Experiment, ServerOptimizer, Weighting};
use thiserror::Error;

pub use state::ServerState;

/// How an experiment's sums become models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerStrategy {
    denominator: Denominator,
    optimizer: ServerOptimizer,
    learning_rate: f64,
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
        let Aggregation::Mean { weighting } = strategy.aggregation;
        let denominator = match (experiment.privacy.terms(), weighting) {
            (Some(_), _) => Denominator::Expected(experiment.expected_cohort()),
            (None, Weighting::Uniform) => Denominator::Updates,
            (None, Weighting::Examples { .. }) => Denominator::Weights,
        };
        let (optimizer, learning_rate) = (strategy.optimizer, strategy.server_learning_rate);
        ServerStrategy { denominator, optimizer, learning_rate }
    }

    /// The next model. A weight coordinate follows the parameters in a weighted release.
    ///
    /// # Errors
    /// [`StrategyError`].
    pub fn apply(
        &self,
        model: &[f32],
        state: &ServerState,
        release: &Release,
    ) -> Result<Next, StrategyError> {
        let mean = self.mean(release.decode(), model.len(), release.members())?;
        self.step(model, state, mean)
    }

    fn mean(&self, mut sum: Vec<f64>, parameters: usize, updates: u32) -> Result<Vec<f64>, StrategyError> {
        let denominator = match self.denominator {
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

    fn step(&self, model: &[f32], state: &ServerState, aggregate: Vec<f64>) -> Result<Next, StrategyError> {
        let mut state = state.clone();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn step(denominator: Denominator, sum: &[f64], updates: u32) -> Result<Vec<f32>, StrategyError> {
        let strategy = ServerStrategy { denominator, optimizer: ServerOptimizer::Sgd, learning_rate: 0.5 };
        let mean = strategy.mean(sum.to_vec(), 2, updates)?;
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
