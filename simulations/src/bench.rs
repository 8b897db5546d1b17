//! How fast rounds are, and where their time goes.
//!
//! Rounds are timed as they are: the machines, training, clipping, rounding, sum, noise and strategy of a simulation, from
//! the end of one round to the end of the next. Only the examples of a workload that keeps them are generated before,
//! and the model is measured after the last round. The stages are timed apart, on the last round's cohort and on one
//! thread; what they do not add up to is the machines and their messages.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;
use skep_client::example_privacy::PrivateSteps;
use skep_client::task::{TaskError, architecture, learner_for, training};
use skep_learning::{Errors, Learner, Split, Turn, exercise};
use skep_privacy::client_noise::Contribution;
use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::prg::{Key, PrgId};
use skep_privacy::update::{QuantizedUpdate, Update};
use skep_protocol::experiment::{Experiment, Privacy};
use skep_protocol::plan::Plan;
use skep_protocol::round::Outcome;
use skep_protocol::{ClientId, Round};
use skep_server::federation::Federation;
use skep_server::ledger::Place;
use skep_server::record::{Observer, RoundRecord};
use skep_server::roster::Contiguous;

use crate::clients::{Clients, public_cohort};
use crate::error::SimulationError;
use crate::simulate::{SimulationOptions, federation, simulate_clients};
use crate::test_set::TestSet;

/// What a benchmark measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// The experiment's name.
    pub name: String,
    /// Threads that trained.
    pub threads: usize,
    /// Clients in a cohort, on average.
    pub cohort: f64,
    /// Parameters of the model.
    pub parameters: usize,
    /// Seconds to generate what is kept, before everything else.
    pub preparation: f64,
    /// Seconds from there to the first round.
    pub setup: f64,
    /// Seconds of the first round.
    pub first_round: f64,
    /// The other rounds.
    pub rounds: Rounds,
    /// Processor seconds of all threads that one of these rounds takes on average, which other programs on the machine disturb
    /// less; none where the system does not tell. It counts in ticks, which may be longer than a round.
    pub processor: Option<f64>,
    /// Cohort over the median round.
    pub updates_per_second: f64,
    /// Floating point operations that the training of a round needs.
    pub flop: f64,
    /// The most of them a second that one core of this machine was seen to do.
    pub flop_per_second: f64,
    /// `flop` over `flop_per_second` and threads: no round can be faster.
    pub floor: f64,
    /// Where the time of a round goes, on one thread.
    pub stages: Vec<Stage>,
    /// Mean loss of the last model on the held-out examples.
    pub loss: f64,
    /// Its accuracy on them, where it tells classes apart.
    pub accuracy: Option<f64>,
    /// The root of its mean squared error on them, where it predicts numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_mean_squared_error: Option<f64>,
    /// Its digest.
    pub model_sha256: String,
}

/// Seconds of rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rounds {
    /// How many.
    pub count: usize,
    /// The one in the middle.
    pub median: f64,
    /// The fastest.
    pub lowest: f64,
    /// The slowest.
    pub highest: f64,
}

/// A part of a round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// What is done.
    pub name: &'static str,
    /// Seconds for a whole cohort.
    pub seconds: f64,
}

/// Runs an experiment to measure how long its rounds take. `root` as in [`simulate`](crate::simulate()).
///
/// # Errors
/// [`SimulationError`].
pub fn bench(
    experiment: &Experiment,
    data: &Split,
    root: &Key,
    options: &SimulationOptions,
    interrupted: &AtomicBool,
) -> Result<BenchReport, SimulationError> {
    let clients = Clients::new(experiment, &data.train)?;
    let started = Instant::now();
    for round in 1..=experiment.rounds.count {
        if let Some(cohort) = public_cohort(experiment, Round(round)) {
            clients.prepare(&cohort);
        }
    }
    let preparation = started.elapsed().as_secs_f64();
    let mut watch = Stopwatch::new();
    let options = SimulationOptions { evaluate_every: None, ..options.clone() };
    let ran = simulate_clients(experiment, &clients, data, root, &options, interrupted, &mut watch)?;
    let stages = Stages::measure(experiment, &clients, &ran.model, root)?;
    let measured = TestSet::new(&experiment.task, data.test.clone())?.measure(&ran.model);
    let measured = measured.map_err(|_| SimulationError::OutOfStep("the last model cannot be measured"))?;
    let threads = options.threads.get();
    let cohort = ran.client_updates as f64 / ran.rounds.len().max(1) as f64;
    let per_client = f64::from(experiment.task.training.local_epochs) * stages.examples / cohort.max(1.0);
    let flop = architecture(&experiment.task).training_flop() * per_client * cohort;
    let flop_per_second = flop_per_second();
    let rounds = others(&watch.rounds);
    let processor = watch.processor();
    Ok(BenchReport {
        name: experiment.name.clone(),
        threads,
        cohort,
        parameters: ran.model.len(),
        preparation,
        setup: watch.setup,
        first_round: watch.rounds.first().copied().unwrap_or_default(),
        updates_per_second: cohort / rounds.median,
        rounds,
        processor,
        flop,
        flop_per_second,
        floor: flop / flop_per_second / threads as f64,
        stages: stages.list(),
        loss: measured.loss,
        accuracy: measured.accuracy(),
        root_mean_squared_error: measured.errors().map(Errors::root_mean_squared),
        model_sha256: ran.model_sha256.to_string(),
    })
}

