//! From an experiment to its report.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::atomic::AtomicBool;

use skep_client::masking::Masks;
use skep_learning::Split;
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::Time;
use skep_protocol::experiment::{Experiment, Fidelity};
use skep_protocol::round::server::{Limits, ServerMachine};
use skep_server::federation::{Federation, ServerKeys};
use skep_server::ledger::{self, Place};
use skep_server::record::Observer;
use skep_server::serve::ServeOptions;

use crate::attack::Corrupt;
use crate::availability::Schedule;
use crate::buffer::Buffer;
use crate::checkpoint::{Checkpoint, Checkpoints, Resume};
use crate::clients::Clients;
use crate::error::SimulationError;
use crate::fault::{Fault, Script};
use crate::held_out::{Panel, hold_out};
use crate::network::Network;
use crate::participants::Participants;
use crate::population;
use crate::private_layers::PrivateLayers;
use crate::round::World;
use crate::schedule::{self, SimulationReport};
use crate::test_set::TestSet;
use crate::workers::{Trainer, Workers};

/// How a simulation is run. [`SimulationOptions::threads`] has no influence on its results, and
/// [`SimulationOptions::evaluate_every`] none on its models.
#[derive(Clone, Debug)]
pub struct SimulationOptions {
    /// Threads that train, and compute what clients say.
    pub threads: NonZeroUsize,
    /// After how many rounds the model is measured, and after the last; never if not given.
    pub evaluate_every: Option<NonZeroU64>,
    /// What goes wrong beside what the experiment says.
    pub faults: Vec<Fault>,
    /// The server's limits.
    pub limits: Limits,
    /// Where the ledger is kept.
    pub ledger: Place,
    /// Whether others know what `root` follows from; the ledger then certifies nothing.
    pub seeded: bool,
    /// Where the simulation is kept between rounds, for another process to go on from.
    pub checkpoints: Option<Checkpoints>,
    /// Where it goes on, if it was stopped before.
    pub resume: Option<Resume>,
}

impl SimulationOptions {
    /// Nothing goes wrong that the experiment does not say, with the usual limits of a server and a ledger that is not kept.
    pub fn new(threads: NonZeroUsize) -> Self {
        let limits = ServeOptions::new(0).limits;
        let evaluate_every = Some(NonZeroU64::MIN);
        SimulationOptions {
            threads,
            evaluate_every,
            faults: Vec::new(),
            limits,
            ledger: Place::Memory,
            seeded: false,
            checkpoints: None,
            resume: None,
        }
    }
}

