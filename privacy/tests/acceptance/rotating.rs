//! 15: rotation, and how many bits sums of rotated updates take in arithmetic modulo 2ᵇ.
//!
//! A coordinate of the sum of n rotated updates of norm X and as many noise shares has a standard deviation of at most
//! s = √(X²n²/d + (1/4 + σ²)n), all updates being equal at worst (Kairouz, Liu and Steinke, arXiv 2102.06387, section 4);
//! it wraps beyond ±k·s where 2ᵇ ≥ 2ks. For a normal variable that has a chance of 6.3e-5 at k = 4 and 5.7e-7 at k = 5,
//! so k = 5 is the least whole k that keeps it below 2⁻²⁰ = 9.5e-7.

use std::sync::LazyLock;

use skep_privacy::grid::{PrivateGrid, STEPS_PER_CLIP};
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::rotation::Rotation;
use skep_privacy::sampler::discrete_gaussian::DiscreteGaussian;
use skep_privacy::sampler::rounded_gaussian;
use skep_privacy::update::{ClippedUpdate, Update};

use crate::clip_norm;
use crate::statistics::normal_cdf;

#[test]
fn t15_the_inverse_undoes_a_rotation() {
    for len in [1, 2, 3, 1000, 1 << 15, (1 << 15) + 1, 100_003] {
        let rotation = Rotation::new(Key::from_seed(15), len);
        let vector: Vec<f64> = normals(150, len).iter().map(|x| f64::from(*x)).collect();
        let mut turned = vector.clone();
        rotation.forward(&mut turned).unwrap();
        assert!(len < 10 || vector.iter().zip(&turned).all(|(x, y)| x != y));
        rotation.inverse(&mut turned).unwrap();
        let worst = vector.iter().zip(&turned).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-9, "{len}: {worst}");
    }
}

