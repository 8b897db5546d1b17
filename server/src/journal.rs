//! The rounds of a federation on disk: what a server that starts again goes on from.
//!
//! In a directory of its own, readable by its owner alone:
//!
//! | file | holds |
//! | --- | --- |
//! | `journal.jsonl` | a line when a round is opened, when its model is released, and when it has ended; likewise of a query, which releases answers |
//! | `model-<sha256>` | the model after the last released round, little-endian f32 |
//! | `state-<sha256>` | what the strategy remembers beside that model, if it remembers anything |
//!
//! Each line is on disk before anything follows from it: before anybody is invited, before anybody is told of a release,
//! before the next round. So whatever moment a server is killed at, a round has either not begun, or been released,
//! or been interrupted; an interrupted one stays charged and is never run again under its number.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_privacy::ledger::LedgerError;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::round::{AbortReason, Outcome};
use skep_protocol::{Digest, Round};
use thiserror::Error;

use crate::federation::{Federation, FederationError, Interrupted, Released, RoundSummary};
use crate::record::{ClientAnswers, Cost, OutcomeKind, RoundRecord};
use crate::strategy::ServerState;

/// The journal of one federation. One process writes it.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    entries: Vec<Entry>,
    /// The digest of the state beside the model of the last round that ended with one.
    state: Option<String>,
    /// Likewise of the round that is open, once it has released.
    released_state: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Entry {
    Opened {
        round: Round,
        invited: u32,
    },
    Released {
        round: Round,
        updates: u32,
        model_sha256: String,
        plan: Digest,
        aggregate: Digest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state_sha256: Option<String>,
    },
    /// A query has released answers, if any stand out of the noise.
    Answered {
        round: Round,
        updates: u32,
        plan: Digest,
        aggregate: Digest,
        answers: Option<ClientAnswers>,
    },
    Closed(Box<RoundRecord>),
    /// The query after a round has ended; the record of that round with what was said and is spent by then.
    Asked(Box<RoundRecord>),
}

/// A round, or the query after one, that is in the journal and has not ended there.
struct Unfinished {
    round: Round,
    invited: u32,
    /// What was released, once it was.
    released: Option<(Interrupted, Out)>,
}

/// What a round, or a query, has released.
enum Out {
    /// A model of this digest.
    Model(String),
    /// What clients said, unless noise drowns it.
    Answers(Option<ClientAnswers>),
}

/// What a journal says.
#[derive(Default)]
struct History {
    records: Vec<RoundRecord>,
    unfinished: Option<Unfinished>,
    /// The digest of the state beside the model of the last round that released one, of an unfinished round, too.
    state: Option<String>,
}

impl Journal {
    /// Opens the journal in `directory`, making it if need be. A last line that was cut short is taken away: nothing
    /// has followed from it.
    ///
    /// # Errors
    /// [`JournalError`] when a file is unreadable, or a line is not what belongs there.
    pub fn open(directory: &Path) -> Result<Self, JournalError> {
        files::private_directory(directory)?;
        let path = directory.join(JOURNAL);
        let mut file = files::private()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed("read", &path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed("mend", &path))?;
        }
        let lines = text[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let entries = lines
            .zip(1..)
            .map(|(line, number)| {
                serde_json::from_slice(line)
                    .map_err(|error| JournalError::Damaged { line: number, reason: error.to_string() })
            })
            .collect::<Result<_, _>>()?;
        Ok(Journal { directory: directory.to_owned(), file, entries, state: None, released_state: None })
    }

