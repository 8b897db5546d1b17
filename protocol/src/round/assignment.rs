//! One client's part in a round.

use std::sync::Arc;

use super::{Decline, Phase, Refusal};
use crate::ids::{ChannelBinding, ClientId, Digest};
use crate::plan::VerifiedPlan;
use crate::time::Time;

/// One client, one plan, one base model.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Who.
    pub client: ClientId,
    /// What it is asked to do.
    pub plan: Arc<VerifiedPlan>,
    /// The model it starts from.
    pub base_model: Digest,
    /// After this nothing it says counts.
    pub expires: Time,
    /// How far it has come.
    pub progress: Progress,
    /// When a lost connection must be back; `None` while it is there or was never there.
    pub reconnect_by: Option<Time>,
    /// The connection that was last told of the grant. Told twice on one connection, a client would begin its upload
    /// again while the first is under way.
    pub granted_on: Option<ChannelBinding>,
}

/// How far a client has come in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Invited, not yet heard of.
    Invited,
    /// Has accepted: it fetches the model and trains.
    Accepted,
    /// In a masked round: has answered in this phase.
    Answered(Phase),
    /// Has an update of this length and digest and waits for its turn.
    Offered {
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
    },
    /// Sends its update.
    Granted {
        /// Bytes.
        len: u64,
        /// Their digest.
        digest: Digest,
        /// The end of the grant.
        until: Time,
    },
    /// Its update is in the sum, as a whole.
    Committed,
    /// Its update is in the sum, but it does not help to unmask it.
    Withheld(Decline),
    /// Does not take part.
    Declined(Decline),
    /// Is out.
    Refused(Refusal),
}

impl Progress {
    /// Whether the client may still come to be in the sum.
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Progress::Invited
                | Progress::Accepted
                | Progress::Answered(_)
                | Progress::Offered { .. }
                | Progress::Granted { .. }
        )
    }
}
