//! The audit of a ledger: everything that can be recomputed is, from the file alone.
//!
//! No clock, socket or key of the server is needed. What the ledger itself keeps (its [`State`](crate::ledger::State)) says which record may
//! follow which; everything that is a number is computed here anew, epsilons by two accountants.
//!
//! | question | answered by |
//! | --- | --- |
//! | has a record been changed, dropped, doubled or moved? | checksums, numbers, hash chain, signatures |
//! | is this the ledger that somebody saw before? | a checkpoint, or the one inside a model file |
//! | was anything released that was not charged? | pairs of reserve and settle, the path of model digests |
//! | is epsilon what it says? | all of them recomputed, or bounded between some that are |
//! | was the limit kept? | the same |

mod claims;
mod participation;
mod reading;
mod report;
mod sealed;
mod store;
mod together;

use crate::quantities::{Delta, Epsilon};

use super::ledger::{Hash, PublicKey};
pub use participation::audit_participation;
pub use report::{
    Checked, Epoch, Finding, History, Keyed, Kind, Moment, Part, Report, Rollback, Summed, Verdict,
};
pub use sealed::audit_sealed;
pub use store::{Participated, audit_store};
pub use together::{Together, together};

/// What an auditor has beside the ledger.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The keys that the ledger may be signed by at its beginning; none: the one in its first record is believed.
    pub keys: Vec<PublicKey>,
    /// Signed checkpoints that were kept, with what they are called.
    pub checkpoints: Vec<(String, String)>,
    /// What a model file says.
    pub model: Option<ModelClaim>,
    /// Check every signature, instead of the last of each key.
    pub every_signature: bool,
    /// Recompute every epsilon, instead of some with bounds on the rest.
    pub every_claim: bool,
}

/// What a model file says about its model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelClaim {
    /// The digest of the parameters in the file.
    pub digest: Hash,
    /// Epsilon against recipients; none where the file promises nothing.
    pub epsilon: Option<Epsilon>,
    /// The delta of it.
    pub delta: Option<Delta>,
    /// The checkpoint of the ledger after the release.
    pub checkpoint: Option<String>,
}

/// Audits the ledger whose file holds `contents`.
#[must_use]
pub fn audit(contents: &[u8], given: &Given) -> Report {
    let read = reading::read(contents, given);
    claims::check(read, given)
}

/// The same for a file that nobody needs afterwards: its memory is free before the epsilons take theirs.
#[must_use]
pub fn audit_file(contents: Vec<u8>, given: &Given) -> Report {
    let read = reading::read(&contents, given);
    drop(contents);
    claims::check(read, given)
}
