//! Where the examples of a federation are, before anybody has read them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::images::ImageData;
use super::metric::Predicted;
use super::table::{TableAnswer, TableData};
use super::workload::Workload;

/// A data set.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// The embedded handwritten digits: 1,797 images of 8x8 pixels in ten classes.
    Digits,
    /// Tables.
    Table(TableData),
    /// Images and labels in the format of MNIST.
    Idx(IdxData),
    /// Arrays of NumPy.
    Npz(NpzData),
    /// Images in colour or grey.
    Images(ImageData),
    /// Labelled texts.
    Text(TextData),
    /// Files that the program reads in its own way.
    Own(OwnData),
    /// Synthetic, generated client by client. Fixes the first weights and the cohorts, too.
    Workload(Workload),
}

/// Images with labels in the IDX format, plain or compressed with gzip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxData {
    /// The images and their labels.
    pub files: Files<IdxPair>,
    /// Pixels of an image.
    pub features: u32,
    /// What the labels 0, 1, 2, ... stand for.
    pub classes: CountOrNames,
}

/// Archives of NumPy with an array of examples and one of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpzData {
    /// The archives.
    pub files: Files<PathBuf>,
    /// The array whose first dimension counts the examples.
    pub examples: String,
    /// The array of labels.
    pub labels: String,
    /// Numbers of an example.
    pub features: u32,
    /// What the labels 0, 1, 2, ... stand for.
    pub classes: CountOrNames,
}

/// Files in a format that the program brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnData {
    /// The files.
    pub files: Files<PathBuf>,
    /// What the program calls their format.
    pub format: String,
    /// Numbers of an example.
    pub features: u32,
    /// What the labels 0, 1, 2, ... stand for.
    pub classes: CountOrNames,
}

/// Labelled texts, one a line, and what is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextData {
    /// The files.
    pub files: Files<PathBuf>,
    /// How a line is divided.
    pub format: TextFormat,
    /// Where the text stands, in files with columns.
    pub text: Option<TextColumn>,
    /// Where the label stands; nowhere where the next word is predicted.
    pub label: Option<TextColumn>,
    /// Where it stands whose example a line is, if anywhere.
    pub client: Option<TextColumn>,
    /// The classes that labels name: integers from 0, or these texts. Where the next word is predicted, so many words.
    pub classes: CountOrNames,
    /// What counts as a word.
    pub tokenizer: Tokenizer,
    /// Whether capital letters are made small first.
    pub lowercase: bool,
    /// A file of words that do not count.
    pub stop_words: Option<PathBuf>,
    /// The words that do; a word's number is its place, from 0. None with a tokenizer that has its own.
    pub vocabulary: Option<Vocabulary>,
    /// So many words of a text count at most, at least 1.
    pub length: u32,
    /// Vectors of the words.
    pub vectors: Option<VectorsFile>,
    /// What is made of the words.
    pub features: TextFeatures,
}

/// How a line of a file of texts is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextFormat {
    /// By commas.
    Csv,
    /// By tabulators.
    Tsv,
    /// A JSON object on each line.
    Jsonl,
    /// A play: passages with an empty line between them, each below the name of who speaks it and a colon.
    Speakers,
}

/// Where something stands in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the number of a column, or a name")]
pub enum TextColumn {
    /// In this column, from 1, of a file without a header line.
    Number(u32),
    /// In the column or field of this name.
    Name(String),
}

/// What counts as a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// Every character.
    Characters,
    /// What Unicode's rules say is a word.
    Words,
    /// What jieba finds in a Chinese text.
    Jieba,
    /// The pieces of a tokenizer of Hugging Face, from its `tokenizer.json`, with their own numbers.
    File(PathBuf),
}

/// Where the words stand that are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a file with a word on each line, or a list of words")]
pub enum Vocabulary {
    /// In a file, one on each line.
    File(PathBuf),
    /// Here.
    Words(Vec<String>),
}

/// A file of vectors of words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorsFile {
    /// The file.
    pub file: PathBuf,
    /// The array in it, where it holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Numbers of a vector.
    pub width: u32,
}

/// What is made of the words of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextFeatures {
    /// Their numbers, padded with −1. Vectors, if there are any, are the first weights of the model's embedding.
    #[default]
    Words,
    /// The mean of their vectors, which stay as they are.
    MeanVector,
    /// The numbers of the words of parts of a text, one part behind the other, each with the word that follows as its class.
    NextWord,
}

