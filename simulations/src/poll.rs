//! How good a model is for clients on examples of their own, as they say it together: with the noise that hides each of them.
//!
//! A client with held-out examples answers (a − ½, ℓ/L − ½, ½), a being its accuracy, ℓ its mean loss and L the largest loss
//! that counts; one without answers zeros. No answer is longer than √¾. The last number counts the answers, so that the means
//! need nothing that is not in the sum.

use skep_learning::Learner;
use skep_privacy::prg::Key;
use skep_privacy::sum::ReleaseError;
use skep_protocol::ClientId;
use skep_protocol::experiment::{EvaluationQuery, Experiment};
use skep_server::federation::{Federation, PlanningError, Question, RoundError};
use skep_server::record::ClientAnswers;

use crate::clients::Clients;
use crate::error::SimulationError;
use crate::held_out::HoldOut;
use crate::memory::ClientMemory;
use crate::private_layers::{self, PrivateLayers};
use crate::query::{Answers, ask};

/// What clients are asked of the model.
pub(crate) struct Poll<'a> {
    clients: &'a Clients,
    hold_out: HoldOut,
    query: EvaluationQuery,
    question: Question,
    private_layers: Option<PrivateLayers>,
    learner: Box<dyn Learner>,
}

impl<'a> Poll<'a> {
    /// As the experiment says, if it does.
    ///
    /// # Errors
    /// [`SimulationError`] when the task cannot be learned, [`SimulationError::PrivateLayers`].
    pub(crate) fn of(experiment: &Experiment, clients: &'a Clients) -> Result<Option<Self>, SimulationError> {
        let (Some(query), Some(hold_out)) = (experiment.evaluation.query, HoldOut::of(experiment)) else {
            return Ok(None);
        };
        let (question, _) =
            Question::of(experiment).ok_or(SimulationError::OutOfStep("evaluation.query was not checked"))?;
        let learner = skep_client::task::learner_for(&experiment.task)?;
        let private_layers = PrivateLayers::of(experiment)?;
        Ok(Some(Poll { clients, hold_out, query, question, private_layers, learner }))
    }

