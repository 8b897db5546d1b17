//! How fast keys become words, words become noise, and updates become integers, on one core, beside a memory copy.
//!
//! `cargo bench -p skep-privacy --bench noise`. Fixed seeds: the work of a sampler depends a little on what it draws. Each
//! line is the best of several passes, which is what the machine can do when nothing else disturbs it, and their median.
//! Bytes are those of results.
//!
//! Floors: a clipped coordinate takes a conversion, a product and a sum in registers of four doubles; a rounded one a
//! random byte, a product and two conversions in registers of eight, and a dozen operations on integers in registers of
//! sixteen; a rotated one fifteen sums, and two copies between the first and the second-level cache. What the random bytes
//! of rounding cost is seen where they are copied from memory instead.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

use rand_chacha::rand_core::{TryCryptoRng, TryRng};
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::matrix::{BandedMechanism, BandedRun, BandedSquareRoot, Decoder, Participation};
use skep_privacy::packing::{pack, unpack};
use skep_privacy::prg::{Key, Prg, PrgId, Rng};
use skep_privacy::quantities::{Adjacency, ClipNorm, Delta, NoiseMultiplier};
use skep_privacy::rotation::Rotation;
use skep_privacy::sampler::discrete_gaussian::DiscreteGaussian;
use skep_privacy::sampler::rounded_gaussian;
use skep_privacy::sum::Accumulator;
use skep_privacy::update::{QuantizedUpdate, Update};

fn main() {
    memory_copy();
    generator();
    let start = Instant::now();
    black_box(rounded_gaussian::sample(&mut Key::from_seed(1).stream(), 1));
    println!("{:<40} {:>8.1} ms", "rounded Gaussian, table", start.elapsed().as_secs_f64() * 1e3);
    for sigma in [1, 1000, 1_000_000, 5 << 20] {
        let mut noise = vec![0; SAMPLES];
        let mut prg = Key::from_seed(1).stream();
        report(&format!("rounded Gaussian, sigma {sigma}"), SAMPLES, 8, || {
            rounded_gaussian::fill(&mut prg, sigma, &mut noise);
        });
        black_box(&noise);
    }
    for (name, generator) in GENERATORS {
        let mut noise = vec![0; SAMPLES];
        let mut prg = Key::from_seed(1).substream_of(generator, 0);
        report(&format!("rounded Gaussian, sigma 1000, {name}"), SAMPLES, 8, || {
            rounded_gaussian::fill(&mut prg, 1000, &mut noise);
        });
        black_box(&noise);
    }
    discrete_gaussian();
    pipeline();
    correlated_noise();
}

/// One step of a run of correlated noise, and its decoding.
fn correlated_noise() {
    let grid = PrivateGrid::new(ClipNorm::new(1.0).expect("positive"), SAMPLES, 1000).expect("in range");
    for bands in [1, 16, 64] {
        let participation = Participation::new(bands as u64, 4).expect("in range");
        let matrix = BandedSquareRoot::new(bands, participation).expect("as many bands as separation");
        let z = NoiseMultiplier::new(1.0).expect("positive");
        let mechanism = BandedMechanism::new(matrix, grid, z).expect("in range");
        let delta = Delta::new(1e-5).expect("in range");
        let mut keeper = BudgetKeeper::new(Adjacency::ZeroOut, delta, None);
        let mut run = BandedRun::new(keeper.charge_run(mechanism.clone()).expect("there is no limit"));
        let mut decoder = Decoder::new(&mechanism);
        let mut step = || {
            run.release(Accumulator::new(Grid::from(grid)).finish(), &Key::from_seed(1), PrgId::ChaCha20)
                .expect("same grid")
        };
        for _ in 1..bands {
            decoder.decode(&step()).expect("in order");
        }
        let mut releases = Vec::new();
        report(&format!("release, {bands} bands"), SAMPLES, 8, || releases.push(step()));
        let mut releases = releases.iter();
        report(&format!("decode, {bands} bands"), SAMPLES, 8, || {
            drop(black_box(decoder.decode(releases.next().expect("as many passes")).expect("in order")));
        });
    }
}

/// What a plan can name.
const GENERATORS: [(&str, PrgId); 2] = [("ChaCha20", PrgId::ChaCha20), ("AES-256-CTR", PrgId::Aes256Ctr)];

