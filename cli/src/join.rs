//! `skep join`: one client of a federation.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use skep_client::command::{Format, TrainCommand};
use skep_client::guard::{Guard, SharedGuard};
use skep_client::join::{JoinError, JoinOptions, JoinReport, Leaving, News, Notify, TrainingSlots, join};
use skep_client::participations::Participations;
use skep_client::policy::{Policy, PolicyError};
use skep_client::task::learner_for;
use skep_client::terms::Terms;
use skep_client::trainer::ClientKeys;
use skep_learning::scrub::RecordReport;
use skep_protocol::Round;
use skep_protocol::net::enrolment::{EnrolError, enrol, enrol_listed};
use skep_protocol::net::identity::{Identity, IdentityError};
use skep_protocol::net::invitation::{Address, Fingerprint, Invitation};
use skep_protocol::net::listing::{Listing, is_listing};
use skep_protocol::net::websocket::Dial;
use skep_protocol::round::client::End;

use crate::arguments::{Join, LogFormat, TrainFormat};
use crate::data::{self, DataSource};
use crate::failure::Failure;
use crate::interrupt;
use crate::ledger::rounds_and_queries;
use crate::proxy;
use crate::serve::small_runtime;

/// Runs `skep join`.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(arguments: &Join, log_format: LogFormat) -> Result<(), Failure> {
    let invitation = arguments.invitation.as_deref().map(parsed).transpose()?;
    let mut options = options(arguments)?;
    let Some(data) = arguments.data.as_ref().filter(|_| !arguments.enrol_only) else {
        let identity = small_runtime()?.block_on(identity(invitation.as_ref(), arguments, &mut options))?;
        say(log_format, &format!("enrolled as {}", identity.client()));
        return Ok(());
    };
    let guard = guard(arguments, data, &options)?;
    options.guard = Some(guard.clone());
    let scrubber =
        options.policy.as_ref().map(Policy::scrubber).transpose().map_err(Failure::configuration)?.flatten();
    let (data, scrubbed) = data::read(data, arguments, scrubber.as_ref())?;
    if let Some(report) = scrubbed {
        say(log_format, &scrubbed_text(&report));
    }
    let keys = ClientKeys::from_os().map_err(Failure::other)?;
    interrupt::flag()?;
    let report = small_runtime()?.block_on(async {
        let identity = identity(invitation.as_ref(), arguments, &mut options).await?;
        say(log_format, &format!("taking part as {}", identity.client()));
        options.notify = notify(log_format, certified_by(&identity));
        join(identity, data, keys, options, interrupt::wait()).await.map_err(failure)
    })?;
    print!("{}{}", text(&report), spent(guard.lock().participations()));
    match report.leaving {
        Leaving::Finished => Ok(()),
        Leaving::Stopped => {
            Err(Failure::Interrupted("interrupted: the federation goes on without this client".to_owned()))
        }
    }
}

/// Who judges invitations for the owner of the data.
fn guard(arguments: &Join, data: &DataSource, options: &JoinOptions) -> Result<SharedGuard, Failure> {
    let policy = options.policy.clone().unwrap_or_default().privacy;
    let directory = arguments.participations.as_deref().unwrap_or(&arguments.state);
    Ok(Guard::open(policy, directory, &data.name()).map_err(Failure::other)?.into())
}

/// What the data have given away, for their owner.
fn spent(participations: &Participations) -> String {
    let total = participations.total();
    let number =
        |epsilon: f64| if epsilon.is_finite() { format!("{epsilon:.4}") } else { "infinite".to_owned() };
    let entries = participations.entries();
    let queries = entries.iter().filter(|entry| entry.round.is_query()).count();
    let mut line = format!(
        "these data: {} in all, epsilon {} against recipients, {} against servers",
        rounds_and_queries((entries.len() - queries) as u64, queries as u64),
        number(total.epsilon_release),
        number(total.epsilon_server)
    );
    if total.delta > 0.0 {
        line += &format!(", at delta {}", total.delta);
    }
    line + "\n"
}

