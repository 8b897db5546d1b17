//! Ways to reach a person or a machine: links, mail addresses, addresses on the internet, telephone numbers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{follows_a_word, search, stands_alone};

/// Links with a scheme, hosts that begin with `www.`, and hosts of well-known domains with or without a path.
pub(super) fn urls(text: &str) -> Vec<Range<usize>> {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        // Ideographs end a link: text in Chinese has no spaces.
        let path = r#"[\x21-\x7e&&[^"<>`{}|\\^\[\]]]"#;
        let domain = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+";
        let known = "com|org|net|edu|gov|mil|int|info|biz|app|dev|io|ai|me|tv|cn|hk|tw|jp|kr|in|sg|au|nz|ca|us|mx|br|ar|uk|ie|\
                     fr|de|at|ch|be|nl|lu|it|es|pt|se|no|dk|fi|pl|cz|sk|hu|ro|bg|gr|tr|ru|ua|il|za|eu";
        Regex::new(&format!(
            r"(?i)(?:[a-z][a-z0-9+.-]{{1,15}}://(?:\[[0-9a-f:.]+\])?{path}+|mailto:{path}+|www\.{domain}[a-z]{{2,}}(?::[0-9]+)?(?:[/?#]{path}*)?|{domain}(?:{known})(?::[0-9]+)?(?:[/?#]{path}*)?)"
        ))
        .expect("a valid pattern")
    });
    let mut found = Vec::new();
    for link in URL.find_iter(text) {
        let range = link.start()..link.start() + without_punctuation(link.as_str()).len();
        let before = text[..range.start].chars().next_back();
        let inside =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '@' | '.' | '-' | '_');
        // The host of a mail address is not a link, nor is what continues with another letter, as in `node.info_box`.
        let after = text[range.end..].chars().next();
        let goes_on = after
            .is_some_and(|character| character.is_ascii_alphanumeric() || matches!(character, '@' | '_'));
        let mailed = AT.iter().any(|at| text[..range.start].trim_end().to_lowercase().ends_with(at));
        if !before.is_some_and(inside) && !goes_on && !mailed {
            found.push(range);
        }
    }
    found
}

/// Before the host of a mail address that is spelled out.
const AT: [&str; 3] = ["[at]", "(at)", "{at}"];

/// A link without the punctuation of the sentence around it.
fn without_punctuation(link: &str) -> &str {
    let mut link = link;
    loop {
        let shorter = link.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'']);
        let open = shorter.matches('(').count();
        let shorter = match shorter.strip_suffix(')') {
            Some(inner) if open < shorter.matches(')').count() => inner,
            _ => shorter,
        };
        if shorter.len() == link.len() {
            return link;
        }
        link = shorter;
    }
}

/// Mail addresses (RFC 5321 without quoted local parts), those of other scripts, and those that spell out `at` and `dot`.
pub(super) fn emails(text: &str) -> Vec<Range<usize>> {
    static EMAIL: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        // Scripts that set no spaces: what stands before an address in letters of ours is another word.
        let letter =
            r"[\p{L}\p{N}!#$%&'*+/=?^_`{|}~\-&&[^\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}]]";
        let local = format!(r"{letter}+(?:\.{letter}+)*");
        let label = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
        let at = r" ?[\[({]at[\])}] ?";
        let dot = r"(?:\.| ?[\[({](?:dot|\.)[\])}] ?)";
        let any = r"[\p{L}\p{N}](?:[\p{L}\p{N}_-]{0,61}[\p{L}\p{N}])?";
        [
            format!(
                r"{local}@(?:{label}\.)+(?:xn--[a-z0-9-]{{2,59}}|[a-z]{{2,24}})|{local}@\[[0-9a-f.:]+\]|{local}{at}{label}(?:{dot}{label})*{dot}[a-z]{{2,24}}"
            ),
            format!(r"{any}(?:\.{any})*@(?:{any}\.)+\p{{L}}{{2,24}}"),
        ]
        .map(|pattern| Regex::new(&format!("(?i){pattern}")).expect("a valid pattern"))
    });
    let [usual, international] = &*EMAIL;
    let mut found: Vec<Range<usize>> = usual.find_iter(text).map(|address| address.range()).collect();
    for address in international.find_iter(text) {
        if found.iter().all(|other| address.end() <= other.start || other.end <= address.start()) {
            found.push(address.range());
        }
    }
    found.sort_unstable_by_key(|range| range.start);
    found
}

