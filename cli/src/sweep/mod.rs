//! `skep simulate --sweep`: many runs of one experiment, with different values of some keys.
//!
//! Every run is a process of its own, `skep simulate RUN.toml --out RUN --resume`, so that each is what it would be alone and
//! a sweep that was stopped goes on.

mod plan;
mod table;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::arguments::{Output, Simulate};
use crate::experiment_file;
use crate::failure::Failure;
use crate::interrupt;
use crate::results;
use crate::simulate::threads;
use plan::Planned;

/// How a run ended.
#[derive(Clone, Debug)]
pub(super) struct Ran {
    planned: Planned,
    directory: PathBuf,
    /// Its summary, or why there is none.
    summary: Result<Value, String>,
}

/// Runs `skep simulate --sweep`.
///
/// # Errors
/// [`Failure`]: when the sweep makes no sense, a run fails, or the user interrupts.
pub(crate) fn run(arguments: &Simulate) -> Result<(), Failure> {
    let (Some(file), Some(out)) = (&arguments.file, &arguments.out) else {
        return Err(Failure::Usage {
            problem: "--sweep needs an experiment file and --out DIR".to_owned(),
            help: None,
        });
    };
    let runs = plan::read(file, arguments.data_dir.as_deref())?;
    let interrupted = interrupt::flag()?;
    prepare(out, &runs, arguments.resume)?;
    let shared = runs.iter().any(|run| run.experiment.population.ledger.is_some());
    let available = threads(arguments.threads).get();
    // A ledger has one writer at a time.
    let jobs = if shared { 1 } else { available.min(runs.len()) };
    let each = (available / jobs).max(1);
    eprintln!("{} runs, {jobs} at a time", runs.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while !interrupted.load(Ordering::Relaxed)
            && let Some(planned) = runs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            wait_for_others(&directory(out, planned), planned.number, interrupted);
            let ran = one(arguments, planned, out, each);
            eprintln!("{}", table::line(&ran, runs.len()));
            done.push(ran);
        }
        done
    };
    let mut ran: Vec<Ran> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    ran.sort_by_key(|ran| ran.planned.number);
    let json = table::json(&ran);
    let path = out.join("sweep.json");
    fs::write(&path, format!("{json:#}\n")).map_err(|error| Failure::file(&path, error))?;
    match arguments.output {
        Output::Json => println!("{json}"),
        Output::Text => print!("{}", table::text(&ran)),
    }
    let failed = ran.iter().filter(|ran| ran.summary.is_err()).count();
    if interrupted.load(Ordering::Relaxed) {
        return Err(Failure::Interrupted(format!(
            "interrupted: {} of {} runs have ended; --resume goes on",
            ran.len() - failed,
            runs.len()
        )));
    }
    match failed {
        0 => Ok(()),
        failed => {
            Err(Failure::Other(format!("{failed} of {} runs failed; what they said is above", runs.len())))
        }
    }
}

/// Makes the directory and writes an experiment file for each run.
fn prepare(out: &Path, runs: &[Planned], resume: bool) -> Result<(), Failure> {
    let fail = |error| Failure::file(out, error);
    fs::create_dir_all(out).map_err(fail)?;
    if !resume && fs::read_dir(out).map_err(fail)?.next().is_some() {
        return Err(Failure::Usage {
            problem: format!("--out {}: the directory is not empty", out.display()),
            help: Some("go on with a sweep that was stopped by --resume, or name a new directory".to_owned()),
        });
    }
    for run in runs {
        let (path, text) = (plan::file(out, run.number), experiment_file::to_toml(&run.experiment));
        match fs::read_to_string(&path) {
            Ok(there) if there != text => {
                return Err(Failure::Usage {
                    problem: format!("{}: this is another sweep's run", path.display()),
                    help: Some(
                        "name a new directory, or give the experiment file of the sweep that was stopped"
                            .to_owned(),
                    ),
                });
            }
            Ok(_) => {}
            Err(_) => fs::write(&path, text).map_err(|error| Failure::file(&path, error))?,
        }
    }
    Ok(())
}

fn directory(out: &Path, planned: &Planned) -> PathBuf {
    out.join(format!("{:04}", planned.number))
}

/// A sweep that was killed has left its runs to themselves, and they go on.
fn wait_for_others(directory: &Path, number: usize, interrupted: &AtomicBool) {
    let mut told = false;
    while results::is_being_written(directory) && !interrupted.load(Ordering::Relaxed) {
        if !std::mem::replace(&mut told, true) {
            eprintln!("run {number} is still on its way in another process: waiting for it");
        }
        thread::sleep(WAIT);
    }
}

fn one(arguments: &Simulate, planned: &Planned, out: &Path, threads: usize) -> Ran {
    let directory = directory(out, planned);
    let ended = start(arguments, &plan::file(out, planned.number), &directory, threads)
        .map_err(|error| format!("the process cannot be started: {error}"))
        .and_then(end);
    // A budget that is exhausted, or rounds without a model, are results.
    let summary = results::summary(&directory).map_err(|error| error.to_string());
    let summary = match (ended, summary) {
        (Ok(0 | 3 | 4), Ok(Some(summary))) => Ok(summary),
        (Ok(code), Ok(_)) => Err(format!("it ended with exit code {code}")),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    Ran { planned: planned.clone(), directory, summary }
}

fn start(arguments: &Simulate, file: &Path, out: &Path, threads: usize) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("simulate").arg(file).arg("--out").arg(out).arg("--resume");
    command.args(["--threads", &threads.to_string(), "--output", "json"]);
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// Waits for a process; what it said last is told if it failed.
fn end(mut child: Child) -> Result<i32, String> {
    let mut last = std::collections::VecDeque::new();
    if let Some(err) = child.stderr.take() {
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            last.push_back(line);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match status.code() {
        Some(code @ (0 | 3 | 4 | 130)) => Ok(code),
        _ => Err(format!("{status}\n{}", last.into_iter().collect::<Vec<_>>().join("\n"))),
    }
}

const WAIT: Duration = Duration::from_millis(100);
/// Of what a failed run said.
const LAST_LINES: usize = 12;
