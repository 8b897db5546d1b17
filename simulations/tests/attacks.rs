//! Corrupt clients against the mean and against aggregates that are made for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use skep_learning::Split;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    AttackFile, ExperimentFile, GroupsFile, ModeFile, PrivacyFile, RoundsFile, SecureAggregationFile,
    SimulationFile, StrategyFile,
};
use skep_simulations::{SimulationOptions, SimulationReport, backdoor_success, population, simulate};
use support::MEAN;

const SCALED: AttackFile = AttackFile::Scaled { fraction: 0.2, factor: -10.0 };

fn experiment(strategy: StrategyFile, attack: Option<AttackFile>) -> Experiment {
    Experiment::try_from(&file(strategy, attack)).unwrap()
}

fn file(strategy: StrategyFile, attack: Option<AttackFile>) -> ExperimentFile {
    let simulation = SimulationFile { attack, ..SimulationFile::default() };
    ExperimentFile { strategy, simulation, ..support::digits() }
}

/// The same with a hundred clients whose updates the server sees in noised sums of twenty.
fn in_groups(strategy: StrategyFile, attack: Option<AttackFile>) -> Experiment {
    let mut file = file(strategy, attack);
    file.population.clients = 100;
    file.rounds = RoundsFile { count: 30, min_updates: 90, ..file.rounds };
    file.privacy = PrivacyFile {
        mode: ModeFile::Distributed,
        unit: Some("client".into()),
        adjacency: Some("zero-out".into()),
        clip_norm: Some(1.0),
        noise_multiplier: Some(1.0),
        delta: Some(1e-5),
        epsilon_limit: Some(50.0),
    };
    file.secure_aggregation = Some(SecureAggregationFile {
        max_corrupt_fraction: 0.02,
        min_cohort: 10,
        groups: Some(GroupsFile { size: 20, min_updates: 16 }),
    });
    Experiment::try_from(&file).unwrap()
}

fn run(experiment: &Experiment, data: &Split, threads: usize) -> SimulationReport {
    let options = SimulationOptions::new(NonZeroUsize::new(threads).unwrap());
    simulate(experiment, data, &Key::from_seed(1), &options, &AtomicBool::new(false), &mut ()).unwrap()
}

/// The last accuracy in percent.
fn accuracy(report: &SimulationReport) -> f64 {
    100.0 * report.rounds.last().unwrap().accuracy.unwrap()
}

#[test]
fn scaled_updates_break_the_mean_and_no_robust_aggregate() {
    let data = population::data(&experiment(MEAN, None)).unwrap();
    let measured = |strategy, attack| accuracy(&run(&experiment(strategy, attack), &data, 1));
    let clean = measured(MEAN, None);
    assert!(clean > 90.0, "{clean}");
    let broken = measured(MEAN, Some(SCALED));
    assert!(broken < clean - 30.0, "the mean bears it: {broken} of {clean}");
    let server_learning_rate = 1.0;
    for strategy in [
        StrategyFile::Median { server_learning_rate },
        StrategyFile::TrimmedMean { trim: 0.2, server_learning_rate },
        StrategyFile::Krum { byzantine: 4, server_learning_rate },
        StrategyFile::MultiKrum { byzantine: 4, selected: 10, server_learning_rate },
        StrategyFile::CentredClipping { radius: 0.5, iterations: 1, server_learning_rate },
        StrategyFile::NormThreshold { max_norm: 0.5, server_learning_rate },
    ] {
        let robust = measured(strategy, Some(SCALED));
        assert!(robust > clean - 5.0, "{strategy:?}: {robust} of {clean}");
    }
}

#[test]
fn under_masks_two_clients_break_the_mean_and_no_median_of_group_sums() {
    let scaled = || Some(AttackFile::Scaled { fraction: 0.02, factor: -40.0 });
    let data = population::data(&in_groups(MEAN, None)).unwrap();
    let measured = |strategy, attack| run(&in_groups(strategy, attack), &data, 2);
    let clean = accuracy(&measured(MEAN, None));
    assert!(clean > 85.0, "{clean}");
    let broken = accuracy(&measured(MEAN, scaled()));
    assert!(broken < clean - 25.0, "the mean bears it: {broken} of {clean}");
    let server_learning_rate = 1.0;
    for strategy in [
        StrategyFile::Median { server_learning_rate },
        StrategyFile::TrimmedMean { trim: 0.4, server_learning_rate },
    ] {
        let robust = accuracy(&measured(strategy, scaled()));
        assert!(robust > clean - 10.0, "{strategy:?}: {robust} of {clean}");
    }
}

#[test]
fn what_each_update_says_gives_the_same_model_on_any_number_of_threads() {
    let krum = StrategyFile::MultiKrum { byzantine: 4, selected: 10, server_learning_rate: 1.0 };
    let experiment = experiment(krum, Some(AttackFile::LabelFlip { fraction: 0.2 }));
    let data = population::data(&experiment).unwrap();
    let [alone, helped] = [1, 3].map(|threads| run(&experiment, &data, threads).model_sha256);
    assert_eq!(alone, helped);
}

#[test]
fn a_backdoor_opens_to_its_trigger_and_shows_in_no_accuracy() {
    let corner = vec![54, 55, 62, 63];
    let backdoor = |factor| AttackFile::Backdoor {
        fraction: 0.2,
        trigger: corner.clone(),
        value: 1.0,
        target: 0,
        poisoned: 0.5,
        factor,
    };
    let data = population::data(&experiment(MEAN, None)).unwrap();
    let success = |strategy, factor| {
        let experiment = experiment(strategy, Some(backdoor(factor)));
        let report = run(&experiment, &data, 1);
        (accuracy(&report), backdoor_success(&experiment, &data.test, &report.model).unwrap().unwrap())
    };
    let (kept, opened) = success(MEAN, 5.0);
    assert!(kept > 75.0 && opened > 0.8, "accuracy {kept}, success {opened}");
    let (kept, opened) = success(StrategyFile::Median { server_learning_rate: 1.0 }, 5.0);
    assert!(kept > 85.0 && opened < 0.5, "accuracy {kept}, success {opened}");
    let honest = run(&experiment(MEAN, None), &data, 1);
    let measured = backdoor_success(&experiment(MEAN, Some(backdoor(1.0))), &data.test, &honest.model);
    assert!(measured.unwrap().unwrap() < 0.3);
    assert_eq!(backdoor_success(&experiment(MEAN, None), &data.test, &honest.model).unwrap(), None);
}
