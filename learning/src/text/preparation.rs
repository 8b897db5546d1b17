//! What is done with every text before a model sees it; it travels inside the model's file.

use std::collections::BTreeSet;
use std::path::Path;

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{TextError, Texts, Tokenizer, Vectors, Vocabulary, read_file};
use crate::{Dataset, DatasetError, MAX_WIDTH, Owners};

/// How a text becomes the features of an example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PreparationFields")]
pub struct Preparation {
    /// What counts as a word.
    pub tokenizer: Tokenizer,
    /// Whether capital letters are made small first.
    pub lowercase: bool,
    /// Words that do not count.
    pub stop_words: BTreeSet<String>,
    /// The words that do.
    pub vocabulary: Vocabulary,
    /// So many known words of a text count at most: the first.
    pub length: usize,
    /// What is made of them.
    pub features: TextFeatures,
}

/// [`Preparation`] as it is written, before its parts are checked against each other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreparationFields {
    tokenizer: Tokenizer,
    lowercase: bool,
    stop_words: BTreeSet<String>,
    vocabulary: Vocabulary,
    length: usize,
    features: TextFeatures,
}

/// What is made of the words of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFeatures {
    /// Their numbers, padded with −1: what an embedding takes.
    Words,
    /// The mean of their vectors; zeros without any.
    MeanVector(Vectors),
    /// The numbers of the last words, padded with −1: what a model of the next word takes.
    NextWord,
}

impl Preparation {
    /// Features of an example.
    pub fn features(&self) -> usize {
        match &self.features {
            TextFeatures::Words | TextFeatures::NextWord => self.length,
            TextFeatures::MeanVector(vectors) => vectors.width(),
        }
    }

    /// The features of a text, [`Preparation::features`] of them.
    pub fn prepare(&self, text: &str) -> Vec<f32> {
        let lowered;
        let text = if self.lowercase {
            lowered = text.to_lowercase();
            &lowered
        } else {
            text
        };
        let mut numbers = self.numbers(text);
        match &self.features {
            TextFeatures::Words => self.padded(&numbers[..self.length.min(numbers.len())]),
            TextFeatures::NextWord => self.padded(&numbers[numbers.len().saturating_sub(self.length)..]),
            TextFeatures::MeanVector(vectors) => {
                numbers.truncate(self.length);
                let (mut mean, mut count) = (Array1::<f32>::zeros(vectors.width()), 0_u32);
                for number in numbers {
                    mean += &vectors.matrix().row(number as usize);
                    count += 1;
                }
                (mean / count.max(1) as f32).to_vec()
            }
        }
    }

    fn dataset_of_parts(&self, texts: &Texts, classes: usize) -> Result<Dataset, DatasetError> {
        let (mut features, mut labels, mut owners) = (Vec::new(), Vec::new(), Owners::default());
        for (at, text) in texts.texts.iter().enumerate() {
            for (words, next) in self.parts(text) {
                features.extend(words);
                labels.push(next);
                if let Some(given) = &texts.owners {
                    owners.push(&given.names()[given.of_rows()[at] as usize]);
                }
            }
        }
        let (rows, columns) = (labels.len(), self.length);
        let features = Array2::from_shape_vec((rows, columns), features)
            .map_err(|_| DatasetError::Empty { rows, columns })?;
        let dataset = Dataset::new(features, Array1::from_vec(labels), classes)?;
        if texts.owners.is_some() { dataset.owned_by(owners) } else { Ok(dataset) }
    }

    /// The features of word numbers, at most as many as count.
    fn padded(&self, numbers: &[u32]) -> Vec<f32> {
        let words = numbers.iter().map(|&number| number as f32);
        words.chain(std::iter::repeat(PADDING)).take(self.length).collect()
    }

    /// The parts of a text, one behind the other: each has so many words as count, or what is left, and the word that follows.
    fn parts(&self, text: &str) -> Vec<(Vec<f32>, u32)> {
        let numbers = self.numbers(text);
        let part = |start: usize| {
            let end = (start + self.length).min(numbers.len() - 1);
            (self.padded(&numbers[start..end]), numbers[end])
        };
        (0..numbers.len().saturating_sub(1)).step_by(self.length).map(part).collect()
    }

    /// The numbers of all words of a text that are known.
    pub(super) fn numbers(&self, text: &str) -> Vec<u32> {
        if let Tokenizer::Pieces(pieces) = &self.tokenizer {
            return pieces.numbers(text);
        }
        let words = self.tokenizer.split(text).into_iter().filter(|word| !self.stop_words.contains(*word));
        words.filter_map(|word| self.vocabulary.number(word)).collect()
    }

