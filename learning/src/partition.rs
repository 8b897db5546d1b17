//! How a data set is spread over the clients of a simulated federation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::distr::Open01;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Gamma;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Subset;

/// How examples are spread over clients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    /// A random permutation dealt in runs whose sizes differ by at most one.
    Iid,
    /// Label skew: the share of each label that each client gets is drawn from a symmetric
    /// Dirichlet distribution over the clients (Yurochkin et al., Bayesian Nonparametric Federated
    /// Learning of Neural Networks, 2019, section 4; the "distribution-based label imbalance" of
    /// Li et al., Federated Learning on Non-IID Data Silos, 2022).
    Dirichlet {
        /// Concentration: the smaller, the fewer clients share a label.
        alpha: Alpha,
    },
    /// Sorted by label and cut into shards of almost equal size, of which each client gets `per_client` at random
    /// (McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, 2017, section 3).
    Shards {
        /// Shards of one client, at least 1.
        per_client: usize,
    },
    /// Each client has what it owns, in the order in which owners appear.
    Owners,
}

/// Concentration of a symmetric Dirichlet distribution, within 1e-6..=1e6.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Alpha(f64);

/// A partition: every example of the source belongs to exactly one client, every client has one.
#[derive(Debug, Clone)]
pub struct Partition {
    /// The share of each client, in the order of the source; none is empty.
    pub clients: Vec<Subset>,
    /// How many clients the scheme had left empty. Each was given one example of the client that
    /// then had most (the lowest-numbered of several), in client order.
    pub repaired: usize,
}

/// Why a data set cannot be spread as asked.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PartitionError {
    /// No clients.
    #[error("a partition needs at least one client")]
    NoClients,
    /// Somebody would have nothing.
    #[error("{examples} examples cannot be spread over {clients} clients: some would have none")]
    TooManyClients {
        /// Number of clients asked for.
        clients: usize,
        /// Number of examples there are.
        examples: usize,
    },
    /// There are fewer examples than shards, or no shards.
    #[error("{examples} examples cannot be cut into {shards} shards, one or more for each client")]
    Shards {
        /// Number of shards asked for.
        shards: usize,
        /// Number of examples there are.
        examples: usize,
    },
    /// Nobody owns an example.
    #[error("the data have no column of clients to divide them by")]
    NoOwners,
    /// There are more or fewer owners than clients.
    #[error("the data belong to {owners} clients, not to {clients}")]
    OwnerCount {
        /// Number of clients asked for.
        clients: usize,
        /// Number of owners.
        owners: usize,
    },
    /// All that somebody owns is held out.
    #[error("client `{owner}` has no example to train on: all of its examples are held out")]
    OwnerWithoutExample {
        /// The owner.
        owner: String,
    },
    /// The concentration is out of range or not a number.
    #[error("a Dirichlet concentration lies within 1e-6 and 1e6, not {alpha}")]
    Alpha {
        /// The concentration asked for.
        alpha: f64,
    },
}

/// Spreads the examples of `source` over `clients` clients, a function of `key` alone.
///
/// # Errors
/// [`PartitionError`], any but [`PartitionError::Alpha`].
pub fn partition(
    source: &Subset,
    clients: usize,
    scheme: Scheme,
    key: [u8; 32],
) -> Result<Partition, PartitionError> {
    let examples = source.len();
    if clients == 0 {
        return Err(PartitionError::NoClients);
    }
    if clients > examples {
        return Err(PartitionError::TooManyClients { clients, examples });
    }
    let mut shares = match scheme {
        Scheme::Iid => iid(source, clients, key),
        Scheme::Dirichlet { alpha } => dirichlet(source, clients, alpha, key),
        Scheme::Shards { per_client } => shards(source, clients, per_client, key)?,
        Scheme::Owners => by_owner(source, clients)?,
    };
    shares.iter_mut().for_each(|share| share.sort_unstable());
    let repaired = repair(&mut shares);
    let view = |positions: Vec<usize>| {
        let rows = positions.into_iter().map(|at| source.rows()[at]).collect();
        Subset::new(source.dataset().clone(), rows).expect("rows of a subset are in its data set")
    };
    Ok(Partition { clients: shares.into_iter().map(view).collect(), repaired })
}

impl Alpha {
    /// The concentration `alpha`.
    ///
    /// # Errors
    /// [`PartitionError::Alpha`] outside 1e-6..=1e6.
    pub fn new(alpha: f64) -> Result<Self, PartitionError> {
        match alpha {
            1e-6..=1e6 => Ok(Self(alpha)),
            _ => Err(PartitionError::Alpha { alpha }),
        }
    }
}

