//! Transcripts of sealed data.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{path, skep};

const TABLE: &str = "size,label\n1.5,iris\n-1.5,rose\n";

#[test]
fn sealed_data_are_read_with_their_key_and_with_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (plain, sealed, key) = (at("in.csv"), at("in.csv.sealed"), at("key"));
    fs::write(&plain, TABLE).unwrap();

    let seal = skep(&["data", "seal", path(&plain), "--out", path(&sealed), "--new-key", path(&key)]);
    assert_eq!(seal.code, 0, "{}", seal.err);
    assert!(seal.out.contains("remove the original yourself"), "{}", seal.out);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&sealed).unwrap();
    assert!(bytes.starts_with(b"SKEPSEAL") && !bytes.windows(4).any(|window| window == b"iris"));
    fs::remove_file(&plain).unwrap();

    let inspect = skep(&["data", "inspect", path(&sealed), "--data-key", path(&key)]);
    assert!(inspect.code == 0 && inspect.out.contains("iris"), "{}{}", inspect.out, inspect.err);
    let locked = skep(&["data", "inspect", path(&sealed)]);
    assert!(locked.code == 2 && locked.err.contains("this file is sealed"), "{}", locked.err);

    let again = at("again.csv");
    let unseal = skep(&["data", "unseal", path(&sealed), "--out", path(&again), "--data-key", path(&key)]);
    assert_eq!((unseal.code, fs::read_to_string(&again).unwrap().as_str()), (0, TABLE), "{}", unseal.err);

    // A key that others can read is no secret.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let open = skep(&["data", "inspect", path(&sealed), "--data-key", path(&key)]);
    assert!(open.code == 2 && open.err.contains("chmod 600"), "{}", open.err);
}

