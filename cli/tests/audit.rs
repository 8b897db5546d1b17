//! Transcripts of `skep audit`, `skep ledger` and `skep budget`, and of runs that share a budget.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::running::Site;
use harness::{SMALL, Transcript, browser, changed, command, path, readable, skep, transcript};
use serde_json::Value;

/// Runs the small variant and keeps its results.
fn results(directory: &Path, arguments: &[&str]) -> PathBuf {
    let (file, out) = (changed(directory, &SMALL), directory.join("out"));
    let ran = skep(&[&["simulate", path(&file), "--out", path(&out)], arguments].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    out
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_run_passes_its_audit_and_so_does_its_model() {
    let directory = tempfile::tempdir().unwrap();
    let out = results(directory.path(), &[]);
    let (model, page) = (out.join("model.safetensors"), directory.path().join("report.html"));
    let all = ["audit", path(&out), "--model", path(&model), "--html", path(&page), "--every-signature"];
    let Transcript { code, out: text, err } = skep(&all);
    assert_eq!(code, 0, "{text}{err}");
    for part in [
        "everything that was checked holds",
        "3 rounds charged: 3 released",
        "not pinned",
        "compared with the model file",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("<strong>Passed.</strong>") && !html.contains("http:") && !html.contains("https:"),
        "no network is needed"
    );

    let report = json(&skep(&["audit", path(&out), "--output", "json"]).out);
    let summary = json(&fs::read_to_string(out.join("summary.json")).unwrap());
    let recomputed = report["epochs"][0]["recomputed"][0].as_f64().unwrap();
    assert!((recomputed - summary["epsilon_release"].as_f64().unwrap()).abs() < 1e-9, "{report}");
    assert_eq!((&report["verdict"], &report["rollback"]), (&"ok".into(), &"not-checked".into()));
    assert_eq!(report["epochs"][0]["recomputed"][1], summary["epsilon_server"]);
    assert!(html.contains(&format!("ε = {recomputed:.4}")), "the page says what the JSON says");
}

#[test]
fn a_browser_shows_an_audit_as_its_json_says_it() {
    let directory = tempfile::tempdir().unwrap();
    let out = results(directory.path(), &[]);
    let page = directory.path().join("report.html");
    let audited = skep(&["audit", path(&out), "--html", path(&page), "--output", "json"]);
    assert_eq!(audited.code, 0, "{}", audited.err);
    let report = json(&audited.out);
    let Some(shown) = browser::load(&page) else { return };
    assert_eq!(shown.console, [""; 0]);
    let epoch = &report["epochs"][0];
    let mut numbers = 0;
    for part in ["claimed", "recomputed", "renyi"] {
        for value in epoch[part].as_array().unwrap().iter().filter_map(Value::as_f64) {
            assert!(shown.dom.contains(&format!("{value:.6}")), "{part} {value} is not shown");
            numbers += 1;
        }
    }
    assert!(numbers >= 3, "{report}");
    for checked in report["checked"].as_array().unwrap() {
        let detail = checked["detail"].as_str().unwrap();
        assert!(shown.dom.contains(detail), "{detail:?} is not shown");
    }
    let fingerprint = report["key"]["fingerprint"].as_str().unwrap();
    assert!(shown.dom.contains(fingerprint));
    // A point for every round in each curve.
    let rounds = report["moments"].as_array().unwrap().len();
    let mut curves = 0;
    for chart in shown.dom.split("data-series=\"").skip(1) {
        let series = chart.split_once('"').unwrap().0.replace("&quot;", "\"");
        for curve in json(&series).as_array().unwrap() {
            assert_eq!(curve["points"].as_array().unwrap().len(), rounds, "{curve}");
            curves += 1;
        }
    }
    assert!(curves >= 4, "{curves}");
    readable::assert_readable(&page);
}

#[test]
fn several_ledgers_are_added_and_copies_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| {
        let place = directory.path().join(name);
        fs::create_dir(&place).unwrap();
        results(&place, &[])
    });
    let audited = skep(&["audit", path(&first), path(&second), "--output", "json"]);
    assert_eq!(audited.code, 0, "{}{}", audited.out, audited.err);
    let report = json(&audited.out);
    let each: f64 =
        (0..2).map(|at| report["ledgers"][at]["epochs"][0]["recomputed"][0].as_f64().unwrap()).sum();
    let sum = report["together"]["sum"]["epsilon_release"].as_f64().unwrap();
    assert!(each > 0.0 && (sum - each).abs() < 1e-9, "{report}");
    assert_eq!(report["together"]["same_roster"], serde_json::json!([[0, 1]]), "the same clients");
    let text = skep(&["audit", path(&first), path(&second)]).out;
    assert!(text.contains(&format!("together    epsilon {sum:.6}")), "{text}");
    assert!(text.contains("against the servers at delta 0.00002, for whoever"), "{text}");
    let copies = skep(&["audit", path(&first), path(&first.join("ledger.skep"))]);
    assert_eq!(copies.code, 64, "{}", copies.err);
    assert!(copies.err.contains("the same ledger"), "{}", copies.err);

    // The model is the first's, and is compared with that alone; the page has both.
    let (page, model) = (directory.path().join("both.html"), first.join("model.safetensors"));
    let audited =
        skep(&["audit", path(&first), path(&second), "--model", path(&model), "--html", path(&page)]);
    assert_eq!(audited.code, 0, "{}{}", audited.out, audited.err);
    assert_eq!(audited.out.matches("compared with the model file").count(), 1, "{}", audited.out);
    let html = fs::read_to_string(&page).unwrap();
    for part in [
        path(&first),
        path(&second),
        &format!("Epsilon {sum:.6} against recipients"),
        "about the same clients",
    ] {
        assert!(html.contains(part), "{part} is not in the page");
    }
    readable::assert_readable(&page);
    let twice = directory.path().join("third");
    fs::create_dir(&twice).unwrap();
    let third = results(&twice, &[]);
    let foreign = skep(&["audit", path(&second), path(&third), "--model", path(&model)]);
    assert_eq!(foreign.code, 64, "{}", foreign.err);
    assert!(foreign.err.contains("none of these ledgers has signed"), "{}", foreign.err);
}

