//! Layers that every client keeps to itself: FedPer (Arivazhagan et al., 1912.00818).
//!
//! A client puts its own layers in place of those of the model that it is sent, trains all of it, and keeps what has become of
//! them; its update is zero there. So they never leave it, and clients share the layers below, which learn what all of them
//! can use. The server's layers in those places stay what they were, but for noise where there is some, and nobody uses them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use skep_learning::{Evaluation, ExamplePrivacy, LearnError, Learner, Subset, TrainReport, Training, Turn};
use skep_protocol::experiment::Experiment;

use crate::error::SimulationError;
use crate::population;

/// Which of a model's parameters are private.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PrivateLayers(Vec<Range<usize>>);

impl PrivateLayers {
    /// The private layers of the experiment, if it has some.
    ///
    /// # Errors
    /// [`SimulationError::PrivateLayers`] when there is no such layer, or no other.
    pub(crate) fn of(experiment: &Experiment) -> Result<Option<Self>, SimulationError> {
        let layers = &experiment.simulation.private_layers;
        if layers.is_empty() {
            return Ok(None);
        }
        let segments = population::segments(experiment);
        let is_in = |name: &str, layer: &str| name.rsplit_once('.').is_some_and(|(own, _)| own == layer);
        let refused = |problem: String| {
            let mut known: Vec<_> =
                segments.iter().filter_map(|segment| segment.name.rsplit_once('.')).collect();
            known.dedup_by_key(|(layer, _)| *layer);
            let known: Vec<_> = known.into_iter().map(|(layer, _)| layer).collect();
            SimulationError::PrivateLayers { problem, known: known.join(", ") }
        };
        if let Some(unknown) = layers.iter().find(|layer| !segments.iter().any(|s| is_in(&s.name, layer))) {
            return Err(refused(format!("\"{unknown}\" is none of the model's layers")));
        }
        let (mut ranges, mut start) = (Vec::new(), 0);
        for segment in &segments {
            let end = start + segment.len as usize;
            if layers.iter().any(|layer| is_in(&segment.name, layer)) {
                ranges.push(start..end);
            }
            start = end;
        }
        match ranges.len() < segments.len() {
            true => Ok(Some(PrivateLayers(ranges))),
            false => Err(refused("all layers are private, so nothing is learned together".to_owned())),
        }
    }

    /// The private parameters of a model, one layer after another.
    pub(crate) fn taken_from(&self, model: &[f32]) -> Vec<f32> {
        self.0.iter().flat_map(|range| &model[range.clone()]).copied().collect()
    }

    /// Puts private parameters in their places.
    pub(crate) fn put(&self, mut own: &[f32], model: &mut [f32]) {
        for range in &self.0 {
            let (here, rest) = own.split_at(range.len());
            model[range.clone()].copy_from_slice(here);
            own = rest;
        }
    }
}

/// A model as a client uses it that keeps `own`, if it keeps anything yet.
pub(crate) fn with_own<'a>(
    layers: Option<&PrivateLayers>,
    own: Option<&[f32]>,
    model: &'a [f32],
) -> Cow<'a, [f32]> {
    let mut model = Cow::Borrowed(model);
    if let (Some(layers), Some(own)) = (layers, own) {
        layers.put(own, model.to_mut());
    }
    model
}

/// The private parameters of the client that a [`Personal`] learner trains for, before and after.
pub(crate) type Own = Arc<Mutex<Vec<f32>>>;

/// A learner whose updates leave private layers out.
pub(crate) struct Personal {
    learner: Box<dyn Learner>,
    layers: PrivateLayers,
    own: Own,
}

impl Personal {
    /// A learner that finds in `own` what its client keeps, and leaves it there.
    pub(crate) fn new(learner: Box<dyn Learner>, layers: PrivateLayers, own: Own) -> Self {
        Personal { learner, layers, own }
    }

    fn model(&self, global: &[f32]) -> Vec<f32> {
        let mut model = global.to_vec();
        self.layers.put(&self.own.lock().expect("nothing panics while it holds the lock"), &mut model);
        model
    }

    /// Keeps what the private layers have become, and takes them out of the update.
    fn keep(&self, base: &[f32], update: &mut [f32]) {
        let trained = |(at, step): (&f32, f32)| at + step;
        let steps = self.layers.taken_from(update);
        let own = self.layers.taken_from(base).iter().zip(steps).map(trained).collect();
        self.layers.put(&vec![0.0; self.layers.0.iter().map(Range::len).sum()], update);
        *self.own.lock().expect("nothing panics while it holds the lock") = own;
    }
}

