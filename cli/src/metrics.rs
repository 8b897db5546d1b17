//! `skep metrics`: the rounds of a run for other programs, as a table or for TensorBoard.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use skep_learning::parquet::{Column, encode};
use skep_server::record::RoundRecord;

use crate::arguments::{Metrics, MetricsFormat};
use crate::failure::Failure;
use crate::results;
use crate::say;

/// Runs `skep metrics`.
///
/// # Errors
/// [`Failure`] when there are no rounds, or nothing can be written.
pub(crate) fn run(arguments: &Metrics) -> Result<(), Failure> {
    let records = results::rounds(&arguments.results)?;
    let bytes = match arguments.format {
        MetricsFormat::Csv => csv(&records)?,
        MetricsFormat::Parquet => encode(&columns(&records)?).map_err(Failure::other)?,
        MetricsFormat::Tensorboard => tensorboard(&records)?,
    };
    let needs = |what: &str| Err(Failure::Usage { problem: what.to_owned(), help: None });
    match (&arguments.out, arguments.format) {
        (Some(out), MetricsFormat::Tensorboard) => write_events(out, &bytes),
        (Some(out), _) => fs::write(out, bytes).map_err(|error| Failure::file(out, error)),
        (None, MetricsFormat::Csv) => say::Out.write_all(&bytes).map_err(Failure::other),
        (None, MetricsFormat::Parquet) => needs("--format parquet needs --out FILE"),
        (None, MetricsFormat::Tensorboard) => {
            needs("--format tensorboard needs --out DIR, a log directory of TensorBoard")
        }
    }
}

/// TensorBoard reads files of this name in a directory for each run.
fn write_events(directory: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let path = directory.join("events.out.tfevents.0.skep");
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, bytes))
        .map_err(|error| Failure::file(&path, error))
}

/// The numbers and words of a round by name, those within others with a dot; lists are left out.
fn flat(record: &RoundRecord) -> Result<Vec<(String, Value)>, Failure> {
    fn add(prefix: &str, value: Value, to: &mut Vec<(String, Value)>) {
        match value {
            Value::Array(_) => {}
            Value::Object(inner) => {
                for (name, value) in inner {
                    add(&if prefix.is_empty() { name } else { format!("{prefix}.{name}") }, value, to);
                }
            }
            plain => to.push((prefix.to_owned(), plain)),
        }
    }
    let mut columns = Vec::new();
    add("", serde_json::to_value(record).map_err(Failure::other)?, &mut columns);
    Ok(columns)
}

/// Rounds as a table: every name that occurs, and for each round what it has under these.
fn table(records: &[RoundRecord]) -> Result<(Vec<String>, Vec<Vec<Value>>), Failure> {
    let rows = records.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
    let mut header = vec!["round".to_owned()];
    for (name, _) in rows.iter().flatten() {
        if !header.contains(name) {
            header.push(name.clone());
        }
    }
    let cells = |mut row: Vec<(String, Value)>| {
        let mut cell = |name: &String| {
            row.iter_mut().find(|(key, _)| key == name).map_or(Value::Null, |(_, value)| value.take())
        };
        header.iter().map(&mut cell).collect()
    };
    let cells = rows.into_iter().map(cells).collect();
    Ok((header, cells))
}

fn csv(records: &[RoundRecord]) -> Result<Vec<u8>, Failure> {
    let (header, rows) = table(records)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&header).map_err(Failure::other)?;
    for row in rows {
        let cell = |value| match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            value => value.to_string(),
        };
        writer.write_record(row.into_iter().map(cell)).map_err(Failure::other)?;
    }
    writer.into_inner().map_err(Failure::other)
}

/// The table by columns, each of one type.
fn columns(records: &[RoundRecord]) -> Result<Vec<(String, Column)>, Failure> {
    let (header, rows) = table(records)?;
    let column = |(at, name): (usize, String)| {
        let values = || rows.iter().map(|row| &row[at]);
        let column = if TEXTS.contains(&name.as_str()) || values().any(Value::is_string) {
            Column::Texts(values().map(|value| value.as_str().map(str::to_owned)).collect())
        } else if values().any(|value| value.is_u64()) {
            Column::Integers(values().map(Value::as_i64).collect())
        } else {
            Column::Numbers(values().map(Value::as_f64).collect())
        };
        (name, column)
    };
    Ok(header.into_iter().enumerate().map(column).collect())
}

/// An event file: records as TensorFlow frames them, each a message `Event` (tensorflow/core/util/event.proto). The step is the
/// round, and its time what rounds have taken so far.
fn tensorboard(records: &[RoundRecord]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    frame(&mut bytes, &event(0.0, 0, &field_bytes(3, b"brain.Event:2")));
    let mut seconds = 0.0;
    for record in records {
        seconds += record.seconds;
        let mut summary = Vec::new();
        for (name, value) in flat(record)? {
            if name == "round" {
                continue;
            }
            if let Some(value) = value.as_f64() {
                let simple = [&[2 << 3 | FIXED32][..], &(value as f32).to_le_bytes()].concat();
                summary.extend(field_bytes(1, &[field_bytes(1, name.as_bytes()), simple].concat()));
            }
        }
        frame(&mut bytes, &event(seconds, record.round.0, &field_bytes(5, &summary)));
    }
    Ok(bytes)
}

