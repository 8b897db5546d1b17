//! What a plan promises about an update, and by whom it is kept.

use skep_privacy::client_noise::{ClientNoise, NoisedGrid};
use skep_privacy::grid::{Encoding, Grid, GridError, PrivateGrid, PublicGrid};
use skep_privacy::ledger::Mode;
use skep_privacy::mechanism::{Mechanism, ShareVariance};
use skep_privacy::quantities::{Adjacency, ClipNorm, CorruptFraction, Delta, DropoutFraction, Epsilon, Unit};
use skep_privacy::secagg::{Params, ParamsError, corrupt_in_group};

use crate::canonical::{CanonicalError, Reader, Writer};

/// What is promised about an update, and by whom it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    /// Nothing: the server sees each update, recipients see the mean.
    None,
    /// The server adds noise to the sum of clipped updates (against recipients of models only).
    Central {
        /// What is claimed.
        claim: Claim,
        /// Standard deviation of the noise on the sum, in grid units.
        sigma: u64,
        /// How updates are masked, if the server is to see their sum only.
        masking: Option<Masking>,
    },
    /// Every client adds a share of the noise, and the server sees the sum only.
    Distributed {
        /// What is claimed.
        claim: Claim,
        /// Variance of a client's share.
        share: ShareVariance,
        /// Shares in every sum that the server learns which neither it nor its clients know: the fewest updates of a group
        /// less its most corrupt clients.
        honest: u32,
        /// How updates are masked.
        masking: Masking,
    },
    /// Every client adds all of the noise.
    Local {
        /// What is claimed.
        claim: Claim,
        /// Standard deviation of the noise on an update, in grid units.
        sigma: u64,
    },
}

/// What clients are told that the rounds so far have cost, this one included, and in what terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// L2 bound of an update, in units of the parameters.
    pub clip_norm: ClipNorm,
    /// What neighbouring populations differ by.
    pub unit: Unit,
    /// In which way they differ.
    pub adjacency: Adjacency,
    /// The delta of every epsilon.
    pub delta: Delta,
    /// Spent against recipients of models.
    pub epsilon_release: Epsilon,
    /// Spent against the server with its corrupt clients; infinite where nothing is promised.
    pub epsilon_server: Epsilon,
    /// Spent against the server when every other client is corrupt; infinite where nothing is promised.
    pub epsilon_alone: Epsilon,
}

/// How the updates of a cohort are masked, so that the server learns their sum only, or those of its groups: the parameters of
/// secure aggregation (Bell, Bonawitz, Gascón, Lepoint and Raykova, ia.cr/2020/704).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// The largest part of a cohort that may be the server's own.
    pub max_corrupt_fraction: CorruptFraction,
    /// Clients of a group, each of which has a protocol run and a sum of its own; the whole cohort if it is one group.
    pub group_size: u32,
    /// The fewest updates of a group; with fewer, its sum is dropped.
    pub group_min_updates: u32,
    /// Clients that hold shares of a client's secrets, k.
    pub degree: u32,
    /// Shares that give a secret back, t.
    pub threshold: u32,
    /// Of what the model is made, which is what its recipients are taken to see.
    pub released: Released,
}

/// What a masked round releases of the sums of its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Released {
    /// Their total: the noise of the whole cohort hides a client from recipients.
    #[default]
    Total,
    /// Each of them, or something that is made of them one by one, as a median is. A client is in one group, so the noise of
    /// that group hides it, and no more.
    EachGroup,
}

impl Masking {
    /// The parameters for a cohort that may shrink to `min_updates`.
    ///
    /// # Errors
    /// [`ParamsError`] when none are safe.
    pub fn plan(
        cohort: u32,
        min_updates: u32,
        min_cohort: u32,
        max_corrupt_fraction: CorruptFraction,
    ) -> Result<Self, ParamsError> {
        Self::plan_groups(cohort, cohort, min_updates, min_cohort, max_corrupt_fraction)
    }

    /// The parameters for a cohort in groups of `group_size`, each of which may shrink to `group_min_updates`.
    ///
    /// # Errors
    /// [`ParamsError`] when none are safe.
    pub fn plan_groups(
        cohort: u32,
        group_size: u32,
        group_min_updates: u32,
        min_cohort: u32,
        max_corrupt_fraction: CorruptFraction,
    ) -> Result<Self, ParamsError> {
        let others = f64::from(group_size.max(2) - 1);
        let dropped = f64::from(group_size.saturating_sub(group_min_updates)) / others;
        // All of the others may drop out as far as this goes; the number of holders that are left decides.
        let dropouts = DropoutFraction::new(dropped.min(1.0_f64.next_down()))
            .expect("a quotient of a smaller and a larger number of clients");
        let corrupt = corrupt(cohort, group_size, max_corrupt_fraction);
        let params = Params::plan_against(group_size, min_cohort, corrupt, dropouts)?;
        let (degree, threshold) = (params.degree(), params.threshold());
        let released = Released::Total;
        Ok(Masking { max_corrupt_fraction, group_size, group_min_updates, degree, threshold, released })
    }

