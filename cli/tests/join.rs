//! Transcripts of `skep serve`, `skep invite` and `skep join`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::Path;

use harness::running::{Running, Site};
use harness::{Transcript, path, skep};
use serde_json::Value;

/// Two clients, three rounds.
const TWO: [(&str, &str); 4] = [
    ("clients = 100", "clients = 2"),
    ("count = 60", "count = 3"),
    ("min_updates = 50", "min_updates = 2"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
];

fn site() -> Site {
    Site::new(&TWO)
}

/// Starts a client with the first half of the digits and this invitation.
fn join(site: &Site, invitation: &str, state: &str) -> Running {
    let state = site.path(state);
    Running::start(&["join", invitation, "--data", "digits:0/2", "--state", path(&state)])
}

#[test]
fn two_invited_clients_finish_a_federation_with_the_server() {
    let site = site();
    let server = site.serve(&[]);
    for client in [0, 1].map(|number| site.join(number, 2, &[])) {
        let Transcript { code, out, err } = client.end();
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("took part in 3 rounds"), "{out}");
    }
    let served = server.end();
    assert_eq!(served.code, 0, "{}", served.err);
    assert!(served.out.contains("3 complete, 0 degraded, 0 aborted"), "{}", served.out);
    let summary = fs::read_to_string(site.path("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!((&summary["noise_seeded"], &summary["transport"]), (&false.into(), &"sockets".into()));
}

#[test]
fn an_invitation_is_good_for_one_client_and_refused_with_five_after_that() {
    let site = site();
    let server = site.serve(&[]);
    let line = site.invitation();
    let mut first = join(&site, &line, "client-0");
    first.until("taking part as client-0");
    #[cfg(target_os = "linux")]
    {
        // Both have started themselves again, in their own place, with an allocator that keeps less.
        let is_set = |process: &Running, text: &str| {
            let environment = fs::read(format!("/proc/{}/environ", process.child.id())).unwrap();
            environment.split(|byte| *byte == 0).any(|entry| entry == text.as_bytes())
        };
        let [at_once, piecewise] = ["MIMALLOC_PURGE_DELAY=0", "MIMALLOC_ARENA_EAGER_COMMIT=0"];
        assert!(is_set(&first, at_once) && is_set(&first, piecewise));
        assert!(!is_set(&server, at_once) && is_set(&server, piecewise));
    }
    let Transcript { code, err, .. } = join(&site, &line, "second").end();
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("already been used"), "{err}");
    first.kill();

    // The first client goes on without the invitation, and is not let in twice with it.
    let Transcript { code, err, .. } = join(&site, &line, "client-0").end();
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("leave out the invitation"), "{err}");
    let clients = [site.join_with(&[], 0, 2), site.join(1, 2, &[])];
    clients.into_iter().for_each(|client| assert_eq!(client.end().code, 0));
    assert_eq!(server.end().code, 0);
}

#[test]
fn a_server_to_which_nobody_comes_ends_with_four() {
    let served = site().serve(&["--wait-s", "1"]).end();
    assert_eq!(served.code, 4, "{}", served.err);
    assert!(served.err.contains("0 of 2 clients"), "{}", served.err);
}

#[test]
fn a_server_out_of_reach_ends_a_client_with_five() {
    let site = site();
    let server = site.serve(&["--wait-s", "2"]);
    let line = site.invitation();
    assert_eq!(server.end().code, 4);
    let Transcript { code, err, .. } = join(&site, &line, "client").end();
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("cannot reach 127.0.0.1"), "{err}");
}

#[test]
fn a_client_without_invitation_or_with_a_wrong_one_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("client");
    let run = |invitation: &[&str], data: &str| {
        skep(&[&["join"], invitation, &["--data", data, "--state", path(&state)]].concat())
    };
    let Transcript { code, err, .. } = run(&[], "digits:0/2");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("not enrolled") && err.contains("skep invite"), "{err}");
    let Transcript { code, err, .. } = run(&["skep1:AAAA"], "digits:0/2");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("cut short"), "{err}");
    let Transcript { code, err, .. } = run(&[], "digits:2/2");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("K from 0 to N - 1"), "{err}");
    let Transcript { code, err, .. } = run(&[], "no-such.csv");
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--classes"), "{err}");
}

#[test]
fn an_invitation_needs_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let Transcript { code, err, .. } = skep(&["invite", "--state", path(&state)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--address"), "{err}");
    let Transcript { code, out, .. } =
        skep(&["invite", "--state", path(&state), "--address", "bees.example:7443"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("skep1:"), "{out}");
}

#[test]
fn a_client_whose_owner_does_not_agree_says_why_and_the_operator_counts_it() {
    let site = Site::new(&[&TWO[..], &[("min_updates = 2", "min_updates = 1")]].concat());
    let server = site.serve(&[]);
    let policies = [
        ("policy.toml", "[privacy]\ntrust_server = true\nmax_participations = 1\n"),
        ("strict.toml", "[privacy]\nmax_epsilon_release = 100.0\n"),
    ]
    .map(|(name, text)| {
        fs::write(site.path(name), text).unwrap();
        site.path(name)
    });
    let clients = [0, 1].map(|number| site.join(number, 2, &["--policy", path(&policies[number])]));
    let ends = clients.map(Running::end);
    assert!(ends[0].out.contains("not in 2: declined, the data have taken part as often"), "{}", ends[0].out);
    assert!(ends[0].out.contains("these data: 1 rounds in all, epsilon"), "{}", ends[0].out);
    assert!(ends[0].out.contains("infinite against servers"), "{}", ends[0].out);
    assert!(ends[1].out.contains("not in 3: declined, the server sees every update"), "{}", ends[1].out);
    assert_eq!(server.end().code, 0);
    let rounds = fs::read_to_string(site.path("out/rounds.jsonl")).unwrap();
    assert!(rounds.lines().all(|line| line.contains(r#""trust-server":1"#)), "{rounds}");
    assert_eq!(rounds.matches(r#""participations":1"#).count(), 2, "{rounds}");
    let wrong = policy(site.directory.path(), "[privacy]\nmax_epsilon = 3.0\n");
    assert!(wrong.err.contains("max_epsilon_release"), "{}", wrong.err);
    assert_eq!(wrong.code, 2);
}

fn policy(directory: &Path, text: &str) -> Transcript {
    let (file, state) = (directory.join("wrong.toml"), directory.join("client-0"));
    fs::write(&file, text).unwrap();
    skep(&["join", "--data", "digits:0/2", "--state", path(&state), "--policy", path(&file)])
}
