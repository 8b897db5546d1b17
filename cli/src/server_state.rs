//! What the command keeps in a server's state directory, beside what `skep-server` keeps there.
//!
//! `addresses.json` holds where clients reach the server, as `skep serve` last said; `skep invite` reads it. `served` says
//! that a federation has run.

use std::io::ErrorKind;
use std::path::Path;

use skep_protocol::net::files;
use skep_protocol::net::invitation::Address;

use crate::failure::Failure;

/// Writes down where clients reach the server.
///
/// # Errors
/// [`Failure::Other`] when the file cannot be written.
pub(crate) fn remember_addresses(state: &Path, addresses: &[Address]) -> Result<(), Failure> {
    let json = serde_json::to_vec(addresses).map_err(Failure::other)?;
    files::replace(&state.join(ADDRESSES), &json).map_err(Failure::other)
}

/// Where clients reach the server, as it last said.
///
/// # Errors
/// [`Failure::Usage`] when it never said so, [`Failure::Other`] when the file is damaged.
pub(crate) fn addresses(state: &Path) -> Result<Vec<Address>, Failure> {
    let path = state.join(ADDRESSES);
    match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|error| Failure::Other(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::Usage {
            problem: format!("{} does not say where the server listens", state.display()),
            help: Some("start `skep serve` with this state first, or say --address HOST:PORT".to_owned()),
        }),
        Err(error) => Err(Failure::file(path, error)),
    }
}

/// Notes that a federation is served from this state, and says whether one was before: what that one cost in privacy is
/// not in the next one's epsilon.
///
/// # Errors
/// [`Failure::Other`] when the note cannot be written.
pub(crate) fn note_start(state: &Path) -> Result<bool, Failure> {
    let note = state.join(SERVED);
    let before = note.exists();
    files::replace(&note, b"").map_err(Failure::other)?;
    Ok(before)
}

const SERVED: &str = "served";
const ADDRESSES: &str = "addresses.json";
