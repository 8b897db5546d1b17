//! On which grid updates are integers, and what hides them: what follows from an experiment before its first round.

use skep_privacy::adversary::Adversary;
use skep_privacy::client_noise::NoisedGrid;
use skep_privacy::grid::{Grid, PrivateGrid, PublicGrid};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::Epsilon;
use skep_protocol::experiment::{Experiment, Privacy, Terms};
use skep_protocol::plan::{Claim, Promise};
use thiserror::Error;

use super::{FederationError, Question};

/// Why there is no epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPromise {
    /// Mode `none`.
    #[error("privacy is off")]
    Off,
    /// Mode `central`, against the server.
    #[error("the server sees every update and adds the noise itself")]
    TrustedServer,
    /// Mode `central` with secure aggregation, against the server.
    #[error("the server sees only sums of updates, but without noise, and no number is certified for that")]
    SumsWithoutNoise,
    /// Mode `central` with secure aggregation, against the server with everybody else.
    #[error("the server adds the noise itself, and takes everybody else's update from the sum")]
    NothingOfItsOwn,
    /// Mode `local`, unit `example`.
    #[error("each client hides its single examples, by its own account, and nothing hides a whole client")]
    ExamplesOnly,
}

/// The grid of an experiment's updates, and the noise of each of its rounds. `dimension` counts the model's parameters, and one
/// more if updates end with a weight.
///
/// # Errors
/// [`FederationError::Grid`], [`FederationError::Noise`] or [`FederationError::ClientNoise`].
pub(super) fn encoding(
    experiment: &Experiment,
    dimension: usize,
) -> Result<(Grid, Mechanism), FederationError> {
    let cohort_max = experiment.cohort_max();
    let least_released = experiment.least_released();
    match &experiment.privacy {
        Privacy::None | Privacy::Examples { .. } => {
            Ok((PublicGrid::new(dimension, cohort_max)?.into(), Mechanism::None))
        }
        Privacy::Central { terms, secure_aggregation } => {
            let grid = match secure_aggregation {
                None => PrivateGrid::new(terms.clip_norm, dimension, cohort_max)?,
                Some(_) => PrivateGrid::masked(terms.clip_norm, dimension, cohort_max)?,
            };
            Ok((grid.into(), Mechanism::rounded_gaussian(terms.noise_multiplier, &grid)?))
        }
        Privacy::Distributed { terms, .. } => {
            let honest = experiment.honest_survivors().unwrap_or_default();
            let Terms { clip_norm, noise_multiplier, .. } = *terms;
            let grid = NoisedGrid::for_shares(clip_norm, dimension, cohort_max, noise_multiplier, honest)?;
            Ok((grid.into(), grid.mechanism(honest, least_released)))
        }
        Privacy::Local { terms } => {
            let grid = NoisedGrid::for_local(terms.clip_norm, dimension, cohort_max, terms.noise_multiplier)?;
            Ok((grid.into(), grid.mechanism(0, least_released)))
        }
    }
}

/// The grid of the answers to a question, and what hides them, added by whom the experiment's mode says.
///
/// # Errors
/// As [`encoding`], and [`FederationError::ExamplesOnly`].
pub(super) fn of_answers(
    experiment: &Experiment,
    question: &Question,
) -> Result<(Grid, Mechanism), FederationError> {
    if let Privacy::Examples { .. } = experiment.privacy {
        return Err(FederationError::ExamplesOnly);
    }
    encoding(&asking(experiment, question), question.dimension)
}

/// The experiment with the bound, the noise and the sampling of a question in place of its rounds'.
pub(super) fn asking(experiment: &Experiment, question: &Question) -> Experiment {
    let mut asked = experiment.clone();
    asked.rounds.sampling = question.sampling;
    asked.privacy = asked.privacy.with_noise(question.clip_norm, question.noise_multiplier);
    asked
}

/// What a plan promises: the terms of the experiment, the noise of the round, and what it has cost by then.
pub(super) fn promise(
    experiment: &Experiment,
    mechanism: Mechanism,
    epsilon: impl Fn(Adversary) -> Epsilon,
) -> Promise {
    let Some(terms) = experiment.privacy.terms() else { return Promise::None };
    let claim = Claim {
        clip_norm: terms.clip_norm,
        unit: terms.unit,
        adjacency: terms.adjacency,
        delta: terms.delta,
        epsilon_release: epsilon(Adversary::Recipients),
        epsilon_server: epsilon(Adversary::Server),
        epsilon_alone: epsilon(Adversary::EveryoneElse),
    };
    match (mechanism, experiment.masking()) {
        (Mechanism::RoundedGaussian { sigma, .. }, masking) => Promise::Central { claim, sigma, masking },
        (Mechanism::NoiseShares { variance, honest, .. }, Some(masking)) => {
            Promise::Distributed { claim, share: variance, honest, masking }
        }
        (Mechanism::LocalGaussian { sigma, .. }, _) => Promise::Local { claim, sigma },
        (Mechanism::NoiseShares { .. }, None) | (Mechanism::None, _) => Promise::None,
    }
}

/// Why a mode promises nothing against an adversary; `None` where it does promise something.
pub fn no_promise(privacy: &Privacy, adversary: Adversary) -> Option<NoPromise> {
    match (privacy, adversary) {
        (Privacy::None, _) => Some(NoPromise::Off),
        (Privacy::Examples { .. }, _) => Some(NoPromise::ExamplesOnly),
        (Privacy::Central { secure_aggregation: None, .. }, Adversary::Server | Adversary::EveryoneElse) => {
            Some(NoPromise::TrustedServer)
        }
        (Privacy::Central { secure_aggregation: Some(_), .. }, Adversary::Server) => {
            Some(NoPromise::SumsWithoutNoise)
        }
        (Privacy::Central { secure_aggregation: Some(_), .. }, Adversary::EveryoneElse) => {
            Some(NoPromise::NothingOfItsOwn)
        }
        (Privacy::Central { .. }, Adversary::Recipients)
        | (Privacy::Distributed { .. } | Privacy::Local { .. }, _) => None,
    }
}
