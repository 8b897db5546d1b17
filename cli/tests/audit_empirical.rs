//! Transcripts of `skep audit empirical` and `skep audit membership`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;

use harness::{SMALL_CENTRAL, Transcript, central, path, skep};
use serde_json::Value;

#[test]
fn an_audit_sets_what_was_seen_beside_what_is_claimed() {
    let directory = tempfile::tempdir().unwrap();
    let file = central(directory.path(), &SMALL_CENTRAL);
    let audit = |arguments: &[&str]| {
        skep(&[&["audit", "empirical", path(&file), "--canaries", "200", "--seed", "7"], arguments].concat())
    };
    let Transcript { code, out, err } = audit(&["--output", "json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["m"], &report["r"], &report["confidence"]), (&200.into(), &100.into(), &0.95.into()));
    assert_eq!((&report["rounds"], &report["parameters"]), (&3.into(), &650.into()));
    assert_eq!(report["verdict"], "PASS");
    let claimed = skep(&["simulate", path(&file), "--output", "json"]).out;
    let claimed: Value = serde_json::from_str(&claimed).unwrap();
    assert_eq!(report["eps_upper"], claimed["epsilon_release"], "the claim does not depend on canaries");
    assert!(report["eps_lower"].as_f64().unwrap() <= report["eps_upper"].as_f64().unwrap());
    let text = audit(&[]).out;
    assert!(text.contains(&format!("guesses     100 made, {} right", report["v"])), "{text}");
    assert!(text.contains("verdict     PASS"), "{text}");
    let Transcript { code, err, .. } = audit(&["--guesses", "7"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("even number"), "{err}");
}

#[test]
fn what_claims_nothing_is_not_audited() {
    let directory = tempfile::tempdir().unwrap();
    let file = central(directory.path(), &SMALL_CENTRAL);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.split_once("[privacy]").unwrap().0.to_owned() + "[privacy]\nmode = \"none\"\n")
        .unwrap();
    let Transcript { code, err, .. } = skep(&["audit", "empirical", path(&file)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("claims nothing"), "{err}");
}

#[test]
fn members_are_looked_for_in_a_results_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = central(directory.path(), &SMALL_CENTRAL);
    let out = directory.path().join("out");
    assert_eq!(skep(&["simulate", path(&file), "--out", path(&out)]).code, 0);
    let membership = |arguments: &[&str]| {
        skep(&[&["audit", "membership", path(&out), "--shadows", "4"], arguments].concat())
    };
    let Transcript { code, out: printed, err } = membership(&["--output", "json"]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&report["members"], &report["others"]), (&1438.into(), &359.into()));
    assert!((0.4..0.6).contains(&report["area_under_curve"].as_f64().unwrap()), "{report}");
    assert!(membership(&[]).out.contains("0.5 is guessing"));
    assert_eq!(skep(&["audit", "membership", path(&out), "--shadows", "3"]).code, 2);
    fs::write(out.join("model.safetensors"), "no model").unwrap();
    assert_eq!(membership(&[]).code, 2);
}
