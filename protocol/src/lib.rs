//! What is said in a federation and when: ids, messages, codec, the plan, the experiment, and the round as two
//! state machines.
//!
//! In here: everything that server and client must agree on. Not in here: sockets, clocks, files, threads,
//! generators, tensors. The feature `net` adds the one exception, the websocket framing and TLS configurations
//! that both shells share.
//!
#![doc = include_str!("../../docs/glossary.md")]

pub mod codec;
pub mod experiment;
mod ids;
pub mod masked;
pub mod message;
#[cfg(feature = "net")]
pub mod net;
pub mod plan;
pub mod round;
mod time;

pub use skep_privacy::canonical;

pub use ids::{ChannelBinding, ClientId, Digest, Hasher, Round};
pub use time::{Span, Time};
