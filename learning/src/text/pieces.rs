//! Pieces of words by a tokenizer of Hugging Face, as `tokenizer.json` describes it.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{TextError, TextFault, Vocabulary, at, read_file};

/// A tokenizer of Hugging Face: it normalizes, divides, finds pieces in its own vocabulary and puts special ones around them. Its
/// settings of truncation and padding are not used.
#[derive(Debug, Clone)]
pub struct Pieces(Arc<Described>);

#[derive(Debug)]
struct Described {
    /// The bytes of the file.
    json: String,
    tokenizer: tokenizers::Tokenizer,
    vocabulary: usize,
}

impl Pieces {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError`], which names the file.
    pub fn read(path: &Path) -> Result<Self, TextError> {
        Self::new(read_file(path)?).map_err(at(path))
    }

    fn new(json: String) -> Result<Self, TextFault> {
        let fault = |problem: &dyn std::fmt::Display| {
            TextFault::Format(format!("is no tokenizer of Hugging Face that is known here: {problem}"))
        };
        let mut tokenizer = tokenizers::Tokenizer::from_str(&json).map_err(|error| fault(&error))?;
        tokenizer.with_truncation(None).map_err(|error| fault(&error))?.with_padding(None);
        let numbers = tokenizer.get_vocab(true);
        let vocabulary = numbers.values().max().map_or(0, |largest| *largest as usize + 1);
        match vocabulary {
            0 => Err(TextFault::NoWords),
            MOST.. => Err(fault(&format!("it has a piece number {}", vocabulary - 1))),
            _ => Ok(Pieces(Arc::new(Described { json, tokenizer, vocabulary }))),
        }
    }

    /// How many numbers there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a tokenizer has pieces")]
    pub fn len(&self) -> usize {
        self.0.vocabulary
    }

    /// The numbers of the pieces of a text, the special ones around them included.
    pub fn numbers(&self, text: &str) -> Vec<u32> {
        // It fails on vocabularies that lack the unknown piece that they name: then there is no piece.
        self.0.tokenizer.encode_fast(text, true).map(|encoded| encoded.get_ids().to_vec()).unwrap_or_default()
    }

    /// The parts of a text that are pieces, in order; without special ones, which stand for none of it.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let Ok(encoded) = self.0.tokenizer.encode(text, false) else { return vec![] };
        encoded.get_offsets().iter().filter_map(|&(start, end)| text.get(start..end)).collect()
    }

    /// The pieces by number. A number without a piece has a name in angle brackets.
    ///
    /// # Errors
    /// [`TextFault`] if two pieces have one name.
    pub fn vocabulary(&self) -> Result<Vocabulary, TextFault> {
        let name =
            |number| self.0.tokenizer.id_to_token(number).unwrap_or_else(|| format!("<no piece {number}>"));
        Vocabulary::new((0..self.0.vocabulary as u32).map(name).collect())
    }
}

/// More pieces than any tokenizer has.
const MOST: usize = 1 << 24;

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.0.json == other.0.json
    }
}

impl Serialize for Pieces {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pieces {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pieces::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts and what `tokenizers` of Python makes of them, by `learning/tests/tokenizers/make.py`.
    #[test]
    fn pieces_have_the_numbers_that_python_gives_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers");
        for (name, size) in [("bpe", 300), ("wordpiece", 90)] {
            let pieces = Pieces::read(&folder.join(format!("{name}.json"))).unwrap();
            assert_eq!(pieces.vocabulary().unwrap().len(), size);
            let expected = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap();
            for line in expected.lines() {
                let (text, numbers): (String, Vec<u32>) = serde_json::from_str(line).unwrap();
                assert_eq!(pieces.numbers(&text), numbers, "{name}: {text}");
            }
            assert!(expected.lines().count() >= 6);
            let again: Pieces = serde_json::from_str(&serde_json::to_string(&pieces).unwrap()).unwrap();
            assert!(again == pieces);
        }
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        for json in ["{}", "[", "{\"model\": 1}"] {
            let error = Pieces::new(json.into()).unwrap_err().to_string();
            assert!(error.contains("no tokenizer of Hugging Face"), "{error}");
        }
    }
}
