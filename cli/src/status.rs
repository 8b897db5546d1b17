//! `skep status`: what a server is doing, from the file that it keeps up to date.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_privacy::adversary::Adversary;
use skep_protocol::experiment::{Experiment, Metric};
use skep_protocol::net::invitation::Address;
use skep_protocol::plan::Plan;
use skep_protocol::round::Progress;
use skep_protocol::{ClientId, Round};
use skep_server::federation::Federation;
use skep_server::record::{Observer, RoundRecord};
use skep_server::status::{Doing, Status};
use tokio::sync::watch;

use crate::arguments::{self, Output};
use crate::clock;
use crate::cost::{released, seen_of_groups};
use crate::failure::Failure;
use crate::metric_words::named;
use crate::operator_log::OperatorLog;
use crate::recorder::Recorder;
use crate::server_state;

/// The contents of `status.json`. For the operator: it holds sizes of cohorts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerStatus {
    /// Whether a server is running on the state directory; `skep status` looks when it is asked.
    pub(crate) running: bool,
    pid: u32,
    /// When the server started, and when it last wrote this, in seconds since 1970.
    pub(crate) started: u64,
    updated: u64,
    addresses: Vec<Address>,
    experiment: String,
    mode: String,
    population: u64,
    rounds: u64,
    server: Status,
    /// Charged so far against recipients of models, the open round included.
    epsilon_release: Option<f64>,
    epsilon_limit: Option<f64>,
    epsilon_server: Option<f64>,
    epsilon_server_absent: Option<String>,
    epsilon_alone: Option<f64>,
    /// What rounds release of their groups, if they have any.
    #[serde(default)]
    released: Option<String>,
    delta: Option<f64>,
    last: Option<LastRound>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastRound {
    round: Round,
    detail: String,
    /// How many clients were refused or declined, by reason.
    #[serde(default)]
    left_out: BTreeMap<String, u32>,
    accuracy: Option<f64>,
    loss: Option<f64>,
    /// What is measured first of all, and what it is.
    #[serde(default = "accuracy")]
    metric: Metric,
    #[serde(default)]
    value: Option<f64>,
    seconds: f64,
}

fn accuracy() -> Metric {
    Metric::Accuracy
}

impl LastRound {
    fn new(record: &RoundRecord, metric: Metric) -> Self {
        LastRound {
            round: record.round,
            detail: record.detail.clone(),
            left_out: record.losses().collect(),
            accuracy: record.accuracy,
            loss: record.loss,
            metric,
            value: record.value(metric),
            seconds: record.seconds,
        }
    }
}

/// Runs `skep status`.
///
/// # Errors
/// [`Failure`] when the directory is no server's, or cannot be read.
pub(crate) fn run(arguments: &arguments::Status) -> Result<(), Failure> {
    server_state::must_be_one(&arguments.state)?;
    let status = read(&arguments.state)?;
    match (arguments.output, status) {
        (Output::Json, status) => println!("{}", serde_json::to_string(&status).map_err(Failure::other)?),
        (Output::Text, Some(status)) => print!("{}", text(&status)),
        (Output::Text, None) => println!("no server has run on {}", arguments.state.display()),
    }
    Ok(())
}

/// What the server is doing, or did last; none if there never was one.
///
/// # Errors
/// [`Failure::Other`] when the directory or the file cannot be read.
pub(crate) fn read(state: &Path) -> Result<Option<ServerStatus>, Failure> {
    let running = server_state::is_running(state)?;
    let Some(json) = server_state::read_status(state)? else { return Ok(None) };
    let status: ServerStatus = serde_json::from_slice(&json)
        .map_err(|error| Failure::Other(format!("the status file is not understood: {error}")))?;
    Ok(Some(ServerStatus { running, ..status }))
}

fn text(status: &ServerStatus) -> String {
    let ServerStatus { server, .. } = status;
    let epsilon = |spent: Option<f64>, absent: &str| match (spent, status.delta) {
        (Some(epsilon), Some(delta)) => format!("epsilon {epsilon:.4} at delta {delta} is spent"),
        _ => format!("nothing is promised (no epsilon): {absent}"),
    };
    let absent = status.epsilon_server_absent.as_deref().unwrap_or("privacy is off");
    let mut lines = vec![
        ("process", alive(status)),
        ("federation", format!("{}, mode {}, {} rounds", status.experiment, status.mode, status.rounds)),
        ("doing", doing(server)),
        ("connected", format!("{} of {} clients", server.connected, status.population)),
        (
            "recipients",
            epsilon(status.epsilon_release, "privacy is off") + seen_of_groups(status.released.as_deref()),
        ),
        ("server", epsilon(status.epsilon_server, absent)),
    ];
    if status.epsilon_alone.is_some() && status.mode == "distributed" {
        let alone = epsilon(status.epsilon_alone, absent);
        lines.push(("alone", format!("{alone}, against the server if all other clients were its own")));
    }
    lines.extend(status.epsilon_limit.map(|limit| ("limit", format!("epsilon {limit}"))));
    if let Some(last) = &status.last {
        let measured =
            last.value.map_or(String::new(), |value| format!(", {}", named(last.metric, Some(value))));
        lines.push(("last", format!("{}: {}{measured}, {:.1} s", last.round, last.detail, last.seconds)));
        if !last.left_out.is_empty() {
            let by_reason = last.left_out.iter().map(|(reason, clients)| format!("{clients} {reason}"));
            lines.push(("left out", by_reason.collect::<Vec<_>>().join(", ")));
        }
    }
    lines.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect()
}

