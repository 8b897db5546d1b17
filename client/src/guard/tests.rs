use std::path::PathBuf;
use std::sync::Arc;

use skep_privacy::budget::BudgetKeeper;
use skep_privacy::grid::PrivateGrid;
use skep_privacy::ledger::{Hash, Occasion, Tree};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{Adjacency, ClipNorm, Delta, Epsilon, NoiseMultiplier, Sampling, Unit};
use skep_protocol::experiment::Weighting;
use skep_protocol::plan::{Claim, Closure, Cohort, Plan, PlanSigner, Promise, Segment};
use skep_protocol::{Digest, Round, Span};

use super::*;
use crate::privacy_policy::AllowedMode;

/// A ledger's tree of a hundred records, and of another history from record 50 on.
fn trees() -> [Tree; 2] {
    [false, true].map(|forked| {
        let mut tree = Tree::default();
        for leaf in 0..100_u64 {
            let contents = if forked && leaf >= 50 { leaf + 1000 } else { leaf };
            tree.push(Hash::of(&contents.to_be_bytes()));
        }
        tree
    })
}

/// A plan of central noise: its round, its noise, what it promises to cost, and of which ledger at which size it is.
struct Invitation {
    round: u64,
    query: bool,
    noise: f64,
    epsilon: f64,
    ledger: &'static str,
    size: u64,
    tree: Tree,
}

impl Invitation {
    fn new(round: u64) -> Self {
        let [tree, _] = trees();
        Invitation {
            round,
            query: false,
            noise: 2.0,
            epsilon: 0.5 * round as f64,
            ledger: "skep/ours",
            size: 10 * round,
            tree,
        }
    }

    fn plan(&self) -> Arc<VerifiedPlan> {
        let clip_norm = ClipNorm::new(1.0).unwrap();
        let grid = PrivateGrid::new(clip_norm, 8, 10).unwrap();
        let noise = Mechanism::rounded_gaussian(NoiseMultiplier::new(self.noise).unwrap(), &grid).unwrap();
        let Mechanism::RoundedGaussian { sigma, .. } = noise else { panic!("asked for a Gaussian") };
        let delta = Delta::new(1e-5).unwrap();
        let plan = Plan {
            task: Digest::of(b"task"),
            round: if self.query { Round(self.round).query() } else { Round(self.round) },
            rounds: 100,
            base_model: Digest::of(b"model"),
            segments: vec![Segment { name: "all".into(), len: 8 }],
            encoding: grid.encoding(),
            promise: Promise::Central {
                claim: Claim {
                    clip_norm,
                    unit: Unit::Client,
                    adjacency: Adjacency::ZeroOut,
                    delta,
                    epsilon_release: Epsilon::new(self.epsilon).unwrap(),
                    epsilon_server: Epsilon::INFINITE,
                    epsilon_alone: Epsilon::INFINITE,
                },
                sigma,
                masking: None,
            },
            sampling: Sampling::All,
            population: 10,
            cohort_max: 10,
            cohort: Cohort::default(),
            weighting: Weighting::Uniform,
            prg: PrgId::ChaCha20,
            closure: Closure::AllAnswered,
            min_updates: 5,
            deadline: Span::from_millis(1000),
        };
        let mut keeper = BudgetKeeper::new(Adjacency::ZeroOut, delta, None);
        let occasion = if self.query { Occasion::Evaluation } else { Occasion::Round };
        let reservation = keeper.reserve_for(occasion, self.round, plan.mechanism(), plan.sampling).unwrap();
        let signer = PlanSigner::from_seed(&[1; 32]);
        let root = self.tree.root(self.size).unwrap();
        let checkpoint = Checkpoint { origin: self.ledger.to_owned(), size: self.size, root };
        VerifiedPlan::sign(plan, &reservation, &signer).unwrap().beside(checkpoint, &signer)
    }
}

struct Owner {
    directory: tempfile::TempDir,
    guard: Guard,
}

