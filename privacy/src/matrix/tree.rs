//! Tree aggregation, for comparison: what it costs and what is left of the noise.
//!
//! Dwork, Naor, Pitassi and Rothblum (STOC 2010) and Chan, Shi and Song (TISSEC 2011); for learning, Kairouz et al. (DP-FTRL,
//! arXiv 2103.00039). The steps are the leaves of a binary tree, every node holds the sum of its leaves with noise of its
//! own, and the sum of the first t steps is the sum of as many nodes as t has ones in binary. A leaf is in
//! ⌈log₂T⌉ + 1 nodes, so a member that takes part once moves a tree by √(⌈log₂T⌉ + 1) clip norms.

use crate::accounting::{Composition, Event};
use crate::quantities::{Adjacency, NoiseMultiplier};

/// Trees of equal size, one after the other; a member takes part at most once in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeAggregation {
    steps: u32,
    trees: u32,
}

impl TreeAggregation {
    /// `trees` trees of `steps` steps each. `None` when a number is 0.
    #[must_use]
    pub const fn new(steps: u32, trees: u32) -> Option<Self> {
        if steps == 0 || trees == 0 { None } else { Some(Self { steps, trees }) }
    }

    /// Nodes that hold the update of a member, per tree: ⌈log₂T⌉ + 1.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        u32::BITS - (self.steps - 1).leading_zeros() + 1
    }

    /// All that is released, with noise of `noise_multiplier` clip norms on each node: a Rényi divergence of
    /// α·(⌈log₂T⌉ + 1)/2σ² a tree.
    ///
    /// The neighbouring relation is zero-out: with a member added, all later ones would sit at other leaves.
    #[must_use]
    pub fn composition(&self, noise_multiplier: NoiseMultiplier) -> Composition {
        let mut released = Composition::new(Adjacency::ZeroOut);
        released.push(Event::Gaussian { noise_multiplier }, self.nodes());
        released
    }

    /// Root mean square error of a coordinate of the sums so far, over all steps, in clip norms.
    ///
    /// `noise_multiplier` is that of the whole run, as for
    /// [`BandedSquareRoot::prefix_sum_rmse`](super::BandedSquareRoot::prefix_sum_rmse). Only the nodes that make up the
    /// sum are used, not the estimate from all nodes (Honaker).
    #[must_use]
    pub fn prefix_sum_rmse(&self, noise_multiplier: NoiseMultiplier) -> f64 {
        let within: u64 = (1..=self.steps).map(|step| u64::from(step.count_ones())).sum();
        let mean_within = within as f64 / f64::from(self.steps);
        let completed = f64::from(self.steps.count_ones()) * f64::from(self.trees - 1) / 2.0;
        noise_multiplier.get() * (self.nodes() as f64 * (mean_within + completed)).sqrt()
    }

    /// Nodes that hold an update of one member, in all trees: the squared sensitivity.
    fn nodes(&self) -> u64 {
        u64::from(self.depth()) * u64::from(self.trees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::Accountant;
    use crate::matrix::{BandedSquareRoot, Participation};
    use crate::quantities::Delta;

    fn noise(noise_multiplier: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(noise_multiplier).unwrap()
    }

    #[test]
    fn epsilon_agrees_with_the_reference() {
        // dp_accounting 0.6.0, default orders, noise multiplier 5.
        for (steps, trees, expected) in [(1024, 1, 2.968_009), (256, 4, 5.838_112)] {
            let released = TreeAggregation::new(steps, trees).unwrap().composition(noise(5.0));
            let epsilon = released.epsilon(Accountant::Rdp, Delta::new(1e-5).unwrap()).unwrap();
            assert!((epsilon.get() - expected).abs() < 5e-7, "{steps} {trees}: {epsilon}");
        }
    }

    #[test]
    fn a_leaf_is_in_as_many_nodes_as_the_tree_has_levels() {
        for (steps, depth) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (1000, 11), (1024, 11), (1025, 12)] {
            assert_eq!(TreeAggregation::new(steps, 1).unwrap().depth(), depth, "{steps}");
        }
        assert_eq!((TreeAggregation::new(0, 1), TreeAggregation::new(1, 0)), (None, None));
    }

    #[test]
    fn the_error_is_that_of_the_nodes_of_each_sum() {
        for (steps, trees) in [(1, 1), (4, 3), (6, 2), (256, 4)] {
            let tree = TreeAggregation::new(steps, trees).unwrap();
            let mut nodes = 0;
            for step in 1..=steps * trees {
                let (completed, within) = ((step - 1) / steps, (step - 1) % steps + 1);
                nodes += completed * steps.count_ones() + within.count_ones();
            }
            let variance = f64::from(tree.depth() * trees * nodes) / f64::from(steps * trees);
            let found = tree.prefix_sum_rmse(noise(2.0));
            assert!((found / (2.0 * variance.sqrt()) - 1.0).abs() < 1e-12, "{steps} {trees}: {found}");
        }
    }

    #[test]
    fn the_banded_square_root_leaves_less_noise_than_trees_do() {
        // The same number of steps, participations and separation, at the same epsilon.
        for (steps, participations) in [(256, 4), (64, 16), (1024, 1)] {
            let participation = Participation::new(u64::from(steps), participations).unwrap();
            let banded = BandedSquareRoot::new(steps as usize, participation).unwrap();
            let trees = TreeAggregation::new(steps, participations).unwrap();
            let all = (steps * participations) as usize;
            assert!(
                1.5 * banded.prefix_sum_rmse(all, noise(1.0)) < trees.prefix_sum_rmse(noise(1.0)),
                "{steps} {participations}"
            );
        }
    }
}
