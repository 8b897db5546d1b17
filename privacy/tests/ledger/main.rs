//! The ledger: what may follow what, what is refused, and what is still there after a crash.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use skep_privacy::accounting::{Accountant, Composition, Event};
use skep_privacy::adversary::Adversary;
use skep_privacy::ledger::{
    Abort, Account, Amend, Basis, Body, Disorder, Excess, Frames, Ledger, LedgerError, Memory, Mode,
    Occasion, Participation, Population, Record, ReserveError, RoundTerms, Schedule, Signer, Storage,
    StorageError, Terms, follow_rotations, is_consistent,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, Sampling, SamplingRate};
use support::{asking, begin, genesis, query, records, request, reserve, run, settle, signer, terms};

const NOISE: RoundTerms = RoundTerms {
    mode: Mode::Central,
    mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 },
    sampling: Sampling::All,
};

fn poisson(rate: f64) -> RoundTerms {
    RoundTerms { sampling: Sampling::Poisson { rate: SamplingRate::new(rate).unwrap() }, ..NOISE }
}

#[test]
fn a_round_beyond_the_limit_is_refused_charged_to_nobody_and_refused_again_after_opening() {
    // dp_accounting 0.6.0: noise multiplier 4 costs 2.258145 for five rounds and more than 2.26 for six.
    let (mut ledger, memory) = begin(terms(NOISE, 2.26));
    run(&mut ledger, NOISE, 5);
    for mut ledger in [ledger, Ledger::open(&memory.contents(), signer(), Box::new(memory.clone())).unwrap()]
    {
        let before = ledger.state().size();
        let Err(ReserveError::Budget(refused)) = reserve(&mut ledger, 6, NOISE) else {
            panic!("a sixth round")
        };
        assert!((refused.spent.get() - 2.258_145).abs() < 1e-6 && refused.asked > refused.limit, "{refused}");
        assert_eq!(
            (ledger.state().size(), ledger.spent().epsilon(Adversary::Recipients)),
            (before, refused.spent)
        );
    }
}

#[test]
fn t22_of_two_concurrent_reservations_only_one_passes_where_one_is_left() {
    let (mut ledger, _) = begin(terms(NOISE, 2.26));
    run(&mut ledger, NOISE, 4);
    let first = reserve(&mut ledger, 5, NOISE).unwrap();
    assert!(matches!(reserve(&mut ledger, 5, NOISE), Err(ReserveError::Budget(_))));
    settle(&mut ledger, first.record);
}

#[test]
fn a_reservation_that_is_lost_stays_charged_and_one_for_which_nobody_was_invited_does_not() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    run(&mut ledger, NOISE, 1);
    let one = ledger.spent();
    let lost = reserve(&mut ledger, 2, NOISE).unwrap();
    let two = lost.price;
    let ledger = Ledger::open(&memory.contents(), signer(), Box::new(memory.clone())).unwrap();
    assert_eq!((ledger.spent(), ledger.state().open().collect::<Vec<_>>()), (two, vec![lost.record]));
    for (refunded, expected) in [(false, two), (true, one)] {
        let (mut ledger, memory) = begin(terms(NOISE, 8.0));
        run(&mut ledger, NOISE, 1);
        let lost = reserve(&mut ledger, 2, NOISE).unwrap();
        ledger.abort(Abort { reserve: lost.record, reason: "a test".to_owned(), refunded }).unwrap();
        assert_eq!(ledger.spent(), expected);
        let again = Ledger::open(&memory.contents(), signer(), Box::new(memory)).unwrap();
        assert_eq!(again.spent(), expected);
    }
}

