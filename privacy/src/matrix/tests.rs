//! The run as a whole, from integers to decoded sums, against the theory.

use std::cell::Cell;
use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use zeroize::Zeroizing;

use super::banded::tests::{banded, noise, real_coefficients};
use super::run::combine;
use super::*;
use crate::accounting::{Event, analytic};
use crate::budget::{BudgetKeeper, RunCharge};
use crate::grid::{Grid, PrivateGrid, PublicGrid};
use crate::prg::{Key, PrgId, Purpose};
use crate::quantities::{Adjacency, ClipNorm, Delta, Epsilon};
use crate::sum::{Accumulator, NOISE_TILE, Sum, add_noise};
use crate::update::QuantizedUpdate;

fn grid(dimension: usize, cohort_max: u32) -> PrivateGrid {
    PrivateGrid::new(ClipNorm::new(1.0).unwrap(), dimension, cohort_max).unwrap()
}

fn mechanism(bands: usize, dimension: usize) -> BandedMechanism {
    BandedMechanism::new(banded(bands, 2), grid(dimension, 10), noise(1.0)).unwrap()
}

fn keeper(limit: Option<f64>) -> BudgetKeeper {
    let limit = limit.map(|limit| Epsilon::new(limit).unwrap());
    BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), limit)
}

fn charge(mechanism: &BandedMechanism) -> RunCharge {
    keeper(None).charge_run(mechanism.clone()).unwrap()
}

fn sum_of(grid: PrivateGrid, updates: &[Vec<i32>]) -> Sum {
    let grid = Grid::from(grid);
    let mut sum = Accumulator::new(grid);
    for update in updates {
        sum.add(&QuantizedUpdate::verify(update.clone(), &grid).unwrap()).unwrap();
    }
    sum.finish()
}

/// Every release of a run over the given sums, and the same without noise.
fn run(mechanism: &BandedMechanism, sums: &[Vec<i32>]) -> Vec<(BandedRelease, BandedRelease)> {
    let mut run = BandedRun::new(charge(mechanism));
    let key = Key::from_seed(7);
    let steps = sums.iter().enumerate().map(|(step, sum)| {
        let sum = sum_of(mechanism.grid(), std::slice::from_ref(sum));
        let release = run.release(sum, &key, PrgId::ChaCha20).unwrap();
        let mut drawn = vec![0; release.coordinates.len()];
        add_noise(
            &mut drawn,
            mechanism.sigma(),
            &key.derive(Purpose::Noise, step as u64, 0),
            PrgId::ChaCha20,
        );
        let mut bare = release.clone();
        bare.coordinates.iter_mut().zip(&drawn).for_each(|(y, z)| *y -= z);
        assert_ne!(bare, release);
        (release, bare)
    });
    steps.collect()
}

#[test]
fn a_run_costs_what_one_gaussian_costs() {
    let delta = Delta::new(1e-5).unwrap();
    let matrix = banded(64, 4);
    let mechanism = BandedMechanism::new(matrix.clone(), grid(1000, 10), noise(4.0)).unwrap();
    // dp_accounting 0.6.0: one Gaussian of noise multiplier 4.
    let mut keeper = keeper(Some(1.0));
    let charge = keeper.charge_run(mechanism.clone()).unwrap();
    assert_eq!(charge.mechanism(), &mechanism);
    assert!((keeper.epsilon().get() - 0.926_342).abs() < 1e-6, "{}", keeper.epsilon());
    let refused = keeper.charge_run(mechanism.clone()).unwrap_err();
    assert!((refused.asked.get() - 1.356_467).abs() < 1e-6, "{refused}");
    assert_eq!(keeper.epsilon(), refused.spent);
    // The same run, described by the noise on one release.
    let of_a_release = noise(4.0 * matrix.sensitivity_factor());
    let Event::Gaussian { noise_multiplier } = matrix.event(of_a_release) else { panic!("not Gaussian") };
    assert!((3.999_999_999..=4.0).contains(&noise_multiplier.get()), "{noise_multiplier}");
    assert!(analytic::epsilon(1.0 / noise_multiplier.get(), delta).get() >= 0.926_341);
    assert_eq!(matrix.event(noise(f64::MIN_POSITIVE * f64::EPSILON)), Event::NonPrivate);
}

#[test]
fn the_mechanism_is_never_smaller_than_its_real_numbers() {
    for (bands, k, z) in [(1, 1, 1.0), (7, 3, 0.3), (256, 65_535, 0.01), (4096, 2, 12.5)] {
        let matrix = banded(bands, k);
        let grid = grid(1000, 10);
        let mechanism = BandedMechanism::new(matrix.clone(), grid, noise(z)).unwrap();
        let squared = u128::from(matrix.squared_sensitivity()) * u128::from(grid.sensitivity()).pow(2);
        let sensitivity = u128::from(mechanism.sensitivity());
        assert!(sensitivity.pow(2) >= squared && (sensitivity - 1).pow(2) < squared);
        let Event::Gaussian { noise_multiplier } = mechanism.event() else { panic!("not Gaussian") };
        assert!((noise_multiplier.get() / z - 1.0).abs() < 1e-9, "{noise_multiplier}");
        assert!(mechanism.sigma() as f64 >= z * mechanism.sensitivity() as f64 * (1.0 - f64::EPSILON));
    }
}

