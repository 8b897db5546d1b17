//! Transcripts of `skep simulate --real`: real processes, real sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{SMALL, SMALL_CENTRAL, central, changed, command, path, skep};
use serde_json::Value;

#[test]
fn processes_and_sockets_give_the_same_model_as_memory() {
    sockets_are_like_memory(central, &SMALL_CENTRAL);
}

#[test]
fn noise_from_clients_travels_over_sockets_as_in_memory() {
    let local = ("mode = \"central\"", "mode = \"local\"");
    sockets_are_like_memory(central, &[&SMALL_CENTRAL[..], &[local]].concat());
}

fn sockets_are_like_memory(written: fn(&Path, &[(&str, &str)]) -> PathBuf, changes: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), changes);
    let run = |arguments: &[&str]| -> Value {
        let ran = skep(&[&["simulate", path(&file), "--seed", "7", "--output", "json"], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    let (memory, sockets) = (run(&[]), run(&["--real", "--processes", "3"]));
    for key in [
        "model_sha256",
        "accuracy",
        "rounds_completed",
        "epsilon_release",
        "epsilon_server",
        "test_ids_sha256",
    ] {
        assert_eq!(memory[key], sockets[key], "{key}");
    }
    assert_eq!((&memory["transport"], &sockets["transport"]), (&"memory".into(), &"sockets".into()));
    for summary in [&memory, &sockets] {
        assert_eq!((&summary["rounds_degraded"], &summary["rounds_aborted"]), (&0.into(), &0.into()));
    }
    assert_eq!((&memory["processes"], &sockets["processes"]), (&1.into(), &5.into()));
    let bytes = |summary: &Value, key: &str| summary[key].as_u64().unwrap();
    assert!(bytes(&sockets, "bytes_up") > bytes(&memory, "bytes_up"), "messages and TLS weigh something");
    assert!(bytes(&sockets, "bytes_down") > bytes(&memory, "bytes_down"));
}

#[test]
fn under_masks_processes_and_sockets_give_the_same_model_as_memory() {
    // In each round each of ten clients adds its own mask and one with each of the others, and packs 650 coordinates of 18 bits.
    masked_sockets_are_like_memory(&SMALL, 3 * 10 * 10, 3 * 10 * (650 * 18_u64).div_ceil(8));
}

#[test]
fn a_median_of_group_sums_is_the_same_over_sockets_as_in_memory() {
    let changes = [
        ("clients = 100", "clients = 30"),
        ("count = 60", "count = 2"),
        ("min_updates = 90", "min_updates = 25"),
        ("kind = \"fedavg\"", "kind = \"median\""),
        ("weighting = \"uniform\"\n", ""),
        ("max_corrupt_fraction = 0.05", "max_corrupt_fraction = 0.1"),
        ("min_cohort = 10", "min_cohort = 10\ngroups = { size = 10, min_updates = 8 }"),
    ];
    masked_sockets_are_like_memory(&changes, 2 * 30 * 10, 2 * 30 * (650 * 19_u64).div_ceil(8));
}

fn masked_sockets_are_like_memory(changes: &[(&str, &str)], masks: u64, packed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), changes);
    let run = |arguments: &[&str]| -> Value {
        let ran = skep(&[&["simulate", path(&file), "--seed", "7", "--output", "json"], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str(&ran.out).unwrap()
    };
    let (sum, sockets) = (run(&[]), run(&["--real", "--processes", "3"]));
    changed(directory.path(), &[changes, &[("fidelity = \"sum\"", "fidelity = \"protocol\"")]].concat());
    let protocol = run(&[]);
    for key in ["model_sha256", "accuracy", "rounds_completed", "epsilon_server"] {
        assert_eq!(sum[key], sockets[key], "{key}");
        assert_eq!(sum[key], protocol[key], "{key}");
    }
    assert_eq!((&sum["masks_applied"], &sum["masked_bytes"]), (&0.into(), &0.into()));
    for computed in [&sockets, &protocol] {
        assert_eq!((&computed["masks_applied"], &computed["masked_bytes"]), (&masks.into(), &packed.into()));
    }
    assert_eq!((&sockets["rounds_degraded"], &sockets["rounds_aborted"]), (&0.into(), &0.into()));
}

#[test]
fn where_clients_hide_single_examples_the_ledger_says_what_is_not_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let examples = [
        ("mode = \"central\"", "mode = \"local\""),
        ("unit = \"client\"", "unit = \"example\""),
        ("epsilon_limit = 8.0", "epsilon_limit = 40.0"),
    ];
    let file = central(directory.path(), &[&SMALL_CENTRAL[..], &examples].concat());
    let checked: Value =
        serde_json::from_str(&skep(&["check", path(&file), "--output", "json"]).out).unwrap();
    let planned = &checked["price"]["epsilon_example"];
    assert!(planned.as_f64().unwrap() > 1.0, "{planned}");
    let run = |name: &str, arguments: &[&str]| {
        let out = directory.path().join(name);
        let all = ["simulate", path(&file), "--seed", "7", "--out", path(&out)];
        let ran = skep(&[&all[..], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let stated = format!("examples    epsilon {:.4}", planned.as_f64().unwrap());
        assert!(ran.out.contains(&stated), "{stated} is not in\n{}", ran.out);
        let summary: Value =
            serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
        assert_eq!(&summary["epsilon_example"], planned);
        let audit = skep(&["audit", path(&out)]);
        let told = audit.out.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "promise none of whole clients; each client hides its single examples by itself",
            "at most epsilon 40 at delta 0.00001 over 3 rounds",
            "what that is for any of them is not in this ledger",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        summary["model_sha256"].clone()
    };
    assert_eq!(run("memory", &[]), run("sockets", &["--real", "--processes", "3"]));
}

/// Questions after rounds 2 and 3 of three, with so little noise that ten clients are heard.
const ASKED: [(&str, &str); 2] = [
    (
        "[strategy]",
        "[evaluation]\nhold_out = 0.25\nquery = { every = 2, noise_multiplier = 0.5, max_loss = 4.0 }\n[strategy]",
    ),
    ("epsilon_limit = 8.0", "epsilon_limit = 1e9"),
];

#[test]
fn what_clients_say_of_the_model_is_the_same_over_sockets_as_in_memory() {
    let local = [&SMALL_CENTRAL[..], &[("mode = \"central\"", "mode = \"local\"")]].concat();
    for (is_central, changes) in [(true, SMALL_CENTRAL.to_vec()), (true, local), (false, SMALL.to_vec())] {
        let directory = tempfile::tempdir().unwrap();
        let written = if is_central { central } else { changed };
        let file = written(directory.path(), &[&changes[..], &ASKED[..]].concat());
        let run = |name: &str, arguments: &[&str]| -> Vec<Value> {
            let out = directory.path().join(name);
            let all = ["simulate", path(&file), "--seed", "7", "--out", path(&out)];
            let ran = skep(&[&all[..], arguments].concat());
            assert_eq!(ran.code, 0, "{}", ran.err);
            assert!(ran.out.contains("asked       accuracy"), "{}", ran.out);
            let audit = skep(&["audit", path(&out)]);
            // The seed is known, so nothing is certified; all else is as it should be.
            assert_eq!(audit.code, 4, "{}{}", audit.out, audit.err);
            assert!(audit.out.contains("2 queries were charged besides, each as scheduled"), "{}", audit.out);
            let rounds = fs::read_to_string(out.join("rounds.jsonl")).unwrap();
            rounds.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (memory, sockets) = (run("memory", &[]), run("sockets", &["--real", "--processes", "3"]));
        let seen = |rounds: &[Value]| -> Vec<Value> {
            let keys =
                ["round", "outcome", "model_sha256", "client_answers", "epsilon_release", "epsilon_server"];
            rounds.iter().map(|round| keys.iter().map(|key| round[*key].clone()).collect()).collect()
        };
        assert_eq!(seen(&memory), seen(&sockets));
        let asked: Vec<bool> = memory.iter().map(|round| round["client_answers"].is_object()).collect();
        assert_eq!(asked, [false, true, true]);
    }
}

#[test]
fn an_interruption_ends_with_130_and_keeps_the_rounds_that_are_done() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut launcher = long(directory.path(), &["--out", path(&out)]);
    send(&launcher.child, "INT");
    let (code, err) = launcher.end();
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("interrupted: the results of"), "{err}");
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["ended"], "interrupted");
    assert!(summary["rounds_completed"].as_u64().unwrap() >= 1);
    assert!(out.join("model.safetensors").exists());
}

#[test]
fn no_child_outlives_its_launcher_and_no_secret_is_on_a_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut launcher = long_in(directory.path(), &[], Some(&temporary));
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
    let children = children(&launcher.child);
    assert_eq!(children.len(), 3);
    for child in &children {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap();
        let words: Vec<_> = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
        assert!(matches!(words[..], [_, b"local-server" | b"local-clients"]), "{line:?}");
    }
    launcher.child.kill().unwrap();
    launcher.end();
    let deadline = Instant::now() + PATIENCE;
    while children.iter().any(|child| is_running(*child)) {
        assert!(Instant::now() < deadline, "a child is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "what the launcher leaves behind is taken away");
}

#[test]
fn a_child_that_dies_ends_the_launcher_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut launcher = long(directory.path(), &[]);
    let children = children(&launcher.child);
    let clients = children.iter().find(|child| name(**child).contains("local-clients")).unwrap();
    assert!(Command::new("kill").args(["-KILL", &clients.to_string()]).status().unwrap().success());
    let (code, err) = launcher.end();
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("a process of clients ended without saying why: signal: 9"), "{err}");
    assert!(children.iter().all(|child| !is_running(*child)));
}

