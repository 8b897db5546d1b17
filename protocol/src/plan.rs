//! The plan of a round: what the server commits to before anyone is invited.
//!
//! A plan is signed only against a reservation of privacy budget for the same round and mechanism, so no plan
//! exists without one. Its encoding is canonical and of our own, so that what is signed never depends on a library.

mod cohort;
mod promise;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use skep_privacy::budget::Reservation;
use skep_privacy::canonical::{CanonicalError, Reader, Writer};
use skep_privacy::grid::{Encoding, Grid};
use skep_privacy::ledger::{
    Checkpoint, NoteError, SignedCheckpoint, noise_of_round, read_sampling, write_sampling,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::Sampling;
use thiserror::Error;

pub use skep_privacy::ledger::{PublicKey as PlanKey, Signer as PlanSigner};

use crate::experiment::{Asked, Task, Weighting};
use crate::ids::{Digest, Round};
use crate::masked::Groups;
use crate::round::Decline;
use crate::time::Span;

pub use cohort::{COHORT_MAX, Cohort};
pub use promise::{Claim, Masking, Promise, Released};

/// What every participant of one round must agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The task, by digest.
    pub task: Digest,
    /// The round, or the query after one, whose updates are answers.
    pub round: Round,
    /// Rounds in the schedule.
    pub rounds: u64,
    /// The model that clients start from, by digest.
    pub base_model: Digest,
    /// The parts of an update, in order.
    pub segments: Vec<Segment>,
    /// The grid on which updates are integers.
    pub encoding: Encoding,
    /// What is promised.
    pub promise: Promise,
    /// Who is invited; the rate is that of invitations and never recomputed from who is connected.
    pub sampling: Sampling,
    /// Clients in the population; public.
    pub population: u64,
    /// The largest possible cohort: no sum has more members.
    pub cohort_max: u32,
    /// Who is invited to a masked round; nobody is named in others.
    pub cohort: Cohort,
    /// The weights of the mean.
    pub weighting: Weighting,
    /// The generator of noise and rounding.
    pub prg: PrgId,
    /// When the collection of updates ends.
    pub closure: Closure,
    /// The fewest updates that the round may be released with.
    pub min_updates: u32,
    /// The end of the round after its start.
    pub deadline: Span,
}

/// A named part of an update; adapters, private heads and per-layer bounds refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it holds.
    pub name: String,
    /// Its coordinates.
    pub len: u64,
}

/// When the collection of updates ends, if not at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Closure {
    /// When all invited have answered. Private rounds know no other: closing at the first k of n would let
    /// one client's speed decide whether another is in the sum, and double the sensitivity.
    AllAnswered,
    /// As soon as so many updates are committed.
    FirstUpdates(u32),
}

impl Plan {
    /// The mechanism that the budget was reserved for.
    pub fn mechanism(&self) -> Mechanism {
        match (self.encoding.sensitivity, u32::try_from(self.update_len())) {
            (Some(sensitivity), Ok(dimension)) => {
                self.promise.mechanism(sensitivity, dimension, self.least_released())
            }
            _ => Mechanism::None,
        }
    }

    /// The fewest updates in any sum that recipients are taken to see.
    pub fn least_released(&self) -> u32 {
        self.masking().map_or(self.min_updates, |masking| masking.least_released(self.min_updates))
    }

    /// How updates are masked, where the server sees sums only.
    pub fn masking(&self) -> Option<&Masking> {
        self.promise.masking()
    }

    /// The grid that the plan describes.
    ///
    /// # Errors
    /// [`Decline::Inconsistent`] when its numbers are not those that follow from clip norm, length, cohort and noise.
    pub fn grid(&self) -> Result<Grid, Decline> {
        let dimension = usize::try_from(self.update_len()).map_err(|_| Decline::Inconsistent)?;
        self.promise.grid(&self.encoding, dimension, self.cohort_max).map_err(|_| Decline::Inconsistent)
    }