/// What lies beside a ledger: seals that an auditor of the noise opens, cohorts, and a client's own list.
#[test]
fn an_auditor_of_a_server_checks_its_noise_its_cohorts_and_a_clients_list() {
    let site = Site::new(&[
        ("clients = 100", "clients = 2\nmax_participations = 3"),
        ("count = 60", "count = 3"),
        ("min_updates = 50", "min_updates = 1"),
        ("epsilon_limit = 8.0", "epsilon_limit = 100.0"),
        (
            "[strategy]",
            "[evaluation]\nhold_out = 0.5\nquery = { every = 1, noise_multiplier = 4.0, max_loss = 4.0 }\n[strategy]",
        ),
    ]);
    let [private, wrong, participants] =
        ["private.key", "wrong.key", "participants.key"].map(|name| site.path(name));
    let [public, _] = [&private, &wrong].map(|file| skep(&["ledger", "auditor-key", path(file)]).out);
    let server = site.serve(&["--auditor", public.trim(), "--auditor-days", "1"]);
    let clients: Vec<_> = (0..2).map(|number| site.join(number, 2, &[])).collect();
    let served = server.end();
    assert_eq!(served.code, 0, "{}", served.err);
    clients.into_iter().for_each(|client| assert_eq!(client.end().code, 0));

    let state = site.path("state");
    let keys = skep(&["ledger", "participants-key", path(&state)]).out;
    fs::write(&participants, keys).unwrap();
    let of_client = site.path("client-0");
    let audit = |key: &Path| {
        let beside = ["--participants", path(&participants), "--store", path(&of_client)];
        skep(&[&["audit", path(&state), "--sealed", path(key)], &beside[..]].concat())
    };
    let Transcript { code, out, err } = audit(&private);
    assert_eq!(code, 0, "{out}{err}");
    for part in [
        "checked     6 releases are their raw sums with the committed noise, bit for bit; 0 have no",
        "checked     the cohorts of all 3 rounds under limits were counted, client by client",
        "checked     6 participations in the store",
        "every round is as scheduled; 3 queries were charged besides, each as scheduled",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    let Transcript { code, out, .. } = audit(&wrong);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("is sealed to somebody else"), "{out}");
    let seals = state.join("ledger.skep.seals");
    let seal = fs::read_dir(&seals).unwrap().next().unwrap().unwrap().path();
    fs::write(&seal, "another").unwrap();
    let Transcript { code, out, .. } = audit(&private);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("another seal than the one that was written down"), "{out}");
}

