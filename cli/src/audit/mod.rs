//! `skep audit`: whether a ledger is whole, and whether what it says about privacy is true.
//!
//! A path of its own: files are read, [`skep_privacy::audit`] judges, and nothing here opens a socket or trains.

mod html;
mod several;
mod store;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use skep_learning::ModelFile;
use skep_privacy::audit::{
    Given, ModelClaim, Report, Verdict, audit_file, audit_participation, audit_sealed,
};
use skep_privacy::ledger::{AuditorSecret, Hash, ParticipantsKey, PublicKey, parse_key};
use skep_privacy::prg::Key;
use skep_privacy::quantities::Epsilon;
use skep_protocol::Digest;
use skep_protocol::net::files;
use skep_server::ledger;

use crate::arguments::{AuditCommand, Output};
use crate::audit_empirical;
use crate::failure::Failure;
use crate::say::heard;

/// Arguments of `skep audit`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Audit {
    /// What to audit instead of a ledger.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// The ledger: a file, or the results or state directory that holds `ledger.skep`. Of several the report ends with what they
    /// cost together whoever is in all of them.
    #[arg(required = true)]
    pub ledger: Vec<PathBuf>,
    /// A key that the ledger may have begun with: 64 hexadecimal digits, the form NAME+ID+KEY, or a file of such lines.
    ///
    /// Without one the key in the first record is believed, and the report says that it is not pinned.
    #[arg(long, value_name = "KEY")]
    pub keys: Vec<String>,
    /// A checkpoint that was kept. The ledger must be a continuation of it.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// A model file. It must be one of the ledger's releases, and state no less than it cost. Of several ledgers it is compared
    /// with the one whose checkpoint it carries.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// A client's list of participations, or the directory that holds it: what the client was shown and promised is compared
    /// with the ledger.
    #[arg(long, value_name = "PATH")]
    pub store: Option<PathBuf>,
    /// Check the signature of every record, not only the last of each key; about 0.1 ms a record.
    #[arg(long)]
    pub every_signature: bool,
    /// Recompute every stated epsilon, not some of many with bounds on the rest; some milliseconds each.
    #[arg(long)]
    pub every_claim: bool,
    /// The private key of an auditor of the noise: opens the seals beside each ledger, and recomputes every release from its sum
    /// without noise and its seed.
    #[arg(long, value_name = "FILE")]
    pub sealed: Option<PathBuf>,
    /// The keys of `skep ledger participants-key`, one for each key that the ledger had, of all ledgers: counts in the list of cohorts
    /// beside each how often each client took part.
    #[arg(long, value_name = "FILE")]
    pub participants: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// Write the report as one HTML file as well.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Audits, prints the report, and fails unless everything holds.
///
/// # Errors
/// [`Failure::Audit`] with the verdict, [`Failure::AuditUsage`] when a file cannot be read or written.
pub(crate) fn run(arguments: &Audit) -> Result<(), Failure> {
    match &arguments.command {
        Some(AuditCommand::Empirical(arguments)) => return audit_empirical::empirical(arguments),
        Some(AuditCommand::Membership(arguments)) => return audit_empirical::membership_inference(arguments),
        None => {}
    }
    let [ledger] = &arguments.ledger[..] else { return several::run(arguments) };
    let evidence = Evidence::read(arguments)?;
    let report = evidence.judge(ledger, &evidence.given)?;
    write_page(arguments, || html::page(&report))?;
    match arguments.output {
        Output::Text => print!("{}", text::report(&report)),
        Output::Json => println!("{}", serde_json::to_string(&report).map_err(Failure::other)?),
    }
    conclude(report.verdict)
}

/// What a ledger is compared with.
struct Evidence<'a> {
    given: Given,
    store: Option<&'a Path>,
    seals: Option<AuditorSecret>,
    participants: Option<Vec<ParticipantsKey>>,
}

impl<'a> Evidence<'a> {
    fn read(arguments: &'a Audit) -> Result<Self, Failure> {
        let participants = arguments.participants.as_deref().map(|named| keys_in("--participants", named));
        let participants = participants.transpose()?;
        Ok(Evidence {
            given: given(arguments)?,
            store: arguments.store.as_deref(),
            seals: arguments.sealed.as_deref().map(auditor_secret).transpose()?,
            participants: participants
                .map(|keys| keys.into_iter().map(ParticipantsKey::from_bytes).collect()),
        })
    }

