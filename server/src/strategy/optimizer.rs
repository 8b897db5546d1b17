//! Server optimizers: FedAvgM (Hsu, Qi and Brown, arXiv 1909.06335), and FedAdagrad, FedAdam and FedYogi (Reddi et al., arXiv
//! 2003.00295, algorithm 2).
//!
//! In the words of the papers, with Δ for the aggregate of the round, all of it coordinate by coordinate:
//!
//! ```text
//! FedAvgM      m ← β·m + Δ                                              x ← x + η·m
//! others       m ← β₁·m + (1 - β₁)·Δ                                    x ← x + η·m / (√v + τ)
//!   FedAdagrad v ← v + Δ²
//!   FedAdam    v ← β₂·v + (1 - β₂)·Δ²
//!   FedYogi    v ← v - (1 - β₂)·Δ²·sign(v - Δ²)
//! ```
//!
//! At first m is 0 and v is τ², the least that algorithm 2 allows. Like there, neither is corrected for how few rounds it has seen.

use skep_protocol::experiment::{SecondMoment, ServerOptimizer};

use super::ServerState;

/// What the learning rate is to be multiplied by: the direction of the step, after `aggregate` has entered `state`.
pub(super) fn direction(
    optimizer: ServerOptimizer,
    state: &mut ServerState,
    aggregate: Vec<f64>,
) -> Vec<f64> {
    match optimizer {
        ServerOptimizer::Sgd => aggregate,
        ServerOptimizer::Momentum { momentum } => {
            let first = started(&mut state.first_moment, aggregate.len(), 0.0);
            first.iter_mut().zip(&aggregate).for_each(|(m, delta)| *m = momentum * *m + delta);
            first.clone()
        }
        ServerOptimizer::Adaptive { second_moment, beta1, tau } => {
            let first = started(&mut state.first_moment, aggregate.len(), 0.0);
            let second = started(&mut state.second_moment, aggregate.len(), tau * tau);
            let mut direction = aggregate;
            for ((delta, m), v) in direction.iter_mut().zip(first).zip(second) {
                *m = beta1 * *m + (1.0 - beta1) * *delta;
                *v = second_moment_after(second_moment, *v, *delta * *delta);
                *delta = *m / (v.sqrt() + tau);
            }
            direction
        }
    }
}

fn second_moment_after(second_moment: SecondMoment, v: f64, square: f64) -> f64 {
    match second_moment {
        SecondMoment::Adagrad => v + square,
        SecondMoment::Adam { beta2 } => beta2 * v + (1.0 - beta2) * square,
        SecondMoment::Yogi { beta2 } => {
            let step = (1.0 - beta2) * square;
            if v > square {
                v - step
            } else if v < square {
                v + step
            } else {
                v
            }
        }
    }
}

/// The moment, which has a first value for each parameter before the first round.
fn started(moment: &mut Vec<f64>, parameters: usize, first: f64) -> &mut Vec<f64> {
    if moment.is_empty() {
        moment.resize(parameters, first);
    }
    moment
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of two rounds of one parameter in which the aggregate is 0.3, then -0.4.
    fn steps(optimizer: ServerOptimizer) -> [f64; 2] {
        let mut state = ServerState::default();
        [0.3, -0.4].map(|aggregate| direction(optimizer, &mut state, vec![aggregate])[0])
    }

    fn adaptive(second_moment: SecondMoment) -> ServerOptimizer {
        ServerOptimizer::Adaptive { second_moment, beta1: 0.5, tau: 0.1 }
    }

    #[track_caller]
    fn assert_close(found: [f64; 2], expected: [f64; 2]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
    }

    #[test]
    fn two_rounds_by_hand() {
        assert_close(steps(ServerOptimizer::Sgd), [0.3, -0.4]);
        // m = 0.3, then 0.5 * 0.3 - 0.4.
        assert_close(steps(ServerOptimizer::Momentum { momentum: 0.5 }), [0.3, -0.25]);
        // Of all three: m = 0.15, then 0.075 - 0.2 = -0.125; v starts from 0.01.
        // v = 0.01 + 0.09 = 0.1, then 0.26.
        let adagrad = steps(adaptive(SecondMoment::Adagrad));
        assert_close(adagrad, [0.15 / (0.1f64.sqrt() + 0.1), -0.125 / (0.26f64.sqrt() + 0.1)]);
        // v = 0.005 + 0.045 = 0.05, then 0.025 + 0.08 = 0.105.
        let adam = steps(adaptive(SecondMoment::Adam { beta2: 0.5 }));
        assert_close(adam, [0.15 / (0.05f64.sqrt() + 0.1), -0.125 / (0.105f64.sqrt() + 0.1)]);
        // v = 0.01 + 0.045 = 0.055, then 0.055 + 0.08 = 0.135.
        let yogi = steps(adaptive(SecondMoment::Yogi { beta2: 0.5 }));
        assert_close(yogi, [0.15 / (0.055f64.sqrt() + 0.1), -0.125 / (0.135f64.sqrt() + 0.1)]);
    }

    #[test]
    fn yogi_forgets_by_no_more_than_the_square() {
        let yogi = SecondMoment::Yogi { beta2: 0.5 };
        assert_eq!(second_moment_after(yogi, 1.0, 0.25), 0.875);
        assert_eq!(second_moment_after(yogi, 0.25, 0.25), 0.25);
    }
}
