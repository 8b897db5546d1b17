//! What a simulation in memory makes of its clients: how fast they are, when they are there, and what goes wrong.
//!
//! The types are those of the file; [`Simulation::check`] says what makes no sense. Everything a client does follows from
//! the experiment's public seed, the client and the round.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::validate::{Invalid, invalid};

/// `[simulation]`, without its fidelity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Simulation {
    /// A round begins at least so long after the one before it began, in seconds of virtual time.
    pub round_every_s: Option<f64>,
    /// How fast clients and their connections are.
    pub devices: Devices,
    /// When clients can be reached.
    pub availability: Availability,
    /// What goes wrong.
    pub faults: Faults,
    /// Layers that every client keeps to itself, by the beginnings of their names: FedPer (Arivazhagan et al., 1912.00818).
    pub private_layers: Vec<String>,
}

/// `[simulation.devices]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    /// What every message takes one way, in milliseconds.
    #[serde(default = "a_millisecond")]
    pub latency_ms: Amount,
    /// Examples that training goes through in a second; not given: it takes no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples_per_s: Option<Amount>,
    /// What a connection carries to the client; not given: everything at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes_per_s: Option<Amount>,
    /// What a connection carries to the server; not given: everything at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_s: Option<Amount>,
    /// In each round a client is slower than that by up to this part, drawn uniformly: 0.5 is up to half as long again.
    #[serde(default)]
    pub slowdown: f64,
}

/// A quantity of each client: the same for all, or drawn once for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or { uniform = [LOW, HIGH] }, { one-of = [NUMBER, ...] } or \
             { log-normal = { median = NUMBER, spread = NUMBER } }"
)]
pub enum Amount {
    /// The same for all.
    Fixed(f64),
    /// Drawn.
    Drawn(Distribution),
}

/// How a quantity is distributed among clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Uniform between the two.
    Uniform([f64; 2]),
    /// One of these, each as likely.
    OneOf(Vec<f64>),
    /// With this median; two thirds of the clients are within a factor of `spread`, at least 1.
    LogNormal(LogNormal),
}

/// `{ log-normal = { median, spread } }`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogNormal {
    /// Half of the clients have less.
    pub median: f64,
    /// The exponential of the logarithm's standard deviation.
    pub spread: f64,
}

/// `[simulation.availability]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Availability {
    /// `kind = "always"`
    Always {},
    /// `kind = "diurnal"`: for a part of every day, as when it charges at night.
    Diurnal {
        /// The part of a day that a client can be reached, above 0 and at most 1.
        online: f64,
        /// Over which part of a day clients begin: 0 is all at the same time, 1 is around the clock.
        #[serde(default = "one")]
        spread: f64,
        /// How long a day is.
        #[serde(default = "a_day")]
        day_s: f64,
    },
    /// `kind = "trace"`: as a file says, with a header line `client,from_s,to_s` and an interval a line. A client that it does
    /// not name cannot be reached.
    Trace {
        /// The file.
        file: PathBuf,
        /// After so long the file begins again; not given: it ends once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repeat_s: Option<f64>,
    },
}

/// `[simulation.faults]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// The probability that an invited client loses its connection in a round, at any moment of it.
    #[serde(default)]
    pub dropout: f64,
    /// How long after that it is back; not given: after the round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_after_s: Option<f64>,
    /// The probability that its training lasts as long as the round.
    #[serde(default)]
    pub straggler: f64,
    /// The probability that its update is corrupt.
    #[serde(default)]
    pub corrupt: f64,
    /// In which way.
    #[serde(default)]
    pub corruption: Corruption,
    /// What goes wrong for certain, whatever is drawn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<Scripted>,
}

