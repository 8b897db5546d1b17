//! Training by a program of the owner's: a script in any language takes part.
//!
//! The program gets the model on standard input and gives the trained one on standard output, both in the same [`Format`], and
//! nothing else.
//! How it trains is up to it; what the federation asks for is in its environment. Clipping, noise and secure aggregation come
//! behind it, so it is trusted with the data and the model and with nothing else.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use skep_learning::{
    Architecture, Batch, Evaluation, LearnError, Learner, ModelFile, Subset, TrainReport, Training, Turn,
    canonical_bytes, torch,
};
use skep_protocol::experiment::Task;

use crate::task::{self, TaskError};
use crate::trainer::MakeLearner;

/// How a model passes between a client and its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Flat parameters as little-endian `f32`, in the layout of [`Architecture::segments`].
    Flat,
    /// A safetensors file with the names and shapes of PyTorch: see [`torch`].
    Safetensors,
}

impl Format {
    fn encode(self, architecture: &Architecture, parameters: &[f32]) -> Result<Vec<u8>, String> {
        match self {
            Format::Flat => Ok(canonical_bytes(parameters)),
            Format::Safetensors => ModelFile::new(architecture.clone(), parameters.to_vec(), BTreeMap::new())
                .map_err(|error| error.to_string())?
                .encode_for_pytorch()
                .map_err(|error| format!("the model cannot be given to it as safetensors: {error}")),
        }
    }

    /// The longest answer that can be right, where the model went out in `sent` bytes: headers differ.
    fn longest(self, sent: usize) -> usize {
        match self {
            Format::Flat => sent,
            Format::Safetensors => sent + HEADER,
        }
    }

    fn decode(self, architecture: &Architecture, bytes: &[u8]) -> Result<Vec<f32>, String> {
        match self {
            Format::Flat => {
                let (given, wanted) = (bytes.len(), architecture.parameter_count() * size_of::<f32>());
                if given != wanted {
                    return Err(format!("it gives {given} bytes, not the {wanted} of the model"));
                }
                let (values, _) = bytes.as_chunks();
                Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
            }
            Format::Safetensors => torch::from_safetensors(architecture, bytes)
                .map_err(|error| format!("it gives {} bytes, and {error}", bytes.len())),
        }
    }
}

/// How the program is called.
#[derive(Clone, Debug)]
pub struct TrainCommand {
    /// The program and its arguments, as a shell reads them.
    pub command: String,
    /// What `SKEP_DATA` is in its environment: where the data are.
    pub data: String,
    /// How the model goes to it, and comes back.
    pub format: Format,
    /// After that it is killed, and the client declines the round.
    pub timeout: Duration,
}

impl TrainCommand {
    /// Makes the learners of a client that trains by this command.
    pub fn learners(self) -> MakeLearner {
        Arc::new(move |task| Ok(Box::new(CommandLearner::new(self.clone(), task)?)))
    }
}

/// Trains by a program, and evaluates as usual.
struct CommandLearner {
    program: TrainCommand,
    task: Task,
    architecture: Architecture,
    evaluator: Box<dyn Learner>,
}

impl CommandLearner {
    fn new(program: TrainCommand, task: &Task) -> Result<Self, TaskError> {
        if task.tuning.is_some() {
            return Err(TaskError::PartByCommand);
        }
        let (architecture, evaluator) = (task::architecture(task), task::learner_for(task)?);
        Ok(CommandLearner { program, task: task.clone(), architecture, evaluator })
    }

    fn start(&self, training: &Training) -> std::io::Result<Child> {
        let batch = match training.batch() {
            Batch::Full => "full".to_owned(),
            Batch::Size(size) | Batch::InOrder(size) => size.to_string(),
        };
        Command::new("sh")
            .args(["-c", &format!("exec {}", self.program.command)])
            .env("SKEP_DATA", &self.program.data)
            .env("SKEP_TASK", &self.task.name)
            .env("SKEP_PARAMETERS", self.parameter_count().to_string())
            .env("SKEP_LEARNING_RATE", training.learning_rate().to_string())
            .env("SKEP_LOCAL_EPOCHS", training.local_epochs().to_string())
            .env("SKEP_BATCH_SIZE", batch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
    }

    /// The trained parameters.
    fn run(&self, global: &[f32], training: &Training) -> Result<Vec<f32>, String> {
        let (until, format) = (Instant::now() + self.program.timeout, self.program.format);
        let model = format.encode(&self.architecture, global)?;
        let longest = format.longest(model.len());
        let mut child = self.start(training).map_err(|error| format!("it does not start: {error}"))?;
        let answer = converse(&mut child, model, longest, until);
        if answer.is_err() {
            // It may have ended by itself.
            let _ = child.kill();
        }
        let status = ended(&mut child, until);
        let bytes = match (answer, status) {
            (Err(Silent::Late), _) | (Ok(_), Ok(None)) => {
                Err(format!("it took longer than {} s", self.program.timeout.as_secs_f64()))
            }
            (_, Err(error)) => Err(format!("it cannot be waited for: {error}")),
            (Err(Silent::Broken(error)), _) => Err(format!("its answer cannot be read: {error}")),
            (Err(Silent::TooLong), _) => Err(format!("it gives more than the {longest} bytes of the model")),
            (Ok(_), Ok(Some(status))) if !status.success() => Err(format!("it ended with {status}")),
            (Ok(bytes), Ok(Some(_))) => Ok(bytes),
        }?;
        format.decode(&self.architecture, &bytes)
    }
}

impl Learner for CommandLearner {
    fn parameter_count(&self) -> usize {
        self.evaluator.parameter_count()
    }

    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError> {
        let (expected, actual) = (self.parameter_count(), global.len());
        if expected != actual {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        if turn.correction.is_some() {
            let reason =
                "this federation corrects every step of the training, which a program cannot be asked for";
            return Err(LearnError::Command(reason.to_owned()));
        }
        let trained = self.run(global, training).map_err(LearnError::Command)?;
        if !trained.iter().all(|value| value.is_finite()) {
            return Err(LearnError::Command("it gives numbers that are not finite".to_owned()));
        }
        let loss = self.evaluator.evaluate(&trained, data)?.loss;
        let update: Vec<f32> = trained.iter().zip(global).map(|(new, old)| new - old).collect();
        Ok(TrainReport { update, examples: data.len(), steps: 0, loss })
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.evaluator.evaluate(parameters, data)
    }
}

/// Why a program gave no model.
enum Silent {
    Late,
    TooLong,
    Broken(std::io::Error),
}

/// Sends the model while the answer is read, of which no more is kept than can be right.
fn converse(child: &mut Child, model: Vec<u8>, wanted: usize, until: Instant) -> Result<Vec<u8>, Silent> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (answer, answered) = mpsc::channel();
    // Neither thread is waited for: a grandchild may keep the pipes open for as long as it likes.
    thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program that knows better need not read the model.
            let _ = stdin.write_all(&model);
        }
    });
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = match stdout {
            Some(stdout) => stdout.take(wanted as u64 + 1).read_to_end(&mut bytes),
            None => Err(ErrorKind::BrokenPipe.into()),
        };
        let _ = answer.send(read.map(|_| bytes));
    });
    match answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) if bytes.len() > wanted => Err(Silent::TooLong),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Silent::Broken(error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Silent::Late),
    }
}

/// How the program ended; `None`, and it is killed, when it does not until then.
fn ended(child: &mut Child, until: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// More bytes than names and shapes take.
const HEADER: usize = 1 << 16;
/// Between two looks whether the program has ended, after it has closed its output.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
