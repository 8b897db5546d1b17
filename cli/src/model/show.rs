//! `skep model show`: what a model file says of its model, in words and as JSON.
//!
//! The digest is computed; everything else is what the file's writer claims. Whether that is true is for `skep audit` to say,
//! with the ledger.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use skep_learning::table::{Column, Filling, Kind};
use skep_learning::text::TextFeatures;
use skep_learning::{Input, ModelFile, Target};
use skep_privacy::ledger::SignedCheckpoint;
use skep_protocol::Digest;

use super::{Show, load};
use crate::failure::Failure;

/// Runs `skep model show`.
///
/// # Errors
/// [`Failure::Usage`] when it is no model file, [`Failure::Other`] when its parameters are not those that its metadata name.
pub(crate) fn run(arguments: &Show) -> Result<(), Failure> {
    let model = load(&arguments.model)?;
    let shown = Shown::new(&model);
    match arguments.json {
        true => println!("{}", shown.json()),
        false => print!("{}", shown.text()),
    }
    match shown.said("model_sha256") {
        Some(said) if said != shown.digest => Err(Failure::Other(format!(
            "{}: the parameters have the digest {}, but the metadata name {said}: the file was changed after it was written",
            arguments.model.display(),
            shown.digest
        ))),
        _ => Ok(()),
    }
}

struct Shown<'a> {
    model: &'a ModelFile,
    digest: String,
}

/// The keys of the metadata that are shown under other names.
const EPSILONS: [(&str, &str); 3] = [
    ("epsilon", "against whoever receives the model"),
    ("epsilon_server", "against the server"),
    ("epsilon_alone", "against the server if all other clients were its own"),
];

impl<'a> Shown<'a> {
    fn new(model: &'a ModelFile) -> Self {
        Shown { model, digest: Digest::of_model(model.released()).to_string() }
    }

