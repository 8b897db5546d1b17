//! `[strategy]` as it is typed, and what it means.

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::strategy::{Aggregation, Buffering, Robust, SecondMoment, ServerOptimizer, Strategy, Weighting};
use super::validate::invalid;

/// `[strategy]`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StrategyFile {
    /// `kind = "fedavg"`
    Fedavg {
        /// `"uniform"` or `"examples"`.
        weighting: WeightingFile,
        /// The largest weight of one client; only with `weighting = "examples"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_examples: Option<u32>,
        /// Factor on the mean update.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "fedavgm"`
    Fedavgm {
        /// `"uniform"` or `"examples"`.
        weighting: WeightingFile,
        /// The largest weight of one client; only with `weighting = "examples"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_examples: Option<u32>,
        /// Factor on the sum of mean updates.
        #[serde(default = "one")]
        server_learning_rate: f64,
        /// How much of the sum is kept from round to round.
        #[serde(default = "nine_tenths")]
        momentum: f64,
    },
    /// `kind = "fedadagrad"`
    Fedadagrad {
        /// `"uniform"` or `"examples"`.
        weighting: WeightingFile,
        /// The largest weight of one client; only with `weighting = "examples"`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_examples: Option<u32>,
        /// The most that a coordinate moves in the first round.
        server_learning_rate: f64,
        /// How much of the mean direction is kept from round to round.
        #[serde(default)]
        beta1: f64,
        /// The degree of adaptivity.
        #[serde(default = "one_thousandth")]
        tau: f64,
    },
    /// `kind = "fedadam"`
    Fedadam(AdaptiveFile),
    /// `kind = "fedyogi"`
    Fedyogi(AdaptiveFile),
    /// `kind = "fednova"`
    Fednova {
        /// The largest weight of one client.
        max_examples: u32,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "q-fedavg"`
    QFedavg {
        /// The power of a client's loss that its update counts by.
        q: f64,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "scaffold"`
    Scaffold {
        /// Factor on the mean update.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "fedbuff"`
    Fedbuff {
        /// Clients that train at any time.
        concurrency: u32,
        /// How much less an update counts that was begun some models ago.
        #[serde(default = "half")]
        staleness_exponent: f64,
        /// Factor on the mean update.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "norm-threshold"`
    NormThreshold {
        /// L2 norm of the longest update.
        max_norm: f64,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "median"`
    Median {
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "trimmed-mean"`
    TrimmedMean {
        /// The part of the updates that is cut at either end.
        trim: f64,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "krum"`
    Krum {
        /// The most corrupt updates of a round.
        byzantine: u32,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "multi-krum"`
    MultiKrum {
        /// The most corrupt updates of a round.
        byzantine: u32,
        /// How many updates are taken, at least 2.
        selected: u32,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
    /// `kind = "centred-clipping"`
    CentredClipping {
        /// L2 norm of the longest step from the last aggregate to an update.
        radius: f64,
        /// How many times the aggregate is moved in a round.
        #[serde(default = "once")]
        iterations: u32,
        /// Factor on the aggregate.
        #[serde(default = "one")]
        server_learning_rate: f64,
    },
}

/// The keys of `"fedadam"` and `"fedyogi"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveFile {
    /// `"uniform"` or `"examples"`.
    pub weighting: WeightingFile,
    /// The largest weight of one client; only with `weighting = "examples"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_examples: Option<u32>,
    /// About as much as a coordinate moves in a round.
    pub server_learning_rate: f64,
    /// How much of the mean direction is kept from round to round.
    #[serde(default = "nine_tenths")]
    pub beta1: f64,
    /// How much of the mean square is kept from round to round.
    #[serde(default = "ninety_nine_hundredths")]
    pub beta2: f64,
    /// The degree of adaptivity.
    #[serde(default = "one_thousandth")]
    pub tau: f64,
}

/// `strategy.weighting`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightingFile {
    /// Every update counts the same.
    Uniform,
    /// By number of examples.
    Examples,
}

impl TryFrom<&StrategyFile> for Strategy {
    type Error = Invalid;

    fn try_from(file: &StrategyFile) -> Result<Self, Invalid> {
        let strategy = match *file {
            StrategyFile::Fedavg { weighting, max_examples, server_learning_rate } => Strategy {
                aggregation: mean(weighting, max_examples)?,
                optimizer: ServerOptimizer::Sgd,
                server_learning_rate,
                buffering: None,
            },
            StrategyFile::Fedavgm { weighting, max_examples, server_learning_rate, momentum } => Strategy {
                aggregation: mean(weighting, max_examples)?,
                optimizer: ServerOptimizer::Momentum { momentum: kept("momentum", momentum)? },
                server_learning_rate,
                buffering: None,
            },
            StrategyFile::Fedadagrad { weighting, max_examples, server_learning_rate, beta1, tau } => {
                Strategy {
                    aggregation: mean(weighting, max_examples)?,
                    optimizer: adaptive(SecondMoment::Adagrad, beta1, tau)?,
                    server_learning_rate,
                    buffering: None,
                }
            }
            StrategyFile::Fedadam(keys) => {
                let second_moment = SecondMoment::Adam { beta2: kept("beta2", keys.beta2)? };
                keys.strategy(second_moment)?
            }
            StrategyFile::Fedyogi(keys) => {
                let second_moment = SecondMoment::Yogi { beta2: kept("beta2", keys.beta2)? };
                keys.strategy(second_moment)?
            }
            StrategyFile::Fednova { max_examples, server_learning_rate } => {
                let max = largest_weight(max_examples)?;
                weighted(Weighting::PerStep { max }, server_learning_rate)
            }
            StrategyFile::QFedavg { q, .. } if !(0.0..=MOST_Q).contains(&q) => {
                return Err(invalid("strategy.q", format!("is {q}, but must be 0 to {MOST_Q}")));
            }
            StrategyFile::QFedavg { q, server_learning_rate } => {
                weighted(Weighting::ByLoss { q }, server_learning_rate)
            }
            StrategyFile::Scaffold { server_learning_rate } => {
                weighted(Weighting::Controlled, server_learning_rate)
            }
            StrategyFile::Fedbuff { concurrency: 0, .. } => {
                return Err(invalid("strategy.concurrency", "must be at least 1"));
            }
            StrategyFile::Fedbuff { staleness_exponent, .. }
                if !(0.0..=MOST_STALENESS_EXPONENT).contains(&staleness_exponent) =>
            {
                return Err(invalid(
                    "strategy.staleness_exponent",
                    format!("is {staleness_exponent}, but must be 0 to {MOST_STALENESS_EXPONENT}"),
                ));
            }
            StrategyFile::Fedbuff { concurrency, staleness_exponent, server_learning_rate } => Strategy {
                buffering: Some(Buffering { concurrency, staleness_exponent }),
                ..weighted(Weighting::Uniform, server_learning_rate)
            },
            StrategyFile::NormThreshold { max_norm, server_learning_rate } => robust(
                Robust::NormThreshold { max_norm: above_zero("max_norm", max_norm)? },
                server_learning_rate,
            ),
            StrategyFile::Median { server_learning_rate } => robust(Robust::Median, server_learning_rate),
            StrategyFile::TrimmedMean { trim, .. } if !(0.0..0.5).contains(&trim) => {
                return Err(invalid(
                    "strategy.trim",
                    format!("is {trim}, but must be at least 0 and below 0.5"),
                ));
            }
            StrategyFile::TrimmedMean { trim, server_learning_rate } => {
                robust(Robust::TrimmedMean { trim }, server_learning_rate)
            }
            StrategyFile::Krum { byzantine, server_learning_rate } => {
                robust(Robust::Krum { byzantine, selected: 1 }, server_learning_rate)
            }
            StrategyFile::MultiKrum { selected, .. } if selected < 2 => {
                return Err(invalid(
                    "strategy.selected",
                    format!("is {selected}, but must be at least 2: kind = \"krum\" selects one"),
                ));
            }
            StrategyFile::MultiKrum { byzantine, selected, server_learning_rate } => {
                robust(Robust::Krum { byzantine, selected }, server_learning_rate)
            }
            StrategyFile::CentredClipping { iterations: 0, .. } => {
                return Err(invalid("strategy.iterations", "must be at least 1"));
            }
            StrategyFile::CentredClipping { radius, iterations, server_learning_rate } => {
                let radius = above_zero("radius", radius)?;
                robust(Robust::CentredClipping { radius, iterations }, server_learning_rate)
            }
        };
        above_zero("server_learning_rate", strategy.server_learning_rate)?;
        Ok(strategy)
    }
}

impl AdaptiveFile {
    fn strategy(&self, second_moment: SecondMoment) -> Result<Strategy, Invalid> {
        Ok(Strategy {
            aggregation: mean(self.weighting, self.max_examples)?,
            optimizer: adaptive(second_moment, self.beta1, self.tau)?,
            server_learning_rate: self.server_learning_rate,
            buffering: None,
        })
    }
}

fn mean(weighting: WeightingFile, max_examples: Option<u32>) -> Result<Aggregation, Invalid> {
    let weighting = match (weighting, max_examples) {
        (WeightingFile::Uniform, None) => Weighting::Uniform,
        (WeightingFile::Uniform, Some(_)) => {
            return Err(invalid(
                "strategy.max_examples",
                "has no meaning with weighting = \"uniform\": remove it",
            ));
        }
        (WeightingFile::Examples, Some(max)) => Weighting::Examples { max: largest_weight(max)? },
        (WeightingFile::Examples, None) => {
            return Err(invalid(
                "strategy.max_examples",
                "is missing: weighting = \"examples\" needs the largest weight of one client",
            ));
        }
    };
    Ok(Aggregation::Mean { weighting })
}

fn largest_weight(max: u32) -> Result<u32, Invalid> {
    if (1..u32::MAX).contains(&max) {
        return Ok(max);
    }
    Err(invalid("strategy.max_examples", format!("is {max}, but must be 1 to {}", u32::MAX - 1)))
}

fn weighted(weighting: Weighting, server_learning_rate: f64) -> Strategy {
    let (aggregation, optimizer) = (Aggregation::Mean { weighting }, ServerOptimizer::Sgd);
    Strategy { aggregation, optimizer, server_learning_rate, buffering: None }
}

fn robust(rule: Robust, server_learning_rate: f64) -> Strategy {
    let (aggregation, optimizer) = (Aggregation::Robust(rule), ServerOptimizer::Sgd);
    Strategy { aggregation, optimizer, server_learning_rate, buffering: None }
}

fn adaptive(second_moment: SecondMoment, beta1: f64, tau: f64) -> Result<ServerOptimizer, Invalid> {
    let (beta1, tau) = (kept("beta1", beta1)?, above_zero("tau", tau)?);
    Ok(ServerOptimizer::Adaptive { second_moment, beta1, tau })
}

/// A part of something that is kept from round to round: not all of it, or nothing would ever be forgotten.
fn kept(key: &str, part: f64) -> Result<f64, Invalid> {
    if (0.0..1.0).contains(&part) {
        return Ok(part);
    }
    Err(invalid(&format!("strategy.{key}"), format!("is {part}, but must be at least 0 and below 1")))
}

fn above_zero(key: &str, value: f64) -> Result<f64, Invalid> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(invalid(&format!("strategy.{key}"), format!("is {value}, but must be a finite number above 0")))
}

impl From<&Strategy> for StrategyFile {
    fn from(strategy: &Strategy) -> Self {
        let Strategy { aggregation, optimizer, server_learning_rate, buffering } = *strategy;
        if let Some(Buffering { concurrency, staleness_exponent }) = buffering {
            return StrategyFile::Fedbuff { concurrency, staleness_exponent, server_learning_rate };
        }
        let weighting = match aggregation {
            Aggregation::Mean { weighting } => weighting,
            Aggregation::Robust(rule) => return robust_file(rule, server_learning_rate),
        };
        let (weighting, max_examples) = match weighting {
            Weighting::Uniform => (WeightingFile::Uniform, None),
            Weighting::Examples { max } => (WeightingFile::Examples, Some(max)),
            Weighting::PerStep { max: max_examples } => {
                return StrategyFile::Fednova { max_examples, server_learning_rate };
            }
            Weighting::ByLoss { q } => return StrategyFile::QFedavg { q, server_learning_rate },
            Weighting::Controlled => return StrategyFile::Scaffold { server_learning_rate },
        };
        match optimizer {
            ServerOptimizer::Sgd => StrategyFile::Fedavg { weighting, max_examples, server_learning_rate },
            ServerOptimizer::Momentum { momentum } => {
                StrategyFile::Fedavgm { weighting, max_examples, server_learning_rate, momentum }
            }
            ServerOptimizer::Adaptive { second_moment, beta1, tau } => {
                let keys =
                    |beta2| AdaptiveFile { weighting, max_examples, server_learning_rate, beta1, beta2, tau };
                match second_moment {
                    SecondMoment::Adagrad => {
                        StrategyFile::Fedadagrad { weighting, max_examples, server_learning_rate, beta1, tau }
                    }
                    SecondMoment::Adam { beta2 } => StrategyFile::Fedadam(keys(beta2)),
                    SecondMoment::Yogi { beta2 } => StrategyFile::Fedyogi(keys(beta2)),
                }
            }
        }
    }
}

fn robust_file(rule: Robust, server_learning_rate: f64) -> StrategyFile {
    match rule {
        Robust::NormThreshold { max_norm } => StrategyFile::NormThreshold { max_norm, server_learning_rate },
        Robust::Median => StrategyFile::Median { server_learning_rate },
        Robust::TrimmedMean { trim } => StrategyFile::TrimmedMean { trim, server_learning_rate },
        Robust::Krum { byzantine, selected: 1 } => StrategyFile::Krum { byzantine, server_learning_rate },
        Robust::Krum { byzantine, selected } => {
            StrategyFile::MultiKrum { byzantine, selected, server_learning_rate }
        }
        Robust::CentredClipping { radius, iterations } => {
            StrategyFile::CentredClipping { radius, iterations, server_learning_rate }
        }
    }
}

/// More would let nobody but the client with the largest loss count.
const MOST_Q: f64 = 100.0;

/// More would let stale updates count for nothing.
const MOST_STALENESS_EXPONENT: f64 = 10.0;

fn half() -> f64 {
    0.5
}

fn once() -> u32 {
    1
}

fn one() -> f64 {
    1.0
}

fn nine_tenths() -> f64 {
    0.9
}

fn ninety_nine_hundredths() -> f64 {
    0.99
}

fn one_thousandth() -> f64 {
    0.001
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive_file() -> AdaptiveFile {
        AdaptiveFile {
            weighting: WeightingFile::Examples,
            max_examples: Some(7),
            server_learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            tau: 0.001,
        }
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let (weighting, max_examples, server_learning_rate) = (WeightingFile::Uniform, None, 0.5);
        for file in [
            StrategyFile::Fedavg { weighting, max_examples, server_learning_rate },
            StrategyFile::Fedavgm { weighting, max_examples, server_learning_rate, momentum: 0.9 },
            StrategyFile::Fedadagrad { weighting, max_examples, server_learning_rate, beta1: 0.0, tau: 0.1 },
            StrategyFile::Fedadam(adaptive_file()),
            StrategyFile::Fedyogi(adaptive_file()),
            StrategyFile::Fednova { max_examples: 9, server_learning_rate },
            StrategyFile::QFedavg { q: 0.5, server_learning_rate },
            StrategyFile::Scaffold { server_learning_rate },
            StrategyFile::Fedbuff { concurrency: 9, staleness_exponent: 0.5, server_learning_rate },
            StrategyFile::NormThreshold { max_norm: 1.0, server_learning_rate },
            StrategyFile::Median { server_learning_rate },
            StrategyFile::TrimmedMean { trim: 0.2, server_learning_rate },
            StrategyFile::Krum { byzantine: 2, server_learning_rate },
            StrategyFile::MultiKrum { byzantine: 2, selected: 3, server_learning_rate },
            StrategyFile::CentredClipping { radius: 1.0, iterations: 2, server_learning_rate },
        ] {
            assert_eq!(StrategyFile::from(&Strategy::try_from(&file).unwrap()), file);
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refused = |change: fn(&mut AdaptiveFile)| {
            let mut keys = adaptive_file();
            change(&mut keys);
            Strategy::try_from(&StrategyFile::Fedyogi(keys)).expect_err("the change makes no sense").key
        };
        assert_eq!(refused(|keys| keys.beta1 = 1.0), "strategy.beta1");
        assert_eq!(refused(|keys| keys.beta2 = f64::NAN), "strategy.beta2");
        assert_eq!(refused(|keys| keys.tau = 0.0), "strategy.tau");
        assert_eq!(refused(|keys| keys.server_learning_rate = -1.0), "strategy.server_learning_rate");
        assert_eq!(refused(|keys| keys.max_examples = None), "strategy.max_examples");
    }
}
