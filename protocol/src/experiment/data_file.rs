//! `task.data` as it is typed, and what it means.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;
use super::data::{
    CountOrNames, Data, Files, IdxData, IdxPair, NpzData, OwnData, TextColumn, TextData, TextFeatures,
    TextFormat, Tokenizer, VectorsFile, Vocabulary,
};
use super::images::{ImageData, ImagesFile};
use super::table::{TableData, TableFile, TableFormat};
use super::validate::invalid;
use super::workload::Workload;

/// `task.data`: `"digits"`, or a table whose `kind` is `"csv"`, `"tsv"`, `"jsonl"`, `"parquet"`, `"idx"`, `"npz"`, `"images"`, `"text"`, `"own"` or `"workload"`.
#[derive(Clone, Debug, PartialEq)]
pub enum DataFile {
    /// The embedded handwritten digits.
    Digits,
    /// `kind = "csv"`, `"tsv"`, `"jsonl"` or `"parquet"`
    Table(TableFormat, TableFile),
    /// `kind = "idx"`
    Idx(IdxFile),
    /// `kind = "npz"`
    Npz(NpzFile),
    /// `kind = "images"`
    Images(ImagesFile),
    /// `kind = "text"`
    Text(TextFile),
    /// `kind = "own"`
    Own(OwnFile),
    /// `kind = "workload"`
    Workload(Workload),
}

/// Images with labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdxFile {
    /// What simulated clients share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<IdxPair>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<IdxPair>,
    /// Instead of `test`: the last of every so many images of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// Pixels of an image.
    pub features: u32,
    /// How many classes there are, or what they are called.
    pub classes: CountOrNames,
}

/// Archives of NumPy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpzFile {
    /// What simulated clients share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Instead of `test`: the last of every so many examples of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// The array of examples.
    pub examples: String,
    /// The array of labels.
    pub labels: String,
    /// Numbers of an example.
    pub features: u32,
    /// How many classes there are, or what they are called.
    pub classes: CountOrNames,
}

/// Files in a format that the program brings along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnFile {
    /// What simulated clients share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Instead of `test`: the last of every so many examples of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// What the program calls the format.
    pub format: String,
    /// Numbers of an example.
    pub features: u32,
    /// How many classes there are, or what they are called.
    pub classes: CountOrNames,
}

/// Labelled texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// What simulated clients share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<PathBuf>,
    /// What the server measures with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Instead of `test`: the last of every so many texts of `train` is held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out_every: Option<u32>,
    /// How a line is divided.
    pub format: TextFormat,
    /// The column of the text: a name, or a number from 1 where there is no header line. None in plays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextColumn>,
    /// The column of the label; none where the next word is predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<TextColumn>,
    /// The column that says whose example a line is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<TextColumn>,
    /// How many classes there are, or what their labels are.
    pub classes: CountOrNames,
    /// What counts as a word.
    pub tokenizer: Tokenizer,
    /// Whether capital letters are made small first.
    #[serde(default)]
    pub lowercase: bool,
    /// A file of words that do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<PathBuf>,
    /// A file with a word on each line, or the words; none with a tokenizer from a file, which has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
    /// So many words of a text count at most.
    pub length: u32,
    /// Vectors of the words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorsFile>,
    /// `"words"`, `"mean-vector"` or `"next-word"`.
    #[serde(default)]
    pub features: TextFeatures,
}

/// The table that may stand in place of a word.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum DataTable {
    Digits {},
    Csv(TableFile),
    Tsv(TableFile),
    Jsonl(TableFile),
    Parquet(TableFile),
    Idx(IdxFile),
    Npz(NpzFile),
    Images(ImagesFile),
    Text(TextFile),
    Own(OwnFile),
    Workload { name: Workload },
}

