//! Transcripts about tables: categories, missing values, standardized columns and numbers to predict, from files to predictions.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::running::{Running, Site};
use harness::{Transcript, path, skep};
use serde_json::Value;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../simulations/experiments");

/// An experiment that ships, with its files and these changes, in `directory`.
fn shipped(directory: &Path, name: &str, changes: &[(&str, &str)]) -> PathBuf {
    for file in ["wards.csv", "wards-statistics.json", "houses.csv", "houses-statistics.json"] {
        fs::copy(Path::new(SHIPPED).join(file), directory.join(file)).unwrap();
    }
    let mut text = fs::read_to_string(Path::new(SHIPPED).join(name)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has {from:?}");
        text = text.replacen(from, to, 1);
    }
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    file
}

fn summary(file: &Path, arguments: &[&str]) -> Value {
    let all = [&["simulate", path(file), "--output", "json", "--seed", "1"], arguments].concat();
    let Transcript { code, out, err } = skep(&all);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// A message without the lines that it is broken into.
fn one_line(err: &str) -> String {
    err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

const SHORT: [(&str, &str); 1] = [("count = 120", "count = 3")];

/// The columns of the houses that are held out: of each agent every fifth, in the order of the file.
fn held_out(text: &str) -> Vec<&str> {
    let mut seen = std::collections::HashMap::new();
    let is_held_out = |line: &&str| {
        let seen = seen.entry(line.split(',').next().unwrap().to_owned()).or_insert(0);
        *seen += 1;
        *seen % 5 == 0
    };
    text.lines().skip(1).filter(is_held_out).collect()
}

#[test]
fn predictions_are_those_that_were_measured_in_the_targets_unit() {
    let directory = tempfile::tempdir().unwrap();
    let file = shipped(directory.path(), "houses.toml", &SHORT);
    let out = directory.path().join("out");
    let said = summary(&file, &["--out", path(&out)]);
    assert_eq!(said["metric"], "root_mean_squared_error");
    assert!(said["accuracy"].is_null() && said["perplexity"].is_null(), "{said}");

    // The held-out rows with their columns in another order, and one that the model does not know.
    let text = fs::read_to_string(directory.path().join("houses.csv")).unwrap();
    let rows: Vec<Vec<&str>> = held_out(&text).iter().map(|line| line.split(',').collect()).collect();
    let asked = directory.path().join("asked.csv");
    let lines = rows.iter().map(|row| format!("{},{},note,{},{}\n", row[4], row[3], row[2], row[1]));
    fs::write(&asked, "district,year,note,rooms,size\n".to_owned() + &lines.collect::<String>()).unwrap();
    let model = out.join("model.safetensors");
    let Transcript { code, out: answers, err } =
        skep(&["predict", path(&model), "--input", path(&asked), "--output", "csv"]);
    assert_eq!(code, 0, "{err}");
    let mut answers = answers.lines();
    assert_eq!(answers.next(), Some("price"));
    let errors: Vec<f64> = answers
        .zip(&rows)
        .map(|(answer, row)| {
            f64::from(answer.parse::<f32>().unwrap()) - f64::from(row[5].parse::<f32>().unwrap())
        })
        .collect();
    assert_eq!(errors.len(), rows.len());
    let mean = |of: fn(f64) -> f64| errors.iter().map(|error| of(*error)).sum::<f64>() / errors.len() as f64;
    let close = |key: &str, value: f64| {
        let said = number(&said[key]);
        assert!((said / value - 1.0).abs() < 1e-5, "{key}: {said} is not {value}");
    };
    close("mean_absolute_error", mean(f64::abs));
    close("mean_squared_error", mean(|error| error * error));
    close("root_mean_squared_error", mean(|error| error * error).sqrt());

    let rounds = fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let last: Value = serde_json::from_str(rounds.lines().last().unwrap()).unwrap();
    for key in ["root_mean_squared_error", "mean_absolute_error", "r_squared", "loss"] {
        assert_eq!(last[key], said[key], "{key}");
    }
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("<h3>RMSE</h3>") && !report.contains("Confusion matrix"), "{report}");
    let compared = skep(&["compare", path(&out), path(&out)]);
    assert!(["RMSE", "MAE", "R²"].iter().all(|name| compared.out.contains(name)), "{}", compared.out);
    assert!(!compared.out.contains("accuracy"), "{}", compared.out);
    let metrics = skep(&["metrics", path(&out), "--format", "csv"]).out;
    assert!(metrics.lines().next().unwrap().contains("root_mean_squared_error"), "{metrics}");
    let shown = skep(&["model", "show", path(&model)]).out;
    assert!(shown.contains("predicts    the number `price`, 0 to 1000"), "{shown}");
    assert!(shown.contains("district (harbour, old town, hill, fields and others)"), "{shown}");
    let json: Value = serde_json::from_str(&skep(&["model", "show", path(&model), "--json"]).out).unwrap();
    let numbers = json["numbers"].as_array().unwrap();
    assert!(
        numbers.contains(&"district=old town".into()) && numbers.contains(&"district other".into()),
        "{json}"
    );
    let onnx = directory.path().join("model.onnx");
    assert_eq!(skep(&["model", "export", path(&model), "--format", "onnx", "--out", path(&onnx)]).code, 0);
    let graph = fs::read(&onnx).unwrap();
    assert!(graph.windows(6).any(|bytes| bytes == b"number"), "the graph has an output of that name");
}

#[test]
fn a_row_is_asked_as_it_stands_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = shipped(directory.path(), "houses.toml", &SHORT);
    let out = directory.path().join("out");
    summary(&file, &["--out", path(&out)]);
    let model = out.join("model.safetensors");
    let asked = directory.path().join("asked");
    let ask = |text: &str| {
        fs::write(&asked, text).unwrap();
        let Transcript { code, out, err } = skep(&["predict", path(&model), "--input", path(&asked)]);
        (code, out, one_line(&err))
    };
    let (code, table, err) = ask("size,rooms,year,district\n100,4,,hill\n50,2,2000,moon\n");
    assert_eq!(code, 0, "{err}");
    let (_, lines, _) = ask("{\"size\": 100, \"rooms\": \"4\", \"district\": \"hill\"}\n\
         [50, 2, 2000, \"moon\"]\n");
    assert_eq!(table, lines);
    assert!(table.starts_with("{\"number\":"), "{table}");
    for (text, says) in [
        ("size,rooms,year\n100,4,1960\n", "line 1: no column `district`; there are: size, rooms, year"),
        ("size,rooms,year,district\n,4,1960,hill\n", "line 2, column `size`: the value is missing"),
        ("size,rooms,year,district\n1,big,1960,hill\n", "column `rooms`: `big` is not a finite number"),
        ("{\"size\": 1, \"rooms\": 2}\n", "line 1: column `district`: the value is missing"),
        ("[1, 2]\n", "has 2 values, the model's table has 4 columns"),
    ] {
        let (code, _, err) = ask(text);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(says), "{says:?} is not in {err}");
    }
}

