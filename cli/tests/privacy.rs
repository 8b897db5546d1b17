//! Transcripts of `skep privacy`, and of what it refuses.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use harness::readable::{assert_readable, complaints};
use harness::{Transcript, path, skep};
use serde_json::Value;

/// Runs a question that is typed on one line.
fn ask(line: &str) -> Transcript {
    skep(&std::iter::once("privacy").chain(line.split_whitespace()).collect::<Vec<_>>())
}

/// The one JSON object that is the answer.
fn object(line: &str) -> Value {
    let Transcript { code, out, err } = ask(&format!("{line} --output json"));
    assert_eq!((code, err.as_str()), (0, ""), "{line}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let value: Value = serde_json::from_str(&out).unwrap();
    assert!(value.is_object(), "{out}");
    value
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or_else(|| panic!("{key} in {object}"))
}

fn assert_near(found: f64, expected: f64, relative: f64) {
    assert!((found / expected - 1.0).abs() < relative, "{found} is not {expected}");
}

/// Asserts that a question is refused with exit code 2, in these words.
fn assert_refused(line: &str, words: &[&str]) {
    let Transcript { code, out, err } = ask(line);
    assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
    // Diagnostics are wrapped to the width of a page.
    let told = err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(told.contains(word), "{line}: {word:?} is not in\n{told}");
    }
}

const SAMPLED: &str = "epsilon --noise-multiplier 1.0 --sampling-rate 0.01 --steps 1000 --delta 1e-5";

#[test]
fn epsilon_agrees_with_the_reference_and_says_what_it_is() {
    // dp_accounting 0.6.0
    let pld = object(&format!("{SAMPLED} --accountant pld"));
    assert_near(number(&pld, "epsilon_estimate"), 1.828_244, 2e-6);
    assert!(number(&pld, "epsilon") >= number(&pld, "epsilon_estimate"));
    assert!(number(&pld, "error_bound") < 0.1, "{pld}");
    assert_eq!(pld["accountant"], "pld");
    assert_eq!(pld["adjacency"], "add-or-remove");
    assert_eq!(pld["unit"], "client");
    assert_eq!(number(&pld, "delta"), 1e-5);
    assert_eq!(pld["events"][0]["steps"], 1000);
    assert_eq!(object(SAMPLED), pld, "pld is the accountant when none is named");
    assert_near(number(&object(&format!("{SAMPLED} --accountant rdp")), "epsilon"), 2.101_367, 1e-6);
    assert!(
        number(&object(&format!("{SAMPLED} --accountant pld-optimistic")), "epsilon")
            < number(&pld, "epsilon")
    );
    let exact = "epsilon --noise-multiplier 4 --sampling-rate 1 --steps 5 --delta 1e-5 --accountant analytic";
    assert_near(number(&object(exact), "epsilon"), 2.258_145, 1e-6);
}

#[test]
fn mixed_events_are_composed() {
    // dp_accounting 0.6.0
    let events = object("epsilon --event 0.01:1.0:500 --event 0.02:1.5:500 --delta 1e-5");
    assert_near(number(&events, "epsilon_estimate"), 1.897_483, 2e-6);
    let mixed = object(
        "epsilon --sampling-rate 0.01 --noise-multiplier 1 --steps 500 --event 0.02:1.5:500 --delta 1e-5",
    );
    assert_eq!(mixed, events);
}

#[test]
fn adjacency_and_unit_are_what_was_chosen() {
    // dp_accounting 0.6.0, REPLACE_ONE
    let replaced = object(&format!("{SAMPLED} --adjacency replace --unit example"));
    assert_near(number(&replaced, "epsilon_estimate"), 2.843_446, 2e-6);
    assert_eq!(
        (&replaced["adjacency"], &replaced["unit"]),
        (&Value::from("replace"), &Value::from("example"))
    );
}

