use std::path::Path;

use skep_privacy::adversary::Adversary;
use skep_privacy::audit::{Given, Verdict, audit};
use skep_privacy::ledger::Hash;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{AdaptiveFile, ExperimentFile, StrategyFile, WeightingFile};

use super::*;
use crate::record::OutcomeKind;
use crate::roster::Contiguous;
use crate::testing::{PARAMETERS, asking, federation, private_file, seeded, segments, zero_upload};

/// Where a server is killed in its third round.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    /// The budget is charged, nobody invited.
    Planned,
    Opened,
    /// The model is out of the sum, not on disk.
    Computed,
    Released,
    Closed,
}

fn new() -> Federation {
    federation(&private_file(), seeded(1))
}

/// A federation whose ledger is on disk.
fn kept(directory: &Path) -> Federation {
    let experiment = Experiment::try_from(&private_file()).unwrap();
    let ledger = crate::ledger::open(&directory.join("ledger.skep"), &experiment, Hash::ZERO, None);
    Federation::new(experiment, segments(), vec![0.5; PARAMETERS], ledger.unwrap(), seeded(1)).unwrap()
}

/// Runs a round up to where the server is killed in it.
fn run(federation: &mut Federation, journal: &mut Journal, killed: Killed) {
    let planned = federation.plan(&Contiguous(4)).unwrap();
    let round = planned.plan.plan().round;
    if killed == Killed::Planned {
        return;
    }
    journal.open_round(round, 4).unwrap();
    let update = federation.stager().stage(&zero_upload(federation)).unwrap();
    federation.commit(&update).unwrap();
    if killed == Killed::Opened {
        return;
    }
    federation.release().unwrap();
    if killed == Killed::Computed {
        return;
    }
    journal.release(round, &federation.released().unwrap()).unwrap();
    if killed == Killed::Released {
        return;
    }
    let summary = federation.close(Outcome::Degraded { updates: 1, invited: 4 }).unwrap();
    journal.close(&RoundRecord::new(&summary, &[], None, Cost::default())).unwrap();
}

fn models_in(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    entries.filter(|name| name.to_str().unwrap().starts_with(MODEL)).count()
}

#[test]
fn wherever_a_server_is_killed_no_finished_round_is_lost_or_repeated_and_none_is_refunded() {
    for killed in [Killed::Planned, Killed::Opened, Killed::Computed, Killed::Released, Killed::Closed] {
        let directory = tempfile::tempdir().unwrap();
        let (mut before, mut journal) = (kept(directory.path()), Journal::open(directory.path()).unwrap());
        assert!(journal.restore(&mut before).unwrap().is_empty());
        for _ in 0..2 {
            run(&mut before, &mut journal, Killed::Closed);
        }
        let second = before.model();
        run(&mut before, &mut journal, killed);
        let spent = before.epsilon(Adversary::Recipients);
        // The lock on the ledger goes with the process.
        drop((before, journal));

        let (mut after, mut journal) = (kept(directory.path()), Journal::open(directory.path()).unwrap());
        let records = journal.restore(&mut after).unwrap();
        let rounds: Vec<u64> = records.iter().map(|record| record.round.0).collect();
        let kept_model = matches!(killed, Killed::Released | Killed::Closed);
        match killed {
            Killed::Planned => assert_eq!(rounds, [1, 2]),
            _ => assert_eq!(rounds, [1, 2, 3], "{killed:?}"),
        }
        if killed != Killed::Planned {
            let expected = if kept_model { OutcomeKind::Degraded } else { OutcomeKind::Aborted };
            assert_eq!(records[2].outcome, expected, "{killed:?}");
        }
        assert_eq!(after.epsilon(Adversary::Recipients), spent, "{killed:?}");
        let report = audit(&fs::read(directory.path().join("ledger.skep")).unwrap(), &Given::default());
        assert_eq!(report.verdict, Verdict::Ok, "{killed:?}: {:?}", report.findings);
        assert_eq!(
            (report.rounds.reserved, report.rounds.settled),
            (3, if kept_model { 3 } else { 2 }),
            "{killed:?}"
        );
        assert_eq!(after.model() != second, kept_model, "{killed:?}");
        assert_eq!(records.last().unwrap().model_sha256, after.model_digest().to_string());
        assert_eq!(models_in(directory.path()), 1);

        // A second start finds the same, and the journal goes on.
        drop((after, journal));
        let (mut again, mut journal) = (kept(directory.path()), Journal::open(directory.path()).unwrap());
        assert_eq!(journal.restore(&mut again).unwrap(), records, "{killed:?}");
        if killed == Killed::Planned {
            run(&mut again, &mut journal, Killed::Closed);
        }
        assert_eq!(again.round(), Round(3));
    }
}

