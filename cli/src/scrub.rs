//! `skep data scrub`: a file of records without what is personal in them, and numbers about what was.

use std::path::Path;

use serde_json::json;
use skep_learning::open_data;
use skep_learning::scrub::{
    Format, MAX_LINES, RecordError, RecordOptions, RecordReport, Rules, Scrubber, scrub_records,
};

use crate::arguments::{Output, Scrub};
use crate::failure::Failure;
use crate::new_file::write_new;

/// Runs `skep data scrub`.
///
/// # Errors
/// [`Failure::Usage`] for rules, a format or columns that make no sense, and for an output that is there already;
/// [`Failure::Other`] when a file cannot be read or written.
pub(crate) fn run(arguments: &Scrub) -> Result<(), Failure> {
    let scrubber = Scrubber::new(&rules(arguments)?).map_err(Failure::configuration)?;
    let format = format(arguments)?;
    let options = RecordOptions {
        columns: arguments.columns.clone(),
        drop: arguments.drop.clone(),
        keep_duplicates: arguments.keep_duplicates,
    };
    let input = &arguments.file;
    let source = open_data(input).map_err(|error| Failure::file(input, error))?;
    let report = write_new(
        &arguments.out,
        |output| scrub_records(format, source, output, &scrubber, &options),
        |error| match error {
            RecordError::Write(error) => Failure::file(&arguments.out, error),
            RecordError::Read(error) => Failure::file(input, error),
            error => Failure::configuration(format!("{}: {error}", input.display())),
        },
    )?;
    match arguments.output {
        Output::Text => print!("{}", text(&report, &arguments.out)),
        Output::Json => println!("{}", json!(report)),
    }
    Ok(())
}

fn rules(arguments: &Scrub) -> Result<Rules, Failure> {
    let mut rules = Rules { keep: arguments.keep.iter().copied().collect(), ..Rules::default() };
    for pattern in &arguments.patterns {
        let (name, pattern) = pattern.split_once('=').ok_or_else(|| Failure::Usage {
            problem: format!("--pattern {pattern}: this is not NAME=REGEX"),
            help: Some("for example --pattern 'PATIENT=P-[0-9]{6}'".to_owned()),
        })?;
        if rules.patterns.insert(name.to_owned(), pattern.to_owned()).is_some() {
            return Err(Failure::configuration(format!("--pattern: {name} is given twice")));
        }
    }
    Ok(rules)
}

/// The format that is said, or that the name of the file says.
fn format(arguments: &Scrub) -> Result<Format, Failure> {
    arguments.format.map_or_else(
        || {
            let extension =
                arguments.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            extension.parse().map_err(|_| Failure::Usage {
                problem: format!("{}: its name does not say what it is", arguments.file.display()),
                help: Some("say it with --format csv, tsv, jsonl or text".to_owned()),
            })
        },
        Ok,
    )
}

fn text(report: &RecordReport, out: &Path) -> String {
    let RecordReport { read, written, duplicates, empty, malformed, malformed_lines, replaced } = report;
    let mut text = format!("{read} records read, {written} written to {}\n", out.display());
    text += &format!("left out: {duplicates} duplicates, {empty} empty, {malformed} malformed");
    if !malformed_lines.is_empty() {
        let lines: Vec<String> = malformed_lines.iter().map(u64::to_string).collect();
        let more = if *malformed > MAX_LINES as u64 { ", ..." } else { "" };
        text += &format!(" (lines {}{more})", lines.join(", "));
    }
    text + &format!("\nreplaced: {replaced}\n")
}
