//! The audit: whatever is done to a ledger, by an accident or by its own keeper, is seen and named.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod forgery;
#[path = "../ledger/support.rs"]
#[allow(dead_code, reason = "every test file uses its own part")]
mod support;

use forgery::{pieces, rebuilt, with_checksums};
use skep_privacy::adversary::Adversary;
use skep_privacy::audit::{
    Given, Kind, ModelClaim, Part, Participated, Report, Rollback, Verdict, audit, audit_participation,
    audit_store,
};
use skep_privacy::ledger::{
    Abort, Account, Amend, Basis, Body, Hash, Ledger, Memory, Mode, Occasion, Participation, Population,
    Provenance, Request, Reserve, RoundTerms, Settle, Signer, Terms,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::{Epsilon, Sampling, SamplingRate};
use support::{asking, begin, genesis, query, request, reserve, settle, signer, terms};

const NOISE: RoundTerms = RoundTerms {
    mode: Mode::Central,
    mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 },
    sampling: Sampling::All,
};

fn poisson(rate: f64, sigma: u64) -> RoundTerms {
    RoundTerms {
        sampling: Sampling::Poisson { rate: SamplingRate::new(rate).unwrap() },
        mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma },
        ..NOISE
    }
}

/// Three rounds that follow from each other, one that is lost, a checkpoint, a rotation, and a round after it.
fn ledger() -> (Vec<u8>, String) {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    forgery::path(&mut ledger, NOISE, 1..=3);
    let _ = reserve(&mut ledger, 4, NOISE).unwrap();
    ledger.seal().unwrap();
    ledger.rotate(Signer::from_seed(&[2; 32])).unwrap();
    // The lost round released nothing, so the next one begins where it began.
    let begins = Request { model_in: forgery::model(3), ..request(5, NOISE) };
    let record = ledger.reserve(&begins, 0..10).unwrap().record;
    settle(&mut ledger, record);
    (memory.contents(), ledger.note())
}

fn pinned() -> Given {
    Given { keys: vec![signer().key()], ..Given::default() }
}

fn with_checkpoint(note: &str) -> Given {
    Given { checkpoints: vec![("the checkpoint".to_owned(), note.to_owned())], ..pinned() }
}

#[track_caller]
fn expect(report: &Report, verdict: Verdict, record: Option<u64>) {
    assert_eq!(report.verdict, verdict, "{:#?}", report.findings);
    let named =
        report.findings.iter().any(|finding| record.is_none_or(|record| finding.record == Some(record)));
    assert!(named, "record {record:?} is not named: {:?}", report.findings);
}

#[test]
fn t21_an_honest_ledger_passes_and_says_what_was_not_checked() {
    let (contents, note) = ledger();
    for given in [pinned(), Given { every_signature: true, every_claim: true, ..pinned() }] {
        let report = audit(&contents, &given);
        assert_eq!(
            (report.verdict, report.rollback),
            (Verdict::Ok, Rollback::NotChecked),
            "{:?}",
            report.findings
        );
        assert!(report.checked.iter().any(|checked| checked.detail.contains("rollback was not checked")));
        let rounds = report.rounds;
        assert_eq!((rounds.reserved, rounds.settled, rounds.orphans), (5, 4, 1));
        assert!(
            (report.epochs[0].recomputed.0.get() - 2.258_145).abs() < 1e-6,
            "dp_accounting 0.6.0, five rounds"
        );
        assert!(!report.epochs[0].recomputed.1.is_finite(), "the server sees every update");
        assert!(report.epochs[0].renyi.0 > report.epochs[0].recomputed.0);
    }
    assert_eq!(audit(&contents, &with_checkpoint(&note)).rollback, Rollback::Checked(1));
    let unpinned = audit(&contents, &Given::default());
    assert_eq!(unpinned.verdict, Verdict::Ok);
    assert!(!unpinned.key.as_ref().unwrap().pinned);
    let fingerprint = signer().key().fingerprint().to_string();
    assert!(
        unpinned.checked.iter().any(|c| c.detail.contains("not pinned") && c.detail.contains(&fingerprint))
    );
}

