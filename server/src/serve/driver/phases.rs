//! Masked rounds: what clients answer goes to the aggregation, and what they are asked comes from there.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::masked::connection_name;
use skep_protocol::message::ServerMessage;
use skep_protocol::net::frame::Bytes;
use skep_protocol::round::server::Event;
use skep_protocol::round::{AbortReason, Phase, Refusal};
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, codec};
use tracing::warn;

use super::Driver;
use crate::masking::{Asking, Caller};
use crate::serve::ServeError;
use crate::serve::aggregation::Command;

/// What is on its way to the aggregation and back: of each client one answer and one request at most, so that no client
/// can fill the queue.
#[derive(Default)]
pub(super) struct Pending {
    answers: BTreeSet<ClientId>,
    requests: BTreeSet<(Phase, ClientId)>,
    /// The names of each client's connections in the open round, the latest last.
    connections: BTreeMap<ClientId, Vec<Digest>>,
}

impl Pending {
    /// Nothing, in a round that begins with these connections.
    pub(super) fn of<'a>(peers: impl Iterator<Item = (ClientId, &'a ChannelBinding)>) -> Self {
        let connections = peers.map(|(client, binding)| (client, vec![connection_name(binding)])).collect();
        Pending { connections, ..Pending::default() }
    }

    /// A client has a new connection.
    pub(super) fn connected(&mut self, client: ClientId, binding: &ChannelBinding) {
        let names = self.connections.entry(client).or_default();
        if names.len() == CONNECTIONS_REMEMBERED {
            names.remove(0);
        }
        names.push(connection_name(binding));
    }
}

impl Driver<'_> {
    /// A client answers: the aggregation looks at it, if the machine would have it.
    pub(super) fn answered(
        &mut self,
        client: ClientId,
        round: Round,
        phase: Phase,
        body: Vec<u8>,
    ) -> Result<(), ServeError> {
        if self.machine.check_answer(client, round, phase).is_err() {
            // The machine refuses it by name.
            return self.handle(Event::Answered { client, round, phase });
        }
        if !self.pending.answers.insert(client) {
            return self.refuse(client, round, Refusal::Duplicate);
        }
        let Some(peer) = self.peers.get(&client) else { return Ok(()) };
        let caller = Box::new(Caller {
            client,
            identity: peer.identity.public_key.0,
            certificate: peer.identity.certificate.to_vec(),
            connections: self.pending.connections.get(&client).cloned().unwrap_or_default(),
        });
        self.ask(Command::Answer { caller, round, phase, body })
    }

    /// The aggregation has looked at an answer.
    pub(super) fn checked(
        &mut self,
        client: ClientId,
        round: Round,
        phase: Phase,
        result: Result<(), Refusal>,
    ) -> Result<(), ServeError> {
        self.pending.answers.remove(&client);
        match result {
            Ok(()) => self.handle(Event::Answered { client, round, phase }),
            // The machine has invited it, so there is no place for it in this round at all: nobody waits for it.
            Err(reason) if reason.ends_participation() || reason == Refusal::NotInvited => {
                self.handle(Event::Violated { client, reason })
            }
            Err(reason) => self.refuse(client, round, reason),
        }
    }

    /// The machine wants clients asked. Asked even if nobody is there: the phase before has ended.
    pub(super) fn ask_clients(
        &mut self,
        mut to: Vec<ClientId>,
        round: Round,
        phase: Phase,
    ) -> Result<(), ServeError> {
        let again = !to.is_empty();
        to.retain(|&client| self.pending.requests.insert((phase, client)));
        if again && to.is_empty() { Ok(()) } else { self.ask(Command::Ask { to, round, phase }) }
    }

    /// The aggregation has made what clients are asked.
    pub(super) fn asked(
        &mut self,
        round: Round,
        phase: Phase,
        result: Result<Asking, AbortReason>,
    ) -> Result<(), ServeError> {
        match result {
            Err(reason) => self.handle(Event::PhaseFailed { round, reason }),
            Ok(Asking { asked, lost }) => {
                for clients in lost {
                    warn!(%round, %phase, clients = clients.len(), "too few of a group are left; its sum is dropped");
                    self.handle(Event::GroupLost { round, clients })?;
                }
                for (client, request) in asked {
                    self.pending.requests.remove(&(phase, client));
                    if self.machine.open_round() == Some(round) && self.machine.phase() == Some(phase) {
                        self.send_request(client, round, phase, &request)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn send_request(
        &mut self,
        client: ClientId,
        round: Round,
        phase: Phase,
        request: &[u8],
    ) -> Result<(), ServeError> {
        let mut parts = request.chunks(PART_BYTES).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let message = ServerMessage::Asked { round, phase, part: part.to_vec(), last };
            let encoded: Bytes = codec::encode(&message)?.into();
            self.send_to(client, encoded, None);
        }
        Ok(())
    }

    fn refuse(&mut self, client: ClientId, round: Round, reason: Refusal) -> Result<(), ServeError> {
        self.send(&[client], &ServerMessage::Refused { round: Some(round), reason })
    }
}

/// Far more than a client needs in a round.
const CONNECTIONS_REMEMBERED: usize = 8;
/// Bytes of a part, so that its message is within the codec's limit.
const PART_BYTES: usize = codec::CONTROL_LIMIT - 1024;
