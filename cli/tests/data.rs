//! Transcripts about data from disk: `skep init`, `skep data inspect`, and federations that learn from files.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::path::Path;

use harness::running::{Running, Site};
use harness::{Transcript, flowers, path, skep};
use serde_json::Value;

/// A diagnostic without the lines that it is broken into.
fn one_line(err: &str) -> String {
    err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn summary(file: &Path, arguments: &[&str]) -> Value {
    let all = [&["simulate", path(file), "--output", "json", "--seed", "1"], arguments].concat();
    let Transcript { code, out, err } = skep(&all);
    assert_eq!(code, 0, "{err}");
    json(&out)
}

#[test]
fn a_table_is_learned_from_by_the_clients_that_its_column_names() {
    let directory = tempfile::tempdir().unwrap();
    flowers::table(directory.path(), 120);
    let file = flowers::experiment(directory.path(), &[]);
    let learned = summary(&file, &[]);
    assert_eq!(learned["accuracy"], 1.0, "{learned}");
    assert_eq!(learned["rounds_completed"], 4);
    // The same over sockets, and with other shares another model.
    assert_eq!(summary(&file, &["--real"])["model_sha256"], learned["model_sha256"]);
    for partition in ["kind = \"iid\"", "kind = \"shards\", per_client = 2"] {
        let file = flowers::experiment(directory.path(), &[("kind = \"column\"", partition)]);
        assert_ne!(summary(&file, &[])["model_sha256"], learned["model_sha256"], "{partition}");
    }
}

#[test]
fn files_are_found_beside_the_experiment_or_where_data_dir_says() {
    let [here, there] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    flowers::table(there.path(), 120);
    let file = flowers::experiment(here.path(), &[]);
    let Transcript { code, err, .. } = skep(&["check", path(&file)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("flowers.csv: No such file"), "{err}");
    assert_eq!(skep(&["check", path(&file), "--data-dir", path(there.path())]).code, 0);
    let out = here.path().join("out");
    summary(&file, &["--data-dir", path(there.path()), "--out", path(&out)]);
    // The resolved experiment finds its data from anywhere.
    assert_eq!(skep(&["check", path(&out.join("experiment.toml"))]).code, 0);
}

#[test]
fn what_is_wrong_in_a_table_is_named_by_file_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let table = flowers::table(directory.path(), 120);
    let good = fs::read_to_string(&table).unwrap();
    let file = flowers::experiment(directory.path(), &[]);
    let complaint = |lines: &str| {
        fs::write(&table, good.clone() + lines).unwrap();
        let Transcript { code, err, .. } = skep(&["simulate", path(&file)]);
        assert_eq!(code, 2, "{err}");
        one_line(&err)
    };
    for (lines, says) in [
        ("1,north,,iris\n", "flowers.csv, line 122, column `sepal`: the value is missing"),
        ("1,north,big,iris\n", "flowers.csv, line 122, column `sepal`: `big` is not a finite number"),
        ("1,north,2,tulip\n", "line 122, column `kind`: `tulip` is not a label, one of `iris`, `rose`"),
        ("1,north,2\n", "line: 122"),
        ("1,east,2,iris\n", "the data belong to 4 clients, not to 3"),
    ] {
        let said = complaint(lines);
        assert!(said.contains(says), "{says:?} is not in {said}");
    }
    let wide = flowers::experiment(directory.path(), &[("features = 2", "features = 3")]);
    fs::write(&table, &good).unwrap();
    let err = skep(&["check", path(&wide)]).err;
    assert!(one_line(&err).contains("has 2 features"), "{err}");
    let only = flowers::experiment(directory.path(), &[("features = 2", "features = [\"sepal\"]")]);
    assert_eq!(skep(&["check", path(&only)]).code, 0);
}

#[test]
fn inspect_counts_what_a_table_holds_and_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let table = flowers::table(directory.path(), 120);
    let whole = fs::read_to_string(&table).unwrap() + ",west,2,rose\nfar,west,,rose\n";
    fs::write(&table, whole).unwrap();
    let columns = ["--label", "kind", "--client", "garden"];
    let inspect = [&["data", "inspect", path(&table)], &columns[..]].concat();
    let Transcript { code, out, err } = skep(&inspect);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "examples    122\n",
        "features    2: `petal` -1.45 to 1.45, `sepal` -1.45 to 2\n",
        "missing     2: `petal` 1, first in line 122, `sepal` 1, first in line 123\n",
        "no numbers  1: `petal` 1, first in line 123\n",
        "label       `kind`, 2 classes: iris 60, rose 62\n",
        "clients     `garden`: 3, with 40 to 42 examples each, median 40\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
    let report = json(&skep(&[&inspect[..], &["--output", "json"]].concat()).out);
    assert_eq!(report["examples"], 122);
    assert_eq!(report["features"][0]["not_numbers"]["first_line"], 123);
    assert_eq!(report["label"]["classes"][1]["examples"], 62);
    assert_eq!(report["client"]["examples"]["west"], 42);
    let err = skep(&["data", "inspect", path(&table), "--label", "kidn"]).err;
    assert!(err.contains("no column `kidn`"), "{err}");
}

