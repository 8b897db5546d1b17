//! What training with DP-SGD costs, and how sure that number is.
//!
//! `cargo run --release -p skep-privacy --example account_dp_sgd`

use skep_privacy::accounting::{Accountant, Composition, Event};
use skep_privacy::planner::{Target, cost};
use skep_privacy::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, Sampling, SamplingRate, Unit};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 60 000 examples, batches of 256 on average, 60 epochs.
    let rate = SamplingRate::new(256.0 / 60_000.0)?;
    let steps = 60_000 / 256 * 60;
    let delta = Delta::new(1e-5)?;

    let mut training = Composition::new(Adjacency::AddOrRemove);
    training.push(Event::PoissonGaussian { rate, noise_multiplier: NoiseMultiplier::new(1.1)? }, steps);
    for accountant in [Accountant::Rdp, Accountant::Pld, Accountant::PldOptimistic] {
        let cost = cost(&training, accountant, delta, Unit::Example)?;
        println!("{accountant:>14}: epsilon {:.4} at delta {delta}", cost.epsilon);
    }

    let target = Target {
        epsilon: Epsilon::new(2.0)?,
        delta,
        adjacency: Adjacency::AddOrRemove,
        accountant: Accountant::Pld,
    };
    let noise = target.noise_multiplier(Sampling::Poisson { rate }, steps)?;
    println!("for epsilon {} the noise multiplier must be at least {noise:.4}", target.epsilon);
    Ok(())
}
