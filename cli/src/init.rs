//! `skep init`: an experiment file to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use skep_learning::Classes;
use skep_learning::inspect::{FeatureReport, TableReport};
use skep_privacy::secagg::COMPLETE_MAX;

use crate::arguments::Init;
use crate::experiment_file::{self, BUILT_IN};
use crate::failure::Failure;
use crate::inspect;

/// Runs `skep init`.
///
/// # Errors
/// [`Failure::Usage`] when the file is there already, or the table cannot be learned from.
pub(crate) fn run(arguments: &Init) -> Result<(), Failure> {
    let path = &arguments.file;
    let text = match &arguments.data {
        None => BUILT_IN.to_owned(),
        Some(table) => learning_from(table, arguments)?,
    };
    // What is written must be what `skep check` reads.
    experiment_file::parse(&path.display().to_string(), &text)?;
    let mut file = File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Usage {
            problem: format!("{} is there already; it was left as it is", path.display()),
            help: Some("name another file, or remove this one".to_owned()),
        },
        _ => Failure::file(path, error),
    })?;
    file.write_all(text.as_bytes()).map_err(|error| Failure::file(path, error))?;
    let path = path.display();
    println!(
        "wrote {path}\nnext: `skep check {path}` says what it costs, `skep simulate {path} --out results` runs it"
    );
    Ok(())
}

fn learning_from(table: &Path, arguments: &Init) -> Result<String, Failure> {
    let report = inspect::table(table, Some(&arguments.label), arguments.client.as_deref())?;
    let facts = Facts::of(table, &report)?;
    // The experiment file may lie elsewhere, and then its relative paths do, too.
    let path = std::path::absolute(table).map_err(|error| Failure::file(table, error))?;
    let Some(path) = path.to_str() else {
        return Err(Failure::configuration(format!("{}: the name is not UTF-8", path.display())));
    };
    Ok(adapted(&report, &facts, path))
}

/// What a table says about an experiment that learns from it.
struct Facts {
    name: String,
    classes: Classes,
    /// The columns that hold a number in every line.
    features: Vec<String>,
    /// The columns that do not.
    left_out: Vec<String>,
    clients: u64,
}

impl Facts {
    fn of(table: &Path, report: &TableReport) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::configuration(format!("{}: {problem}", table.display()));
        for values in report.label.iter().chain(&report.client) {
            if let Some(line) = values.missing.first_line {
                return Err(wrong(format!("column `{}` has no value in line {line}", values.column)));
            }
        }
        let classes = report.label.as_ref().and_then(inspect::classes).map(|(classes, _)| classes);
        let classes =
            classes.filter(|classes| (2..=MAX_CLASSES).contains(&classes.count())).ok_or_else(|| {
                wrong(format!("the column of labels must hold 2 to {MAX_CLASSES} different values"))
            })?;
        let whole = |feature: &&FeatureReport| feature.missing.count == 0 && feature.not_numbers.count == 0;
        let names = |feature: &FeatureReport| feature.column.clone();
        let features: Vec<_> = report.features.iter().filter(whole).map(names).collect();
        if features.is_empty() {
            return Err(wrong("no column holds a number in every line".to_owned()));
        }
        let left_out = report.features.iter().filter(|feature| !whole(feature)).map(names).collect();
        let clients = match &report.client {
            Some(client) => client.examples.as_ref().map_or(0, |examples| examples.len() as u64),
            None => (report.examples / EXAMPLES_OF_A_CLIENT).clamp(1, 100),
        };
        let stem = table.file_stem().map_or("table".into(), |stem| stem.to_string_lossy());
        let name: String =
            stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
        let name = if name.is_empty() { "table".to_owned() } else { name };
        Ok(Facts { name, classes, features, left_out, clients })
    }
}

/// The built-in experiment with the parts replaced that the data decide.
fn adapted(report: &TableReport, facts: &Facts, path: &str) -> String {
    let clients = facts.clients;
    let mut replaced = vec![
        (between(BUILT_IN, "", "name = "), format!("# Learns from {}, with privacy.\n\n", quoted(path))),
        ("name = \"digits\"", format!("name = {}", quoted(&facts.name))),
        (between(BUILT_IN, "[task]", "[task.model]"), task(report, facts, path)),
        ("# Plain gradient descent on each client's own images.\nlearning_rate = 2.0", TRAINING.to_owned()),
        (between(BUILT_IN, "[population]", "[rounds]"), population(report, clients)),
        ("delta = 1e-5", format!("delta = {:e}", (0.1 / clients as f64).min(1e-5))),
        (
            "noise_multiplier = 5.0",
            format!(
                "# It drowns what few clients learn: it takes a hundred of them and more. Here there are {clients}.\nnoise_multiplier = 5.0"
            ),
        ),
    ];
    replaced.extend(trust(clients));
    replaced.iter().fold(BUILT_IN.to_owned(), |text, (from, to)| text.replacen(from, to, 1))
}

