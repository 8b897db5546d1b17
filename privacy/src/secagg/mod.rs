//! Secure aggregation: the server learns the sum of the clients' vectors modulo 2ᵇ, and nothing else.
//!
//! SecAgg+ (Bell, Bonawitz, Gascón, Lepoint and Raykova, ia.cr/2020/704) with the consistency check of Bonawitz et al.
//! (ia.cr/2017/281), against a server that lies. This module knows parties, numbers and bytes: who is connected, who has dropped
//! out and when a phase ends is for others to say.
//!
//! # Who says what
//!
//! ```text
//! client u                                     server                         types
//!
//! advertise ── C_u, S_u, H(b_u), P(u) ───────▶ Directory::accept              Advertised   Directory
//!           ◀── adverts of the neighbours ──── Mailbox::peers
//! share     ── {shares of b_u, s_u}_v  ──────▶ Mailbox::accept                Shared       Mailbox
//!           ◀── U2, envelopes for u ────────── Input::shared, inbox
//! receive, mask ── x_u + masks mod 2ᵇ ───────▶ Input::commit                  Paired       Input
//!           ◀── U3 ─────────────────────────── Consistency::survivors         Masked
//! sign      ── signature on (U2, U3) ────────▶ Consistency::accept            Signed       Consistency
//!           ◀── signatures of P(u) ─────────── Unmasking::consents
//! reveal    ── one share for each neighbour ─▶ Unmasking::accept                           Unmasking
//!                                              Unmasking::unmask              UnmaskedSum ─▶ Sum
//! ```
//!
//! 1. *Keys.* u draws a channel key, a seed s_u of its pair masks and a seed b_u of its own mask, picks k share-holders P(u)
//!    by its own randomness (everybody else, in the complete graph), and signs the public halves, the choice and a commitment to
//!    b_u. Its neighbours are P(u) and those who picked u.
//! 2. *Shares.* u shares s_u and b_u among P(u), t of k, each share encrypted for its holder. U2 is who did.
//! 3. *Input.* u adds to its vector its own mask and, for every neighbour in U2, a mask that only the two can compute: the smaller
//!    adds it, the larger subtracts it, so they cancel in the sum. U3 is whose vectors arrived, each as a whole.
//! 4. *Consistency.* Survivors sign U2 and U3. Nobody goes on without the signatures of t of its holders on the same sets.
//! 5. *Unmask.* For each client that u holds shares of it reveals one: of b_v if v survived, of s_v if not. The server
//!    opens the seeds, checks them against the adverts, and takes the masks out of the sum.
//!
//! A step of a client consumes the one before. A step of the server refuses single messages ([`Rejection`]) and goes on; a client
//! that refuses ([`Refusal`]) is out, and its secrets are wiped. A session that ends early ([`Abort`]) is never repeated
//! with the same keys: `advertise` draws new ones.
//!
//! # What is promised, and against whom
//!
//! Against a server that sends whatever it likes, and ⌊γn⌋ clients of the cohort that do the same for it: it learns, of the honest
//! clients, the sum over those in one set of survivors, at least t − c of them, c the corrupt holders of one client; in a
//! sparse graph of each connected part of such a set, of which there is one but for 2⁻⁴⁰ (see [`Params`]). What the sum
//! itself tells is not hidden here: a sum of 2 tells each of the two the other's vector, a sum of 3 tells it to any two, and
//! only noise hides one vector among many.
//!
//! It relies on the identity keys that the caller gives for peers (from certificates or a roster, never from the server alone), on
//! every client taking part once under one plan, on Curve25519, Ed25519, SHA-256, AES-256 and, if the plan says so,
//! ChaCha20. Nothing is promised for a sum that a dishonest client has put nonsense into, nor that there is a sum at all.
//!
//! # Larger cohorts
//!
//! A cohort of more than some thousands is split into [`groups`] with a session each; the sums of groups are
//! [merged](crate::sum::Sum::merge). The server learns each of them, and the parameters of a session count on as many corrupt clients
//! as one group may have ([`corrupt_in_group`]).

#[cfg(test)]
mod adversary;
mod advert;
mod agreement;
pub mod client;
mod correction;
mod groups;
mod hypergeometric;
mod kdf;
mod mask;
mod opening;
mod params;
mod party;
mod refusal;
mod sealing;
pub mod server;
mod session;
mod shamir;
mod sum;
mod survivors;
#[cfg(test)]
mod testing;
mod wire;

pub use client::{Consent, Envelope, MaskedUpdate};
pub use groups::{SEED_BITS, corrupt_in_group, groups};
pub use mask::add_mask;
pub use params::{COHORT_MAX, COHORT_MIN, COMPLETE_MAX, LIVENESS_BITS, PRIVACY_BITS, Params, ParamsError};
pub use party::{Identity, IdentityKey, Party, Peer, Signature};
pub use refusal::{Abort, AdvertError, Phase, Refusal, Rejection};
pub use session::{Digest, Session, SessionError, Shape};
pub use sum::{MaskedSum, UnmaskedSum};
pub use wire::WireError;

#[cfg(test)]
use testing_imports::*;

/// What the harness for tests asks its parent for.
#[cfg(test)]
mod testing_imports {
    pub(super) use crate::prg::{Key, Prg, PrgId, Purpose};
    pub(super) use crate::quantities::{CorruptFraction, DropoutFraction};
    pub(super) use crate::sum::Summand;
}
