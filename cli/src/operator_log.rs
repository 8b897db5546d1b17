//! `operator.jsonl` in a server's state directory: which client was in which round, and what became of it.
//!
//! The only place where that stands. Under sampling the accounting relies on nobody but the server knowing it, so nobody but the
//! operator may read the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use skep_protocol::net::files;
use skep_protocol::round::{Decline, Progress, Refusal};
use skep_protocol::{ClientId, Round};

use crate::failure::Failure;

/// The log, open at its end.
#[derive(Debug)]
pub(crate) struct OperatorLog {
    path: PathBuf,
    file: File,
}

/// A line: the cohort of a round by what became of it.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Line {
    round: u64,
    /// Whether it is about the query after the round.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    query: bool,
    committed: Vec<u64>,
    declined: BTreeMap<Decline, Vec<u64>>,
    refused: BTreeMap<Refusal, Vec<u64>>,
    unfinished: Vec<u64>,
}

impl OperatorLog {
    /// Opens the log of a state directory, or begins it; only its owner may read it.
    ///
    /// # Errors
    /// [`Failure::Other`] when it cannot be opened.
    pub(crate) fn open(state: &Path) -> Result<Self, Failure> {
        let path = state.join("operator.jsonl");
        let file = files::private()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| Failure::file(&path, error))?;
        Ok(OperatorLog { path, file })
    }

    /// Adds a round that has ended. A log that cannot be written is reported, and the federation goes on.
    pub(crate) fn add(&mut self, round: Round, cohort: &[(ClientId, Progress)]) {
        let mut line = serde_json::to_vec(&Line::of(round, cohort)).expect("numbers and names only");
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            tracing::error!(path = %self.path.display(), %round, %error, "the operator's log is not written");
        }
    }
}

impl Line {
    fn of(round: Round, cohort: &[(ClientId, Progress)]) -> Self {
        let mut line = Line { round: round.training().0, query: round.is_query(), ..Line::default() };
        for (client, progress) in cohort {
            let kind = match *progress {
                Progress::Committed => &mut line.committed,
                Progress::Declined(reason) | Progress::Withheld(reason) => {
                    line.declined.entry(reason).or_default()
                }
                Progress::Refused(reason) => line.refused.entry(reason).or_default(),
                _ => &mut line.unfinished,
            };
            kind.push(client.0);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_stands_in_a_line_that_only_the_owner_reads() {
        let state = tempfile::tempdir().unwrap();
        let cohort = [
            (ClientId(0), Progress::Committed),
            (ClientId(3), Progress::Refused(Refusal::NoAnswer)),
            (ClientId(4), Progress::Declined(Decline::TrainingFailed)),
            (ClientId(7), Progress::Committed),
            (ClientId(9), Progress::Accepted),
        ];
        OperatorLog::open(state.path()).unwrap().add(Round(1), &cohort);
        OperatorLog::open(state.path()).unwrap().add(Round(2), &[]);
        let path = state.path().join("operator.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let first = r#"{"round":1,"committed":[0,7],"declined":{"training-failed":[4]},"refused":{"no-answer":[3]},"unfinished":[9]}"#;
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!(text.lines().count(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
