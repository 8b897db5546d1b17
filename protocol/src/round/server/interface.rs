//! What happens to the server's machine, and what it asks its driver for.

use thiserror::Error;

use crate::ids::{ChannelBinding, ClientId, Digest, Round};
use crate::message::ServerMessage;
use crate::round::{AbortReason, Decline, Outcome, Phase, Progress, Refusal};
use crate::time::Time;

/// What bounds a server's memory and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of uploads granted at once; one upload is always granted, whatever its size.
    pub upload_memory_bytes: u64,
    /// The slowest upload that is waited for, in bytes per second.
    pub min_upload_bytes_per_s: u64,
}

/// What happens to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client's connection is authenticated. It replaces an earlier one of the same client.
    Connected {
        /// Who, by its certificate.
        client: ClientId,
        /// This connection.
        channel_binding: ChannelBinding,
    },
    /// A connection is gone. Ignored unless it is the client's latest.
    Disconnected {
        /// Who.
        client: ClientId,
        /// Which connection.
        channel_binding: ChannelBinding,
    },
    /// A client accepts a plan.
    Accepted {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// The plan that it names.
        plan: Digest,
    },
    /// A client does not take part.
    Declined {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// Why.
        reason: Decline,
    },
    /// A client answers in a phase of a masked round, and the driver finds its answer good.
    Answered {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// The phase that it answers in.
        phase: Phase,
    },
    /// What was answered in a phase does not suffice for the next.
    PhaseFailed {
        /// The round.
        round: Round,
        /// Why.
        reason: AbortReason,
    },
    /// Too few of a group have answered to go on with it: all of its clients are out of the round, also those whose updates were
    /// in its sum. The round goes on with the other groups.
    GroupLost {
        /// The round.
        round: Round,
        /// The group.
        clients: Vec<ClientId>,
    },
    /// A client offers an update, and its signature holds.
    UploadOffered {
        /// Who.
        client: ClientId,
        /// The round that it names.
        round: Round,
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
    },
    /// A granted upload is there as a whole, has its digest, its coordinates are in range and, where the server sees
    /// them, their norm holds.
    UploadStaged {
        /// Whose.
        client: ClientId,
        /// The round it was granted in.
        round: Round,
    },
    /// A granted upload is there and is refused.
    UploadFailed {
        /// Whose.
        client: ClientId,
        /// The round it was granted in.
        round: Round,
        /// Why.
        reason: Refusal,
    },
    /// A client sent what is no message at all, or a message whose signature does not hold.
    Violated {
        /// Who.
        client: ClientId,
        /// Why it is refused.
        reason: Refusal,
    },
    /// A client has been shut out of the federation; the driver closes its connection.
    ShutOut {
        /// Who.
        client: ClientId,
    },
    /// A job has ended.
    JobDone {
        /// Which.
        job: Job,
        /// Nothing when it did what it was asked to, or why the round is aborted.
        result: Result<(), AbortReason>,
    },
    /// Time has passed.
    Tick,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message to all of these clients.
    Send {
        /// To whom, in order of their ids.
        to: Vec<ClientId>,
        /// What.
        message: ServerMessage,
    },
    /// Send the open round's base model.
    SendModel {
        /// To whom.
        to: ClientId,
        /// The round.
        round: Round,
        /// The model.
        model: Digest,
    },
    /// Make room for an upload and tell the client from which offset to send: zero, or where it was cut off. Once a
    /// connection.
    GrantUpload {
        /// To whom.
        client: ClientId,
        /// The round.
        round: Round,
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
        /// Until when.
        until: Time,
    },
    /// Add the staged upload to the sum.
    Commit {
        /// Whose.
        client: ClientId,
        /// The round.
        round: Round,
    },
    /// Forget the upload, whole or not.
    Discard {
        /// Whose.
        client: ClientId,
        /// The round.
        round: Round,
    },
    /// Close a connection.
    Disconnect {
        /// Whose.
        client: ClientId,
        /// Which.
        channel_binding: ChannelBinding,
    },
    /// Ask clients for what a phase of a masked round is about. The first time in a phase: the one before it has ended, and
    /// the driver makes of its answers what is to be asked. Nobody may be there to be asked.
    Ask {
        /// Whom, in order of their ids.
        to: Vec<ClientId>,
        /// The round.
        round: Round,
        /// The phase.
        phase: Phase,
    },
    /// Do heavy work and come back with [`Event::JobDone`].
    Start(Job),
    /// The round is over; drop what is left of it.
    Closed {
        /// The round.
        round: Round,
        /// How it ended.
        outcome: Outcome,
        /// What became of each invited client, in order of their ids.
        progress: Vec<(ClientId, Progress)>,
    },
}

/// Heavy work for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Release the sum of the committed updates: of a masked round its masks off, then noise, decode, next model, on
    /// disk.
    Release {
        /// The round.
        round: Round,
    },
}

/// Why a round cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Another is open.
    #[error("{0} is still open")]
    Busy(Round),
    /// The plan's round is not after the last one.
    #[error("{asked} does not come after {last}")]
    NotAfter {
        /// The plan's round.
        asked: Round,
        /// The last round that was opened.
        last: Round,
    },
    /// The cohort is larger than the plan allows.
    #[error("{invited} clients are invited, the plan allows {limit}")]
    CohortTooLarge {
        /// Clients given.
        invited: usize,
        /// The plan's limit.
        limit: u32,
    },
}