#[test]
fn a_departure_from_the_schedule_is_recorded_and_counted_by_the_filter_from_then_on() {
    let scheduled = poisson(0.1);
    let (mut ledger, memory) = begin(terms(scheduled, 8.0));
    run(&mut ledger, scheduled, 3);
    assert_eq!(ledger.spent().basis, Basis::Schedule);
    let pld = ledger.spent().epsilon(Adversary::Recipients);
    let other = poisson(0.2);
    let departed = reserve(&mut ledger, 4, other).unwrap();
    assert_eq!(departed.price.basis, Basis::Filter);
    settle(&mut ledger, departed.record);
    let back = reserve(&mut ledger, 5, scheduled).unwrap();
    assert_eq!(back.price.basis, Basis::Filter);
    assert!(
        departed.price.epsilon(Adversary::Recipients) > pld
            && back.price.epsilon(Adversary::Recipients) > departed.price.epsilon(Adversary::Recipients)
    );
    let bases: Vec<Basis> = records(&memory)
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Reserve(reserve) => Some(reserve.basis),
            _ => None,
        })
        .collect();
    assert_eq!(bases, [Basis::Schedule, Basis::Schedule, Basis::Schedule, Basis::Filter, Basis::Filter]);
    // The filter is one order of the Rényi curve, so it is never below the best order.
    let mut charged = Composition::new(Adjacency::ZeroOut);
    let noise_multiplier = NoiseMultiplier::new(4.0).unwrap();
    let rate = |rate| SamplingRate::new(rate).unwrap();
    charged.push(Event::PoissonGaussian { rate: rate(0.1), noise_multiplier }, 4);
    charged.push(Event::PoissonGaussian { rate: rate(0.2), noise_multiplier }, 1);
    let best = charged.epsilon(Accountant::Rdp, Delta::new(1e-5).unwrap()).unwrap();
    assert!(back.price.epsilon(Adversary::Recipients) >= best, "{:?} {best:?}", back.price);
}

#[test]
fn a_query_costs_what_its_noise_says_and_only_as_the_first_charge_keeps_to_the_schedule() {
    // dp_accounting 0.6.0: noise multiplier 4 costs 0.926342 once, 1.356467 twice.
    let (mut ledger, memory) = begin(terms(NOISE, 1.36));
    let asked = query(&mut ledger, Occasion::Statistics, NOISE).unwrap();
    assert!((asked.price.epsilon(Adversary::Recipients).get() - 0.926_342).abs() < 1e-6);
    settle(&mut ledger, asked.record);
    assert!(
        (reserve(&mut ledger, 1, NOISE).unwrap().price.epsilon(Adversary::Recipients).get() - 1.356_467)
            .abs()
            < 1e-6
    );
    assert!(matches!(query(&mut ledger, Occasion::Evaluation, NOISE), Err(ReserveError::Budget(_))));
    assert!(matches!(reserve(&mut ledger, 2, NOISE), Err(ReserveError::Budget(_))));
    assert_eq!(ledger.state().open_for(Occasion::Round, 0), None, "a query is no round");
    let again = Ledger::open(&memory.contents(), signer(), Box::new(memory)).unwrap();
    assert_eq!(again.spent(), ledger.spent());

    let quieter = poisson(0.1);
    let (mut first, _) = begin(terms(NOISE, 8.0));
    assert_eq!(query(&mut first, Occasion::Vocabulary, quieter).unwrap().price.basis, Basis::Schedule);
    assert_eq!(reserve(&mut first, 1, NOISE).unwrap().price.basis, Basis::Schedule);
    assert_eq!(query(&mut first, Occasion::Vocabulary, quieter).unwrap().price.basis, Basis::Filter);
    assert_eq!(reserve(&mut first, 2, NOISE).unwrap().price.basis, Basis::Filter);
}

/// What is spent against recipients.
fn spent(ledger: &Ledger) -> f64 {
    ledger.spent().epsilon(Adversary::Recipients).get()
}

