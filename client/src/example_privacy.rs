//! Privacy of a client's single examples against everybody else: what DP-SGD (Abadi et al., 1607.00133) draws and adds, and
//! what it costs.
//!
//! A step draws each example by a secret coin, sums the gradients of those drawn, each scaled down to the clip norm, and adds
//! Gaussian noise. Everything that leaves the client is made of such steps, so that a recipient of all of them cannot tell
//! whether an example counted or was left out of every sum. How many examples there are is public.

use std::sync::Mutex;

use skep_learning::ExamplePrivacy;
use skep_privacy::accounting::amplification::Amplification;
use skep_privacy::accounting::{Accountant, AccountingError, Composition};
use skep_privacy::prg::{Coin, Key, Prg, PrgId, Purpose};
use skep_privacy::quantities::{
    Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, Sampling, SamplingRate,
};
use skep_privacy::sampler::rounded_gaussian;
use skep_protocol::Round;
use skep_protocol::experiment::{self, Batch, Task};
use thiserror::Error;

/// DP-SGD on a client with a certain number of examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrivateSteps {
    terms: experiment::ExamplePrivacy,
    examples: usize,
    rate: SamplingRate,
    /// Steps of a round.
    steps: u64,
    /// Examples that a step is expected to draw.
    batch: f64,
}

/// Why a client's examples cannot be hidden as the task says.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ExamplePrivacyError {
    /// More than the task allows.
    #[error(
        "over {rounds} rounds an example of a client with {examples} would cost epsilon {epsilon:.4}, above the limit of {limit}: \
         raise privacy.noise_multiplier, or train for fewer rounds, fewer local_epochs or in smaller batches"
    )]
    Budget {
        /// Examples of the client.
        examples: usize,
        /// Rounds of the task.
        rounds: u64,
        /// What they would cost.
        epsilon: f64,
        /// What is allowed.
        limit: f64,
    },
    /// A delta at which giving one example away would be no breach.
    #[error("privacy.delta is {delta}, but must be below one over the client's examples, 1/{examples}")]
    Delta {
        /// The task's delta.
        delta: f64,
        /// Examples of the client.
        examples: usize,
    },
    /// A round beyond those that were accounted for.
    #[error("the task has {rounds} rounds, and {round} is beyond them")]
    TooManyRounds {
        /// Rounds of the task.
        rounds: u64,
        /// The round asked for.
        round: Round,
    },
    /// Noise that no sampler draws.
    #[error("privacy.noise_multiplier is too large for the sampler")]
    Noise,
    /// Terms that make no sense.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// The accountant gave up.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
}

impl PrivateSteps {
    /// The steps of the task on a client with so many examples, at least 1; `None` if the task does not hide single examples.
    ///
    /// # Errors
    /// [`ExamplePrivacyError::Delta`], [`ExamplePrivacyError::Noise`] or [`ExamplePrivacyError::Quantity`].
    pub fn new(task: &Task, examples: usize) -> Result<Option<Self>, ExamplePrivacyError> {
        let Some(terms) = task.training.example_privacy else { return Ok(None) };
        let batch = match task.training.batch {
            Batch::Full => examples,
            Batch::Size(size) | Batch::InOrder(size) => (size as usize).min(examples),
        };
        if terms.delta >= 1.0 / examples as f64 {
            return Err(ExamplePrivacyError::Delta { delta: terms.delta, examples });
        }
        let rate = SamplingRate::new(batch as f64 / examples as f64)?;
        let steps = u64::from(task.training.local_epochs) * examples.div_ceil(batch.max(1)) as u64;
        let steps = PrivateSteps { terms, examples, rate, steps, batch: batch as f64 };
        match steps.sigma(task.parameter_count().unwrap_or(u64::MAX)) {
            Some(_) => Ok(Some(steps)),
            None => Err(ExamplePrivacyError::Noise),
        }
    }

