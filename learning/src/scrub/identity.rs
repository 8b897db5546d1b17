//! Numbers of persons in the registers of their countries.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::checksum::{digits, luhn, mod_11_10, mod_97, verhoeff, weighted};
use super::{follows_a_word, search, stands_alone};

/// A register of persons: how its numbers look, and what tells them from others.
#[derive(Debug)]
pub struct Country {
    /// ISO 3166 code of the country.
    pub code: &'static str,
    /// What the number is called there.
    pub name: &'static str,
    /// A regular expression, without regard to capitals.
    pattern: &'static str,
    /// The checksum and the date in it, as far as there are such.
    valid: fn(&str) -> bool,
    /// Words of which one has to stand before a number that too many other numbers look like; none if it speaks for itself.
    words: &'static [&'static str],
}

/// The registers whose numbers are found.
pub const COUNTRIES: &[Country] = &[
    Country {
        code: "CN",
        name: "resident identity number (GB 11643)",
        pattern: r"[1-9][0-9]{5}[ -]?[0-9]{8}[ -]?[0-9]{3}[0-9X]",
        valid: chinese,
        words: &[],
    },
    Country {
        code: "TW",
        name: "national identification number",
        pattern: r"[A-Z][12][0-9]{8}",
        valid: taiwanese,
        words: &[],
    },
    Country {
        code: "HK",
        name: "identity card number",
        pattern: r"[A-Z]{1,2}[0-9]{6} ?\([0-9A]\)",
        valid: hong_kong,
        words: &[],
    },
    Country {
        code: "SG",
        name: "NRIC and FIN",
        pattern: r"[STFGM][0-9]{7}[A-Z]",
        valid: singaporean,
        words: &[],
    },
    Country {
        code: "KR",
        name: "resident registration number",
        pattern: r"[0-9]{6}-[1-8][0-9]{6}",
        valid: |number| month_and_day(&digits(number)[2..6]),
        words: &[],
    },
    Country {
        code: "JP",
        name: "individual number (My Number)",
        pattern: r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}",
        valid: japanese,
        words: &["my number", "mynumber", "マイナンバー", "個人番号"],
    },
    Country {
        code: "IN",
        name: "Aadhaar",
        pattern: r"[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}",
        valid: |number| verhoeff(&digits(number)),
        words: &[],
    },
    Country {
        code: "IN",
        name: "Aadhaar without spaces",
        pattern: r"[2-9][0-9]{11}",
        valid: |number| verhoeff(&digits(number)),
        words: &["aadhaar", "aadhar", "uid", "आधार"],
    },
    Country {
        code: "US",
        name: "social security number",
        pattern: r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
        valid: american,
        words: &[],
    },
    Country {
        code: "US",
        name: "social security number without dashes",
        pattern: r"[0-9]{3} ?[0-9]{2} ?[0-9]{4}",
        valid: american,
        words: &["ssn", "social security", "social security number"],
    },
    Country {
        code: "CA",
        name: "social insurance number",
        pattern: r"[1-79][0-9]{2}[ -]?[0-9]{3}[ -]?[0-9]{3}",
        valid: |number| luhn(&digits(number)),
        words: &["sin", "nas", "social insurance", "social insurance number", "assurance sociale"],
    },
    Country {
        code: "BR",
        name: "CPF",
        pattern: r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}",
        valid: brazilian,
        words: &[],
    },
    Country {
        code: "BR",
        name: "CPF without signs",
        pattern: r"[0-9]{11}",
        valid: brazilian,
        words: &["cpf"],
    },
    Country {
        code: "GB",
        name: "national insurance number",
        pattern: r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        valid: british,
        words: &[],
    },
    Country {
        code: "GB",
        name: "NHS number",
        pattern: r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}",
        valid: |number| eleven_minus(&digits(number), &[10, 9, 8, 7, 6, 5, 4, 3, 2]),
        words: &["nhs", "nhs number", "nhs no"],
    },
    Country {
        code: "DE",
        name: "tax identification number",
        pattern: r"[1-9][0-9] ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
        valid: german,
        words: &[],
    },
    Country {
        code: "FR",
        name: "social security number (NIR)",
        pattern: r"[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
        valid: french,
        words: &[],
    },
    Country { code: "ES", name: "DNI", pattern: r"[0-9]{8}-?[A-Z]", valid: spanish, words: &[] },
    Country { code: "ES", name: "NIE", pattern: r"[XYZ]-?[0-9]{7}-?[A-Z]", valid: spanish, words: &[] },
    Country {
        code: "IT",
        name: "codice fiscale",
        pattern: r"[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z]",
        valid: italian,
        words: &[],
    },
    Country {
        code: "NL",
        name: "citizen service number (BSN)",
        pattern: r"[0-9]{4}[. ]?[0-9]{2}[. ]?[0-9]{3}",
        valid: dutch,
        words: &["bsn", "burgerservicenummer", "sofinummer"],
    },
    Country {
        code: "BE",
        name: "national register number",
        pattern: r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}",
        valid: belgian,
        words: &[],
    },
    Country { code: "PL", name: "PESEL", pattern: r"[0-9]{11}", valid: polish, words: &[] },
    Country {
        code: "SE",
        name: "personal identity number",
        pattern: r"(?:19|20)?[0-9]{6}[-+][0-9]{4}",
        valid: |number| {
            let digits = digits(number);
            let ten = &digits[digits.len() - 10..];
            month_and_day(&ten[2..6]) && luhn(ten)
        },
        words: &[],
    },
    Country {
        code: "FI",
        name: "personal identity code",
        pattern: r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]",
        valid: finnish,
        words: &[],
    },
];

