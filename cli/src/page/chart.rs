//! Curves. The picture stretches to its place; its words do not.

use std::fmt::Write;

use serde::Serialize;

use super::words::{escaped, number};

/// Curves over the same values.
pub(crate) struct Chart {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    /// How values are placed.
    pub(crate) y: Scale,
    /// Where the axis of values ends, if the values do not decide.
    pub(crate) top: Option<f64>,
    pub(crate) series: Vec<Series>,
}

/// What lies along the lower side.
#[derive(Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) name: &'static str,
    pub(crate) scale: Scale,
}

/// Where a value is placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// In proportion; upwards from 0.
    Linear,
    /// By powers of ten; what is not above 0 is left out.
    Logarithmic,
}

/// One curve.
pub(crate) struct Series {
    pub(crate) name: String,
    /// A class of the style sheet that has a colour.
    pub(crate) colour: String,
    pub(crate) look: Look,
    /// Where, rising, and the value there.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Look {
    /// A line over a tinted area.
    Line,
    /// A dot for each value.
    Dots,
    /// A dashed line that no other may cross. One far above the others is left out: it would flatten them.
    Limit,
}

/// A curve as the script reads it.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    points: Vec<(serde_json::Number, f64)>,
}

/// From values to places between 0 and 1000, from the left and from above.
struct Frame {
    x: Scale,
    across: (f64, f64),
    y: Scale,
    up: (f64, f64),
}

impl Axis {
    /// The rounds of a run.
    pub(crate) const ROUNDS: Axis = Axis { name: "round", scale: Scale::Linear };
}

impl Chart {
    /// Curves over rounds, from 0 upwards.
    pub(crate) fn of_rounds(title: &'static str, series: Vec<Series>) -> Self {
        Chart { title, x: Axis::ROUNDS, y: Scale::Linear, top: None, series }
    }

    /// The figure; nothing where there is nothing to draw.
    pub(crate) fn html(mut self) -> String {
        let (x, y) = (self.x.scale, self.y);
        self.series.iter_mut().for_each(|series| series.thin_out(x, y));
        let most = of(&self.series, |series| series.look != Look::Limit).fold(0.0, f64::max);
        self.series.retain(|series| series.fits_below(4.0 * most));
        let all = || self.series.iter().flat_map(|series| series.points.iter().map(|(place, _)| *place));
        let (first, last) =
            all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        if first > last {
            return String::new();
        }
        let frame = Frame { x, across: (x.place(first), x.place(last)), y, up: self.values() };
        let mut html = self.opening();
        for step in 0..=4_u32 {
            let part = f64::from(step) / 4.0;
            // Writing to a string cannot fail, here and below.
            let _ = write!(
                html,
                "<span class=\"y\" style=\"bottom:{}%\">{}</span>",
                100.0 * part,
                frame.label(part)
            );
        }
        html += &frame.svg(self.title, self.x.name, &self.series);
        let _ = write!(
            html,
            "<span class=\"x\">{}</span><span class=\"x middle\">{}</span><span class=\"x end\">{}</span><i></i></div>\n</figure>\n",
            number(first),
            self.x.name,
            number(last)
        );
        html
    }

    /// The places of the ends of the axis of values.
    fn values(&self) -> (f64, f64) {
        let every = || of(&self.series, |_| true);
        match self.y {
            Scale::Linear => (0.0, self.top.unwrap_or_else(|| nice_limit(every().fold(0.0, f64::max)))),
            // Four intervals of whole powers of ten.
            Scale::Logarithmic => {
                let places = every().map(f64::log10);
                let (low, high) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| {
                    (low.min(place), high.max(place))
                });
                (high.ceil() - 4.0 * ((high.ceil() - low) / 4.0).ceil().max(1.0), high.ceil())
            }
        }
    }

    fn opening(&self) -> String {
        let told: Vec<_> = self
            .series
            .iter()
            .map(|series| Told {
                name: &series.name,
                points: series.points.iter().map(|(at, value)| (whole(*at), *value)).collect(),
            })
            .collect();
        let told = serde_json::to_string(&told).expect("names and finite numbers");
        let last = self.series.iter().map(|series| {
            let (_, value) = series.points[series.points.len() - 1];
            format!(
                "<span><b class=\"key {}\"></b>{} {}</span>",
                series.colour,
                escaped(&series.name),
                number(value)
            )
        });
        let scale = if self.x.scale == Scale::Logarithmic { " data-logarithmic" } else { "" };
        format!(
            "<figure class=\"card\" data-x=\"{}\"{scale} data-series=\"{}\">\n<figcaption><h3>{}</h3><output>{}</output></figcaption>\n\
             <div class=\"plot\">",
            self.x.name,
            escaped(&told),
            self.title,
            last.collect::<Vec<_>>().join(" · ")
        )
    }
}

impl Frame {
    fn across(&self, at: f64) -> f64 {
        let (first, last) = self.across;
        1000.0 * if last > first { (self.x.place(at) - first) / (last - first) } else { 0.5 }
    }

    fn down(&self, value: f64) -> f64 {
        let (bottom, top) = self.up;
        1000.0 * (1.0 - ((self.y.place(value) - bottom) / (top - bottom)).clamp(0.0, 1.0))
    }

    /// What is written beside the axis of values, from 0 at its lower end to 1.
    fn label(&self, part: f64) -> String {
        let (bottom, top) = self.up;
        let place = bottom + part * (top - bottom);
        match self.y {
            Scale::Linear => number(place),
            Scale::Logarithmic => format!("1e{place:.0}"),
        }
    }