#[test]
fn what_is_wrong_in_a_table_of_categories_and_targets_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |file: &Path| {
        let Transcript { code, err, .. } = skep(&["simulate", path(file)]);
        assert_eq!(code, 2, "{err}");
        one_line(&err)
    };
    let strict = ", other = true";
    let file = shipped(directory.path(), "wards.toml", &[(strict, "")]);
    let told = refused(&file);
    assert!(
        told.contains("`eyes` is not a category; declared are `surgery`, `medicine`, `children`"),
        "{told}"
    );
    assert!(told.contains("wards.csv, line ") && told.contains("column `ward`"), "{told}");
    let file =
        shipped(directory.path(), "wards.toml", &[("age = { missing = \"mean\", indicator = true }\n", "")]);
    let told = refused(&file);
    assert!(told.contains("wards.csv, line 2, column `age`: the value is missing"), "{told}");
    let file = shipped(directory.path(), "houses.toml", &[("bounds = [0, 1000]", "bounds = [0, 300]")]);
    let told = refused(&file);
    assert!(
        told.contains("column `price`: ") && told.contains("outside of what the target may be, 0 to 300"),
        "{told}"
    );
    let file = shipped(
        directory.path(),
        "houses.toml",
        &[("{ kind = \"column\" }", "{ kind = \"shards\", per_client = 2 }")],
    );
    assert!(refused(&file).contains("deals out classes"));
    let file = shipped(
        directory.path(),
        "houses.toml",
        &[("[evaluation]\nevery = 5\n", "[evaluation]\nclients = 0.5\nhold_out = 0.2\n")],
    );
    assert!(refused(&file).contains("a model that predicts a number finds none"));
    let file =
        shipped(directory.path(), "houses.toml", &[("patience = 6", "patience = 6\nmetric = \"accuracy\"")]);
    assert!(refused(&file).contains("is not measured of such a model; choose one of"));
    let file = shipped(directory.path(), "houses.toml", &[("district = {", "colour = {")]);
    assert!(refused(&file).contains("is none of task.data.features"));
    // A column that is the same everywhere is a column like others.
    let file = shipped(directory.path(), "houses.toml", &[("count = 120", "count = 1")]);
    let table = directory.path().join("houses.csv");
    let text = fs::read_to_string(&table).unwrap();
    let flat = text.lines().skip(1).map(|line| {
        let row: Vec<&str> = line.split(',').collect();
        format!("{},100,{},{},{},250\n", row[0], row[2], row[3], row[4])
    });
    fs::write(&table, "agent,size,rooms,year,district,price\n".to_owned() + &flat.collect::<String>())
        .unwrap();
    let said = summary(&file, &[]);
    assert!(said["r_squared"].is_null() && number(&said["mean_absolute_error"]) > 0.0, "{said}");
    let broken = fs::read_to_string(&table).unwrap().replacen(",250", ",NaN", 1);
    fs::write(&table, broken).unwrap();
    assert!(refused(&file).contains("houses.csv, line 2, column `price`: `NaN` is not a finite number"));
}