#[test]
fn queries_of_the_schedule_compose_with_its_rounds() {
    // dp_accounting 0.6.0: noise multiplier 4 costs 2.258145 for five releases, 3.341409 for ten.
    let (mut ledger, memory) = begin(asking(NOISE, NOISE, 4, 8.0));
    for round in 1..=8 {
        let record = reserve(&mut ledger, round, NOISE).unwrap().record;
        settle(&mut ledger, record);
        if round % 4 == 0 {
            let before = spent(&ledger);
            let record = query(&mut ledger, Occasion::Evaluation, NOISE).unwrap().record;
            assert_eq!(spent(&ledger), before, "it was counted with the rounds before it");
            settle(&mut ledger, record);
            let expected = if round == 4 { 2.258_145 } else { 3.341_409 };
            assert!((spent(&ledger) - expected).abs() < 1e-6, "{round}: {}", spent(&ledger));
        }
        // Opened again in the middle, whatever was charged, it says the same.
        let again = Ledger::open(&memory.contents(), signer(), Box::new(memory.clone())).unwrap();
        assert_eq!(again.spent(), ledger.spent());
    }
    assert_eq!(ledger.spent().basis, Basis::Schedule);

    // dp_accounting 0.6.0: 500×(q = 0.01, σ = 1) + 500×(q = 0.02, σ = 1.5) cost 1.897483.
    let sampled = |rate, sigma| RoundTerms {
        mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma },
        ..poisson(rate)
    };
    let terms = asking(sampled(0.01, 1000), sampled(0.02, 1500), 1, 8.0);
    let planned = Account::new(terms).after(&sampled(0.01, 1000), 500).spent();
    let epsilon = planned.epsilon(Adversary::Recipients).get();
    assert!((epsilon - 1.897_483).abs() < 1e-4, "{epsilon}");
}

#[test]
fn a_query_that_the_schedule_has_not_is_a_departure_and_one_that_nobody_was_asked_stays_counted() {
    let quieter = poisson(0.1);
    let after = |rounds, ask: &dyn Fn(&mut Ledger)| {
        let (mut ledger, memory) = begin(asking(NOISE, NOISE, 2, 8.0));
        run(&mut ledger, NOISE, rounds);
        ask(&mut ledger);
        let again = Ledger::open(&memory.contents(), signer(), Box::new(memory)).unwrap();
        assert_eq!(again.spent(), ledger.spent());
        ledger
    };
    let evaluation = |ledger: &mut Ledger| {
        let record = query(ledger, Occasion::Evaluation, NOISE).unwrap().record;
        settle(ledger, record);
    };
    let skipped = after(4, &|_| {});
    let asked = after(4, &|ledger| (evaluation(ledger), evaluation(ledger)).1);
    assert_eq!(skipped.spent(), asked.spent());
    assert_eq!(asked.spent().basis, Basis::Schedule);
    // The query after the last round comes also where it is not one of `every`.
    assert_eq!(after(3, &|ledger| (evaluation(ledger), evaluation(ledger)).1).spent().basis, Basis::Schedule);

    let departures: [&dyn Fn(&mut Ledger); 3] = [
        &|ledger| (evaluation(ledger), evaluation(ledger), evaluation(ledger)).2,
        &|ledger| _ = query(ledger, Occasion::Statistics, NOISE).unwrap(),
        &|ledger| _ = query(ledger, Occasion::Evaluation, quieter).unwrap(),
    ];
    for (number, depart) in departures.into_iter().enumerate() {
        assert_eq!(after(4, depart).spent().basis, Basis::Filter, "{number}");
    }
    // From then on what was charged counts, and only that.
    let departed = after(4, &|ledger| _ = query(ledger, Occasion::Statistics, NOISE).unwrap());
    let spending = departed.state().account().spending();
    assert_eq!(spending.seen_by(Adversary::Recipients).groups().iter().map(|group| group.1).sum::<u64>(), 5);
}

