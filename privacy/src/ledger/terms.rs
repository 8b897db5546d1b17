//! What a ledger is about and what it allows: population, budget, schedule.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::record::Occasion;
use super::{Hash, RoundTerms};
use crate::canonical::{CanonicalError, Reader, Writer};
use crate::mechanism::{Mechanism, ShareVariance};
use crate::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, Sampling, SamplingRate, Unit};

/// Everyone whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Population {
    /// The root of the roster: populations with different roots are different.
    pub root: Hash,
    /// Clients in it; public.
    pub size: u64,
}

/// Where a ledger's rounds happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// A server with clients anywhere.
    Deployment,
    /// A simulation; every client is a figure.
    Simulation,
    /// A simulation whose noise follows from a known seed and hides nothing: nothing in the ledger is certified.
    SeededSimulation,
}

/// Who adds noise, which decides against whom a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nobody.
    None,
    /// The server, to a sum whose summands it sees.
    Central,
    /// The server, to a sum that is all it sees.
    CentralSecureAggregation,
    /// Every client a share, under secure aggregation.
    Distributed,
    /// Every client all of it.
    Local,
}

/// What may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budget {
    /// What neighbouring populations differ by.
    pub unit: Unit,
    /// In which way.
    pub adjacency: Adjacency,
    /// The delta of every epsilon, below one over the population.
    pub delta: Delta,
    /// The limit against those who receive models.
    pub limit_release: Epsilon,
    /// The limit against the server; infinite where the server is trusted.
    pub limit_server: Epsilon,
}

/// The rounds that are fixed in advance, and the queries between them. As long as a ledger keeps to them, its epsilon is that of
/// privacy loss distributions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// The noise of every round.
    #[serde(serialize_with = "mechanism_as_text")]
    pub mechanism: Mechanism,
    /// Who is invited to every round.
    pub sampling: Sampling,
    /// How many rounds at most; none: as many as the limit allows, a number that follows from the rest.
    pub rounds: Option<u64>,
    /// What is asked after rounds; none: every query is a departure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<PlannedQuery>,
}

/// A query that is fixed in advance: it comes after every so many rounds, and after the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PlannedQuery {
    /// What it is for.
    pub occasion: Occasion,
    /// The noise on what is said.
    #[serde(serialize_with = "mechanism_as_text")]
    pub mechanism: Mechanism,
    /// Who is asked.
    pub sampling: Sampling,
    /// Rounds from one to the next.
    pub every: NonZeroU64,
}

impl PlannedQuery {
    /// How many of them belong to so many rounds, if no more follow.
    #[must_use]
    pub const fn due(&self, rounds: u64) -> u64 {
        rounds.div_ceil(self.every.get())
    }

    /// The part that privacy depends on, where noise is added in this mode.
    #[must_use]
    pub const fn terms(&self, mode: Mode) -> RoundTerms {
        RoundTerms { mode, mechanism: self.mechanism, sampling: self.sampling }
    }
}

/// How often one client may take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Participation {
    /// In how many rounds at most.
    pub max: u64,
    /// Rounds from one to the next, at least 1.
    pub min_separation: u64,
}

/// What each client does for its single examples, by its own account: DP-SGD (Abadi et al., 1607.00133). What that costs depends on how
/// many examples a client has, so no record of a server's ledger states it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExampleTerms {
    /// Noise on the sum of a batch's gradients over the bound of one.
    pub noise_multiplier: NoiseMultiplier,
    /// The delta of every client's account.
    pub delta: Delta,
    /// What no client's account may exceed.
    pub limit: Epsilon,
    /// Over so many rounds.
    pub rounds: u64,
}

/// What a population was promised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Terms {
    /// Who adds noise.
    pub mode: Mode,
    /// What may be spent; none where nothing is promised of whole clients.
    pub budget: Option<Budget>,
    /// What is promised of single examples instead, by each client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExampleTerms>,
    /// What is planned.
    pub schedule: Schedule,
    /// How often one client may take part; none: in every round.
    pub participation: Option<Participation>,
}

impl Mode {
    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Central => 1,
            Self::CentralSecureAggregation => 2,
            Self::Distributed => 3,
            Self::Local => 4,
        }
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.u8(self.number());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let number = reader.u8()?;
        [Self::None, Self::Central, Self::CentralSecureAggregation, Self::Distributed, Self::Local]
            .into_iter()
            .find(|mode| mode.number() == number)
            .ok_or(CanonicalError::OutOfRange("trust mode"))
    }

    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Central => "central",
            Self::CentralSecureAggregation => "central with secure aggregation",
            Self::Distributed => "distributed",
            Self::Local => "local",
        }
    }
}

impl Provenance {
    pub(super) fn write(self, writer: &mut Writer) {
        writer.u8(match self {
            Self::Deployment => 0,
            Self::Simulation => 1,
            Self::SeededSimulation => 2,
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        match reader.u8()? {
            0 => Ok(Self::Deployment),
            1 => Ok(Self::Simulation),
            2 => Ok(Self::SeededSimulation),
            _ => Err(CanonicalError::OutOfRange("provenance")),
        }
    }
}

impl Population {
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array(&self.root.0).u64(self.size);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self { root: Hash(reader.array()?), size: reader.u64()? })
    }
}

