//! Plans: one canonical encoding, signed only against a reservation, believed only with the right key.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::client_noise::{ClientNoise, NoisedGrid};
use skep_privacy::grid::PrivateGrid;
use skep_privacy::grid::{Grid, PublicGrid};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{
    Adjacency, ClipNorm, CorruptFraction, Delta, Epsilon, NoiseMultiplier, Sampling, SamplingRate, Unit,
};
use skep_protocol::experiment::Weighting;
use skep_protocol::experiment::{Batch, Model, Task, Training};
use skep_protocol::masked;
use skep_protocol::plan::{
    Claim, Closure, Cohort, Masking, Plan, PlanError, PlanSigner, Promise, Released, Segment, VerifiedPlan,
};
use skep_protocol::round::Decline;
use skep_protocol::{ClientId, Digest, Round, Span};

fn plan() -> Plan {
    let grid = Grid::from(PublicGrid::new(650, 100).unwrap());
    Plan {
        task: Digest([1; 32]),
        round: Round(3),
        rounds: 60,
        base_model: Digest([2; 32]),
        segments: vec![Segment { name: "dense".into(), len: 650 }],
        encoding: grid.encoding(),
        promise: Promise::None,
        sampling: Sampling::Poisson { rate: SamplingRate::new(0.25).unwrap() },
        population: 100,
        cohort_max: 100,
        cohort: Cohort::default(),
        weighting: Weighting::Uniform,
        prg: PrgId::ChaCha20,
        closure: Closure::AllAnswered,
        min_updates: 50,
        deadline: Span::from_millis(30_000),
    }
}

fn private() -> Plan {
    Plan { promise: Promise::Central { claim: claim(), sigma: 5, masking: None }, ..plan() }
}

fn claim() -> Claim {
    Claim {
        clip_norm: ClipNorm::new(1.0).unwrap(),
        unit: Unit::Client,
        adjacency: Adjacency::ZeroOut,
        delta: Delta::new(1e-5).unwrap(),
        epsilon_release: Epsilon::new(1.0).unwrap(),
        epsilon_server: Epsilon::new(2.0).unwrap(),
        epsilon_alone: Epsilon::INFINITE,
    }
}

fn masking() -> Masking {
    Masking::plan(100, 80, 10, CorruptFraction::new(0.05).unwrap()).unwrap()
}

fn task() -> Task {
    Task {
        name: "digits".into(),
        seed: 1,
        inputs: 64,
        classes: 10,
        model: Model::Softmax,
        training: Training::plain(1.0, 1, Batch::Full),
        tuning: None,
        encoding: None,
        asked: None,
    }
}

/// A plan of everyone for [`task`] that a client accepts.
fn of(promise: Promise, grid: impl Into<Grid>) -> Plan {
    Plan {
        task: task().digest(),
        sampling: Sampling::All,
        min_updates: 80,
        encoding: grid.into().encoding(),
        cohort: if promise.masking().is_some() { cohort_of(100) } else { Cohort::default() },
        promise,
        ..plan()
    }
}

fn cohort_of(size: u64) -> Cohort {
    (0..size).map(ClientId).collect()
}

fn distributed() -> Plan {
    let z = NoiseMultiplier::new(5.0).unwrap();
    let grid = NoisedGrid::for_shares(claim().clip_norm, 650, 100, z, 75).unwrap();
    let ClientNoise::Share(share) = grid.noise() else { panic!("asked for shares") };
    of(Promise::Distributed { claim: claim(), share, honest: 75, masking: masking() }, grid)
}

/// [`distributed`] in four groups of 25, of which at least 20 must stay, up to 5 of them corrupt.
fn grouped() -> Plan {
    let z = NoiseMultiplier::new(5.0).unwrap();
    let grid = NoisedGrid::for_shares(claim().clip_norm, 650, 100, z, 15).unwrap();
    let ClientNoise::Share(share) = grid.noise() else { panic!("asked for shares") };
    let masking = Masking::plan_groups(100, 25, 20, 10, CorruptFraction::new(0.05).unwrap()).unwrap();
    of(Promise::Distributed { claim: claim(), share, honest: 15, masking }, grid)
}

/// [`grouped`] with a model that is made of the sums one by one.
fn each_released() -> Plan {
    let Promise::Distributed { claim, share, honest, masking } = grouped().promise else { unreachable!() };
    let masking = Masking { released: Released::EachGroup, ..masking };
    Plan { promise: Promise::Distributed { claim, share, honest, masking }, ..grouped() }
}

fn masked() -> Plan {
    let grid = PrivateGrid::masked(claim().clip_norm, 650, 100).unwrap();
    of(Promise::Central { claim: claim(), sigma: 5 << 20, masking: Some(masking()) }, grid)
}

fn local() -> Plan {
    let z = NoiseMultiplier::new(5.0).unwrap();
    let grid = NoisedGrid::for_local(claim().clip_norm, 650, 100, z).unwrap();
    let ClientNoise::Full { sigma } = grid.noise() else { panic!("asked for local noise") };
    of(Promise::Local { claim: claim(), sigma }, grid)
}

