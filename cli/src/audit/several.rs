//! Several ledgers in one audit: each by itself, and what they cost together.

use serde_json::json;
use skep_privacy::audit::{Finding, Kind, Report, Summed, Verdict, audit_file, together};
use skep_privacy::ledger::{SignedCheckpoint, Tree, replay};

use super::{Audit, conclude, given, ledger_path, read, store, text};
use crate::arguments::Output;
use crate::failure::Failure;

/// Audits every ledger that was named, and prints the sum.
///
/// # Errors
/// [`Failure::Audit`] with the gravest verdict, [`Failure::AuditUsage`] for an option that is about one ledger.
pub(super) fn run(arguments: &Audit) -> Result<(), Failure> {
    for (option, given) in [
        ("--model", arguments.model.is_some()),
        ("--sealed", arguments.sealed.is_some()),
        ("--participants", arguments.participants.is_some()),
        ("--html", arguments.html.is_some()),
    ] {
        if given {
            return Err(Failure::AuditUsage(format!("{option} is about one ledger: audit them one by one")));
        }
    }
    let given = given(arguments)?;
    let mut reports = Vec::new();
    for named in &arguments.ledger {
        let contents = read(&ledger_path(named))?;
        let origin = replay(&contents, |_, _, _| {}).map(|(state, _)| state.genesis().origin.clone()).ok();
        // A checkpoint is of the ledger that it names.
        let mut own = given.clone();
        own.checkpoints.retain(|(_, note)| match SignedCheckpoint::parse(note) {
            Ok(note) => origin.as_deref().is_none_or(|origin| note.unverified().origin == origin),
            Err(_) => true,
        });
        let mut report = audit_file(contents, &own);
        if let Some(named_store) = &arguments.store {
            store::compare(named_store, &read(&ledger_path(named))?, &mut report)?;
        }
        reports.push(report);
    }
    compare_copies(arguments, &mut reports)?;
    let all = together(&reports);
    match arguments.output {
        Output::Json => println!("{}", json!({ "ledgers": reports, "together": all })),
        Output::Text => {
            for (named, report) in arguments.ledger.iter().zip(&reports) {
                print!("{:<12}{}\n{}\n", "file", named.display(), text::report(report));
            }
            println!("{:<12}{}", "together", sum(all.sum.as_ref()));
            for (one, other) in all.same_roster {
                let [one, other] = [one, other].map(|at| arguments.ledger[at].display());
                println!("{:<12}{one} and {other} are about the same clients", "");
            }
        }
    }
    conclude(reports.iter().map(|report| report.verdict).max().unwrap_or(Verdict::Ok))
}

fn sum(sum: Option<&Summed>) -> String {
    match sum {
        Some(sum) => format!(
            "epsilon {} against recipients, {} against the servers at delta {}, for whoever is in all of them",
            text::number(sum.epsilon_release),
            text::number(sum.epsilon_server),
            sum.delta
        ),
        None => "not added: they promise nothing, or are about different units or adjacencies".to_owned(),
    }
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
