//! What the allocator is told.
//!
//! mimalloc reads its settings from the environment before `main` begins, and there is no safe way to change them later. So a
//! process that wants others than it was started with starts itself again, in its own place.

use std::env;
use std::process::Command;

/// Settings by the names of their variables.
pub type Settings = &'static [(&'static str, &'static str)];

/// What is free is given back at once: half the memory of a client, which has large vectors for a small part of a round.
pub const CLIENT: Settings = &[("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
/// Memory is taken piece by piece: two thirds of what a server has otherwise, for no time. To give back at once would cost it a third more
/// processor time.
pub const SERVER: Settings = &[("MIMALLOC_ARENA_EAGER_COMMIT", "0")];

/// Sees to it that the process runs with these settings. If whoever started it has set any of them, that is theirs.
pub fn set(settings: Settings) {
    if settings.is_empty() || settings.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    // Where the program cannot be started again it goes on as it is: all works, with more memory.
    if let (Ok(program), mut words) = (env::current_exe(), env::args_os()) {
        let name = words.next().unwrap_or_else(|| "skep".into());
        restart(Command::new(program).args(words).envs(settings.iter().copied()), &name);
    }
}

#[cfg(unix)]
fn restart(command: &mut Command, name: &std::ffi::OsStr) {
    use std::os::unix::process::CommandExt;
    // Returns only if it fails.
    let _ = command.arg0(name).exec();
}

#[cfg(not(unix))]
fn restart(_: &mut Command, _: &std::ffi::OsStr) {}
