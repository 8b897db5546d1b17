//! The owner's side of an invitation: is it allowed, can it still be afforded, and is the server's ledger the one that was
//! seen before?

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use skep_privacy::ledger::{Checkpoint, Hash, is_consistent};
use skep_protocol::net::invitation::unix_millis;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::Decline;
use tracing::{error, warn};

use crate::participations::{Entry, Participations, ParticipationsError, Total};
use crate::privacy_policy::{PrivacyPolicy, Promised};

/// Judges invitations for one data set.
#[derive(Debug)]
pub struct Guard {
    policy: PrivacyPolicy,
    participations: Participations,
}

/// A guard that a training's thread can use as well.
#[derive(Clone, Debug)]
pub struct SharedGuard(Arc<Mutex<Guard>>);

impl SharedGuard {
    /// The guard itself; nobody keeps it for longer than a write to disk.
    pub fn lock(&self) -> MutexGuard<'_, Guard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Guard> for SharedGuard {
    fn from(guard: Guard) -> Self {
        SharedGuard(Arc::new(Mutex::new(guard)))
    }
}

/// What to do about an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Take part.
    Agreed,
    /// Do not.
    Declined(Decline),
    /// First ask the server to prove that its ledger of so many records is the beginning of the one in the plan.
    Doubted {
        /// Records when it was last seen.
        from: u64,
        /// Records now.
        to: u64,
    },
}

impl Guard {
    /// Guards the data set called `data`, whose participations are listed in `directory`.
    ///
    /// # Errors
    /// [`ParticipationsError`] when that list cannot be used.
    pub fn open(policy: PrivacyPolicy, directory: &Path, data: &str) -> Result<Self, ParticipationsError> {
        Ok(Guard { policy, participations: Participations::open(directory, data)? })
    }

    /// What these data have given away.
    pub fn participations(&self) -> &Participations {
        &self.participations
    }

    /// Judges an invitation.
    pub(crate) fn judge(&self, plan: &VerifiedPlan) -> Judgement {
        let Some(checkpoint) = plan.checkpoint() else { return Judgement::Declined(Decline::Ledger) };
        let decline = self
            .policy
            .allows(plan.plan())
            .and_then(|()| self.follows(plan, checkpoint))
            .and_then(|()| self.affords(plan, checkpoint));
        match (decline, self.last_seen(checkpoint)) {
            (Err(reason), _) => Judgement::Declined(reason),
            (Ok(()), Some(seen)) if seen.size < checkpoint.size => {
                Judgement::Doubted { from: seen.size, to: checkpoint.size }
            }
            (Ok(()), _) => Judgement::Agreed,
        }
    }

    /// Judges an invitation again, with the proof that was asked for.
    pub(crate) fn judge_proof(&self, plan: &VerifiedPlan, proof: &[[u8; 32]]) -> Judgement {
        let Some(checkpoint) = plan.checkpoint() else { return Judgement::Declined(Decline::Ledger) };
        let proof: Vec<Hash> = proof.iter().copied().map(Hash).collect();
        match self.last_seen(checkpoint) {
            Some(seen) if !is_consistent(seen.size, seen.root, checkpoint.size, checkpoint.root, &proof) => {
                warn!(
                    from = seen.size,
                    to = checkpoint.size,
                    "the server's ledger does not continue the one seen before"
                );
                Judgement::Declined(Decline::Ledger)
            }
            _ => Judgement::Agreed,
        }
    }

    /// Writes down that the data take part in a round, which they do once. Without that nothing may be sent.
    ///
    /// # Errors
    /// [`Decline::Unrecorded`], or [`Decline::TakenPart`] where somebody else with these data has.
    pub(crate) fn charge(&mut self, plan: &VerifiedPlan) -> Result<(), Decline> {
        let checkpoint = plan.checkpoint().ok_or(Decline::Ledger)?;
        if self.participations.has(&plan.digest()) {
            return Err(Decline::TakenPart);
        }
        self.participations.add(Entry::of(plan, checkpoint, now_ms())).map_err(|reason| {
            error!(%reason, "the participation cannot be written down, so the update is not sent");
            Decline::Unrecorded
        })
    }

    /// The ledger as it was last seen, where that was no later than in the plan.
    fn last_seen(&self, checkpoint: &Checkpoint) -> Option<&Entry> {
        self.participations.entries().iter().rev().find(|entry| entry.ledger == checkpoint.origin)
    }

    /// Whether the plan can follow what was seen of its task and of its ledger.
    fn follows(&self, plan: &VerifiedPlan, checkpoint: &Checkpoint) -> Result<(), Decline> {
        if let Some(seen) = self.last_seen(checkpoint) {
            let older = checkpoint.size < seen.size;
            if older || (checkpoint.size == seen.size && checkpoint.root != seen.root) {
                warn!(
                    seen = seen.size,
                    now = checkpoint.size,
                    "the server's ledger is an older or another one"
                );
                return Err(Decline::Ledger);
            }
        }
        if self.participations.has(&plan.digest()) {
            // While what was sent is at hand it is sent again, unasked here; copies with other noise would average that away.
            return Err(Decline::TakenPart);
        }
        let task = plan.plan().task;
        let entries = self.participations.entries();
        let of_task =
            || entries.iter().rev().filter(|entry| entry.task == task && entry.ledger == checkpoint.origin);
        // What a query adds is planned by itself.
        let of_kind = || of_task().filter(|entry| entry.round.is_query() == plan.plan().round.is_query());
        let noise = Promised::by(plan.plan()).noise;
        if of_kind().any(|entry| noise < entry.noise) {
            return Err(Decline::Noise);
        }
        if self.policy.max_participations.is_some_and(|most| entries.len() as u64 >= most) {
            return Err(Decline::Participations);
        }
        let (round, separation) = (plan.plan().round, self.policy.min_separation.unwrap_or(1));
        if of_task().any(|entry| round <= entry.round) {
            return Err(Decline::StaleRound);
        }
        let since = |entry: &Entry| round.0.saturating_sub(entry.round.0);
        match of_kind().next() {
            Some(entry) if !round.is_query() && since(entry) < separation => Err(Decline::Separation),
            _ => Ok(()),
        }
    }

    /// Whether the owner's budget allows what the plan promises, beside what other ledgers, and other epochs of this one, were promised
    /// to cost.
    fn affords(&self, plan: &VerifiedPlan, checkpoint: &Checkpoint) -> Result<(), Decline> {
        let Total { epsilon_release: release, epsilon_server: server, .. } =
            self.participations.total_with(&Entry::of(plan, checkpoint, now_ms()));
        if self.policy.max_epsilon_release.is_some_and(|most| release > most.get()) {
            return Err(Decline::EpsilonRelease);
        }
        // A server that is trusted to see updates is not limited in what it learns from them.
        let limit =
            self.policy.max_epsilon_server.filter(|_| !self.policy.trust_server || server.is_finite());
        if limit.is_some_and(|most| server > most.get()) {
            return Err(Decline::EpsilonServer);
        }
        Ok(())
    }
}

fn now_ms() -> u64 {
    unix_millis(SystemTime::now())
}

#[cfg(test)]
mod tests;
