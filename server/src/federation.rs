//! The server's side of learning: cohort, budget, plan, sum, release and model of round after round.
//!
//! No sockets, clocks, files or threads: the server over TLS, the simulator and the tests drive the same federation.
//!
//! ```text
//! plan ──▶ commit ... commit ──▶ release ──▶ close(complete | degraded)     the released model is adopted
//!      ╰────────────────────────────────────▶ close(aborted)                  the model stays, the budget is spent
//! ```

mod encoding;
mod error;
mod keys;

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_privacy::adversary::Adversary;
use skep_privacy::budget::{BudgetKeeper, Reservation};
use skep_privacy::client_noise::Contribution;
use skep_privacy::grid::Grid;
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::{Delta, Epsilon, Sampling};
use skep_privacy::secagg::Session;
use skep_privacy::sum::Accumulator;
use skep_protocol::experiment::{Experiment, Weighting};
use skep_protocol::plan::{Closure, Plan, PlanSigner, Segment, VerifiedPlan};
use skep_protocol::round::Outcome;
use skep_protocol::{ClientId, Digest, Round};

use crate::masking::MaskedRound;
use crate::roster::Roster;
use crate::select;
use crate::stage::Stager;
use crate::strategy::FedAvg;

pub use encoding::{NoPromise, no_promise};
pub use error::{FederationError, PlanningError, RoundError};
pub use keys::ServerKeys;

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
    Collecting { reservation: Box<Reservation>, updates: Updates },
    Released { model: Vec<f32>, digest: Digest },
    Failed,
}

/// The updates of a round.
#[derive(Debug)]
enum Updates {
    /// Added up as they are.
    Seen(Accumulator),
    /// Added up under masks.
    Masked(Box<MaskedRound>),
}

/// A round that is reserved and signed; now its cohort may be invited.
#[derive(Clone, Debug)]
pub struct PlannedRound {
    /// The plan.
    pub plan: Arc<VerifiedPlan>,
    /// Who is invited. Secret.
    pub cohort: BTreeSet<ClientId>,
}

impl PlannedRound {
    /// Clients in the cohort.
    pub fn invited(&self) -> u32 {
        u32::try_from(self.cohort.len()).expect("validated: at most u32::MAX clients")
    }
}

