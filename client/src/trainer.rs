//! A client's work in a round: train, bound, put on the grid, add noise where clients do, pack.
//!
//! ```text
//! base model ── train ──▶ Update ── clip ──▶ ClippedUpdate ── round ──▶ QuantizedUpdate ────▶ Contribution ── pack ──▶ bytes
//!                            │                                          │    └─ noise ──▶ NoisedUpdate ──▲
//!                            └────────────── round (mode none) ─────────┘
//! ```
//!
//! What comes out is a function of plan, task, base model, data and keys alone, so a simulated client and one behind
//! a socket give the same bits.

use std::sync::Arc;

use skep_learning::{LearnError, Learner, Subset, Turn};
use skep_privacy::client_noise::{Contribution, NoisedGrid, NoisedUpdate};
use skep_privacy::grid::{Grid, PrivateGrid};
use skep_privacy::packing;
use skep_privacy::prg::{Key, PrgError, PrgId, Purpose};
use skep_privacy::update::{QuantizedUpdate, Update};
use skep_protocol::experiment::{Asked, Task, Weighting};
use skep_protocol::plan::{Plan, VerifiedPlan};
use skep_protocol::round::Decline;
use skep_protocol::{ClientId, Round};

use crate::example_privacy::{Draws, PrivateSteps};
use crate::held_out::HoldOut;
use crate::task::{self, TaskError};
use crate::weighing::{Facts, weigh};

/// What a client draws from in secret.
#[derive(Clone, Debug)]
pub struct ClientKeys(Source);

#[derive(Clone, Debug)]
enum Source {
    Root(Key),
    System,
}

impl ClientKeys {
    /// The keys that follow from a client's own root key.
    pub fn from_root(root: &Key) -> Self {
        ClientKeys(Source::Root(root.clone()))
    }

    /// Fresh keys from the operating system for every round, so that a device restored from a snapshot never draws the same
    /// noise twice: the only ones for a real deployment.
    ///
    /// # Errors
    /// [`PrgError::NoEntropy`] when the system refuses already now.
    pub fn from_os() -> Result<Self, PrgError> {
        Key::from_os().map(|_| ClientKeys(Source::System))
    }

    /// The key of one client's rounding or noise in one round.
    fn key(&self, purpose: Purpose, round: u64, client: u64) -> Result<Key, Decline> {
        match &self.0 {
            Source::Root(root) => Ok(root.derive(purpose, 0, 0).derive(purpose, round, client)),
            Source::System => Key::from_os().map_err(|_| Decline::NoRandomness),
        }
    }
}

/// Makes the learner for a task.
pub type MakeLearner = Arc<LearnerMaker>;

/// What makes the learner for a task.
pub type LearnerMaker = dyn Fn(&Task) -> Result<Box<dyn Learner>, TaskError> + Send + Sync;

/// A client as far as its training goes. Cheap to make around a learner: the data are shared.
pub struct Participant {
    id: ClientId,
    learner: Box<dyn Learner>,
    data: Subset,
    keys: ClientKeys,
    control: Option<Vec<f32>>,
    weight: f64,
    /// What it measures models with when it is asked.
    held_out: Option<Subset>,
}

/// What a client made in a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The update as it enters the sum.
    pub update: Contribution,
    /// Examples trained on, or measured with. Of the client's data: never leaves it where privacy is on.
    pub examples: u64,
    /// Mean training loss over the last epoch, in nats, or the loss measured. Of the client's data, too.
    pub loss: f64,
}

impl Participant {
    /// The participant `id`, which trains on `data` what `task` says.
    ///
    /// # Errors
    /// [`TaskError`] when the model cannot be trained or the data are not those of the task.
    pub fn new(id: ClientId, data: Subset, keys: ClientKeys, task: &Task) -> Result<Self, TaskError> {
        Self::making(&task::learner_for, id, data, keys, task)
    }

