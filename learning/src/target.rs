//! A number to predict: what it is called, how it is scaled, and how an error counts.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A column of numbers that a model predicts. Training sees y as (y − shift)/scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What the number is called.
    pub column: String,
    /// What is subtracted from it; finite.
    pub shift: f64,
    /// What the rest is divided by; finite and above 0.
    pub scale: f64,
    /// The numbers that are believed, if not all: others are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f64; 2]>,
    /// How an error counts.
    pub loss: Loss,
}

/// How the error d of a prediction, in units of the scale, counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// d².
    Squared,
    /// |d|.
    Absolute,
    /// d²/2 up to |d| = δ, beyond it δ(|d| − δ/2) (Huber, 1964).
    Huber {
        /// δ, finite and above 0.
        delta: f64,
    },
}

/// Why numbers cannot be scaled so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TargetFault {
    /// Nothing can be divided by it, or it is not finite.
    #[error("a target needs a finite shift and a finite scale above 0, both within single floats")]
    Scale,
    /// Single floats near the shift are too far apart.
    #[error(
        "a target's scale must not be so small beside its shift that single floats cannot tell its numbers apart"
    )]
    Precision,
    /// The lower bound is not below the upper one.
    #[error("a target's lower bound must be below its upper bound")]
    Bounds,
    /// δ is no distance.
    #[error("the delta of a Huber loss must be finite and above 0")]
    Delta,
}

impl Target {
    /// Refuses what scales nothing.
    ///
    /// # Errors
    /// [`TargetFault`].
    pub fn check(&self) -> Result<(), TargetFault> {
        let is_usable = |number: f64| (number as f32).is_finite();
        if !(is_usable(self.shift) && is_usable(self.scale) && self.scale as f32 > 0.0) {
            return Err(TargetFault::Scale);
        }
        if self.scale < self.shift.abs() * FINEST {
            return Err(TargetFault::Precision);
        }
        match (self.bounds, self.loss) {
            (Some([low, high]), _) if !(low < high && low.is_finite() && high.is_finite()) => {
                Err(TargetFault::Bounds)
            }
            (_, Loss::Huber { delta }) if !(delta.is_finite() && delta > 0.0) => Err(TargetFault::Delta),
            _ => Ok(()),
        }
    }

    /// Whether it is a number that can be predicted. Bounds are rounded as the numbers are, so that one at a bound is within.
    pub fn takes(&self, number: f32) -> bool {
        self.scaled(number).is_finite()
            && number.is_finite()
            && self.bounds.is_none_or(|[low, high]| (low as f32..=high as f32).contains(&number))
    }

    /// What training sees of a number.
    pub fn scaled(&self, number: f32) -> f32 {
        ((f64::from(number) - self.shift) / self.scale) as f32
    }

    /// The number, in its own unit, that a model means by its answer.
    pub fn unscaled(&self, answer: f32) -> f32 {
        (self.shift + self.scale * f64::from(answer)) as f32
    }
}

/// The least scale in units of the shift: 128 single floats or more, of 24 bits each, lie within a scale.
const FINEST: f64 = 1.0 / 65_536.0;

impl Loss {
    /// What an error costs.
    pub fn of(self, error: f64) -> f64 {
        match self {
            Loss::Squared => error * error,
            Loss::Absolute => error.abs(),
            Loss::Huber { delta } => {
                let near = error.abs().min(delta);
                near * (error.abs() - near / 2.0)
            }
        }
    }

    /// Its derivative; 0 where it has none.
    pub(crate) fn slope(self, error: f64) -> f64 {
        let sign = if error == 0.0 { 0.0 } else { error.signum() };
        match self {
            Loss::Squared => 2.0 * error,
            Loss::Absolute => sign,
            Loss::Huber { delta } => error.clamp(-delta, delta),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_their_slopes_are_those_of_the_definition() {
        for (loss, error, cost, slope) in [
            (Loss::Squared, -3.0, 9.0, -6.0),
            (Loss::Absolute, -3.0, 3.0, -1.0),
            (Loss::Absolute, 0.0, 0.0, 0.0),
            (Loss::Huber { delta: 2.0 }, 1.0, 0.5, 1.0),
            (Loss::Huber { delta: 2.0 }, -3.0, 4.0, -2.0),
        ] {
            assert_eq!((loss.of(error), loss.slope(error)), (cost, slope), "{loss:?} of {error}");
        }
        assert!(Loss::Squared.of(f64::NAN).is_nan() && Loss::Huber { delta: 1.0 }.slope(f64::NAN).is_nan());
    }

    #[test]
    fn a_number_at_a_bound_is_within_it() {
        // 0.1 is rounded up to single precision, 0.7 down.
        for (low, high) in [(0.0, 0.1), (0.7, 1.0)] {
            let (shift, scale) = (f64::midpoint(low, high), (high - low) / 2.0);
            let bounds = Some([low, high]);
            let target = Target { column: "share".into(), shift, scale, bounds, loss: Loss::Squared };
            assert!(target.takes(low as f32) && target.takes(high as f32), "{low} to {high}");
            assert!(!target.takes((low as f32).next_down()) && !target.takes((high as f32).next_up()));
        }
    }

    #[test]
    fn a_number_comes_back_in_its_own_unit() {
        let target =
            Target { column: "price".into(), shift: 200.0, scale: 50.0, bounds: None, loss: Loss::Squared };
        assert_eq!((target.scaled(300.0), target.unscaled(2.0)), (2.0, 300.0));
        let with = |shift, scale, bounds, loss| Target { shift, scale, bounds, loss, ..target.clone() };
        for (wrong, fault) in [
            (with(f64::NAN, 1.0, None, Loss::Squared), TargetFault::Scale),
            (with(0.0, 0.0, None, Loss::Squared), TargetFault::Scale),
            (with(0.0, 1e39, None, Loss::Squared), TargetFault::Scale),
            (with(0.0, 1e-60, None, Loss::Squared), TargetFault::Scale),
            (with(1.7e9, 50.0, None, Loss::Squared), TargetFault::Precision),
            (with(0.0, 1.0, Some([1.0, 1.0]), Loss::Squared), TargetFault::Bounds),
            (with(0.0, 1.0, None, Loss::Huber { delta: 0.0 }), TargetFault::Delta),
        ] {
            assert_eq!(wrong.check(), Err(fault), "{wrong:?}");
        }
    }
}
