//! Small tasks and plans.

use std::sync::Arc;

use skep_privacy::budget::BudgetKeeper;
use skep_privacy::grid::{Grid, PrivateGrid, PublicGrid};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{
    Adjacency, ClipNorm, CorruptFraction, Delta, Epsilon, NoiseMultiplier, Sampling, Unit,
};
use skep_protocol::experiment::{Batch, Model, Task, Training, Weighting};
use skep_protocol::plan::{
    Claim, Closure, Cohort, Masking, Plan, PlanSigner, Promise, Segment, VerifiedPlan,
};
use skep_protocol::{ClientId, Digest, Round, Span};

/// A task whose model has `3 * 2 + 2 = 8` parameters.
pub fn task() -> Task {
    Task {
        name: "test".into(),
        seed: 1,
        inputs: 3,
        classes: 2,
        model: Model::Softmax,
        training: Training::plain(0.1, 1, Batch::Full),
        tuning: None,
        encoding: None,
        asked: None,
    }
}

/// The key that signs every plan of the tests.
pub fn signer() -> PlanSigner {
    PlanSigner::from_seed(&[7; 32])
}

/// A plan for [`task`] without privacy.
pub fn plan(round: u64, cohort_max: u32) -> Plan {
    let len = task().parameter_count().expect("small");
    let grid = Grid::from(PublicGrid::new(len as usize, cohort_max).expect("a small grid"));
    Plan {
        task: task().digest(),
        round: Round(round),
        rounds: 1000,
        base_model: Digest::of_model(&vec![0.0; len as usize]),
        segments: vec![Segment { name: "dense".into(), len }],
        encoding: grid.encoding(),
        promise: Promise::None,
        sampling: Sampling::All,
        population: u64::from(cohort_max),
        cohort_max,
        cohort: Cohort::default(),
        weighting: Weighting::Uniform,
        prg: PrgId::ChaCha20,
        closure: Closure::AllAnswered,
        min_updates: 1,
        deadline: Span::from_millis(10_000),
    }
}

/// A plan for [`task`] with central noise of multiplier 1 and clip norm 1.
pub fn private_plan(round: u64, cohort_max: u32) -> Plan {
    let public = plan(round, cohort_max);
    let clip_norm = ClipNorm::new(1.0).expect("valid");
    let grid = PrivateGrid::new(clip_norm, public.update_len() as usize, cohort_max).expect("a small grid");
    let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(1.0).expect("valid"), &grid).expect("valid");
    let Mechanism::RoundedGaussian { sigma, .. } = noise else { unreachable!("asked for a Gaussian") };
    Plan {
        encoding: grid.encoding(),
        promise: Promise::Central { claim: claim(clip_norm), sigma, masking: None },
        ..public
    }
}

/// A plan for [`task`] with secure aggregation and central noise, for a cohort of at least 3, none of them corrupt.
pub fn masked_plan(round: u64, cohort_max: u32) -> Plan {
    let public = plan(round, cohort_max);
    let clip_norm = ClipNorm::new(1.0).expect("valid");
    let len = public.update_len() as usize;
    let grid = PrivateGrid::masked(clip_norm, len, cohort_max).expect("a small grid");
    let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(1.0).expect("valid"), &grid).expect("valid");
    let Mechanism::RoundedGaussian { sigma, .. } = noise else { unreachable!("asked for a Gaussian") };
    let nobody = CorruptFraction::new(0.0).expect("valid");
    let masking = Masking::plan(cohort_max, cohort_max, 0, nobody).expect("a cohort of at least 3");
    let masking = Masking { group_min_updates: masking.threshold + 1, ..masking };
    Plan {
        encoding: grid.encoding(),
        promise: Promise::Central { claim: claim(clip_norm), sigma, masking: Some(masking) },
        min_updates: masking.group_min_updates,
        cohort: (0..u64::from(cohort_max)).map(ClientId).collect(),
        ..public
    }
}

fn claim(clip_norm: ClipNorm) -> Claim {
    Claim {
        clip_norm,
        unit: Unit::Client,
        adjacency: Adjacency::ZeroOut,
        delta: Delta::new(1e-5).expect("valid"),
        epsilon_release: Epsilon::new(1.0).expect("valid"),
        epsilon_server: Epsilon::INFINITE,
        epsilon_alone: Epsilon::INFINITE,
    }
}

/// Reserves budget without a limit, then signs.
pub fn signed(plan: Plan) -> Arc<VerifiedPlan> {
    let mut keeper = BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).expect("valid"), None);
    let reservation =
        keeper.reserve(plan.round.0, plan.mechanism(), plan.sampling).expect("a keeper without a limit");
    VerifiedPlan::sign(plan, &reservation, &signer()).expect("reserved for this plan")
}
