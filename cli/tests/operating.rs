//! Transcripts of what an operator does beside a running server, and of what a client's owner does.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use harness::running::{Running, Site, state_of};
use harness::{Transcript, path, skep};
use serde_json::Value;

/// Two clients, and more rounds than anybody waits for.
const LONG: [(&str, &str); 5] = [
    ("clients = 100", "clients = 2"),
    ("count = 60", "count = 100000"),
    ("min_updates = 50", "min_updates = 1"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
    ("epsilon_limit = 8.0", "epsilon_limit = 1e9"),
];

fn with(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut all = LONG.to_vec();
    for change in changes {
        all.retain(|(from, _)| from != &change.0);
        all.push(*change);
    }
    all
}

#[test]
fn clients_are_listed_and_one_is_revoked_while_the_other_notices_nothing() {
    let site = Site::new(&LONG);
    let state = site.path("state");
    let on_state = |command: &[&str]| skep(&[command, &["--state", path(&state)]].concat());
    let server = site.serve(&[]);
    let stays = site.join(0, 2, &[]);
    assert_eq!(site.invite(&[]).code, 0);
    let clients = site.wait_for("clients", |clients| clients[0]["connected"] == true);
    assert_eq!((state_of(&clients, 0), state_of(&clients, 1)), ("enrolled", "invited"));
    assert!(clients[1]["invitation_until"].is_u64() && clients[1]["certificate_until"].is_null());

    let mut leaves = site.join_with(&[site.invite(&["--client", "1"]).out.trim()], 1, 2);
    leaves.until("asked to train");
    site.wait_for("status", |status| status["server"]["round"].as_u64() > Some(2));
    let Transcript { code, out, err } = on_state(&["revoke", "client-1"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("client-1 is revoked"), "{out}");
    let asked = Instant::now();
    let gone = leaves.end();
    assert_eq!(gone.code, 5, "{}", gone.err);
    assert!(gone.err.contains("this client has been revoked"), "{}", gone.err);
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let back = site.join_with(&[], 1, 2).end();
    assert_eq!(back.code, 5);
    assert!(back.err.contains("this client has been revoked"), "{}", back.err);
    let Transcript { code, err, .. } = site.invite(&["--client", "1"]);
    assert_eq!(code, 1);
    assert!(err.contains("the client is revoked"), "{err}");
    assert_eq!(on_state(&["revoke", "7"]).code, 2);

    // The other goes on, in rounds that do not wait for who is gone.
    let before = site.json("status")["server"]["round"].as_u64();
    site.wait_for("status", |status| status["server"]["round"].as_u64() > before.map(|round| round + 2));
    let Transcript { out, .. } = on_state(&["clients"]);
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("client "), "{out}");
    assert!(lines[1].starts_with("client-0      connected ") && lines[1].contains("  now  "), "{out}");
    assert!(lines[2].starts_with("client-1      revoked "), "{out}");
    stays.signal("TERM");
    assert_eq!(stays.end().code, 130);
    site.wait_for("clients", |clients| clients[0]["connected"] == false);
    server.kill();
}

#[test]
fn a_server_says_what_it_does_while_it_runs_and_what_it_did_afterwards() {
    let site = Site::new(&LONG);
    let state = site.path("state");
    let none = skep(&["status", "--state", path(&state)]);
    assert_eq!(none.code, 2, "{}", none.out);
    let mut server = site.serve(&[]);
    let status = site.wait_for("status", |status| status["server"]["doing"] == "waiting");
    assert_eq!((&status["running"], &status["server"]["wanted"]), (&true.into(), &2.into()));
    let clients = [site.join(0, 2, &[]), site.join(1, 2, &[])];
    let status = site.wait_for("status", |status| status["last"]["round"].as_u64() > Some(1));
    assert_eq!((&status["population"], &status["rounds"]), (&2.into(), &100_000.into()));
    assert!(status["epsilon_release"].as_f64() > Some(0.0) && status["epsilon_server"].is_null());
    let text = skep(&["status", "--state", path(&state)]).out;
    for part in
        ["running since 20", "2 of 2 clients", "limit       epsilon 1000000000", "adds the noise itself"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }

    // A second server keeps off.
    let second = Running::start(&[
        "serve",
        path(&site.file),
        "--listen",
        "127.0.0.1:0",
        "--state",
        path(&state),
        "--out",
        path(&site.path("second")),
    ]);
    let second = second.end();
    assert_eq!(second.code, 2);
    assert!(second.err.contains("a server is running on"), "{}", second.err);

    let asked = Instant::now();
    server.signal("TERM");
    server.until("interrupted");
    let served = server.end();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(served.code, 130, "{}", served.err);
    let status = site.json("status");
    assert_eq!((&status["running"], &status["server"]["doing"]), (&false.into(), &"over".into()));
    assert!(skep(&["status", "--state", path(&state)]).out.contains("not running"));
    for client in clients {
        client.kill();
    }
}

#[test]
fn a_server_that_is_stopped_and_started_goes_on_with_the_next_round_and_the_same_clients() {
    let site = Site::new(&LONG);
    let server = site.serve(&[]);
    let clients = [site.join(0, 2, &[]), site.join(1, 2, &[])];
    site.wait_for("status", |status| status["last"]["round"].as_u64() > Some(2));
    server.signal("TERM");
    assert_eq!(server.end().code, 130);
    let before = site.rounds();
    let last = before.last().unwrap();
    assert_eq!(last["outcome"], "complete", "the open round had time to end");

    let mut server = site.serve(&[]);
    server.until(&format!("going on after round {} of 100000", last["round"]));
    let status = site.json("status");
    assert_eq!(status["epsilon_release"], last["epsilon_release"], "what is spent is not forgotten");
    let next = last["round"].as_u64().unwrap() + 1;
    site.wait_for("status", |status| status["last"]["round"].as_u64() > Some(next));
    server.signal("TERM");
    server.end();
    let after = site.rounds();
    assert_eq!(&after[..before.len()], &before);
    let numbers: Vec<_> = after.iter().map(|record| record["round"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=after.len() as u64).collect::<Vec<_>>());
    for client in clients {
        client.kill();
    }

    // Another experiment is not mixed up with these rounds.
    let other = harness::central(site.directory.path(), &with(&[("clip_norm = 1.0", "clip_norm = 0.25")]));
    assert_eq!(other, site.file);
    let (state, out) = (site.path("state"), site.path("out"));
    let all =
        ["serve", path(&site.file), "--listen", "127.0.0.1:0", "--state", path(&state), "--out", path(&out)];
    let refused = skep(&all);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("another experiment") && refused.err.contains("move that"),
        "{}",
        refused.err
    );
    assert_eq!(site.rounds().len(), after.len(), "the results are still there");
}

