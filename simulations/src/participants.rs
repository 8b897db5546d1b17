//! The clients' side of a simulation: the production training, one client after the other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use skep_client::held_out::HoldOut;
use skep_client::task::{TaskError, check_data, check_privacy, learner_for, training};
use skep_client::trainer::{ClientKeys, Participant};
use skep_learning::{Learner, Subset};
use skep_privacy::client_noise::Contribution;
use skep_privacy::prg::Key;
use skep_protocol::experiment::{Experiment, Task, Weighting};
use skep_protocol::round::Decline;
use skep_protocol::{ClientId, Round};

use crate::attack::Corrupt;
use crate::clients::Clients;
use crate::error::SimulationError;
use crate::memory::ClientMemory;
use crate::population::client_root;
use crate::private_layers::{Own, Personal, PrivateLayers};
use crate::workers::{Job, Trainer};

/// Every client of a population. A client is made when it trains and gone when it has trained; the learners, which hold
/// the memory that training needs, go from client to client. There are never more than threads that train.
pub(crate) struct Participants<'a> {
    task: &'a Task,
    clients: &'a Clients,
    root: &'a Key,
    hold_out: Option<HoldOut>,
    idle: Mutex<Vec<Desk>>,
    corrupt: Option<Corrupt>,
    private_layers: Option<PrivateLayers>,
    has_controls: bool,
    /// Control variates or private layers of clients that have taken part: up to 4 bytes a parameter and client.
    memory: Mutex<ClientMemory>,
    /// The private layers of clients whose updates have been computed, and may come to be in the sum.
    pending: Mutex<BTreeMap<ClientId, Vec<f32>>>,
}

/// A learner, and where it finds and leaves the private layers of a client.
struct Desk {
    learner: Box<dyn Learner>,
    own: Own,
}

impl<'a> Participants<'a> {
    /// The participants of `task`.
    ///
    /// # Errors
    /// [`TaskError`] when the task or a share cannot be learned from.
    pub(crate) fn new(task: &'a Task, clients: &'a Clients, root: &'a Key) -> Result<Self, TaskError> {
        if let Clients::Shares(shares) = clients {
            shares.iter().try_for_each(|share| check_data(task, share))?;
        }
        training(task, Round(1))?;
        let idle = Mutex::new(vec![Desk { learner: learner_for(task)?, own: Own::default() }]);
        Ok(Participants {
            task,
            clients,
            root,
            hold_out: None,
            idle,
            corrupt: None,
            private_layers: None,
            has_controls: false,
            memory: Mutex::default(),
            pending: Mutex::default(),
        })
    }

    /// The same with some of them corrupt.
    pub(crate) fn with_corrupt(self, corrupt: Option<Corrupt>) -> Self {
        Participants { corrupt, ..self }
    }

    /// Clients that leave out some of their examples when they train.
    pub(crate) fn holding_out(self, hold_out: Option<HoldOut>) -> Self {
        Participants { hold_out, ..self }
    }

    /// The same with what the experiment has clients keep, and what they have kept so far.
    ///
    /// # Errors
    /// [`SimulationError::PrivateLayers`], or [`SimulationError::Task`].
    pub(crate) fn remembering(
        self,
        experiment: &Experiment,
        memory: ClientMemory,
    ) -> Result<Self, SimulationError> {
        let sizes = self.clients.trained_sizes(self.hold_out.as_ref());
        sizes.into_iter().try_for_each(|examples| check_privacy(self.task, examples))?;
        let has_controls = experiment.strategy.weighting() == Weighting::Controlled;
        let (private_layers, memory) = (PrivateLayers::of(experiment)?, Mutex::new(memory));
        // The learner that is there knows no private layers.
        let idle = Mutex::default();
        Ok(Participants { has_controls, private_layers, memory, idle, ..self })
    }

    /// The participant `client`, for its work in one round.
    fn participant(
        &self,
        client: ClientId,
        learner: Box<dyn Learner>,
        data: Subset,
        base: &[f32],
    ) -> Participant {
        let keys = ClientKeys::from_root(&client_root(self.root, client.0));
        let participant = Participant::with_learner(client, learner, data, keys);
        match self.has_controls {
            false => participant,
            true => {
                let control =
                    lock(&self.memory).get(client).map_or_else(|| vec![0.0; base.len() / 2], <[f32]>::to_vec);
                participant.with_control(control)
            }
        }
    }

