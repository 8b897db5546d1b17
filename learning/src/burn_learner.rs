//! The learner that computes with burn.

use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::metrics::{cross_entropy, predicted_class};
use crate::network::{Network, tensor};
use crate::{
    Architecture, ArchitectureError, Batch, Confusion, Evaluation, LearnError, Learner, Subset, TrainReport,
    Training,
};

/// The learner of every [`Architecture`], on burn's CPU backend flex. Holds no tensor between
/// calls.
#[derive(Debug, Clone)]
pub struct BurnLearner {
    architecture: Architecture,
    device: Device,
}

/// Examples as tensors, `[examples, inputs]` and one-hot `[examples, classes]`.
struct Examples {
    features: Tensor<2>,
    targets: Tensor<2>,
    labels: Vec<usize>,
}

impl BurnLearner {
    /// A learner for models of this architecture.
    ///
    /// # Errors
    /// [`ArchitectureError`] if it cannot be trained.
    pub fn new(architecture: Architecture) -> Result<Self, ArchitectureError> {
        architecture.check()?;
        Ok(Self { architecture, device: Device::flex() })
    }

    /// The architecture of its models.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn network(&self, parameters: &[f32], data: &Subset) -> Result<Network, LearnError> {
        let (expected, actual) = (self.parameter_count(), parameters.len());
        if expected != actual {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        let (expected, actual) = (self.architecture.inputs(), data.dataset().inputs());
        if expected != actual {
            return Err(LearnError::Inputs { expected, actual });
        }
        let (expected, actual) = (self.architecture.classes(), data.dataset().classes());
        if expected != actual {
            return Err(LearnError::Classes { expected, actual });
        }
        if data.is_empty() {
            return Err(LearnError::NoExamples);
        }
        Ok(Network::new(&self.architecture, parameters, &self.device))
    }

    /// The examples of `data` at `positions`.
    fn load(&self, data: &Subset, positions: &[usize]) -> Examples {
        let classes = self.architecture.classes();
        let labels: Vec<_> = positions.iter().map(|&at| data.label(at)).collect();
        let mut one_hot = vec![0.0; positions.len() * classes];
        for (row, &label) in one_hot.chunks_exact_mut(classes).zip(&labels) {
            row[label] = 1.0;
        }
        let inputs = self.architecture.inputs();
        let features = data.gather(positions);
        Examples {
            features: tensor(features, [positions.len(), inputs], &self.device),
            targets: tensor(one_hot, [positions.len(), classes], &self.device),
            labels,
        }
    }

    /// One step of gradient descent; the summed loss before it if `measured`, else 0.
    fn step(&self, network: &mut Network, batch: &Examples, rate: f64, measured: bool) -> f64 {
        let trace = network.forward(batch.features.clone());
        let mut loss = 0.0;
        if measured {
            let logits = trace.logits();
            let rows = logits.chunks_exact(self.architecture.classes());
            loss = rows.zip(&batch.labels).map(|(row, &label)| cross_entropy(row, label)).sum();
        }
        network.descend(trace, batch.targets.clone(), rate);
        loss
    }
}