/// Runs an experiment in this process, with the machines, the aggregation and the training of a real federation.
///
/// Everything follows from experiment, data, `root` and options, on any number of threads; only
/// [`SimulationReport::seconds`] does not. A root from the operating system keeps the privacy that the records state;
/// one from a seed gives it away to whoever knows the seed. Set `interrupted` to end the simulation early with what it
/// has; it is looked at between events.
///
/// # Errors
/// [`SimulationError`]. An exhausted budget is none: the rounds before it stand, see
/// [`Ended`](crate::Ended::BudgetExhausted).
pub fn simulate(
    experiment: &Experiment,
    data: &Split,
    root: &Key,
    options: &SimulationOptions,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<SimulationReport, SimulationError> {
    let clients = Clients::new(experiment, &data.train)?;
    simulate_clients(experiment, &clients, data, root, options, interrupted, observer)
}

/// Whether a simulation in memory finds what it needs beside its data: the layers that clients keep to themselves, and the trace of
/// who can be reached.
///
/// # Errors
/// [`SimulationError::PrivateLayers`], [`SimulationError::Trace`].
pub fn check_simulation(experiment: &Experiment) -> Result<(), SimulationError> {
    PrivateLayers::of(experiment)?;
    let key = Key::from_seed(experiment.seed);
    Schedule::new(&experiment.simulation.availability, &key, experiment.population.clients)?;
    Ok(())
}

/// A federation whose keys follow from `root`, before its first round; whether others know what `root` follows from is `seeded`.
pub(crate) fn federation(
    experiment: &Experiment,
    model: Vec<f32>,
    root: &Key,
    place: &Place,
    seeded: bool,
) -> Result<Federation, SimulationError> {
    let ledger = ledger::simulated(place, experiment, &root.derive(Purpose::Ledger, 0, 0), seeded)?;
    let segments = population::segments(experiment);
    Ok(Federation::new(experiment.clone(), segments, model, ledger, ServerKeys::from_root(root))?)
}

/// The federation at a checkpoint.
fn resumed(
    experiment: &Experiment,
    root: &Key,
    options: &SimulationOptions,
    checkpoint: &Checkpoint,
) -> Result<Federation, SimulationError> {
    let key = root.derive(Purpose::Ledger, 0, 0);
    let ledger = ledger::resumed(&options.ledger, &key, options.seeded, &checkpoint.ledger)?;
    let (segments, model) = (population::segments(experiment), checkpoint.model.to_vec());
    let keys = ServerKeys::from_root(root);
    let mut federation = Federation::new(experiment.clone(), segments, model.clone(), ledger, keys)?;
    federation.resume(checkpoint.round(), model, checkpoint.strategy.clone())?;
    Ok(federation)
}

/// [`simulate`] with clients that are there already: those of the data.
///
/// # Errors
/// As for [`simulate`].
pub fn simulate_clients(
    experiment: &Experiment,
    clients: &Clients,
    data: &Split,
    root: &Key,
    options: &SimulationOptions,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<SimulationReport, SimulationError> {
    let participants =
        Participants::new(&experiment.task, clients, root)?.with_corrupt(Corrupt::of(experiment));
    let memory = options.resume.as_ref().map(|resume| resume.checkpoint.memory.clone()).unwrap_or_default();
    let participants = participants.holding_out(hold_out(experiment)).remembering(experiment, memory)?;
    let mut panel = Panel::of(experiment, clients, options.threads.get())?;
    let mut test_set = TestSet::deciding(&experiment.task, data)?;
    let federation = match &options.resume {
        None => {
            let model = population::initial_model(experiment)?;
            federation(experiment, model, root, &options.ledger, options.seeded)?
        }
        Some(resume) => resumed(experiment, root, options, &resume.checkpoint)?,
    };
    with_world(federation, root, &participants, options, interrupted, |world| {
        schedule::run(world, &mut test_set, panel.as_mut(), observer)
    })
}

/// Calls `run` with a world at time zero, or where it is resumed.
pub(crate) fn with_world<T: Trainer>(
    federation: Federation,
    root: &Key,
    trainer: &T,
    options: &SimulationOptions,
    interrupted: &AtomicBool,
    run: impl FnOnce(World<'_, T>) -> Result<SimulationReport, SimulationError>,
) -> Result<SimulationReport, SimulationError> {
    let experiment = federation.experiment().clone();
    let (public, clients) = (Key::from_seed(experiment.seed), experiment.population.clients);
    let (realism, masked) = (&experiment.simulation, experiment.masking().is_some());
    let script = Script::new(&realism.faults, &options.faults, &public, masked, clients)?;
    let presence = Schedule::new(&realism.availability, &public, clients)?;
    let (now, masks, done) = match &options.resume {
        None => (Time::ZERO, Masks::default(), Vec::new()),
        Some(Resume { checkpoint, records }) => (checkpoint.now, checkpoint.masks, records.clone()),
    };
    let mut buffer = Buffer::of(&experiment);
    if let (Some(buffer), Some(resume)) = (&mut buffer, &options.resume) {
        buffer.resume(&resume.checkpoint.buffer).map_err(SimulationError::Buffer)?;
    }
    let dimension = federation.grid().dimension();
    Workers::with(trainer, options.threads.get(), dimension, |workers| {
        run(World {
            task: &experiment.task,
            workers,
            trainer,
            devices: &realism.devices,
            public,
            presence,
            script,
            interrupted,
            evaluate_every: options.evaluate_every,
            federation,
            machine: ServerMachine::new(options.limits),
            network: Network::new(),
            now,
            connections: 0,
            computes_masks: experiment.fidelity == Fidelity::Protocol,
            threads: options.threads.get(),
            root: root.clone(),
            masks,
            done,
            buffer,
            checkpoints: options.checkpoints.clone(),
        })
    })
}