    /// What a client says in a query of the model, with the layers that it keeps.
    fn say(&self, job: &Job, train: Subset, held_out: Subset) -> Result<Contribution, Decline> {
        let Desk { learner, own } = self.desk()?;
        if let Some(layers) = &self.private_layers {
            let kept = lock(&self.memory).get(job.client).map(<[f32]>::to_vec);
            *lock(&own) = kept.unwrap_or_else(|| layers.taken_from(&job.base));
        }
        let keys = ClientKeys::from_root(&client_root(self.root, job.client.0));
        let participant = Participant::with_learner(job.client, learner, train, keys);
        let mut participant = participant.with_held_out(held_out);
        let said = participant.train(&job.plan, self.task, &job.base);
        lock(&self.idle).push(Desk { learner: participant.into_learner(), own });
        said.map(|said| said.update)
    }

    fn desk(&self) -> Result<Desk, Decline> {
        if let Some(desk) = lock(&self.idle).pop() {
            return Ok(desk);
        }
        let (learner, own) = (learner_for(self.task).map_err(|_| Decline::WrongTask)?, Own::default());
        let learner: Box<dyn Learner> = match &self.private_layers {
            None => learner,
            Some(layers) => Box::new(Personal::new(learner, layers.clone(), Own::clone(&own))),
        };
        Ok(Desk { learner, own })
    }
}

impl Trainer for Participants<'_> {
    fn examples(&self, client: ClientId) -> u64 {
        let examples = self.clients.examples(client);
        let held_out = self.hold_out.as_ref().map_or(0, |hold_out| hold_out.count(examples as usize));
        examples - held_out as u64
    }

    fn train(&self, job: &Job) -> Result<Contribution, Decline> {
        let mut data = self.clients.get(job.client).ok_or(Decline::TrainingFailed)?;
        if let Some(hold_out) = &self.hold_out {
            let (train, held_out) = hold_out.divide(job.client, &data);
            if job.plan.plan().round.is_query() {
                return self.say(job, train, held_out);
            }
            data = train;
        }
        if let Some(corrupt) = self.corrupt.as_ref().filter(|corrupt| corrupt.includes(job.client)) {
            // Its learner is its own, and gone with it.
            let own = learner_for(self.task).map_err(|_| Decline::WrongTask)?;
            let unseen = job.plan.plan().masking().is_some();
            let learner = if unseen { own } else { corrupt.corrupt(own) };
            let participant = self.participant(job.client, learner, corrupt.poison(&data), &job.base);
            let mut participant = participant.with_weight(job.weight);
            let update = participant.train(&job.plan, self.task, &job.base)?.update;
            return Ok(if unseen { corrupt.exaggerate(&update) } else { update });
        }
        let Desk { learner, own } = self.desk()?;
        if let Some(layers) = &self.private_layers {
            let kept = lock(&self.memory).get(job.client).map(<[f32]>::to_vec);
            *lock(&own) = kept.unwrap_or_else(|| layers.taken_from(&job.base));
        }
        let participant = self.participant(job.client, learner, data, &job.base);
        let mut participant = participant.with_weight(job.weight);
        let trained = participant.train(&job.plan, self.task, &job.base);
        if self.private_layers.is_some() {
            lock(&self.pending).insert(job.client, std::mem::take(&mut *lock(&own)));
        }
        lock(&self.idle).push(Desk { learner: participant.into_learner(), own });
        trained.map(|trained| trained.update)
    }

    fn committed(&self, client: ClientId, update: &Contribution) {
        if self.private_layers.is_some()
            && let Some(own) = lock(&self.pending).remove(&client)
        {
            lock(&self.memory).keep(client, own);
        }
        if !self.has_controls {
            return;
        }
        let (step, parameters) = (update.grid().step(), update.coordinates().len() / 2);
        let mut memory = lock(&self.memory);
        let mut control = memory.get(client).map_or_else(|| vec![0.0; parameters], <[f32]>::to_vec);
        for (control, &change) in control.iter_mut().zip(&update.coordinates()[parameters..]) {
            *control = (f64::from(*control) + f64::from(change) * step) as f32;
        }
        memory.keep(client, control);
    }

    fn memory(&self) -> ClientMemory {
        lock(&self.memory).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds the lock")
}