impl Learner for BurnLearner {
    fn parameter_count(&self) -> usize {
        self.architecture.parameter_count()
    }

    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        order_key: [u8; 32],
    ) -> Result<TrainReport, LearnError> {
        let mut network = self.network(global, data)?;
        let mut order = ChaCha8Rng::from_seed(order_key);
        let mut positions: Vec<usize> = (0..data.len()).collect();
        let batch_size = match training.batch() {
            Batch::Full => data.len(),
            Batch::Size(size) => size.min(data.len()),
        };
        let whole = (batch_size == data.len()).then(|| self.load(data, &positions));
        let (rate, mut steps, mut loss) = (training.learning_rate(), 0, 0.0);
        for epoch in 1..=training.local_epochs() {
            let measured = epoch == training.local_epochs();
            if let Some(batch) = &whole {
                loss += self.step(&mut network, batch, rate, measured);
                steps += 1;
                continue;
            }
            positions.shuffle(&mut order);
            for positions in positions.chunks(batch_size) {
                let batch = self.load(data, positions);
                loss += self.step(&mut network, &batch, rate, measured);
                steps += 1;
            }
        }
        let mut update = network.into_parameters();
        update.iter_mut().zip(global).for_each(|(new, old)| *new -= old);
        Ok(TrainReport {
            examples: data.len(),
            steps,
            loss: loss / data.len() as f64,
            finite: update.iter().all(|value| value.is_finite()),
            update,
        })
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        let network = self.network(parameters, data)?;
        let classes = self.architecture.classes();
        let mut confusion = Confusion::new(classes);
        let (mut loss, mut right) = (0.0, 0_usize);
        let positions: Vec<usize> = (0..data.len()).collect();
        for positions in positions.chunks(EVALUATED_AT_ONCE) {
            let examples = self.load(data, positions);
            let logits = network.forward(examples.features).logits();
            for (row, &label) in logits.chunks_exact(classes).zip(&examples.labels) {
                let predicted = predicted_class(row);
                confusion.record(label, predicted);
                loss += cross_entropy(row, label);
                right += usize::from(predicted == label);
            }
        }
        Ok(Evaluation {
            examples: data.len(),
            accuracy: right as f64 / data.len() as f64,
            loss: loss / data.len() as f64,
            confusion,
        })
    }
}

