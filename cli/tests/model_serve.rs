//! `skep model serve` on loopback: what is served is what `skep predict` says, and nothing hostile gets further than an answer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::{command, path, skep};
use serde_json::{Value, json};
use skep_learning::{Activation, Architecture, Input, Interface, ModelFile};

/// A model of two named numbers.
fn model(directory: &Path) -> PathBuf {
    let architecture =
        Architecture::Mlp { inputs: 2, hidden: vec![9], classes: 3, activation: Activation::Tanh };
    let parameters =
        (0..architecture.parameter_count()).map(|at| ((at * 37 % 23) as f32 - 11.0) / 7.0).collect();
    let interface = Interface {
        input: Input::Numbers { columns: Some(vec!["age".into(), "heat".into()]), divisor: 3.0 },
        standardization: None,
        classes: vec!["well".into(), "ill".into(), "dead, or \"gone\"".into()],
        target: None,
    };
    let model = ModelFile::new(architecture, parameters, [("task".to_owned(), "ward".to_owned())].into());
    let path = directory.join("model.safetensors");
    model.unwrap().with_interface(interface).unwrap().save(&path).unwrap();
    path
}

/// A running service; killed at the end of the test.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(model: &Path, arguments: &[&str]) -> Self {
        let all = [&["model", "serve", path(model), "--listen", "127.0.0.1:0"], arguments].concat();
        let mut child = command(&all).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect(&line).parse().unwrap();
        Running { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes, and reads all that comes until the connection is closed.
    fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // Whoever is refused early is not read to the end.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn ask(&self, method: &str, target: &str, kind: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let answer = self.send(
            format!(
                "{method} {target} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        parsed(&answer)
    }

    fn predict(&self, body: &str) -> (u16, String) {
        self.ask("POST", "/predict", "application/json", body)
    }

    fn is_well(&self) -> bool {
        self.ask("GET", "/health", "", "").0 == 200
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parsed(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

#[test]
fn what_is_served_is_what_predict_says_to_the_bit() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let rows: Vec<Value> = (0..200)
        .map(|at| {
            let (age, heat) = (f64::from(at * 31 % 97) / 7.0 - 6.0, f64::from(at * 17 % 89) / 11.0 - 4.0);
            if at % 2 == 0 { json!([age, heat]) } else { json!({ "heat": heat, "age": age }) }
        })
        .collect();
    let asked = directory.path().join("asked.jsonl");
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(&asked, text).unwrap();
    let predicted = skep(&["predict", path(&model), "--input", path(&asked)]);
    assert_eq!(predicted.code, 0, "{}", predicted.err);
    let expected: Vec<&str> = predicted.out.lines().collect();
    assert_eq!(expected.len(), 200);

    let service = Running::start(&model, &["--threads", "2"]);
    let whole = json!({ "instances": rows }).to_string();
    let (status, body) = service.predict(&whole);
    assert_eq!((status, body), (200, format!("{{\"predictions\":[{}]}}", expected.join(","))));

    // Many at once, so that their rows are answered together with those of others.
    std::thread::scope(|scope| {
        for (rows, expected) in rows.chunks(25).zip(expected.chunks(25)) {
            let service = &service;
            scope.spawn(move || {
                for (row, expected) in rows.iter().zip(expected) {
                    let (status, body) = service.predict(&json!({ "instances": [row] }).to_string());
                    assert_eq!((status, body), (200, format!("{{\"predictions\":[{expected}]}}")));
                }
            });
        }
    });
    let (_, metrics) = service.ask("GET", "/metrics", "", "");
    assert!(metrics.contains("skep_model_rows_total 400\n"), "{metrics}");
    assert!(
        metrics.contains("skep_model_requests_total{path=\"/predict\",status=\"200\"} 201\n"),
        "{metrics}"
    );
}

#[test]
fn the_service_describes_itself() {
    let directory = tempfile::tempdir().unwrap();
    let service = Running::start(&model(directory.path()), &[]);
    let (status, health) = service.ask("GET", "/health", "", "");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["status"], &health["task"]), (200, &json!("ok"), &json!("ward")));
    let (status, description) = service.ask("GET", "/openapi.json", "", "");
    let description: Value = serde_json::from_str(&description).unwrap();
    assert_eq!((status, &description["openapi"]), (200, &json!("3.1.0")));
    let answer = &description["components"]["schemas"]["Answer"]["properties"]["predictions"]["items"];
    assert_eq!(answer["properties"]["class"]["enum"][1], "ill");
    assert!(description["paths"]["/predict"]["post"].is_object());
}