    /// Whether a client that was told `task`, whose digest is `digest`, can take part.
    ///
    /// # Errors
    /// [`Decline::WrongTask`] or [`Decline::Inconsistent`].
    pub fn check(&self, task: &Task, digest: &Digest) -> Result<(), Decline> {
        if self.task != *digest {
            return Err(Decline::WrongTask);
        }
        let private = !matches!(self.promise, Promise::None);
        // What goes beside an update reveals a client's data and is not in the sensitivity.
        if private && self.weighting != Weighting::Uniform {
            return Err(Decline::Inconsistent);
        }
        let of_schedule = |asked: Asked| {
            self.rounds == asked.rounds
                && self.round.training().0 <= asked.rounds
                && self.promise.mode() == asked.mode
        };
        let expected = if self.round.is_query() {
            self.check_query(task.asked.filter(|asked| of_schedule(*asked)))?;
            Asked::NAMES.len() as u64
        } else {
            let parameters = task.parameter_count().ok_or(Decline::WrongTask)?;
            parameters + self.weighting.coordinates(parameters)
        };
        let closes_early = private && self.closure != Closure::AllAnswered;
        // Who masks must know how many others do.
        let unknown_cohort = self.masking().is_some() && matches!(self.sampling, Sampling::Poisson { .. });
        let named = if self.masking().is_some() { self.cohort_max } else { 0 };
        let sound = self.promise.is_sound(self.cohort_max, self.min_updates);
        // Else a query could be hidden less than the rounds are.
        let sound = sound && task.asked.is_none_or(of_schedule);
        if self.update_len() != expected
            || self.cohort.size() != named
            || closes_early
            || unknown_cohort
            || !sound
            || self.min_updates == 0
            || self.min_updates > self.cohort_max
        {
            return Err(Decline::Inconsistent);
        }
        self.grid().map(|_| ())
    }

    /// Whether what the task asks has this query: after this round, with answers bounded and hidden as it says. How many rounds there
    /// are is the task's word, not the plan's, or every round could be called the last. That none is asked twice follows from the
    /// order of rounds.
    fn check_query(&self, asked: Option<Asked>) -> Result<(), Decline> {
        let Some(Asked { query, rounds, .. }) = asked else { return Err(Decline::Unplanned) };
        let bound = self.promise.claim().map(|claim| claim.clip_norm);
        let noise = noise_of_round(&self.mechanism()).unwrap_or(0.0);
        // The noise of shares is stated as a double below the real one.
        let hidden = noise >= query.noise_multiplier * (1.0 - 1e-9);
        let round = self.round.training().0;
        if round == 0 || !query.is_due(round, rounds) || bound != Some(Asked::clip_norm()) || !hidden {
            return Err(Decline::Unplanned);
        }
        Ok(())
    }

    /// Coordinates of an update.
    pub fn update_len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Bytes of a packed update.
    pub fn upload_bytes(&self) -> u64 {
        // Both factors are bounded where plans are read and made.
        (self.update_len() * u64::from(self.encoding.wire_bits)).div_ceil(8)
    }

