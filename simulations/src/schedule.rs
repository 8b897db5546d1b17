//! Round after round, until the schedule, the budget or the user's patience ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use skep_client::masking::Masks;
use skep_privacy::budget::BudgetExhausted;
use skep_protocol::round::{AbortReason, Outcome};
use skep_protocol::{Digest, Round, Span, Time};
use skep_server::evaluate::Evaluator;
use skep_server::federation::PlanningError;
use skep_server::patience::Patience;
use skep_server::record::{Observer, RoundRecord, dropped};
use skep_server::roster::Contiguous;

use crate::buffer::Buffer;
use crate::checkpoint::{Checkpoint, Keeper};
use crate::clients::public_cohort;
use crate::error::SimulationError;
use crate::held_out::Panel;
use crate::round::{Closed, World};
use crate::workers::Trainer;

/// What a simulation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationReport {
    /// Why it ended.
    pub ended: Ended,
    /// The model after the last round.
    pub model: Arc<Vec<f32>>,
    /// Its digest.
    pub model_sha256: Digest,
    /// A signed checkpoint of the ledger after the last round.
    pub checkpoint: String,
    /// Every round that was opened, in order. Their times are virtual.
    pub rounds: Vec<RoundRecord>,
    /// Updates in all sums.
    pub client_updates: u64,
    /// Bytes of packed updates that would have travelled to the server.
    pub bytes_up: u64,
    /// Bytes of models that would have travelled to clients.
    pub bytes_down: u64,
    /// What the full protocol of secure aggregation computed; nothing where it is not computed.
    pub masks: Masks,
    /// Virtual time from the first plan to the last outcome.
    pub virtual_time: Span,
    /// What the simulation took on this machine, in seconds. Everything else here follows from the experiment and the
    /// keys.
    pub seconds: f64,
}

/// Why a simulation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// All rounds have been run.
    Finished,
    /// The privacy budget allows no further round; those that were run stand.
    BudgetExhausted(BudgetExhausted),
    /// The model has not become better for as long as the experiment allows.
    StoppedEarly,
    /// It was asked to stop. A round that was open then is aborted, and stays charged; where checkpoints are written it is left
    /// open, for the process that goes on.
    Interrupted,
}

/// Runs the rounds of the world's federation.
pub(crate) fn run<T: Trainer>(
    mut world: World<'_, T>,
    evaluator: &mut dyn Evaluator,
    mut panel: Option<&mut Panel<'_>>,
    observer: &mut dyn Observer,
) -> Result<SimulationReport, SimulationError> {
    let started = Instant::now();
    let mut rounds = std::mem::take(&mut world.done);
    let mut last = world.checkpoint();
    let start = |checkpoints| Keeper::start(checkpoints, world.federation.experiment(), &last);
    let mut keeper = world.checkpoints.take().map(start).transpose()?;
    let ended = loop {
        if world.interrupted.load(Ordering::Relaxed) {
            break Ended::Interrupted;
        }
        let experiment = world.federation.experiment();
        if experiment.stop().is_some_and(|stop| Patience::after(stop, &rounds).is_over()) {
            break Ended::StoppedEarly;
        }
        let roster = Contiguous(world.federation.experiment().population.clients);
        let next = Round(world.federation.round().0 + 1);
        let ended_last = world.now;
        if let Some(every) = world.federation.experiment().simulation.round_every_s {
            world.now = world.now.max(Time::from_millis((1000.0 * every * (next.0 - 1) as f64) as u64));
        }
        let opened = world.now;
        let arrived = world.arrivals(next);
        let planned = match (&arrived, public_cohort(world.federation.experiment(), next)) {
            (Some(arrived), _) => world.federation.plan_public(&roster, arrived.clients()),
            (None, None) => world.federation.plan(&roster),
            (None, Some(cohort)) => world.federation.plan_public(&roster, cohort),
        };
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                world.now = ended_last;
                break match error {
                    PlanningError::Finished { .. } => Ended::Finished,
                    PlanningError::Budget(exhausted) => Ended::BudgetExhausted(exhausted),
                    error => return Err(SimulationError::Planning(error)),
                };
            }
        };
        let measured = world.evaluate_every.is_some_and(|every| {
            let experiment = world.federation.experiment();
            (next.0.is_multiple_of(every.get()) || next.0 == experiment.rounds.count)
                && experiment.evaluation.is_due(next.0, experiment.rounds.count)
        });
        let measures =
            measured.then_some(Measures { evaluator: &mut *evaluator, panel: panel.as_deref_mut() });
        let invited = planned.invited();
        observer.round_opened(planned.plan.plan(), invited);
        let closed = match arrived {
            None => world.run(planned, observer)?,
            Some(arrived) => world.run_buffered(&arrived, &planned, opened, observer)?,
        };
        match end_round(&mut world, closed, measures, observer, keeper.is_some())? {
            Some(record) => rounds.push(record),
            None => break Ended::Interrupted,
        }
        if let Some(keeper) = &mut keeper {
            last = world.checkpoint();
            keeper.keep(last.clone())?;
        }
    };
    if let Some(keeper) = keeper {
        keeper.finish(last)?;
    }
    Ok(SimulationReport {
        ended,
        model: world.federation.model(),
        model_sha256: world.federation.model_digest(),
        checkpoint: world.federation.ledger().note(),
        client_updates: rounds.iter().map(|record| u64::from(record.updates)).sum(),
        bytes_up: rounds.iter().map(|record| record.bytes().0).sum(),
        bytes_down: rounds.iter().map(|record| record.bytes().1).sum(),
        masks: world.masks,
        virtual_time: world.now.since(Time::ZERO),
        rounds,
        seconds: started.elapsed().as_secs_f64(),
    })
}