/// Where a number of one of [`COUNTRIES`] stands.
pub(super) fn numbers(text: &str) -> Vec<Range<usize>> {
    static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        COUNTRIES
            .iter()
            .map(|country| Regex::new(&format!("(?i){}", country.pattern)).expect("a valid pattern"))
            .collect()
    });
    let mut found: Vec<Range<usize>> = Vec::new();
    for (country, pattern) in COUNTRIES.iter().zip(&*PATTERNS) {
        found.extend(search(pattern, text, |number| {
            let (range, upper) = (number.range(), number.as_str().to_ascii_uppercase());
            let is_one = is_apart(text, &range)
                && (country.words.is_empty() || follows_a_word(text, range.start, country.words))
                && (country.valid)(&upper);
            is_one.then_some(range)
        }));
    }
    found.sort_unstable_by_key(|range| range.start);
    found
}

/// Whether no further digits or letters belong to the number.
fn is_apart(text: &str, range: &Range<usize>) -> bool {
    let joined = |sign: char| matches!(sign, '-' | '.' | '/' | '+');
    let alphanumeric = |character: char| character.is_ascii_alphanumeric();
    let before = text[..range.start].strip_suffix(joined).is_some_and(|rest| rest.ends_with(alphanumeric));
    let after = text[range.end..].strip_prefix(joined).is_some_and(|rest| rest.starts_with(alphanumeric));
    // Groups before or after it make a number in groups part of a longer one.
    let digit = |character: char| character.is_ascii_digit();
    let grouped = text[range.clone()].contains(' ')
        && (text[..range.start].strip_suffix([' ', '-']).is_some_and(|rest| rest.ends_with(digit))
            || text[range.end..].strip_prefix([' ', '-']).is_some_and(|rest| rest.starts_with(digit)));
    stands_alone(text, range) && !before && !after && !grouped
}

/// Whether four digits are a month and a day of it, the longest February allowed.
fn month_and_day(digits: &[u32]) -> bool {
    let &[m, mm, d, dd] = digits else { return false };
    let (month, day) = (10 * m + mm, 10 * d + dd);
    let longest = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=longest).contains(&day)
}

