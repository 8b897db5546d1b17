//! Which strategies go with which privacy, and with how many clients.

use skep_privacy::quantities::Sampling;

use super::{Invalid, invalid};
use crate::experiment::simulation::{Availability, Faults};
use crate::experiment::{
    Aggregation, Buffering, Experiment, Groups, Optimizer, Predicted, Privacy, Robust, Weighting,
};

/// Refuses a strategy that cannot keep, or cannot be kept by, what else the experiment says.
pub(super) fn refuse_combinations(experiment: &Experiment) -> Result<(), Invalid> {
    let weighting = experiment.strategy.weighting();
    match (&experiment.privacy, weighting) {
        // Noise on gradients: how many examples a client has is no secret, whatever else it says is.
        (Privacy::None, _) | (Privacy::Examples { .. }, Weighting::Examples { .. }) => {}
        _ => refuse_what_no_noise_covers(weighting)?,
    }
    if let (Weighting::ByLoss { .. }, Predicted::Number) = (weighting, experiment.data.predicted()) {
        return Err(invalid(
            "strategy.kind",
            "\"q-fedavg\" measures losses in those of a guess among classes, and a number to predict has none: choose \"fedavg\"",
        ));
    }
    refuse_local_training(experiment)?;
    refuse_buffering(experiment)?;
    refuse_private_layers(experiment)?;
    match experiment.strategy.aggregation {
        Aggregation::Mean { .. } => Ok(()),
        Aggregation::Robust(rule) => match groups(&experiment.privacy) {
            None => {
                refuse_unseen(&experiment.privacy)?;
                refuse_too_many(experiment)?;
                refuse_too_few(rule, experiment.rounds.min_updates)
            }
            Some(groups) => {
                refuse_too_many(experiment)?;
                refuse_groups(rule, groups, experiment.rounds.min_updates)
            }
        },
    }
}

/// What clients say beside their updates follows from their data, and is in no sensitivity.
fn refuse_what_no_noise_covers(weighting: Weighting) -> Result<(), Invalid> {
    let (key, problem) = match weighting {
        Weighting::Uniform => return Ok(()),
        Weighting::Examples { .. } => (
            "strategy.weighting",
            "must be \"uniform\" with privacy: a weight by examples reveals a client's data and changes the sensitivity",
        ),
        Weighting::PerStep { .. } => (
            "strategy.kind",
            "\"fednova\" cannot go with privacy: it needs each client's weight and number of steps, which follow from how many \
             examples it has and are in no sensitivity; choose \"fedavg\" with weighting = \"uniform\", or mode = \"none\"",
        ),
        Weighting::ByLoss { .. } => (
            "strategy.kind",
            "\"q-fedavg\" cannot go with privacy: it weighs each update by the loss on its client's data, which is in no \
             sensitivity; choose \"fedavg\", or mode = \"none\"",
        ),
        Weighting::Controlled => (
            "strategy.kind",
            "\"scaffold\" cannot go with privacy: clients send the change of their control variates beside the update, which is \
             outside the clip norm that the noise is planned for; choose \"fedavg\" with task.training.proximal, or mode = \"none\"",
        ),
    };
    Err(invalid(key, problem))
}

/// What the papers assume of a client's steps.
fn refuse_local_training(experiment: &Experiment) -> Result<(), Invalid> {
    let training = &experiment.task.training;
    let refused = |key: &str, problem: &str| Err(invalid(&format!("task.training.{key}"), problem));
    match experiment.strategy.weighting() {
        Weighting::PerStep { .. } => match training.optimizer {
            Optimizer::Sgd { nesterov: false, .. } if training.proximal == 0.0 => Ok(()),
            Optimizer::Sgd { nesterov: false, .. } => refused(
                "proximal",
                "must be 0 with \"fednova\": what steps add up to is known for plain and momentum SGD only",
            ),
            _ => refused(
                "optimizer",
                "must be SGD without Nesterov's look ahead with \"fednova\": what steps add up to is known for that only",
            ),
        },
        Weighting::Controlled if !matches!(training.optimizer, Optimizer::Sgd { momentum: 0.0, .. }) => {
            refused(
                "optimizer",
                "must be plain SGD with \"scaffold\": a control variate is the mean gradient, update / (steps x learning rate)",
            )
        }
        Weighting::Controlled if training.gradient_clip_norm.is_some() => refused(
            "gradient_clip_norm",
            "must be left out with \"scaffold\": it would bend the correction of each gradient",
        ),
        Weighting::Controlled => refuse_too_much_memory(experiment, "strategy.kind"),
        _ => Ok(()),
    }
}

