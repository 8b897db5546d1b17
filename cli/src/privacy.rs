//! `skep privacy`: what a schedule costs, and what a budget allows.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use skep_privacy::accounting::amplification::Amplification;
use skep_privacy::accounting::{Accountant, Composition};
use skep_privacy::planner::{self, Federation, Plan, PlannerError, Target, Trust};
use skep_privacy::quantities::{
    Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, Sampling, SamplingRate, Unit,
};

/// Questions about a privacy budget.
#[derive(Debug, Subcommand)]
pub enum PrivacyCommand {
    /// What a schedule costs: its epsilon at some delta.
    Epsilon(EpsilonArguments),
    /// Which noise, how many steps or which sampling rate a budget allows; leave out the one to be found.
    Calibrate(CalibrateArguments),
    /// Whether a federation can learn anything within a budget.
    Plan(PlanArguments),
    /// Epsilon after every tenth of a schedule, as a table or a plot.
    Curve(CurveArguments),
}

/// What every question needs.
#[derive(Debug, Args)]
pub struct Claim {
    /// Probability of failure that epsilon is for; below one over the population.
    #[arg(long, value_parser = quantity::<Delta>)]
    delta: Delta,
    /// Who computes: `pld`, `rdp`, `analytic` or `pld-optimistic` (which is a lower bound and promises nothing).
    #[arg(long, default_value = "pld", value_parser = quantity::<Accountant>)]
    accountant: Accountant,
    /// What counts as neighbouring: `add-or-remove`, `zero-out` or `replace`.
    #[arg(long, default_value = "add-or-remove", value_parser = quantity::<Adjacency>)]
    adjacency: Adjacency,
    /// Whose presence is hidden: `client` or `example`.
    #[arg(long, default_value = "client", value_parser = quantity::<Unit>)]
    unit: Unit,
    /// Units in all; delta must be below one over it.
    #[arg(long, value_name = "N")]
    population: Option<u64>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    output: PrivacyOutput,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PrivacyOutput {
    /// For people.
    #[default]
    Text,
    /// One JSON object, and nothing else.
    Json,
}

/// Arguments of `skep privacy epsilon`.
#[derive(Debug, Args)]
pub struct EpsilonArguments {
    /// Standard deviation of the noise over the sensitivity, under add-or-remove.
    #[arg(long, value_parser = quantity::<NoiseMultiplier>, required_unless_present = "event")]
    noise_multiplier: Option<NoiseMultiplier>,
    /// Probability with which each unit takes part in a step (Poisson sampling); 1 is everyone.
    #[arg(long, value_parser = quantity::<SamplingRate>, required_unless_present = "event")]
    sampling_rate: Option<SamplingRate>,
    /// How often.
    #[arg(long, value_parser = steps, required_unless_present = "event")]
    steps: Option<u64>,
    /// More steps of another kind, as RATE:NOISE_MULTIPLIER:STEPS; may be repeated.
    #[arg(long, value_parser = event, value_name = "Q:SIGMA:STEPS")]
    event: Vec<Steps>,
    #[command(flatten)]
    claim: Claim,
}

/// Arguments of `skep privacy calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// The most that epsilon may become.
    #[arg(long, value_parser = quantity::<Epsilon>)]
    epsilon: Epsilon,
    /// Standard deviation of the noise over the sensitivity; to be found if left out.
    #[arg(long, value_parser = quantity::<NoiseMultiplier>)]
    noise_multiplier: Option<NoiseMultiplier>,
    /// Probability with which each unit takes part in a step; to be found if left out.
    #[arg(long, value_parser = quantity::<SamplingRate>)]
    sampling_rate: Option<SamplingRate>,
    /// How often; to be found if left out.
    #[arg(long, value_parser = steps)]
    steps: Option<u64>,
    #[command(flatten)]
    claim: Claim,
}