    fn svg(&self, title: &str, over: &str, series: &[Series]) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}, over {over}\">\
             <path class=\"rule\" d=\"M0 0H1000M0 250H1000M0 500H1000M0 750H1000M0 1000H1000\"/>"
        );
        for series in series {
            let places: Vec<String> = series
                .points
                .iter()
                .map(|(at, value)| format!("{:.1} {:.1}", self.across(*at), self.down(*value)))
                .collect();
            let path = format!("M{}", places.join("L"));
            let drawn = match series.look {
                // A line of no length has round ends: a dot, which keeps its shape.
                _ if places.len() == 1 => dots(&places),
                Look::Dots => dots(&places),
                Look::Limit => format!("<path class=\"limit\" d=\"{path}\"/>"),
                Look::Line => {
                    let ends = [0, series.points.len() - 1].map(|at| self.across(series.points[at].0));
                    format!(
                        "<path class=\"area\" d=\"{path}L{:.1} 1000L{:.1} 1000Z\"/><path class=\"curve\" d=\"{path}\"/>",
                        ends[1], ends[0]
                    )
                }
            };
            let _ = write!(svg, "<g class=\"{}\">{drawn}</g>", series.colour);
        }
        svg + "</svg>"
    }
}

fn dots(places: &[String]) -> String {
    format!("<path class=\"dots\" d=\"M{}h0\"/>", places.join("h0M"))
}

impl Scale {
    /// Where a value is; not finite where it cannot be drawn.
    fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        }
    }
}

impl Series {
    /// A line.
    pub(crate) fn line(name: &str, colour: &str, points: Vec<(f64, f64)>) -> Self {
        Series { name: name.to_owned(), colour: colour.to_owned(), look: Look::Line, points }
    }

    /// What cannot be drawn is left out, and more points than can be seen, the last one never.
    fn thin_out(&mut self, x: Scale, y: Scale) {
        let step = self.points.len().div_ceil(POINTS).max(1);
        let last = self.points.len().saturating_sub(1);
        let mut number = 0;
        self.points.retain(|(at, value)| {
            let keep = number % step == 0 || number == last;
            number += 1;
            keep && x.place(*at).is_finite() && y.place(*value).is_finite()
        });
    }

    fn fits_below(&self, highest: f64) -> bool {
        let within = self.look != Look::Limit || self.points.iter().all(|(_, value)| *value <= highest);
        !self.points.is_empty() && within
    }
}

/// The values of some curves.
fn of(series: &[Series], which: impl Fn(&Series) -> bool) -> impl Iterator<Item = f64> {
    series
        .iter()
        .filter(move |series| which(series))
        .flat_map(|series| &series.points)
        .map(|(_, value)| *value)
}

/// A round is a whole number.
fn whole(at: f64) -> serde_json::Number {
    match at.fract() == 0.0 && (0.0..9e15).contains(&at) {
        true => (at as u64).into(),
        false => serde_json::Number::from_f64(at).expect("what is not finite is left out"),
    }
}

/// The smallest of a few numbers times a power of ten that is not below `value`; their quarters are short.
fn nice_limit(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.max(1e-6).log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|limit| *limit >= value)
        .unwrap_or(value)
}

const POINTS: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart::of_rounds("Loss", vec![Series::line("loss", "teal", points)])
    }

    #[test]
    fn an_axis_ends_at_a_round_number_above_the_curve() {
        for (value, limit) in
            [(0.0, 1.0), (1e-9, 1e-6), (7.9, 8.0), (8.1, 10.0), (12.0, 12.0), (201.0, 240.0)]
        {
            assert!((nice_limit(value) / limit - 1.0).abs() < 1e-12, "{value}: {}", nice_limit(value));
        }
    }

    #[test]
    fn a_curve_of_any_length_is_drawn_and_none_is_nothing() {
        assert_eq!(chart(vec![]).html(), "");
        let one = chart(vec![(1.0, 0.5)]).html();
        assert!(one.contains("class=\"dots\" d=\"M500.0 0.0h0\""), "{one}");
        let long = (1..=100_000).map(|round| (f64::from(round), 1.0 / f64::from(round))).collect();
        let long = chart(long).html();
        assert!(long.len() < 60_000 && long.contains("[100000,"), "{}", long.len());
        assert_eq!(chart(vec![(1.0, f64::NAN)]).html(), "");
    }

    #[test]
    fn a_limit_far_above_the_curve_does_not_flatten_it() {
        let with = |limit| {
            let mut chart = chart(vec![(1.0, 1.0), (2.0, 2.0)]);
            let points = vec![(1.0, limit), (2.0, limit)];
            chart.series.push(Series { look: Look::Limit, ..Series::line("limit", "rose", points) });
            chart.html()
        };
        assert!(with(8.0).contains("class=\"limit\""));
        assert!(!with(1e6).contains("limit"));
    }

    #[test]
    fn powers_of_ten_are_evenly_apart() {
        let points = vec![(1.0, 1e-1), (10.0, 1e-5), (100.0, 1e-9), (1000.0, 0.0)];
        let axis = Axis { name: "clients", scale: Scale::Logarithmic };
        let html = Chart { x: axis, y: Scale::Logarithmic, ..chart(points) }.html();
        // What is 0 has no place; the others are on a straight line down from an axis that ends at 1e-1.
        assert!(html.contains("M0.0 0.0L500.0 500.0L1000.0 1000.0\""), "{html}");
        assert!(
            html.contains(">1e-1<") && html.contains(">1e-9<") && html.contains("data-logarithmic"),
            "{html}"
        );
    }
}