#[test]
fn t21_every_flipped_byte_is_tamper_and_names_its_record() {
    let (contents, _) = ledger();
    let (pieces, ends) = pieces(&contents);
    for at in 0..contents.len() {
        let mut bad = contents.clone();
        bad[at] ^= 1 << (at % 8);
        let record = ends.iter().position(|end| at < *end);
        expect(
            &audit(&bad, &pinned()),
            Verdict::Tampered,
            record.filter(|_| at >= 16).map(|record| record as u64),
        );
    }
    assert_eq!(pieces.len(), ends.len());
}

#[test]
fn t21_every_flipped_byte_under_a_right_checksum_is_tamper_and_names_its_record() {
    let (contents, _) = ledger();
    let (pieces, _) = pieces(&contents);
    for (record, piece) in pieces.iter().enumerate() {
        for at in 0..piece.len() {
            let mut bad = pieces.clone();
            bad[record][at] ^= 1 << (at % 8);
            expect(&audit(&with_checksums(&bad), &pinned()), Verdict::Tampered, Some(record as u64));
        }
    }
}

#[test]
fn t21_every_record_dropped_doubled_or_moved_is_tamper() {
    let (contents, note) = ledger();
    let (pieces, _) = pieces(&contents);
    let last = pieces.len() - 1;
    for record in 0..pieces.len() {
        let mut dropped = pieces.clone();
        dropped.remove(record);
        let report = audit(&with_checksums(&dropped), &with_checkpoint(&note));
        expect(&report, Verdict::Tampered, Some(record as u64));
        if record == last {
            let blind = audit(&with_checksums(&dropped), &pinned());
            assert_eq!((blind.verdict, blind.rollback), (Verdict::Ok, Rollback::NotChecked));
        }
        let mut doubled = pieces.clone();
        doubled.insert(record, pieces[record].clone());
        expect(&audit(&with_checksums(&doubled), &pinned()), Verdict::Tampered, Some(record as u64 + 1));
        for other in record + 1..pieces.len() {
            let mut moved = pieces.clone();
            moved.swap(record, other);
            expect(&audit(&with_checksums(&moved), &pinned()), Verdict::Tampered, Some(record as u64));
        }
    }
}

#[test]
fn t21_a_dropped_tail_is_seen_by_whoever_kept_a_checkpoint_or_a_model_file() {
    let (contents, note) = ledger();
    let (pieces, _) = pieces(&contents);
    let model =
        ModelClaim { digest: Hash::of(b"model"), epsilon: None, delta: None, checkpoint: Some(note.clone()) };
    for kept in 1..pieces.len() {
        let cut = with_checksums(&pieces[..kept]);
        expect(&audit(&cut, &with_checkpoint(&note)), Verdict::Tampered, Some(kept as u64));
        let report = audit(&cut, &Given { model: Some(model.clone()), ..pinned() });
        expect(&report, Verdict::Tampered, Some(kept as u64));
        assert!(report.findings.iter().any(|finding| finding.kind == Kind::RolledBack));
    }
}

#[test]
fn t21_a_history_that_forks_is_seen_by_whoever_kept_a_checkpoint() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    forgery::path(&mut ledger, NOISE, 1..=1);
    let trunk = memory.contents();
    let _ = reserve(&mut ledger, 2, NOISE).unwrap();
    let _ = reserve(&mut ledger, 2, NOISE).unwrap();
    let note = ledger.note();
    let other = Memory::default();
    let mut fork = Ledger::open(&trunk, signer(), Box::new(other.clone())).unwrap();
    forgery::path(&mut fork, NOISE, 2..=4);
    let forked = [trunk, other.contents()].concat();
    assert_eq!(audit(&forked, &pinned()).verdict, Verdict::Ok, "a fork is whole by itself");
    let size = ledger.state().size();
    expect(&audit(&forked, &with_checkpoint(&note)), Verdict::Tampered, Some(size - 1));
    assert_eq!(audit(&memory.contents(), &with_checkpoint(&note)).verdict, Verdict::Ok);
}