impl From<DataTable> for DataFile {
    fn from(table: DataTable) -> Self {
        match table {
            DataTable::Digits {} => DataFile::Digits,
            DataTable::Csv(file) => DataFile::Table(TableFormat::Csv, file),
            DataTable::Tsv(file) => DataFile::Table(TableFormat::Tsv, file),
            DataTable::Jsonl(file) => DataFile::Table(TableFormat::Jsonl, file),
            DataTable::Parquet(file) => DataFile::Table(TableFormat::Parquet, file),
            DataTable::Idx(idx) => DataFile::Idx(idx),
            DataTable::Npz(npz) => DataFile::Npz(npz),
            DataTable::Images(images) => DataFile::Images(images),
            DataTable::Text(text) => DataFile::Text(text),
            DataTable::Own(own) => DataFile::Own(own),
            DataTable::Workload { name } => DataFile::Workload(name),
        }
    }
}

impl Serialize for DataFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.clone() {
            DataFile::Digits => DIGITS.serialize(serializer),
            DataFile::Table(format, file) => match format {
                TableFormat::Csv => DataTable::Csv(file),
                TableFormat::Tsv => DataTable::Tsv(file),
                TableFormat::Jsonl => DataTable::Jsonl(file),
                TableFormat::Parquet => DataTable::Parquet(file),
            }
            .serialize(serializer),
            DataFile::Idx(idx) => DataTable::Idx(idx).serialize(serializer),
            DataFile::Npz(npz) => DataTable::Npz(npz).serialize(serializer),
            DataFile::Images(images) => DataTable::Images(images).serialize(serializer),
            DataFile::Text(text) => DataTable::Text(text).serialize(serializer),
            DataFile::Own(own) => DataTable::Own(own).serialize(serializer),
            DataFile::Workload(name) => DataTable::Workload { name }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DataFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrTable)
    }
}

struct WordOrTable;