/// Runs the query after a round up to where the server is killed in it.
fn run_query(federation: &mut Federation, journal: &mut Journal, last: &RoundRecord, killed: Killed) {
    assert!(federation.asks());
    let planned = federation.plan_query(&Contiguous(4)).unwrap().unwrap();
    if killed == Killed::Planned {
        return;
    }
    journal.open_round(planned.plan.plan().round, 4).unwrap();
    let nothing = vec![0; planned.plan.plan().upload_bytes() as usize];
    let update = federation.stager().stage(&nothing).unwrap();
    federation.commit(&update).unwrap();
    if killed == Killed::Opened {
        return;
    }
    federation.release().unwrap();
    assert!(federation.released().is_none(), "an answer is no model");
    if killed == Killed::Computed {
        return;
    }
    let (answers, ledger) = federation.answered().unwrap();
    journal.answer(planned.plan.plan().round, answers, &ledger).unwrap();
    if killed == Killed::Released {
        return;
    }
    let summary = federation.close(Outcome::Degraded { updates: 1, invited: 4 }).unwrap();
    journal.asked(&last.clone().asked(&summary, &[], Cost::default())).unwrap();
}

#[test]
fn wherever_a_server_is_killed_in_a_query_it_stays_charged_as_planned_and_is_not_asked_again() {
    for killed in [Killed::Planned, Killed::Opened, Killed::Computed, Killed::Released, Killed::Closed] {
        let directory = tempfile::tempdir().unwrap();
        let kept = || {
            let experiment = Experiment::try_from(&asking(private_file())).unwrap();
            let path = directory.path().join("ledger.skep");
            let ledger = crate::ledger::open(&path, &experiment, Hash::ZERO, None).unwrap();
            Federation::new(experiment, segments(), vec![0.5; PARAMETERS], ledger, seeded(1)).unwrap()
        };
        let (mut before, mut journal) = (kept(), Journal::open(directory.path()).unwrap());
        run(&mut before, &mut journal, Killed::Closed);
        let summary = before.summary(Outcome::Degraded { updates: 1, invited: 4 }, 4, 1);
        let last = RoundRecord::new(&summary, &[], None, Cost::default());
        let (model, spent) = (before.model(), before.epsilon(Adversary::Recipients));
        run_query(&mut before, &mut journal, &last, killed);
        assert_eq!(before.epsilon(Adversary::Recipients), spent, "it was counted with its round");
        drop((before, journal));

        let (mut after, mut journal) = (kept(), Journal::open(directory.path()).unwrap());
        let records = journal.restore(&mut after).unwrap();
        assert_eq!((records.len(), records[0].round, after.round()), (1, Round(1), Round(1)), "{killed:?}");
        assert!(!after.asks() && after.model() == model, "{killed:?}");
        // What was released is neither lost nor made again.
        let outcome = records[0].query.as_ref().map(|query| query.outcome);
        let expected = match killed {
            Killed::Planned => None,
            Killed::Released | Killed::Closed => Some(OutcomeKind::Degraded),
            _ => Some(OutcomeKind::Aborted),
        };
        assert_eq!(outcome, expected, "{killed:?}");
        let settled = if expected == Some(OutcomeKind::Degraded) { 2 } else { 1 };
        assert_eq!(after.ledger().state().settled(), settled, "{killed:?}");
        assert_eq!(after.epsilon(Adversary::Recipients), spent);
        // The rounds go on as planned, with their queries.
        run(&mut after, &mut journal, Killed::Closed);
        run_query(&mut after, &mut journal, &records[0], Killed::Planned);
        let ledger = fs::read(directory.path().join("ledger.skep")).unwrap();
        let report = audit(&ledger, &Given::default());
        assert_eq!(report.verdict, Verdict::Ok, "{killed:?}: {:?}", report.findings);
        assert_eq!((report.epochs[0].queries, report.epochs[0].departed), (2, None), "{killed:?}");
    }
}

