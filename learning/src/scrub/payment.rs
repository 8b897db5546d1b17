//! Payment cards and bank accounts.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::checksum::{digits, luhn, mod_97};
use super::{search, stands_alone};

/// Numbers of payment cards: 13 to 19 digits, together or in groups, of a known issuer, with the checksum.
pub(super) fn cards(text: &str) -> Vec<Range<usize>> {
    static RUN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[0-9]+(?:[ -][0-9]+)*").expect("a valid pattern"));
    static GROUP: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[0-9]+").expect("a valid pattern"));
    let mut found = Vec::new();
    for run in RUN.find_iter(text) {
        // What stands around a number may be more numbers: an expiry date, a security code.
        let groups: Vec<Range<usize>> = GROUP
            .find_iter(run.as_str())
            .map(|group| run.start() + group.start()..run.start() + group.end())
            .collect();
        let mut first = 0;
        while first < groups.len() {
            let last = (first..groups.len().min(first + MOST_GROUPS)).rev().find(|&last| {
                let range = groups[first].start..groups[last].end;
                let sizes = groups[first..=last].iter().map(Range::len);
                (first == last || sizes.clone().all(|size| size <= 6) && sizes.max() >= Some(4))
                    && is_card(&digits(&text[range.clone()]))
                    && stands_alone(text, &range)
            });
            match last {
                Some(last) => {
                    found.push(groups[first].start..groups[last].end);
                    first = last + 1;
                }
                None => first += 1,
            }
        }
    }
    found
}

/// No card is printed in more groups.
const MOST_GROUPS: usize = 5;

/// ISO/IEC 7812: the issuer's first digits, the length that goes with them, the checksum.
fn is_card(digits: &[u32]) -> bool {
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let prefix = |length: usize| digits[..length].iter().fold(0, |number, digit| number * 10 + digit);
    let issued = match digits.len() {
        13 => digits[0] == 4,
        14 => matches!(prefix(2), 36 | 38 | 39) || matches!(prefix(3), 300..=305),
        15 => matches!(prefix(2), 34 | 37),
        16 => {
            digits[0] == 4
                || matches!(prefix(2), 51..=55 | 62 | 65 | 81)
                || matches!(prefix(3), 644..=649)
                || matches!(prefix(4), 2200..=2204 | 2221..=2720 | 3528..=3589 | 6011)
        }
        17..=18 => prefix(2) == 62,
        _ => digits[0] == 4 || prefix(2) == 62,
    } || matches!(prefix(4), 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763);
    issued && luhn(digits)
}

/// IBANs (ISO 13616): the length of their country, and the checksum.
pub(super) fn ibans(text: &str) -> Vec<Range<usize>> {
    static START: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]").expect("a valid pattern"));
    search(&START, text, |start| iban_at(text, start.start()))
}

fn iban_at(text: &str, start: usize) -> Option<Range<usize>> {
    let country = text[start..start + 2].to_ascii_uppercase();
    let length: usize =
        IBAN_LENGTHS.split(' ').find_map(|entry| entry.strip_prefix(&country))?.parse().ok()?;
    let mut characters = Vec::with_capacity(length);
    let mut end = start;
    let mut separated = true;
    for (at, character) in text[start..].char_indices() {
        match character {
            ' ' | '-' if !separated => separated = true,
            character if character.is_ascii_alphanumeric() => {
                separated = false;
                characters.push(character);
            }
            _ => break,
        }
        if characters.len() == length {
            end = start + at + 1;
            break;
        }
    }
    let range = start..end;
    let whole = characters.len() == length && stands_alone(text, &range);
    // The checksum is over the account before the country and its check digits.
    let rotated = characters.iter().skip(4).chain(characters.iter().take(4)).copied();
    (whole && mod_97(rotated) == Some(1)).then_some(range)
}

/// SWIFT's registry of IBAN formats: the length by country.
const IBAN_LENGTHS: &str = "\
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 \
    EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 \
    KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 \
    PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 \
    VA22 VG24 XK20";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_found_among_other_numbers() {
        let text = "12 4111 1111 1111 1111 123 12/29";
        assert_eq!(
            cards(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>(),
            ["4111 1111 1111 1111"]
        );
        assert!(cards("4111 1111 1111 1112").is_empty(), "the checksum");
        assert!(cards("a4111111111111111").is_empty(), "part of something longer");
        assert!(cards("7992 7398 7130 0000").is_empty(), "no issuer");
    }

    #[test]
    fn an_iban_ends_where_its_country_says() {
        let text = "IBAN DE89 3704 0044 0532 0130 00, BIC";
        assert_eq!(
            ibans(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>(),
            ["DE89 3704 0044 0532 0130 00"]
        );
        assert_eq!(ibans("gb82west12345698765432").len(), 1);
        assert!(ibans("DE89 3704 0044 0532 0130 01").is_empty(), "the checksum");
        assert!(ibans("DE89 3704 0044 0532 0130 00 1").len() == 1, "another number follows");
        assert!(ibans("DE89 3704").is_empty() && ibans("XX89 3704 0044 0532 0130 00").is_empty());
    }
}
