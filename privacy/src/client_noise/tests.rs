use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::budget::Charge;
use crate::packing::{pack, unpack};
use crate::sum::{Accumulator, ReleaseError, Sum, SumError};

const DIMENSION: usize = 2 * NOISE_TILE + 3;

fn clip() -> ClipNorm {
    ClipNorm::new(1.0).unwrap()
}

fn z(value: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(value).unwrap()
}

fn shares(cohort: u32, honest: u32) -> NoisedGrid {
    NoisedGrid::for_shares(clip(), DIMENSION, cohort, z(5.0), honest).unwrap()
}

fn local() -> NoisedGrid {
    NoisedGrid::for_local(clip(), DIMENSION, 100, z(5.0)).unwrap()
}

fn exact(grid: &NoisedGrid, first: i32) -> QuantizedUpdate {
    let mut coordinates = vec![0; grid.dimension()];
    coordinates[0] = first;
    QuantizedUpdate::verify(coordinates, &(*grid.exact()).into()).unwrap()
}

fn noised(grid: &NoisedGrid, first: i32, seed: u64) -> NoisedUpdate {
    exact(grid, first).add_noise(grid, &Key::from_seed(seed), PrgId::ChaCha20).unwrap()
}

fn sum_of(grid: &NoisedGrid, members: u64) -> Sum {
    let mut sum = Accumulator::new((*grid).into());
    for seed in 0..members {
        sum.add(&noised(grid, 0, seed)).unwrap();
    }
    sum.finish()
}

#[test]
fn the_grid_is_as_coarse_as_the_noise_allows() {
    // 100 clients, 650 parameters: X = 2^11, S = 2051; 100·S + 5·√(100·σ²) with σ = 5·2051/√80 is 2^18.02.
    let grid = NoisedGrid::for_shares(clip(), 650, 100, z(5.0), 80).unwrap();
    assert_eq!((grid.exact().steps(), grid.exact().sensitivity(), grid.wire_bits()), (1 << 11, 2051, 20));
    let large = NoisedGrid::for_shares(clip(), 1_000_000, 1000, z(5.0), 800).unwrap();
    assert_eq!((large.exact().steps(), large.wire_bits()), (1 << 14, 26));
    // Little noise needs a finer grid, and local noise of 5 S more bits than one of these.
    let quiet = NoisedGrid::for_shares(clip(), 650, 100, z(0.05), 80).unwrap();
    assert_eq!(quiet.exact().steps(), 1 << 12);
    let local = NoisedGrid::for_local(clip(), 650, 100, z(5.0)).unwrap();
    assert_eq!((local.exact().steps(), local.wire_bits()), (1 << 11, 19));
}

#[test]
fn shares_below_two_grid_steps_on_the_finest_grid_are_refused() {
    let refused = NoisedGrid::for_shares(clip(), 650, 100, z(1e-5), 80).unwrap_err();
    assert!(matches!(refused, NoisedGridError::Share(ShareError::TooSmall { .. })), "{refused}");
    // Of so many clients only a coarse grid's sum fits, on which shares are too small.
    let refused = NoisedGrid::for_shares(clip(), 650, 1 << 22, z(1.0), 4_000_000).unwrap_err();
    assert!(matches!(refused, NoisedGridError::Share(ShareError::TooSmall { .. })), "{refused}");
    let refused = NoisedGrid::for_shares(clip(), 650, 1 << 24, z(1.0), 100).unwrap_err();
    assert!(matches!(refused, NoisedGridError::TooManyBits { .. }), "{refused}");
    let refused = NoisedGrid::for_local(clip(), 650, 100, z(1e-6)).unwrap_err();
    assert_eq!(refused, NoisedGridError::TooSmall { sigma: 2 });
    let refused = NoisedGrid::for_local(clip(), 650, 100, z(400_000.0));
    assert!(refused.is_ok_and(|grid| grid.exact().steps() == 1 << 8));
}

#[test]
fn a_plan_with_any_other_number_is_refused() {
    for honest in [shares(100, 70), local()] {
        let facts = honest.encoding();
        let read = |facts: &Encoding, noise| NoisedGrid::from_plan(facts, clip(), DIMENSION, 100, noise);
        assert_eq!(read(&facts, honest.noise()), Ok(honest));
        for lie in [
            Encoding { step: facts.step * 2.0, ..facts },
            Encoding { step: facts.step * 1.5, ..facts },
            Encoding { step: 0.0, ..facts },
            Encoding { step: f64::NAN, ..facts },
            Encoding { step: -1.0, ..facts },
            Encoding { sensitivity: facts.sensitivity.map(|s| s + 1), ..facts },
            Encoding { wire_bits: facts.wire_bits + 1, ..facts },
        ] {
            assert!(read(&lie, honest.noise()).is_err(), "{lie:?}");
        }
        assert!(read(&facts, ClientNoise::Full { sigma: u64::MAX }).is_err());
        assert!(read(&facts, ClientNoise::Full { sigma: 0 }).is_err());
    }
}

