//! The update that a client makes: deterministic, bounded, on the grid, or declined by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use skep_client::held_out::HoldOut;
use skep_client::task::learner_for;
use skep_client::trainer::{ClientKeys, Participant, Trained, pack};
use skep_learning::{Evaluation, LearnError, Learner, Subset, TrainReport, Training, Turn};
use skep_privacy::client_noise::Contribution;
use skep_privacy::packing;
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::{Task, Weighting};
use skep_protocol::plan::{Plan, Promise, Segment};
use skep_protocol::round::Decline;
use skep_protocol::{ClientId, Round};
use support::{
    asking, base_model, data, local_plan, plan_of, private_plan, query_plan, signed, task, weighted_plan,
};

fn keys(seed: u64) -> ClientKeys {
    ClientKeys::from_root(&Key::from_seed(seed))
}

fn train_as(client: u64, key_seed: u64, plan: Plan) -> Result<Trained, Decline> {
    let mut participant = Participant::new(ClientId(client), data(), keys(key_seed), &task()).unwrap();
    participant.train(&signed(plan), &task(), &base_model())
}

fn coordinates(plan: Plan) -> Vec<i32> {
    train_as(1, 1, plan).unwrap().update.coordinates().to_vec()
}

/// What the learner alone gives in round 1 for client 1.
fn plain_update() -> Vec<f32> {
    let order = Key::from_seed(task().seed).derive(Purpose::BatchOrder, 1, 1);
    let training = skep_client::task::training(&task(), Round(1)).unwrap();
    let mut learner = learner_for(&task()).unwrap();
    learner.train(&base_model(), &data(), &training, Turn::new(*order.expose())).unwrap().update
}

/// A learner that remembers the keys of batch orders and returns always the same.
struct Scripted {
    orders: Arc<Mutex<Vec<[u8; 32]>>>,
    result: Result<Vec<f32>, LearnError>,
}

impl Learner for Scripted {
    fn parameter_count(&self) -> usize {
        base_model().len()
    }