impl Owner {
    fn new(policy: PrivacyPolicy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let guard = Guard::open(policy, directory.path(), "digits:0/2").unwrap();
        Owner { directory, guard }
    }

    /// Judges, proves where asked to, and takes part if agreed.
    fn meets(&mut self, invitation: &Invitation) -> Result<(), Decline> {
        let plan = invitation.plan();
        let judgement = match self.guard.judge(&plan) {
            Judgement::Doubted { from, to } => {
                let proof = invitation.tree.consistency(from, to).unwrap();
                self.guard.judge_proof(&plan, &proof.iter().map(|hash| hash.0).collect::<Vec<_>>())
            }
            judgement => judgement,
        };
        match judgement {
            Judgement::Agreed => self.guard.charge(&plan),
            Judgement::Declined(reason) => Err(reason),
            Judgement::Doubted { .. } => panic!("a proof leaves no doubt"),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn again(self) -> Result<Self, ParticipationsError> {
        let Owner { directory, guard } = self;
        let policy = guard.policy.clone();
        drop(guard);
        Ok(Owner { guard: Guard::open(policy, directory.path(), "digits:0/2")?, directory })
    }
}

fn policy() -> PrivacyPolicy {
    PrivacyPolicy::unlimited()
}

#[test]
fn t23_a_participation_too_many_is_refused_also_after_a_restart() {
    let mut owner = Owner::new(PrivacyPolicy { max_participations: Some(2), ..policy() });
    assert_eq!(owner.meets(&Invitation::new(1)), Ok(()));
    assert_eq!(owner.meets(&Invitation::new(2)), Ok(()));
    assert_eq!(owner.meets(&Invitation::new(3)), Err(Decline::Participations));
    let mut owner = owner.again().unwrap();
    assert_eq!(owner.meets(&Invitation::new(3)), Err(Decline::Participations));
    // What was sent in the round is gone with the process, and made again it would have other noise.
    assert_eq!(owner.meets(&Invitation::new(2)), Err(Decline::TakenPart));
    assert_eq!(owner.guard.participations().entries().len(), 2);
}

#[test]
fn t23_a_round_too_soon_is_refused() {
    let mut owner = Owner::new(PrivacyPolicy { min_separation: Some(3), ..policy() });
    assert_eq!(owner.meets(&Invitation::new(1)), Ok(()));
    assert_eq!(owner.meets(&Invitation::new(3)), Err(Decline::Separation));
    assert_eq!(owner.meets(&Invitation::new(4)), Ok(()));
    let other_plan = Invitation { epsilon: 2.5, ..Invitation::new(4) };
    assert_eq!(owner.meets(&other_plan), Err(Decline::StaleRound), "never twice in one round");
}

#[test]
fn a_query_is_a_participation_as_a_round_is_and_asked_once() {
    let query = |round| Invitation { query: true, size: 10 * round + 1, ..Invitation::new(round) };
    let round = Invitation::new;
    let limits = PrivacyPolicy { max_participations: Some(5), min_separation: Some(2), ..policy() };
    let mut owner = Owner::new(limits);
    assert_eq!(owner.meets(&round(1)), Ok(()));
    // A query has noise of its own, and is no round of training that another one would have to keep away from.
    assert_eq!(owner.meets(&Invitation { noise: 1.5, ..query(1) }), Ok(()));
    assert_eq!(owner.meets(&round(3)), Ok(()));
    assert_eq!(owner.meets(&Invitation { noise: 1.0, ..query(3) }), Err(Decline::Noise));
    let mut owner = owner.again().unwrap();
    assert_eq!(owner.meets(&query(3)), Ok(()));
    assert_eq!(owner.meets(&query(3)), Err(Decline::TakenPart), "by the same plan");
    assert_eq!(
        owner.meets(&Invitation { epsilon: 1.25, ..query(3) }),
        Err(Decline::StaleRound),
        "asked twice"
    );
    assert_eq!(owner.meets(&query(2)), Err(Decline::Ledger), "of an older ledger");
    assert_eq!(owner.meets(&round(4)), Err(Decline::Separation), "round 3 is too near");
    assert_eq!(owner.meets(&round(5)), Ok(()));
    assert_eq!(owner.meets(&query(5)), Err(Decline::Participations));
    assert_eq!(owner.guard.participations().entries().len(), 5);

    let mut poor =
        Owner::new(PrivacyPolicy { max_epsilon_release: Some(Epsilon::new(0.6).unwrap()), ..policy() });
    assert_eq!(poor.meets(&round(1)), Ok(()));
    assert_eq!(poor.meets(&Invitation { epsilon: 0.7, ..query(1) }), Err(Decline::EpsilonRelease));
    let mut silent = Owner::new(PrivacyPolicy { answer_queries: false, ..policy() });
    assert_eq!(silent.meets(&round(1)), Ok(()));
    assert_eq!(silent.meets(&query(1)), Err(Decline::Queries));
    assert_eq!(silent.meets(&round(2)), Ok(()));
}

#[test]
fn t23_an_older_checkpoint_and_another_history_are_refused() {
    let mut owner = Owner::new(policy());
    assert_eq!(owner.meets(&Invitation::new(6)), Ok(()));
    assert_eq!(owner.meets(&Invitation { size: 59, ..Invitation::new(7) }), Err(Decline::Ledger));
    let [_, forked] = trees();
    assert_eq!(owner.meets(&Invitation { tree: forked.clone(), ..Invitation::new(7) }), Err(Decline::Ledger));
    assert_eq!(
        owner.meets(&Invitation { size: 60, tree: forked, ..Invitation::new(7) }),
        Err(Decline::Ledger)
    );
    assert_eq!(owner.meets(&Invitation::new(7)), Ok(()));
}

#[test]
fn t23_less_noise_than_was_agreed_is_refused() {
    let mut owner =
        Owner::new(PrivacyPolicy { min_noise: Some(NoiseMultiplier::new(1.5).unwrap()), ..policy() });
    assert_eq!(owner.meets(&Invitation { noise: 1.4, ..Invitation::new(1) }), Err(Decline::Noise));
    assert_eq!(owner.meets(&Invitation::new(1)), Ok(()));
    assert_eq!(owner.meets(&Invitation { noise: 1.9, ..Invitation::new(2) }), Err(Decline::Noise));
    assert_eq!(owner.meets(&Invitation { noise: 2.5, ..Invitation::new(2) }), Ok(()));
}

#[test]
fn t23_a_list_that_was_put_back_or_changed_is_not_believed() {
    let mut owner = Owner::new(policy());
    owner.meets(&Invitation::new(1)).unwrap();
    let early: Vec<(PathBuf, Vec<u8>)> =
        owner.files().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    owner.meets(&Invitation::new(2)).unwrap();
    let late: Vec<(PathBuf, Vec<u8>)> =
        owner.files().into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let list = early.iter().find(|(path, _)| path.extension().is_none()).unwrap().clone();
    let (directory, policy) = (owner.directory, owner.guard.policy.clone());
    drop(owner.guard);
    let open = || {
        Guard::open(policy.clone(), directory.path(), "digits:0/2")
            .map(|guard| guard.participations().entries().len())
    };
    std::fs::write(&list.0, &list.1).unwrap();
    assert!(matches!(open(), Err(ParticipationsError::RolledBack { .. })));
    std::fs::remove_file(&list.0).unwrap();
    assert!(matches!(open(), Err(ParticipationsError::RolledBack { .. })));
    let whole = late.iter().find(|(path, _)| *path == list.0).unwrap().1.clone();
    let mut changed = whole.clone();
    changed[60] ^= 1;
    std::fs::write(&list.0, &changed).unwrap();
    assert!(matches!(open(), Err(ParticipationsError::Damaged { .. })));
    // Stopped while a third entry was written: what is whole counts.
    std::fs::write(&list.0, [&whole[..], &whole[16..40]].concat()).unwrap();
    assert_eq!(open().unwrap(), 2);
}

#[test]
fn the_budget_is_added_over_ledgers_and_each_counts_once() {
    let most = Some(Epsilon::new(2.0).unwrap());
    let mut owner = Owner::new(PrivacyPolicy { max_epsilon_release: most, ..policy() });
    assert_eq!(owner.meets(&Invitation::new(1)), Ok(()));
    assert_eq!(owner.meets(&Invitation::new(2)), Ok(()));
    let theirs = |epsilon| Invitation { ledger: "skep/theirs", epsilon, ..Invitation::new(1) };
    assert_eq!(owner.meets(&theirs(1.1)), Err(Decline::EpsilonRelease));
    assert_eq!(owner.meets(&theirs(0.9)), Ok(()));
    assert_eq!(owner.meets(&Invitation { epsilon: 1.2, ..Invitation::new(3) }), Err(Decline::EpsilonRelease));
    assert_eq!(owner.meets(&Invitation { epsilon: 1.1, ..Invitation::new(3) }), Ok(()));
}

#[test]
fn an_epoch_that_begins_anew_does_not_give_an_owner_a_new_budget() {
    let most = Some(Epsilon::new(4.0).unwrap());
    let mut owner = Owner::new(PrivacyPolicy { max_epsilon_release: most, ..policy() });
    let costs = |round, epsilon| Invitation { epsilon, ..Invitation::new(round) };
    assert_eq!(owner.meets(&costs(1, 2.0)), Ok(()));
    // As a query states it that was counted with its round, added up in another order.
    assert_eq!(owner.meets(&costs(2, 2.0 - 1e-12)), Ok(()));
    assert_eq!(owner.meets(&costs(3, 2.5)), Ok(()));
    // The ledger begins at zero.
    assert_eq!(owner.meets(&costs(4, 1.6)), Err(Decline::EpsilonRelease));
    assert_eq!(owner.meets(&costs(4, 0.5)), Ok(()));
    let mut owner = owner.again().unwrap();
    assert_eq!(owner.meets(&costs(5, 1.6)), Err(Decline::EpsilonRelease));
    assert_eq!(owner.meets(&costs(5, 1.0)), Ok(()));
    // And once more.
    assert_eq!(owner.meets(&costs(6, 0.6)), Err(Decline::EpsilonRelease));
    assert_eq!(owner.meets(&costs(6, 0.5)), Ok(()));
    let total = owner.guard.participations().total();
    assert_eq!(total.epsilon_release, 4.0);
    assert!((total.delta - 3e-5).abs() < 1e-12, "{total:?}");
}

#[test]
fn a_server_that_sees_updates_needs_trust_and_its_epsilon_is_infinite() {
    let strict = PrivacyPolicy { trust_server: false, ..policy() };
    assert_eq!(Owner::new(strict).meets(&Invitation::new(1)), Err(Decline::TrustServer));
    let mut trusting = Owner::new(policy());
    assert_eq!(trusting.meets(&Invitation::new(1)), Ok(()));
    assert!(trusting.guard.participations().total().epsilon_server.is_infinite());
    let modes = Some(vec![AllowedMode::Distributed, AllowedMode::Local]);
    assert_eq!(
        Owner::new(PrivacyPolicy { modes, ..policy() }).meets(&Invitation::new(1)),
        Err(Decline::Mode)
    );
    let small = PrivacyPolicy { min_cohort: Some(6), ..policy() };
    assert_eq!(Owner::new(small).meets(&Invitation::new(1)), Err(Decline::SmallCohort));
}

#[test]
fn one_list_serves_one_process_at_a_time() {
    let owner = Owner::new(policy());
    let second = Guard::open(policy(), owner.directory.path(), "digits:0/2");
    assert!(matches!(second, Err(ParticipationsError::InUse { .. })));
    assert!(Guard::open(policy(), owner.directory.path(), "digits:1/2").is_ok(), "other data, another list");
}
