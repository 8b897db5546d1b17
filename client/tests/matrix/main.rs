//! Every way in which a server can misbehave or vanish, at every phase of a client's session, over TLS on loopback. Each
//! cell ends in a state that has a name: the client comes back and finishes its round, declines it, goes on to the next,
//! or ends with an error that says why. None leaves it waiting.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod masked;
mod plain;
#[path = "../support/mod.rs"]
mod support;

use support::server::Session;
use tokio::task::JoinSet;

/// Ends the server's side of a session, with a goodbye or without; a silent one is kept.
async fn leave(session: Session, silent: bool, goodbye: bool) -> Option<Session> {
    if silent {
        return Some(session);
    }
    if goodbye {
        session.connection.sink.close().await.unwrap();
    }
    None
}

/// Plays the cells, all at once, until each has ended, and says how many there were.
async fn side_by_side(cells: impl Iterator<Item: Future<Output = ()> + Send + 'static>) -> usize {
    let mut cells: JoinSet<()> = cells.collect();
    let count = cells.len();
    while let Some(ended) = cells.join_next().await {
        ended.unwrap();
    }
    count
}