    /// The same numbers, if whoever must rely on them would call them safe in groups of at least `min_cohort`.
    ///
    /// # Errors
    /// [`ParamsError`] with the first number that is not.
    pub fn params(&self, cohort: u32, min_cohort: u32) -> Result<Params, ParamsError> {
        let (size, corrupt) = (self.group_size, self.corrupt(cohort));
        Params::verify_against(size, self.degree, self.threshold, min_cohort, corrupt)
    }

    /// The most clients of a group that may be the server's own: ⌊γn⌋ if the cohort is one, otherwise what chance leaves.
    pub fn corrupt(&self, cohort: u32) -> u32 {
        corrupt(cohort, self.group_size, self.max_corrupt_fraction)
    }

    /// The fewest updates in any sum that recipients are taken to see, in a cohort that is released with `min_updates`.
    pub fn least_released(&self, min_updates: u32) -> u32 {
        match self.released {
            Released::Total => min_updates,
            Released::EachGroup => self.group_min_updates,
        }
    }

    /// Groups of a cohort.
    pub fn groups(&self, cohort: u32) -> u32 {
        cohort / self.group_size.max(1)
    }

    /// Whether the groups make up a cohort that is released with at least `min_updates`.
    fn divides(&self, cohort: u32, min_updates: u32) -> bool {
        let Masking { group_size, group_min_updates, .. } = *self;
        let whole = group_size > 0 && group_size <= cohort && cohort.is_multiple_of(group_size);
        whole
            && group_min_updates <= group_size.min(min_updates)
            && (group_size < cohort || group_min_updates == min_updates)
    }
}

fn corrupt(cohort: u32, group_size: u32, max_corrupt_fraction: CorruptFraction) -> u32 {
    corrupt_in_group(cohort, group_size, max_corrupt_fraction.of(cohort))
}

impl Promise {
    /// Who adds noise.
    pub const fn mode(&self) -> Mode {
        match self {
            Promise::None => Mode::None,
            Promise::Central { masking: None, .. } => Mode::Central,
            Promise::Central { masking: Some(_), .. } => Mode::CentralSecureAggregation,
            Promise::Distributed { .. } => Mode::Distributed,
            Promise::Local { .. } => Mode::Local,
        }
    }

