//! A simulation on disk, between two rounds: what a later process goes on from, bit for bit.
//!
//! The file is a line of JSON and the model behind it. It holds the root of every secret draw, so it is for its owner
//! alone and ends with the run. A thread writes it while the next rounds run; a round that ends before there is time to
//! is in the next checkpoint. Rounds after the last one are run again, with the same draws and the same result, see
//! [`skep_server::ledger::resumed`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_client::masking::Masks;
use skep_privacy::ledger::Hash;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::net::files::{self, FileError};
use skep_protocol::{Digest, Round, Time};
use skep_server::federation::Federation;
use skep_server::ledger::Mark;
use skep_server::record::RoundRecord;
use skep_server::strategy::ServerState;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::memory::ClientMemory;

/// Where checkpoints of a simulation are written.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    /// The file.
    pub path: PathBuf,
    /// Files that a checkpoint counts on, and that are on disk before it: the ledger, the rounds.
    pub before: Vec<PathBuf>,
    /// The seed of the run's root, if others know it.
    pub seed: Option<u64>,
}

/// A simulation between two rounds.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    root: Key,
    round: Round,
    pub(crate) now: Time,
    pub(crate) ledger: Mark,
    pub(crate) masks: Masks,
    pub(crate) model: Arc<Vec<f32>>,
    /// What the strategy keeps beside the model.
    pub(crate) strategy: ServerState,
    /// What clients keep.
    pub(crate) memory: ClientMemory,
    /// Who trains at its own pace; empty where nobody does.
    pub(crate) buffer: Arc<Vec<u8>>,
}

/// What a simulation goes on from.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Where it was.
    pub checkpoint: Checkpoint,
    /// Its rounds up to there.
    pub records: Vec<RoundRecord>,
}

/// Why there is no checkpoint to go on from, or to write.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file does not read or write.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be replaced.
    #[error("{0}: {source}", source = .0.source)]
    Replace(#[from] FileError),
    /// The file is damaged.
    #[error("{}: this is no whole checkpoint: {reason}; start anew, without --resume", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is of another run.
    #[error("{}: this checkpoint is of another run: {difference}; go on with what it was begun with, or start anew, without --resume", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The thread that writes ended: a bug.
    #[error("the thread that writes checkpoints has ended, which is a bug")]
    Ended,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    skep: String,
    seed: Option<u64>,
    experiment: Value,
    root: String,
    round: u64,
    now_ms: u64,
    ledger_records: u64,
    ledger_last: String,
    masks: Masks,
    model_bytes: u64,
    strategy_bytes: u64,
    memory_bytes: u64,
    sha256: String,
}

impl Checkpoint {
    /// Where `federation` is now, at this virtual time.
    pub(crate) fn of(
        federation: &Federation,
        root: &Key,
        now: Time,
        masks: Masks,
        memory: ClientMemory,
        buffer: Vec<u8>,
    ) -> Self {
        Checkpoint {
            memory,
            buffer: Arc::new(buffer),
            root: root.clone(),
            round: federation.round(),
            now,
            ledger: Mark::of(federation.ledger()),
            masks,
            model: federation.model(),
            strategy: federation.state().clone(),
        }
    }

    /// The last round that has ended, which is how many have.
    pub fn round(&self) -> Round {
        self.round
    }

    /// The root of the run's secret draws.
    pub fn root(&self) -> &Key {
        &self.root
    }

