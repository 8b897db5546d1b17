//! A small federation for unit tests: softmax regression on the digits, 650 parameters.

use skep_privacy::ledger::Ledger;
use skep_privacy::packing::pack;
use skep_privacy::prg::Key;
use skep_privacy::update::Update;
use skep_protocol::experiment::file::{
    BatchFile, BatchWord, DataFile, ExperimentFile, ModeFile, ModelFile, PartitionFile, PopulationFile,
    PrivacyFile, RoundsFile, SamplingFile, SecureAggregationFile, SimulationFile, StrategyFile, TaskFile,
    TrainingFile, WeightingFile,
};
use skep_protocol::experiment::{Evaluation, EvaluationQuery, Experiment};
use skep_protocol::plan::Segment;

use crate::federation::{Federation, ServerKeys};
use crate::ledger::{Place, simulated};

pub(crate) const PARAMETERS: usize = 650;

pub(crate) fn private_file() -> ExperimentFile {
    ExperimentFile {
        name: "test".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(1.0, 1, BatchFile::Word(BatchWord::Full)),
            tuning: None,
        },
        population: PopulationFile {
            clients: 4,
            partition: PartitionFile::Iid {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 3, sampling: SamplingFile::All {}, min_updates: 1, deadline_s: 10.0 },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile {
            mode: ModeFile::Central,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(2.0),
            delta: Some(1e-5),
            epsilon_limit: Some(100.0),
        },
        secure_aggregation: None,
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}

/// The same with a query after every round.
pub(crate) fn asking(file: ExperimentFile) -> ExperimentFile {
    let query = EvaluationQuery { every: 1, noise_multiplier: 3.0, max_loss: 4.0 };
    let evaluation = Evaluation { hold_out: Some(0.5), query: Some(query), ..Evaluation::default() };
    ExperimentFile { evaluation: Some(evaluation), ..file }
}

/// [`private_file`] with twelve clients that add shares of the noise, planned for seven honest of eight survivors.
pub(crate) fn distributed_file() -> ExperimentFile {
    let mut file = private_file();
    file.population.clients = 12;
    file.rounds.min_updates = 8;
    file.rounds.count = 100;
    file.privacy.mode = ModeFile::Distributed;
    file.privacy.epsilon_limit = Some(1e6);
    file.secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.1, min_cohort: 10, groups: None });
    file
}

pub(crate) fn public_file() -> ExperimentFile {
    let privacy = PrivacyFile::NONE;
    ExperimentFile { privacy, ..private_file() }
}

pub(crate) fn segments() -> Vec<Segment> {
    vec![Segment { name: "weight matrix".into(), len: 640 }, Segment { name: "bias".into(), len: 10 }]
}

pub(crate) fn federation(file: &ExperimentFile, keys: ServerKeys) -> Federation {
    let experiment = Experiment::try_from(file).unwrap();
    let model = vec![0.5; PARAMETERS];
    let ledger = ledger(&experiment);
    Federation::new(experiment, segments(), model, ledger, keys).unwrap()
}

pub(crate) fn ledger(experiment: &Experiment) -> Ledger {
    simulated(&Place::Memory, experiment, &Key::from_seed(1), true).unwrap()
}

pub(crate) fn seeded(seed: u64) -> ServerKeys {
    ServerKeys::from_root(&Key::from_seed(seed))
}

/// The packed update that a client of mode `none` sends: these values, each for 650 coordinates, then the weight.
pub(crate) fn public_upload(federation: &Federation, value: f32, weight: Option<f32>) -> Vec<u8> {
    let skep_privacy::grid::Grid::Public(grid) = federation.grid() else { panic!("not mode none") };
    let values = std::iter::repeat_n(value, PARAMETERS).chain(weight).collect();
    let update = Update::new(values).unwrap().quantize_nearest(&grid).unwrap();
    pack(update.coordinates(), federation.grid().wire_bits()).unwrap()
}

/// The packed zero update of any mode.
pub(crate) fn zero_upload(federation: &Federation) -> Vec<u8> {
    pack(&vec![0; federation.grid().dimension()], federation.grid().wire_bits()).unwrap()
}