    /// The digest that names the plan.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(DOMAIN);
        writer.array(&self.task.0).u64(self.round.0).u64(self.rounds).array(&self.base_model.0);
        writer.length(self.segments.len());
        for segment in &self.segments {
            writer.text(&segment.name).u64(segment.len);
        }
        writer
            .f64(self.encoding.step)
            .u64(self.encoding.sensitivity.unwrap_or(0))
            .u32(self.encoding.wire_bits);
        self.promise.write(&mut writer);
        write_sampling(&self.sampling, &mut writer);
        writer.u64(self.population).u32(self.cohort_max);
        match self.weighting {
            Weighting::Uniform => writer.u32(0),
            Weighting::Examples { max } => writer.u32(max),
            Weighting::PerStep { max } => writer.u32(OTHER_WEIGHTING).u8(1).u32(max),
            Weighting::ByLoss { q } => writer.u32(OTHER_WEIGHTING).u8(2).f64(q),
            Weighting::Controlled => writer.u32(OTHER_WEIGHTING).u8(3),
        };
        writer.u32(u32::from(self.prg.number()));
        writer.u32(match self.closure {
            Closure::AllAnswered => 0,
            Closure::FirstUpdates(count) => count,
        });
        writer.u32(self.min_updates).u64(self.deadline.as_millis());
        if self.masking().is_some() {
            self.cohort.write(&mut writer);
        }
        writer.finish()
    }

    /// Decodes a canonical encoding.
    ///
    /// # Errors
    /// [`CanonicalError`] for anything but the bytes of [`Plan::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan, CanonicalError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        let mut plan = Plan {
            task: Digest(reader.array()?),
            round: Round(reader.u64()?),
            rounds: reader.u64()?,
            base_model: Digest(reader.array()?),
            segments: read_segments(&mut reader)?,
            encoding: read_encoding(&mut reader)?,
            promise: Promise::read(&mut reader)?,
            sampling: read_sampling(&mut reader)?,
            population: reader.u64()?,
            cohort_max: reader.u32()?,
            cohort: Cohort::default(),
            weighting: match reader.u32()? {
                0 => Weighting::Uniform,
                OTHER_WEIGHTING => match reader.u8()? {
                    1 => Weighting::PerStep { max: reader.u32()? },
                    2 => Weighting::ByLoss { q: reader.f64()? },
                    3 => Weighting::Controlled,
                    _ => return Err(CanonicalError::OutOfRange("weighting")),
                },
                max => Weighting::Examples { max },
            },
            prg: read_prg(&mut reader)?,
            closure: match reader.u32()? {
                0 => Closure::AllAnswered,
                count => Closure::FirstUpdates(count),
            },
            min_updates: reader.u32()?,
            deadline: Span::from_millis(reader.u64()?),
        };
        if plan.masking().is_some() {
            plan.cohort = Cohort::read(&mut reader)?;
        }
        reader.finish()?;
        Ok(plan)
    }
}

fn read_segments(reader: &mut Reader<'_>) -> Result<Vec<Segment>, CanonicalError> {
    let count = reader.length(12)?;
    let mut total = 0u64;
    (0..count)
        .map(|_| {
            let segment = Segment { name: reader.text("segment name")?.to_owned(), len: reader.u64()? };
            total = total.saturating_add(segment.len);
            if total > MAX_COORDINATES {
                return Err(CanonicalError::OutOfRange("length of an update"));
            }
            Ok(segment)
        })
        .collect()
}

fn read_encoding(reader: &mut Reader<'_>) -> Result<Encoding, CanonicalError> {
    let encoding = Encoding {
        step: reader.f64()?,
        sensitivity: Some(reader.u64()?).filter(|&sensitivity| sensitivity > 0),
        wire_bits: reader.u32()?,
    };
    if !(1..=32).contains(&encoding.wire_bits) {
        return Err(CanonicalError::OutOfRange("wire bits"));
    }
    Ok(encoding)
}

fn read_prg(reader: &mut Reader<'_>) -> Result<PrgId, CanonicalError> {
    u16::try_from(reader.u32()?)
        .ok()
        .and_then(|number| PrgId::try_from(number).ok())
        .ok_or(CanonicalError::OutOfRange("generator"))
}

/// A plan as it travels: its canonical bytes and the signature over their digest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPlan {
    bytes: Vec<u8>,
    signature: Vec<u8>,
    /// A checkpoint of the server's ledger in which the round is charged, as a signed note.
    checkpoint: Option<String>,
}

impl fmt::Debug for SignedPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedPlan({} bytes)", self.bytes.len())
    }
}

/// A plan whose signature holds; the machines know no other.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedPlan {
    plan: Plan,
    digest: Digest,
    signed: SignedPlan,
    checkpoint: Option<Checkpoint>,
    worked_out: WorkedOut,
}

/// What follows from a plan, worked out when it is first asked for: for a large cohort that takes milliseconds, and in a
/// simulation thousands of clients ask.
#[derive(Clone, Debug, Default)]
struct WorkedOut {
    /// Whether a client with this task can take part.
    check: OnceLock<(Task, Result<(), Decline>)>,
    groups: OnceLock<Result<Groups, Decline>>,
}

