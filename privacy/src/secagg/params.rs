//! How many share-holders a client has, and how many of them it takes to open a share.
//!
//! # Against whom
//!
//! The server lies as it likes, and at most ⌊γn⌋ of the n clients of a cohort are its own. Each client picks its k
//! share-holders itself, so of those at most c are corrupt, except with probability 2⁻⁴⁰ for the whole cohort: c = ⌊γn⌋ in
//! the complete graph, otherwise the tail of a hypergeometric law. A holder reveals one of two shares. A corrupt one
//! reveals both, so to open both secrets of a client takes 2t ≤ k + c; the threshold is above that: t > (k + c)/2
//! (Bell, Bonawitz, Gascón, Lepoint and Raykova, ia.cr/2020/704, section 4.3). It also keeps t − c honest holders beside
//! every survivor, and holders are mask neighbours, so its masks do not all cancel.
//!
//! A sparse graph can fall apart, and then the server learns the sum of each part. With at least t living holders each, a part
//! of a honest clients needs every one of them to have t holders among those a and the corrupt; the union bound over all parts
//! of at most half of the honest clients is kept below 2⁻⁴⁰ as well.
//!
//! # Liveness
//!
//! If ⌊δ(n − 1)⌋ others drop out, every client still has t holders, except with probability 2⁻³⁰ for the whole cohort.

use std::fmt;

use super::hypergeometric::{ln_sum, ln_upper_tail};
use crate::quantities::{CorruptFraction, DropoutFraction};

/// The largest cohort whose graph is complete.
pub const COMPLETE_MAX: u32 = 300;

/// The largest cohort of one session: larger ones are split in groups.
pub const COHORT_MAX: u32 = 10_000;

/// The smallest cohort of any session. A sum of two reveals each to the other; a sum of three with one corrupt is such a sum.
pub const COHORT_MIN: u32 = 3;

/// Probability, as a power of two, with which a cohort's choice of holders betrays one of its members.
pub const PRIVACY_BITS: u32 = 40;

/// Probability, as a power of two, with which the tolerated dropouts still leave somebody without enough holders.
pub const LIVENESS_BITS: u32 = 30;

/// Why there is no such protocol, or why it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// The cohort is smaller than the policy allows.
    #[error("a cohort of {cohort} is too small to hide in; the policy asks for at least {min_cohort}")]
    CohortTooSmall {
        /// Clients in the cohort.
        cohort: u32,
        /// Fewest that the policy allows, at least [`COHORT_MIN`].
        min_cohort: u32,
    },
    /// The cohort is larger than one session carries.
    #[error("a cohort of {cohort} is too large for one session of at most {COHORT_MAX}; split it in groups")]
    CohortTooLarge {
        /// Clients in the cohort.
        cohort: u32,
    },
    /// A client has more holders than there are others.
    #[error("{degree} share-holders a client are not possible in a cohort of {cohort}")]
    Degree {
        /// Share-holders of a client.
        degree: u32,
        /// Clients in the cohort.
        cohort: u32,
    },
    /// The server and its clients could open both secrets of a client, or no one could open any.
    #[error(
        "a threshold of {threshold} of {degree} share-holders is not safe in a cohort of {cohort}: it must be {least} to {degree}"
    )]
    Threshold {
        /// Shares that open a secret.
        threshold: u32,
        /// Share-holders of a client.
        degree: u32,
        /// Clients in the cohort.
        cohort: u32,
        /// The smallest safe threshold; above `degree` when there is none.
        least: u32,
    },
    /// The graph may fall apart, and then the server learns the sums of its parts.
    #[error("{degree} share-holders a client do not keep a cohort of {cohort} connected")]
    Disconnected {
        /// Share-holders of a client.
        degree: u32,
        /// Clients in the cohort.
        cohort: u32,
    },
    /// No number of holders is both safe and survives the dropouts.
    #[error(
        "a cohort of {cohort} cannot have {corrupt} corrupt clients and lose {dropped} others; expect fewer of either"
    )]
    TooManyDropouts {
        /// Clients in the cohort.
        cohort: u32,
        /// ⌊γn⌋.
        corrupt: u32,
        /// ⌊δ(n − 1)⌋.
        dropped: u32,
    },
}

/// Size of a cohort n, share-holders of a client k, threshold t: a combination that is safe.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    cohort: u32,
    degree: u32,
    threshold: u32,
}

impl Params {
    /// What a server plans: the complete graph up to [`COMPLETE_MAX`] clients, otherwise the smallest safe degree.
    ///
    /// # Errors
    /// [`ParamsError`] when the cohort is below `min_cohort` or nothing is safe and survives the dropouts.
    pub fn plan(
        cohort: u32,
        min_cohort: u32,
        gamma: CorruptFraction,
        delta: DropoutFraction,
    ) -> Result<Self, ParamsError> {
        Self::plan_against(cohort, min_cohort, gamma.of(cohort), delta)
    }

