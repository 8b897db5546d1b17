//! Transcripts of `skep privacy`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use harness::{Transcript, skep};

fn epsilon(delta: &str) -> Transcript {
    let schedule = ["--noise-multiplier", "4", "--sampling-rate", "1", "--steps", "5"];
    skep(&[&["privacy", "epsilon", "--delta", delta], &schedule[..]].concat())
}

#[test]
fn the_cost_of_a_schedule_is_printed() {
    let Transcript { code, out, err } = epsilon("1e-5");
    assert_eq!((code, err.as_str()), (0, ""));
    // dp_accounting 0.6.0: 2.258145 for five rounds at noise multiplier 4.
    assert!(out.contains("2.258"), "{out}");
}

#[test]
fn an_argument_out_of_range_is_wrong_usage() {
    let Transcript { code, out, err } = epsilon("2");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("above 0 and below 1"), "{err}");
}
