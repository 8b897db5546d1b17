//! `skep privacy plan`: the noise that a federation needs, and whether anything can be learned through it.

use serde::Serialize;
use skep_privacy::accounting::Accountant;
use skep_privacy::planner::{Federation, Plan, Target};
use skep_privacy::quantities::{Adjacency, ClipNorm, Delta, Epsilon, TrustMode, Unit};

use super::arguments::PlanArguments;
use super::page::{Page, Plot};
use super::schedule::hidden;
use super::{Answer, PrivacyError, line};
use crate::page::{Axis, Scale};

/// A plan and what it is the plan of.
#[derive(Serialize)]
struct Planned {
    #[serde(flatten)]
    federation: Federation,
    /// The target.
    epsilon: Epsilon,
    delta: Delta,
    accountant: Accountant,
    adjacency: Adjacency,
    unit: Unit,
    #[serde(flatten)]
    plan: Plan,
    /// Why there is no epsilon against the server.
    epsilon_server_reason: Option<&'static str>,
}

pub(super) fn answer(arguments: &PlanArguments) -> Result<Answer, PrivacyError> {
    let claim = &arguments.claim;
    claim.refuse_optimism()?;
    let (adjacency, accountant) = match arguments.mode {
        TrustMode::Central => (Adjacency::AddOrRemove, Accountant::Pld),
        TrustMode::Distributed => (Adjacency::ZeroOut, Accountant::Rdp),
        TrustMode::Local => (Adjacency::ZeroOut, Accountant::Pld),
    };
    let target = Target {
        epsilon: arguments.epsilon,
        delta: claim.delta,
        adjacency: claim.adjacency_or(adjacency),
        accountant: claim.accountant_or(accountant),
    };
    let federation = Federation {
        clients: arguments.clients,
        cohort: arguments.cohort,
        rounds: arguments.rounds,
        parameters: arguments.parameters,
        clip_norm: arguments.clip_norm.unwrap_or(ClipNorm::ONE),
        mode: arguments.mode,
    };
    let planned = Planned {
        federation,
        epsilon: target.epsilon,
        delta: target.delta,
        accountant: target.accountant,
        adjacency: target.adjacency,
        unit: Unit::Client,
        plan: federation.plan(&target, arguments.threshold)?,
        epsilon_server_reason: (arguments.mode == TrustMode::Central).then_some(SERVER_SEES),
    };
    let mut answer = Answer::new(planned.table(), &planned);
    if arguments.printing.html.is_some() {
        answer.page = Some(planned.page(signal_by_cohort(&federation, &target)?));
    }
    Ok(answer)
}

/// The signal-to-noise ratio at some cohorts, from a tenth of the planned one to all clients.
fn signal_by_cohort(federation: &Federation, target: &Target) -> Result<Vec<(f64, f64)>, PrivacyError> {
    let least = federation.cohort.div_ceil(10);
    let factor = (federation.clients as f64 / least as f64).powf(1.0 / COHORTS);
    let mut cohorts: Vec<u64> = (0..=COHORTS as u32)
        .map(|index| (least as f64 * factor.powi(index as i32)).round() as u64)
        .chain([federation.cohort, federation.clients])
        .map(|cohort| cohort.clamp(1, federation.clients))
        .collect();
    cohorts.sort_unstable();
    cohorts.dedup();
    let point = |cohort: u64| {
        let changed = Federation { cohort, ..*federation };
        let noise = changed.noise_multiplier(target)?;
        Ok((cohort as f64, changed.signal_to_noise(noise)))
    };
    cohorts.into_iter().map(point).collect()
}

