//! Arrays of NumPy: what they are called, their shapes, types and ranges.

use std::path::Path;

use serde_json::json;
use skep_learning::npy::{self, ArrayReport};

use super::{Lines, listed};
use crate::failure::Failure;

/// An NPY or an NPZ file.
///
/// # Errors
/// [`Failure::Usage`], which names the file.
pub(super) fn arrays(path: &Path) -> Result<(String, serde_json::Value), Failure> {
    let reports = npy::inspect(path).map_err(Failure::configuration)?;
    let mut lines = Lines::default();
    lines.add("file", format!("{}, NumPy", path.display()));
    for report in &reports {
        let name = report.name.as_ref().map_or(String::new(), |name| format!("`{name}`, "));
        lines.add("array", format!("{name}{}", told(report)));
    }
    Ok((lines.0, json!({ "format": "numpy", "arrays": reports })))
}

fn told(report: &ArrayReport) -> String {
    let shape: Vec<String> = report.shape.iter().map(usize::to_string).collect();
    let shape = if shape.is_empty() { "one number".to_owned() } else { shape.join(" x ") };
    let mut told = format!("{shape} of {}", spoken(&report.kind));
    match (&report.unread, report.minimum, report.maximum) {
        (Some(reason), ..) => told += &format!(", which {reason}"),
        (None, Some(least), Some(most)) => told += &format!(", {least} to {most}"),
        (None, ..) => {}
    }
    if report.not_finite > 0 {
        told += &format!("; {} are no finite numbers", report.not_finite);
    }
    if let Some(counts) = &report.counts {
        let each = counts.iter().map(|(value, count)| format!("{value} {count}"));
        told += &format!("; {} different: {}", counts.len(), listed(each));
    }
    told
}

/// A type as people say it; others as NumPy writes them.
fn spoken(kind: &str) -> String {
    let (order, letters) = kind.split_at_checked(1).unwrap_or(("", kind));
    let name = match letters.split_at_checked(1) {
        Some(("f", bytes)) => bytes.parse::<u32>().ok().map(|bytes| format!("float{}", 8 * bytes)),
        Some(("i", bytes)) => bytes.parse::<u32>().ok().map(|bytes| format!("int{}", 8 * bytes)),
        Some(("u", bytes)) => bytes.parse::<u32>().ok().map(|bytes| format!("uint{}", 8 * bytes)),
        Some(("b", "1")) => Some("bool".to_owned()),
        _ => None,
    };
    match (name, order) {
        (Some(name), ">") => format!("{name}, big-endian"),
        (Some(name), _) => name,
        (None, _) => format!("type `{kind}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_as_people_say_them() {
        for (kind, name) in [
            ("<f4", "float32"),
            ("|u1", "uint8"),
            (">i8", "int64, big-endian"),
            ("|b1", "bool"),
            ("<U3", "type `<U3`"),
        ] {
            assert_eq!(spoken(kind), name);
        }
    }
}
