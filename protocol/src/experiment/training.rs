//! How a client trains, as it travels to the client.

use serde::{Deserialize, Serialize};
use skep_privacy::quantities::{ClipNorm, Delta, Epsilon, NoiseMultiplier, QuantityError};

use crate::canonical::Writer;
use crate::ids::Round;

/// Local training by gradient descent. What an optimizer remembers, it remembers within a round: a client begins each round afresh.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Step size in the first round, above 0.
    pub learning_rate: f64,
    /// Passes over the client's examples in one round, at least 1.
    pub local_epochs: u32,
    /// Examples in one step.
    pub batch: Batch,
    /// Examples whose gradients are computed at once, where those are fewer than a batch: they bound the memory of a step, and change
    /// nothing else. At least 1.
    pub micro_batch: Option<u32>,
    /// What makes steps of gradients.
    pub optimizer: Optimizer,
    /// μ of the proximal term μ/2 · ‖w − w₀‖² that is added to the loss, where w₀ is the model of the round (FedProx,
    /// 1812.06127); at least 0.
    pub proximal: f64,
    /// The L2 norm that the gradient of a batch, its proximal term included, is scaled down to if it is longer; above 0.
    pub gradient_clip_norm: Option<f64>,
    /// How the step size changes from round to round.
    pub schedule: Schedule,
    /// Whether each client hides its single examples.
    pub example_privacy: Option<ExamplePrivacy>,
    /// How images are changed at random, if they are.
    pub augment: Option<Augment>,
}

/// What is done to each image in each epoch, drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// It is cut out of a margin of so many pixels of zeros.
    #[serde(default)]
    pub crop: u32,
    /// Whether it is mirrored, left to right, half of the time.
    #[serde(default)]
    pub flip: bool,
}

/// Differential privacy of single examples, made inside each client by DP-SGD (Abadi et al., 1607.00133): each step draws
/// examples by independent coins, whose rate is the batch over the client's examples, and adds noise to the sum of their
/// clipped gradients. A neighbour leaves one example out of every sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExamplePrivacy {
    /// The L2 norm that the gradient of an example is scaled down to, above 0.
    pub clip_norm: f64,
    /// Standard deviation of the noise on a sum over the clip norm, above 0.
    pub noise_multiplier: f64,
    /// The delta at which epsilon is stated.
    pub delta: f64,
    /// A client whose examples would cost more over all rounds does not take part.
    pub epsilon_limit: f64,
    /// Rounds of the experiment, each of which the client may be in.
    pub rounds: u64,
}

/// How many examples one step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Batch {
    /// All of the client's.
    Full,
    /// So many, at least 1, in another random order each epoch; the last batch of an epoch may be smaller.
    Size(u32),
    /// So many, always in the order of the data.
    InOrder(u32),
}

/// What makes a step of a gradient g with the learning rate η, as PyTorch defines it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimizer {
    /// v = μ v + g; the step is η v, with Nesterov's look ahead η (g + μ v).
    Sgd {
        /// μ, at least 0 and below 1.
        momentum: f64,
        /// Whether to look ahead; needs momentum.
        nesterov: bool,
        /// λ of the term λ w that is added to the gradient, at least 0.
        weight_decay: f64,
    },
    /// Kingma and Ba, 1412.6980.
    Adam {
        /// Of the mean of gradients, at least 0 and below 1.
        beta1: f64,
        /// Of the mean of their squares, at least 0 and below 1.
        beta2: f64,
        /// Added to the root of the second mean, above 0.
        epsilon: f64,
        /// λ of the term λ w that is added to the gradient, at least 0.
        weight_decay: f64,
    },
    /// Loshchilov and Hutter, 1711.05101.
    AdamW {
        /// Of the mean of gradients, at least 0 and below 1.
        beta1: f64,
        /// Of the mean of their squares, at least 0 and below 1.
        beta2: f64,
        /// Added to the root of the second mean, above 0.
        epsilon: f64,
        /// λ of η λ w, by which the weights shrink in each step; at least 0.
        weight_decay: f64,
    },
}

