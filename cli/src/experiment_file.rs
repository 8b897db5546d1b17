//! Reading an experiment file: what is wrong with it is shown at its line and column.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::experiment::{Experiment, Invalid};
use skep_simulations::population::{self, DataError};
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The federation that runs when no file is named: handwritten digits with privacy.
pub const BUILT_IN: &str = include_str!("digits.toml");

/// What [`BUILT_IN`] is called where a path would stand.
pub const BUILT_IN_NAME: &str = "the built-in digits federation";

/// Why there is no experiment.
#[derive(Debug, Error, Diagnostic)]
pub enum ExperimentFileError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// Its path.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The directory of the data has a name that no experiment file can hold.
    #[error("{path}: the name of this directory is not UTF-8; move the data elsewhere")]
    Directory {
        /// Its path.
        path: String,
    },
    /// The weights that training starts from cannot be used, or what is to be trained is no part of the model.
    #[error("{0}")]
    Weights(String),
    /// The file says something that is not understood or makes no sense.
    #[error("{problem}")]
    Wrong {
        /// What is wrong, without the place.
        problem: String,
        /// The file.
        #[source_code]
        text: Arc<NamedSource<String>>,
        /// The place.
        #[label("here")]
        span: SourceSpan,
        /// What to do about it.
        #[help]
        help: Option<String>,
    },
}

/// Reads the file at `path`, or [`BUILT_IN`]. Data sets that it names by relative paths are below `data_dir`, or beside
/// the file if that is not given; the experiment names them by absolute ones.
///
/// # Errors
/// [`ExperimentFileError`].
pub fn read(path: Option<&Path>, data_dir: Option<&Path>) -> Result<Experiment, ExperimentFileError> {
    let Some(path) = path else { return parse(BUILT_IN_NAME, BUILT_IN) };
    let (name, text) = named_text(path)?;
    parse_beside(&name, &text, path, data_dir)
}

/// Reads the file at `path` as [`read`] does, for somebody who asks nothing of its model: of `task.tuning` the weights are not read, and
/// the vocabulary of texts need not be there yet.
///
/// # Errors
/// [`ExperimentFileError`].
pub fn read_without_weights(path: &Path, data_dir: Option<&Path>) -> Result<Experiment, ExperimentFileError> {
    let (name, text) = named_text(path)?;
    let mut experiment = placed(&name, &text, path, data_dir)?;
    population::count(&mut experiment).map_err(weights)?;
    Ok(experiment)
}

fn weights(error: DataError) -> ExperimentFileError {
    ExperimentFileError::Weights(error.to_string())
}

/// The name of the file at `path`, and what is in it.
fn named_text(path: &Path) -> Result<(String, String), ExperimentFileError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(ExperimentFileError::Unreadable { path: name, source }),
    }
}

/// Reads `text`, in which relative paths are those of the file at `path`.
///
/// # Errors
/// [`ExperimentFileError`].
pub(crate) fn parse_beside(
    name: &str,
    text: &str,
    path: &Path,
    data_dir: Option<&Path>,
) -> Result<Experiment, ExperimentFileError> {
    let mut experiment = placed(name, text, path, data_dir)?;
    population::prepare(&mut experiment).map_err(weights)?;
    Ok(experiment)
}

/// What `text` says, with absolute paths.
fn placed(
    name: &str,
    text: &str,
    path: &Path,
    data_dir: Option<&Path>,
) -> Result<Experiment, ExperimentFileError> {
    let mut experiment = parse(name, text)?;
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    experiment.place_below(&directory(data_dir.unwrap_or(beside))?);
    experiment.simulation.place_below(&directory(beside)?);
    Ok(experiment)
}

/// An absolute path that an experiment file can hold.
fn directory(path: &Path) -> Result<PathBuf, ExperimentFileError> {
    let absolute = std::path::absolute(path)
        .map_err(|source| ExperimentFileError::Unreadable { path: path.display().to_string(), source })?;
    match absolute.to_str() {
        Some(_) => Ok(absolute),
        None => Err(ExperimentFileError::Directory { path: absolute.display().to_string() }),
    }
}

/// Reads `text`; `name` is what diagnostics call it.
///
/// # Errors
/// [`ExperimentFileError::Wrong`], for the first thing that is wrong.
pub fn parse(name: &str, text: &str) -> Result<Experiment, ExperimentFileError> {
    let wrong = |(problem, span, help): Fault| ExperimentFileError::Wrong {
        problem,
        text: Arc::new(NamedSource::new(name, text.to_owned()).with_language("TOML")),
        span: span.into(),
        help,
    };
    let document = DeTable::parse(text).map_err(|error| wrong(syntax_fault(&error)))?;
    if let Some((key, _)) = document.get_ref().get_key_value("sweep") {
        return Err(wrong((
            "this file describes many runs".to_owned(),
            key.span(),
            Some("run them with `skep simulate FILE --sweep --out DIR`, or take [sweep] out".to_owned()),
        )));
    }
    let file =
        toml::from_str::<ExperimentFile>(text).map_err(|error| wrong(type_fault(text, &document, &error)))?;
    Experiment::try_from(&file).map_err(|invalid| wrong(meaning_fault(&document, &invalid)))
}

