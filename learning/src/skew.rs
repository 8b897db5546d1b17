//! How unlike the clients of a federation are: in how much each has, and in which labels (quantity skew and label distribution
//! skew; Kairouz et al., "Advances and Open Problems in Federated Learning", 1912.04977, section 3.1).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// How numbers are distributed. Percentiles are those of the nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// A tenth of them are at most this.
    pub percentile_10: f64,
    /// Half of them are at most this.
    pub median: f64,
    /// Nine tenths of them are at most this.
    pub percentile_90: f64,
    /// The largest.
    pub most: f64,
    /// Their mean.
    pub mean: f64,
}

/// How labels are distributed over clients.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelSkew {
    /// Examples of each class, of all clients together.
    pub examples: Vec<u64>,
    /// How many classes a client has.
    pub classes: Spread,
    /// How far the labels of a client are from those of all clients, 0 to 1: their total variation distance, ½ Σ |pᵢ − qᵢ| over
    /// classes, half of what Zhao et al. call the earth mover's distance ("Federated Learning with Non-IID Data", 1806.00582,
    /// section 3.2).
    pub distance: Spread,
    /// What the mean of it would be if as many examples as each client has had been dealt at random: even then it is not 0, because
    /// few examples are never like all.
    pub distance_if_dealt: f64,
    /// The distance of each client that has examples, in order.
    #[serde(skip)]
    pub distances: Vec<f64>,
}

impl Spread {
    /// Of these numbers; none of nobody's.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let percentile = |percent: usize| {
            let rank = (percent * values.len()).div_ceil(100);
            values.get(rank.saturating_sub(1)).copied()
        };
        Some(Spread {
            least: *values.first()?,
            percentile_10: percentile(10)?,
            median: percentile(50)?,
            percentile_90: percentile(90)?,
            most: *values.last()?,
            mean: values.iter().sum::<f64>() / values.len() as f64,
        })
    }
}

impl LabelSkew {
    /// Of clients with so many examples of each class; none where nobody has any.
    pub fn of<'a>(clients: impl Iterator<Item = &'a [usize]> + Clone) -> Option<Self> {
        let mut examples: Vec<u64> = Vec::new();
        for counts in clients.clone() {
            examples.resize(examples.len().max(counts.len()), 0);
            examples.iter_mut().zip(counts).for_each(|(all, &own)| *all += own as u64);
        }
        let clients = clients.filter(|counts| counts.iter().any(|&count| count > 0));
        let classes = |counts: &[usize]| counts.iter().filter(|&&count| count > 0).count() as f64;
        let distances: Vec<f64> = clients.clone().map(|counts| distance(counts, &examples)).collect();
        Some(LabelSkew {
            classes: Spread::of(clients.clone().map(classes).collect())?,
            distance: Spread::of(distances.clone())?,
            distance_if_dealt: if_dealt(clients.map(|counts| counts.iter().sum()), &examples),
            distances,
            examples,
        })
    }
}

/// The total variation distance between the labels of a client that has some, and those of all.
fn distance(counts: &[usize], all: &[u64]) -> f64 {
    let (own_total, all_total) = (counts.iter().sum::<usize>() as f64, all.iter().sum::<u64>() as f64);
    let difference = |(&own, &all): (&usize, &u64)| (own as f64 / own_total - all as f64 / all_total).abs();
    counts.iter().zip(all).map(difference).sum::<f64>() / 2.0
}

/// The mean distance of clients of these sizes among whom the examples are dealt at random: once, which is as good as the mean of
/// many times where clients are many.
fn if_dealt(sizes: impl Iterator<Item = usize>, examples: &[u64]) -> f64 {
    let mut labels: Vec<usize> = Vec::new();
    for (class, &count) in examples.iter().enumerate() {
        labels.extend(std::iter::repeat_n(class, count as usize));
    }
    labels.shuffle(&mut ChaCha8Rng::from_seed([0; 32]));
    let (mut rest, mut sum, mut clients) = (labels.as_slice(), 0.0, 0_u32);
    for size in sizes {
        let (own, others) = rest.split_at(size);
        let mut counts = vec![0; examples.len()];
        own.iter().for_each(|&class| counts[class] += 1);
        sum += distance(&counts, examples);
        clients += 1;
        rest = others;
    }
    sum / f64::from(clients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Alpha, Scheme, Subset, digits, partition};

    #[test]
    fn clients_of_one_class_each_are_as_far_from_all_as_can_be() {
        let counts = [vec![4, 0], vec![0, 4], vec![0, 0]];
        let skew = LabelSkew::of(counts.iter().map(Vec::as_slice)).unwrap();
        assert_eq!((skew.examples, skew.distances), (vec![4, 4], vec![0.5, 0.5]));
        assert_eq!((skew.classes.least, skew.classes.most, skew.distance.mean), (1.0, 1.0, 0.5));
        let alike = [vec![1, 3], vec![2, 6]];
        let skew = LabelSkew::of(alike.iter().map(Vec::as_slice)).unwrap();
        assert_eq!((skew.distance.most, skew.classes.mean), (0.0, 2.0));
        assert_eq!(LabelSkew::of([vec![0, 0]].iter().map(Vec::as_slice)), None);
    }

    #[test]
    fn shares_dealt_at_random_are_as_far_as_dealt_ones_and_skewed_ones_farther() {
        let train = digits::load().train;
        let skew = |scheme| {
            let clients = partition(&train, 50, scheme, [1; 32]).unwrap().clients;
            let counts: Vec<_> = clients.iter().map(Subset::label_counts).collect();
            LabelSkew::of(counts.iter().map(Vec::as_slice)).unwrap()
        };
        let dealt = skew(Scheme::Iid);
        assert!((dealt.distance.mean - dealt.distance_if_dealt).abs() < 0.03, "{dealt:?}");
        let two_classes = skew(Scheme::Shards { per_client: 2 });
        assert!(two_classes.distance.mean > 0.7 && two_classes.classes.most <= 4.0, "{two_classes:?}");
        let some = skew(Scheme::Dirichlet { alpha: Alpha::new(0.5).unwrap() }).distance.mean;
        assert!(dealt.distance.mean < some && some < two_classes.distance.mean, "{some}");
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let of = Spread::of((1..=20).rev().map(f64::from).collect()).unwrap();
        assert_eq!((of.least, of.percentile_10, of.median, of.percentile_90), (1.0, 2.0, 10.0, 18.0));
        assert_eq!((of.most, of.mean), (20.0, 10.5));
        assert_eq!(Spread::of(vec![]), None);
    }
}
