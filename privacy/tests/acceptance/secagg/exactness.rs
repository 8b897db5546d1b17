//! Statement 4: the sum of the survivors' updates, exactly, or no sum.

use std::collections::BTreeMap;

use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::sum::{Accumulator, Release};
use skep_privacy::update::QuantizedUpdate;

use super::testing::{Traffic, params, parties, run, session_of};
use super::{Abort, CorruptFraction, DropoutFraction, Key, Params, Party, Phase, Prg};
use crate::{clip_norm, release};

const DIMENSION: usize = 100;

pub(super) fn grid(cohort: u32) -> PrivateGrid {
    PrivateGrid::masked(clip_norm(1.0), DIMENSION, cohort).unwrap()
}

pub(super) fn update(party: Party, cohort: u32) -> QuantizedUpdate {
    let mut prg = Key::from_seed(party.0).stream();
    let coordinates = (0..DIMENSION).map(|_| (prg.next_u64() >> 44) as i32 / 8 - (1 << 16)).collect();
    QuantizedUpdate::verify(coordinates, &grid(cohort).into()).unwrap()
}

pub(super) fn updates(cohort: u32) -> BTreeMap<Party, QuantizedUpdate> {
    parties(cohort).map(|party| (party, update(party, cohort))).collect()
}

/// The sum without masks of those who are in it, released with known noise.
pub(super) fn plain(updates: &BTreeMap<Party, QuantizedUpdate>, is_in: impl Fn(Party) -> bool) -> Release {
    let grid = grid(updates.len() as u32);
    let mut sum = Accumulator::new(grid.into());
    for (_, update) in updates.iter().filter(|(party, _)| is_in(**party)) {
        sum.add(update).unwrap();
    }
    release(sum.finish(), &grid, 0.001, &Key::from_seed(5))
}

/// The same under masks.
fn masked(
    params: Params,
    updates: &BTreeMap<Party, QuantizedUpdate>,
    leaves: impl Fn(Phase, Party) -> bool,
) -> Result<Release, Abort> {
    let grid = grid(params.cohort());
    let session = session_of(params, DIMENSION, grid.encoding().wire_bits);
    let sum = run(&session, updates, leaves, &mut Traffic::default())?;
    Ok(release(sum.into_sum(Grid::from(grid)).unwrap(), &grid, 0.001, &Key::from_seed(5)))
}

const PHASES: [Phase; 5] = [Phase::Keys, Phase::Shares, Phase::Input, Phase::Consistency, Phase::Unmask];

/// Whoever leaves, each in the phase before whose answer it leaves.
type Leaves = BTreeMap<Party, Phase>;

/// Runs a session from which these leave. If it ends well, the sum is that of those who were there for the input.
fn check(params: Params, leaves: &Leaves) -> Result<(), Abort> {
    let updates = updates(params.cohort());
    let released = masked(params, &updates, |phase, party| leaves.get(&party) == Some(&phase))?;
    let is_in = |party| leaves.get(&party).is_none_or(|phase| *phase > Phase::Input);
    assert_eq!(released, plain(&updates, is_in), "{leaves:?}");
    Ok(())
}

#[test]
fn t04_masked_sums_are_the_plain_sums() {
    for cohort in [3, 10] {
        check(params(cohort), &Leaves::new()).unwrap();
    }
}

#[test]
fn t04_in_every_phase_as_many_may_leave_as_the_threshold_allows() {
    let params = params(10);
    for phase in PHASES {
        // Whoever is left needs six holders beside itself, or six that have signed or revealed.
        let most = 10 - params.survivors_min();
        let leaves =
            |count: u32| parties(10).rev().take(count as usize).map(|party| (party, phase)).collect();
        check(params, &leaves(most)).unwrap_or_else(|abort| panic!("{most} leave in {phase:?}: {abort}"));
        let abort = check(params, &leaves(most + 1)).unwrap_err();
        match abort {
            Abort::TooFew { phase: at, have, need, cohort: 10 } => {
                assert_eq!((at, have), (phase, 9 - most), "{phase:?}");
                assert!(have < need);
            }
            Abort::TooFewHolders { phase: at, have, need: 6, .. } => assert!(at == phase && have < 6),
            other => panic!("{other}"),
        }
    }
}

/// Each leaves with a chance of so many in a thousand, in a phase drawn at random.
fn some_leave(cohort: u32, chance: u64, prg: &mut Prg) -> Leaves {
    let leaves = |party| {
        let (phase, leaves) = (PHASES[(prg.next_u64() % 5) as usize], prg.next_u64() % 1000 < chance);
        leaves.then_some((party, phase))
    };
    parties(cohort).filter_map(leaves).collect()
}

/// Runs sessions from which clients leave at random: how many end with a sum, and how many without.
fn at_random(params: Params, sessions: u64, chance: impl Fn(u64) -> u64) -> (u64, u64) {
    let mut prg = Key::from_seed(params.cohort().into()).stream();
    let (mut released, mut aborted) = (0, 0);
    for session in 0..sessions {
        let leaves = some_leave(params.cohort(), chance(session), &mut prg);
        match check(params, &leaves) {
            Ok(()) => released += 1,
            Err(Abort::TooFew { .. } | Abort::TooFewHolders { .. }) => aborted += 1,
            Err(other) => panic!("{other}"),
        }
    }
    (released, aborted)
}

#[test]
fn t04_three_and_ten_clients_that_drop_out_at_random() {
    for cohort in [3, 10] {
        let (released, aborted) = at_random(params(cohort), 60, |session| session % 5 * 100);
        assert!(released >= 15 && aborted >= 5, "{cohort}: {released} released, {aborted} aborted");
    }
}

/// The patterns of a larger cohort have somebody in every phase.
fn whole_patterns(params: Params, chance: u64) {
    let mut prg = Key::from_seed(params.cohort().into()).stream();
    let leaves = some_leave(params.cohort(), chance, &mut prg);
    assert!(PHASES.iter().all(|phase| leaves.values().any(|left| left == phase)), "{leaves:?}");
    check(params, &leaves).unwrap();
}

#[test]
fn t04_hundred_clients_that_drop_out_at_random() {
    whole_patterns(params(100), 250);
}

#[test]
fn t04_five_hundred_clients_in_a_sparse_graph_that_drop_out_at_random() {
    let gamma = CorruptFraction::new(0.05).unwrap();
    let params = Params::plan(500, 10, gamma, DropoutFraction::new(0.05).unwrap()).unwrap();
    assert!(!params.is_complete());
    whole_patterns(params, 50);
}

#[test]
fn t04_sums_of_groups_are_the_sum_of_the_cohort() {
    let updates = updates(30);
    let grid = grid(30);
    let session = session_of(params(10), DIMENSION, grid.encoding().wire_bits);
    let sums = (0..3).map(|group| {
        // Each group has its own session; its members are known there under their numbers within the group.
        let members = parties(10).zip(updates.values().skip(10 * group).cloned()).collect();
        let sum = run(&session, &members, |_, _| false, &mut Traffic::default()).unwrap();
        sum.into_sum(Grid::from(grid)).unwrap()
    });
    let merged = sums.reduce(|all, sum| all.merge(sum).unwrap()).unwrap();
    let released = release(merged, &grid, 0.001, &Key::from_seed(5));
    assert_eq!(released, plain(&updates, |_| true));
}