#[test]
fn t21_swapped_keys_are_tamper() {
    let (contents, note) = ledger();
    let other = Given { keys: vec![Signer::from_seed(&[9; 32]).key()], ..Given::default() };
    let report = audit(&contents, &other);
    expect(&report, Verdict::Tampered, Some(0));
    assert!(report.findings.iter().any(|finding| finding.kind == Kind::UnknownKey));
    // The whole history written anew by somebody else, and one record signed by somebody else.
    let stranger = rebuilt(&contents, &Signer::from_seed(&[9; 32]), |_, _| {});
    expect(&audit(&stranger, &pinned()), Verdict::Tampered, Some(0));
    expect(&audit(&stranger, &Given { keys: Vec::new(), ..with_checkpoint(&note) }), Verdict::Tampered, None);
    let (mut pieces, _) = pieces(&contents);
    for record in 0..pieces.len() {
        let honest = pieces[record].clone();
        let text = honest.len() - 64;
        pieces[record].truncate(text);
        let forged = Signer::from_seed(&[9; 32]).sign(&honest[..text]);
        pieces[record].extend(forged);
        expect(&audit(&with_checksums(&pieces), &pinned()), Verdict::Tampered, Some(record as u64));
        pieces[record] = honest;
    }
}

#[test]
fn t21_an_incomplete_last_record_is_tamper_under_its_own_name() {
    let (contents, _) = ledger();
    let (_, ends) = pieces(&contents);
    let last = ends[ends.len() - 2];
    for cut in last + 1..contents.len() {
        let report = audit(&contents[..cut], &pinned());
        expect(&report, Verdict::Tampered, Some(ends.len() as u64 - 1));
        assert_eq!(report.findings[0].kind, Kind::IncompleteLastRecord);
        assert_eq!(report.records, ends.len() as u64 - 1, "what is whole is still read");
    }
    assert_eq!(audit(b"", &pinned()).findings[0].kind, Kind::IncompleteLastRecord);
    assert_eq!(audit(b"PNG picture of a ledger", &pinned()).verdict, Verdict::Tampered);
}

#[test]
fn a_seeded_run_certifies_nothing() {
    let (contents, _) = ledger();
    let seeded = rebuilt(&contents, &signer(), |_, body| {
        if let Body::Genesis(genesis) = body {
            genesis.provenance = Provenance::SeededSimulation;
        }
    });
    expect(&audit(&seeded, &pinned()), Verdict::Unverifiable, Some(0));
    assert_eq!(Verdict::Unverifiable.exit_code(), 4);
}

#[test]
fn a_keeper_who_states_less_than_was_spent_is_found_out() {
    let (contents, _) = ledger();
    let lowered = rebuilt(&contents, &signer(), |number, body| {
        if let (5, Body::Reserve(reserve)) = (number, body) {
            reserve.epsilon_release = Epsilon::new(reserve.epsilon_release.get() - 1e-4).unwrap();
        }
    });
    expect(&audit(&lowered, &pinned()), Verdict::Mismatch, Some(5));
    let server = rebuilt(&contents, &signer(), |number, body| {
        if let (5, Body::Reserve(reserve)) = (number, body) {
            reserve.epsilon_server = Epsilon::new(100.0).unwrap();
        }
    });
    expect(&audit(&server, &pinned()), Verdict::Mismatch, Some(5));
    let cautious = rebuilt(&contents, &signer(), |_, body| {
        if let Body::Reserve(reserve) = body {
            reserve.epsilon_release = Epsilon::new(reserve.epsilon_release.get() + 0.1).unwrap();
        }
    });
    assert_eq!(audit(&cautious, &pinned()).verdict, Verdict::Ok, "a claim above the truth promises less");
}

#[test]
fn a_keeper_who_spends_more_than_the_limit_is_found_out() {
    let (contents, _) = ledger();
    let over = rebuilt(&contents, &signer(), |_, body| {
        if let Body::Genesis(genesis) = body {
            genesis.terms.budget.as_mut().unwrap().limit_release = Epsilon::new(1.5).unwrap();
        }
    });
    // Two rounds cost 1.356467, the third, in record 5, is too much.
    expect(&audit(&over, &pinned()), Verdict::OverBudget, Some(5));
}

#[test]
fn a_keeper_who_hides_a_departure_from_the_schedule_is_found_out() {
    let (mut ledger, memory) = begin(terms(poisson(0.1, 4000), 8.0));
    forgery::path(&mut ledger, poisson(0.1, 4000), 1..=3);
    forgery::path(&mut ledger, poisson(0.2, 4000), 4..=5);
    let report = audit(&memory.contents(), &pinned());
    assert_eq!((report.verdict, report.epochs[0].off_schedule), (Verdict::Ok, 2), "{:?}", report.findings);
    let hidden = rebuilt(&memory.contents(), &signer(), |_, body| {
        if let Body::Reserve(reserve) = body {
            reserve.basis = skep_privacy::ledger::Basis::Schedule;
        }
    });
    expect(&audit(&hidden, &pinned()), Verdict::Mismatch, Some(7));
}