/// A line of `simulation.faults.script`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Scripted {
    /// `kind = "vanish"`: the connection is lost.
    Vanish {
        /// For whom.
        client: u64,
        /// In which round.
        round: u64,
        /// How far it has come.
        at: Moment,
        /// How long after that it is back; not given: after the round.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        back_after_s: Option<f64>,
    },
    /// `kind = "late"`: training lasts as long as the round.
    Late {
        /// For whom.
        client: u64,
        /// In which round.
        round: u64,
    },
    /// `kind = "corrupt"`: the client lies about its update.
    Corrupt {
        /// For whom.
        client: u64,
        /// In which round.
        round: u64,
        /// How.
        corruption: Corruption,
    },
}

/// How far a client has come when it vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// It is not there when the round opens.
    Opening,
    /// It trains.
    Training,
    /// It has offered its update: in a masked round after its shares.
    Offering,
    /// Half of its update is sent.
    Uploading,
    /// In a masked round: it has trained and sent its keys, and is asked for shares of its secrets.
    Sharing,
    /// In a masked round: its masked update is in the sum, and it is asked to agree to the survivors.
    Agreeing,
    /// In a masked round: it has agreed, and is asked to reveal the shares that it holds.
    Revealing,
}

/// How an update is corrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// It is a byte longer than the plan says.
    Length,
    /// It is not the one that was offered.
    #[default]
    Digest,
    /// Every coordinate is as large as the whole update may be. A private round refuses that; without privacy no
    /// norm is tested, and the update, every coordinate of it 1, is in the sum.
    Norm,
    /// One bit of its masked update is flipped. Nobody can see that; it spoils the sum. Nothing happens unless masks are
    /// computed.
    Mask,
}

impl Default for Availability {
    fn default() -> Self {
        Availability::Always {}
    }
}

impl Devices {
    /// On which nobody is late: messages take a millisecond, all else nothing.
    pub const IDEAL: Devices = Devices {
        latency_ms: Amount::Fixed(1.0),
        examples_per_s: None,
        download_bytes_per_s: None,
        upload_bytes_per_s: None,
        slowdown: 0.0,
    };
}

impl Default for Devices {
    fn default() -> Self {
        Devices::IDEAL
    }
}

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Faults = Faults {
        dropout: 0.0,
        back_after_s: None,
        straggler: 0.0,
        corrupt: 0.0,
        corruption: Corruption::Digest,
        script: Vec::new(),
    };
}

impl Default for Faults {
    fn default() -> Self {
        Faults::NONE
    }
}

impl Scripted {
    /// For whom, and in which round.
    pub const fn place(&self) -> (u64, u64) {
        match *self {
            Scripted::Vanish { client, round, .. }
            | Scripted::Late { client, round }
            | Scripted::Corrupt { client, round, .. } => (client, round),
        }
    }
}

impl Simulation {
    /// Whether nothing in it differs from a network on which everybody is there and nobody is late.
    pub fn is_ideal(&self) -> bool {
        *self == Simulation::default()
    }

    /// Makes a relative path absolute, below `directory`.
    pub fn place_below(&mut self, directory: &Path) {
        if let Availability::Trace { file, .. } = &mut self.availability {
            *file = directory.join(&*file);
        }
    }

    /// What makes no sense, with `rounds` rounds of `clients` clients.
    ///
    /// # Errors
    /// [`Invalid`], which names the key.
    pub fn check(&self, rounds: u64, clients: u64) -> Result<(), Invalid> {
        if let Some(every) = self.round_every_s {
            positive("simulation.round_every_s", every)?;
        }
        self.devices.check()?;
        self.availability.check()?;
        self.faults.check(rounds, clients)
    }
}

impl Devices {
    fn check(&self) -> Result<(), Invalid> {
        self.latency_ms.check("simulation.devices.latency_ms", true)?;
        let rates = [
            ("simulation.devices.examples_per_s", &self.examples_per_s),
            ("simulation.devices.download_bytes_per_s", &self.download_bytes_per_s),
            ("simulation.devices.upload_bytes_per_s", &self.upload_bytes_per_s),
        ];
        for (key, rate) in rates {
            rate.as_ref().map_or(Ok(()), |rate| rate.check(key, false))?;
        }
        if !(0.0..=1000.0).contains(&self.slowdown) {
            return Err(invalid(
                "simulation.devices.slowdown",
                format!("is {}, but must be 0 to 1000", self.slowdown),
            ));
        }
        Ok(())
    }
}