#[test]
fn a_child_that_a_person_starts_says_what_it_is_for() {
    let ran = skep(&["local-server"]);
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains("started by `skep simulate --real`"), "{}", ran.out);
}

/// A launcher in the middle of a run that would take very long.
struct Launcher {
    child: Child,
    err: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Launcher {
    fn end(&mut self) -> (Option<i32>, String) {
        self.err.read_to_string(&mut self.seen).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.seen))
    }
}

fn long(directory: &Path, arguments: &[&str]) -> Launcher {
    long_in(directory, arguments, None)
}

fn long_in(directory: &Path, arguments: &[&str], temporary: Option<&Path>) -> Launcher {
    let change = [("count = 3", "count = 100000"), ("epsilon_limit = 8.0", "epsilon_limit = 1e9")];
    let file = changed(directory, &[&SMALL[..], &change[..]].concat());
    let all = [&["simulate", path(&file), "--real"], arguments].concat();
    let mut command = command(&all);
    command.envs(temporary.map(|path| ("TMPDIR", path)));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("round 1 of") {
        assert!(err.read_line(&mut seen).unwrap() > 0, "no round was run:\n{seen}");
    }
    Launcher { child, err, seen }
}

fn send(child: &Child, signal: &str) {
    assert!(
        Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

fn children(launcher: &Child) -> Vec<u32> {
    let id = launcher.id();
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    list.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

fn name(process: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default()).into_owned()
}

/// Neither gone nor a zombie that nobody waits for.
fn is_running(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

const PATIENCE: Duration = Duration::from_secs(60);
