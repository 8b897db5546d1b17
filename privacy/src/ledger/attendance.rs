//! How often each client took part, which is what participation limits are kept by.
//!
//! Whom a round invites is secret: where cohorts are drawn by Poisson sampling, epsilon relies on it. So a record holds the
//! root over pseudonyms of its cohort, and the cohort itself is kept beside the ledger, by the one who draws it. With the
//! cohorts and the [`ParticipantsKey`] an auditor makes every root again, which was signed before anybody was invited, and
//! sees whether the limits were kept. Without them the file gives nothing away.
//!
//! Limits count the rounds of an epoch that were charged while its terms had limits. Queries are not counted.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::frame::{FrameError, Frames, frame};
use super::key::ParticipantsKey;
use super::record::{Body, Record, Reserve};
use super::{Hash, Participation, Terms, root_of};
use crate::canonical::{CanonicalError, Reader, Writer};

/// Why a client may not be invited to a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Excess {
    /// It took part as often as it may.
    #[error("it has taken part in {most} rounds, which is all that the limit allows")]
    Participations {
        /// The limit.
        most: u64,
    },
    /// It took part too short a time ago.
    #[error("it took part {since} rounds ago, and the limit asks for at least {least}")]
    Separation {
        /// Rounds from then to this one.
        since: u64,
        /// The limit.
        least: u64,
    },
}

/// How often each client took part, under the limits that hold now.
#[derive(Clone, Debug)]
pub struct Attendance {
    limit: Participation,
    /// Rounds charged under limits.
    rounds: u64,
    /// Of each client: in how many rounds, and which was the last, counted from 1.
    clients: BTreeMap<u64, (u64, u64)>,
}

impl Attendance {
    fn new(limit: Participation) -> Self {
        Self { limit, rounds: 0, clients: BTreeMap::new() }
    }

    /// Under the terms that hold from now on; a new epoch counts from nothing.
    pub(super) fn under(before: Option<Self>, terms: &Terms, new_epoch: bool) -> Option<Self> {
        let limit = terms.participation?;
        let kept = before.filter(|_| !new_epoch);
        Some(kept.map_or_else(|| Self::new(limit), |kept| Self { limit, ..kept }))
    }

    /// Whether a client may be invited to the next round.
    ///
    /// # Errors
    /// The limit that forbids it.
    pub fn allows(&self, client: u64) -> Result<(), Excess> {
        let Some(&(times, last)) = self.clients.get(&client) else { return Ok(()) };
        let (most, least) = (self.limit.max, self.limit.min_separation);
        let since = (self.rounds + 1).saturating_sub(last);
        match () {
            () if times >= most => Err(Excess::Participations { most }),
            () if since < least => Err(Excess::Separation { since, least }),
            () => Ok(()),
        }
    }

    /// Counts a round that is charged.
    pub(super) fn count(&mut self, cohort: &[u64]) {
        self.rounds += 1;
        for client in cohort {
            let (times, last) = self.clients.entry(*client).or_default();
            (*times, *last) = (*times + 1, self.rounds);
        }
    }

    /// A round to which nobody was invited is no distance between two others. Its cohort stays counted, which is only
    /// cautious, until the ledger is opened again.
    pub(super) fn refund(&mut self) {
        self.rounds -= 1;
    }
}

/// The bytes in which the cohort of a record is kept: in parts, because a frame has a largest size.
pub(super) fn kept(record: u64, cohort: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (part, clients) in (0_u32..).zip(cohort.chunks(PART).chain(cohort.is_empty().then_some(&[][..]))) {
        let mut writer = Writer::new(DOMAIN);
        writer.u64(record).u32(part).u32(clients.len() as u32);
        for client in clients {
            writer.u64(*client);
        }
        bytes.extend(frame(&writer.finish()));
    }
    bytes
}

