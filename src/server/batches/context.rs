//! What the work on all batches shares.

use super::object::StoredBatch;
use crate::server::AppState;
use crate::server::collections::Collections;
use crate::server::store::Entry;
use axum::Router;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Size of a request line around its body.
const AROUND_BODY_BYTES: u64 = 4096;

/// What the work on all batches shares.
pub(super) struct BatchContext {
    pub(super) app: Arc<AppState>,
    pub(super) collections: Arc<Collections>,
    pub(super) router: Router,
    /// Requests computed at the same time.
    pub(super) slots: Semaphore,
}

impl BatchContext {
    pub(super) fn new(app: Arc<AppState>, collections: Arc<Collections>, router: Router) -> Self {
        let slots = Semaphore::new(app.max_concurrency.max(1));
        Self { app, collections, router, slots }
    }

    /// Returns a batch, whoever owns it.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Entry<StoredBatch>>> {
        self.collections.batches.collection().find(id)
    }

    /// Maximum size of an input line: that of a body, and what is around it.
    pub(super) fn max_line_bytes(&self) -> u64 {
        (self.app.http.max_body_bytes as u64).saturating_add(AROUND_BODY_BYTES)
    }
}