/// Whoever has read enough closes the pipe: nothing panics, and the exit code is what it would have been.
#[test]
fn what_nobody_reads_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = results(directory.path(), &[]);
    let seeded = directory.path().join("seeded");
    fs::create_dir(&seeded).unwrap();
    let seeded = results(&seeded, &["--seed", "1"]);
    let file = changed(directory.path(), &SMALL);
    let mut asked = 0;
    for (arguments, code) in [
        (vec!["check", path(&file)], 0),
        (vec!["check", path(&file), "--output", "json"], 0),
        (vec!["--log", "debug", "simulate", path(&file), "--real"], 0),
        (vec!["audit", path(&out)], 0),
        (vec!["audit", path(&seeded)], 4),
        (vec!["audit", path(&out), path(&seeded)], 4),
        (vec!["ledger", "show", path(&out)], 0),
        (vec!["ledger", "verify", path(&out)], 0),
        (vec!["budget", path(&out)], 0),
        (vec!["compare", path(&out), path(&seeded)], 0),
        (vec!["metrics", path(&out), "--format", "csv"], 0),
        (vec!["model", "show", path(&out.join("model.safetensors"))], 0),
        (vec!["privacy", "epsilon", "--event", "1:1:1", "--delta", "1e-5"], 0),
        (vec!["--help"], 0),
        (vec!["check", "no-such.toml"], 2),
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let status = command(&arguments).stdout(closed()).stderr(closed()).status().unwrap();
        let heard = skep(&arguments);
        assert_eq!((status.code(), heard.code), (Some(code), code), "{arguments:?}: {}", heard.err);
        asked += 1;
    }
    assert_eq!(asked, 15);
}

#[test]
fn every_verdict_has_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let seeded = results(directory.path(), &["--seed", "7"]);
    let Transcript { code, out, .. } = skep(&["audit", path(&seeded)]);
    assert_eq!(code, 4, "{out}");
    assert!(out.contains("whoever knows the seed can subtract the noise"), "{out}");

    let ledger = directory.path().join("out/ledger.skep");
    let honest = fs::read(&ledger).unwrap();
    let mut changed = honest.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&ledger, &changed).unwrap();
    let Transcript { code, out, .. } = skep(&["audit", path(&ledger)]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("finding     record "), "{out}");
    fs::write(&ledger, &honest[..honest.len() - 1]).unwrap();
    let Transcript { code, out, .. } = skep(&["audit", path(&ledger)]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("is incomplete"), "{out}");

    for wrong in [
        &["audit", path(&ledger), "--chekpoint", "x"][..],
        &["audit"],
        &["--log", "warn", "audit", "/no/such/ledger"],
        &["audit", path(&ledger), "--keys", "abc"],
        &["audit", path(&ledger), "--model", path(&ledger)],
    ] {
        let Transcript { code, err, .. } = skep(wrong);
        assert_eq!(code, 64, "{wrong:?}: {err}");
    }
    assert_eq!(skep(&["audit", "--help"]).code, 0);
}