/// Addresses of version 4, but no versions of programs, and of version 6, but no times of day.
pub(super) fn addresses(text: &str) -> Vec<Range<usize>> {
    static V4: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}").expect("a valid pattern"));
    static V6: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?:(?:\.[0-9]{1,3}){3})?")
            .expect("a valid pattern")
    });
    let mut found: Vec<Range<usize>> = Vec::new();
    for address in V6.find_iter(text) {
        // A colon at the end may be the sentence's.
        let candidate = address.as_str();
        let candidate = match candidate.strip_suffix(':') {
            Some(shorter) if !shorter.ends_with(':') => shorter,
            _ => candidate,
        };
        let range = address.start()..address.start() + candidate.len();
        let parses = candidate.parse::<Ipv6Addr>().is_ok_and(|address| address.segments()[..3] != [0, 0, 0]);
        if parses
            && candidate.contains(|character: char| character.is_ascii_digit())
            && stands_alone(text, &range)
        {
            found.push(range);
        }
    }
    for address in V4.find_iter(text) {
        let range = address.range();
        let dotted = text[..range.start].ends_with('.')
            || text[range.end..]
                .strip_prefix('.')
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let version = follows_a_word(&text[..range.start], range.start, &VERSION_WORDS)
            && text[..range.start].split_whitespace().next_back().is_some_and(|word| {
                VERSION_WORDS
                    .iter()
                    .any(|version| word.to_lowercase().trim_end_matches([':', '.']).ends_with(version))
            });
        if address.as_str().parse::<Ipv4Addr>().is_ok() && !dotted && !version && stands_alone(text, &range) {
            found.push(range);
        }
    }
    found.sort_unstable_by_key(|range| range.start);
    found
}

/// After these, four numbers with dots are no address.
const VERSION_WORDS: [&str; 8] =
    ["version", "ver", "v", "release", "firmware", "build", "版本", "バージョン"];

/// Telephone numbers: with a country's code, of mainland China, of North America, with a trunk zero; any number after a word
/// that says so.
pub(super) fn phones(text: &str) -> Vec<Range<usize>> {
    static PHONE: LazyLock<[Regex; 5]> = LazyLock::new(|| {
        [
            // ITU-T E.164: a plus or 00, the country, groups.
            r"(?:\+|\b00[ -]?)[1-9][0-9]{0,2}(?:[ ./-]{0,2}\(?[0-9]{1,5}\)?){1,7}",
            // Mobile telephones of mainland China.
            r"(?:86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}",
            // North America: area, exchange, line; something stands between the last two.
            r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}",
            // National numbers with a trunk zero, in groups.
            r"\(?0[1-9][0-9]{0,3}\)?(?:[ ./-]{1,3}[0-9]{2,8}){1,5}|\(0[1-9][0-9]{0,3}\)[0-9]{5,8}",
            // After a word that says so.
            r"\(?[0-9]{2,5}\)?(?:[ ./-]?[0-9]{2,8}){1,5}",
        ]
        .map(|pattern| Regex::new(pattern).expect("a valid pattern"))
    });
    let [international, chinese, american, national, said] = &*PHONE;
    let mut found: Vec<Range<usize>> = Vec::new();
    let rules: [(&Regex, Range<usize>, bool); 5] = [
        (international, 8..16, false),
        (chinese, 11..14, false),
        (american, 10..12, false),
        (national, 9..12, false),
        (said, 7..14, true),
    ];
    for (pattern, lengths, must_be_said) in rules {
        let accepted = search(pattern, text, |number| {
            let range = number.range();
            let digits = number.as_str().bytes().filter(u8::is_ascii_digit).count();
            let taken = found.iter().any(|other| range.start < other.end && other.start < range.end);
            let is_one = !taken
                && lengths.contains(&digits)
                && is_apart(text, &range)
                && !begins_with_a_date(number.as_str())
                && (!must_be_said || is_said(text, range.start));
            is_one.then_some(range)
        });
        found.extend(accepted);
    }
    found.sort_unstable_by_key(|range| range.start);
    found
}

