//! Transcripts of `skep check`, and of what it refuses.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::path::Path;

use harness::{SMALL, Transcript, central, changed, path, skep};
use serde_json::Value;

fn check(changes: &[(&str, &str)]) -> Transcript {
    let directory = tempfile::tempdir().unwrap();
    skep(&["check", path(&changed(directory.path(), changes))])
}

fn check_central(changes: &[(&str, &str)]) -> Transcript {
    let directory = tempfile::tempdir().unwrap();
    skep(&["check", path(&central(directory.path(), changes))])
}

/// Asserts that the change is refused with exit code 2, at this line and column of the file.
fn assert_refused_at(change: (&str, &str), place: &str, words: &[&str]) {
    let Transcript { code, out, err } = check(&[change]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains(&format!("experiment.toml:{place}")), "{place} is not in\n{err}");
    for word in words {
        assert!(err.contains(word), "{word:?} is not in\n{err}");
    }
}

/// The line, from 1, on which the built-in file has this text.
fn line_of(text: &str) -> usize {
    1 + harness::DIGITS
        .lines()
        .position(|line| line.starts_with(text))
        .expect("the built-in file has the line")
}

#[test]
fn the_built_in_federation_is_affordable_and_says_against_whom_it_holds() {
    let Transcript { code, out, err } = skep(&["check"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("noise_multiplier = 5.0"), "{out}");
    for words in [
        "mode = \"distributed\"",
        "recipients  epsilon 7.67",
        "at delta 0.00001",
        "server      epsilon 7.88",
        "with up to 5 of 100 clients its own (7.3294 if noise were continuous, which is not certified)",
        "alone       epsilon 168.",
        "masks       the server sees sums of at least 90 of 100 clients only; 53 of the 99 others",
        "accountant  rdp",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
    assert!(out.contains("650 parameters, 2600 bytes"), "{out}");
}

#[test]
fn what_check_prints_first_is_an_experiment_file_of_the_same_meaning() {
    let directory = tempfile::tempdir().unwrap();
    let first = skep(&["check"]).out;
    let resolved = directory.path().join("resolved.toml");
    let (toml, _) = first.split_once("\nmodel  ").expect("what it costs follows");
    std::fs::write(&resolved, toml).unwrap();
    assert_eq!(skep(&["check", path(&resolved)]).out, first);
}

#[test]
fn check_as_json_is_one_object() {
    let Transcript { code, out, err } = skep(&["check", "--output", "json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["price"]["model_bytes"], 2600);
    for key in ["epsilon_release", "epsilon_server"] {
        assert!((7.0..8.0).contains(&value["price"][key].as_f64().unwrap()), "{value}");
    }
}

#[test]
fn an_unknown_key_is_shown_at_its_line_with_the_nearest_known_one() {
    let place = format!("{}:1", line_of("clip_norm"));
    assert_refused_at(
        ("clip_norm", "clip_nrom"),
        &place,
        &["unknown field `clip_nrom`", "did you mean `clip_norm`?"],
    );
    let place = format!("{}:1", line_of("alpha"));
    assert_refused_at(("alpha =", "alhpa ="), &place, &["unknown field `alhpa`"]);
}

#[test]
fn a_wrong_type_is_shown_at_its_line() {
    let place = format!("{}:", line_of("count"));
    assert_refused_at(("count = 60", "count = \"sixty\""), &place, &["invalid type: string \"sixty\""]);
}

#[test]
fn a_missing_privacy_parameter_is_asked_for_at_its_table() {
    let place = format!("{}:", line_of("[privacy]"));
    assert_refused_at(
        ("noise_multiplier = 5.0", ""),
        &place,
        &["privacy.noise_multiplier", "has no default"],
    );
    assert_refused_at(("delta = 1e-5", ""), &place, &["privacy.delta"]);
}

#[test]
fn a_value_out_of_range_is_shown_at_its_line() {
    let place = |key| format!("{}:1", line_of(key));
    assert_refused_at(("clip_norm = 1.0", "clip_norm = -1.0"), &place("clip_norm"), &["clip norm is -1"]);
    assert_refused_at(("delta = 1e-5", "delta = 0.5"), &place("delta"), &["below one over the population"]);
    assert_refused_at(("clients = 100", "clients = 0"), &place("clients"), &["population.clients is 0"]);
}

#[test]
fn what_is_not_toml_and_what_is_not_there_are_refused() {
    assert_refused_at(
        ("count = 60", "count = = 60"),
        &format!("{}:", line_of("count")),
        &["this is not TOML"],
    );
    let Transcript { code, err, .. } = skep(&["check", "no-such-file.toml"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("no-such-file.toml cannot be read"), "{err}");
}

#[test]
fn more_clients_than_examples_are_refused() {
    let Transcript { code, err, .. } = check_central(&[("clients = 100", "clients = 5000")]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("5000") && err.contains("1438"), "{err}");
}

#[test]
fn a_schedule_beyond_the_budget_exits_with_three_and_says_how_many_rounds_fit() {
    let Transcript { code, out, err } = check(&[("epsilon_limit = 8.0", "epsilon_limit = 4.0")]);
    assert_eq!(code, 3, "{err}");
    assert!(out.contains("recipients  epsilon 7.6"), "{out}");
    assert!(err.contains("of the 60 rounds"), "{err}");
}

#[test]
fn without_privacy_no_epsilon_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (head, _) = harness::DIGITS.split_once("[privacy]").unwrap();
    let file = directory.path().join("none.toml");
    std::fs::write(&file, format!("{head}[privacy]\nmode = \"none\"\n")).unwrap();
    let Transcript { code, out, err } = skep(&["check", path(&file)]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("recipients  nothing is promised"), "{out}");
    assert!(!out.contains("accountant"), "{out}");
}

#[test]
fn the_experiments_that_come_with_the_source_are_valid() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../simulations/experiments");
    let mut checked = 0;
    let strategies = format!("{directory}/strategies");
    let entries = [directory, &strategies].map(|directory| std::fs::read_dir(directory).unwrap());
    for entry in entries.into_iter().flatten() {
        let file = entry.unwrap().path();
        // Beside them lie directories of more, and data.
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let data =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(file.file_stem().unwrap());
        if std::fs::read_to_string(&file).unwrap().contains("[task.data]") && !data.exists() {
            eprintln!("skipped: {} needs data at {}", file.display(), data.display());
            continue;
        }
        // Of many runs that which all of them vary; the table of values is the last.
        let directory = tempfile::tempdir().unwrap();
        let varied = directory.path().join("varied.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&varied, text.split("\n[sweep]").next().unwrap()).unwrap();
        let Transcript { code, err, .. } = skep(&["check", path(&varied), "--data-dir", path(&data)]);
        assert_eq!((code, err.as_str()), (0, ""), "{}", file.display());
        checked += 1;
    }
    assert!(checked >= 3);
    let shipped = skep(&["check", &format!("{directory}/digits.toml")]).out;
    assert_eq!(shipped, skep(&["check"]).out);
}

#[test]
fn a_small_variant_is_valid() {
    assert_eq!(check(&SMALL).code, 0);
}

#[test]
fn distributed_noise_is_shown_against_each_adversary_with_what_is_certified() {
    let Transcript { code, out, err } = check(&SMALL);
    assert_eq!((code, err.as_str()), (0, ""));
    for words in [
        "mode = \"distributed\"",
        "[secure_aggregation]\nmax_corrupt_fraction = 0.1\nmin_cohort = 10",
        "fidelity = \"sum\"",
        "recipients  epsilon 1.",
        "with up to 1 of 10 clients its own (1.",
        "if noise were continuous, which is not certified)",
        "alone       epsilon",
        "if all other clients were its own",
        "masks       the server sees sums of at least 8 of 10 clients only; 6 of the 9 others",
        "accountant  rdp",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
}

#[test]
fn local_noise_holds_against_everyone_and_masks_without_noise_against_nobody_by_number() {
    let Transcript { code, out, err } = check_central(&[("mode = \"central\"", "mode = \"local\"")]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("server      epsilon 7.3"), "{out}");
    assert!(out.contains(", whoever helps it"), "{out}");
    assert!(!out.contains("alone ") && !out.contains("masks "), "{out}");
    let masked = [
        ("min_updates = 50", "min_updates = 80"),
        ("[privacy]", "[secure_aggregation]\nmax_corrupt_fraction = 0.05\n\n[privacy]"),
    ];
    let out = check_central(&masked).out;
    assert!(out.contains("recipients  epsilon 7.3"), "{out}");
    assert!(out.contains("(no epsilon): the server sees only sums of updates, but without noise"), "{out}");
}

#[test]
fn what_secure_aggregation_does_not_cover_is_refused_at_its_line() {
    let refused = |change: (&str, &str), words: &str| {
        let mut changes = SMALL.to_vec();
        changes.push(change);
        let Transcript { code, out, err } = check(&changes);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("experiment.toml:"), "{err}");
        let flat: String = err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "{words:?} is not in\n{err}");
    };
    refused(("scheme = \"all\"", "scheme = \"poisson\"\nrate = 0.5"), "rounds.sampling must be");
    refused(("min_updates = 8", "min_updates = 6"), "must be at least 7 of 10");
    refused(("max_corrupt_fraction = 0.1", "max_corrupt_fraction = 0.01"), "nobody in a cohort of 10");
    refused(("max_corrupt_fraction = 0.1", ""), "missing field `max_corrupt_fraction`");
    refused(("mode = \"distributed\"", "mode = \"local\""), "has no use with mode = \"local\"");
    let quiet = [&SMALL[..], &[("noise_multiplier = 5.0", "noise_multiplier = 1e-6")]].concat();
    let Transcript { code, err, .. } = check(&quiet);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("noise share") && err.contains("raise the noise"), "{err}");
}
