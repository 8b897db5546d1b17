//! `skep privacy`: what a schedule costs, what a budget allows, and whether anything can be learned within it.
//!
//! Every answer is computed by `skep_privacy::planner`; here it is read, worded and printed.

pub mod arguments;
mod calibrate;
mod curve;
mod epsilon;
mod page;
mod plan;
mod schedule;

use std::io::{self, Write};

use serde::Serialize;
use skep_privacy::planner::PlannerError;

use crate::arguments::Output;
use arguments::Printing;
pub use arguments::PrivacyCommand;
use page::Page;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    /// Arguments that make no sense together.
    #[error("{0}")]
    Usage(String),
    /// The question has no answer.
    #[error(transparent)]
    Planner(#[from] PlannerError),
    /// The answer could not be written.
    #[error("{what}: {error}")]
    Write {
        /// Where to.
        what: String,
        /// Why not.
        error: io::Error,
    },
}

/// Answers a question on `out`.
///
/// # Errors
/// [`PrivacyError`]; all but `Write` are the asker's fault.
pub fn run(command: &PrivacyCommand, out: &mut impl Write) -> Result<(), PrivacyError> {
    match command {
        PrivacyCommand::Epsilon(arguments) => epsilon::answer(arguments)?.print(&arguments.printing, out),
        PrivacyCommand::Calibrate(arguments) => calibrate::answer(arguments)?.print(&arguments.printing, out),
        PrivacyCommand::Plan(arguments) => plan::answer(arguments)?.print(&arguments.printing, out),
        PrivacyCommand::Curve(arguments) => curve::answer(arguments)?.print(&arguments.printing, out),
    }
}

/// An answer in its three forms.
struct Answer {
    text: String,
    json: String,
    page: Option<Page>,
}

impl Answer {
    /// An answer without a page.
    fn new(text: String, object: &impl Serialize) -> Self {
        let json = serde_json::to_string(object).expect("an answer has only text keys, numbers and names");
        Self { text, json, page: None }
    }

    fn print(&self, printing: &Printing, out: &mut impl Write) -> Result<(), PrivacyError> {
        if let (Some(page), Some(path)) = (&self.page, &printing.html) {
            std::fs::write(path, page.html())
                .map_err(|error| PrivacyError::Write { what: path.display().to_string(), error })?;
        }
        let answer = match printing.output {
            Output::Text => self.text.trim_end(),
            Output::Json => &self.json,
        };
        writeln!(out, "{answer}")
            .map_err(|error| PrivacyError::Write { what: "standard output".to_owned(), error })
    }
}

/// One line of an answer for people.
fn line(label: &str, value: impl std::fmt::Display) -> String {
    format!("{label:<18}{value}\n")
}
