//! What an auditor checks who has the list of cohorts and the key of its pseudonyms: that nobody took part more often, or
//! sooner again, than the terms allow.

use super::report::{Checked, Finding, Kind, Part, Report};
use crate::ledger::{ParticipantsKey, cohorts, replay_attendance};

/// Compares `kept`, the list of cohorts beside the ledger, with what was signed before each round, counts the participations
/// of every client, and adds to `report` what it finds. `keys` are those of all keys that the ledger had.
pub fn audit_participation(contents: &[u8], kept: &[u8], keys: &[ParticipantsKey], report: &mut Report) {
    report.checked.retain(|checked| checked.part != Part::Participation);
    let cohorts = match cohorts(kept) {
        Ok((cohorts, _)) => cohorts,
        Err(error) => {
            let detail =
                format!("how often each client took part is not checked: the list of cohorts: {error}");
            return report.checked.push(Checked { part: Part::Participation, done: false, detail });
        }
    };
    let (mut counted, mut unknown, mut findings) = (0_u64, 0_u64, Vec::new());
    let limits = replay_attendance(contents, &cohorts, |attended| {
        let record = attended.record;
        if attended.cohort.is_none() {
            unknown += 1;
            return;
        }
        let mut found = |what| findings.push(Finding { kind: Kind::Mismatch, record: Some(record), what });
        if !attended.is_signed_for(keys) {
            return found(format!(
                "the list of cohorts does not have the cohort that record {record} was signed for, or the key is another"
            ));
        }
        counted += 1;
        if let Some((_, excess)) = attended.excess {
            found(format!("record {record} invites a client that may not be: {excess}"));
        }
    });
    report.findings.extend(findings);
    let detail = match (counted + unknown, limits) {
        (0, None) => "the terms do not limit how often a client takes part".to_owned(),
        (0, Some(_)) => "no round was charged under participation limits".to_owned(),
        (all, _) if unknown == 0 => {
            format!("the cohorts of all {all} rounds under limits were counted, client by client")
        }
        (all, _) => format!(
            "the cohorts of {unknown} of {all} rounds under limits are not in the list; whom those invited was not checked"
        ),
    };
    report.checked.push(Checked { part: Part::Participation, done: unknown == 0, detail });
    report.judge();
}
