//! How a text falls into words.

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// What counts as a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// Every character, spaces and punctuation included; for scripts without spaces between words.
    Characters,
    /// What Unicode's rules say is a word (Unicode Standard Annex 29); no punctuation.
    Words,
}

impl Tokenizer {
    /// The words of a text, in order.
    pub fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        match self {
            Self::Characters => {
                text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()]).collect()
            }
            Self::Words => text.unicode_words().collect(),
        }
    }
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
}
