//! Several runs on one page: their curves over one another, and what they say of themselves.

use std::fmt::Write;

use skep_protocol::experiment::Metric;
use skep_server::record::RoundRecord;

use super::drawn;
use crate::metric_words::title;
use crate::page::{Chart, Series, escaped, page};

/// A run among others.
pub(crate) struct Compared<'a> {
    /// What it is called.
    pub(crate) name: String,
    /// Its rounds.
    pub(crate) records: &'a [RoundRecord],
}

/// The page, with a curve for each of `metrics`; `rows` are a table's, its header first.
pub(crate) fn compared(runs: &[Compared<'_>], metrics: &[Metric], rows: &[Vec<String>]) -> String {
    let chart = |title: &'static str, value: &dyn Fn(&RoundRecord) -> Option<f64>, top| {
        let curve = |(number, run): (usize, &Compared<'_>)| {
            let points =
                run.records.iter().filter_map(|record| Some((record.round.0 as f64, value(record)?)));
            Series::line(&run.name, &format!("run{number}"), points.collect())
        };
        Chart { top, ..Chart::of_rounds(title, runs.iter().enumerate().map(curve).collect()) }.html()
    };
    let mut charts = String::new();
    for &metric in metrics {
        charts += &chart(title(metric), &|record| drawn(metric, record), metric.most());
    }
    charts += &chart("Worst client", &|record| Some(record.client_accuracy?.worst), Some(1.0));
    charts += &chart("ε against recipients", &|record| record.epsilon_release, None);
    charts += &chart("ε against the server", &|record| record.epsilon_server, None);
    let mut table = String::new();
    for (row, cell) in rows.iter().zip(std::iter::once("th").chain(std::iter::repeat("td"))) {
        let cells: String = row.iter().map(|text| format!("<{cell}>{}</{cell}>", escaped(text))).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "<tr>{cells}</tr>");
    }
    let heading = format!("{} runs", runs.len());
    let validated = match runs.iter().flat_map(|run| run.records).any(|record| record.validation.is_some()) {
        true => "<p class=\"soft\">Curves are of validation examples where a run has some.</p>\n",
        false => "",
    };
    let body = format!(
        "<header><div><h1>{heading}</h1><p class=\"soft\">beside one another</p></div></header>\n\
         {validated}<div class=\"grid wide\">\n{}</div>\n<h2>What they say of themselves</h2>\n\
         <div class=\"card scroll\"><table class=\"compared\">\n{table}</table></div>\n",
        charts
    );
    // The golden angle keeps neighbours apart, however many runs there are.
    let colours: String = (0..runs.len())
        .map(|run| format!(".run{run} {{ color: hsl({:.0} 65% 45%) }}\n", 200.0 + 137.5 * run as f64))
        .collect();
    let style = format!(
        "{colours}.area {{ display: none }}\nfigcaption {{ display: block }}\nfigcaption output {{ text-align: left; display: block }}\n\
         .compared th, .compared td {{ padding: .3rem .8rem .3rem 0; white-space: nowrap }}\n"
    );
    page(&heading, &style, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_every_run_has_a_colour() {
        let runs: Vec<_> =
            ["<one>", "two"].map(|name| Compared { name: name.to_owned(), records: &[] }).into();
        let html = compared(&runs, &[Metric::Accuracy], &[vec!["run".to_owned()], vec!["<one>".to_owned()]]);
        assert!(html.contains("<td>&lt;one&gt;</td>") && !html.contains("<one>"), "{html}");
        assert!(html.contains(".run1 { color: hsl(338 "), "{html}");
    }
}
