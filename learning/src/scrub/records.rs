//! Files of records, scrubbed: duplicates, empty and malformed records go, what is personal in the others is replaced.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::str::FromStr;

use ::csv::{ByteRecord, ReaderBuilder, StringRecord, WriterBuilder};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::{Counts, Scrubber};
use crate::source::{BoundedLines, MAX_LINE};

/// How a file keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A header line, and values between commas.
    Csv,
    /// A header line, and values between tabs.
    Tsv,
    /// A JSON object a line.
    Jsonl,
    /// A record a line, all of it text.
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "csv" => Ok(Format::Csv),
            "tsv" => Ok(Format::Tsv),
            "jsonl" => Ok(Format::Jsonl),
            "text" | "txt" => Ok(Format::Text),
            _ => Err(format!("`{text}` is no format of records: take csv, tsv, jsonl or text")),
        }
    }
}

/// What is done with records beside replacing what is personal in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordOptions {
    /// The columns, or keys of JSON objects, whose text is scrubbed; all if not given.
    pub columns: Option<Vec<String>>,
    /// Columns, or keys, that are left out of what is written.
    pub drop: Vec<String>,
    /// Whether records that occur again stay.
    pub keep_duplicates: bool,
}

/// What happened to the records of a file: numbers only, nothing of what stood in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// Records read, all of those below among them.
    pub read: u64,
    /// Records written.
    pub written: u64,
    /// Left out, because the same record came before.
    pub duplicates: u64,
    /// Left out, because nothing stands in the columns that are scrubbed.
    pub empty: u64,
    /// Left out, because they are no record: not UTF-8, another number of values than the header, no JSON object.
    pub malformed: u64,
    /// The lines of the first [`MAX_LINES`] malformed records, from 1.
    pub malformed_lines: Vec<u64>,
    /// What was replaced, by the word that stands there now.
    pub replaced: Counts,
}

/// More lines than this are counted and not listed.
pub const MAX_LINES: usize = 20;

/// Why a file's records could not be scrubbed.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It could not be read.
    #[error("reading failed: {0}")]
    Read(std::io::Error),
    /// What came out could not be written.
    #[error("writing failed: {0}")]
    Write(std::io::Error),
    /// There is no header line.
    #[error("line 1 should name the columns: {0}")]
    Header(String),
    /// A column that was asked for is not there.
    #[error("no column `{column}`; there are: {}", present.join(", "))]
    MissingColumn {
        /// The column asked for.
        column: String,
        /// Those of the header.
        present: Vec<String>,
    },
    /// A text without columns was asked for columns.
    #[error("a text has no columns: leave out the choice of columns")]
    NoColumns,
}

/// Scrubs the records of `input` and writes what is left to `output`, one record at a time.
///
/// Two records are duplicates if they are equal before they are scrubbed. What is remembered of each is a hash of 128 bits.
///
/// # Errors
/// [`RecordError`] if a file cannot be read or written, or lacks a column; a malformed record is counted instead.
pub fn scrub_records(
    format: Format,
    input: impl Read,
    output: impl Write,
    scrubber: &Scrubber,
    options: &RecordOptions,
) -> Result<RecordReport, RecordError> {
    let mut pass = Pass { scrubber, options, seen: HashSet::new(), report: RecordReport::default() };
    match format {
        Format::Csv => pass.table(b',', input, output)?,
        Format::Tsv => pass.table(b'\t', input, output)?,
        Format::Jsonl => pass.objects(input, output)?,
        Format::Text if options.columns.is_some() || !options.drop.is_empty() => {
            return Err(RecordError::NoColumns);
        }
        Format::Text => pass.lines(input, output)?,
    }
    Ok(pass.report)
}

struct Pass<'a> {
    scrubber: &'a Scrubber,
    options: &'a RecordOptions,
    seen: HashSet<u128>,
    report: RecordReport,
}

