//! Why a command failed, and the exit code that says so.

use std::path::PathBuf;

use miette::Diagnostic;
use skep_privacy::budget::BudgetExhausted;
use thiserror::Error;

use crate::experiment_file::ExperimentFileError;
use crate::privacy::PrivacyError;

/// Why a command failed. Every variant is one exit code of [`Failure::exit_code`].
#[derive(Debug, Error, Diagnostic)]
pub enum Failure {
    /// Anything that has no code of its own.
    #[error("{0}")]
    Other(String),
    /// An experiment file that is not understood or makes no sense.
    #[error(transparent)]
    #[diagnostic(transparent)]
    ExperimentFile(#[from] ExperimentFileError),
    /// An argument that makes no sense.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        #[help]
        help: Option<String>,
    },
    /// The schedule could not be finished, or would not be.
    #[error("{0}")]
    #[diagnostic(help(
        "allow more with privacy.epsilon_limit, add noise with privacy.noise_multiplier, or run fewer rounds"
    ))]
    Budget(String),
    /// Too few clients came, or too few updates in any round.
    #[error("{0}")]
    NotEnoughClients(String),
    /// The other end, its certificate or the connection is at fault.
    #[error("{0}")]
    Peer(String),
    /// An audit that did not pass; its report has been printed.
    #[error("the audit did not pass: {what}")]
    Audit {
        /// The exit code of `skep audit`.
        code: u8,
        /// The verdict.
        what: String,
    },
    /// Wrong usage of `skep audit`, whose code 2 means something else.
    #[error("{0}")]
    AuditUsage(String),
    /// The user stopped it.
    #[error("{0}")]
    Interrupted(String),
}

impl Failure {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Other(_) => 1,
            Failure::ExperimentFile(_) | Failure::Usage { .. } => 2,
            Failure::Budget(_) => 3,
            Failure::NotEnoughClients(_) => 4,
            Failure::Peer(_) => 5,
            Failure::Audit { code, .. } => *code,
            Failure::AuditUsage(_) => AUDIT_USAGE,
            Failure::Interrupted(_) => 130,
        }
    }

    /// The failure of another process of ours, which ended with `code`.
    pub fn from_exit_code(code: u8, message: String) -> Self {
        match code {
            2 => Failure::configuration(message),
            3 => Failure::Budget(message),
            4 => Failure::NotEnoughClients(message),
            5 => Failure::Peer(message),
            130 => Failure::Interrupted(message),
            _ => Failure::Other(message),
        }
    }

    /// A failure without a code of its own.
    pub fn other(error: impl std::fmt::Display) -> Self {
        Failure::Other(error.to_string())
    }

    /// An experiment that cannot be run.
    pub fn configuration(error: impl std::fmt::Display) -> Self {
        Failure::Usage { problem: error.to_string(), help: None }
    }

    /// A file that could not be read or written.
    pub fn file(path: impl Into<PathBuf>, error: std::io::Error) -> Self {
        Failure::Other(format!("{}: {error}", path.into().display()))
    }
}

/// The exit code of wrong usage of `skep audit` (EX_USAGE of sysexits.h), so that a mistyped flag never reads as tamper.
pub const AUDIT_USAGE: u8 = 64;

impl From<PrivacyError> for Failure {
    fn from(error: PrivacyError) -> Self {
        match error {
            PrivacyError::Write { .. } => Failure::other(error),
            error => Failure::configuration(error),
        }
    }
}

impl From<BudgetExhausted> for Failure {
    fn from(exhausted: BudgetExhausted) -> Self {
        let left = (exhausted.limit.get() - exhausted.spent.get()).max(0.0);
        Failure::Budget(format!(
            "the privacy budget is exhausted: epsilon {:.4} is spent and one more round would make it {:.4}, above the limit of {} \
             at delta {}. {left:.4} is left, in which no further round of this noise fits",
            exhausted.spent, exhausted.asked, exhausted.limit, exhausted.delta
        ))
    }
}