/// Arguments of `skep privacy plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Clients in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Clients in a round on average.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cohort: u64,
    /// Rounds.
    #[arg(long, value_name = "N", value_parser = steps)]
    rounds: u64,
    /// Parameters of the model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    parameters: u64,
    /// The most that epsilon may become.
    #[arg(long, value_parser = quantity::<Epsilon>)]
    epsilon: Epsilon,
    /// Who adds the noise.
    #[arg(long, value_enum)]
    trust: TrustMode,
    /// The signal-to-noise ratio per coordinate from which on an update counts as usable.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    usable: f64,
    /// Write a plot of cohort against signal-to-noise to this HTML file; it needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    claim: Claim,
}

/// Who adds the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TrustMode {
    /// The server: epsilon holds against recipients of the models.
    Central,
    /// Every client a share, under secure aggregation: it holds against the server too.
    Distributed,
    /// Every client in full: it holds against everyone.
    Local,
}

/// Arguments of `skep privacy curve`.
#[derive(Debug, Args)]
pub struct CurveArguments {
    /// Standard deviation of the noise over the sensitivity.
    #[arg(long, value_parser = quantity::<NoiseMultiplier>)]
    noise_multiplier: NoiseMultiplier,
    /// Probability with which each unit takes part in a step; 1 is everyone.
    #[arg(long, value_parser = quantity::<SamplingRate>)]
    sampling_rate: SamplingRate,
    /// How often.
    #[arg(long, value_parser = steps)]
    steps: u64,
    /// Write a plot of steps against epsilon to this HTML file; it needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    claim: Claim,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// An argument that makes no sense, or together with the others.
    #[error("{0}")]
    Usage(String),
    /// The question has no answer.
    #[error(transparent)]
    Planner(#[from] PlannerError),
    /// The answer could not be written.
    #[error("{what}: {error}")]
    Write {
        /// Where to.
        what: String,
        /// Why not.
        error: io::Error,
    },
}

/// Answers a question on `out`.
///
/// # Errors
/// [`PrivacyError`]; all but `Write` are the asker's fault.
pub fn run(command: &PrivacyCommand, out: &mut impl Write) -> Result<(), PrivacyError> {
    let answer = match command {
        PrivacyCommand::Epsilon(arguments) => epsilon(arguments)?,
        PrivacyCommand::Calibrate(arguments) => calibrate(arguments)?,
        PrivacyCommand::Plan(arguments) => plan(arguments)?,
        PrivacyCommand::Curve(arguments) => curve(arguments)?,
    };
    writeln!(out, "{}", answer.trim_end())
        .map_err(|error| PrivacyError::Write { what: "standard output".to_owned(), error })
}

/// Steps of one kind.
#[derive(Clone, Copy, Debug)]
struct Steps {
    rate: SamplingRate,
    noise_multiplier: NoiseMultiplier,
    count: u64,
}

fn epsilon(arguments: &EpsilonArguments) -> Result<String, PrivacyError> {
    let claim = arguments.claim.checked()?;
    let mut composition = Composition::new(claim.adjacency);
    let mut push = |steps: Steps| {
        let sampling = Amplification::of(Sampling::Poisson { rate: steps.rate }, claim.adjacency);
        composition.push(sampling.gaussian(steps.noise_multiplier), steps.count);
    };
    match (arguments.sampling_rate, arguments.noise_multiplier, arguments.steps) {
        (Some(rate), Some(noise_multiplier), Some(count)) => push(Steps { rate, noise_multiplier, count }),
        (None, None, None) => {}
        _ => {
            return Err(PrivacyError::Usage(
                "--noise-multiplier, --sampling-rate and --steps belong together: give all three, or only --event".to_owned(),
            ));
        }
    }
    arguments.event.iter().for_each(|steps| push(*steps));
    let cost = planner::cost(&composition, claim.accountant, claim.delta, claim.unit)?;
    Ok(match claim.output {
        PrivacyOutput::Json => json(&cost),
        PrivacyOutput::Text => {
            let bound =
                cost.error_bound.map_or(String::new(), |bound| format!(", known to within {bound:.1e}"));
            let promise = if claim.accountant == Accountant::PldOptimistic { "at least" } else { "at most" };
            format!(
                "epsilon is {promise} {:.6} at delta {}\nfor each {} ({}), by the {} accountant{bound}",
                cost.epsilon, cost.delta, cost.unit, cost.adjacency, cost.accountant
            )
        }
    })
}

/// What `skep privacy calibrate` answers.
#[derive(Serialize)]
struct Calibration {
    noise_multiplier: NoiseMultiplier,
    sampling_rate: SamplingRate,
    steps: u64,
    epsilon: Epsilon,
    delta: Delta,
    accountant: &'static str,
    adjacency: Adjacency,
    unit: Unit,
}

fn calibrate(arguments: &CalibrateArguments) -> Result<String, PrivacyError> {
    let claim = arguments.claim.checked()?;
    let target = claim.target(arguments.epsilon)?;
    let sampling = |rate| Sampling::Poisson { rate };
    let (noise_multiplier, rate, steps) = match (
        arguments.noise_multiplier,
        arguments.sampling_rate,
        arguments.steps,
    ) {
        (None, Some(rate), Some(steps)) => (target.noise_multiplier(sampling(rate), steps)?, rate, steps),
        (Some(noise), None, Some(steps)) => (noise, target.sampling_rate(noise, steps)?, steps),
        (Some(noise), Some(rate), None) => (noise, rate, target.steps(sampling(rate), noise)?),
        _ => {
            return Err(PrivacyError::Usage(
                "leave out exactly one of --noise-multiplier, --sampling-rate and --steps: the one to be found".to_owned(),
            ));
        }
    };
    let composition = planner::rounds(claim.adjacency, sampling(rate), noise_multiplier, steps);
    let epsilon = composition.epsilon(claim.accountant, claim.delta).map_err(PlannerError::from)?;
    let (delta, adjacency, unit) = (claim.delta, claim.adjacency, claim.unit);
    let accountant = claim.accountant.as_str();
    let found = Calibration {
        noise_multiplier,
        sampling_rate: rate,
        steps,
        epsilon,
        delta,
        accountant,
        adjacency,
        unit,
    };
    Ok(match claim.output {
        PrivacyOutput::Json => json(&found),
        PrivacyOutput::Text => format!(
            "noise multiplier  {noise_multiplier:.6}\nsampling rate     {rate}\nsteps             {steps}\nepsilon           {epsilon:.6} at delta {delta} ({unit}, {adjacency}, {accountant})",
        ),
    })
}

/// What `skep privacy plan` answers.
#[derive(Serialize)]
struct PlanAnswer {
    plan: Plan,
    usable_from: f64,
    /// The smallest cohort that is usable with these rounds.
    usable_cohort: Option<Plan>,
    /// The most rounds that are usable with this cohort.
    usable_rounds: Option<Plan>,
    epsilon: Epsilon,
    delta: Delta,
    trust: Trust,
    adjacency: Adjacency,
    unit: Unit,
}

fn plan(arguments: &PlanArguments) -> Result<String, PrivacyError> {
    let claim = arguments.claim.checked()?;
    check_delta(claim.delta, arguments.clients)?;
    let target = claim.target(arguments.epsilon)?;
    let trust = match arguments.trust {
        TrustMode::Central => Trust::Central,
        TrustMode::Distributed => Trust::Distributed,
        TrustMode::Local => Trust::Local,
    };
    let federation = Federation {
        population: arguments.clients,
        cohort: arguments.cohort,
        rounds: arguments.rounds,
        parameters: arguments.parameters,
        trust,
    };
    let answer = PlanAnswer {
        plan: federation.plan(&target)?,
        usable_from: arguments.usable,
        usable_cohort: federation.cohort_for(&target, arguments.usable)?,
        usable_rounds: federation.rounds_for(&target, arguments.usable)?,
        epsilon: arguments.epsilon,
        delta: claim.delta,
        trust,
        adjacency: claim.adjacency,
        unit: claim.unit,
    };
    if let Some(path) = &arguments.html {
        let points = tenths(arguments.clients).map(|cohort| {
            let plan = Federation { cohort, ..federation }.plan(&target)?;
            Ok((cohort as f64, plan.signal_to_noise))
        });
        let points = points.collect::<Result<Vec<_>, PlannerError>>()?;
        write_plot(
            path,
            "signal-to-noise ratio by cohort",
            "clients in a round",
            "signal-to-noise",
            &points,
        )?;
    }
    Ok(match claim.output {
        PrivacyOutput::Json => json(&answer),
        PrivacyOutput::Text => plan_table(&answer),
    })
}

fn plan_table(answer: &PlanAnswer) -> String {
    let row = |name: &str, plan: Option<&Plan>| match plan {
        Some(plan) => format!(
            "{name:<22}{:>10}{:>10}{:>18.4}{:>14.3e}{:>17.4}\n",
            plan.cohort,
            plan.rounds,
            plan.noise_multiplier.get(),
            plan.noise_on_mean,
            plan.signal_to_noise
        ),
        None => format!("{name:<22}none reaches {}\n", answer.usable_from),
    };
    format!(
        "Within epsilon {} at delta {} ({}, {}).\n\n{:<22}{:>10}{:>10}{:>18}{:>14}{:>17}\n{}{}{}\n\
         Noise on the mean is per coordinate, for a clip norm of 1. Signal is an update at the clip norm that all clients \
         share;\nan update is called usable from a ratio of {} on.",
        answer.epsilon,
        answer.delta,
        answer.unit,
        answer.adjacency,
        "",
        "cohort",
        "rounds",
        "noise multiplier",
        "noise on mean",
        "signal-to-noise",
        row("as asked", Some(&answer.plan)),
        row("smallest usable cohort", answer.usable_cohort.as_ref()),
        row("most usable rounds", answer.usable_rounds.as_ref()),
        answer.usable_from
    )
}

/// A point of `skep privacy curve`.
#[derive(Serialize)]
struct Point {
    steps: u64,
    epsilon: Epsilon,
}

fn curve(arguments: &CurveArguments) -> Result<String, PrivacyError> {
    let claim = arguments.claim.checked()?;
    let sampling = Sampling::Poisson { rate: arguments.sampling_rate };
    let event = Amplification::of(sampling, claim.adjacency).gaussian(arguments.noise_multiplier);
    let points =
        planner::curve(event, claim.adjacency, claim.accountant, claim.delta, tenths(arguments.steps))?;
    if let Some(path) = &arguments.html {
        let points: Vec<_> = points.iter().map(|(steps, epsilon)| (*steps as f64, epsilon.get())).collect();
        write_plot(path, &format!("epsilon at delta {}", claim.delta), "steps", "epsilon", &points)?;
    }
    Ok(match claim.output {
        PrivacyOutput::Json => json(
            &points
                .iter()
                .map(|(steps, epsilon)| Point { steps: *steps, epsilon: *epsilon })
                .collect::<Vec<_>>(),
        ),
        PrivacyOutput::Text => {
            points.iter().fold(format!("{:>10}  epsilon\n", "steps"), |table, (steps, epsilon)| {
                table + &format!("{steps:>10}  {epsilon:.6}\n")
            })
        }
    })
}

impl Claim {
    fn checked(&self) -> Result<&Self, PrivacyError> {
        self.population.map_or(Ok(()), |population| check_delta(self.delta, population))?;
        Ok(self)
    }

