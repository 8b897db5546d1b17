//! What the allocator is told.
//!
//! mimalloc reads its settings from the environment before `main` begins, and there is no safe way to change them later. So a
//! process that wants others than it was started with starts itself again, in its own place.

use std::env;
use std::process::Command;

/// Lets the allocator give memory back as soon as it is free: half the memory of a client, which has large vectors for a small part of
/// a round. If whoever started the process has set any of this, it is theirs.
pub fn give_back_at_once() {
    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    // Where the program cannot be started again it goes on as it is: all works, with more memory.
    if let (Ok(program), mut words) = (env::current_exe(), env::args_os()) {
        let name = words.next().unwrap_or_else(|| "skep".into());
        restart(Command::new(program).args(words).envs(SETTINGS), &name);
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

const SETTINGS: [(&str, &str); 2] = [("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
