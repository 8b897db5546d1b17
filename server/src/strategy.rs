//! Federated averaging (McMahan et al., arXiv 1602.05629) on flat parameters, in f64.

use skep_privacy::sum::Release;
use skep_protocol::experiment::{Experiment, Strategy, Weighting};
use thiserror::Error;

/// Adds the mean update to the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FedAvg {
    server_learning_rate: f64,
    denominator: Denominator,
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

impl FedAvg {
    /// The strategy of an experiment.
    pub fn of(experiment: &Experiment) -> Self {
        let Strategy::FedAvg { server_learning_rate, weighting } = experiment.strategy;
        let denominator = match (experiment.privacy.terms(), weighting) {
            (Some(_), _) => Denominator::Expected(experiment.expected_cohort()),
            (None, Weighting::Uniform) => Denominator::Updates,
            (None, Weighting::Examples { .. }) => Denominator::Weights,
        };
        FedAvg { server_learning_rate, denominator }
    }

    /// The next model. A weight coordinate follows the parameters in a weighted release.
    ///
    /// # Errors
    /// [`StrategyError`].
    pub fn apply(&self, model: &[f32], release: &Release) -> Result<Vec<f32>, StrategyError> {
        self.step(model, &release.decode(), release.members())
    }

    fn step(&self, model: &[f32], sum: &[f64], updates: u32) -> Result<Vec<f32>, StrategyError> {
        let denominator = match self.denominator {
            Denominator::Expected(cohort) => cohort,
            Denominator::Updates => f64::from(updates),
            Denominator::Weights => sum.get(model.len()).copied().unwrap_or(0.0),
        };
        if denominator <= 0.0 {
            return Err(StrategyError::NoWeight);
        }
        let next = |(&parameter, total): (&f32, &f64)| {
            (f64::from(parameter) + self.server_learning_rate * (total / denominator)) as f32
        };
        let next: Vec<f32> = model.iter().zip(sum).map(next).collect();
        match next.iter().position(|parameter| !parameter.is_finite()) {
            Some(index) => Err(StrategyError::NonFinite { index }),
            None => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(denominator: Denominator, sum: &[f64], updates: u32) -> Result<Vec<f32>, StrategyError> {
        FedAvg { server_learning_rate: 0.5, denominator }.step(&[1.0, 2.0], sum, updates)
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
