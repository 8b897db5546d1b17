//! What typed schedules and claims mean.

use skep_privacy::accounting::{Accountant, Composition, Event};
use skep_privacy::planner::check_delta;
use skep_privacy::quantities::{Adjacency, Unit};

use super::PrivacyError;
use super::arguments::{Claim, Members, Schedule, StepsOfOneKind};

impl Schedule {
    /// The kinds of steps in the order in which they happen: the flags first, then the events.
    pub(super) fn kinds(&self) -> Result<Vec<StepsOfOneKind>, PrivacyError> {
        let mut kinds = self.event.clone();
        let first = &self.first;
        match (first.sampling_rate, first.noise_multiplier, first.steps) {
            (Some(sampling_rate), Some(noise_multiplier), Some(steps)) => {
                kinds.insert(0, StepsOfOneKind { sampling_rate, noise_multiplier, steps });
            }
            (None, None, None) if !kinds.is_empty() => {}
            _ => {
                return Err(PrivacyError::Usage(
                    "a schedule is --noise-multiplier, --sampling-rate (1 for everyone) and --steps, all three, or \
                     --event Q:SIGMA:STEPS, or both"
                        .to_owned(),
                ));
            }
        }
        Ok(kinds)
    }
}

impl StepsOfOneKind {
    /// As the accountant sees them.
    pub(super) fn event(&self) -> (Event, u64) {
        let (rate, noise_multiplier) = (self.sampling_rate, self.noise_multiplier);
        (Event::PoissonGaussian { rate, noise_multiplier }, self.steps)
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let Self { sampling_rate, noise_multiplier, steps } = self;
        format!("{steps} with sampling rate {sampling_rate} and noise multiplier {noise_multiplier}")
    }
}

/// All steps under one adjacency.
pub(super) fn composition(kinds: &[StepsOfOneKind], adjacency: Adjacency) -> Composition {
    let mut composition = Composition::new(adjacency);
    for kind in kinds {
        let (event, steps) = kind.event();
        composition.push(event, steps);
    }
    composition
}

impl Claim {
    pub(super) fn accountant_or(&self, default: Accountant) -> Accountant {
        self.accountant.unwrap_or(default)
    }

    pub(super) fn adjacency_or(&self, default: Adjacency) -> Adjacency {
        self.adjacency.unwrap_or(default)
    }

    /// Refuses to plan with a bound from below.
    pub(super) fn refuse_optimism(&self) -> Result<(), PrivacyError> {
        match self.accountant {
            Some(Accountant::PldOptimistic) => Err(PrivacyError::Usage(
                "accountant is pld-optimistic, a lower bound, which no plan can rest on: use pld, rdp or analytic".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

impl Members {
    /// Refuses a delta that means nothing for so many members.
    pub(super) fn check(&self, claim: &Claim) -> Result<(), PrivacyError> {
        self.population.map_or(Ok(()), |population| Ok(check_delta(claim.delta, population)?))
    }
}

/// What is hidden, in words.
pub(super) fn hidden(unit: Unit, adjacency: Adjacency) -> String {
    let what = match adjacency {
        Adjacency::AddOrRemove => "is there at all",
        Adjacency::ZeroOut => "contributes or sends zero",
        Adjacency::Replace => "is another one",
    };
    format!("whether one {unit} {what} (unit {unit}, adjacency {adjacency})")
}
