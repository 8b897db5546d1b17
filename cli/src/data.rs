//! What a client trains on, as `--data` names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use skep_learning::scrub::{RecordReport, Scrubber};
use skep_learning::table::{self, Answer, Format, Layout};
use skep_learning::{Classes, Dataset, Scheme, Subset, digits, idx, partition};
use skep_privacy::prg::{Key, Purpose};
use skep_simulations::population;

use crate::arguments::Join;
use crate::experiment_file;
use crate::failure::Failure;

/// A place where examples are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// `digits:K/N`: part `K`, counted from 0, of the built-in training digits in `N` equal random parts.
    Digits {
        /// Which part, below `parts`.
        part: usize,
        /// How many parts there are.
        parts: usize,
    },
    /// The path of a CSV file with a header line, or of an IDX file of images.
    File(PathBuf),
}

impl DataSource {
    /// The name under which the owner's budget counts these data: a file keeps its own when its contents grow.
    pub(crate) fn name(&self) -> String {
        match self {
            DataSource::Digits { part, parts } => format!("digits:{part}/{parts}"),
            DataSource::File(path) => {
                path.canonicalize().unwrap_or_else(|_| path.clone()).display().to_string()
            }
        }
    }
}

impl FromStr for DataSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("digits:") else { return Ok(DataSource::File(text.into())) };
        rest.split_once('/')
            .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)))
            .filter(|(part, parts)| part < parts)
            .map(|(part, parts)| DataSource::Digits { part, parts })
            .ok_or_else(|| format!("`{text}` is not `digits:K/N` with K from 0 to N - 1"))
    }
}

/// Reads the examples that a client trains on; `scrubber`, if the owner wants one, goes over texts first, and what it did is
/// returned.
///
/// # Errors
/// [`Failure::Usage`] when there are fewer digits than parts, when a file comes without its classes, or when it does not
/// hold what it should.
pub fn read(
    source: &DataSource,
    arguments: &Join,
    scrubber: Option<&Scrubber>,
) -> Result<(Subset, Option<RecordReport>), Failure> {
    match source {
        DataSource::Digits { part, parts } => Ok((part_of_digits(*part, *parts)?, None)),
        DataSource::File(path) => match &arguments.experiment {
            Some(experiment) => described(path, experiment, arguments, scrubber),
            None => Ok((file(path, arguments)?, None)),
        },
    }
}

/// Everyone divides the digits in the same way, so that the parts of different clients do not overlap.
fn part_of_digits(part: usize, parts: usize) -> Result<Subset, Failure> {
    let key = Key::from_seed(0).derive(Purpose::Partition, 0, 0);
    let divided = partition(&digits::load().train, parts, Scheme::Iid, *key.expose()).map_err(usage)?;
    Ok(divided.clients[part].clone())
}

/// A file like those of an experiment, which says how it is read.
fn described(
    path: &Path,
    experiment: &Path,
    arguments: &Join,
    scrubber: Option<&Scrubber>,
) -> Result<(Subset, Option<RecordReport>), Failure> {
    let experiment = experiment_file::read(Some(experiment), None)?;
    population::owned(&experiment, path, arguments.labels.as_deref(), scrubber).map_err(usage)
}

fn file(path: &Path, arguments: &Join) -> Result<Subset, Failure> {
    let Some(classes) = &arguments.classes else {
        return Err(Failure::Usage {
            problem: format!("--data {}: the number of classes is not known", path.display()),
            help: Some("say it with --classes N, or name them: --classes NAME,NAME,...".to_owned()),
        });
    };
    let dataset = match (&arguments.labels, idx::is_idx(path).map_err(usage)?) {
        (Some(labels), true) => idx::read(path, labels, classes.count()).map_err(usage)?,
        (None, false) => table(path, arguments, classes)?,
        (None, true) => {
            return Err(Failure::Usage {
                problem: format!(
                    "--data {}: this is an IDX file, whose labels are in another",
                    path.display()
                ),
                help: Some("name it with --labels FILE".to_owned()),
            });
        }
        (Some(_), false) => {
            return Err(Failure::Usage {
                problem: format!(
                    "--data {}: --labels goes with an IDX file, which this is not",
                    path.display()
                ),
                help: Some("say which column of a CSV file holds the labels with --label COLUMN".to_owned()),
            });
        }
    };
    Ok(Subset::all(Arc::new(dataset)))
}

fn table(path: &Path, arguments: &Join, classes: &Classes) -> Result<Dataset, Failure> {
    let layout = Layout {
        format: Format::Csv,
        answer: Answer::Class { column: arguments.label.clone(), classes: classes.clone() },
        client: None,
        features: arguments.features.clone(),
        declared: BTreeMap::new(),
    };
    table::read(path, &layout).map(|table| table.dataset).map_err(usage)
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage { problem: format!("--data: {error}"), help: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_digits_is_named_by_number_and_count() {
        assert_eq!("digits:2/3".parse(), Ok(DataSource::Digits { part: 2, parts: 3 }));
        assert_eq!("ward.csv".parse(), Ok(DataSource::File("ward.csv".into())));
        for wrong in ["digits:", "digits:3/3", "digits:1", "digits:-1/3", "digits:0/0", "digits:a/b"] {
            assert!(wrong.parse::<DataSource>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_parts_of_the_digits_are_equal_and_make_up_all_of_them() {
        let mut rows: Vec<usize> = Vec::new();
        for part in 0..4 {
            let share = part_of_digits(part, 4).unwrap();
            assert!(share.len().abs_diff(1438 / 4) <= 1, "{}", share.len());
            rows.extend(share.rows());
        }
        rows.sort_unstable();
        assert_eq!(rows, digits::load().train.rows());
    }
}