const NEWS: &str = "title,kind\nA goal!,sport\nA play,art\n\"Goal, goal, goal\",sport\nA play,sport\n";

#[test]
fn inspect_counts_texts_and_shows_none() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let news = write("news.csv", NEWS);
    write("words.txt", "goal\nplay\nbook\n");
    let task = "[task.data]\nkind = \"text\"\ntrain = \"news.csv\"\ntest = \"news.csv\"\nformat = \"csv\"\ntext = \"title\"\n\
                label = \"kind\"\nclasses = [\"art\", \"sport\"]\ntokenizer = \"words\"\nlowercase = true\n\
                vocabulary = \"words.txt\"\nlength = 2\n\n[task.model]\nkind = \"layers\"\n\
                layers = [{ embedding-bag = { vocabulary = 3, width = 2 } }]\n";
    let whole =
        fs::read_to_string(flowers::experiment(directory.path(), &[("\"column\"", "\"iid\"")])).unwrap();
    let (from, to) = (whole.find("[task.data]").unwrap(), whole.find("[task.training]").unwrap());
    let file = write("news.toml", &format!("{}{task}\n{}", &whole[..from], &whole[to..]));
    let inspect = |file: &Path, more: &[&str]| {
        let Transcript { code, out, err } = skep(&[&["data", "inspect", path(file)], more].concat());
        assert_eq!(code, 0, "{err}");
        out
    };
    let out = inspect(&news, &["--experiment", path(&file)]);
    let known =
        "vocabulary  66.67 % of all words are known; 2 of 3 known words occur; 0 texts have none of them\n";
    for line in [
        "examples    4\n",
        "missing     none\n",
        "repeated    1, first in line 5\n",
        "length      2.2 in the mean: least 2, a tenth at most 2, half 2, nine tenths 3, most 3 words\n",
        "words       3 different\n",
        known,
        "cut         1 texts have more than 2 known words: what follows does not count\n",
        "label       `kind`, 2 classes: art 1, sport 3\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
    // Without an experiment, by hand; nothing of what stands in the texts.
    let lines = write("news.jsonl", "{\"text\":\"A goal\",\"who\":7}\n{\"text\":null,\"who\":7}\n");
    let out = inspect(&lines, &["--client", "who"]);
    assert!(out.contains("missing     1, first in line 2\n"), "{out}");
    assert!(out.contains("clients     `who`: 1, with 2 to 2 examples"), "{out}");
    let play = write("play.txt", "ANN:\nA goal!\n\nBOB:\nNo.\n");
    let out = [out, inspect(&play, &["--format", "speakers"]), inspect(&news, &["--text", "title"])].concat();
    assert!(out.contains("clients     `speaker`: 2, with 1 to 1 examples"), "{out}");
    assert!(!out.contains("goal") && !out.contains("BOB"), "{out}");
    assert_eq!(json(&inspect(&news, &["--text", "title", "--output", "json"]))["repeated"]["first_line"], 5);
}

