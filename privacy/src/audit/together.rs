//! Several ledgers, for somebody who may be in all of them.

use serde::Serialize;

use super::report::{Report, Summed};
use crate::quantities::Epsilon;

/// What several ledgers come to together.
#[derive(Clone, Debug, Serialize)]
pub struct Together {
    /// For whoever is in all of them; none where their units or adjacencies are not the same.
    pub sum: Option<Summed>,
    /// Pairs of ledgers, by place, that are about the same roster of clients at some time.
    pub same_roster: Vec<(usize, usize)>,
}

/// Adds the ledgers up. What one of them was allowed may have been decided after another had released something, so nothing
/// tighter than basic composition holds: epsilons and deltas are added.
#[must_use]
pub fn together(reports: &[Report]) -> Together {
    let same = |one: &Report, other: &Report| one.rosters.iter().any(|roster| other.rosters.contains(roster));
    let places = (0..reports.len()).flat_map(|one| (one + 1..reports.len()).map(move |other| (one, other)));
    let same_roster = places.filter(|(one, other)| same(&reports[*one], &reports[*other])).collect();
    Together { sum: sum(reports), same_roster }
}

fn sum(reports: &[Report]) -> Option<Summed> {
    let adjacency = |report: &Report| Some(report.epochs.first()?.terms.budget?.adjacency);
    let sums: Vec<&Summed> =
        reports.iter().map(|report| report.all_epochs.as_ref()).collect::<Option<_>>()?;
    let first = *sums.first()?;
    let comparable = sums.iter().all(|sum| sum.unit == first.unit)
        && reports.iter().all(|report| adjacency(report) == adjacency(&reports[0]));
    let total =
        |part: fn(&Summed) -> Epsilon| Epsilon::from_computed(sums.iter().map(|sum| part(sum).get()).sum());
    comparable.then(|| Summed {
        epsilon_release: total(|sum| sum.epsilon_release),
        epsilon_server: total(|sum| sum.epsilon_server),
        delta: sums.iter().map(|sum| sum.delta).sum(),
        unit: first.unit,
    })
}
