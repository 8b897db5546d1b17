//! What can be typed after `skep privacy`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;
use skep_privacy::accounting::Accountant;
use skep_privacy::planner::MOST_STEPS;
use skep_privacy::quantities::{
    Adjacency, ClipNorm, Delta, Epsilon, NoiseMultiplier, QuantityError, SamplingRate, TrustMode, Unit,
};

use crate::arguments::Output;

/// Questions about a privacy budget.
#[derive(Debug, Subcommand)]
pub enum PrivacyCommand {
    /// What a schedule costs: its epsilon at some delta.
    Epsilon(EpsilonArguments),
    /// Which noise, which sampling rate or how many steps a budget allows; leave out the one to be found.
    Calibrate(CalibrateArguments),
    /// Which noise a federation needs for its budget, and whether anything can be learned through it.
    Plan(PlanArguments),
    /// Delta against epsilon, and epsilon against steps.
    Curve(CurveArguments),
}

/// Arguments of `skep privacy epsilon`.
#[derive(Debug, Args)]
pub struct EpsilonArguments {
    /// What happens.
    #[command(flatten)]
    pub schedule: Schedule,
    /// What is claimed.
    #[command(flatten)]
    pub claim: Claim,
    /// Whose claim it is.
    #[command(flatten)]
    pub members: Members,
    /// How it is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Arguments of `skep privacy calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// The most that epsilon may become; above 0.
    #[arg(long, value_parser = quantity::<Epsilon>, allow_hyphen_values = true)]
    pub epsilon: Epsilon,
    /// Steps of one kind, one of whose numbers is to be found.
    #[command(flatten)]
    pub steps: Steps,
    /// What is claimed.
    #[command(flatten)]
    pub claim: Claim,
    /// Whose claim it is.
    #[command(flatten)]
    pub members: Members,
    /// How it is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Arguments of `skep privacy plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Clients in all; delta must be below one over it.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    pub clients: u64,
    /// Clients in a round on average.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    pub cohort: u64,
    /// Rounds.
    #[arg(long, value_name = "N", value_parser = steps, allow_hyphen_values = true)]
    pub rounds: u64,
    /// The most that epsilon may become, against everyone the mode protects from; above 0.
    #[arg(long, value_parser = quantity::<Epsilon>, allow_hyphen_values = true)]
    pub epsilon: Epsilon,
    /// Numbers in the model.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    pub parameters: u64,
    /// Who adds the noise: `central` (the server), `distributed` (each client a share) or `local` (each client all of it).
    #[arg(long, value_parser = quantity::<TrustMode>)]
    pub mode: TrustMode,
    /// Largest norm of an update. Noise and signal are in its unit, and their ratio does not depend on it; 1 if not given.
    #[arg(long, value_parser = quantity::<ClipNorm>, allow_hyphen_values = true)]
    pub clip_norm: Option<ClipNorm>,
    /// The signal-to-noise ratio from which on a plan counts as usable.
    ///
    /// At 1 the noise is as long as the longest mean update. Training averages noise over its rounds, so somewhat less can do.
    #[arg(long, value_name = "RATIO", default_value = "1", value_parser = ratio, allow_hyphen_values = true)]
    pub threshold: f64,
    /// What is claimed.
    #[command(flatten)]
    pub claim: Claim,
    /// How it is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Arguments of `skep privacy curve`.
#[derive(Debug, Args)]
pub struct CurveArguments {
    /// What happens.
    #[command(flatten)]
    pub schedule: Schedule,
    /// What is claimed.
    #[command(flatten)]
    pub claim: Claim,
    /// Whose claim it is.
    #[command(flatten)]
    pub members: Members,
    /// How it is printed.
    #[command(flatten)]
    pub printing: Printing,
}

/// Steps of one kind; which of the numbers are needed depends on the question.
#[derive(Debug, Args)]
pub struct Steps {
    /// Standard deviation of the Gaussian noise over the sensitivity under add-or-remove; 0.1 to 1000000.
    #[arg(long, value_name = "SIGMA", value_parser = quantity::<NoiseMultiplier>, allow_hyphen_values = true)]
    pub noise_multiplier: Option<NoiseMultiplier>,
    /// Probability with which each member takes part in a step, in secret (Poisson sampling); 1 is everyone.
    #[arg(long, value_name = "Q", value_parser = quantity::<SamplingRate>, allow_hyphen_values = true)]
    pub sampling_rate: Option<SamplingRate>,
    /// How many steps.
    #[arg(long, value_name = "N", value_parser = steps, allow_hyphen_values = true)]
    pub steps: Option<u64>,
}

/// Steps of any kinds.
#[derive(Debug, Args)]
pub struct Schedule {
    /// Steps of the first kind.
    #[command(flatten)]
    pub first: Steps,
    /// Steps of one kind, as SAMPLING_RATE:NOISE_MULTIPLIER:STEPS. May be repeated, and beside the three flags.
    #[arg(long, value_name = "Q:SIGMA:STEPS", value_parser = event, allow_hyphen_values = true)]
    pub event: Vec<StepsOfOneKind>,
}

/// Steps of one kind, complete.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepsOfOneKind {
    /// Probability with which each member takes part.
    pub sampling_rate: SamplingRate,
    /// Noise over sensitivity.
    pub noise_multiplier: NoiseMultiplier,
    /// How many.
    pub steps: u64,
}

