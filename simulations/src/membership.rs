//! How well the examples that a model was trained on are told from others, by likelihood ratio (Carlini et al., arXiv 2112.03570).
//!
//! The attacker knows the whole experiment and has data like the members'. It trains shadow models: the same federation, each time on
//! a random half of all examples. Of every example it then has confidences of models that saw it and of models that did not, and asks
//! which of the two the confidence of the model under attack is like.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use skep_client::task::learner_for;
use skep_learning::{Dataset, DatasetError, LearnError, Learner, Split, Subset};
use skep_privacy::empirical::membership::{Rates, area_under_curve, confidence, likelihood_ratio, rates};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::{Experiment, Partition};
use thiserror::Error;

use crate::error::SimulationError;
use crate::schedule::Ended;
use crate::simulate::{SimulationOptions, simulate};

/// What an attack on a model's members found.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipReport {
    /// Examples that the model was trained on.
    pub members: usize,
    /// Examples that it was not.
    pub others: usize,
    /// Shadow models.
    pub shadows: u32,
    /// At 0.1 %, 1 % and 10 % of false alarms.
    pub rates: [Rates; 3],
    /// The probability that a random member looks more like one than a random other: 0.5 if nothing is seen.
    pub area_under_curve: f64,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum MembershipError {
    /// A shadow federation could not be run.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// The model is not that of the experiment.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// Training and test data are not of one shape.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// There are too few examples or shadow models.
    #[error(
        "members are told apart with an even number of at least 4 shadow models, 10 members and 10 others; \
             there are {members} members and {others} others"
    )]
    TooFew {
        /// Examples to train on.
        members: usize,
        /// Examples held out.
        others: usize,
    },
    /// It was stopped.
    #[error("interrupted")]
    Interrupted,
}

/// Attacks `model`, which the experiment learned from `data.train`, with so many shadow models. `root` decides which examples each of
/// them sees, and all its secret draws.
///
/// # Errors
/// [`MembershipError`].
pub fn membership(
    experiment: &Experiment,
    data: &Split,
    model: &[f32],
    shadows: u32,
    root: &Key,
    options: &SimulationOptions,
    interrupted: &AtomicBool,
) -> Result<MembershipReport, MembershipError> {
    let (members, others) = (data.train.len(), data.test.len());
    if shadows < 4 || !shadows.is_multiple_of(2) || members < 10 || others < 10 {
        return Err(MembershipError::TooFew { members, others });
    }
    let pool = Pool::of(data)?;
    let shadow_experiment = shadow_of(experiment);
    let mut learner = learner_for(&experiment.task).map_err(SimulationError::from)?;
    let observed = pool.confidences(learner.as_mut(), model)?;
    let (mut with, mut without) = (vec![Vec::new(); observed.len()], vec![Vec::new(); observed.len()]);
    for shadow in 0..shadows {
        let (half, seen) = pool.half(root, shadow);
        let secrets = root.derive(Purpose::Audit, 0, u64::from(shadow) + 1);
        let ran = simulate(&shadow_experiment, &half, &secrets, options, interrupted, &mut ())?;
        if ran.ended == Ended::Interrupted {
            return Err(MembershipError::Interrupted);
        }
        for (example, confidence) in pool.confidences(learner.as_mut(), &ran.model)?.into_iter().enumerate() {
            if seen[example] { with[example].push(confidence) } else { without[example].push(confidence) }
        }
    }
    let deviation = pooled_deviation(with.iter().chain(&without));
    let scores: Vec<f64> = (0..observed.len())
        .map(|example| {
            likelihood_ratio(observed[example], &with[example], &without[example], deviation).unwrap_or(0.0)
        })
        .collect();
    let (of_members, of_others) = scores.split_at(members);
    Ok(MembershipReport {
        members,
        others,
        shadows,
        rates: [0.001, 0.01, 0.1].map(|allowed| rates(of_members, of_others, allowed)),
        area_under_curve: area_under_curve(of_members, of_others),
    })
}

/// All examples: first the members, then the others.
struct Pool {
    all: Arc<Dataset>,
    test: Subset,
}

impl Pool {
    fn of(data: &Split) -> Result<Self, DatasetError> {
        Ok(Pool { all: Arc::new(Dataset::joined(&data.train, &data.test)?), test: data.test.clone() })
    }

    /// What a shadow model is trained on, and of which examples that is. An even shadow and the next one share all examples in
    /// two halves, so that of each example as many models saw it as did not.
    fn half(&self, root: &Key, shadow: u32) -> (Split, Vec<bool>) {
        let mut order = root.derive(Purpose::Audit, u64::from(shadow / 2) + 1, 0).stream();
        let mut rows: Vec<(u64, usize)> =
            (0..self.all.examples()).map(|row| (order.next_u64(), row)).collect();
        rows.sort_unstable();
        let (first, second) = rows.split_at(rows.len() / 2);
        let mut rows: Vec<usize> =
            if shadow.is_multiple_of(2) { first } else { second }.iter().map(|(_, row)| *row).collect();
        rows.sort_unstable();
        let mut seen = vec![false; self.all.examples()];
        rows.iter().for_each(|&row| seen[row] = true);
        let train = Subset::new(Arc::clone(&self.all), rows).expect("rows of the pool");
        (Split::new(train, self.test.clone()), seen)
    }

