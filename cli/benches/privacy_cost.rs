//! What privacy costs in time: the round of a federation without it, with the noise, and with all of secure aggregation.
//!
//! `cargo bench -p skep-cli --bench privacy_cost`. Everything in one process, as `skep simulate` runs it: all clients' work and the
//! server's, on all threads of the machine. `sum` draws every client's share of the noise and adds updates up; `protocol` masks them,
//! too. The model of both is the same, which is checked.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const BUILT_IN: &str = include_str!("../src/digits.toml");

fn main() {
    println!(
        "{:<34} {:<12} {:>12} {:>10} {:>16}",
        "100 clients, everyone in each round", "privacy", "s a round", "ratio", "B up, a client"
    );
    let large = [
        ("kind = \"softmax\"", "kind = \"mlp\"\nhidden = [1000, 900]\nactivation = \"relu\""),
        ("learning_rate = 2.0", "learning_rate = 0.05"),
    ];
    measure("digits, 650 parameters", &[], 10);
    measure("digits, 974,910 parameters", &large, 3);
}

/// Prints a line for each kind of privacy.
fn measure(name: &str, changes: &[(&str, &str)], rounds: u32) {
    let mut file = changed(BUILT_IN, changes);
    file = changed(&file, &[("count = 60", &format!("count = {rounds}"))]);
    let plain =
        file.split("[privacy]").next().expect("a part before").to_owned() + "[privacy]\nmode = \"none\"\n";
    let whole = changed(&file, &[("fidelity = \"sum\"", "fidelity = \"protocol\"")]);
    let runs = [("none", plain), ("sum", file), ("protocol", whole)];
    let results = runs.map(|(privacy, file)| (privacy, run(&file)));
    let seconds = |result: &Value| result["seconds_per_round_median"].as_f64().expect("a round was released");
    assert_eq!(results[1].1["model_sha256"], results[2].1["model_sha256"], "both add up to the same");
    for (privacy, result) in &results {
        let sent = result["bytes_up"].as_f64().expect("a number") / f64::from(rounds) / 100.0;
        println!(
            "{name:<34} {privacy:<12} {:>12.4} {:>10.2} {sent:>16.0}",
            seconds(result),
            seconds(result) / seconds(&results[0].1)
        );
    }
}

fn changed(file: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(file.to_owned(), |file, (from, to)| {
        assert!(file.contains(from), "the file has {from:?}");
        file.replacen(from, to, 1)
    })
}

fn run(file: &str) -> Value {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("experiment.toml"), file).expect("the file is written");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let arguments = ["simulate", &text(&path("experiment.toml")), "--seed", "1", "--output", "json"];
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(arguments)
        .args(["--out", &text(&path("out"))])
        .output()
        .expect("the command starts");
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}
