//! Statements 1 and 2: masks are uniform, belong to one session, and hide every sum but the whole.

use std::collections::BTreeMap;

use skep_privacy::grid::PrivateGrid;
use skep_privacy::prg::PrgId;
use skep_privacy::secagg::add_mask;
use skep_privacy::update::QuantizedUpdate;

use super::testing::{Traffic, chi_square_of_bytes, params, parties, run};
use super::{Key, Party, Phase, Session, Shape};
use crate::clip_norm;
use crate::statistics::ALPHA;

/// The masked zeros of everybody, modulo 2⁸.
fn masked_zeros(plan: &[u8; 32], model: &[u8; 32], cohort: u32, len: usize) -> Vec<Vec<u8>> {
    let shape = Shape { len, bits: 8, generator: PrgId::Aes256Ctr };
    let session = Session::new(plan, model, params(cohort), shape, parties(cohort)).unwrap();
    let grid = PrivateGrid::new(clip_norm(1.0), len, cohort).unwrap();
    let zeros = |party: Party| (party, QuantizedUpdate::verify(vec![0; len], &grid.into()).unwrap());
    let updates: BTreeMap<_, _> = parties(cohort).map(zeros).collect();
    let mut traffic = Traffic::default();
    let _abort = run(&session, &updates, |phase, _| phase == Phase::Consistency, &mut traffic).err().unwrap();
    traffic.0.into_iter().filter(|message| message.len() == len).collect()
}

/// Correlation of neighbouring bytes, in standard deviations of what independent ones would have.
fn lag_one(bytes: &[u8]) -> f64 {
    let centred = |byte: u8| f64::from(byte) - 127.5;
    let sum: f64 = bytes.array_windows().map(|[a, b]| centred(*a) * centred(*b)).sum();
    let variance = f64::from(256 * 256 - 1) / 12.0;
    sum / variance / ((bytes.len() - 1) as f64).sqrt()
}

/// Normal quantile of half of [`ALPHA`].
const BOUND: f64 = 4.9;

#[test]
fn t01_masks_reach_every_residue_and_are_uniform() {
    for generator in [PrgId::ChaCha20, PrgId::Aes256Ctr] {
        for seed in 0..3 {
            let mut sums = vec![0; 1 << 20];
            add_mask(&mut sums, &Key::from_seed(seed), generator);
            for shift in [0, 8, 16, 24] {
                let bytes: Vec<u8> = sums.iter().map(|word| (word >> shift) as u8).collect();
                let reached: std::collections::BTreeSet<u8> = bytes.iter().copied().collect();
                assert_eq!(reached.len(), 256);
                assert!(chi_square_of_bytes(bytes.iter().copied()) > ALPHA, "{generator:?} {seed} {shift}");
                assert!(lag_one(&bytes).abs() < BOUND, "{generator:?} {seed} {shift}");
            }
        }
    }
    assert!(chi_square_of_bytes((0..1 << 20).map(|i| (i % 255) as u8)) < ALPHA, "the test can fail");
}

#[test]
fn t01_every_bit_of_plan_and_model_changes_every_mask() {
    const LEN: usize = 256;
    let (plan, model) = ([1; 32], [2; 32]);
    let before = masked_zeros(&plan, &model, 3, LEN);
    assert_eq!(before.len(), 3);
    for bit in 0..256 {
        let flipped = |digest: [u8; 32]| {
            let mut digest = digest;
            digest[bit / 8] ^= 1 << (bit % 8);
            digest
        };
        for after in
            [masked_zeros(&flipped(plan), &model, 3, LEN), masked_zeros(&plan, &flipped(model), 3, LEN)]
        {
            for (before, after) in before.iter().zip(&after) {
                let same = before.iter().zip(after).filter(|(a, b)| a == b).count();
                // One on average; sixteen or more with probability 10⁻¹⁴.
                assert!(same < 16, "bit {bit}: {same} of {LEN} are the same");
            }
        }
    }
}

#[test]
fn t02_no_sum_of_fewer_than_all_tells_anything() {
    const LEN: usize = 1 << 16;
    let masked = masked_zeros(&[1; 32], &[2; 32], 5, LEN);
    assert_eq!(masked.len(), 5);
    for left_out in 0..5 {
        let mut sum = vec![0_u8; LEN];
        for vector in masked.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, vector)| vector) {
            sum.iter_mut().zip(vector).for_each(|(sum, byte)| *sum = sum.wrapping_add(*byte));
        }
        assert!(chi_square_of_bytes(sum.iter().copied()) > ALPHA, "without {left_out}");
        assert!(lag_one(&sum).abs() < BOUND, "without {left_out}");
    }
}
