//! `skep simulate`: a federation on this machine.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use serde_json::Value;
use skep_learning::{Split, Subset, ngram};
use skep_privacy::prg::Key;
use skep_protocol::experiment::{Experiment, Predicted, Privacy, Weighting};
use skep_server::ledger::Place;
use skep_server::record::OutcomeKind;
use skep_simulations::{
    Checkpoint, CheckpointError, Checkpoints, Clients, Ended, Resume, SimulationError, SimulationOptions,
    backdoor_success, check_simulation, population, simulate_clients,
};

use crate::arguments::{Output, Simulate};
use crate::experiment_file;
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::progress::Progress;
use crate::real::{self, KeptLedger};
use crate::recorder::Recorder;
use crate::report::{self, End, Shown};
use crate::results::{self, Results};
use crate::serve::ledger_failure;
use crate::summary::{AttackSummary, Run, Summary};

/// Runs `skep simulate`; `log` is what other processes log.
///
/// # Errors
/// [`Failure`]. An exhausted budget and an interruption are failures after the results are written.
pub(crate) fn run(arguments: &Simulate, log: &str) -> Result<(), Failure> {
    let started = Instant::now();
    let experiment = experiment_file::read(arguments.file.as_deref(), arguments.data_dir.as_deref())?;
    if arguments.real {
        refuse_over_sockets(&experiment)?;
    }
    interrupt::flag()?;
    if let Some(ended) = ended_before(arguments, &experiment)? {
        return tell_ended(arguments, &ended);
    }
    let checkpoint = stopped_before(arguments, &experiment)?;
    let root = match &checkpoint {
        None => root_key(arguments.seed)?,
        Some(checkpoint) => checkpoint.root().clone(),
    };
    let data = (!arguments.real).then(|| population::data(&experiment)).transpose();
    let data = data.map_err(Failure::configuration)?;
    // Before results are replaced.
    let clients = data.as_ref().map(|data| simulated_clients(&experiment, data)).transpose()?;
    let test = match &data {
        Some(data) => data.test.clone(),
        None => population::test_data(&experiment).map_err(Failure::configuration)?,
    };
    let (results, resume) = match (&arguments.out, checkpoint) {
        (Some(out), Some(checkpoint)) => {
            let (results, records) = Results::resume(out, &experiment, checkpoint.round().0)?;
            eprintln!("going on after {}", checkpoint.round());
            (Some(results), Some(Resume { checkpoint, records }))
        }
        (Some(out), None) => (Some(Results::create(out, &experiment)?), None),
        (None, _) => (None, None),
    };
    let mut recorder = Recorder::new(
        started,
        Progress::new(experiment.rounds.count, experiment.data.predicted().metric()),
        results,
    );
    if let Some(resume) = &resume {
        recorder.knows(resume.records.clone());
    }
    let repeat = Repeat::of(arguments, &experiment);
    let ran = match (&data, &clients) {
        (Some(data), Some(clients)) => {
            in_memory(arguments, &experiment, (data, clients), &root, resume, &mut recorder)
        }
        _ => over_sockets(arguments, log, &experiment, &root, &mut recorder),
    };
    let recorded = recorder.finish()?;
    let released = recorded.records.iter().any(|record| record.outcome != OutcomeKind::Aborted);
    if matches!(&ran, Err(Failure::Usage { .. })) || (ran.is_ok() && released) {
        repeat.dismiss();
    }
    let Ran { end, run, model } = ran?;
    let mut summary = Summary::new(&experiment, &test, &recorded.records, &recorded.pace, run);
    let clients = match (clients, &experiment.privacy, &arguments.out) {
        (None, Privacy::Examples { .. }, _) | (None, _, Some(_)) => Some(clients_of(&experiment)?),
        (clients, ..) => clients,
    };
    if let (Privacy::Examples { .. }, Some(clients)) = (&experiment.privacy, &clients) {
        let rounds = recorded.records.len() as u64;
        summary.cost = summary.cost.with_examples(&experiment, clients, rounds)?;
    }
    if let (Some(data), true) = (&data, experiment.data.predicted() == Predicted::Word) {
        summary.ngram_perplexity = ngram::perplexity(&data.train, &test, report::NGRAM);
    }
    let kept = clients.filter(|_| arguments.out.is_some());
    let simulated_clients = kept.and_then(|clients| clients.label_counts(&experiment));
    let shown = Shown { test, simulated_clients };
    report::finish(&experiment, recorded, summary, model, shown, arguments.output, end)
}

/// Who has which examples of a simulation in memory, if it finds everything that it needs.
fn simulated_clients(experiment: &Experiment, data: &Split) -> Result<Clients, Failure> {
    check_simulation(experiment).map_err(failure)?;
    Clients::new(experiment, &data.train).map_err(|error| failure(error.into()))
}

/// Who has which examples, where other processes have them.
fn clients_of(experiment: &Experiment) -> Result<Clients, Failure> {
    let data = population::data(experiment).map_err(Failure::configuration)?;
    Clients::new(experiment, &data.train).map_err(Failure::configuration)
}