/// The experiment as a file with every value spelled out.
pub fn to_toml(experiment: &Experiment) -> String {
    toml::to_string(&ExperimentFile::from(experiment)).expect("tables, texts and finite numbers only")
}

/// What is wrong, where, and what to do.
type Fault = (String, Range<usize>, Option<String>);

fn syntax_fault(error: &toml::de::Error) -> Fault {
    (format!("this is not TOML: {}", error.message()), error.span().unwrap_or(0..0), None)
}

fn type_fault(text: &str, document: &Spanned<DeTable<'_>>, error: &toml::de::Error) -> Fault {
    let message = error.message().lines().next().unwrap_or_default().to_owned();
    let span = culprit(text, document, &message)
        .or_else(|| error.span().map(|span| first_line(text, span)))
        .unwrap_or(0..0);
    let help = nearest_known(&message).map(|known| format!("did you mean `{known}`?"));
    (message, span, help)
}

fn meaning_fault(document: &Spanned<DeTable<'_>>, invalid: &Invalid) -> Fault {
    (invalid.to_string(), locate(document, &invalid.key), None)
}

/// The smallest entry without which the error would be another one. Serde knows no place inside tables whose `kind` or
/// `scheme` decides what may stand in them; this finds it there as well.
fn culprit(text: &str, document: &Spanned<DeTable<'_>>, message: &str) -> Option<Range<usize>> {
    let table: toml::Table = toml::from_str(text).ok()?;
    // Without the tag of a table every error about its keys is another one; so the key that is named comes first.
    let named = message.split('`').nth(1).unwrap_or_default();
    smallest(document.get_ref(), named, &mut Vec::new(), &|path| {
        let mut without = table.clone();
        remove(&mut without, path);
        without
            .try_into::<ExperimentFile>()
            .err()
            .is_none_or(|error| error.message().lines().next() != Some(message))
    })
}

fn smallest<'a>(
    table: &'a DeTable<'_>,
    named: &str,
    path: &mut Vec<&'a str>,
    is_culprit: &dyn Fn(&[&str]) -> bool,
) -> Option<Range<usize>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.get_ref() != named);
    for (key, value) in entries {
        path.push(key.get_ref());
        if is_culprit(path) {
            let inner = value.get_ref().as_table().and_then(|table| smallest(table, named, path, is_culprit));
            return Some(inner.unwrap_or_else(|| entry_span(key.span(), value)));
        }
        path.pop();
    }
    None
}

fn remove(table: &mut toml::Table, path: &[&str]) {
    match path {
        [key] => drop(table.remove(*key)),
        [key, rest @ ..] => {
            if let Some(toml::Value::Table(inner)) = table.get_mut(*key) {
                remove(inner, rest);
            }
        }
        [] => {}
    }
}

/// The place of a dotted key, or of the innermost table around it that exists.
fn locate(document: &Spanned<DeTable<'_>>, key: &str) -> Range<usize> {
    let mut table = Some(document.get_ref());
    let mut span = 0..0;
    for part in key.split('.') {
        let Some((name, value)) = table.and_then(|table| table.get_key_value(part)) else { break };
        span = entry_span(name.span(), value);
        table = value.get_ref().as_table();
    }
    span
}

/// From key to value where both stand on one line; a table's header otherwise.
fn entry_span(key: Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    match value.get_ref() {
        DeValue::Table(_) | DeValue::Array(_) => key,
        _ => key.start..value.span().end,
    }
}

fn first_line(text: &str, span: Range<usize>) -> Range<usize> {
    let line = text.get(span.clone()).and_then(|inside| inside.lines().next()).unwrap_or_default();
    span.start..span.start + line.len()
}

/// Of the names that serde expected in place of the one it found, the one that is most like it.
fn nearest_known(message: &str) -> Option<String> {
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let found = names.next()?;
    names
        .map(|known| (strsim::jaro_winkler(found, known), known))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known.to_owned())
}

