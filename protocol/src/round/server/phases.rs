//! From phase to phase: answers, thresholds, and what is asked next.
//!
//! A phase ends when all its members have answered or at its share of the round's deadline; whoever has not answered by
//! then has dropped out. Below the threshold of any phase the round is aborted. It stays charged, is never tried again
//! with others, and its keys, which are bound to the plan, are never used again.

use std::collections::BTreeSet;

use super::open_round::OpenRound;
use super::{Action, Job, ServerMachine};
use crate::ids::{ClientId, Round};
use crate::round::collection::Gathering;
use crate::round::{AbortReason, Collection, Decline, Outcome, Phase, Progress, Refusal};
use crate::time::Time;

impl ServerMachine {
    /// Whether what a client answers in a phase may count: what a driver asks before it looks at the answer.
    ///
    /// # Errors
    /// The [`Refusal`] that the client is told.
    pub fn check_answer(&self, client: ClientId, round: Round, phase: Phase) -> Result<(), Refusal> {
        let open = self.round.as_ref().ok_or(Refusal::NoRound)?;
        if open.id() != round {
            return Err(Refusal::WrongRound);
        }
        let progress = open.assignments.get(&client).ok_or(Refusal::NotInvited)?.progress;
        let asked = matches!(phase, Phase::Keys | Phase::Shares | Phase::Consistency | Phase::Reveal);
        match (&open.collection, progress) {
            (_, Progress::Refused(reason)) => Err(reason),
            (Collection::Plain(_), _) | (_, Progress::Invited) => Err(Refusal::Unexpected),
            _ if !asked => Err(Refusal::Unexpected),
            (Collection::Gathering(now), _) if now.phase == phase && !now.answered.contains(&client) => {
                Ok(())
            }
            (Collection::Polling(now), _) if now.phase == phase && now.owing.contains(&client) => Ok(()),
            // Whoever is still in the round has answered in every phase before this one.
            (now, _) if now.phase() >= phase => Err(Refusal::Duplicate),
            _ => Err(Refusal::Unexpected),
        }
    }

    pub(super) fn answered(&mut self, client: ClientId, round: Round, phase: Phase) {
        if let Err(reason) = self.check_answer(client, round, phase) {
            return self.refuse(client, Some(round), reason);
        }
        let Some(open) = &mut self.round else { return };
        open.collection.answer(client);
        if let Some(assignment) = open.assignments.get_mut(&client).filter(|a| a.progress.is_open()) {
            assignment.progress = Progress::Answered(phase);
        }
    }

    /// A client whose update is in the sum does not help to unmask it.
    pub(super) fn withhold(&mut self, client: ClientId, reason: Decline) {
        let Some(round) = &mut self.round else { return };
        round.collection.excuse(client);
        if let Some(assignment) = round.assignments.get_mut(&client) {
            assignment.progress = Progress::Withheld(reason);
        }
    }

    /// The driver cannot make of the answers what comes next.
    pub(super) fn phase_failed(&mut self, round: Round, reason: AbortReason) {
        let masked =
            |open: &OpenRound| !matches!(open.collection, Collection::Plain(_) | Collection::Closed(_));
        if self.round.as_ref().is_some_and(|open| open.id() == round && masked(open)) {
            self.close(Outcome::Aborted(reason));
        }
    }

    /// The driver gives a group up, of which there are some in masked rounds only. Below the fewest updates the round is over.
    pub(super) fn group_lost(&mut self, round: Round, clients: &[ClientId]) {
        let masked = |open: &OpenRound| open.plan.plan().masking().is_some();
        if !self.round.as_ref().is_some_and(|open| open.id() == round && masked(open)) {
            return;
        }
        for &client in clients {
            let Some(open) = &mut self.round else { return };
            open.collection.lose(client);
            let Some(assignment) = open.assignments.get_mut(&client) else { continue };
            match assignment.progress {
                Progress::Declined(_) | Progress::Refused(_) => {}
                Progress::Committed | Progress::Withheld(_) => {
                    assignment.progress = Progress::Refused(Refusal::GroupLost);
                    self.refuse(client, Some(round), Refusal::GroupLost);
                }
                _ => self.drop_out(client, Refusal::GroupLost),
            }
        }
        let Some(open) = &self.round else { return };
        let (updates, required) = (open.collection.updates(), open.plan.plan().min_updates);
        if matches!(open.collection, Collection::Polling(_)) && updates < required {
            self.close(Outcome::Aborted(AbortReason::TooFewUpdates { updates, required }));
        }
    }

