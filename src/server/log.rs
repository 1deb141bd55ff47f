//! What is remembered of a request while it runs, and the one line that is written when it is over, however it ends.

use super::keys::Key;
use super::limits::Reservation;
use super::metrics::Metrics;
use crate::engine::Event;
use crate::generate::FinishReason;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request. It is over when the last who holds it lets go: the handler, or the stream it has opened.
#[derive(Debug)]
pub struct Call {
    /// Its id, as in the `x-request-id` header.
    pub id: String,
    /// The method and the path as it was routed, such as `POST /completions`.
    route: String,
    started: Instant,
    metrics: Arc<Metrics>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    key: Option<Arc<Key>>,
    model: Option<String>,
    prompt: Option<String>,
    prompt_tokens: usize,
    completion_tokens: usize,
    first_token: Option<Duration>,
    reason: Option<FinishReason>,
    reservation: Option<Reservation>,
    /// A stream has begun and has not come to its end.
    open: bool,
    status: Option<u16>,
}

impl Call {
    /// A request that has just come in.
    pub fn new(id: String, route: String, metrics: Arc<Metrics>) -> Self {
        Self { id, route, started: Instant::now(), metrics, told: Mutex::default() }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key it came with.
    pub fn key(&self) -> Option<Arc<Key>> {
        self.told().key.clone()
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whose it is.
    pub fn came_with(&self, key: Arc<Key>) {
        self.told().key = Some(key);
    }

    /// The model it asks for, as it calls it.
    pub fn asks_for(&self, model: &str) {
        self.told().model = Some(model.to_string());
    }

    /// The model will compute it: its prompts have this many tokens together.
    pub fn admitted(&self, prompt_tokens: usize) {
        self.told().prompt_tokens = prompt_tokens;
    }

    /// The prompt itself, where the operator wants it written down.
    pub fn prompt(&self, prompt: String) {
        self.told().prompt = Some(prompt);
    }

    /// Tokens put aside for it.
    pub fn reserved(&self, reservation: Option<Reservation>) {
        self.told().reservation = reservation;
    }

    /// What the model has come up with.
    pub fn sees(&self, event: &Event) {
        match event {
            Event::Token { .. } => {
                let mut told = self.told();
                told.completion_tokens += 1;
                if told.first_token.is_none() {
                    let elapsed = self.elapsed();
                    told.first_token = Some(elapsed);
                    self.metrics.first_token(elapsed);
                }
            }
            // Of several choices, one that was cut short is the one worth knowing of.
            Event::Finished { reason, .. } => {
                let mut told = self.told();
                if told.reason != Some(FinishReason::Length) {
                    told.reason = Some(*reason);
                }
            }
            Event::Prompt(_) | Event::Embedding(_) | Event::Failed(_) => {}
        }
    }

    /// A stream begins; unless it comes to its [end](Self::ended), whoever read it has gone.
    pub fn begins(&self) {
        self.told().open = true;
    }

    /// The stream has come to its end.
    pub fn ended(&self) {
        self.told().open = false;
    }

    /// The answer's status.
    pub fn answered(&self, status: u16) {
        self.told().status = Some(status);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let elapsed = self.elapsed();
        let told = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reservation) = told.reservation.take() {
            reservation.settle((told.prompt_tokens + told.completion_tokens) as u64);
        }
        let cancelled = told.open || told.status.is_none();
        let finish = if cancelled { Some("cancelled") } else { told.reason.map(FinishReason::as_str) };
        self.metrics.request(&self.route, told.status, cancelled, elapsed);
        let milliseconds = |duration: Duration| (duration.as_secs_f64() * 1e4).round() / 10.0;
        tracing::info!(
            target: "hornbook::request",
            id = self.id,
            key = told.key.as_ref().map(|key| key.name.as_str()),
            model = told.model,
            status = told.status,
            prompt_tokens = told.prompt_tokens,
            completion_tokens = told.completion_tokens,
            first_token_ms = told.first_token.map(milliseconds),
            ms = milliseconds(elapsed),
            finish,
            prompt = told.prompt,
            "{}",
            self.route
        );
    }
}
