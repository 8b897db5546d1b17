//! How a text falls into words.

use std::sync::OnceLock;

use jieba_rs::Jieba;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::Pieces;

/// What counts as a word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// Every character, spaces and punctuation included; for scripts without spaces between words.
    Characters,
    /// What Unicode's rules say is a word (Unicode Standard Annex 29); no punctuation.
    Words,
    /// The words of a Chinese text by jieba's dictionary, which is part of the program, and by its hidden Markov model where the
    /// dictionary has none; what is not Chinese falls into words and punctuation. No spaces.
    Jieba,
    /// The pieces of a tokenizer of Hugging Face, which have numbers of their own.
    Pieces(Pieces),
}

impl Tokenizer {
    /// The words of a text, in order. Of pieces, those whose characters stand in the text.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self {
            Self::Characters => {
                text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]).collect()
            }
            Self::Words => text.unicode_words().collect(),
            Self::Jieba => {
                let words = jieba().cut(text, true).into_iter().map(|token| token.word);
                words.filter(|word| !word.trim().is_empty()).collect()
            }
            Self::Pieces(pieces) => pieces.split(text),
        }
    }
}

/// Made once: the dictionary has 349,000 words.
fn jieba() -> &'static Jieba {
    static JIEBA: OnceLock<Jieba> = OnceLock::new();
    JIEBA.get_or_init(Jieba::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_characters_or_words() {
        assert_eq!(Tokenizer::Characters.split("ab 中文!"), ["a", "b", " ", "中", "文", "!"]);
        assert_eq!(Tokenizer::Words.split("It's 3.5 km, isn't it?"), ["It's", "3.5", "km", "isn't", "it"]);
        assert!(Tokenizer::Words.split(" ... ").is_empty());
    }

    /// What `jieba.lcut` of Python gives, by `learning/tests/tokenizers/make.py`.
    #[test]
    fn chinese_falls_into_the_words_of_jieba() {
        let lines = include_str!("../../tests/tokenizers/jieba.jsonl").lines();
        let mut count = 0;
        for line in lines {
            let (text, words): (String, Vec<String>) = serde_json::from_str(line).unwrap();
            assert_eq!(Tokenizer::Jieba.split(&text), words, "{text}");
            count += 1;
        }
        assert_eq!(count, 8);
    }
}
