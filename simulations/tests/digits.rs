//! The reference experiment: digits, softmax regression from zero, 100 clients with Dirichlet(0.3) shares.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, ModeFile, ModelFile, PartitionFile,
    PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SimulationFile, StrategyFile, TaskFile,
    TrainingFile, WeightingFile,
};
use skep_simulations::{Ended, SimulationOptions, SimulationReport, population, simulate};

fn reference(seed: u64, rounds: u64) -> ExperimentFile {
    let training = TrainingFile::plain(2.0, 5, BatchFile::Word(BatchWord::Full));
    ExperimentFile {
        name: "digits".into(),
        seed,
        task: TaskFile {
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training,
            tuning: None,
            initial_weights: Default::default(),
        },
        population: PopulationFile {
            clients: 100,
            partition: PartitionFile::Dirichlet { alpha: 0.3 },
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile {
            count: rounds,
            sampling: SamplingFile::All {},
            min_updates: 50,
            deadline_s: 30.0,
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

fn private(mut file: ExperimentFile) -> ExperimentFile {
    file.privacy = PrivacyFile {
        mode: ModeFile::Central,
        unit: Some("client".into()),
        adjacency: Some("zero-out".into()),
        clip_norm: Some(1.0),
        noise_multiplier: Some(5.0),
        delta: Some(1e-5),
        epsilon_limit: Some(20.0),
    };
    file
}

fn report(file: &ExperimentFile, root: &Key, threads: usize) -> SimulationReport {
    let experiment = Experiment::try_from(file).unwrap();
    let options = SimulationOptions::new(NonZeroUsize::new(threads).unwrap());
    let data = population::data(&experiment).unwrap();
    let report = simulate(&experiment, &data, root, &options, &AtomicBool::new(false), &mut ()).unwrap();
    assert_eq!(report.ended, Ended::Finished);
    report
}

fn accuracy(report: &SimulationReport) -> f64 {
    report.rounds.last().and_then(|record| record.accuracy).unwrap()
}

#[test]
fn a_model_follows_from_its_seeds_on_any_number_of_threads() {
    let file = private(reference(1, 3));
    let digest = |file: &_, root: &_, threads| report(file, root, threads).model_sha256;
    let once = digest(&file, &Key::from_seed(1), 1);
    assert_eq!(digest(&file, &Key::from_seed(1), 1), once);
    assert_eq!(digest(&file, &Key::from_seed(1), 2), once);
    assert_ne!(digest(&file, &Key::from_seed(2), 1), once);
    assert_ne!(digest(&private(reference(2, 3)), &Key::from_seed(1), 1), once);
    let fresh = || digest(&file, &Key::from_os().unwrap(), 1);
    assert_ne!(fresh(), fresh());
    // Without privacy nothing is drawn in secret when everyone is invited.
    let open = reference(1, 3);
    assert_eq!(digest(&open, &Key::from_seed(1), 2), digest(&open, &Key::from_os().unwrap(), 1));
}

#[test]
fn sampled_cohorts_hidden_layers_and_small_batches_follow_from_their_seeds_too() {
    let mut file = private(reference(1, 3));
    file.task.model = ModelFile::Mlp { hidden: vec![16], activation: Activation::Tanh };
    file.task.training.batch_size = BatchFile::Size(8);
    file.rounds.sampling = SamplingFile::Poisson { rate: 0.5 };
    file.rounds.min_updates = 1;
    let once = report(&file, &Key::from_seed(1), 1);
    let again = report(&file, &Key::from_seed(1), 3);
    assert_eq!(again.rounds, once.rounds);
    let sizes: BTreeSet<_> = once.rounds.iter().map(|record| record.invited).collect();
    assert!(sizes.len() > 1 && sizes.iter().all(|size| (25..75).contains(size)), "{sizes:?}");
}

#[test]
fn clients_weighted_by_their_examples_learn() {
    let mut file = reference(1, 10);
    file.strategy = StrategyFile::Fedavg {
        weighting: WeightingFile::Examples,
        max_examples: Some(100),
        server_learning_rate: 1.0,
    };
    let weighted = report(&file, &Key::from_seed(1), 2);
    let uniform = report(&reference(1, 10), &Key::from_seed(1), 2);
    assert_ne!(weighted.model_sha256, uniform.model_sha256);
    assert!(accuracy(&weighted) > 0.85, "{}", accuracy(&weighted));
    // The weight travels as one more coordinate.
    assert_eq!(weighted.bytes_up, 10 * 100 * 651 * 4);
}

#[test]
fn the_reference_experiment_learns_with_and_without_privacy() {
    let open = accuracy(&report(&reference(1, 60), &Key::from_seed(1), 2));
    let hidden = accuracy(&report(&private(reference(1, 60)), &Key::from_seed(1), 2));
    assert!(open >= 0.93, "{open}");
    assert!(hidden >= open - 0.04, "{hidden} with privacy, {open} without");
}

/// The same over five seeds: `cargo test --release -p skep-simulations --test digits -- --ignored --nocapture`.
#[test]
#[ignore = "takes five times as long as the test above"]
fn the_reference_experiment_learns_from_every_seed() {
    for seed in 1..=5 {
        let open = report(&reference(seed, 60), &Key::from_seed(seed), 2);
        let hidden = report(&private(reference(seed, 60)), &Key::from_seed(seed), 2);
        println!(
            "seed {seed}: {:.4} without privacy in {:.2} s, {:.4} with, epsilon {:.2}, in {:.2} s",
            accuracy(&open),
            open.seconds,
            accuracy(&hidden),
            hidden.rounds[59].epsilon_release.unwrap(),
            hidden.seconds
        );
        assert!(accuracy(&open) >= 0.93);
        assert!(accuracy(&hidden) >= accuracy(&open) - 0.04);
    }
}
