//! Auditing a federation by running it with canaries: what its releases give away, beside what it claims.
//!
//! A canary is one more client. Its training returns a random direction, and everything after that (clipping, rounding, whatever noise
//! clients add, the server's machine, its sum and its release) is what happens to everyone. Each canary is included by a fair coin for the
//! whole run; one that is left out sends zero. The attacker sees the released models only, as a recipient does.

use std::sync::atomic::AtomicBool;

use skep_client::trainer::{ClientKeys, Participant};
use skep_learning::{Evaluation, LearnError, Learner, Split, Subset, TrainReport, Training, Turn};
use skep_privacy::client_noise::Contribution;
use skep_privacy::empirical::canary_cosine::Cosines;
use skep_privacy::empirical::one_run::{GuessError, Guesses};
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::quantities::{Delta, Epsilon, Sampling};
use skep_protocol::ClientId;
use skep_protocol::experiment::{Experiment, Task};
use skep_protocol::round::Decline;
use skep_server::ledger::Place;
use skep_server::record::Observer;
use thiserror::Error;

use crate::clients::Clients;
use crate::error::SimulationError;
use crate::participants::Participants;
use crate::population::{self, client_root};
use crate::schedule::{self, Ended, SimulationReport};
use crate::simulate::{SimulationOptions, federation, with_world};
use crate::test_set::TestSet;
use crate::workers::{Job, Trainer};

/// How a federation is audited. Both numbers are fixed before anything is seen.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// Canaries, m, beside the experiment's clients.
    pub canaries: u32,
    /// Guesses about them, r: even, at most m.
    pub guesses: u32,
    /// How the federation is simulated.
    pub simulation: SimulationOptions,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditReport {
    /// What was guessed of the canaries, and how often rightly.
    pub guesses: Guesses,
    /// Epsilon is above this with confidence [`CONFIDENCE`].
    pub epsilon_lower: Epsilon,
    /// What the canaries' cosines tell of epsilon. `None` with too few canaries.
    pub cosines: Option<CosineEvidence>,
    /// What the federation claims against recipients of models.
    pub epsilon_upper: Epsilon,
    /// The delta of all of them.
    pub delta: Delta,
    /// Parameters of the model.
    pub dimension: usize,
    /// Rounds that were run.
    pub rounds: u64,
}

/// What the cosines of canaries with all that was released tell of epsilon, where those of others are normal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineEvidence {
    /// Where those of the canaries are normal, too. No bound.
    pub estimate: f64,
    /// Epsilon is above this with about confidence [`CONFIDENCE`].
    pub epsilon_lower: Epsilon,
}

impl AuditReport {
    /// Whether what was seen contradicts what is claimed.
    pub fn contradicts(&self) -> bool {
        self.epsilon_lower > self.epsilon_upper
    }
}