    /// The same with a learner that `make` makes.
    pub(crate) fn making(
        make: &LearnerMaker,
        id: ClientId,
        data: Subset,
        keys: ClientKeys,
        task: &Task,
    ) -> Result<Self, TaskError> {
        task::check_data(task, &data)?;
        task::training(task, Round(1))?;
        let (data, held_out) = match HoldOut::of(task) {
            None => (data, None),
            Some(hold_out) => {
                let (data, held_out) = hold_out.divide(id, &data);
                (data, Some(held_out))
            }
        };
        task::check_privacy(task, data.len())?;
        let participant = Self::with_learner(id, make(task)?, data, keys);
        Ok(Participant { held_out, ..participant })
    }

    /// A participant with a learner of its own kind.
    pub fn with_learner(id: ClientId, learner: Box<dyn Learner>, data: Subset, keys: ClientKeys) -> Self {
        Participant { id, learner, data, keys, control: None, weight: 1.0, held_out: None }
    }

    /// The same with examples that it does not train on, to measure models with.
    #[must_use]
    pub fn with_held_out(self, held_out: Subset) -> Self {
        Participant { held_out: Some(held_out), ..self }
    }

    /// The same with its control variate, where the strategy has them: one number a parameter, zeros before its first round.
    #[must_use]
    pub fn with_control(self, control: Vec<f32>) -> Self {
        Participant { control: Some(control), ..self }
    }

    /// The same whose updates are multiplied by a weight, 0 to 1, before they are bounded: so the weight is in no sensitivity.
    #[must_use]
    pub fn with_weight(self, weight: f64) -> Self {
        Participant { weight, ..self }
    }

    /// Gives the learner back, for another participant of the same task.
    pub fn into_learner(self) -> Box<dyn Learner> {
        self.learner
    }

    /// The client's id.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Trains from the base model and makes the update that the plan asks for; in a query, says how good the model is.
    ///
    /// `base` is believed to be the plan's base model; whoever received it has compared the digest.
    ///
    /// # Errors
    /// [`Decline::WrongTask`] or [`Decline::Inconsistent`] when plan and task contradict each other,
    /// [`Decline::NoModel`] when the base model has another length, [`Decline::TrainingFailed`] when there is nothing
    /// to train on, [`Decline::Unencodable`] when the training diverged or, in mode none, left the grid,
    /// [`Decline::NoRandomness`] when the system has none.
    pub fn train(&mut self, plan: &VerifiedPlan, task: &Task, base: &[f32]) -> Result<Trained, Decline> {
        plan.check(task)?;
        let plan = plan.plan();
        if plan.round.is_query() {
            return self.say(plan, task, base);
        }
        let training = task::training(task, plan.round).map_err(|_| Decline::WrongTask)?;
        let order = self.order_key(plan, task);
        let (base, server_control) = match plan.weighting {
            // The server's control variate follows the model.
            Weighting::Controlled => base.split_at_checked(base.len() / 2).ok_or(Decline::NoModel)?,
            _ => (base, &[][..]),
        };
        let private_steps = self.private_steps(plan, task)?;
        // Noise on gradients hides what follows from them, and nothing that is said beside the update.
        let said_beside = !matches!(plan.weighting, Weighting::Uniform | Weighting::Examples { .. });
        if private_steps.is_some() && said_beside {
            return Err(Decline::Inconsistent);
        }
        let correction = self.correction(plan, server_control)?;
        let base_loss = match plan.weighting {
            Weighting::ByLoss { .. } => {
                Some(self.learner.evaluate(base, &self.data).map_err(decline_of)?.loss)
            }
            _ => None,
        };
        let turn = Turn { correction: correction.as_deref(), ..Turn::new(*order.expose()) };
        let report = match private_steps {
            None => self.learner.train(base, &self.data, &training, turn),
            Some(mut draws) => self.learner.train_privately(base, &self.data, &training, turn, &mut draws),
        };
        let mut report = report.map_err(decline_of)?;
        if self.weight != 1.0 {
            report.update.iter_mut().for_each(|value| *value = (f64::from(*value) * self.weight) as f32);
        }
        let facts = Facts {
            examples: report.examples,
            steps: report.steps,
            learning_rate: training.learning_rate(),
            optimizer: task.training.optimizer,
            classes: task.classes,
            base_loss,
            server_control,
        };
        let (update, spare) = match plan.grid()? {
            Grid::Private(grid) => {
                let (update, spare) = self.bound(report.update, plan, &grid)?;
                (update.into(), spare)
            }
            Grid::Noised(grid) => {
                let (update, spare) = self.bound(report.update, plan, grid.exact())?;
                (self.hide(update, plan, &grid)?.into(), spare)
            }
            Grid::Public(grid) => {
                let update =
                    weigh(report.update, plan.weighting, &facts).map_err(|_| Decline::Unencodable)?;
                let quantized = QuantizedUpdate::nearest(&update, &grid).map_err(|_| Decline::Unencodable)?;
                (quantized.into(), update)
            }
        };
        self.learner.recycle(spare);
        Ok(Trained { update, examples: report.examples as u64, loss: report.loss })
    }

