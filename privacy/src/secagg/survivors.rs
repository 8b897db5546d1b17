//! What survivors agree on before anybody reveals a share.

use std::collections::BTreeSet;

use ring::digest::{Context, SHA256};

use super::party::Party;
use super::session::{Session, digest};

/// The bytes that are signed: the digest of who shared its secrets and of who survived, under the session's context.
///
/// Both sets, so that a signature also says that two clients masked with the same neighbours in mind.
pub(super) fn agreed_text(
    session: &Session,
    shared: &BTreeSet<Party>,
    survivors: &BTreeSet<Party>,
) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    hash.update(session.context());
    for set in [shared, survivors] {
        hash.update(&(set.len() as u64).to_be_bytes());
        set.iter().for_each(|party| hash.update(&party.0.to_be_bytes()));
    }
    [&b"skep secagg survivors v1"[..], &digest(hash)].concat()
}
