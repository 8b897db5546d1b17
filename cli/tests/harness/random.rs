//! When to kill: another moment each time.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers that nobody chose; the first is printed, so that a run can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("SKEP_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = seed.unwrap_or(now);
        println!("SKEP_KILL_SEED={seed}");
        Random(seed | 1)
    }

    /// Below `bound` (xorshift64; Marsaglia, "Xorshift RNGs", 2003).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
