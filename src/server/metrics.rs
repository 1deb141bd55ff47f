//! `/metrics`: counters, gauges and histograms in the Prometheus text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use super::AppState;
use super::collections::Collections;
use super::fine_tuning::{Jobs, Status};
use crate::engine::Statistics;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Upper bounds of the histogram buckets, in seconds.
const BUCKET_BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Minimum time between two samples of the tokens per second; over less it is noise.
const MIN_RATE_WINDOW: Duration = Duration::from_secs(1);

/// Request metrics; the engines keep their own statistics.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Finished requests by route and status.
    requests: BTreeMap<(String, String), u64>,
    first_token: Histogram,
    duration: Histogram,
    /// By model: time and token count of the last sample, and the tokens per second then.
    rates: BTreeMap<String, (Instant, u64, f64)>,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKET_BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        let buckets = self.buckets.iter_mut().zip(BUCKET_BOUNDS);
        buckets.filter(|(_, bound)| value <= *bound).for_each(|(count, _)| *count += 1);
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, exposition: &mut Exposition, name: &str, help: &str) {
        exposition.family(name, "histogram", help);
        for (count, bound) in self.buckets.iter().zip(BUCKET_BOUNDS) {
            exposition.sample(&format!("{name}_bucket"), &[("le", &bound.to_string())], *count as f64);
        }
        exposition.sample(&format!("{name}_bucket"), &[("le", "+Inf")], self.count as f64);
        exposition.sample(&format!("{name}_sum"), &[], self.sum);
        exposition.sample(&format!("{name}_count"), &[], self.count as f64);
    }
}

/// The exposition text under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

impl Exposition {
    /// The adapters of each engine, as in the model server protocol of the Gateway API Inference Extension:
    /// lists in labels, and as the value the time, by which a reader finds the latest lists. All adapters are
    /// ready to run, so none waits.
    fn adapters(&mut self, engines: &[EngineState]) {
        let name = "hornbook_lora_requests_info";
        self.family(name, "gauge", "LoRA adapters that are ready to run; the value is the Unix time.");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for EngineState { model, statistics, adapters } in engines {
            // A batch may have another adapter in every slot.
            let (slots, adapters) = (statistics.batch_slots.to_string(), adapters.join(","));
            let labels = [
                ("model", *model),
                ("max_lora", slots.as_str()),
                ("running_lora_adapters", adapters.as_str()),
                ("waiting_lora_adapters", ""),
            ];
            self.sample(name, &labels, now.as_secs() as f64);
        }
    }

    /// Fine-tuning jobs by status, and the work of the one that runs.
    fn jobs(&mut self, jobs: &Jobs) {
        let name = "hornbook_fine_tuning_jobs";
        self.family(name, "gauge", "Number of fine-tuning jobs by status.");
        let all = jobs.collection.all();
        for status in Status::ALL {
            let count = all.iter().filter(|entry| entry.value.status == status).count();
            self.sample(name, &[("status", status.as_str())], count as f64);
        }
        for (name, help, value) in [
            ("hornbook_fine_tuning_steps_total", "Number of training steps.", jobs.progress.steps()),
            ("hornbook_fine_tuning_tokens_total", "Number of tokens trained on.", jobs.progress.tokens()),
        ] {
            self.family(name, "counter", help);
            self.sample(name, &[], value as f64);
        }
    }
}

/// An engine as it is when the metrics are rendered.
struct EngineState<'a> {
    model: &'a str,
    statistics: Statistics,
    /// The model's adapters, all of them in memory.
    adapters: Vec<&'a str>,
}

type StatisticsValue = fn(&Statistics) -> f64;

