//! The report of an audit as one HTML file: for a privacy officer, without network, on paper and on a phone.

use std::fmt::Write;

use skep_privacy::audit::{Epoch, Moment, Report, Verdict};
use skep_privacy::ledger::{Basis, mechanism_text};

use super::text::{all_epochs, ledger, number, provenance, verdict};
use crate::report_page::{escaped, nice_limit};

/// The page.
pub(super) fn page(report: &Report) -> String {
    let (word, class) = word(report.verdict);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Privacy audit: {word}</title>\n\
         {STYLE}\n</head>\n<body>\n<h1>Privacy audit</h1>\n<p class=\"verdict {class}\"><strong>{word}.</strong> {}.</p>\n",
        sentence(verdict(report.verdict))
    );
    page += &findings(report);
    page += &answers(report);
    page += &pictures(report);
    for (at, epoch) in report.epochs.iter().enumerate() {
        page += &epoch_table(at, epoch, report.epochs.len() > 1);
    }
    page += &checks(report);
    page += &identity(report);
    page + EXPLANATION + "</body>\n</html>\n"
}

const fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Ok => ("Passed", "good"),
        Verdict::Unverifiable => ("Not certified", "doubt"),
        Verdict::Mismatch => ("False claim", "bad"),
        Verdict::OverBudget => ("Over budget", "bad"),
        Verdict::Tampered => ("Tampered", "bad"),
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
    format!("<h2>What is wrong</h2>\n<ul>\n{items}</ul>\n")
}

/// The two numbers, big.
fn answers(report: &Report) -> String {
    let Some(epoch) = report.epochs.last() else { return String::new() };
    let Some(budget) = &epoch.terms.budget else {
        return "<p>This ledger promises nothing: nobody added noise.</p>\n".to_owned();
    };
    let card = |whom: &str,
                spent: skep_privacy::quantities::Epsilon,
                limit: skep_privacy::quantities::Epsilon| {
        let limit =
            if limit.is_finite() { format!("of {} allowed", limit) } else { "no limit was set".to_owned() };
        format!(
            "<div class=\"card\"><p>{whom}</p><p class=\"big\">{}</p><p>{limit}</p></div>\n",
            if spent.is_finite() { format!("ε = {:.4}", spent.get()) } else { "no protection".to_owned() }
        )
    };
    let mut html = "<div class=\"cards\">\n".to_owned();
    html += &card("What those who receive a model can learn", epoch.recomputed.0, budget.limit_release);
    html += &card("What the server itself can learn", epoch.recomputed.1, budget.limit_server);
    html += "</div>\n";
    let _ = writeln!(
        html,
        "<p>At δ = {}, for one {} of {}, recomputed from the records. {} rounds were charged.</p>",
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
        ("Noise as scheduled", mechanism_text(&terms.schedule.mechanism)),
        ("Invited", terms.schedule.sampling.to_string()),
        ("Rounds charged", epoch.rounds.to_string()),
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
    format!("<h2>{title}</h2>\n{}", table(&rows))
}

fn checks(report: &Report) -> String {
    let items: String = report
        .checked
        .iter()
        .map(|checked| {
            let (class, word) = if checked.done { ("good", "checked") } else { ("doubt", "not checked") };
            format!("<tr><th class=\"{class}\">{word}</th><td>{}</td></tr>\n", escaped(&checked.detail))
        })
        .collect();
    format!("<h2>What was checked</h2>\n<table>\n{items}</table>\n")
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
    format!("<h2>Which ledger</h2>\n{}", table(&rows))
}

fn table(rows: &[(&str, String)]) -> String {
    let rows: String = rows
        .iter()
        .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(value)))
        .collect();
    format!("<table>\n{rows}</table>\n")
}

/// A curve of a picture: its class, its name, and its points.
type Curve<'a> = (&'static str, &'static str, Vec<(f64, f64)>, &'a str);

fn pictures(report: &Report) -> String {
    let moments = &report.moments;
    if moments.is_empty() {
        return String::new();
    }
    let points = |value: &dyn Fn(&Moment) -> Option<f64>| -> Vec<(f64, f64)> {
        let finite = |moment: &Moment| value(moment).filter(|value| value.is_finite());
        moments.iter().filter_map(|moment| Some((moment.round as f64, finite(moment)?))).collect()
    };
    let limit = points(&|moment| moment.limit.map(|limit| limit.get()));
    let claimed = points(&|moment| Some(moment.claimed.get()));
    let recomputed = points(&|moment| moment.recomputed.map(|recomputed| recomputed.get()));
    let cohort = points(&|moment| moment.cohort.map(f64::from));
    let noise = points(&|moment| moment.noise_multiplier);
    let mut html = String::new();
    if !claimed.is_empty() {
        html += &figure(
            "Epsilon against recipients, over the rounds",
            &[("limit", "the limit", limit, "line"), ("one", "stated", claimed.clone(), "line")],
        );
        html += &figure(
            "Stated against recomputed",
            &[("one", "stated", claimed, "line"), ("two", "recomputed", recomputed, "dots")],
        );
    }
    if !cohort.is_empty() {
        html += &figure("Clients invited to a round", &[("one", "cohort", cohort, "line")]);
    }
    if !noise.is_empty() {
        html += &figure("Noise over sensitivity", &[("two", "noise multiplier", noise, "line")]);
    }
    format!("<h2>Round by round</h2>\n<div class=\"figures\">\n{html}</div>\n")
}