    /// Reads the checkpoint at `path`, which must be of this experiment and seed; `None` if there is none.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(
        path: &Path,
        experiment: &Experiment,
        seed: Option<u64>,
    ) -> Result<Option<Self>, CheckpointError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::File { path: path.to_owned(), source }),
        };
        let damaged =
            |reason: &str| CheckpointError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let end =
            bytes.iter().position(|&byte| byte == b'\n').ok_or_else(|| damaged("it has no first line"))?;
        let (line, body) = (&bytes[..end], &bytes[end + 1..]);
        let value: Value = serde_json::from_slice(line).map_err(|error| damaged(&error.to_string()))?;
        if let Some(difference) = difference(&value, experiment, seed) {
            return Err(CheckpointError::Other { path: path.to_owned(), difference });
        }
        let header: Header = serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))?;
        if Digest::of(body).to_string() != header.sha256 {
            return Err(damaged("the model is not the one that was written"));
        }
        let part = |body: &[u8], len: u64, name: &str| -> Result<usize, CheckpointError> {
            let len = usize::try_from(len).ok().filter(|&len| len <= body.len());
            len.ok_or_else(|| damaged(&format!("{name} cut short")))
        };
        let (model, body) = body.split_at(part(body, header.model_bytes, "the model is")?);
        let (strategy, body) = body.split_at(part(body, header.strategy_bytes, "the strategy's state is")?);
        let (memory, buffer) = body.split_at(part(body, header.memory_bytes, "what clients keep is")?);
        let key = |text: &str| -> Option<[u8; 32]> { HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok() };
        let last = key(&header.ledger_last).ok_or_else(|| damaged("it names no place in a ledger"))?;
        Ok(Some(Checkpoint {
            root: key(&header.root).map(Key::from_bytes).ok_or_else(|| damaged("it has no root"))?,
            round: Round(header.round),
            now: Time::from_millis(header.now_ms),
            ledger: Mark { records: header.ledger_records, last: Hash(last) },
            masks: header.masks,
            model: Arc::new(model.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()),
            strategy: ServerState::from_bytes(strategy).map_err(|error| damaged(&error.to_string()))?,
            memory: ClientMemory::from_bytes(memory).map_err(|error| damaged(&error.to_string()))?,
            buffer: Arc::new(buffer.to_vec()),
        }))
    }

    fn encode(&self, experiment: &Value, seed: Option<u64>) -> Zeroizing<Vec<u8>> {
        let model: Vec<u8> = self.model.iter().flat_map(|parameter| parameter.to_le_bytes()).collect();
        let (strategy, memory) = (self.strategy.to_bytes(), self.memory.to_bytes());
        let [model_bytes, strategy_bytes, memory_bytes] =
            [&model, &strategy, &memory].map(|part| part.len() as u64);
        let body = [model.as_slice(), &strategy, &memory, &self.buffer].concat();
        let header = Header {
            skep: VERSION.to_owned(),
            seed,
            experiment: experiment.clone(),
            root: HEXLOWER.encode(self.root.expose()),
            round: self.round.0,
            now_ms: self.now.as_millis(),
            ledger_records: self.ledger.records,
            ledger_last: self.ledger.last.to_string(),
            masks: self.masks,
            model_bytes,
            strategy_bytes,
            memory_bytes,
            sha256: Digest::of(&body).to_string(),
        };
        let mut bytes = serde_json::to_vec(&header).expect("texts and numbers");
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Zeroizing::new(bytes)
    }
}

/// What keeps a run from going on where another was stopped: version, seed, or the first key that differs.
fn difference(header: &Value, experiment: &Experiment, seed: Option<u64>) -> Option<String> {
    let told = |seed: &Value| seed.as_u64().map_or("no --seed".to_owned(), |seed| format!("--seed {seed}"));
    if header["skep"] != VERSION {
        return Some(format!("it was written by skep {}, and this is skep {VERSION}", header["skep"]));
    }
    if header["seed"] != Value::from(seed) {
        return Some(format!("it was begun with {}, not with {}", told(&header["seed"]), told(&seed.into())));
    }
    differing(&header["experiment"], &described(experiment), String::new())
        .map(|(key, there, here)| format!("`{key}` is {there} there, and {here} in the experiment file"))
}

fn differing(there: &Value, here: &Value, key: String) -> Option<(String, String, String)> {
    let (Value::Object(one), Value::Object(other)) = (there, here) else {
        let told = |value: &Value| if value.is_null() { "absent".to_owned() } else { value.to_string() };
        return (there != here).then(|| (key, told(there), told(here)));
    };
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names.into_iter().find_map(|name| {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        differing(&there[name], &here[name], key)
    })
}

fn described(experiment: &Experiment) -> Value {
    serde_json::to_value(ExperimentFile::from(experiment)).expect("what is read from text is written as text")
}

/// Writes checkpoints beside the simulation.
#[derive(Debug)]
pub(crate) struct Keeper {
    queue: Option<SyncSender<Box<Checkpoint>>>,
    thread: Option<JoinHandle<Result<(), CheckpointError>>>,
}

