//! Tables as an experiment says they are read.

use std::path::Path;

use skep_learning::table::{self, Answer, Declared, Encoder, Filling, Format, Kind, Layout};
use skep_learning::{Dataset, Standardization};
use skep_protocol::Digest;
use skep_protocol::experiment::{
    CountOrNames, Data, Files, Loss, Missing, TableAnswer, TableColumn, TableData, TableFormat, Target,
};

use crate::data::{DataError, classes};

/// The examples of a file, encoded and made alike as the experiment says.
///
/// # Errors
/// [`DataError`], which names the file and the place in it.
pub(crate) fn read(data: &TableData, path: &Path) -> Result<Dataset, DataError> {
    let statistics = statistics(data)?;
    let table = table::read(path, &layout(data, statistics.as_ref())?)?;
    let (expected, found) = (data.features.count() as usize, table.encoder.columns().len());
    if expected != found {
        return Err(DataError::Features { path: path.to_owned(), expected, found });
    }
    let standardization = spread(data, statistics.as_ref(), &table.encoder)?;
    let digest = digest(data, &table.encoder, standardization.as_ref());
    let dataset = match standardization {
        None => table.dataset,
        Some(standardization) => standardization
            .of_dataset(table.dataset)
            .map_err(|source| DataError::Standardized { path: path.to_owned(), source })?,
    };
    Ok(dataset.encoded_as(digest.map(|digest| digest.0)))
}

/// The columns of the experiment's tables, and how all numbers of an example are made alike, if they are.
///
/// # Errors
/// [`DataError`] when the file of statistics or the header of a table cannot be read.
pub(crate) fn encoder(data: &TableData) -> Result<(Encoder, Option<Standardization>), DataError> {
    let statistics = statistics(data)?;
    let (Files::Apart { test: file, .. } | Files::HeldOut { all: file, .. }) = &data.files;
    let encoder = table::encoder(file, &layout(data, statistics.as_ref())?)?;
    let standardization = spread(data, statistics.as_ref(), &encoder)?;
    Ok((encoder, standardization))
}

/// The digest of how examples become numbers.
///
/// # Errors
/// As for [`encoder`].
pub(crate) fn encoding(data: &TableData) -> Result<Digest, DataError> {
    let (encoder, standardization) = encoder(data)?;
    Ok(digest(data, &encoder, standardization.as_ref()).unwrap_or(Digest([0; 32])))
}

/// The number that is predicted, if one is.
pub(crate) fn target(data: &Data) -> Option<skep_learning::Target> {
    match data {
        Data::Table(TableData { answer: TableAnswer::Number(target), .. }) => Some(number(target)),
        _ => None,
    }
}

fn number(target: &Target) -> skep_learning::Target {
    let (shift, scale) = target.shift_and_scale();
    skep_learning::Target {
        column: target.column.clone(),
        shift,
        scale,
        bounds: target.bounds,
        loss: match target.loss {
            Loss::Squared => skep_learning::Loss::Squared,
            Loss::Absolute => skep_learning::Loss::Absolute,
            Loss::Huber { delta } => skep_learning::Loss::Huber { delta },
        },
    }
}

fn statistics(data: &TableData) -> Result<Option<Standardization>, DataError> {
    Ok(data.standardize.as_deref().map(Standardization::read).transpose()?)
}

fn spread(
    data: &TableData,
    statistics: Option<&Standardization>,
    encoder: &Encoder,
) -> Result<Option<Standardization>, DataError> {
    let (Some(path), Some(statistics)) = (&data.standardize, statistics) else { return Ok(None) };
    let spread = encoder.spread(statistics);
    spread.map(Some).map_err(|fault| DataError::OtherColumns { path: path.clone(), fault })
}

/// Of what everybody must do alike, the order of the classes included; none where numbers are taken as they stand in files, which
/// clients may do who have no experiment file.
fn digest(data: &TableData, encoder: &Encoder, standardization: Option<&Standardization>) -> Option<Digest> {
    let (target, classes) = match &data.answer {
        TableAnswer::Number(target) => (Some(number(target)), None),
        TableAnswer::Class { label, classes } => (None, Some((label, classes))),
    };
    data.is_encoded().then(|| {
        let parts = serde_json::to_vec(&(encoder, standardization, target, classes));
        Digest::of(&parts.expect("names and finite numbers always have a JSON form"))
    })
}

/// What the columns are; means that stand in for missing numbers are those of `statistics`.
fn layout(data: &TableData, statistics: Option<&Standardization>) -> Result<Layout, DataError> {
    let declared = |(name, column): (&String, &TableColumn)| {
        let missing = match &column.missing {
            None => None,
            Some(Missing::Value(value)) => Some(Filling::Value(*value as f32)),
            Some(Missing::Category(category)) => Some(Filling::Category(category.clone())),
            Some(Missing::NoCategory) => Some(Filling::NoCategory),
            Some(Missing::Mean) => {
                let mean = statistics.and_then(|statistics| statistics.mean_of(name));
                Some(Filling::Value(mean.ok_or_else(|| DataError::NoMean {
                    path: data.standardize.clone().unwrap_or_default(),
                    column: name.clone(),
                })?))
            }
        };
        let kind = match &column.categories {
            None => Kind::Number,
            Some(categories) => Kind::Category { categories: categories.clone(), other: column.other },
        };
        Ok((name.clone(), Declared { kind, missing, indicator: column.indicator }))
    };
    Ok(Layout {
        format: match data.format {
            TableFormat::Csv => Format::Csv,
            TableFormat::Tsv => Format::Tsv,
            TableFormat::Jsonl => Format::Jsonl,
            TableFormat::Parquet => Format::Parquet,
        },
        answer: match &data.answer {
            TableAnswer::Class { label, classes: own } => {
                Answer::Class { column: label.clone(), classes: classes(own) }
            }
            TableAnswer::Number(target) => Answer::Number(number(target)),
        },
        client: data.client.clone(),
        features: match &data.features {
            CountOrNames::Count(_) => None,
            CountOrNames::Names(names) => Some(names.clone()),
        },
        declared: data.columns.iter().map(declared).collect::<Result<_, DataError>>()?,
    })
}

#[cfg(test)]
mod tests {
    use skep_protocol::experiment::TableColumn;

    use super::*;

    fn digest_of(label: &str, classes: [&str; 2]) -> Digest {
        let names = |names: &[&str]| CountOrNames::Names(names.iter().map(|&name| name.to_owned()).collect());
        let data = TableData {
            format: TableFormat::Csv,
            files: Files::Apart { train: None, test: "test.csv".into() },
            answer: TableAnswer::Class { label: label.to_owned(), classes: names(&classes) },
            client: None,
            features: names(&["ward"]),
            columns: [(
                "ward".to_owned(),
                TableColumn { categories: Some(vec!["north".into()]), ..TableColumn::default() },
            )]
            .into(),
            standardize: None,
        };
        encoding(&data).unwrap()
    }

    #[test]
    fn everybody_must_tell_the_same_classes_of_the_same_column() {
        let agreed = digest_of("sick", ["no", "yes"]);
        assert_eq!(agreed, digest_of("sick", ["no", "yes"]));
        assert_ne!(agreed, digest_of("sick", ["yes", "no"]));
        assert_ne!(agreed, digest_of("smokes", ["no", "yes"]));
    }
}
