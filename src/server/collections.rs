//! The collections of the store: everything that clients create and the server keeps.

use super::AppState;
use super::batches::Batches;
use super::error::ApiError;
use super::files::Files;
use super::store::Store;
use crate::Result;
use std::sync::Arc;
use std::time::Duration;

/// Interval at which what has expired is removed. It does not exist from the second of its expiry on.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The collections of a store.
pub struct Collections {
    /// The store they are in.
    pub store: Arc<Store>,
    /// Files.
    pub files: Files,
    /// Batches.
    pub batches: Batches,
}

impl Collections {
    /// Opens all collections of a store.
    ///
    /// # Errors
    /// Those of [`Collection::open`](super::store::Collection::open).
    pub fn open(store: Arc<Store>) -> Result<Self> {
        Ok(Self { files: Files::open(&store)?, batches: Batches::open(&store)?, store })
    }

    /// Returns the number of objects of each kind.
    pub fn counts(&self) -> [(&'static str, usize); 2] {
        [("files", self.files.collection().len()), ("batches", self.batches.collection().len())]
    }

    fn remove_expired(&self) {
        for removed in [self.files.collection().remove_expired()] {
            match removed {
                Ok(0) => {}
                Ok(n) => tracing::info!("removed {n} objects that had expired"),
                Err(error) => tracing::error!("{error}"),
            }
        }
    }
}

impl AppState {
    /// Returns the collections; `objects` are what the route keeps there, such as `files`.
    ///
    /// # Errors
    /// 404 on a server without a store.
    pub fn collections(&self, objects: &str) -> std::result::Result<&Arc<Collections>, ApiError> {
        self.collections.as_ref().ok_or_else(|| ApiError::no_store(objects))
    }

    /// Runs work on the store where it holds up no other request.
    ///
    /// # Errors
    /// Those of the work, as a response.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, ApiError> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result.map_err(|error| ApiError::from_store_error(&error)),
            Err(error) => Err(ApiError::internal(format!("the request could not be processed: {error}"))),
        }
    }
}

/// Removes what expires, for as long as the server runs.
pub async fn remove_expired(collections: Arc<Collections>) {
    loop {
        let collections = Arc::clone(&collections);
        let _ = tokio::task::spawn_blocking(move || collections.remove_expired()).await;
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}
