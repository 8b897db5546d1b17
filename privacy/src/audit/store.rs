//! What an auditor checks who has a client's own list of participations: that the ledger is the one the client was shown, and
//! that it was charged what the client was promised.

use std::collections::BTreeMap;

use super::report::{Checked, Finding, Kind, Part, Report, Rollback};
use crate::ledger::{Body, Hash, Reserve, Tree, replay, replay_attendance};
use crate::quantities::Epsilon;

/// One participation, as the client wrote it down before it sent anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Participated {
    /// The name of the ledger.
    pub origin: String,
    /// The task.
    pub task: Hash,
    /// The round, of a query the one before it.
    pub round: u64,
    /// Whether it was a query.
    pub is_query: bool,
    /// The plan.
    pub plan: Hash,
    /// As promised against recipients, this round included.
    pub epsilon_release: Epsilon,
    /// As promised against the server, this round included.
    pub epsilon_server: Epsilon,
    /// Records of the ledger at the checkpoint in the plan, the charge of the round being the last.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Compares the participations of one client, `name` for people, with the ledger, and adds to `report` what it finds.
pub fn audit_store(contents: &[u8], name: &str, store: &[Participated], report: &mut Report) {
    let (mut tree, mut charges, mut plans) = (Tree::default(), BTreeMap::new(), BTreeMap::new());
    // Where reading stops early, that is a finding already.
    let _ = replay(contents, |record, _, hash| {
        tree.push(hash);
        match &record.body {
            Body::Reserve(reserve) => drop(charges.insert(record.seq, reserve.clone())),
            Body::Settle(settle) => drop(plans.insert(settle.reserve, settle.plan)),
            _ => {}
        }
    });
    let ours: Vec<&Participated> =
        store.iter().filter(|one| report.origin.as_deref() == Some(&one.origin)).collect();
    for one in &ours {
        let wrong = compare(one, &tree, &charges, &plans);
        report.findings.extend(wrong.map(|(kind, record, what)| Finding {
            kind,
            record: Some(record),
            what: format!(
                "{name}, {}round {}: {what}",
                if one.is_query { "query after " } else { "" },
                one.round
            ),
        }));
    }
    report.findings.extend(too_often(contents, name, &ours));
    let detail = if ours.is_empty() {
        format!("{name} has no participation in this ledger")
    } else {
        format!("{} participations in {name} compared with the charges of their rounds", ours.len())
    };
    report.checked.push(Checked { part: Part::Store, done: !ours.is_empty(), detail });
    if !ours.is_empty() && report.rollback == Rollback::NotChecked {
        report.rollback = Rollback::Checked(ours.len());
        report.checked.retain(|checked| checked.part != Part::Rollback);
        let detail = format!("compared with the checkpoints in {name}");
        report.checked.push(Checked { part: Part::Rollback, done: true, detail });
    }
    report.judge();
}

fn compare(
    one: &Participated,
    tree: &Tree,
    charges: &BTreeMap<u64, Reserve>,
    plans: &BTreeMap<u64, Hash>,
) -> Option<(Kind, u64, String)> {
    let at = one.size.saturating_sub(1);
    let Some(root) = tree.root(one.size) else {
        let what = format!("the client was shown {} records, and the ledger has fewer", one.size);
        return Some((Kind::RolledBack, at, what));
    };
    if root != one.root {
        let what = format!("the history up to record {at} is another than the one that the client was shown");
        return Some((Kind::RolledBack, at, what));
    }
    let charged = charges.get(&at).filter(|charge| {
        (charge.round, charge.task, !charge.occasion.is_round()) == (one.round, one.task, one.is_query)
    });
    let Some(charge) = charged else {
        return Some((Kind::Mismatch, at, format!("record {at} is not the charge of this round")));
    };
    for (whom, promised, stated) in [
        ("recipients", one.epsilon_release, charge.epsilon_release),
        ("the server", one.epsilon_server, charge.epsilon_server),
    ] {
        if promised != stated {
            let what = format!(
                "the client was promised epsilon {promised:.6} against {whom}, and record {at} states {stated:.6}"
            );
            return Some((Kind::Mismatch, at, what));
        }
    }
    let other = plans.get(&at).is_some_and(|plan| *plan != one.plan);
    other.then(|| {
        (Kind::Mismatch, at, "something was released under another plan than the client's".to_owned())
    })
}

/// The client counts its own rounds, for which nobody has to show it a list of cohorts.
fn too_often(contents: &[u8], name: &str, ours: &[&Participated]) -> Vec<Finding> {
    const IT: u64 = 0;
    let rounds = ours.iter().map(|one| (one.size.saturating_sub(1), vec![IT])).collect();
    let mut findings = Vec::new();
    replay_attendance(contents, &rounds, |attended| {
        if let Some((_, excess)) = attended.excess {
            let record = attended.record;
            let what = format!(
                "{name}: the client was in the round of record {record}, and should not have been: {excess}"
            );
            findings.push(Finding { kind: Kind::Mismatch, record: Some(record), what });
        }
    });
    findings
}