    /// What is claimed, where anything is promised.
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Promise::None => None,
            Promise::Central { claim, .. }
            | Promise::Distributed { claim, .. }
            | Promise::Local { claim, .. } => Some(claim),
        }
    }

    /// How updates are masked, where the server sees sums only.
    pub fn masking(&self) -> Option<&Masking> {
        match self {
            Promise::None | Promise::Local { .. } => None,
            Promise::Central { masking, .. } => masking.as_ref(),
            Promise::Distributed { masking, .. } => Some(masking),
        }
    }

    /// Whether a cohort of `cohort` clients, at least `min_updates` of which must stay, can keep it: there is noise, and the
    /// masking is safe.
    pub(super) fn is_sound(&self, cohort: u32, min_updates: u32) -> bool {
        let masked = self.masking().is_none_or(|masking| {
            let enough = |params: Params| masking.group_min_updates >= params.survivors_min();
            masking.divides(cohort, min_updates) && masking.params(cohort, 0).is_ok_and(enough)
        });
        let noise = match *self {
            Promise::None => true,
            // The server adds its noise to the total, so none is in what each group would release.
            Promise::Central { masking: Some(Masking { released: Released::EachGroup, .. }), .. } => false,
            Promise::Central { sigma, .. } | Promise::Local { sigma, .. } => sigma > 0,
            Promise::Distributed { honest, masking, .. } => {
                let corrupt = masking.corrupt(cohort);
                corrupt > 0 && honest > 0 && masking.group_min_updates.checked_sub(corrupt) == Some(honest)
            }
        };
        masked && noise
    }

    /// The grid of updates of so many coordinates, if the numbers of the plan are those that follow from the promise.
    pub(super) fn grid(
        &self,
        encoding: &Encoding,
        dimension: usize,
        cohort_max: u32,
    ) -> Result<Grid, GridError> {
        let noised = |clip: ClipNorm, noise| {
            NoisedGrid::from_plan(encoding, clip, dimension, cohort_max, noise).map(Grid::from)
        };
        match *self {
            Promise::None => PublicGrid::from_plan(encoding, dimension, cohort_max).map(Grid::from),
            Promise::Central { claim, masking: None, .. } => {
                PrivateGrid::from_plan(encoding, claim.clip_norm, dimension, cohort_max).map(Grid::from)
            }
            Promise::Central { claim, masking: Some(_), .. } => {
                PrivateGrid::masked_from_plan(encoding, claim.clip_norm, dimension, cohort_max)
                    .map(Grid::from)
            }
            Promise::Distributed { claim, share, .. } => noised(claim.clip_norm, ClientNoise::Share(share)),
            Promise::Local { claim, sigma } => noised(claim.clip_norm, ClientNoise::Full { sigma }),
        }
    }

    /// The mechanism that keeps it, for updates of this sensitivity and length.
    pub(super) fn mechanism(&self, sensitivity: u64, dimension: u32, least_updates: u32) -> Mechanism {
        match *self {
            Promise::None => Mechanism::None,
            Promise::Central { sigma, .. } => Mechanism::RoundedGaussian { sensitivity, sigma },
            Promise::Distributed { share: variance, honest, .. } => {
                Mechanism::NoiseShares { sensitivity, variance, honest, least_updates, dimension }
            }
            Promise::Local { sigma, .. } => Mechanism::LocalGaussian { sensitivity, sigma, least_updates },
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match *self {
            Promise::None => {
                writer.u8(0);
            }
            Promise::Central { claim, sigma, masking } => {
                claim.write(writer.u8(1));
                writer.u64(sigma).u8(masking.is_some().into());
                if let Some(masking) = masking {
                    masking.write(writer);
                }
            }
            Promise::Distributed { claim, share, honest, masking } => {
                claim.write(writer.u8(2));
                writer.u64(share.numerator()).u32(share.halvings()).u32(honest);
                masking.write(writer);
            }
            Promise::Local { claim, sigma } => {
                claim.write(writer.u8(3));
                writer.u64(sigma);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let mode = reader.u8()?;
        if mode == 0 {
            return Ok(Promise::None);
        }
        let claim = Claim::read(reader)?;
        match mode {
            1 => Ok(Promise::Central {
                claim,
                sigma: reader.u64()?,
                masking: match reader.u8()? {
                    0 => None,
                    1 => Some(Masking::read(reader)?),
                    _ => return Err(CanonicalError::OutOfRange("masking")),
                },
            }),
            2 => Ok(Promise::Distributed {
                claim,
                share: ShareVariance::new(reader.u64()?, reader.u32()?)
                    .map_err(|_| CanonicalError::OutOfRange("variance of a noise share"))?,
                honest: reader.u32()?,
                masking: Masking::read(reader)?,
            }),
            3 => Ok(Promise::Local { claim, sigma: reader.u64()? }),
            _ => Err(CanonicalError::OutOfRange("trust mode")),
        }
    }
}

impl Claim {
    fn write(&self, writer: &mut Writer) {
        writer.f64(self.clip_norm.get());
        writer.text(&self.unit.to_string()).text(&self.adjacency.to_string()).f64(self.delta.get());
        writer.f64(self.epsilon_release.get());
        writer.f64(self.epsilon_server.get()).f64(self.epsilon_alone.get());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let out_of_range = CanonicalError::OutOfRange;
        Ok(Claim {
            clip_norm: ClipNorm::new(reader.f64()?).map_err(|_| out_of_range("clip norm"))?,
            unit: reader.text("unit")?.parse().map_err(|_| out_of_range("unit"))?,
            adjacency: reader.text("adjacency")?.parse().map_err(|_| out_of_range("adjacency"))?,
            delta: Delta::new(reader.f64()?).map_err(|_| out_of_range("delta"))?,
            epsilon_release: read_epsilon(reader)?,
            epsilon_server: read_epsilon(reader)?,
            epsilon_alone: read_epsilon(reader)?,
        })
    }
}

impl Masking {
    fn write(&self, writer: &mut Writer) {
        writer.f64(self.max_corrupt_fraction.get()).u32(self.group_size).u32(self.group_min_updates);
        writer.u32(self.degree).u32(self.threshold);
        writer.u8(match self.released {
            Released::Total => 0,
            Released::EachGroup => 1,
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Masking {
            max_corrupt_fraction: CorruptFraction::new(reader.f64()?)
                .map_err(|_| CanonicalError::OutOfRange("corrupt fraction"))?,
            group_size: reader.u32()?,
            group_min_updates: reader.u32()?,
            degree: reader.u32()?,
            threshold: reader.u32()?,
            released: match reader.u8()? {
                0 => Released::Total,
                1 => Released::EachGroup,
                _ => return Err(CanonicalError::OutOfRange("what is released of groups")),
            },
        })
    }
}

fn read_epsilon(reader: &mut Reader<'_>) -> Result<Epsilon, CanonicalError> {
    Epsilon::new(reader.f64()?).map_err(|_| CanonicalError::OutOfRange("epsilon"))
}
