//! Who is invited to a round.
//!
//! The draw is secret: sampling amplifies privacy only against those who cannot see it. Every draw is exact, in
//! integers, from a generator that expands the round's cohort key.
//!
//! # Participation limits
//!
//! A client that has taken part as often as it may, or too short a time ago, is left out, in a way that its sampling allows:
//!
//! - Under Poisson sampling its own coin is flipped and does not count. Whether a client is left out follows from its own
//!   coins alone, which nobody sees. Given everything released before a round, it then takes part in it with a probability
//!   of at most the rate, q·P(it is not left out | what was released), and independently of all others. A round of a
//!   lower rate is dominated by one of a higher rate (against a client that is absent or silent), and composition is
//!   adaptive, so epsilon as it is accounted for without limits still holds. For clients that are exchanged the two
//!   probabilities can differ, and there is no such proof: experiments with limits, Poisson sampling and that adjacency are
//!   refused.
//! - A cohort of fixed size is drawn from those that may take part. It amplifies nothing, so nothing is lost.
//! - Where everyone is invited, a round that one client may not be in is refused.

use std::collections::BTreeSet;

use skep_privacy::prg::{Coin, Key, Prg};
use skep_privacy::quantities::{Sampling, SamplingRate};
use skep_protocol::ClientId;

use crate::roster::Roster;

/// The cohort of one round among those that participation limits let take part. See [`cohort`].
///
/// # Errors
/// How many clients may take part, where those are too few for a cohort of fixed size.
pub fn limited_cohort(
    sampling: Sampling,
    roster: &dyn Roster,
    key: &Key,
    may_take_part: impl Fn(ClientId) -> bool,
) -> Result<BTreeSet<ClientId>, u64> {
    match sampling {
        Sampling::All => Ok(cohort(sampling, roster, key)),
        Sampling::Poisson { .. } => {
            Ok(cohort(sampling, roster, key).into_iter().filter(|client| may_take_part(*client)).collect())
        }
        Sampling::Fixed { size, .. } => {
            let all = (0..roster.population()).map(|index| roster.nth(index));
            let left = Listed(all.filter(|client| may_take_part(*client)).collect());
            if left.population() < size.min(roster.population()) {
                return Err(left.population());
            }
            Ok(cohort(sampling, &left, key))
        }
    }
}

/// Some clients of a roster.
struct Listed(Vec<ClientId>);

impl Roster for Listed {
    fn population(&self) -> u64 {
        self.0.len() as u64
    }

    fn nth(&self, index: u64) -> ClientId {
        self.0[index as usize]
    }

    fn has(&self, client: ClientId) -> bool {
        self.0.contains(&client)
    }
}

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
    fn whoever_may_not_take_part_is_in_no_cohort_and_changes_nobody_elses_coin() {
        let may = |client: ClientId| !client.0.is_multiple_of(3);
        let (roster, key) = (Contiguous(300), Key::from_seed(1));
        let poisson = Sampling::Poisson { rate: SamplingRate::new(0.3).unwrap() };
        let limited = limited_cohort(poisson, &roster, &key, may).unwrap();
        let free: BTreeSet<_> = cohort(poisson, &roster, &key).into_iter().filter(|c| may(*c)).collect();
        assert_eq!(limited, free);
        assert!(limited.len() > 20);
        let fixed = Sampling::fixed(200, 300).unwrap();
        let all: BTreeSet<_> = (0..300).map(ClientId).filter(|c| may(*c)).collect();
        assert_eq!(limited_cohort(fixed, &roster, &key, may), Ok(all));
        assert_eq!(limited_cohort(Sampling::fixed(201, 300).unwrap(), &roster, &key, may), Err(200));
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
