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
