//! Softmax cross-entropy, and the losses of numbers.

use crate::{Loss, Target};

/// Replaces the answers of a model that predicts a number by the gradient of `share` times the sum of their losses. `numbers` are in
/// their own unit. Gives the sum of the losses; not finite if an answer is not.
pub(super) fn of_numbers(answers: &mut [f32], numbers: &[f32], target: &Target, share: f64) -> f64 {
    let Target { loss, .. } = target;
    let errors = answers.iter_mut().zip(numbers).map(|(answer, &number)| {
        let error = f64::from(*answer) - f64::from(target.scaled(number));
        *answer = (loss.slope(error) * share) as f32;
        Loss::of(*loss, error)
    });
    errors.sum()
}

/// Replaces the logits of some predictions by the gradient of `share` times the sum of their cross-entropies:
/// share · (softmax − one-hot), and zero where there is no label. Gives the sum of the losses in nats; not finite if a logit is not.
pub(super) fn cross_entropy(logits: &mut [f32], labels: &[Option<usize>], share: f64) -> f64 {
    let classes = logits.len() / labels.len();
    let mut loss = 0.0;
    for (row, &label) in logits.chunks_exact_mut(classes).zip(labels) {
        let Some(label) = label else {
            row.fill(0.0);
            continue;
        };
        let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let target = f64::from(row[label]);
        // The exponentials are needed twice, and f32 has no room for their digits.
        let mut exponentials = [0.0; AT_ONCE];
        let mut sum = 0.0;
        for part in row.chunks(AT_ONCE) {
            for (exponential, &logit) in exponentials.iter_mut().zip(part) {
                *exponential = (f64::from(logit) - largest).exp();
                sum += *exponential;
            }
        }
        let again = row.len() > AT_ONCE;
        for part in row.chunks_mut(AT_ONCE) {
            for (exponential, logit) in exponentials.iter_mut().zip(part) {
                if again {
                    *exponential = (f64::from(*logit) - largest).exp();
                }
                *logit = (*exponential / sum * share) as f32;
            }
        }
        row[label] -= share as f32;
        loss += largest + sum.ln() - target;
    }
    loss
}

/// Classes whose exponentials are kept instead of computed twice.
const AT_ONCE: usize = 64;
