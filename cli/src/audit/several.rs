//! Several ledgers in one audit: each by itself, and what they cost together.

use std::path::Path;

use serde_json::json;
use skep_privacy::audit::{Finding, Kind, Report, Verdict, together};
use skep_privacy::ledger::{Body, PublicKey, SignedCheckpoint, Tree, replay};

use super::{Audit, Evidence, conclude, html, ledger_path, read, text, write_page};
use crate::arguments::Output;
use crate::failure::Failure;

/// Audits every ledger that was named, and prints the sum.
///
/// # Errors
/// [`Failure::Audit`] with the gravest verdict, [`Failure::AuditUsage`] for a model that is of none of them.
pub(super) fn run(arguments: &Audit) -> Result<(), Failure> {
    let evidence = Evidence::read(arguments)?;
    let names = arguments.ledger.iter().map(|ledger| Name::read(ledger)).collect::<Result<Vec<_>, _>>()?;
    let of_model = evidence.given.model.as_ref().map(|model| model.checkpoint.as_deref().and_then(note));
    if let Some(note) = &of_model
        && !names.iter().any(|name| name.may_have_signed(note.as_ref()))
    {
        return Err(Failure::AuditUsage(
            "--model: none of these ledgers has signed the checkpoint in it; audit it with the ledger that released it"
                .to_owned(),
        ));
    }
    let mut reports = Vec::new();
    for (ledger, name) in arguments.ledger.iter().zip(&names) {
        let mut own = evidence.given.clone();
        own.model =
            own.model.filter(|_| of_model.as_ref().is_some_and(|note| name.may_have_signed(note.as_ref())));
        own.checkpoints.retain(|(_, text)| name.may_be_in(note(text).as_ref()));
        reports.push(evidence.judge(ledger, &own)?);
    }
    compare_copies(arguments, &mut reports)?;
    let all = together(&reports);
    write_page(arguments, || html::pages(&named(arguments, &reports), &all))?;
    match arguments.output {
        Output::Json => println!("{}", json!({ "ledgers": reports, "together": all })),
        Output::Text => {
            for (name, report) in named(arguments, &reports) {
                print!("{:<12}{name}\n{}\n", "file", text::report(report));
            }
            println!("{:<12}{}", "together", text::together(all.sum.as_ref()));
            for (one, other) in all.same_roster {
                let [one, other] = [one, other].map(|at| arguments.ledger[at].display());
                println!("{:<12}{one} and {other} are about the same clients", "");
            }
        }
    }
    conclude(reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Ok))
}

/// The reports, each with the name that its ledger was given by.
fn named<'a>(arguments: &Audit, reports: &'a [Report]) -> Vec<(String, &'a Report)> {
    arguments.ledger.iter().map(|named| named.display().to_string()).zip(reports).collect()
}

/// How a ledger's checkpoints are told from those of others; unknown of one that cannot be read, which any may be about.
struct Name(Option<(String, Vec<PublicKey>)>);

impl Name {
    fn read(ledger: &Path) -> Result<Self, Failure> {
        let contents = read(&ledger_path(ledger))?;
        let mut keys = Vec::new();
        let replayed = replay(&contents, |record, _, _| match &record.body {
            Body::Genesis(genesis) => keys.push(genesis.key),
            Body::KeyRotate(rotate) => keys.push(rotate.key),
            _ => {}
        });
        Ok(Name(replayed.ok().map(|(state, _)| (state.genesis().origin.clone(), keys))))
    }

    /// Whether a checkpoint names this ledger's population.
    fn may_be_in(&self, note: Option<&SignedCheckpoint>) -> bool {
        match (&self.0, note) {
            (Some((origin, _)), Some(note)) => note.unverified().origin == *origin,
            _ => true,
        }
    }

    /// Whether it is by one of this ledger's keys: two runs over one population have the same name.
    fn may_have_signed(&self, note: Option<&SignedCheckpoint>) -> bool {
        match (&self.0, note) {
            (Some((_, keys)), Some(note)) => keys.iter().any(|key| note.verify(key).is_ok()),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

fn note(text: &str) -> Option<SignedCheckpoint> {
    SignedCheckpoint::parse(text).ok()
}

/// Two files of one ledger would be counted twice, and two histories of one key are a forgery.
fn compare_copies(arguments: &Audit, reports: &mut [Report]) -> Result<(), Failure> {
    for later in 1..reports.len() {
        for earlier in 0..later {
            let key = |report: &Report| Some((report.origin.clone()?, report.key.as_ref()?.key.0));
            let (one, other) = (key(&reports[earlier]), key(&reports[later]));
            if one.is_none() || one != other {
                continue;
            }
            let [first, second] = [earlier, later].map(|at| &arguments.ledger[at]);
            let (short, long) = if reports[earlier].records <= reports[later].records {
                (earlier, later)
            } else {
                (later, earlier)
            };
            let mut tree = Tree::default();
            let _ = replay(&read(&ledger_path(&arguments.ledger[long]))?, |_, _, hash| tree.push(hash));
            if tree.root(reports[short].records) == reports[short].root {
                return Err(Failure::AuditUsage(format!(
                    "{} and {} are the same ledger: name the longer one alone",
                    first.display(),
                    second.display()
                )));
            }
            let what = format!("{} is another history of the ledger {}", second.display(), first.display());
            reports[later].findings.push(Finding { kind: Kind::RolledBack, record: None, what });
            reports[later].verdict = Verdict::Tampered;
        }
    }
    Ok(())
}
