//! A round of two clients that learn a number from a table, against the arithmetic of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use skep_privacy::prg::Key;
use skep_protocol::experiment::file::{
    BatchFile, BatchWord, DataFile, ExperimentFile, ModelFile, PartitionFile, PopulationFile, PrivacyFile,
    RoundsFile, SamplingFile, SimulationFile, StrategyFile, TableFile, TaskFile, TrainingFile, WeightingFile,
};
use skep_protocol::experiment::{CountOrNames, Experiment, Loss, TableFormat, Target};
use skep_simulations::{SimulationOptions, population, simulate};

/// Two clients, each with one example of one number, and another to predict between 0 and 40.
fn experiment(directory: &Path, loss: Loss) -> Experiment {
    let table = directory.join("table.csv");
    std::fs::write(&table, "x,y,who\n2,30,a\n-1,10,b\n").unwrap();
    let target = Target { column: "y".into(), bounds: Some([0.0, 40.0]), mean: None, deviation: None, loss };
    let file = ExperimentFile {
        name: "line".into(),
        seed: 3,
        task: TaskFile {
            data: DataFile::Table(
                TableFormat::Csv,
                TableFile {
                    train: Some(table.clone()),
                    test: Some(table),
                    hold_out_every: None,
                    label: None,
                    client: Some("who".into()),
                    features: CountOrNames::Count(1),
                    classes: None,
                    standardize: None,
                    target: Some(target),
                    columns: BTreeMap::new(),
                },
            ),
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(0.1, 1, BatchFile::Word(BatchWord::Full)),
            tuning: None,
            initial_weights: Default::default(),
        },
        population: PopulationFile {
            clients: 2,
            partition: PartitionFile::Column {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 1, sampling: SamplingFile::All {}, min_updates: 2, deadline_s: 30.0 },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile::NONE,
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    };
    let mut experiment = Experiment::try_from(&file).unwrap();
    population::prepare(&mut experiment).unwrap();
    experiment
}

#[test]
fn a_round_is_the_mean_of_two_steps_that_can_be_computed_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    for (loss, slope) in [
        (Loss::Squared, (|error| 2.0 * error) as fn(f64) -> f64),
        (Loss::Absolute, f64::signum),
        (Loss::Huber { delta: 0.25 }, |error| error.clamp(-0.25, 0.25)),
    ] {
        let experiment = experiment(directory.path(), loss);
        let data = population::data(&experiment).unwrap();
        let first = population::initial_model(&experiment).unwrap();
        let [weight, bias] = [0, 1].map(|at| f64::from(first[at]));
        let options = SimulationOptions::new(NonZeroUsize::MIN);
        let (root, interrupted) = (Key::from_seed(1), AtomicBool::new(false));
        let report = simulate(&experiment, &data, &root, &options, &interrupted, &mut ()).unwrap();
        // Targets of 30 and 10 between 0 and 40 are ½ and −½.
        let examples = [(2.0, 0.5), (-1.0, -0.5)];
        let slopes = examples.map(|(x, target)| (x, slope(weight * x + bias - target)));
        let step =
            |of: fn(f64) -> f64| 0.1 * slopes.iter().map(|(x, slope)| slope * of(*x)).sum::<f64>() / 2.0;
        let expected = [weight - step(|x| x), bias - step(|_| 1.0)];
        for (found, expected) in report.model.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{loss:?}: {found} {expected}");
        }
        assert_ne!(report.model[..], first[..]);
        let errors = examples.map(|(x, target)| 20.0 * (expected[0] * x + expected[1] - target));
        let mean = errors.iter().map(|error| error.abs()).sum::<f64>() / 2.0;
        let squared = errors.iter().map(|error| error * error).sum::<f64>() / 2.0;
        let last = report.rounds.last().unwrap();
        assert!((last.mean_absolute_error.unwrap() - mean).abs() < 1e-4, "{loss:?}: {last:?}");
        assert!((last.root_mean_squared_error.unwrap() - squared.sqrt()).abs() < 1e-4, "{loss:?}: {last:?}");
        // The numbers lie 10 from their mean.
        assert!((last.r_squared.unwrap() - (1.0 - squared / 100.0)).abs() < 1e-5, "{loss:?}: {last:?}");
        assert_eq!(last.accuracy, None);
    }
}