    /// What so many rounds cost an example of the client, against everybody who sees what leaves it.
    ///
    /// # Errors
    /// [`ExamplePrivacyError::Quantity`] or [`ExamplePrivacyError::Accounting`].
    pub fn epsilon(&self, rounds: u64) -> Result<Epsilon, ExamplePrivacyError> {
        let adjacency = Adjacency::ZeroOut;
        let sampling = Sampling::Poisson { rate: self.rate };
        let multiplier = NoiseMultiplier::new(self.terms.noise_multiplier)?;
        let mut spent = Composition::new(adjacency);
        spent.push(
            Amplification::of(sampling, adjacency).gaussian(multiplier),
            self.steps.saturating_mul(rounds),
        );
        Ok(spent.epsilon(Accountant::Pld, Delta::new(self.terms.delta)?)?)
    }

    /// Whether all rounds of the task together keep to its limit.
    ///
    /// # Errors
    /// [`ExamplePrivacyError::Budget`], or as [`PrivateSteps::epsilon`].
    pub fn check_budget(&self) -> Result<(), ExamplePrivacyError> {
        // The learners of a simulation ask for the same again and again.
        static LAST: Mutex<Option<(PrivateSteps, f64)>> = Mutex::new(None);
        let known = *LAST.lock().expect("nothing panics while it holds the lock");
        let rounds = self.terms.rounds;
        let epsilon = match known {
            Some((steps, epsilon)) if steps == *self => epsilon,
            _ => self.epsilon(rounds)?.get(),
        };
        *LAST.lock().expect("nothing panics while it holds the lock") = Some((*self, epsilon));
        let (examples, limit) = (self.examples, self.terms.epsilon_limit);
        match epsilon <= limit {
            true => Ok(()),
            false => Err(ExamplePrivacyError::Budget { examples, rounds, epsilon, limit }),
        }
    }

    /// The draws of one round, from a secret key that is used for nothing else.
    ///
    /// # Errors
    /// [`ExamplePrivacyError::TooManyRounds`], [`ExamplePrivacyError::Noise`].
    pub fn begin(
        &self,
        round: Round,
        dimension: usize,
        key: &Key,
        generator: PrgId,
    ) -> Result<Draws, ExamplePrivacyError> {
        let rounds = self.terms.rounds;
        if round.0 > rounds {
            return Err(ExamplePrivacyError::TooManyRounds { rounds, round });
        }
        let sigma = self.sigma(dimension as u64).ok_or(ExamplePrivacyError::Noise)?;
        let prg = |purpose| key.derive(purpose, 0, 0).substream_of(generator, 0);
        Ok(Draws {
            steps: *self,
            sigma,
            coin: Coin::new(self.rate),
            cohort: prg(Purpose::Cohort),
            noise: prg(Purpose::Noise),
            integers: Vec::new(),
        })
    }

    /// Standard deviation of the noise in grid steps.
    ///
    /// Two sums that differ by one example differ by the clip norm, by rounding to the grid at most half a step in each
    /// coordinate of either, √d steps in all, and by the rounding of f32 sums, for which a thousandth is set aside.
    fn sigma(&self, dimension: u64) -> Option<u64> {
        let sensitivity = GRID * 1.001 + (dimension as f64).sqrt();
        let sigma = (self.terms.noise_multiplier * sensitivity).ceil();
        (sigma < skep_privacy::mechanism::SIGMA_MAX as f64).then_some(sigma as u64)
    }
}

/// What the steps of one round draw.
pub struct Draws {
    steps: PrivateSteps,
    sigma: u64,
    coin: Coin,
    cohort: Prg,
    noise: Prg,
    integers: Vec<i64>,
}

impl ExamplePrivacy for Draws {
    fn clip_norm(&self) -> f64 {
        self.steps.terms.clip_norm
    }

    fn steps(&self) -> u64 {
        self.steps.steps
    }

    fn draw(&mut self, examples: usize, positions: &mut Vec<usize>) {
        positions.extend((0..examples).filter(|_| self.coin.flip(&mut self.cohort)));
    }

    /// The sum is put on a grid, and the noise is an integer drawn exactly: no low digits betray what it was added to.
    fn release(&mut self, sum: &mut [f32]) {
        let step = self.steps.terms.clip_norm / GRID;
        let share = step / self.steps.batch;
        self.integers.resize(sum.len(), 0);
        rounded_gaussian::fill(&mut self.noise, self.sigma, &mut self.integers);
        for (value, noise) in sum.iter_mut().zip(&self.integers) {
            let whole = (f64::from(*value) / step).round() as i64;
            *value = (whole.saturating_add(*noise) as f64 * share) as f32;
        }
    }
}

