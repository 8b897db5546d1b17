//! What a file of texts holds, before anybody learns from it: numbers only, and nothing of what stands in the texts.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::records::visit;
use super::{Fields, Preparation, TextError, TextFault, TextFeatures, Tokenizer, at, speakers};
use crate::Spread;
use crate::inspect::{Flaws, ValuesReport};
use crate::scrub::records::digest;

/// Where texts stand in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// An example a line.
    Records(Fields),
    /// A play: who says what.
    Speakers,
}

/// What a file of texts holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextsReport {
    /// Examples of the file.
    pub examples: u64,
    /// Examples without a text.
    pub missing: Flaws,
    /// Texts without a word.
    pub wordless: Flaws,
    /// Texts that stand there before, and the first line with one.
    pub repeated: Flaws,
    /// Words of a text.
    pub length: Option<Spread>,
    /// Different words of all texts.
    pub words: usize,
    /// What the model knows of them, if somebody says what that is.
    pub coverage: Option<Coverage>,
    /// The labels, if they are somewhere.
    pub label: Option<ValuesReport>,
    /// Whose the examples are, if that is said.
    pub client: Option<ValuesReport>,
}

/// What a model knows of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coverage {
    /// Words that the model knows.
    pub vocabulary: usize,
    /// How many of them occur.
    pub used: usize,
    /// The part of all words that it knows, 0 to 1, stop words left out; null where there are no words.
    pub known: Option<f64>,
    /// Texts of which it knows no word.
    pub unknown_texts: u64,
    /// So many words of a text count.
    pub length: usize,
    /// Texts with more known words than count; null where texts are cut into parts.
    pub longer: Option<u64>,
    /// Examples that the texts are cut into, where they are.
    pub parts: Option<u64>,
}

/// Looks through the texts of a file; `preparation` says what a word is, and which are known. Without it, words are those of
/// Unicode's rules.
///
/// # Errors
/// [`TextError`], which names the file and the line.
pub fn inspect(
    path: &Path,
    layout: &Layout,
    preparation: Option<&Preparation>,
) -> Result<TextsReport, TextError> {
    let mut pass = Pass { preparation, ..Pass::default() };
    match layout {
        Layout::Records(fields) => {
            let column = |column: &Option<super::Column>| {
                column.as_ref().map(|column| ValuesReport::of(&column.to_string()))
            };
            (pass.label, pass.client) = (column(&fields.label), column(&fields.client));
            visit(path, fields, &mut |line, parts| {
                // What is not there is counted, not refused.
                pass.see(line, parts.text.ok().as_deref());
                for (values, part) in [(&mut pass.label, parts.label), (&mut pass.client, parts.client)] {
                    let part = part.ok().flatten().unwrap_or_default();
                    values.iter_mut().for_each(|values| values.see(&part, line));
                }
                Ok(())
            })?;
        }
        Layout::Speakers => {
            let texts = speakers(path)?;
            let mut clients = ValuesReport::of("speaker");
            let owners = texts.owners.unwrap_or_default();
            for (text, owner) in texts.texts.iter().zip(owners.names()) {
                pass.see(1, Some(text));
                clients.see(owner, 1);
            }
            // What one says stands in many lines.
            (pass.wordless.first_line, pass.repeated.first_line) = (None, None);
            pass.client = Some(clients);
        }
    }
    if pass.examples == 0 { Err(at(path)(TextFault::NoTexts)) } else { Ok(pass.report()) }
}

/// What has been seen so far.
#[derive(Default)]
struct Pass<'a> {
    preparation: Option<&'a Preparation>,
    examples: u64,
    missing: Flaws,
    wordless: Flaws,
    repeated: Flaws,
    seen: HashSet<u128>,
    lengths: Vec<f64>,
    /// All words, each with its number if it is known.
    words: HashMap<String, Option<u32>>,
    /// Words that are no stop words, and those of them that are known.
    counted: u64,
    known: u64,
    unknown_texts: u64,
    longer: u64,
    parts: u64,
    label: Option<ValuesReport>,
    client: Option<ValuesReport>,
}