fn figure(title: &str, curves: &[Curve<'_>]) -> String {
    let all = || curves.iter().flat_map(|(_, _, points, _)| points);
    let last = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let most = nice_limit(all().map(|(_, y)| *y).fold(0.0, f64::max));
    let x = |round: f64| LEFT + (RIGHT - LEFT) * if last > 1.0 { (round - 1.0) / (last - 1.0) } else { 0.5 };
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / most;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {:.1}H{RIGHT}\"/>", y(value));
        let _ = writeln!(
            svg,
            "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{value}</text>",
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">round 1</text>", BOTTOM + 20.0);
    let _ = writeln!(svg, "<text class=\"end\" x=\"{RIGHT}\" y=\"{}\">round {last}</text>", BOTTOM + 20.0);
    for (class, _, points, kind) in curves {
        if *kind == "line" {
            let path: Vec<String> =
                points.iter().map(|(round, value)| format!("{:.1},{:.1}", x(*round), y(*value))).collect();
            let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
        }
        if *kind == "dots" || points.len() == 1 {
            for (round, value) in points {
                let _ = writeln!(
                    svg,
                    "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>round {round}: {value}</title></circle>",
                    x(*round),
                    y(*value)
                );
            }
        }
    }
    let key: String = curves
        .iter()
        .filter(|(_, _, points, _)| !points.is_empty())
        .map(|(class, name, ..)| format!("<span class=\"key {class}\">{name}</span> "))
        .collect();
    format!("<figure>\n<figcaption>{title}<br>{key}</figcaption>\n{svg}</svg>\n</figure>\n")
}

const STYLE: &str = "\
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --soft: #666; --grid: #ddd; --one: #0a6c74; --two: #b4540a; --limit: #a3182c; --good: #1d6b2f; --bad: #a3182c; --doubt: #8a5a00 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #ddd; --soft: #9aa4ac; --grid: #333a40; --one: #5cc8d0; --two: #f0a35e; --limit: #ff7b89; --good: #7fd494; --bad: #ff7b89; --doubt: #e8c069 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
.verdict { font-size: 1.1rem; border-left: .4rem solid; padding: .4rem .8rem; margin: .5rem 0 1rem }
.good { color: var(--good) } .bad { color: var(--bad) } .doubt { color: var(--doubt) }
.cards, .figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem }
.card { border: 1px solid var(--grid); border-radius: .5rem; padding: .5rem 1rem } .card p { margin: .2rem 0; color: var(--soft) }
.card .big { font-size: 1.7rem; color: var(--ink); font-variant-numeric: tabular-nums }
figure { margin: 0 } figcaption { font-weight: 600 } svg { width: 100%; height: auto }
text { font-size: 13px; fill: var(--ink) } .end { text-anchor: end } .grid { stroke: var(--grid) }
polyline { fill: none; stroke-width: 2 } polyline.one { stroke: var(--one) } polyline.two { stroke: var(--two) }
polyline.limit { stroke: var(--limit); stroke-dasharray: 6 4 } circle.one { fill: var(--one) } circle.two { fill: var(--two) }
.key { font-weight: 400; font-size: .9rem; margin-right: .6rem } .key::before { content: \"\u{25a0} \" }
.key.one { color: var(--one) } .key.two { color: var(--two) } .key.limit { color: var(--limit) }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; font-weight: 400; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--grid); overflow-wrap: anywhere }
th { width: 14rem } td { font-variant-numeric: tabular-nums }
@media (max-width: 30rem) { th, td { display: block; width: auto; border: 0; padding: 0 } td { border-bottom: 1px solid var(--grid); padding-bottom: .4rem; margin-bottom: .3rem } }
</style>";

const EXPLANATION: &str = "\
<h2>How to read this</h2>
<p>Epsilon bounds how much more likely any observation becomes because one client took part: by a factor of at most
e<sup>ε</sup>, except with probability δ. Smaller is better. The first number holds against everybody who receives the
models; the second against the server that trains them. They are never added.</p>
<p>The ledger shows what was charged before each round, in what order, and by whose key. It does not show that the server
added the noise it signed for, nor that its key is the right one if no key was given, nor that the end of the file was not
cut off if no checkpoint was given.</p>
";
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 470.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 226.0;

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
            page.contains("&lt;script&gt;") && !page.contains("<script>") && page.ends_with("</html>\n"),
            "{page}"
        );
    }
}