    /// The examples that texts make.
    ///
    /// # Errors
    /// [`DatasetError`] if there are none.
    pub fn dataset(&self, texts: Texts, classes: usize) -> Result<Dataset, DatasetError> {
        if self.features == TextFeatures::NextWord {
            return self.dataset_of_parts(&texts, classes);
        }
        let rows = texts.texts.len();
        let features: Vec<f32> = texts.texts.iter().flat_map(|text| self.prepare(text)).collect();
        let features = Array2::from_shape_vec((rows, self.features()), features)
            .map_err(|_| DatasetError::Empty { rows, columns: self.features() })?;
        let dataset = Dataset::new(features, Array1::from_vec(texts.labels), classes)?;
        match texts.owners {
            Some(owners) => dataset.owned_by(owners),
            None => Ok(dataset),
        }
    }
}

impl TryFrom<PreparationFields> for Preparation {
    type Error = String;

    fn try_from(fields: PreparationFields) -> Result<Self, String> {
        let PreparationFields { tokenizer, lowercase, stop_words, vocabulary, length, features } = fields;
        match &features {
            TextFeatures::MeanVector(vectors) if vectors.matrix().nrows() != vocabulary.len() => {
                Err("there is not a vector for each word".to_owned())
            }
            TextFeatures::MeanVector(_) if matches!(&tokenizer, Tokenizer::Pieces(pieces) if pieces.len() > vocabulary.len()) => {
                Err("the tokenizer has more pieces than there are vectors".to_owned())
            }
            _ if !(1..=MAX_WIDTH).contains(&length) => {
                Err("no words of a text count, or too many".to_owned())
            }
            _ => Ok(Preparation { tokenizer, lowercase, stop_words, vocabulary, length, features }),
        }
    }
}

/// Words that do not count, from a file with one on each line; what stands around them does not count either.
///
/// # Errors
/// [`TextError`].
pub fn stop_words(path: &Path) -> Result<BTreeSet<String>, TextError> {
    let text = read_file(path)?;
    Ok(text.lines().map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

/// What stands where there is no word.
const PADDING: f32 = -1.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn preparation(features: TextFeatures) -> Preparation {
        let words = ["the", "sun", "is", "hot"].map(str::to_owned).to_vec();
        Preparation {
            tokenizer: Tokenizer::Words,
            lowercase: true,
            stop_words: ["the".to_owned()].into(),
            vocabulary: Vocabulary::new(words).unwrap(),
            length: 4,
            features,
        }
    }

    #[test]
    fn a_text_becomes_the_numbers_of_its_words() {
        let preparation = preparation(TextFeatures::Words);
        assert_eq!(preparation.prepare("The SUN is blue, hot"), [1.0, 2.0, 3.0, -1.0]);
        assert_eq!(preparation.prepare("sun sun sun sun sun"), [1.0; 4]);
        assert_eq!(preparation.prepare(""), [-1.0; 4]);
        let json = serde_json::to_string(&preparation).unwrap();
        assert_eq!(serde_json::from_str::<Preparation>(&json).unwrap(), preparation);
    }

    #[test]
    fn a_text_falls_into_parts_with_the_word_that_follows_each() {
        let mut preparation = preparation(TextFeatures::NextWord);
        preparation.length = 2;
        assert_eq!(preparation.prepare("sun is hot"), [2.0, 3.0]);
        assert_eq!(preparation.prepare("hot"), [3.0, -1.0]);
        let mut owners = Owners::default();
        ["ann", "bob"].iter().for_each(|name| owners.push(name));
        let texts = ["sun is hot, sun is hot", "sun"].map(str::to_owned).to_vec();
        let texts = Texts { texts, labels: vec![0; 2], owners: Some(owners) };
        let dataset = preparation.dataset(texts, 4).unwrap();
        let rows: Vec<f32> = dataset.features().iter().copied().collect();
        assert_eq!(rows, [1.0, 2.0, 3.0, 1.0, 2.0, -1.0]);
        assert_eq!(dataset.labels().to_vec(), [3, 2, 3]);
        assert_eq!(dataset.owners().unwrap().of_rows(), [0, 0, 0]);
        let alone = Texts { texts: vec!["sun".into()], labels: vec![0], owners: None };
        assert!(preparation.dataset(alone, 4).is_err());
    }

    #[test]
    fn a_text_becomes_the_mean_of_the_vectors_of_its_words() {
        let json = r#"{"width":2,"f32":"AAAAAAAAAAAAAIA/AAAAQAAAQEAAAAAAAACAvwAAgL8="}"#;
        let vectors: Vectors = serde_json::from_str(json).unwrap();
        assert_eq!(vectors.matrix().row(1).to_vec(), [1.0, 2.0]);
        let preparation = preparation(TextFeatures::MeanVector(vectors));
        assert_eq!(preparation.prepare("the sun is"), [2.0, 1.0]);
        assert_eq!(preparation.prepare("nothing known"), [0.0, 0.0]);
        let json = serde_json::to_string(&preparation).unwrap();
        assert_eq!(serde_json::from_str::<Preparation>(&json).unwrap(), preparation);
        let short = json.replace("\"hot\"", "\"hot\",\"cold\"");
        let error = serde_json::from_str::<Preparation>(&short).unwrap_err().to_string();
        assert!(error.contains("vector for each word"), "{error}");
    }
}
