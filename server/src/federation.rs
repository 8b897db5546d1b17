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
mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_privacy::adversary::Adversary;
use skep_privacy::budget::Reservation;
use skep_privacy::client_noise::Contribution;
use skep_privacy::grid::Grid;
use skep_privacy::individual::KeptUpdates;
use skep_privacy::ledger::{
    Abort, Budget, ExampleTerms, Hash, Ledger, LedgerError, Occasion, PlannedQuery, Request, RoundTerms,
    Schedule, Settle, Terms, commitment,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::{Key, PrgError};
use skep_privacy::quantities::{Delta, Epsilon, Sampling};
use skep_privacy::sum::{Accumulator, Release, Sum};
use skep_protocol::experiment::{Asked, Experiment, Privacy, Weighting};
use skep_protocol::masked::Groups;
use skep_protocol::plan::{Closure, Plan, Segment, VerifiedPlan};
use skep_protocol::round::{AbortReason, Outcome, Phase};
use skep_protocol::{ClientId, Digest, Hasher, Round};

use crate::masking::{Asking, MaskedRound, Unmasked};
use crate::record::ClientAnswers;
use crate::roster::Roster;
use crate::select;
use crate::stage::Stager;
use crate::strategy::{Next, ServerState, ServerStrategy};

pub use encoding::{NoPromise, no_promise};
pub use error::{FederationError, PlanningError, RoundError};
pub use keys::ServerKeys;
pub use query::{Query, Question};

/// A federation between its first and its last round.
#[derive(Debug)]
pub struct Federation {
    experiment: Experiment,
    task: Digest,
    segments: Vec<Segment>,
    grid: Grid,
    mechanism: Mechanism,
    strategy: ServerStrategy,
    ledger: Ledger,
    keys: ServerKeys,
    model: Arc<Vec<f32>>,
    model_digest: Digest,
    state: ServerState,
    round: Round,
    /// Whether clients are to be asked about the model before the next round.
    asks: bool,
    open: Option<OpenRound>,
}

/// What exists between a plan and the end of its round.
#[derive(Debug)]
struct OpenRound {
    round: Round,
    grid: Grid,
    /// The record of the ledger that charged it.
    record: u64,
    plan: Digest,
    invited: u32,
    updates: u32,
    /// Of whose group the sum could not be unmasked.
    lost: Vec<ClientId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Collecting { reservation: Box<Reservation>, updates: Updates, noise: Option<Key> },
    Released { next: Next, digest: Digest, aggregate: Digest, seal: Option<Vec<u8>> },
    Answered { answers: Option<ClientAnswers>, aggregate: Digest, seal: Option<Vec<u8>> },
    Failed,
}

/// The updates of a round.
#[derive(Debug)]
enum Updates {
    /// Added up as they are, by group; without groups there is one.
    Seen(BTreeMap<usize, Accumulator>),
    /// Kept one by one.
    Kept(KeptUpdates),
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

/// What a round has released.
#[derive(Clone, Copy, Debug)]
pub struct Released<'a> {
    /// The next model.
    pub model: &'a [f32],
    /// What the strategy remembers of it.
    pub state: &'a ServerState,
    /// Its digest.
    pub digest: Digest,
    /// What the ledger needs besides, if another process must write it down.
    pub ledger: Interrupted,
}

/// What a round had done when its server was stopped, after its release and before the ledger had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Updates in the sum.
    pub updates: u32,
    /// The digest of the plan.
    pub plan: Digest,
    /// The digest of the released integers.
    pub aggregate: Digest,
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
    /// What clients said in a query, unless noise drowns it.
    pub answers: Option<ClientAnswers>,
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
    /// A federation before its first round. `segments` are the model's; a weighted one adds the segment `weight`. Rounds are
    /// charged to `ledger`, whatever it was charged before.
    ///
    /// # Errors
    /// [`FederationError`].
    pub fn new(
        experiment: Experiment,
        segments: Vec<Segment>,
        initial_model: Vec<f32>,
        ledger: Ledger,
        keys: ServerKeys,
    ) -> Result<Self, FederationError> {
        check_model(&experiment, &segments, &initial_model)?;
        check_ledger(&experiment, &ledger)?;
        let segments = with_weight(segments, experiment.strategy.weighting());
        let dimension = initial_model.len() + weights(&experiment, initial_model.len());
        let (grid, mechanism) = encoding::encoding(&experiment, dimension)?;
        Ok(Federation {
            task: experiment.task.digest(),
            segments,
            grid,
            mechanism,
            strategy: ServerStrategy::of(&experiment),
            ledger,
            keys,
            model_digest: Digest::of_model(&initial_model),
            model: Arc::new(initial_model),
            state: ServerState::default(),
            round: Round(0),
            asks: false,
            open: None,
            experiment,
        })
    }

    /// Goes on after `round`, the last that was planned, from the model and the state it left. The ledger knows already what it
    /// was charged.
    ///
    /// # Errors
    /// [`FederationError`]; the federation is then not to be used.
    pub fn resume(
        &mut self,
        round: Round,
        model: Vec<f32>,
        state: ServerState,
    ) -> Result<(), FederationError> {
        check_model(
            &self.experiment,
            &self.segments[..self.segments.len() - beside(self.experiment.strategy.weighting()).len()],
            &model,
        )?;
        if !state.fits(model.len()) {
            return Err(FederationError::OtherState { parameters: model.len() });
        }
        self.round = round.training();
        self.asks = false;
        self.model_digest = Digest::of_model(&model);
        self.model = Arc::new(model);
        self.state = state;
        Ok(())
    }

    /// Writes into the ledger how the round, or the query after it, ended in which an earlier process was stopped: with this release
    /// of the resumed model, or without one. Nothing is written where the ledger says so already.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn end_interrupted(
        &mut self,
        round: Round,
        released: Option<&Interrupted>,
    ) -> Result<(), LedgerError> {
        let occasion = if round.is_query() { Occasion::Evaluation } else { Occasion::Round };
        let Some(reserve) = self.ledger.state().open_for(occasion, self.round.0) else { return Ok(()) };
        match released {
            Some(&Interrupted { updates, plan, aggregate }) => self.ledger.settle(
                Settle {
                    reserve,
                    plan: Hash(plan.0),
                    aggregate: Hash(aggregate.0),
                    model_out: if round.is_query() { Hash::ZERO } else { Hash(self.model_digest.0) },
                    updates: Some(updates),
                    sealed: Vec::new(),
                },
                None,
            ),
            None => {
                let reason = "the server was interrupted".to_owned();
                self.ledger.abort(Abort { reserve, reason, refunded: false })
            }
        }
    }

    /// Draws the cohort of the next round, charges it in the ledger, and signs its plan. The charge is where the ledger keeps
    /// it before this returns.
    ///
    /// # Errors
    /// [`PlanningError`]; nobody may be invited. Only [`PlanningError::Ledger`] can leave a round charged that never runs.
    pub fn plan(&mut self, roster: &dyn Roster) -> Result<PlannedRound, PlanningError> {
        let round = self.next_round(roster)?;
        let (sampling, key) = (self.experiment.rounds.sampling, self.keys.cohort(round)?);
        let cohort = if self.ledger.limits_participation() {
            select::limited_cohort(sampling, roster, &key, |client| self.ledger.may_invite(client.0))
                .map_err(|left| PlanningError::TooFewMayTakePart {
                    left,
                    wanted: self.experiment.cohort_max().into(),
                })?
        } else {
            select::cohort(sampling, roster, &key)
        };
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

    /// Whether the schedule has clients asked about the model that the last round has released, before the next one. A process that goes on
    /// where another was stopped does not ask what that one would have asked.
    pub fn asks(&self) -> bool {
        self.asks
    }

    fn is_asked(&self) -> bool {
        let rounds = self.experiment.rounds.count;
        self.experiment.task.asked.is_some_and(|asked| asked.query.is_due(self.round.0, rounds))
    }

    /// [`Federation::plan`] for the query after the last round, in which clients say how good its model is: a round in everything, but
    /// that its updates are answers, and that its release is no model. It is asked once; none where the budget does not allow it, and none
    /// where the schedule of the ledger has no more of it: each of several runs has one after its own last round, and the ledger one
    /// after so many rounds of all of them.
    ///
    /// # Errors
    /// [`PlanningError`]; nobody may be asked, and nobody is later.
    pub fn plan_query(&mut self, roster: &dyn Roster) -> Result<Option<PlannedRound>, PlanningError> {
        self.check_idle(roster)?;
        self.asks = false;
        let Some((question, _)) = Question::of(&self.experiment) else { return Ok(None) };
        let (round, asking) = (self.round.query(), encoding::asking(&self.experiment, &question));
        let (grid, mechanism) = encoding::of_answers(&self.experiment, &question)?;
        let mode = self.experiment.privacy.trust_mode();
        let asked = RoundTerms { mode, mechanism, sampling: question.sampling };
        if self.ledger.state().account().is_one_too_many(question.occasion, &asked) {
            tracing::warn!(%round, "clients are not asked about the model: the ledger's schedule has no query here");
            return Ok(None);
        }
        let cohort = select::cohort(question.sampling, roster, &self.keys.cohort(round)?);
        let segments = Asked::NAMES.iter().map(|name| Segment { name: (*name).into(), len: 1 }).collect();
        let terms = Collected { round, grid, mechanism, segments, base_model: self.model_digest, asking };
        match self.begin_collecting(terms, cohort) {
            Err(PlanningError::Budget(exhausted)) => {
                tracing::warn!(%round, %exhausted, "clients are not asked about the model");
                Ok(None)
            }
            planned => planned.map(Some),
        }
    }

    fn begin(&mut self, round: Round, cohort: BTreeSet<ClientId>) -> Result<PlannedRound, PlanningError> {
        self.asks = false;
        let terms = Collected {
            round,
            grid: self.grid,
            mechanism: self.mechanism,
            segments: self.segments.clone(),
            base_model: self.base_digest(),
            asking: self.experiment.clone(),
        };
        self.begin_collecting(terms, cohort)
    }

    fn begin_collecting(
        &mut self,
        terms: Collected,
        cohort: BTreeSet<ClientId>,
    ) -> Result<PlannedRound, PlanningError> {
        let (round, grid) = (terms.round, terms.grid);
        let noise = self.early_noise(&terms)?;
        let reserved = self
            .ledger
            .reserve(&self.request(&terms, noise.as_ref()), cohort.iter().map(|client| client.0))?;
        self.round = round.training();
        let plan = match VerifiedPlan::sign(
            self.describe(terms, &reserved.reservation, &cohort),
            &reserved.reservation,
            self.ledger.signer(),
        ) {
            Ok(plan) => plan.beside(self.ledger.checkpoint(), self.ledger.signer()),
            Err(error) => {
                let reason = error.to_string();
                self.ledger.abort(Abort { reserve: reserved.record, reason, refunded: true })?;
                return Err(error.into());
            }
        };
        let updates = match self.strategy.needs_each() && !round.is_query() {
            true => Updates::Kept(KeptUpdates::new(grid)),
            false => Updates::Seen([(0, Accumulator::new(grid))].into()),
        };
        let stage = Stage::Collecting { reservation: Box::new(reserved.reservation), updates, noise };
        let planned = PlannedRound { plan, cohort };
        self.open = Some(OpenRound {
            round,
            grid,
            record: reserved.record,
            plan: planned.plan.digest(),
            invited: planned.invited(),
            updates: 0,
            lost: Vec::new(),
            stage,
        });
        Ok(planned)
    }

    /// What turns the bytes of an upload in the open round into an update; it may run anywhere.
    pub fn stager(&self) -> Stager {
        let masked = self.experiment.masking().is_some();
        match &self.open {
            Some(open) if open.round.is_query() => Stager::new(open.grid, Weighting::Uniform, masked),
            _ => Stager::new(self.grid, self.experiment.strategy.weighting(), masked),
        }
    }

    /// Adds an update to the open round's sum.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] or [`RoundError::Sum`]; the sum has not changed.
    pub fn commit(&mut self, update: &Contribution) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        if let Stage::Collecting { updates: Updates::Kept(kept), .. } = &mut open.stage {
            kept.add(update)?;
            open.updates = kept.members();
            return Ok(());
        }
        self.commit_to(0, update)
    }

    /// [`Federation::commit`] to the sum of the group of this number: what unmasking gives, for a driver that computes no masks.
    ///
    /// # Errors
    /// As [`Federation::commit`].
    pub fn commit_to(&mut self, group: usize, update: &Contribution) -> Result<(), RoundError> {
        let (grid, sums, open) = self.seen()?;
        sums.entry(group).or_insert_with(|| Accumulator::new(grid)).add(update)?;
        *open = sums.values().map(Accumulator::members).sum();
        Ok(())
    }

    /// Whether the updates of the open round, of training, are added up as they come, and nothing else is done with them.
    pub fn adds_up(&self) -> bool {
        let Some(OpenRound { round, stage, .. }) = &self.open else { return false };
        !round.is_query() && matches!(stage, Stage::Collecting { updates: Updates::Seen(_), .. })
    }

    /// Adds updates to the open round's sum that somebody has added up.
    ///
    /// # Errors
    /// As [`Federation::commit`].
    pub fn commit_sum(&mut self, sum: Accumulator) -> Result<(), RoundError> {
        let (grid, sums, open) = self.seen()?;
        sums.entry(0).or_insert_with(|| Accumulator::new(grid)).merge(sum)?;
        *open = sums.values().map(Accumulator::members).sum();
        Ok(())
    }

    /// Drops the sum of a group that [`Federation::commit_to`] has made.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`].
    pub fn lose(&mut self, group: usize) -> Result<(), RoundError> {
        let (_, sums, open) = self.seen()?;
        sums.remove(&group);
        *open = sums.values().map(Accumulator::members).sum();
        Ok(())
    }

    fn seen(&mut self) -> Result<(Grid, &mut BTreeMap<usize, Accumulator>, &mut u32), RoundError> {
        match self.open.as_mut() {
            Some(OpenRound {
                stage: Stage::Collecting { updates: Updates::Seen(sums), .. },
                updates,
                grid,
                ..
            }) => Ok((*grid, sums, updates)),
            _ => Err(RoundError::OutOfOrder),
        }
    }

    /// Collects the open round's updates under masks from now on, before there is any.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`].
    pub fn mask(&mut self, groups: &Groups) -> Result<(), RoundError> {
        let fewest = self.experiment.masking().ok_or(RoundError::OutOfOrder)?.group_min_updates;
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        match &mut open.stage {
            Stage::Collecting { updates, .. } if open.updates == 0 => {
                *updates = Updates::Masked(Box::new(MaskedRound::new(groups, fewest)));
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

    /// What clients of the open round are asked in a phase, see [`MaskedRound::ask`]. The updates of groups that are lost no longer
    /// count.
    ///
    /// # Errors
    /// [`AbortReason`].
    pub fn ask(&mut self, phase: Phase, to: &[ClientId]) -> Result<Asking, AbortReason> {
        let masked = self.masked().ok_or(AbortReason::ReleaseFailed)?;
        let asking = masked.ask(phase, to)?;
        let members = masked.members();
        if let Some(open) = &mut self.open {
            open.updates = members;
        }
        Ok(asking)
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
    /// the next model, or of a query what was said. It becomes the model when the round is closed.
    ///
    /// # Errors
    /// [`RoundError`]; the sum is lost, the budget stays charged, and the round can only be aborted.
    pub fn release(&mut self) -> Result<(), RoundError> {
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        let (reservation, updates, noise) = match std::mem::replace(&mut open.stage, Stage::Failed) {
            Stage::Collecting { reservation, updates, noise } => (reservation, updates, noise),
            later => {
                open.stage = later;
                return Err(RoundError::OutOfOrder);
            }
        };
        let sums: Vec<Sum> = match updates {
            Updates::Kept(kept) => {
                let released = kept.release(self.ledger.charge(*reservation))?;
                let aggregate = self.strategy.of_each(&released, &self.state)?;
                let digest = digest_of_each(&aggregate);
                return self.release_next(aggregate, digest, None);
            }
            Updates::Seen(sums) => sums.into_values().map(Accumulator::finish).collect(),
            Updates::Masked(masked) => {
                let Unmasked { sums, lost } = masked.unmask()?;
                open.lost = lost.concat();
                sums.into_iter().map(|sum| sum.into_sum(open.grid)).collect::<Result<_, _>>()?
            }
        };
        open.updates = sums.iter().map(Sum::members).sum();
        let required = self.experiment.rounds.min_updates;
        if !open.lost.is_empty() && open.updates < required {
            return Err(RoundError::TooFewLeft { updates: open.updates, required });
        }
        let charge = self.ledger.charge(*reservation);
        let (round, grid, mechanism) = (open.round, open.grid, charge.mechanism());
        if self.strategy.needs_groups() && !round.is_query() {
            let releases = Sum::release_groups(sums, charge)?;
            let aggregate = self.strategy.of_groups(releases, self.model.len(), &self.state)?;
            let digest = digest_of_each(&aggregate);
            return self.release_next(aggregate, digest, None);
        }
        let sum = total(sums)?;
        let (release, seal) = match (charge.mechanism(), noise, self.ledger.auditor()) {
            (Mechanism::None, ..) => (sum.release_exact(charge)?, None),
            (Mechanism::RoundedGaussian { .. }, Some(noise), Some(auditor)) => {
                sum.release_sealed(charge, &noise, self.keys.generator(), &auditor, &Key::from_os()?)?
            }
            (Mechanism::RoundedGaussian { .. }, noise, _) => {
                let noise = noise.map_or_else(|| self.keys.noise(round), Ok)?;
                (sum.release(charge, &noise, self.keys.generator())?, None)
            }
            (Mechanism::NoiseShares { .. } | Mechanism::LocalGaussian { .. }, ..) => {
                (sum.release_noised(charge)?, None)
            }
        };
        if let (true, Some(asked)) = (round.is_query(), self.experiment.task.asked) {
            let aggregate = digest_of(&release);
            let deviation = query::deviation(mechanism, &grid, release.members());
            let answers = query::means(&asked, &release.decode(), deviation);
            open.stage = Stage::Answered { answers, aggregate, seal };
            return Ok(());
        }
        let released = digest_of(&release);
        let aggregate = self.strategy.of_sum(release, self.model.len())?;
        self.release_next(aggregate, released, seal)
    }

    fn release_next(
        &mut self,
        aggregate: Vec<f64>,
        released: Digest,
        seal: Option<Vec<u8>>,
    ) -> Result<(), RoundError> {
        let next = self.strategy.step(&self.model, &self.state, aggregate)?;
        let digest = Digest::of_model(&next.model);
        let open = self.open.as_mut().ok_or(RoundError::OutOfOrder)?;
        open.stage = Stage::Released { next, digest, aggregate: released, seal };
        Ok(())
    }

    /// Clients whose group's sum could not be unmasked in the open round's release, and is not in it.
    pub fn lost(&self) -> &[ClientId] {
        self.open.as_ref().map_or(&[], |open| &open.lost)
    }

    /// What the open round has released; none before [`Federation::release`].
    pub fn released(&self) -> Option<Released<'_>> {
        match self.open.as_ref() {
            Some(OpenRound {
                updates, plan, stage: Stage::Released { next, digest, aggregate, .. }, ..
            }) => {
                let ledger = Interrupted { updates: *updates, plan: *plan, aggregate: *aggregate };
                Some(Released { model: &next.model, state: &next.state, digest: *digest, ledger })
            }
            _ => None,
        }
    }

    /// What clients said in the open query, unless noise drowns it, and what the ledger needs besides; none before
    /// [`Federation::release`].
    pub fn answered(&self) -> Option<(Option<ClientAnswers>, Interrupted)> {
        match self.open.as_ref() {
            Some(&OpenRound { updates, plan, stage: Stage::Answered { answers, aggregate, .. }, .. }) => {
                Some((answers, Interrupted { updates, plan, aggregate }))
            }
            _ => None,
        }
    }

    /// Ends the open round in the ledger, then adopts what was released, unless the round is aborted. Its budget stays charged.
    ///
    /// # Errors
    /// [`RoundError::OutOfOrder`] when no round is open, or nothing was released although the outcome says so;
    /// [`RoundError::Ledger`] when the end cannot be written down: the model is then not adopted.
    pub fn close(&mut self, outcome: Outcome) -> Result<RoundSummary, RoundError> {
        let open = self.open.take().ok_or(RoundError::OutOfOrder)?;
        let mut said = None;
        match (outcome, open.stage) {
            (Outcome::Aborted(_), _) => {
                let reason = match outcome {
                    // How many did arrive must stay secret under Poisson sampling.
                    Outcome::Aborted(AbortReason::TooFewUpdates { required, .. }) => {
                        format!("fewer than {required} updates arrived")
                    }
                    outcome => outcome.to_string(),
                };
                self.ledger.abort(Abort { reserve: open.record, reason, refunded: false })?;
            }
            (_, Stage::Released { next, digest, aggregate, seal }) => {
                let settle = Settle {
                    reserve: open.record,
                    plan: Hash(open.plan.0),
                    aggregate: Hash(aggregate.0),
                    model_out: Hash(digest.0),
                    updates: Some(open.updates),
                    sealed: Vec::new(),
                };
                self.ledger.settle(settle, seal.as_deref())?;
                self.model_digest = digest;
                self.model = Arc::new(next.model);
                self.state = next.state;
                self.asks = self.is_asked();
            }
            (_, Stage::Answered { answers, aggregate, seal }) => {
                let settle = Settle {
                    reserve: open.record,
                    plan: Hash(open.plan.0),
                    aggregate: Hash(aggregate.0),
                    model_out: Hash::ZERO,
                    updates: Some(open.updates),
                    sealed: Vec::new(),
                };
                self.ledger.settle(settle, seal.as_deref())?;
                said = answers;
            }
            _ => return Err(RoundError::OutOfOrder),
        }
        let rounds = self.experiment.rounds.count;
        if self.round.0 == rounds || self.round.0.is_multiple_of(ROUNDS_PER_CHECKPOINT) {
            self.ledger.seal()?;
        }
        let summary = self.summary(outcome, open.invited, open.updates);
        Ok(RoundSummary { round: open.round, answers: said, ..summary })
    }

    /// The last round, as it ended.
    pub(crate) fn summary(&self, outcome: Outcome, invited: u32, updates: u32) -> RoundSummary {
        RoundSummary {
            round: self.round,
            outcome,
            invited,
            updates,
            model: self.model_digest,
            answers: None,
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

    /// What clients are sent to start from: the model, and the control variate behind it where the strategy has one.
    pub fn base_model(&self) -> Arc<Vec<f32>> {
        match self.experiment.strategy.weighting() {
            weighting @ Weighting::Controlled => Arc::new(self.state.beside(&self.model, weighting)),
            _ => self.model(),
        }
    }

    fn base_digest(&self) -> Digest {
        match self.experiment.strategy.weighting() {
            Weighting::Controlled => Digest::of_model(&self.base_model()),
            _ => self.model_digest,
        }
    }

    /// What the strategy remembers beside the model.
    pub fn state(&self) -> &ServerState {
        &self.state
    }

    /// The model's digest.
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
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What all rounds so far cost against an adversary.
    ///
    /// # Errors
    /// [`NoPromise`] where the mode promises nothing against it.
    pub fn epsilon(&self, adversary: Adversary) -> Result<Epsilon, NoPromise> {
        match no_promise(&self.experiment.privacy, adversary) {
            Some(reason) => Err(reason),
            None => Ok(self.ledger.spent().epsilon(adversary)),
        }
    }

    /// What that cost would be with continuous noise in place of discrete shares; `None` in modes without shares. For
    /// comparison: it is not certified.
    pub fn epsilon_if_continuous(&self, adversary: Adversary) -> Option<Epsilon> {
        self.ledger.state().account().epsilon_if_continuous(adversary)
    }

    /// The delta at which epsilon is stated.
    pub fn delta(&self) -> Option<Delta> {
        self.experiment.privacy.terms().map(|terms| terms.delta)
    }

    fn next_round(&self, roster: &dyn Roster) -> Result<Round, PlanningError> {
        self.check_idle(roster)?;
        let rounds = self.experiment.rounds.count;
        if self.round.0 >= rounds {
            return Err(PlanningError::Finished { rounds });
        }
        Ok(Round(self.round.0 + 1))
    }

    fn check_idle(&self, roster: &dyn Roster) -> Result<(), PlanningError> {
        if self.open.is_some() {
            return Err(PlanningError::Busy(self.round));
        }
        let (expected, found) = (self.experiment.population.clients, roster.population());
        if expected != found {
            return Err(PlanningError::Population { expected, found });
        }
        Ok(())
    }

    fn request(&self, terms: &Collected, noise: Option<&Key>) -> Request {
        Request {
            occasion: if terms.round.is_query() { Occasion::Evaluation } else { Occasion::Round },
            round: terms.round.training().0,
            task: Hash(self.task.0),
            terms: RoundTerms {
                mode: self.experiment.privacy.trust_mode(),
                mechanism: terms.mechanism,
                sampling: terms.asking.rounds.sampling,
            },
            model_in: Hash(self.model_digest.0),
            limit: self.experiment.privacy.terms().map(|terms| terms.epsilon_limit),
            noise_commitment: noise
                .zip(terms.sigma())
                .map(|(noise, sigma)| commitment(noise, sigma, self.keys.generator())),
        }
    }

    /// The seed of a round's noise, drawn before the round where an auditor may check it.
    fn early_noise(&self, terms: &Collected) -> Result<Option<Key>, PrgError> {
        match (terms.sigma(), self.ledger.auditor()) {
            (Some(_), Some(_)) => self.keys.noise(terms.round).map(Some),
            _ => Ok(None),
        }
    }

    fn describe(&self, terms: Collected, reservation: &Reservation, cohort: &BTreeSet<ClientId>) -> Plan {
        let rounds = &terms.asking.rounds;
        let masked = self.experiment.privacy.secure_aggregation().is_some();
        Plan {
            task: self.task,
            round: terms.round,
            rounds: rounds.count,
            base_model: terms.base_model,
            encoding: terms.grid.encoding(),
            promise: encoding::promise(&terms.asking, reservation.mechanism(), |adversary| {
                reservation.epsilon_after(adversary)
            }),
            sampling: rounds.sampling,
            population: self.experiment.population.clients,
            cohort_max: self.experiment.cohort_max(),
            // Where the server sees updates, who else takes part is nobody's business, and may amplify privacy.
            cohort: cohort.iter().filter(|_| masked).copied().collect(),
            weighting: match terms.round.is_query() {
                true => Weighting::Uniform,
                false => self.experiment.strategy.weighting(),
            },
            segments: terms.segments,
            prg: self.keys.generator(),
            closure: Closure::AllAnswered,
            min_updates: self.experiment.least_updates(),
            deadline: rounds.deadline,
        }
    }
}

/// What a round, or a query, collects.
struct Collected {
    round: Round,
    grid: Grid,
    mechanism: Mechanism,
    segments: Vec<Segment>,
    base_model: Digest,
    /// The experiment, with the bound, noise and sampling that hold here.
    asking: Experiment,
}

impl Collected {
    /// The standard deviation of the noise that the server adds; none where it adds none.
    fn sigma(&self) -> Option<u64> {
        match self.mechanism {
            Mechanism::RoundedGaussian { sigma, .. } => Some(sigma),
            Mechanism::None | Mechanism::NoiseShares { .. } | Mechanism::LocalGaussian { .. } => None,
        }
    }
}

/// The sum over all groups.
fn total(sums: Vec<Sum>) -> Result<Sum, RoundError> {
    let mut sums = sums.into_iter();
    let first = sums.next().ok_or(RoundError::OutOfOrder)?;
    Ok(sums.try_fold(first, Sum::merge)?)
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
    let parameters = segments.iter().map(|segment| segment.len).sum();
    let len = if weighting == Weighting::Controlled { parameters } else { 1 };
    segments.extend(beside(weighting).iter().map(|name| Segment { name: (*name).into(), len }));
    segments
}

/// What goes beside an update, part by part.
fn beside(weighting: Weighting) -> &'static [&'static str] {
    match weighting {
        Weighting::Uniform => &[],
        Weighting::Examples { .. } | Weighting::ByLoss { .. } => &["weight"],
        Weighting::PerStep { .. } => &["steps", "weight"],
        Weighting::Controlled => &["control variate"],
    }
}

/// Coordinates of an update beside its parameters.
fn weights(experiment: &Experiment, parameters: usize) -> usize {
    let beside = experiment.strategy.weighting().coordinates(parameters as u64);
    usize::try_from(beside).expect("no more than parameters, which are in memory")
}

/// What an experiment promises, as the ledger of its population writes it down at the beginning, with what clients are asked after
/// rounds. These are as many as the limit allows, so that every later run of the same noise and sampling keeps to the schedule; it leaves
/// out a query that would be one too many.
///
/// # Errors
/// [`FederationError`] where there is no grid or no noise for the experiment.
pub fn terms(experiment: &Experiment) -> Result<Terms, FederationError> {
    let parameters = experiment.task.parameter_count().and_then(|count| usize::try_from(count).ok());
    let parameters = parameters.unwrap_or(0);
    let (_, mechanism) = encoding::encoding(experiment, parameters + weights(experiment, parameters))?;
    let budget = experiment.privacy.terms().map(|terms| Budget {
        unit: terms.unit,
        adjacency: terms.adjacency,
        delta: terms.delta,
        limit_release: terms.epsilon_limit,
        // Where the server adds the noise, nothing is promised against it.
        limit_server: match mechanism.planned_against() {
            Adversary::Recipients => Epsilon::INFINITE,
            Adversary::Server | Adversary::EveryoneElse => terms.epsilon_limit,
        },
    });
    let query = match Question::of(experiment) {
        None => None,
        Some((question, every)) => {
            let (_, mechanism) = encoding::of_answers(experiment, &question)?;
            Some(PlannedQuery { occasion: question.occasion, mechanism, sampling: question.sampling, every })
        }
    };
    let schedule = Schedule { mechanism, sampling: experiment.rounds.sampling, rounds: None, query };
    let examples = match &experiment.privacy {
        Privacy::Examples { terms } => Some(ExampleTerms {
            noise_multiplier: terms.noise_multiplier,
            delta: terms.delta,
            limit: terms.epsilon_limit,
            rounds: experiment.rounds.count,
        }),
        _ => None,
    };
    let participation = experiment.population.participation;
    Ok(Terms { mode: experiment.privacy.trust_mode(), budget, examples, schedule, participation })
}

/// A budget is about one population, one unit, one adjacency and one delta; an experiment about others cannot be charged to it.
fn check_ledger(experiment: &Experiment, ledger: &Ledger) -> Result<(), FederationError> {
    let (expected, found) = (ledger.state().population().size, experiment.population.clients);
    if expected != found {
        return Err(FederationError::OtherPopulation { expected, found });
    }
    let (wanted, kept) =
        (experiment.population.participation, ledger.state().account().terms().participation);
    if wanted != kept {
        return Err(FederationError::OtherParticipation { kept });
    }
    let (ours, kept) = (terms(experiment)?, ledger.state().account().terms());
    if ours.schedule.query.is_some() && ours.schedule.query != kept.schedule.query {
        tracing::warn!(
            "the ledger was begun without these queries, so they are charged beside its schedule, by the more cautious Rényi filter; \
             where the data are new, `skep ledger amend --epoch` begins an epoch with them"
        );
    }
    match (&ours.budget, &kept.budget) {
        (Some(ours), Some(kept)) if !ours.is_comparable(kept) => Err(FederationError::OtherBudget {
            unit: kept.unit,
            adjacency: kept.adjacency,
            delta: kept.delta,
        }),
        (Some(_), None) => Err(FederationError::NoBudget),
        _ => Ok(()),
    }
}

/// The digest of the released integers, as little-endian i64.
pub fn digest_of(release: &Release) -> Digest {
    let mut hasher = Hasher::new();
    for block in release.coordinates().chunks(HASH_BLOCK) {
        let mut bytes = [0; 8 * HASH_BLOCK];
        for (to, coordinate) in bytes.as_chunks_mut().0.iter_mut().zip(block) {
            *to = coordinate.to_le_bytes();
        }
        hasher.update(&bytes[..size_of_val(block)]);
    }
    hasher.finish()
}

/// The digest of an aggregate that is no sum, as little-endian f64.
fn digest_of_each(aggregate: &[f64]) -> Digest {
    let mut hasher = Hasher::new();
    for value in aggregate {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finish()
}

const HASH_BLOCK: usize = 1024;
/// The last checkpoint in the ledger vouches for everything before it with one signature.
const ROUNDS_PER_CHECKPOINT: u64 = 1000;

#[cfg(test)]
mod tests;
