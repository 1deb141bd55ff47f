//! `/metrics`: what the server has done, in Prometheus's text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::App;
use crate::engine::Statistics;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Over less time than this a speed is noise.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// What is counted here; the engines count for themselves.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// By route and status.
    requests: BTreeMap<(String, String), u64>,
    first_token: Histogram,
    duration: Histogram,
    /// When a model's tokens were last counted, how many there were, and what speed came of it.
    speeds: BTreeMap<String, (Instant, u64, f64)>,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    all: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, value: f64) {
        let counts = self.counts.iter_mut().zip(BOUNDS);
        counts.filter(|(_, bound)| value <= *bound).for_each(|(count, _)| *count += 1);
        self.all += 1;
        self.sum += value;
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.family(name, "histogram", help);
        for (count, bound) in self.counts.iter().zip(BOUNDS) {
            page.sample(&format!("{name}_bucket"), &[("le", &bound.to_string())], *count as f64);
        }
        page.sample(&format!("{name}_bucket"), &[("le", "+Inf")], self.all as f64);
        page.sample(&format!("{name}_sum"), &[], self.sum);
        page.sample(&format!("{name}_count"), &[], self.all as f64);
    }
}

/// The text as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a String takes anything
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

type Reading = fn(&Statistics) -> f64;

/// What each engine tells.
const OF_ENGINES: [(&str, &str, &str, Reading); 12] = [
    ("sequences_running", "gauge", "Sequences being computed.", |s| s.running as f64),
    ("sequences_waiting", "gauge", "Sequences in the queue.", |s| s.waiting as f64),
    ("kv_bytes", "gauge", "Bytes of keys and values of running sequences.", |s| s.kv_bytes as f64),
    ("prompt_tokens_total", "counter", "Prompt tokens computed.", |s| s.prompt_tokens_computed as f64),
    ("prompt_tokens_cached_total", "counter", "Prompt tokens found in the prefix cache.", |s| {
        s.prompt_tokens_cached as f64
    }),
    ("generated_tokens_total", "counter", "Tokens written.", |s| s.generated_tokens as f64),
    ("steps_total", "counter", "Passes through the model.", |s| s.steps as f64),
    ("batch_size_sum_total", "counter", "Sequences of all passes; over steps, the mean batch size.", |s| {
        s.batch_sizes.iter().enumerate().map(|(size, steps)| size as f64 * *steps as f64).sum()
    }),
    ("prefix_cache_hits_total", "counter", "Requests with a prefix in the cache.", |s| {
        s.prefix_cache_hits as f64
    }),
    ("prefix_cache_misses_total", "counter", "Requests without.", |s| s.prefix_cache_misses as f64),
    ("prefix_cache_entries", "gauge", "Sequences in the prefix cache.", |s| s.prefix_cache_entries as f64),
    ("prefix_cache_bytes", "gauge", "Bytes of the prefix cache.", |s| s.prefix_cache_bytes as f64),
];

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has its first token.
    pub fn first_token(&self, after: Duration) {
        self.counts().first_token.add(after.as_secs_f64());
    }

    /// A request is over.
    pub fn request(&self, route: &str, status: Option<u16>, cancelled: bool, took: Duration) {
        let status = match status.filter(|_| !cancelled) {
            Some(status) => status.to_string(),
            None => "cancelled".into(),
        };
        let mut counts = self.counts();
        *counts.requests.entry((route.to_string(), status)).or_default() += 1;
        counts.duration.add(took.as_secs_f64());
    }

    /// All of it, with what the engines tell by their models' names.
    fn page(&self, engines: &[(&str, Statistics)]) -> String {
        let (mut page, mut counts) = (Page::default(), self.counts());
        page.family("hornbook_requests_total", "counter", "Requests that are over, by route and status.");
        for ((route, status), count) in &counts.requests {
            let labels = [("route", route.as_str()), ("status", status.as_str())];
            page.sample("hornbook_requests_total", &labels, *count as f64);
        }
        let help = "From a request's arrival to its first token.";
        counts.first_token.write(&mut page, "hornbook_time_to_first_token_seconds", help);
        let help = "From a request's arrival to its end.";
        counts.duration.write(&mut page, "hornbook_request_duration_seconds", help);
        for (name, kind, help, reading) in OF_ENGINES {
            let name = format!("hornbook_{name}");
            page.family(&name, kind, help);
            for (model, statistics) in engines {
                page.sample(&name, &[("model", model)], reading(statistics));
            }
        }
        let name = "hornbook_steps_by_batch_size_total";
        page.family(name, "counter", "Passes through the model, by the sequences in them.");
        for (model, statistics) in engines {
            for (size, steps) in statistics.batch_sizes.iter().enumerate().filter(|(_, steps)| **steps > 0) {
                page.sample(name, &[("model", model), ("size", &size.to_string())], *steps as f64);
            }
        }
        let name = "hornbook_tokens_per_second";
        page.family(name, "gauge", "Tokens written a second, since this page was last read.");
        for (model, statistics) in engines {
            let (now, written) = (Instant::now(), statistics.generated_tokens);
            let (at, before, speed) = counts.speeds.entry(model.to_string()).or_insert((now, written, 0.0));
            if now.duration_since(*at) >= SHORTEST_WINDOW {
                let new = written.saturating_sub(*before) as f64 / now.duration_since(*at).as_secs_f64();
                (*at, *before, *speed) = (now, written, new);
            }
            page.sample(name, &[("model", model)], *speed);
        }
        page.0
    }
}

/// The page.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus's text format")))]
pub async fn show(State(app): State<Arc<App>>) -> impl IntoResponse {
    let served = app.models.served().iter();
    let engines: Vec<_> = served.map(|served| (served.name.as_str(), served.engine.statistics())).collect();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.page(&engines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_prometheus_text() {
        let metrics = Metrics::default();
        metrics.first_token(Duration::from_millis(30));
        metrics.request("POST /completions", Some(200), false, Duration::from_secs(2));
        metrics.request("POST /completions", Some(200), true, Duration::from_secs(2));
        let statistics =
            Statistics { running: 3, steps: 5, batch_sizes: vec![0, 2, 3], ..Statistics::default() };
        let page = metrics.page(&[("my \"own\"", statistics)]);
        for line in [
            "hornbook_requests_total{route=\"POST /completions\",status=\"200\"} 1",
            "hornbook_requests_total{route=\"POST /completions\",status=\"cancelled\"} 1",
            "hornbook_time_to_first_token_seconds_bucket{le=\"0.025\"} 0",
            "hornbook_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
            "hornbook_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1",
            "hornbook_request_duration_seconds_count 2",
            "hornbook_sequences_running{model=\"my \\\"own\\\"\"} 3",
            "hornbook_batch_size_sum_total{model=\"my \\\"own\\\"\"} 8",
            "hornbook_steps_by_batch_size_total{model=\"my \\\"own\\\"\",size=\"2\"} 3",
            "# TYPE hornbook_tokens_per_second gauge",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