    /// The answer to a query: how good the model is on what is held out, bounded and hidden as an update is. A client that cannot
    /// measure it says nothing, in as many numbers.
    fn say(&mut self, plan: &Plan, task: &Task, base: &[f32]) -> Result<Trained, Decline> {
        let asked = task.asked.ok_or(Decline::Unplanned)?;
        let held_out = self.held_out.as_ref().filter(|held_out| !held_out.is_empty());
        let measured = held_out.map(|held_out| self.learner.evaluate(base, held_out));
        let (numbers, loss) = match measured {
            Some(Ok(measured)) => match measured.accuracy() {
                Some(accuracy) => (asked.answer(accuracy, measured.loss), measured.loss),
                // The validation of experiments refuses to ask that of a model that predicts numbers.
                None => return Err(Decline::WrongTask),
            },
            Some(Err(LearnError::ParameterCount { .. })) => return Err(Decline::NoModel),
            Some(Err(error)) => {
                tracing::warn!(%error, "the model cannot be measured, so nothing is said of it");
                (Asked::nothing(), 0.0)
            }
            None => (Asked::nothing(), 0.0),
        };
        let update = answer(numbers, &plan.grid()?, &self.keys, plan.round, self.id, plan.prg)?;
        Ok(Trained { update, examples: held_out.map_or(0, Subset::len) as u64, loss })
    }

    /// What hides the client's single examples in this round, if the task asks for it.
    fn private_steps(&self, plan: &Plan, task: &Task) -> Result<Option<Draws>, Decline> {
        let steps = PrivateSteps::new(task, self.data.len()).map_err(|_| Decline::WrongTask)?;
        let Some(steps) = steps else { return Ok(None) };
        steps.check_budget().map_err(|_| Decline::WrongTask)?;
        let key = self.key(Purpose::Noise, plan)?;
        let draws = steps.begin(plan.round, self.learner.parameter_count(), &key, plan.prg);
        draws.map(Some).map_err(|_| Decline::WrongTask)
    }

    /// What is added to each gradient: c − cᵢ, where the strategy has control variates.
    fn correction(&self, plan: &Plan, server_control: &[f32]) -> Result<Option<Vec<f32>>, Decline> {
        match (plan.weighting, &self.control) {
            (Weighting::Controlled, Some(own)) if own.len() == server_control.len() => {
                Ok(Some(server_control.iter().zip(own).map(|(server, own)| server - own).collect()))
            }
            // Who has none of its own cannot take part.
            (Weighting::Controlled, _) => Err(Decline::Inconsistent),
            _ => Ok(None),
        }
    }

