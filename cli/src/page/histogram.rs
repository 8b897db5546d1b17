//! How often numbers occur.

use std::fmt::Write;

use super::words::{count, number};

/// A bar for each range of values, as high as there are clients in it. `whole` values are numbers of things: no bar is then between
/// two of them. Nothing where there are no values.
pub(crate) fn histogram(title: &str, name: &str, values: &[f64], whole: bool) -> String {
    let (least, most) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &value| {
        (least.min(value), most.max(value))
    });
    if least > most {
        return String::new();
    }
    let width = match whole {
        true => ((most - least + 1.0) / BARS as f64).ceil(),
        false => ((most - least) / BARS as f64).max(f64::MIN_POSITIVE),
    };
    let bar = |value: f64| (((value - least) / width) as usize).min(BARS - 1);
    let mut bars = vec![0_u64; bar(most) + 1];
    values.iter().for_each(|&value| bars[bar(value)] += 1);
    let highest = bars.iter().copied().max().unwrap_or(0).max(1);
    let mut path = String::new();
    for (at, &clients) in bars.iter().enumerate().filter(|(_, clients)| **clients > 0) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(path, "M{at}.05 {:.2}h.9V100h-.9z", 100.0 - 100.0 * clients as f64 / highest as f64);
    }
    let mut html = format!(
        "<figure class=\"card\"><figcaption><h3>{title}</h3><output>{} to {}; a bar is {} wide</output></figcaption>\n\
         <div class=\"plot bars teal\"><span class=\"y\" style=\"bottom:100%\">{}</span><span class=\"y\" style=\"bottom:0\">0</span>",
        number(least),
        number(most),
        number(width),
        count(highest)
    );
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 {} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\"><path d=\"{path}\"/></svg>\
         <span class=\"x\">{}</span><span class=\"x middle\">{name}; clients upwards</span><span class=\"x end\">{}</span></div>\n</figure>\n",
        bars.len(),
        number(least),
        number(most)
    );
    html
}

/// At most.
const BARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bar() {
        assert_eq!(histogram("Sizes", "examples", &[], true), "");
        let html = histogram("Sizes", "examples", &[1.0, 1.0, 3.0], true);
        assert!(html.contains("M0.05 0.00h.9V100h-.9zM2.05 50.00h.9V100h-.9z"), "{html}");
        let html = histogram("Distances", "distance", &[0.0, 1.0], false);
        assert!(html.contains("M0.05 0.00h") && html.contains("M39.05 0.00h"), "{html}");
        let one = histogram("Distances", "distance", &[0.5; 3], false);
        assert!(one.contains("viewBox=\"0 0 1 100\""), "{one}");
        // A thousand sizes in bars of 25.
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        assert!(histogram("Sizes", "examples", &many, true).contains("a bar is 25 wide"));
    }
}