/// Grid steps in the clip norm.
const GRID: f64 = (1 << 20) as f64;

#[cfg(test)]
mod tests {
    use skep_protocol::experiment::{Model, Training};

    use super::*;

    fn task(batch: Batch, noise_multiplier: f64) -> Task {
        let terms = experiment::ExamplePrivacy {
            clip_norm: 0.5,
            noise_multiplier,
            delta: 1e-5,
            epsilon_limit: 3.0,
            rounds: 10,
        };
        let training = Training { example_privacy: Some(terms), ..Training::plain(0.1, 2, batch) };
        let (name, model) = ("digits".into(), Model::Softmax);
        Task {
            name,
            seed: 1,
            inputs: 64,
            classes: 10,
            model,
            training,
            tuning: None,
            encoding: None,
            asked: None,
        }
    }

    fn steps(batch: Batch, noise_multiplier: f64, examples: usize) -> PrivateSteps {
        PrivateSteps::new(&task(batch, noise_multiplier), examples).unwrap().unwrap()
    }

    #[test]
    fn rate_and_steps_follow_from_batch_and_examples() {
        let of = |batch, examples| {
            let steps = steps(batch, 1.0, examples);
            (steps.rate.get(), steps.steps, steps.batch)
        };
        assert_eq!(of(Batch::Size(10), 1000), (0.01, 200, 10.0));
        assert_eq!(of(Batch::Size(10), 25), (0.4, 6, 10.0));
        assert_eq!(of(Batch::Size(10), 4), (1.0, 2, 4.0));
        assert_eq!(of(Batch::Full, 30), (1.0, 2, 30.0));
    }

    #[test]
    fn the_cost_is_that_of_all_steps_of_all_rounds() {
        let steps = steps(Batch::Size(10), 1.0, 1000);
        // The example of the accounting crate: rate 0.01, noise 1, and 1,000 steps are five rounds of 200.
        let epsilon = steps.epsilon(5).unwrap().get();
        assert!((1.8282..1.8285).contains(&epsilon), "{epsilon}");
        assert!(steps.epsilon(6).unwrap().get() > epsilon);
        assert_eq!(steps.check_budget(), Ok(()));
        let loud = PrivateSteps::new(&task(Batch::Size(10), 0.6), 1000).unwrap().unwrap();
        for _ in 0..2 {
            let refused = loud.check_budget().unwrap_err();
            assert!(
                matches!(refused, ExamplePrivacyError::Budget { limit: 3.0, rounds: 10, .. }),
                "{refused}"
            );
        }
        let few = PrivateSteps::new(&task(Batch::Full, 1.0), 100_000);
        assert!(matches!(few, Err(ExamplePrivacyError::Delta { examples: 100_000, .. })));
    }

    #[test]
    fn the_noise_is_as_long_as_the_multiplier_says_and_examples_are_drawn_at_the_rate() {
        let steps = steps(Batch::Size(10), 2.0, 100);
        let key = Key::from_seed(3);
        let mut draws = steps.begin(Round(1), 10_000, &key, PrgId::ChaCha20).unwrap();
        let mut sum = vec![0.25_f32; 10_000];
        draws.release(&mut sum);
        let count = sum.len() as f64;
        let mean = sum.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let variance = sum.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        // Divided by the batch of 10: mean 0.025 and deviation 2 · 0.5 / 10; five standard errors of each.
        assert!((mean - 0.025).abs() < 0.005, "{mean}");
        assert!((variance.sqrt() - 0.1).abs() < 0.0036, "{}", variance.sqrt());
        let mut drawn = Vec::new();
        for _ in 0..1000 {
            draws.draw(100, &mut drawn);
        }
        // 100,000 coins of 0.1; five standard deviations.
        assert!((9_526..10_474).contains(&drawn.len()), "{}", drawn.len());
        assert!(drawn.iter().all(|&at| at < 100));
        assert!(matches!(
            steps.begin(Round(11), 650, &key, PrgId::ChaCha20),
            Err(ExamplePrivacyError::TooManyRounds { rounds: 10, .. })
        ));
    }
}