impl<'de> Visitor<'de> for WordOrTable {
    type Value = DataFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"digits\" or a table with `kind`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<DataFile, E> {
        match word {
            DIGITS => Ok(DataFile::Digits),
            word => Err(E::unknown_variant(word, &[DIGITS])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataFile, A::Error> {
        DataTable::deserialize(MapAccessDeserializer::new(map)).map(DataFile::from)
    }
}

impl TryFrom<&DataFile> for Data {
    type Error = Invalid;

    fn try_from(file: &DataFile) -> Result<Self, Invalid> {
        Ok(match file {
            DataFile::Digits => Data::Digits,
            DataFile::Table(format, file) => Data::Table(TableData::new(*format, file)?),
            DataFile::Workload(workload) => Data::Workload(*workload),
            DataFile::Images(images) => Data::Images(ImageData::try_from(images)?),
            DataFile::Text(text) => Data::Text(self::text(text)?),
            DataFile::Npz(npz) => Data::Npz(NpzData {
                files: files(&npz.train, &npz.test, npz.hold_out_every)?,
                examples: named("task.data.examples", &npz.examples)?,
                labels: named("task.data.labels", &npz.labels)?,
                features: several("task.data.features", &CountOrNames::Count(npz.features), 1)?.count(),
                classes: several("task.data.classes", &npz.classes, 2)?,
            }),
            DataFile::Own(own) => Data::Own(OwnData {
                files: files(&own.train, &own.test, own.hold_out_every)?,
                format: named("task.data.format", &own.format)?,
                features: several("task.data.features", &CountOrNames::Count(own.features), 1)?.count(),
                classes: several("task.data.classes", &own.classes, 2)?,
            }),
            DataFile::Idx(idx) => Data::Idx(IdxData {
                files: files(&idx.train, &idx.test, idx.hold_out_every)?,
                features: several("task.data.features", &CountOrNames::Count(idx.features), 1)?.count(),
                classes: several("task.data.classes", &idx.classes, 2)?,
            }),
        })
    }
}

impl From<&Data> for DataFile {
    fn from(data: &Data) -> Self {
        match data {
            Data::Digits => DataFile::Digits,
            Data::Workload(workload) => DataFile::Workload(*workload),
            Data::Text(text) => DataFile::Text(text_file(text)),
            Data::Images(images) => DataFile::Images(images.into()),
            Data::Npz(npz) => {
                let (train, test, hold_out_every) = parts(&npz.files);
                DataFile::Npz(NpzFile {
                    train,
                    test,
                    hold_out_every,
                    examples: npz.examples.clone(),
                    labels: npz.labels.clone(),
                    features: npz.features,
                    classes: npz.classes.clone(),
                })
            }
            Data::Own(own) => {
                let (train, test, hold_out_every) = parts(&own.files);
                DataFile::Own(OwnFile {
                    train,
                    test,
                    hold_out_every,
                    format: own.format.clone(),
                    features: own.features,
                    classes: own.classes.clone(),
                })
            }
            Data::Table(table) => DataFile::Table(table.format, table.file()),
            Data::Idx(idx) => {
                let (train, test, hold_out_every) = parts(&idx.files);
                let classes = idx.classes.clone();
                DataFile::Idx(IdxFile { train, test, hold_out_every, features: idx.features, classes })
            }
        }
    }
}

fn text(file: &TextFile) -> Result<TextData, Invalid> {
    let numbered = matches!(file.text, Some(TextColumn::Number(_)));
    let columns =
        [("text", file.text.as_ref()), ("label", file.label.as_ref()), ("client", file.client.as_ref())];
    for (key, column) in columns {
        wanted(file, key, column.is_some())?;
    }
    for (key, column) in columns {
        let key = format!("task.data.{key}");
        match column {
            None => {}
            Some(TextColumn::Number(_)) if file.format == TextFormat::Jsonl => {
                return Err(invalid(&key, "must name a field: the objects of JSON have no numbered columns"));
            }
            Some(TextColumn::Number(0)) => {
                return Err(invalid(&key, "must be at least 1: columns count from 1"));
            }
            Some(TextColumn::Number(_)) if numbered => {}
            Some(TextColumn::Name(name)) if !numbered => named(&key, name).map(drop)?,
            Some(_) => {
                return Err(invalid(
                    &key,
                    "must be given as task.data.text is: by names from a header line, or by numbers without one",
                ));
            }
        }
    }
    if file.length == 0 {
        return Err(invalid("task.data.length", "must be at least 1"));
    }
    tokenizer(file)?;
    if file.features == TextFeatures::NextWord && !matches!(file.classes, CountOrNames::Count(_)) {
        return Err(invalid(
            "task.data.classes",
            "must be the number of words of the vocabulary: they are the classes",
        ));
    }
    match &file.vectors {
        Some(vectors) if vectors.width == 0 => {
            return Err(invalid("task.data.vectors.width", "must be at least 1"));
        }
        None if file.features == TextFeatures::MeanVector => {
            return Err(invalid(
                "task.data.features",
                "are the means of vectors: say of which with task.data.vectors",
            ));
        }
        _ => {}
    }
    Ok(TextData {
        files: files(&file.train, &file.test, file.hold_out_every)?,
        format: file.format,
        text: file.text.clone(),
        label: file.label.clone(),
        client: file.client.clone(),
        classes: several("task.data.classes", &file.classes, 2)?,
        tokenizer: file.tokenizer.clone(),
        lowercase: file.lowercase,
        stop_words: file.stop_words.clone(),
        vocabulary: file.vocabulary.clone(),
        length: file.length,
        vectors: file.vectors.clone(),
        features: file.features,
    })
}

/// Which columns there have to be.
fn wanted(file: &TextFile, key: &str, given: bool) -> Result<(), Invalid> {
    let (play, next_word) = (file.format == TextFormat::Speakers, file.features == TextFeatures::NextWord);
    let problem = match (key, given) {
        (_, true) if play => "has no meaning in a play, which has speakers instead of columns: remove it",
        ("label", true) if next_word => {
            "has no meaning with features = \"next-word\", where the class is the next word: remove it"
        }
        ("label", false) if play && !next_word => {
            return Err(invalid(
                "task.data.format",
                "\"speakers\" has no labels: it needs features = \"next-word\"",
            ));
        }
        ("text", false) if !play => "is missing: name the column of the text",
        ("label", false) if !next_word => "is missing: name the column of the label",
        _ => return Ok(()),
    };
    Err(invalid(&format!("task.data.{key}"), problem))
}

/// A tokenizer from a file decides about words alone; another one needs to be told which are known.
fn tokenizer(file: &TextFile) -> Result<(), Invalid> {
    let Tokenizer::File(_) = &file.tokenizer else {
        return match &file.vocabulary {
            Some(_) => Ok(()),
            None => Err(invalid(
                "task.data.vocabulary",
                "is missing: name a file with a word on each line, or a tokenizer that has its own words, \
                 tokenizer = { file = \"tokenizer.json\" }",
            )),
        };
    };
    let told = [
        ("vocabulary", file.vocabulary.is_some()),
        ("stop_words", file.stop_words.is_some()),
        ("lowercase", file.lowercase),
    ];
    match told.into_iter().find(|(_, told)| *told) {
        Some((key, _)) => Err(invalid(
            &format!("task.data.{key}"),
            "has no meaning with a tokenizer from a file, which says itself what counts as a word: remove it",
        )),
        None => Ok(()),
    }
}

fn text_file(data: &TextData) -> TextFile {
    let (train, test, hold_out_every) = parts(&data.files);
    TextFile {
        train,
        test,
        hold_out_every,
        format: data.format,
        text: data.text.clone(),
        label: data.label.clone(),
        client: data.client.clone(),
        classes: data.classes.clone(),
        tokenizer: data.tokenizer.clone(),
        lowercase: data.lowercase,
        stop_words: data.stop_words.clone(),
        vocabulary: data.vocabulary.clone(),
        length: data.length,
        vectors: data.vectors.clone(),
        features: data.features,
    }
}

pub(super) fn files<F: Clone>(
    train: &Option<F>,
    test: &Option<F>,
    hold_out_every: Option<u32>,
) -> Result<Files<F>, Invalid> {
    match (train.clone(), test.clone(), hold_out_every) {
        (train, Some(test), None) => Ok(Files::Apart { train, test }),
        (Some(all), None, Some(every)) if every >= 2 => Ok(Files::HeldOut { all, every }),
        (Some(_), None, Some(_)) => Err(invalid("task.data.hold_out_every", "must be at least 2")),
        (None, None, _) => Err(invalid(
            "task.data",
            "names no file: simulated clients share `train`, and the server measures with `test`",
        )),
        (_, Some(_), Some(_)) => Err(invalid(
            "task.data.hold_out_every",
            "has no meaning beside `test`, a file to measure with: remove one of them",
        )),
        (Some(_), None, None) => Err(invalid(
            "task.data",
            "does not say what to measure with: name a file `test`, or set `hold_out_every` to hold out \
             the last of every so many examples",
        )),
    }
}

/// The keys `train`, `test` and `hold_out_every`.
pub(super) fn parts<F: Clone>(files: &Files<F>) -> (Option<F>, Option<F>, Option<u32>) {
    match files.clone() {
        Files::Apart { train, test } => (train, Some(test), None),
        Files::HeldOut { all, every } => (Some(all), None, Some(every)),
    }
}

pub(super) fn named(key: &str, name: &str) -> Result<String, Invalid> {
    match name.trim() {
        "" => Err(invalid(key, "must name a column, an array or a format")),
        _ => Ok(name.to_owned()),
    }
}

pub(super) fn several(key: &str, given: &CountOrNames, fewest: u32) -> Result<CountOrNames, Invalid> {
    if given.count() < fewest {
        return Err(invalid(key, format!("must be at least {fewest}, or as many names")));
    }
    if let CountOrNames::Names(names) = given {
        let mut sorted: Vec<&str> = names.iter().map(|name| name.trim()).collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(invalid(key, format!("names `{}` twice", twice[0])));
        }
        if sorted.first() == Some(&"") {
            return Err(invalid(key, "has an empty name"));
        }
    }
    Ok(given.clone())
}

const DIGITS: &str = "digits";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::experiment::table::{Loss, Missing, TableColumn, Target};

