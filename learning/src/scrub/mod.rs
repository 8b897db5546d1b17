//! Personal data in text: found, and replaced by what it was.
//!
//! A client's text goes through a [`Scrubber`] before anything learns from it: `ann@example.org` becomes `[EMAIL]`.
//! What has a checksum is recognised by it, the rest by its form and by the words before it. This lowers what a model can
//! remember; it proves nothing, which is what differential privacy is for. Names and addresses of people and everything
//! that only its meaning makes personal stay.

mod checksum;
mod contact;
mod folded;
mod identity;
mod payment;
pub(crate) mod records;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use regex::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use folded::Folded;

pub use identity::{COUNTRIES, Country};
pub use records::{Format, MAX_LINES, RecordError, RecordOptions, RecordReport, scrub_records};

/// What personal data is, as far as its form tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The address of a page or a host, with its scheme or without.
    Url,
    /// An address of electronic mail.
    Email,
    /// A bank account by its IBAN (ISO 13616), with its checksum.
    Iban,
    /// A person's number in a country's register: see [`COUNTRIES`].
    Identity,
    /// A payment card, with its checksum (Luhn) and a known first digit.
    Card,
    /// An address of the internet protocol, version 4 or 6.
    Ip,
    /// A telephone number.
    Phone,
}

impl Kind {
    /// Every kind, in the order of precedence: where two overlap, the first is right.
    pub const ALL: [Kind; 7] =
        [Kind::Url, Kind::Email, Kind::Iban, Kind::Identity, Kind::Card, Kind::Ip, Kind::Phone];

    /// The kind's name in policies and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Url => "url",
            Kind::Email => "email",
            Kind::Iban => "iban",
            Kind::Identity => "identity",
            Kind::Card => "card",
            Kind::Ip => "ip",
            Kind::Phone => "phone",
        }
    }

    /// The word that stands in brackets where something of this kind stood.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Url => "URL",
            Kind::Email => "EMAIL",
            Kind::Iban => "IBAN",
            Kind::Identity => "ID",
            Kind::Card => "CARD",
            Kind::Ip => "IP",
            Kind::Phone => "PHONE",
        }
    }

    /// Where this kind stands in a folded text, in order of start.
    fn find(self, text: &str) -> Vec<Range<usize>> {
        match self {
            Kind::Url => contact::urls(text),
            Kind::Email => contact::emails(text),
            Kind::Iban => payment::ibans(text),
            Kind::Identity => identity::numbers(text),
            Kind::Card => payment::cards(text),
            Kind::Ip => contact::addresses(text),
            Kind::Phone => contact::phones(text),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
            format!("`{text}` is no kind of personal data: take one of {}", names.join(", "))
        })
    }
}

/// What is replaced. The default replaces every kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Kinds that stay.
    pub keep: BTreeSet<Kind>,
    /// More that goes: a regular expression by the word that replaces its matches, of `A-Z`, `0-9` and `_`.
    pub patterns: BTreeMap<String, String>,
}

/// Why rules cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// The word for a pattern is none, or is taken.
    #[error(
        "`{0}` cannot name a pattern: take capital letters, digits and `_`, and no word of a built-in kind"
    )]
    Name(String),
    /// Not a regular expression.
    #[error("the pattern {name} is no regular expression: {reason}")]
    Pattern {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It would match between any two letters.
    #[error("the pattern {0} matches the empty text; say what has to be there")]
    Empty(String),
}

/// Replaces personal data in text.
#[derive(Debug, Clone)]
pub struct Scrubber {
    kinds: Vec<Kind>,
    patterns: Vec<(String, Regex)>,
}

/// Something found: where it stands in the text, in bytes, and the word that replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// Where it stands, in bytes.
    pub range: Range<usize>,
    /// What it is.
    pub word: &'a str,
}

impl Scrubber {
    /// A scrubber that follows `rules`.
    ///
    /// # Errors
    /// [`RuleError`] names the pattern that is wrong.
    pub fn new(rules: &Rules) -> Result<Self, RuleError> {
        let kinds = Kind::ALL.into_iter().filter(|kind| !rules.keep.contains(kind)).collect();
        let patterns = rules
            .patterns
            .iter()
            .map(|(name, pattern)| Ok((name.clone(), compile(name, pattern)?)))
            .collect::<Result<_, RuleError>>()?;
        Ok(Self { kinds, patterns })
    }

    /// What is found in `text`, in order, without overlaps. An owner's own patterns come before the built-in kinds.
    pub fn find(&self, text: &str) -> Vec<Finding<'_>> {
        let folded = Folded::new(text);
        let mut findings: Vec<Finding> = Vec::new();
        let mut claim = |range: Range<usize>, word| {
            let free =
                findings.iter().all(|other| range.end <= other.range.start || other.range.end <= range.start);
            if free && !range.is_empty() {
                findings.push(Finding { range, word });
            }
        };
        for (name, pattern) in &self.patterns {
            for found in pattern.find_iter(folded.text()) {
                claim(folded.original(found.range()), name);
            }
        }
        for kind in &self.kinds {
            for range in kind.find(folded.text()) {
                claim(folded.original(range), kind.placeholder());
            }
        }
        findings.sort_unstable_by_key(|finding| finding.range.start);
        findings
    }

    /// `text` with a word in brackets for everything that was found, which is counted in `counts`.
    pub fn scrub<'a>(&self, text: &'a str, counts: &mut Counts) -> Cow<'a, str> {
        let findings = self.find(text);
        if findings.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut scrubbed = String::with_capacity(text.len());
        let mut end = 0;
        for Finding { range, word } in findings {
            scrubbed.push_str(&text[end..range.start]);
            scrubbed.push('[');
            scrubbed.push_str(word);
            scrubbed.push(']');
            end = range.end;
            counts.add(word);
        }
        scrubbed.push_str(&text[end..]);
        Cow::Owned(scrubbed)
    }
}

