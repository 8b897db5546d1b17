//! Two kinds of flowers in three gardens: what they are follows from their size.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::{Path, PathBuf};

/// Writes a table of so many, `flowers.csv`.
pub(crate) fn table(directory: &Path, lines: u32) -> PathBuf {
    let mut text = "petal,garden,sepal,kind\n".to_owned();
    for line in 0..lines {
        let (kind, size) = if line % 2 == 0 { ("iris", 1.0) } else { ("rose", -1.0) };
        let wobble = f64::from(line * 37 % 19) / 20.0 - 0.45;
        let garden = ["north", "south", "west"][(line / 2 % 3) as usize];
        text += &format!("{},{garden},{},{kind}\n", size + wobble, size - wobble);
    }
    let table = directory.join("flowers.csv");
    std::fs::write(&table, text).unwrap();
    table
}

/// Writes an experiment that learns from them, a client a garden, without privacy; changed.
pub(crate) fn experiment(directory: &Path, changes: &[(&str, &str)]) -> PathBuf {
    super::written(directory, EXPERIMENT, changes)
}

const EXPERIMENT: &str = "\
name = \"flowers\"
seed = 1

[task.data]
kind = \"csv\"
train = \"flowers.csv\"
hold_out_every = 5
label = \"kind\"
client = \"garden\"
features = 2
classes = [\"iris\", \"rose\"]

[task.model]
kind = \"softmax\"

[task.training]
learning_rate = 0.5
local_epochs = 2
batch_size = \"full\"

[population]
clients = 3
partition = { kind = \"column\" }

[rounds]
count = 4
sampling = { scheme = \"all\" }
min_updates = 3
deadline_s = 30.0

[strategy]
kind = \"fedavg\"
weighting = \"uniform\"

[privacy]
mode = \"none\"
";
