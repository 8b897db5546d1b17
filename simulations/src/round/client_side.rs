//! What the driver does for clients: their messages, training, uploads and faults.

use std::collections::BTreeSet;

use skep_protocol::message::ClientMessage;
use skep_protocol::round::client::{Action, Event, Job as ClientJob, Made, Packed};
use skep_protocol::round::server;
use skep_protocol::{ClientId, Span};

use super::{Arrival, OpenRound};
use crate::availability::Presence;
use crate::fault::{Corruption, Moment};
use crate::network::Due;
use crate::seat::packed;
use crate::workers::{Job, Trainer};

impl<T: Trainer> OpenRound<'_, '_, T> {
    pub(super) fn handle_at_client(&mut self, client: ClientId, event: Event) {
        let now = self.world.now;
        if let Some(seat) = self.seats.get_mut(&client) {
            seat.machine.handle(now, event);
        }
        while let Some(action) = self.seats.get_mut(&client).and_then(|seat| seat.machine.poll_action()) {
            match action {
                Action::Send(message) => self.say(client, message),
                Action::Start(ClientJob::Train(_)) => self.start_training(client),
                Action::Start(ClientJob::Answer { phase, request, .. }) => {
                    let round = self.plan.plan().round;
                    let result = self.make(client, phase, &request);
                    if let Some(seat) = self.seats.get_mut(&client) {
                        seat.machine.handle(now, Event::JobDone { round, result });
                    }
                }
                Action::Upload { offset, .. } => self.start_upload(client, offset),
                // The server sends the model to whoever accepts; what a client holds goes with its seat.
                Action::FetchModel { .. } | Action::Closed { .. } => {}
            }
        }
    }

    fn say(&mut self, client: ClientId, message: ClientMessage) {
        if self.connection(client).is_none() {
            return;
        }
        match message {
            ClientMessage::Accept { round, plan } => {
                self.send_to_server(client, server::Event::Accepted { client, round, plan });
            }
            ClientMessage::Decline { round, reason } => {
                self.send_to_server(client, server::Event::Declined { client, round, reason });
            }
            ClientMessage::Answered { round, phase, body } => self.send_answer(client, round, phase, body),
            // No machine asks; owners of data do, and simulated clients have none.
            ClientMessage::Prove { .. } => {}
            ClientMessage::Offer(offer) => {
                let Some(seat) = self.seats.get_mut(&client) else { return };
                let surplus = u64::from(seat.corruption() == Some(Corruption::Length));
                let vanishes = seat.vanishes(Moment::Offering);
                let (round, len, digest) = (offer.round, offer.len + surplus, offer.digest);
                self.send_to_server(client, server::Event::UploadOffered { client, round, len, digest });
                if let Some(back_after) = vanishes {
                    self.vanish(client, back_after);
                }
            }
        }
    }

    fn start_training(&mut self, client: ClientId) {
        let Some(seat) = self.seats.get_mut(&client) else { return };
        let examples = self.world.trainer.examples(client);
        let span = match seat.is_late() {
            true => self.plan.plan().deadline,
            false if self.plan.plan().round.is_query() => seat.pace.training(examples, 1),
            false => seat.pace.training(examples, self.world.task.training.local_epochs),
        };
        let vanishes = seat.vanishes(Moment::Training);
        // Offer, grant, upload.
        let message = seat.pace.message();
        let uploaded = span + message + message + seat.pace.upload(self.plan.plan().upload_bytes());
        let is_expected = !seat.is_late() && self.may_announce();
        self.world.network.send(self.world.now + span, Arrival::Trained(client));
        if let Some(back_after) = vanishes {
            self.vanish(client, back_after);
        } else if is_expected {
            let due = self.world.network.reserve(self.world.now + uploaded);
            self.announce(client, due);
        }
    }

    /// Whether an update may be computed before it is uploaded. Where clients mask, many drop out between the two.
    fn may_announce(&self) -> bool {
        self.plan.plan().masking().is_none()
    }