#[test]
fn epsilon_for_people_says_what_is_hidden_and_by_whom_it_is_proved() {
    let Transcript { code, out, err } = ask(SAMPLED);
    assert_eq!((code, err.as_str()), (0, ""));
    for words in [
        "epsilon           at most 1.8282",
        "at delta 0.00001",
        "whether one client is there at all (unit client, adjacency add-or-remove)",
        "accountant        pld",
        "1000 with sampling rate 0.01 and noise multiplier 1",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
}

#[test]
fn calibration_finds_the_number_that_is_left_out() {
    // dp_accounting 0.6.0
    for (epsilon, delta, steps, expected) in
        [(1, "1e-5", 1000, 1.414_632), (8, "1e-5", 1000, 0.586_268), (2, "1e-6", 5000, 1.747_730)]
    {
        let line =
            format!("calibrate --epsilon {epsilon} --delta {delta} --sampling-rate 0.01 --steps {steps}");
        let found = object(&line);
        assert_near(number(&found, "noise_multiplier"), expected, 1e-4);
        assert!(number(&found, "epsilon") <= f64::from(epsilon), "{found}");
        assert_eq!(found["found"], "noise_multiplier");
    }
    let given = "calibrate --epsilon 2 --delta 1e-5 --noise-multiplier 1 --accountant rdp";
    let steps = object(&format!("{given} --sampling-rate 0.01"));
    assert!(number(&steps, "steps") > 100.0 && number(&steps, "epsilon") <= 2.0, "{steps}");
    let rate = object(&format!("{given} --steps {}", steps["steps"]));
    assert!(number(&rate, "sampling_rate") >= 0.01 * (1.0 - 2e-6), "{rate}");
}

#[test]
fn a_plan_says_whether_anything_can_be_learned_and_against_whom_it_holds() {
    let federation =
        "plan --clients 100000 --cohort 1000 --rounds 300 --epsilon 4 --delta 1e-6 --parameters 10000";
    let central = object(&format!("{federation} --mode central --accountant rdp"));
    assert_eq!(central["epsilon_server"], Value::Null);
    assert!(central["epsilon_server_reason"].as_str().unwrap().contains("sees every update"));
    assert!(number(&central, "epsilon_release") <= 4.0);
    assert_near(number(&central, "signal_to_noise") * number(&central, "noise_multiplier"), 10.0, 1e-9);
    let distributed = object(&format!("{federation} --mode distributed"));
    assert_eq!((&distributed["accountant"], &distributed["adjacency"]), (&"rdp".into(), &"zero-out".into()));
    assert!(number(&distributed, "epsilon_server") <= 4.0);
    let local = object(&format!("{federation} --mode local"));
    assert!(number(&local, "signal_to_noise") < number(&distributed, "signal_to_noise"));
    assert!(number(&distributed, "signal_to_noise") < number(&central, "signal_to_noise"));
    assert!(local["usable"]["rounds"].is_null(), "{local}");
    let table = ask(&format!("{federation} --mode distributed")).out;
    assert!(table.contains("threshold         a signal-to-noise ratio of 1: "), "{table}");
    assert!(table.contains("server            epsilon "), "{table}");
}

#[test]
fn a_curve_passes_through_the_answer() {
    let curve = object(&SAMPLED.replacen("epsilon", "curve", 1));
    let deltas = curve["delta_against_epsilon"].as_array().unwrap();
    let at_one = deltas.iter().find(|point| point["epsilon"] == 1.0).unwrap();
    // dp_accounting 0.6.0
    assert_near(number(at_one, "delta"), 0.002_612_50, 1e-3);
    let last = curve["epsilon_against_steps"].as_array().unwrap().last().unwrap();
    assert_eq!(last["steps"], 1000);
    assert_near(number(last, "epsilon"), number(&curve, "epsilon"), 1e-4);
    let table = ask(&SAMPLED.replacen("epsilon", "curve", 1)).out;
    assert_eq!(table.lines().count(), 5 + 2 * 2 + 21 + 20, "{table}");
}

#[test]
fn wrong_arguments_are_refused_by_name_and_range() {
    let epsilon = |changed: &str, value: &str| {
        let mut words: Vec<_> = SAMPLED.split(' ').collect();
        let at = words.iter().position(|word| *word == changed).unwrap();
        words[at + 1] = value;
        words.join(" ")
    };
    for (line, words) in [
        (epsilon("--sampling-rate", "1.5"), ["sampling rate is 1.5", "above 0 and at most 1"]),
        (epsilon("--sampling-rate", "NaN"), ["sampling rate is NaN", "above 0 and at most 1"]),
        (epsilon("--sampling-rate", "-0.1"), ["sampling rate is -0.1", "above 0 and at most 1"]),
        (epsilon("--sampling-rate", "1e-300"), ["sampling rate is 0.0", "from 1e-9 to 1"]),
        (epsilon("--noise-multiplier", "0"), ["noise multiplier is 0", "above 0"]),
        (epsilon("--noise-multiplier", "-1"), ["noise multiplier is -1", "above 0"]),
        (epsilon("--noise-multiplier", "inf"), ["noise multiplier is inf", "above 0"]),
        (epsilon("--noise-multiplier", "0.001"), ["noise multiplier is 0.001", "from 0.1 to 1000000"]),
        (epsilon("--noise-multiplier", "one"), ["noise multiplier is `one`", "a number"]),
        (epsilon("--steps", "-10"), ["--steps", "a whole number from 1 to 10000000"]),
        (epsilon("--steps", "0"), ["--steps", "a whole number from 1 to 10000000"]),
        (epsilon("--steps", "1e3"), ["--steps", "a whole number from 1 to 10000000"]),
        (epsilon("--steps", "10000001"), ["--steps", "a whole number from 1 to 10000000"]),
        (epsilon("--delta", "1"), ["delta is 1", "above 0 and below 1"]),
        (epsilon("--delta", "0"), ["delta is 0", "above 0 and below 1"]),
        (epsilon("--delta", "-1e-5"), ["delta is -0.00001", "above 0 and below 1"]),
        (
            epsilon("--delta", "1e-3 --population 1000"),
            ["delta is 0.001", "below one over the population of 1000"],
        ),
        (
            epsilon("--delta", "1e-5 --adjacency near"),
            ["adjacency is `near`", "add-or-remove, zero-out, replace"],
        ),
        (
            epsilon("--delta", "1e-5 --accountant gdp"),
            ["accountant is `gdp`", "pld, rdp, analytic, pld-optimistic"],
        ),
        (epsilon("--delta", "1e-5 --unit house"), ["unit is `house`", "client, example"]),
        (
            epsilon("--delta", "1e-5 --accountant analytic"),
            ["analytic accountant has no bound", "use the pld accountant"],
        ),
        (
            epsilon("--delta", "1e-5 --event 0.1:1:9999999"),
            ["steps are 10000999 in all", "from 1 to 10000000"],
        ),
        (epsilon("--delta", "1e-5 --html page.html"), ["--html is for", "curve"]),
    ] {
        assert_refused(&line, &words);
    }
    assert_refused("epsilon --event 2:1:1 --delta 1e-5", &["sampling rate is 2", "at most 1"]);
    assert_refused("epsilon --event 0.1:1 --delta 1e-5", &["SAMPLING_RATE:NOISE_MULTIPLIER:STEPS"]);
    assert_refused("epsilon --delta 1e-5", &["--event Q:SIGMA:STEPS"]);
    assert_refused("epsilon --steps 5 --delta 1e-5", &["--noise-multiplier, --sampling-rate"]);
    assert_refused("epsilon --event 0.1:1:5", &["--delta"]);
}

#[test]
fn targets_that_make_no_sense_are_refused() {
    let calibrate = "calibrate --delta 1e-5 --sampling-rate 0.01";
    assert_refused(&format!("{calibrate} --epsilon 0 --steps 5"), &["epsilon is 0", "above 0 and finite"]);
    assert_refused(&format!("{calibrate} --epsilon -1 --steps 5"), &["epsilon is -1", "at least 0"]);
    assert_refused(&format!("{calibrate} --epsilon infinity --steps 5"), &["above 0 and finite"]);
    assert_refused(&format!("{calibrate} --epsilon 1"), &["leave out exactly one"]);
    assert_refused(
        &format!("{calibrate} --epsilon 1 --steps 5 --noise-multiplier 1"),
        &["leave out exactly one"],
    );
    assert_refused(
        &format!("{calibrate} --epsilon 1 --steps 5 --accountant pld-optimistic"),
        &["a lower bound"],
    );
    assert_refused(
        "calibrate --epsilon 0.001 --delta 1e-9 --sampling-rate 1 --noise-multiplier 1",
        &["not even one step"],
    );
    let plan = "plan --clients 1000 --rounds 10 --epsilon 2 --parameters 100";
    let refused = |rest: &str, words: &[&str]| assert_refused(&format!("{plan} {rest}"), words);
    refused(
        "--cohort 1001 --delta 1e-5 --mode central",
        &["cohort is 1001", "at most the number of clients"],
    );
    refused("--cohort 100 --delta 1e-3 --mode central", &["below one over the population of 1000"]);
    refused("--cohort 100 --delta 1e-5 --mode tee", &["mode is `tee`", "central, distributed, local"]);
    refused("--cohort 0 --delta 1e-5 --mode central", &["--cohort", "from 1 to"]);
    refused("--cohort 100 --delta 1e-5 --mode distributed --accountant pld", &["use the rdp accountant"]);
    refused("--cohort 100 --delta 1e-5 --mode local --adjacency add-or-remove", &["sees who takes part"]);
    refused("--cohort 100 --delta 1e-5 --mode central --threshold 0", &["--threshold", "above 0"]);
    refused("--cohort 100 --delta 1e-5 --mode central --clip-norm NaN", &["clip norm is NaN", "above 0"]);
}

#[test]
fn a_page_has_the_numbers_of_the_answer_needs_no_network_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("page.html");
    for line in [
        "plan --clients 10000 --cohort 200 --rounds 50 --epsilon 4 --delta 1e-6 --parameters 650 --mode local",
        "plan --clients 10000 --cohort 200 --rounds 50 --epsilon 4 --delta 1e-6 --parameters 650 --mode central --accountant rdp",
        "curve --noise-multiplier 1 --sampling-rate 0.01 --steps 100 --delta 1e-5",
    ] {
        let Transcript { code, out, err } = ask(&format!("{line} --output json --html {}", path(&file)));
        assert_eq!((code, err.as_str()), (0, ""));
        let page = std::fs::read_to_string(&file).unwrap();
        assert!(numbers(&out).len() > 10, "{out}");
        for number in numbers(&out) {
            assert!(page.contains(&format!("<td>{number}</td>")), "{number} is not in\n{page}");
        }
        assert!(page.contains("class=\"curve\" d=\"M") && page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("width=device-width"));
        for link in ["http:", "https:", "src=", "href", "@import", "url(", "NaN"] {
            assert!(!page.contains(link), "{link} in\n{page}");
        }
        assert_readable(&file);
    }
}