#[test]
fn a_model_that_no_round_released_breaks_the_path() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    forgery::path(&mut ledger, NOISE, 1..=2);
    let honest = memory.contents();
    assert_eq!(audit(&honest, &pinned()).verdict, Verdict::Ok);
    let broken = rebuilt(&honest, &signer(), |number, body| {
        if let (3, Body::Reserve(reserve)) = (number, body) {
            reserve.model_in = Hash::of(b"from elsewhere");
        }
    });
    expect(&audit(&broken, &pinned()), Verdict::Mismatch, Some(3));
}

#[test]
fn the_claim_inside_a_model_file_is_compared_with_its_release() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    forgery::path(&mut ledger, NOISE, 1..=2);
    let claim = |epsilon: f64, digest| ModelClaim {
        digest,
        epsilon: Some(Epsilon::new(epsilon).unwrap()),
        delta: Some(skep_privacy::quantities::Delta::new(1e-5).unwrap()),
        checkpoint: Some(ledger.note()),
    };
    let judge = |model| audit(&memory.contents(), &Given { model: Some(model), ..pinned() });
    let released = forgery::model(2);
    // dp_accounting 0.6.0: noise multiplier 4 costs 1.356467 for two rounds and .926342 for one.
    assert_eq!(judge(claim(1.356_467, released)).verdict, Verdict::Ok);
    expect(&judge(claim(1.356, released)), Verdict::Mismatch, Some(4));
    assert_eq!(judge(claim(0.926_343, forgery::model(1))).verdict, Verdict::Ok, "later rounds do not count");
    expect(&judge(claim(8.0, Hash::of(b"another model"))), Verdict::Mismatch, None);
    expect(&judge(ModelClaim { epsilon: None, ..claim(8.0, released) }), Verdict::Mismatch, Some(4));
    let delta = skep_privacy::quantities::Delta::new(1e-4).unwrap();
    expect(&judge(ModelClaim { delta: Some(delta), ..claim(8.0, released) }), Verdict::Mismatch, Some(4));
}

#[test]
fn epochs_are_shown_apart_and_added() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    forgery::path(&mut ledger, NOISE, 1..=2);
    let population: Population = genesis(terms(NOISE, 8.0)).population;
    let next: Terms = terms(NOISE, 8.0);
    ledger.amend(Amend { reason: "a new year".to_owned(), epoch: Some(population), terms: next }).unwrap();
    forgery::path(&mut ledger, NOISE, 3..=4);
    let report = audit(&memory.contents(), &pinned());
    assert_eq!((report.verdict, report.epochs.len()), (Verdict::Ok, 2), "{:?}", report.findings);
    assert_eq!(report.epochs[1].reason.as_deref(), Some("a new year"));
    assert!((report.epochs[1].recomputed.0.get() - 1.356_467).abs() < 1e-6);
    let all = report.all_epochs.unwrap();
    assert!((all.epsilon_release.get() - 2.0 * 1.356_467).abs() < 1e-5 && all.delta == 2e-5, "{all:?}");
}

#[test]
fn of_many_claims_some_are_recomputed_and_the_rest_are_bounded() {
    let (mut ledger, memory) = begin(terms(poisson(0.01, 1000), 1e6));
    forgery::path(&mut ledger, poisson(0.01, 1000), 1..=200);
    let some = audit(&memory.contents(), &pinned());
    let all = audit(&memory.contents(), &Given { every_claim: true, ..pinned() });
    assert_eq!((some.verdict, all.verdict), (Verdict::Ok, Verdict::Ok), "{:?}", some.findings);
    let (some, all) = (&some.epochs[0], &all.epochs[0]);
    assert_eq!((all.exact_claims, all.bounded_claims, all.bound), (200, 0, 0.0));
    assert_eq!(some.exact_claims + some.bounded_claims, 200);
    assert!(some.exact_claims < 40 && some.bound > 0.0 && some.bound < 10.0, "{some:?}");
    // A claim that falls below the one before it is seen although it is not recomputed.
    let dented = rebuilt(&memory.contents(), &signer(), |number, body| {
        if let (101, Body::Reserve(reserve)) = (number, body) {
            reserve.epsilon_release = Epsilon::new(0.1).unwrap();
        }
    });
    expect(&audit(&dented, &pinned()), Verdict::Mismatch, Some(101));
}

