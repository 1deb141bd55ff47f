//! Bounds on the memory that requests take before the engine has them: bodies in flight, and work such as
//! parsing and tokenization, which takes many times the size of its text.

use super::error::ApiError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Maximum size of all large bodies together; a single one may have the maximum size of a body.
const BODIES_BYTES: usize = 32 << 20;
/// Size up to which a body is small: it is neither counted nor parsed on a thread of its own.
const SMALL_BODY_BYTES: usize = 32 << 10;
/// Pieces of work done at once, and threads that do them: the allocator keeps freed memory for each thread.
pub const WORK_PERMITS: usize = 2;
/// Size from which work is done alone.
const EXCLUSIVE_WORK_BYTES: usize = 256 << 10;

const KIB: usize = 1 << 10;

/// Memory of the requests in progress.
pub struct RequestMemory {
    /// One permit per KiB.
    bodies: Arc<Semaphore>,
    bodies_kib: usize,
    work: Arc<Semaphore>,
}

impl RequestMemory {
    /// Memory for bodies of at most `max_body_bytes`.
    pub fn new(max_body_bytes: usize) -> Self {
        let bodies_kib = (max_body_bytes.max(BODIES_BYTES) / KIB).min(Semaphore::MAX_PERMITS.min(1 << 31));
        Self {
            bodies: Arc::new(Semaphore::new(bodies_kib)),
            bodies_kib,
            work: Arc::new(Semaphore::new(WORK_PERMITS)),
        }
    }

    /// Reserves memory for a body until the permit is dropped; a small one needs none.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub async fn reserve_body(
        &self,
        bytes: usize,
        max_wait: Duration,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if bytes <= SMALL_BODY_BYTES {
            return Ok(None);
        }
        let permits = bytes.div_ceil(KIB).min(self.bodies_kib) as u32;
        let permit = timeout(max_wait, Arc::clone(&self.bodies).acquire_many_owned(permits)).await;
        permit.ok().and_then(Result::ok).map(Some).ok_or_else(ApiError::busy)
    }

    /// Runs work on a text of this size on a blocking thread, once it is its turn. Dropped before that, it
    /// never runs.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permits = if bytes >= EXCLUSIVE_WORK_BYTES { WORK_PERMITS } else { 1 };
        let permit = Arc::clone(&self.work).acquire_many_owned(permits as u32).await;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!("{error}");
            Err(ApiError::internal("the request could not be processed"))
        })
    }

    /// Runs work on a body: on this thread if it is small.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn run_on_body<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if bytes <= SMALL_BODY_BYTES { work() } else { self.run(bytes, work).await }
    }
}
