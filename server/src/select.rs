//! Who is invited to a round.
//!
//! The draw is secret: sampling amplifies privacy only against those who cannot see it. Every draw is exact, in
//! integers, from a generator that expands the round's cohort key.

use std::collections::BTreeSet;

use skep_privacy::prg::{Coin, Key, Prg};
use skep_privacy::quantities::{Sampling, SamplingRate};
use skep_protocol::ClientId;

use crate::roster::Roster;

/// The cohort of one round. `key` is that round's and no other's.
///
/// A fixed size above the population invites everyone.
pub fn cohort(sampling: Sampling, roster: &dyn Roster, key: &Key) -> BTreeSet<ClientId> {
    let population = roster.population();
    let indices: BTreeSet<u64> = match sampling {
        Sampling::All => (0..population).collect(),
        Sampling::Poisson { rate } => poisson(rate, population, &mut key.stream()),
        Sampling::Fixed { size, .. } => {
            without_replacement(size.min(population), population, &mut key.stream())
        }
    };
    indices.into_iter().map(|index| roster.nth(index)).collect()
}

/// Each index by a coin of its own.
fn poisson(rate: SamplingRate, population: u64, prg: &mut Prg) -> BTreeSet<u64> {
    let coin = Coin::new(rate);
    (0..population).filter(|_| coin.flip(prg)).collect()
}

/// A uniform set of `size` of the indices below `population` (Floyd's algorithm; Bentley and Floyd, "A sample of
/// brilliance", CACM 1987): memory is the sample's, not the population's.
fn without_replacement(size: u64, population: u64, prg: &mut Prg) -> BTreeSet<u64> {
    let mut drawn = BTreeSet::new();
    for last in population - size..population {
        let index = uniform(last + 1, prg);
        if !drawn.insert(index) {
            drawn.insert(last);
        }
    }
    drawn
}

/// A uniform integer below `bound`, which is at least 1: words beyond the last multiple of `bound` are thrown away.
fn uniform(bound: u64, prg: &mut Prg) -> u64 {
    let rest = (u64::MAX % bound + 1) % bound;
    loop {
        let word = prg.next_u64();
        if word <= u64::MAX - rest {
            return word % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Contiguous;

    fn drawn(sampling: Sampling, population: u64, seed: u64) -> BTreeSet<ClientId> {
        cohort(sampling, &Contiguous(population), &Key::from_seed(seed))
    }

    #[test]
    fn everyone_is_everyone() {
        let all: BTreeSet<_> = (0..5).map(ClientId).collect();
        assert_eq!(drawn(Sampling::All, 5, 1), all);
        assert_eq!(drawn(Sampling::fixed(5, 5).unwrap(), 5, 1), all);
        assert_eq!(drawn(Sampling::Poisson { rate: SamplingRate::ONE }, 5, 1), all);
    }

    #[test]
    fn a_cohort_follows_from_its_key_alone() {
        let sampling = Sampling::fixed(10, 1000).unwrap();
        assert_eq!(drawn(sampling, 1000, 1), drawn(sampling, 1000, 1));
        assert_ne!(drawn(sampling, 1000, 1), drawn(sampling, 1000, 2));
        let sampling = Sampling::Poisson { rate: SamplingRate::new(0.01).unwrap() };
        assert_eq!(drawn(sampling, 1000, 1), drawn(sampling, 1000, 1));
        assert_ne!(drawn(sampling, 1000, 1), drawn(sampling, 1000, 2));
    }

    #[test]
    fn every_pair_of_a_small_population_is_drawn_equally_often() {
        // Chi-square over the ten pairs of five clients: 9 degrees of freedom, alpha = 1e-6 at 45.08.
        let draws = 20_000;
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..draws {
            let pair: Vec<_> = drawn(Sampling::fixed(2, 5).unwrap(), 5, seed).into_iter().collect();
            *counts.entry((pair[0], pair[1])).or_insert(0u64) += 1;
        }
        assert_eq!(counts.len(), 10);
        let expected = draws as f64 / 10.0;
        let statistic: f64 = counts.values().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
        assert!(statistic < 45.08, "{statistic}");
    }

    #[test]
    fn a_poisson_cohort_has_a_binomial_size_and_no_favourites() {
        // n = 2000 clients, rate 0.1, 200 rounds: sums are binomial; bounds at alpha = 1e-6, two-sided normal, 4.89 s.d.
        let sampling = Sampling::Poisson { rate: SamplingRate::new(0.1).unwrap() };
        let (mut total, mut first) = (0usize, 0usize);
        for seed in 0..200 {
            let cohort = drawn(sampling, 2000, seed);
            total += cohort.len();
            first += usize::from(cohort.contains(&ClientId(0)));
        }
        let within =
            |count: usize, trials: f64| (count as f64 - 0.1 * trials).abs() < 4.89 * (0.09 * trials).sqrt();
        assert!(within(total, 400_000.0), "{total}");
        assert!(within(first, 200.0), "{first}");
    }

    #[test]
    fn a_bound_just_above_half_the_range_is_uniform() {
        // Without rejection the lower half would come up twice as often as the upper.
        let bound = (1 << 63) + (1 << 62);
        let mut prg = Key::from_seed(3).stream();
        let low = (0..10_000).filter(|_| uniform(bound, &mut prg) < bound / 2).count();
        // 4.89 standard deviations of a fair coin: alpha = 1e-6.
        assert!((4755..5245).contains(&low), "{low}");
    }
}
