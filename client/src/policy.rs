//! What a client's owner allows: a TOML file of limits, and the count of what they were used for.
//!
//! ```toml
//! hours = ["22:00-06:00"]       # when a round may begin; at any time if not given
//! utc_offset = "+01:00"         # of these hours, and of the days below; needed with `hours`
//! rounds = 500                  # in all
//! rounds_per_day = 20
//! bytes_per_round = 50_000_000  # model and update
//! bytes_per_day = 200_000_000
//! [privacy]                     # see `crate::privacy_policy`
//! [scrub]                       # texts are trained on without what is personal in them
//! keep = ["url"]                # but for these kinds
//! patterns = { PATIENT = "P-[0-9]{6}" }
//! ```
//!
//! A round counts when the client accepts it, with the bytes of its model and its update; what a lost connection makes
//! travel again is not foreseen and not counted. The count is on disk in `usage.json` before the client accepts.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use skep_learning::scrub::{RuleError, Rules, Scrubber};
use skep_protocol::net::files::{self, FileError};
use skep_protocol::net::invitation::unix_seconds;
use skep_protocol::round::Decline;
use thiserror::Error;

use crate::privacy_policy::PrivacyPolicy;

/// What an owner allows. Without any limit, everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What may be given away; everything without this table.
    #[serde(default)]
    pub privacy: PrivacyPolicy,
    /// What is replaced in texts before anything learns from them; nothing without this table.
    #[serde(default)]
    pub scrub: Option<Rules>,
    /// When a round may begin; empty is at any time.
    #[serde(default)]
    hours: Vec<Hours>,
    /// Of the hours, and of where a day begins; UTC without one.
    utc_offset: Option<UtcOffset>,
    rounds: Option<u64>,
    rounds_per_day: Option<u64>,
    bytes_per_round: Option<u64>,
    bytes_per_day: Option<u64>,
}

/// Which of the owner's limits a round would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Limit {
    /// Not at this time of day.
    #[error("no round may begin at this time of day")]
    Hours,
    /// Enough rounds in all.
    #[error("{0} rounds were taken part in, which is all that `rounds` allows")]
    Rounds(u64),
    /// Enough rounds today.
    #[error("{0} rounds were taken part in today, which is all that `rounds_per_day` allows")]
    RoundsPerDay(u64),
    /// A round with too many bytes.
    #[error("the round needs {asked} bytes, `bytes_per_round` allows {allowed}")]
    BytesPerRound {
        /// Of its model and its update.
        asked: u64,
        /// By the owner.
        allowed: u64,
    },
    /// Too many bytes today.
    #[error("the round would make it {asked} bytes today, `bytes_per_day` allows {allowed}")]
    BytesPerDay {
        /// Today, this round included.
        asked: u64,
        /// By the owner.
        allowed: u64,
    },
}

impl Limit {
    /// What the server is told.
    pub fn decline(self) -> Decline {
        match self {
            Limit::Hours => Decline::OutsideHours,
            Limit::Rounds(_) | Limit::RoundsPerDay(_) => Decline::RoundLimit,
            Limit::BytesPerRound { .. } | Limit::BytesPerDay { .. } => Decline::ByteLimit,
        }
    }
}

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The text is no policy.
    #[error("the policy is not understood: {0}")]
    Text(#[from] toml::de::Error),
    /// Hours of an unknown place.
    #[error("the policy has `hours` and no `utc_offset`: say where they are, as utc_offset = \"+01:00\"")]
    NoOffset,
    /// What is to be replaced in texts makes no sense.
    #[error("the policy's table `scrub`: {0}")]
    Scrub(#[from] RuleError),
    /// What was used so far is unknown, or cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was used so far is unreadable.
    #[error("{} is damaged: {reason}; without it the limits of the policy cannot be kept", path.display())]
    Usage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let policy: Policy = toml::from_str(text)?;
        policy.scrubber()?;
        match policy.hours.is_empty() || policy.utc_offset.is_some() {
            true => Ok(policy),
            false => Err(PolicyError::NoOffset),
        }
    }
}

impl Policy {
    /// What goes over texts before anything learns from them, if the owner wants that.
    ///
    /// # Errors
    /// [`RuleError`]; none for a policy that was read from text.
    pub fn scrubber(&self) -> Result<Option<Scrubber>, RuleError> {
        self.scrub.as_ref().map(Scrubber::new).transpose()
    }
}

