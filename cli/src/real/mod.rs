//! `skep simulate --real`: the same experiment over processes and TLS connections on this machine.
//!
//! ```text
//!            bootstrap (standard input)             bootstrap (standard input)
//!  local-server ◀──────────────────── launcher ────────────────────▶ local-clients, twice or more
//!            ────────────────────▶          ◀────────────────────
//!            reports (standard output)              reports (standard output)
//!       ▲                                                                     │
//!       ╰───────────────── TLS websockets on the loopback ─────────────────╯
//! ```
//!
//! A child reads one JSON object from its standard input, an inherited pipe that no other process can read, and then
//! watches for its end: a launcher that is gone takes its children along. Randomness that follows from `--seed` travels
//! only there. TLS and identity keys are made by the operating system in every run.

mod bootstrap;
mod child;
mod clients;
mod launcher;
mod process;
mod server;

pub(crate) use clients::run as run_clients;
pub(crate) use launcher::{Division, KeptLedger, run};
pub(crate) use server::run as run_server;
