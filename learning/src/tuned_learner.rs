//! The learner of models of which a part is trained.

use std::sync::Arc;

use crate::descent::{Descent, Moments, squared_norm};
use crate::learner::check_correction;
use crate::native::{NativeLearner, Order};
use crate::{
    Architecture, Coordinates, Evaluation, ExamplePrivacy, LearnError, Learner, Subset, TrainReport,
    Training, Turn,
};

/// The learner of the coordinates of a part of a model over a base that all learners share. Its flat parameters are those
/// [`Coordinates`]; the rest of the base is only read.
#[derive(Debug)]
pub struct TunedLearner {
    native: NativeLearner,
    coordinates: Coordinates,
    base: Arc<[f32]>,
    /// The whole model at the coordinates of the moment, and its gradient where it is trained.
    model: Vec<f32>,
    gradient: Vec<f32>,
}

impl TunedLearner {
    /// A learner for models of `architecture` over `base`.
    ///
    /// # Errors
    /// [`LearnError`] if there is no such model or the base is of another.
    pub fn new(
        architecture: Architecture,
        coordinates: Coordinates,
        base: Arc<[f32]>,
    ) -> Result<Self, LearnError> {
        let mut native = NativeLearner::new(architecture)?;
        let (expected, actual) = (native.parameter_count(), base.len());
        if expected != actual || coordinates.whole() != expected {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        native.train_only(coordinates.in_model());
        Ok(TunedLearner { native, coordinates, base, model: Vec::new(), gradient: vec![0.0; expected] })
    }

    fn check(&self, parameters: &[f32], data: &Subset) -> Result<(), LearnError> {
        let (expected, actual) = (self.coordinates.len(), parameters.len());
        if expected != actual {
            return Err(LearnError::ParameterCount { expected, actual });
        }
        self.native.check(&self.base, data)
    }

    /// Makes `into` the gradient of the mean loss of the examples at `positions`; the sum of their losses.
    fn gradient(
        &mut self,
        parameters: &[f32],
        data: &Subset,
        (positions, micro_batch): (&[usize], Option<usize>),
        seed: u64,
        into: &mut [f32],
    ) -> f64 {
        let Self { native, coordinates, base, model, gradient } = self;
        coordinates.assemble(base, parameters, model);
        let loss = native.accumulate(model, data, (positions, micro_batch), seed, gradient);
        coordinates.pull_back(parameters, gradient, into);
        loss
    }
}

impl Learner for TunedLearner {
    fn parameter_count(&self) -> usize {
        self.coordinates.len()
    }

    fn train(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        check_correction(global.len(), &turn)?;
        let mut order = Order::new(data.len(), training.batch(), turn.order_key);
        let (epochs, steps) = (training.local_epochs(), order.steps(training.local_epochs()));
        let (mut weights, mut gradient, mut moments) =
            (global.to_vec(), vec![0.0; global.len()], Moments::default());
        let mut descent = Descent::new(global, training, &turn, &mut moments);
        let loss = order.run(epochs, |positions, seed| {
            let batch = (positions, training.micro_batch());
            let loss = self.gradient(&weights, data, batch, seed, &mut gradient);
            descent.step(&mut weights, &mut gradient);
            loss
        });
        let loss = loss / self.native.predictions(data).max(1) as f64;
        Ok(report(weights, global, data.len(), steps, loss))
    }

