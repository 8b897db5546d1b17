//! `skep data inspect`: what a file of examples holds, and what an experiment would say of it.

mod arrays;
mod texts;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use serde_json::json;
use skep_learning::images::files_in;
use skep_learning::inspect::{self, FeatureReport, Flaws, MAX_VALUES, TableReport, ValuesReport};
use skep_learning::parquet::{self, Parquet, Value};
use skep_learning::{Classes, csv, idx, npy, open_data};
use skep_protocol::experiment::{Data, TableAnswer, TableFormat};
use skep_simulations::inspect_texts;

use crate::arguments::{Inspect, Output};
use crate::experiment_file;
use crate::failure::Failure;

/// Runs `skep data inspect`.
///
/// # Errors
/// [`Failure::Usage`] when the file cannot be read, or is nothing that can be learned from.
pub(crate) fn run(arguments: &Inspect) -> Result<(), Failure> {
    let path = &arguments.file;
    let (text, json) = if let Some(experiment) = &arguments.experiment {
        as_experiment_says(path, experiment, arguments.data_dir.as_deref())?
    } else if path.is_dir() {
        folder(path)?
    } else if parquet::is_parquet_file(path).map_err(Failure::configuration)? {
        columns(path, arguments.label.as_deref(), arguments.client.as_deref())?
    } else if idx::is_idx(path).map_err(Failure::configuration)? {
        array(path)?
    } else if npy::is_numpy(&beginning(path)?) {
        arrays::arrays(path)?
    } else if let Some(layout) = texts::layout(arguments)? {
        texts::plain(path, &layout)?
    } else {
        refuse_others(path, &beginning(path)?)?;
        let report = table(path, arguments.label.as_deref(), arguments.client.as_deref())?;
        (table_text(path, &report), table_json(&report))
    };
    match arguments.output {
        Output::Text => print!("{text}"),
        Output::Json => println!("{json}"),
    }
    Ok(())
}

/// A file like those of an experiment, which says how it is read.
fn as_experiment_says(
    path: &Path,
    experiment: &Path,
    data_dir: Option<&Path>,
) -> Result<(String, serde_json::Value), Failure> {
    let experiment = experiment_file::read(Some(experiment), data_dir)?;
    match &experiment.data {
        Data::Text(data) => {
            let report = inspect_texts(data, path).map_err(Failure::configuration)?;
            Ok(texts::told(path, &report))
        }
        Data::Table(data) if data.format == TableFormat::Csv => {
            let label = match &data.answer {
                TableAnswer::Class { label, .. } => Some(label.as_str()),
                TableAnswer::Number(_) => None,
            };
            let report = table(path, label, data.client.as_deref())?;
            Ok((table_text(path, &report), table_json(&report)))
        }
        _ => Err(Failure::Usage {
            problem:
                "--experiment: says how texts and tables in CSV are read, and this one learns from something else"
                    .to_owned(),
            help: Some("leave it out: what else can be learned from says itself what it is".to_owned()),
        }),
    }
}

