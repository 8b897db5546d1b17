//! Images in the rows of a Parquet file.

use std::path::Path;

use super::{Found, ImagesError, Wanted, decode};
use crate::parquet::{Parquet, Value};
use crate::table::Cell;

pub(super) fn read(
    path: &Path,
    [image, label]: [&str; 2],
    client: Option<&str>,
    wanted: &Wanted,
    found: &mut Found,
) -> Result<(), ImagesError> {
    let file = Parquet::open(path)?;
    // The layout of public data hubs: a structure of the encoded image and the name of its file.
    let inside = format!("{image}.bytes");
    let image = if file.columns().contains(&inside) { &inside } else { image };
    let (classes, expected) = (wanted.classes.count(), wanted.classes.expected());
    file.each(label, |_, value| {
        let label = match value {
            Value::Missing => return Err("the label is missing".into()),
            // The number of a class, whatever it is called.
            Value::Integer(number) => u32::try_from(number).ok().filter(|&class| (class as usize) < classes),
            Value::Bool(truth) => Some(truth.into()),
            value => wanted.classes.of_label(&named(value)?),
        };
        found.labels.push(label.ok_or_else(|| format!("`{value}` is not a label, {expected}"))?);
        Ok(())
    })?;
    if let Some(client) = client {
        file.each(client, |_, value| match value {
            Value::Missing => Err("the client is missing".into()),
            value => {
                found.owners.push(&named(value)?);
                Ok(())
            }
        })?;
    }
    file.each(image, |_, value| match value {
        Value::Bytes(bytes) => {
            let image = decode(bytes, wanted.size).map_err(|fault| fault.to_string())?;
            found.push(&image).map_err(|fault| fault.to_string())
        }
        Value::Missing => Err("the image is missing".into()),
        value => Err(format!("{value} is no image in PNG or JPEG")),
    })?;
    Ok(())
}

/// What a value names, all of it: two clients may differ in their last byte.
fn named(value: Value<'_>) -> Result<String, String> {
    let name = Cell::of_parquet(value).and_then(|cell| Ok(cell.name()?.into_owned()));
    name.map_err(|fault| fault.to_string())
}
