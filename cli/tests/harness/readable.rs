//! Whether a page can be read on a phone and on a wide screen, in light and in dark mode.

use std::path::Path;

use super::browser;

/// A page as it was shown.
#[derive(Debug)]
struct Shown {
    /// Width of the window, in CSS pixels.
    window: u32,
    /// Width of the page: more than the window if it must be scrolled sideways.
    page: u32,
    paper: [f64; 3],
    ink: [f64; 3],
}

/// Asserts that there are no [`complaints`], unless there is no browser.
pub(crate) fn assert_readable(page: &Path) {
    let complaints = complaints(page).unwrap_or_default();
    assert!(complaints.is_empty(), "{}: {complaints:#?}", page.display());
}

/// Says what is wrong with a page: words on the console, what must be scrolled sideways, text that cannot be read. None, having
/// said so, without a browser.
pub(crate) fn complaints(page: &Path) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let frames = directory.path().join("frames.html");
    std::fs::write(&frames, in_frames(&std::fs::read_to_string(page).unwrap())).unwrap();
    let loaded = browser::load(&frames)?;
    let shown: Vec<Shown> = measured(&loaded.dom).expect("the script has written its measures");
    assert_eq!(shown.len(), SCREENS.len() * SCHEMES.len());
    let seen = shown.iter().zip(SCHEMES.iter().cycle()).flat_map(|(shown, scheme)| shown.complaints(scheme));
    Some(loaded.console.into_iter().chain(seen).collect())
}

impl Shown {
    fn complaints(&self, scheme: &str) -> Vec<String> {
        let (paper, ink) = (luminance(self.paper), luminance(self.ink));
        // Web Content Accessibility Guidelines 2.2, success criterion 1.4.3.
        let contrast = (paper.max(ink) + 0.05) / (paper.min(ink) + 0.05);
        [
            (self.page > self.window, "too wide"),
            ((paper > ink) != (scheme == "light"), "not in this scheme"),
            (contrast < 4.5, "too little contrast"),
        ]
        .into_iter()
        .filter(|(wrong, _)| *wrong)
        .map(|(_, what)| format!("{what} in {scheme}: {self:?}"))
        .collect()
    }
}

/// Widths in CSS pixels.
const SCREENS: [u32; 2] = [360, 1280];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// The page in frames of all widths and schemes, and a script that writes down how it looks there.
fn in_frames(page: &str) -> String {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    let frames: Vec<String> = SCREENS
        .iter()
        .flat_map(|width| SCHEMES.map(|scheme| (width, scheme)))
        .map(|(width, scheme)| {
            format!("<iframe style=\"border:0;color-scheme:{scheme}\" width={width} height=900 srcdoc=\"{page}\"></iframe>")
        })
        .collect();
    format!(
        "<!doctype html><meta charset=utf-8><body>{}<pre></pre><script>{MEASURE}</script>",
        frames.concat()
    )
}

const MEASURE: &str = "\
onload = () => document.querySelector('body > pre').textContent = Array.from({length: frames.length}, (_, i) => {
  const {document: page, innerWidth} = frames[i], body = frames[i].getComputedStyle(page.body);
  const colours = (body.backgroundColor + body.color).match(/[0-9.]+/g);
  return [innerWidth, Math.max(page.documentElement.scrollWidth, page.body.scrollWidth), ...colours].join(' ');
}).join('\\n');";

fn measured(dom: &str) -> Option<Vec<Shown>> {
    let (_, rest) = dom.rsplit_once("<pre>")?;
    rest.split_once("</pre>")?.0.lines().map(shown).collect()
}

fn shown(line: &str) -> Option<Shown> {
    let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [window, page, a, b, c, d, e, f] = numbers[..] else { return None };
    Some(Shown { window: window as u32, page: page as u32, paper: [a, b, c], ink: [d, e, f] })
}

/// Relative luminance of a colour of sRGB.
fn luminance(colour: [f64; 3]) -> f64 {
    let [r, g, b] = colour
        .map(|value| value / 255.0)
        .map(|value| if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}
