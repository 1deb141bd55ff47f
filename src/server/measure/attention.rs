//! `/measure/attention`: attention kernels compared on random queries, keys and values.

use crate::bench::{AttentionBenchmark, AttentionPhase, AttentionShape, Summary};
use crate::engine::Engine;
use crate::kernels::attention::{AttentionKernel, KERNELS, by_name};
use crate::server::AppState;
use crate::server::error::ApiError;
use crate::server::json::{Json, RequestBody, json_object};
use crate::server::ranges::integer_in_range;
use crate::server::request_context::RequestContext;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// The largest length.
const MAX_SEQ: usize = 1024;
const DEFAULT_SEQ: usize = 256;
/// Maximum samples of a kernel, and the seconds after which no more are taken.
const MAX_SAMPLES: usize = 9;
const MAX_SECONDS: f64 = 0.2;
/// Multiply-adds of the slowest kernel, `textbook`, between two steps: it makes some hundred million of them
/// per second. As many heads are measured as that allows.
const MAX_MULTIPLY_ADDS: usize = 80_000_000;
/// What it takes `textbook` to convert the keys and values of a position, in query-key pairs.
const CONVERSION_PAIRS: usize = 16;

/// A request to compare attention kernels.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct AttentionRequest {
    /// The model whose heads and threads are measured; required if several are served.
    model: Option<String>,
    /// Names of kernels; by default all.
    kernels: Option<Vec<String>>,
    /// `prefill` (the default), all tokens at once, or `decode`, the last token.
    phase: Option<String>,
    /// Tokens of the sequence; by default 256.
    seq: Option<i64>,
}

impl RequestBody for AttentionRequest {}

/// Compare attention kernels on the heads of a model.
#[utoipa::path(post, path = "/measure/attention", operation_id = "measureAttention", tag = "measure",
    request_body = AttentionRequest, responses((status = 200, body = serde_json::Value,
        description = "Times, workspace and errors against the reference of every kernel, with the names of \
                       `hornbook bench attention --json`")))]
pub async fn measure(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<AttentionRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, request.model.as_deref(), context.key().as_deref())?;
    context.set_model(&name);
    let kernels = named(request.kernels)?;
    let phase = match request.phase.as_deref() {
        None | Some("prefill") => AttentionPhase::Prefill,
        Some("decode") => AttentionPhase::Decode,
        Some(other) => {
            let message = format!("found {other:?}, expected \"prefill\" or \"decode\"");
            return Err(ApiError::invalid_param("phase", message));
        }
    };
    let seq = integer_in_range("seq", request.seq, 1..=MAX_SEQ)?.unwrap_or(DEFAULT_SEQ);
    let n_head = served.config().n_head;
    let head_dim = served.config().n_embd / n_head;
    let kv_precision = served.engine.kv_precision();
    let shape = AttentionShape { phase, seq, batch: 1, heads: n_head, head_dim, kv_precision };
    let shape = AttentionShape { heads: measured_heads(shape), ..shape };
    let measured = move || Ok(measure_between_steps(&served.engine, shape, &kernels));
    Ok(json_object(&app.measurements.run(measured).await?))
}

fn named(names: Option<Vec<String>>) -> Result<Vec<&'static dyn AttentionKernel>, ApiError> {
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(KERNELS.to_vec()) };
    if names.len() > KERNELS.len() {
        let message = format!("found {} names, expected at most {}", names.len(), KERNELS.len());
        return Err(ApiError::invalid_param("kernels", message));
    }
    let parse = |name: &String| {
        by_name(name).map_err(|error| ApiError::invalid_param("kernels", format!("found {name:?}, {error}")))
    };
    names.iter().map(parse).collect()
}

/// The heads that are measured, of all that the shape has.
fn measured_heads(shape: AttentionShape) -> usize {
    let queries = shape.queries();
    let pairs = queries * (2 * shape.seq - queries + 1) / 2 + CONVERSION_PAIRS * shape.seq;
    let per_head = 2 * shape.head_dim * pairs * shape.layers();
    (MAX_MULTIPLY_ADDS / per_head).clamp(1, shape.heads)
}

fn measure_between_steps(
    engine: &Engine,
    shape: AttentionShape,
    kernels: &[&'static dyn AttentionKernel],
) -> Value {
    let pool = engine.hornbook().model().pool();
    let mut benchmark = engine.between_steps(|_| AttentionBenchmark::new(pool, shape));
    let results = kernels.iter().map(|kernel| kernel_json(engine, &mut benchmark, shape, *kernel));
    let results: Vec<Value> = results.collect();
    json!({
        "phase": shape.phase.name(), "seq": shape.seq, "queries": shape.queries(), "batch": shape.batch,
        "heads": shape.heads, "n_head": engine.hornbook().config().n_head, "head_dim": shape.head_dim,
        "kv_precision": shape.kv_precision.name(), "threads": pool.threads(), "results": results,
    })
}

fn kernel_json(
    engine: &Engine,
    benchmark: &mut AttentionBenchmark,
    shape: AttentionShape,
    kernel: &'static dyn AttentionKernel,
) -> Value {
    let pool = engine.hornbook().model().pool();
    let workspace_bytes = engine.between_steps(|_| benchmark.warm_up(kernel, pool));
    let (max_absolute_error, max_relative_error) =
        engine.between_steps(|_| benchmark.max_errors(kernel, pool));
    let sweeps = engine.between_steps(|_| benchmark.sweeps_per_sample(kernel, pool));
    let (start, mut samples) = (Instant::now(), vec![]);
    while samples.len() < MAX_SAMPLES && (samples.is_empty() || start.elapsed().as_secs_f64() < MAX_SECONDS) {
        samples.push(engine.between_steps(|_| benchmark.sample(kernel, pool, sweeps)));
    }
    let seconds = Summary::new(&samples);
    json!({
        "kernel": kernel.name(),
        "description": kernel.description(),
        "median_seconds": seconds.median,
        "min_seconds": seconds.min,
        "samples_seconds": seconds.samples,
        "achieved_gflops": shape.flops(kernel.mask()) / seconds.median / 1e9,
        "workspace_bytes": workspace_bytes,
        "max_absolute_error": max_absolute_error,
        "max_relative_error": max_relative_error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::KvPrecision;

    #[test]
    fn heads_are_measured_as_far_as_the_slowest_kernel_is_quick() {
        let shape = |phase, seq| AttentionShape {
            phase,
            seq,
            batch: 1,
            heads: 12,
            head_dim: 64,
            kv_precision: KvPrecision::F32,
        };
        assert_eq!(measured_heads(shape(AttentionPhase::Prefill, 1)), 12);
        assert_eq!(measured_heads(shape(AttentionPhase::Prefill, 128)), 12);
        assert_eq!(measured_heads(shape(AttentionPhase::Prefill, 512)), 4);
        assert_eq!(measured_heads(shape(AttentionPhase::Prefill, MAX_SEQ)), 1);
        assert_eq!(measured_heads(shape(AttentionPhase::Decode, MAX_SEQ)), 2);
    }
}