/// A file of images and the file of their labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdxPair {
    /// The images.
    pub images: PathBuf,
    /// One label an image.
    pub labels: PathBuf,
}

/// What is trained on and what is measured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files<F> {
    /// Files of their own.
    Apart {
        /// What simulated clients share; a server needs none.
        train: Option<F>,
        /// What the server measures with.
        test: F,
    },
    /// One file, the last of every so many examples of which are held out to measure with.
    HeldOut {
        /// The file.
        all: F,
        /// Size of a group of examples, at least 2.
        every: u32,
    },
}

/// So many things, or each by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of names")]
pub enum CountOrNames {
    /// So many.
    Count(u32),
    /// These.
    Names(Vec<String>),
}

impl CountOrNames {
    /// How many there are.
    pub fn count(&self) -> u32 {
        match self {
            CountOrNames::Count(count) => *count,
            CountOrNames::Names(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
        }
    }
}

impl Data {
    /// Numbers in one example.
    pub fn features(&self) -> u32 {
        match self {
            Data::Digits => 64,
            Data::Table(table) => table.numbers(),
            Data::Idx(idx) => idx.features,
            Data::Npz(npz) => npz.features,
            Data::Own(own) => own.features,
            Data::Images(images) => images.features(),
            Data::Text(text) => match (text.features, &text.vectors) {
                (TextFeatures::MeanVector, Some(vectors)) => vectors.width,
                _ => text.length,
            },
            Data::Workload(workload) => workload.features(),
        }
    }

    /// Classes to tell apart; 1 where a number is predicted.
    pub fn classes(&self) -> u32 {
        match self {
            Data::Digits => 10,
            Data::Table(table) => match &table.answer {
                TableAnswer::Class { classes, .. } => classes.count(),
                TableAnswer::Number(_) => 1,
            },
            Data::Idx(idx) => idx.classes.count(),
            Data::Npz(npz) => npz.classes.count(),
            Data::Own(own) => own.classes.count(),
            Data::Images(images) => images.classes.count(),
            Data::Text(text) => text.classes.count(),
            Data::Workload(workload) => workload.classes(),
        }
    }

    /// What is predicted of an example.
    pub fn predicted(&self) -> Predicted {
        match self {
            Data::Text(text) if text.features == TextFeatures::NextWord => Predicted::Word,
            Data::Table(table) if matches!(table.answer, TableAnswer::Number(_)) => Predicted::Number,
            _ => Predicted::Class,
        }
    }

    /// Whether they say whose example each is.
    pub fn has_clients(&self) -> bool {
        match self {
            Data::Table(table) => table.client.is_some(),
            Data::Text(text) => text.client.is_some() || text.format == TextFormat::Speakers,
            Data::Images(images) => images.has_clients(),
            // Only who reads them knows.
            Data::Own(_) => true,
            Data::Digits | Data::Idx(_) | Data::Npz(_) | Data::Workload(_) => false,
        }
    }

    /// Places files that are named by a relative path below `directory`.
    pub fn place_below(&mut self, directory: &Path) {
        let place = |path: &mut PathBuf| *path = directory.join(&*path);
        match self {
            Data::Digits | Data::Workload(_) => {}
            Data::Table(table) => {
                table.files.each_mut(place);
                table.standardize.iter_mut().for_each(place);
            }
            Data::Npz(npz) => npz.files.each_mut(place),
            Data::Own(own) => own.files.each_mut(place),
            Data::Images(images) => images.files.each_mut(place),
            Data::Idx(idx) => idx.files.each_mut(|pair| {
                place(&mut pair.images);
                place(&mut pair.labels);
            }),
            Data::Text(text) => {
                text.files.each_mut(place);
                text.stop_words.iter_mut().for_each(place);
                if let Some(Vocabulary::File(file)) = &mut text.vocabulary {
                    place(file);
                }
                if let Tokenizer::File(file) = &mut text.tokenizer {
                    place(file);
                }
                text.vectors.iter_mut().for_each(|vectors| place(&mut vectors.file));
            }
        }
    }
}

impl<F> Files<F> {
    fn each_mut(&mut self, mut change: impl FnMut(&mut F)) {
        match self {
            Files::Apart { train, test } => {
                train.iter_mut().for_each(&mut change);
                change(test);
            }
            Files::HeldOut { all, .. } => change(all),
        }
    }
}