#[test]
fn an_audit_of_three_hundred_kinds_of_rounds_agrees_with_the_ledger() {
    let (mut ledger, memory) = begin(terms(poisson(0.01, 1000), 100.0));
    for round in 1..=60_u64 {
        forgery::path(&mut ledger, poisson(0.01, 1000 + round), round..=round);
    }
    let report = audit(&memory.contents(), &pinned());
    assert_eq!((report.verdict, report.epochs[0].off_schedule), (Verdict::Ok, 60), "{:?}", report.findings);
}

#[test]
fn a_client_that_was_shown_or_promised_something_else_is_noticed() {
    let (mut ledger, memory) = begin(terms(NOISE, 8.0));
    let mut store = Vec::new();
    for round in 1..=3 {
        let reserved = ledger.reserve(&request(round, NOISE), 0..10).unwrap();
        store.push(Participated {
            is_query: false,
            origin: "skep/test".to_owned(),
            task: Hash::of(b"task"),
            round,
            plan: Hash::of(b"plan"),
            epsilon_release: reserved.price.epsilon(Adversary::Recipients),
            epsilon_server: reserved.price.epsilon(Adversary::Server),
            size: ledger.state().size(),
            root: ledger.state().root(),
        });
        let settle = Settle {
            reserve: reserved.record,
            plan: Hash::of(b"plan"),
            aggregate: Hash::ZERO,
            model_out: forgery::model(round),
            updates: Some(9),
            sealed: Vec::new(),
        };
        ledger.settle(settle, None).unwrap();
    }
    let contents = memory.contents();
    let audited = |contents: &[u8], store: &[Participated]| {
        let mut report = audit(contents, &pinned());
        audit_store(contents, "the store", store, &mut report);
        report
    };
    let honest = audited(&contents, &store);
    assert_eq!(
        (honest.verdict, honest.rollback),
        (Verdict::Ok, Rollback::Checked(3)),
        "{:?}",
        honest.findings
    );
    let changed = |change: &dyn Fn(&mut Participated)| {
        let mut store = store.clone();
        change(&mut store[1]);
        audited(&contents, &store)
    };
    expect(&changed(&|one| one.epsilon_release = Epsilon::new(0.5).unwrap()), Verdict::Mismatch, Some(3));
    expect(&changed(&|one| one.plan = Hash::ZERO), Verdict::Mismatch, Some(3));
    expect(&changed(&|one| one.round = 9), Verdict::Mismatch, Some(3));
    expect(&changed(&|one| one.root = Hash::ZERO), Verdict::Tampered, Some(3));
    expect(&changed(&|one| one.size = 99), Verdict::Tampered, Some(98));
    // The tail that the client saw was cut off.
    let (pieces, _) = pieces(&contents);
    expect(&audited(&with_checksums(&pieces[..5]), &store), Verdict::Tampered, Some(5));
    let elsewhere = changed(&|one| one.origin = "skep/other".to_owned());
    assert_eq!((elsewhere.verdict, elsewhere.rollback), (Verdict::Ok, Rollback::Checked(2)));
    // More often than the terms allow, as only the client can tell without the list of cohorts.
    let limit = Some(Participation { max: 2, min_separation: 1 });
    let limited = Terms { participation: limit, ..terms(NOISE, 8.0) };
    let broken = rebuilt(&contents, &signer(), move |_, body| {
        if let Body::Genesis(genesis) = body {
            genesis.terms = limited;
        }
    });
    let found = audited(&broken, &store).findings;
    assert!(found.iter().any(|finding| finding.what.contains("should not have been")), "{found:?}");
}

