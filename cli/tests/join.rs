//! Transcripts of `skep serve`, `skep invite` and `skep join`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use harness::{Transcript, central, command, path, skep};
use serde_json::Value;

/// Two clients, three rounds.
const TWO: [(&str, &str); 4] = [
    ("clients = 100", "clients = 2"),
    ("count = 60", "count = 3"),
    ("min_updates = 50", "min_updates = 2"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
];

struct Server {
    child: Child,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server on a free port and waits until it listens.
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(&[], arguments)
    }

    /// The same, with an experiment that is changed further.
    fn start_with(changes: &[(&str, &str)], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = central(directory.path(), &[&TWO[..], changes].concat());
        let (state, out) = (directory.path().join("state"), directory.path().join("out"));
        let all =
            ["serve", path(&file), "--listen", "127.0.0.1:0", "--state", path(&state), "--out", path(&out)];
        let mut child = command(&[&all[..], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        assert!(line.starts_with("listening on 127.0.0.1:"), "{line}");
        child.stderr = Some(err.into_inner());
        Server { child, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn invite(&self) -> String {
        let Transcript { code, out, err } = skep(&["invite", "--state", path(&self.path("state"))]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(out.lines().count(), 1);
        out.trim().to_owned()
    }

    fn end(self) -> (Transcript, tempfile::TempDir) {
        (harness::transcript(self.child.wait_with_output().unwrap()), self.directory)
    }
}

fn join(invitation: &str, part: &str, state: &Path) -> Child {
    command(&["join", invitation, "--data", part, "--state", path(state)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn two_invited_clients_finish_a_federation_with_the_server() {
    let server = Server::start(&[]);
    let invitations = [server.invite(), server.invite()];
    let clients: Vec<_> = invitations
        .iter()
        .enumerate()
        .map(|(part, line)| join(line, &format!("digits:{part}/2"), &server.path(&format!("client-{part}"))))
        .collect();
    for client in clients {
        let Transcript { code, out, err } = harness::transcript(client.wait_with_output().unwrap());
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("took part in 3 rounds"), "{out}");
    }
    let (served, directory) = server.end();
    assert_eq!(served.code, 0, "{}", served.err);
    assert!(served.out.contains("3 complete, 0 degraded, 0 aborted"), "{}", served.out);
    let summary: Value =
        serde_json::from_str(&fs::read_to_string(directory.path().join("out/summary.json")).unwrap())
            .unwrap();
    assert_eq!((&summary["noise_seeded"], &summary["transport"]), (&false.into(), &"sockets".into()));
}

#[test]
fn an_invitation_is_good_for_one_client_and_refused_with_five_after_that() {
    let server = Server::start(&[]);
    let line = server.invite();
    let mut first = join(&line, "digits:0/2", &server.path("first"));
    let mut err = BufReader::new(first.stderr.take().unwrap());
    let mut text = String::new();
    err.read_line(&mut text).unwrap();
    assert!(text.starts_with("taking part as client-0"), "{text}");
    #[cfg(target_os = "linux")]
    {
        // Both have started themselves again, in their own place, with an allocator that keeps less.
        let is_set = |process: &Child, text: &str| {
            let environment = fs::read(format!("/proc/{}/environ", process.id())).unwrap();
            environment.split(|byte| *byte == 0).any(|entry| entry == text.as_bytes())
        };
        let [at_once, piecewise] = ["MIMALLOC_PURGE_DELAY=0", "MIMALLOC_ARENA_EAGER_COMMIT=0"];
        assert!(is_set(&first, at_once) && is_set(&first, piecewise));
        assert!(!is_set(&server.child, at_once) && is_set(&server.child, piecewise));
    }
    let second = join(&line, "digits:0/2", &server.path("second"));
    let Transcript { code, err, .. } = harness::transcript(second.wait_with_output().unwrap());
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("already been used"), "{err}");
    first.kill().unwrap();
    first.wait().unwrap();

    // The first client goes on without the invitation, and is not let in twice with it.
    let again = join(&line, "digits:0/2", &server.path("first"));
    let Transcript { code, err, .. } = harness::transcript(again.wait_with_output().unwrap());
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("leave out the invitation"), "{err}");
    let mut stored = command(&["join", "--data", "digits:0/2", "--state", path(&server.path("first"))])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let other = join(&server.invite(), "digits:1/2", &server.path("other"));
    assert!(stored.wait().unwrap().success());
    assert!(other.wait_with_output().unwrap().status.success());
    assert_eq!(server.end().0.code, 0);
}

#[test]
fn a_server_to_which_nobody_comes_ends_with_four() {
    let (served, _directory) = Server::start(&["--wait-s", "1"]).end();
    assert_eq!(served.code, 4, "{}", served.err);
    assert!(served.err.contains("0 of 2 clients"), "{}", served.err);
}

#[test]
fn a_server_out_of_reach_ends_a_client_with_five() {
    let server = Server::start(&["--wait-s", "2"]);
    let line = server.invite();
    let (served, directory) = server.end();
    assert_eq!(served.code, 4);
    let client = join(&line, "digits:0/2", &directory.path().join("client"));
    let Transcript { code, err, .. } = harness::transcript(client.wait_with_output().unwrap());
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
    let server = Server::start_with(&[("min_updates = 2", "min_updates = 1")], &[]);
    let policy = server.path("policy.toml");
    fs::write(&policy, "[privacy]\ntrust_server = true\nmax_participations = 1\n").unwrap();
    let strict = server.path("strict.toml");
    fs::write(&strict, "[privacy]\nmax_epsilon_release = 100.0\n").unwrap();
    let clients: Vec<_> = [&policy, &strict]
        .into_iter()
        .enumerate()
        .map(|(part, policy)| {
            let (data, state) = (format!("digits:{part}/2"), server.path(&format!("client-{part}")));
            command(&[
                "join",
                &server.invite(),
                "--data",
                &data,
                "--state",
                path(&state),
                "--policy",
                path(policy),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
        })
        .collect();
    let ends: Vec<Transcript> =
        clients.into_iter().map(|client| harness::transcript(client.wait_with_output().unwrap())).collect();
    assert!(ends[0].out.contains("not in 2: declined, the data have taken part as often"), "{}", ends[0].out);
    assert!(ends[0].out.contains("these data: 1 rounds in all, epsilon"), "{}", ends[0].out);
    assert!(ends[0].out.contains("infinite against servers"), "{}", ends[0].out);
    assert!(ends[1].out.contains("not in 3: declined, the server sees every update"), "{}", ends[1].out);
    let (_, directory) = server.end();
    let rounds = fs::read_to_string(directory.path().join("out/rounds.jsonl")).unwrap();
    assert!(rounds.lines().all(|line| line.contains(r#""trust-server":1"#)), "{rounds}");
    assert_eq!(rounds.matches(r#""participations":1"#).count(), 2, "{rounds}");
    let wrong = server_policy(directory.path(), "[privacy]\nmax_epsilon = 3.0\n");
    assert!(wrong.err.contains("max_epsilon_release"), "{}", wrong.err);
    assert_eq!(wrong.code, 2);
}

fn server_policy(directory: &Path, text: &str) -> Transcript {
    let (file, state) = (directory.join("wrong.toml"), directory.join("client-0"));
    fs::write(&file, text).unwrap();
    skep(&["join", "--data", "digits:0/2", "--state", path(&state), "--policy", path(&file)])
}