#[test]
fn runs_too_large_for_their_integers_are_refused() {
    let refused = BandedMechanism::new(banded(1, 100), grid(10, 10), noise(30.0)).unwrap_err();
    assert!(matches!(refused, MatrixError::NoiseTooLarge { .. }), "{refused}");
    let refused = BandedMechanism::new(banded(4096, 1), grid(10, u32::MAX), noise(1.0)).unwrap_err();
    assert_eq!(refused, MatrixError::SumTooLarge { cohort_max: u32::MAX, bands: 4096 });
    // The largest of everything that is allowed fits: k < 2^16, Σa² < 2^28 and S < 2^31 make a sensitivity below 2^53.
    let largest = banded(BANDS_MAX, PARTICIPATIONS_MAX);
    assert!(largest.squared_sensitivity() < 1 << 44 && largest.coefficient_sum() < 1 << 20);
    let heavy = grid(10, 1).carrying_bit((1 << 31) - 2).unwrap();
    let mechanism = BandedMechanism::new(largest, heavy, noise(1e-6)).unwrap();
    assert!(mechanism.sensitivity() < 1 << 53);
    assert!(matches!(mechanism.event(), Event::Gaussian { .. }));
}

#[test]
fn one_member_moves_a_run_by_no_more_than_its_sensitivity() {
    let (checked, close) = (Cell::new(0), Cell::new(0));
    let strategy = (1_usize..6, 0_u64..4, 1_u32..5, any::<u32>(), prop::collection::vec(-1.0..1.0, 60));
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::default() });
    let property = |(bands, slack, k, pattern, directions): (usize, u64, u32, u32, Vec<f64>)| {
        const STEPS: u64 = 20;
        let participation = Participation::new(bands as u64 + slack, k).unwrap();
        let matrix = BandedSquareRoot::new(bands, participation).unwrap();
        let grid = grid(3, 1);
        let mechanism = BandedMechanism::new(matrix.clone(), grid, noise(1.0)).unwrap();
        let mut taken: Vec<u64> = Vec::new();
        let mut window: VecDeque<Zeroizing<Vec<i64>>> = VecDeque::new();
        let mut squared = 0;
        for step in 0..STEPS {
            let mut update = vec![0; 3];
            if pattern >> step & 1 == 1 && participation.allows(&taken, step) {
                taken.push(step);
                let direction = &directions[3 * step as usize..][..3];
                let scale = grid.sensitivity() as f64 / direction.iter().map(|x| x * x).sum::<f64>().sqrt();
                update = direction.iter().map(|x| (x * scale) as i32).collect();
                prop_assert!(QuantizedUpdate::verify(update.clone(), &grid.into()).is_ok());
            }
            window.push_front(Zeroizing::new(update.into_iter().map(i64::from).collect()));
            window.truncate(bands);
            let shift = combine(matrix.coefficients(), &window, 3);
            squared += shift.iter().map(|y| u128::from(y.unsigned_abs()).pow(2)).sum::<u128>();
        }
        let bound = u128::from(mechanism.sensitivity()).pow(2);
        prop_assert!(squared <= bound, "{squared} above {bound}");
        checked.set(checked.get() + 1);
        close.set(close.get() + i32::from(squared as f64 > 0.999 * bound as f64));
        Ok(())
    };
    runner.run(&strategy, property).unwrap();
    assert!(checked.get() >= 500 && close.get() > 50, "{} {}", checked.get(), close.get());
}

#[test]
fn integers_follow_the_real_numbers_and_decoding_gives_them_back() {
    let (beyond_the_bands, negative) = (Cell::new(0), Cell::new(0));
    let steps = prop::collection::vec(prop::collection::vec(-400_000_i32..400_000, 3), 1..20);
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let property = |(bands, sums): (usize, Vec<Vec<i32>>)| {
        let mechanism = mechanism(bands, 3);
        let real = real_coefficients(bands);
        let mut decoder = Decoder::new(&mechanism);
        for (step, (_, bare)) in run(&mechanism, &sums).into_iter().enumerate() {
            let terms = bands.min(step + 1);
            for (i, &y) in bare.coordinates().iter().enumerate() {
                let earlier = |j: usize| f64::from(sums[step - j][i]);
                let expected: f64 = (0..terms).map(|j| real[j] * earlier(j)).sum();
                let rounding: f64 = (1..terms).map(|j| earlier(j).abs() / 8192.0).sum();
                prop_assert!((y as f64 / 4096.0 - expected).abs() <= rounding + 1e-6);
                negative.set(negative.get() + i32::from(y < 0));
            }
            let expected: Vec<f64> =
                sums[step].iter().map(|&g| f64::from(g) * mechanism.grid().step()).collect();
            prop_assert_eq!(decoder.decode(&bare), Ok(expected));
            beyond_the_bands.set(beyond_the_bands.get() + i32::from(step >= bands));
        }
        Ok(())
    };
    runner.run(&(1_usize..9, steps), property).unwrap();
    assert!(beyond_the_bands.get() > 500 && negative.get() > 500);
}

