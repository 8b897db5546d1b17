//! Transcripts of a federation whose authority is apart from its server, and of a server that would have members of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::running::{Running, Site};
use harness::{Transcript, path, skep};
use serde_json::Value;

/// Three clients, whose updates the server sees the sum of, and more rounds than anybody waits for.
const MASKED: [(&str, &str); 6] = [
    ("clients = 100", "clients = 3"),
    ("count = 60", "count = 100000"),
    ("min_updates = 50", "min_updates = 3"),
    ("deadline_s = 60.0", "deadline_s = 30.0"),
    ("epsilon_limit = 8.0", "epsilon_limit = 1e9"),
    ("[privacy]", "[secure_aggregation]\nmax_corrupt_fraction = 0.34\nmin_cohort = 3\n\n[privacy]"),
];

/// An authority in a directory of its own, and its fingerprint.
struct Authority {
    directory: PathBuf,
    fingerprint: String,
}

/// Runs a command that goes well, and returns its standard output without the end of the line.
fn well(arguments: &[&str]) -> String {
    let Transcript { code, out, err } = skep(arguments);
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out.trim().to_owned()
}

/// Runs a command that does not, and returns what it says.
fn refused(code: i32, arguments: &[&str]) -> String {
    let transcript = skep(arguments);
    assert_eq!(transcript.code, code, "{arguments:?}: {}{}", transcript.out, transcript.err);
    // Without the frame that long lines are wrapped in.
    transcript.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

impl Authority {
    fn init(site: &Site) -> Self {
        let directory = site.path("ca");
        Authority { fingerprint: well(&["ca", "init", path(&directory)]), directory }
    }

    fn roster(&self) -> PathBuf {
        self.directory.join("roster.skep")
    }

    fn certify_server(&self, site: &Site) {
        let request = well(&["ca", "request", "--server", "--state", path(&site.path("state"))]);
        well(&["ca", "sign", path(&self.directory), &request]);
    }

    /// Lists the client of this directory under this number; the line that it joins with.
    fn list(&self, site: &Site, home: &str, number: &str) -> String {
        let request = well(&["ca", "request", "--state", path(&site.path(home))]);
        let address = site.address();
        let sign = ["ca", "sign", path(&self.directory), &request, "--client", number, "--address", &address];
        well(&sign)
    }

    fn install(&self, site: &Site) -> String {
        let (roster, state) = (self.roster(), site.path("state"));
        well(&["ca", "install", path(&roster), "--state", path(&state), "--ca", &self.fingerprint])
    }
}

fn join(site: &Site, home: &str, number: usize, arguments: &[&str]) -> Running {
    let (state, part) = (site.path(home), format!("digits:{number}/3"));
    let all = ["join", "--data", &part, "--state", path(&state), "--min-cohort", "3"];
    Running::start(&[&all[..], arguments].concat())
}

fn released(site: &Site, more_than: u64) {
    site.wait_for("status", |status| {
        let last = &status["last"];
        let complete = last["detail"].as_str().is_some_and(|detail| detail.starts_with("complete"));
        complete && last["round"].as_u64() > Some(more_than)
    });
}

#[test]
fn clients_of_an_authority_apart_take_part_and_no_former_member_comes_back() {
    let site = Site::new(&MASKED);
    let authority = Authority::init(&site);
    let (ca, state, roster) = (path(&authority.directory), site.path("state"), authority.roster());
    authority.certify_server(&site);
    let lines = [authority.list(&site, "client-0", "0"), authority.list(&site, "client-1", "1")];
    // The server's own, which the authority took for client 2.
    let own = authority.list(&site, "own", "2");
    let installed = authority.install(&site);
    assert!(
        installed.starts_with("roster 4 of authority ") && installed.ends_with(": 3 members"),
        "{installed}"
    );
    let server = site.serve(&[]);
    let own_home = site.path("own");
    well(&["join", &own, "--enrol-only", "--state", path(&own_home)]);
    // What a server needs to go back to that roster.
    let kept = [state.join("authority/roster.skep"), state.join("clients/2/enrolled")];
    let old = kept.each_ref().map(|file| fs::read(file).unwrap());

    // The authority finds out, and gives the number to somebody else.
    let line = authority.list(&site, "client-2", "2");
    let early = join(&site, "client-2", 2, &[&line]).end();
    assert_eq!(early.code, 5, "{}", early.err);
    assert!(early.err.contains("with another key than this"), "{}", early.err);
    assert!(authority.install(&site).starts_with("roster 5 of"));
    let mut clients = vec![join(&site, "client-0", 0, &[&lines[0], "--ca", &authority.fingerprint])];
    clients.push(join(&site, "client-1", 1, &[&lines[1]]));
    clients.push(join(&site, "client-2", 2, &[&line]));
    clients[0].until(&format!("in the roster of authority {}, number 2 or later", authority.fingerprint));
    released(&site, 0);
    let listed: Value = serde_json::from_str(&well(&["ca", "roster", ca, "--output", "json"])).unwrap();
    assert_eq!((&listed["sequence"], listed["members"].as_array().unwrap().len()), (&5.into(), 3));
    let table = well(&["ca", "roster", path(&roster), "--ca", &authority.fingerprint]);
    assert!(table.contains("members     3") && table.contains("client-2  "), "{table}");

    // The server lets its own client in as client 2, first by its own list of keys alone, which is not enough for the server itself, then
    // with the old roster, too.
    clients.pop().unwrap().kill();
    server.kill();
    fs::write(&kept[1], &old[1]).unwrap();
    let refused = |rounds: &[Value]| rounds.iter().any(|round| round["refusals"]["not-invited"] == 1);
    assert!(refused(&with_its_own(&site)));
    fs::write(&kept[0], &old[0]).unwrap();
    // Its own may decline, too: it is the same program.
    let stale =
        |rounds: &[Value]| rounds.iter().any(|round| round["declines"]["stale-roster"].as_u64() >= Some(2));
    assert!(stale(&with_its_own(&site)));
    clients.into_iter().for_each(Running::kill);
}

/// The rounds of the server with its own client as client 2; none may be released.
fn with_its_own(site: &Site) -> Vec<Value> {
    // The one in which the server was killed may have ended.
    let before = site.rounds().last().unwrap()["round"].as_u64().unwrap() + 1;
    let server = site.serve(&[]);
    let lying = join(site, "own", 2, &[]);
    site.wait_for("status", |status| status["last"]["round"].as_u64() > Some(before + 1));
    server.kill();
    lying.kill();
    let rounds = site.rounds();
    let after: Vec<_> = rounds.into_iter().filter(|round| round["round"].as_u64() > Some(before)).collect();
    assert!(after.iter().all(|round| round["outcome"] == "aborted"), "{after:?}");
    after
}

#[test]
fn without_such_an_authority_clients_are_told_whose_word_it_is() {
    let site = Site::new(&MASKED);
    let server = site.serve(&[]);
    let line = site.invite(&[]).out.trim().to_owned();
    let fingerprint = "00".repeat(32);
    let other = join(&site, "client-0", 0, &[&line, "--ca", &fingerprint]).end();
    assert_eq!(other.code, 5);
    assert!(other.err.contains("nothing was sent"), "{}", other.err);
    let mut clients: Vec<Running> = Vec::new();
    for number in 0..3 {
        let line = if number == 0 { line.clone() } else { site.invite(&[]).out.trim().to_owned() };
        clients.push(join(&site, &format!("client-{number}"), number, &[&line]));
    }
    clients[0].until(
        "certified by the server's own authority: whoever runs the server could enrol some of its own",
    );
    released(&site, 0);
    clients.into_iter().for_each(Running::kill);
    server.kill();
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let site = Site::new(&MASKED);
    let (state, file, results) = (site.path("state"), path(&site.file).to_owned(), site.path("out"));
    let authority = Authority::init(&site);
    let (ca, roster, fingerprint) = (path(&authority.directory), authority.roster(), &authority.fingerprint);
    assert!(refused(2, &["ca", "init", ca]).contains("an authority is made in a new directory"));
    assert!(refused(2, &["ca", "install", path(&roster), "--state", path(&state)]).contains("with --ca"));
    let install = ["ca", "install", path(&roster), "--state", path(&state), "--ca", fingerprint];
    assert!(refused(2, &install).contains("no certificate for a server"));
    let serve = ["serve", &file, "--listen", "127.0.0.1:0", "--state", path(&state), "--out", path(&results)];
    assert!(refused(1, &serve).contains("has not certified it yet"));
    authority.certify_server(&site);
    let other = Authority {
        directory: site.path("other"),
        fingerprint: well(&["ca", "init", path(&site.path("other"))]),
    };
    let wrong = ["ca", "install", path(&roster), "--state", path(&state), "--ca", &other.fingerprint];
    assert!(refused(5, &wrong).contains("is of another authority"));
    well(&install);
    assert!(
        refused(2, &[&serve[..], &["--certificates-for", "1h"]].concat()).contains("signs all certificates")
    );
    // From then on it needs no fingerprint, and takes no other.
    assert!(refused(5, &wrong).contains("this server's authority is"));
    assert!(refused(2, &["invite", "--state", path(&state), "--address", "h:1"]).contains("is apart"));

    let line = authority.list(&site, "client-0", "0");
    let early = join(&site, "client-1", 1, &[&line, "--ca", &other.fingerprint]).end();
    assert_eq!(early.code, 5);
    assert!(early.err.contains("nothing was sent"), "{}", early.err);
    // A roster in which somebody has put another key.
    let text = fs::read_to_string(&roster).unwrap();
    let mut altered: Value = serde_json::from_str(&text).unwrap();
    altered["members"][0]["public_key"] = "00".repeat(32).into();
    let altered_path = site.path("altered.skep");
    fs::write(&altered_path, altered.to_string()).unwrap();
    let install_altered = ["ca", "install", path(&altered_path), "--state", path(&state)];
    assert!(refused(5, &install_altered).contains("not those that its authority has signed"));
    assert!(
        refused(5, &["ca", "roster", path(&altered_path)])
            .contains("not those that its authority has signed")
    );
    // An older one.
    let older = site.path("older.skep");
    fs::copy(&roster, &older).unwrap();
    well(&install);
    well(&["ca", "remove", ca, "client-0"]);
    well(&install);
    let install_older = ["ca", "install", path(&older), "--state", path(&state)];
    assert!(refused(2, &install_older).contains("number 3 is installed"));
    assert_eq!(site.json("clients")[0]["state"], "revoked");
    let request = well(&["ca", "request", "--state", path(&site.path("client-0"))]);
    let again = ["ca", "sign", ca, &request, "--client", "0", "--address", "h:1"];
    assert!(refused(2, &again).contains("removed for good"));
    assert!(refused(2, &["ca", "sign", ca, &request]).contains("where the server is"));
    let nine: Vec<_> = ["--address", "h:1"].into_iter().cycle().take(18).collect();
    assert!(refused(2, &[&["ca", "sign", ca, &request], &nine[..]].concat()).contains("9 addresses"));
    assert!(refused(2, &["ca", "sign", ca, &request[..30], "--address", "h:1"]).contains("cut short"));
    let own = site.path("with-its-own");
    well_known(&own);
    assert!(
        refused(2, &["ca", "request", "--server", "--state", path(&own)]).contains("an authority of its own")
    );
}

/// A server's state with an authority of its own.
fn well_known(state: &Path) {
    well(&["invite", "--state", path(state), "--address", "h:1"]);
}
