//! Reading what an experiment says about texts.

use std::path::{Path, PathBuf};

use skep_learning::scrub::{RecordReport, Scrubber};
use skep_learning::text::{
    self, Column, Fields, Format, Layout, Pieces, Preparation, TextError, TextFeatures, Texts, TextsReport,
    Tokenizer, Vectors, Vocabulary,
};
use skep_learning::{Architecture, Dataset, DatasetError, Layer};
use skep_protocol::experiment::{self, TextColumn, TextData, TextFormat};
use thiserror::Error;

use crate::data::classes;

/// Why an experiment's texts cannot be used.
#[derive(Debug, Error)]
pub enum TextDataError {
    /// A file has a fault.
    #[error(transparent)]
    File(#[from] TextError),
    /// The texts make no data set.
    #[error("{}: {source}", path.display())]
    Dataset {
        /// The file of texts.
        path: PathBuf,
        /// What is wrong.
        source: DatasetError,
    },
    /// The model's embedding is about other words.
    #[error(
        "task.model.layers: the embedding is for {embedding} words, but {} has {words}",
        vocabulary.display()
    )]
    Vocabulary {
        /// Words of the embedding.
        embedding: usize,
        /// The vocabulary's file.
        vocabulary: PathBuf,
        /// Words of the vocabulary.
        words: usize,
    },
    /// The classes of a model of the next word are the words.
    #[error(
        "task.data.classes: is {classes}, but {} has {words} words, and the next word may be any of them",
        vocabulary.display()
    )]
    Classes {
        /// Classes of the data.
        classes: usize,
        /// The vocabulary's file.
        vocabulary: PathBuf,
        /// Words of the vocabulary.
        words: usize,
    },
    /// The model's embedding is of another width than the vectors.
    #[error(
        "task.data.vectors.width: is {vectors}, but the vectors of the model's embedding have {embedding} numbers"
    )]
    Width {
        /// Numbers of a vector of the file.
        vectors: usize,
        /// Numbers of a vector of the embedding.
        embedding: usize,
    },
    /// There are vectors, and nothing to start from them.
    #[error(
        "task.data.vectors: the model has no embedding to start from them; with features = \"mean-vector\" they are the data"
    )]
    NoEmbedding,
}

/// What is done with every text.
///
/// # Errors
/// [`TextDataError::File`].
pub(crate) fn preparation(data: &TextData) -> Result<Preparation, TextDataError> {
    let (tokenizer, vocabulary) = words(data)?;
    let features = match data.features {
        experiment::TextFeatures::Words => TextFeatures::Words,
        experiment::TextFeatures::NextWord => {
            let (classes, words) = (data.classes.count() as usize, vocabulary.len());
            if classes != words {
                let vocabulary = vocabulary_file(data).to_owned();
                return Err(TextDataError::Classes { classes, vocabulary, words });
            }
            TextFeatures::NextWord
        }
        experiment::TextFeatures::MeanVector => {
            let vectors = vectors(data, &vocabulary)?;
            TextFeatures::MeanVector(vectors.expect("validated: means of vectors have vectors"))
        }
    };
    Ok(Preparation {
        tokenizer,
        lowercase: data.lowercase,
        stop_words: data.stop_words.as_deref().map(text::stop_words).transpose()?.unwrap_or_default(),
        vocabulary,
        length: data.length as usize,
        features,
    })
}

/// What counts as a word, and the words that are known.
fn words(data: &TextData) -> Result<(Tokenizer, Vocabulary), TextDataError> {
    let tokenizer = match &data.tokenizer {
        experiment::Tokenizer::Characters => Tokenizer::Characters,
        experiment::Tokenizer::Words => Tokenizer::Words,
        experiment::Tokenizer::Jieba => Tokenizer::Jieba,
        experiment::Tokenizer::File(path) => {
            let pieces = Pieces::read(path)?;
            let vocabulary =
                pieces.vocabulary().map_err(|fault| TextError::File { path: path.clone(), fault })?;
            return Ok((Tokenizer::Pieces(pieces), vocabulary));
        }
    };
    let vocabulary = match &data.vocabulary {
        Some(experiment::Vocabulary::File(file)) => Vocabulary::read(file)?,
        Some(experiment::Vocabulary::Words(words)) => Vocabulary::new(words.clone())
            .map_err(|fault| TextError::File { path: vocabulary_file(data).to_owned(), fault })?,
        None => unreachable!("validated: only a tokenizer from a file has words of its own"),
    };
    Ok((tokenizer, vocabulary))
}