impl Pass<'_> {
    fn malformed(&mut self, line: u64) {
        self.report.malformed += 1;
        if self.report.malformed_lines.len() < MAX_LINES {
            self.report.malformed_lines.push(line);
        }
    }

    /// Whether a well-formed record is to be written; counts it if not.
    fn stays(&mut self, record: &impl Hash, is_empty: bool) -> bool {
        if is_empty {
            self.report.empty += 1;
        } else if !self.options.keep_duplicates && !self.seen.insert(digest(record)) {
            self.report.duplicates += 1;
        } else {
            self.report.written += 1;
            return true;
        }
        false
    }

    fn table(&mut self, delimiter: u8, input: impl Read, output: impl Write) -> Result<(), RecordError> {
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(BoundedLines::new(input));
        let mut writer = WriterBuilder::new().delimiter(delimiter).from_writer(output);
        let header = reader.headers().map_err(|error| RecordError::Header(error.to_string()))?.clone();
        if header.iter().all(|name| name.trim().is_empty()) {
            return Err(RecordError::Header("it is empty".to_owned()));
        }
        let columns = Columns::of(&header, self.options)?;
        writer.write_record(columns.kept(&header)).map_err(written)?;
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record).map_err(read)? {
            self.report.read += 1;
            let line = record.position().map_or(0, ::csv::Position::line);
            let text = match StringRecord::from_byte_record(std::mem::take(&mut record)) {
                Ok(text) if text.len() == header.len() => text,
                _ => {
                    self.malformed(line);
                    continue;
                }
            };
            let is_empty = columns.scrubbed(&text).all(|value| value.trim().is_empty());
            if self.stays(&text.iter().collect::<Vec<_>>(), is_empty) {
                let values: Vec<_> = (0..text.len())
                    .filter(|&at| !columns.drop[at])
                    .map(|at| match columns.scrub[at] {
                        true => self.scrubber.scrub(&text[at], &mut self.report.replaced),
                        false => (&text[at]).into(),
                    })
                    .collect();
                writer.write_record(values.iter().map(|value| value.as_bytes())).map_err(written)?;
            }
        }
        writer.flush().map_err(RecordError::Write)
    }

    fn objects(&mut self, input: impl Read, mut output: impl Write) -> Result<(), RecordError> {
        each_line(input, |number, line| {
            let Ok(text) = std::str::from_utf8(line) else {
                self.report.read += 1;
                self.malformed(number);
                return Ok(());
            };
            if text.trim().is_empty() {
                return Ok(());
            }
            self.report.read += 1;
            let Ok(Value::Object(mut object)) = serde_json::from_str(text) else {
                self.malformed(number);
                return Ok(());
            };
            object.retain(|key, _| !self.options.drop.contains(key));
            let chosen =
                |key: &String| self.options.columns.as_ref().is_none_or(|columns| columns.contains(key));
            let is_empty = !object.iter().any(|(key, value)| chosen(key) && has_content(value));
            if self.stays(&text.trim(), is_empty) {
                for (_, value) in object.iter_mut().filter(|(key, _)| chosen(key)) {
                    self.value(value);
                }
                writeln!(output, "{}", Value::Object(object)).map_err(RecordError::Write)?;
            }
            Ok(())
        })?;
        output.flush().map_err(RecordError::Write)
    }

    /// Scrubs every text within a value. A number that is personal data, as text, becomes text.
    fn value(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let std::borrow::Cow::Owned(scrubbed) =
                    self.scrubber.scrub(text, &mut self.report.replaced)
                {
                    *text = scrubbed;
                }
            }
            Value::Number(number) => {
                let text = number.to_string();
                if let std::borrow::Cow::Owned(scrubbed) =
                    self.scrubber.scrub(&text, &mut self.report.replaced)
                {
                    *value = Value::String(scrubbed);
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value)),
            Value::Object(object) => object.iter_mut().for_each(|(_, value)| self.value(value)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn lines(&mut self, input: impl Read, mut output: impl Write) -> Result<(), RecordError> {
        each_line(input, |number, line| {
            self.report.read += 1;
            let Ok(text) = std::str::from_utf8(line) else {
                self.malformed(number);
                return Ok(());
            };
            if self.stays(&text, text.trim().is_empty()) {
                let scrubbed = self.scrubber.scrub(text, &mut self.report.replaced);
                writeln!(output, "{scrubbed}").map_err(RecordError::Write)?;
            }
            Ok(())
        })?;
        output.flush().map_err(RecordError::Write)
    }
}

/// What happens to each column of a table.
struct Columns {
    scrub: Vec<bool>,
    drop: Vec<bool>,
}

impl Columns {
    fn of(header: &StringRecord, options: &RecordOptions) -> Result<Self, RecordError> {
        let asked = options.columns.iter().flatten().chain(&options.drop);
        if let Some(column) =
            asked.into_iter().find(|column| !header.iter().any(|name| name == column.as_str()))
        {
            let present = header.iter().map(str::to_owned).collect();
            return Err(RecordError::MissingColumn { column: column.clone(), present });
        }
        let among = |columns: &[String]| {
            header.iter().map(|name| columns.iter().any(|column| column == name)).collect()
        };
        let drop: Vec<bool> = among(&options.drop);
        let scrub =
            options.columns.as_ref().map_or_else(|| vec![true; header.len()], |columns| among(columns));
        Ok(Self { scrub, drop })
    }

    fn kept<'a>(&'a self, record: &'a StringRecord) -> impl Iterator<Item = &'a str> {
        record.iter().zip(&self.drop).filter(|(_, drop)| !**drop).map(|(value, _)| value)
    }

