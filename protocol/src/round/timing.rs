//! The one deadline of a round, and the waits that follow from it.

use super::Phase;
use crate::time::{Span, Time};

/// The waits of a round that opened at one time with one deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// An invited client that has not accepted or declined by then is out.
    pub answer_by: Time,
    /// Keys must be there; not used without secure aggregation, like the other ends of its phases.
    pub keys_by: Time,
    /// Shares must be there.
    pub shares_by: Time,
    /// The collection of updates ends.
    pub collect_by: Time,
    /// Signatures of the survivors must be there.
    pub agree_by: Time,
    /// What unmasks the sum must be there.
    pub reveal_by: Time,
    /// The round ends, released or not.
    pub close_by: Time,
    /// How long a lost connection may take to come back.
    pub reconnect: Span,
}

impl Timing {
    /// Half of the deadline to answer, nine tenths to collect, one tenth to come back.
    ///
    /// Answering is quick when a client is there at all, but clients that share a machine train one after another;
    /// the last tenth is for the release. Of a `masked` round the largest part is for training, before keys: who drops
    /// out there costs nothing. The short phases share what the input leaves.
    pub fn new(opened: Time, deadline: Span, masked: bool) -> Self {
        let at = |twentieths| opened + deadline.fraction(twentieths, 20);
        Timing {
            answer_by: at(10),
            keys_by: at(12),
            shares_by: at(13),
            collect_by: at(if masked { 16 } else { 18 }),
            agree_by: at(17),
            reveal_by: at(18),
            close_by: at(20),
            reconnect: deadline.fraction(1, 10),
        }
    }

    /// When a phase ends at the latest.
    pub fn end_of(&self, phase: Phase) -> Time {
        match phase {
            Phase::Keys => self.keys_by,
            Phase::Shares => self.shares_by,
            Phase::Collecting => self.collect_by,
            Phase::Consistency => self.agree_by,
            Phase::Reveal => self.reveal_by,
            Phase::Releasing => self.close_by,
        }
    }

    /// The end of a grant for `len` bytes given at `now`: what the slowest tolerated sender needs plus the time to
    /// reconnect once, but never after the collection.
    pub fn grant_until(&self, now: Time, len: u64, min_bytes_per_s: u64) -> Time {
        let millis = (u128::from(len) * 1000).div_ceil(u128::from(min_bytes_per_s.max(1)));
        let transfer = Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        (now + transfer + self.reconnect).min(self.collect_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_lives_as_long_as_the_slowest_sender_needs() {
        let timing = Timing::new(Time::from_millis(1000), Span::from_millis(10_000), false);
        let until = timing.grant_until(Time::from_millis(2000), 1500, 1000);
        assert_eq!(until, Time::from_millis(2000 + 1500 + 1000));
        assert_eq!(timing.grant_until(Time::from_millis(2000), u64::MAX, 1000), timing.collect_by);
    }
}