/// GB 11643: region, date of birth, sequence, and a check character by ISO/IEC 7064, mod 11-2.
fn chinese(number: &str) -> bool {
    let digits = digits(number);
    let year = digits[6..10].iter().fold(0, |year, digit| 10 * year + digit);
    let check = number.chars().next_back().map(|last| last.to_digit(10).unwrap_or(10));
    let sum = weighted(&digits[..17], &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    (1850..2100).contains(&year) && month_and_day(&digits[10..14]) && check == Some((12 - sum % 11) % 11)
}

/// A letter that stands for two digits, weights from 9 down.
fn taiwanese(number: &str) -> bool {
    const LETTERS: &str = "ABCDEFGHJKLMNPQRSTUVXYWZIO";
    let Some(letter) = number.chars().next().and_then(|letter| LETTERS.find(letter)) else { return false };
    let value = letter as u32 + 10;
    let mut all = vec![value / 10, value % 10];
    all.extend(digits(&number[1..]));
    weighted(&all, &[1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1]).is_multiple_of(10)
}

/// One or two letters, six digits, a check character mod 11; a single letter follows a space that counts 36.
fn hong_kong(number: &str) -> bool {
    let values: Vec<u32> = number.chars().filter_map(|character| character.to_digit(36)).collect();
    let padding = if values.len() == 8 { vec![36] } else { vec![] };
    let all: Vec<u32> = padding.into_iter().chain(values).collect();
    weighted(&all, &[9, 8, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

/// The letter at the end follows from the weighted digits and the letter at the beginning.
fn singaporean(number: &str) -> bool {
    let sum = weighted(&digits(number), &[2, 7, 6, 5, 4, 3, 2]);
    let (offset, letters) = match number.as_bytes()[0] {
        b'S' => (0, "JZIHGFEDCBA"),
        b'T' => (4, "JZIHGFEDCBA"),
        b'F' => (0, "XWUTRQPNMLK"),
        b'G' => (4, "XWUTRQPNMLK"),
        _ => (3, "XWUTRQPNJLK"),
    };
    let at = (sum + offset) as usize % 11;
    let at = if number.starts_with('M') { 10 - at } else { at };
    letters.chars().nth(at) == number.chars().next_back()
}

/// Eleven digits and a check digit, weights 2 to 7 from the right.
fn japanese(number: &str) -> bool {
    let digits = digits(number);
    let remainder = weighted(&digits[..11], &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    digits[11] == if remainder <= 1 { 0 } else { 11 - remainder }
}

/// No checksum; areas, groups and serials that were never given out.
fn american(number: &str) -> bool {
    let digits = digits(number);
    let part = |range: Range<usize>| digits[range].iter().fold(0, |number, digit| 10 * number + digit);
    !matches!(part(0..3), 0 | 666 | 900..) && part(3..5) != 0 && part(5..9) != 0
}

/// Two check digits, each mod 11.
fn brazilian(number: &str) -> bool {
    let digits = digits(number);
    let check = |length: u32| {
        let weights: Vec<u32> = (2..length + 2).rev().collect();
        let remainder = weighted(&digits[..length as usize], &weights) * 10 % 11;
        remainder % 10 == digits[length as usize]
    };
    check(9) && check(10) && digits.iter().any(|&digit| digit != digits[0])
}

/// No checksum; prefixes that are not given out.
fn british(number: &str) -> bool {
    !["BG", "GB", "NK", "KN", "TN", "NT", "ZZ"].iter().any(|prefix| number.starts_with(prefix))
}

/// The last digit is eleven minus the weighted sum, mod 11, and never ten.
fn eleven_minus(digits: &[u32], weights: &[u32]) -> bool {
    let check = (11 - weighted(digits, weights) % 11) % 11;
    digits.last() == Some(&check)
}

/// Among the first ten digits one occurs twice or thrice, the others at most once; the last by ISO/IEC 7064, mod 11-10.
fn german(number: &str) -> bool {
    let digits = digits(number);
    let mut counts = [0; 10];
    digits[..10].iter().for_each(|&digit| counts[digit as usize] += 1);
    let repeated: Vec<i32> = counts.into_iter().filter(|&count| count > 1).collect();
    matches!(repeated[..], [2 | 3]) && mod_11_10(&digits)
}

/// Thirteen digits and 97 minus their remainder; Corsica's departments count as 19 and 18.
fn french(number: &str) -> bool {
    let plain: String = number.replace(' ', "").replace("2A", "19").replace("2B", "18");
    let Some((body, key)) = plain.split_at_checked(13) else { return false };
    let month = digits(&body[3..5]);
    let month = 10 * month[0] + month[1];
    let sensible = matches!(month, 1..=12 | 20..=42 | 50..=99);
    sensible && mod_97(body.chars()).is_some_and(|remainder| key.parse() == Ok(97 - remainder))
}

/// A letter by the number's remainder by 23; X, Y and Z stand for 0, 1 and 2.
fn spanish(number: &str) -> bool {
    let plain = number.replace('-', "").replace('X', "0").replace('Y', "1").replace('Z', "2");
    let last = number.chars().next_back();
    let digits = digits(&plain[..8]);
    let value = digits.iter().fold(0, |number, digit| 10 * number + digit);
    digits.len() == 8 && "TRWAGMYFPDXBNJZSQVHLCKE".chars().nth(value as usize % 23) == last
}

/// Characters in odd and even places have values of their own; the sum by 26 is the last letter.
fn italian(number: &str) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let value = |character: char| {
        let value = character.to_digit(36).unwrap_or(0);
        if value < 10 { value } else { value - 10 }
    };
    let sum: u32 = number
        .chars()
        .take(15)
        .enumerate()
        .map(|(at, character)| if at % 2 == 0 { ODD[value(character) as usize] } else { value(character) })
        .sum();
    number.chars().next_back().map(value) == Some(sum % 26)
}

/// The eleven test: weights from 9 down, the last minus one.
fn dutch(number: &str) -> bool {
    let digits = digits(number);
    weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11 == digits[8] % 11
        && digits.iter().any(|&digit| digit != 0)
}

/// 97 minus the remainder of nine digits, before which a 2 stands for those born since 2000.
fn belgian(number: &str) -> bool {
    let digits = digits(number);
    let (body, check) = (&digits[..9], 10 * digits[9] + digits[10]);
    let remainder = |first: Option<u32>| {
        mod_97(first.into_iter().chain(body.iter().copied()).filter_map(|digit| char::from_digit(digit, 10)))
    };
    [None, Some(2)].into_iter().any(|first| remainder(first).is_some_and(|remainder| check == 97 - remainder))
}

/// A date whose month carries the century, weights 1, 3, 7, 9.
fn polish(number: &str) -> bool {
    let mut digits = digits(number);
    let sum = weighted(&digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]);
    digits[2] %= 2;
    sum.is_multiple_of(10) && month_and_day(&digits[2..6])
}

/// Nine digits by 31 give the last character; the date comes first in it, day before month.
fn finnish(number: &str) -> bool {
    let (date, individual) = (digits(&number[..6]), digits(&number[7..10]));
    let value = date.iter().chain(&individual).fold(0, |number, digit| 10 * number + digit);
    let swapped = [date[2], date[3], date[0], date[1]];
    month_and_day(&swapped)
        && "0123456789ABCDEFHJKLMNPRSTUVWXY".chars().nth(value as usize % 31) == number.chars().next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        numbers(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn the_published_examples_are_found() {
        // Examples that registers or their descriptions publish; none belongs to a person.
        for number in [
            "11010519491231002X",
            "A123456789",
            "G123456(A)",
            "S1234567D",
            "800101-1234567",
            "123.456.789-09",
            "JK 12 34 56 C",
            "86 095 742 719",
            "12345678Z",
            "X1234567L",
            "RSSMRA85T10A562S",
            "44051401359",
            "811228-9874",
            "131052-308T",
            "078-05-1120",
            "85.07.30-033.28",
        ] {
            assert_eq!(found(&format!("it is {number}, he said")), [number]);
        }
    }

    #[test]
    fn numbers_that_look_like_many_others_need_a_word_before_them() {
        assert_eq!(found("BSN 111222333"), ["111222333"]);
        assert_eq!(found("SIN: 046-454-286"), Vec::<&str>::new(), "no number of a person begins with 0");
        assert_eq!(found("SIN: 130 692 544"), ["130 692 544"]);
        assert_eq!(found("order 111222333, part 130 692 544"), Vec::<&str>::new());
        assert_eq!(found("using 130692544"), Vec::<&str>::new(), "a word within another");
    }

    #[test]
    fn another_check_character_is_another_number() {
        assert!(found("110105194912310021").is_empty());
        assert!(found("11010519491331002X").is_empty(), "no month");
        assert!(found("A123456788").is_empty());
        assert!(found("12345678A").is_empty());
    }
}