/// What so few or so many clients change about whom they must trust.
fn trust(clients: u64) -> Vec<(&'static str, String)> {
    if clients < MASKED_MIN {
        let server = format!(
            "# The server adds noise to the sum of clipped updates: it holds against whoever receives models, not against the server.\n\
             # The sum of so few clients would tell the server about each: [secure_aggregation] takes {MASKED_MIN} and more."
        );
        return vec![
            (between(BUILT_IN, "# Every client adds", "mode ="), server + "\n"),
            ("mode = \"distributed\"", "mode = \"central\"".to_owned()),
            (
                between(BUILT_IN, "# The fewest updates", "min_updates"),
                "# The fewest updates that a model is released from.\n".to_owned(),
            ),
            ("min_updates = 90", format!("min_updates = {}", clients.div_ceil(2))),
            (" on the sum that the fewest honest survivors leave", " on the sum".to_owned()),
            ("would spend more against the server", "would spend more".to_owned()),
            (&BUILT_IN[BUILT_IN.find("\n[secure_aggregation]").unwrap_or(BUILT_IN.len())..], String::new()),
        ];
    }
    let cohort = clients.min(COMPLETE_MAX.into());
    let mut replaced = vec![("min_updates = 90", format!("min_updates = {}", cohort - cohort / 10))];
    if cohort < 20 {
        replaced.push(("max_corrupt_fraction = 0.05", "max_corrupt_fraction = 0.1".to_owned()));
    }
    if cohort < clients {
        let sampling =
            format!("# So many, chosen anew for every round.\nscheme = \"fixed\"\nsize = {cohort}");
        replaced.push(("# Everyone takes part in every round.\nscheme = \"all\"", sampling));
    }
    replaced
}

fn task(report: &TableReport, facts: &Facts, path: &str) -> String {
    let mut text = format!(
        "[task.data]\n# A table with a header line; a relative path is beside this file, or below --data-dir.\nkind = \"csv\"\n\
         train = {}\n# Of every 5 lines (of each client) the last is held out to measure accuracy. Or name a file: test = \"...\"\n\
         hold_out_every = 5\n",
        quoted(path)
    );
    if let Some(label) = &report.label {
        text += &format!("label = {}\n", quoted(&label.column));
    }
    if let Some(client) = &report.client {
        text += &format!("# Whose example a line is.\nclient = {}\n", quoted(&client.column));
    }
    if facts.left_out.is_empty() {
        text += &format!("# All other columns, or a list of names.\nfeatures = {}\n", facts.features.len());
    } else {
        let left_out = facts.left_out.join("`, `").replace(char::is_control, " ");
        text += &format!(
            "# Left out, because they do not hold a number in every line: `{left_out}`.\nfeatures = {}\n",
            list(&facts.features)
        );
    }
    match &facts.classes {
        Classes::Numbers(count) => text += &format!("# Labels are integers from 0.\nclasses = {count}\n\n"),
        Classes::Names(names) => text += &format!("classes = {}\n\n", list(names)),
    }
    text
}

fn population(report: &TableReport, clients: u64) -> String {
    let partition = match &report.client {
        Some(client) => {
            format!(
                "# Each client has the lines that name it in column {}.\nkind = \"column\"",
                quoted(&client.column)
            )
        }
        None => "# Equal shares in random order.\nkind = \"iid\"".to_owned(),
    };
    format!("[population]\nclients = {clients}\n\n[population.partition]\n{partition}\n\n")
}

/// The part of `text` from `start` to before `end`; the built-in experiment has both.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let from = text.find(start).unwrap_or(0);
    let to = text[from..].find(end).map_or(text.len(), |length| from + length);
    &text[from..to]
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!("[{}]", names.join(", "))
}

const TRAINING: &str = "\
# Plain gradient descent on each client's own lines. Values are taken as they are: bring columns to about the same scale
# first, and lower this where training diverges.
learning_rate = 0.1";
const MAX_CLASSES: usize = 1000;
/// The built-in `min_cohort`.
const MASKED_MIN: u64 = 10;
const EXAMPLES_OF_A_CLIENT: u64 = 10;
