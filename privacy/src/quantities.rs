//! The numbers of a privacy claim, each a type that cannot hold a meaningless value.
//!
//! Constructors check the range, and deserialising runs the constructor. Text forms are stable: they appear in
//! experiment files, ledgers and reports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A quantity outside its range, or a name that is not in its list.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantityError {
    /// A number outside the range of its parameter.
    #[error("{parameter} is {value}, but must be {range}")]
    OutOfRange {
        /// Name of the parameter, as a person types it.
        parameter: &'static str,
        /// The refused value.
        value: f64,
        /// What the parameter may be.
        range: &'static str,
    },
    /// A text that names none of the known values.
    #[error("{parameter} is `{value}`, but must be one of: {known}")]
    Unknown {
        /// Name of the parameter, as a person types it.
        parameter: &'static str,
        /// The refused text.
        value: String,
        /// The texts that are known.
        known: &'static str,
    },
}

/// Defines an `f64` newtype: its checked constructor, `get`, serde and `Display`.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $parameter:literal, $range:literal, |$value:ident| $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
        #[serde(try_from = "f64", into = "f64")]
        pub struct $name(f64);

        impl $name {
            #[doc = concat!("Checks that the value is ", $range, ".")]
            ///
            /// # Errors
            /// [`QuantityError::OutOfRange`] when it is not.
            pub fn new($value: f64) -> Result<Self, QuantityError> {
                if $valid {
                    return Ok(Self($value));
                }
                Err(QuantityError::OutOfRange { parameter: $parameter, value: $value, range: $range })
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> f64 {
                self.0
            }
        }

        impl TryFrom<f64> for $name {
            type Error = QuantityError;
            fn try_from(value: f64) -> Result<Self, QuantityError> {
                Self::new(value)
            }
        }

        impl From<$name> for f64 {
            fn from(quantity: $name) -> f64 {
                quantity.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                let value = text.trim().parse().map_err(|_| QuantityError::Unknown {
                    parameter: $parameter,
                    value: text.to_owned(),
                    known: concat!("a number, ", $range),
                })?;
                Self::new(value)
            }
        }
    };
}

quantity!(
    /// The δ of (ε, δ)-differential privacy: 0 < δ < 1, and below one over the population to mean anything.
    Delta, "delta", "above 0 and below 1", |value| value > 0.0 && value < 1.0
);
quantity!(
    /// Standard deviation of the noise divided by the sensitivity of what it hides; finite and positive.
    NoiseMultiplier, "noise multiplier", "a finite number above 0", |value| value.is_finite() && value > 0.0
);
quantity!(
    /// Largest L2 norm that an update may have; finite and positive, in the unit of the parameters.
    ClipNorm, "clip norm", "a finite number above 0", |value| value.is_finite() && value > 0.0
);
quantity!(
    /// Probability with which each client joins a round, independently of the others; 0 < q ≤ 1.
    SamplingRate, "sampling rate", "above 0 and at most 1", |value| value > 0.0 && value <= 1.0
);

quantity!(
    /// Largest share γ of a cohort that may be in league with the server; 0 ≤ γ < 1.
    CorruptFraction, "max corrupt fraction", "at least 0 and below 1", |value| (0.0..1.0).contains(&value)
);
quantity!(
    /// Largest share δ of a cohort that may drop out of a round and leave it alive; 0 ≤ δ < 1.
    DropoutFraction, "dropout fraction", "at least 0 and below 1", |value| (0.0..1.0).contains(&value)
);

impl CorruptFraction {
    /// ⌊γn⌋: the most members of a cohort of n that may be corrupt.
    ///
    /// A billionth is added before rounding down, so that 0.29 of 100 is 29, though the double is a little less.
    #[must_use]
    pub fn of(self, cohort: u32) -> u32 {
        floor_share(self.0, cohort)
    }
}

impl DropoutFraction {
    /// ⌊δn⌋: the most of n that may drop out; rounded as [`CorruptFraction::of`].
    #[must_use]
    pub fn of(self, cohort: u32) -> u32 {
        floor_share(self.0, cohort)
    }
}

fn floor_share(share: f64, cohort: u32) -> u32 {
    (share * f64::from(cohort) + 1e-9) as u32
}

impl ClipNorm {
    /// The unit, where only ratios to the clip norm matter.
    pub const ONE: Self = Self(1.0);
}

impl SamplingRate {
    /// Everyone joins.
    pub const ONE: Self = Self(1.0);
}

/// The ε of (ε, δ)-differential privacy: at least 0; infinite where nothing is promised.
///
/// Text form: a number or `infinity`, because JSON has no infinite number.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Epsilon(f64);

impl Epsilon {
    /// Nothing was revealed.
    pub const ZERO: Self = Self(0.0);
    /// Nothing is promised.
    pub const INFINITE: Self = Self(f64::INFINITY);