/// Watches when rounds end.
struct Stopwatch {
    started: Instant,
    setup: f64,
    rounds: Vec<f64>,
    /// Processor seconds of the process when rounds ended.
    used: Vec<f64>,
}

impl Stopwatch {
    fn new() -> Self {
        let started = Instant::now();
        Stopwatch { started, setup: 0.0, rounds: Vec::new(), used: Vec::new() }
    }

    /// What a round after the first takes of the processor.
    fn processor(&self) -> Option<f64> {
        let (first, last) = (self.used.first()?, self.used.last()?);
        (self.used.len() > 1).then(|| (last - first) / (self.used.len() - 1) as f64)
    }
}

/// All rounds but the first, or that one if there is no other.
fn others(seconds: &[f64]) -> Rounds {
    let mut seconds = seconds.to_vec();
    if seconds.len() > 1 {
        seconds.remove(0);
    }
    seconds.sort_by(f64::total_cmp);
    Rounds {
        count: seconds.len(),
        median: seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN),
        lowest: seconds.first().copied().unwrap_or(f64::NAN),
        highest: seconds.last().copied().unwrap_or(f64::NAN),
    }
}

/// What the threads of this process have used of the processor, in seconds, as Linux tells.
fn processor_seconds() -> Option<f64> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

impl Observer for Stopwatch {
    fn round_opened(&mut self, plan: &Plan, _: u32) {
        if plan.round == Round(1) {
            self.setup = self.started.elapsed().as_secs_f64();
            self.started = Instant::now();
        }
    }

    fn round_closed(&mut self, _: &RoundRecord, _: &Arc<Vec<f32>>) {
        self.rounds.push(self.started.elapsed().as_secs_f64());
        self.used.extend(processor_seconds());
        self.started = Instant::now();
    }
}

/// Seconds of the stages of one round.
#[derive(Default)]
struct Stages {
    data: f64,
    reset: f64,
    train: f64,
    clip: f64,
    quantise: f64,
    sum: f64,
    noise: f64,
    strategy: f64,
    /// Examples of the cohort.
    examples: f64,
}

impl Stages {
    fn measure(
        experiment: &Experiment,
        clients: &Clients,
        model: &[f32],
        root: &Key,
    ) -> Result<Self, SimulationError> {
        let round = Round(experiment.rounds.count);
        let expected = (experiment.expected_cohort().round() as u64).max(1);
        let cohort = public_cohort(experiment, round)
            .unwrap_or_else(|| (0..expected.min(experiment.population.clients)).map(ClientId).collect());
        let mut stages = Stages::default();
        let mut federation = opened(experiment, model, root)?;
        let mut learner = learner_for(&experiment.task)?;
        for &client in &cohort {
            let update =
                stages.client(experiment, clients, client, model, &mut *learner, federation.grid())?;
            timed(&mut stages.sum, || federation.commit(&update))?;
        }
        let (mut release, mut without) = (0.0, 0.0);
        timed(&mut release, || federation.release())?;
        federation.close(Outcome::Complete { updates: cohort.len() as u32 })?;
        // The strategy is what a release takes where there is no noise.
        let open = Experiment { privacy: Privacy::None, ..experiment.clone() };
        let mut federation = opened(&open, model, root)?;
        let grid = federation.grid();
        let nothing = Contribution::verify(vec![0; grid.dimension()], &grid);
        federation.commit(&nothing.map_err(|_| SimulationError::OutOfStep("zeros fit every grid"))?)?;
        timed(&mut without, || federation.release())?;
        stages.strategy = without.min(release);
        if experiment.privacy.terms().is_some() {
            stages.noise += release - stages.strategy;
        }
        Ok(stages)
    }