    fn target(&self, epsilon: Epsilon) -> Result<Target, PrivacyError> {
        if self.accountant == Accountant::PldOptimistic {
            return Err(PrivacyError::Usage(
                "--accountant pld-optimistic is a lower bound, so nothing can be planned with it: use pld"
                    .to_owned(),
            ));
        }
        Ok(Target { epsilon, delta: self.delta, adjacency: self.adjacency, accountant: self.accountant })
    }
}

/// A delta of one over the population would allow to publish somebody.
fn check_delta(delta: Delta, population: u64) -> Result<(), PrivacyError> {
    if delta.get() * (population as f64) < 1.0 {
        return Ok(());
    }
    Err(PrivacyError::Usage(format!(
        "delta is {delta}, but must be below one over the population, {:e}: at that value publishing one unit in full would be allowed",
        1.0 / population as f64
    )))
}

/// Up to ten numbers from a tenth of `most` to all of it.
fn tenths(most: u64) -> impl Iterator<Item = u64> {
    let mut before = 0;
    (1..=10_u128).filter_map(move |tenth| {
        let value = (u128::from(most) * tenth).div_ceil(10) as u64;
        (value > std::mem::replace(&mut before, value)).then_some(value)
    })
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("an answer has only string keys and numbers")
}

/// Reads a quantity whose type knows its range.
fn quantity<T: FromStr<Err = QuantityError>>(text: &str) -> Result<T, QuantityError> {
    text.parse()
}

/// Reads a number of steps.
fn steps(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(steps @ 1..=MOST_STEPS) => Ok(steps),
        _ => Err(format!("steps are `{text}`, but must be a whole number from 1 to {MOST_STEPS}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err(format!("it is `{text}`, but must be a finite number above 0")),
    }
}

/// Reads RATE:NOISE_MULTIPLIER:STEPS.
fn event(text: &str) -> Result<Steps, String> {
    let [rate, noise_multiplier, count] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err(format!(
            "an event is `{text}`, but must be RATE:NOISE_MULTIPLIER:STEPS, such as 0.01:1.0:1000"
        ));
    };
    Ok(Steps {
        rate: rate.parse().map_err(|error: QuantityError| error.to_string())?,
        noise_multiplier: noise_multiplier.parse().map_err(|error: QuantityError| error.to_string())?,
        count: steps(count)?,
    })
}

/// Writes a page with one line plot as inline SVG.
fn write_plot(
    path: &PathBuf,
    title: &str,
    x: &str,
    y: &str,
    points: &[(f64, f64)],
) -> Result<(), PrivacyError> {
    let most = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).fold(f64::MIN_POSITIVE, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let place =
        |(px, py): &(f64, f64)| format!("{:.1},{:.1}", 70.0 + 520.0 * px / right, 330.0 - 300.0 * py / top);
    let line = points.iter().map(place).collect::<Vec<_>>().join(" ");
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <body style=\"font-family:sans-serif\"><h1>{title}</h1>\n\
         <svg viewBox=\"0 0 640 400\" width=\"640\" role=\"img\" aria-label=\"{title}\" font-size=\"13\">\n\
         <path d=\"M70 30V330H590\" fill=\"none\" stroke=\"black\"/>\n\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"#0b62a4\" stroke-width=\"2\"/>\n\
         <text x=\"590\" y=\"350\" text-anchor=\"end\">{right}</text><text x=\"330\" y=\"375\" text-anchor=\"middle\">{x}</text>\n\
         <text x=\"62\" y=\"36\" text-anchor=\"end\">{top:.3}</text><text x=\"70\" y=\"20\">{y}</text>\n\
         </svg></body></html>\n"
    );
    std::fs::write(path, page)
        .map_err(|error| PrivacyError::Write { what: path.display().to_string(), error })
}