    fn csv() -> TableFile {
        TableFile {
            train: Some("train.csv".into()),
            test: Some("test.csv".into()),
            hold_out_every: None,
            label: Some("sick".into()),
            client: Some("ward".into()),
            features: CountOrNames::Count(3),
            classes: Some(CountOrNames::Names(vec!["no".into(), "yes".into()])),
            standardize: Some("statistics.json".into()),
            target: None,
            columns: BTreeMap::new(),
        }
    }

    fn refused(change: impl FnOnce(&mut TableFile)) -> String {
        let mut file = csv();
        change(&mut file);
        Data::try_from(&DataFile::Table(TableFormat::Csv, file)).unwrap_err().key
    }

    #[test]
    fn files_come_back_as_they_were() {
        let pair = |name: &str| IdxPair { images: format!("{name}-images").into(), labels: name.into() };
        let held_out = TableFile { test: None, hold_out_every: Some(5), client: None, ..csv() };
        let idx = IdxFile {
            train: None,
            test: Some(pair("t10k")),
            hold_out_every: None,
            features: 784,
            classes: CountOrNames::Count(10),
        };
        let npz = DataFile::Npz(NpzFile {
            train: Some("train.npz".into()),
            test: None,
            hold_out_every: Some(5),
            examples: "x".into(),
            labels: "y".into(),
            features: 3072,
            classes: CountOrNames::Count(10),
        });
        for file in [
            npz,
            DataFile::Digits,
            DataFile::Table(TableFormat::Csv, csv()),
            DataFile::Table(TableFormat::Csv, held_out),
            DataFile::Idx(idx),
        ] {
            let data = Data::try_from(&file).unwrap();
            assert_eq!(DataFile::from(&data), file);
            let json = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<DataFile>(&json).unwrap(), file, "{json}");
        }
        assert_eq!(serde_json::to_string(&DataFile::Digits).unwrap(), "\"digits\"");
    }

    #[test]
    fn what_is_said_of_columns_and_targets_is_checked() {
        let column = |column: TableColumn| {
            refused(|f| {
                f.features = CountOrNames::Names(vec!["age".into(), "heat".into()]);
                f.standardize = None;
                f.columns = [("age".to_owned(), column)].into();
            })
        };
        let none = TableColumn::default;
        let colours = || Some(vec!["red".to_owned(), "green".to_owned()]);
        let key = |part: &str| format!("task.data.columns.age.{part}");
        assert_eq!(column(TableColumn { indicator: true, ..none() }), key("missing"));
        assert_eq!(column(TableColumn { other: true, ..none() }), key("other"));
        assert_eq!(column(TableColumn { missing: Some(Missing::Mean), ..none() }), key("missing"));
        assert_eq!(column(TableColumn { missing: Some(Missing::Value(f64::NAN)), ..none() }), key("missing"));
        assert_eq!(column(TableColumn { missing: Some(Missing::NoCategory), ..none() }), key("missing"));
        let coloured = |missing| TableColumn { categories: colours(), missing: Some(missing), ..none() };
        assert_eq!(column(coloured(Missing::Mean)), key("missing"));
        assert_eq!(column(coloured(Missing::Category("blue".into()))), key("missing"));
        assert_eq!(column(coloured(Missing::NoCategory)), key("indicator"));
        let spaced = TableColumn { categories: Some(vec!["red".into(), " blue".into()]), ..none() };
        assert_eq!(column(spaced), key("categories"));
        let twice = TableColumn { categories: Some(vec!["red".into(), "red".into()]), ..none() };
        assert_eq!(column(twice), key("categories"));
        let elsewhere = refused(|f| {
            f.features = CountOrNames::Names(vec!["heat".into()]);
            f.columns = [("age".to_owned(), none())].into();
        });
        assert_eq!(elsewhere, "task.data.columns.age");
        assert_eq!(refused(|f| f.features = CountOrNames::Names(vec!["sick".into()])), "task.data.label");
        let counted = Data::try_from(&DataFile::Table(TableFormat::Jsonl, csv())).unwrap_err();
        assert_eq!(counted.key, "task.data.features");

        let price = || Target {
            column: "price".into(),
            bounds: Some([0.0, 10.0]),
            mean: None,
            deviation: None,
            loss: Loss::Squared,
        };
        let target =
            |target: Target| refused(|f| (f.label, f.classes, f.target) = (None, None, Some(target)));
        assert_eq!(target(Target { bounds: None, ..price() }), "task.data.target");
        assert_eq!(target(Target { bounds: None, mean: Some(1.0), ..price() }), "task.data.target");
        assert_eq!(target(Target { mean: Some(1.0), ..price() }), "task.data.target.bounds");
        assert_eq!(target(Target { bounds: Some([3.0, 3.0]), ..price() }), "task.data.target.bounds");
        let flat = Target { bounds: None, mean: Some(1.0), deviation: Some(0.0), ..price() };
        assert_eq!(target(flat), "task.data.target");
        let fine = Target { bounds: None, mean: Some(1.7e9), deviation: Some(50.0), ..price() };
        assert_eq!(target(fine), "task.data.target");
        assert_eq!(target(Target { loss: Loss::Huber { delta: 0.0 }, ..price() }), "task.data.target.loss");
        assert_eq!(refused(|f| f.target = Some(price())), "task.data.label");
        assert_eq!(refused(|f| f.label = None), "task.data.label");
        assert_eq!(refused(|f| f.classes = None), "task.data.classes");
    }

    /// Ages with an indicator, two colours and another one, and a heat: six numbers.
    #[test]
    fn columns_say_how_many_numbers_an_example_has() {
        let text = r#"{
            "kind": "parquet",
            "test": "test.parquet",
            "features": 3,
            "target": { "column": "price", "bounds": [0, 10], "loss": { "huber": { "delta": 0.5 } } },
            "columns": {
                "age": { "missing": { "value": 40 }, "indicator": true },
                "colour": { "categories": ["red", "green"], "other": true }
            }
        }"#;
        let file: DataFile = serde_json::from_str(text).unwrap();
        let data = Data::try_from(&file).unwrap();
        assert_eq!((data.features(), data.classes()), (6, 1));
        assert_eq!(data.predicted(), crate::experiment::Predicted::Number);
        assert_eq!(DataFile::from(&data), file);
        let again: DataFile = serde_json::from_str(&serde_json::to_string(&file).unwrap()).unwrap();
        assert_eq!(again, file);
        let unknown = text.replace("\"other\": true", "\"others\": true");
        assert!(serde_json::from_str::<DataFile>(&unknown).is_err());
    }

    fn news() -> TextFile {
        TextFile {
            train: Some("dev.txt".into()),
            test: Some("test.txt".into()),
            hold_out_every: None,
            format: TextFormat::Tsv,
            text: Some(TextColumn::Number(1)),
            label: Some(TextColumn::Number(2)),
            client: None,
            classes: CountOrNames::Count(10),
            tokenizer: Tokenizer::Characters,
            lowercase: false,
            stop_words: Some("stop.txt".into()),
            vocabulary: Some(Vocabulary::File("words.txt".into())),
            length: 32,
            vectors: Some(VectorsFile { file: "v.npz".into(), array: None, width: 200 }),
            features: TextFeatures::Words,
        }
    }

    #[test]
    fn texts_give_word_numbers_or_a_vector() {
        let data = |change: fn(&mut TextFile)| {
            let mut file = news();
            change(&mut file);
            Data::try_from(&DataFile::Text(file)).map_err(|invalid| invalid.key)
        };
        assert_eq!(data(|_| {}).unwrap().features(), 32);
        assert_eq!(data(|f| f.features = TextFeatures::MeanVector).unwrap().features(), 200);
        let file = DataFile::Text(news());
        assert_eq!(DataFile::from(&data(|_| {}).unwrap()), file);
        let json = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<DataFile>(&json).unwrap(), file, "{json}");
        let refused = |change| data(change).unwrap_err();
        let meanless = |f: &mut TextFile| (f.features, f.vectors) = (TextFeatures::MeanVector, None);
        assert_eq!(refused(meanless), "task.data.features");
        assert_eq!(refused(|f| f.length = 0), "task.data.length");
        assert_eq!(refused(|f| f.vocabulary = None), "task.data.vocabulary");
        assert_eq!(refused(|f| f.text = None), "task.data.text");
        assert_eq!(refused(|f| f.label = None), "task.data.label");
        assert_eq!(refused(|f| f.features = TextFeatures::NextWord), "task.data.label");
        assert_eq!(refused(|f| f.format = TextFormat::Speakers), "task.data.text");
        let play = |f: &mut TextFile| {
            (f.format, f.text, f.label, f.vectors) = (TextFormat::Speakers, None, None, None);
        };
        assert_eq!(refused(play), "task.data.format");
        let pieces = |f: &mut TextFile| f.tokenizer = Tokenizer::File("tokenizer.json".into());
        assert_eq!(refused(pieces), "task.data.vocabulary");
        let own = |f: &mut TextFile| (f.tokenizer, f.vocabulary) = (Tokenizer::File("t.json".into()), None);
        assert_eq!(refused(own), "task.data.stop_words");
        assert_eq!(refused(|f| f.label = Some(TextColumn::Name("label".into()))), "task.data.label");
        assert_eq!(refused(|f| f.text = Some(TextColumn::Number(0))), "task.data.text");
        assert_eq!(refused(|f| f.format = TextFormat::Jsonl), "task.data.text");
    }

    #[test]
    fn unknown_words_kinds_and_keys_are_named() {
        let error = |json: &str| serde_json::from_str::<DataFile>(json).unwrap_err().to_string();
        assert!(error("\"digit\"").starts_with("unknown variant `digit`, expected `digits`"));
        assert!(error("{\"kind\": \"xls\"}").starts_with("unknown variant `xls`"));
        let csv = "{\"kind\": \"csv\", \"label\": \"y\", \"features\": 3, \"classes\": 2, \"lable\": 1}";
        assert!(error(csv).starts_with("unknown field `lable`"), "{}", error(csv));
        assert!(error("3").contains("expected \"digits\" or a table with `kind`"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        assert_eq!(refused(|csv| csv.test = None), "task.data");
        assert_eq!(refused(|csv| (csv.train, csv.test) = (None, None)), "task.data");
        assert_eq!(refused(|csv| csv.hold_out_every = Some(5)), "task.data.hold_out_every");
        assert_eq!(
            refused(|csv| (csv.test, csv.hold_out_every) = (None, Some(1))),
            "task.data.hold_out_every"
        );
        assert_eq!(refused(|csv| csv.label = Some(" ".into())), "task.data.label");
        assert_eq!(refused(|csv| csv.features = CountOrNames::Count(0)), "task.data.features");
        assert_eq!(refused(|csv| csv.classes = Some(CountOrNames::Count(1))), "task.data.classes");
        let twice = CountOrNames::Names(vec!["a".into(), "b".into(), "a".into()]);
        assert_eq!(refused(|csv| csv.features = twice), "task.data.features");
    }

    #[test]
    fn relative_paths_are_placed_below_a_directory() {
        let mut data = Data::try_from(&DataFile::Table(TableFormat::Csv, csv())).unwrap();
        data.place_below(std::path::Path::new("/data"));
        let Data::Table(TableData { files: Files::Apart { train, test }, .. }) = data else {
            panic!("{data:?}")
        };
        assert_eq!((train.unwrap(), test), ("/data/train.csv".into(), "/data/test.csv".into()));
    }
}
