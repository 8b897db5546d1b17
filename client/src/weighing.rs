//! What an update counts for, and what its client says beside it, by the weighting of the plan. Only in mode `none`: all of it
//! follows from a client's data, and none of it is in a sensitivity.
//!
//! With Δ for the update, n for the client's examples, and w for n/max, at most 1:
//!
//! ```text
//! uniform      Δ
//! examples     w·Δ, w
//! per step     w·Δ/a, w·a/1024, w          FedNova (Wang et al., arXiv 2007.07481): a is the norm of the steps' weights in Δ
//! by loss      F^q·Δ, h/64                 q-FedAvg (Li et al., arXiv 1905.10497, algorithm 2): F is the loss of the base model
//!              h = F^q + q·F^(q−1)·‖Δ‖²/(η·ln C)
//! controlled   Δ, −c − Δ/(K·η)             SCAFFOLD (Karimireddy et al., arXiv 1910.06378, option II): K steps, control variate c
//! ```
//!
//! F is in units of ln C, the loss of a guess among C classes, which cancels in the mean and keeps its powers on the grid. So do the
//! constants 1024 and 64.

use skep_privacy::update::{NonFinite, Update};
use skep_protocol::experiment::{LOSS_UNIT, Optimizer, STEPS_UNIT, Weighting};

/// What a weighting may depend on beside the update.
pub(crate) struct Facts<'a> {
    /// Examples trained on.
    pub(crate) examples: usize,
    /// Steps taken.
    pub(crate) steps: u64,
    /// η of these steps.
    pub(crate) learning_rate: f64,
    /// What made steps of gradients.
    pub(crate) optimizer: Optimizer,
    /// C.
    pub(crate) classes: u32,
    /// Mean loss of the base model in nats, where the weighting asks for it.
    pub(crate) base_loss: Option<f64>,
    /// The server's control variate c, where there is one.
    pub(crate) server_control: &'a [f32],
}

/// The coordinates that a client sends. Whether they are finite is left to the grid.
pub(crate) fn weigh(
    mut values: Vec<f32>,
    weighting: Weighting,
    facts: &Facts<'_>,
) -> Result<Vec<f32>, NonFinite> {
    let share = |max: u32| (facts.examples as f64 / f64::from(max)).min(1.0);
    match weighting {
        Weighting::Uniform => Ok(values),
        Weighting::Examples { max } => {
            values.push(1.0);
            Update::new(values)?.scaled(share(max)).map(Update::into_values)
        }
        Weighting::PerStep { max } => {
            let (weight, accumulated) = (share(max), accumulated(facts));
            let mut update = Update::new(values)?.scaled(weight / accumulated)?.into_values();
            update.push((weight * accumulated / STEPS_UNIT) as f32);
            update.push(weight as f32);
            Ok(update)
        }
        Weighting::ByLoss { q } => {
            let guess = f64::from(facts.classes).ln();
            // A NaN stays one, and is refused.
            let loss = (facts.base_loss.unwrap_or(f64::NAN) / guess).clamp(LEAST_LOSS, f64::INFINITY);
            let update = Update::new(values)?;
            let squared = update.norm().powi(2);
            let h = loss.powf(q) + q * loss.powf(q - 1.0) * squared / (facts.learning_rate * guess);
            let mut update = update.scaled(loss.powf(q))?.into_values();
            update.push((h / LOSS_UNIT) as f32);
            Ok(update)
        }
        Weighting::Controlled => {
            let per_step = 1.0 / (facts.steps as f64 * facts.learning_rate);
            let change =
                |(&delta, &control): (&f32, &f32)| (-f64::from(control) - f64::from(delta) * per_step) as f32;
            let changes: Vec<f32> = values.iter().zip(facts.server_control).map(change).collect();
            values.extend(changes);
            Ok(values)
        }
    }
}

/// How much the gradients of all steps count in an update, in learning rates: a step, and with momentum ρ what is left of it in
/// those after it, (τ − ρ·(1 − ρ^τ)/(1 − ρ))/(1 − ρ) for τ steps (2007.07481, section 3.3).
fn accumulated(facts: &Facts<'_>) -> f64 {
    let steps = facts.steps as f64;
    match facts.optimizer {
        Optimizer::Sgd { momentum, .. } if momentum > 0.0 => {
            (steps - momentum * (1.0 - momentum.powf(steps)) / (1.0 - momentum)) / (1.0 - momentum)
        }
        _ => steps,
    }
}

/// No loss counts as smaller, so that none is raised to a power below 0 as 0; q-FedAvg's authors add as much.
const LEAST_LOSS: f64 = 1e-10;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(examples: usize, steps: u64) -> Facts<'static> {
        let (optimizer, learning_rate, classes) = (Optimizer::PLAIN, 0.5, 2);
        let base_loss = Some(2.0 * 2.0f64.ln());
        Facts { examples, steps, learning_rate, optimizer, classes, base_loss, server_control: &[0.5, -1.0] }
    }

    fn weighed(weighting: Weighting, facts: &Facts<'_>) -> Vec<f64> {
        let update = weigh(vec![3.0, -4.0], weighting, facts).unwrap();
        update.into_iter().map(f64::from).collect()
    }

    #[test]
    fn what_clients_send_by_hand() {
        assert_eq!(weighed(Weighting::Uniform, &facts(5, 2)), [3.0, -4.0]);
        assert_eq!(weighed(Weighting::Examples { max: 10 }, &facts(5, 2)), [1.5, -2.0, 0.5]);
        assert_eq!(weighed(Weighting::Examples { max: 4 }, &facts(5, 2)), [3.0, -4.0, 1.0]);
        // Half the weight, over two steps.
        let per_step = weighed(Weighting::PerStep { max: 10 }, &facts(5, 2));
        assert_eq!(per_step, [0.75, -1.0, 1.0 / 1024.0, 0.5]);
        // The loss is 2 guesses. F^1 = 2, and h = 2 + 1·1·25/(0.5·ln 2).
        let by_loss = weighed(Weighting::ByLoss { q: 1.0 }, &facts(5, 2));
        assert_eq!(by_loss[..2], [6.0, -8.0]);
        assert!((by_loss[2] - (2.0 + 50.0 / 2.0f64.ln()) / 64.0).abs() < 1e-6, "{by_loss:?}");
        assert_eq!(weighed(Weighting::ByLoss { q: 0.0 }, &facts(5, 2)), [3.0, -4.0, 1.0 / 64.0]);
        // Two steps of 0.5: -c − Δ/1.
        assert_eq!(weighed(Weighting::Controlled, &facts(5, 2)), [3.0, -4.0, -3.5, 5.0]);
    }

    #[test]
    fn momentum_adds_what_is_left_of_earlier_steps() {
        let optimizer = Optimizer::Sgd { momentum: 0.5, nesterov: false, weight_decay: 0.0 };
        // The first of three gradients counts 1 + 0.5 + 0.25, the second 1.5, the third 1.
        assert_eq!(accumulated(&Facts { optimizer, ..facts(1, 3) }), 4.25);
        assert_eq!(accumulated(&facts(1, 3)), 3.0);
    }

    #[test]
    fn a_loss_that_is_no_number_is_refused() {
        let facts = Facts { base_loss: Some(f64::NAN), ..facts(1, 1) };
        assert!(weigh(vec![1.0], Weighting::ByLoss { q: 1.0 }, &facts).is_err());
    }
}