/// The file that says which words there are, or the key.
fn vocabulary_file(data: &TextData) -> &Path {
    match (&data.vocabulary, &data.tokenizer) {
        (Some(experiment::Vocabulary::File(file)), _) | (None, experiment::Tokenizer::File(file)) => file,
        _ => Path::new("task.data.vocabulary"),
    }
}

/// Reads a file of texts.
///
/// # Errors
/// [`TextDataError`], which names the file and the place in it.
pub(crate) fn read(
    data: &TextData,
    preparation: &Preparation,
    path: &Path,
) -> Result<Dataset, TextDataError> {
    dataset(data, preparation, path, texts(data, path)?)
}

/// What a file of texts holds that is read as an experiment says.
///
/// # Errors
/// [`TextDataError`], which names the file and the place in it.
pub fn inspect_texts(data: &TextData, path: &Path) -> Result<TextsReport, TextDataError> {
    let layout = match data.format {
        TextFormat::Speakers => Layout::Speakers,
        _ => Layout::Records(fields(data)),
    };
    Ok(text::inspect(path, &layout, Some(&preparation(data)?))?)
}

fn texts(data: &TextData, path: &Path) -> Result<Texts, TextError> {
    match data.format {
        TextFormat::Speakers => text::speakers(path),
        _ => text::read(path, &fields(data), &classes(&data.classes)),
    }
}

/// Reads a file of the texts of one owner, who wants nothing personal in them to be learned.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_scrubbed(
    data: &TextData,
    path: &Path,
    scrubber: &Scrubber,
) -> Result<(Dataset, RecordReport), TextDataError> {
    let mut report = RecordReport::default();
    let scrubbed = texts(data, path)?.scrubbed(scrubber, &mut report);
    Ok((dataset(data, &preparation(data)?, path, scrubbed)?, report))
}

fn dataset(
    data: &TextData,
    preparation: &Preparation,
    path: &Path,
    texts: Texts,
) -> Result<Dataset, TextDataError> {
    let classes = classes(&data.classes);
    preparation
        .dataset(texts, classes.count())
        .map_err(|source| TextDataError::Dataset { path: path.to_owned(), source })
}

/// Puts the vectors of words, where there are any to start from, into a model that has just been made.
///
/// # Errors
/// [`TextDataError`] when the vocabulary, the vectors and the model's embedding are not about the same.
pub(crate) fn start_from_vectors(
    data: &TextData,
    architecture: &Architecture,
    model: &mut [f32],
) -> Result<(), TextDataError> {
    if data.features == experiment::TextFeatures::MeanVector {
        return Ok(());
    }
    let (_, vocabulary) = words(data)?;
    let embedding = match architecture {
        Architecture::Layers { layers, .. } => match layers.first() {
            Some(Layer::EmbeddingBag { vocabulary, width } | Layer::Embedding { vocabulary, width }) => {
                Some((*vocabulary, *width))
            }
            _ => None,
        },
        _ => None,
    };
    let words = vocabulary.len();
    match (embedding, &data.vectors) {
        (Some((embedding, _)), _) if embedding < words => {
            Err(TextDataError::Vocabulary { embedding, vocabulary: vocabulary_file(data).to_owned(), words })
        }
        (Some((_, embedding)), Some(vectors)) if embedding != vectors.width as usize => {
            Err(TextDataError::Width { vectors: vectors.width as usize, embedding })
        }
        (None, Some(_)) => Err(TextDataError::NoEmbedding),
        _ => {
            if let Some(vectors) = vectors(data, &vocabulary)? {
                let first = model.iter_mut().zip(vectors.matrix());
                first.for_each(|(weight, value)| *weight = *value);
            }
            Ok(())
        }
    }
}

fn vectors(data: &TextData, vocabulary: &Vocabulary) -> Result<Option<Vectors>, TextDataError> {
    let Some(file) = &data.vectors else { return Ok(None) };
    let width = file.width as usize;
    Ok(Some(Vectors::read(&file.file, file.array.as_deref(), vocabulary, width)?))
}