    /// Audits a ledger by what was given about it, and then what lies beside it.
    fn judge(&self, ledger: &Path, given: &Given) -> Result<Report, Failure> {
        let path = ledger_path(ledger);
        // Read anew for each of those who need it, so that it takes no memory while epsilons are recomputed.
        let contents = || read(&path);
        let mut report = audit_file(contents()?, given);
        if let Some(store) = self.store {
            store::compare(store, &contents()?, &mut report)?;
        }
        if let Some(secret) = &self.seals {
            let seals = ledger::seals(&path);
            let seal = |record: u64| fs::read(seals.join(record.to_string())).ok();
            audit_sealed(&contents()?, secret, seal, &mut report);
        }
        if let Some(keys) = &self.participants {
            audit_participation(&contents()?, &read(&ledger::cohorts(&path))?, keys, &mut report);
        }
        Ok(report)
    }
}

fn auditor_secret(path: &Path) -> Result<AuditorSecret, Failure> {
    let key = files::read(path).map_err(|error| unusable(path, error))?;
    let key = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| {
        Failure::AuditUsage("--sealed: the file holds no key of `skep ledger auditor-key`".to_owned())
    })?;
    Ok(AuditorSecret::from_key(&Key::from_bytes(key)))
}

fn write_page(arguments: &Audit, page: impl FnOnce() -> String) -> Result<(), Failure> {
    match &arguments.html {
        Some(path) => fs::write(path, page()).map_err(|error| unusable(path, error)),
        None => Ok(()),
    }
}

/// The end of an audit whose report has been printed.
fn conclude(verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Ok => heard().map_err(|failure| Failure::AuditUsage(failure.to_string())),
        verdict => Err(Failure::Audit { code: verdict.exit_code(), what: text::verdict(verdict).to_owned() }),
    }
}

/// The ledger's file, where a directory was named.
pub(crate) fn ledger_path(named: &Path) -> PathBuf {
    if named.is_dir() { named.join("ledger.skep") } else { named.to_owned() }
}

fn given(arguments: &Audit) -> Result<Given, Failure> {
    let checkpoints = arguments
        .checkpoint
        .iter()
        .map(|path| Ok((format!("the checkpoint {}", path.display()), text_of(path)?)))
        .collect::<Result<_, Failure>>()?;
    let keys = arguments.keys.iter().map(|named| keys(named)).collect::<Result<Vec<_>, _>>()?;
    Ok(Given {
        keys: keys.concat(),
        checkpoints,
        model: arguments.model.as_deref().map(model).transpose()?,
        every_signature: arguments.every_signature,
        every_claim: arguments.every_claim,
    })
}

/// A key as it was typed, or the keys in a file.
fn keys(named: &str) -> Result<Vec<PublicKey>, Failure> {
    let path = Path::new(named);
    let text = if path.exists() { text_of(path)? } else { named.to_owned() };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_key(line).map_err(|error| Failure::AuditUsage(format!("--keys {line}: {error}"))))
        .collect()
}

/// Keys of 64 hexadecimal digits, one a line.
fn keys_in(option: &str, path: &Path) -> Result<Vec<[u8; 32]>, Failure> {
    let text = text_of(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let key = parse_key(line).map_err(|error| Failure::AuditUsage(format!("{option}: {error}")));
            Ok(key?.0)
        })
        .collect()
}

/// What a model file says: the digest is computed from its parameters, everything else is in its metadata.
fn model(path: &Path) -> Result<ModelClaim, Failure> {
    let file = ModelFile::decode(&read(path)?).map_err(|error| unusable(path, error))?;
    let metadata = file.metadata();
    let number = |key: &str| metadata.get(key).and_then(|value| value.parse::<f64>().ok());
    Ok(ModelClaim {
        digest: Hash(Digest::of_model(file.released()).0),
        epsilon: number("epsilon").and_then(|epsilon| Epsilon::new(epsilon).ok()),
        delta: metadata.get("delta").and_then(|delta| delta.parse().ok()),
        checkpoint: metadata.get("ledger_checkpoint").cloned(),
    })
}

fn text_of(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?).map_err(|error| unusable(path, error))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::AuditUsage(format!("{}: {error}", path.display()))
}

const EXIT_CODES: &str = "\
Exit codes of this command:
  0    everything that was checked holds
  1    a claim is not true
  2    the ledger was changed, cut, replaced, or ends in an incomplete record
  3    more was spent than the limit allows
  4    nothing is wrong, and nothing can be certified
  64   wrong usage, or a file that cannot be read";