#[test]
fn queries_are_recomputed_like_rounds_and_are_on_no_path_of_models() {
    for (occasion, first) in [(Occasion::Statistics, true), (Occasion::Evaluation, false)] {
        let (mut ledger, memory) = begin(terms(NOISE, 8.0));
        let rounds = |ledger: &mut Ledger, rounds| forgery::path(ledger, NOISE, rounds);
        if !first {
            rounds(&mut ledger, 1..=2);
        }
        let asked = query(&mut ledger, occasion, poisson(0.1, 2000)).unwrap().record;
        settle(&mut ledger, asked);
        rounds(&mut ledger, if first { 1..=4 } else { 3..=4 });
        let report = audit(&memory.contents(), &Given { every_claim: true, ..pinned() });
        assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
        assert_eq!((report.rounds.reserved, report.rounds.queries, report.epochs[0].off_schedule), (5, 1, 0));
        let claimed = report.epochs[0].claimed.unwrap().0;
        assert!((claimed.get() - report.epochs[0].recomputed.0.get()).abs() < 1e-9);
        let lie = rebuilt(&memory.contents(), &signer(), |_, body| {
            if let Body::Reserve(reserve) = body
                && reserve.occasion == occasion
            {
                reserve.mechanism = Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 1500 };
            }
        });
        assert_eq!(audit(&lie, &pinned()).verdict, Verdict::Mismatch);
    }
}

#[test]
fn a_query_stays_one_of_the_schedule_when_the_round_before_it_is_taken_back() {
    let (mut ledger, memory) = begin(asking(NOISE, NOISE, 2, 8.0));
    let lost = reserve(&mut ledger, 1, NOISE).unwrap().record;
    let asked = query(&mut ledger, Occasion::Evaluation, NOISE).unwrap().record;
    settle(&mut ledger, asked);
    let abort = Abort { reserve: lost, reason: "a test".to_owned(), refunded: true };
    ledger.abort(abort).unwrap();
    forgery::path(&mut ledger, NOISE, 1..=1);
    let report = audit(&memory.contents(), &Given { every_claim: true, ..pinned() });
    assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
    let epoch = &report.epochs[0];
    let (claimed, recomputed) = (epoch.claimed.unwrap().0, epoch.recomputed.0);
    assert!((claimed.get() - recomputed.get()).abs() < 1e-9, "{claimed} {recomputed}");
}

#[test]
fn queries_of_the_schedule_are_recomputed_and_others_are_refused_where_they_are_taken_for_it() {
    let limits = Some(Participation { max: 4, min_separation: 1 });
    let terms = Terms { participation: limits, ..asking(NOISE, poisson(0.1, 2000), 2, 8.0) };
    let path = |asks: &[(u64, RoundTerms)]| {
        let (mut ledger, memory) = begin(terms);
        for round in 1..=4 {
            forgery::path(&mut ledger, NOISE, round..=round);
            for (_, asked) in asks.iter().filter(|(after, _)| *after == round) {
                let record = query(&mut ledger, Occasion::Evaluation, *asked).unwrap().record;
                settle(&mut ledger, record);
            }
        }
        assert!(!ledger.may_invite(0), "four rounds are all that the terms allow, and queries do not count");
        memory.contents()
    };
    let planned = poisson(0.1, 2000);
    let every = Given { every_claim: true, ..pinned() };
    // Asked as planned, or not at all: epsilon is the same, that of the schedule.
    for asks in [&[(2, planned), (4, planned)][..], &[]] {
        let contents = path(asks);
        let report = audit(&contents, &every);
        assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
        let epoch = &report.epochs[0];
        assert_eq!((epoch.basis, epoch.departed, epoch.queries), (Basis::Schedule, None, asks.len() as u64));
        let (claimed, recomputed) = (epoch.claimed.unwrap().0, epoch.recomputed.0);
        assert!((claimed.get() - recomputed.get()).abs() < 1e-9 && epoch.renyi.0 > recomputed);
        // What the queries cost cannot be left out.
        let without = Account::new(support::terms(NOISE, 8.0)).after(&NOISE, 4).spent();
        let lie = rebuilt(&contents, &signer(), |_, body| {
            if let Body::Reserve(Reserve { occasion: Occasion::Round, round: 4, epsilon_release, .. }) = body
            {
                *epsilon_release = without.epsilon(Adversary::Recipients);
            }
        });
        assert_eq!(audit(&lie, &every).verdict, Verdict::Mismatch);
    }
    for (number, asks) in [
        &[(2, NOISE)][..],
        &[(2, planned), (2, planned)],
        &[(1, planned), (2, planned), (3, planned), (3, planned)],
    ]
    .into_iter()
    .enumerate()
    {
        let contents = path(asks);
        let report = audit(&contents, &every);
        assert_eq!(report.verdict, Verdict::Ok, "{number}: {:?}", report.findings);
        assert!(report.epochs[0].basis == Basis::Filter && report.epochs[0].departed.is_some(), "{number}");
        let hidden = rebuilt(&contents, &signer(), |_, body| {
            if let Body::Reserve(reserve) = body {
                reserve.basis = Basis::Schedule;
            }
        });
        expect(&audit(&hidden, &every), Verdict::Mismatch, report.epochs[0].departed);
    }
}