/// How the step size changes from round to round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// It is multiplied every so many rounds.
    Step {
        /// Rounds between two changes, at least 1.
        every: u64,
        /// The factor, above 0.
        factor: f64,
    },
    /// It falls along half a cosine, then stays (Loshchilov and Hutter, 1608.03983, without restarts).
    Cosine {
        /// Rounds of the fall, at least 1.
        rounds: u64,
        /// The share of the first step size that is left at its end, above 0 and at most 1.
        floor: f64,
    },
}

impl Training {
    /// Plain gradient descent.
    pub fn plain(learning_rate: f64, local_epochs: u32, batch: Batch) -> Self {
        Training {
            learning_rate,
            local_epochs,
            batch,
            micro_batch: None,
            optimizer: Optimizer::PLAIN,
            proximal: 0.0,
            gradient_clip_norm: None,
            schedule: Schedule::Constant,
            example_privacy: None,
            augment: None,
        }
    }

    /// The step size in a round, above 0.
    pub fn learning_rate_in(&self, round: Round) -> f64 {
        let before = round.0.saturating_sub(1);
        let factor = match self.schedule {
            Schedule::Constant => return self.learning_rate,
            Schedule::Step { every, factor } => {
                factor.powi(i32::try_from(before / every.max(1)).unwrap_or(i32::MAX))
            }
            Schedule::Cosine { rounds, floor } => {
                let gone = before.min(rounds) as f64 / rounds.max(1) as f64;
                floor + (1.0 - floor) * (1.0 + (std::f64::consts::PI * gone).cos()) / 2.0
            }
        };
        (self.learning_rate * factor).clamp(f64::MIN_POSITIVE, f64::MAX)
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        if !positive(self.learning_rate) {
            return Err(("task.training.learning_rate", "must be a finite number above 0".into()));
        }
        if self.local_epochs == 0 {
            return Err(("task.training.local_epochs", "must be at least 1".into()));
        }
        if matches!(self.batch, Batch::Size(0) | Batch::InOrder(0)) {
            return Err(("task.training.batch_size", "must be \"full\" or at least 1".into()));
        }
        if self.micro_batch == Some(0) {
            return Err(("task.training.micro_batch_size", "must be at least 1".into()));
        }
        self.optimizer.check().map_err(|problem| ("task.training.optimizer", problem))?;
        if !not_negative(self.proximal) {
            return Err(("task.training.proximal", "must be a finite number of at least 0".into()));
        }
        if !self.gradient_clip_norm.is_none_or(positive) {
            return Err(("task.training.gradient_clip_norm", "must be a finite number above 0".into()));
        }
        let schedule = match self.schedule {
            Schedule::Step { every: 0, .. } => Err("must have every at least 1"),
            Schedule::Step { factor, .. } if !positive(factor) => Err("must have a finite factor above 0"),
            Schedule::Cosine { rounds: 0, .. } => Err("must fall over at least 1 round"),
            Schedule::Cosine { floor, .. } if !(floor > 0.0 && floor <= 1.0) => {
                Err("must have a floor above 0 and at most 1")
            }
            _ => Ok(()),
        };
        schedule.map_err(|problem| ("task.training.schedule", problem.into()))?;
        self.example_privacy.map_or(Ok(()), |terms| terms.check(self.batch))
    }

