//! The clients' side of a simulation: the production training, one client after the other.

use std::collections::BTreeMap;
use std::sync::Mutex;

use skep_client::task::{TaskError, check_data, check_privacy, learner_for, training};
use skep_client::trainer::{ClientKeys, Participant};
use skep_learning::{Learner, Subset};
use skep_privacy::client_noise::Contribution;
use skep_privacy::prg::Key;
use skep_protocol::experiment::{Task, Weighting};
use skep_protocol::round::Decline;
use skep_protocol::{ClientId, Round};

use crate::attack::Corrupt;
use crate::clients::Clients;
use crate::held_out::HoldOut;
use crate::population::client_root;
use crate::workers::{Job, Trainer};

/// Every client of a population. A client is made when it trains and gone when it has trained; the learners, which hold
/// the memory that training needs, go from client to client. There are never more than threads that train.
pub(crate) struct Participants<'a> {
    task: &'a Task,
    clients: &'a Clients,
    root: &'a Key,
    hold_out: Option<HoldOut>,
    idle: Mutex<Vec<Box<dyn Learner>>>,
    corrupt: Option<Corrupt>,
    /// The control variates of clients that have taken part, where the strategy has them: 4 bytes a parameter and client.
    controls: Option<Mutex<BTreeMap<ClientId, Vec<f32>>>>,
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
        clients.sizes().into_iter().try_for_each(|examples| check_privacy(task, examples))?;
        training(task, Round(1))?;
        let idle = Mutex::new(vec![learner_for(task)?]);
        Ok(Participants { task, clients, root, hold_out: None, idle, corrupt: None, controls: None })
    }

    /// The same with some of them corrupt.
    pub(crate) fn with_corrupt(self, corrupt: Option<Corrupt>) -> Self {
        Participants { corrupt, ..self }
    }

    /// Clients that leave out some of their examples when they train.
    pub(crate) fn holding_out(self, hold_out: Option<HoldOut>) -> Self {
        Participants { hold_out, ..self }
    }

    /// The same with control variates, if the strategy has them.
    pub(crate) fn with_controls(self, weighting: Weighting) -> Self {
        let controls = (weighting == Weighting::Controlled).then(Mutex::default);
        Participants { controls, ..self }
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
        match &self.controls {
            None => participant,
            Some(controls) => {
                let controls = controls.lock().expect("no thread panics while it holds the lock");
                let zeros = || vec![0.0; base.len() / 2];
                participant.with_control(controls.get(&client).cloned().unwrap_or_else(zeros))
            }
        }
    }

    fn learner(&self) -> Result<Box<dyn Learner>, Decline> {
        let idle = self.idle.lock().expect("no thread panics while it holds the lock").pop();
        idle.map_or_else(|| learner_for(self.task).map_err(|_| Decline::WrongTask), Ok)
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
            (data, _) = hold_out.divide(job.client, &data);
        }
        if let Some(corrupt) = self.corrupt.as_ref().filter(|corrupt| corrupt.includes(job.client)) {
            // Its learner is its own, and gone with it.
            let own = learner_for(self.task).map_err(|_| Decline::WrongTask)?;
            let unseen = job.plan.plan().masking().is_some();
            let learner = if unseen { own } else { corrupt.corrupt(own) };
            let mut participant = self.participant(job.client, learner, corrupt.poison(&data), &job.base);
            let update = participant.train(&job.plan, self.task, &job.base)?.update;
            return Ok(if unseen { corrupt.exaggerate(&update) } else { update });
        }
        let mut participant = self.participant(job.client, self.learner()?, data, &job.base);
        let trained = participant.train(&job.plan, self.task, &job.base);
        self.idle.lock().expect("no thread panics while it holds the lock").push(participant.into_learner());
        trained.map(|trained| trained.update)
    }

    fn committed(&self, client: ClientId, update: &Contribution) {
        let Some(controls) = &self.controls else { return };
        let (step, parameters) = (update.grid().step(), update.coordinates().len() / 2);
        let mut controls = controls.lock().expect("no thread panics while it holds the lock");
        let control = controls.entry(client).or_insert_with(|| vec![0.0; parameters]);
        for (control, &change) in control.iter_mut().zip(&update.coordinates()[parameters..]) {
            *control = (f64::from(*control) + f64::from(change) * step) as f32;
        }
    }
}