#[test]
fn a_limit_leaves_room_for_the_queries_of_the_rounds_that_it_allows() {
    // Five releases cost 2.258145: three rounds and two queries.
    let (mut ledger, _) = begin(asking(NOISE, NOISE, 2, 2.26));
    assert_eq!(ledger.state().account().rounds_left(&NOISE), Some(3));
    run(&mut ledger, NOISE, 3);
    assert!(matches!(reserve(&mut ledger, 4, NOISE), Err(ReserveError::Budget(_))));
    for _ in 0..2 {
        query(&mut ledger, Occasion::Evaluation, NOISE).unwrap();
    }
    assert!(matches!(query(&mut ledger, Occasion::Evaluation, NOISE), Err(ReserveError::Budget(_))));
    // A round to which nobody was invited takes its query with it.
    let (mut ledger, _) = begin(asking(NOISE, NOISE, 1, 8.0));
    run(&mut ledger, NOISE, 1);
    let before = ledger.spent();
    let record = reserve(&mut ledger, 2, NOISE).unwrap().record;
    ledger.abort(Abort { reserve: record, reason: "a test".to_owned(), refunded: true }).unwrap();
    assert_eq!(ledger.spent(), before);
}

#[test]
fn more_rounds_than_were_committed_are_a_departure() {
    let mut committed = terms(NOISE, 8.0);
    committed.schedule.rounds = Some(2);
    let (mut ledger, _) = begin(committed);
    run(&mut ledger, NOISE, 2);
    assert_eq!(ledger.spent().basis, Basis::Schedule);
    assert_eq!(reserve(&mut ledger, 3, NOISE).unwrap().price.basis, Basis::Filter);
}

#[test]
fn a_round_that_promises_less_than_the_budget_is_refused() {
    let (mut ledger, _) = begin(terms(NOISE, 8.0));
    assert!(matches!(reserve(&mut ledger, 1, RoundTerms::NONE), Err(ReserveError::Budget(_))));
    let mut against_server = terms(NOISE, 8.0);
    against_server.budget.as_mut().unwrap().limit_server = Epsilon::new(8.0).unwrap();
    let (mut ledger, _) = begin(against_server);
    let refused = reserve(&mut ledger, 1, NOISE).unwrap_err();
    assert!(refused.to_string().contains("inf"), "the server sees every update: {refused}");
    // Every client adds all of the noise, so it holds against the server, and for recipients it adds up.
    let mechanism = Mechanism::LocalGaussian { sensitivity: 1000, sigma: 4000, least_updates: 5 };
    let local = RoundTerms { mode: Mode::Local, mechanism, sampling: Sampling::All };
    let mut against_server = terms(local, 8.0);
    against_server.budget.as_mut().unwrap().limit_server = Epsilon::new(1.0).unwrap();
    let (mut ledger, _) = begin(against_server);
    let price = reserve(&mut ledger, 1, local).unwrap().price;
    assert!(price.epsilon(Adversary::Server) > price.epsilon(Adversary::Recipients));
    assert!(
        (price.epsilon(Adversary::Server).get() - 0.926_342).abs() < 1e-6,
        "dp_accounting 0.6.0: {price:?}"
    );
    assert!(matches!(reserve(&mut ledger, 2, local), Err(ReserveError::Budget(_))), "1.356467 for two");
}

#[test]
fn delta_must_be_below_one_over_the_population() {
    let mut beginning = genesis(terms(NOISE, 8.0));
    beginning.population.size = 100_001;
    let created = Ledger::create(beginning, signer(), Box::new(Memory::default()));
    assert!(matches!(created, Err(LedgerError::Disorder { record: 0, disorder: Disorder::Terms(_) })));
}

#[test]
fn a_new_epoch_begins_at_zero_and_keeps_what_the_old_one_spent() {
    let (mut ledger, memory) = begin(terms(NOISE, 2.26));
    run(&mut ledger, NOISE, 5);
    let population = Population { size: 50, ..genesis(terms(NOISE, 1.0)).population };
    let amend =
        |reason: &str| Amend { reason: reason.to_owned(), epoch: Some(population), terms: terms(NOISE, 1.0) };
    assert!(ledger.amend(amend(" ")).is_err(), "an amendment without a reason");
    ledger.amend(amend("new patients only")).unwrap();
    assert_eq!(ledger.spent().epsilon(Adversary::Recipients), Epsilon::ZERO);
    run(&mut ledger, NOISE, 1);
    assert!(matches!(reserve(&mut ledger, 2, NOISE), Err(ReserveError::Budget(_))));
    let opened = Ledger::open(&memory.contents(), signer(), Box::new(memory)).unwrap();
    let rounds: Vec<u64> = opened.state().epochs().iter().map(Account::charges).collect();
    assert_eq!((rounds, opened.state().population().size), (vec![5, 1], 50));
}