impl Amount {
    fn check(&self, key: &str, may_be_zero: bool) -> Result<(), Invalid> {
        let check = |value: f64| match value {
            0.0 if may_be_zero => Ok(()),
            value => positive(key, value),
        };
        match self {
            Amount::Fixed(value) => check(*value),
            Amount::Drawn(Distribution::Uniform([low, high])) => {
                check(*low)?;
                check(*high)?;
                if low > high {
                    return Err(invalid(
                        key,
                        format!("is uniform from {low} to {high}: give the smaller first"),
                    ));
                }
                Ok(())
            }
            Amount::Drawn(Distribution::OneOf(values)) if values.is_empty() => {
                Err(invalid(key, "is one of nothing: name at least one number"))
            }
            Amount::Drawn(Distribution::OneOf(values)) => values.iter().copied().try_for_each(check),
            Amount::Drawn(Distribution::LogNormal(LogNormal { median, spread })) => {
                positive(key, *median)?;
                match (1.0..=100.0).contains(spread) {
                    true => Ok(()),
                    false => Err(invalid(key, format!("has a spread of {spread}, but it must be 1 to 100"))),
                }
            }
        }
    }
}

impl Availability {
    fn check(&self) -> Result<(), Invalid> {
        let key = |name: &str| format!("simulation.availability.{name}");
        match self {
            Availability::Always {} | Availability::Trace { repeat_s: None, .. } => Ok(()),
            Availability::Trace { repeat_s: Some(repeat), .. } => positive(&key("repeat_s"), *repeat),
            Availability::Diurnal { online, spread, day_s } => {
                if !(*online > 0.0 && *online <= 1.0) {
                    return Err(invalid(
                        &key("online"),
                        format!("is {online}, but must be above 0 and at most 1"),
                    ));
                }
                if !(0.0..=1.0).contains(spread) {
                    return Err(invalid(&key("spread"), format!("is {spread}, but must be 0 to 1")));
                }
                positive(&key("day_s"), *day_s)
            }
        }
    }
}

impl Faults {
    fn check(&self, rounds: u64, clients: u64) -> Result<(), Invalid> {
        for (name, probability) in
            [("dropout", self.dropout), ("straggler", self.straggler), ("corrupt", self.corrupt)]
        {
            if !(0.0..=1.0).contains(&probability) {
                return Err(invalid(
                    &format!("simulation.faults.{name}"),
                    format!("is {probability}, but must be a probability, 0 to 1"),
                ));
            }
        }
        if let Some(back) = self.back_after_s {
            positive("simulation.faults.back_after_s", back)?;
        }
        for fault in &self.script {
            let (client, round) = fault.place();
            if client >= clients || round == 0 || round > rounds {
                return Err(invalid(
                    "simulation.faults.script",
                    format!(
                        "has a fault for client {client} in round {round}, but there are clients 0 to {} and rounds 1 to {rounds}",
                        clients - 1
                    ),
                ));
            }
            if let Scripted::Vanish { back_after_s: Some(back), .. } = fault {
                positive("simulation.faults.script", *back)?;
            }
        }
        Ok(())
    }
}

/// Up to a thousand million, so that virtual time does not end.
fn positive(key: &str, value: f64) -> Result<(), Invalid> {
    if value > 0.0 && value <= 1e9 {
        return Ok(());
    }
    Err(invalid(key, format!("is {value}, but must be above 0 and at most 1e9")))
}

fn a_millisecond() -> Amount {
    Amount::Fixed(1.0)
}

fn a_day() -> f64 {
    86_400.0
}

fn one() -> f64 {
    1.0
}
