//! How fast `skep model serve` answers, over loopback, by clients of this machine that keep their connections.
//!
//! `cargo bench -p skep-cli --bench inference`. The model is a perceptron 300-128-5. A latency is the time from the first byte
//! of a request to the last of its answer, as a client sees it; clients and service share the processor.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use skep_learning::{Activation, Architecture, ModelFile};

const INPUTS: usize = 300;
const REQUESTS: usize = 4000;

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let model = directory.path().join("model.safetensors");
    save(&model);
    let mut service = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["model", "serve", model.to_str().expect("a path of UTF-8"), "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut line = String::new();
    let stdout = service.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the service says where it listens");
    let address = line.trim().trim_start_matches("listening on http://").to_owned();
    println!(
        "{:>8} {:>5} {:>12} {:>12} {:>9} {:>9} {:>9}",
        "clients", "rows", "requests/s", "rows/s", "p50 ms", "p95 ms", "p99 ms"
    );
    for (clients, rows) in [(1, 1), (8, 1), (32, 1), (1, 64), (8, 64)] {
        let (mut latencies, took) = load(&address, clients, rows);
        latencies.sort_unstable();
        let percentile =
            |part: f64| latencies[(part * (latencies.len() - 1) as f64) as usize].as_secs_f64() * 1e3;
        let pace = latencies.len() as f64 / took.as_secs_f64();
        println!(
            "{clients:>8} {rows:>5} {pace:>12.0} {:>12.0} {:>9.3} {:>9.3} {:>9.3}",
            pace * rows as f64,
            percentile(0.5),
            percentile(0.95),
            percentile(0.99)
        );
    }
    service.kill().expect("the service is ours");
    service.wait().expect("the service ends");
}

fn save(path: &Path) {
    let architecture =
        Architecture::Mlp { inputs: INPUTS, hidden: vec![128], classes: 5, activation: Activation::Relu };
    let parameters = (0..architecture.parameter_count()).map(|at| (at % 97) as f32 / 970.0 - 0.05).collect();
    let model = ModelFile::new(architecture, parameters, Default::default()).expect("the model fits");
    model.save(path).expect("the model is written");
}

/// The latencies of all requests, and the time that they took together.
fn load(address: &str, clients: usize, rows: usize) -> (Vec<Duration>, Duration) {
    let row: Vec<String> = (0..INPUTS).map(|at| format!("{}", (at * 31 % 101) as f32 / 50.0)).collect();
    let instances = vec![format!("[{}]", row.join(",")); rows].join(",");
    let body = format!("{{\"instances\":[{instances}]}}");
    let request = format!(
        "POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let started = Instant::now();
    let latencies = thread::scope(|scope| {
        let asking: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| ask(address, request.as_bytes(), REQUESTS / clients / rows.div_ceil(8))))
            .collect();
        asking.into_iter().flat_map(|client| client.join().expect("a client of the bench")).collect()
    });
    (latencies, started.elapsed())
}

fn ask(address: &str, request: &[u8], times: usize) -> Vec<Duration> {
    let stream = TcpStream::connect(address).expect("the service listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut writer = stream;
    (0..times)
        .map(|_| {
            let started = Instant::now();
            writer.write_all(request).expect("the service reads");
            answer(&mut reader);
            started.elapsed()
        })
        .collect()
}

/// Reads an answer, which must be a good one.
fn answer(reader: &mut BufReader<TcpStream>) {
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).expect("the service answers");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line).expect("the service answers");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the service answers");
}
