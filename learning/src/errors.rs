//! How good predicted numbers are: mean errors in the unit of the numbers, and the coefficient of determination.

use crate::Target;
use crate::metrics::{Evaluation, Scored};

/// Errors of predicted numbers, in their own unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// The mean distance of a prediction from the number.
    pub mean_absolute: f64,
    /// The mean square of that distance.
    pub mean_squared: f64,
    /// 1 less the squared errors over those of always predicting the mean of the numbers: 1 is perfect, 0 as good as their mean.
    /// `None` where all numbers are the same.
    pub r_squared: Option<f64>,
}

impl Errors {
    /// The root of the mean squared error, in the unit of the numbers.
    pub fn root_mean_squared(&self) -> f64 {
        self.mean_squared.sqrt()
    }
}

/// Errors in the making.
#[derive(Debug)]
pub(crate) struct ErrorTally<'t> {
    target: &'t Target,
    examples: usize,
    loss: f64,
    absolute: f64,
    squared: f64,
    /// Of the numbers: their mean, and the sum of their squared distances from it (Welford, 1962).
    mean: f64,
    spread: f64,
}

impl<'t> ErrorTally<'t> {
    pub(crate) fn new(target: &'t Target) -> Self {
        ErrorTally { target, examples: 0, loss: 0.0, absolute: 0.0, squared: 0.0, mean: 0.0, spread: 0.0 }
    }

    /// Counts what a model answers to an example of a number, which is in its own unit.
    pub(crate) fn record(&mut self, answer: f32, number: f32) {
        let Target { loss, .. } = self.target;
        self.loss += loss.of(f64::from(answer) - f64::from(self.target.scaled(number)));
        // As whoever asks the model for a prediction sees it.
        let (predicted, number) = (f64::from(self.target.unscaled(answer)), f64::from(number));
        let error = predicted - number;
        self.absolute += error.abs();
        self.squared += error * error;
        self.examples += 1;
        let away = number - self.mean;
        self.mean += away / self.examples as f64;
        self.spread += away * (number - self.mean);
    }

    /// The evaluation of all examples, of which there was at least one.
    pub(crate) fn finish(self) -> Evaluation {
        let examples = self.examples as f64;
        let errors = Errors {
            mean_absolute: self.absolute / examples,
            mean_squared: self.squared / examples,
            r_squared: (self.spread > 0.0).then(|| 1.0 - self.squared / self.spread),
        };
        Evaluation { examples: self.examples, loss: self.loss / examples, scored: Scored::Numbers(errors) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loss;

    #[test]
    fn errors_are_in_the_unit_of_the_numbers() {
        let target =
            Target { column: "price".into(), shift: 10.0, scale: 5.0, bounds: None, loss: Loss::Squared };
        let of = |pairs: &[(f32, f32)]| {
            let mut tally = ErrorTally::new(&target);
            pairs.iter().for_each(|&(answer, number)| tally.record(answer, number));
            tally.finish()
        };
        // Answers of 15 and 5 to numbers of 20 and 4: errors of 5 and 1, of 1 and 0.2 scales.
        let evaluation = of(&[(1.0, 20.0), (-1.0, 4.0)]);
        let errors = evaluation.errors().unwrap();
        assert_eq!((errors.mean_absolute, errors.mean_squared), (3.0, 13.0));
        // The numbers lie 8 from their mean.
        assert!((errors.r_squared.unwrap() - (1.0 - 26.0 / 128.0)).abs() < 1e-12);
        assert!((evaluation.loss - 0.52).abs() < 1e-6, "{}", evaluation.loss);
        assert_eq!(of(&[(1.0, 20.0), (2.0, 20.0)]).errors().unwrap().r_squared, None);
        assert_eq!(evaluation.classes(), None);
    }
}