/// What the open round has released and not yet adopted.
#[derive(Clone, Copy, Debug)]
pub struct Released<'a> {
    /// Updates in the sum.
    pub updates: u32,
    /// The next model.
    pub model: &'a [f32],
    /// Its digest.
    pub digest: Digest,
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
    /// Spent against the server, with as many of the clients as the mode takes for its own.
    pub epsilon_server: Result<Epsilon, NoPromise>,
    /// Spent against the server with everybody else.
    pub epsilon_alone: Result<Epsilon, NoPromise>,
    /// What `epsilon_release` would be with continuous noise in place of discrete shares: for comparison, not certified.
    pub epsilon_release_if_continuous: Option<Epsilon>,
    /// Likewise of `epsilon_server`.
    pub epsilon_server_if_continuous: Option<Epsilon>,
    /// The delta of all of them.
    pub delta: Option<Delta>,
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
        let dimension = initial_model.len() + weights(&experiment);
        let (grid, mechanism) = encoding::encoding(&experiment, dimension)?;
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

    /// Goes on after `round`, the last that was planned, from the model it left. Every round up to it is charged, as it was
    /// when it was planned.
    ///
    /// # Errors
    /// [`FederationError`]; the federation is then not to be used.
    pub fn resume(&mut self, round: Round, model: Vec<f32>) -> Result<(), FederationError> {
        check_model(
            &self.experiment,
            &self.segments[..self.segments.len() - weights(&self.experiment)],
            &model,
        )?;
        for charged in self.round.0 + 1..=round.0 {
            // A reservation that is dropped stays charged.
            let _ = self.budget.reserve(charged, self.mechanism, self.experiment.rounds.sampling)?;
        }
        self.round = round;
        self.model_digest = Digest::of_model(&model);
        self.model = Arc::new(model);
        Ok(())
    }

    /// Draws the cohort of the next round, charges the budget for it, and signs its plan.
    ///
    /// # Errors
    /// [`PlanningError`]; nobody may be invited. Only [`PlanningError::Randomness`] and [`PlanningError::Plan`] can leave
    /// a round charged that never runs.
    pub fn plan(&mut self, roster: &dyn Roster) -> Result<PlannedRound, PlanningError> {
        let round = self.next_round(roster)?;
        let cohort = select::cohort(self.experiment.rounds.sampling, roster, &self.keys.cohort(round)?);
        self.begin(round, cohort)
    }

    /// [`Federation::plan`] with a cohort that somebody else has chosen, as a benchmark does that fixes it. Nothing but
    /// a fixed sampling allows that: its cohort amplifies nothing, so it need not be secret.
    ///
    /// # Errors
    /// [`PlanningError`], as above, and [`PlanningError::PublicCohort`] where the cohort has to be secret.
    pub fn plan_public(
        &mut self,
        roster: &dyn Roster,
        cohort: BTreeSet<ClientId>,
    ) -> Result<PlannedRound, PlanningError> {
        match self.experiment.rounds.sampling {
            Sampling::Fixed { size, .. } if size == cohort.len() as u64 => {}
            _ => return Err(PlanningError::PublicCohort),
        }
        let round = self.next_round(roster)?;
        self.begin(round, cohort)
    }

    fn begin(&mut self, round: Round, cohort: BTreeSet<ClientId>) -> Result<PlannedRound, PlanningError> {
        let reservation = self.budget.reserve(round.0, self.mechanism, self.experiment.rounds.sampling)?;
        self.round = round;
        let plan = VerifiedPlan::sign(self.describe(&reservation), &reservation, &self.signer)?;
        let updates = Updates::Seen(Accumulator::new(self.grid));
        let stage = Stage::Collecting { reservation: Box::new(reservation), updates };
        let planned = PlannedRound { plan, cohort };
        self.open = Some(OpenRound { invited: planned.invited(), updates: 0, stage });
        Ok(planned)
    }

    /// What turns the bytes of an upload into an update; it may run anywhere.
    pub fn stager(&self) -> Stager {
        let masked = self.experiment.masking().is_some();
        Stager::new(self.grid, self.experiment.strategy.weighting(), masked)
    }

    /// Adds an update to the open round's sum.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] or [`RoundError::Sum`]; the sum has not changed.
    pub fn commit(&mut self, update: &Contribution) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        let Stage::Collecting { updates: Updates::Seen(sum), .. } = &mut open.stage else {
            return Err(RoundError::OutOfOrder);
        };
        sum.add(update)?;
        open.updates = sum.members();
        Ok(())
    }

    /// Collects the open round's updates under masks from now on, before there is any.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`].
    pub fn mask(&mut self, session: &Session) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        match &mut open.stage {
            Stage::Collecting { updates, .. } if open.updates == 0 => {
                *updates = Updates::Masked(Box::new(MaskedRound::new(session)));
                Ok(())
            }
            _ => Err(RoundError::OutOfOrder),
        }
    }

    /// The open round's part that passes messages on, while it collects updates under masks.
    pub fn masked(&mut self) -> Option<&mut MaskedRound> {
        match &mut self.open.as_mut()?.stage {
            Stage::Collecting { updates: Updates::Masked(masked), .. } => Some(masked),
            _ => None,
        }
    }

    /// Adds a client's masked update to the open round's sum.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] or [`RoundError::Rejected`]; the sum has not changed.
    pub fn commit_masked(&mut self, client: ClientId, packed: &[u8]) -> Result<(), RoundError> {
        let masked = self.masked().ok_or(RoundError::OutOfOrder)?;
        masked.commit(client, packed)?;
        let members = masked.members();
        self.open.as_mut().ok_or(RoundError::OutOfOrder)?.updates = members;
        Ok(())
    }

    /// Settles the reservation, opens the sum with the noise that was paid for, unless clients have added it, and computes
    /// the next model. It becomes the model when the round is closed.
    ///
    /// # Errors
    /// [`RoundError`]; the sum is lost, the budget stays charged, and the round can only be aborted.
    pub fn release(&mut self) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        let (reservation, updates) = match std::mem::replace(&mut open.stage, Stage::Failed) {
            Stage::Collecting { reservation, updates } => (reservation, updates),
            later => {
                open.stage = later;
                return Err(RoundError::OutOfOrder);
            }
        };
        let sum = match updates {
            Updates::Seen(sum) => sum.finish(),
            Updates::Masked(masked) => masked.unmask()?.into_sum(self.grid)?,
        };
        let charge = self.budget.settle(*reservation);
        let release = match charge.mechanism() {
            Mechanism::None => sum.release_exact(charge)?,
            Mechanism::RoundedGaussian { .. } => {
                sum.release(charge, &self.keys.noise(self.round)?, self.keys.generator())?
            }
            Mechanism::NoiseShares { .. } | Mechanism::LocalGaussian { .. } => sum.release_noised(charge)?,
        };
        let model = self.strategy.apply(&self.model, &release)?;
        let digest = Digest::of_model(&model);
        open.stage = Stage::Released { model, digest };
        Ok(())
    }

    /// What the open round has released; none before [`Federation::release`].
    pub fn released(&self) -> Option<Released<'_>> {
        match self.open.as_ref() {
            Some(OpenRound { updates, stage: Stage::Released { model, digest }, .. }) => {
                Some(Released { updates: *updates, model, digest: *digest })
            }
            _ => None,
        }
    }

    /// Ends the open round: adopts what was released, unless the round is aborted. Its budget stays charged.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] when no round is open, or nothing was released although the outcome says so.
    pub fn close(&mut self, outcome: Outcome) -> Result<RoundSummary, RoundError> {
        let open = self.open.take().ok_or(RoundError::OutOfOrder)?;
        match (outcome, open.stage) {
            (Outcome::Aborted(_), _) => {}
            (_, Stage::Released { model, digest }) => {
                self.model_digest = digest;
                self.model = Arc::new(model);
            }
            _ => return Err(RoundError::OutOfOrder),
        }
        Ok(self.summary(outcome, open.invited, open.updates))
    }

    /// The last round, as it ended.
    pub(crate) fn summary(&self, outcome: Outcome, invited: u32, updates: u32) -> RoundSummary {
        RoundSummary {
            round: self.round,
            outcome,
            invited,
            updates,
            model: self.model_digest,
            epsilon_release: self.epsilon(Adversary::Recipients),
            epsilon_server: self.epsilon(Adversary::Server),
            epsilon_alone: self.epsilon(Adversary::EveryoneElse),
            epsilon_release_if_continuous: self.epsilon_if_continuous(Adversary::Recipients),
            epsilon_server_if_continuous: self.epsilon_if_continuous(Adversary::Server),
            delta: self.delta(),
        }
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

    /// What all rounds so far cost against an adversary.
    ///
    /// # Errors
    /// [`NoPromise`] where the mode promises nothing against it.
    pub fn epsilon(&self, adversary: Adversary) -> Result<Epsilon, NoPromise> {
        match no_promise(&self.experiment.privacy, adversary) {
            Some(reason) => Err(reason),
            None => Ok(self.budget.charged().epsilon(adversary, self.budget.delta())),
        }
    }

    /// What that cost would be with continuous noise in place of discrete shares; `None` in modes without shares. For
    /// comparison: it is not certified.
    pub fn epsilon_if_continuous(&self, adversary: Adversary) -> Option<Epsilon> {
        self.budget.charged().epsilon_if_continuous(adversary, self.budget.delta())
    }

    /// The delta at which epsilon is stated.
    pub fn delta(&self) -> Option<Delta> {
        self.experiment.privacy.terms().map(|terms| terms.delta)
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
            promise: encoding::promise(&self.experiment, reservation.mechanism(), |adversary| {
                reservation.epsilon_after(adversary)
            }),
            sampling: rounds.sampling,
            population: self.experiment.population.clients,
            cohort_max: self.experiment.cohort_max(),
            weighting: self.experiment.strategy.weighting(),
            prg: self.keys.generator(),
            closure: Closure::AllAnswered,
            min_updates: rounds.min_updates,
            deadline: rounds.deadline,
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

fn budget(experiment: &Experiment) -> BudgetKeeper {
    match experiment.privacy.terms() {
        None => BudgetKeeper::without_promise(),
        Some(terms) => BudgetKeeper::new(terms.adjacency, terms.delta, Some(terms.epsilon_limit)),
    }
}

#[cfg(test)]
mod tests;