impl Keeper {
    /// Writes the `first` checkpoint of a run and returns when it is on disk.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub(crate) fn start(
        checkpoints: Checkpoints,
        experiment: &Experiment,
        first: &Checkpoint,
    ) -> Result<Self, CheckpointError> {
        let experiment = described(experiment);
        checkpoints.write(first, &experiment)?;
        let (queue, due): (_, Receiver<Box<Checkpoint>>) = sync_channel(1);
        let thread =
            thread::spawn(move || due.iter().try_for_each(|due| checkpoints.write(&due, &experiment)));
        Ok(Keeper { queue: Some(queue), thread: Some(thread) })
    }

    /// Writes a checkpoint soon, or leaves it out while others are being written.
    ///
    /// # Errors
    /// [`CheckpointError`], of an earlier checkpoint.
    pub(crate) fn keep(&mut self, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
        match self.queue.as_ref().map(|queue| queue.try_send(Box::new(checkpoint))) {
            Some(Ok(()) | Err(TrySendError::Full(_))) => Ok(()),
            Some(Err(TrySendError::Disconnected(_))) | None => self.end(),
        }
    }

    /// Returns when the `last` checkpoint is on disk.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub(crate) fn finish(mut self, last: Checkpoint) -> Result<(), CheckpointError> {
        // Nobody receives it only where the thread has ended, which says why.
        let _ = self.queue.as_ref().map(|queue| queue.send(Box::new(last)));
        self.end()
    }

    fn end(&mut self) -> Result<(), CheckpointError> {
        self.queue = None;
        let thread = self.thread.take().ok_or(CheckpointError::Ended)?;
        thread.join().map_err(|_| CheckpointError::Ended)?
    }
}

impl Drop for Keeper {
    /// No file is written by a simulation that is over.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Checkpoints {
    fn write(&self, checkpoint: &Checkpoint, experiment: &Value) -> Result<(), CheckpointError> {
        for path in &self.before {
            let failed = |source| CheckpointError::File { path: path.clone(), source };
            File::open(path).and_then(|file| file.sync_data()).map_err(failed)?;
        }
        Ok(files::replace(&self.path, &checkpoint.encode(experiment, self.seed))?)
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use skep_protocol::ClientId;

    use super::*;
    use crate::testing::experiment;

    fn checkpoint() -> Checkpoint {
        let mut memory = ClientMemory::default();
        memory.keep(ClientId(5), vec![0.5, -1.0]);
        Checkpoint {
            root: Key::from_seed(7),
            round: Round(3),
            now: Time::from_millis(1234),
            ledger: Mark { records: 7, last: Hash([5; 32]) },
            masks: Masks { applied: 2, bytes_packed: 9 },
            model: Arc::new(vec![1.5, -0.0, f32::MIN_POSITIVE]),
            strategy: ServerState::default(),
            memory,
            buffer: Arc::new(vec![7, 8]),
        }
    }

    fn written(seed: Option<u64>) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint.skep");
        let checkpoints = Checkpoints { path: path.clone(), before: Vec::new(), seed };
        checkpoints.write(&checkpoint(), &described(&experiment())).unwrap();
        (directory, path)
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let (directory, path) = written(Some(7));
        let read = Checkpoint::read(&path, &experiment(), Some(7)).unwrap().unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", checkpoint()));
        assert_eq!(read.root.expose(), checkpoint().root.expose());
        let absent = Checkpoint::read(&directory.path().join("absent"), &experiment(), None).unwrap();
        assert!(absent.is_none());
    }

    #[test]
    fn a_checkpoint_of_another_run_is_refused_and_the_difference_named() {
        let (_directory, path) = written(Some(7));
        let refused = |experiment: &Experiment, seed| {
            Checkpoint::read(&path, experiment, seed).unwrap_err().to_string()
        };
        assert!(refused(&experiment(), None).contains("begun with --seed 7, not with no --seed"));
        let mut other = experiment();
        other.task.training.local_epochs = 6;
        let error = refused(&other, Some(7));
        assert!(error.contains("`task.training.local_epochs` is 5 there, and 6 in"), "{error}");
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        let header = text.lines().next().unwrap().replacen(VERSION, "0.0.1", 1);
        std::fs::write(&path, header + "\n").unwrap();
        assert!(refused(&experiment(), Some(7)).contains("written by skep \"0.0.1\""));
    }

    #[test]
    fn a_damaged_checkpoint_is_refused() {
        let (_directory, path) = written(None);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = Checkpoint::read(&path, &experiment(), None).unwrap_err();
            assert!(matches!(error, CheckpointError::Damaged { .. }), "{cut}: {error}");
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_ends_the_run() {
        let (directory, path) = written(None);
        let checkpoints = Checkpoints { path, before: vec![directory.path().join("absent")], seed: None };
        let error = Keeper::start(checkpoints, &experiment(), &checkpoint()).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