    /// Asks clients about the federation's model, each with what it keeps. None where noise drowns how many they are, where
    /// fewer answer than the noise is planned for, and where the budget allows no more questions.
    ///
    /// # Errors
    /// [`SimulationError`].
    pub(crate) fn ask(
        &mut self,
        federation: &mut Federation,
        root: &Key,
        memory: &ClientMemory,
    ) -> Result<Option<ClientAnswers>, SimulationError> {
        let (round, model, question) = (federation.round(), federation.model(), self.question);
        match ask(federation, root, &question, 0, |client| self.answer(client, &model, memory)) {
            Ok(answers) => Ok(means(&answers, self.query.max_loss)),
            Err(SimulationError::Planning(PlanningError::Budget(exhausted))) => {
                tracing::warn!(%round, %exhausted, "clients are not asked about the model");
                Ok(None)
            }
            Err(SimulationError::Round(RoundError::Release(few @ ReleaseError::TooFewUpdates { .. }))) => {
                tracing::warn!(%round, %few, "what clients say of the model is not released");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn answer(&mut self, client: ClientId, model: &[f32], memory: &ClientMemory) -> Vec<f32> {
        let measured = self.clients.get(client).and_then(|examples| {
            let (_, held_out) = self.hold_out.divide(client, &examples);
            let model = private_layers::with_own(self.private_layers.as_ref(), memory.get(client), model);
            self.learner.evaluate(&model, &held_out).ok()
        });
        // What is not a number says nothing of a client, and a model of which it is said nothing good.
        let measured = measured.and_then(|measured| Some((measured.accuracy()?, measured.loss)));
        let Some((accuracy, loss)) = measured else { return vec![0.0; 3] };
        let loss = (loss / self.query.max_loss).clamp(0.0, 1.0);
        let loss = if loss.is_nan() { 1.0 } else { loss };
        vec![(accuracy - 0.5) as f32, (loss - 0.5) as f32, 0.5]
    }
}

/// The means over clients, and how far noise alone moves them in nineteen of twenty queries.
fn means(answers: &Answers, max_loss: f64) -> Option<ClientAnswers> {
    let [accuracy, loss, halves] = answers.sum[..] else { return None };
    let clients = 2.0 * halves;
    // Below that the count says nothing.
    if clients < 2.0 * NINETEEN_OF_TWENTY * answers.deviation || clients < 0.5 {
        return None;
    }
    let mean = |sum: f64| (sum / clients).clamp(-0.5, 0.5);
    // By the delta method, of a quotient whose two parts have the same, independent noise; the count is twice its part.
    let within =
        |mean: f64| NINETEEN_OF_TWENTY * answers.deviation / clients * (1.0 + 4.0 * mean * mean).sqrt();
    let (accuracy, loss) = (mean(accuracy), mean(loss));
    Some(ClientAnswers {
        accuracy: accuracy + 0.5,
        accuracy_within: within(accuracy),
        loss: (loss + 0.5) * max_loss,
        loss_within: within(loss) * max_loss,
    })
}

/// Standard deviations.
const NINETEEN_OF_TWENTY: f64 = 1.96;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use skep_privacy::adversary::Adversary;
    use skep_privacy::quantities::Epsilon;
    use skep_protocol::Round;
    use skep_protocol::experiment::file::{ModeFile, PrivacyFile, SamplingFile, SecureAggregationFile};
    use skep_protocol::experiment::{Activation, Evaluation, Model};
    use skep_server::ledger::Place;

    use super::*;
    use crate::population;
    use crate::schedule;
    use crate::simulate::{federation, with_world};
    use crate::testing::{Run, Unmeasured, file, first_federation, local_file, private_file};
    use crate::{Fault, FaultKind, Moment};

    #[test]
    fn means_are_those_of_the_sum_and_their_bounds_those_of_the_noise() {
        // Ten clients of accuracy 0.8 and loss 1 of at most 4.
        let sum = vec![10.0 * 0.3, 10.0 * -0.25, 5.0];
        let said = means(&Answers { sum: sum.clone(), deviation: 0.0 }, 4.0).unwrap();
        let (accuracy, loss) = (said.accuracy, said.loss);
        assert!((accuracy - 0.8).abs() < 1e-12 && (loss - 1.0).abs() < 1e-12, "{said:?}");
        assert_eq!((said.accuracy_within, said.loss_within), (0.0, 0.0));
        let said = means(&Answers { sum: sum.clone(), deviation: 0.1 }, 4.0).unwrap();
        assert!((said.accuracy_within - 0.0196 * 1.36_f64.sqrt()).abs() < 1e-12, "{said:?}");
        assert!((said.loss_within - 4.0 * 0.0196 * 1.25_f64.sqrt()).abs() < 1e-12, "{said:?}");
        assert_eq!(means(&Answers { sum, deviation: 3.0 }, 4.0), None, "drowned in noise");
    }

    /// Asks everybody of the digits' population `times` times with noise, and once without.
    fn asked(mode: ModeFile, times: u64) -> (Vec<(ClientAnswers, Epsilon)>, ClientAnswers) {
        let mut file = file();
        file.population.clients = 100;
        file.rounds.min_updates = 60;
        file.privacy = PrivacyFile {
            mode,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(4.0),
            delta: Some(1e-5),
            epsilon_limit: Some(f64::INFINITY),
        };
        if mode == ModeFile::Distributed {
            file.secure_aggregation =
                Some(SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups: None });
        }
        let mut experiment = Experiment::try_from(&file).unwrap();
        experiment.evaluation.hold_out = Some(0.25);
        let query = |noise_multiplier| EvaluationQuery { every: 1, noise_multiplier, max_loss: 4.0 };
        let train = population::data(&experiment).unwrap().train;
        let clients = Clients::new(&experiment, &train).unwrap();
        let model = population::initial_model(&experiment).unwrap();
        let root = Key::from_seed(1);
        let mut federation = federation(&experiment, model, &root, &Place::Memory, false).unwrap();
        let mut ask_with = |noise, number| {
            experiment.evaluation.query = Some(query(noise));
            let mut poll = Poll::of(&experiment, &clients).unwrap().unwrap();
            let (model, question) = (federation.model(), poll.question);
            let answers = ask(&mut federation, &root, &question, number, |client| {
                poll.answer(client, &model, &ClientMemory::default())
            });
            let said = means(&answers.unwrap(), 4.0).unwrap();
            (said, federation.epsilon(Adversary::Recipients).unwrap())
        };
        let noisy = (0..times).map(|number| ask_with(4.0, number)).collect();
        // So little noise, and so much budget, that the rest is rounding.
        let exact = ask_with(0.2, times).0;
        (noisy, exact)
    }

    /// A model of zeros takes everything for class 0: its loss is ln 10.
    #[test]
    fn clients_say_together_how_good_the_model_is_and_every_question_is_charged() {
        for mode in [ModeFile::Central, ModeFile::Distributed] {
            let (noisy, exact) = asked(mode, 3);
            assert!((exact.loss - 10_f64.ln()).abs() < 3.0 * exact.loss_within, "{mode:?}: {exact:?}");
            let mut spent = Epsilon::ZERO;
            for (said, epsilon) in noisy {
                assert!(epsilon > spent, "{mode:?}: the budget falls");
                spent = epsilon;
                // Four standard deviations: these keys are fixed, and so is what comes of them.
                let within = 2.1 * said.accuracy_within;
                assert!((said.accuracy - exact.accuracy).abs() < within, "{mode:?}: {said:?} {exact:?}");
                // 1.96 · 4 · √¾/100, somewhat more the farther from ½; shares are planned for the fewest honest survivors, 55 of 100.
                assert!((0.06..0.15).contains(&said.accuracy_within), "{mode:?}: {said:?}");
            }
        }
    }

    const QUERY: EvaluationQuery = EvaluationQuery { every: 1, noise_multiplier: 2.0, max_loss: 4.0 };

    #[test]
    fn a_cohort_with_too_little_noise_says_nothing_and_the_query_has_ended() {
        let mut file = local_file();
        file.rounds.sampling = SamplingFile::Poisson { rate: 0.1 };
        file.privacy.epsilon_limit = Some(f64::INFINITY);
        let mut experiment = Experiment::try_from(&file).unwrap();
        (experiment.evaluation.hold_out, experiment.evaluation.query) = (Some(0.25), Some(QUERY));
        let train = population::data(&experiment).unwrap().train;
        let clients = Clients::new(&experiment, &train).unwrap();
        let model = population::initial_model(&experiment).unwrap();
        let root = Key::from_seed(1);
        let mut federation = federation(&experiment, model, &root, &Place::Memory, false).unwrap();
        let mut poll = Poll::of(&experiment, &clients).unwrap().unwrap();
        assert_eq!(poll.ask(&mut federation, &root, &ClientMemory::default()).unwrap(), None);
        assert_eq!(federation.ledger().state().open().count(), 0);
        assert!(federation.epsilon(Adversary::Server).unwrap() > Epsilon::ZERO);
    }

    #[test]
    fn clients_rate_the_model_with_the_layers_that_they_keep() {
        let mut experiment = crate::testing::experiment();
        experiment.task.model = Model::Mlp { hidden: vec![3], activation: Activation::Relu };
        experiment.simulation.private_layers = vec!["output".to_owned()];
        (experiment.evaluation.hold_out, experiment.evaluation.query) = (Some(0.25), Some(QUERY));
        let train = population::data(&experiment).unwrap().train;
        let clients = Clients::new(&experiment, &train).unwrap();
        let model = population::initial_model(&experiment).unwrap();
        let mut poll = Poll::of(&experiment, &clients).unwrap().unwrap();
        // A head that knows one class and is sure of it: the loss is 0 where it is right, and counts 4 where it is wrong.
        let mut head = vec![0.0; 40];
        head[30] = 100.0;
        let mut memory = ClientMemory::default();
        memory.keep(ClientId(0), head);
        let own = poll.answer(ClientId(0), &model, &memory);
        assert_eq!(own[1].abs(), 0.5, "{own:?}");
        assert_ne!(own, poll.answer(ClientId(0), &model, &ClientMemory::default()));
    }

    #[test]
    fn nobody_is_asked_about_a_model_that_has_stayed_as_it_was() {
        let mut file = private_file();
        (file.rounds.min_updates, file.privacy.epsilon_limit) = (20, Some(1000.0));
        file.evaluation =
            Some(Evaluation { hold_out: Some(0.25), query: Some(QUERY), ..Evaluation::default() });
        let experiment = Experiment::try_from(&file).unwrap();
        let train = population::data(&experiment).unwrap().train;
        let clients = Clients::new(&experiment, &train).unwrap();
        let mut poll = Poll::of(&experiment, &clients).unwrap().unwrap();
        let (client, round) = (ClientId(3), Round(2));
        let kind = FaultKind::Vanish { at: Moment::Opening, back_after: None };
        let run = Run::with_fault(file, Fault { client, round, kind });
        let report = with_world(
            first_federation(&run.file, run.root),
            &Key::from_seed(run.root),
            &run.trainer,
            &run.options,
            &AtomicBool::new(false),
            |world| schedule::run(world, &mut Unmeasured, None, Some(&mut poll), &mut ()),
        );
        let asked =
            report.unwrap().rounds.iter().map(|record| record.client_answers.is_some()).collect::<Vec<_>>();
        assert_eq!(asked, [true, false, true]);
    }
}
