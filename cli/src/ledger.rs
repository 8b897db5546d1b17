//! `skep ledger` and `skep budget`: a ledger for the person who keeps it.
//!
//! These only read, except `amend` and `rotate`, and may run beside a server. Whether a ledger can be believed is for `skep audit` to say.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::Serialize;
use skep_privacy::adversary::Adversary;
use skep_privacy::audit::{Given, Verdict, audit};
use skep_privacy::ledger::{
    Amend, AuditorSecret, Basis, Body, Frames, Hash, Provenance, Record, RoundTerms, State, Terms,
    examples_text, mechanism_text, parse_key, query_text, replay, verifier_key,
};
use skep_privacy::prg::Key;
use skep_privacy::quantities::Epsilon;
use skep_protocol::experiment::Experiment;
use skep_protocol::net::files;
use skep_server::authority::Authority;
use skep_server::{federation, ledger};

use crate::arguments::Output;
use crate::audit::ledger_path;
use crate::clock;
use crate::experiment_file;
use crate::failure::Failure;
use crate::serve::ledger_failure;

/// What to do with a ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Print its records, one a line.
    Show(Named),
    /// Say whether it is whole: numbers, hash chain, every signature.
    Verify(Named),
    /// Print its records as JSON, one object a line.
    Export(Named),
    /// Print a signed checkpoint of a server's ledger. Keep it somewhere else: it shows later that nothing was cut off.
    Checkpoint(OfServer),
    /// Make a key for an auditor of the noise: the private half in a file, the public half printed for `skep serve --auditor`.
    AuditorKey(AuditorKey),
    /// Print what makes the pseudonyms of clients in the ledger, for `skep audit --participants`. Whoever has it and the list of
    /// cohorts knows who took part.
    ParticipantsKey(Named),
    /// Hand the ledger over to a new key, made now. Clients and audits follow; the server must not be running.
    Rotate(Named),
    /// Change the terms of a server's ledger, for a reason that audits print. The server must not be running.
    Amend(AmendArguments),
}

/// Which ledger.
#[derive(Debug, Args)]
pub struct Named {
    /// The ledger: a file, or the results or state directory that holds `ledger.skep`.
    pub ledger: PathBuf,
}

/// Which server's.
#[derive(Debug, Args)]
pub struct OfServer {
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Print the public key for `skep audit --keys` instead.
    #[arg(long)]
    pub key: bool,
}

/// Arguments of `skep ledger auditor-key`.
#[derive(Debug, Args)]
pub struct AuditorKey {
    /// The file of the private key; it must not exist.
    pub file: PathBuf,
}

/// Arguments of `skep ledger amend`.
#[derive(Debug, Args)]
pub struct AmendArguments {
    /// The experiment file whose privacy, rounds and population are the new terms.
    pub file: PathBuf,
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where data sets lie that are not built in.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Why, in a sentence. It cannot be changed later.
    #[arg(long)]
    pub reason: String,
    /// The data are new: begin an epoch whose budget is untouched. Audits print what all epochs cost together.
    #[arg(long)]
    pub epoch: bool,
}