    /// Whether no round was ever opened.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Brings a new `federation` to where the journal ends, and says how its rounds went. A round in which the server was
    /// interrupted ends now: released if its model was, else aborted. So does a query, with what it has said if it has.
    ///
    /// # Errors
    /// [`JournalError`] when the journal contradicts itself, a model is missing or damaged, or the federation is another.
    pub fn restore(&mut self, federation: &mut Federation) -> Result<Vec<RoundRecord>, JournalError> {
        let History { mut records, unfinished, state } = self.history()?;
        let model = match &unfinished {
            Some(Unfinished { released: Some((_, Out::Model(model))), .. }) => Some(model.clone()),
            _ => records.last().map(|record| record.model_sha256.clone()),
        };
        let last = unfinished.as_ref().map(|open| open.round).or(records.last().map(|record| record.round));
        if let (Some(last), Some(model)) = (last, model) {
            let remembered = match &state {
                Some(sha256) => self.state(sha256)?,
                None => ServerState::default(),
            };
            federation.resume(last, self.model(&model, federation)?, remembered)?;
        } else if let Some(last) = last {
            federation.resume(last, federation.model().to_vec(), ServerState::default())?;
        }
        match &unfinished {
            Some(Unfinished { released: Some((_, Out::Model(_))), .. }) => self.released_state = state,
            _ => self.state = state,
        }
        if let Some(open) = unfinished {
            federation.end_interrupted(open.round, open.released.as_ref().map(|(released, _)| released))?;
            let (outcome, updates) = match open.released.as_ref().map(|(released, _)| released.updates) {
                Some(updates) if updates == open.invited => (Outcome::Complete { updates }, updates),
                Some(updates) => (Outcome::Degraded { updates, invited: open.invited }, updates),
                None => (Outcome::Aborted(AbortReason::Interrupted), 0),
            };
            let summary = federation.summary(outcome, open.invited, updates);
            if let (true, Some(last)) = (open.round.is_query(), records.last_mut()) {
                let answers = match open.released {
                    Some((_, Out::Answers(answers))) => answers,
                    _ => None,
                };
                *last = last.clone().asked(&RoundSummary { answers, ..summary }, &[], Cost::default());
                self.asked(last)?;
                self.entries = Vec::new();
                return Ok(records);
            }
            let record = RoundRecord::new(&summary, &[], None, Cost::default());
            self.close(&record)?;
            records.push(record);
        }
        self.entries = Vec::new();
        Ok(records)
    }

    /// Notes that a round, or the query after one, is planned, before anybody is invited.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then nobody may be.
    pub fn open_round(&mut self, round: Round, invited: u32) -> Result<(), JournalError> {
        self.append(&Entry::Opened { round, invited })
    }

    /// Keeps what a round has released, before anybody hears of it.
    ///
    /// # Errors
    /// [`JournalError`]; then nobody may.
    pub fn release(&mut self, round: Round, released: &Released<'_>) -> Result<(), JournalError> {
        let model_sha256 = released.digest.to_string();
        files::replace(&self.directory.join(model_file(&model_sha256)), &on_the_wire(released.model))?;
        let Interrupted { updates, plan, aggregate } = released.ledger;
        self.released_state = self.keep(released.state)?;
        let state_sha256 = self.released_state.clone();
        self.append(&Entry::Released { round, updates, model_sha256, plan, aggregate, state_sha256 })
    }

    /// Keeps what a query has released, before anybody hears of it.
    ///
    /// # Errors
    /// [`JournalError`]; then nobody may.
    pub fn answer(
        &mut self,
        round: Round,
        answers: Option<ClientAnswers>,
        released: &Interrupted,
    ) -> Result<(), JournalError> {
        let Interrupted { updates, plan, aggregate } = *released;
        self.append(&Entry::Answered { round, updates, plan, aggregate, answers })
    }

    /// Writes down what the strategy remembers, if anything, and says by which digest.
    fn keep(&self, state: &ServerState) -> Result<Option<String>, JournalError> {
        if state.is_empty() {
            return Ok(None);
        }
        let bytes = state.to_bytes();
        let sha256 = Digest::of(&bytes).to_string();
        files::replace(&self.directory.join(state_file(&sha256)), &bytes)?;
        Ok(Some(sha256))
    }