    /// One client from its examples to its integers.
    fn client(
        &mut self,
        experiment: &Experiment,
        clients: &Clients,
        client: ClientId,
        model: &[f32],
        learner: &mut dyn Learner,
        grid: Grid,
    ) -> Result<Contribution, SimulationError> {
        let training = training(&experiment.task, Round(1)).map_err(TaskError::from)?;
        let missing = SimulationError::OutOfStep("a client of a benchmark cannot be trained");
        let data = timed(&mut self.data, || clients.get(client)).ok_or(missing)?;
        self.examples += data.len() as f64;
        let failed = |_| SimulationError::OutOfStep("a client of a benchmark cannot be trained");
        let hidden = PrivateSteps::new(&experiment.task, data.len()).map_err(TaskError::from)?;
        let (key, parameters) = (Key::from_seed(client.0), model.len());
        let trained = timed(&mut self.train, || match hidden {
            None => learner.train(model, &data, &training, Turn::new([1; 32])).map_err(failed),
            Some(steps) => {
                let draws = steps.begin(Round(1), parameters, &key, PrgId::ChaCha20);
                let mut draws = draws.map_err(|error| SimulationError::Task(error.into()))?;
                learner
                    .train_privately(model, &data, &training, Turn::new([1; 32]), &mut draws)
                    .map_err(failed)
            }
        })?;
        if trained.steps > 1 {
            let mut reset = 0.0;
            timed(&mut reset, || drop(std::hint::black_box(model.to_vec())));
            self.reset += reset;
            self.train -= reset;
        }
        let update = trained.update;
        let misfit = SimulationError::OutOfStep("an update of a benchmark does not fit its grid");
        match grid {
            Grid::Public(grid) => {
                let quantised = timed(&mut self.quantise, || QuantizedUpdate::nearest(&update, &grid));
                quantised.map(Contribution::from).map_err(|_| misfit)
            }
            Grid::Private(grid) => self.bound(update, &grid, client).map(Contribution::from),
            Grid::Noised(grid) => {
                let bounded = self.bound(update, grid.exact(), client)?;
                let key = Key::from_seed(client.0);
                let noised = timed(&mut self.noise, || bounded.add_noise(&grid, &key, PrgId::ChaCha20));
                noised.map(Contribution::from).map_err(|_| misfit)
            }
        }
    }

    fn bound(
        &mut self,
        update: Vec<f32>,
        grid: &PrivateGrid,
        client: ClientId,
    ) -> Result<QuantizedUpdate, SimulationError> {
        let clipped = timed(&mut self.clip, || Update::clipped(update, grid.clip()));
        let clipped =
            clipped.map_err(|_| SimulationError::OutOfStep("the training of a benchmark diverged"))?;
        let mut prg = Key::from_seed(client.0).substream_of(PrgId::ChaCha20, 0);
        let quantised = timed(&mut self.quantise, || clipped.quantize(grid, &mut prg));
        quantised.map_err(|_| SimulationError::OutOfStep("an update of a benchmark does not fit its grid"))
    }

    fn list(&self) -> Vec<Stage> {
        let named = [
            ("data", self.data),
            ("reset", self.reset),
            ("train", self.train),
            ("clip", self.clip),
            ("quantise", self.quantise),
            ("sum", self.sum),
            ("noise", self.noise),
            ("strategy", self.strategy),
        ];
        named.into_iter().map(|(name, seconds)| Stage { name, seconds }).collect()
    }
}

/// A federation with an open round.
fn opened(experiment: &Experiment, model: &[f32], root: &Key) -> Result<Federation, SimulationError> {
    let mut federation = federation(experiment, model.to_vec(), root, &Place::Memory, true)?;
    let roster = Contiguous(experiment.population.clients);
    federation.plan(&roster).map_err(SimulationError::Planning)?;
    Ok(federation)
}

fn timed<R>(total: &mut f64, work: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = work();
    *total += started.elapsed().as_secs_f64();
    result
}

/// The fastest of some products of matrices that fit the cache.
fn flop_per_second() -> f64 {
    let mut fastest = 0.0_f64;
    for _ in 0..100 {
        let mut seconds = 0.0;
        let flop = timed(&mut seconds, exercise);
        fastest = fastest.max(flop / seconds);
    }
    fastest
}
