//! `skep audit empirical` and `skep audit membership`: what a federation is seen to give away.

use std::fs;
use std::time::Instant;

use serde_json::json;
use skep_learning::ModelFile;
use skep_simulations::{
    AuditError, AuditOptions, AuditReport, CONFIDENCE, MembershipError, MembershipReport, SimulationOptions,
    audit, membership, population,
};

use crate::arguments::{AuditEmpirical, AuditMembership, Output};
use crate::experiment_file;
use crate::failure::Failure;
use crate::interrupt;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::simulate::{root_key, threads};

/// Runs `skep audit empirical`.
///
/// # Errors
/// [`Failure`]: of the run, or because what is seen contradicts what is claimed.
pub(crate) fn empirical(arguments: &AuditEmpirical) -> Result<(), Failure> {
    let experiment = experiment_file::read(arguments.file.as_deref(), arguments.data_dir.as_deref())?;
    let data = population::data(&experiment).map_err(Failure::configuration)?;
    let options = AuditOptions {
        canaries: arguments.canaries,
        guesses: arguments.guesses.unwrap_or(arguments.canaries / 4 * 2),
        simulation: SimulationOptions::new(threads(arguments.threads)),
    };
    let root = root_key(arguments.seed)?;
    let mut recorder = Recorder::new(
        Instant::now(),
        Progress::new(experiment.rounds.count, experiment.data.predicted().metric()),
        None,
    );
    let report = audit(&experiment, &data, &root, &options, interrupt::flag()?, &mut recorder);
    recorder.finish()?;
    let report = report.map_err(audit_failure)?;
    match arguments.output {
        Output::Text => print!("{}", empirical_text(&report, experiment.population.clients)),
        Output::Json => println!("{}", empirical_json(&report)),
    }
    verdict(&report)
}

/// Runs `skep audit membership`.
///
/// # Errors
/// [`Failure`] when the results cannot be read or a shadow federation cannot be run.
pub(crate) fn membership_inference(arguments: &AuditMembership) -> Result<(), Failure> {
    let experiment = experiment_file::read(Some(&arguments.results.join("experiment.toml")), None)?;
    let data = population::data(&experiment).map_err(Failure::configuration)?;
    let path = arguments.results.join("model.safetensors");
    let bytes = fs::read(&path).map_err(|error| Failure::file(&path, error))?;
    let model = ModelFile::decode(&bytes)
        .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
    let (root, options) = (root_key(arguments.seed)?, SimulationOptions::new(threads(arguments.threads)));
    let shadows = arguments.shadows;
    eprintln!("training {shadows} shadow models");
    let flag = interrupt::flag()?;
    let report = membership(&experiment, &data, model.released(), shadows, &root, &options, flag)
        .map_err(membership_failure)?;
    match arguments.output {
        Output::Text => print!("{}", membership_text(&report)),
        Output::Json => println!("{}", membership_json(&report)),
    }
    Ok(())
}

fn verdict(report: &AuditReport) -> Result<(), Failure> {
    match report.contradicts() {
        false => Ok(()),
        true => Err(Failure::Other(format!(
            "FAIL: epsilon {:.4} is claimed, but what was seen rules out all below {:.4} with confidence {} %",
            report.epsilon_upper.get(),
            report.epsilon_lower.get(),
            100.0 * CONFIDENCE
        ))),
    }
}

fn verdict_word(report: &AuditReport) -> &'static str {
    if report.contradicts() { "FAIL" } else { "PASS" }
}

fn empirical_text(report: &AuditReport, clients: u64) -> String {
    let guesses = &report.guesses;
    let (cosines, estimate) = match report.cosines {
        Some(cosines) => (
            format!(
                "epsilon {:.4} with about {} % at the best threshold, where others' cosines are normal",
                cosines.epsilon_lower.get(),
                100.0 * CONFIDENCE
            ),
            format!("epsilon {:.4} from the canaries' cosines; no bound", cosines.estimate),
        ),
        None => ["none: too few canaries took part"; 2].map(str::to_owned).into(),
    };
    let meaning = match report.contradicts() {
        true => "what was seen contradicts the claim",
        false => "what was seen does not contradict the claim, which it cannot prove",
    };
    let crowded = match guesses.canaries() > report.dimension as u64 / 10 {
        true => ", which hide one another in so few parameters",
        false => "",
    };
    [
        format!(
            "attack      one run, {} canaries{crowded}, beside {clients} clients, {} rounds",
            guesses.canaries(),
            report.rounds
        ),
        format!("model       {} parameters", report.dimension),
        format!("guesses     {} made, {} right", guesses.guesses(), guesses.right()),
        format!(
            "lower       epsilon {:.4} with confidence {} %",
            report.epsilon_lower.get(),
            100.0 * CONFIDENCE
        ),
        format!("cosines     {cosines}"),
        format!("estimate    {estimate}"),
        format!(
            "upper       epsilon {:.4} against recipients of models, as claimed, at delta {}",
            report.epsilon_upper.get(),
            report.delta
        ),
        format!("verdict     {}: {meaning}", verdict_word(report)),
    ]
    .join("\n")
        + "\n"
}

