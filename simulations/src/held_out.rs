//! How good a model is for each of the clients, on examples of their own that nobody trains on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use skep_client::held_out::{HoldOut, uniform};
use skep_client::task::{TaskError, learner_for, training};
use skep_learning::{Learner, Training, Turn};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::Experiment;
use skep_protocol::{ClientId, Round};
use skep_server::record::ClientAccuracy;

use crate::clients::Clients;
use crate::error::SimulationError;
use crate::memory::ClientMemory;
use crate::private_layers::{self, PrivateLayers};

/// What the experiment has clients hold out, if anything.
pub(crate) fn hold_out(experiment: &Experiment) -> Option<HoldOut> {
    Some(HoldOut::new(experiment.evaluation.hold_out?, experiment.seed))
}

/// The clients that a model is measured on: the same in every round.
pub(crate) struct Panel<'a> {
    measuring: Measuring<'a>,
    chosen: Vec<ClientId>,
    learners: Vec<Box<dyn Learner>>,
}

/// How accurate a model is for a client, and how accurate once it has fitted it to its examples.
type Accuracies = (f64, Option<f64>);

/// How the model is measured on one of them.
struct Measuring<'a> {
    clients: &'a Clients,
    hold_out: HoldOut,
    private_layers: Option<PrivateLayers>,
    /// How a client fits the model to its examples before it is measured once more.
    fine_tuning: Option<Training>,
    /// Of the public seed.
    key: Key,
}

/// How good a model is for clients.
pub(crate) struct Measured {
    /// As it is, or with the private layers of each.
    pub(crate) plain: ClientAccuracy,
    /// After each has fitted it to its examples, where that is asked for.
    pub(crate) personalised: Option<ClientAccuracy>,
}

impl<'a> Panel<'a> {
    /// The panel of the experiment, if it has one.
    ///
    /// # Errors
    /// [`SimulationError::Task`] when the task cannot be learned, [`SimulationError::PrivateLayers`].
    pub(crate) fn of(
        experiment: &Experiment,
        clients: &'a Clients,
        threads: usize,
    ) -> Result<Option<Self>, SimulationError> {
        let (Some(part), Some(hold_out)) = (experiment.evaluation.clients, hold_out(experiment)) else {
            return Ok(None);
        };
        let (population, key) = (experiment.population.clients, Key::from_seed(experiment.seed));
        let wanted = ((part * population as f64).ceil() as u64).clamp(1, population);
        let mut prg = key.derive(Purpose::Data, 0, 0).stream();
        let (mut left, mut missing, mut chosen) = (population, wanted, Vec::new());
        for client in 0..population {
            let is_chosen = uniform(&mut prg) * (left as f64) < missing as f64;
            left -= 1;
            missing -= u64::from(is_chosen);
            // Who has one example trains on it.
            if is_chosen && hold_out.count(clients.examples(ClientId(client)) as usize) > 0 {
                chosen.push(ClientId(client));
            }
        }
        let learners = (0..threads).map(|_| learner_for(&experiment.task)).collect::<Result<_, _>>()?;
        let fine_tuning = experiment.evaluation.fine_tune_epochs.map(|local_epochs| {
            let mut task = experiment.task.clone();
            task.training.local_epochs = local_epochs;
            training(&task, Round(experiment.rounds.count)).map_err(TaskError::from)
        });
        let (private_layers, fine_tuning) = (PrivateLayers::of(experiment)?, fine_tuning.transpose()?);
        let measuring = Measuring { clients, hold_out, private_layers, fine_tuning, key };
        Ok(Some(Panel { measuring, chosen, learners }))
    }

