//! How long simulated clients and their connections take.

use skep_privacy::prg::{Key, Purpose};
use skep_protocol::{ClientId, Round, Span};

/// A model of time: what messages, training and transfers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// What every message takes, one way.
    pub message: Span,
    /// What one pass over one example takes, in microseconds.
    pub example_us: u64,
    /// What a connection carries in each direction, in bytes per second; `None` carries everything at once.
    pub bytes_per_s: Option<u64>,
    /// How much slower than this a client may be, in percent. Each client draws its pace anew for each round, uniformly
    /// between 0 and this.
    pub jitter_percent: u32,
}

impl Latency {
    /// A network on which nobody is late: messages take a millisecond, all else nothing.
    pub const IDEAL: Latency =
        Latency { message: Span::from_millis(1), example_us: 0, bytes_per_s: None, jitter_percent: 0 };

    /// The pace of one client in one round, a function of its arguments alone.
    pub(crate) fn pace(&self, key: &Key, round: Round, client: ClientId) -> Pace {
        let permille = match u64::from(self.jitter_percent) * 10 {
            0 => 1000,
            // The bias of the remainder is below one in 10^8.
            jitter => {
                1000 + key.derive(Purpose::Latency, round.0, client.0).stream().next_u64() % (jitter + 1)
            }
        };
        Pace { latency: *self, permille }
    }
}

/// How fast one client is in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    latency: Latency,
    permille: u64,
}

impl Pace {
    /// What a message takes, one way. The same for all of a round, so that no message overtakes another.
    pub(crate) fn message(&self) -> Span {
        self.slowed_us(u128::from(self.latency.message.as_millis()) * 1000)
    }

    /// What so many passes over so many examples take.
    pub(crate) fn training(&self, examples: u64, epochs: u32) -> Span {
        self.slowed_us(u128::from(self.latency.example_us) * u128::from(examples) * u128::from(epochs))
    }

    /// What the transfer of so many bytes takes, the message around them included.
    pub(crate) fn transfer(&self, bytes: u64) -> Span {
        let micros = match self.latency.bytes_per_s {
            None => 0,
            Some(rate) => (u128::from(bytes) * 1_000_000).div_ceil(u128::from(rate.max(1))),
        };
        self.message() + self.slowed_us(micros)
    }

    fn slowed_us(&self, micros: u128) -> Span {
        let millis = micros.saturating_mul(u128::from(self.permille)).div_ceil(1_000_000);
        Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Latency = Latency {
        message: Span::from_millis(10),
        example_us: 500,
        bytes_per_s: Some(1_000_000),
        jitter_percent: 50,
    };

    fn pace(latency: Latency, client: u64) -> Pace {
        latency.pace(&Key::from_seed(1), Round(1), ClientId(client))
    }

    #[test]
    fn without_jitter_times_are_those_of_the_model() {
        let pace = pace(Latency { jitter_percent: 0, ..SLOW }, 1);
        assert_eq!(pace.message(), Span::from_millis(10));
        assert_eq!(pace.training(20, 5), Span::from_millis(50));
        assert_eq!(pace.transfer(3_000_001), Span::from_millis(10 + 3001));
        assert_eq!(super::tests::pace(Latency::IDEAL, 1).transfer(u64::MAX), Span::from_millis(1));
    }

    #[test]
    fn a_pace_is_within_its_jitter_and_a_function_of_round_and_client() {
        let messages: Vec<_> = (0..200).map(|client| pace(SLOW, client).message().as_millis()).collect();
        assert!(messages.iter().all(|millis| (10..=15).contains(millis)));
        assert!((11..=15).all(|millis| messages.contains(&millis)), "all of the range occurs");
        assert_eq!(pace(SLOW, 7).permille, pace(SLOW, 7).permille);
        let next_round = SLOW.pace(&Key::from_seed(1), Round(2), ClientId(7));
        assert_ne!(next_round.permille, pace(SLOW, 7).permille);
    }
}
