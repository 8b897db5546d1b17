//! The program of this directory as its user runs it: a simulation, and a server with clients that joins files of their own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-model"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of this test is UTF-8")
}

/// The experiment with a change, beside its data.
fn changed(directory: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let mut file = std::fs::read_to_string(here("spirals.toml")).unwrap();
    for (from, to) in changes {
        assert!(file.contains(from), "{from}");
        file = file.replace(from, to);
    }
    let changed = directory.join("changed.toml");
    std::fs::write(&changed, file).unwrap();
    changed
}

fn accuracy(out: &Path) -> f64 {
    let summary = std::fs::read(out.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    summary["accuracy"].as_f64().unwrap_or_else(|| panic!("{summary}"))
}

#[test]
fn it_simulates_and_its_model_predicts() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("results");
    let ran = run(&["simulate", path(&here("spirals.toml")), "--out", path(&out)]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(accuracy(&out) > 0.9, "{}", accuracy(&out));
    let model = out.join("model.safetensors");
    let shown = text(&run(&["model", "show", path(&model)]).stdout);
    assert!(shown.contains("residual") && shown.contains("2435 parameters"), "{shown}");
    let input = directory.path().join("points.jsonl");
    std::fs::write(&input, "[0.21, 0.03]\n[-0.11, 0.18]\n").unwrap();
    let answers = run(&["predict", path(&model), "--input", path(&input)]);
    let classes: Vec<Value> = text(&answers.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["class"].clone())
        .collect();
    assert_eq!(classes, ["inner", "middle"], "{}", text(&answers.stderr));
}

#[test]
fn it_hides_single_examples_too() {
    let directory = tempfile::tempdir().unwrap();
    let private = "mode = \"local\"\nunit = \"example\"\nadjacency = \"zero-out\"\nclip_norm = 1.0\n\
                   noise_multiplier = 1.0\ndelta = 1e-3\nepsilon_limit = 50.0";
    let changes =
        [("mode = \"none\"", private), ("count = 20", "count = 2"), ("local_epochs = 5", "local_epochs = 1")];
    let file = changed(directory.path(), &changes);
    let ran = run(&["simulate", path(&file), "--data-dir", path(&here("")), "--threads", "1"]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
}

/// A process that is gone when the test is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_and_joins_with_files_of_its_own_format() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let file = changed(directory.path(), &[("clients = 12", "clients = 2"), ("count = 20", "count = 5")]);
    // Each client has a file of its own, and the server only the one that it measures with.
    let all = std::fs::read_to_string(here("data/train.svm")).unwrap();
    let lines: Vec<&str> = all.lines().collect();
    for (number, part) in lines.chunks(lines.len() / 2).enumerate() {
        std::fs::write(place(&format!("mine-{number}.svm")), part.join("\n")).unwrap();
    }
    std::fs::create_dir(place("data")).unwrap();
    std::fs::copy(here("data/test.svm"), place("data/test.svm")).unwrap();

    let (state, out) = (place("state"), place("out"));
    let serve =
        ["serve", path(&file), "--listen", "127.0.0.1:0", "--state", path(&state), "--out", path(&out)];
    let mut server = Running(program(&serve).spawn().unwrap());
    let mut said = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "{line}");
    let clients: Vec<Running> = (0..2)
        .map(|number| {
            let invited = run(&["invite", "--state", path(&state)]);
            let invitation = text(&invited.stdout).trim().to_owned();
            let (mine, own) = (place(&format!("mine-{number}.svm")), place(&format!("client-{number}")));
            let join = ["join", &invitation, "--data", path(&mine), "--experiment", path(&file)];
            Running(program(&[&join[..], &["--state", path(&own)]].concat()).spawn().unwrap())
        })
        .collect();
    for mut client in clients {
        let mut err = client.0.stderr.take().unwrap();
        let status = client.0.wait().unwrap();
        let mut told = String::new();
        std::io::Read::read_to_string(&mut err, &mut told).unwrap();
        assert!(status.success(), "{told}");
    }
    assert!(server.0.wait().unwrap().success());
    assert!(accuracy(&out) > 0.6, "{}", accuracy(&out));
}

#[test]
fn what_is_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let told = |changes: &[(&str, &str)]| {
        let file = changed(directory.path(), changes);
        let ran = run(&["simulate", path(&file), "--data-dir", path(&here(""))]);
        assert_eq!(ran.status.code(), Some(2));
        let said = text(&ran.stderr);
        // Without the frame that long lines are broken in.
        said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
    };
    let parameters = told(&[("parameters = 2435", "parameters = 2434")]);
    assert!(parameters.contains("task.model.parameters is 2434, but the model `residual`"), "{parameters}");
    let model = told(&[("name = \"residual\"", "name = \"residul\"")]);
    assert!(model.contains("there is no model of one's own called `residul` here"), "{model}");
    let format = told(&[("format = \"svmlight\"", "format = \"svm\"")]);
    assert!(format.contains("there is no format of one's own called `svm` here"), "{format}");
    let features = told(&[("features = 2", "features = 3"), ("parameters = 2435", "parameters = 2467")]);
    assert!(features.contains("has 2 features, but task.data.features says 3"), "{features}");
    let broken = directory.path().join("broken.svm");
    std::fs::write(&broken, "0 1:1 2:2\n1 1:x\n").unwrap();
    let line = told(&[("data/train.svm", path(&broken))]);
    assert!(line.contains("line 2: `1:x` is no INDEX:NUMBER"), "{line}");
}
