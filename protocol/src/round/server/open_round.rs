//! A round between its opening and its outcome.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ids::{ClientId, Round};
use crate::plan::VerifiedPlan;
use crate::round::{Assignment, Collection, Phase, Progress, Refusal, Timing};
use crate::time::Time;

#[derive(Debug)]
pub(super) struct OpenRound {
    pub(super) plan: Arc<VerifiedPlan>,
    pub(super) timing: Timing,
    pub(super) assignments: BTreeMap<ClientId, Assignment>,
    pub(super) collection: Collection,
    /// Assignments that may still come to be in the sum.
    pub(super) open: usize,
    /// Whether the time to answer the invitation has still to be enforced.
    answers_due: bool,
    /// When to look at a client again; an entry that no longer matters does no harm.
    pub(super) timers: BTreeSet<(Time, ClientId)>,
    /// Offers in order of arrival, without a grant.
    pub(super) waiting: VecDeque<ClientId>,
    pub(super) granted_bytes: u64,
}

impl OpenRound {
    pub(super) fn new(now: Time, plan: Arc<VerifiedPlan>, cohort: &BTreeSet<ClientId>) -> Self {
        let masked = plan.plan().masking().is_some();
        let timing = Timing::new(now, plan.plan().deadline, masked);
        let assign = |&client: &ClientId| {
            let assignment = Assignment {
                client,
                base_model: plan.plan().base_model,
                plan: plan.clone(),
                expires: timing.collect_by,
                progress: Progress::Invited,
                reconnect_by: None,
                granted_on: None,
            };
            (client, assignment)
        };
        let collection = if masked { Collection::masked() } else { Collection::plain(plan.plan().closure) };
        OpenRound {
            timing,
            assignments: cohort.iter().map(assign).collect(),
            collection,
            open: cohort.len(),
            answers_due: true,
            timers: BTreeSet::new(),
            waiting: VecDeque::new(),
            granted_bytes: 0,
            plan,
        }
    }

    pub(super) fn id(&self) -> Round {
        self.plan.plan().round
    }

    pub(super) fn phase(&self) -> Phase {
        self.collection.phase()
    }

    pub(super) fn next_deadline(&self) -> Time {
        let end = self.timing.end_of(self.phase());
        match self.phase() {
            Phase::Releasing => end,
            _ => {
                let answer = if self.answers_due { self.timing.answer_by } else { end };
                let timer = self.timers.first().map_or(end, |&(time, _)| time);
                answer.min(timer).min(end)
            }
        }
    }

    /// Clients whose time is up, each with the reason. Their timers are spent.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<(ClientId, Refusal)> {
        let mut overdue = Vec::new();
        while let Some(&(time, client)) = self.timers.first().filter(|(time, _)| *time <= now) {
            self.timers.remove(&(time, client));
            let Some(assignment) = self.assignments.get(&client) else { continue };
            match assignment.progress {
                Progress::Granted { until, .. } if until <= now => {
                    overdue.push((client, Refusal::GrantExpired))
                }
                progress
                    if assignment.reconnect_by.is_some_and(|by| by <= now)
                        && (progress.is_open() || self.collection.owes(client)) =>
                {
                    overdue.push((client, Refusal::ConnectionLost));
                }
                _ => {}
            }
        }
        if self.answers_due && now >= self.timing.answer_by {
            self.answers_due = false;
            let silent = self.assignments.values().filter(|a| a.progress == Progress::Invited);
            overdue.extend(silent.map(|a| (a.client, Refusal::NoAnswer)));
        }
        overdue.sort_unstable();
        overdue
    }

    /// Who has not answered in this phase, with the reason that it is told when the phase ends without its answer.
    pub(super) fn owing(&self) -> Vec<(ClientId, Refusal)> {
        let reason = match self.phase() {
            Phase::Collecting => Refusal::Late,
            _ => Refusal::NoAnswer,
        };
        let owes = |assignment: &&Assignment| match &self.collection {
            Collection::Gathering(gathering) => {
                assignment.progress.is_open() && !gathering.answered.contains(&assignment.client)
            }
            Collection::Plain(_) | Collection::Input(_) => assignment.progress.is_open(),
            Collection::Polling(_) | Collection::Closed(_) => self.collection.owes(assignment.client),
        };
        self.assignments.values().filter(owes).map(|assignment| (assignment.client, reason)).collect()
    }
}
