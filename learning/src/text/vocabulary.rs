//! The words that a model knows, by number.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{TextError, TextFault, at, read_file};

/// Words, each with its number: its place in the list, from 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Vocabulary {
    words: Vec<String>,
    numbers: HashMap<String, u32>,
    unknown: Option<u32>,
}

impl Vocabulary {
    /// The vocabulary of `words`. One of `<UNK>`, `<unk>` and `[UNK]` among them stands for every word that is not; without
    /// one, unknown words are left out.
    ///
    /// # Errors
    /// [`TextFault::NoWords`], or [`TextFault::RepeatedWord`] with its second place, from 1.
    pub fn new(words: Vec<String>) -> Result<Self, TextFault> {
        let mut numbers = HashMap::with_capacity(words.len());
        for (number, word) in words.iter().enumerate() {
            if let Some(first) = numbers.insert(word.clone(), number as u32) {
                let (word, first) = (word.clone(), first as usize + 1);
                return Err(TextFault::RepeatedWord { word, first, second: number + 1 });
            }
        }
        if words.is_empty() {
            return Err(TextFault::NoWords);
        }
        let unknown = UNKNOWN.iter().find_map(|word| numbers.get(*word).copied());
        Ok(Self { words, numbers, unknown })
    }

    /// Reads a file with a word on each line; line 1 has number 0. Spaces count, and `\n` stands for the end of a line.
    ///
    /// # Errors
    /// [`TextError`], which names the file and the line.
    pub fn read(path: &Path) -> Result<Self, TextError> {
        let text = read_file(path)?;
        let word = |line: &str| if line == "\\n" { "\n".to_owned() } else { line.to_owned() };
        Self::new(text.lines().map(word).collect()).map_err(at(path))
    }

    /// The most frequent words of counted ones, at most `size` and each counted at least `least` times: by falling count, then by
    /// the alphabet.
    ///
    /// # Errors
    /// [`TextFault::NoWords`].
    pub fn most_frequent(counts: BTreeMap<String, u64>, size: usize, least: u64) -> Result<Self, TextFault> {
        let mut counted: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= least).collect();
        counted.sort_by(|(one, first), (other, second)| second.cmp(first).then(one.cmp(other)));
        counted.truncate(size);
        Self::new(counted.into_iter().map(|(word, _)| word).collect())
    }

    /// How many words there are, at least 1.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Never: a vocabulary has words.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words, by number.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether this is the number of a word, not of what stands for unknown ones.
    pub(super) fn is_known(&self, number: u32) -> bool {
        Some(number) != self.unknown
    }

    /// The number of a word, or of what stands for unknown ones.
    pub fn number(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied().or(self.unknown)
    }
}

impl TryFrom<Vec<String>> for Vocabulary {
    type Error = TextFault;

    fn try_from(words: Vec<String>) -> Result<Self, TextFault> {
        Self::new(words)
    }
}

impl From<Vocabulary> for Vec<String> {
    fn from(vocabulary: Vocabulary) -> Self {
        vocabulary.words
    }
}

/// What stands for words that are in no list, in the vocabularies that people publish.
const UNKNOWN: [&str; 3] = ["<UNK>", "<unk>", "[UNK]"];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_word_is_its_line_and_what_is_unknown_is_left_out_or_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.txt");
        std::fs::write(&path, " \n中\r\n文\n").unwrap();
        let plain = Vocabulary::read(&path).unwrap();
        assert_eq!((plain.number(" "), plain.number("文"), plain.number("x")), (Some(0), Some(2), None));
        std::fs::write(&path, "\\n\nx\n").unwrap();
        assert_eq!(Vocabulary::read(&path).unwrap().number("\n"), Some(0));
        std::fs::write(&path, "a\n<UNK>\nb\na\n").unwrap();
        let twice = Vocabulary::read(&path).unwrap_err().to_string();
        assert!(twice.ends_with("words.txt, line 4: the word `a` stands in line 1 already"), "{twice}");
        let with = Vocabulary::new(words(&["a", "<UNK>"])).unwrap();
        assert_eq!((with.number("a"), with.number("zzz")), (Some(0), Some(1)));
        std::fs::write(&path, "").unwrap();
        assert!(Vocabulary::read(&path).unwrap_err().to_string().ends_with("has no words"));
    }

    #[test]
    fn the_most_frequent_words_come_first() {
        let counts = [("b", 3), ("a", 3), ("c", 5), ("d", 1)].map(|(word, count)| (word.to_owned(), count));
        let vocabulary = Vocabulary::most_frequent(counts.into(), 3, 2).unwrap();
        assert_eq!(vocabulary.words(), ["c", "a", "b"]);
    }
}