impl Pass<'_> {
    fn see(&mut self, line: u64, text: Option<&str>) {
        self.examples += 1;
        let Some(text) = text else { return self.missing.see(line) };
        if !self.seen.insert(digest(&text)) {
            self.repeated.see(line);
        }
        let lowered = match self.preparation {
            Some(Preparation { lowercase: true, .. }) => Cow::Owned(text.to_lowercase()),
            _ => Cow::Borrowed(text),
        };
        let words = self.words_of(&lowered);
        if words.is_empty() {
            self.wordless.see(line);
        }
        self.lengths.push(words.len() as f64);
        let mut known = 0;
        for (word, number) in words {
            let stops = |preparation: &Preparation| preparation.stop_words.contains(&*word);
            let counts = !self.preparation.is_some_and(stops);
            self.counted += u64::from(counts);
            known += u64::from(counts && number.is_some());
            self.words.entry(word.into_owned()).or_insert(number);
        }
        self.known += known;
        self.unknown_texts += u64::from(known == 0);
        if let Some(preparation) = self.preparation {
            let numbers = preparation.numbers(&lowered).len();
            self.longer += u64::from(numbers > preparation.length);
            self.parts += numbers.saturating_sub(1).div_ceil(preparation.length) as u64;
        }
    }

    /// The words of a text, each with its number if it is known. Pieces of a tokenizer are called by their numbers.
    fn words_of<'t>(&self, text: &'t str) -> Vec<(Cow<'t, str>, Option<u32>)> {
        let known = |number: &u32| {
            self.preparation.is_some_and(|preparation| preparation.vocabulary.is_known(*number))
        };
        match self.preparation.map_or(&Tokenizer::Words, |preparation| &preparation.tokenizer) {
            Tokenizer::Pieces(pieces) => {
                let numbers = pieces.numbers(text).into_iter();
                numbers.map(|number| (number.to_string().into(), Some(number).filter(known))).collect()
            }
            tokenizer => {
                let number = |word| self.preparation?.vocabulary.number(word).filter(known);
                tokenizer.split(text).into_iter().map(|word| (word.into(), number(word))).collect()
            }
        }
    }

    fn report(self) -> TextsReport {
        let coverage = self.preparation.map(|preparation| {
            let used: HashSet<u32> = self.words.values().flatten().copied().collect();
            let is_cut = preparation.features == TextFeatures::NextWord;
            Coverage {
                vocabulary: preparation.vocabulary.len(),
                used: used.len(),
                known: (self.counted > 0).then(|| self.known as f64 / self.counted as f64),
                unknown_texts: self.unknown_texts,
                length: preparation.length,
                longer: (!is_cut).then_some(self.longer),
                parts: is_cut.then_some(self.parts),
            }
        });
        TextsReport {
            examples: self.examples,
            missing: self.missing,
            wordless: self.wordless,
            repeated: self.repeated,
            length: Spread::of(self.lengths),
            words: self.words.len(),
            coverage,
            label: self.label,
            client: self.client,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Column, Format, Vocabulary};

    const NEWS: &str =
        "title,kind,who\nA goal! A goal,sport,ann\nthe play,art,bob\n,art,bob\n...,sport,\nthe play,,ann\n";

    fn preparation(features: TextFeatures) -> Preparation {
        let words = ["a", "goal", "<unk>", "never"].map(str::to_owned).to_vec();
        Preparation {
            tokenizer: Tokenizer::Words,
            lowercase: true,
            stop_words: ["the".to_owned()].into(),
            vocabulary: Vocabulary::new(words).unwrap(),
            length: 3,
            features,
        }
    }

    fn report(text: &str, layout: &Layout, preparation: Option<&Preparation>) -> TextsReport {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("news.txt");
        std::fs::write(&path, text).unwrap();
        inspect(&path, layout, preparation).unwrap()
    }

    fn fields() -> Layout {
        let [text, label, client] = ["title", "kind", "who"].map(|name| Column::Name(name.to_owned()));
        Layout::Records(Fields { format: Format::Csv, text, label: Some(label), client: Some(client) })
    }

    #[test]
    fn texts_are_counted_and_so_is_what_they_lack() {
        let report = report(NEWS, &fields(), None);
        assert_eq!(report.examples, 5);
        assert_eq!(report.missing, Flaws { count: 1, first_line: Some(4) });
        assert_eq!(report.wordless, Flaws { count: 1, first_line: Some(5) });
        assert_eq!(report.repeated, Flaws { count: 1, first_line: Some(6) });
        let length = report.length.unwrap();
        assert_eq!((length.least, length.most, length.mean, report.words), (0.0, 4.0, 2.0, 4));
        let label = report.label.unwrap();
        assert_eq!((label.missing.first_line, label.examples.unwrap()["sport"]), (Some(6), 2));
        assert_eq!(report.client.unwrap().missing.count, 1);
        assert_eq!(report.coverage, None);
    }

    #[test]
    fn what_a_vocabulary_covers_is_said() {
        let coverage = report(NEWS, &fields(), Some(&preparation(TextFeatures::Words))).coverage.unwrap();
        // Four of six words that do not stop: what stands for unknown ones is not known.
        assert_eq!((coverage.vocabulary, coverage.used, coverage.known), (4, 2, Some(4.0 / 6.0)));
        assert_eq!((coverage.unknown_texts, coverage.longer, coverage.parts), (3, Some(1), None));
        let play = "ANN:\nA goal a goal a\n\nBOB:\nNever!\n";
        let report = report(play, &Layout::Speakers, Some(&preparation(TextFeatures::NextWord)));
        let coverage = report.coverage.unwrap();
        assert_eq!((coverage.known, coverage.longer, coverage.parts), (Some(1.0), None, Some(2)));
        assert_eq!((report.examples, report.client.unwrap().examples.unwrap().len()), (2, 2));
    }

    #[test]
    fn pieces_are_known_by_their_numbers() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers");
        let pieces = crate::text::Pieces::read(&folder.join("bpe.json")).unwrap();
        let vocabulary = pieces.vocabulary().unwrap();
        let words = pieces.numbers("the play").len();
        let preparation = Preparation {
            tokenizer: Tokenizer::Pieces(pieces),
            vocabulary,
            ..preparation(TextFeatures::Words)
        };
        let report = report(
            "title\nthe play\n",
            &Layout::Records(Fields {
                format: Format::Csv,
                text: Column::Name("title".into()),
                label: None,
                client: None,
            }),
            Some(&preparation),
        );
        assert_eq!(report.length.unwrap().mean, words as f64);
        assert_eq!(report.coverage.unwrap().known, Some(1.0));
    }
}