fn fields(data: &TextData) -> Fields {
    let column = |column: &TextColumn| match column {
        TextColumn::Number(number) => Column::Number(*number),
        TextColumn::Name(name) => Column::Name(name.clone()),
    };
    Fields {
        format: match data.format {
            TextFormat::Csv => Format::Csv,
            TextFormat::Tsv => Format::Tsv,
            TextFormat::Jsonl => Format::Jsonl,
            TextFormat::Speakers => unreachable!("a play has no columns"),
        },
        text: column(data.text.as_ref().expect("validated: a table has a column of texts")),
        label: data.label.as_ref().map(column),
        client: data.client.as_ref().map(column),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use skep_protocol::experiment::file::{DataFile, Layer, ModelFile, TextFile};
    use skep_protocol::experiment::{CountOrNames, Experiment, VectorsFile};

    use super::*;
    use crate::population;
    use crate::testing::file;

    /// An experiment over `news.csv` and its words in `directory`.
    fn news(directory: &Path, change: impl FnOnce(&mut TextFile)) -> Experiment {
        let write = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).unwrap();
            directory.join(name)
        };
        let news = write("news.csv", "title,kind\nA goal!,sport\nA play,art\n\"Goal, goal\",sport\n");
        let mut text = TextFile {
            train: Some(news.clone()),
            test: Some(news),
            hold_out_every: None,
            format: TextFormat::Csv,
            text: Some(TextColumn::Name("title".into())),
            label: Some(TextColumn::Name("kind".into())),
            client: None,
            classes: CountOrNames::Names(vec!["art".into(), "sport".into()]),
            tokenizer: experiment::Tokenizer::Words,
            lowercase: true,
            stop_words: Some(write("stop.txt", "a\n")),
            vocabulary: Some(experiment::Vocabulary::File(write("words.txt", "a\ngoal\nplay\n"))),
            length: 2,
            vectors: None,
            features: experiment::TextFeatures::Words,
        };
        change(&mut text);
        let mut file = file();
        file.task.data = DataFile::Text(text);
        let bag = Layer::EmbeddingBag { vocabulary: 3, width: 2 };
        file.task.model = ModelFile::Layers { image: None, layers: vec![bag] };
        file.population.clients = 2;
        file.rounds.min_updates = 1;
        Experiment::try_from(&file).unwrap()
    }

    fn vectors(directory: &Path, width: u32) -> Option<VectorsFile> {
        let file = directory.join("vectors.txt");
        std::fs::write(&file, "goal 1 2\nplay 3 4\n").unwrap();
        Some(VectorsFile { file, array: None, width })
    }

    #[test]
    fn texts_become_word_numbers_and_the_model_remembers_how() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = news(directory.path(), |_| {});
        let split = population::data(&experiment).unwrap();
        let expected = [[1.0, -1.0], [2.0, -1.0], [1.0, 1.0]];
        assert_eq!(
            split.train.dataset().features().iter().copied().collect::<Vec<f32>>(),
            expected.iter().flatten().copied().collect::<Vec<f32>>()
        );
        assert_eq!(split.test.dataset().labels().to_vec(), [1, 0, 1]);
        let interface = population::interface(&experiment).unwrap();
        assert_eq!(interface.text("Play a GOAL"), Some(vec![2.0, 1.0]));
    }

    #[test]
    fn the_embedding_starts_from_vectors_if_there_are_any() {
        let directory = tempfile::tempdir().unwrap();
        let drawn = population::initial_model(&news(directory.path(), |_| {})).unwrap();
        let given = news(directory.path(), |text| text.vectors = vectors(directory.path(), 2));
        let given = population::initial_model(&given).unwrap();
        assert_eq!(given[..6], [0.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(given[6..], drawn[6..]);
    }

    #[test]
    fn vocabulary_vectors_and_model_must_be_about_the_same_words() {
        let directory = tempfile::tempdir().unwrap();
        let error = |experiment: Experiment| population::initial_model(&experiment).unwrap_err().to_string();
        let wide = error(news(directory.path(), |text| text.vectors = vectors(directory.path(), 3)));
        assert!(wide.contains("is 3, but the vectors of the model's embedding have 2 numbers"), "{wide}");
        let experiment = news(directory.path(), |_| {});
        std::fs::write(directory.path().join("words.txt"), "goal\nplay\nthe\na\n").unwrap();
        let short = error(experiment);
        assert!(short.contains("the embedding is for 3 words") && short.ends_with("has 4"), "{short}");
        let mut experiment = news(directory.path(), |text| text.vectors = vectors(directory.path(), 2));
        experiment.task.model = skep_protocol::experiment::Model::Softmax;
        assert!(error(experiment).contains("the model has no embedding"));
    }
}
