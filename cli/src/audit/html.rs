//! The report of an audit as one HTML file: for a privacy officer, without network, on paper and on a phone.

use std::fmt::Write;

use skep_privacy::audit::{Checked, Epoch, Moment, Report, Together, Verdict};
use skep_privacy::ledger::{Basis, examples_text, mechanism_text, query_text};
use skep_privacy::quantities::Epsilon;

use super::text::{self, all_epochs, ledger, number, provenance};
use crate::page::{self, Chart, Look, Series, escaped, facts};

/// The page of one ledger.
pub(super) fn page(report: &Report) -> String {
    let word = word(report.verdict).0;
    page::page(
        &format!("Privacy audit: {word}"),
        STYLE,
        &format!("<header>{SEAL}<h1>Privacy audit</h1></header>\n{}{EXPLANATION}", sections(report)),
    )
}

/// The page of several ledgers, each with the name that it was given by.
pub(super) fn pages(reports: &[(String, &Report)], together: &Together) -> String {
    let gravest = reports.iter().map(|(_, report)| report.verdict).max().unwrap_or(Verdict::Ok);
    let mut body = format!(
        "<header>{SEAL}<div><h1>Privacy audit</h1><p class=\"soft\">{} ledgers</p></div></header>\n{}",
        reports.len(),
        verdict_line(gravest)
    );
    let _ = writeln!(
        body,
        "<h2>Together</h2>\n<div class=\"card promise\"><p>{}.</p>",
        sentence(&text::together(together.sum.as_ref()))
    );
    for (one, other) in &together.same_roster {
        let [one, other] = [one, other].map(|at| escaped(&reports[*at].0));
        let _ = writeln!(body, "<p>{one} and {other} are about the same clients.</p>");
    }
    body += "</div>\n";
    for (name, report) in reports {
        let _ = writeln!(
            body,
            "<section>\n<h2 class=\"ledger\">{}</h2>\n{}</section>",
            escaped(name),
            sections(report)
        );
    }
    page::page(&format!("Privacy audit: {}", word(gravest).0), STYLE, &(body + EXPLANATION))
}

fn sections(report: &Report) -> String {
    let mut html = verdict_line(report.verdict);
    html += &findings(report);
    html += &answers(report);
    html += &pictures(report);
    for (at, epoch) in report.epochs.iter().enumerate() {
        html += &epoch_table(at, epoch, report.epochs.len() > 1);
    }
    html += &checks(report);
    html + &identity(report)
}

fn verdict_line(verdict: Verdict) -> String {
    let (word, colour) = word(verdict);
    format!(
        "<p class=\"card verdict {colour}\"><strong>{word}.</strong> {}.</p>\n",
        sentence(text::verdict(verdict))
    )
}

const fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Ok => ("Passed", "teal"),
        Verdict::Unverifiable => ("Not certified", "honey"),
        Verdict::Mismatch => ("False claim", "rose"),
        Verdict::OverBudget => ("Over budget", "rose"),
        Verdict::Tampered => ("Tampered", "rose"),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn findings(report: &Report) -> String {
    if report.findings.is_empty() {
        return String::new();
    }
    let items: String =
        report.findings.iter().map(|finding| format!("<li>{}</li>\n", escaped(&finding.what))).collect();
    format!("<h2>What is wrong</h2>\n<div class=\"card\"><ul>\n{items}</ul></div>\n")
}

/// The two numbers, big.
fn answers(report: &Report) -> String {
    let Some(epoch) = report.epochs.last() else { return String::new() };
    let Some(budget) = &epoch.terms.budget else {
        return "<p>This ledger promises nothing: nobody added noise.</p>\n".to_owned();
    };
    let card = |whom: &str, spent: Epsilon, limit: Epsilon| {
        let limit =
            if limit.is_finite() { format!("of {} allowed", limit) } else { "no limit was set".to_owned() };
        let value =
            if spent.is_finite() { format!("ε = {:.4}", spent.get()) } else { "no protection".to_owned() };
        format!(
            "<div class=\"card\"><dt>{whom}</dt><dd class=\"honey\">{value}</dd><small>{limit}</small></div>\n"
        )
    };
    let mut html = "<dl class=\"grid numbers\">\n".to_owned();
    html += &card("What those who receive a model can learn", epoch.recomputed.0, budget.limit_release);
    html += &card("What the server itself can learn", epoch.recomputed.1, budget.limit_server);
    html += "</dl>\n";
    let _ = writeln!(
        html,
        "<p class=\"soft\">At δ = {}, for one {} of {}, recomputed from the records. {} rounds were charged.</p>",
        budget.delta,
        budget.unit,
        report.population.map_or(0, |population| population.size),
        report.rounds.reserved - report.rounds.refunded
    );
    if report.epochs.len() > 1 {
        let _ = writeln!(html, "<p>Over all {} epochs: {}.</p>", report.epochs.len(), all_epochs(report));
    }
    html
}