    fn train(
        &mut self,
        _: &[f32],
        data: &Subset,
        _: &Training,
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError> {
        self.orders.lock().unwrap().push(turn.order_key);
        let update = self.result.clone()?;
        Ok(TrainReport { update, examples: data.len(), steps: 1, loss: 0.5 })
    }

    fn evaluate(&mut self, _: &[f32], _: &Subset) -> Result<Evaluation, LearnError> {
        Err(LearnError::NoExamples)
    }
}

fn scripted(result: Result<Vec<f32>, LearnError>) -> (Participant, Arc<Mutex<Vec<[u8; 32]>>>) {
    let orders = Arc::default();
    let learner = Scripted { orders: Arc::clone(&orders), result };
    (Participant::with_learner(ClientId(1), Box::new(learner), data(), keys(1)), orders)
}

fn norm_squared(update: &Contribution) -> u128 {
    update.coordinates().iter().map(|&q| u128::from(q.unsigned_abs()).pow(2)).sum()
}

#[test]
fn clients_trained_on_one_and_on_four_threads_make_the_same_updates() {
    for plan in [plan_of(&task(), 1), private_plan(1, 0.5), weighted_plan(1, 50)] {
        let on_threads = |threads: u64| -> Vec<Vec<i32>> {
            let mut updates = vec![Vec::new(); 8];
            std::thread::scope(|scope| {
                for (thread, share) in updates.chunks_mut(8 / threads as usize).enumerate() {
                    let plan = plan.clone();
                    scope.spawn(move || {
                        for (place, update) in share.iter_mut().enumerate() {
                            let client = thread * (8 / threads as usize) + place;
                            let trained = train_as(client as u64, client as u64, plan.clone()).unwrap();
                            *update = trained.update.coordinates().to_vec();
                        }
                    });
                }
            });
            updates
        };
        let alone = on_threads(1);
        assert!(alone.iter().all(|update| update.iter().any(|&q| q != 0)));
        assert_ne!(alone[0], alone[1], "the batch order of two clients differs");
        assert_eq!(alone, on_threads(4));
    }
}

#[test]
fn the_batch_order_follows_from_the_public_seed_round_and_client() {
    let (mut participant, orders) = scripted(Ok(vec![0.0; base_model().len()]));
    for round in [1, 2] {
        participant.train(&signed(plan_of(&task(), round)), &task(), &base_model()).unwrap();
    }
    let expected =
        [1, 2].map(|round| *Key::from_seed(task().seed).derive(Purpose::BatchOrder, round, 1).expose());
    assert_eq!(*orders.lock().unwrap(), expected);
}

#[test]
fn the_secret_key_changes_the_rounding_of_private_updates_and_nothing_else() {
    let with_key = |seed, plan: &Plan| train_as(1, seed, plan.clone()).unwrap();
    let public = plan_of(&task(), 1);
    assert_eq!(with_key(1, &public), with_key(2, &public));
    let private = private_plan(1, 0.5);
    let (one, other) = (with_key(1, &private), with_key(2, &private));
    let pairs = one.update.coordinates().iter().zip(other.update.coordinates());
    let distances: Vec<u32> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
    assert!(distances.iter().all(|&distance| distance <= 1));
    assert!(distances.iter().filter(|&&distance| distance == 1).count() > 100);
}

#[test]
fn rounding_differs_from_round_to_round() {
    let value = 0.3 / 1024.0;
    let (mut participant, _) = scripted(Ok(vec![value; base_model().len()]));
    let mut update_of = |round| {
        let plan = signed(private_plan(round, 1.0));
        participant.train(&plan, &task(), &base_model()).unwrap().update.coordinates().to_vec()
    };
    assert_ne!(update_of(1), update_of(2));
}

#[test]
fn private_updates_are_no_longer_than_the_sensitivity() {
    let norm = plain_update().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let (mut clipped, mut unclipped) = (0, 0);
    for factor in [0.001, 0.1, 0.9, 1.1, 100.0] {
        let plan = private_plan(1, norm * factor);
        let sensitivity = u128::from(plan.encoding.sensitivity.unwrap());
        let trained = train_as(1, 1, plan.clone()).unwrap();
        assert!(norm_squared(&trained.update) <= sensitivity * sensitivity);
        let decoded = (norm_squared(&trained.update) as f64).sqrt() * plan.encoding.step;
        assert!((decoded - norm.min(norm * factor)).abs() < 1e-3 * norm * factor, "{decoded}");
        if factor < 1.0 { clipped += 1 } else { unclipped += 1 }
    }
    assert_eq!((clipped, unclipped), (3, 2));
}

#[test]
fn without_privacy_an_update_is_the_nearest_point_of_the_public_grid() {
    let expected: Vec<i32> =
        plain_update().iter().map(|&v| (f64::from(v) * 16_777_216.0).round_ties_even() as i32).collect();
    assert_eq!(coordinates(plan_of(&task(), 1)), expected);
}

#[test]
fn a_weighted_update_is_scaled_by_its_weight_and_ends_with_it() {
    let update = plain_update();
    for (max, weight) in [(60, 0.5), (30, 1.0), (7, 1.0)] {
        let coordinates = coordinates(weighted_plan(1, max));
        assert_eq!(coordinates.len(), update.len() + 1);
        assert_eq!(coordinates.last(), Some(&((weight * 16_777_216.0) as i32)));
        for (&q, &value) in coordinates.iter().zip(&update) {
            assert!((f64::from(q) - f64::from(value) * weight * 16_777_216.0).abs() <= 0.5 + 1e-9);
        }
    }
}

#[test]
fn a_packed_update_is_as_long_as_the_plan_says_and_reads_back() {
    for plan in [plan_of(&task(), 1), private_plan(1, 0.5), weighted_plan(1, 50)] {
        let update = train_as(1, 1, plan.clone()).unwrap().update;
        let packed = pack(&update);
        assert_eq!(packed.len() as u64, plan.upload_bytes());
        let read = packing::unpack(&packed, update.coordinates().len(), plan.encoding.wire_bits).unwrap();
        assert_eq!(Contribution::verify(read, &plan.grid().unwrap()), Ok(update));
    }
}

#[test]
fn training_that_diverges_is_declined() {
    let mut diverging = task();
    diverging.training.learning_rate = 1e38;
    diverging.training.local_epochs = 5;
    for plan in [plan_of(&diverging, 1), Plan { task: diverging.digest(), ..private_plan(1, 1.0) }] {
        let mut participant = Participant::new(ClientId(1), data(), keys(1), &diverging).unwrap();
        let trained = participant.train(&signed(plan), &diverging, &base_model());
        assert_eq!(trained, Err(Decline::Unencodable));
    }
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.0; base_model().len()];
        values[100] = poison;
        for plan in [plan_of(&task(), 1), private_plan(1, 1.0)] {
            let trained = scripted(Ok(values.clone())).0.train(&signed(plan), &task(), &base_model());
            assert_eq!(trained, Err(Decline::Unencodable));
        }
    }
}

#[test]
fn without_privacy_what_leaves_the_grid_is_declined_and_with_it_clipped() {
    let mut values = vec![0.0; base_model().len()];
    values[0] = 128.0;
    let train = |plan| scripted(Ok(values.clone())).0.train(&signed(plan), &task(), &base_model());
    assert_eq!(train(plan_of(&task(), 1)), Err(Decline::Unencodable));
    assert_eq!(train(private_plan(1, 1.0)).unwrap().update.coordinates()[0], 1 << 20);
}

