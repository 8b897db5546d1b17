//! Transcripts of queries of clients' data: statistics, a vocabulary and evaluations are charged to the ledger of the training.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::path::{Path, PathBuf};

use harness::{Transcript, path, skep};
use serde_json::Value;

const CLIENTS: usize = 200;

/// An experiment over the data that `task` describes; all of this file share one ledger.
fn experiment(directory: &Path, name: &str, task: &str, more: &str) -> PathBuf {
    let file = directory.join(format!("{name}.toml"));
    let ledger = directory.join("population.skep");
    let text = format!(
        "name = \"{name}\"\nseed = 1\n{task}\n\
         [task.training]\nlearning_rate = 0.5\nlocal_epochs = 2\nbatch_size = \"full\"\n\
         [population]\nclients = {CLIENTS}\nledger = \"{}\"\n[population.partition]\nkind = \"column\"\n\
         [rounds]\ncount = 4\nmin_updates = 100\ndeadline_s = 60.0\n[rounds.sampling]\nscheme = \"all\"\n\
         [strategy]\nkind = \"fedavg\"\nweighting = \"uniform\"\n\
         [privacy]\nmode = \"central\"\nunit = \"client\"\nadjacency = \"zero-out\"\nclip_norm = 1.0\n\
         noise_multiplier = 8.0\ndelta = 1e-5\nepsilon_limit = 8.0\n{more}",
        ledger.display()
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Wards where those of 60 with 39 degrees are sick, and those of 40 with 37 are not.
fn ward(directory: &Path, standardize: &str) -> PathBuf {
    let lines: String =
        (0..CLIENTS).map(|n| format!("40,37.0,no,{n}\n60,39.0,yes,{n}\n").repeat(2)).collect();
    std::fs::write(directory.join("ward.csv"), format!("age,heat,sick,who\n{lines}")).unwrap();
    std::fs::write(directory.join("bounds.toml"), "age = [0, 100]\nheat = [30, 45]\n").unwrap();
    let task = format!(
        "[task.data]\nkind = \"csv\"\ntrain = \"ward.csv\"\ntest = \"ward.csv\"\nlabel = \"sick\"\nclient = \"who\"\n\
         features = 2\nclasses = [\"no\", \"yes\"]\n{standardize}\n[task.model]\nkind = \"softmax\""
    );
    let query = "[evaluation]\nhold_out = 0.5\n[evaluation.query]\nevery = 2\nnoise_multiplier = 10.0\nmax_loss = 4.0\n";
    experiment(directory, "ward", &task, query)
}

fn news(directory: &Path, tuning: &str) -> PathBuf {
    let lines: String = (0..CLIENTS).map(|n| format!("the sun,a,{n}\nthe sea,b,{n}\n")).collect();
    std::fs::write(directory.join("news.csv"), format!("text,kind,who\n{lines}")).unwrap();
    std::fs::write(directory.join("candidates.txt"), "moon\nsea\nsun\n").unwrap();
    let task = "[task.data]\nkind = \"text\"\ntrain = \"news.csv\"\ntest = \"news.csv\"\nformat = \"csv\"\ntext = \"text\"\n\
                label = \"kind\"\nclient = \"who\"\nclasses = [\"a\", \"b\"]\ntokenizer = \"words\"\nvocabulary = \"words.txt\"\n\
                length = 4\n[task.model]\nkind = \"layers\"\nlayers = [{ embedding-bag = { vocabulary = 3, width = 2 } }]";
    experiment(directory, "news", &format!("{task}\n{tuning}"), "")
}

/// A part of the model stays as it is; its weights are not asked for before there are words.
const TUNING: &str = "[task.tuning]\nfrozen = [\"0.*\"]";

fn json(transcript: &Transcript) -> Value {
    assert_eq!(transcript.code, 0, "{}", transcript.err);
    serde_json::from_str(&transcript.out).unwrap()
}

#[test]
fn the_budget_falls_for_statistics_vocabularies_and_evaluations() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let (ward_file, news_file) = (ward(directory.path(), ""), news(directory.path(), TUNING));

    let (bounds, out) = (place("bounds.toml"), place("statistics.json"));
    let asked = ["data", "statistics", path(&ward_file), "--bounds", path(&bounds), "--out", path(&out)];
    let statistics = skep(&[&asked[..], &["--noise-multiplier", "10", "--output", "json"]].concat());
    let statistics = json(&statistics);
    let close = |value: &Value, expected: f64, within: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() < within, "{value} is not {expected}");
    };
    // Noise of 10 · √2.75/200 = 0.083 on each mean of what is mapped to 1 at the bounds; four standard deviations.
    close(&statistics["statistics"]["mean"][0], 50.0, 16.6);
    close(&statistics["statistics"]["mean"][1], 38.0, 2.5);

    let again = skep(&[&asked[..], &["--noise-multiplier", "10"]].concat());
    assert!(again.code == 2 && again.err.contains("is there already"), "{}", again.err);

    let (candidates, words) = (place("candidates.txt"), place("words.txt"));
    let asked = ["data", "vocabulary", path(&news_file), "--candidates", path(&candidates), "--votes", "2"];
    let more = ["--noise-multiplier", "10", "--size", "3", "--out", path(&words), "--output", "json"];
    let vocabulary = json(&skep(&[&asked[..], &more].concat()));
    assert_eq!(vocabulary["words"], 2);

    let standardized = ward(directory.path(), "standardize = \"statistics.json\"");
    let results = place("results");
    let ran = skep(&["simulate", path(&standardized), "--out", path(&results)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("asked       accuracy") && ran.out.contains(" ± "), "{}", ran.out);
    let page = std::fs::read_to_string(results.join("report.html")).unwrap();
    assert!(page.contains("Accuracy as clients say it together, with noise"));
    let rounds = std::fs::read_to_string(results.join("rounds.jsonl")).unwrap();
    let rounds: Vec<Value> = rounds.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let asked: Vec<bool> = rounds.iter().map(|round| round["client_answers"].is_object()).collect();
    assert_eq!(asked, [false, true, false, true]);
    // All examples are of two kinds, so that clients and server find the same accuracy.
    let last = &rounds[3];
    let within = 2.0 * last["client_answers"]["accuracy_within"].as_f64().unwrap();
    close(&last["client_answers"]["accuracy"], last["accuracy"].as_f64().unwrap(), within);

    let spent = [&statistics["epsilon"], &vocabulary["epsilon"]];
    let trained = rounds.iter().map(|round| &round["epsilon_release"]);
    let spent: Vec<f64> = spent.into_iter().chain(trained).map(|epsilon| epsilon.as_f64().unwrap()).collect();
    assert!(spent[0] > 0.0 && spent.windows(2).all(|pair| pair[0] < pair[1]), "{spent:?}");
    // A round with a question after it costs more than one without.
    assert!(spent[3] - spent[2] > spent[4] - spent[3], "{spent:?}");

    let ledger = place("population.skep");
    let audit = skep(&["audit", path(&ledger), "--model", path(&results.join("model.safetensors"))]);
    assert_eq!(audit.code, 0, "{}{}", audit.out, audit.err);

    let shown = skep(&["model", "show", path(&results.join("model.safetensors"))]).out;
    assert!(shown.contains("2: age, heat, each less its mean and divided by its standard"), "{shown}");
    // Whoever uses the model gives numbers as they stand in the data.
    let new = place("new.csv");
    std::fs::write(&new, "age,heat\n60,39\n40,37\n").unwrap();
    let answers = skep(&["predict", path(&results.join("model.safetensors")), "--input", path(&new)]);
    let classes: Vec<Value> = answers
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["class"].clone())
        .collect();
    assert_eq!(classes, ["yes", "no"], "{}", answers.err);
}

