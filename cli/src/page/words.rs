//! How numbers and texts are written into a page.

use skep_learning::Spread;

/// Text that ends no tag and no attribute.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with four digits at most, for an axis or a table.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs().log10().floor();
    if !(-4.0..7.0).contains(&size) {
        return format!("{value:.1e}");
    }
    let digits = (3.0 - size).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        grouped(&text)
    }
}

/// A whole number with its thousands apart.
pub(crate) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// A share of one as a percentage.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// Bytes in the unit that suits them.
pub(crate) fn bytes(value: u64) -> String {
    match value {
        0..1024 => format!("{value} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", value as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", value as f64 / 1_073_741_824.0),
    }
}

/// A number that a program finds by its key in the summary, exactly as it stands there, and people as `shown`.
pub(crate) fn keyed(key: &str, value: impl serde::Serialize, shown: &str) -> String {
    let value = serde_json::to_string(&value).unwrap_or_default();
    format!(
        "<data data-key=\"{key}\" value=\"{}\">{}</data>",
        escaped(value.trim_matches('"')),
        escaped(shown)
    )
}

/// How numbers are distributed, with so many digits where they are no whole ones.
pub(crate) fn spread(spread: &Spread, digits: usize) -> String {
    let Spread { least, percentile_10, median, percentile_90, most, mean } = spread;
    let shown = |value: &f64| match value.fract() == 0.0 {
        true => value.to_string(),
        false => format!("{value:.digits$}"),
    };
    let [least, percentile_10, median, percentile_90, most] =
        [least, percentile_10, median, percentile_90, most].map(shown);
    format!(
        "{mean:.digits$} in the mean: least {least}, a tenth at most {percentile_10}, half {median}, nine tenths {percentile_90}, most {most}"
    )
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("−", digits));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_at_most() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.954_321, "7.954"),
            (1234.6, "1,235"),
            (20_000.0, "20,000"),
            (1e-5, "1.0e-5"),
            (0.000_125, "0.000125"),
            (-3.5, "-3.5"),
            (1e9, "1.0e9"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([7, 1234, 1_234_567].map(count), ["7", "1,234", "1,234,567"]);
    }

    #[test]
    fn texts_end_no_tag_and_no_attribute() {
        assert_eq!(escaped("a<b>&\"c"), "a&lt;b&gt;&amp;&quot;c");
    }
}
