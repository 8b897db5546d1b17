//! Transcripts of `skep simulate`: what it prints, what it leaves behind, how it ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::Path;

use harness::{SMALL, SMALL_CENTRAL, Transcript, central, changed, path, skep};
use serde_json::Value;

/// Runs the small variant, changed further, into `out`.
fn simulate(directory: &Path, changes: &[(&str, &str)], arguments: &[&str]) -> Transcript {
    let file = changed(directory, &[&SMALL[..], changes].concat());
    skep(&[&["simulate", path(&file)], arguments].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn with_output_json_the_summary_is_all_that_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let Transcript { code, out, err } = simulate(directory.path(), &[], &["--output", "json", "--seed", "7"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let summary = json(&out);
    for key in [
        "model_sha256",
        "accuracy",
        "loss",
        "test_ids_sha256",
        "rounds_completed",
        "rounds_degraded",
        "rounds_aborted",
        "epsilon_release",
        "epsilon_server",
        "epsilon_server_reason",
        "delta",
        "unit",
        "adjacency",
        "sampling",
        "noise_seeded",
        "seconds_total",
        "seconds_per_round_median",
        "client_updates_per_second",
        "peak_rss_bytes",
        "bytes_up",
        "bytes_down",
        "cpu_features",
        "accountant",
        "mode",
        "name",
        "version",
        "seconds_to_first_round",
        "processes",
    ] {
        assert!(summary.get(key).is_some(), "{key} is missing in {out}");
    }
    assert_eq!(summary["rounds_completed"], 3);
    assert_eq!((&summary["mode"], &summary["epsilon_server_reason"]), (&"distributed".into(), &Value::Null));
    assert_eq!(summary["noise_seeded"], true);
    assert_eq!(summary["sampling"], "all");
    assert!((0.0..=1.0).contains(&summary["accuracy"].as_f64().unwrap()));
    assert!(summary["bytes_up"].as_u64().unwrap() > 0);
}

#[test]
fn the_same_seed_gives_the_same_model_on_any_number_of_threads_and_another_another() {
    let directory = tempfile::tempdir().unwrap();
    let model = |arguments: &[&str]| {
        let ran = simulate(directory.path(), &[], &[&["--output", "json"], arguments].concat());
        json(&ran.out)["model_sha256"].as_str().unwrap().to_owned()
    };
    let first = model(&["--seed", "7", "--threads", "1"]);
    assert_eq!(first, model(&["--seed", "7", "--threads", "3"]));
    assert_ne!(first, model(&["--seed", "8"]));
    assert_ne!(model(&[]), model(&[]), "without a seed the noise is new in every run");
}

#[test]
fn the_results_directory_holds_what_the_help_says() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let ran = simulate(directory.path(), &[], &["--seed", "7", "--out", path(&out)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let mut names: Vec<_> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "experiment.toml",
            "ledger.skep",
            "model.safetensors",
            "report.html",
            "rounds.jsonl",
            "summary.json"
        ]
    );

    let summary = json(&fs::read_to_string(out.join("summary.json")).unwrap());
    let rounds = fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let rounds: Vec<Value> = rounds.lines().map(json).collect();
    assert_eq!(rounds.len(), 3);
    assert_eq!(rounds[2]["model_sha256"], summary["model_sha256"]);
    assert_eq!(rounds[2]["epsilon_release"], summary["epsilon_release"]);

    let model = skep_learning::ModelFile::decode(&fs::read(out.join("model.safetensors")).unwrap()).unwrap();
    let bytes: Vec<u8> = model.parameters().iter().flat_map(|parameter| parameter.to_le_bytes()).collect();
    assert_eq!(skep_protocol::Digest::of(&bytes).to_string(), summary["model_sha256"].as_str().unwrap());
    for (key, value) in [
        ("task", "digits"),
        ("rounds", "3"),
        ("unit", "client"),
        ("adjacency", "zero-out"),
        ("delta", "0.00001"),
        ("sampling", "all"),
        ("noise_seeded", "true"),
    ] {
        assert_eq!(model.metadata()[key], value, "{key}");
    }
    assert_eq!(model.metadata()["epsilon"], summary["epsilon_release"].to_string());

    let again = skep(&["simulate", path(&out.join("experiment.toml")), "--seed", "7", "--output", "json"]);
    assert_eq!(
        json(&again.out)["model_sha256"],
        summary["model_sha256"],
        "the resolved experiment is the same"
    );
}

#[test]
fn results_are_replaced_and_anything_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    assert_eq!(simulate(directory.path(), &[], &["--out", path(&out)]).code, 0);
    assert_eq!(simulate(directory.path(), &[], &["--out", path(&out)]).code, 0);
    let before = fs::read(out.join("summary.json")).unwrap();
    // A trace that makes no sense is bad input, which no seed repeats, and costs no results.
    fs::write(directory.path().join("trace.csv"), "client,from_s,to_s\n0,5,2\n").unwrap();
    let trace = "[simulation.availability]\nkind = \"trace\"\nfile = \"trace.csv\"\n\n[privacy]";
    let Transcript { code, err, .. } =
        simulate(directory.path(), &[("[privacy]", trace)], &["--out", path(&out)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("trace.csv") && !err.contains("to repeat"), "{err}");
    assert_eq!(skep(&["check", path(&directory.path().join("experiment.toml"))]).code, 2);
    assert_eq!(fs::read(out.join("summary.json")).unwrap(), before);
    fs::write(out.join("thesis.tex"), "years of work").unwrap();
    let Transcript { code, err, .. } = simulate(directory.path(), &[], &["--out", path(&out)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("thesis.tex"), "{err}");
    assert_eq!(fs::read(out.join("summary.json")).unwrap(), before);
}

#[test]
fn an_exhausted_budget_ends_the_run_with_three_and_keeps_its_results() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let change = [("epsilon_limit = 8.0", "epsilon_limit = 1.2")];
    let Transcript { code, err, .. } = simulate(directory.path(), &change, &["--out", path(&out)]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("budget is exhausted"), "{err}");
    let summary = json(&fs::read_to_string(out.join("summary.json")).unwrap());
    let done = summary["rounds_completed"].as_u64().unwrap();
    assert!((1..3).contains(&done), "{done} rounds fit");
    assert!(summary["epsilon_release"].as_f64().unwrap() <= 1.2);
}

#[test]
fn rounds_that_nobody_reaches_end_the_run_with_four() {
    let directory = tempfile::tempdir().unwrap();
    let change =
        [("scheme = \"all\"", "scheme = \"poisson\"\nrate = 0.001"), ("min_updates = 5", "min_updates = 10")];
    let file = central(directory.path(), &[&SMALL_CENTRAL[..], &change].concat());
    let Transcript { code, err, .. } = skep(&["simulate", path(&file), "--seed", "1"]);
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("not enough clients"), "{err}");
}

#[test]
fn the_text_says_what_it_cost_and_that_a_seeded_run_is_not_private() {
    let directory = tempfile::tempdir().unwrap();
    let seeded = simulate(directory.path(), &[], &["--seed", "7"]).out;
    assert!(seeded.contains("recipients  epsilon"), "{seeded}");
    assert!(seeded.contains("server      epsilon"), "{seeded}");
    assert!(seeded.contains("with up to 1 of 10 clients its own"), "{seeded}");
    assert!(seeded.contains("not private every draw follows from --seed"), "{seeded}");
    let private = simulate(directory.path(), &[], &[]).out;
    assert!(!private.contains("not private"), "{private}");
}

#[test]
fn wrong_usage_exits_with_two() {
    for arguments in
        [&["simulate", "--threads", "0"][..], &["simulate", "--processes", "2"], &["simulat"], &[]]
    {
        assert_eq!(skep(arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn help_names_every_exit_code() {
    let help = skep(&["--help"]).out;
    for line in [
        "0    done",
        "2    wrong usage",
        "3    the privacy budget",
        "4    not enough",
        "5    a peer",
        "130  interrupted",
    ] {
        assert!(help.contains(line), "{line:?} is not in\n{help}");
    }
}

#[test]
fn a_distributed_run_says_what_each_adversary_learns_in_every_output() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &SMALL);
    let out = directory.path().join("out");
    let ran = skep(&["simulate", path(&file), "--output", "json", "--seed", "7", "--out", path(&out)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let summary = json(&ran.out);
    let number =
        |key: &str| summary[key].as_f64().unwrap_or_else(|| panic!("{key} is missing in {}", ran.out));
    assert_eq!((&summary["mode"], &summary["secure_aggregation"]), (&"distributed".into(), &true.into()));
    assert_eq!(summary["accountant"], "rdp");
    assert!(number("epsilon_release") <= number("epsilon_server"));
    assert!(number("epsilon_server") < number("epsilon_alone"));
    assert!(number("epsilon_server_if_continuous") < number("epsilon_server"));
    let model = skep_learning::ModelFile::decode(&fs::read(out.join("model.safetensors")).unwrap()).unwrap();
    for (key, value) in [
        ("epsilon", "epsilon_release"),
        ("epsilon_server", "epsilon_server"),
        ("epsilon_alone", "epsilon_alone"),
    ] {
        assert_eq!(model.metadata()[key], summary[value].to_string(), "{key}");
    }
    assert_eq!(model.metadata()["max_corrupt_fraction"], "0.1");
}