#[test]
fn within_an_epoch_limits_may_change_and_delta_may_not() {
    let (mut ledger, _) = begin(terms(NOISE, 2.26));
    run(&mut ledger, NOISE, 5);
    let amend = |terms: Terms| Amend { reason: "ethics committee".to_owned(), epoch: None, terms };
    let mut other_delta = terms(NOISE, 8.0);
    other_delta.budget.as_mut().unwrap().delta = Delta::new(1e-6).unwrap();
    let refused = ledger.amend(amend(other_delta)).unwrap_err();
    assert!(matches!(refused, LedgerError::Disorder { disorder: Disorder::Terms(_), .. }), "{refused}");
    ledger.amend(amend(terms(NOISE, 8.0))).unwrap();
    assert_eq!(reserve(&mut ledger, 6, NOISE).unwrap().price.basis, Basis::Schedule);
    let before = terms(NOISE, 8.0).schedule;
    let more_noise = Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 8000 };
    let schedule = Schedule { mechanism: more_noise, ..before };
    ledger.amend(amend(Terms { schedule, ..terms(NOISE, 8.0) })).unwrap();
    assert_eq!(ledger.spent().basis, Basis::Filter, "a schedule made after releases may react to them");
}

#[test]
fn after_a_rotation_only_the_new_key_goes_on() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    run(&mut ledger, NOISE, 1);
    ledger.rotate(Signer::from_seed(&[2; 32])).unwrap();
    let open =
        |seed: u8| Ledger::open(&memory.contents(), Signer::from_seed(&[seed; 32]), Box::new(memory.clone()));
    assert!(matches!(open(1), Err(LedgerError::Key { .. })));
    let mut ledger = open(2).unwrap();
    run(&mut ledger, NOISE, 1);
    assert!(open(2).is_ok() && open(3).is_err());
}

#[test]
fn whoever_believed_a_key_follows_its_rotations_and_no_forged_one() {
    let key = |seed: u8| Signer::from_seed(&[seed; 32]).key();
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    for seed in [2, 3] {
        run(&mut ledger, NOISE, 1);
        ledger.rotate(Signer::from_seed(&[seed; 32])).unwrap();
    }
    let rotations = ledger.rotations().to_vec();
    let opened =
        Ledger::open(&memory.contents(), Signer::from_seed(&[3; 32]), Box::new(memory.clone())).unwrap();
    assert_eq!(opened.rotations(), rotations);
    assert_eq!(follow_rotations(key(1), &rotations), key(3));
    assert_eq!(follow_rotations(key(2), &rotations), key(3), "pinned after the first");
    assert_eq!(follow_rotations(key(3), &rotations), key(3));
    assert_eq!(follow_rotations(key(9), &rotations), key(9), "never this ledger's key");
    assert_eq!(follow_rotations(key(1), &rotations[1..]), key(1), "not without the first");
    for at in 0..rotations[0].len() {
        let mut forged = rotations.clone();
        forged[0][at] ^= 1;
        assert_eq!(follow_rotations(key(1), &forged), key(1), "byte {at}");
    }
    // Signed by the old key, but the new key's owner never agreed.
    let mut record = Record::read(&rotations[0]).unwrap();
    let Body::KeyRotate(rotate) = &mut record.body else { panic!("a rotation") };
    rotate.key = key(9);
    assert_eq!(follow_rotations(key(1), &[record.sign(&signer())]), key(1));
}

fn limited(max: u64, min_separation: u64) -> Terms {
    Terms { participation: Some(Participation { max, min_separation }), ..terms(NOISE, 100.0) }
}

