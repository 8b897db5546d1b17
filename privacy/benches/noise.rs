//! How fast keys become words, words become noise, and updates become integers, on one core, beside a memory copy.
//!
//! `cargo bench -p skep-privacy --bench noise`. Fixed seeds: the work of a sampler depends a little on what it draws. Each
//! line is the best of several passes, which is what the machine can do when nothing else disturbs it, and their median.

use std::hint::black_box;
use std::time::Instant;

use skep_privacy::prg::Key;
use skep_privacy::sampler::discrete_gaussian::DiscreteGaussian;
use skep_privacy::sampler::rounded_gaussian;

fn main() {
    memory_copy();
    generator();
    for sigma in [1, 1000, 1_000_000, 5 << 20] {
        let mut noise = vec![0; SAMPLES];
        let mut prg = Key::from_seed(1).stream();
        report(&format!("rounded Gaussian, sigma {sigma}"), SAMPLES, 8, || {
            rounded_gaussian::fill(&mut prg, sigma, &mut noise);
        });
        black_box(&noise);
    }
    discrete_gaussian();
}

/// Also tables, which are prepared once for a variance.
fn discrete_gaussian() {
    for sigma in [2, 8, 64, 1000, 1 << 20] {
        let mut noise = vec![0; SAMPLES];
        let mut prg = Key::from_seed(1).stream();
        let sampler = DiscreteGaussian::new(sigma * sigma, 1).expect("the variance is in range");
        report(&format!("discrete Gaussian, sigma {sigma}"), SAMPLES, 8, || {
            sampler.fill(&mut prg, &mut noise)
        });
        black_box(&noise);
    }
    let start = Instant::now();
    black_box(DiscreteGaussian::new(1 << 40, 1)).expect("the variance is in range");
    println!("{:<36} {:>8.1} ms", "discrete Gaussian, table", start.elapsed().as_secs_f64() * 1e3);
}

fn memory_copy() {
    let from = vec![1_u64; SAMPLES];
    let mut to = vec![0_u64; SAMPLES];
    report("memory copy", SAMPLES, 8, || black_box(&mut to).copy_from_slice(black_box(&from)));
}

fn generator() {
    let mut words = vec![0; SAMPLES];
    let mut prg = Key::from_seed(1).stream();
    report("ChaCha20 words", SAMPLES, 8, || prg.fill_u64(black_box(&mut words)));
}

/// Items of a pass: a megabyte of results, in a few milliseconds.
const SAMPLES: usize = 1 << 17;

const PASSES: usize = 101;

/// Times the passes and prints items a second and bytes of results a second.
fn report(name: &str, items: usize, bytes: usize, mut pass: impl FnMut()) {
    let mut seconds: Vec<f64> = (0..PASSES)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let rate = |seconds: f64| items as f64 / seconds / 1e6;
    let (best, median) = (rate(seconds[0]), rate(seconds[PASSES / 2]));
    println!("{name:<36} {best:>8.1} M/s  (median {median:>8.1})  {:>6.2} GB/s", best * bytes as f64 / 1e3);
}
