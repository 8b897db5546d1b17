//! Corrupt clients: they train on other examples than they have, or send another update than they trained.
//!
//! What they send is clipped, rounded and tested like everybody's: it is the strategy that has to bear them. Under masks nobody can
//! test it, so there they multiply what they send after clipping and noise, and what it adds to a sum has no bound but the modulus.

use std::sync::Arc;

use skep_learning::{Dataset, Evaluation, LearnError, Learner, Subset, TrainReport, Training, Turn};
use skep_privacy::client_noise::Contribution;
use skep_protocol::ClientId;
use skep_protocol::experiment::{Attack, AttackKind, Experiment};

use crate::error::SimulationError;
use crate::test_set::TestSet;

/// The corrupt clients of an experiment.
#[derive(Clone, Debug)]
pub(crate) struct Corrupt {
    attack: Attack,
    clients: u64,
}

impl Corrupt {
    /// Those of an experiment, if it has any.
    pub(crate) fn of(experiment: &Experiment) -> Option<Self> {
        let attack = experiment.attack.clone()?;
        Some(Corrupt { clients: attack.corrupt(experiment.population.clients), attack })
    }

    /// Whether a client is one of them.
    pub(crate) fn includes(&self, client: ClientId) -> bool {
        client.0 < self.clients
    }

    /// What a corrupt client trains on in place of its examples.
    pub(crate) fn poison(&self, data: &Subset) -> Subset {
        match &self.attack.kind {
            AttackKind::Scaled { .. } => data.clone(),
            AttackKind::LabelFlip => {
                let classes = data.dataset().classes() as u32;
                changed(data, |_, label| *label = classes - 1 - *label)
            }
            AttackKind::Backdoor { poisoned, target, .. } => {
                let poisoned = (poisoned * data.len() as f64).ceil() as usize;
                let mut stamped = 0;
                changed(data, |features, label| {
                    stamped += 1;
                    if stamped <= poisoned {
                        self.stamp(features);
                        *label = *target;
                    }
                })
            }
        }
    }

    /// A learner whose updates are what a corrupt client sends.
    pub(crate) fn corrupt(&self, learner: Box<dyn Learner>) -> Box<dyn Learner> {
        match self.attack.kind {
            AttackKind::LabelFlip => learner,
            AttackKind::Scaled { factor } | AttackKind::Backdoor { factor, .. } => {
                Box::new(Exaggerating { learner, factor })
            }
        }
    }

    /// What a corrupt client sends under masks in place of an honest contribution.
    pub(crate) fn exaggerate(&self, honest: &Contribution) -> Contribution {
        let factor = match self.attack.kind {
            AttackKind::LabelFlip => 1.0,
            AttackKind::Scaled { factor } | AttackKind::Backdoor { factor, .. } => factor,
        };
        let most = honest.grid().range() as f64 - 1.0;
        let scaled = |&value: &i32| (f64::from(value) * factor).clamp(-most, most) as i32;
        let coordinates = honest.coordinates().iter().map(scaled).collect();
        Contribution::verify(coordinates, honest.grid())
            .expect("under masks any coordinates within the range pass")
    }

    fn stamp(&self, features: &mut [f32]) {
        if let AttackKind::Backdoor { trigger, value, .. } = &self.attack.kind {
            trigger.iter().for_each(|&feature| features[feature as usize] = *value);
        }
    }
}

/// How often a model falls for the trigger: the part of `test`'s examples of other classes that it takes for the target once they
/// bear it. `None` where the experiment has no backdoor, or there is no such example.
///
/// # Errors
/// [`SimulationError`] when the model or the examples are not those of the task.
pub fn backdoor_success(
    experiment: &Experiment,
    test: &Subset,
    model: &[f32],
) -> Result<Option<f64>, SimulationError> {
    let Some(corrupt) = Corrupt::of(experiment) else { return Ok(None) };
    let AttackKind::Backdoor { target, .. } = corrupt.attack.kind else { return Ok(None) };
    let rows = test.rows().iter().copied().filter(|&row| test.dataset().labels()[row] != target).collect();
    let others = Subset::new(test.dataset().clone(), rows).expect("rows of the same data set");
    if others.is_empty() {
        return Ok(None);
    }
    let triggered = changed(&others, |features, label| {
        corrupt.stamp(features);
        *label = target;
    });
    Ok(TestSet::new(&experiment.task, triggered)?.measure(model)?.accuracy())
}

/// The same examples after `change` has had its way with the features and the label of each.
fn changed(data: &Subset, mut change: impl FnMut(&mut [f32], &mut u32)) -> Subset {
    let own = data.dataset().rows(data.rows()).expect("the rows of a subset that is not empty");
    let (mut features, mut labels) = (own.features().into_owned(), own.labels().clone());
    for (row, label) in labels.iter_mut().enumerate() {
        if let Some(features) = features.row_mut(row).as_slice_mut() {
            change(features, label);
        }
    }
    let changed = Dataset::new(features, labels, own.classes());
    let changed = changed.expect("trigger and target were validated for these data");
    Subset::all(Arc::new(changed.encoded_as(own.encoding())))
}

/// A learner whose updates are multiplied.
struct Exaggerating {
    learner: Box<dyn Learner>,
    factor: f64,
}

impl Learner for Exaggerating {
    fn parameter_count(&self) -> usize {
        self.learner.parameter_count()
    }

    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError> {
        let mut report = self.learner.train(global, data, training, turn)?;
        report.update.iter_mut().for_each(|value| *value = (f64::from(*value) * self.factor) as f32);
        Ok(report)
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.learner.evaluate(parameters, data)
    }
}