#[test]
fn a_checkpoint_that_was_kept_shows_that_the_end_was_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let out = results(directory.path(), &[]);
    let summary = json(&fs::read_to_string(out.join("summary.json")).unwrap());
    let note = directory.path().join("checkpoint.note");
    fs::write(&note, summary["ledger_checkpoint"].as_str().unwrap()).unwrap();
    assert_eq!(skep(&["audit", path(&out), "--checkpoint", path(&note)]).code, 0);
    let ledger = out.join("ledger.skep");
    let records = skep(&["ledger", "export", path(&ledger)]).out.lines().count();
    let whole = fs::read(&ledger).unwrap();
    // Cut off the last record, whose frame begins with its length.
    let cut = (0..whole.len()).rev().find(|at| {
        skep_privacy::ledger::Frames::new(&whole[..*at])
            .is_ok_and(|mut frames| frames.all(|frame| frame.is_ok()))
    });
    fs::write(&ledger, &whole[..cut.unwrap()]).unwrap();
    let Transcript { code, out, .. } = skep(&["audit", path(&ledger), "--checkpoint", path(&note)]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains(&format!("records {} to {} are missing", records - 1, records - 1)), "{out}");
    let blind = skep(&["audit", path(&ledger)]);
    assert!(blind.out.contains("NOT CHECKED rollback was not checked"), "{}", blind.out);
}

#[test]
fn a_ledger_is_shown_verified_exported_and_its_budget_told() {
    let directory = tempfile::tempdir().unwrap();
    let out = results(directory.path(), &[]);
    let shown = skep(&["ledger", "show", path(&out)]).out;
    assert!(shown.lines().next().unwrap().contains("genesis") && shown.contains("reserve"), "{shown}");
    assert_eq!(skep(&["ledger", "verify", path(&out)]).code, 0);
    let exported = skep(&["ledger", "export", path(&out)]).out;
    let kinds: Vec<String> =
        exported.lines().map(|line| json(line)["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds[..3], ["genesis", "reserve", "settle"]);
    let told = skep(&["budget", path(&out)]).out;
    assert!(told.contains("of 8 at delta 0.00001") && told.contains("more fit"), "{told}");
    assert_eq!(json(&skep(&["budget", path(&out), "--output", "json"]).out)["rounds"], 3);
}

/// The small variant over a population with a ledger of its own, and less budget.
fn shared(directory: &Path, limit: &str) -> PathBuf {
    let ledger = format!("clients = 10\nledger = {:?}", directory.join("bees.skep"));
    let limit = format!("epsilon_limit = {limit}");
    let changes = [&SMALL[1..], &[("clients = 100", &ledger), ("epsilon_limit = 8.0", &limit)]].concat();
    changed(directory, &changes)
}

#[test]
fn a_second_run_over_the_same_population_continues_from_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let file = shared(directory.path(), "2.4");
    let run = || skep(&["simulate", path(&file), "--output", "json"]);
    let first = json(&run().out)["epsilon_release"].as_f64().unwrap();
    let second = run();
    assert_eq!(second.code, 0, "{}", second.err);
    let second = json(&second.out)["epsilon_release"].as_f64().unwrap();
    assert!(second > 1.3 * first, "six rounds cost more than three: {second} {first}");
    let third = run();
    assert_eq!(third.code, 3, "{}", third.err);
    assert!(third.err.contains("is left, in which no further round"), "{}", third.err);
    let audited = skep(&["audit", path(&directory.path().join("bees.skep"))]);
    assert_eq!(audited.code, 0, "{}", audited.out);
    let seeded = skep(&["simulate", path(&file), "--seed", "1"]);
    assert_eq!(seeded.code, 2, "{}", seeded.err);
    assert!(seeded.err.contains("hides nothing"), "{}", seeded.err);
}

#[test]
fn of_two_runs_at_once_over_the_same_population_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = shared(directory.path(), "8.0");
    let start = || {
        let arguments = ["simulate", path(&file), "--output", "json"];
        command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()].map(|child| transcript(child.wait_with_output().unwrap()));
    let spent: Vec<f64> = both
        .iter()
        .filter(|ran| ran.code == 0)
        .map(|ran| json(&ran.out)["epsilon_release"].as_f64().unwrap())
        .collect();
    match &spent[..] {
        // One found the other at work.
        [_] => assert!(
            both.iter().any(|ran| ran.code == 1 && ran.err.contains("another process keeps this ledger"))
        ),
        // One came after the other had ended, and continued.
        [one, other] => assert!((one - other).abs() > 0.1, "both began at zero: {spent:?}"),
        _ => panic!("{} {}", both[0].err, both[1].err),
    }
}
