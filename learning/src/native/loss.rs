//! Softmax cross-entropy.

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