/// A million roundings. Four standard errors, as measured, in three directions: alpha = 2e-4. The bias of every single
/// coordinate: unit tests of `update`.
#[test]
fn t15_rotated_and_rounded_updates_have_no_bias() {
    const DIMENSION: usize = 1000;
    const ROUNDINGS: usize = 1024;
    let grid = PrivateGrid::new(clip_norm(1.0), DIMENSION, 1).unwrap();
    let mut values: Vec<f32> = normals(151, DIMENSION).iter().map(|x| x / 100.0).collect();
    values[7] = 0.8;
    let directions = [
        values.iter().map(|x| f64::from(*x)).collect(),
        vec![1.0; DIMENSION],
        normals(152, DIMENSION).iter().map(|x| f64::from(*x)).collect(),
    ];
    let rotation = Rotation::new(Key::from_seed(153), DIMENSION);
    let update = Update::new(values.clone()).unwrap().clip(grid.clip());
    assert!(update.is_unclipped());
    let update = update.rotate(&rotation).unwrap();
    let mut rng = Key::from_seed(154).stream();
    let mut errors = [const { Vec::new() }; 3];
    for _ in 0..ROUNDINGS {
        let q = update.clone().quantize(&grid, &mut rng).unwrap();
        let mut found: Vec<f64> = q.coordinates().iter().map(|q| f64::from(*q) * grid.step()).collect();
        rotation.inverse(&mut found).unwrap();
        for (errors, direction) in errors.iter_mut().zip(&directions) {
            let error = found.iter().zip(&values).zip(direction).map(|((y, x), u)| (y - f64::from(*x)) * u);
            errors.push(error.sum::<f64>());
        }
    }
    for errors in errors {
        let n = ROUNDINGS as f64;
        let mean = errors.iter().sum::<f64>() / n;
        let variance = errors.iter().map(|error| (error - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!(variance > 0.0 && mean.abs() < 4.0 * (variance / n).sqrt(), "{mean} of {}", variance.sqrt());
    }
}

const CLIENTS: usize = 4;
const DIMENSION: usize = 1 << 15;
/// The deviation of a noise share, in grid steps: about as large as a rotated coordinate, so that both count.
const SHARE: u64 = 1 << 13;

/// Its table is prepared once.
static NOISE: LazyLock<DiscreteGaussian> = LazyLock::new(|| DiscreteGaussian::new(SHARE * SHARE, 1).unwrap());

/// s, in grid steps.
fn deviation() -> f64 {
    let (n, d, x) = (CLIENTS as f64, DIMENSION as f64, STEPS_PER_CLIP as f64);
    (x * x * n * n / d + (0.25 + (SHARE * SHARE) as f64) * n).sqrt()
}

/// The least b with 2ᵇ ≥ 2ks.
fn planned_bits(k: f64) -> u32 {
    (2.0 * k * deviation()).log2().ceil() as u32
}

/// Four equal updates, so the worst of cases, with four noise shares: 2²⁴ coordinates of sums, none of which wraps. Were
/// the chance 2⁻²⁰, that would have one of 1e-7. Beyond four and five deviations there are as many as a normal variable
/// has, which is what k rests on: five standard deviations of the count at the one, and at most 32 of 9.6 at the other,
/// alpha = 1e-6 in all.
#[test]
fn t15_sums_of_rotated_updates_wrap_less_than_once_in_a_million() {
    const SUMS: u64 = 512;
    let beyond = |k: f64| 2.0 * normal_cdf(-k);
    assert!(beyond(4.0) > 2_f64.powi(-20) && beyond(5.0) < 2_f64.powi(-20));
    let update = Update::new(normals(155, DIMENSION)).unwrap().clip(clip_norm(1.0));
    let bits = planned_bits(5.0);
    let (mut wrapped, mut at_four, mut at_five) = (0, 0, 0);
    for round in 0..SUMS {
        let rotation = Rotation::new(Key::from_seed(156).derive(Purpose::Rotation, round, 0), DIMENSION);
        let (sum, decoded) = add_up(&update.clone().rotate(&rotation).unwrap(), round, bits);
        wrapped += sum.iter().zip(&decoded).filter(|(sum, decoded)| sum != decoded).count();
        at_four += sum.iter().filter(|sum| sum.abs() as f64 > 4.0 * deviation()).count();
        at_five += sum.iter().filter(|sum| sum.abs() as f64 > 5.0 * deviation()).count();
    }
    let n = SUMS as f64 * DIMENSION as f64;
    let expected = n * beyond(4.0);
    assert!((at_four as f64 - expected).abs() < 5.0 * expected.sqrt(), "{at_four} instead of {expected}");
    assert!(at_five <= 32, "{at_five} instead of {}", n * beyond(5.0));
    assert_eq!(wrapped, 0);
}

/// A model of which one parameter learned: unrotated, it wraps.
#[test]
fn t15_a_spike_wraps_unless_it_is_rotated() {
    let mut values = vec![0.0; DIMENSION];
    values[1234] = 1.0;
    let spike = Update::new(values).unwrap().clip(clip_norm(1.0));
    let rotation = Rotation::new(Key::from_seed(157), DIMENSION);
    let (sum, decoded) = add_up(&spike, 0, planned_bits(5.0));
    let wrapped: Vec<_> = (0..DIMENSION).filter(|&i| sum[i] != decoded[i]).collect();
    assert_eq!(wrapped, [1234]);
    let (sum, decoded) = add_up(&spike.rotate(&rotation).unwrap(), 1, planned_bits(5.0));
    assert!(sum == decoded);
}

/// The sum of what all clients send, and what is decoded from its residues modulo 2ᵇ.
fn add_up(update: &ClippedUpdate, round: u64, bits: u32) -> (Vec<i64>, Vec<i64>) {
    let grid = PrivateGrid::new(update.clip(), DIMENSION, CLIENTS as u32).unwrap();
    let (mut sum, mut residues) = (vec![0_i64; DIMENSION], vec![0_u64; DIMENSION]);
    for client in 0..CLIENTS as u64 {
        let keys = [Purpose::Rounding, Purpose::Noise]
            .map(|purpose| Key::from_seed(158).derive(purpose, round, client));
        let [mut rounding, mut share] = keys.map(|key| key.stream());
        let q = update.clone().quantize(&grid, &mut rounding).unwrap();
        for ((sum, residue), q) in sum.iter_mut().zip(&mut residues).zip(q.coordinates()) {
            let sent = i64::from(*q) + NOISE.sample(&mut share);
            *sum += sent;
            *residue = residue.wrapping_add(sent as u64) % (1 << bits);
        }
    }
    let centred = |residue: &u64| (residue << (64 - bits)) as i64 >> (64 - bits);
    let decoded = residues.iter().map(centred).collect();
    (sum, decoded)
}

/// Standard normal numbers.
fn normals(seed: u64, len: usize) -> Vec<f32> {
    let mut noise = vec![0; len];
    rounded_gaussian::fill(&mut Key::from_seed(seed).stream(), 1 << 20, &mut noise);
    noise.iter().map(|x| *x as f32 / (1 << 20) as f32).collect()
}
