//! The server's side of learning: cohort, budget, plan, sum, release and model of round after round.
//!
//! No sockets, clocks, files or threads: the server over TLS, the simulator and the tests drive the same federation.
//!
//! ```text
//! plan ──▶ commit ... commit ──▶ release ──▶ close(complete | degraded)     the released model is adopted
//!      ╰────────────────────────────────────▶ close(aborted)                  the model stays, the budget is spent
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_privacy::budget::{BudgetExhausted, BudgetKeeper, Reservation};
use skep_privacy::grid::{Grid, GridError, PrivateGrid, PublicGrid};
use skep_privacy::mechanism::{Mechanism, NoiseTooLarge};
use skep_privacy::prg::{Key, PrgError, PrgId, Purpose};
use skep_privacy::quantities::{Delta, Epsilon};
use skep_privacy::sum::{Accumulator, ReleaseError, SumError};
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::experiment::{Experiment, Privacy, Weighting};
use skep_protocol::plan::{Closure, Plan, PlanError, PlanSigner, Promise, Segment, VerifiedPlan};
use skep_protocol::round::Outcome;
use skep_protocol::{ClientId, Digest, Round};
use thiserror::Error;

use crate::roster::Roster;
use crate::select;
use crate::stage::Stager;
use crate::strategy::{FedAvg, StrategyError};

/// Where the server's secret draws come from: who is invited, and noise.
#[derive(Debug)]
pub struct ServerKeys(Source);

#[derive(Debug)]
enum Source {
    Root { cohort: Key, noise: Key },
    System,
}

impl ServerKeys {
    /// Keys that follow from a root. Whoever knows the root can subtract the noise.
    pub fn from_root(root: &Key) -> Self {
        let derived = |purpose| root.derive(purpose, 0, 0);
        ServerKeys(Source::Root { cohort: derived(Purpose::Cohort), noise: derived(Purpose::Noise) })
    }

    /// Fresh keys from the operating system for every round, so that a process restored from a snapshot never
    /// draws the same noise twice.
    pub fn from_os() -> Self {
        ServerKeys(Source::System)
    }

    fn cohort(&self, round: Round) -> Result<Key, PrgError> {
        match &self.0 {
            Source::Root { cohort, .. } => Ok(cohort.derive(Purpose::Cohort, round.0, 0)),
            Source::System => Key::from_os(),
        }
    }

    fn noise(&self, round: Round) -> Result<Key, PrgError> {
        match &self.0 {
            Source::Root { noise, .. } => Ok(noise.derive(Purpose::Noise, round.0, 0)),
            Source::System => Key::from_os(),
        }
    }
}

/// A federation between its first and its last round.
#[derive(Debug)]
pub struct Federation {
    experiment: Experiment,
    task: Digest,
    segments: Vec<Segment>,
    grid: Grid,
    mechanism: Mechanism,
    strategy: FedAvg,
    budget: BudgetKeeper,
    signer: Arc<PlanSigner>,
    keys: ServerKeys,
    model: Arc<Vec<f32>>,
    model_digest: Digest,
    round: Round,
    open: Option<OpenRound>,
}

/// What exists between a plan and the end of its round.
#[derive(Debug)]
struct OpenRound {
    invited: u32,
    updates: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Collecting { reservation: Reservation, sum: Accumulator },
    Released { model: Vec<f32> },
    Failed,
}

/// A round that is reserved and signed; now its cohort may be invited.
#[derive(Clone, Debug)]
pub struct PlannedRound {
    /// The plan.
    pub plan: Arc<VerifiedPlan>,
    /// Who is invited. Secret.
    pub cohort: BTreeSet<ClientId>,
}

/// A round that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundSummary {
    /// The round.
    pub round: Round,
    /// How it ended.
    pub outcome: Outcome,
    /// Clients in the cohort.
    pub invited: u32,
    /// Updates in the sum.
    pub updates: u32,
    /// The model after the round.
    pub model: Digest,
    /// Spent against recipients of models, this round included.
    pub epsilon_release: Result<Epsilon, NoPromise>,
    /// Spent against the server.
    pub epsilon_server: Result<Epsilon, NoPromise>,
    /// The delta of both.
    pub delta: Option<Delta>,
}