/// Most steps that are counted.
const MOST_STEPS: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: PrivacyCommand,
    }

    /// What a command line prints, or why not.
    fn answer(line: &str) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("privacy").chain(line.split(' ')))
            .map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        run(&line.command, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn number(line: &str, key: &str) -> f64 {
        let object: serde_json::Value = serde_json::from_str(&answer(line).unwrap()).unwrap();
        object[key].as_f64().unwrap_or_else(|| panic!("{key} in {object}"))
    }

    #[test]
    fn epsilon_is_one_json_object_that_agrees_with_the_reference() {
        // dp_accounting 0.6.0
        let line =
            "epsilon --noise-multiplier 1.0 --sampling-rate 0.01 --steps 1000 --delta 1e-5 --output json";
        assert!((number(line, "epsilon") - 1.828_244).abs() < 2e-4);
        assert!(number(line, "error_bound") < 1e-3);
        let object: serde_json::Value = serde_json::from_str(&answer(line).unwrap()).unwrap();
        assert_eq!(object["accountant"], "pld");
        assert_eq!(object["adjacency"], "add-or-remove");
        assert_eq!(object["unit"], "client");
        let rdp = line.to_owned() + " --accountant rdp";
        assert!((number(&rdp, "epsilon") - 2.101_367).abs() < 1e-5);
        assert!(
            number(&(line.to_owned() + " --accountant pld-optimistic"), "epsilon") <= number(line, "epsilon")
        );
    }

    #[test]
    fn mixed_events_are_composed() {
        // dp_accounting 0.6.0
        let line = "epsilon --event 0.01:1.0:500 --event 0.02:1.5:500 --delta 1e-5 --output json";
        assert!((number(line, "epsilon") - 1.897_483).abs() < 2e-4);
    }

    #[test]
    fn calibration_finds_the_one_that_is_left_out() {
        // dp_accounting 0.6.0
        let line = "calibrate --epsilon 2 --delta 1e-6 --sampling-rate 0.01 --steps 5000 --output json";
        assert!((number(line, "noise_multiplier") / 1.747_730 - 1.0).abs() < 1e-4);
        let line = "calibrate --epsilon 2.5 --delta 1e-5 --sampling-rate 0.01 --noise-multiplier 1 --accountant rdp --output json";
        assert!(number(line, "steps") > 1000.0);
    }

    #[test]
    fn a_plan_is_a_table_for_people() {
        let line = "plan --clients 100000 --cohort 1000 --rounds 300 --parameters 10000 --epsilon 4 --delta 1e-6 \
                    --trust central --accountant rdp";
        let table = answer(&line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        assert!(table.contains("as asked") && table.contains("smallest usable cohort"), "{table}");
    }

    #[test]
    fn wrong_arguments_are_refused_by_name_and_range() {
        let schedule = |q: &str, sigma: &str, steps: &str, delta: &str| {
            answer(&format!(
                "epsilon --sampling-rate={q} --noise-multiplier={sigma} --steps={steps} --delta={delta}"
            ))
        };
        assert!(schedule("0.01", "1", "10", "1e-5").is_ok());
        for (line, name, range) in [
            (schedule("1.5", "1", "10", "1e-5"), "sampling rate", "above 0 and at most 1"),
            (schedule("NaN", "1", "10", "1e-5"), "sampling rate", "above 0 and at most 1"),
            (schedule("0.01", "0", "10", "1e-5"), "noise multiplier", "above 0"),
            (schedule("0.01", "NaN", "10", "1e-5"), "noise multiplier", "above 0"),
            (schedule("0.01", "1", "-10", "1e-5"), "steps", "from 1 to"),
            (schedule("0.01", "1", "10", "1"), "delta", "above 0 and below 1"),
            (schedule("0.01", "1", "10", "1e-5 --adjacency near"), "adjacency", "zero-out"),
            (schedule("0.01", "1", "10", "1e-3 --population 1000"), "delta", "below one over the population"),
            (answer("epsilon --event 2:1:1 --delta 1e-5"), "sampling rate", "at most 1"),
            (answer("calibrate --epsilon 1 --delta 1e-5 --steps 5"), "--noise-multiplier", "exactly one"),
        ] {
            let refusal = line.unwrap_err();
            assert!(refusal.contains(name) && refusal.contains(range), "{refusal}");
        }
    }

    #[test]
    fn a_plot_is_one_page_without_links() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let line =
            format!("curve --noise-multiplier 1 --sampling-rate 0.01 --steps 100 --delta 1e-5 --html {path}");
        assert_eq!(answer(&line).unwrap().lines().count(), 11);
        let page = std::fs::read_to_string(file.path()).unwrap();
        assert!(page.contains("<polyline") && !page.contains("http"), "{page}");
    }
}
