//! What is said in a federation and when: ids, messages, codec, the plan, the experiment, and the round as two
//! state machines.
//!
//! In here: everything that server and client must agree on. Not in here: sockets, clocks, files, threads,
//! generators, tensors. The feature `net` adds the one exception, the websocket framing and TLS configurations
//! that both shells share.
//!
//! # Glossary
//!
//! One word a thing, in code, messages and documentation:
//!
//! | word | what it means |
//! | --- | --- |
//! | population | everyone who could be invited; its size is public |
//! | cohort | the clients invited to one round |
//! | sampling rate | the probability of being invited to a round, fixed in the plan |
//! | round | one plan, one collection, at most one release |
//! | plan | what every participant of a round must agree on, signed before anyone is invited |
//! | task | the model and the local training |
//! | base model | the model a client starts from |
//! | update | trained parameters minus base model, one vector |
//! | clip norm | the L2 bound of an update, in units of the parameters |
//! | grid | the fixed-point grid on which updates are integers |
//! | sensitivity | the largest change of the sum that one client can make, in grid units |
//! | noise multiplier | standard deviation of the noise divided by the sensitivity |
//! | sum | the integers that committed updates add up to; readable only through a release |
//! | release | the noised sum, and the model made of it |
//! | epsilon (release) | what recipients of models can learn |
//! | epsilon (server) | what the server can learn; it knows the cohort, so sampling does not help |
//! | adjacency | in which way neighbouring populations differ |
//! | unit | what they differ by: a client, or an example |
//! | reservation | budget charged for a round before it starts |
//! | charge | a settled reservation; it opens the sum |
//! | grant | leave to upload, with an end |
//! | committed | an update that is in the sum, as a whole |
//! | survivor | a client whose update is committed |

pub mod canonical;
pub mod codec;
pub mod experiment;
mod ids;
pub mod message;
#[cfg(feature = "net")]
pub mod net;
pub mod plan;
pub mod round;
mod time;

pub use ids::{ChannelBinding, ClientId, Digest, Hasher, Round};
pub use time::{Span, Time};