/// Metrics of each engine: name, type, help and value.
const ENGINE_METRICS: [(&str, &str, &str, StatisticsValue); 17] = [
    ("batch_slots", "gauge", "Maximum number of sequences in a batch.", |s| s.batch_slots as f64),
    ("sequences_running", "gauge", "Number of sequences in the running batch.", |s| s.running as f64),
    ("sequences_waiting", "gauge", "Number of sequences waiting in the queue.", |s| s.waiting as f64),
    ("kv_bytes", "gauge", "KV cache size of the running sequences in bytes.", |s| s.kv_bytes as f64),
    (
        "kv_cache_usage_ratio",
        "gauge",
        "Tokens in the KV caches of the running sequences, as a share of what all batch slots can hold.",
        |s| s.kv_tokens as f64 / s.max_kv_tokens.max(1) as f64,
    ),
    ("prompt_tokens_total", "counter", "Number of prompt tokens computed.", |s| {
        s.prompt_tokens_computed as f64
    }),
    ("prompt_tokens_cached_total", "counter", "Number of prompt tokens reused from the prefix cache.", |s| {
        s.prompt_tokens_cached as f64
    }),
    ("generated_tokens_total", "counter", "Number of generated tokens.", |s| s.generated_tokens as f64),
    ("steps_total", "counter", "Number of forward passes.", |s| s.steps as f64),
    (
        "batch_size_sum_total",
        "counter",
        "Sum of the batch sizes of all forward passes; divide by steps_total for the mean.",
        |s| s.batch_sizes.iter().enumerate().map(|(size, steps)| size as f64 * *steps as f64).sum(),
    ),
    ("spec_decode_drafts_total", "counter", "Number of drafts verified (speculative decoding).", |s| {
        s.drafts.drafts as f64
    }),
    ("spec_decode_draft_tokens_total", "counter", "Number of draft tokens verified.", |s| {
        s.drafts.drafted_tokens as f64
    }),
    ("spec_decode_accepted_tokens_total", "counter", "Number of draft tokens accepted.", |s| {
        s.drafts.accepted_tokens as f64
    }),
    ("prefix_cache_hits_total", "counter", "Number of requests that reused a cached prefix.", |s| {
        s.prefix_cache_hits as f64
    }),
    ("prefix_cache_misses_total", "counter", "Number of requests without a cached prefix.", |s| {
        s.prefix_cache_misses as f64
    }),
    ("prefix_cache_entries", "gauge", "Number of entries in the prefix cache.", |s| {
        s.prefix_cache_entries as f64
    }),
    ("prefix_cache_bytes", "gauge", "Size of the prefix cache in bytes.", |s| s.prefix_cache_bytes as f64),
];

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the time to first token of a request.
    pub fn observe_first_token(&self, elapsed: Duration) {
        self.counts().first_token.observe(elapsed.as_secs_f64());
    }

    /// Records a finished or cancelled request.
    pub fn observe_request(&self, route: &str, status: Option<u16>, cancelled: bool, duration: Duration) {
        let status = match status.filter(|_| !cancelled) {
            Some(status) => status.to_string(),
            None => "cancelled".into(),
        };
        let mut counts = self.counts();
        *counts.requests.entry((route.to_string(), status)).or_default() += 1;
        counts.duration.observe(duration.as_secs_f64());
    }

    /// Renders all metrics, with the engines' statistics labeled by model name.
    fn render(
        &self,
        engines: &[EngineState],
        collections: Option<&Collections>,
        fine_tuning: Option<&Jobs>,
        is_limit_store_connected: Option<bool>,
    ) -> String {
        let (mut exposition, mut counts) = (Exposition::default(), self.counts());
        exposition.family(
            "hornbook_requests_total",
            "counter",
            "Number of finished requests by route and status.",
        );
        for ((route, status), count) in &counts.requests {
            let labels = [("route", route.as_str()), ("status", status.as_str())];
            exposition.sample("hornbook_requests_total", &labels, *count as f64);
        }
        let help = "Time from request arrival to the first token in seconds.";
        counts.first_token.write(&mut exposition, "hornbook_time_to_first_token_seconds", help);
        let help = "Time from request arrival to its end in seconds.";
        counts.duration.write(&mut exposition, "hornbook_request_duration_seconds", help);
        for (name, kind, help, value) in ENGINE_METRICS {
            let name = format!("hornbook_{name}");
            exposition.family(&name, kind, help);
            for EngineState { model, statistics, .. } in engines {
                exposition.sample(&name, &[("model", model)], value(statistics));
            }
        }
        exposition.adapters(engines);
        let name = "hornbook_steps_by_batch_size_total";
        exposition.family(name, "counter", "Number of forward passes by batch size.");
        for EngineState { model, statistics, .. } in engines {
            for (size, steps) in statistics.batch_sizes.iter().enumerate().filter(|(_, steps)| **steps > 0) {
                exposition.sample(name, &[("model", model), ("size", &size.to_string())], *steps as f64);
            }
        }
        let name = "hornbook_tokens_per_second";
        exposition.family(name, "gauge", "Generated tokens per second since the last scrape.");
        for EngineState { model, statistics, .. } in engines {
            let (now, generated) = (Instant::now(), statistics.generated_tokens);
            let (sampled_at, previous, rate) =
                counts.rates.entry(model.to_string()).or_insert((now, generated, 0.0));
            if now.duration_since(*sampled_at) >= MIN_RATE_WINDOW {
                let new_rate = generated.saturating_sub(*previous) as f64
                    / now.duration_since(*sampled_at).as_secs_f64();
                (*sampled_at, *previous, *rate) = (now, generated, new_rate);
            }
            exposition.sample(name, &[("model", model)], *rate);
        }
        if let Some(is_connected) = is_limit_store_connected {
            let name = "hornbook_limit_store_connected";
            exposition.family(
                name,
                "gauge",
                "Whether the Redis server that holds the limits can be reached.",
            );
            exposition.sample(name, &[], f64::from(is_connected));
        }
        if let Some(collections) = collections {
            let name = "hornbook_store_bytes";
            exposition.family(name, "gauge", "Size of everything in the store in bytes.");
            exposition.sample(name, &[], collections.store.used_bytes() as f64);
            let name = "hornbook_store_objects";
            exposition.family(name, "gauge", "Number of objects in the store by kind.");
            for (kind, count) in collections.counts() {
                exposition.sample(name, &[("kind", kind)], count as f64);
            }
            let name = "hornbook_batches";
            exposition.family(name, "gauge", "Number of batches by status.");
            for (status, count) in collections.batches.counts() {
                exposition.sample(name, &[("status", status.as_str())], count as f64);
            }
        }
        if let Some(jobs) = fine_tuning {
            exposition.jobs(jobs);
        }
        exposition.0
    }
}

