//! Files of labelled texts: one example a line, plain or compressed with gzip.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ::csv::{ReaderBuilder, StringRecord, Trim};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TextError, TextFault, at};
use crate::csv::{CsvError, column_names, find_column};
use crate::scrub::{RecordReport, Scrubber};
use crate::source::{BoundedLines, open};
use crate::table::CellFault;
use crate::{Classes, Owners};

/// How a line is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// By commas; values that hold commas stand in quotation marks.
    Csv,
    /// By tabulators; quotation marks are characters as others are.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
}

/// Where something stands in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// In this column, from 1, of a file without a header line.
    Number(u32),
    /// In the column or field of this name.
    Name(String),
}

/// Where the parts of an example stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// How a line is divided.
    pub format: Format,
    /// The text.
    pub text: Column,
    /// The label; without one all classes are 0.
    pub label: Option<Column>,
    /// Whose example it is, if anybody's.
    pub client: Option<Column>,
}

/// Labelled texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Texts {
    /// The texts.
    pub texts: Vec<String>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// Whose each is, if anybody's.
    pub owners: Option<Owners>,
}

impl Texts {
    /// These texts without what is personal in them, and without those that came before with the same label; `report`
    /// counts both. Empty ones are refused when texts are read.
    #[must_use]
    pub fn scrubbed(self, scrubber: &Scrubber, report: &mut RecordReport) -> Texts {
        let Texts { texts, labels, owners } = self;
        let mut kept = Texts { owners: owners.as_ref().map(|_| Owners::default()), ..Texts::default() };
        let mut seen = HashSet::new();
        for (row, (text, label)) in texts.iter().zip(labels).enumerate() {
            report.read += 1;
            if !seen.insert((text, label)) {
                report.duplicates += 1;
            } else {
                report.written += 1;
                kept.texts.push(scrubber.scrub(text, &mut report.replaced).into_owned());
                kept.labels.push(label);
                if let (Some(kept), Some(owners)) = (&mut kept.owners, &owners) {
                    kept.push(&owners.names()[owners.of_rows()[row] as usize]);
                }
            }
        }
        kept
    }
}

/// Reads all texts of a file.
///
/// # Errors
/// [`TextError`], which names the file, the line and the column.
pub fn read(path: &Path, fields: &Fields, classes: &Classes) -> Result<Texts, TextError> {
    let mut texts = Texts { owners: fields.client.as_ref().map(|_| Owners::default()), ..Texts::default() };
    let mut keep = |line, parts: Parts<'_>| {
        let (client, text, label) = (parts.client?, parts.text?, parts.label?);
        let class = match (label, &fields.label) {
            (Some(label), Some(field)) => classes.of_label(&label).ok_or_else(|| {
                at(path)(TextFault::NotALabel {
                    line,
                    field: field.to_string(),
                    value: label.into_owned(),
                    expected: classes.expected(),
                })
            })?,
            _ => 0,
        };
        texts.texts.push(text.into_owned());
        texts.labels.push(class);
        if let (Some(owners), Some(client)) = (&mut texts.owners, client) {
            owners.push(&client);
        }
        Ok(())
    };
    visit(path, fields, &mut keep)?;
    if texts.texts.is_empty() { Err(at(path)(TextFault::NoTexts)) } else { Ok(texts) }
}

/// Shows `each` every example of a file.
///
/// # Errors
/// [`TextError`] of a file that cannot be read at all, and what `each` returns.
pub(super) fn visit(path: &Path, fields: &Fields, each: &mut Each<'_>) -> Result<(), TextError> {
    let file = open(path).map_err(|source| CsvError::Open { path: path.to_owned(), source })?;
    match fields.format {
        Format::Csv => table(path, file, fields, b',', each),
        Format::Tsv => table(path, file, fields, b'\t', each),
        Format::Jsonl => json_lines(path, file, fields, each),
    }
}

/// The parts of an example, each an error where it should be and is not. Label and client are none where nobody asks.
pub(super) struct Parts<'p> {
    pub(super) text: Result<Cow<'p, str>, TextError>,
    pub(super) label: Result<Option<Cow<'p, str>>, TextError>,
    pub(super) client: Result<Option<Cow<'p, str>>, TextError>,
}

/// Takes the line of an example, and what stands there.
pub(super) type Each<'k> = dyn FnMut(u64, Parts<'_>) -> Result<(), TextError> + 'k;

fn table(
    path: &Path,
    source: impl Read,
    fields: &Fields,
    delimiter: u8,
    each: &mut Each<'_>,
) -> Result<(), TextError> {
    let malformed = |source| CsvError::Malformed { path: path.to_owned(), source };
    let named = |column: &Column| matches!(column, Column::Name(_));
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter == b',')
        .trim(Trim::All)
        .has_headers(named(&fields.text))
        .from_reader(BoundedLines::new(source));
    let names = match named(&fields.text) {
        true => column_names(reader.headers().map_err(malformed)?, path)?,
        false => vec![],
    };
    let place = |column: &Column| match column {
        Column::Name(name) => find_column(&names, name, path),
        Column::Number(number) => Ok((*number as usize).saturating_sub(1)),
    };
    let text = place(&fields.text)?;
    let other = |column: &'_ Option<Column>| column.as_ref().map(place).transpose();
    let (label, client) = (other(&fields.label)?, other(&fields.client)?);
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(malformed)? {
        let line = record.position().map_or(0, |position| position.line());
        let value = |column: usize, name: &Column| match record.get(column) {
            Some("") => {
                let (path, column) = (path.to_owned(), name.to_string());
                Err(CsvError::Cell { path, line, column, fault: Box::new(CellFault::Missing) }.into())
            }
            Some(value) => Ok(Cow::Borrowed(value)),
            None => Err(at(path)(TextFault::NoColumn { line, column: column + 1 })),
        };
        let other = |place: Option<usize>, column: &Option<Column>| match (place, column) {
            (Some(place), Some(column)) => value(place, column).map(Some),
            _ => Ok(None),
        };
        let parts = Parts {
            text: value(text, &fields.text),
            label: other(label, &fields.label),
            client: other(client, &fields.client),
        };
        each(line, parts)?;
    }
    Ok(())
}

