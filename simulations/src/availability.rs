//! When simulated clients can be reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skep_client::held_out::uniform;
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::simulation::Availability;
use skep_protocol::{ClientId, Span, Time};
use thiserror::Error;

/// When every client can be reached, a function of the client and the time.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    Always,
    Diurnal {
        online: f64,
        spread: f64,
        day: f64,
        key: Key,
    },
    /// Intervals in milliseconds by client, in order and apart.
    Trace {
        intervals: BTreeMap<ClientId, Vec<(u64, u64)>>,
        repeat: Option<u64>,
    },
}

/// Whether a client is there, and until when that stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here { until: Option<Time> },
    Away { until: Option<Time> },
}

/// A trace that makes no sense.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file does not read.
    #[error("simulation.availability.file: {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line makes no sense.
    #[error("simulation.availability.file: {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl Schedule {
    /// The schedule of a population of `clients`; `key` is of the public seed.
    ///
    /// # Errors
    /// [`TraceError`] when a trace cannot be read.
    pub(crate) fn new(availability: &Availability, key: &Key, clients: u64) -> Result<Self, TraceError> {
        Ok(match availability {
            Availability::Always {} => Schedule::Always,
            Availability::Diurnal { online, spread, day_s } => Schedule::Diurnal {
                online: *online,
                spread: *spread,
                day: 1000.0 * day_s,
                key: key.derive(Purpose::DropOut, 0, 0),
            },
            Availability::Trace { file, repeat_s } => {
                let repeat = repeat_s.map(millis);
                Schedule::Trace { intervals: read(file, clients, repeat)?, repeat }
            }
        })
    }

    /// Where a client is at a time.
    pub(crate) fn at(&self, client: ClientId, now: Time) -> Presence {
        match self {
            Schedule::Always => Presence::Here { until: None },
            Schedule::Diurnal { online, .. } if *online >= 1.0 => Presence::Here { until: None },
            Schedule::Diurnal { online, spread, day, key } => {
                let begins = spread * uniform(&mut key.derive(Purpose::DropOut, 0, client.0).stream());
                let now_ms = now.as_millis() as f64;
                let part = (now_ms / day - begins).rem_euclid(1.0);
                // At least a millisecond, or rounding would hold the time.
                let after = |part: f64| Some(now + Span::from_millis(((part * day).ceil() as u64).max(1)));
                match part < *online {
                    true => Presence::Here { until: after(online - part) },
                    false => Presence::Away { until: after(1.0 - part) },
                }
            }
            Schedule::Trace { intervals, repeat } => {
                let Some(intervals) = intervals.get(&client) else { return Presence::Away { until: None } };
                let now_ms = now.as_millis();
                let began = repeat.map_or(0, |repeat| now_ms - now_ms % repeat);
                let here = now_ms - began;
                let at = |ms: u64| Some(Time::from_millis(began + ms));
                let next = intervals.partition_point(|(_, to)| *to <= here);
                match (intervals.get(next), repeat) {
                    (Some(&(from, to)), _) if from <= here => Presence::Here { until: at(to) },
                    (Some(&(from, _)), _) => Presence::Away { until: at(from) },
                    (None, Some(repeat)) => Presence::Away { until: at(repeat + intervals[0].0) },
                    (None, None) => Presence::Away { until: None },
                }
            }
        }
    }
}

