//! A client's list of participations, beside the ledger of its server.

use std::fs;
use std::path::{Path, PathBuf};

use skep_client::participations::{Participations, ParticipationsError};
use skep_privacy::audit::{Finding, Kind, Participated, Report, audit_store};
use skep_privacy::ledger::Hash;

use super::unusable;
use crate::failure::Failure;

/// Compares every list that `named` is or holds with the ledger.
///
/// # Errors
/// [`Failure::AuditUsage`] when there is none, or it cannot be read. That it was changed is a finding.
pub(super) fn compare(named: &Path, ledger: &[u8], report: &mut Report) -> Result<(), Failure> {
    for path in lists(named)? {
        let name = format!("the store {}", path.display());
        match Participations::read(&path) {
            Ok(entries) => {
                let store: Vec<Participated> = entries
                    .into_iter()
                    .map(|entry| Participated {
                        origin: entry.ledger,
                        task: Hash(entry.task.0),
                        round: entry.round.training().0,
                        is_query: entry.round.is_query(),
                        plan: Hash(entry.plan.0),
                        epsilon_release: entry.epsilon_release,
                        epsilon_server: entry.epsilon_server,
                        size: entry.size,
                        root: entry.root,
                    })
                    .collect();
                audit_store(ledger, &name, &store, report);
            }
            Err(error @ (ParticipationsError::Damaged { .. } | ParticipationsError::RolledBack { .. })) => {
                report.findings.push(Finding { kind: Kind::Tampered, record: None, what: error.to_string() });
                audit_store(ledger, &name, &[], report);
            }
            Err(ParticipationsError::Io { path, source }) => return Err(unusable(&path, source)),
            Err(error) => return Err(unusable(&path, error)),
        }
    }
    Ok(())
}

fn lists(named: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !named.is_dir() {
        return Ok(vec![named.to_owned()]);
    }
    let mut lists: Vec<PathBuf> = fs::read_dir(named)
        .map_err(|error| unusable(named, error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_none())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("participations-"))
        })
        .collect();
    lists.sort();
    if lists.is_empty() {
        return Err(Failure::AuditUsage(format!(
            "--store: {} holds no list of participations; name the --state or --participations directory of a client",
            named.display()
        )));
    }
    Ok(lists)
}