    /// [`Params::plan`] against so many corrupt clients, as for a [group](super::corrupt_in_group) of a larger cohort.
    ///
    /// # Errors
    /// As [`Params::plan`].
    pub fn plan_against(
        cohort: u32,
        min_cohort: u32,
        corrupt: u32,
        delta: DropoutFraction,
    ) -> Result<Self, ParamsError> {
        check_cohort(cohort, min_cohort)?;
        if cohort > COMPLETE_MAX {
            return Self::sparse_against(cohort, corrupt, delta);
        }
        let (degree, dropped) = (cohort - 1, delta.of(cohort - 1));
        let threshold = complete_threshold(cohort, corrupt);
        if degree - dropped < threshold {
            return Err(ParamsError::TooManyDropouts { cohort, corrupt, dropped });
        }
        Ok(Self { cohort, degree, threshold })
    }

    /// The smallest safe degree, in a cohort of any size: less work for small cohorts than the complete graph, at the price
    /// that its safety is a probability.
    ///
    /// # Errors
    /// As [`Params::plan`].
    pub fn plan_sparse(
        cohort: u32,
        min_cohort: u32,
        gamma: CorruptFraction,
        delta: DropoutFraction,
    ) -> Result<Self, ParamsError> {
        check_cohort(cohort, min_cohort)?;
        Self::sparse_against(cohort, gamma.of(cohort), delta)
    }

    fn sparse_against(cohort: u32, corrupt: u32, delta: DropoutFraction) -> Result<Self, ParamsError> {
        let dropped = delta.of(cohort - 1);
        let params = |degree| {
            (sparse_threshold(cohort, degree, corrupt)?..=degree)
                .take_while(|&threshold| survives(cohort, dropped, degree, threshold))
                .map(|threshold| Self { cohort, degree, threshold })
                .find(|params| params.is_connected(corrupt))
        };
        (1..cohort).find_map(params).ok_or(ParamsError::TooManyDropouts { cohort, corrupt, dropped })
    }

    /// What a client makes of a plan: the numbers in it, if it would call them safe itself.
    ///
    /// # Errors
    /// [`ParamsError`] with the first number that is not.
    pub fn verify(
        cohort: u32,
        degree: u32,
        threshold: u32,
        min_cohort: u32,
        gamma: CorruptFraction,
    ) -> Result<Self, ParamsError> {
        Self::verify_against(cohort, degree, threshold, min_cohort, gamma.of(cohort))
    }

    /// [`Params::verify`] against so many corrupt clients.
    ///
    /// # Errors
    /// As [`Params::verify`].
    pub fn verify_against(
        cohort: u32,
        degree: u32,
        threshold: u32,
        min_cohort: u32,
        corrupt: u32,
    ) -> Result<Self, ParamsError> {
        check_cohort(cohort, min_cohort)?;
        if degree == 0 || degree >= cohort {
            return Err(ParamsError::Degree { degree, cohort });
        }
        let params = Self { cohort, degree, threshold };
        let least = if params.is_complete() {
            complete_threshold(cohort, corrupt)
        } else {
            sparse_threshold(cohort, degree, corrupt).unwrap_or(degree + 1)
        };
        if threshold < least || threshold > degree {
            return Err(ParamsError::Threshold { threshold, degree, cohort, least });
        }
        if !params.is_connected(corrupt) {
            return Err(ParamsError::Disconnected { degree, cohort });
        }
        Ok(params)
    }

    /// Clients in the cohort, n.
    #[must_use]
    pub const fn cohort(&self) -> u32 {
        self.cohort
    }

    /// Share-holders of a client, k.
    #[must_use]
    pub const fn degree(&self) -> u32 {
        self.degree
    }

    /// Shares that open a secret, t.
    #[must_use]
    pub const fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Whether everybody holds shares of everybody else.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.degree + 1 == self.cohort
    }

    /// Numbers that nobody has found safe, to show what they are for.
    #[cfg(test)]
    pub(super) const fn unsafe_for_tests(cohort: u32, degree: u32, threshold: u32) -> Self {
        Self { cohort, degree, threshold }
    }

    fn is_connected(&self, corrupt: u32) -> bool {
        self.is_complete() || ln_parts(*self, corrupt) <= -privacy()
    }

    /// The most clients that may pick the same one as their holder.
    #[must_use]
    pub const fn in_degree_max(&self) -> u32 {
        3 * self.degree
    }

    /// The fewest survivors with which a round can end: a client and its threshold.
    #[must_use]
    pub const fn survivors_min(&self) -> u32 {
        self.threshold + 1
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cohort, degree, threshold } = self;
        write!(f, "Params({cohort} clients, {threshold} of {degree} shares)")
    }
}

