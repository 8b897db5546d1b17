//! The experiment that tests of this crate change.

use skep_protocol::experiment::file::{
    BatchFile, DataFile, ExperimentFile, ModelFile, PartitionFile, PopulationFile, PrivacyFile, RoundsFile,
    SamplingFile, SimulationFile, StrategyFile, TaskFile, TrainingFile, WeightingFile,
};

/// The mean of updates, each counting the same.
pub(crate) const MEAN: StrategyFile =
    StrategyFile::Fedavg { weighting: WeightingFile::Uniform, max_examples: None, server_learning_rate: 1.0 };

/// Digits among 20 clients, all of them in each of 15 rounds, without privacy.
pub(crate) fn digits() -> ExperimentFile {
    ExperimentFile {
        name: "digits".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(0.5, 2, BatchFile::Size(16)),
            tuning: None,
        },
        population: PopulationFile {
            clients: 20,
            partition: PartitionFile::Iid {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 15, sampling: SamplingFile::All {}, min_updates: 20, deadline_s: 30.0 },
        strategy: MEAN,
        privacy: PrivacyFile::NONE,
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}