impl Learner for Personal {
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
        let base = self.model(global);
        let mut report = self.learner.train(&base, data, training, turn)?;
        self.keep(&base, &mut report.update);
        Ok(report)
    }

    fn train_privately(
        &mut self,
        global: &[f32],
        data: &Subset,
        training: &Training,
        turn: Turn<'_>,
        privacy: &mut dyn ExamplePrivacy,
    ) -> Result<TrainReport, LearnError> {
        let base = self.model(global);
        let mut report = self.learner.train_privately(&base, data, training, turn, privacy)?;
        self.keep(&base, &mut report.update);
        Ok(report)
    }

    fn recycle(&mut self, update: Vec<f32>) {
        self.learner.recycle(update);
    }

    fn evaluate(&mut self, parameters: &[f32], data: &Subset) -> Result<Evaluation, LearnError> {
        let model = self.model(parameters);
        self.learner.evaluate(&model, data)
    }
}

#[cfg(test)]
mod tests {
    use skep_learning::{Batch, digits};
    use skep_protocol::experiment::{Activation, Model};

    use super::*;
    use crate::testing::experiment;

    /// Adds 1 to every parameter, and says what it was given.
    struct Adding(Vec<f32>);

    impl Learner for Adding {
        fn parameter_count(&self) -> usize {
            4
        }

        fn train(
            &mut self,
            global: &[f32],
            _: &Subset,
            _: &Training,
            _: Turn<'_>,
        ) -> Result<TrainReport, LearnError> {
            assert_eq!(global, self.0);
            Ok(TrainReport { update: vec![1.0; 4], examples: 1, steps: 1, loss: 0.0 })
        }

        fn evaluate(&mut self, parameters: &[f32], _: &Subset) -> Result<Evaluation, LearnError> {
            assert_eq!(parameters, self.0);
            Err(LearnError::NoExamples)
        }
    }

    #[test]
    fn a_round_of_two_clients_by_hand() {
        // The last two of four parameters are private. The server has (1, 2, 3, 4); one client keeps (10, 20), the other nothing
        // yet. Each trains its own and keeps it; only the first two parameters of an update are not zero.
        let layers = PrivateLayers(vec![2..3, 3..4]);
        let (server, data) = ([1.0, 2.0, 3.0, 4.0], digits::load().train);
        let training = Training::new(0.1, 1, Batch::Full).unwrap();
        for (kept, base, trained) in [
            (vec![10.0, 20.0], vec![1.0, 2.0, 10.0, 20.0], [11.0, 21.0]),
            (layers.taken_from(&server), server.to_vec(), [4.0, 5.0]),
        ] {
            let own = Own::new(Mutex::new(kept));
            let mut personal = Personal::new(Box::new(Adding(base)), layers.clone(), Own::clone(&own));
            let _ = personal.evaluate(&server, &data);
            let report = personal.train(&server, &data, &training, Turn::new([0; 32])).unwrap();
            assert_eq!(report.update, [1.0, 1.0, 0.0, 0.0]);
            assert_eq!(*own.lock().unwrap(), trained);
        }
    }

    fn layers(names: &[&str]) -> Result<Option<PrivateLayers>, SimulationError> {
        let mut experiment = experiment();
        experiment.simulation.private_layers = names.iter().map(|&name| name.to_owned()).collect();
        experiment.task.model = Model::Mlp { hidden: vec![3], activation: Activation::Relu };
        PrivateLayers::of(&experiment)
    }

    #[test]
    fn layers_are_found_by_name() {
        assert_eq!(layers(&[]).unwrap(), None);
        // 64 x 3 weights and 3 biases are below.
        let head = layers(&["output"]).unwrap().unwrap();
        assert_eq!(head, PrivateLayers(vec![195..225, 225..235]));
        let mut model: Vec<f32> = (0..235_u8).map(f32::from).collect();
        let own = head.taken_from(&model);
        assert!(own.len() == 40 && own[0] == 195.0);
        head.put(&[0.5; 40], &mut model);
        assert!(model[194] == 194.0 && model[195..] == [0.5; 40]);
        let unknown = layers(&["head"]).unwrap_err().to_string();
        assert!(unknown.contains("\"head\" is none") && unknown.contains("hidden.0, output"), "{unknown}");
        let all = layers(&["hidden.0", "output"]).unwrap_err().to_string();
        assert!(all.contains("nothing is learned together"), "{all}");
    }
}