    fn scrubbed<'a>(&'a self, record: &'a StringRecord) -> impl Iterator<Item = &'a str> {
        record
            .iter()
            .zip(self.scrub.iter().zip(&self.drop))
            .filter(|(_, (scrub, drop))| **scrub && !**drop)
            .map(|(value, _)| value)
    }
}

/// Hands over the lines of `input` without their ends, with their numbers from 1.
fn each_line(
    input: impl Read,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let mut input = BufReader::new(BoundedLines::new(input));
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).map_err(RecordError::Read)?
            == 0
        {
            break;
        }
        let content = line.strip_suffix(b"\n").unwrap_or(&line);
        take(number, content.strip_suffix(b"\r").unwrap_or(content))?;
    }
    Ok(())
}

fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(values) => values.iter().any(has_content),
        Value::Object(object) => object.values().any(has_content),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// 128 bits that tell records apart within one run; by chance, not against somebody who seeks collisions.
pub(crate) fn digest(record: &impl Hash) -> u128 {
    let half = |number: u8| {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        record.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

fn read(error: ::csv::Error) -> RecordError {
    RecordError::Read(io(error))
}

fn written(error: ::csv::Error) -> RecordError {
    RecordError::Write(io(error))
}

fn io(error: ::csv::Error) -> std::io::Error {
    match error.into_kind() {
        ::csv::ErrorKind::Io(error) => error,
        other => std::io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::Rules;

    fn scrub(format: Format, input: &[u8], options: &RecordOptions) -> (String, RecordReport) {
        let mut output = Vec::new();
        let scrubber = Scrubber::new(&Rules::default()).unwrap();
        let report = scrub_records(format, input, &mut output, &scrubber, options).unwrap();
        assert_eq!(report.read, report.written + report.duplicates + report.empty + report.malformed);
        (String::from_utf8(output).unwrap(), report)
    }

    #[test]
    fn a_table_keeps_its_header_and_loses_what_is_wrong() {
        let input =
            b"text,label\n\"mail a@b.org, now\",1\nmail c@d.org,0\n\"mail a@b.org, now\",1\n,1\nx\n\xff,1\n";
        let options = RecordOptions { columns: Some(vec!["text".to_owned()]), ..RecordOptions::default() };
        let (output, report) = scrub(Format::Csv, input, &options);
        assert_eq!(output, "text,label\n\"mail [EMAIL], now\",1\nmail [EMAIL],0\n");
        assert_eq!((report.read, report.duplicates, report.empty, report.malformed), (6, 1, 1, 2));
        assert_eq!((report.malformed_lines, report.replaced.of("EMAIL")), (vec![6, 7], 2));
    }

    #[test]
    fn columns_go_and_columns_stay_as_they_are() {
        let options = RecordOptions {
            columns: Some(vec!["text".to_owned()]),
            drop: vec!["name".to_owned()],
            keep_duplicates: true,
        };
        let input = b"name\ttext\tcontact\nAnn\tcall +44 20 7946 0958\ta@b.org\n";
        assert_eq!(scrub(Format::Tsv, input, &options).0, "text\tcontact\ncall [PHONE]\ta@b.org\n");
        let scrubber = Scrubber::new(&Rules::default()).unwrap();
        let missing =
            scrub_records(Format::Tsv, &b"a\tb\n"[..], Vec::new(), &scrubber, &options).unwrap_err();
        assert_eq!(missing.to_string(), "no column `text`; there are: a, b");
        let columns = scrub_records(Format::Text, &b"a"[..], Vec::new(), &scrubber, &options).unwrap_err();
        assert!(matches!(columns, RecordError::NoColumns));
        let header = scrub_records(Format::Csv, &b""[..], Vec::new(), &scrubber, &RecordOptions::default())
            .unwrap_err();
        assert!(header.to_string().contains("line 1 should name the columns"), "{header}");
    }

    #[test]
    fn texts_and_numbers_within_json_are_scrubbed() {
        let input = br#"{"text":"a@b.org","more":[{"card":4111111111111111}],"n":3}
not json

{"text":" "}
{"text":"a@b.org","more":[{"card":4111111111111111}],"n":3}
"#;
        let (output, report) = scrub(Format::Jsonl, input, &RecordOptions::default());
        assert_eq!(output, "{\"more\":[{\"card\":\"[CARD]\"}],\"n\":3,\"text\":\"[EMAIL]\"}\n");
        assert_eq!((report.malformed, report.empty, report.duplicates), (1, 1, 1));
        assert_eq!(report.malformed_lines, [2]);
    }

    #[test]
    fn a_text_is_a_record_a_line() {
        let (output, report) = scrub(
            Format::Text,
            "打电话13812345678\r\n\n\n打电话13812345678\n".as_bytes(),
            &RecordOptions::default(),
        );
        assert_eq!(output, "打电话[PHONE]\n");
        assert_eq!((report.read, report.empty, report.duplicates), (4, 2, 1));
    }
}