    pub(super) fn released(&mut self, done: Round, result: Result<(), AbortReason>) {
        let Some(round) = &self.round else { return };
        if round.id() != done || round.phase() != Phase::Releasing {
            return;
        }
        let updates = round.collection.updates();
        let invited = u32::try_from(round.assignments.len()).expect("checked against cohort_max");
        self.close(match result {
            Err(reason) => Outcome::Aborted(reason),
            Ok(()) if updates == invited => Outcome::Complete { updates },
            Ok(()) => Outcome::Degraded { updates, invited },
        });
    }

    /// Goes on while nothing more is waited for.
    pub(super) fn settle(&mut self, now: Time) {
        while let Some(round) = &self.round
            && round.collection.is_settled(round.open)
        {
            self.end_phase(now);
        }
    }

    /// Ends the phase with those who have answered. Uploads in flight are discarded unread.
    pub(super) fn end_phase(&mut self, now: Time) {
        let Some(round) = &self.round else { return };
        for (client, reason) in round.owing() {
            self.drop_out(client, reason);
        }
        let Some(round) = &mut self.round else { return };
        match round.next_phase() {
            Err(reason) => self.close(Outcome::Aborted(reason)),
            Ok(()) => self.begin_phase(now),
        }
    }

    /// Asks everybody who is needed for what the phase is about.
    fn begin_phase(&mut self, now: Time) {
        let Some(round) = &mut self.round else { return };
        let (id, phase) = (round.id(), round.phase());
        if phase == Phase::Releasing {
            return self.act(Action::Start(Job::Release { round: id }));
        }
        round.excuse_the_lost(now);
        let needed = round.assignments.keys().filter(|&&client| round.is_asked(client));
        let to = needed.copied().filter(|client| self.sessions.contains_key(client)).collect();
        self.act(Action::Ask { to, round: id, phase });
    }
}

impl OpenRound {
    /// Leaves a phase for the next one, if enough have answered.
    fn next_phase(&mut self) -> Result<(), AbortReason> {
        let (phase, answered) = (self.phase(), self.collection.answers());
        let required = self.plan.plan().min_updates;
        match &self.collection {
            Collection::Closed(_) => return Err(AbortReason::ReleaseLate),
            Collection::Plain(_) | Collection::Input(_) if answered < required => {
                return Err(AbortReason::TooFewUpdates { updates: answered, required });
            }
            Collection::Gathering(_) if answered < required => {
                return Err(AbortReason::BelowThreshold { phase, answered, required });
            }
            // How many of the survivors it takes depends on who holds whose shares, which the driver knows.
            _ => {}
        }
        let nobody = Collection::Closed(BTreeSet::new());
        self.collection = std::mem::replace(&mut self.collection, nobody).next();
        Ok(())
    }

    /// Whether a client is asked in this phase and has not answered.
    pub(super) fn is_asked(&self, client: ClientId) -> bool {
        let Some(assignment) = self.assignments.get(&client) else { return false };
        match &self.collection {
            // Whoever accepts trains, and then sends keys; nobody is asked to.
            Collection::Gathering(Gathering { phase: Phase::Keys, .. }) | Collection::Plain(_) => false,
            Collection::Gathering(gathering) => {
                assignment.progress.is_open() && !gathering.answered.contains(&client)
            }
            Collection::Input(_) => assignment.progress == Progress::Answered(Phase::Shares),
            Collection::Polling(_) | Collection::Closed(_) => self.collection.owes(client),
        }
    }

    /// Does not wait for survivors whose connection has been lost for too long.
    fn excuse_the_lost(&mut self, now: Time) {
        for assignment in self.assignments.values() {
            if assignment.reconnect_by.is_some_and(|by| by <= now) {
                self.collection.excuse(assignment.client);
            }
        }
    }
}