fn signed(plan: Plan) -> std::sync::Arc<VerifiedPlan> {
    let reservation = keeper().reserve(plan.round.0, plan.mechanism(), plan.sampling).unwrap();
    VerifiedPlan::sign(plan, &reservation, &PlanSigner::from_seed(&[1; 32])).unwrap()
}

fn keeper() -> BudgetKeeper {
    BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), None)
}

#[test]
fn the_digest_of_a_known_plan_is_fixed() {
    assert_eq!(
        plan().digest().to_string(),
        GOLDEN_DIGEST,
        "the canonical encoding has changed: clients of the last release will refuse every plan"
    );
}

const GOLDEN_DIGEST: &str = "73a763b5f37f24a06ca9dc260947f750eabdc6e09bf7c5863eb21ff009583937";

#[test]
fn a_plan_comes_back_from_its_bytes() {
    for plan in [plan(), private(), masked(), distributed(), grouped(), each_released(), local()] {
        assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
    }
}

#[test]
fn every_flipped_byte_of_a_signed_plan_is_noticed() {
    let verified = signed(private());
    let key = PlanSigner::from_seed(&[1; 32]).key();
    assert!(verified.signed().clone().verify(&key).is_ok());
    let other = PlanSigner::from_seed(&[2; 32]).key();
    assert_eq!(verified.signed().clone().verify(&other), Err(PlanError::Signature));
    let wire = skep_protocol::codec::encode(verified.signed()).unwrap();
    let mut noticed = 0;
    for place in 1..wire.len() {
        let mut bytes = wire.clone();
        bytes[place] ^= 1;
        match skep_protocol::codec::decode::<skep_protocol::plan::SignedPlan>(&bytes) {
            Ok(plan) => assert_eq!(plan.verify(&key), Err(PlanError::Signature), "byte {place}"),
            Err(_) => continue,
        }
        noticed += 1;
    }
    assert!(noticed > 200, "{noticed} flipped plans reached the signature");
}

#[test]
fn a_plan_for_which_nothing_is_reserved_is_not_signed() {
    let signer = PlanSigner::from_seed(&[1; 32]);
    let reservation = keeper().reserve(4, Mechanism::None, Sampling::All).unwrap();
    assert_eq!(VerifiedPlan::sign(plan(), &reservation, &signer), Err(PlanError::NotReserved("round")));
    let reservation = keeper().reserve(3, Mechanism::None, Sampling::All).unwrap();
    let mut louder = private();
    louder.encoding.sensitivity = Some(1 << 20);
    assert_eq!(VerifiedPlan::sign(louder, &reservation, &signer), Err(PlanError::NotReserved("mechanism")));
}

#[test]
fn plans_of_every_mode_are_accepted_and_say_which_noise_they_are_for() {
    for plan in [masked(), distributed(), grouped(), each_released(), local()] {
        assert_eq!(plan.check(&task(), &task().digest()), Ok(()));
        assert_eq!(plan.mechanism().sensitivity(), plan.encoding.sensitivity);
    }
    assert_eq!((masked().masking(), local().masking()), (Some(&masking()), None));
    let Mechanism::NoiseShares { honest, least_updates, dimension, .. } = distributed().mechanism() else {
        panic!("shares make noise")
    };
    assert_eq!((honest, least_updates, dimension), (75, 80, 650));
    // Recipients of what is made of each group's sum have one group's noise between them and a client.
    let least = |plan: Plan| match plan.mechanism() {
        Mechanism::NoiseShares { least_updates, .. } => least_updates,
        other => panic!("shares make noise, not {other:?}"),
    };
    assert_eq!((least(grouped()), least(each_released())), (80, 20));
    // 20 bits for each of 650 coordinates.
    assert_eq!(distributed().upload_bytes(), 1625);
}

#[test]
fn a_client_is_admitted_to_a_large_enough_cohort_that_names_it() {
    let plan = signed(distributed());
    assert_eq!(masked::admits(&plan, ClientId(99), 100), Ok(()));
    assert_eq!(masked::admits(&plan, ClientId(99), 101), Err(Decline::SmallCohort));
    assert_eq!(masked::admits(&plan, ClientId(100), 10), Err(Decline::BadPeers));
    let unnamed = signed(Plan { cohort: cohort_of(99), ..distributed() });
    assert_eq!(masked::admits(&unnamed, ClientId(0), 10), Err(Decline::BadPeers));
    // In groups, it is the group that hides.
    let plan = signed(grouped());
    assert_eq!(masked::admits(&plan, ClientId(99), 25), Ok(()));
    assert_eq!(masked::admits(&plan, ClientId(99), 26), Err(Decline::SmallCohort));
    let groups = masked::groups(&plan).unwrap();
    assert!(groups.all().iter().map(|group| group.clients.len()).eq([25; 4]));
    assert!((0..100).all(|id| groups.of(ClientId(id)).is_some()));
    // Nobody is hidden by a plan without masks, and nobody is asked to believe so.
    assert_eq!(masked::admits(&signed(local()), ClientId(0), 1000), Ok(()));
}