fn check_cohort(cohort: u32, min_cohort: u32) -> Result<(), ParamsError> {
    let min_cohort = min_cohort.max(COHORT_MIN);
    if cohort < min_cohort {
        return Err(ParamsError::CohortTooSmall { cohort, min_cohort });
    }
    if cohort > COHORT_MAX {
        return Err(ParamsError::CohortTooLarge { cohort });
    }
    Ok(())
}

/// ⌊(k + c)/2⌋ + 1 with k = n − 1 and c corrupt clients.
fn complete_threshold(cohort: u32, corrupt: u32) -> u32 {
    (cohort - 1 + corrupt) / 2 + 1
}

/// The smallest t for which nobody of the cohort has 2t − k corrupt holders, except with probability 2⁻⁴⁰.
fn sparse_threshold(cohort: u32, degree: u32, corrupt: u32) -> Option<u32> {
    let allowed = -privacy() - f64::from(cohort).ln();
    (degree / 2 + 1..=degree)
        .find(|threshold| ln_upper_tail(cohort - 1, corrupt, degree, 2 * threshold - degree) <= allowed)
}

/// Whether all of the cohort keep t of k holders when so many drop out, except with probability 2⁻³⁰.
fn survives(cohort: u32, dropped: u32, degree: u32, threshold: u32) -> bool {
    let allowed = -f64::from(LIVENESS_BITS) * std::f64::consts::LN_2 - f64::from(cohort).ln();
    threshold <= degree && ln_upper_tail(cohort - 1, dropped, degree, degree - threshold + 1) <= allowed
}

/// ln of a bound on the probability that the graph of survivors falls into parts.
///
/// There are at least two parts then, a the size of the smallest, all of whose members have t holders inside or corrupt. The
/// union over all sets of a honest clients is enough for large cohorts; for small ones there are also at least a others of
/// whom the same is true.
fn ln_parts(params: Params, corrupt: u32) -> f64 {
    let Params { cohort, degree, threshold } = params;
    let honest = cohort - corrupt;
    // ln of the probability that all of a given part, by its size, have their holders inside; nobody has none.
    let one_inside = |part: u32| ln_upper_tail(cohort - 1, part + corrupt - 1, degree, threshold);
    let closed = (1..=honest).map(|part| f64::from(part) * one_inside(part));
    let closed: Vec<f64> = std::iter::once(0.0).chain(closed).collect();
    let ln_factorials: Vec<f64> = (0..=honest).map(|n| libm::lgamma(f64::from(n) + 1.0)).collect();
    let sets = |of: u32, part: u32| {
        ln_factorials[of as usize] - ln_factorials[part as usize] - ln_factorials[(of - part) as usize]
    };
    let one = |part: u32| sets(honest, part) + closed[part as usize];
    let ln_one = ln_sum((1..=honest / 2).map(one));
    if ln_one <= -privacy() {
        return ln_one;
    }
    let two = |part: u32| {
        let rest = honest - part;
        let other = ln_sum((part..=rest).map(|other| sets(rest, other) + closed[other as usize]));
        one(part) + other
    };
    ln_sum((1..=honest / 2).map(two))
}

