//! The round as two state machines, one for the server and one for a client.
//!
//! Neither has a socket, a clock, a file, a thread or a generator: time and events come in, actions come out.
//! No vector of model length enters; a machine sees lengths, digests and names, and asks its driver for jobs.
//!
//! ```text
//!            server                                             client
//!   Open ──> Collecting ── Invite(plan) ──────────────────────> Idle
//!              │            <───────────── Accept / Decline ──── │
//!              │            ── model ──────────────────────────> Fetching
//!              │                                                 Training   (job)
//!              │            <─────────────────────── Offer ───── Offering
//!              │            ── Grant ──────────────────────────>  │
//!              │            <───────────────────── update ─────── Uploading
//!              │  commit    ── Committed ──────────────────────>  │
//!              v                                                 Idle
//!            Releasing (job)
//!              v
//!            Closed: complete | degraded | aborted
//! ```
//!
//! In a round with secure aggregation `Accept` is followed by phases, in each of which the server asks and all who are left
//! answer; masked updates are offered and granted in the third:
//!
//! ```text
//!   Keys         (trained)                          <── keys ─────────────────
//!   Shares       ── Asked: the others' keys ──────> <── sealed shares ────────
//!   Collecting   ── Asked: shares for you ────────> <── Offer, masked update ─
//!   Consistency  ── Asked: the survivors ─────────> <── signature ────────────
//!   Reveal       ── Asked: signatures ────────────> <── shares that unmask ───
//!   Releasing    (job)
//! ```
//!
//! The machines know who has answered in which phase, and nothing of what was said.
//!
//! How to drive a machine: give it every event with the time it happened (`handle`), after each take actions
//! until there are none (`poll_action`), and come back with [`Tick`](server::Event::Tick) no later than
//! `next_deadline`. Ties in time are broken by the order of the calls. A bad message from one client is an ordinary
//! event: it is refused by name, nothing changes for others, the round goes on.
//!
//! An [`Assignment`] (one client, one plan, one base model) is apart from a [`Collection`] (whose updates are summed,
//! and when that ends). A synchronous round is one plan and one collection, also where its cohort is summed up in groups: these go through
//! the phases together, and the driver says which are [lost](server::Event::GroupLost). Asynchronous aggregation is assignments with different base models into one collection.

mod assignment;
pub mod client;
mod collection;
mod outcome;
mod refusal;
pub mod server;
mod timing;

pub use assignment::{Assignment, Progress};
pub use collection::{Collection, Phase, Turnout};
pub use outcome::{AbortReason, Outcome};
pub use refusal::{Decline, Refusal};
pub use timing::Timing;
