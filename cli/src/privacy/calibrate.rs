//! `skep privacy calibrate`: the noise, the sampling rate or the steps that a budget allows.

use serde::Serialize;
use skep_privacy::accounting::Accountant;
use skep_privacy::planner::{Cost, PlannerError, Target, check_target, cost};
use skep_privacy::quantities::{Adjacency, Epsilon, Sampling};

use super::arguments::{CalibrateArguments, StepsOfOneKind};
use super::epsilon::{in_words, refuse_html};
use super::schedule::composition;
use super::{Answer, PrivacyError, line};

/// What was found, and what it costs.
#[derive(Serialize)]
struct Calibrated {
    #[serde(flatten)]
    steps: StepsOfOneKind,
    found: &'static str,
    target_epsilon: Epsilon,
    #[serde(flatten)]
    cost: Cost,
}

pub(super) fn answer(arguments: &CalibrateArguments) -> Result<Answer, PrivacyError> {
    let claim = &arguments.claim;
    arguments.members.check(claim)?;
    refuse_html(arguments.printing.html.is_some())?;
    claim.refuse_optimism()?;
    check_target(arguments.epsilon)?;
    let target = Target {
        epsilon: arguments.epsilon,
        delta: claim.delta,
        adjacency: claim.adjacency_or(Adjacency::AddOrRemove),
        accountant: claim.accountant_or(Accountant::Pld),
    };
    let (found, steps) = find(arguments, &target)?;
    let composition = composition(&[steps], target.adjacency);
    let cost = cost(&composition, target.accountant, target.delta, arguments.members.unit)?;
    let mark = |name| if name == found { "  (found)" } else { "" };
    let text = line("noise multiplier", format!("{}{}", steps.noise_multiplier, mark("noise_multiplier")))
        + &line("sampling rate", format!("{}{}", steps.sampling_rate, mark("sampling_rate")))
        + &line("steps", format!("{}{}", steps.steps, mark("steps")))
        + &line("target", format!("epsilon {}", target.epsilon))
        + &in_words(&cost);
    Ok(Answer::new(text, &Calibrated { steps, found, target_epsilon: target.epsilon, cost }))
}

/// Finds the number that was left out, and says which it was.
fn find(
    arguments: &CalibrateArguments,
    target: &Target,
) -> Result<(&'static str, StepsOfOneKind), PrivacyError> {
    let given = &arguments.steps;
    let poisson = |rate| Sampling::Poisson { rate };
    let whole =
        |noise_multiplier, sampling_rate, steps| StepsOfOneKind { sampling_rate, noise_multiplier, steps };
    match (given.noise_multiplier, given.sampling_rate, given.steps) {
        (None, Some(rate), Some(steps)) => {
            let noise = target.noise_multiplier(poisson(rate), steps).map_err(PlannerError::from)?;
            Ok(("noise_multiplier", whole(noise, rate, steps)))
        }
        (Some(noise), None, Some(steps)) => {
            let rate = target.sampling_rate(noise, steps).map_err(PlannerError::from)?;
            Ok(("sampling_rate", whole(noise, rate, steps)))
        }
        (Some(noise), Some(rate), None) => {
            match target.steps(poisson(rate), noise).map_err(PlannerError::from)? {
                0 => Err(PrivacyError::Usage(format!(
                    "not even one step with noise multiplier {noise} and sampling rate {rate} keeps epsilon below {}",
                    target.epsilon
                ))),
                steps => Ok(("steps", whole(noise, rate, steps))),
            }
        }
        _ => Err(PrivacyError::Usage(
            "leave out exactly one of --noise-multiplier, --sampling-rate and --steps: the one to be found"
                .to_owned(),
        )),
    }
}