    /// What plain descent does without is written only where it is there: the digests of plain tasks are as old as the first
    /// release.
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.f64(self.learning_rate).u32(self.local_epochs);
        match self.batch {
            Batch::Full => writer.u32(0),
            Batch::Size(size) => writer.u32(size),
            Batch::InOrder(size) => writer.u32(u32::MAX).u32(size),
        };
        match self.optimizer {
            Optimizer::PLAIN => &mut *writer,
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                writer.u8(1).f64(momentum).u8(nesterov.into()).f64(weight_decay)
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay } => {
                writer.u8(2).f64(beta1).f64(beta2).f64(epsilon).f64(weight_decay)
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                writer.u8(3).f64(beta1).f64(beta2).f64(epsilon).f64(weight_decay)
            }
        };
        if self.proximal != 0.0 {
            writer.u8(4).f64(self.proximal);
        }
        if let Some(norm) = self.gradient_clip_norm {
            writer.u8(5).f64(norm);
        }
        match self.schedule {
            Schedule::Constant => &mut *writer,
            Schedule::Step { every, factor } => writer.u8(6).u64(every).f64(factor),
            Schedule::Cosine { rounds, floor } => writer.u8(7).u64(rounds).f64(floor),
        };
        if let Some(examples) = self.micro_batch {
            writer.u8(9).u32(examples);
        }
        if let Some(terms) = self.example_privacy {
            let ExamplePrivacy { clip_norm, noise_multiplier, delta, epsilon_limit, rounds } = terms;
            writer.u8(8).f64(clip_norm).f64(noise_multiplier).f64(delta).f64(epsilon_limit).u64(rounds);
        }
        if let Some(Augment { crop, flip }) = self.augment {
            writer.u8(9).u32(crop).u8(flip.into());
        }
    }
}

impl ExamplePrivacy {
    fn check(&self, batch: Batch) -> Result<(), (&'static str, String)> {
        if matches!(batch, Batch::InOrder(_)) {
            return Err((
                "task.training.batch_size",
                "must be a number or \"full\" with unit = \"example\": batches are drawn by secret coins, in no order".into(),
            ));
        }
        let wrong = |key| move |error: QuantityError| (key, error.to_string());
        ClipNorm::new(self.clip_norm).map_err(wrong("privacy.clip_norm"))?;
        NoiseMultiplier::new(self.noise_multiplier).map_err(wrong("privacy.noise_multiplier"))?;
        Delta::new(self.delta).map_err(wrong("privacy.delta"))?;
        Epsilon::new(self.epsilon_limit).map_err(wrong("privacy.epsilon_limit"))?;
        if self.noise_multiplier == 0.0 || self.rounds == 0 {
            return Err(("privacy.noise_multiplier", "must be above 0, for at least one round".into()));
        }
        Ok(())
    }
}

