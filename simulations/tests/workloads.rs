//! The workloads give the losses that other programs give, and cost no more than what is selected.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::AtomicBool;

use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, InOrderFile, ModeFile, ModelFile,
    PartitionFile, PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SimulationFile, StrategyFile,
    TaskFile, TrainingFile, WeightingFile, Workload,
};
use skep_simulations::{SimulationOptions, SimulationReport, population, simulate};

/// A workload: what is learned, by so many clients of whom `cohort` are in a round.
fn workload(
    name: Workload,
    model: ModelFile,
    batch_size: BatchFile,
    clients: u64,
    cohort: u64,
) -> ExperimentFile {
    ExperimentFile {
        name: "workload".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Workload(name),
            model,
            training: TrainingFile::plain(0.1, 1, batch_size),
            tuning: None,
        },
        population: PopulationFile {
            clients,
            partition: PartitionFile::Generated {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile {
            count: 1,
            sampling: SamplingFile::Fixed { size: cohort },
            min_updates: cohort as u32,
            deadline_s: 60.0,
        },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile::NONE,
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}

fn text() -> ExperimentFile {
    let model = ModelFile::Mlp { hidden: vec![128], activation: Activation::Relu };
    workload(Workload::MlpText, model, BatchFile::Word(BatchWord::Full), 1000, 100)
}

fn linear(clients: u64, cohort: u64) -> ExperimentFile {
    let full = BatchFile::Word(BatchWord::Full);
    workload(Workload::Linear, ModelFile::Softmax {}, full, clients, cohort)
}

fn cifar(dropout: bool, cohort: u64) -> ExperimentFile {
    let model = ModelFile::SimpleCnn { image: [32, 32, 3], dropout };
    let batch = BatchFile::InOrder(InOrderFile { in_order: 10 });
    workload(Workload::CnnCifar, model, batch, 1000, cohort)
}

/// Runs so many rounds and measures the last model.
fn run(mut file: ExperimentFile, rounds: u64, threads: usize) -> SimulationReport {
    file.rounds.count = rounds;
    let experiment = Experiment::try_from(&file).unwrap();
    let options = SimulationOptions {
        evaluate_every: NonZeroU64::new(rounds),
        ..SimulationOptions::new(NonZeroUsize::new(threads).unwrap())
    };
    let data = population::data(&experiment).unwrap();
    simulate(&experiment, &data, &Key::from_seed(1), &options, &AtomicBool::new(false), &mut ()).unwrap()
}

fn loss(report: &SimulationReport) -> f64 {
    assert!(
        report.rounds.iter().rev().skip(1).all(|record| record.loss.is_none()),
        "only the last is measured"
    );
    report.rounds.last().and_then(|record| record.loss).unwrap()
}

/// The losses that a hand-written loop and pfl-research in PyTorch agree on to all digits.
#[test]
fn w1_has_the_loss_that_others_have() {
    let report = run(text(), 50, 1);
    assert!((loss(&report) - 0.087_700).abs() < 1e-4, "{}", loss(&report));
}

#[test]
fn w3_has_the_loss_that_others_have() {
    let report = run(linear(100_000, 1000), 20, 2);
    assert!((loss(&report) - 1.551_135).abs() < 1e-4, "{}", loss(&report));
}

#[test]
fn w2_has_the_loss_that_others_have() {
    let report = run(cifar(false, 50), 1, 2);
    assert!((loss(&report) - 2.259_679).abs() < 1e-4, "{}", loss(&report));
}

#[test]
#[ignore = "ten seconds; cargo test --release -p skep-simulations --test workloads -- --ignored"]
fn w2_has_the_loss_that_others_have_after_two_rounds() {
    let report = run(cifar(false, 50), 2, 2);
    assert!((loss(&report) - 2.190_496).abs() < 1e-3, "{}", loss(&report));
}

#[test]
fn models_do_not_depend_on_threads_nor_on_who_trained_before() {
    for file in [text(), cifar(true, 3)] {
        let alone = run(file.clone(), 2, 1);
        for threads in [2, 3] {
            assert_eq!(run(file.clone(), 2, threads).model_sha256, alone.model_sha256);
        }
    }
}

#[test]
fn ten_million_clients_cost_what_the_cohort_costs() {
    let report = run(linear(10_000_000, 50), 3, 1);
    assert_eq!((report.client_updates, report.rounds.len()), (150, 3));
    assert!(loss(&report).is_finite());
}

#[test]
fn a_workload_fixes_its_partition_and_nothing_else_can_be_generated() {
    let refused = |change: fn(&mut ExperimentFile)| {
        let mut file = text();
        change(&mut file);
        Experiment::try_from(&file).unwrap_err().key
    };
    assert_eq!(
        refused(|file| file.population.partition = PartitionFile::Iid {}),
        "population.partition.kind"
    );
    assert_eq!(refused(|file| file.task.data = DataFile::Digits), "population.partition.kind");
    assert_eq!(refused(|file| file.rounds.sampling = SamplingFile::All {}), "rounds.sampling.scheme");
    let private = |file: &mut ExperimentFile| file.privacy.mode = ModeFile::Central;
    assert_eq!(refused(private), "privacy.unit");
}