/// What happens to one update on its way from a client into a release.
fn pipeline() {
    let clip = ClipNorm::new(1.0).expect("positive");
    let grid = PrivateGrid::new(clip, SAMPLES, 1000).expect("the shape is in range");
    let mut prg = Key::from_seed(1).stream();
    let values: Vec<f32> = (0..SAMPLES).map(|_| (prg.next_u64() >> 40) as f32 / 1e6 - 8.0).collect();
    let update = Update::new(values).expect("all numbers are finite");
    let quantize =
        |prg: &mut Prg| update.clone().clip(clip).quantize(&grid, prg).expect("the grid is the update's");
    let quantized = quantize(&mut prg);
    let bits = grid.encoding().wire_bits;
    let packed = pack(quantized.coordinates(), bits).expect("coordinates fit");
    let private = grid;
    let grid = Grid::from(grid);
    let mut sum = Accumulator::new(grid);

    report("check for what is not finite", SAMPLES, 4, || {
        drop(black_box(Update::new(update.values().to_vec())));
    });
    report("clip", SAMPLES, 4, || drop(black_box(update.clone().clip(clip))));
    for (name, generator) in GENERATORS {
        let mut prg = Key::from_seed(1).substream_of(generator, 0);
        report(&format!("clip and quantize, {name}"), SAMPLES, 4, || drop(black_box(quantize(&mut prg))));
    }
    let mut known = Known::new();
    report("clip and quantize, known bytes", SAMPLES, 4, || {
        drop(black_box(update.clone().clip(clip).quantize(&private, &mut known)));
    });
    let rotation = Rotation::new(Key::from_seed(2), SAMPLES);
    let mut vector = vec![1.0; SAMPLES];
    report("rotate", SAMPLES, 8, || rotation.forward(&mut vector).expect("the lengths agree"));
    report("pack", SAMPLES, 4, || drop(black_box(pack(quantized.coordinates(), bits))));
    report("unpack", SAMPLES, 4, || drop(black_box(unpack(&packed, SAMPLES, bits))));
    report("verify", SAMPLES, 4, || {
        drop(black_box(QuantizedUpdate::verify(quantized.coordinates().to_vec(), &grid)));
    });
    report("add to a sum", SAMPLES, 4, || sum.add(&quantized).expect("there is room"));
}

/// Bytes that were drawn before.
struct Known {
    bytes: Vec<u8>,
    next: usize,
}

impl Known {
    fn new() -> Self {
        let mut bytes = vec![0; 1 << 16];
        Key::from_seed(1).stream().fill_bytes(&mut bytes);
        Self { bytes, next: 0 }
    }
}

impl TryRng for Known {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|word| word as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.next = if self.next + bytes.len() > self.bytes.len() { 0 } else { self.next };
        bytes.copy_from_slice(&self.bytes[self.next..self.next + bytes.len()]);
        self.next += bytes.len();
        Ok(())
    }
}

impl TryCryptoRng for Known {}

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
    for (name, generator) in GENERATORS {
        let mut noise = vec![0; SAMPLES];
        let mut prg = Key::from_seed(1).substream_of(generator, 0);
        let sampler = DiscreteGaussian::new(64, 1).expect("the variance is in range");
        report(&format!("discrete Gaussian, sigma 8, {name}"), SAMPLES, 8, || {
            sampler.fill(&mut prg, &mut noise)
        });
        black_box(&noise);
    }
    let start = Instant::now();
    black_box(DiscreteGaussian::new(1 << 40, 1)).expect("the variance is in range");
    println!("{:<40} {:>8.1} ms", "discrete Gaussian, table", start.elapsed().as_secs_f64() * 1e3);
}

fn memory_copy() {
    let from = vec![1_u64; SAMPLES];
    let mut to = vec![0_u64; SAMPLES];
    report("memory copy", SAMPLES, 8, || black_box(&mut to).copy_from_slice(black_box(&from)));
}

fn generator() {
    let mut bytes = vec![0; 8 * SAMPLES];
    for (name, generator) in GENERATORS {
        let mut prg = Key::from_seed(1).substream_of(generator, 0);
        report(&format!("{name} words"), SAMPLES, 8, || prg.fill_bytes(black_box(&mut bytes)));
    }
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
    println!("{name:<40} {best:>8.1} M/s  (median {median:>8.1})  {:>6.2} GB/s", best * bytes as f64 / 1e3);
}