/// Says how to repeat a run that fails, by an error or a panic.
struct Repeat(Option<String>);

impl Repeat {
    fn of(arguments: &Simulate, experiment: &Experiment) -> Self {
        let public = format!("seed = {} in the experiment file", experiment.seed);
        Repeat((!arguments.real).then(|| match arguments.seed {
            Some(seed) => format!("--seed {seed}, with {public}, repeats this run"),
            None => format!(
                "{public} repeats data, devices, availability and faults; --seed N fixes cohorts, rounding and noise, too"
            ),
        }))
    }

    fn dismiss(mut self) {
        self.0 = None;
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if let Some(how) = &self.0 {
            eprintln!("to repeat: {how}");
        }
    }
}

/// Only a simulation has its clients at hand.
///
/// # Errors
/// [`Failure::Usage`].
pub(crate) fn refuse_simulated_evaluation(experiment: &Experiment) -> Result<(), Failure> {
    let evaluation = &experiment.evaluation;
    let (problem, help) = if evaluation.validation.is_some() {
        (
            "evaluation.validation is of simulations in memory: it is taken out of what their clients share, and real ones share nothing",
            "take it out of [evaluation]; a server measures its models on its own examples, which task.data names as `test`",
        )
    } else if evaluation.clients.is_some() {
        (
            "evaluation.clients and fine_tune_epochs are of simulations in memory",
            "take them out of [evaluation]; a server measures its models on its own examples, and in [evaluation.query] clients say with \
             noise how good they are on theirs",
        )
    } else {
        return Ok(());
    };
    Err(Failure::Usage { problem: problem.to_owned(), help: Some(help.to_owned()) })
}

/// What came of it.
struct Ran {
    end: End,
    run: Run,
    model: Vec<f32>,
}

fn in_memory(
    arguments: &Simulate,
    experiment: &Experiment,
    (data, clients): (&Split, &Clients),
    root: &Key,
    resume: Option<Resume>,
    recorder: &mut Recorder,
) -> Result<Ran, Failure> {
    let ledger = ledger_place(arguments, experiment);
    let checkpoints = arguments.out.as_ref().map(|out| Checkpoints {
        path: out.join(results::CHECKPOINT),
        before: [Some(out.join("rounds.jsonl")), kept(&ledger)].into_iter().flatten().collect(),
        seed: arguments.seed,
    });
    let options = SimulationOptions {
        ledger,
        seeded: arguments.seed.is_some(),
        checkpoints,
        resume,
        ..SimulationOptions::new(threads(arguments.threads))
    };
    let ran = simulate_clients(experiment, clients, data, root, &options, interrupt::flag()?, recorder)
        .map_err(failure)?;
    let end = match ran.ended {
        Ended::Finished => End::Finished,
        Ended::BudgetExhausted(exhausted) => End::BudgetExhausted(exhausted.into()),
        Ended::StoppedEarly => End::StoppedEarly,
        Ended::Interrupted => End::Interrupted,
    };
    let run = Run {
        ended: end.name(),
        transport: "memory",
        processes: 1,
        noise_seeded: arguments.seed.is_some(),
        model: ran.model_sha256,
        attack: attack_summary(experiment, &data.test, &ran.model)?,
        checkpoint: ran.checkpoint,
        bytes_up: ran.bytes_up,
        bytes_down: ran.bytes_down,
        peak_rss_bytes: machine::peak_rss_bytes(),
        virtual_seconds: Some(ran.virtual_time.as_millis() as f64 / 1000.0),
        masks: Some(ran.masks),
    };
    Ok(Ran { end, run, model: ran.model.to_vec() })
}

/// Refuses what clients of real federations do not do.
///
/// # Errors
/// [`Failure::Usage`] with the reason.
pub(crate) fn refuse_over_sockets(experiment: &Experiment) -> Result<(), Failure> {
    let (problem, help) = if experiment.strategy.weighting() == Weighting::Controlled {
        (
            "strategy.kind \"scaffold\" runs in memory only: a client over sockets keeps no control variate between rounds",
            "use `skep simulate` without --real, or \"fedavg\" with task.training.proximal",
        )
    } else if experiment.strategy.buffering.is_some() {
        (
            "strategy.kind \"fedbuff\" runs in memory only: a server over sockets invites a cohort and waits for it",
            "use `skep simulate` without --real, or \"fedavg\"",
        )
    } else if !experiment.simulation.private_layers.is_empty() {
        (
            "simulation.private_layers is of simulations in memory: a client over sockets keeps no layers between rounds",
            "remove it, or use `skep simulate` without --real",
        )
    } else if experiment.attack.is_some() {
        (
            "simulation.attack is of simulations in memory: over sockets nobody is corrupt",
            "remove [simulation.attack], or use `skep simulate` without --real",
        )
    } else {
        return Ok(());
    };
    Err(Failure::Usage { problem: problem.to_owned(), help: Some(help.to_owned()) })
}