#[test]
fn questions_that_are_planned_cost_what_they_do_in_one_schedule_with_the_rounds() {
    let directory = tempfile::tempdir().unwrap();
    let file = ward(directory.path(), "");
    let rounds = ["--event", "1:8:4", "--event", "1:10:2", "--delta", "1e-5", "--adjacency", "zero-out"];
    let one = json(&skep(&[&["privacy", "epsilon", "--output", "json"], &rounds[..]].concat()));
    let expected = one["epsilon"].as_f64().unwrap();
    let close = |value: &Value| {
        assert!((value.as_f64().unwrap() / expected - 1.0).abs() < 1e-4, "{value} is not {expected}");
    };
    let checked = json(&skep(&["check", path(&file), "--output", "json"]));
    close(&checked["price"]["epsilon_release"]);
    let results = directory.path().join("results");
    let ran = skep(&["simulate", path(&file), "--out", path(&results)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let rounds = std::fs::read_to_string(results.join("rounds.jsonl")).unwrap();
    let spent: Vec<Value> = rounds
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["epsilon_release"].clone())
        .collect();
    close(&spent[3]);
    assert!(spent.windows(2).all(|pair| pair[0].as_f64() < pair[1].as_f64()), "{spent:?}");
    let ledger = directory.path().join("population.skep");
    let audit = skep(&["audit", path(&ledger)]);
    assert_eq!(audit.code, 0, "{}", audit.err);
    let told = audit.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("queries evaluation after every 2 rounds and the last: rounded gaussian"),
        "{told}"
    );
    assert!(told.contains("2 queries were charged besides, each as scheduled"), "{told}");
}

