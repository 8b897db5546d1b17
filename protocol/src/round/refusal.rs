//! Why a message, an update or an invitation is refused: closed lists, so that every reason has a name.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why the server refuses what a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No round is open.
    #[error("no round is open")]
    NoRound,
    /// Another round is open.
    #[error("the message is for another round than the open one")]
    WrongRound,
    /// The client is not in the cohort.
    #[error("the client is not invited to this round")]
    NotInvited,
    /// The message names another plan than the one sent.
    #[error("the message names another plan")]
    WrongPlan,
    /// The collection has ended.
    #[error("the collection has ended")]
    Late,
    /// The client has already done this.
    #[error("the client has already said so")]
    Duplicate,
    /// The message does not fit what the client said before.
    #[error("the message does not fit what the client said before")]
    Unexpected,
    /// The update is not as long as the plan says.
    #[error("the update has the wrong length")]
    WrongLength,
    /// More bytes came than were offered.
    #[error("the upload is longer than offered")]
    TooLong,
    /// The bytes are not those that were offered.
    #[error("the upload does not have the digest that was offered")]
    DigestMismatch,
    /// A coordinate does not fit the sum of the largest cohort.
    #[error("a coordinate of the update is out of range")]
    OutOfRange,
    /// The update is longer than the sensitivity.
    #[error("the norm of the update exceeds the sensitivity")]
    NormExceeded,
    /// The bytes are no message or no packed update.
    #[error("the bytes are malformed")]
    Malformed,
    /// The signature is not that of the client's key on this connection.
    #[error("the signature does not hold on this connection")]
    BadSignature,
    /// The upload did not finish while its grant lived.
    #[error("the upload did not finish while its grant lived")]
    GrantExpired,
    /// The client said nothing in time.
    #[error("the client did not answer in time")]
    NoAnswer,
    /// The connection was lost and did not come back in time.
    #[error("the connection was lost")]
    ConnectionLost,
    /// The client has been shut out of the federation.
    #[error("the client has been revoked")]
    Revoked,
    /// More messages came than a connection may carry in their time.
    #[error("too many messages in too short a time")]
    TooFast,
}

impl Refusal {
    /// Whether the sender is out of the round; otherwise only the one message is refused.
    pub fn ends_participation(self) -> bool {
        match self {
            Refusal::NoRound
            | Refusal::WrongRound
            | Refusal::NotInvited
            | Refusal::WrongPlan
            | Refusal::Late
            | Refusal::Duplicate
            | Refusal::Unexpected => false,
            Refusal::WrongLength
            | Refusal::TooLong
            | Refusal::DigestMismatch
            | Refusal::OutOfRange
            | Refusal::NormExceeded
            | Refusal::Malformed
            | Refusal::BadSignature
            | Refusal::GrantExpired
            | Refusal::NoAnswer
            | Refusal::ConnectionLost
            | Refusal::Revoked
            | Refusal::TooFast => true,
        }
    }
}

/// Why a client does not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
pub enum Decline {
    /// A plan for this or a later round has been seen before.
    #[error("a plan for this or a later round has been seen before")]
    StaleRound,
    /// The plan is for another task than the one announced.
    #[error("the plan is for another task")]
    WrongTask,
    /// Grid, segments, sensitivity and noise of the plan do not fit each other or the task.
    #[error("the plan contradicts itself or the task")]
    Inconsistent,
    /// The base model did not arrive, or has another digest.
    #[error("the base model did not arrive as planned")]
    NoModel,
    /// The local training failed.
    #[error("the local training failed")]
    TrainingFailed,
    /// The update is not finite or does not fit the grid.
    #[error("the update does not fit the plan's grid")]
    Unencodable,
    /// The owner's limits forbid it.
    #[error("the owner's limits forbid it")]
    Policy,
    /// The operating system gave no random bytes for rounding and noise.
    #[error("the system has no randomness for the noise")]
    NoRandomness,
    /// The owner does not take part at this time of day.
    #[error("the owner does not take part at this time of day")]
    OutsideHours,
    /// The owner allows fewer bytes.
    #[error("the owner allows fewer bytes than the round needs")]
    ByteLimit,
    /// The owner allows no more rounds.
    #[error("the owner allows no more rounds")]
    RoundLimit,
}
