//! A cohort in groups: who is in which, and how many of a group may be the server's own.
//!
//! Of n clients ⌊γn⌋ are corrupt. Groups of m are drawn by a seed that everybody knows, so the corrupt ones of a group follow the
//! hypergeometric law. The server makes the seed, or what it follows from, and can try many: the tail over all groups is kept
//! below 2⁻⁴⁰ for a server that tries 2⁶⁴ seeds, that is, below 2⁻¹⁰⁴ for one.

use ring::digest::{Context, SHA256};

use super::hypergeometric::ln_upper_tail;
use super::params::PRIVACY_BITS;
use super::party::Party;
use super::session::{Digest, digest};

/// Seeds, as a power of two, that the server is supposed to be able to try.
pub const SEED_BITS: u32 = 64;

/// The members of each group, ascending: all of them in the order of SHA-256 of the seed and their number, cut in pieces of `size`,
/// which divides their number.
#[must_use]
pub fn groups(seed: &Digest, members: &[Party], size: u32) -> Vec<Vec<Party>> {
    let mut drawn: Vec<_> = members.iter().map(|&party| (place(seed, party), party)).collect();
    drawn.sort_unstable();
    let group = |group: &[(Digest, Party)]| {
        let mut members: Vec<_> = group.iter().map(|(_, party)| *party).collect();
        members.sort_unstable();
        members
    };
    drawn.chunks(size.max(1) as usize).map(group).collect()
}

fn place(seed: &Digest, party: Party) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(b"skep secagg group v1");
    hash.update(seed);
    hash.update(&party.0.to_be_bytes());
    digest(hash)
}

/// The most corrupt clients of any group of `size`, of `corrupt` in a cohort, except with probability 2⁻⁴⁰ for a server that chooses
/// among 2⁶⁴ seeds.
#[must_use]
pub fn corrupt_in_group(cohort: u32, size: u32, corrupt: u32) -> u32 {
    let groups = f64::from(cohort / size.max(1)).max(1.0);
    let allowed = -f64::from(PRIVACY_BITS + SEED_BITS) * std::f64::consts::LN_2 - groups.ln();
    let most = corrupt.min(size);
    // The tail falls with x: the first number that all groups stay below.
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        match ln_upper_tail(cohort, corrupt, size, middle + 1) <= allowed {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u64) -> Vec<Party> {
        (0..count).map(|i| Party(3 * i + 1)).collect()
    }

    #[test]
    fn everybody_is_in_one_group_that_the_seed_decides() {
        let members = members(600);
        let drawn = groups(&[1; 32], &members, 150);
        assert!(drawn.iter().all(|group| group.len() == 150 && group.is_sorted()));
        let mut all: Vec<_> = drawn.concat();
        all.sort_unstable();
        assert_eq!(all, members);
        assert_eq!(groups(&[1; 32], &members, 150), drawn);
        assert_ne!(groups(&[2; 32], &members, 150), drawn);
        assert_eq!(groups(&[1; 32], &members, 600), [members]);
    }

    #[test]
    fn groups_are_drawn_evenly() {
        // Two clients meet in one of four groups of 150 with probability 149/599; 400 seeds, 4.89 standard deviations.
        let members = members(600);
        let meet = |seed: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&seed.to_be_bytes());
            groups(&bytes, &members[..600], 150)
                .iter()
                .any(|g| g.contains(&members[0]) && g.contains(&members[1]))
        };
        let (seeds, p) = (400, 149.0 / 599.0);
        let met = (0..seeds).filter(|&seed| meet(seed)).count() as f64;
        let n = f64::from(seeds);
        assert!((met - n * p).abs() < 4.89 * (n * p * (1.0 - p)).sqrt(), "{met}");
    }

    #[test]
    fn the_corrupt_of_a_group_are_the_tail_of_the_hypergeometric_law() {
        // By exact integers in Python: the smallest c with (n/m)·P[X > c] ≤ 2⁻¹⁰⁴.
        for (cohort, size, corrupt, most) in GOLDEN {
            assert_eq!(
                corrupt_in_group(cohort, size, corrupt),
                most,
                "{corrupt} of {cohort} in groups of {size}"
            );
        }
        // One group has all of them, and nobody is nobody.
        assert_eq!(corrupt_in_group(300, 300, 30), 30);
        assert_eq!(corrupt_in_group(3000, 1000, 0), 0);
        // Few enough fit into one group.
        assert_eq!(corrupt_in_group(2000, 1000, 10), 10);
    }

    const GOLDEN: [(u32, u32, u32, u32); 4] =
        [(600, 150, 30, 30), (3000, 1000, 150, 119), (10000, 1000, 500, 142), (10000, 2000, 1000, 352)];
}