impl TryFrom<f64> for Alpha {
    type Error = PartitionError;

    fn try_from(alpha: f64) -> Result<Self, PartitionError> {
        Self::new(alpha)
    }
}

impl From<Alpha> for f64 {
    fn from(Alpha(alpha): Alpha) -> Self {
        alpha
    }
}

/// Positions in `source` by client. Shuffled with stream 0 of the key.
fn iid(source: &Subset, clients: usize, key: [u8; 32]) -> Vec<Vec<usize>> {
    let mut positions: Vec<usize> = (0..source.len()).collect();
    positions.shuffle(&mut stream(key, 0));
    (0..clients)
        .map(|client| {
            let start = client * source.len() / clients;
            let end = (client + 1) * source.len() / clients;
            positions[start..end].to_vec()
        })
        .collect()
}

/// Positions in `source` by client. Label `l` uses stream `l` of the key: first the proportions of
/// all clients, then a shuffle of its examples, which are cut at the cumulated proportions.
fn dirichlet(source: &Subset, clients: usize, alpha: Alpha, key: [u8; 32]) -> Vec<Vec<usize>> {
    let mut by_label = vec![Vec::new(); source.dataset().classes()];
    for (position, label) in source.labels().enumerate() {
        by_label[label as usize].push(position);
    }
    let mut shares = vec![Vec::new(); clients];
    for (label, mut positions) in by_label.into_iter().enumerate() {
        let mut generator = stream(key, label as u64);
        let proportions = symmetric_dirichlet(alpha, clients, &mut generator);
        positions.shuffle(&mut generator);
        let (mut start, mut cumulated) = (0, 0.0);
        for (client, proportion) in proportions.into_iter().enumerate() {
            cumulated += proportion;
            let end = match client + 1 {
                last if last == clients => positions.len(),
                _ => ((cumulated * positions.len() as f64) as usize).min(positions.len()),
            };
            shares[client].extend_from_slice(&positions[start..end]);
            start = end;
        }
    }
    shares
}

/// Positions in `source` by client. The shards are shuffled with stream 0 of the key.
fn shards(
    source: &Subset,
    clients: usize,
    per_client: usize,
    key: [u8; 32],
) -> Result<Vec<Vec<usize>>, PartitionError> {
    let (examples, shards) = (source.len(), clients.saturating_mul(per_client));
    if shards == 0 || shards > examples {
        return Err(PartitionError::Shards { shards, examples });
    }
    let labels: Vec<u32> = source.labels().collect();
    let mut sorted: Vec<usize> = (0..examples).collect();
    sorted.sort_by_key(|&position| labels[position]);
    let mut order: Vec<usize> = (0..shards).collect();
    order.shuffle(&mut stream(key, 0));
    let cut = |shard: usize| shard * examples / shards;
    let shard = |&shard: &usize| sorted[cut(shard)..cut(shard + 1)].iter().copied();
    Ok(order.chunks(per_client).map(|mine| mine.iter().flat_map(shard).collect()).collect())
}

/// Positions in `source` by client.
fn by_owner(source: &Subset, clients: usize) -> Result<Vec<Vec<usize>>, PartitionError> {
    let owners = source.dataset().owners().ok_or(PartitionError::NoOwners)?;
    if owners.names().len() != clients {
        return Err(PartitionError::OwnerCount { clients, owners: owners.names().len() });
    }
    let mut shares = vec![Vec::new(); clients];
    for (position, &row) in source.rows().iter().enumerate() {
        shares[owners.of_rows()[row] as usize].push(position);
    }
    match shares.iter().position(Vec::is_empty) {
        Some(owner) => Err(PartitionError::OwnerWithoutExample { owner: owners.names()[owner].clone() }),
        None => Ok(shares),
    }
}

