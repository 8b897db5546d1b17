//! A server that is killed at random moments and started again: what is finished stays, what is spent stays spent, and
//! the clients come back by themselves.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::time::Duration;

use harness::random::Random;
use harness::running::{Running, Site};
use serde_json::Value;

/// Rounds in which two clients add noise that nobody needs.
fn site(rounds: &'static str) -> Site {
    Site::new(&[
        ("clients = 100", "clients = 2"),
        ("count = 60", rounds),
        ("min_updates = 50", "min_updates = 1"),
        ("deadline_s = 60.0", "deadline_s = 30.0"),
        ("epsilon_limit = 8.0", "epsilon_limit = 1e9"),
    ])
}

/// What a journal says has ended, as far as its lines are whole.
fn ended(site: &Site) -> Vec<Value> {
    let text = std::fs::read_to_string(site.path("state/rounds/journal.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line.get("closed").cloned()).collect()
}

/// What a journal says was released and had not ended, whose release a later start must keep.
fn released(site: &Site) -> Option<Value> {
    let text = std::fs::read_to_string(site.path("state/rounds/journal.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let last: Value = serde_json::from_str(whole.lines().last()?).unwrap();
    last.get("released").cloned()
}

/// Kills the servers of one federation up to `kills` times while it runs, and says how often that was.
fn one_federation(site: &Site, rounds: u64, kills: u64, random: &mut Random) -> u64 {
    let mut server = site.serve(&[]);
    let clients = [site.join(0, 2, &[]), site.join(1, 2, &[])];
    let (mut killed, mut before, mut spent) = (0, Vec::new(), 0.0);
    while killed < kills && (before.len() as u64) < rounds {
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        if server.child.try_wait().unwrap().is_some() {
            break;
        }
        server.kill();
        killed += 1;
        let (after, released) = (ended(site), released(site));
        assert_eq!(&after[..before.len()], &before[..], "a finished round has changed");
        server = site.serve(&[]);
        let restored = ended(site);
        assert_eq!(&restored[..after.len()], &after[..], "a finished round is lost");
        if let Some(released) = released {
            let kept = restored.last().unwrap();
            assert_eq!(kept["model_sha256"], released["model_sha256"], "a released model is lost");
            assert_ne!(kept["outcome"], "aborted");
        }
        let now = site.json("status")["epsilon_release"].as_f64().unwrap();
        assert!(now >= spent, "{now} is less than {spent}");
        (before, spent) = (restored, now);
    }
    finish(site, server, clients, rounds, spent);
    killed
}

fn finish(site: &Site, server: Running, clients: [Running; 2], rounds: u64, spent: f64) {
    let served = server.end();
    assert_eq!(served.code, 0, "{}", served.err);
    let records = site.rounds();
    let numbers: Vec<_> = records.iter().map(|record| record["round"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=rounds).collect::<Vec<_>>(), "each round once, in order");
    let mut last = 0.0;
    for record in &records {
        let epsilon = record["epsilon_release"].as_f64().unwrap();
        assert!(epsilon >= last, "{epsilon} after {last}");
        last = epsilon;
    }
    assert!(last >= spent);
    let completed = records.iter().filter(|record| record["outcome"] != "aborted").count();
    for client in clients {
        let left = client.end();
        assert_eq!(left.code, 0, "{}", left.err);
        assert!(left.out.starts_with("took part in"), "{}", left.out);
    }
    println!("{completed} of {rounds} rounds released");
}

#[test]
fn a_federation_survives_three_kills_of_its_server() {
    let killed = one_federation(&site("count = 200"), 200, 3, &mut Random::new());
    assert!(killed > 0, "the federation was over before anybody killed its server");
}

/// `cargo test --release -p skep-cli --test killed -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes: fifty kills of servers of federations of fifty rounds"]
fn federations_of_fifty_rounds_survive_fifty_kills() {
    let mut random = Random::new();
    let mut left = 50;
    while left > 0 {
        left -= one_federation(&site("count = 50"), 50, left, &mut random);
        println!("{left} kills to go");
    }
}
