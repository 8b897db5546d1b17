//! From what a round releases to the next model, on flat parameters, in f64.
//!
//! ```text
//! sum of updates ── mean ───▶ aggregate ── optimizer ──▶ next model
//! each update ──── robust ──▶               ▲  │
//! each group's ─── robust ──▶               │  │
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
use skep_protocol::experiment::{
    Aggregation, Experiment, LOSS_UNIT, Robust, STEPS_UNIT, ServerOptimizer, Weighting,
};
use thiserror::Error;

use robust::Coordinate;
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
    /// Of the sums of groups, each divided by the clients that a group has before anybody drops out: a fixed and public number.
    RobustOfGroups {
        rule: Robust,
        size: f64,
    },
}

/// What a sum of updates is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Denominator {
    /// The expected cohort: fixed and public, because a number that depends on who took part would change the
    /// sensitivity.
    Expected(f64),
    /// How many updates are in the sum; only where nothing is promised.
    Updates,
    /// The last coordinate of the sum, the clients' weights; only where nothing is promised, like the following.
    Weights,
    /// The same, of updates that are divided by their steps; multiplied by the mean of those, which come before it (FedNova).
    WeightedSteps,
    /// The last coordinate of the sum, the clients' weights by their losses (q-FedAvg).
    Losses,
    /// How many updates are in the sum; the changes of control variates follow the parameters (SCAFFOLD).
    Controlled {
        /// How many clients have a control variate.
        population: f64,
    },
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
    /// The strategy needs the sums of groups.
    #[error("the strategy needs the sum of each group, and has something else")]
    NeedsGroups,
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
            (Aggregation::Robust(rule), _) => match experiment.masking() {
                None => Rule::Robust(rule),
                Some(masking) => Rule::RobustOfGroups { rule, size: f64::from(masking.group_size) },
            },
            (Aggregation::Mean { .. }, Some(_)) => {
                Rule::Mean(Denominator::Expected(experiment.expected_cohort()))
            }
            (Aggregation::Mean { weighting: Weighting::Uniform }, None) => Rule::Mean(Denominator::Updates),
            (Aggregation::Mean { weighting: Weighting::Examples { .. } }, None) => {
                Rule::Mean(Denominator::Weights)
            }
            (Aggregation::Mean { weighting: Weighting::PerStep { .. } }, None) => {
                Rule::Mean(Denominator::WeightedSteps)
            }
            (Aggregation::Mean { weighting: Weighting::ByLoss { .. } }, None) => {
                Rule::Mean(Denominator::Losses)
            }
            (Aggregation::Mean { weighting: Weighting::Controlled }, None) => {
                let population = experiment.population.clients as f64;
                Rule::Mean(Denominator::Controlled { population })
            }
        };
        let (optimizer, learning_rate) = (strategy.optimizer, strategy.server_learning_rate);
        ServerStrategy { aggregation, optimizer, learning_rate }
    }

    /// Whether it needs each update, and not only their sum.
    pub fn needs_each(&self) -> bool {
        matches!(self.aggregation, Rule::Robust(_))
    }

    /// Whether it needs the sum of each group, and not only their total.
    pub fn needs_groups(&self) -> bool {
        matches!(self.aggregation, Rule::RobustOfGroups { .. })
    }

    /// The aggregate of a sum, for a model of so many parameters. What clients say beside their updates follows them in the sum;
    /// of control variates, the change of their mean follows the aggregate.
    ///
    /// # Errors
    /// [`StrategyError::NoWeight`]; [`StrategyError::NeedsEach`] where a sum is not enough.
    pub fn of_sum(&self, release: Release, parameters: usize) -> Result<Vec<f64>, StrategyError> {
        match self.aggregation {
            Rule::Mean(denominator) => {
                let updates = release.members();
                denominator.mean(release.decode(), parameters, updates)
            }
            Rule::Robust(_) => Err(StrategyError::NeedsEach),
            Rule::RobustOfGroups { .. } => Err(StrategyError::NeedsGroups),
        }
    }

    /// The aggregate of the sums of groups, one by one.
    ///
    /// # Errors
    /// [`StrategyError::NoWeight`] where there is none; [`StrategyError::NeedsSum`] or [`StrategyError::NeedsEach`] where they are not
    /// what it needs.
    pub fn of_groups(
        &self,
        releases: Vec<Release>,
        parameters: usize,
        state: &ServerState,
    ) -> Result<Vec<f64>, StrategyError> {
        let (rule, size) = match self.aggregation {
            Rule::RobustOfGroups { rule, size } => (rule, size),
            Rule::Robust(_) => return Err(StrategyError::NeedsEach),
            Rule::Mean(_) => return Err(StrategyError::NeedsSum),
        };
        let decoded = |release: Release| {
            let mut sum = release.decode();
            sum.truncate(parameters);
            sum
        };
        let sums: Vec<Vec<f64>> = releases.into_iter().map(decoded).collect();
        let sums: Vec<&[f64]> = sums.iter().map(Vec::as_slice).collect();
        combined(rule, &sums, 1.0 / size, state)
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
        match self.aggregation {
            Rule::Mean(_) => Err(StrategyError::NeedsSum),
            Rule::RobustOfGroups { .. } => Err(StrategyError::NeedsGroups),
            Rule::Robust(rule) => combined(rule, &released.parameters(), released.step(), state),
        }
    }

    /// The next model, from an aggregate.
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
        let mut aggregate = aggregate;
        match self.aggregation {
            Rule::Robust(Robust::CentredClipping { .. }) => state.centre.clone_from(&aggregate),
            Rule::Mean(Denominator::Controlled { .. }) => {
                let changes = aggregate.split_off(model.len());
                state.control.resize(model.len(), 0.0);
                state.control.iter_mut().zip(changes).for_each(|(control, change)| *control += change);
            }
            _ => {}
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

/// What a rule makes of updates in steps of so many units of the parameters, in those units.
fn combined<T: Coordinate>(
    rule: Robust,
    updates: &[&[T]],
    step: f64,
    state: &ServerState,
) -> Result<Vec<f64>, StrategyError> {
    if updates.is_empty() {
        return Err(StrategyError::NoWeight);
    }
    let in_steps = match rule {
        Robust::NormThreshold { max_norm } => robust::mean_of_bounded(updates, max_norm / step),
        Robust::Median => robust::median(updates),
        Robust::TrimmedMean { trim } => robust::trimmed_mean(updates, trim),
        Robust::Krum { byzantine, selected } => {
            robust::multi_krum(updates, byzantine as usize, selected as usize)
        }
        Robust::CentredClipping { radius, iterations } => {
            let mut centre: Vec<f64> = state.centre.iter().map(|value| value / step).collect();
            centre.resize(updates[0].len(), 0.0);
            robust::centred_clipping(updates, centre, radius / step, iterations)
        }
    };
    Ok(in_steps.into_iter().map(|value| value * step).collect())
}

impl Denominator {
    fn mean(self, mut sum: Vec<f64>, parameters: usize, updates: u32) -> Result<Vec<f64>, StrategyError> {
        let beside = |place: usize| sum.get(parameters + place).copied().unwrap_or(0.0);
        let denominator = match self {
            Denominator::Expected(cohort) => cohort,
            Denominator::Updates | Denominator::Controlled { .. } => f64::from(updates),
            Denominator::Weights => beside(0),
            // Divided by the weights w, and multiplied by their mean of steps, Σ w·a / w.
            Denominator::WeightedSteps if beside(0) <= 0.0 => 0.0,
            Denominator::WeightedSteps => beside(1) / (STEPS_UNIT * beside(0) / beside(1)),
            Denominator::Losses => LOSS_UNIT * beside(0),
        };
        if denominator.is_nan() || denominator <= 0.0 {
            return Err(StrategyError::NoWeight);
        }
        let changes = sum.split_off(parameters);
        sum.iter_mut().for_each(|total| *total /= denominator);
        if let Denominator::Controlled { population } = self {
            sum.extend(changes.into_iter().map(|change| change / population));
        }
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
    fn two_clients_by_hand() {
        // FedNova. 5 of 10 examples, (3, -4) in 2 steps; 10 of 10, (4, 4) in 4. A step of the first counts (1.5, -2), of the second
        // (1, 1), on average (0.75 + 1, -1 + 1)/1.5; there are (0.5·2 + 1·4)/1.5 of them; half of 1.75·5/2.25 is added.
        let fednova = step(Denominator::WeightedSteps, &[1.75, 0.0, 5.0 / STEPS_UNIT, 1.5], 2).unwrap();
        assert_eq!(fednova, [(1.0 + 0.5 * 1.75 * 5.0 / 2.25) as f32, 2.0]);
        assert_eq!(step(Denominator::WeightedSteps, &[0.0; 4], 2), Err(StrategyError::NoWeight));
        // q-FedAvg, q = 1. A loss of 2 and (3, 0) with h = 20; a loss of 1 and (1, -1) with h = 5: (6 + 1, -1)/25.
        let fair = step(Denominator::Losses, &[7.0, -1.0, 25.0 / LOSS_UNIT], 2).unwrap();
        assert!((fair[0] - 1.14).abs() < 1e-6 && (fair[1] - 1.98).abs() < 1e-6, "{fair:?}");
        // SCAFFOLD, two of four clients: (1, 0) and (3, 2), whose control variates change by (0.5, 0) and (-0.25, 1).
        let controlled = Denominator::Controlled { population: 4.0 };
        let (aggregation, optimizer) = (Rule::Mean(controlled), ServerOptimizer::Sgd);
        let strategy = ServerStrategy { aggregation, optimizer, learning_rate: 0.5 };
        let mean = controlled.mean(vec![4.0, 2.0, 0.25, 1.0], 2, 2).unwrap();
        let first = strategy.step(&[1.0, 2.0], &ServerState::default(), mean.clone()).unwrap();
        assert_eq!(first.model, [2.0, 2.5]);
        assert_eq!(first.state.beside(&first.model, Weighting::Controlled), [2.0, 2.5, 0.0625, 0.25]);
        let second = strategy.step(&first.model, &first.state, mean).unwrap();
        assert_eq!(second.state.control, [0.125, 0.5]);
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
