//! What makes a step of a gradient.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An optimizer with its constants. Its state belongs to one turn of training and begins at zero.
///
/// The definitions are those of PyTorch, without dampening: with g the gradient, η the learning rate and λ the weight decay,
///
/// ```text
/// Sgd      g += λ w;   v = μ v + g;   w -= η v            with Nesterov's look ahead: w -= η (g + μ v)
/// Adam     g += λ w;   m = β₁ m + (1 − β₁) g;   v = β₂ v + (1 − β₂) g²
///          w -= η m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
/// AdamW    w -= η λ w instead of g += λ w, then as Adam (Loshchilov and Hutter, 1711.05101)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// μ, at least 0 and below 1; 0 remembers nothing.
        momentum: f64,
        /// Whether the gradient is taken where the momentum leads; needs momentum.
        nesterov: bool,
        /// λ, at least 0.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba, 1412.6980) on the loss plus λ/2 · ‖w‖².
    Adam {
        /// Of the mean of gradients, at least 0 and below 1.
        beta1: f64,
        /// Of the mean of their squares, at least 0 and below 1.
        beta2: f64,
        /// Keeps a step finite; above 0.
        epsilon: f64,
        /// λ, at least 0.
        weight_decay: f64,
    },
    /// Adam whose weights decay beside its steps.
    #[serde(rename = "adamw")]
    AdamW {
        /// Of the mean of gradients, at least 0 and below 1.
        beta1: f64,
        /// Of the mean of their squares, at least 0 and below 1.
        beta2: f64,
        /// Keeps a step finite; above 0.
        epsilon: f64,
        /// λ, at least 0.
        weight_decay: f64,
    },
}

/// Why an optimizer is impossible.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum OptimizerError {
    /// Momentum or a beta that is no average.
    #[error("the optimizer's {name} must be at least 0 and below 1, not {value}")]
    Fraction {
        /// Which.
        name: &'static str,
        /// What it is.
        value: f64,
    },
    /// Nesterov's look ahead follows the momentum.
    #[error("the optimizer's nesterov needs a momentum above 0")]
    NoMomentum,
    /// Zero, negative, infinite or not a number.
    #[error("the optimizer's epsilon must be a positive number, not {0}")]
    Epsilon(f64),
    /// Negative, infinite or not a number.
    #[error("the optimizer's weight_decay must be a finite number of at least 0, not {0}")]
    WeightDecay(f64),
}

impl Optimizer {
    /// A step is the learning rate times the gradient.
    pub const PLAIN: Optimizer = Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };

    /// Whether it is [`Optimizer::PLAIN`].
    pub fn is_plain(&self) -> bool {
        *self == Self::PLAIN
    }

    /// Whether its constants make sense.
    ///
    /// # Errors
    /// [`OptimizerError`].
    pub fn check(&self) -> Result<(), OptimizerError> {
        let fraction = |name, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(OptimizerError::Fraction { name, value }),
        };
        let decay = match *self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                fraction("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(OptimizerError::NoMomentum);
                }
                weight_decay
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay }
            | Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                fraction("beta1", beta1)?;
                fraction("beta2", beta2)?;
                if !(epsilon.is_finite() && epsilon > 0.0) {
                    return Err(OptimizerError::Epsilon(epsilon));
                }
                weight_decay
            }
        };
        match decay.is_finite() && decay >= 0.0 {
            true => Ok(()),
            false => Err(OptimizerError::WeightDecay(decay)),
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::PLAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_constants_are_refused() {
        let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd { momentum, nesterov, weight_decay };
        let adam = |beta1, beta2, epsilon| Optimizer::Adam { beta1, beta2, epsilon, weight_decay: 0.0 };
        for good in [Optimizer::PLAIN, sgd(0.9, true, 1e-4), adam(0.0, 0.999, 1e-8)] {
            assert_eq!(good.check(), Ok(()));
        }
        for (bad, error) in [
            (sgd(1.0, false, 0.0), OptimizerError::Fraction { name: "momentum", value: 1.0 }),
            (sgd(-0.1, false, 0.0), OptimizerError::Fraction { name: "momentum", value: -0.1 }),
            (sgd(0.0, true, 0.0), OptimizerError::NoMomentum),
            (sgd(0.0, false, -1.0), OptimizerError::WeightDecay(-1.0)),
            (adam(1.0, 0.9, 1e-8), OptimizerError::Fraction { name: "beta1", value: 1.0 }),
            (adam(0.9, 1.5, 1e-8), OptimizerError::Fraction { name: "beta2", value: 1.5 }),
            (adam(0.9, 0.9, 0.0), OptimizerError::Epsilon(0.0)),
        ] {
            assert_eq!(bad.check(), Err(error));
        }
        assert!(sgd(f64::NAN, false, 0.0).check().is_err() && adam(0.9, 0.9, f64::NAN).check().is_err());
    }
}
