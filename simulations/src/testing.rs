//! A small federation for the tests of this crate, and clients that do not train.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use skep_privacy::client_noise::Contribution;
use skep_privacy::grid::Grid;
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::update::Update;
use skep_protocol::ClientId;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    BatchFile, BatchWord, DataFile, ExperimentFile, FidelityFile, ModeFile, ModelFile, PartitionFile,
    PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SecureAggregationFile, SimulationFile,
    StrategyFile, TaskFile, TrainingFile, WeightingFile,
};
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::Decline;
use skep_server::evaluate::{Evaluation, Evaluator, Examples, Scores};
use skep_server::federation::{Federation, ServerKeys};
use skep_server::ledger::{Place, simulated};
use skep_server::record::Observer;
use skep_server::roster::Contiguous;

use crate::simulate::with_world;
use crate::workers::{Job, Trainer};
use crate::{Fault, SimulationError, SimulationOptions, SimulationReport, population, schedule};

/// Digits with softmax regression: 20 clients, all of them in each of 3 rounds, without privacy.
pub(crate) fn file() -> ExperimentFile {
    ExperimentFile {
        name: "small".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Softmax {},
            training: TrainingFile::plain(2.0, 5, BatchFile::Word(BatchWord::Full)),
            tuning: None,
        },
        population: PopulationFile {
            clients: 20,
            partition: PartitionFile::Dirichlet { alpha: 0.3 },
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 3, sampling: SamplingFile::All {}, min_updates: 15, deadline_s: 30.0 },
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

/// [`file`] with central noise.
pub(crate) fn private_file() -> ExperimentFile {
    let privacy = PrivacyFile {
        mode: ModeFile::Central,
        unit: Some("client".into()),
        adjacency: Some("zero-out".into()),
        clip_norm: Some(1.0),
        noise_multiplier: Some(5.0),
        delta: Some(1e-5),
        epsilon_limit: Some(8.0),
    };
    ExperimentFile { privacy, ..file() }
}

/// [`file`] with a share of the noise from every client, computed with this fidelity: 20 clients, up to 2 of them corrupt,
/// threshold 11.
pub(crate) fn masked_file(fidelity: FidelityFile) -> ExperimentFile {
    let privacy =
        PrivacyFile { mode: ModeFile::Distributed, epsilon_limit: Some(20.0), ..private_file().privacy };
    let secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.1, min_cohort: 10, groups: None });
    ExperimentFile {
        privacy,
        secure_aggregation,
        simulation: SimulationFile { fidelity, ..SimulationFile::default() },
        ..file()
    }
}

/// [`private_file`] with shares of the noise from clients, planned for fourteen honest of fifteen survivors.
pub(crate) fn distributed_file() -> ExperimentFile {
    let secure_aggregation =
        SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups: None };
    let mut file = ExperimentFile { secure_aggregation: Some(secure_aggregation), ..private_file() };
    file.privacy.mode = ModeFile::Distributed;
    file
}

/// [`private_file`] with all of the noise from each client.
pub(crate) fn local_file() -> ExperimentFile {
    let mut file = private_file();
    file.privacy.mode = ModeFile::Local;
    file
}

/// The experiment of [`file`].
pub(crate) fn experiment() -> Experiment {
    Experiment::try_from(&file()).unwrap()
}

/// Any plan.
pub(crate) fn plan() -> Arc<VerifiedPlan> {
    first_federation(&file(), 1).plan(&Contiguous(20)).unwrap().plan
}

/// The plan of the first round of a run with this root.
pub(crate) fn first_plan(file: &ExperimentFile, root: u64) -> Arc<VerifiedPlan> {
    first_federation(file, root).plan(&Contiguous(file.population.clients)).unwrap().plan
}

/// The federation of a run with this root, before its first round.
pub(crate) fn first_federation(file: &ExperimentFile, root: u64) -> Federation {
    let experiment = Experiment::try_from(file).unwrap();
    let (segments, model) =
        (population::segments(&experiment), population::initial_model(&experiment).unwrap());
    let root = Key::from_seed(root);
    let ledger = simulated(&Place::Memory, &experiment, &root, true).unwrap();
    Federation::new(experiment, segments, model, ledger, ServerKeys::from_root(&root)).unwrap()
}

/// Clients whose updates are random, a function of client, round and base model.
#[derive(Default)]
pub(crate) struct Fake {
    /// Whose training fails.
    pub(crate) failing: Option<ClientId>,
    /// Whether all updates are zero, which costs nothing.
    pub(crate) idle: bool,
}

impl Trainer for Fake {
    fn examples(&self, _: ClientId) -> u64 {
        10
    }

    fn train(&self, job: &Job) -> Result<Contribution, Decline> {
        if self.failing == Some(job.client) {
            return Err(Decline::TrainingFailed);
        }
        let plan = job.plan.plan();
        if self.idle {
            let zero = vec![0; job.base.len()];
            return Contribution::verify(zero, &plan.grid()?).map_err(|_| Decline::Unencodable);
        }
        let mut prg = Key::from_seed(0).derive(Purpose::Training, plan.round.0, job.client.0).stream();
        let mut uniform = || (prg.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        let values = job.base.iter().map(|parameter| uniform() - 0.1 * parameter).collect();
        let update = Update::new(values).map_err(|_| Decline::Unencodable)?;
        match plan.grid()? {
            Grid::Private(grid) => {
                update.clip(grid.clip()).quantize(&grid, &mut prg).ok().map(Contribution::from)
            }
            Grid::Noised(grid) => {
                let exact = update.clip(grid.exact().clip()).quantize(grid.exact(), &mut prg).ok();
                let noise = Key::from_seed(1).derive(Purpose::Noise, plan.round.0, job.client.0);
                exact.and_then(|exact| exact.add_noise(&grid, &noise, plan.prg).ok()).map(Contribution::from)
            }
            Grid::Public(grid) => update.quantize_nearest(&grid).ok().map(Contribution::from),
        }
        .ok_or(Decline::Unencodable)
    }
}

/// An evaluator that finds nothing out.
pub(crate) struct Unmeasured;

impl Evaluator for Unmeasured {
    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Evaluation {
            on: Examples::Test,
            scores: Scores::Classes { accuracy: 0.0 },
            loss: 0.0,
            examples: 1,
        })
    }
}

/// A simulation with fake clients.
pub(crate) struct Run {
    pub(crate) file: ExperimentFile,
    pub(crate) root: u64,
    pub(crate) options: SimulationOptions,
    pub(crate) trainer: Fake,
}

impl Run {
    pub(crate) fn of(file: ExperimentFile) -> Self {
        Run { file, root: 1, options: options(1), trainer: Fake::default() }
    }

    pub(crate) fn with_fault(file: ExperimentFile, fault: Fault) -> Self {
        let mut run = Run::of(file);
        run.options.faults.push(fault);
        run
    }

    pub(crate) fn report(&self) -> SimulationReport {
        self.try_report(&AtomicBool::new(false), &mut ()).unwrap()
    }

    pub(crate) fn try_report(
        &self,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<SimulationReport, SimulationError> {
        let federation = first_federation(&self.file, self.root);
        with_world(
            federation,
            &Key::from_seed(self.root),
            &self.trainer,
            &self.options,
            interrupted,
            |world| schedule::run(world, &mut Unmeasured, None, observer),
        )
    }
}

/// Options for so many threads.
pub(crate) fn options(threads: usize) -> SimulationOptions {
    SimulationOptions::new(NonZeroUsize::new(threads).unwrap())
}
