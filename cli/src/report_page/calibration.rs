//! Whether a model is right as often as it says: the reliability diagram.

use std::fmt::Write;

use skep_learning::{BINS, Calibration};

use crate::page::{count, percent};

/// A bar for every bin that has examples: as wide as the bin, as high as the model is right; a line where they would be equal.
pub(super) fn html(calibration: &Calibration) -> String {
    let Some(error) = calibration.error().filter(|error| error.is_finite()) else { return String::new() };
    let mut bars = String::new();
    let width = 1000.0 / BINS as f64;
    for (at, bin) in calibration.bins().iter().enumerate().filter(|(_, bin)| bin.examples > 0) {
        let examples = bin.examples as f64;
        let (right, sure) = (bin.right as f64 / examples, bin.confidence / examples);
        // Writing to a string cannot fail.
        let _ = write!(
            bars,
            "<g class=\"teal\"><path class=\"area\" d=\"M{0:.1} 1000V{2:.1}H{1:.1}V1000Z\"/>\
             <path class=\"curve\" d=\"M{0:.1} {2:.1}H{1:.1}\"/><title>{3} examples: {4} sure, {5} right</title></g>",
            at as f64 * width,
            (at + 1) as f64 * width,
            1000.0 * (1.0 - right),
            count(bin.examples),
            percent(sure),
            percent(right)
        );
    }
    let mut html = format!(
        "<figure class=\"card\">\n<figcaption><h3>Calibration</h3><output>how often it is right, by how sure it is; \
         expected error {}</output></figcaption>\n<div class=\"plot\">",
        percent(error)
    );
    for part in [0, 25, 50, 75, 100] {
        let _ = write!(html, "<span class=\"y\" style=\"bottom:{part}%\">{part} %</span>");
    }
    let _ = write!(
        html,
        "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Calibration\">\
         <path class=\"rule\" d=\"M0 0H1000M0 250H1000M0 500H1000M0 750H1000M0 1000H1000\"/>{bars}\
         <path class=\"limit\" d=\"M0 1000L1000 0\"><title>as sure as right</title></path></svg>\
         <span class=\"x\">0 %</span><span class=\"x middle\">sure</span><span class=\"x end\">100 %</span></div>\n</figure>\n"
    );
    html
}

#[cfg(test)]
mod tests {
    use skep_learning::Bin;

    use super::*;

    #[test]
    fn a_bar_is_as_high_as_the_model_is_right() {
        let mut bins = [Bin::default(); BINS];
        bins[BINS - 1] = Bin { examples: 4, right: 3, confidence: 3.9 };
        let html = html(&Calibration::from_bins(bins));
        assert!(html.contains("M933.3 1000V250.0H1000.0V1000Z"), "{html}");
        assert!(html.contains("4 examples: 97.5 % sure, 75.0 % right"), "{html}");
        assert!(html.contains("expected error 22.5 %"), "{html}");
        assert_eq!(super::html(&Calibration::default()), "");
    }
}
