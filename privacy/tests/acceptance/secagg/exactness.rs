//! Statement 4: the sum of the survivors' updates, exactly, or no sum.

use std::collections::BTreeMap;

use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::sum::{Accumulator, Release};
use skep_privacy::update::QuantizedUpdate;

use super::testing::{Traffic, params, parties, run, session_of};
use super::{Abort, Key, Params, Party, Phase};
use crate::{clip_norm, release};

const DIMENSION: usize = 100;

fn grid(cohort: u32) -> PrivateGrid {
    PrivateGrid::new(clip_norm(1.0), DIMENSION, cohort).unwrap()
}

fn updates(cohort: u32) -> BTreeMap<Party, QuantizedUpdate> {
    let update = |party: Party| {
        let mut prg = Key::from_seed(party.0).stream();
        let coordinates = (0..DIMENSION).map(|_| (prg.next_u64() >> 44) as i32 / 8 - (1 << 16)).collect();
        (party, QuantizedUpdate::verify(coordinates, &grid(cohort).into()).unwrap())
    };
    parties(cohort).map(update).collect()
}

/// The sum without masks of those who are in it, released with known noise.
fn plain(updates: &BTreeMap<Party, QuantizedUpdate>, is_in: impl Fn(Party) -> bool) -> Release {
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
    let session = session_of(params, DIMENSION, 32);
    let sum = run(&session, updates, leaves, &mut Traffic::default())?;
    let grid = grid(params.cohort());
    Ok(release(sum.into_sum(Grid::from(grid)).unwrap(), &grid, 0.001, &Key::from_seed(5)))
}

#[test]
fn t04_masked_sums_are_the_plain_sums() {
    for cohort in [3, 10, 100] {
        let updates = updates(cohort);
        let released = masked(params(cohort), &updates, |_, _| false).unwrap();
        assert_eq!(released, plain(&updates, |_| true), "{cohort} clients");
    }
}