#[test]
fn inspect_says_what_arrays_hold_and_refuses_what_is_no_data() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(directory.path().join(name), bytes).unwrap();
        directory.path().join(name)
    };
    let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }");
    let numbers = [1.5_f32, f32::NAN, -2.0, 4.0].map(f32::to_le_bytes).concat();
    let array = [&b"\x93NUMPY\x01\x00\x76\x00"[..], header.as_bytes(), &numbers].concat();
    let Transcript { code, out, err } = skep(&["data", "inspect", path(&write("x.npy", &array))]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("array       2 x 2 of float32, -2 to 4; 1 are no finite numbers\n"), "{out}");
    for (name, bytes, says) in [
        ("picture.png", &b"\x89PNG\r\n\x1a\n\0"[..], "is no data set"),
        ("zeros", &[0; 9000], "is no data set"),
        ("records", b"{\"text\":\"my secret\"}\n", "--format jsonl"),
        ("empty", b"\n", "holds nothing"),
        ("papers.zip", b"PK\x03\x04 and so on", "papers.zip: invalid Zip archive"),
        ("list.tsv", b"a\tb\n", "--text COLUMN"),
    ] {
        let Transcript { code, out, err } = skep(&["data", "inspect", path(&write(name, bytes))]);
        assert_eq!((code, out.as_str()), (2, ""), "{name}");
        assert!(one_line(&err).contains(says) && !err.contains("secret"), "{name}: {err}");
    }
}

#[test]
fn a_partition_is_described_before_a_run() {
    let directory = tempfile::tempdir().unwrap();
    flowers::table(directory.path(), 120);
    let changes = [("[privacy]", "[evaluation]\nvalidation = 0.25\n\n[privacy]")];
    let file = flowers::experiment(directory.path(), &changes);
    let partition = ["data", "partition", path(&file)];
    let Transcript { code, out, err } = skep(&partition);
    assert_eq!((code, err.as_str()), (0, ""));
    for part in [
        "partition   3 clients, by the data's column of clients, seed 1\n",
        "examples    72 to train on, 24.0 in the mean: ",
        "validation  24 more examples",
        "classes     2: iris ",
        "counted without noise",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    let told = json(&skep(&[&partition[..], &["--output", "json"]].concat()).out);
    assert_eq!((&told["clients"], &told["examples"]), (&3.into(), &72.into()));
    // What the report of the run shows is what was said before.
    let out = directory.path().join("out");
    summary(&file, &["--out", path(&out)]);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    let sizes = &told["examples_of_client"];
    let words = format!("3 clients with {} to {} examples", sizes["least"], sizes["most"]).replace(".0", "");
    assert!(report.contains(&words), "{words}");
    let wrong = flowers::experiment(
        directory.path(),
        &[("clients = 3", "clients = 4"), ("min_updates = 3", "min_updates = 4")],
    );
    let Transcript { code, err, .. } = skep(&["data", "partition", path(&wrong)]);
    assert_eq!(code, 2);
    assert!(one_line(&err).contains("the data belong to 3 clients, not to 4"), "{err}");
}

#[test]
fn init_writes_the_built_in_experiment_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("experiment.toml");
    let Transcript { code, out, err } = skep(&["init", path(&file)]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("skep check"), "{out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), harness::DIGITS);
    let Transcript { code, err, .. } = skep(&["init", path(&file)]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("is there already"), "{err}");
}

#[test]
fn init_writes_an_experiment_that_learns_from_a_table() {
    let directory = tempfile::tempdir().unwrap();
    let table = flowers::table(directory.path(), 1200);
    let with_note = fs::read_to_string(&table).unwrap().replace('\n', ",note \"é\"\n");
    fs::write(&table, with_note.replacen("note \"é\"", "re\"mark", 1)).unwrap();
    for client in [&[][..], &["--client", "garden"]] {
        let file = directory.path().join(format!("{}.toml", client.len()));
        let all = [&["init", path(&file), "--data", path(&table), "--label", "kind"], client].concat();
        let Transcript { code, err, .. } = skep(&all);
        assert_eq!(code, 0, "{err}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("classes = [\"iris\", \"rose\"]"), "{text}");
        assert!(text.contains("features = [\"petal\", \"sepal\"]"), "{text}");
        assert!(text.contains("kind = \"column\"") != client.is_empty(), "{text}");
        let Transcript { code, err, .. } = skep(&["check", path(&file)]);
        assert_eq!(code, 0, "{err}\n{text}");
    }
    let never = directory.path().join("never.toml");
    let Transcript { code, err, .. } = skep(&["init", path(&never), "--data", path(&table)]);
    assert_eq!((code, never.exists()), (2, false), "{err}");
    assert!(err.contains("no column `label`"), "{err}");
}

#[test]
fn init_trusts_the_server_only_where_clients_are_too_few_for_a_sum() {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("table.csv");
    for (clients, words) in [
        (9, "[privacy]\nmode = \"central\""),
        (10, "masks       the server sees sums of at least 9 of 10 clients only"),
        (19, "masks       the server sees sums of at least 18 of 19 clients only"),
        (20, "masks       the server sees sums of at least 18 of 20 clients only"),
        (301, "masks       the server sees sums of at least 270 of 300 clients only"),
    ] {
        let lines = (0..5 * clients).map(|line| format!("{line},{},{}\n", line % 2, line % clients));
        fs::write(&table, "size,label,owner\n".to_owned() + &lines.collect::<String>()).unwrap();
        let file = directory.path().join(format!("{clients}.toml"));
        let Transcript { code, err, .. } =
            skep(&["init", path(&file), "--data", path(&table), "--client", "owner"]);
        assert_eq!(code, 0, "{err}");
        let Transcript { code, out, err } = skep(&["check", path(&file)]);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(words), "{out}");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.contains("# The sum of so few clients would tell"), clients < 10, "{text}");
    }
}

