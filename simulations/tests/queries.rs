//! Queries of the schedule in simulations: what clients say together of the model, with the noise that hides each of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use skep_privacy::prg::Key;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, ModeFile, ModelFile, PartitionFile,
    PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SecureAggregationFile, SimulationFile,
    StrategyFile, TaskFile, TrainingFile, WeightingFile,
};
use skep_protocol::experiment::{Evaluation, EvaluationQuery, Experiment};
use skep_protocol::{ClientId, Round};
use skep_server::record::OutcomeKind;
use skep_simulations::{Fault, FaultKind, Moment, SimulationOptions, SimulationReport, population, simulate};

/// A hundred clients on the digits, three rounds, a question after each of this noise.
fn file(mode: ModeFile, noise_multiplier: f64) -> ExperimentFile {
    let query = EvaluationQuery { every: 1, noise_multiplier, max_loss: 4.0 };
    let secure = SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups: None };
    ExperimentFile {
        name: "asked".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(0.5, 1, BatchFile::Word(BatchWord::Full)),
            tuning: None,
        },
        population: PopulationFile {
            clients: 100,
            partition: PartitionFile::Iid {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 3, sampling: SamplingFile::All {}, min_updates: 60, deadline_s: 60.0 },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile {
            mode,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(4.0),
            delta: Some(1e-5),
            epsilon_limit: Some(f64::INFINITY),
        },
        secure_aggregation: matches!(mode, ModeFile::Distributed).then_some(secure),
        evaluation: Some(Evaluation {
            hold_out: Some(0.25),
            clients: Some(1.0),
            query: Some(query),
            ..Evaluation::default()
        }),
        simulation: SimulationFile::default(),
    }
}

fn run(file: &ExperimentFile, threads: usize, faults: Vec<Fault>) -> SimulationReport {
    let experiment = Experiment::try_from(file).unwrap();
    let data = population::data(&experiment).unwrap();
    let options = SimulationOptions {
        faults,
        seeded: true,
        ..SimulationOptions::new(NonZeroUsize::new(threads).unwrap())
    };
    simulate(&experiment, &data, &Key::from_seed(1), &options, &AtomicBool::new(false), &mut ()).unwrap()
}

#[test]
fn clients_say_together_how_good_the_model_is_for_them() {
    for mode in [ModeFile::Central, ModeFile::Distributed, ModeFile::Local] {
        let noise = if mode == ModeFile::Local { 0.5 } else { 4.0 };
        let report = run(&file(mode, noise), 2, Vec::new());
        let mut spent = 0.0;
        for record in &report.rounds {
            let (said, measured) = (record.client_answers.unwrap(), record.client_accuracy.unwrap());
            // Four standard deviations: these keys are fixed, and so is what comes of them.
            let within = 2.1 * said.accuracy_within;
            assert!((said.accuracy - measured.mean).abs() < within, "{mode:?}: {said:?} {measured:?}");
            // 1.96 · 4 · √¾/100, somewhat more the farther from ½; shares are planned for the fewest honest survivors, 55 of 100.
            assert!((0.06..0.15).contains(&said.accuracy_within), "{mode:?}: {said:?}");
            let epsilon = record.epsilon_release.unwrap();
            assert!(epsilon > spent, "{mode:?}: the budget falls");
            spent = epsilon;
        }
        let again = run(&file(mode, noise), 1, Vec::new());
        assert_eq!(again.rounds, report.rounds, "{mode:?}: on any number of threads");
    }
}

#[test]
fn clients_rate_the_model_with_the_layers_that_they_keep() {
    let mut file = file(ModeFile::Central, 0.2);
    file.task.model = ModelFile::Mlp { hidden: vec![8], activation: Activation::Relu };
    file.population.partition = PartitionFile::Shards { per_client: 1 };
    file.simulation.private_layers = vec!["output".to_owned()];
    let last = run(&file, 2, Vec::new()).rounds.pop().unwrap();
    let (said, measured) = (last.client_answers.unwrap(), last.client_accuracy.unwrap());
    assert!(measured.mean > 0.5, "each has examples of one class, which its own layer knows: {measured:?}");
    assert!((said.accuracy - measured.mean).abs() < said.accuracy_within, "{said:?} {measured:?}");
}

#[test]
fn a_query_of_too_few_says_nothing_and_nobody_is_asked_about_a_model_that_has_stayed_as_it_was() {
    let mut file = file(ModeFile::Central, 4.0);
    file.rounds.min_updates = 100;
    let vanishes = |round| {
        let kind = FaultKind::Vanish { at: Moment::Opening, back_after: None };
        Fault { client: ClientId(3), round, kind }
    };
    let whole = run(&file, 2, Vec::new());
    let report = run(&file, 2, vec![vanishes(Round(1).query()), vanishes(Round(2))]);
    let outcomes: Vec<_> = report.rounds.iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [OutcomeKind::Complete, OutcomeKind::Aborted, OutcomeKind::Complete]);
    let said: Vec<_> = report.rounds.iter().map(|record| record.client_answers.is_some()).collect();
    assert_eq!(said, [false, false, true]);
    // What nobody is asked stays counted: what is spent follows from the number of rounds.
    let epsilons = |report: &SimulationReport| -> Vec<_> {
        report.rounds.iter().map(|record| record.epsilon_release).collect()
    };
    assert_eq!(epsilons(&report), epsilons(&whole));
    assert_eq!(report.rounds[0].model_sha256, whole.rounds[0].model_sha256);
}
