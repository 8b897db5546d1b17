//! Carries out what the machine asks for.

use skep_protocol::message::ServerMessage;
use skep_protocol::net::frame::Bytes;
use skep_protocol::round::Refusal;
use skep_protocol::round::server::{Action, Job};
use skep_protocol::{ClientId, Digest, Round, Time, codec};
use tracing::{info, warn};

use super::{Driver, Stage};
use crate::serve::ServeError;
use crate::serve::aggregation::Command;
use crate::serve::session::Overflow;
use crate::serve::uploads::Upload;

impl Driver<'_> {
    pub(super) fn act(&mut self) -> Result<(), ServeError> {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Send { to, message } => self.send(&to, &message)?,
                Action::SendModel { to, round, .. } => self.send_model(to, round)?,
                Action::GrantUpload { client, round, len, digest, until } => {
                    self.grant(client, round, len, digest, until)?;
                }
                Action::Ask { to, round, phase } => self.ask_clients(to, round, phase)?,
                Action::Commit { client, round } => self.commit(client, round)?,
                Action::Discard { client, .. } => self.forget_upload(client),
                Action::Disconnect { client, channel_binding } => {
                    if self.is_current(client, channel_binding) {
                        self.peers.remove(&client);
                    }
                }
                Action::Start(Job::Release { round }) => self.ask(Command::Release(round))?,
                Action::Closed { outcome, progress, .. } => self.close(outcome, progress)?,
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, to: &[ClientId], message: &ServerMessage) -> Result<(), ServeError> {
        if let ServerMessage::Refused { reason, .. } = message {
            // Whom, is the operator's secret: see `Observer::cohort_closed`.
            self.quiet.unless_too_many(|withheld| info!(clients = to.len(), %reason, withheld, "refused"));
        }
        let encoded: Bytes = codec::encode(message)?.into();
        let ends = match *message {
            ServerMessage::Closed { round, .. } => Some(round),
            ServerMessage::Refused { round, reason } if reason.ends_participation() => round,
            _ => None,
        };
        for &client in to {
            self.send_to(client, encoded.clone(), ends);
        }
        Ok(())
    }

    pub(super) fn send_to(&mut self, client: ClientId, encoded: Bytes, ends: Option<Round>) {
        if let Some(peer) = self.peers.get(&client)
            && let Err(Overflow) = peer.send(encoded, ends)
        {
            self.cut_off(client);
        }
    }

    fn send_model(&mut self, client: ClientId, round: Round) -> Result<(), ServeError> {
        let Stage::Running(running) = &self.stage else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(&client) else { return Ok(()) };
        if peer.model_sent == Some(round) {
            // A second acceptance on one connection must not make the server send the model again and again.
            return self
                .send(&[client], &ServerMessage::Refused { round: Some(round), reason: Refusal::Duplicate });
        }
        peer.model_sent = Some(round);
        let (len, digest) = (running.model.len() as u64, running.plan.plan().base_model);
        let announcement: Bytes = codec::encode(&ServerMessage::Model { round, len, digest })?.into();
        let queued =
            peer.send(announcement, None).and_then(|()| peer.send_model(round, running.model.clone()));
        if let Err(Overflow) = queued {
            self.cut_off(client);
        }
        Ok(())
    }

    fn grant(
        &mut self,
        client: ClientId,
        round: Round,
        len: u64,
        digest: Digest,
        until: Time,
    ) -> Result<(), ServeError> {
        let upload = match self.uploads.get(&client).filter(|upload| upload.is(round, &digest)) {
            Some(known) => known.clone(),
            None => Upload::new(round, len, digest),
        };
        self.uploads.insert(client, upload.clone());
        let Some(peer) = self.peers.get(&client) else { return Ok(()) };
        let offset = peer.slot.open(&upload, len, peer.binding);
        let grant = ServerMessage::Grant { round, offset, until: until.since(self.now()) };
        self.send(&[client], &grant)
    }

    fn commit(&mut self, client: ClientId, round: Round) -> Result<(), ServeError> {
        self.forget_upload(client);
        let Some(staged) = self.staged.take() else { return Err(ServeError::Died("staging")) };
        self.ask(Command::Commit(client, staged))?;
        if let Stage::Running(running) = &mut self.stage {
            running.updates += 1;
            self.status.updates = running.updates;
            if !round.is_query() {
                self.observer.update_committed(round, running.updates);
            }
        }
        Ok(())
    }

    fn forget_upload(&mut self, client: ClientId) {
        self.uploads.remove(&client);
        if let Some(peer) = self.peers.get(&client) {
            peer.slot.close();
        }
    }

    /// Lets go of a client that does not take what it is sent; its session then reports that it is gone.
    fn cut_off(&mut self, client: ClientId) {
        self.quiet.unless_too_many(
            |withheld| warn!(%client, withheld, "cut off: it does not read what it is sent"),
        );
        self.peers.remove(&client);
    }
}