fn attack_summary(
    experiment: &Experiment,
    test: &Subset,
    model: &[f32],
) -> Result<Option<AttackSummary>, Failure> {
    let Some(attack) = &experiment.attack else { return Ok(None) };
    Ok(Some(AttackSummary {
        kind: attack.name(),
        corrupt_clients: attack.corrupt(experiment.population.clients),
        success_rate: backdoor_success(experiment, test, model).map_err(failure)?,
    }))
}

fn over_sockets(
    arguments: &Simulate,
    log: &str,
    experiment: &Experiment,
    root: &Key,
    recorder: &mut Recorder,
) -> Result<Ran, Failure> {
    if !experiment.simulation.is_ideal() {
        return Err(Failure::Usage {
            problem: "--real: this experiment says in [simulation] how clients behave, and real ones behave as they do"
                .to_owned(),
            help: Some("leave out --real, or take devices, availability and faults out of [simulation]".to_owned()),
        });
    }
    refuse_simulated_evaluation(experiment)?;
    let processes = usize::from(arguments.processes.unwrap_or(PROCESSES));
    let division = real::Division { processes, threads: threads(arguments.threads), log };
    let ledger = KeptLedger { place: ledger_place(arguments, experiment), seeded: arguments.seed.is_some() };
    let ran = real::run(experiment, root, &ledger, division, recorder)?;
    let run = Run {
        ended: ran.end.name(),
        transport: "sockets",
        processes: ran.processes,
        noise_seeded: arguments.seed.is_some(),
        model: ran.model_sha256,
        attack: None,
        checkpoint: ran.checkpoint,
        bytes_up: ran.bytes_up,
        bytes_down: ran.bytes_down,
        peak_rss_bytes: ran.peak_rss_bytes,
        virtual_seconds: None,
        masks: Some(ran.masks),
    };
    Ok(Ran { end: ran.end, run, model: ran.model })
}

/// What is left of a run into the same directory that was stopped, if this one goes on with it.
fn stopped_before(arguments: &Simulate, experiment: &Experiment) -> Result<Option<Checkpoint>, Failure> {
    let Some(out) = arguments.out.as_deref().filter(|_| arguments.resume) else { return Ok(None) };
    Checkpoint::read(&out.join(results::CHECKPOINT), experiment, arguments.seed).map_err(
        |error| match error {
            CheckpointError::Other { .. } => Failure::configuration(error),
            error => Failure::other(error),
        },
    )
}

/// The summary of a run that needs no `--resume`: it has ended.
fn ended_before(arguments: &Simulate, experiment: &Experiment) -> Result<Option<Value>, Failure> {
    let Some(out) = arguments.out.as_deref().filter(|_| arguments.resume) else { return Ok(None) };
    let Some(summary) = results::summary(out)? else { return Ok(None) };
    if out.join(results::CHECKPOINT).exists() {
        return Ok(None);
    }
    match results::is_of(out, experiment) {
        true => Ok(Some(summary)),
        false => Err(Failure::Usage {
            problem: format!("--out {}: the run here has ended, and is another one", out.display()),
            help: Some("name another directory, or leave out --resume to replace it".to_owned()),
        }),
    }
}

fn tell_ended(arguments: &Simulate, summary: &Value) -> Result<(), Failure> {
    eprintln!("nothing is left to do: this run has ended ({})", summary["ended"]);
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string(summary).map_err(Failure::other)?);
    }
    Ok(())
}

/// The file of a ledger.
fn kept(ledger: &Place) -> Option<PathBuf> {
    match ledger {
        Place::Memory => None,
        Place::PerRun(path) | Place::Shared(path) => Some(path.clone()),
    }
}

/// The ledger that the experiment names, or one among the results.
fn ledger_place(arguments: &Simulate, experiment: &Experiment) -> Place {
    match (&experiment.population.ledger, &arguments.out) {
        (Some(path), _) => Place::Shared(path.into()),
        (None, Some(out)) => Place::PerRun(out.join("ledger.skep")),
        (None, None) => Place::Memory,
    }
}

/// The root of every secret draw: from the operating system, unless the user gives the result's privacy away.
///
/// # Errors
/// [`Failure::Other`] when the system gives no key.
pub(crate) fn root_key(seed: Option<u64>) -> Result<Key, Failure> {
    match seed {
        Some(seed) => Ok(Key::from_seed(seed)),
        None => Key::from_os().map_err(Failure::other),
    }
}

/// Threads that were asked for, or all.
pub(crate) fn threads(asked: Option<NonZeroUsize>) -> NonZeroUsize {
    asked.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

fn failure(error: SimulationError) -> Failure {
    match error {
        SimulationError::Partition(_)
        | SimulationError::Model(_)
        | SimulationError::Task(_)
        | SimulationError::PrivateLayers { .. }
        | SimulationError::Trace(_)
        | SimulationError::Federation(_) => Failure::Usage { problem: error.to_string(), help: None },
        SimulationError::Ledger(error) => ledger_failure(error),
        error => Failure::other(error),
    }
}

/// Processes of clients, unless the user says otherwise.
const PROCESSES: u16 = 2;
