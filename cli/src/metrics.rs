//! `skep metrics`: the rounds of a run for other programs, as a table or for TensorBoard.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
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
        MetricsFormat::Tensorboard => tensorboard(&records)?,
    };
    match (&arguments.out, arguments.format) {
        (Some(out), MetricsFormat::Csv) => fs::write(out, bytes).map_err(|error| Failure::file(out, error)),
        (Some(out), MetricsFormat::Tensorboard) => write_events(out, &bytes),
        (None, MetricsFormat::Csv) => say::Out.write_all(&bytes).map_err(Failure::other),
        (None, MetricsFormat::Tensorboard) => Err(Failure::Usage {
            problem: "--format tensorboard needs --out DIR, a log directory of TensorBoard".to_owned(),
            help: None,
        }),
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

fn csv(records: &[RoundRecord]) -> Result<Vec<u8>, Failure> {
    let rows = records.iter().map(flat).collect::<Result<Vec<_>, _>>()?;
    let mut header = vec!["round".to_owned()];
    for (name, _) in rows.iter().flatten() {
        if !header.contains(name) {
            header.push(name.clone());
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&header).map_err(Failure::other)?;
    for row in rows {
        let cell = |name: &String| match row.iter().find(|(key, _)| key == name).map(|(_, value)| value) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        writer.write_record(header.iter().map(cell)).map_err(Failure::other)?;
    }
    writer.into_inner().map_err(Failure::other)
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

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

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