/// Why there is no epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoPromise {
    /// Mode `none`.
    #[error("privacy is off")]
    Off,
    /// Mode `central`, against the server.
    #[error("the server sees every update and adds the noise itself")]
    TrustedServer,
}

/// Why a federation cannot be set up.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FederationError {
    /// The task's model and the segments have different lengths.
    #[error("the segments have {segments} parameters, the task's model has {task}")]
    Segments {
        /// Sum over the segments.
        segments: u64,
        /// Of the task; 0 when it is too large.
        task: u64,
    },
    /// The initial model has another length than the segments.
    #[error("the initial model has {found} parameters, the segments have {expected}")]
    InitialModel {
        /// Sum over the segments.
        expected: u64,
        /// Parameters given.
        found: u64,
    },
    /// The initial model is not finite.
    #[error("parameter {index} of the initial model is not finite")]
    NonFinite {
        /// The first such parameter.
        index: usize,
    },
    /// There is no grid for this model and cohort.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// There is no sampler for this much noise.
    #[error(transparent)]
    Noise(#[from] NoiseTooLarge),
}

/// Why no round was planned.
#[derive(Debug, Error)]
pub enum PlanningError {
    /// All rounds of the schedule have been planned.
    #[error("all {rounds} rounds have been run")]
    Finished {
        /// How many.
        rounds: u64,
    },
    /// One more round would cost more than the budget allows; nobody is invited.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// The last round has not been closed.
    #[error("{0} is still open")]
    Busy(Round),
    /// The roster has another size than the experiment says. The sampling rate is over the public population.
    #[error("the roster has {found} clients, the experiment says {expected}")]
    Population {
        /// Of the experiment.
        expected: u64,
        /// Of the roster.
        found: u64,
    },
    /// No keys.
    #[error(transparent)]
    Randomness(#[from] PrgError),
    /// The plan contradicts its reservation.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Why a step of a round failed.
#[derive(Debug, Error)]
pub enum RoundError {
    /// No round is open, or it has gone past this step.
    #[error("no round is open for this")]
    OutOfOrder,
    /// The update was not added.
    #[error(transparent)]
    Sum(#[from] SumError),
    /// The sum was not opened.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// There is no next model.
    #[error(transparent)]
    Strategy(#[from] StrategyError),
    /// No key for the noise.
    #[error(transparent)]
    Randomness(#[from] PrgError),
}

impl Federation {
    /// A federation before its first round. `segments` are the model's; a weighted one adds the segment `weight`.
    ///
    /// # Errors
    /// [`FederationError`].
    pub fn new(
        experiment: Experiment,
        segments: Vec<Segment>,
        initial_model: Vec<f32>,
        signer: impl Into<Arc<PlanSigner>>,
        keys: ServerKeys,
    ) -> Result<Self, FederationError> {
        check_model(&experiment, &segments, &initial_model)?;
        let segments = with_weight(segments, experiment.strategy.weighting());
        let (grid, mechanism) = encoding(&experiment, initial_model.len() + weights(&experiment))?;
        Ok(Federation {
            task: experiment.task.digest(),
            segments,
            grid,
            mechanism,
            strategy: FedAvg::of(&experiment),
            budget: budget(&experiment),
            signer: signer.into(),
            keys,
            model_digest: Digest::of_model(&initial_model),
            model: Arc::new(initial_model),
            round: Round(0),
            open: None,
            experiment,
        })
    }

    /// Draws the cohort of the next round, charges the budget for it, and signs its plan.
    ///
    /// # Errors
    /// [`PlanningError`]; nobody may be invited. Only [`PlanningError::Randomness`] and [`PlanningError::Plan`] can leave
    /// a round charged that never runs.
    pub fn plan(&mut self, roster: &dyn Roster) -> Result<PlannedRound, PlanningError> {
        let round = self.next_round(roster)?;
        let cohort = select::cohort(self.experiment.rounds.sampling, roster, &self.keys.cohort(round)?);
        let reservation = self.budget.reserve(round.0, self.mechanism, self.experiment.rounds.sampling)?;
        self.round = round;
        let plan = VerifiedPlan::sign(self.describe(&reservation), &reservation, &self.signer)?;
        let stage = Stage::Collecting { reservation, sum: Accumulator::new(self.grid) };
        let invited = u32::try_from(cohort.len()).expect("validated: at most u32::MAX clients");
        self.open = Some(OpenRound { invited, updates: 0, stage });
        Ok(PlannedRound { plan, cohort })
    }

    /// What turns the bytes of an upload into an update; it may run anywhere.
    pub fn stager(&self) -> Stager {
        Stager::new(self.grid, self.experiment.strategy.weighting())
    }

    /// Adds an update to the open round's sum.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] or [`RoundError::Sum`]; the sum has not changed.
    pub fn commit(&mut self, update: &QuantizedUpdate) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        let Stage::Collecting { sum, .. } = &mut open.stage else { return Err(RoundError::OutOfOrder) };
        sum.add(update)?;
        open.updates = sum.members();
        Ok(())
    }

    /// Settles the reservation, opens the sum with the noise that was paid for, and computes the next model. It becomes
    /// the model when the round is closed.
    ///
    /// # Errors
    /// [`RoundError`]; the sum is lost, the budget stays charged, and the round can only be aborted.
    pub fn release(&mut self) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        let (reservation, sum) = match std::mem::replace(&mut open.stage, Stage::Failed) {
            Stage::Collecting { reservation, sum } => (reservation, sum),
            later => {
                open.stage = later;
                return Err(RoundError::OutOfOrder);
            }
        };
        let charge = self.budget.settle(reservation);
        let release = match charge.mechanism() {
            Mechanism::None => sum.finish().release_exact(charge)?,
            Mechanism::RoundedGaussian { .. } => {
                sum.finish().release(charge, &self.keys.noise(self.round)?)?
            }
        };
        let model = self.strategy.apply(&self.model, &release)?;
        open.stage = Stage::Released { model };
        Ok(())
    }

    /// Ends the open round: adopts what was released, unless the round is aborted. Its budget stays charged.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] when no round is open, or nothing was released although the outcome says so.
    pub fn close(&mut self, outcome: Outcome) -> Result<RoundSummary, RoundError> {
        let open = self.open.take().ok_or(RoundError::OutOfOrder)?;
        match (outcome, open.stage) {
            (Outcome::Aborted(_), _) => {}
            (_, Stage::Released { model }) => {
                self.model_digest = Digest::of_model(&model);
                self.model = Arc::new(model);
            }
            _ => return Err(RoundError::OutOfOrder),
        }
        Ok(RoundSummary {
            round: self.round,
            outcome,
            invited: open.invited,
            updates: open.updates,
            model: self.model_digest,
            epsilon_release: self.epsilon_release(),
            epsilon_server: self.epsilon_server(),
            delta: self.delta(),
        })
    }

    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The last round that was planned; 0 before the first.
    pub fn round(&self) -> Round {
        self.round
    }

    /// The model: what the next round starts from.
    pub fn model(&self) -> Arc<Vec<f32>> {
        Arc::clone(&self.model)
    }

    /// Its digest.
    pub fn model_digest(&self) -> Digest {
        self.model_digest
    }

    /// The grid of all rounds.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The noise of every round.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// What has been charged, and what may be.
    pub fn budget(&self) -> &BudgetKeeper {
        &self.budget
    }

    /// What all rounds so far cost against those who receive models.
    ///
    /// # Errors
    /// [`NoPromise::Off`].
    pub fn epsilon_release(&self) -> Result<Epsilon, NoPromise> {
        match self.experiment.privacy {
            Privacy::None => Err(NoPromise::Off),
            Privacy::Central(_) => Ok(self.budget.epsilon()),
        }
    }

    /// What all rounds so far cost against the server.
    ///
    /// # Errors
    /// [`NoPromise`]: no mode of this version hides updates from the server.
    pub fn epsilon_server(&self) -> Result<Epsilon, NoPromise> {
        match self.experiment.privacy {
            Privacy::None => Err(NoPromise::Off),
            Privacy::Central(_) => Err(NoPromise::TrustedServer),
        }
    }

    /// The delta at which epsilon is stated.
    pub fn delta(&self) -> Option<Delta> {
        match &self.experiment.privacy {
            Privacy::None => None,
            Privacy::Central(central) => Some(central.delta),
        }
    }

    fn next_round(&self, roster: &dyn Roster) -> Result<Round, PlanningError> {
        if self.open.is_some() {
            return Err(PlanningError::Busy(self.round));
        }
        let rounds = self.experiment.rounds.count;
        if self.round.0 >= rounds {
            return Err(PlanningError::Finished { rounds });
        }
        let (expected, found) = (self.experiment.population.clients, roster.population());
        if expected != found {
            return Err(PlanningError::Population { expected, found });
        }
        Ok(Round(self.round.0 + 1))
    }

    fn describe(&self, reservation: &Reservation) -> Plan {
        let rounds = &self.experiment.rounds;
        Plan {
            task: self.task,
            round: self.round,
            rounds: rounds.count,
            base_model: self.model_digest,
            segments: self.segments.clone(),
            encoding: self.grid.encoding(),
            promise: self.promise(reservation),
            sampling: rounds.sampling,
            population: self.experiment.population.clients,
            cohort_max: self.experiment.cohort_max(),
            weighting: self.experiment.strategy.weighting(),
            prg: PrgId::ChaCha20,
            closure: Closure::AllAnswered,
            min_updates: rounds.min_updates,
            deadline: rounds.deadline,
        }
    }

    fn promise(&self, reservation: &Reservation) -> Promise {
        match (&self.experiment.privacy, reservation.mechanism()) {
            (Privacy::Central(central), Mechanism::RoundedGaussian { sigma, .. }) => Promise::Central {
                clip_norm: central.clip_norm,
                sigma,
                unit: central.unit,
                adjacency: central.adjacency,
                epsilon_release: reservation.epsilon_after(),
                delta: central.delta,
            },
            _ => Promise::None,
        }
    }
}

fn check_model(experiment: &Experiment, segments: &[Segment], model: &[f32]) -> Result<(), FederationError> {
    let expected = segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.len));
    let task = experiment.task.parameter_count().unwrap_or(0);
    if expected != task {
        return Err(FederationError::Segments { segments: expected, task });
    }
    if model.len() as u64 != expected {
        return Err(FederationError::InitialModel { expected, found: model.len() as u64 });
    }
    match model.iter().position(|parameter| !parameter.is_finite()) {
        Some(index) => Err(FederationError::NonFinite { index }),
        None => Ok(()),
    }
}

fn with_weight(mut segments: Vec<Segment>, weighting: Weighting) -> Vec<Segment> {
    if let Weighting::Examples { .. } = weighting {
        segments.push(Segment { name: "weight".into(), len: 1 });
    }
    segments
}

fn weights(experiment: &Experiment) -> usize {
    match experiment.strategy.weighting() {
        Weighting::Uniform => 0,
        Weighting::Examples { .. } => 1,
    }
}

fn encoding(experiment: &Experiment, dimension: usize) -> Result<(Grid, Mechanism), FederationError> {
    let cohort_max = experiment.cohort_max();
    match &experiment.privacy {
        Privacy::None => Ok((PublicGrid::new(dimension, cohort_max)?.into(), Mechanism::None)),
        Privacy::Central(central) => {
            let grid = PrivateGrid::new(central.clip_norm, dimension, cohort_max)?;
            let mechanism = Mechanism::rounded_gaussian(central.noise_multiplier, &grid)?;
            Ok((grid.into(), mechanism))
        }
    }
}

fn budget(experiment: &Experiment) -> BudgetKeeper {
    match &experiment.privacy {
        Privacy::None => BudgetKeeper::without_promise(),
        Privacy::Central(central) => {
            BudgetKeeper::new(central.adjacency, central.delta, Some(central.epsilon_limit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Contiguous;
    use crate::testing::{
        PARAMETERS, federation, private_file, public_file, public_upload, seeded, segments, zero_upload,
    };
    use skep_protocol::experiment::file::{ExperimentFile, SamplingFile, StrategyFile, WeightingFile};
    use skep_protocol::round::AbortReason;

    const COMPLETE: Outcome = Outcome::Complete { updates: 1 };
    const STOPPED: Outcome = Outcome::Aborted(AbortReason::Stopped);

    fn round(federation: &mut Federation, uploads: &[Vec<u8>]) -> RoundSummary {
        federation.plan(&Contiguous(4)).unwrap();
        for upload in uploads {
            let update = federation.stager().stage(upload).unwrap();
            federation.commit(&update).unwrap();
        }
        federation.release().unwrap();
        federation.close(COMPLETE).unwrap()
    }

    fn weighted(max: u32) -> ExperimentFile {
        let strategy = StrategyFile::Fedavg {
            weighting: WeightingFile::Examples,
            max_examples: Some(max),
            server_learning_rate: 1.0,
        };
        ExperimentFile { strategy, ..public_file() }
    }

    #[test]
    fn without_privacy_the_next_model_is_the_model_plus_the_mean_update() {
        let mut federation = federation(&public_file(), seeded(1));
        let uploads = [0.25, -0.5, 1.0].map(|value| public_upload(&federation, value, None));
        let summary = round(&mut federation, &uploads);
        assert_eq!(*federation.model(), vec![0.75; PARAMETERS]);
        assert_eq!(summary.model, Digest::of_model(&federation.model()));
        assert_eq!((summary.round, summary.invited, summary.updates), (Round(1), 4, 3));
        assert_eq!(summary.epsilon_release, Err(NoPromise::Off));
        assert_eq!(summary.delta, None);
    }

    #[test]
    fn weighted_by_examples_the_mean_is_that_of_all_examples() {
        let mut federation = federation(&weighted(8), seeded(1));
        // Two examples with change 1, six with change -1/3, as clients send them: n/8 times the change, and n/8.
        let uploads = [(0.25, 0.25), (-0.25, 0.75)];
        let uploads = uploads.map(|(value, weight)| public_upload(&federation, value, Some(weight)));
        round(&mut federation, &uploads);
        assert_eq!(*federation.model(), vec![0.5; PARAMETERS]);
        let uploads = [public_upload(&federation, 0.125, Some(0.25))];
        round(&mut federation, &uploads);
        assert_eq!(*federation.model(), vec![1.0; PARAMETERS]);
    }

    #[test]
    fn a_private_release_of_nothing_is_noise_over_the_expected_cohort() {
        let mut federation = federation(&private_file(), seeded(1));
        let upload = zero_upload(&federation);
        round(&mut federation, &[upload]);
        // sigma = z * C / cohort = 2 * 1 / 4; the sum of 650 squares is chi-square, alpha = 1e-6 two-sided (4.89 s.d.).
        let squares: f64 = federation.model().iter().map(|p| (f64::from(*p) - 0.5).powi(2)).sum();
        let statistic = squares / 0.25;
        assert!((statistic - 650.0).abs() < 4.89 * 1300f64.sqrt(), "{statistic}");
    }

    #[test]
    fn the_same_root_gives_the_same_noise_and_another_round_another() {
        let released = |keys| {
            let mut federation = federation(&private_file(), keys);
            let upload = zero_upload(&federation);
            let first = round(&mut federation, std::slice::from_ref(&upload)).model;
            (first, round(&mut federation, &[upload]).model)
        };
        assert_eq!(released(seeded(1)), released(seeded(1)));
        assert_ne!(released(seeded(1)).0, released(seeded(2)).0);
        assert_ne!(released(ServerKeys::from_os()).0, released(ServerKeys::from_os()).0);
        let mut federation = federation(&private_file(), seeded(1));
        let upload = zero_upload(&federation);
        round(&mut federation, std::slice::from_ref(&upload));
        let first = federation.model();
        round(&mut federation, &[upload]);
        let same = first.iter().zip(&*federation.model()).filter(|(a, b)| *b - *a == *a - 0.5).count();
        assert!(same < 3, "{same} coordinates have the noise of the round before");
    }

    #[test]
    fn clients_find_nothing_wrong_with_a_plan() {
        for file in [private_file(), public_file(), weighted(8)] {
            let mut federation = federation(&file, seeded(1));
            let planned = federation.plan(&Contiguous(4)).unwrap();
            let task = &federation.experiment().task;
            assert_eq!(planned.plan.plan().check(task, &task.digest()), Ok(()));
            assert_eq!(planned.plan.plan().base_model, federation.model_digest());
            let received =
                planned.plan.signed().clone().verify(&PlanSigner::from_seed(&[1; 32]).key()).unwrap();
            assert_eq!(received.plan(), planned.plan.plan());
        }
    }

    #[test]
    fn over_the_limit_no_plan_is_signed() {
        let mut file = private_file();
        file.privacy.epsilon_limit = Some(2.5);
        let mut federation = federation(&file, seeded(1));
        let upload = zero_upload(&federation);
        round(&mut federation, &[upload]);
        let spent = federation.epsilon_release().unwrap();
        assert!(spent.get() < 2.5);
        assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Budget(_))));
        assert_eq!((federation.round(), federation.epsilon_release().unwrap()), (Round(1), spent));
    }

    #[test]
    fn an_aborted_round_keeps_the_model_and_costs_its_budget() {
        let mut federation = federation(&private_file(), seeded(1));
        let before = federation.model_digest();
        federation.plan(&Contiguous(4)).unwrap();
        federation.release().unwrap();
        let summary = federation.close(STOPPED).unwrap();
        assert_eq!((summary.model, federation.model_digest()), (before, before));
        assert!(summary.epsilon_release.unwrap().get() > 0.0);
        let next = federation.plan(&Contiguous(4)).unwrap();
        assert_eq!(next.plan.plan().round, Round(2));
    }

    #[test]
    fn steps_out_of_order_are_refused() {
        let mut federation = federation(&public_file(), seeded(1));
        let update = federation.stager().stage(&zero_upload(&federation)).unwrap();
        assert!(matches!(federation.commit(&update), Err(RoundError::OutOfOrder)));
        assert!(matches!(federation.release(), Err(RoundError::OutOfOrder)));
        assert!(matches!(federation.close(STOPPED), Err(RoundError::OutOfOrder)));
        federation.plan(&Contiguous(4)).unwrap();
        assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Busy(Round(1)))));
        federation.commit(&update).unwrap();
        federation.release().unwrap();
        assert!(matches!(federation.commit(&update), Err(RoundError::OutOfOrder)));
        assert!(matches!(federation.release(), Err(RoundError::OutOfOrder)));
        federation.close(COMPLETE).unwrap();
        federation.plan(&Contiguous(4)).unwrap();
        assert!(matches!(federation.close(COMPLETE), Err(RoundError::OutOfOrder)));
    }

    #[test]
    fn the_schedule_ends_and_another_population_is_refused() {
        let mut federation = federation(&public_file(), seeded(1));
        assert!(matches!(
            federation.plan(&Contiguous(5)),
            Err(PlanningError::Population { expected: 4, found: 5 })
        ));
        for _ in 0..3 {
            federation.plan(&Contiguous(4)).unwrap();
            federation.close(STOPPED).unwrap();
        }
        assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Finished { rounds: 3 })));
    }

    #[test]
    fn a_cohort_is_drawn_as_the_plan_says() {
        let mut file = public_file();
        file.rounds.sampling = SamplingFile::Fixed { size: 2 };
        let mut federation = federation(&file, seeded(1));
        let planned = federation.plan(&Contiguous(4)).unwrap();
        assert_eq!((planned.cohort.len(), planned.plan.plan().cohort_max), (2, 2));
    }

    #[test]
    fn a_model_that_does_not_fit_its_task_is_refused() {
        let new = |segments: Vec<Segment>, model: Vec<f32>| {
            let experiment = Experiment::try_from(&public_file()).unwrap();
            Federation::new(experiment, segments, model, PlanSigner::from_seed(&[1; 32]), seeded(1))
                .map(|_| ())
        };
        let shorter = segments()[..1].to_vec();
        assert_eq!(new(shorter, vec![0.0; 640]), Err(FederationError::Segments { segments: 640, task: 650 }));
        assert_eq!(
            new(segments(), vec![0.0; 651]),
            Err(FederationError::InitialModel { expected: 650, found: 651 })
        );
        let mut model = vec![0.0; 650];
        model[7] = f32::NAN;
        assert_eq!(new(segments(), model), Err(FederationError::NonFinite { index: 7 }));
    }
}
