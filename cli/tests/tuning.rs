//! Transcripts of learning from texts with transformers: trained whole, then in part over the weights of before.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use harness::{command, path, skep, transcript};
use serde_json::Value;

const NOTES: &str = include_str!("../../simulations/experiments/english-csv.toml");

/// Notes of forty people, with a shorter run and other changes, in `directory`.
fn notes(directory: &Path, name: &str, changes: &[(&str, &str)]) -> String {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulations/experiments");
    for file in ["english-notes.csv", "english-words.txt", "english-stop-words.txt"] {
        fs::copy(beside.join(file), directory.join(file)).unwrap();
    }
    let shorter = [("count = 40", "count = 2"), ("every = 10", "every = 2")];
    let text = shorter.iter().chain(changes).fold(NOTES.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the file has {from:?}");
        text.replacen(from, to, 1)
    });
    let file = directory.join(name);
    fs::write(&file, text).unwrap();
    path(&file).to_owned()
}

const LORA: (&str, &str) = (
    "[population]",
    "[task.tuning]\nweights = \"base/model.safetensors\"\nfrozen = [\"*\", \"!output.*\"]\n\
     lora = { rank = 2, alpha = 4.0, targets = [\"*.query.weight\", \"*.value.weight\"] }\n\n[population]",
);

/// The bits of every tensor of a model file.
fn tensors(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, tensor)| {
            let place = |at: usize| tensor["data_offsets"][at].as_u64().unwrap() as usize;
            (name, data[place(0)..place(1)].to_vec())
        })
        .collect()
}

#[test]
fn adapters_alone_travel_and_what_is_frozen_keeps_every_bit() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let whole = notes(directory.path(), "whole.toml", &[]);
    let base = skep(&["simulate", &whole, "--seed", "1", "--out", path(&at("base"))]);
    assert_eq!(base.code, 0, "{}", base.err);

    let part = notes(directory.path(), "part.toml", &[LORA]);
    let checked = skep(&["check", &part, "--output", "json"]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let price: Value = serde_json::from_str(&checked.out).unwrap();
    // Two adapters of 32 x 2 and 2 x 32, and a last layer of 32 x 4 and 4.
    assert_eq!(price["price"]["parameters"], 2 * 128 + 132);
    assert_eq!(price["price"]["model_bytes"], 4 * (2 * 128 + 132));
    let said = skep(&["check", &part]).out;
    assert!(
        said.contains("388 of 13604 parameters are trained; the others are everybody's and do not travel"),
        "{said}"
    );

    let tuned = skep(&["simulate", &part, "--seed", "1", "--out", path(&at("tuned")), "--output", "json"]);
    assert_eq!(tuned.code, 0, "{}", tuned.err);
    let model = at("tuned/model.safetensors");
    let [before, after] = [tensors(&at("base/model.safetensors")), tensors(&model)];
    assert_eq!(after.len(), before.len() + 4, "two adapters of two tensors each");
    for (name, bits) in &before {
        let is_trained =
            name.starts_with("output.") || name.ends_with("query.weight") || name.ends_with("value.weight");
        assert_eq!(after[name] != *bits, is_trained, "{name}");
    }

    let shown = skep(&["model", "show", path(&model)]);
    assert_eq!(shown.code, 0, "{}{}", shown.out, shown.err);
    assert!(shown.out.contains("trained     388 of"), "{}", shown.out);
    let ledger = at("tuned/ledger.skep");
    let audited = skep(&["audit", path(&ledger), "--model", path(&model)]);
    // Nothing is wrong; a seeded run certifies nothing.
    assert!(audited.out.contains("the model was released by record"), "{}{}", audited.out, audited.err);
    for format in ["onnx", "safetensors"] {
        let out = at(&format!("merged.{format}"));
        let exported = skep(&["model", "export", path(&model), "--format", format, "--out", path(&out)]);
        assert_eq!(exported.code, 0, "{}", exported.err);
    }
    let mut asked = command(&["predict", path(&model), "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    asked.stdin.take().unwrap().write_all(b"The train was late again.\n").unwrap();
    let answer = transcript(asked.wait_with_output().unwrap());
    assert!(answer.out.starts_with("{\"class\":"), "{}", answer.out);
}

/// What PyTorch reads of an export is read back here, bit for bit.
#[test]
fn training_goes_on_from_weights_as_pytorch_keeps_them() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let whole = notes(directory.path(), "whole.toml", &[]);
    assert_eq!(skep(&["simulate", &whole, "--seed", "1", "--out", path(&at("base"))]).code, 0);
    let torch = at("torch.safetensors");
    let model = at("base/model.safetensors");
    let exported = skep(&["model", "export", path(&model), "--format", "safetensors", "--out", path(&torch)]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    let accuracy = |weights: &str| {
        let tuning = format!("[task.tuning]\nweights = \"{weights}\"\n\n[population]");
        let file = notes(directory.path(), "on.toml", &[("[population]", &tuning)]);
        let ran = skep(&["simulate", &file, "--seed", "1", "--output", "json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        serde_json::from_str::<Value>(&ran.out).unwrap()["model_sha256"].clone()
    };
    assert_eq!(accuracy("base/model.safetensors"), accuracy("torch.safetensors"));
}

#[test]
fn what_cannot_be_tuned_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |to: &str| {
        let tuning = format!("[task.tuning]\n{to}\n\n[population]");
        let file = notes(directory.path(), "wrong.toml", &[("[population]", &tuning)]);
        let checked = skep(&["check", &file]);
        assert_eq!(checked.code, 2, "{}{}", checked.out, checked.err);
        checked.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
    };
    let missing = refused("weights = \"nothing.safetensors\"\nfrozen = [\"*\", \"!output.*\"]");
    assert!(missing.contains("task.tuning.weights:") && missing.contains("nothing.safetensors"), "{missing}");
    let pattern = refused("frozen = [\"ouput.*\"]");
    assert!(
        pattern.contains("`ouput.*` is the name of no tensor; there are: 0.embedding.weight"),
        "{pattern}"
    );
    let all = refused("frozen = [\"*\"]");
    assert!(all.contains("nothing is left to train"), "{all}");
    let empty = refused("");
    assert!(empty.contains("says nothing"), "{empty}");
    let rank = refused("lora = { rank = 0, alpha = 1.0, targets = [\"*.query.weight\"] }");
    assert!(rank.contains("must be at least 1"), "{rank}");
}

#[test]
fn precision_is_that_of_the_processor() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        notes(directory.path(), "half.toml", &[("batch_size = 8", "batch_size = 8\nprecision = \"bf16\"")]);
    let checked = skep(&["check", &file]);
    assert_eq!(checked.code, 2);
    assert!(checked.err.contains("can only be \"f32\""), "{}", checked.err);
    let file =
        notes(directory.path(), "micro.toml", &[("batch_size = 8", "batch_size = 8\nmicro_batch_size = 2")]);
    assert_eq!(skep(&["check", &file]).code, 0);
}