#[test]
fn a_server_measures_with_its_file_and_clients_train_on_theirs() {
    let site = Site::with(|directory| {
        let table = flowers::table(directory, 120);
        fs::copy(&table, directory.join("test.csv")).unwrap();
        flowers::experiment(
            directory,
            &[
                ("train = \"flowers.csv\"\nhold_out_every = 5\n", "test = \"test.csv\"\n"),
                ("clients = 3", "clients = 2"),
                ("min_updates = 3", "min_updates = 2"),
            ],
        )
    });
    let server = site.serve(&[]);
    let table = site.path("flowers.csv");
    let clients = ["one", "two"].map(|name| {
        let (invitation, state) = (site.invitation(), site.path(name));
        let data = ["--data", path(&table), "--label", "kind", "--features", "petal,sepal"];
        let join = ["join", &invitation, "--classes", "iris,rose", "--state", path(&state)];
        Running::start(&[&join[..], &data].concat())
    });
    for client in clients {
        let Transcript { code, err, .. } = client.end();
        assert_eq!(code, 0, "{err}");
    }
    assert_eq!(server.end().code, 0);
    let summary = json(&fs::read_to_string(site.path("out/summary.json")).unwrap());
    assert_eq!(summary["accuracy"], 1.0, "{summary}");
}

#[test]
fn a_client_is_told_what_its_file_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let table = flowers::table(directory.path(), 12);
    let state = directory.path().join("state");
    let join = |arguments: &[&str]| {
        let all = ["join", "--data", path(&table), "--state", path(&state)];
        let Transcript { code, err, .. } = skep(&[&all[..], arguments].concat());
        assert_eq!(code, 2, "{err}");
        err
    };
    assert!(join(&[]).contains("--classes"), "the classes are not known");
    assert!(join(&["--classes", "2"]).contains("no column `label`"));
    assert!(join(&["--classes", "2", "--labels", "x"]).contains("--labels goes with an IDX file"));
}

