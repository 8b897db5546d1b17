//! `skep model serve`: a model behind HTTP.
//!
//! ```text
//! connection ── head, body ──▶ numbers ──▶ queue ──▶ model ──▶ answer        one question at a time for each connection
//!               in time, not too long      batches, one thread each
//! ```
//!
//! Nobody is believed: every request has a limit in bytes, rows and time, every connection a longest life, and there are only
//! so many. Nothing is encrypted and nobody is asked who they are: it listens on this machine alone unless it is told
//! otherwise, and says so then.

mod batch;
mod metrics;
mod openapi;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use skep_learning::{Interface, Prediction, Predictor};
use skep_protocol::Digest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use self::batch::Batcher;
use self::metrics::Metrics;
use super::load;
use crate::failure::Failure;
use crate::interrupt;
use crate::predict::Answer;

/// Arguments of `skep model serve`.
#[derive(Debug, Args)]
pub struct ServeModel {
    /// A model file.
    pub model: PathBuf,
    /// Where to listen, as an IP address and a port.
    ///
    /// Anybody who reaches it can ask: there is neither encryption nor a password. For more than this machine put a proxy with TLS
    /// in front of it.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
    /// The most examples in a request.
    #[arg(long, value_name = "N", default_value = "1024")]
    pub max_rows: NonZeroUsize,
    /// The most bytes in the body of a request.
    #[arg(long, value_name = "N", default_value = "4194304")]
    pub max_bytes: NonZeroUsize,
    /// The most connections at once; more are answered with status 503.
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: u32,
    /// How long a request may take, from its first byte to its answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout_s: u64,
    /// Threads that compute; all of the machine's if not given.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

/// What a client can ask of this machine.
pub(super) struct Limits {
    /// Examples in a request.
    rows: usize,
    /// Bytes in its body.
    bytes: usize,
    /// Connections at once.
    connections: usize,
    /// Of a request.
    time: Duration,
}

/// What all connections share.
struct Service {
    interface: Interface,
    inputs: usize,
    health: Value,
    description: Value,
    limits: Limits,
    batcher: Batcher,
    metrics: Arc<Metrics>,
}

const PREDICT: &str = "/predict";

/// Runs `skep model serve` until the process is asked to end; what was asked before is answered.
///
/// # Errors
/// [`Failure::Usage`] when the model cannot be used, [`Failure::Other`] when the system does not let us listen.
pub(super) fn run(arguments: &ServeModel) -> Result<(), Failure> {
    let service = Arc::new(Service::new(arguments)?);
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::other)?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await;
        let listener = listener
            .map_err(|error| Failure::other(format!("--listen {}: {error}", arguments.listen)))?;
        let address = listener.local_addr().map_err(Failure::other)?;
        if !address.ip().is_loopback() {
            eprintln!(
                "warning: everybody who reaches {address} can ask this model, unencrypted and without a password"
            );
        }
        println!("listening on http://{address}");
        serve(listener, &service).await;
        Ok(())
    })
}

impl Service {
    fn new(arguments: &ServeModel) -> Result<Self, Failure> {
        let limits = Limits {
            rows: arguments.max_rows.get(),
            bytes: arguments.max_bytes.get(),
            connections: arguments.max_connections as usize,
            time: Duration::from_secs(arguments.timeout_s),
        };
        let model = load(&arguments.model)?;
        let task = model.metadata().get("task").cloned().unwrap_or_default();
        let digest = Digest::of_model(model.released()).to_string();
        let predictor = Predictor::new(model).map_err(Failure::configuration)?;
        let (interface, inputs) = (predictor.interface().clone(), predictor.inputs());
        let machine = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = arguments.threads.unwrap_or_else(machine).get();
        let metrics = Arc::new(Metrics::default());
        Ok(Service {
            description: openapi::description(&task, &interface, inputs, &limits),
            health: json!({ "status": "ok", "task": task, "model_sha256": digest }),
            batcher: Batcher::start(&predictor, threads, &metrics).map_err(Failure::other)?,
            interface,
            inputs,
            limits,
            metrics,
        })
    }
}

