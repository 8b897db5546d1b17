//! How good a classifier is: accuracy, cross-entropy, confusion matrix, ranking, calibration, and what follows from them.

use ndarray::{Array2, Axis};

use crate::Errors;

/// What a model scores on some examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Number of examples scored, at least 1.
    pub examples: usize,
    /// Mean cross-entropy in nats, or the mean loss of scaled numbers; not finite if an answer is not.
    pub loss: f64,
    /// How good its answers are.
    pub scored: Scored,
}

/// How good answers are, by what is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Scored {
    /// Classes.
    Classes(Box<Classification>),
    /// Numbers.
    Numbers(Errors),
}

/// How good a classifier is.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Share of examples whose largest logit is that of their label, 0 to 1.
    pub accuracy: f64,
    /// Which classes were taken for which.
    pub confusion: Confusion,
    /// How often the model is right when it says how sure it is.
    pub calibration: Calibration,
    /// The probabilities of all classes for each example; none beyond [`MAX_RANKED`] numbers.
    ranking: Option<Ranking>,
}

/// The most probabilities that are kept to rank examples by.
pub const MAX_RANKED: usize = 1 << 24;

impl Evaluation {
    /// Of examples whose logits, one a class, and labels are known, at least one.
    ///
    /// # Panics
    /// If a label is not below the number of classes: the caller mixed up two models.
    pub fn of_logits(classes: usize, examples: &[(&[f32], usize)]) -> Self {
        let mut tally = Tally::new(classes, examples.len());
        examples.iter().for_each(|(logits, label)| tally.record(logits, *label));
        tally.finish()
    }

    /// How good it tells classes apart, if it does.
    pub fn classes(&self) -> Option<&Classification> {
        match &self.scored {
            Scored::Classes(classes) => Some(classes),
            Scored::Numbers(_) => None,
        }
    }

    /// How good it predicts numbers, if it does.
    pub fn errors(&self) -> Option<&Errors> {
        match &self.scored {
            Scored::Classes(_) => None,
            Scored::Numbers(errors) => Some(errors),
        }
    }

    /// Share of examples whose class is found, where there are classes.
    pub fn accuracy(&self) -> Option<f64> {
        self.classes().map(|classes| classes.accuracy)
    }

    /// The exponential of the loss: among how many equally probable classes one would do as well. Of numbers there is none.
    pub fn perplexity(&self) -> Option<f64> {
        self.classes().map(|_| self.loss.exp())
    }
}

impl Classification {
    /// For each class, the area under the curve of true against false alarms of telling it from all others: the probability
    /// that an example of the class has a larger probability of it than one of another class, ties counted as half (Hanley and
    /// McNeil, 1982). `None` for a class that no or every example has, and for all where there were more than
    /// [`MAX_RANKED`] probabilities.
    pub fn roc_auc(&self) -> Vec<Option<f64>> {
        let classes = self.confusion.counts.nrows();
        match &self.ranking {
            Some(ranking) => (0..classes).map(|class| ranking.area(class, classes)).collect(),
            None => vec![None; classes],
        }
    }

    /// The mean of [`Classification::roc_auc`] over the classes that have one.
    pub fn mean_roc_auc(&self) -> Option<f64> {
        let areas: Vec<f64> = self.roc_auc().into_iter().flatten().collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    }
}

/// An evaluation in the making.
#[derive(Debug)]
pub(crate) struct Tally {
    confusion: Confusion,
    calibration: Calibration,
    ranking: Option<Ranking>,
    loss: f64,
}

impl Tally {
    /// Of a model of `classes` classes on `examples` examples, of which none is there yet.
    pub(crate) fn new(classes: usize, examples: usize) -> Self {
        let ranked = examples.saturating_mul(classes) <= MAX_RANKED;
        Tally {
            confusion: Confusion::new(classes),
            calibration: Calibration::default(),
            ranking: ranked.then(Ranking::default),
            loss: 0.0,
        }
    }

    /// Counts an example of class `label`.
    pub(crate) fn record(&mut self, logits: &[f32], label: usize) {
        let predicted = predicted_class(logits);
        let probabilities = probabilities(logits);
        self.confusion.record(label, predicted);
        self.calibration.record(probabilities[predicted], label == predicted);
        self.loss += cross_entropy(logits, label);
        if let Some(ranking) = &mut self.ranking {
            ranking.labels.push(label as u32);
            ranking.probabilities.extend(probabilities);
        }
    }

