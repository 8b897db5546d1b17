//! `skep serve`: a federation's server for clients anywhere.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skep_learning::Subset;
use skep_privacy::ledger::{Auditor, Hash, Ledger};
use skep_protocol::experiment::Experiment;
use skep_protocol::net::invitation::{Address, unix_millis};
use skep_server::authority::{Authority, CLIENT_VALIDITY};
use skep_server::enrolment::Enrolment;
use skep_server::federation::{Federation, PlanningError, ServerKeys};
use skep_server::ledger;
use skep_server::roster::Contiguous;
use skep_server::serve::{self, Deployment, ServeError, ServeOptions, ServeReport};
use skep_simulations::{TestSet, population};
use tokio::net::TcpListener;

use crate::arguments::Serve;
use crate::experiment_file;
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::operator_log::OperatorLog;
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::report::{self, End, Shown};
use crate::results::Results;
use crate::server_state;
use crate::simulate::{refuse_over_sockets, refuse_simulated_evaluation};
use crate::status::Board;
use crate::summary::{Run, Summary};

/// Runs `skep serve`.
///
/// # Errors
/// [`Failure`]. An exhausted budget and an interruption are failures after the results are written.
pub(crate) fn run(arguments: &Serve) -> Result<(), Failure> {
    let started = Instant::now();
    let experiment = experiment_file::read(Some(&arguments.file), arguments.data_dir.as_deref())?;
    refuse_simulated_evaluation(&experiment)?;
    refuse_over_sockets(&experiment)?;
    let test = population::test_data(&experiment).map_err(Failure::configuration)?;
    let _lock = server_state::lock(&arguments.state)?;
    let authority = Authority::open(&arguments.state).map_err(Failure::other)?;
    if authority.is_apart() && arguments.certificates_for.is_some() {
        return Err(Failure::Usage {
            problem: "--certificates-for: this server's authority is apart, and signs all certificates"
                .to_owned(),
            help: Some("leave it out; `skep ca sign` and `skep ca renew` have it".to_owned()),
        });
    }
    let ledger = kept_ledger(&experiment, &authority, arguments)?;
    let mut deployment =
        deployment(&experiment, &test, ServerKeys::from_os(), authority, ledger, &arguments.state)?;
    let mut journal = server_state::journal(&arguments.state, &experiment)?;
    let earlier = journal.restore(&mut deployment.federation).map_err(Failure::other)?;
    deployment.journal = Some(journal);
    let bytes_before = earlier
        .iter()
        .map(|record| record.bytes())
        .fold((0, 0), |(up, down), (more_up, more_down)| (up + more_up, down + more_down));
    let results = Results::create(&arguments.out, &experiment)?;
    interrupt::flag()?;
    let mut recorder = Recorder::new(
        started,
        Progress::new(experiment.rounds.count, experiment.data.predicted().metric()),
        Some(results),
    );
    recorder.go_on_after(earlier)?;
    let served = serve(arguments, &experiment, deployment, &mut recorder);
    let recorded = recorder.finish()?;
    let served = served?;
    let end = End::from(&served.end);
    let run = Run {
        attack: None,
        ended: end.name(),
        transport: "sockets",
        processes: 1,
        noise_seeded: false,
        model: served.federation.model_digest(),
        checkpoint: served.federation.ledger().note(),
        bytes_up: bytes_before.0 + served.bytes_up,
        bytes_down: bytes_before.1 + served.bytes_down,
        peak_rss_bytes: machine::peak_rss_bytes(),
        virtual_seconds: None,
        masks: None,
    };
    let summary = Summary::new(&experiment, &test, &recorded.records, &recorded.pace, run);
    let shown = Shown { test, simulated_clients: None };
    let model = served.federation.model().to_vec();
    report::finish(&experiment, recorded, summary, model, shown, arguments.output, end)
}

/// Serves the rounds that are left, if any.
fn serve(
    arguments: &Serve,
    experiment: &Experiment,
    deployment: Deployment,
    recorder: &mut Recorder,
) -> Result<ServeReport, Failure> {
    let (done, rounds) = (deployment.federation.round(), experiment.rounds.count);
    if done.0 >= rounds {
        eprintln!("all {rounds} rounds have been run before; clients that were there may still hear of it");
    } else if done.0 > 0 {
        eprintln!("going on after {done} of {rounds}");
    }
    let (log, is_apart) = (OperatorLog::open(&arguments.state)?, deployment.authority.is_apart());
    runtime()?.block_on(async {
        let (listener, addresses) = listen(arguments, is_apart).await?;
        let options = options(arguments, experiment, done.0 >= rounds);
        let mut board = Board::new(recorder, log, &deployment.federation, addresses, options.wait_for);
        let keeper = tokio::spawn(board.keeper(arguments.state.clone()));
        let served = serve::serve(deployment, listener, options, &mut board, interrupt::wait()).await;
        drop(board);
        let _ = keeper.await;
        served.map_err(failure)
    })
}

