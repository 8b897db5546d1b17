//! Statement 4: the sum of the survivors' updates, exactly, or no sum.

use std::collections::BTreeMap;

use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::sum::{Accumulator, Release};
use skep_privacy::update::QuantizedUpdate;

use super::testing::{Traffic, params, parties, run, session_of};
use super::{Abort, CorruptFraction, DropoutFraction, Key, Params, Party, Phase};
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

#[test]
fn t04_random_patterns_of_dropouts() {
    let mut prg = Key::from_seed(4).stream();
    let (mut released, mut aborted) = (0, 0);
    for _ in 0..60 {
        let chance = prg.next_u64() % 5;
        let leaves: Leaves = parties(10)
            .filter_map(|party| {
                let phase = PHASES[(prg.next_u64() % 5) as usize];
                (prg.next_u64() % 10 < chance).then_some((party, phase))
            })
            .collect();
        match check(params(10), &leaves) {
            Ok(()) => released += 1,
            Err(Abort::TooFew { .. } | Abort::TooFewHolders { .. }) => aborted += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(released >= 20 && aborted >= 5, "{released} released, {aborted} aborted");
}

/// Five in a hundred leave in every phase.
fn some_leave(cohort: u32) -> Leaves {
    let spread =
        |party: usize| PHASES.get(party % 100 / 4).copied().filter(|_| party % 4 == 1 || party % 100 == 6);
    parties(cohort).enumerate().filter_map(|(i, party)| Some((party, spread(i)?))).collect()
}

#[test]
fn t04_hundred_clients_with_dropouts_in_every_phase() {
    let leaves = some_leave(100);
    assert!(PHASES.iter().all(|phase| leaves.values().any(|left| left == phase)), "{leaves:?}");
    check(params(100), &leaves).unwrap();
}

#[test]
fn t04_five_hundred_clients_in_a_sparse_graph_with_dropouts_in_every_phase() {
    let gamma = CorruptFraction::new(0.05).unwrap();
    let params = Params::plan(500, 10, gamma, DropoutFraction::new(0.05).unwrap()).unwrap();
    assert!(!params.is_complete());
    let leaves = some_leave(500);
    assert!(leaves.len() >= 25 && leaves.len() <= 40, "{}", leaves.len());
    check(params, &leaves).unwrap();
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