    /// The evaluation of all examples, of which there was at least one.
    pub(crate) fn finish(self) -> Evaluation {
        let Tally { confusion, calibration, ranking, loss } = self;
        let examples = confusion.counts.sum() as usize;
        let accuracy = confusion.accuracy().unwrap_or_default();
        let classes = Classification { accuracy, confusion, calibration, ranking };
        Evaluation { examples, loss: loss / examples as f64, scored: Scored::Classes(Box::new(classes)) }
    }
}

/// Labels, and the probabilities of all classes, example by example.
#[derive(Debug, Clone, Default, PartialEq)]
struct Ranking {
    labels: Vec<u32>,
    probabilities: Vec<f32>,
}

impl Ranking {
    fn area(&self, class: usize, classes: usize) -> Option<f64> {
        let mut ranked: Vec<(f32, bool)> = self
            .labels
            .iter()
            .zip(self.probabilities.chunks_exact(classes))
            .map(|(&label, probabilities)| (probabilities[class], label as usize == class))
            .collect();
        ranked.sort_unstable_by(|(one, _), (other, _)| one.total_cmp(other));
        let of_class = ranked.iter().filter(|(_, is_of_class)| *is_of_class).count() as u64;
        let others = ranked.len() as u64 - of_class;
        // Pairs in the right order, twice, so that half a pair is whole; Mann and Whitney's U.
        let (mut below, mut pairs) = (0_u64, 0_u64);
        for equal in ranked.chunk_by(|(one, _), (other, _)| one == other) {
            let tied = equal.iter().filter(|(_, is_of_class)| *is_of_class).count() as u64;
            let tied_others = equal.len() as u64 - tied;
            pairs += tied * (2 * below + tied_others);
            below += tied_others;
        }
        share(pairs, 2 * of_class * others)
    }
}

/// How sure a model is against how often it is right: examples by the probability of the predicted class, in [`BINS`] bins of
/// equal width (Guo et al., "On Calibration of Modern Neural Networks", 2017).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    bins: [Bin; BINS],
}

/// Examples of which a model is about equally sure.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bin {
    /// How many there are.
    pub examples: u64,
    /// Of how many the predicted class is right.
    pub right: u64,
    /// The sum of their predicted classes' probabilities.
    pub confidence: f64,
}

/// Bins of a calibration.
pub const BINS: usize = 15;

impl Calibration {
    /// From bins that were counted elsewhere.
    pub fn from_bins(bins: [Bin; BINS]) -> Self {
        Calibration { bins }
    }

    fn record(&mut self, confidence: f32, right: bool) {
        let confidence = f64::from(confidence);
        // What is no number is at the bottom.
        let bin = &mut self.bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.examples += 1;
        bin.right += u64::from(right);
        bin.confidence += confidence;
    }

    /// The bins, from the least sure on; number i is of probabilities from i / [`BINS`] on.
    pub fn bins(&self) -> &[Bin; BINS] {
        &self.bins
    }

    /// The expected calibration error: the mean difference between how sure the model is and how often it is right, each bin
    /// by its examples, 0 to 1; `None` without examples, not finite if a probability is not.
    pub fn error(&self) -> Option<f64> {
        let examples: u64 = self.bins.iter().map(|bin| bin.examples).sum();
        let off: f64 = self.bins.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum();
        (examples > 0).then(|| off / examples as f64)
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

/// Precision, recall and F1 of all classes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Of those predicted to be of a class, the share that are.
    pub precision: f64,
    /// Of the examples of a class, the share predicted so.
    pub recall: f64,
    /// Harmonic mean of the two, class by class.
    pub f1: f64,
}

/// How the scores of classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Every class counts the same.
    Macro,
    /// Every class counts as many times as it has examples.
    Weighted,
    /// Every example counts the same: then all three scores are the accuracy.
    Micro,
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

