//! `report.html` as a reader sees it: loaded in a browser, without an error, and with the numbers of `summary.json`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::running::Site;
use harness::{SMALL, browser, changed, path, skep};
use serde_json::Value;

/// Runs a small variant of the built-in experiment; its results.
fn run(directory: &Path, changes: &[(&str, &str)]) -> PathBuf {
    let file = changed(directory, &[&SMALL[..], changes].concat());
    let out = directory.join("out");
    let ran = skep(&["simulate", path(&file), "--out", path(&out)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    out
}

/// The value of an attribute that follows `from` in the text.
fn attribute<'a>(text: &'a str, name: &str) -> &'a str {
    let start =
        text.find(&format!(" {name}=\"")).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len() + 3;
    &text[start..][..text[start..].find('"').unwrap()]
}

/// Every `<data data-key value>` of a page: key, exact value, and what is read.
fn data(dom: &str) -> BTreeMap<String, (String, String)> {
    dom.split("<data")
        .skip(1)
        .map(|rest| {
            let (tag, rest) = rest.split_once('>').unwrap();
            let shown = rest.split_once("</data>").unwrap().0.to_owned();
            (attribute(tag, "data-key").to_owned(), (attribute(tag, "value").to_owned(), shown))
        })
        .collect()
}

#[test]
fn a_browser_shows_the_numbers_of_the_summary_without_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let out = run(directory.path(), &[]);
    let Some(page) = browser::load(&out.join("report.html")) else { return };
    assert_eq!(page.console, [""; 0]);
    let text = fs::read_to_string(out.join("summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&text).unwrap();
    let shown = data(&page.dom);
    for key in [
        "accuracy",
        "loss",
        "epsilon_release",
        "epsilon_server",
        "rounds_completed",
        "rounds_degraded",
        "rounds_aborted",
        "model_sha256",
        "test_ids_sha256",
        "sampling",
        "seconds_total",
        "seconds_per_round_median",
        "client_updates_per_second",
        "bytes_up",
        "bytes_down",
        "peak_rss_bytes",
        "processes",
    ] {
        // Digit by digit, as the file has it.
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("\"{key}\": "))).unwrap();
        assert_eq!(shown[key].0, line.trim_matches([',', '"']), "{key}");
    }
    // What is read is the exact value, rounded.
    let accuracy = format!("{:.1} %", 100.0 * summary["accuracy"].as_f64().unwrap());
    let epsilon = format!("{:.3}", summary["epsilon_release"].as_f64().unwrap());
    assert_eq!((&shown["accuracy"].1, &shown["epsilon_release"].1), (&accuracy, &epsilon));
    let epsilon = format!("{:.3}", summary["epsilon_server"].as_f64().unwrap());
    assert_eq!(shown["epsilon_server"].1, epsilon);
    // The curves end where the rounds do.
    let rounds = fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let last: Value = serde_json::from_str(rounds.lines().last().unwrap()).unwrap();
    let series = attribute(&page.dom, "data-series").replace("&quot;", "\"");
    let series: Value = serde_json::from_str(&series).unwrap();
    assert_eq!(series[0]["points"][2], serde_json::json!([3, last["accuracy"]]));
    // 359 examples are in the confusion matrix, 1,438 in the picture of the clients.
    let matrix = page.dom.split_once("class=\"confusion\"").unwrap().1.split_once("</table>").unwrap().0;
    let cells =
        matrix.split("<td").skip(1).map(|cell| cell.split_once('>').unwrap().1.split_once('<').unwrap().0);
    let counts: Vec<u64> = cells.map(|count| count.parse().unwrap()).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (100, 359));
    assert!(page.dom.contains("10 clients with"), "the clients are shown");
    assert!(!page.dom.contains("http://") && !page.dom.contains("https://"), "nothing is loaded");
}

#[test]
fn a_page_shows_a_partition_before_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("partition.html");
    let ran = skep(&["data", "partition", "--html", path(&html)]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let page = fs::read_to_string(&html).unwrap();
    assert!(page.contains("100 clients with") && page.contains("<b>Not private.</b>"), "{page}");
    // 1,438 examples are in the bars, each as high as there are clients of a size.
    assert!(page.contains("<dt>Examples</dt><dd>1,438</dd>"), "{page}");
    let Some(page) = browser::load(&html) else { return };
    assert_eq!(page.console, [""; 0]);
}

