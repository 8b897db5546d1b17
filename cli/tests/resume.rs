//! Simulations that are killed (SIGKILL) at random moments and go on: the result is that of a run that nobody disturbed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use harness::random::Random;
use harness::{SMALL, changed, command, path, skep};
use serde_json::Value;
use skep_privacy::audit::{Given, Verdict, audit};

/// Long enough to be killed a few times, with a server that remembers more than the model, and clients that vanish, are
/// slow or lie.
const LONG: [(&str, &str); 5] = [
    ("min_updates = 90", "min_updates = 60"),
    ("[privacy]", REALISM),
    ("count = 60", "count = 200"),
    ("epsilon_limit = 8.0", "epsilon_limit = 1e6"),
    ("kind = \"fedavg\"", "kind = \"fedavgm\""),
];

const REALISM: &str = "\
[simulation.devices]
latency_ms = { log-normal = { median = 80.0, spread = 1.6 } }
examples_per_s = { log-normal = { median = 200.0, spread = 3.0 } }
upload_bytes_per_s = { uniform = [2e4, 2e5] }
slowdown = 0.5

[simulation.availability]
kind = \"diurnal\"
online = 0.99
day_s = 600

[simulation.faults]
dropout = 0.1
straggler = 0.01
corrupt = 0.01

[privacy]";

/// What must be the same, however often the run was killed.
#[derive(Debug, PartialEq)]
struct Results {
    model: Value,
    rounds: Vec<u8>,
    ledger: Vec<u8>,
}

fn results(out: &Path) -> Results {
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["ended"], "finished");
    assert!(!out.join("checkpoint.skep").exists(), "the root of the noise outlived the run");
    Results {
        model: summary["model_sha256"].clone(),
        rounds: fs::read(out.join("rounds.jsonl")).unwrap(),
        ledger: fs::read(out.join("ledger.skep")).unwrap(),
    }
}

fn rounds(out: &Path) -> usize {
    fs::read(out.join("rounds.jsonl")).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
}

/// Runs to the end; three processes are killed before, each after up to forty rounds more, at any moment of a round.
fn disturbed(arguments: &[&str], out: &Path, random: &mut Random) {
    for _ in 0..3 {
        let until = rounds(out) + random.below(40) as usize;
        let mut run = command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while rounds(out) < until {
            assert!(run.try_wait().unwrap().is_none(), "it ended before it was killed");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(random.below(20_000)));
        run.kill().unwrap();
        assert_eq!(run.wait().unwrap().code(), None, "it ended before it was killed");
    }
    let ran = skep(arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &LONG);
    let out = directory.path().join("undisturbed");
    let ran = skep(&["simulate", path(&file), "--seed", "7", "--out", path(&out), "--threads", "1"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let expected = results(&out);
    let text = String::from_utf8_lossy(&expected.rounds).into_owned();
    for reason in ["connection-lost", "digest-mismatch", "no-answer"] {
        assert!(text.contains(reason), "{reason} is what happens to some");
    }
    assert!(text.contains("\"outcome\":\"degraded\""));
    let mut random = Random::new();
    for threads in ["1", "2"] {
        let out = directory.path().join(threads);
        let arguments =
            ["simulate", path(&file), "--seed", "7", "--out", path(&out), "--threads", threads, "--resume"];
        disturbed(&arguments, &out, &mut random);
        assert_eq!(results(&out), expected, "on {threads} threads");
    }
}

#[test]
fn a_private_run_that_is_killed_charges_every_round_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &LONG);
    let out = directory.path().join("out");
    let arguments = ["simulate", path(&file), "--out", path(&out), "--resume"];
    disturbed(&arguments, &out, &mut Random::new());
    let results = results(&out);
    let report = audit(&results.ledger, &Given { every_signature: true, ..Given::default() });
    assert_eq!(report.verdict, Verdict::Ok, "{:?}", report.findings);
    assert_eq!((report.rounds.reserved, report.rounds.settled), (200, 200));
    let last = String::from_utf8(results.rounds).unwrap().lines().last().unwrap().to_owned();
    let last: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(last["model_sha256"], results.model);
    assert_eq!(last["epsilon_release"], report.epochs[0].recomputed.0.get());
}

/// A run of three rounds whose second is never finished, as an interrupted one leaves it.
fn stopped(directory: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let file = changed(directory, &[&SMALL[..], &[("count = 3", "count = 100000"), LONG[3]]].concat());
    let out = directory.join("out");
    let mut run = command(&["simulate", path(&file), "--seed", "7", "--out", path(&out)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !out.join("checkpoint.skep").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    (file, out)
}

#[test]
fn what_differs_from_the_run_that_was_stopped_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (file, out) = stopped(directory.path());
    let resume = |file: &Path, seed: &str| {
        skep(&["simulate", path(file), "--seed", seed, "--out", path(&out), "--resume"])
    };
    let refused = resume(&file, "8");
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--seed 7, not with --seed 8"), "{}", refused.err);

    let text = fs::read_to_string(&file).unwrap();
    let other = directory.path().join("other.toml");
    fs::write(&other, text.replacen("local_epochs = 5", "local_epochs = 6", 1)).unwrap();
    let refused = resume(&other, "7");
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("`task.training.local_epochs` is 5"), "{}", refused.err);

    // Without --resume nothing is lost by mistake.
    let refused = skep(&["simulate", path(&file), "--seed", "7", "--out", path(&out)]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--resume"), "{}", refused.err);

    fs::write(out.join("ledger.skep"), fs::read(out.join("ledger.skep")).unwrap().split_at(40).0).unwrap();
    let refused = resume(&file, "7");
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("not the ledger"), "{}", refused.err);
}

#[test]
fn a_run_that_has_ended_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &SMALL);
    let out = directory.path().join("out");
    let arguments = ["simulate", path(&file), "--out", path(&out), "--resume", "--output", "json"];
    let first = skep(&arguments);
    assert_eq!(first.code, 0, "{}", first.err);
    let again = skep(&arguments);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("has ended"), "{}", again.err);
    let model = |out: &str| serde_json::from_str::<Value>(out).unwrap()["model_sha256"].clone();
    assert_eq!(model(&first.out), model(&again.out));
    assert_eq!(skep(&["simulate", "--resume"]).code, 2, "there is nothing to resume without --out");
}