fn epoch_table(at: usize, epoch: &Epoch, many: bool) -> String {
    let title = if many { format!("Epoch {}", at + 1) } else { "The budget".to_owned() };
    let terms = &epoch.terms;
    let claimed =
        epoch.claimed.map_or(("–".to_owned(), "–".to_owned()), |pair| (number(pair.0), number(pair.1)));
    let mut rows = vec![
        ("Began because", epoch.reason.clone().unwrap_or_else(|| "it is the first".to_owned())),
        ("Trust mode", terms.mode.as_str().to_owned()),
        (
            "Single examples",
            terms.examples.as_ref().map_or_else(|| "no promise of their own".to_owned(), examples_text),
        ),
        ("Noise as scheduled", mechanism_text(&terms.schedule.mechanism)),
        ("Invited", terms.schedule.sampling.to_string()),
        ("Queries as scheduled", terms.schedule.query.as_ref().map_or_else(|| "none".to_owned(), query_text)),
        ("Rounds and queries charged", epoch.rounds.to_string()),
        ("Of these, queries", epoch.queries.to_string()),
        ("Rounds not as scheduled", epoch.off_schedule.to_string()),
        (
            "Rule of epsilon",
            match epoch.basis {
                Basis::Schedule => "fixed in advance: the tightest accountant",
                Basis::Filter => "departed from: the Rényi filter",
            }
            .to_owned(),
        ),
        ("Against recipients: stated", claimed.0),
        ("Against recipients: recomputed", number(epoch.recomputed.0)),
        ("Against recipients: second accountant", number(epoch.renyi.0)),
        ("Against the server: stated", claimed.1),
        ("Against the server: recomputed", number(epoch.recomputed.1)),
    ];
    if !many {
        rows.remove(0);
    }
    format!("<h2>{title}</h2>\n{}", table(rows))
}

fn checks(report: &Report) -> String {
    let row = |checked: &Checked| {
        let word = match checked.done {
            true => "<span class=\"teal\">checked</span>",
            false => "<span class=\"honey\">not checked</span>",
        };
        (word, escaped(&checked.detail))
    };
    format!("<h2>What was checked</h2>\n{}", facts(report.checked.iter().map(row)))
}

fn identity(report: &Report) -> String {
    let mut rows = vec![("Ledger", ledger(report)), ("Where", provenance(report).to_owned())];
    if let Some(key) = &report.key {
        let pinned = if key.pinned { "given by the auditor" } else { "from the ledger itself, not pinned" };
        rows.push(("Key", format!("{} ({pinned})", key.fingerprint)));
    }
    if let Some(root) = &report.root {
        rows.push(("Root", root.to_string()));
    }
    if let Some(software) = &report.software {
        rows.push(("Begun by", software.clone()));
    }
    format!("<h2>Which ledger</h2>\n{}", table(rows))
}

fn table(rows: Vec<(&str, String)>) -> String {
    facts(rows.into_iter().map(|(name, value)| (name, escaped(&value))))
}

fn pictures(report: &Report) -> String {
    let points = |value: &dyn Fn(&Moment) -> Option<f64>| -> Vec<(f64, f64)> {
        report.moments.iter().filter_map(|moment| Some((moment.round as f64, value(moment)?))).collect()
    };
    let stated = points(&|moment| Some(moment.claimed.get()));
    let recomputed = points(&|moment| moment.recomputed.map(|recomputed| recomputed.get()));
    let limit = points(&|moment| moment.limit.map(|limit| limit.get()));
    let cohort = points(&|moment| moment.cohort.map(f64::from));
    let noise = points(&|moment| moment.noise_multiplier);
    let charts = [
        (
            "Epsilon against recipients",
            vec![
                Series::line("stated", "teal", stated.clone()),
                Series { look: Look::Limit, ..Series::line("the limit", "rose", limit) },
            ],
        ),
        (
            "Stated against recomputed",
            vec![
                Series::line("stated", "teal", stated),
                Series { look: Look::Dots, ..Series::line("recomputed", "honey", recomputed) },
            ],
        ),
        ("Clients invited to a round", vec![Series::line("cohort", "teal", cohort)]),
        ("Noise over sensitivity", vec![Series::line("noise multiplier", "honey", noise)]),
    ]
    .map(|(title, series)| Chart::of_rounds(title, series).html())
    .concat();
    match charts.is_empty() {
        true => charts,
        false => format!("<h2>Round by round</h2>\n<div class=\"grid wide\">\n{charts}</div>\n"),
    }
}

const STYLE: &str = "\
.verdict { margin-top: 1.2rem; border-left: .4rem solid currentColor; font-size: 1.1rem }
h2.ledger { font-size: 1.4rem; margin-top: 3.2rem; overflow-wrap: anywhere }
.numbers + p { margin-top: .8rem } ul { margin: 0; padding-left: 1.2rem; overflow-wrap: anywhere }
";
/// A sheet with a tick.
const SEAL: &str = "<svg viewBox=\"0 0 64 64\" aria-hidden=\"true\"><path style=\"stroke:currentColor;stroke-width:4;stroke-linejoin:round;\
    stroke-linecap:round\" d=\"M14 6h26l10 10v42H14zM40 6v10h10M23 36l7 7 12-14\"/></svg>";

const EXPLANATION: &str = "\
<h2>How to read this</h2>
<p>Epsilon bounds how much more likely any observation becomes because one client took part: by a factor of at most
e<sup>ε</sup>, except with probability δ. Smaller is better. The first number holds against everybody who receives the
models; the second against the server that trains them. They are never added.</p>
<p>The ledger shows what was charged before each round, in what order, and by whose key. It does not show that the server
added the noise it signed for, nor that its key is the right one if no key was given, nor that the end of the file was not
cut off if no checkpoint was given.</p>
";
#[cfg(test)]
mod tests {
    use skep_privacy::audit::{Given, audit};

    use super::*;

    #[test]
    fn a_page_of_an_unreadable_file_is_a_page_and_names_cannot_end_a_tag() {
        let mut report = audit(b"no ledger", &Given::default());
        report.findings[0].what = "<script>".to_owned();
        let page = page(&report);
        assert!(
            page.contains("&lt;script&gt;")
                && page.matches("<script").count() == 1
                && page.ends_with("</html>\n"),
            "{page}"
        );
    }
}