#[test]
fn a_server_that_is_killed_remembers_what_its_optimizer_did() {
    for killed in [Killed::Planned, Killed::Opened, Killed::Computed, Killed::Released, Killed::Closed] {
        let directory = tempfile::tempdir().unwrap();
        let adam = || {
            let file = private_file();
            let strategy = StrategyFile::Fedadam(AdaptiveFile {
                weighting: WeightingFile::Uniform,
                max_examples: None,
                server_learning_rate: 0.1,
                beta1: 0.9,
                beta2: 0.99,
                tau: 0.001,
            });
            federation(&ExperimentFile { strategy, ..file }, seeded(1))
        };
        let (mut before, mut journal) = (adam(), Journal::open(directory.path()).unwrap());
        for _ in 0..2 {
            run(&mut before, &mut journal, Killed::Closed);
        }
        let second = before.state().clone();
        run(&mut before, &mut journal, killed);
        let third =
            before.released().map_or_else(|| before.state().clone(), |released| released.state.clone());
        let (mut after, mut journal) = (adam(), Journal::open(directory.path()).unwrap());
        journal.restore(&mut after).unwrap();
        match killed {
            Killed::Released | Killed::Closed => assert_eq!(*after.state(), third, "{killed:?}"),
            _ => assert_eq!(*after.state(), second, "{killed:?}"),
        }
        assert!(!second.is_empty() && !after.state().is_empty());
        // A second start finds the same, and no other state is left.
        let mut again = adam();
        Journal::open(directory.path()).unwrap().restore(&mut again).unwrap();
        assert_eq!(again.state(), after.state(), "{killed:?}");
        let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(entries.filter(|name| name.to_str().unwrap().starts_with(STATE)).count(), 1, "{killed:?}");
    }
}

#[test]
fn a_line_that_was_cut_short_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let (mut federation, mut journal) = (new(), Journal::open(directory.path()).unwrap());
    run(&mut federation, &mut journal, Killed::Closed);
    let path = directory.path().join(JOURNAL);
    let whole = fs::read(&path).unwrap();
    journal.open_round(Round(2), 4).unwrap();
    let longer = fs::read(&path).unwrap();
    for cut in whole.len()..longer.len() {
        fs::write(&path, &longer[..cut]).unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.restore(&mut new()).unwrap().len(), 1);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn what_was_altered_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (mut federation, mut journal) = (new(), Journal::open(directory.path()).unwrap());
    run(&mut federation, &mut journal, Killed::Closed);
    let path = directory.path().join(JOURNAL);
    let text = fs::read_to_string(&path).unwrap();

    fs::write(&path, text.replacen("opened", "ordered", 1)).unwrap();
    let unknown = Journal::open(directory.path()).unwrap_err();
    assert!(matches!(unknown, JournalError::Damaged { line: 1, .. }), "{unknown}");
    let closed_first = text.lines().rev().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(&path, closed_first).unwrap();
    let error = Journal::open(directory.path()).unwrap().restore(&mut new()).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { line: 1, .. }), "{error}");

    fs::write(&path, &text).unwrap();
    let model = directory.path().join(model_file(&federation.model_digest().to_string()));
    let mut bytes = fs::read(&model).unwrap();
    bytes[5] ^= 1;
    fs::write(&model, bytes).unwrap();
    let error = Journal::open(directory.path()).unwrap().restore(&mut new()).unwrap_err();
    assert!(matches!(error, JournalError::Damage { .. }), "{error}");
}
