//! One HTML file for an answer: its numbers and its curves. Needs no network, follows the reader's light or dark mode, and fits a
//! phone.

use std::fmt::Write;

use serde::Serialize;

use crate::report_page::nice_limit;

/// The page of an answer.
pub(super) struct Page {
    title: &'static str,
    facts: Vec<(&'static str, String)>,
    plots: Vec<Plot>,
}

/// A curve through points of rising x.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) points: Vec<(f64, f64)>,
}

/// What is drawn along one side, and how.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) scale: Scale,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// In proportion; upwards from 0.
    Linear,
    /// By powers of ten; points at 0 are left out.
    Logarithmic,
}

impl Scale {
    pub(super) const fn of(self, name: &'static str) -> Axis {
        Axis { name, scale: self }
    }

    /// Where a value is; not finite where it cannot be drawn.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
        }
    }
}

impl Page {
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, facts: Vec::new(), plots: Vec::new() }
    }

    /// Adds a number or a name, written as in the JSON answer.
    pub(super) fn fact(&mut self, name: &'static str, value: impl Serialize) {
        self.facts.push((name, as_json(value)));
    }

    pub(super) fn plot(&mut self, plot: Plot) {
        self.plots.push(plot);
    }

    /// The whole file.
    pub(super) fn html(&self) -> String {
        let title = self.title;
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n{STYLE}\n</head>\n<body>\n<h1>{title}</h1>\n"
        );
        for plot in &self.plots {
            html += &plot.figure();
        }
        html += "<table>\n";
        for (name, value) in &self.facts {
            html += &row("th", name, value);
        }
        html + "</table>\n</body>\n</html>\n"
    }
}

impl Plot {
    /// The curve, and below it its points as a table.
    fn figure(&self) -> String {
        let Self { title, x, y, .. } = self;
        let mut html = format!("<figure>\n<figcaption>{title}</figcaption>\n{}", self.svg());
        html += &format!("<details><summary>{} points</summary>\n<table>\n", self.points.len());
        html += &row("th", x.name, y.name);
        for (x, y) in &self.points {
            html += &row("td", &as_json(*x), &as_json(*y));
        }
        html + "</table></details>\n</figure>\n"
    }

    fn svg(&self) -> String {
        let place = |(x, y): &(f64, f64)| (self.x.scale.place(*x), self.y.scale.place(*y));
        let can_be_drawn = |point: &&(f64, f64)| {
            let (across, height) = place(point);
            across.is_finite() && height.is_finite()
        };
        let drawn: Vec<_> = self.points.iter().filter(can_be_drawn).collect();
        let left = drawn.first().map_or(0.0, |(x, _)| *x);
        let right = drawn.last().map_or(1.0, |(x, _)| *x);
        let (bottom, top) = self.axis(drawn.iter().map(|point| place(point).1));
        let [first, last] = [left, right].map(|x| self.x.scale.place(x));
        let span = (last - first).max(f64::MIN_POSITIVE);
        let place_x = |across: f64| LEFT + (RIGHT - LEFT) * (across - first) / span;
        let place_y = |height: f64| BOTTOM - (BOTTOM - TOP) * (height - bottom) / (top - bottom);
        let mut svg =
            format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n", self.title);
        for step in 0..=4 {
            let height = bottom + (top - bottom) * f64::from(step) / 4.0;
            let at = place_y(height);
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                self.tick(height)
            );
        }
        let path: Vec<String> = drawn
            .iter()
            .map(|point| place(point))
            .map(|(across, height)| format!("{:.1},{:.1}", place_x(across), place_y(height)))
            .collect();
        let _ = writeln!(svg, "<polyline points=\"{}\"/>", path.join(" "));
        for (point, (x, y)) in path.iter().zip(&drawn) {
            let (at_x, at_y) = point.split_once(',').unwrap_or((point, ""));
            let _ = writeln!(
                svg,
                "<circle cx=\"{at_x}\" cy=\"{at_y}\" r=\"3\"><title>{}: {}, {}: {}</title></circle>",
                self.x.name,
                as_json(*x),
                self.y.name,
                as_json(*y)
            );
        }
        let below = BOTTOM + 20.0;
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{below}\">{left}</text>");
        let _ = writeln!(
            svg,
            "<text class=\"middle\" x=\"{}\" y=\"{below}\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            self.x.name
        );
        let _ = writeln!(svg, "<text class=\"end\" x=\"{RIGHT}\" y=\"{below}\">{right}</text>");
        svg + "</svg>\n"
    }

    /// The ends of the axis of y.
    fn axis(&self, heights: impl Iterator<Item = f64>) -> (f64, f64) {
        let (low, high) = heights.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), height| {
            (low.min(height), high.max(height))
        });
        match self.y.scale {
            _ if low > high => (0.0, 1.0),
            Scale::Linear => (0.0, nice_limit(high)),
            // Four intervals of whole powers of ten.
            Scale::Logarithmic => {
                (high.ceil() - 4.0 * ((high.ceil() - low) / 4.0).ceil().max(1.0), high.ceil())
            }
        }
    }

    fn tick(&self, height: f64) -> String {
        match self.y.scale {
            Scale::Linear if height > 0.0 && height < 1e-3 => format!("{height:.1e}"),
            Scale::Linear => format!("{height:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
            Scale::Logarithmic => format!("1e{height:.0}"),
        }
    }
}

fn row(tag: &str, name: &str, value: &str) -> String {
    format!("<tr><{tag}>{name}</{tag}><td>{value}</td></tr>\n")
}

/// As the JSON answer writes it, without quotes and a last `.0`; nothing as a dash.
fn as_json(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Null) | Err(_) => "–".to_owned(),
        Ok(value) => value.to_string().trim_end_matches(".0").to_owned(),
    }
}

const STYLE: &str = "\
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --grid: #ddd; --curve: #0a6c74 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #ddd; --grid: #333a40; --curve: #5cc8d0 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 46rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.3rem } figure { margin: 1.5rem 0 } figcaption { font-weight: 600 }
svg { width: 100%; height: auto } text { font-size: 15px; fill: var(--ink) }
@media (min-width: 40rem) { text { font-size: 10px } }
@media (max-width: 30rem) { table { font-size: .85rem } }
.end { text-anchor: end } .middle { text-anchor: middle } .grid { stroke: var(--grid) }
polyline { fill: none; stroke: var(--curve); stroke-width: 2 } circle { fill: var(--curve) }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; font-weight: 400; padding: .2rem .5rem .2rem 0; border-bottom: 1px solid var(--grid) }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
</style>";
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 470.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 266.0;