fn read(
    path: &Path,
    clients: u64,
    repeat: Option<u64>,
) -> Result<BTreeMap<ClientId, Vec<(u64, u64)>>, TraceError> {
    let unreadable = |reason: String| TraceError::Unreadable { path: path.to_owned(), reason };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|error| unreadable(error.to_string()))?;
    let header = reader.headers().map_err(|error| unreadable(error.to_string()))?;
    if header != vec!["client", "from_s", "to_s"] {
        return Err(unreadable("its first line must be `client,from_s,to_s`".to_owned()));
    }
    let mut intervals: BTreeMap<ClientId, Vec<(u64, u64)>> = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(|error| unreadable(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |reason: String| TraceError::Line { path: path.to_owned(), line, reason };
        let client = record[0].parse::<u64>().ok().filter(|client| *client < clients).ok_or_else(|| {
            wrong(format!("{:?} is no client: they are numbered from 0 to {}", &record[0], clients - 1))
        })?;
        let [from, to] = [1, 2].map(|column| {
            let seconds = record[column].parse::<f64>().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
            seconds.map(millis).ok_or_else(|| wrong(format!("{:?} is no time in seconds", &record[column])))
        });
        let (from, to) = (from?, to?);
        if from >= to || repeat.is_some_and(|repeat| to > repeat) {
            return Err(wrong(
                "an interval ends after it begins, and before the trace is repeated".to_owned(),
            ));
        }
        intervals.entry(ClientId(client)).or_default().push((from, to));
    }
    for times in intervals.values_mut() {
        times.sort_unstable();
        // Intervals that touch are one.
        times.dedup_by(|next, before| {
            let touch = next.0 <= before.1;
            before.1 = if touch { before.1.max(next.1) } else { before.1 };
            touch
        });
    }
    Ok(intervals)
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diurnal(online: f64, spread: f64) -> Schedule {
        let availability = Availability::Diurnal { online, spread, day_s: 100.0 };
        Schedule::new(&availability, &Key::from_seed(1), 1000).unwrap()
    }

    fn here(schedule: &Schedule, client: u64, seconds: u64) -> bool {
        matches!(schedule.at(ClientId(client), Time::from_millis(1000 * seconds)), Presence::Here { .. })
    }

    #[test]
    fn a_client_is_there_for_its_part_of_every_day() {
        let schedule = diurnal(0.3, 1.0);
        for client in 0..20 {
            let seconds = (0..1000).filter(|&second| here(&schedule, client, second)).count();
            assert!((290..=310).contains(&seconds), "{seconds}");
            assert!(
                (0..100)
                    .all(|second| here(&schedule, client, second) == here(&schedule, client, second + 700))
            );
        }
        // Around the clock there are about as many at any time: n = 1000, p = 0.3, six deviations are 87.
        for second in [0, 33, 66] {
            let there = (0..1000).filter(|&client| here(&schedule, client, second)).count() as i64;
            assert!((there - 300).abs() < 87, "{there}");
        }
        assert!((0..1000).all(|client| here(&diurnal(0.3, 0.0), client, 29)));
        assert!((0..1000).all(|client| !here(&diurnal(0.3, 0.0), client, 31)));
        assert!((0..100).all(|second| here(&diurnal(1.0, 1.0), 3, second)));
    }

    #[test]
    fn what_is_said_of_the_time_ahead_comes_true() {
        let schedule = diurnal(0.3, 1.0);
        let (mut now, mut changes) = (Time::ZERO, 0);
        let mut before = schedule.at(ClientId(5), now);
        while now < Time::from_millis(1_000_000) {
            let (Presence::Here { until: Some(next) } | Presence::Away { until: Some(next) }) = before else {
                panic!("a day has an end")
            };
            assert!(next > now);
            now = next;
            let after = schedule.at(ClientId(5), now);
            changes += u32::from(std::mem::discriminant(&before) != std::mem::discriminant(&after));
            before = after;
        }
        assert!((19..=21).contains(&changes), "{changes}");
    }

    fn trace(text: &str, repeat_s: Option<f64>) -> Result<Schedule, TraceError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("trace.csv");
        std::fs::write(&file, text).unwrap();
        Schedule::new(&Availability::Trace { file, repeat_s }, &Key::from_seed(1), 5)
    }

    #[test]
    fn a_trace_is_followed_and_repeated() {
        let text = "client,from_s,to_s\n1,10,20\n1,30,40\n1,20,25\n2, 0, 60\n";
        let once = trace(text, None).unwrap();
        let there: Vec<u64> = (0..100).filter(|&second| here(&once, 1, second)).collect();
        assert_eq!(there, (10..25).chain(30..40).collect::<Vec<_>>());
        assert!((0..100).all(|second| !here(&once, 0, second)), "a client that is not named is never there");
        let at =
            |schedule: &Schedule, seconds: u64| schedule.at(ClientId(1), Time::from_millis(seconds * 1000));
        assert_eq!(at(&once, 12), Presence::Here { until: Some(Time::from_millis(25_000)) });
        assert_eq!(at(&once, 50), Presence::Away { until: None });
        let again = trace(text, Some(60.0)).unwrap();
        assert!((0..600).all(|second| here(&again, 1, second) == here(&once, 1, second % 60)));
        assert_eq!(at(&again, 50), Presence::Away { until: Some(Time::from_millis(70_000)) });
    }

    #[test]
    fn a_trace_that_makes_no_sense_is_refused_at_its_line() {
        for (text, what) in [
            ("client,from,to\n", "first line must be"),
            (
                "client,from_s,to_s\n1,0,1\n5,0,1\n",
                "line 3: \"5\" is no client: they are numbered from 0 to 4",
            ),
            ("client,from_s,to_s\n1,2,1\n", "line 2: an interval ends after"),
            ("client,from_s,to_s\n1,0,61\n", "before the trace is repeated"),
            ("client,from_s,to_s\n1,0,soon\n", "\"soon\" is no time"),
            ("client,from_s,to_s\n1,0\n", "found record with 2 fields"),
        ] {
            let error = trace(text, Some(60.0)).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