#[test]
fn every_privacy_mode_trains_numbers_and_sockets_give_the_same_model() {
    let directory = tempfile::tempdir().unwrap();
    let promised = "unit = \"client\"\nadjacency = \"zero-out\"\nclip_norm = 1.0\ndelta = 1e-3\nepsilon_limit = 1000.0\n";
    let masked = "[secure_aggregation]\nmax_corrupt_fraction = 0.05\nmin_cohort = 10\n";
    let few = [
        ("count = 120", "count = 2"),
        ("{ scheme = \"fixed\", size = 20 }", "{ scheme = \"all\" }"),
        ("min_updates = 15", "min_updates = 36"),
    ];
    for (mode, privacy) in [
        ("central", format!("mode = \"central\"\nnoise_multiplier = 2.0\n{promised}")),
        ("distributed", format!("mode = \"distributed\"\nnoise_multiplier = 4.0\n{promised}{masked}")),
        ("local", format!("mode = \"local\"\nnoise_multiplier = 2.0\n{promised}")),
        (
            "examples",
            format!("mode = \"local\"\nnoise_multiplier = 2.0\n{}", promised.replace("client", "example")),
        ),
    ] {
        let mode_line = "mode = \"none\"\n";
        let file =
            shipped(directory.path(), "houses.toml", &[&few[..], &[(mode_line, privacy.as_str())]].concat());
        let said = summary(&file, &[]);
        assert!(number(&said["root_mean_squared_error"]) > 0.0, "{mode}: {said}");
        if mode == "distributed" {
            assert_eq!(summary(&file, &["--real"])["model_sha256"], said["model_sha256"], "{said}");
        }
    }
}

#[test]
fn corrupt_clients_poison_rows_that_are_encoded_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let attack = "epsilon_limit = 4.0\n\n[simulation]\nattack = { kind = \"backdoor\", fraction = 0.1, trigger = [0], value = 5.0, target = 1 }\n";
    let changes = [("count = 30", "count = 2"), ("epsilon_limit = 4.0\n", attack)];
    let said = summary(&shipped(directory.path(), "wards.toml", &changes), &[]);
    assert!(said["attack"]["success_rate"].is_number(), "{said}");
}

