//! Transcripts of `skep bench`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use harness::{Transcript, skep};
use serde_json::Value;

const EXPERIMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../simulations/experiments");

fn bench(name: &str, arguments: &[&str]) -> Transcript {
    let file = format!("{EXPERIMENTS}/{name}.toml");
    skep(&[&["bench", &file], arguments].concat())
}

fn json(name: &str, arguments: &[&str]) -> Value {
    let Transcript { code, out, err } = bench(name, &[arguments, &["--output", "json"]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

#[test]
fn the_run_that_is_timed_yields_the_loss_that_is_known() {
    let report = json("w1", &[]);
    let loss = report["loss"].as_f64().unwrap();
    assert!((loss - 0.087_700).abs() < 1e-4, "{loss}");
    assert_eq!((report["parameters"].as_u64(), report["cohort"].as_f64()), (Some(39_173), Some(100.0)));
    assert_eq!(report["rounds"]["count"].as_u64(), Some(49));
}

#[test]
fn every_stage_is_there_and_noise_only_where_it_is_paid_for() {
    for (name, noise) in [("w3", false), ("w1-dp", true)] {
        let report = json(name, &["--rounds", "2"]);
        let stages = report["stages"].as_array().unwrap();
        let seconds = |name: &str| {
            let stage = stages.iter().find(|stage| stage["name"] == name).unwrap();
            stage["seconds"].as_f64().unwrap()
        };
        for stage in ["data", "reset", "train", "clip", "quantise", "sum", "noise", "strategy"] {
            assert!(seconds(stage) >= 0.0, "{stage}");
        }
        assert!(seconds("train") > 0.0 && seconds("sum") > 0.0);
        assert_eq!(seconds("noise") > 0.0, noise, "{name}");
        assert!(report["floor"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn the_model_does_not_depend_on_threads_and_the_table_is_for_people() {
    let model = |threads| json("w1", &["--rounds", "3", "--threads", threads])["model_sha256"].clone();
    assert_eq!(model("1"), model("2"));
    let Transcript { code, out, .. } = bench("w1", &["--rounds", "2"]);
    assert_eq!(code, 0);
    for word in ["experiment    w1, 39173 parameters, cohort 100", "\n  train", "GFLOP/s a core", "updates"] {
        assert!(out.contains(word), "{word:?} is not in\n{out}");
    }
}

#[test]
fn every_workload_is_an_experiment_that_makes_sense() {
    for name in ["w1", "w1-dp", "w2", "w2-dp", "w2-no-dropout", "w3", "population-10m"] {
        let file = format!("{EXPERIMENTS}/{name}.toml");
        let Transcript { code, out, err } = skep(&["check", &file]);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        assert!(out.contains("kind = \"workload\""), "{out}");
    }
    let missing = skep(&["bench", "no-such-file.toml"]);
    assert!(missing.code != 0 && missing.err.contains("no-such-file.toml cannot be read"), "{}", missing.err);
}