/// The files in a directory, by name.
fn kept(directory: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_client_with_a_key_leaves_nothing_open_on_the_disk() {
    let changes = [
        ("clients = 100", "clients = 2"),
        ("count = 60", "count = 3"),
        ("min_updates = 50", "min_updates = 2"),
    ];
    let site = harness::running::Site::new(&changes);
    let server = site.serve(&[]);
    let (rows, key, data) = (site.path("rows.csv"), site.path("data.key"), site.path("rows.sealed"));
    // Rows of the digits' shape whose text would be found again.
    let header: Vec<String> = (0..64).map(|column| format!("p{column}")).collect();
    let row = |label: usize| format!("{}{label}\n", "0.31415926,".repeat(64));
    fs::write(&rows, format!("{},label\n{}", header.join(","), (0..10).map(row).collect::<String>()))
        .unwrap();
    let seal = skep(&["data", "seal", path(&rows), "--out", path(&data), "--new-key", path(&key)]);
    assert_eq!(seal.code, 0, "{}", seal.err);
    fs::remove_file(&rows).unwrap();

    let (state, scratch) = (site.path("sealed-client"), site.path("scratch"));
    fs::create_dir(&scratch).unwrap();
    let invitation = site.invite(&[]).out.trim().to_owned();
    let policy = site.path("policy.toml");
    fs::write(&policy, "rounds = 100\n[privacy]\ntrust_server = true\n").unwrap();
    let own = ["--data", path(&data), "--classes", "10", "--state", path(&state), "--policy", path(&policy)];
    let join = |first: &[&str], last: &[&str]| {
        let mut command = harness::command(&[&["join"], first, &own[..], last].concat());
        command.env("TMPDIR", &scratch).output().unwrap()
    };
    let other = site.join(1, 2, &[]);
    let joined = harness::transcript(join(&[&invitation], &["--data-key", path(&key)]));
    assert_eq!(joined.code, 0, "{}", joined.err);
    assert!(joined.out.contains("took part in 3 rounds"), "{}", joined.out);
    assert_eq!((other.end().code, server.end().code), (0, 0));

    // Who it is, what it may, and what it gave away; nothing else is kept, and nothing of it can be read.
    assert_eq!(kept(&scratch).len(), 0);
    let files = kept(&state);
    assert!(files.contains_key("store.key") && files.contains_key("usage.json"), "{:?}", files.keys());
    for (name, contents) in &files {
        let is_list = name.starts_with("participations-") && !name.ends_with(".head");
        let sealed = contents.windows(8).filter(|window| *window == b"SKEPSEAL").count();
        match is_list {
            true => assert_eq!(sealed, 3, "each entry of {name}"),
            false => assert!(contents.is_empty() || contents.starts_with(b"SKEPSEAL"), "{name}"),
        }
        for open in [&b"0.31415"[..], b"127.0.0.1", b"skep/", b"rounds", b"digits"] {
            assert!(!contents.windows(open.len()).any(|window| window == open), "{name} tells {open:?}");
        }
    }
    let audit = |more: &[&str]| {
        let ledger = site.path("state/ledger.skep");
        skep(&[&["audit", path(&ledger), "--store", path(&state)], more].concat())
    };
    assert_eq!(audit(&["--data-key", path(&key)]).code, 0);
    let locked = audit(&[]);
    assert!(locked.code == 64 && locked.err.contains("--data-key"), "{}{}", locked.out, locked.err);
    // Without its key the client does not even know who it is.
    let keyless = harness::transcript(join(&[], &[]));
    assert!(keyless.code != 0 && keyless.err.contains("sealed"), "{}", keyless.err);
}

#[test]
fn a_changed_file_and_another_passphrase_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let secret = |name: &str, text: &str| {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
        at(name)
    };
    let (right, wrong, short) = (
        secret("right", "a long passphrase\n"),
        secret("wrong", "another passphrase\n"),
        secret("short", "short\n"),
    );
    fs::write(at("in.csv"), TABLE).unwrap();
    let (plain, sealed, out) = (at("in.csv"), at("sealed"), at("out"));

    let none = skep(&["data", "seal", path(&plain), "--out", path(&sealed)]);
    assert!(none.code == 2 && none.err.contains("no secret is named"), "{}", none.err);
    let weak =
        skep(&["data", "seal", path(&plain), "--out", path(&sealed), "--data-passphrase", path(&short)]);
    assert!(weak.code == 2 && weak.err.contains("at least 12 characters"), "{}", weak.err);
    let seal =
        skep(&["data", "seal", path(&plain), "--out", path(&sealed), "--data-passphrase", path(&right)]);
    assert_eq!(seal.code, 0, "{}", seal.err);

    let unseal = |passphrase| {
        skep(&["data", "unseal", path(&sealed), "--out", path(&out), "--data-passphrase", path(passphrase)])
    };
    let other = unseal(&wrong);
    assert!(other.code == 1 && other.err.contains("another secret"), "{}", other.err);
    let mut bytes = fs::read(&sealed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&sealed, bytes).unwrap();
    assert_eq!(unseal(&right).code, 1);
    assert!(!out.exists());
    let again =
        skep(&["data", "seal", path(&plain), "--out", path(&sealed), "--data-passphrase", path(&right)]);
    assert!(again.code == 2 && again.err.contains("is there already"), "{}", again.err);
}

#[test]
fn the_identity_that_a_client_asks_to_be_certified_is_sealed_too() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("in.csv"), TABLE).unwrap();
    let seal = skep(&[
        "data",
        "seal",
        path(&at("in.csv")),
        "--out",
        path(&at("out")),
        "--new-key",
        path(&at("key")),
    ]);
    assert_eq!(seal.code, 0, "{}", seal.err);
    let (state, key) = (at("state"), at("key"));
    let request = |more: &[&str]| skep(&[&["ca", "request", "--state", path(&state)], more].concat());
    let first = request(&["--data-key", path(&key)]);
    assert_eq!(first.code, 0, "{}", first.err);
    for (name, contents) in kept(&state) {
        assert!(contents.starts_with(b"SKEPSEAL"), "{name}");
    }
    // It is the same from now on, and nobody's without the key.
    assert_eq!(request(&["--data-key", path(&key)]).out, first.out);
    let locked = request(&[]);
    assert!(locked.code != 0 && locked.err.contains("--data-key"), "{}{}", locked.out, locked.err);
    // Nor with one whose half in the directory is lost, which is not made anew.
    fs::remove_file(state.join("store.key")).unwrap();
    let lost = request(&["--data-key", path(&key)]);
    assert!(lost.code != 0 && lost.err.contains("store.key is missing"), "{}{}", lost.out, lost.err);
    assert!(!state.join("store.key").exists());
}
