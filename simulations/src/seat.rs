//! One simulated client in one round.

use std::sync::Arc;

use skep_protocol::experiment::Task;
use skep_protocol::round::client::{ClientMachine, Packed};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, Span};

use crate::devices::Pace;
use crate::fault::{Corruption, FaultKind, Moment};
use crate::network::Due;

/// A client's machine and what surrounds it: connection, pace, fault.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) machine: ClientMachine,
    pub(crate) pace: Pace,
    fault: Option<FaultKind>,
    /// The connection, while there is one.
    pub(crate) connection: Option<Connection>,
    /// Where the update is in the order of work, once somebody may compute it.
    pub(crate) work: Option<Due>,
    /// The update that is being sent.
    pub(crate) upload: Option<Due>,
    /// Bytes of the update that have arrived.
    pub(crate) received: u64,
}

/// A connection of a client; every connection of a run has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection(pub(crate) u64);

impl Connection {
    /// What binds messages to it; without TLS a unique value is enough.
    pub(crate) fn binding(self) -> ChannelBinding {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        ChannelBinding(bytes)
    }
}

impl Seat {
    /// A client that has not been heard of in this round.
    pub(crate) fn new(task: Arc<Task>, pace: Pace, fault: Option<FaultKind>) -> Self {
        let (machine, connection, work, upload) = (ClientMachine::new(task), None, None, None);
        Seat { machine, pace, fault, connection, work, upload, received: 0 }
    }

    /// Whether the client vanishes now, and when it is back. It vanishes once.
    pub(crate) fn vanishes(&mut self, now: Moment) -> Option<Option<Span>> {
        match self.fault {
            Some(FaultKind::Vanish { at, back_after }) if at == now => {
                self.fault = None;
                Some(back_after)
            }
            _ => None,
        }
    }

    /// Whether nothing keeps the client from being in the sum that is known beforehand.
    pub(crate) fn is_faultless(&self) -> bool {
        self.fault.is_none()
    }

    /// Whether the client trains for too long.
    pub(crate) fn is_late(&self) -> bool {
        self.fault == Some(FaultKind::Late)
    }

    /// How the client's update is corrupt, if it is.
    pub(crate) fn corruption(&self) -> Option<Corruption> {
        match self.fault {
            Some(FaultKind::Corrupt(corruption)) => Some(corruption),
            _ => None,
        }
    }
}

/// What a client says of its update. Nothing is packed or hashed in a simulation: the digest only tells this update
/// from others.
pub(crate) fn packed(len: u64, round: Round, client: ClientId) -> Packed {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&round.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&client.0.to_le_bytes());
    Packed { len, digest: Digest(bytes) }
}