/// The images of MNIST, as they ship.
#[test]
fn mnist_is_an_experiment() {
    let mnist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mnist");
    let labels = mnist.join("t10k-labels-idx1-ubyte.gz");
    if !labels.exists() {
        eprintln!("skipped: MNIST is not at {}", mnist.display());
        return;
    }
    let images = mnist.join("t10k-images-idx3-ubyte.gz");
    let out = skep(&["data", "inspect", path(&images)]).out;
    assert!(out.contains("features    784: 28 x 28\n"), "{out}");
    let out = skep(&["data", "inspect", path(&labels)]).out;
    assert!(out.contains("labels      10 classes: 0 980, 1 1135"), "{out}");

    let directory = tempfile::tempdir().unwrap();
    let data = "kind = \"idx\"
train = { images = \"t10k-images-idx3-ubyte.gz\", labels = \"t10k-labels-idx1-ubyte.gz\" }
hold_out_every = 5
features = 784
classes = 10
";
    let csv = "kind = \"csv\"\ntrain = \"flowers.csv\"\nhold_out_every = 5\nlabel = \"kind\"\nclient = \"garden\"\n\
               features = 2\nclasses = [\"iris\", \"rose\"]\n";
    let file = flowers::experiment(
        directory.path(),
        &[
            (csv, data),
            ("clients = 3", "clients = 50"),
            ("kind = \"column\"", "kind = \"shards\", per_client = 2"),
            ("batch_size = \"full\"", "batch_size = 20"),
            ("learning_rate = 0.5", "learning_rate = 0.05"),
        ],
    );
    let learned = summary(&file, &["--data-dir", path(&mnist)]);
    assert!(learned["accuracy"].as_f64().unwrap() > 0.5, "{learned}");
    let swapped = fs::read_to_string(&file).unwrap().replace("features = 784", "features = 783");
    fs::write(&file, swapped).unwrap();
    let Transcript { code, err, .. } = skep(&["check", path(&file), "--data-dir", path(&mnist)]);
    assert_eq!(code, 2, "{err}");
    assert!(one_line(&err).contains("has 784 features"), "{err}");
}

/// A folder for each of two classes, of pictures that every decoder knows.
fn pictures(into: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../learning/tests/images");
    for (class, names) in [
        ("grey", ["grey.png", "grey-alpha.png", "grey.jpg"]),
        ("colour", ["colour.png", "alpha.png", "colour.jpg"]),
    ] {
        fs::create_dir_all(into.join(class)).unwrap();
        for name in names {
            fs::copy(from.join(name), into.join(class).join(name)).unwrap();
        }
    }
}

#[test]
fn a_model_of_images_in_folders_is_trained_and_asked_about_images() {
    let directory = tempfile::tempdir().unwrap();
    pictures(&directory.path().join("pictures"));
    let experiment = r#"
name = "pictures"
seed = 1
[task]
data = { kind = "images", format = "folder", train = "pictures", test = "pictures", image = [8, 8, 3], classes = ["grey", "colour"] }
model = { kind = "layers", image = [8, 8, 3], layers = [{ conv2d = { channels = 4, kernel = 3, padding = 1 } }, "relu", "global-avg-pool"] }
training = { learning_rate = 0.5, local_epochs = 5, batch_size = "full", augment = { crop = 1, flip = true } }
[population]
clients = 2
partition = { kind = "iid" }
[rounds]
count = 20
sampling = { scheme = "all" }
min_updates = 1
deadline_s = 60
[strategy]
kind = "fedavg"
weighting = "uniform"
[privacy]
mode = "none"
"#;
    let file = directory.path().join("pictures.toml");
    fs::write(&file, experiment).unwrap();
    let out = directory.path().join("out");
    assert_eq!(summary(&file, &["--out", path(&out)])["accuracy"], 1.0);
    let model = out.join("model.safetensors");
    let asked = skep(&["predict", path(&model), "--input", path(&directory.path().join("pictures/colour"))]);
    assert_eq!(asked.out.matches("\"class\":\"colour\"").count(), 3, "{}{}", asked.out, asked.err);
    let text = skep(&["data", "inspect", path(&directory.path().join("pictures"))]).out;
    assert!(text.contains("classes     2: colour 3, grey 3"), "{text}");
    fs::write(directory.path().join("pictures/grey/x.png"), "no image").unwrap();
    let refused = skep(&["simulate", path(&file)]);
    assert_eq!(refused.code, 2);
    assert!(one_line(&refused.err).contains("grey/x.png: is no image in PNG or JPEG"), "{}", refused.err);
}