#[test]
fn private_statistics_leave_categories_alone_and_stand_in_for_missing_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = "partition = { kind = \"column\" }\nledger = \"wards.skep\"";
    let changes = [
        ("wards-statistics.json", "measured.json"),
        ("partition = { kind = \"column\" }", ledger),
        ("count = 30", "count = 2"),
    ];
    let file = shipped(directory.path(), "wards.toml", &changes);
    let text = fs::read_to_string(&file).unwrap();
    let ledger = directory.path().join("wards.skep");
    fs::write(&file, text.replace("\"wards.skep\"", &format!("{:?}", path(&ledger)))).unwrap();
    let bounds = directory.path().join("bounds.toml");
    let measured = directory.path().join("measured.json");
    let ask = |declared: &str| {
        fs::write(&bounds, declared).unwrap();
        let out = ["--out", path(&measured), "--noise-multiplier", "8"];
        skep(&[&["data", "statistics", path(&file), "--bounds", path(&bounds)], &out[..]].concat())
    };
    let Transcript { code, err, .. } = ask("age = [0, 100]\nheat = [33, 42]\nward = [0, 1]\n");
    assert_eq!(code, 2, "{err}");
    assert!(
        one_line(&err).contains("bounds are needed for each of the columns [\"age\", \"heat\"]"),
        "{err}"
    );
    let Transcript { code, out, err } = ask("age = [0, 100]\nheat = [33, 42]\n");
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("column      age: mean ") && !out.contains("ward"), "{out}");
    // A run with a seed cannot be charged to a ledger.
    let Transcript { code, out, err } = skep(&["simulate", path(&file), "--output", "json"]);
    assert_eq!(code, 0, "{err}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert!(said["accuracy"].is_number() && number(&said["epsilon_release"]) > 0.0, "{said}");
}

#[test]
fn a_client_whose_data_are_not_encoded_as_the_federations_ends_with_the_reason() {
    let site = Site::with(|directory| {
        let changes = [
            ("train = \"houses.csv\"\nhold_out_every = 5\n", "test = \"houses.csv\"\n"),
            (
                "clients = 40\npartition = { kind = \"column\" }",
                "clients = 2\npartition = { kind = \"iid\" }",
            ),
            ("{ scheme = \"fixed\", size = 20 }", "{ scheme = \"all\" }"),
            ("min_updates = 15", "min_updates = 2"),
            ("count = 120", "count = 2"),
        ];
        shipped(directory, "houses.toml", &changes)
    });
    let server = site.serve(&[]);
    let table = site.path("houses.csv");
    let experiment = site.path("houses.toml");
    let join = |name: &str, arguments: &[&str]| {
        let (invitation, state) = (site.invitation(), site.path(name));
        let join = ["join", &invitation, "--data", path(&table), "--state", path(&state)];
        Running::start(&[&join[..], arguments].concat())
    };
    let plain = join("plain", &["--features", "size,rooms", "--label", "rooms", "--classes", "20"]).end();
    assert_eq!(plain.code, 2, "{}", plain.err);
    assert!(
        one_line(&plain.err).contains("name its experiment file, which says how, with --experiment"),
        "{}",
        plain.err
    );
    // The same experiment file beside other statistics.
    let other = site.path("other");
    fs::create_dir(&other).unwrap();
    let statistics = fs::read_to_string(site.path("houses-statistics.json")).unwrap();
    fs::write(other.join("houses-statistics.json"), statistics.replace("110.0", "111.0")).unwrap();
    fs::copy(&experiment, other.join("houses.toml")).unwrap();
    let of_others = other.join("houses.toml");
    let Transcript { code, err, .. } = skep(&[
        "join",
        "--data",
        path(&table),
        "--state",
        path(&site.path("plain")),
        "--experiment",
        path(&of_others),
    ]);
    assert_eq!(code, 2, "{err}");
    assert!(one_line(&err).contains("encoded otherwise than the federation does"), "{err}");
    let again = site.path("plain");
    let first = Running::start(&[
        "join",
        "--data",
        path(&table),
        "--state",
        path(&again),
        "--experiment",
        path(&experiment),
    ]);
    let second = join("second", &["--experiment", path(&experiment)]);
    for client in [first, second] {
        let Transcript { code, err, .. } = client.end();
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(server.end().code, 0);
    let said: Value =
        serde_json::from_str(&fs::read_to_string(site.path("out/summary.json")).unwrap()).unwrap();
    assert!(number(&said["mean_absolute_error"]) > 0.0, "{said}");
}