/// Arguments of `skep budget`.
#[derive(Debug, Args)]
pub struct Budget {
    /// The ledgers: files, or the results or state directories that hold `ledger.skep`.
    #[arg(required = true)]
    pub ledgers: Vec<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Runs `skep ledger`.
///
/// # Errors
/// [`Failure`] when the ledger cannot be read, or is not whole.
pub(crate) fn run(command: &LedgerCommand) -> Result<(), Failure> {
    match command {
        LedgerCommand::Show(named) => each(&named.ledger, |record, _| line(&record)),
        LedgerCommand::Export(named) => each(&named.ledger, |record, hash| {
            let object = serde_json::to_string(&Exported { hash, record: &record });
            object.expect("a record has only text keys, numbers and names")
        }),
        LedgerCommand::Verify(named) => verify(&named.ledger),
        LedgerCommand::Checkpoint(arguments) => checkpoint(arguments),
        LedgerCommand::AuditorKey(arguments) => auditor_key(arguments),
        LedgerCommand::ParticipantsKey(named) => participants_key(&ledger_path(&named.ledger)),
        LedgerCommand::Rotate(named) => rotate(&ledger_path(&named.ledger)),
        LedgerCommand::Amend(arguments) => amend(arguments),
    }
}

/// Runs `skep budget`.
///
/// # Errors
/// [`Failure`] when a ledger cannot be read.
pub(crate) fn budget(arguments: &Budget) -> Result<(), Failure> {
    for named in &arguments.ledgers {
        let path = ledger_path(named);
        let spent = Spent::of(&path)?;
        match arguments.output {
            Output::Text => print!("{}", spent.text()),
            Output::Json => println!("{}", serde_json::to_string(&spent).map_err(Failure::other)?),
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Exported<'a> {
    hash: Hash,
    #[serde(flatten)]
    record: &'a Record,
}

/// Prints a line for each record, until nobody reads any more.
fn each(named: &Path, line: impl Fn(Record, Hash) -> String) -> Result<(), Failure> {
    let path = ledger_path(named);
    let contents = read(&path)?;
    let mut out = std::io::stdout().lock();
    let fail = |error: &dyn std::fmt::Display| Failure::Other(format!("{}: {error}", path.display()));
    for (number, bytes) in Frames::new(&contents).map_err(|error| fail(&error))?.enumerate() {
        let bytes = bytes.map_err(|error| fail(&error))?;
        let record = Record::read(bytes).map_err(|error| fail(&format!("record {number}: {error}")))?;
        match writeln!(out, "{}", line(record, Hash::of_leaf(bytes))) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| Failure::file("standard output", error))?,
        }
    }
    Ok(())
}

/// What terms say beside the noise of rounds.
fn besides(terms: &Terms) -> String {
    let (query, examples) =
        (terms.schedule.query.as_ref().map(query_text), terms.examples.as_ref().map(examples_text));
    query.into_iter().chain(examples).map(|text| format!("; {text}")).collect()
}

fn line(record: &Record) -> String {
    let what = match &record.body {
        Body::Genesis(genesis) => format!(
            "{}, {} clients, mode {}, {}{}, key {}",
            genesis.origin,
            genesis.population.size,
            genesis.terms.mode.as_str(),
            mechanism_text(&genesis.terms.schedule.mechanism),
            besides(&genesis.terms),
            genesis.key.fingerprint()
        ),
        Body::Reserve(reserve) => format!(
            "{}{}, epsilon {} against recipients, {} against the server{}",
            if reserve.occasion.is_round() {
                format!("round {}", reserve.round)
            } else {
                format!("{} after round {}", reserve.occasion.as_str(), reserve.round)
            },
            reserve.cohort.map_or_else(String::new, |cohort| format!(", {cohort} clients")),
            number(reserve.epsilon_release),
            number(reserve.epsilon_server),
            if reserve.basis == Basis::Filter { " (not as scheduled: Rényi filter)" } else { "" }
        ),
        Body::Settle(settle) => {
            let updates = settle.updates.map_or_else(String::new, |updates| format!("{updates} updates, "));
            format!("of record {}: {updates}model {}", settle.reserve, settle.model_out)
        }
        Body::Abort(abort) => format!(
            "of record {}: {}{}",
            abort.reserve,
            abort.reason,
            if abort.refunded { "; not charged, nobody was invited" } else { "" }
        ),
        Body::Checkpoint(note) => note.text.lines().take(3).collect::<Vec<_>>().join(" "),
        Body::KeyRotate(rotate) => format!("to {}", rotate.key.fingerprint()),
        Body::Amend(amend) => {
            format!("{}{}", if amend.epoch.is_some() { "a new epoch: " } else { "" }, amend.reason)
        }
    };
    format!("{:>6}  {}  {:<10}  {what}", record.seq, date(record.time_ms), record.body.kind())
}

fn verify(named: &Path) -> Result<(), Failure> {
    let path = ledger_path(named);
    let report = audit(&read(&path)?, &Given { every_signature: true, ..Given::default() });
    if report.verdict == Verdict::Tampered {
        let what: Vec<&str> = report.findings.iter().map(|finding| finding.what.as_str()).collect();
        return Err(Failure::Other(format!("{}: {}", path.display(), what.join("; "))));
    }
    println!("{} records are whole and signed; `skep audit` says whether they are true", report.records);
    Ok(())
}

/// Reads beside a running server: an incomplete last record is one that it is writing now.
fn state(path: &Path) -> Result<State, Failure> {
    let contents = read(path)?;
    let whole = ledger::whole_records(&contents);
    replay(&contents[..whole], |_, _, _| {})
        .map(|(state, _)| state)
        .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}

fn checkpoint(arguments: &OfServer) -> Result<(), Failure> {
    let state = state(&ledger_path(&arguments.state))?;
    let origin = &state.genesis().origin;
    if arguments.key {
        println!("{}", verifier_key(origin, &state.genesis().key));
        return Ok(());
    }
    print!("{}", ledger::checkpoint(&ledger_path(&arguments.state)).map_err(Failure::other)?);
    Ok(())
}

fn auditor_key(arguments: &AuditorKey) -> Result<(), Failure> {
    let key = Key::from_os().map_err(Failure::other)?;
    files::create(&arguments.file, key.expose()).map_err(Failure::other)?;
    println!("{}", Hash(AuditorSecret::from_key(&key).recipient().0));
    Ok(())
}

fn participants_key(path: &Path) -> Result<(), Failure> {
    for key in ledger::participants_keys(path).map_err(Failure::other)? {
        println!("{}", Hash(*key.expose()));
    }
    Ok(())
}

fn rotate(path: &Path) -> Result<(), Failure> {
    let key = ledger::rotate(path).map_err(Failure::other)?;
    println!("{} is kept by another key from here on, {}", path.display(), key.fingerprint());
    println!(
        "the old one is gone; auditors keep the key that they have, and back up {}.key anew",
        path.display()
    );
    Ok(())
}

/// Reads an auditor's public key: 64 hexadecimal digits.
pub(crate) fn auditor(text: &str) -> Result<[u8; 32], String> {
    parse_key(text).map(|key| key.0).map_err(|error| error.to_string())
}

fn amend(arguments: &AmendArguments) -> Result<(), Failure> {
    let experiment: Experiment = experiment_file::read(Some(&arguments.file), arguments.data_dir.as_deref())?;
    let authority = Authority::open(&arguments.state).map_err(Failure::other)?;
    let federation = Hash(authority.fingerprint().0);
    let path = ledger_path(&arguments.state);
    let mut ledger = ledger::open(&path, &experiment, federation, None).map_err(ledger_failure)?;
    let terms = federation::terms(&experiment).map_err(Failure::configuration)?;
    let epoch = arguments.epoch.then(|| ledger::population(&experiment, federation));
    if epoch.is_none() && experiment.population.clients != ledger.state().population().size {
        return Err(Failure::Usage {
            problem: "another population needs a new epoch".to_owned(),
            help: Some("add --epoch".to_owned()),
        });
    }
    ledger.amend(Amend { reason: arguments.reason.clone(), epoch, terms }).map_err(Failure::configuration)?;
    println!("record {} of {} has the new terms", ledger.state().size() - 1, path.display());
    Ok(())
}

/// What is spent and left.
#[derive(Serialize)]
struct Spent {
    ledger: PathBuf,
    origin: String,
    clients: u64,
    epoch: usize,
    rounds: u64,
    queries: u64,
    epsilon_release: Epsilon,
    epsilon_server: Epsilon,
    limit_release: Option<Epsilon>,
    left_release: Option<f64>,
    limit_server: Option<Epsilon>,
    left_server: Option<f64>,
    delta: Option<f64>,
    noise: String,
    /// Rounds that still fit at the scheduled noise; none: as many as one likes.
    rounds_left: Option<u64>,
    /// When the last of them would be charged at the pace so far, in milliseconds since 1970.
    exhausted_ms: Option<u64>,
}

impl Spent {
    fn of(path: &Path) -> Result<Self, Failure> {
        let state = state(path)?;
        let account = state.account();
        let spent = account.spent();
        let budget = account.terms().budget;
        let left = |limit: Option<Epsilon>, adversary| {
            let limit = limit.filter(|limit| limit.is_finite())?;
            Some((limit.get() - spent.epsilon(adversary).get()).max(0.0))
        };
        let (rounds, queries) = charged(path).unwrap_or_default();
        let rounds_left = account.rounds_left(&RoundTerms::from(account.terms()));
        Ok(Self {
            ledger: path.to_owned(),
            origin: state.genesis().origin.clone(),
            clients: state.population().size,
            epoch: state.epochs().len(),
            rounds: rounds.len() as u64,
            queries,
            epsilon_release: spent.epsilon(Adversary::Recipients),
            epsilon_server: spent.epsilon(Adversary::Server),
            limit_release: budget.map(|budget| budget.limit_release),
            left_release: left(budget.map(|budget| budget.limit_release), Adversary::Recipients),
            limit_server: budget.map(|budget| budget.limit_server),
            left_server: left(budget.map(|budget| budget.limit_server), Adversary::Server),
            delta: account.terms().budget.map(|budget| budget.delta.get()),
            noise: mechanism_text(&account.terms().schedule.mechanism),
            rounds_left,
            exhausted_ms: rounds_left
                .filter(|_| state.genesis().provenance == Provenance::Deployment)
                .and_then(|left| exhausted(&rounds, left)),
        })
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!("population  {} of {} clients, epoch {}", self.origin, self.clients, self.epoch),
            format!(
                "spent       epsilon {} against recipients, {} against the server, in {}",
                number(self.epsilon_release),
                number(self.epsilon_server),
                rounds_and_queries(self.rounds, self.queries)
            ),
        ];
        let Some(delta) = self.delta else {
            lines.push("left        nothing is promised, so nothing runs out".to_owned());
            return lines.join("\n") + "\n";
        };
        for (whom, limit, left) in [
            ("recipients", self.limit_release, self.left_release),
            ("the server", self.limit_server, self.left_server),
        ] {
            if let (Some(limit), Some(left)) = (limit, left) {
                lines.push(format!("left        {left:.6} of {limit} at delta {delta} against {whom}"));
            }
        }
        lines.push(match self.rounds_left {
            Some(left) => format!("rounds      {left} more fit: {}", self.noise),
            None => format!("rounds      as many as one likes: {}", self.noise),
        });
        if let Some(exhausted) = self.exhausted_ms {
            lines.push(format!("until       {} at the pace so far", date(exhausted)));
        }
        lines.join("\n") + "\n"
    }
}

