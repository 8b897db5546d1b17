//! Which strategies go with which privacy, and with how many clients.

use super::{Invalid, invalid};
use crate::experiment::{Aggregation, Experiment, Privacy, Robust, Weighting};

/// Refuses a strategy that cannot keep, or cannot be kept by, what else the experiment says.
pub(super) fn refuse_combinations(experiment: &Experiment) -> Result<(), Invalid> {
    if experiment.privacy.terms().is_some() && experiment.strategy.weighting() != Weighting::Uniform {
        return Err(invalid(
            "strategy.weighting",
            "must be \"uniform\" with privacy: a weight by examples reveals a client's data and changes the sensitivity",
        ));
    }
    match experiment.strategy.aggregation {
        Aggregation::Mean { .. } => Ok(()),
        Aggregation::Robust(rule) => {
            refuse_unseen(&experiment.privacy)?;
            refuse_too_many(experiment)?;
            refuse_too_few(rule, experiment.rounds.min_updates)
        }
    }
}

/// Who chooses among updates has to see each, as no promise lets the server but those of modes `none` and `local`.
fn refuse_unseen(privacy: &Privacy) -> Result<(), Invalid> {
    let problem = match privacy {
        Privacy::None | Privacy::Local { .. } | Privacy::Examples { .. } => return Ok(()),
        Privacy::Central { secure_aggregation: Some(_), .. } | Privacy::Distributed { .. } => {
            "needs to see each update, but with [secure_aggregation] the server sees their sum only; choose a kind that needs no \
             more, such as \"fedavg\", or mode = \"local\", where each update carries its own noise"
        }
        Privacy::Central { secure_aggregation: None, .. } => {
            "cannot go with mode = \"central\": its noise is planned for a sum, which one client changes by at most the clip norm; \
             there is no such bound for what this kind makes of the updates. Choose mode = \"local\", where each update carries \
             its own noise, or a kind that needs the sum only, such as \"fedavg\""
        }
    };
    Err(invalid("strategy.kind", problem))
}

/// A sum takes the memory of one update, a choice among updates that of all.
fn refuse_too_many(experiment: &Experiment) -> Result<(), Invalid> {
    let cohort = experiment.cohort_max();
    let bytes =
        experiment.task.parameter_count().unwrap_or(u64::MAX).saturating_mul(4).saturating_mul(cohort.into());
    if bytes <= MOST_KEPT_BYTES {
        return Ok(());
    }
    Err(invalid(
        "strategy.kind",
        format!(
            "keeps every update of a round, up to {cohort} of them, which takes {} MiB of the server's memory, above {} MiB; invite \
             fewer clients, or choose a kind that adds updates up",
            bytes >> 20,
            MOST_KEPT_BYTES >> 20
        ),
    ))
}

/// Krum counts each update's n − f − 2 nearest, and is proved for n of at least 2·f + 3 (1703.02757, section 4).
fn refuse_too_few(rule: Robust, min_updates: u32) -> Result<(), Invalid> {
    let Robust::Krum { byzantine, selected } = rule else { return Ok(()) };
    let least = 2 * u64::from(byzantine) + 3;
    if u64::from(min_updates) < least {
        return Err(invalid(
            "strategy.byzantine",
            format!(
                "is {byzantine}, for which Krum needs at least {least} updates, but a round may be released with \
                 rounds.min_updates = {min_updates}: raise that, or lower this"
            ),
        ));
    }
    let most = min_updates - byzantine - 2;
    if selected > most {
        return Err(invalid(
            "strategy.selected",
            format!(
                "is {selected}, but of {min_updates} updates of which {byzantine} may be corrupt, at most {most} can be selected"
            ),
        ));
    }
    Ok(())
}

/// The most memory that the updates of a round may take, where they are kept: 4 GiB.
const MOST_KEPT_BYTES: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::super::tests::digits;
    use crate::experiment::Experiment;
    use crate::experiment::file::{ExperimentFile, PrivacyFile, SamplingFile, StrategyFile};

    fn median() -> ExperimentFile {
        let strategy = StrategyFile::Median { server_learning_rate: 1.0 };
        ExperimentFile { strategy, privacy: PrivacyFile::NONE, ..digits() }
    }

    fn refused(file: &ExperimentFile) -> (String, String) {
        let refused = Experiment::try_from(file).expect_err("it makes no sense");
        (refused.key, refused.problem)
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut file = median();
        file.population.clients = 1_000_000;
        assert!(Experiment::try_from(&file).is_ok());
        file.population.clients = 2_000_000;
        let (key, problem) = refused(&file);
        assert_eq!(key, "strategy.kind");
        // 650 parameters of 4 bytes two million times.
        assert!(problem.contains("4959 MiB") && problem.contains("above 4096 MiB"), "{problem}");
        file.rounds.sampling = SamplingFile::Fixed { size: 1000 };
        assert!(Experiment::try_from(&file).is_ok());
    }

    #[test]
    fn krum_needs_more_updates_than_can_be_corrupt() {
        let mut file = median();
        let krum = |byzantine| StrategyFile::Krum { byzantine, server_learning_rate: 1.0 };
        file.rounds.min_updates = 50;
        file.strategy = krum(23);
        assert!(Experiment::try_from(&file).is_ok());
        file.strategy = krum(24);
        let (key, problem) = refused(&file);
        assert_eq!(key, "strategy.byzantine");
        assert!(problem.contains("at least 51 updates"), "{problem}");
        file.strategy = StrategyFile::MultiKrum { byzantine: 20, selected: 29, server_learning_rate: 1.0 };
        let (key, problem) = refused(&file);
        assert_eq!(key, "strategy.selected");
        assert!(problem.contains("at most 28"), "{problem}");
    }
}
