//! Amplification by sampling, given only where a proof holds.
//!
//! A record that may not have taken part is better hidden, but only from somebody who does not know the cohort, and only
//! for sampling that is independent and secret. Whoever chooses the cohort gets no amplification: the budget against the
//! server is always computed with [`Sampling::All`].

use super::Event;
use crate::quantities::{Adjacency, NoiseMultiplier, Sampling, SamplingRate};

/// What a sampling scheme does for privacy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amplification {
    /// Each round touches a record only with this probability.
    Poisson(SamplingRate),
    /// Every round counts in full, for the reason given.
    None(&'static str),
}

impl Amplification {
    /// The amplification that a scheme earns under an adjacency.
    #[must_use]
    pub fn of(sampling: Sampling, adjacency: Adjacency) -> Self {
        match (sampling, adjacency) {
            (Sampling::All, _) => Self::None("everyone takes part in every round"),
            (Sampling::Fixed { .. }, _) => Self::None(
                "a cohort of fixed size is accounted as if everyone took part, because presence shifts everybody else's \
                 chance to be drawn; use poisson sampling for amplification",
            ),
            (Sampling::Poisson { rate }, _) => Self::Poisson(rate),
        }
    }

    /// One round of Gaussian noise under this amplification.
    #[must_use]
    pub fn gaussian(self, noise_multiplier: NoiseMultiplier) -> Event {
        match self {
            Self::Poisson(rate) => Event::PoissonGaussian { rate, noise_multiplier },
            Self::None(_) => Event::Gaussian { noise_multiplier },
        }
    }

    /// Why there is no amplification; `None` where there is.
    #[must_use]
    pub fn reason_for_none(self) -> Option<&'static str> {
        match self {
            Self::Poisson(_) => None,
            Self::None(reason) => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_poisson_sampling_amplifies() {
        let rate = SamplingRate::new(0.01).unwrap();
        let poisson = Sampling::Poisson { rate };
        let fixed = Sampling::fixed(100, 10_000).unwrap();
        for adjacency in [Adjacency::AddOrRemove, Adjacency::ZeroOut, Adjacency::Replace] {
            assert_eq!(Amplification::of(poisson, adjacency), Amplification::Poisson(rate));
            assert!(Amplification::of(fixed, adjacency).reason_for_none().unwrap().contains("fixed size"));
            assert!(Amplification::of(Sampling::All, adjacency).reason_for_none().is_some());
        }
    }
}