    /// Scores over all classes that occur or are predicted, where a score that a class does not have counts as 0, as
    /// scikit-learn has it; `None` without examples.
    pub fn average(&self, average: Average) -> Option<Scores> {
        let accuracy = self.accuracy()?;
        let classes: Vec<_> = self.class_scores().into_iter().filter(|scores| scores.f1.is_some()).collect();
        let weight = |scores: &ClassScores| match average {
            Average::Weighted => scores.support as f64,
            Average::Macro | Average::Micro => 1.0,
        };
        let total: f64 = classes.iter().map(weight).sum();
        let mean = |score: fn(&ClassScores) -> Option<f64>| {
            classes.iter().map(|scores| weight(scores) * score(scores).unwrap_or(0.0)).sum::<f64>() / total
        };
        Some(match average {
            Average::Micro => Scores { precision: accuracy, recall: accuracy, f1: accuracy },
            Average::Macro | Average::Weighted => Scores {
                precision: mean(|scores| scores.precision),
                recall: mean(|scores| scores.recall),
                f1: mean(|scores| scores.f1),
            },
        })
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

    /// Counted by hand, by the rules of scikit-learn with `zero_division=0`.
    #[test]
    fn averages_leave_out_what_does_not_occur_and_take_what_is_undefined_as_zero() {
        let mut confusion = Confusion::new(4);
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 1)] {
            confusion.record(truth, predicted);
        }
        let near = |average, expected: [f64; 3]| {
            let Scores { precision, recall, f1 } = confusion.average(average).unwrap();
            for (has, expected) in [precision, recall, f1].into_iter().zip(expected) {
                assert!((has - expected).abs() < 1e-12, "{average:?}: {precision} {recall} {f1}");
            }
        };
        near(Average::Macro, [4.0 / 9.0, 7.0 / 18.0, 0.4]);
        near(Average::Weighted, [11.0 / 18.0, 0.5, 8.0 / 15.0]);
        near(Average::Micro, [0.5; 3]);
        assert_eq!(Confusion::new(3).average(Average::Macro), None);
    }

    /// An evaluation of examples with the given probabilities of two classes' second.
    fn of_two(examples: &[(f32, usize)]) -> Classification {
        let mut tally = Tally::new(2, examples.len());
        for &(probability, label) in examples {
            tally.record(&[0.0, (probability / (1.0 - probability)).ln()], label);
        }
        tally.finish().classes().unwrap().clone()
    }

    #[test]
    fn the_area_under_the_curve_counts_pairs_and_half_of_ties() {
        let evaluation = of_two(&[(0.1, 0), (0.4, 0), (0.35, 1), (0.8, 1)]);
        assert_eq!(evaluation.roc_auc(), [Some(0.75), Some(0.75)]);
        // Of 6 pairs 3 are in order and 2 are tied.
        let ties = of_two(&[(0.3, 0), (0.5, 0), (0.7, 0), (0.5, 1), (0.7, 1)]);
        assert_eq!(ties.roc_auc()[1], Some((3.0 + 2.0 / 2.0) / 6.0));
        assert_eq!(of_two(&[(0.3, 0), (0.7, 0)]).roc_auc(), [None, None]);
        assert_eq!(of_two(&[(0.3, 0)]).mean_roc_auc(), None);
        assert_eq!(of_two(&[(0.5, 0), (0.5, 1)]).mean_roc_auc(), Some(0.5));
    }

    #[test]
    fn too_many_examples_to_rank_are_evaluated_without() {
        let mut tally = Tally::new(2, MAX_RANKED / 2 + 1);
        tally.record(&[0.0, 1.0], 1);
        let evaluation = tally.finish();
        let classes = evaluation.classes().unwrap();
        assert_eq!((classes.roc_auc(), classes.accuracy), (vec![None, None], 1.0));
        let half = Evaluation::of_logits(2, &[(&[0.0, 0.0], 1)]);
        assert!((half.perplexity().unwrap() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn calibration_is_the_distance_between_sure_and_right() {
        // Two at 0.9 of which one is right, two at 0.6 of which both are: (2 |0.9 - 0.5| + 2 |0.6 - 1|) / 4.
        let evaluation = of_two(&[(0.9, 1), (0.9, 0), (0.6, 1), (0.6, 1)]);
        let error = evaluation.calibration.error().unwrap();
        assert!((error - 0.4).abs() < 1e-6, "{error}");
        let bins = evaluation.calibration.bins();
        assert_eq!((bins[13].examples, bins[13].right), (2, 1));
        assert_eq!((bins[9].examples, bins[9].right), (2, 2));
        assert_eq!(Calibration::default().error(), None);
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