#[test]
fn a_plan_that_contradicts_the_task_or_itself_is_declined_before_training() {
    let good = private_plan(1, 1.0);
    let other = Task { seed: 4, ..task() };
    let mut longer = good.clone();
    longer.segments.push(Segment { name: "extra".into(), len: 1 });
    let mut finer = good.clone();
    finer.encoding.step /= 2.0;
    let mut clipless = good.clone();
    clipless.promise = Promise::None;
    let weighted = Plan { weighting: Weighting::Examples { max: 10 }, ..good.clone() };
    let cases = [
        (Plan { task: other.digest(), ..good.clone() }, Decline::WrongTask),
        (longer, Decline::Inconsistent),
        (finer, Decline::Inconsistent),
        (clipless, Decline::Inconsistent),
        (weighted, Decline::Inconsistent),
        (Plan { segments: vec![], ..good }, Decline::Inconsistent),
    ];
    for (plan, reason) in cases {
        let (mut participant, orders) = scripted(Ok(vec![0.0; base_model().len()]));
        assert_eq!(participant.train(&signed(plan.clone()), &task(), &base_model()), Err(reason), "{plan:?}");
        assert!(orders.lock().unwrap().is_empty(), "trained for a refused plan");
    }
}

#[test]
fn what_the_learner_refuses_is_declined_by_name() {
    let train = |result| scripted(result).0.train(&signed(plan_of(&task(), 1)), &task(), &base_model());
    assert_eq!(train(Err(LearnError::NoExamples)), Err(Decline::TrainingFailed));
    let mut participant = Participant::new(ClientId(1), data(), keys(1), &task()).unwrap();
    let short = &base_model()[1..];
    assert_eq!(participant.train(&signed(plan_of(&task(), 1)), &task(), short), Err(Decline::NoModel));
    // A learner whose update has another length than the plan.
    assert_eq!(train(Ok(vec![0.0; 3])), Err(Decline::Unencodable));
}

#[test]
fn examples_and_loss_are_the_learners() {
    let trained = train_as(1, 1, plan_of(&task(), 1)).unwrap();
    assert_eq!(trained.examples, 30);
    assert!(trained.loss.is_finite() && trained.loss > 0.0);
}

#[test]
fn noise_is_new_in_every_round_and_for_every_client_and_follows_from_a_root_only_where_there_is_one() {
    let of = |id, root, round| train_as(id, root, local_plan(round)).unwrap().update;
    let update = of(1, 1, 1);
    assert_eq!(update, of(1, 1, 1));
    for other in [of(2, 1, 1), of(1, 2, 1), of(1, 1, 2)] {
        let same = update.coordinates().iter().zip(other.coordinates()).filter(|(a, b)| a == b).count();
        assert!(same < 20, "{same} of 650 coordinates are the same");
    }
    let system = || {
        let keys = ClientKeys::from_os().unwrap();
        let mut participant = Participant::new(ClientId(1), data(), keys, &task()).unwrap();
        participant.train(&signed(local_plan(1)), &task(), &base_model()).unwrap().update
    };
    assert_ne!(system().coordinates(), system().coordinates());
    let keys = ClientKeys::from_os().unwrap();
    let mut restored = Participant::new(ClientId(1), data(), keys, &task()).unwrap();
    let mut again = || restored.train(&signed(local_plan(1)), &task(), &base_model()).unwrap().update;
    assert_ne!(again().coordinates(), again().coordinates(), "the same client in the same round draws anew");
}

#[test]
fn what_a_client_says_in_a_query_is_how_good_the_model_is_on_what_it_holds_out() {
    let plan = signed(query_plan(3, 2.0));
    let keys = ClientKeys::from_root(&Key::from_seed(1));
    let mut participant = Participant::new(ClientId(1), data(), keys.clone(), &asking()).unwrap();
    let said = participant.train(&plan, &asking(), &base_model()).unwrap();
    let (train, held_out) = HoldOut::of(&asking()).unwrap().divide(ClientId(1), &data());
    assert_eq!((said.examples, train.len()), (6, 24), "a fifth of thirty");
    let measured = learner_for(&asking()).unwrap().evaluate(&base_model(), &held_out).unwrap();
    let expected = asking().asked.unwrap().answer(measured.accuracy().unwrap(), measured.loss);
    let step = plan.plan().encoding.step;
    for (found, expected) in said.update.coordinates().iter().zip(expected) {
        assert!((f64::from(*found) * step - f64::from(expected)).abs() <= step, "{found} {expected}");
    }
    // It trains on the others alone, as a client without these would.
    let round = signed(Plan { task: asking().digest(), ..private_plan(3, 0.5) });
    let trained = participant.train(&round, &asking(), &base_model()).unwrap();
    assert_eq!(trained.examples, 24);
    // One that has nothing to measure with says nothing, in as many numbers.
    let one = Subset::new(data().dataset().clone(), vec![data().rows()[0]]).unwrap();
    let mut alone = Participant::new(ClientId(2), one, keys, &asking()).unwrap();
    let said = alone.train(&plan, &asking(), &base_model()).unwrap();
    assert_eq!((said.examples, said.update.coordinates()), (0, &[0; 3][..]));
}