#[test]
fn a_report_says_on_which_examples_rounds_were_measured() {
    let directory = tempfile::tempdir().unwrap();
    let out = run(directory.path(), &[("[privacy]", "[evaluation]\nvalidation = 0.1\n\n[privacy]")]);
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let summary: Value = serde_json::from_str(&read("summary.json")).unwrap();
    let rounds: Vec<Value> =
        read("rounds.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        rounds.iter().all(|round| round["accuracy"].is_null() && round["validation"]["loss"].is_number())
    );
    assert_eq!(rounds[2]["validation"], summary["validation"]);
    let tested = summary["accuracy"].as_f64().unwrap() * 359.0;
    assert!((tested - tested.round()).abs() < 1e-6, "a part of 359 test examples: {summary}");
    let report = read("report.html");
    let shown = data(&report);
    for key in ["accuracy", "validation.accuracy"] {
        assert!(read("summary.json").contains(&format!("\"accuracy\": {},", shown[key].0)), "{key}");
    }
    assert!(report.contains("Rounds were measured on validation examples"), "{report}");
}

/// So the test above can fail.
#[test]
fn an_error_in_a_page_reaches_the_test() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    fs::write(&page, "<!doctype html><script>throw Error('broken')</script>").unwrap();
    let Some(page) = browser::load(&page) else { return };
    assert!(page.console.iter().any(|line| line.contains("broken")), "{:?}", page.console);
}

#[test]
fn a_report_without_privacy_promises_nothing_and_one_with_a_seed_warns() {
    let directory = tempfile::tempdir().unwrap();
    let file = changed(directory.path(), &SMALL);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.split_once("[privacy]").unwrap().0.to_owned() + "[privacy]\nmode = \"none\"\n")
        .unwrap();
    let out = directory.path().join("out");
    assert_eq!(skep(&["simulate", path(&file), "--seed", "1", "--out", path(&out)]).code, 0);
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert_eq!(data(&report)["epsilon_release"], ("null".to_owned(), "∞".to_owned()));
    assert!(report.contains("Not private."), "a seeded run hides nothing");
    assert!(report.contains("privacy is off"), "{report}");
}

/// Serves a federation of two clients in which each round invites at random, with privacy.
#[test]
fn a_server_shows_nothing_of_its_clients_and_tells_names_to_its_operator_alone() {
    let site = Site::new(&[
        ("clients = 100", "clients = 2"),
        ("count = 60", "count = 6"),
        ("min_updates = 50", "min_updates = 1"),
        ("deadline_s = 60.0", "deadline_s = 30.0"),
        ("scheme = \"all\"", "scheme = \"poisson\"\nrate = 0.9"),
        ("epsilon_limit = 8.0", "epsilon_limit = 100.0"),
    ]);
    let server = site.serve(&["--log", "info"]);
    let clients: Vec<_> = (0..2).map(|number| site.join(number, 2, &[])).collect();
    let said = server.end();
    assert_eq!(said.code, 0, "{}", said.err);
    clients.into_iter().for_each(|client| assert_eq!(client.end().code, 0));

    let report = fs::read_to_string(site.path("out/report.html")).unwrap();
    for secret in ["Who has what", "Examples by client", "invited", "bytes_up", "client_updates_per_second"] {
        let shown = report.split("<script>").next().unwrap();
        assert!(
            !shown.contains(&format!(">{secret}")) && !shown.contains(&format!("\"{secret}")),
            "{secret}"
        );
    }
    assert!(report.contains("Not shown: with this sampling"), "{report}");
    assert!(data(&report).contains_key("accuracy"), "what is measured on the server's data is shown");
    // Every cohort is in the operator's log, and no client is named in what others may see.
    let log = fs::read_to_string(site.path("state/operator.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6, "{log}");
    let committed = log.lines().flat_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["committed"].as_array().unwrap().clone()
    });
    assert!(committed.count() >= 6, "{log}");
    let rounds = fs::read_to_string(site.path("out/rounds.jsonl")).unwrap();
    for public in [&report, &rounds] {
        assert!(!public.contains("client-"), "{public}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(site.path("state/operator.jsonl")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    if let Some(page) = browser::load(&site.path("out/report.html")) {
        assert_eq!(page.console, [""; 0]);
    }
}
