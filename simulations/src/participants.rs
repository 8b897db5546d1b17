//! The clients' side of a simulation: the production training, on shares of one data set.

use skep_client::task::TaskError;
use skep_client::trainer::{ClientKeys, Participant};
use skep_learning::Subset;
use skep_privacy::client_noise::Contribution;
use skep_privacy::prg::Key;
use skep_protocol::ClientId;
use skep_protocol::experiment::Task;
use skep_protocol::round::Decline;

use crate::population::client_root;
use crate::workers::{Job, Trainer};

/// Every client of a population. A client is made when it trains and gone when it has trained.
pub(crate) struct Participants<'a> {
    task: &'a Task,
    shares: Vec<Subset>,
    root: &'a Key,
}

impl<'a> Participants<'a> {
    /// One client for each share, with the ids 0, 1, 2, ...
    ///
    /// # Errors
    /// [`TaskError`] when a share cannot be learned from.
    pub(crate) fn new(task: &'a Task, shares: Vec<Subset>, root: &'a Key) -> Result<Self, TaskError> {
        let participants = Participants { task, shares, root };
        for (id, share) in participants.shares.iter().enumerate() {
            participants.participant(ClientId(id as u64), share)?;
        }
        Ok(participants)
    }

    fn participant(&self, id: ClientId, share: &Subset) -> Result<Participant, TaskError> {
        let keys = ClientKeys::from_root(&client_root(self.root, id.0));
        Participant::new(id, share.clone(), keys, self.task)
    }

    fn share(&self, client: ClientId) -> Option<&Subset> {
        self.shares.get(usize::try_from(client.0).ok()?)
    }
}

impl Trainer for Participants<'_> {
    fn examples(&self, client: ClientId) -> u64 {
        self.share(client).map_or(0, |share| share.len() as u64)
    }

    fn train(&self, job: &Job) -> Result<Contribution, Decline> {
        let share = self.share(job.client).ok_or(Decline::TrainingFailed)?;
        let mut participant = self.participant(job.client, share).map_err(|_| Decline::TrainingFailed)?;
        participant.train(&job.plan, self.task, &job.base).map(|trained| trained.update)
    }
}