/// The groups whose sums, each with the noise of its own clients, the server may choose among.
fn groups(privacy: &Privacy) -> Option<Groups> {
    match privacy {
        Privacy::Distributed { secure_aggregation, .. } => secure_aggregation.groups,
        _ => None,
    }
}

/// Which rules choose among the sums of groups, and among how many.
fn refuse_groups(rule: Robust, groups: Groups, min_updates: u32) -> Result<(), Invalid> {
    // All the others may be lost.
    let fewest = min_updates.div_ceil(groups.size);
    match rule {
        Robust::Median | Robust::TrimmedMean { .. } if fewest < 3 => Err(invalid(
            "rounds.min_updates",
            format!(
                "is {min_updates}, which {fewest} groups of {} can make up, but of fewer than three sums none can be outvoted: raise \
                 it to at least {}, or make groups smaller",
                groups.size,
                2 * groups.size + 1
            ),
        )),
        Robust::TrimmedMean { trim } if (trim * f64::from(fewest)) as u32 == 0 => Err(invalid(
            "strategy.trim",
            format!(
                "is {trim}, which cuts nothing off the {fewest} groups that rounds.min_updates = {min_updates} can leave: use \
                 at least {}",
                (1e4 / f64::from(fewest)).ceil() / 1e4
            ),
        )),
        Robust::Median | Robust::TrimmedMean { .. } => Ok(()),
        Robust::NormThreshold { .. } | Robust::Krum { .. } | Robust::CentredClipping { .. } => Err(invalid(
            "strategy.kind",
            "goes by norms or distances, and those of group sums are for the most part their noise's; of group sums choose \
             \"median\" or \"trimmed-mean\"",
        )),
    }
}

/// What cannot go with clients that train at their own pace.
fn refuse_buffering(experiment: &Experiment) -> Result<(), Invalid> {
    let Some(Buffering { concurrency, .. }) = experiment.strategy.buffering else { return Ok(()) };
    match &experiment.privacy {
        // Every update carries its own noise, and is in one release.
        Privacy::None | Privacy::Local { .. } | Privacy::Examples { .. } => {}
        Privacy::Central { .. } | Privacy::Distributed { .. } => {
            return Err(invalid(
                "strategy.kind",
                "\"fedbuff\" cannot go with noise on a sum: which updates share one follows from how long clients take, and so from \
                 their data; without one client all later sums would be others, and no noise is planned for that. Choose mode = \
                 \"local\", where each update carries its own noise, or \"fedavg\"",
            ));
        }
    }
    let Sampling::Fixed { size, .. } = experiment.rounds.sampling else {
        return Err(invalid(
            "rounds.sampling.scheme",
            "must be \"fixed\" with \"fedbuff\": its size is how many updates make a model",
        ));
    };
    let (clients, wanted) = (experiment.population.clients, u64::from(concurrency) + size);
    if wanted > clients {
        return Err(invalid(
            "strategy.concurrency",
            format!(
                "is {concurrency}, but there are {clients} clients: beside those that train, the {size} whose updates make the next \
                 model must be others; have fewer train at a time"
            ),
        ));
    }
    let simulation = &experiment.simulation;
    let unsupported = [
        ("simulation.availability", simulation.availability != Availability::default()),
        ("simulation.faults", simulation.faults != Faults::NONE),
        ("simulation.round_every_s", simulation.round_every_s.is_some()),
        ("population.max_participations", experiment.population.participation.is_some()),
    ];
    match unsupported.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(invalid(
            key,
            "cannot go with \"fedbuff\", whose clients are always there and only differ in pace",
        )),
        None => Ok(()),
    }
}