#[test]
fn a_client_refuses_noise_and_masks_that_do_not_add_up() {
    let Promise::Distributed { claim, share, honest, masking } = distributed().promise else {
        unreachable!()
    };
    let lie = |honest, masking| Promise::Distributed { claim, share, honest, masking };
    let with = |promise| Plan { promise, ..distributed() };
    let half = skep_privacy::mechanism::ShareVariance::new(share.numerator() / 2, share.halvings()).unwrap();
    let lies = [
        // Fewer or more honest shares than the corrupt fraction leaves.
        with(lie(honest + 1, masking)),
        with(lie(honest - 1, masking)),
        // A threshold that lets the server collect both shares of a client, and degrees that nobody has.
        with(lie(honest, Masking { threshold: masking.threshold - 1, ..masking })),
        with(lie(honest, Masking { threshold: 80, ..masking })),
        with(lie(honest, Masking { degree: 100, ..masking })),
        // A corrupt fraction of nobody, and one of more than was planned for.
        with(lie(honest, Masking { max_corrupt_fraction: CorruptFraction::new(0.001).unwrap(), ..masking })),
        with(lie(honest, Masking { max_corrupt_fraction: CorruptFraction::new(0.2).unwrap(), ..masking })),
        // Less noise on the same grid and wire, a sum of other bits, a smaller cohort.
        Plan {
            encoding: skep_privacy::grid::Encoding { wire_bits: 21, ..distributed().encoding },
            ..distributed()
        },
        Plan { cohort_max: 50, cohort: cohort_of(50), ..distributed() },
        // A list of the cohort that is not as long as the cohort, or that nobody needs.
        Plan { cohort: cohort_of(99), ..distributed() },
        Plan { cohort: cohort_of(101), ..masked() },
        Plan { cohort: Cohort::default(), ..distributed() },
        Plan { cohort: cohort_of(100), ..local() },
        Plan { min_updates: 79, ..distributed() },
        Plan { min_updates: 101, ..distributed() },
        // A cohort of secret size, and a round that closes early.
        Plan { sampling: Sampling::Poisson { rate: SamplingRate::new(0.9).unwrap() }, ..distributed() },
        Plan { closure: Closure::FirstUpdates(80), ..distributed() },
        Plan { min_updates: 53, ..masked() },
        // Noise that only the total has, where each group is released.
        Plan {
            promise: Promise::Central {
                claim,
                sigma: 5 << 20,
                masking: Some(Masking { released: Released::EachGroup, ..masking }),
            },
            ..masked()
        },
        Plan { encoding: local().encoding, ..masked() },
        Plan { promise: Promise::Local { claim, sigma: 0 }, ..local() },
        Plan { promise: Promise::Local { claim, sigma: u64::MAX }, ..local() },
    ];
    for lie in lies {
        let refused = lie.check(&task(), &task().digest());
        assert_eq!(refused, Err(Decline::Inconsistent), "{lie:?}");
    }
    let Promise::Distributed { masking: of_group, .. } = grouped().promise else { unreachable!() };
    let in_groups = |honest, masking| Plan {
        promise: Promise::Distributed { claim, share, honest, masking },
        ..grouped()
    };
    for lie in [
        // Noise for the whole cohort, though the server learns the sum of each group; groups without a minimum, or with more than
        // they have; and groups that do not make up the cohort.
        in_groups(75, of_group),
        in_groups(15, Masking { group_min_updates: 19, ..of_group }),
        in_groups(75, Masking { group_min_updates: 80, ..of_group }),
        in_groups(15, Masking { group_size: 30, ..of_group }),
        in_groups(15, Masking { group_size: 0, ..of_group }),
        in_groups(15, Masking { group_size: 200, ..of_group }),
        // The threshold of a group with fewer corrupt clients.
        in_groups(15, Masking { threshold: of_group.threshold - 1, ..of_group }),
    ] {
        let refused = lie.check(&task(), &task().digest());
        assert_eq!(refused, Err(Decline::Inconsistent), "{lie:?}");
    }
    // Less noise is consistent in itself: what it costs is in the claim, and in the mechanism that budget is reserved for.
    let quieter = with(Promise::Distributed { claim, share: half, honest, masking });
    assert_ne!(quieter.mechanism(), distributed().mechanism());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_no_plan(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Plan::from_bytes(&bytes).is_err());
    }

    #[test]
    fn what_reads_as_a_plan_is_its_canonical_encoding(mode in 0usize..6, place in 0usize..340, byte in any::<u8>()) {
        let mut bytes = [private(), masked(), distributed(), local(), grouped(), each_released()][mode].to_bytes();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(plan) = Plan::from_bytes(&bytes) {
            let _ = plan.check(&task(), &plan.task);
            prop_assert_eq!(plan.to_bytes(), bytes);
        }
    }
}
