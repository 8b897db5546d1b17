//! How long questions to the accountant take.
//!
//! `cargo bench -p skep-privacy --bench accounting [WORD...]`, for the questions with all of these words in their names.
//!
//! The floor of one answer is its transforms: one forward and one inverse real transform of about 2^17 points at a width
//! of 1e-4, which `transform` below measures alone, for the direction of the neighbouring relation that decides, and the
//! same again where a tail bound cannot rule the other one out. Beside them stand an exponential or two, a logarithm
//! and a few dozen products for each of about 60 000 cells.

use std::hint::black_box;
use std::time::{Duration, Instant};

use skep_privacy::accounting::pld::Pld;
use skep_privacy::accounting::{Accountant, Composition, Event};
use skep_privacy::planner::Target;
use skep_privacy::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, Sampling, SamplingRate};

fn main() {
    let delta = Delta::new(1e-6).expect("in range");
    for steps in [1000, 5000, 20_000] {
        for width in [1e-3, 1e-4] {
            let training = composition(&[(0.01, 1.0, steps)]);
            report(&format!("epsilon, {steps} steps, width {width:e}"), || {
                Pld::with_width(&training, width).and_then(|pld| pld.epsilon(delta))
            });
        }
    }
    let groups: Vec<_> = (0..500).map(|group| (0.01, 1.0 + f64::from(group) * 1e-3, 2)).collect();
    let groups = composition(&groups);
    report("epsilon, 500 groups of 2 steps, width 1e-3", || {
        Pld::with_width(&groups, 1e-3).and_then(|pld| pld.epsilon(delta))
    });
    let epsilon = Epsilon::new(2.0).expect("in range");
    let target = Target { epsilon, delta, adjacency: Adjacency::AddOrRemove, accountant: Accountant::Pld };
    let sampling = Sampling::Poisson { rate: SamplingRate::new(0.01).expect("in range") };
    report("noise for epsilon 2 over 5000 steps", || target.noise_multiplier(sampling, 5000));
    report("transform, 2^17 points, there and back", transform);
}

/// One forward and one inverse transform.
fn transform() -> f64 {
    let mut planner = realfft::RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(1 << 17), planner.plan_fft_inverse(1 << 17));
    let (mut values, mut spectrum) = (forward.make_input_vec(), forward.make_output_vec());
    forward.process(&mut values, &mut spectrum).expect("the buffers have the length of the plan");
    inverse.process(&mut spectrum, &mut values).expect("the buffers have the length of the plan");
    values[0]
}

fn composition(groups: &[(f64, f64, u64)]) -> Composition {
    let mut composition = Composition::new(Adjacency::AddOrRemove);
    for (rate, sigma, steps) in groups {
        let rate = SamplingRate::new(*rate).expect("in range");
        let noise_multiplier = NoiseMultiplier::new(*sigma).expect("in range");
        composition.push(Event::PoissonGaussian { rate, noise_multiplier }, *steps);
    }
    composition
}

/// Prints the mean time of a question, asked for about half a second after once that is not counted.
fn report<T>(name: &str, mut question: impl FnMut() -> T) {
    if !std::env::args().skip(1).all(|word| word.starts_with('-') || name.contains(&word)) {
        return;
    }
    black_box(question());
    let (clock, start) = (Instant::now(), time_on_core());
    let mut runs = 0;
    while runs < 3 || clock.elapsed() < Duration::from_millis(500) {
        black_box(question());
        runs += 1;
    }
    let wall = clock.elapsed() / runs;
    match start.zip(time_on_core()) {
        Some((start, end)) => println!("{name:<45} core {:>9.2?}  wall {wall:>9.2?}", (end - start) / runs),
        None => println!("{name:<45} wall {wall:>9.2?}"),
    }
}

/// How long this thread has had a core, on Linux: unlike the wall clock, no other load lengthens it.
fn time_on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