/// Serves connections until the process is asked to end, then those that are there.
async fn serve(listener: TcpListener, service: &Arc<Service>) {
    let places = Arc::new(Semaphore::new(service.limits.connections));
    let (stop, stopped) = watch::channel(());
    let mut ended = std::pin::pin!(interrupt::signal());
    loop {
        tokio::select! {
            _ = &mut ended => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let (service, stopped) = (service.clone(), stopped.clone());
                        tokio::spawn(async move {
                            connection(stream, service, stopped).await;
                            drop(place);
                        });
                    }
                    Err(_) => {
                        service.metrics.refused();
                        refuse(&stream).await;
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Without descriptors the next one fails at once, too.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    eprintln!("ending: answering what was asked; once more to end at once");
    drop(listener);
    drop(stop);
    let everybody = places.acquire_many(service.limits.connections as u32);
    tokio::select! {
        _ = everybody => {}
        _ = interrupt::signal() => {}
    }
}

/// Tells somebody who is one too many, as far as that goes without waiting.
async fn refuse(stream: &TcpStream) {
    let _ = stream.try_write(
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n\
          Content-Length: 33\r\n\r\n{\"error\":\"too many connections\"}\n",
    );
}

/// Serves one connection, which lives so long at most, and closes when the process ends.
async fn connection(stream: TcpStream, service: Arc<Service>, mut stopped: watch::Receiver<()>) {
    let metrics = service.metrics.clone();
    let _connected = metrics.connected();
    let limit = service.limits.time;
    // Answers are written at once, so nothing is gained by waiting for more to send.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(respond(&service, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = stopped.changed() => {}
        () = tokio::time::sleep(LONGEST_CONNECTION) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that does not read its answer is not waited for.
    let _ = timeout(limit, connection).await;
}

/// The most bytes of a request's head, and of what is buffered of its body.
const MAX_HEAD: usize = 1 << 16;

/// After that a client connects again: nobody holds a place for good.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);

async fn respond(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (path, response) = match (path.as_str(), &method) {
        (PREDICT, &Method::POST) => (PREDICT, predict(service, request).await),
        ("/health", &Method::GET) => ("/health", Ok(json_of(&service.health))),
        ("/openapi.json", &Method::GET) => ("/openapi.json", Ok(json_of(&service.description))),
        ("/metrics", &Method::GET) => ("/metrics", Ok((service.metrics.text().into(), PROMETHEUS))),
        (PREDICT, _) => (PREDICT, Err(Refusal::Method("POST"))),
        ("/health", _) => ("/health", Err(Refusal::Method("GET"))),
        ("/openapi.json", _) => ("/openapi.json", Err(Refusal::Method("GET"))),
        ("/metrics", _) => ("/metrics", Err(Refusal::Method("GET"))),
        _ => ("other", Err(Refusal::Path)),
    };
    let response = match response {
        Ok((body, kind)) => {
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
        Err(refusal) => refusal.response(),
    };
    service.metrics.request(path, response.status().as_u16(), started.elapsed());
    response
}

const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4";

fn json_of(value: &impl serde::Serialize) -> (Bytes, &'static str) {
    (serde_json::to_vec(value).expect("names and numbers always have a JSON form").into(), JSON)
}

/// Why a request has no answer.
enum Refusal {
    /// Nothing is there.
    Path,
    /// Another method is needed.
    Method(&'static str),
    /// The content is something else.
    Kind,
    /// Not a question.
    Form(String),
    /// Too many of something.
    Size(String),
    /// No examples of this model.
    Example(String),
    /// It did not arrive in time.
    Late,
    /// It was not answered in time.
    Busy,
    /// Our fault.
    Broken,
}

impl Refusal {
    fn response(self) -> Response<Full<Bytes>> {
        let (status, why) = match &self {
            Refusal::Path => {
                (StatusCode::NOT_FOUND, "there are /predict, /health, /metrics and /openapi.json".to_owned())
            }
            Refusal::Method(needed) => {
                (StatusCode::METHOD_NOT_ALLOWED, format!("the method must be {needed}"))
            }
            Refusal::Kind => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json".to_owned())
            }
            Refusal::Form(why) => (StatusCode::BAD_REQUEST, why.clone()),
            Refusal::Size(why) => (StatusCode::PAYLOAD_TOO_LARGE, why.clone()),
            Refusal::Example(why) => (StatusCode::UNPROCESSABLE_ENTITY, why.clone()),
            Refusal::Late => (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time".to_owned()),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "too busy: try again".to_owned()),
            Refusal::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "the model has stopped".to_owned()),
        };
        let mut response = Response::new(Full::new(json_of(&json!({ "error": why })).0));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        match self {
            Refusal::Method(needed) => drop(headers.insert(ALLOW, HeaderValue::from_static(needed))),
            Refusal::Busy => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => {}
        }
        response
    }
}

async fn predict(service: &Service, request: Request<Incoming>) -> Result<(Bytes, &'static str), Refusal> {
    // What a page in a browser may send anywhere without asking first is never JSON.
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON)) {
        return Err(Refusal::Kind);
    }
    let until = tokio::time::Instant::now() + service.limits.time;
    let body = tokio::time::timeout_at(until, body(service, request.into_body())).await;
    let body = body.map_err(|_| Refusal::Late)??;
    let (numbers, rows) = numbers(service, &body)?;
    drop(body);
    let answered = tokio::time::timeout_at(until, service.batcher.ask(numbers, rows)).await;
    let predictions = answered
        .map_err(|_| Refusal::Busy)?
        .map_err(|_| Refusal::Broken)?
        .map_err(|error| Refusal::Example(format!("instances: {error}")))?;
    Ok(answer(service, &predictions))
}

async fn body(service: &Service, body: Incoming) -> Result<Bytes, Refusal> {
    let limit = service.limits.bytes;
    let too_long = || Refusal::Size(format!("the body is longer than {limit} bytes"));
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(error) => Err(Refusal::Form(format!("the body cannot be read: {error}"))),
    }
}

/// The numbers of all examples, and how many examples they are. Does not wait in between, so that at most as many bodies are
/// taken apart at once as the machine has threads.
fn numbers(service: &Service, body: &[u8]) -> Result<(Vec<f32>, usize), Refusal> {
    let form =
        |why: String| Refusal::Form(format!("the body must be {{\"instances\": [...]}} as JSON: {why}"));
    let mut members: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| form(error.to_string()))?;
    let instances = match members.remove("instances") {
        Some(Value::Array(instances)) => instances,
        Some(_) => return Err(form("`instances` is not a list".to_owned())),
        None => return Err(form("there is no `instances`".to_owned())),
    };
    if let Some(other) = members.keys().next() {
        return Err(form(format!("there is `{}` beside `instances`", other.escape_debug())));
    }
    let (rows, limit) = (instances.len(), service.limits.rows);
    if rows == 0 {
        return Err(Refusal::Form("there are no instances".to_owned()));
    }
    if rows > limit {
        return Err(Refusal::Size(format!("{rows} instances, more than the limit of {limit}")));
    }
    let mut numbers = Vec::with_capacity(rows * service.inputs);
    for (at, instance) in instances.iter().enumerate() {
        let example = service.interface.example(service.inputs, instance);
        numbers.extend(example.map_err(|error| Refusal::Example(format!("instances[{at}]: {error}")))?);
    }
    Ok((numbers, rows))
}

fn answer(service: &Service, predictions: &[Prediction]) -> (Bytes, &'static str) {
    let interface = &service.interface;
    let predictions: Vec<_> = predictions.iter().map(|prediction| Answer { interface, prediction }).collect();
    let mut body = b"{\"predictions\":".to_vec();
    body.extend_from_slice(&json_of(&predictions).0);
    body.push(b'}');
    (body.into(), JSON)
}
