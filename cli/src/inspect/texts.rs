//! Files of texts: how many, how long, whose, and what a model knows of their words. Nothing of what stands in them.

use std::path::Path;

use serde_json::json;
use skep_learning::inspect::{Flaws, ValuesReport};
use skep_learning::text::{Column, Coverage, Fields, Format, Layout, TextsReport, inspect};

use super::{Lines, clients_text, label_json, label_text};
use crate::arguments::{Inspect, TextLayout};
use crate::failure::Failure;
use crate::page::spread;

/// Where the texts of `path` stand, if it is a file of texts: the command line says so, or its name does.
///
/// # Errors
/// [`Failure::Usage`] when nobody says which column they are.
pub(super) fn layout(arguments: &Inspect) -> Result<Option<Layout>, Failure> {
    let by_name = || match name(&arguments.file) {
        name if name.ends_with(".tsv") => Some(TextLayout::Tsv),
        name if name.ends_with(".jsonl") => Some(TextLayout::Jsonl),
        _ => arguments.text.as_ref().map(|_| TextLayout::Csv),
    };
    let format = match arguments.format.or_else(by_name) {
        None => return Ok(None),
        Some(TextLayout::Speakers) => return Ok(Some(Layout::Speakers)),
        Some(TextLayout::Csv) => Format::Csv,
        Some(TextLayout::Tsv) => Format::Tsv,
        Some(TextLayout::Jsonl) => Format::Jsonl,
    };
    let text = match (&arguments.text, format) {
        (Some(column), _) => column.as_str(),
        (None, Format::Jsonl) => "text",
        (None, _) => {
            return Err(Failure::Usage {
                problem: format!("{}: which column holds the texts?", arguments.file.display()),
                help: Some(
                    "name it with --text COLUMN, or say its number, from 1, in a file without a header line"
                        .to_owned(),
                ),
            });
        }
    };
    let column = |column: &str| match (column.parse(), format) {
        (Ok(number @ 1_u32..), Format::Csv | Format::Tsv) => Column::Number(number),
        _ => Column::Name(column.to_owned()),
    };
    let (label, client) = (arguments.label.as_deref().map(column), arguments.client.as_deref().map(column));
    Ok(Some(Layout::Records(Fields { format, text: column(text), label, client })))
}

/// The name of a file without what says how it is packed.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".sealed").unwrap_or(&name);
    name.strip_suffix(".gz").unwrap_or(name).to_owned()
}

/// What texts are without an experiment.
///
/// # Errors
/// [`Failure::Usage`], which names file and line.
pub(super) fn plain(path: &Path, layout: &Layout) -> Result<(String, serde_json::Value), Failure> {
    let report = inspect(path, layout, None).map_err(Failure::configuration)?;
    Ok(told(path, &report))
}

/// What is said of texts.
pub(super) fn told(path: &Path, report: &TextsReport) -> (String, serde_json::Value) {
    let mut lines = Lines::default();
    lines.add("file", format!("{}, texts", path.display()));
    lines.add("examples", report.examples.to_string());
    lines.add("missing", flaws(report.missing));
    lines.add("no words", flaws(report.wordless));
    lines.add("repeated", flaws(report.repeated));
    if let Some(length) = &report.length {
        lines.add("length", format!("{} words", spread(length, 1)));
    }
    lines.add("words", format!("{} different", report.words));
    match &report.coverage {
        None => lines.add("vocabulary", "--experiment FILE says which words are known".to_owned()),
        Some(coverage) => covered(&mut lines, coverage),
    }
    match &report.label {
        Some(label) => lines.add("label", with_missing(label, label_text(label))),
        None => lines.add("label", "no column was named; --label COLUMN names one".to_owned()),
    }
    match &report.client {
        Some(client) => lines.add("clients", with_missing(client, clients_text(client))),
        None => lines.add("clients", "no column was named; --client COLUMN names one".to_owned()),
    }
    let label = report.label.as_ref().map(label_json);
    let json = json!({
        "format": "text",
        "examples": report.examples,
        "missing": report.missing,
        "wordless": report.wordless,
        "repeated": report.repeated,
        "length": report.length,
        "words": report.words,
        "coverage": report.coverage,
        "label": label,
        "client": report.client,
    });
    (lines.0, json)
}

fn covered(lines: &mut Lines, coverage: &Coverage) {
    let Coverage { vocabulary, used, known, unknown_texts, length, longer, parts } = coverage;
    let known =
        known.map_or("no words to know".to_owned(), |known| format!("{:.2} % of all words", 100.0 * known));
    lines.add(
        "vocabulary",
        format!("{known} are known; {used} of {vocabulary} known words occur; {unknown_texts} texts have none of them"),
    );
    if let Some(longer) = longer {
        lines.add(
            "cut",
            format!("{longer} texts have more than {length} known words: what follows does not count"),
        );
    }
    if let Some(parts) = parts {
        lines.add(
            "parts",
            format!("{parts} of at most {length} known words, each with the word that follows"),
        );
    }
}

fn flaws(flaws: Flaws) -> String {
    match flaws {
        Flaws { count: 0, .. } => "none".to_owned(),
        Flaws { count, first_line: None } => count.to_string(),
        Flaws { count, first_line: Some(line) } => format!("{count}, first in line {line}"),
    }
}

fn with_missing(values: &ValuesReport, told: String) -> String {
    match values.missing.count {
        0 => told,
        _ => format!("{told}; missing: {}", flaws(values.missing)),
    }
}
