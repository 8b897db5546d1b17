//! Strategies that ask more of clients than an update.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    BatchFile, DataFile, ExperimentFile, ModelFile, PartitionFile, PopulationFile, PrivacyFile, RoundsFile,
    SamplingFile, SimulationFile, StrategyFile, TaskFile, TrainingFile, WeightingFile,
};
use skep_simulations::{SimulationOptions, SimulationReport, population, simulate};

const FEDAVG: StrategyFile =
    StrategyFile::Fedavg { weighting: WeightingFile::Uniform, max_examples: None, server_learning_rate: 1.0 };
const SCAFFOLD: StrategyFile = StrategyFile::Scaffold { server_learning_rate: 1.0 };

/// Digits in shards of one class: 20 clients, half of them in each round.
fn run(strategy: StrategyFile, rounds: u64, threads: usize) -> SimulationReport {
    let file = ExperimentFile {
        name: "strategies".into(),
        seed: 1,
        task: TaskFile {
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(0.3, 3, BatchFile::Size(16)),
        },
        population: PopulationFile {
            clients: 20,
            partition: PartitionFile::Shards { per_client: 1 },
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile {
            count: rounds,
            sampling: SamplingFile::Fixed { size: 10 },
            min_updates: 10,
            deadline_s: 30.0,
        },
        strategy,
        privacy: PrivacyFile::NONE,
        secure_aggregation: None,
        simulation: SimulationFile::default(),
        evaluation: None,
    };
    let experiment = Experiment::try_from(&file).unwrap();
    let data = population::data(&experiment).unwrap();
    let options = SimulationOptions::new(NonZeroUsize::new(threads).unwrap());
    simulate(&experiment, &data, &Key::from_seed(1), &options, &AtomicBool::new(false), &mut ()).unwrap()
}

#[test]
fn where_nothing_is_different_yet_the_model_is_that_of_fedavg() {
    let fedavg = run(FEDAVG, 3, 1).model_sha256;
    // Every loss to the power of 0 counts the same.
    assert_eq!(run(StrategyFile::QFedavg { q: 0.0, server_learning_rate: 1.0 }, 3, 1).model_sha256, fedavg);
    // Before the first round every control variate is 0, and no longer; a correction by 0 is rounded elsewhere.
    let apart = |rounds| {
        let (scaffold, fedavg) = (run(SCAFFOLD, rounds, 1).model, run(FEDAVG, rounds, 1).model);
        scaffold.iter().zip(fedavg.iter()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (first, third) = (apart(1), apart(3));
    assert!(first < 1e-5 && third > 1e-2, "{first} {third}");
}

#[test]
fn what_clients_remember_does_not_depend_on_the_number_of_threads() {
    let alone = run(SCAFFOLD, 4, 1);
    assert_eq!(alone.client_updates, 40, "nobody declines");
    assert_eq!(run(SCAFFOLD, 4, 3).model_sha256, alone.model_sha256);
}

#[test]
fn clients_with_more_loss_and_more_steps_are_borne() {
    let accuracy = |strategy| run(strategy, 30, 1).rounds.last().unwrap().accuracy.unwrap();
    let [fednova, fair, scaffold] = [
        StrategyFile::Fednova { max_examples: 100, server_learning_rate: 1.0 },
        StrategyFile::QFedavg { q: 1.0, server_learning_rate: 1.0 },
        SCAFFOLD,
    ]
    .map(accuracy);
    assert!(fednova > 0.6 && fair > 0.4 && scaffold > 0.6, "{fednova} {fair} {scaffold}");
}
