//! What goes wrong: as a script says, and else as it is drawn for each client and round.

use std::collections::BTreeMap;

use skep_client::held_out::uniform;
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::simulation::{Faults, Scripted};
use skep_protocol::{ClientId, Round, Span};
use thiserror::Error;

pub use skep_protocol::experiment::simulation::{Corruption, Moment};

/// Something that goes wrong for one client in one round; nothing happens if it is not invited then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// For whom.
    pub client: ClientId,
    /// When.
    pub round: Round,
    /// What.
    pub kind: FaultKind,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The connection is lost.
    Vanish {
        /// When.
        at: Moment,
        /// How long after that the client is back; `None` is after the round.
        back_after: Option<Span>,
    },
    /// Training lasts as long as the whole round.
    Late,
    /// The client lies about its update.
    Corrupt(Corruption),
}

/// A script that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// Two faults for the same client and round.
    #[error("two faults are scripted for {client} in {round}; give one")]
    Twice {
        /// For whom.
        client: ClientId,
        /// When.
        round: Round,
    },
    /// A client that does not exist.
    #[error("a fault is scripted for {client}, but the population has {population} clients, counted from 0")]
    NoSuchClient {
        /// For whom.
        client: ClientId,
        /// Clients in the population.
        population: u64,
    },
}

/// What goes wrong for every client in every round.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    written: BTreeMap<(Round, ClientId), FaultKind>,
    drawn: Faults,
    key: Key,
    /// Whether rounds are masked, in which there are more moments to vanish at.
    masked: bool,
}

impl Script {
    /// The faults of a population of `population` clients: those of the experiment, and others. `key` is of the public seed.
    pub(crate) fn new(
        faults: &Faults,
        others: &[Fault],
        key: &Key,
        masked: bool,
        population: u64,
    ) -> Result<Self, FaultError> {
        let mut written = BTreeMap::new();
        for Fault { client, round, kind } in
            faults.script.iter().map(Fault::from).chain(others.iter().copied())
        {
            if client.0 >= population {
                return Err(FaultError::NoSuchClient { client, population });
            }
            if written.insert((round, client), kind).is_some() {
                return Err(FaultError::Twice { client, round });
            }
        }
        Ok(Script { written, drawn: faults.clone(), key: key.clone(), masked })
    }

    /// What goes wrong for this client in this round.
    pub(crate) fn get(&self, round: Round, client: ClientId) -> Option<FaultKind> {
        self.written.get(&(round, client)).copied().or_else(|| self.draw(round, client))
    }

    /// A function of the seed, the client and the round. Each kind has a draw of its own, so that more of one does not
    /// change who suffers another.
    fn draw(&self, round: Round, client: ClientId) -> Option<FaultKind> {
        let Faults { dropout, straggler, corrupt, corruption, back_after_s, .. } = self.drawn;
        if dropout + straggler + corrupt == 0.0 {
            return None;
        }
        let mut prg = self.key.derive(Purpose::Fault, round.0, client.0).stream();
        let [drops, lags, lies, moment] = [(); 4].map(|()| uniform(&mut prg));
        let moments = if self.masked { &MOMENTS[..] } else { &MOMENTS[..UNMASKED] };
        if drops < dropout {
            let at = moments[(moment * moments.len() as f64) as usize];
            return Some(FaultKind::Vanish { at, back_after: back_after_s.map(span) });
        }
        match () {
            () if lags < straggler => Some(FaultKind::Late),
            () if lies < corrupt => Some(FaultKind::Corrupt(corruption)),
            () => None,
        }
    }
}

impl From<&Scripted> for Fault {
    fn from(scripted: &Scripted) -> Self {
        let (client, round) = scripted.place();
        let kind = match *scripted {
            Scripted::Vanish { at, back_after_s, .. } => {
                FaultKind::Vanish { at, back_after: back_after_s.map(span) }
            }
            Scripted::Late { .. } => FaultKind::Late,
            Scripted::Corrupt { corruption, .. } => FaultKind::Corrupt(corruption),
        };
        Fault { client: ClientId(client), round: Round(round), kind }
    }
}

fn span(seconds: f64) -> Span {
    Span::from_millis((seconds * 1000.0).round() as u64)
}

/// Those of every round first.
const MOMENTS: [Moment; 7] = [
    Moment::Opening,
    Moment::Training,
    Moment::Offering,
    Moment::Uploading,
    Moment::Sharing,
    Moment::Agreeing,
    Moment::Revealing,
];
const UNMASKED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_make_no_sense_are_refused() {
        let (client, round) = (ClientId(3), Round(2));
        let fault = Fault { client, round, kind: FaultKind::Late };
        let next = Fault { round: Round(3), ..fault };
        let script = |others: &[Fault], clients| {
            Script::new(&Faults::NONE, others, &Key::from_seed(1), false, clients)
        };
        assert_eq!(script(&[fault, fault], 4).unwrap_err(), FaultError::Twice { client, round });
        assert_eq!(script(&[fault], 3).unwrap_err(), FaultError::NoSuchClient { client, population: 3 });
        assert_eq!(script(&[fault, next], 4).unwrap().get(round, client), Some(FaultKind::Late));
    }

    #[test]
    fn faults_are_drawn_as_often_as_they_are_asked_for() {
        let faults = Faults { dropout: 0.1, straggler: 0.2, corrupt: 0.3, ..Faults::NONE };
        let script = Script::new(&faults, &[], &Key::from_seed(1), false, 100).unwrap();
        let mut counts = [0.0_f64; 4];
        let mut moments = BTreeMap::new();
        for round in 1..=100 {
            for client in 0..100 {
                let fault = script.get(Round(round), ClientId(client));
                assert_eq!(fault, script.get(Round(round), ClientId(client)));
                counts[match fault {
                    Some(FaultKind::Vanish { at, back_after: None }) => {
                        *moments.entry(format!("{at:?}")).or_insert(0) += 1;
                        0
                    }
                    Some(FaultKind::Late) => 1,
                    Some(FaultKind::Corrupt(Corruption::Digest)) => 2,
                    Some(other) => panic!("{other:?}"),
                    None => 3,
                }] += 1.0;
            }
        }
        // n = 10,000; six standard deviations of the widest are 300.
        for (count, expected) in counts.iter().zip([1000.0, 0.9 * 2000.0, 0.9 * 0.8 * 3000.0, 5040.0]) {
            assert!((count - expected).abs() < 300.0, "{counts:?}");
        }
        assert_eq!(moments.len(), 4, "{moments:?}");
    }
}
