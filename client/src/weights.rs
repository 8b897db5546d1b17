//! Weights that training of a part of a model starts from, by their digest: everybody has the same, so they never travel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use skep_learning::{Coordinates, Lora, TunedLearner, Tuning, TuningError};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::Digest;
use skep_protocol::experiment::{self, Task};
use thiserror::Error;

use crate::task::architecture;

/// Why a part of a model cannot be trained here.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WeightsError {
    /// It is no part of the model.
    #[error("task.tuning: {0}")]
    Tuning(#[from] TuningError),
    /// It has another number of coordinates.
    #[error(
        "the federation trains {stated} coordinates, but there are {found} of what it says: the peer runs another release"
    )]
    Coordinates {
        /// By the task.
        stated: u64,
        /// Counted here.
        found: usize,
    },
    /// They are not here.
    #[error(
        "the federation trains a part of a model over weights of digest {digest}, which are not here: name its experiment file with \
         --experiment, whose task.tuning.weights says which file holds them"
    )]
    Missing {
        /// The digest of the weights.
        digest: String,
    },
}

/// Weights that have been read in this process. They are what their digest says, so it does not matter who has read them.
static KNOWN: Mutex<BTreeMap<[u8; 32], Arc<[f32]>>> = Mutex::new(BTreeMap::new());

/// Keeps weights for the learners of tasks that name their digest, which is returned.
pub fn keep(weights: Vec<f32>) -> Digest {
    let digest = Digest::of_model(&weights);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).entry(digest.0).or_insert_with(|| weights.into());
    digest
}

/// What of the task's model is trained, in the words of `skep-learning`; all of it if it says nothing.
pub fn tuning(task: &Task) -> Option<Tuning> {
    let experiment::Tuning { frozen, lora, .. } = task.tuning.as_deref()?;
    let lora = lora.as_ref().map(|lora| Lora {
        rank: lora.rank as usize,
        alpha: lora.alpha,
        targets: lora.targets.clone(),
    });
    Some(Tuning { frozen: frozen.clone(), lora })
}

/// The coordinates of the part that the task trains; none if it trains the whole model.
///
/// # Errors
/// [`WeightsError::Tuning`].
pub fn coordinates(task: &Task) -> Result<Option<Coordinates>, WeightsError> {
    let Some(tuning) = tuning(task) else { return Ok(None) };
    Ok(Some(Coordinates::new(&architecture(task), &tuning)?))
}

/// The weights that the task's training starts from: those that were read, or those that follow from its seed.
///
/// # Errors
/// [`WeightsError::Missing`].
pub fn of(task: &Task) -> Result<Arc<[f32]>, WeightsError> {
    let wanted = task.tuning.as_ref().map_or(Digest([0; 32]), |tuning| tuning.weights);
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&wanted.0) {
        return Ok(known.clone());
    }
    let drawn = architecture(task).initial_parameters(*initial_key(task.seed).expose());
    match drawn.map_err(TuningError::Architecture)? {
        drawn if Digest::of_model(&drawn) == wanted => {
            keep(drawn.clone());
            Ok(drawn.into())
        }
        _ => Err(WeightsError::Missing { digest: wanted.to_string() }),
    }
}

/// From which the first weights of experiments with a public seed follow.
pub fn initial_key(seed: u64) -> Key {
    Key::from_seed(seed).derive(Purpose::InitialModel, 0, 0)
}

/// The learner of the part that the task trains; none if it trains the whole model.
pub(crate) fn learner(task: &Task) -> Result<Option<TunedLearner>, WeightsError> {
    let (Some(tuning), Some(coordinates)) = (&task.tuning, coordinates(task)?) else { return Ok(None) };
    let (stated, found) = (tuning.parameters, coordinates.len());
    if stated != found as u64 {
        return Err(WeightsError::Coordinates { stated, found });
    }
    let learner = TunedLearner::new(architecture(task), coordinates, of(task)?);
    // The weights have the digest of weights of this architecture, or are those.
    learner.map(Some).map_err(|_| WeightsError::Missing { digest: tuning.weights.to_string() })
}