    /// Lets helpers begin with the updates of a cohort before anybody is invited, in the order in which they arrive if all goes
    /// well; but not with those of clients of whom it is known that it will not.
    pub(super) fn announce_all(&mut self, cohort: &BTreeSet<ClientId>) {
        if !self.may_announce() {
            return;
        }
        let (upload, epochs) = (self.plan.plan().upload_bytes(), self.world.task.training.local_epochs);
        let mut jobs = Vec::with_capacity(cohort.len());
        for &client in cohort {
            let (job, examples) = (self.job(client), self.world.trainer.examples(client));
            let is_here = matches!(self.world.presence.at(client, self.world.now), Presence::Here { .. });
            let Some(seat) = self.seats.get_mut(&client).filter(|seat| is_here && seat.is_faultless()) else {
                continue;
            };
            let model = seat.pace.download(size_of_val(self.base.as_slice()) as u64);
            // Invitation and acceptance; offer and grant.
            let messages = [seat.pace.message(); 4].into_iter().fold(Span::default(), |sum, span| sum + span);
            let uploaded = messages + model + seat.pace.training(examples, epochs) + seat.pace.upload(upload);
            let due = self.world.network.reserve(self.world.now + uploaded);
            seat.work = Some(due);
            jobs.push((due, job));
        }
        self.world.workers.announce(jobs);
    }

    /// Lets helpers compute an update that is likely to be taken at `due`, unless they may already.
    fn announce(&mut self, client: ClientId, due: Due) {
        let job = self.job(client);
        let Some(seat) = self.seats.get_mut(&client).filter(|seat| seat.work.is_none()) else { return };
        seat.work = Some(due);
        self.world.workers.announce([(due, job)]);
    }

    pub(super) fn trained(&mut self, client: ClientId) {
        let round = self.plan.plan().round;
        let result = match self.plan.plan().masking() {
            None => Ok(Made::Update(self.packed(client))),
            Some(_) => self.introduce(client).map(Made::Answer),
        };
        self.handle_at_client(client, Event::JobDone { round, result });
    }

    fn start_upload(&mut self, client: ClientId, offset: u64) {
        self.cancel_upload(client);
        let bytes = self.plan.plan().upload_bytes() - offset;
        let Some(seat) = self.seats.get_mut(&client) else { return };
        let Some(connection) = seat.connection else { return };
        if let Some(back_after) = seat.vanishes(Moment::Uploading) {
            let at = self.world.now + seat.pace.upload(bytes / 2);
            self.world.network.send(at, Arrival::Cut { client, bytes: bytes / 2, back_after });
            return;
        }
        let at = self.world.now + seat.pace.upload(bytes);
        let due = self.world.network.send(at, Arrival::Upload { client, connection, bytes });
        seat.upload = Some(due);
        self.announce(client, due);
    }

    pub(super) fn packed(&self, client: ClientId) -> Packed {
        packed(self.plan.plan().upload_bytes(), self.plan.plan().round, client)
    }

    pub(super) fn cut(&mut self, client: ClientId, bytes: u64, back_after: Option<Span>) {
        let Some(seat) = self.seats.get_mut(&client) else { return };
        seat.received += bytes;
        self.bytes_up += bytes;
        self.vanish(client, back_after);
    }

    pub(super) fn cancel_upload(&mut self, client: ClientId) {
        if let Some(seat) = self.seats.get_mut(&client) {
            seat.upload = None;
        }
    }

    /// Nobody need compute the update any more.
    pub(super) fn cancel_work(&mut self, client: ClientId) {
        self.cancel_upload(client);
        if let Some(due) = self.seats.get_mut(&client).and_then(|seat| seat.work.take()) {
            self.world.workers.cancel(due);
        }
    }

    pub(super) fn job(&self, client: ClientId) -> Job {
        Job { client, plan: self.plan.clone(), base: self.base.clone(), weight: 1.0 }
    }
}