    /// Checks that the value is at least 0; infinity is allowed.
    ///
    /// # Errors
    /// [`QuantityError::OutOfRange`] when it is negative or not a number.
    pub fn new(value: f64) -> Result<Self, QuantityError> {
        if value >= 0.0 {
            return Ok(Self(value));
        }
        Err(QuantityError::OutOfRange { parameter: "epsilon", value, range: "at least 0" })
    }

    /// What a computation found: rounding below 0 becomes 0, and anything that is not a number promises nothing.
    pub(crate) fn from_computed(value: f64) -> Self {
        if value.is_nan() { Self::INFINITE } else { Self(value.max(0.0)) }
    }

    /// The number itself, possibly infinite.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether anything is promised at all.
    #[must_use]
    pub const fn is_finite(self) -> bool {
        self.0.is_finite()
    }
}

impl TryFrom<f64> for Epsilon {
    type Error = QuantityError;
    fn try_from(value: f64) -> Result<Self, QuantityError> {
        Self::new(value)
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_finite() { self.0.fmt(f) } else { f.pad("infinity") }
    }
}

impl FromStr for Epsilon {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text.trim() {
            "infinity" => Ok(Self::INFINITE),
            number => Self::new(number.parse().map_err(|_| QuantityError::Unknown {
                parameter: "epsilon",
                value: text.to_owned(),
                known: "a number of at least 0, infinity",
            })?),
        }
    }
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_finite() || !serializer.is_human_readable() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str("infinity")
        }
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Number(f64),
            Name(String),
        }
        let epsilon = if deserializer.is_human_readable() {
            match Text::deserialize(deserializer)? {
                Text::Number(value) => Self::new(value),
                Text::Name(text) => text.parse(),
            }
        } else {
            Self::new(f64::deserialize(deserializer)?)
        };
        epsilon.map_err(serde::de::Error::custom)
    }
}

/// Defines a closed set with a stable text form, which is also its serde form.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident, $parameter:literal, $known:literal, $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// The stable text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(QuantityError::Unknown { parameter: $parameter, value: text.to_owned(), known: $known }),
                }
            }
        }
    };
}

names!(
    /// Which two data sets count as neighbours: what an adversary may not be able to tell apart.
    Adjacency, "adjacency", "add-or-remove, zero-out, replace",
    /// One unit is present or absent.
    AddOrRemove = "add-or-remove",
    /// One unit's contribution becomes zero; for sums of a public number of units. Same noise as add-or-remove.
    ZeroOut = "zero-out",
    /// One unit becomes another; a sum can move twice as far as under add-or-remove.
    Replace = "replace"
);
names!(
    /// Whose presence is hidden. Epsilons of different units are never added or compared.
    Unit, "unit", "client, example",
    /// All the data of one client.
    Client = "client",
    /// One example of one client.
    Example = "example"
);
names!(
    /// Who adds the noise, which decides against whom a promise holds.
    TrustMode, "mode", "central, distributed, local",
    /// The server, to the sum: against those who receive the models, not against the server.
    Central = "central",
    /// Every client a share, under secure aggregation: against the server too.
    Distributed = "distributed",
    /// Every client all of it, on its own update: against everyone.
    Local = "local"
);

/// How the participants of a round are chosen.
///
/// Text forms: `all`, `poisson:RATE`, `fixed:SIZE/POPULATION`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", try_from = "UncheckedSampling")]
pub enum Sampling {
    /// Everyone, every round.
    All,
    /// Each client joins with probability `rate`, independently of the others and of earlier rounds.
    Poisson {
        /// The probability.
        rate: SamplingRate,
    },
    /// A uniformly drawn set of fixed size, without replacement; make it with [`Sampling::fixed`].
    Fixed {
        /// Clients in a round, from 1 to `population`.
        size: u64,
        /// Clients to draw from.
        population: u64,
    },
}

impl Sampling {
    /// A cohort of `size` clients drawn without replacement from `population`.
    ///
    /// # Errors
    /// [`QuantityError::OutOfRange`] unless 1 ≤ `size` ≤ `population`.
    pub fn fixed(size: u64, population: u64) -> Result<Self, QuantityError> {
        if (1..=population).contains(&size) {
            return Ok(Self::Fixed { size, population });
        }
        Err(QuantityError::OutOfRange {
            parameter: "cohort size",
            value: size as f64,
            range: "at least 1 and at most the population",
        })
    }
}

/// [`Sampling`] before its check.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum UncheckedSampling {
    All,
    Poisson { rate: SamplingRate },
    Fixed { size: u64, population: u64 },
}

