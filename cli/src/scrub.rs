//! `skep data scrub`: a file of records without what is personal in them, and numbers about what was.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use skep_learning::scrub::{
    Format, MAX_LINES, RecordError, RecordOptions, RecordReport, Rules, Scrubber, scrub_records,
};

use crate::arguments::{Output, Scrub};
use crate::failure::Failure;

/// Runs `skep data scrub`.
///
/// # Errors
/// [`Failure::Usage`] for rules, a format or columns that make no sense, and for an output that is there already;
/// [`Failure::Other`] when a file cannot be read or written.
pub(crate) fn run(arguments: &Scrub) -> Result<(), Failure> {
    let scrubber = Scrubber::new(&rules(arguments)?).map_err(Failure::configuration)?;
    let format = format(arguments)?;
    if arguments.out.exists() {
        return Err(Failure::Usage {
            problem: format!("{} is there already", arguments.out.display()),
            help: Some("name another file with --out, or remove it".to_owned()),
        });
    }
    let options = RecordOptions {
        columns: arguments.columns.clone(),
        drop: arguments.drop.clone(),
        keep_duplicates: arguments.keep_duplicates,
    };
    let report = rewrite(&arguments.file, &arguments.out, |input, output| {
        scrub_records(format, input, output, &scrubber, &options)
    })?;
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

/// Writes beside `out` first, readable by its owner only, so that what stands there is whole.
fn rewrite(
    input: &Path,
    out: &Path,
    pass: impl FnOnce(BufReader<File>, &mut BufWriter<&File>) -> Result<RecordReport, RecordError>,
) -> Result<RecordReport, Failure> {
    let source = File::open(input).map_err(|error| Failure::file(input, error))?;
    let directory = out
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(PathBuf::from("."), PathBuf::from);
    let unwritable = |error| Failure::file(out, error);
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(unwritable)?;
    let mut writer = BufWriter::new(file.as_file());
    let report = pass(BufReader::new(source), &mut writer).map_err(|error| match error {
        RecordError::Write(error) => unwritable(error),
        RecordError::Read(error) => Failure::file(input, error),
        error => Failure::configuration(format!("{}: {error}", input.display())),
    })?;
    writer.flush().map_err(unwritable)?;
    drop(writer);
    file.as_file_mut().sync_all().map_err(unwritable)?;
    file.persist_noclobber(out).map_err(|error| unwritable(error.error))?;
    Ok(report)
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
