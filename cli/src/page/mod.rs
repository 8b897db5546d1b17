//! Pages for people: one file each that needs no network, follows the reader's light or dark mode, and fits a phone.
//!
//! | file | holds |
//! | --- | --- |
//! | `chart` | curves |
//! | `clients` | who has how many examples of which class |
//! | `histogram` | how often numbers occur |
//! | `words` | how numbers and texts are written |
//! | `style.css`, `script.js` | how all of it looks, and what it tells under the pointer |

mod chart;
mod clients;
mod histogram;
mod words;

pub(crate) use chart::{Axis, Chart, Look, Scale, Series};
pub(crate) use clients::clients;
pub(crate) use histogram::histogram;
pub(crate) use words::{bytes, count, escaped, keyed, number, percent, spread};

/// A page, with a style of its own beside everybody's. `title` and `body` are HTML.
pub(crate) fn page(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{title} · Skep</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>Made by skep {}. This file loads nothing from anywhere.</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Facts, each with its name. Both are HTML.
pub(crate) fn facts<N: AsRef<str>>(rows: impl IntoIterator<Item = (N, String)>) -> String {
    let row = |(name, value): (N, String)| format!("<tr><th>{}</th><td>{value}</td></tr>\n", name.as_ref());
    let rows: String = rows.into_iter().map(row).collect();
    format!("<div class=\"card\"><table class=\"facts\">\n{rows}</table></div>\n")
}

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