/// Names less alike than this are no typing error.
const ALIKE: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(from: &str, to: &str) -> (String, String, Option<String>) {
        let text = BUILT_IN.replacen(from, to, 1);
        assert_ne!(text, BUILT_IN, "the built-in file has {from:?}");
        match parse("changed.toml", &text).expect_err("the change makes no sense") {
            ExperimentFileError::Wrong { problem, span, help, .. } => {
                let place = text[span.offset()..span.offset() + span.len()].to_owned();
                (problem, place, help)
            }
            error => panic!("{error}"),
        }
    }

    fn place(from: &str, to: &str) -> String {
        fault(from, to).1
    }

    #[test]
    fn the_built_in_federation_is_what_it_says() {
        let experiment = parse(BUILT_IN_NAME, BUILT_IN).unwrap();
        assert_eq!((experiment.name.as_str(), experiment.seed), ("digits", 1));
        assert_eq!((experiment.population.clients, experiment.rounds.count), (100, 60));
    }

    #[test]
    fn a_resolved_experiment_reads_back_as_itself() {
        let experiment = parse(BUILT_IN_NAME, BUILT_IN).unwrap();
        assert_eq!(parse("resolved", &to_toml(&experiment)).unwrap(), experiment);
    }

    #[test]
    fn an_unknown_key_is_shown_with_the_nearest_known_one() {
        let (problem, place, help) = fault("clip_norm", "clip_nrom");
        assert!(problem.starts_with("unknown field `clip_nrom`"), "{problem}");
        assert!(place.starts_with("clip_nrom"), "{place}");
        assert_eq!(help.unwrap(), "did you mean `clip_norm`?");
        assert_eq!(fault("count = 60", "count = 60\nbanana = 1").2, None);
    }

    #[test]
    fn an_unknown_key_is_found_in_tables_that_a_tag_decides() {
        assert_eq!(place("alpha = 0.3", "alpah = 0.3"), "alpah = 0.3");
        assert_eq!(place("scheme = \"all\"", "scheme = \"all\"\nrate = 0.5"), "rate = 0.5");
        assert_eq!(place("kind = \"softmax\"", "kind = \"softmax\"\nhidden = [3]"), "hidden");
        assert_eq!(fault("\"dirichlet\"", "\"dirichlt\"").2.unwrap(), "did you mean `dirichlet`?");
    }

    #[test]
    fn a_wrong_type_is_shown_at_its_value() {
        assert_eq!(place("count = 60", "count = \"sixty\""), "count = \"sixty\"");
        assert_eq!(place("alpha = 0.3", "alpha = true"), "alpha = true");
        assert_eq!(place("batch_size = \"full\"", "batch_size = \"half\""), "batch_size = \"half\"");
    }

    #[test]
    fn a_value_out_of_range_is_shown_at_its_key() {
        assert_eq!(place("clip_norm = 1.0", "clip_norm = -1.0"), "clip_norm = -1.0");
        assert_eq!(place("deadline_s = 60.0", "deadline_s = 0.0"), "deadline_s = 0.0");
        assert_eq!(place("alpha = 0.3", "alpha = 0.0"), "alpha = 0.0");
    }

    #[test]
    fn a_missing_key_is_shown_at_its_table() {
        assert_eq!(place("noise_multiplier = 5.0", ""), "privacy");
        assert_eq!(place("count = 60", ""), "rounds");
        assert_eq!(place("kind = \"dirichlet\"", ""), "partition");
    }

    /// The built-in experiment with a table of data.
    const TABLE: &str = "\
kind = \"csv\"\ntrain = \"a.csv\"\nhold_out_every = 5\nlabel = \"sick\"\nfeatures = [\"age\"]\nclasses = 2";

    fn with_table(table: &str) -> String {
        BUILT_IN.replacen("[task]\ndata = \"digits\"", &format!("[task.data]\n{table}"), 1)
    }

    #[test]
    fn data_are_beside_the_file_or_where_the_user_says() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.toml");
        std::fs::write(&file, with_table(TABLE)).unwrap();
        let resolved = |data_dir| to_toml(&read(Some(&file), data_dir).unwrap());
        let beside = format!("train = \"{}\"", directory.path().join("a.csv").display());
        assert!(resolved(None).contains(&beside), "{}", resolved(None));
        assert!(resolved(Some(Path::new("/data"))).contains("train = \"/data/a.csv\""));
        // What is written down is found again from anywhere.
        std::fs::write(&file, resolved(Some(Path::new("/data")))).unwrap();
        assert!(resolved(None).contains("train = \"/data/a.csv\""));
    }

    #[test]
    fn what_is_wrong_in_a_table_of_data_is_shown_at_its_place() {
        let place = |from: &str, to: &str| {
            let text = with_table(&TABLE.replacen(from, to, 1));
            match parse("changed.toml", &text).expect_err("the change makes no sense") {
                ExperimentFileError::Wrong { span, .. } => text[span.offset()..][..span.len()].to_owned(),
                error => panic!("{error}"),
            }
        };
        assert_eq!(place("label =", "lable ="), "lable = \"sick\"");
        assert_eq!(place("every = 5", "every = 1"), "hold_out_every = 1");
        assert_eq!(place("\"csv\"", "\"cvs\""), "kind = \"cvs\"");
        assert_eq!(place("classes = 2", "classes = 1"), "classes = 1");
        assert_eq!(place("classes = 2", "classes = true"), "classes = true");
    }

    #[test]
    fn what_is_not_toml_is_shown_where_it_stops_being_so() {
        let (problem, place, _) = fault("count = 60", "count = = 60");
        assert!(problem.starts_with("this is not TOML"), "{problem}");
        assert!(!place.is_empty());
    }
}
