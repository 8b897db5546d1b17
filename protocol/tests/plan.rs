//! Plans: one canonical encoding, signed only against a reservation, believed only with the right key.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::grid::{Grid, PublicGrid};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{Adjacency, ClipNorm, Delta, Epsilon, Sampling, SamplingRate, Unit};
use skep_protocol::experiment::Weighting;
use skep_protocol::plan::{Closure, Plan, PlanError, PlanSigner, Promise, Segment, VerifiedPlan};
use skep_protocol::{Digest, Round, Span};

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
        weighting: Weighting::Uniform,
        prg: PrgId::ChaCha20,
        closure: Closure::AllAnswered,
        min_updates: 50,
        deadline: Span::from_millis(30_000),
    }
}

fn private() -> Plan {
    Plan {
        promise: Promise::Central {
            clip_norm: ClipNorm::new(1.0).unwrap(),
            sigma: 5,
            unit: Unit::Client,
            adjacency: Adjacency::ZeroOut,
            epsilon_release: Epsilon::new(1.0).unwrap(),
            delta: Delta::new(1e-5).unwrap(),
        },
        ..plan()
    }
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
    for plan in [plan(), private()] {
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_no_plan(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Plan::from_bytes(&bytes).is_err());
    }

    #[test]
    fn what_reads_as_a_plan_is_its_canonical_encoding(place in 0usize..300, byte in any::<u8>()) {
        let mut bytes = private().to_bytes();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(plan) = Plan::from_bytes(&bytes) {
            prop_assert_eq!(plan.to_bytes(), bytes);
        }
    }
}