#[test]
fn a_client_is_invited_no_more_often_and_no_sooner_than_the_terms_allow_also_after_opening() {
    let (mut ledger, memory) = begin(limited(2, 3));
    let invite = |ledger: &mut Ledger, round, client: u64| {
        ledger.reserve(&request(round, NOISE), [client, 50 + round]).map(|_| ())
    };
    invite(&mut ledger, 1, 7).unwrap();
    invite(&mut ledger, 2, 8).unwrap();
    let refused = invite(&mut ledger, 3, 7).unwrap_err();
    let soon = Excess::Separation { since: 2, least: 3 };
    assert!(
        matches!(refused, ReserveError::Participation { client: 7, excess } if excess == soon),
        "{refused}"
    );
    assert!(!ledger.may_invite(7) && !ledger.may_invite(8) && ledger.may_invite(9));
    invite(&mut ledger, 3, 9).unwrap();
    invite(&mut ledger, 4, 7).unwrap();
    for round in 5..=6 {
        invite(&mut ledger, round, round).unwrap();
    }
    let often = Excess::Participations { most: 2 };
    let size = ledger.state().size();
    let reopened = Ledger::open(&memory.contents(), signer(), Box::new(memory.clone())).unwrap();
    for mut ledger in [ledger, reopened] {
        let refused = invite(&mut ledger, 7, 7).unwrap_err();
        assert!(
            matches!(refused, ReserveError::Participation { client: 7, excess } if excess == often),
            "{refused}"
        );
        assert_eq!(ledger.state().size(), size, "nothing was charged");
        assert!(ledger.may_invite(8));
        // A query is no round.
        query(&mut ledger, Occasion::Statistics, NOISE).unwrap();
        let epoch = Some(ledger.state().population());
        ledger.amend(Amend { reason: "new data".to_owned(), epoch, terms: limited(2, 3) }).unwrap();
        invite(&mut ledger, 1, 7).unwrap();
    }
}

#[test]
fn a_round_to_which_nobody_was_invited_is_no_participation_and_no_distance() {
    let (mut ledger, memory) = begin(limited(5, 2));
    let _ = ledger.reserve(&request(1, NOISE), [1]).unwrap();
    let lost = ledger.reserve(&request(2, NOISE), [2]).unwrap().record;
    ledger.abort(Abort { reserve: lost, reason: "a test".to_owned(), refunded: true }).unwrap();
    assert!(!ledger.may_invite(1), "the refunded round is no round in between");
    let again = Ledger::open(&memory.contents(), signer(), Box::new(memory)).unwrap();
    assert!(!again.may_invite(1) && again.may_invite(2));
}

#[test]
fn limits_are_not_kept_by_guessing_where_the_list_of_cohorts_is_lost_or_changed() {
    let (mut ledger, memory) = begin(limited(5, 1));
    for round in 1..=3 {
        let _ = ledger.reserve(&request(round, NOISE), [round]).unwrap();
    }
    let open = |storage: Memory| Ledger::open(&memory.contents(), signer(), Box::new(storage));
    assert!(open(memory.clone()).is_ok());
    let refused = open(Memory::default()).unwrap_err();
    assert!(
        matches!(&refused, LedgerError::Cohorts { problem } if problem.contains("record 1")),
        "{refused}"
    );
    // The same rounds with other clients: not what was signed for.
    let (mut other, others) = begin(limited(5, 1));
    for round in 1..=3 {
        let _ = other.reserve(&request(round, NOISE), [round + u64::from(round == 2)]).unwrap();
    }
    let refused = open(others).unwrap_err();
    assert!(
        matches!(&refused, LedgerError::Cohorts { problem } if problem.contains("record 2")),
        "{refused}"
    );
    // After a rotation the earlier rounds are vouched for by the earlier key.
    ledger.rotate(Signer::from_seed(&[2; 32])).unwrap();
    let _ = ledger.reserve(&request(4, NOISE), [4]).unwrap();
    assert!(Ledger::open(&memory.contents(), Signer::from_seed(&[2; 32]), Box::new(memory.clone())).is_ok());
}

