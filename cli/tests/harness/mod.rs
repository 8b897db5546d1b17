//! Running the command as a person does: arguments in; exit code, standard output and standard error out.
#![allow(dead_code, reason = "every test file uses its own part")]

pub(crate) mod browser;
pub(crate) mod flowers;
pub(crate) mod random;
pub(crate) mod readable;
pub(crate) mod running;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The built-in experiment.
pub(crate) const DIGITS: &str = include_str!("../../src/digits.toml");

/// The same where the server adds the noise, so that two clients suffice.
pub(crate) const CENTRAL: &str = include_str!("../../../simulations/experiments/digits-central.toml");

/// What a command left behind.
pub(crate) struct Transcript {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that is about to run, without a terminal.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    command.args(arguments).stdin(Stdio::null());
    // What the tester's machine says about its own network and logs.
    for name in ["SKEP_LOG", "SKEP_LOG_FORMAT", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub(crate) fn skep(arguments: &[&str]) -> Transcript {
    transcript(command(arguments).output().expect("the command starts"))
}

pub(crate) fn transcript(output: Output) -> Transcript {
    let text = |bytes| String::from_utf8(bytes).expect("the command writes UTF-8");
    Transcript {
        code: output.status.code().expect("not killed"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Writes the built-in experiment with a change, which must change something.
pub(crate) fn changed(directory: &Path, changes: &[(&str, &str)]) -> PathBuf {
    written(directory, DIGITS, changes)
}

/// Writes the experiment in which the server adds the noise, with a change.
pub(crate) fn central(directory: &Path, changes: &[(&str, &str)]) -> PathBuf {
    written(directory, CENTRAL, changes)
}

fn written(directory: &Path, text: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = text.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "the file has {from:?}");
        text = text.replacen(from, to, 1);
    }
    let path = directory.join("experiment.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A small and fast variant: ten clients, three rounds.
pub(crate) const SMALL: [(&str, &str); 5] = [
    ("clients = 100", "clients = 10"),
    ("count = 60", "count = 3"),
    ("min_updates = 90", "min_updates = 8"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
    ("max_corrupt_fraction = 0.05", "max_corrupt_fraction = 0.1"),
];

/// The same of [`CENTRAL`].
pub(crate) const SMALL_CENTRAL: [(&str, &str); 4] = [
    ("clients = 100", "clients = 10"),
    ("count = 60", "count = 3"),
    ("min_updates = 50", "min_updates = 5"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
];

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