impl<T: Trainer> World<'_, T> {
    /// Has clients say how good the model is; none where the budget does not allow it.
    fn ask(&mut self) -> Result<Option<Closed>, SimulationError> {
        let roster = Contiguous(self.federation.experiment().population.clients);
        let planned = self.federation.plan_query(&roster).map_err(SimulationError::Planning)?;
        let Some(planned) = planned else { return Ok(None) };
        let now = self.now;
        let closed = self.run(planned, &mut ())?;
        if self.buffer.is_some() {
            // Those who train at their own pace do so meanwhile.
            self.now = now;
        }
        Ok(Some(closed))
    }

    /// Between two rounds, what another process needs to go on.
    fn checkpoint(&self) -> Checkpoint {
        let buffer = self.buffer.as_ref().map(Buffer::to_bytes).unwrap_or_default();
        Checkpoint::of(&self.federation, &self.root, self.now, self.masks, self.trainer.memory(), buffer)
    }
}

/// What a model is measured with.
struct Measures<'e, 'p> {
    evaluator: &'e mut dyn Evaluator,
    panel: Option<&'e mut Panel<'p>>,
}

/// Ends a round; `None` if it was interrupted and `goes_on` in another process.
fn end_round<T: Trainer>(
    world: &mut World<'_, T>,
    closed: Closed,
    measures: Option<Measures<'_, '_>>,
    observer: &mut dyn Observer,
    goes_on: bool,
) -> Result<Option<RoundRecord>, SimulationError> {
    if goes_on && closed.outcome == Outcome::Aborted(AbortReason::Stopped) {
        return Ok(None);
    }
    let summary = world.federation.close(closed.outcome)?;
    let model = world.federation.model();
    // Who interrupts does not wait for a measurement.
    let lasts = closed.outcome != Outcome::Aborted(AbortReason::Stopped);
    let measures = measures.filter(|_| lasts);
    let asked = if world.federation.asks() { world.ask()? } else { None };
    let query = match asked {
        Some(asked) if goes_on && asked.outcome == Outcome::Aborted(AbortReason::Stopped) => return Ok(None),
        Some(asked) => Some((world.federation.close(asked.outcome)?, asked)),
        None => None,
    };
    let (evaluation, clients) = match measures {
        None => (None, None),
        Some(Measures { evaluator, panel }) => {
            let evaluation = evaluator.evaluate(&model).inspect_err(
                |error| tracing::warn!(round = summary.round.0, %error, "the model was not measured"),
            );
            let clients = panel.and_then(|panel| panel.measure(&model, &world.trainer.memory()));
            (evaluation.ok(), clients)
        }
    };
    let record = RoundRecord {
        dropped: dropped(&closed.progress),
        client_accuracy: clients.as_ref().map(|measured| measured.plain),
        personalised_accuracy: clients.and_then(|measured| measured.personalised),
        ..RoundRecord::new(&summary, &closed.progress, evaluation, closed.cost)
    };
    let record = match &query {
        Some((query, asked)) => record.asked(query, &asked.progress, asked.cost),
        None => record,
    };
    observer.round_closed(&record, &model);
    Ok(Some(record))
}
