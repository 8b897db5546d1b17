//! `skep privacy epsilon`: what a schedule costs.

use serde::Serialize;
use skep_privacy::accounting::Accountant;
use skep_privacy::planner::{Cost, cost};
use skep_privacy::quantities::Adjacency;

use super::arguments::{EpsilonArguments, StepsOfOneKind};
use super::schedule::{composition, hidden};
use super::{Answer, PrivacyError, line};

/// A cost and what it is the cost of.
#[derive(Serialize)]
struct Costed {
    #[serde(flatten)]
    cost: Cost,
    events: Vec<StepsOfOneKind>,
}

pub(super) fn answer(arguments: &EpsilonArguments) -> Result<Answer, PrivacyError> {
    let claim = &arguments.claim;
    arguments.members.check(claim)?;
    refuse_html(arguments.printing.html.is_some())?;
    let events = arguments.schedule.kinds()?;
    let composition = composition(&events, claim.adjacency_or(Adjacency::AddOrRemove));
    let cost = cost(&composition, claim.accountant_or(Accountant::Pld), claim.delta, arguments.members.unit)?;
    let mut text = in_words(&cost);
    for event in &events {
        text += &line("steps", event.words());
    }
    Ok(Answer::new(text, &Costed { cost, events }))
}

/// The claim for people.
pub(super) fn in_words(cost: &Cost) -> String {
    let side = match cost.accountant {
        Accountant::PldOptimistic => "at least (a lower bound, which promises nothing)",
        Accountant::Pld | Accountant::Rdp | Accountant::Analytic => "at most",
    };
    let error = match cost.error_bound {
        Some(bound) => format!("the truth is within {bound:.2e} of it"),
        None => "not known".to_owned(),
    };
    line("epsilon", format!("{side} {:.6} at delta {}", cost.epsilon, cost.delta))
        + &line("error bound", error)
        + &line("hidden", hidden(cost.unit, cost.adjacency))
        + &line("accountant", cost.accountant)
}

/// Refuses a page where there is nothing to draw.
pub(super) fn refuse_html(asked: bool) -> Result<(), PrivacyError> {
    if asked {
        return Err(PrivacyError::Usage(
            "--html is for `skep privacy plan` and `skep privacy curve`".to_owned(),
        ));
    }
    Ok(())
}