fn variance(grid: &NoisedGrid) -> f64 {
    match grid.noise() {
        ClientNoise::Share(variance) => variance.get(),
        ClientNoise::Full { sigma } => (sigma as f64).powi(2),
    }
}

#[test]
fn noise_has_the_variance_that_the_grid_says_and_every_tile_its_own() {
    for grid in [shares(100, 70), local()] {
        let update = noised(&grid, 0, 1);
        let squares: f64 = update.coordinates().iter().map(|&y| f64::from(y).powi(2)).sum();
        let statistic = squares / variance(&grid);
        // Chi-square with d degrees of freedom, alpha = 1e-6 two-sided.
        let d = DIMENSION as f64;
        assert!((statistic - d).abs() < 4.89 * (2.0 * d).sqrt(), "{statistic}");
        let (first, second) = (&update.coordinates()[..NOISE_TILE], &update.coordinates()[NOISE_TILE..]);
        assert!(first[..100] != second[..100]);
        assert_eq!(noised(&grid, 0, 1), update);
        assert!(noised(&grid, 0, 2) != update);
    }
}

#[test]
fn an_update_of_another_grid_gets_no_noise() {
    let other = NoisedGrid::for_local(clip(), DIMENSION, 100, z(0.005)).unwrap();
    let update = exact(&other, 1);
    let refused = update.add_noise(&local(), &Key::from_seed(1), PrgId::ChaCha20);
    assert_eq!(refused, Err(Rejected::OtherGrid));
    assert_eq!(QuantizedUpdate::verify(vec![0; DIMENSION], &local().into()), Err(Rejected::OtherGrid));
}

#[test]
fn an_update_without_noise_does_not_enter_a_sum_of_noised_ones() {
    let grid = shares(10, 7);
    let mut sum = Accumulator::new(grid.into());
    assert!(matches!(sum.add(&exact(&grid, 1)), Err(SumError::OtherGrid { .. })));
    assert_eq!(sum.members(), 0);
}

#[test]
fn local_updates_pass_the_servers_tests_and_louder_ones_do_not() {
    let grid = local();
    let honest = noised(&grid, 2000, 3).coordinates().to_vec();
    assert!(Contribution::verify(honest.clone(), &grid.into()).is_ok());
    let ClientNoise::Full { sigma } = grid.noise() else { unreachable!() };
    let loud = vec![2 * sigma as i32; DIMENSION];
    assert!(matches!(Contribution::verify(loud, &grid.into()), Err(Rejected::Norm { .. })));
    let mut far = honest;
    far[7] = 17 * sigma as i32;
    assert!(matches!(Contribution::verify(far, &grid.into()), Err(Rejected::Range { index: 7, .. })));
}

#[test]
fn a_sum_is_released_only_for_its_own_noise_and_with_enough_of_it() {
    let grid = shares(10, 4);
    let release = |members, mechanism| sum_of(&grid, members).release_noised(Charge::new(1, mechanism));
    assert!(release(6, grid.mechanism(4, 6)).is_ok());
    let few = release(5, grid.mechanism(4, 6)).unwrap_err();
    assert_eq!(few, ReleaseError::TooFewUpdates { members: 5, least: 6 });
    // Of several sums each needs its noise: what is in another group hides nobody in this one.
    let groups = |members: [u64; 2]| {
        let sums = members.map(|members| sum_of(&grid, members)).into();
        Sum::release_groups(sums, Charge::new(1, grid.mechanism(4, 4)))
    };
    assert_eq!(groups([4, 6]).unwrap().len(), 2);
    assert_eq!(groups([4, 3]), Err(ReleaseError::TooFewUpdates { members: 3, least: 4 }));
    let other = shares(10, 3).mechanism(4, 6);
    assert_eq!(release(6, other).unwrap_err(), ReleaseError::OtherNoise);
    assert_eq!(release(6, Mechanism::None).unwrap_err(), ReleaseError::NoiseRequired);
    let exact = sum_of(&grid, 6).release_exact(Charge::new(1, grid.mechanism(4, 6)));
    assert_eq!(exact.unwrap_err(), ReleaseError::NoiseRequired);
    let sensitivity = grid.exact().sensitivity();
    let central = Charge::new(1, Mechanism::RoundedGaussian { sensitivity, sigma: 10 });
    let twice = sum_of(&grid, 6).release(central, &Key::from_seed(1), PrgId::ChaCha20);
    assert_eq!(twice.unwrap_err(), ReleaseError::OtherNoise);
}