fn compile(name: &str, pattern: &str) -> Result<Regex, RuleError> {
    let taken = Kind::ALL.iter().any(|kind| kind.placeholder() == name);
    let is_word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if taken || name.is_empty() || !name.bytes().all(is_word) {
        return Err(RuleError::Name(name.to_owned()));
    }
    let regex = Regex::new(pattern)
        .map_err(|error| RuleError::Pattern { name: name.to_owned(), reason: error.to_string() })?;
    if regex.is_match("") { Err(RuleError::Empty(name.to_owned())) } else { Ok(regex) }
}

/// How often what was replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn add(&mut self, word: &str) {
        match self.0.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(word.to_owned(), 1)),
        }
    }

    /// How often `word` replaced something.
    pub fn of(&self, word: &str) -> u64 {
        self.0.get(word).copied().unwrap_or(0)
    }

    /// The words with their counts, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, count)| (word.as_str(), *count))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let parts: Vec<String> = self.iter().map(|(word, count)| format!("{count} {word}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// Where a pattern matches and `accepted` says from where to where. After a match that is refused the search goes on within it.
fn search(
    pattern: &Regex,
    text: &str,
    accepted: impl Fn(regex::Match<'_>) -> Option<Range<usize>>,
) -> Vec<Range<usize>> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(matched) = pattern.find_at(text, from) {
        let start = matched.start();
        match accepted(matched) {
            Some(range) => {
                from = range.end;
                found.push(range);
            }
            None => from = start + 1,
        }
    }
    found
}

/// Whether nothing that would continue a number or a word stands around `range`: in text without spaces between words a
/// number may follow a letter of another script.
fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let joins = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    !before.is_some_and(joins) && !after.is_some_and(joins)
}

/// Whether one of `words`, in small letters, stands in the last [`CONTEXT`] characters before `start`.
fn follows_a_word(text: &str, start: usize, words: &[&str]) -> bool {
    let from = text[..start].char_indices().rev().take(CONTEXT).last().map_or(start, |(at, _)| at);
    let context = text[from..start].to_lowercase();
    words.iter().any(|word| {
        context.match_indices(word).any(|(at, _)| {
            let letter = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphanumeric());
            !letter(context[..at].chars().next_back()) && !letter(context[at + word.len()..].chars().next())
        })
    })
}

/// How far before a number the word may stand that says what it is.
const CONTEXT: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scrub(text: &str) -> String {
        Scrubber::new(&Rules::default()).unwrap().scrub(text, &mut Counts::default()).into_owned()
    }

    #[test]
    fn what_is_found_is_replaced_and_counted() {
        let scrubber = Scrubber::new(&Rules::default()).unwrap();
        let mut counts = Counts::default();
        let text = "Mail ann@example.org or bob@example.org, or call +44 20 7946 0958.";
        assert_eq!(scrubber.scrub(text, &mut counts), "Mail [EMAIL] or [EMAIL], or call [PHONE].");
        assert_eq!(counts.to_string(), "2 EMAIL, 1 PHONE");
        assert_eq!((counts.of("EMAIL"), counts.of("CARD")), (2, 0));
        assert_eq!(Counts::default().to_string(), "nothing");
    }

    #[test]
    fn what_is_kept_stays_and_own_patterns_come_first() {
        let rules = Rules {
            keep: [Kind::Email].into(),
            patterns: [("PATIENT".to_owned(), r"P-\d{6}".to_owned())].into(),
        };
        let scrubber = Scrubber::new(&rules).unwrap();
        let text = scrubber.scrub("P-123456 wrote to ann@example.org", &mut Counts::default()).into_owned();
        assert_eq!(text, "[PATIENT] wrote to ann@example.org");
    }

    #[test]
    fn wrong_patterns_are_named() {
        let wrong = |name: &str, pattern: &str| {
            let patterns = [(name.to_owned(), pattern.to_owned())].into();
            Scrubber::new(&Rules { patterns, ..Rules::default() }).unwrap_err().to_string()
        };
        assert!(wrong("patient", "x").contains("`patient` cannot name"), "capital letters only");
        assert!(wrong("EMAIL", "x").contains("`EMAIL` cannot name"), "taken");
        assert!(wrong("", "x").contains("`` cannot name"));
        assert!(wrong("A", "(").contains("the pattern A is no regular expression"));
        assert!(wrong("A", "x*").contains("matches the empty text"));
    }

    #[test]
    fn a_link_with_a_mail_address_in_it_is_one_link() {
        assert_eq!(scrub("see https://ann@example.org/a?b=192.0.2.7."), "see [URL].");
    }

    proptest! {
        #[test]
        fn any_text_is_scrubbed_once_and_for_all(text in "\\PC{0,60}") {
            let once = scrub(&text);
            prop_assert_eq!(scrub(&once), once);
        }

        #[test]
        fn text_of_digits_and_signs_is_scrubbed_once_and_for_all(text in "[0-9A-Fa-f +:./@-]{0,60}") {
            let once = scrub(&text);
            prop_assert_eq!(scrub(&once), once);
        }
    }
}