fn options(arguments: &Join) -> Result<JoinOptions, Failure> {
    Ok(JoinOptions {
        min_cohort: arguments.min_cohort,
        give_up_after: arguments.give_up_after,
        state: Some(arguments.state.clone()),
        policy: arguments.policy.as_deref().map(policy).transpose()?,
        make_learner: match &arguments.train_command {
            Some(command) => by_command(command, arguments).learners(),
            None => Arc::new(learner_for),
        },
        ..JoinOptions::new(TrainingSlots::new(NonZeroUsize::MIN))
    })
}

/// The program that trains.
fn by_command(command: &str, arguments: &Join) -> TrainCommand {
    TrainCommand {
        command: command.to_owned(),
        data: arguments.data.as_ref().map(DataSource::name).unwrap_or_default(),
        format: match arguments.train_format {
            TrainFormat::Flat => Format::Flat,
            TrainFormat::Safetensors => Format::Safetensors,
        },
        timeout: arguments.train_timeout,
    }
}

fn policy(path: &Path) -> Result<Policy, Failure> {
    let wrong = |problem: String| Failure::Usage {
        problem: format!("--policy {}: {problem}", path.display()),
        help: None,
    };
    std::fs::read_to_string(path)
        .map_err(|error| wrong(error.to_string()))?
        .parse()
        .map_err(|error: PolicyError| wrong(error.to_string()))
}

/// Tells the owner what the client is asked to do, when it is first asked and when it is something else than before.
fn notify(log_format: LogFormat, certified_by: String) -> Notify {
    // Of rounds, and of queries.
    let asked: Mutex<[Option<Terms>; 2]> = Mutex::default();
    Notify::by(move |news| match news {
        News::Asked(terms) => {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let last = &mut asked[usize::from(terms.round.is_query())];
            if !last.as_ref().is_some_and(|last| terms.are_as(last)) {
                say(log_format, &terms.to_string());
                if terms.promise.masking().is_some() {
                    say(log_format, &format!("  other clients          {certified_by}"));
                }
            }
            *last = Some((*terms).clone());
        }
        News::Declined { round, limit } => declined(log_format, *round, limit),
        News::Unwilling { round, reason } => declined(log_format, *round, reason),
    })
}

/// The client declines: said once, to whoever watches.
fn declined(log_format: LogFormat, round: Round, reason: &dyn Display) {
    match log_format {
        LogFormat::Text => say(log_format, &format!("declined {round}: {reason}")),
        LogFormat::Json => tracing::warn!(%round, %reason, "declined"),
    }
}

/// What was done to the owner's texts, in numbers.
fn scrubbed_text(report: &RecordReport) -> String {
    let RecordReport { read, written, duplicates, replaced, .. } = report;
    format!(
        "scrubbed {read} texts: {written} are trained on, {duplicates} were duplicates; replaced: {replaced}"
    )
}

/// What a person sees while things go well. A machine reads the log, where all of it is too.
fn say(log_format: LogFormat, text: &str) {
    match log_format {
        LogFormat::Text => eprintln!("{text}"),
        LogFormat::Json => {}
    }
}

/// Which failure a client's error is.
pub(crate) fn failure(error: JoinError) -> Failure {
    match error {
        JoinError::Data(_) => Failure::Usage {
            problem: error.to_string(),
            help: Some("choose other data with --data".to_owned()),
        },
        JoinError::Policy(_) => Failure::other(error),
        error => Failure::Peer(error.to_string()),
    }
}

/// Which failure a refused enrolment is.
pub(crate) fn enrolment_failure(error: EnrolError) -> Failure {
    match error {
        EnrolError::AlreadyEnrolled => Failure::Usage {
            problem: error.to_string(),
            help: Some("leave out the invitation to continue as that client".to_owned()),
        },
        EnrolError::Identity(error) => identity_failure(error),
        error => Failure::Peer(error.to_string()),
    }
}

/// Who says that the others in a sum are clients, and not the server's own.
fn certified_by(identity: &Identity) -> String {
    match identity.roster() {
        Some(roster) => format!(
            "in the roster of authority {}, number {} or later",
            identity.authority(),
            roster.sequence
        ),
        None => {
            "certified by the server's own authority: whoever runs the server could enrol some of its own"
                .to_owned()
        }
    }
}

