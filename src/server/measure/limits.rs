//! `/measure/limits`: the machine's limits.

use crate::bench::{Limits, ReadBandwidth, fma_peak};
use crate::engine::Engine;
use crate::memory;
use crate::server::AppState;
use crate::server::error::ApiError;
use crate::server::json::{Json, RequestBody, json_object};
use crate::server::request_context::RequestContext;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// Measurements of each limit, of which the best counts: other programs can only make them worse.
const REPEAT: usize = 4;
/// Age from which limits are measured again.
const MIN_AGE: Duration = Duration::from_secs(5);

/// A request to measure the machine's limits.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct LimitsRequest {
    /// The model whose threads are measured; required if several are served.
    model: Option<String>,
}

impl RequestBody for LimitsRequest {}

/// Measure the machine's read bandwidth and peak, unless they were measured in the last seconds.
#[utoipa::path(post, path = "/measure/limits", operation_id = "measureLimits", tag = "measure",
    request_body = LimitsRequest, responses((status = 200, body = serde_json::Value,
        description = "Read bandwidth and peak, which `GET /measure` returns from now on")))]
pub async fn measure(
    State(app): State<Arc<AppState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Json(request): Json<LimitsRequest>,
) -> Result<Response, ApiError> {
    let (served, name) = app.models.resolve(None, request.model.as_deref(), context.key().as_deref())?;
    context.set_model(&name);
    let measuring = Arc::clone(&app);
    let measure = move || {
        let kept = *measuring.measurements.limits();
        if let Some((limits, _)) = kept.filter(|(_, measured)| measured.elapsed() < MIN_AGE) {
            return Ok(limits);
        }
        let limits = measure_between_steps(&served.engine)?;
        *measuring.measurements.limits() = Some((limits, Instant::now()));
        Ok(limits)
    };
    Ok(json_object(&to_json(app.measurements.run(measure).await?)))
}

fn measure_between_steps(engine: &Engine) -> Result<Limits, ApiError> {
    let (needed, available) = (ReadBandwidth::buffer_bytes() as u64, memory::available());
    if available < 2 * needed {
        return Err(ApiError::internal(format!(
            "{available} bytes of memory are free, expected twice the {needed} that the measurement reads"
        )));
    }
    let memory = ReadBandwidth::new().map_err(|error| ApiError::failed(&error))?;
    let mut limits = Limits { bandwidth: 0.0, peak: 0.0 };
    for _ in 0..REPEAT {
        let bandwidth = engine.between_steps(|hornbook| memory.measure_passes(hornbook.model().pool(), 1));
        let peak = engine.between_steps(|hornbook| fma_peak(hornbook.model().pool()));
        limits = Limits { bandwidth: limits.bandwidth.max(bandwidth), peak: limits.peak.max(peak) };
    }
    Ok(limits)
}

/// The limits with the names of `hornbook bench --json`.
pub fn to_json(limits: Limits) -> Value {
    json!({"bandwidth_gb_per_s": limits.bandwidth / 1e9, "peak_gflops": limits.peak / 1e9})
}
