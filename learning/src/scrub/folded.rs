//! Text as it is searched: wide letters and digits, foreign digits, unusual spaces and dashes are the ASCII ones, and what
//! is invisible is gone. Ranges in it lead back to the text as it stands.

use std::borrow::Cow;
use std::ops::Range;

/// A text, folded.
pub(super) struct Folded<'a> {
    text: Cow<'a, str>,
    /// For every byte of the folded text where its character began, and the end; empty if the text is its own folding.
    origins: Vec<usize>,
}

impl<'a> Folded<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        if text.chars().all(|character| fold(character) == Some(character)) {
            return Self { text: Cow::Borrowed(text), origins: Vec::new() };
        }
        let mut folded = String::with_capacity(text.len());
        let mut origins = Vec::with_capacity(text.len() + 1);
        for (at, character) in text.char_indices() {
            if let Some(character) = fold(character) {
                folded.push(character);
                origins.resize(folded.len(), at);
            }
        }
        origins.push(text.len());
        Self { text: Cow::Owned(folded), origins }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of the text that `range` of the folded one stands for.
    pub(super) fn original(&self, range: Range<usize>) -> Range<usize> {
        if self.origins.is_empty() { range } else { self.origins[range.start]..self.origins[range.end] }
    }
}

fn fold(character: char) -> Option<char> {
    let digit = |zero: char| char::from_digit(character as u32 - zero as u32, 10);
    match character {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(character as u32 - 0xfee0),
        '\u{660}'..='\u{669}' => digit('\u{660}'),
        '\u{6f0}'..='\u{6f9}' => digit('\u{6f0}'),
        '\u{966}'..='\u{96f}' => digit('\u{966}'),
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => Some(' '),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => Some('-'),
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lead_back_to_the_text() {
        let text = "电话：１３８\u{200b}-٤2。";
        let folded = Folded::new(text);
        assert_eq!(folded.text(), "电话:138-42。");
        let start = folded.text().find("138").unwrap();
        let original = folded.original(start..start + "138-42".len());
        assert_eq!(&text[original], "１３８\u{200b}-٤2");
        assert_eq!(folded.original(0..folded.text().len()), 0..text.len());
    }

    #[test]
    fn plain_text_is_not_copied() {
        let folded = Folded::new("plain - 汉字");
        assert!(matches!(folded.text, Cow::Borrowed(_)));
        assert_eq!(folded.original(2..5), 2..5);
    }
}