/// A part of the day, in minutes from midnight; one that ends before it begins goes past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Hours {
    from: u32,
    to: u32,
}

impl Hours {
    fn contain(self, minute: u32) -> bool {
        match self.from <= self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

impl TryFrom<String> for Hours {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} are no hours; they are written as \"22:00-06:00\"");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (minutes(from).ok_or_else(wrong)?, minutes(to).ok_or_else(wrong)?);
        if from == to || from == DAY_MINUTES {
            return Err(wrong());
        }
        Ok(Hours { from, to })
    }
}

/// Minutes east of Greenwich.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct UtcOffset(i32);

impl TryFrom<String> for UtcOffset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no offset; it is written as \"+01:00\" or \"-05:30\"");
        let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(rest), _) => (1, rest),
            (_, Some(rest)) => (-1, rest),
            _ => return Err(wrong()),
        };
        let size = minutes(rest).filter(|&minutes| minutes <= 14 * 60).ok_or_else(wrong)?;
        Ok(UtcOffset(sign * size as i32))
    }
}

/// `hh:mm` from 00:00 to 24:00.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (two(hours)?, two(minutes).filter(|&minutes| minutes < 60)?);
    Some(hours * 60 + minutes).filter(|&minutes| minutes <= DAY_MINUTES)
}

/// Keeps a policy: counts, and refuses what exceeds it.
#[derive(Debug)]
pub(crate) struct Keeper {
    policy: Policy,
    /// Where the count is kept; in memory without one.
    path: Option<PathBuf>,
    usage: Usage,
}

/// What a policy was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Usage {
    rounds: u64,
    bytes: u64,
    /// Days since 1970, where the owner is.
    day: i64,
    rounds_today: u64,
    bytes_today: u64,
}

impl Keeper {
    /// Goes on with the count in the state directory `state`.
    pub(crate) fn open(policy: Policy, state: Option<&Path>) -> Result<Self, PolicyError> {
        let path = state.map(|state| state.join(USAGE));
        let usage = match &path {
            Some(path) => read(path)?,
            None => Usage::default(),
        };
        Ok(Keeper { policy, path, usage })
    }

    /// Counts a round that needs so many bytes, unless it exceeds a limit.
    pub(crate) fn admit(&mut self, bytes: u64, now: SystemTime) -> Result<Result<(), Limit>, PolicyError> {
        let (day, minute) = self.policy.local(now);
        let today = if day == self.usage.day {
            self.usage
        } else {
            Usage { day, rounds_today: 0, bytes_today: 0, ..self.usage }
        };
        let after = Usage {
            rounds: today.rounds + 1,
            bytes: today.bytes.saturating_add(bytes),
            rounds_today: today.rounds_today + 1,
            bytes_today: today.bytes_today.saturating_add(bytes),
            day,
        };
        if let Some(limit) = self.policy.exceeded(minute, bytes, &after) {
            return Ok(Err(limit));
        }
        if let Some(path) = &self.path {
            let json = serde_json::to_vec(&after).expect("five numbers are JSON");
            files::replace(path, &json)?;
        }
        self.usage = after;
        Ok(Ok(()))
    }
}

impl Policy {
    /// The day since 1970 and the minute in it, where the owner is.
    fn local(&self, now: SystemTime) -> (i64, u32) {
        let UtcOffset(offset) = self.utc_offset.unwrap_or_default();
        let minutes = (unix_seconds(now) / 60) as i64 + i64::from(offset);
        let day = i64::from(DAY_MINUTES);
        (minutes.div_euclid(day), minutes.rem_euclid(day) as u32)
    }

    fn exceeded(&self, minute: u32, bytes: u64, after: &Usage) -> Option<Limit> {
        if !self.hours.is_empty() && !self.hours.iter().any(|hours| hours.contain(minute)) {
            return Some(Limit::Hours);
        }
        if let Some(allowed) = self.bytes_per_round.filter(|&allowed| bytes > allowed) {
            return Some(Limit::BytesPerRound { asked: bytes, allowed });
        }
        if let Some(allowed) = self.rounds.filter(|&allowed| after.rounds > allowed) {
            return Some(Limit::Rounds(allowed));
        }
        if let Some(allowed) = self.rounds_per_day.filter(|&allowed| after.rounds_today > allowed) {
            return Some(Limit::RoundsPerDay(allowed));
        }
        let allowed = self.bytes_per_day.filter(|&allowed| after.bytes_today > allowed)?;
        Some(Limit::BytesPerDay { asked: after.bytes_today, allowed })
    }
}

