//! A server that is killed (SIGKILL) at every write and every sync of its ledger, with real clients.
//!
//! The system is asked to do it: `strace` sends the signal when the process enters its n-th such call on the ledger. Where
//! there is no `strace`, or it may not trace, the tests say so and pass. All points, two hundred kills:
//!
//! ```text
//! cargo test --release -p skep-cli --test kill -- --ignored
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::path;
use harness::running::{Running, Site};
use skep_privacy::audit::{Given, Kind, Verdict, audit};

/// Two clients, and a budget that suffices.
const TWO: [(&str, &str); 4] = [
    ("clients = 100", "clients = 2"),
    ("min_updates = 50", "min_updates = 2"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
    ("epsilon_limit = 8.0", "epsilon_limit = 1e6"),
];

/// What a ledger says, as far as it is whole.
#[derive(Debug)]
struct Seen {
    reserved: u64,
    settled: u64,
    epsilon: f64,
    incomplete: bool,
}

fn site(rounds: u32) -> Site {
    let count = format!("count = {rounds}");
    Site::new(&[&TWO[..], &[("count = 60", &count)]].concat())
}

/// Serves until the end, or until the `n`-th call named `call` on the ledger; true when it was killed. Gives as well how
/// many rounds were released so far, by its own record.
fn serve(site: &Site, kill: Option<(&str, u32)>) -> (bool, u64) {
    let rounds = site.path("out/rounds.jsonl");
    // A server that is killed early leaves the rounds of the one before it.
    let _ = fs::remove_file(&rounds);
    let serving = site.serving();
    let serving: Vec<&str> = serving.iter().map(String::as_str).collect();
    let mut server = match kill {
        Some((call, nth)) => Running::of(&mut traced(&site.path("state/ledger.skep"), call, nth, &serving)),
        None => Running::start(&serving),
    };
    // Before it listens it was killed while it began its ledger.
    let clients = if server.says("listening on") { join(site) } else { Vec::new() };
    let status = server.child.wait().unwrap();
    clients.into_iter().for_each(Running::kill);
    let released = fs::read_to_string(rounds).unwrap_or_default();
    let released = released.lines().filter(|line| line.contains("\"outcome\":\"complete\"")).count();
    (status.signal() == Some(9) || status.code() == Some(137), released as u64)
}

/// Both clients anew, whatever the server before knew of them.
fn join(site: &Site) -> Vec<Running> {
    (0..2)
        .map(|client| {
            let invitation = site.invite(&["--client", &client.to_string()]);
            assert_eq!(invitation.code, 0, "{}", invitation.err);
            let _ = fs::remove_dir_all(site.path(&format!("client-{client}")));
            site.join_with(&[invitation.out.trim()], client, 2)
        })
        .collect()
}

fn seen(site: &Site) -> Seen {
    let contents = fs::read(site.path("state/ledger.skep")).unwrap_or_default();
    let report = audit(&contents, &Given { every_signature: true, ..Given::default() });
    let incomplete = report.findings.iter().any(|finding| finding.kind == Kind::IncompleteLastRecord);
    assert!(
        report.verdict == Verdict::Ok || (incomplete && report.findings.len() == 1),
        "{:?}",
        report.findings
    );
    Seen {
        reserved: report.rounds.reserved,
        settled: report.rounds.settled,
        epsilon: report.epochs.first().map_or(0.0, |epoch| epoch.recomputed.0.get()),
        incomplete,
    }
}

/// `skep` under `strace`, which kills it when it enters its `nth` call of this name on the file.
fn traced(file: &Path, call: &str, nth: u32, arguments: &[&str]) -> Command {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        path(file),
        "-e",
        &format!("trace={call}"),
        "-e",
        &inject,
    ]);
    strace.arg(env!("CARGO_BIN_EXE_skep")).args(arguments).env_remove("SKEP_LOG").stdin(Stdio::null());
    strace
}

fn can_trace() -> bool {
    let traced = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    let can = traced.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: strace cannot trace here");
    }
    can
}

/// Kills at the points given, one server after the other over the same state; gives how many kills there were.
fn survive(rounds: u32, points: impl IntoIterator<Item = (&'static str, u32)>) -> u32 {
    let site = site(rounds);
    let (mut kills, mut before) = (0, Seen { reserved: 0, settled: 0, epsilon: 0.0, incomplete: false });
    let mut released = 0;
    for (call, nth) in points {
        let (killed, recorded) = serve(&site, Some((call, nth)));
        kills += u32::from(killed);
        released = recorded.max(released);
        let after = seen(&site);
        assert!(
            after.settled >= released,
            "{call} {nth}: {released} models were released, the ledger has {after:?}"
        );
        assert!(
            after.reserved >= before.reserved && after.epsilon >= before.epsilon,
            "{call} {nth}: {before:?} {after:?}"
        );
        before = after;
    }
    let (killed, recorded) = serve(&site, None);
    let after = seen(&site);
    assert!(!killed && recorded > released, "training does not go on: {recorded} after {released}");
    assert!(after.settled >= recorded && !after.incomplete, "{after:?}");
    assert!(after.epsilon > before.epsilon);
    kills
}

/// Genesis or the end of an interrupted round, then reserve and settle of round after round: points 1 to 9 of each call.
fn every_point() -> impl Iterator<Item = (&'static str, u32)> + Clone {
    ["write", "fdatasync"].into_iter().flat_map(|call| (1..=9).map(move |nth| (call, nth)))
}

#[test]
fn a_killed_server_has_never_spent_less_than_it_released() {
    if can_trace() {
        assert!(survive(20, [("write", 1), ("fdatasync", 3), ("write", 4), ("fdatasync", 2)]) >= 3);
    }
}

#[test]
#[ignore = "two hundred kills take some minutes"]
fn two_hundred_kills_at_every_point_lose_no_charge() {
    if can_trace() {
        let kills = survive(1500, every_point().cycle().take(18 * 13));
        assert!(kills >= 200, "{kills} kills");
    }
}