impl Planned {
    fn table(&self) -> String {
        let (federation, plan) = (&self.federation, &self.plan);
        let norm = federation.clip_norm;
        let mut text = line("mode", who_adds_noise(federation.mode))
            + &line("clients", federation.clients)
            + &line(
                "cohort",
                format!("{} on average (sampling rate {})", federation.cohort, plan.sampling_rate),
            )
            + &line("rounds", federation.rounds)
            + &line("parameters", federation.parameters)
            + &line("target", format!("epsilon {} at delta {}", self.epsilon, self.delta))
            + &line("hidden", hidden(self.unit, self.adjacency))
            + &line("accountant", self.accountant)
            + "\n"
            + &line("noise multiplier", format!("{:.6}", plan.noise_multiplier))
            + &line(
                "noise",
                format!("{:.4e} on each coordinate of the mean update", plan.noise_per_coordinate),
            )
            + &line(
                "signal",
                format!(
                    "{:.4e} on each, at most: clip norm {norm} over √parameters",
                    plan.signal_per_coordinate
                ),
            )
            + &line("signal to noise", format!("{:.4}", plan.signal_to_noise))
            + &line("recipients", format!("epsilon {:.6}", plan.epsilon_release));
        text += &line(
            "server",
            match plan.epsilon_server {
                Some(epsilon) => {
                    format!("epsilon {epsilon:.6}, without amplification: it knows who takes part")
                }
                None => format!("nothing is promised (no epsilon): {SERVER_SEES}"),
            },
        );
        text + "\n" + &self.advice()
    }

    /// What would be usable.
    fn advice(&self) -> String {
        let usable = &self.plan.usable;
        let verdict = if self.plan.signal_to_noise >= usable.threshold { "reached" } else { "not reached" };
        let or_none = |number: Option<u64>, words: &str, none: &str| {
            number.map_or(none.to_owned(), |number| format!("{words} {number}"))
        };
        line("threshold", format!("a signal-to-noise ratio of {}: {verdict}", usable.threshold))
            + "It would be reached by changing one of these and recalibrating the noise:\n"
            + &line("  cohort", or_none(usable.cohort, "at least", "no cohort, not even all clients"))
            + &line("  rounds", or_none(usable.rounds, "at most", "no number of rounds"))
            + &line("  parameters", or_none(usable.parameters, "at most", "no model"))
    }

    fn page(&self, points: Vec<(f64, f64)>) -> Page {
        let (federation, plan) = (&self.federation, &self.plan);
        let mut page = Page::new("A plan for private federated learning");
        page.fact("mode", federation.mode);
        page.fact("clients", federation.clients);
        page.fact("cohort", federation.cohort);
        page.fact("rounds", federation.rounds);
        page.fact("parameters", federation.parameters);
        page.fact("clip norm", federation.clip_norm);
        page.fact("target epsilon", self.epsilon);
        page.fact("delta", self.delta);
        page.fact("unit", self.unit);
        page.fact("adjacency", self.adjacency);
        page.fact("accountant", self.accountant);
        page.fact("sampling rate", plan.sampling_rate);
        page.fact("noise multiplier", plan.noise_multiplier);
        page.fact("noise per coordinate", plan.noise_per_coordinate);
        page.fact("signal per coordinate", plan.signal_per_coordinate);
        page.fact("signal to noise", plan.signal_to_noise);
        page.fact("epsilon against recipients", plan.epsilon_release);
        page.fact("epsilon against the server", plan.epsilon_server);
        page.fact("usable from a signal to noise of", plan.usable.threshold);
        page.fact("usable cohort, at least", plan.usable.cohort);
        page.fact("usable rounds, at most", plan.usable.rounds);
        page.fact("usable parameters, at most", plan.usable.parameters);
        page.plot(Plot {
            title: "Signal to noise by cohort, within the same target",
            x: Axis { name: "clients in a round, logarithmic", scale: Scale::Logarithmic },
            name: "signal to noise",
            y: Scale::Linear,
            points,
        });
        page
    }
}

fn who_adds_noise(mode: TrustMode) -> String {
    let who = match mode {
        TrustMode::Central => "the server, to the sum",
        TrustMode::Distributed => "every client a share of it, under secure aggregation",
        TrustMode::Local => "every client all of it, to its own update",
    };
    format!("{mode}: noise is added by {who}")
}

const SERVER_SEES: &str = "the server sees every update before the noise";
/// Intervals of the plot.
const COHORTS: f64 = 10.0;
