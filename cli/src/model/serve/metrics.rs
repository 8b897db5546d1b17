//! What `/metrics` tells, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Counts since the start.
#[derive(Default)]
pub(super) struct Metrics {
    /// Answers by path and status. Paths are ours, so there are few.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    seconds: Histogram,
    rows: AtomicU64,
    batches: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

/// Upper bounds of the buckets of times, in seconds.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Default)]
struct Histogram {
    /// Those at most as large as the bound and larger than the one before; the last has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// Counts a connection for as long as it lives.
pub(super) struct Connected<'a>(&'a Metrics);

impl Metrics {
    /// A request was answered.
    pub(super) fn request(&self, path: &'static str, status: u16, took: Duration) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((path, status)).or_default() += 1;
        if path == super::PREDICT {
            self.seconds.add(took);
        }
    }

    /// The model answered so many rows together.
    pub(super) fn answered(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Relaxed);
        self.batches.fetch_add(1, Relaxed);
    }

    /// Somebody connected.
    pub(super) fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Relaxed);
        Connected(self)
    }

    /// A connection was refused, because there are as many as may be.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |line: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(line);
            text.push('\n');
        };
        line(format_args!("# HELP skep_model_requests_total Answers, by path and status."));
        line(format_args!("# TYPE skep_model_requests_total counter"));
        for ((path, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            line(format_args!("skep_model_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}"));
        }
        line(format_args!("# HELP skep_model_request_seconds From the head of a question to its answer."));
        line(format_args!("# TYPE skep_model_request_seconds histogram"));
        let mut below = 0;
        for (at, bucket) in self.seconds.buckets.iter().enumerate() {
            below += bucket.load(Relaxed);
            let bound = BOUNDS.get(at).map_or("+Inf".to_owned(), f64::to_string);
            line(format_args!("skep_model_request_seconds_bucket{{le=\"{bound}\"}} {below}"));
        }
        let sum = Duration::from_micros(self.seconds.sum_us.load(Relaxed)).as_secs_f64();
        line(format_args!("skep_model_request_seconds_sum {sum}"));
        line(format_args!("skep_model_request_seconds_count {below}"));
        for (name, kind, help, value) in [
            ("rows_total", "counter", "Examples answered.", &self.rows),
            ("batches_total", "counter", "Times that the model was asked.", &self.batches),
            ("connections", "gauge", "Connections that are open.", &self.connections),
            ("connections_refused_total", "counter", "Connections beyond the limit.", &self.refused),
        ] {
            line(format_args!("# HELP skep_model_{name} {help}"));
            line(format_args!("# TYPE skep_model_{name} {kind}"));
            line(format_args!("skep_model_{name} {}", value.load(Relaxed)));
        }
        text
    }
}

impl Histogram {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took.as_micros() as u64, Relaxed);
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_everything_below_their_bound() {
        let metrics = Metrics::default();
        for ms in [1, 3, 3, 20, 9000] {
            metrics.request(super::super::PREDICT, 200, Duration::from_millis(ms));
        }
        metrics.request("/health", 200, Duration::from_millis(1));
        metrics.answered(7);
        let _one = metrics.connected();
        drop(metrics.connected());
        let text = metrics.text();
        for line in [
            "skep_model_requests_total{path=\"/predict\",status=\"200\"} 5",
            "skep_model_requests_total{path=\"/health\",status=\"200\"} 1",
            "skep_model_request_seconds_bucket{le=\"0.001\"} 1",
            "skep_model_request_seconds_bucket{le=\"0.005\"} 3",
            "skep_model_request_seconds_bucket{le=\"5\"} 4",
            "skep_model_request_seconds_bucket{le=\"+Inf\"} 5",
            "skep_model_request_seconds_sum 9.027",
            "skep_model_request_seconds_count 5",
            "skep_model_rows_total 7",
            "skep_model_batches_total 1",
            "skep_model_connections 1",
        ] {
            assert!(text.lines().any(|has| has == line), "{line} is missing in\n{text}");
        }
    }
}
