//! What the driver does for the server: its messages, staging, the sum and the release.

use skep_privacy::mechanism::Mechanism;
use skep_privacy::packing;
use skep_protocol::message::ServerMessage;
use skep_protocol::plan::Plan;
use skep_protocol::round::server::{Action, Event, Job};
use skep_protocol::round::{AbortReason, Refusal, client};
use skep_protocol::{ClientId, Round, Time};

use super::OpenRound;
use crate::error::SimulationError;
use crate::fault::Corruption;
use crate::network::Due;
use crate::workers::{Made, Trainer};

impl<T: Trainer> OpenRound<'_, '_, T> {
    pub(super) fn handle_at_server(&mut self, event: Event) {
        self.world.machine.handle(self.world.now, event);
    }

    pub(super) fn uploaded(&mut self, due: Due, client: ClientId, bytes: u64) {
        let Some(seat) = self.seats.get_mut(&client) else { return };
        // A later grant has made this upload obsolete.
        if seat.upload.take_if(|upload| *upload == due).is_none() {
            return;
        }
        let (corruption, work) = (seat.corruption(), seat.work.take().unwrap_or(due));
        self.bytes_up += bytes;
        let (round, job) = (self.plan.plan().round, self.job(client));
        let event = match self.world.workers.take(work, &job) {
            Err(reason) => Event::Declined { client, round, reason },
            Ok(made) => match self.stage(made, corruption) {
                Err(reason) => Event::UploadFailed { client, round, reason },
                Ok(update) => {
                    self.staged = Some(update);
                    Event::UploadStaged { client, round }
                }
            },
        };
        self.handle_at_server(event);
    }

    /// An honest update needs no test: its type is the proof. A corrupt one goes the way of every upload.
    fn stage(&self, made: Made, corrupt: Option<Corruption>) -> Result<Made, Refusal> {
        match corrupt {
            None | Some(Corruption::Mask) => Ok(made),
            // Found when it was offered, so it is not here.
            Some(Corruption::Length) => Err(Refusal::WrongLength),
            Some(Corruption::Digest) => Err(Refusal::DigestMismatch),
            Some(Corruption::Norm) => {
                self.world.federation.stager().stage(&too_long(self.plan.plan())).map(Made::from)
            }
        }
    }

    /// Does what the server's machine asks for.
    pub(super) fn perform(&mut self) -> Result<(), SimulationError> {
        while let Some(action) = self.world.machine.poll_action() {
            match action {
                Action::Send { to, message } => self.tell(&to, &message),
                Action::SendModel { to, round, .. } => {
                    let bytes = size_of_val(self.base.as_slice()) as u64;
                    self.bytes_down += bytes;
                    self.send_to_client(to, bytes, client::Event::ModelStaged { round });
                }
                Action::GrantUpload { client, round, until, .. } => self.grant(client, round, until),
                Action::Ask { to, round, phase } => self.ask(&to, round, phase),
                Action::Commit { client, .. } => self.commit(client)?,
                Action::Discard { client, .. } => {
                    self.cancel_work(client);
                    if let Some(seat) = self.seats.get_mut(&client) {
                        seat.received = 0;
                    }
                }
                Action::Disconnect { client, channel_binding } => {
                    if self
                        .connection(client)
                        .is_some_and(|connection| connection.binding() == channel_binding)
                    {
                        self.vanish(client, None);
                    }
                }
                Action::Start(job @ Job::Release { .. }) => self.release(job),
                Action::Closed { outcome, progress, .. } => self.closed = Some((outcome, progress)),
            }
        }
        Ok(())
    }

    fn tell(&mut self, to: &[ClientId], message: &ServerMessage) {
        for &client in to {
            let event = match *message {
                // The signature was made in this process.
                ServerMessage::Invite(_) => client::Event::Invited(self.plan.clone()),
                ServerMessage::Committed { round } => client::Event::Committed { round },
                ServerMessage::Refused { round, reason } => client::Event::Refused { round, reason },
                ServerMessage::Closed { round, released } => client::Event::Closed { round, released },
                // Drivers send these, not machines, and this driver has no use for them.
                ServerMessage::Asked { .. }
                | ServerMessage::Welcome(_)
                | ServerMessage::Model { .. }
                | ServerMessage::Grant { .. }
                | ServerMessage::Proof { .. }
                | ServerMessage::Rotated(_)
                | ServerMessage::Finished
                | ServerMessage::TurnedAway(_) => return,
            };
            self.send_to_client(client, 0, event);
        }
    }

    fn grant(&mut self, client: ClientId, round: Round, until: Time) {
        let Some(seat) = self.seats.get(&client) else { return };
        let (offset, until) = (seat.received, until.since(self.world.now));
        self.send_to_client(client, 0, client::Event::Granted { round, offset, until });
    }

    fn commit(&mut self, client: ClientId) -> Result<(), SimulationError> {
        let made = self.staged.take().ok_or(SimulationError::OutOfStep("a commit without an update"))?;
        let round = self.plan.plan().round;
        if !round.is_query() {
            self.world.trainer.committed(client, &made.update);
        }
        if self.masked.is_computed() {
            self.commit_masked(client, &made.update)?;
        } else if self.masked.is_grouped() {
            self.world.federation.commit_to(self.group(client), &made.update)?;
        } else if !self.world.federation.adds_up() {
            self.world.federation.commit(&made.update)?;
        } else {
            self.world.workers.add(made);
        }
        self.count_update(client);
        self.updates += 1;
        self.observer.update_committed(round, self.updates);
        Ok(())
    }

    /// Makes one sum of what threads have added up.
    fn gathered(&mut self) -> Result<(), AbortReason> {
        let sums = self.world.workers.sums().map_err(|_| AbortReason::ReleaseFailed)?;
        let mut sums = sums.into_iter();
        sums.try_for_each(|sum| self.world.federation.commit_sum(sum)).map_err(|error| error.abort_reason())
    }

    fn release(&mut self, job: Job) {
        if let Mechanism::RoundedGaussian { .. } = self.world.federation.mechanism() {
            // Noise is drawn on threads of its own.
            self.world.workers.make_way();
        }
        let result = self.gathered().and_then(|()| self.unmasked()).and_then(|()| {
            self.world.federation.release().map_err(|error| {
                tracing::warn!(round = self.plan.plan().round.0, %error, "nothing was released");
                error.abort_reason()
            })
        });
        let lost = self.world.federation.lost().to_vec();
        if !lost.is_empty() {
            self.handle_at_server(Event::GroupLost { round: self.plan.plan().round, clients: lost });
        }
        self.handle_at_server(Event::JobDone { job, result });
    }
}

/// A packed update whose every coordinate is as large as one may be. Under masks nobody notices.
fn too_long(plan: &Plan) -> Vec<u8> {
    let bits = plan.encoding.wire_bits;
    let range = plan.grid().map_or(u64::MAX, |grid| grid.range());
    let largest = range.min((i32::MAX >> (32 - bits)) as u64) as i32;
    packing::pack(&vec![largest; plan.update_len() as usize], bits)
        .expect("no coordinate is larger than the wire carries")
}