/// 40 bits in natural logarithms.
fn privacy() -> f64 {
    f64::from(PRIVACY_BITS) * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fractions(gamma: f64, delta: f64) -> (CorruptFraction, DropoutFraction) {
        (CorruptFraction::new(gamma).unwrap(), DropoutFraction::new(delta).unwrap())
    }

    /// As [`Params::plan_sparse`], without its limit on the cohort.
    fn active(cohort: u32, gamma: f64, delta: f64) -> (u32, u32) {
        let (gamma, delta) = fractions(gamma, delta);
        let (corrupt, dropped) = (gamma.of(cohort), delta.of(cohort - 1));
        let both = |degree| {
            let threshold = sparse_threshold(cohort, degree, corrupt)?;
            survives(cohort, dropped, degree, threshold).then_some((degree, threshold))
        };
        (1..cohort).find_map(both).unwrap()
    }

    /// Against a server that follows the protocol, t need only exceed the corrupt holders, and one holder more than t has to
    /// stay (Bell et al., definition 3.1). Such parameters are refused; they are here to check the tails.
    fn honest_but_curious(cohort: u32, gamma: f64, delta: f64) -> (u32, u32) {
        let (gamma, delta) = fractions(gamma, delta);
        let (corrupt, dropped) = (gamma.of(cohort), delta.of(cohort - 1));
        let allowed = -privacy() - f64::from(cohort).ln();
        let both = |degree| {
            let threshold =
                (1..=degree).find(|t| ln_upper_tail(cohort - 1, corrupt, degree, *t) <= allowed)?;
            survives(cohort, dropped, degree, threshold + 1).then_some((degree, threshold))
        };
        (1..cohort).find_map(both).unwrap()
    }

    #[test]
    fn the_tables_of_degrees_and_thresholds() {
        let cohorts = [100, 1000, 10_000, 100_000];
        let rows = [
            (0.05, [(24, 15), (88, 57), (113, 73), (124, 80)]),
            (0.1, [(29, 20), (110, 75), (143, 97), (156, 106)]),
        ];
        for (gamma, row) in rows {
            assert_eq!(cohorts.map(|n| active(n, gamma, 0.1)), row, "active server, gamma {gamma}");
            for (cohort, numbers) in cohorts.into_iter().zip(row).take(3) {
                let (gamma, delta) = fractions(gamma, 0.1);
                let planned = Params::plan_sparse(cohort, 10, gamma, delta).unwrap();
                assert_eq!((planned.degree(), planned.threshold()), numbers, "connected, too");
            }
        }
        let rows = [
            (0.1, [(21, 11), (53, 28), (61, 32), (67, 35)]),
            (0.2, [(41, 21), (112, 58), (137, 71), (149, 77)]),
        ];
        for (share, row) in rows {
            let found = cohorts.map(|n| honest_but_curious(n, share, share));
            assert_eq!(found, row, "curious server, gamma and delta {share}");
        }
    }

    #[test]
    fn small_cohorts_have_the_complete_graph() {
        let (gamma, delta) = fractions(0.1, 0.1);
        for (cohort, threshold) in [(10, 6), (50, 28), (100, 55), (300, 165)] {
            let params = Params::plan(cohort, 10, gamma, delta).unwrap();
            assert_eq!((params.degree(), params.threshold()), (cohort - 1, threshold));
            assert_eq!(Params::verify(cohort, cohort - 1, threshold, 10, gamma), Ok(params));
        }
        let sparse = Params::plan(301, 10, gamma, delta).unwrap();
        assert!(sparse.degree() < 150, "{sparse:?}");
    }

    #[test]
    fn every_plan_is_one_that_a_client_accepts() {
        for (gamma, delta) in [(0.0, 0.0), (0.05, 0.1), (0.1, 0.1), (0.2, 0.05)] {
            let (gamma, delta) = fractions(gamma, delta);
            for cohort in [10, 11, 64, 100, 300, 301, 1000, 5000] {
                let planned = Params::plan(cohort, 10, gamma, delta).unwrap();
                let verified = Params::verify(cohort, planned.degree(), planned.threshold(), 10, gamma);
                assert_eq!(verified, Ok(planned));
            }
        }
    }

    #[test]
    fn weaker_numbers_are_refused_by_name() {
        let (gamma, delta) = fractions(0.1, 0.1);
        let too_small = ParamsError::CohortTooSmall { cohort: 9, min_cohort: 10 };
        assert_eq!(Params::plan(9, 10, gamma, delta), Err(too_small));
        assert_eq!(
            Params::plan(2, 0, gamma, delta),
            Err(ParamsError::CohortTooSmall { cohort: 2, min_cohort: 3 })
        );
        assert_eq!(
            Params::plan(10_001, 10, gamma, delta),
            Err(ParamsError::CohortTooLarge { cohort: 10_001 })
        );
        let weak = |threshold, degree, cohort, least| {
            Err(ParamsError::Threshold { threshold, degree, cohort, least })
        };
        assert_eq!(Params::verify(100, 99, 54, 10, gamma), weak(54, 99, 100, 55));
        assert_eq!(Params::verify(100, 99, 100, 10, gamma), weak(100, 99, 100, 55));
        assert_eq!(Params::verify(1000, 110, 74, 10, gamma), weak(74, 110, 1000, 75));
        assert_eq!(Params::verify(1000, 5, 5, 10, gamma), weak(5, 5, 1000, 6));
        assert_eq!(
            Params::verify(100, 100, 60, 10, gamma),
            Err(ParamsError::Degree { degree: 100, cohort: 100 })
        );
        let (half, most) = fractions(0.3, 0.6);
        assert_eq!(
            Params::plan(100, 10, half, most),
            Err(ParamsError::TooManyDropouts { cohort: 100, corrupt: 30, dropped: 59 })
        );
    }

    #[test]
    fn a_graph_that_may_fall_apart_is_refused() {
        // Nobody is corrupt, so the threshold needs no margin, and three holders do not connect ten thousand clients.
        let gamma = CorruptFraction::new(0.0).unwrap();
        assert_eq!(
            Params::verify(10_000, 3, 2, 10, gamma),
            Err(ParamsError::Disconnected { degree: 3, cohort: 10_000 })
        );
    }
}