    /// Notes how a round ended; models and states before its own are no longer needed.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn close(&mut self, record: &RoundRecord) -> Result<(), JournalError> {
        self.append(&Entry::Closed(Box::new(record.clone())))?;
        let released = self.released_state.take();
        if record.outcome != OutcomeKind::Aborted {
            self.state = released;
        }
        self.forget_all_but(&record.model_sha256)
    }

    /// Notes that the query after the last round has ended; this is the round's record by then.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn asked(&mut self, record: &RoundRecord) -> Result<(), JournalError> {
        self.append(&Entry::Asked(Box::new(record.clone())))
    }

    fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let mut line = serde_json::to_vec(entry).map_err(io::Error::other).map_err(self.failed("write"))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(self.failed("write"))
    }

    fn history(&self) -> Result<History, JournalError> {
        let History { mut records, unfinished: mut open, mut state } = History::default();
        let mut released_state = None;
        for (entry, line) in self.entries.iter().zip(1..) {
            let wrong = |reason: &str| Err(JournalError::Damaged { line, reason: reason.to_owned() });
            match (entry, &mut open) {
                (Entry::Opened { round, .. }, None)
                    if records.last().is_some_and(|r: &RoundRecord| r.round >= *round) =>
                {
                    return wrong("the round is not after the last one");
                }
                (Entry::Opened { round, .. }, None)
                    if round.is_query() && records.last().map(|r| r.round) != Some(round.training()) =>
                {
                    return wrong("the query is not after the last round");
                }
                (&Entry::Opened { round, invited }, None) => {
                    open = Some(Unfinished { round, invited, released: None });
                }
                (
                    Entry::Released { round, updates, model_sha256, plan, aggregate, state_sha256 },
                    Some(now),
                ) if now.round == *round => {
                    let released = Interrupted { updates: *updates, plan: *plan, aggregate: *aggregate };
                    now.released = Some((released, Out::Model(model_sha256.clone())));
                    released_state = state_sha256.clone();
                }
                (&Entry::Answered { round, updates, plan, aggregate, answers }, Some(now))
                    if now.round == round && round.is_query() =>
                {
                    now.released = Some((Interrupted { updates, plan, aggregate }, Out::Answers(answers)));
                }
                (Entry::Asked(record), Some(now)) if now.round == record.round.query() => {
                    records.pop();
                    records.push(RoundRecord::clone(record));
                    open = None;
                }
                (Entry::Closed(record), Some(now)) if now.round == record.round => {
                    if record.outcome != OutcomeKind::Aborted {
                        state = released_state.take();
                    }
                    records.push(RoundRecord::clone(record));
                    open = None;
                }
                _ => return wrong("it does not follow from the line before"),
            }
        }
        if open.as_ref().is_some_and(|open| matches!(open.released, Some((_, Out::Model(_))))) {
            state = released_state;
        }
        Ok(History { records, unfinished: open, state })
    }

    /// The model of this digest; the federation's own needs no file.
    fn model(&self, sha256: &str, federation: &Federation) -> Result<Vec<f32>, JournalError> {
        if federation.model_digest().to_string() == sha256 {
            return Ok(federation.model().to_vec());
        }
        let path = self.directory.join(model_file(sha256));
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        let model: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        if Digest::of(&bytes).to_string() == sha256 { Ok(model) } else { Err(JournalError::Damage { path }) }
    }

    fn state(&self, sha256: &str) -> Result<ServerState, JournalError> {
        let path = self.directory.join(state_file(sha256));
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        match ServerState::from_bytes(&bytes) {
            Ok(state) if Digest::of(&bytes).to_string() == sha256 => Ok(state),
            _ => Err(JournalError::Damage { path }),
        }
    }

    fn forget_all_but(&self, model_sha256: &str) -> Result<(), JournalError> {
        let model = model_file(model_sha256);
        let state = self.state.as_deref().map(state_file);
        let is_old = |name: &str| {
            name.starts_with(MODEL) && name != model
                || name.starts_with(STATE) && Some(name) != state.as_deref()
        };
        for entry in fs::read_dir(&self.directory).map_err(self.failed("read"))? {
            let name = entry.map_err(self.failed("read"))?.file_name();
            if name.to_str().is_some_and(is_old) {
                fs::remove_file(self.directory.join(name)).map_err(self.failed("tidy"))?;
            }
        }
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> JournalError + use<> {
        failed(action, &self.directory.join(JOURNAL))
    }
}

/// Why rounds cannot be kept, or gone on from.
#[derive(Debug, Error)]
pub enum JournalError {
    /// A file does not read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// At which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A private file does not write.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not what belongs there.
    #[error("line {line} of `{JOURNAL}` is damaged: {reason}")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A model or a state is not the one that was written.
    #[error("{} is damaged: it has another digest than its name says", path.display())]
    Damage {
        /// Its file.
        path: PathBuf,
    },
    /// The ledger cannot be continued.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The federation cannot go on from there.
    #[error("the journal does not belong to this experiment: {0}")]
    Federation(#[from] FederationError),
}

/// A model in the bytes that travel and are kept: little-endian f32.
pub(crate) fn on_the_wire(model: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * model.len());
    for parameter in model {
        bytes.extend_from_slice(&parameter.to_le_bytes());
    }
    bytes
}

fn model_file(sha256: &str) -> String {
    format!("{MODEL}{sha256}")
}

fn state_file(sha256: &str) -> String {
    format!("{STATE}{sha256}")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_path_buf();
    move |source| JournalError::Io { action, path, source }
}

const JOURNAL: &str = "journal.jsonl";
const MODEL: &str = "model-";
const STATE: &str = "state-";

#[cfg(test)]
mod tests;