/// What is claimed, and who proves it.
#[derive(Debug, Args)]
pub struct Claim {
    /// The delta of (epsilon, delta)-differential privacy, above 0 and below 1. Has no default.
    #[arg(long, value_parser = quantity::<Delta>, allow_hyphen_values = true)]
    pub delta: Delta,
    /// Who computes: `pld` (tightest), `rdp`, `analytic` (exact, without sampling) or `pld-optimistic` (a lower bound).
    ///
    /// If not given `pld`, and for distributed noise `rdp`; the answer says which.
    #[arg(long, value_parser = quantity::<Accountant>)]
    pub accountant: Option<Accountant>,
    /// What counts as neighbouring: `add-or-remove`, `zero-out` or `replace`.
    ///
    /// If not given `add-or-remove`, and where the server sees who takes part `zero-out`; the answer says which.
    #[arg(long, value_parser = quantity::<Adjacency>)]
    pub adjacency: Option<Adjacency>,
}

/// Whose presence is hidden.
#[derive(Debug, Args)]
pub struct Members {
    /// What a member is: `client` or `example`. It changes no number, but what the number means.
    #[arg(long, default_value = "client", value_parser = quantity::<Unit>)]
    pub unit: Unit,
    /// Members in all. Delta is refused unless it is below one over it.
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    pub population: Option<u64>,
}

/// How an answer is printed.
#[derive(Debug, Args)]
pub struct Printing {
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Where `plan` and `curve` also draw the answer: one HTML file that needs no network.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn quantity<T: FromStr<Err = QuantityError>>(text: &str) -> Result<T, QuantityError> {
    text.parse()
}

fn count(text: &str) -> Result<u64, String> {
    whole(text, 1 << 53)
}

fn steps(text: &str) -> Result<u64, String> {
    whole(text, MOST_STEPS)
}

fn whole(text: &str, most: u64) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("it is `{text}`, but must be a whole number from 1 to {most}")),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.trim().parse() {
        Ok(ratio) if ratio > 0.0 && f64::is_finite(ratio) => Ok(ratio),
        _ => Err(format!("it is `{text}`, but must be a finite number above 0")),
    }
}

fn event(text: &str) -> Result<StepsOfOneKind, String> {
    let [sampling_rate, noise_multiplier, count] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err("must be SAMPLING_RATE:NOISE_MULTIPLIER:STEPS, such as 0.01:1.0:1000".to_owned());
    };
    let refused = |error: QuantityError| error.to_string();
    Ok(StepsOfOneKind {
        sampling_rate: sampling_rate.parse().map_err(refused)?,
        noise_multiplier: noise_multiplier.parse().map_err(refused)?,
        steps: steps(count).map_err(|error| format!("steps: {error}"))?,
    })
}
