//! Log lines about what others do wrong: they must not fill the disk of whoever keeps them.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use skep_protocol::net::rate::{Bucket, Rate};

/// So many lines, then silence, then how many there were.
#[derive(Debug)]
pub(super) struct Quiet(Mutex<State>);

#[derive(Debug)]
struct State {
    bucket: Bucket,
    withheld: u64,
}

impl Quiet {
    pub(super) fn new() -> Self {
        Quiet(Mutex::new(State { bucket: Bucket::full(LINES, Instant::now()), withheld: 0 }))
    }

    /// Calls `say` with the number of lines withheld before this one, unless this one is withheld.
    pub(super) fn unless_too_many(&self, say: impl FnOnce(u64)) {
        let withheld = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.bucket.take(Instant::now()) {
                state.withheld += 1;
                return;
            }
            std::mem::take(&mut state.withheld)
        };
        say(withheld);
    }
}

const LINES: Rate = Rate { burst: 50.0, per_second: 5.0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_burst_lines_are_counted_instead() {
        let quiet = Quiet::new();
        let mut said = 0u64;
        for _ in 0..1000 {
            quiet.unless_too_many(|_| said += 1);
        }
        assert!((50..100).contains(&said), "{said}");
        let withheld = quiet.0.lock().unwrap().withheld;
        assert_eq!(said + withheld, 1000);
    }
}