#[test]
fn acceptance_25_decoded_noise_has_the_covariance_of_the_inverse() {
    // 21 pairs of steps, each beyond 5.5 standard errors with probability 3.8e-8: alpha 8e-7 in all. A million draws.
    const STEPS: usize = 6;
    const DRAWS: usize = 1_000_000;
    let mechanism = mechanism(4, DRAWS);
    let mut run = BandedRun::new(charge(&mechanism));
    let mut decoder = Decoder::new(&mechanism);
    let sigma = mechanism.sigma() as f64 / 4096.0 * mechanism.grid().step();
    let noises: Vec<Vec<f64>> = (0..STEPS as u64)
        .map(|step| {
            let release =
                run.release(sum_of(mechanism.grid(), &[]), &Key::from_seed(step), PrgId::ChaCha20).unwrap();
            decoder.decode(&release).unwrap().iter().map(|value| value / sigma).collect()
        })
        .collect();
    let deviation = |inverse: &[f64]| {
        let covariance =
            |t: usize, s: usize| -> f64 { (0..=t.min(s)).map(|j| inverse[t - j] * inverse[s - j]).sum() };
        let mut largest = 0.0_f64;
        for t in 0..STEPS {
            for s in 0..=t {
                let product: f64 = noises[t].iter().zip(&noises[s]).map(|(x, y)| x * y).sum();
                let variance = covariance(t, t) * covariance(s, s) + covariance(t, s).powi(2);
                let error = (product / DRAWS as f64 - covariance(t, s)) / (variance / DRAWS as f64).sqrt();
                largest = largest.max(error.abs());
            }
        }
        largest
    };
    let found = deviation(&mechanism.matrix().inverse(STEPS));
    assert!(found < 5.5, "{found}");
    // Other matrices are told apart.
    assert!(deviation(&banded(1, 1).inverse(STEPS)) > 100.0);
    assert!(deviation(&banded(5, 1).inverse(STEPS)) > 20.0);
}

#[test]
fn a_step_adds_noise_of_its_own_even_from_the_same_key() {
    let dimension = NOISE_TILE + 3;
    let mechanism = mechanism(3, dimension);
    let mut update = vec![0; dimension];
    (update[0], update[NOISE_TILE + 1]) = (500_000, -500_000);
    let releases = run(&mechanism, &[update.clone(), vec![0; dimension], vec![0; dimension], update]);
    // 1, 1/2 and 3/8 are exact in twelve binary digits.
    for (step, a) in [4096, 2048, 1536, 4096].into_iter().enumerate() {
        let (release, bare) = &releases[step];
        assert_eq!(release.step(), step as u64);
        assert_eq!((bare.coordinates[0], bare.coordinates[NOISE_TILE + 1]), (a * 500_000, a * -500_000));
        assert!(bare.coordinates[1..NOISE_TILE].iter().all(|&y| y == 0));
        for (other, _) in &releases[..step] {
            assert_ne!(other.coordinates[1..100], release.coordinates[1..100]);
        }
    }
}

#[test]
fn a_run_takes_sums_of_its_grid_and_a_decoder_releases_in_order() {
    let mechanism = mechanism(3, 2);
    let mut run = BandedRun::new(charge(&mechanism));
    let key = Key::from_seed(1);
    let public = Grid::from(PublicGrid::new(2, 10).unwrap());
    for found in [Grid::from(grid(2, 11)), public] {
        let refused = run.release(Accumulator::new(found).finish(), &key, PrgId::ChaCha20).unwrap_err();
        assert_eq!(refused, OtherGrid { expected: mechanism.grid(), found });
    }
    assert_eq!(run.step(), 0);
    let first =
        run.release(sum_of(mechanism.grid(), &[vec![5, 6], vec![1, 1]]), &key, PrgId::ChaCha20).unwrap();
    let second = run.release(sum_of(mechanism.grid(), &[]), &key, PrgId::ChaCha20).unwrap();
    assert_eq!(run.step(), 2);
    let mut decoder = Decoder::new(&mechanism);
    assert_eq!(decoder.decode(&second), Err(DecodeError::OutOfOrder { expected: 0, found: 1 }));
    decoder.decode(&first).unwrap();
    assert_eq!(decoder.decode(&first), Err(DecodeError::OutOfOrder { expected: 1, found: 0 }));
    decoder.decode(&second).unwrap();
    let other = BandedRelease { grid: grid(2, 11), step: 2, ..second };
    assert!(matches!(decoder.decode(&other), Err(DecodeError::OtherGrid { .. })));
}
