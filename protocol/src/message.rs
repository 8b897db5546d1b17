//! What server and client say to each other.
//!
//! Control messages are small and go through [`crate::codec`]. Models and updates follow as raw chunks: they are
//! named here by length and digest only.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::experiment::Task;
use crate::ids::{Digest, Round};
use crate::plan::SignedPlan;
use crate::round::{Decline, Phase, Refusal};
use crate::time::Span;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// "I take part in this plan; send me its model."
    Accept {
        /// The plan's round.
        round: Round,
        /// The plan, by digest.
        plan: Digest,
    },
    /// "I do not take part."
    Decline {
        /// The plan's round.
        round: Round,
        /// Why.
        reason: Decline,
    },
    /// "My update is ready; may I send it?"
    Offer(Offer),
    /// What the client says in a phase of a masked round.
    Answered {
        /// The plan's round.
        round: Round,
        /// The phase.
        phase: Phase,
        /// As [`crate::masked`] encodes it.
        body: Vec<u8>,
    },
    /// "I have seen this much of your ledger; show that the plan's checkpoint continues it."
    Prove {
        /// The plan's round.
        round: Round,
        /// Records that the client has seen.
        from: u64,
    },
}

/// An update that a client would send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The plan's round.
    pub round: Round,
    /// Bytes of the packed update.
    pub len: u64,
    /// Their digest.
    pub digest: Digest,
    /// The identity key's signature over the plan, the update and the connection (see [`Offer::signed_text`]);
    /// empty in drivers without connections.
    pub signature: Vec<u8>,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The first message on every connection: what this federation learns.
    Welcome(Box<Task>),
    /// "You are invited to this round."
    Invite(SignedPlan),
    /// The base model of a round follows in chunks.
    Model {
        /// The plan's round.
        round: Round,
        /// Bytes of the model.
        len: u64,
        /// Their digest.
        digest: Digest,
    },
    /// "Send your update from this offset."
    Grant {
        /// The plan's round.
        round: Round,
        /// Bytes that the server has already.
        offset: u64,
        /// How long the grant lives.
        until: Span,
    },
    /// "Your update is in the sum."
    Committed {
        /// The plan's round.
        round: Round,
    },
    /// "What you said is refused."
    Refused {
        /// The round that the refused message named, if it named one.
        round: Option<Round>,
        /// Why.
        reason: Refusal,
    },
    /// "The round is over." How many took part is not said: the size of a sampled cohort is a secret that the
    /// accounting relies on.
    Closed {
        /// The round.
        round: Round,
        /// Whether a model was released.
        released: bool,
    },
    /// "The federation is over; do not come back."
    Finished,
    /// "You are not let in", or no longer; nothing follows.
    TurnedAway(TurnAway),
    /// What the server asks in a phase of a masked round.
    Asked {
        /// The plan's round.
        round: Round,
        /// The phase.
        phase: Phase,
        /// The next part of what is asked, as [`crate::masked`] encodes it.
        part: Vec<u8>,
        /// Whether it is the last part.
        last: bool,
    },
    /// The ledger continues the one that the client has seen.
    Proof {
        /// The plan's round.
        round: Round,
        /// Hashes of the Merkle tree (RFC 6962, section 2.1.2).
        proof: Vec<[u8; 32]>,
    },
    /// The ledger's key has been replaced: the records that say so, in order, each signed by the key before it. Follows the
    /// welcome.
    Rotated(Vec<Vec<u8>>),
}

/// Why the server does not talk to a client whose certificate is the federation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum TurnAway {
    /// The client is shut out.
    #[error("this client has been revoked")]
    Revoked,
    /// The client has another key by now.
    #[error("this certificate is no longer the client's: it has enrolled again with another key")]
    NotEnrolled,
    /// The client has not renewed its certificate.
    #[error("the certificate of this client has expired")]
    CertificateExpired,
    /// As many clients are connected as the server allows.
    #[error("the server has as many connections as it allows")]
    Full,
    /// Something failed at the server.
    #[error("the server failed; its log says why")]
    ServerFailure,
}

impl TurnAway {
    /// Whether it is no use to come back with the same certificate.
    pub fn is_final(self) -> bool {
        match self {
            TurnAway::Revoked | TurnAway::NotEnrolled | TurnAway::CertificateExpired => true,
            TurnAway::Full | TurnAway::ServerFailure => false,
        }
    }
}

impl Offer {
    /// The bytes that the offer's signature covers: plan, update and connection, so that an offer can be
    /// replayed neither in another round nor on another connection.
    pub fn signed_text(
        plan: &Digest,
        len: u64,
        digest: &Digest,
        channel_binding: &crate::ids::ChannelBinding,
    ) -> Vec<u8> {
        let mut writer = crate::canonical::Writer::new("skep offer signature v1");
        writer.array(&plan.0).u64(len).array(&digest.0).array(&channel_binding.0);
        writer.finish()
    }
}