/// Low b bits of a sum are the sum of low b bits: what travels packed to b bits, masked or not, adds up to what the accumulator
/// finishes with, and the sum is unmasked when the masks cancel.
#[test]
fn packing_and_wrapping_are_homomorphic() {
    let (wrapped, kept) = (Cell::new(0), Cell::new(0));
    let vectors = prop::collection::vec(any::<[i32; 5]>(), 1..8);
    let cases = (vectors, any::<[u32; 5]>(), 1_u32..=32, 0_u32..32);
    let holds = |(vectors, masks, bits, shift): (Vec<[i32; 5]>, [u32; 5], u32, u32)| {
        let vectors: Vec<_> = vectors.iter().map(|vector| vector.map(|value| value >> shift)).collect();
        let mut wire = masks;
        for vector in &vectors {
            let reduced = vector.map(|value| centred(value.into(), bits));
            let unpacked = unpack(&pack(&reduced, bits).unwrap(), 5, bits).unwrap();
            prop_assert_eq!(&unpacked, &reduced);
            wire.iter_mut().zip(unpacked).for_each(|(sum, value)| *sum = sum.wrapping_add(value as u32));
        }
        for (column, (residue, mask)) in wire.iter().zip(masks).enumerate() {
            let total: i64 = vectors.iter().map(|vector| i64::from(vector[column])).sum();
            let sum = i64::from(centred(total, bits));
            prop_assert_eq!(sum, i64::from(centred(residue.wrapping_sub(mask).into(), bits)));
            prop_assert_eq!((total - sum).rem_euclid(1 << bits), 0);
            let half = 1_i64 << (bits - 1);
            prop_assert!((-half..half).contains(&sum));
            let counter = if sum == total { &kept } else { &wrapped };
            counter.set(counter.get() + 1);
        }
        Ok(())
    };
    TestRunner::default().run(&cases, holds).unwrap();
    assert!(wrapped.get() > 100 && kept.get() > 100, "{wrapped:?} sums wrapped, {kept:?} did not");
}

proptest! {
    /// A sum of residues is the accumulator's sum, also where it wraps.
    #[test]
    fn an_unmasked_sum_is_that_of_the_contributions(seeds in prop::collection::vec(any::<u64>(), 1..6)) {
        let grid = NoisedGrid::for_shares(clip(), 40, 6, z(2.0), 1).unwrap();
        let (mut sum, mut residues) = (Accumulator::new(grid.into()), vec![0_u32; 40]);
        for &seed in &seeds {
            let mut update = Contribution::from(noised(&grid, 1 << 10, seed));
            // As far out as a dishonest client can go, so that sums wrap.
            update.coordinates[1] = i32::try_from(grid.range()).unwrap() - 1;
            let added = update.residues().unwrap();
            residues.iter_mut().zip(added).for_each(|(sum, value)| *sum = sum.wrapping_add(value));
            sum.add(&update).unwrap();
        }
        let members = seeds.len() as u32;
        let charge = || Charge::new(1, grid.mechanism(1, members));
        let added = sum.finish().release_noised(charge()).unwrap();
        let unmasked = Sum::unmasked(grid.into(), &residues, members).unwrap();
        let unmasked = unmasked.release_noised(charge()).unwrap();
        prop_assert_eq!(added.coordinates(), unmasked.coordinates());
        let far = i64::from(members) * (grid.range() as i64 - 1);
        prop_assert_eq!(added.coordinates()[1] == far, members == 1);
    }
}

#[test]
fn what_is_no_sum_under_masks_is_refused() {
    let grid = shares(10, 7);
    let residues = vec![0; DIMENSION];
    let refused = Sum::unmasked(grid.into(), &residues[1..], 5).err();
    assert_eq!(refused, Some(SumError::Length { expected: DIMENSION, found: DIMENSION - 1 }));
    let refused = Sum::unmasked(grid.into(), &residues, 11).err();
    assert_eq!(refused, Some(SumError::CohortFull { cohort_max: 10 }));
    assert_eq!(Contribution::from(noised(&local(), 0, 1)).residues(), None);
}

#[test]
fn an_update_shows_none_of_its_numbers_when_printed() {
    let update = noised(&shares(10, 7), 123, 1);
    assert_eq!(format!("{update:?}"), format!("NoisedUpdate {{ len: {DIMENSION}, .. }}"));
    let sent = Contribution::from(update);
    assert_eq!(format!("{sent:?}"), format!("Contribution {{ len: {DIMENSION}, .. }}"));
}
