//! Questions that are asked before anybody trains: what a schedule costs, and what a budget allows.
//!
//! Pure computation: numbers in, numbers out. [`cost()`] answers what is spent, [`Target`] which noise, rate or rounds meet a
//! target, [`Federation::plan`] what noise a federation needs and whether the mean survives it, and [`delta_against_epsilon`] and
//! [`epsilon_against_steps`] how these trade for each other.

mod cost;
mod curve;
mod plan;

pub use crate::accounting::calibration::{MOST_STEPS, Target};
pub use cost::{Cost, FINE, cost};
pub use curve::{DeltaAt, EpsilonAt, delta_against_epsilon, epsilon_against_steps};
pub use plan::{Federation, Plan, Usable};

use crate::accounting::AccountingError;
use crate::accounting::calibration::CalibrationError;
use crate::quantities::{Delta, Epsilon, QuantityError, TrustMode};

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlannerError {
    /// The accountant has none.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// A parameter outside its range.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Nothing within reach meets the target.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A delta that allows to publish one member in full.
    #[error("delta is {delta}, but must be below one over the population of {population}, which is {}", 1.0 / *population as f64)]
    DeltaAbovePopulation {
        /// The refused value.
        delta: Delta,
        /// Members in all.
        population: u64,
    },
    /// More releases than privacy loss distributions resolve.
    #[error(
        "steps are {steps} in all, but must be from 1 to {MOST_STEPS} for the {accountant} accountant to certify its precision; \
         use the rdp accountant"
    )]
    TooManySteps {
        /// Releases asked about.
        steps: u64,
        /// The accountant that refuses.
        accountant: &'static str,
    },
    /// A relation that the mode cannot hide.
    #[error(
        "adjacency is add-or-remove, but in mode {mode} the server sees who takes part; use zero-out or replace"
    )]
    PresenceIsVisible {
        /// The mode.
        mode: TrustMode,
    },
}

/// Refuses a delta that is not below one over the population: releasing one member in full would satisfy it.
///
/// # Errors
/// [`PlannerError::DeltaAbovePopulation`].
pub fn check_delta(delta: Delta, population: u64) -> Result<(), PlannerError> {
    if delta.get() * (population as f64) < 1.0 {
        return Ok(());
    }
    Err(PlannerError::DeltaAbovePopulation { delta, population })
}

/// Refuses an epsilon that is no target: nothing can be released at 0, and infinity allows everything.
///
/// # Errors
/// [`PlannerError::Quantity`].
pub fn check_target(epsilon: Epsilon) -> Result<(), PlannerError> {
    if epsilon > Epsilon::ZERO && epsilon.is_finite() {
        return Ok(());
    }
    let range = "above 0 and finite";
    Err(QuantityError::OutOfRange { parameter: "epsilon", value: epsilon.get(), range }.into())
}
