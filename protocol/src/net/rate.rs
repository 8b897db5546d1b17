//! How often something may happen: a bucket of tokens that fills by itself.

use std::time::Instant;

/// So many at once, and so many a second in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// At once, after a pause.
    pub burst: f64,
    /// In the long run.
    pub per_second: f64,
}

/// What is left of a [`Rate`] at a moment.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A bucket that nothing was taken from.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Bucket { rate, tokens: rate.burst, filled: now }
    }

    /// Puts so many in, as far as they fit.
    pub fn give(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.rate.burst);
    }

    /// Takes one; false when none is left at `now`.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate.per_second;
        self.filled = self.filled.max(now);
        self.tokens = (self.tokens + gained).min(self.rate.burst);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(Rate { burst: 3.0, per_second: 2.0 }, start);
        let mut taken = |after: f64| {
            let now = start + Duration::from_secs_f64(after);
            (0..10).filter(|_| bucket.take(now)).count()
        };
        assert_eq!(taken(0.0), 3);
        assert_eq!(taken(0.25), 0);
        assert_eq!(taken(1.0), 2);
        // A clock that seems to go back gives nothing.
        assert_eq!(taken(0.5), 0);
        assert_eq!(taken(100.0), 3);
    }

    #[test]
    fn what_is_given_can_be_taken_up_to_the_burst() {
        let start = Instant::now();
        let mut bucket = Bucket::full(Rate { burst: 3.0, per_second: 0.0 }, start);
        let mut taken = |given: f64| {
            bucket.give(given);
            (0..10).filter(|_| bucket.take(start)).count()
        };
        assert_eq!([0.0, 2.0, 7.0, 0.0].map(&mut taken), [3, 2, 3, 0]);
    }
}
