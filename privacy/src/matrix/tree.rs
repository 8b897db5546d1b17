//! Tree aggregation (Kairouz et al. 2021, arXiv 2103.00039), to compare the banded square root with.
//!
//! Every node of a binary tree over the rounds carries the sum below it plus noise; a running sum adds the nodes that
//! make it up.

/// Levels of the tree over a number of rounds, at least 1: nodes that one participation touches.
#[must_use]
pub fn levels(rounds: u64) -> u32 {
    rounds.max(1).next_power_of_two().ilog2() + 1
}

/// Largest L2 norm that one member can add to all nodes together, when its update has norm at most 1 and it joins `most`
/// rounds, each in a tree of its own over `rounds` rounds.
#[must_use]
pub fn sensitivity(rounds: u64, most: u64) -> f64 {
    (most as f64 * f64::from(levels(rounds))).sqrt()
}

/// Root mean square, over the rounds, of the error of running sums within one tree, for noise of deviation 1 on each
/// node.
#[must_use]
pub fn running_sum_error(rounds: u64) -> f64 {
    let nodes: u64 = (1..=rounds).map(|round| u64::from(round.count_ones())).sum();
    (nodes as f64 / rounds.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::rdp::RdpCurve;
    use crate::matrix::{Participation, banded::BandedSquareRoot, effective_noise};
    use crate::quantities::{Delta, NoiseMultiplier};

    #[test]
    fn a_tree_is_accounted_as_one_gaussian_for_each_level() {
        // dp_accounting 0.6.0, tree aggregation, zero-out: one tree of 1024, and four trees of 256, noise 5.
        for (rounds, most, expected) in [(1024, 1, 2.968_009), (256, 4, 5.838_112)] {
            let noise =
                effective_noise(NoiseMultiplier::new(5.0).unwrap(), sensitivity(rounds, most)).unwrap();
            let found = RdpCurve::gaussian(noise).epsilon(Delta::new(1e-5).unwrap()).get();
            assert!((found - expected).abs() < 1e-6, "{found} vs {expected}");
        }
    }

    #[test]
    fn the_banded_square_root_beats_a_tree() {
        let matrix = BandedSquareRoot::new(1024);
        let banded = matrix.sensitivity(Participation::new(1, 1024).unwrap()).unwrap()
            * matrix.running_sum_error(1024);
        let tree = sensitivity(1024, 1) * running_sum_error(1024);
        assert!(banded < 0.7 * tree, "{banded} vs {tree}");
    }
}
