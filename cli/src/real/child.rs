//! What both kinds of children do: read their bootstrap, report, and end with their launcher.

use std::io::{self, BufRead, Write};
use std::thread;

use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::bootstrap::Report;
use crate::failure::Failure;

/// The launcher, as seen by a child.
#[derive(Debug)]
pub(crate) struct Launcher(oneshot::Receiver<()>);

impl Launcher {
    /// Reads the one object that the launcher sends.
    ///
    /// # Errors
    /// [`Failure::Usage`] when something else comes, as when a person starts a child by hand.
    pub(crate) fn meet<T: DeserializeOwned>() -> Result<(T, Launcher), Failure> {
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().read_line(&mut line).map_err(Failure::other)?;
        let bootstrap = serde_json::from_str(&line).map_err(|error| {
            Failure::configuration(format!("this command is started by `skep simulate --real`: {error}"))
        })?;
        let (gone, launcher) = oneshot::channel();
        // A thread of its own, which the end of the process does not wait for.
        thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            drop(gone);
        });
        Ok((bootstrap, Launcher(launcher)))
    }

    /// Waits until the launcher asks for an end, which it does by closing the pipe, or by ending itself.
    pub(crate) async fn gone(self) {
        let _ = self.0.await;
    }
}

/// Tells the launcher, and says whether it is there to hear it. When it is gone the child ends by [`Launcher::gone`].
pub(crate) fn tell(report: &Report) -> bool {
    let Ok(mut line) = serde_json::to_vec(report) else { return false };
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line).and_then(|()| output.flush()).is_ok()
}

/// Runs a child, whose failure is told to the launcher.
///
/// # Errors
/// The child's [`Failure`].
pub(crate) fn run(child: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let result = crate::serve::runtime()?.block_on(async {
        // The interrupt key reaches all processes of a terminal; the launcher decides what it means.
        tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
        child.await
    });
    if let Err(failure) = &result {
        tell(&Report::Failed { code: failure.exit_code(), message: failure.to_string() });
    }
    result
}
