//! Curves over rounds. The picture stretches to its place; its words do not.

use std::fmt::Write;

use serde::Serialize;

use super::words::{escaped, number};

/// Curves over the same rounds.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) series: Vec<Series>,
    /// Where the axis of values ends, if the values do not decide.
    pub(super) top: Option<f64>,
    /// A line that no value may cross.
    pub(super) limit: Option<f64>,
}

/// One curve.
pub(super) struct Series {
    pub(super) name: String,
    /// A class of the style sheet that has a colour.
    pub(super) colour: String,
    /// Round and value, rounds rising.
    pub(super) points: Vec<(u64, f64)>,
}

/// A curve as the script reads it.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    points: &'a [(u64, f64)],
}

impl Chart {
    /// The figure; nothing where there is nothing to draw.
    pub(super) fn html(mut self) -> String {
        self.series.iter_mut().for_each(Series::thin_out);
        self.series.retain(|series| !series.points.is_empty());
        let all = || self.series.iter().flat_map(|series| series.points.iter().map(|(round, _)| *round));
        let (Some(first), Some(last)) = (all().min(), all().max()) else { return String::new() };
        let rounds = (first, last);
        let values = self.series.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
        let most = values.fold(0.0, f64::max);
        let limit = self.limit.filter(|limit| *limit <= 4.0 * most);
        let top = self.top.unwrap_or_else(|| nice_limit(most.max(limit.unwrap_or(0.0))));
        let mut html = self.opening();
        for step in 0..=4_u32 {
            let part = f64::from(step) / 4.0;
            // Writing to a string cannot fail, here and below.
            let _ = write!(
                html,
                "<span class=\"y\" style=\"bottom:{}%\">{}</span>",
                100.0 * part,
                number(part * top)
            );
        }
        html += &svg(self.title, &self.series, rounds, top, limit);
        let _ = write!(
            html,
            "<span class=\"x\">{}</span><span class=\"x middle\">round</span><span class=\"x end\">{}</span><i></i></div>\n</figure>\n",
            rounds.0, rounds.1
        );
        html
    }

    fn opening(&self) -> String {
        let told: Vec<_> =
            self.series.iter().map(|series| Told { name: &series.name, points: &series.points }).collect();
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
        format!(
            "<figure class=\"card\" data-series=\"{}\">\n<figcaption><h3>{}</h3><output>{}</output></figcaption>\n<div class=\"plot\">",
            escaped(&told),
            self.title,
            last.collect::<Vec<_>>().join(" · ")
        )
    }
}

fn svg(title: &str, series: &[Series], (first, last): (u64, u64), top: f64, limit: Option<f64>) -> String {
    let mut svg = format!(
        "<svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title} over the rounds\">\
         <path class=\"rule\" d=\"M0 0H1000M0 250H1000M0 500H1000M0 750H1000M0 1000H1000\"/>"
    );
    let x = |round: u64| 1000.0 * (round - first) as f64 / (last - first).max(1) as f64;
    let y = |value: f64| 1000.0 * (1.0 - (value / top).clamp(0.0, 1.0));
    for series in series {
        let mut path = String::new();
        for (round, value) in &series.points {
            let _ =
                write!(path, "{}{:.1} {:.1}", if path.is_empty() { "M" } else { "L" }, x(*round), y(*value));
        }
        let ends = (x(series.points[0].0), x(series.points[series.points.len() - 1].0));
        let _ = write!(
            svg,
            "<g class=\"{}\"><path class=\"area\" d=\"{path}L{:.1} 1000L{:.1} 1000Z\"/><path class=\"curve\" d=\"{path}\"/></g>",
            series.colour, ends.1, ends.0
        );
    }
    if let Some(limit) = limit {
        let _ =
            write!(svg, "<path class=\"limit\" d=\"M0 {0:.1}H1000\"><title>limit</title></path>", y(limit));
    }
    svg + "</svg>"
}

impl Series {
    /// More points than can be seen are left out, the last one never.
    fn thin_out(&mut self) {
        let step = self.points.len().div_ceil(POINTS).max(1);
        let last = self.points.len().saturating_sub(1);
        let mut at = 0;
        self.points.retain(|(_, value)| {
            let keep = (at % step == 0 || at == last) && value.is_finite();
            at += 1;
            keep
        });
    }
}

/// The smallest of a few numbers times a power of ten that is not below `value`; their quarters are short.
pub(crate) fn nice_limit(value: f64) -> f64 {
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

    fn chart(points: Vec<(u64, f64)>) -> Chart {
        let series = Series { name: "loss".to_owned(), colour: "teal".to_owned(), points };
        Chart { title: "Loss", series: vec![series], top: None, limit: None }
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
        assert!(chart(vec![(1, 0.5)]).html().contains("M0.0 0.0"), "{}", chart(vec![(1, 0.5)]).html());
        let long = chart((1..=100_000).map(|round| (round, 1.0 / round as f64)).collect()).html();
        assert!(long.len() < 60_000 && long.contains("[100000,"), "{}", long.len());
        assert_eq!(chart(vec![(1, f64::NAN)]).html(), "");
    }

    #[test]
    fn a_limit_far_above_the_curve_does_not_flatten_it() {
        let with = |limit| Chart { limit: Some(limit), ..chart(vec![(1, 1.0), (2, 2.0)]) }.html();
        assert!(with(8.0).contains("class=\"limit\""));
        assert!(!with(1e6).contains("class=\"limit\""));
    }
}