    fn train_privately(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
        privacy: &mut dyn ExamplePrivacy,
    ) -> Result<TrainReport, LearnError> {
        self.check(global, data)?;
        check_correction(global.len(), &turn)?;
        let mut order = Order::new(data.len(), training.batch(), turn.order_key);
        let (mut weights, mut sum, mut moments) =
            (global.to_vec(), vec![0.0; global.len()], Moments::default());
        let mut descent = Descent::new(global, training, &turn, &mut moments);
        let (mut one, mut positions) = (vec![0.0; global.len()], Vec::new());
        let (mut loss, mut drawn, steps) = (0.0, 0, privacy.steps());
        for _ in 0..steps {
            positions.clear();
            privacy.draw(data.len(), &mut positions);
            drawn += positions.len();
            sum.fill(0.0);
            for position in &positions {
                let alone = std::slice::from_ref(position);
                let before = self.gradient(&weights, data, (alone, None), order.seed(), &mut one);
                let (length, limit) = (squared_norm(&one).sqrt(), privacy.clip_norm());
                // No factor bounds what is not finite.
                if !length.is_finite() {
                    continue;
                }
                loss += before / self.native.predicted().max(1) as f64;
                // Downwards, so that rounding makes no gradient longer.
                let factor =
                    if length > limit { (limit / length) as f32 * (1.0 - f32::EPSILON) } else { 1.0 };
                sum.iter_mut().zip(&one).for_each(|(sum, value)| *sum += factor * value);
            }
            privacy.release(&mut sum);
            descent.step(&mut weights, &mut sum);
        }
        Ok(report(weights, global, data.len(), steps, loss / drawn.max(1) as f64))
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        self.check(parameters, data)?;
        self.coordinates.assemble(&self.base, parameters, &mut self.model);
        self.native.evaluate(&self.model, data)
    }
}

fn report(mut weights: Vec<f32>, global: &[f32], examples: usize, steps: u64, loss: f64) -> TrainReport {
    weights.iter_mut().zip(global).for_each(|(weight, global)| *weight -= global);
    TrainReport { update: weights, examples, steps, loss }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::{Batch, Block, Dataset, Layer, Lora, NormPlace, Shape, Tuning};

    fn transformer(width: usize, feed_forward: usize, blocks: usize) -> Architecture {
        let block = Block { heads: 4, feed_forward, causal: false, norm: NormPlace::Before, dropout: 0.0 };
        let mut layers = vec![Layer::Embedding { vocabulary: 50, width }, Layer::Positions];
        layers.extend(vec![Layer::TransformerBlock(block); blocks]);
        layers.extend([Layer::LayerNorm, Layer::Mean]);
        Architecture::Layers { input: Shape::Vector(6), layers, classes: 3 }
    }

    fn data(rows: usize) -> Subset {
        let features =
            Array2::from_shape_fn((rows, 6), |(row, place)| ((row * 17 + place * 5) % 53) as f32 - 3.0);
        let labels = Array1::from_shape_fn(rows, |row| (row % 3) as u32);
        Subset::all(Arc::new(Dataset::new(features, labels, 3).unwrap()))
    }

    fn lora() -> Tuning {
        let targets = ["*.query.weight", "*.value.weight"].map(str::to_owned).to_vec();
        let frozen = ["*", "!output.*"].map(str::to_owned).to_vec();
        Tuning { frozen, lora: Some(Lora { rank: 4, alpha: 8.0, targets }) }
    }

    fn learner(architecture: &Architecture, tuning: &Tuning) -> (TunedLearner, Arc<[f32]>, Vec<f32>) {
        let coordinates = Coordinates::new(architecture, tuning).unwrap();
        let base: Arc<[f32]> = architecture.initial_parameters([7; 32]).unwrap().into();
        let start = coordinates.start(&base, [8; 32]);
        (TunedLearner::new(architecture.clone(), coordinates, base.clone()).unwrap(), base, start)
    }

    /// Ten million parameters, of which 55,000 are trained.
    #[test]
    fn frozen_weights_keep_every_bit() {
        let architecture = transformer(384, 1536, 6);
        assert!(architecture.parameter_count() > 10_000_000, "{}", architecture.parameter_count());
        let (mut learner, base, start) = learner(&architecture, &lora());
        assert!(learner.parameter_count() * 100 < architecture.parameter_count());
        let training = Training::new(0.5, 1, Batch::Size(2)).unwrap();
        let report = learner.train(&start, &data(4), &training, Turn::new([1; 32])).unwrap();
        assert_eq!(
            (report.update.len(), report.steps, report.is_finite()),
            (learner.parameter_count(), 2, true)
        );
        let trained: Vec<f32> =
            start.iter().zip(&report.update).map(|(start, update)| start + update).collect();
        let mut model = Vec::new();
        learner.coordinates.assemble(&base, &trained, &mut model);
        let (mut changed, mut kept) = (0, 0);
        for segment in architecture.segments() {
            let range = segment.offset..segment.offset + segment.len();
            let is_same = model[range.clone()]
                .iter()
                .zip(&base[range])
                .all(|(one, other)| one.to_bits() == other.to_bits());
            let is_trained = segment.name.starts_with("output.")
                || segment.name.ends_with("query.weight")
                || segment.name.ends_with("value.weight");
            assert_eq!(is_same, !is_trained, "{}", segment.name);
            if is_trained { changed += 1 } else { kept += 1 }
        }
        assert_eq!((changed, kept), (14, 6 * 14 + 4));
    }

    #[test]
    fn training_all_tensors_is_training_the_model() {
        let architecture = transformer(8, 12, 1);
        let (mut tuned, base, start) = learner(&architecture, &Tuning::default());
        assert_eq!(start, base.to_vec());
        let training = Training::new(0.1, 2, Batch::Size(3)).unwrap();
        let [ours, theirs] = [
            tuned.train(&start, &data(7), &training, Turn::new([1; 32])).unwrap(),
            NativeLearner::new(architecture)
                .unwrap()
                .train(&start, &data(7), &training, Turn::new([1; 32]))
                .unwrap(),
        ];
        assert!((ours.loss - theirs.loss).abs() < 1e-6);
        for (ours, theirs) in ours.update.iter().zip(&theirs.update) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
    }

    fn models() -> Vec<Architecture> {
        let embedding = Layer::Embedding { vocabulary: 50, width: 4 };
        let words = [
            embedding,
            Layer::CausalConv1d { channels: 6, kernel: 2, dilation: 1 },
            Layer::TemporalBlock { hidden: 5, kernel: 3, dilation: 2, dropout: 0.0 },
            Layer::Ngrams { shortest: 1, longest: 2, channels: 3 },
            Layer::Dense { outputs: 4 },
            Layer::LayerNorm,
        ];
        let pixels = [
            Layer::Conv2d { channels: 4, kernel: 3, stride: 1, padding: 1 },
            Layer::GroupNorm { groups: 2 },
            Layer::Residual { channels: 6, stride: 2, groups: 1 },
            Layer::Conv2d { channels: 2, kernel: 1, stride: 1, padding: 0 },
            Layer::Dense { outputs: 4 },
        ];
        let image = Shape::Image { height: 2, width: 3, channels: 1 };
        let model =
            |input, layers: &[Layer]| Architecture::Layers { input, layers: layers.to_vec(), classes: 3 };
        vec![transformer(8, 12, 2), model(Shape::Vector(6), &words), model(image, &pixels)]
    }

    /// Each tensor is trained alone, and with the first or the last.
    #[test]
    fn a_part_learns_as_it_does_with_the_whole_and_nothing_else_is_computed() {
        let mut untouched = 0;
        for architecture in models() {
            let base = architecture.initial_parameters([7; 32]).unwrap();
            let positions: Vec<usize> = (0..5).collect();
            let mut whole = vec![f32::NAN; base.len()];
            let mut native = NativeLearner::new(architecture.clone()).unwrap();
            let loss = native.accumulate(&base, &data(5), (&positions, None), 1, &mut whole);
            assert!(whole.iter().all(|value| value.is_finite()));
            let of = |segment: &crate::Segment| segment.offset..segment.offset + segment.len();
            let tensors: Vec<_> = architecture.segments().iter().map(of).collect();
            let (first, last) = (tensors[0].clone(), tensors[tensors.len() - 1].clone());
            for tensor in &tensors {
                for with in [tensor, &first, &last] {
                    let mut learning = vec![tensor.clone(), with.clone()];
                    learning.sort_by_key(|range| range.start);
                    learning.dedup();
                    native.train_only(learning.clone());
                    let mut part = vec![f32::NAN; base.len()];
                    let again = native.accumulate(&base, &data(5), (&positions, None), 1, &mut part);
                    assert_eq!(loss, again);
                    for range in learning {
                        assert_eq!(part[range.clone()], whole[range.clone()], "{architecture:?} {range:?}");
                    }
                    untouched += part.iter().filter(|value| value.is_nan()).count();
                }
            }
        }
        assert!(untouched > 10_000, "{untouched}");
    }

    #[test]
    fn adapters_learn_what_the_base_does_not_know() {
        let architecture = transformer(16, 32, 2);
        let (mut learner, _, start) = learner(&architecture, &lora());
        let data = data(30);
        let before = learner.evaluate(&start, &data).unwrap().loss;
        let training = Training::new(0.05, 30, Batch::Size(10)).unwrap();
        let report = learner.train(&start, &data, &training, Turn::new([1; 32])).unwrap();
        let trained: Vec<f32> =
            start.iter().zip(&report.update).map(|(start, update)| start + update).collect();
        let after = learner.evaluate(&trained, &data).unwrap().loss;
        assert!(after < 0.8 * before, "{before} {after}");
    }
}
