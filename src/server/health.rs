//! `/health`: whether the server is ready.

use super::json::json_object;
use axum::response::Response;
use serde_json::json;
use utoipa::ToSchema;

/// Report whether the server is ready.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "server", responses(
    (status = 200, body = Health, description = "The server accepts requests")))]
pub async fn health() -> Response {
    // If the server is not ready, the request was already rejected with 503.
    json_object(&json!({"status": "ok"}))
}

/// The answer of `/health`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct Health {
    /// `ok`
    status: &'static str,
}