fn json_lines(path: &Path, source: impl Read, fields: &Fields, each: &mut Each<'_>) -> Result<(), TextError> {
    let lines = BufReader::new(BoundedLines::new(source)).lines();
    for (line, text) in (1..).zip(lines) {
        let text = text.map_err(|error| at(path)(TextFault::Io(error)))?;
        if text.trim().is_empty() {
            continue;
        }
        let not_json = |problem: String| at(path)(TextFault::Json { line, problem });
        let value: Value = serde_json::from_str(&text).map_err(|error| not_json(error.to_string()))?;
        let object = value.as_object().ok_or_else(|| not_json("it is another value".to_owned()))?;
        let field = |column: &Column, needed: &'static str, numbers: bool| {
            let name = column.to_string();
            match object.get(&name) {
                Some(Value::String(text)) => Ok(Cow::Borrowed(text.as_str())),
                Some(Value::Number(number)) if numbers => Ok(Cow::Owned(number.to_string())),
                _ => Err(at(path)(TextFault::Field { line, field: name, needed })),
            }
        };
        let other = |column: &Option<Column>| {
            column.as_ref().map(|column| field(column, "a text or a number", true)).transpose()
        };
        let text = field(&fields.text, "a text", false);
        each(line, Parts { text, label: other(&fields.label), client: other(&fields.client) })?;
    }
    Ok(())
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Column::Number(number) => write!(f, "{number}"),
            Column::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(format: Format, columns: [&str; 3]) -> Fields {
        let [text, label, client] =
            columns.map(|name| name.parse().map_or(Column::Name(name.to_owned()), Column::Number));
        Fields { format, text, label: Some(label), client: Some(client) }
    }

    fn read_text(text: &str, fields: &Fields) -> Result<Texts, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("news.txt");
        std::fs::write(&path, text).unwrap();
        let classes = Classes::Names(vec!["art".into(), "sport".into()]);
        read(&path, fields, &classes).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_texts_are_read_from_every_format() {
        let mut owners = Owners::default();
        ["ann", "bob"].iter().for_each(|name| owners.push(name));
        let expected = Texts {
            texts: vec!["a \"fine\" play".into(), "goal, goal".into()],
            labels: vec![0, 1],
            owners: Some(owners),
        };
        let tsv = "a \"fine\" play\tart\tann\ngoal, goal\tsport\tbob\n";
        assert_eq!(read_text(tsv, &fields(Format::Tsv, ["1", "2", "3"])).unwrap(), expected);
        let csv = "who,kind,title\nann,art,\"a \"\"fine\"\" play\"\nbob,sport,\"goal, goal\"\n";
        assert_eq!(read_text(csv, &fields(Format::Csv, ["title", "kind", "who"])).unwrap(), expected);
        let json = "{\"t\":\"a \\\"fine\\\" play\",\"k\":\"art\",\"w\":\"ann\"}\n\n{\"w\":\"bob\",\"t\":\"goal, goal\",\"k\":\"sport\",\"x\":[]}";
        assert_eq!(read_text(json, &fields(Format::Jsonl, ["t", "k", "w"])).unwrap(), expected);
    }

    #[test]
    fn an_error_names_file_line_and_column() {
        let ends = |text: &str, format, columns, end: &str| {
            let error = read_text(text, &fields(format, columns)).unwrap_err();
            assert!(error.contains("news.txt") && error.ends_with(end), "{error}");
        };
        let (tsv, numbers) = (Format::Tsv, ["1", "2", "3"]);
        ends("a\tart\n", tsv, numbers, "line 1: there is no column 3, counted from 1");
        ends("a\tart\tx\n\tart\tx\n", tsv, numbers, "fill it in, or leave the line out");
        ends(
            "a\tmusic\tx\n",
            tsv,
            numbers,
            "line 1, field `2`: `music` is not a label, one of `art`, `sport`",
        );
        ends("", tsv, numbers, "has no texts");
        ends(
            "title,kind\n",
            Format::Csv,
            ["title", "kind", "who"],
            "no column `who`; there are: title, kind",
        );
        let json = ["t", "k", "w"];
        ends("{\"t\":1,\"k\":\"art\",\"w\":\"x\"}", Format::Jsonl, json, "line 1: field `t` must be a text");
        ends(
            "{\"t\":\"a\",\"k\":\"art\"}",
            Format::Jsonl,
            json,
            "line 1: field `w` must be a text or a number",
        );
        ends("\n[]", Format::Jsonl, json, "line 2: is not a JSON object: it is another value");
        let broken = read_text("{", &fields(Format::Jsonl, json)).unwrap_err();
        assert!(broken.contains("news.txt, line 1: is not a JSON object"), "{broken}");
    }
}
