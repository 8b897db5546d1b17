//! The report of an audit, for people.

use std::fmt::Write;

use skep_privacy::audit::{Epoch, Report, Summed, Verdict};
use skep_privacy::ledger::{Basis, Provenance, examples_text, mechanism_text, query_text};
use skep_privacy::quantities::Epsilon;

/// The whole report.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12}{value}");
    };
    line("verdict", verdict(report.verdict));
    for finding in &report.findings {
        line("finding", &finding.what);
    }
    line("ledger", &ledger(report));
    for (number, epoch) in report.epochs.iter().enumerate() {
        if report.epochs.len() > 1 {
            let reason = epoch.reason.as_deref().unwrap_or("the beginning");
            line("epoch", &format!("{}: {reason} (record {})", number + 1, epoch.record));
        }
        for (label, value) in lines(epoch) {
            line(label, &value);
        }
    }
    if report.epochs.len() > 1 {
        line("all epochs", &all_epochs(report));
    }
    for checked in &report.checked {
        line(if checked.done { "checked" } else { "NOT CHECKED" }, &checked.detail);
    }
    text
}

/// A verdict in a sentence.
pub(super) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "everything that was checked holds",
        Verdict::Unverifiable => "nothing is wrong, and nothing is certified",
        Verdict::Mismatch => "a claim about privacy is not true",
        Verdict::OverBudget => "more was spent than the limit allows",
        Verdict::Tampered => "the ledger is not what was written",
    }
}

/// What ledger it is.
pub(super) fn ledger(report: &Report) -> String {
    let origin = report.origin.as_deref().unwrap_or("unreadable");
    let clients = report.population.map_or(0, |population| population.size);
    format!("{origin}: {} records, {clients} clients, {}", report.records, provenance(report))
}

/// Where the rounds happened.
pub(super) const fn provenance(report: &Report) -> &'static str {
    match report.provenance {
        None => "of unknown provenance",
        Some(Provenance::Deployment) => "a deployment",
        Some(Provenance::Simulation) => "a simulation",
        Some(Provenance::SeededSimulation) => "a simulation with a known seed",
    }
}

/// An epoch in lines with labels.
pub(super) fn lines(epoch: &Epoch) -> Vec<(&'static str, String)> {
    let terms = &epoch.terms;
    let mut lines = vec![(
        "promise",
        match (&terms.budget, &terms.examples) {
            (None, None) => "none".to_owned(),
            (None, Some(examples)) => format!("none of whole clients; {}", examples_text(examples)),
            (Some(budget), _) => format!(
                "mode {}, unit {}, adjacency {}, delta {}, limit {} against recipients, {} against the server",
                terms.mode.as_str(),
                budget.unit,
                budget.adjacency,
                budget.delta,
                number(budget.limit_release),
                number(budget.limit_server)
            ),
        },
    )];
    lines.push((
        "schedule",
        format!("{}, invited: {}", mechanism_text(&terms.schedule.mechanism), terms.schedule.sampling),
    ));
    if let Some(query) = &terms.schedule.query {
        lines.push(("queries", query_text(query)));
    }
    let off = match epoch.off_schedule {
        0 => String::new(),
        rounds => format!(", {rounds} of them not as scheduled"),
    };
    lines.push(("rounds", format!("{} charged{off}", epoch.rounds)));
    let claimed = epoch.claimed.unwrap_or((Epsilon::ZERO, Epsilon::ZERO));
    let rule = match epoch.basis {
        Basis::Schedule => "",
        Basis::Filter => " by the Rényi filter",
    };
    for (label, claimed, recomputed, renyi) in [
        ("recipients", claimed.0, epoch.recomputed.0, epoch.renyi.0),
        ("server", claimed.1, epoch.recomputed.1, epoch.renyi.1),
    ] {
        let value = format!(
            "epsilon {} stated, {} recomputed{rule}, {} by the second accountant",
            number(claimed),
            number(recomputed),
            number(renyi)
        );
        lines.push((label, value));
    }
    lines
}

/// What somebody who was in every epoch lost.
pub(super) fn all_epochs(report: &Report) -> String {
    match &report.all_epochs {
        Some(sum) => format!(
            "epsilon {} against recipients, {} against the server at delta {}, for whoever was in all of them",
            number(sum.epsilon_release),
            number(sum.epsilon_server),
            in_short(sum.delta)
        ),
        None => "not added: they are about different units, adjacencies or deltas".to_owned(),
    }
}

/// What several ledgers cost together.
pub(super) fn together(sum: Option<&Summed>) -> String {
    match sum {
        Some(sum) => format!(
            "epsilon {} against recipients, {} against the servers at delta {}, for whoever is in all of them",
            number(sum.epsilon_release),
            number(sum.epsilon_server),
            in_short(sum.delta)
        ),
        None => "not added: they promise nothing, or are about different units or adjacencies".to_owned(),
    }
}

/// A sum of deltas, without the last digits that adding leaves.
fn in_short(delta: f64) -> f64 {
    format!("{delta:.9e}").parse().unwrap_or(delta)
}

/// An epsilon with six digits behind the point.
pub(super) fn number(epsilon: Epsilon) -> String {
    if epsilon.is_finite() { format!("{:.6}", epsilon.get()) } else { "infinite".to_owned() }
}
