//! Transcripts of `skep predict` and `skep model show`: a trained model in the hands of somebody who has nothing but its file.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::{SMALL, Transcript, changed, command, flowers, path, skep, transcript};
use serde_json::Value;

/// A table of flowers: what they are follows from their size.
const FLOWERS: &str = "\
petal,garden,sepal,kind
1.1,north,0.9,iris
-1.2,south,-0.8,rose
0.8,west,1.3,iris
-0.9,north,-1.1,rose
1.0,south,1.0,iris
-1.0,west,-1.0,rose
";

/// The model file of a simulation in `directory`.
fn trained(directory: &Path, file: &Path) -> PathBuf {
    let out = directory.join("out");
    let ran = skep(&["simulate", path(file), "--seed", "7", "--out", path(&out), "--output", "json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    out.join("model.safetensors")
}

fn flowers(directory: &Path) -> PathBuf {
    fs::write(directory.join("flowers.csv"), FLOWERS).unwrap();
    let all = [
        ("hold_out_every = 5\n", "test = \"flowers.csv\"\n"),
        ("local_epochs = 2", "local_epochs = 1"),
        ("count = 4", "count = 5"),
    ];
    trained(directory, &flowers::experiment(directory, &all))
}

fn digits(directory: &Path) -> PathBuf {
    let file = changed(directory, &[&SMALL[..], &[("count = 3", "count = 20")]].concat());
    trained(directory, &file)
}

fn predict(model: &Path, input: &Path, arguments: &[&str]) -> Transcript {
    skep(&[&["predict", path(model), "--input", path(input)], arguments].concat())
}

/// What is predicted from standard input.
fn piped(model: &Path, input: &[u8]) -> Transcript {
    let mut child = command(&["predict", path(model), "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    transcript(child.wait_with_output().unwrap())
}

/// A message without the frame that a terminal's width gives it.
fn flat(err: &str) -> String {
    err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn columns_are_found_by_the_names_that_travel_in_the_model() {
    let directory = tempfile::tempdir().unwrap();
    let model = flowers(directory.path());
    let asked = directory.path().join("asked.csv");
    fs::write(&asked, "sepal,note,petal\n1.0,early,0.9\n-1.1,late,-0.7\n").unwrap();
    let Transcript { code, out, err } = predict(&model, &asked, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let answers = lines(&out);
    let classes: Vec<_> = answers.iter().map(|answer| answer["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["iris", "rose"]);
    assert!(answers[0]["probabilities"]["iris"].as_f64().unwrap() > 0.5);

    let same = piped(&model, b"[0.9, 1.0]\n{\"sepal\": -1.1, \"petal\": -0.7}\n");
    assert_eq!((same.code, same.out), (0, out));

    let table = predict(&model, &asked, &["--output", "csv"]);
    assert!(table.out.starts_with("class,probability_iris,probability_rose\niris,"), "{}", table.out);
    assert_eq!(table.out.lines().count(), 3);
}

#[test]
fn what_is_wrong_is_told_by_file_line_and_column_after_what_is_right_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let model = flowers(directory.path());
    let asked = directory.path().join("asked.csv");
    fs::write(&asked, "sepal,petal\n1.0,0.9\n-1.1,tall\n").unwrap();
    let Transcript { code, out, err } = predict(&model, &asked, &[]);
    assert_eq!((code, out.lines().count()), (2, 1), "{out}");
    let err = flat(&err);
    assert!(err.contains("asked.csv, line 3, column `petal`: `tall` is not a finite number"), "{err}");

    let broken = piped(&model, b"{\"petal\": 1}\n");
    assert_eq!((broken.code, broken.out.as_str()), (2, ""));
    assert!(
        flat(&broken.err).contains("standard input, line 1: column `sepal` is missing"),
        "{}",
        broken.err
    );

    let huge = piped(&model, b"[1, 2]\n[3e38, 3e38]\n");
    assert_eq!(huge.code, 2);
    assert!(flat(&huge.err).contains("not finite"), "{}", huge.err);

    let no_model = predict(&asked, &asked, &[]);
    assert_eq!(no_model.code, 2);
    assert!(flat(&no_model.err).contains("asked.csv: not a safetensors file"), "{}", no_model.err);
    assert!(flat(&no_model.err).contains("model.safetensors of a results directory"), "{}", no_model.err);
    let nowhere = predict(Path::new("nowhere"), &asked, &[]);
    assert!(flat(&nowhere.err).contains("nowhere: No such file"), "{}", nowhere.err);
}

#[test]
fn images_are_scaled_as_they_were_for_training() {
    let directory = tempfile::tempdir().unwrap();
    let model = digits(directory.path());
    let test = skep_learning::digits::load().test;
    let (mut table, mut image) = (String::new(), Vec::new());
    table += &(0..64).map(|pixel| format!("p{pixel}")).collect::<Vec<_>>().join(",");
    table.push('\n');
    for &row in test.rows() {
        let pixels = test.dataset().features().row(row).mapv(|pixel| (pixel * 16.0) as u8);
        table += &pixels.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        table.push('\n');
        image.extend(pixels);
    }
    let (csv, idx) = (directory.path().join("digits.csv"), directory.path().join("digits.idx"));
    fs::write(&csv, table).unwrap();
    let header = [&[0, 0, 8, 3][..], &(test.len() as u32).to_be_bytes(), &[0, 0, 0, 8, 0, 0, 0, 8]].concat();
    fs::write(&idx, [header, image].concat()).unwrap();

    let answers = predict(&model, &csv, &[]);
    assert_eq!(answers.code, 0, "{}", answers.err);
    let right = lines(&answers.out)
        .iter()
        .zip(test.labels())
        .filter(|(answer, label)| answer["class"].as_str().unwrap().parse() == Ok(*label))
        .count();
    let summary = fs::read_to_string(directory.path().join("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let accuracy = right as f64 / test.len() as f64;
    assert_eq!(Some(accuracy), summary["accuracy"].as_f64());
    assert!(accuracy > 0.2, "the model has learned something: {accuracy}");
    assert_eq!(predict(&model, &idx, &[]).out, answers.out);

    let narrow = predict(&model, &csv, &["--features", "p0,p1"]);
    assert_eq!(narrow.code, 2);
    assert!(flat(&narrow.err).contains("2 columns were named; the model takes 64 numbers"), "{}", narrow.err);
}

#[test]
fn a_model_is_shown_with_its_privacy_and_its_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let model = digits(directory.path());
    let shown = skep(&["model", "show", path(&model)]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    for expected in [
        "task        digits\n",
        "takes       numbers, 64, each divided by 16\n",
        "gives 10, 650 parameters\n",
        "parameters  650, 2600 bytes\n",
        "classes     10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n",
        "at delta 0.00001, against whoever receives the model\n",
        "not private the noise followed from a seed",
        "skep audit LEDGER --model FILE",
    ] {
        assert!(shown.out.contains(expected), "{expected:?} is missing in\n{}", shown.out);
    }
    let json = skep(&["model", "show", path(&model), "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let summary = fs::read_to_string(directory.path().join("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(json["model_sha256"], summary["model_sha256"]);
    assert_eq!(json["privacy"]["epsilon"], summary["epsilon_release"]);
    assert_eq!(json["privacy"]["epsilon_server"], summary["epsilon_server"]);
    assert_eq!(json["digest_as_in_metadata"], true);
    assert!(json["ledger"]["records"].as_u64().unwrap() > 20);

    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&model, bytes).unwrap();
    let changed = skep(&["model", "show", path(&model)]);
    assert_eq!(changed.code, 1);
    assert!(flat(&changed.err).contains("the file was changed after it was written"), "{}", changed.err);
}

#[test]
fn a_model_is_exported_once_and_nothing_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let model = digits(directory.path());
    let out = directory.path().join("model.onnx");
    let export = |format: &str, out: &Path| {
        skep(&["model", "export", path(&model), "--format", format, "--out", path(out)])
    };
    let ran = export("onnx", &out);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let loaded = skep_learning::ModelFile::load(&model).unwrap();
    assert_eq!(fs::read(&out).unwrap(), skep_learning::onnx::encode(&loaded).unwrap());
    let again = export("onnx", &out);
    assert_eq!(again.code, 2);
    assert!(flat(&again.err).contains("something is there already"), "{}", again.err);
    let torch = directory.path().join("torch.safetensors");
    assert_eq!(export("safetensors", &torch).code, 0);
    let bytes = fs::read(&torch).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""0.weight":{"dtype":"F32","shape":[10,64]"#), "{}", &text[..900]);
}