fn read(path: &Path) -> Result<Usage, PolicyError> {
    match files::read(path) {
        Err(error) if error.is_absent() => Ok(Usage::default()),
        Err(error) => Err(error.into()),
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|error| PolicyError::Usage { path: path.to_owned(), reason: error.to_string() }),
    }
}

const USAGE: &str = "usage.json";
const DAY_MINUTES: u32 = 24 * 60;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many days, hours and minutes after 1970.
    fn at(days: u64, hours: u64, minutes: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(60 * (minutes + 60 * (hours + 24 * days)))
    }

    fn keeper(text: &str) -> Keeper {
        Keeper::open(text.parse().unwrap(), None).unwrap()
    }

    #[test]
    fn hours_are_the_owners_and_may_go_past_midnight() {
        let mut night = keeper("hours = [\"22:00-06:00\"]\nutc_offset = \"+02:00\"");
        let mut may = |hours, minutes| night.admit(1, at(9, hours, minutes)).unwrap().is_ok();
        // 22:00 there is 20:00 in Greenwich.
        assert_eq!([may(19, 59), may(20, 0), may(23, 30)], [false, true, true]);
        assert_eq!([may(3, 59), may(4, 0), may(12, 0)], [true, false, false]);
        let mut two = keeper("hours = [\"08:00-09:00\", \"23:00-24:00\"]\nutc_offset = \"-00:30\"");
        let mut may = |hours, minutes| two.admit(1, at(9, hours, minutes)).unwrap().is_ok();
        assert_eq!([may(8, 29), may(8, 30), may(9, 29), may(9, 30)], [false, true, true, false]);
        assert_eq!([may(23, 30), may(0, 29), may(0, 30)], [true, true, false]);
    }

    #[test]
    fn rounds_and_bytes_are_counted_by_the_day_and_in_all() {
        let mut keeper = keeper("rounds = 4\nrounds_per_day = 2\nbytes_per_day = 150\nbytes_per_round = 100");
        let mut admit = |day, bytes| keeper.admit(bytes, at(day, 12, 0)).unwrap();
        let too_large = Limit::BytesPerRound { asked: 101, allowed: 100 };
        assert_eq!(admit(1, 101), Err(too_large));
        assert_eq!(admit(1, 100), Ok(()));
        assert_eq!(admit(1, 51), Err(Limit::BytesPerDay { asked: 151, allowed: 150 }));
        assert_eq!(admit(1, 50), Ok(()));
        assert_eq!(admit(1, 0), Err(Limit::RoundsPerDay(2)));
        assert_eq!([admit(2, 100), admit(3, 100)], [Ok(()), Ok(())]);
        assert_eq!(admit(4, 1), Err(Limit::Rounds(4)));
        assert_eq!(Limit::Rounds(4).decline(), Decline::RoundLimit);
        assert_eq!(too_large.decline(), Decline::ByteLimit);
        assert_eq!(Limit::Hours.decline(), Decline::OutsideHours);
    }

    #[test]
    fn the_count_outlives_the_process_and_a_damaged_one_is_no_count() {
        let state = tempfile::tempdir().unwrap();
        let open = || Keeper::open("rounds = 2".parse().unwrap(), Some(state.path()));
        for _ in 0..2 {
            assert_eq!(open().unwrap().admit(7, at(1, 0, 0)).unwrap(), Ok(()));
        }
        assert_eq!(open().unwrap().admit(7, at(1, 0, 0)).unwrap(), Err(Limit::Rounds(2)));
        files::replace(&state.path().join(USAGE), b"{}").unwrap();
        assert!(matches!(open(), Err(PolicyError::Usage { .. })));
    }

    #[test]
    fn what_is_no_policy_is_named() {
        let error = |text: &str| text.parse::<Policy>().unwrap_err().to_string();
        assert!(error("hours = [\"22-6\"]").contains("are no hours"));
        assert!(error("hours = [\"22:00-22:00\"]").contains("are no hours"));
        assert!(error("hours = [\"22:00-06:00\"]").contains("utc_offset"));
        assert!(error("utc_offset = \"1\"").contains("is no offset"));
        assert!(error("utc_offset = \"+15:00\"").contains("is no offset"));
        assert!(error("round = 3").contains("unknown field `round`"));
        assert!(error("rounds = -3").contains("rounds"));
        assert_eq!("".parse::<Policy>().unwrap(), Policy::default());
    }
}