fn alive(status: &ServerStatus) -> String {
    match status.running {
        true => format!("{}, running since {}", status.pid, clock::utc(status.started)),
        false => format!("not running; below is what it last said, at {}", clock::utc(status.updated)),
    }
}

fn doing(server: &Status) -> String {
    let answered = format!("{} of {}", server.answered, server.expected);
    let round = server.round.map(|round| if server.asking { round.query() } else { round });
    let round = round.map_or("no round".to_owned(), |round| round.to_string());
    let updates = if server.asking { "answers" } else { "updates" };
    match server.doing {
        Doing::Waiting => format!("waiting for clients: {} of {} are here", server.connected, server.wanted),
        Doing::Planning => "planning a round".to_owned(),
        Doing::Keys => format!("{round}, training: {answered} clients have sent keys"),
        Doing::Shares => format!("{round}, sharing secrets: {answered} clients have"),
        Doing::Collecting => {
            format!("{round}, collecting: {} of {} {updates}", server.updates, server.invited)
        }
        Doing::Consistency => format!("{round}, agreeing on the survivors: {answered} clients have"),
        Doing::Unmasking => {
            format!("{round}, unmasking {} {updates}: {answered} clients have helped", server.updates)
        }
        Doing::Releasing => format!("{round}, releasing {} {updates}", server.updates),
        Doing::Closing => format!("{round}, closing"),
        Doing::Over => format!("ended, after {round}"),
    }
}

/// Writes the file and the operator's log while a server runs, and passes everything else on to its recorder.
pub(crate) struct Board<'a> {
    recorder: &'a mut Recorder,
    log: OperatorLog,
    metric: Metric,
    status: watch::Sender<ServerStatus>,
}

impl<'a> Board<'a> {
    /// A board for a federation that goes on after the rounds in `recorder`.
    pub(crate) fn new(
        recorder: &'a mut Recorder,
        log: OperatorLog,
        federation: &Federation,
        addresses: Vec<Address>,
        wanted: usize,
    ) -> Self {
        let experiment = federation.experiment();
        let metric = experiment.data.predicted().metric();
        let now = clock::now();
        let status = ServerStatus {
            running: true,
            pid: std::process::id(),
            started: now,
            updated: now,
            addresses,
            experiment: experiment.name.clone(),
            mode: experiment.privacy.mode().to_owned(),
            population: experiment.population.clients,
            rounds: experiment.rounds.count,
            server: Status::waiting(wanted),
            epsilon_release: federation.epsilon(Adversary::Recipients).ok().map(|epsilon| epsilon.get()),
            epsilon_limit: epsilon_limit(experiment),
            epsilon_server: federation.epsilon(Adversary::Server).ok().map(|epsilon| epsilon.get()),
            epsilon_server_absent: federation
                .epsilon(Adversary::Server)
                .err()
                .map(|reason| reason.to_string()),
            epsilon_alone: federation.epsilon(Adversary::EveryoneElse).ok().map(|epsilon| epsilon.get()),
            released: released(federation.experiment()).map(str::to_owned),
            delta: federation.delta().map(|delta| delta.get()),
            last: recorder.last().map(|record| LastRound::new(record, metric)),
        };
        Board { recorder, log, metric, status: watch::Sender::new(status) }
    }

    /// What writes the file, until the board is dropped.
    pub(crate) fn keeper(&self, state: PathBuf) -> impl Future<Output = ()> + Send + use<> {
        keep(self.status.subscribe(), state)
    }
}

fn epsilon_limit(experiment: &Experiment) -> Option<f64> {
    let limit = experiment.privacy.terms()?.epsilon_limit;
    limit.is_finite().then_some(limit.get())
}

async fn keep(mut status: watch::Receiver<ServerStatus>, state: PathBuf) {
    status.mark_changed();
    loop {
        let ended = status.changed().await.is_err();
        let now = ServerStatus { updated: clock::now(), ..status.borrow_and_update().clone() };
        let written = serde_json::to_vec(&now)
            .map_err(std::io::Error::other)
            .and_then(|json| server_state::write_status(&state, &json));
        if let Err(error) = written {
            tracing::warn!(%error, "the status is not written");
        }
        if ended {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Observer for Board<'_> {
    fn clients_connected(&mut self, connected: usize, wanted: usize) {
        self.recorder.clients_connected(connected, wanted);
    }

    fn round_opened(&mut self, plan: &Plan, invited: u32) {
        self.recorder.round_opened(plan, invited);
        if let Some(epsilon) = plan.promise.claim().map(|claim| claim.epsilon_release) {
            self.status.send_modify(|status| status.epsilon_release = Some(epsilon.get()));
        }
    }

    fn update_committed(&mut self, round: Round, updates: u32) {
        self.recorder.update_committed(round, updates);
    }

    fn status(&mut self, status: &Status) {
        self.status.send_modify(|now| now.server = status.clone());
    }

    fn cohort_closed(&mut self, round: Round, cohort: &[(ClientId, Progress)]) {
        self.log.add(round, cohort);
    }

    fn round_closed(&mut self, record: &RoundRecord, model: &Arc<Vec<f32>>) {
        self.recorder.round_closed(record, model);
        self.status.send_modify(|status| {
            status.epsilon_release = record.epsilon_release;
            status.epsilon_server = record.epsilon_server;
            status.epsilon_alone = record.epsilon_alone;
            status.last = Some(LastRound::new(record, self.metric));
        });
    }
}

/// Between two writes of the file.
const PAUSE: Duration = Duration::from_millis(200);
