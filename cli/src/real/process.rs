//! A child process, as seen by the launcher.

use std::process::Stdio;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use zeroize::Zeroizing;

use super::bootstrap::Report;
use crate::failure::Failure;

/// A child. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program again with `command`, and tells it what to do. `name` is what failures call
    /// it, `log` what it logs.
    ///
    /// # Errors
    /// [`Failure::Other`] when the system does not start it.
    pub(crate) async fn start(
        command: &str,
        name: &'static str,
        log: &str,
        bootstrap: &impl Serialize,
    ) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| Failure::Other(format!("{name} cannot be started: {error}"));
        let program = std::env::current_exe().map_err(cannot)?;
        let mut child = Command::new(program)
            .arg(command)
            .env("SKEP_LOG", log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let mut input = child.stdin.take();
        let reports =
            child.stdout.take().ok_or_else(|| Failure::Other(format!("{name} has no standard output")))?;
        let mut line = Zeroizing::new(serde_json::to_vec(bootstrap).map_err(Failure::other)?);
        line.push(b'\n');
        if let Some(input) = &mut input {
            input.write_all(&line).await.map_err(cannot)?;
            input.flush().await.map_err(cannot)?;
        }
        Ok(Process { name, child, input, reports: BufReader::new(reports).lines() })
    }

    /// The next report. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// The [`Failure`] that the child reports, or [`Failure::Other`] when it is gone without a report.
    pub(crate) async fn next(&mut self) -> Result<Report, Failure> {
        let line = self.reports.next_line().await.map_err(Failure::other)?;
        let Some(line) = line else { return Err(self.gone().await) };
        match serde_json::from_str(&line) {
            Ok(Report::Failed { code, message }) => {
                Err(Failure::from_exit_code(code, format!("{}: {message}", self.name)))
            }
            Ok(report) => Ok(report),
            Err(error) => Err(Failure::Other(format!("{} says what is no report: {error}", self.name))),
        }
    }

    /// The pipe whose closing asks the child to end.
    pub(crate) fn leash(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// What is out of turn.
    pub(crate) fn unexpected(&self, report: &Report) -> Failure {
        Failure::Other(format!("{} says what it should not yet: {report:?}", self.name))
    }

    async fn gone(&mut self) -> Failure {
        match self.child.wait().await {
            Ok(status) => Failure::Other(format!("{} ended without saying why: {status}", self.name)),
            Err(error) => Failure::Other(format!("{} is gone: {error}", self.name)),
        }
    }
}
