//! A client whose training is a program: what it gives is trained on its word, and what it does wrong is told.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use skep_client::command::{Format, TrainCommand};
use skep_learning::{LearnError, TrainReport, Turn};
use skep_protocol::Round;
use support::{base_model, data, task};

/// What a command makes of the base model.
fn trained(command: &str, timeout: Duration) -> Result<TrainReport, LearnError> {
    trained_as(Format::Flat, command, timeout)
}

fn trained_as(format: Format, command: &str, timeout: Duration) -> Result<TrainReport, LearnError> {
    let program = TrainCommand { command: command.to_owned(), data: "here".to_owned(), format, timeout };
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
    assert_eq!(same.update, vec![0.0; base_model().len()]);
    assert_eq!(same.examples, data().len());
    // Every parameter becomes 2, which is 00 00 00 40.
    let count = base_model().len();
    let two =
        format!(r#"sh -c 'cat > /dev/null; for n in $(seq {count}); do printf "\000\000\000\100"; done'"#);
    let expected: Vec<f32> = base_model().iter().map(|old| 2.0 - old).collect();
    assert_eq!(trained(&two, Duration::from_secs(60)).unwrap().update, expected);
}

#[test]
fn tensors_go_to_a_program_and_come_back_by_name() {
    let patience = Duration::from_secs(60);
    let same = trained_as(Format::Safetensors, "cat", patience).unwrap();
    assert_eq!(same.update, vec![0.0; base_model().len()]);
    let told = |command: &str| trained_as(Format::Safetensors, command, patience).unwrap_err().to_string();
    assert!(told("true").contains("gives 0 bytes, and they are no safetensors file"), "{}", told("true"));
    // Another name of the same length.
    let renamed = told("sed s/0.bias/9.bias/");
    assert!(renamed.contains("tensor `9.bias` has no place in the model"), "{renamed}");
    let retyped = told("sed s/F32/I32/g");
    assert!(retyped.contains("holds I32, not F32"), "{retyped}");
    assert!(told("yes").contains("gives more than"), "{}", told("yes"));
}

/// What a script of `examples/train-command` learns of a table, and what we do. It takes one step an epoch.
fn learned_by(script: &str, format: Format) -> (Vec<f32>, Vec<f32>) {
    let directory = tempfile::tempdir().unwrap();
    let (table, data) = (directory.path().join("mine.csv"), data());
    let names: Vec<String> = (0..data.dataset().inputs()).map(|column| format!("x{column}")).collect();
    let labels: Vec<u32> = data.labels().collect();
    let mut text = format!("{},label\n", names.join(","));
    for (at, &row) in data.rows().iter().enumerate() {
        let features = data.dataset().features();
        let numbers: Vec<String> = features.row(row).iter().map(f32::to_string).collect();
        text += &format!("{},{}\n", numbers.join(","), labels[at]);
    }
    std::fs::write(&table, text).unwrap();
    let script =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/train-command").join(script);
    let program = TrainCommand {
        command: format!("python3 {}", script.display()),
        data: table.display().to_string(),
        format,
        timeout: Duration::from_secs(60),
    };
    let training = skep_learning::Training::new(0.5, 3, skep_learning::Batch::Full).unwrap();
    let learn = |mut learner: Box<dyn skep_learning::Learner>| {
        learner.train(&base_model(), &data, &training, Turn::new([0; 32])).unwrap().update
    };
    let ours = learn(skep_client::task::learner_for(&task()).unwrap());
    (learn(program.learners()(&task()).unwrap()), ours)
}

fn has_python_with(module: &str) -> bool {
    let found = std::process::Command::new("python3").args(["-c", &format!("import {module}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no python3 with {module}");
    }
    found
}

fn assert_close((theirs, ours): (Vec<f32>, Vec<f32>)) {
    let largest = ours.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.01 && theirs.len() == ours.len());
    assert!(theirs.iter().zip(&ours).all(|(one, other)| (one - other).abs() < 1e-4 * largest));
}

#[test]
fn the_script_in_python_learns_what_we_learn() {
    if has_python_with("csv") {
        assert_close(learned_by("plain.py", Format::Flat));
    }
}

#[test]
fn the_script_in_pytorch_learns_what_we_learn() {
    if has_python_with("torch, safetensors.torch") {
        assert_close(learned_by("pytorch.py", Format::Safetensors));
    }
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
    let program = TrainCommand {
        command: "cat".to_owned(),
        data: "here".to_owned(),
        format: Format::Flat,
        timeout: Duration::from_secs(60),
    };
    let mut learner = program.learners()(&task()).unwrap();
    let training = skep_client::task::training(&task(), Round(1)).unwrap();
    let correction = vec![0.0; base_model().len()];
    let turn = Turn { correction: Some(&correction), ..Turn::new([0; 32]) };
    let refused = learner.train(&base_model(), &data(), &training, turn).unwrap_err();
    assert!(matches!(refused, LearnError::Command(_)), "{refused}");
}