/// A message `Event`: wall time, step, and what it is about.
fn event(wall_time: f64, step: u64, what: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | FIXED64];
    bytes.extend_from_slice(&wall_time.to_le_bytes());
    bytes.push(2 << 3 | VARINT);
    bytes.extend(varint(step));
    bytes.extend_from_slice(what);
    bytes
}

/// A field of bytes in a message of Protocol Buffers.
fn field_bytes(number: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | LENGTH_DELIMITED];
    bytes.extend(varint(contents.len() as u64));
    bytes.extend_from_slice(contents);
    bytes
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A record of a TFRecord file: length and contents, each with its checksum.
fn frame(to: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    to.extend_from_slice(&length);
    to.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    to.extend_from_slice(record);
    to.extend_from_slice(&masked_crc32c(record).to_le_bytes());
}

/// As in tensorflow/core/lib/hash/crc32c.h.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// RFC 3720, section B.4; bit by bit, for files of a few kilobytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (crc & 1).wrapping_neg() & 0x82f6_3b78;
        }
    }
    !crc
}

/// Texts that no round may have; what else may be missing is a number.
const TEXTS: [&str; 1] = ["epsilon_server_absent"];

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A round in which everything is there that may be missing, and one in which nothing is.
    const ROUNDS: [&str; 2] = [
        r#"{"round":1,"outcome":"complete","detail":"complete","invited":4,"updates":4,"accuracy":1.0,"loss":0.0,"mean_absolute_error":1.0,
           "root_mean_squared_error":1.0,"r_squared":0.5,
           "validation":{"accuracy":0.5,"loss":1.0,"mean_absolute_error":1.0,"root_mean_squared_error":1.0,"r_squared":0.5},"client_accuracy":{"clients":2,"mean":0.5,"worst":0.0,"percentile_10":0.0,"median":0.0,"percentile_90":1.0},
           "personalised_accuracy":{"clients":2,"mean":1.0,"worst":1.0,"percentile_10":1.0,"median":1.0,"percentile_90":1.0},
           "client_answers":{"accuracy":0.5,"accuracy_within":0.1,"loss":1.0,"loss_within":0.1},"epsilon_release":1.0,"epsilon_server":2.0,
           "epsilon_server_absent":"nobody asked","epsilon_alone":1.0,"epsilon_release_if_continuous":1.0,"epsilon_server_if_continuous":1.0,
           "delta":1e-5,"seconds":1.0,"bytes_up":7,"bytes_down":9,"refusals":{"late":1},"declines":{"wrong-task":2},"dropped":{"late":[3]},
           "model_sha256":"00"}"#,
        r#"{"round":2,"outcome":"aborted","detail":"aborted","invited":4,"updates":0,"accuracy":null,"loss":null,"epsilon_release":null,
           "epsilon_server":null,"epsilon_server_absent":null,"epsilon_alone":null,"epsilon_release_if_continuous":null,
           "epsilon_server_if_continuous":null,"delta":null,"seconds":1.0,"bytes_up":0,"bytes_down":0,"refusals":{},"declines":{},
           "model_sha256":"00"}"#,
    ];

    #[test]
    fn a_column_has_the_type_that_it_has_in_other_runs() {
        let [full, empty] = ROUNDS.map(|round| serde_json::from_str::<RoundRecord>(round).unwrap());
        let all: BTreeMap<_, _> = columns(&[full, empty.clone()]).unwrap().into_iter().collect();
        let kind = |column: &Column| match column {
            Column::Integers(_) => "integers",
            Column::Numbers(_) => "numbers",
            Column::Texts(_) => "texts",
        };
        for (name, expected) in [
            ("round", "integers"),
            ("accuracy", "numbers"),
            ("client_accuracy.clients", "integers"),
            ("client_accuracy.mean", "numbers"),
            ("refusals.late", "integers"),
            ("outcome", "texts"),
            ("delta", "numbers"),
        ] {
            assert_eq!(kind(&all[name]), expected, "{name}");
        }
        assert_eq!(all["validation.accuracy"], Column::Numbers(vec![Some(0.5), None]));
        assert_eq!(all["refusals.late"], Column::Integers(vec![Some(1), None]));
        assert!(!all.contains_key("dropped.late"));
        for (name, column) in columns(&[empty]).unwrap() {
            assert_eq!(kind(&column), kind(&all[&name]), "{name}");
        }
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, section B.4: 32 bytes of zeros, of ones, and rising.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn the_first_record_is_what_tensorflow_writes() {
        // The file version as TensorFlow's own writer frames it, but for the time, which is 0 here.
        let mut bytes = Vec::new();
        frame(&mut bytes, &event(0.0, 0, &field_bytes(3, b"brain.Event:2")));
        assert_eq!(bytes[..8], 26_u64.to_le_bytes());
        assert_eq!(bytes[12..21], [9, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[21..25], [0x10, 0, 0x1a, 13]);
        assert_eq!(&bytes[25..38], b"brain.Event:2");
        assert_eq!(varint(300), [0xac, 2]);
    }
}
