//! A server and clients that run beside a test.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Transcript, command, path, skep};

/// Far longer than anything takes, so that a test that hangs ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A directory with an experiment, a server's state and its results.
pub(crate) struct Site {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) file: PathBuf,
    port: u16,
}

/// A process whose standard error is read by the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    err: BufReader<ChildStderr>,
    seen: String,
}

impl Site {
    /// With the experiment in which the server adds the noise, changed.
    pub(crate) fn new(changes: &[(&str, &str)]) -> Self {
        Site::with(|directory| super::central(directory, changes))
    }

    /// With an experiment of one's own, and its data.
    pub(crate) fn with(experiment: impl FnOnce(&Path) -> PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = experiment(directory.path());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Site { directory, file, port: free.local_addr().unwrap().port() }
    }

    /// Where its server listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a server, always on the same port, and waits until it listens.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Running {
        let all = self.serving();
        let all: Vec<&str> = all.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        let mut server = Running::start(&all);
        server.until("listening on");
        server
    }

    /// The arguments of that.
    pub(crate) fn serving(&self) -> Vec<String> {
        let (state, out, listen) = (self.path("state"), self.path("out"), self.address());
        ["serve", path(&self.file), "--listen", &listen, "--state", path(&state), "--out", path(&out)]
            .map(str::to_owned)
            .into()
    }

    pub(crate) fn invite(&self, arguments: &[&str]) -> Transcript {
        skep(&[&["invite", "--state", path(&self.path("state"))], arguments].concat())
    }

    /// Starts client `number` of `all`, with a new invitation, and waits until it is somebody.
    pub(crate) fn join(&self, number: usize, all: usize, arguments: &[&str]) -> Running {
        self.join_with(&[&[self.invitation().as_str()], arguments].concat(), number, all)
    }

    /// Starts client `number` with these arguments.
    pub(crate) fn join_with(&self, arguments: &[&str], number: usize, all: usize) -> Running {
        let (state, part) = (self.path(&format!("client-{number}")), format!("digits:{number}/{all}"));
        Running::start(&[&["join", "--data", &part, "--state", path(&state)], arguments].concat())
    }

    /// A new invitation.
    pub(crate) fn invitation(&self) -> String {
        let Transcript { code, out, err } = self.invite(&[]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(out.lines().count(), 1);
        out.trim().to_owned()
    }

    /// What a command about the server's state prints as JSON.
    pub(crate) fn json(&self, name: &str) -> Value {
        let Transcript { code, out, err } =
            skep(&[name, "--state", path(&self.path("state")), "--output", "json"]);
        assert_eq!(code, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// Waits until what a command prints as JSON is as it should be.
    pub(crate) fn wait_for(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.json(name);
            if is_so(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{name}: {value}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The rounds in the results.
    pub(crate) fn rounds(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("out/rounds.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Running::of(&mut command(arguments))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Running { child, err, seen: String::new() }
    }

    /// Reads standard error until it holds `text`.
    pub(crate) fn until(&mut self, text: &str) {
        assert!(self.says(text), "no {text:?} came:\n{}", self.seen);
    }

    /// Likewise; false when it ends before.
    pub(crate) fn says(&mut self, text: &str) -> bool {
        while !self.seen.contains(text) {
            if self.err.read_line(&mut self.seen).unwrap() == 0 {
                return false;
            }
        }
        true
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Transcript {
        self.err.read_to_string(&mut self.seen).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Transcript { err: self.seen, ..super::transcript(output) }
    }
}

/// A client's state in what `skep clients` prints.
pub(crate) fn state_of(clients: &Value, number: usize) -> &str {
    clients[number]["state"].as_str().unwrap()
}
