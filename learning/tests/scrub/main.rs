//! Personal data against a corpus with labels.
//!
//! Each line of `corpus.txt` is a text. What is personal in it stands as `{{WORD|content}}`; most lines of the others look as
//! if there were something. Nothing in it belongs to a person: numbers with checksums were drawn at random and completed by
//! an implementation of the checksums that is independent of the one under test (python-stdnum), telephone numbers are the
//! examples of libphonenumber or random, mail addresses are of domains for examples.

use std::collections::BTreeMap;
use std::ops::Range;

use skep_learning::scrub::{Rules, Scrubber};

/// What stands in a text, and what was found of it.
#[derive(Default)]
struct Score {
    there: u32,
    found: u32,
    /// Found where nothing is, or something else.
    wrong: u32,
}

#[test]
fn recall_and_precision_on_the_labelled_corpus() {
    let scrubber = Scrubber::new(&Rules::default()).unwrap();
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let (mut cases, mut negatives) = (0, 0);
    let mut misses = String::new();
    for line in include_str!("corpus.txt").lines() {
        let (text, labels) = read(line);
        let findings = scrubber.find(&text);
        negatives += u32::from(labels.is_empty());
        for (word, range) in &labels {
            cases += 1;
            let score = scores.entry(word).or_default();
            score.there += 1;
            // All of it has to go; taking a bracket or a sign with it does no harm, another word does.
            let near = |finding: &Range<usize>| {
                finding.start <= range.start && range.end <= finding.end && finding.len() <= range.len() + 4
            };
            if findings.iter().any(|finding| finding.word == *word && near(&finding.range)) {
                score.found += 1;
            } else {
                misses += &format!("missed {word} in: {line}\n");
            }
        }
        for finding in &findings {
            let right = |(word, range): &(&str, Range<usize>)| {
                *word == finding.word && range.start < finding.range.end && finding.range.start < range.end
            };
            if !labels.iter().any(right) {
                scores.entry(WORDS.iter().find(|word| **word == finding.word).unwrap()).or_default().wrong +=
                    1;
                misses += &format!("found {} at {:?} in: {line}\n", finding.word, finding.range);
            }
        }
    }
    for (word, score) in &scores {
        println!("{word:6} {:3} of {:3} found, {} wrong", score.found, score.there, score.wrong);
    }
    println!("{misses}");
    assert!(cases >= 300 && negatives >= 100, "{cases} cases and {negatives} texts without any");
    for (word, Score { there, found, wrong }) in scores {
        let with_checksum = matches!(word, "CARD" | "IBAN" | "ID");
        let least = if with_checksum { 0.99 } else { 0.95 };
        assert!(there >= 10, "{word} occurs {there} times only");
        assert!(f64::from(found) >= least * f64::from(there), "{word}: {found} of {there} found\n{misses}");
        assert!(
            f64::from(found) >= 0.95 * f64::from(found + wrong),
            "{word}: {wrong} wrong beside {found}\n{misses}"
        );
    }
}

const WORDS: [&str; 7] = ["URL", "EMAIL", "IBAN", "ID", "CARD", "IP", "PHONE"];

/// A text without its labels, and where each was.
fn read(line: &str) -> (String, Vec<(&str, Range<usize>)>) {
    let (mut text, mut labels, mut rest) = (String::new(), Vec::new(), line);
    while let Some((before, after)) = rest.split_once("{{") {
        let (label, after) = after.split_once("}}").expect("labels end");
        let (word, content) = label.split_once('|').expect("labels have a word");
        text.push_str(before);
        labels.push((word, text.len()..text.len() + content.len()));
        text.push_str(content);
        rest = after;
    }
    text.push_str(rest);
    (text, labels)
}