/// Whether no digit, letter or sign around a number makes it part of a longer one, of a decimal or of a code.
fn is_apart(text: &str, range: &Range<usize>) -> bool {
    let before = &text[..range.start];
    let after = &text[range.end..];
    let digit = |character: char| character.is_ascii_digit();
    let alphanumeric = |character: char| character.is_ascii_alphanumeric();
    let continued_before =
        before.strip_suffix(['.', ',', '-', '/']).is_some_and(|rest| rest.ends_with(alphanumeric))
            || before.strip_suffix(':').is_some_and(|rest| rest.ends_with(digit));
    let continued_after =
        after.strip_prefix(['.', ',', '-', '/', ':']).is_some_and(|rest| rest.starts_with(alphanumeric));
    // A zero that follows other digits begins no number.
    let within = text[range.clone()].starts_with('0')
        && before.strip_suffix(' ').is_some_and(|rest| rest.ends_with(digit));
    let money = before.trim_end().ends_with(['$', '€', '£', '¥', '#', '₹']);
    stands_alone(text, range) && !continued_before && !continued_after && !within && !money
}

/// `31.12.1999`, `1999-12-31`, `31/12/99`: days, months and years are in range.
fn begins_with_a_date(number: &str) -> bool {
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        let (day, month) = ("(?:0?[1-9]|[12][0-9]|3[01])", "(?:0?[1-9]|1[0-2])");
        Regex::new(&format!(
            r"^(?:{day}[./-]{month}[./-](?:[12][0-9]{{3}}|[0-9]{{2}})|{month}[./-]{day}[./-](?:[12][0-9]{{3}}|[0-9]{{2}})|(?:19|20)[0-9]{{2}}[./-]{month}[./-]{day})(?:[^0-9]|$)"
        ))
        .expect("a valid pattern")
    });
    DATE.is_match(number)
}

/// Whether a word for a telephone stands right before the number.
fn is_said(text: &str, start: usize) -> bool {
    let before =
        text[..start].trim_end_matches([' ', ':', '.', '：', '#', '(', '+', '是', '为']).to_lowercase();
    let before = before
        .trim_end_matches(" at")
        .trim_end_matches(" on")
        .trim_end_matches(" no")
        .trim_end_matches(" number")
        .trim_end_matches(" is");
    PHONE_WORDS.iter().any(|word| {
        before.strip_suffix(word).is_some_and(|rest| {
            !word.is_ascii() || !rest.ends_with(|character: char| character.is_ascii_alphanumeric())
        })
    })
}

/// Words for a telephone, in small letters.
const PHONE_WORDS: [&str; 29] = [
    "phone",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "call",
    "call me",
    "fax",
    "whatsapp",
    "sms",
    "text",
    "dial",
    "hotline",
    "contact",
    "telefon",
    "mobil",
    "handy",
    "rufnummer",
    "téléphone",
    "portable",
    "teléfono",
    "móvil",
    "telefono",
    "cellulare",
    "电话",
    "手机",
    "手机号",
    "传真",
    "座机",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(find: fn(&str) -> Vec<Range<usize>>, text: &str) -> Vec<&str> {
        find(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn links_end_before_the_punctuation_of_their_sentence() {
        assert_eq!(
            parts(urls, "(see https://a.org/b_(c)?d=1#e), then www.b.de."),
            ["https://a.org/b_(c)?d=1#e", "www.b.de"]
        );
        assert_eq!(parts(urls, "请看http://例子.cn/页 和 example.com/文"), ["example.com/"]);
        assert_eq!(parts(urls, "ann@example.com, e.g. this, i.e. that, main.rs, 3.14"), Vec::<&str>::new());
    }

    #[test]
    fn mail_addresses_of_every_script() {
        let text =
            "联系zhang.san@qq.com, 用户@例子.公司, jörg@example.de, ann [at] example [dot] org; a@b is none";
        assert_eq!(
            parts(emails, text),
            ["zhang.san@qq.com", "用户@例子.公司", "jörg@example.de", "ann [at] example [dot] org"]
        );
    }

    #[test]
    fn addresses_are_no_versions_and_no_times() {
        let text =
            "from 192.0.2.17:80 and 2001:db8::7, version 1.2.3.4, at 12:30:45, 1.2.3.4.5, 300.1.1.1, std::fs";
        assert_eq!(parts(addresses, text), ["192.0.2.17", "2001:db8::7"]);
    }

    #[test]
    fn telephones_are_no_dates_prices_or_codes() {
        let text =
            "13812345678 on 01.02.2023 12:00, 1999-12-31, $212 555 0199, 978-3-16-148410-0, (212) 555-0199";
        assert_eq!(parts(phones, text), ["13812345678", "(212) 555-0199"]);
        assert_eq!(parts(phones, "tel. 555 0199, order 5550199"), ["555 0199"]);
    }
}
