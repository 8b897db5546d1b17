//! How good a classifier is: accuracy, cross-entropy, confusion matrix and what follows from it.

use ndarray::{Array2, Axis};

/// What a model scores on some examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Number of examples scored, at least 1.
    pub examples: usize,
    /// Share of examples whose largest logit is that of their label, 0 to 1.
    pub accuracy: f64,
    /// Mean cross-entropy in nats; not finite if a logit is not.
    pub loss: f64,
    /// Which classes were taken for which.
    pub confusion: Confusion,
}

impl Evaluation {
    /// Of examples that are counted in `confusion`, at least one, whose cross-entropies add up to `loss`.
    pub(crate) fn new(confusion: Confusion, loss: f64) -> Self {
        let examples = confusion.counts.sum() as usize;
        let accuracy = confusion.accuracy().unwrap_or_default();
        Self { examples, accuracy, loss: loss / examples as f64, confusion }
    }
}

/// Counts of examples by true class (rows) and predicted class (columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    counts: Array2<u64>,
}

/// Scores of one class against the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Examples of the class.
    pub support: u64,
    /// Of those predicted to be of the class, the share that are; `None` if none was predicted.
    pub precision: Option<f64>,
    /// Of the examples of the class, the share predicted so; `None` if there is none.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall; `None` if the class neither occurs nor is predicted.
    pub f1: Option<f64>,
}

impl Confusion {
    /// No examples yet, of `classes` classes.
    pub fn new(classes: usize) -> Self {
        Self { counts: Array2::zeros((classes, classes)) }
    }

    /// Counts one example. Both classes are below the number of classes.
    ///
    /// # Panics
    /// If one is not: the caller mixed up two models.
    pub fn record(&mut self, truth: usize, predicted: usize) {
        self.counts[[truth, predicted]] += 1;
    }

    /// The counts, true class x predicted class.
    pub fn counts(&self) -> &Array2<u64> {
        &self.counts
    }

    /// Share of examples on the diagonal, 0 to 1; `None` without examples.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.counts.diag().sum(), self.counts.sum())
    }

    /// Scores of every class, in order.
    pub fn class_scores(&self) -> Vec<ClassScores> {
        let predicted = self.counts.sum_axis(Axis(0));
        let support = self.counts.sum_axis(Axis(1));
        let right = self.counts.diag();
        (0..right.len())
            .map(|class| ClassScores {
                support: support[class],
                precision: share(right[class], predicted[class]),
                recall: share(right[class], support[class]),
                f1: share(2 * right[class], predicted[class] + support[class]),
            })
            .collect()
    }
}

/// Cross-entropy in nats of the softmax of `logits` against `label`, computed in f64. Not finite
/// if a logit is not.
pub(crate) fn cross_entropy(logits: &[f32], label: usize) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    largest + sum.ln() - f64::from(logits[label])
}

/// The softmax of `logits`, which are finite, computed in f64.
pub(crate) fn probabilities(logits: &[f32]) -> Vec<f32> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let powers: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// The class with the largest logit, the first of several.
pub(crate) fn predicted_class(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = class;
        }
    }
    best
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_scores_match_a_count_by_hand() {
        let mut confusion = Confusion::new(3);
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0)] {
            confusion.record(truth, predicted);
        }
        assert_eq!(confusion.accuracy(), Some(0.6));
        let scores = confusion.class_scores();
        assert_eq!(
            scores[0],
            ClassScores {
                support: 3,
                precision: Some(2.0 / 3.0),
                recall: Some(2.0 / 3.0),
                f1: Some(2.0 / 3.0),
            }
        );
        assert_eq!(scores[1].precision, Some(0.5));
        assert_eq!((scores[2].support, scores[2].f1), (0, None));
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes() {
        let loss = cross_entropy(&[7.0; 10], 3);
        assert!((loss - 10.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn cross_entropy_survives_large_logits_and_shows_broken_ones() {
        assert_eq!(cross_entropy(&[1e30, 0.0], 0), 0.0);
        assert_eq!(cross_entropy(&[1e30, 0.0], 1), f64::from(1e30_f32));
        assert!(cross_entropy(&[f32::NAN, 0.0], 1).is_nan());
        assert!(!cross_entropy(&[f32::INFINITY, 0.0], 1).is_finite());
    }

    #[test]
    fn the_first_of_equal_logits_is_predicted() {
        assert_eq!(predicted_class(&[0.0, 2.0, 2.0]), 1);
    }
}