impl Optimizer {
    /// A step is the learning rate times the gradient.
    pub const PLAIN: Optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };

    fn check(&self) -> Result<(), String> {
        let fraction = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(format!("has a {name} of {value}, but it must be at least 0 and below 1")),
        };
        let decay = match *self {
            Optimizer::Sgd { momentum, nesterov, weight_decay } => {
                fraction("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err("looks ahead with nesterov, which needs a momentum above 0".into());
                }
                weight_decay
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay }
            | Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                fraction("beta1", beta1)?;
                fraction("beta2", beta2)?;
                if !(epsilon.is_finite() && epsilon > 0.0) {
                    return Err(format!(
                        "has an epsilon of {epsilon}, but it must be a finite number above 0"
                    ));
                }
                weight_decay
            }
        };
        match decay.is_finite() && decay >= 0.0 {
            true => Ok(()),
            false => {
                Err(format!("has a weight_decay of {decay}, but it must be a finite number of at least 0"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, rounds: &[u64]) -> Vec<f64> {
        let training = Training { schedule, ..Training::plain(2.0, 1, Batch::Full) };
        assert_eq!(training.check(), Ok(()));
        rounds.iter().map(|&round| training.learning_rate_in(Round(round))).collect()
    }

    #[test]
    fn step_sizes_follow_their_schedule() {
        assert_eq!(rates(Schedule::Constant, &[1, 9]), [2.0, 2.0]);
        let step = Schedule::Step { every: 3, factor: 0.5 };
        assert_eq!(rates(step, &[1, 3, 4, 6, 7, u64::MAX]), [2.0, 2.0, 1.0, 1.0, 0.5, f64::MIN_POSITIVE]);
        let cosine = rates(Schedule::Cosine { rounds: 10, floor: 0.1 }, &[1, 6, 11, 99]);
        for (rate, expected) in cosine.iter().zip([2.0, 1.1, 0.2, 0.2]) {
            assert!((rate - expected).abs() < 1e-12, "{cosine:?}");
        }
    }

    #[test]
    fn trainings_that_differ_have_other_bytes() {
        let plain = Training::plain(2.0, 1, Batch::Size(4));
        let adam = |beta1| Optimizer::Adam { beta1, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
        let sgd = |momentum, nesterov| Optimizer::Sgd { momentum, nesterov, weight_decay: 0.0 };
        let with = |optimizer| Training { optimizer, ..plain };
        let adamw = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
        let all = [
            plain,
            Training { batch: Batch::InOrder(4), ..plain },
            with(sgd(0.9, false)),
            with(sgd(0.9, true)),
            with(adam(0.9)),
            with(adam(0.8)),
            with(adamw),
            Training { proximal: 0.5, ..plain },
            Training { gradient_clip_norm: Some(0.5), ..plain },
            Training { schedule: Schedule::Step { every: 1, factor: 0.5 }, ..plain },
            Training { schedule: Schedule::Cosine { rounds: 1, floor: 0.5 }, ..plain },
            Training { example_privacy: Some(TERMS), ..plain },
            Training { example_privacy: Some(ExamplePrivacy { rounds: 2, ..TERMS }), ..plain },
        ];
        let mut bytes: Vec<_> = all
            .iter()
            .map(|training| {
                let mut writer = Writer::new("test");
                training.write(&mut writer);
                writer.finish()
            })
            .collect();
        bytes.sort();
        bytes.dedup();
        assert_eq!(bytes.len(), all.len());
    }

    const TERMS: ExamplePrivacy =
        ExamplePrivacy { clip_norm: 1.0, noise_multiplier: 1.0, delta: 1e-5, epsilon_limit: 3.0, rounds: 1 };

    #[test]
    fn examples_are_hidden_on_terms_that_make_sense() {
        let plain = Training::plain(2.0, 1, Batch::Size(4));
        let key = |terms, batch| {
            let training = Training { example_privacy: Some(terms), batch, ..plain };
            training.check().err().map(|(key, _)| key)
        };
        assert_eq!(key(TERMS, Batch::Size(4)), None);
        assert_eq!(key(TERMS, Batch::InOrder(4)), Some("task.training.batch_size"));
        let full = |terms| key(terms, Batch::Full);
        assert_eq!(full(ExamplePrivacy { clip_norm: 0.0, ..TERMS }), Some("privacy.clip_norm"));
        let silent = ExamplePrivacy { noise_multiplier: 0.0, ..TERMS };
        assert_eq!(full(silent), Some("privacy.noise_multiplier"));
        assert_eq!(full(ExamplePrivacy { delta: 1.0, ..TERMS }), Some("privacy.delta"));
        assert_eq!(full(ExamplePrivacy { epsilon_limit: -1.0, ..TERMS }), Some("privacy.epsilon_limit"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let plain = Training::plain(2.0, 1, Batch::Full);
        let refused = |training: Training| training.check().unwrap_err();
        let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd { momentum, nesterov, weight_decay };
        for optimizer in [sgd(1.0, false, 0.0), sgd(0.0, true, 0.0), sgd(0.5, false, f64::NAN)] {
            assert_eq!(refused(Training { optimizer, ..plain }).0, "task.training.optimizer");
        }
        assert_eq!(refused(Training { proximal: -1.0, ..plain }).0, "task.training.proximal");
        let clip = Training { gradient_clip_norm: Some(0.0), ..plain };
        assert_eq!(refused(clip).0, "task.training.gradient_clip_norm");
        let schedule = Schedule::Cosine { rounds: 5, floor: 0.0 };
        assert_eq!(refused(Training { schedule, ..plain }).0, "task.training.schedule");
        let schedule = Schedule::Step { every: 0, factor: 1.0 };
        assert_eq!(refused(Training { schedule, ..plain }).0, "task.training.schedule");
    }
}