/// Why there is no audit.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The experiment claims nothing.
    #[error("privacy.mode = \"none\" claims nothing that could be audited")]
    NothingClaimed,
    /// Guesses that cannot be made.
    #[error(transparent)]
    Guesses(#[from] GuessError),
    /// The experiment is too large with its canaries.
    #[error("{clients} clients and {canaries} canaries are too many")]
    Population {
        /// Clients of the experiment.
        clients: u64,
        /// Canaries asked for.
        canaries: u32,
    },
    /// It was stopped before its last round.
    #[error("interrupted: an audit of some rounds says nothing of all")]
    Interrupted,
    /// The federation could not be run.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

/// The confidence of the lower bound.
pub const CONFIDENCE: f64 = 0.95;

/// Runs the experiment once with canaries (Steinke, Nasr and Jagielski, arXiv 2305.08846), and sets what its models give away beside
/// its claim. The claim is that of the run, canaries included: as a rule the one of the experiment, which does not depend on how many
/// clients there are; where clients add shares of the noise, it does a little.
///
/// # Errors
/// [`AuditError`]. Where the budget ends the run early, the claim is that of the rounds that were run.
pub fn audit(
    experiment: &Experiment,
    data: &Split,
    root: &Key,
    options: &AuditOptions,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<AuditReport, AuditError> {
    let seen = expose(experiment, data, root, options, interrupted, observer)?;
    let last = seen.report.rounds.last();
    let claim = last.and_then(|record| Some((Epsilon::new(record.epsilon_release?).ok()?, record.delta?)));
    let (epsilon_upper, delta) = claim.ok_or(AuditError::NothingClaimed)?;
    Ok(seen.compare(epsilon_upper, delta, options.guesses as usize)?)
}

/// What the attacker has, and the coins that tell whether it guesses rightly.
struct Exposed {
    report: SimulationReport,
    /// Of each canary: the sum of its releases along its direction, which has length 1.
    scores: Vec<f64>,
    /// The length of all that was released.
    length: f64,
    included: Vec<bool>,
}

impl Exposed {
    fn compare(
        &self,
        epsilon_upper: Epsilon,
        delta: Delta,
        guesses: usize,
    ) -> Result<AuditReport, GuessError> {
        let guesses = Guesses::of_scores(&self.scores, &self.included, guesses)?;
        let dimension = self.report.model.len();
        let scored = self.scores.iter().zip(&self.included).filter(|(_, included)| **included);
        let cosines: Vec<f64> = scored.map(|(score, _)| score / self.length).collect();
        Ok(AuditReport {
            epsilon_lower: guesses.epsilon_lower(delta, CONFIDENCE),
            cosines: Cosines::new(&cosines, dimension).map(|cosines| CosineEvidence {
                estimate: cosines.epsilon(delta),
                epsilon_lower: cosines.epsilon_lower(delta, CONFIDENCE),
            }),
            guesses,
            epsilon_upper,
            delta,
            dimension,
            rounds: self.report.rounds.len() as u64,
        })
    }
}

/// Runs the experiment with canaries. Where privacy is off nothing bounds a canary, so there is nothing to run.
fn expose(
    experiment: &Experiment,
    data: &Split,
    root: &Key,
    options: &AuditOptions,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Exposed, AuditError> {
    let audited = with_canaries(experiment, options.canaries)?;
    let initial = population::initial_model(experiment).map_err(SimulationError::from)?;
    let federation = federation(&audited, initial.clone(), root, &Place::Memory, false)?;
    if federation.delta().is_none() {
        return Err(AuditError::NothingClaimed);
    }
    let clients = Clients::new(experiment, &data.train).map_err(SimulationError::from)?;
    let canaries = Canaries::new(experiment, &clients, root, options.canaries)?;
    let mut test_set = TestSet::new(&experiment.task, data.test.clone()).map_err(SimulationError::from)?;
    let report = with_world(federation, root, &canaries, &options.simulation, interrupted, |world| {
        schedule::run(world, &mut test_set, None, observer)
    })?;
    if report.ended == Ended::Interrupted {
        return Err(AuditError::Interrupted);
    }
    // The sum of all releases is what lies between the first model and the last.
    let released: Vec<f64> = report
        .model
        .iter()
        .zip(&initial)
        .map(|(after, before)| f64::from(*after) - f64::from(*before))
        .collect();
    let scores = canaries.directions().map(|direction| direction.along(&released)).collect();
    let length = released.iter().map(|value| value * value).sum::<f64>().sqrt();
    Ok(Exposed { report, scores, length, included: canaries.included })
}

/// The experiment with so many clients more. A cohort of fixed size and the fewest updates stay the same part of them.
fn with_canaries(experiment: &Experiment, canaries: u32) -> Result<Experiment, AuditError> {
    let clients = experiment.population.clients;
    let too_many = || AuditError::Population { clients, canaries };
    let all = clients + u64::from(canaries);
    u32::try_from(all).map_err(|_| too_many())?;
    let mut audited = experiment.clone();
    audited.population.clients = all;
    let in_proportion = |part: u64| (u128::from(part) * u128::from(all) / u128::from(clients)) as u64;
    let fewest = in_proportion(u64::from(audited.rounds.min_updates));
    audited.rounds.min_updates = u32::try_from(fewest).map_err(|_| too_many())?;
    if let Sampling::Fixed { size, .. } = audited.rounds.sampling {
        audited.rounds.sampling = Sampling::fixed(in_proportion(size), all).map_err(|_| too_many())?;
    }
    Ok(audited)
}

/// The experiment's clients, and after them the canaries.
struct Canaries<'a> {
    task: &'a Task,
    clients: u64,
    participants: Participants<'a>,
    root: &'a Key,
    included: Vec<bool>,
    dimension: usize,
    /// Data that a canary does not look at.
    unused: Subset,
}

impl<'a> Canaries<'a> {
    fn new(
        experiment: &'a Experiment,
        clients: &'a Clients,
        root: &'a Key,
        canaries: u32,
    ) -> Result<Self, SimulationError> {
        let task = &experiment.task;
        let unused = clients.get(ClientId(0)).expect("a population has at least one client");
        let mut coins = root.derive(Purpose::Audit, 0, 0).stream();
        Ok(Canaries {
            task,
            clients: experiment.population.clients,
            participants: Participants::new(task, clients, root)?,
            root,
            included: (0..canaries).map(|_| coins.next_u64() & 1 == 1).collect(),
            dimension: population::segments(experiment).iter().map(|segment| segment.len as usize).sum(),
            unused,
        })
    }

    fn directions(&self) -> impl Iterator<Item = Direction> {
        (0..self.included.len()).map(|canary| self.direction(canary))
    }

    fn direction(&self, canary: usize) -> Direction {
        Direction { key: self.root.derive(Purpose::Audit, 0, canary as u64 + 1), dimension: self.dimension }
    }
}

impl Trainer for Canaries<'_> {
    fn examples(&self, client: ClientId) -> u64 {
        if client.0 < self.clients { self.participants.examples(client) } else { 1 }
    }

    fn train(&self, job: &Job) -> Result<Contribution, Decline> {
        let Some(canary) = job.client.0.checked_sub(self.clients) else {
            return self.participants.train(job);
        };
        let canary = canary as usize;
        let learner = Canary { direction: self.direction(canary), included: self.included[canary] };
        let keys = ClientKeys::from_root(&client_root(self.root, job.client.0));
        let mut participant =
            Participant::with_learner(job.client, Box::new(learner), self.unused.clone(), keys);
        participant.train(&job.plan, self.task, &job.base).map(|trained| trained.update)
    }
}

/// A random corner of a cube: nearly orthogonal to everything that does not depend on it.
struct Direction {
    key: Key,
    dimension: usize,
}

impl Direction {
    /// +1 or -1 for each coordinate.
    fn signs(&self) -> impl Iterator<Item = f32> {
        let mut stream = self.key.stream();
        let words = self.dimension.div_ceil(64);
        (0..words)
            .flat_map(move |_| {
                let word = stream.next_u64();
                (0..64).map(move |bit| if word >> bit & 1 == 1 { 1.0 } else { -1.0 })
            })
            .take(self.dimension)
    }

    /// The length of `vector` along this direction.
    fn along(&self, vector: &[f64]) -> f64 {
        let sum: f64 = self.signs().zip(vector).map(|(sign, value)| f64::from(sign) * value).sum();
        sum / (self.dimension as f64).sqrt()
    }
}

/// What a canary learns: its direction, longer than any clip norm, or nothing.
struct Canary {
    direction: Direction,
    included: bool,
}

impl Learner for Canary {
    fn parameter_count(&self) -> usize {
        self.direction.dimension
    }

    fn train(&mut self, _: &[f32], _: &Subset, _: &Training, _: Turn<'_>) -> Result<TrainReport, LearnError> {
        let length = if self.included { LONG } else { 0.0 };
        let update = self.direction.signs().map(|sign| sign * length).collect();
        Ok(TrainReport { update, examples: 1, steps: 1, loss: 0.0 })
    }

    fn evaluate(&mut self, _: &[f32], _: &Subset) -> Result<Evaluation, LearnError> {
        Err(LearnError::NoExamples)
    }
}

/// Of one coordinate of a canary's update before it is clipped.
const LONG: f32 = 1e6;

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use skep_privacy::quantities::NoiseMultiplier;
    use skep_protocol::experiment::Privacy;
    use skep_protocol::experiment::file::{Activation, ExperimentFile, ModelFile, PartitionFile};

    use super::*;
    use crate::testing::private_file;

    fn options(canaries: u32, guesses: u32) -> AuditOptions {
        AuditOptions { canaries, guesses, simulation: SimulationOptions::new(NonZeroUsize::new(2).unwrap()) }
    }

    /// Five clients and so many rounds with this noise.
    fn experiment(noise: f64, rounds: u64, model: ModelFile) -> Experiment {
        let mut file: ExperimentFile = private_file();
        file.population.clients = 5;
        file.population.partition = PartitionFile::Iid {};
        file.rounds.min_updates = 5;
        file.rounds.count = rounds;
        file.task.model = model;
        file.task.training.local_epochs = 1;
        file.privacy.noise_multiplier = Some(noise);
        file.privacy.epsilon_limit = Some(1e9);
        Experiment::try_from(&file).unwrap()
    }

    fn run(experiment: &Experiment, seed: u64, options: &AuditOptions) -> AuditReport {
        let data = population::data(experiment).unwrap();
        audit(experiment, &data, &Key::from_seed(seed), options, &AtomicBool::new(false), &mut ()).unwrap()
    }

    /// A claim of epsilon at most 3, and a server that does not add the noise which it stands on.
    #[test]
    fn t24_a_federation_without_its_noise_is_found_out() {
        let wide = || ModelFile::Mlp { hidden: vec![520], activation: Activation::Relu };
        let options = options(1000, 500);
        let honest = run(&experiment(4.0, 4, wide()), 1, &options);
        assert!(honest.dimension >= 39_000 && honest.epsilon_upper.get() <= 3.0, "{honest:?}");
        assert!(!honest.contradicts(), "{honest:?}");

        let mut silent = experiment(4.0, 4, wide());
        let Privacy::Central { terms, .. } = &mut silent.privacy else { panic!("central privacy") };
        terms.noise_multiplier = NoiseMultiplier::new(1e-3).unwrap();
        let data = population::data(&silent).unwrap();
        let exposed =
            expose(&silent, &data, &Key::from_seed(1), &options, &AtomicBool::new(false), &mut ()).unwrap();
        let found = exposed.compare(honest.epsilon_upper, honest.delta, 500).unwrap();
        assert!(found.epsilon_lower.get() > 3.0, "{found:?}");
        let cosines = found.cosines.unwrap();
        assert!(found.contradicts() && cosines.estimate > 3.0, "{found:?}");
        assert!(cosines.epsilon_lower.get() > 3.0, "{found:?}");
    }

    /// Honest noise contradicts its claim in at most one of 200 runs in twenty (it should in far fewer: the attack is not the worst
    /// case), and where the noise is small the attack sees something.
    #[test]
    fn t24_honest_noise_passes_in_two_hundred_runs() {
        let options = options(100, 50);
        let experiment = experiment(1.0, 2, ModelFile::Softmax {});
        let reports: Vec<_> = (0..200).map(|seed| run(&experiment, seed, &options)).collect();
        let passed = reports.iter().filter(|report| !report.contradicts()).count();
        assert!(passed >= 190, "{passed} of 200 pass");
        let below = |report: &AuditReport| report.cosines.unwrap().epsilon_lower <= report.epsilon_upper;
        let by_cosines = reports.iter().filter(|report| below(report)).count();
        assert!(by_cosines >= 190, "{by_cosines} of 200 pass by their cosines");
        let mean = reports.iter().map(|report| report.epsilon_lower.get()).sum::<f64>() / 200.0;
        assert!((0.5..reports[0].epsilon_upper.get()).contains(&mean), "{mean}");
        let included: usize = (0..200).map(|seed| coins(&experiment, seed)).sum();
        // Of 20,000 fair coins, six standard deviations.
        assert!(included.abs_diff(10_000) < 425, "{included}");
    }

    fn coins(experiment: &Experiment, seed: u64) -> usize {
        let data = population::data(experiment).unwrap();
        let shares = Clients::new(experiment, &data.train).unwrap();
        let root = Key::from_seed(seed);
        let canaries = Canaries::new(experiment, &shares, &root, 100).unwrap();
        canaries.included.iter().filter(|included| **included).count()
    }

    #[test]
    fn t24_large_noise_gives_nothing_away() {
        let report = run(&experiment(100.0, 2, ModelFile::Softmax {}), 1, &options(200, 100));
        assert!(report.epsilon_lower.get() < 0.5, "{report:?}");
        assert!(report.epsilon_upper.get() < 0.1, "{report:?}");
    }

    #[test]
    fn what_claims_nothing_is_not_audited() {
        let experiment = crate::testing::experiment();
        let data = population::data(&experiment).unwrap();
        let root = Key::from_seed(1);
        let error = audit(&experiment, &data, &root, &options(10, 4), &AtomicBool::new(false), &mut ());
        assert!(matches!(error, Err(AuditError::NothingClaimed)), "{error:?}");
    }

    #[test]
    fn a_cohort_of_fixed_size_stays_the_same_part_of_everyone() {
        let mut experiment = crate::testing::experiment();
        experiment.rounds.sampling = Sampling::fixed(5, 20).unwrap();
        let audited = with_canaries(&experiment, 80).unwrap();
        assert_eq!(audited.rounds.sampling, Sampling::fixed(25, 100).unwrap());
        assert!(with_canaries(&experiment, u32::MAX).is_err());
    }
}
