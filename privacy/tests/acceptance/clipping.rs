//! 8 and 9: clip norms and clipping.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use skep_privacy::adaptive_clip::{AdaptiveClip, carry_clipping_bit};
use skep_privacy::grid::{GridError, PrivateGrid, STEPS_PER_CLIP};
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::quantities::ClipNorm;
use skep_privacy::sampler::rounded_gaussian;
use skep_privacy::sum::Accumulator;
use skep_privacy::update::{NonFinite, QuantizeError, Update};

use crate::{clip_norm, noise_multiplier, release};

/// One million clients in all. The noise on a cohort's share is a twentieth, which moves the clip norm by a hundredth a
/// round; 0.1 is more than five standard deviations of where it settles.
///
/// Refusals and the weight of the bit: unit tests of `adaptive_clip`.
#[test]
fn t08_the_clip_norm_finds_the_quantile_from_a_hundred_times_too_low_and_too_high() {
    // Lognormal norms of median 2 and spread 1, whose 0.7-quantile is 2·e^0.5244 = 3.379.
    for (quantile, expected) in [(0.5, 2.0), (0.7, 3.379)] {
        let rule = AdaptiveClip::new(quantile, 0.2, clip_norm(1e-6), clip_norm(1e6)).unwrap();
        for start in [expected / 100.0, expected * 100.0] {
            let settled = (0..100)
                .fold(clip_norm(start), |norm, round| rule.next(norm, unclipped_share(norm, round, 2500)));
            assert!((settled.get() / expected - 1.0).abs() < 0.1, "from {start} to {settled}");
        }
    }
}

/// One round of the integer pipeline.
fn unclipped_share(norm: ClipNorm, round: u64, cohort: usize) -> f64 {
    let plain = PrivateGrid::new(norm, 2, cohort as u32).unwrap();
    let grid = carry_clipping_bit(plain, noise_multiplier(1.0), cohort as f64 / 20.0).unwrap();
    let root = Key::from_seed(8);
    let mut normals = vec![0; cohort];
    rounded_gaussian::fill(&mut root.derive(Purpose::Data, round, 0).stream(), 1 << 20, &mut normals);
    let mut rng = root.derive(Purpose::Rounding, round, 0).stream();
    let mut sum = Accumulator::new(grid.into());
    for normal in normals {
        let length = 2.0 * (normal as f64 / f64::from(1 << 20)).exp();
        let update = Update::new(vec![0.6 * length as f32, -0.8 * length as f32]).unwrap();
        sum.add(&update.clip(norm).quantize(&grid, &mut rng).unwrap()).unwrap();
    }
    let release = release(sum.finish(), &grid, 1.0, &root.derive(Purpose::Noise, round, 0));
    assert_eq!(release.clone().decode().len(), 2);
    release.unclipped_share(cohort as f64).unwrap()
}

#[test]
fn t09_what_is_not_finite_is_refused_before_its_norm_is_asked_for() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(Update::new(vec![0.5, bad, 1.0]), Err(NonFinite { index: 1 }));
    }
}

#[test]
fn t09_an_empty_update_has_norm_zero_and_no_grid() {
    let empty = Update::new(vec![]).unwrap();
    assert_eq!(empty.norm(), 0.0);
    let clipped = empty.clip(clip_norm(1.0));
    assert!(clipped.is_unclipped());
    assert_eq!(PrivateGrid::new(clip_norm(1.0), 0, 1), Err(GridError::Dimension { dimension: 0 }));
    let refused = clipped.quantize(&grid(1.0, 1), &mut Key::from_seed(9).stream());
    assert_eq!(refused, Err(QuantizeError::Dimension { expected: 1, found: 0 }));
}

#[test]
fn t09_zero_subnormal_and_huge_updates_are_clipped_and_rounded_at_every_clip_norm() {
    let smallest = f32::from_bits(1);
    let mut rng = Key::from_seed(9).stream();
    for (values, long) in [
        (vec![0.0; 5], false),
        (vec![-0.0; 5], false),
        (vec![smallest; 5], false),
        (vec![-smallest; 5], false),
        (vec![1e38; 5], true),
        (vec![f32::MAX; 5], true),
        (vec![f32::MAX, f32::MIN, smallest, 0.0, 1.0], true),
    ] {
        for clip in [1e-30, 1.0, 1e30] {
            let grid = grid(clip, 5);
            let clipped = Update::new(values.clone()).unwrap().clip(grid.clip());
            assert_eq!(clipped.is_unclipped(), !long, "{values:?} {clip}");
            let squared = clipped.quantize(&grid, &mut rng).unwrap().norm_squared();
            assert!(squared <= u128::from(grid.sensitivity()).pow(2));
            if long {
                assert!(squared > u128::from(STEPS_PER_CLIP - 10).pow(2), "{values:?} {clip}: {squared}");
            } else {
                assert!(squared <= 5, "{values:?} {clip}: {squared}");
            }
        }
    }
}

/// Exactly, in 128 bits, for a hundred thousand updates.
///
/// The worst roundings, the fallback when all fail and the same test by the server: unit tests of `update`.
#[test]
fn t09_no_update_is_longer_than_the_sensitivity_after_rounding() {
    const CASES: u32 = 100_000;
    // Only updates at the clip norm can fail, so they must be frequent.
    let at_the_clip = Cell::new(0_u32);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: CASES, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let any_update = (prop::collection::vec(any::<f32>(), 1..40), -3_i32..30, any::<u64>());
    runner
        .run(&any_update, |(values, exponent, seed)| {
            let Ok(update) = Update::new(values) else { return Ok(()) };
            let grid = grid(2_f64.powi(exponent * 3), update.values().len());
            let q = update.clip(grid.clip()).quantize(&grid, &mut Key::from_seed(seed).stream()).unwrap();
            let exact: u128 = q.coordinates().iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum();
            prop_assert!(exact <= u128::from(grid.sensitivity()).pow(2));
            if exact > u128::from(STEPS_PER_CLIP - 1).pow(2) {
                at_the_clip.set(at_the_clip.get() + 1);
            }
            Ok(())
        })
        .unwrap();
    assert!(at_the_clip.get() > CASES / 20, "only {} updates were long", at_the_clip.get());
}

fn grid(clip: f64, dimension: usize) -> PrivateGrid {
    PrivateGrid::new(clip_norm(clip), dimension, 10).unwrap()
}
