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
    /// Too few of the client's group were left, so the sum of the whole group is dropped.
    #[error("too few of the client's group were left, so the group's sum is dropped")]
    GroupLost,
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
            | Refusal::TooFast
            | Refusal::GroupLost => true,
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
    /// The operating system gave no randomness for secrets.
    #[error("the operating system gave no randomness")]
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
    /// The cohort is too small to hide in.
    #[error("the cohort is too small to hide in")]
    SmallCohort,
    /// Threshold or share holders are fewer than the assumed fraction of corrupt clients takes.
    #[error("threshold or number of share holders are too low for this cohort")]
    WeakThreshold,
    /// The clients that the server names do not add up: too few, not sorted, or without this one.
    #[error("the clients that the server names do not add up")]
    BadPeers,
    /// A peer's certificate is not of this federation, has expired, or names another client.
    #[error("the keys of a peer are not certified by this federation")]
    UnknownPeer,
    /// The authority's roster does not list a peer with its key.
    #[error("a peer is not in the roster that the authority has signed")]
    UnlistedPeer,
    /// The authority's roster is older than one seen before, or not the same for all peers.
    #[error("the roster is older than one that the client has seen, or not the same for all peers")]
    StaleRoster,
    /// A peer's keys are not signed by its identity for this plan, and so for this model.
    #[error("the keys of a peer are not signed for this plan and its model")]
    UnsignedKeys,
    /// Two peers have the same keys, or an identity appears twice.
    #[error("two peers have the same keys")]
    DuplicateKeys,
    /// A peer's key is one that no honest client makes, or cannot be read.
    #[error("the keys of a peer are not usable")]
    BadKeys,
    /// More peers chose this client as a share holder than chance allows.
    #[error("too many peers chose this client as a share holder")]
    Flooded,
    /// Too few share holders are left to hide behind.
    #[error("too few share holders are left")]
    TooFewHolders,
    /// The shares delivered are not from those who are said to have shared.
    #[error("the shares delivered are not from those who are said to have shared")]
    BadShares,
    /// The survivors are too few, not those who shared, or without this client.
    #[error("the set of survivors does not add up")]
    BadSurvivors,
    /// Too few share holders have signed the same survivors.
    #[error("too few share holders agree to the survivors")]
    NoAgreement,
    /// The server asks for the same thing a second time, differently.
    #[error("the server asks a second time for what it was given")]
    AskedTwice,
    /// The server asks for something before its time.
    #[error("the server asks for something before its time")]
    OutOfTurn,
    /// The owner does not agree to the trust mode.
    #[error("the owner does not agree to this trust mode")]
    Mode,
    /// There is less noise than the owner asks for, or than earlier rounds had.
    #[error("there is less noise than the owner asks for, or than earlier rounds of the task had")]
    Noise,
    /// The server sees single updates, and the owner does not trust it.
    #[error("the server sees every update, and the owner does not trust it")]
    TrustServer,
    /// The owner's budget against recipients of models is spent.
    #[error("the owner's budget against recipients of models does not allow it")]
    EpsilonRelease,
    /// The owner's budget against servers is spent.
    #[error("the owner's budget against servers does not allow it")]
    EpsilonServer,
    /// The data have taken part as often as the owner allows.
    #[error("the data have taken part as often as the owner allows")]
    Participations,
    /// The data took part too short a time ago.
    #[error("the data took part too few rounds ago")]
    Separation,
    /// The server's ledger is not a continuation of the one that was seen before.
    #[error("the server's ledger is missing, or does not continue the one that was seen before")]
    Ledger,
    /// The participation cannot be written down.
    #[error("the participation cannot be written down")]
    Unrecorded,
    /// The query is not among those that the task has, or not as the task has it.
    #[error("the task has no such query")]
    Unplanned,
    /// The owner's data answer no queries.
    #[error("the owner's data answer no queries")]
    Queries,
    /// The data have taken part by this very plan. What was sent then is at hand only in the round itself; made again, with other
    /// noise, it would say more.
    #[error("the data have taken part by this very plan already")]
    TakenPart,
}