#[test]
fn checkpoints_of_a_growing_ledger_are_consistent() {
    let (mut ledger, _) = begin(terms(NOISE, 100.0));
    let mut seen = Vec::new();
    for _ in 0..9 {
        run(&mut ledger, NOISE, 1);
        ledger.seal().unwrap();
        seen.push((ledger.state().size(), ledger.state().root()));
    }
    let (size, root) = seen[8];
    for (old, old_root) in seen {
        let proof = ledger.proofs().consistency(old, size).unwrap();
        assert!(is_consistent(old, old_root, size, root, &proof), "{old}");
    }
}

/// A storage that fails after some records.
struct Failing(Memory, u32);

impl Storage for Failing {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        if self.1 == 0 {
            self.0.append(&bytes[..bytes.len() / 2])?;
            return Err("no space left".into());
        }
        self.1 -= 1;
        self.0.append(bytes)
    }

    fn keep(&mut self, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn keep_cohort(&mut self, _: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn cohorts(&mut self) -> Result<Vec<u8>, StorageError> {
        Ok(Vec::new())
    }

    fn now_ms(&self) -> u64 {
        0
    }
}

#[test]
fn a_record_that_is_not_stored_gives_no_reservation_and_ends_the_ledger() {
    let memory = Memory::default();
    let storage = Box::new(Failing(memory.clone(), 3));
    let mut ledger = Ledger::create(genesis(terms(NOISE, 8.0)), signer(), storage).unwrap();
    run(&mut ledger, NOISE, 1);
    let spent = ledger.spent();
    let failed = reserve(&mut ledger, 2, NOISE).unwrap_err();
    assert!(matches!(failed, ReserveError::Ledger(LedgerError::Storage(_))), "{failed}");
    let again = reserve(&mut ledger, 2, NOISE).unwrap_err();
    assert!(matches!(again, ReserveError::Ledger(LedgerError::Broken)), "{again}");
    assert!(ledger.state().account().charges() == 2, "it may be on disk, so it counts");
    let contents = memory.contents();
    let mut frames = Frames::new(&contents).unwrap();
    assert!(frames.by_ref().any(|record| record.is_err()));
    let whole = &contents[..frames.offset()];
    let opened = Ledger::open(whole, signer(), Box::new(Memory::default())).unwrap();
    assert_eq!(opened.spent(), spent);
}

#[test]
fn the_participants_of_a_round_are_hidden_and_different_in_every_round() {
    let (mut ledger, memory) = begin(terms(NOISE, 100.0));
    for round in 1..=2 {
        ledger.reserve(&request(round, NOISE), [3, 5]).unwrap();
    }
    ledger.reserve(&request(3, NOISE), [3, 6]).unwrap();
    let mut roots: Vec<_> = records(&memory)
        .into_iter()
        .filter_map(|record| match record.body {
            Body::Reserve(reserve) => Some((reserve.cohort, reserve.participants)),
            _ => None,
        })
        .collect();
    assert!(roots.iter().all(|(cohort, _)| *cohort == Some(2)));
    roots.dedup();
    assert_eq!(roots.len(), 3);
}

#[test]
fn under_poisson_sampling_the_ledger_does_not_say_how_many_took_part() {
    let (mut ledger, memory) = begin(terms(poisson(0.1), 8.0));
    run(&mut ledger, poisson(0.1), 1);
    for record in records(&memory) {
        match record.body {
            Body::Reserve(reserve) => assert_eq!(reserve.cohort, None),
            Body::Settle(settle) => assert_eq!(settle.updates, None),
            _ => {}
        }
    }
}

/// One record of each kind, as published. A change here is a change of the format: it needs another domain.
#[test]
fn records_are_encoded_as_the_published_vectors() {
    let published = include_str!("vectors.txt");
    let vectors = support::one_of_each();
    let printed: String = vectors
        .iter()
        .map(|(record, bytes)| format!("{} {}\n", record.body.kind(), data_encoding::HEXLOWER.encode(bytes)))
        .collect();
    let lines: String =
        published.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert!(printed == lines, "the vectors are now\n{printed}");
    for (record, bytes) in vectors {
        assert_eq!(Record::read(&bytes), Ok(record));
    }
}