/// What cannot go with layers that clients keep to themselves. Their names are the model's, and looked up where that is made.
fn refuse_private_layers(experiment: &Experiment) -> Result<(), Invalid> {
    let key = "simulation.private_layers";
    if experiment.simulation.private_layers.is_empty() {
        return Ok(());
    }
    if experiment.strategy.weighting() == Weighting::Controlled {
        return Err(invalid(
            key,
            "cannot go with \"scaffold\", whose control variates correct gradients of the whole model",
        ));
    }
    if let Some(stop) = experiment.stop().filter(|stop| !stop.metric.is_of_clients()) {
        return Err(invalid(
            "evaluation.patience",
            format!(
                "cannot go by {} with simulation.private_layers: it is of the server's model, whose own layers in those places nobody \
                 trains; leave it out or, without privacy, choose metric = \"client-accuracy\"",
                stop.metric.name()
            ),
        ));
    }
    if experiment.attack.is_some() {
        return Err(invalid(key, "cannot go with [simulation.attack]: choose one of the two"));
    }
    refuse_too_much_memory(experiment, key)
}

/// Every client that has taken part keeps numbers of its own: at most as many as the model has.
fn refuse_too_much_memory(experiment: &Experiment, key: &str) -> Result<(), Invalid> {
    let clients = experiment.population.clients;
    let bytes =
        experiment.task.parameter_count().unwrap_or(u64::MAX).saturating_mul(4).saturating_mul(clients);
    if bytes <= MOST_KEPT_BYTES {
        return Ok(());
    }
    Err(invalid(
        key,
        format!(
            "would have {clients} clients keep up to {} MiB of their own, above {} MiB; simulate fewer clients or a smaller model",
            bytes >> 20,
            MOST_KEPT_BYTES >> 20
        ),
    ))
}

/// Who chooses among updates has to see each, as no promise lets the server but those of modes `none` and `local`.
fn refuse_unseen(privacy: &Privacy) -> Result<(), Invalid> {
    let problem = match privacy {
        Privacy::None | Privacy::Local { .. } | Privacy::Examples { .. } => return Ok(()),
        Privacy::Central { secure_aggregation: Some(_), .. } | Privacy::Distributed { .. } => {
            "needs to see each update, but with [secure_aggregation] the server sees their sum only; choose a kind that needs no \
             more, such as \"fedavg\", or mode = \"local\", where each update carries its own noise; or, for \"median\" and \
             \"trimmed-mean\" of group sums, mode = \"distributed\" with secure_aggregation.groups"
        }
        Privacy::Central { secure_aggregation: None, .. } => {
            "cannot go with mode = \"central\": its noise is planned for a sum, which one client changes by at most the clip norm; \
             there is no such bound for what this kind makes of the updates. Choose mode = \"local\", where each update carries \
             its own noise, or a kind that needs the sum only, such as \"fedavg\""
        }
    };
    Err(invalid("strategy.kind", problem))
}