impl PartialEq for WorkedOut {
    /// It follows from the plan, which is compared.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Why a plan cannot be signed or believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The reservation is for something else.
    #[error("the plan and the reservation of budget differ in their {0}")]
    NotReserved(&'static str),
    /// The bytes are no plan.
    #[error("the plan cannot be read: {0}")]
    Encoding(#[from] CanonicalError),
    /// The checkpoint beside the plan is not the server's.
    #[error("the plan's checkpoint of the ledger is refused: {0}")]
    Checkpoint(#[from] NoteError),
    /// The signature is not the server's.
    #[error("the plan's signature is not that of this federation's server")]
    Signature,
}

impl VerifiedPlan {
    /// Signs a plan for which budget is reserved.
    ///
    /// # Errors
    /// [`PlanError::NotReserved`] when round or mechanism differ from the reservation's.
    pub fn sign(plan: Plan, reservation: &Reservation, signer: &PlanSigner) -> Result<Arc<Self>, PlanError> {
        if plan.round.training().0 != reservation.round()
            || plan.round.is_query() == reservation.occasion().is_round()
        {
            return Err(PlanError::NotReserved("round"));
        }
        if plan.mechanism() != reservation.mechanism() {
            return Err(PlanError::NotReserved("mechanism"));
        }
        let bytes = plan.to_bytes();
        let digest = Digest::of(&bytes);
        let signature = signer.sign(&signed_text(&digest)).to_vec();
        let signed = SignedPlan { bytes, signature, checkpoint: None };
        Ok(Arc::new(VerifiedPlan {
            plan,
            digest,
            signed,
            checkpoint: None,
            worked_out: WorkedOut::default(),
        }))
    }

    /// The same plan beside a checkpoint of the ledger that `signer` keeps, which its clients can compare with the last one
    /// that they saw.
    #[must_use]
    pub fn beside(&self, checkpoint: Checkpoint, signer: &PlanSigner) -> Arc<Self> {
        let mut plan = self.clone();
        plan.signed.checkpoint = Some(checkpoint.sign(signer));
        plan.checkpoint = Some(checkpoint);
        Arc::new(plan)
    }

    /// The checkpoint of the server's ledger beside the plan.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// [`Plan::check`], worked out once.
    ///
    /// # Errors
    /// As [`Plan::check`].
    pub fn check(&self, task: &Task) -> Result<(), Decline> {
        let check = || self.plan.check(task, &task.digest());
        match self.worked_out.check.get_or_init(|| (task.clone(), check())) {
            (known, result) if known == task => *result,
            _ => check(),
        }
    }

    /// What `work` makes of the plan, worked out once.
    pub(crate) fn groups(&self, work: impl FnOnce() -> Result<Groups, Decline>) -> Result<Groups, Decline> {
        self.worked_out.groups.get_or_init(work).clone()
    }

    /// The plan as it travels.
    pub fn signed(&self) -> &SignedPlan {
        &self.signed
    }
}

impl SignedPlan {
    /// Checks the signature, then reads the plan.
    ///
    /// # Errors
    /// [`PlanError::Signature`] or [`PlanError::Encoding`].
    pub fn verify(self, key: &PlanKey) -> Result<Arc<VerifiedPlan>, PlanError> {
        let digest = Digest::of(&self.bytes);
        if !key.verifies(&signed_text(&digest), &self.signature) {
            return Err(PlanError::Signature);
        }
        let plan = Plan::from_bytes(&self.bytes)?;
        let checkpoint = match &self.checkpoint {
            Some(note) => Some(SignedCheckpoint::parse(note)?.verify(key)?.clone()),
            None => None,
        };
        let worked_out = WorkedOut::default();
        Ok(Arc::new(VerifiedPlan { plan, digest, signed: self, checkpoint, worked_out }))
    }
}

fn signed_text(digest: &Digest) -> Vec<u8> {
    let mut writer = Writer::new("skep plan signature v1");
    writer.array(&digest.0);
    writer.finish()
}

const DOMAIN: &str = "skep plan v1";
/// No largest weight of a client: which weighting it is follows.
const OTHER_WEIGHTING: u32 = u32::MAX;
/// Far above any model, far below an overflow of the products made with it.
const MAX_COORDINATES: u64 = 1 << 40;
