//! How long simulated clients and their connections take.

use skep_client::held_out::uniform;
use skep_privacy::prg::{Key, Prg, Purpose};
use skep_protocol::experiment::simulation::{Amount, Devices, Distribution, LogNormal};
use skep_protocol::{ClientId, Round, Span};

/// The pace of one client in one round, a function of its arguments alone.
pub(crate) fn pace(devices: &Devices, key: &Key, round: Round, client: ClientId) -> Pace {
    // Round 0 is no round: what a client's device is like does not change.
    let stream = || key.derive(Purpose::Latency, 0, client.0).stream();
    let mut prg = None;
    let mut drawn = |amount: &Amount| match amount {
        Amount::Fixed(value) => *value,
        Amount::Drawn(distribution) => draw(distribution, prg.get_or_insert_with(stream)),
    };
    let message_us = 1000.0 * drawn(&devices.latency_ms);
    let examples_per_s = devices.examples_per_s.as_ref().map(&mut drawn);
    let download_bytes_per_s = devices.download_bytes_per_s.as_ref().map(&mut drawn);
    let upload_bytes_per_s = devices.upload_bytes_per_s.as_ref().map(&mut drawn);
    let slower = match devices.slowdown {
        0.0 => 1.0,
        most => 1.0 + most * uniform(&mut key.derive(Purpose::Latency, round.0, client.0).stream()),
    };
    Pace { message_us, examples_per_s, download_bytes_per_s, upload_bytes_per_s, slower }
}

/// How fast one client is in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    message_us: f64,
    examples_per_s: Option<f64>,
    download_bytes_per_s: Option<f64>,
    upload_bytes_per_s: Option<f64>,
    slower: f64,
}

impl Pace {
    /// What a message takes, one way. The same for all of a round, so that no message overtakes another.
    pub(crate) fn message(&self) -> Span {
        self.span(self.message_us)
    }

    /// What so many passes over so many examples take.
    pub(crate) fn training(&self, examples: u64, epochs: u32) -> Span {
        self.span(lasting(examples as f64 * f64::from(epochs), self.examples_per_s))
    }

    /// What it takes until so many bytes are at the client, the message around them included.
    pub(crate) fn download(&self, bytes: u64) -> Span {
        self.message() + self.span(lasting(bytes as f64, self.download_bytes_per_s))
    }

    /// What it takes until so many bytes are at the server, likewise.
    pub(crate) fn upload(&self, bytes: u64) -> Span {
        self.message() + self.span(lasting(bytes as f64, self.upload_bytes_per_s))
    }

    fn span(&self, micros: f64) -> Span {
        // Saturates: what takes longer than any deadline may take for ever.
        Span::from_millis((micros * self.slower / 1000.0).ceil() as u64)
    }
}

/// Microseconds; none where nothing says how many a second there are.
fn lasting(count: f64, per_s: Option<f64>) -> f64 {
    per_s.map_or(0.0, |per_s| 1e6 * count / per_s)
}

fn draw(distribution: &Distribution, prg: &mut Prg) -> f64 {
    match distribution {
        Distribution::Uniform([low, high]) => low + (high - low) * uniform(prg),
        Distribution::OneOf(values) => values[(uniform(prg) * values.len() as f64) as usize],
        // Box and Muller, "A note on the generation of random normal deviates", 1958.
        Distribution::LogNormal(LogNormal { median, spread }) => {
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(prg)));
            let normal = radius * libm::cos(2.0 * std::f64::consts::PI * uniform(prg));
            median * libm::exp(normal * libm::log(*spread))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(devices: &Devices, client: u64) -> Pace {
        pace(devices, &Key::from_seed(1), Round(1), ClientId(client))
    }

    fn slow() -> Devices {
        Devices {
            latency_ms: Amount::Fixed(10.0),
            examples_per_s: Some(Amount::Fixed(2000.0)),
            download_bytes_per_s: Some(Amount::Fixed(2e6)),
            upload_bytes_per_s: Some(Amount::Fixed(1e6)),
            slowdown: 0.0,
        }
    }

    #[test]
    fn without_a_slowdown_times_are_those_of_the_devices() {
        let pace = of(&slow(), 1);
        assert_eq!(pace.message(), Span::from_millis(10));
        assert_eq!(pace.training(20, 5), Span::from_millis(50));
        assert_eq!(pace.upload(3_000_001), Span::from_millis(10 + 3001));
        assert_eq!(pace.download(3_000_000), Span::from_millis(10 + 1500));
        assert_eq!(of(&Devices::IDEAL, 1).upload(u64::MAX), Span::from_millis(1));
        assert_eq!(of(&Devices::IDEAL, 1).training(u64::MAX, 9), Span::from_millis(0));
    }

    #[test]
    fn a_pace_is_within_its_slowdown_and_a_function_of_round_and_client() {
        let devices = Devices { slowdown: 0.5, ..slow() };
        let messages: Vec<_> = (0..200).map(|client| of(&devices, client).message().as_millis()).collect();
        assert!(messages.iter().all(|millis| (10..=15).contains(millis)));
        assert!((11..=15).all(|millis| messages.contains(&millis)), "all of the range occurs");
        assert_eq!(of(&devices, 7), of(&devices, 7));
        assert_ne!(pace(&devices, &Key::from_seed(1), Round(2), ClientId(7)), of(&devices, 7));
    }

    #[test]
    fn devices_are_drawn_once_and_as_they_are_distributed() {
        let drawn = |distribution| {
            let devices = Devices { latency_ms: Amount::Drawn(distribution), ..Devices::IDEAL };
            let key = Key::from_seed(1);
            let mut values: Vec<f64> = (0..2001)
                .map(|client| {
                    let [one, two] =
                        [1, 2].map(|round| pace(&devices, &key, Round(round), ClientId(client)).message_us);
                    assert_eq!(one, two, "a device does not change from round to round");
                    one / 1000.0
                })
                .collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let uniform = drawn(Distribution::Uniform([2.0, 4.0]));
        assert!(uniform[0] >= 2.0 && uniform[2000] < 4.0 && (uniform[1000] - 3.0).abs() < 0.1);
        let classes = drawn(Distribution::OneOf(vec![1.0, 2.0]));
        // n = 2001, p = 1/2: six standard deviations are 134 (alpha below 1e-8).
        let first = classes.iter().filter(|value| **value == 1.0).count() as f64;
        assert!((first - 1000.5).abs() < 134.0, "{first}");
        let skewed = drawn(Distribution::LogNormal(LogNormal { median: 5.0, spread: 2.0 }));
        // The median of 2001 normal deviates has a standard deviation of 0.028; 0.168 are six.
        assert!((skewed[1000] / 5.0).log2().abs() < 0.168, "{}", skewed[1000]);
        let within = skewed.iter().filter(|value| (2.5..10.0).contains(*value)).count() as f64;
        // p = 0.6827: six standard deviations are 125.
        assert!((within - 1366.0).abs() < 125.0, "{within}");
    }
}