impl Terms {
    /// Whether delta is below one over the population, as it must be: a mechanism that publishes a client in full with
    /// probability delta would otherwise be allowed to.
    #[must_use]
    pub fn delta_suits(&self, population: u64) -> bool {
        self.budget.is_none_or(|budget| budget.delta.get() * (population as f64) < 1.0)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.mode.write(writer);
        writer.u8(match (&self.budget, &self.examples) {
            (Some(_), _) => 1,
            (None, Some(_)) => 2,
            (None, None) => 0,
        });
        if let (None, Some(examples)) = (&self.budget, &self.examples) {
            writer.f64(examples.noise_multiplier.get()).f64(examples.delta.get());
            writer.f64(examples.limit.get()).u64(examples.rounds);
        }
        if let Some(budget) = &self.budget {
            writer.text(&budget.unit.to_string()).text(&budget.adjacency.to_string());
            writer.f64(budget.delta.get()).f64(budget.limit_release.get()).f64(budget.limit_server.get());
        }
        write_mechanism(&self.schedule.mechanism, writer);
        write_sampling(&self.schedule.sampling, writer);
        // Terms without a query are written as before there were any.
        let flag = u8::from(self.schedule.rounds.is_some()) + 2 * u8::from(self.schedule.query.is_some());
        writer.u8(flag).u64(self.schedule.rounds.unwrap_or(0));
        if let Some(query) = &self.schedule.query {
            writer.u8(query.occasion.number());
            write_mechanism(&query.mechanism, writer);
            write_sampling(&query.sampling, writer);
            writer.u64(query.every.get());
        }
        let (max, separation) =
            self.participation.map_or((0, 0), |limits| (limits.max, limits.min_separation));
        writer.u64(max).u64(separation);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let mode = Mode::read(reader)?;
        let (mut budget, mut examples) = (None, None);
        match reader.u8()? {
            0 => {}
            2 => {
                examples = Some(ExampleTerms {
                    noise_multiplier: NoiseMultiplier::new(reader.f64()?)
                        .map_err(|_| CanonicalError::OutOfRange("noise multiplier"))?,
                    delta: Delta::new(reader.f64()?).map_err(|_| CanonicalError::OutOfRange("delta"))?,
                    limit: read_epsilon(reader)?,
                    rounds: reader.u64()?,
                });
            }
            1 => {
                budget = Some(Budget {
                    unit: reader.text("unit")?.parse().map_err(|_| CanonicalError::OutOfRange("unit"))?,
                    adjacency: reader
                        .text("adjacency")?
                        .parse()
                        .map_err(|_| CanonicalError::OutOfRange("adjacency"))?,
                    delta: Delta::new(reader.f64()?).map_err(|_| CanonicalError::OutOfRange("delta"))?,
                    limit_release: read_epsilon(reader)?,
                    limit_server: read_epsilon(reader)?,
                });
            }
            _ => return Err(CanonicalError::OutOfRange("budget")),
        }
        let schedule = read_schedule(reader)?;
        let participation = match (reader.u64()?, reader.u64()?) {
            (0, 0) => None,
            (max, min_separation) if max > 0 && min_separation > 0 => {
                Some(Participation { max, min_separation })
            }
            _ => return Err(CanonicalError::OutOfRange("participation limit")),
        };
        Ok(Self { mode, budget, examples, schedule, participation })
    }
}

pub(super) fn write_mechanism(mechanism: &Mechanism, writer: &mut Writer) {
    match *mechanism {
        Mechanism::None => writer.u8(0),
        Mechanism::RoundedGaussian { sensitivity, sigma } => writer.u8(1).u64(sensitivity).u64(sigma),
        Mechanism::NoiseShares { sensitivity, variance, honest, least_updates, dimension } => {
            writer.u8(2).u64(sensitivity).u64(variance.numerator()).u32(variance.halvings());
            writer.u32(honest).u32(least_updates).u32(dimension)
        }
        Mechanism::LocalGaussian { sensitivity, sigma, least_updates } => {
            writer.u8(3).u64(sensitivity).u64(sigma).u32(least_updates)
        }
    };
}

pub(super) fn read_mechanism(reader: &mut Reader<'_>) -> Result<Mechanism, CanonicalError> {
    match reader.u8()? {
        0 => Ok(Mechanism::None),
        1 => Ok(Mechanism::RoundedGaussian { sensitivity: reader.u64()?, sigma: reader.u64()? }),
        2 => Ok(Mechanism::NoiseShares {
            sensitivity: reader.u64()?,
            variance: ShareVariance::new(reader.u64()?, reader.u32()?)
                .map_err(|_| CanonicalError::OutOfRange("variance of a noise share"))?,
            honest: reader.u32()?,
            least_updates: reader.u32()?,
            dimension: reader.u32()?,
        }),
        3 => Ok(Mechanism::LocalGaussian {
            sensitivity: reader.u64()?,
            sigma: reader.u64()?,
            least_updates: reader.u32()?,
        }),
        _ => Err(CanonicalError::OutOfRange("mechanism")),
    }
}

