//! Small tasks, plans and data for the tests of a client.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

pub mod cohort;
pub mod server;

use std::sync::Arc;

use skep_client::task::architecture;
use skep_learning::{Subset, digits};
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::client_noise::{ClientNoise, NoisedGrid};
use skep_privacy::grid::{Grid, PrivateGrid, PublicGrid};
use skep_privacy::ledger::{Mode, Occasion};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{
    Adjacency, ClipNorm, CorruptFraction, Delta, Epsilon, NoiseMultiplier, Sampling, Unit,
};
use skep_protocol::experiment::{Asked, Batch, EvaluationQuery, Model, Task, Training, Weighting};
use skep_protocol::plan::{
    Claim, Closure, Cohort, Masking, Plan, PlanSigner, Promise, Segment, VerifiedPlan,
};
use skep_protocol::{ClientId, Digest, Round, Span};

/// Softmax regression on the digits, in batches of 8.
pub fn task() -> Task {
    Task {
        name: "digits".into(),
        seed: 3,
        inputs: digits::PIXELS as u32,
        classes: digits::CLASSES as u32,
        model: Model::Softmax,
        training: Training::plain(0.5, 2, Batch::Size(8)),
        tuning: None,
        encoding: None,
        asked: None,
    }
}

/// Thirty digits.
pub fn data() -> Subset {
    let train = digits::load().train;
    Subset::new(train.dataset().clone(), train.rows()[..30].to_vec()).unwrap()
}

pub fn base_model() -> Vec<f32> {
    architecture(&task()).initial_parameters([5; 32]).unwrap()
}

/// A plan for a task, without privacy.
pub fn plan_of(task: &Task, round: u64) -> Plan {
    let len = task.parameter_count().unwrap();
    Plan {
        task: task.digest(),
        round: Round(round),
        rounds: 10,
        base_model: Digest::of_model(&base_model()),
        segments: vec![Segment { name: "output".into(), len }],
        encoding: Grid::from(PublicGrid::new(len as usize, 4).unwrap()).encoding(),
        promise: Promise::None,
        sampling: Sampling::All,
        population: 4,
        cohort_max: 4,
        cohort: Cohort::default(),
        weighting: Weighting::Uniform,
        prg: PrgId::ChaCha20,
        closure: Closure::AllAnswered,
        min_updates: 1,
        deadline: Span::from_millis(60_000),
    }
}

/// A plan in which an update ends with its weight.
pub fn weighted_plan(round: u64, max: u32) -> Plan {
    let mut plan = plan_of(&task(), round);
    plan.segments.push(Segment { name: "weight".into(), len: 1 });
    plan.weighting = Weighting::Examples { max };
    plan.encoding = Grid::from(PublicGrid::new(plan.update_len() as usize, 4).unwrap()).encoding();
    plan
}

/// A plan with central noise of multiplier 1.
pub fn private_plan(round: u64, clip_norm: f64) -> Plan {
    let public = plan_of(&task(), round);
    let clip_norm = ClipNorm::new(clip_norm).unwrap();
    let grid = PrivateGrid::new(clip_norm, public.update_len() as usize, 4).unwrap();
    let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(1.0).unwrap(), &grid).unwrap();
    let Mechanism::RoundedGaussian { sigma, .. } = noise else { panic!("asked for a Gaussian") };
    let promise = Promise::Central { claim: claim(clip_norm), sigma, masking: None };
    Plan { encoding: grid.encoding(), promise, ..public }
}

/// A task that asks after every third round.
pub fn asking() -> Task {
    let query = EvaluationQuery { every: 3, noise_multiplier: 2.0, max_loss: 4.0 };
    Task { asked: Some(Asked { hold_out: 0.2, rounds: 10, mode: Mode::Central, query }), ..task() }
}

/// A plan for the query of [`asking`] after a round, with central noise.
pub fn query_plan(round: u64, noise_multiplier: f64) -> Plan {
    let clip_norm = Asked::clip_norm();
    let grid = PrivateGrid::new(clip_norm, 3, 4).unwrap();
    let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(noise_multiplier).unwrap(), &grid).unwrap();
    let Mechanism::RoundedGaussian { sigma, .. } = noise else { panic!("asked for a Gaussian") };
    Plan {
        round: Round(round).query(),
        segments: Asked::NAMES.map(|name| Segment { name: name.into(), len: 1 }).to_vec(),
        encoding: grid.encoding(),
        promise: Promise::Central { claim: claim(clip_norm), sigma, masking: None },
        ..plan_of(&asking(), round)
    }
}

/// A plan with masks, for clients 0 to 3.
pub fn masked_plan(round: u64) -> Plan {
    let public = plan_of(&task(), round);
    let clip_norm = ClipNorm::new(1.0).unwrap();
    let grid = PrivateGrid::masked(clip_norm, public.update_len() as usize, 4).unwrap();
    let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(1.0).unwrap(), &grid).unwrap();
    let Mechanism::RoundedGaussian { sigma, .. } = noise else { panic!("asked for a Gaussian") };
    let masking = Masking::plan(4, 3, 0, CorruptFraction::new(0.0).unwrap()).unwrap();
    let promise = Promise::Central { claim: claim(clip_norm), sigma, masking: Some(masking) };
    Plan {
        encoding: grid.encoding(),
        promise,
        min_updates: masking.group_min_updates,
        cohort: (0..4).map(ClientId).collect(),
        ..public
    }
}

/// A plan in which clients add all of the noise, of multiplier 1.
pub fn local_plan(round: u64) -> Plan {
    let public = plan_of(&task(), round);
    let clip_norm = ClipNorm::new(0.5).unwrap();
    let noise_multiplier = NoiseMultiplier::new(1.0).unwrap();
    let grid = NoisedGrid::for_local(clip_norm, public.update_len() as usize, 4, noise_multiplier).unwrap();
    let ClientNoise::Full { sigma } = grid.noise() else { panic!("asked for local noise") };
    let promise = Promise::Local { claim: claim(clip_norm), sigma };
    Plan { encoding: grid.encoding(), promise, ..public }
}

pub fn claim(clip_norm: ClipNorm) -> Claim {
    Claim {
        clip_norm,
        unit: Unit::Client,
        adjacency: Adjacency::ZeroOut,
        delta: Delta::new(1e-5).unwrap(),
        epsilon_release: Epsilon::new(1.0).unwrap(),
        epsilon_server: Epsilon::INFINITE,
        epsilon_alone: Epsilon::INFINITE,
    }
}

/// The key that signs the plans of the tests.
pub fn signer() -> PlanSigner {
    PlanSigner::from_seed(&[7; 32])
}

pub fn signed(plan: Plan) -> Arc<VerifiedPlan> {
    signed_by(plan, &signer())
}

pub fn signed_by(plan: Plan, signer: &PlanSigner) -> Arc<VerifiedPlan> {
    let mut keeper = BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), None);
    let occasion = if plan.round.is_query() { Occasion::Evaluation } else { Occasion::Round };
    let round = plan.round.training().0;
    let reservation = keeper.reserve_for(occasion, round, plan.mechanism(), plan.sampling).unwrap();
    VerifiedPlan::sign(plan, &reservation, signer).unwrap()
}