#[test]
fn a_question_that_cannot_be_asked_is_refused_before_anything_is_charged() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let (ward_file, news_file) = (ward(directory.path(), ""), news(directory.path(), ""));
    let out = place("statistics.json");
    let ask = |file: &Path, bounds: &str, noise: &str| {
        std::fs::write(place("bounds.toml"), bounds).unwrap();
        let bounds = place("bounds.toml");
        let asked = ["data", "statistics", path(file), "--bounds", path(&bounds), "--out", path(&out)];
        let transcript = skep(&[&asked[..], &["--noise-multiplier", noise]].concat());
        assert!(!out.exists(), "{}", transcript.err);
        (
            transcript.code,
            transcript.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" "),
        )
    };
    let good = "age = [0, 100]\nheat = [30, 45]\n";
    let refused = |(code, told): (i32, String), expected: i32, part: &str| {
        assert!(code == expected && told.contains(part), "{code}: {told}");
    };
    refused(ask(&ward_file, "age = [0, 100]\n", "8"), 2, "bounds are needed for each of the columns");
    refused(ask(&ward_file, "age = 3\n", "8"), 2, "a line `NAME = [LOW, HIGH]` is needed");
    refused(ask(&ward_file, "age = [9, 0]\nheat = [30, 45]\n", "8"), 2, "the lower bound must be below");
    refused(ask(&ward_file, good, "-1"), 2, "--noise-multiplier");
    refused(ask(&news_file, good, "8"), 2, "only tables, of kind \"csv\"");
    refused(ask(&ward_file, good, "0.1"), 3, "budget");
    let ledger = place("population.skep");
    let told = skep(&["audit", path(&ledger)]);
    assert!(told.out.contains("rounds      0 charged"), "{}", told.out);
    // What nobody can measure over sockets is refused by a server.
    let measured = ward_file.with_extension("measured.toml");
    let text = std::fs::read_to_string(&ward_file).unwrap();
    std::fs::write(&measured, text.replace("hold_out = 0.5", "hold_out = 0.5\nclients = 0.5")).unwrap();
    let served = skep(&[
        "serve",
        path(&measured),
        "--listen",
        "127.0.0.1:0",
        "--state",
        path(&place("state")),
        "--out",
        path(&place("out")),
    ]);
    assert_eq!(served.code, 2, "{}", served.err);
    assert!(served.err.contains("in [evaluation.query] clients say with"), "{}", served.err);
}