    /// What the metadata say; `none` counts as nothing.
    fn said(&self, key: &str) -> Option<&'a str> {
        self.model.metadata().get(key).map(String::as_str).filter(|said| *said != "none")
    }

    /// Ledger and number of records that a checkpoint in the metadata names.
    fn checkpoint(&self) -> Option<(String, u64)> {
        let checkpoint = SignedCheckpoint::parse(self.said("ledger_checkpoint")?).ok()?;
        let checkpoint = checkpoint.unverified();
        Some((checkpoint.origin.clone(), checkpoint.size))
    }

    fn json(&self) -> Value {
        let model = self.model;
        let interface = model.interface();
        let privacy: Map<String, Value> =
            EPSILONS.iter().map(|(key, _)| ((*key).to_owned(), self.number(key))).collect();
        json!({
            "architecture": model.architecture(),
            "layers": model.architecture().summary(),
            "parameters": model.parameters().len(),
            "bytes": size_of_val(model.parameters()),
            "model_sha256": self.digest,
            "digest_as_in_metadata": self.said("model_sha256").map(|said| said == self.digest),
            "input": interface.input,
            "numbers": self.numbers(),
            "standardization": interface.standardization,
            "classes": interface.classes,
            "target": interface.target,
            "has_interface": model.has_interface(),
            "privacy": privacy,
            "delta": self.number("delta"),
            "noise_seeded": self.said("noise_seeded").map(|said| said == "true"),
            "ledger": self.checkpoint().map(|(ledger, records)| json!({ "name": ledger, "records": records })),
            "metadata": model.metadata(),
        })
    }

    /// What each number is called that a row of a table becomes, in the order in which the model takes them.
    fn numbers(&self) -> Option<Vec<String>> {
        match self.model.interface().input {
            Input::Table { columns } => Some(columns.names()),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Value {
        self.said(key).and_then(|said| said.parse::<f64>().ok()).into()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:<12}{value}");
        };
        let parameters = self.model.parameters();
        line("task", self.said("task").unwrap_or("not said").to_owned());
        line("takes", self.takes());
        for layer in self.model.architecture().summary() {
            let learned = match layer.parameters {
                0 => String::new(),
                parameters => format!(", {parameters} parameters"),
            };
            line("layer", format!("{:<22}{:<18}gives {}{learned}", layer.name, layer.kind, layer.output));
        }
        line("parameters", format!("{}, {} bytes", parameters.len(), size_of_val(parameters)));
        if self.model.tuning().is_some() {
            let trained = self.model.released().len();
            line(
                "trained",
                format!("{trained} of them or of adapters beside them; the others are as they were given"),
            );
        }
        match self.model.interface().target {
            None => line("classes", self.classes()),
            Some(target) => line("predicts", predicts(&target)),
        }
        self.privacy(&mut line);
        self.lineage(&mut line);
        text
    }

    fn takes(&self) -> String {
        let interface = self.model.interface();
        let standardized = match (&interface.standardization, &interface.input) {
            (Some(_), Input::Table { .. }) => {
                ", those of columns of numbers less their mean and divided by their standard deviation"
            }
            (Some(_), _) => ", each less its mean and divided by its standard deviation",
            (None, _) => "",
        };
        let (columns, divisor) = match interface.input {
            Input::Numbers { columns, divisor } => (columns, divisor),
            Input::Image { height, width, channels, mean, deviation } => {
                let shift = format!("channels less {mean:?} and divided by {deviation:?}");
                return format!(
                    "images, made {height} x {width} x {channels}, bytes divided by 255, {shift}"
                );
            }
            Input::Table { columns } => {
                let names: Vec<String> = columns.columns().iter().map(described).collect();
                let numbers = columns.width();
                return format!(
                    "rows of {}, {numbers} numbers{standardized}: {}",
                    names.len(),
                    shortened(&names)
                );
            }
            Input::Text { preparation } => {
                let made = match preparation.features {
                    TextFeatures::Words => format!("the numbers of the first {}", preparation.length),
                    TextFeatures::NextWord => format!("the numbers of the last {}", preparation.length),
                    TextFeatures::MeanVector(_) => {
                        format!(
                            "the mean vector, {} numbers, of the first {}",
                            self.model.architecture().inputs(),
                            preparation.length
                        )
                    }
                };
                return format!("texts: {made} of {} known words", preparation.vocabulary.len());
            }
        };
        let named = match columns {
            Some(columns) => format!("{}: {}", columns.len(), shortened(&columns)),
            None => format!("{}", self.model.architecture().input()),
        };
        let divided = if divisor == 1.0 { String::new() } else { format!(", each divided by {divisor}") };
        let unsaid =
            if self.model.has_interface() { "" } else { "; the file does not say how they are made" };
        format!("numbers, {named}{divided}{standardized}{unsaid}")
    }

    fn classes(&self) -> String {
        let classes = self.model.interface().classes;
        format!("{}: {}", classes.len(), shortened(&classes))
    }

    fn privacy(&self, line: &mut impl FnMut(&str, String)) {
        let delta = self.said("delta");
        for (key, whom) in EPSILONS {
            match (self.said(key), delta, key) {
                (Some(epsilon), Some(delta), _) => {
                    line("privacy", format!("epsilon {epsilon} at delta {delta}, {whom}"));
                }
                (None, _, "epsilon_alone") => {}
                _ => line("privacy", format!("nothing is promised {whom}")),
            }
        }
        if let (Some(unit), Some(adjacency)) = (self.said("unit"), self.said("adjacency")) {
            line(
                "hides",
                format!(
                    "{unit}s ({adjacency}), proven by accountant {}",
                    self.said("accountant").unwrap_or("not said")
                ),
            );
        }
        if self.said("noise_seeded") == Some("true") {
            line(
                "not private",
                "the noise followed from a seed, and hides nothing from whoever knows it".to_owned(),
            );
        }
    }

    fn lineage(&self, line: &mut impl FnMut(&str, String)) {
        line("rounds", self.said("rounds").unwrap_or("not said").to_owned());
        line(
            "mode",
            format!(
                "{}, secure aggregation {}",
                self.said("mode").unwrap_or("not said"),
                if self.said("secure_aggregation") == Some("true") { "on" } else { "off" }
            ),
        );
        line("made by", self.said("made_by").unwrap_or("not said").to_owned());
        line("sha256", self.digest.clone());
        line(
            "ledger",
            match self.checkpoint() {
                Some((ledger, records)) => format!(
                    "{ledger}, {records} records; `skep audit LEDGER --model FILE` says whether it vouches for this model"
                ),
                None => "none: nothing vouches for what is said here".to_owned(),
            },
        );
    }
}

/// A column of a table, in words.
fn described(column: &Column) -> String {
    let kind = match &column.kind {
        Kind::Number => String::new(),
        Kind::Category { categories, other } => {
            let other = if *other { " and others" } else { "" };
            format!(" ({}{other})", shortened(categories))
        }
    };
    let missing = match &column.missing {
        None => String::new(),
        Some(Filling::Value(value)) => format!(", {value} if missing"),
        Some(Filling::Category(category)) => format!(", {category} if missing"),
        Some(Filling::NoCategory) => ", none if missing".to_owned(),
    };
    format!("{}{kind}{missing}", column.name)
}

/// The first names of many.
fn shortened(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, ...") } else { shown }
}

const SHOWN: usize = 12;

/// The number that is predicted, and how it is scaled.
fn predicts(target: &Target) -> String {
    let Target { column, shift, scale, bounds, .. } = target;
    let bounds = bounds.map_or(String::new(), |[low, high]| format!(", {low} to {high}"));
    format!("the number `{column}`{bounds}: trained on it less {shift}, divided by {scale}")
}