/// A sum takes the memory of one update, a choice among updates, or sums, that of all.
fn refuse_too_many(experiment: &Experiment) -> Result<(), Invalid> {
    let cohort = experiment.cohort_max();
    let (what, count, of_one) = match groups(&experiment.privacy) {
        None => ("every update", cohort, 4),
        Some(groups) => ("the sum of every group", cohort / groups.size.max(1), 8),
    };
    let parameters = experiment.task.parameter_count().unwrap_or(u64::MAX);
    let bytes = parameters.saturating_mul(of_one).saturating_mul(count.into());
    if bytes <= MOST_KEPT_BYTES {
        return Ok(());
    }
    Err(invalid(
        "strategy.kind",
        format!(
            "keeps {what} of a round, up to {count} of them, which takes {} MiB of the server's memory, above {} MiB; invite fewer \
             clients, or choose a kind that adds updates up",
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
    use crate::experiment::file::{
        AdaptiveFile, ExperimentFile, GroupsFile, ModeFile, PrivacyFile, SamplingFile, SecureAggregationFile,
        StrategyFile, WeightingFile,
    };
    use crate::experiment::{Evaluation, Experiment};

    fn median() -> ExperimentFile {
        let strategy = StrategyFile::Median { server_learning_rate: 1.0 };
        ExperimentFile { strategy, privacy: PrivacyFile::NONE, ..digits() }
    }

    fn refused(file: &ExperimentFile) -> (String, String) {
        let refused = Experiment::try_from(file).expect_err("it makes no sense");
        (refused.key, refused.problem)
    }

    /// Every kind, as it is called, with numbers that suit a hundred clients.
    fn kinds() -> Vec<(&'static str, StrategyFile)> {
        let (uniform, max_examples, server_learning_rate) = (WeightingFile::Uniform, None, 1.0);
        let by_examples = StrategyFile::Fedavg {
            weighting: WeightingFile::Examples,
            max_examples: Some(10),
            server_learning_rate,
        };
        let adaptive = AdaptiveFile {
            weighting: uniform,
            max_examples,
            server_learning_rate,
            beta1: 0.9,
            beta2: 0.99,
            tau: 0.001,
        };
        let weighting = uniform;
        vec![
            ("`fedavg`", StrategyFile::Fedavg { weighting, max_examples, server_learning_rate }),
            ("`fedavg` by examples", by_examples),
            (
                "`fedavgm`",
                StrategyFile::Fedavgm { weighting, max_examples, server_learning_rate, momentum: 0.9 },
            ),
            (
                "`fedadagrad`",
                StrategyFile::Fedadagrad {
                    weighting,
                    max_examples,
                    server_learning_rate,
                    beta1: 0.0,
                    tau: 0.1,
                },
            ),
            ("`fedadam`", StrategyFile::Fedadam(adaptive)),
            ("`fedyogi`", StrategyFile::Fedyogi(adaptive)),
            ("`fednova`", StrategyFile::Fednova { max_examples: 10, server_learning_rate }),
            ("`q-fedavg`", StrategyFile::QFedavg { q: 1.0, server_learning_rate }),
            ("`scaffold`", StrategyFile::Scaffold { server_learning_rate }),
            (
                "`fedbuff`",
                StrategyFile::Fedbuff { concurrency: 10, staleness_exponent: 0.5, server_learning_rate },
            ),
            ("`norm-threshold`", StrategyFile::NormThreshold { max_norm: 1.0, server_learning_rate }),
            ("`median`", StrategyFile::Median { server_learning_rate }),
            ("`trimmed-mean`", StrategyFile::TrimmedMean { trim: 0.25, server_learning_rate }),
            ("`krum`", StrategyFile::Krum { byzantine: 2, server_learning_rate }),
            ("`multi-krum`", StrategyFile::MultiKrum { byzantine: 2, selected: 9, server_learning_rate }),
            (
                "`centred-clipping`",
                StrategyFile::CentredClipping { radius: 1.0, iterations: 1, server_learning_rate },
            ),
        ]
    }

    #[test]
    fn the_matrix_in_the_documentation_is_what_is_refused() {
        let secure = Some(SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups: None });
        let grouped = secure.map(|secure: SecureAggregationFile| SecureAggregationFile {
            groups: Some(GroupsFile { size: 20, min_updates: 16 }),
            ..secure
        });
        let mode = |mode, secure_aggregation| {
            let mut file = ExperimentFile { secure_aggregation, ..digits() };
            file.rounds.min_updates = 80;
            match mode {
                ModeFile::None => file.privacy = PrivacyFile::NONE,
                mode => file.privacy.mode = mode,
            }
            file
        };
        let modes = [
            mode(ModeFile::None, None),
            mode(ModeFile::Central, None),
            mode(ModeFile::Central, secure),
            mode(ModeFile::Distributed, secure),
            mode(ModeFile::Distributed, grouped),
            mode(ModeFile::Local, None),
            {
                let mut file = mode(ModeFile::Local, None);
                file.privacy.unit = Some("example".into());
                file
            },
        ];
        let mut matrix = String::from(
            "| strategy | `none` | `central` | `central`, `[secure_aggregation]` | `distributed` | `distributed`, `groups` | `local` | `local`, unit `example` |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (kind, strategy) in kinds() {
            matrix += &format!("| {kind} |");
            for file in &modes {
                let mut file = ExperimentFile { strategy, ..file.clone() };
                if let StrategyFile::Fedbuff { .. } = strategy {
                    file.rounds.sampling = SamplingFile::Fixed { size: 80 };
                }
                let experiment = Experiment::try_from(&file);
                matrix += match experiment {
                    Ok(_) => " yes |",
                    Err(refused) => {
                        assert!(refused.key.starts_with("strategy."), "{kind}: {refused}");
                        " no |"
                    }
                };
            }
            matrix += "\n";
        }
        assert!(matrix.contains(" yes |") && matrix.contains(" no |"));
        let page = include_str!("../../../../docs/strategies.md");
        assert!(page.contains(&matrix), "docs/strategies.md should have this table:\n{matrix}");
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
    fn of_group_sums_there_is_a_choice_among_three_at_least() {
        let grouped = |size, min_updates, strategy| {
            let secure_aggregation = Some(SecureAggregationFile {
                max_corrupt_fraction: 0.05,
                min_cohort: 10,
                groups: Some(GroupsFile { size, min_updates: size * 4 / 5 }),
            });
            let mut file = ExperimentFile { secure_aggregation, strategy, ..digits() };
            file.privacy.mode = ModeFile::Distributed;
            file.rounds.min_updates = min_updates;
            file
        };
        let median = StrategyFile::Median { server_learning_rate: 1.0 };
        let trimmed = |trim| StrategyFile::TrimmedMean { trim, server_learning_rate: 1.0 };
        assert!(Experiment::try_from(&grouped(20, 41, median)).is_ok());
        let (key, problem) = refused(&grouped(20, 40, median));
        assert_eq!(key, "rounds.min_updates");
        assert!(problem.contains("2 groups of 20") && problem.contains("at least 41"), "{problem}");
        assert!(Experiment::try_from(&grouped(20, 80, trimmed(0.25))).is_ok());
        let (key, problem) = refused(&grouped(20, 80, trimmed(0.2)));
        assert_eq!(key, "strategy.trim");
        assert!(
            problem.contains("nothing off the 4 groups") && problem.contains("at least 0.25"),
            "{problem}"
        );
        let krum = StrategyFile::Krum { byzantine: 1, server_learning_rate: 1.0 };
        let (key, problem) = refused(&grouped(20, 100, krum));
        assert_eq!(key, "strategy.kind");
        assert!(problem.contains("\"median\" or \"trimmed-mean\""), "{problem}");
        // Whoever sees a function of the sums has the noise of one group between it and a client, not that of all.
        let median = Experiment::try_from(&grouped(20, 80, median)).unwrap();
        assert_eq!((median.least_released(), median.honest_survivors()), (16, Some(11)));
        let mean = StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        };
        let mean = Experiment::try_from(&grouped(20, 80, mean)).unwrap();
        assert_eq!((mean.least_released(), mean.honest_survivors()), (80, Some(11)));
    }

    #[test]
    fn a_run_is_not_ended_by_a_model_whose_private_layers_nobody_trains() {
        let mut file = digits();
        file.simulation.private_layers = vec!["output".into()];
        assert!(Experiment::try_from(&file).is_ok());
        file.evaluation = Some(Evaluation { patience: Some(2), ..Evaluation::default() });
        assert_eq!(refused(&file).0, "evaluation.patience");
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