#[test]
fn what_is_no_question_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let service = Running::start(&model(directory.path()), &["--max-rows", "3", "--max-bytes", "2000"]);
    let refused = |body: &str| {
        let (status, body) = service.predict(body);
        let body: Value = serde_json::from_str(&body).unwrap();
        (status, body["error"].as_str().unwrap().to_owned())
    };
    let example = |problem: &str| (422, problem.to_owned());
    assert_eq!(
        refused(r#"{"instances": [[1, 2], {"age": 1}]}"#),
        example("instances[1]: column `heat` is missing")
    );
    assert_eq!(
        refused(r#"{"instances": [[1, "x"]]}"#),
        example("instances[0]: number 2: \"x\" is not a finite number")
    );
    assert_eq!(refused(r#"{"instances": [[1]]}"#), example("instances[0]: has 1 numbers, the model takes 2"));
    assert_eq!(refused(r#"{"instances": [[1, 1e39]]}"#).0, 422);
    assert_eq!(refused(r#"{"instances": []}"#), (400, "there are no instances".to_owned()));
    for (body, says) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[[1, 2]]", "expected a map"),
        (r#"{"instances": 7}"#, "not a list"),
        ("{}", "there is no `instances`"),
        (r#"{"instances": [[1, 2]], "model": "x"}"#, "there is `model` beside"),
        ("\u{0}\u{1}", "expected value"),
    ] {
        let (status, error) = refused(body);
        assert!(status == 400 && error.contains(says), "{body}: {status} {error}");
    }
    let deep = format!("{{\"instances\": {}{}}}", "[".repeat(900), "]".repeat(900));
    assert!(refused(&deep).1.contains("recursion limit"), "{:?}", refused(&deep));
    let (status, error) = refused(r#"{"instances": [[1, 2], [1, 2], [1, 2], [1, 2]]}"#);
    assert_eq!((status, error.as_str()), (413, "4 instances, more than the limit of 3"));
    let (status, error) = refused(&format!("{{\"instances\": [[1, 2]]}}{}", " ".repeat(2000)));
    assert_eq!((status, error.as_str()), (413, "the body is longer than 2000 bytes"));

    let statuses = [
        service.ask("GET", "/predict", "", "").0,
        service.ask("POST", "/health", "", "").0,
        service.ask("POST", "/", "application/json", "{}").0,
        service.ask("POST", "/predict", "text/plain", r#"{"instances": [[1, 2]]}"#).0,
        service.ask("POST", "/predict", "application/json; charset=utf-8", r#"{"instances": [[1, 2]]}"#).0,
    ];
    assert_eq!(statuses, [405, 405, 404, 415, 200]);
}

#[test]
fn whoever_does_not_speak_http_is_answered_or_cut_off_and_others_notice_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let service = Running::start(
        &model(directory.path()),
        &["--timeout-s", "1", "--max-connections", "8", "--max-bytes", "2000"],
    );
    let status = |bytes: &[u8]| parsed(&service.send(bytes)).0;
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n"), 400);
    assert_eq!(status(b"GET /health HTTP/9.9\r\n\r\n"), 400);
    assert_eq!(
        status(b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        400
    );
    let many: String = (0..500).map(|at| format!("X-{at}: a\r\n")).collect();
    assert_eq!(status(format!("GET /health HTTP/1.1\r\n{many}\r\n").as_bytes()), 431);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000));
    assert!([414, 431].contains(&status(long.as_bytes())), "{}", status(long.as_bytes()));
    let head = "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let endless = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}",
        "400\r\n".to_owned() + &"[".repeat(0x400) + "\r\n" + "400\r\n" + &"[".repeat(0x400) + "\r\n"
    );
    assert_eq!(status(endless.as_bytes()), 413);
    assert_eq!(status(format!("{head}Content-Length: 9999999999999\r\n\r\n").as_bytes()), 413);
    assert_eq!(status(format!("{head}Content-Length: -1\r\n\r\n").as_bytes()), 400);
    // A body that never comes, and a head that never ends.
    assert_eq!(status(format!("{head}Content-Length: 30\r\n\r\n{{").as_bytes()), 408);
    assert_eq!(service.send(b"GET /health HTTP/1.1\r\nHost:"), "");

    // All places are taken, by people who say nothing; one more is told, and they are cut off in the end.
    let silent: Vec<TcpStream> = (0..8).map(|_| service.connect()).collect();
    let crowded = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let (status, body) = parsed(&service.send(b""));
        (status == 503).then_some(body)
    });
    assert_eq!(crowded.as_deref(), Some("{\"error\":\"too many connections\"}\n"));
    for mut stream in silent {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.is_empty(), "{said}");
    }
    assert!(service.is_well());
}

#[cfg(unix)]
#[test]
fn who_has_asked_before_the_end_gets_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut service = Running::start(&model(directory.path()), &[]);
    let mut early = service.connect();
    let body = r#"{"instances": [[1, 2]]}"#;
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    early.write_all(head.as_bytes()).unwrap();
    early.write_all(&body.as_bytes()[..5]).unwrap();
    assert!(service.is_well());
    let id = service.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    // The process has heard it when it no longer listens.
    let closed = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        TcpStream::connect(service.address).is_err()
    });
    assert!(closed);
    early.write_all(&body.as_bytes()[5..]).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert_eq!(parsed(&answer).0, 200, "{answer}");
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}