/// Proportions that add up to one: normalised Gamma(alpha) variables, each drawn as
/// Gamma(alpha + 1) U^(1/alpha) and kept as a logarithm, so that no alpha underflows to 0 / 0.
fn symmetric_dirichlet(Alpha(alpha): Alpha, count: usize, generator: &mut ChaCha8Rng) -> Vec<f64> {
    let gamma = Gamma::new(alpha + 1.0, 1.0).expect("a shape above 1 and a scale of 1 are valid");
    let logarithms: Vec<f64> = (0..count)
        .map(|_| {
            let boosted: f64 = generator.sample(gamma);
            let uniform: f64 = generator.sample(Open01);
            boosted.ln() + uniform.ln() / alpha
        })
        .collect();
    let largest = logarithms.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = logarithms.iter().map(|l| (l - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Gives each empty share the last example of the largest one; returns how many were empty. There
/// are at least as many examples as shares, so the largest has two while any is empty.
fn repair(shares: &mut [Vec<usize>]) -> usize {
    let empty: Vec<usize> = (0..shares.len()).filter(|&i| shares[i].is_empty()).collect();
    let mut largest: BinaryHeap<_> =
        shares.iter().enumerate().map(|(client, share)| (share.len(), Reverse(client))).collect();
    for &client in &empty {
        let Some((size, Reverse(donor))) = largest.pop() else {
            break;
        };
        let example = shares[donor].pop();
        shares[client].extend(example);
        largest.push((size - 1, Reverse(donor)));
    }
    empty.len()
}

fn stream(key: [u8; 32], stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(stream);
    generator
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use ndarray::{Array1, Array2};
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    use super::*;
    use crate::{Dataset, digits};

    fn dirichlet(alpha: f64) -> Scheme {
        Scheme::Dirichlet { alpha: Alpha::new(alpha).unwrap() }
    }

    fn labelled(labels: Vec<u32>) -> Subset {
        let features = Array2::zeros((labels.len(), 1));
        let dataset = Dataset::new(features, Array1::from_vec(labels), 4).unwrap();
        Subset::all(Arc::new(dataset))
    }

    #[test]
    fn every_example_goes_to_exactly_one_client_and_every_client_has_one() {
        let repairs = Cell::new(0);
        let strategy = (
            prop::collection::vec(0_u32..4, 1..60),
            0.0..1.0_f64,
            prop_oneof![Just(None), prop_oneof![Just(1e-6), Just(0.1), Just(1e6)].prop_map(Some)],
            any::<[u8; 32]>(),
        );
        TestRunner::new(Config::with_cases(300))
            .run(&strategy, |(labels, fraction, alpha, key)| {
                let source = labelled(labels);
                let clients = 1 + (fraction * source.len() as f64) as usize;
                let scheme = alpha.map_or(Scheme::Iid, dirichlet);
                let partition = partition(&source, clients, scheme, key).unwrap();
                prop_assert_eq!(partition.clients.len(), clients);
                prop_assert!(partition.clients.iter().all(|client| !client.is_empty()));
                let mut rows: Vec<_> = partition.clients.iter().flat_map(Subset::rows).collect();
                rows.sort();
                prop_assert!(rows.into_iter().eq(source.rows()));
                repairs.set(repairs.get() + partition.repaired);
                Ok(())
            })
            .unwrap();
        assert!(repairs.get() > 100, "only {} repairs", repairs.get());
    }

    #[test]
    fn iid_shares_differ_in_size_by_at_most_one_and_need_no_repair() {
        let train = digits::load().train;
        let partition = partition(&train, 100, Scheme::Iid, [1; 32]).unwrap();
        assert_eq!(partition.repaired, 0);
        assert!(partition.clients.iter().all(|client| [14, 15].contains(&client.len())));
    }

    #[test]
    fn a_partition_is_a_function_of_its_key() {
        let train = digits::load().train;
        for scheme in [Scheme::Iid, dirichlet(0.3)] {
            let rows = |key| -> Vec<Vec<usize>> {
                let partition = partition(&train, 20, scheme, [key; 32]).unwrap();
                partition.clients.iter().map(|c| c.rows().to_vec()).collect()
            };
            assert_eq!(rows(1), rows(1));
            assert_ne!(rows(1), rows(2));
        }
    }

    /// Pins the draws: an update of the generators that changed them would change every experiment.
    #[test]
    fn the_partition_of_the_digits_by_a_known_key_stays_the_same() {
        let train = digits::load().train;
        let sizes = |scheme| -> Vec<usize> {
            let partition = partition(&train, 8, scheme, [1; 32]).unwrap();
            partition.clients.iter().map(Subset::len).collect()
        };
        let first = &partition(&train, 8, Scheme::Iid, [1; 32]).unwrap().clients[0];
        assert_eq!(first.rows()[..5], [8, 31, 32, 35, 41]);
        assert_eq!(sizes(dirichlet(0.3)), [227, 86, 313, 225, 185, 209, 99, 94]);
    }

    /// Of a symmetric Dirichlet over n clients, a share p has mean 1/n and variance
    /// (1/n)(1 - 1/n) / (n alpha + 1). With 20 000 vectors of 5 the sample variance of one
    /// coordinate is within 5 % by more than 5 of its standard errors (fixed seed).
    #[test]
    fn proportions_have_the_moments_of_the_dirichlet_distribution() {
        let (n, vectors) = (5, 20_000);
        for (key, alpha) in [(1, 0.1), (2, 1.0), (3, 10.0)] {
            let mut generator = stream([key; 32], 0);
            let firsts: Vec<f64> =
                (0..vectors).map(|_| symmetric_dirichlet(Alpha(alpha), n, &mut generator)[0]).collect();
            let mean = firsts.iter().sum::<f64>() / vectors as f64;
            let variance = firsts.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / vectors as f64;
            let expected = 0.2 * 0.8 / (n as f64 * alpha + 1.0);
            let standard_error = (expected / vectors as f64).sqrt();
            assert!((mean - 0.2).abs() < 5.0 * standard_error, "mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "variance {variance}");
        }
    }

    #[test]
    fn a_small_alpha_gives_clients_few_labels_and_a_large_one_many() {
        let train = digits::load().train;
        let labels_of_a_client = |alpha| {
            let partition = partition(&train, 10, dirichlet(alpha), [1; 32]).unwrap();
            let labels: usize = partition
                .clients
                .iter()
                .map(|client| client.label_counts().iter().filter(|&&n| n > 0).count())
                .sum();
            labels as f64 / 10.0
        };
        assert!(labels_of_a_client(0.01) < 3.0);
        assert_eq!(labels_of_a_client(1000.0), 10.0);
    }

    #[test]
    fn shards_leave_each_client_few_labels_and_almost_equal_shares() {
        let train = digits::load().train;
        let partition = partition(&train, 100, Scheme::Shards { per_client: 2 }, [1; 32]).unwrap();
        assert_eq!(partition.repaired, 0);
        for client in &partition.clients {
            assert!((14..=16).contains(&client.len()), "{}", client.len());
            // A shard crosses at most one border between labels.
            assert!(client.label_counts().iter().filter(|&&count| count > 0).count() <= 4);
        }
        let mut rows: Vec<_> = partition.clients.iter().flat_map(|client| client.rows().to_vec()).collect();
        rows.sort_unstable();
        assert_eq!(rows, train.rows());
        let sizes: Vec<_> = partition.clients.iter().map(|client| client.rows().to_vec()).collect();
        let scheme = Scheme::Shards { per_client: 2 };
        let other = super::partition(&train, 100, scheme, [2; 32]).unwrap();
        assert!(other.clients.iter().zip(sizes).any(|(client, rows)| client.rows() != rows));
    }

    #[test]
    fn owners_get_what_is_theirs_and_nobody_is_left_without() {
        let mut owners = crate::Owners::default();
        ["b", "a", "b", "c"].into_iter().for_each(|name| owners.push(name));
        let dataset = Dataset::new(Array2::zeros((4, 1)), Array1::zeros(4), 2).unwrap();
        let dataset = Arc::new(dataset.owned_by(owners).unwrap());
        let all = Subset::all(dataset.clone());
        let shares = partition(&all, 3, Scheme::Owners, [1; 32]).unwrap();
        let rows: Vec<_> = shares.clients.iter().map(|client| client.rows().to_vec()).collect();
        assert_eq!(rows, [vec![0, 2], vec![1], vec![3]]);
        assert_eq!(
            partition(&all, 2, Scheme::Owners, [1; 32]).unwrap_err(),
            PartitionError::OwnerCount { clients: 2, owners: 3 }
        );
        let without_c = Subset::new(dataset, vec![0, 1, 2]).unwrap();
        assert_eq!(
            partition(&without_c, 3, Scheme::Owners, [1; 32]).unwrap_err(),
            PartitionError::OwnerWithoutExample { owner: "c".into() }
        );
        assert_eq!(
            partition(&labelled(vec![0, 1]), 2, Scheme::Owners, [1; 32]).unwrap_err(),
            PartitionError::NoOwners
        );
    }

    #[test]
    fn what_cannot_be_spread_is_refused() {
        let source = labelled(vec![0, 1]);
        let refuse = |clients| partition(&source, clients, Scheme::Iid, [1; 32]).unwrap_err();
        assert_eq!(refuse(0), PartitionError::NoClients);
        assert_eq!(refuse(3), PartitionError::TooManyClients { clients: 3, examples: 2 });
        for per_client in [0, 2, usize::MAX] {
            let scheme = Scheme::Shards { per_client };
            let refused = partition(&source, 2, scheme, [1; 32]).unwrap_err();
            assert_eq!(
                refused,
                PartitionError::Shards { shards: 2usize.saturating_mul(per_client), examples: 2 }
            );
        }
        for alpha in [0.0, -1.0, 1e7, f64::INFINITY, f64::NAN] {
            assert!(matches!(Alpha::new(alpha), Err(PartitionError::Alpha { .. })));
        }
        assert!(serde_json::from_str::<Scheme>(r#"{"dirichlet":{"alpha":0.0}}"#).is_err());
    }
}