    /// The confidence of a model in the label of each example.
    fn confidences(&self, learner: &mut dyn Learner, model: &[f32]) -> Result<Vec<f64>, LearnError> {
        (0..self.all.examples())
            .map(|row| {
                let one = Subset::new(Arc::clone(&self.all), vec![row]).expect("a row of the pool");
                learner.evaluate(model, &one).map(|measured| confidence(measured.loss))
            })
            .collect()
    }
}

/// The federation of a shadow model: nobody owns the rows of a pool, so clients have random ones.
fn shadow_of(experiment: &Experiment) -> Experiment {
    let mut shadow = experiment.clone();
    if shadow.population.partition == Partition::Column {
        shadow.population.partition = Partition::Iid;
    }
    shadow
}

/// The standard deviation of confidences around the mean of their group, over all groups; 1 where there is none.
fn pooled_deviation<'a>(groups: impl Iterator<Item = &'a Vec<f64>>) -> f64 {
    let (mut squares, mut freedom) = (0.0, 0.0);
    for group in groups.filter(|group| group.len() > 1) {
        let mean = group.iter().sum::<f64>() / group.len() as f64;
        squares += group.iter().map(|confidence| (confidence - mean).powi(2)).sum::<f64>();
        freedom += group.len() as f64 - 1.0;
    }
    if squares > 0.0 { (squares / freedom).sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use skep_learning::digits;
    use skep_protocol::experiment::file::{
        Activation, BatchFile, ExperimentFile, ModelFile, PartitionFile, PrivacyFile,
    };

    use super::*;
    use crate::population;
    use crate::testing::private_file;

    /// 360 digits to learn and 359 others.
    fn data() -> Split {
        let Split { train, test, .. } = digits::load();
        let few = train.rows().iter().copied().step_by(4).collect();
        Split::new(Subset::new(train.dataset().clone(), few).unwrap(), test)
    }

    fn file() -> ExperimentFile {
        let mut file = private_file();
        file.population.clients = 20;
        file.population.partition = PartitionFile::Iid {};
        file
    }

    fn attack(file: &ExperimentFile) -> MembershipReport {
        let experiment = Experiment::try_from(file).unwrap();
        let options = SimulationOptions::new(NonZeroUsize::new(2).unwrap());
        let (data, stop) = (data(), AtomicBool::new(false));
        let model = simulate(&experiment, &data, &Key::from_seed(1), &options, &stop, &mut ()).unwrap().model;
        assert_eq!(model.len() as u64, population::segments(&experiment).iter().map(|s| s.len).sum::<u64>());
        membership(&experiment, &data, &model, 16, &Key::from_seed(2), &options, &stop).unwrap()
    }

    #[test]
    fn an_overfit_model_gives_its_members_away_and_a_private_one_does_not() {
        let mut overfit = file();
        overfit.privacy = PrivacyFile::NONE;
        overfit.population.clients = 1;
        overfit.rounds.min_updates = 1;
        overfit.task.model = ModelFile::Mlp { hidden: vec![64], activation: Activation::Relu };
        overfit.task.training.learning_rate = 0.2;
        overfit.task.training.local_epochs = 60;
        overfit.task.training.batch_size = BatchFile::Size(10);
        let found = attack(&overfit);
        let [_, at_one_percent, _] = found.rates;
        assert!(at_one_percent.true_positive >= 0.05, "{found:?}");
        assert!(found.area_under_curve > 0.6, "{found:?}");

        let hidden = attack(&file());
        let [_, at_one_percent, _] = hidden.rates;
        assert!(at_one_percent.true_positive <= 0.02, "{hidden:?}");
        // 0.5 within four standard errors of 360 members against 359 others.
        assert!((0.40..0.60).contains(&hidden.area_under_curve), "{hidden:?}");
    }

    #[test]
    fn half_of_the_shadow_models_saw_each_example() {
        let pool = Pool::of(&data()).unwrap();
        let mut saw = vec![0; pool.all.examples()];
        for shadow in 0..6 {
            let (half, seen) = pool.half(&Key::from_seed(1), shadow);
            assert!(half.train.rows().iter().all(|&row| seen[row]));
            seen.iter().enumerate().for_each(|(row, &seen)| saw[row] += u32::from(seen));
        }
        assert!(saw.iter().all(|&times| times == 3));
    }
}
