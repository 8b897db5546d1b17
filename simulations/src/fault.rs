//! What goes wrong, as a script.

use std::collections::BTreeMap;

use skep_protocol::{ClientId, Round, Span};
use thiserror::Error;

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

/// How far a client has come when it vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It is not there when the round opens.
    Opening,
    /// It trains.
    Training,
    /// It has offered its update.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// It is a byte longer than the plan says.
    Length,
    /// It is not the one that was offered.
    Digest,
    /// Every coordinate is as large as the whole update may be. A private round refuses that; without privacy no
    /// norm is tested, and the update, every coordinate of it 1, is in the sum.
    Norm,
    /// One bit of its masked update is flipped. Nobody can see that; it spoils the sum. Nothing happens unless masks are
    /// computed.
    Mask,
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

/// Faults by round and client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script(BTreeMap<(Round, ClientId), FaultKind>);

impl Script {
    /// The script of these faults in a population of `population` clients.
    pub(crate) fn new(faults: &[Fault], population: u64) -> Result<Self, FaultError> {
        let mut script = BTreeMap::new();
        for &Fault { client, round, kind } in faults {
            if client.0 >= population {
                return Err(FaultError::NoSuchClient { client, population });
            }
            if script.insert((round, client), kind).is_some() {
                return Err(FaultError::Twice { client, round });
            }
        }
        Ok(Script(script))
    }

    /// What goes wrong for this client in this round.
    pub(crate) fn get(&self, round: Round, client: ClientId) -> Option<FaultKind> {
        self.0.get(&(round, client)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_make_no_sense_are_refused() {
        let (client, round) = (ClientId(3), Round(2));
        let fault = Fault { client, round, kind: FaultKind::Late };
        let next = Fault { round: Round(3), ..fault };
        assert_eq!(Script::new(&[fault, fault], 4).unwrap_err(), FaultError::Twice { client, round });
        assert_eq!(Script::new(&[fault], 3).unwrap_err(), FaultError::NoSuchClient { client, population: 3 });
        assert_eq!(Script::new(&[fault, next], 4).unwrap().get(round, client), Some(FaultKind::Late));
    }
}
