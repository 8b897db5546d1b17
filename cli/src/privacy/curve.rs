//! `skep privacy curve`: delta against epsilon, and epsilon against steps.

use serde::Serialize;
use skep_privacy::accounting::Accountant;
use skep_privacy::planner::{Cost, DeltaAt, EpsilonAt, cost, delta_against_epsilon, epsilon_against_steps};
use skep_privacy::quantities::Adjacency;

use super::arguments::{CurveArguments, StepsOfOneKind};
use super::epsilon::in_words;
use super::page::{Page, Plot};
use super::schedule::composition;
use super::{Answer, PrivacyError, line};
use crate::page::{Axis, Scale};

/// Both curves, and the point that they share.
#[derive(Serialize)]
struct Curves {
    #[serde(flatten)]
    cost: Cost,
    events: Vec<StepsOfOneKind>,
    delta_against_epsilon: Vec<DeltaAt>,
    epsilon_against_steps: Vec<EpsilonAt>,
}

pub(super) fn answer(arguments: &CurveArguments) -> Result<Answer, PrivacyError> {
    let claim = &arguments.claim;
    arguments.members.check(claim)?;
    let events = arguments.schedule.kinds()?;
    let (adjacency, accountant) =
        (claim.adjacency_or(Adjacency::AddOrRemove), claim.accountant_or(Accountant::Pld));
    let whole = composition(&events, adjacency);
    let schedule: Vec<_> = events.iter().map(StepsOfOneKind::event).collect();
    let curves = Curves {
        cost: cost(&whole, accountant, claim.delta, arguments.members.unit)?,
        delta_against_epsilon: delta_against_epsilon(&whole, accountant, claim.delta)?,
        epsilon_against_steps: epsilon_against_steps(&schedule, adjacency, accountant, claim.delta)?,
        events,
    };
    let mut answer = Answer::new(curves.table(), &curves);
    answer.page = arguments.printing.html.as_ref().map(|_| curves.page());
    Ok(answer)
}

impl Curves {
    fn table(&self) -> String {
        let mut text = in_words(&self.cost);
        for event in &self.events {
            text += &line("steps", event.words());
        }
        text += &format!("\n{:>12}  delta\n", "epsilon");
        for point in &self.delta_against_epsilon {
            text += &format!("{:>12}  {:.4e}\n", point.epsilon, point.delta);
        }
        text += &format!("\n{:>12}  epsilon at delta {}\n", "steps", self.cost.delta);
        for point in &self.epsilon_against_steps {
            text += &format!("{:>12}  {:.6}\n", point.steps, point.epsilon);
        }
        text
    }

    fn page(&self) -> Page {
        let cost = &self.cost;
        let mut page = Page::new("Privacy of a schedule");
        page.fact("epsilon", cost.epsilon);
        page.fact("epsilon estimate", cost.epsilon_estimate);
        page.fact("error bound", cost.error_bound);
        page.fact("delta", cost.delta);
        page.fact("unit", cost.unit);
        page.fact("adjacency", cost.adjacency);
        page.fact("accountant", cost.accountant);
        for event in &self.events {
            page.fact("sampling rate", event.sampling_rate);
            page.fact("noise multiplier", event.noise_multiplier);
            page.fact("steps", event.steps);
        }
        page.plot(Plot {
            title: "Delta against epsilon",
            x: Axis { name: "epsilon", scale: Scale::Linear },
            name: "delta",
            y: Scale::Logarithmic,
            points: self
                .delta_against_epsilon
                .iter()
                .map(|point| (point.epsilon.get(), point.delta))
                .collect(),
        });
        page.plot(Plot {
            title: "Epsilon against steps",
            x: Axis { name: "steps", scale: Scale::Linear },
            name: "epsilon",
            y: Scale::Linear,
            points: self
                .epsilon_against_steps
                .iter()
                .map(|point| (point.steps as f64, point.epsilon.get()))
                .collect(),
        });
        page
    }
}