/// What a server needs, which measures with `test`: the clients of the experiment are numbered from 0.
///
/// # Errors
/// [`Failure`] when the federation cannot be set up or the state directory cannot be used.
pub(crate) fn deployment(
    experiment: &Experiment,
    test: &Subset,
    keys: ServerKeys,
    authority: Authority,
    ledger: Ledger,
    state: &Path,
) -> Result<Deployment, Failure> {
    let enrolment = Enrolment::open(state).map_err(Failure::other)?;
    let federation = Federation::new(
        experiment.clone(),
        population::segments(experiment),
        population::initial_model(experiment).map_err(Failure::configuration)?,
        ledger,
        keys,
    )
    .map_err(Failure::configuration)?;
    Ok(Deployment {
        federation,
        roster: Arc::new(Contiguous(experiment.population.clients)),
        evaluator: Some(Box::new(
            TestSet::new(&experiment.task, test.clone()).map_err(Failure::configuration)?,
        )),
        authority: Arc::new(authority),
        enrolment,
        journal: None,
    })
}

/// The ledger in the state directory, begun on the first start. What it was charged before counts.
fn kept_ledger(experiment: &Experiment, authority: &Authority, arguments: &Serve) -> Result<Ledger, Failure> {
    let state = &arguments.state;
    if experiment.population.ledger.is_some() {
        return Err(Failure::Usage {
            problem: "population.ledger is for simulations: a server keeps its ledger in its state directory"
                .to_owned(),
            help: Some("remove population.ledger".to_owned()),
        });
    }
    let federation = Hash(authority.fingerprint().0);
    let auditor = arguments.auditor.zip(arguments.auditor_days).map(|(key, days)| {
        let expires_ms = unix_millis(SystemTime::now()).saturating_add(days * 86_400_000);
        Auditor { key, expires_ms }
    });
    let ledger =
        ledger::open(&state.join(LEDGER), experiment, federation, auditor).map_err(ledger_failure)?;
    let kept = ledger.state().genesis().auditor;
    if auditor.is_some() && kept.map(|kept| kept.key) != auditor.map(|auditor| auditor.key) {
        return Err(Failure::Usage {
            problem: "the ledger has begun without this auditor, and its first record cannot change"
                .to_owned(),
            help: Some("leave out --auditor, or begin with another state directory".to_owned()),
        });
    }
    Ok(ledger)
}

/// Which failure it is that there is no ledger.
pub(crate) fn ledger_failure(error: ledger::OpenError) -> Failure {
    match error {
        ledger::OpenError::Federation(_) | ledger::OpenError::Seeded { .. } => Failure::configuration(error),
        error => Failure::other(error),
    }
}

/// Which failure a server's error is.
pub(crate) fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::NotEnoughClients { .. } => Failure::NotEnoughClients(error.to_string()),
        ServeError::Planning(
            PlanningError::TooFewLeft { .. }
            | PlanningError::TooFewMayTakePart { .. }
            | PlanningError::Participation { .. },
        ) => Failure::NotEnoughClients(error.to_string()),
        ServeError::Planning(PlanningError::Budget(exhausted)) => exhausted.into(),
        ServeError::Authority(_) => Failure::Peer(error.to_string()),
        error => Failure::other(error),
    }
}

/// The runtime of a single client: one thread for its connection, beside the one that trains.
///
/// # Errors
/// [`Failure::Other`] when the system gives no threads.
pub(crate) fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(Failure::other)
}

/// The runtime of everything that has sockets.
///
/// # Errors
/// [`Failure::Other`] when the system gives no threads.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)
}

async fn listen(arguments: &Serve, is_apart: bool) -> Result<(TcpListener, Vec<Address>), Failure> {
    let wrong = |error: std::io::Error| Failure::Usage {
        problem: format!("--listen {}: {error}", arguments.listen),
        help: None,
    };
    let listener = TcpListener::bind(arguments.listen).await.map_err(wrong)?;
    let local = listener.local_addr().map_err(wrong)?;
    let addresses: Vec<Address> =
        if arguments.advertise.is_empty() { vec![local.into()] } else { arguments.advertise.clone() };
    server_state::remember_addresses(&arguments.state, &addresses)?;
    let lets_in = match is_apart {
        true => "`skep ca sign`, where the authority is, lets clients in".to_owned(),
        false => format!("`skep invite --state {}` makes invitations", arguments.state.display()),
    };
    eprintln!("listening on {local}; {lets_in}");
    Ok((listener, addresses))
}

fn options(arguments: &Serve, experiment: &Experiment, is_over: bool) -> ServeOptions {
    let everyone = usize::try_from(experiment.population.clients).unwrap_or(usize::MAX);
    let wait_for = arguments.wait_for.map_or(everyone, usize::from);
    if is_over {
        // Nobody is waited for but those who were there, for as long as they take to come back.
        return ServeOptions { linger: COMING_BACK, ..ServeOptions::new(0) };
    }
    ServeOptions {
        wait_timeout: Duration::from_secs(arguments.wait_s),
        certificate_validity: arguments.certificates_for.unwrap_or(CLIENT_VALIDITY),
        ..ServeOptions::new(wait_for)
    }
}

/// Longer than the longest wait of a client before it connects again.
const COMING_BACK: Duration = Duration::from_secs(60);
/// The ledger's name in the state directory.
const LEDGER: &str = "ledger.skep";
