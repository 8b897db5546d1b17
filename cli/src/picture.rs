//! A picture of a run: accuracy and epsilon over the rounds, as SVG that follows the reader's light or dark mode.

use std::fmt::Write;

use skep_protocol::experiment::Experiment;
use skep_server::record::RoundRecord;

/// Draws the rounds.
pub(crate) fn draw(experiment: &Experiment, records: &[RoundRecord]) -> String {
    let last = records.last().map_or(1, |record| record.round.0).max(1);
    let curve = |value: fn(&RoundRecord) -> Option<f64>| -> Vec<(u64, f64)> {
        records.iter().filter_map(|record| Some((record.round.0, value(record)?))).collect()
    };
    let accuracy = curve(|record| record.accuracy);
    let epsilon = curve(|record| record.epsilon_release.filter(|epsilon| epsilon.is_finite()));
    let most = nice_limit(epsilon.iter().map(|(_, epsilon)| *epsilon).fold(0.0, f64::max));

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>{}: accuracy and epsilon over {last} rounds</title>\n{STYLE}\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
        escaped(&experiment.name)
    );
    for step in 0..=4u32 {
        let part = f64::from(step) / 4.0;
        let height = y(part);
        line(&mut svg, "grid", LEFT, height, RIGHT, height);
        text(&mut svg, "accuracy end", LEFT - 8.0, height + 4.0, &format!("{part}"));
        if !epsilon.is_empty() {
            text(&mut svg, "epsilon", RIGHT + 8.0, height + 4.0, &format!("{}", part * most));
        }
    }
    text(&mut svg, "accuracy", LEFT, TOP - 14.0, "accuracy on held-out examples");
    if !epsilon.is_empty() {
        text(&mut svg, "epsilon end", RIGHT, TOP - 14.0, "epsilon against recipients of models");
    }
    text(&mut svg, "ink", LEFT, BOTTOM + 20.0, "round 1");
    text(&mut svg, "ink end", RIGHT, BOTTOM + 20.0, &format!("round {last}"));
    polyline(&mut svg, "accuracy", last, &accuracy, 1.0);
    polyline(&mut svg, "epsilon", last, &epsilon, most);
    svg.push_str("</svg>\n");
    svg
}

fn polyline(svg: &mut String, class: &str, last: u64, points: &[(u64, f64)], most: f64) {
    let step = points.len().div_ceil(POINTS).max(1);
    let kept = points.iter().enumerate().filter(|(at, _)| at % step == 0 || at + 1 == points.len());
    let path: Vec<String> =
        kept.map(|(_, (round, value))| format!("{:.1},{:.1}", x(*round, last), y(value / most))).collect();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(svg, "<polyline class=\"curve {class}\" points=\"{}\"/>", path.join(" "));
}

fn line(svg: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    let _ = writeln!(svg, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(text));
}

fn x(round: u64, last: u64) -> f64 {
    let part = if last == 1 { 1.0 } else { (round - 1) as f64 / (last - 1) as f64 };
    LEFT + part * (RIGHT - LEFT)
}

fn y(part: f64) -> f64 {
    BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
}

/// The smallest of 1, 2, 4, 8 times a power of ten that is not below `value`.
pub(crate) fn nice_limit(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-6).log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|limit| *limit >= value)
        .unwrap_or(value)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = "\
<style>
.paper { fill: #fff } .ink { fill: #333 } .grid { stroke: #ddd }
text { font: 13px system-ui, sans-serif } .end { text-anchor: end }
.curve { fill: none; stroke-width: 2 }
text.accuracy { fill: #0a6c74 } .curve.accuracy { stroke: #0a6c74 }
text.epsilon { fill: #b4540a } .curve.epsilon { stroke: #b4540a; stroke-dasharray: 6 4 }
@media (prefers-color-scheme: dark) {
.paper { fill: #14181c } .ink { fill: #ccc } .grid { stroke: #333a40 }
text.accuracy { fill: #5cc8d0 } .curve.accuracy { stroke: #5cc8d0 }
text.epsilon { fill: #f0a35e } .curve.epsilon { stroke: #f0a35e }
}
</style>";
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 664.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 320.0;
/// More points than this are not seen.
const POINTS: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_above_the_curve() {
        assert_eq!(nice_limit(0.0), 1e-6);
        assert_eq!(nice_limit(7.9), 8.0);
        assert_eq!(nice_limit(8.1), 10.0);
        assert_eq!(nice_limit(12.0), 20.0);
    }

    #[test]
    fn names_cannot_end_a_tag() {
        assert_eq!(escaped("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