/// When each round of the last epoch was charged, in milliseconds since 1970, and how many queries were. Nothing of what was refunded.
fn charged(path: &Path) -> Option<(Vec<u64>, u64)> {
    let mut charges = BTreeMap::new();
    let contents = fs::read(path).ok()?;
    for bytes in Frames::new(&contents).ok()? {
        let record = Record::read(bytes.ok()?).ok()?;
        match record.body {
            Body::Reserve(reserve) => {
                charges.insert(record.seq, (record.time_ms, reserve.occasion.is_round()));
            }
            Body::Abort(abort) if abort.refunded => drop(charges.remove(&abort.reserve)),
            Body::Amend(amend) if amend.epoch.is_some() => charges.clear(),
            _ => {}
        }
    }
    let rounds: Vec<u64> =
        charges.values().filter(|(_, is_round)| *is_round).map(|(time, _)| *time).collect();
    let queries = charges.len() - rounds.len();
    Some((rounds, queries as u64))
}

/// When `left` more rounds are done, if they come as often as these did.
fn exhausted(rounds: &[u64], left: u64) -> Option<u64> {
    let (first, last) = (*rounds.first()?, *rounds.last()?);
    let pace = last.checked_sub(first)?.checked_div(rounds.len() as u64 - 1)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() as u64;
    (pace > 0).then(|| now.saturating_add(pace.saturating_mul(left)))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| Failure::file(path, error))
}

/// As in "3 rounds and 2 queries".
pub(crate) fn rounds_and_queries(rounds: u64, queries: u64) -> String {
    if queries == 0 { format!("{rounds} rounds") } else { format!("{rounds} rounds and {queries} queries") }
}

fn number(epsilon: Epsilon) -> String {
    if epsilon.is_finite() { format!("{:.4}", epsilon.get()) } else { "infinite".to_owned() }
}

/// A time as `2026-11-26 06:30:02Z`.
pub(crate) fn date(ms: u64) -> String {
    clock::utc(ms / 1000).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00Z");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(date(1_795_674_602_999), "2026-11-26 06:30:02Z");
        assert_eq!(date(4_107_542_399_000), "2100-02-28 23:59:59Z");
    }
}