/// Writes a sampling scheme in canonical form.
pub fn write_sampling(sampling: &Sampling, writer: &mut Writer) {
    match *sampling {
        Sampling::All => writer.u8(0),
        Sampling::Poisson { rate } => writer.u8(1).f64(rate.get()),
        Sampling::Fixed { size, population } => writer.u8(2).u64(size).u64(population),
    };
}

/// Reads what [`write_sampling`] wrote.
///
/// # Errors
/// [`CanonicalError`] for anything else.
pub fn read_sampling(reader: &mut Reader<'_>) -> Result<Sampling, CanonicalError> {
    match reader.u8()? {
        0 => Ok(Sampling::All),
        1 => SamplingRate::new(reader.f64()?)
            .map(|rate| Sampling::Poisson { rate })
            .map_err(|_| CanonicalError::OutOfRange("sampling rate")),
        2 => Sampling::fixed(reader.u64()?, reader.u64()?)
            .map_err(|_| CanonicalError::OutOfRange("cohort size")),
        _ => Err(CanonicalError::OutOfRange("sampling scheme")),
    }
}

pub(super) fn read_epsilon(reader: &mut Reader<'_>) -> Result<Epsilon, CanonicalError> {
    Epsilon::new(reader.f64()?).map_err(|_| CanonicalError::OutOfRange("epsilon"))
}

fn read_schedule(reader: &mut Reader<'_>) -> Result<Schedule, CanonicalError> {
    let (mechanism, sampling) = (read_mechanism(reader)?, read_sampling(reader)?);
    let flag = reader.u8()?;
    let rounds = match (flag % 2, reader.u64()?) {
        (0, 0) => None,
        (1, rounds) => Some(rounds),
        _ => return Err(CanonicalError::OutOfRange("number of rounds")),
    };
    let query = match flag {
        0 | 1 => None,
        2 | 3 => Some(PlannedQuery {
            occasion: Occasion::query(reader.u8()?)?,
            mechanism: read_mechanism(reader)?,
            sampling: read_sampling(reader)?,
            every: NonZeroU64::new(reader.u64()?)
                .ok_or(CanonicalError::OutOfRange("rounds between queries"))?,
        }),
        _ => return Err(CanonicalError::OutOfRange("schedule")),
    };
    Ok(Schedule { mechanism, sampling, rounds, query })
}

/// A mechanism as people read it: its kind, and its noise over sensitivity.
#[must_use]
pub fn mechanism_text(mechanism: &Mechanism) -> String {
    let multiplier =
        noise_of_round(mechanism).map_or_else(|| "none".to_owned(), |noise| format!("{noise:.6}"));
    match *mechanism {
        Mechanism::None => "no noise".to_owned(),
        Mechanism::RoundedGaussian { sensitivity, sigma } => {
            format!(
                "rounded gaussian, sigma {sigma} over sensitivity {sensitivity} (multiplier {multiplier})"
            )
        }
        Mechanism::NoiseShares { sensitivity, honest, least_updates, .. } => format!(
            "discrete gaussian shares, at least {honest} over sensitivity {sensitivity} (together a multiplier of {multiplier}), in sums of \
             at least {least_updates} updates for recipients"
        ),
        Mechanism::LocalGaussian { sensitivity, sigma, .. } => format!(
            "rounded gaussian on every update, sigma {sigma} over sensitivity {sensitivity} (multiplier {multiplier})"
        ),
    }
}

/// What clients do for their single examples as people read it.
#[must_use]
pub fn examples_text(examples: &ExampleTerms) -> String {
    format!(
        "each client hides its single examples by itself, noise multiplier {} on their gradients, and takes part while its own account is \
         at most epsilon {} at delta {} over {} rounds; what that is for any of them is not in this ledger",
        examples.noise_multiplier, examples.limit, examples.delta, examples.rounds
    )
}

/// A query of a schedule as people read it.
#[must_use]
pub fn query_text(query: &PlannedQuery) -> String {
    let rounds = if query.every.get() == 1 {
        "every round".to_owned()
    } else {
        format!("every {} rounds", query.every)
    };
    format!(
        "{} after {rounds} and the last: {}, asked: {}",
        query.occasion.as_str(),
        mechanism_text(&query.mechanism),
        query.sampling
    )
}

/// The noise over sensitivity that the adversary sees whom a round is planned against; none without noise.
#[must_use]
pub fn noise_of_round(mechanism: &Mechanism) -> Option<f64> {
    match *mechanism {
        Mechanism::NoiseShares { sensitivity, variance, honest, .. } => {
            Some(variance.sigma_at_most() * f64::from(honest).sqrt() / sensitivity as f64)
        }
        _ => mechanism.noise_multiplier().map(NoiseMultiplier::get),
    }
}

pub(super) fn mechanism_as_text<S: serde::Serializer>(
    mechanism: &Mechanism,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&mechanism_text(mechanism))
}
