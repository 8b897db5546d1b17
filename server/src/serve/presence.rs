//! Who came and who left, written down in that order by a thread of its own.

use skep_protocol::ClientId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::enrolment::Enrolment;

/// Where comings and goings are told. As many wait as connections are made while the disk is slow.
#[derive(Clone, Debug)]
pub(super) struct Presence(UnboundedSender<(ClientId, bool)>);

impl Presence {
    /// Begins to write down; ends when every clone is dropped.
    pub(super) fn keep(enrolment: Enrolment) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = unbounded_channel();
        (Presence(sender), tokio::task::spawn_blocking(move || write(receiver, &enrolment)))
    }

    /// Notes that a client has come, or gone.
    pub(super) fn note(&self, client: ClientId, is_here: bool) {
        // The writer ends last.
        let _ = self.0.send((client, is_here));
    }
}

fn write(mut receiver: UnboundedReceiver<(ClientId, bool)>, enrolment: &Enrolment) {
    while let Some((client, is_here)) = receiver.blocking_recv() {
        if let Err(error) = enrolment.note_presence(client, is_here) {
            warn!(%client, %error, "not written down");
        }
    }
}