fn empirical_json(report: &AuditReport) -> serde_json::Value {
    json!({
        "attack": "one-run",
        "m": report.guesses.canaries(),
        "r": report.guesses.guesses(),
        "v": report.guesses.right(),
        "eps_lower": report.epsilon_lower.get(),
        "confidence": CONFIDENCE,
        "eps_lower_cosines": report.cosines.map(|cosines| cosines.epsilon_lower.get()),
        "eps_estimate": report.cosines.map(|cosines| cosines.estimate),
        "eps_upper": report.epsilon_upper.get(),
        "delta": report.delta.get(),
        "parameters": report.dimension,
        "rounds": report.rounds,
        "verdict": verdict_word(report),
    })
}

fn membership_text(report: &MembershipReport) -> String {
    let mut lines = vec![
        format!("attack      likelihood ratio with {} shadow models", report.shadows),
        format!("examples    {} members, {} others", report.members, report.others),
    ];
    lines.extend(report.rates.iter().map(|rates| {
        format!(
            "found       {:.2} % of members at {:.2} % false alarms ({} % allowed)",
            100.0 * rates.true_positive,
            100.0 * rates.false_positive,
            100.0 * rates.allowed
        )
    }));
    lines.push(format!("area        {:.4} under the curve; 0.5 is guessing", report.area_under_curve));
    lines.join("\n") + "\n"
}

fn membership_json(report: &MembershipReport) -> serde_json::Value {
    let rates = report.rates.map(|rates| {
        json!({
            "allowed": rates.allowed,
            "false_positive_rate": rates.false_positive,
            "true_positive_rate": rates.true_positive,
        })
    });
    json!({
        "attack": "likelihood-ratio",
        "shadows": report.shadows,
        "members": report.members,
        "others": report.others,
        "rates": rates,
        "area_under_curve": report.area_under_curve,
    })
}

fn audit_failure(error: AuditError) -> Failure {
    match error {
        AuditError::Interrupted => Failure::Interrupted(error.to_string()),
        AuditError::NothingClaimed | AuditError::Guesses(_) | AuditError::Population { .. } => {
            Failure::configuration(error)
        }
        AuditError::Simulation(error) => Failure::other(error),
    }
}

fn membership_failure(error: MembershipError) -> Failure {
    match error {
        MembershipError::Interrupted => Failure::Interrupted(error.to_string()),
        MembershipError::TooFew { .. } | MembershipError::Learn(_) | MembershipError::Dataset(_) => {
            Failure::configuration(error)
        }
        MembershipError::Simulation(error) => Failure::other(error),
    }
}

#[cfg(test)]
mod tests {
    use skep_privacy::empirical::one_run::Guesses;
    use skep_privacy::quantities::{Delta, Epsilon};
    use skep_simulations::CosineEvidence;

    use super::*;

    fn report(lower: f64, upper: f64) -> AuditReport {
        AuditReport {
            guesses: Guesses::new(1000, 500, 500).unwrap(),
            epsilon_lower: Epsilon::new(lower).unwrap(),
            cosines: Some(CosineEvidence { estimate: 12.5, epsilon_lower: Epsilon::new(2.5).unwrap() }),
            epsilon_upper: Epsilon::new(upper).unwrap(),
            delta: Delta::new(1e-5).unwrap(),
            dimension: 39_010,
            rounds: 4,
        }
    }

    #[test]
    fn a_lower_bound_above_the_claim_says_fail_and_ends_with_one() {
        let caught = report(5.1, 3.0);
        assert!(
            empirical_text(&caught, 5).contains("verdict     FAIL: what was seen contradicts the claim\n")
        );
        assert_eq!(empirical_json(&caught)["verdict"], "FAIL");
        let failure = verdict(&caught).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.to_string().starts_with("FAIL: epsilon 3.0000 is claimed"), "{failure}");
    }

    #[test]
    fn a_lower_bound_at_the_claim_passes() {
        let honest = report(3.0, 3.0);
        assert!(verdict(&honest).is_ok());
        let text = empirical_text(&honest, 5);
        assert!(
            text.contains(
                "guesses     500 made, 500 right\nlower       epsilon 3.0000 with confidence 95 %\n"
            ),
            "{text}"
        );
        assert!(text.contains("cosines     epsilon 2.5000 with about 95 %"), "{text}");
        assert_eq!(empirical_json(&honest)["eps_lower"], 3.0);
        assert_eq!(empirical_json(&honest)["eps_lower_cosines"], 2.5);
    }
}