/// The cohorts that are kept beside a ledger, by record, and how many of the bytes are whole: an incomplete last cohort
/// belongs to no record.
///
/// # Errors
/// Why they cannot be read.
pub fn cohorts(contents: &[u8]) -> Result<(BTreeMap<u64, Vec<u64>>, usize), String> {
    let mut cohorts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut frames = Frames::behind(&[], contents).map_err(|error| error.to_string())?;
    for bytes in frames.by_ref() {
        match bytes {
            Ok(bytes) => {
                let (record, part, clients) = read(bytes).map_err(|error| error.to_string())?;
                let cohort = cohorts.entry(record).or_default();
                if part == 0 {
                    // Kept twice where the record was not written the first time.
                    cohort.clear();
                }
                cohort.extend(clients);
            }
            Err(FrameError::Incomplete { .. }) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok((cohorts, frames.offset()))
}

fn read(bytes: &[u8]) -> Result<(u64, u32, Vec<u64>), CanonicalError> {
    let mut reader = Reader::new(bytes, DOMAIN)?;
    let (record, part) = (reader.u64()?, reader.u32()?);
    let count = reader.u32()?;
    let clients = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok((record, part, clients))
}

/// A round under limits, as it is replayed.
pub struct Attended<'a> {
    /// Its record.
    pub record: u64,
    /// What the record says.
    pub reserve: &'a Reserve,
    /// Who was invited, where that is kept.
    pub cohort: Option<&'a [u64]>,
    /// The first client that should not have been, and why.
    pub excess: Option<(u64, Excess)>,
}

/// Goes through all rounds of a ledger that were charged under limits. Those to which nobody was invited count for nothing.
/// Reading ends where records cannot be read.
pub fn replay_attendance(
    contents: &[u8],
    cohorts: &BTreeMap<u64, Vec<u64>>,
    mut each: impl FnMut(&Attended<'_>),
) -> Option<Attendance> {
    let refunded: BTreeSet<u64> = records(contents)
        .filter_map(|record| match record.body {
            Body::Abort(abort) if abort.refunded => Some(abort.reserve),
            _ => None,
        })
        .collect();
    let mut attendance: Option<Attendance> = None;
    for record in records(contents) {
        match &record.body {
            Body::Genesis(genesis) => attendance = Attendance::under(None, &genesis.terms, true),
            Body::Amend(amend) => {
                attendance = Attendance::under(attendance, &amend.terms, amend.epoch.is_some());
            }
            Body::Reserve(reserve) if reserve.occasion.is_round() && !refunded.contains(&record.seq) => {
                let Some(attendance) = &mut attendance else { continue };
                let cohort = cohorts.get(&record.seq).map(Vec::as_slice);
                let excess = cohort
                    .into_iter()
                    .flatten()
                    .find_map(|client| Some((*client, attendance.allows(*client).err()?)));
                each(&Attended { record: record.seq, reserve, cohort, excess });
                attendance.count(cohort.unwrap_or(&[]));
            }
            _ => {}
        }
    }
    attendance
}

fn records(contents: &[u8]) -> impl Iterator<Item = Record> {
    let bytes = Frames::new(contents).into_iter().flatten().map_while(Result::ok);
    bytes.map_while(|bytes| Record::read(bytes).ok())
}

/// The root over the pseudonyms of a cohort, as the record of this number has it.
pub(super) fn participants(key: &ParticipantsKey, cohort: &[u64], record: u64) -> Hash {
    root_of(key.pseudonyms(cohort, record))
}

impl Attended<'_> {
    /// Whether the cohort that is kept is the one that was signed for, by one of these keys.
    #[must_use]
    pub fn is_signed_for(&self, keys: &[ParticipantsKey]) -> bool {
        self.cohort.is_some_and(|cohort| {
            keys.iter().any(|key| participants(key, cohort, self.record) == self.reserve.participants)
        })
    }
}

const DOMAIN: &str = "skep cohort v1";
/// Clients in one frame.
const PART: usize = 100_000;
