//! How long to wait before the next attempt to connect.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// Doubling waits with jitter, so that the clients of a server that comes back do not all come at once.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Backoff { first, longest, next: first }
    }

    /// Between half of the next wait and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        wait / 2 + (wait / 2).mul_f64(uniform())
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A number in [0, 1]. Without randomness every wait has its full length, which is only less polite.
fn uniform() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_reset() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        let mut in_range = |full: Duration| {
            let wait = backoff.next();
            assert!(full / 2 <= wait && wait <= full, "{wait:?} of {full:?}");
        };
        for full in [1, 2, 4, 5, 5] {
            in_range(full * second);
        }
        backoff.reset();
        assert!(backoff.next() <= second);
    }

    #[test]
    fn two_clients_do_not_wait_equally_long() {
        let waits: Vec<_> =
            (0..8).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
