//! Request context: the facts recorded about a request while it runs, and its log line when it ends.

use super::connection_table::Connection;
use super::keys::Key;
use super::metrics::Metrics;
use super::rate_limit::Reservation;
use crate::engine::{Event, Priority};
use crate::generate::FinishReason;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// What the page asks every second while somebody looks: the log has no line of it.
const LIVE_ROUTE: &str = "GET /measure";

/// Context of a request, shared by middleware, handler and event stream. Dropping the last reference ends the
/// request: its unused tokens are refunded, its metrics recorded and its log line written.
#[derive(Debug)]
pub struct RequestContext {
    /// Request id, as in the `x-request-id` header.
    pub id: String,
    /// Method and route, such as `POST /completions`.
    route: String,
    /// Priority of the computation: that of the request's extensions, if it has one.
    pub priority: Priority,
    started: Instant,
    metrics: Arc<Metrics>,
    record: Mutex<RequestRecord>,
}

#[derive(Debug, Default)]
struct RequestRecord {
    key: Option<Arc<Key>>,
    model: Option<String>,
    prompt: Option<String>,
    prompt_tokens: usize,
    completion_tokens: usize,
    first_token: Option<Duration>,
    reason: Option<FinishReason>,
    reservation: Option<Reservation>,
    connection: Option<Arc<Connection>>,
    body_memory: Option<OwnedSemaphorePermit>,
    /// A stream has started and not finished.
    stream_open: bool,
    status: Option<u16>,
}

impl RequestContext {
    /// Context of a request that has just arrived.
    pub fn new(id: String, route: String, priority: Priority, metrics: Arc<Metrics>) -> Self {
        Self { id, route, priority, started: Instant::now(), metrics, record: Mutex::default() }
    }

    fn record(&self) -> MutexGuard<'_, RequestRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the API key entry, if keys are required.
    pub fn key(&self) -> Option<Arc<Key>> {
        self.record().key.clone()
    }

    /// Returns the owner of what the request creates: the key's name, or nothing if none is required.
    pub fn owner(&self) -> String {
        self.key().map_or_else(String::new, |key| key.name.clone())
    }

    /// Returns the time since the request arrived.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets the authenticated key.
    pub fn set_key(&self, key: Arc<Key>) {
        self.record().key = Some(key);
    }

    /// Sets the connection the request came by.
    pub fn set_connection(&self, connection: Arc<Connection>) {
        self.record().connection = Some(connection);
    }

    /// Returns the connection the request came by; `None` in process.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.record().connection.clone()
    }

    /// Keeps the memory reserved for the request's body until the request ends.
    pub fn keep_body_memory(&self, permit: Option<OwnedSemaphorePermit>) {
        self.record().body_memory = permit;
    }

    /// Waits until the client has closed its side of the connection.
    pub async fn closed_by_client(&self) {
        match self.connection() {
            Some(connection) => connection.closed_by_client().await,
            None => std::future::pending().await,
        }
    }

    /// Sets the model name, as given in the request.
    pub fn set_model(&self, model: &str) {
        self.record().model = Some(model.to_string());
    }

    /// Sets the token count of all prompts, once the engine has accepted them.
    pub fn set_prompt_tokens(&self, prompt_tokens: usize) {
        self.record().prompt_tokens = prompt_tokens;
    }

    /// Sets the prompt to be logged.
    pub fn set_prompt(&self, prompt: String) {
        self.record().prompt = Some(prompt);
    }

    /// Sets the token reservation.
    pub fn set_reservation(&self, reservation: Option<Reservation>) {
        self.record().reservation = reservation;
    }

    /// Records an engine event.
    pub fn record_event(&self, event: &Event) {
        match event {
            Event::Token { .. } => {
                let mut record = self.record();
                record.completion_tokens += 1;
                if record.first_token.is_none() {
                    let elapsed = self.elapsed();
                    record.first_token = Some(elapsed);
                    self.metrics.observe_first_token(elapsed);
                }
            }
            // With several choices, "length" takes precedence in the log.
            Event::Finished { reason, .. } => {
                let mut record = self.record();
                if record.reason != Some(FinishReason::Length) {
                    record.reason = Some(*reason);
                }
            }
            Event::Prompt(_) | Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    /// Marks the stream as started; unless it is [finished](Self::stream_finished) later, the request counts
    /// as cancelled.
    pub fn stream_started(&self) {
        self.record().stream_open = true;
    }

    /// Marks the stream as finished.
    pub fn stream_finished(&self) {
        self.record().stream_open = false;
    }

    /// Sets the response status.
    pub fn set_status(&self, status: u16) {
        self.record().status = Some(status);
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        let elapsed = self.elapsed();
        let record = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reservation) = record.reservation.take() {
            reservation.settle((record.prompt_tokens + record.completion_tokens) as u64);
        }
        let cancelled = record.stream_open || record.status.is_none();
        let finish = if cancelled { Some("cancelled") } else { record.reason.map(FinishReason::as_str) };
        self.metrics.observe_request(&self.route, record.status, cancelled, elapsed);
        if self.route == LIVE_ROUTE && record.status == Some(200) {
            return;
        }
        let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
        tracing::info!(
            target: "hornbook::request",
            id = self.id,
            key = record.key.as_ref().map(|key| key.name.as_str()),
            model = record.model,
            status = record.status,
            prompt_tokens = record.prompt_tokens,
            completion_tokens = record.completion_tokens,
            first_token_ms = record.first_token.map(milliseconds),
            ms = milliseconds(elapsed),
            finish,
            prompt = record.prompt,
            "{}",
            self.route
        );
    }
}