/// The first bytes of a file.
fn beginning(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    open_data(path)
        .and_then(|file| file.take(BEGINNING).read_to_end(&mut bytes))
        .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

/// What is no table, by how it begins: its first line would be taken for names, and shown.
fn refuse_others(path: &Path, beginning: &[u8]) -> Result<(), Failure> {
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => Some(text),
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    let problem = match text.map(str::trim_start) {
        Some("") => "holds nothing",
        Some(text) if text.starts_with(['{', '[']) => {
            "begins like JSON; say --format jsonl if each line is an object"
        }
        Some(text) if !text.contains('\0') => return Ok(()),
        _ => {
            "is no data set: neither text in UTF-8 (a table, JSON Lines, a play) nor an IDX, Parquet, NPY or NPZ file, nor a folder of \
             images"
        }
    };
    Err(Failure::configuration(format!("{}: {problem}", path.display())))
}

/// Looks through a table; the column `label` is the label's if no other is named and there is one.
///
/// # Errors
/// [`Failure::Usage`], which names file, line and column.
pub(crate) fn table(path: &Path, label: Option<&str>, client: Option<&str>) -> Result<TableReport, Failure> {
    let report = inspect::table(path, Some(label.unwrap_or(LABEL)), client);
    match (report, label) {
        (Err(csv::CsvError::MissingColumn { column, .. }), None) if column == LABEL => {
            inspect::table(path, None, client)
        }
        (report, _) => report,
    }
    .map_err(Failure::configuration)
}

/// The classes that the labels of a table suggest, with their examples in order.
pub(crate) fn classes(label: &ValuesReport) -> Option<(Classes, Vec<u64>)> {
    let examples = label.examples.as_ref()?;
    let classes = Classes::of_labels(examples.keys().map(String::as_str));
    let counts = (0..classes.count()).map(|class| examples[&classes.name(class)]).collect();
    Some((classes, counts))
}

fn label_json(label: &ValuesReport) -> serde_json::Value {
    let classes = classes(label).map(|(classes, counts)| {
        let name = |class| classes.name(class);
        counts
            .iter()
            .enumerate()
            .map(|(class, examples)| json!({ "class": name(class), "examples": examples }))
            .collect::<Vec<_>>()
    });
    json!({ "column": label.column, "missing": label.missing, "classes": classes })
}

fn table_json(report: &TableReport) -> serde_json::Value {
    json!({
        "format": "csv",
        "examples": report.examples,
        "features": report.features,
        "label": report.label.as_ref().map(label_json),
        "client": report.client,
    })
}

fn table_text(path: &Path, report: &TableReport) -> String {
    let mut lines = Lines::default();
    lines.add("file", format!("{}, a table", path.display()));
    lines.add("examples", report.examples.to_string());
    lines.add("features", features_text(&report.features));
    lines.add("missing", flaws_text(report, |feature| feature.missing));
    if report.features.iter().any(|feature| feature.not_numbers.count > 0) {
        lines.add("no numbers", flaws_text(report, |feature| feature.not_numbers));
    }
    match &report.label {
        Some(label) => lines.add("label", label_text(label)),
        None => lines.add("label", "no column `label`; name another with --label COLUMN".to_owned()),
    }
    match &report.client {
        Some(client) => lines.add("clients", clients_text(client)),
        None => lines.add("clients", "no column was named; --client COLUMN names one".to_owned()),
    }
    lines.0
}

fn features_text(features: &[FeatureReport]) -> String {
    let range = |feature: &FeatureReport| match (feature.minimum, feature.maximum) {
        (Some(least), Some(most)) => format!("`{}` {least} to {most}", feature.column),
        _ => format!("`{}`", feature.column),
    };
    format!("{}: {}", features.len(), listed(features.iter().map(range)))
}

fn flaws_text(report: &TableReport, flaws: impl Fn(&FeatureReport) -> Flaws) -> String {
    let label = report.label.iter().chain(&report.client).map(|values| (&values.column, values.missing));
    let features = report.features.iter().map(|feature| (&feature.column, flaws(feature)));
    let columns: Vec<_> = features.chain(label).filter(|(_, flaws)| flaws.count > 0).collect();
    let count: u64 = columns.iter().map(|(_, flaws)| flaws.count).sum();
    let place = |(column, flaws): (&String, Flaws)| {
        format!("`{column}` {}, first in line {}", flaws.count, flaws.first_line.unwrap_or(0))
    };
    match count {
        0 => "none".to_owned(),
        count => format!("{count}: {}", listed(columns.into_iter().map(place))),
    }
}

fn label_text(label: &ValuesReport) -> String {
    let Some((classes, counts)) = classes(label) else {
        return format!("`{}`: more than {MAX_VALUES} different values, which are no classes", label.column);
    };
    let each = counts.iter().enumerate().map(|(class, count)| format!("{} {count}", classes.name(class)));
    format!("`{}`, {} classes: {}", label.column, classes.count(), listed(each))
}

fn clients_text(client: &ValuesReport) -> String {
    let Some(examples) = &client.examples else {
        return format!("`{}`: more than {MAX_VALUES}", client.column);
    };
    let mut sizes: Vec<u64> = examples.values().copied().collect();
    sizes.sort_unstable();
    match (sizes.first(), sizes.get(sizes.len() / 2), sizes.last()) {
        (Some(least), Some(median), Some(most)) => format!(
            "`{}`: {}, with {least} to {most} examples each, median {median}",
            client.column,
            sizes.len()
        ),
        _ => format!("`{}`: none", client.column),
    }
}

fn array(path: &Path) -> Result<(String, serde_json::Value), Failure> {
    let (dimensions, labels) = idx::inspect(path).map_err(Failure::configuration)?;
    let mut lines = Lines::default();
    lines.add("file", format!("{}, IDX", path.display()));
    let (examples, sizes) = dimensions.split_first().map_or((0, &[][..]), |(count, rest)| (*count, rest));
    lines.add("examples", examples.to_string());
    let mut classes = None;
    match labels {
        Some(labels) => {
            let mut counts = BTreeMap::<u32, u64>::new();
            labels.iter().for_each(|&label| *counts.entry(label).or_default() += 1);
            let each = counts.iter().map(|(label, count)| format!("{label} {count}"));
            lines.add("labels", format!("{} classes: {}", counts.len(), listed(each)));
            let each = counts
                .iter()
                .map(|(class, examples)| json!({ "class": class.to_string(), "examples": examples }));
            classes = Some(each.collect::<Vec<_>>());
        }
        None => {
            let shape: Vec<String> = sizes.iter().map(usize::to_string).collect();
            let features = sizes.iter().copied().fold(1, usize::saturating_mul);
            lines.add("features", format!("{features}: {}", shape.join(" x ")));
        }
    }
    lines.add("missing", "none: the format has no missing values".to_owned());
    let json = json!({ "format": "idx", "examples": examples, "shape": sizes, "classes": classes });
    Ok((lines.0, json))
}

/// A Parquet file: its columns, and how often each value of two of them occurs.
fn columns(
    path: &Path,
    label: Option<&str>,
    client: Option<&str>,
) -> Result<(String, serde_json::Value), Failure> {
    let file = Parquet::open(path).map_err(Failure::configuration)?;
    let names = file.columns();
    let mut lines = Lines::default();
    lines.add("file", format!("{}, Parquet", path.display()));
    lines.add("examples", file.rows().to_string());
    lines.add("columns", listed(names.iter().map(|name| format!("`{name}`"))));
    let label = label.or_else(|| names.iter().any(|name| name == LABEL).then_some(LABEL));
    let mut counted = Vec::new();
    for (what, column) in [("label", label), ("clients", client)] {
        let Some(column) = column else {
            lines
                .add(what, format!("no column was named; --{} COLUMN names one", what.trim_end_matches('s')));
            counted.push(serde_json::Value::Null);
            continue;
        };
        let (mut counts, mut missing) = (BTreeMap::<String, u64>::new(), 0_u64);
        let count = file.each(column, |_, value| {
            match value {
                Value::Missing => missing += 1,
                value => *counts.entry(value.to_string()).or_default() += 1,
            }
            Ok(())
        });
        count.map_err(Failure::configuration)?;
        let each = counts.iter().map(|(value, count)| format!("{value} {count}"));
        lines.add(
            what,
            format!("`{column}`, {} different: {}; missing: {missing}", counts.len(), listed(each)),
        );
        counted.push(json!({ "column": column, "examples": counts, "missing": missing }));
    }
    let json = json!({
        "format": "parquet", "examples": file.rows(), "columns": names, "label": counted[0], "client": counted[1]
    });
    Ok((lines.0, json))
}

/// A folder with a folder of images for each class.
fn folder(path: &Path) -> Result<(String, serde_json::Value), Failure> {
    let failed = |error| Failure::configuration(format!("{}: {error}", path.display()));
    let mut counts = BTreeMap::<String, usize>::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            counts.insert(name, files_in(&entry.path()).map_err(failed)?.len());
        }
    }
    if counts.is_empty() {
        let problem = "holds no folder; images lie in one for each class";
        return Err(Failure::configuration(format!("{}: {problem}", path.display())));
    }
    let mut lines = Lines::default();
    lines.add("folder", format!("{}, images", path.display()));
    lines.add("examples", counts.values().sum::<usize>().to_string());
    let each = counts.iter().map(|(class, count)| format!("{class} {count}"));
    lines.add("classes", format!("{}: {}", counts.len(), listed(each)));
    let json = json!({ "format": "folder", "examples": counts.values().sum::<usize>(), "classes": counts });
    Ok((lines.0, json))
}

/// The first few, and how many more.
fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, ", and {more} more");
    }
    text
}

/// Labels and what belongs to them.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, value: String) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{label:<12}{value}");
    }
}

const LABEL: &str = "label";
/// Bytes that tell what a file is.
const BEGINNING: u64 = 8192;
const SHOWN: usize = 20;
