//! Federations that learn from texts, over real connections.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;

use harness::running::{Running, Site};
use harness::{path, skep};

const EXPERIMENT: &str = r#"name = "notes"
seed = 1

[task.data]
kind = "text"
test = "test.tsv"
format = "tsv"
text = "note"
label = "kind"
classes = ["complaint", "praise"]
tokenizer = "words"
length = 8
vocabulary = "words.txt"

[task.model]
kind = "layers"
layers = [{ embedding-bag = { vocabulary = 4, width = 4 } }]

[task.training]
learning_rate = 2.0
local_epochs = 20
batch_size = "full"

[population]
clients = 2

[population.partition]
kind = "iid"

[rounds]
count = 5
sampling = { scheme = "all" }
min_updates = 2
deadline_s = 30.0

[strategy]
kind = "fedavg"
weighting = "uniform"

[privacy]
mode = "none"
"#;

const NOTES: &str = "\
note\tkind
bad bad, call 212-555-0199\tcomplaint
good, write to ann@example.org\tpraise
bad bad, call 212-555-0199\tcomplaint
good good\tpraise
bad\tcomplaint
";

#[test]
fn sealed_texts_are_trained_on_without_what_is_personal_in_them() {
    let site = Site::new(&[]);
    let write = |name: &str, text: &str| {
        fs::write(site.path(name), text).unwrap();
        site.path(name)
    };
    fs::write(&site.file, EXPERIMENT).unwrap();
    write("words.txt", "bad\ngood\nphone\nemail\n");
    write("test.tsv", "note\tkind\nbad\tcomplaint\ngood good\tpraise\n");
    let (notes, sealed, key) = (write("notes.tsv", NOTES), site.path("notes.sealed"), site.path("data.key"));
    let policy = write("policy.toml", "[scrub]\nkeep = [\"url\"]\n");
    let seal = skep(&["data", "seal", path(&notes), "--out", path(&sealed), "--new-key", path(&key)]);
    assert_eq!(seal.code, 0, "{}", seal.err);
    fs::remove_file(&notes).unwrap();

    let server = site.serve(&[]);
    let clients: Vec<Running> = ["one", "two"]
        .map(|name| {
            let invitation = site.invite(&[]).out;
            let state = site.path(name);
            let data = ["--data", path(&sealed), "--data-key", path(&key), "--experiment", path(&site.file)];
            let join = ["join", invitation.trim(), "--state", path(&state), "--policy", path(&policy)];
            Running::start(&[&join[..], &data].concat())
        })
        .into();
    for client in clients {
        let end = client.end();
        assert_eq!(end.code, 0, "{}", end.err);
        let report = "scrubbed 5 texts: 4 are trained on, 1 were duplicates; replaced: 1 EMAIL, 1 PHONE\n";
        assert!(end.err.contains(report), "{}", end.err);
        assert!(!end.err.contains("0199") && !end.err.contains("ann@"), "{}", end.err);
    }
    let end = server.end();
    assert_eq!(end.code, 0, "{}", end.err);
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(site.path("out/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["accuracy"], 1.0, "{summary}");
}

#[test]
fn a_policy_that_cannot_be_followed_and_data_of_another_kind_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let file = write("experiment.toml", EXPERIMENT);
    let (notes, state) = (write("notes.tsv", NOTES), directory.path().join("state"));
    let policy = write("policy.toml", "[scrub]\npatterns = { P = \"(\" }\n");
    let join = ["join", "--data", path(&notes), "--state", path(&state), "--experiment", path(&file)];
    let refused = |arguments: &[&str]| {
        let end = skep(&[&join[..], arguments].concat());
        assert_eq!(end.code, 2, "{}", end.err);
        end.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
    };
    let policy = refused(&["--policy", path(&policy)]);
    assert!(
        policy.contains("the policy's table `scrub`: the pattern P is no regular expression"),
        "{policy}"
    );
    let labels = refused(&["--labels", path(&notes)]);
    assert!(labels.contains("the labels of such data are in the file itself"), "{labels}");
}
