//! Ctrl-C and termination: the first asks a run to end with what it has, the second ends the process.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime;
use tokio::sync::Notify;

use crate::failure::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static NOTICE: Notify = Notify::const_new();
static LISTENING: OnceLock<()> = OnceLock::new();

/// The flag that is set when the user interrupts; from the first call on the process no longer ends by itself.
///
/// # Errors
/// [`Failure::Other`] when the system does not let us listen.
pub(crate) fn flag() -> Result<&'static AtomicBool, Failure> {
    if LISTENING.set(()).is_ok() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(listen()))
            .map_err(Failure::other)?;
    }
    Ok(&INTERRUPTED)
}

/// Asks the run to end, as the user's first interruption does.
pub(crate) fn end() {
    INTERRUPTED.store(true, Ordering::Relaxed);
    NOTICE.notify_waiters();
}

/// Waits until the user interrupts; [`flag`] must have been called.
pub(crate) async fn wait() {
    loop {
        let noticed = NOTICE.notified();
        if INTERRUPTED.load(Ordering::Relaxed) {
            return;
        }
        noticed.await;
    }
}

async fn listen() {
    while signal().await.is_ok() {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        NOTICE.notify_waiters();
        eprintln!("interrupted: ending with the rounds that are done; once more to end at once");
    }
}

/// Waits for Ctrl-C or a request to terminate.
///
/// # Errors
/// [`io::Error`] when the system does not let us listen.
#[cfg(unix)]
pub(crate) async fn signal() -> io::Result<()> {
    use tokio::signal::unix;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// Waits for Ctrl-C.
///
/// # Errors
/// [`io::Error`] when the system does not let us listen.
#[cfg(not(unix))]
pub(crate) async fn signal() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