    /// The distribution of accuracy over the panel, each client with what it keeps; none if nobody on it has an example, or the
    /// model cannot be measured.
    pub(crate) fn measure(&mut self, model: &[f32], memory: &ClientMemory) -> Option<Measured> {
        let next = AtomicUsize::new(0);
        let Panel { measuring, chosen, learners } = self;
        let (measuring, chosen) = (&*measuring, &*chosen);
        let measured = |learner: &mut Box<dyn Learner>| {
            let mut measured = Vec::new();
            while let Some(&client) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                measured.push(measuring.measure(client, model, memory, &mut **learner)?);
            }
            Some(measured)
        };
        let accuracies: Option<Vec<Vec<Accuracies>>> = thread::scope(|scope| {
            let measured = &measured;
            let threads: Vec<_> =
                learners.iter_mut().map(|learner| scope.spawn(move || measured(learner))).collect();
            // A panic of one is everybody's.
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let (plain, personalised): (Vec<_>, Vec<_>) = accuracies?.concat().into_iter().unzip();
        let personalised = personalised.into_iter().collect::<Option<Vec<_>>>();
        Some(Measured {
            plain: ClientAccuracy::of(plain)?,
            personalised: personalised.and_then(ClientAccuracy::of),
        })
    }
}

impl Measuring<'_> {
    /// A client is measured with what it keeps.
    fn measure(
        &self,
        client: ClientId,
        model: &[f32],
        memory: &ClientMemory,
        learner: &mut dyn Learner,
    ) -> Option<Accuracies> {
        let (train, held_out) = self.hold_out.divide(client, &self.clients.get(client)?);
        let mut model =
            private_layers::with_own(self.private_layers.as_ref(), memory.get(client), model).into_owned();
        let plain = learner.evaluate(&model, &held_out).ok()?.accuracy()?;
        let Some(training) = &self.fine_tuning else { return Some((plain, None)) };
        let order = self.key.derive(Purpose::BatchOrder, 0, client.0);
        let fitted = learner.train(&model, &train, training, Turn::new(*order.expose())).ok()?;
        model.iter_mut().zip(&fitted.update).for_each(|(value, step)| *value += step);
        learner.recycle(fitted.update);
        Some((plain, Some(learner.evaluate(&model, &held_out).ok()?.accuracy()?)))
    }
}

#[cfg(test)]
mod tests {
    use skep_learning::Subset;

    use super::*;
    use crate::population;
    use crate::testing::experiment;

    #[test]
    fn a_client_trains_on_what_is_not_held_out() {
        let mut experiment = experiment();
        experiment.evaluation.hold_out = Some(0.25);
        let hold_out = hold_out(&experiment).unwrap();
        let train = population::data(&experiment).unwrap().train;
        let mut kept = 0;
        for (client, share) in population::shares(&experiment, &train).unwrap().iter().enumerate() {
            let (train, held_out) = hold_out.divide(ClientId(client as u64), share);
            assert_eq!(held_out.len(), share.len() / 4);
            assert!(!train.is_empty());
            let mut rows = [train.rows(), held_out.rows()].concat();
            rows.sort_unstable();
            let mut all = share.rows().to_vec();
            all.sort_unstable();
            assert_eq!(rows, all);
            kept += held_out.len();
        }
        assert!(kept > 200, "{kept}");
        let one = Subset::new(train.dataset().clone(), vec![train.rows()[0]]).unwrap();
        assert_eq!(hold_out.divide(ClientId(0), &one).0.len(), 1);
    }

    #[test]
    fn a_panel_is_measured_alike_on_any_number_of_threads() {
        let mut experiment = experiment();
        (experiment.evaluation.clients, experiment.evaluation.hold_out) = (Some(0.5), Some(0.2));
        experiment.evaluation.fine_tune_epochs = Some(2);
        let memory = ClientMemory::default();
        let clients = Clients::new(&experiment, &population::data(&experiment).unwrap().train).unwrap();
        let model = population::initial_model(&experiment).unwrap();
        let measure = |threads| {
            Panel::of(&experiment, &clients, threads).unwrap().unwrap().measure(&model, &memory).unwrap()
        };
        let [alone, together] = [1, 3].map(measure);
        assert_eq!((alone.plain, alone.personalised), (together.plain, together.personalised));
        // The first model knows nothing; a few steps on a client's own examples teach it the most frequent of its classes.
        let (alone, personalised) = (alone.plain, alone.personalised.unwrap());
        assert!(personalised.clients == alone.clients && personalised.mean > alone.mean, "{personalised:?}");
        assert!((8..=10).contains(&alone.clients), "half of twenty, less those with few examples: {alone:?}");
        assert!(alone.worst <= alone.percentile_10 && alone.percentile_10 <= alone.median);
        assert!(alone.median <= alone.percentile_90);
    }
}