/// Export metrics.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "server", responses(
    (status = 200, body = String, content_type = "text/plain",
        description = "Metrics in the Prometheus text format")))]
pub async fn export(State(app): State<Arc<AppState>>) -> impl IntoResponse {
    let models = app.models.current();
    let engines = models.base_models().map(|served| EngineState {
        model: &served.name,
        statistics: served.engine.statistics(),
        adapters: models.shared_adapters(served).collect(),
    });
    let engines: Vec<_> = engines.collect();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(
            &engines,
            app.collections.as_deref(),
            app.fine_tuning().ok().map(|jobs| &**jobs),
            app.rate_limiter.is_store_connected(),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_prometheus_text_format() {
        let metrics = Metrics::default();
        metrics.observe_first_token(Duration::from_millis(30));
        metrics.observe_request("POST /completions", Some(200), false, Duration::from_secs(2));
        metrics.observe_request("POST /completions", Some(200), true, Duration::from_secs(2));
        let statistics = Statistics {
            batch_slots: 2,
            running: 3,
            kv_tokens: 512,
            max_kv_tokens: 2048,
            steps: 5,
            batch_sizes: vec![0, 2, 3],
            ..Statistics::default()
        };
        let engine = EngineState { model: "my \"own\"", statistics, adapters: vec!["letters", "tales"] };
        let exposition = metrics.render(&[engine], None, None, Some(true));
        for line in [
            "hornbook_requests_total{route=\"POST /completions\",status=\"200\"} 1",
            "hornbook_limit_store_connected 1",
            "hornbook_requests_total{route=\"POST /completions\",status=\"cancelled\"} 1",
            "hornbook_time_to_first_token_seconds_bucket{le=\"0.025\"} 0",
            "hornbook_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
            "hornbook_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1",
            "hornbook_request_duration_seconds_count 2",
            "hornbook_sequences_running{model=\"my \\\"own\\\"\"} 3",
            "hornbook_kv_cache_usage_ratio{model=\"my \\\"own\\\"\"} 0.25",
            "hornbook_batch_size_sum_total{model=\"my \\\"own\\\"\"} 8",
            "hornbook_steps_by_batch_size_total{model=\"my \\\"own\\\"\",size=\"2\"} 3",
            "# TYPE hornbook_tokens_per_second gauge",
        ] {
            assert!(exposition.lines().any(|actual| actual == line), "{line}\n{exposition}");
        }
        let labels = "model=\"my \\\"own\\\"\",max_lora=\"2\",running_lora_adapters=\"letters,tales\",\
                      waiting_lora_adapters=\"\"";
        let line = format!("hornbook_lora_requests_info{{{labels}}} ");
        let value = exposition.lines().find_map(|actual| actual.strip_prefix(&line));
        let time: f64 = value.unwrap_or_else(|| panic!("{line}\n{exposition}")).parse().unwrap();
        assert!(time > 1.7e9, "{time}");
    }
}