#[test]
fn what_is_wrong_with_a_page_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.html");
    let bad = "<style>body { background: #fff; color: #ccc }</style><p style='width:500px'>wide</p><script>oops()</script>";
    std::fs::write(&file, bad).unwrap();
    let Some(complaints) = complaints(&file) else { return };
    for what in
        ["oops is not defined", "too wide in light", "not in this scheme in dark", "too little contrast"]
    {
        assert!(complaints.iter().any(|complaint| complaint.contains(what)), "{what}: {complaints:#?}");
    }
    assert!(
        complaints.iter().filter(|complaint| complaint.starts_with("too wide")).count() == 2,
        "{complaints:#?}"
    );
}

/// Every number in an answer, as it is written there but for a last `.0`. Parsing would round some of them.
fn numbers(json: &str) -> Vec<&str> {
    json.split([',', ':', '{', '}', '[', ']'])
        .map(str::trim)
        .filter(|word| word.parse::<f64>().is_ok())
        .map(|number| number.trim_end_matches(".0"))
        .collect()
}

#[test]
fn a_page_that_cannot_be_written_fails_and_is_named() {
    let line = "curve --noise-multiplier 4 --sampling-rate 1 --steps 3 --delta 1e-5 --accountant analytic";
    let Transcript { code, out, err } = ask(&format!("{line} --html no-such-directory/page.html"));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("no-such-directory/page.html"), "{err}");
}
