//! Transcripts of `skep data scrub`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::{path, skep};

const RECORDS: &str = "\
text,label,name
\"Write to ann@example.org, soon\",1,Ann
\"Write to ann@example.org, soon\",1,Ann
\"Card 4111 1111 1111 1111, patient P-204511\",0,Bob
 ,0,Eve
too,few
";

#[test]
fn a_table_is_scrubbed_and_nothing_of_it_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let (input, out) = (directory.path().join("in.csv"), directory.path().join("out.csv"));
    fs::write(&input, RECORDS).unwrap();
    let arguments =
        ["data", "scrub", path(&input), "--out", path(&out), "--columns", "text", "--drop", "name"];
    let scrub = skep(&[&arguments[..], &["--pattern", "PATIENT=P-[0-9]{6}"]].concat());
    assert_eq!(scrub.code, 0, "{}", scrub.err);
    assert_eq!(
        scrub.out,
        format!(
            "5 records read, 2 written to {}\nleft out: 1 duplicates, 1 empty, 1 malformed (lines 6)\nreplaced: 1 CARD, 1 EMAIL, 1 PATIENT\n",
            out.display()
        )
    );
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        "text,label\n\"Write to [EMAIL], soon\",1\n\"Card [CARD], patient [PATIENT]\",0\n"
    );
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    for secret in ["ann@", "4111", "204511", "Ann"] {
        assert!(!scrub.out.contains(secret) && !scrub.err.contains(secret), "{secret} is printed");
    }
    // What is there is not overwritten.
    let again = skep(&arguments);
    assert_eq!((again.code, again.err.contains("is there already")), (2, true), "{}", again.err);
}

#[test]
fn wrong_wishes_are_named_and_leave_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let (input, out) = (directory.path().join("in.csv"), directory.path().join("out.csv"));
    fs::write(&input, RECORDS).unwrap();
    let refused: [(&[&str], &str); 6] = [
        (&["--columns", "body"], "no column `body`; there are: text, label, name"),
        (&["--pattern", "PATIENT"], "this is not NAME=REGEX"),
        (&["--pattern", "P=("], "the pattern P is no regular expression"),
        (&["--keep", "names"], "`names` is no kind of personal data"),
        (&["--format", "xml"], "`xml` is no format of records"),
        (&["--format", "text", "--columns", "text"], "a text has no columns"),
    ];
    for (wish, reason) in refused {
        let scrub = skep(&[&["data", "scrub", path(&input), "--out", path(&out)], wish].concat());
        let words = scrub.err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(scrub.code == 2 && words.contains(reason), "{wish:?}: {}", scrub.err);
    }
    let unnamed = directory.path().join("records");
    fs::write(&unnamed, RECORDS).unwrap();
    let scrub = skep(&["data", "scrub", path(&unnamed), "--out", path(&out)]);
    assert!(scrub.code == 2 && scrub.err.contains("does not say what it is"), "{}", scrub.err);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "the inputs only");
}
