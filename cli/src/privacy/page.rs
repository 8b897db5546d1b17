//! The page of an answer: its curves, and its numbers as the JSON answer has them.

use serde::Serialize;

use crate::page::{self, Axis, Chart, Scale, Series};

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
    /// What the values are.
    pub(super) name: &'static str,
    pub(super) y: Scale,
    pub(super) points: Vec<(f64, f64)>,
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
        let charts: String = self.plots.iter().map(Plot::chart).collect();
        let tables: String = self.plots.iter().map(Plot::table).collect();
        let body = format!(
            "<header><h1>{title}</h1></header>\n<div class=\"grid wide\" style=\"margin-top:1.6rem\">\n{charts}</div>\n\
             <h2>The answer</h2>\n{}<h2>The points</h2>\n<div class=\"grid wide\">\n{tables}</div>\n",
            page::facts(self.facts.iter().map(|(name, value)| (*name, value.clone())))
        );
        page::page(title, "", &body)
    }
}

impl Plot {
    fn chart(&self) -> String {
        let series = vec![Series::line(self.name, "teal", self.points.clone())];
        Chart { title: self.title, x: self.x, y: self.y, top: None, series }.html()
    }

    fn table(&self) -> String {
        let rows = self
            .points
            .iter()
            .map(|(x, y)| format!("<tr><td>{}</td><td>{}</td></tr>\n", as_json(x), as_json(y)));
        format!(
            "<details class=\"card\"><summary>{}: {} points</summary>\n<div class=\"scroll\"><table class=\"facts\">\n\
             <tr><th>{}</th><th>{}</th></tr>\n{}</table></div></details>\n",
            self.title,
            self.points.len(),
            self.x.name,
            self.name,
            rows.collect::<String>()
        )
    }
}

/// As the JSON answer writes it, without quotes and a last `.0`; nothing as a dash.
fn as_json(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Null) | Err(_) => "–".to_owned(),
        Ok(value) => value.to_string().trim_end_matches(".0").to_owned(),
    }
}
