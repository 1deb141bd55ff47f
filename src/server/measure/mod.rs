//! `/measure`: where the time goes, for the page: what an engine does now, the operations of its latest
//! completion against the machine's limits (the roofline), and attention kernels compared.
//!
//! What costs time is measured when asked for, one measurement at a time, in pieces of a fraction of a second
//! between the steps of the engines.

pub mod attention;
pub mod limits;

use super::AppState;
use super::error::ApiError;
use super::json::json_object;
use super::models::ServedModel;
use super::query::Query;
use super::request_context::RequestContext;
use crate::bench::Limits;
use crate::engine::PhaseProfile;
use crate::kernels::attention::KERNELS;
use crate::memory::{self, Memory};
use crate::model::OperationTime;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;
use tokio::sync::{Mutex as Turn, oneshot};

/// Measurements of a server.
pub struct Measurements {
    started: Instant,
    turn: Arc<Turn<()>>,
    /// The machine's limits, once measured, and when.
    limits: Mutex<Option<(Limits, Instant)>>,
}

impl Default for Measurements {
    fn default() -> Self {
        Self { started: Instant::now(), turn: Arc::default(), limits: Mutex::default() }
    }
}

impl Measurements {
    fn limits(&self) -> MutexGuard<'_, Option<(Limits, Instant)>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Measures on a thread of its own, after other measurements.
    async fn run<T: Send + 'static>(
        &self,
        measure: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            let _turn = turn;
            let _ = sender.send(measure()); // the client may have gone
        };
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!("{error}");
            ApiError::internal("the measurement failed")
        };
        let thread = thread::Builder::new().name("hornbook-measure".into()).spawn(work);
        thread.map_err(|error| failed(&error))?;
        receiver.await.unwrap_or_else(|panicked| Err(failed(&panicked)))
    }
}

/// Retrieve what a model's engine does now, and the operations of its latest completion.
#[utoipa::path(get, path = "/measure", operation_id = "getMeasure", tag = "measure",
    params(("model" = Option<String>, Query, max_length = 256,
        description = "The model; required if several are served")),
    responses((status = 200, body = serde_json::Value,
        description = "Counters of the engine, memory, the machine's limits once measured, and the times, \
                       bytes and FLOPs of the operations of the completion that started last, prefill and \
                       decode apart, with the names of `hornbook bench roofline --json`"),
        (status = 400, body = super::error::ErrorBody, description = "The model is missing"),
        (status = 404, body = super::error::ErrorBody, description = "No such model"),))]
pub async fn retrieve(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Query,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, query.text("model"), context.key().as_deref())?;
    context.set_model(&name);
    Ok(json_object(&state_json(&app, &served)))
}

fn state_json(app: &AppState, served: &ServedModel) -> Value {
    let (engine, model) = (&served.engine, served.hornbook().model());
    let statistics = engine.statistics();
    let limits = app.measurements.limits().map(|(limits, _)| limits);
    let latest = engine.profile().map(|profile| {
        let phases = [("prefill", &profile.prefill), ("decode", &profile.decode)];
        json!({
            "prompt_tokens": profile.prompt_tokens,
            "cached_tokens": profile.cached_tokens,
            "phases": phases.map(|(name, phase)| phase_json(name, phase, limits.as_ref())),
        })
    });
    let memory = Memory::now();
    json!({
        "model": served.name,
        "seconds": app.measurements.started.elapsed().as_secs_f64(),
        "run": {
            "threads": model.pool().threads(), "isa": model.pool().isa().name(),
            "attention": model.attention().name(), "kv_precision": engine.kv_precision().name(),
            "n_head": served.config().n_head, "n_positions": served.config().n_positions,
            "vocab_size": served.config().vocab_size,
            "kernels": KERNELS.iter().map(|kernel| kernel.name()).collect::<Vec<_>>(),
        },
        "engine": {
            "running": statistics.running,
            "waiting": statistics.waiting,
            "max_concurrency": app.max_concurrency,
            "kv_bytes": statistics.kv_bytes,
            "steps": statistics.steps,
            "batch_sizes": statistics.batch_sizes,
            "prompt_tokens": statistics.prompt_tokens_computed,
            "prompt_tokens_cached": statistics.prompt_tokens_cached,
            "generated_tokens": statistics.generated_tokens,
            "prefix_cache_hits": statistics.prefix_cache_hits,
            "prefix_cache_misses": statistics.prefix_cache_misses,
            "prefix_cache_entries": statistics.prefix_cache_entries,
            "prefix_cache_bytes": statistics.prefix_cache_bytes,
        },
        "memory": {
            "anonymous_bytes": memory.map(|memory| memory.anonymous),
            "file_bytes": memory.map(|memory| memory.file),
            "available_bytes": memory::available(),
        },
        "limits": limits.map(limits::to_json),
        "latest": latest,
    })
}

fn phase_json(name: &str, phase: &PhaseProfile, limits: Option<&Limits>) -> Value {
    let operation = |operation: &OperationTime| {
        let mut value = json!({
            "operation": operation.name,
            "calls": operation.calls,
            "seconds": operation.seconds,
            "bytes": operation.bytes,
            "flops": operation.flops,
        });
        if let Some(limits) = limits {
            let (bound, memory_bound) = limits.bound(operation.bytes, operation.flops);
            value["bound_by"] = json!(if memory_bound { "memory" } else { "compute" });
            value["fraction_of_roofline"] = json!(bound / operation.seconds);
        }
        value
    };
    json!({
        "phase": name,
        "tokens": phase.tokens,
        "passes": phase.passes,
        "max_batch_size": phase.max_batch_size,
        "seconds": phase.operations.iter().map(|operation| operation.seconds).sum::<f64>(),
        "operations": phase.operations.iter().map(operation).collect::<Vec<_>>(),
    })
}
