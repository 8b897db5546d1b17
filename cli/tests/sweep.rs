//! Many runs of one experiment, side by side.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::running::Running;
use harness::{SMALL, changed, path, skep};
use serde_json::Value;
use skep_learning::parquet;

fn swept(directory: &Path, sweep: &str) -> PathBuf {
    let file = changed(directory, &SMALL);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n[sweep]\n{sweep}\n")).unwrap();
    file
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_sweep_runs_every_combination_and_says_what_all_of_them_cost() {
    let directory = tempfile::tempdir().unwrap();
    let file = swept(directory.path(), "task.training.learning_rate = [1.0, 2.0]\nrounds.count = [2, 3]");
    let out = directory.path().join("out");
    let arguments = ["simulate", path(&file), "--sweep", "--out", path(&out), "--output", "json"];
    let ran = skep(&arguments);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let result = json(&ran.out);
    let runs = result["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 4);
    let rounds: u64 = runs.iter().map(|run| run["summary"]["rounds_completed"].as_u64().unwrap()).sum();
    assert_eq!(rounds, 10);
    // Ten rounds of the same noise: what one run of ten rounds costs.
    let ten = directory.path().join("ten.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (text, _) = text.split_once("[sweep]").unwrap();
    fs::write(&ten, text.replacen("count = 3", "count = 10", 1)).unwrap();
    let check = json(&skep(&["check", path(&ten), "--output", "json"]).out);
    for (composed, alone) in
        [("epsilon_release_composed", "epsilon_release"), ("epsilon_server_composed", "epsilon_server")]
    {
        assert_eq!(result[composed], check["price"][alone], "{composed}");
        let most = runs.iter().filter_map(|run| run["summary"][alone].as_f64()).fold(0.0, f64::max);
        assert!(most > 0.0 && result[composed].as_f64().unwrap() > most);
    }

    // Nothing is run twice, and what one run has lost is run again.
    let before = fs::read(out.join("0001/summary.json")).unwrap();
    fs::remove_dir_all(out.join("0002")).unwrap();
    assert_eq!(skep(&arguments).code, 2, "the directory is not empty");
    let again = skep(&[&arguments[..6], &["text", "--resume"]].concat());
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(fs::read(out.join("0001/summary.json")).unwrap(), before);
    assert!(out.join("0002/summary.json").exists());
    assert!(again.out.contains("rounds.count") && again.out.contains("all runs: epsilon"), "{}", again.out);

    // A run that a killed sweep has left behind is waited for.
    let behind = fs::File::options().append(true).open(out.join("0002/rounds.jsonl")).unwrap();
    behind.lock().unwrap();
    let mut waiting = Running::start(&[&arguments[..6], &["text", "--resume"]].concat());
    waiting.until("run 2 is still on its way in another process");
    drop(behind);
    assert_eq!(waiting.end().code, 0);

    let page = directory.path().join("compare.html");
    let [one, two] = ["0001", "0004"].map(|run| out.join(run));
    let compared = skep(&["compare", path(&one), path(&two), "--html", path(&page)]);
    assert_eq!(compared.code, 0, "{}", compared.err);
    for part in ["rounds.count", "task.training.learning_rate", "0001", "0004", "accuracy"] {
        assert!(compared.out.contains(part), "{}", compared.out);
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("0001: count 2, learning_rate 1.0") && page.contains(".run1"), "{page}");

    let csv = skep(&["metrics", path(&one), "--format", "csv"]);
    assert_eq!(csv.code, 0, "{}", csv.err);
    let lines: Vec<&str> = csv.out.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("round,") && lines[1].starts_with("1,") && lines[0].contains("epsilon_release"),
        "{}",
        lines[0]
    );
    let logs = directory.path().join("logs");
    let events = skep(&["metrics", path(&one), "--format", "tensorboard", "--out", path(&logs)]);
    assert_eq!(events.code, 0, "{}", events.err);
    let events = fs::read(logs.join("events.out.tfevents.0.skep")).unwrap();
    assert!(events.windows(8).any(|window| window == b"accuracy"));
}

#[test]
fn the_best_run_is_the_best_on_validation_examples() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &SMALL);
    let text = fs::read_to_string(&file).unwrap();
    // Without noise a step that is too short to learn is told from others.
    let open = "[privacy]\nmode = \"none\"\n[evaluation]\nvalidation = 0.1\n[sweep]\ntask.training.learning_rate = [0.001, 2.0]\n";
    fs::write(&file, text.split_once("[privacy]").unwrap().0.to_owned() + open).unwrap();
    let out = directory.path().join("out");
    let ran = skep(&["simulate", path(&file), "--sweep", "--out", path(&out)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("validation accuracy  accuracy") && ran.out.contains("\n2 *  2.0 "),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("validation accuracy 0."), "{}", ran.err);
    let sweep = json(&fs::read_to_string(out.join("sweep.json")).unwrap());
    let validated = |run: &Value| run["summary"]["validation"]["accuracy"].as_f64().unwrap();
    let runs = sweep["runs"].as_array().unwrap();
    let best = runs.iter().max_by(|one, other| validated(one).total_cmp(&validated(other))).unwrap();
    assert_eq!((&sweep["best"], &best["run"]), (&2.into(), &2.into()));

    let run = out.join("0002");
    let table = directory.path().join("rounds.parquet");
    let written = skep(&["metrics", path(&run), "--format", "parquet", "--out", path(&table)]);
    assert_eq!(written.code, 0, "{}", written.err);
    let file = parquet::Parquet::open(&table).unwrap();
    assert_eq!(file.rows(), 3);
    let rounds = fs::read_to_string(run.join("rounds.jsonl")).unwrap();
    let rounds: Vec<Value> = rounds.lines().map(json).collect();
    for column in ["round", "validation.accuracy", "accuracy", "seconds", "outcome", "model_sha256"] {
        file.each(column, |row, value| {
            let expected = column.split('.').fold(&rounds[row], |value, part| &value[part]);
            match value {
                parquet::Value::Missing => assert!(expected.is_null(), "{column}"),
                parquet::Value::Integer(value) => assert_eq!(expected.as_i64().map(i128::from), Some(value)),
                parquet::Value::Bool(value) => assert_eq!(expected.as_bool(), Some(value)),
                parquet::Value::Number(value) => assert_eq!(expected.as_f64(), Some(value)),
                text @ parquet::Value::Bytes(_) => {
                    assert!(expected.as_str().unwrap().starts_with(text.to_string().trim_end_matches("...")));
                }
            }
            Ok(())
        })
        .unwrap();
    }
    let nowhere = skep(&["metrics", path(&run), "--format", "parquet"]);
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.err.contains("--out FILE"), "{}", nowhere.err);
    let over_sockets = skep(&["simulate", path(&run.join("experiment.toml")), "--real"]);
    assert_eq!(over_sockets.code, 2);
    assert!(over_sockets.err.contains("evaluation.validation is of simulations"), "{}", over_sockets.err);
}

#[test]
fn runs_whose_clients_differ_promise_nothing_together() {
    let directory = tempfile::tempdir().unwrap();
    let file = swept(directory.path(), "seed = [1, 2]");
    let out = directory.path().join("out");
    let ran = skep(&["simulate", path(&file), "--sweep", "--out", path(&out), "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(json(&ran.out)["epsilon_release_composed"], Value::Null);
    assert!(json(&ran.out)["composition"].as_str().unwrap().contains("clients are not the same"));
}

#[test]
fn a_sweep_is_not_mistaken_for_a_run() {
    let directory = tempfile::tempdir().unwrap();
    let file = swept(directory.path(), "rounds.count = [2, 0]");
    let plain = skep(&["simulate", path(&file)]);
    assert_eq!(plain.code, 2);
    assert!(plain.err.contains("--sweep"), "{}", plain.err);
    let out = directory.path().join("out");
    let wrong = skep(&["simulate", path(&file), "--sweep", "--out", path(&out)]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("rounds.count = 0") && !out.exists(), "{}", wrong.err);
}