    /// Public, unlike every other key here: it follows from the experiment's seed.
    fn order_key(&self, plan: &Plan, task: &Task) -> Key {
        Key::from_seed(task.seed).derive(Purpose::BatchOrder, plan.round.0, self.id.0)
    }

    /// The update on the grid, and memory that is not needed any more.
    fn bound(
        &self,
        values: Vec<f32>,
        plan: &Plan,
        grid: &PrivateGrid,
    ) -> Result<(QuantizedUpdate, Vec<f32>), Decline> {
        bounded(values, grid, &self.key(Purpose::Rounding, plan)?, plan.prg)
    }

    fn hide(
        &self,
        bounded: QuantizedUpdate,
        plan: &Plan,
        grid: &NoisedGrid,
    ) -> Result<NoisedUpdate, Decline> {
        let noise = self.key(Purpose::Noise, plan)?;
        bounded.add_noise(grid, &noise, plan.prg).map_err(|_| Decline::Unencodable)
    }

    fn key(&self, purpose: Purpose, plan: &Plan) -> Result<Key, Decline> {
        self.keys.key(purpose, plan.round.0, self.id.0)
    }
}

/// What enters a sum of a client's numbers, an update or the answer to a query: bounded, on the grid, and with the noise that
/// clients add there.
///
/// # Errors
/// [`Decline::Unencodable`] when a number is not finite or, without privacy, off the grid; [`Decline::NoRandomness`] when the
/// system has none.
pub fn answer(
    numbers: Vec<f32>,
    grid: &Grid,
    keys: &ClientKeys,
    round: Round,
    client: ClientId,
    prg: PrgId,
) -> Result<Contribution, Decline> {
    let key = |purpose| keys.key(purpose, round.0, client.0);
    Ok(match grid {
        Grid::Public(grid) => {
            let numbers = Update::new(numbers).map_err(|_| Decline::Unencodable)?;
            numbers.quantize_nearest(grid).map_err(|_| Decline::Unencodable)?.into()
        }
        Grid::Private(grid) => bounded(numbers, grid, &key(Purpose::Rounding)?, prg)?.0.into(),
        Grid::Noised(grid) => {
            let (bounded, _) = bounded(numbers, grid.exact(), &key(Purpose::Rounding)?, prg)?;
            bounded.add_noise(grid, &key(Purpose::Noise)?, prg).map_err(|_| Decline::Unencodable)?.into()
        }
    })
}

/// Numbers within the clip norm and on the grid, and memory that is not needed any more.
fn bounded(
    numbers: Vec<f32>,
    grid: &PrivateGrid,
    rounding: &Key,
    prg: PrgId,
) -> Result<(QuantizedUpdate, Vec<f32>), Decline> {
    let clipped = Update::clipped(numbers, grid.clip()).map_err(|_| Decline::Unencodable)?;
    let quantized = clipped.quantize(grid, &mut rounding.substream_of(prg, 0));
    Ok((quantized.map_err(|_| Decline::Unencodable)?, clipped.into_values()))
}

/// The bytes of an update as they travel, [`Plan::upload_bytes`] of them.
pub fn pack(update: &Contribution) -> Vec<u8> {
    packing::pack(update.coordinates(), update.grid().wire_bits())
        .expect("no coordinate of an update leaves its grid's range, for which the wire is wide enough")
}

fn decline_of(error: LearnError) -> Decline {
    tracing::warn!(%error, "there is no update");
    match error {
        LearnError::ParameterCount { .. } => Decline::NoModel,
        LearnError::Architecture(_)
        | LearnError::Correction { .. }
        | LearnError::NotPerExample
        | LearnError::NoAnswers
        | LearnError::NoImages => Decline::WrongTask,
        LearnError::Inputs { .. }
        | LearnError::Classes { .. }
        | LearnError::NoTarget
        | LearnError::Word { .. }
        | LearnError::NoExamples
        | LearnError::Command(_) => Decline::TrainingFailed,
    }
}
