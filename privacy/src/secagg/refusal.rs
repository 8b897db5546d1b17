//! Why somebody does not go on.

use super::party::Party;
use super::wire::WireError;

/// What is wrong with an advert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// Its bytes are not an advert.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is not signed by the sender's identity, or for another session: another plan, another model, another cohort.
    #[error("it is not signed by the sender's identity for this session")]
    Signature,
    /// It names another number of holders than the session has for everybody.
    #[error("it names {found} share-holders instead of {expected}")]
    Degree {
        /// k.
        expected: u32,
        /// Holders named.
        found: u32,
    },
    /// Its holders are not in order, not in the cohort, or the sender is one of them.
    #[error("its share-holders are not different other members of the cohort")]
    Holders,
    /// One of its keys is also in the advert of somebody else, or twice in this one.
    #[error("it repeats a key that {0} has")]
    DuplicateKey(Party),
    /// One of its keys has small order: whatever is agreed on with it is known to everybody.
    #[error("it has a key of small order, with which every agreement is zero")]
    SmallOrder,
    /// It was signed for another connection than it came over.
    #[error("it was made for another connection")]
    Connection,
    /// The sender is not in the cohort.
    #[error("its sender is not in the cohort")]
    NotInCohort,
    /// More clients than possible have picked the same holder.
    #[error("it makes {0} a share-holder of more clients than three times its own")]
    InDegree(Party),
}

/// Why a client does not go on: the server lied, or too many have dropped out.
///
/// An honest server never causes any of these except [`Refusal::TooFewHolders`]: what clients do wrong, it refuses itself. A
/// refusal ends the client's part in the session, and wipes its secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session is not for this client.
    #[error("{0} is not in the cohort")]
    NotInCohort(Party),
    /// There are more clients than the plan says.
    #[error("the server lists {found} clients, but the plan is for {cohort}")]
    TooMany {
        /// n.
        cohort: u32,
        /// Clients listed.
        found: usize,
    },
    /// A list names somebody twice, or is not ascending.
    #[error("the server's list is out of order, or names somebody twice")]
    Order,
    /// The server passed on an advert that no client can have made for this session.
    #[error("the advert of {party} is refused: {reason}")]
    Advert {
        /// Whose advert it should be.
        party: Party,
        /// What is wrong with it.
        reason: AdvertError,
    },
    /// The server passed on an advert of somebody who is not a neighbour, or of the client itself.
    #[error("{0} is no neighbour of this client, but the server says so")]
    NotANeighbour(Party),
    /// Too few share-holders are left for a share to be opened, or to hide behind.
    #[error("only {alive} share-holders are left, and {threshold} are needed")]
    TooFewHolders {
        /// Holders that are left.
        alive: u32,
        /// t.
        threshold: u32,
    },
    /// The server forgot this client.
    #[error("this client has answered, but the server's list leaves it out")]
    LeftOut,
    /// Shares from somebody who had none to give.
    #[error("{0} has no shares for this client, but the server delivers some")]
    UnexpectedEnvelope(Party),
    /// The server says that somebody shared, but does not deliver its shares.
    #[error("{0} is said to have shared its secrets, but the server withholds the shares")]
    MissingEnvelope(Party),
    /// Somebody should have survived who never shared.
    #[error("{0} is said to have survived, but never shared its secrets")]
    SurvivorWithoutShares(Party),
    /// The update is for another vector than the session sums.
    #[error("the update has {found} coordinates, but the session sums {expected}")]
    Dimension {
        /// d of the session.
        expected: usize,
        /// Coordinates of the update.
        found: usize,
    },
    /// Too few share-holders signed the survivors that this client was told of.
    #[error(
        "only {valid} share-holders signed the same survivors, {threshold} are needed; {invalid} signatures are for other survivors"
    )]
    NoAgreement {
        /// Valid signatures of surviving holders.
        valid: u32,
        /// Signatures that do not fit what this client was told.
        invalid: u32,
        /// t.
        threshold: u32,
    },
}

/// Why the server does not take a message. The sender is refused, and nothing changes for the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The message is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The sender is not in the cohort, or has dropped out before.
    #[error("{0} does not take part in this phase")]
    NotTakingPart(Party),
    /// The sender has already answered in this phase.
    #[error("{0} has already answered")]
    Twice(Party),
    /// The advert is wrong.
    #[error(transparent)]
    Advert(#[from] AdvertError),
    /// The shares are not for the sender's own holders.
    #[error("the shares are not for the share-holders that are left, one each")]
    Holders,
    /// A masked vector of another length.
    #[error(transparent)]
    Packing(#[from] crate::packing::PackingError),
    /// The signature is not on the survivors.
    #[error("the signature is not by the sender on these survivors")]
    Signature,
    /// The revealed shares are not those that the sender holds.
    #[error("the sender reveals shares of clients that it is no share-holder of")]
    Reveal,
    /// A share is not a number of the field.
    #[error("a share is not a number of the field")]
    Share,
}

/// The phases of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Keys are advertised.
    Keys,
    /// Secrets are shared.
    Shares,
    /// Masked vectors are summed.
    Input,
    /// Survivors are agreed on.
    Consistency,
    /// Masks are removed.
    Unmask,
}

/// Why the session ends without a sum. It is never repeated with other members: everybody makes new keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Abort {
    /// Too few clients are left.
    #[error("only {have} of {cohort} clients are left after the phase {phase:?}, and {need} are needed")]
    TooFew {
        /// The phase that ended.
        phase: Phase,
        /// Clients that are left.
        have: u32,
        /// The fewest that are enough.
        need: u32,
        /// Clients in the cohort.
        cohort: u32,
    },
    /// Too few share-holders of some clients are left.
    #[error(
        "{} clients have too few share-holders left after the phase {phase:?}: {need} are needed, the first has {have}",
        parties.len()
    )]
    TooFewHolders {
        /// The phase that ended.
        phase: Phase,
        /// The clients whose secrets cannot be opened.
        parties: Vec<Party>,
        /// Holders of the first that are left.
        have: u32,
        /// t.
        need: u32,
    },
    /// The shares of a client open to something else than it committed to. It or some of its holders lied.
    #[error("the {shares} shares of {party} do not fit together; it or some of its share-holders lied")]
    Inconsistent {
        /// Whose secret it is.
        party: Party,
        /// Shares revealed.
        shares: u32,
    },
}
