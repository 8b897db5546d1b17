//! Uploads: offered, granted while there is memory, staged by the driver, committed as a whole or not at all.

use super::{Action, ServerMachine};
use crate::ids::{ClientId, Digest, Round};
use crate::message::ServerMessage;
use crate::round::{Collection, Phase, Progress, Refusal};
use crate::time::Time;

impl ServerMachine {
    pub(super) fn offered(&mut self, client: ClientId, round: Round, len: u64, digest: Digest) {
        let session = self.sessions.get(&client).copied();
        let ready = match self.round.as_ref().map(|open| &open.collection) {
            Some(Collection::Plain(_)) => Some(Progress::Accepted),
            Some(Collection::Input(_)) => Some(Progress::Answered(Phase::Shares)),
            _ => None,
        };
        let assignment = match self.open_assignment(client, round) {
            Err(reason) => return self.refuse(client, Some(round), reason),
            Ok(assignment) => assignment,
        };
        match assignment.progress {
            now if Some(now) == ready && len != assignment.plan.plan().upload_bytes() => {
                self.drop_out(client, Refusal::WrongLength);
            }
            now if Some(now) == ready => {
                assignment.progress = Progress::Offered { len, digest };
                if let Some(round) = &mut self.round {
                    round.waiting.push_back(client);
                }
            }
            // The same offer again is that of a client that has come back: it goes on where it was cut off.
            Progress::Offered { digest: known, .. } if known == digest => {}
            Progress::Granted { digest: known, .. }
                if known == digest && assignment.granted_on == session => {}
            Progress::Granted { len, digest: known, until } if known == digest => {
                assignment.granted_on = session;
                self.act(Action::GrantUpload { client, round, len, digest, until });
            }
            Progress::Offered { .. } | Progress::Granted { .. } => {
                self.refuse(client, Some(round), Refusal::Duplicate)
            }
            _ => self.refuse(client, Some(round), Refusal::Unexpected),
        }
    }

    pub(super) fn staged(&mut self, client: ClientId, round: Round) {
        if !self.is_granted(client, round) {
            return;
        }
        self.act(Action::Commit { client, round });
        if let Some(open) = &mut self.round {
            open.collection.commit(client);
        }
        self.finish(client, Progress::Committed);
        self.tell(client, ServerMessage::Committed { round });
    }

    pub(super) fn failed(&mut self, client: ClientId, round: Round, reason: Refusal) {
        if self.is_granted(client, round) {
            self.drop_out(client, reason);
        }
    }

    pub(super) fn grant_waiting(&mut self, now: Time) {
        while let Some(action) = self.next_grant(now) {
            self.act(action);
        }
    }

    fn next_grant(&mut self, now: Time) -> Option<Action> {
        let round = self.round.as_mut().filter(|round| round.phase() == Phase::Collecting)?;
        loop {
            let place = round.waiting.iter().position(|client| self.sessions.contains_key(client))?;
            let client = round.waiting[place];
            let assignment = round.assignments.get_mut(&client)?;
            let Progress::Offered { len, digest } = assignment.progress else {
                // It was ended while it waited.
                round.waiting.remove(place);
                continue;
            };
            let room = self.limits.upload_memory_bytes.saturating_sub(round.granted_bytes);
            if len > room && round.granted_bytes > 0 {
                return None;
            }
            round.waiting.remove(place);
            round.granted_bytes += len;
            let until = round.timing.grant_until(now, len, self.limits.min_upload_bytes_per_s);
            assignment.progress = Progress::Granted { len, digest, until };
            assignment.granted_on = self.sessions.get(&client).copied();
            round.timers.insert((until, client));
            return Some(Action::GrantUpload { client, round: round.id(), len, digest, until });
        }
    }

    fn is_granted(&self, client: ClientId, round: Round) -> bool {
        self.open_round() == Some(round)
            && self.assignment(client).is_some_and(|a| matches!(a.progress, Progress::Granted { .. }))
    }
}