#[test]
fn participation_limits_are_checked_by_whoever_has_the_list_of_cohorts_and_its_key() {
    // No round releases anything, so all begin with the same model.
    let invite = |round| Request { model_in: Hash::ZERO, ..request(round, NOISE) };
    let limit = Some(Participation { max: 2, min_separation: 2 });
    let (mut ledger, memory) = begin(Terms { participation: limit, ..terms(NOISE, 100.0) });
    // A keeper that does not keep to the limits: another ledger without them has signed for the same cohorts.
    let (mut careless, carelessly) = begin(terms(NOISE, 100.0));
    for (round, clients) in (1..).zip([[1, 2], [3, 4], [1, 2], [3, 4]]) {
        let _ = ledger.reserve(&invite(round), clients).unwrap();
        let _ = careless.reserve(&invite(round), clients).unwrap();
    }
    let _ = ledger.reserve(&invite(5), [5, 6]).unwrap();
    let _ = careless.reserve(&invite(5), [5, 1]).unwrap();
    let key = [signer().participants().clone()];
    let checked = |contents: &[u8], kept: &[u8], keys: &[_]| {
        let mut report = audit(contents, &pinned());
        let before = report.checked.iter().find(|checked| checked.part == Part::Participation).cloned();
        assert!(before.is_none_or(|before| !before.done && before.detail.contains("not checked")));
        audit_participation(contents, kept, keys, &mut report);
        let checked = report.checked.iter().find(|checked| checked.part == Part::Participation).unwrap();
        let found = report.findings.iter().map(|finding| (finding.record, finding.what.clone())).collect();
        let found: Vec<(Option<u64>, String)> = found;
        (report.verdict, checked.done, checked.detail.clone(), found)
    };
    let (contents, kept) = (memory.contents(), memory.kept_cohorts());
    let (verdict, done, detail, found) = checked(&contents, &kept, &key);
    assert_eq!((verdict, done, found), (Verdict::Ok, true, vec![]), "{detail}");
    assert!(detail.contains("all 5 rounds"), "{detail}");
    let (verdict, .., found) =
        checked(&contents, &kept, &[Signer::from_seed(&[9; 32]).participants().clone()]);
    assert_eq!((verdict, found.len()), (Verdict::Mismatch, 5), "another key");
    let (verdict, done, detail, _) = checked(&contents, &kept[..kept.len() - 1], &key);
    assert_eq!((verdict, done), (Verdict::Ok, false), "{detail}");
    assert!(detail.contains("1 of 5"), "{detail}");
    // The careless ledger under the terms of the careful one, with the list of what it really did.
    let terms = Terms { participation: limit, ..terms(NOISE, 100.0) };
    let lie = rebuilt(&carelessly.contents(), &signer(), move |_, body| {
        if let Body::Genesis(genesis) = body {
            genesis.terms = terms;
        }
    });
    assert_eq!(audit(&lie, &pinned()).verdict, Verdict::Ok, "the file alone does not show it");
    let (mut cohorts, _) = skep_privacy::ledger::cohorts(&kept).unwrap();
    assert_eq!(cohorts.insert(5, vec![5, 1]), Some(vec![5, 6]));
    let (mut scratch, really) = begin(Terms { participation: Some(NONE_IN_FACT), ..terms });
    for (round, clients) in cohorts {
        let _ = scratch.reserve(&invite(round), clients).unwrap();
    }
    let really = really.kept_cohorts();
    let (verdict, _, detail, found) = checked(&lie, &really, &key);
    assert_eq!((verdict, found.len()), (Verdict::Mismatch, 1), "{detail} {found:?}");
    assert_eq!(found[0].0, Some(5));
    assert!(found[0].1.contains("taken part in 2 rounds"), "{found:?}");
    assert_eq!(
        checked(&lie, &kept, &key).0,
        Verdict::Mismatch,
        "a list that hides it is not what was signed for"
    );
}

/// A limit that keeps a list and forbids nothing.
const NONE_IN_FACT: Participation = Participation { max: u64::MAX, min_separation: 1 };
