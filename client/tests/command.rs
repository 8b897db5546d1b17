//! A client whose training is a program: what it gives is trained on its word, and what it does wrong is told.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use skep_client::command::TrainCommand;
use skep_learning::{LearnError, TrainReport, Turn};
use skep_protocol::Round;
use support::{base_model, data, task};

/// What a command makes of the base model.
fn trained(command: &str, timeout: Duration) -> Result<TrainReport, LearnError> {
    let program = TrainCommand { command: command.to_owned(), data: "here".to_owned(), timeout };
    let mut learner = program.learners()(&task()).unwrap();
    let training = skep_client::task::training(&task(), Round(1)).unwrap();
    learner.train(&base_model(), &data(), &training, Turn::new([0; 32]))
}

fn complaint(command: &str) -> String {
    trained(command, Duration::from_secs(60)).unwrap_err().to_string()
}

#[test]
fn what_a_program_makes_of_the_model_is_the_update() {
    let same = trained("cat", Duration::from_secs(60)).unwrap();
    assert_eq!((same.update, same.finite), (vec![0.0; base_model().len()], true));
    assert_eq!(same.examples, data().len());
    // Every parameter becomes 2, which is 00 00 00 40.
    let count = base_model().len();
    let two =
        format!(r#"sh -c 'cat > /dev/null; for n in $(seq {count}); do printf "\000\000\000\100"; done'"#);
    let expected: Vec<f32> = base_model().iter().map(|old| 2.0 - old).collect();
    assert_eq!(trained(&two, Duration::from_secs(60)).unwrap().update, expected);
}

#[test]
fn a_program_is_told_what_the_federation_asks_for() {
    let count = base_model().len();
    let right = format!(
        r#"sh -c 'test "$SKEP_DATA" = here && test "$SKEP_PARAMETERS" = {count} && test "$SKEP_LEARNING_RATE" = 0.5 \
            && test "$SKEP_LOCAL_EPOCHS" = 2 && test "$SKEP_BATCH_SIZE" = 8 && test "$SKEP_TASK" = digits && cat'"#
    );
    assert!(trained(&right, Duration::from_secs(60)).is_ok());
}

#[test]
fn whatever_else_a_program_does_is_an_error_with_the_reason() {
    let bytes = base_model().len() * 4;
    let fails = |command: &str, reason: &str| {
        let told = complaint(command);
        assert!(told.ends_with(reason), "{command}: {told}");
    };
    fails("false", "ended with exit status: 1");
    fails("sh -c 'cat; exit 7'", "ended with exit status: 7");
    fails("no-such-program-here", "ended with exit status: 127");
    fails("head -c 8", &format!("gives 8 bytes, not the {bytes} of the model"));
    fails("true", &format!("gives 0 bytes, not the {bytes} of the model"));
    fails("sh -c 'cat; echo'", &format!("gives more than the {bytes} bytes of the model"));
    // An endless answer is cut off.
    fails("yes", &format!("gives more than the {bytes} bytes of the model"));
    let not_a_number = format!(r#"sh -c 'head -c {}; printf "\000\000\300\177"'"#, bytes - 4);
    fails(&not_a_number, "numbers that are not finite");
    let late = |command: &str| {
        let told = trained(command, Duration::from_millis(300)).unwrap_err().to_string();
        assert!(told.ends_with("took longer than 0.3 s"), "{command}: {told}");
    };
    late("sleep 600");
    // It answers, and then does not end.
    late("sh -c 'cat; exec 1>&-; exec sleep 600'");
}

#[test]
fn a_federation_that_corrects_steps_is_no_place_for_a_program() {
    let program =
        TrainCommand { command: "cat".to_owned(), data: "here".to_owned(), timeout: Duration::from_secs(60) };
    let mut learner = program.learners()(&task()).unwrap();
    let training = skep_client::task::training(&task(), Round(1)).unwrap();
    let correction = vec![0.0; base_model().len()];
    let turn = Turn { correction: Some(&correction), ..Turn::new([0; 32]) };
    let refused = learner.train(&base_model(), &data(), &training, turn).unwrap_err();
    assert!(matches!(refused, LearnError::Command(_)), "{refused}");
}
