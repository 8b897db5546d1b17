//! Strategies that ask more of clients than an update.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_privacy::prg::Key;
use skep_protocol::Round;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    Activation, BatchFile, Devices, Evaluation, ExperimentFile, ModelFile, PartitionFile, RoundsFile,
    SamplingFile, StrategyFile, TrainingFile,
};
use skep_protocol::experiment::simulation::{Amount, Distribution};
use skep_server::ledger::Place;
use skep_server::record::{Observer, RoundRecord};
use skep_simulations::{
    Checkpoint, Checkpoints, Resume, SimulationOptions, SimulationReport, population, simulate,
};
use support::MEAN;

const SCAFFOLD: StrategyFile = StrategyFile::Scaffold { server_learning_rate: 1.0 };

/// Digits in shards of one class: 20 clients, half of them in each round.
fn file(strategy: StrategyFile, rounds: u64) -> ExperimentFile {
    let mut file = ExperimentFile { strategy, ..support::digits() };
    file.task.training = TrainingFile::plain(0.3, 3, BatchFile::Size(16));
    file.population.partition = PartitionFile::Shards { per_client: 1 };
    file.rounds = RoundsFile {
        count: rounds,
        sampling: SamplingFile::Fixed { size: 10 },
        min_updates: 10,
        ..file.rounds
    };
    file
}

fn run(strategy: StrategyFile, rounds: u64, threads: usize) -> SimulationReport {
    run_file(&file(strategy, rounds), threads, |options| options, None)
}

fn run_file(
    file: &ExperimentFile,
    threads: usize,
    change: impl FnOnce(SimulationOptions) -> SimulationOptions,
    last: Option<Round>,
) -> SimulationReport {
    let experiment = Experiment::try_from(file).unwrap();
    let data = population::data(&experiment).unwrap();
    let options = change(SimulationOptions::new(NonZeroUsize::new(threads).unwrap()));
    let stop = AtomicBool::new(false);
    let mut stopping = Stopping { stop: &stop, last };
    simulate(&experiment, &data, &Key::from_seed(1), &options, &stop, &mut stopping).unwrap()
}

/// Stops a run after its last round.
struct Stopping<'a> {
    stop: &'a AtomicBool,
    last: Option<Round>,
}

impl Observer for Stopping<'_> {
    fn round_closed(&mut self, record: &RoundRecord, _: &Arc<Vec<f32>>) {
        self.stop.store(Some(record.round) == self.last, Ordering::SeqCst);
    }
}

fn perceptron(mut file: ExperimentFile, private_layers: &[&str]) -> ExperimentFile {
    file.task.model = ModelFile::Mlp { hidden: vec![16], activation: Activation::Relu };
    file.simulation.private_layers = private_layers.iter().map(|&layer| layer.to_owned()).collect();
    file
}

fn buffered() -> ExperimentFile {
    let strategy =
        StrategyFile::Fedbuff { concurrency: 9, staleness_exponent: 0.5, server_learning_rate: 1.0 };
    let mut file = file(strategy, 8);
    let rate = Amount::Drawn(Distribution::OneOf(vec![20.0, 100.0]));
    file.simulation.devices = Some(Devices { examples_per_s: Some(rate), ..Devices::IDEAL });
    file
}

#[test]
fn where_nothing_is_different_yet_the_model_is_that_of_fedavg() {
    let fedavg = run(MEAN, 3, 1).model_sha256;
    // Every loss to the power of 0 counts the same.
    assert_eq!(run(StrategyFile::QFedavg { q: 0.0, server_learning_rate: 1.0 }, 3, 1).model_sha256, fedavg);
    // Before the first round every control variate is 0, and no longer; a correction by 0 is rounded elsewhere.
    let apart = |rounds| {
        let (scaffold, fedavg) = (run(SCAFFOLD, rounds, 1).model, run(MEAN, rounds, 1).model);
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
fn private_layers_stay_with_their_clients_and_serve_them() {
    let mut file = perceptron(file(MEAN, 8), &["output"]);
    let last = Evaluation { every: 8, clients: Some(1.0), hold_out: Some(0.3), ..Evaluation::default() };
    file.evaluation = Some(last);
    let first = population::initial_model(&Experiment::try_from(&file).unwrap()).unwrap();
    let private = run_file(&file, 1, |options| options, None);
    // 64 x 16 weights and 16 biases are shared; the server's own last layer is nobody's.
    let (shared, own) = private.model.split_at(64 * 16 + 16);
    assert!(own == &first[64 * 16 + 16..] && shared != &first[..64 * 16 + 16]);
    assert_eq!(run_file(&file, 3, |options| options, None).model_sha256, private.model_sha256);
    let common = run_file(&perceptron(file, &[]), 1, |options| options, None);
    let mean = |report: &SimulationReport| report.rounds.last().unwrap().client_accuracy.unwrap().mean;
    // With one or two classes a client, its own last layer is right nearly always.
    assert!(
        mean(&private) > 0.9 && mean(&private) > mean(&common) + 0.1,
        "{} {}",
        mean(&private),
        mean(&common)
    );
}

#[test]
fn a_buffered_run_is_the_same_on_any_number_of_threads() {
    let alone = run_file(&buffered(), 1, |options| options, None);
    assert_eq!(alone.client_updates, 80);
    assert_eq!(run_file(&buffered(), 3, |options| options, None).model_sha256, alone.model_sha256);
}

#[test]
fn what_clients_remember_survives_the_process() {
    for file in [file(SCAFFOLD, 6), perceptron(file(MEAN, 6), &["output"]), buffered()] {
        let whole = run_file(&file, 1, |options| options, None);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.skep");
        let kept = Checkpoints { path: path.clone(), before: Vec::new(), seed: Some(1) };
        let keep = |options| SimulationOptions {
            checkpoints: Some(kept.clone()),
            ledger: Place::PerRun(directory.path().join("ledger.skep")),
            seeded: true,
            ..options
        };
        let stopped = run_file(&file, 1, keep, Some(Round(3)));
        assert_eq!(stopped.rounds.len(), 3);
        let experiment = Experiment::try_from(&file).unwrap();
        let checkpoint = Checkpoint::read(&path, &experiment, Some(1)).unwrap().unwrap();
        let resume = Some(Resume { checkpoint, records: stopped.rounds });
        let resumed = run_file(&file, 2, |options| SimulationOptions { resume, ..keep(options) }, None);
        assert_eq!(resumed.model_sha256, whole.model_sha256, "{:?}", file.strategy);
        assert_eq!(resumed.rounds.len(), whole.rounds.len());
    }
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