#[test]
fn certificates_are_renewed_without_an_invitation_while_the_client_runs() {
    let site = Site::new(&LONG);
    let server = site.serve(&["--certificates-for", "3s"]);
    let client = site.join(0, 2, &[]);
    let until = |clients: &Value| clients[0]["certificate_until"].as_u64();
    let first = until(&site.wait_for("clients", |clients| clients[0]["connected"] == true));
    site.wait_for("clients", |clients| until(clients) > first.map(|seconds| seconds + 3));
    let clients = site.json("clients");
    assert_eq!((state_of(&clients, 0), &clients[0]["connected"]), ("enrolled", &true.into()));

    // One that is away for too long needs an invitation, and takes it in its old directory.
    client.signal("TERM");
    assert_eq!(client.end().code, 130);
    site.wait_for("clients", |clients| clients[0]["state"] == "expired");
    let late = site.join_with(&[], 0, 2).end();
    assert_eq!(late.code, 5);
    assert!(late.err.contains("expired; ask the operator for a new"), "{}", late.err);
    let mut back = site.join_with(&[site.invite(&["--client", "0"]).out.trim()], 0, 2);
    back.until("taking part as client-0");
    back.kill();
    server.kill();
}

#[test]
fn an_owner_reads_what_is_asked_and_limits_it_in_a_file() {
    let site = Site::new(&with(&[("count = 60", "count = 4")]));
    let server = site.serve(&[]);
    let policy = site.path("policy.toml");
    std::fs::write(&policy, "rounds = 2\n").unwrap();
    let mut limited = site.join(0, 2, &["--policy", path(&policy)]);
    let free = site.join(1, 2, &["--log-format", "json", "--log", "info"]);
    limited.until("asked to train \"digits-central\"");
    limited.until("trust mode             central");
    limited.until("declined round 3: 2 rounds were taken part in, which is all that `rounds` allows");
    let limited = limited.end();
    assert_eq!(limited.code, 0, "{}", limited.err);
    assert_eq!(limited.err.matches("declined").count(), 2, "rounds 3 and 4, each once: {}", limited.err);
    assert!(
        limited.out.contains("took part in 2 rounds\nnot in 2: declined, the owner allows no more rounds"),
        "{}",
        limited.out
    );
    let free = free.end();
    assert!(free.out.contains("took part in 4 rounds"), "{}", free.out);
    let log: Vec<Value> = free.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let asked: Vec<_> = log.iter().filter(|line| line["message"] == "asked to train").collect();
    assert_eq!(asked.len(), 4);
    assert_eq!((&asked[0]["mode"], &asked[0]["task"]), (&"central".into(), &"digits-central".into()));
    assert_eq!(server.end().code, 0);
    assert_eq!(site.rounds()[3]["declines"]["round-limit"], 1);
    let status = skep(&["status", "--state", path(&site.path("state"))]).out;
    assert!(status.contains("left out    1 round-limit\n"), "{status}");

    std::fs::write(&policy, "round = 2\n").unwrap();
    let wrong = site.join_with(&["--policy", path(&policy)], 0, 2).end();
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("unknown field `round`"), "{}", wrong.err);
}

/// Passes tunnels on, and counts them.
fn proxy() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let server = TcpStream::connect(&target).unwrap();
            asked.send(target).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (url, requests)
}

#[test]
fn a_client_enrols_and_takes_part_through_a_proxy_alone() {
    let site = Site::new(&with(&[("count = 60", "count = 2"), ("clients = 100", "clients = 1")]));
    let server = site.serve(&["--certificates-for", "1h"]);
    let (url, requests) = proxy();
    let client = site.join(0, 1, &["--proxy", &url]).end();
    assert_eq!(client.code, 0, "{}", client.err);
    assert!(client.out.contains("took part in 2 rounds"), "{}", client.out);
    assert_eq!(server.end().code, 0);
    let asked: Vec<String> = requests.try_iter().collect();
    assert_eq!(asked.len(), 2, "one tunnel to enrol, one to take part");
    assert_eq!(asked[0], asked[1]);
}