impl TryFrom<UncheckedSampling> for Sampling {
    type Error = QuantityError;
    fn try_from(unchecked: UncheckedSampling) -> Result<Self, QuantityError> {
        match unchecked {
            UncheckedSampling::All => Ok(Self::All),
            UncheckedSampling::Poisson { rate } => Ok(Self::Poisson { rate }),
            UncheckedSampling::Fixed { size, population } => Self::fixed(size, population),
        }
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Poisson { rate } => write!(f, "poisson:{rate}"),
            Self::Fixed { size, population } => write!(f, "fixed:{size}/{population}"),
        }
    }
}

impl FromStr for Sampling {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let unknown = || QuantityError::Unknown {
            parameter: "sampling",
            value: text.to_owned(),
            known: "all, poisson:RATE, fixed:SIZE/POPULATION",
        };
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(rate) = text.strip_prefix("poisson:") {
            return Ok(Self::Poisson { rate: rate.parse()? });
        }
        let (size, population) =
            text.strip_prefix("fixed:").and_then(|rest| rest.split_once('/')).ok_or_else(unknown)?;
        let count = |digits: &str| digits.parse().map_err(|_| unknown());
        Self::fixed(count(size)?, count(population)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_its_range_is_refused_with_name_value_and_range() {
        let error = SamplingRate::new(1.5).unwrap_err();
        assert_eq!(error.to_string(), "sampling rate is 1.5, but must be above 0 and at most 1");
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(NoiseMultiplier::new(value).is_err(), "{value}");
            assert!(ClipNorm::new(value).is_err(), "{value}");
        }
        for value in [0.0, 1.0, f64::NAN, -0.1] {
            assert!(Delta::new(value).is_err(), "{value}");
        }
        assert!(SamplingRate::new(0.0).is_err());
        assert!(Epsilon::new(-1e-9).is_err());
        assert!(Epsilon::new(f64::NAN).is_err());
        assert!(Epsilon::new(f64::INFINITY).is_ok());
    }

    #[test]
    fn a_part_of_a_cohort_is_rounded_down_but_not_by_the_digits_of_the_fraction() {
        for (fraction, cohort, expected) in
            [(0.1, 10, 1), (0.29, 100, 29), (0.1, 19, 1), (0.05, 10, 0), (0.3, 10, 3)]
        {
            assert_eq!(
                CorruptFraction::new(fraction).unwrap().of(cohort),
                expected,
                "{fraction} of {cohort}"
            );
        }
        // The ends of the range, of which only the lower one belongs to it.
        assert!(CorruptFraction::new(0.0).is_ok() && CorruptFraction::new(1.0).is_err());
        assert!(CorruptFraction::new(-0.1).is_err() && CorruptFraction::new(f64::NAN).is_err());
    }

    #[test]
    fn deserialising_runs_the_constructor() {
        assert!(serde_json::from_str::<Delta>("1e-5").is_ok());
        assert!(serde_json::from_str::<Delta>("2").is_err());
        assert!(serde_json::from_str::<Epsilon>("-1").is_err());
        assert!(serde_json::from_str::<Sampling>(r#"{"fixed":{"size":9,"population":3}}"#).is_err());
        assert!(serde_json::from_str::<Sampling>(r#"{"poisson":{"rate":1.1}}"#).is_err());
    }

    #[test]
    fn an_infinite_epsilon_survives_json() {
        let text = serde_json::to_string(&Epsilon::INFINITE).unwrap();
        assert_eq!(text, "\"infinity\"");
        assert_eq!(serde_json::from_str::<Epsilon>(&text).unwrap(), Epsilon::INFINITE);
        assert_eq!(serde_json::from_str::<Epsilon>("2").unwrap().get(), 2.0);
    }

    #[test]
    fn text_forms_are_stable_and_read_back() {
        for (adjacency, text) in [
            (Adjacency::AddOrRemove, "add-or-remove"),
            (Adjacency::ZeroOut, "zero-out"),
            (Adjacency::Replace, "replace"),
        ] {
            assert_eq!(adjacency.to_string(), text);
            assert_eq!(text.parse(), Ok(adjacency));
            assert_eq!(serde_json::to_string(&adjacency).unwrap(), format!("\"{text}\""));
        }
        let sampling = |text: &str| text.parse::<Sampling>();
        for text in ["all", "poisson:0.01", "fixed:100/10000"] {
            assert_eq!(sampling(text).unwrap().to_string(), text);
        }
        for text in ["poisson", "poisson:x", "poisson:2", "fixed:3", "fixed:3/2", "shuffled", ""] {
            assert!(sampling(text).is_err(), "{text}");
        }
        let json = serde_json::to_string(&Sampling::fixed(2, 5).unwrap()).unwrap();
        assert_eq!(json, r#"{"fixed":{"size":2,"population":5}}"#);
        assert_eq!(serde_json::from_str::<Sampling>(&json).unwrap(), Sampling::fixed(2, 5).unwrap());
    }
}