/// Bounds the memory of an evaluation whatever the size of the data.
const EVALUATED_AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ndarray::{Array2, arr1, arr2};

    use super::*;
    use crate::{Activation, Alpha, Dataset, Scheme, digits, partition};

    const SOFTMAX: Architecture = Architecture::Softmax { inputs: digits::PIXELS, classes: digits::CLASSES };

    fn mlp(activation: Activation) -> Architecture {
        Architecture::Mlp { inputs: digits::PIXELS, hidden: vec![32], classes: digits::CLASSES, activation }
    }

    fn learner(architecture: &Architecture) -> BurnLearner {
        BurnLearner::new(architecture.clone()).unwrap()
    }

    fn training(learning_rate: f64, local_epochs: u32, batch: Batch) -> Training {
        Training::new(learning_rate, local_epochs, batch).unwrap()
    }

    fn skewed_clients(clients: usize, key: u8) -> Vec<Subset> {
        let alpha = Alpha::new(0.3).unwrap();
        let train = digits::load().train;
        let partition = partition(&train, clients, Scheme::Dirichlet { alpha }, [key; 32]);
        partition.unwrap().clients
    }

    /// Two examples of one feature, x = 1 of class 0 and x = -1 of class 1.
    fn two_examples() -> Subset {
        let dataset = Dataset::new(arr2(&[[1.0], [-1.0]]), arr1(&[0, 1]), 2).unwrap();
        Subset::all(Arc::new(dataset))
    }

    const TWO: Architecture = Architecture::Softmax { inputs: 1, classes: 2 };

    #[test]
    fn one_step_of_softmax_regression_is_what_the_formula_gives() {
        let full = training(0.5, 1, Batch::Full);
        let report = learner(&TWO).train(&[0.0; 4], &two_examples(), &full, [0; 32]).unwrap();
        // All probabilities are 1/2, so d = [[-.5, .5], [.5, -.5]] / 2 and x^T d = [-.5, .5].
        assert_eq!(report.update, [0.25, -0.25, 0.0, 0.0]);
        assert_eq!((report.examples, report.steps, report.finite), (2, 1, true));
        assert!((report.loss - 2.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn an_evaluation_counts_right_and_wrong() {
        let evaluation = learner(&TWO).evaluate(&[0.0, 0.0, 1.0, 0.0], &two_examples()).unwrap();
        assert_eq!((evaluation.examples, evaluation.accuracy), (2, 0.5));
        assert_eq!(evaluation.confusion.counts(), arr2(&[[1, 0], [1, 0]]));
        let (right, wrong) = ((1.0 + (-1.0_f64).exp()).ln(), (1.0 + 1.0_f64.exp()).ln());
        assert!((evaluation.loss - (right + wrong) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn an_evaluation_of_many_examples_is_the_mean_over_its_parts() {
        let train = digits::load().train;
        assert!(train.len() > EVALUATED_AT_ONCE);
        let parameters: Vec<f32> = (0..650).map(|i| (i % 13) as f32 / 13.0).collect();
        let evaluate = |data: &Subset| learner(&SOFTMAX).evaluate(&parameters, data).unwrap();
        let whole = evaluate(&train);
        let (mut loss, mut confusion) = (0.0, Array2::zeros((10, 10)));
        for rows in train.rows().chunks(100) {
            let part = Subset::new(train.dataset().clone(), rows.to_vec()).unwrap();
            let part = evaluate(&part);
            loss += part.loss * part.examples as f64 / train.len() as f64;
            confusion += part.confusion.counts();
        }
        assert!((whole.loss - loss).abs() < 1e-6, "{} {loss}", whole.loss);
        assert_eq!(whole.confusion.counts(), confusion);
        assert_eq!(whole.confusion.accuracy(), Some(whole.accuracy));
    }

    #[test]
    fn the_same_clients_trained_on_one_and_on_four_threads_give_the_same_bits() {
        let clients = skewed_clients(40, 1);
        for (architecture, batch) in [(SOFTMAX, Batch::Full), (mlp(Activation::Relu), Batch::Size(8))] {
            let global = architecture.initial_parameters([7; 32]).unwrap();
            let training = training(0.5, 2, batch);
            let on_threads = |threads: usize| -> Vec<Vec<u32>> {
                let next = AtomicUsize::new(0);
                let work = || {
                    let mut learner = learner(&architecture);
                    let mut updates = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(client) = clients.get(index) else {
                            return updates;
                        };
                        let key = [index as u8; 32];
                        let report = learner.train(&global, client, &training, key).unwrap();
                        let bits = report.update.iter().map(|value| value.to_bits());
                        updates.push((index, bits.collect::<Vec<u32>>()));
                    }
                };
                let mut updates: Vec<_> = std::thread::scope(|scope| {
                    let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                    workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
                });
                updates.sort();
                updates.into_iter().map(|(_, update)| update).collect()
            };
            let alone = on_threads(1);
            assert_eq!(alone.len(), 40);
            assert_ne!(alone[0], alone[1]);
            assert_eq!(alone, on_threads(4));
        }
    }

    #[test]
    fn minibatches_cover_every_example_once_an_epoch_in_an_order_set_by_the_key() {
        let client = &skewed_clients(5, 1)[0];
        let global = vec![0.0; SOFTMAX.parameter_count()];
        let train = |batch, key| {
            let training = training(0.5, 3, batch);
            learner(&SOFTMAX).train(&global, client, &training, [key; 32]).unwrap()
        };
        let report = train(Batch::Size(7), 1);
        assert_eq!(report.steps, 3 * client.len().div_ceil(7) as u64);
        assert_eq!(report, train(Batch::Size(7), 1));
        assert_ne!(report.update, train(Batch::Size(7), 2).update);
        assert_eq!(train(Batch::Size(client.len()), 1), train(Batch::Full, 2));
    }

    #[test]
    fn what_does_not_fit_the_model_is_an_error() {
        let mut learner = learner(&SOFTMAX);
        let full = training(1.0, 1, Batch::Full);
        let client = &skewed_clients(5, 1)[0];
        let none = Subset::new(client.dataset().clone(), vec![]).unwrap();
        let wide = Dataset::new(Array2::zeros((1, 65)), arr1(&[0]), 10).unwrap();
        let few = Dataset::new(Array2::zeros((1, 64)), arr1(&[0]), 9).unwrap();
        let (wide, few) = (Subset::all(Arc::new(wide)), Subset::all(Arc::new(few)));
        let cases = [
            (649, client, LearnError::ParameterCount { expected: 650, actual: 649 }),
            (0, client, LearnError::ParameterCount { expected: 650, actual: 0 }),
            (651, client, LearnError::ParameterCount { expected: 650, actual: 651 }),
            (650, &wide, LearnError::Inputs { expected: 64, actual: 65 }),
            (650, &few, LearnError::Classes { expected: 10, actual: 9 }),
            (650, &none, LearnError::NoExamples),
        ];
        for (count, data, error) in cases {
            let parameters = vec![0.0; count];
            let trained = learner.train(&parameters, data, &full, [0; 32]);
            assert_eq!(trained.unwrap_err(), error);
            assert_eq!(learner.evaluate(&parameters, data).unwrap_err(), error);
        }
    }

    #[test]
    fn an_update_that_is_not_finite_is_returned_and_reported() {
        let client = &skewed_clients(5, 1)[0];
        let mut global = vec![0.0; SOFTMAX.parameter_count()];
        global[3] = f32::NAN;
        let full = training(1.0, 2, Batch::Full);
        let report = learner(&SOFTMAX).train(&global, client, &full, [0; 32]).unwrap();
        assert!(!report.finite && !report.loss.is_finite());
        assert_eq!(report.update.len(), global.len());
        let evaluation = learner(&SOFTMAX).evaluate(&global, client).unwrap();
        assert!(!evaluation.loss.is_finite());
    }

    #[test]
    fn every_architecture_learns_the_digits_alone() {
        let split = digits::load();
        let relu = (mlp(Activation::Relu), 0.5);
        let tanh = (mlp(Activation::Tanh), 0.5);
        let sigmoid = (mlp(Activation::Sigmoid), 2.0);
        for (architecture, rate) in [(SOFTMAX, 0.5), relu, tanh, sigmoid] {
            let mut learner = learner(&architecture);
            let initial = architecture.initial_parameters([1; 32]).unwrap();
            let training = training(rate, 20, Batch::Size(32));
            let report = learner.train(&initial, &split.train, &training, [2; 32]).unwrap();
            let trained: Vec<f32> =
                initial.iter().zip(&report.update).map(|(old, change)| old + change).collect();
            let accuracy = learner.evaluate(&trained, &split.test).unwrap().accuracy;
            assert!(accuracy > 0.93, "{architecture:?}: {accuracy}");
        }
    }

    /// Federated averaging (McMahan et al., Communication-Efficient Learning of Deep Networks from
    /// Decentralized Data, 2017) with uniform weights: 100 clients with Dirichlet(0.3) label skew,
    /// all of them in each of 60 rounds.
    #[test]
    fn averaged_softmax_regression_reads_the_held_out_digits() {
        let test = digits::load().test;
        let full = training(2.0, 5, Batch::Full);
        let mut learner = learner(&SOFTMAX);
        for seed in 1..=5 {
            let clients = skewed_clients(100, seed);
            let mut global = SOFTMAX.initial_parameters([seed; 32]).unwrap();
            for _ in 0..60 {
                let mut sum = vec![0.0_f64; global.len()];
                for client in &clients {
                    let report = learner.train(&global, client, &full, [0; 32]).unwrap();
                    let pairs = sum.iter_mut().zip(&report.update);
                    pairs.for_each(|(sum, &change)| *sum += f64::from(change));
                }
                let pairs = global.iter_mut().zip(&sum);
                pairs.for_each(|(value, sum)| *value += (sum / clients.len() as f64) as f32);
            }
            let accuracy = learner.evaluate(&global, &test).unwrap().accuracy;
            println!("seed {seed}: accuracy {accuracy:.4} on {} digits", test.len());
            assert!(accuracy >= 0.93, "seed {seed}: {accuracy}");
        }
    }
}