/// What lets a client in.
enum Line {
    /// By the server's own authority.
    Invitation(Invitation),
    /// By one that is apart.
    Listing(Listing),
}

impl Line {
    fn addresses(&self) -> &[Address] {
        match self {
            Line::Invitation(invitation) => &invitation.addresses,
            Line::Listing(listing) => &listing.addresses,
        }
    }

    fn authority(&self) -> Fingerprint {
        match self {
            Line::Invitation(invitation) => invitation.authority,
            Line::Listing(listing) => listing.authority,
        }
    }
}

fn parsed(text: &str) -> Result<Line, Failure> {
    let line = match is_listing(text) {
        true => text.parse().map(Line::Listing),
        false => text.parse().map(Line::Invitation),
    };
    line.map_err(|error| Failure::Usage { problem: format!("{error}"), help: None })
}

/// Refuses another authority than the owner wants, and one that is not apart from its server.
fn check_authority(wanted: Option<Fingerprint>, found: Fingerprint, apart: bool) -> Result<(), Failure> {
    match wanted {
        Some(wanted) if wanted != found => Err(Failure::Peer(format!(
            "the federation's authority is {found}, not the one of --ca; nothing was sent to its server"
        ))),
        Some(_) if !apart => Err(Failure::Peer(
            "the federation's authority is the server's own, and not apart from it as --ca demands; nothing was sent to the server"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Who the client is: as its state directory says, or by redeeming the invitation. Sets the way to the server in `options`.
async fn identity(
    line: Option<&Line>,
    arguments: &Join,
    options: &mut JoinOptions,
) -> Result<Identity, Failure> {
    let asked = arguments.proxy.as_deref();
    let Some(line) = line else {
        let identity = Identity::load(&arguments.state).map_err(identity_failure)?;
        check_authority(arguments.ca, identity.authority(), identity.roster().is_some())?;
        options.proxy = proxy::choose(asked, identity.addresses())?;
        return Ok(identity);
    };
    check_authority(arguments.ca, line.authority(), matches!(line, Line::Listing(_)))?;
    options.proxy = proxy::choose(asked, line.addresses())?;
    let dial = Dial { timeouts: &options.timeouts, proxy: options.proxy.as_ref() };
    let enrolled = match line {
        Line::Invitation(invitation) => enrol(invitation, &arguments.state, dial).await,
        Line::Listing(listing) => enrol_listed(listing, &arguments.state, dial).await,
    };
    enrolled.map_err(enrolment_failure)
}

fn identity_failure(error: IdentityError) -> Failure {
    match error {
        IdentityError::NotEnrolled => Failure::Usage {
            problem: error.to_string(),
            help: Some(
                "ask for the line that `skep invite`, or the authority's `skep ca sign`, prints".to_owned(),
            ),
        },
        error => Failure::other(error),
    }
}

/// How a round ended, for people.
fn reason(end: &End) -> String {
    match end {
        End::Committed => "took part".to_owned(),
        End::Declined(reason) => format!("declined, {reason}"),
        End::Refused(reason) => format!("refused by the server, {reason}"),
        End::Over { released: true } => "the round ended without this update".to_owned(),
        End::Over { released: false } => "the round was aborted".to_owned(),
        End::Superseded => "the server went on to a later round".to_owned(),
        End::Expired => "the deadline passed".to_owned(),
    }
}

fn text(report: &JoinReport) -> String {
    let committed = report.rounds.get(&End::Committed).copied().unwrap_or(0);
    let mut lines = vec![format!("took part in {committed} rounds")];
    let others: BTreeMap<String, u64> = report
        .rounds
        .iter()
        .filter(|(end, _)| **end != End::Committed)
        .map(|(end, count)| (reason(end), *count))
        .collect();
    lines.extend(others.iter().map(|(end, count)| format!("not in {count}: {end}")));
    lines.push(format!("sent {} bytes, received {} bytes", report.bytes_up, report.bytes_down));
    lines.join("\n") + "\n"
}
