//! Plays: who says what.

use std::collections::BTreeMap;
use std::path::Path;

use super::{TextError, TextFault, Texts, at, read_file};
use crate::Owners;

/// Reads a play: passages with an empty line between them, each below a line with the name of who speaks it and a colon. All that
/// one says is one text, passage after passage, in the order in which people enter; classes are all 0.
///
/// # Errors
/// [`TextError`], which names the file and the line.
pub fn speakers(path: &Path) -> Result<Texts, TextError> {
    said(&read_file(path)?).map_err(at(path))
}

fn said(play: &str) -> Result<Texts, TextFault> {
    let (mut texts, mut places) =
        (Texts { owners: Some(Owners::default()), ..Texts::default() }, BTreeMap::new());
    let mut speaker: Option<usize> = None;
    for (line, text) in (1..).zip(play.lines()) {
        match (speaker, text.trim_end().strip_suffix(':')) {
            (_, _) if text.trim().is_empty() => speaker = None,
            (Some(at), _) => texts.texts[at].extend([text, "\n"]),
            (None, Some(name)) => {
                speaker = Some(*places.entry(name.to_owned()).or_insert_with(|| {
                    texts.texts.push(String::new());
                    texts.labels.push(0);
                    texts.owners.iter_mut().for_each(|owners| owners.push(name));
                    texts.texts.len() - 1
                }));
            }
            (None, None) => return Err(TextFault::NoSpeaker { line }),
        }
    }
    if texts.texts.is_empty() { Err(TextFault::NoTexts) } else { Ok(texts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_says_is_one_text() {
        let texts = said("ANN:\nGood day:\nto you.\n\nBOB:\nAnd to you!\n\n\nANN:\nBye.\n").unwrap();
        assert_eq!(texts.texts, ["Good day:\nto you.\nBye.\n", "And to you!\n"]);
        assert_eq!(texts.owners.unwrap().names(), ["ANN", "BOB"]);
        let nobody = said("ANN:\nhello\n\nwho is there\n").unwrap_err().to_string();
        assert_eq!(nobody, ", line 4: a passage begins with the name of who speaks it and a colon");
        assert!(matches!(said("\n"), Err(TextFault::NoTexts)));
    }
}
