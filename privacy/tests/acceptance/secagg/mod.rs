//! Statements 1 to 7: secure aggregation hides, adds exactly, and refuses what a lying server would try.

mod exactness;
mod liars;
mod masks;
mod refusals;
#[path = "../../../src/secagg/testing.rs"]
mod testing;

use skep_privacy::prg::{Key, Prg, PrgId, Purpose};
use skep_privacy::quantities::{CorruptFraction, DropoutFraction};
use skep_privacy::secagg::{
    Abort, Identity, Params, Party, Peer, Phase, Refusal, Session, Shape, UnmaskedSum, client, server,
};
use skep_privacy::sum::Summand;
